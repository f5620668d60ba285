//! What locking reads, in production.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use rayon::iter::{IntoParallelRefIterator, IntoParallelRefMutIterator, ParallelIterator};

use super::{LockedPackage, Lockfile, Metadata};
use crate::diff;
use crate::digest::Digest;
use crate::error::{HintExt, hinted};
use crate::fetch::{Fetcher, Place, Wanted, wanted};
use crate::image::opened::{Access, Opened};
use crate::image::reference::Reference;
use crate::package::header::Header;
use crate::pkglist::PackageSet;
use crate::plan::{self, Plan};
use crate::progress::{Progress, Silent, Unit};
use crate::repo::{Paths, RepoMetadata, RepoPackage, location};
use crate::rpmdb::Rpmdb;
use crate::store::Store;

/// Repositories through a [`Fetcher`], packages in its store, local RPMs in the manifests' directory.
pub struct Sources<'s> {
    /// The store the fetcher fills.
    pub store: &'s Store,
    /// Brings metadata, and packages that repositories have dropped from their lists.
    pub fetcher: &'s Fetcher,
    /// Where credentials for registries are, if not in the usual places.
    pub authfile: Option<&'s Path>,
    /// The directory local RPMs are below.
    pub manifests: &'s Path,
    /// Who watches.
    pub progress: &'s dyn Progress,
}

impl Metadata for Sources<'_> {
    fn newest(&self, repos: &[&plan::Repo]) -> Result<Vec<RepoMetadata>> {
        let ids = repos.iter().map(|repo| repo.id.as_str()).collect::<Vec<_>>().join(", ");
        self.progress.start(&format!("metadata of {ids}"), 0, Unit::Bytes);
        let read = |repo: &&plan::Repo| {
            let mut metadata = self.fetcher.metadata(repo, self.progress)?;
            self.fetcher.modules(repo, &mut metadata)?;
            Ok(metadata)
        };
        // collected before a failure is looked for, so that the same one is always told
        let all: Vec<Result<RepoMetadata>> = repos.par_iter().map(read).collect();
        let all: Vec<RepoMetadata> = all.into_iter().collect::<Result<_>>()?;
        let packages: usize = all.iter().map(|metadata| metadata.packages.len()).sum();
        self.progress.finish(&format!("{ids}: {packages} packages"));
        Ok(all)
    }

    fn advisories(&self, repo: &plan::Repo, metadata: &mut RepoMetadata) -> Result<()> {
        self.fetcher.advisories(repo, metadata)
    }

    fn filelists(&self, repos: &mut [(&plan::Repo, &mut RepoMetadata)], paths: &Paths) -> Result<()> {
        let read = |(repo, metadata): &mut (&plan::Repo, &mut RepoMetadata)| {
            self.fetcher.filelists(repo, metadata, paths)
        };
        let all: Vec<Result<()>> = repos.par_iter_mut().map(read).collect();
        all.into_iter().collect()
    }

    fn comps(&self, repo: &plan::Repo, metadata: &mut RepoMetadata) -> Result<()> {
        self.fetcher.comps(repo, metadata)
    }

    fn recorded(&self, repo: &plan::Repo, repomd: &Digest) -> Result<Option<RepoMetadata>> {
        self.fetcher.metadata_at(repo, repomd)
    }

    fn locked(&self, plan: &Plan, package: &LockedPackage) -> Result<RepoPackage> {
        let nevra = package.nevra();
        let digest = package.sha256.with_context(|| format!("{nevra} is locked without a digest"))?;
        let place = match plan.stream.repos.get(&package.repo) {
            Some(repo) => Place::Repo(repo),
            None if package.repo == "file" => Place::Manifests(self.manifests),
            None => {
                return Err(hinted(
                    format!(
                        "{nevra} is locked from repository `{}`, which the stream does not have",
                        package.repo
                    ),
                    format!("lock the layers below again: `strata lock {}`", plan.stream.name),
                ));
            }
        };
        self.fetcher.packages(&[Wanted { package, place, further: Vec::new() }], &Silent).hint(
            format!("reading {nevra} of the layers below, which no repository lists any more"),
            format!(
                "lock the layers below again (`strata lock {}`), or use the store they were locked with",
                plan.stream.name
            ),
        )?;
        read(&self.store.rpm(&digest))
    }

    fn image(&self, plan: &Plan, image: &Reference) -> Result<PackageSet> {
        diff::image::packages(&self.open(plan, image)?)
    }

    fn image_rpmdb(&self, plan: &Plan, image: &Reference) -> Result<Vec<RepoPackage>> {
        let rpmdb = diff::image::rpmdb_of(&self.open(plan, image)?)?;
        let packages = Rpmdb::open_read_only(rpmdb.path())?.packages()?;
        packages.iter().map(|package| package.header.to_repo_package()).collect()
    }

    fn whereabouts(&self, plan: &Plan, lock: &Lockfile, package: &LockedPackage) -> Option<String> {
        let wanted = wanted(plan, self.manifests, lock).ok()?;
        self.fetcher.whereabouts(wanted.iter().find(|wanted| wanted.package == package)?)
    }

    fn local(&self, file: &Path) -> Result<RepoPackage> {
        let Ok(below) = file.strip_prefix(self.manifests) else {
            return Err(hinted(
                format!("{} is not below {}", file.display(), self.manifests.display()),
                "keep local RPMs with the manifests",
            ));
        };
        let (sha256, size) = Digest::of_reader(&mut File::open(file)?)?;
        let location = location(below.to_str().context("its name is not UTF-8")?)?;
        Ok(RepoPackage { sha256: Some(sha256), size, location, ..read(file)? })
    }
}

impl Sources<'_> {
    fn open(&self, plan: &Plan, image: &Reference) -> Result<Opened> {
        image.open_for(Access {
            store: self.store,
            arch: plan.stream.arch,
            offline: self.fetcher.offline(),
            authfile: self.authfile,
        })
    }
}

fn read(file: &Path) -> Result<RepoPackage> {
    let context = || format!("reading {}", file.display());
    Header::open(file).and_then(|header| header.to_repo_package()).with_context(context)
}
