//! Accounts that a package asks for without a scriptlet (rpm 4.19 and later: `docs/manual/users_and_groups.md`).
//!
//! rpmbuild turns the package's sysusers.d lines into provides, `user(NAME) = LINE` with the line in base64;
//! rpm has them made before the package's %pre. Without a version they only say who makes an account, as on
//! EL9, where %pre does.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::package::header::Header;
use crate::package::{Comparison, Dependency};
use crate::sysusers::Entry;

/// The sysusers.d entries that `header` brings.
pub(super) fn entries(header: &Header) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for provide in header.provides()? {
        let provide = provide.dependency;
        if let Some(line) = encoded(&provide) {
            let entry = decode(line).with_context(|| format!("reading the provide `{provide}`"))?;
            entries.extend(entry);
        }
    }
    Ok(entries)
}

/// The encoded line of a provide, if it has one.
fn encoded(provide: &Dependency) -> Option<&str> {
    let kinds = ["user(", "group(", "groupmember("];
    match &provide.version {
        Some((Comparison::Eq, evr)) if kinds.iter().any(|kind| provide.name.starts_with(kind)) => {
            Some(&evr.version)
        }
        _ => None,
    }
}

fn decode(line: &str) -> Result<Option<Entry>> {
    let line = STANDARD.decode(line).context("its version is no base64")?;
    // some encoders count the terminating NUL
    let line = String::from_utf8(line).context("it is no UTF-8")?;
    Entry::parse(line.trim_end_matches('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::Evr;

    #[test]
    fn lines_are_in_the_versions_of_provides() {
        let line = |name: &str, version: Option<&str>| {
            let version = version.map(|version| (Comparison::Eq, Evr::new(0, version, "")));
            encoded(&Dependency { name: name.to_owned(), version, pre: false }).map(str::to_owned)
        };
        assert_eq!(line("user(foo)", Some("dSBmb28=")).as_deref(), Some("dSBmb28="));
        assert!(line("groupmember(a/b)", Some("bSBhIGI=")).is_some());
        assert_eq!(line("user(foo)", None), None);
        assert_eq!(line("users", Some("1.0")), None);

        assert_eq!(decode("dSBmb28=").unwrap(), Entry::parse("u foo").unwrap());
        assert_eq!(decode("dSBmb28A").unwrap(), Entry::parse("u foo").unwrap());
        for wrong in ["1.0", "dSBmb28", "eCBmb28=", "/w=="] {
            assert!(decode(wrong).is_err(), "{wrong}");
        }
    }
}
