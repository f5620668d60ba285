//! Who changes a rootfs while it is composed: scriptlets of packages, entries of manifests. And the seam at which
//! somebody may watch them.

use std::fmt;

use anyhow::Result;

use crate::digest::Digest;
use crate::package::Nevra;
use crate::package::header::Phase;
use crate::plan::Origin;
use crate::sandbox::{Command, Outcome, Sandbox};

/// Who changes a rootfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A scriptlet, or the script of a trigger.
    Scriptlet {
        /// The package it belongs to.
        package: Nevra,
        /// When it runs.
        phase: Phase,
    },
    /// An entry of a manifest.
    Entry(Entry),
}

/// An entry of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What and which, as the manifest has it: `[[script]] container-hooks`.
    pub key: String,
    /// Its place.
    pub origin: Origin,
}

impl fmt::Display for Actor {
    /// `%post(bash-5.1.8-9.el9.x86_64)`, as rpm calls it, or `[[script]] hooks of manifests/demo/node.toml:12`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scriptlet { package, phase } => write!(f, "%{phase}({package})"),
            Self::Entry(Entry { key, origin }) => write!(f, "{key} of {origin}"),
        }
    }
}

/// A script that an actor has run.
#[derive(Clone, Debug)]
pub struct Task {
    /// Whose it is.
    pub actor: Actor,
    /// Interpreter and its arguments as the package or manifest has them: `["<lua>"]`.
    pub interpreter: Vec<String>,
    /// The script's own arguments.
    pub arguments: Vec<String>,
}

/// A regular file that a package brought, with one name, as it is in the rootfs.
pub struct Placed<'a> {
    /// Absolute.
    pub path: &'a str,
    /// Of its content.
    pub sha256: Digest,
    /// In bytes.
    pub size: u64,
    /// Its time, UTC seconds.
    pub mtime: i64,
}

/// Runs the commands of tasks in a rootfs: its sandbox, or somebody who watches.
pub trait Executor {
    /// Notes that the rootfs will change from now on.
    fn begin(&self) -> Result<()> {
        Ok(())
    }

    /// Runs a command and waits. An exit status other than 0 is not an error here; that it could not be run is.
    fn run(&self, task: &Task, command: &Command) -> Result<Outcome>;

    /// Notes which files were placed since the last call or task.
    fn placed(&self, _files: &[Placed<'_>]) -> Result<()> {
        Ok(())
    }

    /// Notes that `actor` made the changes since the last call or task, not by a command.
    fn acted(&self, _actor: Actor) -> Result<()> {
        Ok(())
    }
}

impl Executor for Sandbox {
    fn run(&self, _: &Task, command: &Command) -> Result<Outcome> {
        self.run(command)
    }
}

impl<T: Executor> Executor for &T {
    fn begin(&self) -> Result<()> {
        (**self).begin()
    }

    fn run(&self, task: &Task, command: &Command) -> Result<Outcome> {
        (**self).run(task, command)
    }

    fn placed(&self, files: &[Placed<'_>]) -> Result<()> {
        (**self).placed(files)
    }

    fn acted(&self, actor: Actor) -> Result<()> {
        (**self).acted(actor)
    }
}
