//! Locks and manifests in the formats of the tools around us, and theirs in ours.
//!
//! | module             | of whom                                 | files |
//! |--------------------|-----------------------------------------|-------|
//! | [`konflux`]        | rpm-lockfile-prototype, hermeto          | `rpms.in.yaml`, `rpms.lock.yaml` |
//! | [`rpm_ostree`]     | rpm-ostree, fedora-coreos-config         | `manifest-lock.ARCH.json`, `manifest-lock.overrides.yaml` |
//! | [`libpkgmanifest`] | dnf's manifest plugin                    | `packages.manifest.yaml`, `packages.input.yaml` |
//! | [`repodata`]       | createrepo_c, dnf                        | `repodata/` of a folder of packages |
//!
//! An export is a plain function of manifests and locks: the same are the same bytes, whoever exports, and when. An
//! import reads what somebody else wrote, so it takes nothing on trust. Nothing is dropped in silence either way:
//! what a format cannot hold is told (`docs/exchange.md` lists it all).
//!
//! No foreign lock says which request it answers. An imported one bears the digest of the file it is from instead,
//! which is no request's: `strata lock` solves it once more and keeps every version that it names.

mod foreign;
pub mod konflux;
pub mod libpkgmanifest;
pub mod repodata;
pub mod rpm_ostree;
mod url;
mod yaml;

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::error::hinted;
use crate::lock::{Action, LockedPackage, Lockfile};
use crate::plan::{Layer, Plan, Repo};
use crate::replace::replace;

pub use foreign::{Foreign, Target};

/// Bytes of a foreign file: the largest real one has not half a megabyte.
const MAX_SIZE: u64 = 64 << 20;

/// Layers of a stream on one architecture, as they are locked.
pub struct Selection {
    /// The stream.
    pub plan: Plan,
    /// The locks of the layers that are exported, bottom first.
    pub locks: Vec<Lockfile>,
}

impl Selection {
    /// The layers that are exported, bottom first.
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.locks.iter().filter_map(|lock| self.plan.layer(&lock.layer))
    }

    /// The packages that the layers install, those included that a layer above replaces: what a build fetches.
    fn fetched(&self) -> impl Iterator<Item = &LockedPackage> {
        let packages = self.locks.iter().flat_map(|lock| &lock.packages);
        packages.filter(|package| package.action != Action::Remove)
    }

    /// The repository a package is from. A local RPM has none, and is refused.
    fn repo(&self, package: &LockedPackage) -> Result<&Repo> {
        self.plan.stream.repos.get(&package.repo).ok_or_else(|| {
            let nevra = package.nevra();
            match package.repo.as_str() {
                "file" => hinted(
                    format!("{nevra} is a local RPM, which no other tool can fetch"),
                    "put it in a repository, or export the layers without it",
                ),
                "" => incomplete(package),
                repo => hinted(
                    format!("{nevra} is locked from repository `{repo}`, which the stream does not have"),
                    format!("run `strata lock {}`", self.plan.stream.name),
                ),
            }
        })
    }
}

/// The refusal of an entry that an import left without its place.
fn incomplete(package: &LockedPackage) -> anyhow::Error {
    hinted(
        format!("{} is locked without its place in a repository, as an import leaves it", package.nevra()),
        "run `strata lock`, which finds it",
    )
}

/// A text file that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where it belongs: below the directory of an export, or of all manifests.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// What an export gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// The files.
    pub documents: Vec<Document>,
    /// What they cannot hold, one thing each.
    pub lost: Vec<String>,
}

/// Writes files, each whole or not at all. A file that is there and says something else is left alone, and then none
/// is written, unless `force` is given.
pub fn write(documents: &[Document], force: bool) -> Result<()> {
    for Document { path, text } in documents.iter().filter(|_| !force) {
        let there = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            there => there.with_context(|| format!("reading {}", path.display()))?,
        };
        if there != text.as_bytes() {
            return Err(hinted(
                format!("{} is there already, and says something else", path.display()),
                "move it away, or replace it with --force",
            ));
        }
    }
    for Document { path, text } in documents {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        replace(path, text.as_bytes())?;
    }
    Ok(())
}

/// The text of a foreign file.
pub fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let context = || format!("reading {}", path.display());
    let file = File::open(path).with_context(context)?;
    file.take(MAX_SIZE + 1).read_to_string(&mut text).with_context(context)?;
    ensure!(text.len() as u64 <= MAX_SIZE, "{} has more than {MAX_SIZE} bytes", path.display());
    Ok(text)
}
