//! Keys and signatures as gpg makes them.

use std::fs;
use std::path::PathBuf;

use strata::fetch::keyring::Keyring;
use tempfile::TempDir;

use crate::fixture::{Gpg, KEY, OTHER_KEY};

const DATA: &[u8] = b"something worth signing\n";

/// gpg at one moment of the past.
struct Signer {
    gpg: Gpg,
    dir: TempDir,
}

impl Signer {
    /// A signer with a new primary key.
    fn new(algorithm: &str, usage: &str, expires: &str) -> Self {
        let signer = Self { gpg: Gpg::new(), dir: TempDir::with_prefix("keys").unwrap() };
        signer.at("20200101T000000", &["--quick-generate-key", "signer", algorithm, usage, expires]);
        signer
    }

    fn at(&self, time: &str, args: &[&str]) -> String {
        self.gpg.run(&[&["--faked-system-time", time], args].concat())
    }

    fn fingerprint(&self) -> String {
        let list = self.gpg.run(&["--with-colons", "--list-keys"]);
        list.lines().find_map(|l| l.strip_prefix("fpr:::::::::")).unwrap().trim_end_matches(':').to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sign(&self, time: &str, args: &[&str]) -> Vec<u8> {
        let (data, signature) = (self.path("data"), self.path("data.sig"));
        fs::write(&data, DATA).unwrap();
        let (data, output) = (data.to_str().unwrap(), signature.to_str().unwrap());
        self.at(time, &[args, &["--output", output, "--detach-sign", data]].concat());
        fs::read(&signature).unwrap()
    }

    fn verify(&self, signature: &[u8]) -> Result<(), String> {
        verify(self.gpg.export().public.as_bytes(), signature)
    }
}

fn verify(keys: &[u8], signature: &[u8]) -> Result<(), String> {
    let mut keyring = Keyring::default();
    keyring.add(keys).map_err(|e| format!("{e:#}"))?;
    keyring.verify(DATA, signature).map_err(|e| e.to_string())?;
    keyring.verify(&b"something else\n"[..], signature).expect_err("other data");
    Ok(())
}

#[test]
fn every_algorithm_of_real_keys_is_known() {
    let pairs = [
        ("rsa3072", "SHA256"),
        ("dsa3072", "SHA256"),
        ("nistp256", "SHA256"),
        ("nistp384", "SHA384"),
        ("ed25519", "SHA512"),
    ];
    for (algorithm, digest) in pairs {
        let signer = Signer::new(algorithm, "sign", "never");
        for form in ["--no-armor", "--armor"] {
            let signature = signer.sign("20210101T000000", &["--digest-algo", digest, form]);
            signer.verify(&signature).unwrap_or_else(|e| panic!("{algorithm} {digest} {form}: {e}"));
        }
    }
}

#[test]
fn weak_digests_are_refused() {
    let signer = Signer::new("rsa2048", "sign", "never");
    let signature = signer.sign("20210101T000000", &["--digest-algo", "SHA1", "--allow-weak-digest-algos"]);
    assert!(signer.verify(&signature).unwrap_err().contains("SHA1, which is too weak"));
}

#[test]
fn a_key_must_live_when_it_signs() {
    let signer = Signer::new("ed25519", "sign", "20220101T000000");
    let [early, late] = ["20210101T000000", "20210601T000000"].map(|time| signer.sign(time, &[]));
    signer.verify(&early).unwrap();
    signer.verify(&late).unwrap();
    signer.at("20210102T000000", &["--quick-set-expire", &signer.fingerprint(), "20210301T000000"]);
    signer.verify(&early).unwrap();
    assert!(signer.verify(&late).unwrap_err().ends_with("after the key had expired"));
}

#[test]
fn revoked_keys_are_refused() {
    let signer = Signer::new("ed25519", "sign", "never");
    let signature = signer.sign("20210101T000000", &[]);
    signer.verify(&signature).unwrap();
    let certificate = signer.gpg.home().join(format!("openpgp-revocs.d/{}.rev", signer.fingerprint()));
    // gpg puts a colon before the armor, so that nobody revokes a key by mistake
    let text = fs::read_to_string(certificate).unwrap().replace(":-----BEGIN", "-----BEGIN");
    fs::write(signer.path("revocation"), text).unwrap();
    signer.at("20210201T000000", &["--import", signer.path("revocation").to_str().unwrap()]);
    assert!(signer.verify(&signature).unwrap_err().contains("which is revoked"));
}

#[test]
fn subkeys_sign_if_they_are_meant_to() {
    let signer = Signer::new("ed25519", "cert", "never");
    signer.at("20200102T000000", &["--quick-add-key", &signer.fingerprint(), "ed25519", "sign", "1y"]);
    let signature = signer.sign("20200601T000000", &[]);
    signer.verify(&signature).unwrap();
    // the armored export without the subkey
    let primary = format!("{}!", signer.fingerprint());
    let filter = "drop-subkey=usage =~ s";
    let only = signer.gpg.run(&["--armor", "--export-filter", filter, "--export", &primary]);
    assert!(verify(only.as_bytes(), &signature).unwrap_err().contains("expected one of: no key at all"));
}

#[test]
fn key_files_come_in_many_forms() {
    let signer = Signer::new("ed25519", "sign", "never");
    let signature = signer.sign("20210101T000000", &[]);
    let ours = signer.gpg.export().public;
    let binary = signer.path("binary");
    signer.gpg.run(&["--output", binary.to_str().unwrap(), "--export"]);
    verify(&fs::read(binary).unwrap(), &signature).unwrap();
    let blocks = format!("The keys of ACME:\n\n{}\nand\n\n{ours}\nthat is all\n", KEY.public);
    verify(blocks.as_bytes(), &signature).unwrap();
    let error = verify(OTHER_KEY.public.as_bytes(), &signature).unwrap_err();
    assert!(error.to_lowercase().contains(&signer.fingerprint().to_lowercase()), "{error}");
}

#[test]
fn rubbish_is_refused() {
    let signer = Signer::new("ed25519", "sign", "never");
    let signature = signer.sign("20210101T000000", &[]);
    let key = signer.path("key");
    signer.gpg.run(&["--output", key.to_str().unwrap(), "--export"]);
    let key = fs::read(key).unwrap();
    for length in 0..signature.len() {
        verify(&key, &signature[..length]).expect_err("a cut signature");
    }
    for position in 0..key.len() {
        let _ = verify(&key[..position], &signature);
        let mut damaged = key.clone();
        damaged[position] ^= 0x55;
        let _ = verify(&damaged, &signature);
    }
    for position in 0..signature.len() {
        let mut damaged = signature.clone();
        damaged[position] ^= 0x55;
        let _ = verify(&key, &damaged);
    }
    for rubbish in [&b""[..], b"hello", b"-----BEGIN PGP PUBLIC KEY BLOCK-----", &[0xff; 100]] {
        verify(rubbish, &signature).expect_err("rubbish for a key");
        verify(&key, rubbish).expect_err("rubbish for a signature");
    }
}
