//! Labels of files, judged by matchpathcon, libselinux's own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use strata::image::delta::Kind;
use strata::rootfs::Rootfs;
use strata::selinux::Contexts;

const NAME: &str = "etc/selinux/targeted/contexts/files/file_contexts";

/// The context that matchpathcon finds for each path, by the policy whose contexts are in the file `contexts`.
fn theirs(contexts: &Path, kind: &Kind, paths: &[PathBuf]) -> Vec<String> {
    let kind = match kind {
        Kind::Directory => "dir",
        Kind::Symlink { .. } => "lnk_file",
        _ => "file",
    };
    let mut found = Vec::new();
    for paths in paths.chunks(5000) {
        let mut command = Command::new("matchpathcon");
        command.args(["-n", "-m", kind, "-f"]).arg(contexts).args(paths);
        let output = command.output().unwrap_or_else(|e| panic!("running matchpathcon: {e}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        found.extend(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned));
    }
    found
}

/// Compares what we find for the paths, be they files, directories or links, with what matchpathcon finds.
fn compare(root: &Path, contexts: &str, paths: &[PathBuf]) {
    let ours = Contexts::read(&Rootfs::open(root).unwrap()).unwrap().expect("a policy is installed");
    let link = Kind::Symlink { target: OsString::new() };
    for kind in [Kind::File { size: 0 }, Kind::Directory, link] {
        let theirs = theirs(&root.join(contexts), &kind, paths);
        assert_eq!(paths.len(), theirs.len());
        for (path, theirs) in paths.iter().zip(theirs) {
            let context = ours.of(path.strip_prefix("/").unwrap(), &kind);
            assert_eq!(context.unwrap_or("<<none>>"), theirs, "{} {kind:?}", path.display());
        }
    }
}

/// A root with an installed policy of these files, by the ends of their names.
fn policy(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let contexts = root.path().join(NAME);
    fs::create_dir_all(contexts.parent().unwrap()).unwrap();
    fs::write(root.path().join("etc/selinux/config"), "# which\nSELINUX=enforcing\nSELINUXTYPE=targeted\n")
        .unwrap();
    for (suffix, text) in files {
        fs::write(format!("{}{suffix}", contexts.display()), text).unwrap();
    }
    root
}

#[test]
fn the_policy_decides_as_for_libselinux() {
    let contexts = r"# comment
/.*                    system_u:object_r:default_t:s0
/                  -d  system_u:object_r:root_t:s0
/usr/.*                system_u:object_r:usr_t:s0
/usr/bin(/.*)?         system_u:object_r:bin_t:s0
/usr/bin/sh        --  system_u:object_r:shell_exec_t:s0
/usr/bin/[^/]*sh   --  system_u:object_r:other_shell_t:s0
/usr/libx?/a\.so(\.[^/]*)*  --  system_u:object_r:lib_t:s0
/usr/.+\.d         -d  system_u:object_r:drop_in_t:s0
/tmp/.*                <<none>>
/home(/.*)?|/srv(/.*)? system_u:object_r:odd_t:s0
/etc/plain\.conf   -l  system_u:object_r:link_t:s0
/etc/.*                system_u:object_r:etc_t:s0
/etc/a\[b\]            system_u:object_r:brackets_t:s0
/etc/a{2,3}b           system_u:object_r:counted_t:s0
/dev/null          -c  system_u:object_r:null_device_t:s0
";
    let root = policy(&[
        ("", contexts),
        (".homedirs", "/home/[^/]+ -d user_u:object_r:home_t:s0\n"),
        (".local", "/etc/.*\\.local system_u:object_r:local_t:s0\n"),
        (
            ".subs_dist",
            "/usr/lib64 /usr/lib\n/lib /usr/lib\n# of a, the last\n/a /usr/bin\n/a /tmp\n/a/b /etc\n",
        ),
        (".subs", "/opt/x /lib\n"),
    ]);
    let paths = "/ /usr /usr/bin /usr/bin/sh /usr/bin/bash /usr/binx /usr/lib/a.so /usr/libx/a.so.1 /usr/lib64/a.so.2.3
        /usr/lib/conf.d /tmp /tmp/x /home /home/a /home/a/b /srv/x /x/srv /x/srv/y /etc/plain.conf /etc/plainxconf
        /etc/a.local /etc/a[b] /etc/ab /etc/aab /etc/aaaab /lib /lib/a.so /libx /a/sh /a /ab /a/b/c /opt/x/a.so /opt/xy
        /dev/null /nowhere /usr/bin/z\u{e9}sh";
    let paths: Vec<PathBuf> = paths.split_whitespace().map(PathBuf::from).collect();
    compare(root.path(), NAME, &paths);
}

#[test]
fn without_a_policy_there_are_no_labels() {
    let root = policy(&[]);
    let read = || Contexts::read(&Rootfs::open(root.path()).unwrap());
    assert!(read().unwrap().is_none());
    fs::remove_file(root.path().join("etc/selinux/config")).unwrap();
    assert!(read().unwrap().is_none());
}

#[test]
fn mistakes_name_their_line() {
    for (line, expected) in [
        ("/a(?=b) system_u:object_r:a_t:s0", "look-around"),
        ("/a -x system_u:object_r:a_t:s0", "`-x` is no kind of files"),
        ("/a", "it has 1 words"),
    ] {
        let root = policy(&[("", &format!("/.* system_u:object_r:b_t:s0\n{line}\n"))]);
        let error = Contexts::read(&Rootfs::open(root.path()).unwrap()).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(expected) && error.contains("file_contexts: line 2"), "{error}");
    }
}

/// `STRATA_TEST_POLICY` is a root in which a policy is installed and built, `STRATA_TEST_PATHS` a file of paths.
#[test]
#[ignore = "needs a real policy"]
fn a_real_policy_decides_as_for_libselinux() {
    let root = PathBuf::from(std::env::var_os("STRATA_TEST_POLICY").expect("STRATA_TEST_POLICY is set"));
    let paths = std::env::var_os("STRATA_TEST_PATHS").expect("STRATA_TEST_PATHS is set");
    let paths: Vec<PathBuf> = fs::read_to_string(paths).unwrap().lines().map(PathBuf::from).collect();
    let config = fs::read_to_string(root.join("etc/selinux/config")).unwrap();
    let name = config.lines().find_map(|line| line.strip_prefix("SELINUXTYPE=")).expect("a policy is named");
    compare(&root, &format!("etc/selinux/{name}/contexts/files/file_contexts"), &paths);
}
