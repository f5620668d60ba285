//! `stream.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::diagnostic::{Mistake, Mistakes, Objection};
use super::reader::{Item, Reader, Table, Text, clean, open};
use super::repo_file;
use super::rules;
use super::variables::{Variables, check_name, references};
use crate::image::pack::Compression;
use crate::package::Arch;
use crate::plan::{ImageFormat, OptUsrlocal, Os, Repo, SameEvr, Secret, Stream, VersionScheme};

/// Keys of `stream.toml`.
pub const KEYS: &[&str] = &[
    "name",
    "openshift",
    "arches",
    "layers",
    "rpmdb",
    "same-evr",
    "match-evr",
    "os",
    "version",
    "image",
    "variables",
    "repo-files",
    "repos",
];

const REPO_KEYS: &[&str] = &[
    "baseurl",
    "mirrorlist",
    "metalink",
    "enabled",
    "gpgkey",
    "gpgcheck",
    "repo_gpgcheck",
    "priority",
    "cost",
    "includepkgs",
    "excludepkgs",
    "module_hotfixes",
    "sslclientcert",
    "sslclientkey",
    "sslcacert",
    "sslverify",
    "proxy",
    "proxy_auth",
    "auth",
    "headers",
];

/// The stream as meant, and what only its layers' manifests need of it.
pub struct StreamFile<'a> {
    pub stream: Stream,
    /// Names of the layers, bottom first.
    pub layers: Vec<Text<'a>>,
    /// Ids of the repositories in the order of the file, and whether they are enabled.
    pub repos: Vec<(String, bool)>,
    pub variables: Variables,
}

/// The architectures the stream is composed for.
pub fn arches(root: &Table) -> Vec<Arch> {
    let texts = root.require("arches").map(|item| item.some_texts()).unwrap_or_default();
    texts.iter().filter_map(|text| text.check(arch)).collect()
}

fn arch(text: &str) -> Result<Arch, Objection> {
    text.parse().map_err(|_| {
        let unknown = Objection::new(format!("unknown architecture `{text}`"));
        match Arch::ALL.into_iter().find(|arch| arch.oci() == text) {
            Some(arch) => unknown.hint(format!("did you mean `{arch}`?")),
            None => unknown.suggest(text, Arch::ALL.map(Arch::rpm)),
        }
    })
}

/// Variables that exist before any is declared.
pub fn first_variables(stream: &str, arch: Arch) -> Variables {
    let pairs = [("arch", arch.rpm()), ("basearch", arch.rpm()), ("stream", stream)];
    Variables(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
}

/// Reads everything but the repositories, which need the variables. Nothing if the layers could not be read
/// without a trail of follow-up mistakes.
pub fn head<'a>(
    root: &Table<'a>,
    stream: &str,
    arch: Arch,
    set: &BTreeMap<String, String>,
) -> Option<StreamFile<'a>> {
    if let Some(name) = root.text("name").filter(|name| name.value != stream) {
        let message = format!("the stream is called `{}`, its folder `{stream}`", name.value);
        name.report(Objection::new(message).hint("give both the same name, or leave `name` out"));
    }
    check_arch(root, arch);
    let openshift = root.text("openshift").and_then(|text| text.checked(rules::version)).map(|t| t.value);
    let os = os(root);
    let layers = layers(root);
    let version = version(root, os.as_ref(), &layers);
    let formats = [("bootc", ImageFormat::Bootc), ("ostree", ImageFormat::Ostree)];
    let image_format = image_choice(root, "format", formats);
    let policies = [("root", OptUsrlocal::Root), ("var", OptUsrlocal::Var)];
    let opt_usrlocal = image_choice(root, "opt-usrlocal", policies);
    let compressions = [
        ("gzip", Compression::Gzip),
        ("zstd", Compression::Zstd),
        ("zstd:chunked", Compression::ZstdChunked),
    ];
    let compression = image_choice(root, "compression", compressions);
    let same_evr = root.get("same-evr").and_then(|item| same_evr(&item));
    let match_evr = match_evr(root);
    let rpmdb = root.text("rpmdb").and_then(|text| text.checked(rules::rootfs_path)).map(|text| text.value);
    let os = os?;
    let variables = variables(root, &os, openshift.as_deref(), set)?;
    if layers.is_empty() {
        return None;
    }
    let stream = Stream {
        name: stream.to_owned(),
        arch,
        os,
        openshift,
        variables: variables.0.clone(),
        repos: BTreeMap::new(),
        rpmdb: rpmdb.unwrap_or_else(|| "/usr/lib/sysimage/rpm".to_owned()),
        version: version?,
        image_format,
        opt_usrlocal,
        compression,
        same_evr,
        match_evr,
    };
    Some(StreamFile { stream, layers, repos: Vec::new(), variables })
}

fn check_arch(root: &Table, arch: Arch) {
    let arches = arches(root);
    if let Some(item) = root.get("arches").filter(|_| !arches.is_empty() && !arches.contains(&arch)) {
        let objection = Objection::new(format!("the stream is not composed for {arch}"));
        item.report(objection.hint(format!("add \"{arch}\", or ask for another architecture with --arch")));
    }
}

fn os(root: &Table) -> Option<Os> {
    let os = root.require("os")?.table(&["id", "name", "version"])?;
    let [id, name, version] = ["id", "name", "version"].map(|key| os.require(key).and_then(|i| i.text()));
    let version = version.and_then(|text| text.checked(rules::version));
    Some(Os { id: id?.value, name: name?.value, version: version?.value })
}

fn layers<'a>(root: &Table<'a>) -> Vec<Text<'a>> {
    let mut layers: Vec<Text<'a>> = Vec::new();
    let names = root.require("layers").map(|item| item.some_texts()).unwrap_or_default();
    for name in names.into_iter().filter_map(|text| text.checked(rules::layer_name)) {
        match layers.iter().any(|l| l.value == name.value) {
            true => name.report(format!("layer `{}` is listed twice", name.value)),
            false => layers.push(name),
        }
    }
    layers
}

fn version(root: &Table, os: Option<&Os>, layers: &[Text]) -> Option<VersionScheme> {
    let table = root.table("version", &["prefix", "dated-by"]);
    let names = || layers.iter().map(|layer| layer.value.as_str());
    let prefix = table.and_then(|t| t.text("prefix"));
    let given = prefix.is_some();
    let prefix = prefix.and_then(|text| text.checked(rules::version_prefix)).map(|text| text.value);
    let dated_by = table.and_then(|t| t.get("dated-by")).map(|item| item.texts());
    for unknown in dated_by.iter().flatten().filter(|text| !names().any(|name| name == text.value)) {
        let objection = Objection::new(format!("unknown layer `{}`", unknown.value));
        unknown.report(objection.suggest(&unknown.value, names()));
    }
    let lower = layers.len().saturating_sub(1).max(1);
    Some(VersionScheme {
        prefix: if given { prefix? } else { default_prefix(&os?.version) },
        dated_by: match dated_by {
            None => names().take(lower).map(str::to_owned).collect(),
            Some(named) => named.into_iter().map(|text| text.value).collect(),
        },
    })
}

/// The first two numbers of the OS version; CentOS Stream has no minor version: `10` is `10.0`.
fn default_prefix(os_version: &str) -> String {
    let mut numbers = os_version.split('.');
    format!("{}.{}", numbers.next().unwrap_or_default(), numbers.next().unwrap_or("0"))
}

/// The value of `key` in `[image]`, one of `choices`, of which the first is the default.
fn image_choice<T: Copy, const N: usize>(
    root: &Table,
    key: &'static str,
    choices: [(&'static str, T); N],
) -> T {
    let text =
        root.table("image", &["format", "opt-usrlocal", "compression"]).and_then(|table| table.text(key));
    let chosen = text.and_then(|text| {
        text.check(|text| {
            let choice = choices.iter().find(|(name, _)| *name == text);
            choice.map(|(_, value)| *value).ok_or_else(|| {
                Objection::new(format!("unknown image {key} `{text}`"))
                    .suggest(text, choices.map(|(name, _)| name))
            })
        })
    });
    chosen.unwrap_or(choices[0].1)
}

/// What goes with a kernel and is of its build.
const KERNEL: [&str; 5] = ["kernel", "kernel-core", "kernel-modules*", "kernel-devel*", "kernel-rt*"];

/// `[match-evr]`: sets of globs by name, of which `kernel` is there by default.
fn match_evr(root: &Table) -> BTreeMap<String, Vec<String>> {
    let mut sets: BTreeMap<String, Vec<String>> =
        [("kernel".to_owned(), KERNEL.map(str::to_owned).to_vec())].into();
    for item in root.get("match-evr").map(|item| item.entries()).unwrap_or_default() {
        let globs = item.texts().into_iter().filter_map(|text| text.checked(rules::glob));
        sets.insert(item.key.to_owned(), globs.map(|text| text.value).collect());
    }
    sets
}

/// `same-evr = true`, or a table with exceptions.
fn same_evr(item: &Item) -> Option<SameEvr> {
    if item.is_boolean() {
        return item.boolean()?.then(SameEvr::default);
    }
    let except = item.table(&["except"])?.texts("except");
    let except = except.into_iter().filter_map(|text| text.checked(rules::glob)).map(|text| text.value);
    Some(SameEvr { except: except.collect() })
}

/// Resolves `[variables]`, which may use each other. Nothing if one of them is mistaken.
fn variables(
    root: &Table,
    os: &Os,
    openshift: Option<&str>,
    set: &BTreeMap<String, String>,
) -> Option<Variables> {
    let mut known = root.reader.variables.clone();
    let major = os.version.split('.').next().unwrap_or_default();
    let fixed =
        [("os.id", &*os.id), ("os.name", &*os.name), ("os.version", &*os.version), ("os.major", major)];
    for (name, value) in fixed.into_iter().chain(openshift.map(|version| ("openshift", version))) {
        known.0.insert(name.to_owned(), value.to_owned());
    }
    let declared = root.get("variables").map(|item| item.entries()).unwrap_or_default();
    let names: Vec<&str> = declared.iter().map(|item| item.key).collect();
    let mut pending = Vec::new();
    let mut fine = true;
    for item in &declared {
        let taken = match known.0.contains_key(item.key) {
            true => Err(Objection::new(format!("`{}` is always there and cannot be set", item.key))),
            false => check_name(item.key),
        };
        let text = item.key_text().check(|_| taken).and_then(|()| item.scalar());
        fine &= text.is_some();
        pending.extend(text.map(|text| (item.key, text)));
    }
    fine &= check_set(root, set, &names);
    for (name, value) in set {
        pending.retain(|(declared, _)| declared != name);
        known.0.insert(name.clone(), value.clone());
    }
    if !names.contains(&"releasever") {
        known.0.entry("releasever".to_owned()).or_insert_with(|| os.version.clone());
    }
    let fine = fine && expand_all(&mut known, pending);
    // dnf's own, by its rule: what is before the first point, and after
    let releasever = known.0.get("releasever").cloned().unwrap_or_default();
    let (major, minor) = releasever.split_once('.').unwrap_or((&releasever, ""));
    for (name, value) in [("releasever_major", major), ("releasever_minor", minor)] {
        known.0.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    fine.then_some(known)
}

/// Only declared variables can be set from outside: anything else is a slip.
fn check_set(root: &Table, set: &BTreeMap<String, String>, declared: &[&str]) -> bool {
    let mut fine = true;
    for name in set.keys().filter(|name| !declared.contains(&name.as_str())) {
        let stream = root.reader.source.path().display();
        let objection = Objection::new(format!("{stream} declares no variable `{name}`"));
        let objection = objection.suggest(name, declared.iter().copied());
        root.reader.mistakes.push(Mistake::new(objection, None));
        fine = false;
    }
    fine
}

/// Expands variables in the order they need each other.
fn expand_all(known: &mut Variables, mut open: Vec<(&str, Text)>) -> bool {
    while !open.is_empty() {
        let names: Vec<&str> = open.iter().map(|(name, _)| *name).collect();
        let ready = |text: &Text| !references(&text.value).iter().any(|r| names.contains(r));
        let (now, later): (Vec<_>, Vec<_>) = open.into_iter().partition(|(_, text)| ready(text));
        if now.is_empty() {
            for (name, text) in later {
                text.report(format!("variable `{name}` runs in a circle"));
            }
            return false;
        }
        for (name, text) in now {
            match known.expand(&text.value) {
                Ok(value) => known.0.insert(name.to_owned(), value),
                Err(unknown) => {
                    text.report_part(unknown);
                    return false;
                }
            };
        }
        open = later;
    }
    true
}

/// Reads `[repos.ID]`, in the order of the file; false for one that is not enabled. The root's variables must
/// be those of the stream.
pub fn repos(root: &Table) -> Vec<(Repo, bool)> {
    let mut repos = Vec::new();
    for item in root.get("repos").map(|item| item.entries()).unwrap_or_default() {
        let named = item.key_text().check(rules::name);
        if let (Some(()), Some(table)) = (named, item.table(REPO_KEYS)) {
            repos.push((repo(&item, &table), table.boolean("enabled").unwrap_or(true)));
        }
    }
    for text in root.texts("repo-files") {
        for (repo, enabled) in repo_file(&text) {
            match repos.iter().any(|(known, _)| known.id == repo.id) {
                true => text.report(format!("it declares repository `{}`, which is there already", repo.id)),
                false => repos.push((repo, enabled)),
            }
        }
    }
    repos
}

fn repo_file(text: &Text) -> Vec<(Repo, bool)> {
    let Some(path) = text.existing_file() else { return Vec::new() };
    match open(&path) {
        Ok(source) => repo_file::repos(Reader { source: &source, ..text.reader }),
        Err(error) => {
            text.report(format!("reading {}: {error}", path.display()));
            Vec::new()
        }
    }
}

fn repo(item: &Item, table: &Table) -> Repo {
    let urls = |key| table.one_or_more(key).iter().filter_map(url).collect::<Vec<_>>();
    let one_url = |key| table.text(key).as_ref().and_then(url);
    let globs = |key| -> Vec<String> {
        let texts = table.texts(key).into_iter().filter_map(|text| text.checked(rules::glob));
        texts.map(|text| text.value).collect()
    };
    let path = |key| table.text(key).map(|text| absolute(&text.path()));
    let repo = Repo {
        id: item.key.to_owned(),
        origin: item.origin(),
        baseurl: urls("baseurl"),
        mirrorlist: one_url("mirrorlist"),
        metalink: one_url("metalink"),
        gpgkey: urls("gpgkey"),
        gpgcheck: table.boolean("gpgcheck").unwrap_or(true),
        repo_gpgcheck: table.boolean("repo_gpgcheck").unwrap_or(false),
        priority: table.integer("priority").unwrap_or(99),
        cost: table.integer("cost").unwrap_or(1000),
        includepkgs: globs("includepkgs"),
        excludepkgs: globs("excludepkgs"),
        module_hotfixes: table.boolean("module_hotfixes").unwrap_or(false),
        sslclientcert: path("sslclientcert"),
        sslclientkey: path("sslclientkey"),
        sslcacert: path("sslcacert"),
        sslverify: table.boolean("sslverify").unwrap_or(true),
        proxy: table.text("proxy").and_then(proxy),
        proxy_auth: table.get("proxy_auth").and_then(|item| secret(&item)),
        auth: table.get("auth").and_then(|item| secret(&item)),
        headers: headers(table),
        skip_if_unavailable: false,
    };
    check_repo(item, table);
    repo
}

fn check_repo(item: &Item, table: &Table) {
    let has = |key| table.get(key).is_some();
    if !has("baseurl") && !has("mirrorlist") && !has("metalink") {
        let objection = Objection::new(format!("repository `{}` has no place to fetch from", item.key));
        item.report_key(objection.hint("give it a `baseurl`, `mirrorlist` or `metalink`"));
    }
    let checked = |key, default| has(key) && table.boolean(key) == Some(true) || !has(key) && default;
    if (checked("gpgcheck", true) || checked("repo_gpgcheck", false)) && !has("gpgkey") {
        let objection =
            Objection::new(format!("repository `{}` has no `gpgkey` to check signatures with", item.key));
        item.report_key(objection.hint("name the key, or take unsigned packages with `gpgcheck = false`"));
    }
    let found_by_name = |text: Text| text.value.ends_with('/') || text.value.contains(['*', '?', '[']);
    let needs_key = has("sslclientcert") && !table.text("sslclientcert").is_some_and(found_by_name);
    if needs_key != has("sslclientkey") {
        let message = format!("repository `{}` has only one of `sslclientcert` and `sslclientkey`", item.key);
        item.report_key(message);
    }
}

/// `auth = { env = "NAME" }` or `{ file = "PATH" }`: where a secret is.
fn secret(item: &Item) -> Option<Secret> {
    let table = item.table(&["env", "file"])?;
    let (env, file) = (table.text("env"), table.text("file"));
    match (env, file) {
        (Some(name), None) => Some(Secret::Env(name.value)),
        (None, Some(path)) => Some(Secret::File(absolute(&path.path()))),
        _ => {
            let objection = Objection::new(format!("`{}` does not say where the secret is", item.key));
            item.report(objection.hint("write { env = \"VARIABLE\" } or { file = \"PATH\" }"));
            None
        }
    }
}

fn headers(table: &Table) -> BTreeMap<String, Secret> {
    let items = table.get("headers").map(|item| item.entries()).unwrap_or_default();
    items.iter().filter_map(|item| Some((item.key.to_owned(), secret(item)?))).collect()
}

/// The URL of a proxy, or `_none_`.
pub(super) fn proxy(text: Text) -> Option<String> {
    let is_url = ["http://", "https://", "socks5://", "socks5h://"].iter().any(|s| text.value.starts_with(s));
    if text.value != "_none_" && !is_url {
        let objection = Objection::new(format!("`{}` is no URL of a proxy", text.value));
        text.report(objection.hint("write http://HOST:PORT, or _none_ to use none"));
        return None;
    }
    without_userinfo(&text)?;
    Some(text.value)
}

/// A URL is shown in messages and logs, so it may hold no password. Nor is the line shown that does.
fn without_userinfo(text: &Text) -> Option<()> {
    let authority = text.value.split_once("://").map_or("", |(_, rest)| rest).split(['/', '?', '#']).next();
    if authority.is_some_and(|authority| authority.contains('@')) {
        let message = format!("{}: the URL has a user or a password in it", text.origin());
        let objection = Objection::new(message).hint(
            "say where USER:PASSWORD is instead: `auth = { env = \"VARIABLE\" }` or `auth = { file = \"PATH\" }`",
        );
        text.reader.mistakes.push(Mistake::new(objection, None));
        return None;
    }
    Some(())
}

/// A URL as it is, or a path relative to the manifest as a `file://` URL; no trailing slash.
pub(super) fn url(text: &Text) -> Option<String> {
    let url = match text.value.split_once("://") {
        None => format!("file://{}", absolute(&text.path()).display()),
        Some(("http" | "https" | "file", rest)) if !rest.is_empty() => {
            without_userinfo(text)?;
            text.value.clone()
        }
        Some(_) => {
            let objection =
                Objection::new(format!("`{}` is no URL packages can be fetched from", text.value));
            text.report(objection.hint("write an http://, https:// or file:// URL, or a path"));
            return None;
        }
    };
    Some(url.trim_end_matches('/').to_owned())
}

pub(super) fn absolute(path: &Path) -> PathBuf {
    // fails only for an empty path, or if the working directory is gone
    clean(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}

/// The mistake of naming a stream that is not there.
pub fn missing(manifests: &Path, stream: &str, mistakes: &Mistakes) {
    let streams = super::streams(manifests);
    let objection = Objection::new(format!("there is no stream `{stream}` in {}", manifests.display()));
    let objection = match streams.is_empty() {
        true => objection.hint(
            "a stream is a folder with a file stream.toml; name the folder of streams with --manifests",
        ),
        false => objection.suggest(stream, streams.iter().map(String::as_str)),
    };
    mistakes.push(Mistake::new(objection, None));
}
