//! Room given back to the file system while the member runs.
//!
//! What is swept or deleted leaves free pages all over the tree file. The tree can move pages from the end of the file
//! into them, and checkpoints cut the end off once no slot leads to it. Here it is seen to that this happens by itself:
//! as long as a quarter of the file is free, a few pages move with each turn, and checkpoints follow each other until
//! the file is short, also where nothing else asks for them.
//!
//! `DEFRAG` has the same done at once and is answered when it is over. Each turn does as little as otherwise.
//!
//! ```text
//!   settling: checkpoints, until no slot leads to what was let go   (DEFRAG alone)
//!   moving:   pages from the end of the file, some with each turn
//!   cutting:  checkpoints, until the file is short                  (DEFRAG alone)
//! ```

use super::{CHECKPOINT_AFTER, Node};
use crate::api::{Body, ConnId, Fault, Tag};
use crate::base::planted;
use crate::base::time::{MS, Nanos, SECOND};
use crate::base::{Mono, Result};
use crate::io::Disk;

/// Pages that move in one turn: a fraction of a millisecond where they are cached.
const PAGES_PER_TURN: usize = 16;

/// Pages that move between two checkpoints, if nobody is in a hurry.
const PAGES_PER_CHECKPOINT: usize = 512;

/// And how long after one turn the next one moves pages: as with sweeps, nobody waits for it who would not rather have his
/// write done.
const MOVE_PAUSE: Nanos = MS;

/// And how long after one checkpoint the next one is due.
const CHECKPOINT_EVERY: Nanos = SECOND;

/// What was let go hangs on both slots; and the end of the file, once free, is cut by the checkpoint after.
const SETTLING: u8 = 2;
const CUTTING: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Still,
    Settling { checkpoints: u8 },
    Moving { pages: usize },
    Cutting { checkpoints: u8 },
}

#[derive(Debug)]
pub(super) struct Room {
    stage: Stage,
    /// No turn moves pages before this.
    move_at: Mono,
    /// Who asked for it.
    waiting: Vec<(ConnId, Tag)>,
}

impl Room {
    pub(super) fn new() -> Room {
        Room { stage: Stage::Still, move_at: Mono(0), waiting: Vec::new() }
    }

    pub(super) fn forget(&mut self, conn: ConnId) {
        self.waiting.retain(|(other, _)| *other != conn);
    }

    pub(super) fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl<D: Disk> Node<D> {
    /// Somebody wants it done now. Whoever asks while it is under way is answered with the others.
    pub(super) fn defragment(&mut self, conn: ConnId, tag: Tag) {
        self.room.waiting.push((conn, tag));
    }

    /// When a turn is to move pages.
    pub(super) fn move_deadline(&self) -> Mono {
        let moves = matches!(self.room.stage, Stage::Moving { .. })
            && !self.snapshots.installing()
            && !self.waits_for_checkpoint();
        if moves { self.room.move_at } else { Mono::NEVER }
    }

    /// The part of this turn.
    pub(super) fn give_back_room(&mut self) -> Result<()> {
        let in_a_hurry = self.room.is_awaited();
        if in_a_hurry && !self.store.sweep_due() && matches!(self.room.stage, Stage::Still) {
            self.room.stage = Stage::Settling { checkpoints: SETTLING };
        }
        if let Stage::Moving { pages } = self.room.stage
            && self.now >= self.move_deadline()
        {
            self.room.move_at = self.now + MOVE_PAUSE;
            let moved = self.store.move_tail(pages.min(PAGES_PER_TURN))?;
            let left = pages.saturating_sub(moved);
            self.room.stage = match (moved == 0 || left == 0, in_a_hurry) {
                (false, _) => Stage::Moving { pages: left },
                (true, true) => Stage::Cutting { checkpoints: CUTTING },
                (true, false) => Stage::Still,
            };
            if moved > 0 {
                self.checkpoint_in(CHECKPOINT_EVERY);
            }
        }
        if matches!(self.room.stage, Stage::Settling { .. } | Stage::Cutting { .. }) {
            self.checkpoint_in(0);
        }
        Ok(())
    }

    fn checkpoint_in(&mut self, delay: Nanos) {
        self.checkpoint_due = self.checkpoint_due.min(self.now + delay);
    }

    /// Something has changed without an entry: that is made durable in time.
    pub(super) fn checkpoint_some_time(&mut self) {
        if self.checkpoint_due == Mono::NEVER {
            self.checkpoint_in(CHECKPOINT_AFTER);
        }
    }

    /// A checkpoint is durable; or there was nothing to write for one.
    pub(super) fn checkpoint_over(&mut self, written: bool) {
        let next = |checkpoints: u8| if written { checkpoints - 1 } else { 0 };
        self.room.stage = match self.room.stage {
            Stage::Settling { checkpoints } => match next(checkpoints) {
                0 => Stage::Moving { pages: self.store.stats().used_pages as usize },
                checkpoints => Stage::Settling { checkpoints },
            },
            Stage::Cutting { checkpoints } => match next(checkpoints) {
                last if last == 0 || planted::on("node-defrag-is-answered-before-the-cut") => {
                    for (conn, tag) in std::mem::take(&mut self.room.waiting) {
                        self.reply(conn, tag, Body::Defragmented);
                    }
                    Stage::Still
                }
                checkpoints => Stage::Cutting { checkpoints },
            },
            Stage::Still
                if written && self.store.is_loose() && !planted::on("node-room-is-never-given-back") =>
            {
                Stage::Moving { pages: PAGES_PER_CHECKPOINT }
            }
            stage => stage,
        };
        if written && self.store.owes_space() {
            self.checkpoint_in(CHECKPOINT_EVERY);
        }
    }

    /// The end comes first.
    pub(super) fn dismiss_defragmenters(&mut self) {
        for (conn, tag) in std::mem::take(&mut self.room.waiting) {
            self.fail(conn, tag, Fault::shutdown());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::lock_tests::Cluster;
    use super::super::{MS, SECOND};
    use super::*;
    use crate::api::{Compact, Put, Request};

    /// Of what is left in use, about; much more was written and swept.
    const SHORT_BYTES: u64 = 1 << 20;

    /// A member of whose history most has been swept, and whose file still has the room of it.
    fn loose() -> Cluster {
        let mut cluster = Cluster::alone();
        for n in 0..300 {
            let (key, value) = (Bytes::from(format!("key/{}", n % 3)), Bytes::from(vec![b'x'; 20_000]));
            cluster.ask(Request::Put(Put { key, value, ..Put::default() }));
        }
        cluster.wait(10 * SECOND);
        assert!(file_bytes(&mut cluster) > 5 * SHORT_BYTES);
        let revision = cluster.revision();
        let compacted = cluster.send(Request::Compact(Compact { revision, physical: true }));
        while cluster.answer(compacted).is_none() {
            cluster.wait(MS);
        }
        assert!(file_bytes(&mut cluster) > 2 * SHORT_BYTES, "there is something to give back");
        cluster
    }

    fn file_bytes(cluster: &mut Cluster) -> u64 {
        cluster.node(1).status().db_size
    }

    #[test]
    fn room_that_is_free_goes_back_by_itself() {
        let mut cluster = loose();
        cluster.wait(120 * SECOND);
        assert!(file_bytes(&mut cluster) < SHORT_BYTES);
    }

    #[test]
    fn who_asks_for_it_is_answered_when_the_file_is_short() {
        let mut cluster = loose();
        let asked = cluster.send(Request::Defrag);
        for _ in 0..10_000 {
            if let Some(answer) = cluster.answer(asked) {
                assert_eq!(answer, Body::Defragmented);
                assert!(file_bytes(&mut cluster) < SHORT_BYTES);
                return;
            }
            cluster.wait(MS);
        }
        panic!("nobody is answered");
    }
}
