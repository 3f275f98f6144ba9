//! What lies on the disk, and the stream that becomes a file. The disk is a simulated one.

use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use pawl::api::{Command, Delete, Member, Put, Range, Span};
use pawl::base::crc::crc32_from;
use pawl::base::{EntryId, Rng};
use pawl::io::Disk;
use pawl::io::sim::SimDisk;
use pawl::raft::{Entry, EntryKind, HardState};
use pawl::store::{self, Identity, Incoming, Options, Store};
use pawl::wal;

const IDENTITY: Identity = Identity { cluster: 0xc1, member: 1 };
const OPTIONS: Options = Options { page_bytes: 256, file_id: 7 };

fn tree_path() -> &'static Path {
    Path::new("d/tree")
}

fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("d")).expect("a simulated disk works");
    disk
}

/// A small store with every kind of record, checkpointed.
fn filled_store(disk: &SimDisk) -> Store<SimDisk> {
    let members = [Member { id: 1, peer_urls: vec!["http://127.0.0.1:2380".into()], ..Member::default() }];
    let mut store = Store::create(disk, tree_path(), IDENTITY, &members, OPTIONS).expect("a new store");
    let put = |key: String, bytes| {
        Command::Put(Put { key: key.into(), value: vec![b'v'; bytes].into(), ..Put::default() })
    };
    let mut commands: Vec<Command> = (0..30).map(|n| put(format!("key\0{}", n % 12), n * 3)).collect();
    commands.push(Command::Delete(Delete { span: Span::Prefix("key\x001".into()), prev_kv: false }));
    commands.push(put("large".into(), 1500));
    for (at, command) in commands.iter().enumerate() {
        store.apply(EntryId::new(1, at as u64 + 1), Some(command)).expect("a command that applies");
    }
    let checkpoint = store.begin_checkpoint().expect("no error").expect("there are changes");
    let done = checkpoint.run().expect("a simulated disk works");
    store.end_checkpoint(done).expect("it ends");
    store
}

pub fn store_seeds() -> Vec<Vec<u8>> {
    let disk = new_disk();
    drop(filled_store(&disk));
    vec![disk.bytes(tree_path()).expect("the file is there")]
}

/// A damaged file is refused, or told of, or (where nothing uses the damaged byte) read: never a panic, and never
/// two different answers.
pub fn store(input: &[u8], _rng: &mut Rng) {
    let disk = new_disk();
    disk.put(tree_path(), input);
    let sound = store::check(&disk, tree_path()).is_ok_and(|report| report.findings.is_empty());
    let opened = Store::open(&disk, tree_path());
    assert!(!sound || opened.is_ok(), "a sound file opens");
    let Ok(mut store) = opened else { return };
    let all = Range::new(Span::Prefix(Bytes::new()));
    let read = store.range(&all);
    assert!(!sound || read.is_ok(), "a sound file is read");
    let next = EntryId::new(store.applied().term, store.applied().index.wrapping_add(1));
    let put = Command::Put(Put { key: "key\x003".into(), value: "new".into(), ..Put::default() });
    let applied = store.apply(next, Some(&put));
    assert!(!sound || applied.is_ok(), "a sound file is written");
}

fn seed_stream() -> &'static [u8] {
    static STREAM: OnceLock<Vec<u8>> = OnceLock::new();
    STREAM.get_or_init(|| {
        let mut store = filled_store(&new_disk());
        let mut snapshot = store.pin();
        let mut stream = Vec::new();
        while let Some(chunk) = snapshot.next_chunk(&store, 64 << 10).expect("it reads") {
            stream.extend_from_slice(&chunk[4..]);
        }
        stream
    })
}

pub fn snapshot_seeds() -> Vec<Vec<u8>> {
    vec![seed_stream().to_vec()]
}

/// The input is a stream without its chunks; they are made here, with good checksums. What is installed from
/// anything but the seed has the seed's digest, and so its content.
pub fn snapshot(input: &[u8], rng: &mut Rng) {
    let disk = new_disk();
    let mut incoming = Incoming::begin(&disk, tree_path(), IDENTITY, OPTIONS);
    let (mut chain, mut number) = (0, 0);
    let mut rest = input;
    let work = |incoming: &mut Incoming<SimDisk>| {
        while let Some(job) = incoming.job().expect("a simulated disk works") {
            // What waits for the file to exist is looked at when it does.
            incoming.job_done(job.run().expect("a simulated disk works")).ok()?;
        }
        Some(())
    };
    while !rest.is_empty() && !incoming.is_whole() {
        if work(&mut incoming).is_none() {
            return;
        }
        let (piece, after) = rest.split_at(rng.between(1, rest.len() as u64) as usize);
        rest = after;
        chain = crc32_from(chain, piece);
        let chunk = [&chain.to_le_bytes()[..], piece].concat();
        if incoming.take(number, chunk.into()).is_err() {
            return;
        }
        number += 1;
    }
    if work(&mut incoming).is_some() && incoming.installed() {
        let store = incoming.into_store().expect("what was installed opens");
        assert!(store.range(&Range::new(Span::Prefix(Bytes::new()))).is_ok());
        drop(store);
        let report = store::check(&disk, tree_path()).expect("what was installed can be checked");
        assert_eq!(report.findings, Vec::<String>::new());
    }
}

fn wal_options() -> wal::Options {
    wal::Options { segment_bytes: 8192, cluster: 0xc1, member: 1, salt: 5 }
}

pub fn wal_seeds() -> Vec<Vec<u8>> {
    let disk = new_disk();
    let opened = wal::open(&disk, Path::new("d"), wal_options(), 0).expect("a new log");
    let (mut log, mut writer) = (opened.log, opened.writer);
    for number in 1..=3 {
        let entry = |index| Entry {
            id: EntryId::new(1, index),
            kind: EntryKind::Normal,
            payload: vec![b'p'; index as usize * 20].into(),
        };
        let hard_state = (number == 1).then_some(HardState { term: 1, vote: 1 });
        let batch = log.append(number, hard_state, vec![entry(number * 2 - 1), entry(number * 2)]);
        let written = writer.write(vec![batch]).expect("a simulated disk works");
        log.written(written);
    }
    drop((log, writer));
    let segments = disk.files().into_iter().filter(|(path, _)| is_segment(path));
    segments.map(|(path, _)| disk.bytes(&path).expect("the file is there")).collect()
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal")
}

/// A log whose only segment is the input. What opens, opens again with the same content.
pub fn wal(input: &[u8], _rng: &mut Rng) {
    static NAME: OnceLock<std::path::PathBuf> = OnceLock::new();
    let name = NAME.get_or_init(|| {
        let disk = new_disk();
        drop(wal::open(&disk, Path::new("d"), wal_options(), 0).expect("a new log"));
        disk.files().into_iter().map(|(path, _)| path).find(|path| is_segment(path)).expect("a segment")
    });
    let disk = new_disk();
    disk.put(name, input);
    drop(wal::check(&disk, Path::new("d")));
    let Ok(first) = wal::open(&disk, Path::new("d"), wal_options(), 0) else { return };
    let (last, hard_state) = (first.log.last(), first.hard_state);
    drop(first);
    let again = wal::open(&disk, Path::new("d"), wal_options(), 0).expect("what was recovered opens again");
    assert_eq!((again.log.last(), again.hard_state), (last, hard_state));
}
