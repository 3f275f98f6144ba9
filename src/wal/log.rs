//! The loop's half: which entries there are and where their records lie. Touches no file.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::base::planted;
use crate::base::{EntryId, Index, Result, Term};
use crate::io::Disk;
use crate::raft::{Entry, HardState, LogGap, LogView};
use crate::wal::Options;
use crate::wal::chore::{Chore, ChoreDone, Outcome, Released, SPARES_MAX, Wanted, Work};
use crate::wal::fetched::Fetched;
use crate::wal::format::record_bytes;
use crate::wal::recover::{Recovered, SegmentFile};
use crate::wal::replay::{EntryIndex, Place, Slot};
use crate::wal::room::{Room, records_bytes};
use crate::wal::writer::{Batch, Splice, Written};

/// One read-back brings about this much payload (at least one entry).
const FETCH_BYTES: usize = 1 << 20;

/// Read-backs that may be under way at a time; further wishes are dropped and asked for again.
const FETCHES_MAX: usize = 4;

/// The log as the loop sees it: what was appended is there at once, durable or not.
pub struct Log<D: Disk> {
    disk: D,
    dir: PathBuf,
    options: Options,
    salt: u32,
    index: EntryIndex,
    /// Ascending; the last is the newest that the loop knows of.
    segments: VecDeque<SegmentFile>,
    /// Entries at or below are committed: a cut there is a broken promise (W-16).
    floor: Index,
    in_flight: VecDeque<InFlight>,
    /// Entries kept for replay, without gaps.
    held: VecDeque<Entry>,
    fetched: Fetched,
    /// What [`LogView::entries`] was asked for and did not have.
    wishes: RefCell<Vec<Index>>,
    /// First entries of the read-backs under way.
    fetching: Vec<EntryId>,
    /// Spares that the writer has not been told of.
    spares: Vec<u64>,
    /// Spares that it has.
    spares_handed: usize,
    preparing: bool,
    next_spare: u64,
    room: Room,
    /// Entries below may go.
    release_before: Index,
    /// Segments whose entries are gone from the index and whose files are to go; still in `segments`.
    doomed: usize,
    releasing: bool,
}

/// A batch that was handed out and not answered.
#[derive(Debug)]
struct InFlight {
    number: u64,
    /// Index of its first entry.
    first: Index,
    /// How many entries it has, and how many of them have not been replaced since.
    count: usize,
    live: usize,
    /// It resets the log to here.
    reset: Option<Index>,
    /// What its records take up.
    bytes: u64,
}

impl<D: Disk> Log<D> {
    pub(super) fn new(
        disk: D,
        dir: &Path,
        options: Options,
        recovered: Recovered,
        spares: Vec<u64>,
        next_spare: u64,
        keep_after: Index,
    ) -> Log<D> {
        let Recovered { replay, segments, tail, .. } = recovered;
        Log {
            disk,
            dir: dir.to_path_buf(),
            options,
            salt: tail.salt,
            floor: keep_after.min(replay.index.last().index).max(replay.index.base.index),
            release_before: 0,
            index: replay.index,
            segments: segments.into(),
            in_flight: VecDeque::new(),
            held: replay.held,
            fetched: Fetched::default(),
            wishes: RefCell::default(),
            fetching: Vec::new(),
            spares,
            spares_handed: 0,
            preparing: false,
            room: Room::behind(tail.border(), options.segment_bytes),
            next_spare: next_spare.next_multiple_of(2),
            doomed: 0,
            releasing: false,
        }
    }

    /// The last entry, durable or not.
    pub fn last(&self) -> EntryId {
        self.index.last()
    }

    /// Bytes of payload that are held in memory, for replay and as read back.
    pub fn held_bytes(&self) -> usize {
        self.held.iter().map(|entry| entry.payload.len()).sum::<usize>() + self.fetched.bytes()
    }

    /// Makes a batch of what one turn of the core wants durable. `entries` follow each other; the first follows
    /// the last entry or replaces an earlier one and all behind it.
    ///
    /// # Panics
    /// On a gap, on a number that does not rise, and on entries that would replace committed ones (W-16).
    pub fn append(&mut self, number: u64, hard_state: Option<HardState>, entries: Vec<Entry>) -> Batch {
        let last = self.index.last();
        let mut splice = Splice::Append;
        if let Some(first) = entries.first()
            && first.id.index != last.index + 1
        {
            let to = first.id.index.wrapping_sub(1);
            assert!(to < last.index, "entry {} is appended behind {last}: a gap", first.id);
            assert!(to >= self.floor, "entry {} would replace a committed one: {} is", first.id, self.floor);
            let term = self.index.term(to).expect("the floor is never below the base");
            splice = Splice::Cut(EntryId::new(term, to));
            self.cut(to);
        }
        let first = self.index.last().index + 1;
        for entry in &entries {
            let last = self.index.last();
            assert_eq!(entry.id.index, last.index + 1, "entries follow each other");
            assert!(entry.id.term >= last.term, "terms never fall along the log: {} behind {last}", entry.id);
            self.index.slots.push_back(Slot {
                term: entry.id.term,
                place: Place::default(),
                payload_bytes: u32::try_from(entry.payload.len()).expect("entries are far below 4 GiB"),
                kind: entry.kind,
            });
        }
        let count = entries.len();
        let in_flight = InFlight { number, first, count, live: count, reset: None, bytes: 0 };
        self.batch(in_flight, hard_state, splice, entries)
    }

    /// After a snapshot was installed: the log is empty and goes on behind `at`. The tree must hold the
    /// snapshot durably before the batch is written: see [`crate::wal::open`].
    pub fn reset(&mut self, number: u64, at: EntryId, hard_state: HardState) -> Batch {
        assert!(at.index >= self.floor, "a snapshot at {at} would take back entries up to {}", self.floor);
        self.index = EntryIndex { base: at, slots: VecDeque::new() };
        self.floor = at.index;
        self.held.clear();
        self.fetched.clear();
        for batch in &mut self.in_flight {
            batch.live = 0;
        }
        let first = at.index + 1;
        let reset = InFlight { number, first, count: 0, live: 0, reset: Some(at.index), bytes: 0 };
        self.batch(reset, Some(hard_state), Splice::Reset(at), Vec::new())
    }

    fn batch(
        &mut self,
        in_flight: InFlight,
        hard_state: Option<HardState>,
        splice: Splice,
        entries: Vec<Entry>,
    ) -> Batch {
        let number = in_flight.number;
        assert!(self.in_flight.back().is_none_or(|before| before.number < number), "batch numbers rise");
        let spares = std::mem::take(&mut self.spares);
        self.spares_handed += spares.len();
        let batch = Batch { number, hard_state, splice, entries, spares };
        self.in_flight.push_back(InFlight { bytes: records_bytes(&batch), ..in_flight });
        batch
    }

    /// How many of these batches, from the first, can be written without making a file, for which the disk may have no
    /// room. They are all that was made and not handed to the writer, which is idle.
    pub fn room_for(&mut self, batches: &mut [Batch]) -> usize {
        // A spare that came later helps the first of them already.
        let mut spares = std::mem::take(&mut self.spares);
        self.spares_handed += spares.len();
        for batch in batches.iter_mut() {
            spares.append(&mut batch.spares);
        }
        let Some(first) = batches.first_mut() else {
            (self.spares_handed, self.spares) = (self.spares_handed - spares.len(), spares);
            return 0;
        };
        first.spares = spares;
        self.room.count(self.spares_handed, batches)
    }

    /// Whether the next segment would have to be made first.
    pub fn lacks_spare(&self) -> bool {
        self.spares.is_empty() && self.spares_handed == 0
    }

    /// Forgets what is behind `to`.
    fn cut(&mut self, to: Index) {
        self.index.cut(to);
        for batch in &mut self.in_flight {
            batch.live = batch.live.min((to + 1).saturating_sub(batch.first) as usize);
        }
        while self.held.back().is_some_and(|entry| entry.id.index > to) {
            self.held.pop_back();
        }
        self.fetched.cut(to);
    }

    /// The writer's answer, in order. Entries that were replaced since they were handed out are told from
    /// those at the same index now by their batch's number: an old completion never vouches for a new entry.
    pub fn written(&mut self, written: Written) {
        let mut places = written.places.into_iter();
        if !written.begun.is_empty() {
            self.room.begin_segment();
        }
        self.segments.extend(written.begun);
        let newest = self.segments.back().expect("there is always a newest segment").sequence;
        self.spares_handed -= written.spares_used;
        while self.in_flight.front().is_some_and(|batch| batch.number <= written.number) {
            let batch = self.in_flight.pop_front().expect("looked at just now");
            let own = places.by_ref().take(batch.count);
            self.room.add(batch.bytes);
            for (position, place) in own.enumerate() {
                // Below the base: released by a reset in the meantime.
                if (position < batch.live || planted::on("wal-old-completion-counts"))
                    && let Some(slot) = self.index.slot_mut(batch.first + position as u64)
                {
                    slot.place = place;
                    if position + 1 == batch.count && u64::from(place.sequence) == newest {
                        self.room.ends_at(place.offset() + record_bytes(slot.payload_bytes as usize) as u64);
                    }
                }
            }
            if let Some(index) = batch.reset {
                self.release(index + 1);
            }
        }
        assert!(places.next().is_none(), "the writer answers for the entries that it was given");
    }

    /// Entries at or below `index` are committed: replacing them is a broken promise from now on.
    pub fn committed(&mut self, index: Index) {
        self.floor = self.floor.max(index.min(self.index.last().index));
    }

    /// Entries below `before` may go: they are applied in a durable tree, and nobody needs them. Whole segments
    /// go, as a chore.
    pub fn release(&mut self, before: Index) {
        self.release_before = self.release_before.max(before);
        self.committed(before.saturating_sub(1));
        // The segment of the first entry to stay; one that is not written yet will go to the newest or a later one.
        let stays = self.index.slot(self.release_before.max(self.index.base.index + 1));
        let newest = self.segments.back().expect("there is always a newest segment").sequence;
        let needed = stays.map_or(newest, |slot| {
            if slot.place.is_written() { u64::from(slot.place.sequence) } else { newest }
        });
        self.doomed = self
            .segments
            .iter()
            .take_while(|segment| {
                segment.sequence < needed + u64::from(planted::on("wal-release-one-too-many"))
            })
            .count();
        let gone = self
            .index
            .slots
            .iter()
            .take_while(|slot| slot.place.is_written() && u64::from(slot.place.sequence) < needed);
        let gone = gone.count() as u64;
        self.index.release(self.index.base.index + gone);
        self.drop_held(self.index.base.index + 1);
        self.fetched.release(self.index.base.index);
    }

    /// Entries below `before` that are held for replay are let go; they stay on disk.
    pub fn drop_held(&mut self, before: Index) {
        while self.held.front().is_some_and(|entry| entry.id.index < before) {
            self.held.pop_front();
        }
        if self.held.is_empty() {
            self.held.shrink_to_fit();
        }
    }

    /// Work for the housekeeping thread, to be run in this order. Ask after [`Log::written`],
    /// [`Log::release`], [`Log::chore_done`] and after an answer of `NotNow`.
    pub fn chores(&mut self) -> Vec<Chore<D>> {
        let mut work = Vec::new();
        self.fetch_chores(&mut work);
        if self.doomed > 0 && !self.releasing {
            self.releasing = true;
            let mut room = SPARES_MAX.saturating_sub(self.spare_count());
            let doomed: Vec<SegmentFile> = self.segments.iter().take(self.doomed).cloned().collect();
            let segments = doomed.into_iter().map(|segment| {
                let recycled = room > 0;
                room = room.saturating_sub(1);
                Released { segment, number: self.number_for_spare(), recycled }
            });
            let segments = segments.collect();
            work.push(Work::Release { segments, segment_bytes: self.options.segment_bytes });
        } else if self.spare_count() == 0 && !self.releasing {
            self.preparing = true;
            let number = self.number_for_spare();
            work.push(Work::Prepare { number, segment_bytes: self.options.segment_bytes });
        }
        let chore = |work| Chore { disk: self.disk.clone(), dir: self.dir.clone(), work };
        work.into_iter().map(chore).collect()
    }

    fn spare_count(&self) -> usize {
        self.spares.len() + self.spares_handed + usize::from(self.preparing)
    }

    fn number_for_spare(&mut self) -> u64 {
        self.next_spare += 2;
        self.next_spare
    }

    fn fetch_chores(&mut self, work: &mut Vec<Work>) {
        for wish in self.wishes.take() {
            let Some(first) = self.index.term(wish).map(|term| EntryId::new(term, wish)) else { continue };
            if self.fetching.len() >= FETCHES_MAX || self.fetching.contains(&first) || self.has(wish) {
                continue;
            }
            let wanted = self.wanted(wish);
            if !wanted.is_empty() {
                self.fetching.push(first);
                work.push(Work::Fetch { options: self.options, salt: self.salt, wanted });
            }
        }
    }

    /// The written entries from `first` on, about [`FETCH_BYTES`] of them.
    fn wanted(&self, first: Index) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let mut bytes = 0;
        let mut index = first;
        while let Some(slot) = self.index.slot(index).filter(|slot| slot.place.is_written()) {
            if bytes >= FETCH_BYTES || self.has(index) {
                break;
            }
            let sequence = u64::from(slot.place.sequence);
            let at = self.segments.partition_point(|segment| segment.sequence < sequence);
            let Some(segment) = self.segments.get(at).filter(|segment| segment.sequence == sequence) else {
                break;
            };
            wanted.push(Wanted {
                id: EntryId::new(slot.term, index),
                kind: slot.kind,
                segment: (sequence, segment.first),
                offset: slot.place.offset(),
                payload_bytes: slot.payload_bytes,
            });
            bytes += slot.payload_bytes as usize;
            index += 1;
        }
        wanted
    }

    fn has(&self, index: Index) -> bool {
        self.entry(index).is_some()
    }

    fn entry(&self, index: Index) -> Option<&Entry> {
        let first = self.held.front().map_or(u64::MAX, |entry| entry.id.index);
        let held = index.checked_sub(first).and_then(|position| self.held.get(position as usize));
        held.or_else(|| self.fetched.get(index))
    }

    /// The answer to a chore.
    ///
    /// # Errors
    /// What stopped it. Without room for a spare ([`crate::base::Error::is_no_space`]) the log goes on while its newest
    /// segment has room, and the next call of [`Log::chores`] tries again: time to refuse writes, not to stop.
    /// A segment that could not be removed is tried again too. An entry that can not be read back
    /// is damaged: it is needed, so the member should stop.
    pub fn chore_done(&mut self, done: ChoreDone) -> Result<()> {
        match done.outcome {
            Outcome::Prepared { number, result } => {
                self.preparing = false;
                result.map(|()| self.spares.push(number))
            }
            Outcome::Released { removed, spares, result } => {
                self.releasing = false;
                self.segments.drain(..removed);
                self.doomed -= removed;
                self.spares.extend(spares);
                result
            }
            Outcome::Fetched { first, result } => {
                self.fetching.retain(|id| *id != first);
                // Released or replaced since: then it does not matter what was found in its place.
                let current = self.index.slot(first.index).is_some_and(|slot| slot.term == first.term);
                match result {
                    Ok(entries) => {
                        let fits = |entry: &Entry| self.index.term(entry.id.index) == Some(entry.id.term);
                        let entries: Vec<Entry> =
                            if current { entries.into_iter().take_while(fits).collect() } else { Vec::new() };
                        self.fetched.add(entries);
                        Ok(())
                    }
                    Err(error) if current => Err(error),
                    Err(_) => Ok(()),
                }
            }
        }
    }
}

impl<D: Disk> LogView for Log<D> {
    fn first_index(&self) -> Index {
        self.index.base.index + 1
    }

    fn last_index(&self) -> Index {
        self.index.last().index
    }

    fn term(&self, index: Index) -> Option<Term> {
        self.index.term(index)
    }

    /// What is in memory, if `from` is; otherwise `NotNow`, and [`Log::chores`] will have the reading back.
    /// Entries whose batch is not written yet are the core's to remember: they are `NotNow` here.
    fn entries(&self, from: Index, to: Index, bytes_max: usize) -> Result<Vec<Entry>, LogGap> {
        if from <= self.index.base.index {
            return Err(LogGap::Compacted);
        }
        let to = to.min(self.last_index());
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for index in from..=to {
            let Some(entry) = self.entry(index) else { break };
            bytes += entry.payload.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        if entries.is_empty() && from <= to {
            let mut wishes = self.wishes.borrow_mut();
            if !wishes.contains(&from) && wishes.len() < FETCHES_MAX {
                wishes.push(from);
            }
            return Err(LogGap::NotNow);
        }
        Ok(entries)
    }
}
