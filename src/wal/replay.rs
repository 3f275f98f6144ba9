//! What records mean: the log as it stands after each of them.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::base::planted;
use crate::base::{EntryId, Index, Term};
use crate::raft::{Entry, EntryKind, HardState};
use crate::wal::format::{Kind, RecordHeader, Unfit};

/// Where an entry's record is. Sequence 0: not written yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) sequence: u32,
    /// Offset divided by 8: enough for 32 GiB.
    pub(super) offset_words: u32,
}

impl Place {
    pub(super) fn new(sequence: u64, offset: u64) -> Place {
        Place {
            sequence: u32::try_from(sequence).expect("sequences are checked where segments are made"),
            offset_words: u32::try_from(offset / 8).expect("a segment is below 32 GiB"),
        }
    }

    pub(super) fn offset(self) -> u64 {
        u64::from(self.offset_words) * 8
    }

    pub(super) fn is_written(self) -> bool {
        self.sequence != 0
    }
}

/// One entry in the index of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) term: Term,
    pub(super) place: Place,
    pub(super) payload_bytes: u32,
    pub(super) kind: EntryKind,
}

const _: () = assert!(size_of::<Slot>() <= 24, "a million entries must not cost more than 24 MB");

/// The entries that the log holds: a base, and a slot for each index behind it.
#[derive(Clone, Debug, Default)]
pub(super) struct EntryIndex {
    pub(super) base: EntryId,
    pub(super) slots: VecDeque<Slot>,
}

impl EntryIndex {
    pub(super) fn last(&self) -> EntryId {
        let index = self.base.index + self.slots.len() as u64;
        self.slots.back().map_or(self.base, |slot| EntryId::new(slot.term, index))
    }

    pub(super) fn slot(&self, index: Index) -> Option<&Slot> {
        let position = index.checked_sub(self.base.index + 1)?;
        self.slots.get(usize::try_from(position).ok()?)
    }

    pub(super) fn slot_mut(&mut self, index: Index) -> Option<&mut Slot> {
        let position = index.checked_sub(self.base.index + 1)?;
        self.slots.get_mut(usize::try_from(position).ok()?)
    }

    /// The term at an index from the base to the last.
    pub(super) fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.slot(index).map(|slot| slot.term)
    }

    /// Drops what is behind `index`, which must not be below the base.
    pub(super) fn cut(&mut self, index: Index) {
        self.slots.truncate((index - self.base.index) as usize);
    }

    /// Drops what is at or below `index`, which becomes the base.
    pub(super) fn release(&mut self, index: Index) {
        while self.base.index < index {
            let Some(slot) = self.slots.pop_front() else { break };
            self.base = EntryId::new(slot.term, self.base.index + 1);
        }
    }
}

/// The state that the records up to some point lead to.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    pub(super) index: EntryIndex,
    pub(super) hard_state: HardState,
    /// The entries above `keep_after`, whole.
    pub(super) held: VecDeque<Entry>,
    keep_after: Index,
    /// The base is still that of the first segment: what a cut takes below it stood in released segments.
    head: bool,
}

impl Replay {
    pub(super) fn new(base: EntryId, hard_state: HardState, keep_after: Index) -> Replay {
        let index = EntryIndex { base, slots: VecDeque::new() };
        Replay { index, hard_state, held: VecDeque::new(), keep_after, head: true }
    }

    /// Applies a record that has passed its checksums. What does not make sense then was written wrongly, or
    /// belongs to another history: an error in any case (W-14, W-15).
    pub(super) fn apply(&mut self, place: Place, header: &RecordHeader, payload: &[u8]) -> Result<(), Unfit> {
        let last = self.index.last();
        let id = header.id;
        match header.kind {
            Kind::Begin if id == last => Ok(()),
            Kind::Begin => unfit(format!("a group behind {id}"), format!("one behind {last}")),
            Kind::HardState => self.set_hard_state(HardState { term: id.term, vote: id.index }),
            Kind::Entry(_) if id.index != last.index + 1 || id.term < last.term => unfit(
                format!("entry {id}"),
                format!("entry {} of term {} or more", last.index + 1, last.term),
            ),
            Kind::Entry(kind) => {
                let payload_bytes = header.payload_bytes;
                self.index.slots.push_back(Slot { term: id.term, place, payload_bytes, kind });
                if id.index > self.keep_after {
                    self.held.push_back(Entry { id, kind, payload: Bytes::copy_from_slice(payload) });
                }
                Ok(())
            }
            Kind::Cut => self.cut(id),
            Kind::Reset => {
                self.index = EntryIndex { base: id, slots: VecDeque::new() };
                if !planted::on("wal-reset-keeps-entries") {
                    self.held.clear();
                }
                self.head = false;
                Ok(())
            }
        }
    }

    fn set_hard_state(&mut self, new: HardState) -> Result<(), Unfit> {
        let old = self.hard_state;
        let turned = new.term == old.term && old.vote != 0 && new.vote != old.vote;
        if new.term < old.term || turned {
            return unfit(format!("{new:?}"), format!("nothing that takes back {old:?}"));
        }
        self.hard_state = new;
        Ok(())
    }

    fn cut(&mut self, to: EntryId) -> Result<(), Unfit> {
        let (base, last) = (self.index.base, self.index.last());
        if self.index.term(to.index) == Some(to.term) {
            self.index.cut(to.index);
        } else if to.index < base.index && self.head {
            // The entries up to the base stood in segments that were released because only entries at or below
            // `to` were still part of the log.
            self.index = EntryIndex { base: to, slots: VecDeque::new() };
        } else {
            return unfit(format!("a cut to {to}"), format!("to an entry from {base} to {last}"));
        }
        while self.held.back().is_some_and(|entry| entry.id.index > to.index) {
            self.held.pop_back();
        }
        Ok(())
    }
}

fn unfit(found: String, expected: String) -> Result<(), Unfit> {
    Err(Unfit { found, expected })
}
