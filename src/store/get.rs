//! Reads of one key, which most reads of a store like this are. There is nothing to count, sort or cut off, and of the latest
//! revision nothing to walk: two descents, for the key's cell and for the change that it names.

use super::range::{Budget, passes};
use super::record::{self, Header};
use super::revision::Rev;
use super::walk::{Bounds, key_value, value_at};
use super::{KEYS, Store, damaged};
use crate::api::{Order, Range, RangeResult, Span};
use crate::base::{Result, Revision};
use crate::btree::View;
use crate::io::Disk;
use bytes::Bytes;

impl<D: Disk> Store<D> {
    /// Answers a range of one key as of now; None if it asks for something else.
    pub fn get(&self, range: &Range, budget: &mut Budget) -> Option<Result<RangeResult>> {
        match &range.span {
            Span::Key(key) if range.revision == 0 => {
                Some(self.read_one(range, key, self.state.revision, budget))
            }
            _ => None,
        }
    }

    /// The range's only key as of `revision`, which is not compacted away.
    pub(super) fn read_one(
        &self,
        range: &Range,
        key: &Bytes,
        revision: Revision,
        budget: &mut Budget,
    ) -> Result<RangeResult> {
        budget.keys = budget.keys.saturating_sub(1);
        let mut result = RangeResult { revision, count: 0, more: false, kvs: Vec::new() };
        let found = if revision == self.state.revision {
            self.newest_change(key)?.filter(|(_, header)| !header.tombstone)
        } else {
            let bounds = Bounds::of(&range.span);
            let mut walk = self.walk_at(revision, Order::Ascending, &bounds);
            walk.advance()?.then(|| walk.change())
        };
        let Some((rev, header)) = found else { return Ok(result) };
        result.count = 1;
        if !range.count_only && passes(range, rev.main, header.create) {
            let value = if range.keys_only { Bytes::new() } else { value_at(&self.tree, &self.path, rev)? };
            let kv = key_value(key.clone(), rev, &header, value);
            budget.bytes = budget.bytes.saturating_sub(kv.size_bytes());
            result.kvs.push(kv);
        }
        Ok(result)
    }

    /// The newest change of a key, as its cell says.
    pub(super) fn newest_change(&self, key: &[u8]) -> Result<Option<(Rev, Header)>> {
        let Some(value) = self.tree.get(View::Now, KEYS, key)? else { return Ok(None) };
        let decoded = match value.as_slice() {
            Some(record) => record::decode_key(record).map(|(newest, header, _)| (newest, header)),
            None => record::decode_key(&value.to_vec()?).map(|(newest, header, _)| (newest, header)),
        };
        decoded.map(Some).map_err(|bad| damaged(&self.path, "a key", bad))
    }
}
