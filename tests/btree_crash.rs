//! The tree file on a disk that breaks: after every crash that the simulated disk can think of, the file is
//! exactly one of the checkpoints that were begun, never older than the last one acknowledged; and damage at
//! rest is an error or an older checkpoint, never other data.

use std::collections::BTreeMap;
use std::path::Path;

use pawl::base::{Error, Rng};
use pawl::btree::{Checkpoint, Options, Tree, View, check};
use pawl::io::sim::{Call, Damage, ENOSPC, Fault, Point, Profile, SimDisk};

type Model = BTreeMap<(usize, Vec<u8>), (Vec<u8>, bool)>;

const ROOTS_USED: usize = 2;

fn path() -> &'static Path {
    Path::new("tree")
}

/// The tree and everything that is known about it from outside.
struct Run {
    disk: SimDisk,
    tree: Tree<SimDisk>,
    model: Model,
    rng: Rng,
    /// The content of each checkpoint that was begun; the index is its number.
    states: Vec<Model>,
    /// (operations done, checkpoint): from then on this checkpoint is acknowledged.
    acknowledged: Vec<(u64, u64)>,
    /// (operations done, checkpoint): from then on it may be found.
    begun: Vec<(u64, u64)>,
    value_bytes_max: u64,
}

impl Run {
    fn new(page_bytes: usize, seed: u64, value_bytes_max: u64) -> Run {
        let disk = SimDisk::new();
        disk.record();
        let tree =
            Tree::create(&disk, path(), Options { page_bytes, file_id: seed }, b"1").expect("a new file");
        let acknowledged = vec![(disk.op_count(), 1)];
        Run {
            disk,
            tree,
            model: Model::new(),
            rng: Rng::new(seed),
            states: vec![Model::new(), Model::new()],
            acknowledged,
            begun: vec![(0, 1)],
            value_bytes_max,
        }
    }

    fn change(&mut self, inserts_in_10: u64) {
        let number = self.rng.below(60);
        let (root, key) = ((number % 2) as usize, key(number));
        if self.rng.below(10) < inserts_in_10 {
            let mut value = vec![0; self.rng.below(self.value_bytes_max) as usize];
            self.rng.fill(&mut value);
            let counted = self.rng.one_in(2);
            self.tree.insert(root, &key, &[&value], counted).expect("a sound disk");
            self.model.insert((root, key), (value, counted));
        } else {
            let there = self.tree.remove(root, &key).expect("a sound disk");
            assert_eq!(there, self.model.remove(&(root, key)).is_some());
        }
    }

    fn begin(&mut self) -> Checkpoint<SimDisk> {
        let number = self.states.len() as u64;
        self.tree.set_user(number.to_string().as_bytes());
        self.states.push(self.model.clone());
        self.begun.push((self.disk.op_count(), number));
        self.tree.begin_checkpoint().expect("room").expect("the record has changed")
    }

    fn end(&mut self, work: Checkpoint<SimDisk>) {
        let done = work.run(&|| ()).expect("a sound disk");
        self.tree.end_checkpoint(done).expect("a sound disk");
        self.acknowledged.push((self.disk.op_count(), self.states.len() as u64 - 1));
    }

    /// Some rounds of changes and a checkpoint, growing first, then shrinking, changes under way included.
    fn rounds(&mut self, count: usize, changes: u64) {
        for round in 0..count {
            let inserts = if round < count * 2 / 3 { 8 } else { 1 };
            let view = self.rng.one_in(3).then(|| self.tree.pin());
            (0..changes).for_each(|_| self.change(inserts));
            let work = self.begin();
            (0..self.rng.below(5)).for_each(|_| self.change(inserts));
            self.end(work);
            view.into_iter().for_each(|view| self.tree.unpin(view));
        }
    }

    /// Which checkpoints may be found at a point.
    fn allowed(&self, op: u64) -> std::ops::RangeInclusive<u64> {
        let last = |list: &[(u64, u64)]| list.iter().rev().find(|(at, _)| *at <= op).map_or(0, |(_, n)| *n);
        last(&self.acknowledged)..=last(&self.begun)
    }
}

fn key(number: u64) -> Vec<u8> {
    match number % 9 {
        0 => [&[b'k'; 300][..], &number.to_be_bytes()].concat(),
        1 | 2 => [&b"a common start of keys"[..], &number.to_be_bytes()].concat(),
        _ => number.to_be_bytes()[6..].to_vec(),
    }
}

/// Everything in the file, or the first error.
fn content(tree: &Tree<SimDisk>) -> Result<Model, Error> {
    let mut model = Model::new();
    for root in 0..ROOTS_USED {
        let mut cursor = tree.cursor(View::Now, root);
        let mut more = cursor.first()?;
        while more {
            let cell = (cursor.value().to_vec()?, cursor.counted());
            model.insert((root, cursor.key()?.into_owned()), cell);
            more = cursor.next()?;
        }
    }
    Ok(model)
}

fn assert_sound(disk: &SimDisk, label: &str) {
    let report = check(disk, path()).unwrap_or_else(|e| panic!("{label}: {e}"));
    assert!(report.findings.is_empty(), "{label}: {:#?}", report.findings);
}

/// Opens an image and holds it against what may be found at that point. The number found.
fn assert_recovers(run: &Run, point: &Point, label: &str, disk: &SimDisk) -> u64 {
    let allowed = run.allowed(point.op);
    let tree = Tree::open(disk, path()).unwrap_or_else(|e| panic!("{label}: {e}"));
    let number = tree.stats().checkpoint;
    assert!(allowed.contains(&number), "{label}: checkpoint {number}, allowed {allowed:?}");
    let found = content(&tree).unwrap_or_else(|e| panic!("{label}: {e}"));
    assert!(found == run.states[number as usize], "{label}: not the content of checkpoint {number}");
    assert_eq!(tree.user(), number.to_string().as_bytes(), "{label}");
    number
}

/// Crashes at every operation of a run; every `deep`th image goes on: more changes, a checkpoint, another crash.
fn crash_everywhere(run: &Run, profile: Profile, random: usize, deep: u64) -> u64 {
    let created = run.acknowledged[0].0;
    let (mut recoveries, mut rng) = (0, Rng::new(99));
    for point in run.disk.clone().points() {
        for (label, disk) in point.crash_images(profile, 7, random) {
            if point.op < created && !disk_has_tree(&disk) {
                continue; // The name was not durable yet; creating again must work.
            }
            let number = assert_recovers(run, &point, &label, &disk);
            assert_sound(&disk, &label);
            recoveries += 1;
            if rng.one_in(deep) {
                recoveries += go_on(run, number, &disk, &label, rng.next_u64());
            }
        }
        let label = format!("op {}: killed", point.op);
        let disk = point.kill_image();
        if disk_has_tree(&disk) {
            assert_recovers(run, &point, &label, &disk);
            recoveries += 1;
        }
    }
    recoveries
}

fn disk_has_tree(disk: &SimDisk) -> bool {
    pawl::io::Disk::exists(disk, path()).expect("a sound disk")
}

/// A recovered tree is as good as any: it takes changes and checkpoints, and survives the next crash.
fn go_on(run: &Run, number: u64, disk: &SimDisk, label: &str, seed: u64) -> u64 {
    disk.record();
    let tree = Tree::open(disk, path()).expect("it opened before");
    let mut next = Run {
        disk: disk.clone(),
        tree,
        model: run.states[number as usize].clone(),
        rng: Rng::new(seed),
        states: run.states[..=number as usize].to_vec(),
        acknowledged: vec![(0, number)],
        begun: vec![(0, number)],
        value_bytes_max: run.value_bytes_max,
    };
    next.rounds(2, 6);
    let mut recoveries = 0;
    for point in disk.points() {
        for (inner, image) in point.crash_images(Profile::PosixWorst, seed, 1).step_by(7) {
            let label = format!("{label}; then {inner}");
            assert_recovers(&next, &point, &label, &image);
            assert_sound(&image, &label);
            recoveries += 1;
        }
    }
    recoveries
}

#[test]
fn every_crash_leaves_the_last_checkpoint_or_the_one_before() {
    let mut recoveries = 0;
    for seed in 0..2 {
        let mut run = Run::new(256, seed, 400);
        run.rounds(12, 14);
        recoveries += crash_everywhere(&run, Profile::PosixWorst, 8, 400);
        // The points are gone with the first pass; the same run again for the other file systems.
        for profile in [Profile::Ext4Ordered, Profile::Prefix] {
            let mut run = Run::new(256, seed, 400);
            run.rounds(12, 14);
            recoveries += crash_everywhere(&run, profile, 2, 1000);
        }
    }
    assert!(recoveries > 35_000, "{recoveries} recoveries");
}

/// The file shrinks by far more than a growth step, and the crash may come before, between and after.
#[test]
fn a_crash_while_the_file_shrinks_loses_nothing() {
    let mut run = Run::new(512, 77, 9_000);
    run.rounds(5, 40);
    let large = run.tree.stats().file_bytes;
    run.rounds(3, 0);
    for number in 0..60 {
        let (root, key) = ((number % 2) as usize, key(number));
        run.tree.remove(root, &key).expect("a sound disk");
        run.model.remove(&(root, key));
    }
    run.rounds(5, 1);
    let small = run.tree.stats().file_bytes;
    assert!(small * 2 < large, "{large} bytes before, {small} after");
    let recoveries = crash_everywhere(&run, Profile::PosixWorst, 4, 400);
    assert!(recoveries > 3_000, "{recoveries} recoveries");
}

/// Every operation fails once, and for ever, on a disk that answers EIO or is full.
#[test]
fn every_failing_operation_is_an_error_and_no_loss() {
    let mut failures = 0;
    for call in [Call::Write, Call::Sync, Call::SetLen, Call::Allocate] {
        for nth in 0..60 {
            for errno in [pawl::io::sim::EIO, ENOSPC] {
                let mut run = Run::new(256, 5, 2_000);
                run.rounds(1, 8);
                run.disk.fail(Fault::once(call, "tree").after(nth).errno(errno));
                failures += u64::from(run_into_failure(&mut run, call, errno));
                assert_eq!(run.disk.syncs_after_failure(), 0);
                run.disk.heal();
                let point = run.disk.point();
                for (label, image) in point.crash_images(Profile::PosixWorst, nth, 2).step_by(5) {
                    assert_recovers(&run, &point, &label, &image);
                    assert_sound(&image, &label);
                }
            }
        }
    }
    assert!(failures > 50, "{failures}");
}

/// Runs until something fails. Out of room may be retried when there is room again; a sync never.
fn run_into_failure(run: &mut Run, call: Call, errno: i32) -> bool {
    for round in 0..10 {
        (0..8).for_each(|_| run.change(if round < 6 { 9 } else { 1 }));
        let work = run.begin();
        let error = match work.run(&|| ()) {
            Ok(done) => {
                run.tree.end_checkpoint(done).expect("a sound disk");
                run.acknowledged.push((run.disk.op_count(), run.states.len() as u64 - 1));
                continue;
            }
            Err(error) => error,
        };
        assert!(matches!(error, Error::Io { .. }), "{error}");
        if call != Call::Sync && errno == ENOSPC {
            assert!(error.is_no_space());
            run.change(9);
            let done = run.tree.retry_checkpoint().run(&|| ()).expect("there is room again");
            run.tree.end_checkpoint(done).expect("a sound disk");
            run.acknowledged.push((run.disk.op_count(), run.states.len() as u64 - 1));
            continue;
        }
        return true;
    }
    false
}

/// One flipped bit in a slot: the other slot's checkpoint. Both slots damaged: refused, with the place.
#[test]
fn every_flipped_bit_in_a_meta_slot_falls_back_to_the_other() {
    let mut run = Run::new(256, 3, 100);
    run.rounds(4, 10);
    let newest = run.states.len() as u64 - 1;
    let point = run.disk.point();
    for slot in [0u64, 1] {
        for bit in 0..512 * 8 {
            let disk = point.kill_image();
            disk.damage(path(), slot * 4096 + bit / 8, Damage::Flip { bit: (bit % 8) as u8 }).expect("there");
            let tree = Tree::open(&disk, path()).expect("the other slot is good");
            let expected = if newest % 2 == slot { newest - 1 } else { newest };
            assert_eq!(tree.stats().checkpoint, expected, "slot {slot} bit {bit}");
            assert_eq!(tree.notes().len(), 1);
            if bit % 64 == 0 {
                assert!(content(&tree).expect("sound") == run.states[expected as usize]);
                drop(tree);
                assert_sound(&disk, "after falling back");
                disk.damage(path(), (1 - slot) * 4096 + bit / 8, Damage::Flip { bit: 0 }).expect("there");
                assert!(matches!(Tree::open(&disk, path()).err(), Some(Error::Corrupt(_))));
            }
        }
    }
}

/// Damage of pages at rest, of every kind, in every used page: an error that names the file, or the content of
/// a checkpoint; never anything else.
#[test]
fn damaged_pages_are_errors_and_never_other_data() {
    let mut run = Run::new(256, 8, 600);
    run.rounds(8, 20);
    let newest = run.states.len() as u64 - 1;
    let point = run.disk.point();
    let pages = run.tree.stats().file_bytes / 256;
    let (mut rng, mut errors, mut fallbacks) = (Rng::new(1), 0, 0);
    for page in 8192 / 256..pages {
        for kind in 0..8 {
            let disk = point.kill_image();
            let at = page * 256;
            let (offset, damage) = match kind {
                0 => (at, Damage::Zero { len: 256 }),
                1 => (at, Damage::Garbage { len: 256, seed: page }),
                // A misdirected write: another page's bytes, sound in themselves.
                2 => (at, Damage::Copy { from: rng.between(32, pages - 1) * 256, len: 256 }),
                _ => (at + rng.below(256), Damage::Flip { bit: rng.below(8) as u8 }),
            };
            disk.damage(path(), offset, damage).expect("there");
            let sound = check(&disk, path()).is_ok_and(|report| report.findings.is_empty());
            match Tree::open(&disk, path()).and_then(|tree| Ok((tree.stats().checkpoint, content(&tree)?))) {
                Err(Error::Corrupt(damage)) => {
                    assert_eq!(damage.file, path());
                    assert!(!sound, "the checker sees it too: {damage}");
                    errors += 1;
                }
                Err(e) => panic!("page {page}: {e}"),
                Ok((number, found)) => {
                    assert!(number == newest || number + 1 == newest);
                    assert!(found == run.states[number as usize], "page {page} kind {kind}");
                    assert!(number == newest || !sound, "page {page}: the checker sees it too");
                    fallbacks += u64::from(number < newest);
                }
            }
        }
    }
    assert!(errors > 100 && fallbacks > 0, "{errors} errors, {fallbacks} fallbacks");
}

/// A write that the disk acknowledged and lost: the old page is sound in itself, but it is of an older
/// checkpoint than its link says.
#[test]
fn a_lost_write_is_noticed() {
    let mut run = Run::new(256, 21, 300);
    run.rounds(6, 12);
    let before = run.disk.bytes(path()).expect("there");
    run.rounds(2, 12);
    let after = run.disk.bytes(path()).expect("there");
    let newest = run.states.len() as u64 - 1;
    let (mut changed, mut noticed) = (0, 0);
    for page in 8192 / 256..before.len().min(after.len()) / 256 {
        let range = page * 256..(page + 1) * 256;
        if before[range.clone()] == after[range.clone()] {
            continue;
        }
        changed += 1;
        let mut bytes = after.clone();
        bytes[range.clone()].copy_from_slice(&before[range]);
        let disk = SimDisk::new();
        disk.put(path(), &bytes);
        match Tree::open(&disk, path()).and_then(|tree| Ok((tree.stats().checkpoint, content(&tree)?))) {
            Err(Error::Corrupt(_)) => noticed += 1,
            Err(e) => panic!("page {page}: {e}"),
            Ok((number, found)) => {
                assert!(number == newest || number + 1 == newest);
                assert!(found == run.states[number as usize], "page {page}");
            }
        }
    }
    assert!(changed > 10 && noticed > 5, "{noticed} of {changed}");
}

/// A failed half of the story of creating: whatever a crash leaves, creating again gives a file.
#[test]
fn creating_again_after_a_crash_works() {
    let run = Run::new(256, 1, 10);
    for point in run.disk.points() {
        for (label, disk) in point.crash_images(Profile::PosixWorst, 3, 6) {
            let options = Options { page_bytes: 256, file_id: 9 };
            match Tree::create(&disk, path(), options, b"1") {
                Ok(_) => {}
                Err(Error::Refused(_)) => {
                    drop(Tree::open(&disk, path()).expect("what has the name is whole"))
                }
                Err(e) => panic!("{label}: {e}"),
            }
            assert_sound(&disk, &label);
        }
    }
}
