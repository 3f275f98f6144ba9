//! What a transaction is, for the judges: the way that its compares choose, what stands on it, and what may not stand
//! in one at all. As in `docs/protocol.md`: all compares look at the state before, every operation sees those before it,
//! and whatever cannot be done stops everything.

use bytes::Bytes;

use super::super::history::{Answer, Op, Outcome};
use crate::api::{
    Compare, CompareResult, Delete, KeyValue, Op as Part, Put, Range, Request, Span, Target, Txn,
};
use crate::base::{LeaseId, Revision};

/// The way through a transaction.
pub struct Course<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    One(Asked<'a>),
    Txn(Course<'a>),
}

/// An operation, alone or in a transaction.
#[derive(Clone, Copy)]
pub enum Asked<'a> {
    Put(&'a Put),
    Delete(&'a Delete),
    Range(&'a Range),
}

/// Why a transaction is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    NoKey,
    NoLease,
    Future,
    Compacted,
}

/// What is there of a span, in the state before the transaction.
pub type Look<'l> = dyn FnMut(&Span) -> Vec<KeyValue> + 'l;

impl<'a> Course<'a> {
    pub fn new(txn: &'a Txn, look: &mut Look) -> Course<'a> {
        let succeeded = txn.compares.iter().all(|compare| holds(compare, &look(&compare.span)));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let step = |op: &'a Part| match op {
            Part::Put(put) => Step::One(Asked::Put(put)),
            Part::Delete(delete) => Step::One(Asked::Delete(delete)),
            Part::Range(range) => Step::One(Asked::Range(range)),
            Part::Txn(txn) => Step::Txn(Course::new(txn, look)),
        };
        Course { succeeded, steps: ops.iter().map(step).collect() }
    }

    /// All operations on the way, in their order.
    pub fn all(&self) -> Vec<Asked<'a>> {
        let one = |step: &Step<'a>| match step {
            Step::One(asked) => vec![*asked],
            Step::Txn(course) => course.all(),
        };
        self.steps.iter().flat_map(one).collect()
    }

    /// The first reason not to do it, puts before reads, when the store goes from `oldest` to `newest`. `is_there` says it of
    /// leases.
    pub fn stop(
        &self,
        oldest: Revision,
        newest: Revision,
        look: &mut Look,
        is_there: &mut dyn FnMut(LeaseId) -> bool,
    ) -> Option<Stop> {
        let all = self.all();
        let put = all.iter().find_map(|asked| match asked {
            Asked::Put(put) if keeps(put) && look(&Span::Key(put.key.clone())).is_empty() => {
                Some(Stop::NoKey)
            }
            Asked::Put(put) if put.lease != 0 && !is_there(put.lease) => Some(Stop::NoLease),
            _ => None,
        });
        put.or_else(|| {
            all.iter().find_map(|asked| match asked {
                Asked::Range(range) if range.revision > newest => Some(Stop::Future),
                Asked::Range(range) if (1..oldest).contains(&range.revision) => Some(Stop::Compacted),
                _ => None,
            })
        })
    }

    /// An answer tells of this way.
    pub(super) fn is_told_by(&self, answer: &Answer) -> bool {
        let Answer::Txn { succeeded, responses, .. } = answer else { return false };
        *succeeded == self.succeeded
            && responses.len() == self.steps.len()
            && self.steps.iter().zip(responses).all(|(step, response)| match step {
                Step::One(_) => true,
                Step::Txn(course) => course.is_told_by(response),
            })
    }
}

fn keeps(put: &Put) -> bool {
    put.ignore_value || put.ignore_lease
}

/// `there`: all keys of its span.
fn holds(compare: &Compare, there: &[KeyValue]) -> bool {
    let absent = [KeyValue::default()];
    let compared = match (there, &compare.target) {
        ([], Target::Value(_)) => return false,
        ([], _) => &absent,
        _ => there,
    };
    let number = |found: u64, given: i64| i128::from(found).cmp(&i128::from(given));
    compared.iter().all(|kv| {
        let order = match &compare.target {
            Target::Value(value) => kv.value.cmp(value),
            Target::Version(given) => number(kv.version, *given),
            Target::Create(given) => number(kv.create_revision, *given),
            Target::Mod(given) => number(kv.mod_revision, *given),
            Target::Lease(given) => kv.lease.cmp(given),
        };
        match compare.result {
            CompareResult::Equal => order.is_eq(),
            CompareResult::NotEqual => order.is_ne(),
            CompareResult::Less => order.is_lt(),
            CompareResult::Greater => order.is_gt(),
        }
    })
}

/// The operations of a transaction that its answer tells of, and the answers to them, those of nested transactions in
/// front of the answer to the whole: `None` where that is due. No list: the answers do not fit.
pub(super) fn told<'a>(txn: &'a Txn, answer: &'a Answer) -> Option<Vec<(Option<Asked<'a>>, &'a Answer)>> {
    let Answer::Txn { succeeded, responses, .. } = answer else { return None };
    let ops = if *succeeded { &txn.success } else { &txn.failure };
    if ops.len() != responses.len() {
        return None;
    }
    let mut all = Vec::new();
    for (op, response) in ops.iter().zip(responses) {
        match op {
            Part::Put(put) => all.push((Some(Asked::Put(put)), response)),
            Part::Delete(delete) => all.push((Some(Asked::Delete(delete)), response)),
            Part::Range(range) => all.push((Some(Asked::Range(range)), response)),
            Part::Txn(txn) => all.extend(told(txn, response)?),
        }
    }
    all.push((None, answer));
    Some(all)
}

/// What was asked for, alone or in a transaction, as far as it was answered.
pub fn answered(op: &Op) -> Vec<(Asked<'_>, &Answer)> {
    let Outcome::Answered { answer, .. } = &op.outcome else { return Vec::new() };
    match &op.request {
        Request::Put(put) => vec![(Asked::Put(put), answer)],
        Request::Delete(delete) => vec![(Asked::Delete(delete), answer)],
        Request::Range(range) => vec![(Asked::Range(range), answer)],
        Request::Txn(txn) => {
            let told = told(txn, answer).unwrap_or_default();
            told.into_iter().filter_map(|(asked, answer)| Some((asked?, answer))).collect()
        }
        _ => Vec::new(),
    }
}

/// Everything in a transaction, whichever way it goes.
pub(super) fn everything(txn: &Txn) -> Vec<Asked<'_>> {
    txn.success.iter().chain(&txn.failure).flat_map(one).collect()
}

fn one(op: &Part) -> Vec<Asked<'_>> {
    match op {
        Part::Put(put) => vec![Asked::Put(put)],
        Part::Delete(delete) => vec![Asked::Delete(delete)],
        Part::Range(range) => vec![Asked::Range(range)],
        Part::Txn(txn) => everything(txn),
    }
}

/// All puts of a request, alone or in a transaction, whichever way that goes.
pub(super) fn puts(request: &Request) -> Vec<&Put> {
    let all = match request {
        Request::Put(put) => return vec![put],
        Request::Txn(txn) => everything(txn),
        _ => Vec::new(),
    };
    let put = |asked| if let Asked::Put(put) = asked { Some(put) } else { None };
    all.into_iter().filter_map(put).collect()
}

/// The puts of a request that attach their key to a lease.
pub fn attaching(request: &Request) -> Vec<&Put> {
    puts(request).into_iter().filter(|put| put.lease != 0).collect()
}

/// All that it looks at or changes, whichever way it goes.
pub(super) fn spans(txn: &Txn) -> Vec<Span> {
    let mut spans: Vec<Span> = everything(txn).into_iter().map(span).collect();
    spans.extend(compares(txn).into_iter().map(|compare| compare.span.clone()));
    spans
}

fn compares(txn: &Txn) -> Vec<&Compare> {
    let nested = txn.success.iter().chain(&txn.failure).flat_map(|op| match op {
        Part::Txn(txn) => compares(txn),
        _ => Vec::new(),
    });
    txn.compares.iter().chain(nested).collect()
}

pub(super) fn span(asked: Asked) -> Span {
    match asked {
        Asked::Put(put) => Span::Key(put.key.clone()),
        Asked::Delete(delete) => delete.span.clone(),
        Asked::Range(range) => range.span.clone(),
    }
}

pub(super) fn writes(txn: &Txn) -> bool {
    everything(txn).iter().any(|asked| !matches!(asked, Asked::Range(_)))
}

/// Any state may answer it.
pub(super) fn is_serializable(txn: &Txn) -> bool {
    let all = everything(txn);
    !all.is_empty() && all.iter().all(|asked| matches!(asked, Asked::Range(range) if range.serializable))
}

/// Two operations of one branch could change one key, and not both by deleting it.
pub(super) fn changes_twice(txn: &Txn) -> bool {
    [&txn.success, &txn.failure].into_iter().any(|ops| {
        let inside = ops.iter().any(|op| matches!(op, Part::Txn(txn) if changes_twice(txn)));
        let changes = |op: &Part| -> Vec<(Span, bool)> {
            let all = one(op).into_iter().filter(|asked| !matches!(asked, Asked::Range(_)));
            all.map(|asked| (span(asked), matches!(asked, Asked::Put(_)))).collect()
        };
        let clash = |one: &Part, other: &Part| {
            changes(one).iter().any(|(here, puts)| {
                changes(other).iter().any(|(there, too)| (*puts || *too) && overlap(here, there))
            })
        };
        inside || ops.iter().enumerate().any(|(at, one)| ops[..at].iter().any(|other| clash(one, other)))
    })
}

pub(super) fn overlap(a: &Span, b: &Span) -> bool {
    let ((a_from, a_end), (b_from, b_end)) = (a.bounds(), b.bounds());
    let empty = |from: &Bytes, end: &Option<Bytes>| end.as_ref().is_some_and(|end| end <= from);
    !empty(&a_from, &a_end)
        && !empty(&b_from, &b_end)
        && a_end.is_none_or(|end| b_from < end)
        && b_end.is_none_or(|end| a_from < end)
}
