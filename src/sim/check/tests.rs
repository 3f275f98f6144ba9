//! The judges judged: correct histories pass, each kind of lie is named, and what a mutation makes of a correct
//! history is found.

use bytes::Bytes;

use super::super::history::{Answer, Change, History, Moment, Op, Outcome};
use super::generator::correct;
use super::txn_tests::mutate_txn;
use super::{Rule, check, wgl};
use crate::api::{
    Body, Code, Delete, Header, KeyValue, Order, Put, Range, RangeResult, Request, SortBy, Span,
};
use crate::base::{Mono, Revision, Rng};

pub(super) const STATES_MAX: usize = 200_000;

// A small correct history, told by hand, and lies about it.

pub(super) fn put(key: &'static str, value: &'static str) -> Request {
    Request::Put(Put { key: key.into(), value: value.into(), ..Put::default() })
}

fn delete(span: Span) -> Request {
    Request::Delete(Delete { span, prev_kv: false })
}

pub(super) fn get(key: &'static str) -> Request {
    Request::Range(Range::new(Span::Key(key.into())))
}

pub(super) fn everything() -> Range {
    Range::new(Span::Prefix(Bytes::new()))
}

pub(super) fn kv(
    key: &'static str,
    value: &'static str,
    create: Revision,
    modified: Revision,
    version: u64,
) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: create,
        mod_revision: modified,
        version,
        lease: 0,
    }
}

pub(super) fn op(connection: u64, invoked: u64, at: u64, request: Request, answer: Answer) -> Op {
    let (invoked, at) = (Moment::new(Mono(invoked)), Moment::new(Mono(at)));
    let outcome = Outcome::Answered { at, header: None, answer };
    Op { number: 0, client: connection, connection, request, invoked, outcome }
}

pub(super) fn unanswered(invoked: u64, request: Request) -> Op {
    Op { outcome: Outcome::Unknown, ..op(9, invoked, 0, request, Answer::NoKey) }
}

pub(super) fn refused(invoked: u64, request: Request) -> Op {
    let outcome = Outcome::Refused { at: Moment::new(Mono(invoked + 1)), code: Code::NoLeader };
    Op { outcome, ..unanswered(invoked, request) }
}

pub(super) fn wrote(revision: Revision) -> Answer {
    Answer::Put { revision, previous: None }
}

fn deleted(revision: Revision, deleted: u64) -> Answer {
    Answer::Delete { revision, deleted, previous: Vec::new() }
}

pub(super) fn found(revision: Revision, kvs: &[KeyValue]) -> Answer {
    Answer::Range(RangeResult { revision, count: kvs.len() as u64, more: false, kvs: kvs.to_vec() })
}

/// a=1 (2), b=2 (3), a=3 (4), delete b (5), b=4 (6, nobody was told), a=5 (7).
pub(super) fn told() -> Vec<Op> {
    vec![
        op(1, 10, 20, put("a", "1"), wrote(2)),
        op(2, 15, 25, put("b", "2"), wrote(3)),
        op(1, 30, 40, put("a", "3"), wrote(4)),
        op(2, 30, 45, get("a"), found(3, &[kv("a", "1", 2, 2, 1)])),
        op(1, 50, 60, delete(Span::Key("b".into())), deleted(5, 1)),
        op(2, 62, 64, delete(Span::Key("b".into())), deleted(5, 0)),
        unanswered(66, put("b", "4")),
        unanswered(66, put("c", "never")),
        refused(66, put("c", "refused")),
        op(1, 70, 80, put("a", "5"), wrote(7)),
        op(
            2,
            82,
            84,
            Request::Range(everything()),
            found(7, &[kv("a", "5", 2, 7, 3), kv("b", "4", 6, 6, 1)]),
        ),
    ]
}

fn read_back() -> Vec<Change> {
    let change = |revision, key: &'static str, value: Option<&'static str>| Change {
        revision,
        key: key.into(),
        value: value.map(Bytes::from),
        lease: 0,
    };
    vec![
        change(2, "a", Some("1")),
        change(3, "b", Some("2")),
        change(4, "a", Some("3")),
        change(5, "b", None),
        change(6, "b", Some("4")),
        change(7, "a", Some("5")),
    ]
}

pub(super) fn history(ops: Vec<Op>) -> History {
    let mut history = History::from_ops(ops);
    history.changes = read_back();
    history
}

pub(super) fn broken(history: &History) -> Option<Rule> {
    check(history).err().map(|violation| violation.rule)
}

/// One more operation at the end.
pub(super) fn with(more: Op) -> History {
    let mut ops = told();
    ops.push(more);
    history(ops)
}

fn mutated(change: impl FnOnce(&mut Vec<Op>)) -> History {
    let mut ops = told();
    change(&mut ops);
    history(ops)
}

#[test]
fn a_correct_history_passes_with_and_without_the_read_back() {
    let summary = check(&history(told())).unwrap();
    let expected = super::Summary {
        writes: 5,
        reads: 3,
        refused: 1,
        unknown: 2,
        unknown_applied: 1,
        last_revision: 7,
        gaps: 0,
        unchecked: 0,
        told: 0,
    };
    assert_eq!(summary, expected);
    // Revision 6 was seen by the last read.
    assert_eq!(check(&History::from_ops(told())).unwrap(), expected);
    // Without that read nobody knows what it was, and nothing said of b and c from there on can be judged.
    let mut ops = told();
    ops.pop();
    ops.push(op(2, 82, 84, get("b"), found(7, &[])));
    ops.push(op(2, 82, 84, get("a"), found(7, &[kv("a", "5", 2, 7, 3)])));
    let summary = check(&History::from_ops(ops)).unwrap();
    assert_eq!((summary.gaps, summary.unchecked, summary.unknown_applied), (1, 1, 0));
    assert_eq!(
        wgl::check(&history(told()), STATES_MAX).unwrap(),
        wgl::Verdict { keys: 3, steps: 12, undecided: 0 }
    );
}

#[test]
fn owners_of_revisions() {
    let twice = with(op(1, 90, 91, put("a", "6"), wrote(4)));
    assert_eq!(broken(&twice), Some(Rule::OneWritePerRevision));
    let too_low = with(op(1, 90, 91, put("a", "6"), wrote(1)));
    assert_eq!(broken(&too_low), Some(Rule::OneWritePerRevision));
    let two_faces = with(op(1, 90, 91, get("c"), found(7, &[kv("c", "never", 6, 6, 1)])));
    assert_eq!(broken(&two_faces), Some(Rule::OneWritePerRevision));
    // Nobody made revision 8, whoever names it.
    let far = with(op(1, 90, 91, get("zz"), found(40, &[])));
    assert_eq!(broken(&far), Some(Rule::NoGaps));
    let known_only = mutated(|ops| ops.retain(|op| op.outcome != Outcome::Unknown));
    let mut seen_only = known_only.clone();
    seen_only.changes.clear();
    assert_eq!(broken(&seen_only), Some(Rule::NothingFromNowhere));
    let mut gap = known_only;
    gap.ops.pop();
    gap.changes.clear();
    assert_eq!(broken(&gap), Some(Rule::NoGaps));
}

#[test]
fn writes_happen_once_or_never() {
    // The write of revision 2 is seen again at 8; 9 writes allow that many revisions.
    let again = with(op(1, 90, 91, get("a"), found(8, &[kv("a", "1", 2, 8, 4)])));
    assert_eq!(broken(&again), Some(Rule::AppliedOnce));
    let mut unknown_twice = history(told());
    unknown_twice.changes.push(Change { revision: 8, key: "b".into(), value: Some("4".into()), lease: 0 });
    assert_eq!(broken(&unknown_twice), Some(Rule::AppliedOnce));
    let refused = with(op(1, 90, 91, get("c"), found(8, &[kv("c", "refused", 8, 8, 1)])));
    assert_eq!(broken(&refused), Some(Rule::RefusedIsRefused));
    let from_nowhere = with(op(1, 90, 91, get("c"), found(8, &[kv("c", "x", 8, 8, 1)])));
    assert_eq!(broken(&from_nowhere), Some(Rule::NothingFromNowhere));
    let mut nobodys_delete = history(told());
    nobodys_delete.changes.push(Change { revision: 8, key: "b".into(), value: None, lease: 0 });
    assert_eq!(broken(&nobodys_delete), Some(Rule::NothingFromNowhere));
    // Two gaps, and one write that may have filled one.
    let mut gaps = history(told());
    gaps.changes.clear();
    gaps.ops.retain(|op| op.request != put("c", "never"));
    gaps.ops.pop();
    gaps.ops.push(op(1, 90, 91, put("a", "6"), wrote(9)));
    assert_eq!(broken(&gaps), Some(Rule::NoGaps));
}

#[test]
fn what_is_acknowledged_is_not_lost() {
    let mut other = history(told());
    other.changes[2].value = Some("x".into());
    assert_eq!(broken(&other), Some(Rule::NothingLost));
    let mut no_delete = history(told());
    no_delete.changes.retain(|change| change.value.is_some());
    assert_eq!(broken(&no_delete), Some(Rule::NothingLost));
    let mut nothing = mutated(|ops| ops.retain(|op| op.request != put("a", "3")));
    nothing.changes.remove(2);
    assert_eq!(broken(&nothing), Some(Rule::NothingFromNowhere));
    let more = with(op(1, 90, 91, put("d", "1"), wrote(8)));
    assert_eq!(broken(&more), None, "the read-back ends before");
    let mut lost = more;
    lost.ops.push(op(1, 92, 93, get("d"), found(8, &[])));
    assert_eq!(broken(&lost), Some(Rule::RightAnswer));
}

/// Each is one wrong answer to a read of the state at revision 7: a=5 (create 2, mod 7, version 3), b=4 (6, 6, 1).
#[test]
fn wrong_answers_to_reads() {
    let (a, b) = (kv("a", "5", 2, 7, 3), kv("b", "4", 6, 6, 1));
    let all = || everything();
    let limited = || Range { limit: 1, ..everything() };
    let down = || Range { order: Order::Descending, ..everything() };
    let result = |count, more, kvs: &[&KeyValue]| RangeResult {
        revision: 7,
        count,
        more,
        kvs: kvs.iter().map(|kv| (*kv).clone()).collect(),
    };
    let right = [
        (all(), result(2, false, &[&a, &b])),
        (limited(), result(2, true, &[&a])),
        (down(), result(2, false, &[&b, &a])),
        (Range { limit: 2, ..all() }, result(2, false, &[&a, &b])),
        (Range { count_only: true, limit: 1, ..all() }, result(2, false, &[])),
        (Range { keys_only: true, ..all() }, {
            let (mut a, mut b) = (a.clone(), b.clone());
            (a.value, b.value) = (Bytes::new(), Bytes::new());
            result(2, false, &[&a, &b])
        }),
        (Range { sort_by: SortBy::Mod, ..all() }, result(2, false, &[&b, &a])),
        (Range { sort_by: SortBy::Value, limit: 1, ..all() }, result(2, true, &[&b])),
        (Range { min_mod: 7, ..all() }, result(2, false, &[&a])),
        (Range { max_create: 2, ..all() }, result(2, false, &[&a])),
        (Range { revision: 7, ..all() }, result(2, false, &[&a, &b])),
    ];
    for (range, result) in right {
        let answer = op(3, 90, 91, Request::Range(range), Answer::Range(result));
        assert_eq!(check(&with(answer.clone())).err(), None, "{answer}");
    }
    let version = KeyValue { version: 2, ..a.clone() };
    let create = KeyValue { create_revision: 4, ..a.clone() };
    let older = kv("a", "3", 2, 4, 2);
    let resurrected = kv("b", "2", 3, 3, 1);
    let lease = KeyValue { lease: 7, ..a.clone() };
    let wrong = [
        ("a wrong version", all(), result(2, false, &[&version, &b])),
        ("a wrong create revision", all(), result(2, false, &[&create, &b])),
        ("a wrong lease", all(), result(2, false, &[&lease, &b])),
        ("an overwritten value", all(), result(2, false, &[&older, &b])),
        ("a resurrected value", all(), result(2, false, &[&a, &resurrected])),
        ("a key too few", all(), result(2, false, &[&a])),
        ("a key and its count too few", all(), result(1, false, &[&a])),
        ("a wrong count", all(), result(3, false, &[&a, &b])),
        ("one key twice", all(), result(2, false, &[&a, &a])),
        ("the wrong order", all(), result(2, false, &[&b, &a])),
        ("up for down", down(), result(2, false, &[&a, &b])),
        ("beyond the limit", limited(), result(2, true, &[&a, &b])),
        ("no more", limited(), result(2, false, &[&a])),
        ("the wrong end of the limit", limited(), result(2, true, &[&b])),
        ("a count within the limit", limited(), result(1, true, &[&a])),
        ("more, where nothing was cut", all(), result(2, true, &[&a, &b])),
        (
            "a value where keys were asked for",
            Range { keys_only: true, ..all() },
            result(2, false, &[&a, &b]),
        ),
        ("kvs where a count was asked for", Range { count_only: true, ..all() }, result(2, false, &[&a, &b])),
        ("a filter not used", Range { min_mod: 7, ..all() }, result(2, false, &[&a, &b])),
        ("a filter used on the count", Range { min_mod: 7, ..all() }, result(1, false, &[&a])),
        ("a filter that cuts its bound", Range { max_mod: 7, ..all() }, result(2, false, &[&b])),
        ("sorted by key for value", Range { sort_by: SortBy::Value, ..all() }, result(2, false, &[&a, &b])),
        ("another revision", Range { revision: 6, ..all() }, result(2, false, &[&a, &b])),
        ("a key outside", Range::new(Span::Key("c".into())), result(0, false, &[&a])),
    ];
    for (what, range, result) in wrong {
        let answer = op(3, 90, 91, Request::Range(range), Answer::Range(result));
        assert_eq!(broken(&with(answer)), Some(Rule::RightAnswer), "{what}");
    }
}

#[test]
fn wrong_answers_about_revisions() {
    let at = |revision| Request::Range(Range { revision, ..everything() });
    assert_eq!(broken(&with(op(3, 90, 91, at(9), Answer::Future { newest: 7 }))), None);
    assert_eq!(broken(&with(op(3, 90, 91, at(9), Answer::Future { newest: 6 }))), Some(Rule::RealTime));
    assert_eq!(broken(&with(op(3, 90, 91, at(7), Answer::Future { newest: 7 }))), Some(Rule::RightAnswer));
    assert_eq!(broken(&with(op(3, 90, 91, at(0), Answer::Future { newest: 7 }))), Some(Rule::RightAnswer));
    let gone = Answer::Compacted { first: 4 };
    assert_eq!(broken(&with(op(3, 90, 91, at(3), gone))), Some(Rule::Compaction), "nobody asked for that");
    assert_eq!(broken(&with(op(3, 90, 91, put("a", "9"), found(7, &[])))), Some(Rule::RightAnswer));
}

#[test]
fn wrong_answers_to_writes() {
    let asked = |prev_kv| Request::Put(Put { key: "a".into(), value: "6".into(), prev_kv, ..Put::default() });
    let previous = |kv| Answer::Put { revision: 8, previous: Some(kv) };
    let right = with(op(1, 90, 91, asked(true), previous(Some(kv("a", "5", 2, 7, 3)))));
    assert_eq!(check(&right).err(), None);
    let wrong = [
        (asked(true), previous(Some(kv("a", "3", 2, 4, 2)))),
        (asked(true), previous(None)),
        (asked(true), wrote(8)),
        (asked(false), previous(Some(kv("a", "5", 2, 7, 3)))),
    ];
    for (request, answer) in wrong {
        assert_eq!(
            broken(&with(op(1, 90, 91, request, answer.clone()))),
            Some(Rule::RightAnswer),
            "{answer}"
        );
    }
    let keeping =
        |key: &'static str| Request::Put(Put { key: key.into(), ignore_value: true, ..Put::default() });
    assert_eq!(broken(&with(op(1, 90, 91, keeping("a"), wrote(8)))), None);
    assert_eq!(broken(&with(op(1, 90, 91, keeping("c"), Answer::NoKey))), None);
    assert_eq!(broken(&with(op(1, 90, 91, keeping("c"), wrote(8)))), Some(Rule::RightAnswer));
    assert_eq!(broken(&with(op(1, 90, 91, keeping("a"), Answer::NoKey))), Some(Rule::RealTime));
    assert_eq!(broken(&with(op(1, 90, 91, put("c", "9"), Answer::NoKey))), Some(Rule::RightAnswer));
}

#[test]
fn wrong_answers_to_deletes() {
    let all = |prev_kv| Request::Delete(Delete { span: Span::Prefix(Bytes::new()), prev_kv });
    let gone = [kv("a", "5", 2, 7, 3), kv("b", "4", 6, 6, 1)];
    let answer =
        |deleted, previous: &[KeyValue]| Answer::Delete { revision: 8, deleted, previous: previous.to_vec() };
    assert_eq!(broken(&with(op(1, 90, 91, all(false), answer(2, &[])))), None);
    assert_eq!(broken(&with(op(1, 90, 91, all(true), answer(2, &gone)))), None);
    let wrong = [
        (all(false), answer(1, &[])),
        (all(false), answer(3, &[])),
        (all(true), answer(2, &gone[..1])),
        (all(true), answer(2, &[])),
        (all(false), answer(2, &gone)),
        (all(true), answer(2, &[gone[0].clone(), kv("b", "4", 6, 6, 2)])),
        (delete(Span::Key("c".into())), answer(1, &[])),
    ];
    for (request, answer) in wrong {
        assert_eq!(
            broken(&with(op(1, 90, 91, request, answer.clone()))),
            Some(Rule::RightAnswer),
            "{answer}"
        );
    }
    let nothing = |key: &'static str| op(1, 90, 91, delete(Span::Key(key.into())), deleted(7, 0));
    assert_eq!(broken(&with(nothing("c"))), None);
    assert_eq!(broken(&with(nothing("b"))), Some(Rule::RightAnswer));
    let shows = Answer::Delete { revision: 7, deleted: 0, previous: vec![gone[0].clone()] };
    assert_eq!(broken(&with(op(1, 90, 91, all(true), shows))), Some(Rule::RightAnswer));
}

#[test]
fn true_time() {
    let a4 = [kv("a", "3", 2, 4, 2)];
    // Revision 7 was finished before; the state at 5 is told rightly, and too late.
    assert_eq!(broken(&with(op(3, 90, 91, get("a"), found(5, &a4)))), Some(Rule::RealTime));
    assert_eq!(broken(&with(op(3, 78, 91, get("a"), found(5, &a4)))), None, "they overlap");
    // Read before it was written.
    assert_eq!(
        broken(&with(op(3, 1, 2, get("a"), found(2, &[kv("a", "1", 2, 2, 1)])))),
        Some(Rule::RealTime)
    );
    // A later write with an earlier revision.
    let swapped = mutated(|ops| {
        ops[0] = op(1, 10, 20, put("a", "3"), wrote(4));
        ops[2] = op(1, 30, 40, put("a", "1"), wrote(2));
    });
    assert_eq!(broken(&swapped), Some(Rule::RealTime));
    // A write of unknown outcome that was seen before it was asked for.
    assert_eq!(broken(&mutated(|ops| ops[6].invoked = Moment::new(Mono(83)))), Some(Rule::RealTime));
    let stale_delete = op(3, 72, 90, delete(Span::Key("b".into())), deleted(5, 0));
    assert_eq!(broken(&with(stale_delete.clone())), None);
    let stale_delete = Op { invoked: Moment::new(Mono(86)), ..stale_delete };
    assert_eq!(broken(&with(stale_delete)), Some(Rule::RealTime));
    // Where the store was is told by the header alone.
    let old = Request::Range(Range { revision: 3, ..Range::new(Span::Key("a".into())) });
    let mut by_header = op(3, 90, 91, old, found(3, &[kv("a", "1", 2, 2, 1)]));
    assert_eq!(broken(&with(by_header.clone())), None);
    let Outcome::Answered { header, .. } = &mut by_header.outcome else { unreachable!() };
    *header = Some(6);
    assert_eq!(broken(&with(by_header.clone())), Some(Rule::RealTime));
    let Outcome::Answered { header, .. } = &mut by_header.outcome else { unreachable!() };
    *header = Some(2);
    assert_eq!(broken(&with(by_header)), Some(Rule::RightAnswer), "a read ahead of its header");
}

#[test]
fn a_header_is_a_promise_too() {
    // The write at 4 was answered when the store was at 7 already: then 7 was asked for by then.
    let early = mutated(|ops| {
        let Outcome::Answered { header, .. } = &mut ops[2].outcome else { unreachable!() };
        *header = Some(7);
    });
    assert_eq!(broken(&early), Some(Rule::RealTime));
}

#[test]
fn answers_without_a_revision() {
    let value = |value: Option<&'static str>| Answer::Value(value.map(Bytes::from));
    assert_eq!(broken(&with(op(3, 90, 91, get("a"), value(Some("5"))))), None);
    assert_eq!(broken(&with(op(3, 90, 91, get("c"), value(None)))), None);
    assert_eq!(broken(&with(op(3, 47, 91, get("b"), value(None)))), None);
    for (what, stale) in [
        ("overwritten", op(3, 90, 91, get("a"), value(Some("3")))),
        ("there again", op(3, 90, 91, get("b"), value(None))),
        ("not yet written", op(3, 26, 28, get("a"), value(Some("3")))),
        ("never written", op(3, 26, 28, get("a"), value(Some("x")))),
    ] {
        assert_eq!(broken(&with(stale)), Some(Rule::RealTime), "{what}");
    }
    // Two such reads, one after the other, that see the store go back.
    let back = mutated(|ops| {
        ops.push(op(3, 31, 32, get("a"), value(Some("3"))));
        ops.push(op(4, 33, 34, get("a"), value(Some("1"))));
    });
    assert_eq!(broken(&back), Some(Rule::RealTime));
    let old = Request::Range(Range { revision: 3, ..Range::new(Span::Key("a".into())) });
    assert_eq!(broken(&with(op(3, 90, 91, old.clone(), value(Some("1"))))), None);
    assert_eq!(broken(&with(op(3, 90, 91, old, value(Some("3"))))), Some(Rule::RightAnswer));
}

#[test]
fn serializable_reads() {
    let local = || Request::Range(Range { serializable: true, ..Range::new(Span::Key("a".into())) });
    let a = |revision| match revision {
        2..4 => found(revision, &[kv("a", "1", 2, 2, 1)]),
        _ => found(revision, &[kv("a", "3", 2, 4, 2)]),
    };
    assert_eq!(broken(&with(op(3, 90, 91, local(), a(5)))), None, "it may be stale");
    assert_eq!(broken(&with(op(3, 90, 91, local(), found(5, &[])))), Some(Rule::RightAnswer));
    let two = |first, second| {
        mutated(|ops| {
            ops.push(op(3, 90, 91, local(), a(first)));
            ops.push(op(3, 92, 93, local(), a(second)));
        })
    };
    assert_eq!(broken(&two(3, 5)), None);
    assert_eq!(broken(&two(5, 3)), Some(Rule::ConnectionForward));
    assert_eq!(broken(&with(op(1, 90, 91, local(), a(5)))), Some(Rule::ConnectionForward), "its own write");
    assert_eq!(broken(&with(op(3, 26, 27, local(), a(4)))), Some(Rule::RealTime), "from the future");
}

#[test]
fn a_violation_names_its_operations() {
    let history = with(op(3, 90, 91, get("a"), found(5, &[kv("a", "3", 2, 4, 2)])));
    let text = check(&history).unwrap_err().to_string();
    let expected = "real-time: an answer is of revision 5, but the store was at 7 before the question\n    \
                    op 9 client 1 conn 1 [0.000070ms .. 0.000080ms] put \"a\" \"5\" -> revision 7\n    \
                    op 11 client 3 conn 3 [0.000090ms .. 0.000091ms] range \"a\" -> revision 5 count 1 \
                    [\"a\"=\"3\" mod 4 create 2 v2]";
    assert_eq!(text, expected);
}

// Many correct histories, and single mutations of them.

#[test]
fn correct_histories_pass() {
    let mut seen = super::Summary::default();
    for seed in 0..300 {
        let mut history = correct(seed, 200, 1 + seed % 12, [0, 4, 20][seed as usize % 3]);
        let summary = check(&history).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        assert_eq!((summary.gaps, summary.unchecked), (0, 0), "seed {seed}: a read-back leaves no doubt");
        let verdict =
            wgl::check(&history, STATES_MAX).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        assert_eq!(verdict.undecided, 0, "seed {seed}");
        seen.writes += summary.writes;
        seen.unknown_applied += summary.unknown_applied;
        history.changes.clear();
        let summary = check(&history).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        seen.unchecked += summary.unchecked;
        seen.gaps += summary.gaps;
    }
    assert!(seen.writes > 10_000 && seen.unknown_applied > 300, "{seen:?}");
    assert!(seen.gaps > 50 && seen.unchecked > 50, "{seen:?}");
}

/// Changes one thing that no correct store could have answered or told. None where this operation has no such thing.
fn mutate(history: &mut History, rng: &mut Rng) -> Option<&'static str> {
    if rng.one_in(10) {
        let at = rng.below(history.changes.len() as u64) as usize;
        let change = &mut history.changes[at];
        return Some(match change.value.take() {
            None => {
                change.value = Some("resurrected".into());
                "a delete read back as a put"
            }
            Some(_) if rng.one_in(2) => "a put read back as a delete",
            Some(_) => {
                change.value = Some("other".into());
                "another value read back"
            }
        });
    }
    let at = rng.below(history.ops.len() as u64) as usize;
    let written: Vec<Bytes> = history.changes.iter().filter_map(|change| change.value.clone()).collect();
    let op = &mut history.ops[at];
    match (&op.request, &mut op.outcome) {
        (Request::Put(put), outcome @ Outcome::Unknown)
            if !put.ignore_value && written.contains(&put.value) =>
        {
            *outcome = Outcome::Refused { at: op.invoked, code: Code::Busy };
            Some("a refused write that happened")
        }
        (request, Outcome::Answered { answer, .. }) => mutate_answer(request, answer, rng),
        _ => None,
    }
}

pub(super) fn mutate_answer(request: &Request, answer: &mut Answer, rng: &mut Rng) -> Option<&'static str> {
    match (request, answer) {
        (_, Answer::Put { revision, previous }) => match previous {
            Some(Some(kv)) if rng.one_in(2) => Some(mutate_kv(kv, rng)),
            Some(previous) if previous.is_none() => {
                *previous = Some(kv("k0", "phantom", 1, 1, 1));
                Some("something before that was not there")
            }
            _ => {
                *revision += rng.between(1, 3);
                Some("a later revision for a put")
            }
        },
        (_, Answer::Delete { deleted: deleted @ 1.., .. }) if rng.one_in(2) => {
            *deleted += 1;
            Some("one more deleted")
        }
        (_, Answer::Delete { previous, .. }) if !previous.is_empty() => {
            let at = rng.below(previous.len() as u64) as usize;
            Some(mutate_kv(&mut previous[at], rng))
        }
        (Request::Range(range), Answer::Range(result)) => mutate_range(range, result, rng),
        (Request::Txn(txn), answer) => mutate_txn(txn, answer, rng),
        (_, Answer::Exists { found, .. }) => {
            *found += 1;
            Some("one more that is there")
        }
        (_, Answer::Value(value)) => {
            *value = Some("phantom".into());
            Some("a value that nobody wrote")
        }
        (Request::Range(range), Answer::Future { newest }) => {
            *newest = range.revision;
            Some("a future revision that is there")
        }
        _ => None,
    }
}

fn mutate_range(range: &Range, result: &mut RangeResult, rng: &mut Rng) -> Option<&'static str> {
    let kvs = result.kvs.len() as u64;
    match rng.below(6) {
        0 => {
            result.more = !result.more;
            Some("more")
        }
        1 => {
            result.count += 1;
            Some("count")
        }
        2 if kvs > 0 => {
            result.kvs.remove(rng.below(kvs) as usize);
            Some("a kv is missing")
        }
        3 if kvs > 0 => {
            let again = result.kvs[rng.below(kvs) as usize].clone();
            result.kvs.push(again);
            Some("a kv is there twice")
        }
        4 if kvs > 1 && matches!(range.sort_by, SortBy::Key | SortBy::Mod) => {
            let at = rng.below(kvs - 1) as usize;
            result.kvs.swap(at, at + 1);
            Some("two kvs in the wrong order")
        }
        _ if kvs > 0 => {
            let at = rng.below(kvs) as usize;
            if range.keys_only {
                result.kvs[at].version += 1;
                return Some("a version");
            }
            Some(mutate_kv(&mut result.kvs[at], rng))
        }
        _ => None,
    }
}

fn mutate_kv(kv: &mut KeyValue, rng: &mut Rng) -> &'static str {
    match rng.below(6) {
        0 => {
            kv.value = "phantom".into();
            "a value"
        }
        1 => {
            kv.version += 1;
            "a version"
        }
        2 => {
            kv.create_revision -= 1;
            "a create revision"
        }
        3 => {
            kv.mod_revision -= 1;
            "a mod revision"
        }
        4 => {
            kv.lease = 1;
            "a lease"
        }
        _ => {
            kv.key = "k".into();
            "a key"
        }
    }
}

#[test]
fn every_mutation_of_a_correct_history_is_found() {
    let mut tried = std::collections::BTreeMap::new();
    for seed in 0..3_000 {
        let mut rng = Rng::new(seed);
        let mut history = correct(seed % 100, 60, 1 + seed % 9, [0, 6][seed as usize % 2]);
        let Some(what) = mutate(&mut history, &mut rng) else { continue };
        *tried.entry(what).or_insert(0) += 1;
        assert!(check(&history).is_err(), "seed {seed}: {what} went unnoticed");
    }
    assert!(tried.len() >= 18 && tried.values().all(|&count| count >= 5), "{tried:?}");
}

// The second judge.

fn opinion(ops: Vec<Op>) -> Result<wgl::Verdict, super::Violation> {
    wgl::check(&History::from_ops(ops), STATES_MAX)
}

#[test]
fn the_second_judge_needs_no_revisions() {
    let value = |value: Option<&'static str>| Answer::Value(value.map(Bytes::from));
    for (what, lie) in [
        ("overwritten", op(3, 90, 91, get("a"), value(Some("3")))),
        ("gone", op(3, 90, 91, get("b"), value(None))),
        ("not yet written", op(3, 26, 28, get("a"), value(Some("3")))),
        ("never written", op(3, 26, 28, get("a"), value(Some("x")))),
        ("a delete that misses", op(3, 90, 91, delete(Span::Key("a".into())), deleted(0, 0))),
        ("a delete that hits nothing", op(3, 90, 91, delete(Span::Key("d".into())), deleted(0, 1))),
    ] {
        let mut ops = told();
        ops.push(lie);
        let violation = opinion(ops).expect_err(what);
        assert_eq!(violation.rule, Rule::Linearizable);
        assert!(!violation.ops.is_empty(), "{what}: {violation}");
    }
}

#[test]
fn the_second_judge_gives_up_where_it_must() {
    let racing = |number: u64| {
        let value: Bytes = format!("{number}").into();
        op(number, 10, 20, Request::Put(Put { key: "a".into(), value, ..Put::default() }), wrote(0))
    };
    let mut ops: Vec<Op> = (0..20).map(racing).collect();
    ops.push(op(30, 30, 40, get("a"), Answer::Value(None)));
    let verdict = wgl::check(&History::from_ops(ops), 1_000).unwrap();
    assert_eq!(verdict.undecided, 1);
}

/// Every order of five random operations, tried one by one, against the search.
#[test]
fn the_search_agrees_with_all_permutations() {
    let (mut legal, mut illegal) = (0, 0);
    for seed in 0..4_000 {
        let mut rng = Rng::new(seed);
        let ops: Vec<Op> = (0..5).map(|number| random_op(&mut rng, number)).collect();
        let expected = some_order_is_legal(&ops, &mut Vec::new());
        let verdict = wgl::check(&History::from_ops(ops.clone()), STATES_MAX);
        let shown: Vec<String> = ops.iter().map(Op::to_string).collect();
        assert_eq!(verdict.is_ok(), expected, "seed {seed}: {shown:#?}");
        if expected { legal += 1 } else { illegal += 1 }
    }
    assert!(legal > 500 && illegal > 500, "{legal} legal, {illegal} not");
}

fn random_op(rng: &mut Rng, number: u64) -> Op {
    let values = ["1", "2"];
    let value = |rng: &mut Rng| values[rng.below(2) as usize];
    let invoked = rng.below(20);
    let at = invoked + 1 + rng.below(12);
    let some_key = || Span::Key("a".into());
    let (request, answer) = match rng.below(6) {
        0 | 1 => (put("a", value(rng)), wrote(0)),
        2 => {
            let before = rng.one_in(2).then(|| kv("a", value(rng), 0, 0, 0));
            let put = Put { key: "a".into(), value: value(rng).into(), prev_kv: true, ..Put::default() };
            (Request::Put(put), Answer::Put { revision: 0, previous: Some(before) })
        }
        3 => (delete(some_key()), deleted(0, rng.below(2))),
        _ => (get("a"), Answer::Value(rng.one_in(3).then(|| value(rng).into()))),
    };
    let mut op = op(number, invoked, at, request, answer);
    if rng.one_in(4) {
        op.outcome = Outcome::Unknown;
    }
    op
}

/// Tries every order of the answered operations and any of the others.
fn some_order_is_legal(ops: &[Op], order: &mut Vec<usize>) -> bool {
    let end = |op: &Op| match &op.outcome {
        Outcome::Answered { at, .. } => Some(*at),
        _ => None,
    };
    if (0..ops.len()).all(|at| order.contains(&at) || end(&ops[at]).is_none()) && explains(ops, order) {
        return true;
    }
    for next in 0..ops.len() {
        let left = (0..ops.len()).filter(|at| !order.contains(at) && *at != next);
        let mut ends = left.filter_map(|at| end(&ops[at]));
        if order.contains(&next) || ends.any(|end| end < ops[next].invoked) {
            continue;
        }
        order.push(next);
        if some_order_is_legal(ops, order) {
            return true;
        }
        order.pop();
    }
    false
}

fn explains(ops: &[Op], order: &[usize]) -> bool {
    let mut held: Option<Bytes> = None;
    order.iter().all(|&at| {
        let before = held.clone();
        match &ops[at].request {
            Request::Put(put) => held = Some(put.value.clone()),
            Request::Delete(_) => held = None,
            _ => {}
        }
        match &ops[at].outcome {
            Outcome::Answered { answer: Answer::Put { previous: Some(found), .. }, .. } => {
                found.as_ref().map(|kv| &kv.value) == before.as_ref()
            }
            Outcome::Answered { answer: Answer::Delete { deleted, .. }, .. } => {
                (*deleted == 1) == before.is_some()
            }
            Outcome::Answered { answer: Answer::Value(found), .. } => *found == before,
            _ => true,
        }
    })
}

/// What the first judge accepts the second must not refuse, also when values alone were changed.
#[test]
fn the_judges_do_not_contradict_each_other() {
    let mut accepted = 0;
    for seed in 0..1_500 {
        let mut rng = Rng::new(seed);
        let mut history = correct(seed % 50, 60, 1 + seed % 3, 8);
        let at = rng.below(history.ops.len() as u64) as usize;
        let shift = rng.below(150);
        let op = &mut history.ops[at];
        let later = |moment: &mut Moment| moment.at = Mono(moment.at.0 + shift);
        later(&mut op.invoked);
        if let Outcome::Answered { at, .. } = &mut op.outcome {
            later(at);
        }
        if check(&history).is_ok() {
            accepted += 1;
            assert!(wgl::check(&history, STATES_MAX).is_ok(), "seed {seed}");
        }
    }
    assert!((300..1_400).contains(&accepted), "{accepted} of 1500 accepted");
}

/// Whoever tells it, and a compaction makes another one.
#[test]
fn a_revision_has_one_hash() {
    let told = |hashes: &[(u32, u64)]| {
        let mut history = History::new();
        let header = Header { revision: 1, ..Header::default() };
        for (at, &(hash, compact_revision)) in (0..).zip(hashes) {
            let op = history.invoke(at, at, Request::HashKv { revision: 0 }, Mono(2 * at));
            history.answer(
                op,
                &header,
                Body::HashKv { hash, revision: 1, compact_revision },
                Mono(2 * at + 1),
            );
        }
        check(&history).map(|_| ()).map_err(|violation| violation.rule)
    };
    assert_eq!(told(&[(5, 0), (5, 0), (6, 1)]), Ok(()));
    assert_eq!(told(&[(5, 0), (6, 1), (6, 0)]), Err(Rule::SameHash));
}
