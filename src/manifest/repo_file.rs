//! `.repo` files, taken as dnf takes them: dnf.conf(5), and libdnf's `conf/ConfigParser.cpp` for the syntax.
//!
//! Variables are expanded by dnf 5's rules, which are dnf 4's and `${name:-word}`, `${name:+word}`. A password stays
//! where it is: the plan has the file and the section.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::diagnostic::{Objection, Span};
use super::reader::{Reader, Text};
use super::variables::Variables;
use super::{rules, stream};
use crate::plan::{Repo, Secret};

/// `[NAME]`, and the `KEY = VALUE` lines below it.
struct Section<'a> {
    name: &'a str,
    span: Span,
    /// Values with the lines that continue them; where two have one key, the last counts.
    values: Vec<(&'a str, String, Span)>,
}

/// The repositories of a file, in its order; false for one that is not enabled.
pub fn repos(reader: Reader) -> Vec<(Repo, bool)> {
    let sections = match sections(reader.source.text()) {
        Ok(sections) => sections,
        Err((span, objection)) => {
            reader.text("", span).report(objection);
            return Vec::new();
        }
    };
    // [main] is dnf's own
    let sections = sections.iter().filter(|section| section.name != "main");
    sections
        .filter_map(|section| Some((repo(section, reader)?, section.flag("enabled", true, reader))))
        .collect()
}

/// The `username` and `password` of a section, or those keys with a prefix: `USER:PASSWORD`.
pub fn password(path: &Path, section: &str, prefix: &str) -> Result<String> {
    let text = std::fs::read_to_string(path)?;
    // what is wrong is not repeated here: the line may be the password's
    let sections = sections(&text).ok().context("it is no .repo file any more")?;
    let section = sections.iter().rfind(|found| found.name == section).context("the section is gone")?;
    let value = |key: &str| {
        let key = format!("{prefix}{key}");
        section.value(&key).map(|(value, _)| value).with_context(|| format!("it has no `{key}`"))
    };
    Ok(format!("{}:{}", value("username")?, value("password")?))
}

fn sections(text: &str) -> Result<Vec<Section<'_>>, (Span, Objection)> {
    let mut sections: Vec<Section> = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let (start, written) = (at, line.trim_end());
        at += line.len();
        let span = Span { start, end: start + written.len() };
        if written.is_empty() || written.starts_with(['#', ';']) {
            continue;
        }
        let fail = |message: &str| (span, Objection::new(message));
        if let Some(rest) = written.strip_prefix('[') {
            let name = rest.split_once(']').ok_or_else(|| fail("the `]` is missing"))?.0;
            sections.push(Section { name, span, values: Vec::new() });
            continue;
        }
        let values =
            &mut sections.last_mut().ok_or_else(|| fail("a value stands above the first [section]"))?.values;
        if written.starts_with([' ', '\t']) {
            let (_, value, _) = values.last_mut().ok_or_else(|| fail("the line continues nothing"))?;
            *value = format!("{value}\n{}", written.trim_start());
            continue;
        }
        let (key, value) =
            written.split_once('=').ok_or_else(|| fail("expected `[section]` or `key = value`"))?;
        values.push((key.trim(), value.trim().to_owned(), span));
    }
    Ok(sections)
}

impl Section<'_> {
    fn value(&self, key: &str) -> Option<(&str, Span)> {
        self.values.iter().rfind(|(known, ..)| *known == key).map(|(_, value, span)| (value.as_str(), *span))
    }

    /// A value with its variables expanded; none if it is empty.
    fn text<'a>(&self, key: &str, reader: Reader<'a>) -> Option<Text<'a>> {
        let (value, span) = self.value(key)?;
        let text = reader.text(value, span);
        let value = text.check(|value| expand(value, reader.variables))?;
        (!value.is_empty()).then_some(Text { value, ..text })
    }

    /// A list, by white space and commas.
    fn list<'a>(&self, key: &str, reader: Reader<'a>) -> Vec<Text<'a>> {
        let Some(text) = self.text(key, reader) else { return Vec::new() };
        let words =
            text.value.split(|c: char| c.is_ascii_whitespace() || c == ',').filter(|word| !word.is_empty());
        words.map(|word| Text { value: word.to_owned(), ..text.clone() }).collect()
    }

    fn flag(&self, key: &str, default: bool, reader: Reader) -> bool {
        let value = self.text(key, reader).and_then(|text| {
            text.check(|value| match value.to_ascii_lowercase().as_str() {
                "1" | "yes" | "true" | "on" => Ok(true),
                "0" | "no" | "false" | "off" => Ok(false),
                _ => Err(Objection::new(format!("`{value}` is neither yes nor no"))),
            })
        });
        value.unwrap_or(default)
    }

    fn number(&self, key: &str, default: i32, reader: Reader) -> i32 {
        let parse = |text: Text| {
            text.check(|value| value.parse().map_err(|_| Objection::new(format!("`{value}` is no number"))))
        };
        self.text(key, reader).and_then(parse).unwrap_or(default)
    }
}

fn repo(section: &Section, reader: Reader) -> Option<Repo> {
    let head = reader.text(section.name, section.span);
    head.check(rules::name)?;
    let urls = |key| section.list(key, reader).iter().filter_map(stream::url).collect::<Vec<_>>();
    let one_url = |key| section.text(key, reader).as_ref().and_then(stream::url);
    let globs = |key| {
        let texts = section.list(key, reader).into_iter().filter_map(|text| text.checked(rules::glob));
        texts.map(|text| text.value).collect::<Vec<_>>()
    };
    let path = |key| section.text(key, reader).map(|text| stream::absolute(&text.path()));
    let flag = |key, default| section.flag(key, default, reader);
    let (mut mirrorlist, mut metalink) = (one_url("mirrorlist"), one_url("metalink"));
    // dnf tells by the name (libdnf: `repo/Repo.cpp`)
    if metalink.is_none() && mirrorlist.as_ref().is_some_and(|url| url.contains("metalink")) {
        metalink = mirrorlist.take();
    }
    let password = |prefix: &'static str| {
        let has = |key: &str| section.value(&format!("{prefix}{key}")).is_some();
        let (file, section) = (reader.source.path().to_owned(), section.name.to_owned());
        (has("username") && has("password")).then_some(Secret::RepoFile { file, section, prefix })
    };
    let repo = Repo {
        id: section.name.to_owned(),
        origin: head.origin(),
        baseurl: urls("baseurl"),
        mirrorlist,
        metalink,
        gpgkey: urls("gpgkey"),
        gpgcheck: flag("gpgcheck", true),
        repo_gpgcheck: flag("repo_gpgcheck", false),
        priority: section.number("priority", 99, reader),
        cost: section.number("cost", 1000, reader),
        includepkgs: globs("includepkgs"),
        excludepkgs: [globs("excludepkgs"), globs("exclude")].concat(),
        module_hotfixes: flag("module_hotfixes", false),
        sslclientcert: path("sslclientcert"),
        sslclientkey: path("sslclientkey"),
        sslcacert: path("sslcacert"),
        sslverify: flag("sslverify", true),
        proxy: section.text("proxy", reader).and_then(stream::proxy),
        proxy_auth: password("proxy_"),
        auth: password(""),
        headers: BTreeMap::new(),
        skip_if_unavailable: flag("skip_if_unavailable", false),
    };
    if repo.baseurl.is_empty() && repo.mirrorlist.is_none() && repo.metalink.is_none() {
        head.report(format!("repository `{}` has no place to fetch from", repo.id));
    }
    Some(repo)
}

/// Expands `$name`, `${name}`, `${name:-word}` (the word if the variable is not there or empty) and `${name:+word}` (the
/// word if it is neither); in words too. A dollar sign before anything else stays.
fn expand(text: &str, variables: &Variables) -> Result<String, Objection> {
    let name_length =
        |text: &str| text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let (mut expanded, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        expanded += before;
        let braced = after.strip_prefix('{').and_then(|inner| Some((inner, closing(inner)?)));
        let (inner, next) = match braced {
            Some((inner, end)) => (&inner[..end], &inner[end + 1..]),
            None => after.split_at(name_length(after)),
        };
        let (name, word) = inner.split_at(name_length(inner));
        let value = variables.get(name).ok().filter(|value| !value.is_empty());
        match (name, word.split_at_checked(2)) {
            ("", _) => {
                expanded.push('$');
                rest = after;
                continue;
            }
            (_, None) if word.is_empty() => expanded += variables.get(name)?,
            (_, Some((":-", word))) => {
                expanded += &value.map_or_else(|| expand(word, variables), |v| Ok(v.to_owned()))?
            }
            (_, Some((":+", word))) => {
                expanded += &value.map_or_else(|| Ok(String::new()), |_| expand(word, variables))?
            }
            _ => return Err(Objection::new(format!("`${{{inner}}}` cannot be expanded"))),
        }
        rest = next;
    }
    Ok(expanded + rest)
}

/// Where the brace is that closes the one before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1;
    text.find(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_as_dnf_does() {
        let pairs = [("releasever", "9"), ("empty", ""), ("arch", "x86_64")];
        let variables = Variables(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        for (text, expanded) in [
            ("a/$releasever/${arch}/b", "a/9/x86_64/b"),
            ("$releasever-$arch.", "9-x86_64."),
            ("${none:-x}${empty:-y}${arch:-z}", "xyx86_64"),
            ("${none:+x}${empty:+y}${arch:+z}", "z"),
            ("${none:-a${releasever}b}c", "a9bc"),
            ("$ $/ 5$", "$ $/ 5$"),
        ] {
            assert_eq!(expand(text, &variables).unwrap(), expanded, "{text}");
        }
        assert!(expand("$none", &variables).is_err());
        assert!(expand("${arch:?x}", &variables).is_err());
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        for (text, message) in [
            ("a = b\n", "above the first"),
            ("[a\n", "`]`"),
            ("[a]\n b\n", "continues nothing"),
            ("[a]\nb\n", "key = value"),
        ] {
            let (_, objection) = sections(text).err().unwrap();
            assert!(objection.message.contains(message), "{text}: {}", objection.message);
        }
    }
}
