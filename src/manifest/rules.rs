//! What single strings of a manifest may look like.

use globset::GlobBuilder;

use super::diagnostic::Objection;
use crate::digest::Digest;
use crate::image::chunk;
use crate::image::reference::Reference;
use crate::package::Evr;

type Verdict<T = ()> = Result<T, Objection>;

/// Names of streams, layers and repositories become file names and parts of image references.
pub fn name(text: &str) -> Verdict {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || !text.chars().all(allowed) || !text.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Err(Objection::new(format!("`{text}` cannot be a name"))
            .hint("names are made of letters, digits, `.`, `_` and `-`, and begin with a letter or digit"));
    }
    Ok(())
}

/// The name of a layer: part of an image reference, and the file `NAME.toml` beside `stream.toml`.
pub fn layer_name(text: &str) -> Verdict {
    name(text)?;
    match text {
        "scratch" | "stream" => Err(Objection::new(format!("a layer cannot be called `{text}`"))),
        _ if text.contains(|c: char| c.is_ascii_uppercase()) => {
            Err(Objection::new(format!("`{text}` cannot name an image"))
                .hint(format!("write `{}`", text.to_lowercase())))
        }
        _ => Ok(()),
    }
}

/// Name components of the distribution spec (`spec.md`, Pull), joined by `/`.
pub fn image_name(text: &str) -> Verdict {
    let component = |part: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        part.chars().all(allowed) && ends(part.chars().next()) && ends(part.chars().next_back())
    };
    if !text.split('/').all(component) {
        return Err(Objection::new(format!("`{text}` cannot name an image")).hint(
            "lower-case letters, digits, and `.`, `_`, `-` between them; the tag is made by the build",
        ));
    }
    Ok(())
}

/// How many blobs a layer may have: [`chunk::LEAST`] at least, [`chunk::MOST`] at most.
pub fn max_layers(most: usize) -> Verdict {
    match most {
        chunk::LEAST..=chunk::MOST => Ok(()),
        _ => Err(Objection::new(format!("a layer cannot have {most} blobs")).hint(format!(
            "write a number from {} to {}",
            chunk::LEAST,
            chunk::MOST
        ))),
    }
}

/// An absolute path in the rootfs, as the kernel would print it.
pub fn rootfs_path(text: &str) -> Verdict {
    let Some(relative) = text.strip_prefix('/') else {
        return Err(
            Objection::new(format!("`{text}` is not an absolute path")).hint(format!("write `/{text}`"))
        );
    };
    if relative.is_empty() {
        return Err(Objection::new("the path is the root directory itself"));
    }
    let odd = |part: &&str| matches!(*part, "" | "." | "..");
    if let Some(part) = relative.split('/').find(odd) {
        let what = if part.is_empty() { "an empty part".to_owned() } else { format!("`{part}`") };
        return Err(Objection::new(format!("`{text}` has {what}")).hint("write the path straight"));
    }
    if text.contains(char::is_control) {
        return Err(Objection::new("the path has a control character"));
    }
    Ok(())
}

/// An absolute path in the rootfs with wildcards.
pub fn rootfs_glob(text: &str) -> Verdict {
    rootfs_path(text)?;
    glob(text)
}

/// What a symbolic link holds: any text the kernel takes.
pub fn link_target(text: &str) -> Verdict {
    match text.contains('\0') || text.len() > 4095 {
        true => Err(Objection::new("no link can point there")),
        false => Ok(()),
    }
}

/// `*`, `?`, `[...]`
pub fn glob(text: &str) -> Verdict {
    GlobBuilder::new(text)
        .build()
        .map(|_| ())
        .map_err(|e| Objection::new(format!("`{text}` is not a glob: {}", e.kind())))
}

/// A stream of a module: `nodejs:18`.
pub fn module_stream(text: &str) -> Verdict {
    let part = |part: &str| !part.is_empty() && !part.contains([':', '/', '@', ' ']);
    match text.split_once(':') {
        Some((name, stream)) if part(name) && part(stream) => Ok(()),
        _ => Err(Objection::new(format!("`{text}` is not a stream of a module"))
            .hint("write `NAME:STREAM`, as in `nodejs:18`")),
    }
}

/// Permission bits in octal: `0644`, `4755`.
pub fn mode(text: &str) -> Verdict<u32> {
    let octal = (3..=4).contains(&text.len()).then(|| u32::from_str_radix(text, 8).ok()).flatten();
    octal.filter(|_| !text.starts_with('+')).ok_or_else(|| {
        Objection::new(format!("`{text}` is not a file mode"))
            .hint("write three or four octal digits, such as \"0644\"")
    })
}

/// The name of a user or group (rules of useradd(8), `$` left out), or a number.
pub fn account(text: &str) -> Verdict {
    if text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u32>().is_ok() {
        return Ok(());
    }
    account_name(text)
}

/// The name of a user or group, as useradd(8) takes it.
pub fn account_name(text: &str) -> Verdict {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !text.starts_with(first) || !text.chars().all(allowed) || text.len() > 32 {
        return Err(Objection::new(format!("`{text}` cannot be the name of a user or group"))
            .hint("at most 32 letters, digits, `_`, `-` and `.`, beginning with a letter or `_`"));
    }
    Ok(())
}

/// A field of passwd(5) that is free text.
pub fn passwd_field(text: &str) -> Verdict {
    match text.contains(|c: char| c == ':' || c.is_control()) {
        true => Err(Objection::new("a colon or control character would break /etc/passwd")),
        false => Ok(()),
    }
}

/// A home directory or shell in passwd(5).
pub fn home(text: &str) -> Verdict {
    passwd_field(text)?;
    if text == "/" { Ok(()) } else { rootfs_path(text) }
}

/// Suffixes of systemd units (systemd.unit(5)).
const UNIT_TYPES: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];

/// The name of a systemd unit, with suffix.
pub fn unit(text: &str) -> Verdict {
    let suffix = text.rsplit_once('.').map(|(stem, suffix)| (!stem.is_empty(), suffix));
    if !matches!(suffix, Some((true, suffix)) if UNIT_TYPES.contains(&suffix)) {
        return Err(Objection::new(format!("`{text}` is not the full name of a unit"))
            .hint(format!("did you mean `{text}.service`?")));
    }
    match text.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c)) {
        true => Ok(()),
        false => Err(Objection::new(format!("`{text}` has a character that unit names cannot have"))),
    }
}

/// The name of a `.target` unit.
pub fn target(text: &str) -> Verdict {
    unit(text)?;
    match text.ends_with(".target") {
        true => Ok(()),
        false => Err(Objection::new(format!("`{text}` is not a target"))),
    }
}

/// What is there to be removed: a package, but no group.
pub fn removed_spec(text: &str) -> Verdict {
    match text.starts_with('@') {
        true => Err(Objection::new(format!("`{text}` is a group, which cannot be removed"))
            .hint("list the packages that are not wanted")),
        false => package_spec(text),
    }
}

/// A package as dnf takes it: one word, `name >= evr`, a rich dependency in parentheses, or `@` and a group.
pub fn package_spec(text: &str) -> Verdict {
    if let Some(group) = text.strip_prefix('@') {
        return match group.split('/').next().is_some_and(|name| !name.is_empty() && name.trim() == name) {
            true => Ok(()),
            false => Err(Objection::new(format!("`{text}` names no group or module"))
                .hint("write `@core`, `@Minimal Install`, `@core/mandatory` or `@nodejs:18/minimal`")),
        };
    }
    if text.starts_with('(') {
        return match text.ends_with(')') {
            true => Ok(()),
            false => Err(Objection::new("the dependency has no closing parenthesis")),
        };
    }
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        [_] if text.trim() == text => Ok(()),
        [_] => Err(Objection::new("the name has blanks around it")),
        [_, "<" | "<=" | "=" | ">=" | ">", version] => evr(version).map(|_| ()),
        [_, "==", _] => Err(Objection::new("`==` does not compare packages").hint("write `=`")),
        _ => Err(Objection::new(format!("`{text}` is not one package"))
            .hint("put each package in a string of its own")),
    }
}

/// The name of a package, without version.
pub fn package_name(text: &str) -> Verdict {
    match text.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c)) {
        true => Ok(()),
        false => Err(Objection::new(format!("`{text}` is not the name of a package"))),
    }
}

/// `[epoch:]version[-release]`
pub fn evr(text: &str) -> Verdict<Evr> {
    text.parse().map_err(|e: crate::package::ParseEvrError| Objection::new(e.to_string()))
}

/// `YYYY-MM-DD`
pub fn date(text: &str) -> Verdict {
    // jiff would also take a time of day
    if text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok() {
        return Ok(());
    }
    Err(Objection::new(format!("`{text}` is not a date")).hint("write year, month and day: 2025-03-31"))
}

/// A field of os-release(5).
pub fn os_release_field(text: &str) -> Verdict {
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if !text.starts_with(|c: char| c.is_ascii_uppercase()) || !text.chars().all(allowed) {
        return Err(Objection::new(format!("`{text}` cannot be a field of os-release"))
            .hint("fields are made of upper-case letters, digits and `_`"));
    }
    Ok(())
}

/// A text that must stay on its line: os-release values, sysusers.d and tmpfiles.d lines.
pub fn one_line(text: &str) -> Verdict {
    match text.contains(char::is_control) {
        true => Err(Objection::new("the text is more than a line").hint("write one string per line")),
        false => Ok(()),
    }
}

/// The name of an environment variable.
pub fn environment_name(text: &str) -> Verdict {
    match text.is_empty() || text.contains(['=', '\0']) {
        true => Err(Objection::new(format!("`{text}` cannot be the name of an environment variable"))),
        false => Ok(()),
    }
}

/// The key of a label or annotation.
pub fn label(text: &str) -> Verdict {
    match text.is_empty() || text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        true => Err(Objection::new(format!("`{text}` cannot be the key of a label"))),
        false => Ok(()),
    }
}

/// One kernel argument: `KEY` or `KEY=VALUE`, blanks only inside double quotes (kernel: `lib/cmdline.c`).
pub fn kernel_argument(text: &str) -> Verdict {
    one_line(text)?;
    let mut quoted = false;
    for c in text.chars() {
        quoted ^= c == '"';
        if c.is_whitespace() && !quoted {
            return Err(Objection::new(format!("`{text}` is more than one kernel argument"))
                .hint("put each argument in a string of its own"));
        }
    }
    match quoted {
        true => Err(Objection::new("the argument has no closing quote")),
        false => Ok(()),
    }
}

/// An image pinned by digest.
pub fn image(text: &str) -> Verdict<Reference> {
    if text.rsplit_once('@').is_some_and(|(_, digest)| digest.parse::<Digest>().is_err()) {
        return Err(Objection::new("the digest is not `sha256:` and 64 hexadecimal digits"));
    }
    let image: Reference = text.parse().map_err(|_| {
        Objection::new(format!("`{text}` names no transport")).hint(format!("write `docker://{text}`"))
    })?;
    match image.digest {
        Some(_) => Ok(image),
        None => Err(Objection::new(format!("`{text}` is not pinned by digest"))
            .hint("`skopeo inspect --format '{{.Digest}}' IMAGE` prints it; append `@sha256:...`")),
    }
}

/// `X.Y`, the part of a version in front of the date.
pub fn version_prefix(text: &str) -> Verdict {
    let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u32>().is_ok();
    match text.split_once('.') {
        Some((x, y)) if number(x) && number(y) => Ok(()),
        _ => Err(Objection::new(format!("`{text}` is not of the form X.Y"))
            .hint("versions are X.Y.YYYYMMDD-N, such as 9.6.20250203-0")),
    }
}

/// A version such as `9.6` or `10`.
pub fn version(text: &str) -> Verdict {
    match text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())) {
        true => Ok(()),
        false => {
            Err(Objection::new(format!("`{text}` is not a version")).hint("write numbers and dots: \"9.6\""))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(rule: fn(&str) -> Verdict, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(rule(text), Ok(()), "{text}");
        }
        for text in bad {
            assert!(rule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths() {
        let bad = ["", "/", "etc/motd", "/etc/../x", "/etc/./x", "/etc//x", "/etc/", "/a\nb"];
        verdicts(rootfs_path, &["/etc/motd", "/usr/lib/..data", "/a b"], &bad);
        verdicts(rootfs_glob, &["/etc/rc.d/rc*.d/*network", "/a/[bc]"], &["/a/[b", "a*"]);
    }

    #[test]
    fn modes() {
        for (text, mode_) in [("0644", 0o644), ("755", 0o755), ("4755", 0o4755)] {
            assert_eq!(mode(text), Ok(mode_));
        }
        for text in ["", "7", "0o644", "888", "06440", "+644", "rw-"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn packages() {
        let good = [
            "bash",
            "podman >= 2:5.0-1",
            "(a if b)",
            "/usr/bin/vi",
            "glibc-langpack-*",
            "libfoo.so.1()(64bit)",
        ];
        let bad = ["cri-o cri-tools", " bash", "bash ", "a >= 1/2", "a == 1", "(a if b", "a >="];
        verdicts(package_spec, &good, &bad);
    }

    #[test]
    fn names() {
        verdicts(
            unit,
            &["crio.service", "a@b.timer", "dev-x\\x2dy.swap"],
            &["crio", ".service", "a b.service", "a.conf"],
        );
        verdicts(account, &["root", "0", "_x-y"], &["", "a:b", "-x", "99999999999", "a b"]);
        verdicts(name, &["rhel-9.6", "c10s"], &["", "../x", ".x", "a/b", "-a"]);
        verdicts(image_name, &["rhel-coreos", "openshift/node"], &["", "Rhel", "a//b", "a:1", "-a"]);
        verdicts(os_release_field, &["VARIANT_ID"], &["", "variant", "1A", "A-B"]);
        verdicts(kernel_argument, &["quiet", "a=\"b c\""], &["a b", "a=\"b", "a\nb"]);
    }

    #[test]
    fn images_are_pinned() {
        let pinned = format!("docker://quay.io/a/b@sha256:{}", "0a".repeat(32));
        let truncated = &pinned[..pinned.len() - 1];
        verdicts(
            |text| image(text).map(drop),
            &[&pinned],
            &["docker://quay.io/a/b:latest", "quay.io/a/b", truncated],
        );
    }

    #[test]
    fn dates() {
        verdicts(
            date,
            &["2025-03-31", "2024-02-29"],
            &["2025-02-29", "31.3.2025", "2025-3-1", "2025-03-31T00:00:00", ""],
        );
    }

    #[test]
    fn versions() {
        verdicts(version_prefix, &["9.6", "418.94"], &["9", "9.6.1", "x.y", ".", "9."]);
        verdicts(version, &["10", "9.6"], &["", "9.", "c10s"]);
    }
}
