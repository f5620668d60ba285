//! The user and mount namespace in which strata builds.
//!
//! Inside, the ids 0 to 65535 exist, strata is 0 and has every capability over its own mounts. Run by root,
//! they are the ids themselves; run by somebody else, 0 is that user and the rest comes from /etc/subuid and
//! /etc/subgid. What is built looks the same from inside either way, so the images are the same.
//!
//! The process forks: the outer half writes the id maps (only a process outside may), waits, and passes the
//! exit code on. The inner half dies with the outer one, so whoever stops the one stops both.

use std::fmt;
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, StatVfsMountFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, mount_change};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, setrlimit, waitpid};

use super::process::{self, Fork};
use super::start;
use crate::error::{HintExt, hinted};

/// How many ids exist inside: what 16-bit file formats and `nobody` (65534) need.
const IDS: u32 = 65536;

/// Moves strata into its own user and mount namespace, in which it is root, whoever runs it.
///
/// Call it first in `main`, before any thread. `Ok(Some(code))`: this is the outer process, the inner one
/// ended with `code`. `Ok(None)`: go on, we are inside: umask 022, no supplementary groups, an empty session
/// keyring, and mounts made from here on are seen by nobody else and end with the process. Called again
/// inside it nests, harmlessly.
pub fn enter_namespace() -> Result<Option<u8>> {
    let (unshared, tell_unshared) = io::pipe().context("making a pipe")?;
    let (mapped, tell_mapped) = io::pipe().context("making a pipe")?;
    let outer = rustix::process::getpid();
    match process::fork().context("forking into a user namespace")? {
        Fork::Parent(inner) => {
            drop((tell_unshared, mapped));
            accompany(inner, unshared, tell_mapped).map(Some)
        }
        Fork::Child => {
            drop((unshared, tell_mapped));
            enter(outer, tell_unshared, mapped).map(|()| None)
        }
    }
}

/// The outer half: maps ids once `inner` has its namespace, then waits for its end.
fn accompany(inner: Pid, mut unshared: PipeReader, mut tell_mapped: PipeWriter) -> Result<u8> {
    let mut byte = [0];
    // nothing to read: the inner half failed and reports why itself
    if unshared.read(&mut byte).context("waiting for a user namespace")? == 1 {
        if let Err(error) = map_ids(inner) {
            drop(tell_mapped);
            exit_code(inner)?;
            return Err(error);
        }
        tell_mapped.write_all(&byte).context("telling a process that its ids are mapped")?;
    }
    exit_code(inner)
}

fn exit_code(child: Pid) -> Result<u8> {
    let status = loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => break status,
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for the process in the user namespace"),
        }
    };
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

/// The inner half.
fn enter(outer: Pid, mut tell_unshared: PipeWriter, mut mapped: PipeReader) -> Result<()> {
    process::unshare_user_and_mounts().hint("making a user namespace", USERNS_ADVICE)?;
    tell_unshared.write_all(&[1]).context("telling that the user namespace is made")?;
    let mut byte = [0];
    if mapped.read(&mut byte).context("waiting for user ids")? == 0 {
        // the outer half failed, and reports why
        std::process::exit(1);
    }
    process::keep_descriptors().context("keeping open files from other programs")?;
    rustix::thread::set_thread_groups(&[]).context("dropping supplementary groups")?;
    match process::leave_session_keyring() {
        // a kernel without keys, or a container's seccomp profile, which forbids the sandbox the call too
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
        result => result.context("leaving the session keyring")?,
    }
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    // scripts inherit it: a core would land in the rootfs
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .context("forbidding core dumps")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .hint("making mounts private", USERNS_ADVICE)?;
    shield_host()?;
    // last: a change of credentials clears it
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("asking to die with the parent")?;
    if rustix::process::getppid() != Some(outer) {
        bail!("the process that started this one is gone");
    }
    Ok(())
}

/// Devices that bwrap takes from the host into a sandbox's `/dev`.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// Makes mounts, read-only and of nothing but itself, of each file of the host that can be reached in a sandbox.
///
/// These are devices, and bwrap, which the sandbox's first process runs: `/proc/1/exe`. Where root runs strata,
/// root inside owns them, and could give them another mode, owner or attribute. Devices work all the same.
fn shield_host() -> Result<()> {
    for file in DEVICES.iter().map(PathBuf::from).chain(start::bwrap()).filter(|file| file.exists()) {
        shield(&file).hint(format!("making {} read-only for sandboxes", file.display()), USERNS_ADVICE)?;
    }
    Ok(())
}

fn shield(file: &Path) -> rustix::io::Result<()> {
    rustix::mount::mount_bind(file, file)?;
    let flags = rustix::fs::statvfs(file)?.f_flag;
    let mut kept = MountFlags::BIND | MountFlags::RDONLY;
    kept.set(MountFlags::NOSUID, flags.contains(StatVfsMountFlags::NOSUID));
    kept.set(MountFlags::NODEV, flags.contains(StatVfsMountFlags::NODEV));
    kept.set(MountFlags::NOEXEC, flags.contains(StatVfsMountFlags::NOEXEC));
    rustix::mount::mount_remount(file, kept, c"")
}

const USERNS_ADVICE: &str = "\
strata builds in a user namespace; these can forbid it:
kernel.apparmor_restrict_unprivileged_userns=1 (Ubuntu; set it to 0 or give strata an AppArmor profile),
kernel.unprivileged_userns_clone=0 (old Debian), user.max_user_namespaces=0 (hardened RHEL),
or, in a container, its seccomp profile (podman --security-opt seccomp=unconfined,
in a pod hostUsers: false or an unconfined seccompProfile)";

/// One of the two kinds of ids, and the places that hold its maps.
struct Kind {
    noun: &'static str,
    map: &'static str,
    sub: &'static str,
    helper: &'static str,
    own: u32,
}

/// A line of /proc/PID/uid_map: `count` ids from `inside` on are those from `outside` on in the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    inside: u32,
    outside: u32,
    count: u32,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.inside, self.outside, self.count)
    }
}

fn map_ids(inner: Pid) -> Result<()> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let kinds = [
        Kind { noun: "user", map: "uid_map", sub: "/etc/subuid", helper: "newuidmap", own: uid },
        Kind { noun: "group", map: "gid_map", sub: "/etc/subgid", helper: "newgidmap", own: gid },
    ];
    let user = user_name(&fs::read_to_string("/etc/passwd").unwrap_or_default(), uid);
    for kind in &kinds {
        if uid == 0 {
            map_as_root(kind, inner)?;
        } else {
            map_as_user(kind, inner, uid, &user)?;
        }
    }
    Ok(())
}

/// Root maps ids to themselves, as far as root itself has them.
fn map_as_root(kind: &Kind, inner: Pid) -> Result<()> {
    let own = format!("/proc/self/{}", kind.map);
    let text = fs::read_to_string(&own).with_context(|| format!("reading {own}"))?;
    let extents = identity(&text).with_context(|| format!("reading {own}: unexpected {text:?}"))?;
    let count: u32 = extents.iter().map(|e| e.count).sum();
    if count < IDS {
        return Err(hinted(
            format!(
                "this container has {count} of the {IDS} {} ids that an operating system needs",
                kind.noun
            ),
            "run the container with ids 0 to 65535 mapped (podman run --userns=auto:size=65536, \
             hostUsers: false in a pod), or strata as an ordinary user with a subuid range",
        ));
    }
    let path = format!("/proc/{}/{}", inner.as_raw_nonzero(), kind.map);
    // the kernel takes a map in one write only
    let map: String = extents.iter().map(|e| format!("{e}\n")).collect();
    fs::write(&path, map).hint(
        format!("writing {path}"),
        "root needs the capabilities SETUID, SETGID and SYS_ADMIN here: is this a container that drops them?",
    )
}

/// The identity map of the ids below [`IDS`] that `own_map`, a process's uid_map, has.
/// Its extents are kept apart: the kernel wants each new one within one of the parent's.
fn identity(own_map: &str) -> Option<Vec<Extent>> {
    let mut extents = Vec::new();
    for line in own_map.lines() {
        let mut fields = line.split_whitespace().map(|n| n.parse::<u32>().ok());
        let (first, _, count) = (fields.next()??, fields.next()??, fields.next()??);
        if first < IDS {
            extents.push(Extent { inside: first, outside: first, count: count.min(IDS - first) });
        }
    }
    Some(extents)
}

/// An ordinary user becomes 0; a set-id helper of shadow-utils adds the ids that /etc/subuid grants.
fn map_as_user(kind: &Kind, inner: Pid, uid: u32, user: &str) -> Result<()> {
    let text = fs::read_to_string(kind.sub).unwrap_or_default();
    let extents = subordinate(&text, kind.own, &[user, &uid.to_string()]).ok_or_else(|| {
        hinted(
            format!("{} grants {user} fewer than {} {} ids", kind.sub, IDS - 1, kind.noun),
            format!("run, as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"),
        )
    })?;
    let numbers = extents.iter().flat_map(|e| [e.inside, e.outside, e.count]);
    let output = Command::new(kind.helper)
        .arg(inner.as_raw_nonzero().to_string())
        .args(numbers.map(|n| n.to_string()))
        .stdin(Stdio::null())
        .output()
        .hint(
            format!("starting {}", kind.helper),
            "install it: package uidmap on Debian and Ubuntu, shadow-utils (shadow-utils-subid) on Fedora and RHEL",
        )?;
    if !output.status.success() {
        return Err(hinted(
            format!("{}: {}", kind.helper, String::from_utf8_lossy(&output.stderr).trim()),
            format!(
                "{} must be set-user-id root or carry cap_setuid/cap_setgid, and not be on a nosuid mount",
                kind.helper
            ),
        ));
    }
    Ok(())
}

/// The map of an ordinary user: `own` is 0, 1 to 65535 are the ids that `text`, in the form of subuid(5),
/// grants to any of `names`, in its order. None if there are fewer.
fn subordinate(text: &str, own: u32, names: &[&str]) -> Option<Vec<Extent>> {
    let mut extents = vec![Extent { inside: 0, outside: own, count: 1 }];
    let mut next = 1;
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let granted = (fields.next(), fields.next().map(str::parse), fields.next().map(str::parse));
        let (Some(name), Some(Ok(first)), Some(Ok(count))) = granted else { continue };
        if names.contains(&name) && next < IDS {
            let count: u32 = u32::min(count, IDS - next);
            extents.push(Extent { inside: next, outside: first, count });
            next += count;
        }
    }
    (next == IDS).then_some(extents)
}

/// The name of user `uid` in `passwd`, or the number when it has none there.
fn user_name(passwd: &str, uid: u32) -> String {
    let number = uid.to_string();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&number));
    line.and_then(|line| line.split(':').next()).map_or(number.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(of: &[(u32, u32, u32)]) -> Vec<Extent> {
        of.iter().map(|&(inside, outside, count)| Extent { inside, outside, count }).collect()
    }

    #[test]
    fn identity_keeps_what_the_parent_has() {
        let initial = "         0          0 4294967295\n";
        assert_eq!(identity(initial), Some(extents(&[(0, 0, 65536)])));
        // rootless podman: the caller as 0, then a range
        assert_eq!(identity("0 1000 1\n1 100000 65536\n"), Some(extents(&[(0, 0, 1), (1, 1, 65535)])));
        assert_eq!(identity("0 1000 1\n"), Some(extents(&[(0, 0, 1)])));
        assert_eq!(identity("100000 0 65536\n"), Some(vec![]));
        assert_eq!(identity("0 x 1\n"), None);
    }

    #[test]
    fn subordinate_ids_follow_the_caller() {
        let names = ["ada", "1000"];
        let map = |text| subordinate(text, 1000, &names);
        assert_eq!(
            map("bob:5:70000\nada:100000:65536\n"),
            Some(extents(&[(0, 1000, 1), (1, 100_000, 65535)]))
        );
        assert_eq!(
            map("ada:100000:1000\n1000:200000:65536\n"),
            Some(extents(&[(0, 1000, 1), (1, 100_000, 1000), (1001, 200_000, 64535)]))
        );
        assert_eq!(map("ada:100000:1000\n"), None);
        assert_eq!(map("ada:x:65536\nada:1\n\n"), None);
        assert_eq!(map(""), None);
    }

    #[test]
    fn user_without_a_passwd_line_is_a_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000), "ada");
        assert_eq!(user_name(passwd, 1001), "1001");
    }
}
