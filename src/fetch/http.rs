//! The manners of an HTTP client, towards repositories and registries alike: what is asked again and when, and how far
//! redirects are followed.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::fmt::rfc2822;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url};
use tokio::runtime::{self, Runtime};

use super::verify::Refusal;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Waits before the second, third and fourth attempt at one URL.
pub const BACKOFF: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4)];

/// A server that asks for more patience than this is given up.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

const REDIRECTS: usize = 10;

/// The server answered, but not with what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the server answered {status}")]
pub struct BadStatus {
    /// The answer.
    pub status: StatusCode,
    /// How long it wants to be left alone.
    retry_after: Option<Duration>,
}

impl BadStatus {
    /// The answer of a response that is no success.
    pub fn of(response: &Response) -> Self {
        Self { status: response.status(), retry_after: retry_after(response.headers()) }
    }
}

/// What requests are made on, by whoever waits for the answer.
pub fn runtime() -> Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")
}

/// A client that gives up a server which is silent for as long as `patience`. Redirects are not followed: that is
/// [`follow`]'s.
pub fn client(patience: Duration) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("strata/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(patience)
        .redirect(reqwest::redirect::Policy::none())
}

/// Sends a request, and those that it is redirected to. `send` is told where to, and decides what to show to whom.
pub fn follow(url: &Url, mut send: impl FnMut(&Url) -> Result<Response>) -> Result<Response> {
    let mut at = url.clone();
    for _ in 0..=REDIRECTS {
        let response = send(&at)?;
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

/// Makes an attempt, and after failures that may pass further ones.
pub fn persevere<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let mut waits = BACKOFF.iter();
    loop {
        let error = match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let Some(wait) = waits.next().and_then(|wait| wait_after(&error, *wait)) else { return Err(error) };
        tracing::debug!(error = format!("{error:#}"), "trying again");
        std::thread::sleep(wait);
    }
}

/// A header that no log shows. Nor is it in the error: it is a secret.
pub fn sensitive(text: &str) -> Result<HeaderValue> {
    let Ok(mut value) = HeaderValue::from_str(text) else { bail!("it cannot be sent as a header") };
    value.set_sensitive(true);
    Ok(value)
}

/// Scheme, host and port.
pub fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The `Retry-After` of a response. A date is counted from the response's own: the server's clock need not agree with
/// ours.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let after = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text| Some(rfc2822::parse(text).ok()?.timestamp());
    let wait = date(after)?.duration_since(date(text(header::DATE)?)?);
    Some(wait.try_into().unwrap_or(Duration::ZERO))
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
    if let Some(Refusal::Truncated { .. } | Refusal::Resumed) = error.downcast_ref() {
        return true;
    }
    let requests = error.chain().filter_map(|cause| cause.downcast_ref::<reqwest::Error>());
    let bodies = io_errors().filter_map(|e| e.get_ref()?.downcast_ref());
    io_errors().any(|e| e.kind() == io::ErrorKind::TimedOut)
        || requests.chain(bodies).any(|e| !e.is_redirect() && !e.is_builder())
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |after: &str, date: Option<&str>| {
            let pairs = [(header::RETRY_AFTER, Some(after)), (header::DATE, date)];
            let headers = pairs.into_iter().filter_map(|(name, text)| Some((name, text?.parse().unwrap())));
            retry_after(&headers.collect()).map(|wait| wait.as_secs())
        };
        let at = |second: u32| format!("Sun, 06 Nov 1994 08:49:{second:02} GMT");
        assert_eq!(after("120", None), Some(120));
        assert_eq!(after(&at(37), Some(&at(30))), Some(7));
        assert_eq!(after(&at(30), Some(&at(37))), Some(0), "that is over");
        assert_eq!(after(&at(37), None), None, "nobody knows how long that is");
        assert_eq!(after("soon", Some(&at(30))), None);
    }
}
