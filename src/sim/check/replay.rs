//! The main judge: the writes replayed in the order of their revisions, and every answer held against the state
//! that it names. The essay is at [`super`].

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::history::{Answer, Change, History, Op, Outcome, Shown, ShownKv};
use super::model::{EMPTY, Model};
use super::resolve::{Claim, Owners, Readback, Seen, assign};
use super::timeline::{self, Floor};
use super::{Rule, Violation, compaction};
use crate::api::{KeyValue, Put, Request, Span};
use crate::base::Revision;

const CANDIDATES_SHOWN_MAX: usize = 8;

/// What a clean history held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Acknowledged puts, and deletes that found something.
    pub writes: usize,
    /// Answered reads, and deletes that found nothing.
    pub reads: usize,
    pub refused: usize,
    pub unknown: usize,
    /// Writes of unknown outcome that happened.
    pub unknown_applied: usize,
    pub last_revision: Revision,
    /// Revisions that nobody was told of, has seen or read back.
    pub gaps: usize,
    /// Answers that could not be judged because of such gaps.
    pub unchecked: usize,
}

/// Judges a whole history. The first broken promise that is found, in the order: owners of revisions, effects of
/// writes by revision, answers of reads by operation, true time.
pub fn check(history: &History) -> Result<Summary, Violation> {
    let ops = &history.ops;
    let readback = Readback::new(history);
    let owners = Owners::claimed(ops)?;
    let seen = owners.seen_unclaimed(history)?;
    let highest_seen = seen.last_key_value().map_or(EMPTY, |(&revision, _)| revision);
    let last = last_revision(ops, owners.last().max(readback.last()).max(highest_seen))?;
    let mut replay = Replay {
        owners,
        seen,
        readback,
        model: Model::default(),
        claims: Vec::new(),
        gaps: Vec::new(),
        doubt: None,
    };
    for revision in EMPTY + 1..=last {
        replay.step(revision)?;
    }
    let mut unchecked = 0;
    for op in ops {
        unchecked += usize::from(!replay.answer_is_right(op)?);
    }
    let floors = timeline::check(&timeline::Case {
        ops,
        last,
        model: &replay.model,
        in_doubt: &|key, revision| replay.in_doubt(&Span::Key(key.clone()), revision),
    })?;
    compaction::check(history)?;
    replay.settle(ops, &floors)?;
    let mut summary = Summary {
        last_revision: last,
        gaps: replay.gaps.len(),
        unchecked,
        unknown_applied: replay.claims.len(),
        ..Summary::default()
    };
    for op in ops {
        match &op.outcome {
            Outcome::Answered {
                answer: Answer::Put { .. } | Answer::Delete { deleted: 1.., .. }, ..
            } => {
                summary.writes += 1;
            }
            Outcome::Answered { .. } => summary.reads += 1,
            Outcome::Refused { .. } => summary.refused += 1,
            Outcome::Unknown => summary.unknown += 1,
        }
    }
    Ok(summary)
}

/// The highest revision that anybody named. More revisions than writes is a lie, found before anything counts to it.
fn last_revision(ops: &[Op], owned: Revision) -> Result<Revision, Violation> {
    let writes = ops.iter().filter(|op| matches!(op.request, Request::Put(_) | Request::Delete(_))).count();
    let highest_possible = EMPTY + writes as Revision;
    let mut last = owned;
    for op in ops {
        let named = named_revision(op);
        if named > highest_possible {
            let what = format!("revision {named} is named, but {writes} writes end at {highest_possible}");
            return Err(Violation::new(Rule::NoGaps, what, &[op]));
        }
        last = last.max(named);
    }
    if last > highest_possible {
        let what = format!("revision {last} is read back, but {writes} writes end at {highest_possible}");
        return Err(Violation::new(Rule::NoGaps, what, &[]));
    }
    Ok(last)
}

fn named_revision(op: &Op) -> Revision {
    let Outcome::Answered { header, answer, .. } = &op.outcome else { return 0 };
    let named = match answer {
        Answer::Put { revision, .. } | Answer::Delete { revision, .. } => *revision,
        Answer::Range(result) => {
            result.kvs.iter().map(|kv| kv.mod_revision).fold(result.revision, Revision::max)
        }
        Answer::Exists { revision, .. } => *revision,
        Answer::Future { newest } => *newest,
        Answer::Compact { revision } => *revision,
        Answer::Value(_) | Answer::NoKey | Answer::Compacted { .. } => 0,
    };
    named.max(header.unwrap_or(0))
}

struct Replay<'a> {
    owners: Owners<'a>,
    seen: BTreeMap<Revision, Seen<'a>>,
    readback: Readback<'a>,
    model: Model,
    /// Revisions whose owners are among the writes of unknown outcome.
    claims: Vec<Claim>,
    gaps: Vec<Revision>,
    /// From the first gap on: what the writes that may have filled it could have touched.
    doubt: Option<(Revision, Vec<Span>)>,
}

impl Replay<'_> {
    /// One revision: lets its owner act on the model, and holds its answer and the read-back against that.
    fn step(&mut self, revision: Revision) -> Result<(), Violation> {
        let Some(op) = self.owners.of(revision) else { return self.step_unclaimed(revision) };
        let effect = match &op.request {
            Request::Put(put) => {
                let before = self.model.at(&put.key, revision).cloned();
                let doubtful = self.in_doubt(&Span::Key(put.key.clone()), revision);
                match self.model.put(put, revision).cloned() {
                    None if doubtful => return Ok(()),
                    None => return Err(wrong(op, "it keeps what was not there; that is NOKEY")),
                    Some(after) => {
                        if !doubtful {
                            check_put(op, before.as_ref())?;
                        }
                        vec![(after.key, Some(after.value))]
                    }
                }
            }
            Request::Delete(delete) => {
                let doubtful = self.in_doubt(&delete.span, revision);
                let gone = self.model.delete(&delete.span, revision);
                if doubtful {
                    return Ok(());
                }
                check_delete(op, delete.prev_kv, &gone)?;
                gone.into_iter().map(|kv| (kv.key, None)).collect()
            }
            _ => return Err(wrong(op, "a read was answered like a write")),
        };
        self.check_read_back(revision, &effect, Rule::NothingLost, &[op])
    }

    /// A revision that nobody was told of: what was seen of it says what it did.
    fn step_unclaimed(&mut self, revision: Revision) -> Result<(), Violation> {
        if let Some(seen) = self.seen.get(&revision).copied() {
            let before = self.model.at(seen.key, revision).map(|kv| &kv.value);
            let kept = before == Some(seen.value) || self.in_doubt(&Span::Key(seen.key.clone()), revision);
            self.claims.push(self.owners.claim_put(revision, &seen, kept)?);
            let put = Put { key: seen.key.clone(), value: seen.value.clone(), ..Put::default() };
            self.model.put(&put, revision);
            return self.check_read_back(
                revision,
                &[(put.key, Some(put.value))],
                Rule::NothingFromNowhere,
                &[],
            );
        }
        let Some(told) = self.readback.at(revision) else { return self.gap(revision) };
        let gone: Vec<Bytes> = told.iter().map(|change| change.key.clone()).collect();
        let (model, doubt) = (&self.model, self.doubt.as_ref());
        let fits = |span: &Span| {
            let there = model.span(span, revision);
            there.iter().map(|kv| &kv.key).eq(&gone) || touched(doubt, span, revision)
        };
        let what = shown_changes(told);
        if gone.is_empty() {
            let what = format!("revision {revision} changed nothing");
            return Err(Violation::new(Rule::NothingFromNowhere, what, &[]));
        }
        let Some(claim) = self.owners.claim_delete(revision, what.clone(), fits) else {
            let what = format!("revision {revision} is read back as {what}: nobody asked for that");
            return Err(Violation::new(Rule::NothingFromNowhere, what, &[]));
        };
        self.claims.push(claim);
        for key in gone {
            self.model.delete(&Span::Key(key), revision);
        }
        Ok(())
    }

    fn check_read_back(
        &self,
        revision: Revision,
        effect: &[(Bytes, Option<Bytes>)],
        rule: Rule,
        ops: &[&Op],
    ) -> Result<(), Violation> {
        let Some(told) = self.readback.at(revision) else { return Ok(()) };
        let same = told.len() == effect.len()
            && told.iter().zip(effect).all(|(told, (key, value))| (&told.key, &told.value) == (key, value));
        if same {
            return Ok(());
        }
        let effect: Vec<String> = effect.iter().map(|(key, value)| shown(key, value.as_ref())).collect();
        let what = format!(
            "revision {revision} is read back as {}, expected {}",
            shown_changes(told),
            effect.join(", ")
        );
        Err(Violation::new(rule, what, ops))
    }

    /// Nobody was told of this revision, has seen it, or has read it back.
    fn gap(&mut self, revision: Revision) -> Result<(), Violation> {
        self.gaps.push(revision);
        if self.doubt.is_none() {
            self.doubt = Some((revision, self.owners.unknown_spans()));
        }
        Ok(())
    }

    /// Each revision that nobody was told of needs a write of its own whose outcome is unknown, and that was asked
    /// for before the store was beyond it.
    fn settle(&self, ops: &[Op], floors: &[Floor]) -> Result<(), Violation> {
        let any = self.gaps.iter().map(|&revision| Claim {
            revision,
            what: "nothing that anybody saw".into(),
            candidates: self.owners.unknown(),
        });
        let mut claims: Vec<Claim> = any.collect();
        claims.splice(0..0, self.claims.iter().cloned());
        if let Err(claim) = assign(&claims, |_, _| true) {
            let rule = if self.gaps.contains(&claim.revision) { Rule::NoGaps } else { Rule::AppliedOnce };
            return Err(unsettled(rule, ops, claim, "no write is left that could have made it"));
        }
        let in_time = |claim: &Claim, at: usize| floors[at].revision < claim.revision;
        assign(&claims, in_time).map(|_| ()).map_err(|claim| {
            let what = "every write that could have made it was asked for when the store was beyond it";
            unsettled(Rule::RealTime, ops, claim, what)
        })
    }

    fn in_doubt(&self, span: &Span, revision: Revision) -> bool {
        touched(self.doubt.as_ref(), span, revision)
    }

    /// Reads, and deletes that found nothing. False where it could not be judged.
    fn answer_is_right(&self, op: &Op) -> Result<bool, Violation> {
        let Outcome::Answered { header, answer, .. } = &op.outcome else { return Ok(true) };
        match (&op.request, answer) {
            (Request::Put(_), Answer::Put { .. }) => Ok(true),
            (Request::Delete(_), Answer::Delete { deleted: 1.., .. }) => Ok(true),
            (Request::Delete(delete), Answer::Delete { revision, previous, .. }) => {
                if !previous.is_empty() {
                    return Err(wrong(op, "it deleted nothing and shows what it deleted"));
                }
                if self.in_doubt(&delete.span, *revision) {
                    return Ok(false);
                }
                match self.model.span(&delete.span, *revision).first() {
                    None => Ok(true),
                    Some(kv) => Err(wrong(op, format!("it found nothing; there was {}", ShownKv(kv)))),
                }
            }
            (Request::Range(range), Answer::Range(result)) => {
                if range.revision > 0 && result.revision != range.revision {
                    return Err(wrong(op, format!("it reads {} for {}", result.revision, range.revision)));
                }
                if header.is_some_and(|header| result.revision > header) {
                    return Err(wrong(op, "it reads a revision that the store had not reached"));
                }
                if self.in_doubt(&range.span, result.revision) {
                    return Ok(false);
                }
                let mismatch = self.model.range_mismatch(range, result.revision, result);
                mismatch.map_or(Ok(true), |what| Err(wrong(op, what)))
            }
            (Request::Exists { keys }, Answer::Exists { revision, found }) => {
                if keys.iter().any(|key| self.in_doubt(&Span::Key(key.clone()), *revision)) {
                    return Ok(false);
                }
                let there = keys.iter().filter(|key| self.model.at(key, *revision).is_some()).count() as u64;
                if there == *found { Ok(true) } else { Err(wrong(op, format!("{there} were there"))) }
            }
            (Request::Range(range), Answer::Future { newest }) if range.revision <= *newest => {
                Err(wrong(op, "the revision was there"))
            }
            (Request::Range(range), Answer::Future { .. }) if range.revision > 0 => Ok(true),
            (Request::Range(range), Answer::Compacted { first }) if (1..*first).contains(&range.revision) => {
                Ok(true)
            }
            (Request::Compact(compact), Answer::Compacted { first }) if compact.revision <= *first => {
                Ok(true)
            }
            (_, Answer::Compacted { .. }) => Err(wrong(op, "what was asked for is not compacted")),
            (Request::Compact(compact), Answer::Compact { revision }) if compact.revision == *revision => {
                Ok(true)
            }
            (Request::Compact(compact), Answer::Future { newest }) if compact.revision > *newest => Ok(true),
            // Without a revision of their own: the timeline finds one, or not.
            (Request::Range(range), Answer::Value(_)) => match &range.span {
                Span::Key(key) if self.in_doubt(&range.span, Revision::MAX) => {
                    Ok(range.revision > 0 && !self.in_doubt(&Span::Key(key.clone()), range.revision))
                }
                Span::Key(_) => Ok(true),
                _ => Err(wrong(op, "one value for a span")),
            },
            (Request::Put(put), Answer::NoKey) if put.ignore_value || put.ignore_lease => {
                Ok(!self.in_doubt(&Span::Key(put.key.clone()), Revision::MAX))
            }
            _ => Err(wrong(op, "an answer to another question")),
        }
    }
}

fn unsettled(rule: Rule, ops: &[Op], claim: &Claim, what: &str) -> Violation {
    let candidates: Vec<&Op> =
        claim.candidates.iter().take(CANDIDATES_SHOWN_MAX).map(|&at| &ops[at]).collect();
    Violation::new(
        rule,
        format!("revision {} is seen as {}: {what}", claim.revision, claim.what),
        &candidates,
    )
}

fn touched(doubt: Option<&(Revision, Vec<Span>)>, span: &Span, revision: Revision) -> bool {
    let Some((from, spans)) = doubt else { return false };
    revision >= *from && spans.iter().any(|other| overlap(span, other))
}

fn overlap(a: &Span, b: &Span) -> bool {
    let ((a_from, a_end), (b_from, b_end)) = (a.bounds(), b.bounds());
    a_end.is_none_or(|end| b_from < end) && b_end.is_none_or(|end| a_from < end)
}

fn check_put(op: &Op, before: Option<&KeyValue>) -> Result<(), Violation> {
    let (Request::Put(put), Outcome::Answered { answer: Answer::Put { previous, .. }, .. }) =
        (&op.request, &op.outcome)
    else {
        return Ok(());
    };
    if previous.is_some() != put.prev_kv {
        return Err(wrong(op, "what was there before is told exactly when it is asked for"));
    }
    match previous {
        Some(previous) if previous.as_ref() != before => {
            let before = before.map_or("nothing".into(), |kv| ShownKv(kv).to_string());
            Err(wrong(op, format!("before it was {before}")))
        }
        _ => Ok(()),
    }
}

fn check_delete(op: &Op, prev_kv: bool, gone: &[KeyValue]) -> Result<(), Violation> {
    if gone.is_empty() {
        return Err(wrong(op, "a delete that finds nothing makes no revision"));
    }
    let Outcome::Answered { answer: Answer::Delete { deleted, previous, .. }, .. } = &op.outcome else {
        return Ok(());
    };
    if *deleted != gone.len() as u64 {
        return Err(wrong(op, format!("{} keys were there", gone.len())));
    }
    if previous[..] == *if prev_kv { gone } else { &[] } {
        return Ok(());
    }
    let gone: Vec<String> = gone.iter().map(|kv| ShownKv(kv).to_string()).collect();
    Err(wrong(op, format!("it deleted {gone:?}, and tells so exactly when it is asked to")))
}

fn shown_changes(changes: &[&Change]) -> String {
    let changes: Vec<String> =
        changes.iter().map(|change| shown(&change.key, change.value.as_ref())).collect();
    if changes.is_empty() { "nothing".into() } else { changes.join(", ") }
}

fn shown(key: &[u8], value: Option<&Bytes>) -> String {
    value.map_or_else(|| format!("delete {}", Shown(key)), |value| format!("{}={}", Shown(key), Shown(value)))
}

fn wrong(op: &Op, what: impl Into<String>) -> Violation {
    Violation::new(Rule::RightAnswer, what, &[op])
}
