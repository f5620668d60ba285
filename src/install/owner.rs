//! Owners by name, as the rootfs knows them.

use std::collections::HashMap;

use anyhow::Result;

use crate::package::header::FileEntry;
use crate::rootfs::Rootfs;

/// Set-uid and set-gid bits.
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;

/// Users and groups of a rootfs at one moment: scriptlets add to them.
pub(super) struct Owners {
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
        let table = |path| Ok::<_, anyhow::Error>(parse(&rootfs.read(path)?.unwrap_or_default()));
        Ok(Self { users: table("/etc/passwd")?, groups: table("/etc/group")? })
    }

    /// What `file` gets. A name that is not known becomes root and loses the set-id bit that would give
    /// root's rights away; `unknown` hears of it (rpm: `lib/rpmfi.c`, `rpmfiStat`).
    pub fn access(&self, file: &FileEntry, mut unknown: impl FnMut(&str, &str)) -> Access {
        let mut mode = file.mode & 0o7777;
        let mut find = |table: &HashMap<String, u32>, kind, name: &str, bit: u32| match table.get(name) {
            _ if name == "root" => 0,
            Some(id) => *id,
            None => {
                unknown(kind, name);
                mode &= !bit;
                0
            }
        };
        let uid = find(&self.users, "user", &file.user, SETUID);
        let gid = find(&self.groups, "group", &file.group, SETGID);
        Access { uid, gid, mode }
    }
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
