//! Verification of a store's file, offline: the tree's own check, then what the store promises about its content.

use std::collections::BTreeMap;
use std::path::Path;

use super::line::{Line, Links};
use super::record::{self, CHANGE_HEAD_BYTES_MAX, Change, Header};
use super::revision::Rev;
use super::state::{Phase, State};
use super::{ALARMS, CHANGES, KEYS, LEASE_KEYS, LEASES, MEMBERS, alarms, damaged, lease, member_record};
use crate::base::{LeaseId, Result, Revision};
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
    let mut check = Check { tree: &tree, path, state, report, leased_keys: 0 };
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
    check.leases()?;
    check.attached_keys()?;
    check.alarms()?;
    Ok(check.report)
}

struct Check<'s, D: Disk> {
    tree: &'s Tree<D>,
    path: &'s Path,
    state: State,
    report: Report,
    /// Keys that name a lease.
    leased_keys: u64,
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
        self.leased_keys += u64::from(header.lease != 0);
        let (changes, missing) = self.line_of(line)?;
        self.report.changes += changes.len() as u64;
        let mut findings = Vec::new();
        if changes.last().is_some_and(|newest| newest.change.header != *header) {
            findings.push("the newest change is not as the key's cell says".into());
        }
        self.beginning(&changes, missing, line, &mut findings);
        self.garbage(&changes, &mut findings);
        ordinals(&changes, line, &mut findings);
        for (at, Linked { rev, change, key: of }) in changes.iter().enumerate() {
            if of != key {
                findings.push(format!("revision {rev} is of {}", name(of)));
            }
            let before = at.checked_sub(1).map(|before| &changes[before].change.header);
            if (at > 0 || missing.is_none()) && !follows(before, &change.header, rev.main) {
                findings.push(format!("revision {rev}: {:?} cannot follow {before:?}", change.header));
            }
        }
        findings.into_iter().for_each(|finding| self.find(format!("{}: {finding}", name(key))));
        Ok(())
    }

    /// The changes of a key that are there, the oldest first, from each to the one before it; and the one before the
    /// oldest, if a link says that there was one.
    fn line_of(&self, line: &Line) -> Result<(Vec<Linked>, Option<Rev>)> {
        let mut changes = Vec::new();
        let mut next = line.newest();
        while let Some(rev) = next {
            let Some(value) = self.tree.get(View::Now, CHANGES, &rev.encode())? else { break };
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
        Ok((changes, next))
    }

    /// A line begins with its first change, or with one whose predecessor a compaction has made garbage.
    fn beginning(&self, changes: &[Linked], missing: Option<Rev>, line: &Line, findings: &mut Vec<String>) {
        let count = changes.len() as u64;
        let Some(missing) = missing else {
            if count != line.ordinal {
                findings.push(format!("{count} changes, and the line says {}", line.ordinal));
            }
            return;
        };
        if count >= line.ordinal {
            findings.push(format!("{count} changes and more, and the line says {}", line.ordinal));
        }
        let bound = self.state.compact_revision;
        let is_garbage = changes.first().is_some_and(|oldest| {
            let begins_a_life = follows(None, &oldest.change.header, oldest.rev.main);
            oldest.rev.main <= bound || (begins_a_life && missing.main < bound)
        });
        if !is_garbage {
            findings.push(format!("there is no change at revision {missing}"));
        }
    }

    /// What the sweep has passed is gone.
    fn garbage(&self, changes: &[Linked], findings: &mut Vec<String>) {
        let State { compact_revision, swept, .. } = self.state;
        let passed = |rev: Rev| rev < swept && rev.main <= compact_revision;
        for (at, Linked { rev, change, .. }) in changes.iter().enumerate() {
            let superseded = changes.get(at + 1).is_some_and(|next| passed(next.rev));
            let dead = change.header.tombstone && rev.main < compact_revision && passed(*rev);
            if superseded || dead {
                findings.push(format!("revision {rev} is garbage, and the sweep is at {swept}"));
            }
        }
    }

    fn changes(&mut self) -> Result<()> {
        let may_hold_garbage = self.state.swept.main <= self.state.compact_revision;
        let mut cursor = self.tree.cursor(View::Now, CHANGES);
        let (mut count, mut lineless) = (0u64, 0u64);
        let mut there = cursor.first()?;
        while there {
            let record = cursor.value().to_vec()?;
            let decoded = Rev::decode(&cursor.key()?).and_then(|rev| decode_change(rev, &record));
            match decoded {
                Ok(Linked { rev, .. }) if rev.main > self.state.revision => {
                    self.find(format!("revision {rev}: the store is at {}", self.state.revision));
                }
                Ok(Linked { rev, key, .. }) if may_hold_garbage && rev.main < self.state.compact_revision => {
                    lineless += u64::from(!self.is_in_line(&key, rev)?);
                }
                Ok(_) => {}
                Err(bad) => self.find(format!("a change: {}", bad.0)),
            }
            count += 1;
            there = cursor.next()?;
        }
        if count != self.report.changes + lineless {
            let led_to = self.report.changes;
            self.find(format!(
                "{count} changes, of which keys lead to {led_to}, and {lineless} are to be swept"
            ));
        }
        self.report.changes = count;
        Ok(())
    }

    /// Whether its key's cell leads to a change. Where it does not, the key began a new line behind a deletion.
    fn is_in_line(&self, key: &[u8], rev: Rev) -> Result<bool> {
        let Some(value) = self.tree.get(View::Now, KEYS, key)? else { return Ok(false) };
        let record = value.to_vec()?;
        let line =
            record::decode_key(&record).and_then(|(newest, _, line)| record::decode_line(newest, line));
        // What cannot be decoded has been told.
        let Ok(line) = line else { return Ok(true) };
        let links = |rev: Rev| {
            let value = self.tree.get(View::Now, CHANGES, &rev.encode())?;
            let record = value.map(|value| value.start(CHANGE_HEAD_BYTES_MAX)).transpose()?;
            let change = record.and_then(|record| Some(Change::decode(rev, &record).ok()?.0));
            Ok(change.map_or_else(Links::default, |change| change.links))
        };
        Ok(line.find(rev.main, links)? == Some(rev))
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

impl<D: Disk> Check<'_, D> {
    fn leases(&mut self) -> Result<()> {
        let mut cursor = self.tree.cursor(View::Now, LEASES);
        let mut there = cursor.first()?;
        while there {
            let record = cursor.value().to_vec()?;
            match lease::decode_id(&cursor.key()?).and_then(|id| Ok((id, lease::decode(&record)?))) {
                Ok((id, lease)) if lease.generation > self.state.applied.index => {
                    self.find(format!("lease {id} of entry {}: that is not applied", lease.generation));
                }
                Ok(_) => {}
                Err(bad) => self.find(format!("a lease: {}", bad.0)),
            }
            there = cursor.next()?;
        }
        Ok(())
    }

    fn alarms(&mut self) -> Result<()> {
        let mut cursor = self.tree.cursor(View::Now, ALARMS);
        let mut there = cursor.first()?;
        while there {
            if let Err(bad) = alarms::decode(&cursor.key()?, cursor.value().len()) {
                self.find(format!("an alarm: {}", bad.0));
            }
            there = cursor.next()?;
        }
        Ok(())
    }

    /// What is attached says so itself, and all that says so is attached.
    fn attached_keys(&mut self) -> Result<()> {
        let mut cursor = self.tree.cursor(View::Now, LEASE_KEYS);
        let mut count = 0;
        let mut there = cursor.first()?;
        while there {
            let cell = cursor.key()?;
            match lease::decode_attached(&cell) {
                Ok((id, key)) => self.attached_key(id, key)?,
                Err(bad) => self.find(format!("an attached key: {}", bad.0)),
            }
            if !cursor.value().is_empty() || cursor.counted() {
                self.find("an attached key with a value, or counted".into());
            }
            count += 1;
            there = cursor.next()?;
        }
        if count != self.leased_keys {
            self.find(format!("{count} keys are attached to leases, and {} say so", self.leased_keys));
        }
        Ok(())
    }

    fn attached_key(&mut self, id: LeaseId, key: &[u8]) -> Result<()> {
        if self.tree.get(View::Now, LEASES, &lease::encode_id(id))?.is_none() {
            self.find(format!("{}: attached to lease {id}, which is not there", name(key)));
        }
        let of = match self.tree.get(View::Now, KEYS, key)? {
            None => 0,
            Some(cell) => record::decode_key(&cell.to_vec()?).map_or(0, |(_, header, _)| header.lease),
        };
        if of != id {
            self.find(format!("{}: attached to lease {id}, and says {of}", name(key)));
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

/// Links and marks name changes by their ordinals. Many name the same one, and all must mean the same revision, also
/// where it has been swept.
fn ordinals(changes: &[Linked], line: &Line, findings: &mut Vec<String>) {
    let mut revs: BTreeMap<u64, Rev> = BTreeMap::new();
    let mut name = |ordinal: u64, rev: Option<Rev>, whose: &str| match rev {
        Some(rev) if ordinal > 0 => {
            let known = *revs.entry(ordinal).or_insert(rev);
            if known != rev {
                findings.push(format!("{whose} calls {rev} number {ordinal}, which is {known}"));
            }
        }
        None if ordinal == 0 => {}
        other => findings.push(format!("{whose} names {other:?} as number {ordinal}")),
    };
    let mut ordinal = line.ordinal;
    for mark in line.marks.iter().rev() {
        name(ordinal, Some(*mark), "a mark");
        ordinal &= ordinal.wrapping_sub(1);
    }
    for (ordinal, Linked { rev, change, .. }) in (1..=line.ordinal).rev().zip(changes.iter().rev()) {
        let whose = format!("revision {rev}");
        name(ordinal, Some(*rev), &whose);
        name(ordinal - 1, change.links.previous, &whose);
        let skipped_to = ordinal & (ordinal - 1);
        name(if skipped_to == ordinal - 1 { 0 } else { skipped_to }, change.links.skip, &whose);
    }
    if !revs.values().is_sorted_by(|older, newer| older < newer) {
        findings.push(format!("changes out of order: {revs:?}"));
    }
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
