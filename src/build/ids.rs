//! The part of a build that keeps ids: which a layer's accounts get, that they have them, and that those given away
//! are in its lockfile.

use std::path::PathBuf;

use anyhow::Result;

use super::{Build, Job};
use crate::accounts::Accounts;
use crate::error::hinted;
use crate::ledger::{self, Account, Ledger, Violation};
use crate::lock::{self, Lockfile};
use crate::plan::Layer;
use crate::progress::Progress;
use crate::rootfs::Rootfs;

impl Build<'_> {
    /// The ids that accounts of a layer get if they can: those kept by its chain of lockfiles; and by the others of
    /// the stream, so that a new account of a lower layer takes none away from one above.
    pub(super) fn ledger(&self, job: &Job<'_>) -> Result<Ledger> {
        let mut ledger = job.kept.clone();
        let stream = &self.request.plan.stream;
        for layer in &self.request.plan.layers {
            if let Some(lock) = lock::read(self.request.lockfiles, &stream.name, &layer.name, stream.arch)? {
                ledger.extend(&lock.ledger());
            }
        }
        Ok(ledger)
    }

    /// Refuses a rootfs with an account that has not the id which the lockfiles keep for it; `maker` tells whose it
    /// is.
    pub(super) fn check_ids(
        &self,
        job: &Job<'_>,
        rootfs: &Rootfs,
        maker: &dyn Fn(&Account) -> String,
    ) -> Result<()> {
        let accounts = Accounts::read(rootfs)?;
        let Some(Violation { account, found, why }) = job.kept.violation(&accounts) else {
            return Ok(());
        };
        let keeper = why.keeper(&account);
        let keeps = |lock: &&Lockfile| lock.ledger().has(&keeper);
        let lock = job.locks.iter().rfind(keeps).unwrap_or(job.lock());
        let file = lock::path(self.request.lockfiles, &lock.stream, &lock.layer, lock.arch);
        Err(hinted(
            format!("the {account} of {} has {found}, but {} {why}", maker(&account), file.display()),
            format!(
                "machines have files of the {keeper} by its number: give it back; or, if they can bear it, \
                 delete its entry from the lockfile and build again"
            ),
        ))
    }

    /// Adds the ids of the accounts `made` to the job's lock; tells which it did not have.
    pub(super) fn complete_ids(&self, job: &mut Job<'_>, made: &Ledger) -> Result<Vec<ledger::Change>> {
        let before = job.lock().ledger();
        let mut after = before.clone();
        after.extend(made);
        let new = ledger::changes(&before, &after);
        if new.is_empty() {
            return Ok(new);
        }
        if self.request.locked {
            return Err(hinted(
                format!("{} has not the ids of {}", self.lockfile(job.layer).display(), list(&new)),
                "build without --locked, and commit the ids that this writes into the lockfile",
            ));
        }
        job.lock_mut().set_ledger(&after);
        Ok(new)
    }

    /// Writes the job's completed lock, unless its file is another by now.
    pub(super) fn write_ids(
        &self,
        job: &Job<'_>,
        new: &[ledger::Change],
        progress: &dyn Progress,
    ) -> Result<()> {
        let file = self.lockfile(job.layer);
        let mut found = self.lock(job.layer, &job.locks[..job.depth()])?;
        let missing = ledger::changes(&found.ledger(), &job.lock().ledger());
        found.set_ledger(&job.lock().ledger());
        if found != *job.lock() || !(missing.is_empty() || missing == new) {
            return Err(hinted(
                format!("{} was changed while its layer was built", file.display()),
                "build again",
            ));
        }
        job.lock().write(self.request.lockfiles)?;
        progress.finish(&format!("added to {}: {}", file.display(), list(new)));
        Ok(())
    }

    /// The lockfile of a layer.
    pub(super) fn lockfile(&self, layer: &Layer) -> PathBuf {
        let stream = &self.request.plan.stream;
        lock::path(self.request.lockfiles, &stream.name, &layer.name, stream.arch)
    }
}

/// `user chrony 996:996, group kvm 36`
fn list(ids: &[ledger::Change]) -> String {
    let ids: Vec<String> = ids.iter().filter_map(|id| Some(format!("{} {}", id.account, id.to?))).collect();
    ids.join(", ")
}
