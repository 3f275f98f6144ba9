//! Random commands and reads against the model, on every page size, through checkpoints that run while
//! commands are applied, restarts and snapshots.

use super::model::Model;
use super::snapshot::{install, send};
use super::txn::random_txn;
use super::*;
use pawl::api::{
    Alarm, AlarmChange, AlarmKind, Fault, KeyValue, LeaseRef, MemberChange, Order, Range, RangeResult, SortBy,
};
use pawl::base::Rng;
use pawl::btree::Checkpoint;
use pawl::io::sim::Damage;
use pawl::store::{Budget, Lease, Reading};

struct Rig {
    rng: Rng,
    disk: SimDisk,
    store: Store<SimDisk>,
    model: Model,
    /// Every entry since the beginning: what the log would replay.
    log: Vec<Option<Command>>,
    running: Option<Checkpoint<SimDisk>>,
    slow: Option<Slow>,
}

/// A range that is read part by part while the store changes, and what it must come to.
struct Slow {
    range: Range,
    reading: Reading,
    expected: Result<RangeResult, Fault>,
    read: RangeResult,
    begun: bool,
}

#[test]
fn small_pages() {
    for seed in 0..3 {
        run(256, seed, 500);
        run(512, seed, 400);
    }
}

#[test]
fn middle_pages() {
    for seed in 10..13 {
        run(1024, seed, 500);
        run(4096, seed, 500);
    }
}

#[test]
fn large_pages() {
    for seed in 20..22 {
        run(65536, seed, 500);
    }
}

#[expect(clippy::print_stderr, reason = "shown when the test fails: what to run again")]
fn run(page_bytes: usize, seed: u64, steps: usize) {
    eprintln!("page_bytes {page_bytes} seed {seed}");
    let disk = disk();
    let store = new_store(&disk, page_bytes);
    let model = Model::new(&members());
    let mut rig = Rig { rng: Rng::new(seed), disk, store, model, log: Vec::new(), running: None, slow: None };
    for _ in 0..steps {
        rig.step();
    }
    rig.end(page_bytes);
}

impl Rig {
    fn step(&mut self) {
        match self.rng.below(110) {
            100..110 => self.sweep(),
            0..65 => self.apply(),
            65..75 => self.read(),
            75..85 => self.read_slowly(),
            85..91 => self.begin_checkpoint(),
            91..96 => self.end_checkpoint(),
            96..98 => self.restart(),
            98 => self.restart_after_damage(),
            _ => self.snapshot(),
        }
    }

    fn apply(&mut self) {
        let command = (!self.rng.one_in(20)).then(|| self.random_command());
        let id = EntryId::new(1 + self.log.len() as u64 / 50, self.log.len() as u64 + 1);
        let body = self.store.apply(id, command.as_ref()).unwrap();
        if let Some(command) = &command {
            assert_eq!(body, self.model.apply(id, command), "{command:?}");
        }
        assert_eq!(self.store.revision(), self.model.revision);
        self.log.push(command);
    }

    /// Of leases once in five, mostly of those that there are.
    fn random_command(&mut self) -> Command {
        let Rig { rng, model, log, .. } = self;
        if !rng.one_in(5) {
            return random_command(rng, model.revision);
        }
        let mut term = 1 + log.len() as u64 / 50;
        if rng.one_in(5) {
            term -= 1; // Of a client, or of a leader that is none any more.
        }
        let refer = |rng: &mut Rng| {
            let id = random_lease(rng);
            let granted_by = model.leases.get(&id).map_or(1, |lease| lease.granted_by);
            LeaseRef { id, generation: granted_by - u64::from(rng.one_in(8)) }
        };
        match rng.below(6) {
            0..3 => Command::LeaseGrant { id: random_lease(rng), ttl_s: rng.below(100) },
            3 => Command::LeaseRevoke { term: 0, leases: vec![refer(rng)] },
            4 => Command::LeaseRevoke { term, leases: (0..rng.below(3)).map(|_| refer(rng)).collect() },
            _ => {
                let left = |rng: &mut Rng| (refer(rng), rng.below(100));
                Command::LeaseCheckpoint { term, leases: (0..rng.below(4)).map(|_| left(rng)).collect() }
            }
        }
    }

    fn read(&mut self) {
        if self.rng.one_in(8) {
            let txn = random_txn(&mut self.rng, self.model.revision, false);
            assert_eq!(self.store.read_txn(&txn).unwrap(), self.model.txn(&txn), "{txn:?}");
            return;
        }
        let range = random_range(&mut self.rng, self.model.revision);
        assert_eq!(self.store.range(&range).unwrap(), self.model.range(&range), "{range:?}");
        let id = random_lease(&mut self.rng);
        let count_max = self.rng.between(1, 4) as usize;
        let mut attached = self.model.attached(id);
        assert_eq!(self.store.lease_key_count(id, count_max).unwrap(), attached.len().min(count_max));
        attached.truncate(count_max);
        assert_eq!(self.store.lease_keys(id, count_max).unwrap(), attached, "lease {id}");
        self.assert_leases();
    }

    /// Asked for a few at a time.
    fn assert_leases(&self) {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let some = self.store.leases(after, 2).unwrap();
            after = some.last().map(|(id, _)| *id);
            found.extend(some);
            if after.is_none() {
                break;
            }
        }
        found.sort_by_key(|(id, _)| *id);
        let expected = self.model.leases.iter().map(|(id, lease)| {
            let (generation, ttl_s, remaining_s) = (lease.granted_by, lease.ttl_s, lease.remaining_s);
            (*id, Lease { generation, ttl_s, remaining_s })
        });
        assert_eq!(found, expected.collect::<Vec<_>>());
    }

    /// Begins a range, or reads on. Restarts and snapshots in between do not matter.
    fn read_slowly(&mut self) {
        let Some(slow) = &mut self.slow else {
            let range = random_range(&mut self.rng, self.model.revision);
            if let Ok(reading) = self.store.begin_range(&range) {
                let expected = self.model.range(&range);
                self.slow =
                    Some(Slow { range, reading, expected, read: RangeResult::default(), begun: false });
            }
            return;
        };
        let keys = self.rng.between(1, 12) as usize;
        let bytes = self.rng.between(1, 400) as usize;
        let mut budget = Budget { keys, bytes };
        let compacted = slow.reading.revision() < self.model.compacted;
        if compacted && !slow.begun && slow.range.revision == 0 {
            slow.expected = self.model.range(&slow.range);
        }
        let part = match self.store.read_part(&mut slow.reading, &mut budget).unwrap() {
            Ok(part) => part,
            Err(fault) => {
                assert!(compacted && (slow.begun || slow.range.revision > 0), "{:?}: {fault}", slow.range);
                self.slow = None;
                return;
            }
        };
        assert!(part.kvs.len() <= keys, "{} kvs of {keys} keys", part.kvs.len());
        if let Some((_, all_but_last)) = part.kvs.split_last() {
            let held: usize = all_but_last.iter().map(KeyValue::size_bytes).sum();
            assert!(held < bytes, "{held} bytes where {bytes} are the end, and one more key");
        }
        if let Some(head) = part.head {
            assert!(!slow.begun, "a second head");
            slow.begun = true;
            let (revision, count, more) = (head.revision, head.count, head.more);
            let kvs: Vec<KeyValue> = Vec::with_capacity(head.kvs as usize);
            slow.read = RangeResult { revision, count, more, kvs };
        }
        assert!(slow.begun || part.kvs.is_empty() && !part.last, "the head comes first");
        slow.read.kvs.extend(part.kvs);
        if part.last {
            assert_eq!(Ok(&slow.read), slow.expected.as_ref(), "{:?}", slow.range);
            self.slow = None;
        }
    }

    /// A few changes of what may be left, or all of it.
    fn sweep(&mut self) {
        let work_max = self.rng.between(1, 12) as usize;
        let whole = self.rng.one_in(4);
        while self.store.sweep_due() {
            self.store.sweep(work_max).unwrap();
            if !whole {
                break;
            }
        }
    }

    fn begin_checkpoint(&mut self) {
        if self.running.is_none() {
            self.running = self.store.begin_checkpoint().unwrap();
        }
    }

    fn end_checkpoint(&mut self) {
        if let Some(work) = self.running.take() {
            let done = work.run(&|| ()).unwrap();
            self.store.end_checkpoint(done).unwrap();
        }
        assert!(self.store.durable_applied() <= self.store.applied().index);
    }

    /// The process dies; perhaps a checkpoint got to its end first, untold.
    fn restart(&mut self) {
        if let Some(work) = self.running.take()
            && self.rng.one_in(2)
        {
            work.run(&|| ()).unwrap();
        }
        self.reopen(self.disk.point().kill_image());
    }

    /// The newest checkpoint is unreadable: a restart falls back, no further than `durable_applied` said.
    fn restart_after_damage(&mut self) {
        self.running = None;
        let promised = self.store.durable_applied();
        let hash = content(&self.store);
        damage_newest_meta_slot(&self.disk, self.store.stats().checkpoint);
        let store = Store::open(&self.disk.point().kill_image(), path()).unwrap();
        assert!(store.applied().index >= promised, "{} < {promised}", store.applied());
        assert_eq!(store.notes().len(), 1, "the damage is told");
        self.reopen(self.disk.point().kill_image());
        assert_eq!(content(&self.store), hash);
        // Both slots are good again, for the next time.
        self.apply();
        checkpoint(&mut self.store);
    }

    fn reopen(&mut self, disk: SimDisk) {
        let hash = content(&self.store);
        self.disk = disk;
        self.store = Store::open(&self.disk, path()).unwrap();
        self.replay();
        assert_eq!(content(&self.store), hash);
    }

    fn replay(&mut self) {
        let applied = self.store.applied().index as usize;
        for (at, command) in self.log.iter().enumerate().skip(applied) {
            let id = EntryId::new(1 + at as u64 / 50, at as u64 + 1);
            self.store.apply(id, command.as_ref()).unwrap();
        }
        assert_eq!(self.store.revision(), self.model.revision);
    }

    /// Another member with other pages takes a snapshot, and then this one goes on from it.
    fn snapshot(&mut self) {
        self.end_checkpoint();
        let chunks = send(&mut self.store, self.rng.between(64, 3_000) as usize);
        let other = disk();
        let page_bytes = 256 << self.rng.below(6);
        let identity = Identity { member: 2, ..IDENTITY };
        drop(Store::create(&other, path(), identity, &members(), options(page_bytes)).unwrap());
        let store = install(&other, identity, options(page_bytes), &chunks);
        assert_eq!(content(&store), content(&self.store));
        assert_eq!((store.applied(), store.identity()), (self.store.applied(), identity));
        assert_eq!((store.members(), store.joint()), (self.store.members(), self.store.joint()));
        (self.disk, self.store) = (other, store);
    }

    fn end(mut self, page_bytes: usize) {
        self.end_checkpoint();
        for revision in self.model.compacted.max(1)..=self.model.revision {
            let everything = Range { revision, ..Range::new(Span::Prefix(Bytes::new())) };
            assert_eq!(self.store.range(&everything).unwrap(), self.model.range(&everything));
        }
        assert_eq!(self.store.alarms(), self.model.alarms());
        assert_eq!(self.store.members(), self.model.members.values().cloned().collect::<Vec<_>>());
        assert!(self.store.removed_members().iter().eq(&self.model.removed));
        assert!(self.store.joint().coming.iter().eq(&self.model.coming));
        assert!(self.store.joint().leaving.iter().eq(&self.model.leaving));
        self.assert_leases();

        // Determinism: the same log, other pages, another disk, and no checkpoint and no sweep at all.
        let other = disk();
        let mut straight = new_store(&other, if page_bytes == 4096 { 512 } else { 4096 });
        for (at, command) in self.log.iter().enumerate() {
            straight.apply(EntryId::new(1 + at as u64 / 50, at as u64 + 1), command.as_ref()).unwrap();
        }
        assert_eq!(content(&straight), content(&self.store));
        for store in [&mut self.store, &mut straight] {
            while self.rng.one_in(2) && store.sweep_due() {
                store.sweep(64).unwrap();
            }
        }
        assert_eq!(content(&straight), content(&self.store));
        assert_sound(&self.disk, self.store);
        assert_sound(&other, straight);
    }
}

/// The slots of the meta pages lie at 0 and 4096; checkpoints take turns.
fn damage_newest_meta_slot(disk: &SimDisk, checkpoint: u64) {
    let damage = Damage::Garbage { len: 512, seed: 7 };
    disk.damage(path(), (checkpoint % 2) * 4096, damage).unwrap();
}

pub fn random_key(rng: &mut Rng) -> Bytes {
    if rng.one_in(40) {
        // Longer than a small page can hold.
        let mut key = vec![b'L'; rng.between(100, 900) as usize];
        let last = key.len() - 1;
        key[last] = rng.below(4) as u8;
        return key.into();
    }
    let length = rng.between(1, 4);
    (0..length).map(|_| [0, 1, 2, b'a', b'b', 0xff][rng.below(6) as usize]).collect::<Vec<u8>>().into()
}

/// Few, of both signs, so that ids come back.
pub fn random_lease(rng: &mut Rng) -> i64 {
    [7, 8, -8, i64::MAX, i64::MIN, 0][rng.below(6) as usize]
}

pub fn random_value(rng: &mut Rng) -> Bytes {
    let length = match rng.below(20) {
        0 => rng.between(1_000, 9_000),
        1..4 => 0,
        _ => rng.below(40),
    };
    let mut value = vec![0; length as usize];
    rng.fill(&mut value);
    value.into()
}

pub fn random_span(rng: &mut Rng) -> Span {
    match rng.below(8) {
        0..3 => Span::Key(random_key(rng)),
        3 | 4 => Span::Between(random_key(rng), random_key(rng)),
        5 => Span::Prefix(random_key(rng).slice(..1)),
        6 => Span::From(random_key(rng)),
        _ => Span::Prefix(Bytes::new()),
    }
}

pub fn random_put(rng: &mut Rng) -> Put {
    let (ignore_value, ignore_lease) = (rng.one_in(6), rng.one_in(10));
    Put {
        key: random_key(rng),
        value: if ignore_value { Bytes::new() } else { random_value(rng) },
        lease: if !ignore_lease && rng.one_in(2) { random_lease(rng) } else { 0 },
        prev_kv: rng.one_in(2),
        ignore_value,
        ignore_lease,
    }
}

fn random_alarm(rng: &mut Rng) -> Alarm {
    let kind = if rng.one_in(2) { AlarmKind::NoSpace } else { AlarmKind::Corrupt };
    Alarm { member: rng.below(3), kind }
}

fn random_command(rng: &mut Rng, revision: u64) -> Command {
    match rng.below(104) {
        // Rare, and soon over: otherwise nothing would grow.
        100 => match rng.below(3) {
            0 => Command::Alarm { member: rng.between(1, 3), raised: true },
            _ => Command::ChangeAlarms(AlarmChange::Raise(random_alarm(rng))),
        },
        101 => Command::Alarm { member: 0, raised: false },
        102 => Command::ChangeAlarms(AlarmChange::End(random_alarm(rng))),
        103.. => Command::ChangeAlarms(AlarmChange::EndAll),
        drawn => random_change_of_keys(rng, revision, drawn % 26),
    }
}

fn random_change_of_keys(rng: &mut Rng, revision: u64, drawn: u64) -> Command {
    match drawn {
        // Mostly a little behind the last one; now and then what is refused.
        21 => {
            let back = if rng.one_in(4) { rng.below(revision + 1) } else { rng.below(20) };
            let revision = (revision + 1).saturating_sub(back);
            Command::Compact(Compact { revision, physical: rng.one_in(2) })
        }
        0..14 => Command::Put(random_put(rng)),
        22.. => Command::Txn(random_txn(rng, revision, true)),
        14..19 => {
            let mut span = random_span(rng);
            if matches!(&span, Span::Prefix(prefix) if prefix.is_empty()) && !rng.one_in(8) {
                span = Span::Key(random_key(rng)); // Or nothing would grow.
            }
            Command::Delete(Delete { span, prev_kv: rng.one_in(2) })
        }
        19 => Command::Members(random_change(rng)),
        _ => Command::Publish {
            member: rng.between(1, 4),
            name: format!("n{}", rng.below(10)),
            client_urls: (0..rng.below(3)).map(|port| format!("http://127.0.0.1:{port}2379")).collect(),
        },
    }
}

fn random_change(rng: &mut Rng) -> MemberChange {
    match rng.below(10) {
        0..3 => MemberChange::Leave,
        3..6 => {
            let count = rng.between(2, 4) as usize;
            let fits = |step: &MemberChange| {
                !matches!(step, MemberChange::Update { .. } | MemberChange::Alone { .. })
            };
            let steps = std::iter::repeat_with(|| random_step(rng)).filter(fits);
            MemberChange::Several(steps.take(count).collect())
        }
        _ => random_step(rng),
    }
}

fn random_step(rng: &mut Rng) -> MemberChange {
    let id = rng.between(1, 12);
    let peer_urls = (0..rng.between(1, 2)).map(|port| format!("http://10.0.0.{id}:{port}")).collect();
    match rng.below(20) {
        0..8 => MemberChange::Add { id, peer_urls, learner: rng.one_in(2) },
        8..12 => MemberChange::Remove { id },
        12..15 => MemberChange::Update { id, peer_urls },
        15..19 => MemberChange::Promote { id },
        _ => MemberChange::Alone { id },
    }
}

pub fn random_range(rng: &mut Rng, revision: u64) -> Range {
    let bound = |rng: &mut Rng| if rng.one_in(6) { rng.between(0, revision) } else { 0 };
    Range {
        limit: if rng.one_in(2) { rng.below(6) } else { 0 },
        revision: if rng.one_in(2) { rng.between(0, revision + 1) } else { 0 },
        order: if rng.one_in(2) { Order::Ascending } else { Order::Descending },
        sort_by: match rng.below(10) {
            0 => SortBy::Version,
            1 => SortBy::Create,
            2 => SortBy::Mod,
            3 => SortBy::Value,
            _ => SortBy::Key,
        },
        serializable: false,
        keys_only: rng.one_in(3),
        count_only: rng.one_in(8),
        min_mod: bound(rng),
        max_mod: bound(rng),
        min_create: bound(rng),
        max_create: bound(rng),
        ..Range::new(random_span(rng))
    }
}
