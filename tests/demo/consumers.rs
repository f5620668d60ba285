//! The programs that images are for take them: skopeo, umoci, podman, buildah, a registry.

use std::fs;
use std::io::Read;
use std::process::Command;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::registry::Registry;
use crate::world::{World, run, scratch};

fn node() -> (String, &'static str) {
    let (world, images) = World::built();
    (world.skopeo(&images[2]), images[2].digest.as_str())
}

#[test]
fn skopeo_reads_every_layer_and_label() {
    let (world, images) = World::built();
    for image in images {
        let inspected = run(Command::new("skopeo").args(["inspect", &world.skopeo(image)]));
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(inspected["Digest"], image.digest.as_str());
        assert_eq!(inspected["Labels"]["org.opencontainers.image.version"], image.version.as_str());
        assert_eq!(inspected["Labels"]["containers.bootc"], "1");
        assert_eq!(inspected["Labels"]["io.openshift.metalayer"], "true");
    }
    let layers = |index: usize| -> Vec<Value> {
        let raw = run(Command::new("skopeo").args(["inspect", "--raw", &world.skopeo(&images[index])]));
        serde_json::from_str::<Value>(&raw).unwrap()["layers"].as_array().unwrap().clone()
    };
    for upper in [1, 2] {
        let (below, own) = (layers(upper - 1), layers(upper));
        assert_eq!(own[..below.len()], below[..], "parent blobs are referenced, descriptors and all");
        assert!(own.len() > below.len());
    }
}

#[test]
fn digests_and_diff_ids_hold() {
    let (world, images) = World::built();
    let blob = |digest: &str| {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let bytes = fs::read(world.path("store/images/blobs/sha256").join(hex)).unwrap();
        assert_eq!(hex::encode(Sha256::digest(&bytes)), hex);
        bytes
    };
    for image in images {
        let manifest: Value = serde_json::from_slice(&blob(&image.digest)).unwrap();
        let config: Value =
            serde_json::from_slice(&blob(manifest["config"]["digest"].as_str().unwrap())).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        assert_eq!(layers.len(), diff_ids.len());
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            let packed = blob(layer["digest"].as_str().unwrap());
            assert_eq!(layer["size"], packed.len());
            let mut tar = Vec::new();
            // one member per blob: importers stop at the end of the first
            flate2::bufread::GzDecoder::new(packed.as_slice()).read_to_end(&mut tar).unwrap();
            assert_eq!(diff_id.as_str().unwrap(), format!("sha256:{}", hex::encode(Sha256::digest(&tar))));
        }
        let history = config["history"].as_array().unwrap();
        assert_eq!(history.iter().filter(|h| h["empty_layer"] != true).count(), layers.len());
    }
}

#[test]
fn a_registry_keeps_the_digest() {
    let (image, digest) = node();
    let registry = Registry::new("registry");
    let remote = registry.push(&image, "rhel-coreos:test");
    let inspected = run(Command::new("skopeo").args(["inspect", "--tls-verify=false", &remote]));
    assert_eq!(serde_json::from_str::<Value>(&inspected).unwrap()["Digest"], digest);
    let back = format!("oci:{}:node", scratch("registry-back").join("layout").display());
    run(Command::new("skopeo").args(["copy", "--quiet", "--src-tls-verify=false", &remote, &back]));
    let raw = run(Command::new("skopeo").args(["inspect", "--raw", &back]));
    assert_eq!(format!("sha256:{}", hex::encode(Sha256::digest(raw))), digest);
}

#[test]
fn podman_pulls_it_and_a_shell_runs_in_it() {
    let (world, images) = World::built();
    let registry = Registry::new("podman");
    let image = format!("docker://{}/os:1", registry.host());
    world.strata(&["copy", &images[2].reference, &image]);
    let storage = scratch("containers");
    let args = |program: &str| {
        let mut command = Command::new(program);
        command.args(["--root", storage.join("root").to_str().unwrap()]);
        command.args(["--runroot", storage.join("run").to_str().unwrap(), "--storage-driver", "vfs"]);
        command
    };
    let id = run(args("podman").args(["pull", "--quiet", "--tls-verify=false", &image]));
    let container = run(args("buildah").args(["from", "--pull-never", id.trim()]));
    let shell = |script: &str| {
        run(args("buildah").args([
            "run",
            "--isolation",
            "chroot",
            container.trim(),
            "--",
            "/bin/sh",
            "-c",
            script,
        ]))
    };
    let os_release = shell("cat /etc/os-release");
    assert!(os_release.contains(&format!("OSTREE_VERSION={}", images[2].version)), "{os_release}");
    assert!(os_release.contains("OPENSHIFT_VERSION=4.19"), "{os_release}");
    // podman leaves bind mounts and images of its own user ids behind, which only it can remove
    run(args("buildah").args(["rm", "--all"]));
    run(args("podman").args(["rmi", "--all", "--force"]));
}

#[test]
fn output_is_a_layout_of_its_own() {
    let (world, images) = World::built();
    let dir = scratch("output");
    let layout = format!("oci:{}:node", dir.join("layout").display());
    world.strata(&["build", "demo", "node", "--output", &layout]);
    let raw = run(Command::new("skopeo").args(["inspect", "--raw", &layout]));
    assert_eq!(format!("sha256:{}", hex::encode(Sha256::digest(raw))), images[2].digest);
    run(Command::new("skopeo")
        .args(["copy", "--quiet", &layout])
        .arg(format!("dir:{}", dir.join("flat").display())));
}

#[test]
fn output_without_a_name_takes_every_layer_asked_for() {
    let (world, images) = World::built();
    let dir = scratch("output-all").join("layout");
    world.strata(&["build", "demo", "coreos", "node", "--output", &format!("oci:{}", dir.display())]);
    let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    for image in &images[1..] {
        let layout = format!("oci:{}:demo/{}", dir.display(), image.layer);
        let raw = run(Command::new("skopeo").args(["inspect", "--raw", &layout]));
        assert_eq!(format!("sha256:{}", hex::encode(Sha256::digest(raw))), image.digest);
    }
}
