//! Bytes from `file://` and `http(s)://` URLs.
//!
//! Downloading is blocking code that reads a [`Body`]; asynchrony ends here. reqwest runs on one
//! current-thread runtime, driven by whichever download waits for data.
//!
//! A request that fails in a way that may pass is made again, a body that breaks off is continued where it ended
//! (RFC 9110, 14.2: `Range` with `If-Range`), so that who reads it does not notice. Credentials go to the servers that
//! the stream names, and to no other: not to where a redirect leads, and the mirrors of a list get a client
//! certificate at most, which gives nothing away.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::runtime::{self, Runtime};

use super::Lazy;
use super::credentials;
use super::verify::Refusal;
use crate::error::hinted;
use crate::plan;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes a second below which a server is as good as silent: dnf's `minrate`.
const LEAST_RATE: f64 = 1000.0;

/// Waits before the second, third and fourth attempt at one URL.
const BACKOFF: [Duration; 3] = [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4)];

/// A server that asks for more patience than this is given up.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

const REDIRECTS: usize = 10;

/// The way to the servers of one repository: its certificates, and connections kept open.
pub struct Transport {
    repo: plan::Repo,
    /// None: use no network.
    patience: Option<Duration>,
    http: Lazy<Http>,
}

/// What requests are made with, and the runtime they work on.
pub struct Http {
    runtime: Runtime,
    client: Client,
    /// The same without the client certificate.
    anonymous: Client,
    /// Goes to the servers that the stream names.
    credentials: HeaderMap,
    /// Their scheme, host and port.
    named: HashSet<String>,
    patience: Duration,
}

/// What a URL yields.
pub enum Body {
    /// A local file.
    File(File),
    /// A response whose status was success.
    Http(Box<Download>),
}

/// A response that is read, and continued where it breaks off.
pub struct Download {
    http: Arc<Http>,
    url: Url,
    response: Response,
    /// What is left of the current chunk.
    chunk: io::Cursor<Vec<u8>>,
    /// Bytes received.
    received: u64,
    pace: Pace,
    waits: std::slice::Iter<'static, Duration>,
}

/// By what a server tells whether a file is still the one it sent before (RFC 9110, 8.8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    etag: Option<String>,
    last_modified: Option<String>,
}

/// The server answered, but not with the file.
#[derive(Debug, thiserror::Error)]
#[error("the server answered {status}")]
struct BadStatus {
    status: StatusCode,
    /// How long it wants to be left alone.
    retry_after: Option<Duration>,
}

impl Transport {
    /// A transport with the certificates and credentials of `repo`. A server that sends fewer than 1000 bytes a second
    /// for as long as `patience` is given up; without patience no network is used. No socket is opened yet.
    pub fn new(repo: &plan::Repo, patience: Option<Duration>) -> Self {
        Self { repo: repo.clone(), patience, http: Lazy::default() }
    }

    /// Opens `url` and gives what it yields to `receive`. After transient failures, of `receive` too, both
    /// are tried again.
    pub fn get<T>(&self, url: &Url, receive: impl FnMut(Body) -> Result<T>) -> Result<T> {
        let got = self.get_unless(url, &Validators::default(), receive)?;
        got.with_context(|| format!("getting {url}: the server says it has not changed, which nobody asked"))
    }

    /// The same, unless the file is still the one of which the server gave these validators: then nothing.
    pub fn get_unless<T>(
        &self,
        url: &Url,
        known: &Validators,
        mut receive: impl FnMut(Body) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut waits = BACKOFF.iter();
        loop {
            let error = match self.open(url, known).and_then(|body| body.map(&mut receive).transpose()) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match waits.next().and_then(|wait| wait_after(&error, *wait)) {
                Some(wait) => {
                    tracing::debug!(%url, error = format!("{error:#}"), "trying again");
                    std::thread::sleep(wait);
                }
                None => return Err(error.context(format!("getting {url}"))),
            }
        }
    }

    fn open(&self, url: &Url, known: &Validators) -> Result<Option<Body>> {
        match (url.scheme(), self.patience) {
            ("file", _) => {
                let Ok(path) = url.to_file_path() else { bail!("a file URL names a path of this machine") };
                let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
                Ok(Some(Body::File(file)))
            }
            ("http" | "https", None) => Err(hinted(
                "no network is used with --offline",
                "run `strata fetch` while there is a network",
            )),
            ("http" | "https", Some(patience)) => {
                let http = self.http.get(|| Http::new(&self.repo, patience))?;
                let response = http.send(url, &known.headers())?;
                match response.status() {
                    StatusCode::NOT_MODIFIED => Ok(None),
                    status if status.is_success() => Ok(Some(Body::Http(Box::new(Download {
                        pace: Pace::new(patience),
                        http,
                        url: url.clone(),
                        response,
                        chunk: io::Cursor::default(),
                        received: 0,
                        waits: BACKOFF.iter(),
                    })))),
                    status => Err(BadStatus { status, retry_after: retry_after(&response) }.into()),
                }
            }
            (other, _) => bail!("scheme `{other}` is not known: expected file, http or https"),
        }
    }
}

impl Http {
    fn new(repo: &plan::Repo, patience: Duration) -> Result<Self> {
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
        let client = |with_certificate| {
            let builder = Client::builder()
                .user_agent(concat!("strata/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(patience)
                // followed by hand, because credentials must stay behind
                .redirect(reqwest::redirect::Policy::none());
            credentials::configure(builder, repo, with_certificate)
                .with_context(|| format!("preparing connections to repository {}", repo.id))
        };
        let stated = repo.baseurl.iter().chain(&repo.mirrorlist).chain(&repo.metalink);
        Ok(Self {
            runtime,
            client: client(true)?,
            anonymous: client(false)?,
            credentials: credentials::headers(repo)?,
            named: stated.filter_map(|url| Some(origin(&Url::parse(url).ok()?))).collect(),
            patience,
        })
    }

    /// Makes a request, and those it is redirected to.
    fn send(&self, url: &Url, headers: &HeaderMap) -> Result<Response> {
        let mut at = url.clone();
        for hop in 0..=REDIRECTS {
            let is_named = self.named.contains(&origin(&at));
            let client = if hop == 0 || is_named { &self.client } else { &self.anonymous };
            let mut request = client.get(at.clone()).headers(headers.clone());
            if is_named {
                request = request.headers(self.credentials.clone());
            }
            // timers are made with the request, so that has to happen inside the runtime too; where a redirect leads
            // may be a secret, so errors do not say it
            let response =
                self.runtime.block_on(async { request.send().await }).map_err(reqwest::Error::without_url)?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let to = response.headers().get(header::LOCATION).context("a redirect leads nowhere")?;
            let to = at.join(to.to_str()?).context("reading where a redirect leads")?;
            match (at.scheme(), to.scheme()) {
                ("https", "http") => bail!("a redirect leads from https to http"),
                (_, "https" | "http") => at = to,
                (_, other) => bail!("a redirect leads to scheme `{other}`"),
            }
        }
        bail!("there are more than {REDIRECTS} redirects")
    }
}

impl Validators {
    fn of(response: &Response) -> Self {
        let text =
            |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self { etag: text(header::ETAG), last_modified: text(header::LAST_MODIFIED) }
    }

    fn headers(&self) -> HeaderMap {
        let pairs = [(header::IF_NONE_MATCH, &self.etag), (header::IF_MODIFIED_SINCE, &self.last_modified)];
        let pair = |(name, value): (HeaderName, &Option<String>)| {
            Some((name, HeaderValue::from_str(value.as_deref()?).ok()?))
        };
        pairs.into_iter().filter_map(pair).collect()
    }

    /// What proves byte by byte that a file is the same: a weak tag does not.
    fn strong(&self) -> Option<HeaderValue> {
        let tag = self.etag.as_deref().filter(|tag| !tag.starts_with("W/"));
        HeaderValue::from_str(tag.or(self.last_modified.as_deref())?).ok()
    }
}

impl Download {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let began = Instant::now();
            let (http, left) = (&self.http, self.pace.left());
            let response = &mut self.response;
            let got = http.runtime.block_on(async { tokio::time::timeout(left, response.chunk()).await });
            let chunk = got.ok().transpose().map_err(|e| io::Error::other(e.without_url()))?;
            let length = chunk.as_ref().map_or(0, |chunk| chunk.as_ref().map_or(0, |bytes| bytes.len()));
            self.pace.count(began.elapsed(), length as u64)?;
            if let Some(chunk) = chunk {
                return Ok(chunk.map(Into::into));
            }
        }
    }

    /// Goes on with a new response where the one so far broke off; `error` is why it did.
    fn resume(&mut self, error: io::Error) -> io::Result<()> {
        let (Some(validator), true) = (Validators::of(&self.response).strong(), self.received > 0) else {
            return Err(error);
        };
        let Some(wait) = self.waits.next() else { return Err(error) };
        tracing::debug!(url = %self.url, received = self.received, %error, "going on");
        std::thread::sleep(*wait);
        let range = format!("bytes={}-", self.received);
        let range = HeaderValue::from_str(&range).map_err(io::Error::other)?;
        let headers = HeaderMap::from_iter([(header::RANGE, range), (header::IF_RANGE, validator)]);
        let Ok(response) = self.http.send(&self.url, &headers) else { return Err(error) };
        let part = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let is_rest = part.is_some_and(|part| part.starts_with(&format!("bytes {}-", self.received)));
        if response.status() != StatusCode::PARTIAL_CONTENT || !is_rest {
            return Err(error);
        }
        self.response = response;
        self.pace = Pace::new(self.http.patience);
        Ok(())
    }
}

impl Read for Download {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.chunk.read(out)?;
            if n > 0 || out.is_empty() {
                return Ok(n);
            }
            match self.next() {
                Ok(Some(next)) => {
                    self.received += next.len() as u64;
                    self.chunk = io::Cursor::new(next);
                }
                Ok(None) => return Ok(0),
                Err(error) => self.resume(error)?,
            }
        }
    }
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(out),
            Self::Http(download) => download.read(out),
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

    /// By what the server will know it again.
    pub fn validators(&self) -> Validators {
        match self {
            Self::File(_) => Validators::default(),
            Self::Http(download) => Validators::of(&download.response),
        }
    }
}

/// How fast data come in while somebody waits for them.
#[derive(Debug)]
struct Pace {
    patience: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn new(patience: Duration) -> Self {
        Self { patience, waited: Duration::ZERO, bytes: 0 }
    }

    /// How long to wait at most before counting.
    fn left(&self) -> Duration {
        self.patience.saturating_sub(self.waited)
    }

    /// Notes what came after a wait; an error if that is too little for too long.
    fn count(&mut self, waited: Duration, bytes: u64) -> io::Result<()> {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < self.patience {
            return Ok(());
        }
        let seconds = self.waited.as_secs_f64();
        if (self.bytes as f64) < LEAST_RATE * seconds {
            let message = format!("the server sent only {} bytes in {seconds:.0} seconds", self.bytes);
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        *self = Self::new(self.patience);
        Ok(())
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The `Retry-After` of a response, if it is in seconds: a date would need a clock that agrees with the server's.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// How long to wait before the same request may succeed; nothing if waiting does not help.
fn wait_after(error: &anyhow::Error, backoff: Duration) -> Option<Duration> {
    if let Some(BadStatus { retry_after: Some(wait), .. }) = error.downcast_ref() {
        return (is_transient(error) && *wait <= LONGEST_WAIT).then(|| backoff.max(*wait));
    }
    is_transient(error).then_some(backoff)
}

/// Whether the same request may succeed a moment later.
fn is_transient(error: &anyhow::Error) -> bool {
    let io_errors = || error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    // rustls says so of a certificate it does not accept, inside an error of hyper-rustls
    let inner = |e: &io::Error| e.get_ref()?.downcast_ref().map(io::Error::kind);
    if io_errors().any(|e| inner(e) == Some(io::ErrorKind::InvalidData)) {
        return false;
    }
    if let Some(BadStatus { status, .. }) = error.downcast_ref() {
        return status.is_server_error()
            || matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    }
    if let Some(Refusal::Truncated { .. }) = error.downcast_ref() {
        return true;
    }
    let requests = error.chain().filter_map(|cause| cause.downcast_ref::<reqwest::Error>());
    let bodies = io_errors().filter_map(|e| e.get_ref()?.downcast_ref());
    io_errors().any(|e| e.kind() == io::ErrorKind::TimedOut)
        || requests.chain(bodies).any(|e| !e.is_redirect() && !e.is_builder())
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

    #[test]
    fn a_trickle_is_no_stream() {
        let second = Duration::from_secs(1);
        let counts = |bytes: [u64; 6]| {
            let mut pace = Pace::new(second * 3);
            bytes.into_iter().try_for_each(|n| pace.count(second, n)).is_ok()
        };
        assert!(counts([3000, 0, 0, 1000, 1000, 1000]));
        assert!(!counts([2999, 0, 0, 9000, 9000, 9000]));
        assert!(!counts([9000, 9000, 9000, 0, 0, 0]));
    }

    #[test]
    fn waits_as_long_as_the_server_says() {
        let second = Duration::from_secs(1);
        let wait = |status: u16, retry_after: Option<u32>| {
            let retry_after = retry_after.map(|n| second * n);
            let status = StatusCode::from_u16(status).unwrap();
            wait_after(&BadStatus { status, retry_after }.into(), second)
        };
        assert_eq!(wait(503, None), Some(second));
        assert_eq!(wait(429, Some(7)), Some(second * 7));
        assert_eq!(wait(429, Some(0)), Some(second));
        assert_eq!(wait(429, Some(3600)), None);
        assert_eq!(wait(404, None), None);
        assert_eq!(wait(404, Some(1)), None);
    }
}
