//! Each rule of watching by itself, then all of them at once against a list of what happened.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;

use super::feed::SHARE;
use super::*;
use crate::api::{Command, Compact, Delete, EventKind, KeyValue, Member, Put, Span};
use crate::base::EntryId;
use crate::base::time::SECOND;
use crate::io::Disk;
use crate::io::sim::SimDisk;
use crate::store::{Identity, Options, Store};

const INTERVAL: Nanos = 10 * SECOND;

/// One event as it is easy to write down.
pub(super) type Told = (EventKind, Bytes, Option<Bytes>, Option<Bytes>);

/// What was sent under one tag.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sent {
    Events(Revision, Vec<Told>),
    Progress(Revision),
    Unwatched(Code, Revision),
    /// And its value.
    Leads(Revision, Bytes, Bytes),
}

pub(super) struct World {
    pub(super) store: Store<SimDisk>,
    pub(super) watches: Watches,
    pub(super) now: Mono,
    /// What is there, and what each revision did, from revision 2 on.
    pub(super) keys: BTreeMap<Bytes, KeyValue>,
    pub(super) history: Vec<Vec<(EventKind, KeyValue, Option<KeyValue>)>>,
    sent: BTreeMap<(ConnId, Tag), Vec<Sent>>,
}

impl World {
    pub(super) fn new() -> World {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("d")).unwrap();
        let options = Options { page_bytes: 512, file_id: 1 };
        let identity = Identity { cluster: 1, member: 1 };
        let members = [Member { id: 1, ..Member::default() }];
        let store = Store::create(&disk, Path::new("d/tree"), identity, &members, options).unwrap();
        World {
            store,
            watches: Watches::new(INTERVAL, WATCH_WORK),
            now: Mono(1),
            keys: BTreeMap::new(),
            history: Vec::new(),
            sent: BTreeMap::new(),
        }
    }

    fn apply(&mut self, command: &Command) {
        let next = EntryId::new(1, self.store.applied().index + 1);
        self.store.apply(next, Some(command)).unwrap();
    }

    pub(super) fn put(&mut self, key: &str, value: &str) {
        let (key, value) = (Bytes::from(key.to_string()), Bytes::from(value.to_string()));
        self.apply(&Command::Put(Put { key: key.clone(), value: value.clone(), ..Put::default() }));
        let before = self.keys.get(&key).cloned();
        let revision = self.store.revision();
        let kv = KeyValue {
            key: key.clone(),
            value,
            create_revision: before.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: before.as_ref().map_or(0, |kv| kv.version) + 1,
            lease: 0,
        };
        self.keys.insert(key, kv.clone());
        self.history.push(vec![(EventKind::Put, kv, before)]);
    }

    pub(super) fn delete(&mut self, span: Span) {
        let target = Target::of(&span);
        let holds = |key: &Bytes| target.position_of(key).is_eq();
        self.apply(&Command::Delete(Delete { span, prev_kv: false }));
        let gone: Vec<KeyValue> = self.keys.values().filter(|kv| holds(&kv.key)).cloned().collect();
        if gone.is_empty() {
            return;
        }
        let (mod_revision, mut events) = (self.store.revision(), Vec::new());
        for kv in gone {
            self.keys.remove(&kv.key);
            let tombstone = KeyValue { key: kv.key.clone(), mod_revision, ..KeyValue::default() };
            events.push((EventKind::Delete, tombstone, Some(kv)));
        }
        self.history.push(events);
    }

    /// Ends the history, and sweeps all that has become garbage.
    pub(super) fn compact(&mut self, revision: Revision) {
        self.apply(&Command::Compact(Compact { revision, physical: false }));
        while self.store.sweep_due() {
            self.store.sweep(64).unwrap();
        }
    }

    pub(super) fn watch(&mut self, conn: ConnId, tag: Tag, watch: &Watch) {
        self.watches.add(conn, tag, watch, self.store.revision(), self.now).unwrap();
    }

    /// One turn.
    pub(super) fn turn(&mut self) {
        let World { store, watches, sent, now, .. } = self;
        let told = |event: &crate::api::Event| {
            let value = |kv: &KeyValue| kv.value.clone();
            let now = (event.kind == EventKind::Put).then(|| value(&event.kv));
            (event.kind, event.kv.key.clone(), now, event.previous.as_ref().map(value))
        };
        let mut out = |conn, tag, body: Body, _: bool| {
            let said = match body {
                Body::Events { revision, events } => {
                    assert!(events.iter().all(|event| event.kv.mod_revision == revision));
                    Sent::Events(revision, events.iter().map(|event| told(event)).collect())
                }
                Body::Progress { revision } => Sent::Progress(revision),
                Body::Unwatched { fault, compacted } => Sent::Unwatched(fault.code, compacted),
                Body::Leads { revision, leader } => Sent::Leads(revision, leader.key, leader.value),
                other => panic!("watches do not say {other:?}"),
            };
            sent.entry((conn, tag)).or_default().push(said);
        };
        watches.feed(store, *now, &mut out).unwrap();
        watches.check();
    }

    /// Turns until there is nothing left to do.
    pub(super) fn settle(&mut self) {
        let mut turns = 0;
        while turns == 0 || self.watches.has_work(self.store.revision()) {
            assert!(turns == 0 || !self.watches.is_empty(), "there is work, and no turn would do it");
            self.turn();
            turns += 1;
            assert!(turns < 20_000, "it never ends");
        }
    }

    pub(super) fn sent(&mut self, conn: ConnId, tag: Tag) -> Vec<Sent> {
        self.sent.remove(&(conn, tag)).unwrap_or_default()
    }

    /// What a watch is told of the revisions from `from` on.
    fn expected(&self, watch: &Watch, from: Revision) -> Vec<Sent> {
        let target = Target::of(&watch.span);
        let mut expected = Vec::new();
        for (revision, events) in (2..).zip(&self.history) {
            let wanted = events.iter().filter(|(kind, kv, _)| {
                let left_out = if *kind == EventKind::Put { watch.no_put } else { watch.no_delete };
                target.position_of(&kv.key).is_eq() && !left_out
            });
            let told: Vec<Told> = wanted
                .map(|(kind, kv, before)| {
                    let before = before.as_ref().filter(|_| watch.prev_kv).map(|kv| kv.value.clone());
                    (*kind, kv.key.clone(), (*kind == EventKind::Put).then(|| kv.value.clone()), before)
                })
                .collect();
            if revision >= from && !told.is_empty() {
                expected.push(Sent::Events(revision, told));
            }
        }
        expected
    }
}

impl Watches {
    /// What must hold between turns.
    fn check(&self) {
        let head = &self.groups[&HEAD];
        let mut lagging: BTreeMap<ConnId, usize> = BTreeMap::new();
        for (slot, watcher) in (0..).zip(&self.watchers) {
            let Some(watcher) = watcher else { continue };
            assert_eq!(self.slots.get(&(watcher.conn, watcher.tag)), Some(&slot));
            let parked = self.held.get(&watcher.conn).is_some_and(|held| held.parked.contains(&slot));
            assert_eq!(watcher.group.is_none(), parked);
            let ahead = watcher.group == Some(HEAD) && watcher.settles_at <= head.next;
            assert_eq!(watcher.lags, !ahead, "watcher {slot}: {watcher:?}, the head is at {}", head.next);
            assert_eq!(
                self.future.contains(&(watcher.settles_at, slot)),
                watcher.group == Some(HEAD) && !ahead
            );
            *lagging.entry(watcher.conn).or_default() += usize::from(watcher.lags);
        }
        for (conn, connection) in &self.conns {
            assert_eq!(connection.watches, self.slots_of(*conn).count());
            assert_eq!(connection.lagging, lagging.get(conn).copied().unwrap_or(0));
        }
        assert_eq!(self.order.len(), self.groups.len() - 1);
        for (next, group) in &self.order {
            assert_eq!(self.groups[group].next, *next);
            assert!(*next <= head.next && !self.groups[group].index.is_empty());
        }
    }
}

pub(super) fn prefix(prefix: &'static str) -> Watch {
    Watch::new(Span::Prefix(Bytes::from_static(prefix.as_bytes())))
}

fn key(key: &'static str) -> Watch {
    Watch::new(Span::Key(Bytes::from_static(key.as_bytes())))
}

fn put(key: &'static str, value: &'static str) -> Told {
    (EventKind::Put, key.into(), Some(value.into()), None)
}

#[test]
fn from_now_on_only_what_comes_is_told() {
    let mut world = World::new();
    world.put("a", "1");
    world.watch(1, 1, &key("a"));
    world.settle();
    assert_eq!(world.sent(1, 1), []);
    world.put("a", "2");
    world.put("b", "2");
    world.settle();
    assert_eq!(world.sent(1, 1), [Sent::Events(3, vec![put("a", "2")])]);
}

#[test]
fn from_the_past_all_is_told_and_then_what_comes() {
    let mut world = World::new();
    for value in ["1", "2", "3"] {
        world.put("a", value);
    }
    world.watch(1, 1, &Watch { revision: 3, ..key("a") });
    world.put("a", "4");
    world.settle();
    world.put("a", "5");
    world.settle();
    let revisions: Vec<Sent> =
        (3..).zip(["2", "3", "4", "5"]).map(|(at, value)| Sent::Events(at, vec![put("a", value)])).collect();
    assert_eq!(world.sent(1, 1), revisions);
}

#[test]
fn a_start_in_the_future_waits() {
    let mut world = World::new();
    world.watch(1, 1, &Watch { revision: 4, progress: true, ..key("a") });
    world.watches.ask_progress(1, 9);
    for value in ["1", "2"] {
        world.put("a", value);
        world.settle();
        world.now = world.now + 2 * INTERVAL;
        world.settle();
    }
    assert_eq!((world.sent(1, 1), world.sent(1, 9)), (vec![], vec![]), "neither events nor progress");
    world.put("a", "3");
    world.settle();
    assert_eq!(world.sent(1, 1), [Sent::Events(4, vec![put("a", "3")])]);
    assert_eq!(world.sent(1, 9), [Sent::Progress(4)]);
    // The greatest number there is.
    world.watch(1, 2, &Watch { revision: i64::MAX as u64, ..key("a") });
    world.put("a", "4");
    world.settle();
    assert_eq!(world.sent(1, 2), []);
}

#[test]
fn spans_filters_and_what_was_there_before() {
    let mut world = World::new();
    world.put("a1", "x");
    world.watch(1, 1, &prefix("a"));
    world.watch(1, 2, &Watch { prev_kv: true, ..prefix("") });
    world.watch(1, 3, &Watch { no_put: true, ..prefix("a") });
    world.watch(1, 4, &Watch { no_delete: true, prev_kv: true, ..key("a1") });
    world.watch(1, 5, &Watch::new(Span::Between("a2".into(), "b".into())));
    world.watch(1, 6, &Watch::new(Span::From("a1".into())));
    world.put("a1", "y");
    world.put("a2", "z");
    world.put("b", "w");
    world.delete(Span::Prefix("a".into()));
    world.settle();
    let gone = |key: &str, before: Option<&'static str>| {
        (EventKind::Delete, Bytes::from(key.to_string()), None, before.map(Bytes::from))
    };
    let one = |revision, told| Sent::Events(revision, vec![told]);
    let both = Sent::Events(6, vec![gone("a1", None), gone("a2", None)]);
    assert_eq!(world.sent(1, 1), [one(3, put("a1", "y")), one(4, put("a2", "z")), both.clone()]);
    let replaced = (EventKind::Put, "a1".into(), Some("y".into()), Some("x".into()));
    let all_gone = Sent::Events(6, vec![gone("a1", Some("y")), gone("a2", Some("z"))]);
    let everything = [one(3, replaced.clone()), one(4, put("a2", "z")), one(5, put("b", "w")), all_gone];
    assert_eq!(world.sent(1, 2), everything);
    assert_eq!(world.sent(1, 3), std::slice::from_ref(&both));
    assert_eq!(world.sent(1, 4), [one(3, replaced)]);
    assert_eq!(world.sent(1, 5), [one(4, put("a2", "z")), one(6, gone("a2", None))]);
    assert_eq!(
        world.sent(1, 6),
        [one(3, put("a1", "y")), one(4, put("a2", "z")), one(5, put("b", "w")), both]
    );
}

#[test]
fn a_key_that_was_deleted_was_not_there_before() {
    let mut world = World::new();
    world.put("a", "1");
    world.delete(Span::Key("a".into()));
    world.put("a", "2");
    world.watch(1, 1, &Watch { revision: 2, prev_kv: true, ..key("a") });
    world.settle();
    let deleted = (EventKind::Delete, "a".into(), None, Some("1".into()));
    let sent = [(2, put("a", "1")), (3, deleted), (4, put("a", "2"))];
    assert_eq!(world.sent(1, 1), sent.map(|(revision, told)| Sent::Events(revision, vec![told])));
}

#[test]
fn an_event_is_one_value_for_all_who_get_it() {
    let mut world = World::new();
    for tag in 0..100 {
        world.watch(tag, tag, &Watch { prev_kv: tag >= 98, ..key("a") });
    }
    world.put("a", "1");
    world.put("a", "2");
    let mut events = Vec::new();
    let mut out = |_, _, body, _| match body {
        Body::Events { events: mut all, .. } => events.append(&mut all),
        other => panic!("{other:?}"),
    };
    while world.watches.has_work(world.store.revision()) {
        world.watches.feed(&world.store, Mono(1), &mut out).unwrap();
    }
    assert_eq!(events.len(), 200);
    assert!(events[..100].iter().all(|event| std::sync::Arc::ptr_eq(event, &events[0])));
    assert!(events[100..198].iter().all(|event| std::sync::Arc::ptr_eq(event, &events[100])));
    assert!(std::sync::Arc::ptr_eq(&events[198], &events[199]));
    assert!(events[100].previous.is_none() && events[199].previous.is_some());
}

#[test]
fn a_revision_of_many_changes_comes_in_one_piece_over_many_turns() {
    let mut world = World::new();
    world.watches.turn = Budget { work: 100, bytes: 1 << 20 };
    for number in 0..1_000 {
        world.put(&format!("k{number:04}"), "v");
    }
    world.watch(1, 1, &prefix("k"));
    world.watch(1, 2, &key("k0999"));
    world.delete(Span::Prefix("k".into()));
    world.turn();
    assert!(world.watches.gathering.is_some(), "it takes more than one turn");
    // Who comes now is not told half of it.
    world.watch(1, 3, &prefix("k"));
    world.watch(1, 4, &Watch { revision: 1_002, ..prefix("k") });
    world.put("k0000", "w");
    world.settle();
    let all = world.expected(&prefix("k"), 1_002);
    assert_eq!(all.len(), 2);
    assert_eq!(world.sent(1, 1), all);
    assert_eq!(world.sent(1, 2).len(), 1);
    assert_eq!(world.sent(1, 3), all[1..]);
    assert_eq!(world.sent(1, 4), all);
}

/// It comes to the head with the last revision there is, whose changes are more than are looked at in one go.
#[test]
fn who_catches_up_with_a_revision_of_many_changes_is_told_of_its_last_ones() {
    let mut world = World::new();
    for number in 0..600 {
        world.put(&format!("k{number:03}"), "v");
    }
    world.delete(Span::Prefix("k".into()));
    let revision = world.store.revision();
    world.settle();
    let watch = Watch { revision, ..prefix("k59") };
    world.watch(1, 1, &watch);
    world.settle();
    assert_eq!(world.watches.groups.len(), 1, "it is with the head");
    world.put("k599", "w");
    world.settle();
    let all = world.expected(&watch, revision);
    assert_eq!(all.len(), 2);
    assert_eq!(world.sent(1, 1), all);
}

#[test]
fn one_event_for_many_watchers_is_told_over_many_turns() {
    let mut world = World::new();
    world.watches.turn = Budget { work: 300, bytes: 1 << 20 };
    for tag in 0..1_000 {
        world.watch(tag % 7, tag, &key("a"));
    }
    world.put("a", "1");
    world.turn();
    let told_first = world.sent.len();
    assert!(0 < told_first && told_first < 100, "{told_first} were told in the first turn");
    // Of those who are still to be told some go, and others come in their places.
    for tag in 900..1_000 {
        world.watches.cancel(tag % 7, tag);
        world.watch(8, tag, &key("a"));
    }
    world.watches.forget(3);
    world.put("a", "2");
    world.settle();
    let (first, second) = (Sent::Events(2, vec![put("a", "1")]), Sent::Events(3, vec![put("a", "2")]));
    for tag in (0..900).filter(|tag| tag % 7 != 3) {
        assert_eq!(world.sent(tag % 7, tag), [first.clone(), second.clone()]);
    }
    for tag in 900..1_000 {
        assert_eq!(world.sent(8, tag), std::slice::from_ref(&second));
    }
}

#[test]
fn who_takes_nothing_is_sent_nothing_and_loses_nothing() {
    let mut world = World::new();
    world.watch(1, 1, &prefix(""));
    world.watch(1, 2, &key("other"));
    world.watch(2, 1, &prefix(""));
    world.watches.hold(1, Why::Untaken);
    world.put("a", "1");
    world.settle();
    world.put("a", "2");
    world.settle();
    assert_eq!(world.sent(2, 1), world.expected(&prefix(""), 2), "nobody else is held up");
    assert_eq!(world.sent(1, 1), []);
    assert!(!world.watches.has_work(world.store.revision()), "and no turn looks at who is held");
    assert!(world.watches.release(1, Why::Untaken));
    world.settle();
    assert_eq!(world.sent(1, 1), world.expected(&prefix(""), 2));
    assert_eq!(world.watches.groups.len(), 1, "it is with the others again");
    world.watches.hold(2, Why::Untaken);
    assert!(!world.watches.release(2, Why::Untaken), "nothing happened meanwhile");
}

#[test]
fn groups_that_meet_go_on_together() {
    let mut world = World::new();
    world.watches.turn = Budget { work: 40, bytes: 1 << 20 };
    for number in 0..200 {
        world.put(if number % 3 == 0 { "a" } else { "b" }, &number.to_string());
    }
    let starts = [2, 2, 50, 51, 52, 120, 150, 201, 202];
    for (tag, revision) in (0..).zip(starts) {
        world.watch(tag, tag, &Watch { revision, ..key("a") });
    }
    assert_eq!(world.watches.groups.len(), 1 + 7, "who stands at one revision is one group");
    world.settle();
    assert_eq!(world.watches.groups.len(), 1);
    for (tag, revision) in (0..).zip(starts) {
        assert_eq!(world.sent(tag, tag), world.expected(&key("a"), revision));
    }
}

#[test]
fn large_groups_that_meet_become_one() {
    let mut world = World::new();
    world.watches.turn = Budget { work: 40, bytes: 1 << 20 };
    for number in 0..10 {
        world.put("a", &number.to_string());
    }
    for tag in 0..300 {
        world.watch(tag, tag, &Watch { revision: 2 + tag % 3, ..key("a") });
    }
    world.settle();
    for tag in 0..300 {
        assert_eq!(world.sent(tag, tag), world.expected(&key("a"), 2 + tag % 3));
    }
}

/// One far behind does not keep those from their events that are nearer, nor the other way round.
#[test]
fn every_group_gets_its_share() {
    let mut world = World::new();
    world.watches.turn = Budget { work: 200, bytes: 1 << 20 };
    for number in 0..3_000 {
        world.put("a", &number.to_string());
    }
    world.watch(1, 1, &Watch { revision: 2, ..key("a") });
    world.watch(2, 2, &Watch { revision: 2_900, ..key("a") });
    world.watch(3, 3, &key("a"));
    for round in 0..20 {
        world.put("a", "new");
        world.turn();
        assert_eq!(world.sent(3, 3).len(), 1, "the head is told at once, in turn {round}");
    }
    assert!(world.sent(2, 2).len() >= 100);
    assert!(world.sent(1, 1).len() >= 100);
    // Where the head alone could use up every turn, the others still come on.
    for tag in 100..300 {
        world.watch(tag, tag, &key("a"));
    }
    for _ in 0..200 {
        world.put("a", "newer");
        world.turn();
    }
    assert!(world.sent(1, 1).len() >= 50);
}

#[test]
fn progress_is_told_to_the_quiet_and_never_too_early() {
    let mut world = World::new();
    world.put("a", "1");
    world.watch(1, 1, &Watch { progress: true, ..key("a") });
    world.watch(2, 1, &Watch { progress: true, ..key("b") });
    world.watch(3, 1, &key("b"));
    world.now = world.now + INTERVAL / 2;
    world.put("a", "2");
    world.settle();
    assert_eq!(world.sent(1, 1).len(), 1);
    world.now = world.now + INTERVAL / 2 + INTERVAL / 10;
    world.settle();
    assert_eq!(world.sent(1, 1), [], "it was told something meanwhile");
    assert_eq!(world.sent(2, 1), [Sent::Progress(3)]);
    assert_eq!(world.sent(3, 1), [], "it did not ask for it");
    let due = world.watches.deadline();
    assert!(due > world.now && due <= world.now + INTERVAL + INTERVAL / 10);
    // Who is held has not been told what it missed.
    world.watches.hold(1, Why::Untaken);
    world.put("a", "3");
    world.settle();
    world.now = world.now + 2 * INTERVAL;
    world.settle();
    assert_eq!(world.sent(1, 1), []);
    assert_eq!(world.sent(2, 1), [Sent::Progress(4)]);
    world.watches.release(1, Why::Untaken);
    world.settle();
    world.now = world.now + 2 * INTERVAL;
    world.settle();
    assert_eq!(world.sent(1, 1), [Sent::Events(4, vec![put("a", "3")]), Sent::Progress(4)]);
}

#[test]
fn progress_on_request_waits_for_all_watches_of_the_connection() {
    let mut world = World::new();
    world.watches.turn = Budget { work: 40, bytes: 1 << 20 };
    world.watches.ask_progress(1, 9);
    world.settle();
    assert_eq!(world.sent(1, 9), [Sent::Progress(1)], "without any watch there is nothing to wait for");
    for number in 0..100 {
        world.put("a", &number.to_string());
    }
    world.watch(1, 1, &key("a"));
    world.watch(1, 2, &Watch { revision: 2, ..key("a") });
    world.watches.ask_progress(1, 9);
    world.turn();
    assert_eq!(world.sent(1, 9), []);
    world.put("a", "x");
    world.settle();
    assert_eq!(world.sent(1, 9), [Sent::Progress(102)]);
    assert_eq!(world.sent(1, 2).last(), Some(&Sent::Events(102, vec![put("a", "x")])));
    // The one that lags goes away.
    world.watch(1, 3, &Watch { revision: 500, ..key("a") });
    world.watches.ask_progress(1, 9);
    world.settle();
    assert_eq!(world.sent(1, 9), []);
    world.watches.cancel(1, 3);
    world.settle();
    assert_eq!(world.sent(1, 9), [Sent::Progress(102)]);
}

#[test]
fn what_was_compacted_ends_the_watch() {
    let mut world = World::new();
    world.watches.turn = Budget { work: 40, bytes: 1 << 20 };
    for number in 0..10 {
        world.put("a", &number.to_string());
    }
    world.watch(1, 1, &key("a"));
    world.watch(2, 1, &key("a"));
    world.watches.hold(2, Why::Untaken);
    world.put("a", "x");
    world.settle();
    world.put("a", "y");
    world.settle();
    world.compact(13);
    for tag in 0..30 {
        world.watch(3, tag, &Watch { revision: 2 + tag % 13, ..key("a") });
    }
    world.watches.release(2, Why::Untaken);
    world.settle();
    let ended = Sent::Unwatched(Code::Compacted, 13);
    assert_eq!(world.sent(2, 1), std::slice::from_ref(&ended), "it missed 12");
    for tag in 0..30 {
        let from = 2 + tag % 13;
        let at_the_bound = vec![Sent::Events(13, vec![put("a", "y")])];
        let wanted = match from {
            13 => at_the_bound,
            14 => vec![],
            _ => vec![ended.clone()],
        };
        assert_eq!(world.sent(3, tag), wanted, "from {from}");
    }
    assert_eq!(world.sent(1, 1).len(), 2);
    world.put("a", "z");
    world.settle();
    assert_eq!((world.sent(1, 1).len(), world.sent(3, 11).len()), (1, 1), "others go on");
}

/// A revision that is told over many turns may be swept between two of them.
#[test]
fn a_revision_that_is_compacted_half_way_ends_the_watch() {
    let mut world = World::new();
    world.watches.turn = Budget { work: 100, bytes: 1 << 20 };
    for number in 0..1_000 {
        world.put(&format!("k{number:04}"), "v");
    }
    for tag in 0..3 {
        world.watch(tag, 1, &[prefix("k"), key("k0999"), key("other")][tag as usize]);
    }
    world.delete(Span::Prefix("k".into()));
    world.turn();
    assert!(world.watches.gathering.as_ref().is_some_and(|gathering| gathering.next.is_some()));
    world.watch(4, 1, &prefix("k"));
    world.put("k0000", "w");
    world.compact(1_003);
    world.settle();
    for conn in 0..3 {
        assert_eq!(world.sent(conn, 1), [Sent::Unwatched(Code::Compacted, 1_003)], "watch {conn}");
    }
    assert_eq!(world.sent(4, 1), [Sent::Events(1_003, vec![put("k0000", "w")])]);
}

#[test]
fn deletions_at_the_bound_of_a_compaction_are_told() {
    let mut world = World::new();
    world.put("a", "1");
    world.put("b", "2");
    world.delete(Span::Prefix("".into()));
    world.put("a", "3");
    world.compact(4);
    world.watch(1, 1, &Watch { revision: 4, prev_kv: true, ..prefix("") });
    world.settle();
    let gone = |key: &'static str| (EventKind::Delete, Bytes::from(key), None, None);
    let told = [Sent::Events(4, vec![gone("a"), gone("b")]), Sent::Events(5, vec![put("a", "3")])];
    assert_eq!(world.sent(1, 1), told, "without what was there before, which is swept");
}

#[test]
fn a_head_that_lags_behind_a_compaction_ends_but_for_those_who_wait() {
    let mut world = World::new();
    world.watch(1, 1, &key("a"));
    world.watch(1, 2, &Watch { revision: 9, ..key("a") });
    for number in 0..6 {
        world.put("a", &number.to_string());
    }
    world.compact(5);
    world.settle();
    assert_eq!(world.sent(1, 1), [Sent::Unwatched(Code::Compacted, 5)]);
    world.put("a", "8");
    world.put("a", "9");
    world.settle();
    assert_eq!(world.sent(1, 2), [Sent::Events(9, vec![put("a", "9")])]);
}

/// The tag of a question for progress.
const PROGRESS: Tag = Tag::MAX;

#[test]
fn a_member_that_must_not_answer_ends_all_watches() {
    let mut world = World::new();
    world.put("a", "1");
    for tag in 0..5_000 {
        world.watch(tag % 10, tag, &Watch { revision: tag % 4, progress: tag % 2 == 0, ..key("a") });
    }
    world.watches.hold(1, Why::Untaken);
    // One who asks for progress and watches nothing, and one who watches.
    for conn in [77, 3] {
        world.watches.ask_progress(conn, PROGRESS);
    }
    let (mut ended, mut asked) = (0, 0);
    let mut turns = 0;
    while !world.watches.is_empty() {
        world.watches.end_all(&Fault::corrupt(), &mut |_, tag, body, more| {
            match body {
                Body::Fault(fault) if tag == PROGRESS && fault.code == Code::Corrupt => asked += 1,
                Body::Unwatched { fault, compacted: 0 } if fault.code == Code::Corrupt => ended += 1,
                other => panic!("{tag}: {other:?}"),
            }
            assert!(!more);
        });
        turns += 1;
        assert!(turns < 5_000, "something is left");
    }
    assert_eq!((ended, asked), (5_000, 2));
    assert!(world.watches.conns.is_empty(), "{:?}", world.watches.conns);
    assert!(turns > 1, "a turn ends no more than it has time for");
    assert!(
        world.watches.due.is_empty() && world.watches.future.is_empty() && world.watches.order.is_empty()
    );
}

#[test]
fn watches_are_bounded() {
    let mut watches = Watches::new(INTERVAL, WATCH_WORK);
    let watch = key("a");
    for tag in 0..WATCHES_MAX as Tag {
        watches.add(1, tag, &watch, 1, Mono(0)).unwrap();
    }
    let refused = watches.add(1, Tag::MAX, &watch, 1, Mono(0)).unwrap_err();
    assert_eq!(refused.code, Code::Err);
    watches.cancel(1, 7);
    watches.add(1, Tag::MAX, &watch, 1, Mono(0)).unwrap();
    let long = Watch::new(Span::Key(vec![b'x'; 1 << 20].into()));
    let taken = (0..).take_while(|conn| watches.add(1_000 + conn, 0, &long, 1, Mono(0)).is_ok()).count();
    assert!((200..=256).contains(&taken), "{taken} watches of a long key were taken");
    assert_eq!(watches.add(9, 9, &long, 1, Mono(0)), Err(Fault::busy()));
}

#[test]
fn a_push_comes_after_a_range_and_after_what_is_not_taken() {
    let mut world = World::new();
    world.watch(1, 1, &key("a"));
    world.watches.hold(1, Why::Untaken);
    world.watches.hold(1, Why::Range);
    world.put("a", "1");
    world.settle();
    assert!(!world.watches.release(1, Why::Untaken));
    world.settle();
    assert_eq!(world.sent(1, 1), []);
    assert!(world.watches.release(1, Why::Range));
    world.settle();
    assert_eq!(world.sent(1, 1), world.expected(&key("a"), 2));
    assert!(world.watches.held.is_empty());
}

/// Somebody who does something between turns.
#[derive(Clone, Debug)]
enum Step {
    Compact(u8),
    Put(u8),
    Delete(u8, bool),
    Watch { conn: ConnId, watch: Watch },
    Cancel(usize),
    Disconnect(ConnId),
    Hold(ConnId),
    Release(ConnId),
    Ask(ConnId),
    Turn,
}

fn some_key() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(b'a'..b'd', 1..3).prop_map(Bytes::from)
}

fn some_watch() -> impl Strategy<Value = Watch> {
    let span = prop_oneof![
        3 => some_key().prop_map(Span::Key),
        2 => some_key().prop_map(Span::Prefix),
        1 => Just(Span::Prefix(Bytes::new())),
        1 => some_key().prop_map(Span::From),
        2 => (some_key(), some_key()).prop_map(|(from, to)| Span::Between(from, to)),
    ];
    let revision = prop_oneof![2 => Just(0), 3 => 1..40u64, 1 => 30..80u64];
    (span, revision, any::<[bool; 3]>(), 0..5u8).prop_map(
        |(span, revision, [prev_kv, progress, _], filter)| Watch {
            span,
            revision,
            prev_kv,
            no_put: filter == 0,
            no_delete: filter == 1,
            progress,
        },
    )
}

fn some_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any::<u8>().prop_map(Step::Put),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(key, many)| Step::Delete(key, many)),
        4 => (0..4u64, some_watch()).prop_map(|(conn, watch)| Step::Watch { conn, watch }),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => (0..4u64).prop_map(Step::Disconnect),
        2 => (0..4u64).prop_map(Step::Hold),
        2 => (0..4u64).prop_map(Step::Release),
        1 => (0..4u64).prop_map(Step::Ask),
        1 => any::<u8>().prop_map(Step::Compact),
        6 => Just(Step::Turn),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_all_is_told_in_order_and_once(
        steps in proptest::collection::vec(some_step(), 1..150),
        work in SHARE..60,
    ) {
        let mut world = World::new();
        world.watches.turn = Budget { work, bytes: 1 << 20 };
        // Connection, tag, watch, and the first revision that it is told of.
        let mut watching: Vec<(ConnId, Tag, Watch, Revision)> = Vec::new();
        let mut compacted = 0;
        for (tag, step) in (1..).zip(steps) {
            let name = |number: u8| {
                let letter = |number: u8| char::from(b'a' + number % 3);
                let mut name = letter(number).to_string();
                name.extend((number & 64 > 0).then(|| letter(number / 3)));
                name
            };
            world.now = world.now + INTERVAL / 7;
            match step {
                Step::Put(number) => world.put(&name(number), &tag.to_string()),
                Step::Delete(number, true) => world.delete(Span::Prefix(Bytes::from(name(number)))),
                Step::Delete(number, false) => world.delete(Span::Key(Bytes::from(name(number)))),
                Step::Watch { conn, watch } => {
                    let next = world.store.revision() + 1;
                    let from = if watch.revision == 0 { next } else { watch.revision };
                    world.watch(conn, tag, &watch);
                    watching.push((conn, tag, watch, from));
                }
                Step::Compact(back) => {
                    let revision = world.store.revision().saturating_sub(u64::from(back % 8));
                    if revision > compacted && revision > 1 {
                        world.compact(revision);
                        compacted = revision;
                    }
                }
                Step::Cancel(which) if !watching.is_empty() => {
                    let (conn, tag, ..) = watching.swap_remove(which % watching.len());
                    world.watches.cancel(conn, tag);
                }
                Step::Cancel(_) => {}
                Step::Disconnect(conn) => {
                    watching.retain(|(other, ..)| *other != conn);
                    world.watches.forget(conn);
                }
                Step::Hold(conn) => world.watches.hold(conn, Why::Untaken),
                Step::Release(conn) => drop(world.watches.release(conn, Why::Untaken)),
                Step::Ask(conn) => world.watches.ask_progress(conn, 1_000_000),
                Step::Turn => world.turn(),
            }
            world.watches.check();
        }
        for conn in 0..4 {
            world.watches.release(conn, Why::Untaken);
        }
        world.settle();
        for (conn, tag, watch, from) in watching {
            // What was there before a change at a bound is known or not.
            let unsure = |sent: Sent| match sent {
                Sent::Events(revision, mut events) if revision <= compacted => {
                    events.iter_mut().for_each(|(.., before)| *before = None);
                    Sent::Events(revision, events)
                }
                sent => sent,
            };
            let mut expected: Vec<Sent> = world.expected(&watch, from).into_iter().map(unsure).collect();
            let (mut told, mut reached) = (Vec::new(), 0);
            for sent in world.sent(conn, tag) {
                match unsure(sent) {
                    Sent::Unwatched(code, bound) => {
                        prop_assert_eq!(code, Code::Compacted);
                        prop_assert!(bound <= compacted && from.max(reached + 1) < bound, "it lacked nothing");
                        expected.truncate(told.len());
                    }
                    Sent::Progress(revision) => {
                        prop_assert!(revision >= reached && revision >= from.min(world.store.revision()) - 1);
                        let missing = expected[told.len()..].first();
                        if let Some(Sent::Events(next, _)) = missing {
                            prop_assert!(revision < *next, "progress {revision}, but {next} is still to come");
                        }
                        reached = revision;
                    }
                    events => {
                        let Sent::Events(revision, _) = &events else { unreachable!("all others are above") };
                        reached = *revision;
                        told.push(events);
                    }
                }
            }
            prop_assert_eq!(told, expected, "of {:?} from {}", watch, from);
        }
    }
}
