//! What layers come to: their tars applied one after the other to a list of paths instead of a disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use oci_spec::image::Descriptor;

use super::extract::{plain, read_layer};
use super::oci::Layout;
use super::untar::Member;
use crate::digest::Digest;

/// What there is at each path, and the digest of a file's content.
pub(crate) type Contents = BTreeMap<PathBuf, (Member, Option<Digest>)>;

/// Reads blobs, given with their diff ids, bottom first.
pub(crate) fn contents(layout: &Layout, blobs: &[(&Descriptor, &str)]) -> Result<Contents> {
    let mut contents = Contents::new();
    for (blob, diff_id) in blobs {
        read_layer(layout, blob, diff_id, |member, content| apply(&mut contents, member, content))?;
    }
    Ok(contents)
}

fn apply(contents: &mut Contents, member: &Member, content: &mut dyn Read) -> Result<()> {
    let path = plain(&member.path)?;
    let name = path.file_name().unwrap_or_default().as_bytes();
    if let Some(hidden) = name.strip_prefix(b".wh.") {
        let gone = match hidden {
            b".wh..opq" => path.parent().unwrap_or(Path::new("")).to_owned(),
            hidden => path.with_file_name(OsStr::from_bytes(hidden)),
        };
        forget(contents, &gone);
        return Ok(());
    }
    if !member.is_dir() {
        forget(contents, &path);
    }
    let digest = match member.is_file() {
        true => Some(Digest::of_reader(&mut BufReader::with_capacity(64 << 10, content))?.0),
        false => None,
    };
    contents.insert(path, (member.clone(), digest));
    Ok(())
}

/// Forgets a path and all below it.
fn forget(contents: &mut Contents, gone: &Path) {
    let below = contents.range(gone.to_owned()..).map(|(path, _)| path);
    let below: Vec<PathBuf> = below.take_while(|path| path.starts_with(gone)).cloned().collect();
    below.iter().for_each(|path| drop(contents.remove(path)));
}
