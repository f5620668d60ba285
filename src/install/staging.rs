//! Payloads unpacked in the background, while scriptlets of packages before them run.
//!
//! A scriptlet keeps one core busy at most; decompression takes the rest, and that one too while the transaction waits
//! for a payload. Packages are unpacked in the order in which they are installed, each into a directory of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, available_parallelism};

use anyhow::{Context, Result};

use super::{Origin, Package, Transaction, payload};

/// The payloads of a transaction. When it is dropped, what is not being unpacked already is given up.
pub(super) struct Staging<'a> {
    tx: &'a Transaction<'a>,
    queue: Arc<Queue>,
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
        let queue = Arc::new(Queue::new(installs));
        let cores = available_parallelism().map_or(1, usize::from);
        for worker in 0..cores {
            let (done, queue) = (done.clone(), queue.clone());
            // the last core is the scriptlets'
            let next = match worker > 0 && worker + 1 == cores {
                true => Queue::next_awaited,
                false => Queue::next,
            };
            scope.spawn(move || {
                while let Some(package) = next(&queue) {
                    let kept = unpack(tx, package, &packages[package]);
                    if done.send((package, kept)).is_err() {
                        break;
                    }
                }
            });
        }
        Self { tx, queue, unpacked, ready: BTreeSet::new(), kept: 0 }
    }

    /// The directory with the verified files of a package, once they are there. Fails as soon as any payload did.
    pub fn take(&mut self, package: usize) -> Result<PathBuf> {
        while !self.ready.remove(&package) {
            let (ready, kept) = match self.unpacked.try_recv() {
                Ok(unpacked) => unpacked,
                Err(_) => self.wait()?,
            };
            self.kept += usize::from(kept?);
            self.ready.insert(ready);
        }
        Ok(directory(self.tx, package))
    }

    /// Waits for the next payload, with all cores at work.
    fn wait(&mut self) -> Result<(usize, Result<bool>)> {
        self.queue.set_awaited(true);
        let unpacked = self.unpacked.recv().context("waiting for a payload nobody unpacks");
        self.queue.set_awaited(false);
        unpacked
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        self.queue.give_up();
    }
}

/// Packages to unpack.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    left: std::vec::IntoIter<usize>,
    /// Whether the transaction waits for a payload.
    awaited: bool,
}

impl Queue {
    fn new(packages: Vec<usize>) -> Self {
        let state = State { left: packages.into_iter(), awaited: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // nothing that holds it can panic half way
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next package, at once; none at the end.
    fn next(&self) -> Option<usize> {
        let next = self.state().left.next();
        if next.is_none() {
            self.changed.notify_all();
        }
        next
    }

    /// The next package, once the transaction waits for one; none at the end.
    fn next_awaited(&self) -> Option<usize> {
        let idle = |state: &mut State| !state.awaited && state.left.len() > 0;
        let waited = self.changed.wait_while(self.state(), idle);
        waited.unwrap_or_else(PoisonError::into_inner).left.next()
    }

    fn set_awaited(&self, awaited: bool) {
        self.state().awaited = awaited;
        self.changed.notify_all();
    }

    fn give_up(&self) {
        self.state().left = Vec::new().into_iter();
        self.changed.notify_all();
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
