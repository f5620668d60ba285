//! The packages of a repository in the form later runs read: in place, without unpacking what nobody looks at.
//!
//! Every text and every distinct dependency is there once, and an index leads from a name to the packages that provide
//! it. A file is
//!
//! ```text
//! `strata packages 2\n`: what it is, and the version of the format
//! the length of what follows in bytes, and its CRC-32
//! the length of each section in bytes
//! the sections, in the order of `Section`; all but the texts are tables of 32-bit numbers
//! ```
//!
//! Numbers are little-endian. What is in the store is our own, so the checksum guards against accidents, not against
//! malice; nevertheless any bytes can be given to [`Compact::read`], which looks at every number once, so that nothing
//! can fail after it. A file that is damaged, or of another version, is made again from primary.xml. Version 1 had to be
//! unpacked as a whole; a change of what is written here, in `filelists`, or of a type that [`seal`] is given, is a new
//! version.

mod writer;

use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use writer::{Lists, Writer};

use super::RepoPackage;
use crate::digest::Digest;
use crate::package::{Comparison, Dependency, Evr, Nevra};

/// The version of the format; of what else is kept of metadata, too.
pub const VERSION: u32 = 2;

const KIND: &str = "packages";

/// The parts of a file. A *name* is what a package, a capability or a path is called.
#[derive(Clone, Copy)]
enum Section {
    /// All texts, one after the other, in UTF-8. The first is empty.
    Texts,
    /// Where each text ends, in bytes.
    TextEnds,
    /// The text of each name.
    Names,
    /// A hash table: numbers of names, counted from 1, at the place that [`hash`] says or behind it.
    Slots,
    /// Where in `Providers` those of each name end.
    ProviderEnds,
    /// Packages that are called by a name, provide it, or have the path.
    Providers,
    /// [`DEPENDENCY`] numbers each.
    Dependencies,
    /// [`PACKAGE`] numbers each.
    Packages,
    /// The lists of each package in the order of [`List`].
    Lists,
}

const SECTIONS: usize = Section::Lists as usize + 1;

/// Of a dependency its name, how it is compared ([`COMPARISONS`], and [`PRE`]), epoch, and the texts of version and
/// release.
const DEPENDENCY: usize = 5;

/// Added to how a dependency is compared if that is needed by scriptlets.
const PRE: u32 = 8;

const COMPARISONS: [Option<Comparison>; 6] = [
    None,
    Some(Comparison::Lt),
    Some(Comparison::Le),
    Some(Comparison::Eq),
    Some(Comparison::Ge),
    Some(Comparison::Gt),
];

/// Of a package its name and epoch; the [`TEXTS`]; size, installed size and build time, the low halves first; the
/// digest, 0 if there is none; and where in `Lists` each of its lists ends.
const PACKAGE: usize = LISTS_AT + LISTS;
/// Version, release, architecture, location, source and vendor, which is empty if there is none.
const TEXTS: Range<usize> = 2..8;
const SIZES_AT: usize = TEXTS.end;
const DIGEST_AT: usize = SIZES_AT + 6;
const LISTS_AT: usize = DIGEST_AT + 8;
const LISTS: usize = List::Files as usize + 1;

/// A list that a package has; of dependencies, all but the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "RepoPackage says what each is")]
pub enum List {
    Provides,
    Requires,
    Conflicts,
    Obsoletes,
    Recommends,
    Suggests,
    Supplements,
    Enhances,
    /// Names.
    Files,
}

/// Where a text is looked for in the table of names: eight bytes at a time, as Firefox hashes.
fn hash(text: &str) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let (words, rest) = text.as_bytes().as_chunks();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let hash = words.iter().fold(0, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    // a product's high bits depend on all of its factors', its low bits do not
    mix(mix(hash, u64::from_le_bytes(last)), text.len() as u64) >> 32
}

/// Numbers, in place.
#[derive(Clone, Copy)]
struct Table<'a>(&'a [[u8; 4]]);

impl<'a> Table<'a> {
    fn len(self) -> usize {
        self.0.len()
    }

    fn get(self, index: usize) -> u32 {
        u32::from_le_bytes(self.0[index])
    }

    fn long(self, index: usize) -> u64 {
        u64::from(self.get(index)) | u64::from(self.get(index + 1)) << 32
    }

    fn slice(self, range: Range<usize>) -> Self {
        Self(&self.0[range])
    }

    /// What is between the end with this number and the one before.
    fn between(self, number: usize) -> Range<usize> {
        let start = number.checked_sub(1).map_or(0, |before| self.get(before));
        start as usize..self.get(number) as usize
    }

    fn iter(self) -> impl DoubleEndedIterator<Item = u32> + use<'a> {
        self.0.iter().map(|number| u32::from_le_bytes(*number))
    }

    fn are_below(self, limit: usize) -> bool {
        self.iter().all(|number| (number as usize) < limit)
    }

    /// Whether these are ends of what has this length.
    fn are_ends(self, length: usize) -> bool {
        self.0.iter().map(|number| u32::from_le_bytes(*number)).is_sorted()
            && self.iter().next_back().unwrap_or(0) as usize == length
    }
}

/// The packages of a file, which count from 0, and its dependencies and names, which do so too.
pub struct Compact {
    bytes: Vec<u8>,
    sections: [Range<usize>; SECTIONS],
}

impl Compact {
    /// Takes what [`Writer::finish`] made.
    pub fn read(bytes: Vec<u8>) -> Result<Self> {
        let (start, length, crc) = head(&bytes, KIND)?;
        let body = &bytes[start..];
        if body.len() as u64 != u64::from(length) || crc32fast::hash(body) != crc {
            bail!("it is damaged");
        }
        let lengths = body.get(..4 * SECTIONS).context("it has no sections")?;
        let mut end = start + lengths.len();
        let mut sections = [const { 0..0 }; SECTIONS];
        for (section, length) in sections.iter_mut().zip(Table(lengths.as_chunks().0).iter()) {
            *section = end..end + length as usize;
            end = section.end;
        }
        ensure!(end == bytes.len(), "its sections do not fill it");
        let compact = Self { bytes, sections };
        compact.check()?;
        Ok(compact)
    }

    /// Checks that every number leads somewhere.
    fn check(&self) -> Result<()> {
        let ends = self.table(Section::TextEnds);
        let texts = std::str::from_utf8(self.section(Section::Texts)).context("reading its texts")?;
        let whole = ends.are_ends(texts.len()) && ends.iter().all(|end| texts.is_char_boundary(end as usize));
        ensure!(whole && ends.len() > 0 && ends.get(0) == 0, "a text is missing");

        let (names, slots) = (self.table(Section::Names), self.table(Section::Slots));
        ensure!(names.are_below(ends.len()), "a name is missing");
        let sound = slots.len().is_power_of_two() && slots.iter().any(|slot| slot == 0);
        ensure!(sound && slots.are_below(names.len() + 1), "the index of names is none");

        let providers = self.table(Section::Providers);
        let (ends, numbers) = (self.table(Section::ProviderEnds), self.table(Section::Packages).len());
        ensure!(numbers.is_multiple_of(PACKAGE), "a package is not complete");
        let sound = ends.len() == names.len() && ends.are_ends(providers.len());
        ensure!(sound && providers.are_below(self.len()), "the index of providers is none");

        let numbers = self.table(Section::Dependencies).len();
        let is_sound = |number| self.is_sound_dependency(self.dependency_fields(number));
        ensure!(
            numbers.is_multiple_of(DEPENDENCY) && (0..numbers / DEPENDENCY).all(is_sound),
            "a dependency is none"
        );
        let end = (0..self.len()).try_fold(0, |start, number| self.checked_lists(number, start));
        ensure!(end == Some(self.table(Section::Lists).len()), "a package is none");
        Ok(())
    }

    fn is_sound_dependency(&self, fields: Table) -> bool {
        (fields.get(0) as usize) < self.table(Section::Names).len()
            && ((fields.get(1) & !PRE) as usize) < COMPARISONS.len()
            && fields.slice(3..5).are_below(self.table(Section::TextEnds).len())
    }

    /// Where the lists of a package end, which begin at `start`, if all it has is sound.
    fn checked_lists(&self, package: usize, start: usize) -> Option<usize> {
        let (fields, lists) = (self.fields(package), self.table(Section::Lists));
        let [names, texts] = [Section::Names, Section::TextEnds].map(|section| self.table(section).len());
        let ends = fields.slice(LISTS_AT..PACKAGE);
        let [middle, end] = [List::Enhances, List::Files].map(|list| ends.get(list as usize) as usize);
        let sound = (fields.get(0) as usize) < names
            && fields.slice(TEXTS).are_below(texts)
            && start <= ends.get(0) as usize
            && ends.are_ends(end)
            && end <= lists.len()
            && lists.slice(start..middle).are_below(self.table(Section::Dependencies).len() / DEPENDENCY)
            && lists.slice(middle..end).are_below(names);
        sound.then_some(end)
    }

    fn section(&self, section: Section) -> &[u8] {
        &self.bytes[self.sections[section as usize].clone()]
    }

    fn table(&self, section: Section) -> Table<'_> {
        Table(self.section(section).as_chunks().0)
    }

    /// How many packages there are.
    pub fn len(&self) -> usize {
        self.table(Section::Packages).len() / PACKAGE
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many names there are.
    pub fn names(&self) -> usize {
        self.table(Section::Names).len()
    }

    /// How many dependencies there are.
    pub fn dependencies(&self) -> usize {
        self.table(Section::Dependencies).len() / DEPENDENCY
    }

    fn bytes_of(&self, text: u32) -> &[u8] {
        let range = self.table(Section::TextEnds).between(text as usize);
        &self.section(Section::Texts)[range]
    }

    fn text(&self, text: u32) -> &str {
        std::str::from_utf8(self.bytes_of(text)).expect("texts are checked")
    }

    /// A name.
    pub fn name(&self, name: usize) -> &str {
        self.text(self.table(Section::Names).get(name))
    }

    /// The number of a name.
    pub fn named(&self, name: &str) -> Option<usize> {
        let (slots, names) = (self.table(Section::Slots), self.table(Section::Names));
        let is_it = |number: &usize| self.bytes_of(names.get(*number)) == name.as_bytes();
        let first = hash(name) as usize;
        let probed = (0..slots.len()).map(|step| slots.get((first + step) % slots.len()) as usize);
        probed.take_while(|slot| *slot > 0).map(|slot| slot - 1).find(is_it)
    }

    /// The packages that are called by a name, provide it, or have the path; sorted.
    pub fn providers(&self, name: usize) -> impl Iterator<Item = usize> {
        let range = self.table(Section::ProviderEnds).between(name);
        self.table(Section::Providers).slice(range).iter().map(|package| package as usize)
    }

    fn fields(&self, package: usize) -> Table<'_> {
        self.table(Section::Packages).slice(package * PACKAGE..(package + 1) * PACKAGE)
    }

    /// The name that a package is called by.
    pub fn name_of(&self, package: usize) -> usize {
        self.fields(package).get(0) as usize
    }

    /// Name, version and architecture of a package.
    pub fn nevra(&self, package: usize) -> Nevra {
        let fields = self.fields(package);
        let text = |index| self.text(fields.get(TEXTS.start + index));
        Nevra {
            name: self.name(self.name_of(package)).to_owned(),
            evr: Evr::new(fields.get(1), text(0), text(1)),
            arch: text(2).to_owned(),
        }
    }

    /// The digest of a package's file.
    pub fn sha256(&self, package: usize) -> Option<Digest> {
        let bytes: [u8; 32] =
            self.fields(package).slice(DIGEST_AT..LISTS_AT).0.as_flattened().try_into().ok()?;
        (bytes != [0; 32]).then(|| Digest::from_bytes(bytes))
    }

    /// A list of a package: dependencies, or names.
    pub fn list(&self, package: usize, list: List) -> impl Iterator<Item = usize> {
        let ends = self.table(Section::Packages);
        let at = package * PACKAGE + LISTS_AT + list as usize;
        let start = match (package, list) {
            (0, List::Provides) => 0,
            (_, List::Provides) => ends.get(package * PACKAGE - 1),
            _ => ends.get(at - 1),
        };
        let range = start as usize..ends.get(at) as usize;
        self.table(Section::Lists).slice(range).iter().map(|number| number as usize)
    }

    fn dependency_fields(&self, dependency: usize) -> Table<'_> {
        self.table(Section::Dependencies).slice(dependency * DEPENDENCY..(dependency + 1) * DEPENDENCY)
    }

    /// The name of a dependency.
    pub fn wanted(&self, dependency: usize) -> usize {
        self.dependency_fields(dependency).get(0) as usize
    }

    /// A dependency.
    pub fn dependency(&self, dependency: usize) -> Dependency {
        let fields = self.dependency_fields(dependency);
        let evr = || Evr::new(fields.get(2), self.text(fields.get(3)), self.text(fields.get(4)));
        Dependency {
            name: self.name(self.wanted(dependency)).to_owned(),
            version: COMPARISONS[(fields.get(1) & !PRE) as usize].map(|comparison| (comparison, evr())),
            pre: fields.get(1) & PRE != 0,
        }
    }

    /// A package, with the dependencies that `shared` gives by their numbers.
    pub fn package(&self, package: usize, shared: impl Fn(usize) -> Arc<Dependency>) -> RepoPackage {
        let fields = self.fields(package);
        let text = |index| self.text(fields.get(TEXTS.start + index));
        let list = |list| self.list(package, list).map(&shared).collect();
        RepoPackage {
            nevra: self.nevra(package),
            sha256: self.sha256(package),
            size: fields.long(SIZES_AT),
            installed_size: fields.long(SIZES_AT + 2),
            build_time: fields.long(SIZES_AT + 4),
            location: text(3).to_owned(),
            source: text(4).to_owned(),
            vendor: Some(text(5)).filter(|vendor| !vendor.is_empty()).map(str::to_owned),
            provides: list(List::Provides),
            requires: list(List::Requires),
            conflicts: list(List::Conflicts),
            obsoletes: list(List::Obsoletes),
            recommends: list(List::Recommends),
            suggests: list(List::Suggests),
            supplements: list(List::Supplements),
            enhances: list(List::Enhances),
            files: self.list(package, List::Files).map(|name| self.name(name).to_owned()).collect(),
        }
    }
}

impl fmt::Debug for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compact").field("packages", &self.len()).finish_non_exhaustive()
    }
}

/// A value as the first part of a file.
pub fn seal(kind: &str, value: &impl Serialize) -> Result<Vec<u8>> {
    sealed(kind, &[&postcard::to_stdvec(value)?])
}

/// The value that [`seal`] made a file of.
pub fn unseal<T: DeserializeOwned>(kind: &str, mut file: &[u8]) -> Result<T> {
    let part = first_part(&mut file, kind)?;
    postcard::from_bytes(&part).with_context(|| format!("reading {kind}"))
}

/// Bytes as the first part of a file.
fn sealed(kind: &str, parts: &[&[u8]]) -> Result<Vec<u8>> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut crc = crc32fast::Hasher::new();
    parts.iter().for_each(|part| crc.update(part));
    let mut bytes = title(kind).into_bytes();
    bytes.reserve_exact(8 + length);
    bytes.extend(u32::try_from(length).context("the metadata are too large to be kept")?.to_le_bytes());
    bytes.extend(crc.finalize().to_le_bytes());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    Ok(bytes)
}

/// The first part of a file, as [`seal`] made it; leaves `file` behind it.
pub(super) fn first_part(file: &mut impl Read, kind: &str) -> Result<Vec<u8>> {
    let mut bytes = vec![0; title(kind).len() + 8];
    file.read_exact(&mut bytes).context("reading its title")?;
    let (_, length, crc) = head(&bytes, kind)?;
    let mut body = Vec::new();
    file.take(length.into()).read_to_end(&mut body)?;
    if body.len() as u64 != u64::from(length) || crc32fast::hash(&body) != crc {
        bail!("it is damaged");
    }
    Ok(body)
}

/// Where the first part of a file begins, its length and its CRC-32.
fn head(file: &[u8], kind: &str) -> Result<(usize, u32, u32)> {
    let title = title(kind);
    let rest = file.strip_prefix(title.as_bytes());
    let rest = rest.with_context(|| format!("it does not begin with {title:?}"))?;
    let ([length, crc, ..], _) = rest.as_chunks() else { bail!("it is too short") };
    Ok((title.len() + 8, u32::from_le_bytes(*length), u32::from_le_bytes(*crc)))
}

fn title(kind: &str) -> String {
    format!("strata {kind} {VERSION}\n")
}

#[cfg(test)]
mod tests;
