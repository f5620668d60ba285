//! Image references, spelt as in containers-transports(5), plus `STREAM/LAYER[:VERSION]` for the store's.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::digest::Digest;

/// Where an image is, and perhaps its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Where it is.
    pub place: Place,
    /// What follows `@`: the digest of its manifest.
    pub digest: Option<Digest>,
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `oci:DIR[:NAME]`
    Layout {
        /// The layout.
        dir: PathBuf,
        /// Name in its index.
        name: Option<String>,
    },
    /// `oci-archive:FILE[:NAME]`
    Archive {
        /// A tar of a layout.
        file: PathBuf,
        /// Name in its index.
        name: Option<String>,
    },
    /// `docker://HOST/REPOSITORY[:TAG]`
    Registry {
        /// Host, with port if any.
        host: String,
        /// Path at the host.
        repository: String,
        /// `latest` for registries, if there is neither a tag nor a digest.
        tag: Option<String>,
    },
    /// `containers-storage:NAME`: podman's images.
    Storage {
        /// As podman takes it.
        name: String,
    },
    /// `STREAM/LAYER[:VERSION]`: an image of the store, under that name.
    Store {
        /// The name as written.
        name: String,
    },
}

/// The text is no image reference.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no image: expected oci:DIR[:NAME], oci-archive:FILE[:NAME], docker://HOST/REPOSITORY[:TAG], \
     containers-storage:NAME or STREAM/LAYER[:VERSION], with or without @sha256:DIGEST"
)]
pub struct ParseReferenceError(String);

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ParseReferenceError(text.to_owned());
        let (rest, digest) = match text.rsplit_once('@').map(|(rest, digest)| (rest, digest.parse())) {
            Some((rest, Ok(digest))) => (rest, Some(digest)),
            Some((rest, Err(_))) if rest.starts_with("docker://") => return Err(invalid()),
            _ => (text, None),
        };
        Ok(Self { place: place(rest).ok_or_else(invalid)?, digest })
    }
}

fn place(text: &str) -> Option<Place> {
    if let Some(rest) = text.strip_prefix("docker://") {
        return registry(rest);
    }
    if let Some(rest) = text.strip_prefix("oci-archive:") {
        let (file, name) = path_and_name(rest)?;
        return Some(Place::Archive { file, name });
    }
    if let Some(rest) = text.strip_prefix("oci:") {
        let (dir, name) = path_and_name(rest)?;
        return Some(Place::Layout { dir, name });
    }
    if let Some(name) = text.strip_prefix("containers-storage:") {
        return non_empty(name).map(|name| Place::Storage { name });
    }
    let (path, version) = text.split_once(':').map_or((text, None), |(path, version)| (path, Some(version)));
    let (stream, layer) = path.split_once('/')?;
    let parts = [Some(stream), Some(layer), version];
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    parts.into_iter().flatten().all(plain).then(|| Place::Store { name: text.to_owned() })
}

/// `HOST/REPOSITORY[:TAG]`, of letters that mean nothing in a URL (distribution-spec, "Pulling manifests").
fn registry(text: &str) -> Option<Place> {
    let (host, path) = text.split_once('/')?;
    let (repository, tag) = path.split_once(':').map_or((path, None), |(path, tag)| (path, Some(tag)));
    let is_of = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && is_of(part, "._-")
            && !part.contains(|c: char| c.is_ascii_uppercase())
    };
    let is_tag = |tag: &str| !tag.is_empty() && !tag.starts_with(['.', '-']) && is_of(tag, "._-");
    let is_well = !host.is_empty() && is_of(host, ".-:[]") && repository.split('/').all(is_part);
    (is_well && tag.is_none_or(is_tag)).then(|| Place::Registry {
        host: host.to_owned(),
        repository: repository.to_owned(),
        tag: tag.map(str::to_owned),
    })
}

/// `PATH[:NAME]`; the path ends at the first colon.
fn path_and_name(text: &str) -> Option<(PathBuf, Option<String>)> {
    let (path, name) = text.split_once(':').map_or((text, None), |(path, name)| (path, Some(name)));
    Some((non_empty(path)?.into(), name.and_then(non_empty)))
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = |name: &Option<String>| name.as_ref().map(|n| format!(":{n}")).unwrap_or_default();
        match &self.place {
            Place::Layout { dir, name } => write!(f, "oci:{}{}", dir.display(), suffix(name))?,
            Place::Archive { file, name } => write!(f, "oci-archive:{}{}", file.display(), suffix(name))?,
            Place::Registry { host, repository, tag } => {
                write!(f, "docker://{host}/{repository}{}", suffix(tag))?;
            }
            Place::Storage { name } => write!(f, "containers-storage:{name}")?,
            Place::Store { name } => f.write_str(name)?,
        }
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

impl Reference {
    /// What people call the image: the last part of its name.
    pub fn short_name(&self) -> &str {
        let name = match &self.place {
            Place::Layout { name: Some(name), .. }
            | Place::Archive { name: Some(name), .. }
            | Place::Storage { name }
            | Place::Store { name } => name,
            Place::Layout { dir: path, name: None } | Place::Archive { file: path, name: None } => {
                path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("image")
            }
            Place::Registry { repository, .. } => repository,
        };
        let last = name.rsplit('/').next().unwrap_or(name);
        last.split(':').next().unwrap_or(last)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn every_form_is_read_and_printed() {
        let layout = |name: Option<&str>| Place::Layout { dir: "out/dir".into(), name: name.map(Into::into) };
        let registry = |host: &str, tag: Option<&str>| Place::Registry {
            host: host.into(),
            repository: "ns/os".into(),
            tag: tag.map(Into::into),
        };
        let store = |name: &str| Place::Store { name: name.into() };
        let cases = [
            ("oci:out/dir", layout(None)),
            ("oci:out/dir:demo/node:9.6.20250203-0", layout(Some("demo/node:9.6.20250203-0"))),
            ("oci-archive:a.tar:x", Place::Archive { file: "a.tar".into(), name: Some("x".into()) }),
            ("docker://quay.io/ns/os:v1", registry("quay.io", Some("v1"))),
            ("docker://localhost:5000/ns/os", registry("localhost:5000", None)),
            ("containers-storage:localhost/x:y", Place::Storage { name: "localhost/x:y".into() }),
            ("demo/node", store("demo/node")),
            ("rhel-9.6/node:9.6.20250203-0", store("rhel-9.6/node:9.6.20250203-0")),
        ];
        for (text, place) in cases {
            let plain: Reference = text.parse().unwrap();
            assert_eq!(plain, Reference { place: place.clone(), digest: None }, "{text}");
            assert_eq!(plain.to_string(), text);
            let pinned = format!("{text}@{DIGEST}");
            let parsed: Reference = pinned.parse().unwrap();
            assert_eq!(parsed, Reference { place, digest: Some(DIGEST.parse().unwrap()) }, "{pinned}");
            assert_eq!(parsed.to_string(), pinned);
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "node",
            "oci:",
            "oci::x",
            "docker://",
            "docker://quay.io",
            "docker://quay.io/ns/os:",
            "docker://quay.io/ns/os:../x",
            "docker://quay.io/ns/../os",
            "docker://quay.io/ns//os",
            "docker://quay.io/ns/os?x",
            "docker://quay.io/ns/OS",
            "docker://kim@quay.io/ns/os",
            "docker://quay.io/ns/os@sha256:12",
            "containers-storage:",
            "../node",
            "demo/../node",
            "demo/node/x",
            "demo/node:",
            "demo/no de",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
