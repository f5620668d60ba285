//! filelists.xml: every path of every package.
//!
//! Millions of paths, of which a solver needs to know the packages of a few. So the document is read once, into an
//! index by directory; later runs read the table of directories and the blocks of those that are asked for:
//!
//! ```text
//! a part as compact.rs has them: the digests of the packages, and of each directory its path, and its block's
//!     length in bytes and CRC-32
//! a block per directory, in that order: pairs of a package, by its number above, and a name
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{Read, Seek, SeekFrom};

use anyhow::{Context, Result, bail, ensure};
use globset::GlobMatcher;
use serde::{Deserialize, Serialize};

use super::compact;
use super::xml::{Node, walk};
use crate::digest::Digest;

/// What the index's first part is called.
const KIND: &str = "filelists";

/// Paths that somebody wants to know the packages of.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    exact: BTreeSet<String>,
    /// By the glob's text.
    globs: BTreeMap<String, GlobMatcher>,
}

impl Paths {
    /// Every path.
    pub fn all() -> Self {
        let mut all = Self::default();
        all.add_glob(globset::Glob::new("*").expect("a star is a glob").compile_matcher());
        all
    }

    /// Adds one path.
    pub fn add(&mut self, path: &str) {
        if !self.exact.contains(path) {
            self.exact.insert(path.to_owned());
        }
    }

    /// Adds all that a glob matches.
    pub fn add_glob(&mut self, glob: GlobMatcher) {
        self.globs.insert(glob.glob().to_string(), glob);
    }

    /// Adds those of `other`, and tells whether that made a difference.
    pub fn extend(&mut self, other: Self) -> bool {
        let before = (self.exact.len(), self.globs.len());
        self.exact.extend(other.exact);
        self.globs.extend(other.globs);
        before != (self.exact.len(), self.globs.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.globs.is_empty()
    }

    /// Whether `path` is one of them.
    pub fn contains(&self, path: &str) -> bool {
        self.exact.contains(path) || self.globs.values().any(|glob| glob.is_match(path))
    }
}

#[derive(Serialize, Deserialize)]
struct Table<'a> {
    packages: Vec<[u8; 32]>,
    #[serde(borrow)]
    directories: Vec<Directory<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Directory<'a> {
    path: &'a str,
    length: u32,
    crc: u32,
}

/// Makes the index of filelists.xml, compressed or not, of at most `limit` decompressed bytes.
pub fn index(input: impl Read + 'static, limit: u64) -> Result<Vec<u8>> {
    let mut builder = Builder::default();
    walk(input, "filelists", limit, |node| {
        match node {
            Node::Open(element) if element.name() == "package" => {
                let id = Digest::from_hex(&element.require("pkgid")?).context("reading a pkgid")?;
                builder.packages.push(*id.as_bytes());
            }
            Node::Close("file", path) => builder.add(path)?,
            _ => {}
        }
        Ok(())
    })?;
    builder.finish()
}

#[derive(Default)]
struct Builder {
    packages: Vec<[u8; 32]>,
    numbers: HashMap<String, usize>,
    /// Paths of directories and their blocks.
    directories: Vec<(String, Vec<u8>)>,
    /// The directory of the path before: most files are beside another.
    last: usize,
}

impl Builder {
    fn add(&mut self, path: &str) -> Result<()> {
        // nothing can ask for what is no absolute path
        let Some((directory, name)) = path.rsplit_once('/') else { return Ok(()) };
        let package = self.packages.len().checked_sub(1).context("a <file> stands outside of a <package>")?;
        if self.directories.get(self.last).is_none_or(|(known, _)| known != directory) {
            self.last = match self.numbers.get(directory) {
                Some(number) => *number,
                None => {
                    self.numbers.insert(directory.to_owned(), self.directories.len());
                    self.directories.push((directory.to_owned(), Vec::new()));
                    self.directories.len() - 1
                }
            };
        }
        let block = &mut self.directories[self.last].1;
        let package = u32::try_from(package).context("there are too many packages")?;
        *block = postcard::to_extend(&(package, name), std::mem::take(block))?;
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>> {
        let directory = |(path, block): &'_ (String, Vec<u8>)| -> Result<(u32, u32)> {
            let length = u32::try_from(block.len()).with_context(|| format!("{path} has too many files"))?;
            Ok((length, crc32fast::hash(block)))
        };
        let mut directories = Vec::with_capacity(self.directories.len());
        for entry in &self.directories {
            let (length, crc) = directory(entry)?;
            directories.push(Directory { path: &entry.0, length, crc });
        }
        let mut bytes = compact::seal(KIND, &Table { packages: self.packages, directories })?;
        self.directories.iter().for_each(|(_, block)| bytes.extend_from_slice(block));
        Ok(bytes)
    }
}

/// The paths of an [`index`] that are among `paths`, by package. An index that is damaged is an error.
pub fn find(index: &mut (impl Read + Seek), paths: &Paths) -> Result<HashMap<Digest, Vec<String>>> {
    let table = compact::first_part(index, KIND)?;
    let table: Table = postcard::from_bytes(&table).context("reading the table of directories")?;
    let split = paths.exact.iter().filter_map(|path| path.rsplit_once('/'));
    let wanted: HashSet<&str> = split.map(|(directory, _)| directory).collect();
    let mut offset = index.stream_position()?;
    let (mut found, mut block) = (HashMap::<Digest, Vec<String>>::new(), Vec::new());
    for directory in &table.directories {
        if !paths.globs.is_empty() || wanted.contains(directory.path) {
            index.seek(SeekFrom::Start(offset))?;
            block.clear();
            index.by_ref().take(directory.length.into()).read_to_end(&mut block)?;
            ensure!(crc32fast::hash(&block) == directory.crc, "the block of {} is damaged", directory.path);
            let mut rest = &block[..];
            while !rest.is_empty() {
                let ((package, name), after): ((u32, &str), _) = postcard::take_from_bytes(rest)?;
                rest = after;
                let path = format!("{}/{name}", directory.path);
                if paths.contains(&path) {
                    let Some(digest) = table.packages.get(package as usize) else {
                        bail!("{path} is of no package");
                    };
                    found.entry(Digest::from_bytes(*digest)).or_default().push(path);
                }
            }
        }
        offset += u64::from(directory.length);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::repo::{Packages, RepoPackage};

    fn document(packages: &[(Digest, &[&str])]) -> Cursor<Vec<u8>> {
        let mut text = "<filelists>".to_owned();
        for (digest, files) in packages {
            text += &format!("<package pkgid='{}'>", digest.hex());
            files.iter().for_each(|path| text += &format!("<file>{path}</file>"));
            text += "</package>";
        }
        Cursor::new((text + "</filelists>").into_bytes())
    }

    fn paths(exact: &[&str], globs: &[&str]) -> Paths {
        let mut paths = Paths::default();
        exact.iter().for_each(|path| paths.add(path));
        globs.iter().for_each(|g| paths.add_glob(globset::Glob::new(g).unwrap().compile_matcher()));
        paths
    }

    #[test]
    fn adds_what_is_asked_for_to_primarys_selection() {
        let [a, b, c] = ["a", "b", "c"].map(Digest::of);
        let index = index(
            document(&[(b, &["/usr/share/x", "/etc/x", "/usr/share/y", "/top"]), (c, &["/usr/share/x"])]),
            9999,
        );
        let index = index.unwrap();
        let files = |paths: Paths| {
            let package =
                |d| RepoPackage { sha256: Some(d), files: vec!["/etc/x".into()], ..Default::default() };
            let mut packages: Packages = vec![package(a), package(b)].into();
            assert_eq!(packages.get(1).files, ["/etc/x"]);
            packages.add_files(find(&mut Cursor::new(&index), &paths).unwrap());
            assert_eq!(packages.get(0).files, ["/etc/x"]);
            packages.get(1).files.clone()
        };
        assert_eq!(
            files(paths(&["/usr/share/x", "/usr/share/z", "/top"], &[])),
            ["/etc/x", "/usr/share/x", "/top"]
        );
        assert_eq!(files(paths(&["/etc/x"], &["/usr/*/y"])), ["/etc/x", "/usr/share/y"]);
        assert_eq!(files(Paths::all()), ["/etc/x", "/usr/share/x", "/usr/share/y", "/top"]);
        assert_eq!(files(paths(&["/usr/share"], &[])), ["/etc/x"]);
    }

    #[test]
    fn a_damaged_index_is_not_believed() {
        let index = index(document(&[(Digest::of("a"), &["/usr/share/x", "/etc/x"])]), 9999).unwrap();
        let all = Paths::all();
        for at in 0..index.len() {
            let mut damaged = index.clone();
            damaged[at] ^= 1;
            assert!(find(&mut Cursor::new(damaged), &all).is_err(), "byte {at}");
            assert!(find(&mut Cursor::new(&index[..at]), &all).is_err(), "cut at {at}");
        }
    }
}
