//! A registry on loopback: distribution's own, in plain HTTP until it is guarded.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::world::{run, scratch};

/// A running registry; ends with its value.
pub struct Registry {
    port: u16,
    dir: PathBuf,
    server: Option<Child>,
}

impl Registry {
    /// An empty registry that keeps its data in a scratch directory of this name.
    pub fn new(name: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = scratch(name);
        let mut registry = Self { port, dir, server: None };
        registry.start("", "");
        registry
    }

    /// Starts it again with these lines of YAML below `auth:` and `http:`.
    pub fn guard(&mut self, auth: &str, http: &str) {
        self.stop();
        self.start(&format!("auth:\n{auth}"), http);
    }

    fn start(&mut self, auth: &str, http: &str) {
        let yaml = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: false}}}}\nstorage:\n  filesystem: \
             {{rootdirectory: {}}}\nhttp:\n  addr: 127.0.0.1:{}\n{http}\n{auth}\n",
            self.data().display(),
            self.port
        );
        fs::write(self.dir.join("config.yml"), yaml).unwrap();
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(self.dir.join("config.yml"))
            .stdout(fs::File::options().create(true).append(true).open(self.log()).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(server);
        let up = || TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        assert!(
            (0..100).any(|_| up() || {
                std::thread::sleep(Duration::from_millis(100));
                false
            }),
            "the registry does not come up"
        );
    }

    /// Where it writes a line for each request.
    fn log(&self) -> PathBuf {
        self.dir.join("access.log")
    }

    /// Its storage.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// `HOST:PORT`
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Copies an image there, as skopeo names both.
    pub fn push(&self, image: &str, name: &str) -> String {
        let remote = format!("docker://{}/{name}", self.host());
        run(Command::new("skopeo").args(["copy", "--quiet", "--dest-tls-verify=false", image, &remote]));
        remote
    }

    /// The digests of the blobs it was asked for since the last time, manifests aside.
    pub fn blobs_read(&self) -> Vec<String> {
        let digest = |request: &str| Some(request.strip_prefix("GET ")?.split_once("/blobs/")?.1.to_owned());
        let requests = self.requests();
        let digests = requests.iter().filter_map(|request| digest(request));
        digests.map(|rest| rest.split(' ').next().unwrap().to_owned()).collect()
    }

    /// What it was asked for since the last time, and what it said: `HEAD /v2/NAME/blobs/DIGEST 404`.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.log()).unwrap();
        fs::write(self.log(), "").unwrap();
        let request = |line: &str| {
            let (request, rest) = line.split_once("] \"")?.1.split_once(" HTTP/")?;
            Some(format!("{request} {}", rest.split(' ').nth(1)?))
        };
        log.lines().filter_map(request).collect()
    }

    /// Ends the server; its data stay.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}
