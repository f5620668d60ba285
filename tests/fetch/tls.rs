//! Certificates, against `openssl s_server`: the way RHEL's CDN knows its customers.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::fixture::Fixture;
use crate::pki::pki;

/// A web server with a certificate; it ends when dropped.
pub struct Server {
    child: Child,
    pub url: String,
    log: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Serves `dir` with the certificates in `pki`, and further options.
    pub fn start(dir: &Path, pki: &Path, options: &[&str]) -> Self {
        let file = |name: &str| pki.join(name).display().to_string();
        let log = tempfile::NamedTempFile::new_in(pki).unwrap().into_temp_path().keep().unwrap();
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-verify_return_error"])
            .args(options)
            .args(["-cert", &file("server.pem"), "-key", &file("server.key"), "-CAfile", &file("ca.pem")])
            .current_dir(dir)
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let port = lines.find_map(|line| line.strip_prefix("ACCEPT 127.0.0.1:").map(str::to_owned)).unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: format!("https://127.0.0.1:{port}"), log }
    }

    /// How often a client showed its certificate.
    fn shown(&self) -> usize {
        fs::read_to_string(&self.log).unwrap().lines().filter(|line| line.contains("CN = client")).count()
    }
}

#[test]
fn servers_and_clients_prove_who_they_are() {
    let mut fixture = Fixture::with_thing();
    let pki_dir = fixture.path("pki");
    pki(&pki_dir);
    let server = Server::start(&fixture.path("repo"), &pki_dir, &["-WWW", "-Verify", "1"]);
    fixture.repo.baseurl = vec![server.url.clone()];
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

#[test]
fn a_certificate_stays_behind_where_a_redirect_leads_to_another_server() {
    let mut fixture = Fixture::with_thing();
    let pki_dir = fixture.path("pki");
    pki(&pki_dir);
    // both ask for a certificate, and take none for an answer
    let elsewhere = Server::start(&fixture.path("repo"), &pki_dir, &["-WWW", "-verify", "1"]);
    // answers are files: to every path of the repository, that it is elsewhere
    let answers = fixture.path("answers");
    for file in walk(&fixture.path("repo")) {
        let path = file.strip_prefix(fixture.path("repo")).unwrap().to_str().unwrap().to_owned();
        let answer = answers.join(&path);
        fs::create_dir_all(answer.parent().unwrap()).unwrap();
        fs::write(answer, format!("HTTP/1.0 302 x\r\nLocation: {}/{path}\r\n\r\n", elsewhere.url)).unwrap();
    }
    let server = Server::start(&answers, &pki_dir, &["-HTTP", "-verify", "1"]);
    fixture.repo.baseurl = vec![server.url.clone()];
    fixture.repo.sslcacert = Some(pki_dir.join("ca.pem"));
    fixture.repo.sslclientcert = Some(pki_dir.join("client.pem"));
    fixture.repo.sslclientkey = Some(pki_dir.join("client.key"));
    let locked = fixture.locked();
    fixture.fetch(&locked).unwrap();
    assert!(server.shown() > 0);
    assert_eq!(elsewhere.shown(), 0);
    // the same server, asked for itself, is shown it
    fixture.repo.baseurl = vec![elsewhere.url.clone()];
    fixture.metadata().unwrap();
    assert!(elsewhere.shown() > 0);
}

/// All files below a directory.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(walk(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files
}
