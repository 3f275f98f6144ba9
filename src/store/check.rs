//! Verification of a store's file, offline: the tree's own check, then what the store promises about its content.

use std::path::Path;

use super::line::Line;
use super::record::{self, Change, Header};
use super::revision::Rev;
use super::state::{Phase, State};
use super::{CHANGES, KEYS, MEMBERS, damaged, member_record};
use crate::base::{Result, Revision};
use crate::btree::{self, Tree, View};
use crate::io::Disk;

/// More findings than this say nothing new.
const FINDINGS_MAX: usize = 100;

/// What [`check`] found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Empty if the file is sound.
    pub findings: Vec<String>,
    pub revision: Revision,
    pub applied_index: u64,
    /// Changes of keys, deletions included, and keys that exist now.
    pub changes: u64,
    pub keys: u64,
}

/// Reads the whole file and changes nothing. An error means that it could not be read at all.
pub fn check<D: Disk>(disk: &D, path: &Path) -> Result<Report> {
    let pages = btree::check(disk, path)?;
    if !pages.findings.is_empty() {
        return Ok(Report { findings: pages.findings, ..Report::default() });
    }
    let tree = Tree::open(disk, path)?;
    let state = State::decode(path, tree.user())?;
    let report = Report { revision: state.revision, applied_index: state.applied.index, ..Report::default() };
    let mut check = Check { tree: &tree, path, state, report };
    match state.phase {
        Phase::Complete => {}
        Phase::Filling => check.find("the file was still being filled".into()),
        Phase::Diverged => {
            check.find("the state differs from that of most members: it must be rebuilt".into())
        }
    }
    check.keys()?;
    check.changes()?;
    check.members()?;
    Ok(check.report)
}

struct Check<'s, D: Disk> {
    tree: &'s Tree<D>,
    path: &'s Path,
    state: State,
    report: Report,
}

/// A change as the line of a key leads to it.
struct Linked {
    rev: Rev,
    change: Change,
    key: Vec<u8>,
}

impl<D: Disk> Check<'_, D> {
    fn find(&mut self, what: String) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(what);
        }
    }

    fn keys(&mut self) -> Result<()> {
        let mut cursor = self.tree.cursor(View::Now, KEYS);
        let mut there = cursor.first()?;
        while there {
            let key = cursor.key()?;
            let record = cursor.value().to_vec()?;
            let decoded = record::decode_key(&record)
                .and_then(|(newest, header, line)| Ok((header, record::decode_line(newest, line)?)));
            match decoded {
                Ok((header, line)) => self.key(&key, &header, &line, cursor.counted())?,
                Err(bad) => self.find(format!("{}: {}", name(&key), bad.0)),
            }
            there = cursor.next()?;
        }
        Ok(())
    }

    fn key(&mut self, key: &[u8], header: &Header, line: &Line, counted: bool) -> Result<()> {
        if counted == header.tombstone {
            self.find(format!("{}: counted is {counted}, deleted is {}", name(key), header.tombstone));
        }
        self.report.keys += u64::from(counted);
        let changes = self.line_of(key, line)?;
        self.report.changes += changes.len() as u64;
        // Oldest first: the change of ordinal n is at n - 1.
        let rev_of = |ordinal: u64| changes.get((ordinal as usize).wrapping_sub(1)).map(|linked| linked.rev);
        let mut findings = Vec::new();
        if changes.len() as u64 != line.ordinal {
            findings.push(format!("{} changes, and the line says {}", changes.len(), line.ordinal));
        }
        if changes.last().is_some_and(|newest| newest.change.header != *header) {
            findings.push("the newest change is not as the key's cell says".into());
        }
        let mut expected = Line::default();
        for (ordinal, linked) in (1..).zip(&changes) {
            let Linked { rev, change, key: of } = linked;
            if of != key {
                findings.push(format!("revision {rev} is of {}", name(of)));
            }
            if expected.push(*rev) != change.links {
                findings.push(format!("revision {rev} is linked as {:?}", change.links));
            }
            let before = rev_of(ordinal - 1).map(|_| &changes[ordinal as usize - 2].change.header);
            if !follows(before, &change.header, rev.main) {
                findings.push(format!("revision {rev}: {:?} cannot follow {before:?}", change.header));
            }
        }
        if expected.marks != line.marks {
            findings.push(format!("marks {:?}, expected {:?}", line.marks, expected.marks));
        }
        findings.into_iter().for_each(|finding| self.find(format!("{}: {finding}", name(key))));
        Ok(())
    }

    /// All changes of a key, the oldest first, from each to the one before it.
    fn line_of(&mut self, key: &[u8], line: &Line) -> Result<Vec<Linked>> {
        let mut changes = Vec::new();
        let mut next = line.newest();
        while let Some(rev) = next {
            let Some(value) = self.tree.get(View::Now, CHANGES, &rev.encode())? else {
                self.find(format!("{}: there is no change at revision {rev}", name(key)));
                break;
            };
            match decode_change(rev, &value.to_vec()?) {
                Ok(linked) => {
                    // Links lead back in time, so this ends.
                    next = linked.change.links.previous;
                    changes.push(linked);
                }
                // It is told where all changes are looked at.
                Err(_) => break,
            }
        }
        changes.reverse();
        Ok(changes)
    }

    fn changes(&mut self) -> Result<()> {
        let mut cursor = self.tree.cursor(View::Now, CHANGES);
        let mut count = 0u64;
        let mut there = cursor.first()?;
        while there {
            let record = cursor.value().to_vec()?;
            let decoded = Rev::decode(&cursor.key()?).and_then(|rev| decode_change(rev, &record));
            match decoded {
                Ok(Linked { rev, .. }) if rev.main > self.state.revision => {
                    self.find(format!("revision {rev}: the store is at {}", self.state.revision));
                }
                Ok(_) => {}
                Err(bad) => self.find(format!("a change: {}", bad.0)),
            }
            count += 1;
            there = cursor.next()?;
        }
        if count != self.report.changes {
            self.find(format!("{count} changes, of which keys lead to {}", self.report.changes));
        }
        Ok(())
    }

    fn members(&mut self) -> Result<()> {
        let mut cursor = self.tree.cursor(View::Now, MEMBERS);
        let mut there = cursor.first()?;
        while there {
            let record = cursor.value().to_vec()?;
            if let Err(bad) = member_record::decode_member(&cursor.key()?, &record) {
                self.find(damaged(self.path, "a member", bad).to_string());
            }
            there = cursor.next()?;
        }
        Ok(())
    }
}

fn decode_change(rev: Rev, record: &[u8]) -> Result<Linked, record::Malformed> {
    let (change, mut rest) = Change::decode(rev, record)?;
    let key = record::take_key(&mut rest)?.to_vec();
    if change.header.tombstone && !rest.is_empty() {
        return Err(record::Malformed(format!("{} bytes of value at the deletion {rev}", rest.left())));
    }
    Ok(Linked { rev, change, key })
}

fn name(key: &[u8]) -> String {
    format!("key {}", String::from_utf8_lossy(&key[..key.len().min(64)]))
}

/// Whether `newer`, made by revision `main`, can be what follows `older`: versions rise by one within a life of the
/// key, and a new life begins at its own revision.
fn follows(older: Option<&Header>, newer: &Header, main: Revision) -> bool {
    match (older.filter(|older| !older.tombstone), newer.tombstone) {
        (None, true) => false,
        (None, false) => newer.version == 1 && newer.create == main,
        (Some(_), true) => true,
        (Some(older), false) => newer.version == older.version + 1 && newer.create == older.create,
    }
}
