//! The transaction against rpm itself: same packages, same tree, same order, same scriptlet calls.

mod common;
mod corpus;
mod features;
mod forge;
mod forged;
mod format3;
mod hostile;
mod ima;
mod kept;
mod order;
#[path = "../real/mod.rs"]
mod packages;
mod real;
mod sysusers;
