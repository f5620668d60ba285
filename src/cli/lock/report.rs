//! What `strata lock` prints.

use serde::Serialize;

use crate::lock::{Difference, Gone, LayerLock, Stale, Unsolved, difference};
use crate::package::Arch;

/// What `--format json` prints.
#[derive(Serialize)]
pub struct Document<'d> {
    /// Nothing if a layer has no solution.
    pub locks: &'d [Report],
    /// What was warned of, in that order.
    pub warnings: Vec<String>,
    /// The layer that has no solution.
    pub unsolvable: Option<&'d Unsolved>,
}

/// What came of a layer.
#[derive(Serialize)]
pub struct Report {
    stream: String,
    layer: String,
    arch: Arch,
    packages: usize,
    kept: bool,
    reason: Option<Stale>,
    #[serde(flatten)]
    difference: Difference,
    /// What has left its repository.
    pub gone: Vec<Gone>,
}

impl Report {
    /// The report of a layer of which nothing is known to have left.
    pub fn of(result: &LayerLock) -> Self {
        Self {
            stream: result.lock.stream.clone(),
            layer: result.lock.layer.clone(),
            arch: result.lock.arch,
            packages: result.lock.packages.len(),
            kept: result.previous.as_ref() == Some(&result.lock),
            reason: result.solved.clone(),
            difference: difference(result.previous.as_ref(), &result.lock),
            gone: Vec::new(),
        }
    }

    /// Whether a package of it can be had nowhere.
    pub fn has_lost(&self) -> bool {
        self.gone.iter().any(|gone| gone.at.is_none())
    }

    /// `node.x86_64: 13 packages (+1 ~2 -0), the manifest asks for something else`, and what changes. A first lock
    /// has nothing to differ from.
    pub fn text(&self, check: bool) -> String {
        let Self { layer, arch, packages, difference: Difference { added, changed, removed }, .. } = self;
        let mut text = format!("{layer}.{arch}: {packages} packages");
        match &self.reason {
            None => text += ", kept\n",
            Some(Stale::Together) if self.kept => text += ", kept\n",
            Some(Stale::Update) if self.kept => text += ", kept: an update changes nothing\n",
            Some(reason) => {
                text += &format!(" (+{} ~{} -{}), {reason}\n", added.len(), changed.len(), removed.len());
            }
        }
        if check || self.reason != Some(Stale::Missing) {
            text.extend(added.iter().map(|nevra| format!("  + {nevra}\n")));
            text.extend(
                changed.iter().map(|c| format!("  ~ {}.{} {} -> {}\n", c.name, c.arch, c.from, c.to)),
            );
            text.extend(removed.iter().map(|nevra| format!("  - {nevra}\n")));
        }
        text.extend(self.gone.iter().map(gone));
        text
    }
}

fn gone(Gone { package, repo, at }: &Gone) -> String {
    let left = match repo {
        Some(repo) => format!("  ! {package} has left {repo}"),
        None => format!("  ! {package} is in no repository of the stream"),
    };
    match at {
        Some(place) => format!("{left}; it is still in {place}\n"),
        None => format!("{left} and is nowhere else: `strata lock --repair {}`\n", package.name),
    }
}
