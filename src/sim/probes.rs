//! Probes: how often each kind of request got each kind of answer. A cell that stays empty is a place where nobody has
//! looked; `tests/cluster_sim.rs` says which must not.

use std::collections::BTreeMap;

use super::check::txn::{Asked, answered};
use super::history::{Answer, History, Outcome};
use crate::api::{
    Acquire, AlarmChange, Body, CompareResult, Delete, LeaseAnswer, LeaseRequest, LockRequest, Op, Order,
    Put, Range, Request, SortBy, Span, Target, Txn,
};

/// Counts by name: `put ok`, `txn NOKEY`, `then: delete`, `version < fails`, `range by mod desc`, `revoke with keys`. What
/// entries did about leases is counted by `lease_watch`: `entry ends a lease`.
pub type Probes = BTreeMap<String, u64>;

pub fn probes(history: &History) -> Probes {
    let mut probes = Probes::new();
    for op in &history.ops {
        let name = match &op.request {
            // Answers to these are counted as they come.
            Request::Defrag | Request::AlarmList | Request::AlarmChange(_) | Request::Hash => continue,
            Request::Snapshot => continue,
            Request::HashKv { .. } => "hashkv",
            Request::Put(_) => "put",
            Request::Delete(_) => "delete",
            Request::Range(_) => "range",
            Request::Txn(txn) if txn.is_read_only() => "reading txn",
            Request::Txn(_) => "txn",
            Request::Compact(_) => "compact",
            Request::Lease(lease) => of_leases(lease),
            Request::Lock(lock) => of_locks(lock),
            _ => "exists",
        };
        let came_of_it = match &op.outcome {
            Outcome::Unknown => "unknown",
            Outcome::Refused { code, .. } => code.word(),
            Outcome::Answered { answer, .. } => match answer {
                Answer::NoKey => "NOKEY",
                Answer::NoLease => "NOLEASE",
                Answer::LeaseExists => "LEASEEXISTS",
                Answer::Lease(told) => told_of_leases(told),
                Answer::Future { .. } => "FUTURE",
                Answer::Compacted { .. } => "COMPACTED",
                Answer::Put { .. }
                | Answer::Delete { .. }
                | Answer::Range(_)
                | Answer::Txn { .. }
                | Answer::Compact { .. }
                | Answer::Exists { .. }
                | Answer::HashKv { .. }
                | Answer::Acquired { .. }
                | Answer::Value(_) => "ok",
            },
        };
        hit(&mut probes, format!("{name} {came_of_it}"));
        if let Request::Put(put) = &op.request
            && let Some(name) = with_a_lease(put)
        {
            hit(&mut probes, format!("{name} {came_of_it}"));
        }
        if let (Request::Txn(txn), Outcome::Answered { answer, .. }) = (&op.request, &op.outcome) {
            look_into(txn, answer, &mut probes);
        }
        for (asked, answer) in answered(op) {
            options(asked, answer).into_iter().for_each(|name| hit(&mut probes, name));
        }
    }
    probes
}

/// What came of a request that tells nothing of the store; None: it is another one.
pub fn maintained(request: &Request, body: &Body) -> Option<String> {
    let name = match request {
        Request::Defrag => "defrag",
        Request::AlarmList => "alarm list",
        Request::AlarmChange(AlarmChange::Raise(_)) => "alarm raise",
        Request::AlarmChange(AlarmChange::End(_)) => "alarm end",
        Request::AlarmChange(AlarmChange::EndAll) => "alarm disarm",
        Request::Hash => "hash",
        Request::Snapshot => "snapshot",
        _ => return None,
    };
    let came_of_it = match body {
        Body::Fault(fault) => fault.code.word(),
        Body::Alarms(alarms) if alarms.is_empty() => "none",
        Body::Alarms(_) => "some",
        _ => "ok",
    };
    Some(format!("{name} {came_of_it}"))
}

/// The options of an operation, alone or in a transaction, that was answered.
fn options(asked: Asked, answer: &Answer) -> Vec<String> {
    let chosen = |names: &[(bool, &str)]| -> Vec<String> {
        names.iter().filter(|(chosen, _)| *chosen).map(|(_, name)| name.to_string()).collect()
    };
    match (asked, answer) {
        (Asked::Put(put), Answer::Put { previous, .. }) => {
            let Put { lease, ignore_value, ignore_lease, .. } = *put;
            chosen(&[
                (matches!(previous, Some(Some(_))), "put over something"),
                (matches!(previous, Some(None)), "put over nothing"),
                (ignore_value, "put keeps the value"),
                (ignore_lease, "put keeps the lease"),
                (lease != 0, "put attaches"),
            ])
        }
        (Asked::Delete(Delete { span, .. }), Answer::Delete { deleted, previous, .. }) => {
            let mut names = chosen(&[
                (*deleted == 0, "delete of none"),
                (*deleted == 1, "delete of one"),
                (*deleted > 1, "delete of several"),
                (!previous.is_empty(), "delete shows what was there"),
            ]);
            names.push(format!("delete {}", kind(span)));
            names
        }
        (Asked::Range(range), Answer::Range(result)) => {
            let Range { limit, keys_only, count_only, serializable, revision, .. } = *range;
            let filtered = (range.min_mod | range.max_mod | range.min_create | range.max_create) > 0;
            let mut names = chosen(&[
                (result.more, "range cut off by its limit"),
                (limit > 0 && !result.more, "range within its limit"),
                (keys_only, "range of keys alone"),
                (count_only, "range counts alone"),
                (serializable, "range serializable"),
                (revision > 0, "range of an old revision"),
                (filtered && result.kvs.is_empty(), "range filters all"),
                (filtered && !result.kvs.is_empty(), "range filters"),
            ]);
            let by = match range.sort_by {
                SortBy::Key => "key",
                SortBy::Version => "version",
                SortBy::Create => "create",
                SortBy::Mod => "mod",
                SortBy::Value => "value",
            };
            let order = if range.order == Order::Descending { "desc" } else { "asc" };
            names.extend([format!("range by {by} {order}"), format!("range {}", kind(&range.span))]);
            names
        }
        _ => Vec::new(),
    }
}

fn of_leases(asked: &LeaseRequest) -> &'static str {
    match asked {
        LeaseRequest::Grant { id, .. } if *id != 0 => "grant of an id",
        LeaseRequest::Grant { ttl_s: ..=0, .. } => "grant of no time",
        LeaseRequest::Grant { .. } => "grant",
        LeaseRequest::Revoke { .. } => "revoke",
        LeaseRequest::KeepAlive { ids } if ids.len() > 1 => "keepalive of several",
        LeaseRequest::KeepAlive { .. } => "keepalive",
        LeaseRequest::TimeToLive { keys: true, .. } => "ttl and keys",
        LeaseRequest::TimeToLive { .. } => "ttl",
        LeaseRequest::List => "list",
    }
}

/// All others are known by other names.
fn of_locks(asked: &LockRequest) -> &'static str {
    match asked {
        LockRequest::Acquire(Acquire { wait_ms: Some(0), .. }) => "lock at once",
        LockRequest::Acquire(Acquire { wait_ms: Some(_), .. }) => "lock in time",
        LockRequest::Acquire(Acquire { campaign: true, .. }) => "campaign",
        _ => "lock",
    }
}

fn told_of_leases(told: &LeaseAnswer) -> &'static str {
    match told {
        LeaseAnswer::Granted { .. } => "ok",
        LeaseAnswer::Revoked { deleted: 1.., .. } => "with keys",
        LeaseAnswer::Revoked { .. } => "without keys",
        LeaseAnswer::Kept(ttls) if ttls.iter().all(|ttl_s| *ttl_s > 0) => "kept",
        LeaseAnswer::Kept(ttls) if ttls.iter().all(|ttl_s| *ttl_s == 0) => "gone",
        LeaseAnswer::Kept(_) => "kept in part",
        LeaseAnswer::TimeToLive { time: None, .. } => "gone",
        LeaseAnswer::TimeToLive { keys, .. } if keys.is_empty() => "there",
        LeaseAnswer::TimeToLive { .. } => "with keys",
        LeaseAnswer::List(ids) if ids.is_empty() => "none",
        LeaseAnswer::List(_) => "some",
    }
}

/// A put that is asked for with something of leases, once more by that.
fn with_a_lease(put: &Put) -> Option<&'static str> {
    match (put.lease, put.ignore_value, put.prev_kv) {
        (0, ..) => put.ignore_lease.then_some("keeping put"),
        (_, true, _) => Some("attaching put of no value"),
        (_, _, true) => Some("attaching put with prev"),
        _ => Some("attaching put"),
    }
}

fn kind(span: &Span) -> &'static str {
    match span {
        Span::Key(_) => "of a key",
        Span::Between(..) => "between keys",
        Span::Prefix(_) => "of a prefix",
        Span::From(_) => "from a key",
    }
}

fn hit(probes: &mut Probes, name: String) {
    *probes.entry(name).or_default() += 1;
}

fn look_into(txn: &Txn, answer: &Answer, probes: &mut Probes) {
    let Answer::Txn { succeeded, responses, .. } = answer else { return };
    // Of several it is not known which.
    if let [compare] = &txn.compares[..] {
        let target = match compare.target {
            Target::Value(_) => "value",
            Target::Version(_) => "version",
            Target::Create(_) => "create",
            Target::Mod(_) => "mod",
            Target::Lease(_) => "lease",
        };
        let result = match compare.result {
            CompareResult::Equal => "=",
            CompareResult::NotEqual => "!=",
            CompareResult::Less => "<",
            CompareResult::Greater => ">",
        };
        hit(probes, format!("{target} {result} {}", if *succeeded { "holds" } else { "fails" }));
    }
    let branch = if *succeeded { "then" } else { "else" };
    for (op, response) in txn.branch(*succeeded).iter().zip(responses) {
        let name = match op {
            Op::Put(_) => "put",
            Op::Delete(_) => "delete",
            Op::Range(_) => "range",
            Op::Txn(_) => "txn",
        };
        hit(probes, format!("{branch}: {name}"));
        if let Op::Put(Put { lease, ignore_lease, .. }) = op {
            let name =
                if *ignore_lease { Some("keeping put") } else { (*lease != 0).then_some("attaching put") };
            name.into_iter().for_each(|name| hit(probes, format!("{branch}: {name}")));
        }
        if let Op::Txn(txn) = op {
            look_into(txn, response, probes);
        }
    }
}
