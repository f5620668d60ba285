//! Variables: `$name` and `${name}` in the strings of manifests.

use std::collections::BTreeMap;

use super::diagnostic::{Fault, Objection};

/// Values by name. Names with a dot are strata's own.
#[derive(Clone, Debug, Default)]
pub struct Variables(pub BTreeMap<String, String>);

impl Variables {
    pub fn get(&self, name: &str) -> Result<&str, Objection> {
        self.0
            .get(name)
            .map(String::as_str)
            .ok_or_else(|| Objection::new(format!("unknown variable `{name}`")).suggest(name, self.names()))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Replaces `$name` and `${name}` by values, and `$$` by `$`.
    pub fn expand(&self, text: &str) -> Result<String, Fault> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            expanded.push_str(&rest[..at]);
            let start = text.len() - rest.len() + at;
            let (reference, after) = split_reference(&rest[at + 1..]);
            let part = start..text.len() - after.len();
            match reference {
                Reference::Dollar => expanded.push('$'),
                Reference::Name(name) => {
                    expanded.push_str(self.get(name).map_err(|objection| Fault { part, objection })?);
                }
                Reference::None => return Err(Fault { part, objection: lone_dollar() }),
            }
            rest = after;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

fn lone_dollar() -> Objection {
    Objection::new("`$` is not followed by a variable's name")
        .hint("write `$name`, `${name}`, or `$$` for a dollar sign")
}

/// The names a text refers to.
pub fn references(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (reference, after) = split_reference(&rest[at + 1..]);
        if let Reference::Name(name) = reference {
            names.push(name);
        }
        rest = after;
    }
    names
}

enum Reference<'t> {
    Dollar,
    Name(&'t str),
    None,
}

/// Splits what follows a `$` into the reference and the rest.
fn split_reference(text: &str) -> (Reference<'_>, &str) {
    if let Some(rest) = text.strip_prefix('$') {
        return (Reference::Dollar, rest);
    }
    if let Some((name, rest)) = text.strip_prefix('{').and_then(|t| t.split_once('}')) {
        return (Reference::Name(name), rest);
    }
    let end = text.find(|c: char| !is_name_char(c)).unwrap_or(text.len());
    match &text[..end] {
        "" => (Reference::None, text),
        name => (Reference::Name(name), &text[end..]),
    }
}

/// dnf's rule (dnf.conf(5)): letters, digits and `_`.
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Refuses names that could not be referred to.
pub fn check_name(name: &str) -> Result<(), Objection> {
    if name.is_empty() || !name.chars().all(is_name_char) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Objection::new(format!("`{name}` cannot be the name of a variable"))
            .hint("names are made of letters, digits and `_`, and begin with no digit"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let pairs = [("arch", "x86_64"), ("os.version", "9.6"), ("empty", "")];
        Variables(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into())
    }

    #[test]
    fn expands_both_forms() {
        for (text, expanded) in [
            ("plain", "plain"),
            ("$arch", "x86_64"),
            ("a/$arch/b", "a/x86_64/b"),
            ("${arch}_${os.version}", "x86_64_9.6"),
            ("$arch.${empty}rpm", "x86_64.rpm"),
            ("$$arch $$", "$arch $"),
            ("ä$archö", "äx86_64ö"),
        ] {
            assert_eq!(variables().expand(text).unwrap(), expanded, "{text}");
        }
    }

    #[test]
    fn says_where_the_unknown_stands() {
        for (text, part) in
            [("a $rach", 2..7), ("${os.verson}", 0..12), ("5$", 1..2), ("$(x)", 0..1), ("${x", 0..1)]
        {
            assert_eq!(variables().expand(text).unwrap_err().part, part, "{text}");
        }
    }
}
