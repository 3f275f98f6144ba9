//! The core's outer face: events in, [`Ready`] out.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::base::planted;
use crate::base::time::Nanos;
use crate::base::{EntryId, Index, MemberId, Mono, Rng, Term};

use super::candidate::Ballots;
use super::config::{ChangeRefused, Config, PeerStanding, Refused, Role, Start, TransferRefused};
use super::follower::Ack;
use super::leader::Leader;
use super::log::Log;
use super::membership::{Change, History};
use super::recovery::Recovery;
use super::types::{
    Entry, EntryKind, HardState, LogGap, LogView, Membership, Message, MessageBody, ReadReady, Ready,
    Standing,
};

/// Terms and indexes beyond this are nonsense, and refusing them keeps sums from overflowing. A million
/// entries a second reach it in 146,000 years.
const NUMBER_MAX: u64 = 1 << 62;

/// Payload bytes of the log that are looked through at once at the start.
const READ_BYTES: usize = 1 << 20;

/// One member's consensus state. See the module's essay, and [`Ready`] for the contract with the shell.
///
/// `now` must be read after the bytes of the message or request that is handed in with it: the promises of a
/// lease are counted from it.
#[derive(Clone)]
pub struct Raft {
    pub(super) common: Common,
    pub(super) role: RoleState,
    /// When to campaign unless a leader is heard (not before the promise has run out).
    pub(super) election_at: Mono,
    /// Campaigns since a leader was last expected to be heard: while they are few, their waits are short.
    pub(super) eager_tries: Option<u32>,
    /// Pre-vote requests that only the promise stands against; answered when it has run out.
    pub(super) deferred: Vec<Message>,
}

/// What every role needs.
#[derive(Clone)]
pub(super) struct Common {
    pub config: Config,
    pub history: History,
    pub term: Term,
    pub vote: MemberId,
    /// 0: none is known.
    pub leader: MemberId,
    pub log: Log,
    pub rng: Rng,
    /// The latest time that was told; a clock that went back is held here.
    pub now: Mono,
    /// Until then this member helps nobody to lead, itself included: a leader may rest its lease on it.
    pub promise_until: Mono,
    /// For how long others promise to elect nobody, where they said so: their settings may differ from ours.
    pub promises: BTreeMap<MemberId, Nanos>,
    /// The last round of the last leadership here. Rounds never repeat within a process.
    pub last_round: u64,
    pub out: Outbox,
    /// The last write that the shell was given.
    number: u64,
    hard_state_given: HardState,
    hard_state_durable: HardState,
    /// A read of committed entries waits for the disk.
    fetching: bool,
    /// This member lost its memory and is not whole yet.
    pub recovery: Option<Recovery>,
}

/// What the next Ready will carry.
#[derive(Clone, Default)]
pub(super) struct Outbox {
    pub now: Vec<Message>,
    pub after: Vec<Message>,
    pub ack: Option<Ack>,
    pub reads: Vec<ReadReady>,
    pub snapshots: Vec<(MemberId, Index)>,
}

#[derive(Clone)]
pub(super) enum RoleState {
    Follower,
    PreCandidate(Ballots),
    Candidate(Ballots),
    Leader(Box<Leader>),
}

impl Common {
    fn advance(&mut self, now: Mono) {
        self.now = self.now.max(now);
    }

    /// The membership that counts now.
    pub fn membership(&self) -> &Membership {
        self.history.effective()
    }

    /// This member is a voter by a membership that is, or may still be, in force (rule 13).
    pub fn may_campaign(&self) -> bool {
        self.recovery.is_none()
            && self.history.possible().any(|membership| membership.is_voter(self.config.id))
    }

    pub fn append(&mut self, entry: Entry) {
        self.history.appended(&entry);
        self.log.append(entry);
    }

    pub fn truncate(&mut self, from: Index, view: &impl LogView) {
        self.log.truncate(from, view);
        if !breaks!(self.config, KeptMembership) && !planted::on("raft-replaced-membership-kept") {
            self.history.truncated(from);
        }
    }

    pub fn commit_to(&mut self, index: Index) {
        self.log.commit_to(index);
        self.history.committed(self.log.commit());
    }

    pub fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote }
    }

    /// Whether the present term and vote would survive a crash.
    pub fn is_hard_state_durable(&self) -> bool {
        self.hard_state_durable == self.hard_state()
    }

    fn message(&self, to: MemberId, term: Term, body: MessageBody) -> Message {
        Message { from: self.config.id, to, term, body }
    }

    /// For what claims no durability that is not there.
    pub fn send_now(&mut self, to: MemberId, body: MessageBody) {
        let message = self.message(to, self.term, body);
        self.out.now.push(message);
    }

    /// Pre-votes travel under the term that would be.
    pub fn send_now_as(&mut self, to: MemberId, term: Term, body: MessageBody) {
        let message = self.message(to, term, body);
        self.out.now.push(message);
    }

    /// For what rests on this turn's writes.
    pub fn send_after(&mut self, to: MemberId, body: MessageBody) {
        let message = self.message(to, self.term, body);
        self.out.after.push(message);
    }

    /// Between one and two election timeouts.
    pub fn patience(&mut self) -> Nanos {
        let timeout = self.config.election_timeout;
        timeout + self.rng.below(timeout)
    }
}

impl Raft {
    /// A follower with the state that survived. Everything that `log` holds must be durable.
    ///
    /// It votes for nobody for one lease, the longest that it may have promised: it may have done that just before it
    /// went down. A member whose term is still 0 never answered a leader (an answer leaves after the term is durable), so it owes nothing;
    /// nor does one that always was the only voter. (One that is alone since the leader removed itself may have
    /// answered that leader just before.)
    pub fn new(config: Config, start: Start, log: &impl LogView, now: Mono) -> Raft {
        if let Err(why) = config.check() {
            panic!("the settings were checked before the core was made: {why}");
        }
        let Start { hard_state, membership, applied, memory, promised, solitary } = start;
        assert!(
            membership.all().len() <= crate::base::limits::MEMBERS_MAX,
            "a cluster has at most {} members",
            crate::base::limits::MEMBERS_MAX
        );
        let tail = Log::new(applied, log);
        assert!(
            tail.last().term <= hard_state.term,
            "the log's last entry {} is of a term that was never recorded (term {})",
            tail.last(),
            hard_state.term
        );
        let history = read_history(applied.index, membership, log);
        let alone = solitary && history.possible().all(|membership| membership.is_only_voter(config.id));
        let owes_nothing = hard_state.term == 0 || alone || breaks!(config, ForgottenPromise);
        let mut rng = Rng::new(config.seed);
        let recovery = Recovery::new(memory, &mut rng, now);
        let common = Common {
            term: hard_state.term,
            vote: hard_state.vote,
            leader: 0,
            log: tail,
            rng,
            now,
            promise_until: if owes_nothing || planted::on("raft-vote-right-after-restart") {
                Mono(0)
            } else {
                now + config.lease.max(promised)
            },
            promises: BTreeMap::new(),
            last_round: 0,
            out: Outbox::default(),
            number: 0,
            hard_state_given: hard_state,
            hard_state_durable: hard_state,
            fetching: false,
            recovery,
            config,
            history,
        };
        let mut raft = Raft {
            common,
            role: RoleState::Follower,
            election_at: now,
            eager_tries: Some(0),
            deferred: Vec::new(),
        };
        if !alone {
            raft.retry_soon();
        }
        raft
    }

    // ---- Events

    /// A message from another member. Whatever it says, it is checked first and never panics.
    pub fn step(&mut self, message: Message, now: Mono, log: &impl LogView) {
        self.common.advance(now);
        if !self.is_sound(&message) {
            return;
        }
        let Message { from, term, body, .. } = message;
        match body {
            MessageBody::Inquire { life } => return self.on_inquire(from, life),
            MessageBody::Inquired { life, memory, last } => {
                return self.on_inquired(from, term, life, memory, last);
            }
            _ if self.is_lost() => return,
            MessageBody::PreVote { last } => return self.on_pre_vote(from, term, last, log),
            MessageBody::PreVoteReply { granted: true } => return self.on_pre_vote_granted(from, term, log),
            MessageBody::PreVoteReply { granted: false } if term <= self.common.term => {
                return self.on_pre_vote_denied(from, log);
            }
            MessageBody::Vote { transfer, .. } if term > self.common.term && !self.may_elect(transfer) => {
                return;
            }
            MessageBody::Vote { .. } if term < self.common.term => {
                return self.common.send_after(from, MessageBody::VoteReply { granted: false });
            }
            MessageBody::Append { previous, .. } if term < self.common.term => {
                return self.reject_old_leader(from, previous);
            }
            _ if term < self.common.term => return,
            // What a stranger answers may be out of a past in which it was a member.
            MessageBody::AppendAccepted { .. }
            | MessageBody::AppendRejected { .. }
            | MessageBody::VoteReply { .. }
            | MessageBody::PreVoteReply { .. }
            | MessageBody::Forgot
                if term > self.common.term && !self.common.membership().contains(from) =>
            {
                return;
            }
            MessageBody::Forgot if term > self.common.term => return self.on_forgot(term),
            _ if term > self.common.term => self.adopt_term(term),
            _ => {}
        }
        match body {
            MessageBody::Vote { last, transfer } => self.on_vote(from, last, transfer),
            MessageBody::VoteReply { granted } => self.on_vote_reply(from, granted, log),
            MessageBody::Append { previous, entries, commit, round } => {
                self.on_append(from, previous, entries, commit, round, log);
            }
            MessageBody::AppendAccepted { matched, round } => {
                if let RoleState::Leader(leader) = &mut self.role {
                    leader.on_accepted(&self.common, from, matched, round, log);
                }
            }
            MessageBody::AppendRejected { previous, hint, round, .. } => {
                if let RoleState::Leader(leader) = &mut self.role {
                    leader.on_rejected(&self.common, from, previous, hint, round, log);
                }
            }
            MessageBody::TimeoutNow => self.on_timeout_now(from),
            MessageBody::PreVote { .. }
            | MessageBody::PreVoteReply { .. }
            | MessageBody::Inquire { .. }
            | MessageBody::Inquired { .. }
            | MessageBody::Forgot => {}
        }
    }

    /// The gate: what passes is inside the ranges that everything behind it relies on.
    fn is_sound(&self, message: &Message) -> bool {
        let addressed =
            message.to == self.common.config.id && message.from != message.to && message.from != 0;
        let id_fits = |id: &EntryId| {
            id.index < NUMBER_MAX && id.term <= message.term && (id.index == 0) == (id.term == 0)
        };
        let body_fits = match &message.body {
            MessageBody::PreVote { last } | MessageBody::Vote { last, .. } => id_fits(last),
            MessageBody::Append { previous, entries, .. } => {
                let mut before = *previous;
                id_fits(previous)
                    && entries.iter().all(|entry| {
                        let follows = entry.id.index == before.index + 1 && entry.id.term >= before.term;
                        before = entry.id;
                        let readable =
                            entry.kind == EntryKind::Normal || Membership::decode(&entry.payload).is_ok();
                        follows && readable && id_fits(&entry.id)
                    })
            }
            MessageBody::AppendAccepted { matched, .. } => *matched < NUMBER_MAX,
            MessageBody::AppendRejected { previous, hint, .. } => {
                *previous < NUMBER_MAX && hint.index < NUMBER_MAX
            }
            // A member that was never in a term may say so.
            MessageBody::PreVoteReply { granted: false } => return addressed && message.term < NUMBER_MAX,
            // Nor had a member that forgot its term one to say.
            MessageBody::Inquire { .. } => return addressed && message.term < NUMBER_MAX,
            MessageBody::Inquired { last, .. } => {
                return addressed && message.term < NUMBER_MAX && id_fits(last);
            }
            MessageBody::PreVoteReply { .. }
            | MessageBody::VoteReply { .. }
            | MessageBody::TimeoutNow
            | MessageBody::Forgot => true,
        };
        addressed && message.term > 0 && message.term < NUMBER_MAX && body_fits
    }

    /// Time has passed. Messages that have arrived are to be stepped before: after a stall they may show that
    /// nothing is late.
    pub fn tick(&mut self, now: Mono, log: &impl LogView) {
        self.common.advance(now);
        if let RoleState::Leader(leader) = &mut self.role {
            if !leader.tick(&self.common) {
                self.become_follower(0);
            }
            return;
        }
        self.tick_recovery();
        self.answer_deferred(log);
        if self.common.now >= self.campaign_at() {
            self.campaign(log);
        }
    }

    /// When `tick` is needed next.
    pub fn deadline(&self) -> Mono {
        match &self.role {
            RoleState::Leader(leader) => leader.deadline(&self.common),
            _ if self.forgot() => self.recovery_deadline(),
            _ if self.deferred.is_empty() => self.campaign_at(),
            _ => self.campaign_at().min(self.common.promise_until),
        }
    }

    fn campaign_at(&self) -> Mono {
        if self.common.may_campaign() { self.election_at.max(self.common.promise_until) } else { Mono::NEVER }
    }

    /// All of the payloads become entries, in order and next to each other, or none.
    pub fn propose(&mut self, payloads: Vec<Bytes>, now: Mono, _log: &impl LogView) -> Result<(), Refused> {
        self.common.advance(now);
        match &mut self.role {
            RoleState::Leader(leader) => leader.propose(&mut self.common, payloads),
            _ => Err(Refused::NotLeader { leader: self.common.leader }),
        }
    }

    /// Begins a change of the membership, as an entry with `context` for whoever applies it. It counts at once, and
    /// is done when [`Ready::committed`] brings it; a joint one when the membership after it comes. Answers
    /// the entry, which is lost if another leader's takes its place.
    pub fn change_membership(
        &mut self,
        changes: &[Change],
        context: &[u8],
        now: Mono,
    ) -> Result<EntryId, ChangeRefused> {
        self.common.advance(now);
        match &mut self.role {
            RoleState::Leader(leader) => leader.change_membership(&mut self.common, changes, context),
            _ => Err(ChangeRefused::NotLeader { leader: self.common.leader }),
        }
    }

    /// Asks which index must be applied before a linearizable read may be served. The answer comes through
    /// [`Ready::reads`]: at once under a lease, else after a quorum answered a message that left later than now.
    /// None there: leadership ended. The id is only echoed; the rounds that confirm it are the core's own and
    /// never used twice.
    pub fn read_index(&mut self, id: u64, now: Mono) -> Result<(), Refused> {
        self.common.advance(now);
        match &mut self.role {
            RoleState::Leader(leader) => leader.read_index(&mut self.common, id),
            _ => Err(Refused::NotLeader { leader: self.common.leader }),
        }
    }

    // ---- Effects

    /// False: `ready` would answer None.
    pub fn has_ready(&self) -> bool {
        let Common { out, log, .. } = &self.common;
        let Outbox { now, after, ack, reads, snapshots } = out;
        let answers = !now.is_empty() || !after.is_empty() || ack.is_some() || !reads.is_empty();
        answers
            || !snapshots.is_empty()
            || self.common.hard_state() != self.common.hard_state_given
            || log.has_unwritten()
            || (log.has_committed() && !self.common.fetching)
            || matches!(&self.role, RoleState::Leader(leader) if leader.dirty)
    }

    /// Everything to be done now; see [`Ready`] for what must be durable before what.
    pub fn ready(&mut self, log: &impl LogView) -> Option<Ready> {
        if let RoleState::Leader(leader) = &mut self.role
            && leader.dirty
        {
            leader.flush(&mut self.common, log);
            if leader.is_done() {
                self.become_follower(0);
            }
        }
        self.flush_ack();
        let common = &mut self.common;
        let hard_state = (common.hard_state() != common.hard_state_given).then(|| common.hard_state());
        let mut ready = Ready { committed: common.take_committed(log), ..Ready::default() };
        if hard_state.is_some() || common.log.has_unwritten() {
            common.number += 1;
            common.hard_state_given = common.hard_state();
            ready.hard_state = hard_state;
            ready.entries = common.log.begin_write(common.number, hard_state);
        }
        ready.number = common.number;
        let Outbox { now, after, reads, snapshots, .. } = std::mem::take(&mut common.out);
        ready.messages_now = now;
        ready.messages_after = after;
        if !common.log.is_writing() {
            ready.messages_now.append(&mut ready.messages_after);
        }
        ready.reads = reads;
        ready.snapshots = snapshots;
        let idle = !ready.has_writes()
            && ready.messages_now.is_empty()
            && ready.messages_after.is_empty()
            && ready.committed.is_empty()
            && ready.reads.is_empty()
            && ready.snapshots.is_empty();
        (!idle).then_some(ready)
    }

    /// Write `number` and all before it are durable.
    pub fn persisted(&mut self, number: u64, log: &impl LogView) {
        assert!(
            number <= self.common.number,
            "write {number} was never given out (last {})",
            self.common.number
        );
        let completed = self.common.log.end_writes(number);
        if let Some(hard_state) = completed.hard_state {
            self.common.hard_state_durable = hard_state;
        }
        match &mut self.role {
            RoleState::Leader(leader) => leader.dirty |= completed.entries,
            RoleState::Candidate(_) if self.common.is_hard_state_durable() => self.count_own_vote(log),
            _ => {}
        }
    }

    /// The state machine holds everything up to `index`.
    pub fn applied(&mut self, index: Index) {
        self.common.log.applied_to(index, self.common.config.memory_bytes_max);
    }

    /// Entries that [`LogView`] could not read before may be readable now.
    pub fn log_fetched(&mut self) {
        self.common.fetching = false;
        if let RoleState::Leader(leader) = &mut self.role {
            leader.dirty = true;
        }
    }

    // ---- Hand-over and snapshots

    /// Hands leadership to `to` (0: the best). Proposals are refused until it is taken over, or given up after
    /// an election timeout.
    pub fn transfer(&mut self, to: MemberId, now: Mono) -> Result<(), TransferRefused> {
        self.common.advance(now);
        match &mut self.role {
            RoleState::Leader(leader) => leader.transfer(&self.common, to),
            _ => Err(TransferRefused::NotLeader { leader: self.common.leader }),
        }
    }

    /// How long `peer` promises to elect nobody when it hears from a leader. It must be told before the first message of
    /// a connection of that peer; who was never told of is taken to promise as this member does.
    ///
    /// What it answered before counts for no lease any more, if it promised less then: it may have broken that promise
    /// since, as it was free to.
    pub fn set_promise(&mut self, peer: MemberId, lease: Nanos) {
        if self.common.promises.insert(peer, lease) != Some(lease)
            && let RoleState::Leader(leader) = &mut self.role
        {
            leader.forget_answers(peer);
        }
    }

    pub fn transferring(&self) -> bool {
        matches!(&self.role, RoleState::Leader(leader) if leader.transfer.is_some())
    }

    /// Whether a snapshot of the state at `at` would bring this member forward. False where the log holds that
    /// entry already: entries behind it may be acknowledged, and a reset would lose them. The shell asks before
    /// a stream begins and again right before it resets the log.
    pub fn wants_snapshot(&self, at: EntryId, log: &impl LogView) -> bool {
        let wanted = self.common.history.is_blank() || !self.common.log.holds(at, log);
        self.may_reset(at) && (wanted || planted::on("raft-snapshot-over-a-good-log"))
    }

    /// The shell replaced the state by that of `at` and reset the log behind it; both are durable.
    pub fn snapshot_installed(&mut self, at: EntryId, membership: Membership, log: &impl LogView) {
        assert!(self.may_reset(at), "a snapshot of {at} was installed though it was not wanted");
        assert!(
            log.first_index() == at.index + 1 && log.last_index() >= at.index,
            "after a snapshot of {at} the log begins behind it"
        );
        if at.index > 0 {
            self.common.log.reset(at);
        }
        // Whatever the log said of the membership is gone with it (the snapshot's may be older, and is right).
        if self.common.history.is_blank() || !planted::on("raft-snapshot-keeps-old-membership") {
            self.common.history = History::new(at.index, membership);
        }
        self.common.fetching = false;
        if self.common.leader != 0 {
            self.acknowledge(self.common.leader, at.index, 0);
        }
    }

    /// A blank member also takes the state before the first entry: the sender may have nothing else, because it
    /// commits the first one only with this member.
    fn may_reset(&self, at: EntryId) -> bool {
        let forward = at.index > self.common.log.commit() || self.common.history.is_blank();
        !matches!(self.role, RoleState::Leader(_)) && forward && at.index < NUMBER_MAX
    }

    /// A stream of the state to `to` ended: the state of an entry is installed there, or not.
    pub fn report_snapshot(&mut self, to: MemberId, outcome: Result<EntryId, ()>) {
        if let RoleState::Leader(leader) = &mut self.role {
            leader.report_snapshot(to, outcome);
        }
    }

    /// The connection to a member ended: its process probably died. Only a hint: promises stand against what it
    /// leads to if the member lives.
    pub fn peer_lost(&mut self, id: MemberId, now: Mono) {
        self.common.advance(now);
        match &mut self.role {
            RoleState::Leader(leader) => leader.peer_lost(id),
            RoleState::Follower if id != 0 && id == self.common.leader => self.succeed(id),
            _ => {}
        }
    }

    // ---- Questions

    pub fn standing(&self) -> Standing {
        let common = &self.common;
        let lease_until = match &self.role {
            RoleState::Leader(leader) => leader.lease_until(common),
            _ => Mono(0),
        };
        Standing { term: common.term, leader: common.leader, commit: common.log.commit(), lease_until }
    }

    /// When a round of this leader's messages began; None once that is longer ago than the lease. For metrics.
    pub fn round_began_at(&self, round: u64) -> Option<Mono> {
        let RoleState::Leader(leader) = &self.role else { return None };
        leader.rounds.began_at(round)
    }

    pub fn role(&self) -> Role {
        match self.role {
            RoleState::Follower => Role::Follower,
            RoleState::PreCandidate(_) => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }

    /// Whether this member leads and has not heard from the other for an election timeout.
    pub fn misses(&self, id: MemberId) -> bool {
        let RoleState::Leader(leader) = &self.role else { return false };
        let silent = |heard_at| self.common.now.since(heard_at) >= self.common.config.election_timeout;
        leader.peers.iter().any(|peer| peer.id == id && silent(peer.heard_at))
    }

    /// What a leader knows of the others; empty elsewhere.
    pub fn peers(&self) -> Vec<PeerStanding> {
        let RoleState::Leader(leader) = &self.role else { return Vec::new() };
        let membership = self.common.membership();
        let learner = |id| !membership.is_voter(id);
        leader
            .peers
            .iter()
            .filter(|peer| membership.contains(peer.id))
            .map(|peer| PeerStanding {
                id: peer.id,
                learner: learner(peer.id),
                matched: peer.matched,
                inflight_messages: peer.inflight_messages(),
                state: peer.state,
                heard_at: peer.heard_at,
            })
            .collect()
    }

    /// The newest membership in the log, which is the one that counts.
    pub fn membership(&self) -> &Membership {
        self.common.membership()
    }

    /// The newest one that is committed as far as this member knows.
    pub fn settled_membership(&self) -> &Membership {
        self.common.history.settled()
    }

    pub fn id(&self) -> MemberId {
        self.common.config.id
    }

    /// Term and vote as of now, for a shell that resets the log (a Ready brings every change of them anyway).
    pub fn hard_state(&self) -> HardState {
        self.common.hard_state()
    }

    /// Whether there is a leader that this member hears, or is.
    pub fn hears_leader(&self, now: Mono) -> bool {
        matches!(self.role, RoleState::Leader(_)) || now < self.common.promise_until
    }

    /// The last entry that would survive a power cut.
    pub fn durable(&self) -> Index {
        self.common.log.durable()
    }

    /// The end of the log, durable or not.
    pub fn last(&self) -> EntryId {
        self.common.log.last()
    }

    /// Payload bytes of entries held in memory.
    pub fn memory_bytes(&self) -> usize {
        self.common.log.memory_bytes()
    }
}

/// The memberships that the log holds behind what is applied. At the start the shell can read all of that at once.
fn read_history(applied: Index, membership: Membership, log: &impl LogView) -> History {
    let mut history = History::new(applied, membership);
    let mut next = applied + 1;
    while next <= log.last_index() {
        let entries = log
            .entries(next, log.last_index(), READ_BYTES)
            .unwrap_or_else(|gap| panic!("entry {next}, behind what is applied, cannot be read: {gap:?}"));
        for entry in &entries {
            history.appended(entry);
        }
        next += entries.len() as Index;
    }
    history
}

impl Common {
    fn take_committed(&mut self, view: &impl LogView) -> Vec<Entry> {
        if self.fetching {
            return Vec::new();
        }
        match self.log.take_committed(self.config.committed_bytes_max, view) {
            Ok(entries) => entries,
            Err(LogGap::NotNow) => {
                self.fetching = true;
                Vec::new()
            }
            Err(LogGap::Compacted) => panic!("the log was released beyond what is applied"),
        }
    }
}
