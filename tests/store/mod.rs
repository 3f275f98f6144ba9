//! The store against a model, through checkpoints, restarts, power cuts and snapshots, on the simulated disk.

mod compact;
mod crash;
mod hash_kv;
mod lease;
mod model;
mod random;
mod rules;
mod semantics;
mod snapshot;
mod txn;

use std::path::Path;

use bytes::Bytes;
use pawl::api::{Body, Command, Compact, Delete, Member, Put, Span};
use pawl::base::EntryId;
use pawl::io::Disk;
use pawl::io::sim::SimDisk;
use pawl::store::{self, Identity, Options, Store};

const PATH: &str = "d/tree";
const IDENTITY: Identity = Identity { cluster: 0xc1, member: 1 };

fn path() -> &'static Path {
    Path::new(PATH)
}

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("d")).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    disk
}

fn options(page_bytes: usize) -> Options {
    Options { page_bytes, file_id: 0x5eed }
}

fn members() -> Vec<Member> {
    (1..=3)
        .map(|id| Member { id, peer_urls: vec![format!("http://127.0.0.1:{id}2380")], ..Member::default() })
        .collect()
}

fn new_store(disk: &SimDisk, page_bytes: usize) -> Store<SimDisk> {
    Store::create(disk, path(), IDENTITY, &members(), options(page_bytes)).unwrap()
}

/// Applies the next entry.
fn apply(store: &mut Store<SimDisk>, command: &Command) -> Body {
    let next = EntryId::new(1, store.applied().index + 1);
    store.apply(next, Some(command)).unwrap()
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Command {
    Command::Put(Put { key: key.into(), value: value.into(), ..Put::default() })
}

fn delete(span: Span) -> Command {
    Command::Delete(Delete { span, prev_kv: false })
}

/// A whole checkpoint, at once.
fn checkpoint(store: &mut Store<SimDisk>) {
    if let Some(work) = store.begin_checkpoint().unwrap() {
        let done = work.run(&|| ()).unwrap();
        store.end_checkpoint(done).unwrap();
    }
}

/// Hashes of what the store holds, and of what entries did to it.
fn content(store: &Store<SimDisk>) -> (u64, u64) {
    (store.content_hash().unwrap(), store.hash())
}

/// Writes everything out and has the checkers look at it.
fn assert_sound(disk: &SimDisk, mut store: Store<SimDisk>) {
    checkpoint(&mut store);
    let (revision, applied) = (store.revision(), store.applied().index);
    drop(store);
    let report = store::check(disk, path()).unwrap();
    assert_eq!(report.findings, Vec::<String>::new());
    assert_eq!((report.revision, report.applied_index), (revision, applied));
    let leftovers: Vec<_> = disk.files().into_iter().filter(|(file, _)| file != path()).collect();
    assert_eq!(leftovers, [], "nothing but the store is on the disk");
}
