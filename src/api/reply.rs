//! What can be answered.

use std::sync::Arc;

use bytes::Bytes;

use super::{Alarm, Event, Fault, LeaseAnswer, Metrics, Reply, TxnResult};
use crate::base::{ClusterId, Index, LeaseId, MemberId, Revision, Term};

/// Who answered, and when in the store's and the cluster's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub cluster: ClusterId,
    pub member: MemberId,
    /// The store's revision when the answer was made; of a range of now, the one that was read.
    pub revision: Revision,
    pub term: Term,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// `previous` is Some exactly when it was asked for; the inner None means that there was none.
    Put {
        revision: Revision,
        previous: Option<Option<KeyValue>>,
    },
    Range(RangeResult),
    /// Some of an answer that is too large for one reply.
    RangePart(RangePart),
    /// How many there are.
    Exists(u64),
    /// `previous` is filled when it was asked for. `revision` is the store's after the delete.
    Delete {
        revision: Revision,
        deleted: u64,
        previous: Vec<KeyValue>,
    },
    Txn(TxnResult),
    /// What can only be seen before this revision is gone.
    Compacted {
        revision: Revision,
    },
    Lease(LeaseAnswer),
    /// The room has been given back.
    Defragmented,
    Hash(u32),
    /// `revision`: up to which. Of what was before the compact revision only that counts which is still seen.
    HashKv {
        hash: u32,
        revision: Revision,
        compact_revision: Revision,
    },
    /// The next bytes of a snapshot's file, and how many follow without the checksum, which comes last, by itself.
    SnapshotPart {
        bytes: Bytes,
        remaining_bytes: u64,
    },
    /// Those that stand; or, of a change of them, those that were raised or ended.
    Alarms(Vec<Alarm>),
    /// A lock, or leadership: under which key, and when that was created, the fencing revision.
    Acquired {
        key: Bytes,
        revision: Revision,
    },
    Status(Box<Status>),
    /// This member knows a leader and is in a state to answer.
    Serves(bool),
    Metrics(Box<Metrics>),
    Members(Vec<Member>),
    /// Who was added, and everybody.
    MemberAdded {
        member: Box<Member>,
        members: Vec<Member>,
    },
    /// Another member leads, as was asked for.
    LeaderMoved,
    /// The watch has begun. What follows under its tag are the next three, of which the last ends it.
    Watching,
    /// All that one revision did to the keys of the watch, in the order in which it happened.
    Events {
        revision: Revision,
        events: Vec<Arc<Event>>,
    },
    /// Everything up to this revision has been sent. Also the answer to a request for it.
    Progress {
        revision: Revision,
    },
    /// The watch is over. Whoever wants to go on asks another member, from the revision behind the last one that it was
    /// told of. Where that one is gone, `compacted` is the first revision that can still be read, and the last one that
    /// no watch can begin at; 0 otherwise.
    Unwatched {
        fault: Fault,
        compacted: Revision,
    },
    /// An election is observed from this revision on, at which this one led. What follows is who leads later, and progress
    /// and an end as of a watch.
    Observing {
        revision: Revision,
        leader: Option<KeyValue>,
    },
    /// Since this revision it is the leader that is told, or says what is told.
    Leads {
        revision: Revision,
        leader: KeyValue,
    },
    Fault(Fault),
}

impl Body {
    /// It answers a request under whose tag more will be told.
    pub fn begins_to_tell(&self) -> bool {
        matches!(self, Body::Watching | Body::Observing { .. } | Body::Serves(_))
    }

    /// About how much memory it takes up.
    pub fn size_bytes(&self) -> usize {
        if let Body::Txn(txn) = self {
            return size_of::<Reply>() + txn.responses.iter().map(Body::size_bytes).sum::<usize>();
        }
        let kvs = match self {
            Body::Range(range) => &range.kvs[..],
            Body::RangePart(part) => &part.kvs,
            Body::Delete { previous, .. } => previous,
            Body::Put { previous: Some(Some(previous)), .. } => std::slice::from_ref(previous),
            Body::Events { events, .. } => {
                return size_of::<Reply>() + events.iter().map(|event| event.size_bytes()).sum::<usize>();
            }
            Body::Lease(answer) => return size_of::<Reply>() + answer.size_bytes(),
            Body::SnapshotPart { bytes, .. } => return size_of::<Reply>() + bytes.len(),
            Body::Acquired { key, .. } => return size_of::<Reply>() + key.len(),
            Body::Observing { leader: Some(leader), .. } | Body::Leads { leader, .. } => {
                std::slice::from_ref(leader)
            }
            _ => &[],
        };
        size_of::<Reply>() + kvs.iter().map(KeyValue::size_bytes).sum::<usize>()
    }
}

/// One key at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    /// Empty where only keys were asked for.
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// Puts since the key was created; 1 for a new key.
    pub version: u64,
    /// 0 = none.
    pub lease: LeaseId,
}

impl KeyValue {
    /// About how much memory it takes up.
    pub fn size_bytes(&self) -> usize {
        size_of::<KeyValue>() + self.key.len() + self.value.len()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The revision that was read.
    pub revision: Revision,
    /// Keys in the span, whatever the limit.
    pub count: u64,
    /// The limit cut something off.
    pub more: bool,
    pub kvs: Vec<KeyValue>,
}

/// A range's answer in parts: the head comes with the first, and the parts' kvs in their order are the answer's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangePart {
    pub head: Option<RangeHead>,
    pub kvs: Vec<KeyValue>,
    /// None follows.
    pub last: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeHead {
    pub revision: Revision,
    pub count: u64,
    pub more: bool,
    /// How many kvs all parts have together.
    pub kvs: u64,
}

impl RangePart {
    /// The answer, if this part is all of it.
    pub fn whole(self) -> Result<RangeResult, RangePart> {
        match self.head {
            Some(RangeHead { revision, count, more, .. }) if self.last => {
                Ok(RangeResult { revision, count, more, kvs: self.kvs })
            }
            _ => Err(self),
        }
    }
}

/// One member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    pub id: MemberId,
    /// Empty until the member has started and published it.
    pub name: String,
    pub peer_urls: Vec<String>,
    /// Empty until the member has started and published them.
    pub client_urls: Vec<String>,
    pub learner: bool,
}

/// One member's view of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub member_id: MemberId,
    pub cluster_id: ClusterId,
    pub name: String,
    pub version: String,
    /// 0 = none known.
    pub leader: MemberId,
    pub term: Term,
    pub commit_index: Index,
    pub applied_index: Index,
    pub revision: Revision,
    pub compact_revision: Revision,
    /// Bytes of the tree file, and of its pages in use.
    pub db_size: u64,
    pub db_size_in_use: u64,
    pub learner: bool,
    /// Every alarm that stands, and whose it is.
    pub alarms: Vec<Alarm>,
    /// Lines for people: no leader, alarms, a repair.
    pub errors: Vec<String>,
}
