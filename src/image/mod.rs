//! Images: from a composed tree to blobs, manifest and names in an OCI layout.
//!
//! ```text
//! a layer's own tree ─ delta ─▶ Delta        what it adds, changes and removes over the layers below
//!                                 │ chunk    by source package, as the chunk plan has it (packing)
//!                                 ▼
//!                               Chunk...     entries, sorted, parents included
//!                                 │ pack     tar (diff id) ─▶ gzip or zstd ─▶ blob, in parallel
//!                                 ▼
//!                               Layer...
//!                                 │ oci      parent's layers first, verbatim; config, manifest, name
//!                                 ▼
//!                               Image
//! ```
//!
//! [`extract`] goes the other way, for images that are somebody else's; [`mod@reference`] says where an image is, and
//! [`mod@copy`] brings images from place to place.
//!
//! # Removals
//!
//! A layer of an overlay removes a path with a whiteout, or all of a directory at once by making it opaque. OCI
//! has both (image-spec `layer.md`), but there readers differ on what a whiteout does to its own layer, and
//! every chunk is a layer. So an image of ours has no opaque whiteouts: what an opaque directory hides is
//! removed name by name. And all whiteouts are in one chunk, the first, which holds nothing else: whatever a
//! reader thinks of a whiteout beside an entry of the same name, it never sees the two in one layer. That also
//! makes a change between directory and file unambiguous: the old one goes with the first chunk, the new one
//! comes with a later one.

mod archive;
pub mod attach;
pub mod chunk;
pub(crate) mod contents;
pub mod copy;
pub mod delta;
mod destination;
mod document;
pub mod extract;
mod gzip;
pub mod oci;
pub mod opened;
pub mod ostree;
pub mod pack;
pub mod packing;
pub mod places;
pub mod reference;
mod registry;
mod source;
pub mod tar;
pub mod untar;
mod zstd_chunked;
