//! Compactions: what they leave to be swept, and who waits for that.

use super::Node;
use super::writes::Asker;
use crate::api::{Body, ConnId, Fault, Tag};
use crate::base::time::{MS, Nanos};
use crate::base::{Mono, Result, Revision};
use crate::io::Disk;

/// Changes that are looked at in one turn, or pages that come free: a fraction of a millisecond.
pub const SWEEP_WORK_MAX: usize = 64;

/// Between two turns that sweep. Nobody waits for the room, and members that share a processor would take it from those
/// who wait for a write.
pub const SWEEP_PAUSE: Nanos = MS;

/// A client that wants to know when the room is free.
#[derive(Debug)]
pub(super) struct Sweeper {
    pub(super) conn: ConnId,
    tag: Tag,
    revision: Revision,
}

impl<D: Disk> Node<D> {
    /// A compaction that this member asked for is applied, and its answer waits for the sweep.
    pub(super) fn await_sweep(&mut self, request_id: u64, revision: Revision) {
        if let Some(write) = self.writes.take(request_id)
            && let Asker::Client { conn, tag } = write.asker
        {
            self.sweepers.push(Sweeper { conn, tag, revision });
        }
    }

    /// When a turn is to sweep. While changed pages may not become more, it waits for the checkpoint as entries do.
    pub(super) fn sweep_deadline(&self) -> Mono {
        let waits = self.snapshots.installing() || self.waits_for_checkpoint();
        if self.store.sweep_due() && !waits { self.sweep_at } else { Mono::NEVER }
    }

    /// The part of this turn.
    pub(super) fn sweep(&mut self) -> Result<()> {
        if self.now >= self.sweep_deadline() {
            self.store.sweep(self.config.sweep_work_max)?;
            self.sweep_at = self.now + SWEEP_PAUSE;
            self.checkpoint_some_time();
        }
        if !self.store.sweep_due() {
            for Sweeper { conn, tag, revision } in std::mem::take(&mut self.sweepers) {
                self.reply(conn, tag, Body::Compacted { revision });
            }
        }
        Ok(())
    }

    /// The end comes first. What was asked for has happened; when the room will be free is not known.
    pub(super) fn dismiss_sweepers(&mut self) {
        for Sweeper { conn, tag, .. } in std::mem::take(&mut self.sweepers) {
            self.fail(conn, tag, Fault::timeout());
        }
    }
}
