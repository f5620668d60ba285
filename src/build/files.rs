//! Which package each path of a rootfs belongs to, from the headers of all installed packages.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;

use crate::package::header::Header;

/// `RPMFILE_GHOST` (rpm: `rpmfiles.h`): listed, not shipped.
const GHOST: u32 = 1 << 6;

/// The paths of the installed packages. Looked up, never iterated.
pub struct Files {
    sources: Vec<String>,
    paths: HashMap<String, Owner>,
}

struct Owner {
    /// Index into `sources`.
    source: u32,
    /// Time in the header of a regular file, UTC seconds.
    mtime: Option<u32>,
    ghost: bool,
}

impl Files {
    /// Collects the files of `packages`.
    pub fn of<'a>(packages: impl Iterator<Item = &'a Header>) -> Result<Self> {
        let mut files = Self { sources: Vec::new(), paths: HashMap::new() };
        for header in packages {
            let source = files.sources.len() as u32;
            files.sources.push(source_name(header.source()).to_owned());
            for file in header.files()? {
                let regular = file.mode & libc::S_IFMT == libc::S_IFREG;
                let owner =
                    Owner { source, mtime: regular.then_some(file.mtime), ghost: file.flags & GHOST != 0 };
                files.paths.insert(file.path, owner);
            }
        }
        Ok(files)
    }

    /// Whether a package ships this absolute path.
    pub fn is_packaged(&self, path: &str) -> bool {
        self.paths.get(path).is_some_and(|owner| !owner.ghost)
    }

    /// The source package, without version, of a path relative to the root.
    pub fn source_of(&self, path: &Path) -> Option<&str> {
        let owner = self.paths.get(&absolute(path)?)?;
        self.sources.get(owner.source as usize).map(String::as_str)
    }

    /// The time a path relative to the root has in its package's header, UTC seconds.
    pub fn mtime_of(&self, path: &Path) -> Option<i64> {
        self.paths.get(&absolute(path)?)?.mtime.map(i64::from)
    }
}

fn absolute(path: &Path) -> Option<String> {
    Some(format!("/{}", path.to_str()?))
}

/// The name in `NAME-VERSION-RELEASE.src.rpm`.
fn source_name(file: &str) -> &str {
    file.rsplitn(3, '-').nth(2).unwrap_or(file)
}
