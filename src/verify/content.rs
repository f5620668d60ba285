//! What is kept of a file's content when all of it has been read once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use anyhow::Result;

use super::secret;
use crate::install::payload;
use crate::pkglist::META_JSON;

/// Files up to this size, in bytes, are searched for secrets: keys and credentials are small.
const SEARCHED: usize = 64 << 10;
/// Files whose text is kept, relative to the root: they give ids their names, and unowned files their origins.
const KEPT: [&str; 3] = [PASSWD, GROUP, META_JSON];
/// Users.
pub const PASSWD: &str = "etc/passwd";
/// Groups.
pub const GROUP: &str = "etc/group";
/// Most bytes that are kept of such a file.
const MAX_KEPT: usize = 4 << 20;

/// How contents are read.
pub struct Reading {
    /// Hash algorithms to apply, by OpenPGP number; those that [`payload::digest`] knows.
    pub algorithms: BTreeSet<u32>,
}

/// What is known of a regular file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// In bytes.
    pub size: u64,
    /// Hex digests by algorithm.
    pub digests: BTreeMap<u32, String>,
    /// Whether the content could not be read.
    pub unreadable: bool,
    /// What secret it holds, in words.
    pub secret: Option<&'static str>,
    /// The text itself, of the few files that [`Reading::content`] keeps.
    pub text: Option<Vec<u8>>,
}

impl Content {
    /// A file that may not be read.
    pub fn unreadable(size: u64) -> Self {
        Self { size, unreadable: true, ..Self::default() }
    }
}

impl Reading {
    /// Reads `input`, the file at `path` (relative to the root), to its end. Keeps the text of [`PASSWD`],
    /// [`GROUP`] and [`META_JSON`].
    pub fn content(&self, path: &Path, input: &mut dyn Read) -> Result<Content> {
        let digest = |algorithm: &u32| Ok((*algorithm, payload::digest(*algorithm)?));
        let mut digests = self.algorithms.iter().map(digest).collect::<Result<Vec<_>>>()?;
        let keep = KEPT.iter().any(|kept| path == Path::new(kept));
        let limit = if keep { MAX_KEPT } else { SEARCHED };
        let mut size = 0;
        let mut head = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let piece = match input.read(&mut buffer)? {
                0 => break,
                n => &buffer[..n],
            };
            size += piece.len() as u64;
            digests.iter_mut().for_each(|(_, digest)| digest.update(piece));
            head.extend_from_slice(&piece[..piece.len().min(limit - head.len())]);
        }
        let whole = head.len() as u64 == size;
        Ok(Content {
            size,
            digests: digests
                .into_iter()
                .map(|(number, digest)| (number, hex::encode(digest.finalize())))
                .collect(),
            unreadable: false,
            secret: if whole { secret::in_content(path, &head) } else { None },
            text: keep.then_some(head),
        })
    }
}
