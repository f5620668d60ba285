//! `strata images`

use anyhow::Result;
use serde::Serialize;

use super::{Answer, Global};
use crate::digest::Digest;
use crate::image::oci::Layout;

/// List the images in the store
#[derive(clap::Args)]
pub struct Args {}

#[derive(Serialize)]
struct Row {
    name: Option<String>,
    digest: Digest,
    architecture: String,
    created: Option<String>,
    layers: usize,
    size: u64,
}

pub fn run(global: &Global, Args {}: &Args) -> Result<Answer> {
    let layout = Layout::create(&global.store()?.images())?;
    let rows: Vec<Row> = layout
        .list()?
        .into_iter()
        .map(|(name, image)| Row {
            name,
            digest: image.digest,
            architecture: image.config.architecture().to_string(),
            created: image.config.created().clone(),
            layers: image.manifest.layers().len(),
            size: image.layers_size(),
        })
        .collect();
    if global.json() {
        super::print_json(&rows)?;
    } else {
        super::print(&text(&rows))?;
    }
    Ok(Answer::Done)
}

fn text(rows: &[Row]) -> String {
    let name = |row: &Row| row.name.clone().unwrap_or_else(|| "-".to_owned());
    let width = rows.iter().map(|row| name(row).len()).max().unwrap_or(0).max("NAME".len());
    let mut text = format!("{:width$}  {:71}  {:7}  LAYERS  SIZE\n", "NAME", "DIGEST", "ARCH");
    for row in rows {
        let size = indicatif::HumanBytes(row.size);
        text += &format!(
            "{:width$}  {}  {:7}  {:>6}  {size}\n",
            name(row),
            row.digest,
            row.architecture,
            row.layers
        );
    }
    text
}
