//! Layer tars: ustar headers (POSIX `pax`, ustar Interchange Format), with pax records for what does not fit.
//!
//! The bytes depend on the entries and contents alone: no user names, no device numbers, pax headers with a
//! fixed name and sorted records (reference: image-spec `layer.md`, reproducible-builds.org "Archives").

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};

use super::delta::{Entry, Kind};

const BLOCK: usize = 512;

/// Writes `entries` and the end of the archive to `out`; contents of files are read below `root`.
pub fn write(root: &Path, entries: &[Entry], out: &mut impl Write) -> Result<()> {
    for entry in entries {
        write_entry(root, entry, out).with_context(|| format!("packing /{}", entry.path.display()))?;
    }
    out.write_all(&[0; 2 * BLOCK]).context("ending the layer's tar")
}

fn write_entry(root: &Path, entry: &Entry, out: &mut impl Write) -> Result<()> {
    let mut header = Header::default();
    header.text(NAME, "path", name_in_tar(entry));
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
    header.write(out)?;
    match entry.kind {
        Kind::File { size } => copy_content(&root.join(&entry.path), size, out),
        _ => Ok(()),
    }
}

fn name_in_tar(entry: &Entry) -> Vec<u8> {
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

fn copy_content(path: &Path, size: u64, out: &mut impl Write) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let copied = io::copy(&mut (&mut file).take(size), out)?;
    ensure!(
        copied == size && file.read(&mut [0])? == 0,
        "it changed while it was being packed: expected {size} bytes"
    );
    pad(size, out)
}

fn pad(size: u64, out: &mut impl Write) -> Result<()> {
    let over = (size % BLOCK as u64) as usize;
    if over > 0 {
        out.write_all(&[0; BLOCK][over..])?;
    }
    Ok(())
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

    fn write(mut self, out: &mut impl Write) -> Result<()> {
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
            out.write_all(&extended.ustar)?;
            out.write_all(&records)?;
            pad(records.len() as u64, out)?;
        }
        self.seal()?;
        Ok(out.write_all(&self.ustar)?)
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
