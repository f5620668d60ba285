//! The command line: the only module that prints and chooses exit codes.
//!
//! A command is a module with `Args` (what the user typed) and `run`. Results go to standard output, as text
//! or JSON; progress, warnings and errors to standard error.

mod build;
mod compile;
mod copy;
mod debug;
mod diff;
mod export;
mod fetch;
mod fsck;
mod gc;
mod images;
mod import;
mod lint;
mod lock;
mod push;
mod screen;
mod show;
mod verify;
mod why;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::fmt::time::uptime;

use crate::error::Hint;
use crate::image::opened::{Access, Opened};
use crate::image::reference::Reference;
use crate::install::lua;
use crate::manifest;
use crate::package::Arch;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::store::Store;
use crate::tree::Subject;

/// Composes an operating system in layers: TOML manifests in, stacked bootable OCI images out.
#[derive(Parser)]
#[command(name = "strata", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  strata compile demo node            what the node layer would contain, and which line says so
  strata lock demo                    solve all layers of the stream `demo` and write its lockfiles
  strata build demo                   build bootc, coreos and node images into the store
  strata diff old/node demo/node      what changed between two images

Exit status: 0 done, 1 failed, 2 usage, 3 a check answered no (out of date, differs).";

/// Options of every command.
#[derive(Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Directory with one folder of manifests per stream
    #[arg(long, global = true, env = "STRATA_MANIFESTS", default_value = "manifests", value_name = "DIR")]
    manifests: PathBuf,
    /// Directory of the lockfiles, STREAM/LAYER.ARCH.toml
    #[arg(long, global = true, env = "STRATA_LOCKFILES", default_value = "lockfiles", value_name = "DIR")]
    lockfiles: PathBuf,
    /// Directory of packages, layers and images [default: $XDG_CACHE_HOME/strata]
    #[arg(long, global = true, env = "STRATA_STORE", value_name = "DIR")]
    store: Option<PathBuf>,
    /// File with credentials for registries [default: where containers-auth.json(5) says]
    #[arg(long, global = true, env = "STRATA_AUTHFILE", value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Give a variable of the stream another value; may be repeated
    #[arg(long, global = true, value_name = "NAME=VALUE", value_parser = variable)]
    set: Vec<(String, String)>,
    /// Say more: every entry of the manifests that is applied, what is reused, how long steps take; twice for
    /// debugging
    #[arg(short, long, global = true, env = "STRATA_VERBOSE", action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, env = "STRATA_QUIET", conflicts_with = "verbose")]
    quiet: bool,
    /// Form of the results on standard output
    #[arg(long, global = true, env = "STRATA_FORMAT", default_value = "text", value_name = "FORMAT")]
    format: Format,
}

/// Form of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For merge requests; `diff` only.
    Markdown,
    /// For browsers; `diff` only.
    Html,
}

#[derive(Subcommand)]
enum Command {
    Build(build::Args),
    Compile(compile::Args),
    Copy(copy::Args),
    Debug(debug::Args),
    Diff(diff::Args),
    Export(export::Args),
    Fetch(fetch::Args),
    Fsck(fsck::Args),
    Gc(gc::Args),
    Images(images::Args),
    Import(import::Args),
    Lint(lint::Args),
    Lock(lock::Args),
    Push(push::Args),
    Show(show::Args),
    Verify(verify::Args),
    Why(why::Args),
}

/// How a command that did not fail ended.
pub enum Answer {
    /// Exit status 0.
    Done,
    /// Exit status 3: a check whose answer is no.
    No,
    /// The command ran in another process, which ended with this status.
    Elsewhere(u8),
}

/// What a check of an image prints as JSON: its report, between the question and the answer.
#[derive(Serialize)]
struct Answered<'a, R> {
    subject: &'a str,
    failed: bool,
    #[serde(flatten)]
    report: &'a R,
}

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let result = match args.next() {
        Some(first) if first == lua::COMMAND => lua::main(args).map(|()| Answer::Done),
        _ => run(&Cli::parse()),
    };
    match result {
        Ok(Answer::Done) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(3),
        Ok(Answer::Elsewhere(status)) => ExitCode::from(status),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::from(1)
        }
    }
}

fn run(cli: &Cli) -> Result<Answer> {
    init_logging(&cli.global);
    cli.check_format();
    match &cli.command {
        Command::Build(args) => build::run(&cli.global, args),
        Command::Compile(args) => compile::run(&cli.global, args),
        Command::Copy(args) => copy::run(&cli.global, args),
        Command::Debug(args) => debug::run(&cli.global, args),
        Command::Diff(args) => diff::run(&cli.global, args),
        Command::Export(args) => export::run(&cli.global, args),
        Command::Fetch(args) => fetch::run(&cli.global, args),
        Command::Fsck(args) => fsck::run(&cli.global, args),
        Command::Gc(args) => gc::run(&cli.global, args),
        Command::Images(args) => images::run(&cli.global, args),
        Command::Import(args) => import::run(&cli.global, args),
        Command::Lint(args) => lint::run(&cli.global, args),
        Command::Lock(args) => lock::run(&cli.global, args),
        Command::Push(args) => push::run(&cli.global, args),
        Command::Show(args) => show::run(&cli.global, args),
        Command::Verify(args) => verify::run(&cli.global, args),
        Command::Why(args) => why::run(&cli.global, args),
    }
}

impl Cli {
    /// Ends the process, as for any other wrong argument, if the command has no results of the form asked for.
    fn check_format(&self) {
        let is_diff = matches!(self.command, Command::Diff(_));
        if !is_diff && matches!(self.global.format, Format::Markdown | Format::Html) {
            let message = "markdown and html are for `strata diff` only: take text or json";
            Self::command().error(ErrorKind::ArgumentConflict, message).exit();
        }
    }
}

impl Global {
    fn store(&self) -> Result<Store> {
        let cache = || -> Option<PathBuf> {
            let xdg = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
            let base = xdg.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
            Some(base.join("strata"))
        };
        let root = match &self.store {
            Some(root) => root.clone(),
            None => cache().context("no place for the store: HOME is not set; name one with --store")?,
        };
        Store::open(&root)
    }

    /// Loads the plan of `stream` for one architecture.
    fn plan(&self, stream: &str, arch: Arch) -> Result<Plan> {
        let variables = self.set.iter().cloned().collect();
        Ok(manifest::load_with(&self.manifests, stream, arch, &variables)?)
    }

    /// The architecture asked for, or this machine's.
    fn arch(&self, asked: Option<Arch>) -> Result<Arch> {
        asked.or_else(Arch::host).with_context(|| {
            format!("strata composes for no {} system: name one with --arch", std::env::consts::ARCH)
        })
    }

    /// Opens an image; of one for several architectures that for this machine's.
    fn open(&self, image: &Reference) -> Result<Opened> {
        image.open(self.access(&self.store()?, self.arch(None)?))
    }

    /// How images are opened, in registries too.
    fn access<'a>(&'a self, store: &'a Store, arch: Arch) -> Access<'a> {
        Access { store, arch, offline: false, authfile: self.authfile.as_deref() }
    }

    /// An unpacked image, if there is a directory of that name, else an image.
    fn subject(&self, text: &str) -> Result<Subject> {
        let path = Path::new(text);
        if path.is_dir() {
            return Ok(Subject::Rootfs(path.to_owned()));
        }
        Ok(Subject::Image(Box::new(self.open(&text.parse()?)?)))
    }

    fn progress(&self) -> Box<dyn Progress> {
        screen::progress(self.quiet)
    }

    fn json(&self) -> bool {
        self.format == Format::Json
    }
}

fn variable(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').context("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A word as a shell takes it.
fn shell_word(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(harmless) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Writes a result to standard output.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a result to standard output as indented JSON.
fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Prints the error, its causes and any advice.
fn print_error(error: &anyhow::Error) {
    let mut err = std::io::stderr().lock();
    let color = err.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if let Some(invalid) = error.downcast_ref::<manifest::Invalid>() {
        let _ = write!(err, "{}", invalid.render(color));
        return;
    }
    let (red, bold, off) = if color { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    let mut causes = error.chain();
    let first = causes.next().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(err, "{red}error:{off} {bold}{first}{off}");
    for cause in causes {
        let text = cause.to_string();
        let _ = writeln!(err, "  caused by: {}", text.replace('\n', "\n             "));
    }
    for hint in error.chain().filter_map(find_hint) {
        let _ = writeln!(err, "  hint: {}", hint.advice().replace('\n', "\n        "));
    }
}

fn find_hint<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Hint> {
    error.downcast_ref::<Hint>()
}

fn init_logging(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("STRATA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("strata={level}")));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::CLOSE)
        .with_timer(uptime())
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
