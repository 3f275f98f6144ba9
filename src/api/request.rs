//! What can be asked. The semantics are those of etcd's v3 KV service.

use bytes::Bytes;

use super::{AlarmChange, LeaseRequest, LockRequest, MemberChange, Txn};
use crate::base::{LeaseId, MemberId, Revision};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Put(Put),
    Range(Range),
    Delete(Delete),
    Txn(Txn),
    /// What nobody needs who reads at this revision or later goes.
    Compact(Compact),
    /// Give the room of free pages back to the file system now, at this member.
    Defrag,
    /// Which alarms stand. Linearizable.
    AlarmList,
    /// Raises one, or ends some. Where there is still no room, the leader's comes back at once.
    AlarmChange(AlarmChange),
    /// How many of these keys there are now, one that is named twice counted twice.
    Exists {
        keys: Vec<Bytes>,
    },
    Lease(LeaseRequest),
    Lock(LockRequest),
    /// This member's state; always answered locally and at once.
    Status,
    /// All that this member counts; answered as [`Request::Status`] is.
    Metrics,
    /// The hash of the history up to a revision, 0 = now, of this member's state as it is: the same on every member that did the
    /// same, and the same as etcd's.
    HashKv {
        revision: Revision,
    },
    /// A hash of all that this member's state holds, what it has not swept included.
    Hash,
    /// A copy of this member's state in parts, to be kept as a file.
    Snapshot,
    /// The cluster's members. Linearizable unless `serializable`.
    MemberList {
        serializable: bool,
    },
    /// A member joins. The id is derived where the request arrives.
    MemberAdd {
        peer_urls: Vec<String>,
        learner: bool,
    },
    MemberRemove {
        id: MemberId,
    },
    /// It is reached elsewhere from now on.
    MemberUpdate {
        id: MemberId,
        peer_urls: Vec<String>,
    },
    /// A learner that has caught up becomes a voter.
    MemberPromote {
        id: MemberId,
    },
    /// Additions, removals and promotions in one step: all of them happen, or none. Ids of additions are 0 here, and
    /// derived where the request arrives.
    MemberChange {
        changes: Vec<MemberChange>,
    },
    /// To the leader: hand over to this voter.
    MoveLeader {
        to: MemberId,
    },
    /// Answered again and again, until it is cancelled.
    Watch(Watch),
    /// Once all watches of the connection were sent all that there is: up to which revision that goes.
    WatchProgress,
    /// Whether this member serves, from now on: answered at once, and again each time it changes, until the asker leaves.
    WatchHealth,
}

impl Request {
    /// How requests are called where they are counted.
    pub const NAMES: [&str; 19] = [
        "put",
        "range",
        "delete",
        "txn",
        "compact",
        "defrag",
        "alarm",
        "exists",
        "lease",
        "lock",
        "status",
        "metrics",
        "member_list",
        "member_change",
        "move_leader",
        "watch",
        "watch_progress",
        "hash",
        "snapshot",
    ];

    /// The place of this one's name among [`Request::NAMES`].
    pub fn number(&self) -> usize {
        match self {
            Request::Put(_) => 0,
            Request::Range(_) => 1,
            Request::Delete(_) => 2,
            Request::Txn(_) => 3,
            Request::Compact(_) => 4,
            Request::Defrag => 5,
            Request::AlarmList | Request::AlarmChange(_) => 6,
            Request::Exists { .. } => 7,
            Request::Lease(_) => 8,
            Request::Lock(_) => 9,
            Request::Status | Request::WatchHealth => 10,
            Request::Metrics => 11,
            Request::MemberList { .. } => 12,
            Request::MemberAdd { .. }
            | Request::MemberRemove { .. }
            | Request::MemberUpdate { .. }
            | Request::MemberPromote { .. }
            | Request::MemberChange { .. } => 13,
            Request::MoveLeader { .. } => 14,
            Request::Watch(_) => 15,
            Request::WatchProgress => 16,
            Request::Hash | Request::HashKv { .. } => 17,
            Request::Snapshot => 18,
        }
    }
}

/// Sets a key. One revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    pub key: Bytes,
    pub value: Bytes,
    /// 0 = none.
    pub lease: LeaseId,
    /// Answer with what was there before.
    pub prev_kv: bool,
    /// Keep the value that is there; the key must exist, and `value` must be empty.
    pub ignore_value: bool,
    /// Keep the lease that is attached; the key must exist, and `lease` must be 0.
    pub ignore_lease: bool,
}

/// Which keys a request speaks of. The line protocol's `TO`, `PREFIX` and `FROM` are spelled as spans; etcd's
/// `range_end` conventions become one too, so that nothing behind the gate knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    Key(Bytes),
    /// `[from, to)`; empty where `to <= from`.
    Between(Bytes, Bytes),
    /// All keys that begin so; the empty prefix is everything.
    Prefix(Bytes),
    /// All keys at or after this one.
    From(Bytes),
}

impl Span {
    /// The first key that may be in the span, and the first one behind it (None = no end).
    pub fn bounds(&self) -> (Bytes, Option<Bytes>) {
        match self {
            Span::Key(key) => (key.clone(), Some(successor(key))),
            Span::Between(from, to) => (from.clone(), Some(to.clone())),
            Span::Prefix(prefix) => (prefix.clone(), prefix_end(prefix)),
            Span::From(from) => (from.clone(), None),
        }
    }
}

/// The first key behind this one.
pub fn successor(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

/// The first key after all keys that begin with `prefix`; None where there is none (empty, or all 0xff).
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// Reads keys. `count` in the answer ignores `limit` and the revision filters, as in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub span: Span,
    /// 0 = no limit.
    pub limit: u64,
    /// 0 = now.
    pub revision: Revision,
    pub order: Order,
    pub sort_by: SortBy,
    /// Answer from this member's state, possibly stale, without asking the cluster.
    pub serializable: bool,
    pub keys_only: bool,
    pub count_only: bool,
    /// Revision filters; 0 = none.
    pub min_mod: Revision,
    pub max_mod: Revision,
    pub min_create: Revision,
    pub max_create: Revision,
}

impl Range {
    pub fn new(span: Span) -> Range {
        Range {
            span,
            limit: 0,
            revision: 0,
            order: Order::Ascending,
            sort_by: SortBy::Key,
            serializable: false,
            keys_only: false,
            count_only: false,
            min_mod: 0,
            max_mod: 0,
            min_create: 0,
            max_create: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Ascending,
    Descending,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortBy {
    #[default]
    Key,
    Version,
    Create,
    Mod,
    Value,
}

/// Deletes keys. One revision if anything was there, none otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    pub span: Span,
    pub prev_kv: bool,
}

/// Ends the history before a revision: what can only be seen there goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compact {
    /// The first revision that can still be read.
    pub revision: Revision,
    /// Answer when the room of what goes is free, at the member that was asked.
    pub physical: bool,
}

/// Asks for every change of the keys of a span, from one revision on. This member answers from what it has applied: in
/// the order of revisions, each of them whole and once, but not at once everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub span: Span,
    /// The first one of interest, in the past or in the future; 0 = the next one.
    pub revision: Revision,
    /// Tell with each event what was there before.
    pub prev_kv: bool,
    /// Leave puts out, or deletes.
    pub no_put: bool,
    pub no_delete: bool,
    /// Tell from time to time, when nothing else was told, up to which revision there was nothing.
    pub progress: bool,
}

impl Watch {
    pub fn new(span: Span) -> Watch {
        Watch { span, revision: 0, prev_kv: false, no_put: false, no_delete: false, progress: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_under_their_names() {
        let name = |request: Request| Request::NAMES[request.number()];
        assert_eq!(name(Request::Put(Put::default())), "put");
        assert_eq!(name(Request::Exists { keys: Vec::new() }), "exists");
        assert_eq!(name(Request::AlarmChange(AlarmChange::EndAll)), "alarm");
        assert_eq!(name(Request::Metrics), "metrics");
        assert_eq!(name(Request::MemberRemove { id: 1 }), "member_change");
        assert_eq!(name(Request::WatchProgress), "watch_progress");
    }

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(prefix_end(b"abc").as_deref(), Some(&b"abd"[..]));
        assert_eq!(prefix_end(b"a\xff\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
