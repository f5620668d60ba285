//! Certificates, against `openssl s_server`: the way RHEL's CDN knows its customers.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::fixture::{Fixture, run};

/// A web server that asks for a certificate; it ends when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Serves `dir` with the certificates in `pki`.
    fn start(dir: &Path, pki: &Path) -> (Self, String) {
        let file = |name: &str| pki.join(name).display().to_string();
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-WWW", "-Verify", "1", "-verify_return_error"])
            .args(["-cert", &file("server.pem"), "-key", &file("server.key"), "-CAfile", &file("ca.pem")])
            .current_dir(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let port = lines.find_map(|line| line.strip_prefix("ACCEPT 127.0.0.1:").map(str::to_owned)).unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        (Self(child), format!("https://127.0.0.1:{port}"))
    }
}

/// Makes a CA, and certificates of it for a server and a client.
fn pki(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let file = |name: &str| dir.join(name).display().to_string();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let ca = ["req", "-x509", "-subj", "/CN=ca", "-keyout", &file("ca.key"), "-out", &file("ca.pem")];
    run("openssl", &[&ca[..], &key].concat());
    for (name, extension) in
        [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")]
    {
        let (secret, public, subject) =
            (file(&format!("{name}.key")), file(&format!("{name}.pem")), format!("/CN={name}"));
        let request = ["req", "-x509", "-CA", &file("ca.pem"), "-CAkey", &file("ca.key"), "-subj", &subject];
        let usage = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", extension];
        run("openssl", &[&request[..], &usage, &["-keyout", &secret, "-out", &public], &key].concat());
    }
}

#[test]
fn servers_and_clients_prove_who_they_are() {
    let mut fixture = Fixture::with_thing();
    let pki_dir = fixture.path("pki");
    pki(&pki_dir);
    let (_server, url) = Server::start(&fixture.path("repo"), &pki_dir);
    fixture.repo.baseurl = vec![url];
    let refused = |fixture: &Fixture| format!("{:#}", fixture.metadata().unwrap_err());

    fixture.repo.sslclientcert = Some(pki_dir.join("client.pem"));
    fixture.repo.sslclientkey = Some(pki_dir.join("client.key"));
    assert!(refused(&fixture).contains("certificate"), "{}", refused(&fixture));
    fixture.repo.sslcacert = Some(pki_dir.join("ca.pem"));
    let locked = fixture.locked();
    fixture.fetch(&locked).unwrap();

    fixture.repo.sslcacert = None;
    fixture.repo.sslverify = false;
    fixture.metadata().unwrap();
    fixture.repo.sslclientkey = Some(pki_dir.join("missing.key"));
    assert!(refused(&fixture).contains("missing.key"));
}
