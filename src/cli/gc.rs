//! `strata gc`

use anyhow::Result;

use super::{Answer, Global};
use crate::build;
use crate::sandbox::enter_namespace;

/// Delete what the store can do without: extracted layers, unfinished work, images that lost their name
///
/// Packages and repository metadata stay.
#[derive(clap::Args)]
pub struct Args {
    /// Delete all images, extracted layers and decompressed packages (three times the size of the packages); a
    /// build makes them again
    #[arg(long)]
    all: bool,
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    if let Some(status) = enter_namespace()? {
        return Ok(Answer::Elsewhere(status));
    }
    build::collect_garbage(&global.store()?, args.all)?;
    Ok(Answer::Done)
}
