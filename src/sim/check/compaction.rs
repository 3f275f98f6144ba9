//! Compactions in true time: one sweep over all questions and answers, as [`super::timeline`] makes it for revisions.
//!
//! The history ends where some compaction says that it ends, and that place never goes back. A read of something before a
//! compaction that was finished before the question must be refused; for a serializable read, which may be answered by
//! a member that does not know yet, one whose end this connection has been told of. A refusal names the end: somebody
//! must have asked for that, or the store compacts by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Answer, History, Moment, Op, Outcome};
use super::txn::{self, Asked};
use super::{Rule, Violation};
use crate::api::Request;
use crate::base::Revision;

pub(super) fn check(history: &History) -> Result<(), Violation> {
    let mut events: Vec<(Moment, bool, usize)> = Vec::new();
    for (at, op) in history.ops.iter().enumerate() {
        events.push((op.invoked, false, at));
        if let Outcome::Answered { at: moment, .. } = &op.outcome {
            events.push((*moment, true, at));
        }
    }
    events.sort_unstable();
    let mut ends = Ends {
        carried_out: BTreeSet::new(),
        asked: BTreeSet::from([0]),
        by_itself: history.compacts_by_itself,
        known: 0,
        on_connection: BTreeMap::new(),
    };
    // Of each operation: the end that was known to somebody, and on its connection, when it was asked for.
    let mut at_question = vec![(0, 0); history.ops.len()];
    for (_, is_answer, at) in events {
        let op = &history.ops[at];
        if is_answer {
            ends.answer(op, at_question[at])?;
        } else {
            at_question[at] = ends.question(op);
        }
    }
    Ok(())
}

/// Where the history may have ended, at one time or another.
pub(super) fn perhaps(history: &History) -> BTreeSet<Revision> {
    let asked = history.ops.iter().filter_map(|op| match &op.request {
        Request::Compact(compact) if !matches!(op.outcome, Outcome::Refused { .. }) => Some(compact.revision),
        _ => None,
    });
    asked.collect()
}

struct Ends {
    asked: BTreeSet<Revision>,
    carried_out: BTreeSet<Revision>,
    by_itself: bool,
    known: Revision,
    on_connection: BTreeMap<u64, Revision>,
}

impl Ends {
    fn question(&mut self, op: &Op) -> (Revision, Revision) {
        if let Request::Compact(compact) = &op.request
            && matches!(
                op.outcome,
                Outcome::Unknown | Outcome::Answered { answer: Answer::Compact { .. }, .. }
            )
        {
            self.asked.insert(compact.revision);
        }
        (self.known, self.on_connection.get(&op.connection).copied().unwrap_or(0))
    }

    fn answer(&mut self, op: &Op, (known, on_connection): (Revision, Revision)) -> Result<(), Violation> {
        let Outcome::Answered { answer, .. } = &op.outcome else { return Ok(()) };
        let wrong = |what: String| Err(Violation::new(Rule::Compaction, what, &[op]));
        let (least, asked) = match &op.request {
            Request::Range(range) if range.serializable => (on_connection, range.revision),
            Request::Range(range) => (known, range.revision),
            Request::HashKv { revision } => (on_connection, *revision),
            Request::Compact(compact) => (known, compact.revision),
            Request::Txn(txn) if txn::is_serializable(txn) => (on_connection, oldest_read(op)),
            Request::Txn(_) => (known, oldest_read(op)),
            _ => return Ok(()),
        };
        let end = match answer {
            Answer::Range(_) | Answer::Value(_) | Answer::Txn { .. } if asked > 0 && asked < least => {
                return wrong(format!("the history had ended at {least} before the question"));
            }
            Answer::HashKv { compact_revision, .. } if *compact_revision < least => {
                return wrong(format!("the history had ended at {least} before the question, and goes back"));
            }
            Answer::Compact { revision } if *revision <= least => {
                return wrong(format!("the history had ended at {least} before the question"));
            }
            Answer::Compact { revision } if !self.carried_out.insert(*revision) => {
                return wrong(format!("an end at {revision} is told to be new twice"));
            }
            Answer::Compacted { first } if *first < least => {
                return wrong(format!("the history had ended at {least} before the question, and goes back"));
            }
            Answer::Compacted { first } if !self.by_itself && !self.asked.contains(first) => {
                return wrong(format!("nobody asked for an end at {first}"));
            }
            Answer::HashKv { compact_revision, .. } => *compact_revision,
            Answer::Compact { revision } => *revision,
            Answer::Compacted { first } => *first,
            _ => return Ok(()),
        };
        self.known = self.known.max(end);
        let told = self.on_connection.entry(op.connection).or_default();
        *told = (*told).max(end);
        Ok(())
    }
}

/// What a transaction read of old revisions; 0: nothing.
fn oldest_read(op: &Op) -> Revision {
    let old = txn::answered(op).into_iter().filter_map(|(asked, _)| match asked {
        Asked::Range(range) if range.revision > 0 => Some(range.revision),
        _ => None,
    });
    old.min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::super::history::{History, Moment};
    use super::*;
    use crate::api::{Compact, Put, Range, RangeResult, Span};
    use crate::base::Mono;

    fn op(connection: u64, invoked: u64, request: Request, answer: Answer) -> Op {
        let outcome = Outcome::Answered { at: Moment::new(Mono(invoked + 1)), header: None, answer };
        let invoked = Moment::new(Mono(invoked));
        Op { number: 0, client: connection, connection, request, invoked, outcome }
    }

    fn compact(revision: Revision) -> Request {
        Request::Compact(Compact { revision, physical: false })
    }

    fn read(revision: Revision, serializable: bool) -> Request {
        Request::Range(Range { revision, serializable, ..Range::new(Span::Key("other".into())) })
    }

    fn nothing(revision: Revision) -> Answer {
        Answer::Range(RangeResult { revision, ..RangeResult::default() })
    }

    /// Four puts (2 to 5); the history ends at 3, of which connection 1 is told.
    fn told() -> Vec<Op> {
        let put = |revision: u64| {
            let put = Put { key: "k".into(), value: format!("v{revision}").into(), ..Put::default() };
            op(1, revision, Request::Put(put), Answer::Put { revision, previous: None })
        };
        let mut ops: Vec<Op> = (2..=5).map(put).collect();
        ops.push(op(1, 10, compact(3), Answer::Compact { revision: 3 }));
        ops
    }

    fn broken(more: Op) -> Option<Rule> {
        let mut ops = told();
        ops.push(more);
        super::super::check(&History::from_ops(ops)).err().map(|violation| violation.rule)
    }

    #[test]
    fn what_is_right() {
        for more in [
            op(2, 20, read(3, false), nothing(3)),
            op(2, 20, read(2, false), Answer::Compacted { first: 3 }),
            op(2, 20, read(2, true), nothing(2)),
            op(2, 20, compact(3), Answer::Compacted { first: 3 }),
            op(2, 20, compact(0), Answer::Compacted { first: 3 }),
            op(2, 20, compact(6), Answer::Future { newest: 5 }),
            op(2, 20, compact(5), Answer::Compact { revision: 5 }),
            // Asked at the same time.
            op(2, 10, read(2, false), nothing(2)),
        ] {
            let shown = more.to_string();
            assert_eq!(broken(more), None, "{shown}");
        }
    }

    #[test]
    fn what_is_not() {
        for (rule, more) in [
            (Rule::Compaction, op(2, 20, read(2, false), nothing(2))),
            (Rule::Compaction, op(1, 20, read(2, true), nothing(2))),
            (Rule::Compaction, op(2, 20, read(1, false), Answer::Compacted { first: 2 })),
            (Rule::Compaction, op(2, 20, read(2, false), Answer::Compacted { first: 4 })),
            (Rule::Compaction, op(2, 20, compact(2), Answer::Compact { revision: 2 })),
            (Rule::Compaction, op(2, 10, compact(3), Answer::Compact { revision: 3 })),
            (Rule::RightAnswer, op(2, 20, read(3, false), Answer::Compacted { first: 3 })),
            (Rule::RightAnswer, op(2, 20, read(0, false), Answer::Compacted { first: 3 })),
            (Rule::RightAnswer, op(2, 20, compact(4), Answer::Compacted { first: 3 })),
            (Rule::RightAnswer, op(2, 20, compact(5), Answer::Future { newest: 5 })),
            (Rule::RightAnswer, op(2, 20, compact(4), Answer::Compact { revision: 5 })),
            (Rule::NoGaps, op(2, 20, compact(9), Answer::Compact { revision: 9 })),
        ] {
            let shown = more.to_string();
            assert_eq!(broken(more), Some(rule), "{shown}");
        }
    }
}
