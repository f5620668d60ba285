//! primary.xml: the packages of a repository and their dependencies, put into the compact form.

use std::borrow::Cow;
use std::io::Read;

use anyhow::{Context, Result, bail};
use rustc_hash::FxHashMap;

use super::compact::{List, Lists, Writer};
use super::xml::{Element, Node, walk};
use super::{RepoPackage, location};
use crate::digest::Digest;
use crate::package::{Comparison, Dependency, Evr};

/// Parses primary.xml, compressed or not, of at most `limit` decompressed bytes: gives what [`Packages`](super::Packages)
/// reads. Source packages are left out: they are never installed.
pub fn parse(input: impl Read + 'static, limit: u64) -> Result<Vec<u8>> {
    let mut parser = Parser::default();
    walk(input, "metadata", limit, |node| {
        let result = match node {
            Node::Open(element) => parser.open(element),
            Node::Close(name, text) => parser.close(name, text),
        };
        result.with_context(|| match parser.package.nevra.name.as_str() {
            "" => format!("reading package number {}", parser.writer.len() + 1),
            name => format!("reading package {name}"),
        })
    })?;
    parser.writer.finish()
}

#[derive(Default)]
struct Parser {
    writer: Writer,
    /// The package that is being read, but for its lists.
    package: RepoPackage,
    lists: Lists,
    is_rpm: bool,
    has_sha256: bool,
    relation: Option<List>,
    /// Numbers of dependencies so far, by their elements as written.
    dependencies: FxHashMap<Box<str>, u32>,
}

impl Parser {
    fn open(&mut self, element: &Element<'_>) -> Result<()> {
        match element.name() {
            "package" => {
                self.package = RepoPackage::default();
                self.lists.iter_mut().for_each(Vec::clear);
                self.is_rpm = element.get("type")?.as_deref() == Some("rpm");
            }
            "version" => self.package.nevra.evr = evr_of(element)?,
            "checksum" => self.has_sha256 = element.get("type")?.as_deref() == Some("sha256"),
            "location" => {
                if element.get("xml:base")?.is_some_and(|base| !base.is_empty()) {
                    bail!("its location has an xml:base, which strata does not follow");
                }
                self.package.location = location(&element.require("href")?)?;
            }
            "size" => {
                self.package.size = element.number("package")?;
                self.package.installed_size = element.number("installed")?;
            }
            "time" => self.package.build_time = element.number("build")?,
            "entry" => {
                if let Some(relation) = self.relation {
                    let dependency = self.dependency(element)?;
                    self.lists[relation as usize].push(dependency);
                }
            }
            name => {
                if let Some(relation) = relation(name) {
                    self.relation = Some(relation);
                }
            }
        }
        Ok(())
    }

    /// The number of the dependency that an `<rpm:entry>` is. Most have been written just so before.
    fn dependency(&mut self, entry: &Element<'_>) -> Result<u32> {
        if let Some(known) = self.dependencies.get(entry.as_written()) {
            return Ok(*known);
        }
        let new = dependency(&entry.all(["name", "flags", "epoch", "ver", "rel", "pre"])?)?;
        let number = self.writer.dependency(&new);
        self.dependencies.insert(entry.as_written().into(), number);
        Ok(number)
    }

    fn close(&mut self, name: &str, text: &str) -> Result<()> {
        match name {
            "name" => self.package.nevra.name = text.to_owned(),
            "arch" => self.package.nevra.arch = text.to_owned(),
            "checksum" if self.has_sha256 => self.package.sha256 = Some(Digest::from_hex(text.trim())?),
            "vendor" if !text.is_empty() => self.package.vendor = Some(text.to_owned()),
            "sourcerpm" => self.package.source = text.to_owned(),
            "file" => self.lists[List::Files as usize].push(self.writer.name(text)),
            "package" => self.finish()?,
            name if relation(name).is_some() => self.relation = None,
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let nevra = &self.package.nevra;
        for (what, value) in [
            ("name", &nevra.name),
            ("version", &nevra.evr.version),
            ("release", &nevra.evr.release),
            ("architecture", &nevra.arch),
            ("location", &self.package.location),
        ] {
            if value.is_empty() {
                bail!("it has no {what}");
            }
        }
        if self.is_rpm && !matches!(nevra.arch.as_str(), "src" | "nosrc") {
            self.writer.add(&self.package, &self.lists);
        }
        self.package = RepoPackage::default();
        Ok(())
    }
}

/// The list of a package that an element such as `<rpm:provides>` fills.
fn relation(element: &str) -> Option<List> {
    Some(match element {
        "provides" => List::Provides,
        "requires" => List::Requires,
        "conflicts" => List::Conflicts,
        "obsoletes" => List::Obsoletes,
        "recommends" => List::Recommends,
        "suggests" => List::Suggests,
        "supplements" => List::Supplements,
        "enhances" => List::Enhances,
        _ => return None,
    })
}

/// A dependency by the attributes `name`, `flags`, `epoch`, `ver`, `rel` and `pre`.
fn dependency([name, flags, epoch, version, release, pre]: &[Option<Cow<'_, str>>; 6]) -> Result<Dependency> {
    let name = name.as_deref().context("<entry> has no `name`")?.to_owned();
    let comparison = match flags.as_deref() {
        None => None,
        Some("LT") => Some(Comparison::Lt),
        Some("LE") => Some(Comparison::Le),
        Some("EQ") => Some(Comparison::Eq),
        Some("GE") => Some(Comparison::Ge),
        Some("GT") => Some(Comparison::Gt),
        Some(other) => {
            bail!("dependency `{name}` has unknown flags `{other}`: expected LT, LE, EQ, GE or GT")
        }
    };
    let version = match comparison {
        Some(comparison) => {
            let evr = evr([epoch, version, release])
                .with_context(|| format!("reading the version of dependency `{name}`"))?;
            if evr.version.is_empty() {
                bail!("dependency `{name}` compares with no version");
            }
            Some((comparison, evr))
        }
        None => None,
    };
    Ok(Dependency { name, version, pre: pre.as_deref() == Some("1") })
}

/// The attributes `epoch`, `ver` and `rel` of an element; what is absent is 0 or empty.
fn evr_of(element: &Element<'_>) -> Result<Evr> {
    let [epoch, version, release] = &element.all(["epoch", "ver", "rel"])?;
    evr([epoch, version, release])
}

fn evr([epoch, version, release]: [&Option<Cow<'_, str>>; 3]) -> Result<Evr> {
    let epoch = match epoch.as_deref() {
        None | Some("") => 0,
        Some(text) => text.parse().with_context(|| format!("the epoch `{text}` is no number below 2^32"))?,
    };
    let text = |attribute: &Option<Cow<'_, str>>| attribute.as_deref().unwrap_or_default().to_owned();
    Ok(Evr::new(epoch, text(version), text(release)))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::repo::Packages;

    fn package(body: &str) -> Result<Vec<RepoPackage>> {
        let text = format!("<metadata packages='1'><package type='rpm'>{body}</package></metadata>");
        let packages = Packages::read(parse(Cursor::new(text), 1 << 20)?)?;
        Ok(packages.iter().cloned().collect())
    }

    const ZOO: &str = "<name>zoo</name><arch>noarch</arch><version epoch='1' ver='2~rc1' rel='3'/>
        <checksum type='sha256' pkgid='YES'>87a8a2088aadae3c6c1d449702259d89926e676ac887996e6ffb51624e53bef9</checksum>
        <time file='9' build='8'/><size package='7' installed='6' archive='5'/><location href='Packages/z/zoo.rpm'/>";

    #[test]
    fn reads_a_package() {
        let format = "<format><rpm:vendor>ACME &amp; Sons</rpm:vendor><rpm:sourcerpm>zoo.src.rpm</rpm:sourcerpm>
            <rpm:provides><rpm:entry name='zoo' flags='EQ' epoch='1' ver='2~rc1' rel='3'/></rpm:provides>
            <rpm:requires><rpm:entry name='(a if b)'/><rpm:entry name='c' flags='GE' epoch='0' ver='4' pre='1'/>
            </rpm:requires><file>/usr/bin/zoo</file><file type='dir'>/etc/zoo</file></format>";
        let packages = package(&format!("{ZOO}{format}")).unwrap();
        let [zoo] = packages.as_slice() else { panic!("{packages:?}") };
        assert_eq!(zoo.nevra.to_string(), "zoo-1:2~rc1-3.noarch");
        assert_eq!((zoo.size, zoo.installed_size, zoo.build_time), (7, 6, 8));
        assert_eq!(zoo.vendor.as_deref(), Some("ACME & Sons"));
        assert_eq!(zoo.source, "zoo.src.rpm");
        assert_eq!(zoo.location, "Packages/z/zoo.rpm");
        assert_eq!(zoo.provides[0].to_string(), "zoo = 1:2~rc1-3");
        let requires: Vec<_> = zoo.requires.iter().map(|d| (d.to_string(), d.pre)).collect();
        assert_eq!(requires, [("(a if b)".to_owned(), false), ("c >= 4".to_owned(), true)]);
        assert_eq!(zoo.files, ["/usr/bin/zoo", "/etc/zoo"]);
    }

    #[test]
    fn source_packages_are_left_out() {
        assert!(package(&ZOO.replace("noarch", "src")).unwrap().is_empty());
    }

    #[test]
    fn refuses_broken_packages_by_name() {
        for (from, to, message) in [
            ("<name>zoo</name>", "", "package number 1: it has no name"),
            (" ver='2~rc1'", "", "package zoo: it has no version"),
            ("epoch='1'", "epoch='x'", "the epoch `x` is no number"),
            ("epoch='1'", "epoch='4294967296'", "is no number below 2^32"),
            ("href='Packages", "href='../Packages", "leaves the repository"),
            ("href='Packages", "href='/Packages", "leaves the repository"),
            ("href='Packages", "href='a&#10;b", "control character"),
            ("<name>zoo", "<name>z&#1;o", "control character"),
            ("87a8", "87A8", "not a digest"),
            ("<size", "<rpm:requires><rpm:entry name='x' flags='EQ'/></rpm:requires><size", "no version"),
            ("<size", "<rpm:requires><rpm:entry name='x' flags='NE' ver='1'/></rpm:requires><size", "`NE`"),
            ("<size", "<rpm:requires><rpm:entry/></rpm:requires><size", "<entry> has no `name`"),
        ] {
            let body = ZOO.replace(from, to);
            assert_ne!(body, ZOO);
            let error = format!("{:#}", package(&body).unwrap_err());
            assert!(error.contains(message), "{to}: {error}");
        }
    }
}
