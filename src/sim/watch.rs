//! What can be seen of the members from outside while they run, and what must hold of it. Each promise has the
//! name under which a failure is reported.
//!
//! - V01: a vote, an acknowledgement, a client's OK claims what is durable at that instant.
//! - V02: one leader in a term. V03: term and vote never go back, over crashes too.
//! - V04: an entry is what its index and term say, everywhere; nothing applied is replaced, and no log by a snapshot of
//!   what it holds.
//! - V05: a new leader has everything that is committed.
//! - V06: the entry at an index, the revision behind it and the state hash are the same wherever they are applied.
//! - V07: what is applied somewhere is durable on a quorum: of the membership in force at its index, or a later one. A
//!   leader commits what earlier terms left with an entry of its own term.
//! - V09: a membership follows from the one before it by its change alone, and every member that has applied it knows
//!   the same of it. A leader begins a change when the one before is committed, and an entry of its own term, and
//!   leaves a joint membership when both halves hold it; a learner that holds nothing is not promoted.
//! - V10: nobody begins to lead as long as another member may serve reads by its lease of an earlier term, by its clock.
//! - V12: the revision never falls while applied entries grow.
//! - V21: who has applied its own removal begins to lead no more.
//!
//! What is durable is known from the completed calls of the log writer. That this knowledge is right is what
//! recovery proves, at every start and in every fork (`forks`).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::options::Options;
use super::plan::Moment;
use super::roster::Roster;
use super::world::World;
use crate::api::{MemberChange, PeerCall};
use crate::base::crc::crc32;
use crate::base::{EntryId, Index, Revision, Term};
use crate::node::{Batch, Outbound};
use crate::raft::{Entry, EntryKind, HardState, MessageBody};

/// A member's log, as far as it was handed to the log writer or is durable.
#[derive(Clone, Debug, Default)]
pub struct Held {
    pub hard_state: HardState,
    /// The entry before the first.
    pub base: EntryId,
    terms: Vec<Term>,
}

impl Held {
    pub fn last(&self) -> EntryId {
        let index = self.base.index + self.terms.len() as u64;
        EntryId::new(self.terms.last().copied().unwrap_or(self.base.term), index)
    }

    /// None: not held, or part of a snapshot.
    pub fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        let at = usize::try_from(index.checked_sub(self.base.index + 1)?).ok()?;
        self.terms.get(at).copied()
    }

    /// The first entry of this term.
    pub fn first_of(&self, term: Term) -> Option<EntryId> {
        let at = self.terms.partition_point(|other| *other < term);
        let index = self.base.index + 1 + at as u64;
        (self.terms.get(at) == Some(&term)).then(|| EntryId::new(term, index))
    }

    /// Whether the entry is held, or something behind it stands for it.
    pub fn covers(&self, id: EntryId) -> bool {
        id.index <= self.base.index || self.term(id.index) == Some(id.term)
    }

    pub fn add(&mut self, batch: &Batch) {
        if let Some(hard_state) = batch.hard_state() {
            self.hard_state = hard_state;
        }
        match batch.behind() {
            Some((id, true)) => (self.base, self.terms) = (id, Vec::new()),
            Some((id, false)) => self.terms.truncate((id.index.saturating_sub(self.base.index)) as usize),
            None => {}
        }
        self.terms.extend(batch.entries().iter().map(|entry| entry.id.term));
    }

    /// Without the entries behind this one.
    pub fn shorten(&mut self, last: Index) {
        self.terms.truncate(last.saturating_sub(self.base.index) as usize);
    }

    /// What recovery found.
    pub fn set(&mut self, hard_state: HardState, base: EntryId, terms: Vec<Term>) {
        *self = Held { hard_state, base, terms };
    }
}

/// What is known of one member.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub handed: Held,
    pub durable: Held,
    /// What it held when it lost its memory. It counted when it was acknowledged.
    pub former: Held,
    /// The tree holds everything up to here, durably: a snapshot was installed.
    pub installed: Index,
    /// What the log writer was doing when its process ended.
    pub broken_off: Vec<Batch>,
    /// The last entry that it was seen to have applied in this life.
    pub applied: Index,
    pub revision: Revision,
}

/// An entry that some member has applied.
#[derive(Clone, Debug)]
pub struct Committed {
    pub term: Term,
    pub crc: u32,
    /// A client's command; empty for entries of the cluster's own.
    pub payload: Bytes,
}

pub struct Watch {
    /// By machine.
    pub seen: Vec<Seen>,
    pub roster: Roster,
    leaders: BTreeMap<Term, usize>,
    /// Every entry ever handed to a log writer: what it holds.
    entries: BTreeMap<(Index, Term), (EntryKind, u32, Bytes)>,
    /// By index, from 1. None: only known to be part of a snapshot.
    pub committed: Vec<Option<Committed>>,
    revisions: BTreeMap<Index, Revision>,
    pub hashes: BTreeMap<Index, u64>,
    pub elections: u64,
    pub claims: u64,
}

impl Watch {
    pub fn new(options: &Options) -> Watch {
        Watch {
            seen: vec![Seen::default(); options.machines() as usize + 1],
            roster: Roster::new(options.members),
            leaders: BTreeMap::new(),
            entries: BTreeMap::new(),
            committed: Vec::new(),
            revisions: BTreeMap::new(),
            hashes: BTreeMap::new(),
            elections: 0,
            claims: 0,
        }
    }

    /// A process has started: what it `found` in its log it has made durable. `applied` is what its tree stands for.
    pub fn begin_life(&mut self, member: usize, found: Option<Held>, applied: EntryId) {
        let seen = &mut self.seen[member];
        if let Some(found) = found {
            (seen.durable, seen.handed) = (found.clone(), found);
            seen.broken_off.clear();
        }
        (seen.applied, seen.revision) = (0, 0);
        if seen.durable.term(applied.index) != Some(applied.term) {
            // A snapshot was installed and the log not told; starting has told it.
            seen.durable.set(seen.durable.hard_state, applied, Vec::new());
            seen.handed = seen.durable.clone();
        }
    }

    /// A process has started without its memory.
    pub fn lose_memory(&mut self, member: usize, held: Held, applied: EntryId) {
        let seen = &mut self.seen[member];
        let former = std::mem::replace(&mut seen.durable, held.clone());
        if former.last() > seen.former.last() {
            seen.former = former;
        }
        seen.handed = held;
        seen.broken_off.clear();
        (seen.installed, seen.applied, seen.revision) = (applied.index, 0, 0);
    }

    pub fn end_life(&mut self, member: usize) {
        let seen = &mut self.seen[member];
        seen.handed = seen.durable.clone();
    }

    pub fn durable(&mut self, member: usize, batches: &[Batch]) {
        for batch in batches {
            self.seen[member].durable.add(batch);
        }
    }

    /// An entry is what its index and term say, wherever it is.
    fn identify(&mut self, entry: &Entry) -> Result<(), String> {
        let Entry { id, kind, payload } = entry;
        let crc = crc32(payload) ^ u32::from(*kind != EntryKind::Normal);
        let new = || (*kind, crc, payload.clone());
        let (_, known, _) = self.entries.entry((id.index, id.term)).or_insert_with(new);
        if *known == crc { Ok(()) } else { Err(format!("entry {id} is not the same everywhere")) }
    }

    fn holds(&self, machine: usize, id: EntryId) -> bool {
        let seen = &self.seen[machine];
        machine != 0 && (seen.durable.covers(id) || seen.former.covers(id) || seen.installed >= id.index)
    }

    /// Whether a quorum holds this entry.
    fn is_backed(&self, id: EntryId) -> bool {
        self.roster.is_quorum(id, |machine| self.holds(machine, id))
    }

    fn is_committed(&self, id: EntryId) -> bool {
        let known = self.committed.get((id.index as usize).wrapping_sub(1));
        known.is_some_and(|known| known.as_ref().is_some_and(|known| known.term == id.term))
    }

    /// Whether this machine's member has led that term or a later one.
    pub fn has_led(&self, machine: usize, term: Term) -> bool {
        self.leaders.range(term..).any(|(_, leader)| *leader == machine)
    }
}

impl World {
    /// After a turn: what is about to be written, who leads, what was applied.
    pub(super) fn observe(&mut self, member: usize, batches: &[Batch]) {
        let Some(process) = &mut self.machines[member].process else { return };
        let (standing, applied) = process.node.standing();
        let (revision, leads) = (process.node.revision(), process.node.leads());
        let removed = process.node.is_removed();
        if leads != process.led {
            process.led = leads;
            process.led_from = standing.commit;
            if leads && removed {
                let what = format!("member {member} begins to lead term {}; it was removed", standing.term);
                self.fail("V21", what);
            }
            let (moment, what) = match leads {
                true => (Moment::LeaderElected, "leads"),
                false => (Moment::SteppedDown, "leads no more"),
            };
            self.trace.line(self.now, member as u64, || format!("{what} in term {}", standing.term));
            self.watch.elections += u64::from(leads);
            self.leases.last_election = self.now;
            if leads {
                self.check_leases(member, standing.term);
            }
            self.moment(moment, member, 0);
        }
        let led_from = self.machines[member].process.as_ref().map_or(0, |process| process.led_from);
        if leads {
            self.note_leader(member, standing.term);
        }
        self.observe_changes(member, batches);
        for batch in batches {
            self.observe_batch(member, batch);
        }
        self.observe_applied(member, applied, revision);
        let own = self.watch.seen[member].handed.first_of(standing.term).filter(|_| leads);
        if own.is_some_and(|own| (led_from + 1..own.index).contains(&standing.commit)) {
            let what = format!("member {member} commits {} without an entry of its term", standing.commit);
            self.fail("V07", what);
        }
        for batch in batches {
            for entry in batch.entries().iter().filter(|entry| entry.kind == EntryKind::Membership) {
                self.check_change(member, entry.id);
            }
        }
        self.observe_notice(member);
        self.observe_mending(member);
    }

    fn check_leases(&mut self, member: usize, term: Term) {
        let leased = |other: &usize| {
            let standing = self.machines[*other].process.as_ref().map(|process| process.node.standing().0);
            standing.is_some_and(|known| known.term < term && known.lease_until > self.local(*other))
        };
        if let Some(other) = self.members().find(|other| *other != member && leased(other)) {
            self.fail("V10", format!("member {member} begins to lead while {other} serves by its lease"));
        }
    }

    fn observe_batch(&mut self, member: usize, batch: &Batch) {
        let seen = &mut self.watch.seen[member];
        if let Some(new) = batch.hard_state() {
            let old = seen.handed.hard_state;
            if new.term < old.term || (new.term == old.term && old.vote != 0 && new.vote != old.vote) {
                self.fail("V03", format!("member {member} goes from {old:?} to {new:?}"));
                return;
            }
        }
        let seen = &mut self.watch.seen[member];
        if let Some((id, false)) = batch.behind()
            && id.index < seen.applied
        {
            let applied = seen.applied;
            self.fail("V04", format!("member {member} cuts its log behind {id}; {applied} is applied"));
            return;
        }
        let first = batch.entries().first().map(|entry| entry.id.index);
        let next = batch.behind().map_or(seen.handed.last().index, |(id, _)| id.index) + 1;
        if let Some(first) = first.filter(|first| *first != next) {
            return self.fail("V04", format!("member {member} writes entry {first} where {next} belongs"));
        }
        if let Some((id, true)) = batch.behind()
            && seen.handed.term(id.index) == Some(id.term)
            && seen.handed.last().index > id.index
        {
            let last = seen.handed.last();
            let what = format!("member {member} replaces its log up to {last} by a snapshot of {id}");
            return self.fail("V04", what);
        }
        seen.handed.add(batch);
        for entry in batch.entries() {
            if let Err(what) = self.watch.identify(entry) {
                return self.fail("V04", format!("member {member}: {what}"));
            }
        }
        // The first entry of a term stands behind everything that is committed.
        if let Some(first) = batch.entries().iter().find(|entry| entry.payload.is_empty())
            && self.leads_in(member, first.id.term)
        {
            self.check_complete(member, first.id);
        }
    }

    /// And not: has led. Whoever lost its log gets the entries of its own old terms from others.
    fn leads_in(&self, member: usize, term: Term) -> bool {
        let process = self.machines[member].process.as_ref();
        process.is_some_and(|process| process.node.leads() && process.node.standing().0.term == term)
    }

    fn check_complete(&mut self, member: usize, first: EntryId) {
        // Whoever stood still over its election may begin to lead a term that is over: what a later leader committed
        // is not asked of it.
        if self.watch.leaders.range(first.term + 1..).next().is_some() {
            return;
        }
        let handed = &self.watch.seen[member].handed;
        for (index, committed) in (1..).zip(&self.watch.committed) {
            let Some(committed) = committed else { continue };
            let id = EntryId::new(committed.term, index);
            if committed.term < first.term && !handed.covers(id) {
                let what = format!("member {member} leads term {} without entry {id}", first.term);
                return self.fail("V05", what);
            }
        }
    }

    fn observe_applied(&mut self, member: usize, applied: EntryId, revision: Revision) {
        let seen = &self.watch.seen[member];
        let (before, had) = (seen.applied, seen.revision);
        if applied.index < before || revision < had {
            let what =
                format!("member {member} goes back from {before} (revision {had}) to {applied} ({revision})");
            return self.fail("V12", what);
        }
        if applied.index == before {
            return;
        }
        if self.watch.committed.len() < applied.index as usize {
            self.watch.committed.resize(applied.index as usize, None);
        }
        for index in before + 1..=applied.index {
            let Some(term) = self.watch.seen[member].handed.term(index) else { continue };
            if index <= self.watch.seen[member].handed.base.index {
                continue;
            }
            self.commit(member, EntryId::new(term, index));
        }
        // On a wrong state a transaction may take another way.
        let known = match self.machines[member].tainted {
            true => revision,
            false => *self.watch.revisions.entry(applied.index).or_insert(revision),
        };
        if known != revision {
            let what =
                format!("behind entry {applied} member {member} is at {revision}, another was at {known}");
            self.fail("V06", what);
        }
        self.observe_state(member, before, applied.index);
        self.watch_leases();
        self.watch_room(member, applied.index);
        self.read_back(member, applied.index);
        let seen = &mut self.watch.seen[member];
        (seen.applied, seen.revision) = (applied.index, revision);
    }

    /// A member has applied this entry.
    fn commit(&mut self, member: usize, id: EntryId) {
        let Some((kind, crc, payload)) = self.watch.entries.get(&(id.index, id.term)) else { return };
        let (kind, crc, payload) = (*kind, *crc, payload.clone());
        let at = id.index as usize - 1;
        match &self.watch.committed[at] {
            Some(known) if (known.term, known.crc) == (id.term, crc) => return,
            Some(known) => {
                let what = format!("member {member} applies {id}; another applied term {} there", known.term);
                return self.fail("V06", what);
            }
            None => {
                let payload = if kind == EntryKind::Normal { payload } else { Bytes::new() };
                self.watch.committed[at] = Some(Committed { term: id.term, crc, payload });
            }
        }
        if kind == EntryKind::Membership {
            if let Err(what) = self.watch.roster.settle(id) {
                return self.fail("V09", what);
            }
            let concerned = self.watch.roster.last_concerned();
            self.moment(Moment::ChangeApplied, member, concerned);
        }
        if !self.watch.is_backed(id) {
            let last = |at: usize| (at, self.watch.holds(at, id), self.watch.seen[at].durable.last());
            let holders: Vec<String> = self
                .members()
                .map(last)
                .map(|(at, holds, last)| format!("{at} {} to {last}", if holds { "yes," } else { "no," }))
                .collect();
            let newest = &self.watch.roster.newest().membership;
            let what = format!(
                "member {member} applies {id}, which is not durable on a quorum ({}); the members are {newest:x?}",
                holders.join("; ")
            );
            self.fail("V07", what);
        }
    }

    /// V02. Looked at after turns, and where an answer between two turns rests on it.
    pub(super) fn note_leader(&mut self, member: usize, term: Term) {
        let leader = *self.watch.leaders.entry(term).or_insert(member);
        if leader != member {
            self.fail("V02", format!("{leader} and {member} both lead term {term}"));
        }
    }

    // ---- Changes of the membership

    /// Those that are in this member's log now, and be it in memory.
    fn observe_changes(&mut self, member: usize, batches: &[Batch]) {
        let process = self.machines[member].process.as_ref().expect("it was just looked at");
        let entries = batches.iter().chain(process.node.unwritten()).flat_map(Batch::entries);
        let new: Vec<Entry> = entries.filter(|entry| entry.kind == EntryKind::Membership).cloned().collect();
        for entry in new {
            match self.watch.roster.begin(&entry) {
                Ok(Some(concerned)) => {
                    let change = self.watch.roster.change(entry.id);
                    self.trace
                        .line(self.now, member as u64, || format!("begins {change:x?} at {}", entry.id));
                    self.moment(Moment::ChangeBegins, member, concerned);
                }
                Ok(None) => {}
                Err(what) => self.fail("V09", what),
            }
        }
    }

    /// A leader has begun the change at `id`: might it?
    fn check_change(&mut self, member: usize, id: EntryId) {
        if !self.leads_in(member, id.term) {
            return;
        }
        let (watch, handed) = (&self.watch, &self.watch.seen[member].handed);
        let wrong = |what: String| Some(format!("member {member} begins the change at {id}, {what}"));
        let before = watch.roster.change_before(id, handed);
        let own = handed.first_of(id.term).filter(|own| own.index < id.index);
        let change = watch.roster.change(id);
        // A leader leaves a joint membership before it has applied it.
        let is_ripe = |before: &EntryId| {
            let leaves = *change == MemberChange::Leave;
            watch.is_committed(*before)
                || (leaves && watch.roster.is_own_quorum(*before, |machine| watch.holds(machine, *before)))
        };
        let promoted = change.steps().iter().filter_map(|step| match step {
            MemberChange::Promote { id } => Some(watch.roster.machine(*id)),
            _ => None,
        });
        // What a disk held before it was damaged is not known.
        let holds_nothing = |of: &usize| {
            let seen = &watch.seen[*of];
            seen.durable.last().index.max(seen.installed) == 0 && !self.machines[*of].tainted
        };
        let what = if let Some(before) = before.filter(|before| !is_ripe(before)) {
            wrong(format!("and that at {before} is not committed"))
        } else if own.is_none_or(|own| !watch.is_backed(own)) {
            wrong("and nothing of its own term is committed".into())
        } else {
            promoted.into_iter().find(holds_nothing).and_then(|it| wrong(format!("and {it} holds nothing")))
        };
        if let Some(what) = what {
            self.fail("V09", what);
        }
    }

    /// What a member knows of the others, when that has changed and when it starts.
    pub(super) fn check_members(&mut self, member: usize) {
        let Some(process) = &self.machines[member].process else { return };
        let node = &process.node;
        let (_, applied) = node.standing();
        if !node.is_blank() && !self.watch.roster.agrees(applied.index, node.members()) {
            let what = format!("member {member} at {applied} knows of {:x?}", node.members());
            self.fail("V09", what);
        }
    }

    /// A message leaves: is what it claims durable?
    pub(super) fn check_claim(&mut self, member: usize, message: &Outbound) {
        let durable = &self.watch.seen[member].durable;
        let (hard_state, last) = (durable.hard_state, durable.last());
        let wrong = match message {
            Outbound::Raft(message) => {
                let term = message.term;
                match message.body {
                    MessageBody::VoteReply { granted: true } => {
                        // Of an earlier term it is old news: the record of that term was durable before this one.
                        let held = hard_state == HardState { term, vote: message.to };
                        (!held && hard_state.term <= term).then_some("a vote")
                    }
                    MessageBody::Vote { .. } => {
                        let held = hard_state == HardState { term, vote: message.from };
                        (!held && hard_state.term <= term).then_some("a campaign")
                    }
                    MessageBody::AppendAccepted { matched, round: 0 } if matched > last.index => {
                        // A snapshot: the tree holds it, and the log is told later.
                        self.watch.claims += 1;
                        return self.fork_installed(member, matched);
                    }
                    MessageBody::AppendAccepted { matched, .. } => {
                        let reached = last.index.max(self.watch.seen[member].installed);
                        // Of an earlier term it is old news: a later leader may have replaced what it spoke of.
                        let held = matched <= reached || hard_state.term > term;
                        (!held || hard_state.term < term).then_some("an acknowledgement")
                    }
                    _ => return,
                }
            }
            Outbound::Call { call: PeerCall::SnapshotAck { installed: true, .. }, .. } => {
                self.watch.claims += 1;
                return self.fork_installed(member, 0);
            }
            Outbound::Call { .. } => return,
        };
        if let Some(claim) = wrong {
            let what =
                format!("member {member} sends {claim} ({message:?}); durable: {hard_state:?}, {last}");
            return self.fail("V01", what);
        }
        self.claimed(member);
    }

    /// A sample of all claims is held against the worst disk.
    pub(super) fn claimed(&mut self, member: usize) {
        self.watch.claims += 1;
        if self.watch.claims.is_multiple_of(self.options.forks) {
            self.fork(member);
        }
    }
}
