//! gzip on all processors: one member, whose bytes do not depend on how many there are.
//!
//! What is written is cut into blocks of 256 KiB. Each is compressed by itself with the 32 KiB before it for a
//! dictionary, and ends on a byte (a sync flush), so that blocks in a row are one deflate stream, as pigz(1) makes them.
//! Compared with a stream that is not cut this costs less than a hundredth in size.

use std::io::{self, Write};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use rayon::prelude::*;

const BLOCK: usize = 256 << 10;
/// How far back deflate refers.
const WINDOW: usize = 32 << 10;
/// Blocks that are compressed at a time, and in memory for each writer: layers are packed in parallel, too.
const BLOCKS: usize = 8;

/// What comes before the blocks (RFC 1952): no name, no time, of an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Compresses what is written to it.
pub struct Encoder<W> {
    out: W,
    level: Compression,
    /// The end of what was compressed, and what was not yet.
    buffer: Vec<u8>,
    /// How much of the buffer was compressed.
    done: usize,
    crc: Crc,
}

impl<W: Write> Encoder<W> {
    /// Writes a gzip member to `out`.
    pub fn new(mut out: W, level: u32) -> io::Result<Self> {
        out.write_all(&HEADER)?;
        let buffer = Vec::with_capacity(WINDOW + BLOCKS * BLOCK);
        Ok(Self { out, level: Compression::new(level), buffer, done: 0, crc: Crc::new() })
    }

    /// Ends the member; gives back what it was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.compress(true)?;
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.out)
    }

    /// Compresses the buffer; whoever writes more first has left the last block of all to the end.
    fn compress(&mut self, is_end: bool) -> io::Result<()> {
        let (buffer, end) = (self.buffer.as_slice(), self.buffer.len());
        let mut starts: Vec<usize> = (self.done..end).step_by(BLOCK).collect();
        if starts.is_empty() {
            // a stream of nothing has an end, too
            starts.push(end);
        }
        let compressed = starts.into_par_iter().map(|start| {
            let (window, block) = (&buffer[start.saturating_sub(WINDOW)..start], &buffer[start..]);
            let block = &block[..block.len().min(BLOCK)];
            deflate(window, block, self.level, is_end && start + block.len() == end)
        });
        for (bytes, crc) in compressed.collect::<io::Result<Vec<_>>>()? {
            self.out.write_all(&bytes)?;
            self.crc.combine(&crc);
        }
        self.buffer.drain(..end.saturating_sub(WINDOW));
        self.done = self.buffer.len();
        Ok(())
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCKS * BLOCK - (self.buffer.len() - self.done);
        if room == 0 && !bytes.is_empty() {
            self.compress(false)?;
            return self.write(bytes);
        }
        let taken = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Does nothing: where blocks end is decided by what is written alone.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses a block after `window`, and digests it.
fn deflate(window: &[u8], block: &[u8], level: Compression, is_last: bool) -> io::Result<(Vec<u8>, Crc)> {
    let mut encoder = Compress::new(level, false);
    if !window.is_empty() {
        encoder.set_dictionary(window)?;
    }
    let flush = if is_last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut out = Vec::new();
    loop {
        out.reserve(BLOCK);
        let rest = &block[encoder.total_in() as usize..];
        let status = encoder.compress_vec(rest, &mut out, flush)?;
        let is_done = match is_last {
            true => status == Status::StreamEnd,
            // there is more as long as it fills all that it is given
            false => out.len() < out.capacity(),
        };
        if is_done {
            break;
        }
    }
    let mut crc = Crc::new();
    crc.update(block);
    Ok((out, crc))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::digest::Digest;

    /// Noise that repeats at a distance that windows of blocks have to reach.
    fn bytes(count: usize) -> Vec<u8> {
        let noise = |n: usize| Digest::of((n / 32).to_string()).as_bytes()[n % 32];
        let repeated: Vec<u8> = (0..30_000).map(noise).collect();
        repeated.into_iter().cycle().take(count).collect()
    }

    fn compressed(bytes: &[u8], piece: usize, threads: usize) -> Vec<u8> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut encoder = Encoder::new(Vec::new(), 3).unwrap();
            bytes.chunks(piece).for_each(|piece| encoder.write_all(piece).unwrap());
            encoder.finish().unwrap()
        })
    }

    /// What gzip(1) makes of it, which checks length and CRC.
    fn gunzipped(compressed: &[u8]) -> Vec<u8> {
        let mut gzip = Command::new("gzip");
        let mut gzip = gzip.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = gzip.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(compressed).unwrap());
            let output = gzip.wait_with_output().unwrap();
            assert!(output.status.success());
            output.stdout
        })
    }

    #[test]
    fn gzip_reads_it_and_every_machine_writes_the_same() {
        for count in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 8 * BLOCK, 8 * BLOCK + 1, 17 * BLOCK + WINDOW] {
            let bytes = bytes(count);
            let once = compressed(&bytes, usize::MAX, 1);
            assert!(gunzipped(&once) == bytes, "{count} bytes");
            for (piece, threads) in [(1000, 1), (BLOCK, 2), (BLOCK + 1, 3), (usize::MAX, 9)] {
                assert!(compressed(&bytes, piece, threads) == once, "{count} bytes in pieces of {piece}");
            }
        }
    }

    #[test]
    fn blocks_refer_to_what_is_before_them() {
        let alone = compressed(&bytes(BLOCK), BLOCK, 1).len();
        let both = compressed(&bytes(2 * BLOCK), BLOCK, 1).len();
        // a second block that had to begin anew would take as much as the first
        assert!(both - alone < alone / 4, "{alone}, {both}");
    }
}
