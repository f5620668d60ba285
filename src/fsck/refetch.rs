//! Fetches again what a store has lost: packages from where the lockfiles of all streams say that they are, keys of their
//! repositories, blobs of images from where manifests pin these, and from registries that are known to have them
//! ([`places`]).
//!
//! What cannot be fetched is warned of and stays lost: a build fetches it, makes it, or fails and says why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use oci_spec::image::Descriptor;

use super::{Fate, Finding};
use crate::digest::Digest;
use crate::fetch::{Fetcher, wanted};
use crate::gc::Kind;
use crate::image::oci::{Layout, digest_of};
use crate::image::opened::Access;
use crate::image::places;
use crate::image::reference::Reference;
use crate::lock::{self, Lockfile};
use crate::manifest;
use crate::plan::{Base, Layer, Plan, Repo};
use crate::progress::{Progress, Silent, Unit};

/// What is known of where things come from, and how they are brought.
pub struct Refetch<'a> {
    /// The store, and how images are opened.
    pub access: Access<'a>,
    /// Brings packages.
    pub fetcher: &'a Fetcher,
    /// Directory of the manifests, of which all streams count.
    pub manifests: &'a Path,
    /// Directory of the lockfiles.
    pub lockfiles: &'a Path,
    /// Values for some of the streams' variables.
    pub variables: &'a BTreeMap<String, String>,
}

/// What is looked for.
struct Lost {
    packages: BTreeSet<Digest>,
    blobs: BTreeSet<Digest>,
    /// By the digests of their URLs.
    keys: BTreeSet<Digest>,
}

impl Lost {
    fn len(&self) -> usize {
        self.packages.len() + self.blobs.len() + self.keys.len()
    }

    /// Whether an object that was taken away is among what is still looked for, or not looked for at all.
    fn has(&self, found: &Finding) -> bool {
        let lost = match found.kind {
            Kind::Package => &self.packages,
            Kind::Blob => &self.blobs,
            Kind::Key => &self.keys,
            _ => return true,
        };
        digest_in_name(found).is_none_or(|digest| lost.contains(&digest))
    }
}

impl Refetch<'_> {
    /// Fetches the packages, keys and blobs that were taken away, and blobs that images have lost before.
    pub(super) fn heal(&self, findings: &mut [Finding], progress: &dyn Progress) -> Result<()> {
        let layout = Layout::create(&self.access.store.images())?;
        let removed = |kind| {
            let removed =
                findings.iter().filter(move |found| (found.kind, found.fate) == (kind, Fate::Removed));
            removed.filter_map(digest_in_name).collect::<BTreeSet<_>>()
        };
        let [packages, mut blobs, keys] = [Kind::Package, Kind::Blob, Kind::Key].map(removed);
        blobs.append(&mut layout.missing()?);
        let mut lost = Lost { packages, blobs, keys };
        let before = lost.len();
        if before == 0 {
            return Ok(());
        }
        progress.start("fetching what is damaged", before as u64, Unit::Items);
        self.bring(&mut lost, &layout, progress);
        progress.finish(&format!("{} of {before} objects fetched again", before - lost.len()));
        let removed = findings.iter_mut().filter(|found| found.fate == Fate::Removed);
        removed.filter(|found| !lost.has(found)).for_each(|found| found.fate = Fate::Fetched);
        Ok(())
    }

    /// Fetches what is lost, and strikes it off.
    fn bring(&self, lost: &mut Lost, layout: &Layout, progress: &dyn Progress) {
        let plans = self.plans(progress);
        let locked = self.locked(&plans, progress);
        for (plan, _, lock) in &locked {
            if let Err(error) = self.packages(plan, lock, &mut lost.packages, progress) {
                progress.warn(&format!("looking what {}/{} locks: {error:#}", lock.stream, lock.layer));
            }
        }
        for repo in plans.iter().flat_map(|plan| plan.stream.repos.values()) {
            if let Err(error) = self.keys(repo, &mut lost.keys) {
                progress.warn(&format!("{error:#}"));
            }
        }
        let pinned = locked.iter().filter_map(|(plan, layer, _)| match &layer.from {
            Base::Image(image) => Some((image.clone(), Access { arch: plan.stream.arch, ..self.access })),
            Base::Layer(_) | Base::Scratch => None,
        });
        let known = places::images(self.access.store).into_iter().map(|image| (image, self.access));
        // of what is known the store has the manifests, and asks for nothing in vain
        for (image, access) in known.chain(pinned) {
            if let Err(error) = blobs(&image, access, &mut lost.blobs, layout, progress) {
                progress.warn(&format!("fetching blobs of {image}: {error:#}"));
            }
        }
    }

    /// All streams for all their architectures.
    fn plans(&self, progress: &dyn Progress) -> Vec<Plan> {
        let mut plans = Vec::new();
        for stream in manifest::streams(self.manifests) {
            let all = manifest::arches(self.manifests, &stream).and_then(|arches| {
                let load = |arch| manifest::load_with(self.manifests, &stream, arch, self.variables);
                arches.into_iter().map(load).collect::<Result<Vec<_>, _>>()
            });
            match all {
                Ok(all) => plans.extend(all),
                Err(error) => progress.warn(&format!("nothing is fetched for the stream {stream}: {error}")),
            }
        }
        plans
    }

    /// The layers that are locked, and their locks.
    fn locked<'p>(&self, plans: &'p [Plan], progress: &dyn Progress) -> Vec<(&'p Plan, &'p Layer, Lockfile)> {
        let mut locked = Vec::new();
        for (plan, layer) in plans.iter().flat_map(|plan| plan.layers.iter().map(move |layer| (plan, layer)))
        {
            match lock::read(self.lockfiles, &plan.stream.name, &layer.name, plan.stream.arch) {
                Ok(lock) => locked.extend(lock.map(|lock| (plan, layer, lock))),
                Err(error) => progress.warn(&format!("nothing is fetched for one layer: {error:#}")),
            }
        }
        locked
    }

    /// Fetches those of the packages of a lock that are lost.
    fn packages(
        &self,
        plan: &Plan,
        lock: &Lockfile,
        lost: &mut BTreeSet<Digest>,
        progress: &dyn Progress,
    ) -> Result<()> {
        if lost.is_empty() {
            return Ok(());
        }
        for wanted in wanted(plan, self.manifests, lock)? {
            let Some(digest) = wanted.package.sha256.filter(|digest| lost.contains(digest)) else { continue };
            match self.fetcher.packages(&[wanted], &Silent) {
                Ok(()) => {
                    lost.remove(&digest);
                    progress.advance(1);
                }
                Err(error) => progress.warn(&format!("{error:#}")),
            }
        }
        Ok(())
    }

    /// Fetches the keys of a repository, if some are lost.
    fn keys(&self, repo: &Repo, lost: &mut BTreeSet<Digest>) -> Result<()> {
        if !repo.gpgkey.iter().any(|url| lost.contains(&Digest::of(url))) {
            return Ok(());
        }
        let brought = self.fetcher.keys(repo);
        lost.retain(|url| !self.access.store.key(url).exists());
        brought
    }
}

/// Fetches those of the blobs of an image that are lost.
fn blobs(
    image: &Reference,
    access: Access<'_>,
    lost: &mut BTreeSet<Digest>,
    layout: &Layout,
    progress: &dyn Progress,
) -> Result<()> {
    if lost.is_empty() {
        return Ok(());
    }
    let is_lost = |blob: &Descriptor| digest_of(blob).is_ok_and(|digest| lost.contains(&digest));
    let brought = image.open(access).and_then(|opened| opened.copy_some(layout, is_lost));
    let before = lost.len();
    // also when some could not be brought
    lost.retain(|digest| !layout.blob(digest).exists());
    progress.advance((before - lost.len()) as u64);
    brought
}

/// The digest that an object of the store is named by.
fn digest_in_name(found: &Finding) -> Option<Digest> {
    Digest::from_hex(Path::new(&found.name).file_stem()?.to_str()?).ok()
}
