//! What goes into the core and what comes out of it, as values.

use bytes::Bytes;

use crate::base::{EntryId, Index, MemberId, Mono, Term};

/// One entry of the replicated log. The payload is opaque here and shared, never copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: EntryId,
    pub kind: EntryKind,
    pub payload: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A client's command; an empty payload is the no-op that begins a leader's term.
    Normal,
    /// A change of the membership.
    Membership,
}

/// What a member must never forget: written as one record, synced before anything that depends on it leaves.
/// The commit index is not part of it: the tree's applied index is a durable lower bound, and the leader
/// tells the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    pub term: Term,
    /// Who got this member's vote in `term`; 0 = nobody.
    pub vote: MemberId,
}

/// Who votes. During a joint change `outgoing` is not empty, and a decision needs a majority of both sets
/// (thesis §4.3). Sets are sorted and without repeats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub voters: Vec<MemberId>,
    pub outgoing: Vec<MemberId>,
    pub learners: Vec<MemberId>,
}

/// A message between two cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub from: MemberId,
    pub to: MemberId,
    /// The sender's term; for a pre-vote and its grant, the term that the candidate would have.
    pub term: Term,
    pub body: MessageBody,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageBody {
    /// Would you vote for me? Changes nothing at either end (thesis §9.6).
    PreVote {
        last: EntryId,
    },
    PreVoteReply {
        granted: bool,
    },
    /// `transfer`: the leader asked for this election, so its lease does not stand against it (thesis §3.10).
    Vote {
        last: EntryId,
        transfer: bool,
    },
    VoteReply {
        granted: bool,
    },
    /// Entries that follow `previous` (none: a heartbeat or a probe).
    Append {
        previous: EntryId,
        entries: Vec<Entry>,
        commit: Index,
        /// Echoed by the reply. Rises with every message of a leader: says which send a lease or a read
        /// index may count from.
        round: u64,
    },
    /// All of the leader's log up to `matched` is durable here.
    AppendAccepted {
        matched: Index,
        round: u64,
    },
    /// The log does not hold `previous`. `hint`: the greatest entry here that may still match (thesis §5.3's
    /// fast back-off); `last`: the last index here.
    AppendRejected {
        previous: Index,
        hint: EntryId,
        last: Index,
        round: u64,
    },
    /// Leadership is handed to you: campaign at once (thesis §3.10).
    TimeoutNow,
}

/// Read access to entries that are no longer in the core's memory. Implemented by the WAL, faked by tests.
pub trait LogView {
    /// First index that can still be read, and the last one.
    fn first_index(&self) -> Index;
    fn last_index(&self) -> Index;
    /// The term of an entry in `first_index - 1 ..= last_index`; None outside.
    fn term(&self, index: Index) -> Option<Term>;
    /// Entries `from..=to`, cut after `bytes_max` of payload (but at least one).
    fn entries(&self, from: Index, to: Index, bytes_max: usize) -> Result<Vec<Entry>, LogGap>;
}

/// Why entries cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogGap {
    /// Released: only a snapshot helps.
    Compacted,
    /// On disk and being fetched; ask again when the shell says so.
    NotNow,
}

/// Everything to be done after a step. Number `n` is acknowledged by `persisted(n)`, and all before with it.
///
/// The contract: `messages_now` may leave at once and carry no claim of durability (a leader's appends
/// travel while its own disk works). `hard_state` and `entries` must be durable before `persisted(n)` is
/// called and before any of `messages_after` leaves (votes, acknowledgements). `entries` may begin at or
/// before the log's last index: then the old entries from there on are replaced.
#[derive(Debug, Default)]
pub struct Ready {
    pub number: u64,
    pub hard_state: Option<HardState>,
    pub entries: Vec<Entry>,
    pub messages_now: Vec<Message>,
    pub messages_after: Vec<Message>,
    /// Committed and not handed out before, in order. May trail the commit index; ask again.
    pub committed: Vec<Entry>,
    /// Reads that may be served once `index` is applied.
    pub reads: Vec<ReadReady>,
    /// These members need a snapshot of the state at or after the index.
    pub snapshots: Vec<(MemberId, Index)>,
}

/// The answer to a read-index request; `index` is None where leadership was lost or could not be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReady {
    pub id: u64,
    pub index: Option<Index>,
}

/// When the lease of the leader ends, and who leads: what the shell may want to know at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub term: Term,
    /// 0 = none known.
    pub leader: MemberId,
    pub commit: Index,
    pub lease_until: Mono,
}
