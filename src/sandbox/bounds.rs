//! What a command in the sandbox may use of the machine, and the watch over it.
//!
//! The kernel has nothing for this that works everywhere: its limit on processes does not bind root, those on
//! memory and files hold for one process at a time, and cgroups are not ours to make without root or in a
//! container. So strata looks, several times a second, and kills all processes of a sandbox when together they
//! use too much. And they are the first whom the kernel takes when memory runs out before that, as in a container
//! that has less than the machine.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::StatVfs;
use rustix::process::{Pid, Signal};

/// How much a command and all processes it starts may use before they are killed.
///
/// The defaults are far above what the scripts of packages and an initramfs take, and low enough to leave
/// the machine alive.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// How long it may run: half an hour.
    pub time: Duration,
    /// Processes and threads at one time: 4096.
    pub processes: u64,
    /// Memory of its own, files in `/run` and `/dev/shm` included, in percent of the machine's: 50.
    pub memory: u64,
    /// Disk, in percent of the space and of the inodes that are free when it begins: 50.
    pub disk: u64,
    /// Standard output and error, in bytes: 100 MiB.
    pub output: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { time: Duration::from_secs(30 * 60), processes: 4096, memory: 50, disk: 50, output: 100 << 20 }
    }
}

/// The bound that was exceeded, as a sentence about the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Excess {
    /// [`Bounds::time`].
    Time(Duration),
    /// [`Bounds::processes`].
    Processes(u64),
    /// [`Bounds::memory`], in bytes.
    Memory(u64),
    /// [`Bounds::disk`], in percent of what was free where the file system has this path
    Disk(u64, PathBuf),
    /// [`Bounds::output`], in bytes.
    Output(u64),
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(bound) => write!(f, "it ran longer than {} s", bound.as_secs()),
            Self::Processes(bound) => write!(f, "it had more than {bound} processes"),
            Self::Memory(bound) => write!(f, "it took more than {} MiB of memory", bound >> 20),
            Self::Disk(bound, dir) => {
                write!(f, "it took more than {bound} % of what was free on the disk of {}", dir.display())
            }
            Self::Output(bound) => write!(f, "it wrote more than {} MiB of output", bound >> 20),
        }
    }
}

/// The watch over one running command.
pub struct Watch {
    bounds: Bounds,
    /// In bytes.
    memory: u64,
    began: Instant,
    looked: Instant,
    disks: Vec<Disk>,
}

/// A file system that the command can fill, and what it had free at first.
struct Disk {
    dir: PathBuf,
    at_first: StatVfs,
}

impl Watch {
    /// How often to look. In this time a script can start some hundred processes, and take some hundred MiB.
    const INTERVAL: Duration = Duration::from_millis(50);

    /// Begins the watch over a command that writes to the file systems of `dirs`.
    pub fn new<'a>(bounds: &Bounds, dirs: impl IntoIterator<Item = &'a Path>) -> Result<Self> {
        let disk = |dir: &Path| -> Result<Disk> {
            let context = || format!("asking how much is free at {}", dir.display());
            Ok(Disk { dir: dir.to_owned(), at_first: rustix::fs::statvfs(dir).with_context(context)? })
        };
        let machine = rustix::system::sysinfo();
        let memory = machine.totalram * u64::from(machine.mem_unit) / 100 * bounds.memory;
        let now = Instant::now();
        let disks = dirs.into_iter().map(disk).collect::<Result<_>>()?;
        Ok(Self { bounds: bounds.clone(), memory, began: now, looked: now, disks })
    }

    /// How long to wait until the next look.
    pub fn pause(&self) -> Duration {
        Self::INTERVAL.saturating_sub(self.looked.elapsed())
    }

    /// Looks, if it is time to, at the processes of which `init` is the first, and that have written `output`
    /// bytes.
    pub fn look(&mut self, init: Pid, output: u64) -> Result<Option<Excess>> {
        if !self.pause().is_zero() {
            return Ok(None);
        }
        let excess = self.excess(init, output);
        self.looked = Instant::now();
        excess
    }

    fn excess(&self, init: Pid, output: u64) -> Result<Option<Excess>> {
        let Bounds { time, processes, disk, output: most, .. } = self.bounds;
        if output > most {
            return Ok(Some(Excess::Output(most)));
        }
        if self.began.elapsed() > time {
            return Ok(Some(Excess::Time(time)));
        }
        for Disk { dir, at_first } in &self.disks {
            let now = rustix::fs::statvfs(dir).with_context(|| format!("looking at {}", dir.display()))?;
            let taken = |before: u64, now: u64| now < before.saturating_sub(before / 100 * disk);
            if taken(at_first.f_bavail, now.f_bavail) || taken(at_first.f_favail, now.f_favail) {
                return Ok(Some(Excess::Disk(disk, dir.clone())));
            }
        }
        let usage = Usage::of(init).context("looking at the processes in the sandbox")?;
        if usage.processes > processes {
            return Ok(Some(Excess::Processes(processes)));
        }
        Ok((usage.memory > self.memory).then_some(Excess::Memory(self.memory)))
    }
}

/// What the processes of a sandbox use.
#[derive(Debug, Default, PartialEq, Eq)]
struct Usage {
    /// Threads counted one by one.
    processes: u64,
    /// Bytes.
    memory: u64,
}

impl Usage {
    /// Of the sandbox whose first process is `init`.
    fn of(init: Pid) -> io::Result<Self> {
        let mut usage = Self::default();
        for process in processes(init)? {
            match fs::read_to_string(process.join("status")) {
                Ok(status) => usage.add(&status),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if usage.processes == 0 {
            return Ok(usage);
        }
        for dir in ["run", "dev"] {
            match rustix::fs::statvfs(root(init).join(dir)).map_err(io::Error::from) {
                Ok(tmpfs) => usage.memory += (tmpfs.f_blocks - tmpfs.f_bfree) * tmpfs.f_frsize,
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(usage)
    }

    /// Adds a process, by its `/proc/PID/status`. Files it has mapped are not its own.
    fn add(&mut self, status: &str) {
        for line in status.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let number = || value.trim().trim_end_matches(" kB").parse().unwrap_or(0);
            match key {
                "Threads" => self.processes += number(),
                "RssAnon" | "RssShmem" => self.memory += number() << 10,
                _ => {}
            }
        }
    }
}

/// Kills all processes of the sandbox whose first one is `init`.
///
/// All would end with that one, but it has to be given the processor for it, for which it may wait long among
/// thousands that go on. Those that are killed themselves start no more.
pub fn kill(init: Pid) -> io::Result<()> {
    for process in processes(init)? {
        let kill = |process: File| Ok(rustix::process::pidfd_send_signal(process, Signal::KILL)?);
        match File::open(process).and_then(kill) {
            Err(error) if !is_absent(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What the processes of a sandbox see as `/`.
fn root(init: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root", init.as_raw_nonzero()))
}

/// The directories of a sandbox's processes: its own `/proc` lists them all, and no other.
fn processes(init: Pid) -> io::Result<Vec<PathBuf>> {
    let proc = root(init).join("proc");
    let entries = match fs::read_dir(&proc) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()), // not mounted yet, or all has ended
        entries => entries?,
    };
    // Who reads this finds itself in the host's /proc only, which bwrap has at first.
    if fs::read_link(proc.join("self")).is_ok() {
        return Ok(Vec::new());
    }
    let is_process = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit();
    entries.filter(|entry| entry.as_ref().map_or(true, is_process)).map(|entry| Ok(entry?.path())).collect()
}

/// Whether there is no such file, or no such process any more.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_and_threads_count() {
        let mut usage = Usage::default();
        let status =
            "Name:\tsh\nRssAnon:\t     100 kB\nRssFile:\t    1700 kB\nRssShmem:\t       4 kB\nThreads:\t3\n";
        usage.add(status);
        usage.add("Name:\tRssAnon: 1 kB\nThreads:\t1\n"); // a zombie, which has no memory
        assert_eq!(usage, Usage { processes: 4, memory: 104 << 10 });
    }
}
