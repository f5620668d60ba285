//! repomd.xml: the table of contents of a repository.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Cursor, Write};

use anyhow::{Context, Result, bail};
use sha2::Digest as _;

use super::location;
use super::xml::{Node, walk};
use crate::digest::{Digest, Hasher};

/// repomd.xml lists about ten files; half a megabyte would be hundreds.
const LIMIT: u64 = 1 << 20;

/// The kinds of files that strata reads.
const KINDS: [&str; 6] = ["primary", "filelists", "updateinfo", "group", "group_gz", "modules"];

/// The files of a repository's metadata that strata reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repomd {
    /// When the metadata were made, UTC seconds.
    pub revision: u64,
    /// By kind: `primary`, `filelists`, `updateinfo`.
    pub data: BTreeMap<String, DataFile>,
}

/// One file of a repository's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Path below the repository's base URL.
    pub location: String,
    /// Checksum of the file as stored, that is compressed.
    pub checksum: Checksum,
    /// Size in bytes as stored, if stated.
    pub size: Option<u64>,
    /// Size in bytes after decompression, if stated.
    pub open_size: Option<u64>,
}

/// A checksum strong enough to be trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// `sha256`
    Sha256(Digest),
    /// `sha512`
    Sha512([u8; 64]),
}

impl Checksum {
    /// Parses a checksum by the type metadata gives it.
    pub fn parse(kind: &str, hex: &str) -> Result<Self> {
        match kind {
            "sha256" => Ok(Self::Sha256(Digest::from_hex(hex)?)),
            "sha512" => {
                let mut bytes = [0; 64];
                hex::decode_to_slice(hex, &mut bytes)
                    .with_context(|| format!("`{hex}` is no sha512 checksum"))?;
                Ok(Self::Sha512(bytes))
            }
            "md5" | "sha" | "sha1" => {
                bail!("a {kind} checksum proves nothing: expected sha256 or sha512 (createrepo_c --checksum)")
            }
            other => bail!("unknown checksum type `{other}`: expected sha256 or sha512"),
        }
    }

    /// Computes a checksum of the same kind.
    pub fn hasher(&self) -> ChecksumHasher {
        match self {
            Self::Sha256(_) => ChecksumHasher::Sha256(Hasher::new(io::sink())),
            Self::Sha512(_) => ChecksumHasher::Sha512(sha2::Sha512::new()),
        }
    }

    /// Whether it is the checksum of `bytes`.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish() == *self
    }

    /// Its hex digits.
    pub fn hex(&self) -> String {
        match self {
            Self::Sha256(digest) => digest.hex(),
            Self::Sha512(bytes) => hex::encode(bytes),
        }
    }
}

/// Computes a [`Checksum`] piece by piece.
pub enum ChecksumHasher {
    /// `sha256`
    Sha256(Hasher<io::Sink>),
    /// `sha512`
    Sha512(sha2::Sha512),
}

impl ChecksumHasher {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            // a sink takes everything
            Self::Sha256(hasher) => hasher.write_all(bytes).unwrap_or_default(),
            Self::Sha512(hasher) => sha2::Digest::update(hasher, bytes),
        }
    }

    /// The checksum of all bytes added.
    pub fn finish(self) -> Checksum {
        match self {
            Self::Sha256(hasher) => Checksum::Sha256(hasher.finish().1),
            Self::Sha512(hasher) => Checksum::Sha512(hasher.finalize().into()),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        };
        write!(f, "{kind}:{}", self.hex())
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Repomd {
    /// Parses repomd.xml. Kinds strata does not read are left out, whatever they say.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let mut repomd = Self::default();
        let (mut newest, mut revision) = (0, None);
        let mut entry = Entry::default();
        walk(Cursor::new(text.to_vec()), "repomd", LIMIT, |node| {
            match node {
                Node::Open(e) => match e.name() {
                    "data" => entry = Entry { kind: e.require("type")?, ..Entry::default() },
                    "checksum" => entry.checksum_type = e.require("type")?,
                    "location" => {
                        entry.location = e.require("href")?;
                        entry.has_base = e.get("xml:base")?.is_some_and(|base| !base.is_empty());
                    }
                    _ => {}
                },
                Node::Close(name, text) => match name {
                    "revision" => revision = text.trim().parse().ok(),
                    "checksum" => entry.checksum = text.trim().to_owned(),
                    "size" => entry.size = Some(text.trim().parse().context("reading a size")?),
                    "open-size" => {
                        entry.open_size = Some(text.trim().parse().context("reading an open-size")?)
                    }
                    // createrepo_c writes whole seconds, createrepo wrote fractions
                    "timestamp" => {
                        newest = newest.max(text.trim().split('.').next().unwrap_or("").parse().unwrap_or(0))
                    }
                    "data" if KINDS.contains(&entry.kind.as_str()) => {
                        let entry = std::mem::take(&mut entry);
                        let context = format!("reading the entry of {}", entry.kind);
                        repomd.data.insert(entry.kind.clone(), entry.finish().context(context)?);
                    }
                    _ => {}
                },
            }
            Ok(())
        })?;
        // createrepo_c lets the publisher write any word as the revision
        repomd.revision = revision.unwrap_or(newest);
        Ok(repomd)
    }
}

/// A `<data>` element while it is read.
#[derive(Default)]
struct Entry {
    kind: String,
    location: String,
    has_base: bool,
    checksum_type: String,
    checksum: String,
    size: Option<u64>,
    open_size: Option<u64>,
}

impl Entry {
    fn finish(self) -> Result<DataFile> {
        if self.has_base {
            bail!("its location has an xml:base, which strata does not follow");
        }
        Ok(DataFile {
            location: location(&self.location)?,
            checksum: Checksum::parse(&self.checksum_type, &self.checksum)?,
            size: self.size,
            open_size: self.open_size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "87a8a2088aadae3c6c1d449702259d89926e676ac887996e6ffb51624e53bef9";

    fn document(checksum: &str, href: &str) -> String {
        format!(
            "<repomd xmlns='http://linux.duke.edu/metadata/repo'><revision>17</revision>
             <data type='primary'>{checksum}<open-checksum type='sha1'>00</open-checksum><location href='{href}'/>
             <timestamp>9</timestamp><size>5</size><open-size>50</open-size></data>
             <data type='other_db'><checksum type='md5'>x</checksum><location href='../../x'/></data></repomd>"
        )
    }

    #[test]
    fn reads_what_strata_needs() {
        let repomd = Repomd::parse(
            document(&format!("<checksum type='sha256'>{SUM}</checksum>"), "repodata/p").as_bytes(),
        );
        let file = DataFile {
            location: "repodata/p".into(),
            checksum: Checksum::Sha256(Digest::from_hex(SUM).unwrap()),
            size: Some(5),
            open_size: Some(50),
        };
        let data = BTreeMap::from([("primary".to_owned(), file)]);
        assert_eq!(repomd.unwrap(), Repomd { revision: 17, data });
    }

    #[test]
    fn refuses_weak_checksums_and_paths_out_of_the_repository() {
        for (checksum, href, message) in [
            ("<checksum type='sha1'>00</checksum>".to_owned(), "p", "sha1 checksum proves nothing"),
            ("<checksum type='sha256'>00</checksum>".to_owned(), "p", "not a digest"),
            ("<checksum type='crc'>00</checksum>".to_owned(), "p", "unknown checksum type `crc`"),
            (String::new(), "p", "unknown checksum type ``"),
            (format!("<checksum type='sha256'>{SUM}</checksum>"), "../p", "leaves the repository"),
            (format!("<checksum type='sha256'>{SUM}</checksum>"), "/etc/passwd", "leaves the repository"),
        ] {
            let error = format!("{:#}", Repomd::parse(document(&checksum, href).as_bytes()).unwrap_err());
            assert!(error.contains(message), "{checksum} {href}: {error}");
        }
    }

    #[test]
    fn a_revision_that_is_a_word_gives_way_to_the_newest_file() {
        let text =
            "<repomd><revision>final</revision><data type='x'><timestamp>9.5</timestamp></data></repomd>";
        assert_eq!(Repomd::parse(text.as_bytes()).unwrap().revision, 9);
    }
}
