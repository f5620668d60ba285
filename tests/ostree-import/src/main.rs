//! Imports images into an ostree repository, as bootc and rpm-ostree do to update a machine.
//!
//! `ostree-import REPOSITORY OCI-DIRECTORY:NAME...` prints a line for each image: the commit of its base, and the
//! commit of all its layers. An image that machines don't boot, or that is none of ostree's, is an error.

use anyhow::{Context, Result, ensure};
use ostree_ext::container::store::{ImageImporter, LayeredImageState, PrepareResult};
use ostree_ext::container::{ImageReference, OstreeImageReference, SignatureSource, Transport};
use ostree_ext::{gio, ostree};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [repository, images @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: ostree-import REPOSITORY OCI-DIRECTORY:NAME...");
    };
    ensure!(!images.is_empty(), "no images are named");
    let repository = ostree::Repo::new_for_path(repository);
    repository.open(gio::Cancellable::NONE).context("opening the repository")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for image in images {
        let state = runtime.block_on(import(&repository, image)).with_context(|| format!("importing {image}"))?;
        println!("{} {}", state.base_commit, state.merge_commit);
    }
    Ok(())
}

async fn import(repository: &ostree::Repo, image: &str) -> Result<Box<LayeredImageState>> {
    let reference = OstreeImageReference {
        sigverify: SignatureSource::ContainerPolicyAllowInsecure,
        imgref: ImageReference { transport: Transport::OciDir, name: image.to_owned() },
    };
    let mut importer = ImageImporter::new(repository, &reference, Default::default()).await?;
    importer.require_bootable();
    match importer.prepare().await? {
        PrepareResult::AlreadyPresent(state) => Ok(state),
        PrepareResult::Ready(prepared) => importer.import(prepared).await,
    }
}
