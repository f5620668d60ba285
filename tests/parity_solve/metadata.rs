//! A repository's metadata, by createrepo_c; comps and modules from their notation.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use strata::package::Arch;

use crate::case::RepoSketch;

/// Writes `repodata` of the packages in `path`.
pub fn write(path: &Path, repo: &RepoSketch, arch: Arch) {
    let mut createrepo = Command::new("createrepo_c");
    createrepo.args(["-q", "--general-compress-type=gz"]);
    if !repo.comps.is_empty() {
        let file = path.join("comps.xml");
        fs::write(&file, comps(&repo.comps)).unwrap();
        createrepo.arg("-g").arg(file);
    }
    run(createrepo.arg(path));
    if !repo.modules.is_empty() {
        let file = path.join("modules.yaml");
        fs::write(&file, modules(&repo.modules, arch)).unwrap();
        run(Command::new("modifyrepo_c").args(["--mdtype=modules"]).arg(&file).arg(path.join("repodata")));
    }
}

fn modules(lines: &[String], arch: Arch) -> String {
    let mut yaml = String::new();
    for line in lines {
        let mut parts = line.split("; ");
        let (kind, title) = parts.next().unwrap().split_once(' ').unwrap();
        let title: Vec<&str> = title.split(':').collect();
        let parts: Vec<(&str, &str)> = parts.map(|part| part.split_once(' ').unwrap()).collect();
        yaml += &match kind {
            "stream" => stream(&title, &parts, arch),
            _ => defaults(&title, &parts),
        };
    }
    yaml
}

fn stream(title: &[&str], parts: &[(&str, &str)], arch: Arch) -> String {
    let [name, stream, version, context] = title else { panic!("{title:?}") };
    let list = |kind: &str| {
        let items = parts.iter().filter(|(own, _)| *own == kind).flat_map(|(_, items)| items.split(", "));
        items.collect::<Vec<_>>()
    };
    let needs = list("needs").into_iter().map(|need| {
        let (module, stream) = need.split_once(':').unwrap();
        format!("      {module}: [\"{stream}\"]\n")
    });
    let needs: String = match needs.collect::<String>() {
        none if none.is_empty() => "      platform: []\n".to_owned(),
        some => some,
    };
    let profiles: String = parts
        .iter()
        .filter(|(kind, _)| *kind == "profile")
        .map(|(_, items)| {
            let (profile, packages) = items.split_once(' ').unwrap();
            format!("    {profile}:\n      rpms: [{packages}]\n")
        })
        .collect();
    let profiles = if profiles.is_empty() { String::new() } else { format!("  profiles:\n{profiles}") };
    let artifacts: String = list("artifacts").iter().map(|nevra| format!("    - {nevra}\n")).collect();
    let artifacts =
        if artifacts.is_empty() { artifacts } else { format!("  artifacts:\n    rpms:\n{artifacts}") };
    format!(
        "---\ndocument: modulemd\nversion: 2\ndata:\n  name: {name}\n  stream: \"{stream}\"\n  version: {version}\n  \
         context: {context}\n  arch: {}\n  summary: imaginary\n  description: imaginary\n  license:\n    module: \
         [MIT]\n  dependencies:\n  - requires:\n{needs}{profiles}{artifacts}...\n",
        arch.rpm()
    )
}

fn defaults(title: &[&str], parts: &[(&str, &str)]) -> String {
    let [name, stream] = title else { panic!("{title:?}") };
    let profiles = parts.iter().map(|(_, profiles)| *profiles).collect::<Vec<_>>().join(", ");
    format!(
        "---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: {name}\n  stream: \"{stream}\"\n  \
         profiles:\n    \"{stream}\": [{profiles}]\n...\n"
    )
}

fn comps(lines: &[String]) -> String {
    let mut xml = "<?xml version='1.0' encoding='UTF-8'?>\n<comps>\n".to_owned();
    for line in lines {
        let mut parts = line.split("; ");
        let (kind, title) = parts.next().unwrap().split_once(' ').unwrap();
        let (id, name) = title.split_once(", ").unwrap();
        writeln!(xml, "<{kind}><id>{id}</id><name>{name}</name>").unwrap();
        let list = if kind == "group" { "packagelist" } else { "grouplist" };
        let mut options = String::new();
        write!(xml, "<{list}>").unwrap();
        for (word, items) in parts.map(|part| part.split_once(' ').unwrap()) {
            for item in items.split(", ") {
                match (word, item.split_once(" if ")) {
                    ("groups", _) => write!(xml, "<groupid>{item}</groupid>").unwrap(),
                    ("options", _) => write!(options, "<groupid>{item}</groupid>").unwrap(),
                    ("basearchonly", _) => {
                        write!(xml, "<packagereq type='mandatory' basearchonly='true'>{item}</packagereq>")
                            .unwrap();
                    }
                    (_, Some((name, condition))) => {
                        write!(xml, "<packagereq type='{word}' requires='{condition}'>{name}</packagereq>")
                            .unwrap();
                    }
                    _ => write!(xml, "<packagereq type='{word}'>{item}</packagereq>").unwrap(),
                }
            }
        }
        writeln!(xml, "</{list}>").unwrap();
        if !options.is_empty() {
            writeln!(xml, "<optionlist>{options}</optionlist>").unwrap();
        }
        writeln!(xml, "</{kind}>").unwrap();
    }
    xml + "</comps>\n"
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}");
}
