//! Correct histories for the tests of the checkers: a store that keeps a whole copy of itself per revision,
//! asked one operation after another; then each operation's time is stretched so that it overlaps with others,
//! and some answers get lost.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::history::{Answer, Change, History, Moment, Op, Outcome};
use crate::api::{
    Code, Compare, CompareResult, Delete, KeyValue, Limits, Op as Part, Order, Put, Range, RangeResult,
    Request, SortBy, Span, Target, Txn, validate,
};
use crate::base::{Mono, Revision, Rng};

/// Distance of the instants at which operations take effect.
const STEP: u64 = 10;

type State = BTreeMap<Bytes, KeyValue>;

pub(super) struct Generator {
    rng: Rng,
    /// One copy per revision; the first is revision 1's.
    states: Vec<State>,
    history: History,
    keys: u64,
    /// Per connection, what its last serializable read saw.
    seen: BTreeMap<u64, Revision>,
    /// One answer in so many is lost, or the write is.
    lost_one_in: u64,
}

/// A correct history with its whole read-back.
pub(super) fn correct(seed: u64, ops: usize, keys: u64, lost_one_in: u64) -> History {
    let mut generator = Generator {
        rng: Rng::new(seed),
        states: vec![State::new()],
        history: History::new(),
        keys,
        seen: BTreeMap::new(),
        lost_one_in,
    };
    for number in 0..ops {
        generator.one(number);
    }
    let mut changes = Vec::new();
    for (before, revision) in (1..).zip(2..=generator.states.len()) {
        let (before, after) = (&generator.states[before - 1], &generator.states[revision - 1]);
        let revision = revision as Revision;
        let gone = before.keys().filter(|key| !after.contains_key(*key));
        changes.extend(gone.map(|key| Change { revision, key: key.clone(), value: None, lease: 0 }));
        let put = after.values().filter(|kv| kv.mod_revision == revision);
        changes.extend(put.map(|kv| Change {
            revision,
            key: kv.key.clone(),
            value: Some(kv.value.clone()),
            lease: kv.lease,
        }));
    }
    let mut history = History::from_ops(generator.history.ops);
    history.changes = changes;
    history
}

impl Generator {
    fn revision(&self) -> Revision {
        self.states.len() as Revision
    }

    fn now(&self) -> &State {
        self.states.last().expect("there is always a state")
    }

    fn key(&mut self) -> Bytes {
        format!("k{}", self.rng.below(self.keys)).into()
    }

    fn span(&mut self) -> Span {
        match self.rng.below(8) {
            0 => Span::Prefix(Bytes::new()),
            1 => Span::Between(self.key(), self.key()),
            2 => Span::From(self.key()),
            3 => Span::Prefix("k1".into()),
            _ => Span::Key(self.key()),
        }
    }

    fn one(&mut self, number: usize) {
        let connection = self.rng.below(5);
        let take_effect = (number as u64 + 10) * STEP;
        let request = match self.rng.below(12) {
            0..=3 => Request::Put(self.put(format!("v{number}"))),
            4 => Request::Delete(Delete { span: self.span(), prev_kv: self.rng.one_in(2) }),
            10.. => Request::Txn(self.txn(number, 0)),
            5 if self.rng.one_in(4) => Request::Exists { keys: vec![self.key(), self.key()] },
            _ => Request::Range(self.range()),
        };
        let moment = |at: u64| Moment::new(Mono(at));
        let invoked = moment(take_effect - self.rng.below(4 * STEP));
        let at = moment(take_effect + 1 + self.rng.below(4 * STEP));
        let lost = self.lost_one_in > 0 && self.rng.one_in(self.lost_one_in);
        let outcome = if let Err(fault) = validate::check(&request, &Limits::default()) {
            Outcome::Refused { at, code: fault.code }
        } else if lost && self.rng.one_in(3) {
            Outcome::Refused { at, code: Code::NoLeader }
        } else if lost && self.rng.one_in(2) {
            Outcome::Unknown
        } else {
            let (header, answer) = self.answer(&request, connection);
            let header = self.rng.one_in(2).then_some(header);
            if lost { Outcome::Unknown } else { Outcome::Answered { at, header, answer } }
        };
        self.history.ops.push(Op { number, client: connection, connection, request, invoked, outcome });
    }

    fn put(&mut self, value: String) -> Put {
        let keeps = self.rng.one_in(12);
        Put {
            key: self.key(),
            value: if keeps { Bytes::new() } else { value.into() },
            prev_kv: self.rng.one_in(3),
            ignore_value: keeps,
            ignore_lease: self.rng.one_in(12),
            ..Put::default()
        }
    }

    fn txn(&mut self, number: usize, depth: u64) -> Txn {
        let compares = (0..self.rng.below(3)).map(|_| self.compare()).collect();
        let mut ops =
            |branch| (0..self.rng.below(4 - depth)).map(|at| self.op(number, depth, branch, at)).collect();
        Txn { compares, success: ops("t"), failure: ops("e") }
    }

    fn op(&mut self, number: usize, depth: u64, branch: &str, at: u64) -> Part {
        match self.rng.below(8) {
            0 if depth < 2 => Part::Txn(self.txn(number * 10 + at as usize, depth + 1)),
            0..=2 => Part::Range(self.range()),
            3 => Part::Delete(Delete { span: self.span(), prev_kv: self.rng.one_in(2) }),
            _ => Part::Put(self.put(format!("v{number}{branch}{depth}{at}"))),
        }
    }

    fn compare(&mut self) -> Compare {
        let results =
            [CompareResult::Equal, CompareResult::NotEqual, CompareResult::Less, CompareResult::Greater];
        let span = self.span();
        let now = self.revision();
        let target = match self.rng.below(5) {
            0 => {
                let there = self.now().values().find(|kv| within(&span, &kv.key));
                Target::Value(there.map_or(Bytes::new(), |kv| kv.value.clone()))
            }
            1 => Target::Version(self.rng.below(3) as i64),
            2 => Target::Create(self.rng.below(now + 2) as i64),
            3 => Target::Mod(self.rng.below(now + 2) as i64),
            _ => Target::Lease(self.rng.below(2) as i64),
        };
        Compare { span, target, result: results[self.rng.below(4) as usize] }
    }

    fn range(&mut self) -> Range {
        let mut range = Range::new(self.span());
        let now = self.revision();
        if self.rng.one_in(3) {
            range.limit = self.rng.between(1, 4);
        }
        if self.rng.one_in(4) {
            range.revision = self.rng.between(1, now + 2);
        }
        range.serializable = self.rng.one_in(4);
        range.keys_only = self.rng.one_in(6);
        range.count_only = self.rng.one_in(6);
        if self.rng.one_in(3) {
            range.order = Order::Descending;
        }
        if self.rng.one_in(3) {
            let by = [SortBy::Version, SortBy::Create, SortBy::Mod, SortBy::Value];
            range.sort_by = by[self.rng.below(4) as usize];
        }
        for filter in [&mut range.min_mod, &mut range.max_mod, &mut range.min_create, &mut range.max_create] {
            if self.rng.one_in(8) {
                *filter = self.rng.between(1, now);
            }
        }
        range
    }

    /// What the store does and says, and where it is then.
    fn answer(&mut self, request: &Request, connection: u64) -> (Revision, Answer) {
        let (store, answer) = match request {
            Request::Put(put) => self.answer_put(put),
            Request::Delete(delete) => self.answer_delete(delete),
            Request::Range(range) => {
                let mut store = self.revision();
                if range.serializable {
                    let seen = self.seen.get(&connection).copied().unwrap_or(1);
                    store = self.rng.between(seen, store);
                }
                (store, self.answer_range(range, store))
            }
            Request::Txn(txn) => {
                let mut store = self.revision();
                if txn.is_read_only() && txn.is_serializable() {
                    let seen = self.seen.get(&connection).copied().unwrap_or(1);
                    store = self.rng.between(seen, store);
                }
                self.answer_txn(txn, store)
            }
            Request::Exists { keys } => {
                let found = keys.iter().filter(|key| self.now().contains_key(*key)).count() as u64;
                (self.revision(), Answer::Exists { revision: self.revision(), found })
            }
            other => panic!("not asked here: {other:?}"),
        };
        self.seen.insert(connection, store);
        (store, answer)
    }

    fn answer_put(&mut self, put: &Put) -> (Revision, Answer) {
        let mut state = self.now().clone();
        let revision = self.revision() + 1;
        match put_into(&mut state, put, revision) {
            Some(previous) => {
                self.states.push(state);
                (revision, Answer::Put { revision, previous })
            }
            None => (self.revision(), Answer::NoKey),
        }
    }

    fn answer_delete(&mut self, delete: &Delete) -> (Revision, Answer) {
        let mut state = self.now().clone();
        let (deleted, previous) = delete_from(&mut state, delete);
        if deleted > 0 {
            self.states.push(state);
        }
        let revision = self.revision();
        (revision, Answer::Delete { revision, deleted, previous })
    }

    fn answer_txn(&mut self, txn: &Txn, store: Revision) -> (Revision, Answer) {
        let before = self.states[store as usize - 1].clone();
        let mut doing = Doing { generator: self, state: before.clone(), before, begun: store, wrote: false };
        match doing.run(txn) {
            Err(fault) => (store, fault),
            Ok(answer) => {
                let Doing { state, wrote, .. } = doing;
                if wrote {
                    self.states.push(state);
                }
                (store + Revision::from(wrote), answer)
            }
        }
    }

    fn answer_range(&self, range: &Range, store: Revision) -> Answer {
        let revision = if range.revision > 0 { range.revision } else { store };
        if revision > store {
            return Answer::Future { newest: store };
        }
        let state = &self.states[revision as usize - 1];
        if let (Span::Key(key), false, false) = (&range.span, range.count_only, range.keys_only)
            && key.ends_with(b"0")
            && range.limit == 0
        {
            return Answer::Value(state.get(key).map(|kv| kv.value.clone()));
        }
        Answer::Range(range_in(state, range, revision))
    }
}

/// A transaction that is being done on a copy.
struct Doing<'g> {
    generator: &'g Generator,
    before: State,
    state: State,
    begun: Revision,
    wrote: bool,
}

impl Doing<'_> {
    fn reached(&self) -> Revision {
        self.begun + Revision::from(self.wrote)
    }

    fn run(&mut self, txn: &Txn) -> Result<Answer, Answer> {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let mut responses = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            responses.push(match op {
                Part::Put(put) => {
                    let revision = self.begun + 1;
                    let Some(previous) = put_into(&mut self.state, put, revision) else {
                        return Err(Answer::NoKey);
                    };
                    self.wrote = true;
                    Answer::Put { revision, previous }
                }
                Part::Delete(delete) => {
                    let (deleted, previous) = delete_from(&mut self.state, delete);
                    self.wrote |= deleted > 0;
                    Answer::Delete { revision: self.reached(), deleted, previous }
                }
                Part::Range(range) if range.revision > self.begun => {
                    return Err(Answer::Future { newest: self.begun });
                }
                Part::Range(range) if range.revision > 0 => {
                    let state = &self.generator.states[range.revision as usize - 1];
                    Answer::Range(range_in(state, range, range.revision))
                }
                Part::Range(range) => Answer::Range(range_in(&self.state, range, self.reached())),
                Part::Txn(txn) => self.run(txn)?,
            });
        }
        Ok(Answer::Txn { revision: self.reached(), succeeded, responses })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let nothing = KeyValue::default();
        let mut there: Vec<&KeyValue> =
            self.before.values().filter(|kv| within(&compare.span, &kv.key)).collect();
        if there.is_empty() {
            if matches!(compare.target, Target::Value(_)) {
                return false;
            }
            there.push(&nothing);
        }
        let by = |is: std::cmp::Ordering| match compare.result {
            CompareResult::Equal => is.is_eq(),
            CompareResult::NotEqual => is.is_ne(),
            CompareResult::Less => is.is_lt(),
            CompareResult::Greater => is.is_gt(),
        };
        there.into_iter().all(|kv| match &compare.target {
            Target::Value(value) => by(kv.value.cmp(value)),
            Target::Version(number) => by((kv.version as i64).cmp(number)),
            Target::Create(number) => by((kv.create_revision as i64).cmp(number)),
            Target::Mod(number) => by((kv.mod_revision as i64).cmp(number)),
            Target::Lease(number) => by(kv.lease.cmp(number)),
        })
    }
}

/// What was there before, if it was asked for; None: it keeps what is not there.
fn put_into(state: &mut State, put: &Put, revision: Revision) -> Option<Option<Option<KeyValue>>> {
    let before = state.get(&put.key).cloned();
    if before.is_none() && (put.ignore_value || put.ignore_lease) {
        return None;
    }
    let mut kv = KeyValue {
        key: put.key.clone(),
        value: put.value.clone(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: 0,
    };
    if let Some(before) = &before {
        kv.create_revision = before.create_revision;
        kv.version = before.version + 1;
        if put.ignore_value {
            kv.value = before.value.clone();
        }
    }
    state.insert(put.key.clone(), kv);
    Some(put.prev_kv.then_some(before))
}

fn delete_from(state: &mut State, delete: &Delete) -> (u64, Vec<KeyValue>) {
    let gone: Vec<KeyValue> = state.values().filter(|kv| within(&delete.span, &kv.key)).cloned().collect();
    state.retain(|key, _| !within(&delete.span, key));
    (gone.len() as u64, if delete.prev_kv { gone } else { Vec::new() })
}

fn range_in(state: &State, range: &Range, revision: Revision) -> RangeResult {
    let mut kvs: Vec<KeyValue> = state.values().filter(|kv| within(&range.span, &kv.key)).cloned().collect();
    let count = kvs.len() as u64;
    let high = |bound: Revision| if bound == 0 { Revision::MAX } else { bound };
    kvs.retain(|kv| (range.min_mod..=high(range.max_mod)).contains(&kv.mod_revision));
    kvs.retain(|kv| (range.min_create..=high(range.max_create)).contains(&kv.create_revision));
    match range.sort_by {
        SortBy::Key => {}
        SortBy::Version => kvs.sort_by_key(|kv| kv.version),
        SortBy::Create => kvs.sort_by_key(|kv| kv.create_revision),
        SortBy::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
        SortBy::Value => kvs.sort_by_key(|kv| kv.value.clone()),
    }
    if range.order == Order::Descending {
        kvs.reverse();
    }
    if range.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    let (mut more, limit) = (false, range.limit as usize);
    if range.count_only {
        kvs.clear();
    } else if limit > 0 && kvs.len() > limit {
        kvs.truncate(limit);
        more = true;
    }
    RangeResult { revision, count, more, kvs }
}

fn within(span: &Span, key: &Bytes) -> bool {
    match span {
        Span::Key(one) => key == one,
        Span::Between(from, to) => key >= from && key < to,
        Span::Prefix(prefix) => key.starts_with(prefix),
        Span::From(from) => key >= from,
    }
}
