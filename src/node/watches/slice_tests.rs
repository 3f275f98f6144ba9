//! How much a turn tells, and to whom first.

use super::feed::{QUIET_TURNS, TELL_WORK, WATCH_WORK};
use super::tests::{World, prefix};
use crate::api::ConnId;

/// The connection's lane 0.
fn connection(number: u64) -> ConnId {
    number << 16
}

/// Who is told in one turn, in that order.
fn turn(world: &mut World) -> Vec<ConnId> {
    let mut told = Vec::new();
    let World { store, watches, now, .. } = world;
    watches.feed(store, *now, &mut |conn, _, _, _| told.push(conn)).unwrap();
    now.0 += 1;
    told
}

#[test]
fn who_asks_is_not_kept_waiting_by_a_thousand_that_are_told() {
    let mut world = World::new();
    for tag in 0..1_000 {
        world.watch(connection(1), tag, &prefix(""));
    }
    world.put("a", "1");
    let mut told = 0;
    while told < 1_000 {
        world.watches.end_quiet();
        let now = turn(&mut world).len();
        assert!((1..=WATCH_WORK / TELL_WORK).contains(&now), "{now} in one turn");
        told += now;
    }
}

#[test]
fn where_nobody_asks_more_is_told_at_a_time() {
    let mut world = World::new();
    for tag in 0..1_000 {
        world.watch(connection(1), tag, &prefix(""));
    }
    for _ in 0..QUIET_TURNS {
        assert!(turn(&mut world).is_empty());
    }
    world.put("a", "1");
    assert_eq!(turn(&mut world).len(), 1_000);
}

#[test]
fn watchers_keep_up_with_writers_that_come_by_the_hundred() {
    let mut world = World::new();
    for number in 0..10 {
        world.watch(connection(number), 1, &prefix(""));
    }
    for round in 0..10 {
        for number in 0..100 {
            world.put(&format!("k{number}"), "v");
        }
        world.watches.end_quiet();
        assert_eq!(turn(&mut world).len(), 1_000, "round {round}");
    }
}

/// However they came to be: each connection has one write then.
#[test]
fn watches_of_one_connection_are_told_together() {
    let mut world = World::new();
    for tag in 0..10 {
        for number in 1..=3 {
            world.watch(connection(number) + tag, tag, &prefix(""));
        }
    }
    world.put("a", "1");
    let mut connections: Vec<u64> = turn(&mut world).iter().map(|conn| conn >> 16).collect();
    assert_eq!(connections.len(), 30);
    connections.dedup();
    assert_eq!(connections, [1, 2, 3]);
}
