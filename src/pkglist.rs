//! The packages of an image: which, from which layer, and how images tell.
//!
//! Every image carries the list in a small blob of its own, as a file that `oc adm release info --rpmdb` and
//! others read too:
//!
//! ```text
//! /usr/share/openshift/base/meta.json
//! {
//!   "rpmdb.pkglist": [["NAME", "EPOCH", "VERSION", "RELEASE", "ARCH"], ...],   sorted; EPOCH is "0" when there is none
//!   "strata.packages": {"NEVRA": {"layer": "node", "replaces": "EVR"}, ...}    ours: where each came from
//!   "strata.origins": {"%post(NAME)": ["/PATH", ...], ...}                     who made files of no package
//! }
//! ```

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::error::hinted;
use crate::lock::{self, Installed, Lockfile};
use crate::origins::Origins;
use crate::package::{Evr, Nevra};

/// Where images keep the list, relative to their root.
pub const META_JSON: &str = "usr/share/openshift/base/meta.json";

/// A set of packages, in which a name may occur with several versions and architectures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageSet {
    packages: BTreeMap<Nevra, Origin>,
}

/// How a package came into an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The layer that brought it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// The version of a lower layer it was put in the place of: what makes it a fast-track, pin or hotfix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Evr>,
}

#[derive(Serialize, Deserialize)]
struct MetaJson {
    #[serde(rename = "rpmdb.pkglist")]
    pkglist: Vec<[String; 5]>,
    #[serde(rename = "strata.packages", default, skip_serializing_if = "BTreeMap::is_empty")]
    origins: BTreeMap<String, Origin>,
    /// Of files, which [`Origins::from_json`] reads.
    #[serde(rename = "strata.origins", skip_deserializing, skip_serializing_if = "Origins::is_empty")]
    files: Origins,
}

impl PackageSet {
    /// The packages a stack of layers has, bottom first. A layer may replace and remove only what is below it.
    pub fn of_lockfiles(stack: &[Lockfile]) -> Result<Self> {
        let stack: Vec<&Lockfile> = stack.iter().collect();
        for (height, lock) in stack.iter().enumerate() {
            check_replaced(lock, &lock::installed(&stack[..height]))
                .with_context(|| format!("stacking the packages of layer {}", lock.layer))?;
        }
        Ok(lock::installed(&stack).into_iter().collect())
    }

    /// The packages one layer brings, whatever is below it.
    pub fn of_layer(lock: &Lockfile) -> Self {
        lock::installed(&[lock]).into_iter().collect()
    }

    /// Parses `meta.json`.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let mut meta: MetaJson = serde_json::from_slice(bytes).context("reading meta.json")?;
        let package = |[name, epoch, version, release, arch]: [String; 5]| {
            let epoch = epoch.parse().with_context(|| format!("reading the epoch `{epoch}` of {name}"))?;
            let nevra = Nevra { name, evr: Evr::new(epoch, version, release), arch };
            let origin = meta.origins.remove(&nevra.to_string()).unwrap_or_default();
            Ok((nevra, origin))
        };
        meta.pkglist.into_iter().map(package).collect::<Result<_>>().context("reading meta.json")
    }

    /// `meta.json` of these packages, with the origins of files that are of none: sorted, one line, ended by a
    /// newline.
    pub fn to_json(&self, files: &Origins) -> Vec<u8> {
        let fields = |n: &Nevra| {
            let evr = &n.evr;
            [&n.name, &evr.epoch.to_string(), &evr.version, &evr.release, &n.arch].map(String::clone)
        };
        let known = self.packages.iter().filter(|(_, origin)| **origin != Origin::default());
        let meta = MetaJson {
            pkglist: self.packages.keys().map(fields).collect(),
            origins: known.map(|(nevra, origin)| (nevra.to_string(), origin.clone())).collect(),
            files: files.clone(),
        };
        let mut json = serde_json::to_vec(&meta).unwrap_or_else(|_| unreachable!("strings only"));
        json.push(b'\n');
        json
    }

    /// Packages and their origins, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&Nevra, &Origin)> {
        self.packages.iter()
    }

    /// The packages, sorted.
    pub fn nevras(&self) -> impl Iterator<Item = &Nevra> {
        self.packages.keys()
    }

    /// How many packages there are.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Whether there is no package.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    /// Where a package came from, if it is in the set.
    pub fn origin(&self, nevra: &Nevra) -> Option<&Origin> {
        self.packages.get(nevra)
    }
}

fn check_replaced(lock: &Lockfile, below: &[Installed]) -> Result<()> {
    for package in &lock.packages {
        let is_below =
            |evr: &Evr| below.iter().any(|i| i.package.name == package.name && i.package.evr == *evr);
        if let Some(evr) = package.displaced().filter(|evr| !is_below(evr)) {
            let (name, stream) = (&package.name, &lock.stream);
            return Err(hinted(
                format!("{name} is to go away, but the layers below do not have {name}-{evr}"),
                format!("run `strata lock {stream}`, and do not edit lockfiles"),
            ));
        }
    }
    Ok(())
}

impl FromIterator<Installed> for PackageSet {
    fn from_iter<I: IntoIterator<Item = Installed>>(packages: I) -> Self {
        let package = |Installed { layer, package }: Installed| {
            (package.nevra(), Origin { layer: Some(layer), replaces: package.replaces })
        };
        packages.into_iter().map(package).collect()
    }
}

impl FromIterator<(Nevra, Origin)> for PackageSet {
    /// Leaves out the keys that `rpm --import` stores as packages, as all such lists do.
    fn from_iter<I: IntoIterator<Item = (Nevra, Origin)>>(packages: I) -> Self {
        Self { packages: packages.into_iter().filter(|(nevra, _)| nevra.name != "gpg-pubkey").collect() }
    }
}

impl FromIterator<Nevra> for PackageSet {
    fn from_iter<I: IntoIterator<Item = Nevra>>(packages: I) -> Self {
        packages.into_iter().map(|nevra| (nevra, Origin::default())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nevra(name: &str, evr: &str, arch: &str) -> Nevra {
        Nevra { name: name.into(), evr: evr.parse().unwrap(), arch: arch.into() }
    }

    fn set() -> PackageSet {
        let node = Origin { layer: Some("node".into()), replaces: Some(Evr::new(2, "1.0", "1")) };
        let packages = [
            (nevra("zlib", "1.10-1", "x86_64"), Origin::default()),
            (nevra("gpg-pubkey", "fd431d51-4ae0493b", "(none)"), Origin::default()),
            (nevra("runc", "2:1.1-1", "x86_64"), node),
            (nevra("zlib", "1.9-1", "x86_64"), Origin::default()),
        ];
        packages.into_iter().collect()
    }

    #[test]
    fn meta_json_is_what_existing_readers_take() {
        let json = String::from_utf8(set().to_json(&Origins::default())).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"rpmdb.pkglist":[["runc","2","1.1","1","x86_64"],["zlib","0","1.9","1","x86_64"],"#,
                r#"["zlib","0","1.10","1","x86_64"]],"#,
                r#""strata.packages":{"runc-2:1.1-1.x86_64":{"layer":"node","replaces":"2:1.0-1"}}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn meta_json_is_read_back() {
        assert_eq!(PackageSet::from_json(&set().to_json(&Origins::default())).unwrap(), set());
    }

    #[test]
    fn a_list_of_something_else_is_refused() {
        for json in [
            "",
            "{}",
            r#"{"rpmdb.pkglist": [["a", "0", "1"]]}"#,
            r#"{"rpmdb.pkglist": [["a", "x", "1", "1", "n"]]}"#,
        ] {
            assert!(PackageSet::from_json(json.as_bytes()).is_err(), "{json}");
        }
    }
}
