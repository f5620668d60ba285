//! Objects of an ostree repository, and their checksums (libostree: `ostree-core.h`, `ostree-core.c`).
//!
//! All are values of GVariant in its serialised form (GLib: "GVariant Specification", section 2), numbers in them big
//! endian. A checksum is the SHA-256 of the value; of a file that of a header and the content after it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use crate::digest::{Digest, Hasher};

/// A serialised value.
#[derive(Clone, Debug)]
pub struct Value {
    bytes: Vec<u8>,
    /// Bytes in a container start at a multiple of this.
    align: usize,
    /// Whether all values of its type have one length.
    fixed: bool,
}

impl Value {
    /// Its bytes, as the object's file has them.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Whose a file or directory is and what may be done with it.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// The type's bits (`S_IFMT`) and those of permissions.
    pub mode: u32,
}

/// Extended attributes, `a(ayay)`: names end in a NUL.
pub fn xattrs(xattrs: &BTreeMap<OsString, Vec<u8>>) -> Value {
    let pair = |(name, value): (&OsString, &Vec<u8>)| {
        tuple(&[bytes([name.as_bytes(), b"\0"].concat()), bytes(value.clone())])
    };
    array(1, xattrs.iter().map(pair).collect())
}

/// The checksum of a file with this content, or of a symbolic link to `target`.
pub fn file_checksum(
    owner: Owner,
    target: &str,
    xattrs: &Value,
    content: &mut dyn Read,
) -> io::Result<Digest> {
    let Owner { uid, gid, mode } = owner;
    let device = 0;
    let header =
        tuple(&[number(uid), number(gid), number(mode), number(device), string(target), xattrs.clone()])
            .bytes;
    let mut hasher = Hasher::new(io::sink());
    // the header's length, and what brings the header to a multiple of eight
    io::copy(
        &mut (header.len() as u32).to_be_bytes().chain(&[0; 4][..]).chain(&*header).chain(content),
        &mut hasher,
    )?;
    Ok(hasher.finish().1)
}

/// What a directory is but for its content, `(uuua(ayay))`.
pub fn directory_meta(owner: Owner, attributes: &BTreeMap<OsString, Vec<u8>>) -> Vec<u8> {
    tuple(&[number(owner.uid), number(owner.gid), number(owner.mode), xattrs(attributes)]).bytes
}

/// Checksums of the content and of the metadata of a directory.
#[derive(Clone, Copy, Debug)]
pub struct Directory {
    /// Of its [`directory_tree`].
    pub tree: Digest,
    /// Of its [`directory_meta`].
    pub meta: Digest,
}

/// What is in a directory, `(a(say)a(sayay))`, by name.
pub fn directory_tree(files: &BTreeMap<&str, Digest>, directories: &BTreeMap<&str, Directory>) -> Vec<u8> {
    let files = files.iter().map(|(name, file)| tuple(&[string(name), checksum(file)]));
    let directories = directories.iter().map(|(name, directory)| {
        tuple(&[string(name), checksum(&directory.tree), checksum(&directory.meta)])
    });
    tuple(&[array(1, files.collect()), array(1, directories.collect())]).bytes
}

/// A value of a commit's metadata.
pub enum Meta {
    /// `b`
    Boolean(bool),
    /// `s`
    Text(String),
}

/// A commit of `root` without a parent, made at `time` (UTC seconds): `(a{sv}aya(say)sstayay)`.
pub fn commit(metadata: &BTreeMap<&str, Meta>, time: u64, root: &Directory) -> Vec<u8> {
    let entry = |(key, meta): (&&str, &Meta)| {
        let value = match meta {
            Meta::Boolean(value) => variant(&[u8::from(*value)], "b"),
            Meta::Text(text) => variant(&string(text).bytes, "s"),
        };
        tuple(&[string(key), value])
    };
    let [parent, related] = [bytes(Vec::new()), array(1, Vec::new())];
    let [subject, body] = [string(""), string("")];
    let time = Value { bytes: time.to_be_bytes().to_vec(), align: 8, fixed: true };
    let [tree, meta] = [checksum(&root.tree), checksum(&root.meta)];
    tuple(&[array(8, metadata.iter().map(entry).collect()), parent, related, subject, body, time, tree, meta])
        .bytes
}

fn number(value: u32) -> Value {
    Value { bytes: value.to_be_bytes().to_vec(), align: 4, fixed: true }
}

fn string(text: &str) -> Value {
    bytes([text.as_bytes(), b"\0"].concat())
}

fn checksum(digest: &Digest) -> Value {
    bytes(digest.as_bytes().to_vec())
}

fn bytes(bytes: Vec<u8>) -> Value {
    Value { bytes, align: 1, fixed: false }
}

/// A value with its type, `v`.
fn variant(value: &[u8], of_type: &str) -> Value {
    Value { bytes: [value, b"\0", of_type.as_bytes()].concat(), align: 8, fixed: false }
}

/// A tuple or dictionary entry: says where each member of no fixed length ends, the last excepted, from the last on.
fn tuple(members: &[Value]) -> Value {
    let (mut all, mut ends) = (Vec::new(), Vec::new());
    for (position, member) in members.iter().enumerate() {
        append(&mut all, member);
        if !member.fixed && position + 1 < members.len() {
            ends.push(all.len());
        }
    }
    ends.reverse();
    let align = members.iter().map(|member| member.align).max().unwrap_or(1);
    framed(all, &ends, align)
}

/// An array of elements of no fixed length: says where each of them ends.
fn array(align: usize, elements: Vec<Value>) -> Value {
    let (mut all, mut ends) = (Vec::new(), Vec::new());
    for element in &elements {
        append(&mut all, element);
        ends.push(all.len());
    }
    framed(all, &ends, align)
}

fn append(all: &mut Vec<u8>, value: &Value) {
    all.resize(all.len().next_multiple_of(value.align), 0);
    all.extend(&value.bytes);
}

/// Appends the offsets `ends`, little endian, in the least number of bytes that the whole can be counted in.
fn framed(mut bytes: Vec<u8>, ends: &[usize], align: usize) -> Value {
    let counts = |width: &usize| bytes.len() + width * ends.len() < 1 << (8 * width);
    let width = [1, 2, 4].into_iter().find(counts).unwrap_or(8);
    for end in ends {
        bytes.extend(&(*end as u64).to_le_bytes()[..width]);
    }
    Value { bytes, align, fixed: false }
}
