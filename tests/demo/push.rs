//! `strata push`: what is attached to images, in registries that keep track of it and in those that do not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::Mutex;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::copy::{blobs, copy, raw};
use crate::parity;
use crate::registry::Registry;
use crate::server::{Reply, Request, Server};
use crate::world::{User, World, package_digests, run, scratch};

const KINDS: [&str; 4] = [
    "application/spdx+json",
    "application/vnd.cyclonedx+json",
    "application/vnd.in-toto+json",
    "application/vnd.strata.pkglist.v1+json",
];

fn push(world: &World, args: &[&str]) -> Value {
    serde_json::from_str(&world.strata(&[&["--format", "json", "push"], args].concat())).unwrap()
}

fn sha256(bytes: impl AsRef<[u8]>) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn get(url: &str) -> String {
    let accept =
        ["index", "manifest"].map(|kind| format!("application/vnd.oci.image.{kind}.v1+json")).join(", ");
    run(Command::new("curl").args(["-sSf", "-H", &format!("Accept: {accept}"), url]))
}

/// The documents attached to an image at `http://HOST/v2/NAME`, by kind, of those that `index` lists.
fn documents(base: &str, index: &str, image: &str) -> BTreeMap<String, String> {
    let index: Value = serde_json::from_str(index).unwrap();
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    let mut found = BTreeMap::new();
    for entry in index["manifests"].as_array().unwrap() {
        let text = get(&format!("{base}/manifests/{}", entry["digest"].as_str().unwrap()));
        assert_eq!(
            (entry["digest"].as_str(), entry["size"].as_u64()),
            (Some(sha256(&text).as_str()), Some(text.len() as u64))
        );
        let manifest: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(manifest["subject"]["digest"], image);
        assert_eq!(manifest["artifactType"], entry["artifactType"]);
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
        let layer = &manifest["layers"][0];
        assert_eq!(layer["mediaType"], entry["artifactType"]);
        let content = get(&format!("{base}/blobs/{}", layer["digest"].as_str().unwrap()));
        let kind = entry["artifactType"].as_str().unwrap().to_owned();
        assert!(found.insert(kind, content).is_none(), "{entry} is there twice");
    }
    found
}

/// The tag that stands for the list of what refers to an image (distribution-spec).
fn tag(digest: &str) -> String {
    digest.replace(':', "-")
}

#[test]
fn documents_are_attached_by_digest() {
    let (world, images) = World::built();
    let node = &images[2];
    let registry = Registry::new("push-attached");
    let at = |name: &str| format!("docker://{}/{name}", registry.host());
    let report = push(world, &[&node.reference, &at("os:1")]);
    assert_eq!(report["digest"], node.digest.as_str());
    let base = format!("http://{}/v2/os", registry.host());
    let index = get(&format!("{base}/manifests/{}", tag(&node.digest)));
    let attached = documents(&base, &index, &node.digest);
    assert_eq!(attached.keys().map(String::as_str).collect::<Vec<_>>(), KINDS);

    let labels = run(Command::new("skopeo").args(["inspect", "--tls-verify=false", &at("os:1")]));
    let labels = &serde_json::from_str::<Value>(&labels).unwrap()["Labels"];
    assert_eq!(labels["io.strata.pkglist"], sha256(&attached[KINDS[3]]).as_str());
    for (kind, form) in [(KINDS[0], "spdx"), (KINDS[1], "cyclonedx")] {
        assert_eq!(attached[kind], world.strata(&["export", "sbom", &node.reference, "--sbom", form]));
    }
    assert_eq!(attached[KINDS[2]], world.strata(&["export", "provenance", &node.reference]));

    // the same documents are the same manifests: nothing is new
    let again = push(world, &[&node.reference, &at("os:1")]);
    assert_eq!((blobs(&again)[..2].to_vec(), &again["attached"]), (vec![0, 0], &report["attached"]));
    assert_eq!(get(&format!("{base}/manifests/{}", tag(&node.digest))), index);
    // what others have attached stays
    push(world, &[&node.reference, &at("two:1"), "--attach", "pkglist"]);
    push(world, &[&node.reference, &at("two:1"), "--attach", "sbom"]);
    let base = base.replace("/os", "/two");
    let index = get(&format!("{base}/manifests/{}", tag(&node.digest)));
    assert_eq!(documents(&base, &index, &node.digest).len(), 3);
    push(world, &[&node.reference, &at("three:1"), "--attach", "none"]);
    let tags = get(&format!("http://{}/v2/three/tags/list", registry.host()));
    assert_eq!(serde_json::from_str::<Value>(&tags).unwrap()["tags"], json!(["1"]));
}

#[test]
fn copies_take_along_what_is_attached() {
    let (world, images) = World::built();
    let node = &images[2];
    let registry = Registry::new("push-copied");
    let at = |name: &str| format!("docker://{}/{name}", registry.host());
    push(world, &[&node.reference, &at("os:1")]);
    let user = World::new(User::Root);
    let layout = format!("oci:{}:node", user.path("layout").display());
    let there = copy(&user, &[&at("os:1"), &layout]);
    assert_eq!(raw(&layout).1, node.digest, "skopeo takes the image by its name");
    copy(
        &user,
        &[
            &format!("oci:{}", user.path("layout").display()),
            &format!("oci-archive:{}", user.path("a.tar").display()),
        ],
    );
    let back = copy(&user, &[&format!("oci-archive:{}", user.path("a.tar").display()), &at("back:1")]);
    assert_eq!(there["attached"], back["attached"]);
    let digest = tag(&node.digest);
    let [one, two] = ["os", "back"].map(|name| {
        let base = format!("http://{}/v2/{name}", registry.host());
        documents(&base, &get(&format!("{base}/manifests/{digest}")), &node.digest)
    });
    assert_eq!(one, two);
    assert_eq!(copy(&user, &["--bare", &at("os:1"), &at("bare:1")])["attached"], json!([]));
    let pulled = copy(&user, &[&at("os:1"), "demo/node"]);
    assert_eq!(pulled["digest"], node.digest.as_str());
    user.strata(&["images"]);
}

#[test]
fn differences_are_told_by_the_attached_list() {
    let (world, images) = World::built();
    let registry = Registry::new("push-diff");
    let at = |name: &str| format!("docker://{}/{name}", registry.host());
    push(world, &[&images[1].reference, &at("coreos:1"), "--attach", "pkglist"]);
    push(world, &[&images[2].reference, &at("node:1"), "--attach", "pkglist"]);
    copy(world, &[&images[2].reference, &at("plain:1")]);
    registry.requests();
    let diff = |from: &str, to: &str| {
        let json = World::new(User::Root).strata(&["--format", "json", "diff", &at(from), &at(to)]);
        let mut diff: Value = serde_json::from_str(&json).unwrap();
        for key in ["from", "to"] {
            diff[key] = Value::Null;
        }
        diff
    };
    let by_list = diff("coreos:1", "node:1");
    let read: BTreeSet<String> = registry.blobs_read().into_iter().collect();
    let config = |name: &str| raw(&at(name)).0["config"]["digest"].as_str().unwrap().to_owned();
    let list = |image: &crate::world::Image| {
        let labels = run(Command::new("skopeo").args(["inspect", &world.skopeo(image)]));
        let labels: Value = serde_json::from_str(&labels).unwrap();
        labels["Labels"]["io.strata.pkglist"].as_str().unwrap().to_owned()
    };
    let expected = [config("coreos:1"), config("node:1"), list(&images[1]), list(&images[2])];
    assert_eq!(read, BTreeSet::from(expected), "configs and lists, and no layer");
    assert_eq!(by_list, diff("coreos:1", "plain:1"), "and the same without");
}

#[test]
fn provenance_names_all_inputs() {
    let (world, images) = World::built();
    let statement: Value =
        serde_json::from_str(&world.strata(&["export", "provenance", &images[2].reference])).unwrap();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let hex = |digest: &str| digest.strip_prefix("sha256:").unwrap().to_owned();
    assert_eq!(statement["subject"][0]["digest"]["sha256"], hex(&images[2].digest));
    let definition = &statement["predicate"]["buildDefinition"];
    assert_eq!(definition["externalParameters"]["layer"], "node");
    let dependencies: BTreeMap<&str, &str> = definition["resolvedDependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|dep| (dep["name"].as_str().unwrap(), dep["digest"]["sha256"].as_str().unwrap()))
        .collect();
    assert_eq!(dependencies["parent image"], hex(&images[1].digest));
    for layer in ["bootc", "coreos", "node"] {
        let name = format!("demo/{layer}.{}.toml", std::env::consts::ARCH);
        let bytes = fs::read(world.path("lockfiles").join(&name)).unwrap();
        assert_eq!(dependencies[name.as_str()], hex(&sha256(bytes)));
    }
    // every package, by the digests of the repositories' files
    let files = package_digests();
    let format = "%{NAME}-%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}.%{ARCH}\n";
    let installed = parity::rpm(World::unpacked_node(), &["-qa", "--queryformat", format]);
    assert!(installed.lines().count() > 60);
    for nevra in installed.lines() {
        let (name, rest) = nevra.split_once(':').map_or((nevra, None), |(name, rest)| (name, Some(rest)));
        // files have no epoch in their names
        let file = match rest {
            Some(rest) => format!("{}-{rest}.rpm", name.rsplit_once('-').unwrap().0),
            None => format!("{nevra}.rpm"),
        };
        assert_eq!(dependencies[format!("{nevra}.rpm").as_str()], files[file.as_str()], "{nevra}");
    }
    assert_eq!(
        statement["predicate"]["buildDefinition"]["internalParameters"]["inputs"],
        world.strata(&["--format", "json", "show", &images[2].reference]).parse::<Value>().unwrap()["labels"]
            ["io.strata.inputs"]
    );
}

#[test]
fn provenance_is_of_what_is_at_hand() {
    let (built, images) = World::built();
    let world = World::new(User::Root);
    run(Command::new("cp").arg("-r").arg(built.path("lockfiles")).arg(world.path("lockfiles")));
    let image = format!("oci:{}:{}", built.path("store/images").display(), images[2].reference);
    let first = world.strata(&["export", "provenance", &image]);
    assert_eq!(first, built.strata(&["export", "provenance", &images[2].reference]), "wherever it is made");
    let node = world.path("manifests/demo/node.toml");
    let text = fs::read_to_string(&node).unwrap();
    fs::write(&node, text.replace("labels = { ", "labels = { other = \"1\", ")).unwrap();
    let error = world.refused(&["export", "provenance", &image], 1);
    assert!(error.contains("was not built from the manifests and lockfiles at hand"), "{error}");
    let registry = Registry::new("push-other");
    let to = format!("docker://{}/os:1", registry.host());
    let error = world.refused(&["push", &image, &to, "--attach", "provenance"], 1);
    assert!(error.contains("was not built"), "{error}");
    assert_eq!(push(&world, &[&image, &to])["attached"].as_array().unwrap().len(), 3, "all but that");
}

/// How many entries are on a page.
const PAGE: usize = 3;

/// A registry that keeps track of what refers to a manifest, and lists a few of that on a page; or goes on doing so for
/// ever.
fn tracking(is_endless: bool) -> Server {
    let blobs: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::default();
    Server::of_requests(move |request: &Request| {
        let mut blobs = blobs.lock().unwrap();
        let (path, query) =
            request.path.split_once('?').map_or((&*request.path, None), |(path, query)| (path, Some(query)));
        let name = path.rsplit('/').next().unwrap().to_owned();
        let with = |status, headers: &str| Reply {
            headers: headers.to_owned(),
            body: Vec::new(),
            ..Reply::status(status)
        };
        match request.method.as_str() {
            "POST" => with(202, "location: /v2/os/blobs/uploads/1\r\n"),
            "PUT" => {
                let digest = sha256(&request.body);
                let manifest: Value = serde_json::from_slice(&request.body).unwrap_or_default();
                assert!(!name.starts_with("sha256-"), "it needs no tag");
                blobs.insert(name, request.body.clone());
                blobs.insert(digest, request.body.clone());
                let subject = manifest["subject"]["digest"].as_str();
                with(201, &subject.map(|subject| format!("oci-subject: {subject}\r\n")).unwrap_or_default())
            }
            _ if request.path.contains("/referrers/") => {
                let refers = |bytes: &[u8]| {
                    let manifest: Value = serde_json::from_slice(bytes).ok()?;
                    (manifest["subject"]["digest"] == name.as_str()).then(|| {
                        json!({"mediaType": manifest["mediaType"], "digest": sha256(bytes), "size": bytes.len(),
                            "artifactType": manifest["artifactType"]})
                    })
                };
                let entries: Vec<Value> = blobs.values().filter_map(|bytes| refers(bytes)).collect();
                let media_type = "application/vnd.oci.image.index.v1+json";
                let mut seen = BTreeSet::new();
                let entries: Vec<_> =
                    entries.into_iter().filter(|e| seen.insert(e["digest"].to_string())).collect();
                let first: usize =
                    query.map_or(0, |query| query.rsplit('=').next().unwrap().parse().unwrap());
                let last = (first + PAGE).min(entries.len());
                let page = &entries[first.min(last)..last];
                let link =
                    format!("link: </v2/os/referrers/{name}?after={}>; rel=\"next\"\r\n", first + PAGE);
                let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": page});
                Reply {
                    headers: if is_endless || last < entries.len() { link } else { String::new() },
                    ..Reply::ok(index.to_string().into())
                }
            }
            _ => blobs.get(&name).map_or_else(|| Reply::status(404), |bytes| Reply::ok(bytes.clone())),
        }
    })
}

#[test]
fn a_registry_that_keeps_track_is_asked() {
    let (world, images) = World::built();
    let server = tracking(false);
    let host = server.url.strip_prefix("http://").unwrap();
    let at = format!("docker://{host}/os:1");
    push(world, &[&images[2].reference, &at]);
    let mut attached = BTreeMap::new();
    for first in [0, PAGE] {
        let index = get(&format!("{}/v2/os/referrers/{}?after={first}", server.url, images[2].digest));
        attached.append(&mut documents(&format!("{}/v2/os", server.url), &index, &images[2].digest));
    }
    assert_eq!(attached.keys().map(String::as_str).collect::<Vec<_>>(), KINDS);
    let dir = scratch("push-tracked");
    let back = copy(&World::new(User::Root), &[&at, &format!("oci:{}:1", dir.join("layout").display())]);
    assert_eq!(back["attached"].as_array().unwrap().len(), 4);
    assert_eq!(server.count(&format!("manifests/sha256-{}", &images[2].digest[7..])), 0);
}

#[test]
fn a_list_without_an_end_is_given_up() {
    let (world, images) = World::built();
    let server = tracking(true);
    let at = format!("docker://{}/os:1", server.url.strip_prefix("http://").unwrap());
    push(world, &[&images[2].reference, &at]);
    let out = format!("oci:{}:1", scratch("push-endless").join("layout").display());
    let error = World::new(User::Root).refused(&["copy", &at, &out], 1);
    assert!(error.contains("the list has more than 100 pages"), "{error}");
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[test]
fn a_registry_is_not_believed_what_it_lists() {
    let (built, images) = World::built();
    let blobs = built.path("store/images/blobs/sha256");
    let size = |digest: &str| fs::metadata(blobs.join(&digest[7..])).unwrap().len();
    let [one, two] = [&images[0].digest, &images[1].digest];
    let entry = |media_type: &str, digest: &str, size: u64| {
        let name = json!({"org.opencontainers.image.ref.name": "taken"});
        json!({"mediaType": media_type, "digest": digest, "size": size, "annotations": name, "artifactType": "text/plain"})
    };
    let empty = entry("application/vnd.oci.empty.v1+json", &sha256("{}"), 2);
    let attached =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "text/plain", "config": empty,
        "layers": [empty], "subject": entry(MANIFEST, one, size(one)), "annotations": empty["annotations"]})
        .to_string();
    let index = |entries: &[Value]| {
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string().into_bytes()
    };
    // another image, and what refers to this one, each under the name of a third
    let listed =
        [entry(MANIFEST, two, size(two)), entry(MANIFEST, &sha256(&attached), attached.len() as u64)];
    let many: Vec<Value> = (0..17).map(|n| entry(MANIFEST, &sha256([n]), 4 << 20)).collect();
    let small = index(&[entry(MANIFEST, one, 10)]);
    let (listed, many) = (index(&listed), index(&many));
    let made =
        BTreeMap::from([(sha256(&attached), attached.clone().into_bytes()), (sha256("{}"), b"{}".to_vec())]);
    let stored = blobs.clone();
    let server = Server::of_requests(move |request| {
        let name = request.path.rsplit('/').next().unwrap();
        Reply::ok(match name {
            "many" => many.clone(),
            "small" => small.clone(),
            _ if request.path.contains("/referrers/") => listed.clone(),
            _ => made.get(name).cloned().unwrap_or_else(|| fs::read(stored.join(&name[7..])).unwrap()),
        })
    });
    let at = format!("docker://{}/os", server.url.strip_prefix("http://").unwrap());
    let layout = format!("oci:{}", scratch("push-listed").join("layout").display());
    copy(built, &[&images[2].reference, &format!("{layout}:taken")]);
    let report = copy(built, &[&format!("{at}@{one}"), &format!("{layout}:one")]);
    let expected = json!([{"image": one, "kind": "text/plain", "digest": sha256(&attached)}]);
    assert_eq!(report["attached"], expected);
    for (name, image) in [("taken", &images[2]), ("one", &images[0])] {
        let name = format!("{layout}:{name}");
        assert_eq!(raw(&name).1, image.digest);
        built.strata(&["show", &name]);
    }
    for (tag, complaint) in [
        ("many", "71303168 bytes of manifests are listed, at most 67108864 are read"),
        ("small", "the registry sends more than the 10 bytes expected"),
    ] {
        let error = built.refused(&["copy", &format!("{at}:{tag}"), &format!("{layout}:{tag}")], 1);
        assert!(error.contains(complaint), "{error}");
    }
}
