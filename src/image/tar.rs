//! Layer tars: ustar headers (POSIX `pax`, ustar Interchange Format), with pax records for what does not fit.
//!
//! The bytes depend on the entries and contents alone: no user names, no device numbers, pax headers with a
//! fixed name and sorted records (reference: image-spec `layer.md`, reproducible-builds.org "Archives").

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};

use super::delta::{Entry, Kind};
use crate::digest::{Digest, Hasher};

const BLOCK: usize = 512;
/// Raised when the same headers and contents come to give another archive.
const FORM: u8 = 1;
/// What ends an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Where the contents of files are that go into an archive.
pub trait Contents: Sync {
    /// Opens the content of the file `entry`.
    fn open(&self, entry: &Entry) -> Result<Box<dyn Read + '_>>;

    /// The SHA-256 of the content of the file `entry`, if it is known without reading that.
    fn known(&self, _entry: &Entry) -> Option<Digest> {
        None
    }
}

/// A tree on disk: contents are at the paths of their entries.
pub struct Tree<'a>(pub &'a Path);

impl Contents for Tree<'_> {
    fn open(&self, entry: &Entry) -> Result<Box<dyn Read + '_>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(self.0.join(&entry.path), flags, Mode::empty())?;
        Ok(Box::new(File::from(file)))
    }
}

/// A tree on disk of some of whose files the content is known.
pub struct KnownTree<'a> {
    /// The tree.
    pub tree: Tree<'a>,
    /// Digests of files, by the paths of their entries.
    pub known: HashMap<PathBuf, Digest>,
}

impl Contents for KnownTree<'_> {
    fn open(&self, entry: &Entry) -> Result<Box<dyn Read + '_>> {
        self.tree.open(entry)
    }

    fn known(&self, entry: &Entry) -> Option<Digest> {
        self.known.get(&entry.path).copied()
    }
}

/// What tells the archive of `entries`, whose files have these contents, from all others: the digest of all headers,
/// of the digest of each content after its header, and of the form of archives.
pub fn identity(contents: &dyn Contents, entries: &[Entry]) -> Result<Digest> {
    let mut identity = Hasher::new(io::sink());
    identity.write_all(&[FORM])?;
    for entry in entries {
        let context = || format!("packing /{}", entry.path.display());
        identity.write_all(&header(entry).with_context(context)?)?;
        if let Kind::File { .. } = entry.kind {
            let digest = contents.known(entry).map_or_else(|| digest(contents, entry), Ok);
            identity.write_all(digest.with_context(context)?.as_bytes())?;
        }
    }
    Ok(identity.finish().1)
}

fn digest(contents: &dyn Contents, entry: &Entry) -> Result<Digest> {
    Ok(Digest::of_reader(&mut contents.open(entry)?)?.0)
}

/// Writes `entries`, whose files have these contents, and the end of the archive to `out`.
pub fn write(contents: &dyn Contents, entries: &[Entry], out: &mut impl Write) -> Result<()> {
    for entry in entries {
        write_entry(contents, entry, out).with_context(|| format!("packing /{}", entry.path.display()))?;
    }
    out.write_all(&END).context("ending the layer's tar")
}

fn write_entry(contents: &dyn Contents, entry: &Entry, out: &mut impl Write) -> Result<()> {
    out.write_all(&header(entry)?)?;
    if let Kind::File { size } = entry.kind {
        copy_content(contents.open(entry)?, size, out)?;
        out.write_all(padding(size))?;
    }
    Ok(())
}

/// The header of an entry, with the one of its pax records.
pub fn header(entry: &Entry) -> Result<Vec<u8>> {
    let mut header = Header::default();
    header.text(NAME, "path", name(entry));
    header.number(MODE, "mode", i128::from(entry.mode))?;
    header.number(UID, "uid", i128::from(entry.uid))?;
    header.number(GID, "gid", i128::from(entry.gid))?;
    header.number(MTIME, "mtime", i128::from(entry.mtime))?;
    let size = match entry.kind {
        Kind::File { size } => size,
        _ => 0,
    };
    header.number(SIZE, "size", i128::from(size))?;
    header.ustar[TYPE] = match &entry.kind {
        Kind::File { .. } | Kind::Whiteout => b'0',
        Kind::HardLink { .. } => b'1',
        Kind::Symlink { .. } => b'2',
        Kind::Directory => b'5',
    };
    match &entry.kind {
        Kind::HardLink { to } => header.text(LINK, "linkpath", to.as_os_str().as_bytes().to_vec()),
        Kind::Symlink { target } => header.text(LINK, "linkpath", target.as_bytes().to_vec()),
        _ => {}
    }
    // the other names of a file carry no attributes of their own
    if !matches!(entry.kind, Kind::HardLink { .. }) {
        for (name, value) in &entry.xattrs {
            header.xattr(name.as_bytes(), value)?;
        }
    }
    Ok(header.finish()?)
}

/// The name of an entry.
pub fn name(entry: &Entry) -> Vec<u8> {
    let path = match (&entry.kind, entry.path.file_name()) {
        (Kind::Whiteout, Some(name)) => {
            let mut whiteout = OsString::from(".wh.");
            whiteout.push(name);
            entry.path.with_file_name(whiteout)
        }
        _ => entry.path.clone(),
    };
    let mut name = path.into_os_string().into_vec();
    if name.is_empty() {
        name.push(b'.');
    }
    if entry.kind == Kind::Directory {
        name.push(b'/');
    }
    name
}

/// Writes a content, which must have this size; what comes after it is [`padding`].
pub fn copy_content(mut content: Box<dyn Read + '_>, size: u64, out: &mut impl Write) -> Result<()> {
    let copied = io::copy(&mut (&mut content).take(size), out)?;
    ensure!(
        copied == size && content.read(&mut [0])? == 0,
        "it changed while it was being packed: expected {size} bytes"
    );
    Ok(())
}

/// What fills the last block of a content of so many bytes.
pub fn padding(size: u64) -> &'static [u8] {
    match (size % BLOCK as u64) as usize {
        0 => &[],
        over => &[0; BLOCK][over..],
    }
}

/// Start and length of a field.
type Field = (usize, usize);
const NAME: Field = (0, 100);
const MODE: Field = (100, 8);
const UID: Field = (108, 8);
const GID: Field = (116, 8);
const SIZE: Field = (124, 12);
const MTIME: Field = (136, 12);
const CHECKSUM: Field = (148, 8);
const TYPE: usize = 156;
const LINK: Field = (157, 100);
const MAGIC: Field = (257, 8);

/// A ustar header, and the pax records of what does not fit in it.
struct Header {
    ustar: [u8; BLOCK],
    pax: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Default for Header {
    fn default() -> Self {
        let mut ustar = [0; BLOCK];
        ustar[MAGIC.0..][..MAGIC.1].copy_from_slice(b"ustar\x0000");
        Self { ustar, pax: BTreeMap::new() }
    }
}

impl Header {
    /// Sets a text field; a longer text is a pax record. Shorter ones go as they are, whatever their encoding:
    /// libarchive refuses to convert pax records to the character set of a C locale.
    fn text(&mut self, (start, length): Field, key: &str, value: Vec<u8>) {
        let fits = value.len().min(length);
        self.ustar[start..][..fits].copy_from_slice(&value[..fits]);
        if value.len() > length {
            if str::from_utf8(&value).is_err() {
                self.pax.insert(b"hdrcharset".to_vec(), b"BINARY".to_vec());
            }
            self.pax.insert(key.into(), value);
        }
    }

    /// Sets an octal field, ended by a NUL; a number it can't hold is a pax record.
    fn number(&mut self, (start, length): Field, key: &str, value: i128) -> io::Result<()> {
        let limit = 1_i128 << (3 * (length - 1));
        let fits = if (0..limit).contains(&value) { value } else { 0 };
        if fits != value {
            self.pax.insert(key.into(), value.to_string().into_bytes());
        }
        write!(&mut self.ustar[start..], "{fits:0width$o}", width = length - 1)
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        ensure!(!name.contains(&b'='), "the xattr name {} can't be written in a tar", name.escape_ascii());
        self.pax.insert([b"SCHILY.xattr.", name].concat(), value.to_vec());
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if !self.pax.is_empty() {
            let records: Vec<u8> = self.pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            let mut extended = Header::default();
            extended.text(NAME, "path", b"././@PaxHeader".to_vec());
            extended.number(MODE, "mode", 0o644)?;
            for field in [UID, GID, MTIME] {
                extended.number(field, "", 0)?;
            }
            extended.number(SIZE, "size", records.len() as i128)?;
            extended.ustar[TYPE] = b'x';
            extended.seal()?;
            bytes.extend(extended.ustar);
            bytes.extend(&records);
            bytes.extend(padding(records.len() as u64));
        }
        self.seal()?;
        bytes.extend(self.ustar);
        Ok(bytes)
    }

    /// Sets the checksum: the sum of all bytes, its own field taken as blanks.
    fn seal(&mut self) -> io::Result<()> {
        let (start, length) = CHECKSUM;
        self.ustar[start..][..length].fill(b' ');
        let sum: u32 = self.ustar.iter().map(|&b| u32::from(b)).sum();
        write!(&mut self.ustar[start..], "{sum:06o}\0")
    }
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::image::untar;

    fn entry(path: &str, kind: Kind) -> Entry {
        let xattrs = BTreeMap::new();
        Entry { path: path.into(), kind, mode: 0o4755, uid: 1, gid: 2, mtime: 3, xattrs }
    }

    /// The headers of one entry, followed by the end of the archive.
    fn headers(entry: &Entry) -> Vec<u8> {
        let mut out = Vec::new();
        write(&Tree(Path::new("/nonexistent")), std::slice::from_ref(entry), &mut out).unwrap();
        out
    }

    #[test]
    fn a_record_counts_its_own_length() {
        // the length gains a digit by counting itself: 97 + 2 digits + 1 = 100
        for value in 80..120 {
            let record = record(b"path", &vec![b'x'; value]);
            let text = String::from_utf8(record.clone()).unwrap();
            let length: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(length, record.len());
        }
    }

    #[test]
    fn long_names_and_numbers_are_read_by_the_tar_crate() {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
        let mut link = entry(&long, Kind::Symlink { target: "t".repeat(130).into() });
        link.uid = 3_000_000;
        let bytes = headers(&link);
        let mut archive = ::tar::Archive::new(bytes.as_slice());
        let read = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(read.path().unwrap(), PathBuf::from(&long));
        assert_eq!(read.link_name().unwrap().unwrap(), PathBuf::from("t".repeat(130)));
        assert_eq!((read.header().uid().unwrap(), read.header().gid().unwrap()), (3_000_000, 2));
        assert_eq!((read.header().mode().unwrap(), read.header().mtime().unwrap()), (0o4755, 3));
    }

    #[test]
    fn a_number_that_needs_a_pax_record_leaves_a_valid_field() {
        let mut header = Header::default();
        header.number(SIZE, "size", (1 << 33) - 1).unwrap();
        assert_eq!(&header.ustar[124..136], b"77777777777\0");
        header.number(SIZE, "size", 1 << 33).unwrap();
        assert_eq!(&header.ustar[124..136], b"00000000000\0");
        assert_eq!(header.pax[&b"size".to_vec()], b"8589934592");
        header.number(MTIME, "mtime", -1).unwrap();
        assert_eq!(header.pax[&b"mtime".to_vec()], b"-1");
    }

    #[test]
    fn xattr_values_are_bytes() {
        // CAP_DAC_OVERRIDE and CAP_FOWNER: the mask is a line feed
        let mut file = entry("bin", Kind::Directory);
        let value = b"\x01\0\0\x02\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        file.xattrs.insert("security.capability".into(), value.clone());
        let bytes = headers(&file);
        let read = untar::Reader::new(bytes.as_slice()).next_member().unwrap().unwrap();
        assert_eq!(read.xattrs[&b"security.capability".to_vec()], value);
    }

    #[test]
    fn whiteouts_are_empty_files_with_a_prefix() {
        let bytes = headers(&entry("usr/bin/sh", Kind::Whiteout));
        let mut archive = ::tar::Archive::new(bytes.as_slice());
        let read = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(read.path().unwrap(), PathBuf::from("usr/bin/.wh.sh"));
        assert_eq!((read.header().entry_type(), read.size()), (::tar::EntryType::Regular, 0));
    }
}
