//! `rpm.*`, as rpm has it (rpm: `rpmio/rpmlua.c`): the functions that scriptlets call.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use mlua::{
    Error, Lua, LuaString, MetaMethod, MultiValue, Result, Table, UserData, UserDataFields, UserDataMethods,
    UserDataRef, Value, Variadic,
};

use super::{give, posix};
use crate::install::macros::Macros;
use crate::package::Evr;
use crate::rootfs::Rootfs;

/// Makes the globals `rpm` and `macros`.
pub fn install(lua: &Lua, macros: Macros) -> Result<()> {
    let table = lua.create_table()?;
    expansions(lua, &table, macros)?;
    table.set("execute", lua.create_function(execute)?)?;
    table.set("spawn", lua.create_function(spawn)?)?;
    table.set("redirect2null", posix::redirect2null(lua)?)?;
    table.set("ver", lua.create_function(Version::make)?)?;
    let vercmp = |_: &Lua, (a, b): (String, String)| Ok(Version::parse(&a)?.cmp(&Version::parse(&b)?) as i8);
    table.set("vercmp", lua.create_function(vercmp)?)?;
    // the next of the files that a file trigger is told
    let next_file = |_: &Lua, ()| io::stdin().lines().next().transpose().map_err(Error::external);
    table.set("next_file", lua.create_function(next_file)?)?;
    table.set("glob", lua.create_function(glob)?)?;
    table.set("b64encode", lua.create_function(b64encode)?)?;
    table.set("b64decode", lua.create_function(b64decode)?)?;
    lua.globals().set("rpm", table)
}

/// `rpm.expand` and its like, and the global `macros`, which reads and defines macros by name.
fn expansions(lua: &Lua, table: &Table, macros: Macros) -> Result<()> {
    let macros = Rc::new(RefCell::new(macros));
    let failed = |error| Error::runtime(format!("rpm.expand: {error:#}"));
    let shared = macros.clone();
    let expand = move |_: &Lua, text: String| shared.borrow().expand(&text).map_err(failed);
    table.set("expand", lua.create_function(expand)?)?;
    let shared = macros.clone();
    let define = move |_: &Lua, text: String| {
        let (name, value) = text.split_once(char::is_whitespace).unwrap_or((&text, ""));
        shared.borrow_mut().define(name, value.trim_start());
        Ok(())
    };
    table.set("define", lua.create_function(define)?)?;
    let shared = macros.clone();
    // and whether it takes arguments, which none of ours does
    let isdefined = move |_: &Lua, name: String| Ok((shared.borrow().get(&name).is_some(), false));
    table.set("isdefined", lua.create_function(isdefined)?)?;
    let shared = macros.clone();
    let undefine = move |_: &Lua, name: String| {
        shared.borrow_mut().undefine(&name);
        Ok(())
    };
    table.set("undefine", lua.create_function(undefine)?)?;
    let shared = macros.clone();
    let read = move |_: &Lua, (_, name): (Value, String)| {
        let macros = shared.borrow();
        macros.get(&name).map(|value| macros.expand(value)).transpose().map_err(failed)
    };
    let write = move |_: &Lua, (_, name, value): (Value, String, String)| {
        macros.borrow_mut().define(&name, &value);
        Ok(())
    };
    let by_name = lua.create_table()?;
    by_name.set("__index", lua.create_function(read)?)?;
    by_name.set("__newindex", lua.create_function(write)?)?;
    let names = lua.create_table()?;
    names.set_metatable(Some(by_name))?;
    lua.globals().set("macros", names)
}

/// What `rpm.ver` makes: an EVR of which parts may be missing.
struct Version {
    epoch: Option<String>,
    evr: Evr,
}

impl Version {
    /// `rpm.ver(EVR)` or `rpm.ver(epoch, version, release)`.
    fn make(_: &Lua, parts: Variadic<Option<String>>) -> Result<Self> {
        let part = |n: usize| parts[n].as_deref().filter(|part| !part.is_empty());
        match parts.len() {
            1 => Self::parse(part(0).unwrap_or_default()),
            3 => {
                let epoch = part(0).map(|epoch| format!("{epoch}:")).unwrap_or_default();
                let release = part(2).map(|release| format!("-{release}")).unwrap_or_default();
                Self::parse(&format!("{epoch}{}{release}", part(1).unwrap_or_default()))
            }
            n => Err(Error::runtime(format!("invalid number of arguments: {n}"))),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let evr = text.parse::<Evr>().map_err(Error::external)?;
        Ok(Self { epoch: text.split_once(':').map(|(epoch, _)| epoch.to_owned()), evr })
    }

    fn cmp(&self, other: &Self) -> Ordering {
        self.evr.rpm_cmp(&other.evr)
    }
}

impl UserData for Version {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_field_method_get("e", |_, this| Ok(this.epoch.clone()));
        fields.add_field_method_get("v", |_, this| Ok(this.evr.version.clone()));
        fields.add_field_method_get("r", |_, this| {
            Ok(Some(this.evr.release.clone()).filter(|release| !release.is_empty()))
        });
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| {
            let epoch = this.epoch.as_ref().map(|epoch| format!("{epoch}:")).unwrap_or_default();
            Ok(format!("{epoch}{}", Evr { epoch: 0, ..this.evr.clone() }))
        });
        methods.add_meta_method(MetaMethod::Eq, |_, this, other: UserDataRef<Self>| {
            Ok(this.cmp(&other).is_eq())
        });
        methods.add_meta_method(MetaMethod::Lt, |_, this, other: UserDataRef<Self>| {
            Ok(this.cmp(&other).is_lt())
        });
        methods.add_meta_method(MetaMethod::Le, |_, this, other: UserDataRef<Self>| {
            Ok(this.cmp(&other).is_le())
        });
    }
}

/// `rpm.b64encode(data, [length of lines])`: lines of 64 characters by default, one without end if 0 is asked for.
fn b64encode(lua: &Lua, (data, length): (LuaString, Option<i64>)) -> Result<LuaString> {
    let text = BASE64.encode(data.as_bytes());
    let length = length.map_or(64, |length| usize::try_from(length).unwrap_or(64) / 4 * 4);
    if length == 0 {
        return lua.create_string(text);
    }
    let mut lines = Vec::new();
    for line in text.as_bytes().chunks(length) {
        lines.extend_from_slice(line);
        lines.push(b'\n');
    }
    lua.create_string(lines)
}

/// `rpm.b64decode(text)`: nil if it is none; white space does not count.
fn b64decode(lua: &Lua, text: LuaString) -> Result<Option<LuaString>> {
    let text: Vec<u8> = text.as_bytes().iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    BASE64.decode(text).ok().map(|data| lua.create_string(data)).transpose()
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
