//! Reads: etcd's Range over the walk of keys.

use std::cmp::Ordering;

use bytes::Bytes;

use super::walk::{Bounds, Walk};
use super::{KEYS, Store};
use crate::api::{Fault, KeyValue, Order, Range, RangeResult, SortBy, Span};
use crate::base::planted;
use crate::base::{Result, Revision};
use crate::btree::View;
use crate::io::Disk;

impl<D: Disk> Store<D> {
    /// Answers a range from the present content. The outer error is damage (this member must stop serving);
    /// the inner one is for the client.
    ///
    /// As in etcd: `count` is the number of keys in the span at that revision, whatever limit and filters say;
    /// `more` tells that the limit cut off keys which passed the filters; sorting looks at all keys of the span
    /// before the limit cuts; values are left out of the answer of `keys_only`, also after sorting by value.
    /// Keys with equal sort fields follow each other in key order, reversed when the order is descending.
    pub fn range(&self, range: &Range) -> Result<Result<RangeResult, Fault>> {
        let revision = match self.readable(range.revision) {
            Ok(revision) => revision,
            Err(fault) => return Ok(Err(fault)),
        };
        let mut result = RangeResult { revision, ..RangeResult::default() };
        let bounds = Bounds::of(&range.span);
        if bounds.is_empty() {
            return Ok(Ok(result));
        }
        if revision == self.state.revision {
            self.read_latest(range, &bounds, &mut result)?;
        } else {
            self.read_old(range, &bounds, revision, &mut result)?;
        }
        Ok(Ok(result))
    }

    /// How many of these keys there are now.
    pub fn exists(&self, keys: &[Bytes]) -> Result<u64> {
        let mut found = 0;
        for key in keys {
            found += u64::from(self.tree.counted(View::Now, KEYS, key)? == Some(true));
        }
        Ok(found)
    }

    fn read_latest(&self, range: &Range, bounds: &Bounds, result: &mut RangeResult) -> Result<()> {
        let single = matches!(range.span, Span::Key(_));
        if range.count_only {
            result.count = self.count(bounds)?;
            return Ok(());
        }
        let mut walk = Walk::new(&self.tree, &self.path, bounds, walk_order(range), None);
        let mut found = Found::new(range);
        let mut walked = 0;
        while !found.is_full() && walk.advance()? {
            walked += 1;
            found.take(walk.key_value(found.needs_values)?);
            if single {
                break;
            }
        }
        // The walk of one key has seen all that there is to count.
        result.count =
            if single || planted::on("store-count-stops-at-limit") { walked } else { self.count(bounds)? };
        found.finish(result);
        Ok(())
    }

    /// Old revisions have no counts in the tree: the walk goes on behind the limit to count.
    fn read_old(
        &self,
        range: &Range,
        bounds: &Bounds,
        revision: Revision,
        result: &mut RangeResult,
    ) -> Result<()> {
        let mut walk = Walk::new(&self.tree, &self.path, bounds, walk_order(range), Some(revision));
        let mut found = Found::new(range);
        while walk.advance()? {
            result.count += 1;
            if !range.count_only && !found.is_full() {
                found.take(walk.key_value(found.needs_values)?);
            }
        }
        found.finish(result);
        Ok(())
    }

    fn count(&self, bounds: &Bounds) -> Result<u64> {
        self.tree.count(View::Now, KEYS, &bounds.from, bounds.to.as_deref())
    }
}

/// The order of the walk; a sort by another field comes afterwards.
fn walk_order(range: &Range) -> Order {
    if range.sort_by == SortBy::Key { range.order } else { Order::Ascending }
}

/// What has been found so far, no more of it than the limit can use.
struct Found<'r> {
    range: &'r Range,
    kvs: Vec<KeyValue>,
    needs_values: bool,
    /// How many can matter: one more than the limit, to know that there are more.
    kvs_max: usize,
}

impl<'r> Found<'r> {
    fn new(range: &'r Range) -> Found<'r> {
        let kvs_max = match range.limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1),
        };
        let needs_values = !range.keys_only || range.sort_by == SortBy::Value;
        Found { range, kvs: Vec::new(), needs_values, kvs_max }
    }

    /// Further keys cannot change the answer.
    fn is_full(&self) -> bool {
        self.range.sort_by == SortBy::Key && self.kvs.len() >= self.kvs_max
    }

    fn take(&mut self, kv: KeyValue) {
        if !self.passes(&kv) {
            return;
        }
        self.kvs.push(kv);
        // Now and then, so that a sorted read with a limit holds a few times the limit and not the span.
        if self.range.sort_by != SortBy::Key && self.kvs.len() >= self.kvs_max.saturating_mul(4) {
            self.sort_and_cut();
        }
    }

    fn passes(&self, kv: &KeyValue) -> bool {
        let Range { min_mod, max_mod, min_create, max_create, .. } = *self.range;
        let below = |max: Revision, revision: Revision| {
            max == 0 || revision <= max - u64::from(planted::on("store-filter-excludes-its-bound"))
        };
        min_mod <= kv.mod_revision
            && below(max_mod, kv.mod_revision)
            && min_create <= kv.create_revision
            && below(max_create, kv.create_revision)
    }

    fn sort_and_cut(&mut self) {
        let by = self.range.sort_by;
        match self.range.order {
            Order::Ascending => self.kvs.sort_unstable_by(|a, b| compare(by, a, b)),
            Order::Descending => self.kvs.sort_unstable_by(|a, b| compare(by, b, a)),
        }
        self.kvs.truncate(self.kvs_max);
    }

    fn finish(mut self, result: &mut RangeResult) {
        if self.range.sort_by != SortBy::Key {
            self.sort_and_cut();
        }
        if self.kvs.len() == self.kvs_max {
            if !planted::on("store-one-beyond-the-limit") {
                self.kvs.pop();
            }
            result.more = true;
        }
        if self.range.keys_only {
            for kv in &mut self.kvs {
                kv.value.clear();
            }
        }
        result.kvs = self.kvs;
    }
}

/// By the field, then by key: a total order, because keys differ.
fn compare(by: SortBy, a: &KeyValue, b: &KeyValue) -> Ordering {
    let field = match by {
        SortBy::Key => Ordering::Equal,
        SortBy::Version => a.version.cmp(&b.version),
        SortBy::Create => a.create_revision.cmp(&b.create_revision),
        SortBy::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortBy::Value => a.value.cmp(&b.value),
    };
    field.then_with(|| a.key.cmp(&b.key))
}
