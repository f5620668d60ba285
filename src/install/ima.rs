//! IMA signatures of files, by which a kernel can tell that a file is as its vendor made it.
//!
//! The kernel looks for them in `security.ima`, which only root of the whole machine may set. So a tree carries them
//! under a name of the user's, whoever builds, and an image has them under the kernel's: see
//! [`image`](crate::image).

use anyhow::{Context, Result};
use rpm::FileFlags;

use super::has;
use crate::package::header::FileEntry;

/// Extended attribute in an image.
pub(crate) const XATTR: &str = "security.ima";

/// Extended attribute in a tree.
pub(crate) const IN_TREE: &str = "user.strata.ima";

/// Bytes before the signature itself (linux: `security/integrity/integrity.h`, `signature_v2_hdr`), which are zero
/// where a file has none.
const HEADER: usize = 9;

/// The signature a file gets, if any. Configuration gets none, for it is meant to change, unless it can be executed
/// (rpm: `plugins/ima.c`).
pub(crate) fn signature(file: &FileEntry) -> Result<Option<Vec<u8>>> {
    if file.ima.is_empty() || has(file, FileFlags::CONFIG) && file.mode & 0o111 == 0 {
        return Ok(None);
    }
    let signature = hex::decode(&file.ima).context("reading its IMA signature")?;
    let is_none = signature.iter().take(HEADER).all(|byte| *byte == 0);
    Ok((!is_none).then_some(signature))
}
