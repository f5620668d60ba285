//! URLs of repositories and packages.

use crate::package::Arch;

/// A URL for every architecture, with the variable `name` where it speaks of `arch`: as a whole word of a path or
/// of a query.
pub fn with_variable(url: &str, arch: Arch, name: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut out = String::with_capacity(url.len());
    let mut rest = url;
    while let Some(at) = rest.find(arch.rpm()) {
        let (before, after) = (&rest[..at], &rest[at + arch.rpm().len()..]);
        let whole = !before.ends_with(is_word) && !after.starts_with(is_word);
        out.push_str(before);
        out.push_str(if whole { name } else { arch.rpm() });
        rest = after;
    }
    out + rest
}

/// The base URL that package URLs of one repository share: what is before `/Packages/`, or the directory of all of
/// them. None if there is no such thing.
pub fn base<'u>(urls: &[&'u str]) -> Option<&'u str> {
    let first = *urls.first()?;
    let directory = |url: &'u str| url.rsplit_once('/').map(|(directory, _)| directory);
    let below = |base: &str| {
        urls.iter().all(|url| url.strip_prefix(base).is_some_and(|location| location.starts_with('/')))
    };
    let mut candidate = match first.rfind("/Packages/") {
        Some(at) => Some(&first[..at]),
        None => directory(first),
    };
    // a scheme and a host at least
    while let Some(base) = candidate.filter(|base| base.split('/').count() >= 3) {
        if below(base) {
            return Some(base);
        }
        candidate = directory(base);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_are_the_architecture() {
        for (url, expected) in [
            ("https://x/9/x86_64/os", "https://x/9/$arch/os"),
            ("https://x/m?repo=f&arch=x86_64", "https://x/m?repo=f&arch=$arch"),
            ("https://x/el9-x86_64-rpms/x86_64", "https://x/el9-x86_64-rpms/$arch"),
            ("https://x/x86_64_v2/os", "https://x/x86_64_v2/os"),
            ("https://x/os", "https://x/os"),
        ] {
            assert_eq!(with_variable(url, Arch::X86_64, "$arch"), expected);
        }
    }

    #[test]
    fn a_base_is_above_all_packages() {
        for (urls, expected) in [
            (
                &["https://h/r/os/Packages/a/a.rpm", "https://h/r/os/Packages/b/b.rpm"][..],
                Some("https://h/r/os"),
            ),
            (&["https://h/r/a.rpm", "https://h/r/b.rpm"], Some("https://h/r")),
            (&["https://h/r/x/a.rpm", "https://h/r/y/b.rpm"], Some("https://h/r")),
            (&["https://h/r/os/Packages/a/a.rpm", "https://h/r/extra/b.rpm"], Some("https://h/r")),
            (&["https://h/a.rpm", "https://other/b.rpm"], None),
            (&["a.rpm"], None),
            (&[], None),
        ] {
            assert_eq!(base(urls), expected, "{urls:?}");
        }
    }
}
