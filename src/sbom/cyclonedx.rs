//! CycloneDX 1.6 (cyclonedx.org/docs/1.6/json).

use serde_json::{Value, json};

use super::{Bom, Package, expression, image_purl};
use crate::digest::Digest;

const IMAGE: &str = "image";

/// The document of an image: the image with what it was built on, and its packages with what they were built from.
pub fn document(bom: &Bom) -> Value {
    let purls: Vec<String> = bom.packages.iter().map(Package::purl).collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", bom.uuid("cyclonedx")),
        "version": 1,
        "metadata": {
            "timestamp": bom.created,
            "tools": {"components": [
                {"type": "application", "name": "strata", "version": env!("CARGO_PKG_VERSION")},
            ]},
            "component": image(bom),
        },
        "components": bom.packages.iter().map(component).collect::<Vec<_>>(),
        "dependencies": [{"ref": IMAGE, "dependsOn": purls}],
    })
}

fn image(bom: &Bom) -> Value {
    let mut image = json!({
        "type": "container",
        "bom-ref": IMAGE,
        "name": bom.name,
        "purl": bom.purl(),
        "hashes": hashes(&bom.digest),
    });
    if let Some(version) = &bom.version {
        image["version"] = version.as_str().into();
    }
    if let Some(parent) = &bom.parent {
        let purl = image_purl(&bom.name, parent);
        let ancestor =
            json!({"type": "container", "name": parent.to_string(), "purl": purl, "hashes": hashes(parent)});
        image["pedigree"] = json!({"ancestors": [ancestor]});
    }
    image
}

fn component(package: &Package) -> Value {
    let purl = package.purl();
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": package.nevra.name,
        "version": package.nevra.evr.to_string(),
        "purl": purl,
    });
    component["licenses"] = match expression(&package.license) {
        Some(expression) => json!([{"expression": expression}]),
        None if package.license.is_empty() => json!([]),
        None => json!([{"license": {"name": package.license}}]),
    };
    if let Some(vendor) = &package.vendor {
        component["supplier"] = json!({"name": vendor});
    }
    if let Some(sha256) = &package.sha256 {
        component["hashes"] = hashes(sha256);
    }
    if let Some((file, purl)) = package.source_purl() {
        component["pedigree"] = json!({"ancestors": [{"type": "library", "name": file, "purl": purl}]});
    }
    if let Some(layer) = &package.layer {
        component["properties"] = json!([{"name": "strata:layer", "value": layer}]);
    }
    component
}

fn hashes(digest: &Digest) -> Value {
    json!([{"alg": "SHA-256", "content": digest.hex()}])
}
