//! How a repository's servers know who asks: certificates, a password, headers; and through which proxy.
//!
//! Secrets are read when a connection is made and given to no one else. The plan has only the places they are in, so
//! lockfiles, logs and images cannot have more.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName};
use reqwest::{Certificate, ClientBuilder, Identity, Proxy};

use super::http::sensitive;
use crate::manifest::repo_file;
use crate::plan::{self, Secret};

/// Adds what a repository says of its proxy and certificates, the client's own only if `with_certificate`.
pub fn configure(
    mut builder: ClientBuilder,
    repo: &plan::Repo,
    with_certificate: bool,
) -> Result<reqwest::Client> {
    builder = builder.tls_danger_accept_invalid_certs(!repo.sslverify);
    match repo.proxy.as_deref() {
        // what the environment says
        None => {}
        // dnf.conf(5)
        Some("" | "_none_") => builder = builder.no_proxy(),
        Some(url) => {
            builder = builder.proxy(proxy(url, repo).with_context(|| format!("using the proxy {url}"))?);
        }
    }
    if let Some(path) = &repo.sslcacert {
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(&read(path)?)?);
    }
    if let Some(path) = repo.sslclientcert.as_deref().filter(|_| with_certificate) {
        let (certificate, key) = entitlement(path, repo.sslclientkey.as_deref())?;
        let mut pem = read(&certificate)?;
        if let Some(key) = &key {
            pem.push(b'\n');
            pem.extend(read(key)?);
        }
        builder = builder.identity(Identity::from_pem(&pem).context("reading the client certificate")?);
    }
    Ok(builder.build()?)
}

/// The proxy at a URL, which knows the repository's user.
fn proxy(url: &str, repo: &plan::Repo) -> Result<Proxy> {
    let proxy = Proxy::all(url)?;
    let Some(secret) = &repo.proxy_auth else { return Ok(proxy) };
    let text = secret.user_and_password().with_context(|| format!("reading its password from {secret}"))?;
    let (user, password) = text.split_once(':').unwrap_or_default();
    Ok(proxy.basic_auth(user, password))
}

/// The headers that go with every request to a server the stream names.
pub fn headers(repo: &plan::Repo) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    if let Some(secret) = &repo.auth {
        let text = secret.user_and_password();
        let value = text.and_then(|text| sensitive(&format!("Basic {}", STANDARD.encode(text))));
        let what = || format!("reading the password of repository {} from {secret}", repo.id);
        headers.insert(AUTHORIZATION, value.with_context(what)?);
    }
    for (name, secret) in &repo.headers {
        let what = || format!("reading header {name} of repository {} from {secret}", repo.id);
        let name: HeaderName = name.parse().context("it is no name of a header").with_context(what)?;
        headers.insert(name, secret.read().and_then(|text| sensitive(&text)).with_context(what)?);
    }
    Ok(headers)
}

impl Secret {
    /// `USER:PASSWORD`, as it is there now.
    fn user_and_password(&self) -> Result<String> {
        let text = self.read()?;
        ensure!(text.contains(':'), "it is not of the form USER:PASSWORD");
        Ok(text)
    }

    /// What is there now, without the line end.
    fn read(&self) -> Result<String> {
        let text = match self {
            Self::Env(name) => std::env::var(name).ok().context("the variable is not set, or not UTF-8")?,
            Self::File(path) => fs::read_to_string(path)?,
            Self::RepoFile { file, section, prefix } => repo_file::password(file, section, prefix)?,
        };
        let text = text.trim_end_matches(['\r', '\n']);
        ensure!(!text.is_empty(), "there is nothing");
        Ok(text.to_owned())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// A client certificate and its key, which may be in the same file. A directory or a glob stands for the newest
/// `NAME.pem` in it that has a `NAME-key.pem` beside it: subscription-manager calls them `SERIAL.pem`, and renews them
/// under other numbers.
fn entitlement(certificate: &Path, key: Option<&Path>) -> Result<(PathBuf, Option<PathBuf>)> {
    let text = certificate.to_str().context("the path of the client certificate is not UTF-8")?;
    let (dir, pattern) = match certificate.is_dir() {
        true => (certificate, "*.pem"),
        false if text.contains(['*', '?', '[']) => {
            let name = certificate.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            (certificate.parent().context("the client certificate has no directory")?, name)
        }
        false => return Ok((certificate.to_owned(), key.map(Path::to_owned))),
    };
    let glob = globset::Glob::new(pattern)?.compile_matcher();
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        let (Some(name), Some(stem)) = (path.file_name(), path.file_stem().and_then(|stem| stem.to_str()))
        else {
            continue;
        };
        let key = path.with_file_name(format!("{stem}-key.pem"));
        if glob.is_match(name) && key.exists() {
            found.push((fs::metadata(&path)?.modified()?, path, key));
        }
    }
    let (_, certificate, key) = found.into_iter().max().with_context(|| {
        format!("no client certificate NAME.pem with a NAME-key.pem beside it is in {}", dir.display())
    })?;
    Ok((certificate, Some(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entitlements_are_found_as_subscription_manager_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert!(entitlement(dir.path(), None).is_err());
        for name in ["1.pem", "1-key.pem", "ca.pem", "22.pem", "22-key.pem"] {
            fs::write(path(name), name).unwrap();
        }
        let old = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options().write(true).open(path("22.pem")).unwrap().set_modified(old).unwrap();
        let first = (path("1.pem"), Some(path("1-key.pem")));
        assert_eq!(entitlement(dir.path(), None).unwrap(), first);
        assert_eq!(entitlement(&path("*.pem"), None).unwrap(), first);
        assert_eq!(entitlement(&path("2*.pem"), None).unwrap(), (path("22.pem"), Some(path("22-key.pem"))));
        assert!(entitlement(&path("x*.pem"), None).is_err());
        assert_eq!(entitlement(&path("ca.pem"), None).unwrap(), (path("ca.pem"), None));
    }
}
