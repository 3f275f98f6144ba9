//! Is what clients saw a legal history of a linearizable store?
//!
//! The store makes this question easy where it is NP-hard in general: every write is one revision, old
//! revisions stay readable, and every value here is written once. So the order of all effects is read back
//! from the store at the end, and what is left is to hold each answer against it:
//!
//! - an acknowledged write is in the history, at the revision that was acknowledged;
//! - a write of unknown outcome is there once or not at all, and a refused one is not;
//! - everything in the history was asked for by somebody;
//! - an answer fits the state at some revision, and these revisions respect real time: what began after
//!   another request had ended took effect behind it.

use std::collections::{BTreeMap, BTreeSet};

pub type Key = u32;
/// Written at most once in a whole run.
pub type Value = u64;
pub type Revision = u64;

/// What changed at one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Put(Key, Value),
    Delete(Key),
}

#[derive(Clone, Debug)]
pub enum Act {
    Put(Key, Value),
    Delete(Key),
    Get(Key),
    Range,
}

#[derive(Clone, Debug)]
pub enum Outcome {
    Put(Revision),
    /// Whether the key was there, and the revision of the store after it.
    Deleted(bool, Revision),
    Got(Option<Value>),
    /// Key, value and its revision, for all keys.
    Ranged(Revision, Vec<(Key, Value, Revision)>),
    /// No answer, or one that says so.
    Unknown,
    /// The answer promises that nothing happened.
    Refused,
}

/// A request: when it began and when its answer was there, by one clock.
#[derive(Clone, Debug)]
pub struct Op {
    pub start: u64,
    pub end: u64,
    pub act: Act,
    pub outcome: Outcome,
}

/// The changes in order; the first one made revision 2, as the empty store is at 1.
pub struct History {
    changes: Vec<Change>,
    /// Per key: the revisions at which it changed, and what it was from there on.
    keys: BTreeMap<Key, Vec<(Revision, Option<Value>)>>,
    written_at: BTreeMap<Value, Revision>,
}

const FIRST: Revision = 1;

impl History {
    pub fn new(changes: Vec<Change>) -> Result<History, String> {
        let mut keys: BTreeMap<Key, Vec<(Revision, Option<Value>)>> = BTreeMap::new();
        let mut written_at = BTreeMap::new();
        for (revision, change) in (FIRST + 1..).zip(&changes) {
            let (key, value) = match *change {
                Change::Put(key, value) => (key, Some(value)),
                Change::Delete(key) => (key, None),
            };
            let key_changes = keys.entry(key).or_default();
            if value.is_none() && key_changes.last().is_none_or(|(_, value)| value.is_none()) {
                return Err(format!("revision {revision} deletes key {key}, which is not there"));
            }
            key_changes.push((revision, value));
            if let Some(value) = value
                && let Some(earlier) = written_at.insert(value, revision)
            {
                return Err(format!("value {value} was written twice, at {earlier} and {revision}"));
            }
        }
        Ok(History { changes, keys, written_at })
    }

    pub fn last_revision(&self) -> Revision {
        FIRST + self.changes.len() as u64
    }

    fn change_at(&self, revision: Revision) -> Option<Change> {
        self.changes.get(usize::try_from(revision.checked_sub(FIRST + 1)?).ok()?).copied()
    }

    /// The key's value at a revision, and when it was written.
    fn value_at(&self, key: Key, revision: Revision) -> Option<(Value, Revision)> {
        let changes = self.keys.get(&key)?;
        let upto = changes.partition_point(|(at, _)| *at <= revision);
        let (at, value) = changes[..upto].last()?;
        value.map(|value| (value, *at))
    }

    fn state_at(&self, revision: Revision) -> Vec<(Key, Value, Revision)> {
        let found = |&key: &Key| self.value_at(key, revision).map(|(value, at)| (key, value, at));
        self.keys.keys().filter_map(found).collect()
    }

    /// The revisions at which a value was the newest of its key.
    fn lifetime(&self, key: Key, value: Value) -> Option<(Revision, Revision)> {
        let written = *self.written_at.get(&value)?;
        let changes = self.keys.get(&key)?;
        let at = changes.binary_search_by_key(&written, |(at, _)| *at).ok()?;
        let next = changes.get(at + 1).map_or(Revision::MAX, |(next, _)| *next);
        Some((written, next - 1))
    }

    /// Whether the key was absent at some revision of the (inclusive) interval.
    fn absent_within(&self, key: Key, low: Revision, high: Revision) -> bool {
        if low > high {
            return false;
        }
        let Some(changes) = self.keys.get(&key) else { return true };
        self.value_at(key, low).is_none()
            || changes.iter().any(|(at, value)| (low..=high).contains(at) && value.is_none())
    }
}

/// The revisions at which an operation may have taken effect, as far as its answer alone tells.
fn effect(op: &Op, history: &History) -> Result<Option<(Revision, Revision)>, String> {
    let wrong = |what: &str| Err(format!("{what}: {op:?}"));
    Ok(match (&op.act, &op.outcome) {
        (Act::Put(key, value), Outcome::Put(revision)) => {
            if history.change_at(*revision) != Some(Change::Put(*key, *value)) {
                let found = history.change_at(*revision);
                return wrong(&format!("an acknowledged put is not at its revision (there is {found:?})"));
            }
            Some((*revision, *revision))
        }
        (Act::Delete(key), Outcome::Deleted(true, revision)) => {
            if history.change_at(*revision) != Some(Change::Delete(*key)) {
                let found = history.change_at(*revision);
                return wrong(&format!("an acknowledged delete is not at its revision (there is {found:?})"));
            }
            Some((*revision, *revision))
        }
        (Act::Delete(key), Outcome::Deleted(false, revision)) => {
            if history.value_at(*key, *revision).is_some() {
                return wrong("a delete found nothing where there was something");
            }
            Some((*revision, *revision))
        }
        (Act::Get(key), Outcome::Got(Some(value))) => match history.lifetime(*key, *value) {
            Some(interval) => Some(interval),
            None => return wrong("a read saw a value that was never committed"),
        },
        (Act::Get(_), Outcome::Got(None)) => Some((FIRST, Revision::MAX)),
        (Act::Range, Outcome::Ranged(revision, found)) => {
            let expected = history.state_at(*revision);
            if *found != expected {
                return wrong(&format!("a range is not the state of its revision, which is {expected:?}"));
            }
            Some((*revision, *revision))
        }
        (Act::Put(_, value), Outcome::Refused) if history.written_at.contains_key(value) => {
            return wrong(&format!("a refused put happened, at {}", history.written_at[value]));
        }
        // It happened, at some time after it began: nothing that ended before may stand behind it.
        (Act::Put(_, value), Outcome::Unknown) => history.written_at.get(value).map(|at| (*at, *at)),
        (_, Outcome::Unknown | Outcome::Refused) => None,
        _ => return wrong("an answer to another question"),
    })
}

fn changes_something(op: &Op) -> bool {
    matches!(
        (&op.act, &op.outcome),
        (Act::Put(..), _) | (Act::Delete(..), Outcome::Deleted(true, _) | Outcome::Unknown)
    )
}

/// The first thing that is wrong, if any.
pub fn check(history: &History, ops: &[Op]) -> Result<(), String> {
    check_owners(history, ops)?;
    let effects: Vec<Option<(Revision, Revision)>> =
        ops.iter().map(|op| effect(op, history)).collect::<Result<_, _>>()?;

    // What ended before: the greatest lowest revision. What began after: the smallest highest one.
    let mut by_start: Vec<usize> = (0..ops.len()).collect();
    by_start.sort_by_key(|&at| ops[at].start);
    let mut by_end: Vec<usize> = (0..ops.len()).filter(|&at| is_answered(&ops[at])).collect();
    by_end.sort_by_key(|&at| ops[at].end);

    let mut low = vec![FIRST; ops.len()];
    let (mut ended, mut seen) = (by_end.iter().peekable(), FIRST);
    for &at in &by_start {
        while let Some(&before) = ended.next_if(|&&before| ops[before].end < ops[at].start) {
            seen = seen.max(effects[before].map_or(FIRST, |(low, _)| low));
        }
        low[at] = seen + u64::from(changes_something(&ops[at]));
    }
    let mut high = vec![Revision::MAX; ops.len()];
    let (mut begun, mut bound) = (by_start.iter().rev().peekable(), Revision::MAX);
    for &at in by_end.iter().rev() {
        while let Some(&after) = begun.next_if(|&&after| ops[after].start > ops[at].end) {
            if let Some((_, highest)) = effects[after] {
                bound = bound.min(highest.saturating_sub(u64::from(changes_something(&ops[after]))));
            }
        }
        high[at] = bound;
    }

    for (at, op) in ops.iter().enumerate() {
        let Some((first, last)) = effects[at] else { continue };
        if first.max(low[at]) > last.min(high[at]) {
            return Err(format!(
                "took effect within {first}..={last}, but real time allows only {}..={}: {op:?}",
                low[at], high[at]
            ));
        }
        if let (Act::Get(key), Outcome::Got(None)) = (&op.act, &op.outcome)
            && !history.absent_within(*key, low[at], high[at].min(history.last_revision()))
        {
            return Err(format!("the key was there all the time, {}..={}: {op:?}", low[at], high[at]));
        }
    }
    Ok(())
}

fn is_answered(op: &Op) -> bool {
    !matches!(op.outcome, Outcome::Unknown | Outcome::Refused)
}

/// Everything in the history was asked for, deletes no more often than they were.
fn check_owners(history: &History, ops: &[Op]) -> Result<(), String> {
    let mut asked = BTreeSet::new();
    let mut deletes_unknown: BTreeMap<Key, usize> = BTreeMap::new();
    let mut deletes_known = BTreeSet::new();
    for op in ops {
        match (&op.act, &op.outcome) {
            (Act::Put(key, value), _) => {
                asked.insert((*key, *value));
            }
            (Act::Delete(_), Outcome::Deleted(true, revision)) if !deletes_known.insert(*revision) => {
                return Err(format!("revision {revision} was acknowledged to two deletes"));
            }
            (Act::Delete(key), Outcome::Unknown) => *deletes_unknown.entry(*key).or_default() += 1,
            _ => {}
        }
    }
    for (revision, change) in (FIRST + 1..).zip(&history.changes) {
        match *change {
            Change::Put(key, value) if !asked.contains(&(key, value)) => {
                return Err(format!("revision {revision}: nobody asked to put {value} into {key}"));
            }
            Change::Delete(key) if !deletes_known.contains(&revision) => {
                match deletes_unknown.get_mut(&key).filter(|left| **left > 0) {
                    Some(left) => *left -= 1,
                    None => return Err(format!("revision {revision}: nobody asked to delete {key}")),
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(start: u64, end: u64, act: Act, outcome: Outcome) -> Op {
        Op { start, end, act, outcome }
    }

    /// put 1=10 (2), put 1=11 (3), delete 1 (4), put 1=12 (5, unknown)
    fn changes() -> Vec<Change> {
        vec![Change::Put(1, 10), Change::Put(1, 11), Change::Delete(1), Change::Put(1, 12)]
    }

    fn good() -> Vec<Op> {
        vec![
            op(0, 10, Act::Put(1, 10), Outcome::Put(2)),
            op(5, 15, Act::Get(1), Outcome::Got(None)),
            op(20, 30, Act::Put(1, 11), Outcome::Put(3)),
            op(22, 28, Act::Get(1), Outcome::Got(Some(10))),
            op(31, 32, Act::Range, Outcome::Ranged(3, vec![(1, 11, 3)])),
            op(40, 50, Act::Delete(1), Outcome::Deleted(true, 4)),
            op(55, 56, Act::Delete(1), Outcome::Deleted(false, 4)),
            op(57, 58, Act::Put(1, 12), Outcome::Unknown),
            op(57, 58, Act::Put(1, 13), Outcome::Unknown),
            op(57, 58, Act::Put(1, 14), Outcome::Refused),
            op(60, 61, Act::Get(1), Outcome::Got(None)),
            op(70, 71, Act::Get(1), Outcome::Got(Some(12))),
        ]
    }

    fn verdict(changes: Vec<Change>, ops: &[Op]) -> Result<(), String> {
        check(&History::new(changes)?, ops)
    }

    fn with(more: Op) -> Vec<Op> {
        let mut ops = good();
        ops.push(more);
        ops
    }

    #[test]
    fn a_legal_history_passes() {
        verdict(changes(), &good()).unwrap();
    }

    /// Each of these is one lie, and the checker must see it.
    #[test]
    fn every_planted_violation_is_found() {
        let lies = [
            ("a lost write", with(op(80, 81, Act::Put(2, 20), Outcome::Put(6)))),
            ("a revision given twice", with(op(80, 81, Act::Put(1, 99), Outcome::Put(3)))),
            ("a stale read", with(op(80, 81, Act::Get(1), Outcome::Got(Some(11))))),
            ("a stale null", with(op(80, 81, Act::Get(1), Outcome::Got(None)))),
            ("a dirty read", with(op(80, 81, Act::Get(1), Outcome::Got(Some(13))))),
            ("a read from the future", with(op(1, 2, Act::Get(1), Outcome::Got(Some(11))))),
            ("a stale range", with(op(80, 81, Act::Range, Outcome::Ranged(4, vec![])))),
            ("a wrong range", with(op(80, 81, Act::Range, Outcome::Ranged(5, vec![(1, 11, 3)])))),
            ("a refused put that happened", {
                let mut ops = good();
                ops[7].outcome = Outcome::Refused;
                ops
            }),
            ("a delete that found nothing", with(op(33, 34, Act::Delete(1), Outcome::Deleted(false, 3)))),
            ("a delete acknowledged twice", with(op(45, 49, Act::Delete(1), Outcome::Deleted(true, 4)))),
            ("a write before its request", {
                let mut ops = good();
                ops[7].start = 80;
                ops
            }),
            ("nobody's put", good().into_iter().filter(|op| !matches!(op.act, Act::Put(1, 12))).collect()),
            ("nobody's delete", good().into_iter().filter(|op| !matches!(op.act, Act::Delete(1))).collect()),
        ];
        for (what, ops) in lies {
            assert!(verdict(changes(), &ops).is_err(), "{what} went unnoticed");
        }
        let mut twice = changes();
        twice.push(Change::Put(1, 12));
        assert!(verdict(twice, &good()).is_err(), "a write that happened twice went unnoticed");
    }

    /// Two writes in the wrong order of real time, both acknowledged.
    #[test]
    fn revisions_that_go_back_are_found() {
        let ops = [op(0, 1, Act::Put(1, 10), Outcome::Put(3)), op(2, 3, Act::Put(2, 20), Outcome::Put(2))];
        assert!(verdict(vec![Change::Put(2, 20), Change::Put(1, 10)], &ops).is_err());
    }
}
