//! Writing to a registry (distribution-spec, "Push"): blobs, piece by piece, and manifests.
//!
//! A blob of one piece is sent with one request, others by one request for each piece; the last piece ends the upload.
//! When a request fails in a way that may pass, the registry is asked how much it has. One that has forgotten the upload
//! gets another.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use anyhow::{Context, Result, ensure};
use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder, MediaType};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};

use super::referrers::tag_of_referrers;
use super::{Ask, Connection, Registry};
use crate::digest::Digest;
use crate::image::document::{Document, MAX_DOCUMENT};
use crate::image::oci::{canonical, digest_of};

/// How many bytes go with one request, and at most if the registry wants larger pieces.
const PIECE: u64 = 8 << 20;
const LARGEST_PIECE: u64 = 64 << 20;

/// What became of a blob that a registry was asked to take.
pub enum Begun {
    /// It has it now: from another of its repositories.
    Mounted,
    /// It waits for it.
    Upload(Upload),
}

/// An upload under way.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Where the next piece goes.
    url: Url,
    /// How many bytes there are.
    at: u64,
    /// Size of a piece.
    piece: u64,
}

impl Registry {
    /// Whether a blob is there.
    pub fn has(&self, blob: &Descriptor) -> Result<bool> {
        self.attempt(|connection| connection.has(blob))
    }

    /// Asks it to take a blob, if it can from its repository `from`.
    pub fn begin(&self, blob: &Descriptor, from: Option<&str>) -> Result<Begun> {
        self.attempt(|connection| {
            let Some(from) = from else { return connection.begin().map(Begun::Upload) };
            let mut url = connection.at("blobs/uploads/")?;
            url.query_pairs_mut().append_pair("mount", blob.digest().as_ref()).append_pair("from", from);
            let response = connection.ask(&url, &Ask { method: Method::POST, ..Ask::default() })?;
            match response.status() {
                StatusCode::CREATED => Ok(Begun::Mounted),
                StatusCode::ACCEPTED => Upload::begun(connection, &response).map(Begun::Upload),
                // it does not do that, or not for us
                _ => connection.begin().map(Begun::Upload),
            }
        })
    }

    /// Sends a blob, which is all of `content`; tells how much of it at a time.
    pub fn upload(
        &self,
        blob: &Descriptor,
        content: &mut File,
        mut upload: Upload,
        told: &dyn Fn(u64),
    ) -> Result<()> {
        let (mut broke_off, mut most) = (false, 0);
        self.attempt(|connection| {
            if broke_off {
                match connection.resume(&upload, blob)? {
                    Some(resumed) => upload = resumed,
                    None => return Ok(()),
                }
            }
            broke_off = true;
            loop {
                let is_complete = connection.send_piece(&mut upload, blob, content)?;
                told(upload.at.saturating_sub(most));
                most = most.max(upload.at);
                if is_complete {
                    return Ok(());
                }
            }
        })
    }

    /// Puts a manifest or an index there under a tag or, without one, its digest. Tells whether the registry keeps track of
    /// what it refers to.
    pub fn put(&self, tag: Option<&str>, document: &Document) -> Result<bool> {
        let name = tag.map_or_else(|| document.digest.to_string(), str::to_owned);
        let headers = content_type(document.media_type.as_ref())?;
        let ask = Ask { method: Method::PUT, headers, body: document.bytes.clone() };
        self.attempt(|connection| {
            let response = connection.ask(&connection.at(&format!("manifests/{name}"))?, &ask)?;
            let response = connection.success(response)?;
            Ok(response.headers().contains_key("oci-subject"))
        })
    }

    /// Adds to the tag that stands for the list of what refers to `subject`.
    pub fn refer(&self, subject: &Digest, documents: &[Document]) -> Result<()> {
        let tag = tag_of_referrers(subject);
        let mut entries = self.referrers(subject)?;
        let before = entries.len();
        for referrer in documents.iter().map(Document::referrer) {
            if !entries.iter().any(|entry| entry.digest() == referrer.digest()) {
                entries.push(referrer);
            }
        }
        if entries.len() == before {
            return Ok(());
        }
        let index: ImageIndex = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageIndex)
            .manifests(entries)
            .build()?;
        let index = Document::parse(canonical(&index)?)?;
        ensure!(index.bytes.len() as u64 <= MAX_DOCUMENT, "too much refers to {subject}");
        self.put(Some(&tag), &index).map(drop)
    }
}

impl Connection {
    fn has(&self, blob: &Descriptor) -> Result<bool> {
        let url = self.at(&format!("blobs/{}", digest_of(blob)?))?;
        let response = self.ask(&url, &Ask { method: Method::HEAD, ..Ask::default() })?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            // to where it has its blobs
            status if status.is_redirection() => Ok(true),
            _ => self.success(response).map(|_| true),
        }
    }

    fn begin(&self) -> Result<Upload> {
        let response =
            self.ask(&self.at("blobs/uploads/")?, &Ask { method: Method::POST, ..Ask::default() })?;
        Upload::begun(self, &self.success(response)?)
    }

    /// Sends the next piece. Tells whether that was the last one: then the registry has the blob.
    fn send_piece(&self, upload: &mut Upload, blob: &Descriptor, content: &mut File) -> Result<bool> {
        let left = blob.size() - upload.at;
        let (is_last, size) = (left <= upload.piece, left.min(upload.piece));
        let mut body = Vec::with_capacity(size as usize);
        content.seek(SeekFrom::Start(upload.at))?;
        content.take(size).read_to_end(&mut body)?;
        ensure!(body.len() as u64 == size, "it became shorter while it was being sent");
        let mut headers = content_type("application/octet-stream")?;
        if !is_last || upload.at > 0 {
            // without a unit, unlike RFC 9110's
            let range = format!("{}-{}", upload.at, upload.at + size.saturating_sub(1));
            headers.insert(header::CONTENT_RANGE, HeaderValue::from_str(&range)?);
        }
        let mut url = upload.url.clone();
        if is_last {
            url.query_pairs_mut().append_pair("digest", blob.digest().as_ref());
        }
        let method = if is_last { Method::PUT } else { Method::PATCH };
        let response = self.success(self.ask(&url, &Ask { method, headers, body })?)?;
        upload.at += size;
        if !is_last {
            upload.url = location(self, &response)?;
        }
        Ok(is_last)
    }

    /// The upload as the registry has it after a request that failed; none if it has the blob. One that it does not know
    /// any more begins anew.
    fn resume(&self, upload: &Upload, blob: &Descriptor) -> Result<Option<Upload>> {
        if self.has(blob)? {
            return Ok(None);
        }
        let status = self.ask(&upload.url, &Ask::default())?;
        let received = received(status.headers()).filter(|received| *received <= blob.size());
        match (status.status(), received) {
            (StatusCode::NO_CONTENT, Some(at)) => {
                Ok(Some(Upload { url: location(self, &status)?, at, ..*upload }))
            }
            _ => self.begin().map(Some),
        }
    }
}

impl Upload {
    fn begun(connection: &Connection, response: &Response) -> Result<Self> {
        let least = response
            .headers()
            .get("oci-chunk-min-length")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let piece = least.unwrap_or(0).clamp(PIECE, LARGEST_PIECE);
        Ok(Self { url: location(connection, response)?, at: 0, piece })
    }
}

/// Where an upload goes on.
fn location(connection: &Connection, response: &Response) -> Result<Url> {
    let to = response.headers().get(header::LOCATION);
    connection.led(&connection.base, to.context("the registry does not say where an upload goes")?)
}

/// How many bytes of an upload there are: `Range: 0-LAST`. Of none some registries say `0-0`.
fn received(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::RANGE)?.to_str().ok()?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    match range.strip_prefix("0-")?.parse().ok()? {
        0 => Some(0),
        last => u64::checked_add(last, 1),
    }
}

fn content_type(media_type: &str) -> Result<HeaderMap> {
    let pair: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_str(media_type)?);
    Ok(HeaderMap::from_iter([pair]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_on_where_the_registry_says() {
        let at = |range: &str| received(&HeaderMap::from_iter([(header::RANGE, range.parse().unwrap())]));
        assert_eq!(at("0-1023"), Some(1024));
        assert_eq!(at("bytes=0-1023"), Some(1024));
        assert_eq!(at("0-0"), Some(0), "distribution says so of an empty one");
        for nonsense in ["", "5-10", "0-", "0-x", "0-18446744073709551615"] {
            assert_eq!(at(nonsense), None, "{nonsense}");
        }
        assert_eq!(received(&HeaderMap::new()), None);
    }
}
