//! Reads the stream of a snapshot without a store: whether it is whole, and what it is of.

use bytes::{Buf, BytesMut};

use super::KEYS;
use super::digest::Digest;
use super::snapshot::{Cell, HEAD_BYTES, Head, Item, digest_cell, digest_of_head};
use crate::base::{ClusterId, EntryId, Revision};

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSummary {
    pub cluster: ClusterId,
    pub applied: EntryId,
    pub revision: Revision,
    pub compact_revision: Revision,
    /// Keys that are there.
    pub keys: u64,
    pub cells: u64,
    pub digest: u64,
}

/// Takes the stream in pieces. Beside a piece, one cell is held in memory.
#[derive(Debug, Default)]
pub struct StreamCheck {
    /// Not understood yet.
    bytes: BytesMut,
    head: Option<Head>,
    digest: Digest,
    keys: u64,
    cells: u64,
    /// Where the last cell was.
    last: Option<(usize, Vec<u8>)>,
    has_ended: bool,
}

impl StreamCheck {
    /// The next bytes. Zeros may follow the end of the stream, and nothing else.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.has_ended {
            return zeros(bytes);
        }
        self.bytes.extend_from_slice(bytes);
        if self.head.is_none() {
            let Some(head) = self.bytes.first_chunk::<HEAD_BYTES>() else { return Ok(()) };
            let head = Head::decode(head)?;
            self.digest = digest_of_head(&head);
            self.head = Some(head);
            self.bytes.advance(HEAD_BYTES);
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        while !self.has_ended
            && let Some((item, item_bytes)) = Item::decode(&bytes)?
        {
            match item {
                Item::Cell(cell) => self.take_cell(&cell)?,
                Item::End { cells, digest } => self.take_end(cells, digest)?,
            }
            bytes.advance(item_bytes);
        }
        self.bytes = bytes;
        if self.has_ended { zeros(&std::mem::take(&mut self.bytes)) } else { Ok(()) }
    }

    fn take_cell(&mut self, cell: &Cell<'_>) -> Result<(), String> {
        let here = (cell.root, cell.key.to_vec());
        if self.last.as_ref().is_some_and(|last| *last >= here) {
            return Err(format!("holds a cell of root {} out of order", cell.root));
        }
        self.last = Some(here);
        self.cells += 1;
        self.keys += u64::from(cell.root == KEYS && cell.counted);
        digest_cell(&mut self.digest, cell);
        Ok(())
    }

    fn take_end(&mut self, cells: u64, digest: u64) -> Result<(), String> {
        if cells != self.cells || digest != self.digest.value() {
            let found = self.digest.value();
            return Err(format!(
                "holds {} cells of digest {found:016x}; its end says {cells} and {digest:016x}",
                self.cells
            ));
        }
        self.has_ended = true;
        Ok(())
    }

    /// Nothing follows.
    pub fn finish(&self) -> Result<StreamSummary, String> {
        let Some(head) = self.head.filter(|_| self.has_ended) else {
            return Err("ends in the middle".into());
        };
        let StreamCheck { keys, cells, digest, .. } = *self;
        let Head { cluster, applied, revision, compact_revision, .. } = head;
        let digest = digest.value();
        Ok(StreamSummary { cluster, applied, revision, compact_revision, keys, cells, digest })
    }
}

fn zeros(bytes: &[u8]) -> Result<(), String> {
    match bytes.iter().find(|byte| **byte != 0) {
        None => Ok(()),
        Some(byte) => Err(format!("holds {byte:02x} behind its end")),
    }
}
