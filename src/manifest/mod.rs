//! Manifests: the TOML people write, made into a [`crate::plan::Plan`].

use std::path::Path;

use crate::package::Arch;
use crate::plan::Plan;

/// What is wrong with the manifests: one diagnostic per mistake.
#[derive(Debug, thiserror::Error)]
#[error("the manifests have mistakes")]
pub struct Invalid {}

impl Invalid {
    /// All diagnostics as text, the offending lines underlined.
    pub fn render(&self, _color: bool) -> String {
        unimplemented!()
    }
}

/// Compiles the manifests of `stream`, a folder of `manifests`, for one architecture.
pub fn load(_manifests: &Path, _stream: &str, _arch: Arch) -> Result<Plan, Invalid> {
    unimplemented!()
}

/// The architectures the stream is composed for.
pub fn arches(_manifests: &Path, _stream: &str) -> Result<Vec<Arch>, Invalid> {
    unimplemented!()
}
