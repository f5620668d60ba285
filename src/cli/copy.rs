//! `strata copy`

use anyhow::{Context, Result};

use super::{Answer, Global, print, print_json};
use crate::image::copy::{self, Amount, Load, Referrers, Report};
use crate::image::reference::Reference;
use crate::package::Arch;

/// Copy an image, and what is attached to it, to another place: only the blobs that are missing there
///
/// Manifests are copied as they are, so the image keeps its digest; an index of several architectures is copied with all of
/// its images. Blobs that another repository of the same registry is known to have are taken from there. The name comes
/// last: who pulls meanwhile has the old image or all of the new one.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    images: Images,
    /// Of an image for several architectures only the one for this [default: all; for the store this machine's]
    #[arg(long)]
    arch: Option<Arch>,
    /// Leave behind what is attached to the image: package list, bills of materials, provenance, signatures
    #[arg(long)]
    bare: bool,
}

const EXAMPLES: &str = "\
Examples:
  strata copy docker://quay.io/ns/os:stage docker://quay.io/ns/os:prod    promote: no blob is sent
  strata copy docker://quay.io/ns/os:prod demo/node                       pull into the store
  strata copy demo/node oci-archive:node.tar                              to carry away
  strata copy docker://quay.io/ns/os:4.19-amd64 docker://quay.io/ns/os:4.19-arm64 docker://quay.io/ns/os:4.19
                                                        one index of what two workers pushed";

/// What is copied and where to.
#[derive(clap::Args)]
pub struct Images {
    /// The image, and where it goes: `STREAM/LAYER[:VERSION]` in the store, `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]` or
    /// `docker://HOST/REPOSITORY[:TAG]`. Several images, each for another architecture, become one index
    #[arg(required = true, num_args = 2.., value_names = ["SRC", "DST"])]
    images: Vec<Reference>,
}

impl Images {
    /// The images, and the destination.
    pub fn split(&self) -> Result<(&[Reference], &Reference)> {
        let (to, from) = self.images.split_last().context("no destination is named")?;
        Ok((from, to))
    }
}

pub fn run(global: &Global, args: &Args) -> Result<Answer> {
    let (from, to) = args.images.split()?;
    let store = global.store()?;
    let access = global.access(&store, global.arch(None)?);
    let arch = copy::chosen_arch(to, args.arch, access.arch);
    let load = |image| {
        let referrers = if args.bare { Referrers::Ignored } else { Referrers::Beside };
        Load::of(image, access, arch, referrers)
    };
    let loads: Vec<Load> = from.iter().map(load).collect::<Result<_>>()?;
    report(global, &copy::copy(&loads, to, access, &*global.progress())?)
}

/// Prints what a copy did.
pub fn report(global: &Global, report: &Report) -> Result<Answer> {
    match global.json() {
        true => print_json(report)?,
        false => print(&text(report))?,
    }
    Ok(Answer::Done)
}

/// `docker://HOST/REPOSITORY:TAG  sha256:...`, as builds print images, and how much was copied.
fn text(report: &Report) -> String {
    let amount =
        |Amount { blobs, bytes }: Amount| format!("{blobs} blobs ({})", indicatif::HumanBytes(bytes));
    let Report { reference, digest, sent, mounted, there, attached, .. } = report;
    format!(
        "{reference}  {digest}\n  sent {}, mounted {}, there already {}; {} attached\n",
        amount(*sent),
        amount(*mounted),
        amount(*there),
        attached.len()
    )
}
