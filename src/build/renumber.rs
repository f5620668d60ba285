//! Gives accounts that a scriptlet made the ids that the ledger keeps for them.
//!
//! `useradd` takes the next free id, which depends on what was made before, and knows no ledger. As the id was
//! free until then, all that has it is the scriptlet's: lines of the account files, and files of the layer.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::accounts::Accounts;
use crate::rootfs::Rootfs;

/// Account files that hold ids, with the fields, counted from 0, that are uids and gids. shadow-utils leaves the
/// content before its last change beside them.
const FILES: [(&str, Option<usize>, usize); 4] = [
    ("/etc/passwd", Some(2), 3),
    ("/etc/passwd-", Some(2), 3),
    ("/etc/group", None, 2),
    ("/etc/group-", None, 2),
];

/// New ids by old ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Renumbering {
    uids: BTreeMap<u32, u32>,
    gids: BTreeMap<u32, u32>,
}

impl Renumbering {
    /// What has to change for the accounts of `after`, in which the ledger is, that are not in `before`: those that
    /// have another id than the one kept for them get that, those that have one kept for another a free one.
    ///
    /// Nothing for an account whose id `is_fixed`, for one that shares its id, and for one whose kept id somebody
    /// had before: what is wrong with these, a build can't mend.
    pub fn of(before: &Accounts, after: &Accounts, is_fixed: &dyn Fn(u32) -> bool) -> Self {
        let mut free = after.free_ids();
        let mut spares = BTreeMap::new();
        // a user and the group of its own go on having the same id
        let mut spare = |old| *spares.entry(old).or_insert_with(|| free.next().unwrap_or(old));
        let kept_gids = after.kept.groups.iter().map(|(name, gid)| (name.as_str(), *gid)).collect();
        let kept_uids = after.kept.users.iter().map(|(name, ids)| (name.as_str(), ids.uid)).collect();
        Self {
            gids: moved(&gids(before), &gids(after), &kept_gids, is_fixed, &mut spare),
            uids: moved(&uids(before), &uids(after), &kept_uids, is_fixed, &mut spare),
        }
    }

    /// Whether nothing has to change.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    /// Changes the ids in the account files of `rootfs`, and the owners of the files that are in the directory `own`:
    /// those that this layer has over the ones below.
    pub fn apply(&self, rootfs: &Rootfs, own: &Path) -> Result<()> {
        for (path, uid, gid) in FILES {
            if let Some(text) = rootfs.read(path)? {
                let text =
                    String::from_utf8(text).with_context(|| format!("reading {path} in the rootfs"))?;
                let lines: String = text.lines().map(|line| self.line(line, uid, gid) + "\n").collect();
                rootfs.rewrite(path, lines.as_bytes())?;
            }
        }
        // all are found before any is changed: one with several names is not to be changed back
        let mut found = Vec::new();
        self.find(own, &mut found).context("looking for files of new accounts")?;
        for (path, uid, gid) in found {
            let inside = path.strip_prefix(own).ok().and_then(Path::to_str);
            let inside = inside.with_context(|| format!("{} is no UTF-8", path.display()))?;
            rootfs.set_owner(&format!("/{inside}"), uid, gid)?;
        }
        Ok(())
    }

    fn line(&self, line: &str, uid: Option<usize>, gid: usize) -> String {
        let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        for (index, ids) in [(uid, &self.uids), (Some(gid), &self.gids)] {
            if let Some(field) = index.and_then(|index| fields.get_mut(index))
                && let Some(new) = field.parse().ok().and_then(|old: u32| ids.get(&old))
            {
                *field = new.to_string();
            }
        }
        fields.join(":")
    }

    /// Collects the paths below `dir` whose owners change, and the new owners.
    fn find(&self, dir: &Path, found: &mut Vec<(PathBuf, u32, u32)>) -> Result<()> {
        let context = || format!("reading {}", dir.display());
        for entry in fs::read_dir(dir).with_context(context)? {
            let entry = entry.with_context(context)?;
            let meta = entry.metadata().with_context(context)?;
            let (uid, gid) = (self.uids.get(&meta.uid()), self.gids.get(&meta.gid()));
            if uid.is_some() || gid.is_some() {
                found.push((entry.path(), *uid.unwrap_or(&meta.uid()), *gid.unwrap_or(&meta.gid())));
            }
            if meta.is_dir() {
                self.find(&entry.path(), found)?;
            }
        }
        Ok(())
    }
}

type ByName<'a> = BTreeMap<&'a str, u32>;

fn uids(accounts: &Accounts) -> ByName<'_> {
    accounts.users.iter().map(|(name, user)| (name.as_str(), user.ids.uid)).collect()
}

fn gids(accounts: &Accounts) -> ByName<'_> {
    accounts.groups.iter().map(|(name, group)| (name.as_str(), group.gid)).collect()
}

/// New ids by old ones, of users or of groups; `spare` gives a free one.
fn moved(
    before: &ByName<'_>,
    after: &ByName<'_>,
    kept: &ByName<'_>,
    is_fixed: &dyn Fn(u32) -> bool,
    spare: &mut dyn FnMut(u32) -> u32,
) -> BTreeMap<u32, u32> {
    let has = |accounts: &ByName<'_>, id| accounts.values().filter(|other| **other == id).count();
    let mut moved = BTreeMap::new();
    for (name, old) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
        let new = match kept.get(name) {
            Some(kept) => *kept,
            None if has(kept, *old) > 0 => spare(*old),
            None => continue,
        };
        if new != *old && has(after, *old) == 1 && has(before, new) == 0 && !is_fixed(*old) {
            moved.insert(*old, new);
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use rustix::fs::XattrFlags;

    use super::*;
    use crate::accounts::{Group, Ids, User};
    use crate::install::caps;
    use crate::ledger::Ledger;

    /// Accounts as `NAME ID`, users with a primary group of their id.
    fn accounts(users: &[(&str, u32)], groups: &[(&str, u32)], kept: &Ledger) -> Accounts {
        let user = |uid| User {
            ids: Ids { uid, gid: uid },
            comment: String::new(),
            home: String::new(),
            shell: String::new(),
        };
        Accounts {
            users: users.iter().map(|(name, uid)| ((*name).to_owned(), user(*uid))).collect(),
            groups: groups
                .iter()
                .map(|(name, gid)| ((*name).to_owned(), Group { gid: *gid, members: Vec::new() }))
                .collect(),
            kept: kept.clone(),
        }
    }

    #[test]
    fn who_gets_another_id() {
        let kept = Ledger {
            users: [("old", 999), ("ann", 998), ("bob", 997)]
                .map(|(name, uid)| (name.to_owned(), Ids { uid, gid: uid }))
                .into(),
            groups: [("old", 999), ("ann", 998)].map(|(name, gid)| (name.to_owned(), gid)).into(),
        };
        let before = accounts(&[("root", 0)], &[("root", 0)], &Ledger::default());
        let uids = |before: &Accounts, new: &[(&str, u32)], fixed: u32| {
            let all = [&[("root", 0)], new].concat();
            let moved = Renumbering::of(before, &accounts(&all, &[("root", 0)], &kept), &|id| id == fixed);
            moved.uids.into_iter().collect::<Vec<_>>()
        };
        // its own, another's, nobody's, exchanged
        assert_eq!(uids(&before, &[("ann", 999)], 0), [(999, 998)]);
        assert_eq!(uids(&before, &[("new", 999)], 0), [(999, 996)]);
        assert_eq!(uids(&before, &[("ann", 998), ("new", 500)], 0), []);
        assert_eq!(uids(&before, &[("ann", 997), ("bob", 998)], 0), [(997, 998), (998, 997)]);
        // named by the script, shared, taken
        assert_eq!(uids(&before, &[("ann", 999)], 999), []);
        assert_eq!(uids(&before, &[("ann", 0)], 0), []);
        let taken = accounts(&[("root", 0), ("zoe", 998)], &[("root", 0)], &Ledger::default());
        assert_eq!(uids(&taken, &[("zoe", 998), ("ann", 999)], 0), []);
        // not made by this script
        assert_eq!(uids(&accounts(&[("ann", 999)], &[], &Ledger::default()), &[("ann", 999)], 0), []);
        // with a group of its own
        let new = [("root", 0), ("new", 999)];
        let moved = Renumbering::of(&before, &accounts(&new, &new, &kept), &|_| false);
        assert_eq!(moved.gids, moved.uids);
        assert_eq!(moved.gids, BTreeMap::from([(999, 996)]));
    }

    #[test]
    fn lines_and_files_follow() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path();
        let rootfs = Rootfs::open(own).unwrap();
        let text = |path: &str| String::from_utf8(rootfs.read(path).unwrap().unwrap()).unwrap();
        for path in ["/etc/passwd", "/etc/passwd-"] {
            let lines = b"root:x:0:0:999:/:\nann:x:999:998:998:/:/bin/sh\nbob:x:998:998::/:\nbroken:999\n";
            rootfs.write(path, lines, 0o644).unwrap();
        }
        rootfs.write("/etc/group", b"root:x:0:ann\nann:x:998:999\n", 0o644).unwrap();
        let capability = caps::xattr("cap_net_raw=ep").unwrap().unwrap();
        rootfs.write("/srv/deep/tool", b"x", 0o4755).unwrap();
        rootfs.symlink("/srv/link", "deep/tool").unwrap();
        let tool = own.join("srv/deep/tool");
        fs::hard_link(&tool, own.join("srv/again")).unwrap();
        chown(&tool, Some(999), Some(998)).unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o4755)).unwrap();
        rustix::fs::setxattr(&tool, caps::XATTR, &capability, XattrFlags::empty()).unwrap();
        chown(own.join("srv/deep"), Some(998), Some(0)).unwrap();
        std::os::unix::fs::lchown(own.join("srv/link"), Some(0), Some(998)).unwrap();

        let exchanged = Renumbering { uids: [(999, 998), (998, 999)].into(), gids: [(998, 990)].into() };
        exchanged.apply(&rootfs, own).unwrap();
        let passwd = "root:x:0:0:999:/:\nann:x:998:990:998:/:/bin/sh\nbob:x:999:990::/:\nbroken:999\n";
        assert_eq!((text("/etc/passwd").as_str(), text("/etc/passwd-").as_str()), (passwd, passwd));
        assert_eq!(text("/etc/group"), "root:x:0:ann\nann:x:990:999\n");
        let owner = |path: &str| {
            let stat = rootfs.lstat(path).unwrap().unwrap();
            (stat.uid, stat.gid, stat.mode & 0o7777)
        };
        assert_eq!(owner("/srv/deep/tool"), (998, 990, 0o4755));
        assert_eq!((owner("/srv/deep").0, owner("/srv/link").1), (999, 990));
        let mut value = [0; 64];
        let length = rustix::fs::getxattr(&tool, caps::XATTR, &mut value).unwrap();
        assert_eq!(value[..length], capability);
    }
}
