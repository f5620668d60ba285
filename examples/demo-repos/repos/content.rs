//! What is in the files: the machine's busybox, and bytes made up from a seed.

use std::env::consts::ARCH;

use anyhow::{Context, Result, ensure};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

use super::spec::ARCHES;

/// Where distributions put a statically linked busybox (Debian's busybox-static, Fedora's busybox).
const PLACES: [&str; 3] = ["/bin/busybox", "/usr/sbin/busybox", "/usr/bin/busybox"];

/// Program header type of an ELF file that needs a dynamic loader.
const PT_INTERP: u32 = 3;

/// The machine the demo is made on, and for.
pub struct Machine {
    busybox: Vec<u8>,
}

impl Machine {
    /// This machine. Fails if the demo has no packages for its architecture, or if it has no busybox, or only a
    /// dynamically linked one, which couldn't run in a rootfs without its libraries.
    pub fn this() -> Result<Self> {
        ensure!(ARCHES.contains(&ARCH), "the demo is made for {}, not for {ARCH}", ARCHES.join(" and "));
        let files = PLACES.iter().filter_map(|place| std::fs::read(place).ok());
        let busybox = files.into_iter().find(|elf| is_static(elf) == Some(true)).with_context(|| {
            let places = PLACES.join(", ");
            format!("no statically linked busybox at {places}: install busybox-static (Debian) or busybox (Fedora)")
        })?;
        Ok(Self { busybox })
    }

    /// What packages of `arch` ship as busybox.
    pub fn busybox(&self, arch: &str) -> Vec<u8> {
        if arch == ARCH { self.busybox.clone() } else { b"busybox of another architecture\n".to_vec() }
    }

    /// How many of the bytes of [`bulk`] asked for packages of `arch` get.
    pub fn weight(&self, arch: &str, asked: Option<usize>) -> usize {
        if arch == ARCH || arch == "noarch" { asked.unwrap_or(0) } else { 0 }
    }
}

/// Whether a 64-bit little-endian ELF file asks for no loader; `None` if it isn't one.
fn is_static(elf: &[u8]) -> Option<bool> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?) as usize);
    let table = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (half(54)?, half(56)?);
    for index in 0..count {
        let at = table.checked_add(index * size)?;
        let kind = u32::from_le_bytes(elf.get(at..at.checked_add(4)?)?.try_into().ok()?);
        if kind == PT_INTERP {
            return Some(false);
        }
    }
    Some(true)
}

/// Bytes that look like a compiled program to a compressor (about two to one), the same for the same `seed`.
///
/// Between two `edition`s of the same seed one block in twenty differs, as between two builds of a program.
pub fn bulk(seed: &str, edition: &str, size: usize) -> Vec<u8> {
    const BLOCK: usize = 4096;
    let mut bytes = vec![0; size];
    for (index, block) in bytes.chunks_mut(BLOCK).enumerate() {
        let edition = if index % 20 == 7 { edition } else { "" };
        let digest = Sha256::digest(format!("{seed}\0{edition}\0{index}"));
        let random = block.len() / 2;
        ChaCha8Rng::from_seed(digest.into()).fill_bytes(&mut block[..random]);
    }
    bytes
}

/// A shell script that says `message`, followed by [`bulk`] it never reaches: a program that runs on every
/// architecture and weighs something.
pub fn program(message: &str, bulk: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("#!/usr/bin/sh\n# A stand-in of the demo stream.\necho '{message}'\nexit 0\n").into_bytes();
    bytes.extend_from_slice(bulk);
    bytes
}
