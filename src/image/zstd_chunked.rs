//! zstd:chunked: zstd blobs of which a client that knows the form fetches only the files it has not.
//!
//! ```text
//! frame of headers, frame of a file, frame of headers, frame of a file, ..., frame of the archive's end
//! skippable frame: the table of contents, JSON in zstd, with the place of every file's frame
//! skippable frame: tar-split, JSON lines in zstd: the tar without the contents of its files
//! skippable frame: where these two are
//! ```
//!
//! For everybody else it is a zstd blob: frames are read one after the other, and skippable ones skipped (RFC 8878,
//! 3.1.2). Clients trust the table by its digest, which annotations of the layer tell (containers/storage:
//! `pkg/chunked/internal/minimal/compression.go`; tar-split: `tar/asm/disassemble.go`).

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine};
use crc::{CRC_64_GO_ISO, Crc};
use jiff::Timestamp;
use serde::Serialize;
use zstd::stream::raw::{Encoder, InBuffer, Operation, OutBuffer};

use super::delta::{Entry, Kind};
use super::tar::{self, Contents};
use crate::digest::{Digest, Hasher};

const CHECKSUM: &str = "io.github.containers.zstd-chunked.manifest-checksum";
const POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
const TAR_SPLIT: &str = "io.github.containers.zstd-chunked.tarsplit-position";

/// The first of the magic numbers of skippable frames.
const SKIPPABLE: u32 = 0x184d_2a50;
/// Magic number and length.
const SKIPPABLE_HEADER: u64 = 8;
/// The table's form: that of CRFS.
const TYPE: u64 = 1;
/// The last bytes of every blob.
const MAGIC: &[u8] = b"GNUlInUx";

static CRC64: Crc<u64> = Crc::<u64>::new(&CRC_64_GO_ISO);

/// A blob that is written.
pub struct Written<W> {
    /// Where to.
    pub out: W,
    /// Digest of the tar.
    pub diff_id: Digest,
    /// What the layer's descriptor has to tell.
    pub annotations: HashMap<String, String>,
}

/// Writes the tar of `entries` to `out`, compressed at `level`; its files have these `contents`.
pub fn write<W: Write>(contents: &dyn Contents, entries: &[Entry], out: W, level: i32) -> Result<Written<W>> {
    let mut tar = Hasher::new(Frames::new(out, level)?);
    let mut split = Split::default();
    let mut table = Table { version: 1, entries: Vec::new(), tar_split: String::new() };
    for entry in entries {
        let place = file(contents, entry, &mut tar, &mut split);
        let place = place.with_context(|| format!("packing /{}", entry.path.display()))?;
        table.entries.push(Row::new(entry, place)?);
    }
    split.pending.extend(tar::END);
    tar.write_all(&tar::END).context("ending the layer's tar")?;
    let (mut frames, diff_id, _) = tar.finish();
    frames.end()?;
    let split = split.finish()?;
    let packed = zstd::bulk::compress(&split, level)?;
    table.tar_split = Digest::of(&packed).to_string();
    let table = serde_json::to_vec(&table)?;
    let (out, annotations) = close(frames, &table, &zstd::bulk::compress(&table, level)?, &split, &packed)?;
    Ok(Written { out, diff_id, annotations })
}

/// Where the content of a file is in the blob.
struct Place {
    start: u64,
    end: u64,
    sha256: Digest,
}

/// Writes an entry; a file that is not empty into a frame of its own.
fn file<W: Write>(
    contents: &dyn Contents,
    entry: &Entry,
    tar: &mut Hasher<Frames<W>>,
    split: &mut Split,
) -> Result<Option<Place>> {
    let header = tar::header(entry)?;
    tar.write_all(&header)?;
    split.pending.extend(header);
    let size = match entry.kind {
        Kind::File { size } if size > 0 => size,
        _ => {
            split.file(&tar::name(entry), 0, None)?;
            return Ok(None);
        }
    };
    let start = tar.inner_mut().end()?;
    let mut content = Hasher::new(Summed { out: &mut *tar, sum: CRC64.digest() });
    tar::copy_content(contents.open(entry)?, size, &mut content)?;
    let (summed, sha256, _) = content.finish();
    let sum = summed.sum.finalize();
    split.file(&tar::name(entry), size, Some(sum))?;
    let end = tar.inner_mut().end()?;
    let padding = tar::padding(size);
    tar.write_all(padding)?;
    split.pending.extend(padding);
    Ok(Some(Place { start, end, sha256 }))
}

/// Writes the skippable frames; gives the annotations that lead to them.
fn close<W: Write>(
    mut frames: Frames<W>,
    table: &[u8],
    packed_table: &[u8],
    split: &[u8],
    packed_split: &[u8],
) -> Result<(W, HashMap<String, String>)> {
    let at = frames.position + SKIPPABLE_HEADER;
    frames.skippable(packed_table)?;
    let split_at = frames.position + SKIPPABLE_HEADER;
    frames.skippable(packed_split)?;
    let lengths = [packed_table, table, packed_split, split].map(|bytes| bytes.len() as u64);
    let [packed_length, length, packed_split_length, split_length] = lengths;
    let numbers = [at, packed_length, length, TYPE, split_at, packed_split_length, split_length];
    let footer: Vec<u8> =
        numbers.into_iter().flat_map(u64::to_le_bytes).chain(MAGIC.iter().copied()).collect();
    frames.skippable(&footer)?;
    let annotations = [
        (CHECKSUM, Digest::of(packed_table).to_string()),
        (POSITION, format!("{at}:{packed_length}:{length}:{TYPE}")),
        (TAR_SPLIT, format!("{split_at}:{packed_split_length}:{split_length}")),
    ];
    Ok((frames.out, annotations.map(|(key, value)| (key.to_owned(), value)).into()))
}

/// Zstd frames, one after the other.
struct Frames<W> {
    out: W,
    /// Of what was written, in bytes.
    position: u64,
    encoder: Encoder<'static>,
    buffer: Vec<u8>,
    /// Whether a frame is begun.
    open: bool,
}

impl<W: Write> Frames<W> {
    fn new(out: W, level: i32) -> io::Result<Self> {
        let buffer = vec![0; zstd::zstd_safe::CCtx::out_size()];
        Ok(Self { out, position: 0, encoder: Encoder::new(level)?, buffer, open: false })
    }

    /// Ends the frame, if there is one; gives the position after it.
    fn end(&mut self) -> io::Result<u64> {
        while self.open {
            let mut out = OutBuffer::around(self.buffer.as_mut_slice());
            self.open = self.encoder.finish(&mut out, true)? > 0;
            let written = out.pos();
            self.put(written)?;
            if !self.open {
                self.encoder.reinit()?;
            }
        }
        Ok(self.position)
    }

    fn skippable(&mut self, bytes: &[u8]) -> Result<()> {
        let length = u32::try_from(bytes.len()).context("its table of contents is larger than 4 GiB")?;
        for part in [&SKIPPABLE.to_le_bytes(), &length.to_le_bytes(), bytes] {
            self.out.write_all(part)?;
        }
        self.position += SKIPPABLE_HEADER + u64::from(length);
        Ok(())
    }

    fn put(&mut self, length: usize) -> io::Result<()> {
        self.out.write_all(&self.buffer[..length])?;
        self.position += length as u64;
        Ok(())
    }
}

impl<W: Write> Write for Frames<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open = true;
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            let mut out = OutBuffer::around(self.buffer.as_mut_slice());
            self.encoder.run(&mut input, &mut out)?;
            let written = out.pos();
            self.put(written)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Sums up what goes through.
struct Summed<W> {
    out: W,
    sum: crc::Digest<'static, u64>,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The lines of tar-split: bytes of the tar, and between them the files.
#[derive(Default)]
struct Split {
    lines: Vec<u8>,
    count: u64,
    /// Bytes that are no line yet.
    pending: Vec<u8>,
}

/// A line (tar-split: `tar/storage/entry.go`).
#[derive(Default, Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_raw: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// In base64: the bytes, or the sum of a file.
    payload: Option<String>,
    position: u64,
}

impl Split {
    fn file(&mut self, name: &[u8], size: u64, sum: Option<u64>) -> Result<()> {
        self.bytes()?;
        let text = str::from_utf8(name).ok();
        self.line(Line {
            kind: 1,
            name: text,
            name_raw: text.is_none().then(|| BASE64_STANDARD.encode(name)),
            size: Some(size).filter(|size| *size > 0),
            payload: sum.map(|sum| BASE64_STANDARD.encode(sum.to_be_bytes())),
            ..Line::default()
        })
    }

    fn bytes(&mut self) -> Result<()> {
        let payload = Some(BASE64_STANDARD.encode(std::mem::take(&mut self.pending)));
        self.line(Line { kind: 2, payload, ..Line::default() })
    }

    fn line(&mut self, line: Line<'_>) -> Result<()> {
        serde_json::to_writer(&mut self.lines, &Line { position: self.count, ..line })?;
        self.lines.push(b'\n');
        self.count += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.bytes()?;
        Ok(self.lines)
    }
}

/// The table of contents.
#[derive(Serialize)]
struct Table {
    version: u32,
    entries: Vec<Row>,
    #[serde(rename = "tarSplitDigest")]
    tar_split: String,
}

/// An entry of the table (containers/storage: `FileMetadata`).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_name: Option<String>,
    mode: u32,
    size: u64,
    uid: u32,
    gid: u32,
    modtime: Timestamp,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_offset: Option<u64>,
}

impl Row {
    fn new(entry: &Entry, place: Option<Place>) -> Result<Self> {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec());
            text.context("a name that is not UTF-8 has no place in zstd:chunked: use zstd or gzip")
        };
        let (kind, target) = match &entry.kind {
            Kind::File { .. } | Kind::Whiteout => ("reg", None),
            Kind::HardLink { to } => ("hardlink", Some(to.as_os_str())),
            Kind::Symlink { target } => ("symlink", Some(target.as_os_str())),
            Kind::Directory => ("dir", None),
        };
        // as in the tar, other names of a file carry no attributes of their own
        let xattrs = entry.xattrs.iter().filter(|_| kind != "hardlink");
        let xattrs =
            xattrs.map(|(name, value)| Ok((text(name.as_encoded_bytes())?, BASE64_STANDARD.encode(value))));
        Ok(Self {
            kind,
            name: text(&tar::name(entry))?,
            link_name: target.map(|target| text(target.as_encoded_bytes())).transpose()?,
            mode: entry.mode,
            size: match entry.kind {
                Kind::File { size } => size,
                _ => 0,
            },
            uid: entry.uid,
            gid: entry.gid,
            modtime: Timestamp::from_second(entry.mtime)?,
            xattrs: xattrs.collect::<Result<_>>()?,
            digest: place.as_ref().map(|place| place.sha256.to_string()),
            offset: place.as_ref().map(|place| place.start),
            end_offset: place.as_ref().map(|place| place.end),
        })
    }
}
