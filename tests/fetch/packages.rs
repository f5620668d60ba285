//! Packages: verified, or refused by name with nothing left behind.

use crate::fixture::Fixture;

#[test]
fn a_signed_package_is_taken() {
    let fixture = Fixture::with_thing();
    let locked = fixture.locked();
    fixture.fetch(&locked).unwrap();
    let kept = std::fs::read(fixture.store().rpm(&locked[0].sha256.unwrap())).unwrap();
    assert_eq!(kept, std::fs::read(fixture.path("repo/Packages/thing.rpm")).unwrap());
}
