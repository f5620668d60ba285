//! What a registry asks for before it answers (RFC 9110, 11.6.1): a password, or a token of another server.
//!
//! The latter is docker's protocol, which all public registries speak (distribution: `docs/spec/auth/token.md`,
//! `oauth.md`).

use anyhow::{Context, Result, bail, ensure};
use http_auth::{ChallengeParser, ChallengeRef};
use reqwest::Url;
use reqwest::header::{self, HeaderMap};
use serde::Deserialize;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A user's password.
    Basic,
    /// A token.
    Bearer {
        /// Where tokens are made; its query says what for.
        realm: Url,
    },
}

impl Challenge {
    /// The best that a refusal offers.
    pub fn of(headers: &HeaderMap) -> Result<Self> {
        let mut basic = None;
        for value in headers.get_all(header::WWW_AUTHENTICATE) {
            let text = value.to_str().context("reading what the registry asks for")?;
            for challenge in ChallengeParser::new(text) {
                // the error has a life as short as the text
                let challenge = challenge
                    .map_err(|e| anyhow::anyhow!("{e}"))
                    .context("reading what the registry asks for")?;
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    return bearer(&challenge);
                }
                basic = basic.or(challenge.scheme.eq_ignore_ascii_case("basic").then_some(Self::Basic));
            }
        }
        basic.context("the registry asks for neither a password nor a token")
    }
}

fn bearer(challenge: &ChallengeRef) -> Result<Challenge> {
    let parameter = |name: &str| {
        let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_unescaped())
    };
    let realm = parameter("realm").context("the registry does not say where it has tokens from")?;
    let mut realm: Url = realm.parse().with_context(|| format!("reading the URL {realm}"))?;
    for name in ["service", "scope"] {
        if let Some(value) = parameter(name) {
            realm.query_pairs_mut().append_pair(name, &value);
        }
    }
    Ok(Challenge::Bearer { realm })
}

/// A form that asks for a token in exchange for another.
pub fn refresh(realm: &Url, identity: &str) -> (Url, String) {
    let mut form = Url::clone(realm);
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", "strata")
        .append_pair("refresh_token", identity);
    let mut bare = Url::clone(realm);
    bare.set_query(None);
    (bare, form.query().unwrap_or_default().to_owned())
}

/// The token in a token server's answer.
pub fn token(answer: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    // where, but not what: the answer is a secret
    let Ok(Answer { token, access_token }) = serde_json::from_slice(answer) else {
        bail!("the token server's answer is no JSON object with a token");
    };
    let token = token.or(access_token).context("the token server's answer has no token")?;
    ensure!(!token.is_empty(), "the token server's answer has an empty token");
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(values: &[&'static str]) -> Result<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::WWW_AUTHENTICATE, value.parse().unwrap());
        }
        Challenge::of(&headers)
    }

    #[test]
    fn challenges_are_read() {
        let realm = |url: &str| Challenge::Bearer { realm: url.parse().unwrap() };
        // the first as in distribution's docs/spec/auth/token.md
        for (values, expected) in [
            (
                &[
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:samalba/my-app:pull,push""#,
                ][..],
                realm(
                    "https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Asamalba%2Fmy-app%3Apull%2Cpush",
                ),
            ),
            (&[r#"Basic realm="x""#], Challenge::Basic),
            (&[r#"Basic realm="x", Bearer realm="https://q.io/a?b=c""#], realm("https://q.io/a?b=c")),
            (&[r#"basic realm="x""#, r#"BEARER realm="https://q.io/""#], realm("https://q.io/")),
        ] {
            assert_eq!(challenge(values).unwrap(), expected, "{values:?}");
        }
        for values in
            [&[][..], &["Negotiate"], &[r#"Bearer service="x""#], &[r#"Bearer realm="nonsense""#], &["\"\""]]
        {
            assert!(challenge(values).is_err(), "{values:?}");
        }
    }

    #[test]
    fn refreshing_is_a_form() {
        let realm = "https://q.io/token?service=s&scope=a%3Ab".parse().unwrap();
        let (url, form) = refresh(&realm, "T+/&=");
        assert_eq!(url.as_str(), "https://q.io/token");
        assert_eq!(
            form,
            "service=s&scope=a%3Ab&grant_type=refresh_token&client_id=strata&refresh_token=T%2B%2F%26%3D"
        );
    }
}
