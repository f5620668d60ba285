//! Advice attached to errors.
//!
//! Errors are `anyhow` chains with gerund context ("reading ...: ..."), or a `thiserror` enum where the
//! caller cares which failure it was. What to do about one travels beside the message as a [`Hint`], and
//! [`crate::cli`] prints it after the causes.

use std::fmt;

/// Advice for the user, carried in an error chain but not part of its message.
#[derive(Debug)]
pub struct Hint {
    advice: String,
    message: String,
}

impl Hint {
    /// What the user can do.
    pub fn advice(&self) -> &str {
        &self.advice
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Hint {}

/// Adds a hint to a failed result.
pub trait HintExt<T> {
    /// Attaches `advice` (lower case, no full stop) and `message`, the context in which the failure happened.
    fn hint(self, message: impl fmt::Display, advice: impl fmt::Display) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> HintExt<T> for Result<T, E> {
    fn hint(self, message: impl fmt::Display, advice: impl fmt::Display) -> anyhow::Result<T> {
        self.map_err(|e| e.into().context(Hint { advice: advice.to_string(), message: message.to_string() }))
    }
}

/// An error made of a message and a hint.
pub fn hinted(message: impl fmt::Display, advice: impl fmt::Display) -> anyhow::Error {
    anyhow::Error::new(Hint { advice: advice.to_string(), message: message.to_string() })
}
