//! The judges judged, where leases are concerned.

use bytes::Bytes;

use super::super::history::{Answer, Change, History, Moment, Op, Outcome};
use super::leases::{self, whole};
use super::{Rule, check, wgl};
use crate::api::{
    KeyValue, LeaseAnswer, LeaseRequest, LeaseTime, Op as Part, Put, Range, RangeResult, Request, Span, Txn,
};
use crate::base::time::{MS, SECOND};
use crate::base::{LeaseId, Mono, Revision, Rng};

const STATES_MAX: usize = 100_000;

/// Times in milliseconds.
fn op(invoked: u64, at: u64, request: Request, answer: Answer) -> Op {
    let (invoked, at) = (Moment::new(Mono(invoked * MS)), Moment::new(Mono(at * MS)));
    let outcome = Outcome::Answered { at, header: None, answer };
    Op { number: 0, client: 1, connection: 1, request, invoked, outcome }
}

fn unanswered(invoked: u64, request: Request) -> Op {
    Op { outcome: Outcome::Unknown, ..op(invoked, 0, request, Answer::NoKey) }
}

fn grant(ttl_s: i64) -> Request {
    Request::Lease(LeaseRequest::Grant { id: 7, ttl_s })
}

fn granted(ttl_s: u64) -> Answer {
    Answer::Lease(LeaseAnswer::Granted { id: 7, ttl_s })
}

fn revoke() -> Request {
    Request::Lease(LeaseRequest::Revoke { id: 7 })
}

fn revoked(revision: Revision, deleted: u64) -> Answer {
    Answer::Lease(LeaseAnswer::Revoked { revision, deleted })
}

fn keep() -> Request {
    Request::Lease(LeaseRequest::KeepAlive { ids: vec![7] })
}

fn kept(ttl_s: u64) -> Answer {
    Answer::Lease(LeaseAnswer::Kept(vec![ttl_s]))
}

fn ttl(invoked: u64, at: u64, is_there: bool) -> Op {
    let time = is_there.then_some(LeaseTime { granted_s: 10, remaining_s: 1 });
    let answer = LeaseAnswer::TimeToLive { id: 7, time, keys: Vec::new() };
    op(invoked, at, Request::Lease(LeaseRequest::TimeToLive { id: 7, keys: false }), Answer::Lease(answer))
}

fn list(invoked: u64, at: u64, ids: &[LeaseId]) -> Op {
    op(invoked, at, Request::Lease(LeaseRequest::List), Answer::Lease(LeaseAnswer::List(ids.to_vec())))
}

fn put(key: &'static str, value: &'static str, lease: LeaseId) -> Request {
    Request::Put(Put { key: key.into(), value: value.into(), lease, ..Put::default() })
}

/// One that puts these keys, with their names as values.
fn txn(puts: &[(&'static str, LeaseId)]) -> Request {
    let put = |&(key, lease): &(&'static str, LeaseId)| {
        Part::Put(Put { key: key.into(), value: key.into(), lease, ..Put::default() })
    };
    Request::Txn(Txn { success: puts.iter().map(put).collect(), ..Txn::default() })
}

fn done(revision: Revision, puts: usize) -> Answer {
    Answer::Txn { revision, succeeded: true, responses: vec![wrote(revision); puts] }
}

fn wrote(revision: Revision) -> Answer {
    Answer::Put { revision, previous: None }
}

fn lives(ops: Vec<Op>) -> bool {
    let outcome = leases::check(&History::from_ops(ops), whole, STATES_MAX);
    assert!(outcome.as_ref().err().is_none_or(|violation| violation.rule == Rule::LeaseLives));
    outcome.is_ok()
}

#[test]
fn a_lease_lives_for_its_ttl_from_the_question_on() {
    let granted = || op(1_000, 1_050, grant(10), granted(10));
    assert!(lives(vec![granted(), ttl(10_998, 10_999, true)]));
    assert!(lives(vec![granted(), ttl(10_990, 11_000, false)]));
    assert!(!lives(vec![granted(), ttl(10_990, 10_999, false)]), "a millisecond early");
    assert!(lives(vec![granted(), ttl(90_000, 90_001, true)]), "late is for others to judge");
    assert!(!lives(vec![ttl(1, 2, true), granted()]), "before it was granted");
    assert!(lives(vec![ttl(1, 1_050, true), granted()]));
    for (early, request, answer) in [
        (true, keep(), kept(0)),
        (true, revoke(), Answer::NoLease),
        (true, put("k", "v", 7), Answer::NoLease),
        (true, txn(&[("j", 0), ("k", 7), ("l", 7)]), Answer::NoLease),
        (true, grant(10), self::granted(10)),
        (false, grant(10), Answer::LeaseExists),
        (false, put("k", "v", 7), wrote(2)),
        (false, txn(&[("j", 0), ("k", 7)]), done(2, 2)),
        (false, revoke(), revoked(2, 1)),
    ] {
        let told = format!("{request:?} {answer:?}");
        let told_at = |at| op(at - 10, at, request.clone(), answer.clone());
        assert_eq!(lives(vec![granted(), told_at(5_000)]), !early, "{told}");
        assert!(lives(vec![granted(), told_at(11_001)]), "{told}");
        let gone = ttl(11_000, 11_500, false);
        assert_eq!(lives(vec![granted(), gone, told_at(12_000)]), early, "it came back: {told}");
    }
    let either = || op(2_000, 2_001, txn(&[("k", 7), ("l", 8)]), Answer::NoLease);
    assert!(lives(vec![granted(), either()]), "the other one may be the one that was not there");
    assert!(
        !lives(vec![granted(), list(2_000, 2_001, &[8])]) && lives(vec![granted(), list(2_000, 2_001, &[7])])
    );
}

#[test]
fn an_answered_renewal_counts_and_another_one_does_not() {
    let granted = || op(0, 1, grant(10), granted(10));
    let gone = || ttl(14_000, 15_000, false);
    assert!(lives(vec![granted(), gone()]));
    assert!(!lives(vec![granted(), op(9_000, 9_100, keep(), kept(10)), gone()]));
    assert!(lives(vec![granted(), op(5_000, 9_100, keep(), kept(10)), gone()]));
    assert!(lives(vec![granted(), unanswered(9_000, keep()), gone()]));
    assert!(!lives(vec![granted(), ttl(11_000, 11_001, false), op(12_000, 12_001, keep(), kept(10))]));
    // Whoever allows for a clock that is half too fast asks for less.
    let history = History::from_ops(vec![granted(), ttl(6_000, 7_000, false)]);
    assert!(leases::check(&history, |ttl_s| ttl_s * SECOND / 2, STATES_MAX).is_ok());
    assert!(leases::check(&history, whole, STATES_MAX).is_err());
}

#[test]
fn a_revocation_ends_it_and_one_of_unknown_outcome_may() {
    let granted = |at| op(at, at + 1, grant(10), granted(10));
    let revoked = || op(2_000, 2_100, revoke(), revoked(1, 0));
    assert!(lives(vec![granted(0), revoked(), ttl(3_000, 3_001, false), granted(4_000)]));
    assert!(!lives(vec![granted(0), revoked(), ttl(3_000, 3_001, true)]));
    assert!(lives(vec![granted(0), revoked(), ttl(2_050, 2_060, true), ttl(2_050, 2_060, false)]));
    let unknown = || unanswered(2_000, revoke());
    assert!(lives(vec![granted(0), unknown(), ttl(3_000, 3_001, false)]));
    assert!(lives(vec![granted(0), unknown(), ttl(3_000, 3_001, true), ttl(4_000, 4_001, false)]));
    assert!(!lives(vec![granted(0), unknown(), ttl(1_000, 1_001, false)]), "before it was asked for");
    // One that may have come late ends one lease of them at most.
    let again =
        vec![granted(0), unknown(), ttl(3_000, 3_001, false), granted(4_000), ttl(5_000, 5_001, false)];
    assert!(!lives(again));
    // So may a grant bring one, whose answer was lost.
    let unknown = unanswered(12_000, grant(10));
    assert!(lives(vec![granted(0), ttl(11_000, 11_001, false), unknown, ttl(13_000, 13_001, true)]));
}

/// Leases under few ids, asked of at random, by many at a time; and each answer turned into its contrary.
#[test]
fn correct_lives_pass_and_lies_about_them_are_found() {
    let (mut lies, mut found) = (0, 0);
    for seed in 0..60 {
        let ops = random_lives(&mut Rng::new(seed), 60);
        assert!(lives(ops.clone()), "seed {seed}");
        for at in (0..ops.len()).step_by(7) {
            let mut wrong = ops.clone();
            if contradict(&mut wrong[at]) {
                lies += 1;
                found += u32::from(!lives(wrong));
            }
        }
    }
    // Not all: what was asked while it happened may have been told either way.
    assert!(lies > 200 && found * 2 > lies, "{found} of {lies}");
}

fn random_lives(rng: &mut Rng, count: usize) -> Vec<Op> {
    let mut ends: [Option<u64>; 2] = [None, None];
    let mut now = 10_000;
    let mut ops = Vec::new();
    for _ in 0..count {
        now += rng.below(1_500);
        let which = rng.below(2) as usize;
        let id = 7 + which as LeaseId;
        for end in &mut ends {
            // It may end later than promised, too.
            *end = end.filter(|end| now < *end || (now < *end + 500 && rng.one_in(2)));
        }
        let there = ends[which].is_some();
        let (request, answer) = match rng.below(6) {
            0 | 1 => {
                let request = LeaseRequest::Grant { id, ttl_s: 3 };
                if !there {
                    ends[which] = Some(now + 3_000);
                }
                let granted = Answer::Lease(LeaseAnswer::Granted { id, ttl_s: 3 });
                (request, if there { Answer::LeaseExists } else { granted })
            }
            2 if rng.one_in(3) => {
                ends[which] = None;
                (LeaseRequest::Revoke { id }, if there { revoked(1, 0) } else { Answer::NoLease })
            }
            3 | 4 => {
                ends[which] = ends[which].map(|_| now + 3_000);
                (LeaseRequest::KeepAlive { ids: vec![id] }, kept(if there { 3 } else { 0 }))
            }
            _ => {
                let time = there.then_some(LeaseTime { granted_s: 3, remaining_s: 0 });
                let told = LeaseAnswer::TimeToLive { id, time, keys: Vec::new() };
                (LeaseRequest::TimeToLive { id, keys: false }, Answer::Lease(told))
            }
        };
        let (before, after) = (rng.below(400), rng.below(400));
        let done = op(now - before, now + after, Request::Lease(request), answer);
        ops.push(if rng.one_in(12) { Op { outcome: Outcome::Unknown, ..done } } else { done });
    }
    ops
}

fn contradict(op: &mut Op) -> bool {
    let Outcome::Answered { answer, .. } = &mut op.outcome else { return false };
    match answer {
        Answer::Lease(LeaseAnswer::Kept(ttls)) => ttls[0] = if ttls[0] == 0 { 3 } else { 0 },
        Answer::Lease(LeaseAnswer::TimeToLive { time, .. }) => {
            *time = time.is_none().then_some(LeaseTime { granted_s: 3, remaining_s: 0 });
        }
        _ => return false,
    }
    true
}

// What leases do to keys.

fn change(revision: Revision, key: &'static str, put: Option<(&'static str, LeaseId)>) -> Change {
    let lease = put.map_or(0, |(_, lease)| lease);
    Change { revision, key: key.into(), value: put.map(|(value, _)| value.into()), lease }
}

/// a=1 with 7 (2), b=2 with 7 (3), a=3 with 8 (4), b=4 (5), c=5 with 7 (6), d=6 with 7 (7), 7 ends (8).
fn keys_told(end: Op) -> History {
    let ops = vec![
        op(1, 2, grant(10), granted(10)),
        op(3, 4, put("a", "1", 7), wrote(2)),
        op(5, 6, put("b", "2", 7), wrote(3)),
        op(7, 8, put("a", "3", 8), wrote(4)),
        op(9, 10, put("b", "4", 0), wrote(5)),
        op(11, 12, put("c", "5", 7), wrote(6)),
        op(13, 14, put("d", "6", 7), wrote(7)),
        end,
    ];
    let mut history = History::from_ops(ops);
    history.changes = vec![
        change(2, "a", Some(("1", 7))),
        change(3, "b", Some(("2", 7))),
        change(4, "a", Some(("3", 8))),
        change(5, "b", Some(("4", 0))),
        change(6, "c", Some(("5", 7))),
        change(7, "d", Some(("6", 7))),
        change(8, "c", None),
        change(8, "d", None),
    ];
    history
}

/// Key, value, create and mod revision, version, lease.
type Told = (&'static str, &'static str, Revision, Revision, u64, LeaseId);

fn read(revision: Revision, kvs: &[Told]) -> Op {
    let kv = |&(key, value, create_revision, mod_revision, version, lease): &Told| KeyValue {
        key: Bytes::from(key),
        value: value.into(),
        create_revision,
        mod_revision,
        version,
        lease,
    };
    let kvs: Vec<KeyValue> = kvs.iter().map(kv).collect();
    let result = RangeResult { revision, count: kvs.len() as u64, more: false, kvs };
    op(20_000, 20_001, Request::Range(Range::new(Span::Prefix(Bytes::new()))), Answer::Range(result))
}

fn broken(history: &History) -> Option<Rule> {
    check(history).err().map(|violation| violation.rule)
}

const LEFT: [Told; 2] = [("a", "3", 2, 4, 2, 8), ("b", "4", 3, 5, 2, 0)];

#[test]
fn a_lease_takes_all_its_keys_and_no_others_in_one_revision() {
    // By itself: nobody asked for that. Or revoked.
    for end in [read(8, &LEFT), op(15, 16, revoke(), revoked(8, 2)), unanswered(15, revoke())] {
        let history = keys_told(end);
        assert_eq!(broken(&history), None);
        let mut ended_twice = history.clone();
        ended_twice.changes.pop();
        ended_twice.changes.push(change(9, "d", None));
        assert!(broken(&ended_twice).is_some(), "in two revisions");
        let mut too_much = history.clone();
        too_much.changes.insert(6, change(8, "b", None));
        assert!(broken(&too_much).is_some(), "a key that was put without it since");
        let mut moved = history.clone();
        moved.changes.insert(6, change(8, "a", None));
        assert!(broken(&moved).is_some(), "a key that was put with another one since");
        let mut too_little = history;
        too_little.changes.pop();
        assert!(broken(&too_little).is_some(), "one is left");
    }
    assert_eq!(broken(&keys_told(op(15, 16, revoke(), revoked(8, 3)))), Some(Rule::RightAnswer));
    assert_eq!(broken(&keys_told(op(15, 16, revoke(), revoked(7, 0)))), Some(Rule::RightAnswer));
}

#[test]
fn what_a_key_is_attached_to_is_told() {
    assert_eq!(broken(&keys_told(read(8, &LEFT))), None);
    let mut wrong = LEFT;
    wrong[1].5 = 7;
    assert_eq!(broken(&keys_told(read(8, &wrong))), Some(Rule::RightAnswer));
    let mut read_back = keys_told(read(8, &LEFT));
    read_back.changes[2].lease = 7;
    assert_eq!(broken(&read_back), Some(Rule::NothingLost));
    let keys = |revision, keys: &[&'static str]| {
        let time = Some(LeaseTime { granted_s: 10, remaining_s: 1 });
        let keys = keys.iter().map(|key| Bytes::from(*key)).collect();
        let answer = Answer::Lease(LeaseAnswer::TimeToLive { id: 7, time, keys });
        let request = Request::Lease(LeaseRequest::TimeToLive { id: 7, keys: true });
        let mut told = op(20_000, 20_001, request, answer);
        if let Outcome::Answered { header, .. } = &mut told.outcome {
            *header = Some(revision);
        }
        broken(&keys_told(told))
    };
    assert_eq!(keys(8, &[]), None);
    assert_eq!(keys(8, &["c"]), Some(Rule::RightAnswer));
}

#[test]
fn a_transaction_attaches_like_puts() {
    let attached = |outcome: &Op, lease| {
        let mut history = History::from_ops(vec![
            op(1, 2, grant(10), granted(10)),
            op(3, 4, put("b", "0", 7), wrote(2)),
            outcome.clone(),
        ]);
        history.changes = vec![
            change(2, "b", Some(("0", 7))),
            change(3, "a", Some(("a", lease))),
            change(3, "b", Some(("b", 0))),
            change(3, "c", Some(("c", 7))),
            change(4, "a", None),
            change(4, "c", None),
        ];
        history
    };
    let request = || txn(&[("a", 7), ("b", 0), ("c", 7)]);
    for (outcome, rule) in [
        (op(5, 6, request(), done(3, 3)), Rule::NothingLost),
        (unanswered(5, request()), Rule::NothingFromNowhere),
    ] {
        let history = attached(&outcome, 7);
        assert_eq!(broken(&history), None);
        assert_eq!(wgl::check(&history, STATES_MAX).err(), None);
        assert_eq!(broken(&attached(&outcome, 8)), Some(rule), "another lease");
        let mut too_much = history.clone();
        too_much.changes.insert(5, change(4, "b", None));
        assert!(broken(&too_much).is_some(), "a key that the transaction detached");
        let mut too_little = history;
        too_little.changes.pop();
        assert!(broken(&too_little).is_some(), "one is left");
    }
}

/// Of a write whose outcome nobody was told the revision may be swept before it is read back. What follows from it is seen all
/// the same.
#[test]
fn what_nobody_saw_may_have_attached_a_key() {
    let history = |ops: Vec<Op>, changes: Vec<Change>| {
        let mut history = History::from_ops(ops);
        history.unread.insert(3);
        history.changes = changes;
        history
    };
    let attached = |end: &[&'static str]| {
        let ops = vec![
            op(1, 2, grant(10), granted(10)),
            op(3, 4, put("b", "1", 7), wrote(2)),
            unanswered(5, put("a", "2", 7)),
            op(7, 8, put("c", "3", 0), wrote(4)),
        ];
        let mut changes = vec![change(2, "b", Some(("1", 7))), change(4, "c", Some(("3", 0)))];
        changes.extend(end.iter().map(|key| change(5, key, None)));
        broken(&history(ops, changes))
    };
    assert_eq!(attached(&["a", "b"]), None);
    assert!(attached(&["a", "b", "c"]).is_some(), "a key that is known to have none");

    let kept = |value, lease| {
        let keep = Put { key: "a".into(), value: "3".into(), ignore_lease: true, ..Put::default() };
        let ops = vec![
            op(1, 2, grant(10), granted(10)),
            op(3, 4, put("a", "1", 7), wrote(2)),
            unanswered(5, put("a", "2", 0)),
            op(7, 8, Request::Put(keep), wrote(4)),
        ];
        broken(&history(ops, vec![change(2, "a", Some(("1", 7))), change(4, "a", Some((value, lease)))]))
    };
    assert_eq!(kept("3", 0), None);
    assert_eq!(kept("3", 7), None);
    assert_eq!(kept("4", 0), Some(Rule::NothingLost));
}

/// The second opinion has no revisions: what had a lease may be gone at any time after it was put, and not come back.
#[test]
fn the_search_per_key_lets_leased_keys_go() {
    let history = keys_told(read(8, &LEFT));
    assert_eq!(wgl::check(&history, STATES_MAX).err(), None);
    let mut back = keys_told(read(8, &LEFT));
    back.ops.push(op(
        30_000,
        30_001,
        Request::Range(Range::new(Span::Key("c".into()))),
        Answer::Value(Some("5".into())),
    ));
    assert_eq!(wgl::check(&back, STATES_MAX).err().map(|violation| violation.rule), Some(Rule::Linearizable));
    let mut gone = keys_told(read(8, &LEFT[1..]));
    gone.ops.push(op(30_000, 30_001, put("e", "1", 0), wrote(9)));
    assert_eq!(wgl::check(&gone, STATES_MAX).err(), None, "a had one");
    gone.ops.push(op(30_002, 30_003, Request::Range(Range::new(Span::Key("e".into()))), Answer::Value(None)));
    assert!(wgl::check(&gone, STATES_MAX).is_err(), "e had none");
}
