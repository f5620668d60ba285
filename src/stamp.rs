//! Versions and os-release: how an image says what it is.
//!
//! A version is `<X.Y>.<YYYYMMDD>-<N>` (`9.6.20250203-0`), which semver reads as a pre-release; two versions
//! are compared as values, never through a requirement. `9.6.20250203-0.dirty` has packages of no repository: above
//! the clean version of that counter, below the next; a tag may be called so, which `+dirty` could not, and `oc`
//! does not drop it, which it does with what follows a `+`. The date is that of the newest repository revision in
//! the layers that date the stream, not of the build, so the same inputs always carry the same version.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::hinted;
use crate::plan::{Os, Sourced};

/// What ends the version of an image with local packages.
const DIRTY: &str = ".dirty";

/// The version of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    major: u64,
    minor: u64,
    /// `YYYYMMDD`; in the old scheme `YYYYMMDDhhmm`.
    stamp: u64,
    count: u64,
    /// Some package is a local file.
    dirty: bool,
}

impl Version {
    /// Makes a version of a prefix (`9.6`; a bare major gets `.0`, as CentOS Stream's), the time of the newest
    /// repository revision (UTC seconds), and a counter.
    pub fn new(prefix: &str, revision: u64, count: u64) -> Result<Self> {
        let (major, minor) = prefix.split_once('.').unwrap_or((prefix, "0"));
        let number = |text: &str| {
            text.parse::<u64>().with_context(|| {
                format!("making a version: the prefix is `{prefix}`, expected two numbers like `9.6`")
            })
        };
        let seconds = i64::try_from(revision).context("making a version: the revision is no time")?;
        let day = Timestamp::from_second(seconds)
            .with_context(|| format!("making a version: the revision {revision} is no time"))?
            .to_zoned(TimeZone::UTC);
        let (year, month, day) = (day.year() as u64, day.month() as u64, day.day() as u64);
        let stamp = year * 10_000 + month * 100 + day;
        Ok(Self { major: number(major)?, minor: number(minor)?, stamp, count, dirty: false })
    }

    /// The version of an image that has local packages of its own, if it `has` any, or those of the image below.
    pub fn or_dirty(self, has: bool) -> Self {
        Self { dirty: self.dirty || has, ..self }
    }

    /// Whether only the counters of the two differ.
    pub fn same_date(&self, other: &Self) -> bool {
        (self.major, self.minor, self.stamp) == (other.major, other.minor, other.stamp)
    }

    /// The first version of this date that is above all of `taken`.
    pub fn after(self, taken: impl IntoIterator<Item = Version>) -> Self {
        let counts = taken.into_iter().filter(|v| v.same_date(&self)).map(|v| v.count);
        Self { count: counts.max().map_or(0, |n| n + 1), ..self }
    }

    /// Versions up to OpenShift 4.18 began with both versions run together: 418.94 is OpenShift 4.18 on RHEL 9.4.
    fn is_old(&self) -> bool {
        self.major >= 400
    }
}

impl Ord for Version {
    /// By scheme (the old one, whose major number is above 400, comes first), then number by number.
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |v: &Self| (!v.is_old(), v.major, v.minor, v.stamp, v.count, v.dirty);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}-{}", self.major, self.minor, self.stamp, self.count)?;
        if self.dirty { f.write_str(DIRTY) } else { Ok(()) }
    }
}

/// The text is no image version.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an image version: expected X.Y.YYYYMMDD-N, such as 9.6.20250203-0")]
pub struct ParseVersionError(String);

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ParseVersionError(text.to_owned());
        let version = semver::Version::parse(text).map_err(|_| fail())?;
        let (count, dirty) = match version.pre.as_str().strip_suffix(DIRTY) {
            Some(count) => (count, true),
            None => (version.pre.as_str(), false),
        };
        let count = count.parse().map_err(|_| fail())?;
        if !version.build.is_empty() || !(8..=14).contains(&version.patch.to_string().len()) {
            return Err(fail());
        }
        Ok(Self { major: version.major, minor: version.minor, stamp: version.patch, count, dirty })
    }
}

/// An os-release file (os-release(5)): assignments in order; comments and blank lines are not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsRelease {
    fields: Vec<(String, String)>,
}

impl OsRelease {
    /// Parses the text of an os-release file.
    pub fn parse(text: &str) -> Result<Self> {
        let mut fields = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').with_context(|| {
                format!("reading os-release: line {} is `{line}`, expected KEY=value", index + 1)
            })?;
            fields.push((key.to_owned(), unquote(value)));
        }
        Ok(Self { fields })
    }

    /// The value of `key`, if it is set.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Sets `key` where it stands, or at the end.
    pub fn set(&mut self, key: &str, value: &str) {
        match self.fields.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => value.clone_into(old),
            None => self.fields.push((key.to_owned(), value.to_owned())),
        }
    }

    /// Puts the image's version into `VERSION`, in the place of the distribution's (`9.6 (Plow)` becomes
    /// `9.6.20250203-0 (Plow)`), and adds `OSTREE_VERSION` and `IMAGE_VERSION`.
    ///
    /// Fails if `VERSION` does not begin with the distribution's version, or is stamped already.
    pub fn stamp(&mut self, os: &Os, version: Version) -> Result<()> {
        let found = self.get("VERSION").unwrap_or_default().to_owned();
        if let Some(stamped) = self.get("OSTREE_VERSION") {
            bail!("stamping os-release with {version}: it carries the version {stamped} already");
        }
        let longer = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_digit() || ".-".contains(c));
        let rest = found.strip_prefix(os.version.as_str()).filter(|rest| !longer(rest));
        let Some(rest) = rest else {
            return Err(hinted(
                format!(
                    "stamping os-release with {version}: VERSION is `{found}`, expected it to begin with `{}`",
                    os.version
                ),
                "make `os.version` in stream.toml what the distribution's release package says",
            ));
        };
        self.set("VERSION", &format!("{version}{rest}"));
        self.set("OSTREE_VERSION", &version.to_string());
        self.set("IMAGE_VERSION", &version.to_string());
        Ok(())
    }

    /// Sets the fields a manifest names. `PRETTY_NAME` follows `NAME` and `VERSION` unless it is named.
    pub fn set_fields(&mut self, fields: &[Sourced<(String, String)>]) {
        for Sourced { value: (key, value), .. } in fields {
            self.set(key, value);
        }
        if !fields.iter().any(|f| f.value.0 == "PRETTY_NAME") {
            let parts: Vec<&str> = ["NAME", "VERSION"].iter().filter_map(|k| self.get(k)).collect();
            let pretty = parts.join(" ");
            self.set("PRETTY_NAME", &pretty);
        }
    }
}

impl fmt::Display for OsRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.fields {
            writeln!(f, "{key}={}", quote(value))?;
        }
        Ok(())
    }
}

/// os-release(5) values are shell words: a quoted string with backslash escapes, or a plain word.
fn unquote(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')) {
        return inner.to_owned();
    }
    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
    let mut plain = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

fn quote(value: &str) -> String {
    if !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || "._-:/".contains(c)) {
        return value.to_owned();
    }
    let mut quoted = String::from('"');
    for c in value.chars() {
        if "\"\\$`".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLOW: &str = "NAME=\"Red Hat Enterprise Linux\"\n# comment\nVERSION=\"9.6 (Plow)\"\nID=\"rhel\"\n\
                        VERSION_ID=\"9.6\"\nPRETTY_NAME=\"Red Hat Enterprise Linux 9.6 (Plow)\"\n";

    fn rhel() -> Os {
        Os { id: "rhel".into(), name: "Red Hat Enterprise Linux".into(), version: "9.6".into() }
    }

    #[test]
    fn versions_take_the_day_in_utc() {
        // 2025-02-03T23:59:59Z and one second later
        assert_eq!(Version::new("9.6", 1_738_627_199, 0).unwrap().to_string(), "9.6.20250203-0");
        assert_eq!(Version::new("9.6", 1_738_627_200, 2).unwrap().to_string(), "9.6.20250204-2");
        assert_eq!(Version::new("10", 1_738_627_199, 0).unwrap().to_string(), "10.0.20250203-0");
        assert!(Version::new("9.x", 0, 0).is_err());
        assert!(Version::new("9.6", u64::MAX, 0).is_err());
    }

    #[test]
    fn order_is_scheme_then_number() {
        let ascending = [
            "418.94.202409090849-0",
            "419.94.202412101440-0",
            "9.4.20240909-0",
            "9.6.20250203-2",
            "9.6.20250203-2.dirty",
            "9.6.20250203-10",
            "9.6.20250204-0",
            "10.0.20240101-0",
        ];
        for pair in ascending.windows(2) {
            let [low, high] = [pair[0], pair[1]].map(|t| t.parse::<Version>().unwrap());
            assert!(low < high, "{low} < {high}");
            assert_eq!(low.to_string(), pair[0]);
        }
        let semver = |text: &str| semver::Version::parse(text).unwrap();
        assert!(semver("9.6.20250203-2") < semver("9.6.20250203-2.dirty"));
        assert!(semver("9.6.20250203-2.dirty") < semver("9.6.20250203-3"));
        for text in [
            "9.6.20250203",
            "9.6.20250203-.dirty",
            "9.6.20250203-0.dirty.dirty",
            "9.6.20250203-0.clean",
            "9.6.20250203-dev0",
            "9.6.1-0",
            "9.6.20250203-0+x",
            "9.6-0",
            "",
        ] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_counter_goes_above_versions_of_the_same_date() {
        let version = Version::new("9.6", 1_738_627_199, 0).unwrap();
        let taken = ["9.6.20250203-0", "9.6.20250203-4", "9.6.20250210-7"].map(|t| t.parse().unwrap());
        assert_eq!(version.after(taken).to_string(), "9.6.20250203-5");
        assert_eq!(version.after([]).to_string(), "9.6.20250203-0");
    }

    #[test]
    fn os_release_is_stamped_as_rhcos_is() {
        let mut os = OsRelease::parse(PLOW).unwrap();
        os.stamp(&rhel(), "9.6.20250203-0".parse().unwrap()).unwrap();
        let field = |key: &str, value: &str| Sourced {
            value: (key.into(), value.into()),
            origin: crate::plan::Origin { file: "coreos.toml".into(), line: 1 },
        };
        os.set_fields(&[field("NAME", "Red Hat Enterprise Linux CoreOS"), field("VARIANT_ID", "coreos")]);
        let expected = "NAME=\"Red Hat Enterprise Linux CoreOS\"\nVERSION=\"9.6.20250203-0 (Plow)\"\nID=rhel\n\
                        VERSION_ID=9.6\nPRETTY_NAME=\"Red Hat Enterprise Linux CoreOS 9.6.20250203-0 (Plow)\"\n\
                        OSTREE_VERSION=9.6.20250203-0\nIMAGE_VERSION=9.6.20250203-0\nVARIANT_ID=coreos\n";
        assert_eq!(os.to_string(), expected);
        assert_eq!(OsRelease::parse(expected).unwrap(), os);
    }

    #[test]
    fn stamping_fails_rather_than_doing_nothing() {
        let version = "9.6.20250203-0".parse().unwrap();
        for found in ["9.4 (Plow)", "9.60 (Plow)", "9.6.1", ""] {
            let mut other = OsRelease::parse(&format!("VERSION=\"{found}\"\n")).unwrap();
            let error = other.stamp(&rhel(), version).unwrap_err().to_string();
            assert!(error.contains(&format!("`{found}`")), "{error}");
        }
        let mut twice = OsRelease::parse(PLOW).unwrap();
        twice.stamp(&rhel(), version).unwrap();
        assert!(twice.stamp(&rhel(), version).is_err());
    }

    #[test]
    fn values_survive_quoting() {
        for value in ["", "a", "a b", "it's", "say \"x\"", "$HOME `x` \\", "Größe"] {
            assert_eq!(unquote(&quote(value)), value);
        }
    }
}
