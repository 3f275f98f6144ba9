//! Behaviour of the two halves together, the table against the document, and the layout as a dump. The crash
//! forks are in `tests/wal_crash.rs`.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::chore::SPARES_MAX;
use super::recover::{Case, DirCase, Question, decide, decide_directory};
use super::*;
use crate::base::{EntryId, Rng};
use crate::io::Disk as _;
use crate::io::os::OsDisk;
use crate::io::sim::{Call, Damage, Fate, Fault, SimDisk, Survivors};
use crate::raft::{Entry, EntryKind, LogGap, LogView};

const DIR: &str = "wal";
const OPTIONS: Options = Options { segment_bytes: 4096, cluster: 0xc1, member: 0x3e, salt: 0x5a17 };

fn open_at(disk: &SimDisk, keep_after: Index) -> Opened<SimDisk> {
    open(disk, Path::new(DIR), OPTIONS, keep_after).expect("a sound log")
}

fn entry(index: Index, term: u64, payload: &[u8]) -> Entry {
    Entry {
        id: EntryId::new(term, index),
        kind: if index.is_multiple_of(7) { EntryKind::Membership } else { EntryKind::Normal },
        payload: Bytes::copy_from_slice(payload),
    }
}

/// A log with both halves in one place, and a thread's work done at once.
struct Both {
    log: Log<SimDisk>,
    writer: LogWriter<SimDisk>,
    number: u64,
}

impl Both {
    fn open(disk: &SimDisk, keep_after: Index) -> Both {
        let Opened { log, writer, .. } = open_at(disk, keep_after);
        Both { log, writer, number: 0 }
    }

    fn append(&mut self, hard_state: Option<HardState>, entries: Vec<Entry>) -> Result<()> {
        self.number += 1;
        let batch = self.log.append(self.number, hard_state, entries);
        let written = self.writer.write(vec![batch])?;
        self.log.written(written);
        self.writer.seal()
    }

    fn entries(&mut self, from: Index, to: Index, payload: &[u8]) {
        for index in from..=to {
            self.append(None, vec![entry(index, 1, payload)]).expect("it is written");
        }
    }

    fn do_chores(&mut self) {
        for chore in self.log.chores() {
            self.log.chore_done(chore.run()).expect("chores go well");
        }
    }

    /// Asks, has it read back, and asks again.
    fn read(&mut self, from: Index, to: Index) -> Vec<Entry> {
        let first = self.log.entries(from, to, usize::MAX);
        if first == Err(LogGap::NotNow) {
            self.do_chores();
        }
        self.log.entries(from, to, usize::MAX).expect("in memory by now")
    }
}

fn segment_files(disk: &SimDisk) -> Vec<PathBuf> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    files.filter(|path| path.extension().is_some_and(|extension| extension == "wal")).collect()
}

// ---- the tables ----

/// Every row of a table of the document that begins with one of the letters, as trimmed cells.
fn rows(letters: &str) -> Vec<Vec<String>> {
    let document = include_str!("../../storage-format.md");
    let section = document.find("\n## 4 ").and_then(|from| document[from..].split("\n## 5 ").next());
    let section = section.expect("section 4 is the log's");
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect()
    };
    let own = |row: &Vec<String>| row[0].len() == 1 && letters.contains(&row[0]);
    section.lines().filter(|line| line.starts_with('|')).map(cells).filter(own).collect()
}

/// Section 4.6: the document's rows cover every combination of answers exactly once, and the code agrees.
#[test]
fn the_decision_table_is_exhaustive_and_the_same_as_in_the_document() {
    let rows = rows("ABCDEFGH");
    assert_eq!(rows.len(), 8);
    let fits = |cell: &str, answer: bool| cell == "-" || cell == if answer { "yes" } else { "no" };
    for bits in 0..32u8 {
        let [last, joined, below, later, inside] = [0, 1, 2, 3, 4].map(|bit| bits >> bit & 1 == 1);
        let matching: Vec<&Vec<String>> = rows
            .iter()
            .filter(|row| {
                fits(&row[1], last)
                    && fits(&row[2], joined)
                    && fits(&row[3], below)
                    && fits(&row[4], later)
                    && fits(&row[5], inside)
            })
            .collect();
        let question = Question { last, joined, below, later, inside };
        assert_eq!(matching.len(), 1, "{question:?} is in {} rows", matching.len());
        let case = decide(question);
        assert_eq!(matching[0][0], format!("{case:?}"), "{question:?}");
        let goes_on = matches!(case, Case::A | Case::B | Case::E);
        assert_eq!(matching[0][7] != "refuse", goes_on, "case {case:?}");
    }
}

#[test]
fn the_directory_table_is_exhaustive_and_the_same_as_in_the_document() {
    let rows = rows("IJKLMN");
    let mut seen = std::collections::BTreeSet::new();
    for bits in 0..16u8 {
        let [any, applied, gap, reaches] = [0, 1, 2, 3].map(|bit| bits >> bit & 1 == 1);
        let case = decide_directory(any, applied, gap, reaches);
        let row = rows.iter().find(|row| row[0] == format!("{case:?}")).expect("a row for each case");
        let refuses = matches!(case, DirCase::J | DirCase::L | DirCase::M);
        assert_eq!(row[3] == "refuse", refuses, "case {case:?}");
        seen.insert(row[0].clone());
    }
    assert_eq!(seen.len(), rows.len(), "no row is without a combination");
}

// ---- layout ----

/// The bytes of a small segment, one line for 16 bytes, runs of zero lines left out.
fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (number, line) in bytes.chunks(16).enumerate() {
        if line.iter().any(|&byte| byte != 0) {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let text: String = line
                .iter()
                .map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' })
                .collect();
            out += &format!("{:04x}  {}  {text}\n", number * 16, hex.join(" "));
        }
    }
    out
}

/// The dump is the one of section 4.8. If this fails, the format has changed: that takes a new version, not a
/// new dump.
#[test]
fn the_layout_is_frozen() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    let hard_state = HardState { term: 1, vote: 0x3e };
    both.append(Some(hard_state), vec![entry(1, 1, b""), entry(2, 1, b"put a 1")]).expect("written");
    both.append(None, vec![entry(2, 2, b"put b 2 instead")]).expect("written");
    let found = dump(&disk.bytes(&segment_files(&disk)[0]).expect("it is there"));
    let document = include_str!("../../storage-format.md");
    let (_, dump_and_rest) = document.split_once("```segment\n").expect("section 4.8 has a dump");
    let (expected, _) = dump_and_rest.split_once("```").expect("the dump ends");
    assert_eq!(found, expected, "found:\n{found}");
}

// ---- the two halves ----

#[test]
fn what_was_written_is_there_after_reopening() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.append(Some(HardState { term: 3, vote: 9 }), vec![entry(1, 1, b"one"), entry(2, 3, b"two")])
        .expect("written");
    both.append(None, vec![entry(3, 3, b"")]).expect("written");
    let opened = open_at(&disk, 0);
    assert_eq!(opened.hard_state, HardState { term: 3, vote: 9 });
    assert_eq!(opened.log.last(), EntryId::new(3, 3));
    let expected = vec![entry(1, 1, b"one"), entry(2, 3, b"two"), entry(3, 3, b"")];
    assert_eq!(opened.log.entries(1, 9, usize::MAX), Ok(expected));
    assert_eq!(opened.log.term(0), Some(0));
    assert_eq!(opened.log.term(4), None);
    assert!(opened.notes.is_empty(), "{:?}", opened.notes);
}

/// Also: `keep_after` says what is held; the rest comes from disk, by way of `NotNow` and a chore.
#[test]
fn old_entries_are_read_back() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.entries(1, 60, &[7; 200]);
    assert!(segment_files(&disk).len() > 3);
    let mut both = Both::open(&disk, 50);
    assert_eq!(both.log.held_bytes(), 10 * 200);
    assert_eq!(both.log.entries(51, 60, 500).map(|entries| entries.len()), Ok(2), "cut by bytes");
    assert_eq!(both.log.entries(51, 60, 1).map(|entries| entries.len()), Ok(1), "at least one");
    assert_eq!(both.log.entries(3, 40, usize::MAX), Err(LogGap::NotNow));
    let read = both.read(3, 40);
    assert_eq!(read, (3..=40).map(|index| entry(index, 1, &[7; 200])).collect::<Vec<_>>());
}

/// Scenario: entries 5 and 6 are handed to the writer; before it answers, a new leader replaces 5. The late answer
/// must not be taken as the place of the new entry 5 (etcd's append ABA).
#[test]
fn a_late_answer_does_not_vouch_for_a_replaced_entry() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.entries(1, 4, b"x");
    let old = both.log.append(11, None, vec![entry(5, 1, b"old"), entry(6, 1, b"old")]);
    let new = both.log.append(12, None, vec![entry(5, 2, b"new")]);
    let written = both.writer.write(vec![old]).expect("written");
    assert_eq!(written.number, 11);
    both.log.written(written);
    assert_eq!(both.log.entries(5, 5, usize::MAX), Err(LogGap::NotNow));
    both.do_chores();
    assert_eq!(
        both.log.entries(5, 5, usize::MAX),
        Err(LogGap::NotNow),
        "not written yet: not read from disk"
    );
    let written = both.writer.write(vec![new]).expect("written");
    both.log.written(written);
    assert_eq!(both.read(5, 5), [entry(5, 2, b"new")]);
    assert_eq!(both.read(4, 5), [entry(4, 1, b"x"), entry(5, 2, b"new")]);
}

#[test]
fn a_group_is_one_write_one_sync_and_one_seal() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    let batches: Vec<Batch> =
        (1..=5).map(|index| both.log.append(index, None, vec![entry(index, 1, b"v")])).collect();
    disk.record();
    let ops = disk.op_count();
    let written = both.writer.write(batches).expect("written");
    assert_eq!((written.number, disk.op_count() - ops), (5, 2), "nobody waits for the seal");
    both.writer.seal().expect("sealed");
    both.writer.seal().expect("sealed");
    let calls: Vec<Call> = disk.points().iter().filter_map(|point| Some(point.next.clone()?.0)).collect();
    assert_eq!(calls, [Call::Write, Call::Sync, Call::Write]);
}

#[test]
fn an_entry_larger_than_a_segment_makes_its_segment_larger() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    let large = vec![5; 3 * 4096 + 123];
    both.append(None, vec![entry(1, 1, b"before")]).expect("written");
    both.append(None, vec![entry(2, 1, &large)]).expect("written");
    both.append(None, vec![entry(3, 1, b"behind")]).expect("written");
    assert_eq!(segment_files(&disk).len(), 3);
    assert_eq!(both.read(2, 2), [entry(2, 1, &large)]);
    let mut again = Both::open(&disk, 2);
    assert_eq!(again.read(2, 2), [entry(2, 1, &large)]);
    assert_eq!(again.read(3, 3), [entry(3, 1, b"behind")]);
}

#[test]
fn released_segments_become_spares_and_are_used_again() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.entries(1, 40, &[1; 300]);
    let before = segment_files(&disk).len();
    both.log.release(30);
    assert_eq!(both.log.entries(1, 1, 1), Err(LogGap::Compacted));
    let first = both.log.first_index();
    assert!(first <= 30 && first > 20, "{first}");
    assert_eq!(both.log.term(first - 1), Some(1));
    both.do_chores();
    assert!(segment_files(&disk).len() < before);
    let spares = disk.files().iter().filter(|(path, _)| path.to_string_lossy().contains("spare-")).count();
    assert_eq!(spares, 2);
    let files = disk.files().len();
    both.entries(41, 60, &[2; 300]);
    assert!(disk.files().len() < files + 3, "the spares were used");
    let mut again = Both::open(&disk, 29);
    assert_eq!(again.log.first_index(), first);
    assert_eq!(again.read(30, 60).len(), 31);
}

/// W-10, W-14: the head may begin at a segment whose base was replaced later.
#[test]
fn a_cut_below_the_base_of_the_first_segment_is_understood() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.entries(1, 8, &[1; 700]); // rolls
    let (last, segments) = (both.log.last(), segment_files(&disk).len());
    let mut index = last.index;
    while segment_files(&disk).len() == segments {
        index += 1;
        both.append(None, vec![entry(index, 1, &[1; 300])]).expect("written");
    }
    let base = index - 1; // of the newest segment
    both.append(None, vec![entry(base - 1, 2, b"other")]).expect("written");
    both.log.release(base - 1);
    both.do_chores();
    assert_eq!(segment_files(&disk).len(), 1);
    assert_eq!((both.log.first_index(), both.log.last()), (base - 1, EntryId::new(2, base - 1)));
    let again = Both::open(&disk, base - 2);
    assert_eq!((again.log.first_index(), again.log.last()), (base - 1, EntryId::new(2, base - 1)));
    assert_eq!(again.log.term(base - 2), Some(1));
}

#[test]
fn after_a_reset_the_log_goes_on_behind_the_snapshot() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.entries(1, 30, &[1; 300]);
    let batch = both.log.reset(100, EntryId::new(4, 500), HardState { term: 4, vote: 0 });
    assert_eq!(both.log.last(), EntryId::new(4, 500));
    let written = both.writer.write(vec![batch]).expect("written");
    both.log.written(written);
    both.do_chores();
    assert_eq!(segment_files(&disk).len(), 1, "what was before is removed");
    both.number = 100;
    both.append(None, vec![entry(501, 4, b"next")]).expect("written");
    let again = Both::open(&disk, 500);
    assert_eq!((again.log.first_index(), again.log.last()), (501, EntryId::new(4, 501)));
    assert_eq!(again.log.term(500), Some(4));
}

/// Scenario: entries behind the snapshot were never committed, and the power goes before their segment is removed.
#[test]
fn a_reset_ends_entries_behind_the_snapshot_too() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.entries(1, 30, b"old");
    let batch = both.log.reset(100, EntryId::new(4, 20), HardState { term: 4, vote: 0 });
    both.log.written(both.writer.write(vec![batch]).expect("written"));
    both.number = 100;
    both.append(None, vec![entry(21, 4, b"new")]).expect("written");
    let again = open_at(&disk, 20);
    assert_eq!(again.log.entries(21, 30, usize::MAX), Ok(vec![entry(21, 4, b"new")]));
    assert_eq!(again.log.held_bytes(), 3);
}

#[test]
fn a_log_may_be_created_behind_a_snapshot() {
    let disk = SimDisk::new();
    let hard_state = HardState { term: 7, vote: 0 };
    create(&disk, Path::new(DIR), OPTIONS, EntryId::new(7, 900), hard_state).expect("created");
    assert!(matches!(
        create(&disk, Path::new(DIR), OPTIONS, EntryId::ZERO, hard_state),
        Err(Error::Refused(_))
    ));
    let opened = open_at(&disk, 900);
    assert_eq!((opened.log.last(), opened.hard_state), (EntryId::new(7, 900), hard_state));
}

#[test]
fn a_spare_is_prepared_ahead() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.do_chores();
    assert!(both.log.chores().is_empty(), "one is enough");
    both.entries(1, 9, &[1; 300]);
    let made: Vec<String> = disk.files().iter().map(|(path, _)| path.display().to_string()).collect();
    assert_eq!(made.len(), 2, "the spare became the second segment: {made:?}");
    assert_eq!(both.log.chores().len(), 1, "and the next is due");
}

/// Without room the log goes on while its segment has room, and says so.
#[test]
fn no_room_for_a_spare_is_told_and_tried_again() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    disk.set_capacity(Some(4096));
    let done = both.log.chores().remove(0).run();
    assert!(both.log.chore_done(done).is_err_and(|error| error.is_no_space()));
    both.entries(1, 2, b"still");
    disk.heal();
    both.do_chores();
    assert!(both.log.chores().is_empty());
}

// ---- broken promises ----

#[test]
#[should_panic(expected = "would replace a committed one")]
fn replacing_a_committed_entry_is_a_broken_promise() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.entries(1, 5, b"x");
    both.log.committed(4);
    both.log.append(99, None, vec![entry(4, 2, b"y")]);
}

#[test]
#[should_panic(expected = "a gap")]
fn a_gap_is_a_broken_promise() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.log.append(1, None, vec![entry(2, 1, b"x")]);
}

// ---- trouble ----

/// W-18: whatever fails first, nothing is written or synced after it.
#[test]
fn after_a_failure_the_writer_touches_nothing() {
    for (call, nth) in [(Call::Write, 0), (Call::Write, 1), (Call::Sync, 0)] {
        let disk = SimDisk::new();
        let mut both = Both::open(&disk, 0);
        both.entries(1, 2, b"x");
        disk.fail(Fault::once(call, ".wal").after(nth));
        let entries = vec![entry(3, 1, b"y")];
        assert!(both.append(None, entries).is_err(), "{call:?} {nth}");
        let ops = disk.op_count();
        for number in 50..53 {
            let batch = Batch { number, ..Batch::default() };
            let error = both.writer.write(vec![batch]).expect_err("it is broken");
            assert!(error.to_string().contains("must be opened anew"), "{error}");
        }
        assert_eq!((disk.op_count(), disk.syncs_after_failure()), (ops, 0));
    }
}

/// A sync fails, the node stops, and its process starts again. The page cache still holds the group, and calls it
/// clean; the disk does not. What is opened is what the disk holds.
#[test]
fn what_a_failed_sync_left_in_the_cache_is_not_believed() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.entries(1, 2, b"x");
    disk.fail(Fault::once(Call::Sync, ".wal"));
    assert!(both.append(None, vec![entry(3, 1, b"y")]).is_err());
    drop(both);
    let mut again = Both::open(&disk, 0);
    assert_eq!(again.log.last().index, 2, "entry 3 never reached the disk");
    again.entries(3, 3, b"z");
    let point = disk.point();
    let cut =
        point.image(&Survivors { label: String::new(), fates: vec![Fate::Lost; point.pending().len()] });
    assert_eq!(Both::open(&cut, 0).read(3, 3), [entry(3, 1, b"z")]);
}

fn refusal(disk: &SimDisk, options: Options, keep_after: Index) -> String {
    let ops = disk.op_count();
    match open(disk, Path::new(DIR), options, keep_after) {
        Ok(_) => panic!("it was opened"),
        Err(error) => {
            assert_eq!(disk.op_count(), ops + 1, "W-20: nothing but the call that makes the directory");
            error.to_string()
        }
    }
}

#[test]
fn what_is_not_for_us_is_refused_by_name_and_left_alone() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.entries(1, 40, &[1; 300]);
    assert!(refusal(&disk, Options { cluster: 1, ..OPTIONS }, 0).contains("belongs to cluster c1"));
    assert!(refusal(&disk, Options { member: 1, ..OPTIONS }, 0).contains("belongs to member 3e"));
    disk.put(Path::new("wal/notes.wal"), b"hello");
    assert!(refusal(&disk, OPTIONS, 0).contains("notes.wal is not a segment's name"));
    disk.remove(Path::new("wal/notes.wal")).expect("removed");
    let files = segment_files(&disk);
    let copy = disk.bytes(&files[1]).expect("there");
    let renamed = Path::new("wal/0000000000000002-00000000000000ff.wal");
    disk.put(renamed, &copy);
    assert!(refusal(&disk, OPTIONS, 0).contains("another one"));
    disk.remove(&files[1]).expect("removed");
    assert!(refusal(&disk, OPTIONS, 0).contains("sequence and base"));
    disk.remove(renamed).expect("removed");
    let text = refusal(&disk, OPTIONS, 0);
    assert!(text.contains("case L") && text.contains("no segment 2"), "{text}");
    disk.remove(&files[0]).expect("removed");
    assert!(refusal(&disk, OPTIONS, 0).contains("case M"));
    for file in &files[2..] {
        disk.remove(file).expect("removed");
    }
    assert!(refusal(&disk, OPTIONS, 7).contains("entries up to 7 are applied: found no segment"));
}

/// D10: a removed segment comes back, with a gap behind it.
#[test]
fn released_segments_that_come_back_are_removed_again() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.entries(1, 40, &[1; 300]);
    let files = segment_files(&disk);
    let first = disk.bytes(&files[0]).expect("there");
    both.log.release(41);
    both.do_chores();
    disk.put(&files[0], &first);
    let opened = open_at(&disk, 40);
    assert!(opened.notes[0].contains("case K"), "{:?}", opened.notes);
    assert_eq!(segment_files(&disk).len(), 1);
    assert_eq!(opened.log.last().index, 40);
}

/// D22: a blank where a record should be is the end only above the watermark.
#[test]
fn a_blanked_sector_is_damage_and_not_the_end() {
    for sector in 1..4 {
        let disk = SimDisk::new();
        let mut both = Both::open(&disk, 0);
        both.entries(1, 3, b"x"); // groups in sectors 2, 3, 4, the mark in 1, the seal in 5
        let file = segment_files(&disk).remove(0);
        disk.damage(&file, sector * 512, Damage::Zero { len: 512 }).expect("damaged");
        let text = refusal(&disk, OPTIONS, 0);
        assert!(text.contains("case C") && text.contains("found zeroes"), "{text}");
        assert!(text.contains(&format!("offset {}", sector * 512)), "{text}");
    }
}

/// The last sync was answered; then a bit of the last record flips. Only the seal can tell.
#[test]
fn a_flipped_bit_in_the_last_acknowledged_record_is_damage_and_not_a_tear() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.entries(1, 3, b"payload");
    let file = segment_files(&disk).remove(0);
    let payload_at = 4 * 512 + 80;
    disk.damage(&file, payload_at, Damage::Flip { bit: 3 }).expect("damaged");
    let text = refusal(&disk, OPTIONS, 0);
    assert!(text.contains("behind entry 2@1 (case C)") && text.contains("Entry(Normal) 3@1"), "{text}");
    let report = check(&disk, Path::new(DIR)).expect("checked");
    assert_eq!(report.findings.len(), 1);
    assert!(!report.findings[0].harmless);
}

/// Scenario: a segment is begun, its seal is lost in a power cut, and a bit of its only group is bad. No begin follows,
/// but the segment has its name, so the group was durable (case D).
#[test]
fn damage_in_the_first_group_of_a_segment_needs_no_seal_to_be_found() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    let mut index = 0;
    while segment_files(&disk).len() < 2 {
        index += 1;
        both.entries(index, index, &[3; 600]);
    }
    let point = disk.point();
    let unsealed = Survivors { label: String::new(), fates: vec![Fate::Lost; point.pending().len()] };
    let disk = point.image(&unsealed);
    assert_eq!(open_at(&point.image(&unsealed), 0).log.last().index, index, "the seals are not needed");
    let newest = segment_files(&disk).remove(1);
    disk.damage(&newest, 512 + 300, Damage::Flip { bit: 0 }).expect("damaged");
    let text = refusal(&disk, OPTIONS, 0);
    assert!(text.contains("(case D)"), "{text}");
}

/// Everything before a named segment is checked against what its header says about it: a last group that is gone
/// without a trace, seal and all, does not look like an end (case F).
#[test]
fn a_complete_segment_that_ends_too_early_is_damage() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.entries(1, 20, &[3; 600]);
    let report = check(&disk, Path::new(DIR)).expect("checked");
    let (path, end) = &report.ends[1];
    disk.damage(path, end - 3 * 512, Damage::Zero { len: 3 * 512 }).expect("damaged");
    let text = refusal(&disk, OPTIONS, 0);
    assert!(text.contains("(case F): chain does not lead to"), "{text}");
    let findings = check(&disk, Path::new(DIR)).expect("checked").findings;
    assert_eq!(findings.len(), 1);
    assert_eq!(&findings[0].file, path);
}

/// W-19: a record of an earlier opening is not taken up, even with the right chain in the right place.
#[test]
fn every_opening_has_its_number_and_older_ones_are_over() {
    let disk = SimDisk::new();
    for openings in 1..4 {
        open_at(&disk, 0);
        assert_eq!(check(&disk, Path::new(DIR)).expect("checked").openings, openings);
    }
    let report = check(&disk, Path::new(DIR)).expect("checked");
    let (path, end) = report.ends[0].clone();
    let seal_at = end - SECTOR;
    for (opening, last) in [(2, 0), (3, 1)] {
        let mut bytes = disk.bytes(&path).expect("there");
        let seal: [u8; 40] = bytes[seal_at as usize..][..40].try_into().expect("40 bytes");
        let seed = format::seed(OPTIONS.salt, OPTIONS.cluster, OPTIONS.member, 1);
        let chain = format::parse_record(&seal, seed, seal_at).expect("a seal").crc;
        let kind = format::Kind::Entry(EntryKind::Normal);
        let record = format::NewRecord { kind, id: EntryId::new(1, 1), chain, opening };
        let mut forged = Vec::new();
        format::put_record(&mut forged, seed, seal_at + 40, record, b"late");
        let at = seal_at as usize + 40;
        bytes[at..at + forged.len()].copy_from_slice(&forged);
        let copy = SimDisk::new();
        copy.put(&path, &bytes);
        assert_eq!(open_at(&copy, 0).log.last().index, last, "opening {opening}");
    }
}

/// W-5: each removal is durable before the next, and before the file is used again.
#[test]
fn segments_are_removed_one_by_one() {
    let disk = SimDisk::new();
    let mut both = Both::open(&disk, 0);
    both.entries(1, 40, &[1; 300]);
    let segments = segment_files(&disk);
    both.log.release(40);
    disk.record();
    both.do_chores();
    let calls: Vec<(Call, PathBuf)> = disk.points().into_iter().filter_map(|point| point.next).collect();
    let (removals, rest) = calls.split_at(2 * (segments.len() - 1));
    for (pair, segment) in removals.chunks(2).zip(&segments) {
        assert_eq!((pair[0].0, &pair[0].1, pair[1].0), (Call::Rename, segment, Call::SyncDir));
    }
    // What became no spare goes in pieces, and is nobody's segment meanwhile.
    let removed = rest.iter().filter(|(call, _)| *call == Call::Remove).count();
    assert_eq!(removed, segments.len() - 1 - SPARES_MAX);
    assert_eq!(rest.iter().filter(|(call, _)| *call == Call::SetLen).count(), 15 * removed);
    assert!(rest.iter().all(|(_, path)| !segments.contains(path)));
}

/// The same on files of the operating system, with a roll, a read-back, a release and a recycled segment.
#[test]
fn it_works_on_real_files() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("member/wal");
    let disk = OsDisk;
    let payload = vec![9; 700];
    let mut opened = open(&disk, &dir, OPTIONS, 0).expect("a new log");
    let chores = |log: &mut Log<OsDisk>| {
        for chore in log.chores() {
            log.chore_done(chore.run()).expect("chores go well");
        }
    };
    for index in 1..=30 {
        let batch = opened.log.append(index, None, vec![entry(index, 1, &payload)]);
        let written = opened.writer.write(vec![batch]).expect("written");
        opened.log.written(written);
        chores(&mut opened.log);
    }
    assert_eq!(opened.log.entries(2, 3, usize::MAX), Err(LogGap::NotNow));
    chores(&mut opened.log);
    assert_eq!(opened.log.entries(2, 2, 1), Ok(vec![entry(2, 1, &payload)]));
    opened.log.release(20);
    chores(&mut opened.log);
    drop(opened);
    let opened = open(&disk, &dir, OPTIONS, 19).expect("a sound log");
    assert_eq!((opened.log.last().index, opened.notes.len()), (30, 0));
    assert!(opened.log.first_index() > 1);
    assert_eq!(check(&disk, &dir).expect("checked").findings, []);
}

// ---- against a model ----

/// Random batches, replacements, resets, releases and reopenings, held against a vector.
#[test]
fn the_log_is_a_vector_that_survives() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new();
        let mut both = Both::open(&disk, 0);
        let (mut base, mut model): (EntryId, Vec<Entry>) = (EntryId::ZERO, Vec::new());
        let mut hard_state = HardState { term: 1, vote: 0 };
        let mut applied = 0;
        for _ in 0..60 {
            let last = model.last().map_or(base, |entry| entry.id);
            match rng.below(12) {
                0 => {
                    both = Both::open(&disk, applied);
                }
                1 => {
                    applied = rng.between(applied, last.index);
                    both.log.release(applied + 1);
                    both.do_chores();
                }
                2 if rng.one_in(3) => {
                    base = EntryId::new(hard_state.term, last.index + rng.below(5));
                    applied = base.index;
                    model.clear();
                    both.number += 1;
                    let batch = both.log.reset(both.number, base, hard_state);
                    let written = both.writer.write(vec![batch]).expect("written");
                    both.log.written(written);
                }
                action => {
                    if action < 5 {
                        hard_state = HardState { term: hard_state.term + 1, vote: rng.below(3) };
                        let from = rng.between(applied.max(base.index) + 1, last.index + 1);
                        model.retain(|entry| entry.id.index < from);
                    }
                    let start = model.last().map_or(base.index, |entry| entry.id.index) + 1;
                    let entries: Vec<Entry> = (start..=start + rng.below(4))
                        .map(|index| {
                            entry(index, hard_state.term, &vec![index as u8; rng.below(900) as usize])
                        })
                        .collect();
                    model.extend(entries.iter().cloned());
                    both.append(Some(hard_state), entries).expect("written");
                }
            }
            let last = model.last().map_or(base, |entry| entry.id);
            assert_eq!(both.log.last(), last, "seed {seed}");
            let first = both.log.first_index();
            assert!(first <= applied + 1, "seed {seed}: {first} {applied}");
            if let Some(from) = model.iter().map(|entry| entry.id.index).find(|index| *index >= first) {
                let at = rng.between(from, last.index);
                let expected = model.iter().find(|entry| entry.id.index == at).expect("in the model");
                assert_eq!(both.log.term(at), Some(expected.id.term));
                assert_eq!(both.read(at, at), std::slice::from_ref(expected), "seed {seed}");
            }
        }
        let report = check(&disk, Path::new(DIR)).expect("checked");
        assert_eq!(report.findings, [], "seed {seed}");
        assert_eq!((report.last, report.owner), (both.log.last(), Some((0xc1, 0x3e))));
    }
}
