//! Credentials reach the servers that the stream names, and nothing else: no other server, no file, no message.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use strata::plan::Secret;

use crate::fixture::Fixture;
use crate::server::{Reply, Request, Server, file};

pub const PASSWORD: &str = "swordfish-4711";
const TOKEN: &str = "token-0815";
/// `user:swordfish-4711`
pub const BASIC: &str = "Basic dXNlcjpzd29yZGZpc2gtNDcxMQ==";

/// A server of `dir` that lets in who has both secrets, and what it was asked by whom.
fn guarded(dir: std::path::PathBuf) -> Server {
    Server::of_requests(move |request| {
        let knows =
            request.header("authorization") == Some(BASIC) && request.header("x-token") == Some(TOKEN);
        if knows { file(&dir, &request.path) } else { Reply::status(401) }
    })
}

fn with_secrets(server: &Server, mut fixture: Fixture) -> Fixture {
    let (password, token) = (fixture.path("password"), fixture.path("token"));
    fs::write(&password, format!("user:{PASSWORD}\n")).unwrap();
    fs::write(&token, TOKEN).unwrap();
    fixture.repo.baseurl = vec![server.url.clone()];
    fixture.repo.auth = Some(Secret::File(password));
    fixture.repo.headers = [("x-token".to_owned(), Secret::File(token))].into();
    fixture
}

#[test]
fn servers_of_the_stream_get_them() {
    let fixture = Fixture::with_thing();
    let server = guarded(fixture.path("repo"));
    let mut fixture = with_secrets(&server, fixture);
    assert_eq!(fixture.metadata().unwrap().packages.len(), 1);
    fixture.repo.auth = None;
    assert!(format!("{:#}", fixture.metadata().unwrap_err()).contains("401"));
    fixture.repo.auth = Some(Secret::Env("STRATA_TEST_NO_SUCH_VARIABLE".into()));
    let error = format!("{:#}", fixture.metadata().unwrap_err());
    assert!(
        error.contains("from the environment variable STRATA_TEST_NO_SUCH_VARIABLE: the variable is not set"),
        "{error}"
    );
    fs::write(fixture.path("password"), format!("{PASSWORD}\n")).unwrap();
    fixture.repo.auth = Some(Secret::File(fixture.path("password")));
    let error = format!("{:#}", fixture.metadata().unwrap_err());
    assert!(error.contains("USER:PASSWORD") && !error.contains(PASSWORD), "{error}");
}

#[test]
fn other_servers_do_not() {
    let fixture = Fixture::with_thing();
    let dir = fixture.path("repo");
    let got = Arc::new(Mutex::new(Vec::new()));
    let seen = got.clone();
    // the same machine, another port: another server
    let elsewhere = Server::of_requests(move |request: &Request| {
        let secrets = ["authorization", "x-token"].map(|name| request.header(name).map(str::to_owned));
        seen.lock().unwrap().push(secrets);
        file(&dir, &request.path)
    });
    let to = elsewhere.url.clone();
    let server = Server::start(move |path, _| Reply {
        headers: format!("location: {to}{path}\r\n"),
        ..Reply::status(302)
    });
    let mut fixture = with_secrets(&server, fixture);
    assert_eq!(fixture.metadata().unwrap().packages.len(), 1);
    // the mirrors of a list are not named by the stream either
    let list = fixture.path("mirrorlist");
    fs::write(&list, &elsewhere.url).unwrap();
    fixture.repo.baseurl.clear();
    fixture.repo.mirrorlist = Some(format!("file://{}", list.display()));
    fs::remove_dir_all(fixture.path("store")).unwrap();
    assert_eq!(fixture.metadata().unwrap().packages.len(), 1);
    let got = got.lock().unwrap();
    assert_eq!(got.len(), 4);
    assert!(got.iter().all(|secrets| *secrets == [None, None]), "{got:?}");
}

/// Asserts that no file below `dir` has a secret in it.
pub fn clean(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => clean(&entry.path()),
            false => silent(&fs::read(entry.path()).unwrap(), &entry.path().display().to_string()),
        }
    }
}

/// Asserts that there is no secret in some output.
pub fn silent(bytes: &[u8], what: &str) {
    for secret in [PASSWORD, TOKEN, &BASIC[6..]] {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{what} has {secret}:\n{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn no_file_and_no_message_has_them() {
    let fixture = Fixture::with_thing();
    let server = guarded(fixture.path("repo"));
    let manifests = fixture.path("manifests");
    fs::create_dir_all(manifests.join("s")).unwrap();
    let stream = |password: &str| {
        format!(
            "arches = ['x86_64']\nlayers = ['base']\n[os]\nid = 'rhel'\nname = 'RHEL'\nversion = '9.6'\n\
             [repos.guarded]\nbaseurl = '{}'\ngpgcheck = false\nauth = {{ env = '{password}' }}\n\
             headers = {{ X-Token = {{ env = 'TEST_TOKEN' }} }}\n",
            server.url
        )
    };
    fs::write(manifests.join("s/base.toml"), "[packages]\ninstall = ['thing']\n").unwrap();
    let strata = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_strata"))
            .args(["-vv", "--manifests", manifests.to_str().unwrap()])
            .args(["--store", fixture.path("cli-store").to_str().unwrap()])
            .args(["--lockfiles", fixture.path("cli-locks").to_str().unwrap()])
            .args(args)
            .env("STRATA_LOG", "trace")
            .env("TEST_PASSWORD", format!("user:{PASSWORD}"))
            .env("TEST_WRONG", format!("user:{PASSWORD}x"))
            .env("TEST_TOKEN", TOKEN)
            .output()
            .unwrap();
        silent(&output.stdout, "standard output");
        silent(&output.stderr, "standard error");
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    fs::write(manifests.join("s/stream.toml"), stream("TEST_WRONG")).unwrap();
    let (fine, error) = strata(&["lock", "s"]);
    assert!(!fine && error.contains("401"), "{error}");
    fs::write(manifests.join("s/stream.toml"), stream("TEST_PASSWORD")).unwrap();
    let (_, error) = strata(&["lock", "s"]);
    // the metadata came, but nothing provides what `thing` requires
    assert!(error.contains("nothing provides"), "{error}");
    strata(&["--format", "json", "compile", "s"]);
    clean(&fixture.path("cli-store"));
    assert!(fixture.path("cli-store/seen").read_dir().unwrap().next().is_some());
}
