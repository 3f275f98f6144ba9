//! What must hold of leases, seen from outside and by true time. The log says which there are; what is asked of a log is
//! only what its entries mean, so this is a second reading of them, and its table is held against every store's.
//!
//! - V30: a lease that nobody revoked ends no earlier than was promised to whoever granted or renewed it last: a TTL after
//!   the question.
//! - V31: every member's table of leases is what the entries up to there say.
//! - V32: an answer that says that a lease lived, or that it was not there, is true at some instant between question
//!   and answer.
//! - V33: of a lease that nobody wanted to renew since, nobody is told that more is left than was noted.
//! - L10: after the faults leases go when their time is over.
//!
//! Clocks may be faster than leaders allow for, in runs that do not rely on them: then less is promised.

use std::collections::BTreeMap;

use super::alarms::Alarms;
use super::check::txn::attaching;
use super::plan::Action;
use super::world::{START, World};
use crate::api::{
    AlarmKind, Body, Code, Command, LeaseAnswer, LeaseRef, LeaseRequest, LockRequest, Reply, Request, command,
};
use crate::base::time::{MS, Nanos, SECOND};
use crate::base::{EntryId, Index, LeaseId, Mono};
use crate::store::Lease;

/// How much faster than true time a clock may go, in millionths, without anything ending early.
const FAST_PPM: i64 = 20_000;

/// One lease, from the entry that granted it on.
#[derive(Clone, Debug)]
struct Life {
    lease: Lease,
    /// When the first member had applied its grant.
    from: Mono,
    promised_until: Mono,
    /// When what is left was last noted.
    noted_at: Mono,
    /// When the first member had applied its end, and whether a leader decided that.
    end: Option<(Mono, bool)>,
    /// The entry that ended it.
    ended_by: Index,
}

pub struct LeaseWatch {
    /// Up to which entry the log was read.
    read: Index,
    /// Those that refuse grants, or whatever a lease does.
    alarms: Alarms,
    /// When the last one ended that kept leases from ending.
    kept_until: Mono,
    /// By id, one after the other: all but the last have ended.
    lives: BTreeMap<LeaseId, Vec<Life>>,
    /// When somebody last asked to renew it.
    asked: BTreeMap<LeaseId, Mono>,
    /// Of all clocks in the plan, in millionths.
    fastest_ppm: i64,
    slowest_ppm: i64,
    /// What entries did.
    cells: BTreeMap<&'static str, u64>,
    pub last_election: Mono,
    pub healed_at: Mono,
}

impl LeaseWatch {
    pub fn new(actions: impl Iterator<Item = Action>) -> LeaseWatch {
        let drifts = actions.filter_map(|action| match action {
            Action::Drift { ppm, .. } => Some(ppm),
            _ => None,
        });
        let (fastest_ppm, slowest_ppm) =
            drifts.fold((0, 0), |(fast, slow), ppm| (ppm.max(fast), ppm.min(slow)));
        LeaseWatch {
            read: 0,
            alarms: Alarms::default(),
            kept_until: START,
            lives: BTreeMap::new(),
            asked: BTreeMap::new(),
            fastest_ppm,
            slowest_ppm,
            cells: BTreeMap::new(),
            last_election: START,
            healed_at: Mono::NEVER,
        }
    }

    /// How long so many seconds last at least, by true time.
    pub fn sure(&self, ttl_s: u64) -> Nanos {
        let scaled = |ppm: i64| u128::from(ttl_s * SECOND) * 1_000_000 / (1_000_000 + ppm) as u128;
        scaled((self.fastest_ppm - FAST_PPM).max(0)) as Nanos
    }

    /// How long so much of any clock's time lasts at least, and at most.
    pub fn bounds(&self, nanos: Nanos) -> (Nanos, Nanos) {
        let scaled = |ppm: i64| (u128::from(nanos) * 1_000_000 / (1_000_000 + ppm) as u128) as Nanos;
        (scaled(self.fastest_ppm), scaled(self.slowest_ppm))
    }

    /// And at most.
    fn longest(&self, ttl_s: u64) -> Nanos {
        let nanos = u128::from(ttl_s * SECOND) * 1_000_000 / (1_000_000 + self.slowest_ppm) as u128;
        (nanos * (1_000_000 + FAST_PPM as u128) / 1_000_000) as Nanos
    }

    /// For [`super::probes`].
    pub fn cells(&self) -> impl Iterator<Item = (String, u64)> {
        self.cells.iter().map(|(cell, count)| ((*cell).to_string(), *count))
    }

    fn there(&mut self, id: LeaseId) -> Option<&mut Life> {
        self.lives.get_mut(&id)?.last_mut().filter(|life| life.end.is_none())
    }

    /// One more entry is applied somewhere. What is broken by it, if anything is.
    fn read_entry(&mut self, entry: EntryId, command: &Command, now: Mono) -> Option<String> {
        if self.alarms.refuse(command) {
            return None;
        }
        if self.alarms.stands(AlarmKind::Corrupt) {
            self.kept_until = now;
        }
        self.alarms.read(command);
        match command {
            Command::LeaseGrant { id, ttl_s } if self.there(*id).is_none() && *id != 0 => {
                let (generation, ttl_s) = (entry.index, (*ttl_s).max(1));
                let lease = Lease { generation, ttl_s, remaining_s: ttl_s };
                let (promised_until, noted_at) = (START, Mono::NEVER);
                self.lives.entry(*id).or_default().push(Life {
                    lease,
                    from: now,
                    promised_until,
                    noted_at,
                    end: None,
                    ended_by: Index::MAX,
                });
            }
            Command::LeaseRevoke { term, leases } if *term == 0 || *term == entry.term => {
                let (mut early, mut ended) = (None, 0);
                for LeaseRef { id, generation } in leases {
                    let is_it = |life: &&mut Life| *term == 0 || life.lease.generation == *generation;
                    let Some(life) = self.there(*id).filter(is_it) else { continue };
                    life.end = Some((now, *term != 0));
                    life.ended_by = entry.index;
                    ended += 1;
                    if *term != 0 && now < life.promised_until {
                        let short = life.promised_until.since(now) / MS;
                        early = Some(format!("entry {entry} ends lease {id} {short} ms before it may"));
                    }
                }
                if *term != 0 && ended > 0 {
                    let cell = if ended > 1 { "entry ends several leases" } else { "entry ends a lease" };
                    *self.cells.entry(cell).or_default() += 1;
                }
                return early;
            }
            Command::LeaseCheckpoint { term, leases } if *term == entry.term => {
                for (LeaseRef { id, generation }, left_s) in leases {
                    if let Some(life) = self.there(*id).filter(|life| life.lease.generation == *generation) {
                        life.lease.remaining_s = (*left_s).clamp(1, life.lease.ttl_s);
                        life.noted_at = now;
                        let is_all = life.lease.remaining_s == life.lease.ttl_s;
                        let cell = if is_all { "entry notes a renewal" } else { "entry notes what is left" };
                        *self.cells.entry(cell).or_default() += 1;
                    }
                }
            }
            _ => {}
        }
        None
    }

    /// A lease was said to live, by an answer to a question of then. What is wrong with that.
    fn promised(&mut self, id: LeaseId, ttl_s: u64, since: Mono) -> Option<String> {
        let until = since + self.sure(ttl_s);
        let lives = self.lives.entry(id).or_default();
        let mut possible: Vec<&mut Life> =
            lives.iter_mut().filter(|life| life.end.is_none_or(|(at, _)| at >= since)).collect();
        if possible.iter().all(|life| life.lease.ttl_s != ttl_s) {
            return Some(format!("it is said to live for {ttl_s} s, and does not"));
        }
        let early = |life: &&mut Life| matches!(life.end, Some((at, true)) if at < until);
        if possible.iter().all(early) {
            return Some(format!("it was said to live for {ttl_s} s, and ended before"));
        }
        if let [life] = &mut possible[..] {
            life.promised_until = life.promised_until.max(until);
        }
        None
    }

    /// Whether a lease was there before an entry, as far as the log was read.
    pub fn was_there(&self, id: LeaseId, entry: Index) -> Option<bool> {
        let lived = |life: &Life| life.lease.generation < entry && entry <= life.ended_by;
        (self.read >= entry).then(|| self.lives.get(&id).is_some_and(|lives| lives.iter().any(lived)))
    }

    /// Whether an entry ended a lease, as far as the log was read.
    pub fn ended(&self, id: LeaseId, entry: Index) -> Option<bool> {
        let by_it = |life: &Life| life.ended_by == entry;
        (self.read >= entry).then(|| self.lives.get(&id).is_some_and(|lives| lives.iter().any(by_it)))
    }

    /// Whether a lease was there all the time since.
    fn was_there_since(&self, id: LeaseId, since: Mono) -> bool {
        let last = self.lives.get(&id).and_then(|lives| lives.last());
        last.is_some_and(|life| life.end.is_none() && life.from < since)
    }
}

impl World {
    /// Reads what was applied since.
    pub(super) fn watch_leases(&mut self) {
        loop {
            let read = self.leases.read;
            let Some(Some(committed)) = self.watch.committed.get(read as usize) else { return };
            self.leases.read += 1;
            let (entry, payload) = (EntryId::new(committed.term, read + 1), committed.payload.clone());
            if payload.is_empty() {
                continue;
            }
            let Ok((_, command)) = command::decode(payload) else { continue };
            if let Some(what) = self.leases.read_entry(entry, &command, self.now) {
                return self.fail("V30", what);
            }
        }
    }

    /// A client asks for something that may make a lease live longer.
    pub(super) fn lease_is_asked_for(&mut self, request: &Request) {
        if let Request::Lease(LeaseRequest::KeepAlive { ids }) = request {
            self.leases.asked.extend(ids.iter().map(|id| (*id, self.now)));
        }
    }

    /// An answer leaves a member.
    pub(super) fn check_lease_answer(&mut self, reply: &Reply) {
        if self.leases.read < self.watch.committed.len() as Index {
            return; // What a snapshot alone has told is not known here.
        }
        let op = &self.clients.history.ops[reply.tag as usize];
        let (since, request) = (op.invoked.at, op.request.clone());
        let wrong = match (&request, &reply.body) {
            (_, Body::Lease(LeaseAnswer::Granted { id, ttl_s })) => {
                self.leases.promised(*id, *ttl_s, since).map(|what| (*id, what))
            }
            (Request::Lease(LeaseRequest::KeepAlive { ids }), Body::Lease(LeaseAnswer::Kept(ttls))) => {
                let told = |(id, ttl_s): (&LeaseId, &u64)| match ttl_s {
                    0 => self.told_gone(*id, since),
                    _ => self.leases.promised(*id, *ttl_s, since).map(|what| (*id, what)),
                };
                ids.iter().zip(ttls).filter_map(told).next()
            }
            (_, Body::Lease(LeaseAnswer::TimeToLive { id, time: None, .. })) => self.told_gone(*id, since),
            (_, Body::Lease(LeaseAnswer::TimeToLive { id, time: Some(time), .. })) => {
                return self.check_what_is_left(*id, time.remaining_s, since);
            }
            (Request::Put(_) | Request::Txn(_), Body::Fault(fault)) if fault.code == Code::NoLease => {
                // One of them at least.
                let named = attaching(&request).into_iter().map(|put| put.lease);
                let told: Vec<_> = named.map(|id| self.told_gone(id, since)).collect();
                if told.iter().all(Option::is_some) { told.into_iter().flatten().next() } else { None }
            }
            (Request::Lock(LockRequest::Acquire(acquire)), Body::Fault(fault))
                if fault.code == Code::NoLease =>
            {
                self.told_gone(acquire.lease, since)
            }
            (Request::Lease(LeaseRequest::Revoke { id }), Body::Fault(fault))
                if fault.code == Code::NoLease =>
            {
                self.told_gone(*id, since)
            }
            (_, Body::Lease(LeaseAnswer::List(ids))) => {
                let known: Vec<LeaseId> = self.leases.lives.keys().copied().collect();
                let missing = known.into_iter().filter(|id| !ids.contains(id));
                missing.filter_map(|id| self.told_gone(id, since)).next()
            }
            _ => None,
        };
        if let Some((id, what)) = wrong {
            let op = &self.clients.history.ops[reply.tag as usize];
            let what = format!("lease {id}: {what}; {op} is answered {:?}", reply.body);
            self.fail("V32", what);
        }
    }

    fn told_gone(&self, id: LeaseId, since: Mono) -> Option<(LeaseId, String)> {
        self.leases.was_there_since(id, since).then(|| (id, "it was there all the time".into()))
    }

    fn check_what_is_left(&mut self, id: LeaseId, left_s: u64, since: Mono) {
        let asked = self.leases.asked.get(&id).copied().unwrap_or(START);
        let long_ago = asked + self.late();
        let Some(life) = self.leases.there(id).filter(|life| life.noted_at < since) else { return };
        let noted_s = life.lease.remaining_s;
        if life.noted_at > long_ago && left_s > noted_s {
            let what = format!("of lease {id} {left_s} s are said to be left, and {noted_s} s were noted");
            self.fail("V33", what);
        }
    }

    /// A request may still have an effect so long after it was sent, whoever stands still meanwhile.
    fn late(&self) -> Nanos {
        10 * SECOND + 30 * self.options.election
    }

    /// V31, at the end.
    pub(super) fn check_lease_tables(&mut self) {
        let table: Vec<(LeaseId, Lease)> = {
            let there = |(id, lives): (&LeaseId, &Vec<Life>)| {
                let life = lives.last().filter(|life| life.end.is_none())?;
                Some((*id, life.lease))
            };
            self.leases.lives.iter().filter_map(there).collect()
        };
        for member in self.members() {
            let Some(process) = &self.machines[member].process else { continue };
            let (_, applied) = process.node.standing();
            if applied.index != self.leases.read
                || process.node.is_blank()
                || self.machines[member].tainted
                || self.machines[member].wrong.is_some()
            {
                continue;
            }
            let mut found = match process.node.leases() {
                Ok(found) => found,
                Err(why) => return self.fail("V13", format!("member {member} cannot be read: {why}")),
            };
            found.sort_by_key(|(id, _)| *id);
            if found != table {
                let what = format!("member {member} at {applied} has the leases {found:?}, not {table:?}");
                return self.fail("V31", what);
            }
        }
    }

    /// L10, at the end of the calm.
    pub(super) fn check_leases_gone(&mut self) {
        if self.leases.alarms.stands(AlarmKind::Corrupt) {
            return;
        }
        let settled = 6 * SECOND + 2 * self.options.election;
        let grace = 2 * SECOND + self.options.election;
        for member in self.enrolled() {
            let Some(process) = &self.machines[member].process else { continue };
            let Ok(found) = process.node.leases() else { continue };
            for (id, lease) in found {
                let asked = self.leases.asked.get(&id).copied().unwrap_or(START);
                let healed_at = self.leases.healed_at;
                let granted = self.leases.there(id).map_or(healed_at, |life| life.from);
                let begun = (asked + settled).max(granted).max(self.leases.last_election);
                let due = (begun + self.leases.longest(lease.ttl_s)).max(self.leases.kept_until) + grace;
                if self.now > due {
                    let late = self.now.since(due) / MS;
                    let what = format!("member {member} still has lease {id} ({lease:?}), {late} ms late");
                    return self.fail("L10", what);
                }
            }
        }
    }
}
