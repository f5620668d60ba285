//! Advice attached to errors.
//!
//! Errors are `anyhow` chains with gerund context ("reading ...: ..."), or a `thiserror` enum where the
//! caller cares which failure it was. What to do about one travels beside the message as a [`Hint`], and
//! [`crate::cli`] prints it after the causes.

use std::fmt;

/// Advice for the user, carried in an error chain but not part of its message. A link of the chain itself:
/// `anyhow` contexts hide their type from whoever walks the chain.
#[derive(Debug)]
pub struct Hint {
    advice: String,
    message: String,
    cause: Option<anyhow::Error>,
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

impl std::error::Error for Hint {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(AsRef::as_ref)
    }
}

/// Adds a hint to a failed result.
pub trait HintExt<T> {
    /// Attaches `advice` (lower case, no full stop) and `message`, the context in which the failure happened.
    fn hint(self, message: impl fmt::Display, advice: impl fmt::Display) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> HintExt<T> for Result<T, E> {
    fn hint(self, message: impl fmt::Display, advice: impl fmt::Display) -> anyhow::Result<T> {
        self.map_err(|e| {
            anyhow::Error::new(Hint {
                advice: advice.to_string(),
                message: message.to_string(),
                cause: Some(e.into()),
            })
        })
    }
}

/// An error made of a message and a hint.
pub fn hinted(message: impl fmt::Display, advice: impl fmt::Display) -> anyhow::Error {
    anyhow::Error::new(Hint { advice: advice.to_string(), message: message.to_string(), cause: None })
}

/// The candidate that `word` is likely a slip of, for "did you mean". Of several equally near the first in the
/// alphabet; none if no candidate is near.
pub fn similar<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let distance = |c: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &c.to_lowercase());
    let (distance, nearest) = candidates.into_iter().map(|c| (distance(c), c)).min()?;
    // a third of the letters may be wrong, so that `os` is not taken for `id`
    (distance * 3 <= word.chars().count().max(3)).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn hints_are_found_in_the_chain_and_hide_nothing() {
        let error = Err::<(), _>(anyhow!("cause")).hint("middle", "do this").context("top").unwrap_err();
        assert_eq!(format!("{error:#}"), "top: middle: cause");
        let advice: Vec<_> =
            error.chain().filter_map(|e| e.downcast_ref::<Hint>()).map(Hint::advice).collect();
        assert_eq!(advice, ["do this"]);
    }
}
