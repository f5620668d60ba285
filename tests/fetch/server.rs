//! A web server that misbehaves on demand.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server says to a request.
pub struct Reply {
    pub status: u16,
    /// Header lines, each with its line end.
    pub headers: String,
    pub body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub cut: Option<usize>,
}

impl Reply {
    pub fn ok(body: Vec<u8>) -> Self {
        Self { status: 200, headers: String::new(), body, cut: None }
    }

    pub fn status(status: u16) -> Self {
        Self { status, headers: String::new(), body: b"no".to_vec(), cut: None }
    }
}

/// A running server; it ends with the test process.
pub struct Server {
    pub url: String,
    /// Paths asked for, in order.
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answer` gets the path and how often it has been asked for before.
    pub fn start(answer: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), requests.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, seen) = (answer.clone(), seen.clone());
                thread::spawn(move || {
                    let _ = serve(stream, &seen, &*answer);
                });
            }
        });
        Self { url, requests }
    }

    /// Serves a directory.
    pub fn of(dir: std::path::PathBuf) -> Self {
        Self::start(move |path, _| file(&dir, path))
    }

    pub fn count(&self, suffix: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|path| path.ends_with(suffix)).count()
    }
}

/// The file of a directory that a path names.
pub fn file(dir: &std::path::Path, path: &str) -> Reply {
    match std::fs::read(dir.join(path.trim_start_matches('/'))) {
        Ok(bytes) => Reply::ok(bytes),
        Err(_) => Reply::status(404),
    }
}

fn serve(
    stream: TcpStream,
    seen: &Mutex<Vec<String>>,
    answer: &(dyn Fn(&str, usize) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    while reader.read_line(&mut line)? > 2 {}
    let before = {
        let mut seen = seen.lock().unwrap();
        seen.push(path.clone());
        seen.iter().filter(|p| **p == path).count() - 1
    };
    let reply = answer(&path, before);
    let mut out = stream;
    let head = format!(
        "HTTP/1.1 {} x\r\ncontent-length: {}\r\nconnection: close\r\n{}\r\n",
        reply.status,
        reply.body.len(),
        reply.headers
    );
    out.write_all(head.as_bytes())?;
    out.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])
}
