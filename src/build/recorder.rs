//! Runs the scripts of a layer, and keeps account of them and of what they and the manifests changed.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::journal::{Changes, Journal};
use super::reads::{Opened, Reads};
use super::reuse::{Known, Steps};
use crate::actor::{Actor, Entry, Executor, Placed, Task};
use crate::plan::Origin;
use crate::sandbox::{Command, Outcome, Sandbox};
use crate::store::Store;

/// A script that ran: of a package's scriptlet or trigger, or of a manifest.
#[derive(Clone, Debug, Serialize)]
pub struct ScriptRun {
    /// Counted from 1 in the order they ran: what `strata debug` calls it.
    pub number: usize,
    /// `%post(bash-5.1.8-9.el9.x86_64)`, or the manifest's entry and its place.
    pub name: String,
    /// `NAME-EVR.ARCH` of the package it belongs to.
    pub package: Option<String>,
    /// When it ran, as a spec file spells it without the `%`: `post`.
    pub phase: Option<String>,
    /// The manifest's entry, if it is no package's: `[[script]] container-hooks`.
    pub entry: Option<String>,
    /// The place of that entry.
    pub origin: Option<Origin>,
    /// Interpreter and its arguments as the package or manifest has them.
    pub interpreter: Vec<String>,
    /// The script's own arguments.
    pub arguments: Vec<String>,
    /// Exit status; 128 + signal number when killed.
    pub status: i32,
    /// How long it took, in seconds.
    pub duration: f64,
    /// Whether what it does was known from an earlier build, and it did not run.
    pub reused: bool,
    /// The end of what it wrote to standard output and error, at most 64 KiB.
    pub output: String,
    /// What it changed.
    #[serde(flatten)]
    pub changes: Changes,
}

impl ScriptRun {
    fn new(number: usize, task: &Task, Ended { outcome, reused, .. }: &Ended, changes: Changes) -> Self {
        let (package, phase, entry, origin) = match task.actor.clone() {
            Actor::Scriptlet { package, phase } => {
                (Some(package.to_string()), Some(phase.to_string()), None, None)
            }
            Actor::Entry(Entry { key, origin }) => (None, None, Some(key), Some(origin)),
        };
        Self {
            number,
            name: task.actor.to_string(),
            package,
            phase,
            entry,
            origin,
            interpreter: task.interpreter.clone(),
            arguments: task.arguments.clone(),
            status: outcome.status,
            duration: outcome.duration.as_secs_f64(),
            reused: *reused,
            output: outcome.output.clone(),
            changes,
        }
    }
}

/// A sandbox whose commands are noted.
pub struct Recorder<'a> {
    sandbox: Sandbox,
    stop: Option<Stop<'a>>,
    /// Where what commands do is kept for later builds.
    store: Option<&'a Store>,
    reads: RefCell<Option<Reads>>,
    /// None until the rootfs begins to change.
    notes: RefCell<Option<Notes>>,
}

/// How a command ended, and what it opened if that is known.
struct Ended {
    outcome: Outcome,
    reused: bool,
    opened: Option<Opened>,
}

/// Where composing stops, for somebody to look at the rootfs as it is there.
#[derive(Clone, Copy)]
pub struct Stop<'a> {
    /// The number of the script that does not run any more.
    pub before: usize,
    /// What happens instead.
    pub enter: &'a Enter<'a>,
}

/// Does something in the sandbox, in which the command of a task is about to run; gives an exit status.
pub type Enter<'a> = dyn Fn(&Sandbox, &Task, &Command) -> Result<u8> + 'a;

/// Composing stopped where it should, and this is the status of what happened there.
#[derive(Debug, thiserror::Error)]
#[error("composing stopped before a script")]
pub struct Stopped(pub u8);

struct Notes {
    journal: Journal,
    scripts: Vec<ScriptRun>,
    failed: Option<usize>,
    /// Who made the paths that nothing had made before, by absolute path.
    made: BTreeMap<String, Actor>,
    /// With a store only.
    known: Option<Known>,
}

impl<'a> Recorder<'a> {
    /// Watches what happens to the rootfs of `sandbox` from [`Executor::begin`] on, or from the first task. With a store,
    /// commands do not run whose doings it knows.
    pub fn new(sandbox: Sandbox, store: Option<&'a Store>, stop: Option<Stop<'a>>) -> Self {
        let reads = RefCell::new(store.and_then(|_| Reads::new()));
        Self { sandbox, stop, store, reads, notes: RefCell::new(None) }
    }

    fn notes(&self) -> Result<RefMut<'_, Notes>> {
        let mut notes = self.notes.borrow_mut();
        if notes.is_none() {
            *notes = Some(Notes::begin(&self.sandbox, self.store)?);
        }
        Ok(RefMut::map(notes, |notes| notes.as_mut().expect("begun above")))
    }

    /// Runs a command, or does what it would do.
    fn end(&self, command: &Command, steps: Option<&Steps>) -> Result<Ended> {
        let mut notes = self.notes()?;
        let Notes { journal, known, .. } = &mut *notes;
        let replayed = steps.zip(known.as_mut()).map(|(steps, known)| steps.replay(known)).transpose()?;
        if let Some(outcome) = replayed.flatten() {
            return Ok(Ended { outcome, reused: true, opened: None });
        }
        let mut reads = self.reads.borrow_mut();
        let Some(reads) = reads.as_mut().filter(|_| steps.is_some()) else {
            return Ok(Ended { outcome: self.sandbox.run(command)?, reused: false, opened: None });
        };
        let run = || self.sandbox.run(command);
        let (outcome, opened) = reads.during(&self.sandbox.rootfs, journal.new_directories(), run)?;
        Ok(Ended { outcome, reused: false, opened })
    }

    /// Drops what happened since the last note: it is nobody's whom we know.
    pub fn skip(&self) -> Result<()> {
        let mut notes = self.notes()?;
        let changes = notes.journal.take()?;
        notes.forget(&changes);
        Ok(())
    }

    /// The number of the script that failed, or could not be run to its end.
    pub fn failed(&self) -> Option<usize> {
        self.notes.borrow().as_ref()?.failed
    }

    /// Gives up the scripts that ran, in their order, and who made the paths that are there, by absolute path.
    pub fn take_notes(&self) -> (Vec<ScriptRun>, BTreeMap<String, Actor>) {
        let mut notes = self.notes.borrow_mut();
        let Some(notes) = &mut *notes else { return Default::default() };
        (std::mem::take(&mut notes.scripts), std::mem::take(&mut notes.made))
    }
}

impl Executor for Recorder<'_> {
    fn begin(&self) -> Result<()> {
        self.notes().map(drop)
    }

    fn run(&self, task: &Task, command: &Command) -> Result<Outcome> {
        let number = self.notes()?.scripts.len() + 1;
        if let Some(stop) = self.stop.filter(|stop| stop.before == number) {
            return Err(Stopped((stop.enter)(&self.sandbox, task, command)?).into());
        }
        self.skip()?;
        let steps = self.store.and_then(|store| Steps::of(store, &self.sandbox, &task.actor, command));
        let ended = self.end(command, steps.as_ref());
        let mut notes = self.notes()?;
        if !ended.as_ref().is_ok_and(|ended| ended.outcome.status == 0) {
            notes.failed = Some(number);
        }
        let mut ended = ended?;
        let changes = notes.journal.take()?;
        if let Some(known) = &mut notes.known {
            if let Some(steps) = steps.filter(|_| !ended.reused) {
                // what it did is done, whether later builds profit or not
                steps.keep(&ended.outcome, &changes, ended.opened.take(), known).unwrap_or_else(|error| {
                    tracing::warn!("{} will have to run in later builds: {error:#}", task.actor)
                });
            }
            known.note(&self.sandbox, &changes)?;
        }
        notes.credit(&task.actor, &changes.created);
        let run = ScriptRun::new(number, task, &ended, changes);
        let what = if run.reused { "reused" } else { "ran" };
        tracing::debug!(number, status = run.status, seconds = run.duration, "{what} {}", task.actor);
        notes.scripts.push(run);
        Ok(ended.outcome)
    }

    fn placed(&self, files: &[Placed<'_>]) -> Result<()> {
        self.skip()?;
        if let Some(known) = &mut self.notes()?.known {
            known.note_placed(&self.sandbox, files);
        }
        Ok(())
    }

    fn acted(&self, actor: Actor) -> Result<()> {
        let mut notes = self.notes()?;
        let changes = notes.journal.take()?;
        notes.forget(&changes);
        // a declared file is the manifest's, whoever made one there before
        notes.credit(&actor, &changes.created);
        notes.credit(&actor, &changes.modified);
        Ok(())
    }
}

impl Notes {
    #[tracing::instrument(level = "info", skip_all)]
    fn begin(sandbox: &Sandbox, store: Option<&Store>) -> Result<Self> {
        let journal = Journal::open(&sandbox.rootfs)?;
        let known = store.map(|_| Known::new(sandbox, journal.paths())).transpose()?;
        Ok(Self { journal, scripts: Vec::new(), failed: None, made: BTreeMap::new(), known })
    }

    fn forget(&mut self, changes: &Changes) {
        if let Some(known) = &mut self.known {
            known.forget(changes);
        }
    }

    fn credit(&mut self, actor: &Actor, paths: &[String]) {
        self.made.extend(paths.iter().map(|path| (path.clone(), actor.clone())));
    }
}
