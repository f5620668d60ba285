//! Watches scriptlets make users and groups.

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyhow::Result;

use crate::accounts::Accounts;
use crate::install::{ScriptCall, ScriptRunner};
use crate::rootfs::Rootfs;
use crate::sandbox::Outcome;

/// A runner that notes whose scriptlet made which account.
pub struct Witness<'a> {
    runner: &'a dyn ScriptRunner,
    rootfs: &'a Rootfs,
    made: RefCell<BTreeMap<String, String>>,
}

impl<'a> Witness<'a> {
    /// Watches what `runner` does to `rootfs`.
    pub fn new(runner: &'a dyn ScriptRunner, rootfs: &'a Rootfs) -> Self {
        Self { runner, rootfs, made: RefCell::default() }
    }

    /// Names of packages by the `user NAME` and `group NAME` their scriptlets made.
    pub fn made(self) -> BTreeMap<String, String> {
        self.made.into_inner()
    }

    fn accounts(&self) -> Result<Vec<String>> {
        let accounts = Accounts::read(self.rootfs)?;
        let users = accounts.users.keys().map(|name| format!("user {name}"));
        Ok(users.chain(accounts.groups.keys().map(|name| format!("group {name}"))).collect())
    }
}

impl ScriptRunner for Witness<'_> {
    fn run(&self, call: &ScriptCall) -> Result<Outcome> {
        let before = self.accounts()?;
        let outcome = self.runner.run(call)?;
        let mut made = self.made.borrow_mut();
        for account in self.accounts()?.into_iter().filter(|account| !before.contains(account)) {
            made.entry(account).or_insert_with(|| call.package().name.clone());
        }
        Ok(outcome)
    }
}
