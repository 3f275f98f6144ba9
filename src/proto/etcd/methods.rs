//! Which methods there are, by their paths (gRPC over HTTP/2, "Path"). What is not here is UNIMPLEMENTED.

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
    Lock,
    Unlock,
    Campaign,
    Proclaim,
    Leader,
    Observe,
    Resign,
    AuthStatus,
    /// There are no users and no roles, and what asks for one of them, or for all, is told so.
    AuthOff,
    UserNotFound,
    RoleNotFound,
    NoRootUser,
    ListOfNothing,
    HealthCheck,
    /// etcd has it and this member has not: why.
    Missing(&'static str),
}

const HASH: &str = "this member compares states by itself, and has no hash in etcd's form";
const SNAPSHOT: &str = "a snapshot in etcd's form is not written here";
const DOWNGRADE: &str = "there is no earlier version to go back to";
const NO_USERS: &str = "users and roles cannot be made here yet";

/// `path`: as it stands in the request.
pub fn find(path: &str) -> Option<Method> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let found = match service {
        "etcdserverpb.KV" => match method {
            "Range" => Method::Range,
            "RangeStream" => Method::RangeStream,
            "Put" => Method::Put,
            "DeleteRange" => Method::DeleteRange,
            "Txn" => Method::Txn,
            "Compact" => Method::Compact,
            _ => return None,
        },
        "etcdserverpb.Watch" if method == "Watch" => Method::Watch,
        "etcdserverpb.Lease" => match method {
            "LeaseGrant" => Method::LeaseGrant,
            "LeaseRevoke" => Method::LeaseRevoke,
            "LeaseKeepAlive" => Method::LeaseKeepAlive,
            "LeaseTimeToLive" => Method::LeaseTimeToLive,
            "LeaseLeases" => Method::LeaseLeases,
            _ => return None,
        },
        "etcdserverpb.Cluster" => match method {
            "MemberAdd" => Method::MemberAdd,
            "MemberRemove" => Method::MemberRemove,
            "MemberUpdate" => Method::MemberUpdate,
            "MemberList" => Method::MemberList,
            "MemberPromote" => Method::MemberPromote,
            _ => return None,
        },
        "etcdserverpb.Maintenance" => match method {
            "Alarm" => Method::Alarm,
            "Status" => Method::Status,
            "Defragment" => Method::Defragment,
            "MoveLeader" => Method::MoveLeader,
            "Hash" | "HashKV" => Method::Missing(HASH),
            "Snapshot" => Method::Missing(SNAPSHOT),
            "Downgrade" => Method::Missing(DOWNGRADE),
            _ => return None,
        },
        "v3lockpb.Lock" => match method {
            "Lock" => Method::Lock,
            "Unlock" => Method::Unlock,
            _ => return None,
        },
        "v3electionpb.Election" => match method {
            "Campaign" => Method::Campaign,
            "Proclaim" => Method::Proclaim,
            "Leader" => Method::Leader,
            "Observe" => Method::Observe,
            "Resign" => Method::Resign,
            _ => return None,
        },
        "etcdserverpb.Auth" => return of_auth(method),
        "grpc.health.v1.Health" if method == "Check" => Method::HealthCheck,
        _ => return None,
    };
    Some(found)
}

fn of_auth(method: &str) -> Option<Method> {
    Some(match method {
        "AuthStatus" => Method::AuthStatus,
        "AuthEnable" => Method::NoRootUser,
        "AuthDisable" | "Authenticate" => Method::AuthOff,
        "UserAdd" | "RoleAdd" => Method::Missing(NO_USERS),
        "UserGet" | "UserDelete" | "UserChangePassword" | "UserGrantRole" | "UserRevokeRole" => {
            Method::UserNotFound
        }
        "RoleGet" | "RoleDelete" | "RoleGrantPermission" | "RoleRevokePermission" => Method::RoleNotFound,
        "UserList" | "RoleList" => Method::ListOfNothing,
        _ => return None,
    })
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
        assert_eq!(find("/etcdserverpb.KV/Range"), Some(Method::Range));
        assert_eq!(find("/etcdserverpb.Watch/Watch"), Some(Method::Watch));
        assert_eq!(find("/etcdserverpb.Auth/Authenticate"), Some(Method::AuthOff));
        assert!(matches!(find("/etcdserverpb.Maintenance/Snapshot"), Some(Method::Missing(_))));
        for none in [
            "",
            "/",
            "/etcdserverpb.KV",
            "/etcdserverpb.KV/",
            "/etcdserverpb.KV/Rang",
            "etcdserverpb.KV/Range",
            "/x/y/z",
        ] {
            assert_eq!(find(none), None, "{none}");
        }
    }
}
