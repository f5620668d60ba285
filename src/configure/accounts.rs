//! Declared users and groups.
//!
//! A declared account is written twice: into `/etc/passwd` and `/etc/group`, so that files of this build can
//! belong to it, and as sysusers.d(5) lines, so that a machine whose `/etc` is older gets it at boot.

use anyhow::{Context, Result, bail};

use super::{Applying, SYSUSERS};
use crate::accounts::{self, Accounts, Ids};
use crate::ledger::Ledger;
use crate::plan::{Configuration, Group, Layer, Origin, User};
use crate::rootfs::Rootfs;
use crate::sysusers::{self, Entry};

/// Makes the groups and users of `layer`, those of its sysusers.d lines included, with the ids that `ledger` keeps for
/// them.
pub(super) fn apply(rootfs: &Rootfs, layer: &Layer, ledger: &Ledger, at: &Applying) -> Result<()> {
    let mut sysusers = String::new();
    for group in &layer.config.groups {
        let line = add_group(rootfs, &group.value, ledger)
            .with_context(|| format!("adding the group `{}` of {}", group.value.name, group.origin))?;
        sysusers.push_str(&line);
    }
    for user in &layer.config.users {
        let line = add_user(rootfs, &user.value, ledger)
            .with_context(|| format!("adding the user `{}` of {}", user.value.name, user.origin))?;
        sysusers.push_str(&line);
    }
    let mut entries = Vec::new();
    for line in &layer.config.sysusers {
        entries.extend(Entry::parse(&line.value).with_context(|| format!("of {}", line.origin))?);
        sysusers.push_str(&line.value);
        sysusers.push('\n');
    }
    sysusers::apply(rootfs, &entries, ledger).context("making the accounts of sysusers lines")?;
    let Some(first) = first(&layer.config) else { return Ok(()) };
    rootfs.write(&format!("/usr/lib/sysusers.d/{}.conf", layer.name), sysusers.as_bytes(), 0o644)?;
    at.acted(SYSUSERS, first)
}

/// The place of the first entry that makes an account: it stands for all of them.
pub(super) fn first(config: &Configuration) -> Option<&Origin> {
    let groups = config.groups.iter().map(|group| &group.origin);
    let users = config.users.iter().map(|user| &user.origin);
    groups.chain(users).chain(config.sysusers.iter().map(|line| &line.origin)).next()
}

/// Adds a group, or members to one that is there; gives its sysusers.d lines.
fn add_group(rootfs: &Rootfs, group: &Group, ledger: &Ledger) -> Result<String> {
    let mut accounts = Accounts::read_keeping(rootfs, ledger)?;
    let Group { name, gid: wanted, members } = group;
    let gid = match (accounts.groups.get(name), *wanted) {
        (Some(found), Some(wanted)) if wanted != found.gid => {
            bail!("the rootfs has it with gid {}, the manifest wants {wanted}", found.gid)
        }
        (Some(found), _) => found.gid,
        (None, wanted) => {
            let gid = match (wanted, accounts.kept_gid(name)) {
                (Some(wanted), Some(kept)) if wanted != kept => {
                    bail!("the lockfile keeps the gid {kept} for it, the manifest wants {wanted}")
                }
                (wanted, kept) => kept.or(wanted),
            };
            let gid = gid.map_or_else(|| accounts.free_id(), |gid| unused_gid(&accounts, name, gid))?;
            accounts.add_group(rootfs, name, gid)?;
            gid
        }
    };
    members.iter().try_for_each(|user| accounts.add_member(rootfs, user, name))?;
    let members = members.iter().map(|user| format!("m {user} {name}\n"));
    Ok(format!("g {name} {gid}\n") + &members.collect::<String>())
}

/// Adds a user, and a group of its name if it names none; gives its sysusers.d lines.
fn add_user(rootfs: &Rootfs, user: &User, ledger: &Ledger) -> Result<String> {
    let mut accounts = Accounts::read_keeping(rootfs, ledger)?;
    let User { name, uid: wanted, comment, home, shell, .. } = user;
    if let Some(accounts::User { ids, .. }) = accounts.users.get(name) {
        if wanted.is_some_and(|wanted| wanted != ids.uid) {
            bail!(
                "the rootfs has it with uid {}, the manifest wants {}",
                ids.uid,
                wanted.unwrap_or_default()
            );
        }
        return Ok(sysusers_line(user, *ids));
    }
    let uid = match (*wanted, accounts.kept_uid(name)) {
        (Some(wanted), Some(kept)) if wanted != kept => {
            bail!("the lockfile keeps the uid {kept} for it, the manifest wants {wanted}")
        }
        (wanted, kept) => kept.or(wanted),
    };
    let uid = uid.map_or_else(|| accounts.free_id(), |uid| unused_uid(&accounts, name, uid))?;
    let (gid, own_group) = match &user.group {
        Some(group) => (accounts.gid(group)?, String::new()),
        None => own_group(rootfs, &mut accounts, name, uid)?,
    };
    let ids = Ids { uid, gid };
    let (comment, home, shell) = (comment.clone(), home.clone(), shell.clone());
    accounts.add_user(rootfs, name, accounts::User { ids, comment, home, shell })?;
    Ok(own_group + &sysusers_line(user, ids))
}

/// The group that has a user's own name, made if it is not there, with the user's id if no other group has
/// that; and its sysusers.d line, because a user's line with a numeric group does not make the group.
fn own_group(rootfs: &Rootfs, accounts: &mut Accounts, name: &str, uid: u32) -> Result<(u32, String)> {
    let gid = match accounts.groups.get(name) {
        Some(group) => group.gid,
        None => {
            let kept = accounts.kept_gid(name).map(Ok);
            let like_user = || unused_gid(accounts, name, uid).or_else(|_| accounts.free_id());
            let gid = kept.unwrap_or_else(like_user)?;
            accounts.add_group(rootfs, name, gid)?;
            gid
        }
    };
    Ok((gid, format!("g {name} {gid}\n")))
}

/// `uid`, if it is nobody's but the user's that is called `name`.
fn unused_uid(accounts: &Accounts, name: &str, uid: u32) -> Result<u32> {
    match accounts.user_of(uid) {
        Some(other) if other != name => bail!("the uid {uid} is that of `{other}`: give another, or none"),
        _ => Ok(uid),
    }
}

/// `gid`, if it is no group's but the one's that is called `name`.
fn unused_gid(accounts: &Accounts, name: &str, gid: u32) -> Result<u32> {
    match accounts.group_of(gid) {
        Some(other) if other != name => bail!("the gid {gid} is that of `{other}`: give another, or none"),
        _ => Ok(gid),
    }
}

fn sysusers_line(user: &User, Ids { uid, gid }: Ids) -> String {
    let User { name, comment, home, shell, .. } = user;
    let comment = comment.replace('"', "");
    format!("u {name} {uid}:{gid} \"{comment}\" {home} {shell}\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    const PASSWD: &str = "/etc/passwd";
    const GROUP: &str = "/etc/group";

    const BASE: [(&str, &str); 4] = [
        (PASSWD, "root:x:0:0:root:/root:/bin/sh\n"),
        (GROUP, "root:x:0:\nwheel:x:10:root\nhuge:x:801:\n"),
        ("/etc/shadow", "root:*:::::::\n"),
        ("/etc/gshadow", "root:::\nwheel:::root\nhuge:::\n"),
    ];

    fn rootfs(dir: &Path) -> Rootfs {
        let rootfs = Rootfs::open(dir).unwrap();
        for (path, text) in BASE {
            rootfs.write(path, text.as_bytes(), 0o644).unwrap();
        }
        for program in ["/bin/sh", "/sbin/nologin"] {
            rootfs.write(program, b"", 0o755).unwrap();
        }
        rootfs.create_dir_all("/root").unwrap();
        rootfs
    }

    fn group(name: &str, gid: Option<u32>, members: &[&str]) -> Group {
        Group { name: name.into(), gid, members: members.iter().map(|m| (*m).to_owned()).collect() }
    }

    fn user(name: &str, uid: Option<u32>, group: Option<&str>) -> User {
        User {
            name: name.into(),
            uid,
            group: group.map(Into::into),
            comment: "A user".into(),
            home: "/".into(),
            shell: "/sbin/nologin".into(),
        }
    }

    fn run(program: &str, root: &Path, args: &[&str]) {
        let output = Command::new(program).args(args).arg(root).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{program}: {said:?}");
    }

    fn read_text(rootfs: &Rootfs, path: &str) -> Result<String> {
        Ok(String::from_utf8(rootfs.read(path)?.unwrap())?)
    }

    /// The lines of an account file, members of groups and lines themselves in any order.
    fn lines(rootfs: &Rootfs, path: &str) -> BTreeSet<Vec<BTreeSet<String>>> {
        let fields =
            |line: &str| line.split(':').map(|field| field.split(',').map(str::to_owned).collect()).collect();
        read_text(rootfs, path).unwrap().lines().map(fields).collect()
    }

    #[test]
    fn systemd_sysusers_makes_the_same_of_the_shipped_lines() {
        let [ours, theirs] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let (rootfs, fresh) = (rootfs(ours.path()), self::rootfs(theirs.path()));
        let none = Ledger::default();
        let mut shipped = String::new();
        for new in [group("ovs", Some(799), &[]), group("free", None, &[]), group("wheel", None, &["dhcp"])] {
            shipped += &add_group(&rootfs, &new, &none).unwrap();
        }
        for new in [
            user("vswitch", Some(800), Some("ovs")),
            user("dhcp", None, None),
            user("taken", Some(801), None), // 801 is the gid of another group
        ] {
            shipped += &add_user(&rootfs, &new, &none).unwrap();
        }
        fresh.write("/usr/lib/sysusers.d/node.conf", shipped.as_bytes(), 0o644).unwrap();
        run("systemd-sysusers", theirs.path(), &["--root"]);
        for path in [PASSWD, GROUP] {
            assert_eq!(lines(&rootfs, path), lines(&fresh, path), "{path}");
        }
        for program in ["pwck", "grpck"] {
            run(program, ours.path(), &["--read-only", "--root"]);
        }
        // and a machine that has them already is left alone
        let before = read_text(&rootfs, GROUP).unwrap();
        rootfs.write("/usr/lib/sysusers.d/node.conf", shipped.as_bytes(), 0o644).unwrap();
        run("systemd-sysusers", ours.path(), &["--root"]);
        assert_eq!(read_text(&rootfs, GROUP).unwrap(), before);
    }

    #[test]
    fn an_id_belongs_to_one_account() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = rootfs(dir.path());
        let none = Ledger::default();
        let refused = [
            (add_group(&rootfs, &group("new", Some(10), &[]), &none), "gid 10 is that of `wheel`"),
            (add_group(&rootfs, &group("wheel", Some(11), &[]), &none), "gid 10, the manifest wants 11"),
            (add_user(&rootfs, &user("toor", Some(0), None), &none), "uid 0 is that of `root`"),
            (add_user(&rootfs, &user("root", Some(1), None), &none), "uid 0, the manifest wants 1"),
            (add_user(&rootfs, &user("new", None, Some("nobody")), &none), "no group `nobody`"),
        ];
        for (result, expected) in refused {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for (path, text) in BASE {
            assert_eq!(read_text(&rootfs, path).unwrap(), text);
        }
    }
}
