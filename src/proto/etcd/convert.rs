//! etcd's KV messages to [`crate::api`] and back. What etcd spells by conventions (`range_end`, negative numbers that mean
//! zero) is spelled out here, so that nothing behind knows them.

use bytes::Bytes;

use super::messages as pb;
use crate::api::{
    Body, Code, Compact, Compare, CompareResult, Delete, Event, EventKind, Fault, Header, KeyValue, Member,
    Op, Order, Put, Range, RangeResult, SortBy, Span, Target, Txn, TxnResult, Watch,
};
use crate::base::{Revision, limits};

/// `[key, range_end)`: without an end it is the key alone; an end of one zero byte is no end.
pub fn span(key: Bytes, range_end: Bytes) -> Span {
    match &range_end[..] {
        // The gate says what is wrong with an empty key.
        _ if key.is_empty() => Span::Key(key),
        [] => Span::Key(key),
        [0] if key[..] == [0] => Span::Prefix(Bytes::new()),
        [0] => Span::From(key),
        _ => Span::Between(key, range_end),
    }
}

/// Numbers below zero mean what zero means.
fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Revisions and counts are below 2^63.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub fn range(asked: pb::RangeRequest) -> Result<Range, Fault> {
    let (sort_by, order) = match (asked.sort_target, asked.sort_order) {
        // In an order that there is not etcd 3.5 does not sort at all.
        (_, ..0 | 3..) => (SortBy::Key, Order::Ascending),
        (target, order) => {
            let sort_by = match target {
                0 => SortBy::Key,
                1 => SortBy::Version,
                2 => SortBy::Create,
                3 => SortBy::Mod,
                4 => SortBy::Value,
                _ => return Err(Fault::new(Code::Err, "etcdserver: invalid sort option")),
            };
            (sort_by, if order == 2 { Order::Descending } else { Order::Ascending })
        }
    };
    Ok(Range {
        span: span(asked.key, asked.range_end),
        limit: natural(asked.limit),
        revision: natural(asked.revision),
        order,
        sort_by,
        serializable: asked.serializable,
        keys_only: asked.keys_only,
        count_only: asked.count_only,
        min_mod: natural(asked.min_mod_revision),
        max_mod: natural(asked.max_mod_revision),
        min_create: natural(asked.min_create_revision),
        max_create: natural(asked.max_create_revision),
    })
}

pub fn put(asked: pb::PutRequest) -> Put {
    let pb::PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease } = asked;
    Put { key, value, lease, prev_kv, ignore_value, ignore_lease }
}

pub fn delete(asked: pb::DeleteRangeRequest) -> Delete {
    Delete { span: span(asked.key, asked.range_end), prev_kv: asked.prev_kv }
}

pub fn compact(asked: pb::CompactionRequest) -> Compact {
    Compact { revision: natural(asked.revision), physical: asked.physical }
}

/// `depth`: levels of transactions down to this one.
pub fn txn(asked: pb::TxnRequest, depth: usize) -> Result<Txn, Fault> {
    if depth > limits::TXN_DEPTH_MAX {
        return Err(Fault::too_many_ops());
    }
    let operations = |ops: Vec<pb::RequestOp>| -> Result<Vec<Op>, Fault> {
        ops.into_iter().map(|op| operation(op, depth)).collect()
    };
    Ok(Txn {
        compares: asked.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: operations(asked.success)?,
        failure: operations(asked.failure)?,
    })
}

fn operation(op: pb::RequestOp, depth: usize) -> Result<Op, Fault> {
    Ok(match op.request {
        Some(pb::RequestUnion::Range(asked)) => Op::Range(range(asked)?),
        Some(pb::RequestUnion::Put(asked)) => Op::Put(put(asked)),
        Some(pb::RequestUnion::DeleteRange(asked)) => Op::Delete(delete(asked)),
        Some(pb::RequestUnion::Txn(asked)) => Op::Txn(txn(asked, depth + 1)?),
        // What etcd says of an operation without content.
        None => return Err(Fault::no_key()),
    })
}

/// Without an operand, or with one of another kind, the operand is zero, or empty: as protocol buffers have it.
fn compare(asked: pb::Compare) -> Result<Compare, Fault> {
    use pb::TargetUnion as Operand;
    let target = match (asked.target, asked.target_union) {
        (0, Some(Operand::Version(version))) => Target::Version(version),
        (0, _) => Target::Version(0),
        (1, Some(Operand::CreateRevision(revision))) => Target::Create(revision),
        (1, _) => Target::Create(0),
        (2, Some(Operand::ModRevision(revision))) => Target::Mod(revision),
        (2, _) => Target::Mod(0),
        (3, Some(Operand::Value(value))) => Target::Value(value),
        (3, _) => Target::Value(Bytes::new()),
        (4, Some(Operand::Lease(lease))) => Target::Lease(lease),
        (4, _) => Target::Lease(0),
        _ => return Err(Fault::new(Code::Err, "a compare is of VERSION, CREATE, MOD, VALUE or LEASE")),
    };
    let result = match asked.result {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        _ => return Err(Fault::new(Code::Err, "a compare asks for EQUAL, GREATER, LESS or NOT_EQUAL")),
    };
    Ok(Compare { span: span(asked.key, asked.range_end), target, result })
}

/// A watch may name no key at all: it means the smallest one there can be.
pub fn watch(asked: &pb::WatchCreateRequest) -> Watch {
    let key = if asked.key.is_empty() { Bytes::from_static(&[0]) } else { asked.key.clone() };
    Watch {
        span: span(key, asked.range_end.clone()),
        revision: natural(asked.start_revision),
        prev_kv: asked.prev_kv,
        no_put: asked.filters.contains(&0),
        no_delete: asked.filters.contains(&1),
        progress: asked.progress_notify,
    }
}

// ---- Back

pub fn header(header: &Header) -> pb::ResponseHeader {
    pb::ResponseHeader {
        cluster_id: header.cluster,
        member_id: header.member,
        revision: signed(header.revision),
        raft_term: header.term,
    }
}

/// In the answers within a transaction nothing else of the header is filled, as in etcd.
fn revision_only(revision: Revision) -> pb::ResponseHeader {
    pb::ResponseHeader { revision: signed(revision), ..pb::ResponseHeader::default() }
}

pub fn key_value(kv: &KeyValue) -> pb::KeyValue {
    pb::KeyValue {
        key: kv.key.clone(),
        create_revision: signed(kv.create_revision),
        mod_revision: signed(kv.mod_revision),
        version: signed(kv.version),
        value: kv.value.clone(),
        lease: kv.lease,
    }
}

pub fn event(event: &Event) -> pb::Event {
    let kind = i32::from(event.kind == EventKind::Delete);
    let prev_kv = event.previous.as_ref().map(key_value);
    pb::Event { kind, kv: Some(key_value(&event.kv)), prev_kv }
}

pub fn range_response(header: pb::ResponseHeader, found: &RangeResult) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: found.kvs.iter().map(key_value).collect(),
        more: found.more,
        count: signed(found.count),
    }
}

pub fn put_response(header: pb::ResponseHeader, previous: Option<Option<KeyValue>>) -> pb::PutResponse {
    pb::PutResponse { header: Some(header), prev_kv: previous.flatten().as_ref().map(key_value) }
}

pub fn delete_response(
    header: pb::ResponseHeader,
    deleted: u64,
    previous: &[KeyValue],
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: signed(deleted),
        prev_kvs: previous.iter().map(key_value).collect(),
    }
}

pub fn txn_response(header: pb::ResponseHeader, result: TxnResult) -> pb::TxnResponse {
    pb::TxnResponse {
        header: Some(header),
        succeeded: result.succeeded,
        responses: result.responses.into_iter().map(operation_response).collect(),
    }
}

fn operation_response(body: Body) -> pb::ResponseOp {
    let response = match body {
        Body::Range(found) => pb::ResponseUnion::Range(range_response(revision_only(found.revision), &found)),
        Body::Put { revision, previous } => {
            pb::ResponseUnion::Put(put_response(revision_only(revision), previous))
        }
        Body::Delete { revision, deleted, previous } => {
            pb::ResponseUnion::DeleteRange(delete_response(revision_only(revision), deleted, &previous))
        }
        Body::Txn(result) => pb::ResponseUnion::Txn(txn_response(pb::ResponseHeader::default(), result)),
        body => panic!("an operation of a transaction is answered with {body:?}"),
    };
    pb::ResponseOp { response: Some(response) }
}

pub fn member(member: &Member) -> pb::Member {
    pb::Member {
        id: member.id,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        is_learner: member.learner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conventions_of_spans() {
        let of =
            |key: &'static [u8], end: &'static [u8]| span(Bytes::from_static(key), Bytes::from_static(end));
        assert_eq!(of(b"k", b""), Span::Key("k".into()));
        assert_eq!(of(b"k", b"l"), Span::Between("k".into(), "l".into()));
        assert_eq!(of(b"k", b"\0"), Span::From("k".into()));
        assert_eq!(of(b"\0", b"\0"), Span::Prefix(Bytes::new()));
        assert_eq!(of(b"\0", b""), Span::Key(Bytes::from_static(b"\0")));
        // The gate refuses these.
        assert_eq!(of(b"", b""), Span::Key(Bytes::new()));
        assert_eq!(of(b"", b"\0"), Span::Key(Bytes::new()));
        let unnamed = pb::WatchCreateRequest { range_end: Bytes::from_static(b"\0"), ..Default::default() };
        assert_eq!(watch(&unnamed).span, Span::Prefix(Bytes::new()));
    }

    #[test]
    fn numbers_below_zero_are_none() {
        let asked = pb::RangeRequest { key: "k".into(), limit: -1, revision: -7, ..Default::default() };
        let range = range(asked).unwrap();
        assert_eq!((range.limit, range.revision), (0, 0));
        let sorted = |sort_target, sort_order| {
            super::range(pb::RangeRequest { sort_target, sort_order, ..Default::default() })
                .map(|range| (range.sort_by, range.order))
                .map_err(|fault| fault.text)
        };
        assert_eq!(sorted(1, 0), Ok((SortBy::Version, Order::Ascending)));
        assert_eq!(sorted(1, 2), Ok((SortBy::Version, Order::Descending)));
        for no_order in [-1, 3] {
            assert_eq!(sorted(1, no_order), Ok((SortBy::Key, Order::Ascending)), "etcd does not sort");
        }
        assert_eq!(sorted(5, 2), Err("etcdserver: invalid sort option".into()));
    }

    #[test]
    fn a_transaction_within_transactions_has_an_end() {
        let mut asked = pb::TxnRequest::default();
        for _ in 1..limits::TXN_DEPTH_MAX {
            let op = pb::RequestOp { request: Some(pb::RequestUnion::Txn(asked)) };
            asked = pb::TxnRequest { success: vec![op], ..Default::default() };
        }
        assert!(txn(asked.clone(), 1).is_ok());
        let op = pb::RequestOp { request: Some(pb::RequestUnion::Txn(asked)) };
        let deeper = pb::TxnRequest { failure: vec![op], ..Default::default() };
        assert_eq!(txn(deeper, 1), Err(Fault::too_many_ops()));
        let nothing = pb::TxnRequest { success: vec![pb::RequestOp::default()], ..Default::default() };
        assert_eq!(txn(nothing, 1), Err(Fault::no_key()));
    }
}
