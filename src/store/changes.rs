//! The history in order: what watchers are told. Whoever keeps up with it and whoever catches up read the same, so
//! that nothing can be lost or told twice where the one becomes the other.

use std::borrow::Cow;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::record::{self, CHANGE_HEAD_BYTES_MAX, Change, Malformed};
use super::revision::Rev;
use super::varint::VARINT_BYTES_MAX;
use super::walk::{head_at, key_value, value_at};
use super::{CHANGES, Store, damaged};
use crate::api::KeyValue;
use crate::base::{Result, Revision};
use crate::btree::{Cursor, Value, View};
use crate::io::Disk;

/// One change of one key, as it lies in the tree.
pub struct Changed<'c, 't, D: Disk> {
    store: &'c Store<D>,
    record: &'c Value<'t, D>,
    change: Change,
    /// Where in the record the value begins.
    value_at: usize,
    pub rev: Rev,
    pub key: Cow<'c, [u8]>,
}

impl<D: Disk> Store<D> {
    /// Shows all changes from `from` on, oldest first, until `visit` breaks off or there are no more. True in the
    /// latter case.
    pub fn visit_changes(
        &self,
        from: Rev,
        mut visit: impl FnMut(&Changed<'_, '_, D>) -> Result<ControlFlow<()>>,
    ) -> Result<bool> {
        let mut cursor = self.tree.cursor(View::Now, CHANGES);
        let mut there = cursor.seek(&from.encode())?;
        while there {
            if self.show_change(&cursor, &mut visit)?.is_break() {
                return Ok(false);
            }
            there = cursor.next()?;
        }
        Ok(true)
    }

    fn show_change(
        &self,
        cursor: &Cursor<'_, D>,
        visit: &mut impl FnMut(&Changed<'_, '_, D>) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let bad = |bad| damaged(&self.path, "a change", bad);
        let rev = Rev::decode(&cursor.key()?).map_err(bad)?;
        let record = cursor.value();
        let (change, key, value_at) = match record.as_slice() {
            Some(record) => {
                let (change, key, value_at) = head_and_key(rev, record).map_err(bad)?;
                (change, Cow::Borrowed(key), value_at)
            }
            None => {
                let (change, key, value_at) = long_head_and_key(rev, &record)?.map_err(bad)?;
                (change, Cow::Owned(key), value_at)
            }
        };
        visit(&Changed { store: self, record: &record, change, value_at, rev, key })
    }

    /// Whether changes of this revision may have been swept, so that nobody can be told of it any more. Those at the bound
    /// itself stay: the last changes of their keys there, and the deletions (see [`super::compact`]).
    pub fn is_forgotten(&self, revision: Revision) -> bool {
        revision < self.state.compact_revision
    }
}

/// A change, its key, and where in the record its value begins.
type Parsed<Key> = Result<(Change, Key, usize), Malformed>;

fn head_and_key(rev: Rev, record: &[u8]) -> Parsed<&[u8]> {
    let (change, mut rest) = Change::decode(rev, record)?;
    let key = record::take_key(&mut rest)?;
    Ok((change, key, record.len() - rest.left()))
}

/// Of a record in a chain of pages, from no more of it than that takes.
fn long_head_and_key<D: Disk>(rev: Rev, record: &Value<'_, D>) -> Result<Parsed<Vec<u8>>> {
    let mut bytes = CHANGE_HEAD_BYTES_MAX + VARINT_BYTES_MAX;
    loop {
        match head_and_key(rev, &record.start(bytes)?) {
            Ok((change, key, value_at)) => return Ok(Ok((change, key.to_vec(), value_at))),
            Err(bad) if bytes >= record.len() => return Ok(Err(bad)),
            Err(_) => bytes = bytes.saturating_mul(16),
        }
    }
}

impl<D: Disk> Changed<'_, '_, D> {
    pub fn is_delete(&self) -> bool {
        self.change.header.tombstone
    }

    /// What the change made of the key; of a delete its key and mod revision alone.
    pub fn key_value(&self) -> Result<KeyValue> {
        let value = match self.record.as_slice() {
            Some(record) => Bytes::copy_from_slice(&record[self.value_at..]),
            None => Bytes::from(self.record.to_vec()?).slice(self.value_at..),
        };
        Ok(key_value(Bytes::copy_from_slice(&self.key), self.rev, &self.change.header, value))
    }

    /// What the key was before the change, if it was there and can still be known. For a change at the bound of a
    /// compaction it cannot: members have swept that or not, and shall not differ.
    pub fn previous(&self) -> Result<Option<KeyValue>> {
        let Some(rev) = self.change.links.previous else { return Ok(None) };
        let Store { tree, path, state, .. } = self.store;
        if self.rev.main <= state.compact_revision {
            return Ok(None);
        }
        if self.store.is_forgotten(rev.main) && tree.get(View::Now, CHANGES, &rev.encode())?.is_none() {
            return Ok(None); // Of what came before the bound, only a deletion is swept that a later change follows.
        }
        let header = head_at(tree, path, rev)?.header;
        if header.tombstone {
            return Ok(None);
        }
        let key = Bytes::copy_from_slice(&self.key);
        Ok(Some(key_value(key, rev, &header, value_at(tree, path, rev)?)))
    }
}
