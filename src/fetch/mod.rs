//! Brings repository metadata and packages into the store.
//!
//! What comes in is checked while it streams into a temporary file (size, checksum), then as a whole
//! (structure, digests, identity, signature), and only then gets its name in the store: a refused file leaves
//! nothing behind. A package already in the store had its digests checked on the way in, but perhaps for a
//! repository without keys, so its signature is checked again each time it is wanted.

mod credentials;
pub(crate) mod http;
pub mod keyring;
mod source;
mod transport;
mod vendor;
pub mod verify;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Cursor, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::Url;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use crate::digest::Digest;
use crate::error::{HintExt, hinted};
use crate::lock::{Action, Elsewhere, LockedPackage, Lockfile};
use crate::plan::{self, Plan};
use crate::progress::{Progress, Unit};
use crate::replace::beside;
use crate::repo::comps::Comps;
use crate::repo::modules::Modules;
use crate::repo::repomd::{Checksum, DataFile, Repomd};
use crate::repo::{Packages, Paths, RepoMetadata, compact, filelists, filter, location, primary, updateinfo};
use crate::store::{Store, persist};

use source::{Current, Source};
use transport::Body;
use vendor::Vendor;
pub use vendor::vendored;
use verify::Refusal;

/// Decompressed bytes of primary and updateinfo, whatever repomd.xml allows. RHEL's have about 100 MB.
const DOCUMENT_LIMIT: u64 = 1 << 30;

/// The same for filelists. Fedora's have about 1 GB.
const FILELISTS_LIMIT: u64 = 4 << 30;

/// Why a repository is not skipped that dnf would skip.
const NOT_SKIPPED: &str = "`skip_if_unavailable` is not heeded: without this repository there would be another lock, and \
                           nothing to tell it by; to go without it on purpose, say `enabled = 0`";

/// How a [`Fetcher`] works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Open no socket; packages come from the store or the vendor directory only.
    pub offline: bool,
    /// How long a server may send less than 1000 bytes a second, or nothing.
    pub patience: Duration,
    /// Packages fetched at the same time.
    pub jobs: usize,
    /// A folder of packages, which is looked into before the repositories: each at the place
    /// [`Fetcher::vendor`] gives it, else by its file's name and digest anywhere below.
    pub vendor: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { offline: false, patience: Duration::from_secs(30), jobs: 8, vendor: None }
    }
}

/// A locked package, and where it is to come from.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The package, which is not a removal.
    pub package: &'a LockedPackage,
    /// Where its location is relative to.
    pub place: Place<'a>,
    /// Where else the same file may be, each with its location there, tried in this order.
    pub further: Vec<(plan::Repo, String)>,
}

/// Where a package's location is relative to.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A repository.
    Repo(&'a plan::Repo),
    /// The manifests' directory: an override by a local file. The lockfile's digest vouches for it.
    Manifests(&'a Path),
}

/// The packages that `lockfile` installs, with their repositories in `plan`.
pub fn wanted<'a>(plan: &'a Plan, manifests: &'a Path, lockfile: &'a Lockfile) -> Result<Vec<Wanted<'a>>> {
    let place = |package: &'a LockedPackage| {
        if package.location.is_empty() {
            return Err(hinted(
                format!("{} is locked without its place in a repository", package.nevra()),
                format!("a lock that was imported is finished by `strata lock {}`", plan.stream.name),
            ));
        }
        if package.repo == "file" {
            return Ok(Place::Manifests(manifests));
        }
        let repo = plan.stream.repos.get(&package.repo).map(Place::Repo);
        repo.ok_or_else(|| {
            let (nevra, repo, stream) = (package.nevra(), &package.repo, &plan.stream.name);
            hinted(
                format!("{nevra} is locked from repository `{repo}`, which stream {stream} does not have"),
                format!("run `strata lock {stream}`"),
            )
        })
    };
    let installed = lockfile.packages.iter().filter(|package| package.action != Action::Remove);
    let wanted = |package| {
        let place = place(package)?;
        let further = match place {
            Place::Repo(repo) => further(plan, lockfile, package, repo),
            Place::Manifests(_) => Vec::new(),
        };
        Ok(Wanted { package, place, further })
    };
    installed.map(wanted).collect()
}

/// The other repositories and URLs that a lock names for a package, and the place where its repository was.
fn further(
    plan: &Plan,
    lockfile: &Lockfile,
    package: &LockedPackage,
    repo: &plan::Repo,
) -> Vec<(plan::Repo, String)> {
    let named = package.also.iter().filter_map(|place| match place {
        Elsewhere::Repo(id, location) => Some((plan.stream.repos.get(id)?.clone(), location.clone())),
        Elsewhere::Url(base, file) => Some((moved(repo, base), file.clone())),
    });
    let then = lockfile.repos.iter().filter(|locked| locked.id == package.repo);
    let urls = then.filter_map(|locked| locked.url.as_ref()).filter(|url| !repo.baseurl.contains(url));
    named.chain(urls.map(|url| (moved(repo, url), package.location.clone()))).collect()
}

/// The repository at another place, to which credentials are shown only if it is on the same server.
fn moved(repo: &plan::Repo, url: &str) -> plan::Repo {
    let origin = |url: &str| Url::parse(url).ok().map(|url| url.origin());
    let there =
        plan::Repo { baseurl: vec![url.to_owned()], mirrorlist: None, metalink: None, ..repo.clone() };
    if repo.baseurl.iter().any(|base| origin(base) == origin(url)) {
        return there;
    }
    plan::Repo { sslclientcert: None, sslclientkey: None, auth: None, headers: BTreeMap::new(), ..there }
}

/// Brings files into a store.
pub struct Fetcher {
    store: Store,
    options: Options,
    vendor: Option<Vendor>,
    sources: Mutex<Vec<(plan::Repo, Arc<Source>)>>,
}

impl Fetcher {
    /// A fetcher for `store`. Touches neither network nor disk yet.
    pub fn new(store: &Store, options: Options) -> Self {
        let vendor = options.vendor.as_deref().map(Vendor::new);
        Self { store: store.clone(), options, vendor, sources: Mutex::default() }
    }

    /// Whether it opens no socket.
    pub fn offline(&self) -> bool {
        self.options.offline
    }

    /// The newest metadata of a repository. Of one that has not changed, only repomd.xml is downloaded.
    pub fn metadata(&self, repo: &plan::Repo, progress: &dyn Progress) -> Result<RepoMetadata> {
        let what = || format!("fetching the metadata of repository {} ({})", repo.id, repo.origin);
        let newest = self.newest(repo, progress);
        match repo.skip_if_unavailable {
            true => newest.hint(what(), NOT_SKIPPED),
            false => newest.with_context(what),
        }
    }

    fn newest(&self, repo: &plan::Repo, progress: &dyn Progress) -> Result<RepoMetadata> {
        let source = self.source(repo);
        let bring =
            |current: &Current| self.bring(&source, primary_of(&current.repomd)?, &|n| progress.advance(n));
        let mut current = source.repomd(&self.store)?;
        if let Err(error) = bring(&current) {
            // published anew between the two requests: what the old repomd.xml lists may be gone
            tracing::debug!(error = format!("{error:#}"), "looking whether there is another repomd.xml");
            let again = source.repomd(&self.store)?;
            if again.seen.repomd == current.seen.repomd {
                return Err(error);
            }
            current = again;
            bring(&current)?;
        }
        let digest = current.seen.repomd;
        let metadata = self.assemble(repo, digest, &current.repomd)?;
        let mut file = self.store.temp_file()?;
        file.write_all(&current.text).context("keeping repomd.xml")?;
        persist(file, &self.store.repodata(&digest))?;
        source.remember(&current.seen, &self.store)?;
        Ok(metadata)
    }

    /// The metadata that had the digest `repomd`, if the store still has them. Uses no network.
    pub fn metadata_at(&self, repo: &plan::Repo, repomd: &Digest) -> Result<Option<RepoMetadata>> {
        if !self.store.take(&self.store.repodata(repomd))? {
            return Ok(None);
        }
        let parsed = self.stored_repomd(repomd)?;
        if !self.store.take(&self.kept(&primary_of(&parsed)?.checksum))? {
            return Ok(None);
        }
        self.assemble(repo, *repomd, &parsed).map(Some)
    }

    /// Adds the files called `paths` to the packages that have them; without this they have only what primary.xml
    /// selects.
    pub fn filelists(&self, repo: &plan::Repo, metadata: &mut RepoMetadata, paths: &Paths) -> Result<()> {
        let Some((file, data)) = self.further(repo, metadata, "filelists")? else {
            bail!("repository {} has no filelists", repo.id);
        };
        let found = self
            .parsed(
                &data.checksum,
                |kept| filelists::find(&mut BufReader::new(File::open(kept)?), paths),
                || {
                    let index = filelists::index(file, unpacked_limit(&data, FILELISTS_LIMIT))?;
                    Ok((filelists::find(&mut Cursor::new(&index), paths)?, index))
                },
            )
            .with_context(|| format!("reading the filelists of repository {}", repo.id))?;
        metadata.packages.add_files(found);
        Ok(())
    }

    /// Reads the advisories; a repository without updateinfo has none.
    pub fn advisories(&self, repo: &plan::Repo, metadata: &mut RepoMetadata) -> Result<()> {
        let advisories = self.document(repo, metadata, "updateinfo", updateinfo::parse)?;
        metadata.advisories = advisories.unwrap_or_default();
        Ok(())
    }

    /// Reads the groups and environments; a repository without comps has none.
    pub fn comps(&self, repo: &plan::Repo, metadata: &mut RepoMetadata) -> Result<()> {
        // the same document, but for compression
        for kind in ["group_gz", "group"] {
            if let Some(comps) = self.document(repo, metadata, kind, Comps::parse)? {
                metadata.comps = comps;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads the modules; a repository without them has none.
    pub fn modules(&self, repo: &plan::Repo, metadata: &mut RepoMetadata) -> Result<()> {
        metadata.modules = self.document(repo, metadata, "modules", Modules::parse)?.unwrap_or_default();
        Ok(())
    }

    /// What another document of a repository says, if it has one of this kind.
    fn document<T: Serialize + DeserializeOwned>(
        &self,
        repo: &plan::Repo,
        metadata: &RepoMetadata,
        kind: &str,
        parse: impl FnOnce(File, u64) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some((file, data)) = self.further(repo, metadata, kind)? else { return Ok(None) };
        let make = || {
            let value = parse(file, unpacked_limit(&data, DOCUMENT_LIMIT))?;
            let bytes = compact::seal(kind, &value)?;
            Ok((value, bytes))
        };
        let value = self.parsed(&data.checksum, |kept| compact::unseal(kind, &fs::read(kept)?), make);
        value.with_context(|| format!("reading the {kind} of repository {}", repo.id)).map(Some)
    }

    /// Brings packages into the store, verified. The first failure, in the order given, is returned; others
    /// are given up.
    pub fn packages(&self, wanted: &[Wanted<'_>], progress: &dyn Progress) -> Result<()> {
        let total = wanted.iter().fold(0, |sum: u64, w| sum.saturating_add(w.package.size));
        progress.start("fetching packages", total, Unit::Bytes);
        in_parallel(self.options.jobs, wanted, |wanted| self.package(wanted, progress))?;
        progress.finish(&format!("{} packages fetched and verified", wanted.len()));
        Ok(())
    }

    /// Brings the keys of a repository into the store, if its packages are to be signed.
    pub fn keys(&self, repo: &plan::Repo) -> Result<()> {
        let trust = self.source(repo).trust(&self.store);
        trust.map(drop).with_context(|| format!("fetching the keys of repository {}", repo.id))
    }

    /// Copies packages that are in the store to `DIR/REPO/LOCATION`, for a build that has neither network nor
    /// this store.
    pub fn vendor(&self, wanted: &[Wanted<'_>], dir: &Path) -> Result<()> {
        in_parallel(self.options.jobs, wanted, |wanted| {
            let target = dir.join(vendored(wanted.package)?);
            copy(&self.store.rpm(&digest(wanted.package)?), &target)
                .with_context(|| format!("vendoring {} to {}", wanted.package.nevra(), target.display()))
        })
    }

    fn source(&self, repo: &plan::Repo) -> Arc<Source> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, source)) = sources.iter().find(|(known, _)| known == repo) {
            return source.clone();
        }
        let source = Arc::new(Source::new(repo, (!self.options.offline).then_some(self.options.patience)));
        sources.push((repo.clone(), source.clone()));
        source
    }

    /// Where a metadata file with this checksum is kept.
    fn kept(&self, checksum: &Checksum) -> PathBuf {
        match checksum {
            Checksum::Sha256(digest) => self.store.repodata(digest),
            Checksum::Sha512(_) => self.store.root().join("repodata").join(checksum.hex()),
        }
    }

    /// A metadata file in the store, downloaded if need be.
    fn bring(&self, source: &Source, data: &DataFile, advance: &dyn Fn(u64)) -> Result<File> {
        let kept = self.kept(&data.checksum);
        if !self.store.take(&kept)? {
            let file = Expected { checksum: data.checksum, size: data.size };
            persist(self.download(source, &data.location, file, advance)?, &kept)?;
        }
        File::open(&kept).with_context(|| format!("opening {}", kept.display()))
    }

    fn stored_repomd(&self, digest: &Digest) -> Result<Repomd> {
        let path = self.store.repodata(digest);
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Repomd::parse(&text).with_context(|| format!("parsing {}", path.display()))
    }

    /// Parses what the store holds.
    fn assemble(&self, repo: &plan::Repo, digest: Digest, repomd: &Repomd) -> Result<RepoMetadata> {
        let data = primary_of(repomd)?;
        let parse = || {
            let path = self.kept(&data.checksum);
            let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            let compact = primary::parse(file, unpacked_limit(data, DOCUMENT_LIMIT))?;
            Ok((Packages::read(compact.clone())?, compact))
        };
        let mut packages = self
            .parsed(&data.checksum, |kept| Packages::read(fs::read(kept)?), parse)
            .with_context(|| format!("reading primary.xml of repository {}", repo.id))?;
        filter::apply(&mut packages, &repo.includepkgs, &repo.excludepkgs)
            .with_context(|| format!("filtering repository {} ({})", repo.id, repo.origin))?;
        Ok(RepoMetadata {
            id: repo.id.clone(),
            revision: repomd.revision,
            repomd: digest,
            priority: repo.priority,
            cost: repo.cost,
            module_hotfixes: repo.module_hotfixes,
            packages,
            advisories: Vec::new(),
            comps: Comps::default(),
            modules: Modules::default(),
        })
    }

    /// What a document says: read from its parsed form in the store, else made from the document together with that
    /// form.
    fn parsed<T>(
        &self,
        checksum: &Checksum,
        read: impl FnOnce(&Path) -> Result<T>,
        make: impl FnOnce() -> Result<(T, Vec<u8>)>,
    ) -> Result<T> {
        let kept = self.store.parsed(&checksum.hex());
        if self.store.take(&kept)? {
            match read(&kept) {
                Ok(value) => return Ok(value),
                Err(error) => tracing::info!(kept = %kept.display(), "{error:#}: parsing again"),
            }
        }
        let (value, bytes) = make()?;
        // not synced: what is damaged is made again
        let mut file = self.store.temp_file()?;
        file.write_all(&bytes)
            .and_then(|()| Ok(file.persist(&kept)?))
            .with_context(|| format!("writing {}", kept.display()))?;
        Ok(value)
    }

    /// Another file of the same revision as `metadata`.
    fn further(
        &self,
        repo: &plan::Repo,
        metadata: &RepoMetadata,
        kind: &str,
    ) -> Result<Option<(File, DataFile)>> {
        let mut repomd = self.stored_repomd(&metadata.repomd)?;
        let Some(data) = repomd.data.remove(kind) else { return Ok(None) };
        let file = self
            .bring(&self.source(repo), &data, &|_| {})
            .with_context(|| format!("fetching the {kind} of repository {}", repo.id))?;
        Ok(Some((file, data)))
    }

    fn package(&self, wanted: &Wanted<'_>, progress: &dyn Progress) -> Result<()> {
        let package = wanted.package;
        let what = || format!("fetching {} from {}", package.nevra(), package.repo);
        let fetch = || {
            let target = self.store.rpm(&digest(package)?);
            if !self.store.take(&target)? {
                return persist(self.obtain(wanted, progress)?, &target);
            }
            let file = File::open(&target).with_context(|| format!("opening {}", target.display()))?;
            progress.advance(package.size);
            verify::header(&file, package, self.trust(wanted)?.as_deref()).map(drop)
        };
        fetch().or_else(|error| match error.downcast_ref::<Refusal>().map(Refusal::advice) {
            Some(advice) => Err(error).hint(what(), advice),
            None => Err(error.context(what())),
        })
    }

    fn trust(&self, wanted: &Wanted<'_>) -> Result<Option<Arc<keyring::Keyring>>> {
        match wanted.place {
            Place::Repo(repo) => self.source(repo).trust(&self.store),
            Place::Manifests(_) => Ok(None),
        }
    }

    /// The package as a verified temporary file.
    fn obtain(&self, wanted: &Wanted<'_>, progress: &dyn Progress) -> Result<NamedTempFile> {
        let package = wanted.package;
        let location = location(&package.location)?;
        let file = Expected { checksum: Checksum::Sha256(digest(package)?), size: Some(package.size) };
        let trust = self.trust(wanted)?;
        let advance = |n| progress.advance(n);
        let download = |repo: &plan::Repo, location: &str| {
            let file = self.download(&self.source(repo), location, file, &advance)?;
            verify::package(file.as_file(), package, trust.as_deref())?;
            Ok(file)
        };
        let local = |path: &Path| {
            let from = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            let (mut body, to) = (Body::File(from), self.store.temp_file()?);
            let received = receive(&mut body, to.as_file(), file, &advance)
                .and_then(|()| verify::package(to.as_file(), package, trust.as_deref()));
            received.with_context(|| format!("checking {}", path.display()))?;
            Ok(to)
        };
        let vendored = self.vendor.as_ref().map(|vendor| vendor.find(package)).transpose()?.flatten();
        if let Some(path) = vendored {
            let taken = local(&path);
            // one that was damaged since is fetched again where that is possible
            if taken.is_ok() || self.options.offline {
                return taken;
            }
        }
        match wanted.place {
            Place::Manifests(dir) => local(&dir.join(location)),
            Place::Repo(_) if self.options.offline => Err(self.not_at_hand()),
            Place::Repo(repo) => {
                let mut result = download(repo, &location);
                for (repo, location) in &wanted.further {
                    if let Err(error) = &result {
                        tracing::debug!(repo = repo.id, location, error = format!("{error:#}"), "elsewhere");
                        result = download(repo, location).or(result);
                    }
                }
                result
            }
        }
    }

    /// Where a package can be had, in words: `the store`, `the vendor folder`, `repository ose`, `https://...`.
    /// What it has there is not looked at.
    pub fn whereabouts(&self, wanted: &Wanted<'_>) -> Option<String> {
        let package = wanted.package;
        if package.sha256.is_some_and(|digest| self.store.rpm(&digest).exists()) {
            return Some("the store".to_owned());
        }
        if self.vendor.as_ref().is_some_and(|vendor| vendor.find(package).is_ok_and(|file| file.is_some())) {
            return Some("the vendor folder".to_owned());
        }
        let own = match wanted.place {
            Place::Repo(repo) => Some((repo.clone(), package.location.clone())),
            Place::Manifests(_) => None,
        };
        let mut places = own.iter().chain(&wanted.further).filter(|_| !self.options.offline);
        let place = places.find(|(repo, location)| self.source(repo).get(location, || 0, |_| Ok(())).is_ok());
        place.map(|(repo, _)| match &repo.baseurl[..] {
            [url] => url.clone(),
            _ => format!("repository {}", repo.id),
        })
    }

    fn not_at_hand(&self) -> anyhow::Error {
        let place = match &self.vendor {
            Some(vendor) => format!("neither in the store nor below {}", vendor.dir().display()),
            None => "not in the store".to_owned(),
        };
        hinted(
            format!("the package is {place}, and no repository is used with --offline"),
            "run `strata fetch` while the repositories can be reached",
        )
    }

    /// The file at a location of a repository. What breaks off stays in the store, for a later run to go on with.
    fn download(
        &self,
        source: &Source,
        location: &str,
        expected: Expected,
        advance: &dyn Fn(u64),
    ) -> Result<NamedTempFile> {
        let file = self.store.partial_file(&expected.checksum.hex())?;
        let there = || {
            let length = file.as_file().metadata().map_or(0, |metadata| metadata.len());
            // of what is complete, or more, nothing can be asked for
            if expected.size.is_some_and(|size| length >= size) { 0 } else { length }
        };
        let received = source.get(location, there, |mut body| {
            receive(&mut body, file.as_file(), expected, advance)
                .with_context(|| format!("checking {location}"))
        });
        match received {
            Ok(()) => Ok(file),
            Err(error) => {
                if error.downcast_ref::<Refusal>().is_none() && there() > 0 {
                    file.keep().context("keeping what came of it")?;
                }
                Err(error)
            }
        }
    }
}

/// What a file is to be.
#[derive(Clone, Copy)]
struct Expected {
    checksum: Checksum,
    /// In bytes, if it is known.
    size: Option<u64>,
}

/// Writes `body` to a file, where it begins, and what is there from there on is replaced; then the file must have exactly
/// the bytes expected.
fn receive(body: &mut Body, out: &File, expected: Expected, advance: &dyn Fn(u64)) -> Result<()> {
    let limit = expected.size.unwrap_or(DOCUMENT_LIMIT);
    let start = body.start();
    out.set_len(start).context("writing to the store")?;
    let mut hasher = expected.checksum.hasher();
    let mut there = out;
    there.rewind()?;
    let mut found = 0;
    let mut copy = |from: &mut dyn Read, to: &mut dyn Write| -> Result<()> {
        let mut buffer = vec![0; 128 << 10];
        loop {
            let n = from.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            found += n as u64;
            if found > limit {
                return Err(Refusal::Oversize { expected: limit }.into());
            }
            hasher.update(&buffer[..n]);
            to.write_all(&buffer[..n]).context("writing to the store")?;
            advance(n as u64);
        }
    };
    copy(&mut there, &mut io::sink())?;
    // shared blocks instead of a copy, where the file system can; what is hashed is the clone
    let is_cloned = matches!(&*body, Body::File(file) if rustix::fs::ioctl_ficlone(out, file).is_ok());
    match is_cloned {
        true => copy(&mut there, &mut io::sink())?,
        false => copy(body, &mut there)?,
    }
    if let Some(expected) = expected.size.filter(|size| *size != found) {
        return Err(Refusal::Truncated { expected, found }.into());
    }
    let digest = hasher.finish();
    if digest == expected.checksum {
        return Ok(());
    }
    out.set_len(0).context("writing to the store")?;
    let (expected, found) = (expected.checksum.to_string(), digest.to_string());
    Err(if start > 0 { Refusal::Resumed } else { Refusal::Checksum { expected, found } }.into())
}

fn primary_of(repomd: &Repomd) -> Result<&DataFile> {
    repomd.data.get("primary").context("repomd.xml lists no primary")
}

fn unpacked_limit(data: &DataFile, most: u64) -> u64 {
    data.open_size.unwrap_or(most).min(most)
}

fn digest(package: &LockedPackage) -> Result<Digest> {
    package.sha256.with_context(|| format!("the lockfile has no digest of {}", package.nevra()))
}

/// Copies a file, sharing its blocks where the file system can; one with the same bytes stays.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let digest = |path| File::open(path).and_then(|mut file| Digest::of_reader(&mut file));
    if to.exists() && digest(to)? == digest(from)? {
        return Ok(());
    }
    let dir = to.parent().context("the target has no directory")?;
    fs::create_dir_all(dir)?;
    let (mut file, mut source) = (beside(to)?, File::open(from)?);
    if rustix::fs::ioctl_ficlone(&file, &source).is_err() {
        io::copy(&mut source, &mut file)?;
    }
    persist(file, to)
}

/// Runs `work` on all items, `jobs` at a time. After a failure no further item is begun, and the failure of
/// the first item in order is returned.
fn in_parallel<T: Sync>(jobs: usize, items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(BTreeMap::new());
    let lock = || failures.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some((i, item)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    items.get(i).map(|item| (i, item))
                } {
                    if let Err(error) = work(item) {
                        next.store(items.len(), Ordering::Relaxed);
                        lock().insert(i, error);
                    }
                }
            });
        }
    });
    match lock().pop_first() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// A value made when it is first asked for; a failure to make it is not kept.
struct Lazy<T>(Mutex<Option<Arc<T>>>);

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Lazy<T> {
    fn get(&self, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = &*slot {
            return Ok(value.clone());
        }
        let value = Arc::new(make()?);
        *slot = Some(value.clone());
        Ok(value)
    }
}
