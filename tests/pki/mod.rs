//! Certificates for tests, made by openssl.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes a CA, and certificates of it for a server and a client.
pub fn pki(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let file = |name: &str| dir.join(name).display().to_string();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let ca = ["req", "-x509", "-subj", "/CN=ca", "-keyout", &file("ca.key"), "-out", &file("ca.pem")];
    openssl(&[&ca[..], &key].concat());
    for (name, extension) in
        [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")]
    {
        let (secret, public, subject) =
            (file(&format!("{name}.key")), file(&format!("{name}.pem")), format!("/CN={name}"));
        let request = ["req", "-x509", "-CA", &file("ca.pem"), "-CAkey", &file("ca.key"), "-subj", &subject];
        let usage = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", extension];
        openssl(&[&request[..], &usage, &["-keyout", &secret, "-out", &public], &key].concat());
    }
}

fn openssl(args: &[&str]) {
    let output = Command::new("openssl").args(args).output().expect("openssl is installed");
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
