//! The follower: takes the leader's entries and says how far its log is the leader's.

use crate::base::planted;
use crate::base::{EntryId, Index, MemberId};

use super::core::{Raft, RoleState};
use super::types::{Entry, LogView, MessageBody};

/// The acknowledgement that a turn owes. Later ones say all that earlier ones did, so one is enough.
#[derive(Clone)]
pub(super) struct Ack {
    pub(super) to: MemberId,
    pub(super) matched: Index,
    pub(super) round: u64,
}

impl Raft {
    /// A leader of an earlier term learns the term and steps down. Pre-vote keeps terms from rising idly, so
    /// this one was raised by an election that this member is part of and the leader does not know of.
    pub(super) fn reject_old_leader(&mut self, from: MemberId, previous: EntryId) {
        if self.forgot() {
            return self.tell_floor(from);
        }
        let (hint, last) = (EntryId::ZERO, self.common.log.last().index);
        self.common
            .send_after(from, MessageBody::AppendRejected { previous: previous.index, hint, last, round: 0 });
    }

    /// Of our term, and sound in itself.
    pub(super) fn on_append(
        &mut self,
        from: MemberId,
        previous: EntryId,
        entries: Vec<Entry>,
        commit: Index,
        round: u64,
        log: &impl LogView,
    ) {
        if !self.follow(from) {
            return;
        }
        if self.contradicts_commit(previous, &entries, log) {
            return;
        }
        // What is committed here is in the log of every later leader, so up to there the logs are the same.
        if self.common.history.is_blank() {
            // It was not there when the log began: even the state before the first entry is missing.
            return self.reject_all(from, previous, round);
        }
        let committed = self.common.log.commit();
        if previous.index > committed && !self.common.log.holds(previous, log) {
            return self.reject(from, previous, round, log);
        }
        let heartbeat = entries.is_empty();
        let matched = (previous.index + entries.len() as u64).max(committed);
        self.take_entries(entries, log);
        let covered = if planted::on("raft-commit-beyond-what-matches") {
            self.common.log.last().index
        } else {
            matched
        };
        self.common.commit_to(commit.min(covered));
        if round == 0 {
            return;
        }
        if heartbeat {
            self.answer_heartbeat(from, matched, round);
        }
        self.acknowledge(from, matched, round);
    }

    /// Notes that `from` leads. False: somebody lies, since another member leads this term.
    fn follow(&mut self, from: MemberId) -> bool {
        if matches!(self.role, RoleState::Leader(_))
            || (self.common.leader != 0 && self.common.leader != from)
        {
            return false;
        }
        if self.common.leader == 0 || !matches!(self.role, RoleState::Follower) {
            self.become_follower(from);
        }
        self.common.promise_until = self.common.now + self.common.config.lease;
        self.election_at = self.common.now + self.common.patience();
        self.eager_tries = None;
        self.deferred.clear();
        true
    }

    /// A leader that would replace a committed entry is damaged, or this member is. Nothing is taken and nothing
    /// acknowledged.
    fn contradicts_commit(&self, previous: EntryId, entries: &[Entry], log: &impl LogView) -> bool {
        let committed = self.common.log.commit();
        std::iter::once(previous)
            .chain(entries.iter().map(|entry| entry.id))
            .take_while(|id| id.index <= committed)
            .any(|id| self.common.log.term(id.index, log).is_some_and(|term| term != id.term))
    }

    /// Appends what is new. An entry that is here already is skipped: a message that was overtaken must not cut
    /// off what a later one brought. Only an entry of another term proves that the rest is not the leader's.
    fn take_entries(&mut self, entries: Vec<Entry>, log: &impl LogView) {
        for entry in entries {
            let held = &self.common.log;
            if entry.id.index <= held.commit() {
                continue;
            }
            if entry.id.index <= held.last().index {
                let broken =
                    breaks!(self.common.config, ShorterSuffix) || planted::on("raft-stale-append-cuts");
                if held.holds(entry.id, log) && !broken {
                    continue;
                }
                self.common.truncate(entry.id.index, log);
            }
            self.common.append(entry);
        }
    }

    fn reject(&mut self, from: MemberId, previous: EntryId, round: u64, log: &impl LogView) {
        let last = self.common.log.last().index;
        let limit = EntryId::new(previous.term, previous.index - 1);
        let hint = self.common.log.last_possible_match(limit, log);
        self.common
            .send_after(from, MessageBody::AppendRejected { previous: previous.index, hint, last, round });
    }

    fn reject_all(&mut self, from: MemberId, previous: EntryId, round: u64) {
        let (hint, last) = (EntryId::ZERO, self.common.log.last().index);
        self.common
            .send_after(from, MessageBody::AppendRejected { previous: previous.index, hint, last, round });
    }

    /// While the disk is behind, a heartbeat is answered with what is durable already: a stalled disk must not
    /// cost the leader its quorum. The full claim follows when it is true.
    fn answer_heartbeat(&mut self, from: MemberId, matched: Index, round: u64) {
        let durable = self.common.log.durable();
        let claim = if planted::on("raft-heartbeat-claims-too-much") { matched } else { durable };
        if durable < matched && self.common.is_hard_state_durable() {
            self.common.send_now(from, MessageBody::AppendAccepted { matched: claim, round });
        }
    }

    pub(super) fn acknowledge(&mut self, to: MemberId, matched: Index, round: u64) {
        let earlier = self.common.out.ack.take().filter(|ack| ack.to == to);
        let (matched, round) =
            earlier.map_or((matched, round), |ack| (matched.max(ack.matched), round.max(ack.round)));
        self.common.out.ack = Some(Ack { to, matched, round });
    }

    /// The turn's acknowledgement. What is durable already need not wait for what is being written.
    pub(super) fn flush_ack(&mut self) {
        let Some(Ack { to, matched, round }) = self.common.out.ack.take() else { return };
        let body = MessageBody::AppendAccepted { matched, round };
        if matched <= self.common.log.durable() && self.common.is_hard_state_durable() {
            self.common.send_now(to, body);
        } else {
            self.common.send_after(to, body);
        }
    }

    /// The leader hands over. Its lease was given up before it asked, so neither our promise nor the others'
    /// stands against this election.
    pub(super) fn on_timeout_now(&mut self, from: MemberId) {
        let asked = self.common.leader == from && matches!(self.role, RoleState::Follower);
        if asked && self.common.may_campaign() {
            self.run(true);
        }
    }
}
