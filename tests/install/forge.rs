//! Packages that rpmbuild would not make: headers and payloads written byte by byte, truthful unless told to lie;
//! of format 4, or of format 3 as rpm 3 made them.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Tags of the main header (rpm: `include/rpm/rpmtag.h`).
pub mod tag {
    pub const NAME: u32 = 1000;
    pub const FILEMODES: u32 = 1030;
    pub const DIRINDEXES: u32 = 1116;
    pub const LONGSIZE: u32 = 5009;
    /// Of the signature header: a signature over header and payload.
    pub const PGP: u32 = 1002;
    /// Of the signature header: a signature over the header.
    pub const RSA: u32 = 268;
    /// Of the signature header: IMA signatures of files, in hex, and the bytes of the longest.
    pub const FILESIGNATURES: u32 = 274;
    pub const FILESIGNATURELENGTH: u32 = 275;
}

/// A tag's value.
#[derive(Clone)]
pub enum Value {
    Int16(Vec<u16>),
    Int32(Vec<u32>),
    Int64(Vec<u64>),
    Text(Vec<u8>),
    Texts(Vec<Vec<u8>>),
    Bytes(Vec<u8>),
}

/// A file of a package, and what its payload has of it.
#[derive(Clone)]
pub struct File {
    pub path: Vec<u8>,
    pub mode: u16,
    pub size: u64,
    pub digest: String,
    pub link_to: Vec<u8>,
    pub inode: u32,
    pub rdev: u16,
    pub flags: u32,
    pub user: Vec<u8>,
    pub caps: String,
    /// Its name in the payload; left out when absent.
    pub member: Option<Vec<u8>>,
    /// Its bytes in the payload.
    pub content: Vec<u8>,
}

/// `RPMFILE_GHOST`
pub const GHOST: u32 = 1 << 6;

impl File {
    /// A regular file.
    pub fn new(path: impl AsRef<[u8]>, content: &str) -> Self {
        let path = path.as_ref().to_vec();
        Self {
            member: Some([b".", &path[..]].concat()),
            path,
            mode: 0o100644,
            size: content.len() as u64,
            digest: hex::encode(Sha256::digest(content)),
            link_to: Vec::new(),
            inode: 0,
            rdev: 0,
            flags: 0,
            user: b"root".to_vec(),
            caps: String::new(),
            content: content.into(),
        }
    }

    /// A symbolic link.
    pub fn link(path: &str, target: &str) -> Self {
        Self { mode: 0o120777, link_to: target.into(), digest: String::new(), ..Self::new(path, target) }
    }

    /// A directory.
    pub fn directory(path: &str) -> Self {
        Self { mode: 0o040755, digest: String::new(), ..Self::new(path, "") }
    }

    /// A character device.
    pub fn device(path: &str, rdev: u16) -> Self {
        Self { mode: 0o020666, rdev, digest: String::new(), ..Self::new(path, "") }
    }

    /// Where the path is split into DIRNAMES and BASENAMES.
    fn split(&self) -> (&[u8], &[u8]) {
        self.path.split_at(self.path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1))
    }
}

/// A package.
pub struct Package {
    pub files: Vec<File>,
    /// Tags that take the place of the true ones.
    pub lies: Vec<(u32, Value)>,
    /// Tags that are left out.
    pub absent: Vec<u32>,
    /// What takes the place of the true payload.
    pub payload: Option<Vec<u8>>,
    /// Whether it is of format 3.
    pub old: bool,
    /// Tags of the signature header.
    pub signature: Vec<(u32, Value)>,
}

impl Package {
    /// `hostile-1-1.noarch` with some files.
    pub fn new(files: impl Into<Vec<File>>) -> Self {
        Self {
            files: files.into(),
            lies: Vec::new(),
            absent: Vec::new(),
            payload: None,
            old: false,
            signature: Vec::new(),
        }
    }

    /// The same of format 3: no region, paths in one list, files with MD5; and a digest of header and payload.
    pub fn old(mut self) -> Self {
        self.old = true;
        self.signature = vec![(1004, Value::Bytes(md5(&self.signed())))];
        self
    }

    /// What the signature header's digests and signatures are of: header and payload.
    pub fn signed(&self) -> Vec<u8> {
        let region = (!self.old).then_some(63);
        [store(&self.tags(), region), self.payload.clone().unwrap_or_else(|| self.cpio())].concat()
    }

    pub fn lying(mut self, tag: u32, value: Value) -> Self {
        self.lies.push((tag, value));
        self
    }

    pub fn without(mut self, tag: u32) -> Self {
        self.absent.push(tag);
        self
    }

    pub fn paying(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// Writes the package file below `directory`.
    pub fn write(&self, directory: &Path) -> PathBuf {
        let mut lead = [0; 96];
        lead[..6].copy_from_slice(&[0xed, 0xab, 0xee, 0xdb, 3, 0]);
        // RPMSIGTYPE_HEADERSIG
        lead[79] = 5;
        let mut signature = store(&self.signature, (!self.old).then_some(62));
        signature.resize(signature.len().next_multiple_of(8), 0);
        let bytes = [&lead[..], &signature, &self.signed()].concat();
        let path = tempfile::Builder::new().suffix(".rpm").tempfile_in(directory).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.into_temp_path().keep().unwrap()
    }

    fn tags(&self) -> Vec<(u32, Value)> {
        let text = |text: &str| Value::Text(text.into());
        let texts = |get: &dyn Fn(&File) -> &[u8]| {
            Value::Texts(self.files.iter().map(|file| get(file).to_vec()).collect())
        };
        let numbers = |get: &dyn Fn(&File) -> u32| Value::Int32(self.files.iter().map(get).collect());
        let shorts = |get: &dyn Fn(&File) -> u16| Value::Int16(self.files.iter().map(get).collect());
        let mut directories: Vec<&[u8]> = self.files.iter().map(|file| file.split().0).collect();
        directories.dedup();
        let index = |file: &File| directories.iter().position(|d| *d == file.split().0).unwrap() as u32;
        let mut tags = vec![
            (tag::NAME, text("hostile")),
            (1001, text("1")),
            (1002, text("1")),
            (1021, text("linux")),
            (1022, text("noarch")),
            (1124, text("cpio")),
            (5011, Value::Int32(vec![8])),
        ];
        if !self.files.is_empty() {
            tags.extend([
                (5008, Value::Int64(self.files.iter().map(|file| file.size).collect())),
                (tag::FILEMODES, shorts(&|file| file.mode)),
                (1033, shorts(&|file| file.rdev)),
                (1034, numbers(&|_| 1_500_000_000)),
                (1035, texts(&|file| file.digest.as_bytes())),
                (1036, texts(&|file| &file.link_to)),
                (1037, numbers(&|file| file.flags)),
                (1039, texts(&|file| &file.user)),
                (1040, texts(&|_| b"root")),
                (1045, numbers(&|_| u32::MAX)),
                (1095, numbers(&|_| 1)),
                (1096, Value::Int32((1u32..).zip(&self.files).map(|(n, f)| f.inode.max(n)).collect())),
                (1097, texts(&|_| b"")),
                (tag::DIRINDEXES, numbers(&index)),
                (1117, texts(&|file| file.split().1)),
                (1118, Value::Texts(directories.iter().map(|directory| directory.to_vec()).collect())),
                (5010, texts(&|file| file.caps.as_bytes())),
            ]);
        }
        if self.old && !self.files.is_empty() {
            tags.retain(|(tag, _)| ![tag::DIRINDEXES, 1117, 1118, 5008, 5010, 5011].contains(tag));
            let sizes = self.files.iter().map(|file| u32::try_from(file.size).unwrap()).collect();
            let digest = |file: &File| match file.digest.as_str() {
                "" => Vec::new(),
                _ => hex::encode(md5(&file.content)).into(),
            };
            tags.retain(|(tag, _)| *tag != 1035);
            tags.push((1027, texts(&|file| &file.path)));
            tags.push((1028, Value::Int32(sizes)));
            tags.push((1035, Value::Texts(self.files.iter().map(digest).collect())));
        }
        for (tag, lie) in &self.lies {
            tags.retain(|(other, _)| other != tag);
            tags.push((*tag, lie.clone()));
        }
        tags.retain(|(tag, _)| !self.absent.contains(tag));
        tags.sort_by_key(|(tag, _)| *tag);
        tags
    }

    /// The archive, not compressed.
    fn cpio(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        for file in self.files.iter().filter(|file| file.flags & GHOST == 0) {
            if let Some(name) = &file.member {
                member(&mut archive, name, &file.content);
            }
        }
        member(&mut archive, b"TRAILER!!!", b"");
        archive
    }
}

/// Appends a member to an archive (cpio(5), "newc").
pub fn member(archive: &mut Vec<u8>, name: &[u8], content: &[u8]) {
    archive.extend(b"070701");
    for field in 0..13 {
        let number = match field {
            6 => content.len(),
            11 => name.len() + 1,
            _ => 0,
        };
        archive.extend(format!("{number:08x}").bytes());
    }
    for piece in [&[name, b"\0"].concat(), content] {
        archive.extend(piece);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
}

fn md5(bytes: &[u8]) -> Vec<u8> {
    md5::Md5::digest(bytes).to_vec()
}

/// A header with a region around it all, if one is named (rpm: `docs/manual/format_header.md`).
fn store(tags: &[(u32, Value)], region: Option<u32>) -> Vec<u8> {
    let (mut index, mut data) = (Vec::new(), Vec::new());
    for (tag, value) in tags {
        let (kind, align, count, bytes): (u32, usize, usize, Vec<u8>) = match value {
            Value::Int16(n) => (3, 2, n.len(), n.iter().flat_map(|n| n.to_be_bytes()).collect()),
            Value::Int32(n) => (4, 4, n.len(), n.iter().flat_map(|n| n.to_be_bytes()).collect()),
            Value::Int64(n) => (5, 8, n.len(), n.iter().flat_map(|n| n.to_be_bytes()).collect()),
            Value::Bytes(bytes) => (7, 1, bytes.len(), bytes.clone()),
            Value::Text(text) => (6, 1, 1, [text, &b"\0"[..]].concat()),
            Value::Texts(texts) => {
                (8, 1, texts.len(), texts.iter().flat_map(|t| [t, &b"\0"[..]].concat()).collect())
            }
        };
        data.resize(data.len().next_multiple_of(align), 0);
        index.push([*tag, kind, data.len() as u32, count as u32]);
        data.extend(bytes);
    }
    if let Some(region) = region {
        index.insert(0, [region, 7, data.len() as u32, 16]);
        let back = (index.len() as u32 * 16).wrapping_neg();
        data.extend([region, 7, back, 16].into_iter().flat_map(u32::to_be_bytes));
    }
    let sizes = [index.len() as u32, data.len() as u32];
    let numbers = sizes.into_iter().chain(index.into_iter().flatten()).flat_map(u32::to_be_bytes);
    let mut header = [0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0].into_iter().chain(numbers).collect::<Vec<u8>>();
    header.extend(data);
    header
}
