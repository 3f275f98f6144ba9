//! Entries that were read back from disk, for a while.

use std::collections::VecDeque;

use crate::base::Index;
use crate::raft::Entry;

/// Payload bytes that are kept at most (and at least the newest run). Several times what one read-back brings, so
/// that a few members that lag at different places do not drive each other's entries out.
const FETCHED_BYTES_MAX: usize = 8 << 20;

/// Runs of neighbouring entries, the oldest reading first.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    runs: VecDeque<Vec<Entry>>,
    bytes: usize,
}

impl Fetched {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, index: Index) -> Option<&Entry> {
        self.runs.iter().find_map(|run| run.get(index.checked_sub(run[0].id.index)? as usize))
    }

    /// Adds entries that follow each other.
    pub(super) fn add(&mut self, run: Vec<Entry>) {
        if run.is_empty() {
            return;
        }
        self.bytes += payload_bytes(&run);
        self.runs.push_back(run);
        while self.bytes > FETCHED_BYTES_MAX && self.runs.len() > 1 {
            let oldest = self.runs.pop_front().expect("there are two");
            self.bytes -= payload_bytes(&oldest);
        }
    }

    /// Forgets entries behind `to`.
    pub(super) fn cut(&mut self, to: Index) {
        for run in &mut self.runs {
            run.truncate((to + 1).saturating_sub(run[0].id.index) as usize);
        }
        self.recount();
    }

    /// Forgets runs that end at or below `index`.
    pub(super) fn release(&mut self, index: Index) {
        self.runs.retain(|run| run[run.len() - 1].id.index > index);
        self.recount();
    }

    pub(super) fn clear(&mut self) {
        *self = Fetched::default();
    }

    fn recount(&mut self) {
        self.runs.retain(|run| !run.is_empty());
        self.bytes = self.runs.iter().map(|run| payload_bytes(run)).sum();
    }
}

fn payload_bytes(run: &[Entry]) -> usize {
    run.iter().map(|entry| entry.payload.len()).sum()
}
