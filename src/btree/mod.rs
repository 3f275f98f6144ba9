//! The copy-on-write B+tree file, read through a mapping.

use std::borrow::Cow;
use std::path::Path;

use crate::base::Result;
use crate::io::Disk;

/// One of the independent key spaces of a file, `0..ROOTS`.
pub type RootNo = usize;
/// How many key spaces one file holds.
pub const ROOTS: usize = 8;
/// The longest application record in a meta page.
pub const USER_BYTES_MAX: usize = 128;

/// Settings of a new file.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A power of two in `256..=65536`.
    pub page_bytes: usize,
    /// Random; mixed into every page checksum, so that a page of another file never passes.
    pub file_id: u64,
}

/// Which state a read sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The latest one.
    Now,
    /// A frozen one: see [`Tree::pin`].
    Pinned(u64),
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub checkpoint: u64,
    pub page_bytes: usize,
    pub file_bytes: u64,
    pub used_pages: u64,
    pub free_pages: u64,
    pub held_pages: u64,
    pub dirty_bytes: u64,
    pub pins: usize,
    pub depth: [u8; ROOTS],
}

pub struct Tree<D: Disk> {
    disk: D,
}

/// A value, borrowed from its page, or in a chain of overflow pages.
pub struct Value<'t, D: Disk> {
    tree: &'t Tree<D>,
}

impl<'t, D: Disk> Value<'t, D> {
    pub fn len(&self) -> usize {
        panic!("skeleton")
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The bytes, if they lie in one piece.
    pub fn as_slice(&self) -> Option<&[u8]> {
        panic!("skeleton")
    }
    /// Shows the bytes piece by piece, in order.
    pub fn for_each_chunk(&self, _visit: impl FnMut(&[u8])) -> Result<()> {
        panic!("skeleton")
    }
    pub fn append_to(&self, _out: &mut impl bytes::BufMut) -> Result<()> {
        panic!("skeleton")
    }
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        panic!("skeleton")
    }
}

/// A place in one root of one view. Moves return whether there is a cell there.
pub struct Cursor<'t, D: Disk> {
    tree: &'t Tree<D>,
}

impl<'t, D: Disk> Cursor<'t, D> {
    /// To the first cell with a key `>= key`.
    pub fn seek(&mut self, _key: &[u8]) -> Result<bool> {
        panic!("skeleton")
    }
    /// To the last cell with a key `< key`.
    pub fn seek_before(&mut self, _key: &[u8]) -> Result<bool> {
        panic!("skeleton")
    }
    pub fn first(&mut self) -> Result<bool> {
        panic!("skeleton")
    }
    pub fn last(&mut self) -> Result<bool> {
        panic!("skeleton")
    }
    pub fn next(&mut self) -> Result<bool> {
        panic!("skeleton")
    }
    pub fn prev(&mut self) -> Result<bool> {
        panic!("skeleton")
    }
    /// Whether the cursor is on a cell; `key`, `value` and `counted` may be asked only then.
    pub fn valid(&self) -> bool {
        panic!("skeleton")
    }
    /// The key; an owned copy only where it is longer than a page allows.
    pub fn key(&self) -> Result<Cow<'_, [u8]>> {
        panic!("skeleton")
    }
    pub fn value(&self) -> Value<'_, D> {
        panic!("skeleton")
    }
    pub fn counted(&self) -> bool {
        panic!("skeleton")
    }
}

/// The work of one checkpoint, for another thread.
pub struct Checkpoint<D: Disk> {
    file: D::File,
}

impl<D: Disk> Checkpoint<D> {
    /// Writes the pages, syncs, writes the meta page, syncs.
    pub fn run(self) -> Result<CheckpointDone> {
        panic!("skeleton")
    }
}

pub struct CheckpointDone {}

impl<D: Disk> Tree<D> {
    /// A new file, durable under its name when this returns.
    pub fn create(_disk: &D, _path: &Path, _options: Options, _user: &[u8]) -> Result<Tree<D>> {
        panic!("skeleton")
    }
    pub fn open(_disk: &D, _path: &Path) -> Result<Tree<D>> {
        panic!("skeleton")
    }
    /// What opening found worth telling: a meta page that had to be passed over.
    pub fn notes(&self) -> &[String] {
        panic!("skeleton")
    }
    /// The application's record, stored with the next checkpoint.
    pub fn user(&self) -> &[u8] {
        panic!("skeleton")
    }
    /// At most [`USER_BYTES_MAX`].
    pub fn set_user(&mut self, _user: &[u8]) {
        panic!("skeleton")
    }
    /// The record in the older of the two durable meta pages: what a restart falls back to if the newer is
    /// damaged. The log must be kept from there on.
    pub fn fallback_user(&self) -> &[u8] {
        panic!("skeleton")
    }
    pub fn get(&self, _view: View, _root: RootNo, _key: &[u8]) -> Result<Option<Value<'_, D>>> {
        panic!("skeleton")
    }
    /// Puts the concatenation of `value`; replaces what the key held.
    pub fn insert(&mut self, _root: RootNo, _key: &[u8], _value: &[&[u8]], _counted: bool) -> Result<()> {
        panic!("skeleton")
    }
    /// Whether there was such a key.
    pub fn remove(&mut self, _root: RootNo, _key: &[u8]) -> Result<bool> {
        panic!("skeleton")
    }
    /// Whether there is such a key.
    pub fn set_counted(&mut self, _root: RootNo, _key: &[u8], _counted: bool) -> Result<bool> {
        panic!("skeleton")
    }
    /// Counted cells in `from..to` (no `to`: up to the end), in time of the depth.
    pub fn count(&self, _view: View, _root: RootNo, _from: &[u8], _to: Option<&[u8]>) -> Result<u64> {
        panic!("skeleton")
    }
    pub fn cursor(&self, _view: View, _root: RootNo) -> Cursor<'_, D> {
        panic!("skeleton")
    }
    /// Freezes the present state; it stays readable until `unpin`.
    pub fn pin(&mut self) -> View {
        panic!("skeleton")
    }
    pub fn unpin(&mut self, _view: View) {
        panic!("skeleton")
    }
    /// Bytes of pages that the next checkpoint will write.
    pub fn dirty_bytes(&self) -> u64 {
        panic!("skeleton")
    }
    /// None if one is running or nothing has changed.
    pub fn begin_checkpoint(&mut self) -> Result<Option<Checkpoint<D>>> {
        panic!("skeleton")
    }
    /// The same work again, after `run` failed for want of room (and of nothing else).
    pub fn retry_checkpoint(&mut self) -> Checkpoint<D> {
        panic!("skeleton")
    }
    pub fn end_checkpoint(&mut self, _done: CheckpointDone) -> Result<()> {
        panic!("skeleton")
    }
    pub fn checkpoint_running(&self) -> bool {
        panic!("skeleton")
    }
    /// Moves up to `pages_max` pages from the end of the file into free room further down (`defrag`);
    /// how many were moved. The next checkpoints give the space back.
    pub fn move_tail(&mut self, _pages_max: usize) -> Result<usize> {
        panic!("skeleton")
    }
    pub fn stats(&self) -> Stats {
        panic!("skeleton")
    }
}

/// What [`check`] found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Empty if the file is sound.
    pub findings: Vec<String>,
    /// The newest valid checkpoint.
    pub checkpoint: u64,
    pub page_bytes: usize,
    pub page_count: u64,
    pub used_pages: u64,
    pub cells: [u64; ROOTS],
    pub counted: [u64; ROOTS],
}

/// Reads the whole file, both meta pages and everything that they reach, and changes nothing.
pub fn check<D: Disk>(_disk: &D, _path: &Path) -> Result<Report> {
    panic!("skeleton")
}
