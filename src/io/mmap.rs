//! A file's bytes as memory: one read-only shared mapping, reserved much larger than the file, so that it
//! stays put while the file grows. The only module with `unsafe`.
//!
//! What we rely on. Reserving address space costs nothing until a page is touched. A page that the file
//! covers can be touched; the kernel brings it from the page cache, where our own `pwrite`s land too, so a
//! reader sees them without any further step. A page behind the file's end cannot: that is SIGBUS.
//!
//! What becomes SIGBUS, and not an `Err`: an input error of the device while a page is brought in; the file
//! made shorter than the readable length (by us in the wrong order, or by somebody else); a file system out
//! of room for a hole (only for a writable mapping, which this is not). Such a signal ends the process, and
//! that is the wanted outcome: what it was about to answer is not to be had. The readable length is checked
//! against the file's own at every [`Pages::set_len`], and every access against the readable length, so a
//! damaged offset or length in a page yields None here and never a signal.
//!
//! The bytes are untrusted: checksums and bounds are the reader's work.

use std::io::{Error, ErrorKind, Result};

use memmap2::{MmapOptions, MmapRaw};

use super::os::OsFile;
use super::{File, Pages};

/// First wish for the reservation; far beyond any file of ours, far below the 128 TiB of address space.
const RESERVE_BYTES_MAX: u64 = 1 << 40;
/// Below this we do not go, unless the process may have no more (RLIMIT_AS) and the file is smaller.
const RESERVE_BYTES_MIN: u64 = 4 << 30;

/// The mapping. Bytes lent from it change when the file is written at their place: the tree writes only
/// where no reader may look.
#[derive(Debug)]
pub struct OsPages {
    map: MmapRaw,
    readable_bytes: usize,
    file: OsFile,
}

impl OsPages {
    /// Maps `file` for reading its first `len_bytes`.
    pub(super) fn new(file: &OsFile, len_bytes: u64) -> Result<OsPages> {
        let floor = RESERVE_BYTES_MIN.max(len_bytes);
        let mut reserve = RESERVE_BYTES_MAX.max(floor);
        let map = loop {
            let len = usize::try_from(reserve).map_err(|_| too_large(reserve))?;
            match MmapOptions::new().len(len).map_raw_read_only(file.std_file()) {
                Ok(map) => break map,
                Err(_) if reserve > floor => reserve = (reserve / 2).max(floor),
                Err(e) => return Err(e),
            }
        };
        let mut pages = OsPages { map, readable_bytes: 0, file: file.clone() };
        pages.set_len(len_bytes)?;
        Ok(pages)
    }
}

fn too_large(bytes: u64) -> Error {
    Error::new(ErrorKind::OutOfMemory, format!("cannot reserve {bytes} bytes of address space"))
}

impl Pages for OsPages {
    type Page<'a> = &'a [u8];

    fn bytes(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(len)?;
        if end > self.readable_bytes {
            return None;
        }
        // SAFETY: `start..end` lies inside the mapping (readable_bytes <= map.len(), held by set_len) and
        // inside the file as it was when set_len looked. The mapping lives as long as `self`, which the
        // returned lifetime borrows. Nobody writes through the mapping; the file's pages under a lent slice
        // are written by this process only after the tree has let go of them (see `btree`), and other
        // processes are kept out by the directory's lock. u8 has no invalid values and no alignment.
        Some(unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(start), len) })
    }

    /// InvalidInput where the file is shorter than `len_bytes`, OutOfMemory where the reservation is.
    fn set_len(&mut self, len_bytes: u64) -> Result<()> {
        let file_bytes = self.file.len_bytes()?;
        if len_bytes > file_bytes {
            let why = format!("cannot read {len_bytes} bytes of a file of {file_bytes}");
            return Err(Error::new(ErrorKind::InvalidInput, why));
        }
        let len = usize::try_from(len_bytes).map_err(|_| too_large(len_bytes))?;
        if len > self.map.len() {
            return Err(too_large(len_bytes));
        }
        self.readable_bytes = len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::os::OsDisk;
    use crate::io::{Disk, Open};

    #[test]
    fn a_mapping_shows_what_is_written_and_stays_put_while_the_file_grows() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsDisk.open(&dir.path().join("tree"), Open::Create).unwrap();
        let mut pages = OsDisk.map(&file, 0).unwrap();
        assert_eq!(pages.bytes(0, 1), None);
        file.write_at(0, &[7; 10_000]).unwrap();
        assert_eq!(pages.bytes(0, 1), None, "not readable before set_len");
        pages.set_len(10_000).unwrap();
        let before = pages.bytes(0, 10_000).unwrap().as_ptr();
        file.write_at(5_000, b"new").unwrap();
        assert_eq!(pages.bytes(5_000, 3).unwrap(), b"new");
        file.set_len(64 << 20).unwrap();
        pages.set_len(64 << 20).unwrap();
        assert_eq!(pages.bytes(0, 1).unwrap().as_ptr(), before);
        assert_eq!(pages.bytes((64 << 20) - 1, 1).unwrap(), [0]);
    }

    #[test]
    fn no_offset_or_length_reaches_beyond_the_readable_part() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsDisk.open(&dir.path().join("tree"), Open::Create).unwrap();
        file.set_len(8_192).unwrap();
        assert!(OsDisk.map(&file, 8_193).is_err(), "longer than the file");
        let mut pages = OsDisk.map(&file, 8_192).unwrap();
        assert_eq!(pages.bytes(8_192, 0).map(<[u8]>::len), Some(0));
        for (offset, len) in [(8_192, 1), (0, 8_193), (u64::MAX, 1), (1, usize::MAX), (u64::MAX, usize::MAX)]
        {
            assert_eq!(pages.bytes(offset, len), None, "{offset} + {len}");
        }
        pages.set_len(4_096).unwrap();
        assert_eq!(pages.bytes(4_096, 1), None);
        assert_eq!(pages.set_len(8_193).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(pages.bytes(0, 4_096).map(<[u8]>::len), Some(4_096), "a refused length changes nothing");
    }
}
