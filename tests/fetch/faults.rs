//! Servers that fail: a clean retry or a clear error, and never other bytes than the right ones.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use strata::fetch::{Fetcher, Options};
use strata::progress::Silent;
use strata::repo::RepoMetadata;
use strata::store::Store;

use crate::fixture::{Fixture, KEY, package, run, signed};
use crate::server::{Reply, Request, Server, file};

const PRIMARY: &str = "primary.xml.gz";

/// A fixture whose repository is at `server`.
fn at(server: &Server, mut fixture: Fixture) -> Fixture {
    fixture.repo.baseurl = vec![server.url.clone()];
    fixture
}

fn refusal(fixture: &Fixture) -> String {
    format!("{:#}", fixture.metadata().unwrap_err())
}

/// A store like the fixture's in which servers are given up after a second.
fn impatient(fixture: &Fixture) -> Fetcher {
    let store = Store::open(&fixture.path("store")).unwrap();
    Fetcher::new(&store, Options { patience: Duration::from_secs(1), ..Options::default() })
}

/// Publishes a second package in the repository, at a later time, as createrepo_c does: old files are gone.
fn publish_again(fixture: &Fixture, revision: &str) {
    let repo = fixture.path("repo");
    fs::write(repo.join("second.rpm"), signed(&mut package("second"), &KEY)).unwrap();
    run(
        "createrepo_c",
        &["-q", "--general-compress-type=gz", "--revision", revision, repo.to_str().unwrap()],
    );
}

fn names(metadata: &RepoMetadata) -> Vec<&str> {
    metadata.packages.iter().map(|package| package.nevra.name.as_str()).collect()
}

#[test]
fn transient_answers_are_asked_for_again() {
    for status in [429, 500, 502, 503, 504, 408] {
        let fixture = Fixture::with_thing();
        let dir = fixture.path("repo");
        let server = Server::start(
            move |path, before| if before == 0 { Reply::status(status) } else { file(&dir, path) },
        );
        let fixture = at(&server, fixture);
        assert_eq!(names(&fixture.metadata().unwrap()), ["thing"], "{status}");
        assert_eq!((server.count("repomd.xml"), server.count(PRIMARY)), (2, 2), "{status}");
    }
}

#[test]
fn a_server_is_left_alone_for_as_long_as_it_asks() {
    let fixture = Fixture::with_thing();
    let dir = fixture.path("repo");
    let server = Server::start(move |path, before| match before {
        0 => Reply { headers: "retry-after: 2\r\n".into(), ..Reply::status(429) },
        _ => file(&dir, path),
    });
    let fixture = at(&server, fixture);
    let began = Instant::now();
    fixture.metadata().unwrap();
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());

    let server =
        Server::start(|_, _| Reply { headers: "retry-after: 86400\r\n".into(), ..Reply::status(429) });
    let fixture = at(&server, fixture);
    let error = refusal(&fixture);
    assert!(error.contains("429"), "{error}");
    assert_eq!(server.count("repomd.xml"), 1);
}

#[test]
fn what_is_not_there_is_an_error_at_once() {
    for status in [401, 403, 404, 410] {
        let server = Server::start(move |_, _| Reply::status(status));
        let fixture = at(&server, Fixture::with_thing());
        let error = refusal(&fixture);
        assert!(error.contains(&status.to_string()) && error.contains("repomd.xml"), "{error}");
        assert_eq!(server.count("repomd.xml"), 1);
    }
}

#[test]
fn a_body_that_breaks_off_is_continued() {
    let fixture = Fixture::with_thing();
    let dir = fixture.path("repo");
    let parts = Arc::new(Mutex::new(Vec::new()));
    let seen = parts.clone();
    let server = Server::of_requests(move |request: &Request| {
        let whole = file(&dir, &request.path);
        let Some(range) = request.header("range") else {
            let cut = request.path.ends_with(PRIMARY).then_some(100);
            return Reply { headers: "etag: \"1\"\r\n".into(), cut, ..whole };
        };
        seen.lock().unwrap().push((range.to_owned(), request.header("if-range").unwrap().to_owned()));
        let start: usize = range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
        let headers =
            format!("content-range: bytes {start}-{}/{}\r\n", whole.body.len() - 1, whole.body.len());
        Reply { status: 206, headers, body: whole.body[start..].to_vec(), cut: None }
    });
    let fixture = at(&server, fixture);
    assert_eq!(names(&fixture.metadata().unwrap()), ["thing"]);
    assert_eq!(*parts.lock().unwrap(), [("bytes=100-".to_owned(), "\"1\"".to_owned())]);
}

#[test]
fn a_body_of_something_else_is_begun_again() {
    let fixture = Fixture::with_thing();
    let dir = fixture.path("repo");
    // the file has changed, so the server sends all of it: status 200
    let server = Server::of_requests(move |request: &Request| {
        let whole = file(&dir, &request.path);
        let cut = (request.path.ends_with(PRIMARY) && request.before == 0).then_some(100);
        Reply { headers: format!("etag: \"{}\"\r\n", request.before), cut, ..whole }
    });
    let fixture = at(&server, fixture);
    assert_eq!(names(&fixture.metadata().unwrap()), ["thing"]);

    // a server that answers with another part than asked for must not be believed
    let fixture = Fixture::with_thing();
    let dir = fixture.path("repo");
    let server = Server::of_requests(move |request: &Request| {
        let whole = file(&dir, &request.path);
        if request.header("range").is_some() {
            let headers = "content-range: bytes 0-9/1000\r\n".into();
            return Reply { status: 206, headers, ..whole };
        }
        let cut = (request.path.ends_with(PRIMARY) && request.before == 0).then_some(100);
        Reply { headers: "etag: \"1\"\r\n".into(), cut, ..whole }
    });
    let fixture = at(&server, fixture);
    assert_eq!(names(&fixture.metadata().unwrap()), ["thing"]);
}

#[test]
fn a_trickle_and_silence_are_given_up() {
    let fixture = Fixture::with_thing();
    let dir = fixture.path("repo");
    let server = Server::start(move |path, _| match path.ends_with(PRIMARY) {
        true => Reply { headers: "x-trickle: 1\r\n".into(), ..file(&dir, path) },
        false => file(&dir, path),
    });
    let fixture = at(&server, fixture);
    let error = impatient(&fixture).metadata(&fixture.repo, &Silent).unwrap_err();
    assert!(format!("{error:#}").contains("the server sent only"), "{error:#}");
}

#[test]
fn a_repository_published_anew_between_two_requests_is_read_anew() {
    let fixture = Fixture::with_thing();
    let repomd = fs::read(fixture.path("repo/repodata/repomd.xml")).unwrap();
    // the first repomd.xml is the old one; what it lists is gone
    publish_again(&fixture, "1739145700");
    let primaries = fs::read_dir(fixture.path("repo/repodata")).unwrap();
    let old = String::from_utf8(repomd.clone()).unwrap();
    for entry in primaries.map(Result::unwrap) {
        if old.contains(entry.file_name().to_str().unwrap()) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let dir = fixture.path("repo");
    let server = Server::start(move |path, before| match path.ends_with("repomd.xml") && before == 0 {
        true => Reply::ok(repomd.clone()),
        false => file(&dir, path),
    });
    let fixture = at(&server, fixture);
    let metadata = fixture.metadata().unwrap();
    assert_eq!((names(&metadata).len(), metadata.revision), (2, 1_739_145_700));
    assert_eq!(server.count("repomd.xml"), 2);
}

#[test]
fn a_repository_that_lists_what_it_lacks_is_refused() {
    let fixture = Fixture::with_thing();
    let dir = fixture.path("repo");
    let server = Server::start(move |path, _| match path.ends_with(PRIMARY) {
        true => Reply::status(404),
        false => file(&dir, path),
    });
    let fixture = at(&server, fixture);
    assert!(refusal(&fixture).contains(PRIMARY), "{}", refusal(&fixture));
    assert!(fixture.tree().keys().all(|path| path.ends_with("CACHEDIR.TAG")), "{:?}", fixture.tree());
}

#[test]
fn repomd_is_asked_for_with_conditions() {
    let fixture = Fixture::with_thing();
    let dir = fixture.path("repo");
    let conditions = Arc::new(Mutex::new(Vec::new()));
    let seen = conditions.clone();
    let server = Server::of_requests(move |request: &Request| {
        if request.path.ends_with("repomd.xml") {
            let condition = request.header("if-none-match").map(str::to_owned);
            seen.lock().unwrap().push(condition.clone());
            if condition.is_some() {
                return Reply { body: Vec::new(), ..Reply::status(304) };
            }
        }
        Reply { headers: "etag: W/\"7\"\r\n".into(), ..file(&dir, &request.path) }
    });
    let fixture = at(&server, fixture);
    let first = fixture.metadata().unwrap();
    let again = fixture.metadata().unwrap();
    assert_eq!((first.repomd, names(&first)), (again.repomd, names(&again)));
    assert_eq!(*conditions.lock().unwrap(), [None, Some("W/\"7\"".to_owned())]);
    // a store that has lost the document asks without
    fs::remove_file(fixture.path("store/repodata").join(first.repomd.hex())).unwrap();
    fixture.metadata().unwrap();
    assert_eq!(conditions.lock().unwrap()[2], None);
}

#[test]
fn a_mirror_that_has_fallen_behind_is_passed_over() {
    let fixture = Fixture::with_thing();
    let (dir, old) = (fixture.path("repo"), fixture.path("old"));
    run("cp", &["-r", dir.to_str().unwrap(), old.to_str().unwrap()]);
    publish_again(&fixture, "1739145700");
    let mirror = Server::of(old);
    let turn = Arc::new(AtomicUsize::new(0));
    let (main_turn, main_dir) = (turn.clone(), dir);
    let main = Server::start(move |path, _| match main_turn.load(Ordering::Relaxed) {
        1 => Reply::status(404),
        _ => file(&main_dir, path),
    });
    let mut fixture = at(&main, fixture);
    fixture.repo.baseurl.push(mirror.url.clone());
    assert_eq!(fixture.metadata().unwrap().revision, 1_739_145_700);
    turn.store(1, Ordering::Relaxed);
    let error = refusal(&fixture);
    assert!(
        error.contains("is stale: its revision is 1739145600, that seen before was 1739145700"),
        "{error}"
    );
    turn.store(2, Ordering::Relaxed);
    assert_eq!(fixture.metadata().unwrap().revision, 1_739_145_700);
}

#[test]
fn wrong_bytes_are_looked_for_elsewhere() {
    let fixture = Fixture::with_thing();
    let (dir, same) = (fixture.path("repo"), fixture.path("repo"));
    let liar = Server::start(move |path, _| {
        let mut reply = file(&dir, path);
        if !path.ends_with("repomd.xml") {
            reply.body.iter_mut().for_each(|byte| *byte ^= 1);
        }
        reply
    });
    let honest = Server::of(same);
    let mut fixture = at(&liar, fixture);
    fixture.repo.baseurl.push(honest.url.clone());
    assert_eq!(names(&fixture.metadata().unwrap()), ["thing"]);
    fixture.repo.baseurl.pop();
    let store = fixture.path("store");
    fs::remove_dir_all(&store).unwrap();
    assert!(refusal(&fixture).contains("expected sha256:"), "{}", refusal(&fixture));
}

/// A server of `dir` that can begin anywhere in a file, and breaks off each package in the middle while `is_bad`. Gives
/// the ranges of packages asked for.
fn breaking(dir: std::path::PathBuf, is_bad: Arc<AtomicBool>) -> (Server, Arc<Mutex<Vec<Option<String>>>>) {
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = ranges.clone();
    let server = Server::of_requests(move |request: &Request| {
        let whole = file(&dir, &request.path);
        if !request.path.ends_with(".rpm") || whole.status != 200 {
            return whole;
        }
        let range = request.header("range").map(str::to_owned);
        seen.lock().unwrap().push(range.clone());
        if is_bad.load(Ordering::Relaxed) {
            return match range {
                None => Reply { cut: Some(whole.body.len() / 2), ..whole },
                Some(_) => Reply::status(404),
            };
        }
        let Some(range) = range else { return whole };
        let start: usize = range["bytes=".len()..].trim_end_matches('-').parse().unwrap();
        let (end, size) = (whole.body.len() - 1, whole.body.len());
        let headers = format!("content-range: bytes {start}-{end}/{size}\r\n");
        Reply { status: 206, headers, ..Reply::ok(whole.body[start..].to_vec()) }
    });
    (server, ranges)
}

#[test]
fn what_a_run_did_not_finish_is_continued_by_the_next() {
    let fixture = Fixture::with_thing();
    let is_bad = Arc::new(AtomicBool::new(true));
    let (server, ranges) = breaking(fixture.path("repo"), is_bad.clone());
    let fixture = at(&server, fixture);
    let locked = fixture.locked();
    let size = locked[0].size;
    let partial = fixture.path(&format!("store/tmp/{}.partial", locked[0].sha256.unwrap().hex()));
    fixture.fetch(&locked).unwrap_err();
    assert_eq!(fs::metadata(&partial).unwrap().len(), size / 2);
    let rest = Some(format!("bytes={}-", size / 2));
    is_bad.store(false, Ordering::Relaxed);
    fixture.fetch(&locked).unwrap();
    assert_eq!(*ranges.lock().unwrap(), [None, rest.clone(), rest]);
    assert!(!partial.exists());
}

#[test]
fn what_is_left_of_another_file_does_no_harm() {
    let fixture = Fixture::with_thing();
    let (server, ranges) = breaking(fixture.path("repo"), Arc::default());
    let fixture = at(&server, fixture);
    let locked = fixture.locked();
    let (hex, size) = (locked[0].sha256.unwrap().hex(), usize::try_from(locked[0].size).unwrap());
    let (partial, rpm) =
        (fixture.path(&format!("store/tmp/{hex}.partial")), fixture.path(&format!("store/rpms/{hex}.rpm")));
    let whole = fs::read(fixture.path("repo/Packages/thing.rpm")).unwrap();
    for (left, asked) in [
        (vec![b'x'; 9], vec![Some("bytes=9-".to_owned()), None]),
        (vec![b'x'; size], vec![None]),
        (vec![b'x'; size + 1], vec![None]),
        (whole[..size - 1].to_vec(), vec![Some(format!("bytes={}-", size - 1))]),
    ] {
        fs::write(&partial, &left).unwrap();
        ranges.lock().unwrap().clear();
        fixture.fetch(&locked).unwrap();
        assert_eq!(*ranges.lock().unwrap(), asked, "{} bytes", left.len());
        assert_eq!(fs::read(&rpm).unwrap(), whole);
        assert!(!partial.exists());
        fs::remove_file(&rpm).unwrap();
    }
}

#[test]
fn a_file_that_another_run_is_at_is_left_to_it() {
    let fixture = Fixture::with_thing();
    let (server, _) = breaking(fixture.path("repo"), Arc::default());
    let fixture = at(&server, fixture);
    let locked = fixture.locked();
    let partial = fixture.path(&format!("store/tmp/{}.partial", locked[0].sha256.unwrap().hex()));
    fs::write(&partial, b"x").unwrap();
    let other = fs::File::open(&partial).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).unwrap();
    fixture.fetch(&locked).unwrap();
    assert_eq!(fs::read(&partial).unwrap(), b"x");
}

#[test]
fn a_date_to_try_again_at_is_kept() {
    let fixture = Fixture::with_thing();
    let dir = fixture.path("repo");
    let headers = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:49:39 GMT\r\n";
    let server = Server::start(move |path, before| match before {
        0 if path.ends_with("repomd.xml") => Reply { headers: headers.into(), ..Reply::status(503) },
        _ => file(&dir, path),
    });
    let fixture = at(&server, fixture);
    let began = Instant::now();
    fixture.metadata().unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}
