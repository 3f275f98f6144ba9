//! The pages that live in memory: those changed since the last checkpoint, those of the checkpoint that is
//! being written, and those that only a pinned view still reaches. Everything else is read through the mapping.

use std::sync::Arc;

use super::format::PageNo;

/// Pages per chunk. Small, because in a large file the changed pages lie far apart: at worst a page brings a chunk
/// of 512 bytes with it.
const CHUNK: usize = 16;

/// A page in memory.
#[derive(Debug)]
pub(super) struct Slot {
    /// Shared with the checkpoint that writes it, and then never changed again.
    pub bytes: Arc<[u8]>,
    /// The generation in which it was born: see `space`.
    pub birth: u64,
    pub run: Run,
}

/// The latest puts into a leaf: a run of rising keys is packed tightly when the leaf is divided.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    last_index: u16,
    length: u16,
}

/// So many neighbours one after the other are no chance.
const RUN_MIN: u16 = 3;

impl Run {
    /// A cell was put before the `index`th.
    pub(super) fn note(&mut self, index: usize) {
        let follows = index == usize::from(self.last_index) + 1;
        self.length = if follows { self.length.saturating_add(1) } else { 0 };
        self.last_index = index as u16;
    }

    /// Whether a cell before the `index`th would go on with a run.
    pub(super) fn goes_on(&self, index: usize) -> bool {
        self.length >= RUN_MIN && index == usize::from(self.last_index) + 1
    }
}

#[derive(Debug)]
struct Chunk {
    slots: [Option<Slot>; CHUNK],
    count: usize,
}

/// Page number to page, in two steps and without hashing.
#[derive(Debug, Default)]
pub(super) struct Table {
    chunks: Vec<Option<Box<Chunk>>>,
}

impl Table {
    pub(super) fn get(&self, no: PageNo) -> Option<&Slot> {
        let chunk = self.chunks.get(no as usize / CHUNK)?.as_ref()?;
        chunk.slots[no as usize % CHUNK].as_ref()
    }

    pub(super) fn get_mut(&mut self, no: PageNo) -> Option<&mut Slot> {
        let chunk = self.chunks.get_mut(no as usize / CHUNK)?.as_mut()?;
        chunk.slots[no as usize % CHUNK].as_mut()
    }

    pub(super) fn insert(&mut self, no: PageNo, slot: Slot) {
        let index = no as usize / CHUNK;
        if index >= self.chunks.len() {
            self.chunks.resize_with(index + 1, || None);
        }
        let chunk = self.chunks[index]
            .get_or_insert_with(|| Box::new(Chunk { slots: std::array::from_fn(|_| None), count: 0 }));
        let before = chunk.slots[no as usize % CHUNK].replace(slot);
        assert!(before.is_none(), "page {no} is handed out once at a time");
        chunk.count += 1;
    }

    pub(super) fn remove(&mut self, no: PageNo) -> Option<Slot> {
        let place = self.chunks.get_mut(no as usize / CHUNK)?;
        let chunk = place.as_mut()?;
        let slot = chunk.slots[no as usize % CHUNK].take()?;
        chunk.count -= 1;
        if chunk.count == 0 {
            *place = None;
        }
        Some(slot)
    }
}
