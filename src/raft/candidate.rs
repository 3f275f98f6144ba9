//! Elections, from both sides.
//!
//! A campaign has two rounds. In the first (pre-vote, thesis §9.6) nothing changes anywhere: a member that
//! could not win finds out without raising its term, so one that was cut off disturbs nobody when it returns.
//! A member whose term is behind learns the term from the refusals; otherwise a cohort with the longer log and
//! one with the higher term could refuse each other for ever.
//!
//! A candidate asks for votes, and counts its own, only when its term and vote are durable: a crash must not
//! let it run twice in one term.

use crate::base::limits::MEMBERS_MAX;
use crate::base::planted;
use crate::base::{EntryId, MemberId, Term};

use super::core::{Raft, RoleState};
use super::leader::Leader;
use super::quorum::{Outcome, outcome};
use super::types::{LogView, Message, MessageBody};

/// Who answered what.
#[derive(Clone, Default)]
pub(super) struct Ballots {
    pub(super) given: Vec<(MemberId, bool)>,
}

impl Ballots {
    fn record(&mut self, id: MemberId, granted: bool) {
        if self.of(id).is_none() && self.given.len() < 2 * MEMBERS_MAX {
            self.given.push((id, granted));
        }
    }

    fn of(&self, id: MemberId) -> Option<bool> {
        self.given.iter().find(|(voter, _)| *voter == id).map(|(_, granted)| *granted)
    }
}

impl Raft {
    // ---- The candidate's side

    /// The time has come. The caller checked that the own promise has run out.
    pub(super) fn campaign(&mut self, log: &impl LogView) {
        if self.common.config.pre_vote {
            self.ask_before(log);
        } else {
            self.run(false);
        }
    }

    fn ask_before(&mut self, log: &impl LogView) {
        let mut ballots = Ballots::default();
        ballots.record(self.common.config.id, true);
        self.role = RoleState::PreCandidate(ballots);
        self.common.leader = 0;
        self.retry_soon();
        let (term, last) = (self.common.term + 1, self.common.log.last());
        for voter in self.other_voters() {
            self.common.send_now_as(voter, term, MessageBody::PreVote { last });
        }
        self.count(log);
    }

    /// The election itself. `transfer`: the leader wants it.
    pub(super) fn run(&mut self, transfer: bool) {
        self.adopt_term(self.common.term + 1);
        self.common.vote = self.common.config.id;
        self.role = RoleState::Candidate(Ballots::default());
        self.election_at = self.common.now + self.common.patience() / 2;
        let last = self.common.log.last();
        for voter in self.other_voters() {
            self.common.send_after(voter, MessageBody::Vote { last, transfer });
        }
    }

    fn other_voters(&self) -> Vec<MemberId> {
        let membership = self.common.membership();
        let other = |id: &MemberId| *id != self.common.config.id && membership.is_voter(*id);
        membership.all().into_iter().filter(other).collect()
    }

    pub(super) fn count_own_vote(&mut self, log: &impl LogView) {
        let id = self.common.config.id;
        if let RoleState::Candidate(ballots) = &mut self.role {
            ballots.record(id, true);
            self.count(log);
        }
    }

    pub(super) fn on_pre_vote_granted(&mut self, from: MemberId, term: Term, log: &impl LogView) {
        let counts = term == self.common.term + 1 && self.common.membership().is_voter(from);
        if let RoleState::PreCandidate(ballots) = &mut self.role
            && counts
        {
            ballots.record(from, true);
            self.count(log);
        }
    }

    /// Its term is not above ours (else it would have been adopted).
    pub(super) fn on_pre_vote_denied(&mut self, from: MemberId, log: &impl LogView) {
        if let RoleState::PreCandidate(ballots) = &mut self.role {
            ballots.record(from, false);
            self.count(log);
        }
    }

    pub(super) fn on_vote_reply(&mut self, from: MemberId, granted: bool, log: &impl LogView) {
        if let RoleState::Candidate(ballots) = &mut self.role {
            ballots.record(from, granted);
            self.count(log);
        }
    }

    fn count(&mut self, log: &impl LogView) {
        let (RoleState::PreCandidate(ballots) | RoleState::Candidate(ballots)) = &self.role else { return };
        let asking = matches!(self.role, RoleState::PreCandidate(_));
        let membership = self.common.membership();
        let new_half = breaks!(self.common.config, OneHalf).then(|| membership.left());
        match outcome(new_half.as_ref().unwrap_or(membership), |id| ballots.of(id)) {
            Outcome::Pending => {}
            Outcome::Won if asking => self.run(false),
            Outcome::Won => self.lead(log),
            Outcome::Lost => {
                self.become_follower(0);
                self.retry_soon();
            }
        }
    }

    fn lead(&mut self, _log: &impl LogView) {
        assert!(self.common.is_hard_state_durable(), "a leader's term is durable before it leads");
        self.common.leader = self.common.config.id;
        self.eager_tries = None;
        self.role = RoleState::Leader(Box::new(Leader::new(&mut self.common)));
    }

    // ---- When to campaign

    /// Sets the next campaign to a short random wait that doubles with each fruitless attempt, up to the
    /// ordinary one: at the start, and after the leader's connection was lost, nobody is there to be disturbed.
    /// Among `n` voters a wait is one of about `2n` slots.
    pub(super) fn retry_soon(&mut self) {
        let common = &mut self.common;
        let voters = common.membership().voters.len().max(1) as u64;
        let slot = common.config.slot();
        let from = common.now.max(common.promise_until);
        let short = self.eager_tries.map(|tries| common.rng.between(slot, 2 * voters * slot) << tries);
        match short.filter(|wait| *wait < common.config.election_timeout) {
            Some(wait) => {
                self.eager_tries = self.eager_tries.map(|tries| tries + 1);
                self.election_at = from + wait;
            }
            None => {
                self.eager_tries = None;
                self.election_at = from + common.patience();
            }
        }
    }

    /// The leader is probably dead. The voters take turns, one slot apart, beginning with a different one in
    /// each term; the first asks as soon as its own promise has run out, and the others hold its request until
    /// theirs have. So nobody waits for an election timeout and two do not collide.
    pub(super) fn succeed(&mut self, lost: MemberId) {
        let voters: Vec<MemberId> =
            self.common.membership().all().into_iter().filter(|&id| self.is_successor(id, lost)).collect();
        let Some(position) = voters.iter().position(|&id| id == self.common.config.id) else { return };
        let turn = (position as u64 + self.common.term) % voters.len() as u64;
        self.eager_tries = Some(0);
        self.election_at = self.common.now.max(self.common.promise_until) + turn * self.common.config.slot();
    }

    fn is_successor(&self, id: MemberId, lost: MemberId) -> bool {
        id != lost && self.common.membership().is_voter(id)
    }

    // ---- The voter's side

    /// Whether this member may help somebody to lead now. A leader that lost its quorum finds out by itself.
    pub(super) fn may_elect(&self, transfer: bool) -> bool {
        transfer
            || ((self.common.now >= self.common.promise_until || planted::on("raft-vote-despite-lease"))
                && !matches!(self.role, RoleState::Leader(_)))
    }

    pub(super) fn on_pre_vote(&mut self, from: MemberId, term: Term, last: EntryId, _log: &impl LogView) {
        let common = &mut self.common;
        let free = term > common.term
            || (term == common.term && common.leader == 0 && (common.vote == 0 || common.vote == from));
        let leads = matches!(self.role, RoleState::Leader(_));
        if leads || !free || last < common.log.last() || common.recovery.is_some() {
            // The own term tells a candidate that is behind where it must go.
            return common.send_now(from, MessageBody::PreVoteReply { granted: false });
        }
        if self.may_elect(false) {
            return self.common.send_now_as(from, term, MessageBody::PreVoteReply { granted: true });
        }
        self.deferred.retain(|waiting| waiting.from != from);
        if self.deferred.len() >= MEMBERS_MAX {
            return;
        }
        let to = self.common.config.id;
        self.deferred.push(Message { from, to, term, body: MessageBody::PreVote { last } });
    }

    pub(super) fn answer_deferred(&mut self, log: &impl LogView) {
        if self.common.now < self.common.promise_until {
            return;
        }
        for message in std::mem::take(&mut self.deferred) {
            if let MessageBody::PreVote { last } = message.body {
                self.on_pre_vote(message.from, message.term, last, log);
            }
        }
    }

    /// Of our term. A learner answers too: it may be a voter by a membership that it has not learnt yet.
    pub(super) fn on_vote(&mut self, from: MemberId, last: EntryId, transfer: bool) {
        let common = &self.common;
        let free = common.vote == from
            || (common.vote == 0 && common.leader == 0)
            || planted::on("raft-two-votes-in-a-term");
        let granted = free
            && (last >= common.log.last() || planted::on("raft-vote-for-shorter-log"))
            && self.may_elect(transfer)
            && !self.is_out(from, last)
            && (!self.forgot() || planted::on("raft-vote-without-memory"));
        if granted && common.vote == 0 {
            self.become_follower(0);
            self.common.vote = from;
            self.election_at = self.common.now + self.common.patience();
        }
        if breaks!(self.common.config, EarlyVote) || planted::on("raft-vote-before-durable") {
            return self.common.send_now(from, MessageBody::VoteReply { granted });
        }
        self.common.send_after(from, MessageBody::VoteReply { granted });
    }

    /// A candidate that is no voter by the log that both have. It was removed, does not know that this is committed, and its
    /// answer may never reach it, because nobody calls it any more: the vote would be lost, and those who can win wait anew
    /// for nothing, again and again. Nobody needs it to lead: whoever has the same log can. With a longer log it may be
    /// a voter by an entry that is missing here, and it may be the only one that can lead (thesis §4.2.2).
    fn is_out(&self, candidate: MemberId, last: EntryId) -> bool {
        let common = &self.common;
        last.index > 0 && last == common.log.last() && !common.membership().is_voter(candidate)
    }

    // ---- Changes of role

    /// A higher term was seen; who leads it is not known yet.
    pub(super) fn adopt_term(&mut self, term: Term) {
        assert!(term > self.common.term, "terms only rise: {} to {term}", self.common.term);
        let asked = matches!(self.role, RoleState::PreCandidate(_));
        self.become_follower(0);
        self.common.term = term;
        self.common.vote = 0;
        self.common.out.ack = None;
        self.deferred.clear();
        if asked {
            // It asked because it misses a leader: it goes on to ask, now with the right term.
            self.retry_soon();
        }
    }

    /// Follows `leader` (0: not known yet) in the present term.
    ///
    /// A follower's next campaign stays where it was. A candidate that cannot win raises everybody's term; if
    /// that made the others wait anew, one with a short log could keep those who can win from ever trying.
    pub(super) fn become_follower(&mut self, leader: MemberId) {
        if let RoleState::Leader(old) = &mut self.role {
            old.fail_reads(&mut self.common);
        }
        if !matches!(self.role, RoleState::Follower) {
            self.election_at = self.common.now + self.common.patience();
        }
        self.role = RoleState::Follower;
        self.common.leader = leader;
    }
}
