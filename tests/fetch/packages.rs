//! Packages: verified, or refused by name with nothing left behind.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;

use strata::error::Hint;
use strata::fetch::keyring::Keyring;
use strata::fetch::verify;
use strata::fetch::{Place, Wanted};
use strata::lock::LockedPackage;
use strata::progress::Silent;

use crate::fixture::{Fixture, KEY, OTHER_KEY, package, signed, wanted};
use crate::server::{Reply, Server, file};

/// The advice that goes with an error.
fn advice(error: &anyhow::Error) -> String {
    error.chain().filter_map(|e| e.downcast_ref::<Hint>()).map(|hint| hint.advice().to_owned()).collect()
}

fn unsigned(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    package(name).build().unwrap().write(&mut bytes).unwrap();
    bytes
}

/// Serves the fixture's repository and makes it the fixture's base URL.
fn serve(
    fixture: &mut Fixture,
    answer: impl Fn(Reply, &str, usize) -> Reply + Send + Sync + 'static,
) -> Server {
    let dir = fixture.path("repo");
    let server = Server::start(move |path, before| answer(file(&dir, path), path, before));
    fixture.repo.baseurl = vec![server.url.clone()];
    server
}

#[test]
fn a_signed_package_is_taken_once() {
    let fixture = Fixture::with_thing();
    let locked = fixture.locked();
    fixture.fetch(&locked).unwrap();
    let original = fs::read(fixture.path("repo/Packages/thing.rpm")).unwrap();
    assert_eq!(fs::read(fixture.store().rpm(&locked[0].sha256.unwrap())).unwrap(), original);
    fs::remove_dir_all(fixture.path("repo")).unwrap();
    fixture.fetch(&locked).unwrap();
}

#[test]
fn a_file_that_does_not_fit_the_lock_is_refused() {
    let fixture = Fixture::with_thing();
    let locked = fixture.locked();
    let path = fixture.path("repo/Packages/thing.rpm");
    let original = fs::read(&path).unwrap();
    let size = original.len();

    fs::write(&path, &original[..size - 1]).unwrap();
    assert!(fixture.refusal(&locked).contains(&format!("has {} bytes, expected {size}", size - 1)));
    fs::write(&path, [&original[..], b"x"].concat()).unwrap();
    assert!(fixture.refusal(&locked).contains(&format!("more than the {size} bytes expected")));
    fs::write(&path, [&original[..size - 1], &[!original[size - 1]]].concat()).unwrap();
    let error = fixture.refusal(&locked);
    assert!(error.contains("fetching thing-1:1.0~rc1-2.el9.noarch from repo"), "{error}");
    assert!(error.contains(&format!("expected sha256:{}", locked[0].sha256.unwrap().hex())), "{error}");
    assert!(advice(&fixture.fetch(&locked).unwrap_err()).contains("strata lock"));
    fs::remove_file(&path).unwrap();
    let error = fixture.refusal(&locked);
    assert!(error.contains("thing-1:1.0~rc1-2.el9") && error.contains("No such file"), "{error}");
}

#[test]
fn a_package_damaged_before_its_metadata_were_made_is_refused() {
    let whole = signed(&mut package("thing"), &KEY);
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [flipped, whole[..whole.len() - 1].to_vec()] {
        let fixture = Fixture::new(&[("thing", damaged)], &[]);
        let error = fixture.refusal(&fixture.locked());
        assert!(error.contains("thing-1:1.0~rc1-2.el9") && error.contains("payload has sha256:"), "{error}");
    }
}

#[test]
fn a_package_must_be_signed_by_the_repositorys_key() {
    let fixture = Fixture::new(&[("thing", unsigned("thing"))], &[]);
    let locked = fixture.locked();
    assert!(fixture.refusal(&locked).ends_with("the package is not signed"));
    assert!(advice(&fixture.fetch(&locked).unwrap_err()).contains("gpgcheck = false"));

    let fixture = Fixture::new(&[("thing", signed(&mut package("thing"), &OTHER_KEY))], &[]);
    let error = fixture.refusal(&fixture.locked());
    assert!(error.contains("signed with key") && error.contains("expected one of"), "{error}");
}

#[test]
fn trust_is_the_repositorys_not_the_stores() {
    let mut fixture = Fixture::new(&[("thing", unsigned("thing"))], &[]);
    let locked = fixture.locked();
    fixture.repo.gpgcheck = false;
    fixture.fetch(&locked).unwrap();
    fixture.repo.gpgcheck = true;
    assert!(fixture.refusal(&locked).ends_with("the package is not signed"));
}

#[test]
fn a_repository_without_a_key_is_no_reason_to_trust() {
    let mut fixture = Fixture::with_thing();
    let locked = fixture.locked();
    fixture.repo.gpgkey.clear();
    assert!(fixture.refusal(&locked).contains("repository repo names no key"));
    fixture.repo.gpgkey = vec![format!("file://{}", fixture.path("repo/Packages/thing.rpm").display())];
    assert!(fixture.refusal(&locked).contains("no usable OpenPGP public key"));
}

#[test]
fn another_package_with_a_valid_signature_is_refused() {
    let fixture = Fixture::with_thing();
    type Change = fn(&mut LockedPackage);
    let changes: [Change; 3] = [
        |p| p.name = "gadget".into(),
        |p| p.evr = "1:1.0-2.el9".parse().unwrap(),
        |p| p.arch = "x86_64".into(),
    ];
    for change in changes {
        let mut locked = fixture.locked();
        change(&mut locked[0]);
        let error = fixture.refusal(&locked);
        let expected = format!("the package is thing-1:1.0~rc1-2.el9.noarch, expected {}", locked[0].nevra());
        assert!(error.ends_with(&expected), "{error}");
    }
}

/// Every shorter file, and files with one byte changed, are refused; none makes the parser panic.
#[test]
fn damaged_files_are_refused_wherever_the_damage_is() {
    let fixture = Fixture::with_thing();
    let locked = &fixture.locked()[0];
    let mut keys = Keyring::default();
    keys.add(KEY.public.as_bytes()).unwrap();
    let bytes = signed(&mut package("thing"), &KEY);
    let header = bytes.windows(3).rposition(|w| w == [0x8e, 0xad, 0xe8]).unwrap();
    let check = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        verify::package(&file, locked, Some(&keys))
    };
    check(&bytes).unwrap();
    for length in (0..bytes.len()).step_by(13) {
        check(&bytes[..length]).expect_err("cut");
    }
    for position in (0..bytes.len()).step_by(7) {
        for value in [0x00, 0x7f, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[position] = value;
            let result = check(&damaged);
            // neither lead nor signature header are signed; reserved bytes of the header are zero for rpm
            let signed = position >= header && !(header + 4..header + 8).contains(&position);
            if signed && value != bytes[position] {
                result.expect_err("changed");
            }
        }
    }
}

#[test]
fn nothing_is_left_of_a_batch_but_what_was_verified() {
    let files = [("bad", unsigned("bad")), ("good", signed(&mut package("good"), &KEY))];
    let mut fixture = Fixture::new(&files, &[]);
    fixture.options.jobs = 1;
    let mut locked = fixture.locked();
    locked.sort_by(|a, b| b.name.cmp(&a.name));
    fixture.fetch(&locked).unwrap_err();
    assert!(fixture.store().rpm(&locked[0].sha256.unwrap()).exists());
    assert!(!fixture.store().rpm(&locked[1].sha256.unwrap()).exists());
    assert_eq!(fs::read_dir(fixture.path("store/tmp")).unwrap().count(), 0);
}

#[test]
fn offline_opens_no_socket() {
    let mut fixture = Fixture::with_thing();
    fixture.repo.gpgkey = vec![];
    let server = serve(&mut fixture, |reply, path, _| match path {
        "/KEY" => Reply::ok(KEY.public.clone().into()),
        _ => reply,
    });
    fixture.repo.gpgkey = vec![format!("{}/KEY", server.url)];
    let locked = fixture.locked();
    fixture.options.offline = true;
    let asked = server.requests.lock().unwrap().len();
    let error = fixture.fetch(&locked).unwrap_err();
    assert!(format!("{error:#}").contains("thing-1:1.0~rc1-2.el9"), "{error:#}");
    assert!(advice(&error).contains("strata fetch"));
    assert!(advice(&fixture.metadata().unwrap_err()).contains("strata fetch"));
    assert_eq!(server.requests.lock().unwrap().len(), asked);

    fixture.options.offline = false;
    fixture.fetch(&locked).unwrap();
    fixture.options.offline = true;
    let asked = server.requests.lock().unwrap().len();
    fixture.fetch(&locked).unwrap();
    assert_eq!(server.requests.lock().unwrap().len(), asked);
}

#[test]
fn a_vendored_package_needs_no_repository() {
    let mut fixture = Fixture::with_thing();
    let locked = fixture.locked();
    fixture.fetch(&locked).unwrap();
    let vendor = fixture.path("vendor");
    fixture.fetcher().vendor(&wanted(&fixture.repo, &locked), &vendor).unwrap();
    let copy = vendor.join("repo/Packages/thing.rpm");
    assert_eq!(fs::read(&copy).unwrap(), fs::read(fixture.path("repo/Packages/thing.rpm")).unwrap());

    fs::remove_dir_all(fixture.path("store")).unwrap();
    fs::remove_dir_all(fixture.path("repo")).unwrap();
    fixture.options.offline = true;
    fixture.options.vendor = Some(vendor);
    fixture.fetch(&locked).unwrap();

    fs::remove_dir_all(fixture.path("store")).unwrap();
    fixture.store();
    fs::OpenOptions::new().write(true).open(&copy).unwrap().write_all_at(b"x", 200).unwrap();
    assert!(fixture.refusal(&locked).contains("expected sha256:"));
}

/// The layout of Konflux's hermeto, `deps/rpm/ARCH/REPO/FILE`, with another file of the same name first in its way.
#[test]
fn a_package_prefetched_by_another_tool_is_found_by_name_and_digest() {
    let mut fixture = Fixture::with_thing();
    let locked = fixture.locked();
    let (right, wrong) = ("deps/rpm/x86_64/repo", "deps/rpm/aarch64/repo");
    let original = fs::read(fixture.path("repo/Packages/thing.rpm")).unwrap();
    for dir in [right, wrong] {
        fs::create_dir_all(fixture.path("prefetched").join(dir)).unwrap();
    }
    let file = |dir: &str| fixture.path("prefetched").join(dir).join("thing.rpm");
    fs::write(file(right), &original).unwrap();
    fs::write(file(wrong), vec![0; original.len()]).unwrap();
    let right = file(right);

    fs::remove_dir_all(fixture.path("repo")).unwrap();
    fixture.options.offline = true;
    fixture.options.vendor = Some(fixture.path("prefetched"));
    fixture.fetch(&locked).unwrap();

    fs::remove_dir_all(fixture.path("store")).unwrap();
    fixture.store();
    fs::remove_file(right).unwrap();
    let error = fixture.refusal(&locked);
    assert!(error.contains("neither in the store nor below") && error.contains("prefetched"), "{error}");
}

#[test]
fn a_package_that_left_its_repository_comes_from_elsewhere() {
    let fixture = Fixture::with_thing();
    let locked = fixture.locked();
    let original = fixture.path("repo/Packages/thing.rpm");
    let bytes = fs::read(&original).unwrap();
    for (dir, bytes) in [("wrong", &vec![0; bytes.len()]), ("right", &bytes)] {
        fs::create_dir(fixture.path(dir)).unwrap();
        fs::write(fixture.path(dir).join("moved.rpm"), bytes).unwrap();
    }
    fs::remove_file(&original).unwrap();
    let place = |dir: &str| {
        let baseurl = vec![format!("file://{}", fixture.path(dir).display())];
        (strata::plan::Repo { baseurl, ..fixture.repo.clone() }, "moved.rpm".to_owned())
    };
    let wanted = |further| Wanted { package: &locked[0], place: Place::Repo(&fixture.repo), further };
    let fetcher = fixture.fetcher();
    let error = fetcher.packages(&[wanted(vec![place("wrong")])], &Silent).unwrap_err();
    assert!(format!("{error:#}").contains("Packages/thing.rpm"), "{error:#}");
    assert_eq!(fetcher.whereabouts(&wanted(vec![])), None);
    assert!(fetcher.whereabouts(&wanted(vec![place("right")])).unwrap().ends_with("/right"));
    fetcher.packages(&[wanted(vec![place("wrong"), place("right")])], &Silent).unwrap();
    assert_eq!(fetcher.whereabouts(&wanted(vec![])).unwrap(), "the store");
}

#[test]
fn a_local_file_is_vouched_for_by_the_lock() {
    let fixture = Fixture::new(&[("thing", unsigned("thing"))], &[]);
    let locked = &fixture.locked()[0];
    let manifests = fixture.path("repo");
    let fetch = |package: &LockedPackage| {
        fixture
            .fetcher()
            .packages(&[Wanted { package, place: Place::Manifests(&manifests), further: vec![] }], &Silent)
    };
    for location in ["../repo/Packages/thing.rpm", "/etc/passwd"] {
        let error = fetch(&LockedPackage { location: location.into(), ..locked.clone() }).unwrap_err();
        assert!(format!("{error:#}").contains("leaves the repository"), "{error:#}");
    }
    fetch(locked).unwrap();
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let mut fixture = Fixture::with_thing();
    let server = serve(&mut fixture, |reply, path, before| match (path.ends_with("thing.rpm"), before) {
        (true, 0) => Reply::status(500),
        (true, 1) => Reply { cut: Some(1000), ..reply },
        _ => reply,
    });
    fixture.fetch(&fixture.locked()).unwrap();
    assert_eq!(server.count("thing.rpm"), 3);
}

#[test]
fn a_server_that_says_no_is_not_asked_again() {
    let mut fixture = Fixture::with_thing();
    let server = serve(&mut fixture, |reply, path, _| match path.ends_with("thing.rpm") {
        true => Reply::status(404),
        false => reply,
    });
    let error = fixture.refusal(&fixture.locked());
    assert!(error.contains("404") && error.contains(&server.url), "{error}");
    assert_eq!(server.count("thing.rpm"), 1);
}

#[test]
fn redirects_are_followed() {
    let mut fixture = Fixture::with_thing();
    let (dir, copy) = (fixture.path("repo"), fixture.path("elsewhere.rpm"));
    fs::copy(dir.join("Packages/thing.rpm"), &copy).unwrap();
    let elsewhere = Server::start(move |_, _| Reply::ok(fs::read(&copy).unwrap()));
    let location = format!("location: {}/moved\r\n", elsewhere.url);
    serve(&mut fixture, move |reply, path, _| match path.ends_with("thing.rpm") {
        true => Reply { headers: location.clone(), ..Reply::status(302) },
        false => reply,
    });
    fixture.fetch(&fixture.locked()).unwrap();
    assert_eq!(elsewhere.count("/moved"), 1);
}

#[test]
fn a_mirror_with_another_file_is_passed_over() {
    let mut fixture = Fixture::with_thing();
    let good = fixture.repo.baseurl[0].clone();
    let bad = serve(&mut fixture, |reply, path, _| match path.ends_with("thing.rpm") {
        true => Reply::ok(vec![0; 1 << 20]),
        false => reply,
    });
    let locked = fixture.locked();
    assert!(fixture.refusal(&locked).contains("more than the"));
    fixture.repo.baseurl.push(good);
    fixture.fetch(&locked).unwrap();
    assert_eq!(bad.count("thing.rpm"), 2);
}
