//! `strata lock` as it is run.

#[path = "../parity_solve/package.rs"]
mod package;
mod program;
