//! Makes an image of an installed root: chunks by source package, tar, compression; to measure these.
//!
//!     chunk ROOTFS LAYOUT [gzip|zstd]
//!
//! ROOTFS has an rpmdb, LAYOUT is an OCI layout, made if it is not there. What is in `/dev`, `/proc`, `/run`, `/sys` and
//! `/tmp` must be files, directories or links. `RUST_LOG=info` tells how long the stages take.

#![expect(clippy::print_stdout, reason = "a program of its own")]

mod stages;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use strata::image::chunk::{self, Rules};
use strata::image::delta::delta;
use strata::image::oci::{Layout, Settings};
use strata::image::pack::{Compression, pack};
use strata::image::packing::{Packing, Source, Sources};
use strata::image::tar::Tree;
use strata::package::{Arch, source_name};
use strata::progress::Silent;
use strata::rpmdb::{self, Rpmdb};

/// What chunkah has by default.
const MOST: usize = 64;

const USAGE: &str = "usage: chunk ROOTFS LAYOUT [gzip|zstd]";

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
    let mut owners: HashMap<PathBuf, String> = HashMap::new();
    let mut known = Sources::new();
    for package in Rpmdb::open_read_only(&rpmdb)?.packages()? {
        let header = &package.header;
        let name = source_name(header.source()).to_owned();
        for file in header.files()? {
            owners.insert(file.path.trim_start_matches('/').into(), name.clone());
        }
        known.insert(
            name,
            Source { size: 0, built: header.build_time()?, changelog: header.changelog_times()? },
        );
    }
    let delta = delta(&rootfs, &[], &|_| None)?;
    let rules = Rules {
        owner_of: &|path| owners.get(path).map(String::as_str),
        is_ghost: &|_| false,
        rpmdb: rpmdb.parent().and_then(|dir| dir.strip_prefix(&rootfs).ok()).unwrap_or(Path::new("none")),
        metadata: Path::new("none"),
    };
    let sized = |(name, size): (String, u64)| {
        let source = Source { size, ..known[&name].clone() };
        (name, source)
    };
    let sources: Sources = chunk::sizes(&delta, &rules).into_iter().map(sized).collect();
    let packing = Packing::new(&sources, chunk::most_of_packages(MOST));
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
