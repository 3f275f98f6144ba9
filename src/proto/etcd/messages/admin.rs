//! The Cluster, Maintenance and Auth services, and gRPC's Health.

use bytes::Bytes;
use prost::Message;

use super::ResponseHeader;
use crate::proto::etcd::schema::described;

described! {
    /// `Member`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct Member {
        #[json("ID")]
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(string, tag = "2")]
        pub name: String,
        #[json("peerURLs")]
        #[prost(string, repeated, tag = "3")]
        pub peer_urls: Vec<String>,
        #[json("clientURLs")]
        #[prost(string, repeated, tag = "4")]
        pub client_urls: Vec<String>,
        #[json("isLearner")]
        #[prost(bool, tag = "5")]
        pub is_learner: bool,
    }

    /// `MemberAddRequest`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct MemberAddRequest {
        #[json("peerURLs")]
        #[prost(string, repeated, tag = "1")]
        pub peer_urls: Vec<String>,
        #[json("isLearner")]
        #[prost(bool, tag = "2")]
        pub is_learner: bool,
    }

    /// `MemberAddResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct MemberAddResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(message, optional, tag = "2")]
        pub member: Option<Member>,
        #[prost(message, repeated, tag = "3")]
        pub members: Vec<Member>,
    }

    /// `MemberRemoveRequest` and `MemberPromoteRequest`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct MemberId {
        #[json("ID")]
        #[prost(uint64, tag = "1")]
        pub id: u64,
    }

    /// `MoveLeaderRequest`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct MoveLeaderRequest {
        #[json("targetID")]
        #[prost(uint64, tag = "1")]
        pub target_id: u64,
    }

    /// `MemberUpdateRequest`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct MemberUpdateRequest {
        #[json("ID")]
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[json("peerURLs")]
        #[prost(string, repeated, tag = "2")]
        pub peer_urls: Vec<String>,
    }

    /// `MemberListRequest`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct MemberListRequest {
        #[prost(bool, tag = "1")]
        pub linearizable: bool,
    }

    /// `MemberListResponse`, and those of a removal, an update and a promotion.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct MembersResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(message, repeated, tag = "2")]
        pub members: Vec<Member>,
    }

    /// `StatusResponse`, up to 3.5.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct StatusResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(string, tag = "2")]
        pub version: String,
        #[json("dbSize")]
        #[prost(int64, tag = "3")]
        pub db_size: i64,
        #[prost(uint64, tag = "4")]
        pub leader: u64,
        #[json("raftIndex")]
        #[prost(uint64, tag = "5")]
        pub raft_index: u64,
        #[json("raftTerm")]
        #[prost(uint64, tag = "6")]
        pub raft_term: u64,
        #[json("raftAppliedIndex")]
        #[prost(uint64, tag = "7")]
        pub raft_applied_index: u64,
        #[prost(string, repeated, tag = "8")]
        pub errors: Vec<String>,
        #[json("dbSizeInUse")]
        #[prost(int64, tag = "9")]
        pub db_size_in_use: i64,
        #[json("isLearner")]
        #[prost(bool, tag = "10")]
        pub is_learner: bool,
    }

    /// `AlarmRequest`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct AlarmRequest {
        #[names("GET", "ACTIVATE", "DEACTIVATE")]
        #[prost(int32, tag = "1")]
        pub action: i32,
        #[json("memberID")]
        #[prost(uint64, tag = "2")]
        pub member_id: u64,
        #[names("NONE", "NOSPACE", "CORRUPT")]
        #[prost(int32, tag = "3")]
        pub alarm: i32,
    }

    /// `AlarmMember`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct AlarmMember {
        #[json("memberID")]
        #[prost(uint64, tag = "1")]
        pub member_id: u64,
        #[names("NONE", "NOSPACE", "CORRUPT")]
        #[prost(int32, tag = "2")]
        pub alarm: i32,
    }

    /// `AlarmResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct AlarmResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(message, repeated, tag = "2")]
        pub alarms: Vec<AlarmMember>,
    }

    /// `HashKVRequest`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct HashKvRequest {
        #[prost(int64, tag = "1")]
        pub revision: i64,
    }

    /// `HashKVResponse`; `hash_revision` is of 3.6.
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct HashKvResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(uint32, tag = "2")]
        pub hash: u32,
        #[prost(int64, tag = "3")]
        pub compact_revision: i64,
        #[prost(int64, tag = "4")]
        pub hash_revision: i64,
    }

    /// `HashResponse`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct HashResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(uint32, tag = "2")]
        pub hash: u32,
    }

    /// `SnapshotResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct SnapshotResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(uint64, tag = "2")]
        pub remaining_bytes: u64,
        #[prost(bytes = "bytes", tag = "3")]
        pub blob: Bytes,
    }

    /// `DowngradeRequest`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct DowngradeRequest {
        #[names("VALIDATE", "ENABLE", "CANCEL")]
        #[prost(int32, tag = "1")]
        pub action: i32,
        #[prost(string, tag = "2")]
        pub version: String,
    }

    /// `DowngradeResponse`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct DowngradeResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(string, tag = "2")]
        pub version: String,
    }

    /// `AuthStatusResponse`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct AuthStatusResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<ResponseHeader>,
        #[prost(bool, tag = "2")]
        pub enabled: bool,
        #[json("authRevision")]
        #[prost(uint64, tag = "3")]
        pub auth_revision: u64,
    }

    /// `grpc.health.v1.HealthCheckRequest`
    #[derive(Clone, PartialEq, Eq, Message)]
    pub struct HealthCheckRequest {
        #[prost(string, tag = "1")]
        pub service: String,
    }

    /// `grpc.health.v1.HealthCheckResponse`
    #[derive(Clone, Copy, PartialEq, Eq, Message)]
    pub struct HealthCheckResponse {
        #[names("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")]
        #[prost(int32, tag = "1")]
        pub status: i32,
    }
}
