//! Leases: what can be asked of them and answered. The semantics are those of etcd's v3 Lease service; times are
//! seconds.

use bytes::Bytes;

use crate::base::{Index, LeaseId, Revision};

/// The longest TTL (etcd's).
pub const LEASE_TTL_S_MAX: i64 = 9_000_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseRequest {
    /// A new lease. `id` 0: the member that is asked picks one. A TTL below the least that a member grants, also zero
    /// and below, becomes that one.
    Grant { id: LeaseId, ttl_s: i64 },
    /// The lease ends now, and the keys that are attached to it are deleted. One revision if there are any.
    Revoke { id: LeaseId },
    /// The time of these leases begins anew.
    KeepAlive { ids: Vec<LeaseId> },
    /// How long it has left; with `keys` also what is attached to it.
    TimeToLive { id: LeaseId, keys: bool },
    /// All leases there are.
    List,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAnswer {
    Granted {
        id: LeaseId,
        ttl_s: u64,
    },
    /// `revision` is the store's afterwards.
    Revoked {
        revision: Revision,
        deleted: u64,
    },
    /// For each lease that was asked for: its TTL, or 0 if there is none of that id.
    Kept(Vec<u64>),
    /// None: there is no such lease.
    TimeToLive {
        id: LeaseId,
        time: Option<LeaseTime>,
        keys: Vec<Bytes>,
    },
    List(Vec<LeaseId>),
}

impl LeaseAnswer {
    /// About how much memory it takes up beside itself.
    pub fn size_bytes(&self) -> usize {
        match self {
            LeaseAnswer::Kept(ttls) => size_of_val(&ttls[..]),
            LeaseAnswer::TimeToLive { keys, .. } => {
                keys.iter().map(|key| size_of::<Bytes>() + key.len()).sum()
            }
            LeaseAnswer::List(ids) => size_of_val(&ids[..]),
            LeaseAnswer::Granted { .. } | LeaseAnswer::Revoked { .. } => 0,
        }
    }
}

/// What a lease was granted, and what is left of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseTime {
    pub granted_s: u64,
    pub remaining_s: u64,
}

/// What the leader is asked about a lease, which alone knows its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseWant {
    pub id: LeaseId,
    /// Begin its time anew; else tell it.
    pub renew: bool,
}

/// A lease and not another one that had the same id before or has it later: `generation` is the index of the entry that
/// granted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRef {
    pub id: LeaseId,
    pub generation: Index,
}
