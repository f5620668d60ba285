//! SPDX 2.3 (spdx.github.io/spdx-spec/v2.3), as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Bom, Package, TOOL, expression, image_purl, unlisted};
use crate::digest::Digest;

const UNKNOWN: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-image";
const PARENT: &str = "SPDXRef-parent";

/// The document of an image: the image, the one it was built on, packages and what these were built from.
pub fn document(bom: &Bom) -> Value {
    let mut packages = vec![image(bom)];
    let mut relationships = vec![relationship(DOCUMENT, "DESCRIBES", IMAGE)];
    if let Some(parent) = &bom.parent {
        packages.push(parent_image(bom, parent));
        relationships.push(relationship(IMAGE, "DESCENDANT_OF", PARENT));
    }
    // licences that are not of SPDX's list, by id, and sources, each once
    let (mut licenses, mut sources) = (BTreeMap::new(), BTreeMap::new());
    for package in &bom.packages {
        match expression(&package.license) {
            Some(expression) => licenses.extend(unlisted(expression).into_iter().map(|id| (id.clone(), id))),
            None if package.license.is_empty() => {}
            None => _ = licenses.insert(license_id(&package.license), package.license.clone()),
        }
        if let Some((file, purl)) = package.source_purl() {
            relationships.push(relationship(&id(&package.purl()), "GENERATED_FROM", &id(&purl)));
            sources.insert(purl, file);
        }
        relationships.push(relationship(IMAGE, "CONTAINS", &id(&package.purl())));
        packages.push(binary(package));
    }
    packages.extend(sources.iter().map(|(purl, file)| described(&id(purl), file, purl)));
    let extracted =
        |(id, text): (&String, &String)| json!({"licenseId": id, "extractedText": text, "name": text});
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": bom.name,
        "documentNamespace": format!("urn:uuid:{}", bom.uuid("spdx")),
        "creationInfo": {"created": bom.created, "creators": [format!("Tool: {TOOL}")]},
        "packages": packages,
        "hasExtractedLicensingInfos": licenses.iter().map(extracted).collect::<Vec<_>>(),
        "relationships": relationships,
    })
}

fn image(bom: &Bom) -> Value {
    let mut image = described(IMAGE, &bom.name, &bom.purl());
    image["primaryPackagePurpose"] = "CONTAINER".into();
    image["checksums"] = checksums(&bom.digest);
    if let Some(version) = &bom.version {
        image["versionInfo"] = version.as_str().into();
    }
    image
}

fn parent_image(bom: &Bom, digest: &Digest) -> Value {
    let mut image = described(PARENT, &digest.to_string(), &image_purl(&bom.name, digest));
    image["primaryPackagePurpose"] = "CONTAINER".into();
    image["checksums"] = checksums(digest);
    image
}

fn binary(package: &Package) -> Value {
    let mut value = described(&id(&package.purl()), &package.nevra.name, &package.purl());
    value["versionInfo"] = package.nevra.evr.to_string().into();
    value["licenseDeclared"] = match expression(&package.license) {
        Some(expression) => expression.into(),
        None if package.license.is_empty() => UNKNOWN.into(),
        None => license_id(&package.license).into(),
    };
    if let Some(vendor) = &package.vendor {
        value["supplier"] = format!("Organization: {vendor}").into();
    }
    if let Some(source) = &package.source {
        value["sourceInfo"] = format!("built from {source}").into();
    }
    if let Some(sha256) = &package.sha256 {
        value["checksums"] = checksums(sha256);
    }
    if let Some(layer) = &package.layer {
        value["comment"] = format!("of the layer {layer}").into();
    }
    value
}

/// What every package has.
fn described(id: &str, name: &str, purl: &str) -> Value {
    json!({
        "SPDXID": id,
        "name": name,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl},
        ],
    })
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to})
}

fn checksums(digest: &Digest) -> Value {
    json!([{"algorithm": "SHA256", "checksumValue": digest.hex()}])
}

/// Ids have letters, digits, dots and hyphens only, so that a purl is not one.
fn id(purl: &str) -> String {
    format!("SPDXRef-{}", &Digest::of(purl.as_bytes()).hex()[..32])
}

fn license_id(license: &str) -> String {
    format!("LicenseRef-{}", &Digest::of(license.as_bytes()).hex()[..16])
}
