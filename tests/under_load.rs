//! Clients that work on a cluster of real processes while something is done to it. Everything that they asked and
//! were told is recorded, and judged at the end with what the store tells of itself: by the checkers of the simulator,
//! by what each member holds, and by the offline check of the files.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pawl::api::{Code, Delete, KeyValue, Put, Range, RangeResult, Request, Span};
use pawl::base::{Mono, Revision, Rng};
use pawl::sim::check::{check, wgl};
use pawl::sim::history::{Answer, Change, History, Moment, Op, Outcome};

use crate::harness::{Cluster, EndAtDrop, PATIENCE, Setup, pause, say, until};
use crate::resp::{Client, RangeReply, Reply, unsigned};

const CLIENTS: u64 = 6;
const KEYS: u64 = 24;

/// A request that has no answer after this is given up: its outcome is unknown.
const REQUEST_PATIENCE: Duration = Duration::from_secs(3);

/// How often a harm is done: so often, or as the environment says.
pub fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Small segments and a short log, so that rolling and releasing happen under the harm too.
pub fn setup() -> Setup {
    Setup::default().flag("snapshot-count", 2_000).flag("snapshot-catchup-entries", 1_000)
}

/// Clients work while `harm` does what it does; then everything that they saw is checked.
pub fn under_load(what: &str, mut cluster: Cluster, harm: impl FnOnce(&mut Cluster, &Load, &mut Rng)) {
    let seed = from_env("SEED", 1);
    let began = Instant::now();
    let load = Load::default();
    let ports: Vec<u16> = cluster.members.iter().map(|member| member.client_port).collect();
    let ops: Vec<Op> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (load, ports) = (&load, &ports);
                scope.spawn(move || client(number, seed, began, ports, load))
            })
            .collect();
        let guard = EndAtDrop(&load.over);
        harm(&mut cluster, &load, &mut Rng::new(seed));
        // What the last harm left is part of the test.
        load.wait_for_progress(100);
        drop(guard);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let under_load = began.elapsed();

    let acknowledged = ops.iter().filter_map(acknowledged_revision);
    let last = cluster.agree(acknowledged.max().expect("some writes succeeded"));
    let mut history = History::from_ops(ops);
    history.changes = read_back(&mut cluster.members[0].client(), last);
    let summary = check(&history).unwrap_or_else(|violation| panic!("{what}, seed {seed}: {violation}"));
    assert_eq!((summary.last_revision, summary.unchecked), (last, 0), "the read-back tells everything");
    let verdict = wgl::check(&history, STATES_MAX);
    let verdict = verdict.unwrap_or_else(|violation| panic!("{what}, seed {seed}: {violation}"));
    for member in &cluster.members {
        check_member(&mut member.client(), last, &history.ops);
    }
    cluster.stop_all();
    cluster.check_stopped();
    say(&format!(
        "{what}: {} times in {:.0} s, {} writes and {} reads acknowledged, {} unknown ({} happened), {} refused, \
         revision {last}; checked in {:.0} s, {} of {} keys undecided without revisions (seed {seed})",
        load.harms(),
        under_load.as_secs_f64(),
        summary.writes,
        summary.reads,
        summary.unknown,
        summary.unknown_applied,
        summary.refused,
        (began.elapsed() - under_load).as_secs_f64(),
        verdict.undecided,
        verdict.keys,
    ));
}

/// How far the second judge searches per key.
const STATES_MAX: usize = 200_000;

/// The revision that a write was told.
fn acknowledged_revision(op: &Op) -> Option<Revision> {
    match &op.outcome {
        Outcome::Answered {
            answer: Answer::Put { revision, .. } | Answer::Delete { revision, .. }, ..
        } => Some(*revision),
        _ => None,
    }
}

/// What those who harm and the clients share.
#[derive(Default)]
pub struct Load {
    over: AtomicBool,
    acknowledged: AtomicU64,
    harms: AtomicU64,
    room_is_short: AtomicBool,
}

impl Load {
    pub fn harms(&self) -> u64 {
        self.harms.load(Ordering::Relaxed)
    }

    /// Something was done, so many times.
    pub fn harmed(&self, times: u64) {
        self.harms.fetch_add(times, Ordering::Relaxed);
    }

    /// From here on a write may be refused because there is no room.
    pub fn room_is_short(&self) {
        self.room_is_short.store(true, Ordering::Relaxed);
    }

    /// Waits until so many writes more are acknowledged.
    pub fn wait_for_progress(&self, writes: u64) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        until("writes to be acknowledged again", PATIENCE, || {
            (self.acknowledged.load(Ordering::Relaxed) > before + writes).then_some(())
        });
    }
}

/// One client: one request at a time, to whichever member it is connected to.
fn client(number: u64, seed: u64, began: Instant, ports: &[u16], load: &Load) -> Vec<Op> {
    let mut rng = Rng::new(seed.wrapping_mul(1_000).wrapping_add(number));
    let mut ops = Vec::new();
    let mut connection: Option<Client> = None;
    let mut connections = 0;
    while !load.over.load(Ordering::Relaxed) {
        if connection.is_none() || rng.one_in(200) {
            let port = ports[rng.below(ports.len() as u64) as usize];
            connection = Client::connect(port, REQUEST_PATIENCE).ok();
            connections += 1;
        }
        let Some(client) = &mut connection else {
            pause(5);
            continue;
        };
        let request = choose(&mut rng, number * 1_000_000_000 + ops.len() as u64);
        let invoked = moment(began);
        let outcome = perform(client, &request, began);
        if let Outcome::Refused { code: Code::NoSpace, .. } = outcome {
            assert!(load.room_is_short.load(Ordering::Relaxed), "there is room for {request:?}");
        }
        let op = Op {
            number: 0,
            client: number,
            connection: number * 1_000_000 + connections,
            request,
            invoked,
            outcome,
        };
        if acknowledged_revision(&op).is_some() {
            load.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        if !matches!(op.outcome, Outcome::Answered { .. }) {
            connection = None;
        }
        ops.push(op);
        // Some ten thousand operations are enough; the disk is for the kills.
        pause(2);
    }
    ops
}

fn moment(began: Instant) -> Moment {
    Moment::new(Mono(u64::try_from(began.elapsed().as_nanos()).expect("a test does not last for centuries")))
}

/// Every value is written once.
fn choose(rng: &mut Rng, value: u64) -> Request {
    let key = Bytes::from(format!("key-{:02}", rng.below(KEYS)));
    let prev_kv = rng.one_in(4);
    match rng.below(20) {
        0..10 => Request::Put(Put { key, value: value_bytes(value).into(), prev_kv, ..Put::default() }),
        10..12 => Request::Delete(Delete { span: Span::Key(key), prev_kv: true }),
        12..17 => Request::Range(Range::new(Span::Key(key))),
        17..19 => Request::Range(Range::new(Span::Prefix(Bytes::new()))),
        _ => Request::Range(Range { serializable: true, ..Range::new(Span::Prefix(Bytes::new())) }),
    }
}

/// The number, then padding of a length that follows from it: from a few bytes to two pages.
fn value_bytes(value: u64) -> Vec<u8> {
    let padding = if value.is_multiple_of(37) { 9_000 } else { value * 7 % 200 };
    let mut bytes = format!("{value}:").into_bytes();
    bytes.extend((0..padding).map(|at| b'a' + (at % 26) as u8));
    bytes
}

/// The request on the wire. A linearizable read of one key is GET, which tells the value alone.
fn on_the_wire(request: &Request) -> Vec<Vec<u8>> {
    match request {
        Request::Put(put) => {
            let mut words = vec![b"PUT".to_vec(), put.key.to_vec(), put.value.to_vec()];
            words.extend(put.prev_kv.then(|| b"PREV".to_vec()));
            words
        }
        Request::Delete(Delete { span: Span::Key(key), .. }) => {
            vec![b"DEL".to_vec(), key.to_vec(), b"PREV".to_vec()]
        }
        Request::Range(Range { span: Span::Key(key), .. }) => vec![b"GET".to_vec(), key.to_vec()],
        Request::Range(range) if range.serializable => words("RANGE '' PREFIX SERIALIZABLE"),
        Request::Range(_) => words("RANGE '' PREFIX"),
        other => unreachable!("not asked here: {other:?}"),
    }
}

/// One request and what came of it. Anything but an answer or a lost connection fails the test.
fn perform(client: &mut Client, request: &Request, began: Instant) -> Outcome {
    let reply = match client.call(&on_the_wire(request)) {
        Ok(reply) => reply,
        Err(error) if is_lost(&error) => return Outcome::Unknown,
        Err(error) => panic!("{request:?}: {error}"),
    };
    let at = moment(began);
    match reply.code() {
        Some("NOLEADER") => return Outcome::Refused { at, code: Code::NoLeader },
        Some("BUSY") => return Outcome::Refused { at, code: Code::Busy },
        Some("NOSPACE") => return Outcome::Refused { at, code: Code::NoSpace },
        Some("LOADING") => return Outcome::Refused { at, code: Code::Loading },
        Some("TIMEOUT" | "SHUTDOWN") => return Outcome::Unknown,
        Some(_) => panic!("{request:?}: {reply:?}"),
        None => {}
    }
    Outcome::Answered { at, header: None, answer: answer_of(request, &reply) }
}

fn answer_of(request: &Request, reply: &Reply) -> Answer {
    match request {
        Request::Put(put) if put.prev_kv => {
            let [revision, previous] = reply.array() else { panic!("{reply:?}") };
            let previous = (*previous != Reply::Null).then(|| key_value(previous));
            Answer::Put { revision: unsigned(revision), previous: Some(previous) }
        }
        Request::Put(_) => Answer::Put { revision: unsigned(reply), previous: None },
        Request::Delete(_) => Answer::Delete {
            revision: unsigned(reply.field("revision")),
            deleted: unsigned(reply.field("deleted")),
            previous: reply.field("prevs").array().iter().map(key_value).collect(),
        },
        Request::Range(Range { span: Span::Key(_), .. }) => {
            Answer::Value((*reply != Reply::Null).then(|| Bytes::copy_from_slice(reply.bulk())))
        }
        _ => Answer::Range(RangeResult {
            revision: unsigned(reply.field("revision")),
            count: unsigned(reply.field("count")),
            more: unsigned(reply.field("more")) == 1,
            kvs: reply.field("kvs").array().iter().map(key_value).collect(),
        }),
    }
}

fn key_value(reply: &Reply) -> KeyValue {
    let [key, value, created, modified, version, lease] = reply.array() else { panic!("a kv: {reply:?}") };
    KeyValue {
        key: Bytes::copy_from_slice(key.bulk()),
        value: Bytes::copy_from_slice(value.bulk()),
        create_revision: unsigned(created),
        mod_revision: unsigned(modified),
        version: unsigned(version),
        lease: lease.integer(),
    }
}

fn is_lost(error: &Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof | WouldBlock
    )
}

const PIPELINE: u64 = 200;

fn words(text: &str) -> Vec<Vec<u8>> {
    text.split(' ').map(|word| if word == "''" { Vec::new() } else { word.into() }).collect()
}

/// Asks one member for every revision: what was put at it, or else which keys were gone.
fn read_back(client: &mut Client, last: Revision) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut there = BTreeSet::new();
    let mut from = 2;
    while from <= last {
        let upto = last.min(from + PIPELINE - 1);
        let ask = |at| words(&format!("RANGE '' PREFIX REV {at} MINMOD {at} MAXMOD {at} SERIALIZABLE"));
        let commands: Vec<_> = (from..=upto).map(ask).collect();
        let replies = client.pipeline(&commands).unwrap();
        for (revision, reply) in (from..=upto).zip(&replies) {
            let put = RangeReply::parse(reply).kvs;
            for kv in &put {
                there.insert(kv.key.clone());
                let value = Some(Bytes::from(kv.value.clone()));
                changes.push(Change { revision, key: kv.key.clone().into(), value, lease: 0 });
            }
            if put.is_empty() {
                let ask = words(&format!("RANGE '' PREFIX REV {revision} KEYS SERIALIZABLE"));
                let left = RangeReply::parse(&client.call(&ask).unwrap()).kvs;
                let left: BTreeSet<Vec<u8>> = left.into_iter().map(|kv| kv.key).collect();
                assert!(left.is_subset(&there), "revision {revision} made keys appear");
                let gone = there.difference(&left).map(|key| Bytes::from(key.clone()));
                changes.extend(gone.map(|key| Change { revision, key, value: None, lease: 0 }));
                there = left;
            }
        }
        from = upto + 1;
    }
    changes
}

/// Every acknowledged put is readable at its revision, from this member's own state.
fn check_member(client: &mut Client, last: Revision, ops: &[Op]) {
    let acknowledged: Vec<(&Put, Revision)> = ops
        .iter()
        .filter_map(|op| match &op.request {
            Request::Put(put) => acknowledged_revision(op).map(|revision| (put, revision)),
            _ => None,
        })
        .collect();
    for chunk in acknowledged.chunks(PIPELINE as usize) {
        let ask = |(put, at): &(&Put, Revision)| {
            words(&format!("GET {} REV {at} SERIALIZABLE", put.key.escape_ascii()))
        };
        let commands: Vec<_> = chunk.iter().map(ask).collect();
        let replies = client.pipeline(&commands).unwrap();
        for ((put, at), reply) in chunk.iter().zip(&replies) {
            assert_eq!(reply.bulk(), put.value, "{put:?} at revision {at}");
        }
    }
    let range = RangeReply::parse(&client.call(&words("RANGE '' PREFIX")).unwrap());
    assert_eq!(range.revision, last, "somebody wrote after the end");
}
