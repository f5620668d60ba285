//! Whether a package file is what the lockfile says, and trusted.
//!
//! Of a package, the signature covers the header, and the header holds the payload's digest; together with
//! the identity in the header this says who made which package. Headers of rpm before 4.14 hold no such digest:
//! there the other signature counts, which covers header and payload. The digest in the lockfile alone says only
//! that the file is the one the metadata spoke of.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;

use rpm::{IndexSignatureTag, IndexTag, PackageMetadata};

use super::keyring::{BadSignature, Keyring};
use crate::digest::Digest;
use crate::lock::LockedPackage;
use crate::package::{Evr, Nevra};

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Refusal {
    #[error("the file has more than the {expected} bytes expected")]
    Oversize { expected: u64 },
    #[error("the file has {found} bytes, expected {expected}")]
    Truncated { expected: u64, found: u64 },
    #[error("the file has {found}, expected {expected}")]
    Checksum { expected: String, found: String },
    #[error("it is no intact RPM package: {0}")]
    Malformed(String),
    #[error("the package's payload has sha256:{found}, its header says sha256:{expected}")]
    Payload { expected: String, found: String },
    #[error("what an earlier run left of it is not its beginning")]
    Resumed,
    #[error("the package is not signed")]
    Unsigned,
    #[error("the package's header is signed, but holds no digest of the payload, which no signature covers")]
    PayloadUnsigned,
    #[error("the package's signature is not accepted")]
    Signature(#[source] BadSignature),
    #[error("the package is {found}, expected {expected}")]
    Identity { expected: String, found: String },
}

impl Refusal {
    /// What the user can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Oversize { .. }
            | Self::Truncated { .. }
            | Self::Checksum { .. }
            | Self::Resumed
            | Self::Identity { .. } => {
                "if the repository was rebuilt, run `strata lock`; otherwise its files do not fit its metadata"
            }
            Self::Malformed(_) | Self::Payload { .. } => {
                "the file was damaged before its repository was made: ask the publisher to replace it"
            }
            Self::Unsigned | Self::PayloadUnsigned | Self::Signature(_) => {
                "name the signer's key in the repository's `gpgkey`; if its packages are to be taken on trust, \
                 say `gpgcheck = false`"
            }
        }
    }
}

/// rpm's own limits (`lib/header.c`, `lib/rpmlead.c`): entries, bytes of data.
const SIGNATURE_LIMITS: (u32, u32) = (32, 64 << 20);
const HEADER_LIMITS: (u32, u32) = (0xffff, (256 << 20) - 1);

/// Checks all of a package: structure, digests, identity, and the signature if there are keys to trust.
/// Reads from the file's beginning to its end.
pub fn package(file: &File, locked: &LockedPackage, trust: Option<&Keyring>) -> anyhow::Result<()> {
    let metadata = header(file, locked, trust)?;
    if let Some(expected) = payload_digest(&metadata)? {
        let payload = Rest { file, offset: metadata.get_package_segment_offsets().payload };
        let (found, _) = Digest::of_reader(&mut BufReader::with_capacity(128 << 10, payload))?;
        if expected != found.hex() {
            return Err(Refusal::Payload { expected, found: found.hex() }.into());
        }
    }
    Ok(())
}

/// Checks all but the payload's digest: enough for a file that [`package`] let pass earlier, perhaps for other keys.
pub fn header(
    mut file: &File,
    locked: &LockedPackage,
    trust: Option<&Keyring>,
) -> anyhow::Result<PackageMetadata> {
    file.rewind()?;
    let metadata = front(&mut BufReader::new(file))?;
    // those of format 3 have none for the header alone
    let digests = metadata.check_digests().and_then(|digests| digests.result());
    digests.map_err(|e| Refusal::Malformed(e.to_string()))?;
    if let Some(keys) = trust {
        signed(&metadata, file, keys)?;
    }
    let (expected, found) = (locked.nevra(), nevra(&metadata)?);
    if expected != found {
        return Err(Refusal::Identity { expected: expected.to_string(), found: found.to_string() }.into());
    }
    Ok(metadata)
}

/// A file from some byte to its end; copies don't disturb each other.
#[derive(Clone)]
struct Rest<'f> {
    file: &'f File,
    offset: u64,
}

impl Read for Rest<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

/// Checks that one of the signatures is by a trusted key: of those that cover the header, if it holds a digest of the
/// payload, else of those that cover the payload too.
fn signed(metadata: &PackageMetadata, file: &File, keys: &Keyring) -> Result<(), Refusal> {
    let malformed = |e: rpm::Error| Refusal::Malformed(e.to_string());
    let of_header = metadata.raw_signatures().map_err(malformed)?;
    let mut outcome = Err(if of_header.is_empty() { Refusal::Unsigned } else { Refusal::PayloadUnsigned });
    if payload_digest(metadata)?.is_some() {
        let header = metadata.header_bytes().map_err(malformed)?;
        for signature in of_header {
            outcome = outcome.or_else(|_| keys.verify(&header[..], &signature).map_err(Refusal::Signature));
        }
    } else {
        let all = Rest { file, offset: metadata.get_package_segment_offsets().header };
        for tag in [IndexSignatureTag::RPMSIGTAG_PGP, IndexSignatureTag::RPMSIGTAG_GPG] {
            if let Ok(signature) = metadata.signature.get_entry_data_as_binary(tag) {
                outcome =
                    outcome.or_else(|_| keys.verify(all.clone(), signature).map_err(Refusal::Signature));
            }
        }
    }
    outcome
}

fn nevra(metadata: &PackageMetadata) -> Result<Nevra, Refusal> {
    let text = |value: Result<&str, rpm::Error>| {
        value.map(str::to_owned).map_err(|e| Refusal::Malformed(format!("reading its identity: {e}")))
    };
    let epoch = match metadata.get_epoch() {
        Ok(epoch) => epoch,
        Err(rpm::Error::TagNotFound(_)) => 0,
        Err(e) => return Err(Refusal::Malformed(format!("reading its epoch: {e}"))),
    };
    Ok(Nevra {
        name: text(metadata.get_name())?,
        evr: Evr::new(epoch, text(metadata.get_version())?, text(metadata.get_release())?),
        arch: if metadata.is_source_package() { "src".to_owned() } else { text(metadata.get_arch())? },
    })
}

/// PAYLOADDIGEST, the sha256 of the compressed payload in hex, if there is one.
fn payload_digest(metadata: &PackageMetadata) -> Result<Option<String>, Refusal> {
    const SHA256: u32 = 8; // RFC 9580, 9.5
    let header = &metadata.header;
    match header.get_entry_data_as_u32(IndexTag::RPMTAG_PAYLOADSHA256ALGO) {
        Ok(SHA256) | Err(rpm::Error::TagNotFound(_)) => {}
        Ok(other) => {
            return Err(Refusal::Malformed(format!("payload digest algorithm {other} is not known")));
        }
        Err(e) => return Err(Refusal::Malformed(e.to_string())),
    }
    match header.get_entry_data_as_string_array(IndexTag::RPMTAG_PAYLOADSHA256) {
        Ok(digests) => Ok(digests.first().map(|d| d.to_string())),
        Err(rpm::Error::TagNotFound(_)) => Ok(None),
        Err(e) => Err(Refusal::Malformed(e.to_string())),
    }
}

/// Reads lead, signature header and header, and leaves `file` where the payload begins. The `rpm` crate takes
/// counts and offsets on trust, so they are checked first.
fn front(file: &mut impl Read) -> Result<PackageMetadata, Refusal> {
    let mut bytes = Vec::new();
    take(file, 96, &mut bytes)?;
    if bytes[..4] != [0xed, 0xab, 0xee, 0xdb] {
        return Err(Refusal::Malformed("it does not begin as one".into()));
    }
    take_header(file, SIGNATURE_LIMITS, &mut bytes)?;
    take(file, bytes.len().next_multiple_of(8) as u64 - bytes.len() as u64, &mut bytes)?;
    take_header(file, HEADER_LIMITS, &mut bytes)?;
    PackageMetadata::parse(&mut &bytes[..]).map_err(|e| Refusal::Malformed(e.to_string()))
}

/// Appends exactly `n` bytes of `file` to `bytes`.
fn take(file: &mut impl Read, n: u64, bytes: &mut Vec<u8>) -> Result<(), Refusal> {
    match file.take(n).read_to_end(bytes) {
        Ok(read) if read as u64 == n => Ok(()),
        Ok(_) => Err(Refusal::Malformed("it ends inside its header".into())),
        Err(e) => Err(Refusal::Malformed(format!("reading it: {e}"))),
    }
}

/// Appends a header structure after checking that every entry lies in its data.
/// rpm: `docs/manual/format_header.md`.
fn take_header(
    file: &mut impl Read,
    (max_entries, max_data): (u32, u32),
    bytes: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let start = bytes.len();
    take(file, 16, bytes)?;
    let word = |bytes: &[u8], at: usize| {
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    let (entries, data) = (word(bytes, start + 8), word(bytes, start + 12));
    if bytes[start..start + 3] != [0x8e, 0xad, 0xe8] || entries > max_entries || data > max_data {
        return Err(Refusal::Malformed(format!("a header claims {entries} entries and {data} bytes")));
    }
    take(file, 16 * u64::from(entries) + u64::from(data), bytes)?;
    for entry in bytes[start + 16..].chunks_exact(16).take(entries as usize) {
        let (kind, offset, count) = (word(entry, 4), word(entry, 8), word(entry, 12));
        // bytes an item has at least; strings end with a NUL
        let width = match kind {
            0 => 0,
            3 => 2,
            4 => 4,
            5 => 8,
            _ => 1,
        };
        if u64::from(offset) + u64::from(count) * width > u64::from(data) {
            return Err(Refusal::Malformed(format!("header entry {} lies outside its data", word(entry, 0))));
        }
    }
    Ok(())
}
