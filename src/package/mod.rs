//! The nouns of RPM: [`Evr`], [`Nevra`], [`Arch`], [`Dependency`].

mod arch;
mod dependency;
mod evr;
pub mod header;

mod nevra;
mod source;

pub use arch::{Arch, ParseArchError};
pub use dependency::{Comparison, Dependency};
pub use evr::{Evr, ParseEvrError};
pub use nevra::Nevra;
pub use source::{source_evr, source_name};
