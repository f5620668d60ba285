//! Registries (OCI distribution-spec), asked manifest by manifest and blob by blob.
//!
//! Registries are spoken to over TLS, with the [`certificates`] of containers-certs.d(5). One on this machine
//! (`localhost`, `127.0.0.1`, `[::1]`) that has none there is spoken to in plain HTTP. Who is asked for a password or a
//! token has them from the [`login`] of containers-auth.json(5); they are shown to the registry and to the server that
//! makes its tokens, and not to where a redirect leads.
//!
//! A registry is believed nothing: no more is read of anything than its descriptor says, and digests are checked by who
//! asks, for which all of it has to be there.

mod certificates;
mod challenge;
mod login;
mod referrers;
mod upload;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::Descriptor;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::runtime::Runtime;

use self::certificates::Certificates;
use self::challenge::Challenge;
use self::login::{Login, Secret};
use super::oci::{MANIFESTS, digest_of};
use crate::digest::Digest;
use crate::error::{HintExt, hinted};
use crate::fetch::http::{self, BadStatus, origin, sensitive};

pub use self::upload::{Begun, Upload};

/// A server that sends nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same while it is sent something: it answers when it has all of that, and has put it away.
const PATIENCE_WITH_UPLOADS: Duration = Duration::from_secs(300);

/// Of errors and tokens, no more than so many bytes are read.
const SMALL: u64 = 64 << 10;

/// A repository of a registry.
pub struct Registry {
    host: String,
    repository: String,
    offline: bool,
    authfile: Option<PathBuf>,
    patience: Duration,
    /// What tokens are to be good for, beside what the registry asks for.
    scopes: Vec<String>,
    connection: OnceLock<Connection>,
}

/// Clients, the runtime they work on, and what they may show.
struct Connection {
    runtime: Runtime,
    client: Client,
    /// The same without the client certificate: for whoever is not the registry.
    stranger: Client,
    /// `https://HOST/v2/REPOSITORY/`
    base: Url,
    login: Option<Login>,
    scopes: Vec<String>,
    /// What the registry asked for last, to be shown with each request.
    authorization: Mutex<Option<HeaderValue>>,
}

impl Registry {
    /// The repository `repository` at `host`, which is not spoken to if `offline`. Credentials are those in `authfile`,
    /// if there is one. No socket is opened yet.
    pub fn new(host: &str, repository: &str, offline: bool, authfile: Option<&Path>) -> Self {
        Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            offline,
            authfile: authfile.map(Path::to_owned),
            patience: PATIENCE,
            scopes: Vec::new(),
            connection: OnceLock::new(),
        }
    }

    /// The same repository, to be written to, also with blobs of the repositories `from` at the same host: registries
    /// take these over only from who shows a token for both.
    pub fn writable<'a>(
        host: &str,
        repository: &str,
        authfile: Option<&Path>,
        from: impl Iterator<Item = &'a str>,
    ) -> Self {
        let scope = |name: &str, actions: &str| format!("repository:{name}:{actions}");
        let scopes = [scope(repository, "pull,push")].into_iter().chain(from.map(|name| scope(name, "pull")));
        Self {
            patience: PATIENCE_WITH_UPLOADS,
            scopes: scopes.collect(),
            ..Self::new(host, repository, false, authfile)
        }
    }

    /// Its host, with port if any.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its path at the host.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The bytes of the manifest or index with this digest, or else with this tag, of which there may be `limit`; a
    /// digest is not yet checked.
    pub fn manifest(&self, digest: Option<&Digest>, tag: &str, limit: u64) -> Result<Vec<u8>> {
        let name = digest.map_or_else(|| tag.to_owned(), Digest::to_string);
        let accept = HeaderValue::from_str(&MANIFESTS.join(", "))?;
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept)]);
        self.attempt(|connection| {
            let response = connection.get(&format!("manifests/{name}"), &headers)?;
            connection.bytes(response, limit)
        })
    }

    /// Writes a blob into an empty file, no more than its size. What came before a connection broke off is kept, and the
    /// rest is asked for; the digest is not yet checked.
    pub fn blob(&self, blob: &Descriptor, to: &mut File) -> Result<()> {
        let path = format!("blobs/{}", digest_of(blob)?);
        self.attempt(|connection| {
            let there = to.stream_position()?;
            let range = HeaderValue::from_str(&format!("bytes={there}-"))?;
            let headers = (there > 0).then_some((header::RANGE, range)).into_iter().collect();
            let response = connection.get(&path, &headers)?;
            let at = match response.status() {
                StatusCode::PARTIAL_CONTENT => there,
                _ => 0,
            };
            to.set_len(at)?;
            to.seek(SeekFrom::Start(at))?;
            let left = blob.size().saturating_sub(at);
            connection.receive(response, left, |bytes| to.write_all(bytes).context("writing it"))
        })
    }

    /// Does what needs the registry; after failures that may pass again.
    fn attempt<T>(&self, mut ask: impl FnMut(&Connection) -> Result<T>) -> Result<T> {
        let connection = self.connection()?;
        let answer = http::persevere(|| ask(connection));
        let what = || format!("asking the registry {} for {}", self.host, self.repository);
        let status = |error: &anyhow::Error| error.downcast_ref().map(|BadStatus { status, .. }| *status);
        let advice = match answer.as_ref().err().and_then(status) {
            Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => self.advice(connection.login.as_ref()),
            Some(StatusCode::BAD_REQUEST) if connection.base.scheme() == "http" => format!(
                "it was asked in plain HTTP; if it expects TLS, put the certificate of who vouches for it into \
                 ~/.config/containers/certs.d/{}/ca.crt",
                self.host
            ),
            _ => return answer.with_context(what),
        };
        answer.hint(what(), advice)
    }

    fn advice(&self, login: Option<&Login>) -> String {
        let host = &self.host;
        let fault = match login {
            Some(login) => format!("it does not accept {login}"),
            None => "there are no credentials for it".to_owned(),
        };
        format!("{fault}: log in with `podman login {host}`, or name the file that has them with --authfile")
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
        let certificates = Certificates::of(&self.host)?;
        let scheme = if certificates.is_none() && is_local(&self.host) { "http" } else { "https" };
        let certificates = certificates.unwrap_or_default();
        let client = |is_known| certificates.add_to(http::client(self.patience), is_known).build();
        // docker.io is a name that has no registry behind it
        let host = if self.host == "docker.io" { "registry-1.docker.io" } else { &self.host };
        let base = format!("{scheme}://{host}/v2/{}/", self.repository);
        Ok(Connection {
            runtime: http::runtime()?,
            client: client(true)?,
            stranger: client(false)?,
            base: base.parse().with_context(|| format!("reading the URL {base}"))?,
            login: login::find(&self.host, &self.repository, self.authfile.as_deref())?,
            scopes: self.scopes.clone(),
            authorization: Mutex::default(),
        })
    }
}

/// What a request says, wherever it goes.
#[derive(Default)]
struct Ask {
    method: Method,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Ask {
    fn get(headers: &HeaderMap) -> Self {
        Self { headers: headers.clone(), ..Self::default() }
    }
}

impl Connection {
    /// What is at a path of the repository.
    fn get(&self, path: &str, headers: &HeaderMap) -> Result<Response> {
        self.success(self.ask(&self.at(path)?, &Ask::get(headers))?)
    }

    fn at(&self, path: &str) -> Result<Url> {
        self.base.join(path).with_context(|| format!("reading the path {path}"))
    }

    /// Where an answer to a request to `from` leads.
    fn led(&self, from: &Url, to: &HeaderValue) -> Result<Url> {
        let to = from.join(to.to_str()?).context("reading where the registry leads")?;
        match (self.base.scheme(), to.scheme()) {
            ("https", "http") => bail!("the registry leads from https to http"),
            (_, "https" | "http") => Ok(to),
            (_, other) => bail!("the registry leads to scheme `{other}`"),
        }
    }

    /// The answer to a request, whatever it is. Credentials are shown when they are asked for, and a token is renewed when
    /// it has ended or is not good for this.
    fn ask(&self, url: &Url, ask: &Ask) -> Result<Response> {
        let mut response = self.send(url, ask)?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(authorization) = self.authorize(&response)?
        {
            *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
            response = self.send(url, ask)?;
        }
        Ok(response)
    }

    fn send(&self, url: &Url, ask: &Ask) -> Result<Response> {
        match ask.method {
            Method::GET => http::follow(url, |at| self.send_once(at, ask)),
            _ => self.send_once(url, ask),
        }
    }

    fn send_once(&self, url: &Url, Ask { method, headers, body }: &Ask) -> Result<Response> {
        let is_known = origin(url) == origin(&self.base);
        let client = if is_known { &self.client } else { &self.stranger };
        let mut request = client.request(method.clone(), url.clone()).headers(headers.clone());
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(authorization) = authorization.filter(|_| is_known) {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if *method != Method::GET && *method != Method::HEAD {
            request = request.body(body.clone());
        }
        self.wait(request)
    }

    /// Where a redirect leads may be a secret, so errors do not say it.
    fn wait(&self, request: RequestBuilder) -> Result<Response> {
        // timers are made with the request, so that has to happen inside the runtime too
        let sent = self.runtime.block_on(async { request.send().await });
        Ok(sent.map_err(reqwest::Error::without_url)?)
    }

    /// What a refusal asks for, if there is anything to show.
    fn authorize(&self, refusal: &Response) -> Result<Option<HeaderValue>> {
        let text = match (Challenge::of(refusal.headers())?, self.login.as_ref().map(|login| &login.secret)) {
            (Challenge::Basic, Some(Secret::Password(auth))) => format!("Basic {auth}"),
            (Challenge::Basic, _) => return Ok(None),
            (Challenge::Bearer { mut realm }, secret) => {
                for scope in &self.scopes {
                    realm.query_pairs_mut().append_pair("scope", scope);
                }
                let token = self.token(&realm, secret);
                format!("Bearer {}", token.with_context(|| format!("asking {} for a token", origin(&realm)))?)
            }
        };
        sensitive(&text).map(Some)
    }

    /// A token of the server at `realm`, in exchange for a secret; without one, a token for everybody.
    fn token(&self, realm: &Url, secret: Option<&Secret>) -> Result<String> {
        ensure!(
            realm.scheme() == "https" || self.base.scheme() == "http",
            "credentials are not sent without TLS"
        );
        let client = if origin(realm) == origin(&self.base) { &self.client } else { &self.stranger };
        let request = match secret {
            None => client.get(realm.clone()),
            Some(Secret::Password(auth)) => {
                client.get(realm.clone()).header(header::AUTHORIZATION, sensitive(&format!("Basic {auth}"))?)
            }
            Some(Secret::IdentityToken(identity)) => {
                let (url, form) = challenge::refresh(realm, identity);
                let media_type = "application/x-www-form-urlencoded";
                client.post(url).header(header::CONTENT_TYPE, media_type).body(form)
            }
        };
        let response = self.success(self.wait(request)?)?;
        challenge::token(&self.bytes(response, SMALL)?)
    }

    /// The response, if it is a success; otherwise an error that has what the registry says of it.
    fn success(&self, response: Response) -> Result<Response> {
        if response.status().is_success() {
            return Ok(response);
        }
        let refusal = anyhow::Error::new(BadStatus::of(&response));
        let said = self.bytes(response, SMALL).ok().and_then(|body| complaint(&body));
        Err(match said {
            Some(said) => refusal.context(said),
            None => refusal,
        })
    }

    fn bytes(&self, response: Response, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.receive(response, limit, |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Reads a body, of which there may be `limit` bytes.
    fn receive(
        &self,
        mut response: Response,
        limit: u64,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut received = 0;
        let mut next = || self.runtime.block_on(response.chunk()).map_err(reqwest::Error::without_url);
        while let Some(chunk) = next()? {
            received += chunk.len() as u64;
            ensure!(received <= limit, "the registry sends more than the {limit} bytes expected");
            take(&chunk)?;
        }
        Ok(())
    }
}

/// The first error in a registry's answer (distribution-spec, error codes): `MANIFEST_UNKNOWN: manifest unknown`.
fn complaint(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<Complaint>,
    }
    #[derive(Deserialize)]
    struct Complaint {
        code: String,
        #[serde(default)]
        message: String,
    }
    let Complaint { code, message } =
        serde_json::from_slice::<Answer>(body).ok()?.errors.into_iter().next()?;
    Some(if message.is_empty() { code } else { format!("{code}: {message}") })
}

/// Whether a host, perhaps with its port, is this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    matches!(name, Some("localhost" | "127.0.0.1" | "::1"))
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
