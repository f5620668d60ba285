//! A web server that misbehaves on demand.

// not every program of tests uses all of it
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
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

/// What is asked of the server.
pub struct Request {
    pub method: String,
    pub path: String,
    /// How often it has been asked for before.
    pub before: usize,
    /// Header lines.
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let pairs = self.headers.iter().filter_map(|line| line.split_once(": "));
        pairs.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
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
        Self::of_requests(move |request| answer(&request.path, request.before))
    }

    /// A server whose answers depend on headers.
    pub fn of_requests(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
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
    answer: &(dyn Fn(&Request) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        headers.push(line.trim_end().to_owned());
    }
    let before = {
        let mut seen = seen.lock().unwrap();
        seen.push(path.clone());
        seen.iter().filter(|p| **p == path).count() - 1
    };
    let mut request = Request { method, path, before, headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_end(&mut request.body)?;
    let is_head = request.method == "HEAD";
    let reply = answer(&request);
    let mut out = stream;
    let is_endless = reply.headers.contains("x-endless");
    let length = match is_endless {
        true => String::new(),
        false => format!("content-length: {}\r\n", reply.body.len()),
    };
    let head = format!("HTTP/1.1 {} x\r\n{length}connection: close\r\n{}\r\n", reply.status, reply.headers);
    out.write_all(head.as_bytes())?;
    if is_head {
        return Ok(());
    }
    if is_endless {
        loop {
            out.write_all(&reply.body)?;
        }
    }
    if reply.headers.contains("x-trickle") {
        for byte in &reply.body {
            out.write_all(&[*byte])?;
            thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    out.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])
}
