//! What a client is told when a request fails: a code that says what to do, and a text that says what was
//! found. One table serves every protocol; the text is etcd's own where etcd has one, because its clients
//! match it to the letter.

use std::fmt;

/// The class of a failure, and with it what the caller should do. Printed as the first word of an error line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// Unknown command, wrong words, a bad number: mend the request.
    Err,
    /// No leader now; nothing happened: retry.
    NoLeader,
    /// Not known whether it happened: read before retrying.
    Timeout,
    /// Not accepted, nothing happened: retry later.
    Busy,
    /// The revision asked for is gone; the bound is the first one that can still be read.
    Compacted,
    /// The revision asked for is not there yet; the bound is the newest one.
    Future,
    TooLarge,
    /// A transaction with too many operations, or nested too deep: split it.
    TooManyOps,
    /// A transaction that could change a key twice: split it.
    DupKey,
    NoKey,
    NoLease,
    LeaseExists,
    NoMember,
    /// An id or a URL belongs to another member.
    MemberExists,
    /// It concerns a learner: not caught up, or too many of them.
    Learner,
    /// The cluster would be at risk: too few members are connected.
    Unhealthy,
    /// Quota or disk full: reads and deletes go on.
    NoSpace,
    /// This member found damage and stopped serving: ask another one, and an operator. Or an alarm says so of the cluster: it
    /// changes nothing more, and nothing happened.
    Corrupt,
    /// This member is stopping; nothing happened: another member.
    Shutdown,
    /// This member lost data and is getting it back from the others; nothing happened: another member.
    Loading,
}

impl Code {
    /// In the order of their declaration.
    pub const ALL: [Code; 20] = [
        Code::Err,
        Code::NoLeader,
        Code::Timeout,
        Code::Busy,
        Code::Compacted,
        Code::Future,
        Code::TooLarge,
        Code::TooManyOps,
        Code::DupKey,
        Code::NoKey,
        Code::NoLease,
        Code::LeaseExists,
        Code::NoMember,
        Code::MemberExists,
        Code::Learner,
        Code::Unhealthy,
        Code::NoSpace,
        Code::Corrupt,
        Code::Shutdown,
        Code::Loading,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Code::Err => "ERR",
            Code::NoLeader => "NOLEADER",
            Code::Timeout => "TIMEOUT",
            Code::Busy => "BUSY",
            Code::Compacted => "COMPACTED",
            Code::Future => "FUTURE",
            Code::TooLarge => "TOOLARGE",
            Code::TooManyOps => "TOOMANYOPS",
            Code::DupKey => "DUPKEY",
            Code::NoKey => "NOKEY",
            Code::NoLease => "NOLEASE",
            Code::LeaseExists => "LEASEEXISTS",
            Code::NoMember => "NOMEMBER",
            Code::MemberExists => "MEMBEREXISTS",
            Code::Learner => "LEARNER",
            Code::Unhealthy => "UNHEALTHY",
            Code::NoSpace => "NOSPACE",
            Code::Corrupt => "CORRUPT",
            Code::Shutdown => "SHUTDOWN",
            Code::Loading => "LOADING",
        }
    }
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    /// One line, without values or secrets. For `Compacted` and `Future` it begins with the bound.
    pub text: String,
}

impl Fault {
    pub fn new(code: Code, text: impl Into<String>) -> Fault {
        Fault { code, text: text.into() }
    }

    pub fn no_leader() -> Fault {
        Fault::new(Code::NoLeader, "etcdserver: no leader")
    }

    pub fn timeout() -> Fault {
        Fault::new(Code::Timeout, "etcdserver: request timed out")
    }

    pub fn busy() -> Fault {
        Fault::new(Code::Busy, "etcdserver: too many requests")
    }

    pub fn compacted(bound: u64) -> Fault {
        Fault::new(Code::Compacted, format!("{bound} etcdserver: mvcc: required revision has been compacted"))
    }

    pub fn future(bound: u64) -> Fault {
        Fault::new(Code::Future, format!("{bound} etcdserver: mvcc: required revision is a future revision"))
    }

    pub fn too_large() -> Fault {
        Fault::new(Code::TooLarge, "etcdserver: request is too large")
    }

    pub fn too_many_ops() -> Fault {
        Fault::new(Code::TooManyOps, "etcdserver: too many operations in txn request")
    }

    pub fn duplicate_key() -> Fault {
        Fault::new(Code::DupKey, "etcdserver: duplicate key given in txn request")
    }

    pub fn empty_key() -> Fault {
        Fault::new(Code::Err, "etcdserver: key is not provided")
    }

    pub fn no_key() -> Fault {
        Fault::new(Code::NoKey, "etcdserver: key not found")
    }

    pub fn no_lease() -> Fault {
        Fault::new(Code::NoLease, "etcdserver: requested lease not found")
    }

    pub fn lease_exists() -> Fault {
        Fault::new(Code::LeaseExists, "etcdserver: lease already exists")
    }

    /// Whoever did not want to wait longer for a lock; nothing of the request is left.
    pub fn locked() -> Fault {
        Fault::new(Code::Busy, "mutex: Locked by another session")
    }

    /// The same of an election.
    pub fn another_leads() -> Fault {
        Fault::new(Code::Busy, "election: not leader")
    }

    pub fn lease_ttl_too_large() -> Fault {
        Fault::new(Code::Err, "etcdserver: too large lease TTL")
    }

    pub fn no_member() -> Fault {
        Fault::new(Code::NoMember, "etcdserver: member not found")
    }

    pub fn member_exists() -> Fault {
        Fault::new(Code::MemberExists, "etcdserver: member ID already exist")
    }

    pub fn url_exists() -> Fault {
        Fault::new(Code::MemberExists, "etcdserver: Peer URLs already exists")
    }

    pub fn not_a_learner() -> Fault {
        Fault::new(Code::Learner, "etcdserver: can only promote a learner member")
    }

    pub fn no_space() -> Fault {
        Fault::new(Code::NoSpace, "etcdserver: mvcc: database space exceeded")
    }

    pub fn too_many_alarms() -> Fault {
        Fault::new(Code::Busy, "etcdserver: too many alarms stand; end some of them first")
    }

    pub fn corrupt() -> Fault {
        Fault::new(Code::Corrupt, "etcdserver: corrupt cluster")
    }

    pub fn recovering() -> Fault {
        Fault::new(Code::Loading, "etcdserver: this member is being repaired; ask another one")
    }

    pub fn empty_watch() -> Fault {
        Fault::new(Code::Err, "mvcc: watcher range is empty")
    }

    pub fn auth_off() -> Fault {
        Fault::new(Code::Err, "etcdserver: authentication is not enabled")
    }

    pub fn no_user() -> Fault {
        Fault::new(Code::Err, "etcdserver: user name not found")
    }

    pub fn no_role() -> Fault {
        Fault::new(Code::Err, "etcdserver: role name not found")
    }

    pub fn no_root_user() -> Fault {
        Fault::new(Code::Err, "etcdserver: root user does not exist")
    }

    pub fn unknown_method() -> Fault {
        Fault::new(Code::Err, "etcdserver: unknown method")
    }

    pub fn no_downgrade() -> Fault {
        Fault::new(Code::Err, "etcdserver: no inflight downgrade job")
    }

    pub fn downgrade_target() -> Fault {
        Fault::new(Code::Err, "etcdserver: invalid downgrade target version")
    }

    pub fn downgrade_format() -> Fault {
        Fault::new(Code::Err, "etcdserver: wrong downgrade target version format")
    }

    pub fn shutdown() -> Fault {
        Fault::new(Code::Shutdown, "etcdserver: server stopped")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code.word(), self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_codes_is_in_their_order() {
        for (place, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, place, "{}", code.word());
        }
    }
}
