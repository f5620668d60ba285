//! Namespaces and bubblewrap: the only place where foreign code runs.

mod bounds;
mod namespace;
mod overlay;
pub(crate) mod process;
mod start;
mod terminal;

use std::fs::{self, Permissions};
use std::io::{self, IsTerminal, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tempfile::TempDir;

use self::bounds::{Excess, Watch};
use self::start::{Init, Start};
use self::terminal::Terminal;
use crate::error::{HintExt, hinted};

pub use bounds::Bounds;
pub use namespace::enter_namespace;
pub use overlay::{mount_overlay, unmount};

/// A rootfs in which commands run: no network, nothing of the host.
///
/// A command is root, as far as files go, of the namespace strata is in. It sees the rootfs, writable, as `/`, a
/// fresh `/proc`, a minimal `/dev`, and `/run`, `/tmp` and `/var/tmp` that are empty and forgotten
/// afterwards. The umask is strata's own: 022 after [`enter_namespace`], which also shields the files of the host
/// that can be reached inside.
///
/// When its first process ends all others are killed, and so are all when they exceed a command's [`Bounds`].
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The rootfs.
    pub rootfs: PathBuf,
    /// [`SOURCE_DATE_EPOCH`] in the environment, UTC seconds.
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
    /// Files of the host that are seen inside, read-only: the host's path, and the one inside (below `/run`).
    pub files: Vec<(PathBuf, String)>,
    /// What it may use.
    pub bounds: Bounds,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit status; 128 + signal number when killed; 127 when the program is missing, 126 when it can't be
    /// executed.
    pub status: i32,
    /// The end of what it wrote to standard output and error, at most 64 KiB.
    pub output: String,
    /// How long it took.
    pub duration: Duration,
}

/// How much of a command's output is kept, in bytes.
const OUTPUT_KEPT: usize = 64 * 1024;

/// The variable that dates what commands make (reproducible-builds.org).
pub const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Where the script is inside.
pub const SCRIPT: &str = "/run/strata/script";

/// The environment of every command; `PATH` is rpm's `%_install_script_path`.
const ENV: [(&str, &str); 4] = [
    ("PATH", "/sbin:/bin:/usr/sbin:/usr/bin"),
    ("HOME", "/"),
    ("LANG", "C.UTF-8"),
    // systemctl and its friends change files only, and do not look for a running systemd
    ("SYSTEMD_OFFLINE", "1"),
];

/// What a command may do: those of all capabilities that changing files needs, rpm-ostree's list.
///
/// Not all of them: when root runs strata, root inside is root to the kernel, whose settings below `/proc` it
/// may write. They are mounted read-only, and stay so for want of `CAP_SYS_ADMIN`.
const CAPABILITIES: [&str; 10] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The kernel's FIPS switch, which some scripts copy into configuration.
const FIPS: &str = "/proc/sys/crypto/fips_enabled";

impl Sandbox {
    /// Runs `command` and waits. An error means that the sandbox itself could not be made, or that the command
    /// was killed for exceeding its bounds.
    pub fn run(&self, command: &Command) -> Result<Outcome> {
        self.run_showing(command, &mut io::sink())
    }

    /// Runs `command` as [`Sandbox::run`] does, and passes all that it writes on to `show` as it comes.
    pub fn run_showing(&self, command: &Command, show: &mut dyn Write) -> Result<Outcome> {
        let started = Instant::now();
        let mut start = Start::new()?;
        start.bwrap.arg("--new-session");
        let (status, output) = self.around(command, start, |start, scratch| {
            let watch = Watch::new(&command.bounds, [self.rootfs.as_path(), scratch])?;
            wait(start, &command.stdin, show, watch)
        })?;
        Ok(Outcome { status: judge(status, &output)?, output, duration: started.elapsed() })
    }

    /// Runs `command`, to which the user talks, without bounds: on a terminal of its own if standard input is one,
    /// else it shares strata's standard input and output. Gives its exit status.
    pub fn interact(&self, command: &Command) -> Result<i32> {
        let mut start = Start::new()?;
        let terminal = if io::stdin().is_terminal() {
            Some(Terminal::new(&mut start.bwrap).context("making a terminal")?)
        } else {
            start.bwrap.arg("--new-session");
            None
        };
        self.around(command, start, |start, _| interact(start, terminal))
    }

    /// Makes the sandbox around a command, which `run` runs, and takes it apart again. `run` gets the directory of what
    /// is forgotten afterwards.
    fn around<T>(
        &self,
        command: &Command,
        mut start: Start,
        run: impl FnOnce(Start, &Path) -> Result<T>,
    ) -> Result<T> {
        let scratch =
            tempfile::Builder::new().prefix("strata-").tempdir().context("making a scratch directory")?;
        let points = MountPoints::make(&self.rootfs)?;
        let described = self.describe(&mut start.bwrap, command, &points, &scratch);
        let ended = described.and_then(|()| run(start, scratch.path()));
        points.remove()?;
        scratch.close().context("removing a scratch directory")?;
        ended
    }

    /// Tells bwrap what the sandbox is like, and what runs in it.
    fn describe(
        &self,
        bwrap: &mut std::process::Command,
        command: &Command,
        points: &MountPoints,
        scratch: &TempDir,
    ) -> Result<()> {
        // no --unshare-user: a user namespace of bwrap's has one id only
        bwrap.args([
            "--unshare-ipc",
            "--unshare-pid",
            "--unshare-net",
            "--unshare-uts",
            "--unshare-cgroup-try",
        ]);
        bwrap.args(["--hostname", "localhost", "--die-with-parent", "--cap-drop", "ALL"]);
        bwrap.args(CAPABILITIES.iter().flat_map(|capability| ["--cap-add", capability]));
        bwrap.arg("--bind").arg(&self.rootfs).arg("/");
        bwrap.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run", "--chdir", "/"]);
        for name in &points.scratch {
            let dir = scratch.path().join(name.replace('/', "-"));
            fs::create_dir(&dir)
                .and_then(|()| fs::set_permissions(&dir, Permissions::from_mode(0o1777)))
                .with_context(|| format!("making {}", dir.display()))?;
            bwrap.arg("--bind").arg(dir).arg(format!("/{name}"));
        }
        if fs::read(FIPS).is_ok_and(|value| value.trim_ascii() != b"0") {
            let zero = put(scratch, "fips_enabled", "0\n")?;
            bwrap.arg("--ro-bind").arg(zero).arg(FIPS);
        }
        bwrap.args(["--remount-ro", "/proc"]);
        for (host, inside) in &command.files {
            bwrap.arg("--ro-bind").arg(host).arg(inside);
        }
        let mut argv = command.argv.clone();
        if let Some((index, text)) = &command.script {
            bwrap.arg("--ro-bind").arg(put(scratch, "script", text)?).arg(SCRIPT);
            argv.insert(*index, SCRIPT.to_owned());
        }
        for (name, value) in ENV {
            bwrap.args(["--setenv", name, value]);
        }
        bwrap.args(["--setenv", SOURCE_DATE_EPOCH, &self.epoch.to_string()]);
        for (name, value) in &command.env {
            bwrap.args(["--setenv", name, value]);
        }
        bwrap.arg("--").args(argv);
        Ok(())
    }
}

fn put(scratch: &TempDir, name: &str, text: &str) -> Result<PathBuf> {
    let path = scratch.path().join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Runs bwrap with `input` until nothing of what it started is left; its exit status and the end of its output, all
/// of which goes to `show`.
fn wait(mut start: Start, input: &[u8], show: &mut dyn Write, watch: Watch) -> Result<(i32, String)> {
    let (reader, writer) = io::pipe().context("making a pipe")?;
    start.bwrap.stdin(Stdio::piped());
    start.bwrap.stdout(writer.try_clone().context("making a pipe")?).stderr(writer);
    let (mut child, init) = start.spawn()?;
    let stdin = child.stdin.take();
    let (output, excess) = std::thread::scope(|scope| {
        if let Some(mut stdin) = stdin.filter(|_| !input.is_empty()) {
            // a command that does not read its input is not in error
            scope.spawn(move || drop(stdin.write_all(input)));
        }
        let mut output = Tail::new(reader, show);
        let excess = match &init {
            Some(init) => init.attend(&mut output, watch)?,
            None => None,
        };
        while output.read().context("reading a command's output")? {}
        anyhow::Ok((output, excess))
    })?;
    let status = child.wait().context("waiting for bwrap")?;
    let output = output.text();
    match excess {
        Some(excess) => Err(exceeded(&excess, &output)),
        None => Ok((code(status), output)),
    }
}

/// Runs bwrap for a user who talks to it, until nothing of what it started is left; its exit status.
fn interact(start: Start, terminal: Option<Terminal>) -> Result<i32> {
    let (mut child, init) = start.spawn()?;
    terminal.map_or(Ok(()), Terminal::relay).context("talking to a command in the sandbox")?;
    let status = child.wait().context("waiting for bwrap")?;
    init.map_or(Ok(()), |init| init.gone())?;
    Ok(code(status))
}

/// An exit status as shells have it.
fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1)
}

/// The error of a command that was killed for what it used.
fn exceeded(excess: &Excess, output: &str) -> anyhow::Error {
    let message = format!("killed, because {excess}");
    let said = last_lines(output);
    let error = if said.is_empty() { anyhow!("it wrote nothing") } else { anyhow!(said) };
    let advice = match excess {
        Excess::Disk(..) => "if other programs fill this disk: make room; else look for an endless loop",
        _ => "look for an endless loop in it",
    };
    Err::<(), _>(error).hint(message, advice).expect_err("made of an error")
}

/// The last lines of a command's output, without the control characters that would act on a terminal.
pub fn last_lines(output: &str) -> String {
    const LINES: usize = 20;
    const LENGTH: usize = 400;
    let lines: Vec<&str> = output.lines().collect();
    let shown = lines[lines.len().saturating_sub(LINES)..].iter().map(|line| {
        let skipped = line.chars().count().saturating_sub(LENGTH);
        let harmless = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
        line.chars().skip(skipped).map(harmless).collect::<String>()
    });
    shown.collect::<Vec<_>>().join("\n")
}

impl Init {
    /// Reads `output` and keeps `watch` until this process has ended, by itself or because a bound was exceeded.
    ///
    /// bwrap does not wait for it: it leaves when the command has ended, and the kernel then kills this
    /// process, which ends when it has killed and buried all others (pid_namespaces(7)). A daemon that a
    /// scriptlet started could change the rootfs until then.
    fn attend(&self, output: &mut Tail<'_, PipeReader>, mut watch: Watch) -> Result<Option<Excess>> {
        let mut excess = None;
        let mut open = true;
        loop {
            let (ended, written) = self.poll(open.then_some(&output.from), watch.pause())?;
            if ended {
                return Ok(excess);
            }
            if written {
                open = output.read().context("reading a command's output")?;
            }
            if let Some(found) = watch.look(self.pid, output.length)? {
                self.kill().context("killing a command in the sandbox")?;
                excess.get_or_insert(found);
            }
        }
    }
}

/// The end of what a pipe gives: its last [`OUTPUT_KEPT`] bytes.
struct Tail<'a, R> {
    from: R,
    /// Who gets all of it.
    show: &'a mut dyn Write,
    /// Of all that was read, in bytes.
    length: u64,
    kept: Vec<u8>,
}

impl<'a, R: Read> Tail<'a, R> {
    fn new(from: R, show: &'a mut dyn Write) -> Self {
        Self { from, show, length: 0, kept: Vec::new() }
    }

    /// Reads what is there, or waits for it; false at the end.
    fn read(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 8192];
        let n = loop {
            match self.from.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        // who looks on may leave
        let _ = self.show.write_all(&chunk[..n]).and_then(|()| self.show.flush());
        self.length += n as u64;
        self.kept.extend_from_slice(&chunk[..n]);
        if self.kept.len() > 2 * OUTPUT_KEPT {
            self.kept.drain(..self.kept.len() - OUTPUT_KEPT);
        }
        Ok(n > 0)
    }

    fn text(&self) -> String {
        let start = self.kept.len().saturating_sub(OUTPUT_KEPT);
        String::from_utf8_lossy(&self.kept[start..]).into_owned()
    }
}

/// The status of the command, told apart from bwrap's own failures: those are status 1 and a line of its own.
fn judge(status: i32, output: &str) -> Result<i32> {
    let own = output.strip_prefix("bwrap: ").filter(|_| status == 1);
    let Some(complaint) = own.map(str::trim_end) else { return Ok(status) };
    if complaint.starts_with("execvp ") {
        return Ok(if complaint.ends_with("No such file or directory") { 127 } else { 126 });
    }
    Err(hinted(
        format!("making a sandbox: bwrap: {complaint}"),
        "in a container, bubblewrap needs an unmasked /proc (podman --security-opt unmask=ALL, \
         procMount: Unmasked in a pod) and a seccomp profile that allows mounts",
    ))
}

/// The directories on which bwrap mounts, made where they are missing and removed again.
///
/// bwrap would make them too, but through symbolic links that a package may have put there, and leave them.
struct MountPoints<'a> {
    rootfs: &'a Path,
    root: OwnedFd,
    /// Those of [`SCRATCH`] that exist now; a symbolic link leads to another one, or nowhere.
    scratch: Vec<&'static str>,
    /// Those that were missing, parents first.
    made: Vec<&'static str>,
}

const REQUIRED: [&str; 3] = ["proc", "dev", "run"];
const SCRATCH: [&str; 2] = ["tmp", "var/tmp"];

impl<'a> MountPoints<'a> {
    fn make(rootfs: &'a Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(rootfs, flags, Mode::empty())
            .with_context(|| format!("opening rootfs {}", rootfs.display()))?;
        let mut points = Self { rootfs, root, scratch: Vec::new(), made: Vec::new() };
        for name in REQUIRED {
            let context = || format!("/{name} in {} must be a directory, to mount on", rootfs.display());
            points.ensure(name).with_context(context)?;
        }
        for name in ["var"].into_iter().chain(SCRATCH) {
            match points.ensure(name) {
                Ok(()) if SCRATCH.contains(&name) => points.scratch.push(name),
                Ok(()) | Err(Errno::LOOP | Errno::NOTDIR) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("making /{name} in {}", rootfs.display()));
                }
            }
        }
        Ok(points)
    }

    /// Makes the directory `name` if it is missing. `LOOP`: there is a symbolic link on the way.
    fn ensure(&mut self, name: &'static str) -> rustix::io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&self.root, name, flags, Mode::empty(), resolve) {
            Err(Errno::NOENT) => {}
            found => return found.map(drop),
        }
        rustix::fs::mkdirat(&self.root, name, Mode::from_raw_mode(0o755))?;
        self.made.push(name);
        Ok(())
    }

    /// Removes those that were missing before, unless the command filled them.
    fn remove(self) -> Result<()> {
        for name in self.made.iter().rev() {
            match rustix::fs::unlinkat(&self.root, *name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("removing /{name} from {}", self.rootfs.display()));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_keeps_its_end() {
        let tail = |bytes: &[u8]| {
            let mut show = Vec::new();
            let mut tail = Tail::new(bytes, &mut show);
            while tail.read().unwrap() {}
            assert_eq!(tail.length, bytes.len() as u64);
            let text = tail.text();
            assert_eq!(show, bytes);
            text
        };
        let long: String = (0..40_000).map(|n| format!("{n:06}\n")).collect();
        let kept = tail(long.as_bytes());
        assert_eq!(kept.len(), OUTPUT_KEPT);
        assert!(long.ends_with(&kept));
        assert_eq!(tail(b"a\xffb"), "a\u{fffd}b");
    }

    #[test]
    fn failures_of_bwrap_are_not_the_commands() {
        assert_eq!(judge(1, "sh: nope\n").unwrap(), 1);
        assert_eq!(judge(3, "bwrap: said a script\n").unwrap(), 3);
        assert_eq!(judge(1, "bwrap: execvp /bin/sh: No such file or directory\n").unwrap(), 127);
        assert_eq!(judge(1, "bwrap: execvp /etc: Permission denied\n").unwrap(), 126);
        assert!(judge(1, "bwrap: Can't mount proc on /newroot/proc: Operation not permitted\n").is_err());
    }

    #[test]
    fn mount_points_leave_no_trace() {
        let rootfs = tempfile::tempdir().unwrap();
        fs::create_dir_all(rootfs.path().join("run")).unwrap();
        let points = MountPoints::make(rootfs.path()).unwrap();
        assert_eq!(points.scratch, ["tmp", "var/tmp"]);
        assert!(rootfs.path().join("var/tmp").is_dir());
        points.remove().unwrap();
        let left: Vec<_> = fs::read_dir(rootfs.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["run"]);
    }

    #[test]
    fn mount_points_do_not_follow_links_out() {
        let outside = tempfile::tempdir().unwrap();
        let rootfs = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), rootfs.path().join("var")).unwrap();
        let points = MountPoints::make(rootfs.path()).unwrap();
        assert_eq!(points.scratch, ["tmp"]);
        points.remove().unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);

        std::os::unix::fs::symlink(outside.path(), rootfs.path().join("dev")).unwrap();
        assert!(MountPoints::make(rootfs.path()).is_err());
    }
}
