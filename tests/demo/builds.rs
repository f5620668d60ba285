//! What a build makes, when it makes nothing, and that it makes the same for everybody.

use std::fs;
use std::io::Read;
use std::process::Command;

use serde_json::Value;

use crate::blobs;
use crate::world::{Image, User, World, run};

fn digests(images: &[Image]) -> Vec<&str> {
    images.iter().map(|image| image.digest.as_str()).collect()
}

#[test]
fn root_and_an_ordinary_user_make_the_same_images() {
    let (root, expected) = World::built();
    let ordinary = World::new(User::Ordinary);
    ordinary.strata(&["lock", "demo"]);
    let built = ordinary.build(&[]);
    for layer in ["bootc", "coreos", "node"] {
        let lock = format!("lockfiles/demo/{layer}.{}.toml", std::env::consts::ARCH);
        let [ours, theirs] = [root, &ordinary].map(|world| fs::read_to_string(world.path(&lock)).unwrap());
        assert_eq!(ours, theirs);
    }
    assert_eq!(built.iter().map(|i| i.layer.as_str()).collect::<Vec<_>>(), ["bootc", "coreos", "node"]);
    assert!(built.iter().all(|image| !image.reused));
    assert_eq!(digests(&built), digests(expected));
}

/// Of the chunks without the busybox of the machine, which the demo's packages ship.
#[cfg(target_arch = "x86_64")]
#[test]
fn blobs_are_the_same_on_every_machine() {
    let (world, images) = World::built();
    let busybox = ["/bin/busybox", "/usr/sbin/busybox", "/usr/bin/busybox"];
    let busybox = busybox.iter().find_map(|place| fs::read(place).ok()).unwrap();
    let has_busybox = |blob: &blobs::Blob| {
        let path = world.path("store/images/blobs/sha256").join(blob.digest.strip_prefix("sha256:").unwrap());
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(path).unwrap()));
        tar.entries().unwrap().any(|entry| {
            let mut content = Vec::new();
            entry.unwrap().read_to_end(&mut content).unwrap();
            content == busybox
        })
    };
    let mut text = String::new();
    for (index, image) in images.iter().enumerate() {
        let below = index.checked_sub(1).map(|below| world.skopeo(&images[below]));
        for (chunk, blob) in blobs::own(&world.skopeo(image), below.as_deref()) {
            // in these it is hidden
            if !["rpmdb", "initramfs"].contains(&chunk.as_str()) && !has_busybox(&blob) {
                text += &format!("{} {chunk} {}\n", image.layer, &blob.digest["sha256:".len()..][..16]);
            }
        }
    }
    insta::assert_snapshot!(text, @r"
    bootc NetworkManager ce659104e9444b3b
    bootc bash 5a6de507a93b088e
    bootc bootc e8f60daf82e66994
    bootc ca-certificates 7132a8ef26759e9c
    bootc chrony 35fc7047d286d9b7
    bootc conmon 0c847971cbf21b78
    bootc container-selinux 2fbf446e2722653c
    bootc containers-common 1527b9e5598c91c0
    bootc crun 17e949f2505990c8
    bootc demo-release 1615427b03c01926
    bootc dracut d2f83ceae0ea8417
    bootc e2fsprogs 77faa054a43bea80
    bootc files a3edd9d23698b066
    bootc findutils b594306ed694c8a5
    bootc gawk 91e374040ada7b5c
    bootc generated d1fbd0e971ae2256
    bootc glibc fe91705b768213f6
    bootc grep 77c42649e143754f
    bootc gzip b9c60ee469ab8ff4
    bootc iputils 0f2fad63c26887a1
    bootc kernel 7a099639ed9d56bb
    bootc kmod adef4afcdd93b18a
    bootc linux-firmware 44cb7173aeb8f4e2
    bootc metadata 93d507476fc54fed
    bootc module index c5cd0d18078a2827
    bootc nano 044bfa499023626c
    bootc netavark c3269030c344088d
    bootc openssh 9cf4d67ff2db6dfd
    bootc ostree 07ad66be12ddcc12
    bootc podman 73b21f6bee7aa58f
    bootc rpm 68179bef190a4d47
    bootc sed 7ecdc364ba67b7bb
    bootc seldom 1 3ba541e83d199953
    bootc selinux policy b91b6408ec6321b3
    bootc selinux-policy ea4d71820f5b4af7
    bootc setup f65c13e8c1639e30
    bootc shadow-utils 2b9e957c7d1022c3
    bootc skopeo 1af368dc2785c221
    bootc sudo 25e1d53046edf985
    bootc systemd 7a64b2ad7bed5c3d
    bootc tzdata 336d59601d5f38b5
    bootc util-linux 9c6d699be9298cab
    coreos afterburn 23fb1f97e76ff6b9
    coreos console-login-helper-messages 54f9def96dd2321f
    coreos coreos-installer 7692b39dd4bd2566
    coreos demo-release 43946e0514a9f6c2
    coreos files 774690b2dee0c819
    coreos generated 42a724bd4f233d04
    coreos ignition 832db2cb37ffdb89
    coreos metadata 00edaf28214a5b03
    coreos nss-altfiles 9032e0c7f38ecda0
    coreos removed 2f97db4bb8998313
    coreos rpm-ostree a75a51700d55dbeb
    coreos ssh-key-dir 92aea34092a09e18
    coreos toolbox cec87b1586f10284
    node NetworkManager e5f78dfd78c89e0b
    node conmon 7d7d2d59712616da
    node conmon-rs 6d3561ef264cdca3
    node cri-o eb55a80c8f5484e8
    node cri-tools fdd0603d3f2938c8
    node demo-release e7dd5d903a6586ac
    node files 0bd4896a8c47dac6
    node generated 0034d8c0ac2746f5
    node metadata 00530ca86ba11e25
    node nmstate 88928f09298097ed
    node openshift bbb025a8805f64a9
    node openshift-clients 5565dc7b81512b77
    node openvswitch-selinux-extra-policy d6e462a6cf45c3e7
    node openvswitch3.4 df466d7eaf0c0776
    node ose-aws-cloud-controller-manager bee6015e96160c86
    node ose-gcp-cloud-controller-manager 7cd70f1bdba95a6d
    node seldom 1 1565d4fdfd8dd6f5
    ");
}

#[test]
fn a_changed_package_costs_its_layer_and_few_blobs() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let first = world.build(&[]);
    let again = world.build(&[]);
    assert!(again.iter().all(|image| image.reused), "{again:?}");
    assert_eq!(digests(&first), digests(&again));

    // the next image takes over the name
    let own = |images: &[Image]| blobs::own(&world.skopeo(&images[2]), Some(&world.skopeo(&images[1])));
    let before = own(&first);
    world.strata(&[
        "--set",
        "ose_snapshot=2025-02-10",
        "lock",
        "demo",
        "node",
        "--update-package",
        "openshift-clients",
    ]);
    let third = world.build(&["--set", "ose_snapshot=2025-02-10"]);
    assert_eq!(third.iter().map(|image| image.reused).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(digests(&third)[..2], digests(&first)[..2]);
    assert_ne!(third[2].digest, first[2].digest);

    assert_eq!(blobs::changed(&before, &own(&third)), ["metadata", "openshift-clients", "rpmdb"]);
}

#[test]
fn packages_decompressed_before_make_the_same_image() {
    let world = World::new(User::Ordinary);
    world.strata(&["lock", "demo"]);
    let cold = world.build(&["bootc"]);
    for made in ["images", "layers"] {
        fs::remove_dir_all(world.path(&format!("store/{made}"))).unwrap();
    }
    let warm = world.build(&["bootc"]);
    assert_eq!((cold[0].kept, warm[0].reused), (0, false));
    // packages without files have nothing to keep
    let payloads = fs::read_dir(world.path("store/payloads")).unwrap().count();
    assert!(payloads > 10 && warm[0].kept as usize == payloads, "{payloads} payloads, {} used", warm[0].kept);
    assert_eq!(digests(&warm), digests(&cold));

    world.strata(&["gc", "--all"]);
    assert_eq!(world.build(&["bootc"])[0].kept, 0);
}

#[test]
fn an_image_given_for_a_layer_gives_the_same_image_on_top() {
    let (origin, expected) = World::built();
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let base = format!("oci:{}:coreos", world.path("base").display());
    run(Command::new("skopeo").args(["copy", "--quiet", &origin.skopeo(&expected[1]), &base]));
    let output = world
        .command(&["--format", "json", "build", "demo", "node", "--base", &format!("coreos={base}")])
        .output()
        .unwrap();
    let built: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let found: Vec<String> = built.as_array().unwrap().iter().map(|image| text(&image["digest"])).collect();
    assert_eq!(found, digests(&expected[1..]));
    // no package of the layers below is installed again, and every line says whose it is
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.lines().all(|line| line.starts_with("coreos: ") || line.starts_with("node: ")), "{said}");
    assert!(!said.lines().any(|line| line.starts_with("coreos: ") && line.contains("installed")), "{said}");
}

#[test]
fn offline_builds_need_neither_network_nor_repositories() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    let error = world.refused(&["build", "demo", "bootc", "--offline"], 1);
    assert!(error.contains("strata fetch"), "{error}");
    world.strata(&["fetch", "demo"]);
    fs::rename(world.path("target/demo/2025-02-03"), world.path("target/gone")).unwrap();
    let mut isolated = Command::new("unshare");
    isolated.args(["--net", "--"]).arg(world.path("strata")).args(["build", "demo", "bootc", "--offline"]);
    isolated.current_dir(world.path("")).env("STRATA_STORE", world.path("store"));
    run(&mut isolated);
}
