//! repodata as createrepo_c writes it: repomd, primary, filelists, other and updateinfo.

use std::collections::HashSet;
use std::io::Write;

use anyhow::{Context, Result};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use rpm::{Dependency, DependencyFlags, FileFlags, FileType, PackageMetadata};
use sha2::{Digest, Sha256};

use super::package::Built;
use super::spec::{self, Compression, Issued};

/// createrepo_c's `--changelog-limit`.
const CHANGELOGS: usize = 10;

type Xml = Writer<Vec<u8>>;

/// The files of `repodata/`, by name. `revision` is UTC seconds.
pub fn files(
    packages: &[Built],
    advisories: &[Issued<'_>],
    revision: u64,
    compression: Compression,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut documents = vec![
        ("primary", primary(packages)?),
        ("filelists", filelists(packages)?),
        ("other", other(packages)?),
    ];
    if !advisories.is_empty() {
        documents.push(("updateinfo", updateinfo(advisories)?));
    }
    let mut files = Vec::new();
    let mut data = Vec::new();
    for (kind, xml) in documents {
        let stored = Stored::new(kind, &xml, compression)?;
        files.push((stored.name.clone(), stored.bytes.clone()));
        data.push(stored);
    }
    files.push(("repomd.xml".to_owned(), repomd(&data, revision)?));
    Ok(files)
}

/// A compressed metadata file.
struct Stored {
    kind: &'static str,
    name: String,
    bytes: Vec<u8>,
    checksum: String,
    open_checksum: String,
    open_size: usize,
}

impl Stored {
    fn new(kind: &'static str, xml: &[u8], compression: Compression) -> Result<Self> {
        let (suffix, bytes) = match compression {
            Compression::Gz => ("gz", gzip(xml)?),
            Compression::Zst => ("zst", zstd::encode_all(xml, 10)?),
            Compression::Xz => ("xz", xz(xml)?),
        };
        let checksum = hex::encode(Sha256::digest(&bytes));
        Ok(Self {
            kind,
            name: format!("{checksum}-{kind}.xml.{suffix}"),
            bytes,
            checksum,
            open_checksum: hex::encode(Sha256::digest(xml)),
            open_size: xml.len(),
        })
    }
}

fn gzip(xml: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(xml)?;
    encoder.finish().context("compressing with gzip")
}

fn xz(xml: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(xml)?;
    encoder.finish().context("compressing with xz")
}

fn repomd(data: &[Stored], revision: u64) -> Result<Vec<u8>> {
    let namespaces = [
        ("xmlns", "http://linux.duke.edu/metadata/repo"),
        ("xmlns:rpm", "http://linux.duke.edu/metadata/rpm"),
    ];
    document("repomd", &namespaces, |xml| {
        text(xml, "revision", &revision.to_string())?;
        for stored in data {
            element(xml, "data", &[("type", stored.kind)], |xml| {
                checksum(xml, "checksum", &stored.checksum)?;
                checksum(xml, "open-checksum", &stored.open_checksum)?;
                empty(xml, "location", &[("href", &format!("repodata/{}", stored.name))])?;
                text(xml, "timestamp", &revision.to_string())?;
                text(xml, "size", &stored.bytes.len().to_string())?;
                text(xml, "open-size", &stored.open_size.to_string())
            })?;
        }
        Ok(())
    })
}

fn primary(packages: &[Built]) -> Result<Vec<u8>> {
    let namespaces = [
        ("xmlns", "http://linux.duke.edu/metadata/common"),
        ("xmlns:rpm", "http://linux.duke.edu/metadata/rpm"),
    ];
    let count = packages.len().to_string();
    document("metadata", &[&namespaces[..], &[("packages", &count)]].concat(), |xml| {
        packages
            .iter()
            .try_for_each(|package| element(xml, "package", &[("type", "rpm")], |xml| entry(xml, package)))
    })
}

/// A package of primary.xml.
fn entry(xml: &mut Xml, package: &Built) -> Result<()> {
    let header = &package.metadata;
    text(xml, "name", header.get_name()?)?;
    text(xml, "arch", header.get_arch()?)?;
    version(xml, header)?;
    let id = [("type", "sha256"), ("pkgid", "YES")];
    element(xml, "checksum", &id, |xml| characters(xml, &package.sha256))?;
    text(xml, "summary", header.get_summary()?)?;
    text(xml, "description", header.get_description()?)?;
    text(xml, "packager", "")?;
    text(xml, "url", header.get_url()?)?;
    let built = header.get_build_time()?.to_string();
    empty(xml, "time", &[("file", &built), ("build", &built)])?;
    let size = [package.bytes.len() as u64, header.get_installed_size()?].map(|bytes| bytes.to_string());
    empty(xml, "size", &[("package", &size[0]), ("installed", &size[1]), ("archive", "0")])?;
    empty(xml, "location", &[("href", &package.location)])?;
    element(xml, "format", &[], |xml| format(xml, package))
}

fn format(xml: &mut Xml, package: &Built) -> Result<()> {
    let header = &package.metadata;
    text(xml, "rpm:license", header.get_license()?)?;
    text(xml, "rpm:vendor", header.get_vendor()?)?;
    text(xml, "rpm:group", header.get_group()?)?;
    text(xml, "rpm:buildhost", header.get_build_host()?)?;
    text(xml, "rpm:sourcerpm", header.get_source_rpm()?)?;
    let offsets = header.get_package_segment_offsets();
    empty(
        xml,
        "rpm:header-range",
        &[("start", &offsets.header.to_string()), ("end", &offsets.payload.to_string())],
    )?;
    let files = header.get_file_entries()?;
    let listed: Vec<_> = files.iter().filter(|file| in_primary(&file.path().to_string_lossy())).collect();
    let provides = header.get_provides()?;
    dependencies(xml, "rpm:provides", &provides)?;
    dependencies(xml, "rpm:requires", &listed_requires(header, &provides)?)?;
    dependencies(xml, "rpm:conflicts", &header.get_conflicts()?)?;
    dependencies(xml, "rpm:obsoletes", &header.get_obsoletes()?)?;
    dependencies(xml, "rpm:suggests", &header.get_suggests()?)?;
    dependencies(xml, "rpm:enhances", &header.get_enhances()?)?;
    dependencies(xml, "rpm:recommends", &header.get_recommends()?)?;
    dependencies(xml, "rpm:supplements", &header.get_supplements()?)?;
    listed.into_iter().try_for_each(|file| file_element(xml, file))
}

/// The requirements createrepo_c lists: not rpm's own features, nothing twice, nothing that the package itself
/// provides or that is one of its files in primary.xml (createrepo_c: `src/parsehdr.c`).
fn listed_requires(header: &PackageMetadata, provides: &[Dependency]) -> Result<Vec<Dependency>> {
    let paths = header.get_file_paths()?;
    let own: HashSet<_> =
        paths.iter().filter_map(|path| path.to_str()).filter(|path| in_primary(path)).collect();
    let key = |dep: &Dependency| (dep.name.clone(), comparison(dep.flags), dep.version.clone());
    let mut listed: Vec<Dependency> = Vec::new();
    for dep in header.get_requires()? {
        // Only the last one of that name counts, so an entry can come back; createrepo_c has it so.
        let last = listed.iter().rfind(|other| other.name == dep.name);
        let repeated = last.is_some_and(|last| key(last) == key(&dep) && is_pre(last) == is_pre(&dep));
        let itself = own.contains(dep.name.as_str()) || provides.iter().any(|other| key(other) == key(&dep));
        if !dep.name.starts_with("rpmlib(") && !repeated && !itself {
            listed.push(dep);
        }
    }
    Ok(listed)
}

/// Whether a scriptlet needs it before the package is installed.
fn is_pre(dep: &Dependency) -> bool {
    dep.flags.intersects(DependencyFlags::PREREQ | DependencyFlags::SCRIPT_PRE | DependencyFlags::SCRIPT_POST)
}

/// Whether primary.xml lists a path; filelists.xml has them all.
fn in_primary(path: &str) -> bool {
    path.starts_with("/etc/") || path.contains("bin/") || path == "/usr/lib/sendmail"
}

fn dependencies(xml: &mut Xml, name: &str, list: &[Dependency]) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    element(xml, name, &[], |xml| {
        for dep in list {
            let (epoch, version, release) = split_evr(&dep.version);
            let mut attributes = vec![("name", dep.name.as_str())];
            if let Some(flags) = comparison(dep.flags) {
                attributes.extend([("flags", flags), ("epoch", epoch), ("ver", version)]);
                attributes.extend(release.map(|release| ("rel", release)));
            }
            if name == "rpm:requires" && is_pre(dep) {
                attributes.push(("pre", "1"));
            }
            empty(xml, "rpm:entry", &attributes)?;
        }
        Ok(())
    })
}

fn comparison(flags: DependencyFlags) -> Option<&'static str> {
    let relation = flags & (DependencyFlags::LE | DependencyFlags::GE);
    [
        (DependencyFlags::EQUAL, "EQ"),
        (DependencyFlags::LESS, "LT"),
        (DependencyFlags::LE, "LE"),
        (DependencyFlags::GREATER, "GT"),
        (DependencyFlags::GE, "GE"),
    ]
    .into_iter()
    .find_map(|(flags, name)| (flags == relation).then_some(name))
}

/// Epoch (`0` if there is none), version, release if there is one.
fn split_evr(evr: &str) -> (&str, &str, Option<&str>) {
    let (epoch, rest) = evr.split_once(':').unwrap_or(("0", evr));
    match rest.rsplit_once('-') {
        Some((version, release)) => (epoch, version, Some(release)),
        None => (epoch, rest, None),
    }
}

fn filelists(packages: &[Built]) -> Result<Vec<u8>> {
    listing("filelists", packages, |xml, package| {
        package.metadata.get_file_entries()?.iter().try_for_each(|file| file_element(xml, file))
    })
}

fn other(packages: &[Built]) -> Result<Vec<u8>> {
    listing("other", packages, |xml, package| {
        let changes = package.metadata.get_changelog_entries()?;
        for change in changes.iter().take(CHANGELOGS).rev() {
            let date = change.timestamp.to_string();
            let attributes = [("author", change.name.as_str()), ("date", &date)];
            element(xml, "changelog", &attributes, |xml| characters(xml, &change.description))?;
        }
        Ok(())
    })
}

/// filelists.xml and other.xml: a package element each, told apart by its checksum.
fn listing(name: &str, packages: &[Built], body: impl Fn(&mut Xml, &Built) -> Result<()>) -> Result<Vec<u8>> {
    let namespace = format!("http://linux.duke.edu/metadata/{name}");
    let (root, count) = (if name == "other" { "otherdata" } else { name }, packages.len().to_string());
    document(root, &[("xmlns", &namespace), ("packages", &count)], |xml| {
        for package in packages {
            let (name, arch) = (package.metadata.get_name()?, package.metadata.get_arch()?);
            let attributes = [("pkgid", package.sha256.as_str()), ("name", name), ("arch", arch)];
            element(xml, "package", &attributes, |xml| {
                version(xml, &package.metadata)?;
                body(xml, package)
            })?;
        }
        Ok(())
    })
}

fn updateinfo(advisories: &[Issued<'_>]) -> Result<Vec<u8>> {
    document("updates", &[], |xml| advisories.iter().try_for_each(|issued| update(xml, issued)))
}

fn update(xml: &mut Xml, Issued { advisory, releases }: &Issued<'_>) -> Result<()> {
    spec::noon(&advisory.date)?;
    let attributes = [
        ("from", "demo@strata.invalid"),
        ("status", "final"),
        ("type", advisory.kind.as_str()),
        ("version", "1"),
    ];
    element(xml, "update", &attributes, |xml| {
        text(xml, "id", &advisory.id)?;
        text(xml, "title", &advisory.title)?;
        empty(xml, "issued", &[("date", &format!("{} 12:00:00", advisory.date))])?;
        if !advisory.severity.is_empty() {
            text(xml, "severity", &advisory.severity)?;
        }
        text(xml, "description", &format!("{}.", advisory.title))?;
        element(xml, "references", &[], |xml| {
            for cve in &advisory.cves {
                let href = format!("https://strata.invalid/cve/{cve}");
                empty(xml, "reference", &[("href", &href), ("id", cve), ("title", cve), ("type", "cve")])?;
            }
            Ok(())
        })?;
        element(xml, "pkglist", &[], |xml| {
            element(xml, "collection", &[("short", "demo")], |xml| {
                text(xml, "name", "demo")?;
                for release in releases {
                    let (epoch, version, rel) = release.parts();
                    let (name, arch) = (release.package.name.as_str(), release.arch);
                    let source = release.source_rpm();
                    let attributes = [
                        ("name", name),
                        ("epoch", epoch.unwrap_or("0")),
                        ("version", version),
                        ("release", rel),
                        ("arch", arch),
                        ("src", &source),
                    ];
                    element(xml, "package", &attributes, |xml| {
                        text(xml, "filename", &format!("{name}-{version}-{rel}.{arch}.rpm"))
                    })?;
                }
                Ok(())
            })
        })
    })
}

fn version(xml: &mut Xml, header: &PackageMetadata) -> Result<()> {
    let epoch = match header.get_epoch() {
        Err(rpm::Error::TagNotFound(_)) => 0,
        epoch => epoch?,
    };
    let attributes =
        [("epoch", &*epoch.to_string()), ("ver", header.get_version()?), ("rel", header.get_release()?)];
    empty(xml, "version", &attributes)
}

fn file_element(xml: &mut Xml, file: &rpm::FileEntry<'_>) -> Result<()> {
    let kind = match file.file_type() {
        FileType::Dir => &[("type", "dir")][..],
        _ if file.flags().contains(FileFlags::GHOST) => &[("type", "ghost")],
        _ => &[],
    };
    element(xml, "file", kind, |xml| characters(xml, &file.path().to_string_lossy()))
}

fn checksum(xml: &mut Xml, name: &str, sha256: &str) -> Result<()> {
    element(xml, name, &[("type", "sha256")], |xml| characters(xml, sha256))
}

/// An XML document with one root element.
fn document(
    root: &str,
    attributes: &[(&str, &str)],
    body: impl FnOnce(&mut Xml) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut xml = Writer::new(Vec::new());
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    element(&mut xml, root, attributes, body)?;
    Ok(xml.into_inner())
}

fn element(
    xml: &mut Xml,
    name: &str,
    attributes: &[(&str, &str)],
    body: impl FnOnce(&mut Xml) -> Result<()>,
) -> Result<()> {
    let mut start = quick_xml::events::BytesStart::new(name);
    start.extend_attributes(attributes.iter().copied());
    let end = start.to_end().into_owned();
    xml.write_event(Event::Start(start.clone()))?;
    body(xml)?;
    xml.write_event(Event::End(end))?;
    xml.get_mut().push(b'\n');
    Ok(())
}

fn empty(xml: &mut Xml, name: &str, attributes: &[(&str, &str)]) -> Result<()> {
    element(xml, name, attributes, |_| Ok(()))
}

fn text(xml: &mut Xml, name: &str, value: &str) -> Result<()> {
    element(xml, name, &[], |xml| characters(xml, value))
}

fn characters(xml: &mut Xml, value: &str) -> Result<()> {
    xml.write_event(Event::Text(BytesText::new(value))).context("writing XML")
}
