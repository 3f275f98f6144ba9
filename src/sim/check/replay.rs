//! The main judge: the writes replayed in the order of their revisions, and every answer held against the state
//! that it names. The essay is at [`super`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::history::{Answer, Change, History, Op, Outcome, Shown, ShownKv};
use super::model::{EMPTY, Model};
use super::resolve::{Claim, Owners, Readback, Seen, assign, puts_all};
use super::timeline::{self, Floor};
use super::{Rule, Violation, compaction, locks, txn, watches};
use crate::api::{Code, Delete, KeyValue, LeaseAnswer, LeaseRequest, LockRequest, Put, Request, Span};
use crate::base::{LeaseId, Revision};

const CANDIDATES_SHOWN_MAX: usize = 8;

/// What a clean history held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Acknowledged puts, deletes that found something, and transactions that did either.
    pub writes: usize,
    /// Other answers.
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
    /// Revisions that watches were told of.
    pub told: usize,
}

/// Judges a whole history. The first broken promise that is found, in the order: owners of revisions, effects of
/// writes by revision, answers of reads by operation, true time, watches.
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
        check_refusal(op)?;
        unchecked += usize::from(!replay.answer_is_right(op)?);
    }
    let floors = timeline::check(&timeline::Case {
        ops,
        last,
        model: &replay.model,
        in_doubt: &|span, revision| replay.in_doubt(span, revision),
    })?;
    compaction::check(history)?;
    super::hashes::check(ops)?;
    replay.settle(ops, &floors)?;
    let watches = watches::Case {
        model: &replay.model,
        last,
        in_doubt: &|span, revision| replay.in_doubt(span, revision),
        ends: (!history.compacts_by_itself).then(|| compaction::perhaps(history)),
    };
    let mut summary = Summary {
        last_revision: last,
        told: watches.check(&history.watched)? + watches.check_observers(&history.observed)?,
        gaps: replay.gaps.len(),
        unchecked,
        unknown_applied: replay.claims.len(),
        ..Summary::default()
    };
    for op in ops {
        match &op.outcome {
            Outcome::Answered { answer, .. } if answer.wrote() => summary.writes += 1,
            Outcome::Answered { .. } => summary.reads += 1,
            Outcome::Refused { .. } => summary.refused += 1,
            Outcome::Unknown => summary.unknown += 1,
        }
    }
    Ok(summary)
}

/// The highest revision that anybody named. More revisions than writes is a lie, found before anything counts to it.
fn last_revision(ops: &[Op], owned: Revision) -> Result<Revision, Violation> {
    // A lease ends once for every time that it was granted.
    let may_write = |op: &&Op| match &op.request {
        Request::Put(_) | Request::Delete(_) | Request::Lease(LeaseRequest::Grant { .. }) => true,
        Request::Txn(txn) => txn::writes(txn),
        _ => false,
    };
    // Whoever wants a lock puts a key, and may take it back.
    let asked = |op: &Op| {
        let (put, taken) = locks::may_have(op);
        usize::from(put) + usize::from(taken)
    };
    let writes = ops.iter().filter(may_write).count() + ops.iter().map(asked).sum::<usize>();
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
    named_in(answer).max(header.unwrap_or(0))
}

fn named_in(answer: &Answer) -> Revision {
    match answer {
        Answer::Put { revision, .. } | Answer::Delete { revision, .. } => *revision,
        Answer::Range(result) => {
            result.kvs.iter().map(|kv| kv.mod_revision).fold(result.revision, Revision::max)
        }
        Answer::Txn { revision, responses, .. } => {
            responses.iter().map(named_in).fold(*revision, Revision::max)
        }
        Answer::Exists { revision, .. } => *revision,
        Answer::HashKv { revision, .. } => *revision,
        Answer::Future { newest } => *newest,
        Answer::Compact { revision } => *revision,
        Answer::Lease(LeaseAnswer::Revoked { revision, .. }) | Answer::Acquired { revision, .. } => *revision,
        Answer::Lease(_) | Answer::NoLease | Answer::LeaseExists => 0,
        Answer::Value(_) | Answer::NoKey | Answer::Compacted { .. } => 0,
    }
}

/// The keys that a revision changed, in order, and their value and lease now; None is deleted.
pub(super) type Effect = Vec<(Bytes, Option<(Bytes, LeaseId)>)>;

pub(super) struct Replay<'a> {
    owners: Owners<'a>,
    seen: BTreeMap<Revision, Vec<Seen<'a>>>,
    readback: Readback<'a>,
    pub(super) model: Model,
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
            Request::Put(put) => self.step_put(op, put, revision)?,
            Request::Delete(delete) => self.step_delete(op, delete, revision)?,
            Request::Txn(txn) => self.step_txn(op, txn, revision)?,
            Request::Lease(LeaseRequest::Revoke { id }) => self.step_revoke(op, *id, revision)?,
            _ => return Err(wrong(op, "a read was answered like a write")),
        };
        match effect {
            Some(effect) => self.check_read_back(revision, &effect, Rule::NothingLost, &[op]),
            None => Ok(()),
        }
    }

    fn step_put(&mut self, op: &Op, put: &Put, revision: Revision) -> Result<Option<Effect>, Violation> {
        let before = self.model.at(&put.key, revision).cloned();
        let doubtful = self.in_doubt(&Span::Key(put.key.clone()), revision);
        if doubtful {
            // What it keeps is not known before it is read back.
            let after = self.model.put(&self.as_read_back(put, revision), revision).cloned();
            return Ok(after.map(|kv| vec![(kv.key, Some((kv.value, kv.lease)))]));
        }
        let after = self.model.put(put, revision).cloned();
        let Some(after) = after else { return Err(wrong(op, "it keeps what was not there; that is NOKEY")) };
        if let Outcome::Answered { answer: Answer::Put { previous, .. }, .. } = &op.outcome {
            check_put(op, put, previous.as_ref(), before.as_ref())?;
        }
        Ok(Some(vec![(after.key, Some((after.value, after.lease)))]))
    }

    /// A put with what it kept.
    fn as_read_back(&self, put: &Put, revision: Revision) -> Put {
        let mut put = put.clone();
        if let Some([Change { key, value: Some(value), lease, .. }]) = self.readback.at(revision)
            && *key == put.key
        {
            if std::mem::take(&mut put.ignore_value) {
                put.value = value.clone();
            }
            if std::mem::take(&mut put.ignore_lease) {
                put.lease = *lease;
            }
        }
        put
    }

    fn step_delete(
        &mut self,
        op: &Op,
        delete: &Delete,
        revision: Revision,
    ) -> Result<Option<Effect>, Violation> {
        let doubtful = self.in_doubt(&delete.span, revision);
        let gone = self.model.delete(&delete.span, revision);
        if doubtful {
            return Ok(None);
        }
        if gone.is_empty() {
            return Err(wrong(op, "a delete that finds nothing makes no revision"));
        }
        if let Outcome::Answered { answer: Answer::Delete { deleted, previous, .. }, .. } = &op.outcome {
            check_delete(op, delete, *deleted, previous, &gone)?;
        }
        Ok(Some(gone.into_iter().map(|kv| (kv.key, None)).collect()))
    }

    fn step_revoke(
        &mut self,
        op: &Op,
        lease: LeaseId,
        revision: Revision,
    ) -> Result<Option<Effect>, Violation> {
        let doubtful = self.leased_in_doubt(revision);
        let gone = self.model.end_lease(lease, revision);
        if doubtful {
            return Ok(None);
        }
        check_revoke(op, &gone)?;
        Ok(Some(gone.into_iter().map(|key| (key, None)).collect()))
    }

    /// A revision that nobody was told of: what was seen of it, or is read back, says what it did.
    fn step_unclaimed(&mut self, revision: Revision) -> Result<(), Violation> {
        let seen = self.seen.get(&revision).cloned().unwrap_or_default();
        match self.readback.at(revision).map(<[&Change]>::to_vec) {
            Some(told) => self.step_told(revision, &seen, &told),
            None if seen.is_empty() => {
                self.gaps.push(revision);
                self.begin_doubt(revision);
                Ok(())
            }
            None => self.step_seen(revision, &seen),
        }
    }

    /// All that it did is read back.
    fn step_told(&mut self, revision: Revision, seen: &[Seen], told: &[&Change]) -> Result<(), Violation> {
        let what = shown_changes(told);
        let nowhere = |what| Err(Violation::new(Rule::NothingFromNowhere, what, &[]));
        let is_told = |seen: &&Seen| told.iter().any(|change| change.key == *seen.key);
        if told.is_empty() && seen.is_empty() {
            return nowhere(format!("revision {revision} changed nothing"));
        }
        if seen.is_empty() && self.is_end_of_lease(told, revision) {
            for change in told {
                self.model.delete(&Span::Key(change.key.clone()), revision);
            }
            return Ok(());
        }
        let mut candidates = self.owners.claim_txn(|txn| self.may_have_done(txn, revision, told));
        match told {
            [Change { value: Some(_), .. }] => candidates.extend(self.putters(revision, &seen[0])),
            _ if told.iter().all(|change| change.value.is_none()) => {
                let fits = |span: &Span| {
                    let there = self.model.span(span, revision);
                    there.iter().map(|kv| &kv.key).eq(told.iter().map(|change| &change.key))
                        || self.in_doubt(span, revision)
                };
                candidates.extend(self.owners.claim_delete(fits));
            }
            _ => {}
        }
        match seen {
            [seen] if candidates.is_empty() => return Err(self.owners.nobody_put(revision, seen)),
            _ if candidates.is_empty() => {
                return nowhere(format!("revision {revision} is read back as {what}: nobody asked for that"));
            }
            _ => {}
        }
        if let Some(seen) = seen.iter().find(|seen| !is_told(seen)) {
            return nowhere(format!("revision {revision} is read back as {what}, and was seen as {seen}"));
        }
        for change in told {
            let key = change.key.clone();
            match &change.value {
                Some(value) => {
                    let put = Put { key, value: value.clone(), lease: change.lease, ..Put::default() };
                    self.model.put(&put, revision);
                }
                None => {
                    self.model.delete(&Span::Key(key), revision);
                }
            }
        }
        self.claims.push(Claim { revision, what, candidates });
        Ok(())
    }

    /// Some of what it did was seen; a transaction may have done more.
    fn step_seen(&mut self, revision: Revision, seen: &[Seen]) -> Result<(), Violation> {
        let mut candidates = self.owners.claim_txn(|txn| puts_all(txn, seen));
        let by_txn = !candidates.is_empty();
        if let [seen] = seen {
            candidates.extend(self.putters(revision, seen));
        }
        let [first, ..] = seen else { unreachable!("something was seen") };
        if candidates.is_empty() {
            return Err(self.owners.nobody_put(revision, first));
        }
        for Seen { key, value, lease, .. } in seen {
            let (key, value, lease) = ((*key).clone(), (*value).clone(), *lease);
            let put = Put { key, value, lease, ..Put::default() };
            self.model.put(&put, revision);
        }
        self.claims.push(Claim { revision, what: first.to_string(), candidates });
        if by_txn {
            self.begin_doubt(revision);
        }
        Ok(())
    }

    /// Leases end by themselves, each with all its keys at once: nobody need have asked for that.
    fn is_end_of_lease(&self, told: &[&Change], revision: Revision) -> bool {
        if told.is_empty() || told.iter().any(|change| change.value.is_some()) {
            return false;
        }
        // Who attached a key may be among those of whom nothing was seen.
        let is_sure = |change: &&&Change| !self.in_doubt(&Span::Key(change.key.clone()), revision);
        let lease = |change: &&Change| self.model.at(&change.key, revision).map_or(0, |kv| kv.lease);
        let leases: BTreeSet<LeaseId> = told.iter().filter(is_sure).map(lease).collect();
        match leases.first() {
            Some(0) => false,
            Some(_) if leases.len() > 1 => false,
            _ if self.leased_in_doubt(revision) => true,
            Some(&lease) => {
                self.model.attached(lease, revision).into_iter().eq(told.iter().map(|change| &change.key))
            }
            None => false,
        }
    }

    fn leased_in_doubt(&self, revision: Revision) -> bool {
        self.doubt.as_ref().is_some_and(|(from, _)| revision >= *from)
    }

    fn putters(&self, revision: Revision, seen: &Seen) -> Vec<usize> {
        let before = self.model.at(seen.key, revision).map(|kv| &kv.value);
        let kept = before == Some(seen.value) || self.in_doubt(&Span::Key(seen.key.clone()), revision);
        self.owners.putters(seen, kept)
    }

    fn check_read_back(
        &self,
        revision: Revision,
        effect: &[(Bytes, Option<(Bytes, LeaseId)>)],
        rule: Rule,
        ops: &[&Op],
    ) -> Result<(), Violation> {
        let Some(told) = self.readback.at(revision) else { return Ok(()) };
        let same = told.len() == effect.len()
            && told.iter().zip(effect).all(|(told, (key, value))| {
                let told_value = told.value.clone().map(|value| (value, told.lease));
                (&told.key, &told_value) == (key, value)
            });
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

    fn begin_doubt(&mut self, revision: Revision) {
        if self.doubt.is_none() {
            self.doubt = Some((revision, self.owners.unknown_spans()));
        }
    }

    /// Each revision that nobody was told of needs a write of its own whose outcome is unknown, and that was asked
    /// for before the store was beyond it.
    fn settle(&self, ops: &[Op], floors: &[Floor]) -> Result<(), Violation> {
        // What nobody saw may have been the end of a lease.
        let leases =
            ops.iter().any(|op| !txn::attaching(&op.request).is_empty() || locks::acquire(op).is_some());
        let gaps = if leases { &[][..] } else { &self.gaps };
        let any = gaps.iter().map(|&revision| Claim {
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
        let in_time = |claim: &Claim, at: usize| floors[at % ops.len()].revision < claim.revision;
        assign(&claims, in_time).map(|_| ()).map_err(|claim| {
            let what = "every write that could have made it was asked for when the store was beyond it";
            unsettled(Rule::RealTime, ops, claim, what)
        })
    }

    pub(super) fn in_doubt(&self, span: &Span, revision: Revision) -> bool {
        touched(self.doubt.as_ref(), span, revision)
    }

    /// Reads, and deletes that found nothing. False where it could not be judged.
    fn answer_is_right(&mut self, op: &Op) -> Result<bool, Violation> {
        let Outcome::Answered { header, answer, .. } = &op.outcome else { return Ok(true) };
        match (&op.request, answer) {
            (Request::Put(_), Answer::Put { .. }) => Ok(true),
            (Request::Delete(_), Answer::Delete { deleted: 1.., .. }) => Ok(true),
            (Request::Txn(_), Answer::Txn { .. }) if answer.wrote() => Ok(true),
            (
                Request::Txn(txn),
                Answer::Txn { .. }
                | Answer::NoKey
                | Answer::NoLease
                | Answer::Future { .. }
                | Answer::Compacted { .. },
            ) => self.txn_answer_is_right(op, txn, answer),
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
            (Request::HashKv { revision: asked }, Answer::HashKv { revision, compact_revision, .. }) => {
                let is_there = (*asked == 0 || asked == revision) && compact_revision <= revision;
                if is_there { Ok(true) } else { Err(wrong(op, "it is of another revision")) }
            }
            (Request::HashKv { revision }, Answer::Future { newest }) if revision > newest => Ok(true),
            (Request::HashKv { revision }, Answer::Compacted { first })
                if (1..=*first).contains(revision) =>
            {
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
            (Request::Put(put), Answer::NoLease) if put.lease != 0 => Ok(true),
            (Request::Lock(LockRequest::Acquire(asked)), answer) => match answer {
                Answer::Acquired { key, .. } if *key == locks::key(asked) => {
                    Ok(!self.leased_in_doubt(Revision::MAX))
                }
                Answer::NoKey | Answer::NoLease => Ok(true),
                _ => Err(wrong(op, "an answer to another question")),
            },
            (Request::Lease(asked), answer) => self.lease_answer_is_right(op, asked, answer, *header),
            (Request::Put(put), Answer::NoKey) if put.ignore_value || put.ignore_lease => {
                Ok(!self.in_doubt(&Span::Key(put.key.clone()), Revision::MAX))
            }
            _ => Err(wrong(op, "an answer to another question")),
        }
    }
}

impl Replay<'_> {
    /// What can be said without knowing when leases end: that is `leases.rs`.
    fn lease_answer_is_right(
        &self,
        op: &Op,
        asked: &LeaseRequest,
        answer: &Answer,
        header: Option<Revision>,
    ) -> Result<bool, Violation> {
        let Answer::Lease(told) = answer else {
            return match (asked, answer) {
                (LeaseRequest::Grant { .. }, Answer::LeaseExists)
                | (LeaseRequest::Revoke { .. }, Answer::NoLease) => Ok(true),
                _ => Err(wrong(op, "an answer to another question")),
            };
        };
        let attached = |id, revision| self.model.attached(id, revision).into_iter();
        match (asked, told) {
            (LeaseRequest::Grant { id, ttl_s }, LeaseAnswer::Granted { id: granted, ttl_s: got }) => {
                let fits = (*id == 0 || id == granted) && *granted != 0 && *got as i64 >= *ttl_s && *got > 0;
                if fits { Ok(true) } else { Err(wrong(op, "another lease than was asked for")) }
            }
            (LeaseRequest::Revoke { .. }, LeaseAnswer::Revoked { deleted: 1.., .. }) => Ok(true),
            (LeaseRequest::Revoke { id }, LeaseAnswer::Revoked { revision, .. }) => {
                let nothing = self.leased_in_doubt(*revision) || attached(*id, *revision).next().is_none();
                if nothing { Ok(true) } else { Err(wrong(op, "keys were attached to it")) }
            }
            (LeaseRequest::KeepAlive { ids }, LeaseAnswer::Kept(ttls)) if ids.len() == ttls.len() => Ok(true),
            (
                LeaseRequest::TimeToLive { id, keys: asked },
                LeaseAnswer::TimeToLive { id: of, time, keys },
            ) => {
                if id != of || time.is_some_and(|time| time.remaining_s > time.granted_s) {
                    return Err(wrong(op, "that is not a time to live of it"));
                }
                match header {
                    _ if !asked || time.is_none() => {
                        if keys.is_empty() {
                            Ok(true)
                        } else {
                            Err(wrong(op, "nobody asked for keys"))
                        }
                    }
                    Some(at) if !self.leased_in_doubt(at) => {
                        let there: Vec<&Bytes> = attached(*id, at).collect();
                        let same = there.iter().copied().eq(keys);
                        if same { Ok(true) } else { Err(wrong(op, format!("attached were {there:?}"))) }
                    }
                    _ => Ok(false),
                }
            }
            (LeaseRequest::List, LeaseAnswer::List(_)) => Ok(true),
            _ => Err(wrong(op, "an answer to another question")),
        }
    }
}

fn check_revoke(op: &Op, gone: &[Bytes]) -> Result<(), Violation> {
    match &op.outcome {
        Outcome::Answered { answer: Answer::Lease(LeaseAnswer::Revoked { deleted, .. }), .. }
            if *deleted != gone.len() as u64 =>
        {
            Err(wrong(op, format!("{gone:?} were attached")))
        }
        _ => Ok(()),
    }
}

fn unsettled(rule: Rule, ops: &[Op], claim: &Claim, what: &str) -> Violation {
    let candidates: Vec<&Op> =
        claim.candidates.iter().take(CANDIDATES_SHOWN_MAX).map(|&at| &ops[at % ops.len()]).collect();
    Violation::new(
        rule,
        format!("revision {} is seen as {}: {what}", claim.revision, claim.what),
        &candidates,
    )
}

/// What was refused was refused with reason, and what had to be refused was not answered.
fn check_refusal(op: &Op) -> Result<(), Violation> {
    let Request::Txn(txn) = &op.request else { return Ok(()) };
    let twice = txn::changes_twice(txn);
    match &op.outcome {
        Outcome::Refused { code: Code::DupKey, .. } if !twice => Err(wrong(op, "it changes no key twice")),
        Outcome::Answered { .. } if twice => Err(wrong(op, "it could change a key twice; that is DUPKEY")),
        _ => Ok(()),
    }
}

fn touched(doubt: Option<&(Revision, Vec<Span>)>, span: &Span, revision: Revision) -> bool {
    let Some((from, spans)) = doubt else { return false };
    revision >= *from && spans.iter().any(|other| txn::overlap(span, other))
}

/// `previous` is what the answer tells of what was there.
pub(super) fn check_put(
    op: &Op,
    put: &Put,
    previous: Option<&Option<KeyValue>>,
    before: Option<&KeyValue>,
) -> Result<(), Violation> {
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

pub(super) fn check_delete(
    op: &Op,
    delete: &Delete,
    deleted: u64,
    previous: &[KeyValue],
    gone: &[KeyValue],
) -> Result<(), Violation> {
    if deleted != gone.len() as u64 {
        return Err(wrong(op, format!("{} keys were there", gone.len())));
    }
    if previous[..] == *if delete.prev_kv { gone } else { &[] } {
        return Ok(());
    }
    let gone: Vec<String> = gone.iter().map(|kv| ShownKv(kv).to_string()).collect();
    Err(wrong(op, format!("it deleted {gone:?}, and tells so exactly when it is asked to")))
}

fn shown_changes(changes: &[&Change]) -> String {
    let changes: Vec<String> = changes
        .iter()
        .map(|change| shown(&change.key, change.value.clone().map(|value| (value, change.lease)).as_ref()))
        .collect();
    if changes.is_empty() { "nothing".into() } else { changes.join(", ") }
}

fn shown(key: &[u8], value: Option<&(Bytes, LeaseId)>) -> String {
    match value {
        None => format!("delete {}", Shown(key)),
        Some((value, 0)) => format!("{}={}", Shown(key), Shown(value)),
        Some((value, lease)) => format!("{}={} lease {lease}", Shown(key), Shown(value)),
    }
}

pub(super) fn wrong(op: &Op, what: impl Into<String>) -> Violation {
    Violation::new(Rule::RightAnswer, what, &[op])
}
