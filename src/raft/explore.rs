//! What the explorer needs of a core and production does not: to tell states apart, to let time be a choice, and
//! to break a rule on purpose.
//!
//! A fingerprint covers what can influence what the core will ever do or say, and nothing else: not the dice and
//! not the time of the next campaign (the explorer decides when a member loses patience), not numbers that only
//! count (writes). Where order does not matter, parts are summed, so that members may be renamed.

use crate::base::{EntryId, MemberId, Mono};

use super::core::{Common, Raft, RoleState};
use super::follower::Ack;
use super::leader::Leader;
use super::log::Log;
use super::progress::Progress;
use super::types::{Entry, EntryKind, HardState, Membership, Message, MessageBody};

/// A rule that is broken on purpose: the explorer must notice each (numbers as in the module's essay).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// 1: a vote leaves before it is durable.
    EarlyVote,
    /// 1: a leader counts its own entries before they are durable.
    EarlyOwnCount,
    /// 3: entries of earlier terms are committed by counting.
    EarlierTerms,
    /// 4: a follower drops what follows the entries of a message, though it matches.
    ShorterSuffix,
    /// 7: a restart forgets the promise.
    ForgottenPromise,
    /// 8: the lease outlives a hand-over.
    LeaseThroughTransfer,
    /// 9: a read is answered without a round.
    UnconfirmedRead,
    /// 9: a read is answered before an entry of the own term is committed.
    ReadBeforeOwn,
    /// 10: only the new half of a joint membership counts.
    OneHalf,
    /// 11: a change begins before an entry of the term is committed.
    EarlyChange,
    /// 11: a change begins before the last one is committed.
    TwoChanges,
    /// 11: what an entry changed stays when the entry is replaced.
    KeptMembership,
}

/// Mixes numbers into one. Not for secrets.
#[derive(Clone, Copy)]
pub struct Digest(pub u64);

impl Digest {
    pub fn new(kind: u64) -> Digest {
        let mut digest = Digest(0x9e37_79b9_7f4a_7c15);
        digest.add(kind);
        digest
    }

    pub fn add(&mut self, value: u64) {
        let x = (self.0 ^ value).wrapping_mul(0xff51_afd7_ed55_8ccd);
        self.0 = (x ^ (x >> 32)).wrapping_mul(0xc4ce_b9fe_1a85_ec53).rotate_left(29);
    }

    pub fn add_id(&mut self, id: EntryId) {
        self.add(id.term);
        self.add(id.index);
    }
}

/// New names for members; `to[id]` is what `id` is called.
pub struct Names<'a>(pub &'a [MemberId]);

impl Names<'_> {
    pub fn of(&self, id: MemberId) -> MemberId {
        self.0.get(id as usize).copied().unwrap_or(id)
    }

    fn set(&self, ids: &[MemberId]) -> u64 {
        ids.iter().fold(0, |sum: u64, &id| {
            let mut digest = Digest::new(1);
            digest.add(self.of(id));
            sum.wrapping_add(digest.0)
        })
    }

    pub fn membership(&self, membership: &Membership) -> u64 {
        let mut digest = Digest::new(2);
        for set in [&membership.voters, &membership.outgoing, &membership.learners] {
            digest.add(self.set(set));
        }
        digest.0
    }

    pub fn entry(&self, entry: &Entry) -> u64 {
        let mut digest = Digest::new(3);
        digest.add_id(entry.id);
        match entry.kind {
            EntryKind::Normal => entry.payload.iter().for_each(|byte| digest.add(u64::from(*byte))),
            EntryKind::Membership => {
                let (membership, _) = Membership::decode(&entry.payload).expect("entries are checked");
                digest.add(self.membership(&membership));
            }
        }
        digest.0
    }

    pub fn message(&self, message: &Message) -> u64 {
        let mut digest = Digest::new(4);
        digest.add(self.of(message.from));
        digest.add(self.of(message.to));
        digest.add(message.term);
        match &message.body {
            MessageBody::PreVote { last } => {
                digest.add(1);
                digest.add_id(*last);
            }
            MessageBody::PreVoteReply { granted } => digest.add(2 + u64::from(*granted)),
            MessageBody::Vote { last, transfer } => {
                digest.add(4 + u64::from(*transfer));
                digest.add_id(*last);
            }
            MessageBody::VoteReply { granted } => digest.add(6 + u64::from(*granted)),
            MessageBody::Append { previous, entries, commit, round } => {
                digest.add(8);
                digest.add_id(*previous);
                digest.add(*commit);
                digest.add(*round);
                entries.iter().for_each(|entry| digest.add(self.entry(entry)));
            }
            MessageBody::AppendAccepted { matched, round } => {
                digest.add(9);
                digest.add(*matched);
                digest.add(*round);
            }
            MessageBody::AppendRejected { previous, hint, last, round } => {
                digest.add(10);
                digest.add(*previous);
                digest.add_id(*hint);
                digest.add(*last);
                digest.add(*round);
            }
            MessageBody::TimeoutNow => digest.add(11),
            MessageBody::Inquire { .. } | MessageBody::Inquired { .. } | MessageBody::Forgot => {
                unreachable!("the search loses no disks")
            }
        }
        digest.0
    }

    pub fn hard_state(&self, hard_state: HardState) -> u64 {
        let mut digest = Digest::new(5);
        digest.add(hard_state.term);
        digest.add(self.of(hard_state.vote));
        digest.0
    }
}

impl Raft {
    /// When this member loses patience; the explorer's choice.
    pub fn set_election_at(&mut self, at: Mono) {
        self.election_at = at;
    }

    /// For worlds in which time has no part.
    pub fn forget_promise(&mut self) {
        self.common.promise_until = Mono(0);
    }

    /// The next turn sends heartbeats.
    pub fn make_heartbeats_due(&mut self) {
        if let RoleState::Leader(leader) = &mut self.role {
            leader.dirty = true;
            leader.peers.iter_mut().for_each(|peer| peer.round_sent_at = Mono(0));
        }
    }

    /// Two cores with the same fingerprint behave the same for ever, but for collisions.
    pub fn fingerprint(&self, names: &Names) -> u64 {
        let mut digest = Digest::new(10);
        self.common.fingerprint(names, &mut digest);
        match &self.role {
            RoleState::Follower => digest.add(1),
            RoleState::PreCandidate(ballots) | RoleState::Candidate(ballots) => {
                digest.add(2 + u64::from(matches!(self.role, RoleState::Candidate(_))));
                let given = ballots.given.iter().fold(0_u64, |sum, (id, granted)| {
                    let mut one = Digest::new(11);
                    one.add(names.of(*id));
                    one.add(u64::from(*granted));
                    sum.wrapping_add(one.0)
                });
                digest.add(given);
            }
            RoleState::Leader(leader) => {
                digest.add(4);
                leader.fingerprint(names, &mut digest);
            }
        }
        digest.add(self.deferred.iter().fold(0, |sum, m| sum.wrapping_add(names.message(m))));
        digest.0
    }
}

impl Common {
    fn fingerprint(&self, names: &Names, digest: &mut Digest) {
        digest.add(names.hard_state(self.hard_state()));
        digest.add(u64::from(self.is_hard_state_durable()));
        digest.add(names.of(self.leader));
        digest.add(if self.promise_until > self.now { self.promise_until.0 } else { 0 });
        digest.add(self.last_round);
        for membership in self.history.possible() {
            digest.add(names.membership(membership));
        }
        if let Some(Ack { to, matched, round }) = &self.out.ack {
            digest.add(names.of(*to));
            digest.add(*matched);
            digest.add(*round);
        }
        self.log.fingerprint(names, digest);
    }
}

impl Log {
    fn fingerprint(&self, names: &Names, digest: &mut Digest) {
        for mark in [self.offset, self.unwritten, self.durable, self.commit, self.handed, self.applied] {
            digest.add(mark);
        }
        digest.add_id(self.last);
        self.tail.iter().for_each(|entry| digest.add(names.entry(entry)));
        for write in &self.writes {
            digest.add(write.through);
            digest.add(write.hard_state.map_or(0, |hard_state| names.hard_state(hard_state)));
        }
    }
}

impl Leader {
    fn fingerprint(&self, names: &Names, digest: &mut Digest) {
        digest.add(self.peers.iter().fold(0, |sum, peer| sum.wrapping_add(peer.fingerprint(names))));
        digest.add(self.term_start);
        digest.add(self.rounds.last);
        self.rounds.began_at.iter().for_each(|at| digest.add(at.0));
        for read in &self.reads {
            digest.add(read.round);
            digest.add(read.index.map_or(0, |index| index + 1));
            digest.add(read.id);
        }
        if let Some(transfer) = &self.transfer {
            digest.add(names.of(transfer.to));
            digest.add(transfer.until.0);
            digest.add(u64::from(transfer.sent));
        }
        digest.add(u64::from(self.lease_given_up));
        digest.add(self.leave_by.map_or(0, |at| at.0));
        digest.add(u64::from(self.dirty));
    }
}

impl Progress {
    fn fingerprint(&self, names: &Names) -> u64 {
        let mut digest = Digest::new(12);
        digest.add(names.of(self.id));
        for number in [
            self.matched,
            self.next,
            self.state as u64,
            u64::from(self.paused),
            self.heard_at.0,
            self.round_answered,
            self.answered_sent_at.0,
            self.round_sent,
            self.round_sent_at.0,
            self.commit_told,
            u64::from(self.blank),
            self.told_until.map_or(0, |at| at.0),
        ] {
            digest.add(number);
        }
        for (last, bytes) in &self.inflight {
            digest.add(*last);
            digest.add(*bytes as u64);
        }
        digest.0
    }
}
