//! Cases out of a seed: packages that share, move and change files, call scriptlets of every kind and need
//! each other in circles; and what is done with them.
//!
//! Cases come in universes: [`SEQUENCES`] of them act on the same packages, which are built once.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::sketch::{Package, Sketch};

/// Cases of one universe.
const SEQUENCES: u32 = 16;

const NAMES: [&str; 6] = ["ant", "bee", "cat", "dog", "elk", "fox"];

/// The case with this number, always the same.
pub fn sketch(number: u32) -> Sketch {
    let packages = universe(&mut ChaCha8Rng::seed_from_u64((number / SEQUENCES).into()));
    let mut rng = ChaCha8Rng::seed_from_u64(number.into());
    rng.set_stream(1);
    let options = match rng.gen_range(0..8) {
        0 => vec!["with excludedocs".to_owned()],
        1 => vec!["with langs de:it".to_owned()],
        _ => Vec::new(),
    };
    let steps = Sequence { rng: &mut rng, packages: &packages, installed: BTreeMap::new() }.draw();
    let mut sketch = Sketch { options, packages, steps };
    sketch.drop_unused();
    sketch
}

fn universe(rng: &mut ChaCha8Rng) -> Vec<Package> {
    let mut packages = Vec::new();
    for name in NAMES {
        for version in 1..=rng.gen_range(1..=3) {
            packages.push(Draw { rng, name, version, lines: Vec::new(), paths: BTreeSet::new() }.package());
        }
    }
    packages
}

/// A package being drawn.
struct Draw<'a> {
    rng: &'a mut ChaCha8Rng,
    name: &'static str,
    version: u32,
    lines: Vec<String>,
    /// Paths that lines make already.
    paths: BTreeSet<String>,
}

impl Draw<'_> {
    fn package(mut self) -> Package {
        self.dependencies();
        self.files();
        self.scriptlets();
        self.triggers();
        Package { name: self.name, version: self.version, lines: self.lines }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.gen_ratio(percent, 100)
    }

    fn pick<'p>(&mut self, from: &[&'p str]) -> &'p str {
        from.choose(self.rng).expect("the lists here are not empty")
    }

    fn dependencies(&mut self) {
        const KINDS: [&str; 10] = [
            "Requires",
            "Requires",
            "Requires(pre)",
            "Requires(post)",
            "Requires(preun)",
            "Requires(postun)",
            "Recommends",
            "Suggests",
            "OrderWithRequires",
            "Supplements",
        ];
        for _ in 0..self.rng.gen_range(0..4) {
            let (kind, on) = (self.pick(&KINDS), self.target());
            self.lines.push(format!("{kind}: {on}"));
        }
        if self.chance(20) {
            let on = self.pick(&["/usr/bin/ant", "/srv/pool/1", "thing", "thing > 1"]);
            self.lines.push(format!("Requires: {on}"));
        }
        if self.chance(20) {
            self.lines.push(format!("Provides: thing = {}", self.version));
        }
        let other = self.pick(&NAMES);
        if self.version > 1 && other != self.name && self.chance(15) {
            self.lines.push(format!("Obsoletes: {other}"));
        }
        if self.chance(10) {
            let payload = self.pick(&["w9.gzdio", "w6.xzdio", "w3.zstdio", "w.ufdio"]);
            self.lines.push(format!("%define _binary_payload {payload}"));
        }
    }

    /// A package, perhaps of some versions only.
    fn target(&mut self) -> String {
        let name = self.pick(&NAMES);
        let version = self.pick(&["", "", "", " < 2", " >= 2", " = 1", " > 2"]);
        format!("{name}{version}")
    }

    /// Adds a line of a file, unless the package has the path.
    fn file(&mut self, attributes: &str, path: &str, what: &str) {
        if self.paths.insert(path.trim_end_matches('/').to_owned()) {
            self.lines.push(format!("{attributes}{path}{what}"));
        }
    }

    fn files(&mut self) {
        let name = self.name;
        // the package's own, which its versions make of every kind
        for slot in ["thing", "place", "other"] {
            self.changing(&format!("/srv/{name}/{slot}"));
        }
        self.configuration();
        self.documents();
        self.shared();
        if self.chance(15) {
            let special = ["%caps(cap_net_raw=ep) ", "%attr(4755,root,root) ", "%attr(2755,bin,fox) "];
            let attributes = self.pick(&special);
            self.file(attributes, &format!("/usr/bin/{name}"), " = program");
        }
    }

    /// A path that may be anything.
    fn changing(&mut self, path: &str) {
        let attributes = self.attributes();
        let text = self.pick(&[" = one", " = one", " = two", " ="]);
        match self.rng.gen_range(0..14) {
            0..4 => self.file(attributes, path, text),
            4..6 => self.file(attributes, path, "/"),
            6..8 => {
                self.file("", path, "/");
                self.file(attributes, &format!("{path}/inner"), text);
            }
            8 => self.file(attributes, &format!("{path}/inner"), text),
            9 => self.file("", path, " -> ../pool"),
            10 => self.file("", path, " -> /usr/share/common"),
            11 => {
                self.file(attributes, path, text);
                let (name, link) = (self.name, self.pick(&["hard", "a", "z"]));
                self.file(attributes, &format!("/srv/{name}/{link}"), &format!(" == {path}"));
            }
            12 => self.file("%ghost ", path, " = ghost"),
            _ => {}
        }
    }

    fn attributes(&mut self) -> &'static str {
        const ATTRIBUTES: [&str; 10] = [
            "%config ",
            "%config(noreplace) ",
            "%config(missingok) ",
            "%attr(0600,bin,bin) ",
            "%doc ",
            "%lang(de) ",
            "%lang(fr) ",
            "%missingok ",
            "%attr(2750,fox,root) ",
            "%ghost ",
        ];
        if self.chance(35) { self.pick(&ATTRIBUTES) } else { "" }
    }

    fn configuration(&mut self) {
        const MARKS: [&str; 9] = [
            "%config ",
            "%config ",
            "%config(noreplace) ",
            "%config(noreplace) ",
            "%config(missingok) ",
            "",
            "%ghost ",
            "%ghost %config ",
            "%config(noreplace,missingok) ",
        ];
        let path = format!("/etc/{}.conf", self.name);
        let mark = self.pick(&MARKS);
        match self.rng.gen_range(0..10) {
            0 => {}
            1 => self.file(mark, &path, " -> common.conf"),
            2..6 => self.file(mark, &path, " = one"),
            _ => self.file(mark, &path, " = two"),
        }
        // the same everywhere, so that it may be shared and may move from package to package
        if self.chance(15) {
            let mark = self.pick(&["%config ", "%config(noreplace) ", ""]);
            self.file(mark, "/etc/common.conf", " = common");
        }
    }

    fn documents(&mut self) {
        let name = self.name;
        if self.chance(30) {
            self.file("%doc ", &format!("/usr/share/doc/{name}"), "/");
            self.file("%doc ", &format!("/usr/share/doc/{name}/README"), &format!(" = {}", self.version));
        }
        for language in ["de", "fr"] {
            if self.chance(15) {
                let path = format!("/usr/share/locale/{language}/{name}");
                self.file(&format!("%lang({language}) "), &path, " = text");
            }
        }
    }

    /// What several packages have, most of them alike.
    fn shared(&mut self) {
        for path in ["/srv/pool/1", "/srv/pool/2", "/usr/share/common/1", "/usr/share/common/2"] {
            if self.chance(20) {
                let text = if self.chance(3) { " = different" } else { " = common" };
                self.file("", path, text);
            }
        }
        for path in ["/srv/pool", "/usr/share/common", "/srv", "/srv/pool/deep/er"] {
            if self.chance(20) {
                let attributes = if self.chance(10) { "%attr(0700,bin,root) " } else { "" };
                self.file(attributes, path, "/");
            }
        }
        match self.rng.gen_range(0..12) {
            0 => self.file("", "/srv/alias", " -> pool"),
            1 => self.file("", "/srv/alias/3", " = common"),
            _ => {}
        }
    }

    fn scriptlets(&mut self) {
        for phase in ["pretrans", "pre", "post", "preun", "postun", "posttrans"] {
            match self.rng.gen_range(0..100) {
                0..15 => self.lines.push(format!("%{phase}")),
                15..22 => self.lines.push(format!("%{phase} -p <lua>")),
                22..30 => {
                    let action = self.action(phase);
                    let note = format!("note \"{}-{} {phase}:\" \"$@\"", self.name, self.version);
                    self.lines.push(format!("%{phase}\n  {note}\n  {action}"));
                }
                _ => {}
            }
        }
    }

    /// What a scriptlet does to files. A %pre removes no directory: rpm may then fail (config-touched-moved).
    fn action(&mut self, phase: &str) -> String {
        let name = self.name;
        let user = "grep -q ^fox: /etc/passwd || { echo fox:x:81:82::/: >> /etc/passwd; echo fox:x:82: >> /etc/group; }";
        match self.rng.gen_range(0..if phase == "pre" { 5 } else { 7 }) {
            0..2 => user.to_owned(),
            2 => format!("[ ! -f /etc/{name}.conf ] || echo more >> /etc/{name}.conf"),
            3 => format!("mkdir -p /srv/{name}; echo state > /srv/{name}/state"),
            4 => format!("rm -f /srv/{name}/thing/inner || true"),
            5 => format!("rm -rf /srv/{name}/place"),
            _ => format!(
                "[ -L /srv/{name}/place ] || rm -rf /srv/{name}/place.old; [ ! -d /srv/{name}/place ] || mv /srv/{name}/place /srv/{name}/place.old"
            ),
        }
    }

    fn triggers(&mut self) {
        for kind in ["triggerprein", "triggerin", "triggerun", "triggerpostun"] {
            if self.chance(10) {
                let targets: Vec<String> = (0..self.rng.gen_range(1..3)).map(|_| self.target()).collect();
                let lua = self.pick(&["", "", " -p <lua>"]);
                self.lines.push(format!("%{kind}{lua} -- {}", targets.join(", ")));
            }
        }
        for kind in ["filetriggerin", "filetriggerun", "filetriggerpostun"] {
            for kind in [kind.to_owned(), format!("trans{kind}")] {
                if self.chance(10) {
                    let priority = self.pick(&["", "", " -P 5", " -P 9999", " -P 10000", " -P 2000000"]);
                    let lua = self.pick(&["", "", " -p <lua>"]);
                    // of several prefixes rpm may see one (transfiletrigger-postun-prefixes)
                    let several =
                        if kind == "transfiletriggerpostun" { "/srv/ant" } else { "/srv/ant /etc/fox" };
                    let prefix = self.pick(&["/srv", "/srv/pool", "/usr/share", "/etc", several]);
                    self.lines.push(format!("%{kind}{priority}{lua} -- {prefix}"));
                }
            }
        }
    }
}

/// Steps being drawn, with the packages that are installed after those that were.
struct Sequence<'a> {
    rng: &'a mut ChaCha8Rng,
    packages: &'a [Package],
    installed: BTreeMap<&'static str, Vec<String>>,
}

impl<'a> Sequence<'a> {
    fn draw(mut self) -> Vec<String> {
        let mut steps = Vec::new();
        while steps.len() < 7 {
            match self.rng.gen_range(0..10) {
                0..3 => steps.extend(self.install()),
                3..6 => steps.extend(self.upgrade()),
                6..8 => steps.extend(self.erase()),
                _ => steps.push(self.by_hand()),
            }
        }
        // after which rpm is asked, unlike after steps that are tried
        steps.push("do true".to_owned());
        steps
    }

    /// One version of each of some names, of which none obsoletes another.
    fn some(&mut self) -> Vec<&'a Package> {
        let count = self.rng.gen_range(1..=4);
        let mut some: Vec<&Package> = Vec::new();
        for name in NAMES.choose_multiple(self.rng, count) {
            let versions: Vec<&Package> = self.packages.iter().filter(|p| p.name == *name).collect();
            some.extend(versions.choose(self.rng));
        }
        let obsoleted: Vec<&str> = some.iter().flat_map(|package| package.obsoletes()).collect();
        some.retain(|package| !obsoleted.contains(&package.name));
        some
    }

    fn install(&mut self) -> Option<String> {
        let also_beside = self.rng.gen_ratio(1, 10);
        let mut new = self.some();
        new.retain(|package| match self.installed.get(package.name) {
            None => true,
            Some(versions) => also_beside && !versions.contains(&package.id()),
        });
        for package in &new {
            self.installed.entry(package.name).or_default().push(package.id());
        }
        (!new.is_empty()).then(|| format!("try install {}", ids(&new)))
    }

    fn upgrade(&mut self) -> Option<String> {
        let new = self.some();
        for package in &new {
            package.obsoletes().for_each(|name| drop(self.installed.remove(name)));
            self.installed.insert(package.name, vec![package.id()]);
        }
        (!new.is_empty()).then(|| format!("try upgrade {}", ids(&new)))
    }

    fn erase(&mut self) -> Option<String> {
        let all: Vec<String> = self.installed.values().flatten().cloned().collect();
        let count = self.rng.gen_range(1..=3);
        let old: Vec<String> = all.choose_multiple(self.rng, count).cloned().collect();
        for versions in self.installed.values_mut() {
            versions.retain(|id| !old.contains(id));
        }
        self.installed.retain(|_, versions| !versions.is_empty());
        (!old.is_empty()).then(|| format!("try erase {}", old.join(" ")))
    }

    /// What an administrator does.
    fn by_hand(&mut self) -> String {
        let name = *NAMES.choose(self.rng).expect("there are names");
        let slot = *["thing", "place", "other"].choose(self.rng).expect("there are slots");
        let (own, config) = (format!("/srv/{name}/{slot}"), format!("/etc/{name}.conf"));
        let action = match self.rng.gen_range(0..11) {
            0..2 => format!("[ ! -f {config} ] || echo mine >> {config}"),
            2 => format!("rm -f {config}"),
            3 => format!("echo mine > {config}"),
            4 => "[ ! -f /etc/common.conf ] || echo mine >> /etc/common.conf".to_owned(),
            5 => format!("rm -rf {own}"),
            6 => format!("[ -e {own} ] || mkdir -p {own}; [ ! -d {own} ] || touch {own}/unowned"),
            7 => format!(
                "[ -L {own} ] || [ ! -d {own} ] || {{ mv {own} {own}.real; ln -s {slot}.real {own}; }}"
            ),
            8 => format!("[ ! -f {own} ] || echo mine > {own}"),
            9 => format!("[ ! -e {own} ] || chmod 0710 {own}; [ ! -e {config} ] || chown bin {config}"),
            _ => "[ -e /srv/alias ] || { mkdir -p /srv/pool; ln -s pool /srv/alias; }".to_owned(),
        };
        format!("do {action}")
    }
}

fn ids(packages: &[&Package]) -> String {
    packages.iter().map(|package| package.id()).collect::<Vec<_>>().join(" ")
}
