//! A client that asks for more than it takes.

use pawl::api::{Body, Call, KeyValue, Lane, RangeHead, RangePart, RangeResult};
use pawl::proto::Adapter;
use pawl::proto::etcd::messages::{LockRequest, LockResponse, RangeResponse};
use pawl::proto::grpc::Settings;

use super::wire::Wire;
use super::{WATCH, create, event, get, kv};

/// An answer of 200 KB; of that the connection is given a little, and the rest waits.
fn large() -> Body {
    let found = KeyValue { key: "k".into(), value: vec![7; 200_000].into(), ..KeyValue::default() };
    Body::Range(RangeResult { revision: 1, count: 1, more: false, kvs: vec![found] })
}

/// A range that is asked for, and its answer not read. Also the tag of what it asks.
fn ask(wire: &mut Wire) -> (usize, u64) {
    let call = wire.open(&kv("Range"), &[]);
    wire.read(call, false);
    wire.send(call, &get("k"));
    wire.end(call);
    (call, wire.last_request().0)
}

/// A connection that is full by two answers, and their calls.
fn full() -> (Wire, Vec<usize>) {
    let mut wire = Wire::with(Settings { kept_bytes_max: 100_000, ..Settings::default() }, 10_000);
    wire.is_silent = true;
    let asked: Vec<(usize, u64)> = (0..2).map(|_| ask(&mut wire)).collect();
    for &(_, tag) in &asked {
        wire.tell(tag, 1, large(), false);
    }
    (wire, asked.into_iter().map(|(call, _)| call).collect())
}

fn held(calls: &[Call]) -> Vec<Lane> {
    calls.iter().filter_map(|call| if let Call::Hold { lane } = call { Some(*lane) } else { None }).collect()
}

fn released(calls: &[Call]) -> Vec<Lane> {
    calls
        .iter()
        .filter_map(|call| if let Call::Release { lane } = call { Some(*lane) } else { None })
        .collect()
}

#[test]
fn who_takes_none_of_its_answers_waits_with_what_it_was_told_nothing_of() {
    let settings = Settings { kept_bytes_max: 400_000, ..Settings::default() };
    let mut wire = Wire::with(settings, 10_000);
    wire.is_silent = true;
    let asked: Vec<(usize, u64)> = (0..5).map(|_| ask(&mut wire)).collect();
    let lane_of = |wire: &Wire, which: usize| wire.adapter.lane_of(asked[which].1);
    let lock = wire.open("/v3lockpb.Lock/Lock", &[]);
    wire.send(lock, &LockRequest { name: "l".into(), lease: 7 });
    assert_eq!(wire.adapter.owed(), 5);
    for &(_, tag) in &asked[..2] {
        wire.tell(tag, 1, large(), false);
    }
    // Half of an answer: its other half must come, or it could never be read.
    let head = RangeHead { revision: 1, count: 1, more: false, kvs: 1 };
    let (_, half) = asked[3];
    wire.tell(half, 1, Body::RangePart(RangePart { head: Some(head), kvs: Vec::new(), last: false }), true);
    assert!(held(&wire.calls).is_empty());
    wire.tell(asked[2].1, 1, large(), false);
    assert_eq!(held(&wire.calls), [lane_of(&wire, 4)]);
    assert_eq!(wire.adapter.owed(), 1);

    // What comes later is held before it is asked for.
    let (late, late_tag) = ask(&mut wire);
    let late_lane = wire.adapter.lane_of(late_tag);
    let [.., Call::Hold { lane }, Call::Request { .. }] = wire.calls[..] else { panic!("{:?}", wire.calls) };
    assert_eq!((lane, wire.adapter.owed()), (late_lane, 1));
    wire.tell(half, 1, Body::RangePart(RangePart { head: None, kvs: Vec::new(), last: true }), false);
    assert_eq!(wire.adapter.owed(), 0);

    // It goes on when half of it is taken, and not before.
    wire.read(asked[0].0, true);
    assert!(released(&wire.calls).is_empty());
    wire.read(asked[1].0, true);
    assert_eq!(released(&wire.calls), [lane_of(&wire, 4), late_lane]);
    assert_eq!(wire.adapter.owed(), 2);
    for (call, tag) in [asked[4], (late, late_tag)] {
        wire.read(call, true);
        wire.tell(tag, 1, large(), false);
        assert_eq!(wire.messages::<RangeResponse>(call)[0].kvs[0].value.len(), 200_000);
    }
    assert_eq!(wire.adapter.owed(), 0);
}

/// Watches of one connection that is not read, each told of a write until it is held: how many writes that takes.
fn writes_until_held(watches: usize) -> u64 {
    let settings = Settings { events_bytes_max: 200_000, ..Settings::default() };
    let mut wire = Wire::with(settings, 10_000);
    wire.is_silent = true;
    let tags: Vec<u64> = (0..watches)
        .map(|_| {
            let watch = wire.open(WATCH, &[]);
            wire.read(watch, false);
            wire.send(watch, &create(b"k", 0));
            wire.last_request().0
        })
        .collect();
    let mut revision = 1;
    while held(&wire.calls).len() < watches {
        revision += 1;
        assert!(revision < 1_000, "they are held before there is much");
        for tag in &tags {
            let events = vec![event("k".into(), 1_000, revision)];
            wire.tell(*tag, revision, Body::Events { revision, events }, true);
        }
    }
    revision
}

#[test]
fn many_watches_that_are_not_read_are_held_sooner_than_one() {
    let alone = writes_until_held(1);
    assert!((60..90).contains(&alone), "64 KiB, and a window of 10,000 bytes: {alone} writes of 1,000");
    let share = writes_until_held(10);
    assert!((18..35).contains(&share), "a tenth of 200,000 bytes, and the window: {share}");
    let least = writes_until_held(200);
    assert!((4..18).contains(&least), "4 KiB, and the window: {least}");
}

/// The node hears of it at once; the memory of what was not read is given back a little at a time.
#[test]
fn a_connection_of_many_streams_leaves_in_pieces() {
    let mut wire = Wire::new();
    for _ in 0..100 {
        let watch = wire.open(WATCH, &[]);
        wire.send(watch, &create(b"k", 0));
    }
    let mut calls = Vec::new();
    assert!(!wire.adapter.leave(&mut calls));
    let left = calls.iter().filter(|call| matches!(call, Call::Leave { .. })).count();
    assert_eq!((calls.len(), left), (100, 100));
    let mut pieces = 1;
    while !wire.adapter.leave(&mut calls) {
        pieces += 1;
    }
    assert!(pieces > 1, "not all at once");
    assert_eq!(calls.len(), 100, "it is told once");
}

/// A held call that ends gives its lane back as it was.
#[test]
fn a_held_call_that_is_given_up_is_held_no_longer() {
    let (mut wire, _) = full();
    let (call, tag) = ask(&mut wire);
    let lane = wire.adapter.lane_of(tag);
    assert_eq!(held(&wire.calls), [lane]);
    wire.reset(call);
    assert!(matches!(wire.calls[..], [.., Call::Leave { lane: left }] if left == lane));
    assert_eq!(wire.adapter.owed(), 0);
    // The node forgets a hold with its lane: the next call has one of its own.
    let (_, tag) = ask(&mut wire);
    assert_eq!((wire.adapter.lane_of(tag), held(&wire.calls)), (lane, vec![lane, lane]));
}

/// It asks for a lease first, which is held as other calls are; who waits for a lock never is.
#[test]
fn a_lock_without_a_lease_on_a_full_connection_leaves_nothing_owed() {
    let (mut wire, full) = full();
    wire.is_silent = false;
    let request = LockRequest { name: "l".into(), lease: 0 };
    let _: LockResponse = wire.unary("/v3lockpb.Lock/Lock", &request).unwrap();
    let lanes = held(&wire.calls);
    assert_eq!((lanes.len(), released(&wire.calls)), (1, lanes));
    for call in full {
        wire.read(call, true);
    }
    assert_eq!(wire.adapter.owed(), 0);
}
