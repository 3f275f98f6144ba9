//! The second opinion: is there any order of the operations on one key that explains the values seen? Knows
//! nothing of revisions and versions, only values and true time.
//!
//! The search is Wing and Gong's ("Testing and Verifying Concurrent Objects", 1993): take an operation that no
//! unfinished one must precede, apply it to a register, go on with the rest, back up where nothing fits. Lowe's
//! improvement ("Testing for linearizability", 2017) remembers every pair of what was taken and what the register
//! then held, and never visits one twice. A store is linearizable if each key is (Herlihy and Wing 1990, theorem 1),
//! so keys are searched one by one; an operation on several keys becomes one on each, which is weaker than what
//! it promised. Serializable reads and reads at a revision are not looked at. A transaction becomes one step on each key
//! that it looked at or changed.
//!
//! An operation of unknown outcome never ends: it may be taken last, when it is as if it had not been. So does the end
//! of a lease, of which this judge knows no more than that it may delete what was put to a key that had one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::history::{Answer, History, Moment, Op, Outcome, Shown};
use super::txn::{self, Asked};
use super::{Rule, Violation, locks};
use crate::api::{
    Compare, CompareResult, Delete, KeyValue, Put, Range, RangeResult, Request, Span, Target, Txn,
};

/// What the search came to, where it found nothing wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub keys: usize,
    /// Operations on single keys.
    pub steps: usize,
    /// Keys whose search was given up.
    pub undecided: usize,
}

/// Judges each key of a history. `states_max` bounds the pairs that are visited per key.
pub fn check(history: &History, states_max: usize) -> Result<Verdict, Violation> {
    let mut verdict = Verdict::default();
    for (key, steps) in steps_by_key(&history.ops) {
        verdict.keys += 1;
        verdict.steps += steps.len();
        match search(&steps, states_max) {
            Search::Explained => {}
            Search::GivenUp => verdict.undecided += 1,
            Search::Stuck { at } => {
                let what =
                    format!("no order explains what was seen of key {}; the search sticks at", Shown(key));
                let ops: Vec<&Op> = at.into_iter().map(|at| &history.ops[steps[at].op]).collect();
                return Err(Violation::new(Rule::Linearizable, what, &ops));
            }
        }
    }
    Ok(verdict)
}

/// What the register holds; None is absent.
type Held<'a> = Option<&'a Bytes>;

#[derive(Clone, Copy, Debug)]
enum Before<'a> {
    Any,
    Present,
    Is(Held<'a>),
}

/// One operation on one key: what it found, and what it left (None: what it found).
#[derive(Clone, Copy, Debug)]
struct Step<'a> {
    op: usize,
    invoked: Moment,
    /// None: never.
    answered: Option<Moment>,
    before: Before<'a>,
    after: Option<Held<'a>>,
}

impl<'a> Step<'a> {
    /// What the register holds after this step, if it can be taken now.
    fn apply(&self, held: Held<'a>) -> Option<Held<'a>> {
        let fits = matches!(self.before, Before::Any) || self.sees(held);
        fits.then(|| self.after.unwrap_or(held))
    }

    /// Whether this step looks at what the register holds, and would find it so.
    fn sees(&self, held: Held) -> bool {
        match self.before {
            Before::Any => false,
            Before::Present => held.is_some(),
            Before::Is(found) => found == held,
        }
    }
}

/// Operations on several keys are spread over all keys that anybody named.
fn steps_by_key(ops: &[Op]) -> BTreeMap<&Bytes, Vec<Step<'_>>> {
    let mut keys: BTreeMap<&Bytes, Vec<Step>> =
        ops.iter().flat_map(named).map(|key| (key, Vec::new())).collect();
    // What a lock's key was put by, and taken back, is not known well enough here.
    let locked: BTreeSet<Bytes> = ops.iter().filter_map(locks::acquire).map(locks::key).collect();
    keys.retain(|key, _| !locked.contains(*key));
    let attaching = ops.iter().flat_map(|op| txn::attaching(&op.request));
    let leased: BTreeSet<&Bytes> = attaching.map(|put| &put.key).collect();
    for (at, op) in ops.iter().enumerate() {
        let puts = txn::puts(&op.request).into_iter().filter(|put| leased.contains(&put.key));
        for put in puts.filter(|_| !matches!(op.outcome, Outcome::Refused { .. })) {
            // What it put may be deleted by the end of its lease: once, or never.
            let (before, after) = (Before::Is(Some(&put.value)), Some(None));
            let steps = keys.get_mut(&put.key).expect("it is named");
            steps.push(Step { op: at, invoked: op.invoked, answered: None, before, after });
        }
        let (from, end) = match &op.request {
            Request::Put(put) => Span::Key(put.key.clone()).bounds(),
            Request::Delete(delete) => delete.span.bounds(),
            Request::Range(range) => range.span.bounds(),
            // Which keys, is looked for one by one.
            Request::Txn(_) => (Bytes::new(), None),
            _ => continue,
        };
        let answered = match &op.outcome {
            Outcome::Answered { at, .. } => Some(*at),
            Outcome::Unknown => None,
            Outcome::Refused { .. } => continue,
        };
        for (key, steps) in keys.range_mut::<Bytes, _>(&from..) {
            if end.as_ref().is_some_and(|end| **key >= *end) {
                break;
            }
            for (before, after) in on_key(op, key) {
                steps.push(Step { op: at, invoked: op.invoked, answered, before, after });
            }
        }
    }
    keys
}

/// The keys that an operation or its answer names.
fn named(op: &Op) -> Vec<&Bytes> {
    let asked: Vec<Asked> = match &op.request {
        Request::Put(put) => vec![Asked::Put(put)],
        Request::Range(range) => vec![Asked::Range(range)],
        Request::Delete(delete) => vec![Asked::Delete(delete)],
        Request::Txn(txn) => txn::everything(txn),
        _ => Vec::new(),
    };
    let asked = asked.into_iter().filter_map(|asked| match asked {
        Asked::Put(put) => Some(&put.key),
        Asked::Range(Range { span: Span::Key(key), .. }) => Some(key),
        Asked::Delete(Delete { span: Span::Key(key), .. }) => Some(key),
        _ => None,
    });
    let kvs = txn::answered(op).into_iter().flat_map(|(_, answer)| match answer {
        Answer::Range(result) => &result.kvs[..],
        Answer::Delete { previous, .. } => previous,
        _ => &[],
    });
    asked.chain(kvs.map(|kv| &kv.key)).collect()
}

/// What was found, and what was left (None: what was found).
type Seen<'a> = (Before<'a>, Option<Held<'a>>);

/// What an operation tells of one key in its span, and does to it: one step; or, of a transaction of which nobody knows
/// which way it went, one for each thing that it may have done.
fn on_key<'a>(op: &'a Op, key: &Bytes) -> Vec<Seen<'a>> {
    let answer = match &op.outcome {
        Outcome::Answered { answer, .. } => Some(answer),
        _ => None,
    };
    let one = match (&op.request, answer) {
        (Request::Put(put), answer) => on_put(put, answer),
        (Request::Delete(_), None) => Some((Before::Any, Some(None))),
        (Request::Delete(delete), Some(Answer::Delete { deleted, previous, .. })) => {
            Some(on_delete(delete, *deleted, previous, key))
        }
        (Request::Range(range), Some(answer)) if !range.serializable && range.revision == 0 => match answer {
            Answer::Range(result) => on_range(range, result, key).map(|before| (before, None)),
            Answer::Value(value) => Some((Before::Is(value.as_ref()), None)),
            _ => None,
        },
        (Request::Txn(txn), Some(Answer::Txn { succeeded, .. })) if !txn::is_serializable(txn) => {
            on_txn(op, txn, *succeeded, key)
        }
        (Request::Txn(txn), None) => {
            let done = txn::everything(txn).into_iter().filter_map(|asked| match asked {
                Asked::Put(put) if put.key == *key => on_put(put, None),
                Asked::Delete(delete) if contains(&delete.span, key) => Some((Before::Any, Some(None))),
                _ => None,
            });
            return done.collect();
        }
        _ => None,
    };
    one.into_iter().collect()
}

/// The first thing that is told of the key before anything is done to it, and the last thing that is done.
fn on_txn<'a>(op: &'a Op, txn: &'a Txn, succeeded: bool, key: &Bytes) -> Option<Seen<'a>> {
    let mut before = txn.compares.iter().find_map(|compare| on_compare(compare, key)).filter(|_| succeeded);
    let mut after = None;
    for (asked, answer) in txn::answered(op) {
        let seen = match (asked, answer) {
            (Asked::Put(put), answer) if put.key == *key => on_put(put, Some(answer)),
            (Asked::Delete(delete), Answer::Delete { deleted, previous, .. })
                if contains(&delete.span, key) =>
            {
                Some(on_delete(delete, *deleted, previous, key))
            }
            (Asked::Range(range), Answer::Range(result))
                if range.revision == 0 && contains(&range.span, key) =>
            {
                on_range(range, result, key).map(|before| (before, None))
            }
            _ => None,
        };
        let Some((found, left)) = seen else { continue };
        if after.is_none() && before.is_none() {
            before = Some(found).filter(|found| !matches!(found, Before::Any));
        }
        after = left.or(after);
    }
    (before.is_some() || after.is_some()).then(|| (before.unwrap_or(Before::Any), after))
}

/// What a compare that held tells of a key.
fn on_compare<'a>(compare: &'a Compare, key: &Bytes) -> Option<Before<'a>> {
    match (&compare.span, &compare.target, compare.result) {
        (Span::Key(one), _, _) if one != key => None,
        (Span::Key(_), Target::Value(value), CompareResult::Equal) => Some(Before::Is(Some(value))),
        (Span::Key(_), Target::Version(0) | Target::Create(0) | Target::Mod(0), CompareResult::Equal) => {
            Some(Before::Is(None))
        }
        _ => None,
    }
}

fn contains(span: &Span, key: &Bytes) -> bool {
    let (from, end) = span.bounds();
    from <= *key && end.is_none_or(|end| *key < end)
}

fn on_put<'a>(put: &'a Put, answer: Option<&'a Answer>) -> Option<(Before<'a>, Option<Held<'a>>)> {
    let after = (!put.ignore_value).then_some(Some(&put.value));
    match answer {
        Some(Answer::Put { previous: Some(before), .. }) => {
            Some((Before::Is(before.as_ref().map(|kv| &kv.value)), after))
        }
        Some(Answer::Put { .. }) if put.ignore_value || put.ignore_lease => Some((Before::Present, after)),
        Some(Answer::Put { .. }) => Some((Before::Any, after)),
        Some(Answer::NoKey) => Some((Before::Is(None), None)),
        Some(_) => None,
        // Keeping the value changes nothing that is looked at here.
        None => after.is_some().then_some((Before::Any, after)),
    }
}

fn on_delete<'a>(
    delete: &Delete,
    deleted: u64,
    previous: &'a [KeyValue],
    key: &Bytes,
) -> (Before<'a>, Option<Held<'a>>) {
    if deleted == 0 {
        return (Before::Is(None), None);
    }
    let before = match &delete.span {
        _ if delete.prev_kv => Before::Is(previous.iter().find(|kv| kv.key == *key).map(|kv| &kv.value)),
        Span::Key(_) => Before::Present,
        _ => Before::Any,
    };
    (before, Some(None))
}

fn on_range<'a>(range: &Range, result: &'a RangeResult, key: &Bytes) -> Option<Before<'a>> {
    if result.count == 0 {
        return Some(Before::Is(None));
    }
    match result.kvs.iter().find(|kv| kv.key == *key) {
        Some(_) if range.keys_only => Some(Before::Present),
        Some(kv) => Some(Before::Is(Some(&kv.value))),
        None if range.count_only => matches!(range.span, Span::Key(_)).then_some(Before::Present),
        // Everything in the span was sent, and this was not among it.
        None if result.count == result.kvs.len() as u64 => Some(Before::Is(None)),
        None => None,
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

/// One choice on the way: what was taken, what the register held before, and what else could have been taken.
struct Choice<'a> {
    taken: usize,
    held: Held<'a>,
    rest: Vec<usize>,
}

fn search(steps: &[Step], states_max: usize) -> Search {
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by_key(|&at| (steps[at].answered.is_none(), steps[at].invoked));
    let sorted: Vec<Step> = order.iter().map(|&at| steps[at]).collect();
    let search_in = Sorted::new(&sorted);
    let mut taken = Taken::none(sorted.len());
    let mut visited: BTreeSet<(usize, Vec<usize>, Held)> = BTreeSet::new();
    let mut choices: Vec<Choice> = Vec::new();
    let mut held = None;
    let mut rest = search_in.candidates(&taken, held);
    let (mut farthest, mut stuck) = (0, search_in.waiting(&taken));
    while taken.low < search_in.answered {
        let Some(next) = rest.pop() else {
            let Some(choice) = choices.pop() else {
                return Search::Stuck { at: stuck.into_iter().map(|at| order[at]).collect() };
            };
            taken.put_back(choice.taken, search_in.answered);
            (held, rest) = (choice.held, choice.rest);
            continue;
        };
        let after = sorted[next].apply(held).expect("a candidate fits");
        taken.take(next, search_in.answered);
        if !visited.insert((taken.low, taken.beyond.iter().copied().collect(), after)) {
            taken.put_back(next, search_in.answered);
            continue;
        }
        if visited.len() > states_max {
            return Search::GivenUp;
        }
        choices.push(Choice { taken: next, held, rest });
        held = after;
        rest = search_in.candidates(&taken, held);
        if choices.len() > farthest {
            farthest = choices.len();
            stuck = search_in.waiting(&taken);
            stuck.insert(0, next);
        }
    }
    Search::Explained
}

/// What was taken so far: all answered steps before `low`, and `beyond` of the others.
pub(super) struct Taken {
    pub is: Vec<bool>,
    pub low: usize,
    pub beyond: BTreeSet<usize>,
}

impl Taken {
    pub fn none(steps: usize) -> Taken {
        Taken { is: vec![false; steps], low: 0, beyond: BTreeSet::new() }
    }

    pub fn take(&mut self, at: usize, answered: usize) {
        self.is[at] = true;
        self.beyond.insert(at);
        while self.low < answered && self.is[self.low] {
            self.beyond.remove(&self.low);
            self.low += 1;
        }
    }

    pub fn put_back(&mut self, at: usize, answered: usize) {
        self.is[at] = false;
        if at < self.low.min(answered) {
            self.beyond.extend(at + 1..self.low);
            self.low = at;
        } else {
            self.beyond.remove(&at);
        }
    }
}

/// The steps on one key: the answered ones by the time of their question, then those of unknown outcome.
struct Sorted<'a, 'b> {
    steps: &'b [Step<'a>],
    answered: usize,
    /// Those of unknown outcome whose effect somebody may have seen. The others can always be taken last.
    open: Vec<usize>,
}

impl<'a, 'b> Sorted<'a, 'b> {
    fn new(steps: &'b [Step<'a>]) -> Sorted<'a, 'b> {
        let answered = steps.partition_point(|step| step.answered.is_some());
        let seen = |at: &usize| steps[..answered].iter().any(|step| step.sees(steps[*at].after.flatten()));
        Sorted { steps, answered, open: (answered..steps.len()).filter(seen).collect() }
    }

    /// Steps that no other must precede, and the moment up to which a question may lie to be among them.
    fn frontier(&self, taken: &Taken) -> (Vec<usize>, Option<Moment>) {
        let (mut frontier, mut bound) = (Vec::new(), None);
        for at in taken.low..self.answered {
            if bound.is_some_and(|bound| self.steps[at].invoked > bound) {
                break;
            }
            if !taken.is[at] {
                bound = self.steps[at].answered.map(|end| bound.map_or(end, |bound: Moment| bound.min(end)));
                frontier.push(at);
            }
        }
        (frontier, bound)
    }

    /// What may be taken next; the most promising last.
    fn candidates(&self, taken: &Taken, held: Held<'a>) -> Vec<usize> {
        let (frontier, bound) = self.frontier(taken);
        let fits = |at: &usize| self.steps[*at].apply(held).is_some();
        // A read that fits changes nothing, so taking it now costs no other order.
        if let Some(&read) = frontier.iter().find(|&at| self.steps[*at].after.is_none() && fits(at)) {
            return vec![read];
        }
        // A write of unknown outcome is of use only to who sees it at once; else it may as well come last.
        let of_use = |at: &usize| {
            let after = self.steps[*at].after.flatten();
            let asked = bound.is_some_and(|bound| self.steps[*at].invoked <= bound);
            asked && !taken.is[*at] && frontier.iter().any(|see| !fits(see) && self.steps[*see].sees(after))
        };
        let mut candidates: Vec<usize> =
            self.open.iter().copied().filter(|at| fits(at) && of_use(at)).collect();
        let mut writes: Vec<usize> = frontier.iter().copied().filter(fits).collect();
        writes.sort_by_key(|&at| std::cmp::Reverse(self.steps[at].answered));
        candidates.extend(writes);
        candidates
    }

    /// For the report: what could not be taken.
    fn waiting(&self, taken: &Taken) -> Vec<usize> {
        self.frontier(taken).0
    }
}
