//! Where two builds of the same inputs differ.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Built;
use crate::image::contents::contents;
use crate::image::oci::{Image, Layout};

/// A layer that two builds made differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The layer.
    pub layer: String,
    /// The first path, in the order of their names, that is not the same; none if the files are, but not what the image
    /// says about them.
    pub path: Option<String>,
    /// The script that changed it last; none if strata itself made it, or a package has it.
    pub script: Option<String>,
}

/// The lowest layer that came out differently, if there is one: `first` in the layout of that name, `again` in the other.
/// `again` has run all of its scripts.
pub fn difference(layouts: [&Layout; 2], first: &[Built], again: &[Built]) -> Result<Option<Difference>> {
    let Some((first, again)) = first.iter().zip(again).find(|(first, again)| first.digest != again.digest)
    else {
        return Ok(None);
    };
    let [before, after] = [(layouts[0], first), (layouts[1], again)].map(|(layout, built)| {
        let image = layout.image(None, Some(&built.digest))?;
        contents(layout, &own(&image, built.blobs)).with_context(|| format!("reading {}", built.reference))
    });
    let (before, after) = (before?, after?);
    let path = before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).min();
    let path = path.map(|path| Path::new("/").join(path).display().to_string());
    let changed = |path: &String| {
        let scripts = again.scripts.iter().rev();
        let mut those =
            scripts.filter(|s| s.changes.created.contains(path) || s.changes.modified.contains(path));
        those.next().map(|script| script.name.clone())
    };
    Ok(Some(Difference { layer: first.layer.clone(), script: path.as_ref().and_then(changed), path }))
}

/// The topmost blobs of an image, with their diff ids.
fn own(image: &Image, number: usize) -> Vec<(&oci_spec::image::Descriptor, &str)> {
    let diffs = image.config.rootfs().diff_ids().iter().map(String::as_str);
    let all = image.manifest.layers().iter().zip(diffs);
    all.skip(image.manifest.layers().len().saturating_sub(number)).collect()
}
