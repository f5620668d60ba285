//! Berkeley DB's hash files, of rpm before EL9: `Packages`.
//!
//! ```text
//! page 0        12 magic  16 version  20 page size  24 encryption  26 flags  32 last page
//! other pages    8 number  16 next  20 items  22 bytes used, of an overflow page  25 type
//!   hash        26 u16 x items: offsets of key, value, key, value ...; an item ends where the one before begins
//!   overflow    26 bytes of a long item, full but for the last page
//! item           0 type: 1 bytes follow; 3 it is elsewhere: 4 page  8 length
//! ```
//!
//! Integers are of the byte order of the machine that made the file (rpm: `lib/backend/bdb_ro.c`). Keys are
//! the numbers of packages, values their headers; that of key 0 is a counter. Since nothing is looked up by
//! key, all pages are read in their order, and how keys are hashed does not matter.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::reader::Bytes;

const MAGIC: u32 = 0x0006_1561;
const PAGE_HEADER: usize = 26;

/// Types of pages: hash pages of EL5, those of later ones, whose items are sorted, and parts of a long item.
const HASH_UNSORTED: u8 = 2;
const HASH: u8 = 13;
const OVERFLOW: u8 = 7;

/// Types of items.
const ON_PAGE: u8 = 1;
const OFF_PAGE: u8 = 3;

/// Of which end the integers are.
#[derive(Clone, Copy)]
pub enum ByteOrder {
    /// x86_64, aarch64, ppc64le
    Little,
    /// s390x
    Big,
}

impl ByteOrder {
    fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    fn u16(self, bytes: &[u8], at: usize) -> usize {
        let bytes = [bytes[at], bytes[at + 1]];
        usize::from(match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        })
    }
}

/// The byte order of a hash file by its first 16 bytes; none if they are not those of one.
pub fn byte_order(start: &[u8]) -> Option<ByteOrder> {
    let is_magic = |order: &ByteOrder| start.len() >= 16 && order.u32(start, 12) == MAGIC;
    [ByteOrder::Little, ByteOrder::Big].into_iter().find(is_magic)
}

/// A hash file.
pub struct Pages {
    file: Bytes,
    order: ByteOrder,
    page_size: usize,
    last: u32,
}

/// Where a value is.
pub enum Value {
    /// On the page of its key.
    Here(Vec<u8>),
    /// On overflow pages, of which this is the first.
    There { page: u32, length: u32 },
}

impl Pages {
    /// Checks the metadata page.
    pub fn new(file: Bytes, order: ByteOrder) -> Result<Self> {
        let meta = file.read(0, 512)?;
        let [version, page_size, last] = [16, 20, 32].map(|at| order.u32(&meta, at));
        ensure!((8..=10).contains(&version), "its version is {version}, expected 8 to 10");
        ensure!(
            page_size.is_power_of_two() && (512..=65536).contains(&page_size),
            "its pages have {page_size} bytes, expected a power of two from 512 to 65536"
        );
        ensure!(meta[24] == 0 && meta[26] == 0, "it is encrypted, has checksums or is partitioned");
        Ok(Self { file, order, page_size: page_size as usize, last })
    }

    /// The values of all packages, by their numbers. Together they are not longer than the file, so that a
    /// small one can't unfold into much.
    pub fn values(&self) -> Result<BTreeMap<u32, Value>> {
        let (mut values, mut used) = (BTreeMap::new(), 0);
        for number in 1..=self.last {
            let page = self.page(number)?;
            if !matches!(page[25], HASH | HASH_UNSORTED) {
                continue;
            }
            let context = || format!("reading page {number}");
            for pair in self.items(&page).with_context(context)?.chunks_exact(2) {
                let key = self.key(pair[0]).with_context(context)?;
                let value = self.locate(pair[1]).with_context(context)?;
                used += value.length();
                ensure!(used <= self.file.size, "its items overlap");
                let doubled = values.insert(key, value);
                ensure!(doubled.is_none(), "package {key} is in it twice");
            }
        }
        values.remove(&0);
        Ok(values)
    }

    /// The bytes of a value.
    pub fn value(&self, value: &Value) -> Result<Vec<u8>> {
        let (mut next, length) = match value {
            Value::Here(bytes) => return Ok(bytes.clone()),
            Value::There { page, length } => (*page, *length as usize),
        };
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let page = self.page(next)?;
            ensure!(
                page[25] == OVERFLOW && self.order.u32(&page, 8) == next,
                "page {next} is not an overflow page"
            );
            let expected = (length - bytes.len()).min(self.page_size - PAGE_HEADER);
            let used = self.order.u16(&page, 22);
            ensure!(used == expected, "overflow page {next} has {used} bytes, expected {expected}");
            bytes.extend_from_slice(&page[PAGE_HEADER..PAGE_HEADER + used]);
            next = self.order.u32(&page, 16);
        }
        Ok(bytes)
    }

    fn page(&self, number: u32) -> Result<Vec<u8>> {
        ensure!((1..=self.last).contains(&number), "there is no page {number} of {}", self.last);
        self.file.read(u64::from(number) * self.page_size as u64, self.page_size as u64)
    }

    /// The items of a hash page, each key followed by its value.
    fn items<'p>(&self, page: &'p [u8]) -> Result<Vec<&'p [u8]>> {
        let count = self.order.u16(page, 20);
        let begin = PAGE_HEADER + 2 * count;
        let (mut items, mut end) = (Vec::new(), page.len());
        for index in 0..count {
            ensure!(begin <= end, "{count} items are too many");
            let start = self.order.u16(page, PAGE_HEADER + 2 * index);
            ensure!((begin..end).contains(&start), "item {index} is at {start}, expected {begin} to {end}");
            items.push(&page[start..end]);
            end = start;
        }
        Ok(items)
    }

    fn key(&self, item: &[u8]) -> Result<u32> {
        match item {
            [ON_PAGE, key @ ..] if key.len() == 4 => Ok(self.order.u32(key, 0)),
            _ => bail!("a key is not the number of a package"),
        }
    }

    fn locate(&self, item: &[u8]) -> Result<Value> {
        match item {
            [ON_PAGE, bytes @ ..] => Ok(Value::Here(bytes.to_vec())),
            [OFF_PAGE, ..] if item.len() == 12 => {
                Ok(Value::There { page: self.order.u32(item, 4), length: self.order.u32(item, 8) })
            }
            [kind, ..] => bail!("an item of {} bytes is of type {kind}", item.len()),
            [] => bail!("an item has no type"),
        }
    }
}

impl Value {
    fn length(&self) -> u64 {
        match self {
            Self::Here(bytes) => bytes.len() as u64,
            Self::There { length, .. } => u64::from(*length),
        }
    }
}
