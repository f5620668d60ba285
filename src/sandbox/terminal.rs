//! A terminal for a command in the sandbox.
//!
//! Not the user's own: a process that has a terminal can type into it (ioctl(2) `TIOCSTI`), and what it typed
//! would be read by the user's shell, outside. It gets one end of a new pair (pty(7)), and we pass on what
//! is typed and said.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::process;

/// Our end of the pair.
pub struct Terminal {
    ours: File,
}

impl Terminal {
    /// Gives `command` a terminal of its own, whatever it does with its standard input and output.
    pub fn new(command: &mut Command) -> io::Result<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        unlockpt(&ours)?;
        let theirs =
            ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs.try_clone()?);
        process::lead_session(command, theirs);
        Ok(Self { ours: File::from(ours) })
    }

    /// Passes on what is typed at the user's terminal, our standard input, and what the command says, until nothing
    /// has the other end open any more.
    pub fn relay(mut self) -> io::Result<()> {
        let (user, mut screen) = (io::stdin(), io::stdout());
        let _raw = Raw::new(user.as_fd().try_clone_to_owned()?)?;
        let mut keyboard = File::from(user.as_fd().try_clone_to_owned()?);
        let mut typing = true;
        loop {
            // a new size shows with the next key, or soon
            tcsetwinsize(&self.ours, tcgetwinsize(&keyboard)?)?;
            let mut ready = [PollFd::new(&self.ours, PollFlags::IN), PollFd::new(&keyboard, PollFlags::IN)];
            let watched = if typing { &mut ready[..] } else { &mut ready[..1] };
            match poll(watched, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })) {
                Ok(0) | Err(Errno::INTR) => continue,
                polled => drop(polled?),
            }
            let [said, typed] = ready.map(|fd| !fd.revents().is_empty());
            if typed {
                typing = pass(&mut keyboard, &mut self.ours)?;
            }
            if said && !pass(&mut self.ours, &mut screen)? {
                return Ok(());
            }
        }
    }
}

/// Passes on what there is to read; false at the end. The end of a terminal is an error, `EIO`.
fn pass(from: &mut File, to: &mut impl Write) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    let n = match from.read(&mut buffer) {
        Err(error) if error.raw_os_error() == Some(libc::EIO) => 0,
        read => read?,
    };
    to.write_all(&buffer[..n])?;
    to.flush()?;
    Ok(n > 0)
}

/// The user's terminal while all that is typed, `^C` included, is meant for the other one.
struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    fn new(terminal: OwnedFd) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // the terminal may be gone
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}
