//! The requests: of all kinds and options, over few keys, so that they meet.

use bytes::Bytes;
use pawl::api::{
    Acquire, Code, Compact, Compare, CompareResult, Delete, LeaseRequest, Limits, LockRequest, Op, Order,
    Put, Range, Request, SortBy, Span, Target, Txn, Watch, lock, validate,
};
use pawl::base::Rng;

use super::{Answer, Kv};

/// Prefixes of each other, neighbours, and the bytes at both ends.
const KEYS: [&[u8]; 10] = [b"a", b"a\0", b"aa", b"ab", b"b", b"ba", b"c/1", b"c/2", b"\xff", b"\xff\xff"];

/// Names of a lock and of an election. Nobody puts a key under them, but whatever deletes may reach it.
pub const LOCK: &[u8] = b"lock";
pub const ELECTION: &[u8] = b"b/mayor";

pub struct Maker {
    rng: Rng,
    /// As the last answer told.
    revision: u64,
    compacted: u64,
    seen: Option<Kv>,
}

impl Maker {
    pub fn new(seed: u64) -> Maker {
        Maker { rng: Rng::new(seed), revision: 1, compacted: 0, seen: None }
    }

    pub fn learn(&mut self, revision: u64, answer: &Answer) {
        self.revision = revision;
        match answer {
            Answer::Range { kvs, .. } => self.seen = kvs.first().cloned().or(self.seen.take()),
            Answer::Txn { responses, .. } => responses.iter().for_each(|answer| self.learn(revision, answer)),
            _ => {}
        }
    }

    /// What was asked for at this revision was done.
    pub fn has_compacted(&mut self, revision: u64) {
        self.compacted = revision;
    }

    /// As the last answer told.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// One that shows puts or deletes at least.
    pub fn watch(&mut self) -> Watch {
        let revision = match self.rng.below(6) {
            0 | 1 => 0,
            2 => self.revision + self.rng.between(1, 4),
            3 => self.compacted.saturating_sub(self.rng.below(4)).max(1),
            _ => self.revision.saturating_sub(self.rng.below(40)).max(1),
        };
        // A deletion at the bound is told by us until the next compaction, and by etcd until it has swept.
        let revision = if revision > 0 && revision == self.compacted { revision + 1 } else { revision };
        let filter = self.rng.below(6);
        Watch {
            span: self.span(false),
            revision,
            prev_kv: self.rng.one_in(2),
            no_put: filter == 0,
            no_delete: filter == 1,
            progress: false,
        }
    }

    pub fn request(&mut self) -> Request {
        match self.rng.below(100) {
            0..33 => Request::Put(self.put()),
            33..46 => Request::Delete(Delete { span: self.span(true), prev_kv: self.rng.one_in(2) }),
            46..69 => Request::Range(self.range(true)),
            69..83 => Request::Txn(self.txn()),
            83..91 => Request::Lease(self.lease()),
            91..97 => Request::Lock(self.lock()),
            _ => {
                let back = self.rng.below(25);
                let revision = match self.rng.below(6) {
                    0 => self.revision + self.rng.below(3),
                    1 => self.compacted,
                    _ => self.revision.saturating_sub(back),
                }
                .max(1);
                Request::Compact(Compact { revision, physical: self.rng.one_in(2) })
            }
        }
    }

    fn key(&mut self) -> Bytes {
        Bytes::from_static(KEYS[self.rng.below(KEYS.len() as u64) as usize])
    }

    /// `any`: also one that ends before it begins.
    fn span(&mut self, any: bool) -> Span {
        match self.rng.below(12) {
            0..7 => Span::Key(self.key()),
            7 | 8 => {
                let (from, to) = (self.key(), self.key());
                if any || from < to { Span::Between(from, to) } else { Span::Key(from) }
            }
            9 if self.rng.one_in(6) => Span::Prefix(Bytes::new()),
            9 | 10 => Span::Prefix(self.key()),
            _ => Span::From(self.key()),
        }
    }

    fn value(&mut self) -> Bytes {
        match self.rng.below(6) {
            0 => Bytes::new(),
            1 => Bytes::from(vec![self.rng.below(256) as u8; self.rng.below(40) as usize]),
            _ => Bytes::from(format!("v{}", self.rng.below(20))),
        }
    }

    fn put(&mut self) -> Put {
        let mut put = Put { key: self.key(), value: self.value(), ..Put::default() };
        put.prev_kv = self.rng.one_in(2);
        if self.rng.one_in(8) {
            put.ignore_value = true;
            if !self.rng.one_in(10) {
                put.value = Bytes::new();
            }
        }
        put.ignore_lease = self.rng.one_in(12);
        if self.rng.one_in(8) {
            put.lease = self.id();
        }
        if self.rng.one_in(200) {
            put.key = Bytes::new();
        }
        put
    }

    /// Few, so that they meet.
    fn id(&mut self) -> i64 {
        self.rng.between(1, 4).cast_signed()
    }

    fn lease(&mut self) -> LeaseRequest {
        let id = self.id();
        match self.rng.below(8) {
            0..3 => LeaseRequest::Grant { id, ttl_s: self.rng.between(1_000, 9_000).cast_signed() },
            3 | 4 => LeaseRequest::Revoke { id },
            5 => LeaseRequest::TimeToLive { id, keys: self.rng.one_in(2) },
            6 => LeaseRequest::KeepAlive { ids: vec![id] },
            _ => LeaseRequest::List,
        }
    }

    /// Whoever asks sees to it that nobody has to wait.
    fn lock(&mut self) -> LockRequest {
        let (campaign, lease) = (self.rng.one_in(2), self.id());
        let name = if campaign { ELECTION } else { LOCK };
        let key = lock::lock_key(name, lease);
        match self.rng.below(8) {
            0..4 => {
                let value = if campaign { self.value() } else { Bytes::new() };
                let name = Bytes::from_static(name);
                LockRequest::Acquire(Acquire { name, value, lease, wait_ms: None, campaign })
            }
            4 => LockRequest::Release { key },
            5 | 6 => LockRequest::Proclaim { key: lock::lock_key(ELECTION, lease), value: self.value() },
            _ => LockRequest::Leader { name: Bytes::from_static(ELECTION) },
        }
    }

    fn near(&mut self) -> u64 {
        let back = self.rng.below(12);
        (self.revision + 2).saturating_sub(back)
    }

    fn range(&mut self, any: bool) -> Range {
        let mut range = Range::new(self.span(any));
        if self.rng.one_in(4) {
            range.revision = self.near();
        }
        if self.rng.one_in(3) {
            range.limit = self.rng.between(1, 5);
        }
        range.serializable = self.rng.one_in(4);
        range.keys_only = self.rng.one_in(6);
        range.count_only = !range.keys_only && self.rng.one_in(8);
        let sorts = [SortBy::Key, SortBy::Version, SortBy::Create, SortBy::Mod, SortBy::Value];
        if self.rng.one_in(2) {
            range.sort_by = sorts[self.rng.below(5) as usize];
            range.order = if self.rng.one_in(2) { Order::Descending } else { Order::Ascending };
        }
        if self.rng.one_in(5) {
            let bounds =
                [&mut range.min_mod, &mut range.max_mod, &mut range.min_create, &mut range.max_create];
            let near = [0; 4].map(|_| self.near());
            for (bound, near) in bounds.into_iter().zip(near) {
                if self.rng.one_in(2) {
                    *bound = near;
                }
            }
        }
        range
    }

    fn txn(&mut self) -> Txn {
        loop {
            let txn = self.any_txn(0);
            let checked = validate::check(&Request::Txn(txn.clone()), &Limits::default());
            let overlaps = matches!(checked, Err(fault) if fault.code == Code::DupKey);
            if !overlaps || is_plain(&txn) {
                return txn;
            }
        }
    }

    fn any_txn(&mut self, depth: u64) -> Txn {
        let compares = (0..self.rng.below(3)).map(|_| self.compare()).collect();
        let success = (0..self.rng.below(5 - depth)).map(|_| self.op(depth)).collect();
        let failure = (0..self.rng.below(4 - depth)).map(|_| self.op(depth)).collect();
        Txn { compares, success, failure }
    }

    fn op(&mut self, depth: u64) -> Op {
        match self.rng.below(12) {
            0 if depth < 3 => Op::Txn(self.any_txn(depth + 1)),
            0..4 => Op::Range(self.range(false)),
            4..6 => Op::Delete(Delete { span: self.span(false), prev_kv: self.rng.one_in(2) }),
            _ => Op::Put(self.put()),
        }
    }

    fn compare(&mut self) -> Compare {
        let results =
            [CompareResult::Equal, CompareResult::NotEqual, CompareResult::Less, CompareResult::Greater];
        let result = results[self.rng.below(4) as usize];
        if let Some(seen) = self.seen.clone()
            && self.rng.one_in(3)
        {
            let target = match self.rng.below(4) {
                0 => Target::Value(seen.value.into()),
                1 => Target::Version(seen.version.cast_signed()),
                2 => Target::Create(seen.created.cast_signed()),
                _ => Target::Mod(seen.modified.cast_signed()),
            };
            return Compare { span: Span::Key(seen.key.into()), target, result };
        }
        let near = self.near().cast_signed();
        let small = self.rng.below(5).cast_signed() - 1;
        let target = match self.rng.below(5) {
            0 => Target::Value(self.value()),
            1 => Target::Version(small),
            2 => Target::Create(if self.rng.one_in(3) { 0 } else { near }),
            3 => Target::Mod(if self.rng.one_in(3) { 0 } else { near }),
            _ => Target::Lease(if self.rng.one_in(2) { self.id() } else { small }),
        };
        Compare { span: self.span(false), target, result }
    }
}

/// etcd sees every overlap in it.
fn is_plain(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Op::Txn(_) => false,
        Op::Delete(delete) => !matches!(delete.span, Span::From(_) | Span::Prefix(_)),
        _ => true,
    })
}

/// An operation as a request of its own.
pub fn alone(op: &Op) -> Request {
    match op {
        Op::Put(put) => Request::Put(put.clone()),
        Op::Delete(delete) => Request::Delete(delete.clone()),
        Op::Range(range) => Request::Range(range.clone()),
        Op::Txn(txn) => Request::Txn(txn.clone()),
    }
}

/// What of the answer to a range is compared.
pub fn fields_sorted_by(range: &Range, answer: &Answer) -> (Answer, Vec<(u64, Vec<u8>)>) {
    let Answer::Range { count, more, kvs } = answer else { return (answer.clone(), Vec::new()) };
    let field = |kv: &Kv| match range.sort_by {
        SortBy::Key => (0, Vec::new()),
        SortBy::Version => (kv.version, Vec::new()),
        SortBy::Create => (kv.created, Vec::new()),
        SortBy::Mod => (kv.modified, Vec::new()),
        SortBy::Value => (0, kv.value.clone()),
    };
    let fields = kvs.iter().map(field).collect();
    let mut kvs = kvs.clone();
    if range.sort_by != SortBy::Key {
        kvs.sort_by(|a, b| a.key.cmp(&b.key));
        if *more {
            kvs.clear();
        }
    }
    (Answer::Range { count: *count, more: *more, kvs }, fields)
}
