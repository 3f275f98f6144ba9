//! What must hold of room, seen from outside. The log says when an alarm was raised and when it ended.
//!
//! - V40: behind the same entry every member has the alarms that the entries up to there say.
//! - V41: what an alarm refuses is not carried out behind the entry that raises it, until another entry ends it.
//! - V42: what is compacted because nobody wants it any more is older than the retention, or so many revisions behind.
//! - L16: in the end no more history is left than is to be kept, and a little.
//! - L15: in the end the quota's alarm stands if the leader uses as much as it may, and does not if it is far from that; and
//!   those that clients raised can be ended.

use super::alarms::Alarms;
use super::world::World;
use crate::api::{Command, Op, Txn, command};
use crate::base::time::{MS, Nanos, SECOND};
use crate::base::{Index, Mono, Revision};
use crate::node::Retention;

/// Alarms by the log.
pub struct RoomWatch {
    /// Up to which entry it was read.
    read: Index,
    /// What stands behind these entries.
    alarms: Vec<(Index, Alarms)>,
    /// When the first member had come to these revisions.
    reached: Vec<(Mono, Revision)>,
    /// Compactions that nobody asked for.
    compactions: u64,
}

impl RoomWatch {
    pub fn new() -> RoomWatch {
        RoomWatch { read: 0, alarms: vec![(0, Alarms::default())], reached: Vec::new(), compactions: 0 }
    }

    /// What stood before an entry, as far as the log was read.
    pub fn alarms_before(&self, entry: Index) -> Option<&Alarms> {
        let last = self.alarms.iter().rev().find(|(index, _)| *index < entry);
        last.map(|(_, alarms)| alarms).filter(|_| self.read + 1 >= entry)
    }

    fn newest(&self) -> &Alarms {
        &self.alarms.last().expect("there is always one").1
    }

    fn reached_at(&self, revision: Revision) -> Option<Mono> {
        self.reached.iter().find(|(_, reached)| *reached >= revision).map(|(at, _)| *at)
    }

    /// How often one was raised and ended.
    pub fn cells(&self) -> impl Iterator<Item = (String, u64)> {
        let count = |what: fn(&Alarms, &Alarms) -> bool| {
            self.alarms.windows(2).filter(|pair| what(&pair[0].1, &pair[1].1)).count() as u64
        };
        let cells = [
            ("entry raises the alarm", count(|before, now| now.full != 0 && before.full == 0)),
            ("entry ends the alarm", count(|before, now| now.full == 0 && before.full != 0)),
            ("entry raises a client's alarm", count(|before, now| now.raised.len() > before.raised.len())),
            ("entry ends a client's alarm", count(|before, now| now.raised.len() < before.raised.len())),
            ("entry compacts by itself", self.compactions),
        ];
        cells.into_iter().filter(|(_, count)| *count > 0).map(|(cell, count)| (cell.to_string(), count))
    }
}

impl World {
    /// A member has applied entries, perhaps as the first one.
    pub(super) fn watch_room(&mut self, member: usize, applied: Index) {
        let revision = self.machines[member].process.as_ref().map_or(0, |process| process.node.revision());
        let newest = self.room.reached.last().map_or(0, |(_, revision)| *revision);
        // One with damaged files has not applied anything else; it may lead, and compact.
        if revision > newest && !self.machines[member].misapplies {
            self.room.reached.push((self.now, revision));
        }
        while let Some(Some(committed)) = self.watch.committed.get(self.room.read as usize) {
            self.room.read += 1;
            let Ok((_, command)) = command::decode(committed.payload.clone()) else { continue };
            let mut alarms = self.room.newest().clone();
            alarms.read(&command);
            if alarms != *self.room.newest() {
                self.room.alarms.push((self.room.read, alarms));
            }
            if let Command::Compact(compact) = &command
                && !self.clients.compact()
            {
                self.room.compactions += 1;
                if let Some(what) = self.too_young(compact.revision) {
                    return self.fail("V42", what);
                }
            }
        }
        let Some(process) = self.machines[member].process.as_ref().filter(|_| !self.machines[member].tainted)
        else {
            return;
        };
        let found = Alarms::of(process.node.alarms());
        if self.room.read < applied {
            // Entries that nobody knows, but by a snapshot: what it says is believed.
            self.room.read = applied;
            self.room.alarms.push((applied, found.clone()));
        }
        self.clients.standing = self.room.newest().raised.iter().copied().collect();
        if let Some(known) = self.room.alarms_before(applied + 1)
            && found != *known
        {
            let what = format!("behind entry {applied} member {member} has {found:?}, not {known:?}");
            self.fail("V40", what);
        }
    }

    /// Why nobody may compact here without having been asked to.
    fn too_young(&self, revision: Revision) -> Option<String> {
        if self.machines.iter().any(|machine| machine.misapplies) {
            return None; // It may have counted revisions in another way.
        }
        match self.options.retention()? {
            Retention::Revisions { count, .. } => {
                let newest = self.room.reached.last().map_or(0, |(_, revision)| *revision);
                let short = revision.saturating_add(count) > newest;
                short
                    .then(|| format!("revision {revision} is compacted at {newest}, though {count} are kept"))
            }
            Retention::Time(retention) => {
                // A clock that is fast sees it pass early.
                let (sure, _) = self.leases.bounds(retention);
                let age = self.now.since(self.room.reached_at(revision).unwrap_or(self.now));
                let (age_ms, kept_ms) = (age / MS, retention / MS);
                let what =
                    format!("revision {revision} is compacted after {age_ms} ms; {kept_ms} ms are kept");
                (age < sure).then_some(what)
            }
        }
    }

    /// Now that nobody writes, and nobody else compacts.
    pub(super) fn check_retention(&mut self) {
        let Some(retention) = self.options.retention() else { return };
        let newest = self.room.reached.last().map_or(0, |(_, revision)| *revision);
        let (wait, bound): (Nanos, Revision) = match retention {
            Retention::Time(retention) => (self.leases.bounds(2 * retention).1, newest),
            Retention::Revisions { count, .. } => (0, newest.saturating_sub(count + (count / 10).max(1))),
        };
        let due = bound > 1;
        let over = |world: &World| {
            let mut members = world.enrolled().into_iter();
            members.all(|member| {
                let process = world.machines[member].process.as_ref();
                process.is_none_or(|process| process.node.compact_revision() >= bound)
            })
        };
        if due {
            self.run_until(self.now + wait + 10 * SECOND, over);
        }
        if self.sound() && due && !over(self) {
            self.fail("L16", format!("what is older than revision {bound} is not compacted"));
        }
    }

    /// What is wrong with the alarm, now that everything has come to rest.
    fn wrong_alarm(&self) -> Option<&'static str> {
        let leader = self.agreed_leader()?;
        let machine = &self.machines[self.watch.roster.machine(leader)];
        let node = &machine.process.as_ref()?.node;
        let (quota, used) = (self.options.quota, node.status().db_size_in_use);
        match node.alarms().0 {
            0 if quota > 0 && used >= quota => Some("puts are admitted, though there is no room"),
            1.. if quota == 0 || used < quota * 8 / 10 => Some("puts are refused, though there is room"),
            _ => None,
        }
    }

    /// Nobody raises any more; what stands is ended by whoever hears of it.
    pub(super) fn end_alarms(&mut self) {
        let ended = |world: &World| world.room.newest().raised.is_empty();
        for _ in 0..20 {
            if !self.sound() || ended(self) {
                return;
            }
            self.wake_clients(self.options.clients);
            self.run_until(self.now + SECOND + 10 * self.options.election, ended);
        }
        self.fail("L15", format!("{:?} stand, though clients end them", self.room.newest().raised));
    }

    pub(super) fn check_alarm(&mut self) {
        self.end_alarms();
        self.run_until(self.now + 10 * SECOND, |world| world.wrong_alarm().is_none());
        if self.sound()
            && let Some(what) = self.wrong_alarm()
        {
            self.fail("L15", what.into());
        }
    }
}

/// The values that a command writes if it puts anything.
pub fn values(command: &Command) -> Vec<&[u8]> {
    let mut values = Vec::new();
    match command {
        Command::Put(put) if !put.ignore_value => values.push(&put.value[..]),
        Command::Txn(txn) => collect(txn, &mut values),
        _ => {}
    }
    values
}

fn collect<'a>(txn: &'a Txn, values: &mut Vec<&'a [u8]>) {
    for op in txn.branch(true).iter().chain(txn.branch(false)) {
        match op {
            Op::Put(put) if !put.ignore_value => values.push(&put.value),
            Op::Txn(txn) => collect(txn, values),
            _ => {}
        }
    }
}
