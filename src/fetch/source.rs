//! A repository as a place to get files from: its mirrors and its keys.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::Lazy;
use super::keyring::Keyring;
use super::transport::{Body, Transport, Validators, below};
use crate::digest::Digest;
use crate::error::{HintExt, hinted};
use crate::plan;
use crate::repo::mirrors::{self, Metalink};
use crate::repo::repomd::{Checksum, Repomd};
use crate::store::{Store, write_atomically};

/// Bytes of a list of mirrors, of a key file, of repomd.xml.
const SMALL: u64 = 4 << 20;

/// A repomd.xml that is to be taken.
pub(super) struct Current {
    pub text: Vec<u8>,
    pub repomd: Repomd,
    pub seen: Seen,
}

/// What the store remembers of the newest repomd.xml of a repository.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Where it was.
    url: String,
    validators: Validators,
    pub repomd: Digest,
    revision: u64,
}

pub(super) struct Source {
    repo: plan::Repo,
    offline: bool,
    transport: Transport,
    mirrors: Lazy<Metalink>,
    keys: Lazy<Keyring>,
}

impl Source {
    /// Without patience, no network is used.
    pub fn new(repo: &plan::Repo, patience: Option<Duration>) -> Self {
        Self {
            repo: repo.clone(),
            offline: patience.is_none(),
            transport: Transport::new(repo, patience),
            mirrors: Lazy::default(),
            keys: Lazy::default(),
        }
    }

    /// The current repomd.xml; its signature checked if the repository asks for it.
    ///
    /// It is not downloaded again as long as the server says that it is the one seen last. One older than that is from a
    /// mirror that has fallen behind, and not taken; nor is one that the metalink lists as older, as long as any mirror
    /// has a newer.
    pub fn repomd(&self, store: &Store) -> Result<Current> {
        let mirrors = self.mirrors()?;
        let seen = self.seen(store);
        let attempt =
            |listed: &[Checksum]| self.each_mirror(|base| self.repomd_at(base, store, seen.as_ref(), listed));
        match mirrors.repomd.as_slice() {
            [newest, _, ..] => attempt(std::slice::from_ref(newest)).or_else(|_| attempt(&mirrors.repomd)),
            listed => attempt(listed),
        }
    }

    /// `listed` are the checksums the metalink allows, if it has any.
    fn repomd_at(
        &self,
        base: &str,
        store: &Store,
        seen: Option<&Seen>,
        listed: &[Checksum],
    ) -> Result<Current> {
        let url = below(base, "repodata/repomd.xml")?;
        let same = match seen.filter(|seen| seen.url == url.as_str()) {
            Some(seen) => store.take(&store.repodata(&seen.repomd))?.then_some(seen),
            None => None,
        };
        let validators = same.map(|seen| seen.validators.clone()).unwrap_or_default();
        let got = self
            .transport
            .get_unless(&url, &validators, |body| Ok((body.validators(), body.bytes(SMALL)?)))?;
        let (validators, text) = match (got, same) {
            (Some(got), _) => got,
            (None, Some(seen)) => {
                let kept = store.repodata(&seen.repomd);
                (validators, std::fs::read(&kept).with_context(|| format!("reading {}", kept.display()))?)
            }
            (None, None) => bail!("getting {url}: the server says it has not changed, which nobody asked"),
        };
        if !listed.is_empty() && !listed.iter().any(|sum| sum.is_of(&text)) {
            bail!("{url} is not the repomd.xml that the metalink describes");
        }
        if self.repo.repo_gpgcheck {
            let asc = below(base, "repodata/repomd.xml.asc")?;
            let signature = self.transport.get(&asc, |body| body.bytes(SMALL))?;
            self.keys(store)?.verify(&text[..], &signature).hint(
                format!("verifying {url}"),
                "the repository says `repo_gpgcheck = true`: its metadata must be signed with one of its `gpgkey`",
            )?;
        }
        let repomd = Repomd::parse(&text).with_context(|| format!("parsing {url}"))?;
        if let Some(newer) = seen.filter(|seen| seen.revision > repomd.revision) {
            let (old, new, file) = (repomd.revision, newer.revision, self.seen_file(store));
            return Err(hinted(
                format!("{url} is stale: its revision is {old}, that seen before was {new}"),
                format!(
                    "try again later; if the repository was set back on purpose, delete {}",
                    file.display()
                ),
            ));
        }
        let seen = Seen { url: url.into(), validators, repomd: Digest::of(&text), revision: repomd.revision };
        Ok(Current { text, repomd, seen })
    }

    /// Remembers what was the newest, once all of it is in the store. A local directory is what it is.
    pub fn remember(&self, seen: &Seen, store: &Store) -> Result<()> {
        match seen.url.starts_with("file:") {
            true => Ok(()),
            false => write_atomically(&self.seen_file(store), &serde_json::to_vec(seen)?),
        }
    }

    /// What a former run saw, if that can be read: otherwise everything is new.
    fn seen(&self, store: &Store) -> Option<Seen> {
        serde_json::from_slice(&std::fs::read(self.seen_file(store)).ok()?).ok()
    }

    fn seen_file(&self, store: &Store) -> PathBuf {
        let plan::Repo { baseurl, mirrorlist, metalink, .. } = &self.repo;
        store.seen(&Digest::of(format!("{baseurl:?} {mirrorlist:?} {metalink:?}")))
    }

    /// Gives the file at `location` to `receive`, from the first mirror with which that succeeds; from the byte on that
    /// `start` gives, where that can be.
    pub fn get<T>(
        &self,
        location: &str,
        start: impl Fn() -> u64,
        mut receive: impl FnMut(Body) -> Result<T>,
    ) -> Result<T> {
        self.each_mirror(|base| self.transport.get_from(&below(base, location)?, &start, &mut receive))
    }

    /// The keys packages must be signed with; none if they need not be signed.
    pub fn trust(&self, store: &Store) -> Result<Option<Arc<Keyring>>> {
        self.repo.gpgcheck.then(|| self.keys(store)).transpose()
    }

    fn each_mirror<T>(&self, mut attempt: impl FnMut(&str) -> Result<T>) -> Result<T> {
        let mirrors = self.mirrors()?;
        let mut failure = anyhow::anyhow!("repository {} has no base URL", self.repo.id);
        for base in &mirrors.bases {
            match attempt(base) {
                Ok(value) => return Ok(value),
                Err(error) => {
                    tracing::debug!(base, error = format!("{error:#}"), "mirror failed");
                    failure = error;
                }
            }
        }
        match mirrors.bases.len() {
            0 | 1 => Err(failure),
            n => {
                Err(failure.context(format!("all {n} mirrors of {} failed, the last of them", self.repo.id)))
            }
        }
    }

    fn mirrors(&self) -> Result<Arc<Metalink>> {
        self.mirrors.get(|| {
            let mut mirrors = Metalink { bases: self.repo.baseurl.clone(), repomd: Vec::new() };
            if let Some(url) = &self.repo.mirrorlist {
                mirrors.bases.extend(mirrors::mirrorlist(&String::from_utf8_lossy(&self.small(url)?)));
            }
            if let Some(url) = &self.repo.metalink {
                let metalink = self.small(url).and_then(|text| mirrors::metalink(&text));
                let metalink = metalink.with_context(|| format!("reading the metalink {url}"))?;
                mirrors.bases.extend(metalink.bases);
                mirrors.repomd = metalink.repomd;
            }
            Ok(mirrors)
        })
    }

    fn keys(&self, store: &Store) -> Result<Arc<Keyring>> {
        self.keys.get(|| {
            if self.repo.gpgkey.is_empty() {
                let advice =
                    "name it with `gpgkey = [...]`, or take its packages on trust with `gpgcheck = false`";
                return Err(hinted(format!("repository {} names no key", self.repo.id), advice));
            }
            let mut keys = Keyring::default();
            for url in &self.repo.gpgkey {
                let key = self.key(url, store).and_then(|file| keys.add(&file));
                key.hint(
                    format!("reading the key {url} of repository {} ({})", self.repo.id, self.repo.origin),
                    "`gpgkey` names the OpenPGP public key that the repository's packages are signed with",
                )?;
            }
            Ok(keys)
        })
    }

    /// A key file. One from the network is kept in the store, for `--offline`.
    fn key(&self, url: &str, store: &Store) -> Result<Vec<u8>> {
        let is_remote = !url.starts_with("file:");
        let kept = store.key(&Digest::of(url));
        if is_remote && self.offline && kept.exists() {
            return std::fs::read(&kept).with_context(|| format!("reading {}", kept.display()));
        }
        let file = self.small(url)?;
        if is_remote {
            write_atomically(&kept, &file)?;
        }
        Ok(file)
    }

    fn small(&self, url: &str) -> Result<Vec<u8>> {
        let url = Url::parse(url).with_context(|| format!("reading the URL {url}"))?;
        self.transport.get(&url, |body| body.bytes(SMALL))
    }
}
