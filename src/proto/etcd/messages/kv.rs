//! The KV service.

use crate::proto::etcd::schema::{described, described_one_of};
use bytes::Bytes;
use prost::{Message, Oneof};

use super::ResponseHeader;

described! {
    /// `mvccpb.KeyValue`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct KeyValue {
        #[prost(bytes = "bytes", tag = "1")]
        pub key: Bytes,
        #[prost(int64, tag = "2")]
        pub create_revision: i64,
        #[prost(int64, tag = "3")]
        pub mod_revision: i64,
        #[prost(int64, tag = "4")]
        pub version: i64,
        #[prost(bytes = "bytes", tag = "5")]
        pub value: Bytes,
        #[prost(int64, tag = "6")]
        pub lease: i64,
    }

    /// `RangeRequest`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct RangeRequest {
        #[prost(bytes = "bytes", tag = "1")]
        pub key: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub range_end: Bytes,
        #[prost(int64, tag = "3")]
        pub limit: i64,
        #[prost(int64, tag = "4")]
        pub revision: i64,
        #[names("NONE", "ASCEND", "DESCEND")]
        #[prost(int32, tag = "5")]
        pub sort_order: i32,
        #[names("KEY", "VERSION", "CREATE", "MOD", "VALUE")]
        #[prost(int32, tag = "6")]
        pub sort_target: i32,
        #[prost(bool, tag = "7")]
        pub serializable: bool,
        #[prost(bool, tag = "8")]
        pub keys_only: bool,
        #[prost(bool, tag = "9")]
        pub count_only: bool,
        #[prost(int64, tag = "10")]
        pub min_mod_revision: i64,
        #[prost(int64, tag = "11")]
        pub max_mod_revision: i64,
        #[prost(int64, tag = "12")]
        pub min_create_revision: i64,
        #[prost(int64, tag = "13")]
        pub max_create_revision: i64,
    }

    /// `RangeResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct RangeResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(message, repeated, tag = "2")]
        pub kvs: Vec<KeyValue>,
        #[prost(bool, tag = "3")]
        pub more: bool,
        #[prost(int64, tag = "4")]
        pub count: i64,
    }
}

/// Where the kvs of a `RangeResponse` stand: a large one is written piece by piece.
pub const RANGE_RESPONSE_KVS: u32 = 2;

described! {
    /// `RangeStreamResponse` (3.7)
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct RangeStreamResponse {
        #[prost(message, optional, tag = "1")]
        pub range_response: Option<RangeResponse>,
    }

    /// `PutRequest`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct PutRequest {
        #[prost(bytes = "bytes", tag = "1")]
        pub key: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub value: Bytes,
        #[prost(int64, tag = "3")]
        pub lease: i64,
        #[prost(bool, tag = "4")]
        pub prev_kv: bool,
        #[prost(bool, tag = "5")]
        pub ignore_value: bool,
        #[prost(bool, tag = "6")]
        pub ignore_lease: bool,
    }

    /// `PutResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct PutResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(message, optional, tag = "2")]
        pub prev_kv: Option<KeyValue>,
    }

    /// `DeleteRangeRequest`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct DeleteRangeRequest {
        #[prost(bytes = "bytes", tag = "1")]
        pub key: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub range_end: Bytes,
        #[prost(bool, tag = "3")]
        pub prev_kv: bool,
    }

    /// `DeleteRangeResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct DeleteRangeResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(int64, tag = "2")]
        pub deleted: i64,
        #[prost(message, repeated, tag = "3")]
        pub prev_kvs: Vec<KeyValue>,
    }

    /// `Compare`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct Compare {
        #[names("EQUAL", "GREATER", "LESS", "NOT_EQUAL")]
        #[prost(int32, tag = "1")]
        pub result: i32,
        #[names("VERSION", "CREATE", "MOD", "VALUE", "LEASE")]
        #[prost(int32, tag = "2")]
        pub target: i32,
        #[prost(bytes = "bytes", tag = "3")]
        pub key: Bytes,
        #[prost(oneof = "TargetUnion", tags = "4, 5, 6, 7, 8")]
        pub target_union: Option<TargetUnion>,
        #[prost(bytes = "bytes", tag = "64")]
        pub range_end: Bytes,
    }
}

described_one_of! {
    /// `Compare.target_union`
    #[derive(Clone, PartialEq, Eq, Oneof)]
    pub enum TargetUnion {
        #[json("version")]
        #[prost(int64, tag = "4")]
        Version(i64),
        #[json("create_revision")]
        #[prost(int64, tag = "5")]
        CreateRevision(i64),
        #[json("mod_revision")]
        #[prost(int64, tag = "6")]
        ModRevision(i64),
        #[json("value")]
        #[prost(bytes = "bytes", tag = "7")]
        Value(Bytes),
        #[json("lease")]
        #[prost(int64, tag = "8")]
        Lease(i64),
    }
}

described! {
    /// `RequestOp`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct RequestOp {
        #[prost(oneof = "RequestUnion", tags = "1, 2, 3, 4")]
        pub request: Option<RequestUnion>,
    }
}

described_one_of! {
    /// `RequestOp.request`
    #[derive(Clone, PartialEq, Eq, Oneof)]
    pub enum RequestUnion {
        #[json("request_range")]
        #[prost(message, tag = "1")]
        Range(RangeRequest),
        #[json("request_put")]
        #[prost(message, tag = "2")]
        Put(PutRequest),
        #[json("request_delete_range")]
        #[prost(message, tag = "3")]
        DeleteRange(DeleteRangeRequest),
        #[json("request_txn")]
        #[prost(message, tag = "4")]
        Txn(TxnRequest),
    }
}

described! {
    /// `TxnRequest`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct TxnRequest {
        #[prost(message, repeated, tag = "1")]
        pub compare: Vec<Compare>,
        #[prost(message, repeated, tag = "2")]
        pub success: Vec<RequestOp>,
        #[prost(message, repeated, tag = "3")]
        pub failure: Vec<RequestOp>,
    }

    /// `ResponseOp`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct ResponseOp {
        #[prost(oneof = "ResponseUnion", tags = "1, 2, 3, 4")]
        pub response: Option<ResponseUnion>,
    }
}

described_one_of! {
    /// `ResponseOp.response`
    #[derive(Clone, PartialEq, Eq, Oneof)]
    pub enum ResponseUnion {
        #[json("response_range")]
        #[prost(message, tag = "1")]
        Range(RangeResponse),
        #[json("response_put")]
        #[prost(message, tag = "2")]
        Put(PutResponse),
        #[json("response_delete_range")]
        #[prost(message, tag = "3")]
        DeleteRange(DeleteRangeResponse),
        #[json("response_txn")]
        #[prost(message, tag = "4")]
        Txn(TxnResponse),
    }
}

described! {
    /// `TxnResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct TxnResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(bool, tag = "2")]
        pub succeeded: bool,
        #[prost(message, repeated, tag = "3")]
        pub responses: Vec<ResponseOp>,
    }

    /// `CompactionRequest`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct CompactionRequest {
        #[prost(int64, tag = "1")]
        pub revision: i64,
        #[prost(bool, tag = "2")]
        pub physical: bool,
    }
}
