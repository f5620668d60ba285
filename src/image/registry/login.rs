//! Who one is at a registry: containers-auth.json(5), as podman, skopeo and docker write it.
//!
//! ```json
//! {"auths": {"quay.io/ns": {"auth": "dXNlcjpwYXNzd29yZA=="}, "quay.io": {"identitytoken": "..."}}}
//! ```
//!
//! The entry that names most of the image's path counts. Helper programs (`credHelpers`, `credsStore`) are not run.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Credentials, and the file they are from. It has no `Debug`, so that they are in no log.
pub struct Login {
    /// What the registry is shown.
    pub secret: Secret,
    file: PathBuf,
}

/// What a registry knows somebody by.
pub enum Secret {
    /// `USER:PASSWORD` in base64.
    Password(String),
    /// For a token server: OAuth 2's refresh token.
    IdentityToken(String),
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the credentials in {}", self.file.display())
    }
}

#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    identitytoken: Option<String>,
}

/// The credentials for a repository: those in `authfile` or else `$REGISTRY_AUTH_FILE`, if there is one, and otherwise
/// in the first file that has some of `$XDG_RUNTIME_DIR/containers/auth.json`, `~/.config/containers/auth.json` and
/// `~/.docker/config.json`.
pub fn find(host: &str, repository: &str, authfile: Option<&Path>) -> Result<Option<Login>> {
    let chosen = authfile.map(Path::to_owned).or_else(|| variable("REGISTRY_AUTH_FILE"));
    let files = match &chosen {
        Some(file) => vec![file.clone()],
        None => usual(),
    };
    for file in files {
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && chosen.is_none() => continue,
            Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
        };
        let secret = secret(&text, host, repository)
            .with_context(|| format!("reading the credentials in {}", file.display()))?;
        if let Some(secret) = secret {
            return Ok(Some(Login { secret, file }));
        }
    }
    Ok(None)
}

fn usual() -> Vec<PathBuf> {
    let home = variable("HOME");
    let below = |dir: Option<PathBuf>, name: &str| dir.map(|dir| dir.join(name));
    let runtime = variable("XDG_RUNTIME_DIR").map_or_else(
        || format!("/run/containers/{}/auth.json", rustix::process::getuid()).into(),
        |dir| dir.join("containers/auth.json"),
    );
    let config = variable("XDG_CONFIG_HOME").or_else(|| below(home.clone(), ".config"));
    let docker = variable("DOCKER_CONFIG").or_else(|| below(home, ".docker"));
    let others = [below(config, "containers/auth.json"), below(docker, "config.json")];
    [Some(runtime)].into_iter().chain(others).flatten().collect()
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// What the text of such a file has for a repository.
fn secret(text: &str, host: &str, repository: &str) -> Result<Option<Secret>> {
    // where, but not what: the message of the parser may be of a password
    let file: AuthFile = serde_json::from_str(text).map_err(|e| {
        anyhow::anyhow!("it is not as containers-auth.json(5) says, at {}:{}", e.line(), e.column())
    })?;
    let path = format!("{host}/{repository}");
    let names =
        |key: &str| path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let named =
        file.auths.iter().map(|(key, entry)| (place(key), key, entry)).filter(|(place, ..)| names(place));
    // of two ways to write the same the shorter, which has no scheme
    let Some((_, key, entry)) =
        named.max_by_key(|(place, key, _)| (place.len(), std::cmp::Reverse(key.len())))
    else {
        return Ok(None);
    };
    if let Some(token) = entry.identitytoken.as_ref().filter(|token| !token.is_empty()) {
        return Ok(Some(Secret::IdentityToken(token.clone())));
    }
    let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
    match STANDARD.decode(auth) {
        Ok(decoded) if decoded.contains(&b':') => Ok(Some(Secret::Password(auth.clone()))),
        _ => bail!("the `auth` of `{key}` is not USER:PASSWORD in base64"),
    }
}

/// What a key is about. Docker writes URLs, of which the host alone counts, and its own registry by another name.
fn place(key: &str) -> &str {
    let host = ["https://", "http://"].iter().find_map(|scheme| key.strip_prefix(scheme));
    match host.map_or(key, |rest| rest.split('/').next().unwrap_or(rest)) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        place => place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The user that is found for a place.
    fn user(file: &str, place: &str) -> Option<String> {
        let (host, repository) = place.split_once('/').unwrap();
        match secret(file, host, repository).unwrap()? {
            Secret::Password(auth) => {
                let text = String::from_utf8(STANDARD.decode(auth).unwrap()).unwrap();
                Some(text.split_once(':').unwrap().0.to_owned())
            }
            Secret::IdentityToken(token) => Some(token),
        }
    }

    /// A file with these keys, each with its own name as user.
    fn file(keys: &[&str]) -> String {
        let entry = |key: &&str| {
            format!(r#""{key}": {{"auth": "{}"}}"#, STANDARD.encode(format!("{}:pw", key.replace(':', "%"))))
        };
        format!(r#"{{"auths": {{{}}}}}"#, keys.iter().map(entry).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn the_longest_name_counts() {
        let text = file(&["quay.io", "quay.io/ns", "quay.io/ns/os", "localhost:5000/a"]);
        for (place, expected) in [
            ("quay.io/ns/os", Some("quay.io/ns/os")),
            ("quay.io/ns/os/more", Some("quay.io/ns/os")),
            ("quay.io/ns/osx", Some("quay.io/ns")),
            ("quay.io/nsx/os", Some("quay.io")),
            ("quay.io.example.com/ns/os", None),
            ("localhost:5000/a/b", Some("localhost%5000/a")),
            ("localhost:5000/b", None),
            ("localhost/a", None),
        ] {
            assert_eq!(user(&text, place).as_deref(), expected, "{place}");
        }
    }

    #[test]
    fn dockers_own_spelling_is_known() {
        let text =
            file(&["https://index.docker.io/v1/", "https://quay.io/v2/", "https://both.io", "both.io"]);
        assert_eq!(user(&text, "docker.io/library/x").as_deref(), Some("https%//index.docker.io/v1/"));
        assert_eq!(user(&text, "quay.io/ns/os").as_deref(), Some("https%//quay.io/v2/"));
        assert_eq!(user(&text, "both.io/x").as_deref(), Some("both.io"));
    }

    #[test]
    fn tokens_empty_entries_and_nonsense() {
        let token = r#"{"auths": {"q.io": {"auth": "eDo=", "identitytoken": "T"}}, "credsStore": "x"}"#;
        assert_eq!(user(token, "q.io/a").as_deref(), Some("T"));
        assert_eq!(user(r#"{"auths": {"q.io": {}}}"#, "q.io/a"), None, "a helper has it");
        assert_eq!(user("{}", "q.io/a"), None);
        for text in [
            r#"{"auths": {"q.io": {"auth": "hunter2"}}}"#,
            r#"{"auths": {"q.io": {"auth": "aHVudGVyMg=="}}}"#,
            r#"{"auths": {"q.io": "hunter2"}}"#,
        ] {
            let error = secret(text, "q.io", "a").err().unwrap();
            assert!(!format!("{error:#}").contains("hunter2"), "{error:#}");
        }
    }
}
