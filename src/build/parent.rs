//! The part of a build that tells a lock on which image its layer was built.

use anyhow::Result;

use super::{Build, Job};
use crate::progress::Progress;

impl Build<'_> {
    /// Records the image below in the job's lockfile, unless one is there: that on which the layer was first built
    /// since it was locked. The images of later builds are in their labels; here they would be noise in reviews.
    pub(super) fn record_parent(&self, job: &Job<'_>, progress: &dyn Progress) -> Result<()> {
        let lock = job.lock();
        let Some(below) = job.below.filter(|_| lock.parent_image.is_none() && lock.parent_lock.is_some())
        else {
            return Ok(());
        };
        if self.request.locked {
            return Ok(());
        }
        // builds of other processes may have added ids
        let mut found = self.lock(job.layer, &job.locks[..job.depth()])?;
        found.parent_image = Some(below.image.digest);
        found.write(self.request.lockfiles)?;
        progress.finish(&format!("{} names the image below", self.lockfile(job.layer).display()));
        Ok(())
    }
}
