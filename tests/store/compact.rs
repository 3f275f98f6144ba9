//! Compactions: what can still be read is as it was, whatever has been swept, and what cannot is gone in the end.

use super::model::Model;
use super::snapshot::{install, send};
use super::*;
use pawl::api::alarm::ALARMS_MAX;
use pawl::api::{Alarm, AlarmChange, AlarmKind, Code, Fault, Range};
use pawl::base::Rng;

pub fn compact(revision: u64) -> Command {
    Command::Compact(Compact { revision, physical: false })
}

pub fn sweep_all(store: &mut Store<SimDisk>) {
    while store.sweep_due() {
        store.sweep(1_000).unwrap();
    }
}

/// Changes that are in the file, as the checker counts them; and it finds nothing wrong.
fn changes(disk: &SimDisk, store: &mut Store<SimDisk>) -> u64 {
    checkpoint(store);
    let report = store::check(&disk.point().kill_image(), path()).unwrap();
    assert_eq!(report.findings, Vec::<String>::new());
    report.changes
}

fn everything(revision: u64) -> Range {
    Range { revision, ..Range::new(Span::Prefix(Bytes::new())) }
}

fn assert_reads(store: &Store<SimDisk>, model: &Model) {
    for revision in model.compacted.saturating_sub(1).max(1)..=model.revision {
        let range = everything(revision);
        assert_eq!(store.range(&range).unwrap(), model.range(&range), "at {revision}");
    }
}

#[test]
fn the_bound_and_what_is_behind_it_can_be_read() {
    let disk = disk();
    let mut store = new_store(&disk, 4096);
    for value in ["v2", "v3", "v4"] {
        apply(&mut store, &put("k", value));
    }
    assert_eq!(apply(&mut store, &compact(3)), Body::Compacted { revision: 3 });
    assert_eq!((store.revision(), store.compact_revision()), (4, 3), "it makes no revision");
    let code =
        |store: &Store<SimDisk>, revision| store.range(&everything(revision)).unwrap().map_err(|f| f.code);
    for _ in 0..2 {
        assert_eq!(code(&store, 2), Err(Code::Compacted));
        assert_eq!(code(&store, 3).unwrap().kvs[0].value, "v3");
        assert_eq!(code(&store, 4).unwrap().kvs[0].value, "v4");
        sweep_all(&mut store);
    }
    assert_eq!(changes(&disk, &mut store), 2);
    let refused = |store: &mut Store<SimDisk>, revision| match apply(store, &compact(revision)) {
        Body::Fault(fault) => fault.to_string(),
        other => panic!("{other:?}"),
    };
    let compacted = "COMPACTED 3 etcdserver: mvcc: required revision has been compacted";
    assert_eq!(refused(&mut store, 3), compacted);
    assert_eq!(refused(&mut store, 0), compacted);
    let future = "FUTURE 4 etcdserver: mvcc: required revision is a future revision";
    assert_eq!(refused(&mut store, 5), future);
    apply(&mut store, &compact(4));
    sweep_all(&mut store);
    assert_eq!(changes(&disk, &mut store), 1);
    assert_sound(&disk, store);
}

#[test]
fn a_deletion_at_the_bound_stays_and_one_before_it_goes_with_its_key() {
    let disk = disk();
    let mut store = new_store(&disk, 4096);
    apply(&mut store, &put("k", "v2"));
    apply(&mut store, &delete(Span::Key("k".into())));
    apply(&mut store, &compact(3));
    sweep_all(&mut store);
    assert_eq!(changes(&disk, &mut store), 1, "who follows the history from 3 on sees it");
    apply(&mut store, &put("other", "v4"));
    apply(&mut store, &compact(4));
    sweep_all(&mut store);
    assert_eq!(changes(&disk, &mut store), 1, "the other key's");
    assert_eq!(store.range(&everything(0)).unwrap().unwrap().count, 1);
    assert_sound(&disk, store);
}

/// A key that was deleted and put again, where the deletion is garbage and has been swept, or not.
#[test]
fn a_key_that_lives_again_is_the_same_wherever_it_has_been_swept() {
    let commands = [
        put("k", "v2"),
        delete(Span::Key("k".into())),
        put("x", "v4"),
        compact(4),
        put("k", "v5"),
        put("k", "v6"),
        compact(5),
    ];
    for swept_before in [false, true] {
        let disk = disk();
        let mut store = new_store(&disk, 512);
        let mut hashes = Vec::new();
        for command in &commands {
            apply(&mut store, command);
            hashes.push(content(&store));
            if swept_before {
                sweep_all(&mut store);
                assert_eq!(content(&store), *hashes.last().unwrap());
            }
        }
        sweep_all(&mut store);
        assert_eq!(content(&store), *hashes.last().unwrap());
        let get = |revision| store.range(&everything(revision)).unwrap().unwrap();
        assert_eq!((get(5).count, &get(5).kvs[0].value[..]), (2, &b"v5"[..]));
        assert_eq!(changes(&disk, &mut store), 3);
        let other = super::disk();
        let mut unswept = new_store(&other, 512);
        for (command, hash) in commands.iter().zip(hashes) {
            apply(&mut unswept, command);
            assert_eq!(content(&unswept), hash);
        }
        assert_eq!(changes(&other, &mut unswept), 5, "the first life's, too");
    }
}

/// A hundred thousand keys are left alone by a compaction of a few changes.
#[test]
fn the_work_is_as_much_as_was_written_since_the_last_bound() {
    let disk = disk();
    let mut store = new_store(&disk, 4096);
    for n in 0..20_000 {
        apply(&mut store, &put(format!("key/{n}"), "v"));
    }
    let revision = store.revision();
    apply(&mut store, &compact(revision));
    sweep_all(&mut store);
    for n in 0..10 {
        apply(&mut store, &put(format!("key/{}", n * 777), "w"));
    }
    apply(&mut store, &compact(revision + 10));
    let mut steps = 0;
    while store.sweep_due() {
        store.sweep(1).unwrap();
        steps += 1;
    }
    assert!(steps <= 13, "{steps} steps");
    assert_eq!(changes(&disk, &mut store), 20_000);
}

/// Few keys with long lines, so that skips lead far back, and every kept revision is read after each step.
#[test]
fn long_lines_are_read_as_before_after_random_compactions() {
    for (page_bytes, seed) in [(256, 1), (512, 2), (1024, 3), (4096, 4), (65536, 5)] {
        println!("page_bytes {page_bytes} seed {seed}");
        let mut rng = Rng::new(seed);
        let disk = disk();
        let (mut store, mut model) = (new_store(&disk, page_bytes), Model::new(&members()));
        for step in 0..600u64 {
            let key = format!("k{}", rng.below(3));
            let command = match rng.below(60) {
                0 => compact((model.revision + 1).saturating_sub(rng.below(90))),
                1..4 => delete(Span::Key(key.into())),
                4 => delete(Span::Prefix("k".into())),
                _ => put(key, vec![step as u8; rng.below(60) as usize]),
            };
            let entry = EntryId::new(1, store.applied().index + 1);
            assert_eq!(apply(&mut store, &command), model.apply(entry, &command));
            if rng.one_in(8) && store.sweep_due() {
                store.sweep(rng.between(1, 40) as usize).unwrap();
            }
            if matches!(command, Command::Compact(_)) || step % 50 == 0 {
                assert_reads(&store, &model);
            }
            if rng.one_in(30) {
                changes(&disk, &mut store);
            }
        }
        sweep_all(&mut store);
        assert_reads(&store, &model);
        // What is left is what can be read: at the bound, and each change behind it.
        let at_bound = model.range(&everything(model.compacted)).unwrap();
        let deleted_at_bound =
            changes(&disk, &mut store) - at_bound.count - model.changes_after(model.compacted);
        assert_eq!(deleted_at_bound, model.deletions_at(model.compacted));
        assert_sound(&disk, store);
    }
}

#[test]
fn a_sweep_goes_on_after_a_restart_and_at_a_member_that_takes_a_snapshot() {
    let disk = disk();
    let mut store = new_store(&disk, 512);
    for n in 0..200u64 {
        apply(&mut store, &put(format!("key/{}", n % 20), vec![n as u8; 30]));
    }
    apply(&mut store, &compact(150));
    store.sweep(40).unwrap();
    let hash = content(&store);
    assert!(store.sweep_due());
    let left = changes(&disk, &mut store);
    assert!(left > 71 && left < 200, "{left}");

    let target = super::disk();
    let identity = Identity { member: 2, ..IDENTITY };
    let mut received = install(&target, identity, options(4096), &send(&mut store, 700));
    let mut reopened = Store::open(&disk.point().kill_image(), path()).unwrap();
    for store in [&mut received, &mut reopened] {
        assert!(store.sweep_due());
        assert_eq!(content(store), hash);
        let mut steps = 0;
        while store.sweep_due() {
            store.sweep(1).unwrap();
            steps += 1;
        }
        assert!(steps <= 150 - 30, "{steps} steps: it has begun anew");
        assert_eq!(content(store), hash);
    }
    assert_eq!(changes(&target, &mut received), 20 + 51);
}

/// Those of clients are a set, which only clients change; the leader's word about room is beside them.
#[test]
fn alarms_of_clients_stand_until_clients_end_them() {
    let disk = disk();
    let mut store = new_store(&disk, 4096);
    let full = |member| Alarm { member, kind: AlarmKind::NoSpace };
    let corrupt = Alarm { member: 0, kind: AlarmKind::Corrupt };
    let leader = |member, raised| Command::Alarm { member, raised };
    let raise = |alarm| Command::ChangeAlarms(AlarmChange::Raise(alarm));
    let end = |alarm| Command::ChangeAlarms(AlarmChange::End(alarm));
    let told = |alarms: &[Alarm]| Body::Alarms(alarms.to_vec());
    apply(&mut store, &put("k", "v2"));
    let content_before = content(&store).0;
    assert_eq!(apply(&mut store, &end(corrupt)), told(&[]), "none stands");
    for _ in 0..2 {
        assert_eq!(apply(&mut store, &raise(corrupt)), told(&[corrupt]), "it may stand already");
    }
    for command in [put("k", "v"), delete(Span::Key("k".into())), compact(2)] {
        assert_eq!(apply(&mut store, &command), Body::Fault(Fault::corrupt()));
    }
    assert_eq!(apply(&mut store, &raise(full(9))), told(&[full(9)]));
    assert_eq!(apply(&mut store, &leader(9, true)), told(&[corrupt, full(9)]));
    assert_eq!(apply(&mut store, &leader(0, false)), told(&[corrupt, full(9)]), "a client's still stands");
    assert_eq!(apply(&mut store, &put("k", "v")), Body::Fault(Fault::no_space()));
    checkpoint(&mut store);
    let identity = Identity { member: 2, ..IDENTITY };
    let mut received = install(&super::disk(), identity, options(512), &send(&mut store, 700));
    let mut reopened = Store::open(&disk.point().kill_image(), path()).unwrap();
    for store in [&mut received, &mut reopened] {
        assert_eq!(store.alarms(), [corrupt, full(9)]);
        apply(store, &leader(9, true));
        assert_eq!(apply(store, &end(full(9))), told(&[full(9)]), "whoever raised it");
        assert_eq!(apply(store, &put("k", "v")), Body::Fault(Fault::corrupt()));
        apply(store, &leader(9, true));
        assert_eq!(apply(store, &Command::ChangeAlarms(AlarmChange::EndAll)), told(&[corrupt, full(9)]));
        assert_eq!(content(store).0, content_before);
        assert_eq!(apply(store, &put("k", "v3")), Body::Put { revision: 3, previous: None });
    }
    assert_eq!(received.hash(), reopened.hash());
}

#[test]
fn so_many_alarms_stand_and_no_more() {
    let mut store = new_store(&disk(), 4096);
    let raise =
        |member| Command::ChangeAlarms(AlarmChange::Raise(Alarm { member, kind: AlarmKind::NoSpace }));
    for member in 1..=ALARMS_MAX as u64 {
        apply(&mut store, &raise(member));
    }
    assert_eq!(apply(&mut store, &raise(0)), Body::Fault(Fault::too_many_alarms()));
    assert_eq!(apply(&mut store, &raise(1)), Body::Alarms(store.alarms()[..1].to_vec()));
    assert_eq!(store.alarms().len(), ALARMS_MAX);
}

/// Whoever leads measures and says so by an entry; apply looks at nothing but that.
#[test]
fn while_an_alarm_stands_puts_are_refused_and_deletes_are_not() {
    let disk = disk();
    let mut store = new_store(&disk, 4096);
    let alarm = |member, raised| Command::Alarm { member, raised };
    apply(&mut store, &put("k", "v2"));
    let hash = content(&store);
    let full = Alarm { member: 7, kind: AlarmKind::NoSpace };
    assert_eq!(apply(&mut store, &alarm(7, true)), Body::Alarms(vec![full]));
    assert_eq!(apply(&mut store, &alarm(8, true)), Body::Alarms(vec![full]), "it stands already");
    assert_ne!(content(&store).0, hash.0);
    for key in ["k", "new"] {
        let fault = Fault::no_space();
        assert_eq!(apply(&mut store, &put(key, "v")), Body::Fault(fault));
    }
    assert_eq!(apply(&mut store, &delete(Span::Key("k".into()))), {
        Body::Delete { revision: 3, deleted: 1, previous: Vec::new() }
    });
    assert_eq!(apply(&mut store, &compact(3)), Body::Compacted { revision: 3 });
    checkpoint(&mut store);
    let target = super::disk();
    let identity = Identity { member: 2, ..IDENTITY };
    let received = install(&target, identity, options(512), &send(&mut store, 700));
    let mut store = Store::open(&disk.point().kill_image(), path()).unwrap();
    assert_eq!((store.alarms(), received.alarms()), (vec![full], vec![full]));
    for _ in 0..2 {
        assert_eq!(apply(&mut store, &alarm(0, false)), Body::Alarms(vec![]));
    }
    assert_eq!(apply(&mut store, &put("k", "v4")), Body::Put { revision: 4, previous: None });
}
