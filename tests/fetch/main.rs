//! Fetching, judged from outside: repositories made by createrepo_c, keys by gpg, a web server that misbehaves,
//! and dnf's reading of the same metadata.

#[path = "../pki/mod.rs"]
mod pki;

mod corpus;
mod faults;
mod fixture;
mod keys;
mod metadata;
mod packages;
mod proxy;
mod secrets;
mod server;
mod tls;
