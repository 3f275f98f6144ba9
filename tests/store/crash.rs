//! Power cuts: after each one a restart finds a state of the store with the applied entry that belongs to it.

use super::snapshot::{install, send};
use super::*;
use pawl::api::Range;
use pawl::io::sim::Profile;

const PROFILES: [Profile; 3] = [Profile::PosixWorst, Profile::Ext4Ordered, Profile::Prefix];

/// A log, and the content after each of its entries.
fn script() -> (Vec<Command>, Vec<(u64, u64)>) {
    let mut log = Vec::new();
    for n in 0..24u32 {
        log.push(put(format!("key/{}", n % 7), vec![n as u8; (n as usize * 37) % 400]));
        if n % 5 == 4 {
            log.push(delete(Span::Prefix(format!("key/{}", n % 3).into())));
        }
    }
    let disk = disk();
    let mut store = new_store(&disk, 1024);
    let mut hashes = vec![content(&store)];
    for command in &log {
        apply(&mut store, command);
        hashes.push(content(&store));
    }
    (log, hashes)
}

#[test]
fn checkpoints_are_all_or_nothing() {
    let (log, hashes) = script();
    let disk = disk();
    let mut store = new_store(&disk, 256);
    disk.record();
    // (operations done, applied index that is durable by then)
    let mut durable = vec![(0, 0)];
    for (at, command) in log.iter().enumerate() {
        apply(&mut store, command);
        if at % 4 == 3 {
            checkpoint(&mut store);
            durable.push((disk.op_count(), store.applied().index));
        }
    }
    let mut images = 0;
    for point in disk.points() {
        let floor = durable.iter().rfind(|(op, _)| *op <= point.op).unwrap().1;
        for profile in PROFILES {
            for (label, image) in point.crash_images(profile, 1, 2) {
                let mut store =
                    Store::open(&image, path()).unwrap_or_else(|error| panic!("{label}: {error}"));
                let applied = store.applied().index;
                assert!(applied >= floor, "{label}: {applied} is before {floor}");
                assert_eq!(content(&store), hashes[applied as usize], "{label}");
                for command in &log[applied as usize..] {
                    apply(&mut store, command);
                }
                assert_eq!(content(&store), *hashes.last().unwrap(), "{label}");
                images += 1;
            }
        }
    }
    assert!(images > 200, "only {images} images");
}

#[test]
fn a_creation_is_all_or_nothing() {
    let disk = disk();
    disk.record();
    let hash = content(&new_store(&disk, 1024));
    let done = disk.op_count();
    for point in disk.points() {
        for (label, image) in PROFILES.iter().flat_map(|profile| point.crash_images(*profile, 1, 3)) {
            match Store::open(&image, path()) {
                Ok(store) => {
                    assert_eq!(content(&store), hash, "{label}");
                    assert_sound(&image, store);
                }
                Err(error) => {
                    assert!(point.op < done, "{label}: {error}");
                    assert!(!image.exists(path()).unwrap(), "{label}: {error}");
                    assert_sound(&image, new_store(&image, 1024));
                }
            }
        }
    }
}

#[test]
fn an_installation_leaves_the_old_store_or_the_new_one() {
    let identity = Identity { member: 2, ..IDENTITY };
    let (log, hashes) = script();
    let source = disk();
    let mut store = new_store(&source, 4096);
    log.iter().for_each(|command| drop(apply(&mut store, command)));
    let chunks = send(&mut store, 900);
    let (new_hash, new_applied) = (content(&store), store.applied());

    let target = disk();
    let mut old = Store::create(&target, path(), identity, &members(), options(1024)).unwrap();
    for command in &log[..5] {
        apply(&mut old, command);
    }
    checkpoint(&mut old);
    let old_applied = old.applied();
    drop(old);
    target.record();
    drop(install(&target, identity, options(1024), &chunks));
    let done = target.op_count();
    let (mut old_seen, mut new_seen) = (0, 0);
    for point in target.points() {
        for (label, image) in PROFILES.iter().flat_map(|profile| point.crash_images(*profile, 2, 2)) {
            let store = Store::open(&image, path()).unwrap_or_else(|error| panic!("{label}: {error}"));
            if store.applied() == new_applied {
                assert_eq!(content(&store), new_hash, "{label}");
                assert_eq!(
                    store.durable_applied(),
                    new_applied.index,
                    "{label}: both meta pages are complete"
                );
                new_seen += 1;
            } else {
                assert!(point.op < done, "{label}: installed and lost");
                assert_eq!(store.applied(), old_applied, "{label}");
                assert_eq!(content(&store), hashes[5], "{label}");
                old_seen += 1;
            }
            assert_eq!(store.identity(), identity);
            assert_eq!(image.files().len(), 1, "{label}: leftovers");
        }
    }
    assert!(old_seen > 10 && new_seen > 2, "{old_seen} old, {new_seen} new");
}

/// A checkpoint that fails for want of room is done again; nothing is lost.
#[test]
fn a_full_disk_only_delays_a_checkpoint() {
    let disk = disk();
    let mut store = new_store(&disk, 1024);
    for n in 0..600u32 {
        apply(&mut store, &put(format!("k{n}"), vec![1; 300]));
    }
    let used: u64 = disk.files().iter().map(|(_, bytes)| bytes).sum();
    disk.set_capacity(Some(used + 8_192));
    let work = store.begin_checkpoint().unwrap().unwrap();
    let error = work.run(&|| ()).err().unwrap();
    assert!(error.is_no_space(), "{error}");
    apply(&mut store, &put("meanwhile", "v"));
    disk.heal();
    let done = store.retry_checkpoint().run(&|| ()).unwrap();
    store.end_checkpoint(done).unwrap();
    assert_eq!(store.range(&Range::new(Span::From("".into()))).unwrap().unwrap().count, 601);
    assert_sound(&disk, store);
}
