//! Image rules: what a rootfs must be to serve as an image that machines are updated with (design section 6;
//! bootc: `docs/src/filesystem.md` and the rules of `bootc container lint`).
//!
//! Traces of the build and what belongs to one machine go. A machine takes `/var` and `/etc` of its first
//! image only, so what later images bring there is declared in tmpfiles.d and sysusers.d. What packages
//! ship stays, so that `rpm --verify` has nothing to say.

mod accounts;
mod clean;
mod var;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use serde::Serialize;

use super::files::Files;
use crate::error::hinted;
use crate::rootfs::Rootfs;

/// A departure from the rules, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// A path, `user NAME` or `group NAME`.
    pub subject: String,
    /// Name of the package that caused it, where that is known.
    pub package: Option<String>,
    /// What was done.
    pub action: Action,
}

/// What was done about a departure from the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A tmpfiles.d entry makes it on machines that have a `/var` already.
    DeclaredTmpfiles,
    /// A sysusers.d entry makes it on machines that have an `/etc/passwd` already.
    DeclaredSysusers,
    /// A file in `/var` or `/boot` that no package ships: removed.
    Removed,
    /// A packaged file where machines don't get updates of it: left.
    Left,
}

impl Repair {
    /// Whether something may be missing on a machine, which people should hear of.
    pub fn is_loss(&self) -> bool {
        matches!(self.action, Action::Removed | Action::Left)
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)?;
        if let Some(package) = &self.package {
            write!(f, " of {package}")?;
        }
        f.write_str(match self.action {
            Action::DeclaredTmpfiles => ": declared in tmpfiles.d",
            Action::DeclaredSysusers => ": declared in sysusers.d",
            Action::Removed => ": removed, for no package ships it and machines keep their own",
            Action::Left => ": machines get no updates of it there",
        })
    }
}

/// A rootfs on which packages are installed, and what is known of its making.
pub struct Composed<'a> {
    /// The tree.
    pub rootfs: &'a Rootfs,
    /// Name of the layer, for the files that are added.
    pub layer: &'a str,
    /// Directory of the rpmdb.
    pub rpmdb: &'a str,
    /// The paths of all packages.
    pub files: &'a Files,
    /// Packages whose scriptlets made accounts, by `user NAME` and `group NAME`.
    pub made: &'a BTreeMap<String, String>,
}

/// Makes the rootfs follow the rules; tells what there was to repair.
pub fn apply(composed: &Composed<'_>) -> Result<Vec<Repair>> {
    check_kernel(composed)?;
    clean::clean(composed.rootfs, &|path| composed.files.is_packaged(path))?;
    let mut repairs = var::apply(composed)?;
    repairs.extend(left_in_boot(composed)?);
    repairs.extend(accounts::apply(composed)?);
    Ok(repairs)
}

/// bootc boots the one kernel there is (bootc: lint `kernel`).
fn check_kernel(composed: &Composed<'_>) -> Result<()> {
    let kernels = composed.rootfs.glob("/usr/lib/modules/*/vmlinuz")?;
    if kernels.len() <= 1 {
        return Ok(());
    }
    let described: Vec<String> = kernels
        .iter()
        .map(|path| format!("{path} of {}", composed.files.package_of(path).unwrap_or("no package")))
        .collect();
    Err(hinted(
        format!("the image has {} kernels, a machine boots one: {}", kernels.len(), described.join(", ")),
        "remove all but one in [packages], or exclude what brings the others",
    ))
}

/// Packaged files in `/boot`: what no package ships is gone by now.
fn left_in_boot(composed: &Composed<'_>) -> Result<Vec<Repair>> {
    let mut repairs = Vec::new();
    for path in composed.rootfs.glob("/boot/*")? {
        let package = composed.files.package_of(&path).map(str::to_owned);
        repairs.push(Repair { subject: path, package, action: Action::Left });
    }
    Ok(repairs)
}
