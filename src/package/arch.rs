//! Architectures strata composes for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An architecture, in RPM's spelling (`uname -m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// 64-bit Arm.
    Aarch64,
    /// 64-bit little-endian Power.
    Ppc64le,
    /// 64-bit RISC-V.
    Riscv64,
    /// IBM Z.
    S390x,
    /// 64-bit Intel and AMD.
    #[serde(rename = "x86_64")]
    X86_64,
}

impl Arch {
    /// Every architecture, sorted by name.
    pub const ALL: [Arch; 5] = [Arch::Aarch64, Arch::Ppc64le, Arch::Riscv64, Arch::S390x, Arch::X86_64];

    /// RPM's name, also dnf's `$basearch`: `x86_64`.
    pub fn rpm(self) -> &'static str {
        match self {
            Arch::Aarch64 => "aarch64",
            Arch::Ppc64le => "ppc64le",
            Arch::Riscv64 => "riscv64",
            Arch::S390x => "s390x",
            Arch::X86_64 => "x86_64",
        }
    }

    /// Go's name, which OCI configs and platforms use (image-spec `config.md`): `amd64`.
    pub fn oci(self) -> &'static str {
        match self {
            Arch::Aarch64 => "arm64",
            Arch::X86_64 => "amd64",
            other => other.rpm(),
        }
    }

    /// Whether packages of an architecture can be installed on this one: its own, `noarch`, and older ones it runs
    /// (libsolv's policies, `poolarch.c`, without AMD's `athlon`).
    pub fn runs(self, arch: &str) -> bool {
        let older: &[&str] = match self {
            Arch::S390x => &["s390"],
            Arch::X86_64 => &["i686", "i586", "i486", "i386"],
            Arch::Aarch64 | Arch::Ppc64le | Arch::Riscv64 => &[],
        };
        arch == self.rpm() || arch == "noarch" || older.contains(&arch)
    }

    /// The architecture this program runs on, if strata composes for it.
    pub fn host() -> Option<Self> {
        std::env::consts::ARCH.parse().ok().or(match std::env::consts::ARCH {
            "powerpc64" => Some(Arch::Ppc64le),
            _ => None,
        })
    }
}

/// The text names no architecture strata composes for.
#[derive(Debug, thiserror::Error)]
#[error("unknown architecture `{0}`: expected one of aarch64, ppc64le, riscv64, s390x, x86_64")]
pub struct ParseArchError(String);

impl FromStr for Arch {
    type Err = ParseArchError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Arch::ALL.into_iter().find(|a| a.rpm() == text).ok_or_else(|| ParseArchError(text.to_owned()))
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rpm())
    }
}
