//! The tree from outside, at the borders: keys and values around every limit, fill, growth and shrinking, pins
//! over many checkpoints, a real file with a checkpoint on another thread.

use std::collections::BTreeMap;
use std::path::Path;

use pawl::base::Rng;
use pawl::base::crc::crc32_from;
use pawl::btree::{Options, Tree, View, check};
use pawl::io::Disk;
use pawl::io::os::OsDisk;
use pawl::io::sim::SimDisk;

fn path() -> &'static Path {
    Path::new("tree")
}

fn new_tree(page_bytes: usize) -> (SimDisk, Tree<SimDisk>) {
    let disk = SimDisk::new();
    let tree = Tree::create(&disk, path(), Options { page_bytes, file_id: 3 }, b"").expect("a new file");
    (disk, tree)
}

fn checkpoint<D: Disk>(tree: &mut Tree<D>) {
    if let Some(work) = tree.begin_checkpoint().expect("room") {
        let done = work.run(&|| ()).expect("a sound disk");
        tree.end_checkpoint(done).expect("a sound disk");
    }
}

/// Checkpoints until nothing changes any more: what only the two slots hold becomes free.
fn settle<D: Disk>(tree: &mut Tree<D>) {
    for round in 0..4 {
        tree.set_user(&[round]);
        checkpoint(tree);
    }
}

fn assert_sound<D: Disk>(disk: &D, path: &Path) {
    let report = check(disk, path).expect("it opens");
    assert_eq!(report.findings, Vec::<String>::new());
}

/// CRC over every key, value and mark.
fn digest<D: Disk>(tree: &Tree<D>, view: View, root: usize) -> u32 {
    let mut cursor = tree.cursor(view, root);
    let (mut crc, mut more) = (0, cursor.first().expect("sound"));
    while more {
        crc = crc32_from(crc, &cursor.key().expect("sound"));
        crc = crc32_from(crc, &[u8::from(cursor.counted())]);
        cursor.value().for_each_chunk(|chunk| crc = crc32_from(crc, chunk)).expect("sound");
        more = cursor.next().expect("sound");
    }
    crc
}

fn bytes(rng: &mut Rng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rng.fill(&mut bytes);
    bytes
}

/// T-18: every length of key and value at which the layout changes, and its neighbours.
#[test]
fn keys_and_values_at_every_border_come_back() {
    for page_bytes in [256, 512, 1024, 4096, 16384, 65536] {
        let usable = page_bytes - 28;
        let (key_max, cell_max, chain_room) = (usable / 4 - 20, usable / 2 - 2, page_bytes - 40);
        let mut rng = Rng::new(page_bytes as u64);
        let (disk, mut tree) = new_tree(page_bytes);
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let near = |length: usize| [length.saturating_sub(1), length, length + 1];
        let key_lengths = [near(1), near(key_max), near(page_bytes), near(2 * chain_room + 7)].concat();
        for key_length in key_lengths {
            // The same key is replaced by values of every kind, up and down in size.
            let inline_max = cell_max.saturating_sub(5 + key_length);
            let chain = |pages: usize| (pages * chain_room).saturating_sub(key_length);
            let mut lengths = [near(1), near(inline_max), near(chain(1)), near(chain(3))].concat();
            lengths.push(page_bytes * 5);
            let key = vec![b'k'; key_length];
            for value_length in lengths {
                let value = bytes(&mut rng, value_length);
                tree.insert(0, &key, &[&value], false).expect("sound");
                let got = tree.get(View::Now, 0, &key).expect("sound").expect("it is there");
                assert_eq!(got.len(), value_length);
                assert!(got.to_vec().expect("sound") == value, "{page_bytes} {key_length} {value_length}");
                // And one that stays, with a key of its own of that length.
                let mut own = bytes(&mut rng, key_length.max(4));
                own[0] = b'o';
                tree.insert(0, &own, &[&value[..value_length / 2], &value[value_length / 2..]], true)
                    .expect("sound");
                model.insert(own, value.clone());
                model.insert(key.clone(), value);
            }
            checkpoint(&mut tree);
        }
        assert_sound(&disk, path());
        let mut tree = Tree::open(&disk, path()).expect("it opens");
        for (key, value) in &model {
            let got = tree.get(View::Now, 0, key).expect("sound").expect("it is there");
            assert!(&got.to_vec().expect("sound") == value);
        }
        let keys: Vec<Vec<u8>> = model.into_keys().collect();
        for (at, key) in keys.iter().enumerate() {
            assert!(tree.remove(0, key).expect("sound"));
            assert!(tree.get(View::Now, 0, key).expect("sound").is_none());
            if at == keys.len() / 2 {
                checkpoint(&mut tree);
                assert_sound(&disk, path());
            }
        }
        settle(&mut tree);
        assert_sound(&disk, path());
        assert_eq!(tree.stats().used_pages, 1, "only the map is left");
    }
}

#[test]
fn a_value_of_64_mib_comes_back_and_its_room_is_used_again() {
    let (disk, mut tree) = new_tree(65536);
    let mut rng = Rng::new(64);
    for _ in 0..2 {
        let value = bytes(&mut rng, 64 << 20);
        tree.insert(0, b"large", &[&value], false).expect("sound");
        checkpoint(&mut tree);
        let got = tree.get(View::Now, 0, b"large").expect("sound").expect("it is there");
        assert!(got.to_vec().expect("sound") == value);
        assert_eq!(got.start(10).expect("sound"), &value[..10]);
    }
    assert!(tree.remove(0, b"large").expect("sound"));
    settle(&mut tree);
    assert!(tree.stats().file_bytes < 1 << 20, "{:?}", tree.stats());
    assert_sound(&disk, path());
}

/// Rising keys leave full pages behind them, also in the middle of the tree; random ones leave two thirds.
#[test]
fn pages_are_well_filled() {
    let cell = 2 + 5 + 8 + 100;
    let full = 20_000 * cell as u64;
    let (_, mut rising) = new_tree(4096);
    (0..20_000u64).for_each(|i| rising.insert(0, &i.to_be_bytes(), &[&[1; 100]], false).expect("sound"));
    assert!(rising.stats().used_pages * 4096 < full * 107 / 100, "{:?}", rising.stats());

    let (_, mut interleaved) = new_tree(4096);
    for i in 0..20_000u64 {
        // Two runs, the lower one in front of everything that the other has put.
        let key = (i % 2 * 1_000_000 + i).to_be_bytes();
        interleaved.insert(0, &key, &[&[1; 100]], false).expect("sound");
    }
    assert!(interleaved.stats().used_pages * 4096 < full * 3 / 2, "{:?}", interleaved.stats());

    let (mut rng, (_, mut random)) = (Rng::new(4), new_tree(4096));
    (0..20_000)
        .for_each(|_| random.insert(0, &rng.next_u64().to_be_bytes(), &[&[1; 100]], false).expect("sound"));
    assert!(random.stats().used_pages * 4096 < full * 8 / 5, "{:?}", random.stats());
}

/// What is deleted is given back to the file system while the tree is in use, and `move_tail` finishes it.
#[test]
fn the_file_shrinks_with_its_content() {
    let (disk, mut tree) = new_tree(1024);
    let mut rng = Rng::new(9);
    let keys: Vec<[u8; 8]> = (0..6_000).map(|_| rng.next_u64().to_be_bytes()).collect();
    for (at, key) in keys.iter().enumerate() {
        // Chains too, so that they have to move.
        let length = if at % 50 == 0 { 3_000 } else { 100 };
        tree.insert(0, key, &[&vec![at as u8; length]], true).expect("sound");
    }
    settle(&mut tree);
    let large = tree.stats().file_bytes;
    for key in &keys[600..] {
        assert!(tree.remove(0, key).expect("sound"));
    }
    let before = digest(&tree, View::Now, 0);
    settle(&mut tree);
    assert_sound(&disk, path());
    let mut rounds = 0;
    while tree.move_tail(300).expect("sound") > 0 {
        settle(&mut tree);
        rounds += 1;
        assert!(rounds < 100, "moving ends: {:?}", tree.stats());
    }
    assert_sound(&disk, path());
    settle(&mut tree);
    let stats = tree.stats();
    assert!(stats.file_bytes < large / 4, "{large} bytes before, {stats:?}");
    assert_eq!(digest(&tree, View::Now, 0), before);
    assert_eq!(tree.count(View::Now, 0, b"", None).expect("sound"), 600);
    assert_sound(&disk, path());
}

/// As a member does it that nobody writes to: a few pages at a time, and checkpoints only as long as they are good for
/// something.
#[test]
fn a_file_that_nobody_writes_to_shrinks_too() {
    let (disk, mut tree) = new_tree(1024);
    let key = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    for n in 0..6_000u64 {
        tree.insert(0, &key(n), &[&[n as u8; 100]], true).expect("sound");
    }
    settle(&mut tree);
    for n in 100..6_000u64 {
        tree.remove(0, &key(n)).expect("sound");
    }
    let mut checkpoints = 0;
    while let Some(work) = tree.begin_checkpoint().expect("sound") {
        let done = work.run(&|| ()).expect("room");
        tree.end_checkpoint(done).expect("sound");
        checkpoints += 1;
        while tree.is_loose() && tree.move_tail(16).expect("sound") > 0 {}
        assert!(checkpoints < 20, "{:?}", tree.stats());
    }
    assert!(!tree.owes_space());
    let stats = tree.stats();
    assert!(stats.file_bytes < 256 << 10 && stats.used_pages < 40, "{stats:?}");
    assert_sound(&disk, path());
}

/// V14: a view shows the same while everything is rewritten many times; and it holds no more than it shows.
#[test]
fn a_pinned_view_stays_and_holds_only_what_it_sees() {
    let (disk, mut tree) = new_tree(512);
    let mut rng = Rng::new(2);
    let fill = |tree: &mut Tree<SimDisk>, rng: &mut Rng| {
        for key in 0..500u32 {
            let value = bytes(rng, 60 + key as usize % 40);
            tree.insert(3, &key.to_be_bytes(), &[&value], key % 3 == 0).expect("sound");
        }
    };
    fill(&mut tree, &mut rng);
    let view = tree.pin();
    let (shown, pages) = (digest(&tree, view, 3), tree.stats().used_pages);
    for round in 0..30 {
        fill(&mut tree, &mut rng);
        if round % 2 == 0 {
            checkpoint(&mut tree);
        }
        assert_eq!(digest(&tree, view, 3), shown);
        assert_eq!(tree.count(view, 3, b"", None).expect("sound"), 167);
        // The view, the two slots, and what is being written.
        assert!(tree.stats().held_pages <= 4 * pages, "{:?}", tree.stats());
    }
    assert_ne!(digest(&tree, View::Now, 3), shown);
    tree.unpin(view);
    settle(&mut tree);
    assert_eq!(tree.stats().pins, 0);
    assert!(tree.stats().held_pages < 10, "{:?}", tree.stats());
    assert_sound(&disk, path());
}

#[test]
fn roots_are_independent() {
    let (disk, mut tree) = new_tree(256);
    for root in 0..8 {
        for key in 0..=root as u8 {
            tree.insert(root, &[key], &[&[root as u8; 50]], true).expect("sound");
        }
    }
    checkpoint(&mut tree);
    let tree = Tree::open(&disk, path()).expect("it opens");
    for root in 0..8 {
        assert_eq!(tree.count(View::Now, root, b"", None).expect("sound"), root as u64 + 1);
        assert!(tree.get(View::Now, root, &[root as u8 + 1]).expect("sound").is_none());
    }
    assert_sound(&disk, path());
}

/// The record of the application follows the checkpoints, one behind for the older slot.
#[test]
fn the_record_is_stored_with_the_checkpoint() {
    let (disk, mut tree) = new_tree(4096);
    for record in [&b"two"[..], b"three", &[7; 128]] {
        tree.set_user(record);
        checkpoint(&mut tree);
    }
    tree.set_user(b"never stored");
    assert_eq!((tree.durable_user(), tree.fallback_user()), (&[7; 128][..], &b"three"[..]));
    let tree = Tree::open(&disk, path()).expect("it opens");
    assert_eq!((tree.user(), tree.fallback_user()), (&[7; 128][..], &b"three"[..]));
}

/// A real file, a real mapping, and checkpoints on another thread while changes go on.
#[test]
fn it_works_on_a_real_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("tree");
    let mut tree = Tree::create(&OsDisk, &path, Options::new(11), b"").expect("a new file");
    let (mut rng, mut model) = (Rng::new(12), BTreeMap::new());
    for _ in 0..12 {
        let change = |tree: &mut Tree<OsDisk>, model: &mut BTreeMap<u64, u8>, rng: &mut Rng| {
            for _ in 0..400 {
                let (key, byte) = (rng.below(4_000), rng.below(256) as u8);
                if rng.below(10) < 7 {
                    let length = if byte == 0 { 50_000 } else { 200 };
                    tree.insert(0, &key.to_be_bytes(), &[&vec![byte; length]], true).expect("sound");
                    model.insert(key, byte);
                } else {
                    let there = tree.remove(0, &key.to_be_bytes()).expect("sound");
                    assert_eq!(there, model.remove(&key).is_some());
                }
            }
        };
        change(&mut tree, &mut model, &mut rng);
        let work = tree.begin_checkpoint().expect("room").expect("something has changed");
        let thread = std::thread::spawn(move || work.run(&|| ()));
        change(&mut tree, &mut model, &mut rng);
        let done = thread.join().expect("no panic").expect("a sound disk");
        tree.end_checkpoint(done).expect("a sound disk");
        assert_eq!(tree.count(View::Now, 0, b"", None).expect("sound"), model.len() as u64);
    }
    checkpoint(&mut tree);
    drop(tree);
    assert_sound(&OsDisk, &path);
    let tree = Tree::open(&OsDisk, &path).expect("it opens");
    let mut cursor = tree.cursor(View::Now, 0);
    let mut more = cursor.first().expect("sound");
    for (key, byte) in model {
        assert!(more && *cursor.key().expect("sound") == key.to_be_bytes());
        assert_eq!(cursor.value().start(1).expect("sound"), [byte]);
        more = cursor.next().expect("sound");
    }
    assert!(!more);
}
