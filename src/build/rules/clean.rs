//! What must not ship: traces of the build, caches, and state that belongs to one machine.

use anyhow::Result;

use super::{Action, Composed, Repair};

/// Directories whose content is a machine's own; what a package ships there stays.
const TRANSIENT: [&str; 6] = ["/boot", "/run", "/tmp", "/var/tmp", "/var/cache", "/var/log"];

/// Backups, locks and seeds that account tools, systemd and ldconfig leave behind.
pub const LEFTOVERS: [&str; 12] = [
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
    "/etc/subuid-",
    "/etc/subgid-",
    "/etc/.pwd.lock",
    "/etc/passwd.lock",
    "/etc/group.lock",
    "/var/lib/rpm-state",
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/credential.secret",
];

/// Removes what must not ship, unless a package ships it.
#[tracing::instrument(level = "info", skip_all)]
pub fn clean(composed: &Composed<'_>) -> Result<Vec<Repair>> {
    let rootfs = composed.rootfs;
    let mut gone = Vec::new();
    for dir in TRANSIENT {
        // `/var/run` and the like may be links out of the directory meant
        if rootfs.read_link(dir)?.is_none() {
            prune(composed, dir, &mut gone)?;
        }
    }
    for path in LEFTOVERS {
        if !composed.files.is_packaged(path) && rootfs.remove_all(path)? {
            gone.push(path.to_owned());
        }
    }
    // machine-id(5): empty means "not yet set", and systemd fills it in at boot
    if rootfs.lstat("/etc/machine-id")?.is_some_and(|stat| stat.size > 0) {
        rootfs.write("/etc/machine-id", b"", 0o444)?;
    }
    Ok(gone.into_iter().map(|path| Repair::of(composed, path, Action::Cleaned)).collect())
}

/// Removes everything below `dir` that no package has and that leads to nothing a package has; adds the topmost
/// paths that are gone to `gone`. Tells whether nothing is left.
fn prune(composed: &Composed<'_>, dir: &str, gone: &mut Vec<String>) -> Result<bool> {
    let rootfs = composed.rootfs;
    let mut empty = true;
    for name in rootfs.list(dir)?.unwrap_or_default() {
        let path = format!("{dir}/{name}");
        let is_dir = rootfs.lstat(&path)?.is_some_and(|stat| stat.mode & libc::S_IFMT == libc::S_IFDIR);
        let before = gone.len();
        let bare = !is_dir || prune(composed, &path, gone)?;
        if bare && !composed.files.is_packaged(&path) {
            rootfs.remove_all(&path)?;
            gone.truncate(before);
            gone.push(path);
        } else {
            empty = false;
        }
    }
    Ok(empty)
}
