//! The part of a build that keeps the chunk plan: `LAYER.ARCH.chunks.toml` beside the lockfile.
//!
//! As with ids, the first build adds what is missing, and its image is the one that later builds, which find the plan
//! there, make.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::files::Files;
use super::{Build, Job, Request};
use crate::error::hinted;
use crate::image::chunk::{self, Chunk, Rules};
use crate::image::delta::Delta;
use crate::image::packing::{Packing, Sources};
use crate::pkglist::META_JSON;
use crate::plan::Layer;
use crate::progress::Progress;
use crate::replace::replace;

/// A plan is told to be bad if machines fetch this much more with it than with a new one: half as much again, and
/// some bytes that anybody would mind, in a week.
const BAD: (u64, u64) = (3, 2);
const MINDED: u64 = 4 << 20;

impl Build<'_> {
    /// The chunk plan of a layer; none if it has no file, or is to be made anew.
    pub(super) fn packing(&self, layer: &Layer) -> Result<Option<Packing>> {
        let Request { layers, rechunk, .. } = self.request;
        if *rechunk && (layers.is_empty() || layers.contains(&layer.name)) {
            return Ok(None);
        }
        let path = self.packing_file(layer);
        let Some(packing) = read(&path)? else { return Ok(None) };
        let (found, most) = (packing.count(), most_of_packages(layer));
        // without a limit the plan is one
        if layer.image.max_layers.is_some() && found > most {
            return Err(hinted(
                format!(
                    "{} has {found} chunks, of which {most} are allowed beside the others",
                    path.display()
                ),
                "allow more with `max-layers`, or make a new plan: `strata build --rechunk`",
            ));
        }
        Ok(Some(packing))
    }

    /// Splits what a layer changed. Gives the chunk plan too, if it had to be made.
    pub(super) fn split(
        &self,
        job: &Job<'_>,
        delta: &Delta,
        files: &Files,
        progress: &dyn Progress,
    ) -> Result<(Vec<Chunk>, Option<Packing>)> {
        let rules = Rules {
            owner_of: &|path| files.source_of(path),
            is_ghost: &|path| files.is_ghost(path),
            rpmdb: Path::new(self.request.plan.stream.rpmdb.trim_start_matches('/')),
            metadata: Path::new(META_JSON),
        };
        let sources = files.sources(chunk::sizes(delta, &rules));
        let new = || Packing::new(&sources, most_of_packages(job.layer));
        match &job.packing {
            Some(packing) => {
                self.judge(job, packing, &new(), &sources, progress);
                Ok((chunk::split(delta, &rules, packing, &sources), None))
            }
            None if self.request.locked => Err(hinted(
                format!("there is no {}", self.packing_file(job.layer).display()),
                "build without --locked, and commit the chunk plan that this writes",
            )),
            None => {
                let packing = new();
                Ok((chunk::split(delta, &rules, &packing, &sources), Some(packing)))
            }
        }
    }

    /// Tells if a plan has become bad.
    fn judge(
        &self,
        job: &Job<'_>,
        packing: &Packing,
        new: &Packing,
        sources: &Sources,
        progress: &dyn Progress,
    ) {
        let [now, then] = [packing, new].map(|packing| packing.weekly_cost(sources));
        if now > then / BAD.1 * BAD.0 && now - then > MINDED {
            progress.warn(&format!(
                "{} is out of date: of this layer machines fetch about {} MiB a week, not compressed, and {} MiB with \
                 a new plan; `strata build {} {} --rechunk` makes one, for which they fetch all of it once",
                self.packing_file(job.layer).display(),
                now >> 20,
                then >> 20,
                self.request.plan.stream.name,
                job.layer.name
            ));
        }
    }

    /// Writes a plan that was made.
    pub(super) fn write_packing(
        &self,
        layer: &Layer,
        packing: &Packing,
        progress: &dyn Progress,
    ) -> Result<()> {
        let path = self.packing_file(layer);
        replace(&path, packing.to_toml().as_bytes())?;
        progress.finish(&format!("{} has the plan of its chunks", path.display()));
        Ok(())
    }

    fn packing_file(&self, layer: &Layer) -> PathBuf {
        file(&self.lockfile(layer))
    }
}

/// The chunk plan beside a lockfile.
pub(super) fn file(lockfile: &Path) -> PathBuf {
    lockfile.with_extension("chunks.toml")
}

/// Reads a chunk plan; none if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Packing>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("reading {}", path.display()))?,
    };
    Packing::parse(&text, path).map(Some)
}

fn most_of_packages(layer: &Layer) -> usize {
    let most = layer.image.max_layers.unwrap_or_else(|| chunk::default_most(&layer.name));
    chunk::most_of_packages(most)
}
