//! True time: one sweep over all questions and answers. What was finished before a question sets a floor under
//! the revision of its answer. That is all there is to linearizability once the order of the writes is known:
//! if no operation goes below its floor (a write: must be above it), the order of revisions extends true time.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::history::{Answer, Moment, Op, Outcome, Shown};
use super::model::{EMPTY, Model};
use super::txn::{self, Stop};
use super::txn_replay::stop_at;
use super::{Rule, Violation, locks};
use crate::api::{LeaseAnswer, Request, Span, Txn, lock};
use crate::base::Revision;

pub(super) struct Case<'a> {
    pub ops: &'a [Op],
    pub last: Revision,
    pub model: &'a Model,
    pub in_doubt: &'a dyn Fn(&Span, Revision) -> bool,
}

/// A revision that the store had certainly reached, and who showed it.
#[derive(Clone, Copy)]
pub(super) struct Floor {
    pub revision: Revision,
    shown_by: Option<usize>,
}

impl Floor {
    const EMPTY: Floor = Floor { revision: EMPTY, shown_by: None };

    fn raise(&mut self, revision: Revision, shown_by: usize) {
        if revision > self.revision {
            *self = Floor { revision, shown_by: Some(shown_by) };
        }
    }
}

/// Checks every answer; the floor at each question, also of operations that were never answered.
pub(super) fn check(case: &Case) -> Result<Vec<Floor>, Violation> {
    let mut events: Vec<(Moment, bool, usize)> = Vec::with_capacity(case.ops.len() * 2);
    for (at, op) in case.ops.iter().enumerate() {
        events.push((op.invoked, false, at));
        if let Outcome::Answered { at: moment, .. } = &op.outcome {
            events.push((*moment, true, at));
        }
    }
    // At the same moment questions come first: those two are concurrent.
    events.sort_unstable();
    let mut floor = Floor::EMPTY;
    let mut connections: BTreeMap<u64, Floor> = BTreeMap::new();
    let mut at_question = vec![(Floor::EMPTY, Floor::EMPTY); case.ops.len()];
    for (_, is_answer, at) in events {
        let connection = case.ops[at].connection;
        if is_answer {
            let reached = case.position(at, at_question[at])?;
            floor.raise(reached, at);
            connections.entry(connection).or_insert(Floor::EMPTY).raise(reached, at);
        } else {
            let on_connection = connections.get(&connection).copied().unwrap_or(Floor::EMPTY);
            at_question[at] = (floor, on_connection);
        }
    }
    Ok(at_question.into_iter().map(|(floor, _)| floor).collect())
}

impl Case<'_> {
    /// Checks one answer against the floors at its question, and tells which revision the store had reached by it.
    fn position(&self, at: usize, (floor, on_connection): (Floor, Floor)) -> Result<Revision, Violation> {
        let op = &self.ops[at];
        let Outcome::Answered { header, answer, .. } = &op.outcome else { return Ok(EMPTY) };
        let (serializable, asked) = match &op.request {
            Request::Range(range) => (range.serializable, range.revision),
            Request::Txn(txn) => (txn::is_serializable(txn), 0),
            Request::HashKv { revision } => (true, *revision),
            _ => (false, 0),
        };
        let (floor, rule) =
            if serializable { (on_connection, Rule::ConnectionForward) } else { (floor, Rule::RealTime) };
        let header = header.unwrap_or(0);
        let reached = match answer {
            Answer::Put { revision, .. }
            | Answer::Delete { revision, .. }
            | Answer::Txn { revision, .. }
            | Answer::Lease(LeaseAnswer::Revoked { revision, .. })
                if answer.wrote() =>
            {
                self.above(at, *revision, floor)?;
                *revision
            }
            Answer::Put { revision, .. } | Answer::Delete { revision, .. } | Answer::Txn { revision, .. } => {
                self.not_below(at, *revision, floor, rule)?
            }
            Answer::HashKv { revision, .. } => {
                let read_at = if asked > 0 { header } else { *revision };
                self.not_below(at, read_at, floor, rule)?;
                *revision
            }
            // An old revision was asked for: only the header says when it was read.
            Answer::Range(result) if asked > 0 => {
                if header > 0 {
                    self.not_below(at, header, floor, rule)?;
                }
                result.revision
            }
            Answer::Range(result) => self.not_below(at, result.revision, floor, rule)?,
            Answer::Exists { revision, .. } => self.not_below(at, *revision, floor, rule)?,
            Answer::Future { newest } => self.not_below(at, *newest, floor, rule)?,
            Answer::Compact { revision } => *revision,
            Answer::Lease(LeaseAnswer::Revoked { revision, .. }) => {
                self.not_below(at, *revision, floor, rule)?
            }
            // Only the header says when.
            Answer::Lease(_) | Answer::LeaseExists | Answer::Compacted { .. } => EMPTY,
            Answer::Acquired { revision, .. } => self.first_place(at, *revision, header, floor)?,
            Answer::Value(value) => self.lowest_fit(at, asked, value.as_ref(), floor, rule)?,
            Answer::NoKey => match &op.request {
                Request::Txn(txn) => self.lowest_stop(at, txn, Stop::NoKey, header, floor)?,
                _ => self.lowest_fit(at, 0, None, floor, rule)?,
            },
            Answer::NoLease => match &op.request {
                Request::Txn(txn) => self.lowest_stop(at, txn, Stop::NoLease, header, floor)?,
                _ => EMPTY,
            },
        };
        if header > 0 {
            self.not_below(at, header, Floor { revision: reached, shown_by: None }, Rule::RightAnswer)?;
            self.not_below(at, header, floor, rule)?;
        }
        Ok(reached.max(header))
    }

    /// A lock was granted: the key that is told must have been the first then.
    fn first_place(
        &self,
        at: usize,
        created: Revision,
        header: Revision,
        floor: Floor,
    ) -> Result<Revision, Violation> {
        let Some(acquire) = locks::acquire(&self.ops[at]) else { return Ok(EMPTY) };
        let upto = if header > 0 { header.min(self.last) } else { self.last };
        if (self.in_doubt)(&Span::Prefix(lock::lock_prefix(&acquire.name)), upto) {
            return Ok(created);
        }
        locks::first_until(self.model, acquire, created, floor.revision, upto)
            .map_err(|what| self.violation(Rule::OneOwner, what, at, floor))?;
        Ok(created)
    }

    fn above(&self, at: usize, revision: Revision, floor: Floor) -> Result<(), Violation> {
        if revision > floor.revision {
            return Ok(());
        }
        let what = format!(
            "a write is revision {revision}, but the store was at {} before it was asked for",
            floor.revision
        );
        Err(self.violation(Rule::RealTime, what, at, floor))
    }

    fn not_below(
        &self,
        at: usize,
        revision: Revision,
        floor: Floor,
        rule: Rule,
    ) -> Result<Revision, Violation> {
        if revision >= floor.revision {
            return Ok(revision);
        }
        let what = format!(
            "an answer is of revision {revision}, but the store was at {} before the question",
            floor.revision
        );
        Err(self.violation(rule, what, at, floor))
    }

    /// The lowest revision at which the key was what an answer without a revision says. Taking the lowest leaves
    /// the most room to those that follow.
    fn lowest_fit(
        &self,
        at: usize,
        asked: Revision,
        value: Option<&Bytes>,
        floor: Floor,
        rule: Rule,
    ) -> Result<Revision, Violation> {
        let op = &self.ops[at];
        let key = match &op.request {
            Request::Put(put) => &put.key,
            Request::Range(range) => match &range.span {
                Span::Key(key) => key,
                _ => return Ok(EMPTY),
            },
            _ => return Ok(EMPTY),
        };
        if (self.in_doubt)(&Span::Key(key.clone()), if asked > 0 { asked } else { self.last }) {
            return Ok(EMPTY);
        }
        if asked > 0 {
            let there = self.model.at(key, asked).map(|kv| &kv.value);
            if asked > self.last || there != value {
                let what = format!("at revision {asked} the key is {}", shown(there));
                return Err(self.violation(Rule::RightAnswer, what, at, Floor::EMPTY));
            }
            return Ok(asked);
        }
        let mut fits =
            self.model.since(key, floor.revision).filter(|(_, kv)| kv.map(|kv| &kv.value) == value);
        if let Some((revision, _)) = fits.next() {
            return Ok(revision);
        }
        let what = format!(
            "nowhere from revision {} on, which the store had reached before the question, was the key {}",
            floor.revision,
            shown(value)
        );
        Err(self.violation(rule, what, at, floor))
    }

    /// The lowest revision at which a transaction lacks a key, or may lack a lease: `super::leases` asks whether that was there.
    fn lowest_stop(
        &self,
        at: usize,
        txn: &Txn,
        stop: Stop,
        header: Revision,
        floor: Floor,
    ) -> Result<Revision, Violation> {
        if txn::spans(txn).iter().any(|span| (self.in_doubt)(span, self.last)) {
            return Ok(EMPTY);
        }
        let upto = if header > 0 { header.min(self.last) } else { self.last };
        let leases = stop != Stop::NoLease;
        let lacks = |revision: &Revision| stop_at(self.model, txn, *revision, leases) == Some(stop);
        if let Some(revision) = (floor.revision..=upto).find(lacks) {
            return Ok(revision);
        }
        let what = format!("nowhere from revision {} to {upto} was it stopped: {stop:?}", floor.revision);
        Err(self.violation(Rule::RealTime, what, at, floor))
    }

    fn violation(&self, rule: Rule, what: String, at: usize, floor: Floor) -> Violation {
        let shown: Vec<&Op> = floor.shown_by.into_iter().chain([at]).map(|at| &self.ops[at]).collect();
        Violation::new(rule, what, &shown)
    }
}

fn shown(value: Option<&Bytes>) -> String {
    value.map_or("absent".into(), |value| Shown(value).to_string())
}
