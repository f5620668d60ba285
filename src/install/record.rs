//! What a transaction records in the rpmdb.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::fate::{State, TRANSACTION_COLOR};
use super::{Origin, Package, Transaction};
use crate::package::header::InstallTags;
use crate::rpmdb::{Finished, Rpmdb};

/// The packages that come and go. It is known before the last scripts run, and written aside while they do.
pub(super) struct Record<'a> {
    pub tx: &'a Transaction<'a>,
    pub packages: &'a [Package],
    pub installs: Vec<usize>,
    pub erases: Vec<usize>,
    /// Files of installed packages that have another state now: package, file, state.
    pub restated: Vec<(usize, usize, State)>,
}

impl Record<'_> {
    /// Changes the rpmdb of before into that of afterwards.
    #[tracing::instrument(name = "write_rpmdb", level = "info", skip_all)]
    pub fn write(&self, mut rpmdb: Rpmdb) -> Result<Finished> {
        let tid = u32::try_from(self.tx.epoch).context("the epoch does not fit rpm's 32 bits")?;
        for (time, &package) in (tid..).zip(&self.installs) {
            let package = &self.packages[package];
            let tags =
                InstallTags { time, tid, color: TRANSACTION_COLOR, file_states: package.states().to_vec() };
            let blob = package.header.to_rpmdb_blob(&tags)?;
            rpmdb.add(&blob).with_context(|| format!("adding {} to the rpmdb", package.nevra()))?;
        }
        for (package, states) in self.states() {
            if let Origin::Rpmdb(hnum) = self.packages[package].origin {
                rpmdb.set_file_states(hnum, &states)?;
            }
        }
        for &package in &self.erases {
            if let Origin::Rpmdb(hnum) = self.packages[package].origin {
                rpmdb.remove(hnum)?;
            }
        }
        rpmdb.finish()
    }

    /// FILESTATES of the packages of which some are others.
    fn states(&self) -> BTreeMap<usize, Vec<u8>> {
        let mut restated: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        for &(package, file, state) in &self.restated {
            let states = restated.entry(package).or_insert_with(|| self.packages[package].states().to_vec());
            if let Some(known) = states.get_mut(file) {
                *known = state as u8;
            }
        }
        restated
    }
}
