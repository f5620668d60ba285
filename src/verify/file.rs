//! A file against what its package's header says of it, by the rules of `rpm -V`.
//!
//! Facts from rpm: `lib/rpmfi.c` (`rpmfilesVerify`), `lib/verify.c`. Two differences are intended: owners are
//! compared by the ids that the tree's own passwd and group give to the names, and a time of 0 is none, because
//! ostree keeps no times and containers made from its commits have all of them 0.

use std::path::Path;

use anyhow::{Context, Result};
use rpm::{FileFlags, FileVerifyFlags as Verify};
use rustix::fs::FileType;
use serde::{Serialize, Serializer};

use crate::install::{caps, has, owner::Owners};
use crate::package::header::FileEntry;
use crate::tree::{Content, Kind, Node, Tree};

/// FILESTATES of an installed package (rpm: `rpmfiles.h`).
const REPLACED: u8 = 1;
const NOT_INSTALLED: u8 = 2;
const NET_SHARED: u8 = 3;
const WRONG_COLOR: u8 = 4;

/// What may differ, in the order of rpm's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "rpm's own names")]
pub enum Attribute {
    Size,
    Mode,
    Digest,
    Device,
    Link,
    User,
    Group,
    Time,
    Capabilities,
}

/// All attributes with their letters, in the order of rpm's columns.
const COLUMNS: [(Attribute, char); 9] = [
    (Attribute::Size, 'S'),
    (Attribute::Mode, 'M'),
    (Attribute::Digest, '5'),
    (Attribute::Device, 'D'),
    (Attribute::Link, 'L'),
    (Attribute::User, 'U'),
    (Attribute::Group, 'G'),
    (Attribute::Time, 'T'),
    (Attribute::Capabilities, 'P'),
];

/// An attribute that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which.
    pub attribute: Attribute,
    /// What the header says.
    pub expected: String,
    /// What the file has.
    pub found: String,
    /// Whether it could not be compared.
    pub unknown: bool,
}

/// How a file differs from its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not there.
    Missing,
    /// In these attributes, at least one.
    Differs(Vec<Difference>),
}

impl Verdict {
    /// As `rpm -V` prints it: `S.5....T.`, or `missing`.
    pub fn columns(&self) -> String {
        let Self::Differs(differences) = self else { return "missing".to_owned() };
        let letter = |(attribute, letter): (Attribute, char)| {
            let difference = differences.iter().find(|d| d.attribute == attribute);
            difference.map_or('.', |d| if d.unknown { '?' } else { letter })
        };
        COLUMNS.map(letter).iter().collect()
    }

    /// Whether this may happen to a configuration file: its content is the administrator's, its access is not.
    pub fn is_content_only(&self) -> bool {
        use Attribute::{Digest, Link, Size, Time};
        match self {
            Self::Missing => false,
            Self::Differs(differences) => {
                differences.iter().all(|d| matches!(d.attribute, Size | Digest | Link | Time))
            }
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let differences: &[Difference] = match self {
            Self::Missing => &[],
            Self::Differs(differences) => differences,
        };
        differences.serialize(serializer)
    }
}

/// The letter by which `rpm -V` marks a file, if any: configuration, documentation, ghost ...
pub fn mark(file: &FileEntry) -> Option<char> {
    let marks = [
        (FileFlags::CONFIG, 'c'),
        (FileFlags::DOC, 'd'),
        (FileFlags::GHOST, 'g'),
        (FileFlags::LICENSE, 'l'),
        (FileFlags::PUBKEY, 'P'),
        (FileFlags::README, 'r'),
        (FileFlags::ARTIFACT, 'a'),
    ];
    marks.into_iter().find(|(flag, _)| has(file, *flag)).map(|(_, mark)| mark)
}

/// Whether the content of `node` is what the package has in its payload.
pub fn is_shipped(node: &Node, file: &FileEntry, algorithm: u32) -> bool {
    let Kind::File(content) = &node.kind else { return false };
    !has(file, FileFlags::GHOST) && content.digests.get(&algorithm) == Some(&file.digest)
}

/// Compares a file of a package with the tree; none if it is as it should be. `state` is its FILESTATES entry,
/// `algorithm` the package's FILEDIGESTALGO.
pub fn verify(
    tree: &Tree,
    owners: &Owners,
    file: &FileEntry,
    state: u8,
    algorithm: u32,
) -> Result<Option<Verdict>> {
    if matches!(state, NOT_INSTALLED | NET_SHARED) {
        return Ok(None);
    }
    let Some(node) = find(tree, owners, file) else {
        // tmpfiles.d makes it at boot (build::rules)
        let volatile = ["/run/", "/tmp/"].iter().any(|dir| file.path.starts_with(dir));
        let optional = volatile || has(file, FileFlags::GHOST) || has(file, FileFlags::MISSINGOK);
        return Ok((!optional).then_some(Verdict::Missing));
    };
    let compare = Compare { file, node, owners, algorithm, wanted: wanted(file, node, state) };
    let differences = compare.all().with_context(|| format!("verifying {}", file.path))?;
    Ok((!differences.is_empty()).then_some(Verdict::Differs(differences)))
}

/// What is at the file's path. Where a directory is expected, a link to one will do if its owner is root or the
/// directory's: whoever made it was allowed to.
fn find<'t>(tree: &'t Tree, owners: &Owners, file: &FileEntry) -> Option<&'t Node> {
    let path = Path::new(&file.path);
    let node = tree.get(&tree.locate(path, false)?)?;
    if !is(file.mode, FileType::Directory) || !matches!(node.kind, Kind::Symlink(_)) {
        return Some(node);
    }
    let target = tree.locate(path, true).and_then(|path| tree.get(&path));
    let trusted = node.uid == 0 || owners.user(&file.user) == Some(node.uid);
    target.filter(|target| trusted && target.kind == Kind::Directory).or(Some(node))
}

/// What of a file is compared: what its package asks for, as far as it means something for this type.
fn wanted(file: &FileEntry, node: &Node, state: u8) -> Verify {
    let content = Verify::FILEDIGEST | Verify::FILESIZE | Verify::MTIME;
    let mut wanted = match state {
        REPLACED => Verify::NONE,
        WRONG_COLOR => Verify::from_bits_retain(file.verify) - content - Verify::RDEV,
        _ => Verify::from_bits_retain(file.verify),
    };
    match node.kind {
        Kind::Symlink(_) => wanted -= Verify::MODE,
        _ => wanted -= Verify::LINKTO,
    }
    if !matches!(node.kind, Kind::File(_)) {
        wanted -= content | Verify::CAPS;
    }
    if has(file, FileFlags::GHOST) {
        wanted -= content | Verify::LINKTO;
    }
    wanted
}

struct Compare<'a> {
    file: &'a FileEntry,
    node: &'a Node,
    owners: &'a Owners,
    algorithm: u32,
    wanted: Verify,
}

impl Compare<'_> {
    fn all(&self) -> Result<Vec<Difference>> {
        let content = match &self.node.kind {
            Kind::File(content) => Some(content),
            _ => None,
        };
        let found = [
            content.and_then(|content| self.size(content)),
            self.mode(),
            content.and_then(|content| self.digest(content)),
            self.device(),
            self.link(),
            self.user(),
            self.group(),
            self.time(),
            self.capabilities()?,
        ];
        Ok(found.into_iter().flatten().collect())
    }

    /// The difference between two texts, if the attribute is to be compared at all.
    fn differs(
        &self,
        flag: Verify,
        attribute: Attribute,
        expected: impl ToString,
        found: impl ToString,
    ) -> Option<Difference> {
        let (expected, found) = (expected.to_string(), found.to_string());
        let differs = self.wanted.contains(flag) && expected != found;
        differs.then_some(Difference { attribute, expected, found, unknown: false })
    }

    fn size(&self, content: &Content) -> Option<Difference> {
        self.differs(Verify::FILESIZE, Attribute::Size, self.file.size, content.size)
    }

    fn digest(&self, content: &Content) -> Option<Difference> {
        let expected = &self.file.digest;
        let unknown = |found: &str| {
            let difference = self.differs(Verify::FILEDIGEST, Attribute::Digest, expected, found)?;
            Some(Difference { unknown: true, ..difference })
        };
        match content.digests.get(&self.algorithm) {
            _ if content.unreadable => unknown("the file is not readable"),
            None => unknown(&format!("hash algorithm {} proves nothing", self.algorithm)),
            Some(found) => self.differs(Verify::FILEDIGEST, Attribute::Digest, expected, found),
        }
    }

    fn mode(&self) -> Option<Difference> {
        // the type of what is only reserved means nothing
        let mask = if has(self.file, FileFlags::GHOST) { 0o7777 } else { 0o177_777 };
        let text = |mode: u32| format!("{:06o}", mode & mask);
        self.differs(Verify::MODE, Attribute::Mode, text(self.file.mode), text(self.node.full_mode()))
    }

    fn device(&self) -> Option<Difference> {
        let expected = [FileType::CharacterDevice, FileType::BlockDevice].map(|t| is(self.file.mode, t));
        let (found, number) = match self.node.kind {
            Kind::Device { character, number } => ([character, !character], number),
            _ => ([false, false], 0),
        };
        // headers have 16 bits of the number
        let text = |[character, block]: [bool; 2], number: u64| match (character, block) {
            (true, _) => format!("character device {}", number & 0xffff),
            (_, true) => format!("block device {}", number & 0xffff),
            _ => "no device".to_owned(),
        };
        let expected = text(expected, u64::from(self.file.rdev));
        self.differs(Verify::RDEV, Attribute::Device, expected, text(found, number))
    }

    fn link(&self) -> Option<Difference> {
        let Kind::Symlink(target) = &self.node.kind else { return None };
        self.differs(Verify::LINKTO, Attribute::Link, &self.file.linkto, target.display())
    }

    fn user(&self) -> Option<Difference> {
        let (name, uid) = (&self.file.user, self.node.uid);
        let found = if self.owners.user(name) == Some(uid) { name.clone() } else { uid.to_string() };
        self.differs(Verify::USER, Attribute::User, name, found)
    }

    fn group(&self) -> Option<Difference> {
        let (name, gid) = (&self.file.group, self.node.gid);
        let found = if self.owners.group(name) == Some(gid) { name.clone() } else { gid.to_string() };
        self.differs(Verify::GROUP, Attribute::Group, name, found)
    }

    fn time(&self) -> Option<Difference> {
        let found = Some(self.node.mtime).filter(|time| *time != 0)?;
        self.differs(Verify::MTIME, Attribute::Time, self.file.mtime, found)
    }

    fn capabilities(&self) -> Result<Option<Difference>> {
        if !self.wanted.contains(Verify::CAPS) {
            return Ok(None);
        }
        let expected = caps::xattr(&self.file.caps)?;
        let found = self.node.capability.as_deref().map(without_namespace);
        let text = |value: Option<&[u8]>| value.map_or("none".to_owned(), hex::encode);
        if expected == found {
            return Ok(None);
        }
        let difference = self.differs(
            Verify::CAPS,
            Attribute::Capabilities,
            text(expected.as_deref()),
            text(found.as_deref()),
        );
        Ok(difference)
    }
}

/// Whether a mode of a header is of this type.
fn is(mode: u32, kind: FileType) -> bool {
    FileType::from_raw_mode(mode) == kind
}

/// A capability as revision 2, which has no root id of a user namespace (linux/capability.h).
fn without_namespace(value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    if value.len() == 24 && value[3] == 3 {
        value[3] = 2;
        value.truncate(20);
    }
    value
}
