//! Snapshots: what arrives is what was sent, or the old store stays.

use super::*;
use pawl::api::Range;
use pawl::base::{Error, Result};
use pawl::store::Incoming;

/// All chunks of a snapshot of the present content.
pub fn send(store: &mut Store<SimDisk>, bytes_max: usize) -> Vec<Bytes> {
    let mut snapshot = store.pin();
    let mut chunks = Vec::new();
    while let Some(chunk) = snapshot.next_chunk(store, bytes_max).unwrap() {
        assert!(chunk.len() <= bytes_max);
        chunks.push(chunk);
    }
    store.unpin(snapshot);
    chunks
}

/// Does all the work that there is, at once.
fn work(incoming: &mut Incoming<SimDisk>) -> Result<()> {
    while let Some(job) = incoming.job()? {
        incoming.job_done(job.run()?)?;
    }
    Ok(())
}

fn try_install(
    disk: &SimDisk,
    identity: Identity,
    options: Options,
    chunks: &[Bytes],
) -> Result<Store<SimDisk>> {
    let mut incoming = Incoming::begin(disk, path(), identity, options);
    let outcome = (|| {
        for (number, chunk) in chunks.iter().enumerate() {
            work(&mut incoming)?;
            assert!(incoming.wants_more() && !incoming.is_whole());
            incoming.take(number as u64, chunk.clone())?;
        }
        work(&mut incoming)
    })();
    if let Err(error) = outcome {
        incoming.abandon().run()?;
        return Err(error);
    }
    if !incoming.installed() {
        incoming.abandon().run()?;
        return Err(Error::Refused("the stream did not end".into()));
    }
    incoming.into_store()
}

pub fn install(disk: &SimDisk, identity: Identity, options: Options, chunks: &[Bytes]) -> Store<SimDisk> {
    try_install(disk, identity, options, chunks).unwrap()
}

fn filled(page_bytes: usize, keys: u32) -> (SimDisk, Store<SimDisk>) {
    let disk = disk();
    let mut store = new_store(&disk, page_bytes);
    for n in 0..keys {
        apply(&mut store, &put(format!("key/{n}"), format!("value {n}")));
    }
    apply(&mut store, &delete(Span::Prefix("key/1".into())));
    apply(&mut store, &put("large", vec![7; 20_000]));
    (disk, store)
}

const OTHER: Identity = Identity { member: 2, ..IDENTITY };

#[test]
fn a_snapshot_is_of_the_moment_of_its_pin() {
    let (disk, mut store) = filled(512, 40);
    let (hash, applied) = (content(&store), store.applied());
    let mut snapshot = store.pin();
    assert_eq!(snapshot.at(), applied);
    let mut chunks = Vec::new();
    while let Some(chunk) = snapshot.next_chunk(&store, 200).unwrap() {
        chunks.push(chunk);
        apply(&mut store, &put(format!("key/{}", chunks.len() % 50), "while it is sent"));
        if chunks.len() % 7 == 0 {
            checkpoint(&mut store);
        }
    }
    store.unpin(snapshot);
    assert!(chunks.len() > 100, "a large value is cut into chunks too");

    let target = super::disk();
    let received = install(&target, OTHER, options(4096), &chunks);
    assert_eq!((content(&received), received.applied()), (hash, applied));
    assert_sound(&target, received);
    assert_sound(&disk, store);
}

#[test]
fn a_receiver_keeps_its_own_id_and_goes_on_from_there() {
    let (_disk, mut store) = filled(4096, 20);
    let target = disk();
    let mut received = install(&target, OTHER, options(4096), &send(&mut store, 1000));
    assert_eq!((received.identity(), received.durable_applied()), (OTHER, store.applied().index));
    let next = put("key/3", "afterwards");
    assert_eq!(apply(&mut received, &next), apply(&mut store, &next));
    assert_eq!(content(&received), content(&store));
    assert_sound(&target, received);
}

/// The checkpoint that runs when the end arrives has taken the record of an unfinished store, and stands for neither
/// of the two complete ones.
#[test]
fn both_slots_are_complete_even_if_the_end_comes_while_a_checkpoint_runs() {
    let source = disk();
    let mut store = new_store(&source, 4096);
    for n in 0..16 {
        apply(&mut store, &put(format!("key/{n}"), vec![n; 1 << 20]));
    }
    let mut chunks = send(&mut store, 1 << 20);
    let last = chunks.pop().unwrap();
    let target = disk();
    let mut incoming = Incoming::begin(&target, path(), OTHER, options(4096));
    let created = incoming.job().unwrap().expect("the file is made first");
    incoming.job_done(created.run().unwrap()).unwrap();
    for (number, chunk) in chunks.iter().enumerate() {
        incoming.take(number as u64, chunk.clone()).unwrap();
    }
    let running = incoming.job().unwrap().expect("so many pages are worth a checkpoint");
    incoming.take(chunks.len() as u64, last).unwrap();
    assert!(incoming.is_whole());
    incoming.job_done(running.run().unwrap()).unwrap();
    work(&mut incoming).unwrap();
    let received = incoming.into_store().unwrap();
    assert_eq!(received.durable_applied(), store.applied().index, "what the older slot falls back to");
    assert_eq!(content(&received), content(&store));
}

#[test]
fn damaged_streams_leave_the_old_store() {
    let (_disk, mut store) = filled(4096, 20);
    let chunks = send(&mut store, 700);
    assert!(chunks.len() > 5);
    let target = disk();
    let mut old = Store::create(&target, path(), OTHER, &members(), options(4096)).unwrap();
    apply(&mut old, &put("old", "content"));
    checkpoint(&mut old);
    let hash = content(&old);
    drop(old);

    let mut bad: Vec<(String, Vec<Bytes>)> = Vec::new();
    for at in 0..chunks.len() {
        let mut without = chunks.clone();
        without.remove(at);
        bad.push((format!("without chunk {at}"), without));
        if at + 1 < chunks.len() {
            let mut twice = chunks.clone();
            twice.insert(at, chunks[at].clone());
            bad.push((format!("chunk {at} twice"), twice));
        }
        for byte in [0, 3, 4, chunks[at].len() / 2, chunks[at].len() - 1] {
            let mut altered = chunks.clone();
            let mut bytes = altered[at].to_vec();
            bytes[byte] ^= 0x10;
            altered[at] = bytes.into();
            bad.push((format!("byte {byte} of chunk {at}"), altered));
        }
        let mut cut = chunks.clone();
        cut[at] = cut[at].slice(..cut[at].len() - 1);
        bad.push((format!("chunk {at} cut"), cut));
    }
    let mut swapped = chunks.clone();
    swapped.swap(1, 2);
    bad.push(("two swapped".into(), swapped));
    bad.push(("no chunk".into(), vec![]));
    bad.push(("an empty chunk".into(), vec![Bytes::new()]));
    for (what, chunks) in bad {
        assert!(try_install(&target, OTHER, options(4096), &chunks).is_err(), "{what}");
    }
    let old = Store::open(&target, path()).unwrap();
    assert_eq!(content(&old), hash);
    assert_sound(&target, old);
}

/// Damage that the chunks' checksums cannot see, because the sender made them over it.
#[test]
fn a_sender_that_skips_a_cell_is_found_out_by_the_end() {
    let (_disk, mut store) = filled(4096, 20);
    let stream: Vec<u8> = send(&mut store, 10_000).iter().flat_map(|chunk| chunk[4..].to_vec()).collect();
    let head = 80;
    let cell = 10 + u32::from_le_bytes(stream[head + 2..head + 6].try_into().unwrap()) as usize;
    let value_at = head + cell - 4;
    let cell = cell + u32::from_le_bytes(stream[value_at..value_at + 4].try_into().unwrap()) as usize;
    let chunk = |stream: &[u8]| {
        let mut chunk = pawl::base::crc::crc32_from(0, stream).to_le_bytes().to_vec();
        chunk.extend_from_slice(stream);
        [Bytes::from(chunk)]
    };
    let target = disk();
    install(&target, OTHER, options(4096), &chunk(&stream));

    let mut skipped = stream[..head].to_vec();
    skipped.extend_from_slice(&stream[head + cell..]);
    let error = try_install(&target, OTHER, options(4096), &chunk(&skipped)).err().unwrap().to_string();
    assert!(error.contains("cells with digest"), "{error}");

    let mut twice = stream[..head + cell].to_vec();
    twice.extend_from_slice(&stream[head..]);
    let error = try_install(&target, OTHER, options(4096), &chunk(&twice)).err().unwrap().to_string();
    assert!(error.contains("out of order"), "{error}");

    // A key that is there, sent as one that does not count.
    let mut uncounted = stream.clone();
    uncounted[head + 1] ^= 1;
    let error = try_install(&target, OTHER, options(4096), &chunk(&uncounted)).err().unwrap().to_string();
    assert!(error.contains("counted and deleted, or neither"), "{error}");

    let mut longer = stream.clone();
    longer.push(0);
    assert!(try_install(&target, OTHER, options(4096), &chunk(&longer)).is_err());
}

#[test]
fn another_cluster_is_refused() {
    let (_disk, mut store) = filled(4096, 2);
    let chunks = send(&mut store, 1000);
    let foreign = Identity { cluster: 0xbad, member: 2 };
    let error = try_install(&disk(), foreign, options(4096), &chunks).err().unwrap();
    assert_eq!(error.to_string(), "a snapshot of cluster c1 was sent to a member of cluster bad");
}

/// The receiver's disk fills up: an error, the file is gone, the old store stays, and a later attempt works.
#[test]
fn a_full_disk_ends_the_attempt() {
    let (_disk, mut store) = filled(4096, 200);
    let chunks = send(&mut store, 4000);
    let target = disk();
    drop(Store::create(&target, path(), OTHER, &members(), options(4096)).unwrap());
    let used: u64 = target.files().iter().map(|(_, bytes)| bytes).sum();
    target.set_capacity(Some(used + 40_000));
    let error = try_install(&target, OTHER, options(4096), &chunks).err().unwrap();
    assert!(error.is_no_space(), "{error}");
    assert_eq!(target.files().len(), 1);
    target.heal();
    let received = install(&target, OTHER, options(4096), &chunks);
    assert_eq!(content(&received), content(&store));
    let everything = Range::new(Span::Prefix(Bytes::new()));
    assert_eq!(received.range(&everything).unwrap(), store.range(&everything).unwrap());
}
