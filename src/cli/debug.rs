//! `strata debug`

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::build::Inputs;
use super::screen::eprint_line;
use super::{Answer, Global, shell_word};
use crate::actor::Task;
use crate::build;
use crate::error::hinted;
use crate::fetch::Fetcher;
use crate::rootfs::Rootfs;
use crate::sandbox::{Command, SCRIPT, Sandbox, enter_namespace};

/// Enter the rootfs of a layer as it was before the script that failed
///
/// The layer is composed again up to that script, in the sandbox it runs in. There a shell of the rootfs has the
/// script and its environment, arguments and input, and says how to run it; with --replay it just runs again.
/// Nothing that happens there is kept: every time begins with the same rootfs. The exit status is that of the shell
/// or the script.
#[derive(clap::Args)]
pub struct Args {
    /// The stream, a folder below the manifests
    stream: String,
    /// The layer
    layer: String,
    /// Number of the script, as a failed build and `strata build -v` tell it [default: the one that fails, for
    /// which the layer is composed twice]
    number: Option<usize>,
    /// Run the script again, and nothing else
    #[arg(long)]
    replay: bool,
    /// Take the text of this file for that of the script
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    #[command(flatten)]
    inputs: Inputs,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    if let Some(status) = enter_namespace()? {
        return Ok(Answer::Elsewhere(status));
    }
    let plan = global.plan(&args.stream, global.arch(None)?)?;
    let store = global.store()?;
    let fetcher = Fetcher::new(&store, args.inputs.options());
    let bases = args.inputs.bases();
    let layers = [args.layer.clone()];
    let request = args.inputs.request(global, &plan, &layers, &bases)?;
    let enter = |sandbox: &Sandbox, task: &Task, command: &Command| {
        let command = edited(command, args.script.as_deref())?;
        let status = if args.replay { replay(sandbox, &command) } else { attend(sandbox, task, &command) };
        status.with_context(|| format!("entering the sandbox of {}", task.actor))
    };
    let progress = global.progress();
    let status = build::debug(&store, &fetcher, &request, args.number, &enter, progress.as_ref())?;
    Ok(Answer::Elsewhere(status))
}

/// The command with the text of another script.
fn edited(command: &Command, file: Option<&Path>) -> Result<Command> {
    let mut command = command.clone();
    let Some(file) = file else { return Ok(command) };
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    match &mut command.script {
        Some((_, script)) => *script = text,
        None => bail!("it is a program without a script, for which {} could be taken", file.display()),
    }
    Ok(command)
}

fn replay(sandbox: &Sandbox, command: &Command) -> Result<u8> {
    let outcome = sandbox.run_showing(command, &mut std::io::stdout())?;
    eprint_line(&format!(
        "it ended with status {} after {:.2} s",
        outcome.status,
        outcome.duration.as_secs_f64()
    ));
    Ok(exit_status(outcome.status))
}

/// Where the interactive shell finds the script's input, and what runs the script as the build does.
const INPUT: &str = "/run/strata/input";
const AGAIN: &str = "/run/strata/again";

/// Runs a shell of the rootfs in the place of the command.
fn attend(sandbox: &Sandbox, task: &Task, command: &Command) -> Result<u8> {
    const SHELL: &str = "/bin/sh";
    if Rootfs::open(&sandbox.rootfs)?.open_file(SHELL)?.is_none() {
        return Err(hinted(format!("the rootfs has no {SHELL} yet"), "run the script again with --replay"));
    }
    let files = tempfile::tempdir().context("making a directory for the script")?;
    let put = |name: &str, text: &[u8], mode: u32| -> Result<PathBuf> {
        let path = files.path().join(name);
        let written =
            fs::write(&path, text).and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)));
        written.with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    };
    let mut shell = Command { argv: vec![SHELL.to_owned()], ..command.clone() };
    let mut argv = command.argv.clone();
    if let Some((index, text)) = shell.script.take() {
        argv.insert(index, SCRIPT.to_owned());
        shell.files.push((put("script", text.as_bytes(), 0o644)?, SCRIPT.to_owned()));
    }
    let words: Vec<String> = argv.iter().map(|word| shell_word(word)).collect();
    let again = format!("#!{SHELL}\nunset TERM\nexec {} < {INPUT}\n", words.join(" "));
    shell.files.push((put("input", &command.stdin, 0o644)?, INPUT.to_owned()));
    shell.files.push((put("again", again.as_bytes(), 0o755)?, AGAIN.to_owned()));
    // editors want it; the script does not get it
    shell.env.extend(std::env::var("TERM").map(|term| ("TERM".to_owned(), term)));
    let script = command.script.iter().map(|_| SCRIPT.to_owned()).collect();
    let words = [task.interpreter.clone(), script, task.arguments.clone()].concat().join(" ");
    eprint_line(&format!("{} runs as `{words} < {INPUT}`; to run it here: {AGAIN}", task.actor));
    eprint_line("to leave: exit; nothing is kept, the next time begins here again");
    Ok(exit_status(sandbox.interact(&shell)?))
}

fn exit_status(status: i32) -> u8 {
    u8::try_from(status).unwrap_or(u8::MAX)
}
