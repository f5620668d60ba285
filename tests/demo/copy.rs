//! `strata copy` between stores, layouts, archives and registries; skopeo and umoci read what comes out
//! (and podman: `consumers`).

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::registry::Registry;
use crate::server::{Reply, Server};
use crate::world::{Image, User, World, run, scratch};

/// What strata says of a copy.
pub fn copy(world: &World, args: &[&str]) -> Value {
    serde_json::from_str(&world.strata(&[&["--format", "json", "copy"], args].concat())).unwrap()
}

pub fn blobs(report: &Value) -> [u64; 3] {
    ["sent", "mounted", "there"].map(|key| report[key]["blobs"].as_u64().unwrap())
}

/// A manifest as skopeo gets it, and its digest.
pub fn raw(image: &str) -> (Value, String) {
    let raw = run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", image]));
    (serde_json::from_str(&raw).unwrap(), format!("sha256:{}", hex::encode(Sha256::digest(&raw))))
}

/// Gets every blob of an image in a registry, each of which skopeo compares with its digest.
fn pull(image: &str, name: &str) {
    let dir = format!("dir:{}", scratch(name).join("flat").display());
    run(Command::new("skopeo").args(["copy", "--quiet", "--src-tls-verify=false", image, &dir]));
}

/// A world with a store of its own that has nothing.
fn elsewhere() -> World {
    World::new(User::Root)
}

#[test]
fn only_what_is_missing_is_sent() {
    let (world, images) = World::built();
    let registry = Registry::new("copy-missing");
    let at = |name: &str| format!("docker://{}/{name}", registry.host());
    let mut below = 0;
    for (image, name) in images.iter().zip(["bootc:1", "coreos:1", "node:1"]) {
        let report = copy(world, &[&image.reference, &at(name)]);
        let (manifest, digest) = raw(&at(name));
        assert_eq!((&digest, report["digest"].as_str().unwrap()), (&image.digest, image.digest.as_str()));
        let all = manifest["layers"].as_array().unwrap().len() as u64 + 1;
        assert_eq!(blobs(&report), [all - below, below, 0], "{name}: blobs of the image below are mounted");
        let requests = registry.requests();
        let count = |what: &dyn Fn(&str) -> bool| requests.iter().filter(|r| what(r)).count() as u64;
        assert_eq!(count(&|r| r.contains("?mount=") && r.ends_with(" 201")), below);
        assert_eq!(
            count(&|r| r.starts_with("PUT ") && r.contains("/blobs/") && r.ends_with(" 201")),
            all - below
        );
        let last = requests.iter().rposition(|r| r.contains("/blobs/uploads/")).unwrap();
        let puts: Vec<_> = requests
            .iter()
            .enumerate()
            .filter(|(_, r)| r.contains("PUT") && r.contains("/manifests/"))
            .collect();
        assert!(puts.iter().all(|(index, _)| *index > last), "{requests:?}");
        assert!(puts.last().unwrap().1.contains("/manifests/1 "), "the name is last");
        below = all - 1;
    }
    pull(&at("node:1"), "copy-missing-node");

    let report = copy(world, &[&images[2].reference, &at("node:2")]);
    let [sent, mounted, _] = blobs(&report);
    assert_eq!((sent, mounted), (0, 0));
    let requests = registry.requests();
    assert!(!requests.iter().any(|request| request.contains("uploads")), "{requests:?}");

    // to be promoted it need not come here
    let report = copy(&elsewhere(), &[&at("node:1"), &at("prod/os:4.19")]);
    let [sent, mounted, there] = blobs(&report);
    assert_eq!((sent, there), (0, 0));
    assert_eq!(mounted, below + 1);
    assert_eq!(raw(&at("prod/os:4.19")).1, images[2].digest);
    assert_eq!(registry.blobs_read(), [""; 0]);
}

#[test]
fn every_place_gives_and_takes() {
    let (world, images) = World::built();
    let node = &images[2];
    let dir = scratch("copy-places");
    let (one, two) = (Registry::new("copy-places-1"), Registry::new("copy-places-2"));
    let path = |name: &str| dir.join(name).display().to_string();
    let places = [
        format!("docker://{}/os:1", one.host()),
        format!("oci:{}:node", path("layout")),
        format!("oci-archive:{}", path("a.tar")),
        format!("docker://{}/os:1", two.host()),
        format!("oci-archive:{}:named", path("b.tar")),
        format!("oci:{}", path("unnamed")),
    ];
    let mut from = node.reference.clone();
    for to in places {
        let user = elsewhere();
        let by = if from == node.reference { world } else { &user };
        copy(by, &[&from, &to]);
        assert_eq!(raw(&to).1, node.digest, "{from} to {to}");
        from = to;
    }
    pull(&format!("docker://{}/os:1", two.host()), "copy-places-pulled");
    run(Command::new("umoci")
        .args(["unpack", "--image", &format!("{}:node", path("layout"))])
        .arg(dir.join("u")));

    // the same image is the same archive
    copy(&elsewhere(), &[&format!("oci:{}:node", path("layout")), &format!("oci-archive:{}", path("c.tar"))]);
    assert_eq!(fs::read(dir.join("a.tar")).unwrap(), fs::read(dir.join("c.tar")).unwrap());
}

#[test]
fn the_store_takes_an_image_under_a_name() {
    let (_, images) = World::built();
    let registry = Registry::new("copy-pull");
    let (built, world) = (World::built().0.path("store/images"), elsewhere());
    let from = |image: &Image| format!("oci:{}:{}", built.display(), image.reference);
    let at = |tag: &str| format!("docker://{}/os:{tag}", registry.host());
    registry.push(&from(&images[1]), "os:old");
    registry.push(&from(&images[2]), "os:new");
    copy(&world, &[&at("old"), "demo/pulled"]);
    copy(&world, &[&at("new"), "demo/pulled"]);
    let listed: Value = serde_json::from_str(&world.strata(&["--format", "json", "images"])).unwrap();
    let found: Vec<_> = listed.as_array().unwrap().iter().map(|row| (&row["name"], &row["digest"])).collect();
    let (old, new) = (json!(images[1].digest), json!(images[2].digest));
    assert_eq!(found, [(&Value::Null, &old), (&json!("demo/pulled"), &new)], "what lost its name stays");
    world.strata(&["verify", "demo/pulled", "--ignore", "/usr/lib/{os-release,systemd/**}"]);
}

/// The node image, and the same as if it were for another architecture.
fn for_two(dir: &Path) -> [String; 2] {
    let (world, images) = World::built();
    let layout = dir.join("both").display().to_string();
    let host = format!("oci:{layout}:host");
    run(Command::new("skopeo").args(["copy", "--quiet", &world.skopeo(&images[2]), &host]));
    run(Command::new("umoci").args(["tag", "--image", &format!("{layout}:host"), "other"]));
    run(Command::new("umoci").args([
        "config",
        "--image",
        &format!("{layout}:other"),
        "--architecture",
        "s390x",
    ]));
    [host, format!("oci:{layout}:other")]
}

#[test]
fn several_architectures_are_one_index() {
    let dir = scratch("copy-index");
    let [host, other] = for_two(&dir);
    let registry = Registry::new("copy-index-registry");
    let at = |name: &str| format!("docker://{}/{name}", registry.host());
    let world = elsewhere();
    // each worker pushes its own, and one more step makes them one
    copy(&world, &[&host, &at("os:1-host")]);
    copy(&world, &[&other, &at("os:1-s390x")]);
    let report = copy(&world, &[&at("os:1-s390x"), &at("os:1-host"), &at("os:1")]);
    assert_eq!(blobs(&report)[..2], [0, 0], "their blobs are there");
    let (index, digest) = raw(&at("os:1"));
    assert_eq!(report["digest"], digest.as_str());
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    let arches: Vec<_> =
        index["manifests"].as_array().unwrap().iter().map(|m| &m["platform"]["architecture"]).collect();
    assert!(arches.is_sorted_by_key(|arch| arch.as_str().unwrap()) && arches.len() == 2, "{arches:?}");
    for (arch, image) in [("s390x", &other), (arches[0].as_str().unwrap(), &host)] {
        let out = format!("oci:{}:image", dir.join(arch).display());
        let choose = ["--override-arch", arch, "copy", "--quiet", "--src-tls-verify=false"];
        run(Command::new("skopeo").args(choose).args([&at("os:1"), &out]));
        assert_eq!(raw(&out).1, raw(image).1, "what skopeo takes for {arch}");
    }
    // in another order, and from elsewhere
    let report = copy(&world, &[&host, &other, &format!("oci:{}:both", dir.join("out").display())]);
    assert_eq!(report["digest"], digest.as_str());
    // an index goes as it is, and of it what is for a machine
    let report = copy(&world, &[&at("os:1"), &at("mirror/os:1")]);
    assert_eq!((&report["digest"], raw(&at("mirror/os:1")).1), (&json!(digest), digest.clone()));
    let out = format!("oci:{}:both", dir.join("out").display());
    for from in [&at("mirror/os:1"), &out] {
        let report = copy(&world, &["--arch", "s390x", from, "demo/other"]);
        assert_eq!(report["digest"], raw(&other).1.as_str());
    }
    assert_eq!(copy(&world, &[&out, "demo/mine"])["digest"], raw(&host).1.as_str(), "for this machine");
    let error = world.refused(&["copy", &host, &host, &at("os:2")], 1);
    assert!(error.contains("two images are for linux"), "{error}");
}

/// A layout with an image of one blob of random bytes.
fn large(dir: &Path, size: usize) -> String {
    let blobs = dir.join("large/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |media_type: &str, bytes: &[u8]| {
        let hex = hex::encode(Sha256::digest(bytes));
        fs::write(blobs.join(&hex), bytes).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    };
    let mut content = vec![0; size];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut content).unwrap();
    let layer = blob("application/vnd.oci.image.layer.v1.tar", &content);
    let config = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}});
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer]});
    let manifest = blob(media_type, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.join("large/index.json"), index.to_string()).unwrap();
    fs::write(dir.join("large/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    format!("oci:{}", dir.join("large").display())
}

/// Passes on what is said between clients and a registry, but cuts a client off when it sends the `nth` PATCH: at once, or
/// after so many bytes.
fn cutting(host: &str, nth: usize, after: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, to) = (listener.local_addr().unwrap(), host.to_owned());
    let patches = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (to, patches) = (to.clone(), patches.clone());
            thread::spawn(move || pass_on(client, &to, nth, after, &patches));
        }
    });
    address.to_string()
}

fn pass_on(mut client: TcpStream, to: &str, nth: usize, after: usize, patches: &AtomicUsize) {
    let mut server = TcpStream::connect(to).unwrap();
    let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut answers, &mut back));
    let (mut buffer, mut left) = (vec![0; 64 << 10], usize::MAX);
    while let Ok(n @ 1..) = client.read(&mut buffer) {
        if buffer.starts_with(b"PATCH ") && patches.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            left = after;
        }
        let _ = server.write_all(&buffer[..n.min(left)]);
        left = left.saturating_sub(n);
        if left == 0 {
            break;
        }
    }
    let _ = (server.shutdown(Shutdown::Both), client.shutdown(Shutdown::Both));
}

#[test]
fn an_upload_that_breaks_off_goes_on() {
    let registry = Registry::new("copy-broken");
    let image = large(&scratch("copy-broken-layout"), 20 << 20);
    // three pieces: two PATCH and a PUT. Between pieces distribution knows how much there is; within one it forgets all
    for (nth, after, name, uploads, pieces) in [(2, 0, "between", 1, 2), (2, 1 << 20, "within", 2, 3)] {
        let through = cutting(&registry.host(), nth, after);
        registry.requests();
        copy(&elsewhere(), &[&image, &format!("docker://{through}/{name}:1")]);
        let blobs: Vec<String> =
            registry.requests().into_iter().filter(|r| r.contains("/uploads/")).collect();
        let count = |start: &str| blobs.iter().filter(|r| r.starts_with(start)).count();
        // one more is for the config, in one piece
        assert_eq!(
            (count("POST"), blobs.iter().filter(|r| r.starts_with("PATCH") && r.ends_with(" 202")).count()),
            (uploads + 1, pieces),
            "{name}: {blobs:?}"
        );
        let at = format!("docker://{}/{name}:1", registry.host());
        assert_eq!(raw(&at).1, raw(&image).1);
        pull(&at, &format!("copy-broken-{name}"));
    }
}

/// What a registry got of a blob, and where each piece began.
#[derive(Default)]
struct Got {
    bytes: Vec<u8>,
    begun: Vec<usize>,
}

/// A registry that keeps of a piece of a blob what came of it, and says how much it has.
fn keeping(got: Arc<Mutex<Got>>) -> Server {
    let with = |status, there: usize| Reply {
        headers: format!("location: /v2/os/uploads/1\r\nrange: 0-{}\r\n", there.saturating_sub(1)),
        ..Reply::status(status)
    };
    Server::of_requests(move |request| match (request.method.as_str(), request.header("content-range")) {
        ("POST", _) => with(202, 0),
        ("PATCH" | "PUT", Some(range)) => {
            let mut got = got.lock().unwrap();
            got.begun.push(range.split('-').next().unwrap().parse().unwrap());
            got.bytes.extend(&request.body);
            with(if request.method == "PUT" { 201 } else { 202 }, got.bytes.len())
        }
        // a blob of one piece, and manifests
        ("PUT", None) => with(201, 0),
        ("GET", _) if request.path == "/v2/os/uploads/1" => with(204, got.lock().unwrap().bytes.len()),
        _ => Reply::status(404),
    })
}

#[test]
fn an_upload_that_breaks_off_within_a_piece_goes_on_there() {
    let (piece, most) = (8 << 20, 3 << 20);
    let image = large(&scratch("copy-kept"), 20 << 20);
    let got = Arc::new(Mutex::new(Got::default()));
    let server = keeping(got.clone());
    let through = cutting(server.url.strip_prefix("http://").unwrap(), 2, most);
    elsewhere().strata(&["copy", "--bare", &image, &format!("docker://{through}/os:1")]);
    let Got { bytes, begun } = &*got.lock().unwrap();
    let layer = raw(&image).0["layers"][0]["digest"].clone();
    assert_eq!(layer, format!("sha256:{}", hex::encode(Sha256::digest(bytes))));
    let [0, second, third, fourth] = begun[..] else { panic!("{begun:?}") };
    assert_eq!((second, fourth), (piece, third + piece));
    assert!(piece < third && third < piece + most, "{begun:?}");
}

#[test]
fn a_damaged_blob_is_not_passed_on() {
    let dir = scratch("copy-damaged");
    let image = large(&dir, 1000);
    let layer = raw(&image).0["layers"][0]["digest"].as_str().unwrap().to_owned();
    let path = dir.join("large/blobs/sha256").join(layer.strip_prefix("sha256:").unwrap());
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, bytes).unwrap();
    let registry = Registry::new("copy-damaged-registry");
    for to in [
        format!("docker://{}/os:1", registry.host()),
        format!("oci:{}:1", dir.join("out").display()),
        format!("oci-archive:{}", dir.join("out.tar").display()),
    ] {
        let error = elsewhere().refused(&["copy", &image, &to], 1);
        assert!(error.contains("the source is damaged") && error.contains(&layer), "{error}");
    }
    assert!(!registry.requests().iter().any(|request| request.contains("/manifests/")));
    assert!(!dir.join("out.tar").exists());
}

/// Kills copies at some time, and then lets one complete.
fn kill(times: u32, name: &str) {
    let (world, images) = World::built();
    let registry = Registry::new(name);
    for round in 0..times {
        let at = format!("docker://{}/round-{round}:1", registry.host());
        let mut child = world
            .command(&["copy", &images[2].reference, &at])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // a copy takes some hundred milliseconds; these are spread over them
        thread::sleep(Duration::from_millis(u64::from(round * 379 % 500)));
        child.kill().unwrap();
        child.wait().unwrap();
        let names = Command::new("skopeo").args(["inspect", "--tls-verify=false", &at]).output().unwrap();
        if names.status.success() {
            pull(&at, &format!("{name}-early"));
        }
        copy(world, &[&images[2].reference, &at]);
        assert_eq!(raw(&at).1, images[2].digest);
        pull(&at, &format!("{name}-pulled"));
    }
}

#[test]
fn a_copy_that_is_killed_is_completed_by_the_next() {
    kill(4, "copy-killed");
}

#[test]
#[ignore = "takes minutes: just test-kill"]
fn fifty_copies_that_are_killed() {
    kill(50, "copy-killed-often");
}
