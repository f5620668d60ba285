//! Packages of cases: from their notation to a spec, and from there to a file.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::common::{EPOCH, checked};

/// A package of a case.
pub struct Package {
    name: String,
    version: String,
    /// Lines of the spec's preamble.
    preamble: String,
    /// Commands that make the files.
    install: String,
    /// Lines of %files.
    files: String,
    /// Scriptlets, with their headings.
    scriptlets: String,
}

/// What a line of %files may begin with.
const ATTRIBUTES: [&str; 10] =
    ["%artifact", "%attr", "%caps", "%config", "%dir", "%doc", "%ghost", "%lang", "%license", "%missingok"];

impl Package {
    /// From `NAME VERSION`.
    pub fn new(heading: &str) -> Self {
        let (name, version) = heading.split_once(' ').expect("package NAME VERSION");
        let [preamble, install, files, scriptlets] = [(); 4].map(|()| String::new());
        Self { name: name.to_owned(), version: version.to_owned(), preamble, install, files, scriptlets }
    }

    /// What steps call it.
    pub fn id(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// Takes a line, and the indented ones below it.
    pub fn read(&mut self, line: &str, body: String) {
        let word = line.split([' ', '(']).next().unwrap_or_default();
        if line.starts_with('/') || ATTRIBUTES.contains(&word) {
            self.file(line, &body);
        } else if line.starts_with('%') && word != "%define" {
            self.section(line, &body);
        } else {
            self.preamble += &format!("{line}\n");
        }
    }

    fn file(&mut self, line: &str, body: &str) {
        let (attributes, rest) = line.split_at(line.find('/').expect("a file has a path"));
        let quote = |text: &str| format!("'{}'", text.replace('%', "%%").replace('\'', r"'\''"));
        let inside = |path: &str| format!("%{{buildroot}}{}", quote(path));
        let split = |by| rest.split_once(by);
        let (path, make) = if let Some((path, target)) = split(" -> ") {
            (path, format!("ln -s {} {}", quote(target), inside(path)))
        } else if let Some((path, other)) = split(" == ") {
            (path, format!("ln {} {}", inside(other), inside(path)))
        } else if let Some(path) = rest.strip_suffix('/').filter(|path| !path.is_empty()) {
            (path, format!("mkdir -p {}", inside(path)))
        } else {
            let (path, text) = split(" =").unwrap_or((rest, ""));
            let text = if body.is_empty() { format!("{}\n", text.trim_start()) } else { body.to_owned() };
            (path, format!("printf %%s {} > {}", quote(&text), inside(path)))
        };
        let directory = if rest.ends_with('/') { "%dir " } else { "" };
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        self.install += &format!("mkdir -p {}\n{make}\n", inside(parent));
        writeln!(self.files, "{attributes}{directory}\"{}\"", path.replace('%', "%%")).unwrap();
    }

    /// A section of the spec.
    fn section(&mut self, heading: &str, body: &str) {
        match heading {
            "%install" => self.install += body,
            "%files" => self.files += body,
            _ => self.scriptlet(heading, body),
        }
    }

    fn scriptlet(&mut self, heading: &str, body: &str) {
        let what = format!("{} {}", self.id(), heading.trim_start_matches('%').replace(" -p <lua>", ""));
        let noting = match heading {
            _ if !body.is_empty() => body.to_owned(),
            _ if heading.contains("-p <lua>") => format!("local what = \"{what}:\"\n{NOTING_IN_LUA}"),
            // a program without a body
            _ if heading.contains("-p ") => String::new(),
            _ => format!("note \"{what}:\" \"$@\"\n"),
        };
        self.scriptlets += &format!("{heading}\n{noting}");
    }

    fn spec(&self) -> String {
        let Self { name, version, preamble, install, files, scriptlets } = self;
        format!(
            "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: x\nLicense: x\n\
             AutoReqProv: no\n{preamble}%description\nx\n%install\nmkdir -p %{{buildroot}}\n{install}\
             find %{{buildroot}} -mindepth 1 -exec touch -h -d @15{version:0>8} {{}} +\n\
             {scriptlets}%files\n{files}"
        )
    }

    /// The package's file, built where `cache` does not have it yet.
    pub fn build(&self, cache: &Path) -> PathBuf {
        build(cache, &self.id(), &self.spec())
    }
}

/// What a Lua scriptlet without a body does, as `note` of the package `base` does it.
const NOTING_IN_LUA: &str = r#"
for i = 2, #arg do what = what .. " " .. string.format("%%d", arg[i]) end
local file = rpm.next_file and rpm.next_file()
while file do what = what .. "\n  " .. file; file = rpm.next_file() end
local log = io.open("/log", "a")
log:write(what .. "\n")
log:close()
"#;

const DEFINES: [&str; 6] = [
    "_rpmfilename built.rpm",
    "_build_id_links none",
    "debug_package %{nil}",
    "__os_install_post %{nil}",
    "clamp_mtime_to_source_date_epoch 0",
    // on the day of the transactions: that is what scripts see of rpm's, and of strata's
    "use_source_date_epoch_as_buildtime 1",
];

/// Builds the package `id` of a spec, or finds it built by a run before.
pub fn build(cache: &Path, id: &str, spec: &str) -> PathBuf {
    let digest = hex::encode(Sha256::digest(DEFINES.concat() + spec));
    let rpm = cache.join(format!("{id}-{}.rpm", &digest[..16]));
    if !rpm.exists() {
        let top = tempfile::tempdir_in(cache).unwrap();
        let file = top.path().join("x.spec");
        std::fs::write(&file, spec).unwrap();
        let mut rpmbuild = Command::new("rpmbuild");
        rpmbuild.args(["-bb", "--nodeps", "--define"]).arg(format!("_topdir {}", top.path().display()));
        rpmbuild.args(DEFINES.iter().flat_map(|define| ["--define", define]));
        rpmbuild.env("SOURCE_DATE_EPOCH", EPOCH.to_string());
        checked(rpmbuild.arg(&file).env("LC_ALL", "C"));
        std::fs::rename(top.path().join("RPMS/built.rpm"), &rpm).unwrap();
    }
    rpm
}
