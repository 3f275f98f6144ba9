//! Three members under load, killed with SIGKILL at random moments, also all at once; or frozen with SIGSTOP and
//! thawed later, when their clocks have run on and requests have piled up. Whatever a client was told must be
//! true of every member at the end, and no answer may be older than what was acknowledged before the question.
//!
//! `KILLS=1000 cargo test --test tests kill` for a longer run (`FREEZES` likewise), `SEED=n` for another plan.
//! The plan is seeded; what processes make of it is not, so a failure may need more than one run to be seen again.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pawl::base::Rng;
use rustix::process::Signal;

use crate::harness::{Cluster, PATIENCE, Setup, pause, say, until};
use crate::history::{Act, Change, History, Key, Op, Outcome, Revision, Value, check};
use crate::resp::{Client, RangeReply, Reply, unsigned};

const CLIENTS: u64 = 6;
const KEYS: u64 = 24;

/// A request that has no answer after this is given up: its outcome is unknown.
const REQUEST_PATIENCE: Duration = Duration::from_secs(3);

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_acknowledged_is_lost_to_kill_9() {
    let kills = from_env("KILLS", 100);
    under_load("kill -9", |cluster, load, rng| {
        while load.harms() < kills {
            kill_once(cluster, load, rng);
        }
    });
}

#[test]
fn a_frozen_member_serves_nothing_stale() {
    let freezes = from_env("FREEZES", 15);
    under_load("SIGSTOP", |cluster, load, rng| {
        while load.harms() < freezes {
            freeze_once(cluster, load, rng);
        }
    });
}

/// Clients work while `harm` does what it does; then everything that they saw is checked.
fn under_load(what: &str, harm: impl FnOnce(&mut Cluster, &Load, &mut Rng)) {
    let seed = from_env("SEED", 1);
    // Small segments and a short log, so that rolling and releasing happen under the harm too.
    let setup = Setup::default().flag("snapshot-count", 2_000).flag("snapshot-catchup-entries", 1_000);
    let mut cluster = Cluster::start(&setup);
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
        let guard = StopOnDrop(&load);
        harm(&mut cluster, &load, &mut Rng::new(seed));
        // What the last harm left is part of the test.
        load.wait_for_progress(100);
        drop(guard);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let under_load = began.elapsed();

    let acknowledged = ops.iter().filter_map(|op| match op.outcome {
        Outcome::Put(revision) | Outcome::Deleted(_, revision) => Some(revision),
        _ => None,
    });
    let last = cluster.agree(acknowledged.max().expect("some writes succeeded"));
    let history = read_history(&mut cluster.members[0].client(), last);
    if let Err(violation) = check(&history, &ops) {
        panic!("{what}, seed {seed}: {violation}");
    }
    for member in &cluster.members {
        check_member(&mut member.client(), last, &ops);
    }
    cluster.stop_all();
    cluster.check_stopped();
    let count = |wanted: fn(&Outcome) -> bool| ops.iter().filter(|op| wanted(&op.outcome)).count();
    say(&format!(
        "{what}: {} times in {:.0} s, {} writes and {} reads acknowledged, {} unknown, {} refused, revision {last}; \
         checked in {:.0} s (seed {seed})",
        load.harms(),
        under_load.as_secs_f64(),
        count(|outcome| matches!(outcome, Outcome::Put(_) | Outcome::Deleted(..))),
        count(|outcome| matches!(outcome, Outcome::Got(_) | Outcome::Ranged(..))),
        count(|outcome| matches!(outcome, Outcome::Unknown)),
        count(|outcome| matches!(outcome, Outcome::Refused)),
        (began.elapsed() - under_load).as_secs_f64(),
    ));
}

/// What those who harm and the clients share.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    acknowledged: AtomicU64,
    harms: AtomicU64,
}

impl Load {
    fn harms(&self) -> u64 {
        self.harms.load(Ordering::Relaxed)
    }

    /// Waits until so many writes more are acknowledged.
    fn wait_for_progress(&self, writes: u64) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        until("writes to be acknowledged again", PATIENCE, || {
            (self.acknowledged.load(Ordering::Relaxed) > before + writes).then_some(())
        });
    }
}

/// Ends the clients also when the harm panics, or the scope would wait for them for ever.
struct StopOnDrop<'a>(&'a Load);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Mostly one victim, sometimes two or all three, sometimes again while it is starting.
fn kill_once(cluster: &mut Cluster, load: &Load, rng: &mut Rng) {
    pause(rng.below(250));
    let victims = match rng.below(10) {
        0..6 => vec![rng.below(3) as usize],
        6..8 => {
            let spared = rng.below(3) as usize;
            (0..3).filter(|&at| at != spared).collect()
        }
        _ => vec![0, 1, 2],
    };
    for &at in &victims {
        cluster.members[at].kill();
    }
    load.harms.fetch_add(victims.len() as u64, Ordering::Relaxed);
    pause(rng.below(150));
    for &at in &victims {
        cluster.members[at].start();
    }
    // Not always: a member that is starting, or a cluster without a leader, is killed too.
    if rng.below(10) < 7 {
        load.wait_for_progress(20);
    }
}

/// The leader or any member stands still, shorter or longer than an election takes. While it does, the others
/// write on; when it goes on, it finds requests that were sent to it while it still believed to lead.
fn freeze_once(cluster: &mut Cluster, load: &Load, rng: &mut Rng) {
    pause(rng.below(250));
    let victim = if rng.one_in(3) { rng.below(3) as usize } else { cluster.leader() };
    cluster.members[victim].signal(Signal::STOP);
    load.harms.fetch_add(1, Ordering::Relaxed);
    pause(rng.between(50, 1_500));
    cluster.members[victim].signal(Signal::CONT);
    load.wait_for_progress(20);
}

/// One client: one request at a time, to whichever member it is connected to.
fn client(number: u64, seed: u64, began: Instant, ports: &[u16], load: &Load) -> Vec<Op> {
    let mut rng = Rng::new(seed.wrapping_mul(1_000).wrapping_add(number));
    let mut ops = Vec::new();
    let mut connection: Option<Client> = None;
    let mut serial = 0;
    while !load.over.load(Ordering::Relaxed) {
        if connection.is_none() || rng.one_in(200) {
            let port = ports[rng.below(ports.len() as u64) as usize];
            connection = Client::connect(port, REQUEST_PATIENCE).ok();
        }
        let Some(client) = &mut connection else {
            pause(5);
            continue;
        };
        serial += 1;
        let act = choose(&mut rng, number * 1_000_000_000 + serial);
        let start = nanos(began);
        let outcome = perform(client, &act);
        let end = nanos(began);
        match &outcome {
            Outcome::Put(_) | Outcome::Deleted(..) => {
                load.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Unknown | Outcome::Refused => connection = None,
            _ => {}
        }
        ops.push(Op { start, end, act, outcome });
        // A history of some ten thousand operations is what there is time to check.
        pause(2);
    }
    ops
}

fn nanos(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).expect("a test does not last for centuries")
}

fn choose(rng: &mut Rng, value: Value) -> Act {
    let key = rng.below(KEYS) as Key;
    match rng.below(10) {
        0..5 => Act::Put(key, value),
        5..6 => Act::Delete(key),
        6..9 => Act::Get(key),
        _ => Act::Range,
    }
}

fn key_bytes(key: Key) -> Vec<u8> {
    format!("key-{key:02}").into_bytes()
}

fn key_of(bytes: &[u8]) -> Key {
    let text = std::str::from_utf8(bytes).expect("our keys are text");
    text.strip_prefix("key-").and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("key {text:?}"))
}

/// The number, then padding of a length that follows from it: from a few bytes to two pages.
fn value_bytes(value: Value) -> Vec<u8> {
    let padding = if value.is_multiple_of(37) { 9_000 } else { value * 7 % 200 };
    let mut bytes = format!("{value}:").into_bytes();
    bytes.extend((0..padding).map(|at| b'a' + (at % 26) as u8));
    bytes
}

fn value_of(bytes: &[u8]) -> Value {
    let digits = bytes.split(|&byte| byte == b':').next().expect("split yields at least one part");
    let value = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
    let value =
        value.unwrap_or_else(|| panic!("a value that nobody wrote: {:?}", String::from_utf8_lossy(bytes)));
    assert_eq!(bytes, value_bytes(value), "the value is not whole");
    value
}

/// One request and what came of it. Anything but an answer or a lost connection fails the test.
fn perform(client: &mut Client, act: &Act) -> Outcome {
    let words: Vec<Vec<u8>> = match act {
        Act::Put(key, value) => vec![b"PUT".into(), key_bytes(*key), value_bytes(*value)],
        Act::Delete(key) => vec![b"DEL".into(), key_bytes(*key), b"PREV".into()],
        Act::Get(key) => vec![b"GET".into(), key_bytes(*key)],
        Act::Range => vec![b"RANGE".into(), b"".into(), b"PREFIX".into()],
    };
    let reply = match client.call(&words) {
        Ok(reply) => reply,
        Err(error) if is_lost(&error) => return Outcome::Unknown,
        Err(error) => panic!("{act:?}: {error}"),
    };
    match reply.code() {
        Some("NOLEADER" | "BUSY" | "LOADING") => return Outcome::Refused,
        Some("TIMEOUT" | "SHUTDOWN") => return Outcome::Unknown,
        Some(_) => panic!("{act:?}: {reply:?}"),
        None => {}
    }
    match act {
        Act::Put(..) => Outcome::Put(unsigned(&reply)),
        Act::Delete(_) => {
            let deleted = unsigned(reply.field("deleted"));
            assert!(deleted <= 1, "one key was deleted {deleted} times");
            Outcome::Deleted(deleted == 1, unsigned(reply.field("revision")))
        }
        Act::Get(_) => Outcome::Got((reply != Reply::Null).then(|| value_of(reply.bulk()))),
        Act::Range => {
            let range = RangeReply::parse(&reply);
            assert_eq!(range.count, range.kvs.len() as u64, "nothing limits this range");
            let kvs =
                range.kvs.iter().map(|kv| (key_of(&kv.key), value_of(&kv.value), kv.modified)).collect();
            Outcome::Ranged(range.revision, kvs)
        }
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

/// Asks one member for every revision: what was put at it, or else which key was gone.
fn read_history(client: &mut Client, last: Revision) -> History {
    let mut changes = Vec::new();
    let mut there = std::collections::BTreeSet::new();
    let mut from = 2;
    while from <= last {
        let upto = last.min(from + PIPELINE - 1);
        let ask = |at| words(&format!("RANGE '' PREFIX REV {at} MINMOD {at} MAXMOD {at} SERIALIZABLE"));
        let commands: Vec<_> = (from..=upto).map(ask).collect();
        let replies = client.pipeline(&commands).unwrap();
        for (at, reply) in (from..=upto).zip(&replies) {
            let range = RangeReply::parse(reply);
            match &range.kvs[..] {
                [kv] => {
                    there.insert(key_of(&kv.key));
                    changes.push(Change::Put(key_of(&kv.key), value_of(&kv.value)));
                }
                [] => {
                    let gone =
                        client.call(&words(&format!("RANGE '' PREFIX REV {at} KEYS SERIALIZABLE"))).unwrap();
                    let left: std::collections::BTreeSet<Key> =
                        RangeReply::parse(&gone).kvs.iter().map(|kv| key_of(&kv.key)).collect();
                    let missing: Vec<Key> = there.difference(&left).copied().collect();
                    assert_eq!(missing.len(), 1, "revision {at} put nothing and deleted {missing:?}");
                    assert!(left.is_subset(&there), "revision {at} made keys appear");
                    there = left;
                    changes.push(Change::Delete(missing[0]));
                }
                more => panic!("revision {at} put {} keys", more.len()),
            }
        }
        from = upto + 1;
    }
    History::new(changes).unwrap_or_else(|violation| panic!("{violation}"))
}

/// Every acknowledged put is readable at its revision, from this member's own state.
fn check_member(client: &mut Client, last: Revision, ops: &[Op]) {
    let acknowledged: Vec<(Key, Value, Revision)> = ops
        .iter()
        .filter_map(|op| match (&op.act, &op.outcome) {
            (Act::Put(key, value), Outcome::Put(revision)) => Some((*key, *value, *revision)),
            _ => None,
        })
        .collect();
    for chunk in acknowledged.chunks(PIPELINE as usize) {
        let ask =
            |(key, _, at): &(Key, Value, Revision)| words(&format!("GET key-{key:02} REV {at} SERIALIZABLE"));
        let commands: Vec<_> = chunk.iter().map(ask).collect();
        let replies = client.pipeline(&commands).unwrap();
        for ((key, value, at), reply) in chunk.iter().zip(&replies) {
            assert_eq!(reply.bulk(), value_bytes(*value), "key {key} at revision {at}");
        }
    }
    let range = RangeReply::parse(&client.call(&words("RANGE '' PREFIX")).unwrap());
    assert_eq!(range.revision, last, "somebody wrote after the end");
}
