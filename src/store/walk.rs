//! Walks the keys of a span as they were at a revision, and reads single changes.

use std::path::Path;

use super::record::{self, CHANGE_HEAD_BYTES_MAX, Change, Header, Malformed};
use super::revision::Rev;
use super::values::Values;
use super::{CHANGES, KEYS, damaged};
use crate::api::{KeyValue, Order, Span, successor};
use crate::base::planted;
use crate::base::{Error, Result, Revision};
use crate::btree::{Cursor, Tree, Value, View};
use crate::io::Disk;
use bytes::{Bytes, BytesMut};

/// Which keys; no end = to the last key.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub from: Bytes,
    pub to: Option<Bytes>,
}

impl Bounds {
    pub fn of(span: &Span) -> Bounds {
        let (from, to) = span.bounds();
        Bounds { from, to }
    }

    /// Of these bounds, what is left where `key` comes next.
    pub fn rest_at(&self, key: &Bytes, order: Order) -> Bounds {
        let mut rest = self.clone();
        match order {
            Order::Ascending => rest.from = key.clone(),
            Order::Descending => rest.to = Some(successor(key)),
        }
        rest
    }

    pub fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }
}

/// What a step of a walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Key,
    End,
    /// It may go no further now.
    Pause,
}

/// The state of old that a walk sees.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    pub at: Revision,
    /// The store's compact revision, which `at` is not before.
    pub compacted: Revision,
}

/// A walk. Stands on a key that was there after [`Walk::advance`] has returned true.
pub struct Walk<'s, D: Disk> {
    tree: &'s Tree<D>,
    path: &'s Path,
    cursor: Cursor<'s, D>,
    bounds: &'s Bounds,
    order: Order,
    /// None: the latest state.
    past: Option<Past>,
    begun: bool,
    /// The change that was visible, of the key that the walk stands on.
    rev: Rev,
    header: Header,
    values: Values<'s, D>,
}

impl<'s, D: Disk> Walk<'s, D> {
    pub fn new(
        tree: &'s Tree<D>,
        path: &'s Path,
        bounds: &'s Bounds,
        order: Order,
        past: Option<Past>,
    ) -> Walk<'s, D> {
        let (cursor, values) = (tree.cursor(View::Now, KEYS), Values::new(tree, path));
        let (rev, header) = (Rev::default(), Header::default());
        Walk { tree, path, cursor, bounds, order, past, begun: false, rev, header, values }
    }

    /// About so many keys will be told of, all for one answer.
    pub fn for_many(mut self, count: u64) -> Walk<'s, D> {
        self.values = self.values.for_many(count);
        self
    }

    /// To the next key that was there; false at the end of the span.
    pub fn advance(&mut self) -> Result<bool> {
        Ok(self.advance_within(&mut usize::MAX.clone())? == Step::Key)
    }

    /// The same, within so many keys looked at, whether they were there or not.
    pub fn advance_within(&mut self, keys_left: &mut usize) -> Result<Step> {
        loop {
            if *keys_left == 0 {
                return Ok(Step::Pause);
            }
            *keys_left -= 1;
            let there = match (self.begun, self.order) {
                (false, Order::Ascending) => self.cursor.seek(&self.bounds.from)?,
                (false, Order::Descending) => match &self.bounds.to {
                    Some(to) => self.cursor.seek_before(to)?,
                    None => self.cursor.last()?,
                },
                (true, Order::Ascending) => self.cursor.next()?,
                (true, Order::Descending) => self.cursor.prev()?,
            };
            self.begun = true;
            if !there || self.is_beyond()? {
                return Ok(Step::End);
            }
            if self.find_visible()? {
                return Ok(Step::Key);
            }
        }
    }

    fn is_beyond(&self) -> Result<bool> {
        let key = self.cursor.key()?;
        Ok(match self.order {
            Order::Ascending => self.bounds.to.as_ref().is_some_and(|to| *key >= to[..]),
            Order::Descending => key[..] < self.bounds.from[..],
        })
    }

    /// Looks up what the walk's revision sees of the key under the cursor; false if the key was not there then.
    fn find_visible(&mut self) -> Result<bool> {
        if self.past.is_none() && !self.cursor.counted() {
            return Ok(false);
        }
        let value = self.cursor.value();
        let copy;
        let record = match value.as_slice() {
            Some(record) => record,
            None => {
                copy = value.to_vec()?;
                &copy
            }
        };
        let bad = |bad| damaged(self.path, "a key", bad);
        let (newest, header, line) = record::decode_key(record).map_err(bad)?;
        (self.rev, self.header) = (newest, header);
        if let Some(Past { at, compacted }) = self.past {
            let line = record::decode_line(newest, line).map_err(bad)?;
            let links = |rev| Ok(head_at(self.tree, self.path, rev)?.links);
            let Some(rev) = line.find(at, links)? else { return Ok(false) };
            if rev != newest {
                match head_if_kept(self.tree, self.path, rev)? {
                    Some(change) => (self.rev, self.header) = (rev, change.header),
                    // Of what can be seen, a deletion alone is not kept.
                    None if rev.main < compacted => return Ok(false),
                    None => return Err(missing(self.path, rev)),
                }
            }
        }
        Ok(!self.header.tombstone)
    }

    /// The bounds without the keys up to the one that the walk came to last; all of them before it has begun.
    pub fn rest(&self) -> Result<Bounds> {
        let mut rest = self.bounds.clone();
        match (self.begun, self.order) {
            (false, _) => {}
            (true, Order::Ascending) if planted::on("store-range-part-repeats-a-key") => {
                rest.from = self.key()?
            }
            (true, Order::Ascending) => rest.from = successor(&self.cursor.key()?),
            (true, Order::Descending) => rest.to = Some(self.key()?),
        }
        Ok(rest)
    }

    /// The change that the walk sees of its key, the value aside.
    pub fn change(&self) -> (Rev, Header) {
        (self.rev, self.header)
    }

    pub fn key(&self) -> Result<Bytes> {
        Ok(Bytes::copy_from_slice(&self.cursor.key()?))
    }

    pub fn key_value(&mut self, with_value: bool) -> Result<KeyValue> {
        let key = self.values.copied(&self.cursor.key()?);
        let value = if with_value { self.values.value(self.rev)? } else { Bytes::new() };
        Ok(key_value(key, self.rev, &self.header, value))
    }

    /// Where the values are read of keys that were told without.
    pub fn values(&mut self) -> &mut Values<'s, D> {
        &mut self.values
    }
}

/// A change without its key and value.
pub fn head_at<D: Disk>(tree: &Tree<D>, path: &Path, rev: Rev) -> Result<Change> {
    head_if_kept(tree, path, rev)?.ok_or_else(|| missing(path, rev))
}

/// The same of a change that a compaction may have taken away.
fn head_if_kept<D: Disk>(tree: &Tree<D>, path: &Path, rev: Rev) -> Result<Option<Change>> {
    let Some(record) = tree.get(View::Now, CHANGES, &rev.encode())? else { return Ok(None) };
    let decode = |record: &[u8]| match Change::decode(rev, record) {
        Ok((change, _)) => Ok(Some(change)),
        Err(bad) => Err(damaged(path, "a change", bad)),
    };
    match record.as_slice() {
        Some(record) => decode(record),
        None => decode(&record.start(CHANGE_HEAD_BYTES_MAX)?),
    }
}

/// The value that a change gave its key.
pub fn value_at<D: Disk>(tree: &Tree<D>, path: &Path, rev: Rev) -> Result<Bytes> {
    let record = tree.get(View::Now, CHANGES, &rev.encode())?.ok_or_else(|| missing(path, rev))?;
    value_of(record, path, rev, Bytes::copy_from_slice)
}

/// The same of its record. `copied`: of a value in one page.
pub fn value_of<D: Disk>(
    record: Value<'_, D>,
    path: &Path,
    rev: Rev,
    copied: impl FnOnce(&[u8]) -> Bytes,
) -> Result<Bytes> {
    let value_bytes = |record: &[u8]| {
        let (_, mut rest) = Change::decode(rev, record)?;
        record::take_key(&mut rest)?;
        Ok(rest.left())
    };
    let bad = |bad| damaged(path, "a change", bad);
    if let Some(record) = record.as_slice() {
        let value_bytes = value_bytes(record).map_err(bad)?;
        return Ok(copied(&record[record.len() - value_bytes..]));
    }
    let mut whole = BytesMut::with_capacity(record.len());
    record.append_to(&mut whole)?;
    let value_bytes = value_bytes(&whole).map_err(bad)?;
    Ok(whole.split_off(whole.len() - value_bytes).freeze())
}

/// Something leads to a change that is not there.
pub fn missing(path: &Path, rev: Rev) -> Error {
    damaged(path, "a change", Malformed(format!("none at revision {rev}")))
}

pub fn key_value(key: Bytes, rev: Rev, header: &Header, value: Bytes) -> KeyValue {
    KeyValue {
        key,
        value,
        create_revision: header.create,
        mod_revision: rev.main,
        version: header.version,
        lease: header.lease,
    }
}
