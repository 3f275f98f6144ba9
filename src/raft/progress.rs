//! What a leader knows of another member, and how much it may send there.
//!
//! ```text
//!                 rejected, connection lost
//!            +----------------------------------+
//!            v                                  |
//!         Probe ------ accepted up to next-1 --> Replicate
//!          ^  |                                  ^
//!   report |  | the entry before `next`          | accepted what the log continues
//!   (any)  |  v is released, the member answers  |
//!         Snapshot ------------------------------+
//! ```
//!
//! Always: `matched < next`, and `matched` never falls (a member that acknowledged an entry of this leader holds
//! it for good). Only Replicate advances `next` before an answer.

use std::collections::VecDeque;

use crate::base::{Index, MemberId, Mono};

use super::config::{Config, PeerState};

#[derive(Clone)]
pub(super) struct Progress {
    pub id: MemberId,
    /// All of our log up to here is durable there.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    pub state: PeerState,
    /// Probe: a message is under way, or a fresh attempt would be too soon. The answer to the next heartbeat
    /// ends the pause at the latest.
    pub paused: bool,
    /// Appends with entries that are not acknowledged: their last index and payload bytes.
    pub(super) inflight: VecDeque<(Index, usize)>,
    inflight_bytes: usize,
    /// When it last answered in this term; the start of the term before that.
    pub heard_at: Mono,
    /// The greatest round it answered; 0 before the first answer in this term.
    pub round_answered: u64,
    /// When that round was sent, by our clock; zero if it never answered.
    pub answered_sent_at: Mono,
    /// The greatest round sent there, and when.
    pub round_sent: u64,
    pub round_sent_at: Mono,
    /// The commit index that it can have learnt from us.
    pub commit_told: Index,
    /// It is blank: no entry helps, only a snapshot.
    pub blank: bool,
    /// It was removed, and is told so until then.
    pub told_until: Option<Mono>,
}

impl Progress {
    pub fn new(id: MemberId, next: Index, now: Mono) -> Progress {
        Progress {
            id,
            matched: 0,
            next,
            state: PeerState::Probe,
            paused: false,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            heard_at: now,
            round_answered: 0,
            answered_sent_at: Mono(0),
            round_sent: 0,
            round_sent_at: Mono(0),
            commit_told: 0,
            blank: false,
            told_until: None,
        }
    }

    pub fn inflight_messages(&self) -> usize {
        self.inflight.len()
    }

    /// Whether another append with entries may leave.
    pub fn may_send(&self, config: &Config) -> bool {
        match self.state {
            PeerState::Probe => !self.paused,
            PeerState::Replicate => {
                self.inflight.len() < config.inflight_messages_max
                    && self.inflight_bytes < config.inflight_bytes_max
            }
            PeerState::Snapshot => false,
        }
    }

    /// Any answer to `round`, of which the message began at `began_at` (unknown if that is long ago).
    pub fn answered(&mut self, round: u64, began_at: Option<Mono>, now: Mono) {
        self.heard_at = now;
        self.round_answered = self.round_answered.max(round);
        self.answered_sent_at = self.answered_sent_at.max(began_at.unwrap_or_default());
        // The last message was answered, so nothing is under way that the probe would have to wait for.
        if round >= self.round_sent {
            self.paused = false;
        }
    }

    /// Entries up to `last` left.
    pub fn sent(&mut self, last: Index, bytes: usize) {
        match self.state {
            PeerState::Probe => self.paused = true,
            PeerState::Replicate => {
                assert!(last >= self.next, "a pipeline only goes forward");
                self.next = last + 1;
                self.inflight.push_back((last, bytes));
                self.inflight_bytes += bytes;
            }
            PeerState::Snapshot => unreachable!("no entries are sent while a snapshot is under way"),
        }
    }

    /// It holds everything up to `matched`. `first_index` is the first entry that we can still send.
    pub fn accepted(&mut self, matched: Index, first_index: Index) {
        self.matched = self.matched.max(matched);
        self.blank = false;
        while self.inflight.front().is_some_and(|&(last, _)| last <= matched) {
            let (_, bytes) = self.inflight.pop_front().expect("the front was just seen");
            self.inflight_bytes -= bytes;
        }
        let continues = match self.state {
            // An old acknowledgement, or a claim that trails what is being made durable there, proves nothing
            // about `next`: go on probing.
            PeerState::Probe => matched + 1 >= self.next,
            PeerState::Replicate => true,
            PeerState::Snapshot => matched + 1 >= first_index,
        };
        if continues {
            self.state = PeerState::Replicate;
            self.paused = false;
        }
        self.next = self.next.max(self.matched + 1);
    }

    /// It does not hold the entry `previous`; it may hold our log up to `possible`. False if this is old news.
    pub fn rejected(&mut self, previous: Index, possible: Index) -> bool {
        let current = match self.state {
            // Whatever is not acknowledged may have been rejected.
            PeerState::Replicate => previous > self.matched,
            PeerState::Probe => previous + 1 == self.next,
            PeerState::Snapshot => false,
        };
        if current {
            self.blank = previous == 0;
            self.probe_from(possible.saturating_add(1).min(previous));
        }
        current
    }

    /// Starts to probe at `next`, or right behind what is known to match.
    pub fn probe_from(&mut self, next: Index) {
        self.state = PeerState::Probe;
        self.paused = false;
        self.next = next.max(self.matched + 1);
        self.commit_told = 0;
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    pub fn needs_snapshot(&mut self) {
        self.probe_from(0);
        self.state = PeerState::Snapshot;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicating() -> Progress {
        let mut peer = Progress::new(2, 5, Mono(1));
        peer.sent(5, 10);
        assert!(peer.paused);
        peer.accepted(5, 1);
        assert_eq!((peer.state, peer.next, peer.matched), (PeerState::Replicate, 6, 5));
        peer
    }

    #[test]
    fn the_window_closes_by_messages_and_by_bytes() {
        let config = Config { inflight_messages_max: 2, inflight_bytes_max: 100, ..Config::new(1, 1) };
        let mut peer = replicating();
        peer.sent(6, 1);
        assert!(peer.may_send(&config));
        peer.sent(7, 1);
        assert!(!peer.may_send(&config));
        peer.accepted(6, 1);
        peer.sent(8, 1_000);
        peer.accepted(7, 1);
        assert!(!peer.may_send(&config), "one large message fills the window");
        peer.accepted(8, 1);
        assert!(peer.may_send(&config));
    }

    #[test]
    fn an_old_rejection_changes_nothing() {
        let mut peer = replicating();
        peer.sent(9, 1);
        assert!(!peer.rejected(5, 3));
        assert_eq!((peer.state, peer.next), (PeerState::Replicate, 10));
        assert!(peer.rejected(7, 2));
        assert_eq!((peer.state, peer.next), (PeerState::Probe, 6), "never below what is matched");
        assert!(!peer.rejected(9, 2), "a probe knows which message was rejected");
    }

    #[test]
    fn a_claim_below_the_probe_does_not_end_it() {
        let mut peer = Progress::new(2, 9, Mono(1));
        peer.accepted(4, 1);
        assert_eq!((peer.state, peer.matched, peer.next), (PeerState::Probe, 4, 9));
    }

    #[test]
    fn a_snapshot_ends_where_the_log_continues() {
        let mut peer = Progress::new(2, 3, Mono(1));
        peer.needs_snapshot();
        peer.accepted(2, 8);
        assert_eq!(peer.state, PeerState::Snapshot);
        peer.accepted(7, 8);
        assert_eq!((peer.state, peer.next), (PeerState::Replicate, 8));
    }
}
