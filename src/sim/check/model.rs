//! The store as its documentation tells it: a map from keys to what they were from which revision on. Slow,
//! obvious, and complete; it never forgets.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::super::history::ShownKv;
use crate::api::{KeyValue, Order, Put, Range, RangeResult, SortBy, Span};
use crate::base::{LeaseId, Revision};

/// The revision of the empty store.
pub(super) const EMPTY: Revision = 1;

#[derive(Default)]
pub(super) struct Model {
    /// By rising revision: what the key was from there on; None is deleted.
    keys: BTreeMap<Bytes, Vec<(Revision, Option<KeyValue>)>>,
}

impl Model {
    /// What the key is at a revision.
    pub fn at(&self, key: &[u8], revision: Revision) -> Option<&KeyValue> {
        newest(self.keys.get(key)?, revision)
    }

    /// The keys of a span at a revision, in order.
    pub fn span(&self, span: &Span, revision: Revision) -> Vec<&KeyValue> {
        let (from, end) = span.bounds();
        if end.as_ref().is_some_and(|end| *end <= from) {
            return Vec::new();
        }
        let bounds = (Bound::Included(from), end.map_or(Bound::Unbounded, Bound::Excluded));
        self.keys.range(bounds).filter_map(|(_, changes)| newest(changes, revision)).collect()
    }

    /// What the key was from each revision on, where it changed at or after `from`; the state at `from` is first.
    pub fn since(&self, key: &[u8], from: Revision) -> impl Iterator<Item = (Revision, Option<&KeyValue>)> {
        let changes = self.keys.get(key).map_or(&[][..], |changes| &changes[..]);
        let upto = changes.partition_point(|(at, _)| *at <= from);
        let now = changes[..upto].last().and_then(|(_, kv)| kv.as_ref());
        std::iter::once((from, now)).chain(changes[upto..].iter().map(|(at, kv)| (*at, kv.as_ref())))
    }

    /// Every change of a key of the span: its revision, and what the key was from then on and before. By key.
    pub fn changes(
        &self,
        span: &Span,
    ) -> impl Iterator<Item = (Revision, &Bytes, Option<&KeyValue>, Option<&KeyValue>)> {
        let (from, end) = span.bounds();
        let within = move |key: &Bytes| *key >= from && end.as_ref().is_none_or(|end| key < end);
        self.keys.iter().filter(move |(key, _)| within(key)).flat_map(|(key, changes)| {
            let before = std::iter::once(None).chain(changes.iter().map(|(_, kv)| kv.as_ref()));
            changes.iter().zip(before).map(move |((at, kv), before)| (*at, key, kv.as_ref(), before))
        })
    }

    /// None where the put keeps what is not there: the store answers NOKEY, and there is no revision.
    pub fn put(&mut self, put: &Put, revision: Revision) -> Option<&KeyValue> {
        let changes = self.keys.entry(put.key.clone()).or_default();
        let before = changes.last().and_then(|(_, kv)| kv.as_ref());
        if before.is_none() && (put.ignore_value || put.ignore_lease) {
            return None;
        }
        let kept = |keep: bool| before.filter(|_| keep);
        let after = KeyValue {
            key: put.key.clone(),
            value: kept(put.ignore_value).map_or(&put.value, |kv| &kv.value).clone(),
            create_revision: before.map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: before.map_or(0, |kv| kv.version) + 1,
            lease: kept(put.ignore_lease).map_or(put.lease, |kv| kv.lease),
        };
        changes.push((revision, Some(after)));
        changes.last().and_then(|(_, kv)| kv.as_ref())
    }

    /// Deletes the keys that are there, and tells which.
    pub fn delete(&mut self, span: &Span, revision: Revision) -> Vec<KeyValue> {
        let gone: Vec<KeyValue> = self.span(span, revision).into_iter().cloned().collect();
        for kv in &gone {
            self.keys.get_mut(&kv.key).expect("it was just seen").push((revision, None));
        }
        gone
    }

    /// The keys that are attached to a lease at a revision, in order.
    pub fn attached(&self, lease: LeaseId, revision: Revision) -> Vec<&Bytes> {
        let is_attached = |kv: &KeyValue| lease != 0 && kv.lease == lease;
        let now = |changes: &[_]| newest(changes, revision).is_some_and(is_attached);
        self.keys.iter().filter(|(_, changes)| now(changes)).map(|(key, _)| key).collect()
    }

    /// Deletes what is attached to the lease, and tells which keys that were.
    pub fn end_lease(&mut self, lease: LeaseId, revision: Revision) -> Vec<Bytes> {
        let gone: Vec<Bytes> = self.attached(lease, revision).into_iter().cloned().collect();
        for key in &gone {
            self.keys.get_mut(key).expect("it was just seen").push((revision, None));
        }
        gone
    }

    /// What is wrong with the answer to a range that read at `revision`, if anything.
    pub fn range_mismatch(&self, range: &Range, revision: Revision, got: &RangeResult) -> Option<String> {
        let there = self.span(&range.span, revision);
        let count = there.len() as u64;
        if got.count != count {
            return Some(format!("count is {}, but {count} keys were there", got.count));
        }
        let mut wanted: Vec<&KeyValue> = there.into_iter().filter(|kv| passes(range, kv)).collect();
        wanted.sort_by(|a, b| compare(range, a, b));
        let shown = match range.limit {
            _ if range.count_only => 0,
            0 => wanted.len(),
            limit => wanted.len().min(usize::try_from(limit).unwrap_or(usize::MAX)),
        };
        let more = !range.count_only && shown < wanted.len();
        if got.more != more {
            return Some(format!("more is {}, though {shown} of {} fit the limit", got.more, wanted.len()));
        }
        if got.kvs.len() != shown {
            return Some(format!("{} kvs were sent, expected {shown}", got.kvs.len()));
        }
        let mut left: BTreeMap<&Bytes, &KeyValue> = wanted.iter().map(|kv| (&kv.key, *kv)).collect();
        for (got, wanted) in got.kvs.iter().zip(&wanted) {
            let Some(true_kv) = left.remove(&got.key) else {
                return Some(format!("{} does not belong there, or not twice", ShownKv(got)));
            };
            let expected = sent(range, true_kv);
            if *got != expected {
                return Some(format!("found {}, expected {}", ShownKv(got), ShownKv(&expected)));
            }
            // Among equals any order will do; where nothing is equal this says that it is the same kv.
            if compare(range, true_kv, wanted) != Ordering::Equal {
                let wanted = sent(range, wanted);
                return Some(format!("found {} in the place of {}", ShownKv(got), ShownKv(&wanted)));
            }
        }
        None
    }
}

fn newest(changes: &[(Revision, Option<KeyValue>)], revision: Revision) -> Option<&KeyValue> {
    let upto = changes.partition_point(|(at, _)| *at <= revision);
    changes[..upto].last()?.1.as_ref()
}

fn passes(range: &Range, kv: &KeyValue) -> bool {
    let within = |at: Revision, low: Revision, high: Revision| at >= low && (high == 0 || at <= high);
    within(kv.mod_revision, range.min_mod, range.max_mod)
        && within(kv.create_revision, range.min_create, range.max_create)
}

fn compare(range: &Range, a: &KeyValue, b: &KeyValue) -> Ordering {
    let ascending = match range.sort_by {
        SortBy::Key => a.key.cmp(&b.key),
        SortBy::Version => a.version.cmp(&b.version),
        SortBy::Create => a.create_revision.cmp(&b.create_revision),
        SortBy::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortBy::Value => a.value.cmp(&b.value),
    };
    if range.order == Order::Descending { ascending.reverse() } else { ascending }
}

fn sent(range: &Range, kv: &KeyValue) -> KeyValue {
    let value = if range.keys_only { Bytes::new() } else { kv.value.clone() };
    KeyValue { value, ..kv.clone() }
}
