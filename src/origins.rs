//! Who made the files of an image that no package owns, as the image itself remembers it.
//!
//! The record is part of `meta.json` ([`crate::pkglist`]), so that it can be read without the manifests and
//! lockfiles the image was built from. What would change without a change of the files stays out of it: versions
//! of packages, lines of manifests.
//!
//! ```text
//! "strata.origins": {"%post(glibc)": ["/etc/ld.so.cache"],
//!                    "demo/node.toml [[symlink]] /etc/localtime": ["/etc/localtime"]}
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::actor::{Actor, Entry};

/// Origins of paths. That of a directory holds for what is in it, unless something else is said of that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, BTreeSet<String>>", into = "BTreeMap<String, BTreeSet<String>>")]
pub struct Origins {
    /// By absolute path.
    paths: BTreeMap<String, String>,
}

impl Origins {
    /// Reads them from `meta.json`; of an image that strata did not make there are none.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct MetaJson {
            #[serde(rename = "strata.origins", default)]
            origins: Origins,
        }
        let meta: MetaJson = serde_json::from_slice(bytes).context("reading the origins in meta.json")?;
        Ok(meta.origins)
    }

    /// Notes the origin of an absolute path; call it for directories before what is in them.
    pub fn insert(&mut self, path: &str, origin: String) {
        if self.of(path) != Some(&origin) {
            self.paths.insert(path.to_owned(), origin);
        }
    }

    /// The origin of an absolute path.
    pub fn of(&self, path: &str) -> Option<&str> {
        let known = |path: &Path| self.paths.get(path.to_str()?).map(String::as_str);
        Path::new(path).ancestors().find_map(known)
    }

    /// Paths and their origins, directories before what is in them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.paths.iter().map(|(path, origin)| (path.as_str(), origin.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

impl From<BTreeMap<String, BTreeSet<String>>> for Origins {
    fn from(by_origin: BTreeMap<String, BTreeSet<String>>) -> Self {
        let of = |(origin, paths): (String, BTreeSet<String>)| {
            paths.into_iter().map(move |path| (path, origin.clone()))
        };
        Self { paths: by_origin.into_iter().flat_map(of).collect() }
    }
}

impl From<Origins> for BTreeMap<String, BTreeSet<String>> {
    fn from(origins: Origins) -> Self {
        let mut by_origin: Self = BTreeMap::new();
        for (path, origin) in origins.paths {
            by_origin.entry(origin).or_default().insert(path);
        }
        by_origin
    }
}

/// What an image remembers of an actor: a scriptlet by the name of its package, a manifest's entry as
/// [`remembered_entry`] says.
pub fn remembered(actor: &Actor, manifests: &Path) -> String {
    match actor {
        Actor::Scriptlet { package, phase } => format!("%{phase}({})", package.name),
        Actor::Entry(entry) => remembered_entry(entry, manifests),
    }
}

/// What an image remembers of a manifest's entry: its key, and its file below the directory `manifests`.
pub fn remembered_entry(Entry { key, origin }: &Entry, manifests: &Path) -> String {
    format!("{} {key}", file_below(&origin.file, manifests).display())
}

/// The path of a manifest's file below the directory `manifests`, or its name: where that is on the build machine
/// is nothing an image should know.
pub fn file_below<'f>(file: &'f Path, manifests: &Path) -> &'f Path {
    file.strip_prefix(manifests).ok().or(file.file_name().map(Path::new)).unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::Nevra;
    use crate::package::header::Phase;
    use crate::plan::Origin;

    #[test]
    fn a_directory_speaks_for_what_is_in_it() {
        let mut origins = Origins::default();
        for (path, origin) in [("/a", "x"), ("/a/b", "x"), ("/a/b/c", "y"), ("/ab", "y"), ("/a/b/d", "x")] {
            origins.insert(path, origin.to_owned());
        }
        let json = serde_json::to_string(&origins).unwrap();
        assert_eq!(json, r#"{"x":["/a"],"y":["/a/b/c","/ab"]}"#);
        assert_eq!(
            origins,
            Origins::from_json(format!(r#"{{"strata.origins":{json}}}"#).as_bytes()).unwrap()
        );
        let of = ["/a/b/d/e", "/a/b/c/e", "/abc", "/"].map(|path| origins.of(path));
        assert_eq!(of, [Some("x"), Some("y"), None, None]);
        assert!(Origins::from_json(b"{}").unwrap().is_empty());
    }

    #[test]
    fn nothing_of_the_build_machine_is_remembered() {
        let package = Nevra { name: "zoo".into(), evr: "1-1".parse().unwrap(), arch: "noarch".into() };
        let post = Actor::Scriptlet { package, phase: Phase::Post };
        assert_eq!(remembered(&post, Path::new("/srv")), "%post(zoo)");
        for (file, expected) in
            [("/srv/m/demo/a.toml", "demo/a.toml kargs"), ("/else/a.toml", "a.toml kargs")]
        {
            let entry = Entry { key: "kargs".into(), origin: Origin { file: file.into(), line: 7 } };
            assert_eq!(remembered_entry(&entry, Path::new("/srv/m")), expected);
        }
    }
}
