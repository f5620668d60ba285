//! `rpm.*`, as rpm has it (rpm: `rpmio/rpmlua.c`): the functions that scriptlets call.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use mlua::{Error, Lua, MultiValue, Result, Table, Value, Variadic};

use super::{give, posix};
use crate::install::macros::Macros;
use crate::package::Evr;
use crate::rootfs::Rootfs;

/// The table `rpm`.
pub fn library(lua: &Lua, macros: Macros) -> Result<Table> {
    let table = lua.create_table()?;
    expansions(lua, &table, macros)?;
    table.set("execute", lua.create_function(execute)?)?;
    table.set("spawn", lua.create_function(spawn)?)?;
    table.set("redirect2null", posix::redirect2null(lua)?)?;
    let vercmp = |_: &Lua, (a, b): (String, String)| {
        let parse = |text: String| text.parse::<Evr>().map_err(Error::external);
        Ok(parse(a)?.rpm_cmp(&parse(b)?) as i8)
    };
    table.set("vercmp", lua.create_function(vercmp)?)?;
    // the next of the files that a file trigger is told
    let next_file = |_: &Lua, ()| io::stdin().lines().next().transpose().map_err(Error::external);
    table.set("next_file", lua.create_function(next_file)?)?;
    table.set("glob", lua.create_function(glob)?)?;
    Ok(table)
}

fn expansions(lua: &Lua, table: &Table, macros: Macros) -> Result<()> {
    let macros = Rc::new(RefCell::new(macros));
    let shared = macros.clone();
    let expand = move |_: &Lua, text: String| {
        shared.borrow().expand(&text).map_err(|error| Error::runtime(format!("rpm.expand: {error:#}")))
    };
    table.set("expand", lua.create_function(expand)?)?;
    let shared = macros.clone();
    let define = move |_: &Lua, text: String| {
        let (name, value) = text.split_once(char::is_whitespace).unwrap_or((&text, ""));
        shared.borrow_mut().define(name, value.trim_start());
        Ok(())
    };
    table.set("define", lua.create_function(define)?)?;
    let shared = macros.clone();
    table.set(
        "isdefined",
        lua.create_function(move |_, name: String| Ok(shared.borrow().get(&name).is_some()))?,
    )?;
    let undefine = move |_: &Lua, name: String| {
        macros.borrow_mut().undefine(&name);
        Ok(())
    };
    table.set("undefine", lua.create_function(undefine)?)
}

/// `rpm.execute(program, ...)`: 0; or nil, a message and wait(2)'s status or errno.
fn execute(lua: &Lua, (program, args): (PathBuf, Variadic<OsString>)) -> Result<MultiValue> {
    let status = Command::new(&program).args(args.iter()).status();
    match status.map(|status| status.into_raw()) {
        Ok(0) => give(lua, None, Ok::<_, io::Error>(0.0)),
        Ok(status) => give(lua, None, Err::<Value, _>(io::Error::from_raw_os_error(status))),
        Err(error) => give(lua, Some(&program), Err::<Value, _>(error)),
    }
}

/// `rpm.spawn({program, ...}, {stdin=PATH, stdout=PATH, stderr=PATH})`: 0; or nil, `exit code` or `exit signal`,
/// and which.
fn spawn(lua: &Lua, (argv, redirections): (Vec<OsString>, Option<Table>)) -> Result<MultiValue> {
    let Some((program, args)) = argv.split_first() else {
        return Err(Error::runtime("rpm.spawn: no command"));
    };
    let mut command = Command::new(program);
    command.args(args);
    for pair in redirections.iter().flat_map(|table| table.pairs::<String, PathBuf>()) {
        let (name, path) = pair?;
        let open = |options: &mut std::fs::OpenOptions| {
            options.open(&path).map(Stdio::from).map_err(Error::external)
        };
        match name.as_str() {
            "stdin" => command.stdin(open(File::options().read(true))?),
            "stdout" => command.stdout(open(File::options().append(true).create(true))?),
            "stderr" => command.stderr(open(File::options().append(true).create(true))?),
            _ => return Err(Error::runtime(format!("rpm.spawn: unknown action '{name}'"))),
        };
    }
    let status = match command.status() {
        Ok(status) => status,
        Err(error) => return give(lua, Some(Path::new(program)), Err::<Value, _>(error)),
    };
    let values = match (status.code(), status.signal()) {
        (Some(0), _) => return give(lua, None, Ok::<_, io::Error>(0)),
        (Some(code), _) => ("exit code", code),
        (None, signal) => ("exit signal", signal.unwrap_or_default()),
    };
    mlua::IntoLuaMulti::into_lua_multi((Value::Nil, values.0, values.1), lua)
}

/// `rpm.glob(pattern, [flags])`: the paths that match, or with the flag `c` the pattern if none does.
fn glob(_: &Lua, (pattern, flags): (String, Option<String>)) -> Result<Vec<String>> {
    let rootfs = Rootfs::open(Path::new("/")).map_err(|e| Error::runtime(format!("rpm.glob: {e:#}")))?;
    let found = rootfs.glob(&pattern).map_err(|e| Error::runtime(format!("rpm.glob: {e:#}")))?;
    let keep = found.is_empty() && flags.is_some_and(|flags| flags.contains('c'));
    Ok(if keep { vec![pattern] } else { found })
}
