//! Watches a layer being composed make users and groups, and sees that they get the ids of the ledger.

use std::cell::{Ref, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::files::Files;
use super::renumber::Renumbering;
use crate::accounts::Accounts;
use crate::actor::Placed;
use crate::install::{ScriptCall, ScriptRunner};
use crate::ledger::{Account, Ledger};
use crate::package::Nevra;
use crate::rootfs::Rootfs;
use crate::sandbox::Outcome;
use crate::sysusers::{self, Entry};

/// The accounts that were made, and the names of the packages that had them made; none for the manifest.
pub type Made = BTreeMap<Account, Option<String>>;

/// A runner that notes who made which account. Accounts that packages declare get the ids of the ledger; those that
/// a scriptlet makes are renumbered, unless it names their ids itself.
pub struct Witness<'a> {
    runner: &'a dyn ScriptRunner,
    rootfs: &'a Rootfs,
    /// The files of the layer alone.
    own: PathBuf,
    ledger: &'a Ledger,
    made: RefCell<Made>,
}

impl<'a> Witness<'a> {
    /// Watches what `runner` does to `rootfs`; `own` is the directory of what it has over the layers below.
    pub fn new(runner: &'a dyn ScriptRunner, rootfs: &'a Rootfs, own: PathBuf, ledger: &'a Ledger) -> Self {
        Self { runner, rootfs, own, ledger, made: RefCell::default() }
    }

    /// The accounts made so far.
    pub fn made(&self) -> Ref<'_, Made> {
        self.made.borrow()
    }

    /// The ids of those accounts made that are still there.
    pub fn ids(&self) -> Result<Ledger> {
        let accounts = Accounts::read(self.rootfs)?;
        let mut ids = Ledger::default();
        self.made().keys().for_each(|account| ids.record(account, &accounts));
        Ok(ids)
    }

    /// Whose an account is, in words.
    pub fn maker(&self, account: &Account, files: &Files) -> String {
        match self.made().get(account) {
            Some(Some(package)) => package.clone(),
            Some(None) => "the manifest".to_owned(),
            None => files.package_of(account.kind.file()).unwrap_or("a layer below").to_owned(),
        }
    }

    /// Does something, and notes the accounts that `package`, or the manifest, made by it.
    pub fn watch<T>(&self, package: Option<&str>, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = Accounts::read(self.rootfs)?;
        let done = act()?;
        self.note(package, &before, &Accounts::read(self.rootfs)?);
        Ok(done)
    }

    fn note(&self, package: Option<&str>, before: &Accounts, after: &Accounts) {
        let users = after.users.keys().filter(|name| !before.users.contains_key(*name));
        let groups = after.groups.keys().filter(|name| !before.groups.contains_key(*name));
        let new = users.map(|name| Account::user(name)).chain(groups.map(|name| Account::group(name)));
        let mut made = self.made.borrow_mut();
        for account in new {
            made.entry(account).or_insert_with(|| package.map(str::to_owned));
        }
    }
}

impl ScriptRunner for Witness<'_> {
    fn begin(&self) -> Result<()> {
        self.runner.begin()
    }

    fn run(&self, call: &ScriptCall) -> Result<Outcome> {
        let before = Accounts::read(self.rootfs)?;
        let outcome = self.runner.run(call)?;
        let after = Accounts::read_keeping(self.rootfs, self.ledger)?;
        self.note(Some(&call.package().name), &before, &after);
        let text = call.script.body.as_deref().unwrap_or_default();
        let new = Renumbering::of(&before, &after, &|id| names_id(text, id));
        if !new.is_empty() {
            tracing::info!(package = %call.package(), ?new, "renumbering accounts");
            new.apply(self.rootfs, &self.own)
                .with_context(|| format!("renumbering the accounts of {}", call.package()))?;
        }
        Ok(outcome)
    }

    fn placed(&self, files: &[Placed<'_>]) -> Result<()> {
        self.runner.placed(files)
    }

    fn make_accounts(&self, rootfs: &Rootfs, package: &Nevra, entries: &[Entry]) -> Result<()> {
        self.watch(Some(&package.name), || sysusers::apply(rootfs, entries, self.ledger))
    }
}

/// Whether a script has an id as a number of its own, and did not get it by chance.
fn names_id(script: &str, id: u32) -> bool {
    let id = id.to_string();
    script.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == id)
}
