//! `strata compile`

use anyhow::Result;

use super::{Answer, Global};
use crate::package::Arch;

/// Print what the layers of a stream would contain, and the file and line that says so
#[derive(clap::Args)]
pub struct Args {
    /// The stream, a folder below the manifests
    stream: String,
    /// Only this layer
    layer: Option<String>,
    /// Architecture to compile for [default: this machine's]
    #[arg(long)]
    arch: Option<Arch>,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let _plan = global.plan(&args.stream, global.arch(args.arch)?)?;
    let _ = &args.layer;
    unimplemented!()
}
