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

/// Adds a group; gives its sysusers.d lines.
fn add_group(rootfs: &Rootfs, group: &Group) -> Result<String> {
    let accounts = Accounts::read(rootfs)?;
    let gid = match (group.gid, accounts.groups.get(&group.name)) {
        (Some(wanted), Some(&found)) if wanted != found => {
            bail!("the rootfs has it with gid {found}, the manifest wants {wanted}")
        }
        (_, Some(&found)) => found,
        (wanted, None) => {
            let gid = wanted.map_or_else(|| accounts.free_id(), Ok)?;
            let line = format!("{}:x:{gid}:{}\n", group.name, group.members.join(","));
            append(rootfs, GROUP, &line)?;
            gid
        }
    };
    let members = group.members.iter().map(|user| format!("m {user} {}\n", group.name));
    Ok(format!("g {} {gid}\n", group.name) + &members.collect::<String>())
}

/// Adds a user, and a group of its name if it names none; gives its sysusers.d lines.
fn add_user(rootfs: &Rootfs, user: &User) -> Result<String> {
    let accounts = Accounts::read(rootfs)?;
    let known = accounts.users.get(&user.name).copied();
    if let (Some(wanted), Some(found)) = (user.uid, known)
        && wanted != found.uid
    {
        bail!("the rootfs has it with uid {}, the manifest wants {wanted}", found.uid);
    }
    if let Some(Ids { uid, gid }) = known {
        return Ok(sysusers_line(user, uid, gid));
    }
    let uid = user.uid.map_or_else(|| accounts.free_id(), Ok)?;
    let gid = match &user.group {
        Some(group) => accounts.gid(group)?,
        None => match accounts.groups.get(&user.name) {
            Some(gid) => *gid,
            None => {
                append(rootfs, GROUP, &format!("{}:x:{uid}:\n", user.name))?;
                uid
            }
        },
    };
    let User { name, comment, home, shell, .. } = user;
    append(rootfs, PASSWD, &format!("{name}:x:{uid}:{gid}:{comment}:{home}:{shell}\n"))?;
    if rootfs.lstat("/etc/shadow")?.is_some() {
        // `!*`: no password will do (systemd-sysusers writes the same); no date of change, so never expired
        append(rootfs, "/etc/shadow", &format!("{name}:!*:::::::\n"))?;
    }
    Ok(sysusers_line(user, uid, gid))
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
