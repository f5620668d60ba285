//! Name, epoch, version, release, architecture.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Evr;

/// The identity of a package. Ordered by name (bytes), then EVR, then architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nevra {
    /// `cri-o`
    pub name: String,
    /// `1.32.1-3.el9`
    pub evr: Evr,
    /// RPM's architecture of the package: `x86_64`, `noarch`.
    pub arch: String,
}

impl fmt::Display for Nevra {
    /// `NAME-[EPOCH:]VERSION-RELEASE.ARCH`, as dnf prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}.{}", self.name, self.evr, self.arch)
    }
}
