//! The node's replies in RESP.

use super::info;
use super::lease;
use super::resp::Resp;
use super::txn::TxnShape;
use super::{ServerInfo, info::Sections};
use crate::api::{
    Alarm, Body, Event, EventKind, Header, KeyValue, LeaseAnswer, Member, RangeHead, RangePart, RangeResult,
    Status, TxnResult,
};

/// What the asker expects to see of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// PUT: the revision.
    Revision,
    /// PUT PREV: `[revision, previous kv or null]`.
    PutPrevious,
    /// SET, COMPACT, DEFRAG, UNLOCK, MOVELEADER, ...: `OK`.
    Ok,
    /// GET: the value or null.
    Value,
    /// RANGE: `revision, count, more, kvs`.
    Range {
        keys_only: bool,
    },
    /// DBSIZE: how many keys were counted.
    Count,
    /// EXISTS: how many.
    Exists,
    /// DEL: how many.
    Deleted,
    /// DEL PREV: `revision, deleted, prevs`.
    DeletedKvs,
    /// LEASE: what that answers.
    Lease,
    /// LOCK, ELECTION CAMPAIGN: `[key, revision]`.
    Acquired,
    /// ELECTION LEADER: a kv, or null.
    First,
    /// TXN: `revision, succeeded, responses`.
    Txn(TxnShape),
    /// STATUS.
    Status,
    /// MEMBER LIST.
    Members,
    /// MEMBER ADD: `member, members`.
    MemberAdded,
    /// HASHKV: `hash, revision, compact_revision`.
    HashKv,
    /// ALARM.
    Alarms,
    /// INFO.
    Info(Sections),
    /// `mntr` and `stat`, typed: text that is no RESP.
    Mntr,
    Stat,
    /// WATCH, ELECTION OBSERVE: the id.
    Watch(u64),
    /// A SUBSCRIBE or PSUBSCRIBE: the adapter's own code writes it.
    Subscribed,
}

impl Shape {
    /// Bare text is not wrapped by `HEADER ON`, nor what has a shape of its own in Redis.
    pub fn is_raw(&self) -> bool {
        matches!(self, Shape::Mntr | Shape::Stat | Shape::Subscribed)
    }
}

/// Writes a body that is no fault. A body that does not fit the shape is a broken promise of the node.
pub fn write(shape: &Shape, body: &Body, info: &ServerInfo, resp: &mut Resp<'_>) {
    match (shape, body) {
        (Shape::Revision, Body::Put { revision, .. }) => resp.integer(*revision),
        (Shape::PutPrevious, Body::Put { revision, previous }) => {
            resp.array(2);
            resp.integer(*revision);
            match previous.as_ref().and_then(Option::as_ref) {
                Some(kv) => key_value(kv, false, resp),
                None => resp.null(),
            }
        }
        (Shape::MemberAdded, Body::MemberAdded { member: added, members: all }) => {
            resp.map(2);
            resp.text("member");
            member(added, resp);
            resp.text("members");
            members(all, resp);
        }
        (Shape::Exists, Body::Exists(found)) => resp.integer(*found),
        (Shape::Lease, Body::Lease(answer)) => lease::write(answer, resp),
        (
            Shape::Ok,
            Body::Put { .. }
            | Body::Delete { .. }
            | Body::Compacted { .. }
            | Body::Defragmented
            | Body::Lease(LeaseAnswer::Revoked { .. })
            | Body::LeaderMoved,
        ) => resp.simple("OK"),
        (Shape::Value, Body::Range(range)) => match range.kvs.first() {
            Some(kv) => resp.bulk(&kv.value),
            None => resp.null(),
        },
        (Shape::Range { keys_only }, Body::Range(result)) => {
            let RangeResult { revision, count, more, ref kvs } = *result;
            range_head(&RangeHead { revision, count, more, kvs: kvs.len() as u64 }, resp);
            kvs.iter().for_each(|kv| key_value(kv, *keys_only, resp));
        }
        (Shape::Range { keys_only }, Body::RangePart(RangePart { head: Some(head), kvs, .. })) => {
            range_head(head, resp);
            kvs.iter().for_each(|kv| key_value(kv, *keys_only, resp));
        }
        (Shape::Acquired, Body::Acquired { key, revision }) => {
            resp.array(2);
            resp.bulk(key);
            resp.integer(*revision);
        }
        (Shape::First, Body::Range(range)) => match range.kvs.first() {
            Some(kv) => key_value(kv, false, resp),
            None => resp.null(),
        },
        (Shape::Count, Body::Range(range)) => resp.integer(range.count),
        (Shape::Deleted, Body::Delete { deleted, .. }) => resp.integer(*deleted),
        (Shape::DeletedKvs, Body::Delete { revision, deleted, previous }) => {
            resp.map(3);
            resp.text("revision");
            resp.integer(*revision);
            resp.text("deleted");
            resp.integer(*deleted);
            resp.text("prevs");
            key_values(previous, resp);
        }
        (Shape::Txn(shape), Body::Txn(result)) => txn(shape, result, info, resp),
        (Shape::Status, Body::Status(found)) => status(found, resp),
        (Shape::Members, Body::Members(all)) => members(all, resp),
        (Shape::Alarms, Body::Alarms(all)) => alarms(all, resp),
        (Shape::HashKv, Body::HashKv { hash, revision, compact_revision }) => {
            resp.map(3);
            for (name, number) in
                [("hash", u64::from(*hash)), ("revision", *revision), ("compact_revision", *compact_revision)]
            {
                resp.text(name);
                resp.integer(number);
            }
        }
        (Shape::Info(sections), Body::Status(status)) => {
            resp.text(&info::info(status, info, *sections));
        }
        (Shape::Mntr, Body::Status(status)) => resp.raw(info::mntr(status).as_bytes()),
        (Shape::Stat, Body::Status(status)) => resp.raw(info::stat(status).as_bytes()),
        (Shape::Watch(id), Body::Watching | Body::Observing { .. }) => resp.integer(*id),
        (shape, body) => panic!("the node answers {shape:?} with {body:?}: a reply answers what was asked"),
    }
}

/// `[cluster id, member id, revision, term]`, the first half of a reply under `HEADER ON`.
pub fn header(header: &Header, resp: &mut Resp<'_>) {
    resp.array(4);
    resp.id(header.cluster);
    resp.id(header.member);
    resp.integer(header.revision);
    resp.integer(header.term);
}

/// A range up to its first kv.
fn range_head(head: &RangeHead, resp: &mut Resp<'_>) {
    resp.map(4);
    resp.text("revision");
    resp.integer(head.revision);
    resp.text("count");
    resp.integer(head.count);
    resp.text("more");
    resp.boolean(head.more);
    resp.text("kvs");
    resp.array(usize::try_from(head.kvs).expect("a store holds fewer than 2^64 keys"));
}

/// Each operation is answered as it would be alone.
fn txn(shape: &TxnShape, result: &TxnResult, info: &ServerInfo, resp: &mut Resp<'_>) {
    resp.map(3);
    resp.text("revision");
    resp.integer(result.revision);
    resp.text("succeeded");
    resp.boolean(result.succeeded);
    resp.text("responses");
    let shapes = if result.succeeded { &shape.success } else { &shape.failure };
    assert_eq!(shapes.len(), result.responses.len(), "every operation of the branch has its answer");
    resp.array(shapes.len());
    for (shape, body) in shapes.iter().zip(&result.responses) {
        write(shape, body, info, resp);
    }
}

/// What comes behind the first part of a range.
pub fn further_part(shape: &Shape, part: &RangePart, resp: &mut Resp<'_>) {
    let Shape::Range { keys_only } = shape else { panic!("{shape:?} is answered in one part") };
    part.kvs.iter().for_each(|kv| key_value(kv, *keys_only, resp));
}

fn key_values(kvs: &[KeyValue], resp: &mut Resp<'_>) {
    resp.array(kvs.len());
    kvs.iter().for_each(|kv| key_value(kv, false, resp));
}

/// `[PUT|DELETE, kv, previous kv or null]`; a delete's kv has no value.
pub fn event(event: &Event, resp: &mut Resp<'_>) {
    resp.array(3);
    resp.text(match event.kind {
        EventKind::Put => "PUT",
        EventKind::Delete => "DELETE",
    });
    key_value(&event.kv, event.kind == EventKind::Delete, resp);
    match &event.previous {
        Some(kv) => key_value(kv, false, resp),
        None => resp.null(),
    }
}

/// `[key, value, create, mod, version, lease]`
pub fn key_value(kv: &KeyValue, without_value: bool, resp: &mut Resp<'_>) {
    resp.array(6);
    resp.bulk(&kv.key);
    if without_value {
        resp.null();
    } else {
        resp.bulk(&kv.value);
    }
    resp.integer(kv.create_revision);
    resp.integer(kv.mod_revision);
    resp.integer(kv.version);
    resp.signed(kv.lease);
}

fn status(status: &Status, resp: &mut Resp<'_>) {
    resp.map(14);
    resp.text("member_id");
    resp.id(status.member_id);
    resp.text("cluster_id");
    resp.id(status.cluster_id);
    resp.text("name");
    resp.text(&status.name);
    resp.text("version");
    resp.text(&status.version);
    resp.text("leader");
    resp.id(status.leader);
    for (name, number) in [
        ("term", status.term),
        ("commit_index", status.commit_index),
        ("applied_index", status.applied_index),
        ("revision", status.revision),
        ("compact_revision", status.compact_revision),
        ("db_size", status.db_size),
        ("db_size_in_use", status.db_size_in_use),
    ] {
        resp.text(name);
        resp.integer(number);
    }
    resp.text("learner");
    resp.boolean(status.learner);
    resp.text("errors");
    texts(&status.errors, resp);
}

fn members(members: &[Member], resp: &mut Resp<'_>) {
    resp.array(members.len());
    for one in members {
        member(one, resp);
    }
}

fn alarms(alarms: &[Alarm], resp: &mut Resp<'_>) {
    resp.array(alarms.len());
    for alarm in alarms {
        resp.map(2);
        resp.text("member_id");
        resp.id(alarm.member);
        resp.text("alarm");
        resp.text(alarm.kind.word());
    }
}

fn member(member: &Member, resp: &mut Resp<'_>) {
    resp.map(5);
    resp.text("id");
    resp.id(member.id);
    resp.text("name");
    resp.text(&member.name);
    resp.text("peer_urls");
    texts(&member.peer_urls, resp);
    resp.text("client_urls");
    texts(&member.client_urls, resp);
    resp.text("learner");
    resp.boolean(member.learner);
}

fn texts(texts: &[String], resp: &mut Resp<'_>) {
    resp.array(texts.len());
    for text in texts {
        resp.text(text);
    }
}
