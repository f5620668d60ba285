//! RPM headers, from a package file or from an rpmdb blob.
//!
//! A header is read once, checked for structure, and kept as the bytes it was; accessors decode what they
//! are asked for. Text must be UTF-8 where strata acts on it (names, paths, dependencies, scripts); prose
//! (summaries, changelogs) is decoded as well as can be.

mod blob;
mod dribble;
mod files;
mod format3;
mod install;
mod query;
mod scripts;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rpm::IndexTag as Tag;

use self::blob::{Blob, Sizes};
pub use self::install::set_file_states;
pub use self::query::query_format;
use super::{Comparison, Dependency, Evr, Nevra};
use crate::repo::RepoPackage;

/// Starts each of a package file's two headers; four zero bytes follow.
const MAGIC: [u8; 8] = [0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0];

/// IMA signatures of files in a signature header, whose tags are not those of the main header.
const FILESIGNATURES: u32 = 274;

/// Bytes of the lead, of which only the magic matters.
const LEAD_SIZE: usize = 96;

/// The main header of a package.
pub struct Header {
    main: Blob,
    /// Only of a package file; an rpmdb has merged it into the main header.
    signature: Option<Blob>,
    nevra: Nevra,
    source: String,
    prefixes: Vec<String>,
    file_digest_algorithm: u32,
    /// Where it is in the package file; empty for a header from an rpmdb.
    range: Range<u64>,
    file_size: u64,
}

/// A changelog entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangelogEntry {
    /// UTC seconds; rpm gives entries the time 12:00.
    pub time: u64,
    /// `Jane Doe <jane@example.com> - 1.2-3`; the version is a custom, not a rule.
    pub author: String,
    /// The text, without the `*` line.
    pub text: String,
}

/// A dependency with rpm's flag bits (`RPMSENSE_*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderDependency {
    /// The dependency.
    pub dependency: Dependency,
    /// All `RPMSENSE_*` bits as in the header.
    pub flags: u32,
}

/// A file of a package, as its header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Index in the header's file list.
    pub index: u32,
    /// Absolute path.
    pub path: String,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner's name.
    pub user: String,
    /// Group's name.
    pub group: String,
    /// Size in bytes.
    pub size: u64,
    /// Modification time, UTC seconds.
    pub mtime: u32,
    /// Hex digest of a regular file, by the algorithm in `FILEDIGESTALGO`; empty otherwise.
    pub digest: String,
    /// Target of a symbolic link.
    pub linkto: String,
    /// `RPMFILE_*` bits.
    pub flags: u32,
    /// `RPMVERIFY_*` bits.
    pub verify: u32,
    /// Hard links of one package share device and inode.
    pub device: u32,
    /// See `device`.
    pub inode: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Languages, `|`-separated; empty for all.
    pub langs: String,
    /// ELF color bits: 1 for 32, 2 for 64 bit.
    pub color: u32,
    /// File capabilities as text (`cap_net_raw=ep`).
    pub caps: String,
    /// IMA signature in hex, of a package whose files are signed; empty otherwise.
    pub ima: String,
}

/// When a script runs. The names are rpm's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "rpm's own names")]
pub enum Phase {
    Pretrans,
    Pre,
    Post,
    Preun,
    Postun,
    Posttrans,
    Preuntrans,
    Postuntrans,
    TriggerPrein,
    TriggerIn,
    TriggerUn,
    TriggerPostun,
    FileTriggerIn,
    FileTriggerUn,
    FileTriggerPostun,
    TransFileTriggerIn,
    TransFileTriggerUn,
    TransFileTriggerPostun,
}

impl fmt::Display for Phase {
    /// As a spec file spells it after the `%`: `post`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pretrans => "pretrans",
            Self::Pre => "pre",
            Self::Post => "post",
            Self::Preun => "preun",
            Self::Postun => "postun",
            Self::Posttrans => "posttrans",
            Self::Preuntrans => "preuntrans",
            Self::Postuntrans => "postuntrans",
            Self::TriggerPrein => "triggerprein",
            Self::TriggerIn => "triggerin",
            Self::TriggerUn => "triggerun",
            Self::TriggerPostun => "triggerpostun",
            Self::FileTriggerIn => "filetriggerin",
            Self::FileTriggerUn => "filetriggerun",
            Self::FileTriggerPostun => "filetriggerpostun",
            Self::TransFileTriggerIn => "transfiletriggerin",
            Self::TransFileTriggerUn => "transfiletriggerun",
            Self::TransFileTriggerPostun => "transfiletriggerpostun",
        })
    }
}

/// A scriptlet or the script of a trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scriptlet {
    /// Interpreter and its arguments: `["/bin/sh"]`, `["<lua>"]`.
    pub interpreter: Vec<String>,
    /// The text; none for `-p PROGRAM` without a body.
    pub body: Option<String>,
    /// Script flags (tags 502x): bit 0 expand macros, bit 1 expand as query format, bit 2 critical.
    pub flags: u32,
}

/// A trigger of one of the three families (package, file, transaction file triggers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// When it fires.
    pub phase: Phase,
    /// What fires it: package names with optional versions, or path prefixes.
    pub conditions: Vec<HeaderDependency>,
    /// Its number within its family, the rpmdb's `idx`.
    pub number: u32,
    /// File triggers: higher runs first; 1000000 by default. 0 for package triggers.
    pub priority: u32,
    /// What runs.
    pub script: Scriptlet,
}

impl Header {
    /// Reads the header of a package file. Checks its structure, not its digests.
    pub fn open(path: &Path) -> Result<Self> {
        let context = || format!("reading the header of {}", path.display());
        let mut file = File::open(path).with_context(context)?;
        let size = file.metadata().with_context(context)?.len();
        Self::read(&mut file, size).with_context(context)
    }

    /// Reads a package, of `file_size` bytes, from its lead to the end of its main header.
    pub fn read(input: &mut impl Read, file_size: u64) -> Result<Self> {
        let lead: [u8; LEAD_SIZE] = read_array(input)?;
        ensure!(
            lead.starts_with(&[0xed, 0xab, 0xee, 0xdb]),
            "not an RPM package: it starts with {}, expected edabeedb",
            hex::encode(&lead[..4])
        );
        let (signature, signature_size) = read_blob(input).context("reading the signature header")?;
        let padding = signature_size.next_multiple_of(8) - signature_size;
        read_exactly(input, padding).context("reading the signature header")?;
        let (main, main_size) = read_blob(input).context("reading the main header")?;
        ensure!(
            main.is_all_region() || !main.has_region(),
            "the main header is damaged: its region does not cover all of it"
        );
        let start = (LEAD_SIZE + signature_size + padding) as u64;
        let range = start..start + main_size as u64;
        let header = Self::new(format3::retrofit(main)?)?;
        Ok(Self { signature: Some(signature), range, file_size, ..header })
    }

    /// Reads a header as an rpmdb stores it (no magic, dribble entries after the region).
    pub fn from_rpmdb_blob(blob: &[u8]) -> Result<Self> {
        let (sizes, rest) = blob.split_first_chunk().context("the header is cut off in its first 8 bytes")?;
        Self::new(Blob::parse(Sizes::parse(sizes)?, rest.to_vec())?)
    }

    fn new(main: Blob) -> Result<Self> {
        let part = |tag: Tag| main.text(tag)?.with_context(|| format!("{tag} is missing"));
        let name = part(Tag::RPMTAG_NAME)?.to_owned();
        ensure!(
            !name.is_empty() && !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()),
            "`{}` is no package name",
            name.escape_debug()
        );
        let epoch = main.u32s(Tag::RPMTAG_EPOCH)?.first().copied().unwrap_or(0);
        let evr = Evr::new(epoch, part(Tag::RPMTAG_VERSION)?, part(Tag::RPMTAG_RELEASE)?);
        let arch = match is_source(&main)? {
            true => "src",
            // the keys that `rpm --import` stores as packages have none
            false => main.text(Tag::RPMTAG_ARCH)?.unwrap_or("(none)"),
        };
        let nevra = Nevra { name, evr, arch: arch.to_owned() };
        let source = main.text(Tag::RPMTAG_SOURCERPM)?.unwrap_or("(none)").to_owned();
        let prefixes = match main.find(Tag::RPMTAG_BASENAMES) {
            Some(_) => main.texts(Tag::RPMTAG_PREFIXES)?.into_iter().map(str::to_owned).collect(),
            None => Vec::new(),
        };
        let file_digest_algorithm = main.u32s(Tag::RPMTAG_FILEDIGESTALGO)?.first().copied().unwrap_or(1);
        Ok(Self {
            main,
            signature: None,
            nevra,
            source,
            prefixes,
            file_digest_algorithm,
            range: 0..0,
            file_size: 0,
        })
    }

    /// Identity. The architecture of a source package is `src`, that of an imported key `(none)`.
    pub fn nevra(&self) -> &Nevra {
        &self.nevra
    }

    /// Source package file name; `(none)` when absent.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Where the compressed payload begins in the package file; 0 for a header from an rpmdb.
    pub fn payload_offset(&self) -> u64 {
        self.range.end
    }

    /// How the payload is compressed: `gzip`, `zstd`, `xz`, `bzip2`, `lzma`.
    pub fn payload_compressor(&self) -> Result<&str> {
        Ok(self.main.text(Tag::RPMTAG_PAYLOADCOMPRESSOR)?.unwrap_or("gzip"))
    }

    /// One line about the package.
    pub fn summary(&self) -> Result<String> {
        Ok(self.prose(Tag::RPMTAG_SUMMARY)?.unwrap_or_default())
    }

    /// `GPL-2.0-or-later`
    pub fn license(&self) -> Result<String> {
        Ok(self.prose(Tag::RPMTAG_LICENSE)?.unwrap_or_default())
    }

    /// Who distributes it.
    pub fn vendor(&self) -> Result<Option<String>> {
        self.prose(Tag::RPMTAG_VENDOR)
    }

    /// Build time, UTC seconds.
    pub fn build_time(&self) -> Result<u64> {
        Ok(self.main.number(Tag::RPMTAG_BUILDTIME)?.unwrap_or(0))
    }

    /// Installed size in bytes, hard links counted once.
    pub fn size(&self) -> Result<u64> {
        let size = self.main.number(Tag::RPMTAG_LONGSIZE)?.or(self.main.number(Tag::RPMTAG_SIZE)?);
        Ok(size.unwrap_or(0))
    }

    /// Size of the decompressed payload in bytes, where the package says it; else 0.
    pub fn archive_size(&self) -> Result<u64> {
        let size = match &self.signature {
            // 1007 in a signature header, whose tags are not those of the main header
            Some(signature) => signature.number(Tag::RPMTAG_BUILDHOST)?,
            None => self.main.number(Tag::RPMTAG_ARCHIVESIZE)?,
        };
        Ok(size.unwrap_or(0))
    }

    /// The bytes of the package file that the main header is; none of a header from an rpmdb.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Install time, UTC seconds; none for a header from a package file.
    pub fn install_time(&self) -> Result<Option<u64>> {
        self.main.number(Tag::RPMTAG_INSTALLTIME)
    }

    /// MD5 of header and payload as an rpmdb keeps it; packages of rpm 6 have none.
    pub fn sigmd5(&self) -> Result<Option<&[u8]>> {
        match &self.signature {
            // 1004 in a signature header, whose tags are not those of the main header
            Some(signature) => signature.binary(Tag::RPMTAG_SUMMARY),
            None => self.main.binary(Tag::RPMTAG_SIGMD5),
        }
    }

    /// Hex SHA-1 of the main header.
    pub fn sha1(&self) -> Result<Option<&str>> {
        self.signed().text(Tag::RPMTAG_SHA1HEADER)
    }

    /// Hex SHA-256 of the main header.
    pub fn sha256(&self) -> Result<Option<&str>> {
        self.signed().text(Tag::RPMTAG_SHA256HEADER)
    }

    /// Where header digests are: the signature header, or what an rpmdb merged it into.
    fn signed(&self) -> &Blob {
        self.signature.as_ref().unwrap_or(&self.main)
    }

    /// The raw structure, for index rows that need bytes as they are.
    pub(crate) fn strings(&self, tag: Tag) -> Result<Vec<&[u8]>> {
        self.main.strings(tag)
    }

    /// Integers of a tag.
    pub(crate) fn u32s(&self, tag: Tag) -> Result<Vec<u32>> {
        self.main.u32s(tag)
    }

    /// A text as well as it can be decoded.
    pub(crate) fn prose(&self, tag: Tag) -> Result<Option<String>> {
        Ok(self.main.strings(tag)?.first().map(|s| String::from_utf8_lossy(s).into_owned()))
    }

    /// What it provides.
    pub fn provides(&self) -> Result<Vec<HeaderDependency>> {
        self.dependencies(Tag::RPMTAG_PROVIDENAME, Tag::RPMTAG_PROVIDEVERSION, Tag::RPMTAG_PROVIDEFLAGS)
    }

    /// What it requires, install-time and rpmlib ones included.
    pub fn requires(&self) -> Result<Vec<HeaderDependency>> {
        self.dependencies(Tag::RPMTAG_REQUIRENAME, Tag::RPMTAG_REQUIREVERSION, Tag::RPMTAG_REQUIREFLAGS)
    }

    /// What it conflicts with.
    pub fn conflicts(&self) -> Result<Vec<HeaderDependency>> {
        self.dependencies(Tag::RPMTAG_CONFLICTNAME, Tag::RPMTAG_CONFLICTVERSION, Tag::RPMTAG_CONFLICTFLAGS)
    }

    /// What it obsoletes.
    pub fn obsoletes(&self) -> Result<Vec<HeaderDependency>> {
        self.dependencies(Tag::RPMTAG_OBSOLETENAME, Tag::RPMTAG_OBSOLETEVERSION, Tag::RPMTAG_OBSOLETEFLAGS)
    }

    /// Weak dependencies and ordering hints: recommends, suggests, supplements, enhances, order-with-requires.
    pub fn weak(&self) -> Result<[Vec<HeaderDependency>; 5]> {
        Ok([
            self.dependencies(
                Tag::RPMTAG_RECOMMENDNAME,
                Tag::RPMTAG_RECOMMENDVERSION,
                Tag::RPMTAG_RECOMMENDFLAGS,
            )?,
            self.dependencies(Tag::RPMTAG_SUGGESTNAME, Tag::RPMTAG_SUGGESTVERSION, Tag::RPMTAG_SUGGESTFLAGS)?,
            self.dependencies(
                Tag::RPMTAG_SUPPLEMENTNAME,
                Tag::RPMTAG_SUPPLEMENTVERSION,
                Tag::RPMTAG_SUPPLEMENTFLAGS,
            )?,
            self.dependencies(Tag::RPMTAG_ENHANCENAME, Tag::RPMTAG_ENHANCEVERSION, Tag::RPMTAG_ENHANCEFLAGS)?,
            self.dependencies(Tag::RPMTAG_ORDERNAME, Tag::RPMTAG_ORDERVERSION, Tag::RPMTAG_ORDERFLAGS)?,
        ])
    }

    fn dependencies(&self, names: Tag, versions: Tag, flags: Tag) -> Result<Vec<HeaderDependency>> {
        let (names, mut versions, mut flags) =
            (self.main.texts(names)?, self.main.texts(versions)?, self.main.u32s(flags)?);
        if versions.is_empty() && flags.is_empty() {
            // those of rpm before 3.0.3 are of any version
            (versions, flags) = (vec![""; names.len()], vec![0; names.len()]);
        }
        same_length(names.len(), [versions.len(), flags.len()], "dependencies")?;
        let rows = names.into_iter().zip(versions).zip(flags);
        rows.map(|((name, version), flags)| HeaderDependency::new(name, version, flags)).collect()
    }

    /// Files in header order, ghosts included.
    pub fn files(&self) -> Result<Vec<FileEntry>> {
        let signatures = match &self.signature {
            Some(signature) => signature.texts(FILESIGNATURES),
            None => self.main.texts(Tag::RPMTAG_FILESIGNATURES),
        };
        signatures
            .and_then(|signatures| files::files(&self.main, &signatures))
            .with_context(|| format!("reading the files of {}", self.nevra))
    }

    /// The algorithm of file digests (RFC 4880 number: 1 MD5, 8 SHA-256, 10 SHA-512).
    pub fn file_digest_algorithm(&self) -> u32 {
        self.file_digest_algorithm
    }

    /// FILESTATES of an installed package, one per file; empty for a header from a package file.
    pub fn file_states(&self) -> Result<Vec<u8>> {
        let states = self.main.numbers(Tag::RPMTAG_FILESTATES)?;
        states.into_iter().map(|s| u8::try_from(s).context("reading FILESTATES")).collect()
    }

    /// The scriptlet of a phase, if the package has one. Triggers have none: see [`Header::triggers`].
    pub fn scriptlet(&self, phase: Phase) -> Result<Option<Scriptlet>> {
        scripts::scriptlet(&self.main, phase)
            .with_context(|| format!("reading the {phase:?} scriptlet of {}", self.nevra))
    }

    /// All triggers: package, file and transaction file triggers.
    pub fn triggers(&self) -> Result<Vec<Trigger>> {
        scripts::triggers(&self.main).with_context(|| format!("reading the triggers of {}", self.nevra))
    }

    /// Directories a relocatable package is installed to (INSTPREFIXES): those it was built for, for strata
    /// moves nothing. As with rpm, a package without files has none.
    pub fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    /// When the changelog's entries were made, UTC seconds, newest first as packagers keep them.
    pub fn changelog_times(&self) -> Result<Vec<u64>> {
        self.main.numbers(Tag::RPMTAG_CHANGELOGTIME)
    }

    /// The changelog, newest entry first as packagers keep it.
    pub fn changelog(&self) -> Result<Vec<ChangelogEntry>> {
        let times = self.changelog_times()?;
        let authors = self.main.strings(Tag::RPMTAG_CHANGELOGNAME)?;
        let texts = self.main.strings(Tag::RPMTAG_CHANGELOGTEXT)?;
        same_length(times.len(), [authors.len(), texts.len()], "changelog entries")?;
        let prose = |s: &[u8]| String::from_utf8_lossy(s).into_owned();
        let entry =
            |((time, author), text)| ChangelogEntry { time, author: prose(author), text: prose(text) };
        Ok(times.into_iter().zip(authors).zip(texts).map(entry).collect())
    }

    /// The package as a solver sees it. Its file's digest and location are not in a header, and stay empty.
    pub fn to_repo_package(&self) -> Result<RepoPackage> {
        let plain = |list: Vec<HeaderDependency>| {
            list.into_iter().map(|d| Arc::new(d.dependency)).collect::<Vec<_>>()
        };
        let [recommends, suggests, supplements, enhances, _] = self.weak()?.map(plain);
        let mut requires = plain(self.requires()?);
        // features of rpm itself: no package provides them, repository metadata leaves them out
        requires.retain(|d| !d.name.starts_with("rpmlib("));
        Ok(RepoPackage {
            nevra: self.nevra.clone(),
            sha256: None,
            size: self.file_size,
            installed_size: self.size()?,
            location: String::new(),
            source: self.source.clone(),
            vendor: self.vendor()?,
            build_time: self.build_time()?,
            provides: plain(self.provides()?),
            requires,
            conflicts: plain(self.conflicts()?),
            obsoletes: plain(self.obsoletes()?),
            recommends,
            suggests,
            supplements,
            enhances,
            files: self.files()?.into_iter().map(|f| f.path).collect(),
        })
    }

    /// The header as the rpmdb stores it after installation: the package's region verbatim, then dribbles.
    ///
    /// Byte for byte what librpm writes (rpm: `lib/header.c` export, `lib/package.c` for the signature tags,
    /// `lib/psm.c` for the others). Fails for a header that is from an rpmdb itself.
    pub fn to_rpmdb_blob(&self, install: &InstallTags) -> Result<Vec<u8>> {
        install::to_rpmdb_blob(self, install)
    }
}

impl HeaderDependency {
    /// `flags` are `RPMSENSE_*`: less 2, greater 4, equal 8, prereq and script bits.
    fn new(name: &str, version: &str, flags: u32) -> Result<Self> {
        const PRE: u32 = 1 << 6 | 1 << 9 | 1 << 10;
        let comparison = match flags & 0xe {
            2 => Some(Comparison::Lt),
            4 => Some(Comparison::Gt),
            8 => Some(Comparison::Eq),
            0xa => Some(Comparison::Le),
            0xc => Some(Comparison::Ge),
            _ => None,
        };
        let version = match comparison.filter(|_| !version.is_empty()) {
            Some(comparison) => {
                let evr = evr(version).with_context(|| format!("reading the dependency on {name}"))?;
                Some((comparison, evr))
            }
            None => None,
        };
        let dependency = Dependency { name: name.to_owned(), version, pre: flags & PRE != 0 };
        Ok(Self { dependency, flags })
    }
}

/// Splits an EVR as rpm does (rpm: `rpmio/rpmver.c`), which takes any characters, unlike [`Evr::from_str`]
/// for what people write: there are provides such as `bundled(golang(x)) = v0.0.0-2019-abc`.
///
/// [`Evr::from_str`]: std::str::FromStr::from_str
fn evr(text: &str) -> Result<Evr> {
    let (epoch, rest) = match text.split_once(':') {
        Some((epoch, rest)) if epoch.bytes().all(|b| b.is_ascii_digit()) => (epoch, rest),
        _ => ("", text),
    };
    let epoch = match epoch {
        "" => 0,
        digits => digits.parse().with_context(|| format!("`{text}` has an epoch beyond 32 bits"))?,
    };
    let (version, release) = rest.rsplit_once('-').unwrap_or((rest, ""));
    Ok(Evr::new(epoch, version, release))
}

/// Parallel arrays of a header must have one length.
fn same_length<const N: usize>(expected: usize, others: [usize; N], what: &str) -> Result<()> {
    match others.into_iter().find(|n| *n != expected) {
        Some(found) => bail!("the header has arrays of {expected} and {found} {what}, expected one length"),
        None => Ok(()),
    }
}

/// Whether it is a source package's. Older ones do not say so, but their files are in no directory (rpm:
/// `headerIsSourceHeuristic`).
fn is_source(main: &Blob) -> Result<bool> {
    let names_a_source = main.find(Tag::RPMTAG_SOURCERPM).is_some();
    Ok(main.find(Tag::RPMTAG_SOURCEPACKAGE).is_some()
        || !names_a_source && main.strings(Tag::RPMTAG_DIRNAMES)? == [b""])
}

/// Reads a header structure with its magic; gives its size in the file too.
fn read_blob(input: &mut impl Read) -> Result<(Blob, usize)> {
    let magic: [u8; 8] = read_array(input)?;
    ensure!(magic == MAGIC, "the magic is {}, expected {}", hex::encode(magic), hex::encode(MAGIC));
    let sizes = Sizes::parse(&read_array(input)?)?;
    let blob = Blob::parse(sizes, read_exactly(input, sizes.total())?)?;
    Ok((blob, MAGIC.len() + 8 + sizes.total()))
}

fn read_array<const N: usize>(input: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).context("the file is cut off")?;
    Ok(bytes)
}

/// Reads `n` bytes, without making room for more than there are.
fn read_exactly(input: &mut impl Read, n: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(n as u64).read_to_end(&mut bytes)?;
    ensure!(bytes.len() == n, "the file is cut off: {} bytes are left, expected {n}", bytes.len());
    Ok(bytes)
}

/// What an installation adds to a header (reference: rpm `lib/psm.c`, `lib/rpmte.c`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallTags {
    /// INSTALLTIME, UTC seconds.
    pub time: u32,
    /// INSTALLTID, UTC seconds.
    pub tid: u32,
    /// INSTALLCOLOR, `%_transaction_color` of the platform.
    pub color: u32,
    /// One state per file: 0 normal, 1 replaced, 2 not installed, 3 net shared, 4 wrong color.
    pub file_states: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What rpm's `%{REQUIRENEVRS}` and comparisons take from such texts.
    #[test]
    fn dependencies_take_versions_as_rpm_does() {
        for (version, flags, expected) in [
            ("1.0-1", 8, "x = 1.0-1"),
            ("2:1.0", 0xc, "x >= 2:1.0"),
            (":1.0", 2, "x < 1.0"),
            ("v0.0.0-2019-abc", 8, "x = v0.0.0-2019-abc"),
            ("a:b", 4, "x > a:b"),
            ("", 8, "x"),
            ("1", 0, "x"),
            ("1", 0xa, "x <= 1"),
        ] {
            let dependency = HeaderDependency::new("x", version, flags).unwrap().dependency;
            assert_eq!(dependency.to_string(), expected);
        }
        assert!(HeaderDependency::new("x", "99999999999:1", 8).is_err());
    }

    #[test]
    fn scripts_before_the_package_make_a_dependency_pre() {
        for (flags, pre) in [(1 << 6, true), (1 << 9, true), (1 << 10, true), (1 << 11, false), (8, false)] {
            assert_eq!(HeaderDependency::new("x", "1", flags).unwrap().dependency.pre, pre, "{flags:#x}");
        }
    }
}
