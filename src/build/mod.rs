//! Builds the images of a stream, bottom layer first.
//!
//! A layer whose inputs digest an image of the store carries is that image. Another is made: its packages
//! are installed on the extracted files of the layers below, configured, stamped, cleaned, and what that
//! changed becomes the image's own blobs. The ids of the accounts it made go into its lockfile, the plan of its chunks
//! beside it, and the inputs digest is that of both then: whether the build found them there or not, the image is the
//! same.

pub mod cache;
mod chunks;
mod debug;
pub mod files;
mod ids;
pub mod inputs;
mod journal;
pub mod labels;
mod parent;
mod reads;
mod recorder;
mod renumber;
pub(crate) mod reuse;
pub mod rules;
mod trace;
pub(crate) mod tree;
mod twice;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use oci_spec::image::Descriptor;
use rayon::prelude::*;
use serde::Serialize;

pub use self::debug::debug;
use self::files::Files;
use self::inputs::{Given, Inputs, Parts};
use self::labels::Identity;
pub use self::recorder::{Recorder, ScriptRun};
use self::rules::Repair;
pub use self::trace::trace;
use self::tree::WorkTree;
pub use self::twice::{Difference, difference};
use self::witness::Witness;
use crate::actor::Actor;
use crate::configure;
use crate::diff;
use crate::digest::Digest;
use crate::error::{HintExt, hinted};
use crate::fetch::{self, Fetcher};
use crate::image::chunk::Chunk;
use crate::image::delta;
use crate::image::extract::extract;
use crate::image::oci::{Image, Layout, Settings};
use crate::image::opened::{Access, Opened};
use crate::image::packing::Packing;
use crate::image::reference::Reference;
use crate::image::{ostree, pack, tar};
use crate::install::macros::Macros;
use crate::install::script::Runner;
use crate::install::verified::Verified;
use crate::install::{self, Transaction};
use crate::ledger::{self, Ledger};
use crate::lock::{self, LockedPackage, Lockfile};
use crate::origins::{self, Origins};
use crate::package::Nevra;
use crate::pkglist::{META_JSON, PackageSet};
use crate::plan::{Base, ImageFormat, Layer, Plan};
use crate::progress::{Prefixed, Progress, Unit};
use crate::rootfs::Rootfs;
use crate::rpmdb::Rpmdb;
use crate::sandbox::Sandbox;
use crate::selinux::Contexts;
use crate::stamp::{OsRelease, Version};
use crate::store::Store;

const OS_RELEASE: &str = "/usr/lib/os-release";

/// What to build.
pub struct Request<'a> {
    /// The stream.
    pub plan: &'a Plan,
    /// Directory of the manifests: local packages are there.
    pub manifests: &'a Path,
    /// Directory of the lockfiles.
    pub lockfiles: &'a Path,
    /// Names of the layers wanted; what they stand on is built too.
    pub layers: &'a [String],
    /// Images that stand for layers, instead of building these.
    pub bases: &'a BTreeMap<String, Reference>,
    /// Version, instead of the one the lockfiles give.
    pub version: Option<Version>,
    /// Versions that the layers had in a build that is repeated, in a store that does not know which are taken.
    pub repeated: BTreeMap<String, Version>,
    /// Source revision of the manifests, for a label.
    pub revision: Option<String>,
    /// Where credentials for registries are, if not in the usual places.
    pub authfile: Option<&'a Path>,
    /// Repositories to look for images in before making them.
    pub caches: &'a [Reference],
    /// Refuse to add ids to lockfiles, and to make chunk plans.
    pub locked: bool,
    /// Make the chunk plans anew.
    pub rechunk: bool,
    /// Leave the rootfs of a layer that fails.
    pub keep_failed: bool,
    /// The command that debugs a layer of this request, whose name it lacks.
    pub debug: String,
    /// strata's own executable: it interprets Lua scriptlets inside the sandbox.
    pub executable: PathBuf,
}

/// A layer that is built.
#[derive(Clone, Debug, Serialize)]
pub struct Built {
    /// The layer.
    pub layer: String,
    /// Its image in the store.
    pub reference: String,
    /// The image's version.
    pub version: String,
    /// Digest of the image's manifest.
    pub digest: Digest,
    /// The inputs digest; an image that strata did not build has none.
    pub inputs: Option<String>,
    /// Whether the image was there before.
    pub reused: bool,
    /// Packages in the image, those of the layers below included.
    pub packages: usize,
    /// Number of the layer's own blobs.
    pub blobs: usize,
    /// Size of the layer's own blobs in bytes.
    pub size: u64,
    /// Packages installed whose payload the store had decompressed.
    pub kept: usize,
    /// What the image rules repaired; empty when the image was there before.
    pub repairs: Vec<Repair>,
    /// The scripts that ran, in their order; empty when the image was there before.
    pub scripts: Vec<ScriptRun>,
    /// Accounts whose ids were added to the lockfile.
    pub ids: Vec<ledger::Change>,
}

impl Built {
    /// What happened, in a line.
    fn text(&self) -> String {
        let Self { reference, packages, blobs, .. } = self;
        let what = if self.reused { "there already" } else { "built" };
        format!("{reference} {what}: {packages} packages, {blobs} blobs of its own")
    }
}

/// Builds the layers of `request` and what is below them; bottom first.
pub fn build(
    store: &Store,
    fetcher: &Fetcher,
    request: &Request<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Built>> {
    let mut build = Build::new(store, fetcher, request)?;
    let layers = build.wanted(progress)?;
    layers.into_iter().map(|layer| build.next(layer, progress)).collect()
}

/// The layers to build, bottom first: those named, or all, and what they stand on, down to a given image.
fn wanted<'a>(request: &Request<'a>, progress: &dyn Progress) -> Result<Vec<&'a Layer>> {
    let plan = request.plan;
    let mut needed = BTreeSet::new();
    for layer in plan.select(request.layers)? {
        for layer in plan.stack(&layer.name).into_iter().rev() {
            needed.insert(&layer.name);
            if request.bases.contains_key(&layer.name) {
                break;
            }
        }
    }
    let given: Vec<String> = request.bases.keys().cloned().collect();
    plan.select(&given).context("using images for layers")?;
    for name in given.iter().filter(|name| !needed.contains(name)) {
        progress
            .warn(&format!("the image given for the layer {name} is not used: nothing built stands on it"));
    }
    Ok(plan.layers.iter().filter(|layer| needed.contains(&layer.name)).collect())
}

/// A finished step, as the layers above need it.
struct Step {
    image: Image,
    /// Where its blobs are, if it is a pinned image: they come into the store when a layer is made on it.
    pinned: Option<Opened>,
    /// Key of the extracted tree.
    key: Digest,
    /// Absent for a pinned image that has none of ours.
    version: Option<Version>,
    /// Lockfiles of the layer and those below, bottom first.
    locks: Vec<Lockfile>,
}

struct Build<'a> {
    store: &'a Store,
    fetcher: &'a Fetcher,
    request: &'a Request<'a>,
    layout: Layout,
    /// By layer, or by the reference of a pinned image.
    done: BTreeMap<String, Step>,
}

/// All that is known about a layer before it is made.
struct Job<'a> {
    layer: &'a Layer,
    below: Option<&'a Step>,
    /// Lockfiles of the layer and those below, bottom first.
    locks: Vec<Lockfile>,
    packages: PackageSet,
    /// The ids that the lockfiles keep.
    kept: Ledger,
    /// The plan of its chunks, unless it is to be made.
    packing: Option<Packing>,
    given: Given,
    inputs: Inputs,
    version: Version,
    /// Newest repository revision of all the lockfiles: the time of everything the build makes, UTC seconds.
    epoch: u64,
}

impl Job<'_> {
    fn lock(&self) -> &Lockfile {
        // a job has its own lockfile at least
        &self.locks[self.locks.len() - 1]
    }

    fn lock_mut(&mut self) -> &mut Lockfile {
        let own = self.locks.len() - 1;
        &mut self.locks[own]
    }

    /// How many layers are below.
    fn depth(&self) -> usize {
        self.locks.len() - 1
    }
}

impl<'a> Build<'a> {
    fn new(store: &'a Store, fetcher: &'a Fetcher, request: &'a Request<'a>) -> Result<Self> {
        let layout = Layout::create(&store.images())?;
        Ok(Self { store, fetcher, request, layout, done: BTreeMap::new() })
    }

    /// The layers to build, bottom first. A lock that cannot be built is refused before minutes are spent on the
    /// layers below.
    fn wanted(&mut self, progress: &dyn Progress) -> Result<Vec<&'a Layer>> {
        let layers = wanted(self.request, progress)?;
        let bottoms = layers.iter().filter_map(|layer| self.request.plan.pinned(&layer.name));
        for image in bottoms {
            if !self.done.contains_key(&image.to_string()) {
                let step = self.pinned(image).with_context(|| format!("using {image}"))?;
                self.done.insert(image.to_string(), step);
            }
        }
        layers.iter().try_for_each(|layer| lock::ledger(&self.locks(layer)?).map(drop))?;
        Ok(layers)
    }

    /// Builds a layer on those that are done.
    fn next(&mut self, layer: &Layer, progress: &dyn Progress) -> Result<Built> {
        let progress = Prefixed { name: &layer.name, progress };
        let (step, summary) =
            self.layer(layer, &progress).with_context(|| format!("building the layer {}", layer.name))?;
        progress.finish(&summary.text());
        self.done.insert(layer.name.clone(), step);
        Ok(summary)
    }

    #[tracing::instrument(level = "info", skip_all, fields(name = layer.name))]
    fn layer(&self, layer: &Layer, progress: &dyn Progress) -> Result<(Step, Built)> {
        if let Some(reference) = self.request.bases.get(&layer.name) {
            return self.given(layer, reference).with_context(|| format!("using {reference}"));
        }
        let mut job = self.job(layer, progress)?;
        let found = self.find(&job)?;
        match &found {
            Some(image) => {
                tracing::info!(inputs = %job.inputs.digest, "reused: {} has the same inputs", image.digest)
            }
            None => tracing::info!(inputs = %job.inputs.digest, "made: {}", self.why(&job)?),
        }
        let Product { image, reused, made, ids } = match found {
            Some(image) => Product { image, reused: true, made: Made::default(), ids: Vec::new() },
            None => self.make(&mut job, progress)?,
        };
        self.name(layer, &image, job.version)?;
        self.record_parent(&job, progress)?;
        let below = job.below.map_or(0, |step| step.image.manifest.layers().len());
        let built = Built {
            reference: format!("{}:{}", self.reference(layer), job.version),
            reused,
            repairs: made.repairs,
            scripts: made.scripts,
            kept: made.kept,
            ids,
            ..self.built(layer, &image, below, job.version, job.packages.len())
        };
        let Job { inputs, version, locks, .. } = job;
        Ok((Step { image, pinned: None, key: inputs.digest, version: Some(version), locks }, built))
    }

    /// Opens the image that a manifest pins; it stays where it is.
    fn pinned(&self, reference: &Reference) -> Result<Step> {
        let opened = self.open(reference)?;
        let locks = lock::of_image(self.request.plan, reference, &diff::image::packages(&opened)?);
        let image = opened.image.clone();
        let version = image.labels().get(labels::VERSION).and_then(|version| version.parse().ok());
        Ok(Step { key: image.digest, image, pinned: Some(opened), version, locks })
    }

    /// Opens an image, which must be for the plan's architecture.
    fn open(&self, reference: &Reference) -> Result<Opened> {
        reference.open_for(Access {
            store: self.store,
            arch: self.request.plan.stream.arch,
            offline: self.fetcher.offline(),
            authfile: self.request.authfile,
        })
    }

    /// Takes an image for a layer, if it has the packages that the layers above are locked on.
    fn given(&self, layer: &Layer, reference: &Reference) -> Result<(Step, Built)> {
        let opened = self.open(reference)?;
        let image = opened.image.clone();
        let locks = self.locks(layer)?;
        let locked = PackageSet::of_lockfiles(&locks)?;
        let found = diff::image::packages(&opened)?;
        if !found.nevras().eq(locked.nevras()) {
            return Err(hinted(
                format!("its {} packages are not the {} of the lockfiles", found.len(), locked.len()),
                format!("lock {} to what the image has, or build it", layer.name),
            ));
        }
        let version = image.labels().get(labels::VERSION).map(|v| v.parse::<Version>());
        let version = version.context("it has no label org.opencontainers.image.version")??;
        opened.copy_to(&self.layout)?;
        self.layout.tag(&image, None)?;
        let built = self.built(layer, &image, 0, version, found.len());
        Ok((Step { key: image.digest, image, pinned: None, version: Some(version), locks }, built))
    }

    /// Describes an image of the store that was there before, by digest; `below` of its blobs are its parent's.
    fn built(&self, layer: &Layer, image: &Image, below: usize, version: Version, packages: usize) -> Built {
        let own: Vec<u64> = image.manifest.layers().iter().skip(below).map(Descriptor::size).collect();
        Built {
            layer: layer.name.clone(),
            reference: format!("{}@{}", self.reference(layer), image.digest),
            version: version.to_string(),
            digest: image.digest,
            inputs: image.labels().get(labels::INPUTS).map(|digest| (*digest).to_owned()),
            reused: true,
            packages,
            blobs: own.len(),
            size: own.iter().sum(),
            repairs: Vec::new(),
            scripts: Vec::new(),
            kept: 0,
            ids: Vec::new(),
        }
    }

    /// Names an image of the store; those that had the names stay in the index, by digest.
    fn name(&self, layer: &Layer, image: &Image, version: Version) -> Result<()> {
        let name = self.reference(layer);
        let names = [format!("{name}:{version}"), name];
        let mut before = self.layout.list()?;
        before.retain(|(old, _)| old.as_ref().is_some_and(|old| names.contains(old)));
        if before.len() == names.len() && before.iter().all(|(_, old)| old.digest == image.digest) {
            return Ok(());
        }
        for name in &names {
            self.layout.tag(image, Some(name))?;
        }
        before.iter().try_for_each(|(_, image)| self.layout.tag(image, None))
    }

    fn reference(&self, layer: &Layer) -> String {
        format!("{}/{}", self.request.plan.stream.name, layer.name)
    }

    /// The lockfiles of a layer and those below it, bottom first.
    fn locks(&self, layer: &Layer) -> Result<Vec<Lockfile>> {
        let pinned =
            self.request.plan.pinned(&layer.name).and_then(|image| self.done.get(&image.to_string()));
        let mut locks = pinned.map(|step| step.locks.clone()).unwrap_or_default();
        for layer in self.request.plan.stack(&layer.name) {
            locks.push(self.lock(layer, &locks)?);
        }
        Ok(locks)
    }

    /// The lockfile of a layer on those below it; it must answer the layer's present request.
    fn lock(&self, layer: &Layer, below: &[Lockfile]) -> Result<Lockfile> {
        lock::current(self.request.plan, layer, below, self.request.lockfiles)
    }

    fn job<'j>(&'j self, layer: &'j Layer, progress: &dyn Progress) -> Result<Job<'j>> {
        let plan = self.request.plan;
        let below = match &layer.from {
            Base::Scratch => None,
            // layers come after the layer they stand on
            Base::Layer(name) => self.done.get(name),
            // they were opened first of all
            Base::Image(image) => self.done.get(&image.to_string()),
        };
        let mut locks = below.map(|step| step.locks.clone()).unwrap_or_default();
        let lock = self.lock(layer, &locks)?;
        let given = Given {
            parent: below.map(|step| step.image.digest),
            version: self.request.version.map(|v| v.to_string()),
            revision: self.request.revision.clone(),
        };
        let packing = self.packing(layer)?;
        let inputs = inputs::digest(plan, layer, &lock, packing.as_ref(), &given, self.request.manifests)?;
        locks.push(lock);
        let kept = lock::ledger(&locks)?;
        let packages = PackageSet::of_lockfiles(&locks)?;
        self.ask_caches(layer, below, &inputs.digest, progress)?;
        let version = self.version(layer, below, &locks, &inputs.digest)?;
        let epoch = epoch(&locks);
        Ok(Job { layer, below, epoch, locks, packages, kept, packing, given, inputs, version })
    }

    /// The version of a layer: asked for, or inherited, or that of its date with a counter that no other image
    /// of the store has.
    ///
    /// One with local packages, in the layer or below, is dirty.
    fn version(
        &self,
        layer: &Layer,
        below: Option<&Step>,
        locks: &[Lockfile],
        inputs: &Digest,
    ) -> Result<Version> {
        let scheme = &self.request.plan.stream.version;
        let dates = scheme.dated_by.contains(&layer.name);
        let is_dirty = locks.iter().any(Lockfile::has_local);
        match (self.request.version.as_ref().or(self.request.repeated.get(&layer.name)), below) {
            (Some(version), _) => return Ok(*version),
            (None, Some(Step { version: Some(version), .. })) if !dates => {
                return Ok(version.or_dirty(is_dirty));
            }
            _ => {}
        }
        let version = Version::new(&scheme.prefix, epoch(locks), 0)?.or_dirty(is_dirty);
        let mut taken = Vec::new();
        for (_, image) in self.images_of(layer)? {
            let labels = image.labels();
            let Some(Ok(other)) = labels.get(labels::VERSION).map(|v| v.parse::<Version>()) else { continue };
            if labels.get(labels::INPUTS) == Some(&inputs.to_string().as_str()) && other.same_date(&version) {
                return Ok(other);
            }
            taken.push(other);
        }
        Ok(version.after(taken))
    }

    /// The image in the store that has these inputs.
    fn find(&self, job: &Job<'_>) -> Result<Option<Image>> {
        self.image_of(job.layer, &job.inputs.digest)
    }

    fn image_of(&self, layer: &Layer, inputs: &Digest) -> Result<Option<Image>> {
        let inputs = inputs.to_string();
        for (_, image) in self.images_of(layer)? {
            if image.labels().get(labels::INPUTS) == Some(&inputs.as_str()) && self.layout.take(&image)? {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// Why a layer has to be made, in words.
    fn why(&self, job: &Job<'_>) -> Result<String> {
        let name = self.reference(job.layer);
        let images = self.images_of(job.layer)?.into_iter();
        let last = images.filter(|(found, _)| found.as_deref() == Some(&name)).map(|(_, image)| image).next();
        let Some(last) = last else { return Ok(format!("there is no {name} yet")) };
        let key = last.labels().get(labels::INPUTS).and_then(|digest| digest.parse().ok());
        let before = key.map(|key| tree::inputs(self.store, &key)).transpose()?.flatten();
        let Some(before) = before else { return Ok(format!("{name} has other inputs, that are forgotten")) };
        match job.inputs.changes(&before)[..] {
            [] => Ok(format!("{name} has lost a part")),
            ref changes => Ok(format!("{name} has others: {}", changes.join(", "))),
        }
    }

    fn images_of(&self, layer: &Layer) -> Result<Vec<(Option<String>, Image)>> {
        let stream = self.request.plan.stream.name.as_str();
        let mut images = self.layout.list()?;
        images.retain(|(_, image)| {
            let labels = image.labels();
            labels.get(labels::STREAM) == Some(&stream)
                && labels.get(labels::LAYER) == Some(&layer.name.as_str())
        });
        Ok(images)
    }

    /// Makes the image of a layer.
    fn make(&self, job: &mut Job<'_>, progress: &dyn Progress) -> Result<Product> {
        let mut tree = self.work_tree(job, progress)?;
        let recorder = Recorder::new(sandbox(job, &tree), Some(self.store), None);
        let composed = match self.compose(job, &tree, &recorder, progress) {
            Ok(composed) => composed,
            Err(error) => return Err(self.failed(job, tree, recorder.failed(), error)),
        };
        tree.unmount()?;
        let ids = self.complete_ids(job, &composed.ids)?;
        let delta = delta::delta(&tree.own(), &tree.below(), &|path| composed.files.mtime_of(path))?;
        let (chunks, packing) = self.split(job, &delta, &composed.files, progress)?;
        let found = match ids.is_empty() && packing.is_none() {
            true => None,
            false => self.find_completed(job, packing.as_ref(), progress)?,
        };
        let reused = found.is_some();
        let image = match found {
            Some(image) => image,
            None => {
                let own = tree.own();
                let known = composed.verified.contents(&own, &delta)?;
                let files = tar::KnownTree { tree: tar::Tree(&own), known };
                let image = self.pack(job, &files, &chunks, &composed, progress)?;
                tree.settle_times(&delta)?;
                let (key, parts) = (job.inputs.digest, job.inputs.parts.clone());
                tree.persist(self.store, &key, job.below.map(|step| step.key), parts)?;
                image
            }
        };
        if !ids.is_empty() {
            self.write_ids(job, &ids, progress)?;
        }
        if let Some(packing) = packing {
            self.write_packing(job.layer, &packing, progress)?;
        }
        Ok(Product { image, reused, made: composed.made, ids })
    }

    /// Digests the inputs of a job whose lock and chunk plan were completed. The image that has them, if there is
    /// one: files that lost something give the image they gave before.
    fn find_completed(
        &self,
        job: &mut Job<'_>,
        packing: Option<&Packing>,
        progress: &dyn Progress,
    ) -> Result<Option<Image>> {
        let packing = packing.or(job.packing.as_ref());
        let (plan, manifests) = (self.request.plan, self.request.manifests);
        job.inputs = inputs::digest(plan, job.layer, job.lock(), packing, &job.given, manifests)?;
        self.ask_caches(job.layer, job.below, &job.inputs.digest, progress)?;
        let found = self.find(job)?;
        if found.is_some() {
            job.version = self.version(job.layer, job.below, &job.locks, &job.inputs.digest)?;
        }
        Ok(found)
    }

    /// An empty tree on those of the layers below; the packages for it are in the store.
    fn work_tree(&self, job: &Job<'_>, progress: &dyn Progress) -> Result<WorkTree> {
        self.fetch(job, progress)?;
        let below = match job.below {
            Some(step) => self.tree(step, progress)?,
            None => Vec::new(),
        };
        let tree = WorkTree::new(self.store, &below)?;
        tree.prepare()?;
        Ok(tree)
    }

    /// Says what to do about a rootfs that could not be composed, if it was the script `number` that failed.
    fn failed(
        &self,
        job: &Job<'_>,
        tree: WorkTree,
        number: Option<usize>,
        error: anyhow::Error,
    ) -> anyhow::Error {
        let mut advice = Vec::new();
        if let Some(dir) = self.request.keep_failed.then(|| tree.keep()).flatten() {
            advice.push(format!("the rootfs as it failed is kept in {}", dir.display()));
        }
        if let Some(number) = number {
            let (debug, layer) = (&self.request.debug, &job.layer.name);
            advice.push(format!("to enter the rootfs as it was before that: {debug} {layer} {number}"));
        }
        if advice.is_empty() {
            return error;
        }
        let failed: Result<()> = Err(error);
        failed.hint("composing its rootfs", advice.join("\n")).expect_err("made of an error")
    }

    #[tracing::instrument(level = "info", skip_all)]
    fn fetch(&self, job: &Job<'_>, progress: &dyn Progress) -> Result<()> {
        let wanted = fetch::wanted(self.request.plan, self.request.manifests, job.lock())?;
        self.fetcher.packages(&wanted, progress)
    }

    /// The extracted trees of a finished layer, top first; extracted from its image if they are gone.
    fn tree(&self, step: &Step, progress: &dyn Progress) -> Result<Vec<PathBuf>> {
        if let Some(pinned) = &step.pinned {
            progress.start("bringing the image below", 0, Unit::Items);
            pinned.copy_to(&self.layout)?;
            progress.finish("image below is in the store");
        }
        if let Some(trees) = tree::open(self.store, &step.key)? {
            return Ok(trees);
        }
        let work = WorkTree::new(self.store, &[])?;
        progress.start("unpacking the image below", 0, Unit::Items);
        extract(&self.layout, &step.image, &work.own())?;
        progress.finish("image below unpacked");
        work.persist(self.store, &step.key, None, Parts::new())?;
        tree::open(self.store, &step.key)?.context("opening the layer just extracted")
    }

    /// Installs, configures, stamps and cleans the rootfs of a layer.
    fn compose(
        &self,
        job: &Job<'_>,
        tree: &WorkTree,
        recorder: &Recorder<'_>,
        progress: &dyn Progress,
    ) -> Result<Composed> {
        let plan = self.request.plan;
        let (root, stage) = (tree.root(), tree.stage());
        let transaction = Transaction {
            rootfs: &root,
            staging: &stage,
            install: installs(self.store, job.lock()),
            erase: erasures(job.lock()),
            store: Some(self.store),
            rpmdb: &plan.stream.rpmdb,
            epoch: job.epoch,
            docs: job.layer.docs,
            langs: job.layer.langs.as_deref(),
            ima: job.layer.ima,
            arch: plan.stream.arch,
        };
        let mut macros = Macros::default();
        macros.define("_dbpath", &plan.stream.rpmdb);
        let runner = Runner::new(recorder, self.request.executable.clone(), macros)?;
        let rootfs = Rootfs::open(&root)?;
        if job.below.is_none() {
            rules::prepare(&rootfs, plan.stream.opt_usrlocal)?;
        }
        let ledger = self.ledger(job)?;
        let witness = Witness::new(&runner, &rootfs, tree.own(), &ledger);
        self.check_ids(job, &rootfs, &|_| "a layer below".to_owned())?;
        let install::Report { kept, verified, .. } = install::run(&transaction, &witness, progress)?;
        let files = self.files(job, &rootfs)?;
        self.check_ids(job, &rootfs, &|account| witness.maker(account, &files))?;
        let bootable = labels::is_bootable(job.layer);
        if job.below.is_none() && bootable {
            rules::complete_base(&rootfs)?;
        }
        recorder.skip()?;
        witness
            .watch(None, || configure::apply(&rootfs, job.layer, job.depth(), &ledger, recorder, progress))?;
        self.check_ids(job, &rootfs, &|account| witness.maker(account, &files))?;
        let os_name = self.stamp(job, &rootfs)?;
        let (layer, rpmdb) = (job.layer.name.as_str(), plan.stream.rpmdb.as_str());
        let repairs = rules::apply(&rules::Composed {
            rootfs: &rootfs,
            layer,
            bootable,
            rpmdb,
            files: &files,
            made: &witness.made(),
        })?;
        for repair in repairs.iter().filter(|repair| repair.is_loss()) {
            progress.warn(&repair.to_string());
        }
        let (scripts, authors) = recorder.take_notes();
        let pkglist = job.packages.to_json(&self.origins(&rootfs, &files, &authors)?);
        rootfs.write(&format!("/{META_JSON}"), &pkglist, 0o644)?;
        let made = Made { repairs, scripts, kept };
        Ok(Composed { files, os_name, pkglist: Digest::of(&pkglist), made, verified, ids: witness.ids()? })
    }

    /// The files of all packages in the rpmdb, which must be those of the lockfiles.
    #[tracing::instrument(level = "info", skip_all)]
    fn files(&self, job: &Job<'_>, rootfs: &Rootfs) -> Result<Files> {
        let rpmdb = rootfs.host_path(&format!("{}/rpmdb.sqlite", self.request.plan.stream.rpmdb))?;
        let packages = Rpmdb::open_read_only(&rpmdb)?.packages()?;
        let found: PackageSet = packages.iter().map(|package| package.header.nevra().clone()).collect();
        ensure!(found.nevras().eq(job.packages.nevras()), "the rpmdb has other packages than the lockfiles");
        Files::of(packages.par_iter().map(|package| &package.header))
    }

    /// Who made the files of no package: in this layer, and as those below remember it.
    fn origins(&self, rootfs: &Rootfs, files: &Files, authors: &BTreeMap<String, Actor>) -> Result<Origins> {
        let below = rootfs.read(&format!("/{META_JSON}"))?;
        let below = below.map(|json| Origins::from_json(&json)).transpose()?.unwrap_or_default();
        let is_stray =
            |path: &str| anyhow::Ok(files.package_of(path).is_none() && rootfs.lstat(path)?.is_some());
        let mut origins = Origins::default();
        for (path, origin) in below.iter() {
            if is_stray(path)? {
                origins.insert(path, origin.to_owned());
            }
        }
        for (path, actor) in authors {
            if is_stray(path)? {
                origins.insert(path, origins::remembered(actor, self.request.manifests));
            }
        }
        Ok(origins)
    }

    /// Puts version and fields into os-release; gives its `NAME`.
    ///
    /// The version goes in once, at the top of the layers that date it: what is below serves every version.
    fn stamp(&self, job: &Job<'_>, rootfs: &Rootfs) -> Result<String> {
        let stream = &self.request.plan.stream;
        let Some(text) = rootfs.read(OS_RELEASE)? else {
            return Err(hinted(
                format!("stamping os-release: the rootfs has no {OS_RELEASE}"),
                "install the distribution's release package in the bottom layer",
            ));
        };
        let mut os_release = OsRelease::parse(&String::from_utf8_lossy(&text))?;
        let before = os_release.clone();
        let dates = |layer: &&Layer| stream.version.dated_by.contains(&layer.name);
        let topmost = self.request.plan.layers.iter().rfind(dates);
        if topmost.is_some_and(|layer| layer.name == job.layer.name) {
            os_release.stamp(&stream.os, job.version)?;
        }
        if !job.layer.os_release.is_empty() {
            os_release.set_fields(&job.layer.os_release);
        }
        if os_release != before {
            rootfs.rewrite(OS_RELEASE, os_release.to_string().as_bytes())?;
        }
        Ok(os_release.get("NAME").unwrap_or(&stream.os.name).to_owned())
    }

    /// Makes the image of the chunks, whose files are those of `tree`.
    fn pack(
        &self,
        job: &Job<'_>,
        tree: &tar::KnownTree<'_>,
        chunks: &[Chunk],
        composed: &Composed,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let plan = self.request.plan;
        let (layers, of_commit) = self.pack_layers(job, tree, chunks, progress)?;
        let image = &job.layer.image;
        let plain = |map: &BTreeMap<String, crate::plan::Sourced<String>>| {
            map.iter().map(|(key, value)| (key.clone(), value.value.clone())).collect()
        };
        let labels = labels::labels(&Identity {
            stream: &plan.stream,
            layer: job.layer,
            version: job.version,
            inputs: job.inputs.digest,
            pkglist: composed.pkglist,
            revision: self.request.revision.as_deref(),
            os_name: &composed.os_name,
        });
        let settings = Settings {
            layer: job.layer.name.clone(),
            arch: plan.stream.arch,
            created: job.epoch,
            labels: labels.into_iter().chain(of_commit.clone()).collect(),
            annotations: of_commit.into_iter().chain(plain(&image.annotations)).collect(),
            env: plain(&image.env),
            cmd: image.cmd.as_ref().map(|cmd| cmd.value.clone()),
        };
        self.layout.write_image(job.below.map(|step| &step.image), &layers, &settings)
    }

    /// Makes the blobs of a layer, and what its image says of the commit that they are, if they are one.
    fn pack_layers(
        &self,
        job: &Job<'_>,
        tree: &tar::KnownTree<'_>,
        chunks: &[Chunk],
        progress: &dyn Progress,
    ) -> Result<(Vec<pack::Layer>, BTreeMap<String, String>)> {
        let stream = &self.request.plan.stream;
        let pack = |contents: &dyn tar::Contents, chunks: &[Chunk]| {
            pack::pack(&self.layout, contents, chunks, stream.compression, progress)
        };
        if stream.image_format == ImageFormat::Bootc || job.below.is_some() {
            return Ok((pack(tree, chunks)?, BTreeMap::new()));
        }
        let tar::Tree(root) = tree.tree;
        let about = ostree::About {
            version: job.version.to_string(),
            created: job.epoch,
            bootable: labels::is_bootable(job.layer),
            contexts: Contexts::read(&Rootfs::open(root)?)?,
        };
        let encapsulated = ostree::encapsulate(root, chunks, &about)?;
        let layers = pack(&encapsulated, &encapsulated.chunks)?;
        let labels = layers.last().map(|last| encapsulated.labels(last.diff_id)).unwrap_or_default();
        Ok((layers, labels))
    }
}

fn sandbox(job: &Job<'_>, tree: &WorkTree) -> Sandbox {
    Sandbox { rootfs: tree.root(), epoch: job.epoch }
}

/// What making a layer gives.
struct Product {
    image: Image,
    reused: bool,
    made: Made,
    /// Accounts whose ids were added to the lockfile.
    ids: Vec<ledger::Change>,
}

/// What composing a rootfs leaves for packing it.
struct Composed {
    files: Files,
    os_name: String,
    pkglist: Digest,
    made: Made,
    verified: Verified,
    /// The ids of the accounts it made.
    ids: Ledger,
}

/// What there is to tell of a layer's making.
#[derive(Default)]
struct Made {
    repairs: Vec<Repair>,
    scripts: Vec<ScriptRun>,
    /// How many packages the store had decompressed.
    kept: usize,
}

/// The newest repository revision of lockfiles, UTC seconds.
fn epoch(locks: &[Lockfile]) -> u64 {
    locks.iter().flat_map(|lock| &lock.repos).map(|repo| repo.revision).max().unwrap_or(0)
}

fn installs(store: &Store, lock: &Lockfile) -> Vec<PathBuf> {
    lock.packages
        .iter()
        .filter_map(|package| package.sha256.as_ref())
        .map(|sha256| store.rpm(sha256))
        .collect()
}

/// Packages of the layers below that go: removed ones, and the versions that upgrades replace.
fn erasures(lock: &Lockfile) -> Vec<Nevra> {
    let gone = |package: &LockedPackage| Some(Nevra { evr: package.displaced()?.clone(), ..package.nevra() });
    lock.packages.iter().filter_map(gone).collect()
}
