//! Locking with metadata in memory: what is kept, what is solved again, what is written.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use super::*;
use crate::accounts::Ids;
use crate::digest::Digest;
use crate::image::reference::Reference;
use crate::ledger::Ledger;
use crate::manifest;
use crate::package::{Arch, Comparison, Dependency, Nevra};
use crate::pkglist::PackageSet;
use crate::plan::{self, Plan};
use crate::progress::Silent;
use crate::repo::{Paths, RepoMetadata, RepoPackage};

/// Repositories as `(id, ["NAME EVR NEEDS..."])`, and what was asked of them.
#[derive(Default)]
struct Repos {
    list: Vec<(&'static str, Vec<&'static str>)>,
    /// The metadata before.
    old: Option<Box<Repos>>,
    calls: RefCell<Vec<String>>,
}

impl Repos {
    fn new(list: &[(&'static str, &[&'static str])]) -> Self {
        let list = list.iter().map(|(id, packages)| (*id, packages.to_vec())).collect();
        Self { list, old: None, calls: RefCell::default() }
    }

    fn calls(&self) -> Vec<String> {
        self.calls.take()
    }

    fn offer(&self, repo: &plan::Repo) -> Result<RepoMetadata> {
        self.calls.borrow_mut().push(format!("newest {}", repo.id));
        let Some((id, packages)) = self.list.iter().find(|(id, _)| *id == repo.id) else {
            bail!("no repository {}", repo.id);
        };
        Ok(RepoMetadata {
            id: (*id).into(),
            revision: 1_739_145_600,
            repomd: Digest::of(packages.concat()),
            priority: repo.priority,
            cost: repo.cost,
            packages: packages.iter().map(|text| package(text)).collect(),
            advisories: vec![],
            comps: Default::default(),
            modules: Default::default(),
            module_hotfixes: false,
        })
    }
}

impl Metadata for Repos {
    fn newest(&self, repos: &[&plan::Repo]) -> Result<Vec<RepoMetadata>> {
        repos.iter().map(|repo| self.offer(repo)).collect()
    }

    fn advisories(&self, _: &plan::Repo, _: &mut RepoMetadata) -> Result<()> {
        Ok(())
    }

    fn filelists(&self, repos: &mut [(&plan::Repo, &mut RepoMetadata)], _: &Paths) -> Result<()> {
        for (repo, metadata) in repos {
            self.calls.borrow_mut().push(format!("filelists {}", repo.id));
            let file = |p: &RepoPackage| Some((p.sha256?, vec![format!("/usr/share/{}", p.nevra.name)]));
            let files = metadata.packages.iter().filter_map(file).collect();
            metadata.packages.add_files(files);
        }
        Ok(())
    }

    fn comps(&self, _: &plan::Repo, _: &mut RepoMetadata) -> Result<()> {
        Ok(())
    }

    fn recorded(&self, repo: &plan::Repo, repomd: &Digest) -> Result<Option<RepoMetadata>> {
        self.calls.borrow_mut().push(format!("recorded {}", repo.id));
        let old = self.old.as_ref().map(|old| old.offer(repo)).transpose()?;
        Ok(old.filter(|metadata| metadata.repomd == *repomd))
    }

    fn locked(&self, _: &Plan, locked: &LockedPackage) -> Result<RepoPackage> {
        self.calls.borrow_mut().push(format!("locked {}", locked.name));
        Ok(package(&format!("{} {}", locked.name, locked.evr)))
    }

    fn image(&self, _: &Plan, image: &Reference) -> Result<PackageSet> {
        bail!("no image {image}")
    }

    fn image_rpmdb(&self, _: &Plan, image: &Reference) -> Result<Vec<RepoPackage>> {
        bail!("no image {image}")
    }

    fn whereabouts(&self, _: &Plan, _: &Lockfile, _: &LockedPackage) -> Option<String> {
        None
    }

    fn local(&self, file: &Path) -> Result<RepoPackage> {
        let text = fs::read_to_string(file)?;
        Ok(RepoPackage { location: "fix.rpm".into(), ..package(text.trim()) })
    }
}

fn package(text: &str) -> RepoPackage {
    let words: Vec<&str> = text.split(' ').collect();
    let nevra = Nevra { name: words[0].into(), evr: words[1].parse().unwrap(), arch: "x86_64".into() };
    let plain = |name: &&str| Dependency { name: (*name).into(), version: None, pre: false };
    let own = Dependency { version: Some((Comparison::Eq, nevra.evr.clone())), ..plain(&words[0]) };
    RepoPackage {
        sha256: Some(Digest::of(nevra.to_string())),
        size: 1,
        location: format!("Packages/{nevra}.rpm"),
        source: format!("{}-{}.src.rpm", nevra.name, nevra.evr),
        provides: vec![own.into()],
        requires: words[2..].iter().map(|name| plain(name).into()).collect(),
        nevra,
        ..RepoPackage::default()
    }
}

/// A stream of two layers in a folder of its own.
struct Stream {
    dir: tempfile::TempDir,
}

impl Stream {
    fn new(base: &str, top: &str) -> Self {
        let stream = Self { dir: tempfile::tempdir().unwrap() };
        let repo = |id| format!("[repos.{id}]\nbaseurl = 'file:///{id}'\ngpgcheck = false\n");
        let text = format!(
            "arches = ['x86_64']\nlayers = ['base', 'top']\n\
             [os]\nid = 'rhel'\nname = 'RHEL'\nversion = '9.6'\n{}{}",
            repo("os"),
            repo("ose")
        );
        fs::create_dir_all(stream.dir.path().join("manifests/s")).unwrap();
        stream.write("stream", &text);
        stream.write("base", base);
        stream.write("top", top);
        stream
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(format!("manifests/s/{name}.toml")), text).unwrap();
    }

    fn lockfiles(&self) -> std::path::PathBuf {
        self.dir.path().join("lockfiles")
    }

    fn try_lock(&self, layers: &[&str], update: &Update, repos: &Repos) -> Result<Vec<LayerLock>> {
        let plan = manifest::load(&self.dir.path().join("manifests"), "s", Arch::X86_64)
            .unwrap_or_else(|invalid| panic!("{}", invalid.render(false)));
        let locks = lock(&[plan], layers, &self.lockfiles(), update, repos, &Silent)?;
        locks.iter().try_for_each(|result| result.lock.write(&self.lockfiles()))?;
        Ok(locks)
    }

    /// Locks both layers and writes: `base kept`, `top Request: +a-2-1 ~b-1-1 -c-1-1`.
    fn lock(&self, update: &Update, repos: &Repos) -> Vec<String> {
        let locks = self.try_lock(&["base", "top"], update, repos).unwrap_or_else(|e| panic!("{e:#}"));
        locks.iter().map(show).collect()
    }
}

fn show(result: &LayerLock) -> String {
    let Some(reason) = &result.solved else { return format!("{} kept", result.lock.layer) };
    let difference = difference(result.previous.as_ref(), &result.lock);
    let mut text = format!("{} {reason:?}:", result.lock.layer);
    let nevra = |sign, nevra: &Nevra| format!(" {sign}{}-{}", nevra.name, nevra.evr);
    text.extend(difference.added.iter().map(|added| nevra('+', added)));
    text.extend(difference.changed.iter().map(|c| format!(" ~{}-{}", c.name, c.to)));
    text.extend(difference.removed.iter().map(|removed| nevra('-', removed)));
    text
}

fn only(names: &[&str]) -> Update {
    Update::Packages(names.iter().map(|name| (*name).to_owned()).collect())
}

const BASE: &str = "[packages]\nrepos = ['os']\ninstall = ['lib']\n";
const TOP: &str = "[packages]\nrepos = ['ose']\ninstall = ['app']\n";

fn first() -> Repos {
    Repos::new(&[("os", &["lib 1-1"]), ("ose", &["app 1-1 lib dep", "dep 1-1"])])
}

fn second() -> Repos {
    let ose = &["app 1-1 lib dep", "app 2-1 lib dep", "dep 1-1", "dep 2-1"];
    Repos::new(&[("os", &["lib 1-1", "lib 2-1"]), ("ose", ose)])
}

#[test]
fn a_lock_that_holds_is_kept_without_looking() {
    let stream = Stream::new(BASE, TOP);
    let repos = first();
    assert_eq!(
        stream.lock(&Update::Nothing, &repos),
        ["base Missing: +lib-1-1", "top Missing: +app-1-1 +dep-1-1"]
    );
    assert_eq!(repos.calls(), ["newest os", "newest ose"]);
    let text = || fs::read_to_string(path(&stream.lockfiles(), "s", "top", Arch::X86_64)).unwrap();
    let written = text();

    // neither newer packages nor lines, spelling and addresses in the manifests matter
    stream.write("top", "# a comment\n[packages]\ninstall = [\n  'app',\n]\nrepos = ['ose']\n");
    let repos = second();
    assert_eq!(stream.lock(&Update::Nothing, &repos), ["base kept", "top kept"]);
    assert!(repos.calls().is_empty());
    assert_eq!(text(), written);
}

#[test]
fn a_new_request_keeps_what_still_fits() {
    let stream = Stream::new(BASE, TOP);
    stream.lock(&Update::Nothing, &first());
    stream.write("top", "[packages]\nrepos = ['ose']\ninstall = ['app', 'extra']\n");
    let mut repos = second();
    repos.list[1].1.push("extra 1-1");
    assert_eq!(stream.lock(&Update::Nothing, &repos), ["base kept", "top Request: +extra-1-1"]);
}

#[test]
fn updates_take_the_newest_of_what_is_named() {
    let stream = Stream::new(BASE, TOP);
    stream.lock(&Update::Nothing, &first());
    assert_eq!(stream.lock(&only(&["dep"]), &second()), ["base kept", "top Update: ~dep-2-1"]);
    assert_eq!(
        stream.lock(&Update::Everything, &second()),
        ["base Update: ~lib-2-1", "top Parent: ~app-2-1"]
    );
    let error = stream.try_lock(&["top"], &only(&["depp"]), &second()).unwrap_err();
    assert_eq!(error.to_string(), "no layer has `depp` locked, so it cannot be updated");
}

#[test]
fn ids_are_carried_over_and_make_no_lock_stale() {
    let stream = Stream::new(BASE, TOP);
    let locks = stream.try_lock(&["base", "top"], &Update::Nothing, &first()).unwrap();
    let mut kept = Ledger::default();
    kept.users.insert("app".into(), Ids { uid: 999, gid: 998 });
    kept.groups.insert("app".into(), 998);
    for result in locks {
        let mut lock = result.lock;
        lock.set_ledger(&kept);
        lock.write(&stream.lockfiles()).unwrap();
    }
    let all_kept = || {
        let lock = |layer| read(&stream.lockfiles(), "s", layer, Arch::X86_64).unwrap().unwrap();
        ["base", "top"].iter().all(|layer| lock(layer).ledger() == kept)
    };
    assert_eq!(stream.lock(&Update::Nothing, &first()), ["base kept", "top kept"]);
    stream.lock(&only(&["dep"]), &second());
    assert!(all_kept());
    stream.lock(&Update::Everything, &second());
    assert!(all_kept());
    stream.write("top", "[packages]\nrepos = ['ose']\ninstall = ['dep']\n");
    assert_eq!(stream.lock(&Update::Nothing, &second()), ["base kept", "top Request: -app-2-1"]);
    assert!(all_kept());
}

#[test]
fn an_update_that_changes_no_package_keeps_the_lock() {
    let stream = Stream::new(BASE, TOP);
    let old = stream.try_lock(&["base", "top"], &Update::Nothing, &first()).unwrap();
    let mut published_again = first();
    published_again.list[0].1.push("other 1-1");
    published_again.list[1].1.push("other 1-1");
    let new = stream.try_lock(&["base", "top"], &Update::Everything, &published_again).unwrap();
    assert_eq!(published_again.calls(), ["newest os", "newest ose"]);
    for (old, new) in old.iter().zip(&new) {
        assert_eq!((&new.solved, &new.lock), (&Some(Stale::Update), &old.lock));
    }
}

#[test]
fn a_change_below_is_seen_above() {
    let stream = Stream::new(BASE, TOP);
    stream.lock(&Update::Nothing, &first());
    let locks = stream.try_lock(&["base"], &Update::Everything, &second()).unwrap();
    assert_eq!(show(&locks[0]), "base Update: ~lib-2-1");
    // the same packages, but on another parent
    assert_eq!(stream.lock(&Update::Nothing, &second()), ["base kept", "top Parent:"]);
}

#[test]
fn the_lock_below_is_recorded_and_solves_nothing() {
    let stream = Stream::new(BASE, TOP);
    stream.lock(&Update::Nothing, &first());
    let file = |layer| path(&stream.lockfiles(), "s", layer, Arch::X86_64);
    let text = |layer| fs::read_to_string(file(layer)).unwrap();
    let recorded = |layer| format!("\nparent-lock = \"{}\"\n", Digest::of(text(layer)));
    assert!(text("top").contains(&recorded("base")) && !text("base").contains("parent-"));

    // another request of the same packages
    stream.write("base", &format!("{BASE}exclude = ['other']\n"));
    let repos = first();
    assert_eq!(stream.lock(&Update::Nothing, &repos), ["base Request:", "top Below:"]);
    assert_eq!(repos.calls(), ["newest os"]);
    assert!(text("top").contains(&recorded("base")));
    assert_eq!(stream.lock(&Update::Nothing, &repos), ["base kept", "top kept"]);

    // as locks were written once
    let old = text("top").replace(&recorded("base"), "\n");
    fs::write(file("top"), &old).unwrap();
    assert_eq!(stream.lock(&Update::Nothing, &repos), ["base kept", "top kept"]);
    assert_eq!(text("top"), old);
}

#[test]
fn a_layer_needs_the_locks_below() {
    let stream = Stream::new(BASE, TOP);
    let error = stream.try_lock(&["top"], &Update::Nothing, &first()).unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("layer base of stream s is not locked for x86_64: there is no "), "{error}");
    assert!(!stream.lockfiles().exists());
}

#[test]
fn parents_no_repository_lists_any_more_come_from_old_metadata_or_their_rpm() {
    let stream = Stream::new(BASE, TOP);
    stream.lock(&Update::Nothing, &first());
    let mut repos = Repos::new(&[("os", &["lib 2-1"]), ("ose", &["app 2-1 lib dep", "dep 1-1"])]);
    let locks = stream.try_lock(&["top"], &Update::Everything, &repos).unwrap();
    assert_eq!(show(&locks[0]), "top Update: ~app-2-1");
    assert_eq!(repos.calls(), ["newest os", "newest ose", "recorded os", "locked lib"]);
    repos.old = Some(Box::new(first()));
    stream.try_lock(&["top"], &Update::Everything, &repos).unwrap();
    assert_eq!(repos.calls(), ["newest os", "newest ose", "recorded os"]);
}

#[test]
fn overrides_and_removals_are_in_the_lock() {
    let repos = Repos::new(&[("os", &["lib 1-1", "gone 1-1"]), ("ose", &["app 1-1 lib", "lib 2-1"])]);
    let stream = Stream::new(
        "[packages]\nrepos = ['os']\ninstall = ['lib', 'gone']\n",
        "[packages]\nrepos = ['ose']\ninstall = ['app']\nremove = ['gone']\n\
         [[override]]\npackage = 'lib'\nversion = '2-1'\nkind = 'fast-track'\nreason = 'BUG-7'\n",
    );
    let locks = stream.try_lock(&["base", "top"], &Update::Nothing, &repos).unwrap();
    let top = &locks[1].lock;
    let entry = |name| top.packages.iter().find(|package| package.name == name).unwrap();
    let (lib, gone) = (entry("lib"), entry("gone"));
    assert_eq!((lib.action, lib.why.as_str()), (Action::Upgrade, "override: BUG-7"));
    assert_eq!(lib.replaces.as_ref().unwrap().to_string(), "1-1");
    assert_eq!((gone.action, gone.why.as_str()), (Action::Remove, "removed by the manifest"));
    assert_eq!((gone.sha256, gone.size, gone.repo.as_str()), (None, 0, ""));
    let all: Vec<String> =
        installed(&[&locks[0].lock, top]).iter().map(|i| i.package.nevra().to_string()).collect();
    assert_eq!(all, ["app-1-1.x86_64", "lib-2-1.x86_64"]);
    assert_eq!(stream.lock(&Update::Nothing, &repos), ["base kept", "top kept"]);
}

#[test]
fn another_local_file_is_noticed() {
    let stream = Stream::new(
        BASE,
        "[[override]]\npackage = 'lib'\nfile = 'fix.rpm'\nkind = 'hotfix'\nreason = 'incident'\n",
    );
    let write = |text| fs::write(stream.dir.path().join("manifests/s/fix.rpm"), text).unwrap();
    write("lib 1-1.fix1");
    assert_eq!(stream.lock(&Update::Nothing, &first())[1], "top Missing: +lib-1-1.fix1");
    assert_eq!(stream.lock(&Update::Nothing, &first())[1], "top kept");
    write("lib 1-1.fix2");
    assert_eq!(stream.lock(&Update::Nothing, &first())[1], "top Local(\"lib\"): ~lib-1-1.fix2");
    write("other 1-1");
    let error = stream.try_lock(&["top"], &Update::Nothing, &first()).unwrap_err().to_string();
    assert!(
        error.contains("overrides `lib` with") && error.ends_with("which is other-1-1.x86_64"),
        "{error}"
    );
}

#[test]
fn filelists_are_read_only_when_a_path_asks_for_them() {
    let stream = Stream::new(BASE, TOP);
    let repos = Repos::new(&[("os", &["lib 1-1"]), ("ose", &["app 1-1 /usr/share/lib"])]);
    stream.lock(&Update::Nothing, &repos);
    // base does not use ose; top asks for a path that is in the base layer
    assert_eq!(repos.calls(), ["newest os", "newest ose", "filelists os", "filelists ose"]);
}

#[test]
fn an_unsolvable_layer_leaves_every_lock_as_it_was() {
    let stream = Stream::new(BASE, TOP);
    let repos = Repos::new(&[("os", &["lib 1-1"]), ("ose", &["app 1-1 nothing-has-this"])]);
    let error = stream.try_lock(&["base", "top"], &Update::Nothing, &repos).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.starts_with("locking s/top for x86_64: the top layer cannot be solved: "), "{text}");
    assert!(text.contains("top.toml:3 installs `app`"), "{text}");
    assert!(text.contains("requires nothing-has-this, which nothing provides"), "{text}");
    assert!(!stream.lockfiles().exists());
}
