//! The demo stream's package repositories, made on the spot from a few pages of TOML.
//!
//! ```text
//! OUTDIR/
//!   RPM-GPG-KEY-demo                        public key the packages are signed with
//!   2025-02-03/{baseos,appstream,ose}/      first snapshot
//!     repodata/repomd.xml ...               revision = the repository's own date
//!     Packages/b/bash-5.1.8-9.el9.ARCH.rpm
//!   2025-02-10/{baseos,appstream,ose}/      second snapshot: the first, newer packages, advisories
//! ```
//!
//! Names, versions, dependencies, scriptlets and triggers have the shape of RHEL's; what is in the files is
//! a stand-in. The shell is real: busybox from the machine's own package, so scriptlets and commands run.
//! Packages of the other architecture are there to be locked, not to be run: their files are all but empty.
//! A later snapshot keeps the older packages, as the CDN does, because a lockfile goes on naming them.
//!
//! Tests that need them include this module by its path, as `tests/demo_repos.rs` does: `cargo test --test NAME`
//! builds no examples.
//!
//! The same busybox gives the same bytes: nothing here reads the clock, the host's name or a hash map's order.

mod content;
mod key;
mod package;
mod repodata;
mod spec;

use std::path::Path;

use anyhow::{Context, Result};

use content::Machine;
use package::Built;
use spec::Catalogue;

/// The repositories, in the order of the stack; each is one file of [`spec::Catalogue`].
const CATALOGUES: [(&str, &str); 3] = [
    ("baseos", include_str!("baseos.toml")),
    ("appstream", include_str!("appstream.toml")),
    ("ose", include_str!("ose.toml")),
];

/// The snapshots' directories. The revisions of their repositories are in the catalogues.
const SNAPSHOTS: [&str; 2] = ["2025-02-03", "2025-02-10"];

/// Makes the repositories below `out`, replacing what an earlier run left there.
///
/// Fails if the machine has no statically linked busybox or `out` can't be written.
pub fn generate(out: &Path) -> Result<()> {
    let machine = Machine::this()?;
    let signer = key::signer()?;
    write(&out.join("RPM-GPG-KEY-demo"), key::armored_public_key()?.as_bytes())?;
    for (repo, text) in CATALOGUES {
        let catalogue: Catalogue =
            toml::from_str(text).with_context(|| format!("reading the catalogue {repo}.toml"))?;
        let mut built = Vec::new();
        for (number, snapshot) in SNAPSHOTS.iter().enumerate() {
            for release in catalogue.releases(number) {
                let package = package::build(&release, &machine, &signer)
                    .with_context(|| format!("building {}-{}", release.package.name, release.evr))?;
                built.push(package);
            }
            built.sort_by(|a, b| a.location.cmp(&b.location));
            let dir = out.join(snapshot).join(repo);
            write_repo(&dir, &catalogue, number, &built)
                .with_context(|| format!("writing {}", dir.display()))?;
        }
    }
    Ok(())
}

/// Writes one repository of one snapshot, aside, and puts it in the place of an earlier run's.
fn write_repo(dir: &Path, catalogue: &Catalogue, snapshot: usize, packages: &[Built]) -> Result<()> {
    let aside = dir.with_extension("new");
    remove(&aside)?;
    for package in packages {
        write(&aside.join(&package.location), &package.bytes)?;
    }
    let advisories = if snapshot == 0 { Vec::new() } else { catalogue.advisories()? };
    for (name, bytes) in
        repodata::files(packages, &advisories, catalogue.revisions[snapshot], catalogue.compression)?
    {
        write(&aside.join("repodata").join(name), &bytes)?;
    }
    remove(dir)?;
    std::fs::rename(&aside, dir).context("putting it in place")
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {} of an earlier run", dir.display()))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().expect("every path written is below the output directory");
    std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
