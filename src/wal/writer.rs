//! The log writer's half: encodes batches into one buffer, writes and syncs it. Owned by one thread, which
//! does nothing else; `storage-format.md`, section 4.4.

use std::path::{Path, PathBuf};

use crate::base::planted;
use crate::base::time::Nanos;
use crate::base::{EntryId, Error, Mono, Result};
use crate::io::{Disk, File, Open};
use crate::raft::{Entry, HardState};
use crate::wal::Options;
use crate::wal::format::{
    Kind, Name, NewRecord, SECTOR, SECTOR_BYTES, SegmentHeader, put_record, record_bytes, sector_end, seed,
};
use crate::wal::recover::{Recovered, SegmentFile};
use crate::wal::replay::Place;

/// Groups are cut at about this size, so that one sync never waits for more, and the buffer stays small.
const GROUP_BYTES_MAX: u64 = 16 << 20;

/// A buffer that grew beyond this for one large group is given back.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// One numbered piece of work from the loop: all of it, and all before it, is durable when it is answered.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(super) number: u64,
    pub(super) hard_state: Option<HardState>,
    pub(super) splice: Splice,
    pub(super) entries: Vec<Entry>,
    /// Spares that the writer may use from now on.
    pub(super) spares: Vec<u64>,
}

/// What happens to the end of the log before the entries of a batch go there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Splice {
    #[default]
    Append,
    /// This entry becomes the last.
    Cut(EntryId),
    /// This entry becomes base and last.
    Reset(EntryId),
}

impl Batch {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What this batch makes durable, for whoever checks what is claimed: term and vote, if they change,
    pub fn hard_state(&self) -> Option<HardState> {
        self.hard_state
    }

    /// the entry behind which its own begin, where others are replaced (and whether even that one comes from
    /// elsewhere, as part of a snapshot),
    pub fn behind(&self) -> Option<(EntryId, bool)> {
        match self.splice {
            Splice::Append => None,
            Splice::Cut(id) => Some((id, false)),
            Splice::Reset(id) => Some((id, true)),
        }
    }

    /// and its entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What the batch's records take up in a segment.
    fn record_bytes(&self) -> u64 {
        let others = usize::from(self.hard_state.is_some()) + usize::from(self.splice != Splice::Append);
        let entries = self.entries.iter().map(|entry| record_bytes(entry.payload.len()) as u64);
        (others * record_bytes(0)) as u64 + entries.sum::<u64>()
    }
}

/// The answer to [`LogWriter::write`]: what is durable now, and where it is.
#[derive(Debug, Default)]
pub struct Written {
    /// The greatest number among the batches.
    pub number: u64,
    /// Of all their entries, in order.
    pub(super) places: Vec<Place>,
    /// Segments that were begun.
    pub(super) begun: Vec<SegmentFile>,
    pub(super) spares_used: usize,
    /// How long each sync took, if the writer has a clock.
    pub sync_times: Vec<Nanos>,
    /// Bytes written for them.
    pub bytes: u64,
}

/// Appends to the newest segment, and begins new ones.
pub struct LogWriter<D: Disk> {
    disk: D,
    dir: PathBuf,
    options: Options,
    salt: u32,
    opening: u32,
    file: D::File,
    path: PathBuf,
    sequence: u64,
    seed: u32,
    /// Where the next group begins: a sector border.
    end: u64,
    /// Behind the last record, the seal left out.
    chain: u32,
    last: EntryId,
    hard_state: HardState,
    spares: Vec<u64>,
    /// Numbers for spares made on the spot: odd, so that they never meet those of the loop's half.
    next_spare: u64,
    buffer: Vec<u8>,
    /// The seal of the last group is on its way to the disk.
    sealed: bool,
    /// Something failed: nobody knows what the disk holds (W-18).
    broken: bool,
    /// Tells how long syncs take; where there is none, nobody wants to know.
    clock: Option<fn() -> Mono>,
}

impl<D: Disk> LogWriter<D> {
    /// Goes on behind a tail that is settled, and marks the opening (section 4.5).
    pub(super) fn resume(
        disk: D,
        dir: &Path,
        options: Options,
        recovered: &Recovered,
        next_spare: u64,
    ) -> Result<LogWriter<D>> {
        let (segment, tail) = (recovered.newest(), &recovered.tail);
        let path = segment.path(dir);
        let file = disk.open(&path, Open::Write).map_err(|e| Error::io("open", &path, e))?;
        let mut writer = LogWriter {
            disk,
            dir: dir.to_path_buf(),
            options,
            salt: tail.salt,
            opening: tail.opening + 1,
            file,
            path,
            sequence: segment.sequence,
            seed: tail.seed,
            end: tail.border(),
            chain: tail.chain,
            last: recovered.replay.index.last(),
            hard_state: recovered.replay.hard_state,
            spares: Vec::new(),
            next_spare: next_spare | 1,
            buffer: Vec::new(),
            sealed: false,
            broken: false,
            clock: None,
        };
        writer.begin_group();
        writer.pad();
        writer.write_synced(&mut Written::default())?;
        // The newest segment's name may be as young as its tail.
        writer.disk.sync_dir(dir).map_err(|e| Error::io("sync the directory", dir, e))?;
        writer.seal()?;
        Ok(writer)
    }

    /// From now on syncs are timed.
    pub fn time_syncs(&mut self, clock: fn() -> Mono) {
        self.clock = Some(clock);
    }

    /// Appends the batches, in order, and returns when they are durable: one write and one sync, more of them
    /// only where a segment is full or the batches are very large.
    ///
    /// After an error every further call fails without touching the disk: the log must be opened anew.
    ///
    /// The group's seal is left to [`seal`](LogWriter::seal), so that nobody waits for it.
    pub fn write(&mut self, batches: Vec<Batch>) -> Result<Written> {
        self.check_whole()?;
        self.broken = true; // for every way out but the last
        let mut written = Written::default();
        let mut start = 0;
        while start < batches.len() {
            start += self.write_group(&batches[start..], &mut written)?;
        }
        self.broken = false;
        Ok(written)
    }

    fn check_whole(&self) -> Result<()> {
        if self.broken && !planted::on("wal-write-after-failed-sync") {
            let source =
                std::io::Error::other("an earlier write or sync failed; the log must be opened anew");
            return Err(Error::io("write", &self.path, source));
        }
        Ok(())
    }

    /// Writes as many of the batches as one group takes (at least one); how many.
    fn write_group(&mut self, batches: &[Batch], written: &mut Written) -> Result<usize> {
        let mut bytes = batches[0].record_bytes();
        let roll = !self.fits(bytes);
        let mut count = 1;
        for batch in &batches[1..] {
            let more = bytes + batch.record_bytes();
            let start = if roll { SECTOR } else { self.end };
            if more > GROUP_BYTES_MAX || self.group_end(start, more) > self.options.segment_bytes {
                break;
            }
            bytes = more;
            count += 1;
        }
        let batches = &batches[..count];
        written.number = batches[count - 1].number;
        self.spares.extend(batches.iter().flat_map(|batch| &batch.spares));
        if bytes == 0 {
            return Ok(count);
        }
        if roll {
            self.write_new_segment(batches, written)?;
        } else {
            self.encode(batches, written);
            self.write_synced(written)?;
        }
        self.sealed = false;
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(count)
    }

    fn fits(&self, bytes: u64) -> bool {
        self.group_end(self.end, bytes) <= self.options.segment_bytes
    }

    /// Where a group that begins at `start` ends, its seal included.
    fn group_end(&self, start: u64, bytes: u64) -> u64 {
        sector_end(start + record_bytes(0) as u64 + bytes) + SECTOR
    }

    /// Fills the buffer with the group.
    fn encode(&mut self, batches: &[Batch], written: &mut Written) {
        self.begin_group();
        for batch in batches {
            if let Some(hard_state) = batch.hard_state {
                self.hard_state = hard_state;
                self.put(Kind::HardState, EntryId::new(hard_state.term, hard_state.vote), &[]);
            }
            match batch.splice {
                Splice::Append => {}
                Splice::Cut(id) if planted::on("wal-cut-not-written") => self.last = id,
                Splice::Cut(id) => self.put_splice(Kind::Cut, id),
                Splice::Reset(id) => self.put_splice(Kind::Reset, id),
            }
            written.places.reserve(batch.entries.len());
            for entry in &batch.entries {
                assert_eq!(entry.id.index, self.last.index + 1, "the loop's half appends without gaps");
                let offset = self.put(Kind::Entry(entry.kind), entry.id, &entry.payload);
                written.places.push(Place::new(self.sequence, offset));
                self.last = entry.id;
            }
        }
        self.pad();
    }

    /// Starts the buffer with a begin.
    fn begin_group(&mut self) {
        self.buffer.clear();
        self.put(Kind::Begin, self.last, &[]);
    }

    fn put_splice(&mut self, kind: Kind, id: EntryId) {
        self.put(kind, id, &[]);
        self.last = id;
    }

    /// Adds a record to the buffer, which will be written at `self.end`; the record's offset.
    fn put(&mut self, kind: Kind, id: EntryId, payload: &[u8]) -> u64 {
        let offset = self.end + self.buffer.len() as u64;
        let record = NewRecord { kind, id, chain: self.chain, opening: self.opening };
        self.chain = put_record(&mut self.buffer, self.seed, offset, record, payload);
        offset
    }

    fn pad(&mut self) {
        self.buffer.resize(self.buffer.len().next_multiple_of(SECTOR_BYTES), 0);
    }

    /// Writes the buffer at the end, and syncs.
    fn write_synced(&mut self, written: &mut Written) -> Result<()> {
        self.file.write_at(self.end, &self.buffer).map_err(|e| Error::io("write", &self.path, e))?;
        let begun_at = self.clock.map(|now| now());
        if !planted::on("wal-ack-before-sync") {
            self.file.sync_data().map_err(|e| Error::io("sync", &self.path, e))?;
        }
        if let (Some(now), Some(begun_at)) = (self.clock, begun_at) {
            written.sync_times.push(now().since(begun_at));
        }
        written.bytes += self.buffer.len() as u64;
        self.end += self.buffer.len() as u64;
        Ok(())
    }

    /// Says that everything so far is durable, by writing the next group's begin (W-8). Not synced: see there.
    ///
    /// To be called when the log falls idle. While groups follow each other it is of no use: the next group
    /// opens with the very same begin, at the same place.
    pub fn seal(&mut self) -> Result<()> {
        self.check_whole()?;
        if self.sealed {
            return Ok(());
        }
        let chain = self.chain;
        self.begin_group();
        self.pad();
        self.chain = chain;
        self.broken = true;
        self.file.write_at(self.end, &self.buffer).map_err(|e| Error::io("write", &self.path, e))?;
        (self.sealed, self.broken) = (true, false);
        Ok(())
    }

    /// Puts the group at the start of a new segment. Header and group are durable before the segment gets its
    /// name (W-3), and all before them was durable before this was called (W-4).
    fn write_new_segment(&mut self, batches: &[Batch], written: &mut Written) -> Result<()> {
        let (spare, file) = self.take_spare(written)?;
        self.sequence += 1;
        assert!(self.sequence <= u64::from(u32::MAX), "sequences last for 2^32 segments");
        self.seed = seed(self.salt, self.options.cluster, self.options.member, self.sequence);
        let mut header = SegmentHeader {
            cluster: self.options.cluster,
            member: self.options.member,
            sequence: self.sequence,
            base: self.last,
            hard_state: self.hard_state,
            previous_chain: self.chain,
            opening: self.opening,
            salt: self.salt,
            synced_bytes: 0,
        };
        let segment = SegmentFile { sequence: self.sequence, first: self.last.index + 1 };
        let bytes: u64 = batches.iter().map(Batch::record_bytes).sum();
        header.synced_bytes = self.group_end(SECTOR, bytes) - SECTOR;
        let (sector, crc) = header.encode();
        (self.file, self.end, self.chain) = (file, SECTOR, crc);
        self.encode(batches, written);
        assert_eq!(
            self.end + self.buffer.len() as u64,
            header.synced_bytes,
            "the group is as long as was counted"
        );
        self.buffer.splice(..0, sector);
        self.end = 0;
        self.path = self.dir.join(Name::Spare(spare).to_string());
        self.write_synced(written)?;
        let path = segment.path(&self.dir);
        self.disk.rename(&self.path, &path).map_err(|e| Error::io("name", &path, e))?;
        if !planted::on("wal-segment-name-not-synced") {
            self.disk.sync_dir(&self.dir).map_err(|e| Error::io("sync the directory", &self.dir, e))?;
        }
        self.path = path;
        written.begun.push(segment);
        Ok(())
    }

    /// A spare of the pool, or one made on the spot (not filled with zeroes: that would take too long here).
    fn take_spare(&mut self, written: &mut Written) -> Result<(u64, D::File)> {
        if let Some(number) = self.spares.pop() {
            written.spares_used += 1;
            let path = self.dir.join(Name::Spare(number).to_string());
            let file = self.disk.open(&path, Open::Write).map_err(|e| Error::io("open", &path, e))?;
            return Ok((number, file));
        }
        let number = self.next_spare;
        self.next_spare += 2;
        let path = self.dir.join(Name::Spare(number).to_string());
        let file = allocate_spare(&self.disk, &path, self.options.segment_bytes)?;
        Ok((number, file))
    }
}

/// Makes a file with room for a segment.
pub(super) fn allocate_spare<D: Disk>(disk: &D, path: &Path, segment_bytes: u64) -> Result<D::File> {
    let file = disk.open(path, Open::Create).map_err(|e| Error::io("create", path, e))?;
    file.allocate(0, segment_bytes).map_err(|e| Error::io("allocate", path, e))?;
    Ok(file)
}
