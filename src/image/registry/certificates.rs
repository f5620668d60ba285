//! Certificates of one registry: containers-certs.d(5).
//!
//! A directory `HOST[:PORT]` below one of the usual places has the authorities that vouch for the registry
//! (`NAME.crt`), and what it knows its clients by (`NAME.cert` with its `NAME.key`). All files are PEM.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use reqwest::{Certificate, ClientBuilder, Identity};

use crate::error::HintExt;

/// What is there for a registry.
#[derive(Default)]
pub struct Certificates {
    authorities: Vec<Certificate>,
    client: Option<Identity>,
}

impl Certificates {
    /// Those of the first directory that there is for `host`; nothing if there is none.
    pub fn of(host: &str) -> Result<Option<Self>> {
        let home =
            std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/containers/certs.d"));
        let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        let mut dirs = home.into_iter().chain(system).map(|dir| dir.join(host));
        dirs.find(|dir| dir.is_dir()).map(|dir| Self::read(&dir)).transpose()
    }

    fn read(dir: &Path) -> Result<Self> {
        let entries = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.with_context(|| format!("reading the certificates in {}", dir.display()))?;
        let mut files: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
        files.sort();
        let mut certificates = Self::default();
        for file in files {
            let context = || format!("reading {}", file.display());
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => {
                    let found = Certificate::from_pem_bundle(&fs::read(&file).with_context(context)?);
                    certificates.authorities.extend(found.with_context(context)?);
                }
                // of several the first by name: a client shows one
                Some("cert") if certificates.client.is_none() => {
                    certificates.client = Some(identity(&file)?);
                }
                _ => {}
            }
        }
        Ok(certificates)
    }

    /// Adds them to a client; what it proves itself by only if it `is_known`.
    pub fn add_to(&self, mut builder: ClientBuilder, is_known: bool) -> ClientBuilder {
        builder = builder.tls_certs_merge(self.authorities.iter().cloned());
        match self.client.clone().filter(|_| is_known) {
            Some(identity) => builder.identity(identity),
            None => builder,
        }
    }
}

/// A client certificate, and the key beside it.
fn identity(certificate: &Path) -> Result<Identity> {
    let key = certificate.with_extension("key");
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let key = read(&key).hint(
        format!("using the client certificate {}", certificate.display()),
        "its key has the same name, and ends in .key (containers-certs.d(5))",
    )?;
    Identity::from_pem(&[read(certificate)?, b"\n".to_vec(), key].concat())
        .with_context(|| format!("using the client certificate {}", certificate.display()))
}
