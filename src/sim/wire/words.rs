//! What a client of gRPC says and understands: requests as etcd's messages, and messages as answers. Written from etcd's
//! protocol, and on purpose not from `proto::etcd::convert`, whose mistakes it is to show.
//!
//! Some of an answer is not in etcd's words (how many keys went with a lease, the bound of a compaction, a lock's revision).
//! The judges want it all the same, and take it from what the member itself said ([`understood`]).

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::api::request::prefix_end;
use crate::api::{
    Acquire, Alarm, AlarmChange, AlarmKind, Body, Code, Compare, CompareResult, Delete, Event, EventKind,
    KeyValue, LeaseAnswer, LeaseRequest, LeaseTime, LockRequest, Op, Order, Put, Range, RangeResult, Request,
    SortBy, Span, Target, Txn, TxnResult, Watch,
};
use crate::base::Revision;
use crate::proto::etcd::messages as pb;

/// A call: where it goes, and its one message.
pub struct Said {
    pub path: &'static str,
    pub message: Bytes,
    /// The client's half stays open: the method takes several messages.
    pub is_stream: bool,
}

/// None: gRPC has no words for it.
pub fn ask(request: &Request) -> Option<Said> {
    let (path, message) = match request {
        Request::Put(asked) => ("/etcdserverpb.KV/Put", put(asked).encode_to_vec()),
        Request::Range(asked) => ("/etcdserverpb.KV/Range", range(asked).encode_to_vec()),
        Request::Delete(asked) => ("/etcdserverpb.KV/DeleteRange", delete(asked).encode_to_vec()),
        Request::Txn(asked) => ("/etcdserverpb.KV/Txn", txn(asked).encode_to_vec()),
        Request::Compact(asked) => {
            let revision = asked.revision.cast_signed();
            let asked = pb::CompactionRequest { revision, physical: asked.physical };
            ("/etcdserverpb.KV/Compact", asked.encode_to_vec())
        }
        Request::Defrag => ("/etcdserverpb.Maintenance/Defragment", Vec::new()),
        Request::Hash => ("/etcdserverpb.Maintenance/Hash", Vec::new()),
        Request::HashKv { revision } => {
            let asked = pb::HashKvRequest { revision: revision.cast_signed() };
            ("/etcdserverpb.Maintenance/HashKV", asked.encode_to_vec())
        }
        Request::AlarmList => ("/etcdserverpb.Maintenance/Alarm", Vec::new()),
        Request::AlarmChange(AlarmChange::EndAll) => return None,
        Request::AlarmChange(AlarmChange::Raise(alarm)) => {
            ("/etcdserverpb.Maintenance/Alarm", change_of_alarm(1, alarm))
        }
        Request::AlarmChange(AlarmChange::End(alarm)) => {
            ("/etcdserverpb.Maintenance/Alarm", change_of_alarm(2, alarm))
        }
        Request::Lease(asked) => of_leases(asked)?,
        Request::Lock(asked) => of_locks(asked)?,
        _ => return None,
    };
    let is_stream = path.ends_with("/LeaseKeepAlive");
    Some(Said { path, message: message.into(), is_stream })
}

fn change_of_alarm(action: i32, alarm: &Alarm) -> Vec<u8> {
    let kind = if alarm.kind == AlarmKind::NoSpace { 1 } else { 2 };
    pb::AlarmRequest { action, member_id: alarm.member, alarm: kind }.encode_to_vec()
}

fn of_leases(asked: &LeaseRequest) -> Option<(&'static str, Vec<u8>)> {
    Some(match asked {
        LeaseRequest::Grant { id, ttl_s } => {
            ("/etcdserverpb.Lease/LeaseGrant", pb::LeaseGrantRequest { ttl: *ttl_s, id: *id }.encode_to_vec())
        }
        LeaseRequest::Revoke { id } => {
            ("/etcdserverpb.Lease/LeaseRevoke", pb::LeaseId { id: *id }.encode_to_vec())
        }
        LeaseRequest::KeepAlive { ids } => {
            let &[id] = &ids[..] else { return None };
            ("/etcdserverpb.Lease/LeaseKeepAlive", pb::LeaseId { id }.encode_to_vec())
        }
        LeaseRequest::TimeToLive { id, keys } => {
            let asked = pb::LeaseTimeToLiveRequest { id: *id, keys: *keys };
            ("/etcdserverpb.Lease/LeaseTimeToLive", asked.encode_to_vec())
        }
        LeaseRequest::List => ("/etcdserverpb.Lease/LeaseLeases", Vec::new()),
    })
}

fn of_locks(asked: &LockRequest) -> Option<(&'static str, Vec<u8>)> {
    Some(match asked {
        LockRequest::Acquire(Acquire { name, value, lease: lease @ 1.., wait_ms: None, campaign }) => {
            let (name, lease) = (name.clone(), *lease);
            if *campaign {
                let asked = pb::CampaignRequest { name, lease, value: value.clone() };
                ("/v3electionpb.Election/Campaign", asked.encode_to_vec())
            } else {
                ("/v3lockpb.Lock/Lock", pb::LockRequest { name, lease }.encode_to_vec())
            }
        }
        LockRequest::Release { key } => {
            ("/v3lockpb.Lock/Unlock", pb::UnlockRequest { key: key.clone() }.encode_to_vec())
        }
        LockRequest::Leader { name } => {
            ("/v3electionpb.Election/Leader", pb::Named { name: name.clone() }.encode_to_vec())
        }
        // How long one waits, and a proclamation without the key's revision, are words of the line protocol.
        LockRequest::Acquire(_) | LockRequest::Proclaim { .. } | LockRequest::Observe { .. } => return None,
    })
}

/// `key` and `range_end`.
fn ends(span: &Span) -> (Bytes, Bytes) {
    let zero = || Bytes::from_static(&[0]);
    match span {
        Span::Key(key) => (key.clone(), Bytes::new()),
        Span::Between(from, to) => (from.clone(), to.clone()),
        Span::From(from) => (from.clone(), zero()),
        Span::Prefix(prefix) if prefix.is_empty() => (zero(), zero()),
        Span::Prefix(prefix) => (prefix.clone(), prefix_end(prefix).unwrap_or_else(zero)),
    }
}

fn put(asked: &Put) -> pb::PutRequest {
    let Put { key, value, lease, prev_kv, ignore_value, ignore_lease } = asked.clone();
    pb::PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }
}

fn delete(asked: &Delete) -> pb::DeleteRangeRequest {
    let (key, range_end) = ends(&asked.span);
    pb::DeleteRangeRequest { key, range_end, prev_kv: asked.prev_kv }
}

fn range(asked: &Range) -> pb::RangeRequest {
    let (key, range_end) = ends(&asked.span);
    pb::RangeRequest {
        key,
        range_end,
        limit: asked.limit.cast_signed(),
        revision: asked.revision.cast_signed(),
        sort_order: if asked.order == Order::Descending { 2 } else { 1 },
        sort_target: match asked.sort_by {
            SortBy::Key => 0,
            SortBy::Version => 1,
            SortBy::Create => 2,
            SortBy::Mod => 3,
            SortBy::Value => 4,
        },
        serializable: asked.serializable,
        keys_only: asked.keys_only,
        count_only: asked.count_only,
        min_mod_revision: asked.min_mod.cast_signed(),
        max_mod_revision: asked.max_mod.cast_signed(),
        min_create_revision: asked.min_create.cast_signed(),
        max_create_revision: asked.max_create.cast_signed(),
    }
}

fn txn(asked: &Txn) -> pb::TxnRequest {
    let ops = |ops: &[Op]| ops.iter().map(operation).collect();
    pb::TxnRequest {
        compare: asked.compares.iter().map(compare).collect(),
        success: ops(&asked.success),
        failure: ops(&asked.failure),
    }
}

fn operation(op: &Op) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(match op {
            Op::Range(asked) => pb::RequestUnion::Range(range(asked)),
            Op::Put(asked) => pb::RequestUnion::Put(put(asked)),
            Op::Delete(asked) => pb::RequestUnion::DeleteRange(delete(asked)),
            Op::Txn(asked) => pb::RequestUnion::Txn(txn(asked)),
        }),
    }
}

fn compare(asked: &Compare) -> pb::Compare {
    let (key, range_end) = ends(&asked.span);
    let (target, operand) = match &asked.target {
        Target::Version(number) => (0, pb::TargetUnion::Version(*number)),
        Target::Create(number) => (1, pb::TargetUnion::CreateRevision(*number)),
        Target::Mod(number) => (2, pb::TargetUnion::ModRevision(*number)),
        Target::Value(value) => (3, pb::TargetUnion::Value(value.clone())),
        Target::Lease(number) => (4, pb::TargetUnion::Lease(*number)),
    };
    let result = match asked.result {
        CompareResult::Equal => 0,
        CompareResult::Greater => 1,
        CompareResult::Less => 2,
        CompareResult::NotEqual => 3,
    };
    pb::Compare { result, target, key, target_union: Some(operand), range_end }
}

/// `id`: by which the stream's answers name it.
pub fn watch(asked: &Watch, id: i64, fragment: bool) -> pb::WatchRequest {
    let (key, range_end) = ends(&asked.span);
    let filters = [(asked.no_put, 0), (asked.no_delete, 1)];
    pb::WatchRequest {
        request: Some(pb::WatchUnion::Create(pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: asked.revision.cast_signed(),
            progress_notify: asked.progress,
            filters: filters.into_iter().filter(|(given, _)| *given).map(|(_, filter)| filter).collect(),
            prev_kv: asked.prev_kv,
            watch_id: id,
            fragment,
        })),
    }
}

// ---- What a member is to understand

/// The request as the node must be asked it: spans as far as `key` and `range_end` can tell them.
pub fn expected(request: &Request) -> Request {
    match request {
        Request::Range(asked) => Request::Range(expected_range(asked)),
        Request::Delete(asked) => Request::Delete(expected_delete(asked)),
        Request::Txn(asked) => Request::Txn(expected_txn(asked)),
        Request::Watch(asked) => Request::Watch(Watch { span: told(&asked.span), ..asked.clone() }),
        // Whatever key that is.
        Request::Lock(LockRequest::Release { key }) => {
            Request::Delete(Delete { span: Span::Key(key.clone()), prev_kv: false })
        }
        other => other.clone(),
    }
}

fn told(span: &Span) -> Span {
    match span {
        Span::Prefix(prefix) if !prefix.is_empty() => match prefix_end(prefix) {
            Some(end) => Span::Between(prefix.clone(), end),
            None => Span::From(prefix.clone()),
        },
        span => span.clone(),
    }
}

fn expected_range(asked: &Range) -> Range {
    Range { span: told(&asked.span), ..asked.clone() }
}

fn expected_delete(asked: &Delete) -> Delete {
    Delete { span: told(&asked.span), ..asked.clone() }
}

fn expected_txn(asked: &Txn) -> Txn {
    let ops = |ops: &[Op]| -> Vec<Op> {
        let expected = |op: &Op| match op {
            Op::Range(asked) => Op::Range(expected_range(asked)),
            Op::Delete(asked) => Op::Delete(expected_delete(asked)),
            Op::Put(asked) => Op::Put(asked.clone()),
            Op::Txn(asked) => Op::Txn(expected_txn(asked)),
        };
        ops.iter().map(expected).collect()
    };
    let compare = |compare: &Compare| Compare { span: told(&compare.span), ..compare.clone() };
    Txn {
        compares: asked.compares.iter().map(compare).collect(),
        success: ops(&asked.success),
        failure: ops(&asked.failure),
    }
}

// ---- What the client understands

/// The revision in the header of an answer, and the answer. `said`: the member's own words, for what etcd's messages leave
/// out. An error says what is wrong with the message.
pub fn understood(request: &Request, message: &Bytes, said: &Body) -> Result<(Revision, Body), String> {
    Ok(match request {
        Request::Put(asked) => {
            let answer: pb::PutResponse = parsed(message)?;
            let revision = revision(answer.header.as_ref())?;
            (revision, put_answer(asked, revision, answer.prev_kv)?)
        }
        Request::Range(asked) => {
            let answer: pb::RangeResponse = parsed(message)?;
            let now = revision(answer.header.as_ref())?;
            let read = if asked.revision > 0 { asked.revision } else { now };
            (now, Body::Range(range_answer(answer, read)?))
        }
        Request::Delete(_) => {
            let answer: pb::DeleteRangeResponse = parsed(message)?;
            let revision = revision(answer.header.as_ref())?;
            (revision, delete_answer(answer, revision)?)
        }
        Request::Txn(asked) => {
            let answer: pb::TxnResponse = parsed(message)?;
            let revision = revision(answer.header.as_ref())?;
            let Body::Txn(said) = said else { return Err(format!("a txn is answered with {said:?}")) };
            (revision, Body::Txn(txn_answer(asked, answer, revision, said)?))
        }
        Request::Lease(LeaseRequest::Revoke { .. })
        | Request::Compact(_)
        | Request::Lock(LockRequest::Release { .. }) => {
            let answer: pb::HeaderOnly = parsed(message)?;
            (revision(answer.header.as_ref())?, said.clone())
        }
        // etcd tells nothing but that it is done.
        Request::Defrag => parsed::<pb::HeaderOnly>(message).map(|_| (0, said.clone()))?,
        Request::Hash => {
            let answer: pb::HashResponse = parsed(message)?;
            (revision(answer.header.as_ref())?, Body::Hash(answer.hash))
        }
        Request::HashKv { .. } => {
            let answer: pb::HashKvResponse = parsed(message)?;
            let compact_revision = natural(answer.compact_revision.max(0))?;
            let told = (answer.hash, natural(answer.hash_revision)?, compact_revision);
            let (hash, read, compact_revision) = told;
            (revision(answer.header.as_ref())?, Body::HashKv { hash, revision: read, compact_revision })
        }
        Request::AlarmList | Request::AlarmChange(_) => {
            let answer: pb::AlarmResponse = parsed(message)?;
            let revision = revision(answer.header.as_ref())?;
            let alarm = |told: &pb::AlarmMember| match told.alarm {
                1 => Ok(Alarm { member: told.member_id, kind: AlarmKind::NoSpace }),
                2 => Ok(Alarm { member: told.member_id, kind: AlarmKind::Corrupt }),
                other => Err(format!("an alarm of kind {other}")),
            };
            (revision, Body::Alarms(answer.alarms.iter().map(alarm).collect::<Result<_, _>>()?))
        }
        Request::Lease(asked) => lease_answer(asked, message)?,
        Request::Lock(asked) => lock_answer(asked, message, said)?,
        other => return Err(format!("{other:?} is not asked in these words")),
    })
}

fn parsed<M: Message + Default>(message: &Bytes) -> Result<M, String> {
    M::decode(message.clone()).map_err(|why| format!("a message that cannot be read: {why}"))
}

fn revision(header: Option<&pb::ResponseHeader>) -> Result<Revision, String> {
    let header = header.ok_or("an answer without a header")?;
    natural(header.revision)
}

fn natural(number: i64) -> Result<u64, String> {
    u64::try_from(number).map_err(|_| format!("{number} where no number is below zero"))
}

pub fn key_value(kv: pb::KeyValue) -> Result<KeyValue, String> {
    let pb::KeyValue { key, create_revision, mod_revision, version, value, lease } = kv;
    let (create_revision, mod_revision) = (natural(create_revision)?, natural(mod_revision)?);
    Ok(KeyValue { key, value, create_revision, mod_revision, version: natural(version)?, lease })
}

fn key_values(kvs: Vec<pb::KeyValue>) -> Result<Vec<KeyValue>, String> {
    kvs.into_iter().map(key_value).collect()
}

fn put_answer(asked: &Put, revision: Revision, previous: Option<pb::KeyValue>) -> Result<Body, String> {
    let previous = previous.map(key_value).transpose()?;
    if previous.is_some() && !asked.prev_kv {
        return Err("what was there before, though nobody asked for it".into());
    }
    Ok(Body::Put { revision, previous: asked.prev_kv.then_some(previous) })
}

fn range_answer(answer: pb::RangeResponse, revision: Revision) -> Result<RangeResult, String> {
    let pb::RangeResponse { kvs, more, count, .. } = answer;
    Ok(RangeResult { revision, count: natural(count)?, more, kvs: key_values(kvs)? })
}

fn delete_answer(answer: pb::DeleteRangeResponse, revision: Revision) -> Result<Body, String> {
    let pb::DeleteRangeResponse { deleted, prev_kvs, .. } = answer;
    Ok(Body::Delete { revision, deleted: natural(deleted)?, previous: key_values(prev_kvs)? })
}

fn txn_answer(
    asked: &Txn,
    answer: pb::TxnResponse,
    of_all: Revision,
    said: &TxnResult,
) -> Result<TxnResult, String> {
    let branch = asked.branch(answer.succeeded);
    if branch.len() != answer.responses.len() || said.responses.len() != branch.len() {
        return Err(format!("{} answers to {} operations", answer.responses.len(), branch.len()));
    }
    let mut responses = Vec::new();
    for ((op, response), said) in branch.iter().zip(answer.responses).zip(&said.responses) {
        let response = response.response.ok_or("an operation without an answer")?;
        responses.push(match (op, response) {
            (Op::Put(asked), pb::ResponseUnion::Put(answer)) => {
                put_answer(asked, revision(answer.header.as_ref())?, answer.prev_kv)?
            }
            (Op::Range(_), pb::ResponseUnion::Range(answer)) => {
                let revision = revision(answer.header.as_ref())?;
                Body::Range(range_answer(answer, revision)?)
            }
            (Op::Delete(_), pb::ResponseUnion::DeleteRange(answer)) => {
                let revision = revision(answer.header.as_ref())?;
                delete_answer(answer, revision)?
            }
            (Op::Txn(asked), pb::ResponseUnion::Txn(answer)) => {
                let Body::Txn(said) = said else { return Err(format!("a txn is answered with {said:?}")) };
                // Of a nested one etcd tells no revision.
                Body::Txn(txn_answer(asked, answer, said.revision, said)?)
            }
            (op, response) => return Err(format!("{op:?} is answered with {response:?}")),
        });
    }
    Ok(TxnResult { revision: of_all, succeeded: answer.succeeded, responses })
}

fn lease_answer(asked: &LeaseRequest, message: &Bytes) -> Result<(Revision, Body), String> {
    let (header, told) = match asked {
        LeaseRequest::Grant { .. } => {
            let answer: pb::LeaseGrantResponse = parsed(message)?;
            (answer.header, LeaseAnswer::Granted { id: answer.id, ttl_s: natural(answer.ttl)? })
        }
        LeaseRequest::KeepAlive { ids } => {
            let answer: pb::LeaseKeepAliveResponse = parsed(message)?;
            if ids[..] != [answer.id] {
                return Err(format!("lease {} is said to be renewed, and not {ids:?}", answer.id));
            }
            (answer.header, LeaseAnswer::Kept(vec![natural(answer.ttl)?]))
        }
        LeaseRequest::TimeToLive { .. } => {
            let pb::LeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys } = parsed(message)?;
            let time = match ttl {
                -1 => None,
                ttl => Some(LeaseTime { granted_s: natural(granted_ttl)?, remaining_s: natural(ttl)? }),
            };
            (header, LeaseAnswer::TimeToLive { id, time, keys })
        }
        LeaseRequest::List => {
            let answer: pb::LeaseLeasesResponse = parsed(message)?;
            (answer.header, LeaseAnswer::List(answer.leases.iter().map(|lease| lease.id).collect()))
        }
        LeaseRequest::Revoke { .. } => unreachable!("its answer is a header"),
    };
    Ok((revision(header.as_ref())?, Body::Lease(told)))
}

fn lock_answer(asked: &LockRequest, message: &Bytes, said: &Body) -> Result<(Revision, Body), String> {
    match (asked, said) {
        (LockRequest::Acquire(Acquire { campaign: true, name, lease, .. }), _) => {
            let answer: pb::CampaignResponse = parsed(message)?;
            let leader = answer.leader.ok_or("a campaign that is won by nobody")?;
            if (&leader.name, leader.lease) != (name, *lease) {
                return Err(format!("{leader:?} is not who campaigned"));
            }
            let body = Body::Acquired { key: leader.key, revision: natural(leader.rev)? };
            Ok((revision(answer.header.as_ref())?, body))
        }
        (LockRequest::Acquire(_), Body::Acquired { revision: created, .. }) => {
            let answer: pb::LockResponse = parsed(message)?;
            let body = Body::Acquired { key: answer.key, revision: *created };
            Ok((revision(answer.header.as_ref())?, body))
        }
        (LockRequest::Leader { .. }, Body::Range(said)) => {
            let answer: pb::LeaderResponse = parsed(message)?;
            let leader = key_value(answer.kv.ok_or("a leader without a key")?)?;
            let found = RangeResult { kvs: vec![leader], ..said.clone() };
            Ok((revision(answer.header.as_ref())?, Body::Range(found)))
        }
        (asked, said) => Err(format!("{asked:?} is answered with {said:?}")),
    }
}

// ---- Failures

/// The class of a failure, by its status and text. None: no member says this. Written from etcd's `rpctypes/error.go`.
pub fn code(status: u16, text: &str) -> Option<Code> {
    Some(match (status, text) {
        (3, "etcdserver: key is not provided" | "etcdserver: invalid sort option") => Code::Err,
        (3, "etcdserver: value is provided" | "etcdserver: lease is provided") => Code::Err,
        (11, "etcdserver: too large lease TTL") => Code::Err,
        (3, "etcdserver: key not found") | (2, "election: no leader") => Code::NoKey,
        (3, "etcdserver: too many operations in txn request") => Code::TooManyOps,
        (3, "etcdserver: duplicate key given in txn request") => Code::DupKey,
        (3, "etcdserver: request is too large") => Code::TooLarge,
        (11, "etcdserver: mvcc: required revision has been compacted") => Code::Compacted,
        (11, "etcdserver: mvcc: required revision is a future revision") => Code::Future,
        (8, "etcdserver: mvcc: database space exceeded") => Code::NoSpace,
        (8, "etcdserver: too many requests") => Code::Busy,
        (5, "etcdserver: requested lease not found") => Code::NoLease,
        (9, "etcdserver: lease already exists") => Code::LeaseExists,
        (14, "etcdserver: no leader") => Code::NoLeader,
        (14, "etcdserver: request timed out") => Code::Timeout,
        (14, "etcdserver: server stopped") => Code::Shutdown,
        (15, "etcdserver: corrupt cluster") => Code::Corrupt,
        // Our own: etcd has no such state.
        (14, "etcdserver: this member is being repaired; ask another one") => Code::Loading,
        (4, "context deadline exceeded") => Code::Timeout,
        _ => return None,
    })
}

/// What the shell of a member says by itself, whatever the node answers.
pub fn is_of_the_shell(status: u16, text: &str) -> bool {
    let texts =
        ["etcdserver: server stopped", "etcdserver: too many requests", "etcdserver: request timed out"];
    status == 4 || texts.contains(&text)
}

pub fn event(event: pb::Event) -> Result<Arc<Event>, String> {
    let kind = match event.kind {
        0 => EventKind::Put,
        1 => EventKind::Delete,
        kind => return Err(format!("an event of kind {kind}")),
    };
    let kv = key_value(event.kv.ok_or("an event without a key")?)?;
    Ok(Event::new(kind, kv, event.prev_kv.map(key_value).transpose()?))
}
