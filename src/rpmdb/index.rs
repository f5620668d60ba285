//! The index tables: which tag each is made from, and the rows librpm makes of a header.

use std::borrow::Cow;
use std::collections::BTreeSet;

use anyhow::{Context, Result};
use rpm::IndexTag as Tag;

use super::rich;
use crate::package::header::Header;

/// An index table.
pub struct Index {
    pub table: &'static str,
    tag: Tag,
    keys: Keys,
}

/// What the keys of an index are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// One text per package.
    Text,
    /// Any number of texts per package.
    Texts,
    /// One piece of bytes per package.
    Bytes,
}

/// A row of an index; `hnum` is the package's.
pub struct Row<'h> {
    pub key: Cow<'h, [u8]>,
    pub idx: u32,
}

/// All index tables, in the order librpm makes and fills them (rpm: `lib/rpmdb.c`, `dbiTags`).
pub const INDEXES: [Index; 18] = [
    Index { table: "Name", tag: Tag::RPMTAG_NAME, keys: Keys::Text },
    Index { table: "Basenames", tag: Tag::RPMTAG_BASENAMES, keys: Keys::Texts },
    Index { table: "Group", tag: Tag::RPMTAG_GROUP, keys: Keys::Text },
    Index { table: "Requirename", tag: Tag::RPMTAG_REQUIRENAME, keys: Keys::Texts },
    Index { table: "Providename", tag: Tag::RPMTAG_PROVIDENAME, keys: Keys::Texts },
    Index { table: "Conflictname", tag: Tag::RPMTAG_CONFLICTNAME, keys: Keys::Texts },
    Index { table: "Obsoletename", tag: Tag::RPMTAG_OBSOLETENAME, keys: Keys::Texts },
    Index { table: "Triggername", tag: Tag::RPMTAG_TRIGGERNAME, keys: Keys::Texts },
    Index { table: "Dirnames", tag: Tag::RPMTAG_DIRNAMES, keys: Keys::Texts },
    Index { table: "Installtid", tag: Tag::RPMTAG_INSTALLTID, keys: Keys::Bytes },
    Index { table: "Sigmd5", tag: Tag::RPMTAG_SIGMD5, keys: Keys::Bytes },
    Index { table: "Sha1header", tag: Tag::RPMTAG_SHA1HEADER, keys: Keys::Text },
    Index { table: "Filetriggername", tag: Tag::RPMTAG_FILETRIGGERNAME, keys: Keys::Texts },
    Index { table: "Transfiletriggername", tag: Tag::RPMTAG_TRANSFILETRIGGERNAME, keys: Keys::Texts },
    Index { table: "Recommendname", tag: Tag::RPMTAG_RECOMMENDNAME, keys: Keys::Texts },
    Index { table: "Suggestname", tag: Tag::RPMTAG_SUGGESTNAME, keys: Keys::Texts },
    Index { table: "Supplementname", tag: Tag::RPMTAG_SUPPLEMENTNAME, keys: Keys::Texts },
    Index { table: "Enhancename", tag: Tag::RPMTAG_ENHANCENAME, keys: Keys::Texts },
];

impl Index {
    /// librpm's DDL, quotes included: SQLite keeps the text.
    pub fn schema(&self) -> String {
        let table = self.table;
        let affinity = if self.is_text() { "TEXT" } else { "BLOB" };
        let mut sql = format!(
            "CREATE TABLE IF NOT EXISTS '{table}' (key '{affinity}' NOT NULL, hnum INTEGER NOT NULL, \
             idx INTEGER NOT NULL, FOREIGN KEY (hnum) REFERENCES 'Packages'(hnum));"
        );
        let columns: &[&str] = match self.keys {
            Keys::Text => &["key"],
            Keys::Texts => &["key", "hnum"],
            Keys::Bytes => &[],
        };
        for column in columns {
            sql += &format!("CREATE INDEX IF NOT EXISTS '{table}_{column}_idx' ON '{table}'({column} ASC);");
        }
        sql
    }

    /// Whether keys are text, not bytes.
    pub fn is_text(&self) -> bool {
        self.keys != Keys::Bytes
    }

    /// The rows of a package, in librpm's order.
    pub fn rows<'h>(&self, header: &'h Header) -> Result<Vec<Row<'h>>> {
        let single = |key: Option<Cow<'h, [u8]>>| key.map(|key| Row { key, idx: 0 }).into_iter().collect();
        match self.tag {
            Tag::RPMTAG_INSTALLTID => Ok(single(install_tid(header)?.map(Cow::Owned))),
            Tag::RPMTAG_SIGMD5 => Ok(single(header.sigmd5()?.map(Cow::Borrowed))),
            Tag::RPMTAG_GROUP => {
                Ok(single(Some(Cow::Borrowed(header.strings(self.tag)?.first().unwrap_or(&&b"Unknown"[..])))))
            }
            Tag::RPMTAG_FILETRIGGERNAME => self.trigger_rows(header, Tag::RPMTAG_FILETRIGGERINDEX),
            Tag::RPMTAG_TRANSFILETRIGGERNAME => self.trigger_rows(header, Tag::RPMTAG_TRANSFILETRIGGERINDEX),
            _ => self.string_rows(header),
        }
    }

    fn string_rows<'h>(&self, header: &'h Header) -> Result<Vec<Row<'h>>> {
        let keys = header.strings(self.tag)?;
        let flags = match self.tag {
            Tag::RPMTAG_REQUIRENAME => header.u32s(Tag::RPMTAG_REQUIREFLAGS)?,
            _ => Vec::new(),
        };
        let mut seen = BTreeSet::new();
        let mut rows = Vec::with_capacity(keys.len());
        for ((idx, key), position) in (0..).zip(keys).zip(0..) {
            let transient = flags.get(position).is_some_and(|f| is_transient(*f));
            // rpm compares triggers with all before them, whatever their version
            let repeated = self.tag == Tag::RPMTAG_TRIGGERNAME && !seen.insert(key);
            if transient || repeated {
                continue;
            }
            rows.push(Row { key: Cow::Borrowed(key), idx });
            if key.starts_with(b"(") && self.knows_rich() {
                rows.extend(rich::names(key).into_iter().map(|name| Row { key: Cow::Owned(name), idx }));
            }
        }
        Ok(rows)
    }

    /// Rows of file triggers carry the trigger's number, not the position of the path.
    fn trigger_rows<'h>(&self, header: &'h Header, numbers: Tag) -> Result<Vec<Row<'h>>> {
        let keys = header.strings(self.tag)?;
        let numbers = header.u32s(numbers)?;
        let row = |(position, key)| {
            let idx = *numbers.get(position).context("a file trigger has no number")?;
            Ok(Row { key: Cow::Borrowed(key), idx })
        };
        keys.into_iter().enumerate().map(row).collect()
    }

    /// Whether names inside rich dependencies are indexed too.
    fn knows_rich(&self) -> bool {
        matches!(
            self.tag,
            Tag::RPMTAG_REQUIRENAME
                | Tag::RPMTAG_CONFLICTNAME
                | Tag::RPMTAG_SUGGESTNAME
                | Tag::RPMTAG_SUPPLEMENTNAME
                | Tag::RPMTAG_RECOMMENDNAME
                | Tag::RPMTAG_ENHANCENAME
        )
    }
}

/// The key is the number as the C library has it in memory, little-endian on all but s390x.
fn install_tid(header: &Header) -> Result<Option<Vec<u8>>> {
    Ok(header.u32s(Tag::RPMTAG_INSTALLTID)?.first().map(|tid| tid.to_le_bytes().to_vec()))
}

/// Whether a requirement matters during the installation only (rpm: `lib/rpmds.h`, `isTransientReq`).
fn is_transient(flags: u32) -> bool {
    const INSTALL: u32 = 1 << 5 | 1 << 7 | 1 << 9 | 1 << 10 | 1 << 24 | 1 << 26;
    const ERASE_OR_META: u32 = 1 << 11 | 1 << 12 | 1 << 20 | 1 << 21 | 1 << 29;
    flags & INSTALL != 0 && flags & ERASE_OR_META == 0
}
