//! zstd:chunked blobs: what skopeo and podman write themselves for the same tars, and what podman fetches of ours.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::registry::Registry;
use crate::world::{User, World, run, scratch, text, unpack};

/// As the annotations are called, and as they were in the podman and skopeo of Debian 12.
const KEY: &str = "io.github.containers.zstd-chunked";
const OLD_KEY: &str = "io.containers.zstd-chunked";

/// The node image of the demo stream, as an OCI layout in its directory.
fn layout(dir: &Path) -> PathBuf {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let layout = dir.join("ours");
    let output = format!("oci:{}:node", layout.display());
    world.strata(&["build", "demo", "node", "--compression", "zstd:chunked", "--output", &output]);
    layout
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn blob(layout: &Path, digest: &Value) -> PathBuf {
    layout.join("blobs/sha256").join(digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
}

fn manifest(layout: &Path) -> Value {
    json(&blob(layout, &json(&layout.join("index.json"))["manifests"][0]["digest"]))
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A compressed part of a blob whose place an annotation tells as `OFFSET:LENGTH:UNCOMPRESSED LENGTH`, and its digest.
fn part(layer: &Value, blob: &[u8], key: &str) -> (Vec<u8>, String) {
    let place = layer["annotations"][key].as_str().unwrap_or_else(|| panic!("{layer} has no {key}"));
    let numbers: Vec<usize> = place.split(':').map(|number| number.parse().unwrap()).collect();
    let packed = &blob[numbers[0]..][..numbers[1]];
    let bytes = zstd::decode_all(packed).unwrap();
    assert_eq!(bytes.len(), numbers[2]);
    (bytes, sha256(packed))
}

/// The files of a table of contents, without their places; the parts in which skopeo splits large ones are left out.
fn files(layer: &Value, blob: &[u8], key: &str) -> Vec<Map<String, Value>> {
    let (table, digest) = part(layer, blob, &format!("{key}.manifest-position"));
    assert_eq!(layer["annotations"][format!("{key}.manifest-checksum")], digest.as_str());
    let table: Value = serde_json::from_slice(&table).unwrap();
    assert_eq!(table["version"], 1);
    let place =
        ["offset", "endOffset", "chunkSize", "chunkOffset", "chunkDigest", "accesstime", "changetime"];
    let files = table["entries"].as_array().unwrap().iter().filter(|entry| entry["type"] != "chunk");
    let bare = |entry: &Value| {
        let fields = entry.as_object().unwrap().iter();
        // Go leaves out what is 0
        let fields = fields.filter(|(key, value)| !place.contains(&key.as_str()) && **value != 0);
        fields.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    files.map(bare).collect()
}

#[test]
fn its_parts_are_those_that_skopeo_and_podman_make() {
    let dir = scratch("chunked");
    let ours = layout(&dir);
    // skopeo does not compress again what is zstd already
    let (plain, theirs) = (format!("dir:{}", dir.join("plain").display()), dir.join("theirs"));
    let copy = |args: &[&str]| run(Command::new("skopeo").args(["copy", "--quiet"]).args(args));
    let ours_oci = format!("oci:{}:node", ours.display());
    copy(&["--dest-decompress", &ours_oci, &plain]);
    let theirs_oci = format!("oci:{}:node", theirs.display());
    copy(&["--dest-compress", "--dest-compress-format", "zstd:chunked", &plain, &theirs_oci]);
    let splits = tar_splits(&dir, &ours_oci);
    let (manifest, other) = (manifest(&ours), manifest(&theirs));
    let diff_ids = json(&blob(&ours, &manifest["config"]["digest"]))["rootfs"]["diff_ids"].clone();
    let layers = manifest["layers"].as_array().unwrap().iter();
    for (number, (layer, other)) in layers.zip(other["layers"].as_array().unwrap()).enumerate() {
        let bytes = fs::read(blob(&ours, &layer["digest"])).unwrap();
        let other_bytes = fs::read(blob(&theirs, &other["digest"])).unwrap();
        assert_eq!(files(layer, &bytes, KEY), files(other, &other_bytes, OLD_KEY));
        let (split, digest) = part(layer, &bytes, &format!("{KEY}.tarsplit-position"));
        assert_eq!(String::from_utf8(split).unwrap(), splits[diff_ids[number].as_str().unwrap()]);
        let (table, _) = part(layer, &bytes, &format!("{KEY}.manifest-position"));
        let table: Value = serde_json::from_slice(&table).unwrap();
        assert_eq!(table["tarSplitDigest"], digest.as_str());
        for file in table["entries"].as_array().unwrap().iter().filter(|file| file["offset"].is_number()) {
            let place = ["offset", "endOffset"].map(|key| file[key].as_u64().unwrap() as usize);
            let content = zstd::decode_all(&bytes[place[0]..place[1]]).unwrap();
            assert_eq!(file["digest"], sha256(&content).as_str(), "{file}");
        }
    }
}

/// By diff id, what podman keeps of the layers that it pulls.
fn tar_splits(dir: &Path, image: &str) -> BTreeMap<String, String> {
    let storage = dir.join("vfs");
    let podman = |args: &[&str]| {
        let mut podman = Command::new("podman");
        podman.args(["--root", storage.join("root").to_str().unwrap(), "--storage-driver", "vfs"]);
        run(podman.args(["--runroot", storage.join("run").to_str().unwrap()]).args(args))
    };
    podman(&["pull", "--quiet", image]);
    let layers = storage.join("root/vfs-layers");
    let mut splits = BTreeMap::new();
    for layer in json(&layers.join("layers.json")).as_array().unwrap() {
        let path = layers.join(format!("{}.tar-split.gz", layer["id"].as_str().unwrap()));
        let mut split = String::new();
        flate2::read::MultiGzDecoder::new(fs::File::open(path).unwrap()).read_to_string(&mut split).unwrap();
        // older ones end with a line for nothing
        let nothing = split.lines().last().unwrap().contains("\"payload\":\"\"");
        let lines = split.lines().count() - usize::from(nothing);
        let split: String = split.split_inclusive('\n').take(lines).collect();
        splits.insert(layer["diff-digest"].as_str().unwrap().to_owned(), split);
    }
    podman(&["rmi", "--all", "--force"]);
    splits
}

#[test]
fn podman_fetches_the_files_that_it_has_not() {
    let dir = scratch("chunked-pull");
    let layout = layout(&dir);
    // the podman of Debian 12 looks for the annotations by the name they had then
    let index = json(&layout.join("index.json"));
    let digest = &index["manifests"][0]["digest"];
    let old = fs::read_to_string(blob(&layout, digest)).unwrap().replace(KEY, OLD_KEY);
    let old_digest = Value::from(sha256(old.as_bytes()));
    fs::write(blob(&layout, &old_digest), &old).unwrap();
    let mut index = index.clone();
    index["manifests"][0]["digest"] = old_digest;
    index["manifests"][0]["size"] = old.len().into();
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let registry = Registry::new("chunked-registry");
    let remote = registry.push(&format!("oci:{}:node", layout.display()), "node:chunked");

    let storage = dir.join("storage.conf");
    let conf = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"{0}/root\"\nrunroot = \"{0}/run\"\n\
         [storage.options]\npull_options = {{ enable_partial_images = \"true\" }}\n",
        dir.display()
    );
    fs::write(&storage, conf).unwrap();
    let podman = |args: &[&str]| {
        let output =
            Command::new("podman").args(args).env("CONTAINERS_STORAGE_CONF", &storage).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (id, log) = podman(&["--log-level=debug", "pull", "--tls-verify=false", &remote]);
    let layers = serde_json::from_str::<Value>(&old).unwrap()["layers"].as_array().unwrap().len();
    assert_eq!(log.matches("Retrieved partial blob").count(), layers, "{log}");
    let mounted = podman(&["image", "mount", id.trim()]).0;
    // umoci knows no zstd, which skopeo only takes off on the way to a directory
    let plain = format!("dir:{}", dir.join("plain").display());
    let ours = format!("oci:{}:node", layout.display());
    run(Command::new("skopeo").args(["copy", "--quiet", "--dest-decompress", &ours, &plain]));
    let tree = unpack(&plain, &dir.join("unpacked"));
    // without owners: containers/storage 1.43 gives what it fetched so to root, whatever the table says
    let listing = |root: &str| {
        let list = "cd \"$0\"; find . -mindepth 1 -printf '%p %y %m %l\\n' | sort; \
                    find . -type f -print0 | sort -z | xargs -0 sha256sum";
        run(Command::new("sh").args(["-euc", list, root]))
    };
    assert_eq!(listing(mounted.trim()), listing(tree.to_str().unwrap()));
    podman(&["image", "umount", "--all"]);
    podman(&["rmi", "--all", "--force"]);
}
