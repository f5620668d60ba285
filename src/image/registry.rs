//! Reading images of a registry (OCI distribution-spec), manifest by manifest and blob by blob.
//!
//! Registries are spoken to over TLS. Certificates of private authorities are where the container tools look for
//! them (containers-certs.d(5)): `/etc/containers/certs.d/HOST[:PORT]/*.crt`, the same below
//! `~/.config/containers`, and `/etc/docker/certs.d`. A registry on this machine (`localhost`, `127.0.0.1`, `[::1]`)
//! that has none there is spoken to in plain HTTP.

use std::fs::{self, File};
use std::io::Seek;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use oci_client::Reference;
use oci_client::RegistryOperation;
use oci_client::client::{Certificate, CertificateEncoding, Client, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_spec::image::Descriptor;
use tokio::runtime::{self, Runtime};

use super::oci::MANIFESTS;
use crate::digest::Digest;
use crate::error::hinted;

/// A connection that yields nothing for so long is given up, and one that is not made.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Waits before the second and third attempt.
const BACKOFF: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(3)];

/// A repository of a registry.
pub struct Registry {
    host: String,
    repository: String,
    offline: bool,
    connection: OnceLock<Connection>,
}

/// A client, and the runtime it works on.
struct Connection {
    runtime: Runtime,
    client: Client,
}

impl Registry {
    /// The repository `repository` at `host`, which is not spoken to if `offline`. No socket is opened yet.
    pub fn new(host: &str, repository: &str, offline: bool) -> Self {
        Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            offline,
            connection: OnceLock::new(),
        }
    }

    /// The bytes of the manifest or index with this digest, or else with this tag; a digest is not yet checked.
    pub fn manifest(&self, digest: Option<&Digest>, tag: &str) -> Result<Vec<u8>> {
        let (host, repository) = (self.host.clone(), self.repository.clone());
        let reference = match digest {
            Some(digest) => Reference::with_digest(host, repository, digest.to_string()),
            None => Reference::with_tag(host, repository, tag.to_owned()),
        };
        let bytes = self.attempt(async |client| {
            let (bytes, _) =
                client.pull_manifest_raw(&reference, &RegistryAuth::Anonymous, &MANIFESTS).await?;
            Ok(bytes)
        })?;
        Ok(bytes.into())
    }

    /// Writes a blob into `to`.
    pub fn blob(&self, blob: &Descriptor, to: &mut File) -> Result<()> {
        let digest = blob.digest().to_string();
        let reference = Reference::with_digest(self.host.clone(), self.repository.clone(), digest.clone());
        self.attempt(async |client| {
            to.rewind()?;
            to.set_len(0)?;
            let out = tokio::fs::File::from_std(to.try_clone()?);
            client.auth(&reference, &RegistryAuth::Anonymous, RegistryOperation::Pull).await?;
            Ok(client.pull_blob(&reference, digest.as_str(), out).await?)
        })
    }

    /// Does what needs the registry; a transport that fails gets further attempts.
    fn attempt<T>(&self, mut ask: impl AsyncFnMut(&Client) -> Result<T>) -> Result<T> {
        let Connection { runtime, client } = self.connection()?;
        let mut waits = BACKOFF.iter();
        loop {
            let error = match runtime.block_on(ask(client)) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match waits.next() {
                Some(wait) if is_transient(&error) => {
                    tracing::debug!(host = self.host, error = format!("{error:#}"), "trying again");
                    std::thread::sleep(*wait);
                }
                _ => return Err(error.context(format!("asking the registry {}", self.host))),
            }
        }
    }

    fn connection(&self) -> Result<&Connection> {
        if self.offline {
            return Err(hinted(
                format!("the registry {} is not asked with --offline", self.host),
                "run `strata fetch` while there is a network: it brings the image into the store",
            ));
        }
        if let Some(connection) = self.connection.get() {
            return Ok(connection);
        }
        let connection =
            self.connect().with_context(|| format!("preparing connections to the registry {}", self.host))?;
        Ok(self.connection.get_or_init(|| connection))
    }

    fn connect(&self) -> Result<Connection> {
        let certificates = certificates(&self.host)?;
        let plain = certificates.is_empty() && is_local(&self.host);
        let client = Client::try_from(ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: certificates,
            read_timeout: Some(READ_TIMEOUT),
            connect_timeout: Some(CONNECT_TIMEOUT),
            user_agent: concat!("strata/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        })?;
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
        Ok(Connection { runtime, client })
    }
}

/// Whether a host, perhaps with its port, is this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    matches!(name, Some("localhost" | "127.0.0.1" | "::1"))
}

/// The certificates of authorities that containers-certs.d(5) has for a host.
fn certificates(host: &str) -> Result<Vec<Certificate>> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/containers/certs.d"));
    let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    let mut certificates = Vec::new();
    for dir in home.into_iter().chain(system).map(|dir| dir.join(host)).filter(|dir| dir.is_dir()) {
        let context = || format!("reading the certificates in {}", dir.display());
        for entry in fs::read_dir(&dir).with_context(context)? {
            let file = entry.with_context(context)?.path();
            if file.extension().is_some_and(|extension| extension == "crt") {
                let data = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
                certificates.push(Certificate { encoding: CertificateEncoding::Pem, data });
            }
        }
    }
    Ok(certificates)
}

/// Whether the same request may succeed a moment later.
fn is_transient(error: &anyhow::Error) -> bool {
    use oci_client::errors::OciDistributionError as Error;
    match error.downcast_ref() {
        Some(Error::ServerError { code, .. }) => *code >= 500 || *code == 429,
        Some(Error::RequestError(error)) => !error.is_builder() && !error.is_redirect(),
        Some(Error::IoError(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["quay.io", "localhost.example.com:5000", "127.0.0.1.example.com", "[2001:db8::1]:5000"] {
            assert!(!is_local(host), "{host}");
        }
    }
}
