//! rpm's own database format, NDB, which SUSE uses: `Packages.db`.
//!
//! ```text
//! RpmP version generation pages next 0 0 0    header, two slots long
//! Slot number block blocks                    a package's number and place; block 0: unused
//! ...                                         as many slots as fill the pages
//! BlbS number generation length               a blob begins
//! length bytes, zeros up to the tail          the header of a package
//! adler32 length BlbE                         and ends, with its last block
//! ```
//!
//! All integers are 32 bits, little-endian; blocks are 16 bytes, pages 4096 (rpm: `lib/backend/ndb/rpmpkg.c`).
//! The checksum is not looked at, as librpm does not when it reads.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::reader::Bytes;

/// The first bytes of the file.
pub const MAGIC: &[u8] = b"RpmP";

const PAGE: u64 = 4096;
const BLOCK: u64 = 16;
const SLOT: usize = 16;
const HEADER: usize = 2 * SLOT;
const BLOB_HEAD: u64 = 16;
const BLOB_TAIL: u64 = 12;

/// Where a package's blob is, in blocks.
pub struct Place {
    start: u32,
    blocks: u32,
}

/// The places of all packages, by their numbers. They do not overlap, so that a small file can't unfold into
/// much.
pub fn places(file: &Bytes) -> Result<BTreeMap<u32, Place>> {
    let header = file.read(0, HEADER as u64)?;
    let [version, pages] = [4, 12].map(|at| le32(&header, at));
    ensure!(version == 0, "its version is {version}, expected 0");
    let (mut places, mut used) = (BTreeMap::new(), 0);
    for page in 0..u64::from(pages) {
        let slots = file.read(page * PAGE, PAGE)?;
        let header_slots = if page == 0 { HEADER / SLOT } else { 0 };
        for slot in slots.chunks_exact(SLOT).skip(header_slots) {
            ensure!(slot.starts_with(b"Slot"), "a slot of page {page} does not begin as one");
            let [number, start, blocks] = [4, 8, 12].map(|at| le32(slot, at));
            if start == 0 {
                continue;
            }
            used += u64::from(blocks) * BLOCK;
            ensure!(used <= file.size, "its blobs overlap");
            let doubled = places.insert(number, Place { start, blocks });
            ensure!(doubled.is_none(), "package {number} is in it twice");
        }
    }
    Ok(places)
}

/// The header blob of package `number`.
pub fn blob(file: &Bytes, number: u32, place: &Place) -> Result<Vec<u8>> {
    let size = u64::from(place.blocks) * BLOCK;
    let mut blob = file.read(u64::from(place.start) * BLOCK, size)?;
    ensure!(size > BLOB_HEAD + BLOB_TAIL, "its blob has {} blocks", place.blocks);
    let tail = &blob[blob.len() - BLOB_TAIL as usize..];
    ensure!(
        blob.starts_with(b"BlbS") && tail.ends_with(b"BlbE") && le32(&blob, 4) == number,
        "block {} does not hold the blob of package {number}",
        place.start
    );
    let length = le32(&blob, 12);
    let expected = (BLOB_HEAD + u64::from(length) + BLOB_TAIL).next_multiple_of(BLOCK);
    ensure!(
        le32(tail, 4) == length && expected == size,
        "its blob of {length} bytes does not fill {} blocks",
        place.blocks
    );
    blob.truncate(BLOB_HEAD as usize + usize::try_from(length).context("sizing its blob")?);
    Ok(blob.split_off(BLOB_HEAD as usize))
}

/// A little-endian integer. The caller has checked that there are four bytes.
fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
