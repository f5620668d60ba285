//! sysusers.d(5): the language, and what systemd-sysusers makes of it in a rootfs (systemd:
//! `src/sysusers/sysusers.c`).

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

use crate::accounts::{Accounts, Ids, User};
use crate::ledger::Ledger;
use crate::rootfs::Rootfs;

/// Where images declare accounts, relative to the root. What is in `/etc/sysusers.d` is for administrators, and does
/// not count (bootc: `crates/sysusers`).
pub const DIRECTORY: &str = "usr/lib/sysusers.d";

/// Shell of a user whose entry names none.
const NOLOGIN: &str = "/usr/sbin/nologin";

/// A line of sysusers.d.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `u`: a user, and a group of the same name unless it is told another.
    User {
        /// Its name.
        name: String,
        /// The id it would like.
        id: Id,
        /// Its primary group.
        group: Primary,
        /// GECOS.
        comment: Option<String>,
        /// Home directory.
        home: Option<String>,
        /// Login shell.
        shell: Option<String>,
    },
    /// `g`: a group.
    Group {
        /// Its name.
        name: String,
        /// The id it would like.
        id: Id,
    },
    /// `m`: a user's membership in a group; both are made if need be.
    Member {
        /// The user.
        user: String,
        /// The group.
        group: String,
    },
}

/// The id that an entry would like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id {
    /// Any that is free.
    Any,
    /// This, or another when it is taken.
    Number(u32),
    /// The owner's of this file.
    OwnerOf(String),
}

/// The primary group that an entry wants for its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Primary {
    /// One of the user's name, made if need be.
    Own,
    /// The one of this id.
    Number(u32),
    /// The one of this name, which must exist.
    Named(String),
}

impl Entry {
    /// Parses a line; one that makes nothing (blank, a comment, a range of ids) is none.
    pub fn parse(line: &str) -> Result<Option<Self>> {
        let context = || format!("reading the sysusers.d line `{}`", line.escape_debug());
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        Self::parse_fields(&words(line).with_context(context)?).with_context(context)
    }

    fn parse_fields(fields: &[String]) -> Result<Option<Self>> {
        let field = |n: usize| fields.get(n).filter(|field| *field != "-").map(|f| plain(f)).transpose();
        let name = |n: usize| field(n)?.context("a name is missing").and_then(checked_name);
        let id = field(2)?;
        Ok(Some(match fields[0].as_str() {
            // `!`: locked (systemd 257); what is made here is anyway
            "u" | "u!" => {
                let (id, group) = user_ids(id.as_deref())?;
                let (comment, home, shell) = (field(3)?, field(4)?, field(5)?);
                for text in [&comment, &home, &shell].into_iter().flatten() {
                    ensure!(
                        !text.contains([':', '\n']),
                        "`{}` cannot stand in passwd(5)",
                        text.escape_debug()
                    );
                }
                Self::User { name: name(1)?, id, group, comment, home, shell }
            }
            "g" => Self::Group { name: name(1)?, id: single_id(id.as_deref())? },
            "m" => Self::Member { user: name(1)?, group: name(2)? },
            "r" => return Ok(None),
            other => bail!("`{other}` is none of the types u, g, m, r"),
        }))
    }
}

/// `-`, `UID`, `PATH`, `UID:GID`, `UID:GROUP`, `-:GROUP`.
fn user_ids(text: Option<&str>) -> Result<(Id, Primary)> {
    match text.filter(|text| !text.starts_with('/')).and_then(|text| text.split_once(':')) {
        None => Ok((single_id(text)?, Primary::Own)),
        Some((uid, group)) => {
            let uid = single_id(Some(uid).filter(|uid| *uid != "-"))?;
            Ok((uid, group.parse().map_or_else(|_| Primary::Named(group.to_owned()), Primary::Number)))
        }
    }
}

fn single_id(text: Option<&str>) -> Result<Id> {
    match text {
        None => Ok(Id::Any),
        Some(path) if path.starts_with('/') => Ok(Id::OwnerOf(path.to_owned())),
        Some(id) => {
            Ok(Id::Number(id.parse().with_context(|| format!("`{id}` is neither an id nor a path"))?))
        }
    }
}

/// A name that passwd(5) can hold and tools take (systemd: `valid_user_group_name`, its strict rule).
fn checked_name(name: String) -> Result<String> {
    let start = |c: char| c.is_ascii_alphabetic() || c == '_';
    let rest = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    ensure!(name.starts_with(start) && name.chars().all(rest) && name.len() <= 31, "`{name}` is no name");
    Ok(name)
}

/// A field without specifiers: `%%` is a percent sign, anything else would depend on the machine.
fn plain(field: &str) -> Result<String> {
    let unescaped = field.replace("%%", "\0");
    ensure!(!unescaped.contains('%'), "`{field}` has a specifier, which only the machine can fill in");
    Ok(unescaped.replace('\0', "%"))
}

/// Splits a line of sysusers.d or tmpfiles.d: blanks separate, quotes hold together, a backslash escapes.
pub fn words(line: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(words);
        }
        let (mut word, mut quote) = (String::new(), None);
        while let Some(c) = chars.next_if(|c| quote.is_some() || !c.is_whitespace()) {
            match c {
                '\\' => word.push(unescape(&mut chars).context("a broken escape")?),
                '"' | '\'' if quote == Some(c) => quote = None,
                '"' | '\'' if quote.is_none() => quote = Some(c),
                _ => word.push(c),
            }
        }
        ensure!(quote.is_none(), "a quote is not closed");
        words.push(word);
    }
}

/// What stands behind a backslash: `xNN`, or a character that is meant as it is.
fn unescape(chars: &mut impl Iterator<Item = char>) -> Option<char> {
    match chars.next()? {
        'x' => {
            let digits: String = chars.take(2).collect();
            u8::from_str_radix(&digits, 16).ok().filter(u8::is_ascii).map(char::from)
        }
        c => Some(c),
    }
}

/// The accounts and memberships that sysusers.d files make.
#[derive(Debug, Default)]
pub struct Declared {
    /// Names of users.
    pub users: BTreeSet<String>,
    /// Names of groups.
    pub groups: BTreeSet<String>,
    /// Users and the groups they are members of.
    pub members: BTreeSet<(String, String)>,
}

impl Declared {
    /// Adds what a file makes; a line that can't be read makes nothing.
    pub fn read(&mut self, text: &[u8]) {
        let lines = String::from_utf8_lossy(text);
        lines.lines().filter_map(|line| Entry::parse(line).ok()?).for_each(|entry| self.add(entry));
    }

    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::User { name, group, .. } => {
                if group == Primary::Own {
                    self.groups.insert(name.clone());
                }
                self.users.insert(name);
            }
            Entry::Group { name, .. } => {
                self.groups.insert(name);
            }
            Entry::Member { user, group } => {
                self.members.insert((user, group));
            }
        }
    }
}

/// Makes what the entries name and the rootfs does not have: groups, then users, then memberships.
///
/// Ids are chosen as systemd-sysusers does: the one wanted, that of the file named, that of the user or group
/// of the same name, the highest free system id. An id that `ledger` keeps goes before them all.
pub fn apply(rootfs: &Rootfs, entries: &[Entry], ledger: &Ledger) -> Result<()> {
    let mut accounts = Accounts::read_keeping(rootfs, ledger)?;
    let members = entries.iter().filter_map(|entry| match entry {
        Entry::Member { user, group } => Some((user, group)),
        _ => None,
    });
    for entry in entries {
        if let Entry::Group { name, id } = entry {
            make_group(rootfs, &mut accounts, name, id, false)?;
        }
    }
    for (_, group) in members.clone().filter(|(_, name)| !entries.iter().any(|entry| entry.is_group(name))) {
        make_group(rootfs, &mut accounts, group, &Id::Any, false)?;
    }
    for entry in entries {
        make_user(rootfs, &mut accounts, entry)?;
    }
    for (user, _) in members.clone().filter(|(name, _)| !entries.iter().any(|entry| entry.is_user(name))) {
        make_user(rootfs, &mut accounts, &Entry::implied_user(user))?;
    }
    for (user, group) in members {
        accounts.add_member(rootfs, user, group)?;
    }
    Ok(())
}

impl Entry {
    fn is_group(&self, wanted: &str) -> bool {
        matches!(self, Self::Group { name, .. } if name == wanted)
    }

    fn is_user(&self, wanted: &str) -> bool {
        matches!(self, Self::User { name, .. } if name == wanted)
    }

    /// The user that a membership implies.
    fn implied_user(name: &str) -> Self {
        let (id, group) = (Id::Any, Primary::Own);
        Self::User { name: name.to_owned(), id, group, comment: None, home: None, shell: None }
    }
}

/// Makes a group; gives its id. One that is made for a user (`own`) takes no number of any user.
fn make_group(rootfs: &Rootfs, accounts: &mut Accounts, name: &str, id: &Id, own: bool) -> Result<u32> {
    if let Some(group) = accounts.groups.get(name) {
        return Ok(group.gid);
    }
    let free = |gid: &u32| accounts.may_have_gid(name, *gid);
    let unused = |gid: &u32| free(gid) && accounts.user_of(*gid).is_none();
    let wanted = match id {
        Id::Number(gid) if !own => Some(*gid).filter(free),
        Id::Number(id) => Some(*id).filter(unused),
        Id::OwnerOf(path) => rootfs.lstat(path)?.map(|stat| stat.gid).filter(|gid| *gid > 0).filter(unused),
        Id::Any => None,
    };
    let gid = accounts.kept_gid(name).or(wanted).map_or_else(|| accounts.free_id(), Ok)?;
    accounts.add_group(rootfs, name, gid)?;
    Ok(gid)
}

/// Makes the user of an entry, if it is one, and the group of its name.
fn make_user(rootfs: &Rootfs, accounts: &mut Accounts, entry: &Entry) -> Result<()> {
    let Entry::User { name, id, group, comment, home, shell } = entry else { return Ok(()) };
    let gid = match group {
        Primary::Own => make_group(rootfs, accounts, name, id, true)?,
        Primary::Number(gid) => *gid,
        Primary::Named(group) => accounts.groups.get(group).map(|group| group.gid).with_context(|| {
            format!("the user `{name}` wants the primary group `{group}`, which the rootfs does not have")
        })?,
    };
    if accounts.users.contains_key(name) {
        return Ok(());
    }
    let free = |uid: &u32| accounts.may_have_uid(name, *uid);
    let unused = |uid: &u32| free(uid) && accounts.may_have_gid(name, *uid);
    let wanted = match id {
        Id::Number(uid) if *group == Primary::Own => Some(*uid).filter(unused),
        Id::Number(uid) => Some(*uid).filter(free),
        Id::OwnerOf(path) => rootfs.lstat(path)?.map(|stat| stat.uid).filter(|uid| *uid > 0).filter(unused),
        Id::Any => None,
    };
    let like_group = Some(gid).filter(unused);
    let uid = accounts.kept_uid(name).or(wanted).or(like_group).map_or_else(|| accounts.free_id(), Ok)?;
    let or = |text: &Option<String>, default: &str| text.clone().unwrap_or_else(|| default.to_owned());
    let user = User {
        ids: Ids { uid, gid },
        comment: or(comment, ""),
        home: or(home, "/"),
        shell: or(shell, NOLOGIN),
    };
    accounts.add_user(rootfs, name, user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_make_nothing_and_lines_that_are_wrong() {
        for line in ["", "  ", "# u comment", "r - 500-900"] {
            assert_eq!(Entry::parse(line).unwrap(), None, "{line}");
        }
        for line in [
            "x name",
            "u",
            "u -",
            "u a:b",
            "u ../up",
            "u \"a\nroot2::0:0::/:\"",
            "u name 1x",
            "u name -1",
            "u name - 'not closed",
            "u name - \"a:b\"",
            "u name - - /home/%m",
            "u name - - a\\",
            "g name 1:2",
            "m name",
        ] {
            assert!(Entry::parse(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn words_are_split_as_systemd_splits_them() {
        let split = |line| words(line).unwrap().join("|");
        assert_eq!(split(r#"  u  na"m"e 'two words' "it's" a\ b \x2fx "#), "u|name|two words|it's|a b|/x");
        for wrong in ["'a", "a\\", r"\xzz", r"\xff"] {
            assert!(words(wrong).is_err(), "{wrong}");
        }
    }
}
