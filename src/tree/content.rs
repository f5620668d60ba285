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
/// Users.
pub const PASSWD: &str = "etc/passwd";
/// Groups.
pub const GROUP: &str = "etc/group";
/// Files whose text is kept, relative to the root, for it says something of other files: names of ids, origins.
const KEPT: [&str; 6] = [PASSWD, GROUP, "usr/lib/passwd", "usr/lib/group", "etc/machine-id", META_JSON];
/// Most bytes that are kept of such a file.
const MAX_KEPT: usize = 4 << 20;
/// Directories whose files' text is kept.
const KEPT_IN: [&str; 5] = [
    "etc/tmpfiles.d",
    "usr/local/lib/tmpfiles.d",
    "usr/lib/tmpfiles.d",
    "usr/lib/sysusers.d",
    "usr/lib/bootc/kargs.d",
];
/// Files whose text is kept wherever the directory above them is.
const KEPT_ANYWHERE: &str = "ostree/prepare-root.conf";

/// How contents are read.
pub struct Reading {
    /// Hash algorithms to apply, by OpenPGP number; those that headers name and strata knows.
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
    /// Reads `input`, the file at `path` (relative to the root), to its end. Keeps the text of the accounts, of
    /// [`META_JSON`] and of the little configuration that says what an image makes of itself when it boots.
    pub fn content(&self, path: &Path, input: &mut dyn Read) -> Result<Content> {
        let digest = |algorithm: &u32| Ok((*algorithm, payload::digest(*algorithm)?));
        let mut digests = self.algorithms.iter().map(digest).collect::<Result<Vec<_>>>()?;
        let keep = is_kept(path);
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

/// Whether the text of the file at `path`, relative to the root, is kept.
fn is_kept(path: &Path) -> bool {
    let is = |kept: &&str| path == Path::new(kept);
    let is_in = |dir: &&str| path.parent() == Some(Path::new(dir));
    KEPT.iter().any(is) || KEPT_IN.iter().any(is_in) || path.ends_with(KEPT_ANYWHERE)
}
