//! What an entry of `install`, `remove` or `exclude` names, by dnf's rules.
//!
//! libdnf tries, in this order, and takes the first that names any package (`hy-subject.cpp`,
//! `sack/query.cpp`): the NEVRA forms `name-[epoch:]version-release.arch`, `name.arch`, `name`,
//! `name-[epoch:]version-release`, `name-[epoch:]version`, each part a glob; the whole NEVRA as a glob; a
//! capability (`name`, `name >= 1`, with a glob for a name); a path.

use globset::{GlobBuilder, GlobMatcher};

use crate::package::{Comparison, Dependency, Evr, Nevra};

/// The text is a glob that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a pattern: a bracket is not closed, or a range is empty")]
pub struct BadPattern(String);

/// A text with or without `*`, `?`, `[...]`, as fnmatch(3) without flags matches it.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Only itself.
    Text(String),
    /// Anything the glob matches.
    Glob(Box<GlobMatcher>),
}

impl Pattern {
    /// Parses a glob or plain text.
    pub fn new(text: &str) -> Result<Self, BadPattern> {
        if !is_glob(text) {
            return Ok(Self::Text(text.to_owned()));
        }
        // braces are plain characters to fnmatch
        let escaped = text.replace('{', "[{]").replace('}', "[}]");
        let glob = GlobBuilder::new(&escaped).build().map_err(|_| BadPattern(text.to_owned()))?;
        Ok(Self::Glob(Box::new(glob.compile_matcher())))
    }

    /// Whether `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Text(own) => own == text,
            Self::Glob(glob) => glob.is_match(text),
        }
    }
}

/// Whether dnf takes the text for a glob.
pub fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// One reading of a text as a NEVRA with parts left out.
#[derive(Clone, Debug)]
pub struct Form {
    name: Pattern,
    epoch: Option<u32>,
    version: Option<Version>,
    release: Option<Version>,
    arch: Option<Pattern>,
}

/// A version or a release: a glob is matched as text, anything else compared as rpm does (`1.0` is `1.00`).
#[derive(Clone, Debug)]
enum Version {
    Equal(Evr),
    Glob(Pattern),
}

impl Version {
    fn new(text: &str) -> Result<Self, BadPattern> {
        Ok(match is_glob(text) {
            true => Self::Glob(Pattern::new(text)?),
            false => Self::Equal(Evr::new(0, text, "")),
        })
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Equal(own) => own.rpm_cmp(&Evr::new(0, text, "")).is_eq(),
            Self::Glob(glob) => glob.matches(text),
        }
    }
}

impl Form {
    /// The readings of `text`, most specific first, as libdnf orders them.
    pub fn all(text: &str) -> Result<Vec<Self>, BadPattern> {
        let mut forms = Vec::new();
        if text.is_empty() || text.contains(['(', '/', '=', '<', '>', ' ']) {
            return Ok(forms);
        }
        let with_arch = text.rsplit_once('.').filter(|(_, arch)| !arch.is_empty() && !arch.contains('-'));
        if let Some((rest, arch)) = with_arch {
            forms.extend(Self::versioned(rest, true, Some(arch))?);
            forms.extend(Self::named(rest, Some(arch))?);
        }
        forms.extend(Self::named(text, None)?);
        forms.extend(Self::versioned(text, true, None)?);
        forms.extend(Self::versioned(text, false, None)?);
        Ok(forms)
    }

    fn named(name: &str, arch: Option<&str>) -> Result<Option<Self>, BadPattern> {
        if name.is_empty() || name.contains(':') {
            return Ok(None);
        }
        let arch = arch.map(Pattern::new).transpose()?;
        Ok(Some(Self { name: Pattern::new(name)?, epoch: None, version: None, release: None, arch }))
    }

    fn versioned(text: &str, with_release: bool, arch: Option<&str>) -> Result<Option<Self>, BadPattern> {
        let (text, release) = match with_release {
            true => match text.rsplit_once('-') {
                Some((rest, release)) => (rest, Some(release)),
                None => return Ok(None),
            },
            false => (text, None),
        };
        let Some((name, version)) = text.rsplit_once('-') else { return Ok(None) };
        let (epoch, version) = match version.split_once(':') {
            Some((epoch, version)) => match epoch.parse() {
                Ok(epoch) => (Some(epoch), version),
                Err(_) => return Ok(None),
            },
            None => (None, version),
        };
        let parts = [Some(name), Some(version), release];
        if parts.into_iter().flatten().any(|part| part.is_empty() || part.contains(':')) {
            return Ok(None);
        }
        let release = release.map(Version::new).transpose()?;
        let Some(mut form) = Self::named(name, arch)? else { return Ok(None) };
        form.epoch = epoch;
        form.version = Some(Version::new(version)?);
        form.release = release;
        Ok(Some(form))
    }

    /// The name, if it is no glob.
    pub fn plain_name(&self) -> Option<&str> {
        match &self.name {
            Pattern::Text(name) => Some(name),
            Pattern::Glob(_) => None,
        }
    }

    /// Whether only a name was given.
    pub fn is_just_name(&self) -> bool {
        self.epoch.is_none() && self.version.is_none() && self.arch.is_none()
    }

    /// Whether the architecture is a glob: then each architecture is taken.
    pub fn is_arch_glob(&self) -> bool {
        matches!(self.arch, Some(Pattern::Glob(_)))
    }

    /// Whether it names this package.
    pub fn matches(&self, nevra: &Nevra) -> bool {
        let evr = &nevra.evr;
        self.name.matches(&nevra.name)
            && self.epoch.is_none_or(|epoch| epoch == evr.epoch)
            && self.version.as_ref().is_none_or(|version| version.matches(&evr.version))
            && self.release.as_ref().is_none_or(|release| release.matches(&evr.release))
            && self.arch.as_ref().is_none_or(|arch| arch.matches(&nevra.arch))
    }
}

/// The whole text as a glob over NEVRAs, with the epoch or, where it is 0, without.
pub fn matches_whole(pattern: &Pattern, nevra: &Nevra) -> bool {
    pattern.matches(&nevra.to_string())
        || pattern.matches(&format!(
            "{}-{}:{}-{}.{}",
            nevra.name, nevra.evr.epoch, nevra.evr.version, nevra.evr.release, nevra.arch
        ))
}

/// The text as a capability with an optional version: `name`, `name >= 1-2`.
pub fn capability(text: &str) -> Option<Dependency> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let (name, version) = match words[..] {
        [name] => (name, None),
        [name, operator, version] => {
            let comparison = match operator {
                "<" => Comparison::Lt,
                "<=" => Comparison::Le,
                "=" | "==" => Comparison::Eq,
                ">=" => Comparison::Ge,
                ">" => Comparison::Gt,
                _ => return None,
            };
            (name, Some((comparison, version.parse().ok()?)))
        }
        _ => return None,
    };
    Some(Dependency { name: name.to_owned(), version, pre: false })
}

/// Whether dnf looks the text up among files.
pub fn is_path(text: &str) -> bool {
    text.starts_with('/') || text.starts_with("*/")
}

/// The packages of `all` that `text` names by a NEVRA form: what `exclude` and `remove` understand.
pub fn by_nevra<'n, T>(
    text: &str,
    all: &'n [T],
    nevra: impl Fn(&'n T) -> &'n Nevra,
) -> Result<Vec<&'n T>, BadPattern> {
    for form in Form::all(text)? {
        let found: Vec<_> = all.iter().filter(|item| form.matches(nevra(item))).collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let whole = Pattern::new(text)?;
    Ok(all.iter().filter(|item| matches_whole(&whole, nevra(item))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str, nevras: &[(&str, &str, &str)]) -> Vec<String> {
        let nevras: Vec<Nevra> = nevras
            .iter()
            .map(|(n, e, a)| Nevra { name: n.to_string(), evr: e.parse().unwrap(), arch: a.to_string() })
            .collect();
        by_nevra(text, &nevras, |n| n).unwrap().into_iter().map(ToString::to_string).collect()
    }

    #[test]
    fn forms_are_tried_most_specific_first() {
        let all = [
            ("foo", "1.2-3", "noarch"),
            ("foo-1.2", "9-9", "noarch"),
            ("foo", "1:2.0-1", "x86_64"),
            ("bar", "1.0-1", "x86_64"),
        ];
        // the name `foo-1.2` comes before foo, version 1.2
        assert_eq!(named("foo-1.2", &all), ["foo-1.2-9-9.noarch"]);
        assert_eq!(named("foo-1.2-3", &all), ["foo-1.2-3.noarch"]);
        assert_eq!(named("foo-1.2-3.noarch", &all), ["foo-1.2-3.noarch"]);
        assert_eq!(named("foo-1:2.0", &all), ["foo-1:2.0-1.x86_64"]);
        assert_eq!(named("foo-2.0-1", &all), ["foo-1:2.0-1.x86_64"]);
        assert_eq!(named("foo-0:2.0-1", &all), [""; 0]);
        assert_eq!(named("bar.x86_64", &all), ["bar-1.0-1.x86_64"]);
        assert_eq!(named("bar-1", &all), ["bar-1.0-1.x86_64"; 0]);
        assert_eq!(named("bar-1.00", &all), ["bar-1.0-1.x86_64"]);
        assert_eq!(named("foo", &all), ["foo-1.2-3.noarch", "foo-1:2.0-1.x86_64"]);
        assert_eq!(named("foo*", &all).len(), 3);
        assert_eq!(named("*.x86_64", &all).len(), 2);
        assert_eq!(named("bar*64", &all), ["bar-1.0-1.x86_64"]);
    }

    #[test]
    fn bad_patterns_are_errors() {
        assert!(Pattern::new("foo[").is_err());
        assert!(Pattern::new("a{b*").unwrap().matches("a{bc"));
    }

    #[test]
    fn capabilities() {
        assert_eq!(capability("cap >= 1:2").unwrap().to_string(), "cap >= 1:2");
        assert_eq!(capability("cap").unwrap().to_string(), "cap");
        assert!(capability("cap is 1").is_none() && capability("").is_none() && capability("a >=").is_none());
    }
}
