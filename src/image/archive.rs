//! Archives of OCI layouts: tars, of which it is remembered where blobs are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use oci_spec::image::{Descriptor, ImageIndex};

use super::document::MAX_DOCUMENT;
use super::oci::digest_of;
use super::untar::Reader;

const INDEX: &str = "index.json";
const BLOBS: &str = "blobs/sha256/";

/// An open archive.
pub struct Archive {
    path: PathBuf,
    file: File,
    /// Where the index and the blobs begin, and their sizes.
    members: BTreeMap<String, (u64, u64)>,
}

impl Archive {
    /// Opens the archive at `path`, and reads the headers of its members.
    pub fn open(path: &Path) -> Result<Self> {
        let context = || format!("reading {}", path.display());
        let file = File::open(path).with_context(context)?;
        let members = members(&file).with_context(context)?;
        Ok(Self { path: path.to_owned(), file, members })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its index lists.
    pub fn entries(&self) -> Result<Vec<Descriptor>> {
        let mut index = Vec::new();
        self.copy(INDEX, MAX_DOCUMENT, &mut index)?;
        let index: ImageIndex = serde_json::from_slice(&index)
            .with_context(|| format!("reading the {INDEX} of {}", self.path.display()))?;
        Ok(index.manifests().clone())
    }

    /// Copies a blob, no more than its size; the digest is not checked.
    pub fn blob(&self, blob: &Descriptor, to: &mut impl Write) -> Result<()> {
        self.copy(&format!("{BLOBS}{}", digest_of(blob)?.hex()), blob.size(), to)
    }

    fn copy(&self, name: &str, limit: u64, to: &mut impl Write) -> Result<()> {
        let context = || format!("reading {}", self.path.display());
        let there = self.members.get(name);
        let (at, size) = *there
            .with_context(|| format!("it has no {name}, which archives of OCI layouts have"))
            .with_context(context)?;
        let mut content = Content { file: &self.file, at, left: size.min(limit) };
        io::copy(&mut content, to).map(drop).with_context(context)
    }
}

/// Index and blobs among the members of a tar; of several of a name the first.
fn members(file: &File) -> Result<BTreeMap<String, (u64, u64)>> {
    let length = file.metadata()?.len();
    let (mut tar, mut members) = (Reader::new(file), BTreeMap::new());
    while let Some(member) = tar.next_member()? {
        let at = tar.pass()?;
        ensure!(at.checked_add(member.size).is_some_and(|end| end <= length), "the tar ends within a file");
        let name = member.path.strip_prefix(b"./").unwrap_or(&member.path);
        let Ok(name) = str::from_utf8(name) else { continue };
        if member.is_file() && (name == INDEX || name.starts_with(BLOBS)) {
            members.entry(name.to_owned()).or_insert((at, member.size));
        }
    }
    Ok(members)
}

/// A part of a file, read whatever others do with it.
struct Content<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..want], self.at)?;
        (self.at, self.left) = (self.at + n as u64, self.left - n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::image::oci::descriptor;

    /// A tar of files, by the tar crate.
    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = ::tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, *content).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn open(bytes: &[u8]) -> Result<Archive> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, bytes).unwrap();
        Archive::open(file.path())
    }

    #[test]
    fn blobs_are_found_and_no_more_is_read_than_their_size() {
        let long = vec![b'x'; 3000];
        let name = format!("blobs/sha256/{}", Digest::of(&long).hex());
        let of = |size| descriptor("application/octet-stream".into(), size, &Digest::of(&long));
        let bytes = tar(&[("index.json", b"{}"), ("other", b"?"), (&name, &long), (&name, b"again")]);
        let archive = open(&bytes).unwrap();
        for (size, expected) in [(3000, 3000), (10, 10), (4000, 3000)] {
            let mut found = Vec::new();
            archive.blob(&of(size), &mut found).unwrap();
            assert_eq!(found, long[..expected]);
        }
        let error = format!("{:#}", archive.entries().unwrap_err());
        assert!(error.contains("index.json"), "{error}");
        let other = descriptor("application/octet-stream".into(), 1, &Digest::of("other"));
        let error = format!("{:#}", archive.blob(&other, &mut Vec::new()).unwrap_err());
        assert!(error.contains("it has no blobs/sha256/"), "{error}");
    }

    #[test]
    fn what_is_cut_off_or_no_tar_is_refused() {
        let bytes = tar(&[("index.json", b"{}"), ("blobs/sha256/00", &[b'x'; 3000])]);
        assert!(open(&bytes).is_ok());
        for (bytes, complaint) in
            [(&bytes[..2000], "ends within a file"), (b"no tar at all", "ends within a header")]
        {
            let error = format!("{:#}", open(bytes).err().unwrap());
            assert!(error.contains(complaint), "{error}");
        }
    }
}
