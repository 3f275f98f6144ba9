//! Requests in the words of the line protocol.

use pawl::api::{
    Acquire, Compare, CompareResult, LeaseRequest, LockRequest, Op, Order, Range, Request, SortBy, Span,
    Target, Txn, Watch,
};

use super::make::ELECTION;
use super::watch::{Change, Told};
use super::{Answer, Kv, Outcome};
use crate::harness::{Member, PATIENCE};
use crate::resp::{Client, Reply, unsigned};

pub struct Pawl {
    client: Client,
}

type Words = Vec<Vec<u8>>;

/// What etcd calls an error, and we an answer or another error.
const NO_LEADER: &str = "election: no leader";
const NOT_LEADER: &str = "election: not leader";

impl Pawl {
    pub fn connect(member: &Member) -> Pawl {
        let mut client = Client::connect_to(member.address(), PATIENCE).unwrap();
        assert_eq!(client.call(&["HEADER", "ON"]).unwrap(), Reply::Simple("OK".into()));
        Pawl { client }
    }

    pub fn ask(&mut self, request: &Request) -> Outcome {
        let reply = self.client.call(&words(request)).unwrap();
        if let Reply::Error(line) = &reply {
            if matches!(request, Request::Lock(LockRequest::Proclaim { .. })) && line.starts_with("NOKEY ") {
                return Err(NOT_LEADER.into());
            }
            let text = line.find("etcdserver: ").unwrap_or_else(|| panic!("no text of etcd: {line}"));
            return Err(line[text..].to_string());
        }
        let [header, reply] = reply.array() else { panic!("no header: {reply:?}") };
        if matches!(request, Request::Lock(LockRequest::Leader { .. })) && *reply == Reply::Null {
            return Err(NO_LEADER.into());
        }
        Ok((unsigned(&header.array()[2]), answer(request, reply)))
    }
}

/// A watch on a connection of its own.
pub struct Watching {
    client: Client,
}

impl Pawl {
    pub fn watch(member: &Member, watch: &Watch) -> Watching {
        let mut client = Client::connect_to(member.address(), PATIENCE).unwrap();
        let mut words = vec![b"WATCH".to_vec()];
        words.extend(span(&watch.span));
        words.extend([b"REV".to_vec(), watch.revision.to_string().into_bytes()]);
        let flags = [(watch.prev_kv, "PREV"), (watch.no_put, "NOPUT"), (watch.no_delete, "NODELETE")];
        words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag.as_bytes().to_vec()));
        assert_eq!(client.call(&words).unwrap(), Reply::Integer(1));
        Watching { client }
    }
}

impl Watching {
    pub fn next(&mut self) -> Told {
        let push = self.client.receive().unwrap();
        let parts = push.array();
        match parts[0].text().as_str() {
            "watch" => Told::Changes(parts[3].array().iter().map(change).collect()),
            "unwatched" => {
                assert!(parts[2].text().starts_with("COMPACTED "), "{push:?}");
                Told::Compacted(unsigned(&parts[3]))
            }
            _ => panic!("{push:?}"),
        }
    }
}

fn change(event: &Reply) -> Change {
    let [kind, of, previous] = event.array() else { panic!("an event has three parts: {event:?}") };
    Change { deleted: kind.text() == "DELETE", kv: kv(of), previous: optional(previous) }
}

fn words(request: &Request) -> Words {
    let mut words = Vec::new();
    let mut word = |text: &str| words.push(text.as_bytes().to_vec());
    match request {
        Request::Put(put) => {
            words.extend([b"PUT".to_vec(), put.key.to_vec(), put.value.to_vec()]);
            if put.lease != 0 {
                words.extend([b"LEASE".to_vec(), put.lease.to_string().into_bytes()]);
            }
            let flags =
                [(put.prev_kv, "PREV"), (put.ignore_value, "KEEPVALUE"), (put.ignore_lease, "KEEPLEASE")];
            words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag.as_bytes().to_vec()));
        }
        Request::Range(range) => words = range_words(range),
        Request::Delete(delete) => {
            word("DEL");
            words.extend(span(&delete.span));
            words.extend(delete.prev_kv.then(|| b"PREV".to_vec()));
        }
        Request::Txn(txn) => words = txn_words(txn),
        Request::Compact(compact) => {
            word("COMPACT");
            word(&compact.revision.to_string());
            words.extend(compact.physical.then(|| b"PHYSICAL".to_vec()));
        }
        Request::Lease(lease) => {
            word("LEASE");
            match lease {
                LeaseRequest::Grant { id, ttl_s } => {
                    [b"GRANT" as &[u8], ttl_s.to_string().as_bytes(), b"ID", id.to_string().as_bytes()]
                        .into_iter()
                        .for_each(|word| words.push(word.to_vec()));
                }
                LeaseRequest::Revoke { id } => {
                    words.extend([b"REVOKE".to_vec(), id.to_string().into_bytes()])
                }
                LeaseRequest::TimeToLive { id, keys } => {
                    words.extend([b"TTL".to_vec(), id.to_string().into_bytes()]);
                    words.extend(keys.then(|| b"KEYS".to_vec()));
                }
                LeaseRequest::List => word("LIST"),
                LeaseRequest::KeepAlive { ids } => {
                    word("KEEPALIVE");
                    words.extend(ids.iter().map(|id| id.to_string().into_bytes()));
                }
            }
        }
        Request::Lock(lock) => words = lock_words(lock),
        other => panic!("not asked for here: {other:?}"),
    }
    words
}

fn lock_words(lock: &LockRequest) -> Words {
    let is_of_election = |key: &[u8]| key.starts_with(ELECTION);
    match lock {
        LockRequest::Acquire(Acquire { name, value, lease, campaign, .. }) => {
            let mut words = if *campaign {
                vec![b"ELECTION".to_vec(), b"CAMPAIGN".to_vec(), name.to_vec(), value.to_vec()]
            } else {
                vec![b"LOCK".to_vec(), name.to_vec()]
            };
            words.extend([b"LEASE".to_vec(), lease.to_string().into_bytes()]);
            words
        }
        LockRequest::Release { key } if is_of_election(key) => {
            vec![b"ELECTION".to_vec(), b"RESIGN".to_vec(), key.to_vec()]
        }
        LockRequest::Release { key } => vec![b"UNLOCK".to_vec(), key.to_vec()],
        LockRequest::Proclaim { key, value } => {
            vec![b"ELECTION".to_vec(), b"PROCLAIM".to_vec(), key.to_vec(), value.to_vec()]
        }
        LockRequest::Leader { name } => vec![b"ELECTION".to_vec(), b"LEADER".to_vec(), name.to_vec()],
        LockRequest::Observe { .. } => panic!("it has no end: not asked for here"),
    }
}

fn span(span: &Span) -> Words {
    match span {
        Span::Key(key) => vec![key.to_vec()],
        Span::Between(from, to) => vec![from.to_vec(), b"TO".to_vec(), to.to_vec()],
        Span::Prefix(prefix) => vec![prefix.to_vec(), b"PREFIX".to_vec()],
        Span::From(from) => vec![from.to_vec(), b"FROM".to_vec()],
    }
}

fn range_words(range: &Range) -> Words {
    let mut words = vec![b"RANGE".to_vec()];
    words.extend(span(&range.span));
    let numbers = [
        ("LIMIT", range.limit),
        ("REV", range.revision),
        ("MINMOD", range.min_mod),
        ("MAXMOD", range.max_mod),
        ("MINCREATE", range.min_create),
        ("MAXCREATE", range.max_create),
    ];
    for (name, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
        words.extend([name.into(), number.to_string().into_bytes()]);
    }
    let flags = [
        (range.serializable, "SERIALIZABLE"),
        (range.keys_only, "KEYS"),
        (range.count_only, "COUNT"),
        (range.order == Order::Descending, "DESC"),
    ];
    words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag.as_bytes().to_vec()));
    let by = match range.sort_by {
        SortBy::Key => "KEY",
        SortBy::Version => "VERSION",
        SortBy::Create => "CREATE",
        SortBy::Mod => "MOD",
        SortBy::Value => "VALUE",
    };
    words.extend([b"BY".to_vec(), by.into()]);
    words
}

fn txn_words(txn: &Txn) -> Words {
    let mut words = vec![b"TXN".to_vec(), b"IF".to_vec()];
    for Compare { span: of, target, result } in &txn.compares {
        let (name, operand) = match target {
            Target::Value(value) => ("VALUE", value.to_vec()),
            Target::Version(number) => ("VERSION", number.to_string().into_bytes()),
            Target::Create(number) => ("CREATE", number.to_string().into_bytes()),
            Target::Mod(number) => ("MOD", number.to_string().into_bytes()),
            Target::Lease(number) => ("LEASE", number.to_string().into_bytes()),
        };
        let sign = match result {
            CompareResult::Equal => "=",
            CompareResult::NotEqual => "!=",
            CompareResult::Less => "<",
            CompareResult::Greater => ">",
        };
        words.push(name.into());
        words.extend(span(of));
        words.extend([sign.into(), operand]);
    }
    for (section, ops) in [("THEN", &txn.success), ("ELSE", &txn.failure)] {
        words.push(section.into());
        words.extend(ops.iter().flat_map(|op| self::words(&super::make::alone(op))));
    }
    words.push(b"END".to_vec());
    words
}

fn answer(request: &Request, reply: &Reply) -> Answer {
    match request {
        Request::Put(put) if put.prev_kv => Answer::Put(optional(&reply.array()[1])),
        Request::Put(_) => Answer::Put(None),
        Request::Range(_) => Answer::Range {
            count: unsigned(reply.field("count")),
            more: unsigned(reply.field("more")) == 1,
            kvs: reply.field("kvs").array().iter().map(kv).collect(),
        },
        Request::Delete(delete) if delete.prev_kv => Answer::Delete {
            deleted: unsigned(reply.field("deleted")),
            previous: reply.field("prevs").array().iter().map(kv).collect(),
        },
        Request::Delete(_) => Answer::Delete { deleted: unsigned(reply), previous: Vec::new() },
        Request::Txn(txn) => {
            let succeeded = unsigned(reply.field("succeeded")) == 1;
            let responses = reply.field("responses").array();
            let ops: &[Op] = txn.branch(succeeded);
            assert_eq!(ops.len(), responses.len());
            let answers = ops.iter().zip(responses).map(|(op, reply)| answer(&super::make::alone(op), reply));
            Answer::Txn { succeeded, responses: answers.collect() }
        }
        Request::Lease(LeaseRequest::Grant { .. }) => {
            Answer::Granted { id: reply.array()[0].integer(), ttl_s: unsigned(&reply.array()[1]) }
        }
        Request::Lease(LeaseRequest::Revoke { .. }) => Answer::Revoked,
        Request::Lease(LeaseRequest::TimeToLive { .. }) => Answer::Lease {
            granted: unsigned(reply.field("granted_ttl")),
            keys: reply.field("keys").array().iter().map(|key| key.bulk().to_vec()).collect(),
        },
        Request::Lease(LeaseRequest::KeepAlive { .. }) => Answer::Kept(unsigned(&reply.array()[0])),
        Request::Lock(LockRequest::Acquire(_)) => {
            let [key, created] = reply.array() else { panic!("a key and a revision: {reply:?}") };
            Answer::Acquired { key: key.bulk().to_vec(), created: unsigned(created) }
        }
        Request::Lock(LockRequest::Leader { .. }) => Answer::Leader(kv(reply)),
        Request::Lock(_) => Answer::Released,
        Request::Lease(_) => Answer::Leases(reply.array().iter().map(Reply::integer).collect()),
        _ => Answer::Compacted,
    }
}

fn optional(reply: &Reply) -> Option<Kv> {
    (*reply != Reply::Null).then(|| kv(reply))
}

fn kv(reply: &Reply) -> Kv {
    let [key, value, created, modified, version, lease] = reply.array() else {
        panic!("a kv has six parts: {reply:?}")
    };
    Kv {
        key: key.bulk().to_vec(),
        value: if *value == Reply::Null { Vec::new() } else { value.bulk().to_vec() },
        created: unsigned(created),
        modified: unsigned(modified),
        version: unsigned(version),
        lease: lease.integer(),
    }
}
