//! Chunks: a delta split by content, so that a new build of one package changes few blobs.
//!
//! In layer order:
//!
//! 1. what is removed (the module doc of [`crate::image`] says why it is first and alone);
//! 2. a chunk per large source package;
//! 3. a fixed number of bins for the small ones, by hash of their name;
//! 4. what no package owns: configuration and what scripts made;
//! 5. the rpmdb;
//! 6. the metadata file, alone and last, where existing readers look for it.
//!
//! Which chunk a package is in must not depend on the others more than necessary. A bin depends on the name
//! alone. "Large" is a rank by size, but sizes are compared by their power of two, so that a package that
//! grows a little from build to build keeps its rank. A file with several names is in the chunk of the first.
//! Every chunk has the directories on the way to its entries, with the same metadata, so it means the same
//! whichever chunks are unpacked before it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::delta::{Delta, Entry, Kind};
use crate::digest::Digest;

/// A part of a delta that becomes one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// What is in it, for people: a source package, `bin 3`, `files`, `rpmdb`, `metadata`, `removed`.
    pub name: String,
    /// The source packages in it, sorted.
    pub sources: Vec<String>,
    /// Sorted, parents included.
    pub entries: Vec<Entry>,
}

impl Chunk {
    /// Size of its files, in bytes.
    pub fn size(&self) -> u64 {
        self.entries.iter().map(size).sum()
    }
}

/// How a delta is split. Paths are relative to the image's root.
pub struct Rules<'a> {
    /// The source package a path belongs to, without version; or another name for content that changes on its
    /// own, such as an initramfs.
    pub owner_of: &'a dyn Fn(&Path) -> Option<&'a str>,
    /// Directory of the rpmdb.
    pub rpmdb: &'a Path,
    /// The metadata file.
    pub metadata: &'a Path,
    /// Most chunks there may be; [`budget`] has the defaults. Taken as 6 if less.
    pub budget: usize,
}

/// Most chunks a layer has by default. Container storage takes 127 layers at least; the three layers together
/// leave room for a derived image's own.
pub fn budget(layer: &str) -> usize {
    match layer {
        "bootc" => 40,
        "coreos" => 20,
        _ => 24,
    }
}

/// Source packages below this size never get a chunk of their own, in bytes.
const LARGE: u64 = 1 << 20;

/// Chunks that are no packages': removed, files, rpmdb, metadata.
const OTHERS: usize = 4;

/// A chunk's identity; the order is that of the layers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Removed,
    Source(&'a str),
    Bin(usize),
    Files,
    Rpmdb,
    Metadata,
}

/// Splits `delta` into chunks, in layer order. None is empty.
pub fn split(delta: &Delta, rules: &Rules) -> Vec<Chunk> {
    let owned = Owned::new(delta, rules);
    let mut chunks: BTreeMap<Key, Contents> = BTreeMap::new();
    for path in &delta.removed {
        let contents = chunks.entry(Key::Removed).or_default();
        contents.add(delta, whiteout(path));
    }
    for entry in delta.changed.values() {
        let (key, source) = owned.key(home(entry), rules);
        let contents = chunks.entry(key).or_default();
        contents.sources.extend(source);
        contents.add(delta, entry.clone());
    }
    chunks.into_iter().map(|(key, contents)| contents.finish(&key)).collect()
}

/// The path that decides an entry's chunk.
fn home(entry: &Entry) -> &Path {
    match &entry.kind {
        Kind::HardLink { to } => to,
        _ => &entry.path,
    }
}

fn size(entry: &Entry) -> u64 {
    match entry.kind {
        Kind::File { size } => size,
        _ => 0,
    }
}

fn whiteout(path: &Path) -> Entry {
    Entry {
        path: path.to_owned(),
        kind: Kind::Whiteout,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: BTreeMap::new(),
    }
}

/// Which source packages have a chunk of their own, and how many bins the others share.
struct Owned<'a> {
    large: BTreeSet<&'a str>,
    bins: usize,
}

impl<'a> Owned<'a> {
    fn new(delta: &Delta, rules: &Rules<'a>) -> Self {
        let rest = rules.budget.max(OTHERS + 2) - OTHERS;
        let bins = rest.div_ceil(3);
        let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
        for entry in delta.changed.values() {
            if let Some(source) = (rules.owner_of)(home(entry)) {
                *sizes.entry(source).or_default() += size(entry);
            }
        }
        let mut ranked: Vec<_> = sizes.into_iter().filter(|(_, size)| *size >= LARGE).collect();
        ranked.sort_by_key(|(source, size)| (std::cmp::Reverse(size.ilog2()), *source));
        Self { large: ranked.into_iter().take(rest - bins).map(|(source, _)| source).collect(), bins }
    }

    fn key(&self, path: &Path, rules: &Rules<'a>) -> (Key<'a>, Option<&'a str>) {
        if path == rules.metadata {
            return (Key::Metadata, None);
        }
        if path.starts_with(rules.rpmdb) {
            return (Key::Rpmdb, None);
        }
        match (rules.owner_of)(path) {
            None => (Key::Files, None),
            Some(source) if self.large.contains(source) => (Key::Source(source), Some(source)),
            Some(source) => (Key::Bin(bin(source, self.bins)), Some(source)),
        }
    }
}

/// The bin of a source package among `bins`.
fn bin(source: &str, bins: usize) -> usize {
    let hex = Digest::of(source).hex();
    // 15 hex digits fit an u64 and are digits
    let number = u64::from_str_radix(&hex[..15], 16).unwrap_or_default();
    (number % bins as u64) as usize
}

/// A chunk being filled.
#[derive(Default)]
struct Contents<'a> {
    sources: BTreeSet<&'a str>,
    entries: BTreeMap<PathBuf, Entry>,
}

impl Contents<'_> {
    /// Adds an entry and the directories on the way to it; not the root, which every reader has.
    fn add(&mut self, delta: &Delta, entry: Entry) {
        for parent in entry.path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
            if self.entries.contains_key(parent) {
                break;
            }
            let found = delta.changed.get(parent).or_else(|| delta.parents.get(parent));
            self.entries.extend(found.map(|e| (parent.to_owned(), e.clone())));
        }
        self.entries.insert(entry.path.clone(), entry);
    }

    fn finish(self, key: &Key) -> Chunk {
        let name = match key {
            Key::Removed => "removed".to_owned(),
            Key::Source(source) => (*source).to_owned(),
            Key::Bin(n) => format!("bin {n}"),
            Key::Files => "files".to_owned(),
            Key::Rpmdb => "rpmdb".to_owned(),
            Key::Metadata => "metadata".to_owned(),
        };
        let sources = self.sources.into_iter().map(str::to_owned).collect();
        Chunk { name, sources, entries: self.entries.into_values().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind) -> (PathBuf, Entry) {
        let entry =
            Entry { path: path.into(), kind, mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() };
        (path.into(), entry)
    }

    /// A tree with one file per package, `usr/lib/NAME`, of the sizes given in KiB.
    fn delta(packages: &[(&str, u64)]) -> Delta {
        let mut delta = Delta::default();
        delta.changed.extend([entry("usr", Kind::Directory), entry("usr/lib", Kind::Directory)]);
        for (name, size) in packages {
            delta.changed.extend([entry(&format!("usr/lib/{name}"), Kind::File { size: size << 10 })]);
        }
        delta
    }

    fn split(delta: &Delta, budget: usize) -> BTreeMap<String, Vec<String>> {
        fn owner(path: &Path) -> Option<&str> {
            path.strip_prefix("usr/lib").ok()?.to_str().filter(|n| !n.is_empty())
        }
        // the owners borrow from paths of the delta, the rules want them to outlive these
        let owners: BTreeMap<PathBuf, String> =
            delta.changed.keys().filter_map(|p| Some((p.clone(), owner(p)?.to_owned()))).collect();
        let owner_of = |path: &Path| owners.get(path).map(String::as_str);
        let rules = Rules {
            owner_of: &owner_of,
            rpmdb: Path::new("usr/rpm"),
            metadata: Path::new("usr/meta.json"),
            budget,
        };
        let paths = |chunk: &Chunk| chunk.entries.iter().map(|e| e.path.display().to_string()).collect();
        super::split(delta, &rules).iter().map(|chunk| (chunk.name.clone(), paths(chunk))).collect()
    }

    const PACKAGES: [(&str, u64); 8] = [
        ("kernel", 300_000),
        ("glibc", 20_000),
        ("bash", 7_000),
        ("acl", 90),
        ("attr", 80),
        ("zlib", 200),
        ("sed", 300),
        ("popt", 100),
    ];

    #[test]
    fn a_new_package_moves_no_other() {
        let before = split(&delta(&PACKAGES), 12);
        let mut packages = PACKAGES.to_vec();
        packages.push(("newcomer", 150));
        let after = split(&delta(&packages), 12);
        let changed: Vec<_> = after.iter().filter(|(name, paths)| before.get(*name) != Some(paths)).collect();
        assert_eq!(changed.len(), 1);
        assert!(changed[0].1.contains(&"usr/lib/newcomer".to_owned()));
    }

    #[test]
    fn growing_a_little_moves_nothing() {
        // six packages compete for the five single chunks of a budget of 12
        let packages = |grown: u64| {
            let mut packages: Vec<_> = ["a", "b", "c", "d", "e"].map(|n| (n, 5000)).into();
            packages.push(("f", 5000 + grown));
            delta(&packages)
        };
        assert_eq!(split(&packages(0), 12), split(&packages(1000), 12));
        assert!(split(&packages(0), 12).contains_key("e"));
        assert!(!split(&packages(0), 12).contains_key("f"));
    }

    #[test]
    fn the_budget_holds() {
        let many: Vec<(String, u64)> = (0..200).map(|n| (format!("package-{n}"), 100 + n * 40)).collect();
        let many: Vec<(&str, u64)> = many.iter().map(|(name, size)| (name.as_str(), *size)).collect();
        let mut delta = delta(&many);
        delta.removed.insert("usr/lib/gone".into());
        delta.changed.extend([entry("usr/rpm/db", Kind::File { size: 1 })]);
        delta.changed.extend([entry("usr/meta.json", Kind::File { size: 1 })]);
        for budget in [6, 7, 20, 40] {
            assert_eq!(split(&delta, budget).len(), budget);
        }
        assert_eq!(split(&delta, 0).len(), 6);
    }

    #[test]
    fn links_stay_with_their_file_and_parents_come_along() {
        let mut delta = delta(&[("glibc", 2000), ("bash", 3000)]);
        delta.changed.remove(Path::new("usr/lib"));
        delta.parents.extend([entry("usr/lib", Kind::Directory)]);
        delta.changed.extend([entry("usr/lib/sh", Kind::HardLink { to: "usr/lib/bash".into() })]);
        delta.removed.insert("usr/lib/old".into());
        let chunks = split(&delta, 20);
        assert_eq!(chunks["bash"], ["usr", "usr/lib", "usr/lib/bash", "usr/lib/sh"]);
        assert_eq!(chunks["glibc"], ["usr", "usr/lib", "usr/lib/glibc"]);
        assert_eq!(chunks["removed"], ["usr", "usr/lib", "usr/lib/old"]);
    }

    #[test]
    fn removals_are_first_and_metadata_last() {
        let mut delta = delta(&PACKAGES);
        delta.removed.insert("a".into());
        delta.changed.extend([
            entry("usr/meta.json", Kind::File { size: 1 }),
            entry("usr/rpm/db", Kind::File { size: 1 }),
            entry("zz", Kind::File { size: 1 }),
        ]);
        let owner_of = |_: &Path| None;
        let rules = Rules {
            owner_of: &owner_of,
            rpmdb: Path::new("usr/rpm"),
            metadata: Path::new("usr/meta.json"),
            budget: 9,
        };
        let names: Vec<_> = super::split(&delta, &rules).into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["removed", "files", "rpmdb", "metadata"]);
    }
}
