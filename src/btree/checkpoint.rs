//! Checkpoints: the changes of a while, written behind the application's back.
//!
//! `begin` freezes the present state and hands out the work; `run` does it on another thread; `end` takes the
//! result in. Nothing is copied to freeze: the pages are shared, and what is changed afterwards is copied first.
//!
//! The order on disk (T-33): room, pages, sync, meta slot, sync. So a meta slot never leads to a page that is
//! not there. The slot is the one of the checkpoint before the last, so that the last stays whatever happens.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::base::planted;
use crate::base::{Error, Result};
use crate::io::{Disk, File};

use super::format::{
    Kind, Link, MAP_DATA_AT, META_BYTES, META_OFFSETS, Meta, PageNo, first_page, page_range, put_u64,
    seal_page, start_page,
};
use super::space::Who;
use super::tree::Tree;
use super::{Options, ROOTS};

/// So much is written between two syncs of one checkpoint, neighbouring pages in one piece. A sync of all at once would keep
/// the disk busy for tens of milliseconds, and the log's syncs wait in the same queue.
const SYNC_BYTES: usize = 256 << 10;

/// The file grows in steps of an eighth of its size, within these bounds, and shrinks when it is more than
/// a step too long.
const GROWTH_BYTES_MIN: u64 = 64 << 10;
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// What a checkpoint writes; the tree and the work share it.
#[derive(Debug)]
pub(super) struct Frozen {
    /// In rising order; the checksums are still to be put in.
    pub pages: Vec<(PageNo, Arc<[u8]>)>,
    pub meta: Meta,
    /// The file must be this long, and may be cut behind it when all is done.
    len_bytes: u64,
    sync_failed: AtomicBool,
    synced_pages: AtomicUsize,
}

/// The work of one checkpoint, for whichever thread may wait for the disk.
#[derive(Debug)]
pub struct Checkpoint<D: Disk> {
    frozen: Arc<Frozen>,
    file: D::File,
    path: PathBuf,
}

/// Proof that a checkpoint is durable, for [`Tree::end_checkpoint`].
#[derive(Debug)]
pub struct CheckpointDone {
    number: u64,
    file_bytes: u64,
    written_bytes: u64,
}

impl CheckpointDone {
    /// How much was written.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }
}

impl<D: Disk> Checkpoint<D> {
    /// Writes the pages, syncs, writes the meta slot, syncs. After an error the file still opens as the last
    /// checkpoint. An error for want of room may be followed by [`Tree::retry_checkpoint`]; any other is the end.
    /// `advanced` is called whenever [`Tree::checkpoint_share`] has grown.
    pub fn run(self, advanced: &dyn Fn()) -> Result<CheckpointDone> {
        let Checkpoint { frozen, file, path } = self;
        let meta = &frozen.meta;
        let writing = |e| Error::io("writing", &path, e);
        let sync = || {
            file.sync_data().map_err(|e| {
                frozen.sync_failed.store(true, Ordering::Relaxed);
                Error::io("syncing", &path, e)
            })
        };
        let sync_pages = || if planted::on("tree-meta-before-pages") { Ok(()) } else { sync() };
        let mut file_bytes = file.len_bytes().map_err(|e| Error::io("measuring", &path, e))?;
        if file_bytes < frozen.len_bytes {
            let wanted = with_growth(frozen.len_bytes, meta.page_bytes);
            file.allocate(file_bytes, wanted - file_bytes).map_err(|e| Error::io("growing", &path, e))?;
            file_bytes = wanted;
        }
        let mut buffer = Vec::new();
        let (mut written_pages, mut unsynced_bytes) = (0, 0);
        for run in runs(&frozen.pages, SYNC_BYTES / meta.page_bytes) {
            buffer.clear();
            for (no, bytes) in run {
                let start = buffer.len();
                buffer.extend_from_slice(bytes);
                seal_page(&mut buffer[start..], meta.file_id, *no);
            }
            file.write_at(page_range(run[0].0, meta.page_bytes).start, &buffer).map_err(writing)?;
            (written_pages, unsynced_bytes) = (written_pages + run.len(), unsynced_bytes + buffer.len());
            if unsynced_bytes >= SYNC_BYTES {
                sync_pages()?;
                unsynced_bytes = 0;
                frozen.synced_pages.store(written_pages, Ordering::Relaxed);
                advanced();
            }
        }
        sync_pages()?;
        file.write_at(META_OFFSETS[meta.slot()], &meta.encode()).map_err(writing)?;
        if !planted::on("tree-meta-not-synced") {
            sync()?;
        }
        // The end of the file that no meta slot and no view reaches; not worth an error, nor a sync.
        if let Some(wanted) = shorter(file_bytes, frozen.len_bytes, meta.page_bytes)
            && file.set_len(wanted).is_ok()
        {
            file_bytes = wanted;
        }
        let written_bytes = (frozen.pages.len() * meta.page_bytes + META_BYTES) as u64;
        Ok(CheckpointDone { number: meta.checkpoint, file_bytes, written_bytes })
    }
}

fn growth_step(len_bytes: u64) -> u64 {
    (len_bytes / 8).clamp(GROWTH_BYTES_MIN, GROWTH_BYTES_MAX)
}

/// Some room ahead, so that most checkpoints need not grow the file. Whole pages.
fn with_growth(len_bytes: u64, page_bytes: usize) -> u64 {
    (len_bytes + growth_step(len_bytes)).next_multiple_of((page_bytes as u64).max(GROWTH_BYTES_MIN))
}

/// What a file is cut to of which so much is in use; None if it is not worth it.
fn shorter(file_bytes: u64, used_bytes: u64, page_bytes: usize) -> Option<u64> {
    let wanted = with_growth(used_bytes, page_bytes);
    (file_bytes > wanted + growth_step(wanted)).then_some(wanted)
}

/// Cuts a rising list of pages into runs of neighbours, each at most `count_max` long.
fn runs(pages: &[(PageNo, Arc<[u8]>)], count_max: usize) -> impl Iterator<Item = &[(PageNo, Arc<[u8]>)]> {
    let mut rest = pages;
    std::iter::from_fn(move || {
        let first = rest.first()?.0 as usize;
        let neighbours = rest.iter().take(count_max.max(1)).enumerate();
        let count = neighbours.take_while(|(i, (no, _))| *no as usize == first + i).count();
        let (run, after) = rest.split_at(count);
        rest = after;
        Some(run)
    })
}

impl<D: Disk> Tree<D> {
    /// Freezes the present state for writing. None if a checkpoint is running already, or nothing has changed and there is
    /// no space to give back.
    pub fn begin_checkpoint(&mut self) -> Result<Option<Checkpoint<D>>> {
        if self.running.is_some() || (self.dirty_bytes() == 0 && self.is_unchanged() && !self.owes_space()) {
            return Ok(None);
        }
        let prepared = self.move_tail_a_little().and_then(|()| self.save_map());
        self.guard(prepared)?;
        if self.is_broken() {
            return Err(Error::Refused(format!("{}: a change has failed half-way", self.path().display())));
        }
        let meta = Meta {
            page_bytes: self.page_bytes(),
            file_id: self.file_id(),
            checkpoint: self.checkpoint_number(),
            page_count: self.space().page_count(),
            map_levels: self.map.level_count(),
            map_root: self.map.root(),
            roots: self.roots,
            user: self.user().to_vec(),
        };
        let (roots, number) = (self.roots, meta.checkpoint);
        let pages = self.take_newborn();
        self.space_mut().freeze(Who::Checkpoint { number }, roots);
        self.user_changed = false;
        let len_bytes = page_range(self.space().page_count(), self.page_bytes()).start;
        let frozen = Frozen {
            pages,
            meta,
            len_bytes,
            sync_failed: AtomicBool::new(false),
            synced_pages: AtomicUsize::new(0),
        };
        self.running = Some(Arc::new(frozen));
        Ok(Some(self.checkpoint_work()))
    }

    /// The file goes on so far behind its last page that it would be cut.
    pub(super) fn is_too_long(&self) -> bool {
        let used_bytes = page_range(self.space().page_count(), self.page_bytes()).start;
        shorter(self.stats().file_bytes, used_bytes, self.page_bytes()).is_some()
    }

    fn is_unchanged(&self) -> bool {
        !self.user_changed && !self.space().any_map_changed()
    }

    fn checkpoint_work(&self) -> Checkpoint<D> {
        let frozen = self.running.clone().expect("a checkpoint is running");
        Checkpoint { frozen, file: self.file().clone(), path: self.path().to_path_buf() }
    }

    /// Whether the running checkpoint, which failed for want of room, may be tried again.
    pub fn may_retry_checkpoint(&self) -> bool {
        self.running.as_ref().is_some_and(|frozen| !frozen.sync_failed.load(Ordering::Relaxed))
    }

    /// The same work once more, after [`Checkpoint::run`] failed for want of room. Not after a failed sync:
    /// nobody knows then what the disk holds of the pages that it said it had.
    pub fn retry_checkpoint(&mut self) -> Checkpoint<D> {
        let work = self.checkpoint_work();
        assert!(!work.frozen.sync_failed.load(Ordering::Relaxed), "a failed sync is never retried");
        work
    }

    pub fn checkpoint_running(&self) -> bool {
        self.running.is_some()
    }

    /// How much of the running checkpoint's pages is on disk, from 0 to 1; None if there is none.
    pub fn checkpoint_share(&self) -> Option<f64> {
        let frozen = self.running.as_ref()?;
        Some(frozen.synced_pages.load(Ordering::Relaxed) as f64 / frozen.pages.len().max(1) as f64)
    }

    /// Takes in a finished checkpoint: its pages are read from the file from now on, and what only the
    /// checkpoint before the last one could reach is free.
    pub fn end_checkpoint(&mut self, done: CheckpointDone) -> Result<()> {
        let frozen = self.running.take().expect("a checkpoint is running");
        assert_eq!(done.number, frozen.meta.checkpoint, "checkpoints end one at a time");
        self.drop_written(&frozen, done.file_bytes)?;
        self.user_made_durable(frozen.meta.user.clone());
        let freed = self.space_mut().checkpoint_durable(done.number);
        self.forget(&freed);
        Ok(())
    }
}

/// A file without cells: both meta slots (of checkpoints 0 and 1) and the one page of the free map (T-34).
pub(super) fn blank_file(options: Options, user: &[u8]) -> Vec<u8> {
    let Options { page_bytes, file_id, .. } = options;
    let map_page = first_page(page_bytes);
    let mut out = vec![0; (map_page as usize + 1) * page_bytes];
    for checkpoint in [0, 1] {
        let meta = Meta {
            page_bytes,
            file_id,
            checkpoint,
            page_count: map_page + 1,
            map_levels: 1,
            map_root: Link { page: map_page, born: 0 },
            roots: [Default::default(); ROOTS],
            user: user.to_vec(),
        };
        let at = META_OFFSETS[meta.slot()] as usize;
        out[at..at + META_BYTES].copy_from_slice(&meta.encode());
    }
    let page = &mut out[map_page as usize * page_bytes..];
    start_page(page, map_page, 0, Kind::Bits, 0, 0);
    put_u64(page, MAP_DATA_AT, 1 << map_page);
    seal_page(page, file_id, map_page);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_written_together() {
        let page: Arc<[u8]> = Arc::from(vec![0; 1]);
        let pages: Vec<_> = [3, 4, 5, 6, 9, 11, 12].map(|no| (no, page.clone())).into();
        let cut: Vec<Vec<u32>> = runs(&pages, 3).map(|run| run.iter().map(|p| p.0).collect()).collect();
        assert_eq!(cut, [vec![3, 4, 5], vec![6], vec![9], vec![11, 12]]);
    }

    #[test]
    fn files_grow_in_whole_pages_and_steps() {
        assert_eq!(with_growth(8192, 256), 128 << 10);
        assert_eq!(with_growth(1 << 30, 65536), (1 << 30) + (64 << 20));
        assert!(with_growth(80 << 20, 4096) >= 90 << 20);
    }
}
