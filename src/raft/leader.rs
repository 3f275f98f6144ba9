//! The leader: replication, commit, leases, reads, the hand-over of leadership.
//!
//! All state of a leadership lives in [`Leader`] and dies with it, so no flag of one term can outlive it: not a
//! transfer, not a lease, not a read.
//!
//! Nothing is sent while messages are stepped. A turn's events only change the state; [`Leader::flush`], once
//! per Ready, looks at each member and sends what is then due. A thousand proposals and acknowledgements of
//! one turn thus cost one message per member.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::base::planted;
use crate::base::{EntryId, Index, MemberId, Mono};

use super::config::{ChangeRefused, PeerState, Refused, TransferRefused};
use super::core::Common;
use super::membership::Change;
use super::progress::Progress;
use super::quorum::agreed;
use super::types::{Entry, EntryKind, LogGap, LogView, Membership, MessageBody, ReadReady};

/// Reads that wait for a confirmed round. The shell gives up on what is older than its deadline; this bounds
/// what a leader without a quorum can gather until it steps down.
const READS_WAITING_MAX: usize = 1 << 16;

#[derive(Clone)]
pub(super) struct Leader {
    /// Everybody else, in the order of ids.
    pub peers: Vec<Progress>,
    /// The index of the no-op that began this term here. Entries from here on are ours.
    pub(super) term_start: Index,
    pub(super) rounds: Rounds,
    pub(super) reads: VecDeque<WaitingRead>,
    pub transfer: Option<Transfer>,
    /// Set when TimeoutNow leaves, for the rest of the term. The target's election ignores the promises on
    /// which a lease rests, and its messages may be late by any time: an aborted transfer does not bring the
    /// lease back.
    pub(super) lease_given_up: bool,
    uncommitted_bytes: usize,
    /// This member is no voter any more, and that is committed: it steps down when it could hand over, then at the
    /// latest.
    pub(super) leave_by: Option<Mono>,
    /// Something happened since the last flush.
    pub dirty: bool,
}

#[derive(Clone)]
pub(super) struct Transfer {
    pub to: MemberId,
    /// When it is given up.
    pub until: Mono,
    pub(super) sent: bool,
}

#[derive(Clone)]
pub(super) struct WaitingRead {
    pub(super) id: u64,
    /// Leadership is confirmed by answers to this round or a later one: all of them left after the request came.
    pub(super) round: u64,
    /// The commit index at the request; None if nothing of this term was committed then.
    pub(super) index: Option<Index>,
}

/// When each round began.
///
/// A round that is sent later than it began only makes a lease end earlier than it might. So rounds need not be
/// finer than a small part of the lease, unless a read must tell messages that left before it from later ones.
#[derive(Clone)]
pub(super) struct Rounds {
    pub(super) began_at: VecDeque<Mono>,
    /// The last of them; it continues over all leaderships of this process, so no number returns.
    pub(super) last: u64,
}

impl Rounds {
    pub(super) fn began_at(&self, round: u64) -> Option<Mono> {
        let age = usize::try_from(self.last.checked_sub(round)?).ok()?;
        let position = self.began_at.len().checked_sub(age + 1)?;
        self.began_at.get(position).copied()
    }
}

impl Leader {
    /// A new leadership, beginning with a no-op: entries of earlier terms are committed only behind an own one
    /// (paper §5.4.2), and no read is answered before it is (§8).
    pub fn new(common: &mut Common) -> Leader {
        let next = common.log.last().index + 1;
        let peers = common
            .membership()
            .all()
            .into_iter()
            .filter(|&id| id != common.config.id)
            .map(|id| Progress::new(id, next, common.now))
            .collect();
        let rounds = Rounds { began_at: VecDeque::new(), last: common.last_round };
        common.append(Entry {
            id: EntryId::new(common.term, next),
            kind: EntryKind::Normal,
            payload: Bytes::new(),
        });
        Leader {
            peers,
            term_start: next,
            rounds,
            reads: VecDeque::new(),
            transfer: None,
            lease_given_up: false,
            uncommitted_bytes: 0,
            leave_by: None,
            dirty: true,
        }
    }

    fn peer(&mut self, id: MemberId) -> Option<&mut Progress> {
        let position = self.peers.binary_search_by_key(&id, |peer| peer.id).ok()?;
        Some(&mut self.peers[position])
    }

    /// What a quorum has reached, where `own` is what this member has.
    fn agreed<T: Copy + Ord + Default>(&self, common: &Common, own: T, value: impl Fn(&Progress) -> T) -> T {
        let membership = common.membership();
        let new_half = breaks!(common.config, OneHalf).then(|| membership.left());
        let everybody = || Membership { voters: membership.all(), ..Membership::default() };
        let new_half = new_half.or_else(|| planted::on("raft-learner-counts").then(everybody));
        agreed(new_half.as_ref().unwrap_or(membership), |id| {
            if id == common.config.id {
                return own;
            }
            match self.peers.binary_search_by_key(&id, |peer| peer.id) {
                Ok(position) => value(&self.peers[position]),
                Err(_) => T::default(),
            }
        })
    }

    // ---- Requests

    pub fn propose(&mut self, common: &mut Common, payloads: Vec<Bytes>) -> Result<(), Refused> {
        if self.transfer.is_some() {
            return Err(Refused::Transferring);
        }
        let bytes: usize = payloads.iter().map(Bytes::len).sum();
        // One batch always fits, however large: it was bounded at the gate.
        if self.uncommitted_bytes > 0
            && self.uncommitted_bytes.saturating_add(bytes) > common.config.uncommitted_bytes_max
        {
            return Err(Refused::Busy);
        }
        self.uncommitted_bytes += bytes;
        for payload in payloads {
            let id = EntryId::new(common.term, common.log.last().index + 1);
            common.append(Entry { id, kind: EntryKind::Normal, payload });
        }
        self.dirty = true;
        Ok(())
    }

    pub fn read_index(&mut self, common: &mut Common, id: u64) -> Result<(), Refused> {
        let ours = self.has_committed_own(common);
        if ours && common.now < self.lease_until(common) {
            common.out.reads.push(ReadReady { id, index: Some(common.log.commit()) });
            return Ok(());
        }
        if self.reads.len() >= READS_WAITING_MAX {
            return Err(Refused::Busy);
        }
        self.reads.push_back(WaitingRead {
            id,
            round: self.rounds.last + u64::from(!planted::on("raft-read-confirmed-by-an-old-round")),
            index: ours.then(|| common.log.commit()),
        });
        self.dirty = true;
        Ok(())
    }

    /// Leadership ended: no read of it may be answered.
    pub fn fail_reads(&mut self, common: &mut Common) {
        let failed = self.reads.drain(..).map(|read| ReadReady { id: read.id, index: None });
        common.out.reads.extend(failed);
    }

    fn has_committed_own(&self, common: &Common) -> bool {
        common.log.commit() >= self.term_start || planted::on("raft-read-before-noop")
    }

    /// Until when reads may be served without asking: a quorum promised, no earlier than the time that counts
    /// here, to elect nobody for a lease.
    pub fn lease_until(&self, common: &Common) -> Mono {
        if !common.config.lease_reads || self.lease_given_up {
            return Mono(0);
        }
        let heard = planted::on("raft-lease-from-the-answer");
        let lease = common.config.lease;
        self.agreed(common, common.now + common.config.trusted(lease), |peer| {
            match if heard { peer.heard_at } else { peer.answered_sent_at } {
                Mono(0) => Mono(0),
                sent_at => {
                    let told = common.promises.get(&peer.id).copied();
                    let promise = told.filter(|_| !planted::on("raft-lease-beyond-promise")).unwrap_or(lease);
                    sent_at + common.config.trusted(promise.min(lease))
                }
            }
        })
    }

    /// No lease rests on what this member answered so far.
    pub fn forget_answers(&mut self, id: MemberId) {
        if let Some(peer) = self.peer(id) {
            peer.answered_sent_at = Mono(0);
        }
    }

    // ---- Answers

    /// An answer of this term: its sender follows us, at least since the round was sent.
    fn heard(&mut self, common: &Common, from: MemberId, round: u64) -> Option<&mut Progress> {
        if round > self.rounds.last {
            return None;
        }
        let began_at = self.rounds.began_at(round);
        self.dirty = true;
        let peer = self.peer(from)?;
        peer.answered(round, began_at, common.now);
        Some(peer)
    }

    pub fn on_accepted(
        &mut self,
        common: &Common,
        from: MemberId,
        matched: Index,
        round: u64,
        view: &impl LogView,
    ) {
        let last = common.log.last().index;
        let Some(peer) = self.heard(common, from, round) else { return };
        // A claim beyond our log is no answer to anything we sent.
        if matched <= last {
            peer.accepted(matched, view.first_index());
        }
    }

    pub fn on_rejected(
        &mut self,
        common: &Common,
        from: MemberId,
        previous: Index,
        hint: EntryId,
        round: u64,
        view: &impl LogView,
    ) {
        let possible = common.log.last_possible_match(hint, view).index;
        let Some(peer) = self.heard(common, from, round) else { return };
        peer.rejected(previous, possible);
    }

    pub fn report_snapshot(&mut self, to: MemberId, outcome: Result<EntryId, ()>) {
        self.dirty = true;
        let Some(peer) = self.peer(to) else { return };
        if peer.state != PeerState::Snapshot {
            return;
        }
        match outcome {
            Ok(at) => {
                peer.blank = false;
                peer.probe_from(at.index.saturating_add(1));
            }
            Err(()) => {
                // Another attempt follows the next heartbeat's answer, so a member that fails at once is not
                // flooded.
                peer.probe_from(0);
                peer.paused = true;
            }
        }
    }

    /// What was under way there is lost.
    pub fn peer_lost(&mut self, id: MemberId) {
        self.dirty = true;
        if let Some(peer) = self.peer(id) {
            // A probe has not found the match yet and goes on where it was; a pipeline knows it.
            let next = if peer.state == PeerState::Probe { peer.next } else { 0 };
            peer.probe_from(next);
        }
    }

    // ---- Changes of the membership

    pub fn change_membership(
        &mut self,
        common: &mut Common,
        changes: &[Change],
        context: &[u8],
    ) -> Result<EntryId, ChangeRefused> {
        if self.transfer.is_some() {
            return Err(ChangeRefused::Transferring);
        }
        let early = breaks!(common.config, EarlyChange) || planted::on("raft-change-before-own-commit");
        if !self.has_committed_own(common) && !early {
            return Err(ChangeRefused::TooEarly);
        }
        let both = breaks!(common.config, TwoChanges) || planted::on("raft-two-changes-at-once");
        if (!common.history.is_settled() && !both) || common.membership().is_joint() {
            return Err(ChangeRefused::InFlight);
        }
        let next = common.membership().with(changes)?;
        for change in changes {
            if let Change::Promote(id) = *change
                && !self.has_caught_up(common, id)
                && !planted::on("raft-promote-without-catch-up")
            {
                return Err(ChangeRefused::Lags(id));
            }
        }
        Ok(self.append_membership(common, next.encode(context)))
    }

    fn append_membership(&mut self, common: &mut Common, payload: Bytes) -> EntryId {
        let id = EntryId::new(common.term, common.log.last().index + 1);
        self.uncommitted_bytes += payload.len();
        common.append(Entry { id, kind: EntryKind::Membership, payload });
        for member in common.membership().all() {
            match self.peers.binary_search_by_key(&member, |peer| peer.id) {
                Ok(position) => self.peers[position].told_until = None,
                Err(_) if member == common.config.id => {}
                Err(position) => self.peers.insert(position, Progress::new(member, id.index, common.now)),
            }
        }
        self.dirty = true;
        id
    }

    /// How little it may lack does not say that it has anything: who begins with the state before the first entry of a
    /// short log lacks little. One entry, acknowledged, says that its log can be written.
    fn has_caught_up(&self, common: &Common, id: MemberId) -> bool {
        let end = common.log.last().index;
        self.peers.iter().any(|peer| {
            peer.id == id
                && peer.state == PeerState::Replicate
                && peer.matched > 0
                && common.now.since(peer.heard_at) < common.config.election_timeout
                && peer.matched + common.config.promote_lag_max >= end
        })
    }

    /// What a committed membership asks of its leader: to leave a joint one, to tell those who were removed, to go
    /// if it was removed itself.
    fn follow_up(&mut self, common: &mut Common) {
        let early = planted::on("raft-joint-left-too-early") && common.membership().is_joint();
        if (!common.history.is_settled() && !early) || !self.has_committed_own(common) {
            return;
        }
        let members = common.membership();
        let (now, timeout) = (common.now, common.config.election_timeout);
        for peer in self.peers.iter_mut().filter(|peer| !members.contains(peer.id)) {
            peer.told_until.get_or_insert(now + timeout);
        }
        self.peers.retain(|peer| peer.told_until.is_none_or(|until| now < until));
        if members.is_joint() {
            if self.transfer.is_none() {
                let left = members.left().encode(&[]);
                self.append_membership(common, left);
            }
            return;
        }
        if !members.is_voter(common.config.id) {
            let leave_by = *self.leave_by.get_or_insert(now + timeout);
            if self.transfer.is_none()
                && let Some(to) = self.best_target(common)
            {
                self.transfer = Some(Transfer { to, until: leave_by, sent: false });
            }
        }
    }

    /// A leader that was removed told its successor, so nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.leave_by.is_some() && self.transfer.as_ref().is_some_and(|transfer| transfer.sent)
    }

    // ---- Time

    pub fn deadline(&self, common: &Common) -> Mono {
        let heartbeat = self.peers.iter().map(|peer| peer.round_sent_at).min();
        let heartbeat = heartbeat.map_or(Mono::NEVER, |at| at + common.config.heartbeat_interval);
        let transfer = self.transfer.as_ref().map_or(Mono::NEVER, |transfer| transfer.until);
        let leave = self.leave_by.unwrap_or(Mono::NEVER);
        heartbeat.min(transfer).min(leave).min(self.quorum_until(common))
    }

    /// When this leader steps down unless it hears from a quorum (thesis §6.2).
    fn quorum_until(&self, common: &Common) -> Mono {
        if common.membership().is_only_voter(common.config.id) {
            return Mono::NEVER;
        }
        self.agreed(common, common.now, |peer| peer.heard_at) + common.config.election_timeout
    }

    /// False: the quorum is lost and so is leadership.
    pub fn tick(&mut self, common: &Common) -> bool {
        if common.now >= self.quorum_until(common) || self.leave_by.is_some_and(|by| common.now >= by) {
            return false;
        }
        if self.transfer.as_ref().is_some_and(|transfer| common.now >= transfer.until) {
            self.transfer = None;
        }
        self.dirty = true;
        true
    }

    // ---- Hand-over

    pub fn transfer(&mut self, common: &Common, to: MemberId) -> Result<(), TransferRefused> {
        match &self.transfer {
            Some(transfer) if to == transfer.to || to == 0 => return Ok(()),
            Some(_) => return Err(TransferRefused::Transferring),
            None => {}
        }
        let to = if to == 0 { self.best_target(common).ok_or(TransferRefused::NoTarget)? } else { to };
        if to == common.config.id || !common.membership().voters.contains(&to) {
            return Err(TransferRefused::BadTarget);
        }
        let until = common.now + common.config.election_timeout;
        self.transfer = Some(Transfer { to, until, sent: false });
        self.dirty = true;
        Ok(())
    }

    /// The voter that holds most of our log among those that answered lately; of equals the first.
    fn best_target(&self, common: &Common) -> Option<MemberId> {
        let lately = common.config.heartbeat_interval.saturating_mul(3);
        self.peers
            .iter()
            .filter(|peer| common.membership().voters.contains(&peer.id) && peer.round_answered > 0)
            .filter(|peer| common.now.since(peer.heard_at) <= lately)
            .max_by_key(|peer| (peer.matched, std::cmp::Reverse(peer.id)))
            .map(|peer| peer.id)
    }

    fn hand_over(&mut self, common: &mut Common) {
        let Some(transfer) = &mut self.transfer else { return };
        if transfer.sent {
            return;
        }
        let (to, last) = (transfer.to, common.log.last().index);
        let caught_up = self.peers.iter().any(|peer| peer.id == to && peer.matched == last);
        // Who leaves for good will not learn any more what became of the rest, so it waits for that.
        let settled = self.leave_by.is_none() || common.log.commit() == last;
        if caught_up && settled {
            transfer.sent = true;
            let kept =
                breaks!(common.config, LeaseThroughTransfer) || planted::on("raft-lease-kept-in-transfer");
            self.lease_given_up = !kept;
            common.send_now(to, MessageBody::TimeoutNow);
        }
    }

    // ---- Sending

    /// Draws the consequences of everything since the last flush.
    pub fn flush(&mut self, common: &mut Common, view: &impl LogView) {
        self.dirty = false;
        self.advance_commit(common);
        self.follow_up(common);
        self.answer_reads(common);
        // Answers to rounds that begin now prove leadership after every read that waits.
        let round_wanted = self.reads.back().map_or(0, |read| read.round);
        for position in 0..self.peers.len() {
            self.send_entries(common, position, view);
            let peer = &self.peers[position];
            let due = common.now >= peer.round_sent_at + common.config.heartbeat_interval;
            let confirms = peer.round_sent < round_wanted && common.membership().is_voter(peer.id);
            if due || confirms {
                self.send_heartbeat(common, position, view);
            } else {
                self.tell_commit(common, position, view);
            }
        }
        self.hand_over(common);
        common.last_round = self.rounds.last;
    }

    /// Commits by counting entries of this term only; what came before goes along (paper §5.4.2, figure 8).
    fn advance_commit(&mut self, common: &mut Common) {
        let before = common.log.commit();
        let early = breaks!(common.config, EarlyOwnCount) || planted::on("raft-leader-counts-itself-early");
        let own = if early { common.log.last().index } else { common.log.durable() };
        let reached = self.agreed(common, own, |peer| peer.matched);
        let ours = self.term_start.max(before + 1);
        let figure_8 = breaks!(common.config, EarlierTerms) || planted::on("raft-figure-8-commit");
        if reached <= before || (reached < ours && !figure_8) {
            return;
        }
        if ours <= reached {
            self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(common.log.bytes(ours, reached));
        }
        common.commit_to(reached);
    }

    fn answer_reads(&mut self, common: &mut Common) {
        let too_early = !self.has_committed_own(common) && !breaks!(common.config, ReadBeforeOwn);
        if self.reads.is_empty() || too_early {
            return;
        }
        let mut confirmed = self.agreed(common, u64::MAX, |peer| peer.round_answered);
        if breaks!(common.config, UnconfirmedRead) {
            confirmed = u64::MAX;
        }
        while self.reads.front().is_some_and(|read| read.round <= confirmed) {
            let read = self.reads.pop_front().expect("the front was just seen");
            let index = Some(read.index.unwrap_or(common.log.commit()));
            common.out.reads.push(ReadReady { id: read.id, index });
        }
    }

    /// The round that a message leaving now belongs to.
    fn round(&mut self, common: &Common) -> u64 {
        let lease = common.config.lease;
        let read_needs = self.reads.back().is_some_and(|read| read.round > self.rounds.last);
        let current = self.rounds.began_at.back().is_some_and(|at| common.now.since(*at) < lease / 256);
        if read_needs || !current {
            self.rounds.last += 1;
            self.rounds.began_at.push_back(common.now);
            while self.rounds.began_at.front().is_some_and(|at| common.now.since(*at) > lease) {
                self.rounds.began_at.pop_front();
            }
        }
        self.rounds.last
    }

    fn send_entries(&mut self, common: &mut Common, position: usize, view: &impl LogView) {
        if self.peers[position].blank && self.peers[position].may_send(&common.config) {
            return self.request_snapshot(common, position, view);
        }
        let last = common.log.last().index;
        while self.peers[position].next <= last && self.peers[position].may_send(&common.config) {
            let next = self.peers[position].next;
            let entries = match common.log.term(next - 1, view) {
                None => Err(LogGap::Compacted),
                Some(_) => common.log.entries(next, last, common.config.append_bytes_max, view),
            };
            match entries {
                Ok(entries) if !entries.is_empty() => {
                    let through = entries[entries.len() - 1].id.index;
                    let bytes = entries.iter().map(|entry| entry.payload.len()).sum();
                    self.send_append(common, position, next - 1, entries, view);
                    self.peers[position].sent(through, bytes);
                }
                Ok(_) | Err(LogGap::NotNow) => return,
                Err(LogGap::Compacted) => return self.request_snapshot(common, position, view),
            }
        }
    }

    /// A snapshot costs much, so it is only sent to a member that answers, and not to one that was removed.
    fn request_snapshot(&mut self, common: &mut Common, position: usize, view: &impl LogView) {
        let peer = &mut self.peers[position];
        if !common.membership().contains(peer.id)
            || peer.round_answered == 0
            || common.now.since(peer.heard_at) >= common.config.election_timeout
        {
            peer.paused = true;
            return;
        }
        peer.needs_snapshot();
        common.out.snapshots.push((peer.id, view.first_index().saturating_sub(1)));
    }

    /// An append without entries. While probing it is also the next attempt.
    fn send_heartbeat(&mut self, common: &mut Common, position: usize, view: &impl LogView) {
        let peer = &mut self.peers[position];
        let previous = match peer.state {
            PeerState::Probe | PeerState::Replicate => peer.next - 1,
            PeerState::Snapshot => peer.matched,
        };
        // Where the log before `next` is released, ask for the last released entry: a member that holds it needs
        // no snapshot, and would refuse one. What was sent before that cannot be asked for any more, so a
        // pipeline must not rely on it.
        let held = common.log.term(previous, view).is_some();
        let previous = if held { previous } else { view.first_index().saturating_sub(1) };
        if !held && peer.state == PeerState::Replicate {
            peer.probe_from(0);
        }
        self.send_append(common, position, previous, Vec::new(), view);
    }

    fn tell_commit(&mut self, common: &mut Common, position: usize, view: &impl LogView) {
        let peer = &mut self.peers[position];
        let news = common.log.commit().min(peer.next - 1);
        if peer.state != PeerState::Replicate || peer.commit_told >= news {
            return;
        }
        let Some(previous) = common.log.id(peer.next - 1, view) else { return };
        peer.commit_told = news;
        let (to, commit) = (peer.id, common.log.commit());
        common.send_now(to, MessageBody::Append { previous, entries: Vec::new(), commit, round: 0 });
    }

    fn send_append(
        &mut self,
        common: &mut Common,
        position: usize,
        previous: Index,
        entries: Vec<Entry>,
        view: &impl LogView,
    ) {
        let round = self.round(common);
        let previous = common.log.id(previous, view).expect("entries are sent behind one that is held");
        let commit = common.log.commit();
        let peer = &mut self.peers[position];
        peer.round_sent = round;
        peer.round_sent_at = common.now;
        peer.commit_told = commit.min(previous.index + entries.len() as u64);
        let to = peer.id;
        common.send_now(to, MessageBody::Append { previous, entries, commit, round });
    }
}
