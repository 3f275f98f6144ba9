//! Whoever goes leaves nothing behind: no watch, no bytes, and no work.

use super::Why;
use super::feed::Budget;
use super::tests::{World, prefix};
use crate::api::Span;

#[test]
fn a_held_connection_may_go_or_cancel() {
    let mut world = World::new();
    for tag in 1..=3 {
        world.watch(1, tag, &prefix(""));
    }
    world.watches.hold(1, Why::Untaken);
    world.put("a", "1");
    world.settle();
    world.watches.cancel(1, 1);
    world.watches.release(1, Why::Untaken);
    world.settle();
    assert_eq!((world.sent(1, 1).len(), world.sent(1, 2).len()), (0, 1));
    world.watches.hold(1, Why::Untaken);
    world.put("a", "2");
    world.settle();
    world.watches.forget(1);
    world.settle();
    assert!(world.watches.is_empty() && world.watches.held.is_empty() && world.watches.conns.is_empty());
    assert_eq!(world.watches.bytes, 0);
}

/// The last watcher goes in the middle of a revision: what is left of that must not ask for turns that nobody would get.
#[test]
fn who_goes_in_the_middle_of_a_revision_leaves_no_work() {
    let mut world = World::new();
    world.watches.turn = Budget { work: 100, bytes: 1 << 20 };
    for number in 0..1_000 {
        world.put(&format!("k{number:04}"), "v");
    }
    world.watch(1, 1, &prefix("k"));
    world.delete(Span::Prefix("k".into()));
    world.turn();
    assert!(world.watches.gathering.is_some(), "it takes more than one turn");
    world.watches.forget(1);
    assert!(!world.watches.is_empty() || !world.watches.has_work(world.store.revision()));
    world.settle();
    assert!(world.watches.is_empty() && world.sent(1, 1).is_empty());
}
