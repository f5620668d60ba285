//! `strata images`

use anyhow::Result;
use serde::Serialize;

use super::{Answer, Global};
use crate::build::labels;
use crate::digest::Digest;
use crate::image::oci::{Image, Layout};

/// List the images in the store
///
/// A build whose name went to a newer one, and an image that was given as a base, have none until `strata gc`
/// deletes them; they are STREAM/LAYER@DIGEST.
#[derive(clap::Args)]
pub struct Args {}

#[derive(Serialize)]
struct Row {
    name: Option<String>,
    digest: Digest,
    stream: Option<String>,
    layer: Option<String>,
    version: Option<String>,
    architecture: String,
    created: Option<String>,
    layers: usize,
    size: u64,
    used: String,
}

pub fn run(global: &Global, Args {}: &Args) -> Result<Answer> {
    let layout = Layout::create(&global.store()?.images())?;
    let rows = layout.list()?.into_iter().map(|(name, image)| row(&layout, name, &image));
    let rows: Vec<Row> = rows.collect::<Result<_>>()?;
    if global.json() {
        super::print_json(&rows)?;
    } else {
        super::print(&text(&rows))?;
    }
    Ok(Answer::Done)
}

fn row(layout: &Layout, name: Option<String>, image: &Image) -> Result<Row> {
    let labels = image.labels();
    let label = |key: &str| labels.get(key).map(|value| (*value).to_owned());
    let used = jiff::Timestamp::try_from(layout.last_use(image)?)?;
    Ok(Row {
        name,
        digest: image.digest,
        stream: label(labels::STREAM),
        layer: label(labels::LAYER),
        version: label(labels::VERSION),
        architecture: image.config.architecture().to_string(),
        created: image.config.created().clone(),
        layers: image.manifest.layers().len(),
        size: image.layers_size(),
        used: used.strftime("%FT%TZ").to_string(),
    })
}

impl Row {
    fn title(&self) -> String {
        match (&self.name, &self.stream, &self.layer) {
            (Some(name), ..) => name.clone(),
            (None, Some(stream), Some(layer)) => format!("{stream}/{layer} (by digest)"),
            _ => "(by digest)".to_owned(),
        }
    }
}

/// That of a moment as RFC 3339 writes it.
fn day(moment: &str) -> &str {
    moment.split('T').next().unwrap_or_default()
}

fn text(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.title().len()).max().unwrap_or(0).max("NAME".len());
    let mut text = format!(
        "{:width$}  {:71}  {:7}  LAYERS  {:>10}  {:10}  USED\n",
        "NAME", "DIGEST", "ARCH", "SIZE", "CREATED"
    );
    for row in rows {
        let Row { digest, architecture, layers, used, .. } = row;
        let (title, size) = (row.title(), indicatif::HumanBytes(row.size).to_string());
        let [created, used] = [row.created.as_deref().unwrap_or_default(), used].map(day);
        text += &format!(
            "{title:width$}  {digest}  {architecture:7}  {layers:>6}  {size:>10}  {created:10}  {used}\n"
        );
    }
    text
}
