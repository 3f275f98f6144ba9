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

/// Whether a member knows what it promised before it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    #[default]
    Whole,
    /// What its log held is gone, or part of it: votes and acknowledgements that others may count on.
    Lost,
    /// There is nothing, and perhaps there never was: the first start of a cluster, or an empty disk.
    Fresh,
}

/// Who votes. During a joint change `outgoing` is not empty, and a decision needs a majority of both sets
/// (thesis §4.3). Sets are sorted and without repeats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub voters: Vec<MemberId>,
    pub outgoing: Vec<MemberId>,
    pub learners: Vec<MemberId>,
}

impl Membership {
    /// Counts in elections and commits (in one of the two sets at least).
    pub fn is_voter(&self, id: MemberId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    pub fn contains(&self, id: MemberId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Everybody once, in the order of ids.
    pub fn all(&self) -> Vec<MemberId> {
        let mut all = [&self.voters[..], &self.outgoing, &self.learners].concat();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// How many vote, in one of the sets at least.
    pub fn voter_count(&self) -> usize {
        let old = self.outgoing.iter().filter(|id| !self.voters.contains(id)).count();
        self.voters.len() + old
    }

    /// How many vote in the smaller set.
    pub fn voters_min(&self) -> usize {
        match self.outgoing.len() {
            0 => self.voters.len(),
            old => old.min(self.voters.len()),
        }
    }

    /// Whether `id` alone decides everything.
    pub fn is_only_voter(&self, id: MemberId) -> bool {
        self.voters == [id] && self.outgoing.iter().all(|&other| other == id)
    }
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
        /// Echoed by the reply, and says which send a lease or a read index may count from: messages of one
        /// round left at or after the time that the leader noted for it. Never used twice by one leader.
        /// 0: news of `commit` alone, no answer is wanted.
        round: u64,
    },
    /// All of the leader's log up to `matched` is durable here.
    AppendAccepted {
        matched: Index,
        /// 0: answers no round (a snapshot was installed).
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
    /// This member lost its memory and asks for the terms of the others. `life` was drawn for this question.
    Inquire {
        life: u64,
    },
    /// The term is that of the message; memory and log are those of the member that answers.
    Inquired {
        life: u64,
        memory: Memory,
        last: EntryId,
    },
    /// An append of an earlier term came to a member that lost its memory, and takes part from this term on only.
    Forgot,
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

/// Everything to be done after a step.
///
/// The contract:
/// 1. `messages_now` may leave at once: they claim no durability that is not there (a leader's appends travel
///    while its own disk works).
/// 2. If [`Ready::has_writes`], `hard_state` and `entries` are written as one batch, synced, and acknowledged by
///    `persisted(number)`, which acknowledges all numbers before it too. `entries` may begin at or before the
///    log's last index: then the old entries from there on are replaced. The [`LogView`] shows the batch as soon
///    as it was handed over, before it is durable.
/// 3. `messages_after` (votes, acknowledgements) leave once `number` is persisted. A Ready that has nothing to
///    write repeats the number of the last write; where that one is persisted already, the list is empty.
/// 4. `committed` entries are applied in order and acknowledged by `applied`. They are durable here.
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

impl Ready {
    /// Whether there is a batch for the log, to be acknowledged by `persisted(number)`.
    pub fn has_writes(&self) -> bool {
        self.hard_state.is_some() || !self.entries.is_empty()
    }
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
