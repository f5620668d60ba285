//! Dependencies as RPM headers and repository metadata spell them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Evr;

/// One entry of requires, provides, conflicts, obsoletes, recommends, suggests, supplements or enhances.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dependency {
    /// A capability (`libc.so.6()(64bit)`), a path, or a whole rich dependency (`(a if b)`).
    pub name: String,
    /// The version it is compared with, if any. The release may be empty.
    pub version: Option<(Comparison, Evr)>,
    /// Needed before the package's scriptlets run (`pre="1"` in primary, PREREQ bits in a header).
    pub pre: bool,
}

/// How a dependency's version is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Comparison {
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `=`
    Eq,
    /// `>=`
    Ge,
    /// `>`
    Gt,
}

impl Comparison {
    /// The operator as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Comparison::Lt => "<",
            Comparison::Le => "<=",
            Comparison::Eq => "=",
            Comparison::Ge => ">=",
            Comparison::Gt => ">",
        }
    }
}

impl Dependency {
    /// Whether this is a rich (boolean) dependency, rpm's `doc/manual/boolean_dependencies`.
    pub fn is_rich(&self) -> bool {
        self.name.starts_with('(')
    }
}

impl fmt::Display for Dependency {
    /// `NAME [OP EVR]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some((op, evr)) = &self.version {
            write!(f, " {} {evr}", op.as_str())?;
        }
        Ok(())
    }
}
