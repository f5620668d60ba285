//! Users and groups.
//!
//! A declared account is written twice: into `/etc/passwd` and `/etc/group`, so that files of this build can
//! belong to it, and as sysusers.d(5) lines, so that a machine whose `/etc` is older gets it at boot.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::plan::{Group, Layer, User};
use crate::rootfs::Rootfs;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
const SHADOW: &str = "/etc/shadow";
const GSHADOW: &str = "/etc/gshadow";

/// A numeric owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The accounts of a rootfs, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    users: BTreeMap<String, Ids>,
    groups: BTreeMap<String, u32>,
}

impl Accounts {
    /// Reads `/etc/passwd` and `/etc/group`; malformed lines name nobody.
    pub fn read(rootfs: &Rootfs) -> Result<Self> {
        let mut accounts = Self::default();
        for line in read_text(rootfs, PASSWD)?.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [name, _, uid, gid, ..] = fields.as_slice()
                && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
            {
                accounts.users.entry((*name).to_owned()).or_insert(Ids { uid, gid });
            }
        }
        for line in read_text(rootfs, GROUP)?.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [name, _, gid, ..] = fields.as_slice()
                && let Ok(gid) = gid.parse()
            {
                accounts.groups.entry((*name).to_owned()).or_insert(gid);
            }
        }
        Ok(accounts)
    }

    /// The ids of an owner given by names or numbers. Root needs no entry.
    pub fn ids(&self, user: &str, group: &str) -> Result<Ids> {
        Ok(Ids { uid: self.uid(user)?, gid: self.gid(group)? })
    }

    fn uid(&self, user: &str) -> Result<u32> {
        let known = user.parse().ok().or_else(|| self.users.get(user).map(|ids| ids.uid));
        known.or((user == "root").then_some(0)).with_context(|| {
            format!("there is no user `{user}` in the rootfs: declare it with [[user]], or use a number")
        })
    }

    fn gid(&self, group: &str) -> Result<u32> {
        let known = group.parse().ok().or_else(|| self.groups.get(group).copied());
        known.or((group == "root").then_some(0)).with_context(|| {
            format!("there is no group `{group}` in the rootfs: declare it with [[group]], or use a number")
        })
    }

    /// `uid`, if it is nobody's.
    fn unused_uid(&self, uid: u32) -> Result<u32> {
        match self.users.iter().find(|(_, ids)| ids.uid == uid) {
            Some((other, _)) => bail!("the uid {uid} is that of `{other}`: give another, or none"),
            None => Ok(uid),
        }
    }

    /// `gid`, if it is no group's.
    fn unused_gid(&self, gid: u32) -> Result<u32> {
        match self.groups.iter().find(|(_, id)| **id == gid) {
            Some((other, _)) => bail!("the gid {gid} is that of `{other}`: give another, or none"),
            None => Ok(gid),
        }
    }

    /// The highest id below 1000 that neither a user nor a group has: what `useradd --system` takes
    /// (shadow: `SYS_UID_MAX`).
    fn free_id(&self) -> Result<u32> {
        let taken = |id| self.users.values().any(|u| u.uid == id) || self.groups.values().any(|g| *g == id);
        (201..1000).rev().find(|id| !taken(*id)).context("all system ids from 201 to 999 are taken")
    }
}

/// Makes the groups and users of `layer`.
pub fn apply(rootfs: &Rootfs, layer: &Layer) -> Result<()> {
    let mut sysusers = String::new();
    for group in &layer.config.groups {
        let line = add_group(rootfs, &group.value)
            .with_context(|| format!("adding the group `{}` of {}", group.value.name, group.origin))?;
        sysusers.push_str(&line);
    }
    for user in &layer.config.users {
        let line = add_user(rootfs, &user.value)
            .with_context(|| format!("adding the user `{}` of {}", user.value.name, user.origin))?;
        sysusers.push_str(&line);
    }
    for line in &layer.config.sysusers {
        sysusers.push_str(&line.value);
        sysusers.push('\n');
    }
    if sysusers.is_empty() {
        return Ok(());
    }
    rootfs.write(&format!("/usr/lib/sysusers.d/{}.conf", layer.name), sysusers.as_bytes(), 0o644)
}

/// Adds a group, or members to one that is there; gives its sysusers.d lines.
fn add_group(rootfs: &Rootfs, Group { name, gid: wanted, members }: &Group) -> Result<String> {
    let accounts = Accounts::read(rootfs)?;
    let gid = match (accounts.groups.get(name), *wanted) {
        (Some(&found), Some(wanted)) if wanted != found => {
            bail!("the rootfs has it with gid {found}, the manifest wants {wanted}")
        }
        (Some(&found), _) => found,
        (None, wanted) => {
            let gid = wanted.map_or_else(|| accounts.free_id(), |gid| accounts.unused_gid(gid))?;
            make_group(rootfs, name, gid)?;
            gid
        }
    };
    add_members(rootfs, name, members)?;
    let members = members.iter().map(|user| format!("m {user} {name}\n"));
    Ok(format!("g {name} {gid}\n") + &members.collect::<String>())
}

/// Adds a user, and a group of its name if it names none; gives its sysusers.d lines.
fn add_user(rootfs: &Rootfs, user: &User) -> Result<String> {
    let accounts = Accounts::read(rootfs)?;
    let User { name, uid: wanted, comment, home, shell, .. } = user;
    if let Some(&Ids { uid, gid }) = accounts.users.get(name) {
        if wanted.is_some_and(|wanted| wanted != uid) {
            bail!("the rootfs has it with uid {uid}, the manifest wants {}", wanted.unwrap_or_default());
        }
        return Ok(sysusers_line(user, uid, gid));
    }
    let uid = wanted.map_or_else(|| accounts.free_id(), |uid| accounts.unused_uid(uid))?;
    let (gid, own_group) = match &user.group {
        Some(group) => (accounts.gid(group)?, String::new()),
        None => own_group(rootfs, &accounts, name, uid)?,
    };
    append(rootfs, PASSWD, &format!("{name}:x:{uid}:{gid}:{comment}:{home}:{shell}\n"))?;
    if rootfs.lstat(SHADOW)?.is_some() {
        // `!*`: no password will do (systemd-sysusers writes the same); no date of change, so never expired
        append(rootfs, SHADOW, &format!("{name}:!*:::::::\n"))?;
    }
    Ok(own_group + &sysusers_line(user, uid, gid))
}

/// The group that has a user's own name, made if it is not there, with the user's id if no other group has
/// that; and its sysusers.d line, because a user's line with a numeric group does not make the group.
fn own_group(rootfs: &Rootfs, accounts: &Accounts, name: &str, uid: u32) -> Result<(u32, String)> {
    let gid = match accounts.groups.get(name) {
        Some(gid) => *gid,
        None => {
            let gid = accounts.unused_gid(uid).or_else(|_| accounts.free_id())?;
            make_group(rootfs, name, gid)?;
            gid
        }
    };
    Ok((gid, format!("g {name} {gid}\n")))
}

fn make_group(rootfs: &Rootfs, name: &str, gid: u32) -> Result<()> {
    append(rootfs, GROUP, &format!("{name}:x:{gid}:\n"))?;
    match rootfs.lstat(GSHADOW)? {
        Some(_) => append(rootfs, GSHADOW, &format!("{name}:!*::\n")),
        None => Ok(()),
    }
}

/// Makes users members of a group; members are the last field of `/etc/group` and `/etc/gshadow`.
fn add_members(rootfs: &Rootfs, group: &str, members: &[String]) -> Result<()> {
    for path in [GROUP, GSHADOW] {
        let Some(old) = rootfs.read(path)? else { continue };
        let old = String::from_utf8(old).with_context(|| format!("reading {path} in the rootfs"))?;
        let line = |line: &str| match line.rsplit_once(':') {
            Some((rest, present)) if line.split(':').next() == Some(group) => {
                let present: Vec<&str> = present.split(',').filter(|member| !member.is_empty()).collect();
                let new = members.iter().map(String::as_str).filter(|member| !present.contains(member));
                let all: Vec<&str> = present.iter().copied().chain(new).collect();
                format!("{rest}:{}\n", all.join(","))
            }
            _ => format!("{line}\n"),
        };
        let new: String = old.lines().map(line).collect();
        if new != old {
            rootfs.rewrite(path, new.as_bytes())?;
        }
    }
    Ok(())
}

fn sysusers_line(user: &User, uid: u32, gid: u32) -> String {
    let User { name, comment, home, shell, .. } = user;
    let comment = comment.replace('"', "");
    format!("u {name} {uid}:{gid} \"{comment}\" {home} {shell}\n")
}

/// Appends a line to an account file, which keeps owner and mode.
fn append(rootfs: &Rootfs, path: &str, line: &str) -> Result<()> {
    let Some(mut text) = rootfs.read(path)? else {
        return rootfs.write(path, line.as_bytes(), 0o644);
    };
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend_from_slice(line.as_bytes());
    rootfs.rewrite(path, &text)
}

fn read_text(rootfs: &Rootfs, path: &str) -> Result<String> {
    Ok(rootfs.read(path)?.map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    const BASE: [(&str, &str); 4] = [
        (PASSWD, "root:x:0:0:root:/root:/bin/sh\n"),
        (GROUP, "root:x:0:\nwheel:x:10:root\nhuge:x:801:\n"),
        (SHADOW, "root:*:::::::\n"),
        (GSHADOW, "root:::\nwheel:::root\nhuge:::\n"),
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
        let mut shipped = String::new();
        for new in [group("ovs", Some(799), &[]), group("free", None, &[]), group("wheel", None, &["dhcp"])] {
            shipped += &add_group(&rootfs, &new).unwrap();
        }
        for new in [
            user("vswitch", Some(800), Some("ovs")),
            user("dhcp", None, None),
            user("taken", Some(801), None), // 801 is the gid of another group
        ] {
            shipped += &add_user(&rootfs, &new).unwrap();
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
        let refused = [
            (add_group(&rootfs, &group("new", Some(10), &[])), "gid 10 is that of `wheel`"),
            (add_group(&rootfs, &group("wheel", Some(11), &[])), "gid 10, the manifest wants 11"),
            (add_user(&rootfs, &user("toor", Some(0), None)), "uid 0 is that of `root`"),
            (add_user(&rootfs, &user("root", Some(1), None)), "uid 0, the manifest wants 1"),
            (add_user(&rootfs, &user("new", None, Some("nobody"))), "no group `nobody`"),
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
