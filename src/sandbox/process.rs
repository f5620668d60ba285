//! What the standard library rightly calls unsafe about processes: fork and the environment.
//!
//! Every function here needs a process of one thread, and says so with an error instead of trusting its caller.
#![expect(unsafe_code, reason = "fork(2), unshare(2) and setenv(3) have no safe form")]

use std::ffi::OsStr;
use std::io;

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
