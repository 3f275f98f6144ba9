//! The end of a run: what the store says happened, what the clients saw, and every byte on every disk.

use std::collections::BTreeMap;

use super::check;
use super::process::{tree_dir, wal_dir};
use super::world::World;
use crate::base::Index;
use crate::btree;
use crate::{store, wal};

/// Positions that the search for an explanation may look at, per key.
const STATES_MAX: usize = 200_000;

impl World {
    /// Holds everything against everything.
    pub(super) fn finish(&mut self) {
        if self.sound() {
            self.check_content();
        }
        if self.sound() {
            self.check_lease_tables();
        }
        if self.sound() {
            self.check_orders();
        }
        if self.sound() {
            self.read_changes();
        }
        if self.sound() {
            self.check_history();
        }
        if self.sound() {
            self.check_files();
        }
    }

    /// Members that have applied the same hold the same.
    pub(super) fn check_content(&mut self) {
        let mut known: BTreeMap<Index, (usize, u64)> = BTreeMap::new();
        for member in self.members() {
            let Some(process) = &self.machines[member].process else { continue };
            if process.node.is_blank() || self.machines[member].wrong.is_some() {
                continue;
            }
            let index = process.node.standing().1.index;
            let hash = match process.node.content_hash() {
                Ok(hash) => hash,
                Err(_) if self.machines[member].tainted => continue,
                Err(why) => return self.fail("V13", format!("member {member} cannot be read: {why}")),
            };
            let (other, first) = *known.entry(index).or_insert((member, hash));
            if first != hash {
                return self.fail("V06", format!("members {other} and {member} differ at entry {index}"));
            }
        }
    }

    fn check_history(&mut self) {
        self.clients.history.compacts_by_itself = self.options.retention().is_some();
        let history = &self.clients.history;
        match check::check(history) {
            Ok(_) => {}
            Err(violation) => {
                let (id, what) = (format!("history/{}", violation.rule.name()), violation.to_string());
                return self.fail(&id, what);
            }
        }
        let sure = |ttl_s| self.leases.sure(ttl_s);
        let second = check::wgl::check(history, STATES_MAX).err();
        let third = || check::leases::check(history, sure, STATES_MAX).err();
        if let Some(violation) = second.or_else(third) {
            let (id, what) = (format!("history/{}", violation.rule.name()), violation.to_string());
            self.fail(&id, what);
        }
    }

    /// What ships as `pawlutl verify`, on every member that is not known to be damaged: as the processes left the
    /// files, and as a power cut would.
    fn check_files(&mut self) {
        for member in self.members() {
            let machine = &self.machines[member];
            if machine.tainted || machine.gone || machine.starts == 0 {
                continue;
            }
            let image = machine.disk.point().kill_image();
            let mut findings: Vec<String> = Vec::new();
            match wal::check(&image, &wal_dir()) {
                Ok(report) => findings.extend(
                    report.findings.iter().filter(|finding| !finding.harmless).map(|f| f.what.clone()),
                ),
                Err(why) => findings.push(why.to_string()),
            }
            let tree = tree_dir().join("tree");
            match store::check(&image, &tree) {
                Ok(report) => findings.extend(report.findings),
                Err(why) => findings.push(why.to_string()),
            }
            if let Err(why) = btree::check(&image, &tree) {
                findings.push(why.to_string());
            }
            if let Some(first) = findings.first() {
                return self.fail("V15", format!("the files of member {member}: {first}"));
            }
        }
    }
}
