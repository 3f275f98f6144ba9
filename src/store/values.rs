//! The values of keys: read one by one, or of many keys in the order in which they lie.
//!
//! Keys lie in their own order, values in that of the changes which made them. Who reads the values of neighbouring keys one
//! after the other jumps from page to page as the keys happened to change, and every jump is a descent through pages that no
//! cache of the processor holds. So a range takes a batch of keys first, and reads their values in the order of their
//! changes: a batch comes to no leaf twice, and the branches above stay near.
//!
//! How long a value is shows only where it lies. What a batch may hold is reckoned from what the answer came to so far, and
//! what turns out to be too much is left for the next part: no more is copied in vain than a part may hold, and one value.

use std::path::Path;

use bytes::{Bytes, BytesMut};

use super::CHANGES;
use super::revision::Rev;
use super::walk::{missing, value_of};
use crate::api::KeyValue;
use crate::base::Result;
use crate::btree::{Cursor, Tree, View};
use crate::io::Disk;

/// Rows whose values are read together: more would hardly lie nearer to each other.
const BATCH_ROWS_MAX: usize = 1_024;

/// What a row is taken to come to before any was seen.
const ROW_BYTES_GUESS: usize = 512;

/// What is reckoned for a key and its value, and what one piece of [`Values::room`] holds.
const ROOM_BYTES_EACH: u64 = 256;
const ROOM_BYTES_MAX: u64 = 64 << 10;

/// What the rows of an answer came to so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    rows: usize,
    bytes: usize,
}

impl Seen {
    /// How many rows are likely to fit into so many bytes; one at least.
    pub fn rows_within(&self, bytes: usize) -> usize {
        let each = self.bytes.checked_div(self.rows).unwrap_or(ROW_BYTES_GUESS);
        (bytes / each.max(1)).clamp(1, BATCH_ROWS_MAX)
    }
}

/// Reads values.
pub struct Values<'s, D: Disk> {
    path: &'s Path,
    /// Keys that were put one after the other have their values side by side.
    changes: Cursor<'s, D>,
    /// Memory for keys and values that are told, where they are many.
    room: Option<BytesMut>,
}

impl<'s, D: Disk> Values<'s, D> {
    pub fn new(tree: &'s Tree<D>, path: &'s Path) -> Values<'s, D> {
        Values { path, changes: tree.cursor(View::Now, CHANGES), room: None }
    }

    /// About so many keys will be told of, all for one answer: they share their memory.
    pub fn for_many(mut self, count: u64) -> Values<'s, D> {
        let bytes = count.saturating_mul(ROOM_BYTES_EACH);
        self.room = (count > 1).then(|| BytesMut::with_capacity(bytes.min(ROOM_BYTES_MAX) as usize));
        self
    }

    pub fn copied(&mut self, bytes: &[u8]) -> Bytes {
        copied(&mut self.room, bytes)
    }

    /// The value that a change gave its key.
    pub fn value(&mut self, rev: Rev) -> Result<Bytes> {
        if !self.changes.find(&rev.encode())? {
            return Err(missing(self.path, rev));
        }
        value_of(self.changes.value(), self.path, rev, |value| copied(&mut self.room, value))
    }

    /// Gives these keys the values of their changes until they come to `bytes_left`, which is lessened by what they come
    /// to. How many of the first have theirs; the last of those may be more than was left.
    pub fn read(
        &mut self,
        revs: &[Rev],
        kvs: &mut [KeyValue],
        bytes_left: &mut usize,
        seen: &mut Seen,
    ) -> Result<usize> {
        let mut order: Vec<usize> = (0..revs.len()).collect();
        if !revs.is_sorted() {
            order.sort_unstable_by_key(|&index| revs[index]);
        }
        let (mut read, mut bytes) = (0, 0);
        for &index in &order {
            kvs[index].value = self.value(revs[index])?;
            (read, bytes) = (read + 1, bytes + kvs[index].size_bytes());
            if bytes >= *bytes_left {
                break;
            }
        }
        // Too many: from here on in the order of the keys.
        let mut unread = order.split_off(read);
        unread.sort_unstable();
        let mut unread = unread.into_iter().peekable();
        for (index, kv) in kvs.iter_mut().enumerate() {
            if *bytes_left == 0 {
                return Ok(index);
            }
            if unread.next_if_eq(&index).is_some() {
                kv.value = self.value(revs[index])?;
            }
            *bytes_left = bytes_left.saturating_sub(kv.size_bytes());
            (seen.rows, seen.bytes) = (seen.rows + 1, seen.bytes + kv.size_bytes());
        }
        Ok(kvs.len())
    }
}

fn copied(room: &mut Option<BytesMut>, bytes: &[u8]) -> Bytes {
    let Some(room) = room else { return Bytes::copy_from_slice(bytes) };
    room.extend_from_slice(bytes);
    room.split().freeze()
}
