//! The Lease service.

use crate::proto::etcd::schema::described;
use bytes::Bytes;
use prost::Message;

use super::ResponseHeader;

described! {
    /// `LeaseGrantRequest`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct LeaseGrantRequest {
        #[json("TTL")]
        #[prost(int64, tag = "1")]
        pub ttl: i64,
        #[json("ID")]
        #[prost(int64, tag = "2")]
        pub id: i64,
    }

    /// `LeaseGrantResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct LeaseGrantResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[json("ID")]
        #[prost(int64, tag = "2")]
        pub id: i64,
        #[json("TTL")]
        #[prost(int64, tag = "3")]
        pub ttl: i64,
        #[prost(string, tag = "4")]
        pub error: String,
    }

    /// `LeaseRevokeRequest`, `LeaseKeepAliveRequest` and `LeaseStatus`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct LeaseId {
        #[json("ID")]
        #[prost(int64, tag = "1")]
        pub id: i64,
    }

    /// `LeaseKeepAliveResponse`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct LeaseKeepAliveResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[json("ID")]
        #[prost(int64, tag = "2")]
        pub id: i64,
        #[json("TTL")]
        #[prost(int64, tag = "3")]
        pub ttl: i64,
    }

    /// `LeaseTimeToLiveRequest`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct LeaseTimeToLiveRequest {
        #[json("ID")]
        #[prost(int64, tag = "1")]
        pub id: i64,
        #[prost(bool, tag = "2")]
        pub keys: bool,
    }

    /// `LeaseTimeToLiveResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct LeaseTimeToLiveResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[json("ID")]
        #[prost(int64, tag = "2")]
        pub id: i64,
        #[json("TTL")]
        #[prost(int64, tag = "3")]
        pub ttl: i64,
        #[json("grantedTTL")]
        #[prost(int64, tag = "4")]
        pub granted_ttl: i64,
        #[prost(bytes = "bytes", repeated, tag = "5")]
        pub keys: Vec<Bytes>,
    }

    /// `LeaseLeasesResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct LeaseLeasesResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(message, repeated, tag = "2")]
        pub leases: Vec<LeaseId>,
    }
}
