//! Content digests, printed `sha256:<64 lower-case hex>` as OCI writes them (image-spec `descriptor.md`).

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Digest as _;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Digests `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(sha2::Sha256::digest(bytes.as_ref()).into())
    }

    /// Digests everything `reader` yields, and counts it in bytes.
    pub fn of_reader(reader: &mut impl Read) -> io::Result<(Self, u64)> {
        let mut hasher = Hasher::new(io::sink());
        let size = io::copy(reader, &mut hasher)?;
        Ok((hasher.finish().1, size))
    }

    /// The 64 hex digits without the algorithm prefix, as RPM metadata and blob file names have them.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses 64 hex digits without prefix.
    pub fn from_hex(text: &str) -> Result<Self, ParseDigestError> {
        let mut bytes = [0; 32];
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ParseDigestError(text.to_owned()));
        }
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseDigestError(text.to_owned()))?;
        Ok(Self(bytes))
    }
}

/// The text is not `sha256:` and 64 lower-case hex digits.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a digest: expected `sha256:` and 64 lower-case hex digits")]
pub struct ParseDigestError(String);

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix("sha256:").ok_or_else(|| ParseDigestError(text.to_owned()))?;
        Self::from_hex(hex).map_err(|_| ParseDigestError(text.to_owned()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A writer that digests and counts what passes through it.
pub struct Hasher<W> {
    inner: W,
    sha: sha2::Sha256,
    size: u64,
}

impl<W: Write> Hasher<W> {
    /// Wraps `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, sha: sha2::Sha256::new(), size: 0 }
    }

    /// The writer that was wrapped. What is written to it directly is not digested.
    pub fn inner_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Gives back the writer, the digest of all bytes written, and their count.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest(self.sha.finalize().into()), self.size)
    }
}

impl<W: Write> Write for Hasher<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.sha.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
