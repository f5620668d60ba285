//! Lua scriptlets: Lua 5.4 with the parts of rpm's `posix` and `rpm` libraries that packages use.
//!
//! rpm runs Lua in its own process, which chroot confines. Ours runs in the sandbox, like every other script:
//! strata's own executable and the libraries it is linked with are mounted below `/run/strata`, and started
//! there as [`COMMAND`]. So nothing of it need be in the rootfs (`%pretrans` runs in an empty one), and
//! fork, exec and chown in a script are real without being able to reach the host.

mod mode;
mod posix;
mod system;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use mlua::{IntoLua, IntoLuaMulti, Lua, MultiValue, Table, Value};
use serde::{Deserialize, Serialize};

use super::macros::Macros;
use crate::error::HintExt;
use crate::sandbox;

/// The first argument that makes the `strata` command this interpreter. Not for people, so not in the help.
pub const COMMAND: &str = "__lua";

/// Functions of rpm's that scripts are told we don't have: table, name, why. Scripts may ask whether there is one.
pub const UNAVAILABLE: [(&str, &str, &str); 15] = [
    ("posix", "ctermid", NO_TERMINAL),
    ("posix", "getlogin", NO_TERMINAL),
    ("posix", "mkstemp", "what rpm's gives is no file that Lua can use; see os.tmpname"),
    ("posix", "pathconf", OF_THE_MACHINE),
    ("posix", "sysconf", OF_THE_MACHINE),
    ("posix", "times", OF_THE_MACHINE),
    ("posix", "ttyname", NO_TERMINAL),
    ("rpm", "call", FOR_RPM),
    ("rpm", "interactive", NO_TERMINAL),
    ("rpm", "load", "macros come from strata, not from files"),
    ("rpm", "open", "use io.open, or rpm.execute a program that decompresses"),
    ("rpm", "register", FOR_RPM),
    ("rpm", "splitargs", FOR_RPM),
    ("rpm", "unregister", FOR_RPM),
    ("rpm", "unsplitargs", FOR_RPM),
];
const NO_TERMINAL: &str = "there is no terminal where images are built";
const OF_THE_MACHINE: &str = "the answer would depend on the machine that builds";
const FOR_RPM: &str = "it serves rpm's own macros";

/// Names that a script looked for in vain, and in which table, to be put into the error if it calls one.
#[derive(Default)]
struct Missing(BTreeMap<String, &'static str>);

/// A Lua script to run.
#[derive(Serialize, Deserialize)]
pub struct Job {
    /// What error messages call the script: `%post(bash-5.1.8-9.el9.x86_64)`.
    pub name: String,
    /// `arg[2]` and on; those that are numbers are numbers in Lua.
    pub args: Vec<String>,
    /// The global `RPM_INSTALL_PREFIX`: where a relocatable package is; empty for others.
    pub prefixes: Vec<String>,
    /// What `rpm.expand` knows.
    pub macros: Macros,
}

/// The interpreter: strata's executable, and what it takes to start it where nothing else is.
pub struct Interpreter {
    strata: PathBuf,
    loader: Option<PathBuf>,
    /// Name by which the executable asks for it, and file.
    libraries: Vec<(String, PathBuf)>,
}

impl Interpreter {
    /// Finds the libraries of the executable `strata`.
    pub fn new(strata: PathBuf) -> Result<Self> {
        // The loader lists what it would load, which is how ldd(1) works. A static executable has none, and
        // prints its version.
        let output =
            Command::new(&strata).arg("--version").env("LD_TRACE_LOADED_OBJECTS", "1").output().hint(
                format!("listing the libraries of {}", strata.display()),
                "do not replace strata while it runs",
            )?;
        let listing = String::from_utf8(output.stdout).context("reading a list of libraries")?;
        let (loader, libraries) = parse_libraries(&listing);
        Ok(Self { strata, loader, libraries })
    }

    /// The command that runs `body` in a sandbox.
    pub fn command(&self, job: &Job, body: &str, stdin: Vec<u8>) -> Result<sandbox::Command> {
        let inside = |name: &str| format!("/run/strata/{name}");
        let mut argv = vec![inside("strata")];
        let mut files = vec![(self.strata.clone(), inside("strata"))];
        if let Some(loader) = &self.loader {
            files.push((loader.clone(), inside("ld.so")));
            argv.splice(0..0, [inside("ld.so"), "--library-path".into(), inside("lib")]);
        }
        files
            .extend(self.libraries.iter().map(|(name, file)| (file.clone(), inside(&format!("lib/{name}")))));
        argv.extend([COMMAND.to_owned(), serde_json::to_string(job).context("describing a Lua script")?]);
        let script = Some((argv.len(), body.to_owned()));
        Ok(sandbox::Command { argv, stdin, script, files, ..Default::default() })
    }
}

/// Takes a loader's listing apart: `/lib64/ld.so (0x..)` is the loader, `libc.so.6 => /lib/libc.so.6 (0x..)`
/// a library.
fn parse_libraries(listing: &str) -> (Option<PathBuf>, Vec<(String, PathBuf)>) {
    let mut loader = None;
    let mut libraries = Vec::new();
    for line in listing.lines().filter(|line| line.contains("(0x")) {
        let file = |text: &str| text.split(" (0x").next().map(|path| PathBuf::from(path.trim()));
        match line.split_once(" => ") {
            Some((name, path)) => libraries.extend(file(path).map(|file| (name.trim().to_owned(), file))),
            None if line.trim_start().starts_with('/') => loader = file(line),
            None => {} // the kernel's vdso
        }
    }
    (loader, libraries)
}

/// Runs the script that the arguments after [`COMMAND`] name: a [`Job`] in JSON, and the script's file.
///
/// # Errors
/// What the script raised, with its place in the script.
pub fn main(args: impl Iterator<Item = OsString>) -> Result<()> {
    let args: Vec<OsString> = args.collect();
    let [job, script] = args.as_slice() else { bail!("{COMMAND} is strata's own, for Lua scriptlets") };
    let job = job.to_str().context("reading a Lua job: not UTF-8")?;
    let job: Job = serde_json::from_str(job).context("reading a Lua job")?;
    let script = Path::new(script);
    let body = std::fs::read(script).with_context(|| format!("reading {}", script.display()))?;
    let name = job.name.clone();
    // Lua's errors are not Send
    run(job, &body).map_err(|error| anyhow!(message(&error.to_string(), &name)))
}

/// An error of the script `name`, with its place in the script, without the trace through the interpreter.
fn message(error: &str, name: &str) -> String {
    let (text, trace) = error.split_once("\nstack traceback:").unwrap_or((error, ""));
    let text = text.trim_start_matches("runtime error: ");
    // what a function of ours or of C raises has no place of its own
    let place =
        trace.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':')?.split(':').next());
    match place.filter(|_| !text.contains(name)) {
        Some(line) => format!("{name}:{line}: {text}"),
        None => text.to_owned(),
    }
}

fn run(job: Job, body: &[u8]) -> mlua::Result<()> {
    let lua = Lua::new();
    let globals = lua.globals();
    // what the script prints and what its children print keeps its order
    lua.load("io.stdout:setvbuf('no')").exec()?;
    lua.set_app_data(Missing::default());
    let arg = lua.create_table()?;
    arg.push("<lua>")?;
    for text in job.args {
        match text.parse::<i64>() {
            Ok(number) => arg.push(number)?,
            Err(_) => arg.push(text)?,
        }
    }
    globals.set("arg", arg)?;
    if !job.prefixes.is_empty() {
        globals.set("RPM_INSTALL_PREFIX", job.prefixes)?;
    }
    globals.set("posix", posix::library(&lua)?)?;
    system::install(&lua, job.macros)?;
    globals.get::<Table>("os")?.set("exit", posix::exit(&lua)?)?;
    for (table, name, reason) in UNAVAILABLE {
        let refuse = move |_: &Lua, _: MultiValue| -> mlua::Result<()> {
            Err(mlua::Error::runtime(format!("{table}.{name} is not available to scriptlets: {reason}")))
        };
        globals.get::<Table>(table)?.set(name, lua.create_function(refuse)?)?;
    }
    for table in ["io", "os", "posix", "rpm"] {
        note_missing(&lua, table)?;
    }
    let ended = lua.load(body).set_name(format!("={}", job.name)).exec();
    ended.map_err(|error| name_missing(&lua, error))
}

/// Has lookups of what is not in the global `table` noted; they give nil, for scripts may ask what there is.
fn note_missing(lua: &Lua, table: &'static str) -> mlua::Result<()> {
    let note = move |lua: &Lua, (_, name): (Value, String)| {
        if let Some(mut missing) = lua.app_data_mut::<Missing>() {
            missing.0.insert(name, table);
        }
        Ok(Value::Nil)
    };
    let metatable = lua.create_table()?;
    metatable.set("__index", lua.create_function(note)?)?;
    lua.globals().get::<Table>(table)?.set_metatable(Some(metatable))
}

/// The error of a call of a function that is not there, with the function's whole name: Lua knows only the last
/// part of it.
fn name_missing(lua: &Lua, error: mlua::Error) -> mlua::Error {
    let text = error.to_string();
    let call = text.split_once("attempt to call a nil value (field '").and_then(|(before, rest)| {
        let (name, after) = rest.split_once("')")?;
        let missing = lua.app_data_ref::<Missing>()?;
        Some(format!("{before}{}.{name} is not available to scriptlets{after}", missing.0.get(name)?))
    });
    call.map_or(error, mlua::Error::runtime)
}

/// The number of the last error, for `posix.errno`.
#[derive(Clone, Copy, Default)]
struct Errno(i32);

/// What rpm's functions return: a value; or nil, a message and the error's number. Their numbers are floats,
/// which shows when a script writes one down: `0.0`.
fn give(
    lua: &Lua,
    subject: Option<&Path>,
    result: std::result::Result<impl IntoLua, impl Into<io::Error>>,
) -> mlua::Result<MultiValue> {
    let error: io::Error = match result {
        Ok(value) => return value.into_lua_multi(lua),
        Err(error) => error.into(),
    };
    let text = error.to_string();
    lua.set_app_data(Errno(error.raw_os_error().unwrap_or(0)));
    // std adds the number, which follows by itself
    let text = text.split(" (os error").next().unwrap_or(&text);
    let message = match subject {
        Some(path) => format!("{}: {text}", path.display()),
        None => text.to_owned(),
    };
    (Value::Nil, message, error.raw_os_error().map(f64::from)).into_lua_multi(lua)
}

/// The error's text, without its number, which std adds.
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// [`give`] for what returns 0 when it worked.
fn done(
    lua: &Lua,
    path: &Path,
    result: std::result::Result<(), impl Into<io::Error>>,
) -> mlua::Result<MultiValue> {
    give(lua, Some(path), result.map(|()| 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_a_listing() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib64/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let (loader, libraries) = parse_libraries(listing);
        assert_eq!(loader, Some("/lib64/ld-linux-x86-64.so.2".into()));
        assert_eq!(libraries, [("libc.so.6".to_owned(), PathBuf::from("/lib64/libc.so.6"))]);
        assert_eq!(parse_libraries("strata 0.1.0\n"), (None, vec![]));
    }
}
