//! Runs scriptlets and the scripts of triggers, as rpm does, in the sandbox.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};

use super::lua::{Interpreter, Job};
use super::macros::Macros;
use super::{ScriptCall, ScriptRunner};
use crate::error::HintExt;
use crate::package::Nevra;
use crate::package::header::Phase;
use crate::sandbox::{self, Outcome, Sandbox};

/// The interpreter that rpm has built in.
const LUA: &str = "<lua>";

/// Bits of [`Scriptlet::flags`](crate::package::header::Scriptlet::flags) (rpm: `include/rpm/rpmds.h`, `RPMSCRIPT_FLAG_*`).
const EXPAND: u32 = 1;
const QFORMAT: u32 = 2;

/// Runs scripts in a sandbox.
pub struct Runner {
    sandbox: Sandbox,
    lua: Interpreter,
    macros: Macros,
}

impl Runner {
    /// `strata` is the program's executable, which runs Lua inside; `macros` is what scripts may expand.
    pub fn new(sandbox: Sandbox, strata: PathBuf, macros: Macros) -> Result<Self> {
        Ok(Self { sandbox, lua: Interpreter::new(strata)?, macros })
    }

    /// The body as it runs: macros first, then the tags of the header, if the package asked for it.
    fn body(&self, call: &ScriptCall) -> Result<Option<String>> {
        let Some(body) = call.script.body.clone() else { return Ok(None) };
        let body = if call.script.flags & EXPAND != 0 { self.macros.expand(&body)? } else { body };
        Ok(Some(if call.script.flags & QFORMAT != 0 { query_format(&body, call.package)? } else { body }))
    }

    fn command(&self, call: &ScriptCall) -> Result<sandbox::Command> {
        let interpreter = &call.script.interpreter;
        let body = self.body(call)?;
        if interpreter.first().is_some_and(|program| program == LUA) {
            let args = interpreter[1..].iter().chain(&call.args).cloned().collect();
            let job = Job { name: name(call), args, macros: self.macros.clone() };
            return self.lua.command(&job, &body.unwrap_or_default(), call.stdin.clone());
        }
        if interpreter.is_empty() {
            bail!("the header names no interpreter");
        }
        let mut argv = interpreter.clone();
        // a program without a body gets no arguments either
        if body.is_some() {
            argv.extend(call.args.iter().cloned());
        }
        let script = body.map(|body| (interpreter.len(), body));
        Ok(sandbox::Command { argv, stdin: call.stdin.clone(), script, ..Default::default() })
    }
}

impl ScriptRunner for Runner {
    fn run(&self, call: &ScriptCall) -> Result<Outcome> {
        let context = || format!("running {}", name(call));
        self.sandbox.run(&self.command(call).with_context(context)?).with_context(context)
    }
}

/// `%post(bash-5.1.8-9.el9.x86_64)`, as rpm calls it.
fn name(call: &ScriptCall) -> String {
    format!("{}({})", spec_name(call.phase), call.package)
}

/// The phase as a spec file spells it.
fn spec_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Pretrans => "%pretrans",
        Phase::Pre => "%pre",
        Phase::Post => "%post",
        Phase::Preun => "%preun",
        Phase::Postun => "%postun",
        Phase::Posttrans => "%posttrans",
        Phase::Preuntrans => "%preuntrans",
        Phase::Postuntrans => "%postuntrans",
        Phase::TriggerPrein => "%triggerprein",
        Phase::TriggerIn => "%triggerin",
        Phase::TriggerUn => "%triggerun",
        Phase::TriggerPostun => "%triggerpostun",
        Phase::FileTriggerIn => "%filetriggerin",
        Phase::FileTriggerUn => "%filetriggerun",
        Phase::FileTriggerPostun => "%filetriggerpostun",
        Phase::TransFileTriggerIn => "%transfiletriggerin",
        Phase::TransFileTriggerUn => "%transfiletriggerun",
        Phase::TransFileTriggerPostun => "%transfiletriggerpostun",
    }
}

/// The error of a script that failed: which, how, and the end of what it said.
pub fn describe_failure(call: &ScriptCall, outcome: &Outcome) -> anyhow::Error {
    const LINES: usize = 20;
    let how = match outcome.status {
        status @ 129.. => format!("was killed by signal {}", status - 128),
        status => format!("failed with status {status}"),
    };
    let lines: Vec<&str> = outcome.output.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    let said = if last.is_empty() { "it wrote nothing".to_owned() } else { last.join("\n") };
    let message = format!("{} {how}", name(call));
    let said: Result<()> = Err(anyhow!(said));
    let described = if matches!(outcome.status, 126 | 127) {
        let phase = spec_name(call.phase).trim_start_matches('%');
        said.hint(
            message,
            format!("if a program is missing: is it in a package that Requires({phase}) names?"),
        )
    } else {
        said.context(message)
    };
    described.expect_err("made of an error")
}

/// Replaces `%{TAG}`, as `rpm --qf` does, for the tags that name the package.
fn query_format(text: &str, package: &Nevra) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
        } else if let Some((tag, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            let evr = &package.evr;
            match tag.to_ascii_uppercase().as_str() {
                "NAME" => out.push_str(&package.name),
                "EPOCH" | "EPOCHNUM" => out.push_str(&evr.epoch.to_string()),
                "VERSION" => out.push_str(&evr.version),
                "RELEASE" => out.push_str(&evr.release),
                "ARCH" => out.push_str(&package.arch),
                "EVR" => out.push_str(&evr.to_string()),
                "NEVRA" => out.push_str(&package.to_string()),
                "NVRA" => out
                    .push_str(&format!("{}-{}-{}.{}", package.name, evr.version, evr.release, package.arch)),
                _ => bail!("the script asks for the header's %{{{tag}}}, which strata does not fill in"),
            }
            rest = after;
        } else {
            bail!("the script's query format is wrong at %{}", rest.lines().next().unwrap_or_default());
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Hint;
    use crate::package::Evr;
    use crate::package::header::Scriptlet;

    fn package() -> Nevra {
        Nevra { name: "foo".into(), evr: Evr::new(2, "1.5", "3.el9"), arch: "x86_64".into() }
    }

    fn failure(status: i32, output: &str) -> anyhow::Error {
        let package = package();
        let script = Scriptlet { interpreter: vec!["/bin/sh".into()], body: Some(String::new()), flags: 0 };
        let call = ScriptCall {
            package: &package,
            phase: Phase::Posttrans,
            script: &script,
            args: vec![],
            stdin: vec![],
        };
        describe_failure(&call, &Outcome { status, output: output.into(), duration: Duration::ZERO })
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
    fn query_formats_name_the_package() {
        let format = |text| query_format(text, &package());
        assert_eq!(format("%{NAME} %{version} %{RELEASE} %{EPOCH} 100%%").unwrap(), "foo 1.5 3.el9 2 100%");
        assert_eq!(format("%{nevra} %{NVRA}").unwrap(), "foo-2:1.5-3.el9.x86_64 foo-1.5-3.el9.x86_64");
        for text in ["%{SUMMARY}", "%d", "%{NAME", "%"] {
            assert!(format(text).is_err(), "{text}");
        }
    }
}
