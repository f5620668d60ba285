//! What locking came to: locks, and the fate of overrides.

use std::mem::discriminant;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::lock::{self, LayerLock, Notice, State, droppable, expired};
use crate::manifest;
use crate::plan::{Origin, Plan};
use crate::progress::Progress;

/// What locking came to.
pub struct Outcome {
    /// By architecture, then in stack order.
    pub locks: Vec<LayerLock>,
    /// What there is to tell of overrides.
    notices: Vec<Notice>,
    /// Where the overrides stand without which it was solved, sorted.
    dropped: Vec<Origin>,
}

impl Outcome {
    /// Solves `plans`; if it `drops`, without the overrides that this finds to be of no use any more.
    pub fn of(
        solve: impl Fn(&[Plan]) -> Result<Vec<LayerLock>>,
        plans: &mut [Plan],
        drops: bool,
    ) -> Result<Self> {
        let locks = solve(plans)?;
        let notices = notices(plans, &locks)?;
        let layers = plans.iter().flat_map(|plan| &plan.layers);
        let dropped = droppable(layers, locks.iter().flat_map(|result| &result.caught_up));
        if !drops || dropped.is_empty() {
            return Ok(Self { locks, notices, dropped: Vec::new() });
        }
        for layer in plans.iter_mut().flat_map(|plan| &mut plan.layers) {
            layer.packages.overrides.retain(|entry| !dropped.contains(&entry.origin));
        }
        Ok(Self { locks: solve(plans)?, notices, dropped })
    }

    /// Tells of overrides. With `check` nothing is written, so what would be dropped is still there.
    pub fn tell(&self, check: bool, progress: &dyn Progress) {
        for notice in &self.notices {
            let fate = match self.dropped.contains(&notice.entry.origin) {
                true if check => ": an update drops it",
                true => ": dropped",
                false => "",
            };
            progress.warn(&format!("{notice}{fate}"));
        }
    }

    /// Writes the locks that changed, and the manifests without the overrides that were dropped.
    pub fn write(&self, lockfiles: &Path, stream: &str) -> Result<()> {
        // from the last line to the first, so that those to come stay where they are
        self.dropped.iter().rev().try_for_each(manifest::remove_override)?;
        lock::write(lockfiles, stream, self.changed().map(|result| &result.lock))
    }

    /// Whether all locks were as they should be, and no override is past its time.
    pub fn holds(&self) -> bool {
        let is_expired = self.notices.iter().any(|notice| notice.state == State::Expired);
        !is_expired && self.changed().next().is_none()
    }

    fn changed(&self) -> impl Iterator<Item = &LayerLock> {
        self.locks.iter().filter(|result| result.previous.as_ref() != Some(&result.lock))
    }
}

/// What there is to tell of the overrides of the layers that were locked, once of each.
fn notices(plans: &[Plan], locks: &[LayerLock]) -> Result<Vec<Notice>> {
    let today = today()?;
    let layers = plans.iter().flat_map(|plan| &plan.layers);
    let locked = layers.filter(|layer| locks.iter().any(|result| result.lock.layer == layer.name));
    let expired = locked.flat_map(|layer| expired(layer, &today));
    let mut notices: Vec<Notice> = Vec::new();
    for notice in expired.chain(locks.iter().flat_map(|result| result.caught_up.iter().cloned())) {
        let told = notices.iter().any(|told| {
            told.entry.origin == notice.entry.origin
                && discriminant(&told.state) == discriminant(&notice.state)
        });
        if !told {
            notices.push(notice);
        }
    }
    Ok(notices)
}

/// The date, UTC: that of `SOURCE_DATE_EPOCH` if it is set.
fn today() -> Result<String> {
    let now = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => {
            seconds.parse().map_err(anyhow::Error::from).and_then(|s| Ok(Timestamp::from_second(s)?))
        }
        Err(_) => Ok(Timestamp::now()),
    };
    let now = now.context("reading SOURCE_DATE_EPOCH: expected UTC seconds")?;
    Ok(now.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string())
}
