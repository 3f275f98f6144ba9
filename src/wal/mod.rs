//! The write-ahead log: segments on disk, one sync per group of batches.
//!
//! The bytes and the promises are in `storage-format.md`, sections 2 to 4; sentences there have numbers
//! (W-7), and the code cites them. In short:
//!
//! ```text
//!   loop's thread            log writer's thread          housekeeping thread
//!   Log                      LogWriter                    Chore
//!    append -> Batch  ------> write: encode, pwrite,       prepare a spare,
//!    written(..) <----------- fdatasync, seal -> Written   remove released segments,
//!    chores -> Chore  -----------------------------------> read old entries back
//!    chore_done(..) <-------------------------------------  -> ChoreDone
//! ```
//!
//! [`open`] makes the two halves. [`Log`] never touches a file: it knows which entries there are and where
//! their records lie. [`LogWriter`] owns the newest segment and knows nothing of older ones. They talk
//! through values that the shell carries between threads, so this module has no lock and starts no thread.
//!
//! Three ideas carry the design:
//!
//! 1. *A begin is a proof.* A group of records is written only after the group before it is durable, and starts with
//!    a `begin`. So whoever finds a begin knows that all bytes before it were durable once: if they are not
//!    right now, they were damaged, and that is never cut in silence. The begin of the next group is
//!    written ahead, as a *seal*, as soon as a sync returns; so even the last group has its proof.
//! 2. *A name is a proof.* A segment gets its name only when its header and first group are durable, and all of its
//!    predecessor is. So a torn tail exists in one place only: in the newest segment, behind its first group.
//! 3. *A record fits in one place.* Its checksum starts from cluster, member, segment sequence and offset, and it names
//!    the checksum of the record before it. Recycled segments need no cleaning: their old bytes do not parse.
//!
//! Recovery is a table of lettered cases (`recover`), the same as in the document; a test compares them.
//!
//! Left out: repair of single damaged entries (a damaged log is refused here, and the node sets all of it aside and gets
//! the entries from the other members); two copies of the hard state; compression and encryption; direct I/O (the tail is written again on opening
//! instead of being read from the medium); a footer index in full segments: opening reads and checks every segment
//! that has not been released, some tens of milliseconds for each 64 MiB.

mod check;
mod chore;
mod fetched;
mod format;
mod log;
mod recover;
mod replay;
mod room;
mod scan;
mod settle;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;

use crate::base::{ClusterId, EntryId, Error, Index, MemberId, Result};
use crate::io::{Disk, File};
use crate::raft::HardState;

pub use check::{Finding, Report, check};
pub use chore::{Chore, ChoreDone};
pub use log::Log;
pub use writer::{Batch, LogWriter, Written};

use format::{Name, SECTOR, SegmentHeader};
use recover::{SegmentFile, Survey, recover, survey};
use settle::settle;

/// Of a log that begins: nobody else's syncs wait for it yet.
const FIRST_ZEROES_BYTES: u64 = 4 << 20;

/// The default size of a segment.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// Whose log it is, and how it is cut up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A segment is left for the next when it has reached this size; a multiple of 512, at least 2048.
    /// May differ from opening to opening.
    pub segment_bytes: u64,
    pub cluster: ClusterId,
    pub member: MemberId,
    /// Random bits, from `io::Entropy`. Used when the log is created, kept in its segments from then on, and
    /// never told to anyone: clients must not be able to compose payloads that look like records (W-11).
    pub salt: u32,
}

/// A log that is ready for use.
pub struct Opened<D: Disk> {
    pub log: Log<D>,
    pub writer: LogWriter<D>,
    pub hard_state: HardState,
    /// What was cut or removed, in words for the operator.
    pub notes: Vec<String>,
}

/// Opens the log in `dir`, or creates it if there is none and `keep_after` is 0.
///
/// `keep_after` is the index up to which entries are applied in the tree, durably. Entries above it are kept in
/// memory for replay; a log that begins above it is refused, because entries are missing between the two. (So
/// after a snapshot was received: first the tree, durably, then [`Log::reset`].) A log that ends below it is
/// opened: that is a crash between those two steps, and [`Log::reset`] is due.
///
/// When this returns, everything in the log is durable, whatever it went through before.
///
/// # Errors
/// [`Error::Refused`]: another cluster, another member, a newer format, not a log, a lost log. [`Error::Corrupt`]:
/// acknowledged data is damaged or missing; no file has been changed. [`Error::Io`]: the disk failed.
pub fn open<D: Disk>(disk: &D, dir: &Path, options: Options, keep_after: Index) -> Result<Opened<D>> {
    check_options(&options);
    disk.create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    let mut survey = survey(disk, dir)?;
    let owner = (options.cluster, options.member);
    let recovered = loop {
        match recover(disk, dir, owner, &survey, keep_after)? {
            Some(recovered) if settle(disk, dir, &recovered)? => break recovered,
            Some(_) => {}
            None => {
                let (base, spare) = (EntryId::ZERO, survey.next_spare());
                let segment = create_first(disk, dir, options, base, HardState::default(), spare)?;
                survey.segments.push(segment);
            }
        }
    };
    for segment in &recovered.obsolete {
        chore::remove_segment(disk, dir, segment)?;
    }
    let spares = tidy_spares(disk, dir, &options, &survey)?;
    let hard_state = recovered.replay.hard_state;
    let notes = recovered.notes.clone();
    let next_spare = survey.next_spare() + 2;
    let writer = LogWriter::resume(disk.clone(), dir, options, &recovered, next_spare)?;
    let log = Log::new(disk.clone(), dir, options, recovered, spares, next_spare, keep_after);
    Ok(Opened { log, writer, hard_state, notes })
}

/// Creates a log that goes on behind `at`, in a directory that holds none: for members that start from a
/// snapshot.
pub fn create<D: Disk>(
    disk: &D,
    dir: &Path,
    options: Options,
    at: EntryId,
    hard_state: HardState,
) -> Result<()> {
    check_options(&options);
    disk.create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    let survey = survey(disk, dir)?;
    if !survey.segments.is_empty() {
        return Err(Error::Refused(format!("{} already holds a log", dir.display())));
    }
    create_first(disk, dir, options, at, hard_state, survey.next_spare())?;
    Ok(())
}

fn check_options(options: &Options) {
    assert!(options.segment_bytes >= 4 * SECTOR, "a segment has room for header, mark, a group and a seal");
    assert!(options.segment_bytes.is_multiple_of(SECTOR), "a segment is whole sectors");
}

/// The first segment gets its name as all others do: when it is durable.
fn create_first<D: Disk>(
    disk: &D,
    dir: &Path,
    options: Options,
    base: EntryId,
    hard_state: HardState,
    spare: u64,
) -> Result<SegmentFile> {
    let header = SegmentHeader {
        cluster: options.cluster,
        member: options.member,
        sequence: 1,
        base,
        hard_state,
        previous_chain: 0,
        opening: 0,
        salt: options.salt,
        synced_bytes: SECTOR,
    };
    let segment = SegmentFile { sequence: 1, first: base.index + 1 };
    let spare = dir.join(Name::Spare(spare).to_string());
    let path = segment.path(dir);
    let file = chore::fill(disk, &spare, options.segment_bytes, FIRST_ZEROES_BYTES)?;
    file.write_at(0, &header.encode().0).map_err(|e| Error::io("write", &spare, e))?;
    file.sync_data().map_err(|e| Error::io("sync", &spare, e))?;
    disk.rename(&spare, &path).map_err(|e| Error::io("name", &path, e))?;
    disk.sync_dir(dir).map_err(|e| Error::io("sync the directory", dir, e))?;
    Ok(segment)
}

/// Removes what a crash left half made, and spares that are too many or not of the right length (W-21);
/// those that stay.
fn tidy_spares<D: Disk>(disk: &D, dir: &Path, options: &Options, survey: &Survey) -> Result<Vec<u64>> {
    let mut kept = Vec::new();
    let remove = |path: &Path| disk.remove(path).map_err(|e| Error::io("remove", path, e));
    for &number in &survey.half_made {
        remove(&dir.join(Name::SpareNew(number).to_string()))?;
    }
    for &number in &survey.spares {
        let path = dir.join(Name::Spare(number).to_string());
        let file = disk.open(&path, crate::io::Open::Write).map_err(|e| Error::io("open", &path, e))?;
        // A sync of it may have failed in the process before: only what the disk holds counts.
        file.sync_data().map_err(|e| Error::io("sync", &path, e))?;
        file.drop_cache(0, options.segment_bytes).map_err(|e| Error::io("reread", &path, e))?;
        let file_bytes = file.len_bytes().map_err(|e| Error::io("measure", &path, e))?;
        if file_bytes == options.segment_bytes && kept.len() < chore::SPARES_MAX {
            kept.push(number);
        } else {
            remove(&path)?;
        }
    }
    Ok(kept)
}
