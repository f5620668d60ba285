//! A folder of packages that were fetched before: by [`Fetcher::vendor`](super::Fetcher::vendor), or by another
//! tool with a layout of its own, as Konflux's hermeto (`deps/rpm/ARCH/REPO/FILE`).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Lazy, digest};
use crate::digest::Digest;
use crate::lock::LockedPackage;
use crate::repo::location;

pub(super) struct Vendor {
    dir: PathBuf,
    /// Every package file below the folder, by its name.
    files: Lazy<HashMap<OsString, Vec<PathBuf>>>,
}

impl Vendor {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), files: Lazy::default() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The package's file: at its own place, whatever it holds, else one of the same name and digest anywhere
    /// below the folder.
    pub fn find(&self, package: &LockedPackage) -> Result<Option<PathBuf>> {
        let own = self.dir.join(vendored(package)?);
        if own.exists() {
            return Ok(Some(own));
        }
        let files = self
            .files
            .get(|| package_files(&self.dir))
            .with_context(|| format!("looking for packages in {}", self.dir.display()))?;
        let named = own.file_name().and_then(|name| files.get(name));
        for path in named.into_iter().flatten() {
            if is_it(path, package).with_context(|| format!("reading {}", path.display()))? {
                return Ok(Some(path.clone()));
            }
        }
        Ok(None)
    }
}

/// Where a package is in a folder that strata made: `REPO/LOCATION`.
pub fn vendored(package: &LockedPackage) -> Result<String> {
    Ok(format!("{}/{}", location(&package.repo)?, location(&package.location)?))
}

fn is_it(path: &Path, package: &LockedPackage) -> Result<bool> {
    let mut file = File::open(path)?;
    Ok(file.metadata()?.len() == package.size && Digest::of_reader(&mut file)?.0 == digest(package)?)
}

/// The `.rpm` files below `dir`, by name; a folder that is yet to be made has none. Links to directories are not
/// followed.
fn package_files(dir: &Path) -> Result<HashMap<OsString, Vec<PathBuf>>> {
    let mut files: HashMap<OsString, Vec<PathBuf>> = HashMap::new();
    let mut left = if dir.exists() { vec![dir.to_owned()] } else { Vec::new() };
    while let Some(next) = left.pop() {
        let mut entries = fs::read_dir(&next)?.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            match entry.file_type()? {
                kind if kind.is_dir() => left.push(path),
                _ if path.extension().is_some_and(|end| end == "rpm") => {
                    files.entry(entry.file_name()).or_default().push(path);
                }
                _ => {}
            }
        }
    }
    Ok(files)
}
