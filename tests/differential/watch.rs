//! The same watches at both, each from a revision of the past, now, or one of the future. What they are told is held against each
//! other at times that the test chooses: a put and a delete of a key that the watch must show end what is read.
//!
//! etcd brings late watches up to date ten times a second, and looks up what was there before when it sends: what comes
//! after a compaction depends on the time. So every watch is read to its end before each compaction.

use pawl::api::{Delete, Put, Request, Span, Watch};

use super::etcd;
use super::pawl_side::{self, Pawl};
use super::{Both, Kv, agree};
use crate::harness::Member;

/// Watches at once.
const WATCHES_MAX: usize = 4;

/// One change, as both tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub deleted: bool,
    pub kv: Kv,
    pub previous: Option<Kv>,
}

/// What comes over a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Changes(Vec<Change>),
    /// It ends; the bound.
    Compacted(u64),
}

/// A watch at both.
struct Pair {
    watch: Watch,
    ours: pawl_side::Watching,
    theirs: etcd::Watching,
}

#[derive(Default)]
pub struct Watches {
    open: Vec<Pair>,
    /// Changes that both told of, and watches that both ended.
    pub told: u64,
    pub compacted: u64,
}

/// All up to the change at `last`, or the end.
fn read(mut next: impl FnMut() -> Told, last: u64) -> (Vec<Change>, Option<u64>) {
    let mut changes = Vec::new();
    while changes.last().is_none_or(|change: &Change| change.kv.modified < last) {
        match next() {
            Told::Changes(more) => changes.extend(more),
            Told::Compacted(bound) => return (changes, Some(bound)),
        }
    }
    (changes, None)
}

impl Both {
    /// A watch begins; one that is told of the past is read at once.
    pub fn begin_watch(&mut self, member: &Member) {
        if self.watches.open.len() >= WATCHES_MAX {
            let first = self.watches.open.remove(0);
            self.finish(first);
        }
        let watch = self.maker.watch();
        let (ours, theirs) = (Pawl::watch(member, &watch), self.etcd.watch(&watch));
        self.watches.open.push(Pair { watch, ours, theirs });
        self.settle_watches();
    }

    /// Reads all watches to their ends, but those that wait for the future.
    pub fn settle_watches(&mut self) {
        for pair in std::mem::take(&mut self.watches.open) {
            let waits = pair.watch.revision > self.maker.revision();
            let left = if waits { Some(pair) } else { self.compare(pair) };
            self.watches.open.extend(left);
        }
    }

    /// The future comes for all.
    fn finish(&mut self, pair: Pair) {
        while pair.watch.revision > self.maker.revision() {
            self.mark(&pair.watch);
        }
        self.compare(pair);
    }

    /// None: both have ended it.
    fn compare(&mut self, mut pair: Pair) -> Option<Pair> {
        let last = self.mark(&pair.watch);
        let (ours, theirs) = (read(|| pair.ours.next(), last), read(|| pair.theirs.next(), last));
        assert!(ours == theirs, "{}: {:?}\n pawl: {ours:?}\n etcd: {theirs:?}", self.place(), pair.watch);
        self.watches.told += ours.0.len() as u64;
        self.watches.compacted += u64::from(ours.1.is_some());
        ours.1.is_none().then_some(pair)
    }

    /// A put and a delete; the revision of the last that the watch shows.
    fn mark(&mut self, watch: &Watch) -> u64 {
        let key = match &watch.span {
            Span::Prefix(prefix) if prefix.is_empty() => "a".into(),
            Span::Key(key) | Span::Between(key, _) | Span::Prefix(key) | Span::From(key) => key.clone(),
        };
        let put = Put { key: key.clone(), value: "mark".into(), ..Put::default() };
        let requests = [Request::Put(put), Request::Delete(Delete { span: Span::Key(key), prev_kv: false })];
        let revisions = requests.map(|request| {
            let (ours, theirs) = (self.pawl.ask(&request), self.etcd.ask(&request));
            assert!(agree(&request, &ours, &theirs), "{request:?}\n pawl: {ours:?}\n etcd: {theirs:?}");
            let (revision, answer) = ours.expect("a put or a delete of one key");
            self.maker.learn(revision, &answer);
            revision
        });
        revisions[usize::from(!watch.no_delete)]
    }
}
