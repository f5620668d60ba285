//! Triggers: scripts that a package has run when others come or go (rpm: `lib/rpmtriggers.c`, `lib/psm.c`).
//!
//! A package trigger fires by another package's name and version; file triggers fire by path prefixes, for
//! each package or once per transaction. File triggers run by descending priority, then in rpmdb order.

use std::cmp::Reverse;

use anyhow::Result;

use super::satisfy::{identity, satisfies};
use super::{Count, Run};
use crate::package::header::{FileEntry, HeaderDependency, Phase, Trigger};

/// File triggers of at least this priority run before the %post or %preun they accompany, others after
/// (rpm: `TRIGGER_PRIORITY_BOUND`).
const PRIORITY_BOUND: u32 = 10_000;

/// Which file triggers run at a moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    High,
    Low,
}

impl Priority {
    fn includes(self, trigger: &Trigger) -> bool {
        (trigger.priority >= PRIORITY_BOUND) == (self == Priority::High)
    }
}

/// Where the files come from that a file trigger looks at.
#[derive(Clone, Copy)]
enum Scope<'s> {
    /// One package that comes or goes.
    Package(usize),
    /// Some packages of the transaction.
    Packages(&'s [usize]),
    /// The whole rpmdb.
    Database,
    /// The whole rpmdb but for one package.
    Others(usize),
}

/// A trigger: package, and index in its list.
type Place = (usize, usize);

/// File triggers in the order they run: by descending priority, then package, then number.
pub(super) type Due = (Reverse<u32>, Place);

impl Run<'_> {
    /// Package triggers of others that `package` fires. `count` is that of `package` after the operation.
    pub(super) fn others_triggers(&mut self, phase: Phase, package: usize, count: Count) -> Result<()> {
        let fired = self.count(package, count);
        for owner in self.present_with_triggers() {
            if let Some(trigger) = self.fired(owner, phase, package) {
                let args = [self.count(owner, Count::Present), fired];
                self.fire((owner, trigger), &args, Vec::new())?;
            }
        }
        Ok(())
    }

    /// Package triggers of `package` that present packages fire, each once. `count` is that of `package`.
    pub(super) fn own_triggers(&mut self, phase: Phase, package: usize, count: Count) -> Result<()> {
        let owners = self.count(package, count);
        let mut done = Vec::new();
        for name in self.trigger_names(package, phase) {
            let named = self.present().filter(|&p| self.packages[p].nevra().name == name);
            let sources: Vec<usize> = named.collect();
            for &source in &sources {
                if let Some(trigger) = self.fired(package, phase, source).filter(|t| !done.contains(t)) {
                    self.fire((package, trigger), &[owners, sources.len()], Vec::new())?;
                    done.push(trigger);
                }
            }
        }
        Ok(())
    }

    /// Names that a package's triggers of one phase wait for, in the order of the header.
    fn trigger_names(&self, package: usize, phase: Phase) -> Vec<String> {
        let triggers = self.packages[package].triggers.iter().filter(|t| t.phase == phase);
        triggers.flat_map(|t| &t.conditions).map(|c| c.dependency.name.clone()).collect()
    }

    /// The first trigger of `owner` that `source` fires. One source fires one trigger.
    fn fired(&self, owner: usize, phase: Phase, source: usize) -> Option<usize> {
        let offered = identity(self.packages[source].nevra());
        let matches = |c: &HeaderDependency| satisfies(&offered, &c.dependency);
        let triggers = &self.packages[owner].triggers;
        triggers.iter().position(|t| t.phase == phase && t.conditions.iter().any(matches))
    }

    /// File triggers of all present packages that the files of `package` fire.
    pub(super) fn others_file_triggers(&mut self, phase: Phase, package: usize, at: Priority) -> Result<()> {
        let owners = self.present_with_triggers();
        self.file_triggers(&owners, |t| t.phase == phase && at.includes(t), Scope::Package(package))
    }

    /// File triggers of `package` that files of the rpmdb fire. While a package comes its own files are not
    /// among them, though it is in the rpmdb already: rpm knows no states of them yet.
    pub(super) fn own_file_triggers(&mut self, phase: Phase, package: usize, at: Priority) -> Result<()> {
        let scope = if phase == Phase::FileTriggerIn { Scope::Others(package) } else { Scope::Database };
        self.file_triggers(&[package], |t| t.phase == phase && at.includes(t), scope)
    }

    /// Transaction file triggers of packages outside the transaction, fired by the files of `packages`.
    pub(super) fn others_trans_triggers(&mut self, phase: Phase, packages: &[usize]) -> Result<()> {
        let mut owners = self.present_with_triggers();
        owners.retain(|p| !self.installs.contains(p) && !self.erases.contains(p));
        self.file_triggers(&owners, |t| t.phase == phase, Scope::Packages(packages))
    }

    /// Transaction file triggers of one package of the transaction, fired by files of the rpmdb.
    pub(super) fn own_trans_triggers(&mut self, phase: Phase, package: usize) -> Result<()> {
        self.file_triggers(&[package], |t| t.phase == phase, Scope::Database)
    }

    /// Remembers which %transfiletriggerpostun the files of `package`, about to leave, will fire.
    pub(super) fn note_trans_postun(&mut self, package: usize) {
        let leaving = &self.packages[package];
        for due in self.due(&self.present_with_triggers(), |t| t.phase == Phase::TransFileTriggerPostun) {
            let (_, (owner, trigger)) = due;
            let prefixes = prefixes(&self.packages[owner].triggers[trigger]).collect::<Vec<_>>();
            let fires = |f: &FileEntry| prefixes.iter().any(|prefix| f.path.starts_with(prefix));
            if leaving.files.iter().enumerate().any(|(i, f)| leaving.is_installed(i) && fires(f)) {
                self.trans_postun.insert(due);
            }
        }
    }

    /// Runs what [`Run::note_trans_postun`] noted, of packages that are still there. They get no list.
    pub(super) fn run_trans_postun(&mut self) -> Result<()> {
        for (_, trigger) in std::mem::take(&mut self.trans_postun) {
            if self.present[trigger.0] {
                self.fire(trigger, &[0], Vec::new())?;
            }
        }
        Ok(())
    }

    fn due(&self, owners: &[usize], wanted: impl Fn(&Trigger) -> bool) -> Vec<Due> {
        let mut due = Vec::new();
        for &owner in owners {
            let triggers = self.packages[owner].triggers.iter().enumerate().filter(|(_, t)| wanted(t));
            due.extend(triggers.map(|(index, t)| (Reverse(t.priority), (owner, index))));
        }
        due.sort();
        due
    }

    fn file_triggers(
        &mut self,
        owners: &[usize],
        wanted: impl Fn(&Trigger) -> bool,
        scope: Scope,
    ) -> Result<()> {
        for (_, place) in self.due(owners, wanted) {
            let paths = self.matching(place, scope);
            if !paths.is_empty() {
                let stdin = paths.iter().flat_map(|path| [path.as_bytes(), b"\n"].concat()).collect();
                self.fire(place, &[0], stdin)?;
            }
        }
        Ok(())
    }

    /// Files that begin with one of a trigger's prefixes: by prefix, then package, then header order.
    fn matching(&self, (owner, trigger): Place, scope: Scope) -> Vec<&str> {
        let packages: Vec<usize> = match scope {
            Scope::Package(package) => vec![package],
            Scope::Packages(packages) => in_rpmdb_order(packages),
            Scope::Database => self.present().collect(),
            Scope::Others(package) => self.present().filter(|&p| p != package).collect(),
        };
        let counts = |package: usize, file: usize| match scope {
            // what really comes or goes: not what it shares with others
            Scope::Package(_) => !self.fates[package][file].skips(),
            _ => self.packages[package].is_installed(file),
        };
        let mut paths = Vec::new();
        for prefix in prefixes(&self.packages[owner].triggers[trigger]) {
            for &package in &packages {
                let files = &self.packages[package].files;
                // rpm looks packages up in its database by directory
                let found = matches!(scope, Scope::Package(_))
                    || files.iter().any(|f| directory(f).starts_with(prefix));
                let fires = |(file, f): &(usize, &FileEntry)| {
                    found && f.path.starts_with(prefix) && counts(package, *file)
                };
                paths.extend(files.iter().enumerate().filter(fires).map(|(_, f)| f.path.as_str()));
            }
        }
        paths
    }

    fn fire(&mut self, (owner, trigger): Place, args: &[usize], stdin: Vec<u8>) -> Result<()> {
        let Trigger { phase, script, .. } = self.packages[owner].triggers[trigger].clone();
        self.call(owner, phase, &script, args, stdin)
    }
}

/// Transaction file triggers look all packages of the transaction up in the rpmdb, whatever their order.
fn in_rpmdb_order(packages: &[usize]) -> Vec<usize> {
    let mut packages = packages.to_vec();
    packages.sort_unstable();
    packages
}

fn prefixes(trigger: &Trigger) -> impl Iterator<Item = &str> {
    trigger.conditions.iter().map(|c| c.dependency.name.as_str())
}

/// A file's directory with a final slash, as DIRNAMES has it.
fn directory(file: &FileEntry) -> &str {
    file.path.rfind('/').map_or("", |slash| &file.path[..=slash])
}
