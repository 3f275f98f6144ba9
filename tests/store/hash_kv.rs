//! The hash of the history, held against what a real etcd 3.5.1 told.

use pawl::api::{Code, Span};
use pawl::store::{Budget, HashKv, Store};

use super::compact::{compact, sweep_all};
use super::*;

/// In parts of so many keys.
fn hash(store: &Store<SimDisk>, revision: u64, keys: usize) -> Result<HashKv, Code> {
    let mut hashing = store.begin_hash_kv(revision).map_err(|fault| fault.code)?;
    loop {
        let mut budget = Budget { keys, bytes: usize::MAX };
        if let Some(done) = store.hash_kv_part(&mut hashing, &mut budget).unwrap().unwrap() {
            return Ok(done);
        }
    }
}

#[test]
fn it_is_etcds() {
    let mut store = new_store(&disk(), 256);
    let of = |store: &Store<SimDisk>, revision| {
        let whole = hash(store, revision, usize::MAX);
        assert_eq!(whole, hash(store, revision, 1), "in parts");
        whole.map(|told| (told.hash, told.revision, told.compact_revision))
    };
    assert_eq!(of(&store, 0), Ok((1_084_519_789, 1, 0)));
    for command in [put("k", "v"), put("k", "w"), put("a", "1"), delete(Span::Key("k".into()))] {
        apply(&mut store, &command);
    }
    assert_eq!(of(&store, 0), Ok((3_003_664_090, 5, 0)));
    assert_eq!(of(&store, 3), Ok((3_921_404_532, 3, 0)));
    assert_eq!(of(&store, 6), Err(Code::Future));
    apply(&mut store, &compact(4));
    // Swept or not.
    for _ in 0..2 {
        assert_eq!(of(&store, 0), Ok((3_729_434_093, 5, 4)));
        assert_eq!(of(&store, 4), Err(Code::Compacted), "as in etcd 3.5.1");
        sweep_all(&mut store);
    }
}

/// There what a compaction left counts, though it is not seen any more.
#[test]
fn it_is_etcds_where_no_key_is_left() {
    let mut store = new_store(&disk(), 256);
    let of = |store: &Store<SimDisk>, revision| {
        let whole = hash(store, revision, usize::MAX).unwrap();
        assert_eq!(Ok(whole), hash(store, revision, 1), "in parts");
        whole.hash
    };
    for command in [put("k", "v"), put("a", "1"), put("k", "w"), compact(3)] {
        apply(&mut store, &command);
    }
    for key in ["k", "a"] {
        apply(&mut store, &delete(Span::Key(key.into())));
    }
    // Swept or not.
    for _ in 0..2 {
        assert_eq!((of(&store, 4), of(&store, 5)), (1_320_250_260, 1_131_659_399));
        assert_eq!(of(&store, 6), 2_895_543_738);
        sweep_all(&mut store);
    }
    apply(&mut store, &put("z", "2"));
    assert_eq!((of(&store, 6), of(&store, 7)), (2_895_543_738, 585_717_999));
}

#[test]
fn a_compaction_in_the_middle_begins_it_anew() {
    let mut store = new_store(&disk(), 256);
    for round in 0..20 {
        apply(&mut store, &put(format!("k{}", round % 3), format!("{round}")));
    }
    let begun = || store.begin_hash_kv(15).unwrap();
    let (mut early, mut late) = (begun(), begun());
    for hashing in [&mut early, &mut late] {
        let told = store.hash_kv_part(hashing, &mut Budget { keys: 5, ..Budget::WHOLE }).unwrap();
        assert_eq!(told, Ok(None));
    }
    apply(&mut store, &compact(10));
    sweep_all(&mut store);
    let told = store.hash_kv_part(&mut early, &mut Budget::WHOLE.clone()).unwrap().unwrap();
    assert_eq!(told, Some(hash(&store, 15, 1).unwrap()));
    apply(&mut store, &compact(16));
    let refused = store.hash_kv_part(&mut late, &mut Budget::WHOLE.clone()).unwrap();
    assert_eq!(refused.map_err(|fault| fault.code), Err(Code::Compacted));
}
