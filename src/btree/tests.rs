//! The tree against a `BTreeMap`, in small. The long runs and the crashes are in `tests/btree_*.rs`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::Rng;
use crate::io::sim::{Call, Fault, Profile, SimDisk};

use super::*;

type Model = BTreeMap<Vec<u8>, (Vec<u8>, bool)>;

fn path() -> &'static Path {
    Path::new("tree")
}

fn new_tree(page_bytes: usize) -> (SimDisk, Tree<SimDisk>) {
    let disk = SimDisk::new();
    let tree = Tree::create(&disk, path(), Options { page_bytes, file_id: 7 }, b"start").expect("a new file");
    (disk, tree)
}

fn checkpoint(tree: &mut Tree<SimDisk>) {
    if let Some(work) = tree.begin_checkpoint().expect("room") {
        let done = work.run(&|| ()).expect("a sound disk");
        tree.end_checkpoint(done).expect("a sound disk");
    }
}

fn assert_sound(disk: &SimDisk) {
    let report = check(disk, path()).expect("it opens");
    assert_eq!(report.findings, Vec::<String>::new());
}

/// Everything that can be asked agrees with the model.
fn assert_same(tree: &Tree<SimDisk>, view: View, model: &Model, rng: &mut Rng) {
    let mut cursor = tree.cursor(view, 1);
    let mut more = cursor.first().expect("sound");
    for (key, (value, counted)) in model {
        assert!(more, "the tree ends before {key:?}");
        assert_eq!(&*cursor.key().expect("sound"), &key[..]);
        assert_eq!(&cursor.value().to_vec().expect("sound"), value);
        assert_eq!(cursor.counted(), *counted);
        more = cursor.next().expect("sound");
    }
    assert!(!more && !cursor.valid());
    let mut more = cursor.last().expect("sound");
    for key in model.keys().rev() {
        assert!(more);
        assert_eq!(&*cursor.key().expect("sound"), &key[..]);
        more = cursor.prev().expect("sound");
    }
    assert!(!more);
    for _ in 0..20 {
        let (from, to) = (random_key(rng, 300), random_key(rng, 300));
        let after = model.range(from.clone()..).next();
        assert_eq!(cursor.seek(&from).expect("sound"), after.is_some());
        if let Some((key, _)) = after {
            assert_eq!(&*cursor.key().expect("sound"), &key[..]);
        }
        let before = model.range(..from.clone()).next_back();
        assert_eq!(cursor.seek_before(&from).expect("sound"), before.is_some());
        if let Some((key, _)) = before {
            assert_eq!(&*cursor.key().expect("sound"), &key[..]);
        }
        // Near where it is, and far from there.
        let near = model.range(from.clone()..).take(3).map(|(key, _)| key.clone());
        for key in near.chain([random_key(rng, 300)]).chain([from.clone()]) {
            let there = model.get(&key);
            assert_eq!(cursor.find(&key).expect("sound"), there.is_some());
            assert_eq!(cursor.valid(), there.is_some());
            if let Some((value, _)) = there {
                let found = cursor.value().to_vec().expect("sound");
                assert_eq!((&*cursor.key().expect("sound"), &found), (&key[..], value));
            }
        }
        let counted = |entries: &mut dyn Iterator<Item = (&Vec<u8>, &(Vec<u8>, bool))>| {
            entries.filter(|(_, (_, counted))| *counted).count() as u64
        };
        let all = counted(&mut model.range(from.clone()..));
        assert_eq!(tree.count(view, 1, &from, None).expect("sound"), all);
        if from <= to {
            let some = counted(&mut model.range(from.clone()..to.clone()));
            assert_eq!(tree.count(view, 1, &from, Some(&to)).expect("sound"), some);
        } else {
            assert_eq!(tree.count(view, 1, &from, Some(&to)).expect("sound"), 0);
        }
        let got = tree.get(view, 1, &from).expect("sound").map(|value| value.to_vec().expect("sound"));
        assert_eq!(got.as_ref(), model.get(&from).map(|(value, _)| value));
    }
}

/// Short keys, keys with long common starts, keys longer than a page of 256.
fn random_key(rng: &mut Rng, span: u64) -> Vec<u8> {
    let number = rng.below(span);
    match number % 7 {
        0 => number.to_be_bytes()[6..].to_vec(),
        1 => [&b"a long common start of the key "[..], &number.to_be_bytes()].concat(),
        2 => [&[b'x'; 400][..], &number.to_be_bytes()].concat(),
        3 => vec![b'y'; number as usize],
        _ => format!("key{number}").into_bytes(),
    }
}

fn random_value(rng: &mut Rng) -> Vec<u8> {
    let length = match rng.below(12) {
        0 => 0,
        1 => rng.below(3_000),
        2..=4 => rng.below(300),
        _ => rng.below(40),
    };
    let mut value = vec![0; length as usize];
    rng.fill(&mut value);
    value
}

/// By any of the ways there are.
fn insert(
    tree: &mut Tree<SimDisk>,
    model: &Model,
    rng: &mut Rng,
    key: &[u8],
    value: &[&[u8]],
    counted: bool,
) {
    let mut cursor = tree.cursor(View::Now, 1);
    let spot = match rng.below(3) {
        0 => return tree.insert(1, key, value, counted).expect("sound"),
        1 => return tree.append(1, key, value, counted).expect("sound"),
        _ => cursor.seek_spot(key).expect("sound"),
    };
    let there = model.get(key);
    assert_eq!((spot.is_taken(), cursor.valid()), (there.is_some(), there.is_some()));
    if let Some((value, _)) = there {
        assert_eq!((&*cursor.key().expect("sound"), &cursor.value().to_vec().expect("sound")), (key, value));
    }
    tree.insert_at(spot, key, value, counted).expect("sound");
}

fn change(tree: &mut Tree<SimDisk>, model: &mut Model, rng: &mut Rng, removes: u64) {
    let key = random_key(rng, 300);
    if rng.below(10) < removes {
        assert_eq!(tree.remove(1, &key).expect("sound"), model.remove(&key).is_some());
    } else {
        let (value, counted) = (random_value(rng), rng.one_in(2));
        let (a, b) = value.split_at(value.len() / 3);
        insert(tree, model, rng, &key, &[a, b], counted);
        model.insert(key, (value, counted));
    }
}

/// Random changes, with checkpoints, reopening, and views that must not move.
fn run_model(page_bytes: usize, seed: u64, steps: usize) {
    let mut rng = Rng::new(seed);
    let (disk, mut tree) = new_tree(page_bytes);
    let mut model = Model::new();
    let mut pins: Vec<(View, Model)> = Vec::new();
    for step in 0..steps {
        // Times of growing and times of shrinking.
        let removes = if step / 400 % 2 == 0 { 2 } else { 8 };
        change(&mut tree, &mut model, &mut rng, removes);
        match rng.below(120) {
            0..4 => checkpoint(&mut tree),
            4 if pins.is_empty() => {
                checkpoint(&mut tree);
                drop(tree);
                assert_sound(&disk);
                tree = Tree::open(&disk, path()).expect("it opens");
                assert_same(&tree, View::Now, &model, &mut rng);
            }
            5..7 => pins.push((tree.pin(), model.clone())),
            7..10 if !pins.is_empty() => {
                let (view, old) = pins.swap_remove(rng.below(pins.len() as u64) as usize);
                assert_same(&tree, view, &old, &mut rng);
                tree.unpin(view);
            }
            10 => assert_same(&tree, View::Now, &model, &mut rng),
            11 => {
                // Changes while the checkpoint is being written.
                if let Some(work) = tree.begin_checkpoint().expect("room") {
                    for _ in 0..rng.below(20) {
                        change(&mut tree, &mut model, &mut rng, removes);
                    }
                    let done = work.run(&|| ()).expect("a sound disk");
                    change(&mut tree, &mut model, &mut rng, removes);
                    tree.end_checkpoint(done).expect("a sound disk");
                }
            }
            _ => {}
        }
    }
    for (view, old) in pins {
        assert_same(&tree, view, &old, &mut rng);
        tree.unpin(view);
    }
    assert_same(&tree, View::Now, &model, &mut rng);
    checkpoint(&mut tree);
    assert_sound(&disk);
    for key in model.keys() {
        assert!(tree.remove(1, key).expect("sound"));
    }
    assert_eq!(tree.stats().depth, [0; ROOTS]);
    (0..4).for_each(|i| {
        tree.set_user(&[i]);
        checkpoint(&mut tree);
    });
    assert_sound(&disk);
    assert_eq!(tree.stats().used_pages, 1, "an empty tree keeps its map page only");
}

#[test]
fn it_is_a_map_with_the_smallest_pages() {
    for seed in 0..4 {
        run_model(256, seed, 2_500);
    }
}

#[test]
fn it_is_a_map_with_larger_pages() {
    run_model(512, 10, 2_500);
    run_model(4096, 11, 2_500);
    run_model(65536, 12, 1_500);
}

/// The layout of a small tree, decoded, with the checksum of each page standing for its raw bytes. A change
/// here is a change of the format: section 5 of `storage-format.md` and its version number come first.
#[test]
fn the_format_does_not_change() {
    let (disk, mut tree) = new_tree(256);
    for key in 0..12u8 {
        tree.insert(0, &[b'a' + key], &[b"value ", &[b'0' + key; 20]], key % 2 == 0).expect("sound");
    }
    tree.insert(2, b"long value", &[&[b'v'; 300]], true).expect("sound");
    tree.insert(2, &[b'k'; 50], &[b"long key"], false).expect("sound");
    tree.set_user(b"applied 12");
    checkpoint(&mut tree);
    tree.remove(0, b"b").expect("sound");
    checkpoint(&mut tree);
    let dumped = dump(&disk, path()).expect("it opens");
    assert_eq!(dumped, include_str!("golden.txt"), "found:\n{dumped}");
}

/// Pages whose checksum is right and whose content is not: whoever can write checksums can still not make us
/// panic, read out of bounds or loop. Errors and wrong answers are both fair here.
#[test]
fn hostile_pages_end_in_errors() {
    let (mut errors, mut rounds) = (0, 0);
    for seed in [9, 10, 17] {
        let (disk, mut tree) = new_tree(256);
        let mut rng = Rng::new(seed);
        let mut model = Model::new();
        (0..150).for_each(|_| change(&mut tree, &mut model, &mut rng, 1));
        checkpoint(&mut tree);
        let good = disk.bytes(path()).expect("there");
        let used: Vec<u32> = tree.space().used().iter().collect();
        for &no in (0..20).flat_map(|_| &used) {
            let mut bytes = good.clone();
            spoil(&mut bytes[no as usize * 256..][..256], no, &mut rng);
            let hostile = SimDisk::new();
            hostile.put(path(), &bytes);
            rounds += 1;
            errors += u64::from(use_hostile(&hostile, &mut rng).is_err());
            let _ = check(&hostile, path());
        }
    }
    assert!(errors * 3 > rounds, "{errors} errors in {rounds} rounds");
}

/// Some bytes become others, under a checksum that is right.
fn spoil(page: &mut [u8], no: u32, rng: &mut Rng) {
    for _ in 0..=rng.below(3) {
        let at = if rng.one_in(2) { 16 + rng.below(30) } else { 4 + rng.below(252) } as usize;
        page[at] = match rng.below(4) {
            0 => 0,
            1 => 0xff,
            2 => page[at].wrapping_add(1),
            _ => rng.next_u64() as u8,
        };
    }
    format::seal_page(page, 7, no);
}

fn use_hostile(disk: &SimDisk, rng: &mut Rng) -> crate::base::Result<()> {
    let mut tree = Tree::open(disk, path())?;
    let mut cursor = tree.cursor(View::Now, 1);
    let (mut more, mut steps) = (cursor.first()?, 0);
    while more {
        cursor.key()?;
        cursor.value().to_vec()?;
        more = cursor.next()?;
        steps += 1;
        assert!(steps < 100_000, "a scan ends");
    }
    for _ in 0..8 {
        let key = random_key(rng, 300);
        match rng.below(4) {
            0 => drop(tree.remove(1, &key)?),
            1 => drop(tree.count(View::Now, 1, &key, None)?),
            _ => tree.insert(1, &key, &[&random_value(rng)], true)?,
        }
    }
    tree.move_tail(20)?;
    if let Some(work) = tree.begin_checkpoint()? {
        let done = work.run(&|| ())?;
        tree.end_checkpoint(done)?;
    }
    Ok(())
}

/// A sync fails, the process ends, and the page cache shows the next one what is on no disk. What that process then
/// builds must stand on what is.
#[test]
fn what_a_failed_sync_left_in_the_cache_is_not_built_on() {
    for failing in [0, 1] {
        let (disk, mut tree) = new_tree(256);
        let fill = |tree: &mut Tree<SimDisk>, first: u8| {
            for key in first..first + 40 {
                tree.insert(1, &[key], &[&[key; 60]], true).expect("sound");
            }
        };
        fill(&mut tree, 0);
        checkpoint(&mut tree);
        fill(&mut tree, 40);
        disk.fail(Fault::once(Call::Sync, "tree").after(failing));
        let work = tree.begin_checkpoint().expect("room").expect("there are changes");
        assert!(work.run(&|| ()).is_err());
        drop(tree);
        disk.end_process();
        let mut tree = Tree::open(&disk, path()).expect("the last good checkpoint");
        disk.record();
        for round in 0..3 {
            fill(&mut tree, 80 + round * 40);
            checkpoint(&mut tree);
        }
        for point in disk.points() {
            for (label, image) in point.crash_images(Profile::PosixWorst, failing, 2) {
                let tree = Tree::open(&image, path()).unwrap_or_else(|e| panic!("{label}: {e}"));
                assert!(tree.get(View::Now, 1, &[7]).expect("sound").is_some(), "{label}");
            }
        }
    }
}
