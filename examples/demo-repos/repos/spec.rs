//! The catalogues: packages as they are written down in `baseos.toml`, `appstream.toml` and `ose.toml`.
//!
//! Texts, paths, dependencies and scriptlets may name `@VERSION@`, `@RELEASE@`, `@EVR@` (with the epoch),
//! `@ARCH@` and `@ISA@` (`x86-64`, as in `NetworkManager(x86-64)`).

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// One repository.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Catalogue {
    /// Of the metadata files.
    pub compression: Compression,
    /// repomd revision of each snapshot, UTC seconds.
    pub revisions: [u64; 2],
    /// Its packages.
    #[serde(rename = "package")]
    packages: Vec<Package>,
    /// Advisories of the second snapshot.
    #[serde(rename = "advisory", default)]
    advisories: Vec<Advisory>,
}

/// How a repository's metadata is compressed.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As createrepo_c did for ten years.
    Gz,
    /// As it does now.
    Zst,
    /// As some mirrors do.
    Xz,
}

/// One package, in one version or two.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Package {
    pub name: String,
    /// `[epoch:]version-release` in the first snapshot.
    pub evr: String,
    /// Newer version that the second snapshot adds.
    pub next: Option<String>,
    /// Name of the source package, if it isn't the package's own.
    pub source: Option<String>,
    #[serde(default)]
    pub noarch: bool,
    pub summary: String,
    #[serde(default = "apache")]
    pub license: String,
    /// Payload compression.
    #[serde(default)]
    pub payload: Payload,
    /// Capabilities as in a spec file; `pre: sudo` stands for `Requires(pre): sudo`.
    #[serde(default)]
    pub requires: Vec<String>,
    #[serde(default)]
    pub provides: Vec<String>,
    #[serde(default)]
    pub conflicts: Vec<String>,
    #[serde(default)]
    pub obsoletes: Vec<String>,
    #[serde(default)]
    pub recommends: Vec<String>,
    #[serde(default)]
    pub suggests: Vec<String>,
    #[serde(default)]
    pub supplements: Vec<String>,
    #[serde(default)]
    pub enhances: Vec<String>,
    /// Directories owned, 0755, separated by blanks.
    #[serde(default)]
    pub dirs: String,
    /// Commands of busybox that become links in `/usr/bin`, separated by blanks.
    #[serde(default)]
    pub bin: String,
    /// The same for `/usr/sbin`.
    #[serde(default)]
    pub sbin: String,
    /// Everything else in the payload.
    #[serde(default)]
    pub files: BTreeMap<String, FileSpec>,
    #[serde(default)]
    pub scripts: Scripts,
    #[serde(default, rename = "trigger")]
    pub triggers: Vec<Trigger>,
    /// `YYYY-MM-DD [epoch:]version-release text`, newest first. Its first entry for a version is the build's date.
    pub changelog: Vec<String>,
}

fn apache() -> String {
    "Apache-2.0".to_owned()
}

/// The compressors rpm knows.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    #[default]
    Zstd,
    Gzip,
    Xz,
    Bzip2,
}

/// A file: its text, or all there is to say about it.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum FileSpec {
    Text(String),
    Full(Box<File>),
}

/// One payload entry. Exactly one of the first group says what it is.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct File {
    /// A text file.
    pub text: Option<String>,
    /// A text file of mode 0755.
    pub script: Option<String>,
    /// A program that says this (with `bulk`: and weighs that much).
    pub program: Option<String>,
    /// Bytes of made-up content.
    pub bulk: Option<usize>,
    /// The machine's busybox.
    pub busybox: bool,
    /// Target of a symbolic link.
    pub link: Option<String>,
    pub dir: bool,
    pub ghost: bool,

    /// Octal permission bits.
    pub mode: Option<String>,
    pub user: Option<String>,
    pub group: Option<String>,
    /// File capabilities, `cap_net_raw=ep`.
    pub caps: Option<String>,
    /// Files of a package that name the same set are one inode. Sorted by path, two sets may not interleave:
    /// rpm 0.30 would write their members interleaved, and rpm(8) then links them all together.
    pub hardlink: Option<String>,
    pub config: Option<Config>,
    pub doc: bool,
    pub license: bool,
    /// `rpm -V` doesn't look at its content.
    pub volatile: bool,
}

/// `%config`
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Config {
    Replace,
    Noreplace,
    Missingok,
}

/// The scriptlets of a package.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scripts {
    pub pretrans: Option<Script>,
    pub pre: Option<Script>,
    pub post: Option<Script>,
    pub preun: Option<Script>,
    pub postun: Option<Script>,
    pub posttrans: Option<Script>,
}

/// A scriptlet's text and what runs it.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Script {
    Shell(String),
    Lua {
        lua: String,
    },
    /// A program run without a script: `%post -p /sbin/ldconfig`.
    Program {
        program: String,
    },
}

/// A package or file trigger.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Trigger {
    pub kind: TriggerKind,
    /// A package (`systemd < 240`) or a path prefix.
    pub on: String,
    /// Of a file trigger: higher runs first.
    #[serde(default = "default_priority")]
    pub priority: u32,
    pub script: Script,
}

fn default_priority() -> u32 {
    1_000_000
}

/// The triggers the demo uses.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TriggerKind {
    TriggerIn,
    TriggerPostUn,
    FileTriggerIn,
    TransFileTriggerIn,
    TransFileTriggerPostUn,
}

/// An updateinfo entry of the second snapshot.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advisory {
    pub id: String,
    pub kind: String,
    #[serde(default)]
    pub severity: String,
    pub title: String,
    #[serde(default)]
    pub cves: Vec<String>,
    /// `YYYY-MM-DD`
    pub date: String,
    /// Packages whose newer version carries the fix, by name.
    pub packages: Vec<String>,
}

/// An advisory with its packages.
pub struct Issued<'a> {
    pub advisory: &'a Advisory,
    pub releases: Vec<Release<'a>>,
}

/// A package in one of its versions, for one architecture.
#[derive(Clone, Copy)]
pub struct Release<'a> {
    pub package: &'a Package,
    pub evr: &'a str,
    /// `x86_64`, `aarch64` or `noarch`.
    pub arch: &'static str,
}

/// The architectures of the demo stream, as rpm names them; Rust's names are the same.
pub const ARCHES: [&str; 2] = ["aarch64", "x86_64"];

/// One changelog entry.
pub struct Change<'a> {
    /// Noon of its day, UTC seconds, as rpmbuild has it.
    pub time: u32,
    pub evr: &'a str,
    pub text: &'a str,
}

impl Catalogue {
    /// The packages new in a snapshot.
    pub fn releases(&self, snapshot: usize) -> Vec<Release<'_>> {
        let mut releases = Vec::new();
        for package in &self.packages {
            let evr = if snapshot == 0 { Some(&package.evr) } else { package.next.as_ref() };
            let arches = if package.noarch { &["noarch"][..] } else { &ARCHES };
            releases.extend(
                evr.into_iter().flat_map(|evr| arches.iter().map(|arch| Release { package, evr, arch })),
            );
        }
        releases
    }

    /// The second snapshot's advisories. Fails on one about a package without a newer version.
    pub fn advisories(&self) -> Result<Vec<Issued<'_>>> {
        let newer = self.releases(1);
        let issued = |advisory: &'_ Advisory| {
            let mut fixed = Vec::new();
            for name in &advisory.packages {
                let known = fixed.len();
                fixed.extend(newer.iter().filter(|release| release.package.name == *name).copied());
                ensure!(fixed.len() > known, "{name} has an advisory but no newer version");
            }
            Ok(fixed)
        };
        self.advisories.iter().map(|advisory| Ok(Issued { advisory, releases: issued(advisory)? })).collect()
    }
}

impl<'a> Release<'a> {
    /// Epoch, version, release.
    pub fn parts(&self) -> (Option<&'a str>, &'a str, &'a str) {
        let (epoch, rest) = match self.evr.split_once(':') {
            Some((epoch, rest)) => (Some(epoch), rest),
            None => (None, self.evr),
        };
        let (version, release) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch, version, release)
    }

    /// `openssh-8.7p1-45.el9.src.rpm`
    pub fn source_rpm(&self) -> String {
        let (_, version, release) = self.parts();
        let name = self.package.source.as_ref().unwrap_or(&self.package.name);
        format!("{name}-{version}-{release}.src.rpm")
    }

    /// Fills in the placeholders.
    pub fn fill(&self, text: &str) -> String {
        let (_, version, release) = self.parts();
        text.replace("@EVR@", self.evr)
            .replace("@VERSION@", version)
            .replace("@RELEASE@", release)
            .replace("@ARCH@", self.arch)
            .replace("@ISA@", isa(self.arch))
    }

    /// Changelog entries up to this version, newest first. Fails on an entry or a date that can't be read.
    pub fn changes(&self) -> Result<Vec<Change<'a>>> {
        let changes =
            self.package.changelog.iter().map(|line| Change::parse(line)).collect::<Result<Vec<_>>>()?;
        let own: Vec<_> = changes.into_iter().skip_while(|change| change.evr != self.evr).collect();
        ensure!(!own.is_empty(), "the changelog has no entry for {}", self.evr);
        Ok(own)
    }
}

impl<'a> Change<'a> {
    fn parse(line: &'a str) -> Result<Self> {
        let mut words = line.splitn(3, ' ');
        let [Some(date), Some(evr), Some(text)] = [words.next(), words.next(), words.next()] else {
            anyhow::bail!("changelog entry {line:?} is not `YYYY-MM-DD EVR text`");
        };
        Ok(Self { time: noon(date)?, evr, text })
    }
}

/// Noon UTC of a day written `YYYY-MM-DD`, in seconds.
pub fn noon(date: &str) -> Result<u32> {
    let day: jiff::civil::Date = date.parse().with_context(|| format!("reading the date {date:?}"))?;
    let noon = day.at(12, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).context("placing a date in UTC")?;
    u32::try_from(noon.timestamp().as_second()).with_context(|| format!("the date {date} is out of range"))
}

/// rpm's name for an instruction set in `name(isa)` provides.
fn isa(arch: &str) -> &str {
    match arch {
        "x86_64" => "x86-64",
        "aarch64" => "aarch-64",
        other => other,
    }
}
