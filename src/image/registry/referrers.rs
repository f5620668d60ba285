//! What refers to a manifest (distribution-spec, "Listing Referrers"): a list in pages.

use anyhow::{Context, Result, bail};
use oci_spec::image::{Descriptor, ImageIndex};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};

use super::{Ask, Connection, Registry};
use crate::digest::Digest;
use crate::image::document::MAX_DOCUMENT;
use crate::image::oci::MANIFESTS;

/// The media type of an index.
const INDEX: &str = MANIFESTS[2];

/// No more pages of a list are read, nor more bytes than this in all.
const MOST_PAGES: usize = 100;
const MOST_BYTES: u64 = 4 * MAX_DOCUMENT;

impl Registry {
    /// What refers to the manifest with this digest. A registry that does not keep track of that has an index of it under
    /// a tag (distribution-spec, "referrers tag schema").
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let ask = Ask::get(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(INDEX))]));
        self.attempt(|connection| {
            for path in [format!("referrers/{subject}"), format!("manifests/{}", tag_of_referrers(subject))] {
                let response = connection.ask(&connection.at(&path)?, &ask)?;
                if !is_missing(response.status()) {
                    let entries = connection.pages(response, &ask);
                    return entries.with_context(|| format!("reading what refers to {subject}"));
                }
            }
            Ok(Vec::new())
        })
    }
}

impl Connection {
    /// The entries of an index, of which `response` is the first page.
    fn pages(&self, mut response: Response, ask: &Ask) -> Result<Vec<Descriptor>> {
        let (mut entries, mut left) = (Vec::new(), MOST_BYTES);
        for _ in 0..MOST_PAGES {
            response = self.success(response)?;
            let next = next(response.headers()).map(|to| self.led(response.url(), &to)).transpose()?;
            let bytes = self.bytes(response, left.min(MAX_DOCUMENT))?;
            left -= bytes.len() as u64;
            let page: ImageIndex = serde_json::from_slice(&bytes)?;
            entries.extend(page.manifests().iter().cloned());
            let Some(next) = next else { return Ok(entries) };
            response = self.ask(&next, ask)?;
        }
        bail!("the list has more than {MOST_PAGES} pages")
    }
}

/// What stands for a list of what refers to a manifest, where the registry keeps none.
pub(super) fn tag_of_referrers(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// Whether a registry has no such thing, or no such API: then it says 404, or that it does not know the way to ask.
fn is_missing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND
            | StatusCode::BAD_REQUEST
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_ACCEPTABLE
    )
}

/// Where the next page is: `Link: </v2/...>; rel="next"` (RFC 8288).
fn next(headers: &HeaderMap) -> Option<HeaderValue> {
    let links = headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    links.flat_map(targets).find_map(|(target, relations)| {
        let is_next = relations.split_ascii_whitespace().any(|one| one.eq_ignore_ascii_case("next"));
        is_next.then(|| HeaderValue::from_str(target).ok())?
    })
}

/// The targets of a `Link`, each with its relations.
fn targets(link: &str) -> impl Iterator<Item = (&str, &str)> {
    // a comma may be in a target: what follows the last `>` of a part is the parameters of that part
    link.split('<').skip(1).filter_map(|part| {
        let (target, parameters) = part.split_once('>')?;
        let parameters = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
        let mut relations = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("rel"));
        let (_, relations) = relations.next()?;
        Some((target, relations.trim().trim_end_matches(',').trim().trim_matches('"')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        let found = |links: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for link in links {
                headers.append(header::LINK, HeaderValue::from_static(link));
            }
            next(&headers).map(|value| value.to_str().unwrap().to_owned())
        };
        // the first as in distribution-spec, "Listing Tags"; others as RFC 8288 allows
        for (links, expected) in [
            (&[r#"</v2/a/tags/list?n=2&last=b>; rel="next""#][..], Some("/v2/a/tags/list?n=2&last=b")),
            (&[r#"<https://h/x?a=1,2>;rel=next"#], Some("https://h/x?a=1,2")),
            (&[r#"<p>; rel="prev", <n>; title="a"; REL="last NEXT""#], Some("n")),
            (&["<p>; rel=prev", "<n>; rel=next"], Some("n")),
            (&[r#"<p>; rel="previous""#], None),
            (&["nonsense", "<n; rel=next", "<n>", ""], None),
            (&[], None),
        ] {
            assert_eq!(found(links).as_deref(), expected, "{links:?}");
        }
    }
}
