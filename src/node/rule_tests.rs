//! Rules of etcd's services that take a whole member, or three. `tests/RULES.md` lists all of them.

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;

use super::lock_tests::Cluster;
use super::*;
use crate::api::{Code, Compact, Event, EventKind, Put, Range, Span, Watch};

fn put(value: &'static str) -> Request {
    Request::Put(Put { key: "k".into(), value: value.into(), ..Put::default() })
}

fn get(serializable: bool) -> Request {
    Request::Range(Range { serializable, ..Range::new(Span::Key("k".into())) })
}

#[test]
fn a_serializable_read_needs_no_quorum_and_a_linearizable_one_does() {
    let mut cluster = Cluster::new(3);
    cluster.ask(put("old"));
    let follower = cluster.follower();
    cluster.wait(SECOND);
    cluster.cut_off(follower);
    cluster.ask(put("new"));
    let value = |body: Option<Body>| match body {
        Some(Body::Range(result)) => result.kvs[0].value.clone(),
        other => panic!("{other:?}"),
    };
    let serializable = cluster.send_to(follower, 1, get(true));
    assert_eq!(value(cluster.answer(serializable)), "old", "as far as this member knows");
    let linearizable = cluster.send_to(follower, 2, get(false));
    assert_eq!(cluster.answer(linearizable), None);
    cluster.wait(20 * SECOND);
    assert!(matches!(cluster.answer(linearizable), Some(Body::Fault(fault)) if fault.code == Code::NoLeader));
    cluster.heal();
    cluster.wait(5 * SECOND);
    let linearizable = cluster.send_to(follower, 3, get(false));
    assert_eq!(value(cluster.answer(linearizable)), "new");
}

#[test]
fn a_physical_compaction_is_answered_when_what_nobody_sees_is_gone() {
    let mut cluster = Cluster::alone();
    for _ in 0..500 {
        cluster.ask(put("v"));
    }
    let revision = cluster.revision();
    let compacted = cluster.ask(Request::Compact(Compact { revision: revision - 1, physical: false }));
    assert!(matches!(compacted, Body::Compacted { .. }), "at once: {compacted:?}");
    assert!(cluster.node(1).store.sweep_due(), "what is garbage is swept later");
    let physical = cluster.send(Request::Compact(Compact { revision, physical: true }));
    assert_eq!(cluster.answer(physical), None);
    for _ in 0..10_000 {
        if cluster.answer(physical).is_some() {
            assert!(!cluster.node(1).store.sweep_due());
            return;
        }
        cluster.wait(MS);
    }
    panic!("nobody is answered");
}

/// The parts of an answer, all of them.
fn parts(cluster: &mut Cluster, tag: Tag) -> Vec<Body> {
    cluster.wait(5 * SECOND);
    let mut told = cluster.bodies(tag);
    told.extend(cluster.answer(tag));
    told
}

#[test]
fn a_snapshot_is_one_sound_file_whatever_is_written_meanwhile() {
    let mut cluster = Cluster::alone();
    let value = vec![b'x'; 3_000];
    for key in 0..400 {
        let key = format!("k{key}").into();
        cluster.ask(Request::Put(Put { key, value: value.clone().into(), ..Put::default() }));
    }
    let revision = cluster.revision();
    let tag = cluster.send(Request::Snapshot);
    cluster.ask(put("meanwhile"));
    let told = parts(&mut cluster, tag);
    let mut file = Vec::new();
    let mut expected = None;
    for body in told {
        let Body::SnapshotPart { bytes, remaining_bytes } = body else { panic!("{body:?}") };
        let all = expected.unwrap_or(bytes.len() as u64 + remaining_bytes);
        let is_digest = all == 0;
        assert!(is_digest || all == bytes.len() as u64 + remaining_bytes);
        expected = Some(remaining_bytes);
        file.extend_from_slice(&bytes);
    }
    let check = |file: &[u8]| {
        let mut check = FileCheck::default();
        file.chunks(1_000).try_for_each(|piece| check.take(piece))?;
        check.finish()
    };
    let summary = check(&file).unwrap();
    assert_eq!((summary.revision, summary.keys, file.len() % 512), (revision, 400, 32));
    // Nothing that happens to it goes unseen.
    for at in (0..file.len()).step_by(file.len() / 16).chain(file.len() - 40..file.len()) {
        file[at] ^= 1;
        assert!(check(&file).is_err(), "byte {at}");
        file[at] ^= 1;
        assert!(check(&file[..at]).is_err(), "cut at {at}");
    }
    assert_eq!(cluster.node(1).streams.len(), 0);
}

#[test]
fn who_leaves_a_snapshot_or_takes_nothing_of_it_pins_nothing() {
    let mut cluster = Cluster::alone();
    for key in 0..400 {
        let key = format!("k{key}").into();
        cluster.ask(Request::Put(Put { key, value: vec![b'x'; 3_000].into(), ..Put::default() }));
    }
    let left = cluster.send_to(1, 11, Request::Snapshot);
    cluster.node(1).on_disconnect(11);
    let held = cluster.send_to(1, 12, Request::Snapshot);
    cluster.node(1).hold(12);
    cluster.wait(59 * SECOND);
    assert_eq!(cluster.node(1).streams.len(), 1, "{left} has gone");
    cluster.wait(2 * SECOND);
    assert_eq!(cluster.node(1).streams.len(), 0);
    let last = parts(&mut cluster, held).pop();
    assert!(matches!(last, Some(Body::Fault(fault)) if fault.code == Code::Timeout));
    // As many as there may be at a time, again and again.
    for round in 0..10 {
        let tag = cluster.send_to(1, 20 + round, Request::Hash);
        assert!(matches!(parts(&mut cluster, tag)[..], [Body::Hash(_)]));
    }
}

/// In every turn others ask for more single keys than the turn's budget allows.
#[test]
fn gets_do_not_keep_each_other_waiting_nor_a_range_in_parts() {
    let mut cluster = Cluster::alone();
    let keys = 4 * PARTS.alone.keys;
    for key in 0..keys {
        cluster.ask(Request::Put(Put { key: format!("k{key}").into(), ..Put::default() }));
    }
    let range = Range::new(Span::Prefix("k".into()));
    let range = cluster.send_to(1, 1, Request::Range(range));
    let gets = PARTS.alone.keys + PARTS.alone.keys / 2;
    let (mut unanswered, mut range_ends) = (BTreeMap::new(), None);
    for turn in 0..20 {
        for conn in 0..gets as ConnId {
            let get = Range::new(Span::Key(format!("k{conn}").into()));
            unanswered.insert(cluster.send_to(1, 10_000 * (turn + 1) + conn, Request::Range(get)), turn);
        }
        let node = cluster.node(1);
        for reply in node.turn(node.now).unwrap().replies.iter().filter(|reply| !reply.more) {
            match unanswered.remove(&reply.tag) {
                Some(asked) => assert!(turn - asked <= 3, "asked in turn {asked}, answered in {turn}"),
                None => {
                    assert_eq!(reply.tag, range);
                    range_ends = Some(turn);
                }
            }
        }
    }
    assert!(unanswered.values().all(|asked| *asked >= 16), "{:?}", unanswered.values().min());
    assert!(range_ends.is_some_and(|turn| turn <= 12), "{range_ends:?}");
}

/// A client of etcd would take COMPACTED for a mistake of its own, and would not ask again.
#[test]
fn a_range_of_now_that_a_compaction_overtakes_may_be_asked_for_again() {
    let mut cluster = Cluster::alone();
    for key in 0..4 * PARTS.alone.keys {
        cluster.ask(Request::Put(Put { key: format!("k{key}").into(), ..Put::default() }));
    }
    let then = cluster.revision();
    let all = Span::Prefix("k".into());
    let mut begin = |conn, revision| {
        let range = Range { revision, serializable: true, ..Range::new(all.clone()) };
        let tag = cluster.send_to(1, conn, Request::Range(range));
        let node = cluster.node(1);
        let told = node.turn(node.now).unwrap().replies;
        assert!(!told.is_empty() && told.iter().all(|reply| reply.more), "the first parts of several");
        node.hold(conn);
        tag
    };
    let (now, before) = (begin(11, 0), begin(12, then));
    cluster.ask(put("later"));
    cluster.ask(Request::Compact(Compact { revision: then + 1, ..Compact::default() }));
    for (conn, tag, code) in [(11, now, Code::Timeout), (12, before, Code::Compacted)] {
        cluster.node(1).release(conn);
        let last = parts(&mut cluster, tag).pop();
        assert!(matches!(&last, Some(Body::Fault(fault)) if fault.code == code), "{last:?}");
    }
}

/// Also where a watch begins: there its first event has nothing before it.
#[test]
fn what_was_there_before_the_end_of_history_is_not_told() {
    let mut cluster = Cluster::alone();
    for value in ["1", "2", "3", "4"] {
        cluster.ask(put(value));
    }
    let revision = cluster.revision() - 1;
    let compacted = cluster.ask(Request::Compact(Compact { revision, physical: false }));
    assert!(matches!(compacted, Body::Compacted { .. }));
    cluster.wait(10 * SECOND);
    let watch = Watch { revision, prev_kv: true, ..Watch::new(Span::Key("k".into())) };
    let tag = cluster.send(Request::Watch(watch));
    let told = cluster.bodies(tag);
    let shown = |event: &Event| {
        assert_eq!(event.kind, EventKind::Put);
        (event.kv.value.clone(), event.previous.as_ref().map(|kv| kv.value.clone()))
    };
    let events: Vec<_> = told
        .iter()
        .flat_map(|body| match body {
            Body::Events { events, .. } => events.iter().map(|event| shown(event)).collect(),
            _ => Vec::new(),
        })
        .collect();
    assert_eq!(events, [("3".into(), None), ("4".into(), Some("3".into()))]);
}

/// What it had asked for is known to be due, and nobody is there to be told. A turn that wants the next one for that would burn a
/// processor until somebody else reads.
#[test]
fn a_client_that_goes_while_it_is_owed_answers_leaves_no_work_behind() {
    let mut cluster = Cluster::new(3);
    cluster.ask(put("v"));
    let follower = cluster.follower();
    cluster.node(follower).hold(5);
    let owed = cluster.send_to(follower, 5, get(false));
    cluster.wait(SECOND);
    assert!(cluster.node(follower).release(5), "there is something to send");
    cluster.node(follower).on_disconnect(5);
    cluster.wait(SECOND);
    assert_eq!(cluster.answer(owed), None);
}

/// Writers are slowed to the pace of the disk while a checkpoint gets on, and not stopped until it has ended.
#[test]
fn puts_go_on_as_the_checkpoint_before_them_gets_on() {
    const VALUE_BYTES: u64 = 128 << 10;
    let mut cluster = Cluster::alone();
    let large = |number: usize| {
        let (key, value) = (format!("k{number}").into(), vec![b'x'; VALUE_BYTES as usize].into());
        Request::Put(Put { key, value, ..Put::default() })
    };
    let mut number = 0;
    while cluster.kept_checkpoints(1).is_empty() {
        number += 1;
        cluster.ask(large(number));
    }
    let mut waiting: Vec<Tag> = (0..200).map(|more| cluster.send(large(number + more))).collect();
    let mut answered = |cluster: &mut Cluster| {
        waiting.retain(|tag| cluster.answer(*tag).is_none());
        (200 - waiting.len()) as u64 * VALUE_BYTES
    };
    let first = answered(&mut cluster);
    assert!(first > DIRTY_BYTES_MIN / 2 && first < DIRTY_BYTES_MIN * 2, "{first}");

    let checkpoint = cluster.kept_checkpoints(1).remove(0);
    let (advanced, advances) = sync_channel(0);
    let (go_on, goes_on) = sync_channel(0);
    let (mut steps, mut last) = (0, first);
    let done = std::thread::scope(|scope| {
        let running = scope.spawn(move || {
            checkpoint.run(&|| {
                advanced.send(()).unwrap();
                goes_on.recv().unwrap();
            })
        });
        while advances.recv().is_ok() {
            let so_far = answered(&mut cluster);
            assert!(so_far < last + DIRTY_BYTES_MAX / 8, "little by little: {last}, then {so_far}");
            (steps, last) = (steps + 1, so_far);
            go_on.send(()).unwrap();
        }
        running.join().unwrap().unwrap()
    });
    assert!(steps > 10 && last > DIRTY_BYTES_MAX / 2 && last < DIRTY_BYTES_MAX * 5 / 4, "{steps}: {last}");
    cluster.checkpoint_ended(1, done);
    while let Some(checkpoint) = {
        answered(&mut cluster);
        cluster.kept_checkpoints(1).pop()
    } {
        cluster.checkpoint_ended(1, checkpoint.run(&|| ()).unwrap());
    }
    assert_eq!(answered(&mut cluster), 200 * VALUE_BYTES);
}

#[test]
fn who_watches_the_health_is_told_each_change_and_nothing_else() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    let tag = cluster.send_to(follower, 1, Request::WatchHealth);
    let gone = cluster.send_to(follower, 2, Request::WatchHealth);
    assert_eq!(cluster.bodies(tag), [Body::Serves(true)]);
    assert_eq!(cluster.bodies(gone), [Body::Serves(true)]);
    cluster.node(follower).on_disconnect(2);
    cluster.ask(put("v"));
    cluster.wait(20 * SECOND);
    assert_eq!(cluster.bodies(tag), [], "nothing has changed");
    cluster.cut_off(follower);
    cluster.wait(20 * SECOND);
    assert_eq!(cluster.bodies(tag), [Body::Serves(false)]);
    let late = cluster.send_to(follower, 3, Request::WatchHealth);
    assert_eq!(cluster.bodies(late), [Body::Serves(false)], "at once");
    cluster.heal();
    cluster.wait(10 * SECOND);
    assert_eq!(cluster.bodies(tag), [Body::Serves(true)]);
    assert_eq!(cluster.bodies(late), [Body::Serves(true)]);
    cluster.node(follower).left = true;
    assert_eq!(cluster.bodies(tag), [Body::Serves(false)], "it was removed");
    assert_eq!(cluster.bodies(gone), [], "it has left");
}
