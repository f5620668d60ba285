//! The id ledger: the ids of the accounts that builds made, kept so that no later build gives them others.
//!
//! Machines are updated in place, and what is in their `/var` and `/etc` belongs to numbers. A user that gets the
//! next free id on its first build must get the same on every other, whatever packages came since; and an id
//! that was somebody's must not become another's. Lockfiles carry the ledger, a part for each layer
//! ([`crate::lock`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::accounts::{Accounts, Ids};

/// Ids by name. An id is one user's, or one group's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The ids of users, and those of their primary groups.
    pub users: BTreeMap<String, Ids>,
    /// The ids of groups.
    pub groups: BTreeMap<String, u32>,
}

impl Ledger {
    /// The user that a uid is kept for.
    pub fn user_of(&self, uid: u32) -> Option<&str> {
        self.users.iter().find(|(_, ids)| ids.uid == uid).map(|(name, _)| name.as_str())
    }

    /// The group that a gid is kept for.
    pub fn group_of(&self, gid: u32) -> Option<&str> {
        self.groups.iter().find(|(_, kept)| **kept == gid).map(|(name, _)| name.as_str())
    }

    /// Takes over those entries of another ledger whose names and ids this one knows nothing of.
    pub fn extend(&mut self, other: &Self) {
        for (name, ids) in &other.users {
            if self.user_of(ids.uid).is_none() {
                self.users.entry(name.clone()).or_insert(*ids);
            }
        }
        for (name, gid) in &other.groups {
            if self.group_of(*gid).is_none() {
                self.groups.entry(name.clone()).or_insert(*gid);
            }
        }
    }

    /// Takes in an account, if it is not there and has its id for itself.
    pub fn record(&mut self, account: &Account, accounts: &Accounts) {
        let name = &account.name;
        match account.kind {
            Kind::User => {
                let Some(ids) = accounts.users.get(name).map(|user| user.ids) else { return };
                if accounts.users.values().filter(|user| user.ids.uid == ids.uid).count() == 1 {
                    self.users.entry(name.clone()).or_insert(ids);
                }
            }
            Kind::Group => {
                let Some(gid) = accounts.groups.get(name).map(|group| group.gid) else { return };
                if accounts.groups.values().filter(|group| group.gid == gid).count() == 1 {
                    self.groups.entry(name.clone()).or_insert(gid);
                }
            }
        }
    }

    /// The first account that has not the id kept for it, or one that is kept for another.
    pub fn violation(&self, accounts: &Accounts) -> Option<Violation> {
        let users = accounts.users.iter().find_map(|(name, user)| self.forbids_user(name, user.ids));
        users.or_else(|| accounts.groups.iter().find_map(|(name, group)| self.forbids_group(name, group.gid)))
    }

    /// Why a user must not have these ids.
    pub fn forbids_user(&self, name: &str, ids: Ids) -> Option<Violation> {
        let why = match self.users.get(name) {
            Some(kept) if *kept == ids => return None,
            Some(kept) => Why::Moved(kept.into()),
            None => Why::Taken(self.user_of(ids.uid)?.to_owned()),
        };
        Some(Violation { account: Account::user(name), found: (&ids).into(), why })
    }

    /// Why a group must not have this id.
    pub fn forbids_group(&self, name: &str, gid: u32) -> Option<Violation> {
        let why = match self.groups.get(name) {
            Some(kept) if *kept == gid => return None,
            Some(kept) => Why::Moved(kept.into()),
            None => Why::Taken(self.group_of(gid)?.to_owned()),
        };
        Some(Violation { account: Account::group(name), found: (&gid).into(), why })
    }

    /// Whether an id is kept for an account.
    pub fn has(&self, account: &Account) -> bool {
        match account.kind {
            Kind::User => self.users.contains_key(&account.name),
            Kind::Group => self.groups.contains_key(&account.name),
        }
    }

    fn entries(&self) -> BTreeMap<Account, Numbers> {
        let users = self.users.iter().map(|(name, ids)| (Account::user(name), ids.into()));
        let groups = self.groups.iter().map(|(name, gid)| (Account::group(name), gid.into()));
        users.chain(groups).collect()
    }
}

/// Whether an account is a user or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A user.
    User,
    /// A group.
    Group,
}

impl Kind {
    /// The file that lists them.
    pub fn file(self) -> &'static str {
        match self {
            Self::User => "/etc/passwd",
            Self::Group => "/etc/group",
        }
    }
}

/// A user or a group. Shown as `user NAME` or `group NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Account {
    /// Which of the two.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl Account {
    /// The user of a name.
    pub fn user(name: &str) -> Self {
        Self { kind: Kind::User, name: name.to_owned() }
    }

    /// The group of a name.
    pub fn group(name: &str) -> Self {
        Self { kind: Kind::Group, name: name.to_owned() }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == Kind::User { "user" } else { "group" };
        write!(f, "{kind} {}", self.name)
    }
}

/// The ids of an account. Shown as `UID:GID`, or `GID` of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Numbers {
    /// That of a user.
    pub uid: Option<u32>,
    /// That of a group, or of a user's primary group.
    pub gid: u32,
}

impl From<&Ids> for Numbers {
    fn from(Ids { uid, gid }: &Ids) -> Self {
        Self { uid: Some(*uid), gid: *gid }
    }
}

impl From<&u32> for Numbers {
    fn from(gid: &u32) -> Self {
        Self { uid: None, gid: *gid }
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(uid) = self.uid {
            write!(f, "{uid}:")?;
        }
        write!(f, "{}", self.gid)
    }
}

/// An account whose ids the ledger forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Whose.
    pub account: Account,
    /// What it has.
    pub found: Numbers,
    /// What stands against it.
    pub why: Why,
}

/// Why the ledger forbids an id. Shown as what the ledger does: `keeps 996:996 for it`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// These are kept for the account.
    Moved(Numbers),
    /// It is kept for the user or group of this name.
    Taken(String),
}

impl Why {
    /// Whom the id is kept for that `account` should have or must not have.
    pub fn keeper(&self, account: &Account) -> Account {
        match self {
            Self::Moved(_) => account.clone(),
            Self::Taken(name) => Account { kind: account.kind, name: name.clone() },
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved(kept) => write!(f, "keeps {kept} for it"),
            Self::Taken(name) => write!(f, "keeps that for {name}"),
        }
    }
}

/// An account whose ids two ledgers do not have the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Whose.
    #[serde(flatten)]
    pub account: Account,
    /// What the old ledger keeps for it; nothing if it is new.
    pub from: Option<Numbers>,
    /// What the new one keeps; nothing if it is gone.
    pub to: Option<Numbers>,
}

/// How two ledgers differ; users first, sorted by name.
pub fn changes(old: &Ledger, new: &Ledger) -> Vec<Change> {
    let (old, new) = (old.entries(), new.entries());
    let accounts: BTreeSet<&Account> = old.keys().chain(new.keys()).collect();
    let changed = accounts.into_iter().filter(|account| old.get(account) != new.get(account));
    changed
        .map(|account| Change {
            account: account.clone(),
            from: old.get(account).copied(),
            to: new.get(account).copied(),
        })
        .collect()
}
