//! The copy-on-write B+tree file, read through a mapping.
//!
//! ```text
//!   insert, remove            begin_checkpoint         run (another thread)       end_checkpoint
//!        |                          |                          |                        |
//!   pages in memory  ------->  frozen, shared  -------->  file, sync, meta, sync  --> read by mapping
//!   (changed in place,         (never changed             (slots take turns)          (memory dropped)
//!    if nobody else sees them)  again)
//! ```
//!
//! What holds, always:
//!
//! 1. A page that a meta slot on disk, a running checkpoint or a pinned view reaches is never changed and its
//!    number never handed out: a change copies the page to a free number, and the path above it.
//! 2. A meta slot is written after everything that it reaches is durable, over the older of the two slots.
//!    So the file opens, at every instant, as the last checkpoint or as the one before it, and as nothing else.
//! 3. Every byte from the file is checked before it is believed: checksum (bound to file and place), page
//!    number, the checkpoint that the link expects, kind, level, and the bounds of every cell. Levels fall with
//!    each step, so every descent ends. What fails is [`Error::Corrupt`](crate::base::Error), with the offset.
//! 4. Changes are durable by the write-ahead log, not by this file: between checkpoints they live in memory.
//! 5. The map of used pages is part of the checkpoint that it describes. Opening reads that map, two slots and
//!    the roots: a bit per page, never the tree.
//!
//! Where to read on: `format` (bytes), `node` (slotted pages), `space` (who holds which page), `tree` (pages
//! by number), `write` and `cursor`, `checkpoint`, `shrink`, `check`. The format is section 5 of
//! `storage-format.md`; sentences T-1 to T-36 there are cited here.
//!
//! Left out, and the price:
//! - Keys are stored whole in leaves: no prefix compression. Neighbours with long common prefixes cost room.
//! - No second writer and no reader in another process: one owner, one lock on the directory.
//! - Pages that stay below a quarter because both neighbours are full are left alone; two neighbours together
//!   always fill most of a page.
//! - A chain is moved or replaced whole; a value of 64 MiB is 64 MiB of pages in memory until the checkpoint.
//! - A page is verified once per mapping; what changes under a mapping afterwards is not seen. An input error
//!   under the mapping is a signal, not an error (see `io::mmap`).
//! - Damage is named, not repaired: another member has the data.

mod bits;
mod chain;
mod check;
mod checkpoint;
mod cursor;
mod dump;
mod format;
mod map;
mod node;
mod read;
mod shrink;
mod slots;
mod space;
mod table;
#[cfg(test)]
mod tests;
mod tree;
mod write;

pub use check::{Report, check};
pub use checkpoint::{Checkpoint, CheckpointDone};
pub use cursor::Cursor;
pub use dump::dump;
pub use read::Value;
pub use tree::Tree;
pub use write::Spot;

/// One of the independent key spaces of a file, `0..ROOTS`.
pub type RootNo = usize;

/// How many key spaces a file has.
pub const ROOTS: usize = 8;

/// The longest record that the application can leave in a meta slot.
pub const USER_BYTES_MAX: usize = 128;

/// Settings of a new file; an existing one knows its own.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A power of two in `256..=65536`.
    pub page_bytes: usize,
    /// A random number: it is mixed into all checksums, so that a page of another file never passes.
    pub file_id: u64,
}

impl Options {
    /// Pages of the default size.
    pub fn new(file_id: u64) -> Options {
        Options { page_bytes: format::PAGE_BYTES_DEFAULT, file_id }
    }
}

/// Which state a read sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The present one.
    Now,
    /// A frozen one, from [`Tree::pin`].
    Pinned(u64),
}

/// Figures for metrics and logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The newest durable checkpoint.
    pub checkpoint: u64,
    pub page_bytes: usize,
    pub file_bytes: u64,
    /// Pages of the present state.
    pub used_pages: u64,
    pub free_pages: u64,
    /// Pages that only a pinned view or a checkpoint still reaches.
    pub held_pages: u64,
    pub dirty_bytes: u64,
    /// Distinct pinned states.
    pub pins: usize,
    /// Levels per root; 0 if it is empty.
    pub depth: [u8; ROOTS],
}
