//! The end of a run: what the store says happened, what the clients saw, and every byte on every disk.

use std::collections::BTreeMap;

use super::check;
use super::history::Change;
use super::process::{tree_dir, wal_dir};
use super::world::World;
use crate::api::{Command, Range, RangeResult, Span, command};
use crate::base::{Index, Revision};
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
    fn check_content(&mut self) {
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

    /// Asks the member that is furthest what happened at each revision. The log tells which keys to ask for; what
    /// is believed is the store.
    fn read_changes(&mut self) {
        let furthest = self
            .members()
            .filter(|member| !self.machines[*member].tainted)
            .filter(|member| self.machines[*member].process.is_some())
            .max_by_key(|member| self.machines[*member].process.as_ref().map(|p| p.node.revision()));
        let Some(member) = furthest else { return };
        let mut changes = Vec::new();
        let process = self.machines[member].process.as_ref().expect("it was just chosen");
        let last = process.node.revision();
        let ask = |span: &Span, revision: Revision| -> Result<RangeResult, String> {
            let range = Range { revision, ..Range::new(span.clone()) };
            let answer = process.node.range(&range).map_err(|why| why.to_string())?;
            answer.map_err(|fault| fault.to_string())
        };
        let mut next: Revision = 2;
        let mut wrong = None;
        for committed in self.watch.committed.iter().flatten().filter(|entry| !entry.payload.is_empty()) {
            if next > last {
                break;
            }
            match happened(&committed.payload, next, &ask) {
                Ok(at_once) if at_once.is_empty() => {}
                Ok(at_once) => {
                    changes.extend(at_once);
                    next += 1;
                }
                Err(why) => wrong = Some(why),
            }
        }
        if let Some(why) = wrong {
            return self.fail("V13", format!("member {member} cannot be read at revision {next}: {why}"));
        }
        let known = self.watch.committed.iter().all(Option::is_some);
        if next <= last && known {
            return self
                .fail("V06", format!("no entry of the log explains revision {next} of member {member}"));
        }
        if next > last {
            self.clients.history.changes = changes;
        }
    }

    fn check_history(&mut self) {
        let history = &self.clients.history;
        match check::check(history) {
            Ok(_) => {}
            Err(violation) => {
                let (id, what) = (format!("history/{}", violation.rule.name()), violation.to_string());
                return self.fail(&id, what);
            }
        }
        if let Err(violation) = check::wgl::check(history, STATES_MAX) {
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

/// What the store says this entry did at a revision; nothing: the revision is another entry's.
fn happened(
    payload: &bytes::Bytes,
    revision: Revision,
    ask: &dyn Fn(&Span, Revision) -> Result<RangeResult, String>,
) -> Result<Vec<Change>, String> {
    let (_, decoded) = command::decode(payload.clone()).map_err(|why| why.0)?;
    match decoded {
        Command::Put(put) => {
            let key = Span::Key(put.key);
            if put.ignore_value && ask(&key, revision - 1)?.kvs.is_empty() {
                return Ok(Vec::new()); // It kept the value of a key that was not there.
            }
            let found = ask(&key, revision)?;
            let new = found.kvs.into_iter().filter(|kv| kv.mod_revision == revision);
            Ok(new.map(|kv| Change { revision, key: kv.key, value: Some(kv.value) }).collect())
        }
        Command::Delete(delete) => {
            let before = ask(&delete.span, revision - 1)?;
            if before.kvs.is_empty() {
                return Ok(Vec::new());
            }
            let after = ask(&delete.span, revision)?;
            let gone = before.kvs.into_iter().filter(|kv| after.kvs.iter().all(|left| left.key != kv.key));
            Ok(gone.map(|kv| Change { revision, key: kv.key, value: None }).collect())
        }
        Command::Publish { .. } | Command::Members(_) => Ok(Vec::new()),
    }
}
