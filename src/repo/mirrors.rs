//! Lists of a repository's base URLs: mirrorlist and metalink.

use std::io::Cursor;

use anyhow::Result;

use super::repomd::Checksum;
use super::xml::{Node, walk};

/// Metalinks list a few hundred mirrors.
const LIMIT: u64 = 4 << 20;

/// What a metalink says of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metalink {
    /// Base URLs, most preferred first.
    pub bases: Vec<String>,
    /// Checksums of repomd.xml: the current one, then older ones that mirrors may still have.
    pub repomd: Vec<Checksum>,
}

/// The base URLs of a mirrorlist: one a line, `#` begins a comment.
pub fn mirrorlist(text: &str) -> Vec<String> {
    let line = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
    text.lines().map(line).filter(|url| !url.is_empty()).collect()
}

/// Parses a metalink (version 3, as MirrorManager writes it) of `repomd.xml`. Checksums too weak to prove
/// anything are passed over, as are protocols other than http(s) and file.
pub fn metalink(text: &[u8]) -> Result<Metalink> {
    let mut links: Vec<(u64, String)> = Vec::new();
    let mut repomd = Vec::new();
    let (mut preference, mut hash) = (0, String::new());
    walk(Cursor::new(text.to_vec()), "metalink", LIMIT, |node| {
        match node {
            Node::Open(element) => match element.name() {
                "url" => preference = element.number("preference")?,
                "hash" => hash = element.require("type")?,
                _ => {}
            },
            Node::Close("url", url) => {
                let known =
                    ["https://", "http://", "file://"].iter().any(|scheme| url.trim().starts_with(scheme));
                if let Some(base) = url.trim().strip_suffix("/repodata/repomd.xml").filter(|_| known) {
                    links.push((preference, base.to_owned()));
                }
            }
            Node::Close("hash", hex) if matches!(hash.as_str(), "sha256" | "sha512") => {
                repomd.push(Checksum::parse(&hash, hex.trim())?);
            }
            Node::Close(..) => {}
        }
        Ok(())
    })?;
    links.sort_by_key(|(preference, _)| std::cmp::Reverse(*preference));
    Ok(Metalink { bases: links.into_iter().map(|(_, base)| base).collect(), repomd })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn mirrorlists_have_comments() {
        let text = "# repo = x\nhttps://a/b/ \n\n  http://c # slow\n";
        assert_eq!(mirrorlist(text), ["https://a/b/", "http://c"]);
    }

    #[test]
    fn metalinks_have_preferences_and_checksums() {
        let (new, old) = (Digest::of("new"), Digest::of("old"));
        let text = format!(
            "<metalink version='3.0' xmlns:mm0='http://fedorahosted.org/mirrormanager'><files>
             <file name='repomd.xml'><size>4</size><verification><hash type='md5'>00</hash>
             <hash type='sha256'>{}</hash></verification><mm0:alternates><mm0:alternate><verification>
             <hash type='sha256'>{}</hash></verification></mm0:alternate></mm0:alternates>
             <resources maxconnections='1'>
             <url protocol='http' preference='90'>http://b/x/repodata/repomd.xml</url>
             <url protocol='rsync' preference='100'>rsync://c/x/repodata/repomd.xml</url>
             <url protocol='https' preference='100'>https://a/x/repodata/repomd.xml</url>
             </resources></file></files></metalink>",
            new.hex(),
            old.hex()
        );
        let expected = Metalink {
            bases: vec!["https://a/x".into(), "http://b/x".into()],
            repomd: vec![Checksum::Sha256(new), Checksum::Sha256(old)],
        };
        assert_eq!(metalink(text.as_bytes()).unwrap(), expected);
    }
}
