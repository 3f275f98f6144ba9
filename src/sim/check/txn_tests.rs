//! The judges judged, of transactions: each rule, each kind of lie.

use bytes::Bytes;

use super::super::history::{Answer, Change, History, Op, Outcome};
use super::tests::{
    STATES_MAX, broken, everything, found, get, kv, mutate_answer, op, put, refused, told, unanswered, with,
    wrote,
};
use super::txn::{Asked, everything as everything_in};
use super::{Rule, check, wgl};
use crate::api::{
    Code, Compare, CompareResult, Delete, KeyValue, Op as Part, Put, Range, Request, Span, Target, Txn,
};
use crate::base::{Revision, Rng};

/// Behind [`told`]: a=5 (create 2, mod 7, version 3), b=4 (6, 6, 1), the store at 7.
fn a() -> KeyValue {
    kv("a", "5", 2, 7, 3)
}

fn b() -> KeyValue {
    kv("b", "4", 6, 6, 1)
}

fn key(key: &'static str) -> Span {
    Span::Key(key.into())
}

fn puts(key: &'static str, value: &'static str) -> Part {
    Part::Put(Put { key: key.into(), value: value.into(), ..Put::default() })
}

fn keeps(key: &'static str) -> Part {
    Part::Put(Put { key: key.into(), ignore_value: true, ..Put::default() })
}

fn deletes(span: Span) -> Part {
    Part::Delete(Delete { span, prev_kv: false })
}

fn reads_all() -> Part {
    Part::Range(everything())
}

fn is(span: Span, target: Target) -> Compare {
    Compare { span, target, result: CompareResult::Equal }
}

fn value(value: &'static str) -> Target {
    Target::Value(value.into())
}

fn txn(compares: Vec<Compare>, success: Vec<Part>, failure: Vec<Part>) -> Request {
    Request::Txn(Txn { compares, success, failure })
}

fn then(success: Vec<Part>) -> Request {
    txn(vec![], success, vec![])
}

fn done(revision: Revision, succeeded: bool, responses: Vec<Answer>) -> Answer {
    Answer::Txn { revision, succeeded, responses }
}

fn gone(revision: Revision, deleted: u64) -> Answer {
    Answer::Delete { revision, deleted, previous: Vec::new() }
}

/// What is found with this operation at the end.
fn of(request: Request, answer: Answer) -> Option<Rule> {
    broken(&with(op(3, 90, 91, request, answer)))
}

const RIGHT: Option<Rule> = None;
const WRONG: Option<Rule> = Some(Rule::RightAnswer);

#[test]
fn the_way_is_the_one_that_the_compares_choose() {
    let choose = |compare: Compare| txn(vec![compare], vec![puts("c", "t")], vec![puts("c", "e")]);
    let then = done(8, true, vec![wrote(8)]);
    let otherwise = done(8, false, vec![wrote(8)]);
    let all = || Span::Prefix(Bytes::new());
    for (compare, holds) in [
        (is(key("a"), value("5")), true),
        (is(key("a"), value("4")), false),
        (is(key("a"), Target::Version(3)), true),
        (is(key("a"), Target::Create(7)), false),
        (is(key("a"), Target::Mod(7)), true),
        (is(key("a"), Target::Lease(0)), true),
        (is(key("c"), Target::Version(0)), true),
        (is(key("c"), Target::Mod(-1)), false),
        (is(key("c"), value("")), false),
        (Compare { result: CompareResult::NotEqual, ..is(key("c"), value("x")) }, false),
        (Compare { result: CompareResult::Greater, ..is(all(), Target::Version(0)) }, true),
        (is(all(), value("5")), false),
        (is(all(), value("4")), false),
        (is(Span::Between("b".into(), "a".into()), Target::Mod(0)), true),
    ] {
        let (right, wrong) = if holds { (&then, &otherwise) } else { (&otherwise, &then) };
        assert_eq!(of(choose(compare.clone()), right.clone()), RIGHT, "{compare:?}");
        assert_eq!(of(choose(compare.clone()), wrong.clone()), WRONG, "{compare:?}");
    }
    // A nested one looks at the state before, too.
    let nested = |success, failure| {
        Part::Txn(Txn { compares: vec![is(key("c"), Target::Version(0))], success, failure })
    };
    let request = || super::txn_tests::then(vec![puts("c", "1"), nested(vec![puts("d", "1")], vec![])]);
    assert_eq!(of(request(), done(8, true, vec![wrote(8), done(8, true, vec![wrote(8)])])), RIGHT);
    assert_eq!(of(request(), done(8, true, vec![wrote(8), done(8, false, vec![])])), WRONG);
}

#[test]
fn operations_see_those_before_them_and_share_one_revision() {
    let c = || kv("c", "1", 8, 8, 1);
    let request = || {
        then(vec![
            reads_all(),
            puts("c", "1"),
            reads_all(),
            deletes(key("b")),
            deletes(key("b")),
            reads_all(),
        ])
    };
    let answers = || {
        vec![
            found(7, &[a(), b()]),
            wrote(8),
            found(8, &[a(), b(), c()]),
            gone(8, 1),
            gone(8, 0),
            found(8, &[a(), c()]),
        ]
    };
    let with = |at: usize, answer: Answer| {
        let mut answers = answers();
        answers[at] = answer;
        of(request(), done(8, true, answers))
    };
    assert_eq!(of(request(), done(8, true, answers())), RIGHT);
    for (at, lie) in [
        (0, found(8, &[a(), b()])),
        (0, found(8, &[a(), b(), c()])),
        (1, wrote(9)),
        (2, found(7, &[a(), b()])),
        (2, found(8, &[a(), b()])),
        (2, found(8, &[a(), b(), kv("c", "1", 8, 8, 2)])),
        (3, gone(7, 1)),
        (3, gone(8, 2)),
        (4, gone(7, 0)),
        (4, gone(8, 1)),
        (5, found(8, &[a(), b(), c()])),
    ] {
        assert_eq!(with(at, lie.clone()), WRONG, "{lie}");
    }
    assert_eq!(of(request(), done(8, true, answers()[..5].to_vec())), WRONG, "an answer is missing");
    assert_eq!(of(request(), done(9, true, answers())), Some(Rule::AppliedOnce), "it shows what it did at 8");
    let old = |revision| Part::Range(Range { revision, ..Range::new(key("a")) });
    let request = || then(vec![puts("a", "6"), old(5), old(7)]);
    let a5 = || found(5, &[kv("a", "3", 2, 4, 2)]);
    assert_eq!(of(request(), done(8, true, vec![wrote(8), a5(), found(7, &[a()])])), RIGHT);
    let late = vec![wrote(8), a5(), found(7, &[kv("a", "6", 2, 8, 4)])];
    assert_eq!(of(request(), done(8, true, late)), WRONG);
}

#[test]
fn what_was_there_before_is_told_as_ever() {
    let request = || {
        let put = Put { key: "a".into(), value: "6".into(), prev_kv: true, ..Put::default() };
        then(vec![Part::Put(put), Part::Delete(Delete { span: key("b"), prev_kv: true })])
    };
    let answer = |previous: Option<KeyValue>, gone: &[KeyValue]| {
        done(
            8,
            true,
            vec![
                Answer::Put { revision: 8, previous: Some(previous) },
                Answer::Delete { revision: 8, deleted: 1, previous: gone.to_vec() },
            ],
        )
    };
    assert_eq!(of(request(), answer(Some(a()), &[b()])), RIGHT);
    assert_eq!(of(request(), answer(None, &[b()])), WRONG);
    assert_eq!(of(request(), answer(Some(b()), &[b()])), WRONG);
    assert_eq!(of(request(), answer(Some(a()), &[])), WRONG);
}

#[test]
fn what_writes_nothing_makes_no_revision() {
    let request =
        || txn(vec![is(key("c"), Target::Version(1))], vec![puts("c", "1")], vec![deletes(key("c"))]);
    assert_eq!(of(request(), done(7, false, vec![gone(7, 0)])), RIGHT);
    assert_eq!(of(request(), done(7, true, vec![wrote(7)])), Some(Rule::OneWritePerRevision));
    assert_eq!(of(request(), done(5, false, vec![gone(5, 0)])), Some(Rule::RealTime), "too old");
    let read = |serializable| {
        Request::Txn(Txn {
            failure: vec![reads_all(), Part::Range(Range { serializable, ..everything() })],
            success: vec![Part::Range(Range { serializable: true, ..Range::new(key("a")) })],
            ..Txn::default()
        })
    };
    let old = || done(5, true, vec![found(5, &[kv("a", "3", 2, 4, 2)])]);
    assert_eq!(of(read(true), old()), Some(Rule::RealTime), "one of its reads does not say so");
    let local = Range { serializable: true, ..Range::new(key("a")) };
    let read =
        txn(vec![is(key("a"), value("3"))], vec![Part::Range(local.clone())], vec![Part::Range(local)]);
    assert_eq!(of(read.clone(), old()), RIGHT, "it may be stale");
    assert_eq!(of(read.clone(), done(5, false, vec![found(5, &[kv("a", "3", 2, 4, 2)])])), WRONG);
    assert_eq!(broken(&with(op(1, 90, 91, read, old()))), Some(Rule::ConnectionForward), "its own writes");
}

#[test]
fn a_transaction_is_stopped_with_reason() {
    let future = |newest| Answer::Future { newest };
    let old = |revision| Part::Range(Range { revision, ..Range::new(key("a")) });
    assert_eq!(of(then(vec![puts("c", "1"), keeps("d")]), Answer::NoKey), RIGHT);
    assert_eq!(
        of(then(vec![keeps("a"), puts("c", "1")]), Answer::NoKey),
        Some(Rule::RealTime),
        "it is there"
    );
    assert_eq!(of(then(vec![puts("c", "1")]), Answer::NoKey), Some(Rule::RealTime), "it keeps nothing");
    assert_eq!(of(then(vec![keeps("d")]), done(8, true, vec![wrote(8)])), WRONG);
    assert_eq!(of(then(vec![puts("c", "1"), old(9)]), future(7)), RIGHT);
    assert_eq!(of(then(vec![puts("c", "1"), old(7)]), future(7)), WRONG);
    assert_eq!(of(then(vec![keeps("d"), old(9)]), future(7)), WRONG, "the key comes first");
    assert_eq!(of(then(vec![old(9), keeps("d")]), Answer::NoKey), RIGHT, "puts are asked before reads");
    assert_eq!(of(then(vec![old(9), keeps("d")]), future(7)), WRONG, "and so the revision is not");
    assert_eq!(of(txn(vec![], vec![], vec![old(9)]), future(7)), WRONG, "not on its way");
    let leased = || Part::Put(Put { key: "c".into(), lease: 7, ..Put::default() });
    let way = |compare, success, failure| of(txn(vec![compare], success, failure), Answer::NoLease);
    let late = Some(Rule::RealTime);
    assert_eq!(of(then(vec![puts("c", "1")]), Answer::NoLease), WRONG);
    assert_eq!(of(then(vec![leased()]), Answer::NoLease), RIGHT);
    assert_eq!(of(then(vec![old(9), leased()]), Answer::NoLease), RIGHT, "puts are asked before reads");
    assert_eq!(of(then(vec![leased(), keeps("d")]), Answer::NoLease), RIGHT);
    assert_eq!(of(then(vec![leased(), keeps("d")]), Answer::NoKey), RIGHT, "the lease may be there");
    assert_eq!(of(then(vec![keeps("d"), leased()]), Answer::NoLease), late, "the key comes first");
    assert_eq!(way(is(key("a"), value("5")), vec![leased()], vec![]), RIGHT);
    assert_eq!(way(is(key("a"), value("5")), vec![puts("c", "1")], vec![leased()]), late, "not on its way");
}

#[test]
fn a_transaction_is_refused_with_reason() {
    let of_refusal = |request: Request, code| {
        let op = refused(90, request);
        broken(&with(Op { outcome: Outcome::Refused { at: op.invoked, code }, ..op }))
    };
    let twice = || then(vec![puts("c", "1"), deletes(Span::From("a".into()))]);
    assert_eq!(of_refusal(twice(), Code::DupKey), RIGHT);
    assert_eq!(of(twice(), done(8, true, vec![wrote(8), gone(8, 3)])), WRONG);
    assert_eq!(of_refusal(then(vec![puts("c", "1"), puts("d", "1")]), Code::DupKey), WRONG);
    let either = |success, failure| Part::Txn(Txn { success, failure, ..Txn::default() });
    let exclusive = then(vec![either(vec![puts("c", "1")], vec![deletes(key("c"))])]);
    assert_eq!(of_refusal(exclusive, Code::DupKey), WRONG);
    let nested = then(vec![either(vec![], vec![puts("c", "1")]), deletes(key("c"))]);
    assert_eq!(of_refusal(nested, Code::DupKey), RIGHT);
}

fn changes(at: &[(Revision, &'static str, Option<&'static str>)]) -> Vec<Change> {
    let change = |&(revision, key, value): &(Revision, &'static str, Option<&'static str>)| Change {
        revision,
        key: Bytes::from(key),
        value: value.map(Bytes::from),
        lease: 0,
    };
    at.iter().map(change).collect()
}

/// Nobody was told of revision 8, and a transaction of unknown outcome may have made it.
#[test]
fn a_transaction_that_nobody_was_told_of_is_known_by_all_that_it_did() {
    let silent = || {
        let request = txn(
            vec![is(key("a"), value("5"))],
            vec![puts("c", "1"), puts("d", "2"), deletes(key("b"))],
            vec![puts("c", "3")],
        );
        unanswered(85, request)
    };
    let told_back = |at: &[(Revision, &'static str, Option<&'static str>)]| {
        let mut history = with(silent());
        history.changes.extend(changes(at));
        broken(&history)
    };
    assert_eq!(told_back(&[]), RIGHT, "never");
    assert_eq!(told_back(&[(8, "b", None), (8, "c", Some("1")), (8, "d", Some("2"))]), RIGHT);
    let nowhere = Some(Rule::NothingFromNowhere);
    assert_eq!(told_back(&[(8, "c", Some("1")), (8, "d", Some("2"))]), nowhere, "half of it");
    assert_eq!(told_back(&[(8, "b", None)]), nowhere, "a third of it");
    assert!(told_back(&[(8, "c", Some("1"))]).is_some(), "one of three");
    assert!(told_back(&[(8, "c", Some("3"))]).is_some(), "the other way");
    let twice =
        [(8, "b", None), (8, "c", Some("1")), (8, "d", Some("2")), (9, "c", Some("1")), (9, "d", Some("2"))];
    assert!(told_back(&twice).is_some(), "twice");

    // Without a read-back, by what somebody saw of it; what it also did is not known.
    let seen = |kvs: &[KeyValue]| {
        let mut ops = told();
        ops.push(silent());
        ops.push(op(3, 90, 91, Request::Range(everything()), found(8, kvs)));
        check(&History::from_ops(ops)).map_err(|violation| violation.rule)
    };
    let (c, d) = (kv("c", "1", 8, 8, 1), kv("d", "2", 8, 8, 1));
    let summary = seen(&[a(), c.clone(), d.clone()]).unwrap();
    assert_eq!((summary.unknown_applied, summary.gaps), (2, 0));
    assert!(summary.unchecked > 0, "whether b is still there was not judged");
    assert_eq!(seen(&[a(), c, kv("d", "1", 8, 8, 1)]), Err(Rule::OneWritePerRevision), "no such pair");
    assert_eq!(seen(&[a(), kv("d", "9", 8, 8, 1)]), Err(Rule::NothingFromNowhere));
}

/// Two that each find the key absent, and put it: one of both lies. The second judge sees it without any revision.
#[test]
fn both_cannot_have_won() {
    let cas = |client, new: &'static str| {
        let request = txn(vec![is(key("lock"), Target::Version(0))], vec![puts("lock", new)], vec![]);
        op(client, 90, 95, request, done(0, true, vec![wrote(0)]))
    };
    let lost = |client| {
        let request = txn(vec![is(key("lock"), Target::Version(0))], vec![puts("lock", "x")], vec![]);
        op(client, 90, 95, request, done(0, false, vec![]))
    };
    let judge = |ops: Vec<Op>| wgl::check(&History::from_ops(ops), STATES_MAX).map_err(|broken| broken.rule);
    assert!(judge(vec![cas(1, "1"), lost(2)]).is_ok());
    assert_eq!(judge(vec![cas(1, "1"), cas(2, "2")]), Err(Rule::Linearizable));
    // And what one has read or written is held against the others.
    let swap = |from: &'static str, to: &'static str| {
        let request = txn(
            vec![is(key("k"), value(from))],
            vec![puts("k", to)],
            vec![Part::Range(Range::new(key("k")))],
        );
        op(1, 10, 20, request, done(0, true, vec![wrote(0)]))
    };
    let first = || op(1, 1, 2, put("k", "1"), wrote(0));
    let reads = |value: &'static str| op(3, 30, 40, get("k"), Answer::Value(Some(value.into())));
    assert!(judge(vec![first(), swap("1", "2"), reads("2")]).is_ok());
    assert!(judge(vec![first(), swap("1", "2"), reads("1")]).is_err());
    assert!(judge(vec![first(), swap("0", "2")]).is_err());
    let perhaps = |value: &'static str| {
        let request = txn(vec![], vec![puts("k", "t")], vec![puts("k", "e")]);
        judge(vec![first(), unanswered(10, request), reads(value)])
    };
    assert!(perhaps("1").is_ok() && perhaps("t").is_ok() && perhaps("e").is_ok() && perhaps("x").is_err());
}

#[test]
fn a_transaction_is_shown_in_one_line() {
    let nested = Txn { failure: vec![keeps("d")], ..Txn::default() };
    let request = txn(
        vec![
            is(key("a"), value("5")),
            Compare { result: CompareResult::Less, ..is(Span::From("b".into()), Target::Mod(-1)) },
        ],
        vec![puts("c", "1"), Part::Txn(nested)],
        vec![deletes(key("c")), reads_all()],
    );
    let op = op(3, 90, 91, request, done(7, false, vec![gone(7, 0), found(7, &[])]));
    assert_eq!(
        op.to_string(),
        "op 0 client 3 conn 3 [0.000090ms .. 0.000091ms] txn if value \"a\" = \"5\", mod \"b\" from < -1 then put \
         \"c\" \"1\", txn else put \"d\" \"\" keepvalue end else delete \"c\", range \"\" prefix end -> revision 7 \
         else (0 deleted, revision 7) (revision 7 count 0 [])"
    );
}

/// Changes one thing in the answer to a transaction.
pub(super) fn mutate_txn(txn: &Txn, answer: &mut Answer, rng: &mut Rng) -> Option<&'static str> {
    if let Answer::Future { newest } = answer {
        let asked = everything_in(txn).into_iter().map(|asked| match asked {
            Asked::Range(range) => range.revision,
            _ => 0,
        });
        *newest = asked.max()?;
        return Some("a future revision that is there");
    }
    let wrote = answer.wrote();
    let Answer::Txn { revision, succeeded, responses } = answer else { return None };
    let ops = if *succeeded { &txn.success } else { &txn.failure };
    match rng.below(5) {
        0 => {
            *succeeded = !*succeeded;
            Some("the other branch")
        }
        1 if wrote => {
            *revision += rng.between(1, 3);
            Some("a later revision for a transaction")
        }
        2 if !responses.is_empty() => {
            responses.remove(rng.below(responses.len() as u64) as usize);
            Some("an answer within a transaction is missing")
        }
        _ if !responses.is_empty() => {
            let at = rng.below(responses.len() as u64) as usize;
            let request = match &ops[at] {
                Part::Put(put) => Request::Put(put.clone()),
                Part::Delete(delete) => Request::Delete(delete.clone()),
                Part::Range(range) => Request::Range(range.clone()),
                Part::Txn(txn) => Request::Txn(txn.clone()),
            };
            mutate_answer(&request, &mut responses[at], rng).map(|_| "an answer within a transaction")
        }
        _ => None,
    }
}
