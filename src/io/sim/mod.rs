//! A disk that breaks on command, and shows every state in which a power cut could leave it.
//!
//! ```text
//!   write, set_len, allocate            create, rename, remove
//!            |                                    |
//!      written bytes  <--- reads, maps      names as seen
//!      + pending pieces                     + pending changes
//!            |  sync_data of that file            |  sync_dir of that directory
//!      durable bytes                        durable names
//! ```
//!
//! Between the two lines lies what a power cut may take. Each pending piece survives or not by itself: the
//! bytes of a write (whole, in part, or as garbage), a change of size, a change of a directory. A
//! [`Point`] is the disk at one instant; [`Point::crash_images`] walks through the interesting subsets and
//! [`Point::kill_image`] is what a new process finds when only the old one died (the page cache lives on,
//! still without a promise: a later power cut may take it).
//!
//! How a test uses it: [`SimDisk::record`], run the code under test, note [`SimDisk::op_count`] whenever
//! something has been acknowledged, then open every image of every point of [`SimDisk::points`] and compare
//! it with what was acknowledged up to [`Point::op`]. Images share bytes with the disk, so thousands are cheap.
//!
//! Failures have Linux semantics. A failed `sync_data` marks the pending pieces clean: reads still show the
//! new bytes, the medium never gets them, and the next `sync_data` answers Ok. That next call is the bug
//! that [`SimDisk::syncs_after_failure`] counts. A failed write leaves half of its bytes. Reads are short
//! only at the end of the file. Looking behind the end of a file through a mapping panics, as SIGBUS would end
//! the real process.
//!
//! A disk that lies does it without an error ([`Mangle`]): a write that never arrives, or arrives elsewhere,
//! while reads show it from the page cache until the power goes.
//!
//! Left out: hard links, permissions, time of access; a rename across directories is atomic; lent pages are
//! frozen copies, so a reader that holds one too long does not see it change here; nothing is slow, because
//! calls are synchronous: the simulator delays their completions itself.

mod content;
mod crash;
mod fault;
mod state;
mod world;

use std::any::Any;
use std::collections::BTreeSet;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

pub use content::SimPage;
pub use crash::{Fate, Pending, PendingKind, Point, Profile, Survivors};
pub use fault::{Call, Damage, EIO, ENOSPC, EROFS, Fault, Mangle};
pub use world::{SimClock, SimEntropy};

use super::{Disk, File, Open, Pages};
use content::garbage;
use state::{DirChange, FileNo, State, parent};

const ENOENT: i32 = 2;
const EBADF: i32 = 9;
const EEXIST: i32 = 17;
const EFBIG: i32 = 27;

/// A file larger than this is a mistake of the code under test, not a wish.
const FILE_BYTES_MAX: u64 = 1 << 40;

/// A simulated disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    live: Arc<Mutex<Live>>,
}

/// An open file of a [`SimDisk`]; clones are the same open file.
#[derive(Clone, Debug)]
pub struct SimFile {
    live: Arc<Mutex<Live>>,
    no: FileNo,
    writable: bool,
}

/// A simulated mapping.
#[derive(Debug)]
pub struct SimPages {
    file: SimFile,
    readable_bytes: u64,
}

/// The state and the trouble around it.
#[derive(Debug, Default)]
struct Live {
    state: State,
    /// Operations begun that can change what is on the disk. Reads and opens do not count.
    op_count: u64,
    stop_at: Option<u64>,
    stopped: bool,
    faults: Vec<Fault>,
    mangles: Vec<Mangle>,
    capacity_bytes: Option<u64>,
    lying: Option<String>,
    points: Option<Vec<Point>>,
    locks: BTreeSet<PathBuf>,
    syncs_after_failure: u64,
}

impl Live {
    /// The gate that every call passes: crash point, recording, faults.
    fn begin(&mut self, call: Call, path: &Path) -> Result<()> {
        let changes = !matches!(call, Call::Open | Call::Read);
        if changes && !self.stopped {
            if self.stop_at == Some(self.op_count) {
                self.stopped = true;
            } else {
                if self.points.is_some() {
                    let point = self.point(Some((call, path.to_path_buf())));
                    self.points.get_or_insert_default().push(point);
                }
                self.op_count += 1;
            }
        }
        if self.stopped {
            return Err(Error::other("the simulated machine has stopped"));
        }
        match self.faults.iter_mut().find_map(|f| f.strike(call, path)) {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }

    fn point(&self, next: Option<(Call, PathBuf)>) -> Point {
        Point { op: self.op_count, next, state: self.state.clone() }
    }

    fn room_for(&self, no: FileNo, offset: u64, len_bytes: u64) -> Result<()> {
        match offset.checked_add(len_bytes) {
            Some(end) if end <= FILE_BYTES_MAX => {}
            _ => return Err(Error::from_raw_os_error(EFBIG)),
        }
        let Some(capacity) = self.capacity_bytes else { return Ok(()) };
        let more = self.state.files[no].written.missing_bytes(offset, len_bytes);
        if more > 0 && self.state.used_bytes() + more > capacity {
            return Err(Error::from_raw_os_error(ENOSPC));
        }
        Ok(())
    }

    fn file_no(&self, path: &Path) -> Result<FileNo> {
        self.state.names.get(path).copied().ok_or_else(|| Error::from_raw_os_error(ENOENT))
    }
}

impl SimDisk {
    /// An empty disk on which the directory "" exists; all others must be made.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    fn from_state(state: State) -> SimDisk {
        SimDisk { live: Arc::new(Mutex::new(Live { state, ..Live::default() })) }
    }

    /// Operations begun so far that can change the disk.
    pub fn op_count(&self) -> u64 {
        self.live.lock().op_count
    }

    /// Everything from operation `op` (as [`SimDisk::op_count`] counts) on fails, reads too, and leaves no trace.
    pub fn stop_at(&self, op: u64) {
        self.live.lock().stop_at = Some(op);
    }

    /// Keeps a [`Point`] before every operation from now on.
    pub fn record(&self) {
        self.live.lock().points = Some(Vec::new());
    }

    /// The recorded points, and the present as the last one. Recording ends.
    pub fn points(&self) -> Vec<Point> {
        let mut live = self.live.lock();
        let mut points = live.points.take().expect("points come after record()");
        points.push(live.point(None));
        points
    }

    /// The disk at this instant.
    pub fn point(&self) -> Point {
        self.live.lock().point(None)
    }

    pub fn fail(&self, fault: Fault) {
        self.live.lock().faults.push(fault);
    }

    /// A later write does not do what it says.
    pub fn mangle(&self, mangle: Mangle) {
        self.live.lock().mangles.push(mangle);
    }

    /// Whether a later write will be mangled.
    pub fn is_to_be_mangled(&self) -> bool {
        self.live.lock().mangles.iter().any(Mangle::is_due)
    }

    /// The process that used the disk is dead: its files are closed and its locks are free. The page cache lives
    /// on, and so do faults. Open files of the dead process must not be used again.
    pub fn end_process(&self) {
        let mut live = self.live.lock();
        live.locks.clear();
        (live.stop_at, live.stopped) = (None, false);
        for no in 0..live.state.files.len() {
            if live.state.files[no].sync_failed {
                live.state.file_mut(no).sync_failed = false;
            }
        }
    }

    /// All calls since that instant have never been made: the process ended there, as [`SimDisk::end_process`].
    pub fn rewind(&self, point: &Point) {
        self.end_process();
        self.live.lock().state = point.state.clone();
    }

    /// The power goes, as [`SimDisk::end_process`], and `survivors` of [`SimDisk::point`] are what the disk
    /// comes back with.
    pub fn cut_power(&self, survivors: &Survivors) {
        let image = self.point().image(survivors);
        let state = std::mem::take(&mut image.live.lock().state);
        self.end_process();
        self.live.lock().state = state;
    }

    /// No more faults, no limit of space, no lies.
    pub fn heal(&self) {
        let mut live = self.live.lock();
        live.faults.clear();
        live.mangles.clear();
        live.capacity_bytes = None;
        live.lying = None;
    }

    /// Room for the bytes of all files, in chunks of 4096; None takes the limit away.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.live.lock().capacity_bytes = capacity_bytes;
    }

    /// Syncs of files whose path contains `name` answer Ok and do nothing.
    pub fn lie_about_syncs(&self, name: &str) {
        self.live.lock().lying = Some(name.to_string());
    }

    /// How often a file was synced again after a sync of it had failed. Must stay 0.
    pub fn syncs_after_failure(&self) -> u64 {
        self.live.lock().syncs_after_failure
    }

    /// The page cache drops what it believes to be clean: after a failed sync the old bytes come back.
    pub fn evict_clean(&self) {
        let mut live = self.live.lock();
        for no in 0..live.state.files.len() {
            let file = live.state.file_mut(no);
            if file.pending.is_empty() {
                file.written = file.durable.clone();
            }
        }
    }

    /// Damages a file at rest. Bytes behind the file's end are not touched.
    pub fn damage(&self, path: &Path, offset: u64, damage: Damage) -> Result<()> {
        let mut live = self.live.lock();
        let no = live.file_no(path)?;
        let file = live.state.file_mut(no);
        for content in [&mut file.written, &mut file.durable] {
            let room = content.len_bytes().saturating_sub(offset) as usize;
            let mut bytes = match damage {
                Damage::Flip { bit } => {
                    let mut byte = [0];
                    content.read(offset, &mut byte);
                    vec![byte[0] ^ (1 << bit)]
                }
                Damage::Zero { len } => vec![0; len],
                Damage::Garbage { len, seed } => garbage(seed, len),
                Damage::Copy { from, len } => {
                    let mut bytes = vec![0; len];
                    content.read(from, &mut bytes);
                    bytes
                }
            };
            bytes.truncate(room);
            content.write(offset, &bytes);
        }
        Ok(())
    }

    /// The whole file as reads see it.
    pub fn bytes(&self, path: &Path) -> Result<Vec<u8>> {
        let live = self.live.lock();
        let content = &live.state.files[live.file_no(path)?].written;
        let mut bytes = vec![0; content.len_bytes() as usize];
        content.read(0, &mut bytes);
        Ok(bytes)
    }

    /// Puts a file there, durable with its name and its directories; it replaces one of that name.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut live = self.live.lock();
        let state = &mut live.state;
        add_dirs(state, &parent(path));
        let no = state.new_file(path);
        state.write(no, 0, bytes);
        state.sync(no);
        state.names.insert(path.to_path_buf(), no);
        state.durable_names.insert(path.to_path_buf(), no);
    }

    /// Every path on the disk with its length.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let live = self.live.lock();
        let len = |no: &FileNo| live.state.files[*no].written.len_bytes();
        live.state.names.iter().map(|(path, no)| (path.clone(), len(no))).collect()
    }

    fn known_dir(&self, live: &MutexGuard<'_, Live>, dir: &Path) -> Result<()> {
        if dir == Path::new("") || live.state.dirs.contains(dir) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, format!("no directory {}", dir.display())))
    }
}

fn add_dirs(state: &mut State, dir: &Path) {
    state.dirs.extend(dir.ancestors().map(Path::to_path_buf));
}

impl Disk for SimDisk {
    type File = SimFile;
    type Pages = SimPages;

    fn open(&self, path: &Path, how: Open) -> Result<SimFile> {
        let mut live = self.live.lock();
        let no = if how == Open::Create {
            live.begin(Call::Create, path)?;
            self.known_dir(&live, &parent(path))?;
            if live.state.names.contains_key(path) || live.state.dirs.contains(path) {
                return Err(Error::from_raw_os_error(EEXIST));
            }
            let file = live.state.new_file(path);
            live.state.change_dir(DirChange::Create { path: path.to_path_buf(), file });
            file
        } else {
            live.begin(Call::Open, path)?;
            live.file_no(path)?
        };
        Ok(SimFile { live: self.live.clone(), no, writable: how != Open::Read })
    }

    fn map(&self, file: &SimFile, len_bytes: u64) -> Result<SimPages> {
        let mut pages = SimPages { file: file.clone(), readable_bytes: 0 };
        pages.set_len(len_bytes)?;
        Ok(pages)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let mut live = self.live.lock();
        live.begin(Call::Open, path)?;
        Ok(live.state.names.contains_key(path) || self.known_dir(&live, path).is_ok())
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let mut live = self.live.lock();
        live.begin(Call::Open, dir)?;
        self.known_dir(&live, dir)?;
        let names = live.state.names.keys().filter(|path| parent(path) == dir);
        let mut names: Vec<String> =
            names.filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned())).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let mut live = self.live.lock();
        live.begin(Call::Create, dir)?;
        if dir.ancestors().any(|d| live.state.names.contains_key(d)) {
            return Err(Error::from_raw_os_error(EEXIST));
        }
        add_dirs(&mut live.state, dir);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut live = self.live.lock();
        live.begin(Call::Rename, from)?;
        self.known_dir(&live, &parent(to))?;
        let file = live.file_no(from)?;
        live.state.change_dir(DirChange::Rename { from: from.to_path_buf(), to: to.to_path_buf(), file });
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut live = self.live.lock();
        live.begin(Call::Remove, path)?;
        live.file_no(path)?;
        live.state.change_dir(DirChange::Remove { path: path.to_path_buf() });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let mut live = self.live.lock();
        live.begin(Call::SyncDir, dir)?;
        self.known_dir(&live, dir)?;
        live.state.sync_dir(dir);
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Any + Send>> {
        let mut live = self.live.lock();
        live.begin(Call::Open, path)?;
        self.known_dir(&live, &parent(path))?;
        if !live.locks.insert(path.to_path_buf()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        if !live.state.names.contains_key(path) {
            let file = live.state.new_file(path);
            live.state.change_dir(DirChange::Create { path: path.to_path_buf(), file });
        }
        Ok(Box::new(Lock { live: self.live.clone(), path: path.to_path_buf() }))
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        let live = self.live.lock();
        self.known_dir(&live, dir)?;
        Ok(live.capacity_bytes.unwrap_or(1 << 40).saturating_sub(live.state.used_bytes()))
    }
}

struct Lock {
    live: Arc<Mutex<Live>>,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.live.lock().locks.remove(&self.path);
    }
}

impl SimFile {
    fn begin(&self, call: Call) -> Result<MutexGuard<'_, Live>> {
        let mut live = self.live.lock();
        let path = live.state.files[self.no].path.clone();
        live.begin(call, &path)?;
        if !self.writable && call != Call::Read && call != Call::Sync {
            return Err(Error::from_raw_os_error(EBADF));
        }
        Ok(live)
    }
}

impl File for SimFile {
    fn len_bytes(&self) -> Result<u64> {
        Ok(self.live.lock().state.files[self.no].written.len_bytes())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let live = self.begin(Call::Read)?;
        Ok(live.state.files[self.no].written.read(offset, buf))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut live = match self.begin(Call::Write) {
            Ok(live) => live,
            Err(e) => {
                let mut live = self.live.lock();
                if self.writable
                    && !live.stopped
                    && live.room_for(self.no, offset, bytes.len() as u64).is_ok()
                {
                    live.state.write(self.no, offset, &bytes[..bytes.len() / 2]);
                }
                return Err(e);
            }
        };
        live.room_for(self.no, offset, bytes.len() as u64)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let path = live.state.files[self.no].path.clone();
        let mangled = live.mangles.iter_mut().find_map(|mangle| mangle.strike(&path));
        match mangled {
            None => live.state.write(self.no, offset, bytes),
            Some(elsewhere) => live.state.write_astray(self.no, offset, bytes, elsewhere),
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        match self.begin(Call::Sync) {
            Ok(mut live) => {
                let file = &live.state.files[self.no];
                let lies = live.lying.as_ref().is_some_and(|name| file.path.to_string_lossy().contains(name));
                live.syncs_after_failure += u64::from(file.sync_failed);
                if !lies {
                    live.state.sync(self.no);
                }
                Ok(())
            }
            Err(e) => {
                let mut live = self.live.lock();
                if !live.stopped {
                    live.syncs_after_failure += u64::from(live.state.files[self.no].sync_failed);
                    let file = live.state.file_mut(self.no);
                    file.pending.clear();
                    file.sync_failed = true;
                }
                Err(e)
            }
        }
    }

    /// The whole file's: a cache may forget more than it is asked to.
    fn drop_cache(&self, _: u64, _: u64) -> Result<()> {
        let mut live = self.begin(Call::Read)?;
        live.state.file_mut(self.no).drop_cache();
        Ok(())
    }

    fn set_len(&self, len_bytes: u64) -> Result<()> {
        let mut live = self.begin(Call::SetLen)?;
        if len_bytes > FILE_BYTES_MAX {
            return Err(Error::from_raw_os_error(EFBIG));
        }
        live.state.set_len(self.no, len_bytes);
        Ok(())
    }

    fn allocate(&self, offset: u64, len_bytes: u64) -> Result<()> {
        let mut live = self.begin(Call::Allocate)?;
        live.room_for(self.no, offset, len_bytes)?;
        live.state.grow(self.no, offset + len_bytes);
        let file = live.state.file_mut(self.no);
        file.written.reserve(offset, len_bytes);
        file.durable.reserve(offset, len_bytes);
        Ok(())
    }
}

impl Pages for SimPages {
    type Page<'a> = SimPage;

    fn bytes(&self, offset: u64, len: usize) -> Option<SimPage> {
        let end = offset.checked_add(len as u64)?;
        if end > self.readable_bytes {
            return None;
        }
        let live = self.file.live.lock();
        let content = &live.state.files[self.file.no].written;
        // The rest of the last page reads as zeroes, as with a real mapping.
        let mapped = content.len_bytes().next_multiple_of(content::CHUNK_BYTES as u64);
        assert!(
            end <= mapped,
            "SIGBUS: {offset} + {len} looked at behind the end of a file of {} bytes",
            content.len_bytes()
        );
        Some(content.lend(offset, len))
    }

    fn set_len(&mut self, len_bytes: u64) -> Result<()> {
        let file_bytes = self.file.len_bytes()?;
        if len_bytes > file_bytes {
            let why = format!("cannot read {len_bytes} bytes of a file of {file_bytes}");
            return Err(Error::new(ErrorKind::InvalidInput, why));
        }
        self.readable_bytes = len_bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
