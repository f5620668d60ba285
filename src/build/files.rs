//! Which package each path of a rootfs belongs to, from the headers of all installed packages.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::Result;
use rayon::prelude::*;

use crate::image::packing::{Source, Sources};
use crate::package::header::Header;
use crate::package::source_name;

/// `RPMFILE_GHOST` (rpm: `rpmfiles.h`): listed, not shipped.
const GHOST: u32 = 1 << 6;

/// The paths of the installed packages. Looked up, never iterated.
pub struct Files {
    packages: Vec<Package>,
    /// By path, relative to the root.
    paths: HashMap<String, Owner>,
}

struct Package {
    /// Without version, as the source's.
    name: String,
    source: String,
    /// UTC seconds.
    built: u64,
    /// Times of the entries, UTC seconds.
    changelog: Vec<u64>,
}

impl Package {
    fn of(header: &Header) -> Result<Self> {
        Ok(Self {
            name: header.nevra().name.clone(),
            source: source_name(header.source()).to_owned(),
            built: header.build_time()?,
            changelog: header.changelog_times()?,
        })
    }
}

struct Owner {
    /// Index into `packages`.
    package: u32,
    /// Time in the header of a regular file, UTC seconds.
    mtime: Option<u32>,
    ghost: bool,
}

impl Files {
    /// Collects the files of `packages`.
    pub fn of<'a>(packages: impl ParallelIterator<Item = &'a Header>) -> Result<Self> {
        let read = packages.map(|header| Ok((Package::of(header)?, header.files()?)));
        let mut files = Self { packages: Vec::new(), paths: HashMap::new() };
        for (named, entries) in read.collect::<Result<Vec<_>>>()? {
            let package = files.packages.len() as u32;
            files.packages.push(named);
            for file in entries {
                let regular = file.mode & libc::S_IFMT == libc::S_IFREG;
                let owner =
                    Owner { package, mtime: regular.then_some(file.mtime), ghost: file.flags & GHOST != 0 };
                files.paths.insert(relative(&file.path).to_owned(), owner);
            }
        }
        Ok(files)
    }

    /// Whether a package ships this absolute path.
    pub fn is_packaged(&self, path: &str) -> bool {
        self.paths.get(relative(path)).is_some_and(|owner| !owner.ghost)
    }

    /// The name of the package that has this absolute path, be it a ghost.
    pub fn package_of(&self, path: &str) -> Option<&str> {
        Some(&self.package(self.paths.get(relative(path))?)?.name)
    }

    /// The name of the package that has this absolute path or the nearest directory above. The package of the
    /// top level, which everybody uses, says nothing.
    pub fn near(&self, path: &str) -> Option<&str> {
        let found = Path::new(path).ancestors().find_map(|path| self.package_of(path.to_str()?))?;
        let exact = self.paths.contains_key(relative(path));
        (exact || Some(found) != self.package_of("/var")).then_some(found)
    }

    fn package(&self, owner: &Owner) -> Option<&Package> {
        self.packages.get(owner.package as usize)
    }

    /// The source package, without version, of a path relative to the root.
    pub fn source_of(&self, path: &Path) -> Option<&str> {
        Some(&self.package(self.paths.get(path.to_str()?)?)?.source)
    }

    /// Whether a package lists a path relative to the root that it does not ship.
    pub fn is_ghost(&self, path: &Path) -> bool {
        path.to_str().and_then(|path| self.paths.get(path)).is_some_and(|owner| owner.ghost)
    }

    /// What is known of the source packages in `sizes`, which are in bytes.
    pub fn sources(&self, sizes: BTreeMap<String, u64>) -> Sources {
        let mut sources: Sources =
            sizes.into_iter().map(|(name, size)| (name, Source { size, ..Source::default() })).collect();
        for package in &self.packages {
            if let Some(source) = sources.get_mut(&package.source)
                && source.built <= package.built
            {
                source.built = package.built;
                source.changelog.clone_from(&package.changelog);
            }
        }
        sources
    }

    /// The time a path relative to the root has in its package's header, UTC seconds.
    pub fn mtime_of(&self, path: &Path) -> Option<i64> {
        self.paths.get(path.to_str()?)?.mtime.map(i64::from)
    }
}

fn relative(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}
