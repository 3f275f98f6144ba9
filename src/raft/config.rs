//! What a core is told at its birth, and the ways in which it can say no.

use crate::base::limits::APPEND_BYTES_MAX;
use crate::base::time::{MS, Nanos};
use crate::base::{EntryId, Index, MemberId, Mono};

use super::types::{HardState, Membership, Memory};

/// Settings that stay for the life of the core.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member; never 0.
    pub id: MemberId,
    /// A follower that hears nothing for a random time between one and two of these asks for pre-votes. A
    /// leader that hears no quorum for one of these steps down.
    pub election_timeout: Nanos,
    /// An idle leader sends this often; appends count as heartbeats.
    pub heartbeat_interval: Nanos,
    /// How long a member grants no vote after it heard from a leader, and after its own restart.
    pub lease: Nanos,
    /// How far the rate of a clock may be off, in thousandths of true time. A leader trusts a lease only for
    /// `lease × (1 − 2 × drift)`: its own clock may be slow and the follower's fast.
    pub drift_permille: u64,
    /// Serve reads under the lease. Off: each read index waits for a confirmed round.
    pub lease_reads: bool,
    /// Ask before campaigning (thesis §9.6).
    pub pre_vote: bool,
    /// Payload bytes of one append; one entry is always sent.
    pub append_bytes_max: usize,
    /// Appends with entries under way to one follower.
    pub inflight_messages_max: usize,
    /// Their payload bytes; one message is always allowed.
    pub inflight_bytes_max: usize,
    /// Payload bytes proposed and not committed; beyond it proposals are refused as busy.
    pub uncommitted_bytes_max: usize,
    /// Payload bytes of entries kept in memory after they are durable and applied.
    pub memory_bytes_max: usize,
    /// Payload bytes of committed entries in one Ready; one entry is always handed out.
    pub committed_bytes_max: usize,
    /// A learner is promoted only if it trails the end of the log by at most this many entries.
    pub promote_lag_max: u64,
    /// A rule to break, so that whoever searches for broken rules can be tested.
    #[cfg(feature = "sim")]
    pub planted: Option<super::explore::Planted>,
    /// Of the dice that spread election timeouts. Different in every member.
    pub seed: u64,
}

impl Config {
    /// The defaults of the product: election timeout 1 s, heartbeats each 100 ms, lease half the timeout.
    pub fn new(id: MemberId, seed: u64) -> Config {
        Config {
            id,
            election_timeout: 1_000 * MS,
            heartbeat_interval: 100 * MS,
            lease: 500 * MS,
            drift_permille: 20,
            lease_reads: true,
            pre_vote: true,
            append_bytes_max: APPEND_BYTES_MAX,
            inflight_messages_max: 256,
            inflight_bytes_max: 16 << 20,
            uncommitted_bytes_max: 256 << 20,
            memory_bytes_max: 4 << 20,
            committed_bytes_max: 4 << 20,
            promote_lag_max: 1_000,
            #[cfg(feature = "sim")]
            planted: None,
            seed,
        }
    }

    /// The first relation between the settings that does not hold, as a line for the operator.
    pub fn check(&self) -> Result<(), String> {
        if self.id == 0 {
            return Err("a member id of 0 means nobody".into());
        }
        if self.heartbeat_interval == 0 {
            return Err("the heartbeat interval must be above zero".into());
        }
        if self.election_timeout < 5 * self.heartbeat_interval {
            return Err(format!(
                "the election timeout ({} ms) must be at least five heartbeat intervals ({} ms each)",
                self.election_timeout / MS,
                self.heartbeat_interval / MS
            ));
        }
        if self.lease > self.election_timeout || self.lease == 0 {
            return Err(format!(
                "the lease ({} ms) must be above zero and at most the election timeout ({} ms)",
                self.lease / MS,
                self.election_timeout / MS
            ));
        }
        if self.drift_permille >= 500 {
            return Err(format!("a clock drift of {} permille leaves no lease", self.drift_permille));
        }
        Ok(())
    }

    /// How long a leader may trust a lease, counted from the send. A follower's promise lasts at least
    /// `lease / (1 + ρ)` of true time and this many local nanoseconds last at most `lease × (1 − 2ρ) / (1 − ρ)`;
    /// `(1 − 2ρ)(1 + ρ) < 1 − ρ`, so the leader's end comes first.
    pub(super) fn trusted(&self, lease: Nanos) -> Nanos {
        lease / 1_000 * (1_000 - 2 * self.drift_permille)
    }

    /// The distance in time between two members that would otherwise campaign together.
    pub(super) fn slot(&self) -> Nanos {
        (self.heartbeat_interval / 2).max(1)
    }
}

/// What survived the last run.
#[derive(Clone, Debug)]
pub struct Start {
    pub hard_state: HardState,
    /// The membership as of `applied`, joint or not; what the log holds behind that is found there. Empty at
    /// `applied` zero: a member that was added to a running cluster, and is brought up by a snapshot.
    pub membership: Membership,
    /// The last entry whose effects the state machine holds durably. The log holds it, or begins right behind it.
    pub applied: EntryId,
    pub memory: Memory,
    /// The longest lease that this member may have promised before it stopped, 0 if it promised none: settings may have
    /// changed since.
    pub promised: Nanos,
    /// Nobody else was ever a member: no other leader can rest a lease on this one.
    pub solitary: bool,
}

/// Why a request was not taken. Nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Ask `leader` (0: none is known; ask again soon).
    NotLeader { leader: MemberId },
    /// Too much is waiting to be committed or confirmed; ask again soon.
    Busy,
    /// Leadership is being handed over; ask the new leader, or here again after an election timeout.
    Transferring,
}

/// Why a change of the membership was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeRefused {
    NotLeader {
        leader: MemberId,
    },
    /// Leadership is being handed over; ask the new leader.
    Transferring,
    /// The last change is not committed, or not left yet; ask again soon.
    InFlight,
    /// Nothing of the leader's term is committed yet; ask again soon. Without this rule two leaders could begin
    /// changes from one membership that do not meet (Ongaro's correction of 2015 to the thesis's §4.1).
    TooEarly,
    Exists(MemberId),
    NoMember(MemberId),
    /// Only learners are promoted.
    NotLearner(MemberId),
    /// The learner trails too far behind, or does not answer.
    Lags(MemberId),
    /// The same member is named twice in one change.
    Twice(MemberId),
    NoVoterLeft,
    /// More than [`MEMBERS_MAX`](crate::base::limits::MEMBERS_MAX).
    TooMany,
}

/// Why a transfer did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferRefused {
    NotLeader {
        leader: MemberId,
    },
    /// The target is this member, a learner, or not a member.
    BadTarget,
    /// Nobody could take over: no other voter answered lately.
    NoTarget,
    /// Another transfer is under way.
    Transferring,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Follower,
    /// Asks whether an election could be won.
    PreCandidate,
    Candidate,
    Leader,
}

/// What a leader knows of another member; for status and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStanding {
    pub id: MemberId,
    pub learner: bool,
    /// Everything up to here is durable there.
    pub matched: Index,
    /// Appends with entries under way.
    pub inflight_messages: usize,
    pub state: PeerState,
    /// When it last answered; the start of the term before that.
    pub heard_at: Mono,
}

/// How a leader sends to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// One message at a time, to find where the logs part.
    Probe,
    /// A pipeline.
    Replicate,
    /// Needs a snapshot; only heartbeats go there.
    Snapshot,
}
