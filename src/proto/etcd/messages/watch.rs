//! The Watch service.

use crate::proto::etcd::schema::{described, described_one_of};
use bytes::Bytes;
use prost::{Message, Oneof};

use super::{KeyValue, ResponseHeader};

described! {
    /// `mvccpb.Event`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct Event {
        #[json("type")]
        #[names("PUT", "DELETE")]
        #[prost(int32, tag = "1")]
        pub kind: i32,
        #[prost(message, optional, tag = "2")]
        pub kv: Option<KeyValue>,
        #[prost(message, optional, tag = "3")]
        pub prev_kv: Option<KeyValue>,
    }

    /// `WatchRequest`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct WatchRequest {
        #[prost(oneof = "WatchUnion", tags = "1, 2, 3")]
        pub request: Option<WatchUnion>,
    }
}

described_one_of! {
    /// `WatchRequest.request_union`
    #[derive(Clone, PartialEq, Eq, Oneof)]
    pub enum WatchUnion {
        #[json("create_request")]
        #[prost(message, tag = "1")]
        Create(WatchCreateRequest),
        #[json("cancel_request")]
        #[prost(message, tag = "2")]
        Cancel(WatchCancelRequest),
        #[json("progress_request")]
        #[prost(message, tag = "3")]
        Progress(super::Empty),
    }
}

described! {
    /// `WatchCreateRequest`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct WatchCreateRequest {
        #[prost(bytes = "bytes", tag = "1")]
        pub key: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub range_end: Bytes,
        #[prost(int64, tag = "3")]
        pub start_revision: i64,
        #[prost(bool, tag = "4")]
        pub progress_notify: bool,
        #[names("NOPUT", "NODELETE")]
        #[prost(int32, repeated, tag = "5")]
        pub filters: Vec<i32>,
        #[prost(bool, tag = "6")]
        pub prev_kv: bool,
        #[prost(int64, tag = "7")]
        pub watch_id: i64,
        #[prost(bool, tag = "8")]
        pub fragment: bool,
    }

    /// `WatchCancelRequest`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct WatchCancelRequest {
        #[prost(int64, tag = "1")]
        pub watch_id: i64,
    }

    /// `WatchResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct WatchResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(int64, tag = "2")]
        pub watch_id: i64,
        #[prost(bool, tag = "3")]
        pub created: bool,
        #[prost(bool, tag = "4")]
        pub canceled: bool,
        #[prost(int64, tag = "5")]
        pub compact_revision: i64,
        #[prost(string, tag = "6")]
        pub cancel_reason: String,
        #[prost(bool, tag = "7")]
        pub fragment: bool,
        #[prost(message, repeated, tag = "11")]
        pub events: Vec<Event>,
    }
}

/// Where the events of a `WatchResponse` stand: their bytes are made once for all who get them.
pub const WATCH_RESPONSE_EVENTS: u32 = 11;
