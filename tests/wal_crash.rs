//! The log under power cuts, kills, failing calls and flipped bits, on the simulated disk.
//!
//! A workload runs once and is recorded; then the disk is put together as a power cut could have left it at every
//! operation, and the log is opened from each of these images. What must hold then (`storage-format.md`):
//! the state is one that the caller asked for, not older than what was acknowledged, and not
//! newer than what was begun (W-13); so nothing acknowledged is lost, nothing is invented, and
//! the hard state never falls back.

#![expect(clippy::print_stdout, reason = "figures for whoever asks with --nocapture")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use pawl::base::{EntryId, Error, Index, Rng};
use pawl::io::sim::{Call, Damage, EIO, ENOSPC, Fate, Fault, Profile, SimDisk, Survivors};
use pawl::raft::{Entry, EntryKind, HardState, LogView};
use pawl::wal::{self, Log, LogWriter, Opened, Options};

const DIR: &str = "wal";
const OPTIONS: Options = Options { segment_bytes: 4096, cluster: 5, member: 6, salt: 7 };

/// A state of the log, small enough to compare as a whole: the payload of an entry is told by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    base: EntryId,
    /// (term, number) of the entries behind the base.
    entries: Vec<(u64, u64)>,
    hard_state: HardState,
}

impl State {
    fn last(&self) -> EntryId {
        let index = self.base.index + self.entries.len() as u64;
        self.entries.last().map_or(self.base, |(term, _)| EntryId::new(*term, index))
    }
}

/// What was known at some operation: `states[acked]` was acknowledged, `states[begun]` is the newest that may be
/// found, entries up to `applied` were applied in a durable tree.
#[derive(Clone, Copy, Debug)]
struct Mark {
    op: u64,
    acked: usize,
    begun: usize,
    applied: Index,
}

/// A member's log with what it should hold.
struct Member {
    disk: SimDisk,
    log: Log<SimDisk>,
    writer: LogWriter<SimDisk>,
    /// Every state that the log went through, record by record.
    states: Vec<State>,
    marks: Vec<Mark>,
    applied: Index,
    number: u64,
    /// Rises with every entry ever appended.
    payloads: u64,
}

type Outcome = Result<(), Error>;

fn payload(number: u64) -> Bytes {
    let mut rng = Rng::new(number);
    // Mostly small; some that span sectors, a few larger than a segment.
    let len = match number % 16 {
        0 => 1500,
        1..=4 => 620,
        5 if number.is_multiple_of(5) => 5000,
        _ => 40,
    };
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    Bytes::from(bytes)
}

impl Member {
    fn open(disk: &SimDisk) -> Result<Member, Error> {
        let empty = State { base: EntryId::ZERO, entries: Vec::new(), hard_state: HardState::default() };
        let Opened { log, writer, .. } = wal::open(disk, Path::new(DIR), OPTIONS, 0)?;
        let mark = Mark { op: 0, acked: 0, begun: 0, applied: 0 };
        let (states, marks) = (vec![empty], vec![mark]);
        Ok(Member { disk: disk.clone(), log, writer, states, marks, applied: 0, number: 0, payloads: 0 })
    }

    fn newest(&self) -> &State {
        self.states.last().expect("it begins with one")
    }

    fn mark(&mut self, acked: usize) {
        let begun = self.states.len() - 1;
        self.marks.push(Mark { op: self.disk.op_count(), acked, begun, applied: self.applied });
    }

    fn acked(&self) -> usize {
        self.marks.last().expect("it begins with one").acked
    }

    /// Several batches in one group; each is (hard state, index of the first entry, how many).
    fn write(&mut self, wanted: &[(Option<HardState>, Index, u64)]) -> Outcome {
        let mut batches = Vec::new();
        for &(hard_state, first, count) in wanted {
            self.number += 1;
            let mut state = self.newest().clone();
            if let Some(hard_state) = hard_state {
                state.hard_state = hard_state;
                self.states.push(state.clone());
            }
            if count > 0 && first <= state.last().index {
                state.entries.truncate((first - state.base.index - 1) as usize);
                self.states.push(state.clone());
            }
            let mut entries = Vec::new();
            for index in first..first + count {
                self.payloads += 1;
                let term = state.hard_state.term;
                let kind =
                    if self.payloads.is_multiple_of(9) { EntryKind::Membership } else { EntryKind::Normal };
                entries.push(Entry { id: EntryId::new(term, index), kind, payload: payload(self.payloads) });
                state.entries.push((term, self.payloads));
                self.states.push(state.clone());
            }
            batches.push(self.log.append(self.number, hard_state, entries));
        }
        self.run(batches)
    }

    fn run(&mut self, batches: Vec<wal::Batch>) -> Outcome {
        self.mark(self.acked());
        let written = self.writer.write(batches)?;
        assert_eq!(written.number, self.number);
        self.log.written(written);
        self.mark(self.states.len() - 1);
        // When a batch waits already, the log writer's thread leaves the seal out.
        if self.number.is_multiple_of(3) { Ok(()) } else { self.writer.seal() }
    }

    /// A snapshot at `at` is in the tree; the log follows.
    fn reset(&mut self, at: EntryId) -> Outcome {
        self.number += 1;
        let hard_state =
            HardState { term: self.newest().hard_state.term.max(at.term), ..self.newest().hard_state };
        let hard_state = if hard_state.term > self.newest().hard_state.term {
            HardState { vote: 0, ..hard_state }
        } else {
            hard_state
        };
        let mut state = self.newest().clone();
        state.hard_state = hard_state;
        self.states.push(state.clone());
        self.states.push(State { base: at, entries: Vec::new(), hard_state });
        self.applied = self.applied.max(at.index);
        let batch = self.log.reset(self.number, at, hard_state);
        self.run(vec![batch])
    }

    fn release(&mut self, applied: Index) -> Outcome {
        self.applied = applied;
        self.mark(self.acked());
        self.log.release(applied + 1);
        self.chores()
    }

    fn chores(&mut self) -> Outcome {
        for chore in self.log.chores() {
            self.log.chore_done(chore.run())?;
        }
        Ok(())
    }

    /// The same files, another process.
    fn reopen(&mut self) -> Outcome {
        let opened = wal::open(&self.disk, Path::new(DIR), OPTIONS, self.applied)?;
        let state = state_of(&opened, self.applied);
        assert_eq!(compare(&state, self.newest()), Ok(()), "reopened");
        (self.log, self.writer) = (opened.log, opened.writer);
        Ok(())
    }

    /// Something of everything: appends of all sizes, groups of batches, rolls, replacements, votes, resets,
    /// releases with recycling, reopening.
    fn work(&mut self, seed: u64, steps: usize) -> Outcome {
        let mut rng = Rng::new(seed);
        for _ in 0..steps {
            let (last, hard_state) = (self.newest().last().index, self.newest().hard_state);
            match rng.below(20) {
                0..=8 => self.write(&[(None, last + 1, rng.between(1, 5))])?,
                9..=10 => self.write(&[(None, last + 1, 2), (None, last + 3, 1), (None, last + 4, 1)])?,
                11..=12 => {
                    let next = HardState { term: hard_state.term + 1, vote: rng.below(3) };
                    let from = rng.between(self.applied.max(self.newest().base.index), last) + 1;
                    self.write(&[(Some(next), from, rng.below(3)), (None, 0, 0)])?;
                }
                13 if hard_state.vote == 0 => {
                    self.write(&[(Some(HardState { vote: 2, ..hard_state }), 0, 0)])?;
                }
                14..=16 => {
                    let low = self.applied.max(self.newest().base.index);
                    let applied = if rng.one_in(2) { last } else { rng.between(low, last) };
                    self.release(applied)?;
                }
                17 => self.reset(EntryId::new(hard_state.term, last + rng.below(3)))?,
                18 => self.reopen()?,
                _ => self.chores()?,
            }
        }
        Ok(())
    }

    /// The mark in force when `op` operations were complete.
    fn mark_at(&self, op: u64) -> Mark {
        self.marks[self.marks.partition_point(|mark| mark.op <= op).max(1) - 1]
    }

    /// Which of the states between the two bounds was recovered.
    fn find(&self, mark: Mark, found: &State) -> Result<usize, String> {
        let near = (mark.acked..=mark.begun).find(|position| compare(found, &self.states[*position]).is_ok());
        near.ok_or_else(|| {
            format!(
                "found {found:?}, which is none of {} to {}: {:?}",
                mark.acked,
                mark.begun,
                &self.states[mark.acked..=mark.begun]
            )
        })
    }
}

/// The opened log as a state. Entries at or below `keep_after` are known by term alone: number 0.
fn state_of(opened: &Opened<SimDisk>, keep_after: Index) -> State {
    let log = &opened.log;
    let first = log.first_index();
    let base = EntryId::new(log.term(first - 1).expect("the base's term"), first - 1);
    let mut entries = Vec::new();
    for index in first..=log.last_index() {
        let term = log.term(index).expect("it is in the log");
        let number = if index > keep_after {
            let entry = log.entries(index, index, usize::MAX).expect("held for replay").remove(0);
            assert_eq!(entry.id, EntryId::new(term, index));
            number_of(&entry)
        } else {
            0
        };
        entries.push((term, number));
    }
    State { base, entries, hard_state: opened.hard_state }
}

/// Finds the number by the payload's first bytes and checks the rest.
fn number_of(entry: &Entry) -> u64 {
    thread_local! {
        static NUMBERS: std::collections::BTreeMap<Bytes, u64> = (1..4000).map(|n| (payload(n), n)).collect();
    }
    NUMBERS.with(|numbers| *numbers.get(&entry.payload).expect("a payload that was once written"))
}

/// The found log may begin anywhere at or above the base of the expected one (segments released), if it ends alike.
fn compare(found: &State, expected: &State) -> Result<(), String> {
    if (found.hard_state, found.last()) != (expected.hard_state, expected.last()) {
        return Err("another end".into());
    }
    if found.base.index < expected.base.index {
        return Err("it begins before a reset".into());
    }
    let skipped = (found.base.index - expected.base.index) as usize;
    let expected_base = match skipped {
        0 => expected.base.term,
        _ => expected.entries[skipped - 1].0,
    };
    if expected_base != found.base.term {
        return Err("another base".into());
    }
    let same = |(found, expected): (&(u64, u64), &(u64, u64))| {
        found.0 == expected.0 && (found.1 == 0 || found.1 == expected.1)
    };
    match found.entries.iter().zip(&expected.entries[skipped..]).all(same) {
        true => Ok(()),
        false => Err("other entries".into()),
    }
}

/// Opens an image and holds it against the bounds; the state's number.
fn recover(member: &Member, mark: Mark, disk: &SimDisk, label: &str) -> usize {
    let opened = wal::open(disk, Path::new(DIR), OPTIONS, mark.applied)
        .unwrap_or_else(|error| panic!("{label}: a legal crash was refused: {error}"));
    let first = opened.log.first_index();
    assert!(first <= mark.applied + 1, "{label}: begins at {first}, applied {}", mark.applied);
    let state = state_of(&opened, mark.applied);
    member.find(mark, &state).unwrap_or_else(|why| panic!("{label}: {why}"))
}

/// Every survivor of every point of one workload. Returns how many logs were opened.
fn fork(seed: u64, steps: usize, profile: Profile, random: usize) -> u64 {
    let disk = SimDisk::new();
    disk.record();
    let mut member = Member::open(&disk).expect("a new log");
    member.work(seed, steps).expect("nothing fails here");
    let mut opened = 0;
    for point in disk.points() {
        let mark = member.mark_at(point.op);
        for (label, image) in point.crash_images(profile, seed, random) {
            recover(&member, mark, &image, &format!("seed {seed} {label}"));
            opened += 1;
        }
        recover(&member, mark, &point.kill_image(), &format!("seed {seed} op {} killed", point.op));
        opened += 1;
    }
    opened
}

#[test]
fn every_power_cut_keeps_what_was_acknowledged() {
    let mut opened = 0;
    for seed in 0..20 {
        opened += fork(seed, 16, Profile::PosixWorst, 6);
    }
    for seed in 100..103 {
        opened += fork(seed, 30, Profile::Ext4Ordered, 4);
        opened += fork(seed, 30, Profile::Prefix, 2);
    }
    println!("{opened} logs opened");
    assert!(opened > 100_000, "only {opened} logs opened: the workload has become too tame");
}

/// D06: a medium without power-safe overwrite turns every sector that was being written into garbage, with whatever
/// was in it before. No sector holds bytes of two groups (W-6), so nothing acknowledged is in one.
#[test]
fn shredded_sectors_hold_nothing_acknowledged() {
    let mut opened = 0;
    for seed in 600..606 {
        let disk = SimDisk::new();
        disk.record();
        let mut member = Member::open(&disk).expect("a new log");
        member.work(seed, 30).expect("nothing fails here");
        for point in disk.points() {
            let mark = member.mark_at(point.op);
            let pending = point.pending().len();
            for shredded in 0..pending {
                for others in [Fate::Lost, Fate::Whole, Fate::Shred(seed)] {
                    let mut fates = vec![others; pending];
                    fates[shredded] = Fate::Shred(point.op);
                    let label = format!("seed {seed} op {}: {fates:?}", point.op);
                    let image = point.image(&Survivors { label: label.clone(), fates });
                    recover(&member, mark, &image, &label);
                    opened += 1;
                }
            }
        }
    }
    assert!(opened > 1_000, "only {opened}");
}

/// D02, D46: a process is killed anywhere; the next one opens the log, and the power fails anywhere in that. If
/// opening had returned, exactly what it showed must still be there.
#[test]
fn what_opening_has_shown_survives_a_power_cut() {
    let mut opened = 0;
    for seed in 200..202 {
        let disk = SimDisk::new();
        disk.record();
        let mut member = Member::open(&disk).expect("a new log");
        member.work(seed, 14).expect("nothing fails here");
        for point in disk.points() {
            let mark = member.mark_at(point.op);
            let second = point.kill_image();
            second.record();
            let label = format!("seed {seed} op {} killed", point.op);
            let shown = recover(&member, mark, &second, &label);
            let points = second.points();
            let last = points.len() - 1;
            for (position, after) in points.iter().enumerate() {
                let mark = if position == last { Mark { acked: shown, begun: shown, ..mark } } else { mark };
                for (image_label, image) in after.crash_images(Profile::PosixWorst, seed, 1) {
                    recover(&member, mark, &image, &format!("{label}, opened, then {image_label}"));
                    opened += 1;
                }
            }
        }
    }
    println!("{opened} logs opened twice");
    assert!(opened > 40_000, "only {opened}");
}

/// D12 to D16: every call fails once, for every N. The caller stops at the first error; what was acknowledged is
/// there after a kill and after a power cut, no failed sync is repeated, and a full disk loses nothing.
#[test]
fn every_single_failure_keeps_what_was_acknowledged() {
    let calls =
        [Call::Write, Call::Sync, Call::SyncDir, Call::Rename, Call::Create, Call::Allocate, Call::Remove];
    let mut failures = 0;
    for call in calls {
        for (seed, errno) in [(1, EIO), (2, ENOSPC), (3, EIO)] {
            for nth in 0.. {
                let disk = SimDisk::new();
                disk.record();
                disk.fail(Fault::once(call, DIR).after(nth).errno(errno));
                let mut member = match Member::open(&disk) {
                    Ok(member) => member,
                    Err(Error::Io { .. }) => {
                        failures += 1;
                        disk.heal();
                        wal::open(&disk.point().kill_image(), Path::new(DIR), OPTIONS, 0)
                            .expect("a second try");
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                let outcome = member.work(seed, 40);
                assert_eq!(disk.syncs_after_failure(), 0, "{call:?} {nth}");
                match outcome {
                    Ok(()) => break, // it never came to the Nth call
                    Err(Error::Io { .. }) => failures += 1,
                    Err(error) => panic!("{call:?} {nth}: {error}"),
                }
                let mark = member.mark_at(u64::MAX);
                let point = disk.point();
                let label = format!("{call:?} number {nth} of seed {seed} failed");
                let killed = point.kill_image();
                recover(&member, mark, &killed, &label);
                for (image_label, image) in point.crash_images(Profile::PosixWorst, nth, 4) {
                    recover(&member, mark, &image, &format!("{label}, then {image_label}"));
                }
                // What the second process has seen outlives the dropping of the cache.
                let shown = recover(&member, mark, &killed, &label);
                killed.evict_clean();
                assert_eq!(recover(&member, mark, &killed, &label), shown, "{label}");
            }
        }
    }
    println!("{failures} failures");
    assert!(failures > 300, "only {failures}");
}

/// One flipped bit anywhere: either the log is refused by name, or it is all there. Inside what was acknowledged it
/// is always refused.
#[test]
fn a_flipped_bit_is_found_and_never_cut() {
    let (mut refused, mut harmless) = (0, 0);
    for seed in 300..304 {
        let disk = SimDisk::new();
        let mut member = Member::open(&disk).expect("a new log");
        member.work(seed, 30).expect("nothing fails here");
        member.writer.seal().expect("nothing fails here");
        let point = disk.point();
        let report = wal::check(&disk, Path::new(DIR)).expect("checked");
        assert_eq!(report.findings, [], "sound before");
        let mark = member.mark_at(u64::MAX);
        let mut rng = Rng::new(seed);
        for (path, end) in report.ends {
            for offset in 0..end {
                if offset >= 1024 && offset % 512 >= 96 && !rng.one_in(7) {
                    continue;
                }
                let image = point.kill_image();
                let damage = Damage::Flip { bit: rng.below(8) as u8 };
                image.damage(&path, offset, damage).expect("damaged");
                match wal::open(&image, Path::new(DIR), OPTIONS, mark.applied) {
                    Err(Error::Corrupt(corruption)) => {
                        refused += 1;
                        assert_eq!(corruption.file, path);
                    }
                    Err(Error::Refused(_)) => assert!(offset < 8, "{offset}"),
                    Err(error) => panic!("{error}"),
                    Ok(opened) => {
                        harmless += 1;
                        assert!(offset >= end - 512, "{} {offset} of {end} is acknowledged", path.display());
                        let state = state_of(&opened, mark.applied);
                        let all = Mark { acked: mark.begun, ..mark };
                        member.find(all, &state).unwrap_or_else(|why| panic!("seed {seed} {offset}: {why}"));
                    }
                }
            }
        }
    }
    println!("{refused} flips refused, {harmless} in seals");
    assert!(refused > 5_000 && harmless > 0);
}

/// Larger damage to acknowledged bytes: blanked, garbled and misdirected sectors, in any place.
#[test]
fn damaged_sectors_are_found_and_never_cut() {
    let mut refused = 0;
    for seed in 400..404 {
        let disk = SimDisk::new();
        let mut member = Member::open(&disk).expect("a new log");
        member.work(seed, 30).expect("nothing fails here");
        member.writer.seal().expect("nothing fails here");
        let point = disk.point();
        let mark = member.mark_at(u64::MAX);
        let ends: Vec<(PathBuf, u64)> = wal::check(&disk, Path::new(DIR)).expect("checked").ends;
        for (path, end) in ends {
            for sector in 0..end / 512 {
                for damage in [
                    Damage::Zero { len: 512 },
                    Damage::Garbage { len: 512, seed: sector },
                    Damage::Copy { from: (sector + 1) * 512, len: 512 },
                    Damage::Copy { from: sector.saturating_sub(1) * 512, len: 512 },
                ] {
                    let image = point.kill_image();
                    image.damage(&path, sector * 512, damage).expect("damaged");
                    let changed = image.bytes(&path).expect("there") != disk.bytes(&path).expect("there");
                    match wal::open(&image, Path::new(DIR), OPTIONS, mark.applied) {
                        Err(_) => refused += 1,
                        Ok(opened) => {
                            let seal = (sector + 1) * 512 == end;
                            assert!(seal || !changed, "{} sector {sector} {damage:?}", path.display());
                            let all = Mark { acked: mark.begun, ..mark };
                            let state = state_of(&opened, mark.applied);
                            member.find(all, &state).unwrap_or_else(|why| panic!("{damage:?}: {why}"));
                        }
                    }
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

/// A disk that acknowledges syncs and does nothing is beyond help, but nothing must be invented.
#[test]
fn a_lying_disk_loses_but_never_invents() {
    for seed in 500..510 {
        let disk = SimDisk::new();
        disk.record();
        let mut member = Member::open(&disk).expect("a new log");
        disk.lie_about_syncs(".wal");
        member.work(seed, 12).expect("nothing fails here");
        for point in disk.points() {
            let mark = Mark { acked: 0, ..member.mark_at(point.op) };
            for (label, image) in point.crash_images(Profile::PosixWorst, seed, 2) {
                if let Ok(opened) = wal::open(&image, Path::new(DIR), OPTIONS, mark.applied) {
                    let state = state_of(&opened, mark.applied);
                    member.find(mark, &state).unwrap_or_else(|why| panic!("{label}: {why}"));
                }
            }
        }
    }
}

/// Recycled segments are full of valid records of a former life: they must be used, or the tests above prove less.
#[test]
fn the_workload_recycles() {
    let mut stale = 0;
    for seed in 0..16 {
        let disk = SimDisk::new();
        let mut member = Member::open(&disk).expect("a new log");
        member.work(seed, 16).expect("nothing fails here");
        for (path, end) in wal::check(&disk, Path::new(DIR)).expect("checked").ends {
            let bytes = disk.bytes(&path).expect("there");
            stale += usize::from(bytes.iter().skip(end as usize).any(|byte| *byte != 0));
        }
    }
    assert!(stale >= 4, "only {stale} segments end in bytes of a former life");
}
