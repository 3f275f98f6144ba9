//! What can be seen of the members from outside while they run, and what must hold of it. Each promise has the
//! name under which a failure is reported.
//!
//! - V01: a vote, an acknowledgement, a client's OK claims what is durable at that instant.
//! - V02: one leader in a term. V03: term and vote never go back, over crashes too.
//! - V04: an entry is what its index and term say, everywhere; nothing applied is replaced.
//! - V05: a new leader has everything that is committed.
//! - V06: the entry at an index, and the revision behind it, are the same wherever they are applied.
//! - V07: what is applied somewhere is durable on a majority.
//! - V12: the revision never falls while applied entries grow.
//!
//! What is durable is known from the completed calls of the log writer. That this knowledge is right is what
//! recovery proves, at every start and in every fork (`forks`).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::plan::Moment;
use super::world::World;
use crate::api::PeerCall;
use crate::base::crc::crc32;
use crate::base::{EntryId, Index, MemberId, Revision, Term};
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
    pub payload: Bytes,
}

pub struct Watch {
    pub seen: Vec<Seen>,
    leaders: BTreeMap<Term, MemberId>,
    /// Every entry ever handed to a log writer: what it holds.
    entries: BTreeMap<(Index, Term), (u32, Bytes)>,
    /// By index, from 1. None: only known to be part of a snapshot.
    pub committed: Vec<Option<Committed>>,
    revisions: BTreeMap<Index, Revision>,
    pub elections: u64,
    pub claims: u64,
}

impl Watch {
    pub fn new(members: usize) -> Watch {
        Watch {
            seen: vec![Seen::default(); members + 1],
            leaders: BTreeMap::new(),
            entries: BTreeMap::new(),
            committed: Vec::new(),
            revisions: BTreeMap::new(),
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
        let (known, _) = self.entries.entry((id.index, id.term)).or_insert_with(|| (crc, payload.clone()));
        if *known == crc { Ok(()) } else { Err(format!("entry {id} is not the same everywhere")) }
    }

    fn holders(&self, id: EntryId) -> usize {
        let holds =
            |seen: &&Seen| seen.durable.covers(id) || seen.former.covers(id) || seen.installed >= id.index;
        self.seen[1..].iter().filter(holds).count()
    }
}

impl World {
    /// After a turn: what is about to be written, who leads, what was applied.
    pub(super) fn observe(&mut self, member: usize, batches: &[Batch]) {
        for batch in batches {
            self.observe_batch(member, batch);
        }
        let Some(process) = &mut self.machines[member].process else { return };
        let (standing, applied) = process.node.standing();
        let revision = process.node.revision();
        let leads = standing.leader == member as u64;
        if leads != process.led {
            process.led = leads;
            let (moment, what) = match leads {
                true => (Moment::LeaderElected, "leads"),
                false => (Moment::SteppedDown, "leads no more"),
            };
            self.trace.line(self.now, member as u64, || format!("{what} in term {}", standing.term));
            self.watch.elections += u64::from(leads);
            self.moment(moment, member, 0);
        }
        if leads {
            let leader = *self.watch.leaders.entry(standing.term).or_insert(member as u64);
            if leader != member as u64 {
                self.fail("V02", format!("{leader} and {member} both lead term {}", standing.term));
            }
        }
        self.observe_applied(member, applied, revision);
        self.observe_mending(member);
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
        seen.handed.add(batch);
        for entry in batch.entries() {
            if let Err(what) = self.watch.identify(entry) {
                return self.fail("V04", format!("member {member}: {what}"));
            }
        }
        // The first entry of a term stands behind everything that is committed.
        if let Some(first) = batch.entries().iter().find(|entry| entry.payload.is_empty())
            && self.watch.leaders.get(&first.id.term) == Some(&(member as u64))
        {
            self.check_complete(member, first.id);
        }
    }

    fn check_complete(&mut self, member: usize, first: EntryId) {
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
        let known = *self.watch.revisions.entry(applied.index).or_insert(revision);
        if known != revision {
            let what =
                format!("behind entry {applied} member {member} is at {revision}, another was at {known}");
            self.fail("V06", what);
        }
        let seen = &mut self.watch.seen[member];
        (seen.applied, seen.revision) = (applied.index, revision);
    }

    /// A member has applied this entry.
    fn commit(&mut self, member: usize, id: EntryId) {
        let Some((crc, payload)) = self.watch.entries.get(&(id.index, id.term)) else { return };
        let (crc, payload) = (*crc, payload.clone());
        let at = id.index as usize - 1;
        match &self.watch.committed[at] {
            Some(known) if (known.term, known.crc) == (id.term, crc) => return,
            Some(known) => {
                let what = format!("member {member} applies {id}; another applied term {} there", known.term);
                return self.fail("V06", what);
            }
            None => self.watch.committed[at] = Some(Committed { term: id.term, crc, payload }),
        }
        let holders = self.watch.holders(id);
        if holders < self.majority() {
            let what = format!("member {member} applies {id}, which is durable on {holders} members only");
            self.fail("V07", what);
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
