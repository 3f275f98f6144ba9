//! The edges of the world as traits. The core is written against these; the shell hands in
//! [`os`] and the tests and the simulator hand in [`sim`]. Monomorphised: nothing here is `dyn`.
//!
//! A disk here promises what POSIX promises and no more: a write may be in any state (whole, absent, torn
//! at any byte) until a `sync_data` *of that file* has returned Ok; a new name, a rename or a removal may
//! be undone by a power cut until `sync_dir` has returned Ok; a file's length may run ahead of or behind
//! its bytes. After a failed sync nothing is known about any byte written since the last good one.

#[allow(unsafe_code)] // the mapping: the one place where memory is not what Rust thinks it is
pub mod mmap;
pub mod os;
pub mod process;
pub mod sim;

use std::io::Result;
use std::ops::Deref;
use std::path::Path;

use crate::base::Mono;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A file that must not exist yet, for reading and writing; mode 0600, never through a symbolic link.
    Create,
}

/// Files by name. Cheap to clone: every helper thread owns one.
pub trait Disk: Clone + Send + 'static {
    type File: File;
    type Pages: Pages;

    fn open(&self, path: &Path, how: Open) -> Result<Self::File>;

    /// A view of the file's bytes for reading, reserved large so that it stays put while the file grows.
    /// `len_bytes` is how much of the file may be read now.
    fn map(&self, file: &Self::File, len_bytes: u64) -> Result<Self::Pages>;

    fn exists(&self, path: &Path) -> Result<bool>;
    /// Names (not paths) of the files in `dir`, sorted. A missing directory is an error.
    fn list(&self, dir: &Path) -> Result<Vec<String>>;
    /// Makes the directory and its missing parents, mode 0700, and syncs the directories that they stand in:
    /// they are durable when this returns. An existing one is left as it is.
    fn create_dir_all(&self, dir: &Path) -> Result<()>;
    /// Replaces `to` if it exists. Durable only after `sync_dir` of the directory (of both, if they differ).
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    fn remove(&self, path: &Path) -> Result<()>;
    fn sync_dir(&self, dir: &Path) -> Result<()>;
    /// Takes the exclusive lock file of a data directory, held until the guard (or the process) ends.
    /// An error of kind `WouldBlock` means that another process holds it.
    fn lock(&self, path: &Path) -> Result<Box<dyn std::any::Any + Send>>;
    /// Bytes that can still be written to the file system of `dir`.
    fn free_bytes(&self, dir: &Path) -> Result<u64>;
}

/// One open file. Cheap to clone; all clones are the same open file.
pub trait File: Clone + Send + Sync + 'static {
    fn len_bytes(&self) -> Result<u64>;
    /// Reads until `buf` is full or the file ends; how many bytes were read.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize>;
    /// Writes all of `bytes`, extending the file where needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// fdatasync: the bytes written before, and the length needed to read them, are durable when this
    /// returns Ok. After an error it must not be called again: see the module's text.
    fn sync_data(&self) -> Result<()>;
    /// Forgets what the page cache holds of `offset..offset + len_bytes`, bytes that wait to be written left out:
    /// the next read asks the disk. After a sync that failed, cache and disk differ, and only the disk tells the
    /// truth. (posix_fadvise, which is advice: a page that somebody else holds at this moment may stay.)
    fn drop_cache(&self, offset: u64, len_bytes: u64) -> Result<()>;
    /// Cuts the file or extends it by a hole of zeroes.
    fn set_len(&self, len_bytes: u64) -> Result<()>;
    /// Makes room for `offset..offset + len_bytes` on disk ahead of writing (fallocate); the file's length
    /// covers it afterwards. Bytes that exist are kept; what is new reads as zeroes.
    fn allocate(&self, offset: u64, len_bytes: u64) -> Result<()>;
}

/// Lends bytes of a file for reading. The lent bytes are untrusted: they come from a disk.
pub trait Pages: 'static {
    type Page<'a>: Deref<Target = [u8]>
    where
        Self: 'a;

    /// `offset..offset + len` of the file, or None where that ends beyond the readable length.
    fn bytes(&self, offset: u64, len: usize) -> Option<Self::Page<'_>>;

    /// From now on the first `len_bytes` of the file may be read (more or fewer than before). Bytes lent
    /// earlier stay valid as memory, but after a shrink they must not be looked at: the caller sees to that.
    fn set_len(&mut self, len_bytes: u64) -> Result<()>;
}

/// The two clocks of a machine.
pub trait Clock {
    /// CLOCK_BOOTTIME: for leases, elections and every timeout.
    fn now(&self) -> Mono;
    /// Milliseconds since 1970 by the wall clock: for log lines only.
    fn wall_ms(&self) -> u64;
}

/// Where seeds come from.
pub trait Entropy {
    fn seed(&mut self) -> u64;
}
