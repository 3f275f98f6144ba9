//! The judges judged, where locks are concerned.

use super::super::history::{Answer, Change, History, Moment, Op, Outcome};
use super::leases::{self, whole};
use super::{Rule, check, wgl};
use crate::api::{Acquire, Code, Delete, LeaseAnswer, LeaseRequest, LockRequest, Request, Span, lock};
use crate::base::time::MS;
use crate::base::{LeaseId, Mono, Revision};

const STATES_MAX: usize = 100_000;

/// Times in milliseconds.
fn op(invoked: u64, at: u64, request: Request, header: Revision, answer: Answer) -> Op {
    let (invoked, at) = (Moment::new(Mono(invoked * MS)), Moment::new(Mono(at * MS)));
    let outcome = Outcome::Answered { at, header: Some(header), answer };
    Op { number: 0, client: 1, connection: invoked.at.0, request, invoked, outcome }
}

fn refused(invoked: u64, at: u64, request: Request, code: Code) -> Op {
    let at = Moment::new(Mono(at * MS));
    Op { outcome: Outcome::Refused { at, code }, ..op(invoked, 0, request, 0, Answer::NoKey) }
}

fn unanswered(invoked: u64, request: Request) -> Op {
    Op { outcome: Outcome::Unknown, ..op(invoked, 0, request, 0, Answer::NoKey) }
}

fn grant(id: LeaseId) -> Op {
    let request = Request::Lease(LeaseRequest::Grant { id, ttl_s: 100 });
    op(1, 2, request, 1, Answer::Lease(LeaseAnswer::Granted { id, ttl_s: 100 }))
}

fn acquire(lease: LeaseId, wait_ms: Option<u64>) -> Request {
    Request::Lock(LockRequest::Acquire(Acquire { name: "n".into(), lease, wait_ms, ..Acquire::default() }))
}

fn held(lease: LeaseId, revision: Revision) -> Answer {
    Answer::Acquired { key: lock::lock_key(b"n", lease), revision }
}

fn release(invoked: u64, at: u64, lease: LeaseId, revision: Revision) -> Op {
    let span = Span::Key(lock::lock_key(b"n", lease));
    let deleted = Answer::Delete { revision, deleted: 1, previous: Vec::new() };
    op(invoked, at, Request::Delete(Delete { span, prev_kv: false }), revision, deleted)
}

/// A key is there from this revision on, or no longer.
fn change(revision: Revision, lease: LeaseId, is_there: bool) -> Change {
    let value = is_there.then(Default::default);
    Change { revision, key: lock::lock_key(b"n", lease), value, lease: if is_there { lease } else { 0 } }
}

fn history(ops: Vec<Op>, changes: Vec<Change>) -> History {
    let mut history = History::from_ops([vec![grant(7), grant(8)], ops].concat());
    history.changes = changes;
    history
}

fn broken(history: &History) -> Option<Rule> {
    assert_eq!(wgl::check(history, STATES_MAX).err(), None);
    check(history).err().map(|violation| violation.rule)
}

/// 7 has the lock and gives it back; 8 has waited for it.
fn handed_on() -> Vec<Change> {
    vec![change(2, 7, true), change(3, 8, true), change(4, 7, false)]
}

#[test]
fn one_owner_follows_another() {
    let first = || op(10, 20, acquire(7, None), 2, held(7, 2));
    let told = |second: Op| broken(&history(vec![first(), release(50, 60, 7, 4), second], handed_on()));
    assert_eq!(told(op(30, 70, acquire(8, None), 4, held(8, 3))), None);
    assert_eq!(told(op(30, 55, acquire(8, None), 4, held(8, 3))), None, "before the first has heard of it");
    assert_eq!(told(op(30, 70, acquire(8, None), 3, held(8, 3))), Some(Rule::OneOwner), "too early");
    assert_eq!(told(op(30, 70, acquire(8, None), 4, held(8, 4))), Some(Rule::OneOwner), "another revision");
    assert_eq!(told(op(30, 70, acquire(8, None), 4, held(7, 3))), Some(Rule::RightAnswer), "another's key");
    assert_eq!(
        told(op(30, 40, acquire(8, None), 4, held(8, 3))),
        Some(Rule::RealTime),
        "before it is asked for"
    );
    // Asking again is the same place.
    let again = op(80, 90, acquire(8, None), 5, held(8, 3));
    let mut changes = handed_on();
    changes.push(change(5, 8, true));
    let ops = vec![first(), release(50, 60, 7, 4), op(30, 70, acquire(8, None), 4, held(8, 3)), again];
    assert_eq!(broken(&history(ops, changes)), None);
}

/// The key was gone before the question, and the answer is of a revision behind it.
#[test]
fn what_was_gone_is_not_owned() {
    let owner = |invoked| {
        let ops = vec![
            op(10, 20, acquire(7, None), 2, held(7, 2)),
            release(30, 40, 7, 3),
            op(invoked, 60, acquire(7, None), 3, held(7, 2)),
        ];
        broken(&history(ops, vec![change(2, 7, true), change(3, 7, false)]))
    };
    assert_eq!(owner(35), None, "it was asked for while the key was there");
    assert_eq!(owner(45), Some(Rule::OneOwner));
}

#[test]
fn a_key_of_another_lease_is_not_owned() {
    let owner = |lease| {
        let mut put = change(2, 7, true);
        put.lease = lease;
        let ops = vec![op(10, 20, acquire(7, None), 2, held(7, 2))];
        broken(&history(ops, vec![put]))
    };
    assert_eq!(owner(7), None);
    assert_eq!(owner(8), Some(Rule::NothingFromNowhere));
}

/// Whoever waits no longer takes its key back, once; and nobody else's.
#[test]
fn a_place_is_taken_back_by_who_took_it() {
    let outcomes: [fn() -> Op; 2] =
        [|| refused(30, 70, acquire(8, Some(20)), Code::Busy), || unanswered(30, acquire(8, None))];
    for second in outcomes {
        let told =
            |changes| broken(&history(vec![op(10, 20, acquire(7, None), 2, held(7, 2)), second()], changes));
        let taken_back = vec![change(2, 7, true), change(3, 8, true), change(4, 8, false)];
        assert_eq!(told(taken_back.clone()), None);
        let mut twice = taken_back.clone();
        twice.extend([change(5, 8, true), change(6, 8, false)]);
        assert!(told(twice).is_some(), "it asked once");
        let mut others = taken_back;
        others[2] = change(4, 7, false);
        // That its lease has ended is for others to judge.
        let broken = told(others);
        assert_eq!(broken, None);
    }
    // Whoever wants to wait for ever is not told that it was long enough: it was not let in.
    let not_let_in = refused(30, 70, acquire(8, None), Code::Busy);
    let ops = vec![op(10, 20, acquire(7, None), 2, held(7, 2)), not_let_in];
    assert!(broken(&history(ops, vec![change(2, 7, true), change(3, 8, true)])).is_some());
}

#[test]
fn a_lock_says_that_the_lease_lives_and_its_refusal_that_it_does_not() {
    let lives = |answer| {
        let ops = vec![grant(7), op(10, 20, acquire(7, None), 2, answer)];
        leases::check(&History::from_ops(ops), whole, STATES_MAX).is_ok()
    };
    assert!(lives(held(7, 2)) && lives(Answer::NoKey));
    assert!(!lives(Answer::NoLease), "its time was not over");
}
