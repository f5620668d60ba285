//! `posix.*`, as rpm has it (rpm: `rpmio/lposix.c`): the functions that scriptlets call.
//!
//! Functions return 0 or a value; or nil, a message and errno. What depends on the machine is fixed:
//! directories are listed sorted, and `uname` names [`KERNEL`].

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mlua::{Either, Error, Function, IntoLua, Lua, MultiValue, Nil, Result, Table, Value, Variadic};
use rustix::fs::{Access, AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};

use super::{done, give, mode};
use crate::package::Arch;
use crate::sandbox::process::{Fork, fork, set_env};

/// The release of the running kernel that scripts are told, that of EL10: glibc asks whether it is new enough.
const KERNEL: &str = "6.12.0";

/// A user or group, by name or number.
type Id = Either<u32, String>;

/// Set in a process that [`fork`] made, which alone may exec and exit.
struct Forked;

/// The table `posix`.
pub fn library(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    let add = Adder { lua, table: &table };
    paths(&add)?;
    attributes(&add)?;
    accounts(&add)?;
    environment(&add)?;
    processes(&add)?;
    add.function("errno", |lua, ()| {
        let last = lua.app_data_ref::<super::Errno>().map_or_else(super::Errno::default, |errno| *errno);
        Ok((super::describe(&io::Error::from_raw_os_error(last.0)), f64::from(last.0)))
    })?;
    table.set("version", "posix library for Lua 5.4")?;
    Ok(table)
}

/// `os.exit`, which only a forked process may call.
pub fn exit(lua: &Lua) -> Result<Function> {
    let exit: Function = lua.globals().get::<Table>("os")?.get("exit")?;
    lua.create_function(move |lua, args: MultiValue| {
        forked(lua, "exit")?;
        exit.call::<()>(args)
    })
}

/// `redirect2null(fd)`: standard input, output or error of a forked process becomes /dev/null.
pub fn redirect2null(lua: &Lua) -> Result<Function> {
    lua.create_function(|lua, fd: i32| {
        forked(lua, "redirect2null")?;
        let null = File::options().read(true).write(true).open("/dev/null");
        let redirected = null.and_then(|null| match fd {
            0 => Ok(rustix::stdio::dup2_stdin(null)?),
            1 => Ok(rustix::stdio::dup2_stdout(null)?),
            2 => Ok(rustix::stdio::dup2_stderr(null)?),
            _ => Err(Errno::BADF.into()),
        });
        give(lua, None, redirected.map(|()| 0.0))
    })
}

fn forked(lua: &Lua, what: &str) -> Result<()> {
    match lua.app_data_ref::<Forked>() {
        Some(_) => Ok(()),
        None => Err(Error::runtime(format!("{what} not permitted in this context"))),
    }
}

struct Adder<'a> {
    lua: &'a Lua,
    table: &'a Table,
}

impl Adder<'_> {
    fn function<A, R>(&self, name: &str, f: impl Fn(&Lua, A) -> Result<R> + 'static) -> Result<()>
    where
        A: mlua::FromLuaMulti,
        R: mlua::IntoLuaMulti,
    {
        self.table.set(name, self.lua.create_function(f)?)
    }
}

fn paths(add: &Adder) -> Result<()> {
    add.function("mkdir", |lua, path: PathBuf| done(lua, &path, fs::create_dir(&path)))?;
    add.function("rmdir", |lua, path: PathBuf| done(lua, &path, fs::remove_dir(&path)))?;
    add.function("unlink", |lua, path: PathBuf| done(lua, &path, fs::remove_file(&path)))?;
    add.function("link", |lua, (old, new): (PathBuf, PathBuf)| done(lua, &new, fs::hard_link(&old, &new)))?;
    add.function("symlink", |lua, (target, path): (PathBuf, PathBuf)| {
        done(lua, &path, symlink(&target, &path))
    })?;
    add.function("readlink", |lua, path: PathBuf| give(lua, Some(&path), fs::read_link(&path)))?;
    add.function("mkfifo", |lua, path: PathBuf| {
        let mode = Mode::from_raw_mode(0o777);
        done(lua, &path, rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0))
    })?;
    add.function("chdir", |lua, path: PathBuf| done(lua, &path, std::env::set_current_dir(&path)))?;
    add.function("getcwd", |lua, ()| give(lua, None, std::env::current_dir()))?;
    add.function("dir", |lua, path: Option<PathBuf>| {
        let path = path.unwrap_or_else(|| ".".into());
        give(lua, Some(&path), names(&path))
    })?;
    add.function("files", |lua, path: Option<PathBuf>| {
        let path = path.unwrap_or_else(|| ".".into());
        let mut names = match names(&path) {
            Ok(names) => names.into_iter(),
            Err(error) => return give(lua, Some(&path), Err::<Value, _>(error)),
        };
        lua.create_function_mut(move |_, _: MultiValue| Ok(names.next()))?
            .into_lua(lua)
            .map(|f| MultiValue::from_iter([f]))
    })
}

/// What readdir(3) yields, sorted.
fn names(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = vec![".".into(), "..".into()];
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name());
    }
    names.sort();
    Ok(names)
}

fn attributes(add: &Adder) -> Result<()> {
    add.function("access", |lua, (path, wanted): (PathBuf, Option<String>)| {
        let mut access = Access::EXISTS;
        for c in wanted.unwrap_or_default().chars() {
            access |= match c {
                'r' => Access::READ_OK,
                'w' => Access::WRITE_OK,
                'x' => Access::EXEC_OK,
                'f' | ' ' => Access::EXISTS,
                _ => return Err(Error::runtime(format!("posix.access: unknown mode `{c}`"))),
            };
        }
        done(lua, &path, rustix::fs::access(&path, access))
    })?;
    add.function("stat", |lua, (path, field): (PathBuf, Option<String>)| {
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(error) => return give(lua, Some(&path), Err::<Value, _>(error)),
        };
        let selected = select(lua, stat(lua, &meta)?, field)?;
        give(lua, None, Ok::<_, io::Error>(selected))
    })?;
    add.function("chmod", |lua, (path, text): (PathBuf, String)| {
        let old = fs::metadata(&path).map_or(0, |meta| meta.mode() & 0o7777);
        let mode = mode::parse(&text, old).ok_or_else(|| Error::runtime("posix.chmod: bad mode"))?;
        done(lua, &path, rustix::fs::chmodat(CWD, &path, Mode::from_raw_mode(mode), AtFlags::empty()))
    })?;
    add.function("chown", |lua, (path, user, group): (PathBuf, Option<Id>, Option<Id>)| {
        // like rpm's, a name that nobody has changes nothing
        let uid = user.and_then(|id| number("/etc/passwd", id));
        let gid = group.and_then(|id| number("/etc/group", id));
        done(lua, &path, std::os::unix::fs::chown(&path, uid, gid))
    })?;
    add.function("utime", |lua, (path, mtime, atime): (PathBuf, Option<i64>, Option<i64>)| {
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let time = |seconds: Option<i64>| seconds.map_or(now, |tv_sec| Timespec { tv_sec, tv_nsec: 0 });
        let times = Timestamps { last_access: time(atime), last_modification: time(mtime) };
        done(lua, &path, rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()))
    })?;
    add.function("umask", |_, text: Option<String>| {
        let old = rustix::process::umask(Mode::empty());
        let permitted = !old.as_raw_mode() & 0o777;
        let new = text.map_or(Some(permitted), |text| mode::parse(&text, permitted));
        rustix::process::umask(new.map_or(old, |new| Mode::from_raw_mode(!new & 0o777)));
        Ok(new.map(|new| mode::text(new & 0o777)))
    })
}

fn stat(lua: &Lua, meta: &fs::Metadata) -> Result<Table> {
    let kind = match FileType::from_raw_mode(meta.mode()) {
        FileType::RegularFile => "regular",
        FileType::Symlink => "link",
        FileType::Directory => "directory",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::Unknown => "?",
    };
    let table = lua.create_table()?;
    table.set("type", kind)?;
    table.set("mode", mode::text(meta.mode()))?;
    for (name, value) in [
        ("_mode", f64::from(meta.mode())),
        ("ino", meta.ino() as f64),
        ("dev", meta.dev() as f64),
        ("nlink", meta.nlink() as f64),
        ("uid", f64::from(meta.uid())),
        ("gid", f64::from(meta.gid())),
        ("size", meta.size() as f64),
        ("atime", meta.atime() as f64),
        ("mtime", meta.mtime() as f64),
        ("ctime", meta.ctime() as f64),
    ] {
        table.set(name, value)?;
    }
    Ok(table)
}

/// A whole table, or one field of it.
fn select(lua: &Lua, table: Table, field: Option<String>) -> Result<Value> {
    let Some(field) = field else { return table.into_lua(lua) };
    match table.get(field.as_str())? {
        Nil => Err(Error::runtime(format!("invalid option '{field}'"))),
        value => Ok(value),
    }
}

fn accounts(add: &Adder) -> Result<()> {
    add.function("getpasswd", |lua, (id, field): (Option<Id>, Option<String>)| {
        let Some(fields) = account("/etc/passwd", id.unwrap_or(Either::Left(0))) else { return Ok(Nil) };
        let table = lua.create_table()?;
        for (name, value) in ["name", "passwd", "uid", "gid", "gecos", "dir", "shell"].into_iter().zip(fields)
        {
            match value.parse::<u32>() {
                Ok(id) if name.ends_with("id") => table.set(name, f64::from(id))?,
                _ => table.set(name, value)?,
            }
        }
        select(lua, table, field)
    })?;
    add.function("getgroup", |lua, id: Option<Id>| {
        let Some(fields) = account("/etc/group", id.unwrap_or(Either::Left(0))) else { return Ok(Nil) };
        let [name, _, gid, members] = fields.as_slice() else { return Ok(Nil) };
        let table = lua.create_table()?;
        table.set("name", name.as_str())?;
        table.set("gid", gid.parse::<f64>().ok())?;
        for member in members.split(',').filter(|member| !member.is_empty()) {
            table.push(member)?;
        }
        table.into_lua(lua)
    })
}

/// The fields of a line of /etc/passwd or /etc/group. Read directly: the C library would load NSS modules,
/// which need not be there yet, nor fit this process.
fn account(file: &str, id: Id) -> Option<Vec<String>> {
    let text = fs::read_to_string(file).ok()?;
    let (at, wanted) = match id {
        Either::Left(number) => (2, number.to_string()),
        Either::Right(name) => (0, name),
    };
    let line = text.lines().find(|line| line.split(':').nth(at) == Some(&wanted))?;
    Some(line.split(':').map(str::to_owned).collect())
}

fn number(file: &str, id: Id) -> Option<u32> {
    match id {
        Either::Left(number) => Some(number),
        Either::Right(_) => account(file, id)?.get(2)?.parse().ok(),
    }
}

fn environment(add: &Adder) -> Result<()> {
    add.function("getenv", |lua, name: Option<OsString>| match name {
        Some(name) => std::env::var_os(name).into_lua(lua),
        None => lua.create_table_from(std::env::vars_os())?.into_lua(lua),
    })?;
    add.function("setenv", |lua, (name, value, overwrite): (OsString, OsString, Option<bool>)| {
        let keep = overwrite == Some(false) && std::env::var_os(&name).is_some();
        let set = if keep { Ok(()) } else { set_env(&name, Some(&value)) };
        done(lua, Path::new(&name), set)
    })?;
    add.function("putenv", |lua, text: OsString| {
        let bytes = text.as_bytes();
        let at = bytes.iter().position(|b| *b == b'=').unwrap_or(bytes.len());
        let part = |bytes| std::ffi::OsStr::from_bytes(bytes);
        done(lua, Path::new(&text), set_env(part(&bytes[..at]), bytes.get(at + 1..).map(part)))
    })?;
    // the one that returns nothing
    add.function("unsetenv", |_, name: OsString| set_env(&name, None).map_err(Error::external))?;
    add.function("uname", |lua, format: Option<String>| {
        let machine = Arch::host().map_or(std::env::consts::ARCH, Arch::rpm);
        let mut out = String::new();
        let mut chars = format.as_deref().unwrap_or("%s %n %r %v %m").chars();
        while let Some(c) = chars.next() {
            match if c == '%' { chars.next() } else { None } {
                None => out.push(c),
                Some('%') => out.push('%'),
                Some('m') => out.push_str(machine),
                Some('n') => out.push_str("localhost"),
                Some('r') => out.push_str(KERNEL),
                Some('s') => out.push_str("Linux"),
                Some('v') => out.push_str("#1 SMP"),
                Some(c) => return Err(Error::runtime(format!("posix.uname: unknown format option `{c}`"))),
            }
        }
        out.into_lua(lua)
    })
}

fn processes(add: &Adder) -> Result<()> {
    add.function("fork", |lua, ()| match fork() {
        Ok(Fork::Child) => {
            lua.set_app_data(Forked);
            give(lua, None, Ok::<_, io::Error>(0.0))
        }
        Ok(Fork::Parent(child)) => give(lua, None, Ok::<_, io::Error>(float(child))),
        Err(error) => give(lua, None, Err::<Value, _>(error)),
    })?;
    add.function("exec", |lua, (program, args): (PathBuf, Variadic<OsString>)| {
        forked(lua, "exec")?;
        // returns only if it failed
        let error = Command::new(&program).args(args.iter()).exec();
        give(lua, Some(&program), Err::<Value, _>(error))
    })?;
    add.function("wait", |lua, pid: Option<i32>| {
        let pid = pid.and_then(one_process);
        let ended = rustix::process::waitpid(pid, WaitOptions::empty());
        give(lua, None, ended.map(|ended| ended.map_or(0.0, |(pid, _)| float(pid))))
    })?;
    add.function("kill", |lua, (pid, signal): (i32, Option<i32>)| {
        let pid = one_process(pid).ok_or(Errno::INVAL);
        let signal = Signal::from_named_raw(signal.unwrap_or(Signal::TERM.as_raw())).ok_or(Errno::INVAL);
        let killed = pid.and_then(|pid| rustix::process::kill_process(pid, signal?));
        give(lua, None, killed.map(|()| 0.0))
    })?;
    add.function("getprocessid", |lua, field: Option<String>| {
        let table = lua.create_table()?;
        for (name, value) in [
            ("uid", rustix::process::getuid().as_raw().into()),
            ("euid", rustix::process::geteuid().as_raw().into()),
            ("gid", rustix::process::getgid().as_raw().into()),
            ("egid", rustix::process::getegid().as_raw().into()),
            ("pid", float(rustix::process::getpid())),
            ("ppid", f64::from(Pid::as_raw(rustix::process::getppid()))),
            ("pgrp", float(rustix::process::getpgrp())),
        ] {
            table.set(name, value)?;
        }
        select(lua, table, field)
    })?;
    add.function("setuid", |lua, id: Id| {
        let uid = number("/etc/passwd", id).map(Uid::from_raw).ok_or(Errno::INVAL);
        give(lua, None, uid.and_then(rustix::thread::set_thread_uid).map(|()| 0.0))
    })?;
    add.function("setgid", |lua, id: Id| {
        let gid = number("/etc/group", id).map(Gid::from_raw).ok_or(Errno::INVAL);
        give(lua, None, gid.and_then(rustix::thread::set_thread_gid).map(|()| 0.0))
    })?;
    add.function("sleep", |_, seconds: u64| {
        std::thread::sleep(Duration::from_secs(seconds));
        Ok(0.0)
    })?;
    add.table.set("redirect2null", redirect2null(add.lua)?)
}

fn float(pid: Pid) -> f64 {
    pid.as_raw_nonzero().get().into()
}

/// 0 and negative numbers mean several processes to wait(2) and kill(2).
fn one_process(pid: i32) -> Option<Pid> {
    if pid > 0 { Pid::from_raw(pid) } else { None }
}
