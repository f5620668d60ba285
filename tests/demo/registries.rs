//! Registries that let in who has a password, a token or a certificate, as podman's tools know them; and registries
//! that lie.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::pki::pki;
use crate::registry::Registry;
use crate::server::{Reply, Request, Server};
use crate::world::{Image, User, World, run, scratch};

const PASSWORD: &str = "sword:fish";

/// Of PASSWORD, by bcrypt.
const HTPASSWD: &str = "kim:$2b$05$abcdefghijklmnopqrstuu2xDCju2C36nIXxQPGSAMgZBi7yzi94q\n";

/// A registry with the demo's bootc image, which is `ns/os:test`.
fn stocked(name: &str) -> Registry {
    let (built, images) = World::built();
    let registry = Registry::new(name);
    registry.push(&built.skopeo(&images[0]), "ns/os:test");
    registry
}

/// The same, for those who have a password.
fn guarded(name: &str) -> Registry {
    let mut registry = stocked(name);
    let htpasswd = registry.data().with_file_name("htpasswd");
    fs::write(&htpasswd, HTPASSWD).unwrap();
    registry.guard(&format!("  htpasswd: {{realm: test, path: {}}}", htpasswd.display()), "");
    registry
}

fn image(registry: &Registry) -> String {
    format!("docker://{}/ns/os:test", registry.host())
}

/// A file of credentials, as skopeo writes it.
fn log_in(host: &str, file: &Path) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let authfile = format!("--authfile={}", file.display());
    run(Command::new("skopeo")
        .args(["login", &authfile, "-u", "kim", "-p", PASSWORD])
        .args(["--tls-verify=false", host]));
}

/// The digest of the image that strata shows.
fn shown(world: &World, args: &[&str], env: &[(&str, &Path)]) -> Result<String, String> {
    let output = world
        .command(&[&["--format", "json", "show"], args].concat())
        .envs(env.iter().copied())
        .output()
        .unwrap();
    match output.status.success() {
        true => {
            let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
            Ok(shown["digest"].as_str().unwrap().to_owned())
        }
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

#[test]
fn credentials_are_where_podman_and_docker_keep_them() {
    let registry = guarded("registry-htpasswd");
    let (image, expected) = (image(&registry), World::built().1[0].digest.clone());
    let world = World::new(User::Root);
    let error = shown(&world, &[&image], &[]).unwrap_err();
    assert!(error.contains("401") && error.contains("UNAUTHORIZED"), "{error}");
    assert!(error.contains(&format!("podman login {}", registry.host())), "{error}");

    let file = world.path("auth.json");
    log_in(&registry.host(), &file);
    let option = ["--authfile", file.to_str().unwrap(), &image];
    assert_eq!(shown(&world, &option, &[]).unwrap(), expected);
    for variable in ["STRATA_AUTHFILE", "REGISTRY_AUTH_FILE"] {
        assert_eq!(shown(&world, &[&image], &[(variable, &file)]).unwrap(), expected, "{variable}");
    }
    let runtime = world.path("run");
    for (place, env) in [
        ("run/containers/auth.json", &[("XDG_RUNTIME_DIR", runtime.as_path())][..]),
        (".config/containers/auth.json", &[]),
        (".docker/config.json", &[]),
    ] {
        let usual = world.path(place);
        fs::create_dir_all(usual.parent().unwrap()).unwrap();
        symlink(&file, &usual).unwrap();
        assert_eq!(shown(&world, &[&image], env).unwrap(), expected, "{place}");
        fs::remove_file(&usual).unwrap();
        assert!(shown(&world, &[&image], env).is_err(), "{place}");
    }
    let error = shown(&world, &[&image], &[("REGISTRY_AUTH_FILE", &runtime.join("missing"))]).unwrap_err();
    assert!(error.contains("run/missing"), "a file that is named has to be there: {error}");
}

#[test]
fn a_wrong_password_is_told_by_its_file_alone() {
    let registry = guarded("registry-wrong");
    let world = World::new(User::Root);
    let file = world.path("auth.json");
    log_in(&registry.host(), &file);
    // the same, but for one repository a wrong one
    let mut auths: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let wrong = STANDARD.encode("kim:hunter2");
    auths["auths"][format!("{}/ns", registry.host())] = json!({"auth": wrong});
    fs::write(&file, auths.to_string()).unwrap();
    let output = world
        .command(&["-vv", "show", &image(&registry)])
        .env("STRATA_LOG", "trace")
        .env("STRATA_AUTHFILE", &file)
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success()
            && error.contains(&format!("it does not accept the credentials in {}", file.display())),
        "{error}"
    );
    assert!(!error.contains("hunter2") && !error.contains(&wrong), "{error}");
}

#[test]
fn a_pinned_parent_is_locked_and_built_on_with_a_password_that_is_kept_nowhere() {
    let registry = guarded("registry-pinned");
    let digest = &World::built().1[0].digest;
    let world = crate::pinned::on(&format!("docker://{}/ns/os@{digest}", registry.host()));
    let file = world.path("auth.json");
    log_in(&registry.host(), &file);
    let auth = file.to_str().unwrap();
    let error = world.refused(&["lock", "demo"], 1);
    assert!(error.contains("podman login"), "{error}");
    world.strata(&["--authfile", auth, "lock", "demo"]);
    world.strata(&["--authfile", auth, "build", "demo", "coreos"]);
    fs::remove_file(&file).unwrap();
    for secret in [PASSWORD, &STANDARD.encode(format!("kim:{PASSWORD}"))] {
        let grep = Command::new("grep").args(["-rlF", secret]).arg(world.path(".")).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&grep.stdout), "", "{secret}");
    }
}

#[test]
fn certificates_are_where_podman_and_docker_keep_them() {
    let mut registry = stocked("registry-tls");
    let pki_dir = scratch("registry-tls-pki").join("pki");
    pki(&pki_dir);
    let file = |name: &str| pki_dir.join(name).display().to_string();
    let tls = format!(
        "  tls: {{certificate: {}, key: {}, clientcas: [{}]}}",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    registry.guard("  none: {}", &tls);
    let (image, expected) = (image(&registry), World::built().1[0].digest.clone());
    let world = World::new(User::Root);
    let certificates = world.path(".config/containers/certs.d").join(registry.host());
    fs::create_dir_all(&certificates).unwrap();
    let error = shown(&world, &[&image], &[]).unwrap_err();
    assert!(error.contains("certificate"), "nobody vouches for it: {error}");

    let give = |name: &str, from: &str| fs::copy(pki_dir.join(from), certificates.join(name)).unwrap();
    give("ca.crt", "ca.pem");
    assert!(shown(&world, &[&image], &[]).is_err(), "it does not know us");
    give("client.cert", "client.pem");
    let error = shown(&world, &[&image], &[]).unwrap_err();
    assert!(error.contains("client.key") && error.contains("containers-certs.d"), "{error}");
    give("client.key", "client.key");
    assert_eq!(shown(&world, &[&image], &[]).unwrap(), expected);
    // skopeo has the same of the same files
    let dir = format!("--cert-dir={}", certificates.display());
    let digest = run(Command::new("skopeo").args(["inspect", &dir, "--format", "{{.Digest}}", &image]));
    assert_eq!(digest.trim(), expected);
}

#[test]
fn an_image_is_pushed_over_tls_by_who_has_the_password() {
    let (built, images) = World::built();
    let mut registry = Registry::new("registry-push");
    let dir = scratch("registry-push-pki");
    pki(&dir.join("pki"));
    let file = |name: &str| dir.join("pki").join(name).display().to_string();
    let htpasswd = dir.join("htpasswd");
    fs::write(&htpasswd, HTPASSWD).unwrap();
    registry.guard(
        &format!("  htpasswd: {{realm: test, path: {}}}", htpasswd.display()),
        &format!("  tls: {{certificate: {}, key: {}}}", file("server.pem"), file("server.key")),
    );
    let world = World::new(User::Root);
    let (auth, to) = (world.path("auth.json"), image(&registry));
    log_in(&registry.host(), &auth);
    let auth = auth.to_str().unwrap();
    let from = format!("oci:{}:{}", built.path("store/images").display(), images[2].reference);
    let push = ["push", &from, &to, "--attach", "pkglist"];
    let push_as_kim = [&push[..], &["--authfile", auth]].concat();
    let certificates = world.path(".config/containers/certs.d").join(registry.host());
    let error = world.refused(&push_as_kim, 1);
    let expected = format!("containers/certs.d/{}/ca.crt", registry.host());
    assert!(error.contains("asked in plain HTTP") && error.contains(&expected), "{error}");
    fs::create_dir_all(&certificates).unwrap();
    let error = world.refused(&push_as_kim, 1);
    assert!(error.contains("certificate"), "nobody vouches for it: {error}");

    fs::copy(file("ca.pem"), certificates.join("ca.crt")).unwrap();
    let error = world.refused(&push, 1);
    assert!(error.contains("401") && error.contains("podman login"), "{error}");
    registry.requests();
    world.strata(&push_as_kim);
    let refused = registry.requests().iter().filter(|request| request.ends_with(" 401")).count();
    // copies begin with several requests at once
    assert!((1..=4).contains(&refused), "the password is shown from then on: {refused}");

    let known = [format!("--cert-dir={}", certificates.display()), format!("--authfile={auth}")];
    let digest =
        run(Command::new("skopeo").arg("inspect").args(&known).args(["--format", "{{.Digest}}", &to]));
    assert_eq!(digest.trim(), images[2].digest);
    let out = format!("dir:{}", dir.join("pulled").display());
    run(Command::new("skopeo")
        .args(["copy", "--quiet", &format!("--src-{}", &known[0][2..]), &format!("--{}", &known[1][2..])])
        .args([&to, &out]));
}

/// A server that makes tokens for the repository in the request's scope, for those who have the password.
fn token_server(key: PathBuf, certificate: &Path) -> Server {
    let pem = fs::read_to_string(certificate).unwrap();
    let x5c: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    Server::of_requests(move |request| {
        let password = format!("Basic {}", STANDARD.encode(format!("kim:{PASSWORD}")));
        if request.header("authorization") != Some(&password) {
            return Reply::status(401);
        }
        let wanted = "/token?service=registry&scope=repository%3Ans%2Fos%3Apull";
        assert_eq!(request.path, wanted);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let access = json!([{"type": "repository", "name": "ns/os", "actions": ["pull"]}]);
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [x5c]});
        let claims = json!({"iss": "test", "sub": "kim", "aud": "registry", "exp": now + 60, "nbf": now - 60,
            "iat": now, "jti": "1", "access": access});
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let text = key.with_file_name("signed");
        fs::write(&text, &signed).unwrap();
        let signature =
            Command::new("openssl").args(["dgst", "-sha256", "-sign"]).arg(&key).arg(&text).output().unwrap();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.stdout));
        Reply::ok(json!({"token": token}).to_string().into_bytes())
    })
}

#[test]
fn tokens_are_had_from_the_server_that_the_registry_names() {
    let mut registry = stocked("registry-token");
    let dir = scratch("registry-token-key");
    let (key, certificate) = (dir.join("token.key"), dir.join("token.pem"));
    run(Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=tokens",
            "-keyout",
        ])
        .arg(&key)
        .arg("-out")
        .arg(&certificate));
    let server = token_server(key, &certificate);
    registry.guard(
        &format!(
            "  token: {{realm: {}/token, service: registry, issuer: test, rootcertbundle: {}}}",
            server.url,
            certificate.display()
        ),
        "",
    );
    let world = World::new(User::Root);
    let error = shown(&world, &[&image(&registry)], &[]).unwrap_err();
    assert!(
        error.contains(&format!("asking {} for a token", server.url)) && error.contains("podman login"),
        "{error}"
    );
    let file = world.path("auth.json");
    let auth = json!({"auth": STANDARD.encode(format!("kim:{PASSWORD}"))});
    fs::write(&file, json!({"auths": {registry.host(): auth}}).to_string()).unwrap();
    let before = server.requests.lock().unwrap().len();
    let env = [("REGISTRY_AUTH_FILE", file.as_path())];
    assert_eq!(shown(&world, &[&image(&registry)], &env).unwrap(), World::built().1[0].digest);
    assert_eq!(server.requests.lock().unwrap().len(), before + 1, "one token does for all");
}

/// A server that answers as a registry of the demo's bootc image would, unless `lie` has something else to say.
fn lying(lie: impl Fn(&Request, &[u8]) -> Option<Reply> + Send + Sync + 'static) -> (Server, &'static Image) {
    let (built, images) = World::built();
    let blobs = built.path("store/images/blobs/sha256");
    let server = Server::of_requests(move |request| {
        let (_, hex) = request.path.rsplit_once("sha256:").unwrap();
        let bytes = fs::read(blobs.join(hex)).unwrap();
        lie(request, &bytes).unwrap_or_else(|| Reply::ok(bytes))
    });
    (server, &images[0])
}

/// What strata says of the packages of an image there.
fn packages(server: &Server, image: &Image) -> Result<(World, String), (World, String)> {
    let world = World::new(User::Root);
    let name = format!("docker://{}/ns/os@{}", server.url.strip_prefix("http://").unwrap(), image.digest);
    let output = world.command(&["show", "--packages", &name]).output().unwrap();
    match output.status.success() {
        true => Ok((world, String::from_utf8(output.stdout).unwrap())),
        false => Err((world, String::from_utf8(output.stderr).unwrap())),
    }
}

#[test]
fn no_more_is_read_than_was_promised() {
    let endless = || Reply { headers: "x-endless: 1\r\n".into(), ..Reply::ok(vec![b' '; 64 << 10]) };
    // each would go on for ever
    let (server, image) = lying(move |request, _| request.path.contains("/manifests/").then(endless));
    let (_, error) = packages(&server, image).err().unwrap();
    assert!(error.contains("the registry sends more than the 4194304 bytes expected"), "{error}");
    let (server, image) = lying(move |request, _| request.path.contains("/blobs/").then(endless));
    let (world, error) = packages(&server, image).err().unwrap();
    assert!(error.contains("the registry sends more than the"), "{error}");
    let kept = fs::read_dir(world.path("store/images/blobs/sha256")).unwrap().count();
    assert_eq!(kept, 1, "the manifest");
    let refused = move |_: &Request, _: &[u8]| Some(Reply { status: 404, ..endless() });
    let (server, image) = lying(refused);
    let (_, error) = packages(&server, image).err().unwrap();
    assert!(error.contains("404"), "{error}");
}

#[test]
fn a_blob_that_breaks_off_is_continued() {
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = ranges.clone();
    let (server, image) = lying(move |request, bytes| {
        let is_blob = request.path.contains("/blobs/");
        let range = request.header("range").map(str::to_owned);
        seen.lock().unwrap().extend(range.iter().cloned());
        match range.map(|range| range["bytes=".len()..].trim_end_matches('-').parse::<usize>().unwrap()) {
            Some(from) => Some(Reply { status: 206, ..Reply::ok(bytes[from..].to_vec()) }),
            None => is_blob.then(|| Reply { cut: Some(bytes.len() / 2), ..Reply::ok(bytes.to_vec()) }),
        }
    });
    let listed = |server: &Server| {
        let (_, text) = packages(server, image).unwrap_or_else(|(_, error)| panic!("{error}"));
        // but for the name of the server
        text.split_once('\n').unwrap().1.to_owned()
    };
    assert_eq!(listed(&server), listed(&lying(|_, _| None).0));
    let ranges = ranges.lock().unwrap();
    assert!(ranges.len() > 1 && ranges.iter().all(|range| range != "bytes=0-"), "{ranges:?}");
}

#[test]
fn a_password_stays_with_the_registry_when_blobs_are_elsewhere() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let got = seen.clone();
    let (elsewhere, image) = lying(move |request, _| {
        got.lock().unwrap().push(request.header("authorization").map(str::to_owned));
        None
    });
    let to = elsewhere.url.clone();
    let (server, _) = lying(move |request, _| match request.header("authorization") {
        None => {
            Some(Reply { headers: "www-authenticate: Basic realm=\"x\"\r\n".into(), ..Reply::status(401) })
        }
        Some(_) => request
            .path
            .contains("/blobs/")
            .then(|| Reply { headers: format!("location: {to}{}\r\n", request.path), ..Reply::status(307) }),
    });
    let world = World::new(User::Root);
    let host = server.url.strip_prefix("http://").unwrap();
    let file = world.path("auth.json");
    let auth = json!({"auth": STANDARD.encode(format!("kim:{PASSWORD}"))});
    fs::write(&file, json!({"auths": {host: auth}}).to_string()).unwrap();
    let name = format!("docker://{host}/ns/os@{}", image.digest);
    world.strata(&["--authfile", file.to_str().unwrap(), "show", "--packages", &name]);
    let seen = seen.lock().unwrap();
    assert!(!seen.is_empty() && seen.iter().all(Option::is_none), "{seen:?}");
}
