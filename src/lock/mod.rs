//! Lockfiles: `lockfiles/<stream>/<layer>.<arch>.toml`, the exact packages of a layer.

mod format;

pub use format::{Action, LockedPackage, LockedRepo, Lockfile};
