//! Overlay mounts, set up so that what is written above means the same wherever it is read again.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::error::HintExt;

/// Mounts an overlay on `target` (in our mount namespace). `lower` is ordered top first.
///
/// Removed files become character devices 0:0 in `upper`, replaced directories get the xattr
/// `user.overlay.opaque=y`; a lower directory is never renamed by reference (rename(2) says EXDEV, and tools
/// copy), a file never changed without its content. `work` must be an empty directory on the file system of `upper`,
/// or have served such a mount before. The mount is volatile: what is in `upper` is on disk only when the
/// caller has synced it.
pub fn mount_overlay(lower: &[&Path], upper: &Path, work: &Path, target: &Path) -> Result<()> {
    forget_volatile(work)?;
    // Names by descriptor need no escaping of `:`, `,` and `\`, and a long list of layers fits the page
    // that mount(2) takes.
    let open =
        |path: &Path| OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path);
    let layers: Vec<&Path> = lower.iter().copied().chain([upper, work]).collect();
    let opened: Vec<File> = layers
        .iter()
        .map(|path| open(path).with_context(|| format!("opening overlay directory {}", path.display())))
        .collect::<Result<_>>()?;
    let names: Vec<String> = opened.iter().map(|dir| format!("/proc/self/fd/{}", dir.as_raw_fd())).collect();
    let (lower_names, rest) = names.split_at(lower.len());
    let [upper_name, work_name] = rest else { unreachable!("upper and work were appended above") };
    let options = format!(
        "lowerdir={},upperdir={upper_name},workdir={work_name},userxattr,redirect_dir=nofollow,index=off,xino=off,volatile",
        lower_names.join(":")
    );
    let options = CString::new(options).context("naming overlay directories")?;
    rustix::mount::mount("overlay", target, "overlay", MountFlags::NOATIME, options.as_c_str()).hint(
        format!("mounting an overlay of {} directories on {}", lower.len() + 1, target.display()),
        "overlay mounts in a user namespace need Linux 5.11 or newer, and a store on a file system such as \
         ext4, xfs or btrfs (not NFS, not itself an overlay): choose one with --store",
    )
}

/// Detaches a mount made by [`mount_overlay`].
pub fn unmount(target: &Path) -> Result<()> {
    rustix::mount::unmount(target, UnmountFlags::DETACH)
        .with_context(|| format!("unmounting {}", target.display()))
}

/// Removes the mark that a volatile mount leaves to warn of lost data after a crash of the machine. Our uppers
/// are made anew after one.
fn forget_volatile(work: &Path) -> Result<()> {
    let mark = work.join("work/incompat");
    match fs::remove_dir_all(&mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", mark.display()))
        }
        _ => Ok(()),
    }
}
