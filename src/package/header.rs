//! RPM headers, from a package file or from an rpmdb blob.

use std::path::Path;

use anyhow::Result;

use super::{Dependency, Nevra};

/// The main header of a package.
pub struct Header {
    _todo: (),
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
    pub fn open(_path: &Path) -> Result<Self> {
        unimplemented!()
    }

    /// Reads a header as an rpmdb stores it (no magic, dribble entries after the region).
    pub fn from_rpmdb_blob(_blob: &[u8]) -> Result<Self> {
        unimplemented!()
    }

    /// Identity.
    pub fn nevra(&self) -> &Nevra {
        unimplemented!()
    }

    /// Source package file name; `(none)` when absent.
    pub fn source(&self) -> &str {
        unimplemented!()
    }

    /// What it provides.
    pub fn provides(&self) -> Result<Vec<HeaderDependency>> {
        unimplemented!()
    }

    /// What it requires, install-time and rpmlib ones included.
    pub fn requires(&self) -> Result<Vec<HeaderDependency>> {
        unimplemented!()
    }

    /// What it conflicts with.
    pub fn conflicts(&self) -> Result<Vec<HeaderDependency>> {
        unimplemented!()
    }

    /// What it obsoletes.
    pub fn obsoletes(&self) -> Result<Vec<HeaderDependency>> {
        unimplemented!()
    }

    /// Weak dependencies and ordering hints: recommends, suggests, supplements, enhances, order-with-requires.
    pub fn weak(&self) -> Result<[Vec<HeaderDependency>; 5]> {
        unimplemented!()
    }

    /// Files in header order, ghosts included.
    pub fn files(&self) -> Result<Vec<FileEntry>> {
        unimplemented!()
    }

    /// The algorithm of file digests (RFC 4880 number: 1 MD5, 8 SHA-256, 10 SHA-512).
    pub fn file_digest_algorithm(&self) -> u32 {
        unimplemented!()
    }

    /// The scriptlet of a phase, if the package has one.
    pub fn scriptlet(&self, _phase: Phase) -> Result<Option<Scriptlet>> {
        unimplemented!()
    }

    /// All triggers: package, file and transaction file triggers.
    pub fn triggers(&self) -> Result<Vec<Trigger>> {
        unimplemented!()
    }

    /// Directories a relocatable package may be moved from (PREFIXES).
    pub fn prefixes(&self) -> Vec<String> {
        unimplemented!()
    }

    /// The header as the rpmdb stores it after installation: the package's region verbatim, then dribbles.
    pub fn to_rpmdb_blob(&self, _install: &InstallTags) -> Result<Vec<u8>> {
        unimplemented!()
    }
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
