//! Payloads kept decompressed from one transaction to the next: `payloads/HEX` of the store is the archive whose
//! compressed form has the SHA-256 HEX, as the header promises it (PAYLOADDIGEST).
//!
//! What is kept is not trusted. Files are checked against the header whichever archive they come from, so one that
//! is damaged is found and made anew; nor need it be synced before it gets its name.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use crate::digest::Digest;
use crate::store::Store;

/// Where a package's archive is kept.
pub(super) struct Kept<'a> {
    store: &'a Store,
    path: PathBuf,
}

impl<'a> Kept<'a> {
    /// The place of the archive whose compressed form has this digest.
    pub fn new(store: &'a Store, payload: &Digest) -> Self {
        Self { store, path: store.payload(payload) }
    }

    /// The archive, if it is there.
    pub fn open(&self) -> Result<Option<File>> {
        let open = || File::open(&self.path).with_context(|| format!("opening {}", self.path.display()));
        self.store.take(&self.path)?.then(open).transpose()
    }

    /// A file for a copy of the archive.
    pub fn begin(&self) -> Result<NamedTempFile> {
        self.store.temp_file()
    }

    /// Gives a complete copy its name, over one that somebody else may have made meanwhile.
    pub fn keep(&self, copy: NamedTempFile) -> Result<()> {
        copy.persist(&self.path).with_context(|| format!("keeping {}", self.path.display()))?;
        Ok(())
    }
}

/// Copies what is read through it.
pub(super) struct Copying<'a, R> {
    pub archive: R,
    pub copy: &'a File,
}

impl<R: Read> Read for Copying<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.archive.read(buffer)?;
        let told = |e: io::Error| io::Error::new(e.kind(), format!("copying it to the store: {e}"));
        self.copy.write_all(&buffer[..n]).map_err(told)?;
        Ok(n)
    }
}
