//! What etcd's documentation promises, one sentence per test.

use super::*;
use pawl::api::{Code, KeyValue, Order, Range, RangeResult, SortBy};

fn store() -> (SimDisk, Store<SimDisk>) {
    let disk = disk();
    let store = new_store(&disk, 4096);
    (disk, store)
}

fn get(store: &Store<SimDisk>, key: &'static str) -> Option<KeyValue> {
    read(store, &Range::new(Span::Key(key.into()))).kvs.pop()
}

fn read(store: &Store<SimDisk>, range: &Range) -> RangeResult {
    store.range(range).unwrap().unwrap()
}

fn keys(result: &RangeResult) -> Vec<&str> {
    result.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).unwrap()).collect()
}

fn fault_code(body: Body) -> Code {
    match body {
        Body::Fault(fault) => fault.code,
        other => panic!("{other:?} is not a fault"),
    }
}

#[test]
fn a_new_store_is_at_revision_1() {
    let (disk, store) = store();
    assert_eq!((store.revision(), store.applied()), (1, EntryId::ZERO));
    assert_eq!(store.members(), members());
    assert_eq!(
        read(&store, &Range::new(Span::From(Bytes::new()))),
        RangeResult { revision: 1, ..RangeResult::default() }
    );
    assert_sound(&disk, store);
}

#[test]
fn a_put_makes_a_revision_and_a_version() {
    let (disk, mut store) = store();
    assert_eq!(apply(&mut store, &put("k", "v1")), Body::Put { revision: 2, previous: None });
    assert_eq!(apply(&mut store, &put("k", "v2")), Body::Put { revision: 3, previous: None });
    let kv = get(&store, "k").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version, kv.lease), (2, 3, 2, 0));
    assert_eq!(kv.value, "v2");
    assert_sound(&disk, store);
}

#[test]
fn create_revision_and_version_begin_anew_after_a_delete() {
    let (disk, mut store) = store();
    apply(&mut store, &put("k", "v1"));
    apply(&mut store, &put("k", "v2"));
    apply(&mut store, &delete(Span::Key("k".into())));
    assert_eq!(get(&store, "k"), None);
    apply(&mut store, &put("k", "v3"));
    let kv = get(&store, "k").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 5, 1));
    assert_sound(&disk, store);
}

#[test]
fn a_delete_of_nothing_makes_no_revision() {
    let (_disk, mut store) = store();
    apply(&mut store, &put("k", "v"));
    for span in [Span::Key("x".into()), Span::Prefix("l".into()), Span::Between("k".into(), "a".into())] {
        let body = apply(&mut store, &delete(span));
        assert_eq!(body, Body::Delete { revision: 2, deleted: 0, previous: vec![] });
    }
    apply(&mut store, &delete(Span::Key("k".into())));
    let again = apply(&mut store, &delete(Span::Key("k".into())));
    assert_eq!(again, Body::Delete { revision: 3, deleted: 0, previous: vec![] });
}

#[test]
fn a_delete_of_a_span_is_one_revision_with_all_previous_values() {
    let (disk, mut store) = store();
    for (key, value) in [("a", "1"), ("b/1", "2"), ("b/2", "3"), ("c", "4")] {
        apply(&mut store, &put(key, value));
    }
    let whole = Command::Delete(Delete { span: Span::Prefix("b/".into()), prev_kv: true });
    let Body::Delete { revision: 6, deleted: 2, previous } = apply(&mut store, &whole) else {
        panic!("two keys go in revision 6")
    };
    assert_eq!(
        previous.iter().map(|kv| (&kv.value[..], kv.mod_revision)).collect::<Vec<_>>(),
        [(&b"2"[..], 3), (&b"3"[..], 4)]
    );
    assert_eq!(keys(&read(&store, &Range::new(Span::Prefix(Bytes::new())))), ["a", "c"]);
    let before = Range { revision: 5, ..Range::new(Span::Prefix(Bytes::new())) };
    assert_eq!(keys(&read(&store, &before)), ["a", "b/1", "b/2", "c"]);
    assert_sound(&disk, store);
}

/// More keys than are collected at a time.
#[test]
fn a_delete_of_very_many_keys_is_still_one_revision() {
    let (disk, mut store) = store();
    for n in 0..2_500u32 {
        apply(&mut store, &put(n.to_be_bytes().to_vec(), "v"));
    }
    let body = apply(&mut store, &delete(Span::From(Bytes::new())));
    assert_eq!(body, Body::Delete { revision: 2_502, deleted: 2_500, previous: vec![] });
    assert_eq!(read(&store, &Range::new(Span::From(Bytes::new()))).count, 0);
    assert_sound(&disk, store);
}

#[test]
fn a_put_that_keeps_the_value_needs_a_key() {
    let (_disk, mut store) = store();
    let keep = Command::Put(Put { key: "k".into(), ignore_value: true, prev_kv: true, ..Put::default() });
    assert_eq!(fault_code(apply(&mut store, &keep)), Code::NoKey);
    let keep_lease = Command::Put(Put { key: "k".into(), ignore_lease: true, ..Put::default() });
    assert_eq!(fault_code(apply(&mut store, &keep_lease)), Code::NoKey);
    assert_eq!(store.revision(), 1, "a refused command makes no revision");
    assert_eq!(store.applied().index, 2, "but it is applied");

    apply(&mut store, &put("k", "v"));
    let Body::Put { revision: 3, previous: Some(Some(previous)) } = apply(&mut store, &keep) else {
        panic!("the key is there now")
    };
    assert_eq!((&previous.value[..], previous.mod_revision), (&b"v"[..], 2));
    let kv = get(&store, "k").unwrap();
    assert_eq!((&kv.value[..], kv.mod_revision, kv.version), (&b"v"[..], 3, 2));
    apply(&mut store, &delete(Span::Key("k".into())));
    assert_eq!(fault_code(apply(&mut store, &keep)), Code::NoKey, "a deleted key is no key");
}

#[test]
fn a_lease_that_does_not_exist_is_refused() {
    let (_disk, mut store) = store();
    for lease in [1, -1, i64::MAX, i64::MIN] {
        let leased = Command::Put(Put { key: "k".into(), lease, ..Put::default() });
        assert_eq!(fault_code(apply(&mut store, &leased)), Code::NoLease);
    }
    assert_eq!(get(&store, "k"), None);
}

#[test]
fn the_previous_value_is_told_when_asked_for() {
    let (_disk, mut store) = store();
    let ask = Command::Put(Put { key: "k".into(), value: "v".into(), prev_kv: true, ..Put::default() });
    assert_eq!(apply(&mut store, &ask), Body::Put { revision: 2, previous: Some(None) });
    apply(&mut store, &delete(Span::Key("k".into())));
    assert_eq!(apply(&mut store, &ask), Body::Put { revision: 4, previous: Some(None) });
}

#[test]
fn a_revision_that_is_not_there_yet_is_named_with_the_newest() {
    let (_disk, mut store) = store();
    apply(&mut store, &put("k", "v"));
    let fault =
        store.range(&Range { revision: 3, ..Range::new(Span::Key("k".into())) }).unwrap().unwrap_err();
    assert_eq!(fault.to_string(), "FUTURE 2 etcdserver: mvcc: required revision is a future revision");
}

#[test]
fn count_ignores_limit_and_filters_and_more_does_not() {
    let (_disk, mut store) = store();
    for key in ["a", "b", "c", "d"] {
        apply(&mut store, &put(key, "v"));
    }
    let all = Range::new(Span::Prefix(Bytes::new()));
    let two = read(&store, &Range { limit: 2, ..all.clone() });
    assert_eq!((two.count, two.more, keys(&two)), (4, true, vec!["a", "b"]));
    let four = read(&store, &Range { limit: 4, ..all.clone() });
    assert_eq!((four.count, four.more), (4, false));
    let late = read(&store, &Range { min_mod: 4, limit: 2, ..all.clone() });
    assert_eq!((late.count, late.more, keys(&late)), (4, false, vec!["c", "d"]));
    let counted = read(&store, &Range { count_only: true, limit: 1, ..all.clone() });
    assert_eq!((counted.count, counted.more, counted.kvs.len()), (4, false, 0));
    let down = read(&store, &Range { order: Order::Descending, limit: 1, ..all });
    assert_eq!((down.count, down.more, keys(&down)), (4, true, vec!["d"]));
}

#[test]
fn sorting_by_value_answers_without_values_where_only_keys_were_asked_for() {
    let (_disk, mut store) = store();
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2")] {
        apply(&mut store, &put(key, value));
    }
    let range =
        Range { sort_by: SortBy::Value, keys_only: true, limit: 2, ..Range::new(Span::From("a".into())) };
    let result = read(&store, &range);
    assert_eq!((keys(&result), result.more), (vec!["b", "c"], true));
    assert!(result.kvs.iter().all(|kv| kv.value.is_empty()));
}

#[test]
fn a_member_tells_its_name_without_a_revision() {
    let (disk, mut store) = store();
    let publish = |member| Command::Publish {
        member,
        name: "n2".into(),
        client_urls: vec!["http://127.0.0.1:22379".into()],
    };
    let Body::Members(list) = apply(&mut store, &publish(2)) else { panic!("a list of members") };
    assert_eq!((list[1].name.as_str(), list[1].client_urls.len(), list[0].name.as_str()), ("n2", 1, ""));
    assert_eq!(fault_code(apply(&mut store, &publish(9))), Code::NoMember);
    assert_eq!(store.revision(), 1);
    checkpoint(&mut store);
    drop(store);
    let store = Store::open(&disk, path()).unwrap();
    assert_eq!(store.members(), list);
    assert_sound(&disk, store);
}

#[test]
fn what_was_once_done_differently_stays_a_different_hash() {
    let (_disk, mut one) = store();
    let (_disk, mut other) = store();
    assert_eq!(one.hash(), other.hash());
    apply(&mut one, &put("k", "value"));
    apply(&mut other, &put("k", "valuf"));
    assert_ne!(one.hash(), other.hash());
    // The same from here on, until no difference can be seen in what is there now.
    for command in [put("k", "value"), delete(Span::Key("k".into()))] {
        let (mine, theirs) = (apply(&mut one, &command), apply(&mut other, &command));
        assert_eq!(mine, theirs);
        assert_ne!(one.hash(), other.hash());
    }
    // An entry without an effect counts as well.
    let before = one.hash();
    apply(&mut one, &delete(Span::Key("none".into())));
    assert_ne!(one.hash(), before);
}

/// Found to be wrong: a later start knows it, and forgets it only when it is told to.
#[test]
fn the_mark_of_a_wrong_state_is_durable() {
    let (disk, mut store) = store();
    apply(&mut store, &put("k", "v"));
    store.mark_diverged();
    assert!(store.is_diverged() && !Store::open(&disk.point().kill_image(), path()).unwrap().is_diverged());
    checkpoint(&mut store);
    drop(store);
    let mut store = Store::open(&disk, path()).unwrap();
    assert!(store.is_diverged());
    assert!(store::check(&disk, path()).unwrap().findings[0].contains("must be rebuilt"));
    store.mark_right();
    assert_sound(&disk, store);
    assert!(!Store::open(&disk, path()).unwrap().is_diverged());
}

#[test]
#[should_panic(expected = "entries are applied in order")]
fn an_entry_is_never_applied_twice() {
    let (_disk, mut store) = store();
    apply(&mut store, &put("k", "v"));
    let _ = store.apply(EntryId::new(1, 1), None);
}

#[test]
fn what_must_be_sorted_at_once_has_a_bound() {
    let (_, mut store) = store();
    let value = "v".repeat(2_000_000);
    for n in 0..35 {
        apply(&mut store, &put(format!("k{n:02}"), value.clone()));
    }
    let sorted = Range { sort_by: SortBy::Value, ..Range::new(Span::Prefix("k".into())) };
    let fault = store.range(&sorted).unwrap().unwrap_err();
    assert_eq!((fault.code, fault.text.contains("more than 64 MiB")), (Code::TooLarge, true), "{fault:?}");
    assert_eq!(keys(&read(&store, &Range { limit: 2, ..sorted.clone() })), ["k00", "k01"]);
    // Where values are not what it is sorted by, they are not gathered.
    assert_eq!(read(&store, &Range { sort_by: SortBy::Mod, ..sorted }).kvs.len(), 35);
}
