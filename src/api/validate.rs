//! The gate: what every mutating or reading request must satisfy before the node looks at it. Behind the
//! gate nobody checks again. The same rules answer every protocol.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::lease::LEASE_TTL_S_MAX;
use super::lock::{LOCK_WAIT_MS_MAX, lock_key_bytes_max, lock_owner};
use super::txn::PART_BYTES_MAX;
use super::{
    Acquire, Code, Fault, LeaseRequest, LockRequest, MemberChange, Op, Put, Request, Span, Target, Txn,
};
use crate::base::{limits, planted};

/// The settings that requests are measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `--max-request-bytes`: keys and values of one request together.
    pub request_bytes_max: usize,
    /// `--max-txn-ops`: compares of a transaction, and operations of either branch. What the longest of the three lists
    /// of one uses up is missing to those in it.
    pub txn_ops_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { request_bytes_max: limits::REQUEST_BYTES_DEFAULT, txn_ops_max: 128 }
    }
}

/// Checks one request.
pub fn check(request: &Request, limits: &Limits) -> Result<(), Fault> {
    match request {
        Request::Put(put) => check_put(put, limits),
        Request::Range(range) => check_span(&range.span, limits),
        Request::Delete(delete) => check_span(&delete.span, limits),
        Request::Txn(txn) => check_txn(txn, limits),
        Request::Watch(watch) => match &watch.span {
            Span::Between(from, to) if to <= from => Err(Fault::empty_watch()),
            span => check_span(span, limits),
        },
        Request::MemberAdd { peer_urls, .. } | Request::MemberUpdate { peer_urls, .. } => {
            check_peer_urls(peer_urls)
        }
        Request::MemberChange { changes } => check_changes(changes),
        Request::Exists { keys } => {
            if keys.len() > EXISTS_KEYS_MAX {
                return Err(Fault::new(Code::Err, format!("EXISTS takes {EXISTS_KEYS_MAX} keys at most")));
            }
            keys.iter().try_for_each(|key| check_key(key, limits))
        }
        Request::Lease(lease) => check_lease(lease),
        Request::Lock(lock) => check_lock(lock, limits),
        Request::Compact(_)
        | Request::Defrag
        | Request::AlarmList
        | Request::AlarmChange(_)
        | Request::Status
        | Request::Metrics
        | Request::HashKv { .. }
        | Request::Hash
        | Request::Snapshot
        | Request::MemberList { .. }
        | Request::MemberRemove { .. }
        | Request::MemberPromote { .. }
        | Request::MoveLeader { .. }
        | Request::WatchProgress
        | Request::WatchHealth => Ok(()),
    }
}

fn check_txn(txn: &Txn, limits: &Limits) -> Result<(), Fault> {
    let bytes = check_parts(txn, limits, limits.txn_ops_max, 1)?;
    edges(&txn.success)?;
    edges(&txn.failure)?;
    check_size(bytes, limits)
}

/// Compares and operations one by one; how many bytes all of them take up in the log.
fn check_parts(txn: &Txn, limits: &Limits, ops_max: usize, depth: usize) -> Result<usize, Fault> {
    let Txn { compares, success, failure } = txn;
    let longest = compares.len().max(success.len()).max(failure.len());
    if longest > ops_max || depth > limits::TXN_DEPTH_MAX {
        return Err(Fault::too_many_ops());
    }
    let mut bytes = 0;
    for compare in compares {
        check_span(&compare.span, limits)?;
        let value = if let Target::Value(value) = &compare.target { value.len() } else { 0 };
        bytes += PART_BYTES_MAX + span_bytes(&compare.span) + value;
    }
    for op in success.iter().chain(failure) {
        bytes += PART_BYTES_MAX;
        match op {
            Op::Put(put) => {
                check_put(put, limits)?;
                bytes += put.key.len() + put.value.len();
            }
            Op::Range(range) => {
                check_span(&range.span, limits)?;
                bytes += span_bytes(&range.span);
            }
            Op::Delete(delete) => {
                check_span(&delete.span, limits)?;
                bytes += span_bytes(&delete.span);
            }
            Op::Txn(txn) => bytes += check_parts(txn, limits, ops_max - longest, depth + 1)?,
        }
    }
    Ok(bytes)
}

/// What lies at one key, in the order in which it is passed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    /// A span that is deleted ends before this key.
    End,
    /// A span that is deleted begins.
    Begin,
    Put,
}

/// The keys that some operations of one branch put and the spans that they delete. A key changes once in a revision, so
/// two operations must not put one key, nor one of them delete what the other puts; that two delete it is no harm, since
/// the second finds nothing. The branches of a nested transaction exclude each other, but count both against what is
/// beside it.
///
/// etcd looks for the same, and overlooks two cases: a deletion in a nested transaction behind one that puts the key, and a
/// put at or behind the key from which on everything is deleted.
fn edges(ops: &[Op]) -> Result<Vec<(Bytes, Edge)>, Fault> {
    let mut all: Vec<(Bytes, Edge, usize)> = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        match op {
            Op::Put(put) => all.push((put.key.clone(), Edge::Put, at)),
            Op::Delete(delete) => {
                let (from, end) = delete.span.bounds();
                if end.as_ref().is_none_or(|end| from < *end) {
                    all.push((from, Edge::Begin, at));
                    all.extend(end.map(|end| (end, Edge::End, at)));
                }
            }
            Op::Range(_) => {}
            Op::Txn(txn) => {
                let nested = [edges(&txn.success)?, edges(&txn.failure)?].concat();
                if !planted::on("api-nested-puts-are-unseen") {
                    all.extend(nested.into_iter().map(|(key, edge)| (key, edge, at)));
                }
            }
        }
    }
    all.sort_unstable();
    // Of each operation, the spans that lie open.
    let mut open: BTreeMap<usize, usize> = BTreeMap::new();
    let mut last_put: Option<(&Bytes, usize)> = None;
    for (key, edge, at) in &all {
        match edge {
            Edge::Begin => *open.entry(*at).or_default() += 1,
            Edge::End => {
                let left = open.get_mut(at).expect("what ends has begun");
                *left -= 1;
                if *left == 0 {
                    open.remove(at);
                }
            }
            Edge::Put => {
                let by_another = open.len() > usize::from(open.contains_key(at));
                let again = last_put.is_some_and(|(last, by)| last == key && by != *at);
                if by_another || again {
                    return Err(Fault::duplicate_key());
                }
                last_put = Some((key, *at));
            }
        }
    }
    Ok(all.into_iter().map(|(key, edge, _)| (key, edge)).collect())
}

/// A millisecond of work or two.
const EXISTS_KEYS_MAX: usize = 4096;

/// URLs of one member, and bytes of each: they travel in every list of members.
const PEER_URLS_MAX: usize = 16;
const PEER_URL_BYTES_MAX: usize = 1024;

/// `http://host:port`, at least one, none twice.
fn check_peer_urls(urls: &[String]) -> Result<(), Fault> {
    let sound = |url: &String| {
        let host_port = url.strip_prefix("http://").unwrap_or("");
        let port = host_port.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        let clean = !host_port.contains(|c: char| c.is_control() || c.is_whitespace() || "/,=\"".contains(c));
        clean
            && url.len() <= PEER_URL_BYTES_MAX
            && port.is_some_and(|port| port.parse::<u16>().is_ok_and(|n| n > 0))
    };
    let repeated = urls.iter().enumerate().any(|(position, url)| urls[..position].contains(url));
    if urls.is_empty() || urls.len() > PEER_URLS_MAX || repeated || !urls.iter().all(sound) {
        return Err(Fault::new(Code::Err, "etcdserver: given member URLs are invalid"));
    }
    Ok(())
}

/// Additions, removals and promotions; none of a member that another one is about.
fn check_changes(changes: &[MemberChange]) -> Result<(), Fault> {
    if changes.len() > limits::MEMBERS_MAX {
        let most = limits::MEMBERS_MAX;
        return Err(Fault::new(Code::Err, format!("{} changes of members; {most} at most", changes.len())));
    }
    let (mut ids, mut urls) = (Vec::new(), Vec::new());
    for change in changes {
        match change {
            MemberChange::Add { peer_urls, .. } => {
                check_peer_urls(peer_urls)?;
                urls.extend(peer_urls);
            }
            MemberChange::Remove { id } | MemberChange::Promote { id } => ids.push(*id),
            _ => return Err(Fault::new(Code::Err, "members are added, removed and promoted together")),
        }
    }
    let repeated = |at: usize| urls[..at].contains(&urls[at]);
    if (0..urls.len()).any(repeated) {
        return Err(Fault::url_exists());
    }
    ids.sort_unstable();
    if changes.is_empty() || ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Fault::new(Code::Err, "each change is of another member, and there is one at least"));
    }
    Ok(())
}

/// A millisecond of work.
const KEEPALIVE_IDS_MAX: usize = 1024;

fn check_lease(request: &LeaseRequest) -> Result<(), Fault> {
    match request {
        LeaseRequest::Grant { ttl_s, .. } if *ttl_s > LEASE_TTL_S_MAX => Err(Fault::lease_ttl_too_large()),
        LeaseRequest::KeepAlive { ids } if ids.len() > KEEPALIVE_IDS_MAX => {
            Err(Fault::new(Code::Err, format!("KEEPALIVE takes {KEEPALIVE_IDS_MAX} leases at most")))
        }
        _ => Ok(()),
    }
}

fn check_lock(request: &LockRequest, limits: &Limits) -> Result<(), Fault> {
    match request {
        LockRequest::Acquire(Acquire { wait_ms: Some(wait_ms), .. }) if *wait_ms > LOCK_WAIT_MS_MAX => {
            let text =
                format!("WAIT is {LOCK_WAIT_MS_MAX} ms at most; without it, it is as long as it takes");
            Err(Fault::new(Code::Err, text))
        }
        LockRequest::Acquire(Acquire { name, .. })
        | LockRequest::Leader { name }
        | LockRequest::Observe { name }
            if name.is_empty() =>
        {
            Err(Fault::empty_key())
        }
        LockRequest::Acquire(Acquire { lease: 0, .. }) => Err(Fault::no_lease()),
        LockRequest::Acquire(Acquire { name, value, .. }) => {
            check_size(lock_key_bytes_max(name) + value.len(), limits)
        }
        LockRequest::Release { key } | LockRequest::Proclaim { key, .. } if lock_owner(key).is_none() => Err(
            Fault::new(Code::Err, "that is not the key of a lock: a name, /, and the id of a lease in hex"),
        ),
        LockRequest::Release { key } => check_key(key, limits),
        LockRequest::Proclaim { key, value } => check_size(key.len() + value.len(), limits),
        LockRequest::Leader { name } | LockRequest::Observe { name } => {
            check_size(lock_key_bytes_max(name), limits)
        }
    }
}

fn check_put(put: &Put, limits: &Limits) -> Result<(), Fault> {
    if put.key.is_empty() {
        return Err(Fault::empty_key());
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(Fault::new(Code::Err, "etcdserver: value is provided"));
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(Fault::new(Code::Err, "etcdserver: lease is provided"));
    }
    check_size(put.key.len() + put.value.len(), limits)
}

fn check_span(span: &Span, limits: &Limits) -> Result<(), Fault> {
    match span {
        Span::Key(key) | Span::Between(key, _) if key.is_empty() => Err(Fault::empty_key()),
        span => check_size(span_bytes(span), limits),
    }
}

fn span_bytes(span: &Span) -> usize {
    match span {
        Span::Between(from, to) => from.len() + to.len(),
        Span::Key(key) | Span::Prefix(key) | Span::From(key) => key.len(),
    }
}

fn check_key(key: &[u8], limits: &Limits) -> Result<(), Fault> {
    if key.is_empty() { Err(Fault::empty_key()) } else { check_size(key.len(), limits) }
}

fn check_size(bytes: usize, limits: &Limits) -> Result<(), Fault> {
    if bytes > limits.request_bytes_max { Err(Fault::too_large()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::{Compare, CompareResult, Delete, Range};
    use super::*;

    #[test]
    fn peer_urls_are_places_to_dial() {
        let add = |urls: &[&str]| {
            let peer_urls = urls.iter().map(|url| url.to_string()).collect();
            check(&Request::MemberAdd { peer_urls, learner: true }, &Limits::default()).is_ok()
        };
        assert!(add(&["http://127.0.0.1:2380"]) && add(&["http://[::1]:1", "http://n1.example:2380"]));
        for bad in
            ["", "127.0.0.1:2380", "http://a", "http://:1", "http://a:0", "http://a:1/x", "http://a b:1"]
        {
            assert!(!add(&[bad]), "{bad}");
        }
        assert!(!add(&[]) && !add(&["http://a:1", "http://a:1"]));
    }

    #[test]
    fn each_of_several_changes_is_of_another_member() {
        let add = |url: &str| MemberChange::Add { id: 0, peer_urls: vec![url.into()], learner: true };
        let remove = |id| MemberChange::Remove { id };
        let code = |changes: Vec<MemberChange>| {
            check(&Request::MemberChange { changes }, &Limits::default()).map_err(|fault| fault.code)
        };
        assert_eq!(code(vec![MemberChange::Promote { id: 4 }, remove(3), add("http://a:1")]), Ok(()));
        assert_eq!(code(vec![add("http://a:1"), add("http://b:1")]), Ok(()));
        assert_eq!(code((1..=32).map(remove).collect()), Ok(()));
        assert_eq!(code((1..=33).map(remove).collect()), Err(Code::Err));
        assert_eq!(code(vec![]), Err(Code::Err));
        assert_eq!(code(vec![MemberChange::Promote { id: 4 }, remove(4)]), Err(Code::Err));
        assert_eq!(code(vec![add("http://a:1"), add("http://a:1")]), Err(Code::MemberExists));
        assert_eq!(code(vec![add("a:1")]), Err(Code::Err));
        assert_eq!(code(vec![MemberChange::Alone { id: 1 }]), Err(Code::Err));
    }

    #[test]
    fn the_gate() {
        let limits = Limits { request_bytes_max: 10, ..Limits::default() };
        let put = |key: &'static str, value: &'static str| {
            Request::Put(Put { key: key.into(), value: value.into(), ..Put::default() })
        };
        assert_eq!(check(&put("k", "123456789"), &limits), Ok(()));
        assert_eq!(check(&put("k", "1234567890"), &limits), Err(Fault::too_large()));
        assert_eq!(check(&put("", "v"), &limits), Err(Fault::empty_key()));
        let everything = Span::Prefix(Bytes::new());
        assert_eq!(check(&Request::Range(Range::new(everything.clone())), &limits), Ok(()));
        assert_eq!(check(&Request::Delete(Delete { span: everything, prev_kv: false }), &limits), Ok(()));
        let keep = Put { key: "k".into(), value: "v".into(), ignore_value: true, ..Put::default() };
        assert_eq!(check(&Request::Put(keep), &limits).unwrap_err().text, "etcdserver: value is provided");
        let keep = Put { key: "k".into(), lease: 7, ignore_lease: true, ..Put::default() };
        assert_eq!(check(&Request::Put(keep), &limits).unwrap_err().text, "etcdserver: lease is provided");
    }

    #[test]
    fn leases_and_locks_pass_the_gate() {
        let limits = Limits { request_bytes_max: 30, ..Limits::default() };
        let text = |request| check(&request, &limits).map_err(|fault| fault.text);
        let grant = |ttl_s| Request::Lease(LeaseRequest::Grant { id: 0, ttl_s });
        assert_eq!(text(grant(9_000_000_000)), Ok(()));
        assert_eq!(text(grant(9_000_000_001)), Err("etcdserver: too large lease TTL".into()));
        assert_eq!(text(grant(-1)), Ok(()), "it is raised");
        let lock = |name: &'static str, lease, wait_ms| {
            let acquire = Acquire { name: name.into(), lease, wait_ms, ..Acquire::default() };
            text(Request::Lock(LockRequest::Acquire(acquire)))
        };
        assert_eq!(lock("n", 7, Some(LOCK_WAIT_MS_MAX)), Ok(()));
        assert_eq!(lock("n", 0, None), Err("etcdserver: requested lease not found".into()));
        assert_eq!(lock("", 7, None), Err("etcdserver: key is not provided".into()));
        assert!(lock("n", 7, Some(LOCK_WAIT_MS_MAX + 1)).is_err());
        for name in ["", "a name that is too long for it"] {
            let name = Bytes::from(name);
            assert!(text(Request::Lock(LockRequest::Leader { name: name.clone() })).is_err());
            assert!(text(Request::Lock(LockRequest::Observe { name })).is_err());
        }
        let release = |key: &'static str| text(Request::Lock(LockRequest::Release { key: key.into() }));
        assert_eq!(release("n/1a"), Ok(()));
        assert!(release("n").is_err());
    }

    fn put(key: &'static str) -> Op {
        Op::Put(Put { key: key.into(), ..Put::default() })
    }

    fn delete(span: Span) -> Op {
        Op::Delete(Delete { span, prev_kv: false })
    }

    fn then(success: Vec<Op>) -> Op {
        Op::Txn(Txn { success, ..Txn::default() })
    }

    fn either(success: Vec<Op>, failure: Vec<Op>) -> Op {
        Op::Txn(Txn { success, failure, ..Txn::default() })
    }

    fn of(ops: &[Op]) -> Result<(), Code> {
        let txn = Txn { failure: ops.to_vec(), ..Txn::default() };
        check(&Request::Txn(txn), &Limits::default()).map_err(|fault| fault.code)
    }

    #[test]
    fn no_two_operations_of_a_transaction_change_a_key() {
        let key = |key: &'static str| Span::Key(key.into());
        let from = |key: &'static str| Span::From(key.into());
        let between = |from: &'static str, to: &'static str| Span::Between(from.into(), to.into());
        for refused in [
            vec![put("k"), put("k")],
            vec![put("k"), put("a"), put("z"), put("k")],
            vec![put("k"), delete(key("k"))],
            vec![delete(key("k")), put("k")],
            vec![put("k"), delete(from("j"))],
            vec![put("k"), delete(from("k"))],
            vec![put("k"), delete(Span::Prefix(Bytes::new()))],
            vec![put("k"), delete(between("k", "l"))],
            vec![delete(between("a", "c")), delete(between("b", "z")), put("k")],
            // In nested ones, whichever of them it is, and however deep.
            vec![put("k"), then(vec![put("k")])],
            vec![then(vec![put("k")]), put("k")],
            vec![then(vec![put("k")]), then(vec![put("k")])],
            vec![either(vec![], vec![put("k")]), either(vec![put("k")], vec![])],
            vec![then(vec![put("k")]), then(vec![delete(key("k"))])],
            vec![then(vec![delete(key("k"))]), then(vec![put("k")])],
            vec![put("k"), then(vec![delete(from("a"))])],
            vec![delete(from("a")), then(vec![then(vec![then(vec![put("k")])])])],
            vec![then(vec![put("k"), put("k")])],
            vec![either(vec![put("k")], vec![put("k")]), put("k")],
        ] {
            assert_eq!(of(&refused), Err(Code::DupKey), "{refused:?}");
        }
        for sound in [
            vec![put("k"), put("ka"), put("j")],
            vec![delete(key("k")), delete(key("k")), delete(from("a"))],
            vec![put("k"), delete(between("a", "k")), delete(from("k\0"))],
            vec![put("k"), delete(between("z", "a")), delete(between("k", "k"))],
            vec![put("k"), Op::Range(Range::new(from("a"))), Op::Range(Range::new(key("k")))],
            // One of both branches at most is done.
            vec![either(vec![put("k")], vec![put("k")])],
            vec![either(vec![put("k")], vec![delete(from("a"))])],
            vec![either(vec![then(vec![put("k")])], vec![put("k")]), put("l")],
        ] {
            assert_eq!(of(&sound), Ok(()), "{sound:?}");
        }
        let both = Txn { success: vec![put("k")], failure: vec![put("k")], ..Txn::default() };
        assert_eq!(check(&Request::Txn(both), &Limits::default()), Ok(()));
    }

    /// As many as the size of a request allows, and no pair of them is looked at.
    #[test]
    fn a_large_transaction_is_checked_in_a_moment() {
        let limits = Limits { txn_ops_max: 1 << 20, ..Limits::default() };
        let key = |n: u32, last: u8| [&n.to_be_bytes()[..], &[last]].concat();
        let mut ops = Vec::new();
        for n in 0..10_000 {
            ops.push(Op::Put(Put { key: key(2 * n, 1).into(), ..Put::default() }));
            ops.push(delete(Span::Between(key(2 * n, 2).into(), key(2 * n + 2, 0).into())));
        }
        assert_eq!(check(&Request::Txn(Txn { success: ops, ..Txn::default() }), &limits), Ok(()));
    }

    #[test]
    fn a_transaction_has_so_many_operations_and_compares_and_no_more() {
        let limits = Limits { txn_ops_max: 3, ..Limits::default() };
        let read = || Op::Range(Range::new(Span::Key("k".into())));
        let reads = |count| (0..count).map(|_| read()).collect::<Vec<_>>();
        let compare = || Compare {
            span: Span::Key("k".into()),
            target: Target::Version(0),
            result: CompareResult::Equal,
        };
        let too_many = |txn: Txn| match check(&Request::Txn(txn), &limits) {
            Ok(()) => false,
            Err(fault) => {
                assert_eq!(fault.to_string(), "TOOMANYOPS etcdserver: too many operations in txn request");
                true
            }
        };
        // Each list for itself.
        let full = || Txn { compares: vec![compare(); 3], success: reads(3), failure: reads(3) };
        assert!(!too_many(full()));
        assert!(too_many(Txn { compares: vec![compare(); 4], ..full() }));
        assert!(too_many(Txn { success: reads(4), ..full() }));
        assert!(too_many(Txn { failure: reads(4), ..full() }));
        // What is nested has what the longest list leaves.
        let with = |mut ops: Vec<Op>, nested| {
            ops.push(then(nested));
            Txn { failure: ops, ..Txn::default() }
        };
        assert!(!too_many(with(reads(0), reads(2))) && too_many(with(reads(0), reads(3))));
        assert!(!too_many(with(reads(1), reads(1))) && too_many(with(reads(1), reads(2))));
        assert!(!too_many(with(reads(2), vec![])) && too_many(with(reads(2), reads(1))));
        assert!(too_many(Txn { compares: vec![compare(); 3], ..with(reads(0), reads(1)) }));
        assert!(!too_many(with(vec![], vec![then(vec![then(vec![])])])));
    }

    #[test]
    fn transactions_are_nested_so_deep_and_no_deeper() {
        let mut txn = Txn::default();
        for _ in 1..limits::TXN_DEPTH_MAX {
            txn = Txn { success: vec![Op::Txn(txn)], ..Txn::default() };
        }
        assert_eq!(check(&Request::Txn(txn.clone()), &Limits::default()), Ok(()));
        let deeper = Txn { success: vec![Op::Txn(txn)], ..Txn::default() };
        assert_eq!(check(&Request::Txn(deeper), &Limits::default()), Err(Fault::too_many_ops()));
    }

    #[test]
    fn the_parts_of_a_transaction_pass_the_same_gate() {
        let limits = Limits { request_bytes_max: 10 + 2 * PART_BYTES_MAX, ..Limits::default() };
        let of = |compares: Vec<Compare>, ops: Vec<Op>| {
            check(&Request::Txn(Txn { compares, success: ops, ..Txn::default() }), &limits)
        };
        let value = |key: &'static str, value: &'static str| Compare {
            span: Span::Key(key.into()),
            target: Target::Value(value.into()),
            result: CompareResult::Less,
        };
        assert_eq!(of(vec![value("k", "1234")], vec![put("12345")]), Ok(()));
        assert_eq!(of(vec![value("k", "1234")], vec![put("123456")]), Err(Fault::too_large()));
        assert_eq!(of(vec![], vec![then(vec![put("12345678901")])]), Err(Fault::too_large()));
        for bad in [put(""), delete(Span::Key("".into())), Op::Range(Range::new(Span::Key("".into())))] {
            assert_eq!(of(vec![], vec![then(vec![bad])]), Err(Fault::empty_key()));
        }
        assert_eq!(of(vec![value("", "v")], vec![]), Err(Fault::empty_key()));
        let keep = Put { key: "k".into(), value: "v".into(), ignore_value: true, ..Put::default() };
        assert_eq!(of(vec![], vec![Op::Put(keep)]).unwrap_err().text, "etcdserver: value is provided");
    }
}
