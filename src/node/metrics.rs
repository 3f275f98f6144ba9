//! What the node counts, put together for whoever asks. Most is counted where it happens; what a moment's state
//! tells is read when somebody asks, at the cost of a few descents.

use std::collections::BTreeMap;

use super::Node;
use super::writes::{Asker, Write};
use crate::api::metrics::{Counts, Gauges, Shell};
use crate::api::{Body, Code, Metrics, Range, Span};
use crate::base::limits::MEMBERS_MAX;
use crate::base::{Histogram, MemberId, Mono};
use crate::io::Disk;
use crate::raft::{Message, MessageBody};

/// The node's own counters.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    /// By member, as leader.
    round_trips: BTreeMap<MemberId, Histogram>,
    /// Who was last seen to lead.
    leader: MemberId,
}

impl Tally {
    /// Who leads now, as far as is known; 0: nobody.
    pub(super) fn see_leader(&mut self, leader: MemberId) {
        if leader != self.leader && leader != 0 {
            self.counts.leader_changes += 1;
        }
        self.leader = leader;
    }
}

impl<D: Disk> Node<D> {
    pub(super) fn metrics(&self) -> Metrics {
        let mut everything = Range::new(Span::Prefix(Default::default()));
        everything.count_only = true;
        // Damage is told by whoever has to answer for keys; a count of them is none of those.
        let keys = self.store.range(&everything).ok().and_then(Result::ok).map_or(0, |range| range.count);
        let (pending_bytes, pending) = self.writes.load();
        let watches = self.watches.standing();
        let gauges = Gauges {
            proposals_pending: pending as u64,
            proposal_bytes_pending: pending_bytes as u64,
            reads_pending: self.reads.waiting() as u64,
            keys,
            watchers: watches.watchers as u64,
            watch_streams: watches.connections as u64,
            slow_watchers: watches.slow as u64,
            installing: self.snapshots.installing(),
            dirty_bytes: self.store.dirty_bytes(),
            quota_bytes: self.config.quota_bytes.unwrap_or(0),
            repairing: self.is_recovering(),
        };
        let known = self.members();
        let round_trips = self.tally.round_trips.iter();
        Metrics {
            status: self.status(),
            counts: self.tally.counts,
            gauges,
            round_trips: round_trips
                .filter(|(id, _)| known.iter().any(|member| member.id == **id))
                .map(|(id, times)| (*id, *times))
                .collect(),
            shell: Shell::default(),
        }
    }

    /// An answer to one of this leader's rounds tells how long that took. One that comes when the round is long past
    /// tells nothing that the counts of lost leadership do not.
    pub(super) fn note_round_trip(&mut self, message: &Message, now: Mono) {
        let MessageBody::AppendAccepted { round, .. } = message.body else { return };
        let Some(began_at) = self.raft.round_began_at(round) else { return };
        let times = &mut self.tally.round_trips;
        if times.len() >= 2 * MEMBERS_MAX && !times.contains_key(&message.from) {
            return; // Members came and went; the process keeps no history of all of them.
        }
        times.entry(message.from).or_default().observe(now.since(began_at));
    }

    /// A write is answered.
    pub(super) fn note_write(&mut self, write: &Write, answer: &Body) {
        if let Asker::Client { .. } = write.asker {
            let begun_at = write.deadline - self.config.request_timeout();
            self.tally.counts.writes.observe(self.now.since(begun_at));
        }
        if let Body::Fault(fault) = answer
            && matches!(fault.code, Code::Timeout | Code::NoLeader)
        {
            self.tally.counts.proposals_failed += 1;
        }
    }
}
