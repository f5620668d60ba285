//! Software bills of materials: the packages of an image, for those who look for flaws and licences.
//!
//! Made of the headers in the image and of the lockfiles at hand, which alone know the digests of the package files. The
//! same image gives the same bytes: it is dated as the image is, and ids come from the image's digest.

mod cyclonedx;
mod spdx;

use std::collections::BTreeMap;

use ::spdx::{Expression, LicenseItem};
use anyhow::{Context, Result};

use crate::digest::Digest;
use crate::image::opened::Opened;
use crate::package::{Evr, Nevra};
use crate::pkglist::PackageSet;
use crate::rpmdb::Installed;

/// What is in an image.
#[derive(Clone, Debug)]
pub struct Bom {
    /// The image's title, or what it was called.
    pub name: String,
    /// Its version, if a label tells.
    pub version: Option<String>,
    /// As OCI names it: `amd64`.
    pub arch: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Digest of the image it was built on, if it says so.
    pub parent: Option<Digest>,
    /// Its packages, sorted.
    pub packages: Vec<Package>,
}

/// A package of an image.
#[derive(Clone, Debug)]
pub struct Package {
    /// Name, version and architecture.
    pub nevra: Nevra,
    /// As its header has it: an SPDX expression in new packages, something like one in others.
    pub license: String,
    /// Who distributes it.
    pub vendor: Option<String>,
    /// File name of the package it was built from, `bash-5.1.8-9.el9.src.rpm`.
    pub source: Option<String>,
    /// Digest of its file, if a lockfile knows it.
    pub sha256: Option<Digest>,
    /// The layer that brought it, if the image remembers.
    pub layer: Option<String>,
}

impl Bom {
    /// Describes an image that has `installed`, of which `origins` knows the layers and `files` the digests of files.
    pub fn new(
        image: &Opened,
        name: &str,
        installed: &[Installed],
        origins: &PackageSet,
        files: &BTreeMap<Nevra, Digest>,
    ) -> Result<Self> {
        let labels = image.image.labels();
        let label = |key: &str| labels.get(key).map(|value| (*value).to_owned());
        let config = &image.image.config;
        // keys that rpm keeps as packages are none
        let packages = installed.iter().filter(|package| package.header.nevra().name != "gpg-pubkey");
        let package = |Installed { header, .. }: &Installed| {
            let nevra = header.nevra().clone();
            anyhow::Ok(Package {
                license: header.license()?,
                vendor: header.vendor()?,
                source: Some(header.source()).filter(|source| *source != "(none)").map(str::to_owned),
                sha256: files.get(&nevra).copied(),
                layer: origins.origin(&nevra).and_then(|origin| origin.layer.clone()),
                nevra,
            })
        };
        let mut packages = packages.map(package).collect::<Result<Vec<_>>>()?;
        packages.sort_by(|a, b| a.nevra.cmp(&b.nevra));
        Ok(Self {
            name: label("org.opencontainers.image.title").unwrap_or_else(|| name.to_owned()),
            version: label("org.opencontainers.image.version"),
            arch: config.architecture().to_string(),
            digest: image.image.digest,
            created: config.created().clone().context("the image has no date")?,
            parent: image.image.base().context("reading its base's digest")?,
            packages,
        })
    }

    /// As SPDX 2.3 JSON: indented, ended by a newline.
    pub fn to_spdx(&self) -> String {
        format!("{:#}\n", spdx::document(self))
    }

    /// As CycloneDX 1.6 JSON: indented, ended by a newline.
    pub fn to_cyclonedx(&self) -> String {
        format!("{:#}\n", cyclonedx::document(self))
    }

    /// `pkg:oci/NAME@DIGEST?arch=ARCH` (purl-spec: `oci`)
    fn purl(&self) -> String {
        image_purl(&self.name, &self.digest) + "?arch=" + &self.arch
    }

    /// An id that only this image and `purpose` have (RFC 9562, version 8).
    fn uuid(&self, purpose: &str) -> String {
        let mut hex = Digest::of(format!("{purpose} {}", self.digest).as_bytes()).hex();
        hex.truncate(32);
        hex.replace_range(12..13, "8");
        hex.replace_range(16..17, "8");
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }
}

fn image_purl(name: &str, digest: &Digest) -> String {
    // the last part of a name, in lower case
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    format!("pkg:oci/{}@{}", encoded(&name), encoded(&digest.to_string()))
}

impl Package {
    /// `pkg:rpm/redhat/bash@5.1.8-9.el9?arch=x86_64` (purl-spec: `rpm`)
    fn purl(&self) -> String {
        purl(self.vendor.as_deref(), &self.nevra)
    }

    /// The same of the package it was built from; none if that has no proper file name.
    fn source_purl(&self) -> Option<(String, String)> {
        let source = self.source.as_deref()?;
        let name_evr = source.strip_suffix(".src.rpm").or(source.strip_suffix(".nosrc.rpm"))?;
        let mut parts = name_evr.rsplitn(3, '-');
        let (release, version, name) = (parts.next()?, parts.next()?, parts.next()?);
        let evr = Evr::new(0, version.to_owned(), release.to_owned());
        let nevra = Nevra { name: name.to_owned(), evr, arch: "src".to_owned() };
        Some((source.to_owned(), purl(self.vendor.as_deref(), &nevra)))
    }
}

/// Qualifiers are sorted, and epoch 0 is none.
fn purl(vendor: Option<&str>, Nevra { name, evr, arch }: &Nevra) -> String {
    let namespace = vendor.and_then(namespace).map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let version = encoded(&format!("{}-{}", evr.version, evr.release));
    let epoch = if evr.epoch > 0 { format!("&epoch={}", evr.epoch) } else { String::new() };
    format!("pkg:rpm/{namespace}{}@{version}?arch={}{epoch}", encoded(name), encoded(arch))
}

/// What purls call the vendors of the streams that strata composes.
fn namespace(vendor: &str) -> Option<&'static str> {
    let known = [("Red Hat", "redhat"), ("CentOS", "centos"), ("Fedora", "fedora")];
    known.into_iter().find(|(name, _)| vendor.starts_with(name)).map(|(_, namespace)| namespace)
}

/// Percent-encoded but for RFC 3986's unreserved characters.
fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let encode = |byte: u8| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

/// The expression of a licence, if it is one of SPDX's and asks for no other document.
fn expression(license: &str) -> Option<&str> {
    let parsed = Expression::parse(license).ok()?;
    let is_foreign =
        |license: &LicenseItem| matches!(license, LicenseItem::Other(own) if own.doc_ref.is_some());
    let foreign = parsed.requirements().any(|needed| is_foreign(&needed.req.license));
    (!foreign).then_some(license)
}

/// The licences of an expression that SPDX does not list: `LicenseRef-Fedora-Public-Domain`.
fn unlisted(expression: &str) -> Vec<String> {
    let Ok(parsed) = Expression::parse(expression) else { return Vec::new() };
    let licenses = parsed.requirements().map(|needed| &needed.req.license);
    licenses.filter(|license| license.id().is_none()).map(ToString::to_string).collect()
}

/// strata itself, which makes the bill.
const TOOL: &str = concat!("strata-", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purls_are_written_as_their_specification_says() {
        let package = |name: &str, evr: &str, vendor: &str| Package {
            nevra: Nevra { name: name.into(), evr: evr.parse().unwrap(), arch: "x86_64".into() },
            license: String::new(),
            vendor: Some(vendor.into()),
            source: Some("gcc-11.5.0-5.el9.src.rpm".into()),
            sha256: None,
            layer: None,
        };
        let gcc = package("libstdc++", "11.5.0-5.el9", "Red Hat, Inc.");
        assert_eq!(gcc.purl(), "pkg:rpm/redhat/libstdc%2B%2B@11.5.0-5.el9?arch=x86_64");
        assert_eq!(gcc.source_purl().unwrap().1, "pkg:rpm/redhat/gcc@11.5.0-5.el9?arch=src");
        let rc = package("a", "2:1~rc1^git-1", "Somebody");
        assert_eq!(rc.purl(), "pkg:rpm/a@1~rc1%5Egit-1?arch=x86_64&epoch=2");
    }

    #[test]
    fn only_expressions_of_spdx_are_such() {
        for (license, expected) in [
            ("MIT", true),
            ("GPL-2.0-or-later AND (MIT OR BSD-3-Clause)", true),
            ("GPLv2+ and MIT", false),
            ("Public Domain", false),
            ("LicenseRef-Fedora-Public-Domain OR MIT", true),
            ("DocumentRef-other:LicenseRef-x", false),
            ("", false),
        ] {
            assert_eq!(expression(license).is_some(), expected, "{license}");
        }
        assert_eq!(unlisted("MIT AND (LicenseRef-a OR LicenseRef-b)"), ["LicenseRef-a", "LicenseRef-b"]);
    }
}
