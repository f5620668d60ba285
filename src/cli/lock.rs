//! `strata lock`

use anyhow::Result;

use super::{Answer, Global};
use crate::package::Arch;

/// Solve the packages of a stream's layers and write their lockfiles
#[derive(clap::Args)]
pub struct Args {
    /// The stream, a folder below the manifests
    stream: String,
    /// Only these layers [default: all]
    layers: Vec<String>,
    /// Architectures to lock [default: all of the stream's]
    #[arg(long)]
    arch: Vec<Arch>,
    /// Take the newest of every package
    #[arg(long)]
    update: bool,
    /// Take the newest of these packages, keep the others
    #[arg(long, value_name = "NAME", num_args = 1..)]
    update_package: Vec<String>,
    /// Write nothing; exit with status 3 if a lockfile is missing or out of date
    #[arg(long)]
    check: bool,
}

pub fn run(_global: &Global, args: &Args) -> Result<Answer> {
    let _ = (&args.stream, &args.layers, &args.arch, args.update, &args.update_package, args.check);
    unimplemented!()
}
