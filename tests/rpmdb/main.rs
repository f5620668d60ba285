//! Headers and rpmdbs against librpm's: what strata reads of a package must be what `rpm` prints, and the same
//! packages, installed by `rpm` and written by strata, must leave the same rows in every table.

mod fixture;
mod formats;
mod header;
mod hostile;
#[path = "../real/mod.rs"]
mod packages;
mod real;
mod rpmdb;
