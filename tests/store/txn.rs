//! Transactions: each rule by name, and random ones for the model.

use super::compact::compact;
use super::random::{random_lease, random_put, random_range, random_span, random_value};
use super::*;
use pawl::api::CompareResult::{self, Equal, Greater, Less, NotEqual};
use pawl::api::{
    Code, Compare, LeaseAnswer, LeaseRef, Limits, Op, Order, Range, RangeResult, Request, SortBy, Target,
    Txn, TxnResult, validate,
};
use pawl::base::Rng;

/// One that passes the gate.
pub fn random_txn(rng: &mut Rng, revision: u64, writes: bool) -> Txn {
    loop {
        let txn = any_txn(rng, revision, writes, 0);
        if validate::check(&Request::Txn(txn.clone()), &Limits::default()).is_ok()
            && txn.is_read_only() != writes
        {
            return txn;
        }
    }
}

fn any_txn(rng: &mut Rng, revision: u64, writes: bool, depth: u64) -> Txn {
    let compares = (0..rng.below(3)).map(|_| random_compare(rng, revision)).collect();
    let mut ops = || (0..rng.below(4 - depth)).map(|_| random_op(rng, revision, writes, depth)).collect();
    Txn { success: ops(), failure: ops(), compares }
}

fn random_op(rng: &mut Rng, revision: u64, writes: bool, depth: u64) -> Op {
    match rng.below(if writes { 10 } else { 4 }) {
        0 if depth < 3 => Op::Txn(any_txn(rng, revision, writes, depth + 1)),
        0..4 => {
            let mut range = random_range(rng, revision);
            if rng.one_in(2) {
                range.revision = 0;
            }
            Op::Range(range)
        }
        4..8 => {
            let mut put = random_put(rng);
            if rng.one_in(2) {
                put.lease = 0; // Or most would lack a lease.
            }
            Op::Put(put)
        }
        _ => Op::Delete(Delete { span: random_span(rng), prev_kv: rng.one_in(2) }),
    }
}

fn random_compare(rng: &mut Rng, revision: u64) -> Compare {
    let result = [Equal, NotEqual, Less, Greater];
    let near = |rng: &mut Rng, most: u64| rng.between(0, most + 1) as i64 - 1;
    let target = match rng.below(5) {
        0 => Target::Value(random_value(rng)),
        1 => Target::Version(near(rng, 4)),
        2 => Target::Create(near(rng, revision)),
        3 => Target::Mod(near(rng, revision)),
        _ => Target::Lease(random_lease(rng)),
    };
    Compare { span: random_span(rng), target, result: result[rng.below(4) as usize] }
}

// ---- The rules

fn store() -> (SimDisk, Store<SimDisk>) {
    let disk = disk();
    let store = new_store(&disk, 512);
    (disk, store)
}

fn key(key: &'static str) -> Span {
    Span::Key(key.into())
}

fn when(span: Span, result: CompareResult, target: Target) -> Txn {
    Txn { compares: vec![Compare { span, target, result }], ..Txn::default() }
}

fn then(success: Vec<Op>) -> Txn {
    Txn { success, ..Txn::default() }
}

fn puts(key: &'static str, value: &'static str) -> Op {
    Op::Put(Put { key: key.into(), value: value.into(), ..Put::default() })
}

fn keeps(key: &'static str) -> Op {
    Op::Put(Put { key: key.into(), ignore_value: true, ..Put::default() })
}

fn deletes(span: Span) -> Op {
    Op::Delete(Delete { span, prev_kv: false })
}

fn reads(span: Span) -> Op {
    Op::Range(Range::new(span))
}

fn reads_at(span: Span, revision: u64) -> Op {
    Op::Range(Range { revision, ..Range::new(span) })
}

fn run(store: &mut Store<SimDisk>, txn: Txn) -> TxnResult {
    match apply(store, &Command::Txn(txn)) {
        Body::Txn(result) => result,
        other => panic!("not done: {other:?}"),
    }
}

fn refused(store: &mut Store<SimDisk>, txn: Txn) -> Code {
    match apply(store, &Command::Txn(txn)) {
        Body::Fault(fault) => fault.code,
        _ => panic!("it was done"),
    }
}

fn holds(store: &mut Store<SimDisk>, span: Span, result: CompareResult, target: Target) -> bool {
    store.read_txn(&when(span, result, target)).unwrap().unwrap().succeeded
}

fn range_of(body: &Body) -> &RangeResult {
    match body {
        Body::Range(result) => result,
        other => panic!("no range: {other:?}"),
    }
}

fn values(body: &Body) -> Vec<&str> {
    range_of(body).kvs.iter().map(|kv| std::str::from_utf8(&kv.value).unwrap()).collect()
}

#[test]
fn each_target_is_compared_by_each_operator() {
    let (_disk, mut store) = store();
    apply(&mut store, &put("k", "b")); // 2
    apply(&mut store, &put("x", "x")); // 3
    apply(&mut store, &put("k", "m")); // 4: created at 2, version 2
    type Numbered = fn(i64) -> Target;
    let numbers: [(Numbered, i64); 4] =
        [(Target::Version, 2), (Target::Create, 2), (Target::Mod, 4), (Target::Lease, 0)];
    for (target, is) in numbers {
        for given in [i64::MIN, -1, is - 1, is, is + 1, i64::MAX] {
            for (result, expected) in
                [(Equal, is == given), (NotEqual, is != given), (Less, is < given), (Greater, is > given)]
            {
                let found = holds(&mut store, key("k"), result, target(given));
                assert_eq!(found, expected, "{is} {result:?} {:?}", target(given));
            }
        }
    }
    for given in ["", "a", "m", "ma", "z"] {
        for (result, expected) in
            [(Equal, "m" == given), (NotEqual, "m" != given), (Less, "m" < given), (Greater, "m" > given)]
        {
            assert_eq!(holds(&mut store, key("k"), result, Target::Value(given.into())), expected, "{given}");
        }
    }
}

#[test]
fn a_key_that_is_not_there_has_numbers_of_0_and_no_value() {
    let (_disk, mut store) = store();
    apply(&mut store, &put("gone", "v"));
    apply(&mut store, &delete(key("gone")));
    let nowhere = [key("gone"), key("never"), Span::From("h".into()), Span::Between("z".into(), "a".into())];
    for span in nowhere {
        for target in [Target::Version, Target::Create, Target::Mod, Target::Lease] {
            assert!(holds(&mut store, span.clone(), Equal, target(0)));
            assert!(holds(&mut store, span.clone(), Less, target(1)));
            assert!(holds(&mut store, span.clone(), Greater, target(-1)));
            assert!(!holds(&mut store, span.clone(), NotEqual, target(0)));
        }
        for result in [Equal, NotEqual, Less, Greater] {
            assert!(!holds(&mut store, span.clone(), result, Target::Value("".into())));
            assert!(!holds(&mut store, span.clone(), result, Target::Value("v".into())));
        }
    }
}

#[test]
fn a_compare_of_a_span_holds_if_it_holds_for_every_key_that_is_there() {
    let (_disk, mut store) = store();
    for (name, value) in [("a", "1"), ("b", "2"), ("c", "2"), ("d", "2")] {
        apply(&mut store, &put(name, value));
    }
    apply(&mut store, &delete(key("d")));
    let all = Span::Prefix(Bytes::new());
    assert!(holds(&mut store, all.clone(), Equal, Target::Version(1)));
    assert!(holds(&mut store, all.clone(), Greater, Target::Value("0".into())));
    assert!(!holds(&mut store, all.clone(), Equal, Target::Value("1".into())), "the first one alone");
    assert!(!holds(&mut store, all.clone(), Equal, Target::Value("2".into())), "the last ones alone");
    assert!(!holds(&mut store, all, Less, Target::Mod(4)), "the first ones alone");
    assert!(holds(&mut store, Span::From("b".into()), Equal, Target::Value("2".into())));
    assert!(holds(&mut store, Span::Between("a".into(), "b".into()), Equal, Target::Value("1".into())));
}

#[test]
fn all_compares_must_hold() {
    let (_disk, mut store) = store();
    apply(&mut store, &put("k", "v"));
    let two = |second| Txn {
        compares: vec![
            Compare { span: key("k"), target: Target::Version(1), result: Equal },
            Compare { span: key("k"), target: Target::Value(second), result: Equal },
        ],
        success: vec![puts("k", "yes")],
        failure: vec![puts("k", "no")],
    };
    assert!(run(&mut store, Txn { compares: Vec::new(), ..two("".into()) }).succeeded, "none is all");
    let result = run(&mut store, two("x".into()));
    assert!(!result.succeeded);
    let result = run(&mut store, Txn { compares: two("no".into()).compares[1..].to_vec(), ..two("".into()) });
    assert!(result.succeeded);
    assert_eq!(values(&run(&mut store, then(vec![reads(key("k"))])).responses[0]), ["yes"]);
}

/// And a key's create revision and version count as they do for single requests.
#[test]
fn a_transaction_is_one_revision_whose_changes_are_in_its_order() {
    let (disk, mut store) = store();
    apply(&mut store, &put("b", "old"));
    apply(&mut store, &put("d1", ""));
    apply(&mut store, &put("d2", ""));
    let result = run(
        &mut store,
        then(vec![
            puts("z", "1"),
            deletes(Span::Prefix("d".into())),
            Op::Txn(then(vec![puts("a", "2")])),
            puts("b", "3"),
        ]),
    );
    assert_eq!((result.revision, store.revision()), (5, 5));
    let revisions: Vec<u64> = result
        .responses
        .iter()
        .map(|body| match body {
            Body::Put { revision, .. } | Body::Delete { revision, .. } => *revision,
            Body::Txn(result) => result.revision,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(revisions, [5, 5, 5, 5]);
    let all = store.range(&Range::new(Span::From("a".into()))).unwrap().unwrap();
    let found: Vec<(&[u8], u64, u64, u64)> =
        all.kvs.iter().map(|kv| (&kv.key[..], kv.create_revision, kv.mod_revision, kv.version)).collect();
    assert_eq!(found, [(&b"a"[..], 5, 5, 1), (b"b", 2, 5, 2), (b"z", 5, 5, 1)]);
    let before = store.range(&Range { revision: 4, ..Range::new(Span::From("a".into())) }).unwrap().unwrap();
    assert_eq!(before.kvs.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), [&b"b"[..], b"d1", b"d2"]);
    assert_sound(&disk, store);
}

#[test]
fn an_operation_sees_those_before_it() {
    let (_disk, mut store) = store();
    apply(&mut store, &put("a", "old"));
    let all = || Span::Prefix(Bytes::new());
    let result = run(
        &mut store,
        then(vec![
            reads(all()),
            puts("b", "new"),
            reads(all()),
            deletes(key("a")),
            reads(all()),
            reads_at(all(), 2),
            Op::Range(Range { count_only: true, ..Range::new(all()) }),
        ]),
    );
    let seen = |at: usize| (range_of(&result.responses[at]).revision, values(&result.responses[at]));
    assert_eq!(seen(0), (2, vec!["old"]), "nothing is written so far");
    assert_eq!(seen(2), (3, vec!["old", "new"]));
    assert_eq!(seen(4), (3, vec!["new"]));
    assert_eq!(seen(5), (2, vec!["old"]), "an old revision stays as it was");
    assert_eq!(range_of(&result.responses[6]).count, 1);
}

#[test]
fn the_second_delete_of_a_key_finds_nothing() {
    let (disk, mut store) = store();
    for name in ["a", "b", "c"] {
        apply(&mut store, &put(name, name));
    }
    let result = run(
        &mut store,
        then(vec![
            deletes(Span::Between("a".into(), "c".into())),
            Op::Delete(Delete { span: Span::Prefix(Bytes::new()), prev_kv: true }),
            deletes(key("a")),
        ]),
    );
    let deleted: Vec<(u64, u64, usize)> = result
        .responses
        .iter()
        .map(|body| match body {
            Body::Delete { revision, deleted, previous } => (*revision, *deleted, previous.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(deleted, [(5, 2, 0), (5, 1, 1), (5, 0, 0)]);
    assert_sound(&disk, store);
}

/// As in etcd: all compares are decided before anything is done.
#[test]
fn a_nested_compare_looks_at_the_state_before_everything() {
    let (_disk, mut store) = store();
    let nested = Txn {
        success: vec![puts("seen", "")],
        failure: vec![puts("not seen", "")],
        ..when(key("k"), Equal, Target::Version(1))
    };
    let result = run(&mut store, then(vec![puts("k", "v"), Op::Txn(nested)]));
    let Body::Txn(nested) = &result.responses[1] else { panic!("{result:?}") };
    assert!(!nested.succeeded && nested.revision == 2);
    assert!(holds(&mut store, key("not seen"), Equal, Target::Create(2)));
}

#[test]
fn the_branch_that_is_not_chosen_is_not_even_checked() {
    let (_disk, mut store) = store();
    let txn = Txn {
        success: vec![keeps("absent"), reads_at(key("k"), 99)],
        failure: vec![puts("k", "v")],
        ..when(key("k"), Greater, Target::Version(0))
    };
    assert!(!run(&mut store, txn).succeeded);
}

#[test]
fn what_cannot_be_done_leaves_nothing_behind() {
    let (disk, mut store) = store();
    apply(&mut store, &put("k", "v"));
    let leased =
        |ignore_value| Op::Put(Put { key: "absent".into(), lease: 7, ignore_value, ..Put::default() });
    let before = store.content_hash().unwrap();
    for (code, last) in [
        (Code::NoKey, keeps("absent")),
        (Code::NoKey, Op::Put(Put { key: "absent".into(), ignore_lease: true, ..Put::default() })),
        (Code::NoLease, leased(false)),
        (Code::NoKey, leased(true)),
        (Code::Future, reads_at(key("k"), 3)),
        (Code::NoKey, Op::Txn(then(vec![puts("c", ""), keeps("absent")]))),
    ] {
        let txn = then(vec![puts("a", ""), deletes(key("k")), Op::Txn(then(vec![puts("b", "")])), last]);
        assert_eq!(refused(&mut store, txn), code);
        assert_eq!(store.revision(), 2);
        assert_eq!(store.content_hash().unwrap(), before);
    }
    let first = then(vec![reads_at(key("k"), 3), keeps("absent")]);
    assert_eq!(refused(&mut store, first), Code::NoKey, "puts are asked before reads");
    assert_sound(&disk, store);
}

#[test]
fn a_transaction_attaches_and_detaches_and_a_revocation_takes_what_is_attached() {
    let (disk, mut store) = store();
    let attached = |store: &Store<SimDisk>, id| store.lease_keys(id, usize::MAX).unwrap();
    let with = |key: &'static str, lease| Op::Put(Put { key: key.into(), lease, ..Put::default() });
    for id in [7, 8] {
        apply(&mut store, &Command::LeaseGrant { id, ttl_s: 60 });
    }
    let all = ["a", "b", "c", "d", "e"].map(|key| with(key, 7)).to_vec();
    run(&mut store, then([all, vec![puts("f", "")]].concat())); // 2
    assert_eq!(attached(&store, 7), ["a", "b", "c", "d", "e"]);
    let keeps_lease = Op::Put(Put { key: "a".into(), ignore_lease: true, ..Put::default() });
    let inner = then(vec![deletes(key("d")), keeps_lease, with("f", 7)]);
    let detaches = |other| Txn {
        success: vec![puts("b", "free"), with("c", 8), Op::Txn(inner.clone())],
        failure: vec![with("e", other)],
        ..when(Span::Between("a".into(), "f".into()), Equal, Target::Lease(7))
    };
    assert!(run(&mut store, detaches(9)).succeeded, "the lease of the other branch need not be there"); // 3
    assert_eq!(
        (attached(&store, 7), attached(&store, 8)),
        (vec!["a".into(), "e".into(), "f".into()], vec!["c".into()])
    );
    assert_eq!(refused(&mut store, detaches(9)), Code::NoLease);
    assert!(!run(&mut store, detaches(8)).succeeded); // 4
    assert_eq!(
        (attached(&store, 7), attached(&store, 8)),
        (vec!["a".into(), "f".into()], vec!["c".into(), "e".into()])
    );
    let revoke = Command::LeaseRevoke { term: 0, leases: vec![LeaseRef { id: 7, generation: 0 }] };
    let revoked = LeaseAnswer::Revoked { revision: 5, deleted: 2 };
    assert_eq!(apply(&mut store, &revoke), Body::Lease(revoked));
    let left = store.range(&Range::new(Span::Prefix(Bytes::new()))).unwrap().unwrap().kvs;
    let left: Vec<(&[u8], i64)> = left.iter().map(|kv| (&kv.key[..], kv.lease)).collect();
    assert_eq!(left, [(&b"b"[..], 0), (b"c", 8), (b"e", 8)]);
    assert_eq!(refused(&mut store, then(vec![puts("a", ""), with("b", 7)])), Code::NoLease);
    assert_sound(&disk, store);
}

#[test]
fn what_is_compacted_stops_a_transaction_and_its_own_writes_do_not_hide_it() {
    let (_disk, mut store) = store();
    for value in ["v2", "v3", "v4"] {
        apply(&mut store, &put("k", value));
    }
    apply(&mut store, &compact(3));
    let late = then(vec![puts("k", "v5"), reads_at(key("k"), 2)]);
    assert_eq!(refused(&mut store, late), Code::Compacted);
    assert_eq!(store.revision(), 4);
    let result = run(&mut store, then(vec![puts("k", "v5"), reads_at(key("k"), 3), reads_at(key("k"), 4)]));
    assert_eq!(values(&result.responses[1]), ["v3"]);
    assert_eq!(values(&result.responses[2]), ["v4"], "the revision before the transaction");
}

/// All members answer it, in memory. Its own writes may carry it a little beyond the bound.
#[test]
fn what_a_transaction_reads_has_a_bound() {
    let (_disk, mut store) = store();
    let large =
        |name: String| Put { key: name.into(), value: "v".repeat(2_000_000).into(), ..Put::default() };
    for n in 0..33 {
        apply(&mut store, &Command::Put(large(format!("k{n:02}"))));
    }
    let all = Range::new(Span::Prefix("k".into()));
    let sorted = Range { sort_by: SortBy::Value, order: Order::Descending, ..all.clone() };
    let fits = then(vec![Op::Put(large("k33".into())), Op::Range(sorted.clone())]);
    assert_eq!(range_of(&run(&mut store, fits).responses[1]).kvs.len(), 34);

    apply(&mut store, &Command::Put(large("k34".into())));
    let half = Range { limit: 18, ..all.clone() };
    for ranges in [vec![all.clone()], vec![sorted], vec![half.clone(), half]] {
        let ranges: Vec<Op> = ranges.into_iter().map(Op::Range).collect();
        let writes = then([vec![puts("a", "")], ranges.clone()].concat());
        assert_eq!(refused(&mut store, writes), Code::TooLarge);
        assert_eq!(store.revision(), 36);
        assert_eq!(store.read_txn(&then(ranges)).unwrap().unwrap_err().code, Code::TooLarge);
    }
    let counted = Range { count_only: true, ..all };
    assert_eq!(range_of(&run(&mut store, then(vec![Op::Range(counted)])).responses[0]).count, 35);
}

/// What changes are to show of what was there counts as what is read, and alone it has the same bound.
#[test]
fn what_was_there_has_the_same_bound_wherever_it_is_to_be_shown() {
    let (_disk, mut store) = store();
    for n in 0..34 {
        let value = "v".repeat(2_000_000).into();
        apply(&mut store, &Command::Put(Put { key: format!("k{n:02}").into(), value, ..Put::default() }));
    }
    let delete = |span, prev_kv| Delete { span, prev_kv };
    let shows = |key: &'static str| {
        Op::Put(Put { key: key.into(), value: "new".into(), prev_kv: true, ..Put::default() })
    };
    let goes = |from: &'static str, to: &'static str| {
        Op::Delete(delete(Span::Between(from.into(), to.into()), true))
    };
    let all = delete(Span::Prefix("k".into()), true);
    // 66 MB fit, 68 do not.
    let alone = apply(&mut store, &Command::Delete(all.clone()));
    assert!(matches!(&alone, Body::Fault(fault) if fault.code == Code::TooLarge), "{alone:?}");
    for ops in [
        vec![Op::Delete(all)],
        vec![goes("k00", "k17"), goes("k17", "k40")],
        vec![Op::Txn(then(vec![goes("k00", "k33")])), shows("k33")],
        vec![Op::Range(Range { limit: 17, ..Range::new(Span::Prefix("k".into())) }), goes("k17", "k40")],
        vec![goes("k00", "k33"), shows("k33")],
        (0..34).map(|_| Op::Range(Range::new(Span::Key("k00".into())))).collect(),
    ] {
        assert_eq!(refused(&mut store, then([vec![puts("a", "")], ops].concat())), Code::TooLarge);
    }
    assert_eq!(store.revision(), 35, "nothing happened");
    let one = apply(&mut store, &Command::Delete(delete(Span::Key("k33".into()), true)));
    assert!(matches!(&one, Body::Delete { deleted: 1, previous, .. } if previous.len() == 1), "{one:?}");
    let fits = run(&mut store, then(vec![goes("k00", "k33"), puts("a", "")]));
    assert!(matches!(&fits.responses[0], Body::Delete { deleted: 33, previous, .. } if previous.len() == 33));
}

/// A put that keeps the value of a key that the transaction itself puts before it is refused at the gate; that of a key
/// which was there is not disturbed by what comes before.
#[test]
fn a_put_may_keep_what_was_there_before_the_transaction() {
    let (_disk, mut store) = store();
    apply(&mut store, &put("k", "kept"));
    let result = run(&mut store, then(vec![puts("a", ""), keeps("k"), reads(key("k"))]));
    assert_eq!(values(&result.responses[2]), ["kept"]);
    assert_eq!(range_of(&result.responses[2]).kvs[0].mod_revision, 3);
}

#[test]
fn a_transaction_that_writes_nothing_makes_no_revision() {
    let (_disk, mut store) = store();
    apply(&mut store, &put("k", "v"));
    let absent = then(vec![deletes(key("none")), Op::Txn(then(vec![deletes(Span::From("l".into()))]))]);
    let chosen = Txn { success: vec![puts("k", "w")], ..when(key("k"), Equal, Target::Version(9)) };
    for txn in [Txn::default(), absent, chosen, then(vec![reads(key("k"))])] {
        let index = store.applied().index;
        let hash = store.hash();
        assert_eq!(run(&mut store, txn).revision, 2);
        assert_eq!((store.revision(), store.applied().index), (2, index + 1));
        assert_ne!(store.hash(), hash, "it counts as an entry");
    }
}

#[test]
fn a_read_only_transaction_changes_nothing() {
    let (_disk, mut store) = store();
    apply(&mut store, &put("k", "v"));
    let (applied, hash) = (store.applied(), store.hash());
    let nested = Txn { success: vec![reads(key("k"))], ..when(key("k"), Equal, Target::Mod(2)) };
    let result = store.read_txn(&then(vec![reads(key("none")), Op::Txn(nested)])).unwrap().unwrap();
    let Body::Txn(inner) = &result.responses[1] else { panic!("{result:?}") };
    assert!(result.succeeded && inner.succeeded && values(&inner.responses[0]) == ["v"]);
    let late = store.read_txn(&then(vec![reads_at(key("k"), 3)])).unwrap().unwrap_err();
    assert_eq!(late.to_string(), "FUTURE 2 etcdserver: mvcc: required revision is a future revision");
    assert_eq!((store.applied(), store.hash()), (applied, hash));
}

#[test]
#[should_panic(expected = "what writes comes from the log")]
fn a_read_never_writes() {
    let (_disk, mut store) = store();
    let _ = store.read_txn(&Txn { failure: vec![puts("k", "v")], ..Txn::default() });
}

/// The gate refuses it; a store that is asked all the same must not write what it could not read.
#[test]
#[should_panic(expected = "a key changes once in a revision")]
fn a_key_changes_once_in_a_revision() {
    let (_disk, mut store) = store();
    run(&mut store, then(vec![puts("k", "1"), puts("k", "2")]));
}
