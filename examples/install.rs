//! Installs or upgrades packages in a rootfs, as `rpm --root ROOTFS -U RPM...` does: the transaction alone, to
//! measure it and to compare it with rpm.
//!
//!     install ROOTFS RPM...
//!
//! ROOTFS is made if it is not there; staging is beside it, for the time being. Installed packages of the same
//! name and architecture go. `SOURCE_DATE_EPOCH` is the time of the transaction, `STRATA_STORE` a store that keeps
//! the decompressed payloads and what scriptlets did; `RUST_LOG=info` tells how long its stages take.
//!
//! The `strata` beside this program, or one folder up, runs Lua scriptlets.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]

mod stages;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use strata::build::Recorder;
use strata::install::macros::Macros;
use strata::install::script::Runner;
use strata::install::{self, Transaction};
use strata::package::header::Header;
use strata::package::{Arch, Nevra};
use strata::progress::{Progress, Unit};
use strata::rootfs::Rootfs;
use strata::rpmdb::Rpmdb;
use strata::sandbox::{Sandbox, enter_namespace};
use strata::store::Store;

const RPMDB: &str = "/usr/lib/sysimage/rpm";

/// Tells warnings only.
struct Warnings;

impl Progress for Warnings {
    fn start(&self, _: &str, _: u64, _: Unit) {}
    fn advance(&self, _: u64) {}
    fn finish(&self, _: &str) {}
    fn warn(&self, message: &str) {
        eprintln!("warning: {message}");
    }
}

fn main() -> Result<ExitCode> {
    if let Some(status) = enter_namespace()? {
        return Ok(ExitCode::from(status));
    }
    stages::tell();
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let rootfs = args.next().context("usage: install ROOTFS RPM...")?;
    let rpms: Vec<PathBuf> = args.collect();
    ensure!(!rpms.is_empty(), "usage: install ROOTFS RPM...");
    std::fs::create_dir_all(&rootfs)?;
    let rootfs = rootfs.canonicalize()?;
    let epoch = std::env::var("SOURCE_DATE_EPOCH").map_or(Ok(0), |epoch| epoch.parse())?;
    let beside = rootfs.parent().context("a rootfs has a parent")?;
    let staging = tempfile::Builder::new().prefix("staging-").tempdir_in(beside)?;
    let store = std::env::var_os("STRATA_STORE").map(|store| Store::open(Path::new(&store))).transpose()?;
    let transaction = Transaction {
        rootfs: &rootfs,
        staging: staging.path(),
        erase: replaced(&rootfs, &rpms)?,
        install: rpms,
        store: store.as_ref(),
        rpmdb: RPMDB,
        epoch,
        docs: true,
        langs: None,
        ima: false,
        arch: Arch::host().context("strata does not know this machine's architecture")?,
    };
    let mut macros = Macros::default();
    macros.define("_dbpath", RPMDB);
    let sandbox = Sandbox { rootfs: rootfs.clone(), epoch };
    let recorder = Recorder::new(sandbox, store.as_ref(), None);
    let runner = Runner::new(&recorder, strata()?, macros)?;
    let started = Instant::now();
    let report = install::run(&transaction, &runner, &Warnings)?;
    println!(
        "{} packages installed ({} decompressed before), {} erased in {:.1} s",
        report.installed.len(),
        report.kept,
        report.erased.len(),
        started.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

/// Installed packages that go for another of their name and architecture.
fn replaced(root: &Path, rpms: &[PathBuf]) -> Result<Vec<Nevra>> {
    let rootfs = Rootfs::open(root)?;
    let file = format!("{RPMDB}/rpmdb.sqlite");
    if rootfs.lstat(&file)?.is_none() {
        return Ok(Vec::new());
    }
    let key = |nevra: &Nevra| (nevra.name.clone(), nevra.arch.clone());
    let headers = rpms.iter().map(|rpm| Header::open(rpm)).collect::<Result<Vec<_>>>()?;
    let new: BTreeSet<_> = headers.iter().map(|header| key(header.nevra())).collect();
    let installed = Rpmdb::open_read_only(&rootfs.host_path(&file)?)?.packages()?;
    let nevras = installed.into_iter().map(|package| package.header.nevra().clone());
    Ok(nevras.filter(|nevra| new.contains(&key(nevra))).collect())
}

fn strata() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join("strata")).find(|file| file.exists());
    found.context("no `strata` is beside this program")
}
