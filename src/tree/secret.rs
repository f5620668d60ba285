//! What must not be in an image that others pull: keys and credentials.
//!
//! A file that is what its package ships is no secret, whatever it holds: [`crate::verify`] asks for the others only.

use std::path::Path;

/// What secret a file is by its place (relative to the root), in words.
pub fn by_place(path: &Path) -> Option<&'static str> {
    let parent = path.parent()?.to_str()?;
    let entitlement = ["etc/pki/entitlement", "etc/pki/entitlement-host", "run/secrets/etc-pki-entitlement"];
    match path.file_name()?.to_str()? {
        _ if entitlement.contains(&parent) => Some("an entitlement certificate or key"),
        name if parent == "etc/ssh" && name.starts_with("ssh_host_") && name.ends_with("_key") => {
            Some("an SSH host key: every machine would have the same")
        }
        _ => None,
    }
}

/// What secret the content of a file is, in words. `path` is relative to the root.
pub fn in_content(path: &Path, content: &[u8]) -> Option<&'static str> {
    if has_private_key(content) {
        return Some("a private key");
    }
    let text = str::from_utf8(content).ok()?;
    if has_registry_credentials(text) {
        return Some("credentials of a container registry");
    }
    let repositories = path.extension().is_some_and(|e| e == "repo") || path.ends_with("etc/dnf/dnf.conf");
    (repositories && has_repository_credentials(text)).then_some("credentials of a package repository")
}

/// A PEM or OpenSSH private key: the line that begins it (RFC 7468), and after it a line of base64 or an RFC 1421
/// header. Programs that read keys contain the first line only.
fn has_private_key(content: &[u8]) -> bool {
    let mut lines = content.split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
    while let Some(line) = lines.next() {
        let begins =
            line.strip_prefix(b"-----BEGIN ").is_some_and(|rest| rest.ends_with(b"PRIVATE KEY-----"));
        if begins && lines.clone().next().is_some_and(is_key_line) {
            return true;
        }
    }
    false
}

fn is_key_line(line: &[u8]) -> bool {
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/=".contains(b);
    line.starts_with(b"Proc-Type:") || line.len() >= 16 && line.iter().all(base64)
}

/// `auths` with a login, as in containers-auth.json(5) and Docker's `config.json`.
fn has_registry_credentials(text: &str) -> bool {
    if !text.contains("\"auths\"") {
        return false;
    }
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return false };
    let registries = value["auths"].as_object();
    let filled = |value: &serde_json::Value| value.as_str().is_some_and(|v| !v.is_empty());
    registries.is_some_and(|registries| {
        registries.values().any(|r| filled(&r["auth"]) || filled(&r["identitytoken"]))
    })
}

/// A password, or a login inside a URL (dnf.conf(5)).
fn has_repository_credentials(text: &str) -> bool {
    text.lines().any(|line| {
        let Some((key, value)) = line.split_once('=') else { return false };
        match (key.trim(), value.trim()) {
            ("password" | "proxy_password", value) => !value.is_empty(),
            (_, value) => value.split_ascii_whitespace().any(has_login),
        }
    })
}

/// `https://USER:PASSWORD@HOST/...`
fn has_login(url: &str) -> bool {
    let authority = url.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    authority.is_some_and(|a| a.rsplit_once('@').is_some_and(|(login, _)| login.contains(':')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_credentials_are_found() {
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAE\n";
        let legacy = "text\r\n-----BEGIN RSA PRIVATE KEY-----\r\nProc-Type: 4,ENCRYPTED\r\n";
        let auth = r#"{"auths": {"quay.io": {"auth": "dTpw"}}}"#;
        for (path, content, expected) in [
            ("root/x", key, Some("a private key")),
            ("root/x", legacy, Some("a private key")),
            ("usr/bin/tool", "-----BEGIN PRIVATE KEY-----\0-----END PRIVATE KEY-----", None),
            ("etc/x.pem", "-----BEGIN PUBLIC KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAE\n", None),
            ("etc/x", auth, Some("credentials of a container registry")),
            ("etc/x", r#"{"auths": {"quay.io": {}}}"#, None),
            ("etc/x", r#"{"auths": 1}"#, None),
            ("etc/a.repo", "[a]\nusername = u\npassword = p\n", Some("credentials of a package repository")),
            ("etc/a.repo", "baseurl=https://h/x https://u:p@h/", Some("credentials of a package repository")),
            ("etc/a.repo", "[a]\nbaseurl=https://h/a@b:c\npassword=\n", None),
            ("etc/other", "password = p\n", None),
        ] {
            assert_eq!(in_content(Path::new(path), content.as_bytes()), expected, "{content}");
        }
    }

    #[test]
    fn places() {
        assert!(by_place(Path::new("etc/pki/entitlement/1.pem")).is_some());
        assert!(by_place(Path::new("etc/ssh/ssh_host_ed25519_key")).is_some());
        assert!(by_place(Path::new("etc/ssh/ssh_host_ed25519_key.pub")).is_none());
        assert!(by_place(Path::new("")).is_none());
    }
}
