//! The life of leases: is there an order of what was asked of each id that explains what was told? Knows nothing of
//! revisions and keys: that a lease's keys go with it is for [`super::replay`].
//!
//! ```text
//!            grant ok                      revoke ok, or its time is over
//!   absent ------------> there until t ----------------------------------> absent
//!                          | keep ok: until t', no earlier
//! ```
//!
//! A lease ends by itself, unasked, and nobody is told. What is promised is the earliest instant at which it may: one TTL
//! after the *question* of the last grant or renewal that was answered. So an answer that says "absent" of a lease that
//! nobody revoked must come after that instant, and nothing else brings it back but another grant.
//!
//! The search is that of [`super::wgl`], with this in place of a register: take an operation that no unfinished one must
//! precede, see whether it fits, go on with the rest, back up where nothing fits, and visit no state twice. A renewal
//! of unknown outcome is passed over (it only makes a lease live longer); other operations of unknown outcome may be taken, once, at
//! any time after their question.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Answer, History, Moment, Op, Outcome};
use super::txn::{self, Asked};
use super::wgl::Taken;
use super::{Rule, Violation};
use crate::api::{LeaseAnswer, LeaseRequest, LockRequest, Request};
use crate::base::time::{Nanos, SECOND};
use crate::base::{LeaseId, Mono};

/// What the search came to, where it found nothing wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub leases: usize,
    /// Operations on single leases.
    pub steps: usize,
    /// Leases whose search was given up.
    pub undecided: usize,
}

/// Judges each lease of a history. `sure` is how long a TTL, in seconds, lasts at least; `states_max` bounds the states
/// that are visited per lease.
pub fn check(
    history: &History,
    sure: impl Fn(u64) -> Nanos,
    states_max: usize,
) -> Result<Verdict, Violation> {
    let mut verdict = Verdict::default();
    for (id, steps) in steps_by_lease(&history.ops, &sure) {
        verdict.leases += 1;
        verdict.steps += steps.len();
        match search(&steps, states_max) {
            Search::Explained => {}
            Search::GivenUp => verdict.undecided += 1,
            Search::Stuck { at } => {
                let what = format!(
                    "no order explains what was told of lease {id}; it ended early, or came back, at"
                );
                let ops: Vec<&Op> = at.into_iter().map(|at| &history.ops[steps[at].op]).collect();
                return Err(Violation::new(Rule::LeaseLives, what, &ops));
            }
        }
    }
    Ok(verdict)
}

/// A lease as an order of operations leaves it: the instant from which on it may be over, if it is there.
type State = Option<Mono>;

#[derive(Clone, Copy, Debug)]
enum Does {
    /// It is there for so long.
    Grants(Nanos),
    Renews(Nanos),
    SeesIt,
    SeesNone,
    Ends,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    op: usize,
    invoked: Moment,
    /// None: never.
    answered: Option<Moment>,
    does: Does,
}

impl Step {
    /// What is there after this step; None: it cannot be taken now.
    fn apply(&self, state: State) -> Option<State> {
        let may_be_over = |until: Mono| self.answered.is_none_or(|answered| answered.at >= until);
        let until = |length: Nanos| self.invoked.at + length;
        match (self.does, state) {
            (Does::Grants(length), None) => Some(Some(until(length))),
            (Does::Grants(length), Some(old)) => may_be_over(old).then_some(Some(until(length))),
            (Does::Renews(length), Some(old)) => Some(Some(old.max(until(length)))),
            (Does::SeesIt, Some(_)) => Some(state),
            (Does::Ends, Some(_)) | (Does::SeesNone, None) => Some(None),
            (Does::SeesNone, Some(old)) => may_be_over(old).then_some(None),
            (Does::Renews(_) | Does::SeesIt | Does::Ends, None) => None,
        }
    }
}

fn steps_by_lease(ops: &[Op], sure: &impl Fn(u64) -> Nanos) -> BTreeMap<LeaseId, Vec<Step>> {
    let mut leases: BTreeMap<LeaseId, Vec<Step>> = BTreeMap::new();
    let known: BTreeSet<LeaseId> = ops.iter().flat_map(named).filter(|id| *id != 0).collect();
    for (at, op) in ops.iter().enumerate() {
        let (answered, answer) = match &op.outcome {
            Outcome::Answered { at, answer, .. } => (Some(*at), Some(answer)),
            Outcome::Unknown => (None, None),
            Outcome::Refused { .. } => continue,
        };
        for (id, does) in told(op, answer, &known, sure) {
            leases.entry(id).or_default().push(Step { op: at, invoked: op.invoked, answered, does });
        }
    }
    // What nobody was told to have been granted may have been, to somebody who was not told.
    leases.retain(|_, steps| steps.iter().any(|step| matches!(step.does, Does::Grants(_))));
    leases
}

/// Leases that an operation names, or its answer.
fn named(op: &Op) -> Vec<LeaseId> {
    match (&op.request, &op.outcome) {
        (_, Outcome::Answered { answer: Answer::Lease(LeaseAnswer::Granted { id, .. }), .. }) => vec![*id],
        (Request::Put(_) | Request::Txn(_), _) => {
            txn::attaching(&op.request).into_iter().map(|put| put.lease).collect()
        }
        (Request::Lock(LockRequest::Acquire(acquire)), _) => vec![acquire.lease],
        (Request::Lease(LeaseRequest::KeepAlive { ids }), _) => ids.clone(),
        (
            Request::Lease(
                LeaseRequest::Grant { id, .. }
                | LeaseRequest::Revoke { id }
                | LeaseRequest::TimeToLive { id, .. },
            ),
            _,
        ) => vec![*id],
        _ => Vec::new(),
    }
}

/// What an operation did to leases, or saw of them.
fn told(
    op: &Op,
    answer: Option<&Answer>,
    known: &BTreeSet<LeaseId>,
    sure: &impl Fn(u64) -> Nanos,
) -> Vec<(LeaseId, Does)> {
    let seen = |is_there: bool| if is_there { Does::SeesIt } else { Does::SeesNone };
    match (&op.request, answer) {
        (Request::Put(put), Some(answer)) if put.lease != 0 => match answer {
            Answer::Put { .. } | Answer::NoKey => vec![(put.lease, Does::SeesIt)],
            _ => vec![(put.lease, Does::SeesNone)],
        },
        (Request::Lock(LockRequest::Acquire(acquire)), Some(Answer::Acquired { .. } | Answer::NoKey)) => {
            vec![(acquire.lease, Does::SeesIt)]
        }
        (Request::Lock(LockRequest::Acquire(acquire)), Some(Answer::NoLease)) => {
            vec![(acquire.lease, Does::SeesNone)]
        }
        // Of several leases it is not known which was not there, nor which was asked for before a key was missed.
        (Request::Txn(_), Some(Answer::NoLease)) => {
            let named: BTreeSet<LeaseId> =
                txn::attaching(&op.request).into_iter().map(|put| put.lease).collect();
            match named.first() {
                Some(id) if named.len() == 1 => vec![(*id, Does::SeesNone)],
                _ => Vec::new(),
            }
        }
        (Request::Txn(_), Some(Answer::Txn { .. })) => {
            let attached = txn::answered(op).into_iter().filter_map(|(asked, _)| match asked {
                Asked::Put(put) if put.lease != 0 => Some(put.lease),
                _ => None,
            });
            let attached: BTreeSet<LeaseId> = attached.collect();
            attached.into_iter().map(|id| (id, Does::SeesIt)).collect()
        }
        (Request::Lease(LeaseRequest::Grant { id, ttl_s }), None) if *id != 0 => {
            vec![(*id, Does::Grants(sure(u64::try_from(*ttl_s).unwrap_or(0))))]
        }
        (_, Some(Answer::Lease(LeaseAnswer::Granted { id, ttl_s }))) => {
            vec![(*id, Does::Grants(sure(*ttl_s)))]
        }
        (Request::Lease(LeaseRequest::Grant { id, .. }), Some(_)) => vec![(*id, Does::SeesIt)],
        (Request::Lease(LeaseRequest::Revoke { id }), Some(Answer::NoLease)) => vec![(*id, Does::SeesNone)],
        (Request::Lease(LeaseRequest::Revoke { id }), _) => vec![(*id, Does::Ends)],
        (Request::Lease(LeaseRequest::KeepAlive { ids }), Some(Answer::Lease(LeaseAnswer::Kept(ttls)))) => {
            let kept = |ttl_s: u64| if ttl_s > 0 { Does::Renews(sure(ttl_s)) } else { Does::SeesNone };
            ids.iter().copied().zip(ttls.iter().map(|ttl_s| kept(*ttl_s))).collect()
        }
        (_, Some(Answer::Lease(LeaseAnswer::TimeToLive { id, time, .. }))) => {
            vec![(*id, seen(time.is_some()))]
        }
        (_, Some(Answer::Lease(LeaseAnswer::List(ids)))) => {
            known.iter().map(|id| (*id, seen(ids.contains(id)))).collect()
        }
        _ => Vec::new(),
    }
}

enum Search {
    Explained,
    GivenUp,
    /// The steps that waited to be taken where the search came farthest.
    Stuck {
        at: Vec<usize>,
    },
}

struct Choice {
    taken: usize,
    state: State,
    rest: Vec<usize>,
}

fn search(steps: &[Step], states_max: usize) -> Search {
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by_key(|&at| (steps[at].answered.is_none(), steps[at].invoked));
    let sorted: Vec<Step> = order.iter().map(|&at| steps[at]).collect();
    let answered = sorted.partition_point(|step| step.answered.is_some());
    let mut taken = Taken::none(sorted.len());
    let mut visited: BTreeSet<(usize, Vec<usize>, State)> = BTreeSet::new();
    let mut choices: Vec<Choice> = Vec::new();
    let mut state = None;
    let mut rest = candidates(&sorted, answered, &taken, state);
    let (mut farthest, mut stuck) = (0, frontier(&sorted, answered, &taken).0);
    while taken.low < answered {
        let Some(next) = rest.pop() else {
            let Some(choice) = choices.pop() else {
                return Search::Stuck { at: stuck.into_iter().map(|at| order[at]).collect() };
            };
            taken.put_back(choice.taken, answered);
            (state, rest) = (choice.state, choice.rest);
            continue;
        };
        let after = sorted[next].apply(state).expect("a candidate fits");
        taken.take(next, answered);
        if !visited.insert((taken.low, taken.beyond.iter().copied().collect(), after)) {
            taken.put_back(next, answered);
            continue;
        }
        if visited.len() > states_max {
            return Search::GivenUp;
        }
        choices.push(Choice { taken: next, state, rest });
        state = after;
        rest = candidates(&sorted, answered, &taken, state);
        if choices.len() > farthest {
            farthest = choices.len();
            stuck = frontier(&sorted, answered, &taken).0;
            stuck.insert(0, next);
        }
    }
    Search::Explained
}

/// Answered steps that no other must precede, and up to when a question may lie to be among them.
fn frontier(steps: &[Step], answered: usize, taken: &Taken) -> (Vec<usize>, Option<Moment>) {
    let (mut frontier, mut bound) = (Vec::new(), None);
    for (at, step) in steps.iter().enumerate().take(answered).skip(taken.low) {
        if bound.is_some_and(|bound| step.invoked > bound) {
            break;
        }
        if !taken.is[at] {
            bound = step.answered.map(|end| bound.map_or(end, |bound: Moment| bound.min(end)));
            frontier.push(at);
        }
    }
    (frontier, bound)
}

/// What may be taken next; the most promising last.
fn candidates(steps: &[Step], answered: usize, taken: &Taken, state: State) -> Vec<usize> {
    let (frontier, bound) = frontier(steps, answered, taken);
    let fits = |at: &usize| steps[*at].apply(state).is_some();
    // What changes nothing costs no other order.
    if let Some(&free) = frontier.iter().find(|&at| steps[*at].apply(state) == Some(state)) {
        return vec![free];
    }
    let open = |at: &usize| bound.is_some_and(|bound| steps[*at].invoked <= bound) && !taken.is[*at];
    let mut candidates: Vec<usize> = (answered..steps.len()).filter(|at| open(at) && fits(at)).collect();
    let mut next: Vec<usize> = frontier.iter().copied().filter(fits).collect();
    next.sort_by_key(|&at| std::cmp::Reverse(steps[at].answered));
    candidates.extend(next);
    candidates
}

/// As long as no clock is faster than the bound that leaders allow for.
pub fn whole(ttl_s: u64) -> Nanos {
    ttl_s.saturating_mul(SECOND)
}
