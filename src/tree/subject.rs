//! An image or an unpacked one, wherever it is, and what is known of it besides its files.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Reading, Tree};
use crate::diff;
use crate::image::opened::Opened;
use crate::install::payload;
use crate::rootfs::Rootfs;
use crate::rpmdb::{self, Installed, Rpmdb};

/// The label of images that boot.
const BOOTABLE: &str = "containers.bootc";

/// What is verified or linted.
pub enum Subject {
    /// An image.
    Image(Box<Opened>),
    /// An unpacked one, whose files have the owners they have in the image.
    Rootfs(PathBuf),
}

impl Subject {
    /// The packages in its rpmdb, if it has one.
    pub fn packages(&self) -> Result<Option<Vec<Installed>>> {
        self.read_packages().with_context(|| format!("reading the packages of {self}"))
    }

    fn read_packages(&self) -> Result<Option<Vec<Installed>>> {
        match self {
            Self::Image(opened) => diff::image::installed(opened),
            Self::Rootfs(root) => {
                let rootfs = Rootfs::open(root)?;
                let Some(path) = rpmdb::find(&rootfs)? else { return Ok(None) };
                Rpmdb::open_read_only(&rootfs.host_path(&path)?)?.packages().map(Some)
            }
        }
    }

    /// Its files, with the digests that the headers of `packages` have.
    pub fn tree(&self, packages: &[Installed]) -> Result<Tree> {
        let algorithms = packages.iter().map(|package| package.header.file_digest_algorithm());
        let algorithms = algorithms.filter(|algorithm| payload::digest(*algorithm).is_ok()).collect();
        match self {
            Self::Image(opened) => Tree::of_image(opened.local()?, &opened.image, &Reading { algorithms }),
            Self::Rootfs(root) => Tree::of_directory(root, &Reading { algorithms }),
        }
    }

    /// The history of an image's layers, bottom first; nothing for a rootfs.
    pub fn history(&self) -> Vec<&str> {
        match self {
            Self::Image(opened) => {
                let said = opened.image.layer_history().into_iter();
                said.map(|history| history.and_then(|h| h.created_by().as_deref()).unwrap_or_default())
                    .collect()
            }
            Self::Rootfs(_) => Vec::new(),
        }
    }

    /// Whether it says that machines boot it.
    pub fn is_labelled_bootable(&self) -> bool {
        match self {
            Self::Image(opened) => opened.image.labels().get(BOOTABLE) == Some(&"1"),
            Self::Rootfs(_) => false,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(opened) => write!(f, "the image {}", opened.image.digest),
            Self::Rootfs(root) => write!(f, "the rootfs {}", root.display()),
        }
    }
}
