//! Proxies, and who one is to them: as the URL of the proxy may not say it, `proxy_username` and `proxy_password` do.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use strata::plan::Secret;

use crate::fixture::Fixture;
use crate::pki::pki;
use crate::secrets::{BASIC, PASSWORD, clean, silent};
use crate::server::{Reply, Server, file};
use crate::tls;

/// A proxy for HTTP that lets in who has the password, and has the files of every host in one directory.
fn guarded(dir: std::path::PathBuf) -> Server {
    Server::of_requests(move |request| {
        // nothing else may be told who we are
        assert_eq!(request.header("authorization"), None);
        match (request.header("proxy-authorization"), request.path.strip_prefix("http://repo.invalid/")) {
            (Some(BASIC), Some(path)) => file(&dir, path),
            _ => Reply { headers: "proxy-authenticate: Basic realm=x\r\n".into(), ..Reply::status(407) },
        }
    })
}

#[test]
fn a_proxy_is_told_who_we_are() {
    let mut fixture = Fixture::with_thing();
    let proxy = guarded(fixture.path("repo"));
    fixture.repo.baseurl = vec!["http://repo.invalid".to_owned()];
    fixture.repo.proxy = Some(proxy.url.clone());
    let error = format!("{:#}", fixture.metadata().unwrap_err());
    assert!(error.contains("407"), "{error}");
    let password = fixture.path("password");
    fs::write(&password, format!("user:{PASSWORD}\n")).unwrap();
    fixture.repo.proxy_auth = Some(Secret::File(password.clone()));
    let locked = fixture.locked();
    fixture.fetch(&locked).unwrap();
    fs::write(&password, PASSWORD).unwrap();
    let error = format!("{:#}", fixture.metadata().unwrap_err());
    assert!(error.contains("USER:PASSWORD") && !error.contains(PASSWORD), "{error}");
}

/// A proxy that makes tunnels (RFC 9110, 9.3.6) to hosts by this name: all of them are `to`. Gives its URL and the heads
/// of the requests.
fn tunnels(to: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (to, seen) = (to.clone(), seen.clone());
            thread::spawn(move || tunnel(stream, &to, &seen));
        }
    });
    (url, heads)
}

fn tunnel(mut client: TcpStream, to: &str, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while reader.read_line(&mut head)? > 2 {}
    seen.lock().unwrap().push(head);
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let server = TcpStream::connect(to)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || io::copy(&mut from_server, &mut to_client));
    io::copy(&mut reader, &mut &server).map(drop)
}

#[test]
fn tls_goes_through_a_tunnel() {
    let mut fixture = Fixture::with_thing();
    let pki_dir = fixture.path("pki");
    pki(&pki_dir);
    let server = tls::Server::start(&fixture.path("repo"), &pki_dir, &["-WWW"]);
    let (url, heads) = tunnels(server.url.strip_prefix("https://").unwrap().to_owned());
    let password = fixture.path("password");
    fs::write(&password, format!("user:{PASSWORD}")).unwrap();
    // the certificate is for this address, the port is nobody's
    fixture.repo.baseurl = vec!["https://127.0.0.1:1".to_owned()];
    fixture.repo.sslcacert = Some(pki_dir.join("ca.pem"));
    fixture.repo.proxy = Some(url);
    fixture.repo.proxy_auth = Some(Secret::File(password));
    assert_eq!(fixture.metadata().unwrap().packages.len(), 1);
    let heads = heads.lock().unwrap();
    let expected = format!("proxy-authorization: {}", BASIC.to_lowercase());
    for head in &*heads {
        assert!(
            head.starts_with("CONNECT 127.0.0.1:1 ") && head.to_lowercase().contains(&expected),
            "{head}"
        );
    }
    assert!(!heads.is_empty());
}

#[test]
fn no_file_and_no_message_has_the_password_of_a_repo_file() {
    let fixture = Fixture::with_thing();
    let proxy = guarded(fixture.path("repo"));
    let manifests = fixture.path("manifests");
    fs::create_dir_all(manifests.join("s")).unwrap();
    fs::write(
        manifests.join("s/stream.toml"),
        "arches = ['x86_64']\nlayers = ['base']\nrepo-files = ['x.repo']\n[os]\nid = 'rhel'\nname = 'RHEL'\n\
         version = '9.6'\n",
    )
    .unwrap();
    fs::write(manifests.join("s/base.toml"), "[packages]\ninstall = ['thing']\n").unwrap();
    let strata = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_strata"))
            .args(["-vv", "--manifests", manifests.to_str().unwrap()])
            .args(["--store", fixture.path("cli-store").to_str().unwrap()])
            .args(["--lockfiles", fixture.path("cli-locks").to_str().unwrap()])
            .args(args)
            .env("STRATA_LOG", "trace")
            .output()
            .unwrap();
        silent(&output.stdout, "standard output");
        silent(&output.stderr, "standard error");
        String::from_utf8(output.stderr).unwrap()
    };
    let repo = |password: &str| {
        let text = format!(
            "[guarded]\nbaseurl=http://repo.invalid\ngpgcheck=0\nskip_if_unavailable=1\nproxy={}\n\
             proxy_username=user\nproxy_password={password}\n",
            proxy.url
        );
        fs::write(manifests.join("s/x.repo"), text).unwrap();
    };
    repo(&format!("{PASSWORD}x"));
    let error = strata(&["lock", "s"]);
    assert!(error.contains("407") && error.contains("`skip_if_unavailable` is not heeded"), "{error}");
    repo(PASSWORD);
    // the metadata came, but nothing provides what `thing` requires
    assert!(strata(&["lock", "s"]).contains("nothing provides"));
    strata(&["--format", "json", "compile", "s"]);
    clean(&fixture.path("cli-store"));
    assert!(fixture.path("cli-store/seen").read_dir().unwrap().next().is_some());
}
