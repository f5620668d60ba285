//! `strata export sbom` beside what rpm says of the image, and sha256sum of the repositories' files.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::parity;
use crate::world::{World, package_digests, run};

fn bill(form: &str, image: &str) -> Value {
    let (world, _) = World::built();
    serde_json::from_str(&world.strata(&["export", "sbom", image, "--sbom", form])).unwrap()
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("(none)")
}

/// The purl of a package in SPDX.
fn purl(package: &Value) -> &str {
    text(package, "/externalRefs/0/referenceLocator")
}

fn list<'v>(value: &'v Value, key: &str) -> &'v Vec<Value> {
    value[key].as_array().unwrap()
}

/// `NAME|EVR|VENDOR|LICENSE|SOURCE` of each package, as rpm has it.
fn expected() -> BTreeSet<String> {
    let format = "%{NAME}|%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}|%{VENDOR}|%{LICENSE}|%{SOURCERPM}\n";
    let said = parity::rpm(World::unpacked_node(), &["-qa", "--queryformat", format]);
    said.lines().map(str::to_owned).collect()
}

/// The digest of a package's file, of which the purl gives the architecture.
fn digest_of<'d>(digests: &'d BTreeMap<String, String>, name: &str, evr: &str, purl: &str) -> &'d str {
    let version = evr.rsplit(':').next().unwrap();
    let arch = purl.split("arch=").nth(1).unwrap().split('&').next().unwrap();
    &digests[&format!("{name}-{version}.{arch}.rpm")]
}

#[test]
fn spdx_says_what_rpm_says() {
    let (_, images) = World::built();
    let bill = bill("spdx", &images[2].reference);
    let licenses: BTreeMap<&str, &str> = list(&bill, "hasExtractedLicensingInfos")
        .iter()
        .map(|license| (text(license, "/licenseId"), text(license, "/extractedText")))
        .collect();
    let binary =
        |package: &&Value| purl(package).starts_with("pkg:rpm/") && !purl(package).ends_with("arch=src");
    let digests = package_digests();
    let mut found = BTreeSet::new();
    for package in list(&bill, "packages").iter().filter(binary) {
        let (name, evr) = (text(package, "/name"), text(package, "/versionInfo"));
        let vendor = text(package, "/supplier").trim_start_matches("Organization: ");
        let license = text(package, "/licenseDeclared");
        let license = licenses.get(license).copied().unwrap_or(license);
        let source = text(package, "/sourceInfo").trim_start_matches("built from ");
        found.insert(format!("{name}|{evr}|{vendor}|{license}|{source}"));
        assert_eq!(
            text(package, "/checksums/0/checksumValue"),
            digest_of(&digests, name, evr, purl(package))
        );
    }
    assert_eq!(found, expected());
}

#[test]
fn spdx_relates_the_image_to_its_packages_and_to_the_one_below() {
    let (_, images) = World::built();
    let bill = bill("spdx", &images[2].reference);
    let packages = list(&bill, "packages");
    let by_id: BTreeMap<&str, &Value> =
        packages.iter().map(|package| (text(package, "/SPDXID"), package)).collect();
    assert_eq!(by_id.len(), packages.len(), "ids are unique");
    let mut related: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for relation in list(&bill, "relationships") {
        let ends = (text(relation, "/spdxElementId"), text(relation, "/relatedSpdxElement"));
        assert!(ends.0 == "SPDXRef-DOCUMENT" || by_id.contains_key(ends.0), "{relation}");
        assert!(by_id.contains_key(ends.1), "{relation}");
        related.entry(text(relation, "/relationshipType")).or_default().insert(ends);
    }
    assert_eq!(related["CONTAINS"].len(), expected().len());
    let digest = |id: &str| format!("sha256:{}", text(by_id[id], "/checksums/0/checksumValue"));
    let [(document, image)] = related["DESCRIBES"].iter().copied().collect::<Vec<_>>()[..] else { panic!() };
    let [(derived, below)] = related["DESCENDANT_OF"].iter().copied().collect::<Vec<_>>()[..] else {
        panic!()
    };
    assert_eq!((document, image), ("SPDXRef-DOCUMENT", derived));
    assert_eq!((digest(derived), digest(below)), (images[2].digest.clone(), images[1].digest.clone()));
    for (package, source) in &related["GENERATED_FROM"] {
        let built_from = text(by_id[package], "/sourceInfo").trim_start_matches("built from ");
        assert_eq!(built_from, text(by_id[source], "/name"));
    }
    let times = run(Command::new("skopeo")
        .args(["inspect", "--format", "{{.Created}}"])
        .arg(World::built().0.skopeo(&images[2])));
    assert_eq!(times.split(' ').next(), text(&bill, "/creationInfo/created").split('T').next());
}

#[test]
fn cyclonedx_says_what_rpm_says() {
    let (_, images) = World::built();
    let bill = bill("cyclonedx", &images[2].reference);
    let digests = package_digests();
    let mut found = BTreeSet::new();
    for component in list(&bill, "components") {
        let (name, evr) = (text(component, "/name"), text(component, "/version"));
        let expression = text(component, "/licenses/0/expression");
        let license =
            if expression == "(none)" { text(component, "/licenses/0/license/name") } else { expression };
        let (vendor, source) =
            (text(component, "/supplier/name"), text(component, "/pedigree/ancestors/0/name"));
        found.insert(format!("{name}|{evr}|{vendor}|{license}|{source}"));
        let digest = digest_of(&digests, name, evr, text(component, "/purl"));
        assert_eq!(text(component, "/hashes/0/content"), digest);
    }
    assert_eq!(found, expected());
    let hash = |pointer: &str| format!("sha256:{}", text(&bill["metadata"]["component"], pointer));
    assert_eq!(hash("/hashes/0/content"), images[2].digest);
    assert_eq!(hash("/pedigree/ancestors/0/hashes/0/content"), images[1].digest);
    let refs: BTreeSet<&str> = list(&bill, "components").iter().map(|c| text(c, "/bom-ref")).collect();
    let depends: BTreeSet<&str> =
        list(&bill["dependencies"][0], "dependsOn").iter().map(|purl| purl.as_str().unwrap()).collect();
    assert_eq!(refs, depends);
    assert_eq!(refs.len(), list(&bill, "components").len());
}
