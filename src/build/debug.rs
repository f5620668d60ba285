//! Enters the rootfs of a layer as it was before one of its scripts.
//!
//! What composing does is decided by its inputs, so nothing is kept of a build that failed: the layer is composed
//! again up to the script. That works on another machine, and after the store was cleaned.

use anyhow::{Context, Result};

use super::recorder::{Enter, Recorder, Stop, Stopped};
use super::{Build, Job, Request, sandbox};
use crate::actor::Task;
use crate::error::hinted;
use crate::fetch::Fetcher;
use crate::plan::Layer;
use crate::progress::{Prefixed, Progress};
use crate::sandbox::{Command, Sandbox};
use crate::store::Store;

/// Composes the only layer of `request` up to the script `number`, which does not run: `enter` does something
/// there. Without a number it is the script that fails, which takes composing it twice. Gives the exit status of
/// `enter`, and keeps nothing but the layers below.
pub fn debug(
    store: &Store,
    fetcher: &Fetcher,
    request: &Request<'_>,
    number: Option<usize>,
    enter: &Enter<'_>,
    progress: &dyn Progress,
) -> Result<u8> {
    let mut build = Build::new(store, fetcher, request)?;
    let mut layers = build.wanted(progress)?;
    let layer = layers.pop().context("no layer to debug")?;
    for below in layers {
        build.next(below, progress)?;
    }
    let progress = Prefixed { name: &layer.name, progress };
    build
        .debug(layer, number, enter, &progress)
        .with_context(|| format!("composing the layer {}", layer.name))
}

impl Build<'_> {
    fn debug(
        &self,
        layer: &Layer,
        number: Option<usize>,
        enter: &Enter<'_>,
        progress: &dyn Progress,
    ) -> Result<u8> {
        let job = self.job(layer, progress)?;
        let before = match number {
            Some(number) => number,
            None => self.failing(&job, progress)?,
        };
        let enter = |sandbox: &Sandbox, task: &Task, command: &Command| {
            progress.finish(&format!("stopped before script {before}, {}", task.actor));
            enter(sandbox, task, command)
        };
        let tree = self.work_tree(&job, progress)?;
        let recorder = Recorder::new(sandbox(&job, &tree), None, Some(Stop { before, enter: &enter }));
        match self.compose(&job, &tree, &recorder, progress) {
            Ok(composed) => Err(hinted(
                format!("there is no script {before}: {} ran", composed.made.scripts.len()),
                "`strata build -v` and its JSON number the scripts of a layer that is built anew",
            )),
            Err(error) => match error.chain().find_map(|cause| cause.downcast_ref::<Stopped>()) {
                Some(Stopped(status)) => Ok(*status),
                None => Err(error),
            },
        }
    }

    /// The number of the script that fails.
    fn failing(&self, job: &Job<'_>, progress: &dyn Progress) -> Result<usize> {
        let tree = self.work_tree(job, progress)?;
        let recorder = Recorder::new(sandbox(job, &tree), None, None);
        match self.compose(job, &tree, &recorder, progress) {
            Err(error) => recorder.failed().ok_or(error),
            Ok(composed) => Err(hinted(
                format!("none of its {} scripts fails", composed.made.scripts.len()),
                "say the number of one to enter it all the same: `strata build -v` tells it when it builds the layer",
            )),
        }
    }
}
