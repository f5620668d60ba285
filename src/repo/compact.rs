//! The packages of a repository in the form later runs read, which takes a fraction of the time of primary.xml.
//!
//! Each distinct dependency is written once, packages name them by number. A file is
//!
//! ```text
//! `strata packages 1\n`: what it is, and the version of the format
//! the length of what follows in bytes, and its CRC-32, little-endian
//! the document, in postcard's encoding
//! ```
//!
//! What is in the store is our own, so the checksum guards against accidents, not against malice; nevertheless any
//! bytes can be given to [`read`]. A file that is damaged, or of another version, is made again from primary.xml. Version
//! 1 is the first; a change of what is written here or in `filelists` is a new one.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::RepoPackage;
use crate::digest::Digest;
use crate::package::{Comparison, Dependency, Evr, Nevra};

/// The version of the format, of file lists too.
pub const VERSION: u32 = 1;

const KIND: &str = "packages";

#[derive(Serialize, Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    dependencies: Vec<PackedDependency<'a>>,
    packages: Vec<PackedPackage<'a>>,
}

#[derive(Serialize, Deserialize)]
struct PackedEvr<'a> {
    epoch: u32,
    version: &'a str,
    release: &'a str,
}

#[derive(Serialize, Deserialize)]
struct PackedDependency<'a> {
    name: &'a str,
    #[serde(borrow)]
    version: Option<(Comparison, PackedEvr<'a>)>,
    pre: bool,
}

#[derive(Serialize, Deserialize)]
struct PackedPackage<'a> {
    name: &'a str,
    #[serde(borrow)]
    evr: PackedEvr<'a>,
    arch: &'a str,
    sha256: Option<[u8; 32]>,
    size: u64,
    installed_size: u64,
    location: &'a str,
    source: &'a str,
    vendor: Option<&'a str>,
    build_time: u64,
    /// Numbers of dependencies, by kind in the order of [`relations`].
    relations: [Vec<u32>; 8],
    files: Vec<&'a str>,
}

/// Writes packages down.
pub fn write(packages: &[RepoPackage]) -> Result<Vec<u8>> {
    let mut numbers = HashMap::new();
    let mut document = Document { dependencies: Vec::new(), packages: Vec::with_capacity(packages.len()) };
    for package in packages {
        let relations = relations(package).map(|list| {
            let number = |dependency| {
                *numbers.entry(Arc::as_ptr(dependency)).or_insert_with(|| {
                    document.dependencies.push(PackedDependency::of(dependency));
                    document.dependencies.len() as u32 - 1
                })
            };
            list.iter().map(number).collect()
        });
        document.packages.push(PackedPackage::of(package, relations));
    }
    seal(KIND, &document)
}

/// Reads what [`write()`] wrote.
pub fn read(mut bytes: &[u8]) -> Result<Vec<RepoPackage>> {
    let part = first_part(&mut bytes, KIND)?;
    let document: Document = postcard::from_bytes(&part).context("reading packages")?;
    let dependencies: Vec<Arc<Dependency>> =
        document.dependencies.into_iter().map(|packed| Arc::new(packed.unpacked())).collect();
    document.packages.into_iter().map(|packed| packed.unpacked(&dependencies)).collect()
}

/// The dependencies of a package by kind.
fn relations(package: &RepoPackage) -> [&Vec<Arc<Dependency>>; 8] {
    let RepoPackage {
        provides,
        requires,
        conflicts,
        obsoletes,
        recommends,
        suggests,
        supplements,
        enhances,
        ..
    } = package;
    [provides, requires, conflicts, obsoletes, recommends, suggests, supplements, enhances]
}

impl<'a> PackedEvr<'a> {
    fn of(Evr { epoch, version, release }: &'a Evr) -> Self {
        Self { epoch: *epoch, version, release }
    }

    fn unpacked(&self) -> Evr {
        Evr::new(self.epoch, self.version, self.release)
    }
}

impl<'a> PackedDependency<'a> {
    fn of(Dependency { name, version, pre }: &'a Dependency) -> Self {
        let version = version.as_ref().map(|(comparison, evr)| (*comparison, PackedEvr::of(evr)));
        Self { name, version, pre: *pre }
    }

    fn unpacked(&self) -> Dependency {
        let version = self.version.as_ref().map(|(comparison, evr)| (*comparison, evr.unpacked()));
        Dependency { name: self.name.to_owned(), version, pre: self.pre }
    }
}

impl<'a> PackedPackage<'a> {
    fn of(package: &'a RepoPackage, relations: [Vec<u32>; 8]) -> Self {
        Self {
            name: &package.nevra.name,
            evr: PackedEvr::of(&package.nevra.evr),
            arch: &package.nevra.arch,
            sha256: package.sha256.map(|digest| *digest.as_bytes()),
            size: package.size,
            installed_size: package.installed_size,
            location: &package.location,
            source: &package.source,
            vendor: package.vendor.as_deref(),
            build_time: package.build_time,
            relations,
            files: package.files.iter().map(String::as_str).collect(),
        }
    }

    fn unpacked(self, dependencies: &[Arc<Dependency>]) -> Result<RepoPackage> {
        let list = |numbers: &Vec<u32>| -> Result<Vec<Arc<Dependency>>> {
            let shared = |&number| dependencies.get(number as usize).cloned();
            numbers.iter().map(shared).collect::<Option<_>>().context("a dependency is missing")
        };
        let [provides, requires, conflicts, obsoletes, recommends, suggests, supplements, enhances] =
            &self.relations;
        Ok(RepoPackage {
            nevra: Nevra { name: self.name.to_owned(), evr: self.evr.unpacked(), arch: self.arch.to_owned() },
            sha256: self.sha256.map(Digest::from_bytes),
            size: self.size,
            installed_size: self.installed_size,
            location: self.location.to_owned(),
            source: self.source.to_owned(),
            vendor: self.vendor.map(str::to_owned),
            build_time: self.build_time,
            provides: list(provides)?,
            requires: list(requires)?,
            conflicts: list(conflicts)?,
            obsoletes: list(obsoletes)?,
            recommends: list(recommends)?,
            suggests: list(suggests)?,
            supplements: list(supplements)?,
            enhances: list(enhances)?,
            files: self.files.into_iter().map(str::to_owned).collect(),
        })
    }
}

/// A value as the first part of a file.
pub(super) fn seal(kind: &str, value: &impl Serialize) -> Result<Vec<u8>> {
    let body = postcard::to_stdvec(value)?;
    let length = u32::try_from(body.len()).context("the metadata are too large to be kept")?;
    let mut bytes = title(kind).into_bytes();
    bytes.extend(length.to_le_bytes());
    bytes.extend(crc32fast::hash(&body).to_le_bytes());
    bytes.extend(body);
    Ok(bytes)
}

/// The first part of a file, as [`seal`] made it; leaves `file` behind it.
pub(super) fn first_part(file: &mut impl Read, kind: &str) -> Result<Vec<u8>> {
    let title = title(kind);
    let mut head = vec![0; title.len() + 8];
    file.read_exact(&mut head).context("reading its title")?;
    let (found, numbers) = head.split_at(title.len());
    ensure!(found == title.as_bytes(), "it does not begin with {title:?}");
    let word =
        |at: usize| u32::from_le_bytes([numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]]);
    let mut body = Vec::new();
    file.take(word(0).into()).read_to_end(&mut body)?;
    if body.len() as u64 != u64::from(word(0)) || crc32fast::hash(&body) != word(4) {
        bail!("it is damaged");
    }
    Ok(body)
}

fn title(kind: &str) -> String {
    format!("strata {kind} {VERSION}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages() -> Vec<RepoPackage> {
        let plain = |name: &str| Arc::new(Dependency { name: name.into(), version: None, pre: false });
        let versioned = Arc::new(Dependency {
            name: "lib".into(),
            version: Some((Comparison::Ge, Evr::new(1, "2", ""))),
            pre: true,
        });
        let [shared, rich] = ["libc.so.6()(64bit)", "(a if b)"].map(plain);
        let first = RepoPackage {
            nevra: Nevra { name: "a".into(), evr: Evr::new(0, "1", "1.el9"), arch: "noarch".into() },
            sha256: Some(Digest::of("a")),
            size: 1,
            installed_size: u64::MAX,
            location: "Packages/a.rpm".into(),
            source: "a.src.rpm".into(),
            vendor: Some("ACME".into()),
            build_time: 3,
            provides: vec![plain("a")],
            requires: vec![shared.clone(), versioned],
            conflicts: vec![plain("c")],
            obsoletes: vec![plain("o")],
            recommends: vec![rich],
            suggests: vec![plain("s")],
            supplements: vec![plain("u")],
            enhances: vec![plain("e")],
            files: vec!["/etc/a".into()],
        };
        vec![first, RepoPackage { requires: vec![shared], ..Default::default() }]
    }

    #[test]
    fn what_is_written_is_read() {
        let packages = packages();
        let read = read(&write(&packages).unwrap()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{packages:?}"));
        assert!(Arc::ptr_eq(&read[0].requires[0], &read[1].requires[0]));
    }

    #[test]
    fn what_is_damaged_is_not_read() {
        let bytes = write(&packages()).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(read(&damaged).is_err(), "byte {at}");
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    /// The checksum lets only accidents be found, so what it lets pass is checked too.
    #[test]
    fn numbers_lead_nowhere_else() {
        let mut relations: [Vec<u32>; 8] = Default::default();
        relations[1] = vec![0];
        let package = RepoPackage::default();
        let packages = vec![PackedPackage::of(&package, relations)];
        let error = read(&seal(KIND, &Document { dependencies: vec![], packages }).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "a dependency is missing");
    }
}
