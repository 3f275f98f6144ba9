//! Sound files, damaged as the input says: what is read back was once written, or there is an error.
//!
//! The input is a row of damages of 4 bytes: kind and file, offset (two bytes, in proportion to the file's
//! length), detail. Damages flip, zero, cut and move; they compose no new bytes, because whoever can do that can
//! also compose checksums.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use pawl::base::EntryId;
use pawl::btree::{self, Tree, View};
use pawl::io::sim::SimDisk;
use pawl::raft::{Entry, EntryKind, HardState, LogView};
use pawl::wal;

type Files = Vec<(PathBuf, Vec<u8>)>;

const SECTOR_BYTES: usize = 512;
const DAMAGES_MAX: usize = 8;

fn files_of(disk: &SimDisk) -> Files {
    let files = disk.files().into_iter();
    files.map(|(path, _)| (path.clone(), disk.bytes(&path).expect("it is listed"))).collect()
}

/// A disk with these files, damaged.
fn damaged(files: &Files, data: &[u8]) -> SimDisk {
    let mut files = files.clone();
    for damage in data.chunks_exact(4).take(DAMAGES_MAX) {
        let (kind, file) = (damage[0] % 5, usize::from(damage[0] / 5) % files.len());
        let bytes = &mut files[file].1;
        if bytes.is_empty() {
            continue;
        }
        let share = u64::from(u16::from_le_bytes([damage[1], damage[2]]));
        let at = ((share * bytes.len() as u64) >> 16) as usize;
        let detail = usize::from(damage[3]);
        match kind {
            0 => bytes[at] ^= 1 << (detail % 8),
            1 => {
                let end = (at + 1 + detail * 8).min(bytes.len());
                bytes[at..end].fill(0);
            }
            2 => bytes.truncate(at),
            // A sector comes back from an earlier place: what a recycled file or a misdirected write shows.
            3 => {
                let from = (detail * SECTOR_BYTES) % bytes.len() / SECTOR_BYTES * SECTOR_BYTES;
                let to = at / SECTOR_BYTES * SECTOR_BYTES;
                let len = SECTOR_BYTES.min(bytes.len() - from).min(bytes.len() - to);
                bytes.copy_within(from..from + len, to);
            }
            _ => bytes.extend(std::iter::repeat_n(0, detail * 16)),
        }
    }
    let disk = SimDisk::new();
    for (path, bytes) in &files {
        disk.put(path, bytes);
    }
    disk
}

/// A log as it may be found: hard state and all entries.
type LogState = (HardState, Vec<Entry>);

const WAL_OPTIONS: wal::Options =
    wal::Options { segment_bytes: 2048, cluster: 0xc1, member: 0x3e, salt: 0x5a17 };

fn wal_dir() -> &'static Path {
    Path::new("wal")
}

fn entry(index: u64, term: u64) -> Entry {
    let payload = Bytes::from(vec![index as u8; (index * 37 % 300) as usize]);
    Entry { id: EntryId::new(term, index), kind: EntryKind::Normal, payload }
}

/// Several segments, groups of one to three entries, a suffix that was replaced; and the log after each group.
fn sound_log() -> &'static (Files, Vec<LogState>) {
    static LOG: OnceLock<(Files, Vec<LogState>)> = OnceLock::new();
    LOG.get_or_init(|| {
        let disk = SimDisk::new();
        let wal::Opened { mut log, mut writer, .. } =
            wal::open(&disk, wal_dir(), WAL_OPTIONS, 0).expect("a new log");
        let mut state: LogState = (HardState::default(), Vec::new());
        let mut states = vec![state.clone()];
        let groups: [(u64, u64, u64); 10] = [
            (1, 1, 1), // first index, last index, term
            (2, 4, 1),
            (5, 5, 1),
            (6, 9, 2),
            (10, 12, 2),
            (9, 10, 3), // takes the place of 9@2 and all behind it
            (11, 14, 3),
            (15, 15, 3),
            (16, 20, 4),
            (21, 22, 4),
        ];
        for (number, (first, last, term)) in groups.into_iter().enumerate() {
            let hard_state = (state.0.term != term).then_some(HardState { term, vote: 0x3e });
            let entries: Vec<Entry> = (first..=last).map(|index| entry(index, term)).collect();
            state.0 = hard_state.unwrap_or(state.0);
            state.1.truncate(first as usize - 1);
            state.1.extend_from_slice(&entries);
            let batch = log.append(number as u64 + 1, hard_state, entries);
            log.written(writer.write(vec![batch]).expect("a sound disk"));
            for chore in log.chores() {
                log.chore_done(chore.run()).expect("a sound disk");
            }
            states.push(state.clone());
        }
        (files_of(&disk), states)
    })
}

/// The log opens as it was after some group, never as anything else; or it is refused.
pub fn wal_recover(data: &[u8]) {
    let (files, states) = sound_log();
    let disk = damaged(files, data);
    // The offline check reads the same files and may complain, but not panic.
    let _ = wal::check(&disk, wal_dir());
    let Ok(opened) = wal::open(&disk, wal_dir(), WAL_OPTIONS, 0) else { return };
    let last = opened.log.last().index;
    let entries = match last {
        0 => Vec::new(),
        _ => opened.log.entries(1, last, usize::MAX).expect("kept for replay"),
    };
    let found = (opened.hard_state, entries);
    // A group may be cut within: then its records up to the cut were whole, and the hard state is one of its time.
    let known = states.iter().any(|(_, entries)| entries.starts_with(&found.1));
    assert!(known, "entries that were never in the log in this order: {:?}", found.1);
    assert!(states.iter().any(|(hard_state, _)| *hard_state == found.0), "{:?} was never written", found.0);
    if data.len() < 4 {
        assert_eq!(Some(&found), states.last(), "nothing was damaged");
    }
}

type TreeState = BTreeMap<Vec<u8>, Vec<u8>>;

fn tree_path() -> &'static Path {
    Path::new("tree")
}

/// A tree of small pages after several checkpoints; the state at each, by number.
fn sound_tree() -> &'static (Files, BTreeMap<u64, TreeState>) {
    static TREE: OnceLock<(Files, BTreeMap<u64, TreeState>)> = OnceLock::new();
    TREE.get_or_init(|| {
        let disk = SimDisk::new();
        let options = btree::Options { page_bytes: 256, file_id: 0x7ee };
        let mut tree = Tree::create(&disk, tree_path(), options, b"fuzz").expect("a new file");
        let mut state = TreeState::new();
        let mut states = BTreeMap::from([(tree.stats().checkpoint, state.clone())]);
        for round in 0..6u64 {
            for number in 0..40 {
                let name = number * 7 % 64;
                let key = format!("key{name:03}").into_bytes();
                if (number + round).is_multiple_of(4) {
                    state.remove(&key);
                    tree.remove(0, &key).expect("a sound file");
                } else {
                    // Some values are longer than a page.
                    let value = vec![(round * 40 + number) as u8; (number * round * 13 % 700) as usize];
                    tree.insert(0, &key, &[&value], true).expect("a sound file");
                    state.insert(key, value);
                }
            }
            let checkpoint = tree.begin_checkpoint().expect("a sound file").expect("there are changes");
            tree.end_checkpoint(checkpoint.run(&|| ()).expect("a sound disk")).expect("a sound file");
            states.insert(tree.stats().checkpoint, state.clone());
        }
        (files_of(&disk), states)
    })
}

/// The tree opens at a checkpoint that it had, and then gives what was in it or an error.
pub fn tree_open(data: &[u8]) {
    let (files, states) = sound_tree();
    let disk = damaged(files, data);
    let _ = btree::check(&disk, tree_path());
    let Ok(tree) = Tree::open(&disk, tree_path()) else { return };
    let checkpoint = tree.stats().checkpoint;
    let state = states.get(&checkpoint).unwrap_or_else(|| panic!("checkpoint {checkpoint} was never made"));
    for number in 0..64 {
        let key = format!("key{number:03}").into_bytes();
        let Ok(found) = tree.get(View::Now, 0, &key) else { continue };
        let Ok(found) = found.map(|value| value.to_vec()).transpose() else { continue };
        assert_eq!(found.as_ref(), state.get(&key), "key {number} at checkpoint {checkpoint}");
    }
    let mut expected = state.iter();
    let mut cursor = tree.cursor(View::Now, 0);
    let mut more = cursor.first();
    while let Ok(true) = more {
        let (key, value) = expected.next().expect("no more than there was");
        match (cursor.key(), cursor.value().to_vec()) {
            (Ok(found_key), Ok(found)) => assert_eq!((&*found_key, &found), (&key[..], value)),
            _ => return,
        }
        more = cursor.next();
    }
    if more.is_ok() {
        assert_eq!(expected.next(), None, "a walk without an error misses nothing");
        assert!(
            tree.count(View::Now, 0, b"", None).is_ok_and(|count| count == state.len() as u64)
                || data.len() >= 4
        );
    }
}
