//! The one language that protocols and the node share. It carries etcd v3's meaning, not its encoding:
//! an adapter (`proto`) turns bytes into [`Call`]s and [`Reply`]s into bytes; the node only echoes the tag.
//!
//! A protocol that needs something which cannot be said here has found a missing word: add it here, so
//! that `raft`, `wal`, `btree`, `store` and `node` stay closed to protocols.

pub mod alarm;
pub mod call;
pub mod command;
pub mod event;
pub mod fault;
pub mod lease;
pub mod lock;
pub mod metrics;
pub mod peer;
pub mod reply;
pub mod request;
pub mod status;
pub mod txn;
pub mod validate;

/// Of the program, wherever one is told: `STATUS`, `INFO`, `--version`, the start's log line.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The release of etcd whose interface this one speaks.
pub const ETCD_VERSION: &str = "3.5.0";

/// `3.5.0+pawl.0.1.0`: a semantic version that compares as etcd's and is not mistaken for it. `version`: of a member.
pub fn etcd_version(version: &str) -> String {
    format!("{ETCD_VERSION}+pawl.{version}")
}

pub use alarm::{Alarm, AlarmChange, AlarmKind};
pub use call::{Call, ConnId, Lane, Reply, Tag, connection_of};
pub use command::{Command, MemberChange, Origin};
pub use event::{Event, EventKind};
pub use fault::{Code, Fault};
pub use lease::{LeaseAnswer, LeaseRef, LeaseRequest, LeaseTime, LeaseWant};
pub use lock::{Acquire, LockRequest};
pub use metrics::Metrics;
pub use peer::PeerCall;
pub use reply::{Body, Header, KeyValue, Member, RangeHead, RangePart, RangeResult, Status};
pub use request::{Compact, Delete, Order, Put, Range, Request, SortBy, Span, Watch, successor};
pub use txn::{Compare, CompareResult, Op, Target, Txn, TxnResult};
pub use validate::Limits;
