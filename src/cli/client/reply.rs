//! Replies of the line protocol become the vocabulary of `api`. None means that the reply has another shape
//! than the protocol promises.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::api::event::Encodings;
use crate::api::{Alarm, AlarmKind, Event, EventKind, KeyValue, LeaseTime, Member, RangeResult, Status};
use crate::base::{LeaseId, Revision};
use crate::cli::output::Done;
use crate::cli::resp::Value;

/// Ids use all 64 bits, a RESP integer only 63 and a sign: they may come as text or wrapped.
pub fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Integer(number) => Some(number.cast_unsigned()),
        Value::Bulk(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        Value::Simple(text) => text.parse().ok(),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Bulk(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::Simple(text) => Some(text.clone()),
        _ => None,
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        _ => None,
    }
}

/// True where the protocol says 1 or true.
fn flag(value: &Value) -> Option<bool> {
    match (number(value), text(value).as_deref()) {
        (Some(number), _) => Some(number != 0),
        (None, Some(word)) => crate::cli::go::parse_bool(word),
        _ => None,
    }
}

/// Names and values in turn. What this client does not know is left alone, so that servers may say more.
struct Map<'a>(BTreeMap<String, &'a Value>);

impl<'a> Map<'a> {
    fn new(value: &'a Value) -> Option<Map<'a>> {
        let Value::Array(items) = value else { return None };
        let pairs = items.chunks(2).map(|pair| match pair {
            [name, value] => Some((text(name)?, value)),
            _ => None,
        });
        Some(Map(pairs.collect::<Option<_>>()?))
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).copied()
    }

    fn number(&self, name: &str) -> Option<u64> {
        number(self.value(name)?)
    }

    fn text(&self, name: &str) -> Option<String> {
        text(self.value(name)?)
    }
}

/// `[key, value, create, mod, version, lease]`; a null value (KEYS) is an empty one.
fn key_value(value: &Value) -> Option<KeyValue> {
    let Value::Array(parts) = value else { return None };
    let [key, value, create, modified, version, lease] = parts.as_slice() else { return None };
    let bytes = |value: &Value| match value {
        Value::Bulk(bytes) => Some(Bytes::from(bytes.clone())),
        Value::Null => Some(Bytes::new()),
        _ => None,
    };
    Some(KeyValue {
        key: bytes(key)?,
        value: bytes(value)?,
        create_revision: number(create)?,
        mod_revision: number(modified)?,
        version: number(version)?,
        lease: number(lease)?.cast_signed(),
    })
}

fn key_values(value: &Value) -> Option<Vec<KeyValue>> {
    match value {
        Value::Array(items) => items.iter().map(key_value).collect(),
        _ => None,
    }
}

/// The revision, or `[revision, previous kv or null]`.
pub fn put(reply: &Value) -> Option<(Revision, Option<KeyValue>)> {
    match reply {
        Value::Array(parts) => match parts.as_slice() {
            [revision, Value::Null] => Some((number(revision)?, None)),
            [revision, previous] => Some((number(revision)?, Some(key_value(previous)?))),
            _ => None,
        },
        revision => Some((number(revision)?, None)),
    }
}

pub fn range(reply: &Value) -> Option<RangeResult> {
    let map = Map::new(reply)?;
    Some(RangeResult {
        revision: map.number("revision")?,
        count: map.number("count")?,
        more: flag(map.value("more")?)?,
        kvs: key_values(map.value("kvs")?)?,
    })
}

/// How many, or the map `revision, deleted, prevs`.
pub fn delete(reply: &Value) -> Option<(u64, Vec<KeyValue>)> {
    match reply {
        Value::Array(_) => {
            let map = Map::new(reply)?;
            Some((map.number("deleted")?, key_values(map.value("prevs")?)?))
        }
        deleted => Some((number(deleted)?, Vec::new())),
    }
}

/// An operation of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Put,
    Get,
    Del,
}

/// The map `revision, succeeded, responses`; `kinds` are the operations of both branches.
pub fn txn(reply: &Value, success: &[Kind], failure: &[Kind]) -> Option<(Revision, bool, Vec<Done>)> {
    let map = Map::new(reply)?;
    let succeeded = flag(map.value("succeeded")?)?;
    let Value::Array(responses) = map.value("responses")? else { return None };
    let kinds = if succeeded { success } else { failure };
    let done = |(kind, reply): (&Kind, &Value)| {
        Some(match kind {
            Kind::Put => Done::Put(put(reply)?.1),
            Kind::Get => Done::Get(range(reply)?),
            Kind::Del => {
                let (deleted, previous) = delete(reply)?;
                Done::Del(deleted, previous)
            }
        })
    };
    let all = kinds.iter().zip(responses).map(done).collect::<Option<Vec<Done>>>()?;
    (all.len() == kinds.len() && all.len() == responses.len()).then_some((
        map.number("revision")?,
        succeeded,
        all,
    ))
}

pub fn status(reply: &Value) -> Option<Status> {
    let map = Map::new(reply)?;
    Some(Status {
        member_id: map.number("member_id")?,
        cluster_id: map.number("cluster_id")?,
        name: map.text("name")?,
        version: map.text("version")?,
        leader: map.number("leader")?,
        term: map.number("term")?,
        commit_index: map.number("commit_index")?,
        applied_index: map.number("applied_index")?,
        revision: map.number("revision")?,
        compact_revision: map.number("compact_revision")?,
        db_size: map.number("db_size")?,
        db_size_in_use: map.number("db_size_in_use")?,
        learner: flag(map.value("learner")?)?,
        // The line protocol tells of them among the errors.
        alarms: Vec::new(),
        errors: texts(map.value("errors")?)?,
    })
}

/// The hash and the compact revision.
pub fn hash_kv(reply: &Value) -> Option<(u64, u64)> {
    let map = Map::new(reply)?;
    Some((map.number("hash")?, map.number("compact_revision")?))
}

pub fn members(reply: &Value) -> Option<Vec<Member>> {
    let Value::Array(items) = reply else { return None };
    items.iter().map(member).collect()
}

fn member(item: &Value) -> Option<Member> {
    let map = Map::new(item)?;
    Some(Member {
        id: map.number("id")?,
        name: map.text("name")?,
        peer_urls: texts(map.value("peer_urls")?)?,
        client_urls: texts(map.value("client_urls")?)?,
        learner: flag(map.value("learner")?)?,
    })
}

/// The map `member, members`.
pub fn member_added(reply: &Value) -> Option<(Member, Vec<Member>)> {
    let map = Map::new(reply)?;
    Some((member(map.value("member")?)?, members(map.value("members")?)?))
}

fn lease_id(value: &Value) -> Option<LeaseId> {
    number(value).map(u64::cast_signed)
}

/// `[id, ttl]`
pub fn lease_granted(reply: &Value) -> Option<(LeaseId, u64)> {
    match reply {
        Value::Array(parts) => match parts.as_slice() {
            [id, ttl] => Some((lease_id(id)?, number(ttl)?)),
            _ => None,
        },
        _ => None,
    }
}

/// The TTL of the one lease that was asked for.
pub fn lease_kept(reply: &Value) -> Option<u64> {
    match reply {
        Value::Array(ttls) => match ttls.as_slice() {
            [ttl] => number(ttl),
            _ => None,
        },
        _ => None,
    }
}

/// The map `id, ttl, granted_ttl, keys`; a TTL of -1 is none.
pub fn lease_ttl(reply: &Value) -> Option<(Option<LeaseTime>, Vec<Vec<u8>>)> {
    let map = Map::new(reply)?;
    let (remaining_s, granted_s) = (map.number("ttl")?, map.number("granted_ttl")?);
    let time = (remaining_s.cast_signed() >= 0).then_some(LeaseTime { granted_s, remaining_s });
    let Value::Array(keys) = map.value("keys")? else { return None };
    let key = |value: &Value| match value {
        Value::Bulk(bytes) => Some(bytes.clone()),
        _ => None,
    };
    Some((time, keys.iter().map(key).collect::<Option<_>>()?))
}

pub fn leases(reply: &Value) -> Option<Vec<LeaseId>> {
    match reply {
        Value::Array(ids) => ids.iter().map(lease_id).collect(),
        _ => None,
    }
}

/// Alarms. Those of other kinds are passed over: this client does not know them.
pub fn alarms(reply: &Value) -> Option<Vec<Alarm>> {
    let Value::Array(items) = reply else { return None };
    let mut alarms = Vec::with_capacity(items.len());
    for item in items {
        let map = Map::new(item)?;
        let (word, member) = (map.text("alarm")?, map.number("member_id")?);
        let kind = AlarmKind::ALL.into_iter().find(|kind| kind.word() == word);
        alarms.extend(kind.map(|kind| Alarm { member, kind }));
    }
    Some(alarms)
}

/// `[key, revision]`
pub fn acquired(reply: &Value) -> Option<(Vec<u8>, Revision)> {
    match reply {
        Value::Array(parts) => match parts.as_slice() {
            [Value::Bulk(key), revision] => Some((key.clone(), number(revision)?)),
            _ => None,
        },
        _ => None,
    }
}

pub fn ok(reply: &Value) -> Option<()> {
    (text(reply)? == "OK").then_some(())
}
/// What a server says unasked.
#[derive(Debug, PartialEq, Eq)]
pub enum Push {
    Events {
        id: u64,
        revision: Revision,
        events: Vec<Event>,
    },
    /// Without an id it is about all watches.
    Progress {
        id: Option<u64>,
        revision: Revision,
    },
    /// Who leads an election.
    Leader {
        id: u64,
        revision: Revision,
        leader: KeyValue,
    },
    Unwatched {
        id: u64,
        /// An error line.
        reason: String,
        compacted: Revision,
    },
}

/// None: it is a reply. (A reply with a header begins with an array, and no other is an array of these.)
pub fn push(value: &Value) -> Option<Push> {
    let Value::Array(parts) = value else { return None };
    let kind = text(parts.first()?)?;
    match (kind.as_str(), &parts[1..]) {
        ("watch", [id, revision, Value::Array(events)]) => Some(Push::Events {
            id: number(id)?,
            revision: number(revision)?,
            events: events.iter().map(event).collect::<Option<_>>()?,
        }),
        ("progress", [id, revision]) => {
            let id = if *id == Value::Integer(-1) { None } else { Some(number(id)?) };
            Some(Push::Progress { id, revision: number(revision)? })
        }
        ("leader", [id, revision, leader]) => {
            Some(Push::Leader { id: number(id)?, revision: number(revision)?, leader: key_value(leader)? })
        }
        ("unwatched", [id, reason, compacted]) => {
            Some(Push::Unwatched { id: number(id)?, reason: text(reason)?, compacted: number(compacted)? })
        }
        _ => None,
    }
}

fn event(value: &Value) -> Option<Event> {
    let Value::Array(parts) = value else { return None };
    let [kind, kv, previous] = &parts[..] else { return None };
    let kind = match text(kind)?.as_str() {
        "PUT" => EventKind::Put,
        "DELETE" => EventKind::Delete,
        _ => return None,
    };
    let previous = if *previous == Value::Null { None } else { Some(key_value(previous)?) };
    Some(Event { kind, kv: key_value(kv)?, previous, encoded: Encodings::default() })
}
