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
use tokio::runtime::Runtime;

use super::http::{self, BACKOFF, BadStatus, origin};
use super::{Lazy, credentials};
use crate::error::hinted;
use crate::plan;

/// Bytes a second below which a server is as good as silent: dnf's `minrate`.
const LEAST_RATE: f64 = 1000.0;

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
    /// Where in the file it began.
    start: u64,
    /// What is left of the current chunk.
    chunk: io::Cursor<Vec<u8>>,
    /// How much of the file there is, with what was there before.
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

impl Transport {
    /// A transport with the certificates and credentials of `repo`. A server that sends fewer than 1000 bytes a second
    /// for as long as `patience` is given up; without patience no network is used. No socket is opened yet.
    pub fn new(repo: &plan::Repo, patience: Option<Duration>) -> Self {
        Self { repo: repo.clone(), patience, http: Lazy::default() }
    }

    /// Opens `url` and gives what it yields to `receive`. After transient failures, of `receive` too, both
    /// are tried again.
    pub fn get<T>(&self, url: &Url, receive: impl FnMut(Body) -> Result<T>) -> Result<T> {
        self.get_from(url, || 0, receive)
    }

    /// The same, from the byte on that `start` gives, if the server can do that: [`Body::start`] says where it begins.
    pub fn get_from<T>(
        &self,
        url: &Url,
        start: impl Fn() -> u64,
        mut receive: impl FnMut(Body) -> Result<T>,
    ) -> Result<T> {
        http::persevere(|| {
            let range = match start() {
                0 => HeaderMap::new(),
                start => HeaderMap::from_iter([(header::RANGE, from_byte(start))]),
            };
            let body = match self.open(url, &range) {
                // there is nothing so far on: from the beginning, then
                Err(error) if !range.is_empty() && is_beyond(&error) => self.open(url, &HeaderMap::new()),
                opened => opened,
            };
            let body =
                body.and_then(|body| body.context("the server says it has not changed, which nobody asked"));
            body.and_then(&mut receive).with_context(|| format!("getting {url}"))
        })
    }

    /// What `get` does, unless the file is still the one of which the server gave these validators: then nothing.
    pub fn get_unless<T>(
        &self,
        url: &Url,
        known: &Validators,
        mut receive: impl FnMut(Body) -> Result<T>,
    ) -> Result<Option<T>> {
        http::persevere(|| {
            let got = self.open(url, &known.headers()).and_then(|body| body.map(&mut receive).transpose());
            got.with_context(|| format!("getting {url}"))
        })
    }

    fn open(&self, url: &Url, headers: &HeaderMap) -> Result<Option<Body>> {
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
                let response = http.send(url, headers)?;
                match response.status() {
                    StatusCode::NOT_MODIFIED => Ok(None),
                    status if status.is_success() => Ok(Some(Body::Http(Box::new(Download {
                        pace: Pace::new(patience),
                        http,
                        url: url.clone(),
                        start: begins_at(&response),
                        chunk: io::Cursor::default(),
                        received: begins_at(&response),
                        response,
                        waits: BACKOFF.iter(),
                    })))),
                    _ => Err(BadStatus::of(&response).into()),
                }
            }
            (other, _) => bail!("scheme `{other}` is not known: expected file, http or https"),
        }
    }
}

impl Http {
    fn new(repo: &plan::Repo, patience: Duration) -> Result<Self> {
        let client = |with_certificate| {
            let builder = http::client(patience);
            credentials::configure(builder, repo, with_certificate)
                .with_context(|| format!("preparing connections to repository {}", repo.id))
        };
        let stated = repo.baseurl.iter().chain(&repo.mirrorlist).chain(&repo.metalink);
        Ok(Self {
            runtime: http::runtime()?,
            client: client(true)?,
            anonymous: client(false)?,
            credentials: credentials::headers(repo)?,
            named: stated.filter_map(|url| Some(origin(&Url::parse(url).ok()?))).collect(),
            patience,
        })
    }

    /// Makes a request, and those it is redirected to.
    fn send(&self, url: &Url, headers: &HeaderMap) -> Result<Response> {
        http::follow(url, |at| {
            let is_named = self.named.contains(&origin(at));
            // the mirrors of a list may know the certificate, where they lead to may not
            let client = if at == url || is_named { &self.client } else { &self.anonymous };
            let mut request = client.get(at.clone()).headers(headers.clone());
            if is_named {
                request = request.headers(self.credentials.clone());
            }
            // timers are made with the request, so that has to happen inside the runtime too; where a redirect leads
            // may be a secret, so errors do not say it
            let sent = self.runtime.block_on(async { request.send().await });
            Ok(sent.map_err(reqwest::Error::without_url)?)
        })
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
        let (Some(validator), true) = (Validators::of(&self.response).strong(), self.received > self.start)
        else {
            return Err(error);
        };
        let Some(wait) = self.waits.next() else { return Err(error) };
        tracing::debug!(url = %self.url, received = self.received, %error, "going on");
        std::thread::sleep(*wait);
        let range = (header::RANGE, from_byte(self.received));
        let headers = HeaderMap::from_iter([range, (header::IF_RANGE, validator)]);
        let Ok(response) = self.http.send(&self.url, &headers) else { return Err(error) };
        if begins_at(&response) != self.received {
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

    /// Where in the file it begins.
    pub fn start(&self) -> u64 {
        match self {
            Self::File(_) => 0,
            Self::Http(download) => download.start,
        }
    }

    /// By what the server will know it again.
    pub fn validators(&self) -> Validators {
        match self {
            Self::File(_) => Validators::default(),
            Self::Http(download) => Validators::of(&download.response),
        }
    }
}

/// `bytes=START-` (RFC 9110, 14.1.2)
fn from_byte(start: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("bytes={start}-")).expect("digits are fine in a header")
}

/// Where in its file the body of a response begins: `Content-Range: bytes START-END/SIZE` (RFC 9110, 14.4).
fn begins_at(response: &Response) -> u64 {
    let part = || {
        let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
        range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
    };
    match response.status() {
        StatusCode::PARTIAL_CONTENT => part().unwrap_or_default(),
        _ => 0,
    }
}

fn is_beyond(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(|BadStatus { status, .. }| *status == StatusCode::RANGE_NOT_SATISFIABLE)
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
}
