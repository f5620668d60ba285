//! Epoch, version, release, and their order.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Epoch, version and release of a package: `2:4.9.4-1.rhaos4.19.el9`.
///
/// No epoch is epoch 0. Ordered by rpm's rule (rpm: `rpmio/rpmvercmp.c`), ties (`1.01` and `1.1`) by bytes,
/// so that `Ord` agrees with `Eq`; use [`Evr::rpm_cmp`] where rpm's own equality matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Evr {
    /// 0 when the package has none.
    pub epoch: u32,
    /// Never empty.
    pub version: String,
    /// Never empty for a package; may be empty in a dependency.
    pub release: String,
}

impl Evr {
    /// Makes an EVR of its parts.
    pub fn new(epoch: u32, version: impl Into<String>, release: impl Into<String>) -> Self {
        Self { epoch, version: version.into(), release: release.into() }
    }

    /// Compares as rpm does: `1.01-1` and `1.1-1` are equal.
    pub fn rpm_cmp(&self, other: &Self) -> Ordering {
        let key = |e: &Self| rpm_version::Evr::new("0", e.version.as_str(), e.release.as_str()).sortkey();
        self.epoch.cmp(&other.epoch).then_with(|| key(self).cmp(&key(other)))
    }
}

impl Ord for Evr {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rpm_cmp(other)
            .then_with(|| self.version.cmp(&other.version))
            .then_with(|| self.release.cmp(&other.release))
    }
}

impl PartialOrd for Evr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The text is no `[EPOCH:]VERSION[-RELEASE]`.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not an EVR ([epoch:]version-release): {reason}")]
pub struct ParseEvrError {
    text: String,
    reason: &'static str,
}

impl FromStr for Evr {
    type Err = ParseEvrError;

    /// Parses `[EPOCH:]VERSION[-RELEASE]`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| ParseEvrError { text: text.to_owned(), reason };
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => (epoch.parse().map_err(|_| fail("the epoch is not a number"))?, rest),
            None => (0, text),
        };
        let (version, release) = match rest.rsplit_once('-') {
            Some((_, "")) => return Err(fail("the release is empty")),
            Some(parts) => parts,
            None => (rest, ""),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._+~^%{}".contains(c);
        if version.is_empty() {
            return Err(fail("the version is empty"));
        }
        if !version.chars().all(allowed) || !release.chars().all(allowed) {
            return Err(fail("only letters, digits and `._+~^` may stand in a version or release"));
        }
        Ok(Self::new(epoch, version, release))
    }
}

impl fmt::Display for Evr {
    /// `[EPOCH:]VERSION[-RELEASE]`; the epoch only when it is not 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.epoch != 0 {
            write!(f, "{}:", self.epoch)?;
        }
        f.write_str(&self.version)?;
        if !self.release.is_empty() {
            write!(f, "-{}", self.release)?;
        }
        Ok(())
    }
}

impl Serialize for Evr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Evr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_rpms() {
        let ascending =
            ["0~~", "1.0~", "1.0~rc1", "1.0~rc1^git1", "1.0", "1.0^git1", "1.0a", "1.0.1", "1.1", "1:0.1"];
        for pair in ascending.windows(2) {
            let [low, high] = [pair[0], pair[1]].map(|t| t.parse::<Evr>().unwrap());
            assert_eq!(low.rpm_cmp(&high), Ordering::Less, "{low} < {high}");
        }
    }

    #[test]
    fn equal_for_rpm_is_still_distinct() {
        let [a, b] = ["1.01-1", "1.1-1"].map(|t| t.parse::<Evr>().unwrap());
        assert_eq!(a.rpm_cmp(&b), Ordering::Equal);
        assert_ne!(a.cmp(&b), Ordering::Equal);
    }

    #[test]
    fn refuses_what_is_no_evr() {
        for text in ["", "x:1-1", ":1", "1:", "1-", "1 2", "1/2-3"] {
            assert!(text.parse::<Evr>().is_err(), "{text}");
        }
    }
}
