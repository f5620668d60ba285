//! Runs scriptlets and the scripts of triggers, as rpm does, in the sandbox.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};

use super::lua::{Interpreter, Job};
use super::macros::Macros;
use super::{ScriptCall, ScriptRunner};
use crate::actor::{Actor, Executor, Placed, Task};
use crate::error::HintExt;
use crate::package::header::query_format;
use crate::sandbox::{self, Outcome, SOURCE_DATE_EPOCH, last_lines};

/// The interpreter that rpm has built in.
const LUA: &str = "<lua>";

/// Bits of [`Scriptlet::flags`](crate::package::header::Scriptlet::flags) (rpm: `include/rpm/rpmds.h`, `RPMSCRIPT_FLAG_*`).
const EXPAND: u32 = 1;
const QFORMAT: u32 = 2;

/// Runs scripts in a sandbox.
pub struct Runner<'a> {
    executor: Box<dyn Executor + 'a>,
    lua: Interpreter,
    macros: Macros,
}

impl<'a> Runner<'a> {
    /// `strata` is the program's executable, which runs Lua inside; `macros` is what scripts may expand.
    pub fn new(executor: impl Executor + 'a, strata: PathBuf, macros: Macros) -> Result<Self> {
        Ok(Self { executor: Box::new(executor), lua: Interpreter::new(strata)?, macros })
    }

    /// The body as it runs: macros first, then the tags of the header, if the package asked for it.
    fn body(&self, call: &ScriptCall) -> Result<Option<String>> {
        let Some(body) = call.script.body.clone() else { return Ok(None) };
        let body = if call.script.flags & EXPAND != 0 { self.macros.expand(&body)? } else { body };
        Ok(Some(if call.script.flags & QFORMAT != 0 { query_format(call.header, &body)? } else { body }))
    }

    fn command(&self, call: &ScriptCall) -> Result<sandbox::Command> {
        let interpreter = &call.script.interpreter;
        let body = self.body(call)?;
        let mut command = if interpreter.first().is_some_and(|program| program == LUA) {
            self.lua_command(call, &body.unwrap_or_default())?
        } else if interpreter.is_empty() {
            bail!("the header names no interpreter");
        } else {
            let mut argv = interpreter.clone();
            // a program without a body gets no arguments either
            if body.is_some() {
                argv.extend(call.args.iter().cloned());
            }
            let script = body.map(|body| (interpreter.len(), body));
            let env = prefix_variables(call.header.prefixes());
            sandbox::Command { argv, env, stdin: call.stdin.clone(), script, ..Default::default() }
        };
        // as old as its package: what others of its layer are published since must not make it run again
        command.env.push((SOURCE_DATE_EPOCH.to_owned(), call.header.build_time()?.to_string()));
        Ok(command)
    }

    fn lua_command(&self, call: &ScriptCall, body: &str) -> Result<sandbox::Command> {
        let args = call.script.interpreter[1..].iter().chain(&call.args).cloned().collect();
        let job = Job {
            name: name(call),
            args,
            prefixes: call.header.prefixes().to_vec(),
            macros: self.macros.clone(),
        };
        self.lua.command(&job, body, call.stdin.clone())
    }
}

impl ScriptRunner for Runner<'_> {
    fn begin(&self) -> Result<()> {
        self.executor.begin()
    }

    fn run(&self, call: &ScriptCall) -> Result<Outcome> {
        let context = || format!("running {}", name(call));
        let task = Task {
            actor: actor(call),
            interpreter: call.script.interpreter.clone(),
            arguments: call.args.clone(),
        };
        self.executor.run(&task, &self.command(call).with_context(context)?).with_context(context)
    }

    fn placed(&self, files: &[Placed<'_>]) -> Result<()> {
        self.executor.placed(files)
    }
}

fn actor(call: &ScriptCall) -> Actor {
    Actor::Scriptlet { package: call.package().clone(), phase: call.phase }
}

/// `%post(bash-5.1.8-9.el9.x86_64)`, as rpm calls it.
fn name(call: &ScriptCall) -> String {
    actor(call).to_string()
}

/// What a relocatable package's scripts find their directories by (rpm: `lib/rpmscript.c`, `doScriptExec`).
fn prefix_variables(prefixes: &[String]) -> Vec<(String, String)> {
    let first = prefixes.first().map(|prefix| ("RPM_INSTALL_PREFIX".to_owned(), prefix.clone()));
    let numbered = prefixes.iter().enumerate().map(|(n, p)| (format!("RPM_INSTALL_PREFIX{n}"), p.clone()));
    first.into_iter().chain(numbered).collect()
}

/// The error of a script that failed: which, how, and the end of what it said.
pub fn describe_failure(call: &ScriptCall, outcome: &Outcome) -> anyhow::Error {
    let how = match outcome.status {
        status @ 129.. => format!("was killed by signal {}", status - 128),
        status => format!("failed with status {status}"),
    };
    let said = last_lines(&outcome.output);
    let said = if said.is_empty() { "it wrote nothing".to_owned() } else { said };
    let message = format!("{} {how}", name(call));
    let said: Result<()> = Err(anyhow!(said));
    let described = if matches!(outcome.status, 126 | 127) {
        said.hint(
            message,
            format!("if a program is missing: is it in a package that Requires({}) names?", call.phase),
        )
    } else {
        said.context(message)
    };
    described.expect_err("made of an error")
}

/// A warning if a script that ended well says that something failed. Many ignore it (`useradd ... || :`), and
/// what is missing shows up on a node, long after the build.
pub fn complaint(call: &ScriptCall, outcome: &Outcome) -> Option<String> {
    /// Of shadow-utils, of the C library, of shells, and of the kernel's refusals.
    const SIGNS: [&str; 6] = [
        "cannot lock",
        "does not exist",
        "command not found",
        ": not found",
        "Permission denied",
        "Operation not permitted",
    ];
    let said = last_lines(&outcome.output);
    let line = said.lines().find(|line| SIGNS.iter().any(|sign| line.contains(sign)))?;
    Some(format!("{} ended well, but says: {line}", name(call)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Hint;
    use crate::package::header::{Header, Phase, Scriptlet};

    fn package() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = rpm::PackageBuilder::new("foo", "1.5", "MIT", "x86_64", "a summary");
        builder.epoch(2).release("3.el9").vendor("us");
        builder.build().unwrap().write(&mut file.as_file()).unwrap();
        file
    }

    /// What `describe` says of a script's end.
    fn of<T>(status: i32, output: &str, describe: impl Fn(&ScriptCall, &Outcome) -> T) -> T {
        let header = Header::open(package().path()).unwrap();
        let script = Scriptlet { interpreter: vec!["/bin/sh".into()], body: Some(String::new()), flags: 0 };
        let call = ScriptCall {
            header: &header,
            phase: Phase::Posttrans,
            script: &script,
            args: vec![],
            stdin: vec![],
        };
        describe(&call, &Outcome { status, output: output.into(), duration: Duration::ZERO })
    }

    fn failure(status: i32, output: &str) -> anyhow::Error {
        of(status, output, describe_failure)
    }

    #[test]
    fn failures_say_which_how_and_what() {
        let long: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let error = failure(3, &long);
        assert_eq!(error.to_string(), "%posttrans(foo-2:1.5-3.el9.x86_64) failed with status 3");
        let said = error.root_cause().to_string();
        assert!(said.starts_with("line 80\n") && said.ends_with("line 99"), "{said}");
        assert!(failure(137, "").to_string().ends_with("was killed by signal 9"));
        let missing = failure(127, "sh: ldconfig: not found\n");
        let hint = missing.chain().find_map(|e| e.downcast_ref::<Hint>()).unwrap();
        assert!(hint.advice().contains("Requires(posttrans)"), "{}", hint.advice());
    }

    #[test]
    fn output_is_bounded_and_harmless() {
        let long = format!("{}the end\n\u{1b}[2Jclear\tx\r\n", "x".repeat(60_000));
        let said = failure(1, &long).root_cause().to_string();
        assert!(said.len() < 1000 && said.ends_with("xthe end\n\u{fffd}[2Jclear\tx"), "{said}");
    }

    #[test]
    fn complaints_of_scripts_that_end_well() {
        let said = of(0, "all is well\nuseradd: cannot lock /etc/passwd; try again later.\n", complaint);
        let name = "%posttrans(foo-2:1.5-3.el9.x86_64)";
        let expected = "ended well, but says: useradd: cannot lock /etc/passwd; try again later.";
        assert_eq!(said, Some(format!("{name} {expected}")));
        assert_eq!(of(0, "all is well\n", complaint), None);
    }
}
