use super::*;
use crate::repo::Packages;

fn packages() -> Vec<RepoPackage> {
    let plain = |name: &str| Arc::new(Dependency { name: name.into(), version: None, pre: false });
    let versioned = Arc::new(Dependency {
        name: "lib".into(),
        version: Some((Comparison::Ge, Evr::new(1, "2", ""))),
        pre: true,
    });
    let [shared, rich] = ["libc.so.6()(64bit)", "(a if b)"].map(plain);
    let first = RepoPackage {
        nevra: Nevra { name: "a".into(), evr: Evr::new(0, "1", "1.el9"), arch: "noarch".into() },
        sha256: Some(Digest::of("a")),
        size: 1,
        installed_size: u64::MAX,
        location: "Packages/a.rpm".into(),
        source: "a.src.rpm".into(),
        vendor: Some("ACME".into()),
        build_time: 3,
        provides: vec![plain("a"), plain("cap")],
        requires: vec![shared.clone(), versioned],
        conflicts: vec![plain("c")],
        obsoletes: vec![plain("o")],
        recommends: vec![rich],
        suggests: vec![plain("s")],
        supplements: vec![plain("u")],
        enhances: vec![plain("e")],
        files: vec!["/etc/a".into()],
    };
    let nevra = Nevra { name: "b".into(), ..Default::default() };
    let provides = vec![plain("cap"), plain("cap")];
    vec![first, RepoPackage { nevra, provides, requires: vec![shared], ..Default::default() }]
}

fn written(packages: &[RepoPackage]) -> Vec<u8> {
    let mut writer = Writer::default();
    packages.iter().for_each(|package| writer.add_whole(package));
    writer.finish().unwrap()
}

#[test]
fn what_is_written_is_read() {
    let packages = packages();
    let read = Packages::read(written(&packages)).unwrap();
    assert_eq!(format!("{:?}", read.iter().collect::<Vec<_>>()), format!("{packages:?}"));
    assert!(Arc::ptr_eq(&read.get(0).requires[0], &read.get(1).requires[0]));
}

#[test]
fn names_lead_to_packages() {
    let packages = Packages::from(packages());
    let providing = |name| packages.providing(name).collect::<Vec<_>>();
    assert_eq!(providing("a"), [0]);
    assert_eq!(providing("cap"), [0, 1]);
    assert_eq!(providing("/etc/a"), [0]);
    assert_eq!(providing("libc.so.6()(64bit)"), [0; 0]);
    assert_eq!(providing("nothing"), [0; 0]);
    let called = |name| packages.called(name).map(|package| package.nevra.to_string()).collect::<Vec<_>>();
    assert_eq!(called("a"), ["a-1-1.el9.noarch"]);
    assert_eq!(called("cap"), [""; 0]);
    assert_eq!(packages.names().filter(|name| packages.named(name).is_none()).count(), 0);
}

#[test]
fn what_is_damaged_is_not_read() {
    let bytes = written(&packages());
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Compact::read(damaged).is_err(), "byte {at}");
        assert!(Compact::read(bytes[..at].to_vec()).is_err(), "cut at {at}");
    }
}

/// The checksum lets only accidents be found, so what it lets pass is checked too: whatever a number is, it leads
/// nowhere else, and no step is endless.
#[test]
fn numbers_lead_nowhere_else() {
    let bytes = written(&packages());
    let start = title(KIND).len() + 8;
    let mut refused = 0;
    for at in start..bytes.len() {
        for value in [0, 1, 2, 0x7f, 0xff] {
            let mut body = bytes[start..].to_vec();
            body[at - start] = value;
            let Ok(packages) = Packages::read(sealed(KIND, &[&body]).unwrap()) else {
                refused += 1;
                continue;
            };
            packages.iter().for_each(|package| _ = package.nevra.to_string());
            packages.names().for_each(|name| _ = packages.providing(name).count());
            packages.wanted_by_any().for_each(|name| _ = packages.called(name).count());
        }
    }
    assert!(refused > bytes.len(), "{refused}");
}
