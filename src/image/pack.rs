//! Chunks to blobs: tar, compress, digest, in parallel.
//!
//! A tar is made and compressed only if the layout has no blob of the tar with this identity ([`tar::identity`]), for
//! which only those files are read whose content is not known. Blobs already there stay, even if another version of
//! the compressor would make other bytes, so images that contain the same files keep sharing blobs.
//!
//! A gzip blob is one member, because importers stop at the end of the first.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::panic::resume_unwind;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use anyhow::{Context, Result};
use oci_spec::image::{Descriptor, MediaType};
use rayon::prelude::*;
use serde::Serialize;

use super::chunk::Chunk;
use super::oci::{Layout, Packed, descriptor};
use super::tar::{self, Contents};
use super::{gzip, zstd_chunked};
use crate::digest::{Digest, Hasher};
use crate::progress::{Progress, Unit};
use crate::store;

/// How blobs are compressed, at one fixed level each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Compression {
    /// Read by everything.
    #[default]
    #[serde(rename = "gzip")]
    Gzip,
    /// Smaller and faster; cannot be converted to Docker's image format.
    #[serde(rename = "zstd")]
    Zstd,
    /// Zstd of which clients can fetch the files that they have not.
    #[serde(rename = "zstd:chunked")]
    ZstdChunked,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::ZstdChunked => "zstd-chunked",
        }
    }

    fn media_type(self) -> MediaType {
        match self {
            Compression::Gzip => MediaType::ImageLayerGzip,
            Compression::Zstd | Compression::ZstdChunked => MediaType::ImageLayerZstd,
        }
    }
}

/// CPU time and size of a stretch of a bootc tree, by level, beside those of level 3: 1 takes 0.5 of the time
/// (1.24 of the size), 2 0.9 (1.04), 4 1.2 (0.99), 6 1.7 (0.97).
const GZIP_LEVEL: u32 = 3;
/// 2.0 GB of packages in 75 chunks on two cores: level 3 takes 7 s (643 MB), 6 13 s (599 MB).
const ZSTD_LEVEL: i32 = 3;

/// A chunk in a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The chunk's name.
    pub name: String,
    /// Its source packages.
    pub sources: Vec<String>,
    /// The blob.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
}

/// Brings the chunks, whose files have these `contents`, into `layout`; layers are in the order of the chunks.
#[tracing::instrument(level = "info", skip_all)]
pub fn pack(
    layout: &Layout,
    contents: &dyn Contents,
    chunks: &[Chunk],
    compression: Compression,
    progress: &dyn Progress,
) -> Result<Vec<Layer>> {
    progress.start("packing layers", chunks.iter().map(Chunk::size).sum(), Unit::Bytes);
    let mut largest_first: Vec<_> = chunks.iter().enumerate().collect();
    largest_first.sort_by_key(|(_, chunk)| std::cmp::Reverse(chunk.size()));
    // a bridge hands out chunks one by one in this order; a parallel slice would give one thread the large half
    let mut layers = largest_first
        .into_iter()
        .par_bridge()
        .map(|(position, chunk)| {
            let layer = pack_chunk(layout, contents, chunk, compression)
                .with_context(|| format!("packing the chunk {}", chunk.name))?;
            progress.advance(chunk.size());
            Ok((position, layer))
        })
        .collect::<Result<Vec<_>>>()?;
    layers.sort_by_key(|(position, _)| *position);
    progress.finish(&format!("{} layers packed", layers.len()));
    Ok(layers.into_iter().map(|(_, layer)| layer).collect())
}

fn pack_chunk(
    layout: &Layout,
    contents: &dyn Contents,
    chunk: &Chunk,
    compression: Compression,
) -> Result<Layer> {
    let layer = |Packed { diff_id, blob }, what| {
        tracing::debug!(chunk = chunk.name, %diff_id, size = Descriptor::size(&blob), "{what}");
        Layer { name: chunk.name.clone(), sources: chunk.sources.clone(), descriptor: blob, diff_id }
    };
    let identity = tar::identity(contents, &chunk.entries)?;
    if let Some(known) = layout.packed(&identity, compression.name())? {
        return Ok(layer(known, "packed before"));
    }
    let packed = compress(layout, contents, chunk, compression)?;
    layout.remember(&identity, compression.name(), &packed)?;
    Ok(layer(packed, "packed"))
}

const BUFFER: usize = 64 << 10;

/// Makes the blob of a chunk.
fn compress(
    layout: &Layout,
    contents: &dyn Contents,
    chunk: &Chunk,
    compression: Compression,
) -> Result<Packed> {
    let (file, path) = layout.temp_file()?.into_parts();
    let out = Hasher::new(BufWriter::with_capacity(BUFFER, file));
    let mut annotations = None;
    let (out, diff_id) = match compression {
        Compression::Gzip => {
            let encoder = gzip::Encoder::new(out, GZIP_LEVEL)?;
            let (encoder, diff_id) = write_digested(contents, chunk, encoder)?;
            (encoder.finish()?, diff_id)
        }
        Compression::Zstd => {
            let (encoder, diff_id) = write_digested(contents, chunk, zstd::Encoder::new(out, ZSTD_LEVEL)?)?;
            (encoder.finish()?, diff_id)
        }
        Compression::ZstdChunked => {
            let written = zstd_chunked::write(contents, &chunk.entries, out, ZSTD_LEVEL)?;
            annotations = Some(written.annotations);
            (written.out, written.diff_id)
        }
    };
    let (file, digest, size) = out.finish();
    let file: File = unbuffered(file)?;
    store::persist(tempfile::NamedTempFile::from_parts(file, path), &layout.blob(&digest))?;
    let mut descriptor = descriptor(compression.media_type(), size, &digest);
    descriptor.set_annotations(annotations);
    Ok(Packed { diff_id, blob: descriptor })
}

/// Writes the chunk's tar to `out`; gives that back with the tar's digest. While `out` is busy the next pieces are made.
fn write_digested<W: Write>(contents: &dyn Contents, chunk: &Chunk, mut out: W) -> Result<(W, Digest)> {
    let (sender, pieces) = sync_channel(AHEAD);
    thread::scope(|scope| {
        let making = scope.spawn(move || {
            let mut tar = BufWriter::with_capacity(PIECE, Hasher::new(Pieces(sender)));
            tar::write(contents, &chunk.entries, &mut tar)?;
            let (_, digest, _) = unbuffered(tar)?.finish();
            anyhow::Ok(digest)
        });
        let written = pieces.iter().try_for_each(|piece: Vec<u8>| out.write_all(&piece));
        // so that nobody makes more of a tar that could not be written
        drop(pieces);
        let digest = making.join().unwrap_or_else(|panic| resume_unwind(panic));
        written.context("writing the blob")?;
        Ok((out, digest?))
    })
}

/// How many bytes of a tar are passed on at once, and how many times as much is made before it is asked for.
const PIECE: usize = 256 << 10;
const AHEAD: usize = 8;

/// Passes on what is written, in pieces.
struct Pieces(SyncSender<Vec<u8>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_owned()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Flushes a buffer and takes it off.
fn unbuffered<W: Write>(buffer: BufWriter<W>) -> io::Result<W> {
    buffer.into_inner().map_err(io::IntoInnerError::into_error)
}
