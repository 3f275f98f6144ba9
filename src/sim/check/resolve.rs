//! Who made which revision. Acknowledged writes claim theirs; writes of unknown outcome are given the
//! revisions at which somebody saw what they would have done, each at most one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::history::{Answer, Change, History, Op, Outcome, Shown};
use super::model::EMPTY;
use super::txn::{self, Asked};
use super::{Rule, Violation, locks};
use crate::api::{KeyValue, LeaseAnswer, Request, Span, Txn};
use crate::base::{LeaseId, Revision};

/// What the store told afterwards of its revisions, each in one piece.
pub(super) struct Readback<'a> {
    unread: &'a BTreeSet<Revision>,
    by_revision: BTreeMap<Revision, Vec<&'a Change>>,
}

impl<'a> Readback<'a> {
    pub fn new(history: &'a History) -> Readback<'a> {
        let mut by_revision: BTreeMap<Revision, Vec<&Change>> = BTreeMap::new();
        for change in &history.changes {
            by_revision.entry(change.revision).or_default().push(change);
        }
        for changes in by_revision.values_mut() {
            changes.sort_by_key(|change| &change.key);
        }
        Readback { unread: &history.unread, by_revision }
    }

    /// None where it does not reach.
    pub fn at(&self, revision: Revision) -> Option<&[&'a Change]> {
        let (first, last) = (self.by_revision.first_key_value()?.0, self.last());
        let covered = (*first..=last).contains(&revision) && !self.unread.contains(&revision);
        covered.then(|| self.by_revision.get(&revision).map_or(&[][..], |changes| &changes[..]))
    }

    pub fn last(&self) -> Revision {
        self.by_revision.last_key_value().map_or(EMPTY, |(&last, _)| last)
    }
}

/// Which operation made which revision, as far as it was told; and who is left for the others.
pub(super) struct Owners<'a> {
    ops: &'a [Op],
    by_revision: BTreeMap<Revision, usize>,
    /// Writes of unknown outcome, by what they would have written; each list by the time of the question.
    puts: BTreeMap<(&'a Bytes, &'a Bytes), Vec<usize>>,
    keeping_puts: BTreeMap<&'a Bytes, Vec<usize>>,
    deletes: Vec<(&'a Span, usize)>,
    /// Who may have put a lock's key, and who may have taken it back, whatever came of it. A number beyond those of the
    /// operations is the second thing that one did.
    acquires: BTreeMap<Bytes, Vec<usize>>,
    take_backs: Vec<(Span, usize)>,
    txns: Vec<(&'a Txn, usize)>,
}

/// A revision that nobody was told of, what it was seen to do, and the writes of unknown outcome that do that.
#[derive(Clone)]
pub(super) struct Claim {
    pub revision: Revision,
    pub what: String,
    pub candidates: Vec<usize>,
}

impl<'a> Owners<'a> {
    /// What acknowledged writes claim.
    pub fn claimed(ops: &'a [Op]) -> Result<Owners<'a>, Violation> {
        let mut owners = Owners {
            ops,
            by_revision: BTreeMap::new(),
            puts: BTreeMap::new(),
            keeping_puts: BTreeMap::new(),
            deletes: Vec::new(),
            acquires: BTreeMap::new(),
            take_backs: Vec::new(),
            txns: Vec::new(),
        };
        for (at, op) in ops.iter().enumerate() {
            if let Some(acquire) = locks::acquire(op) {
                let (put, taken_back) = locks::may_have(op);
                if put {
                    owners.acquires.entry(locks::key(acquire)).or_default().push(at);
                }
                if taken_back {
                    owners.take_backs.push((Span::Key(locks::key(acquire)), ops.len() + at));
                }
            }
            if let Some(revision) = claimed_revision(op) {
                if revision <= EMPTY {
                    let what = format!("a write claims revision {revision}; the empty store is at {EMPTY}");
                    return Err(Violation::new(Rule::OneWritePerRevision, what, &[op]));
                }
                if let Some(other) = owners.by_revision.insert(revision, at) {
                    let what = format!("revision {revision} was acknowledged to two writes");
                    return Err(Violation::new(Rule::OneWritePerRevision, what, &[&ops[other], op]));
                }
            } else if op.outcome == Outcome::Unknown {
                match &op.request {
                    Request::Put(put) if put.ignore_value => {
                        owners.keeping_puts.entry(&put.key).or_default().push(at);
                    }
                    Request::Put(put) => owners.puts.entry((&put.key, &put.value)).or_default().push(at),
                    Request::Delete(delete) => owners.deletes.push((&delete.span, at)),
                    Request::Txn(txn) if txn::writes(txn) => owners.txns.push((txn, at)),
                    _ => {}
                }
            }
        }
        Ok(owners)
    }

    pub fn of(&self, revision: Revision) -> Option<&'a Op> {
        self.by_revision.get(&revision).map(|&at| &self.ops[at])
    }

    pub fn last(&self) -> Revision {
        self.by_revision.last_key_value().map_or(EMPTY, |(&last, _)| last)
    }

    /// The puts that were seen of revisions that nobody was told of. Only a transaction puts several keys.
    pub fn seen_unclaimed(
        &self,
        history: &'a History,
    ) -> Result<BTreeMap<Revision, Vec<Seen<'a>>>, Violation> {
        let mut seen: BTreeMap<Revision, Vec<Seen>> = BTreeMap::new();
        let sightings =
            history.ops.iter().flat_map(|op| kvs_of(op).into_iter().map(move |kv| Seen::by(op, kv)));
        let told = history.changes.iter().filter_map(Seen::told);
        for (revision, sighting) in sightings.chain(told) {
            if self.by_revision.contains_key(&revision) {
                continue; // Held in full against the replay later.
            }
            let seen = seen.entry(revision).or_default();
            let Some(first) = seen.iter().find(|first| first.key == sighting.key) else {
                seen.push(sighting);
                continue;
            };
            if (first.value, first.lease) != (sighting.value, sighting.lease) {
                return Err(Violation::two_faces(revision, first, &sighting));
            }
        }
        for (revision, seen) in &seen {
            if let [first, second, ..] = &seen[..]
                && !self.txns.iter().any(|(txn, _)| puts_all(txn, seen))
            {
                return Err(Violation::two_faces(*revision, first, second));
            }
        }
        Ok(seen)
    }

    /// The transactions that may have made a revision.
    pub fn claim_txn(&self, fits: impl Fn(&Txn) -> bool) -> Vec<usize> {
        self.txns.iter().filter(|(txn, _)| fits(txn)).map(|(_, at)| *at).collect()
    }

    /// The puts that may have put what was seen; `kept`: it may be the value that was there before.
    pub fn putters(&self, seen: &Seen, kept: bool) -> Vec<usize> {
        let putting = self.puts.get(&(seen.key, seen.value));
        let keeping = self.keeping_puts.get(seen.key).filter(|_| kept);
        let acquiring = self.acquires.get(seen.key);
        let fits = |at: &&usize| {
            let acquire = locks::acquire(&self.ops[**at]).expect("it is one");
            (&acquire.value, acquire.lease) == (seen.value, seen.lease)
        };
        let acquiring = acquiring.into_iter().flatten().filter(fits);
        putting.into_iter().chain(keeping).flatten().chain(acquiring).copied().collect()
    }

    /// Which promise is broken when a value is seen that no write of unknown outcome can have brought.
    pub fn nobody_put(&self, revision: Revision, seen: &Seen) -> Violation {
        let wrote = |op: &&Op| match &op.request {
            Request::Put(put) => (&put.key, &put.value) == (seen.key, seen.value),
            Request::Txn(txn) => puts_all(txn, std::slice::from_ref(seen)),
            _ => false,
        };
        let writers: Vec<&Op> = self.ops.iter().filter(wrote).collect();
        let shown: Vec<&Op> = writers.iter().copied().chain(seen.op).collect();
        let refused = writers.iter().any(|op| matches!(op.outcome, Outcome::Refused { .. }));
        let (rule, what) = if writers.is_empty() {
            (Rule::NothingFromNowhere, "nobody wrote that")
        } else if refused {
            (Rule::RefusedIsRefused, "that write was refused")
        } else {
            (Rule::AppliedOnce, "that write has another revision")
        };
        Violation::new(rule, format!("revision {revision} is seen as {seen}: {what}"), &shown)
    }

    /// The deletes that may have deleted what a revision was told to have deleted.
    pub fn claim_delete(&self, fits: impl Fn(&Span) -> bool) -> Vec<usize> {
        let deletes = self.deletes.iter().filter(|(span, _)| fits(span)).map(|(_, at)| *at);
        let taken_back = self.take_backs.iter().filter(|(span, _)| fits(span)).map(|(_, at)| *at);
        deletes.chain(taken_back).collect()
    }

    /// What the writes of unknown outcome, and the ends of leases, may have touched.
    pub fn unknown_spans(&self) -> Vec<Span> {
        let leased = self.ops.iter().flat_map(|op| txn::attaching(&op.request)).map(|put| &put.key);
        let keys = self.puts.keys().map(|(key, _)| *key).chain(self.keeping_puts.keys().copied());
        let keys = keys.chain(leased);
        let spans = keys.map(|key| Span::Key(key.clone()));
        let deleted = self.deletes.iter().map(|(span, _)| (*span).clone());
        let by_txns = self.txns.iter().flat_map(|(txn, _)| txn::everything(txn));
        let by_txns = by_txns.filter(|asked| !matches!(asked, Asked::Range(_))).map(txn::span);
        let locked = self.acquires.keys().map(|key| Span::Key(key.clone()));
        spans.chain(deleted).chain(by_txns).chain(locked).collect()
    }

    /// All writes of unknown outcome.
    pub fn unknown(&self) -> Vec<usize> {
        let puts = self.puts.values().chain(self.keeping_puts.values()).flatten().copied();
        let deletes = self.deletes.iter().map(|(_, at)| *at);
        let taken_back = self.take_backs.iter().map(|(_, at)| *at);
        let locks = self.acquires.values().flatten().copied().chain(taken_back);
        puts.chain(deletes).chain(self.txns.iter().map(|(_, at)| *at)).chain(locks).collect()
    }
}

/// Gives each claim a write of its own that `may` have made it. The claim for which none is left, where one is.
///
/// Matching by augmenting paths (Kuhn): a claim takes a free candidate, or moves another claim to one of its own.
pub(super) fn assign(claims: &[Claim], may: impl Fn(&Claim, usize) -> bool) -> Result<Vec<usize>, &Claim> {
    let mut owner_of: BTreeMap<usize, usize> = BTreeMap::new();
    for at in 0..claims.len() {
        let mut tried = BTreeSet::new();
        if !find_owner(claims, at, &may, &mut owner_of, &mut tried) {
            return Err(&claims[at]);
        }
    }
    Ok(owner_of.into_keys().collect())
}

fn find_owner(
    claims: &[Claim],
    at: usize,
    may: &impl Fn(&Claim, usize) -> bool,
    owner_of: &mut BTreeMap<usize, usize>,
    tried: &mut BTreeSet<usize>,
) -> bool {
    for &candidate in &claims[at].candidates {
        if !may(&claims[at], candidate) || !tried.insert(candidate) {
            continue;
        }
        let free = match owner_of.get(&candidate).copied() {
            None => true,
            Some(other) => find_owner(claims, other, may, owner_of, tried),
        };
        if free {
            owner_of.insert(candidate, at);
            return true;
        }
    }
    false
}

/// The revision that a write was told to have made.
fn claimed_revision(op: &Op) -> Option<Revision> {
    let Outcome::Answered { answer, .. } = &op.outcome else { return None };
    match answer {
        Answer::Put { revision, .. } => Some(*revision),
        Answer::Delete { revision, .. }
        | Answer::Txn { revision, .. }
        | Answer::Lease(LeaseAnswer::Revoked { revision, .. })
            if answer.wrote() =>
        {
            Some(*revision)
        }
        _ => None,
    }
}

/// All whole kvs in an answer.
fn kvs_of(op: &Op) -> Vec<&KeyValue> {
    let kvs = txn::answered(op).into_iter().flat_map(|(asked, answer)| match (asked, answer) {
        (_, Answer::Put { previous: Some(Some(kv)), .. }) => std::slice::from_ref(kv),
        (_, Answer::Delete { previous, .. }) => previous,
        (Asked::Range(range), Answer::Range(result)) if !range.keys_only => &result.kvs[..],
        _ => &[],
    });
    kvs.collect()
}

/// Whether a transaction puts all of that, on some way.
pub(super) fn puts_all(txn: &Txn, seen: &[Seen]) -> bool {
    let all = txn::everything(txn);
    seen.iter().all(|seen| {
        all.iter().any(|asked| match asked {
            Asked::Put(put) => put.key == *seen.key && (put.ignore_value || put.value == *seen.value),
            _ => false,
        })
    })
}

impl Violation {
    fn two_faces(revision: Revision, one: &Seen, other: &Seen) -> Violation {
        let what = format!("revision {revision} is seen as {one} and as {other}");
        let ops: Vec<&Op> = [one.op, other.op].into_iter().flatten().collect();
        Violation::new(Rule::OneWritePerRevision, what, &ops)
    }
}

/// A put, as somebody saw it.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub key: &'a Bytes,
    pub value: &'a Bytes,
    pub lease: LeaseId,
    /// None: told by the read-back.
    op: Option<&'a Op>,
}

impl<'a> Seen<'a> {
    fn by(op: &'a Op, kv: &'a KeyValue) -> (Revision, Seen<'a>) {
        (kv.mod_revision, Seen { key: &kv.key, value: &kv.value, lease: kv.lease, op: Some(op) })
    }

    fn told(change: &'a Change) -> Option<(Revision, Seen<'a>)> {
        let value = change.value.as_ref()?;
        Some((change.revision, Seen { key: &change.key, value, lease: change.lease, op: None }))
    }
}

impl std::fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", Shown(self.key), Shown(self.value))?;
        if self.op.is_none() { f.write_str(" (read-back)") } else { Ok(()) }
    }
}
