//! Payloads unpacked in the background, while scriptlets of packages before them run.
//!
//! A scriptlet keeps one core busy at most, and many do little but wait for programs to start; decompression takes
//! the rest. Packages are unpacked in the order in which they are installed, each into a directory of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, available_parallelism};

use anyhow::{Context, Result};

use super::{Origin, Package, Transaction, payload};

/// The payloads of a transaction. When it is dropped, what is not being unpacked already is given up.
pub(super) struct Staging<'a> {
    tx: &'a Transaction<'a>,
    unpacked: Receiver<(usize, Result<bool>)>,
    /// Those that are ready before it is their turn.
    ready: BTreeSet<usize>,
    /// How many so far were in the store decompressed.
    pub kept: usize,
}

impl<'a> Staging<'a> {
    /// Begins to unpack `installs`, of all `packages`, in this order.
    pub fn begin<'scope>(
        scope: &'scope Scope<'scope, '_>,
        tx: &'a Transaction<'a>,
        packages: &'scope [Package],
        installs: Vec<usize>,
    ) -> Self
    where
        'a: 'scope,
    {
        let (done, unpacked) = channel();
        let waiting = Arc::new(Mutex::new(installs.into_iter()));
        for _ in 0..available_parallelism().map_or(1, usize::from) {
            let (done, waiting) = (done.clone(), waiting.clone());
            scope.spawn(move || {
                let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some(package) = next() {
                    let kept = unpack(tx, package, &packages[package]);
                    if done.send((package, kept)).is_err() {
                        break;
                    }
                }
            });
        }
        Self { tx, unpacked, ready: BTreeSet::new(), kept: 0 }
    }

    /// The directory with the verified files of a package, once they are there. Fails as soon as any payload did.
    pub fn take(&mut self, package: usize) -> Result<PathBuf> {
        while !self.ready.remove(&package) {
            let (ready, kept) = self.unpacked.recv().context("waiting for a payload nobody unpacks")?;
            self.kept += usize::from(kept?);
            self.ready.insert(ready);
        }
        Ok(directory(self.tx, package))
    }
}

/// Unpacks a payload; whether it was in the store decompressed.
fn unpack(tx: &Transaction, number: usize, package: &Package) -> Result<bool> {
    let Origin::File(rpm) = &package.origin else { return Ok(false) };
    let staging = directory(tx, number);
    std::fs::create_dir(&staging).with_context(|| format!("making {}", staging.display()))?;
    payload::unpack(rpm, &package.header, &package.files, &staging, tx.store)
        .with_context(|| format!("unpacking {}", package.nevra()))
}

fn directory(tx: &Transaction, package: usize) -> PathBuf {
    tx.staging.join(package.to_string())
}
