//! What strata reads of a package against what `rpm -qp` prints.

use std::path::{Path, PathBuf};
use std::process::Command;

use strata::package::header::{Header, HeaderDependency, Phase, Scriptlet};

use crate::fixture::*;

#[test]
fn headers_are_read_as_rpm_reads_them() {
    Fixture::new().rpms.iter().for_each(|rpm| assert_agrees(rpm));
}

/// For a large set: `STRATA_TEST_RPMS=DIR cargo test --test rpmdb -- --ignored`.
#[test]
#[ignore = "needs a directory of packages in STRATA_TEST_RPMS"]
fn headers_of_a_repository_are_read_as_rpm_reads_them() {
    let dir = std::env::var("STRATA_TEST_RPMS").expect("STRATA_TEST_RPMS names a directory of packages");
    let rpms: Vec<PathBuf> = files_below(Path::new(&dir));
    assert!(!rpms.is_empty());
    rpms.iter().for_each(|rpm| assert_agrees(rpm));
}

/// All of a header that strata acts on is what rpm prints of it.
pub fn assert_agrees(rpm: &Path) {
    let header = Header::open(rpm).unwrap();
    let theirs = |format: &str| query(rpm, format);
    let none = |text: &str| if text.is_empty() { "(none)".to_owned() } else { text.to_owned() };

    let ours = format!("{} {}\n", header.nevra(), header.source());
    let nevra =
        "%{NAME}-%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}.%|SOURCERPM?{%{ARCH}}:{src}| %{SOURCERPM}\n";
    // an epoch of 0 is none, even if it is written
    assert_eq!(ours, theirs(nevra).replace("-0:", "-"));

    let ours = format!(
        "{}|{}|{}|{}|{}|{}|{}|{}|{}\n",
        header.summary().unwrap(),
        header.license().unwrap(),
        none(&header.vendor().unwrap().unwrap_or_default()),
        header.build_time().unwrap(),
        header.size().unwrap(),
        header.payload_compressor().unwrap(),
        none(&hex::encode(header.sigmd5().unwrap().unwrap_or_default())),
        none(header.sha1().unwrap().unwrap_or_default()),
        none(header.sha256().unwrap().unwrap_or_default()),
    );
    let scalars = "%{SUMMARY}|%{LICENSE}|%{VENDOR}|%{BUILDTIME}|%{LONGSIZE}|\
                   %|PAYLOADCOMPRESSOR?{%{PAYLOADCOMPRESSOR}}:{gzip}||%{SIGMD5}|%{SHA1HEADER}|%{SHA256HEADER}\n";
    assert_eq!(ours, theirs(scalars));

    let files: String = header
        .files()
        .unwrap()
        .iter()
        .map(|f| {
            format!(
                "{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}\n",
                f.path,
                f.mode,
                f.user,
                f.group,
                f.size,
                f.mtime,
                f.digest,
                f.linkto,
                f.flags,
                f.verify,
                f.device,
                f.inode,
                f.rdev,
                f.color,
            )
        })
        .collect();
    let format = "[%{FILENAMES}|%{FILEMODES}|%{FILEUSERNAME}|%{FILEGROUPNAME}|%{LONGFILESIZES}|%{FILEMTIMES}|\
                  %{FILEDIGESTS}|%{FILELINKTOS}|%{FILEFLAGS}|%{FILEVERIFYFLAGS}|%{FILEDEVICES}|%{FILEINODES}|\
                  %{FILERDEVS}|%{FILECOLORS}\n]";
    // rpm prints the line of absent arrays once; older packages lack some
    let theirs_files: String = theirs(format)
        .lines()
        .filter(|line| !line.starts_with("(none)|"))
        .map(|line| line.replace("(none)", "0") + "\n")
        .collect();
    assert_eq!(files, theirs_files, "files of {}", rpm.display());

    for (name, dependencies) in [
        ("PROVIDE", header.provides().unwrap()),
        ("REQUIRE", header.requires().unwrap()),
        ("CONFLICT", header.conflicts().unwrap()),
        ("OBSOLETE", header.obsoletes().unwrap()),
        ("RECOMMEND", header.weak().unwrap()[0].clone()),
        ("SUGGEST", header.weak().unwrap()[1].clone()),
        ("SUPPLEMENT", header.weak().unwrap()[2].clone()),
        ("ENHANCE", header.weak().unwrap()[3].clone()),
    ] {
        let ours: String = dependencies.iter().map(dependency).collect();
        let format = format!("[%{{{name}NEVRS}} %{{{name}FLAGS}}\n]");
        // rpm prints the line of an absent array once, and an epoch of 0 if it is written
        let theirs = theirs(&format).replace("(none) (none)\n", "").replace(" 0:", " ");
        assert_eq!(ours, theirs, "{name} of {}", rpm.display());
    }

    for (name, phase) in
        [("PREIN", Phase::Pre), ("POSTIN", Phase::Post), ("PREUN", Phase::Preun), ("POSTUN", Phase::Postun)]
    {
        let script = header.scriptlet(phase).unwrap();
        let body = script.as_ref().and_then(|s: &Scriptlet| s.body.clone());
        let program = script.map(|s| s.interpreter.join(" "));
        let ours = format!("{}|{}\n", body.unwrap_or("(none)".into()), program.unwrap_or_default());
        assert_eq!(ours, theirs(&format!("%{{{name}}}|[%{{{name}PROG}}]\n")), "{name} of {}", rpm.display());
    }

    let triggers = header.triggers().unwrap();
    let scripts: String = triggers.iter().map(|t| t.script.body.clone().unwrap_or_default() + "\n").collect();
    let format = "[%{TRIGGERSCRIPTS}\n][%{FILETRIGGERSCRIPTS}\n][%{TRANSFILETRIGGERSCRIPTS}\n]";
    assert_eq!(scripts, theirs(format).replace("(none)\n", ""));

    let changelog: String = header
        .changelog()
        .unwrap()
        .iter()
        .map(|entry| format!("{}|{}|{}\n", entry.time, entry.author, entry.text))
        .collect();
    let format = "[%{CHANGELOGTIME}|%{CHANGELOGNAME}|%{CHANGELOGTEXT}\n]";
    assert_eq!(changelog, theirs(format).replace("(none)|(none)|(none)\n", ""));
}

/// As rpm's `NEVRS` and flags.
fn dependency(d: &HeaderDependency) -> String {
    format!("{} {}\n", d.dependency, d.flags)
}

fn query(rpm: &Path, format: &str) -> String {
    run(Command::new("rpm").args(["-qp", "--nosignature", "--qf", format]).arg(rpm))
}

#[test]
fn triggers_have_phase_conditions_and_priority() {
    let fixture = Fixture::new();
    let triggers = Header::open(fixture.rpm("plain-triggers")).unwrap().triggers().unwrap();
    let lines: Vec<String> = triggers
        .iter()
        .map(|t| {
            let on: Vec<String> = t.conditions.iter().map(|c| c.dependency.to_string()).collect();
            format!(
                "{:?} {} {} {} {}",
                t.phase,
                t.number,
                t.priority,
                on.join(","),
                t.script.interpreter.join(" ")
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "TriggerIn 0 0 deps,plain < 2 /bin/sh",
            "TriggerUn 1 0 plain /bin/sh",
            "TriggerPostun 2 0 gone <lua>",
            "FileTriggerIn 0 1000000 /usr/lib,/usr/share /bin/sh",
            "FileTriggerUn 1 2000 /etc /bin/sh",
            "TransFileTriggerIn 0 1000000 /usr/lib/modules <lua>",
            "TransFileTriggerPostun 1 1000000 /usr/share/info /bin/sh",
        ]
    );
}
