//! What a [`Fault`] is called by protocols that are not ours: a gRPC status with the text that etcd's clients know by heart,
//! and the HTTP status that goes with it.
//!
//! One table, by text: a row has etcd's text, the line protocol's code and the status, and the status has its number in gRPC
//! and in HTTP. By text, because etcd gives failures of one class different statuses ("key is not provided" is INVALID_ARGUMENT,
//! "too large lease TTL" OUT_OF_RANGE) and its clients tell them apart by the text alone. What is not in it, because etcd has
//! no such failure, has the status of its class.

use super::{Code, Fault};

/// gRPC's status codes (its `doc/statuscodes.md`), by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RpcStatus {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl RpcStatus {
    /// In the order of their numbers.
    pub const ALL: [RpcStatus; 17] = [
        RpcStatus::Ok,
        RpcStatus::Canceled,
        RpcStatus::Unknown,
        RpcStatus::InvalidArgument,
        RpcStatus::DeadlineExceeded,
        RpcStatus::NotFound,
        RpcStatus::AlreadyExists,
        RpcStatus::PermissionDenied,
        RpcStatus::ResourceExhausted,
        RpcStatus::FailedPrecondition,
        RpcStatus::Aborted,
        RpcStatus::OutOfRange,
        RpcStatus::Unimplemented,
        RpcStatus::Internal,
        RpcStatus::Unavailable,
        RpcStatus::DataLoss,
        RpcStatus::Unauthenticated,
    ];

    pub fn number(self) -> u8 {
        self as u8
    }

    /// As gRPC's libraries spell it, in metrics above all.
    pub fn word(self) -> &'static str {
        match self {
            RpcStatus::Ok => "OK",
            RpcStatus::Canceled => "Canceled",
            RpcStatus::Unknown => "Unknown",
            RpcStatus::InvalidArgument => "InvalidArgument",
            RpcStatus::DeadlineExceeded => "DeadlineExceeded",
            RpcStatus::NotFound => "NotFound",
            RpcStatus::AlreadyExists => "AlreadyExists",
            RpcStatus::PermissionDenied => "PermissionDenied",
            RpcStatus::ResourceExhausted => "ResourceExhausted",
            RpcStatus::FailedPrecondition => "FailedPrecondition",
            RpcStatus::Aborted => "Aborted",
            RpcStatus::OutOfRange => "OutOfRange",
            RpcStatus::Unimplemented => "Unimplemented",
            RpcStatus::Internal => "Internal",
            RpcStatus::Unavailable => "Unavailable",
            RpcStatus::DataLoss => "DataLoss",
            RpcStatus::Unauthenticated => "Unauthenticated",
        }
    }

    /// As the release of grpc-gateway translates it with which etcd 3.5's JSON gateway is made (1.16).
    pub fn http(self) -> u16 {
        match self {
            RpcStatus::Ok => 200,
            RpcStatus::Canceled => 408,
            RpcStatus::InvalidArgument | RpcStatus::FailedPrecondition | RpcStatus::OutOfRange => 400,
            RpcStatus::DeadlineExceeded => 504,
            RpcStatus::NotFound => 404,
            RpcStatus::AlreadyExists | RpcStatus::Aborted => 409,
            RpcStatus::PermissionDenied => 403,
            RpcStatus::Unauthenticated => 401,
            RpcStatus::ResourceExhausted => 429,
            RpcStatus::Unimplemented => 501,
            RpcStatus::Unavailable => 503,
            RpcStatus::Unknown | RpcStatus::Internal | RpcStatus::DataLoss => 500,
        }
    }
}

/// etcd's text (`rpctypes/error.go`, and the packages `concurrency` and `mvcc` where no status was chosen for it), the class,
/// the status.
const TABLE: &[(&str, Code, RpcStatus)] = &[
    ("etcdserver: key is not provided", Code::Err, RpcStatus::InvalidArgument),
    ("etcdserver: key not found", Code::NoKey, RpcStatus::InvalidArgument),
    ("etcdserver: value is provided", Code::Err, RpcStatus::InvalidArgument),
    ("etcdserver: lease is provided", Code::Err, RpcStatus::InvalidArgument),
    ("etcdserver: invalid sort option", Code::Err, RpcStatus::InvalidArgument),
    ("etcdserver: too many operations in txn request", Code::TooManyOps, RpcStatus::InvalidArgument),
    ("etcdserver: duplicate key given in txn request", Code::DupKey, RpcStatus::InvalidArgument),
    ("etcdserver: request is too large", Code::TooLarge, RpcStatus::InvalidArgument),
    ("etcdserver: mvcc: required revision has been compacted", Code::Compacted, RpcStatus::OutOfRange),
    ("etcdserver: mvcc: required revision is a future revision", Code::Future, RpcStatus::OutOfRange),
    ("etcdserver: mvcc: database space exceeded", Code::NoSpace, RpcStatus::ResourceExhausted),
    ("etcdserver: too many requests", Code::Busy, RpcStatus::ResourceExhausted),
    ("etcdserver: requested lease not found", Code::NoLease, RpcStatus::NotFound),
    ("etcdserver: lease already exists", Code::LeaseExists, RpcStatus::FailedPrecondition),
    ("etcdserver: too large lease TTL", Code::Err, RpcStatus::OutOfRange),
    ("etcdserver: member not found", Code::NoMember, RpcStatus::NotFound),
    ("etcdserver: member ID already exist", Code::MemberExists, RpcStatus::FailedPrecondition),
    ("etcdserver: Peer URLs already exists", Code::MemberExists, RpcStatus::FailedPrecondition),
    ("etcdserver: given member URLs are invalid", Code::Err, RpcStatus::InvalidArgument),
    ("etcdserver: unhealthy cluster", Code::Unhealthy, RpcStatus::Unavailable),
    (
        "etcdserver: re-configuration failed due to not enough started members",
        Code::Unhealthy,
        RpcStatus::FailedPrecondition,
    ),
    ("etcdserver: can only promote a learner member", Code::Learner, RpcStatus::FailedPrecondition),
    (
        "etcdserver: can only promote a learner member which is in sync with leader",
        Code::Learner,
        RpcStatus::FailedPrecondition,
    ),
    ("etcdserver: too many learner members in cluster", Code::Learner, RpcStatus::FailedPrecondition),
    ("etcdserver: not leader", Code::Err, RpcStatus::FailedPrecondition),
    ("etcdserver: bad leader transferee", Code::Err, RpcStatus::FailedPrecondition),
    ("etcdserver: no leader", Code::NoLeader, RpcStatus::Unavailable),
    ("etcdserver: request timed out", Code::Timeout, RpcStatus::Unavailable),
    ("etcdserver: server stopped", Code::Shutdown, RpcStatus::Unavailable),
    ("etcdserver: corrupt cluster", Code::Corrupt, RpcStatus::DataLoss),
    ("etcdserver: authentication is not enabled", Code::Err, RpcStatus::FailedPrecondition),
    ("etcdserver: user name not found", Code::Err, RpcStatus::FailedPrecondition),
    ("etcdserver: role name not found", Code::Err, RpcStatus::FailedPrecondition),
    ("etcdserver: root user does not exist", Code::Err, RpcStatus::FailedPrecondition),
    ("etcdserver: unknown method", Code::Err, RpcStatus::Unknown),
    ("etcdserver: no inflight downgrade job", Code::Err, RpcStatus::FailedPrecondition),
    ("etcdserver: invalid downgrade target version", Code::Err, RpcStatus::InvalidArgument),
    ("etcdserver: wrong downgrade target version format", Code::Err, RpcStatus::InvalidArgument),
    ("mvcc: watcher range is empty", Code::Err, RpcStatus::InvalidArgument),
    ("mutex: Locked by another session", Code::Busy, RpcStatus::Unknown),
    ("election: not leader", Code::Busy, RpcStatus::Unknown),
    ("election: no leader", Code::NoKey, RpcStatus::Unknown),
];

impl Fault {
    /// The text without the bound that the line protocol puts in front of it: what etcd would say.
    pub fn etcd_text(&self) -> &str {
        match self.code {
            Code::Compacted | Code::Future => self.text.split_once(' ').map_or("", |(_, text)| text),
            _ => &self.text,
        }
    }

    pub fn status(&self) -> RpcStatus {
        let text = self.etcd_text();
        let row = TABLE.iter().find(|(known, code, _)| *code == self.code && *known == text);
        row.map_or_else(|| of_class(self.code), |(_, _, status)| *status)
    }
}

fn of_class(code: Code) -> RpcStatus {
    match code {
        Code::Err | Code::TooLarge | Code::TooManyOps | Code::DupKey | Code::NoKey => {
            RpcStatus::InvalidArgument
        }
        Code::NoLease | Code::NoMember => RpcStatus::NotFound,
        Code::LeaseExists | Code::MemberExists | Code::Learner => RpcStatus::FailedPrecondition,
        Code::Compacted | Code::Future => RpcStatus::OutOfRange,
        Code::Busy | Code::NoSpace => RpcStatus::ResourceExhausted,
        Code::NoLeader | Code::Timeout | Code::Unhealthy | Code::Shutdown | Code::Loading => {
            RpcStatus::Unavailable
        }
        Code::Corrupt => RpcStatus::DataLoss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_found_and_none_stands_twice() {
        for (at, &(text, code, status)) in TABLE.iter().enumerate() {
            assert!(TABLE[..at].iter().all(|row| (row.0, row.1) != (text, code)), "{text}");
            let shown = if matches!(code, Code::Compacted | Code::Future) {
                format!("77 {text}")
            } else {
                text.to_string()
            };
            let fault = Fault::new(code, shown);
            assert_eq!((fault.etcd_text(), fault.status()), (text, status));
        }
    }

    #[test]
    fn what_is_often_said_is_in_the_table() {
        for fault in [
            Fault::no_leader(),
            Fault::timeout(),
            Fault::busy(),
            Fault::compacted(3),
            Fault::future(3),
            Fault::too_large(),
            Fault::too_many_ops(),
            Fault::duplicate_key(),
            Fault::empty_key(),
            Fault::no_key(),
            Fault::no_lease(),
            Fault::lease_exists(),
            Fault::locked(),
            Fault::another_leads(),
            Fault::lease_ttl_too_large(),
            Fault::no_member(),
            Fault::member_exists(),
            Fault::url_exists(),
            Fault::not_a_learner(),
            Fault::no_space(),
            Fault::corrupt(),
            Fault::empty_watch(),
            Fault::auth_off(),
            Fault::no_user(),
            Fault::no_role(),
            Fault::no_root_user(),
            Fault::unknown_method(),
            Fault::no_downgrade(),
            Fault::downgrade_target(),
            Fault::downgrade_format(),
            Fault::shutdown(),
        ] {
            assert!(TABLE.iter().any(|row| row.0 == fault.etcd_text() && row.1 == fault.code), "{fault}");
        }
        // etcd has no such state, and its clients go to another member all the same.
        assert_eq!(Fault::recovering().status(), RpcStatus::Unavailable);
    }

    #[test]
    fn numbers_and_http() {
        for (place, status) in RpcStatus::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(status.number()), place, "{}", status.word());
        }
        assert_eq!((RpcStatus::Ok.number(), RpcStatus::Unauthenticated.number()), (0, 16));
        assert_eq!(Fault::compacted(9).status().http(), 400);
        assert_eq!(Fault::no_leader().status().http(), 503);
        assert_eq!(Fault::no_lease().status().http(), 404);
    }
}
