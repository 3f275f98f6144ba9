//! Rules of etcd's KV service that no other test shows by itself. `tests/RULES.md` lists all of them.

use super::*;
use pawl::api::{Code, KeyValue, Order, Range, SortBy};

fn store() -> (SimDisk, Store<SimDisk>) {
    let disk = disk();
    let store = new_store(&disk, 512);
    (disk, store)
}

fn kvs(store: &Store<SimDisk>, range: &Range) -> Vec<KeyValue> {
    store.range(range).unwrap().unwrap().kvs
}

fn keys(store: &Store<SimDisk>, range: &Range) -> String {
    let keys = kvs(store, range).into_iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap());
    keys.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_span_begins_with_its_key_and_ends_before_its_end() {
    let (_disk, mut store) = store();
    for key in ["a", "b", "b/1", "b/2", "b0", "c"] {
        apply(&mut store, &put(key, "v"));
    }
    apply(&mut store, &put(&b"\xff\xff"[..], "v"));
    let of = |span| keys(&store, &Range { limit: 6, ..Range::new(span) });
    assert_eq!(of(Span::Key("b".into())), "b");
    assert_eq!(of(Span::Key("x".into())), "");
    assert_eq!(of(Span::Between("b".into(), "c".into())), "b b/1 b/2 b0");
    assert_eq!(of(Span::Between("c".into(), "b".into())), "");
    assert_eq!(of(Span::Between("b".into(), "b".into())), "");
    assert_eq!(of(Span::Prefix("b/".into())), "b/1 b/2");
    assert_eq!(of(Span::Prefix("".into())), "a b b/1 b/2 b0 c");
    let count = |span| store.range(&Range::new(span)).unwrap().unwrap().count;
    assert_eq!(count(Span::From("b0".into())), 3, "to the end of all keys");
    assert_eq!(count(Span::Prefix(Bytes::from_static(b"\xff"))), 1);
    assert_eq!(count(Span::Prefix("".into())), 7);
}

#[test]
fn no_limit_and_no_revision_are_zero() {
    let (_disk, mut store) = store();
    for key in ["a", "b", "c"] {
        apply(&mut store, &put(key, "v"));
    }
    let all = Range::new(Span::Prefix("".into()));
    assert_eq!((all.limit, all.revision), (0, 0));
    let result = store.range(&all).unwrap().unwrap();
    assert_eq!((result.revision, result.kvs.len(), result.more), (4, 3, false));
    let cut = store.range(&Range { limit: 2, ..all.clone() }).unwrap().unwrap();
    assert_eq!((cut.kvs.len(), cut.count, cut.more), (2, 3, true));
    assert_eq!(keys(&store, &Range { revision: 3, ..all }), "a b", "as it was");
}

#[test]
fn what_is_sorted_by_a_field_is_ascending_unless_it_says_otherwise() {
    let (_disk, mut store) = store();
    for (key, value) in [("c", "1"), ("a", "3"), ("b", "2"), ("c", "4"), ("a", "0"), ("c", "5")] {
        apply(&mut store, &put(key, value));
    }
    for (sort_by, ascending) in [
        (SortBy::Key, "a b c"),
        (SortBy::Create, "c a b"),
        (SortBy::Mod, "b a c"),
        (SortBy::Version, "b a c"),
        (SortBy::Value, "a b c"),
    ] {
        let sorted = Range { sort_by, ..Range::new(Span::Prefix("".into())) };
        assert_eq!(keys(&store, &sorted), ascending, "{sort_by:?}");
        let backwards: Vec<&str> = ascending.split(' ').rev().collect();
        let sorted = Range { order: Order::Descending, ..sorted };
        assert_eq!(keys(&store, &sorted), backwards.join(" "), "{sort_by:?}");
        assert_eq!(keys(&store, &Range { limit: 1, ..sorted }), backwards[0], "sorted before it is cut off");
    }
}

#[test]
fn only_keys_have_no_values_and_only_a_count_has_no_keys() {
    let (_disk, mut store) = store();
    for key in ["a", "b"] {
        apply(&mut store, &put(key, "value"));
    }
    let all = Range::new(Span::Prefix("".into()));
    let keys = kvs(&store, &Range { keys_only: true, ..all.clone() });
    assert!(keys.len() == 2 && keys.iter().all(|kv| kv.value.is_empty() && kv.create_revision > 1));
    let counted = store.range(&Range { count_only: true, ..all }).unwrap().unwrap();
    assert_eq!((counted.count, counted.kvs.len(), counted.more), (2, 0, false));
}

#[test]
fn a_compaction_is_ahead_of_the_last_one_and_not_of_the_store() {
    let (_disk, mut store) = store();
    for _ in 0..5 {
        apply(&mut store, &put("k", "v"));
    }
    let mut compact =
        |revision| match apply(&mut store, &Command::Compact(Compact { revision, physical: false })) {
            Body::Compacted { revision } => Ok(revision),
            Body::Fault(fault) => Err((fault.code, fault.text)),
            other => panic!("{other:?}"),
        };
    assert_eq!(compact(4), Ok(4));
    let gone = compact(4).unwrap_err();
    assert_eq!(gone, (Code::Compacted, "4 etcdserver: mvcc: required revision has been compacted".into()));
    assert_eq!(compact(3).unwrap_err().0, Code::Compacted);
    let future = compact(7).unwrap_err();
    assert_eq!(future, (Code::Future, "6 etcdserver: mvcc: required revision is a future revision".into()));
    assert_eq!(compact(6), Ok(6), "the newest");
    assert_eq!(store.revision(), 6, "no compaction makes a revision");
}
