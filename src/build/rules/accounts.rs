//! Users and groups that only `/etc/passwd` and `/etc/group` know are declared in sysusers.d(5), for machines
//! that have these files already.

use anyhow::Result;

use super::{Action, Composed, Repair};
use crate::accounts::{Accounts, User};
use crate::ledger::Account;
use crate::rootfs::Rootfs;
use crate::sysusers::{self, Declared};

/// Declares the users, groups and memberships that no sysusers.d file makes.
pub fn apply(composed: &Composed<'_>) -> Result<Vec<Repair>> {
    let accounts = Accounts::read(composed.rootfs)?;
    let declared = declared(composed.rootfs)?;
    let (mut lines, mut repairs) = (String::new(), Vec::new());
    let mut declare = |account: Account, line: String| {
        lines.push_str(&line);
        repairs.push(repair(composed, &account));
    };
    for (name, group) in accounts.groups.iter().filter(|(name, _)| !declared.groups.contains(*name)) {
        declare(Account::group(name), format!("g {name} {}\n", group.gid));
    }
    for (name, user) in accounts.users.iter().filter(|(name, _)| !declared.users.contains(*name)) {
        declare(Account::user(name), user_line(name, user));
    }
    for (name, group) in &accounts.groups {
        for member in &group.members {
            let membership = (member.clone(), name.clone());
            if accounts.users.contains_key(member) && !declared.members.contains(&membership) {
                lines.push_str(&format!("m {member} {name}\n"));
            }
        }
    }
    if !lines.is_empty() {
        let path = format!("/usr/lib/sysusers.d/strata-{}.conf", composed.layer);
        composed.rootfs.write(&path, lines.as_bytes(), 0o644)?;
    }
    Ok(repairs)
}

/// Who is behind an account: the package that had it made, or the one that ships the file it is in.
fn repair(composed: &Composed<'_>, account: &Account) -> Repair {
    let package = match composed.made.get(account) {
        Some(package) => package.clone(),
        None => composed.files.package_of(account.kind.file()).map(str::to_owned),
    };
    Repair { subject: account.to_string(), package, action: Action::DeclaredSysusers }
}

fn user_line(name: &str, User { ids, comment, home, shell }: &User) -> String {
    let field = |text: &str| match text {
        "" => "-".to_owned(),
        text => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")),
    };
    let (comment, home, shell) = (field(comment), field(home), field(shell));
    format!("u {name} {}:{} {comment} {home} {shell}\n", ids.uid, ids.gid)
}

/// What the sysusers.d files of a rootfs make.
fn declared(rootfs: &Rootfs) -> Result<Declared> {
    let mut declared = Declared::default();
    for file in rootfs.glob(&format!("/{}/*.conf", sysusers::DIRECTORY))? {
        declared.read(&rootfs.read(&file)?.unwrap_or_default());
    }
    Ok(declared)
}
