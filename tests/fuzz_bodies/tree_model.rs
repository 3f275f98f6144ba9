//! The tree against a `BTreeMap`, by operations that the input spells: 4 bytes each.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use pawl::btree::{Options, Tree, View, check};
use pawl::io::sim::SimDisk;

const OPERATIONS_MAX: usize = 256;

/// Key, and value with its mark.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, bool)>;

struct Run {
    disk: SimDisk,
    tree: Tree<SimDisk>,
    model: Model,
    /// A frozen state, and what was in it.
    pinned: Option<(View, Model)>,
}

fn path() -> &'static Path {
    Path::new("tree")
}

pub fn tree_ops(data: &[u8]) {
    let Some((&first, operations)) = data.split_first() else { return };
    let options = Options { page_bytes: 256 << (first % 3), file_id: 1 };
    let disk = SimDisk::new();
    let tree = Tree::create(&disk, path(), options, b"").expect("a new file");
    let mut run = Run { disk, tree, model: Model::new(), pinned: None };
    for operation in operations.chunks_exact(4).take(OPERATIONS_MAX) {
        run.operate(operation[0], &key(operation[1], operation[2]), usize::from(operation[3]));
    }
    run.compare();
    run.checkpoint();
    let report = check(&run.disk, path()).expect("the file can be read");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

/// Few different keys, some with long common prefixes, up to several hundred bytes.
fn key(name: u8, shape: u8) -> Vec<u8> {
    let mut key = vec![b'k'; usize::from(shape % 8) * 12];
    key.extend_from_slice(&[name % 32, shape / 8]);
    key
}

impl Run {
    fn operate(&mut self, code: u8, key: &[u8], detail: usize) {
        match code % 12 {
            0..=3 => {
                let value = vec![detail as u8; if code & 0x80 == 0 { detail } else { detail * 40 }];
                let counted = code & 0x40 == 0;
                let (one, two) = value.split_at(value.len() / 2);
                self.tree.insert(0, key, &[one, two], counted).expect("a sound disk");
                self.model.insert(key.to_vec(), (value, counted));
            }
            4 | 5 => {
                let there = self.model.remove(key).is_some();
                assert_eq!(self.tree.remove(0, key).expect("a sound disk"), there);
            }
            6 | 7 => self.seek(key),
            8 => {
                let to = [detail as u8];
                let to = (!detail.is_multiple_of(3)).then_some(&to[..]);
                let expected = self.model.range(key.to_vec()..).filter(|(_, (_, counted))| *counted);
                let expected = expected.filter(|(key, _)| to.is_none_or(|to| &key[..] < to)).count();
                let found = self.tree.count(View::Now, 0, key, to).expect("a sound disk");
                assert_eq!(found, expected as u64);
            }
            9 => self.checkpoint(),
            10 => match self.pinned.take() {
                None => self.pinned = Some((self.tree.pin(), self.model.clone())),
                Some((view, model)) => {
                    assert_eq!(self.all(view), model, "a pinned state does not change");
                    self.tree.unpin(view);
                }
            },
            _ => {
                if self.pinned.is_none() {
                    self.checkpoint();
                    self.tree = Tree::open(&self.disk, path()).expect("a sound file");
                    self.compare();
                }
            }
        }
    }

    fn seek(&mut self, key: &[u8]) {
        let mut cursor = self.tree.cursor(View::Now, 0);
        let mut at_or_behind = self.model.range(key.to_vec()..);
        let found =
            cursor.seek(key).expect("a sound disk").then(|| cursor.key().expect("valid").into_owned());
        assert_eq!(found.as_ref(), at_or_behind.next().map(|(key, _)| key));
        if found.is_some() {
            let next =
                cursor.next().expect("a sound disk").then(|| cursor.key().expect("valid").into_owned());
            assert_eq!(next.as_ref(), at_or_behind.next().map(|(key, _)| key));
        }
        let before = self.model.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(key))).next_back();
        let found =
            cursor.seek_before(key).expect("a sound disk").then(|| cursor.key().expect("valid").into_owned());
        assert_eq!(found.as_ref(), before.map(|(key, _)| key));
    }

    fn checkpoint(&mut self) {
        if let Some(checkpoint) = self.tree.begin_checkpoint().expect("a sound disk") {
            let done = checkpoint.run(&|| ()).expect("a sound disk");
            self.tree.end_checkpoint(done).expect("a sound disk");
        }
    }

    fn all(&self, view: View) -> Model {
        let mut found = Model::new();
        let mut cursor = self.tree.cursor(view, 0);
        let mut more = cursor.first().expect("a sound disk");
        while more {
            let key = cursor.key().expect("a sound disk").into_owned();
            let value = cursor.value().to_vec().expect("a sound disk");
            assert!(found.last_key_value().is_none_or(|(last, _)| *last < key), "keys rise");
            found.insert(key, (value, cursor.counted()));
            more = cursor.next().expect("a sound disk");
        }
        found
    }

    fn compare(&self) {
        assert_eq!(self.all(View::Now), self.model);
        for (key, (value, _)) in &self.model {
            let found = self.tree.get(View::Now, 0, key).expect("a sound disk").expect("it is there");
            assert_eq!(found.to_vec().expect("a sound disk"), *value);
        }
    }
}
