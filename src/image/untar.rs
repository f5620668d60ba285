//! Reads other people's layer tars: ustar, pax and GNU long names.
//!
//! Pax values are bytes of a stated length: a file capability may well contain a line feed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use anyhow::{Context, Result, bail, ensure};

const BLOCK: u64 = 512;
/// Most bytes of a member's pax records or GNU long name; the kernel takes 64 KiB of xattrs and 4 KiB of path.
const MAX_HEADERS: u64 = 1 << 20;

/// A member's header; its content is read with [`Reader::content`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Type flag, `0` for regular files.
    pub kind: u8,
    /// Name as written.
    pub path: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// UTC seconds; fractions are dropped.
    pub mtime: i64,
    /// Size of the content in bytes.
    pub size: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A tar being read.
pub struct Reader<R> {
    inner: R,
    /// Unread bytes of the current member, with padding.
    rest: u64,
    /// Unread bytes of its content.
    content: u64,
    /// Records of global pax headers.
    global: Pax,
}

type Pax = BTreeMap<Vec<u8>, Vec<u8>>;

impl Member {
    /// Whether it is a regular file, under any of the flags that say so.
    pub fn is_file(&self) -> bool {
        matches!(self.kind, b'0' | 0 | b'7')
    }

    /// Whether it is another name of a file of the archive.
    pub fn is_hard_link(&self) -> bool {
        self.kind == b'1'
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == b'5'
    }
}

/// A layer's tar out of its blob: gzip, zstd or neither, as its first bytes say.
pub fn decompress(blob: File) -> io::Result<impl Read> {
    let mut blob = BufReader::with_capacity(64 << 10, blob);
    let magic = blob.fill_buf()?;
    let tar: Box<dyn Read> = if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(blob))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::Decoder::with_buffer(blob)?)
    } else {
        Box::new(blob)
    };
    Ok(tar)
}

impl<R: Read> Reader<R> {
    /// Reads from `inner`; buffer it.
    pub fn new(inner: R) -> Self {
        Self { inner, rest: 0, content: 0, global: Pax::new() }
    }

    /// The next member that is a file of any type; none at the end.
    pub fn next_member(&mut self) -> Result<Option<Member>> {
        let mut pax = self.global.clone();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            match header[156] {
                b'x' => pax.extend(records(&self.small_content()?)?),
                b'g' => {
                    let global = records(&self.small_content()?)?;
                    self.global.extend(global.clone());
                    pax.extend(global);
                }
                b'L' => drop(pax.insert(b"path".into(), until_nul(&self.small_content()?).into())),
                b'K' => drop(pax.insert(b"linkpath".into(), until_nul(&self.small_content()?).into())),
                _ => return self.member(&header, pax).map(Some),
            }
        }
    }

    /// The content of the current member.
    pub fn content(&mut self) -> impl Read {
        Content(self)
    }

    /// The next header block, its checksum verified; none at the end of the archive.
    fn header(&mut self) -> Result<Option<[u8; 512]>> {
        let skipped = io::copy(&mut (&mut self.inner).take(self.rest), &mut io::sink())?;
        // umoci 0.4 leaves out what ends an archive, the padding of the last file included
        ensure!(skipped >= self.content, "the tar ends within a file");
        (self.rest, self.content) = (0, 0);
        let mut header = [0; 512];
        let mut have = 0;
        while have < header.len() {
            match self.inner.read(&mut header[have..])? {
                0 if have == 0 => return Ok(None),
                0 => bail!("the tar ends within a header"),
                n => have += n,
            }
        }
        if header == [0; 512] {
            return Ok(None);
        }
        let sum: u64 = header.iter().map(|&b| u64::from(b)).sum();
        let own: u64 = header[148..156].iter().map(|&b| u64::from(b)).sum();
        let found = number(&header[148..156])?;
        ensure!(
            found == i64::try_from(sum - own + 8 * u64::from(b' '))?,
            "the checksum of a tar header is wrong: this is no tar, or damaged"
        );
        self.begin(number(&header[124..136])?)?;
        Ok(Some(header))
    }

    fn begin(&mut self, size: i64) -> Result<()> {
        self.content = u64::try_from(size).context("a file of the tar has a negative size")?;
        self.rest = self.content.checked_next_multiple_of(BLOCK).context("a file of the tar is too large")?;
        Ok(())
    }

    fn small_content(&mut self) -> Result<Vec<u8>> {
        ensure!(self.content <= MAX_HEADERS, "a header of the tar is {} bytes long", self.content);
        let mut bytes = Vec::new();
        self.content().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn member(&mut self, header: &[u8; 512], mut pax: Pax) -> Result<Member> {
        let mut take = |key: &str| pax.remove(key.as_bytes());
        let path = take("path").unwrap_or_else(|| ustar_path(header));
        let context = || format!("reading the header of {}", path.escape_ascii());
        let link = take("linkpath").unwrap_or_else(|| until_nul(&header[157..257]).into());
        let mut field = |key: &str, range: std::ops::Range<usize>| -> Result<i64> {
            take(key).map_or_else(|| number(&header[range]), |text| decimal(&text)).with_context(context)
        };
        let size = field("size", 124..136)?;
        let uid = field("uid", 108..116)?;
        let gid = field("gid", 116..124)?;
        let mtime = field("mtime", 136..148)?;
        let (major, minor) = match header[156] {
            b'3' | b'4' => (field("SCHILY.devmajor", 329..337)?, field("SCHILY.devminor", 337..345)?),
            _ => (0, 0),
        };
        // links of some writers state the size of their target, but have no content
        let kind = header[156];
        self.begin(if matches!(kind, b'1' | b'2' | b'5') { 0 } else { size })?;
        let xattrs = pax
            .into_iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value)))
            .collect();
        Ok(Member {
            kind,
            link,
            mode: u32::try_from(number(&header[100..108])? & 0o7777)?,
            uid: u32::try_from(uid).with_context(context)?,
            gid: u32::try_from(gid).with_context(context)?,
            mtime,
            size: self.content,
            device: (
                u32::try_from(major).with_context(context)?,
                u32::try_from(minor).with_context(context)?,
            ),
            xattrs,
            path,
        })
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Passes over the content of the current member, of which nothing was read yet; tells where it begins.
    pub fn pass(&mut self) -> Result<u64> {
        let at = self.inner.stream_position()?;
        self.inner
            .seek(SeekFrom::Start(at.checked_add(self.rest).context("a file of the tar is too large")?))?;
        (self.rest, self.content) = (0, 0);
        Ok(at)
    }
}

struct Content<'a, R>(&'a mut Reader<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.0.content).unwrap_or(usize::MAX));
        let n = self.0.inner.read(&mut buffer[..want])?;
        if n == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.content -= n as u64;
        self.0.rest -= n as u64;
        Ok(n)
    }
}

/// Name and, in ustar and pax headers, the prefix before it.
fn ustar_path(header: &[u8; 512]) -> Vec<u8> {
    let name = until_nul(&header[..100]);
    match until_nul(&header[345..500]) {
        prefix if header[257..263] == *b"ustar\0" && !prefix.is_empty() => [prefix, b"/", name].concat(),
        _ => name.into(),
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

/// A numeric field: octal digits between blanks, or GNU's base 256, marked by the highest bit.
fn number(field: &[u8]) -> Result<i64> {
    if field[0] & 0x80 != 0 {
        // two's complement after the mark: bit 0x40 is the sign
        let first = i128::from((field[0] << 1) as i8 >> 1);
        let value = field[1..].iter().fold(first, |value, &b| (value << 8) | i128::from(b));
        return i64::try_from(value).context("a number in a tar header is too large");
    }
    let digits = until_nul(field).trim_ascii();
    let text = str::from_utf8(digits).unwrap_or("?");
    if text.is_empty() {
        return Ok(0);
    }
    i64::from_str_radix(text, 8)
        .with_context(|| format!("`{}` in a tar header is no number", field.escape_ascii()))
}

/// A decimal pax value; what follows a point is dropped.
fn decimal(text: &[u8]) -> Result<i64> {
    let whole = text.split(|&b| b == b'.').next().unwrap_or_default();
    let parsed = str::from_utf8(whole).ok().and_then(|t| t.parse().ok());
    parsed.with_context(|| format!("`{}` in a pax header is no number", text.escape_ascii()))
}

/// Pax records, `LENGTH KEY=VALUE\n` each.
fn records(mut bytes: &[u8]) -> Result<Pax> {
    let mut pax = Pax::new();
    while !bytes.is_empty() {
        let (record, rest) = split_record(bytes).context("a pax header is malformed")?;
        let equals = record.iter().position(|&b| b == b'=').context("a pax record has no `=`")?;
        pax.insert(record[..equals].into(), record[equals + 1..].into());
        bytes = rest;
    }
    Ok(pax)
}

/// `KEY=VALUE` of the first record, and the records after it.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|&b| b == b' ')?;
    let length: usize = str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    Some((record.get(blank + 1..)?.strip_suffix(b"\n")?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tar of one entry as the tar crate writes it: GNU extensions where ours has pax.
    fn gnu(path: &str, content: &[u8], set: impl Fn(&mut ::tar::Header)) -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        let mut header = ::tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        set(&mut header);
        builder.append_data(&mut header, path, content).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn gnu_long_names_and_base_256_are_read() {
        let path = "x/".repeat(100) + "name";
        let tar = gnu(&path, b"content", |h| h.set_uid(5_000_000));
        let mut reader = Reader::new(tar.as_slice());
        let member = reader.next_member().unwrap().unwrap();
        assert_eq!(member.path, path.as_bytes());
        assert_eq!((member.uid, member.mode, member.size), (5_000_000, 0o640, 7));
        let mut content = String::new();
        reader.content().read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        assert_eq!(reader.next_member().unwrap(), None);
    }

    #[test]
    fn content_left_unread_is_skipped() {
        let mut tar = gnu("a", &[1; 700], |_| ());
        tar.truncate(512 + 1024);
        tar.extend(gnu("b", b"", |_| ()));
        let mut reader = Reader::new(tar.as_slice());
        assert_eq!(reader.next_member().unwrap().unwrap().path, b"a");
        assert_eq!(reader.next_member().unwrap().unwrap().path, b"b");
    }

    #[test]
    fn damage_is_an_error() {
        let whole = gnu("a", &[1; 700], |_| ());
        let read_all = |bytes: &[u8]| -> Result<()> {
            let mut reader = Reader::new(bytes);
            while reader.next_member()?.is_some() {
                io::copy(&mut reader.content(), &mut io::sink())?;
            }
            Ok(())
        };
        read_all(&whole).unwrap();
        read_all(&whole[..512 + 700]).unwrap(); // without padding and end, as umoci 0.4 has it
        for length in [1, 511, 513, 512 + 699] {
            read_all(&whole[..length]).unwrap_err();
        }
        let mut flipped = whole.clone();
        flipped[0] ^= 1;
        assert!(read_all(&flipped).unwrap_err().to_string().contains("checksum"));
        for bad in
            [&b"5 a=b\n"[..], b"99 a=b\n", b"x a=b\n", b"5 ab\n\n", b"0 ", b"18446744073709551615 a=b\n"]
        {
            assert!(records(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000755\0").unwrap(), 0o755);
        assert_eq!(number(b"   755 \0").unwrap(), 0o755);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe").unwrap(), -2);
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\0\x01\0").unwrap(), 256);
        assert!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
        assert!(number(b"0009\0").is_err());
        assert_eq!(decimal(b"1738540800.123").unwrap(), 1_738_540_800);
        assert!(decimal(b"").is_err());
    }
}
