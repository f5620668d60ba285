//! Image rules: what a rootfs must be to serve as an image that machines are updated with (design section 6;
//! bootc: `docs/src/filesystem.md` and the rules of `bootc container lint`).
//!
//! Traces of the build and what belongs to one machine go. A machine takes `/var` and `/etc` of its first
//! image only, so what later images bring there is declared in tmpfiles.d and sysusers.d. What packages
//! ship stays, so that `rpm --verify` has nothing to say; of their files in `/var` tmpfiles.d gets copies.

mod accounts;
mod clean;
mod var;

use std::fmt;

use anyhow::Result;
use serde::Serialize;

pub(crate) use self::clean::LEFTOVERS;
use super::files::Files;
use super::witness::Made;
use crate::error::hinted;
use crate::plan::OptUsrlocal;
use crate::rootfs::Rootfs;

/// Directories of a base that machines boot. What is to be writable there, `filesystem` and its like make so.
const BASE_DIRECTORIES: [&str; 8] = ["/boot", "/dev", "/proc", "/run", "/sys", "/sysroot", "/tmp", "/var"];

/// A departure from the rules, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// A path, `user NAME` or `group NAME`.
    pub subject: String,
    /// Name of the package that caused it, where that is known.
    pub package: Option<String>,
    /// What was done.
    pub action: Action,
}

/// What was done about a departure from the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A tmpfiles.d entry makes it, a file of a copy, on machines that have a `/var` already.
    DeclaredTmpfiles,
    /// A sysusers.d entry makes it on machines that have an `/etc/passwd` already.
    DeclaredSysusers,
    /// A file in `/var` or `/boot` that no package ships, or one in `/run` or `/tmp`: removed.
    Removed,
    /// A trace of the build, such as a log, a cache or a backup: removed.
    Cleaned,
    /// A packaged file where machines don't get updates of it: left.
    Left,
}

impl Repair {
    /// The repair of a path, caused by the package that has it or the directory it is in.
    fn of(composed: &Composed<'_>, path: String, action: Action) -> Self {
        let package = composed.files.near(&path).map(str::to_owned);
        Self { subject: path, package, action }
    }

    /// Whether something may be missing on a machine, which people should hear of.
    pub fn is_loss(&self) -> bool {
        matches!(self.action, Action::Removed | Action::Left)
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)?;
        if let Some(package) = &self.package {
            write!(f, " of {package}")?;
        }
        f.write_str(match self.action {
            Action::DeclaredTmpfiles => ": declared in tmpfiles.d",
            Action::DeclaredSysusers => ": declared in sysusers.d",
            Action::Removed => ": removed, for no package ships it there and machines keep their own",
            Action::Cleaned => ": removed, a trace of the build",
            Action::Left => ": machines get no updates of it there",
        })
    }
}

/// A rootfs on which packages are installed, and what is known of its making.
pub struct Composed<'a> {
    /// The tree.
    pub rootfs: &'a Rootfs,
    /// Name of the layer, for the files that are added.
    pub layer: &'a str,
    /// Whether machines boot the image.
    pub bootable: bool,
    /// Directory of the rpmdb.
    pub rpmdb: &'a str,
    /// The paths of all packages.
    pub files: &'a Files,
    /// The accounts that this layer made.
    pub made: &'a Made,
}

/// Begins an empty rootfs, in which packages find `/opt` and `/usr/local` to be what the stream wants.
pub fn prepare(rootfs: &Rootfs, policy: OptUsrlocal) -> Result<()> {
    if policy == OptUsrlocal::Var {
        for (link, target, dir) in
            [("/opt", "var/opt", "/var/opt"), ("/usr/local", "../var/usrlocal", "/var/usrlocal")]
        {
            rootfs.create_dir_all(dir)?;
            rootfs.symlink(link, target)?;
        }
    }
    Ok(())
}

/// Makes what ostree and bootc want of a base that machines boot, where packages left it out: the directories that
/// file systems are mounted on, the link to deployments, and a root mounted by composefs (bootc:
/// `docs/src/bootc-images.md`, `baseimage/base`). Before an initramfs is made, which takes a copy of the latter.
pub fn complete_base(rootfs: &Rootfs) -> Result<()> {
    for dir in BASE_DIRECTORIES {
        if rootfs.lstat(dir)?.is_none() {
            rootfs.create_dir_all(dir)?;
        }
    }
    if rootfs.lstat("/ostree")?.is_none() {
        rootfs.symlink("/ostree", "sysroot/ostree")?;
    }
    let configured = ["/etc", "/usr/lib"].map(|dir| format!("{dir}/ostree/prepare-root.conf"));
    for path in &configured {
        if rootfs.lstat(path)?.is_some() {
            return Ok(());
        }
    }
    rootfs.write(&configured[1], b"[composefs]\nenabled = true\n", 0o644)
}

/// Makes the rootfs follow the rules; tells what there was to repair.
pub fn apply(composed: &Composed<'_>) -> Result<Vec<Repair>> {
    check_kernel(composed)?;
    let mut repairs = clean::clean(composed)?;
    repairs.extend(var::apply(composed)?);
    repairs.extend(left_in_boot(composed)?);
    repairs.extend(accounts::apply(composed)?);
    Ok(repairs)
}

/// bootc boots the one kernel there is (bootc: lint `kernel`).
fn check_kernel(composed: &Composed<'_>) -> Result<()> {
    let kernels = composed.rootfs.glob("/usr/lib/modules/*/vmlinuz")?;
    if kernels.is_empty() && composed.bootable {
        return Err(hinted(
            "the image has no kernel at /usr/lib/modules/*/vmlinuz, and is meant to be booted",
            "install a kernel; or, if machines do not boot this image, say so in its manifest: \
             [image] labels = { \"containers.bootc\" = \"0\" }",
        ));
    }
    if kernels.len() <= 1 {
        return Ok(());
    }
    let described: Vec<String> = kernels
        .iter()
        .map(|path| format!("{path} of {}", composed.files.package_of(path).unwrap_or("no package")))
        .collect();
    Err(hinted(
        format!("the image has {} kernels, a machine boots one: {}", kernels.len(), described.join(", ")),
        "remove all but one in [packages], or exclude what brings the others",
    ))
}

/// Packaged files in `/boot`: what no package ships is gone by now.
fn left_in_boot(composed: &Composed<'_>) -> Result<Vec<Repair>> {
    let mut repairs = Vec::new();
    for path in composed.rootfs.glob("/boot/*")? {
        let package = composed.files.package_of(&path).map(str::to_owned);
        repairs.push(Repair { subject: path, package, action: Action::Left });
    }
    Ok(repairs)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    use rayon::prelude::*;
    use rpm::{FileOptions, PackageBuilder};

    use super::*;
    use crate::ledger::Account;
    use crate::package::header::Header;

    /// A rootfs, and a package `owner` that has `/var`, `/var/lib/owned`, `/opt/file` and `/boot/file`.
    fn composed(made: &[&str]) -> (tempfile::TempDir, Rootfs, Files) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owner.rpm");
        let mut package = PackageBuilder::new("owner", "1", "MIT", "noarch", "x");
        package.with_dir_entry(FileOptions::dir("/var/lib/owned")).unwrap();
        package.with_dir_entry(FileOptions::dir("/run/owned")).unwrap();
        for file in ["/opt/file", "/boot/file", "/var/lib/owned/file", "/run/owned/file"] {
            package.with_file_contents("x", FileOptions::new(file)).unwrap();
        }
        package.build().unwrap().write_file(&path).unwrap();
        let files = Files::of([Header::open(&path).unwrap()].par_iter()).unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        let rootfs = Rootfs::open(&dir.path().join("root")).unwrap();
        for path in made {
            rootfs.write(path, b"x", 0o644).unwrap();
        }
        (dir, rootfs, files)
    }

    fn apply_to(rootfs: &Rootfs, files: &Files) -> Result<Vec<String>> {
        let made = Made::from([(Account::user("zoe"), Some("zoo".to_owned()))]);
        let rpmdb = "/var/lib/rpm";
        let repairs = apply(&Composed { rootfs, layer: "l", bootable: false, rpmdb, files, made: &made })?;
        Ok(repairs.iter().map(Repair::to_string).collect())
    }

    #[test]
    fn strays_go_and_what_packages_ship_stays() {
        let kept =
            ["/var/lib/owned/file", "/var/lib/rpm/rpmdb.sqlite", "/var/lib/alternatives/awk", "/boot/file"];
        let gone = [
            "/var/lib/owned/stray",
            "/var/stray",
            "/boot/stray",
            "/run/stray",
            "/run/owned/file",
            "/var/log/stray",
            "/etc/passwd-",
        ];
        let (_dir, rootfs, files) = composed(&[&kept[..], &gone[..]].concat());
        let repairs = apply_to(&rootfs, &files).unwrap();
        assert!(kept.iter().all(|path| rootfs.lstat(path).unwrap().is_some()));
        assert!(gone.iter().all(|path| rootfs.lstat(path).unwrap().is_none()));
        for expected in [
            "/var/lib/owned of owner: declared in tmpfiles.d",
            "/var/lib/owned/stray of owner: removed, for no package ships it there and machines keep their own",
            "/var/stray: removed, for no package ships it there and machines keep their own",
            "/boot/file of owner: machines get no updates of it there",
            "/run/stray: removed, a trace of the build",
            "/run/owned of owner: declared in tmpfiles.d",
            "/run/owned/file of owner: removed, for no package ships it there and machines keep their own",
        ] {
            assert!(repairs.iter().any(|repair| repair == expected), "{expected}: {repairs:#?}");
        }
    }

    #[test]
    fn packaged_files_behind_a_link_into_var_stay_and_are_told_of() {
        let (_dir, rootfs, files) = composed(&["/var/opt/file", "/var/opt/stray"]);
        rootfs.symlink("/opt", "var/opt").unwrap();
        let repairs = apply_to(&rootfs, &files).unwrap();
        assert!(repairs.contains(&"/opt/file of owner: machines get no updates of it there".to_owned()));
        assert!(rootfs.lstat("/var/opt/file").unwrap().is_some());
        assert!(rootfs.lstat("/var/opt/stray").unwrap().is_none());
    }

    #[test]
    fn what_is_declared_is_not_declared_again() {
        let (_dir, rootfs, files) = composed(&[]);
        for dir in ["/var/lib/a b%", "/var/lib/known"] {
            rootfs.create_dir_all(dir).unwrap();
        }
        rootfs
            .write(
                "/usr/lib/tmpfiles.d/x.conf",
                b"# d /var/lib\nq /var/lib/known/ - - - -\nz /var/lib\n",
                0o644,
            )
            .unwrap();
        rootfs.write("/usr/lib/sysusers.d/x.conf", b"u ann 5 - /\n", 0o644).unwrap();
        rootfs.write("/etc/passwd", b"ann:x:5:5::/:/bin/sh\nzoe:x:6:7:a \"b\":/z:\n", 0o644).unwrap();
        rootfs.write("/etc/group", b"ann:x:5:zoe\ncrew:x:7:\n", 0o644).unwrap();
        let repairs = apply_to(&rootfs, &files).unwrap();
        let text = |path| String::from_utf8(rootfs.read(path).unwrap().unwrap()).unwrap();
        let tmpfiles = "d /var/lib 0755 0 0 - -\nd \"/var/lib/a b%%\" 0755 0 0 - -\n";
        assert_eq!(text("/usr/lib/tmpfiles.d/strata-l.conf"), tmpfiles);
        let sysusers = "g crew 7\nu zoe 6:7 \"a \\\"b\\\"\" \"/z\" -\nm zoe ann\n";
        assert_eq!(text("/usr/lib/sysusers.d/strata-l.conf"), sysusers);
        assert!(repairs.contains(&"user zoe of zoo: declared in sysusers.d".to_owned()));
        assert_eq!(apply_to(&rootfs, &files).unwrap(), Vec::<String>::new());
    }

    /// Whatever tmpfiles.d files packages bring, systemd-tmpfiles makes of them and of ours what the image has.
    #[test]
    fn systemd_tmpfiles_makes_the_same_directories() {
        let (dir, rootfs, files) = composed(&[]);
        let shipped = "C /var/lib/copied - - - - /usr/share/source\nd /var/lib/specified 0750\nD /var/run/legacy\n\
                       e /var/lib/adjusted 0700\nx /var/lib/kept*\nL /var/link - - - - ../usr\nd /var/%b\n\
                       Q! /var/lib/subvolume 0711\nf /run/file\n";
        rootfs.write("/usr/lib/tmpfiles.d/p.conf", shipped.as_bytes(), 0o644).unwrap();
        rootfs.write("/usr/lib/tmpfiles.d/masked.conf", b"d /var/lib/masked\n", 0o644).unwrap();
        rootfs.symlink("/etc/tmpfiles.d/masked.conf", "/dev/null").unwrap();
        rootfs.create_dir_all("/usr/share/source/in/depth").unwrap();
        for name in [
            "copied/in/depth",
            "copied/other",
            "specified",
            "adjusted",
            "kept-a",
            "masked",
            "subvolume",
            "odd \u{e9}%S'\\\"",
        ] {
            rootfs.create_dir_all(&format!("/var/lib/{name}")).unwrap();
        }
        for (path, mode) in [("specified", 0o750), ("adjusted", 0o700), ("subvolume", 0o711)] {
            let dir = dir.path().join("root/var/lib").join(path);
            std::fs::set_permissions(dir, PermissionsExt::from_mode(mode)).unwrap();
        }
        rootfs.symlink("/var/link", "../usr").unwrap();
        rootfs.symlink("/var/other", "lib/a b").unwrap();
        rootfs.write("/var/lib/owned/file", b"shipped", 0o640).unwrap();
        rootfs.set_owner_mode("/var/lib/owned/file", 3, 4, 0o640).unwrap();
        rootfs.create_dir_all("/run/legacy").unwrap();
        rootfs.create_dir_all("/run/owned").unwrap();
        rootfs.write("/run/file", b"", 0o644).unwrap();
        let tree = |top: &str| {
            let mut found = BTreeMap::new();
            let mut todo = vec![top.to_owned()];
            while let Some(dir) = todo.pop() {
                for name in rootfs.list(&dir).unwrap().unwrap() {
                    let path = format!("{dir}/{name}");
                    let stat = rootfs.lstat(&path).unwrap().unwrap();
                    if stat.file_type() == rustix::fs::FileType::Directory {
                        todo.push(path.clone());
                    }
                    let target = rootfs.read_link(&path).unwrap();
                    found.insert(path, (stat.mode, stat.uid, stat.gid, target));
                }
            }
            found
        };
        let (var, run) = (tree("/var"), tree("/run"));
        apply_to(&rootfs, &files).unwrap();
        assert_eq!(rootfs.list("/run").unwrap().unwrap(), Vec::<String>::new());
        rootfs.remove_all("/var").unwrap();
        rootfs.create_dir_all("/var").unwrap();
        let root = format!("--root={}", dir.path().join("root").display());
        let mut tool = std::process::Command::new("systemd-tmpfiles");
        let output = tool.args([&root, "--create", "--boot"]).output().expect("systemd-tmpfiles, of systemd");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("strata-l.conf"), "{said}");
        assert_eq!(
            tree("/var").into_iter().filter(|(path, _)| var.contains_key(path)).collect::<BTreeMap<_, _>>(),
            var
        );
        assert_eq!(rootfs.read("/var/lib/owned/file").unwrap().unwrap(), b"shipped");
        assert_eq!(tree("/run"), run);
    }

    #[test]
    fn layers_above_keep_the_copies_of_files_up_to_date() {
        let path = "/var/lib/owned/file";
        let (_dir, rootfs, files) = composed(&[path]);
        let copy = || rootfs.read("/usr/lib/strata/var/lib/owned/file").unwrap();
        let told = "/var/lib/owned/file of owner: declared in tmpfiles.d".to_owned();
        assert!(apply_to(&rootfs, &files).unwrap().contains(&told));
        rootfs.write(path, b"changed", 0o644).unwrap();
        assert_eq!(copy().unwrap(), b"x");
        assert!(!apply_to(&rootfs, &files).unwrap().contains(&told));
        assert_eq!(copy().unwrap(), b"changed");
        rootfs.remove_all("/var/lib/owned").unwrap();
        apply_to(&rootfs, &files).unwrap();
        assert_eq!(copy(), None);
    }

    #[test]
    fn a_base_has_what_bootc_wants_unless_a_package_brings_it() {
        let (_dir, rootfs, _) = composed(&[]);
        complete_base(&rootfs).unwrap();
        let configuration = "/usr/lib/ostree/prepare-root.conf";
        assert_eq!(rootfs.read(configuration).unwrap().unwrap(), b"[composefs]\nenabled = true\n");
        assert_eq!(rootfs.read_link("/ostree").unwrap().unwrap(), "sysroot/ostree");
        assert_eq!(rootfs.list("/sysroot").unwrap(), Some(Vec::new()));
        let (_dir, rootfs, _) = composed(&["/etc/ostree/prepare-root.conf"]);
        complete_base(&rootfs).unwrap();
        assert_eq!(rootfs.read(configuration).unwrap(), None);
    }

    /// Not to be tried with systemd-tmpfiles --root, which puts the root before their values twice (252).
    #[test]
    fn specifiers_are_resolved() {
        let (_dir, rootfs, files) = composed(&[]);
        let lines = b"d %S/a\nd %C/b\nd %L/c\nd %t/d\nd %T/e\nd %m/f\n";
        rootfs.write("/usr/lib/tmpfiles.d/p.conf", lines, 0o644).unwrap();
        for dir in ["/var/lib/a", "/run/d", "/tmp/e"] {
            rootfs.create_dir_all(dir).unwrap();
        }
        let repairs = apply_to(&rootfs, &files).unwrap();
        assert!(!repairs.iter().any(|repair| repair.starts_with("/var/lib/a")), "{repairs:?}");
    }

    #[test]
    fn a_machine_boots_one_kernel() {
        let (_dir, rootfs, files) = composed(&[]);
        let bootable = Composed {
            rootfs: &rootfs,
            layer: "l",
            bootable: true,
            rpmdb: "/var/lib/rpm",
            files: &files,
            made: &Made::new(),
        };
        assert!(apply(&bootable).unwrap_err().to_string().starts_with("the image has no kernel at"));
        rootfs.write("/usr/lib/modules/6.1/vmlinuz", b"", 0o644).unwrap();
        apply(&bootable).unwrap();
        rootfs.write("/usr/lib/modules/6.2/vmlinuz", b"", 0o644).unwrap();
        let error = apply_to(&rootfs, &files).unwrap_err().to_string();
        let expected = "the image has 2 kernels, a machine boots one: /usr/lib/modules/6.1/vmlinuz of no package, \
                        /usr/lib/modules/6.2/vmlinuz of no package";
        assert_eq!(error, expected);
    }
}
