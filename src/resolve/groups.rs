//! Entries that are comps groups or environments: `@core`, `@Core`, `@core/mandatory,optional`.
//!
//! As in dnf (`comps.py`, `Base._install_groups`): every group and environment of that id or name is meant, or, if
//! there is none, every one whose id or name the text matches as a glob, whatever the case of its letters. Of an
//! environment its own groups are taken, its options are not.

use std::collections::BTreeSet;

use globset::GlobBuilder;

use crate::package::Arch;
use crate::repo::comps::{Comps, Group, GroupPackage, Kind};

/// dnf's `group_package_types`.
const DEFAULT_KINDS: [Kind; 3] = [Kind::Mandatory, Kind::Default, Kind::Conditional];

/// Why an entry means no group.
#[derive(Debug, thiserror::Error)]
pub enum NoGroup {
    /// No group or environment has this id or name.
    #[error("no repository has a group or environment `{0}`")]
    Unknown(String),
    /// What follows the slash is not a list of kinds.
    #[error("`{0}` is no kind of package in a group: expected mandatory, default, optional or conditional")]
    BadKind(String),
}

/// The packages of what `entry`, with its `@`, means; each once.
pub fn wanted<'c>(
    entry: &str,
    comps: &[&'c Comps],
    arch: Arch,
) -> Result<BTreeSet<&'c GroupPackage>, NoGroup> {
    let text = entry.trim_start_matches('@');
    let (name, kinds) = match text.split_once('/') {
        Some((name, kinds)) => (name, kinds.split(',').map(kind).collect::<Result<Vec<_>, _>>()?),
        None => (text, DEFAULT_KINDS.to_vec()),
    };
    let all_groups = || comps.iter().flat_map(|comps| &comps.groups);
    let mut groups: Vec<&Group> = named(name, all_groups(), |group| [&group.id, &group.name]);
    let environments =
        named(name, comps.iter().flat_map(|comps| &comps.environments), |env| [&env.id, &env.name]);
    if groups.is_empty() && environments.is_empty() {
        return Err(NoGroup::Unknown(name.to_owned()));
    }
    let members: BTreeSet<&String> = environments.iter().flat_map(|env| &env.groups).collect();
    groups.extend(all_groups().filter(|group| members.contains(&group.id)));
    let fits = |package: &&GroupPackage| kinds.contains(&package.kind) && package.is_for(arch);
    Ok(groups.into_iter().flat_map(|group| &group.packages).filter(fits).collect())
}

fn kind(text: &str) -> Result<Kind, NoGroup> {
    Kind::parse(text).ok_or_else(|| NoGroup::BadKind(text.to_owned()))
}

/// All of `all` that the text is an id or name of.
fn named<'c, T>(
    text: &str,
    all: impl Iterator<Item = &'c T> + Clone,
    names: fn(&T) -> [&String; 2],
) -> Vec<&'c T> {
    let exact: Vec<&T> =
        all.clone().filter(|item| names(item).into_iter().any(|name| name == text)).collect();
    if !exact.is_empty() {
        return exact;
    }
    // Python's fnmatch knows no escapes and no braces
    let escaped = text.replace('{', "[{]").replace('}', "[}]");
    let glob = GlobBuilder::new(&escaped).case_insensitive(true).backslash_escape(false).build();
    // a pattern that can't be read is the id of nothing
    let Ok(glob) = glob.map(|glob| glob.compile_matcher()) else { return Vec::new() };
    all.filter(|item| names(item).into_iter().any(|name| glob.is_match(name))).collect()
}
