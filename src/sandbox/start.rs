//! Starting bwrap, and the first process of its sandbox.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Deserialize;

use super::bounds;
use crate::error::HintExt;

/// Where bwrap is; none if it is not to be found.
pub fn bwrap() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("bwrap")).find(|file| file.is_file())
}

/// bwrap, about to be started.
pub struct Start {
    /// What runs.
    pub bwrap: Command,
    /// Where bwrap tells who its first process is: `--info-fd`.
    info: PipeReader,
    /// What that process waits for before it runs the command: `--block-fd`.
    go: PipeWriter,
    /// The ends that bwrap inherits.
    theirs: [OwnedFd; 2],
}

impl Start {
    /// bwrap with the arguments that tell it about its pipes.
    ///
    /// By its path, with no environment and nothing to be done between fork(2) and exec(2): so the standard library
    /// starts it by posix_spawn(3), which does not copy the page tables of a process as large as strata, in
    /// milliseconds per script.
    pub fn new() -> Result<Self> {
        let mut bwrap = Command::new(bwrap().unwrap_or_else(|| "bwrap".into()));
        // not --clearenv, which the bubblewrap of EL9 does not know
        bwrap.env_clear();
        let (info, tell_info) = io::pipe().context("making a pipe")?;
        let (wait, go) = io::pipe().context("making a pipe")?;
        let theirs: [OwnedFd; 2] = [tell_info.into(), wait.into()];
        for (option, fd) in ["--info-fd", "--block-fd"].iter().zip(&theirs) {
            bwrap.arg(option).arg(fd.as_raw_fd().to_string());
        }
        Ok(Self { bwrap, info, go, theirs })
    }

    /// Starts it; with its first process, unless that has ended already, or never began.
    pub fn spawn(mut self) -> Result<(Child, Option<Init>)> {
        let child = self.inherited().hint("starting bwrap", "install the package bubblewrap")?;
        // it holds our ends of the command's pipes, which would never end
        drop(self.bwrap);
        let init = init_process(self.info).context("asking bwrap for its first process")?;
        init.as_ref().map_or(Ok(()), Init::first_to_go)?;
        // bwrap may have failed
        let _ = self.go.write_all(b"\n");
        Ok((child, init))
    }

    /// One at a time: a sandbox that starts in another thread would inherit our ends as well, and we might wait for
    /// each other's.
    fn inherited(&mut self) -> io::Result<Child> {
        static STARTING: Mutex<()> = Mutex::new(());
        let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let inherit = |flags| self.theirs.iter().try_for_each(|fd| fcntl_setfd(fd, flags));
        inherit(FdFlags::empty())?;
        let child = self.bwrap.spawn();
        inherit(FdFlags::CLOEXEC)?;
        child
    }
}

/// The first process of a sandbox's pid namespace, with which all others end.
pub struct Init {
    /// As strata sees it.
    pub pid: Pid,
    fd: OwnedFd,
}

fn init_process(info: PipeReader) -> Result<Option<Init>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Info {
        child_pid: i32,
    }
    let Some(info) = serde_json::Deserializer::from_reader(info).into_iter().next() else {
        return Ok(None); // bwrap failed, and says why
    };
    let Info { child_pid } = info?;
    let pid = Pid::from_raw(child_pid).context("bwrap says that it has number 0")?;
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => Ok(None),
        opened => Ok(Some(Init { pid, fd: opened? })),
    }
}

impl Init {
    /// Has it, and what it starts, be the first to go when the kernel is out of memory. Without /proc there is no such
    /// preference.
    fn first_to_go(&self) -> Result<()> {
        match std::fs::write(format!("/proc/{}/oom_score_adj", self.pid), "1000") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context("making a command in the sandbox the first to go when memory runs out")
            }
            _ => Ok(()),
        }
    }

    /// Waits for it to end, or for something to read from `output`; tells whether either happened.
    pub fn poll(&self, output: Option<&PipeReader>, timeout: Duration) -> Result<(bool, bool)> {
        let mut polled = vec![PollFd::new(&self.fd, PollFlags::IN)];
        polled.extend(output.map(|output| PollFd::new(output, PollFlags::IN)));
        let timeout = Timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&timeout)))
            .context("waiting for a command in the sandbox")?;
        let ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
        Ok((ready(polled.first()), ready(polled.get(1))))
    }

    /// Waits for it to end.
    pub fn gone(&self) -> Result<()> {
        while !self.poll(None, Duration::from_millis(100))?.0 {}
        Ok(())
    }

    /// Kills it, and all others.
    pub fn kill(&self) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.fd, Signal::KILL) {
            Err(Errno::SRCH) => return Ok(()),
            killed => killed?,
        }
        bounds::kill(self.pid)
    }
}
