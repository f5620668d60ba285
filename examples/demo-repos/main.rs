//! `cargo run --example demo-repos -- OUTDIR`: makes the RPM repositories of the demo stream.
//!
//! See [`repos`] for what is in them.

mod repos;

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let (Some(out), None) = (args.next(), args.next()) else {
        anyhow::bail!("usage: demo-repos OUTDIR");
    };
    repos::generate(&PathBuf::from(out))
}
