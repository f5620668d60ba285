//! Overlay trees: folders beside the manifests, copied over the rootfs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::rootfs::Rootfs;

/// A file of an overlay tree. What git keeps counts: content, the executable bit, link targets. Owners and
/// other mode bits of a checkout are its user's own and do not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OverlayEntry {
    /// Absolute path in the rootfs.
    pub path: String,
    /// What is put there.
    pub kind: OverlayKind,
}

/// What an overlay puts at a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OverlayKind {
    /// A directory, 0755.
    Directory,
    /// A copy of `source`, 0644 or 0755.
    File {
        /// The file on the build machine.
        source: PathBuf,
        /// Whether anyone may execute it.
        executable: bool,
    },
    /// A symbolic link to this target.
    Symlink(String),
}

/// Everything in the overlay `tree`, parents first, sorted by path. Anything but files, directories and
/// symbolic links is an error.
pub fn overlay_entries(tree: &Path) -> Result<Vec<OverlayEntry>> {
    let mut entries = Vec::new();
    walk(tree, "", &mut entries)?;
    entries.sort();
    Ok(entries)
}

fn walk(dir: &Path, prefix: &str, entries: &mut Vec<OverlayEntry>) -> Result<()> {
    let context = || format!("reading {}", dir.display());
    for entry in fs::read_dir(dir).with_context(context)? {
        let entry = entry.with_context(context)?;
        let source = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            bail!("{}: the name is not UTF-8", source.display());
        };
        let path = format!("{prefix}/{name}");
        let meta = entry.metadata().with_context(context)?;
        let kind = if meta.is_dir() {
            walk(&source, &path, entries)?;
            OverlayKind::Directory
        } else if meta.is_symlink() {
            let target = fs::read_link(&source).with_context(context)?;
            let Some(target) = target.to_str() else {
                bail!("{}: the link's target is not UTF-8", source.display());
            };
            OverlayKind::Symlink(target.to_owned())
        } else if meta.is_file() {
            OverlayKind::File { source, executable: meta.permissions().mode() & 0o111 != 0 }
        } else {
            bail!("{}: an overlay holds only files, directories and symbolic links", source.display());
        };
        entries.push(OverlayEntry { path, kind });
    }
    Ok(())
}

/// Copies the overlay `tree` over the rootfs.
pub fn copy(rootfs: &Rootfs, tree: &Path) -> Result<()> {
    for OverlayEntry { path, kind } in overlay_entries(tree)? {
        match kind {
            OverlayKind::Directory => rootfs.create_dir_all(&path)?,
            OverlayKind::Symlink(target) => rootfs.symlink(&path, &target)?,
            OverlayKind::File { source, executable } => {
                let bytes = fs::read(&source).with_context(|| format!("reading {}", source.display()))?;
                rootfs.write(&path, &bytes, if executable { 0o755 } else { 0o644 })?;
            }
        }
    }
    Ok(())
}
