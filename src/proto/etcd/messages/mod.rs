//! etcd's messages, as far as they are spoken here: names and field numbers are those of its `rpc.proto`, `kv.proto`,
//! `v3lock.proto` and `v3election.proto` (3.5, and what 3.7 adds), and of gRPC's `health.proto`.
//!
//! Enumerations are plain numbers: whoever reads them refuses a number that has no meaning. Fields that nothing here
//! looks at are left out, and skipped when they come.

mod admin;
mod kv;
mod lease;
mod lock;
mod watch;

pub use admin::*;
pub use kv::*;
pub use lease::*;
pub use lock::*;
pub use watch::*;

use prost::Message;

use crate::proto::etcd::schema::described;

described! {
    /// `etcdserverpb.ResponseHeader`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct ResponseHeader {
        #[prost(uint64, tag = "1")]
        pub cluster_id: u64,
        #[prost(uint64, tag = "2")]
        pub member_id: u64,
        #[prost(int64, tag = "3")]
        pub revision: i64,
        #[prost(uint64, tag = "4")]
        pub raft_term: u64,
    }

    /// Any request whose fields do not matter, or that has none.
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct Empty {}

    /// Any answer that is nothing but a header.
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct HeaderOnly {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
    }
}
