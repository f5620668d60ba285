//! Builds the images of a stream.

pub mod clean;
pub mod inputs;
pub mod labels;
