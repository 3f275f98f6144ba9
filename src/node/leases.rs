//! Leases: what takes a clock.
//!
//! ```text
//!   client --KEEPALIVE--> any member --LeaseAsk--> leader: is it still the leader? begin the lease's time anew
//!                         waits, answers <-------- LeaseAnswer, and the index up to which that is known
//!
//!   leader:  clock (`lease_clock.rs`)  -- due -->  LeaseRevoke in the log  -->  every member applies it
//!            a round every 5 s         --------->  LeaseCheckpoint in the log
//! ```
//!
//! Grants and revocations are writes. Everything else that concerns a lease concerns its time, and only the leader has that:
//! a renewal changes nothing but the leader's clock. What holds:
//!
//! - *A renewal that was answered counts.* The leader answers only as it answers a linearizable read: under its own lease, or
//!   when a quorum has confirmed that it led when the request came. So no later leader had begun then, and each of them
//!   begins the lease's time anew, later than this one did.
//! - *Not early.* A leader gives a lease what the last checkpoint says is left, from the moment on when it finds the lease after
//!   everything of earlier terms is applied. A renewal of a lease of which less than all is noted puts that right in the log
//!   first, and is answered when that is applied. All times are stretched by as much as a clock may be too fast.
//! - *Ended by the log.* A lease whose time is over ends when an entry says so. The entry is valid in the leader's own term only,
//!   and names the lease's generation (`store/lease.rs`). From when it is proposed until it is applied the lease can
//!   not be renewed: whoever tries waits for the outcome.
//! - *Not for ever.* Each round visits all leases and notes what is left of those that lost much since it was last noted. So what
//!   a change of leader adds to a lease is bounded ([`spacing_s`]), and a lease that nobody renews loses time under
//!   every leader that lasts for two rounds.
//!
//! Ends are proposed a few at a time, so that a million leases that end at once delay nobody: an entry holds
//! [`ENTRY_COST_MAX`] leases and keys, unless one lease alone has more keys, and [`ENDS_IN_FLIGHT_MAX`] entries are under way.
//! Nothing is proposed while the leader does not know that it still leads, nor while it hands over.
//!
//! What it costs: a member alone that holds a million leases has 105 MiB of anonymous memory, an empty one 1.5 (`pawl-bench
//! footprint`); 24 bytes of log per lease that is noted; for a renewal a look into the tree and one into the clock.
//!
//! Left out: a lease with very many keys ends in one entry, whole, because it is one revision; a list of all leases, or of all
//! keys of one, is made in one turn. A leader that hands over does not note what is left before it goes.

use std::collections::{BTreeMap, BTreeSet};

use super::lease_clock::LeaseClock;
use super::reads::{LeaseQuestion, Question};
use super::writes::Asker;
use super::{Config, Node, Outbound, RETRY};
use crate::api::{
    AlarmKind, Body, Command, ConnId, Fault, LeaseAnswer, LeaseRef, LeaseRequest, LeaseTime, LeaseWant,
    Origin, PeerCall, Tag, command,
};
use crate::base::planted;
use crate::base::time::{MS, Nanos, SECOND};
use crate::base::{Index, LeaseId, MemberId, Mono, Result, Rng, Term};
use crate::io::Disk;
use crate::store::{Lease, Store};

/// How far the rate of a clock may be off, in thousandths: as in `raft::Config`.
const DRIFT_PERMILLE: u64 = 20;

/// Leases that are visited in one turn, and noted in one entry: half a millisecond of work.
const SLICE_LEASES: usize = 512;

/// Between two slices of a round: a million leases are visited in a minute.
const SLICE_PAUSE: Nanos = 25 * MS;

/// From the beginning of a round to that of the next.
const ROUND: Nanos = 5 * SECOND;

/// What a lease loses before that is noted.
const SPACING_S_MIN: u64 = 5;
const SPACING_S_MAX: u64 = 300;

/// Leases and their keys that one entry ends: a millisecond of work.
const ENTRY_COST_MAX: usize = 128;

/// Such entries that may be in the log and not applied.
const ENDS_IN_FLIGHT_MAX: usize = 4;

/// Questions of members that may wait here; beyond it they are told to ask again.
const QUESTIONS_MAX: usize = 4_096;

/// What a member knows of leases beside the store.
#[derive(Debug)]
pub(super) struct Leases {
    /// While this member leads, and has applied what earlier terms left.
    reign: Option<Reign>,
    /// What members, this one among them, ask it as the leader: by the id of the read index that goes with it.
    questions: BTreeMap<u64, Asked>,
    /// For ids that nobody chose.
    dice: Rng,
}

#[derive(Debug)]
struct Asked {
    by: MemberId,
    /// The asker's number.
    id: u64,
    wants: Vec<LeaseWant>,
    /// What must be applied first; None until it is known.
    index: Option<Index>,
}

/// The time of leases, in one term.
#[derive(Debug)]
struct Reign {
    term: Term,
    clock: LeaseClock,
    round: Round,
    /// When all leases were found.
    found_all_at: Mono,
    /// Their ends are in the log, in so many entries.
    ending: BTreeSet<LeaseId>,
    ends_in_flight: usize,
    /// What they have left is in the log.
    noting: BTreeSet<LeaseId>,
    /// Renewed, though less than all is noted.
    renewed: BTreeMap<LeaseId, (LeaseRef, u64)>,
    /// The log took nothing; not before this time again.
    retry_at: Mono,
}

/// All leases are visited, a slice at a time. The first round puts them on the clock.
#[derive(Debug)]
struct Round {
    is_first: bool,
    begun_at: Mono,
    after: Option<LeaseId>,
    next_at: Mono,
}

impl Leases {
    pub(super) fn new(dice: Rng) -> Leases {
        Leases { reign: None, questions: BTreeMap::new(), dice }
    }
}

impl Reign {
    fn new(term: Term, now: Mono) -> Reign {
        Reign {
            term,
            clock: LeaseClock::new(now),
            round: Round { is_first: true, begun_at: now, after: None, next_at: now },
            found_all_at: Mono::NEVER,
            ending: BTreeSet::new(),
            ends_in_flight: 0,
            noting: BTreeSet::new(),
            renewed: BTreeMap::new(),
            retry_at: Mono(0),
        }
    }

    /// Found by a round, or by somebody who asks for it before.
    fn find(&mut self, id: LeaseId, lease: &Lease, now: Mono) -> Mono {
        let left_s =
            if planted::on("node-new-leader-forgets-what-is-left") { lease.ttl_s } else { lease.remaining_s };
        self.clock.end(id).unwrap_or_else(|| {
            let end = now + stretched(left_s);
            self.clock.set(id, end);
            end
        })
    }

    /// Whether what the lease has left must be noted, and how much that is.
    fn to_note(&self, id: LeaseId, lease: &Lease, now: Mono) -> Option<u64> {
        let end = self.clock.end(id)?;
        if self.ending.contains(&id) || self.noting.contains(&id) {
            return None;
        }
        let left_s = seconds_left(end, now).div_ceil(SECOND).max(1);
        let was_renewed = end > self.found_all_at + stretched(lease.remaining_s);
        let lost_s = lease.remaining_s.saturating_sub(left_s);
        (lost_s >= spacing_s(lease, was_renewed)).then_some(left_s)
    }

    /// What became of a lease that a member wants something of. `Err`: it waits for the log.
    fn tell(
        &mut self,
        want: &LeaseWant,
        lease: Option<Lease>,
        now: Mono,
    ) -> Result<Option<LeaseTime>, WaitsForLog> {
        if want.renew && self.ending.contains(&want.id) {
            return Err(WaitsForLog);
        }
        let Some(lease) = lease else { return Ok(None) };
        let granted_s = lease.ttl_s;
        if !want.renew {
            let remaining_s = seconds_left(self.find(want.id, &lease, now), now) / SECOND;
            return Ok(Some(LeaseTime { granted_s, remaining_s }));
        }
        self.clock.set(want.id, now + stretched(granted_s));
        let is_noted = lease.remaining_s < granted_s && !planted::on("node-renewal-leaves-the-checkpoint");
        if is_noted && !self.noting.contains(&want.id) {
            let lease = LeaseRef { id: want.id, generation: lease.generation };
            self.renewed.insert(want.id, (lease, granted_s));
        }
        if is_noted || self.noting.contains(&want.id) {
            return Err(WaitsForLog);
        }
        Ok(Some(LeaseTime { granted_s, remaining_s: granted_s }))
    }

    /// When a turn has something to do. `may_end`: ends can be proposed.
    fn deadline(&self, may_end: bool) -> Mono {
        let ends = may_end && self.ends_in_flight < ENDS_IN_FLIGHT_MAX;
        let next = if ends { self.clock.next() } else { Mono::NEVER };
        let renewed = if self.renewed.is_empty() { Mono::NEVER } else { Mono(0) };
        self.round.next_at.min(next.min(renewed).max(self.retry_at))
    }
}

struct WaitsForLog;

/// Whoever led before does not know what was renewed since.
fn forgets() -> bool {
    !planted::on("node-leader-goes-on-with-its-old-clock")
}

/// For this member's clock, which may be too fast.
fn stretched(seconds: u64) -> Nanos {
    let nanos = seconds.saturating_mul(SECOND);
    let drift = if planted::on("node-leases-trust-the-clock") { 0 } else { DRIFT_PERMILLE };
    nanos.saturating_add(nanos / 1_000 * drift)
}

/// The inverse, as nanoseconds: what everybody may count on.
fn seconds_left(end: Mono, now: Mono) -> Nanos {
    end.since(now) / (1_000 + DRIFT_PERMILLE) * 1_000
}

/// How much a lease must have lost since that was last noted. One that is renewed in time is never noted: clients renew
/// after a third of the TTL. Of others it is an eighth of what was left.
fn spacing_s(lease: &Lease, was_renewed: bool) -> u64 {
    let part =
        if was_renewed && lease.remaining_s == lease.ttl_s { lease.ttl_s / 2 } else { lease.remaining_s / 8 };
    part.clamp(SPACING_S_MIN, SPACING_S_MAX)
}

/// The least TTL that a member grants, in etcd's arithmetic: one and a half election timeouts, in whole heartbeats.
pub(super) fn ttl_s_min(config: &Config) -> u64 {
    let ticks = config.election_timeout / config.heartbeat_interval;
    (3 * ticks / 2 * config.heartbeat_interval).div_ceil(SECOND)
}

impl<D: Disk> Node<D> {
    // ---- Requests of clients

    pub(super) fn on_lease_request(
        &mut self,
        conn: ConnId,
        tag: Tag,
        request: LeaseRequest,
        deadline: Mono,
        now: Mono,
    ) {
        let command = match request {
            LeaseRequest::Grant { .. } if self.is_full() => return self.fail(conn, tag, Fault::no_space()),
            LeaseRequest::Revoke { .. } if self.log_is_full() => {
                return self.fail(conn, tag, Fault::no_space());
            }
            LeaseRequest::Grant { mut id, ttl_s } => {
                while id == 0 {
                    id = (self.leases.dice.next_u64() >> 1).cast_signed();
                }
                let ttl_s = u64::try_from(ttl_s).unwrap_or(0).max(ttl_s_min(&self.config));
                Command::LeaseGrant { id, ttl_s }
            }
            LeaseRequest::Revoke { id } => {
                Command::LeaseRevoke { term: 0, leases: vec![LeaseRef { id, generation: 0 }] }
            }
            asked => {
                let question = LeaseQuestion::new(asked);
                return self.ask_about_lease(conn, tag, question, deadline, now);
            }
        };
        self.write(Asker::Client { conn, tag }, &command, deadline);
    }

    /// What a leader knows of itself it answers at once.
    fn ask_about_lease(
        &mut self,
        conn: ConnId,
        tag: Tag,
        mut question: LeaseQuestion,
        deadline: Mono,
        now: Mono,
    ) {
        let leads = self.may_read_now(conn, false, now)
            || (planted::on("node-lease-renewed-by-a-former-leader") && !self.reads.waits(conn));
        if leads && self.reigns() {
            match self.tell(&question.wants(), now) {
                Ok(Some(told)) => {
                    question.told = told;
                    return self.answer_lease(conn, tag, &question);
                }
                Ok(None) => {}
                Err(damage) => return self.fail_for_damage(conn, tag, damage),
            }
        }
        self.wait_to_read(conn, tag, Question::Lease(question), deadline);
    }

    /// From what the leader has told, and this member's state, which is no older.
    pub(super) fn answer_lease(&mut self, conn: ConnId, tag: Tag, question: &LeaseQuestion) {
        match lease_answer(&self.store, question) {
            Ok(answer) => self.reply(conn, tag, Body::Lease(answer)),
            Err(damage) => self.fail_for_damage(conn, tag, damage),
        }
    }

    /// Sends what this member's clients want of leases to the leader.
    pub(super) fn ask_leader_about_leases(&mut self) {
        let leader = self.raft.standing().leader;
        if leader == 0 {
            return;
        }
        while let Some((id, wants)) =
            self.reads.ask_about_leases(self.now, |write| self.writes.is_open(write))
        {
            if leader == self.id {
                self.on_lease_ask(self.id, id, wants, self.now);
            } else {
                let call = PeerCall::LeaseAsk { id, wants };
                self.output.messages.push(Outbound::Call { to: leader, call });
            }
        }
    }

    // ---- The leader's part

    /// A member asks this one as the leader.
    pub(super) fn on_lease_ask(&mut self, by: MemberId, id: u64, wants: Vec<LeaseWant>, now: Mono) {
        let read = self.reads.take_id();
        if self.leases.questions.len() >= QUESTIONS_MAX || self.raft.read_index(read, now).is_err() {
            return self.tell_asker(by, id, None);
        }
        self.leases.questions.insert(read, Asked { by, id, wants, index: None });
    }

    /// What must be applied before the question that goes with this read index is answered; None: this member does not lead.
    /// False if there is no such question.
    pub(super) fn lease_question_confirmed(&mut self, read: u64, index: Option<Index>) -> bool {
        let Some(asked) = self.leases.questions.get_mut(&read) else { return false };
        asked.index = index;
        if index.is_none() {
            let Asked { by, id, .. } = self.leases.questions.remove(&read).expect("it was just seen");
            self.tell_asker(by, id, None);
        }
        true
    }

    fn tell_asker(&mut self, by: MemberId, id: u64, answer: Option<(Index, Vec<Option<LeaseTime>>)>) {
        if by == self.id {
            self.on_lease_answer(id, answer, self.now);
        } else {
            let call = PeerCall::LeaseAnswer { id, answer };
            self.output.messages.push(Outbound::Call { to: by, call });
        }
    }

    /// The leader has answered.
    pub(super) fn on_lease_answer(
        &mut self,
        id: u64,
        answer: Option<(Index, Vec<Option<LeaseTime>>)>,
        now: Mono,
    ) {
        match answer {
            Some((index, told)) => self.reads.told(id, index, told, now + RETRY),
            None => self.reads.answered(id, None, now + RETRY),
        }
    }

    /// Leads, and what it leads with is applied.
    fn reigns(&self) -> bool {
        self.leases.reign.as_ref().is_some_and(|reign| reign.term == self.raft.standing().term)
    }

    /// What became of each; None as long as one of them waits for the log.
    fn tell(&mut self, wants: &[LeaseWant], now: Mono) -> Result<Option<Vec<Option<LeaseTime>>>> {
        let Node { store, leases, tally, .. } = self;
        let reign = leases.reign.as_mut().expect("the caller has seen it");
        let mut told = Vec::with_capacity(wants.len());
        for want in wants {
            let answer = reign.tell(want, store.lease(want.id)?, now).ok();
            tally.counts.leases_renewed += u64::from(want.renew && matches!(answer, Some(Some(_))));
            told.extend(answer);
        }
        Ok((told.len() == wants.len()).then_some(told))
    }

    /// A command that concerns leases was applied.
    pub(super) fn note_lease_command(&mut self, command: &Command, body: &Body) -> Result<()> {
        let Node { store, now, leases: Leases { reign: Some(reign), .. }, .. } = self else { return Ok(()) };
        match (command, body) {
            (Command::LeaseGrant { .. }, Body::Lease(LeaseAnswer::Granted { id, ttl_s })) => {
                reign.clock.set(*id, *now + stretched(*ttl_s));
            }
            (Command::LeaseRevoke { term, leases }, _) => {
                let is_own = *term == reign.term;
                reign.ends_in_flight -= usize::from(is_own);
                for LeaseRef { id, generation } in leases {
                    if is_own {
                        reign.ending.remove(id);
                    }
                    match store.lease(*id)? {
                        None => reign.clock.remove(*id),
                        // An alarm refused it: it is due as it was.
                        Some(lease) if is_own && lease.generation == *generation => {
                            if !planted::on("node-refused-end-is-forgotten") {
                                reign.clock.set(*id, *now);
                            }
                        }
                        Some(_) => {}
                    }
                }
            }
            (Command::LeaseCheckpoint { term, leases }, _) if *term == reign.term => {
                for (lease, _) in leases {
                    reign.noting.remove(&lease.id);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The turn's part: who leads looks after the leases.
    pub(super) fn keep_leases(&mut self) -> Result<()> {
        let standing = self.raft.standing();
        if standing.leader != self.id {
            if forgets() {
                self.leases.reign = None;
            }
            for (_, Asked { by, id, .. }) in std::mem::take(&mut self.leases.questions) {
                self.tell_asker(by, id, None);
            }
            return Ok(());
        }
        if self.applied_term != standing.term {
            return Ok(());
        }
        if !self.reigns() {
            let (term, former) = (standing.term, self.leases.reign.take().filter(|_| !forgets()));
            let reign = former.map(|former| Reign { term, ..former });
            self.leases.reign = Some(reign.unwrap_or_else(|| Reign::new(term, self.now)));
        }
        self.visit_leases()?;
        self.answer_lease_questions()?;
        self.note_renewed();
        self.end_leases()
    }

    /// A slice of the round.
    fn visit_leases(&mut self) -> Result<()> {
        let Node { store, now, leases: Leases { reign: Some(reign), .. }, .. } = self else { return Ok(()) };
        if *now < reign.round.next_at {
            return Ok(());
        }
        let slice = store.leases(reign.round.after, SLICE_LEASES)?;
        let mut noted = Vec::new();
        for (id, lease) in &slice {
            if reign.round.is_first {
                reign.find(*id, lease, *now);
            } else if let Some(left_s) = reign.to_note(*id, lease, *now) {
                noted.push((LeaseRef { id: *id, generation: lease.generation }, left_s));
            }
        }
        let Round { is_first, begun_at, after, next_at } = &mut reign.round;
        *after = slice.last().map(|(id, _)| *id).filter(|_| slice.len() == SLICE_LEASES);
        if after.is_some() {
            *next_at = if *is_first { *now } else { *now + SLICE_PAUSE };
        } else {
            if *is_first {
                reign.found_all_at = *now;
            }
            *begun_at = (*begun_at + ROUND).max(*now);
            (*is_first, *next_at) = (false, *begun_at);
        }
        self.note(noted);
        Ok(())
    }

    fn answer_lease_questions(&mut self) -> Result<()> {
        let applied = self.store.applied().index;
        let is_due = |_: &u64, asked: &mut Asked| asked.index.is_some_and(|index| index <= applied);
        let due: Vec<(u64, Asked)> = self.leases.questions.extract_if(.., is_due).collect();
        for (read, asked) in due {
            match self.tell(&asked.wants, self.now)? {
                Some(told) => self.tell_asker(asked.by, asked.id, Some((applied, told))),
                None => drop(self.leases.questions.insert(read, asked)),
            }
        }
        Ok(())
    }

    fn note_renewed(&mut self) {
        let Some(reign) = &mut self.leases.reign else { return };
        if self.now < reign.retry_at {
            return;
        }
        let renewed: Vec<_> = std::mem::take(&mut reign.renewed).into_values().collect();
        for part in renewed.chunks(SLICE_LEASES) {
            self.note(part.to_vec());
        }
    }

    /// Writes down what leases have left.
    fn note(&mut self, leases: Vec<(LeaseRef, u64)>) {
        let is_nothing = leases.is_empty() || planted::on("node-what-is-left-is-not-noted");
        let Some(term) = self.leases.reign.as_ref().map(|reign| reign.term).filter(|_| !is_nothing) else {
            return;
        };
        let ids: Vec<LeaseId> = leases.iter().map(|(lease, _)| lease.id).collect();
        if self.propose_for_leases(&Command::LeaseCheckpoint { term, leases }) {
            self.leases.reign.as_mut().expect("it was just seen").noting.extend(ids);
        }
    }

    /// Whether a leader may end leases: it knows that it still leads (or does not rely on clocks for that), and goes on to; and
    /// no alarm would refuse it.
    fn may_end_leases(&self) -> bool {
        let standing = self.raft.standing();
        let is_sure = standing.lease_until == Mono(0)
            || self.now < standing.lease_until
            || self.raft.membership().is_only_voter(self.id);
        let is_refused = self.store.is_alarmed(AlarmKind::Corrupt);
        is_sure && !self.raft.transferring() && !self.log_is_full() && !is_refused
    }

    fn end_leases(&mut self) -> Result<()> {
        while self.may_end_leases() {
            let Node { store, now, leases: Leases { reign: Some(reign), .. }, .. } = self else {
                return Ok(());
            };
            if *now < reign.retry_at || reign.ends_in_flight == ENDS_IN_FLIGHT_MAX {
                return Ok(());
            }
            reign.clock.turn(*now, SLICE_LEASES);
            let (term, leases) = (reign.term, ended(store, &reign.clock)?);
            if leases.is_empty() {
                return Ok(());
            }
            let ids: Vec<LeaseId> = leases.iter().map(|lease| lease.id).collect();
            if self.propose_for_leases(&Command::LeaseRevoke { term, leases }) {
                let reign = self.leases.reign.as_mut().expect("it was just seen");
                reign.ends_in_flight += 1;
                ids.iter().for_each(|id| reign.clock.stop(*id));
                reign.ending.extend(ids);
            }
        }
        Ok(())
    }

    /// As the leader of this term, and of no other: it is not sent again.
    fn propose_for_leases(&mut self, command: &Command) -> bool {
        command::encode(Origin::default(), command, &mut self.payloads);
        let payload = self.payloads.split().freeze();
        let took = !self.log_is_full() && self.raft.propose(vec![payload], self.now, &self.log).is_ok();
        if let Some(reign) = self.leases.reign.as_mut().filter(|_| !took) {
            reign.retry_at = self.now + RETRY;
        }
        took
    }

    pub(super) fn leases_deadline(&self) -> Mono {
        let reign = self.leases.reign.as_ref().filter(|_| self.reigns());
        reign.map_or(Mono::NEVER, |reign| reign.deadline(self.may_end_leases()))
    }

    /// Every lease that this member's state has: for checks beside the protocol.
    pub fn leases(&self) -> Result<Vec<(LeaseId, Lease)>> {
        self.store.leases(None, usize::MAX)
    }
}

/// The leases that an entry is to end: as many as it may hold.
fn ended<D: Disk>(store: &Store<D>, clock: &LeaseClock) -> Result<Vec<LeaseRef>> {
    let (mut leases, mut cost) = (Vec::new(), 0);
    for id in clock.due() {
        cost += 1 + store.lease_key_count(id, ENTRY_COST_MAX)?;
        if cost > ENTRY_COST_MAX && !leases.is_empty() {
            break;
        }
        let lease = store.lease(id)?.expect("the clock has leases that are there");
        leases.push(LeaseRef { id, generation: lease.generation });
    }
    Ok(leases)
}

fn lease_answer<D: Disk>(store: &Store<D>, question: &LeaseQuestion) -> Result<LeaseAnswer> {
    let told = || question.told.iter().copied();
    Ok(match question.asked {
        LeaseRequest::KeepAlive { .. } => {
            LeaseAnswer::Kept(told().map(|time| time.map_or(0, |time| time.granted_s)).collect())
        }
        LeaseRequest::TimeToLive { id, keys } => {
            // It may have ended since.
            let time = if store.lease(id)?.is_some() { told().next().flatten() } else { None };
            let keys = match time {
                Some(_) if keys => store.lease_keys(id, usize::MAX)?,
                _ => Vec::new(),
            };
            LeaseAnswer::TimeToLive { id, time, keys }
        }
        _ => LeaseAnswer::List(store.leases(None, usize::MAX)?.into_iter().map(|(id, _)| id).collect()),
    })
}
