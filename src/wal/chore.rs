//! Work that may take long and hurries nobody: done by the housekeeping thread, asked for and answered as values.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::base::{EntryId, Error, Result};
use crate::io::{Disk, File, Open};
use crate::raft::{Entry, EntryKind};
#[cfg(doc)]
use crate::wal::Log;
use crate::wal::Options;
use crate::wal::format::{
    Kind, Name, RECORD_HEADER_BYTES, check_payload, padded, parse_record, record_bytes, seed,
};
use crate::wal::recover::SegmentFile;
use crate::wal::writer::allocate_spare;

/// Spares that are kept at most.
pub(super) const SPARES_MAX: usize = 2;

/// Zeroes are written in pieces of this size, and each is synced before the next. 64 MiB of them on their way to the disk keep
/// the syncs of the log waiting, 0.12 s on the disk where that was measured; in pieces none waited for 20 ms. The file takes twice as long.
const ZEROES_BYTES: u64 = 256 << 10;

/// In how many pieces the blocks of a removed segment are given back. ext4 that is mounted with `discard` lets no sync of any
/// file through while it frees 64 MiB (0.05 s), and three members on one disk remove theirs together.
const REMOVAL_PIECES: u64 = 16;

/// One piece of work. See [`Log::chores`].
pub struct Chore<D: Disk> {
    pub(super) disk: D,
    pub(super) dir: PathBuf,
    pub(super) work: Work,
}

#[derive(Debug)]
pub(super) enum Work {
    /// Make a spare and fill it with zeroes: a sync is cheaper where blocks are written already.
    Prepare { number: u64, segment_bytes: u64 },
    /// Remove released segments, in this order.
    Release { segments: Vec<Released>, segment_bytes: u64 },
    /// Read entries back.
    Fetch { options: Options, salt: u32, wanted: Vec<Wanted> },
}

/// A segment that nobody needs.
#[derive(Debug)]
pub(super) struct Released {
    pub(super) segment: SegmentFile,
    /// Names the spare that it becomes, or the file in which it goes.
    pub(super) number: u64,
    pub(super) recycled: bool,
}

/// An entry to be read back, and where it must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) id: EntryId,
    pub(super) kind: EntryKind,
    pub(super) segment: (u64, u64), // sequence, first
    pub(super) offset: u64,
    pub(super) payload_bytes: u32,
}

/// The answer to a chore, for [`Log::chore_done`].
#[derive(Debug)]
pub struct ChoreDone {
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Prepared {
        number: u64,
        result: Result<()>,
    },
    /// How many were removed, which spares came of them, and what stopped it.
    Released {
        removed: usize,
        spares: Vec<u64>,
        result: Result<()>,
    },
    Fetched {
        first: EntryId,
        result: Result<Vec<Entry>>,
    },
}

impl<D: Disk> Chore<D> {
    /// Does the work. Errors travel in the answer, so that [`Log::chore_done`] sees them in every case.
    pub fn run(self) -> ChoreDone {
        let Chore { disk, dir, work } = self;
        let outcome = match work {
            Work::Prepare { number, segment_bytes } => {
                Outcome::Prepared { number, result: prepare(&disk, &dir, number, segment_bytes) }
            }
            Work::Release { segments, segment_bytes } => release(&disk, &dir, &segments, segment_bytes),
            Work::Fetch { options, salt, wanted } => Outcome::Fetched {
                first: wanted.first().map_or(EntryId::ZERO, |wanted| wanted.id),
                result: fetch(&disk, &dir, &options, salt, &wanted),
            },
        };
        ChoreDone { outcome }
    }
}

fn prepare<D: Disk>(disk: &D, dir: &Path, number: u64, segment_bytes: u64) -> Result<()> {
    let half_made = dir.join(Name::SpareNew(number).to_string());
    if let Err(failure) = fill(disk, &half_made, segment_bytes, ZEROES_BYTES) {
        // Most likely the disk is full: give back what was taken. What can not be removed now is at opening.
        let _ = disk.remove(&half_made);
        return Err(failure);
    }
    let path = dir.join(Name::Spare(number).to_string());
    disk.rename(&half_made, &path).map_err(|e| Error::io("name", &path, e))
}

/// Makes a file of zeroes, durable: a sync of bytes that replace written ones costs less than one of bytes that
/// go to blocks which were only allocated. So many bytes are on their way to the disk at once.
pub(super) fn fill<D: Disk>(
    disk: &D,
    path: &Path,
    segment_bytes: u64,
    unsynced_bytes_max: u64,
) -> Result<D::File> {
    let file = allocate_spare(disk, path, segment_bytes)?;
    let zeroes = vec![0; unsynced_bytes_max.min(segment_bytes) as usize];
    let mut at = 0;
    while at < segment_bytes {
        let piece = (segment_bytes - at).min(zeroes.len() as u64) as usize;
        file.write_at(at, &zeroes[..piece]).map_err(|e| Error::io("write", path, e))?;
        file.sync_data().map_err(|e| Error::io("sync", path, e))?;
        at += piece as u64;
    }
    Ok(file)
}

/// One after the other, the removal of each durable before the next (W-5): a crash leaves no gap, and a
/// spare is not written to while its old name could still come back.
fn release<D: Disk>(disk: &D, dir: &Path, segments: &[Released], segment_bytes: u64) -> Outcome {
    let (mut removed, mut spares, mut leaving) = (0, Vec::new(), Vec::new());
    let result = segments.iter().try_for_each(|released| {
        if take_away(disk, dir, released, segment_bytes)? {
            spares.push(released.number);
        } else {
            leaving.push(released.number);
        }
        removed += 1;
        Ok(())
    });
    let result = result.and_then(|()| leaving.iter().try_for_each(|&number| free(disk, dir, number)));
    Outcome::Released { removed, spares, result }
}

/// The segment is one no more. True if it became a spare; one that had grown does not.
fn take_away<D: Disk>(disk: &D, dir: &Path, released: &Released, segment_bytes: u64) -> Result<bool> {
    let Released { segment, number, recycled } = released;
    let path = segment.path(dir);
    let file = disk.open(&path, Open::Read).map_err(|e| Error::io("open", &path, e))?;
    let fits = file.len_bytes().map_err(|e| Error::io("measure", &path, e))? == segment_bytes;
    let is_spare = *recycled && fits;
    let name = if is_spare { Name::Spare(*number) } else { Name::SpareNew(*number) };
    disk.rename(&path, &dir.join(name.to_string())).map_err(|e| Error::io("release", &path, e))?;
    disk.sync_dir(dir).map_err(|e| Error::io("sync the directory", dir, e))?;
    Ok(is_spare)
}

/// Gives the blocks back piece by piece, and then the rest and the name. What a crash leaves of it goes at opening (W-21).
fn free<D: Disk>(disk: &D, dir: &Path, number: u64) -> Result<()> {
    let path = dir.join(Name::SpareNew(number).to_string());
    let file = disk.open(&path, Open::Write).map_err(|e| Error::io("open", &path, e))?;
    let len_bytes = file.len_bytes().map_err(|e| Error::io("measure", &path, e))?;
    for left in (1..REMOVAL_PIECES).rev() {
        file.set_len(len_bytes / REMOVAL_PIECES * left).map_err(|e| Error::io("shorten", &path, e))?;
        file.sync_data().map_err(|e| Error::io("sync", &path, e))?;
    }
    disk.remove(&path).map_err(|e| Error::io("remove", &path, e))
}

/// All at once: nobody waits for a sync while a log is opened.
pub(super) fn remove_segment<D: Disk>(disk: &D, dir: &Path, segment: &SegmentFile) -> Result<()> {
    let path = segment.path(dir);
    disk.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
    disk.sync_dir(dir).map_err(|e| Error::io("sync the directory", dir, e))
}

/// Neighbours in a segment are read with one call.
fn fetch<D: Disk>(
    disk: &D,
    dir: &Path,
    options: &Options,
    salt: u32,
    wanted: &[Wanted],
) -> Result<Vec<Entry>> {
    let mut entries = Vec::with_capacity(wanted.len());
    for run in wanted.chunk_by(|a, b| a.segment == b.segment && b.offset - end_of(a) <= 4096) {
        let (first, last) = (&run[0], &run[run.len() - 1]);
        let (sequence, first_index) = first.segment;
        let path = SegmentFile { sequence, first: first_index }.path(dir);
        let file = disk.open(&path, Open::Read).map_err(|e| Error::io("open", &path, e))?;
        let mut bytes = vec![0; (end_of(last) - first.offset) as usize];
        let read = file.read_at(first.offset, &mut bytes).map_err(|e| Error::io("read", &path, e))?;
        if read < bytes.len() {
            let (found, expected) = (format!("{read} bytes"), format!("{}", bytes.len()));
            return Err(Error::corrupt(&path, first.offset, format!("entry {}", first.id), found, expected));
        }
        let bytes = Bytes::from(bytes);
        let seed = seed(salt, options.cluster, options.member, sequence);
        for wanted in run {
            let at = (wanted.offset - first.offset) as usize;
            let record = bytes.slice(at..at + record_bytes(wanted.payload_bytes as usize));
            entries.push(take_entry(&path, seed, wanted, &record)?);
        }
    }
    Ok(entries)
}

fn end_of(wanted: &Wanted) -> u64 {
    wanted.offset + record_bytes(wanted.payload_bytes as usize) as u64
}

fn take_entry(path: &Path, seed: u32, wanted: &Wanted, record: &Bytes) -> Result<Entry> {
    let mut header = [0; RECORD_HEADER_BYTES];
    header.copy_from_slice(&record[..RECORD_HEADER_BYTES]);
    let damaged = |found: String, expected: String| {
        Error::corrupt(path, wanted.offset, format!("entry {}, read back", wanted.id), found, expected)
    };
    let header = parse_record(&header, seed, wanted.offset).map_err(|u| damaged(u.found, u.expected))?;
    if (header.kind, header.id, header.payload_bytes)
        != (Kind::Entry(wanted.kind), wanted.id, wanted.payload_bytes)
    {
        return Err(damaged(format!("{:?} {}", header.kind, header.id), format!("{:?}", wanted.kind)));
    }
    let end = RECORD_HEADER_BYTES + padded(wanted.payload_bytes as usize);
    check_payload(&header, seed, &record[RECORD_HEADER_BYTES..end])
        .map_err(|u| damaged(u.found, u.expected))?;
    let payload = record.slice(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + wanted.payload_bytes as usize);
    Ok(Entry { id: wanted.id, kind: wanted.kind, payload })
}
