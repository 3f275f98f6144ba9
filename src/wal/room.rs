//! Whether batches fit into the files that exist: the newest segment and the spares. A writer that is given no more
//! never has to make a file, so it cannot find the disk full.
//!
//! The loop's half does not know how the writer will group batches, and a group costs a begin and padding. So
//! it counts as if each batch were a group of its own: never less than the truth. Where the last record of the
//! newest segment is known, the count starts anew from there.

use crate::wal::format::{SECTOR, record_bytes, sector_end};
use crate::wal::writer::{Batch, Splice};

#[derive(Debug)]
pub(super) struct Room {
    segment_bytes: u64,
    /// The newest segment is written up to here at most.
    end: u64,
}

impl Room {
    /// A log whose tail ends at `border`; behind it the writer marks its opening.
    pub(super) fn behind(border: u64, segment_bytes: u64) -> Room {
        Room { segment_bytes, end: sector_end(border + record_bytes(0) as u64) }
    }

    /// How many of the batches, from the first, need no other files than these.
    pub(super) fn count(&self, mut spares: usize, batches: &[Batch]) -> usize {
        let mut end = self.end;
        for (count, batch) in batches.iter().enumerate() {
            let bytes = records_bytes(batch);
            // The seal comes behind.
            if behind(end, bytes) + SECTOR > self.segment_bytes && bytes > 0 {
                if spares == 0 {
                    return count;
                }
                (spares, end) = (spares - 1, SECTOR);
            }
            end = behind(end, bytes);
        }
        batches.len()
    }

    /// The writer began a segment: all that it wrote just now is there, at most.
    pub(super) fn begin_segment(&mut self) {
        self.end = SECTOR;
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.end = behind(self.end, bytes);
    }

    /// The last record of a batch ends here, in the newest segment.
    pub(super) fn ends_at(&mut self, offset: u64) {
        self.end = sector_end(offset);
    }
}

/// The end of a group of these records that begins at `start`.
fn behind(start: u64, bytes: u64) -> u64 {
    if bytes == 0 { start } else { sector_end(start + record_bytes(0) as u64 + bytes) }
}

/// What a batch's records take up in a segment.
pub(super) fn records_bytes(batch: &Batch) -> u64 {
    let others = usize::from(batch.hard_state.is_some()) + usize::from(batch.splice != Splice::Append);
    let entries = batch.entries.iter().map(|entry| record_bytes(entry.payload.len()) as u64);
    (others * record_bytes(0)) as u64 + entries.sum::<u64>()
}
