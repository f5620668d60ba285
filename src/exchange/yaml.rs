//! YAML as PyYAML writes it, which the tools around us use.

use std::path::Path;

use anyhow::{Result, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Parses a document; errors name file and line.
pub fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        anyhow!("{}:{line}: {}", path.display(), error.without_snippet())
    })
}

/// The text of a document.
pub fn text(value: &impl Serialize) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let body = serde_saphyr::to_string_with_options(value, options).expect("plain tables make YAML");
    format!("---\n{body}")
}
