//! Where in registries the images of the store are known to be: from there a registry takes over blobs by itself.
//!
//! `STORE/places.json` has the digests of their manifests by repository: `{"HOST/REPOSITORY": ["sha256:..."]}`. It is a
//! hint and no more: what it does not know is uploaded, and so is what a registry does not find where it says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;

use anyhow::Result;

use super::document::Document;
use super::oci::Layout;
use super::reference::{Place, Reference};
use crate::digest::Digest;
use crate::store::{self, Store};

type Places = BTreeMap<String, BTreeSet<Digest>>;

/// Notes that an image, of which the store has the manifest, is in a repository; forgets those that the store has lost.
pub fn note(store: &Store, host: &str, repository: &str, image: &Digest) -> Result<()> {
    let layout = Layout::create(&store.images())?;
    let before = read(store);
    let mut places = before.clone();
    places.entry(format!("{host}/{repository}")).or_default().insert(*image);
    places.values_mut().for_each(|images| images.retain(|image| layout.blob(image).exists()));
    places.retain(|_, images| !images.is_empty());
    if places == before {
        return Ok(());
    }
    store::write_atomically(&store.places(), &serde_json::to_vec(&places)?)
}

/// The blobs known to be at a host, and a repository that has each.
pub fn blobs(store: &Store, host: &str) -> Result<HashMap<String, String>> {
    let layout = Layout::create(&store.images())?;
    let mut found = HashMap::new();
    for (place, images) in read(store) {
        let Some(repository) = place.strip_prefix(host).and_then(|rest| rest.strip_prefix('/')) else {
            continue;
        };
        for image in images {
            let document = fs::read(layout.blob(&image)).ok().and_then(|bytes| Document::parse(bytes).ok());
            let blobs = document.iter().flat_map(Document::blobs);
            found.extend(blobs.map(|blob| (blob.digest().to_string(), repository.to_owned())));
        }
    }
    Ok(found)
}

/// All images that are known to be in registries.
pub fn images(store: &Store) -> Vec<Reference> {
    let mut found = Vec::new();
    for (place, images) in read(store) {
        let Some((host, repository)) = place.split_once('/') else { continue };
        let (host, repository) = (host.to_owned(), repository.to_owned());
        let place = Place::Registry { host, repository, tag: None };
        found.extend(images.into_iter().map(|image| Reference { place: place.clone(), digest: Some(image) }));
    }
    found
}

/// One that is damaged is as good as none.
fn read(store: &Store) -> Places {
    let text = fs::read(store.places()).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}
