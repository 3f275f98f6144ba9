//! The operating system's form of the edges: files by system calls, the two clocks, the entropy pool.
//!
//! Every file is opened close-on-exec. Interrupted and short reads and writes are continued here, so that
//! no caller has to know about them; a write that makes no progress is an error, not a loop. `fdatasync`
//! alone is passed through untouched: whatever it answers, it is never called a second time on our account.

use std::any::Any;
use std::fs::{DirBuilder, File as StdFile};
use std::io::{Error, ErrorKind, Result};
use std::num::NonZeroU64;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::time::ClockId;

use super::mmap::OsPages;
use super::{Clock, Disk, Entropy, File, Open};
use crate::base::Mono;

/// Zeroes are written in pieces of this size where the file system cannot reserve space.
const ZERO_BYTES: usize = 64 * 1024;
static ZEROES: [u8; ZERO_BYTES] = [0; ZERO_BYTES];

/// A multiple of the pages of every machine that we know.
const CACHE_PAGE_BYTES: u64 = 64 * 1024;

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

/// A real file; clones share the one descriptor.
#[derive(Clone, Debug)]
pub struct OsFile {
    file: Arc<StdFile>,
}

impl OsFile {
    pub(super) fn std_file(&self) -> &StdFile {
        &self.file
    }
}

fn open_with(path: &Path, flags: OFlags) -> Result<StdFile> {
    let mode = Mode::RUSR | Mode::WUSR;
    loop {
        match rustix::fs::open(path, flags | OFlags::CLOEXEC, mode) {
            Ok(fd) => return Ok(StdFile::from(fd)),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

impl Disk for OsDisk {
    type File = OsFile;
    type Pages = OsPages;

    fn open(&self, path: &Path, how: Open) -> Result<OsFile> {
        let flags = match how {
            Open::Read => OFlags::RDONLY,
            Open::Write => OFlags::RDWR,
            Open::Create => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW,
        };
        Ok(OsFile { file: Arc::new(open_with(path, flags)?) })
    }

    fn map(&self, file: &OsFile, len_bytes: u64) -> Result<OsPages> {
        OsPages::new(file, len_bytes)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        path.try_exists()
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let mut missing = Vec::new();
        let mut next = Some(dir);
        while let Some(d) = next {
            if d.as_os_str().is_empty() || d.try_exists()? {
                break;
            }
            missing.push(d);
            next = d.parent();
        }
        for d in missing.into_iter().rev() {
            match DirBuilder::new().mode(0o700).create(d) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
            let parent = match d.parent() {
                Some(p) if !p.as_os_str().is_empty() => p,
                _ => Path::new("."),
            };
            self.sync_dir(parent)?;
        }
        if dir.is_dir() { Ok(()) } else { Err(Errno::NOTDIR.into()) }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        Ok(rustix::fs::rename(from, to)?)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        Ok(rustix::fs::unlink(path)?)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let dir = open_with(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(rustix::fs::fsync(&dir)?)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Any + Send>> {
        let file = open_with(path, OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Box::new(file)),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl File for OsFile {
    fn len_bytes(&self) -> Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        fill(buf, offset, |rest, at| rustix::io::pread(&*self.file, rest, at))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        drain(bytes, offset, |rest, at| rustix::io::pwrite(&*self.file, rest, at))
    }

    fn sync_data(&self) -> Result<()> {
        Ok(rustix::fs::fdatasync(&*self.file)?)
    }

    fn drop_cache(&self, offset: u64, len_bytes: u64) -> Result<()> {
        // Only pages that are covered whole are dropped.
        let start = offset - offset % CACHE_PAGE_BYTES;
        let end = offset.saturating_add(len_bytes).next_multiple_of(CACHE_PAGE_BYTES);
        Ok(rustix::fs::fadvise(&*self.file, start, NonZeroU64::new(end - start), Advice::DontNeed)?)
    }

    fn set_len(&self, len_bytes: u64) -> Result<()> {
        loop {
            match rustix::fs::ftruncate(&*self.file, len_bytes) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn allocate(&self, offset: u64, len_bytes: u64) -> Result<()> {
        loop {
            match rustix::fs::fallocate(&*self.file, FallocateFlags::empty(), offset, len_bytes) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return write_zeroes(self, offset, len_bytes),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// What `fallocate` does, for a file system that lacks it: only the part behind the file's end is written,
/// because bytes that exist must survive.
fn write_zeroes(file: &OsFile, offset: u64, len_bytes: u64) -> Result<()> {
    let end = offset.checked_add(len_bytes).ok_or_else(|| Error::from(Errno::FBIG))?;
    let mut at = offset.max(file.len_bytes()?);
    while at < end {
        let step = (end - at).min(ZERO_BYTES as u64);
        file.write_at(at, &ZEROES[..step as usize])?;
        at += step;
    }
    Ok(())
}

/// Repeats `read` until `buf` is full or it answers 0, the end of the file.
fn fill(
    buf: &mut [u8],
    offset: u64,
    mut read: impl FnMut(&mut [u8], u64) -> rustix::io::Result<usize>,
) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match read(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(done)
}

/// Repeats `write` until all of `bytes` are out. A file system that takes nothing and reports nothing
/// would hold us for ever: that is an error.
fn drain(
    bytes: &[u8],
    offset: u64,
    mut write: impl FnMut(&[u8], u64) -> rustix::io::Result<usize>,
) -> Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match write(&bytes[done..], offset + done as u64) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsClock;

impl Clock for OsClock {
    fn now(&self) -> Mono {
        let t = rustix::time::clock_gettime(ClockId::Boottime);
        // Boot time starts at zero and counts up: neither field is negative.
        Mono(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
    }

    fn wall_ms(&self) -> u64 {
        let t = rustix::time::clock_gettime(ClockId::Realtime);
        u64::try_from(t.tv_sec).unwrap_or(0) * 1_000 + t.tv_nsec as u64 / 1_000_000
    }
}

/// The kernel's random pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn seed(&mut self) -> u64 {
        let mut bytes = [0u8; 8];
        let mut done = 0;
        while done < bytes.len() {
            match rustix::rand::getrandom(&mut bytes[done..], rustix::rand::GetRandomFlags::empty()) {
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(e) => panic!("getrandom must work on every supported kernel, but said {e}"),
            }
        }
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    fn create(path: &Path) -> OsFile {
        OsDisk.open(path, Open::Create).expect("create")
    }

    #[test]
    fn what_is_written_is_read_and_reads_stop_at_the_end() {
        let d = dir();
        let f = create(&d.path().join("a"));
        f.write_at(3, b"hello").unwrap();
        f.sync_data().unwrap();
        let mut buf = [9u8; 16];
        assert_eq!(f.read_at(0, &mut buf).unwrap(), 8);
        assert_eq!(&buf[..8], b"\0\0\0hello");
        assert_eq!(f.read_at(8, &mut buf).unwrap(), 0);
        f.set_len(4).unwrap();
        assert_eq!(f.len_bytes().unwrap(), 4);
    }

    #[test]
    fn a_created_file_is_private_and_never_an_existing_or_linked_one() {
        let d = dir();
        let a = d.path().join("a");
        let f = create(&a);
        assert_eq!(f.std_file().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(OsDisk.open(&a, Open::Create).unwrap_err().kind(), ErrorKind::AlreadyExists);
        let link = d.path().join("link");
        symlink(d.path().join("elsewhere"), &link).unwrap();
        assert!(OsDisk.open(&link, Open::Create).is_err());
        assert!(!OsDisk.exists(&d.path().join("elsewhere")).unwrap());
        let missing = OsDisk.open(&d.path().join("none"), Open::Write).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn directories_are_private_and_listed_in_order() {
        let d = dir();
        let deep = d.path().join("x/y");
        OsDisk.create_dir_all(&deep).unwrap();
        OsDisk.create_dir_all(&deep).unwrap();
        assert_eq!(std::fs::metadata(&deep).unwrap().permissions().mode() & 0o777, 0o700);
        for name in ["b", "a", "c"] {
            create(&deep.join(name));
        }
        OsDisk.rename(&deep.join("c"), &deep.join("a")).unwrap();
        OsDisk.sync_dir(&deep).unwrap();
        assert_eq!(OsDisk.list(&deep).unwrap(), ["a", "b"]);
        OsDisk.remove(&deep.join("b")).unwrap();
        assert_eq!(OsDisk.list(&deep).unwrap(), ["a"]);
        assert_eq!(OsDisk.list(d.path()).unwrap(), [] as [&str; 0], "directories are not files");
        assert!(OsDisk.list(&d.path().join("none")).is_err());
        assert!(OsDisk.create_dir_all(&deep.join("a")).is_err(), "a file is in the way");
    }

    #[test]
    fn the_lock_is_exclusive_until_the_guard_goes() {
        let d = dir();
        let path = d.path().join("lock");
        let guard = OsDisk.lock(&path).unwrap();
        assert_eq!(OsDisk.lock(&path).err().map(|e| e.kind()), Some(ErrorKind::WouldBlock));
        drop(guard);
        OsDisk.lock(&path).unwrap();
    }

    #[test]
    fn reserved_space_reads_as_zeroes_and_keeps_what_was_there() {
        let d = dir();
        for (name, by_hand) in [("fallocate", false), ("zeroes", true)] {
            let f = create(&d.path().join(name));
            f.write_at(0, b"kept").unwrap();
            let size = 3 * ZERO_BYTES as u64 + 5;
            if by_hand { write_zeroes(&f, 2, size) } else { f.allocate(2, size) }.unwrap();
            assert_eq!(f.len_bytes().unwrap(), size + 2);
            let mut all = vec![1u8; size as usize + 2];
            assert_eq!(f.read_at(0, &mut all).unwrap(), all.len());
            assert_eq!(&all[..4], b"kept");
            assert!(all[4..].iter().all(|b| *b == 0));
        }
        assert!(OsDisk.free_bytes(d.path()).unwrap() > 0);
    }

    #[test]
    fn short_and_interrupted_calls_are_continued_and_no_progress_is_an_error() {
        let mut answers = [Err(Errno::INTR), Ok(2), Err(Errno::INTR), Ok(1), Ok(3)].into_iter();
        let mut seen = Vec::new();
        drain(b"abcdef", 10, |rest, at| {
            let answer = answers.next().unwrap();
            seen.push((rest.to_vec(), at));
            answer
        })
        .unwrap();
        assert_eq!(seen.last().unwrap(), &(b"def".to_vec(), 13));
        assert_eq!(drain(b"a", 0, |_, _| Ok(0)).unwrap_err().kind(), ErrorKind::WriteZero);
        assert_eq!(drain(b"a", 0, |_, _| Err(Errno::NOSPC)).unwrap_err().raw_os_error(), Some(28));
        let mut answers = [Ok(2), Err(Errno::INTR), Ok(0)].into_iter();
        assert_eq!(fill(&mut [0; 4], 0, |_, _| answers.next().unwrap()).unwrap(), 2);
    }

    #[test]
    fn the_clock_moves_forward_and_seeds_differ() {
        let earlier = OsClock.now();
        assert!(OsClock.now() >= earlier && earlier > Mono(0));
        assert!(OsClock.wall_ms() > 1_700_000_000_000);
        assert_ne!(OsEntropy.seed(), OsEntropy.seed());
    }
}
