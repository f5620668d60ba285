//! install

pub mod lua;
pub mod macros;
pub mod script;
