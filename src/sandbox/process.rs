//! What the standard library rightly calls unsafe about processes: fork, the environment, and system calls
//! it does not know.
//!
//! Functions that need a process of one thread say so with an error instead of trusting their caller.
#![expect(
    unsafe_code,
    reason = "fork(2) and what happens after it, unshare(2), keyctl(2), close_range(2) and setenv(3) have no safe form"
)]

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Pid;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Which of the two processes returned from [`fork`].
pub enum Fork {
    /// The old one, with the id of the new one.
    Parent(Pid),
    /// The new one.
    Child,
}

/// fork(2). An error if other threads exist: their locks would stay locked in the child for ever.
pub fn fork() -> io::Result<Fork> {
    check_single_thread()?;
    // SAFETY: this is the only thread (checked), so the child's copy of every lock and of the allocator is
    // in the state in which this thread, which goes on there, left it.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child).map_or(Fork::Child, Fork::Parent)),
    }
}

/// Moves this process into a new user namespace and a new mount namespace that it owns.
pub fn unshare_user_and_mounts() -> io::Result<()> {
    // SAFETY: the hazard of unshare(2) is the table of file descriptors (`FILES`), which stays shared.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }?)
}

/// Gives this process a session keyring of its own, keyctl(2) `KEYCTL_JOIN_SESSION_KEYRING`. Namespaces don't
/// separate that one: who has it reads the keys in it, such as those of the user's Kerberos tickets.
pub fn leave_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let unnamed = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name is what the call wants for an anonymous keyring; it touches no memory of ours.
    match unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, unnamed) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Keeps the files that this process has open, but for the standard three, from the programs it starts. Rust
/// opens files so; those that a shell, a build tool or a CI system passed on are different.
pub fn keep_descriptors() -> io::Result<()> {
    // SAFETY: marking descriptors close-on-exec changes nothing for this process.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Has `command` lead a session of its own, whose terminal is `terminal`: nothing in it can type into ours. `command`
/// owns it then.
pub fn lead_session(command: &mut Command, terminal: OwnedFd) {
    let lead = move || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(&terminal)?;
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec, where it makes system calls and allocates nothing.
    unsafe { command.pre_exec(lead) };
}

/// setenv(3), or unsetenv(3) without a value.
pub fn set_env(name: &OsStr, value: Option<&OsStr>) -> io::Result<()> {
    check_single_thread()?;
    let invalid = |s: &OsStr| s.as_encoded_bytes().contains(&0);
    if name.is_empty()
        || name.as_encoded_bytes().contains(&b'=')
        || invalid(name)
        || value.is_some_and(invalid)
    {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: this is the only thread (checked), so nobody reads the environment meanwhile.
    unsafe {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
    Ok(())
}

fn check_single_thread() -> io::Result<()> {
    match std::fs::read_dir("/proc/self/task")?.count() {
        1 => Ok(()),
        n => Err(io::Error::other(format!("a process of one thread is needed, this one has {n}"))),
    }
}
