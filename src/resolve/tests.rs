//! An imaginary ecosystem in short notation. The answers are worked out from rpm's and dnf's rules
//! (the ones marked `dnf` were seen from dnf 4.14); `tests/parity_solve` asks dnf itself.

use super::*;
use crate::digest::Digest;
use crate::plan::{Origin, OverrideKind, OverrideTo, Packages};
use crate::repo::comps::Group;
use crate::repo::modules::Stream;

/// A world to solve in. Packages are written
/// `NAME EVR [ARCH]; needs A >= 1, /b; provides C = 2; conflicts D; obsoletes E < 3; recommends F; file /path`.
#[derive(Default)]
pub struct World {
    repos: Vec<RepoMetadata>,
    parents: Vec<Parent>,
    pub packages: Packages,
    local: BTreeMap<PathBuf, RepoPackage>,
    favored: BTreeSet<Nevra>,
    update: BTreeSet<String>,
    builds: BTreeMap<String, String>,
    held: Held,
    /// Repositories of the stream that the layer does not use.
    others: Vec<RepoMetadata>,
}

impl World {
    pub fn new(packages: &[&str]) -> Self {
        Self::default().repo("r", 99, packages)
    }

    pub fn repo(mut self, id: &str, priority: i32, packages: &[&str]) -> Self {
        let packages = packages.iter().map(|text| package(text)).collect();
        let (id, repomd) = (id.to_owned(), Digest::of(id));
        self.repos.push(RepoMetadata {
            id,
            repomd,
            priority,
            packages,
            revision: 0,
            cost: 1000,
            advisories: Vec::new(),
            comps: Default::default(),
            modules: Default::default(),
            module_hotfixes: false,
        });
        self
    }

    pub fn other(mut self, id: &str, packages: &[&str]) -> Self {
        let world = Self::default().repo(id, 99, packages);
        self.others.extend(world.repos);
        self
    }

    /// A stream of a module in the last repository.
    pub fn stream(mut self, module: &str, stream: &str) -> Self {
        let (name, stream) = (module.to_owned(), stream.to_owned());
        let modules = &mut self.repos.last_mut().unwrap().modules;
        modules.streams.push(Stream { name, stream, ..Stream::default() });
        self
    }

    /// A group without packages in the last of the other repositories.
    pub fn other_group(mut self, id: &str) -> Self {
        let groups = &mut self.others.last_mut().unwrap().comps.groups;
        groups.push(Group { id: id.to_owned(), ..Group::default() });
        self
    }

    pub fn enable(mut self, entries: &[&str]) -> Self {
        self.packages.modules.extend(sourced(entries, 50));
        self
    }

    pub fn others(&self) -> Vec<&RepoMetadata> {
        self.others.iter().collect()
    }

    pub fn below(mut self, packages: &[&str]) -> Self {
        let parent = |text: &&str| Parent { layer: "base".into(), package: package(text) };
        self.parents.extend(packages.iter().map(parent));
        self
    }

    pub fn install(mut self, entries: &[&str]) -> Self {
        self.packages.install.extend(sourced(entries, 10));
        self
    }

    pub fn remove(mut self, entries: &[&str]) -> Self {
        self.packages.remove.extend(sourced(entries, 20));
        self
    }

    pub fn exclude(mut self, entries: &[&str]) -> Self {
        self.packages.exclude.extend(sourced(entries, 30));
        self
    }

    pub fn overriding(mut self, name: &str, to: OverrideTo) -> Self {
        let value = Override {
            package: name.into(),
            to,
            kind: OverrideKind::Hotfix,
            reason: "BUG-1".into(),
            update: None,
            until: None,
        };
        self.packages.overrides.push(Sourced { value, origin: origin(40) });
        self
    }

    pub fn weak(mut self) -> Self {
        self.packages.weak_deps = true;
        self
    }

    fn favor(mut self, nevras: &[&str]) -> Self {
        self.favored.extend(nevras.iter().map(|text| package(text).nevra));
        self
    }

    fn update(mut self, name: &str) -> Self {
        self.update.insert(name.into());
        self
    }

    pub fn request<'a>(&'a self, repos: &'a [&'a RepoMetadata]) -> Request<'a> {
        Request {
            arch: Arch::X86_64,
            platform: "el9",
            repos,
            parents: &self.parents,
            packages: &self.packages,
            local: &self.local,
            favored: &self.favored,
            update: &self.update,
            builds: &self.builds,
            held: &self.held,
        }
    }

    pub fn repos(&self) -> Vec<&RepoMetadata> {
        self.repos.iter().collect()
    }

    /// One line per change: `+a-1 requested`, `~b-2 (1) override: ...`, `-c-1 removed by the manifest`.
    fn solve(&self) -> Vec<String> {
        let repos = self.repos();
        let solution = solve(&self.request(&repos)).unwrap_or_else(|error| panic!("{error}"));
        let line = |change: &Change| {
            let nevra = &change.package.nevra;
            let (name, evr, why) = (&nevra.name, &nevra.evr, &change.why);
            match change.effect {
                Effect::Install => format!("+{name}-{evr} {why}"),
                Effect::Replace(old) => format!("~{name}-{evr} ({old}) {why}"),
                Effect::Remove => format!("-{name}-{evr} {why}"),
            }
        };
        solution.changes.iter().map(line).collect()
    }

    /// The names of what is added.
    fn names(&self) -> Vec<String> {
        let repos = self.repos();
        let solution = solve(&self.request(&repos)).unwrap_or_else(|error| panic!("{error}"));
        solution.changes.iter().map(|change| change.package.nevra.name.clone()).collect()
    }

    fn refused(&self) -> (String, String) {
        match solve(&self.request(&self.repos())) {
            Err(Error::Unsatisfiable(error)) => (error.to_string(), error.advice()),
            Err(error) => panic!("{error}"),
            Ok(solution) => panic!("solved: {:?}", solution.changes),
        }
    }
}

fn origin(line: usize) -> Origin {
    Origin { file: "node.toml".into(), line }
}

fn sourced<'t>(entries: &'t [&str], line: usize) -> impl Iterator<Item = Sourced<String>> + use<'t> {
    entries.iter().map(move |entry| Sourced { value: (*entry).to_owned(), origin: origin(line) })
}

fn package(text: &str) -> RepoPackage {
    let mut parts = text.split(';').map(str::trim);
    let words: Vec<&str> = parts.next().unwrap().split(' ').collect();
    let arch = words.get(2).unwrap_or(&"x86_64");
    let nevra = Nevra { name: words[0].into(), evr: words[1].parse().unwrap(), arch: (*arch).into() };
    let own = Dependency {
        name: nevra.name.clone(),
        version: Some((crate::package::Comparison::Eq, nevra.evr.clone())),
        pre: false,
    };
    let mut package = RepoPackage { nevra, provides: vec![own.into()], ..RepoPackage::default() };
    for part in parts {
        let (kind, list) = part.split_once(' ').unwrap();
        let list = list.split(", ");
        if kind == "file" {
            package.files.extend(list.map(str::to_owned));
            continue;
        }
        let target = match kind {
            "needs" => &mut package.requires,
            "provides" => &mut package.provides,
            "conflicts" => &mut package.conflicts,
            "obsoletes" => &mut package.obsoletes,
            "recommends" => &mut package.recommends,
            "suggests" => &mut package.suggests,
            "supplements" => &mut package.supplements,
            other => panic!("{other}"),
        };
        let rich = |name: &str| Dependency { name: name.to_owned(), version: None, pre: false };
        target.extend(
            list.map(|d| if d.starts_with('(') { rich(d) } else { spec::capability(d).unwrap() }.into()),
        );
    }
    package
}

#[test]
fn newest_of_what_is_needed_and_why() {
    let world = World::new(&[
        "app 1-1; needs lib >= 2, /usr/bin/sh, rpmlib(FileDigests)",
        "lib 1-1",
        "lib 2-1",
        "lib 2~rc1-1",
        "bash 5-1; file /usr/bin/sh; needs glibc",
        "glibc 2-1",
        "unrelated 1-1",
    ]);
    assert_eq!(
        world.install(&["app"]).solve(),
        [
            "+app-1-1 requested",
            "+bash-5-1 required by app",
            "+glibc-2-1 required by bash",
            "+lib-2-1 required by app"
        ]
    );
}

#[test]
fn entries_as_dnf_reads_them() {
    let repo = [
        "foo 1-1",
        "foo 2-1",
        "foo-libs 2-1 noarch",
        "bar 1-1; provides cap = 3; file /usr/bin/bar",
        "baz 1-1; provides cap = 2",
        "new 1-1; obsoletes old < 3",
        "old 2-1",
    ];
    for (entry, names) in [
        ("foo", vec!["+foo-2-1"]),
        ("foo-1", vec!["+foo-1-1"]),
        ("foo-0:1-1.x86_64", vec!["+foo-1-1"]),
        ("foo*", vec!["+foo-2-1", "+foo-libs-2-1"]),
        ("foo < 2", vec!["+foo-1-1"]),
        ("cap", vec!["+bar-1-1"]),
        ("cap < 3", vec!["+baz-1-1"]),
        ("/usr/bin/bar", vec!["+bar-1-1"]),
        ("old", vec!["+new-1-1"]), // dnf
        ("old-2", vec!["+old-2-1"]),
    ] {
        let solved = World::new(&repo).install(&[entry]).solve();
        let solved: Vec<_> = solved.iter().map(|line| line.trim_end_matches(" requested")).collect();
        assert_eq!(solved, names, "{entry}");
    }
}

#[test]
fn ties_go_to_priority_version_then_name() {
    let repo = ["pb 1-1; provides cap", "pa 1-1; provides cap", "x 1-1; needs cap"];
    assert_eq!(World::new(&repo).install(&["x"]).names(), ["pa", "x"]); // dnf
    // what is chosen anyway serves
    let repo =
        ["order 1-1; needs cap, zz", "zz 1-1; needs pc", "pa 1-1; provides cap", "pc 1-1; provides cap"];
    assert_eq!(World::new(&repo).install(&["order"]).names(), ["order", "pc", "zz"]); // dnf
    let prior = World::new(&["foo 2-1"]).repo("pinned", 10, &["foo 1-1"]);
    assert_eq!(prior.install(&["foo"]).solve(), ["+foo-1-1 requested"]); // dnf
}

#[test]
fn rich_dependencies() {
    for (needs, names) in [
        ("(pa or pb)", vec!["pa", "x"]),
        ("(pa and pb)", vec!["pa", "pb", "x"]),
        ("(pa if pb)", vec!["x"]),
        ("(cap without pa)", vec!["pb", "x"]),
        ("(vcap >= 1 with vcap < 2)", vec!["va", "x"]),
    ] {
        let x = format!("x 1-1; needs {needs}");
        let world = World::new(&[
            &x,
            "pa 1-1; provides cap",
            "pb 1-1; provides cap",
            "va 1-1; provides vcap = 1.5",
            "vb 1-1; provides vcap = 2",
        ]);
        assert_eq!(world.install(&["x"]).names(), names, "{needs}");
    }
}

#[test]
fn entries_may_be_rich() {
    let repo = ["agent 1-1", "kernel 1-1", "other 1-1"];
    assert_eq!(World::new(&repo).install(&["(agent if kernel)"]).solve(), [""; 0]);
    assert_eq!(
        World::new(&repo).install(&["(agent if kernel)", "kernel"]).solve(),
        ["+agent-1-1 requested", "+kernel-1-1 requested"]
    );
    assert_eq!(World::new(&repo).below(&["kernel 1-1"]).install(&["(agent if kernel)"]).names(), ["agent"]);
    assert_eq!(World::new(&repo).install(&["(other or agent)"]).names(), ["agent"]);
    let (text, _) = World::new(&repo).install(&["(agent iff kernel)"]).refused();
    assert!(text.contains("has `(agent iff kernel)`: expected and, or, if"), "{text}");
    let (text, _) = World::new(&repo).install(&["(gone or lost)"]).refused();
    assert_eq!(text, "node.toml:10 installs `(gone or lost)`, which nothing provides");
}

#[test]
fn weak_dependencies_only_when_wanted() {
    let repo = [
        "app 1-1; recommends nice, impossible",
        "nice 1-1",
        "impossible 1-1; needs nothing-has-this",
        "plugin 1-1; supplements app",
    ];
    assert_eq!(World::new(&repo).install(&["app"]).names(), ["app"]);
    assert_eq!(
        World::new(&repo).weak().install(&["app"]).solve(),
        ["+app-1-1 requested", "+nice-1-1 recommended by app", "+plugin-1-1 recommended by app"]
    );
}

#[test]
fn several_kernels_may_be_there_but_one_is_asked_for() {
    let repo = ["kernel 1-1", "kernel 2-1", "mod 1-1; needs kernel = 1-1"];
    assert_eq!(World::new(&repo).install(&["kernel"]).solve(), ["+kernel-2-1 requested"]);
    let both = World::new(&repo).install(&["kernel", "mod"]).solve();
    assert_eq!(both.len(), 3, "{both:?}");
}

#[test]
fn other_architectures_are_not_seen() {
    let world = World::new(&["foo 2-1 i686", "foo 1-1", "bar 1-1 i686"]);
    assert_eq!(world.install(&["foo"]).solve(), ["+foo-1-1 requested"]);
    let (text, _) = World::new(&["bar 1-1 s390x"]).install(&["bar"]).refused();
    assert_eq!(
        text,
        "node.toml:10 installs `bar`, but no repository has it\n└─ bar-1-1.s390x is for another architecture"
    );
}

#[test]
fn parents_serve_and_stay() {
    let repo = ["lib 2-1", "app 1-1; needs lib >= 1"];
    let world = World::new(&repo).below(&["lib 1-1"]).install(&["app", "lib"]);
    assert_eq!(world.solve(), ["+app-1-1 requested"]);
}

#[test]
fn a_newer_parent_than_the_locked_one() {
    let world = World::new(&["app 1-1; needs lib >= 2", "lib 2-1"]).below(&["lib 1-1"]).install(&["app"]);
    let (text, advice) = world.refused();
    assert_eq!(
        text,
        "node.toml:10 installs `app`\n\
         └─ app-1-1.x86_64 requires lib >= 2\n   \
            └─ lib-2-1.x86_64 would replace 1-1, which the base layer has"
    );
    assert!(advice.contains("[[override]] for `lib`"), "{advice}");
    let fixed = world.overriding("lib", OverrideTo::Version("2".parse().unwrap()));
    assert_eq!(fixed.solve(), ["+app-1-1 requested", "~lib-2-1 (1-1) override: BUG-1"]);
}

#[test]
fn overrides_hold_replace_and_downgrade() {
    let repo = ["lib 3-1", "lib 2-1", "lib 1-1", "app 1-1; needs lib"];
    let to = |evr: &str| OverrideTo::Version(evr.parse().unwrap());
    let held = World::new(&repo).overriding("lib", to("2-1")).install(&["app"]);
    assert_eq!(held.solve(), ["+app-1-1 requested", "+lib-2-1 override: BUG-1"]);
    let down = World::new(&repo).below(&["lib 2-1"]).overriding("lib", to("1"));
    assert_eq!(down.solve(), ["~lib-1-1 (2-1) override: BUG-1"]);
    let same = World::new(&repo).below(&["lib 2-1"]).overriding("lib", to("2"));
    assert!(same.solve().is_empty());
    let kernel = World::new(&["kernel 2-1"]).below(&["kernel 1-1"]).overriding("kernel", to("2"));
    assert_eq!(kernel.solve(), ["~kernel-2-1 (1-1) override: BUG-1"]);
    let (text, _) = World::new(&repo).overriding("lib", to("9")).refused();
    assert!(text.starts_with("node.toml:40 overrides `lib` with lib-9, but no repository has it"), "{text}");
    let unused = World::new(&repo).overriding("lib", to("2"));
    assert_eq!(solve(&unused.request(&unused.repos())).unwrap().unused_overrides.len(), 1);
}

#[test]
fn a_local_file_replaces_whatever_its_version() {
    let mut world = World::new(&["lib 9-1"]).below(&["lib 2-1"]);
    world.local.insert("fix.rpm".into(), package("lib 2-1.hotfix1"));
    let world = world.overriding("lib", OverrideTo::File("fix.rpm".into()));
    assert_eq!(world.solve(), ["~lib-2-1.hotfix1 (2-1) override: BUG-1"]);
}

#[test]
fn removal_takes_only_what_it_names() {
    let world = World::new(&["lib 2-1"]).below(&["lib 1-1", "tool 1-1; needs lib"]);
    assert_eq!(world.remove(&["tool"]).solve(), ["-tool-1-1 removed by the manifest"]);

    let world = World::new(&["lib 2-1"]).below(&["lib 1-1", "tool 1-1; needs lib"]).remove(&["lib"]);
    let (text, _) = world.refused();
    assert_eq!(
        text,
        "node.toml:20 removes `lib`\n\
         tool-1-1.x86_64 of the base layer requires lib"
    );
    let both = world.remove(&["tool"]).solve();
    assert_eq!(both, ["-lib-1-1 removed by the manifest", "-tool-1-1 removed by the manifest"]);

    let (text, advice) = World::new(&[]).below(&["lib 1-1"]).remove(&["libb"]).refused();
    assert_eq!(text, "node.toml:20 removes `libb`, but no layer below has it");
    assert_eq!(advice, "did you mean `lib`?");
}

#[test]
fn obsoleting_a_parent_needs_a_word() {
    let world = World::new(&["new 1-1; obsoletes old"]).below(&["old 1-1"]).install(&["new"]);
    let (text, advice) = world.refused();
    assert_eq!(
        text,
        "node.toml:10 installs `new`\n└─ new-1-1.x86_64 obsoletes old: old-1-1.x86_64 of the base layer"
    );
    assert_eq!(advice, "add `old` to `remove` if this layer is to go without it");
    assert_eq!(world.remove(&["old"]).solve(), ["+new-1-1 requested", "-old-1-1 removed by the manifest"]);
}

#[test]
fn refusals_name_what_stands_against() {
    let (text, advice) = World::new(&["chrony 1-1"]).install(&["chronny"]).refused();
    assert_eq!(text, "node.toml:10 installs `chronny`, but no repository has it");
    assert_eq!(advice, "did you mean `chrony`?");

    let (text, _) = World::new(&["foo 1-1"]).exclude(&["f*"]).install(&["foo"]).refused();
    assert_eq!(
        text,
        "node.toml:10 installs `foo`, but no repository has it\n└─ foo-1-1.x86_64 is excluded at node.toml:30"
    );

    let (text, _) =
        World::new(&["app 1-1; needs mid", "mid 1-1; needs lib > 2", "lib 2-1"]).install(&["app"]).refused();
    assert_eq!(
        text,
        "node.toml:10 installs `app`\n\
         └─ app-1-1.x86_64 requires mid\n   \
            └─ mid-1-1.x86_64 requires lib > 2, which nothing provides\n      \
               └─ lib-2-1.x86_64 does not fit"
    );

    // as in dnf: what is excluded does not make room for another architecture
    let (text, advice) = World::new(&["app 1-1; needs lib", "lib 1-1 i686", "lib 2-1"])
        .exclude(&["lib-2-1"])
        .install(&["app"])
        .refused();
    assert_eq!(
        text,
        "node.toml:10 installs `app`\n\
         └─ app-1-1.x86_64 requires lib\n   \
            └─ lib-1-1.i686 is for a lesser architecture than others of its name\n      \
               └─ lib-2-1.x86_64 is excluded at node.toml:30"
    );
    assert_eq!(advice, "add `lib.i686` to `install` if it is to be of that architecture");

    let (text, _) = World::new(&["a 1-1; conflicts b", "b 1-1"]).install(&["a", "b"]).refused();
    assert!(text.contains("a-1-1.x86_64 conflicts with b: b-1-1.x86_64"), "{text}");

    // best=True: an older version is not taken silently
    let (text, _) = World::new(&["a 2-1; needs gone", "a 1-1"]).install(&["a"]).refused();
    assert!(text.contains("a-2-1.x86_64 requires gone, which nothing provides"), "{text}");

    let (text, _) = World::new(&["a 1-1"]).install(&["@core"]).refused();
    assert_eq!(text, "node.toml:10 installs `@core`, but no repository has a group or environment `core`");
    let (text, _) = World::new(&["a 1-1"]).install(&["a[", ""]).refused();
    assert!(text.contains("`a[` is not a pattern"), "{text}");
}

#[test]
fn locked_packages_are_kept_unless_asked() {
    let repo = ["app 1-1; needs lib", "app 2-1; needs lib", "lib 1-1", "lib 2-1"];
    let locked = ["app 1-1", "lib 1-1"];
    let kept = World::new(&repo).install(&["app"]).favor(&locked);
    assert_eq!(kept.solve(), ["+app-1-1 requested", "+lib-1-1 required by app"]);
    assert_eq!(kept.update("lib").solve(), ["+app-1-1 requested", "+lib-2-1 required by app"]);

    // an update that a kept package stands against moves that package too
    let repo = ["app 1-1; needs lib = 1-1", "app 2-1; needs lib = 2-1", "lib 1-1", "lib 2-1"];
    let moved = World::new(&repo).install(&["app"]).favor(&locked).update("lib");
    assert_eq!(moved.solve(), ["+app-2-1 requested", "+lib-2-1 required by app"]);

    // a locked package that is gone is replaced
    let gone = World::new(&["app 2-1"]).install(&["app"]).favor(&["app 1-1"]);
    assert_eq!(gone.solve(), ["+app-2-1 requested"]);
}

#[test]
fn malformed_dependencies_are_told_by_package() {
    let world = World::new(&["app 1-1; needs (a or"]).install(&["app"]);
    let error = solve(&world.request(&world.repos())).unwrap_err().to_string();
    assert!(error.starts_with("app-1-1.x86_64 has a malformed dependency `(a or`"), "{error}");
}

#[test]
fn filelists_are_needed_for_paths_primary_leaves_out() {
    let needs = |packages: &[&str], install: &[&str], path: &str| {
        let world = World::new(packages).install(install);
        paths_beyond_primary(&world.packages, [&world.repos[0].packages], []).contains(path)
    };
    let world =
        World::new(&["a 1-1; needs /usr/bin/sh, /etc/x, /usr/lib/sendmail"]).install(&["/usr/sbin/x", "a"]);
    assert!(paths_beyond_primary(&world.packages, [&world.repos[0].packages], []).is_empty());
    assert!(needs(&["a 1-1; needs /usr/libexec/x"], &[], "/usr/libexec/x"));
    assert!(!needs(&["a 1-1; needs /usr/libexec/x"], &[], "/usr/libexec/y"));
    assert!(needs(&["a 1-1; needs (b if /usr/share/x)"], &[], "/usr/share/x"));
    assert!(needs(&["a 1-1"], &["/usr/share/a"], "/usr/share/a"));
    assert!(needs(&["a 1-1"], &["*/a"], "/opt/a"));
}
