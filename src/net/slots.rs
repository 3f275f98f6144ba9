//! Connections by slot: the slot is what the poll knows, the id (slot and generation) is what the node knows,
//! and an id outlives its connection without ever meaning another one.

use crate::api::{ConnId, Lane, connection_of};

/// ```text
///   generation, 24 bits | slot, 24 bits | lane, 16 bits
/// ```
/// A generation comes again after sixteen million connections of the same slot; by then nobody remembers the first.
const LANE_BITS: u32 = Lane::BITS;
const SLOT_BITS: u32 = 24;

/// Names a connection for [`crate::api`], by its lane 0.
pub(super) fn conn_id(generation: u32, slot: usize) -> ConnId {
    let slot = slot as u64;
    assert!(slot < 1 << SLOT_BITS, "a process has fewer descriptors");
    u64::from(generation) << (SLOT_BITS + LANE_BITS) | slot << LANE_BITS
}

/// The same connection's other parties.
pub(super) fn on_lane(id: ConnId, lane: Lane) -> ConnId {
    id | u64::from(lane)
}

fn slot_of(id: ConnId) -> usize {
    (id >> LANE_BITS & ((1 << SLOT_BITS) - 1)) as usize
}

pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
    marked: Vec<usize>,
}

struct Slot<T> {
    generation: u32,
    marked: bool,
    value: Option<T>,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Slots<T> {
        Slots { slots: Vec::new(), free: Vec::new(), marked: Vec::new() }
    }

    /// A slot and the id that goes with it; to be filled or freed.
    pub(super) fn reserve(&mut self) -> (usize, ConnId) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, marked: false, value: None });
            self.slots.len() - 1
        });
        self.slots[slot].generation = self.slots[slot].generation.wrapping_add(1);
        (slot, conn_id(self.slots[slot].generation, slot))
    }

    pub(super) fn fill(&mut self, slot: usize, value: T) {
        self.slots[slot].value = Some(value);
    }

    pub(super) fn free(&mut self, slot: usize) {
        self.slots[slot].value = None;
        self.free.push(slot);
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn at(&mut self, slot: usize) -> Option<&mut T> {
        self.slots.get_mut(slot)?.value.as_mut()
    }

    /// Whichever of its lanes the id names.
    pub(super) fn by_id(&mut self, id: ConnId) -> Option<(usize, &mut T)> {
        let slot = slot_of(id);
        let entry = self.slots.get_mut(slot)?;
        if conn_id(entry.generation, slot) != connection_of(id) {
            return None;
        }
        entry.value.as_mut().map(|value| (slot, value))
    }

    /// The slot has something to be looked at at the end of the turn.
    pub(super) fn mark(&mut self, slot: usize) {
        let entry = &mut self.slots[slot];
        if !entry.marked {
            entry.marked = true;
            self.marked.push(slot);
        }
    }

    pub(super) fn take_marked(&mut self) -> Vec<usize> {
        for &slot in &self.marked {
            self.slots[slot].marked = false;
        }
        std::mem::take(&mut self.marked)
    }

    /// The emptied list of [`take_marked`](Self::take_marked), for the next turn.
    pub(super) fn recycle(&mut self, list: Vec<usize>) {
        assert!(
            list.is_empty() && self.marked.is_empty(),
            "a list that is done with, and nothing marked since"
        );
        self.marked = list;
    }

    /// Every slot that holds something.
    pub(super) fn used(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|&slot| self.slots[slot].value.is_some()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_never_finds_a_new_connection() {
        let mut slots = Slots::new();
        let (slot, first) = slots.reserve();
        slots.fill(slot, "first");
        slots.free(slot);
        let (again, second) = slots.reserve();
        slots.fill(again, "second");
        assert_eq!(slot, again);
        assert!(slots.by_id(first).is_none());
        assert_eq!(slots.by_id(second).map(|(_, value)| *value), Some("second"));
        assert_eq!(slots.by_id(on_lane(second, 77)).map(|(_, value)| *value), Some("second"));
        assert!(slots.by_id(on_lane(first, 77)).is_none());
        assert_eq!(slots.len(), 1);
    }
}
