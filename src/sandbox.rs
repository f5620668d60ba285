//! Namespaces and bubblewrap: the only place where foreign code runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

/// Moves strata into its own user and mount namespace, in which it is root, whoever runs it.
///
/// Call it first in `main`, before any thread. `Ok(Some(code))`: this is the outer process, the inner one
/// ended with `code`. `Ok(None)`: go on, we are inside (or were already).
pub fn enter_namespace() -> Result<Option<u8>> {
    unimplemented!()
}

/// Mounts an overlay on `target` (in our mount namespace). `lower` is ordered top first.
pub fn mount_overlay(_lower: &[&Path], _upper: &Path, _work: &Path, _target: &Path) -> Result<()> {
    unimplemented!()
}

/// Detaches a mount made by [`mount_overlay`].
pub fn unmount(_target: &Path) -> Result<()> {
    unimplemented!()
}

/// A rootfs in which commands run: no network, nothing of the host.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The rootfs.
    pub rootfs: PathBuf,
    /// `SOURCE_DATE_EPOCH` in the environment, UTC seconds.
    pub epoch: u64,
}

/// A command to run in a sandbox.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// Program and arguments, as seen inside.
    pub argv: Vec<String>,
    /// Extra environment.
    pub env: Vec<(String, String)>,
    /// Fed to standard input, which is an empty pipe otherwise.
    pub stdin: Vec<u8>,
    /// Text put into a file inside, whose path (below `/run`) is inserted in `argv` after the interpreter
    /// and its arguments at this index.
    pub script: Option<(usize, String)>,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit status; 128 + signal number when killed; 127 when the program is missing.
    pub status: i32,
    /// The end of what it wrote to standard output and error, at most 64 KiB.
    pub output: String,
    /// How long it took.
    pub duration: Duration,
}

impl Sandbox {
    /// Runs `command` and waits. An error means that the sandbox itself could not be made.
    pub fn run(&self, _command: &Command) -> Result<Outcome> {
        unimplemented!()
    }
}
