//! Manifests: the TOML people write, made into a [`crate::plan::Plan`].
//!
//! `docs/manifests.md` describes the language. What is written (`reader`: tables and values with their place)
//! becomes what is meant in one pass per file: `stream` first, for the variables; then `layer`, which follows
//! includes and decides `[[when]]` blocks, and hands tables to `packages` and `configuration`. Blocks that do
//! not count, and packages of other architectures, are read all the same and dropped, so that their mistakes
//! show.
//!
//! Reading never stops at a mistake: each is noted with its place, and all are told at the end.

mod condition;
mod configuration;
mod diagnostic;
mod edit;
mod layer;
mod packages;
mod reader;
pub mod repo_file;
mod rules;
mod stream;
mod variables;

pub use edit::remove_override;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::package::Arch;
use crate::plan::Plan;
use diagnostic::{Mistake, Mistakes, Source};
use reader::{Reader, clean, open, parse};
use variables::Variables;

/// What is wrong with the manifests: one diagnostic per mistake.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.summary())]
pub struct Invalid {
    mistakes: Vec<Mistake>,
}

impl Invalid {
    /// All diagnostics as text, by file and line, the offending text underlined; without colour in ASCII.
    pub fn render(&self, color: bool) -> String {
        self.mistakes.iter().map(|mistake| mistake.render(color)).collect::<Vec<_>>().join("\n")
    }

    fn summary(&self) -> String {
        match &self.mistakes[..] {
            [mistake] => mistake.to_string(),
            mistakes => format!("the manifests have {} mistakes", mistakes.len()),
        }
    }
}

/// Compiles the manifests of `stream`, a folder of `manifests`, for one architecture.
pub fn load(manifests: &Path, stream: &str, arch: Arch) -> Result<Plan, Invalid> {
    load_with(manifests, stream, arch, &BTreeMap::new())
}

/// Like [`load`], with other values, taken as they are, for some of the variables that `stream.toml` declares.
pub fn load_with(
    manifests: &Path,
    stream: &str,
    arch: Arch,
    variables: &BTreeMap<String, String>,
) -> Result<Plan, Invalid> {
    let mistakes = Mistakes::default();
    let plan = read(manifests, stream, arch, variables, &mistakes);
    finish(plan, mistakes)
}

/// Whether a stream, layer or repository can have this name.
pub fn is_name(text: &str) -> bool {
    rules::name(text).is_ok()
}

/// The names of all streams, sorted; none if the folder cannot be read.
pub fn streams(manifests: &Path) -> Vec<String> {
    let mut streams = reader::neighbours(manifests);
    streams.retain(|name| manifests.join(name).join("stream.toml").is_file());
    streams
}

/// The architectures the stream is composed for, as `stream.toml` lists them.
pub fn arches(manifests: &Path, stream: &str) -> Result<Vec<Arch>, Invalid> {
    let mistakes = Mistakes::default();
    let arches = open_stream(manifests, stream, &mistakes).and_then(|source| {
        let document = parse(&source, &mistakes)?;
        let variables = Variables::default();
        let reader =
            Reader { source: &source, variables: &variables, mistakes: &mistakes, root_keys: stream::KEYS };
        Some(stream::arches(&reader.document(&document)))
    });
    finish(arches, mistakes)
}

fn finish<T>(value: Option<T>, mistakes: Mistakes) -> Result<T, Invalid> {
    let mistakes = mistakes.into_sorted();
    match value {
        Some(value) if mistakes.is_empty() => Ok(value),
        _ => Err(Invalid { mistakes }),
    }
}

fn read(
    manifests: &Path,
    stream: &str,
    arch: Arch,
    set: &BTreeMap<String, String>,
    mistakes: &Mistakes,
) -> Option<Plan> {
    let source = open_stream(manifests, stream, mistakes)?;
    let document = parse(&source, mistakes)?;
    let first = stream::first_variables(stream, arch);
    let reader = Reader { source: &source, variables: &first, mistakes, root_keys: stream::KEYS };
    let mut file = stream::head(&reader.document(&document), stream, arch, set)?;
    let repos = stream::repos(&Reader { variables: &file.variables, ..reader }.document(&document));
    for (repo, enabled) in repos {
        file.repos.push((repo.id.clone(), enabled));
        file.stream.repos.insert(repo.id.clone(), repo);
    }
    let layers = layer::Layers { manifests, stream: &file, mistakes }.read();
    Some(Plan { stream: file.stream, layers })
}

fn open_stream(manifests: &Path, stream: &str, mistakes: &Mistakes) -> Option<Arc<Source>> {
    if rules::name(stream).is_err() {
        stream::missing(manifests, stream, mistakes);
        return None;
    }
    let path = clean(&manifests.join(stream).join("stream.toml"));
    match open(&path) {
        Ok(source) => Some(source),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            stream::missing(manifests, stream, mistakes);
            None
        }
        Err(error) => {
            mistakes.push(Mistake::new(format!("reading {}: {error}", path.display()), None));
            None
        }
    }
}
