//! Makes an image of an installed root: chunks by source package, tar, compression; to measure these.
//!
//!     chunk ROOTFS LAYOUT [gzip|zstd [PACKING]]
//!
//! ROOTFS has an rpmdb, LAYOUT is an OCI layout, made if it is not there. PACKING is the file of the chunk plan, which is
//! made if it is not there, and kept as by builds if it is. What is in `/dev`, `/proc`, `/run`, `/sys` and `/tmp` must be
//! files, directories or links. `RUST_LOG=info` tells how long the stages take.

#![expect(clippy::print_stdout, reason = "a program of its own")]

mod stages;

use std::collections::{BTreeMap, HashMap};
use std::fs;
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

const USAGE: &str = "usage: chunk ROOTFS LAYOUT [gzip|zstd [PACKING]]";

/// `RPMFILE_GHOST` (rpm: `rpmfiles.h`).
const GHOST: u32 = 1 << 6;

/// What a package says of a path.
struct Owner {
    source: String,
    /// UTC seconds; what is no regular file keeps none in images.
    mtime: Option<i64>,
    ghost: bool,
}

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
    let (owners, known) = installed(&rpmdb)?;
    let delta = delta(&rootfs, &[], &|path| owners.get(path)?.mtime)?;
    let rules = Rules {
        owner_of: &|path| Some(&owners.get(path)?.source),
        is_ghost: &|path| owners.get(path).is_some_and(|owner| owner.ghost),
        rpmdb: rpmdb.parent().and_then(|dir| dir.strip_prefix(&rootfs).ok()).unwrap_or(Path::new("none")),
        metadata: Path::new("none"),
    };
    let sized = |(name, size): (String, u64)| {
        let source = Source { size, ..known[&name].clone() };
        (name, source)
    };
    let sources: Sources = chunk::sizes(&delta, &rules).into_iter().map(sized).collect();
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

/// The paths, relative to the root, and the source packages of what is installed; without sizes.
fn installed(rpmdb: &Path) -> Result<(HashMap<PathBuf, Owner>, Sources)> {
    let mut owners: HashMap<PathBuf, Owner> = HashMap::new();
    let mut known = Sources::new();
    for package in Rpmdb::open_read_only(rpmdb)?.packages()? {
        let header = &package.header;
        let name = source_name(header.source()).to_owned();
        for file in header.files()? {
            let regular = file.mode & libc::S_IFMT == libc::S_IFREG;
            let mtime = regular.then_some(file.mtime.into());
            let owner = Owner { source: name.clone(), mtime, ghost: file.flags & GHOST != 0 };
            owners.insert(file.path.trim_start_matches('/').into(), owner);
        }
        known.insert(
            name,
            Source { size: 0, built: header.build_time()?, changelog: header.changelog_times()? },
        );
    }
    Ok((owners, known))
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
