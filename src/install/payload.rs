//! Unpacking a package's payload into a staging directory, where it is verified before anything is installed.
//!
//! The payload is a compressed cpio archive; what a file is comes from the header, the archive only gives the
//! bytes (rpm: `docs/manual/format_payload.md`, `lib/cpio.c`). Each file but directories and ghosts is made
//! as `STAGING/INDEX`, INDEX being its place in the header's file list, complete but for owner and
//! capabilities, so that installing it is one rename:
//!
//! ```text
//! package.rpm ─ sha256 of the payload ─ decompressor ─┬─ cpio ─ digest of the file ─▶ STAGING/INDEX
//!                                  payload kept in the store
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rpm::{FileFlags, IndexTag as Tag};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use sha2::digest::DynDigest;

use super::kept::{Copying, Kept};
use super::{file_type, has};
use crate::digest::Digest;
use crate::package::header::{FileEntry, Header};
use crate::store::Store;

const BUFFER: usize = 128 * 1024;

/// Dictionaries up to 128 MiB, more than any level of xz or zstd uses for packages.
const MAX_WINDOW_LOG: u32 = 27;
const MAX_XZ_MEMORY: u64 = 160 << 20;

/// Unpacks the payload of the package file `rpm` into the empty directory `staging`; true if it was in `store`
/// decompressed, where it is from now on.
///
/// Refuses files that are not in the header, other sizes or digests than the header's, and a payload that
/// does not have the digest the header promises. Memory is bounded by the decompressor's window.
pub fn unpack(
    rpm: &Path,
    header: &Header,
    files: &[FileEntry],
    staging: &Path,
    store: Option<&Store>,
) -> Result<bool> {
    let promised = promised_digest(header)?;
    let kept = match (store, &promised) {
        (Some(store), Some((SHA256, hex))) if !files.is_empty() => {
            Some(Kept::new(store, &Digest::from_hex(hex).context("reading PAYLOADDIGEST")?))
        }
        _ => None,
    };
    if let Some(kept) = &kept
        && unpack_kept(kept, header, files, staging)?
    {
        return Ok(true);
    }

    let mut file = File::open(rpm).context("opening the package")?;
    file.seek(SeekFrom::Start(header.payload_offset())).context("seeking to the payload")?;
    let algorithm = promised.as_ref().map_or(SHA256, |(algorithm, _)| *algorithm);
    let mut compressed =
        Digesting { inner: BufReader::with_capacity(BUFFER, file), digest: digest(algorithm)? };
    let copy = kept.as_ref().map(Kept::begin).transpose()?;
    let mut archive = decompress(&mut compressed)?;
    if let Some(copy) = &copy {
        archive = Box::new(Copying { archive, copy: copy.as_file() });
    }
    let mut unpacked = Unpacker::new(header, files, staging)?;
    unpacked.run(BufReader::with_capacity(BUFFER, archive)).context("unpacking the payload")?;

    // not decompressed: what follows the archive is only hashed
    io::copy(&mut compressed, &mut io::sink()).context("reading the payload")?;
    if let Some((_, promised)) = promised {
        let found = hex::encode(compressed.digest.finalize());
        ensure!(found == promised, "the payload has digest {found}, its header says {promised}");
    }
    unpacked.finish()?;
    if let (Some(kept), Some(copy)) = (kept, copy) {
        kept.keep(copy)?;
    }
    Ok(false)
}

/// Unpacks an archive that was kept; false if there is none, or not what the header says.
fn unpack_kept(kept: &Kept, header: &Header, files: &[FileEntry], staging: &Path) -> Result<bool> {
    let Some(archive) = kept.open()? else { return Ok(false) };
    let mut unpacked = Unpacker::new(header, files, staging)?;
    let archive = BufReader::with_capacity(BUFFER, archive);
    let Err(error) = unpacked.run(archive).and_then(|()| unpacked.finish()) else { return Ok(true) };
    tracing::warn!(package = %header.nevra(), "the payload kept in the store is damaged: {error:#}");
    std::fs::remove_dir_all(staging)
        .and_then(|()| std::fs::create_dir(staging))
        .context("clearing the staging directory")?;
    Ok(false)
}

/// PAYLOADDIGEST and its algorithm; packages of rpm before 4.14 have none.
fn promised_digest(header: &Header) -> Result<Option<(u32, String)>> {
    let Some(&hex) = header.strings(Tag::RPMTAG_PAYLOADSHA256)?.first() else { return Ok(None) };
    let algorithm = header.u32s(Tag::RPMTAG_PAYLOADSHA256ALGO)?.first().copied().unwrap_or(SHA256);
    Ok(Some((algorithm, str::from_utf8(hex).context("reading PAYLOADDIGEST")?.to_owned())))
}

/// OpenPGP's numbers of hash algorithms (RFC 4880 section 9.4), which FILEDIGESTALGO uses.
const MD5: u32 = 1;
const SHA1: u32 = 2;
const SHA256: u32 = 8;
const SHA384: u32 = 9;
const SHA512: u32 = 10;
const SHA224: u32 = 11;

/// A hash by its OpenPGP number. The MD5 and SHA-1 of old packages find damage; that a package is the one it should
/// be, the lockfile's SHA-256 of all of it says.
pub(crate) fn digest(algorithm: u32) -> Result<Box<dyn DynDigest>> {
    Ok(match algorithm {
        MD5 => Box::new(md5::Md5::default()),
        SHA1 => Box::new(sha1::Sha1::default()),
        SHA224 => Box::new(sha2::Sha224::default()),
        SHA256 => Box::new(sha2::Sha256::default()),
        SHA384 => Box::new(sha2::Sha384::default()),
        SHA512 => Box::new(sha2::Sha512::default()),
        other => bail!("the hash algorithm has number {other}, expected 1, 2 or 8 to 11 (MD5, SHA-1, SHA-2)"),
    })
}

/// The hex digest of all there is to read.
pub(super) fn digest_of(input: impl Read, algorithm: u32) -> Result<String> {
    let mut input = Digesting { inner: input, digest: digest(algorithm)? };
    io::copy(&mut input, &mut io::sink())?;
    Ok(hex::encode(input.digest.finalize()))
}

/// Hashes what is read through it.
struct Digesting<R> {
    inner: R,
    digest: Box<dyn DynDigest>,
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.digest.update(&buffer[..n]);
        Ok(n)
    }
}

/// The decompressor for what the payload really is, whatever PAYLOADCOMPRESSOR says.
fn decompress<'a>(compressed: &'a mut dyn Read) -> Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(BUFFER, compressed);
    let magic = reader.fill_buf().context("reading the payload")?;
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::GzDecoder::new(reader)),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::BzDecoder::new(reader)),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            // of what comes out the digests of the header speak, of each file
            let flags = liblzma::stream::IGNORE_CHECK;
            let stream = liblzma::stream::Stream::new_stream_decoder(MAX_XZ_MEMORY, flags)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(reader, stream))
        }
        [0x5d, 0, 0, ..] => {
            let stream = liblzma::stream::Stream::new_lzma_decoder(MAX_XZ_MEMORY)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(reader, stream))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(reader)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(decoder)
        }
        [b'0', b'7', b'0', b'7', ..] | [] => Box::new(reader),
        _ => bail!("the payload is not compressed by gzip, bzip2, xz, lzma or zstd"),
    })
}

/// What an archive member is called.
enum Member {
    /// cpio newc: a path and the size of the data that follows.
    Named(String, u64),
    /// rpm's stripped cpio: an index into the header's file list, which knows the size.
    Indexed(usize),
}

/// A cpio archive, read front to back.
struct Archive<R> {
    reader: R,
    /// Bytes read, which paddings are counted from.
    offset: u64,
}

impl<R: BufRead> Archive<R> {
    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.reader.read_exact(buffer).context("reading the cpio archive")?;
        self.offset += buffer.len() as u64;
        Ok(())
    }

    /// Headers and data begin at multiples of four.
    fn align(&mut self) -> Result<()> {
        let mut padding = [0; 3];
        let n = (self.offset.wrapping_neg() % 4) as usize;
        self.read_exact(&mut padding[..n])
    }

    fn read_hex(&mut self) -> Result<u32> {
        let mut digits = [0; 8];
        self.read_exact(&mut digits)?;
        let text = str::from_utf8(&digits).ok().filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()));
        let text = text.with_context(|| format!("a cpio header has {digits:?} for a hex number"))?;
        Ok(u32::from_str_radix(text, 16)?)
    }

    /// The next member's header, or none at the end of the archive.
    fn next(&mut self) -> Result<Option<Member>> {
        self.align()?;
        let mut magic = [0; 6];
        self.read_exact(&mut magic)?;
        let member = match &magic {
            b"070701" | b"070702" => self.named()?,
            b"07070X" => match self.read_hex()? {
                u32::MAX => return Ok(None),
                index => Member::Indexed(index as usize),
            },
            other => bail!(
                "a cpio header begins with {:?}, expected 070701 or 07070X",
                other.escape_ascii().to_string()
            ),
        };
        self.align()?;
        Ok(match member {
            Member::Named(name, _) if name == "TRAILER!!!" => None,
            member => Some(member),
        })
    }

    /// Rest of a newc header: 13 numbers, of which only two matter, then the name.
    fn named(&mut self) -> Result<Member> {
        let mut fields = [0; 13];
        for field in &mut fields {
            *field = self.read_hex()?;
        }
        let (size, name_size) = (fields[6], fields[11]);
        ensure!(
            (1..=4096).contains(&name_size),
            "a cpio member's name has {name_size} bytes, expected up to 4096"
        );
        let mut name = vec![0; name_size as usize];
        self.read_exact(&mut name)?;
        ensure!(name.pop() == Some(0), "a cpio member's name does not end with NUL");
        let name = String::from_utf8(name).context("a cpio member's name is not UTF-8")?;
        Ok(Member::Named(name, size.into()))
    }

    /// Gives the next `size` bytes to `sink`, piece by piece.
    fn copy(&mut self, size: u64, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let there = self.reader.fill_buf().context("reading the cpio archive")?;
            ensure!(!there.is_empty(), "reading the cpio archive: it ends within a file");
            let piece = &there[..there.len().min(left.try_into().unwrap_or(usize::MAX))];
            sink(piece)?;
            let taken = piece.len();
            self.reader.consume(taken);
            left -= taken as u64;
        }
        self.offset += size;
        Ok(())
    }
}

/// Makes the files of one package in its staging directory.
struct Unpacker<'a> {
    files: &'a [FileEntry],
    algorithm: u32,
    by_path: HashMap<&'a str, usize>,
    /// Other members of a file's hard link set, itself included; only for sets of two or more.
    links: HashMap<(u32, u32), Vec<usize>>,
    /// Files the archive has shown so far.
    seen: Vec<bool>,
    staging: OwnedFd,
}

impl<'a> Unpacker<'a> {
    fn new(header: &Header, files: &'a [FileEntry], staging: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let staging = fs::open(staging, flags, Mode::empty()).context("opening the staging directory")?;
        let by_path = files.iter().enumerate().map(|(i, f)| (f.path.as_str(), i)).collect();
        let algorithm = header.file_digest_algorithm();
        Ok(Self {
            files,
            algorithm,
            by_path,
            links: link_sets(files),
            seen: vec![false; files.len()],
            staging,
        })
    }

    fn run(&mut self, reader: impl BufRead) -> Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        let mut archive = Archive { reader, offset: 0 };
        while let Some(member) = archive.next()? {
            let (index, size) = self.identify(member)?;
            let file = &self.files[index];
            ensure!(!self.seen[index], "{} is in the archive twice", file.path);
            self.seen[index] = true;
            self.member(&mut archive, index, size).with_context(|| format!("unpacking {}", file.path))?;
        }
        Ok(())
    }

    /// The file a member is, and how many bytes of data follow.
    fn identify(&self, member: Member) -> Result<(usize, u64)> {
        match member {
            Member::Named(name, size) => {
                let path = name.strip_prefix('.').unwrap_or(&name);
                let index = match path.starts_with('/') {
                    true => self.by_path.get(path),
                    false => self.by_path.get(format!("/{path}").as_str()),
                };
                let index =
                    *index.with_context(|| format!("the archive has `{name}`, which the header has not"))?;
                Ok((index, size))
            }
            Member::Indexed(index) => {
                let file = self.files.get(index);
                let file =
                    file.with_context(|| format!("the archive has file {index} of {}", self.files.len()))?;
                let size = match file_type(file.mode) {
                    FileType::Symlink => file.size,
                    FileType::RegularFile if self.set_of(index).last() == Some(&index) => file.size,
                    _ => 0,
                };
                Ok((index, size))
            }
        }
    }

    /// The hard link set a file belongs to, in header order.
    fn set_of(&self, index: usize) -> Vec<usize> {
        let file = &self.files[index];
        self.links
            .get(&(file.device, file.inode))
            .filter(|set| set.contains(&index))
            .cloned()
            .unwrap_or(vec![index])
    }

    fn member<R: BufRead>(&mut self, archive: &mut Archive<R>, index: usize, size: u64) -> Result<()> {
        let file = &self.files[index];
        let kind = file_type(file.mode);
        let has_data = matches!(kind, FileType::RegularFile | FileType::Symlink);
        let set = self.set_of(index);
        // all but one name of a hard link set come without data
        let is_bare_link = kind == FileType::RegularFile && set.len() > 1 && size == 0 && file.size > 0;
        let expected = if has_data && !is_bare_link { file.size } else { 0 };
        ensure!(size == expected, "the archive has {size} bytes, the header says {expected}");
        if kind != FileType::RegularFile || has(file, FileFlags::GHOST) || is_bare_link {
            return archive.copy(size, |_| Ok(()));
        }
        if set.len() > 1 && self.staged(set[0])? {
            // every name of an empty file's set looks like the one with the data
            ensure!(size == 0, "the hard link set has data twice");
            return Ok(());
        }
        self.regular(archive, index)?;
        for &other in set.iter().filter(|&&other| other != index) {
            let (from, to) = (index.to_string(), other.to_string());
            fs::linkat(&self.staging, from, &self.staging, to, AtFlags::empty()).context("linking")?;
        }
        Ok(())
    }

    fn staged(&self, index: usize) -> Result<bool> {
        match fs::statat(&self.staging, index.to_string(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(e) => Err(e).context("looking at the staged file"),
        }
    }

    fn regular<R: BufRead>(&self, archive: &mut Archive<R>, index: usize) -> Result<()> {
        let file = &self.files[index];
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = fs::openat(&self.staging, index.to_string(), flags, Mode::RUSR | Mode::WUSR);
        let mut out = File::from(fd.context("making the staged file")?);
        let mut digest = digest(self.algorithm)?;
        archive.copy(file.size, |piece| {
            digest.update(piece);
            out.write_all(piece).context("writing the staged file")
        })?;
        let found = hex::encode(digest.finalize());
        ensure!(found == file.digest, "its content has digest {found}, the header says {:?}", file.digest);
        fs::fchmod(&out, Mode::from_raw_mode(file.mode & 0o7777)).context("setting its mode")?;
        fs::futimens(&out, &mtime(file)).context("setting its time")
    }

    /// Checks that nothing is missing, and makes what has no data.
    fn finish(&self) -> Result<()> {
        for (index, file) in self.files.iter().enumerate().filter(|(_, f)| !has(f, FileFlags::GHOST)) {
            ensure!(self.seen[index], "{} is in the header, but not in the payload", file.path);
            self.special(index).with_context(|| format!("unpacking {}", file.path))?;
        }
        Ok(())
    }

    fn special(&self, index: usize) -> Result<()> {
        let file = &self.files[index];
        let name = index.to_string();
        match file_type(file.mode) {
            FileType::Directory => return Ok(()),
            FileType::RegularFile => {
                let has_data = self.set_of(index).len() == 1 || self.staged(index)?;
                ensure!(has_data, "no name of its hard link set has the data");
                return Ok(());
            }
            FileType::Symlink => {
                fs::symlinkat(&file.linkto, &self.staging, &name).context("making the symbolic link")?
            }
            kind
            @ (FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice) => {
                let mode = Mode::from_raw_mode(file.mode & 0o7777);
                let device = device_number(file.rdev);
                fs::mknodat(&self.staging, &name, kind, mode, device).context("making the special file")?;
                fs::chmodat(&self.staging, &name, mode, AtFlags::empty()).context("setting its mode")?;
            }
            FileType::Unknown => bail!("mode {:o} is of no known file type", file.mode),
        }
        fs::utimensat(&self.staging, &name, &mtime(file), AtFlags::SYMLINK_NOFOLLOW)
            .context("setting its time")
    }
}

/// Regular files of equal device and inode are names of one file (rpm: `rpmfilesBuildNLink`).
pub(super) fn link_sets(files: &[FileEntry]) -> HashMap<(u32, u32), Vec<usize>> {
    let mut sets: HashMap<_, Vec<usize>> = HashMap::new();
    for (index, file) in files.iter().enumerate() {
        if file_type(file.mode) == FileType::RegularFile && !has(file, FileFlags::GHOST) {
            sets.entry((file.device, file.inode)).or_default().push(index);
        }
    }
    sets.retain(|_, set| set.len() > 1);
    sets
}

/// FILERDEVS are 16 bits: 8 for the major, 8 for the minor number.
fn device_number(rdev: u32) -> fs::Dev {
    fs::makedev((rdev >> 8) & 0xff, rdev & 0xff)
}

/// The times a file gets: the header's, for access too, without a fraction.
pub(super) fn mtime(file: &FileEntry) -> Timestamps {
    let time = Timespec { tv_sec: file.mtime.into(), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::tests::file;

    /// Unpacks a hand-made archive with rpm's stripped headers, which only packages beyond 4 GiB have.
    fn unpack_stripped(files: &[FileEntry], archive: &[u8]) -> Result<tempfile::TempDir> {
        let staging = tempfile::tempdir().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut unpacker = Unpacker {
            files,
            algorithm: SHA256,
            by_path: HashMap::new(),
            links: link_sets(files),
            seen: vec![false; files.len()],
            staging: fs::open(staging.path(), flags, Mode::empty()).unwrap(),
        };
        unpacker.run(archive)?;
        unpacker.finish()?;
        Ok(staging)
    }

    fn stripped_files() -> Vec<FileEntry> {
        let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(b"hello"));
        let hello = |index, path, inode| FileEntry {
            index,
            size: 5,
            digest: digest.clone(),
            inode,
            mtime: 1_600_000_000,
            ..file(path)
        };
        let link =
            FileEntry { index: 2, mode: 0o120777, size: 1, linkto: "a".into(), inode: 9, ..file("/l") };
        vec![hello(0, "/a", 1), hello(1, "/b", 1), link, hello(3, "/c", 2)]
    }

    #[test]
    fn stripped_headers_name_files_by_index() {
        // the link set's data comes with its last name; data is padded to four bytes
        let archive = b"07070X00000003\0\0hello\0\0\0\
            07070X00000000\0\0\
            07070X00000001\0\0hello\0\0\0\
            07070X00000002\0\0a\0\0\0\
            07070Xffffffff";
        let staging = unpack_stripped(&stripped_files(), archive).unwrap();
        for name in ["0", "1", "3"] {
            assert_eq!(std::fs::read(staging.path().join(name)).unwrap(), b"hello");
        }
        assert_eq!(std::fs::read_link(staging.path().join("2")).unwrap(), Path::new("a"));
        use std::os::unix::fs::MetadataExt;
        let stat = staging.path().join("0").metadata().unwrap();
        assert_eq!((stat.nlink(), stat.mtime(), stat.mode()), (2, 1_600_000_000, 0o100644));
    }

    #[test]
    fn broken_archives_are_refused() {
        for (archive, expected) in [
            (&b"07070X00000007\0\0"[..], "file 7 of 4"),
            (b"07070X00000003\0\0hallo\0\0\0", "digest"),
            (b"07070X00000003\0\0hello\0\0\x0007070X00000003\0\0hello\0\0\0", "twice"),
            (b"07070Xffffffff", "not in the payload"),
            (b"07070X+0000001\0\0", "for a hex number"),
            (b"07070X0000", "reading the cpio archive"),
            (b"070707000000", "expected 070701 or 07070X"),
        ] {
            let error = format!("{:#}", unpack_stripped(&stripped_files(), archive).unwrap_err());
            assert!(error.contains(expected), "expected {expected:?} in: {error}");
        }
    }
}
