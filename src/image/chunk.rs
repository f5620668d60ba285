//! Chunks: a delta split by content, so that a new build of one package changes few blobs.
//!
//! In layer order:
//!
//! 1. what is removed (the module doc of [`crate::image`] says why it is first and alone);
//! 2. the files of packages, by source package, as the chunk plan has them ([`crate::image::packing`]);
//! 3. what is made of files of many packages, and changes with any of them: the initramfs, what depmod makes, the
//!    SELinux policy, and other files that scripts made in the place of a package's;
//! 4. what no package owns: configuration and what scripts made;
//! 5. the rpmdb;
//! 6. the metadata file, alone and last, where existing readers look for it.
//!
//! A file with several names is in the chunk of the first. Every chunk has the directories on the way to its
//! entries, with the same metadata, so it means the same whichever chunks are unpacked before it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::delta::{Delta, Entry, Kind};
use super::packing::{self, Packing, Sources};

/// A part of a delta that becomes one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// What is in it, for people: a source package, `seldom 3` (how often its packages change), or what
    /// [`crate::image::chunk`] lists.
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

/// Whose the paths of a delta are. They are relative to the image's root.
pub struct Rules<'a> {
    /// The source package, without version, that ships a path.
    pub owner_of: &'a dyn Fn(&Path) -> Option<&'a str>,
    /// Whether a package lists a path that it does not ship (`%ghost`): scripts make it.
    pub is_ghost: &'a dyn Fn(&Path) -> bool,
    /// Directory of the rpmdb.
    pub rpmdb: &'a Path,
    /// The metadata file.
    pub metadata: &'a Path,
}

/// Most chunks a layer has by default. The three layers together leave room for a derived image's own.
pub fn default_most(layer: &str) -> usize {
    match layer {
        "bootc" => 48,
        "coreos" => 20,
        _ => 24,
    }
}

/// Chunks that are no packages': what is removed, and each [`Other`].
const OTHERS: usize = 8;

/// Least number of chunks that a layer can be told to have.
pub const LEAST: usize = OTHERS + packing::LEAST;

/// Most chunks that a layer can be told to have: an image has 127 layers at most where every layer is a mount.
pub const MOST: usize = 120;

/// How many chunks of packages there may be, if there are to be no more than `most`, [`LEAST`] at least.
pub fn most_of_packages(most: usize) -> usize {
    most.max(LEAST) - OTHERS
}

/// Whose a path is.
enum Home<'a> {
    /// A package's, by the name of its source.
    Package(&'a str),
    Other(Other),
}

/// What is no package's, in the order of the layers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Other {
    Generated,
    Initramfs,
    ModuleIndex,
    SelinuxPolicy,
    Files,
    Rpmdb,
    Metadata,
}

impl Other {
    fn name(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Initramfs => "initramfs",
            Self::ModuleIndex => "module index",
            Self::SelinuxPolicy => "selinux policy",
            Self::Files => "files",
            Self::Rpmdb => "rpmdb",
            Self::Metadata => "metadata",
        }
    }
}

/// A chunk's identity; the order is that of the layers.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Removed,
    /// Number of a chunk of the plan.
    Packages(usize),
    Other(Other),
}

impl Key {
    fn name(&self, packing: &Packing) -> String {
        match self {
            Self::Removed => "removed".to_owned(),
            Self::Packages(number) => packing.name(*number),
            Self::Other(other) => other.name().to_owned(),
        }
    }
}

/// What depmod makes beside the modules (kmod: `tools/depmod.c`). Packages list some of them and ship none.
const MODULE_INDEX: [&str; 11] = [
    "modules.alias",
    "modules.alias.bin",
    "modules.builtin.alias.bin",
    "modules.builtin.bin",
    "modules.dep",
    "modules.dep.bin",
    "modules.devname",
    "modules.softdep",
    "modules.symbols",
    "modules.symbols.bin",
    "modules.weakdep",
];

/// A package ships them, and every package with an account changes them.
const ACCOUNTS: [&str; 6] = ["group", "gshadow", "passwd", "shadow", "subgid", "subuid"];

impl<'a> Rules<'a> {
    fn home(&self, path: &Path) -> Home<'a> {
        match (self.other(path), (self.owner_of)(path)) {
            (None, Some(source)) => Home::Package(source),
            (other, _) => Home::Other(other.unwrap_or(Other::Files)),
        }
    }

    /// What a path is, if it is no package's although one may list it.
    fn other(&self, path: &Path) -> Option<Other> {
        if path == self.metadata {
            return Some(Other::Metadata);
        }
        if path.starts_with(self.rpmdb) {
            return Some(Other::Rpmdb);
        }
        match path.to_str()?.split('/').collect::<Vec<_>>()[..] {
            ["usr", "lib", "modules", _, "initramfs.img"] => Some(Other::Initramfs),
            ["usr", "lib", "modules", _, file] if MODULE_INDEX.contains(&file) => Some(Other::ModuleIndex),
            // what semodule makes of the modules that packages ship
            ["etc", "selinux", _, "active" | "policy", ..]
            | ["etc", "selinux", _, "contexts", "files", ..]
            | ["var", "lib", "selinux", ..] => Some(Other::SelinuxPolicy),
            ["etc", file] if ACCOUNTS.contains(&file) => Some(Other::Generated),
            _ => (self.is_ghost)(path).then_some(Other::Generated),
        }
    }
}

/// Adds up what each source package has in `delta`, in bytes.
pub fn sizes(delta: &Delta, rules: &Rules) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    for entry in delta.changed.values() {
        if let Home::Package(source) = rules.home(deciding_path(entry)) {
            *sizes.entry(source.to_owned()).or_default() += size(entry);
        }
    }
    sizes
}

/// Splits `delta` into chunks, in layer order. None is empty. `sources` has all that [`sizes`] names.
pub fn split(delta: &Delta, rules: &Rules, packing: &Packing, sources: &Sources) -> Vec<Chunk> {
    let planned: BTreeMap<&str, usize> =
        sources.iter().map(|(name, source)| (name.as_str(), packing.chunk_of(name, source))).collect();
    let mut chunks: BTreeMap<Key, Contents> = BTreeMap::new();
    for path in &delta.removed {
        chunks.entry(Key::Removed).or_default().add(delta, whiteout(path));
    }
    for entry in delta.changed.values() {
        let (key, source) = match rules.home(deciding_path(entry)) {
            Home::Package(source) => (Key::Packages(planned[source]), Some(source)),
            Home::Other(other) => (Key::Other(other), None),
        };
        let contents = chunks.entry(key).or_default();
        contents.sources.extend(source);
        contents.add(delta, entry.clone());
    }
    chunks.into_iter().map(|(key, contents)| contents.finish(key.name(packing))).collect()
}

/// The path that decides an entry's chunk: of a file with several names the first.
fn deciding_path(entry: &Entry) -> &Path {
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

/// A chunk being filled.
#[derive(Default)]
struct Contents<'a> {
    sources: BTreeSet<&'a str>,
    /// Sorted.
    entries: Vec<Entry>,
}

impl Contents<'_> {
    /// Adds an entry, which sorts after those that are there, and the directories on the way to it; not the root, which
    /// every reader has.
    fn add(&mut self, delta: &Delta, entry: Entry) {
        let last = self.entries.last().map(|last| last.path.as_path());
        // what is on the way to the last entry, too, is there
        let is_new = |dir: &&Path| !last.is_some_and(|last| last.starts_with(dir));
        let dirs: Vec<&Path> = entry.path.ancestors().skip(1).take_while(is_new).collect();
        let find = |dir: &Path| delta.changed.get(dir).or_else(|| delta.parents.get(dir)).cloned();
        let found = dirs.into_iter().rev().filter(|dir| !dir.as_os_str().is_empty()).filter_map(find);
        let found: Vec<Entry> = found.collect();
        self.entries.extend(found);
        self.entries.push(entry);
    }

    fn finish(self, name: String) -> Chunk {
        let sources = self.sources.into_iter().map(str::to_owned).collect();
        Chunk { name, sources, entries: self.entries }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::image::packing::Source;

    fn entry(path: &str, kind: Kind) -> (PathBuf, Entry) {
        let entry =
            Entry { path: path.into(), kind, mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() };
        (path.into(), entry)
    }

    fn file(path: &str) -> (PathBuf, Entry) {
        entry(path, Kind::File { size: 1000 })
    }

    /// `glibc`, `bash` and `kernel` have the paths with their names in them.
    fn owner_of(path: &Path) -> Option<&'static str> {
        let path = path.to_str()?;
        ["glibc", "bash", "kernel"].into_iter().find(|name| path.contains(name))
    }

    /// The chunks in order, a line each: the name, and the paths in it.
    fn split(delta: &Delta) -> Vec<String> {
        let rules = Rules {
            owner_of: &owner_of,
            is_ghost: &|path| path.extension().is_some_and(|extension| extension == "ghost"),
            rpmdb: Path::new("usr/rpm"),
            metadata: Path::new("usr/meta.json"),
        };
        let sources: Sources = sizes(delta, &rules)
            .into_iter()
            .map(|(name, size)| (name, Source { size, ..Source::default() }))
            .collect();
        let line = |chunk: &Chunk| {
            let paths: Vec<String> = chunk.entries.iter().map(|e| e.path.display().to_string()).collect();
            format!("{}: {}", chunk.name, paths.join(" "))
        };
        super::split(delta, &rules, &Packing::new(&sources, 10), &sources).iter().map(line).collect()
    }

    #[test]
    fn links_stay_with_their_file_and_parents_come_along() {
        let mut delta = Delta::default();
        delta.parents.extend([entry("usr", Kind::Directory), entry("usr/lib", Kind::Directory)]);
        delta.changed.extend([file("usr/lib/bash"), file("usr/lib/glibc")]);
        delta.changed.extend([entry("usr/lib/sh", Kind::HardLink { to: "usr/lib/bash".into() })]);
        delta.removed.insert("usr/lib/old".into());
        assert_eq!(
            split(&delta),
            [
                "removed: usr usr/lib usr/lib/old",
                "bash: usr usr/lib usr/lib/bash usr/lib/sh",
                "glibc: usr usr/lib usr/lib/glibc",
            ]
        );
    }

    #[test]
    fn what_changes_with_any_package_is_in_no_packages_chunk() {
        let mut delta = Delta::default();
        delta.removed.insert("a".into());
        let paths = [
            "etc/glibc.ghost",
            "etc/passwd",
            "etc/passwd-of-glibc",
            "etc/selinux/bash/contexts/users/x",
            "etc/selinux/bash/policy/policy.33",
            "usr/kernel/etc/passwd",
            "usr/lib/modules/6.1-kernel/initramfs.img",
            "usr/lib/modules/6.1-kernel/modules.dep",
            "usr/lib/modules/6.1-kernel/modules.order",
            "usr/meta.json",
            "usr/rpm/glibc",
            "zz",
        ];
        delta.changed.extend(paths.map(file));
        assert_eq!(
            split(&delta),
            [
                "removed: a",
                "bash: etc/selinux/bash/contexts/users/x",
                "glibc: etc/passwd-of-glibc",
                "kernel: usr/kernel/etc/passwd usr/lib/modules/6.1-kernel/modules.order",
                "generated: etc/glibc.ghost etc/passwd",
                "initramfs: usr/lib/modules/6.1-kernel/initramfs.img",
                "module index: usr/lib/modules/6.1-kernel/modules.dep",
                "selinux policy: etc/selinux/bash/policy/policy.33",
                "files: zz",
                "rpmdb: usr/rpm/glibc",
                "metadata: usr/meta.json",
            ]
        );
    }
}
