//! Which methods there are, under which names and paths, and of which messages they are made. What is not here is UNIMPLEMENTED.

use super::messages as pb;
use super::schema::{Described, Schema};

/// A method of one of etcd's services, or of gRPC's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Range,
    RangeStream,
    Put,
    DeleteRange,
    Txn,
    Compact,
    Watch,
    LeaseGrant,
    LeaseRevoke,
    LeaseKeepAlive,
    LeaseTimeToLive,
    LeaseLeases,
    MemberAdd,
    MemberRemove,
    MemberUpdate,
    MemberList,
    MemberPromote,
    Alarm,
    Status,
    Defragment,
    MoveLeader,
    Hash,
    HashKv,
    Snapshot,
    Downgrade,
    Lock,
    Unlock,
    Campaign,
    Proclaim,
    Leader,
    Observe,
    Resign,
    AuthStatus,
    /// There are no users and no roles, nor can they be made: what asks for one of them, or for all, is told so.
    AuthOff,
    UserNotFound,
    RoleNotFound,
    NoRootUser,
    /// There is nothing to list, and nothing to turn off.
    HeaderAlone,
    HealthCheck,
    HealthWatch,
}

/// A method as the outside knows it.
#[derive(Debug)]
pub struct Rpc {
    /// With its package.
    pub service: &'static str,
    pub name: &'static str,
    pub method: Method,
    pub shape: Shape,
    /// Of the JSON gateway (etcd's `rpc.proto`, `google.api.http`); all of them take POST. What has none is not there.
    pub paths: &'static [&'static str],
    pub request: fn() -> &'static Schema,
    pub response: fn() -> &'static Schema,
}

/// Who sends more than one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Unary,
    /// The server.
    Server,
    /// Both.
    Both,
}

const fn rpc<Q: Described, A: Described>(
    (service, name): (&'static str, &'static str),
    method: Method,
    shape: Shape,
    paths: &'static [&'static str],
) -> Rpc {
    Rpc { service, name, method, shape, paths, request: Q::schema, response: A::schema }
}

const KV: &str = "etcdserverpb.KV";
const WATCH: &str = "etcdserverpb.Watch";
const LEASE: &str = "etcdserverpb.Lease";
const CLUSTER: &str = "etcdserverpb.Cluster";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";
const AUTH: &str = "etcdserverpb.Auth";
const LOCK: &str = "v3lockpb.Lock";
const ELECTION: &str = "v3electionpb.Election";
const HEALTH: &str = "grpc.health.v1.Health";

/// All of them; what is asked most stands first.
pub static RPCS: &[Rpc] = &[
    rpc::<pb::RangeRequest, pb::RangeResponse>((KV, "Range"), Method::Range, Shape::Unary, &["/v3/kv/range"]),
    rpc::<pb::PutRequest, pb::PutResponse>((KV, "Put"), Method::Put, Shape::Unary, &["/v3/kv/put"]),
    rpc::<pb::TxnRequest, pb::TxnResponse>((KV, "Txn"), Method::Txn, Shape::Unary, &["/v3/kv/txn"]),
    rpc::<pb::DeleteRangeRequest, pb::DeleteRangeResponse>(
        (KV, "DeleteRange"),
        Method::DeleteRange,
        Shape::Unary,
        &["/v3/kv/deleterange"],
    ),
    rpc::<pb::RangeRequest, pb::RangeStreamResponse>(
        (KV, "RangeStream"),
        Method::RangeStream,
        Shape::Server,
        &[],
    ),
    rpc::<pb::CompactionRequest, pb::HeaderOnly>(
        (KV, "Compact"),
        Method::Compact,
        Shape::Unary,
        &["/v3/kv/compaction"],
    ),
    rpc::<pb::WatchRequest, pb::WatchResponse>((WATCH, "Watch"), Method::Watch, Shape::Both, &["/v3/watch"]),
    rpc::<pb::LeaseGrantRequest, pb::LeaseGrantResponse>(
        (LEASE, "LeaseGrant"),
        Method::LeaseGrant,
        Shape::Unary,
        &["/v3/lease/grant"],
    ),
    rpc::<pb::LeaseId, pb::HeaderOnly>(
        (LEASE, "LeaseRevoke"),
        Method::LeaseRevoke,
        Shape::Unary,
        &["/v3/lease/revoke", "/v3/kv/lease/revoke"],
    ),
    rpc::<pb::LeaseId, pb::LeaseKeepAliveResponse>(
        (LEASE, "LeaseKeepAlive"),
        Method::LeaseKeepAlive,
        Shape::Both,
        &["/v3/lease/keepalive"],
    ),
    rpc::<pb::LeaseTimeToLiveRequest, pb::LeaseTimeToLiveResponse>(
        (LEASE, "LeaseTimeToLive"),
        Method::LeaseTimeToLive,
        Shape::Unary,
        &["/v3/lease/timetolive", "/v3/kv/lease/timetolive"],
    ),
    rpc::<pb::Empty, pb::LeaseLeasesResponse>(
        (LEASE, "LeaseLeases"),
        Method::LeaseLeases,
        Shape::Unary,
        &["/v3/lease/leases", "/v3/kv/lease/leases"],
    ),
    rpc::<pb::MemberAddRequest, pb::MemberAddResponse>(
        (CLUSTER, "MemberAdd"),
        Method::MemberAdd,
        Shape::Unary,
        &["/v3/cluster/member/add"],
    ),
    rpc::<pb::MemberId, pb::MembersResponse>(
        (CLUSTER, "MemberRemove"),
        Method::MemberRemove,
        Shape::Unary,
        &["/v3/cluster/member/remove"],
    ),
    rpc::<pb::MemberUpdateRequest, pb::MembersResponse>(
        (CLUSTER, "MemberUpdate"),
        Method::MemberUpdate,
        Shape::Unary,
        &["/v3/cluster/member/update"],
    ),
    rpc::<pb::MemberListRequest, pb::MembersResponse>(
        (CLUSTER, "MemberList"),
        Method::MemberList,
        Shape::Unary,
        &["/v3/cluster/member/list"],
    ),
    rpc::<pb::MemberId, pb::MembersResponse>(
        (CLUSTER, "MemberPromote"),
        Method::MemberPromote,
        Shape::Unary,
        &["/v3/cluster/member/promote"],
    ),
    rpc::<pb::AlarmRequest, pb::AlarmResponse>(
        (MAINTENANCE, "Alarm"),
        Method::Alarm,
        Shape::Unary,
        &["/v3/maintenance/alarm"],
    ),
    rpc::<pb::Empty, pb::StatusResponse>(
        (MAINTENANCE, "Status"),
        Method::Status,
        Shape::Unary,
        &["/v3/maintenance/status"],
    ),
    rpc::<pb::Empty, pb::Empty>(
        (MAINTENANCE, "Defragment"),
        Method::Defragment,
        Shape::Unary,
        &["/v3/maintenance/defragment"],
    ),
    rpc::<pb::MoveLeaderRequest, pb::HeaderOnly>(
        (MAINTENANCE, "MoveLeader"),
        Method::MoveLeader,
        Shape::Unary,
        &["/v3/maintenance/transfer-leadership"],
    ),
    rpc::<pb::Empty, pb::HashResponse>((MAINTENANCE, "Hash"), Method::Hash, Shape::Unary, &[]),
    rpc::<pb::HashKvRequest, pb::HashKvResponse>(
        (MAINTENANCE, "HashKV"),
        Method::HashKv,
        Shape::Unary,
        &["/v3/maintenance/hash"],
    ),
    rpc::<pb::Empty, pb::SnapshotResponse>(
        (MAINTENANCE, "Snapshot"),
        Method::Snapshot,
        Shape::Server,
        &["/v3/maintenance/snapshot"],
    ),
    rpc::<pb::DowngradeRequest, pb::DowngradeResponse>(
        (MAINTENANCE, "Downgrade"),
        Method::Downgrade,
        Shape::Unary,
        &["/v3/maintenance/downgrade"],
    ),
    rpc::<pb::Empty, pb::AuthStatusResponse>(
        (AUTH, "AuthStatus"),
        Method::AuthStatus,
        Shape::Unary,
        &["/v3/auth/status"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "AuthEnable"),
        Method::NoRootUser,
        Shape::Unary,
        &["/v3/auth/enable"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "AuthDisable"),
        Method::HeaderAlone,
        Shape::Unary,
        &["/v3/auth/disable"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "Authenticate"),
        Method::AuthOff,
        Shape::Unary,
        &["/v3/auth/authenticate"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "UserAdd"),
        Method::AuthOff,
        Shape::Unary,
        &["/v3/auth/user/add"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "UserGet"),
        Method::UserNotFound,
        Shape::Unary,
        &["/v3/auth/user/get"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "UserList"),
        Method::HeaderAlone,
        Shape::Unary,
        &["/v3/auth/user/list"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "UserDelete"),
        Method::UserNotFound,
        Shape::Unary,
        &["/v3/auth/user/delete"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "UserChangePassword"),
        Method::UserNotFound,
        Shape::Unary,
        &["/v3/auth/user/changepw"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "UserGrantRole"),
        Method::UserNotFound,
        Shape::Unary,
        &["/v3/auth/user/grant"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "UserRevokeRole"),
        Method::UserNotFound,
        Shape::Unary,
        &["/v3/auth/user/revoke"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "RoleAdd"),
        Method::AuthOff,
        Shape::Unary,
        &["/v3/auth/role/add"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "RoleGet"),
        Method::RoleNotFound,
        Shape::Unary,
        &["/v3/auth/role/get"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "RoleList"),
        Method::HeaderAlone,
        Shape::Unary,
        &["/v3/auth/role/list"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "RoleDelete"),
        Method::RoleNotFound,
        Shape::Unary,
        &["/v3/auth/role/delete"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "RoleGrantPermission"),
        Method::RoleNotFound,
        Shape::Unary,
        &["/v3/auth/role/grant"],
    ),
    rpc::<pb::Empty, pb::HeaderOnly>(
        (AUTH, "RoleRevokePermission"),
        Method::RoleNotFound,
        Shape::Unary,
        &["/v3/auth/role/revoke"],
    ),
    rpc::<pb::LockRequest, pb::LockResponse>((LOCK, "Lock"), Method::Lock, Shape::Unary, &["/v3/lock/lock"]),
    rpc::<pb::UnlockRequest, pb::HeaderOnly>(
        (LOCK, "Unlock"),
        Method::Unlock,
        Shape::Unary,
        &["/v3/lock/unlock"],
    ),
    rpc::<pb::CampaignRequest, pb::CampaignResponse>(
        (ELECTION, "Campaign"),
        Method::Campaign,
        Shape::Unary,
        &["/v3/election/campaign"],
    ),
    rpc::<pb::ProclaimRequest, pb::HeaderOnly>(
        (ELECTION, "Proclaim"),
        Method::Proclaim,
        Shape::Unary,
        &["/v3/election/proclaim"],
    ),
    rpc::<pb::Named, pb::LeaderResponse>(
        (ELECTION, "Leader"),
        Method::Leader,
        Shape::Unary,
        &["/v3/election/leader"],
    ),
    rpc::<pb::Named, pb::LeaderResponse>(
        (ELECTION, "Observe"),
        Method::Observe,
        Shape::Server,
        &["/v3/election/observe"],
    ),
    rpc::<pb::ProclaimRequest, pb::HeaderOnly>(
        (ELECTION, "Resign"),
        Method::Resign,
        Shape::Unary,
        &["/v3/election/resign"],
    ),
    rpc::<pb::HealthCheckRequest, pb::HealthCheckResponse>(
        (HEALTH, "Check"),
        Method::HealthCheck,
        Shape::Unary,
        &[],
    ),
    rpc::<pb::HealthCheckRequest, pb::HealthCheckResponse>(
        (HEALTH, "Watch"),
        Method::HealthWatch,
        Shape::Server,
        &[],
    ),
];

/// `path`: as it stands in the request of gRPC.
pub fn find(path: &str) -> Option<&'static Rpc> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    RPCS.iter().find(|rpc| rpc.name == name && rpc.service == service)
}

/// `path`: of the JSON gateway.
pub fn find_by_gateway_path(path: &str) -> Option<&'static Rpc> {
    RPCS.iter().find(|rpc| rpc.paths.contains(&path))
}

impl Rpc {
    /// Where it stands in [`RPCS`].
    pub fn place(&self) -> usize {
        RPCS.iter().position(|rpc| std::ptr::eq(rpc, self)).expect("every one of them stands there")
    }
}

impl Method {
    /// The client may send several messages.
    pub fn takes_stream(self) -> bool {
        matches!(self, Method::Watch | Method::LeaseKeepAlive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let method = |path: &str| find(path).map(|rpc| rpc.method);
        assert_eq!(method("/etcdserverpb.KV/Range"), Some(Method::Range));
        assert_eq!(method("/etcdserverpb.Watch/Watch"), Some(Method::Watch));
        assert_eq!(method("/etcdserverpb.Auth/Authenticate"), Some(Method::AuthOff));
        assert_eq!(method("/etcdserverpb.Maintenance/Snapshot"), Some(Method::Snapshot));
        assert_eq!(method("/etcdserverpb.Auth/UserAdd"), Some(Method::AuthOff));
        for none in [
            "",
            "/",
            "/etcdserverpb.KV",
            "/etcdserverpb.KV/",
            "/etcdserverpb.KV/Rang",
            "etcdserverpb.KV/Range",
            "/x/y/z",
        ] {
            assert!(find(none).is_none(), "{none}");
        }
    }

    #[test]
    fn each_stands_once() {
        for (place, rpc) in RPCS.iter().enumerate() {
            assert_eq!(rpc.place(), place);
            assert_eq!(rpc.method.takes_stream(), rpc.shape == Shape::Both, "{}", rpc.name);
            for path in rpc.paths {
                assert!(std::ptr::eq(find_by_gateway_path(path).unwrap(), rpc), "{path}");
            }
            assert!(std::ptr::eq(find(&format!("/{}/{}", rpc.service, rpc.name)).unwrap(), rpc));
        }
    }
}
