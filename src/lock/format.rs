//! The lockfile's format, version 1.
//!
//! Made for review: one table per package, sorted by name, EVR and architecture, no noise; a one-package
//! update is a few changed lines. After the packages the [ledger](crate::ledger): a table per user and group that
//! builds of this layer made, sorted by name, none if they made none. Builds add to it; nothing else changes it.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::is_interrupted;
use crate::accounts::Ids;
use crate::digest::Digest;
use crate::error::{HintExt, hinted};
use crate::ledger::Ledger;
use crate::package::{Arch, Evr, Nevra};
use crate::plan::{Layer, Plan};
use crate::replace::replace;
use crate::repo;

/// The version this program reads and writes.
pub(super) const VERSION: u32 = 1;

/// What to do about a lockfile that cannot be used.
const RESTORE: &str = "restore it; or delete it, with the ids it keeps, and run `strata lock`";

/// What to do about a ledger that cannot be used, as after a merge of two branches that gave an id away.
const REPAIR_LEDGER: &str =
    "keep the entry of the account that released images have, delete the other, and build again";

/// Keys of the ledger's tables.
const USER: &str = "user";
const GROUP: &str = "group";

/// Bytes of one package file: no package comes near, and the sum of a lock's sizes cannot overflow.
const MAX_SIZE: u64 = 1 << 40;

const HEADER: &str = "# Made by `strata lock`; review and commit it, do not edit it.\n";

/// The locked packages of one layer on one architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lockfile {
    /// Format version, 1.
    pub version: u32,
    /// Stream name.
    pub stream: String,
    /// Layer name.
    pub layer: String,
    /// Architecture.
    pub arch: Arch,
    /// Digest of the compiled plan's package request.
    pub manifest: Digest,
    /// Digest of the parent layer's package list; absent for the bottom layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Digest>,
    /// Digest of the lock below ([`Lockfile::digest`]); absent for the bottom layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_lock: Option<Digest>,
    /// Digest of the image below: the pinned one, or that on which the layer was first built since it was locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_image: Option<Digest>,
    /// Repositories packages were taken from or could have been, sorted by id.
    #[serde(default, rename = "repo")]
    pub repos: Vec<LockedRepo>,
    /// Packages this layer adds, replaces or removes, sorted.
    #[serde(default, rename = "package")]
    pub packages: Vec<LockedPackage>,
    /// Users this layer made, sorted by name.
    #[serde(default, rename = "user", skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<LockedUser>,
    /// Groups this layer made, sorted by name.
    #[serde(default, rename = "group", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<LockedGroup>,
}

/// A repository at the time of locking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedRepo {
    /// Repository id.
    pub id: String,
    /// repomd revision, UTC seconds.
    pub revision: u64,
    /// Digest of repomd.xml; unknown to a lock that was imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repomd: Option<Digest>,
    /// Where it was, if on the network: packages may still be there when the stream names another place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// One package of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Package name.
    pub name: String,
    /// `[epoch:]version-release`
    pub evr: Evr,
    /// Package architecture.
    pub arch: String,
    /// Repository id, or `file` for a local RPM. Empty (left out) for a removal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub repo: String,
    /// Path below the repository's base URL; for a local RPM its path below the manifests' directory. An import
    /// may leave it empty, and then also what follows: `strata lock` finds the package.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// Digest of the .rpm file, 64 hex digits. Left out for a removal.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "bare_hex")]
    pub sha256: Option<Digest>,
    /// Size of the .rpm file in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// Where the same file is besides, each `REPO:LOCATION` or a URL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Elsewhere>,
    /// Source package file name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// `requested`, `required by NAME`, `recommended by NAME`, `override: REASON`, `removed by the manifest`,
    /// `obsoleted by NAME`, `imported`.
    pub why: String,
    /// What the build does with it.
    pub action: Action,
    /// EVR of the parent's package that an upgrade replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Evr>,
}

/// A further place of a package's file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Elsewhere {
    /// Another repository's id, and the path below its base URL.
    Repo(String, String),
    /// The URL of the directory, and the name of the file there.
    Url(String, String),
}

impl From<Elsewhere> for String {
    fn from(place: Elsewhere) -> Self {
        match place {
            Elsewhere::Repo(id, location) => format!("{id}:{location}"),
            Elsewhere::Url(base, file) => format!("{base}/{file}"),
        }
    }
}

impl TryFrom<String> for Elsewhere {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let expected = || format!("`{text}` is no place of a package: expected REPO:LOCATION or a URL");
        let is_url = ["http://", "https://", "file://"].iter().any(|scheme| text.starts_with(scheme));
        let (before, after) =
            if is_url { text.rsplit_once('/') } else { text.split_once(':') }.ok_or_else(expected)?;
        let location = repo::location(after).map_err(|error| format!("{}: {error}", expected()))?;
        Ok(match is_url {
            true => Self::Url(before.to_owned(), location),
            false => Self::Repo(before.to_owned(), location),
        })
    }
}

/// The ids of a user that a build made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedUser {
    /// Its name.
    pub name: String,
    /// Its id.
    pub uid: u32,
    /// The id of its primary group.
    pub gid: u32,
}

/// The id of a group that a build made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedGroup {
    /// Its name.
    pub name: String,
    /// Its id.
    pub gid: u32,
}

/// Where the lock of a layer is.
pub fn path(lockfiles: &Path, stream: &str, layer: &str, arch: Arch) -> PathBuf {
    lockfiles.join(stream).join(format!("{layer}.{arch}.toml"))
}

/// Reads the lock of a layer, if there is one.
pub fn read(lockfiles: &Path, stream: &str, layer: &str, arch: Arch) -> Result<Option<Lockfile>> {
    let path = path(lockfiles, stream, layer, arch);
    if is_interrupted(lockfiles, stream) {
        return Err(hinted(
            format!("the set of {} was interrupted while it was written", path.display()),
            format!("run `strata lock {stream}`, which completes it"),
        ));
    }
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).hint(format!("reading {}", path.display()), RESTORE),
    };
    let lock = Lockfile::parse(&text, &path)?;
    let found = (lock.stream.as_str(), lock.layer.as_str(), lock.arch);
    if found != (stream, layer, arch) {
        let of = |(stream, layer, arch): (&str, &str, Arch)| format!("{stream}/{layer} for {arch}");
        return Err(hinted(
            format!("{} is the lock of {}, not of {}", path.display(), of(found), of((stream, layer, arch))),
            "a lockfile cannot be copied: delete it and run `strata lock`",
        ));
    }
    Ok(Some(lock))
}

/// Reads the lock of a layer, which must be there.
pub fn required(plan: &Plan, layer: &Layer, lockfiles: &Path) -> Result<Lockfile> {
    let (stream, layer, arch) = (&plan.stream.name, &layer.name, plan.stream.arch);
    read(lockfiles, stream, layer, arch)?.ok_or_else(|| {
        let file = path(lockfiles, stream, layer, arch);
        hinted(
            format!(
                "layer {layer} of stream {stream} is not locked for {arch}: there is no {}",
                file.display()
            ),
            format!("run `strata lock {stream}`"),
        )
    })
}

impl Lockfile {
    /// A lock made of another tool's. `origin` is the digest of its file: no request has it, so that `strata lock`
    /// solves the layer once more, keeping the versions that are here.
    pub fn imported(
        stream: &str,
        layer: &str,
        arch: Arch,
        origin: Digest,
        mut repos: Vec<LockedRepo>,
        mut packages: Vec<LockedPackage>,
    ) -> Result<Self> {
        repos.sort_by(|a, b| a.id.cmp(&b.id));
        packages.sort_by_cached_key(|package| (package.nevra(), package.action));
        let lock = Self {
            version: VERSION,
            stream: stream.to_owned(),
            layer: layer.to_owned(),
            arch,
            manifest: origin,
            parent: None,
            parent_image: None,
            parent_lock: None,
            repos,
            packages,
            users: Vec::new(),
            groups: Vec::new(),
        };
        lock.check()?;
        Ok(lock)
    }

    /// Parses a lockfile; `path` is what errors call it.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        /// All that is read of a lock that another version of strata may have written.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let version = toml::from_str::<Version>(text).map_err(|error| malformed(text, path, &error))?.version;
        if version != VERSION {
            return Err(hinted(
                format!("{} has format version {version}, this strata reads {VERSION}", path.display()),
                "use the strata that wrote it, or delete it and run `strata lock`",
            ));
        }
        let lock: Self = toml::from_str(text).map_err(|error| malformed(text, path, &error))?;
        match lock.check() {
            Ok(()) => Ok(lock),
            Err(Mistake { table, error }) => {
                let line = table.and_then(|(key, index)| line_of(text, key, index)).unwrap_or(1);
                let advice = match table {
                    Some((USER | GROUP, _)) => REPAIR_LEDGER,
                    _ => RESTORE,
                };
                Err(hinted(format!("{}:{line}: {error:#}", path.display()), advice))
            }
        }
    }

    /// Checks what the types do not say: that packages are complete, sorted and listed once, locations stay in
    /// their repository, numbers fit TOML's, and an id is one account's.
    pub(super) fn check(&self) -> Result<(), Mistake> {
        for LockedRepo { id, revision, .. } in &self.repos {
            if i64::try_from(*revision).is_err() {
                return Err(Mistake {
                    table: None,
                    error: anyhow!("repo {id}: a revision of {revision} seconds"),
                });
            }
        }
        let mut before = None;
        for (index, package) in self.packages.iter().enumerate() {
            let order = (package.nevra(), package.action);
            let checked = package.check().and_then(|()| {
                ensure!(before.as_ref() < Some(&order), "package {}: listed twice, or out of order", order.0);
                Ok(())
            });
            checked.map_err(|error| Mistake { table: Some(("package", index)), error })?;
            before = Some(order);
        }
        check_ids(USER, self.users.iter().map(|user| (user.name.as_str(), user.uid)))?;
        check_ids(GROUP, self.groups.iter().map(|group| (group.name.as_str(), group.gid)))
    }

    /// The digest by which the lock above knows this one: of all that locking decided, as text. Not in it are the
    /// ids and the image below, which builds add: else every build would stale the locks above.
    pub fn digest(&self) -> Digest {
        let decided = Self { users: Vec::new(), groups: Vec::new(), parent_image: None, ..self.clone() };
        Digest::of(decided.to_toml())
    }

    /// Whether a package of it is a local file.
    pub fn has_local(&self) -> bool {
        self.packages.iter().any(|package| package.repo == "file")
    }

    /// The ids that the lock keeps.
    pub fn ledger(&self) -> Ledger {
        let user = |LockedUser { name, uid, gid }: &LockedUser| (name.clone(), Ids { uid: *uid, gid: *gid });
        Ledger {
            users: self.users.iter().map(user).collect(),
            groups: self.groups.iter().map(|group| (group.name.clone(), group.gid)).collect(),
        }
    }

    /// Keeps these ids and no others.
    pub fn set_ledger(&mut self, ledger: &Ledger) {
        let user =
            |(name, ids): (&String, &Ids)| LockedUser { name: name.clone(), uid: ids.uid, gid: ids.gid };
        let group = |(name, gid): (&String, &u32)| LockedGroup { name: name.clone(), gid: *gid };
        self.users = ledger.users.iter().map(user).collect();
        self.groups = ledger.groups.iter().map(group).collect();
    }

    /// The canonical text: the same lock has the same bytes. Every lock was parsed or solved, hence checked.
    pub fn to_toml(&self) -> String {
        let body = toml::to_string(self).expect("a checked lock is tables of text and numbers below 2^63");
        format!("{HEADER}{body}")
    }

    /// Writes the lock to its place below `lockfiles`.
    pub fn write(&self, lockfiles: &Path) -> Result<()> {
        let path = path(lockfiles, &self.stream, &self.layer, self.arch);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        replace(&path, self.to_toml().as_bytes())
    }
}

/// What is wrong with a lock that is well-formed TOML.
#[derive(Debug, thiserror::Error)]
#[error("{error:#}")]
pub(super) struct Mistake {
    /// Key and index of the table that is wrong.
    table: Option<(&'static str, usize)>,
    error: anyhow::Error,
}

/// Checks a part of the ledger, `(NAME, ID)...`: sorted, no name and no id twice.
fn check_ids<'l>(key: &'static str, entries: impl Iterator<Item = (&'l str, u32)>) -> Result<(), Mistake> {
    let mut owners = BTreeMap::new();
    let mut before = "";
    for (index, (name, id)) in entries.enumerate() {
        let error = match owners.insert(id, name) {
            _ if name <= before => anyhow!("{key} {name}: listed twice, or out of order"),
            Some(other) => anyhow!("{key} {name}: the id {id} is that of {other}"),
            None => {
                before = name;
                continue;
            }
        };
        return Err(Mistake { table: Some((key, index)), error });
    }
    Ok(())
}

/// The line, counted from 1, on which a table of an array begins.
fn line_of(text: &str, key: &str, index: usize) -> Option<usize> {
    #[derive(Deserialize)]
    struct Places {
        #[serde(default)]
        package: Vec<Spanned<IgnoredAny>>,
        #[serde(default)]
        user: Vec<Spanned<IgnoredAny>>,
        #[serde(default)]
        group: Vec<Spanned<IgnoredAny>>,
    }
    let places: Places = toml::from_str(text).ok()?;
    let tables = match key {
        USER => places.user,
        GROUP => places.group,
        _ => places.package,
    };
    Some(line_at(text, tables.get(index)?.span().start))
}

/// The line, counted from 1, of a byte.
fn line_at(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn malformed(text: &str, path: &Path, error: &toml::de::Error) -> anyhow::Error {
    let line = error.span().map_or(1, |span| line_at(text, span.start));
    let conflict = text.lines().any(|line| line.starts_with("<<<<<<< "));
    let advice = match conflict {
        true => "it has unresolved merge conflicts: take either side, then run `strata lock`",
        false => RESTORE,
    };
    hinted(format!("{}:{line}: {}", path.display(), error.message()), advice)
}

impl LockedPackage {
    /// Its identity.
    pub fn nevra(&self) -> Nevra {
        Nevra { name: self.name.clone(), evr: self.evr.clone(), arch: self.arch.clone() }
    }

    /// A package of a pinned image, of which no more is known.
    pub(super) fn in_image(nevra: &Nevra) -> Self {
        Self {
            name: nevra.name.clone(),
            evr: nevra.evr.clone(),
            arch: nevra.arch.clone(),
            repo: String::new(),
            location: String::new(),
            sha256: None,
            size: 0,
            also: Vec::new(),
            source: String::new(),
            why: String::new(),
            action: Action::Install,
            replaces: None,
        }
    }

    /// EVR of the package of the layers below, of the same name, that goes away.
    pub fn displaced(&self) -> Option<&Evr> {
        match self.action {
            Action::Install => None,
            Action::Upgrade => self.replaces.as_ref(),
            Action::Remove => Some(&self.evr),
        }
    }

    fn check(&self) -> Result<()> {
        let context = || format!("package {}", self.nevra());
        ensure!(
            !self.name.is_empty() && !self.evr.release.is_empty(),
            "{}: no name or no release",
            context()
        );
        ensure!(self.size <= MAX_SIZE, "{}: a size of {} bytes", context(), self.size);
        if self.action == Action::Remove || self.location.is_empty() {
            return Ok(());
        }
        ensure!(self.sha256.is_some(), "{}: no sha256", context());
        ensure!(!self.repo.is_empty(), "{}: no repo", context());
        ensure!(
            (self.action == Action::Upgrade) == self.replaces.is_some(),
            "{}: `replaces` goes with `upgrade`",
            context()
        );
        repo::location(&self.location).with_context(context)?;
        Ok(())
    }
}

/// What a build does with a locked package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Adds it.
    Install,
    /// Puts it in the place of the parent's, whichever is newer.
    Upgrade,
    /// Takes the parent's away.
    Remove,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Digests without the `sha256:` prefix, as the key already says it.
mod bare_hex {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::digest::Digest;

    pub fn serialize<S: Serializer>(digest: &Option<Digest>, s: S) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => s.serialize_str(&digest.hex()),
            None => s.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Digest>, D::Error> {
        let text = String::deserialize(d)?;
        Digest::from_hex(&text).map(Some).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# Made by `strata lock`; review and commit it, do not edit it.
version = 1
stream = "demo"
layer = "node"
arch = "x86_64"
manifest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
parent = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

[[repo]]
id = "ose"
revision = 1739145600
repomd = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

[[package]]
name = "conmon"
evr = "2:2.1.12-1.el9"
arch = "x86_64"
repo = "ose"
location = "Packages/c/conmon-2.1.12-1.el9.x86_64.rpm"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
size = 27182818
source = "conmon-2.1.12-1.el9.src.rpm"
why = "override: OCPBUGS-1 \"quoted\""
action = "upgrade"
replaces = "2:2.1.10-1.el9"

[[package]]
name = "nano"
evr = "5.6.1-6.el9"
arch = "x86_64"
why = "removed by the manifest"
action = "remove"
"#;

    fn refusal(text: &str) -> String {
        format!("{:#}", Lockfile::parse(text, Path::new("node.toml")).unwrap_err())
    }

    #[test]
    fn text_round_trips_byte_for_byte() {
        let text = TEXT
            .replace(r#"\""#, "'")
            .replace("\"override: OCPBUGS-1 'quoted'\"", "'override: OCPBUGS-1 \"quoted\"'");
        let lock = Lockfile::parse(&text, Path::new("node.toml")).unwrap();
        assert_eq!(lock.packages[0].evr.epoch, 2);
        assert_eq!(lock.to_toml(), text);
    }

    #[test]
    fn refusals_name_file_and_line() {
        assert_eq!(
            refusal(&TEXT.replace("version = 1", "version = 2")),
            "node.toml has format version 2, this strata reads 1"
        );
        assert!(
            refusal(&TEXT.replace("revision", "revison"))
                .starts_with("node.toml:11: unknown field `revison`")
        );
        assert!(refusal(&TEXT.replace("27182818", "-1")).starts_with("node.toml:21: "));
        assert!(refusal("").starts_with("node.toml:1: missing field `version`"));
        let conmon = "node.toml:14: package conmon-2:2.1.12-1.el9.x86_64: ";
        for (from, to, told) in [
            (
                "Packages/c/",
                "../../",
                "the location `../../conmon-2.1.12-1.el9.x86_64.rpm` leaves the repository",
            ),
            ("replaces =", "#", "`replaces` goes with `upgrade`"),
            ("sha256 = ", "#", "no sha256"),
            ("27182818", "9223372036854775807", "a size of 9223372036854775807 bytes"),
        ] {
            let found = refusal(&TEXT.replace(from, to));
            assert!(found.starts_with(&format!("{conmon}{told}")), "{found}");
        }
        let nano = &TEXT[TEXT.rfind("[[package]]").unwrap()..];
        assert_eq!(
            refusal(&format!("{TEXT}\n{nano}")),
            "node.toml:34: package nano-5.6.1-6.el9.x86_64: listed twice, or out of order"
        );
        let conflict = TEXT.replace("[[repo]]", "<<<<<<< HEAD\n[[repo]]");
        let error = Lockfile::parse(&conflict, Path::new("node.toml")).unwrap_err();
        assert!(error.downcast_ref::<crate::error::Hint>().unwrap().advice().contains("merge conflicts"));
    }

    const LEDGER: &str = r#"
[[user]]
name = "chrony"
uid = 996
gid = 993

[[user]]
name = "sshd"
uid = 74
gid = 74

[[group]]
name = "chrony"
gid = 993
"#;

    #[test]
    fn the_ledger_follows_the_packages() {
        let text = format!("{TEXT}{LEDGER}");
        let lock = Lockfile::parse(&text, Path::new("node.toml")).unwrap();
        assert!(lock.to_toml().ends_with(LEDGER));
        assert_eq!(lock.ledger().users["chrony"], Ids { uid: 996, gid: 993 });
        let mut again = Lockfile::parse(TEXT, Path::new("node.toml")).unwrap();
        again.set_ledger(&lock.ledger());
        assert_eq!(again, lock);

        let user =
            |name: &str, uid: &str| format!("{text}\n[[user]]\nname = {name:?}\nuid = {uid}\ngid = 1\n");
        for (text, told) in [
            (user("sshd", "5"), "node.toml:48: user sshd: listed twice, or out of order"),
            (user("bin", "5"), "node.toml:48: user bin: listed twice, or out of order"),
            (user("zoe", "996"), "node.toml:48: user zoe: the id 996 is that of chrony"),
            (user("zoe", "-1"), "node.toml:50: invalid value: integer `-1`"),
            (text.replace("[[user]]", "[[users]]"), "node.toml:34: unknown field `users`"),
        ] {
            let found = refusal(&text);
            assert!(found.starts_with(told), "{found}");
        }
    }

    #[test]
    fn an_import_is_sorted_and_may_leave_places_to_be_found() {
        let lock = Lockfile::parse(TEXT, Path::new("node.toml")).unwrap();
        let unplaced = |package: &LockedPackage| LockedPackage {
            repo: String::new(),
            location: String::new(),
            sha256: None,
            size: 0,
            action: Action::Install,
            replaces: None,
            ..package.clone()
        };
        let import = |packages| {
            let repos = vec![LockedRepo { repomd: None, ..lock.repos[0].clone() }];
            Lockfile::imported("demo", "node", Arch::X86_64, Digest::of("theirs"), repos, packages)
        };
        let found = import(lock.packages.iter().rev().map(unplaced).collect()).unwrap();
        assert_eq!(found.packages[0].name, "conmon");
        assert_eq!(Lockfile::parse(&found.to_toml(), Path::new("node.toml")).unwrap(), found);

        let twice = vec![unplaced(&lock.packages[0]), unplaced(&lock.packages[0])];
        assert!(import(twice).unwrap_err().to_string().contains("listed twice"));
    }

    #[test]
    fn a_lock_in_the_wrong_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lockfile::parse(TEXT, Path::new("node.toml")).unwrap();
        lock.write(dir.path()).unwrap();
        assert_eq!(read(dir.path(), "demo", "node", Arch::X86_64).unwrap(), Some(lock));
        assert_eq!(read(dir.path(), "demo", "node", Arch::Aarch64).unwrap(), None);
        fs::rename(
            path(dir.path(), "demo", "node", Arch::X86_64),
            path(dir.path(), "demo", "node", Arch::S390x),
        )
        .unwrap();
        let error = read(dir.path(), "demo", "node", Arch::S390x).unwrap_err().to_string();
        assert!(
            error.ends_with("is the lock of demo/node for x86_64, not of demo/node for s390x"),
            "{error}"
        );
    }
}
