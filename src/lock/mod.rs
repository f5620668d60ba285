//! Lockfiles: `lockfiles/<stream>/<layer>.<arch>.toml`, the exact packages of a layer.
//!
//! Locks form a chain: a layer is solved on top of what the locks below it install, and needs no rootfs for
//! that. Two digests tell without network or solver whether a lock still holds: that of the request it
//! answers, and that of the packages it was solved on.
//!
//! | input                                              | digest               | a change means |
//! |----------------------------------------------------|----------------------|----------------|
//! | architecture, base, entries, weak deps, overrides  | [`request_digest`]   | solve again    |
//! | repositories: id, priority, cost, package filters  | [`request_digest`]   | solve again    |
//! | repositories: URLs, keys; origins of entries       | none                 | nothing        |
//! | packages of the layers below: NEVRA, file digest   | [`packages_digest`]  | solve again    |
//! | the lock below: all but its ids                    | [`Lockfile::digest`] | record it anew |
//! | a pinned image below                               | its own, in the request | solve again |
//! | local RPMs of overrides: file digest               | in the package table | solve again    |
//! | what repositories offer today                      | none                 | nothing, unless asked to update |
//!
//! Solving again keeps every package of the old lock that still fits. An update that changes no package keeps
//! the old lock as it is, revisions of repositories included: they date images, and the same packages are the
//! same image, however often a repository was published since.
//!
//! A lock also keeps the ids of the accounts that builds of its layer made ([`crate::ledger`]). Builds add to them;
//! locking carries them over, whatever else changes.

mod chain;
mod commit;
mod difference;
mod format;
mod least;
mod matching;
mod overrides;
mod request;
mod rot;
mod solve;
mod sources;
mod stale;
mod together;
mod unsolved;
mod update;

pub use chain::{Installed, installed, ledger, of_image, packages_digest};
pub use commit::{finish, is_interrupted, write};
pub use difference::{Changed, Difference, difference};
pub use format::{
    Action, Elsewhere, LockedGroup, LockedPackage, LockedRepo, LockedUser, Lockfile, path, read, required,
};
pub use overrides::{Notice, State, droppable, expired};
pub use request::request_digest;
pub use rot::{Gone, Listed};
pub use solve::{LayerLock, Metadata, Present, lock, present};
pub use sources::Sources;
pub use stale::{Stale, current};
pub use unsolved::Unsolved;
pub use update::{Advised, Update};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod worlds;
