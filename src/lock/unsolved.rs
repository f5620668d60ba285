//! A layer that has no solution.

use std::fmt;

use serde::Serialize;

use crate::package::Arch;
use crate::resolve::{Edit, Unsatisfiable};

/// Why a layer cannot be locked, and what can be done about it.
#[derive(Debug, Serialize)]
pub struct Unsolved {
    /// The layer.
    pub layer: String,
    /// The architecture it was solved for.
    pub arch: Arch,
    /// The contradictions.
    #[serde(flatten)]
    pub why: Unsatisfiable,
    /// Edits of the manifest, each way one or more, with which it was solved; the mildest first.
    pub ways_out: Vec<Vec<Edit>>,
}

impl Unsolved {
    /// What the user can do, a line for each way; empty if nobody knows.
    pub fn advice(&self) -> String {
        let show = |edits: &Vec<Edit>| edits.iter().map(Edit::to_string).collect::<Vec<_>>().join(", and ");
        match self.ways_out.is_empty() {
            true => self.why.advice(),
            false => self.ways_out.iter().map(show).collect::<Vec<_>>().join("\n"),
        }
    }
}

impl fmt::Display for Unsolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl std::error::Error for Unsolved {}
