//! The accounts of a rootfs: `/etc/passwd` and `/etc/group`, plainly, as rpm reads them: no NSS, no altfiles.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::ledger::Ledger;
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

/// A line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id and that of the primary group.
    pub ids: Ids,
    /// GECOS.
    pub comment: String,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// A line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Group id.
    pub gid: u32,
    /// Names of those whose primary group is another.
    pub members: Vec<String>,
}

/// The accounts of a rootfs, by name. The first line of a name counts; a malformed one names nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Users.
    pub users: BTreeMap<String, User>,
    /// Groups.
    pub groups: BTreeMap<String, Group>,
    /// Ids that are kept for accounts, whether the rootfs has these or not.
    pub kept: Ledger,
}

impl Accounts {
    /// Reads the accounts of a rootfs, to which others may be added with the ids that `ledger` keeps.
    pub fn read_keeping(rootfs: &Rootfs, ledger: &Ledger) -> Result<Self> {
        Ok(Self { kept: ledger.clone(), ..Self::read(rootfs)? })
    }

    /// Reads the accounts of a rootfs; it may have none.
    pub fn read(rootfs: &Rootfs) -> Result<Self> {
        Ok(Self::parse(&text(rootfs, PASSWD)?, &text(rootfs, GROUP)?))
    }

    /// Parses the texts of `/etc/passwd` and `/etc/group`.
    pub fn parse(passwd: &str, group: &str) -> Self {
        let mut accounts = Self::default();
        for line in passwd.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [name, _, uid, gid, rest @ ..] = fields.as_slice()
                && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
            {
                let field = |n: usize| rest.get(n).copied().unwrap_or_default().to_owned();
                let ids = Ids { uid, gid };
                let user = User { ids, comment: field(0), home: field(1), shell: field(2) };
                accounts.users.entry((*name).to_owned()).or_insert(user);
            }
        }
        for line in group.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [name, _, gid, rest @ ..] = fields.as_slice()
                && let Ok(gid) = gid.parse()
            {
                let members = rest.first().copied().unwrap_or_default().split(',');
                let members = members.filter(|name| !name.is_empty()).map(str::to_owned).collect();
                accounts.groups.entry((*name).to_owned()).or_insert(Group { gid, members });
            }
        }
        accounts
    }

    /// The ids of an owner given by names or numbers. Root needs no entry.
    pub fn ids(&self, user: &str, group: &str) -> Result<Ids> {
        Ok(Ids { uid: self.uid(user)?, gid: self.gid(group)? })
    }

    fn uid(&self, user: &str) -> Result<u32> {
        let known = user.parse().ok().or_else(|| self.users.get(user).map(|user| user.ids.uid));
        known.or((user == "root").then_some(0)).with_context(|| {
            format!("there is no user `{user}` in the rootfs: declare it with [[user]], or use a number")
        })
    }

    /// The id of a group given by name or number. Root needs no entry.
    pub fn gid(&self, group: &str) -> Result<u32> {
        let known = group.parse().ok().or_else(|| self.groups.get(group).map(|group| group.gid));
        known.or((group == "root").then_some(0)).with_context(|| {
            format!("there is no group `{group}` in the rootfs: declare it with [[group]], or use a number")
        })
    }

    /// The user that has an id, or for whom it is kept.
    pub fn user_of(&self, uid: u32) -> Option<&str> {
        let has = self.users.iter().find(|(_, user)| user.ids.uid == uid).map(|(name, _)| name.as_str());
        has.or_else(|| self.kept.user_of(uid))
    }

    /// The group that has an id, or for which it is kept.
    pub fn group_of(&self, gid: u32) -> Option<&str> {
        let has = self.groups.iter().find(|(_, group)| group.gid == gid).map(|(name, _)| name.as_str());
        has.or_else(|| self.kept.group_of(gid))
    }

    /// Whether the user `name` may have an id: it is nobody else's.
    pub fn may_have_uid(&self, name: &str, uid: u32) -> bool {
        self.user_of(uid).is_none_or(|user| user == name)
    }

    /// Whether the group `name` may have an id: it is no other's.
    pub fn may_have_gid(&self, name: &str, gid: u32) -> bool {
        self.group_of(gid).is_none_or(|group| group == name)
    }

    /// The id that is kept for a user, unless another has it all the same.
    pub fn kept_uid(&self, name: &str) -> Option<u32> {
        let kept = self.kept.users.get(name)?.uid;
        self.may_have_uid(name, kept).then_some(kept)
    }

    /// The id that is kept for a group, unless another has it all the same.
    pub fn kept_gid(&self, name: &str) -> Option<u32> {
        let kept = *self.kept.groups.get(name)?;
        self.may_have_gid(name, kept).then_some(kept)
    }

    /// The ids below 1000 that neither a user nor a group has, the highest first: what `useradd --system` and
    /// systemd-sysusers take (shadow: `SYS_UID_MAX`).
    pub fn free_ids(&self) -> impl Iterator<Item = u32> {
        let ids = (201..1000).rev();
        ids.filter(|id| self.user_of(*id).is_none() && self.group_of(*id).is_none())
    }

    /// The first of [`Self::free_ids`].
    pub fn free_id(&self) -> Result<u32> {
        self.free_ids().next().context("all system ids from 201 to 999 are taken")
    }

    /// Adds a user, to the rootfs too.
    pub fn add_user(&mut self, rootfs: &Rootfs, name: &str, user: User) -> Result<()> {
        let User { ids: Ids { uid, gid }, comment, home, shell } = &user;
        append(rootfs, PASSWD, &format!("{name}:x:{uid}:{gid}:{comment}:{home}:{shell}\n"))?;
        if rootfs.lstat(SHADOW)?.is_some() {
            // `!*`: no password will do (systemd-sysusers writes the same); no date of change, so never expired
            append(rootfs, SHADOW, &format!("{name}:!*:::::::\n"))?;
        }
        self.users.insert(name.to_owned(), user);
        Ok(())
    }

    /// Adds a group, to the rootfs too.
    pub fn add_group(&mut self, rootfs: &Rootfs, name: &str, gid: u32) -> Result<()> {
        append(rootfs, GROUP, &format!("{name}:x:{gid}:\n"))?;
        if rootfs.lstat(GSHADOW)?.is_some() {
            append(rootfs, GSHADOW, &format!("{name}:!*::\n"))?;
        }
        self.groups.insert(name.to_owned(), Group { gid, members: Vec::new() });
        Ok(())
    }

    /// Makes a user a member of a group of the rootfs. Members are sorted, as systemd-sysusers does.
    pub fn add_member(&mut self, rootfs: &Rootfs, user: &str, group: &str) -> Result<()> {
        let entry = self.groups.get_mut(group).with_context(|| format!("there is no group `{group}`"))?;
        if entry.members.iter().any(|member| member == user) {
            return Ok(());
        }
        entry.members.push(user.to_owned());
        entry.members.sort();
        let members = entry.members.join(",");
        for path in [GROUP, GSHADOW] {
            set_members(rootfs, path, group, &members)?;
        }
        Ok(())
    }
}

/// Sets the members of a group: the last field of its line in `/etc/group` as in `/etc/gshadow`.
fn set_members(rootfs: &Rootfs, path: &str, group: &str, members: &str) -> Result<()> {
    let Some(old) = rootfs.read(path)? else { return Ok(()) };
    let old = String::from_utf8(old).with_context(|| format!("reading {path} in the rootfs"))?;
    let line = |line: &str| match line.rsplit_once(':') {
        Some((rest, _)) if line.split(':').next() == Some(group) => format!("{rest}:{members}\n"),
        _ => format!("{line}\n"),
    };
    let new: String = old.lines().map(line).collect();
    if new == old { Ok(()) } else { rootfs.rewrite(path, new.as_bytes()) }
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

fn text(rootfs: &Rootfs, path: &str) -> Result<String> {
    Ok(rootfs.read(path)?.map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default())
}
