//! The Lock and Election services (`v3lockpb`, `v3electionpb`).

use crate::proto::etcd::schema::described;
use bytes::Bytes;
use prost::Message;

use super::{KeyValue, ResponseHeader};

described! {
    /// `LockRequest`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct LockRequest {
        #[prost(bytes = "bytes", tag = "1")]
        pub name: Bytes,
        #[prost(int64, tag = "2")]
        pub lease: i64,
    }

    /// `LockResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct LockResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(bytes = "bytes", tag = "2")]
        pub key: Bytes,
    }

    /// `UnlockRequest`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct UnlockRequest {
        #[prost(bytes = "bytes", tag = "1")]
        pub key: Bytes,
    }

    /// `LeaderRequest`, with which observers begin, too.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct Named {
        #[prost(bytes = "bytes", tag = "1")]
        pub name: Bytes,
    }

    /// `LeaderKey`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct LeaderKey {
        #[prost(bytes = "bytes", tag = "1")]
        pub name: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub key: Bytes,
        #[prost(int64, tag = "3")]
        pub rev: i64,
        #[prost(int64, tag = "4")]
        pub lease: i64,
    }

    /// `CampaignRequest`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct CampaignRequest {
        #[prost(bytes = "bytes", tag = "1")]
        pub name: Bytes,
        #[prost(int64, tag = "2")]
        pub lease: i64,
        #[prost(bytes = "bytes", tag = "3")]
        pub value: Bytes,
    }

    /// `CampaignResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct CampaignResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(message, optional, tag = "2")]
        pub leader: Option<LeaderKey>,
    }

    /// `ProclaimRequest`, and `ResignRequest` (which has no value).
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct ProclaimRequest {
        #[prost(message, optional, tag = "1")]
        pub leader: Option<LeaderKey>,
        #[prost(bytes = "bytes", tag = "2")]
        pub value: Bytes,
    }

    /// `LeaderResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct LeaderResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(message, optional, tag = "2")]
        pub kv: Option<KeyValue>,
    }
}
