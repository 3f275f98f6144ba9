//! Transactions before the main judge: done on the model operation by operation, each answer held against what the
//! model says.

use std::collections::BTreeMap;

use super::super::history::{Answer, Change, Op, Outcome};
use super::Violation;
use super::model::Model;
use super::replay::{Effect, Replay, check_delete, check_put, wrong};
use super::txn::{self, Asked, Course, Stop};
use crate::api::{KeyValue, Span, Txn};
use crate::base::Revision;

/// What one does, and where. Nothing is written where `write` is none.
struct Walk {
    /// The store's revision before it.
    begun: Revision,
    write: Option<Revision>,
    /// It looks at keys about which nothing can be said.
    doubtful: bool,
}

impl Replay<'_> {
    /// One that makes this revision.
    pub(super) fn step_txn(
        &mut self,
        op: &Op,
        txn: &Txn,
        revision: Revision,
    ) -> Result<Option<Effect>, Violation> {
        let doubtful = self.is_doubtful(txn, revision);
        let effect = self.walk(op, txn, &Walk { begun: revision - 1, write: Some(revision), doubtful })?;
        Ok((!doubtful).then_some(effect))
    }

    /// One that made no revision, or was not done. False where it could not be judged.
    pub(super) fn txn_answer_is_right(
        &mut self,
        op: &Op,
        txn: &Txn,
        answer: &Answer,
    ) -> Result<bool, Violation> {
        match answer {
            Answer::Txn { revision, .. } => {
                let doubtful = self.is_doubtful(txn, *revision);
                self.walk(op, txn, &Walk { begun: *revision, write: None, doubtful })?;
                Ok(!doubtful)
            }
            Answer::Future { newest } => {
                if self.is_doubtful(txn, *newest) {
                    return Ok(false);
                }
                match stop_at(&self.model, txn, *newest, true) {
                    Some(Stop::Future) => Ok(true),
                    other => Err(wrong(op, format!("no revision was missing on its way, but {other:?}"))),
                }
            }
            Answer::Compacted { first } => {
                let gone = |asked: &Asked| matches!(asked, Asked::Range(range) if (1..*first).contains(&range.revision));
                match txn::everything(txn).iter().any(gone) {
                    true => Ok(true),
                    false => Err(wrong(op, "nothing that it reads is compacted")),
                }
            }
            Answer::NoLease if txn::attaching(&op.request).is_empty() => {
                Err(wrong(op, "it asks for no lease"))
            }
            // Without a revision: the timeline finds one, or not.
            _ => Ok(!self.is_doubtful(txn, Revision::MAX)),
        }
    }

    fn is_doubtful(&self, txn: &Txn, revision: Revision) -> bool {
        txn::spans(txn).iter().any(|span| self.in_doubt(span, revision))
    }

    /// Follows the way that the answer tells, which is the one that the compares choose.
    fn walk(&mut self, op: &Op, txn: &Txn, walk: &Walk) -> Result<Effect, Violation> {
        let Walk { begun, write, doubtful } = *walk;
        let Outcome::Answered { answer, .. } = &op.outcome else { return Ok(Vec::new()) };
        let Some(told) = txn::told(txn, answer) else {
            return Err(wrong(op, "its answers do not fit its operations"));
        };
        if !doubtful {
            let course = Course::new(txn, &mut look(&self.model, begun));
            if !course.is_told_by(answer) {
                return Err(wrong(op, "its compares choose another way"));
            }
            // Whether its leases were there is asked in `super::leases`.
            if let Some(stop) = course.stop(0, begun, &mut look(&self.model, begun), &mut |_| true) {
                return Err(wrong(op, format!("it could not be done: {stop:?}")));
            }
        }
        let mut effect = BTreeMap::new();
        let mut reached = begun;
        for (asked, answer) in told {
            let here = match (asked, answer) {
                (Some(Asked::Put(put)), Answer::Put { revision, previous }) => {
                    let Some(write) = write else { return Err(wrong(op, "a put makes a revision")) };
                    let before = self.model.at(&put.key, write).cloned();
                    if let Some(after) = self.model.put(put, write) {
                        effect.insert(after.key.clone(), Some((after.value.clone(), after.lease)));
                    }
                    reached = write;
                    if !doubtful {
                        check_put(op, put, previous.as_ref(), before.as_ref())?;
                    }
                    *revision
                }
                (Some(Asked::Delete(delete)), Answer::Delete { revision, deleted, previous }) => {
                    let gone = match write {
                        Some(write) => self.model.delete(&delete.span, write),
                        None => there(&self.model, &delete.span, begun),
                    };
                    reached = if *deleted > 0 { write.unwrap_or(begun) } else { reached };
                    if !doubtful {
                        check_delete(op, delete, *deleted, previous, &gone)?;
                    }
                    effect.extend(gone.into_iter().map(|kv| (kv.key, None)));
                    *revision
                }
                (Some(Asked::Range(range)), Answer::Range(result)) => {
                    let revision = if range.revision > 0 { range.revision } else { reached };
                    let mismatch = self.model.range_mismatch(range, revision, result);
                    if let Some(what) = mismatch.filter(|_| !doubtful) {
                        return Err(wrong(op, what));
                    }
                    if range.revision > 0 && result.revision == revision { reached } else { result.revision }
                }
                (None, Answer::Txn { revision, .. }) => *revision,
                _ => return Err(wrong(op, "an answer to another question")),
            };
            if here != reached {
                return Err(wrong(op, format!("it tells of revision {here}, where it was at {reached}")));
            }
        }
        Ok(effect.into_iter().collect())
    }

    /// Whether a transaction that nobody heard of can have done what is read back.
    pub(super) fn may_have_done(&self, txn: &Txn, revision: Revision, told: &[&Change]) -> bool {
        if self.is_doubtful(txn, revision) {
            return true;
        }
        // Nothing has this revision yet: it is the state before.
        let course = Course::new(txn, &mut look(&self.model, revision));
        if course.stop(0, revision - 1, &mut look(&self.model, revision), &mut |_| true).is_some() {
            return false;
        }
        let mut effect = BTreeMap::new();
        for asked in course.all() {
            match asked {
                Asked::Put(put) => {
                    let before = self.model.at(&put.key, revision);
                    let value = before.filter(|_| put.ignore_value).map_or(&put.value, |kv| &kv.value);
                    let lease = before.filter(|_| put.ignore_lease).map_or(put.lease, |kv| kv.lease);
                    effect.insert(&put.key, Some((value, lease)));
                }
                Asked::Delete(delete) => {
                    let gone = self.model.span(&delete.span, revision);
                    gone.into_iter().for_each(|kv| {
                        effect.insert(&kv.key, None);
                    });
                }
                Asked::Range(_) => {}
            }
        }
        let told = told.iter().map(|change| {
            let value = change.value.as_ref();
            (&change.key, value.map(|value| (value, change.lease)))
        });
        effect.into_iter().eq(told)
    }
}

/// Why a transaction cannot be done at a revision, if all leases are there or if none is. Where the history begins then,
/// `super::compaction` judges.
pub(super) fn stop_at(model: &Model, txn: &Txn, revision: Revision, leases: bool) -> Option<Stop> {
    let mut look = look(model, revision);
    Course::new(txn, &mut look).stop(0, revision, &mut look, &mut |_| leases)
}

fn look(model: &Model, revision: Revision) -> impl FnMut(&Span) -> Vec<KeyValue> + '_ {
    move |span| there(model, span, revision)
}

fn there(model: &Model, span: &Span, revision: Revision) -> Vec<KeyValue> {
    model.span(span, revision).into_iter().cloned().collect()
}
