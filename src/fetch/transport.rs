//! Bytes from `file://` and `http(s)://` URLs.
//!
//! Downloading is blocking code that reads a [`Body`]; asynchrony ends here. reqwest runs on one
//! current-thread runtime, driven by whichever download waits for data.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Certificate, Client, Identity, Response, StatusCode, Url};
use tokio::runtime::{self, Runtime};

use super::Lazy;
use crate::error::hinted;
use crate::plan;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// A connection that yields nothing for so long is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits before the second, third and fourth attempt at one URL.
const BACKOFF: [Duration; 3] = [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4)];

/// The way to the servers of one repository: its certificates, and connections kept open.
pub struct Transport {
    repo: plan::Repo,
    offline: bool,
    http: Lazy<Http>,
}

/// A client, and the runtime it works on.
pub struct Http {
    runtime: Runtime,
    client: Client,
}

/// What a URL yields.
pub enum Body {
    /// A local file.
    File(File),
    /// A response whose status was success.
    Http {
        /// Drives the response.
        http: Arc<Http>,
        /// Yields further chunks.
        response: Box<Response>,
        /// What is left of the current one.
        chunk: io::Cursor<Vec<u8>>,
    },
}

/// The server answered, but not with the file.
#[derive(Debug, thiserror::Error)]
#[error("the server answered {0}")]
struct BadStatus(StatusCode);

impl Transport {
    /// A transport with the certificates of `repo`; without network if `offline`. No socket is opened yet.
    pub fn new(repo: &plan::Repo, offline: bool) -> Self {
        Self { repo: repo.clone(), offline, http: Lazy::default() }
    }

    /// Opens `url` and gives what it yields to `receive`. After transient failures, of `receive` too, both
    /// are tried again.
    pub fn get<T>(&self, url: &Url, mut receive: impl FnMut(Body) -> Result<T>) -> Result<T> {
        let mut waits = BACKOFF.iter();
        loop {
            let error = match self.open(url).and_then(&mut receive) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match waits.next() {
                Some(wait) if is_transient(&error) => {
                    tracing::debug!(%url, error = format!("{error:#}"), "trying again");
                    std::thread::sleep(*wait);
                }
                _ => return Err(error.context(format!("getting {url}"))),
            }
        }
    }

    fn open(&self, url: &Url) -> Result<Body> {
        match url.scheme() {
            "file" => {
                let Ok(path) = url.to_file_path() else { bail!("a file URL names a path of this machine") };
                Ok(Body::File(File::open(&path).with_context(|| format!("opening {}", path.display()))?))
            }
            "http" | "https" if self.offline => Err(hinted(
                "no network is used with --offline",
                "run `strata fetch` while there is a network",
            )),
            "http" | "https" => {
                let http = self.http.get(|| Http::new(&self.repo))?;
                // timers are made with the request, so that has to happen inside the runtime too
                let response = http.runtime.block_on(async { http.client.get(url.clone()).send().await })?;
                if !response.status().is_success() {
                    return Err(BadStatus(response.status()).into());
                }
                Ok(Body::Http { http, response: Box::new(response), chunk: io::Cursor::default() })
            }
            other => bail!("scheme `{other}` is not known: expected file, http or https"),
        }
    }
}

impl Http {
    fn new(repo: &plan::Repo) -> Result<Self> {
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
        let client =
            client(repo).with_context(|| format!("preparing connections to repository {}", repo.id))?;
        Ok(Self { runtime, client })
    }
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(out),
            Self::Http { http, response, chunk } => loop {
                let n = chunk.read(out)?;
                if n > 0 || out.is_empty() {
                    return Ok(n);
                }
                match http.runtime.block_on(response.chunk()).map_err(io::Error::other)? {
                    Some(next) => *chunk = io::Cursor::new(next.into()),
                    None => return Ok(0),
                }
            },
        }
    }
}

impl Body {
    /// All of a small file; more than `limit` bytes are an error.
    pub fn bytes(self, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            bail!("it has more than {limit} bytes");
        }
        Ok(bytes)
    }
}

fn client(repo: &plan::Repo) -> Result<Client> {
    let read =
        |path: &std::path::Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let mut builder = Client::builder()
        .user_agent(concat!("strata/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(reqwest::redirect::Policy::custom(|attempt| {
            let was_secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
            if was_secure && attempt.url().scheme() != "https" {
                attempt.error("a redirect leads from https to http")
            } else if attempt.previous().len() > 10 {
                attempt.error("more than 10 redirects")
            } else {
                attempt.follow()
            }
        }))
        .tls_danger_accept_invalid_certs(!repo.sslverify);
    if let Some(path) = &repo.sslcacert {
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(&read(path)?)?);
    }
    if let Some(path) = &repo.sslclientcert {
        let mut pem = read(path)?;
        if let Some(key) = &repo.sslclientkey {
            pem.push(b'\n');
            pem.extend(read(key)?);
        }
        builder = builder.identity(Identity::from_pem(&pem).context("reading the client certificate")?);
    }
    Ok(builder.build()?)
}

/// Whether the same request may succeed a moment later.
fn is_transient(error: &anyhow::Error) -> bool {
    let io_errors = || error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    // rustls says so of a certificate it does not accept, inside an error of hyper-rustls
    let inner = |e: &io::Error| e.get_ref()?.downcast_ref().map(io::Error::kind);
    if io_errors().any(|e| inner(e) == Some(io::ErrorKind::InvalidData)) {
        return false;
    }
    if let Some(BadStatus(status)) = error.downcast_ref() {
        return status.is_server_error()
            || matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    }
    let requests = error.chain().filter_map(|cause| cause.downcast_ref::<reqwest::Error>());
    let bodies = io_errors().filter_map(|e| e.get_ref()?.downcast_ref());
    requests.chain(bodies).any(|e| !e.is_redirect() && !e.is_builder())
}

/// The URL of a file below a base URL. `location` is written into URLs as it is, like dnf does; escapes may
/// not lead out of the base.
pub fn below(base: &str, location: &str) -> Result<Url> {
    let parse = |text: &str| Url::parse(text).with_context(|| format!("reading the URL {text}"));
    let base = parse(&format!("{}/", base.trim_end_matches('/')))?;
    let url = parse(&format!("{base}{}", location.replace('#', "%23").replace('?', "%3f")))?;
    if !url.as_str().starts_with(base.as_str()) {
        bail!("the location `{location}` leaves the repository {base}");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_stay_below_their_base() {
        let url = |location| below("https://host/repo/", location).map(|u| u.to_string());
        assert_eq!(url("a/b+c~1^2.rpm").unwrap(), "https://host/repo/a/b+c~1^2.rpm");
        assert_eq!(url("a#b?c").unwrap(), "https://host/repo/a%23b%3fc");
        for location in ["%2e%2e/x", "a/../../x", "..", "a/%2E%2e/%2e./x"] {
            assert!(url(location).is_err(), "{location}");
        }
    }
}
