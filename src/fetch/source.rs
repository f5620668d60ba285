//! A repository as a place to get files from: its mirrors and its keys.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use reqwest::Url;

use super::Lazy;
use super::keyring::Keyring;
use super::transport::{Body, Transport, below};
use crate::digest::Digest;
use crate::error::{HintExt, hinted};
use crate::plan;
use crate::repo::mirrors::{self, Metalink};
use crate::repo::repomd::Repomd;
use crate::store::{Store, write_atomically};

/// Bytes of a list of mirrors, of a key file, of repomd.xml.
const SMALL: u64 = 4 << 20;

pub(super) struct Source {
    repo: plan::Repo,
    offline: bool,
    transport: Transport,
    mirrors: Lazy<Metalink>,
    keys: Lazy<Keyring>,
}

impl Source {
    pub fn new(repo: &plan::Repo, offline: bool) -> Self {
        Self {
            repo: repo.clone(),
            offline,
            transport: Transport::new(repo, offline),
            mirrors: Lazy::default(),
            keys: Lazy::default(),
        }
    }

    /// The current repomd.xml, as it is and parsed; its signature checked if the repository asks for it.
    pub fn repomd(&self, store: &Store) -> Result<(Vec<u8>, Repomd)> {
        let mirrors = self.mirrors()?;
        self.each_mirror(|base| {
            let url = below(base, "repodata/repomd.xml")?;
            let text = self.transport.get(&url, |body| body.bytes(SMALL))?;
            if !mirrors.repomd.is_empty() && !mirrors.repomd.iter().any(|sum| sum.is_of(&text)) {
                bail!("{url} is not the repomd.xml that the metalink describes");
            }
            if self.repo.repo_gpgcheck {
                let asc = below(base, "repodata/repomd.xml.asc")?;
                let signature = self.transport.get(&asc, |body| body.bytes(SMALL))?;
                self.keys(store)?.verify(&text, &signature).hint(
                    format!("verifying {url}"),
                    "the repository says `repo_gpgcheck = true`: its metadata must be signed with one of its `gpgkey`",
                )?;
            }
            let repomd = Repomd::parse(&text).with_context(|| format!("parsing {url}"))?;
            Ok((text, repomd))
        })
    }

    /// Gives the file at `location` to `receive`, from the first mirror with which that succeeds.
    pub fn get<T>(&self, location: &str, mut receive: impl FnMut(Body) -> Result<T>) -> Result<T> {
        self.each_mirror(|base| self.transport.get(&below(base, location)?, &mut receive))
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
