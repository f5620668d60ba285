//! Makes an image of an installed root: chunks by source package, tar, compression; to measure these.
//!
//!     chunk ROOTFS LAYOUT [gzip|zstd [PACKING]]
//!
//! ROOTFS has an rpmdb, LAYOUT is an OCI layout, made if it is not there. PACKING is the file of the chunk plan, which is
//! made if it is not there, and kept as by builds if it is. What is in `/dev`, `/proc`, `/run`, `/sys` and `/tmp` must be
//! files, directories or links. `RUST_LOG=info` tells how long the stages take.

#![expect(clippy::print_stdout, reason = "a program of its own")]

mod stages;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use strata::build::files::Files;
use strata::image::chunk::{self, Rules};
use strata::image::delta::delta;
use strata::image::oci::{Layout, Settings};
use strata::image::pack::{Compression, pack};
use strata::image::packing::{Packing, Sources};
use strata::image::tar::Tree;
use strata::package::Arch;
use strata::progress::Silent;
use strata::rpmdb::{self, Rpmdb};

/// What chunkah has by default.
const MOST: usize = 64;

const USAGE: &str = "usage: chunk ROOTFS LAYOUT [gzip|zstd [PACKING]]";

fn main() -> Result<()> {
    stages::tell();
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (rootfs, layout) = args.next().zip(args.next()).context(USAGE)?;
    let compression = match args.next().as_deref().and_then(Path::to_str) {
        None | Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        Some(_) => bail!(USAGE),
    };
    let rpmdb = rpmdb::below(&rootfs)?;
    let packages = Rpmdb::open_read_only(&rpmdb)?.packages()?;
    let files = Files::of(packages.par_iter().map(|package| &package.header))?;
    let delta = delta(&rootfs, &[], &|path| files.mtime_of(path))?;
    let rules = Rules {
        owner_of: &|path| files.source_of(path),
        is_ghost: &|path| files.is_ghost(path),
        rpmdb: rpmdb.parent().and_then(|dir| dir.strip_prefix(&rootfs).ok()).unwrap_or(Path::new("none")),
        metadata: Path::new("none"),
    };
    let sources = files.sources(chunk::sizes(&delta, &rules));
    let packing = packing(args.next().as_deref(), &sources)?;
    let chunks = chunk::split(&delta, &rules, &packing, &sources);
    let layout = Layout::create(&layout)?;
    let layers = pack(&layout, &Tree(&rootfs), &chunks, compression, &Silent)?;
    let settings = Settings {
        layer: "chunked".to_owned(),
        arch: Arch::host().context("this machine is of no architecture that images are made for")?,
        created: 0,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        env: BTreeMap::new(),
        cmd: None,
    };
    let image = layout.write_image(None, &layers, &settings)?;
    layout.tag(&image, Some("chunked"))?;
    println!("{} layers, {} bytes, {}", layers.len(), image.layers_size(), image.digest);
    Ok(())
}

/// The chunk plan that is in the file, if there is any; else a new one, which is written to it.
fn packing(file: Option<&Path>, sources: &Sources) -> Result<Packing> {
    if let Some(file) = file.filter(|file| file.exists()) {
        return Packing::parse(&fs::read_to_string(file)?, file);
    }
    let made = Packing::new(sources, chunk::most_of_packages(MOST));
    if let Some(file) = file {
        fs::write(file, made.to_toml())?;
    }
    Ok(made)
}
