//! Owners by name, as the rootfs knows them.

use std::collections::HashMap;

use anyhow::Result;

use crate::package::header::FileEntry;
use crate::rootfs::Rootfs;

/// Set-uid and set-gid bits.
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;

/// Users and groups of a rootfs at one moment: scriptlets add to them.
pub(crate) struct Owners {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

/// Owner and permission bits a file really gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits, without the type.
    pub mode: u32,
}

impl Owners {
    /// Reads `/etc/passwd` and `/etc/group`, plainly, as rpm does: no NSS, no altfiles.
    pub fn read(rootfs: &Rootfs) -> Result<Self> {
        let text = |path| Ok::<_, anyhow::Error>(rootfs.read(path)?.unwrap_or_default());
        Ok(Self::of(&text("/etc/passwd")?, &text("/etc/group")?))
    }

    /// The users and groups that these texts list, as in passwd(5) and group(5).
    pub fn of(passwd: &[u8], group: &[u8]) -> Self {
        Self { users: parse(passwd), groups: parse(group) }
    }

    /// The id of a user.
    pub fn user(&self, name: &str) -> Option<u32> {
        find(&self.users, name)
    }

    /// The id of a group.
    pub fn group(&self, name: &str) -> Option<u32> {
        find(&self.groups, name)
    }

    /// What `file` gets. A name that is not known becomes root and loses the set-id bit that would give
    /// root's rights away; `unknown` hears of it (rpm: `lib/rpmfi.c`, `rpmfiStat`).
    pub(super) fn access(&self, file: &FileEntry, mut unknown: impl FnMut(&str, &str)) -> Access {
        let mut mode = file.mode & 0o7777;
        let mut known = |id: Option<u32>, kind, name: &str, bit: u32| {
            id.unwrap_or_else(|| {
                unknown(kind, name);
                mode &= !bit;
                0
            })
        };
        let uid = known(self.user(&file.user), "user", &file.user, SETUID);
        let gid = known(self.group(&file.group), "group", &file.group, SETGID);
        Access { uid, gid, mode }
    }
}

/// `root` is 0 whatever the table says (rpm: `lib/rpmug.c`).
fn find(table: &HashMap<String, u32>, name: &str) -> Option<u32> {
    if name == "root" { Some(0) } else { table.get(name).copied() }
}

/// `NAME:PASSWORD:ID:...`; the first line of a name counts, a broken one does not.
fn parse(text: &[u8]) -> HashMap<String, u32> {
    let mut ids = HashMap::new();
    for line in String::from_utf8_lossy(text).lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(id))) = (fields.next(), fields.nth(1).map(str::parse)) {
            ids.entry(name.to_owned()).or_insert(id);
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_owners_lose_their_set_id_bit() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(dir.path()).unwrap();
        rootfs
            .write("/etc/passwd", b"root:x:7:0::/:\nbin:x:1:1::/:\nbin:x:9:9::/:\nbroken\n", 0o644)
            .unwrap();
        rootfs.write("/etc/group", b"adm:x:4:\n", 0o644).unwrap();
        let owners = Owners::read(&rootfs).unwrap();
        let access = |user: &str, group: &str| {
            let file = FileEntry {
                mode: 0o106755,
                user: user.into(),
                group: group.into(),
                ..crate::install::tests::file("/x")
            };
            let mut unknown = Vec::new();
            let access = owners.access(&file, |kind, name| unknown.push(format!("{kind} {name}")));
            (access, unknown.join(", "))
        };
        assert_eq!(access("root", "root"), (Access { uid: 0, gid: 0, mode: 0o6755 }, "".into()));
        assert_eq!(access("bin", "adm"), (Access { uid: 1, gid: 4, mode: 0o6755 }, "".into()));
        assert_eq!(access("nobody", "adm"), (Access { uid: 0, gid: 4, mode: 0o2755 }, "user nobody".into()));
        assert_eq!(access("bin", "broken"), (Access { uid: 1, gid: 0, mode: 0o4755 }, "group broken".into()));
    }
}
