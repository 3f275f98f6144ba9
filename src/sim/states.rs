//! What the members' states are: equal behind every entry, and where one is made wrong on purpose, it is noticed.
//!
//! The fault `corrupt-state` makes a member apply one put with another value: the log, the pages and their checksums
//! are all sound, and the state is not. Until the member notices, it may answer wrongly: what it answers then is
//! kept from the clients, because nobody promises that it is right. From the moment that it notices:
//!
//! - V24: it answers no client but with an error, or with its status.
//!
//! The same holds for a member whose disk was damaged in a way that no checksum noticed.
//!
//! And when the faults are over and a majority is there, it must notice (`liveness`, L8).

use super::machine::Process;
use super::world::World;
use crate::api::{Body, PeerCall, Reply};
use crate::base::time::MS;
use crate::base::{Index, Mono};
use crate::node::Outbound;

/// The wrong state of a member.
#[derive(Clone, Copy, Debug)]
pub struct Wrong {
    /// The entry that was applied wrongly.
    pub at: Index,
    pub since: Mono,
    pub noticed: bool,
}

impl World {
    /// Has a member apply its next put wrongly.
    pub(super) fn corrupt_state(&mut self, member: usize) -> bool {
        if !self.may_lose(member) {
            return false;
        }
        let machine = &mut self.machines[member];
        let Some(process) = &mut machine.process else { return false };
        process.node.misapply_next_put();
        (machine.tainted, machine.misapplies) = (true, true);
        true
    }

    /// After a turn: the hash behind every entry that was applied is what it is elsewhere.
    pub(super) fn observe_state(&mut self, member: usize, before: Index, applied: Index) {
        self.look_for_wrong_state(member, applied);
        let now = self.now;
        let machine = &mut self.machines[member];
        let Some(process) = &machine.process else { return };
        for index in before + 1..=applied {
            let Some(hash) = process.node.state_hash_at(index) else { continue };
            if machine.tainted {
                // Its disk may have got past every checksum. Then the hash is what notices.
                if self.watch.hashes.get(&index).is_some_and(|known| *known != hash) {
                    machine.wrong.get_or_insert(Wrong { at: index, since: now, noticed: false });
                }
                continue;
            }
            let known = *self.watch.hashes.entry(index).or_insert(hash);
            if known != hash {
                let what = format!(
                    "behind entry {index} the state hash of member {member} is {hash:016x}, of another {known:016x}"
                );
                return self.fail("V06", what);
            }
        }
    }

    fn look_for_wrong_state(&mut self, member: usize, applied: Index) {
        let right = self.is_right(member);
        let machine = &mut self.machines[member];
        let Some(process) = &machine.process else { return };
        if let Some(at) = process.node.misapplied_at().filter(|_| machine.wrong.is_none()) {
            machine.wrong = Some(Wrong { at, since: self.now, noticed: false });
        }
        // A process that starts from before the entry applies it rightly; a snapshot replaces the state.
        if machine.wrong.is_some_and(|wrong| applied < wrong.at) || right {
            machine.wrong = None;
        }
    }

    /// Whether a member's state is known to be what it should be. Others may get there later than it does.
    fn is_right(&self, member: usize) -> bool {
        let Some(process) = &self.machines[member].process else { return false };
        let applied = process.node.standing().1.index;
        process.node.state_hash_at(applied).is_some_and(|hash| self.watch.hashes.get(&applied) == Some(&hash))
    }

    /// After a turn: the member may have noticed.
    pub(super) fn observe_notice(&mut self, member: usize) {
        let machine = &mut self.machines[member];
        let (Some(wrong), Some(process)) = (&mut machine.wrong, &machine.process) else { return };
        if wrong.noticed || !process.node.is_diverged() {
            return;
        }
        wrong.noticed = true;
        let entries = process.node.standing().1.index - wrong.at;
        let nanos = self.now.since(wrong.since);
        self.tally.noticed += 1;
        self.tally.notice_nanos_max = self.tally.notice_nanos_max.max(nanos);
        self.tally.notice_entries_max = self.tally.notice_entries_max.max(entries);
        self.trace.line(self.now, member as u64, || {
            format!("notices a wrong state after {} ms and {entries} entries", nanos / MS)
        });
    }

    /// A wrong leader that is still believed sends its state to a follower that is out of date: if nobody is there who
    /// could contradict in time, the two can outvote the third. Nobody promises to survive that, so such a member
    /// is lost at this moment instead.
    pub(super) fn loses_wrong_sender(&mut self, member: usize, messages: &[Outbound]) -> bool {
        let sends = |message: &Outbound| {
            matches!(message, Outbound::Call { call: PeerCall::SnapshotChunk { .. }, .. })
        };
        if self.machines[member].wrong.is_none() || !messages.iter().any(sends) {
            return false;
        }
        self.trace.line(self.now, member as u64, || "is lost before its wrong state spreads".into());
        self.end_process(member, true);
        (self.machines[member].gone, self.machines[member].powerless) = (true, true);
        true
    }

    /// Whether an answer reaches its client: that of a wrong state does not.
    pub(super) fn may_be_believed(&mut self, member: usize, reply: &Reply) -> bool {
        let machine = &self.machines[member];
        let Some(process) = &machine.process else { return true };
        let of_itself = matches!(reply.body, Body::Fault(_) | Body::Status(_) | Body::Metrics(_));
        if of_itself || matches!(reply.body, Body::LeaderMoved | Body::Unwatched { .. }) {
            return true;
        }
        if process.node.is_diverged() {
            self.fail("V24", format!("member {member} knows that its state is wrong, and answers {reply:?}"));
        }
        self.machines[member].wrong.is_none()
    }

    /// Whether members are in doubt whose state is wrong: the others lag, and nobody may send them its own.
    pub(super) fn in_doubt(&self) -> bool {
        let doubts = |member: usize| {
            self.machines[member].process.as_ref().is_some_and(|process| process.node.is_doubtful())
        };
        self.enrolled().into_iter().any(doubts)
    }

    /// Members whose state is wrong and that neither know nor suspect it.
    pub(super) fn unnoticed(&self) -> Vec<usize> {
        let unnoticed = |member: &usize| {
            let machine = &self.machines[*member];
            let knows = |process: &Process| process.node.is_diverged() || process.node.is_doubtful();
            let knows = machine.process.as_deref().is_some_and(knows);
            machine.wrong.is_some() && !machine.gone && !knows && !self.is_right(*member)
        };
        self.enrolled().into_iter().filter(unnoticed).collect()
    }
}
