//! The whole path on the demo stream: manifests, locks, builds, images, diffs, seen through the built program
//! and through the tools of the field.
//!
//! Needs root, because it compares a build by root with one by an ordinary user, and strata's trees with
//! those that rpm and dnf make as root.

#[path = "../blobs/mod.rs"]
mod blobs;
#[path = "../../examples/demo-repos/repos/mod.rs"]
mod demo_repos;
#[path = "../parity/mod.rs"]
mod parity;
#[path = "../pki/mod.rs"]
mod pki;
#[path = "../fetch/server.rs"]
mod server;

mod afterwards;
mod builds;
mod cache;
mod chunked;
mod chunks;
mod consumers;
mod copy;
mod crashes;
mod json;
mod ledger;
mod lint;
mod ostree;
mod overrides;
mod pinned;
mod push;
mod refusals;
mod registries;
mod registry;
mod sbom;
mod scripts;
mod store;
mod tour;
mod trees;
mod verify;
mod world;
