//! Three whole members in one thread: the shipped node, log, tree, store and peer codec on simulated disks, a
//! simulated network and simulated time, all from one seed. Members lose power in the middle of writes,
//! messages are lost, delayed, repeated and overtaken; at the end every acknowledged write must be there, and
//! every answer must have been the right one.
//!
//! `SEEDS=n` runs more; a failing seed is printed and can be run alone with `SEED=n`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use pawl::api::{Body, Call, Code, Delete, Limits, Member, Put, Range, Request, Span};
use pawl::base::time::MS;
use pawl::base::{Mono, Revision, Rng};
use pawl::io::sim::{Profile, SimDisk};
use pawl::node::{Bootstrap, Config, Done, Job, Node, Outbound, Rules};
use pawl::proto::peer::{self, Frame};
use pawl::wal::{Batch, LogWriter};

const MEMBERS: [u64; 3] = [1, 2, 3];
const CLIENTS: u64 = 6;
const KEYS: u64 = 8;

struct Running {
    node: Node<SimDisk>,
    writer: Option<LogWriter<SimDisk>>,
    /// What an earlier life of this member left in the queues is not for this one.
    life: u64,
    turn_at: Option<Mono>,
}

enum Event {
    Turn {
        member: u64,
        life: u64,
    },
    /// Dies with either end: it is on a connection between two lives.
    Frame {
        to: u64,
        from: u64,
        lives: (u64, u64),
        bytes: BytesMut,
    },
    Write {
        member: u64,
        life: u64,
        batches: Vec<Batch>,
    },
    Job {
        member: u64,
        life: u64,
        job: Job<SimDisk>,
    },
    Restart {
        member: u64,
    },
    Crash {
        member: u64,
    },
    Client {
        client: u64,
    },
    GiveUp {
        client: u64,
        op: usize,
    },
    /// The process stands still, as under SIGSTOP: everything waits for it, and it does not know.
    Freeze {
        member: u64,
        length: u64,
    },
}

/// One operation of a client, as it saw it.
#[derive(Clone, Debug)]
struct Op {
    request: Asked,
    invoked: Mono,
    /// When the answer came, and what it was. None: never, or not known.
    answered: Option<(Mono, Answer)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Put { key: Bytes, value: Bytes },
    Delete { key: Bytes },
    Get { key: Bytes },
}

#[derive(Clone, Debug)]
enum Answer {
    Put {
        revision: Revision,
    },
    Delete {
        revision: Revision,
        deleted: u64,
    },
    Get {
        at: Revision,
        found: Option<(Bytes, Revision)>,
    },
    /// Certainly nothing happened.
    Refused,
}

struct World {
    seed: u64,
    now: Mono,
    rng: Rng,
    queue: BTreeMap<(Mono, u64), Event>,
    next_event: u64,
    disks: BTreeMap<u64, SimDisk>,
    running: BTreeMap<u64, Running>,
    lives: u64,
    ops: Vec<Op>,
    /// Which operation each client waits for.
    waiting: BTreeMap<u64, usize>,
    /// Members that stand still, and until when.
    frozen: BTreeMap<u64, Mono>,
    /// Faults stop here.
    calm_at: Mono,
    crashes: u64,
}

fn config() -> Config {
    Config {
        name: "sim".into(),
        client_urls: vec!["http://127.0.0.1:2379".into()],
        tree_dir: PathBuf::from("/data/member"),
        wal_dir: PathBuf::from("/data/member/wal"),
        wal_segment_bytes: 16 << 10,
        heartbeat_interval: 20 * MS,
        election_timeout: 100 * MS,
        pre_vote: true,
        lease_reads: true,
        catchup_entries: 20,
        checkpoint_entries: 60,
        quota_bytes: None,
        limits: Limits::default(),
        members: Rules::default(),
    }
}

fn members() -> Vec<Member> {
    let member = |id: u64| Member {
        id,
        name: format!("n{id}"),
        peer_urls: vec![format!("http://10.0.0.{id}:2380")],
        ..Member::default()
    };
    MEMBERS.into_iter().map(member).collect()
}

impl World {
    fn new(seed: u64, calm_at: Mono) -> World {
        let mut world = World {
            seed,
            now: Mono(1_000 * MS),
            rng: Rng::new(seed),
            queue: BTreeMap::new(),
            next_event: 0,
            disks: MEMBERS.into_iter().map(|id| (id, SimDisk::new())).collect(),
            running: BTreeMap::new(),
            lives: 0,
            ops: Vec::new(),
            waiting: BTreeMap::new(),
            frozen: BTreeMap::new(),
            calm_at,
            crashes: 0,
        };
        for member in MEMBERS {
            world.start(member);
        }
        for client in 0..CLIENTS {
            let after = world.rng.below(50 * MS);
            world.at(after, Event::Client { client });
        }
        for _ in 0..12 {
            let member = world.rng.between(1, 3);
            let after = world.rng.below(calm_at.since(world.now));
            world.at(after, Event::Crash { member });
        }
        for _ in 0..8 {
            let (member, length) = (world.rng.between(1, 3), world.rng.between(20 * MS, 400 * MS));
            let after = world.rng.below(calm_at.since(world.now));
            world.at(after, Event::Freeze { member, length });
        }
        world
    }

    fn at(&mut self, after: u64, event: Event) {
        self.next_event += 1;
        self.queue.insert((self.now + after, self.next_event), event);
    }

    fn calm(&self) -> bool {
        self.now >= self.calm_at
    }

    fn start(&mut self, member: u64) {
        let disk = self.disks[&member].clone();
        let bootstrap = Bootstrap { cluster: 77, member, members: members(), trust_disk: false };
        let opened = Node::open(&disk, config(), &bootstrap, self.rng.next_u64(), self.now);
        let opened =
            opened.unwrap_or_else(|e| panic!("seed {}: member {member} does not start: {e}", self.seed));
        self.lives += 1;
        let running =
            Running { node: opened.node, writer: Some(opened.log_writer), life: self.lives, turn_at: None };
        let life = running.life;
        self.running.insert(member, running);
        self.turn_after(member, life, 0);
    }

    /// Power goes: what was not synced survives as it likes.
    fn crash(&mut self, member: u64) {
        if self.running.remove(&member).is_none() {
            return;
        }
        self.crashes += 1;
        let point = self.disks[&member].point();
        let disk = if self.rng.one_in(3) {
            point.kill_image()
        } else {
            let fates = point.survivors(Profile::PosixWorst, self.rng.next_u64(), 4);
            let chosen = self.rng.below(fates.len() as u64) as usize;
            point.image(&fates[chosen])
        };
        self.disks.insert(member, disk);
        for other in MEMBERS {
            if let Some(running) = self.running.get_mut(&other) {
                running.node.on_peer_lost(member, self.now);
                let life = running.life;
                self.turn_after(other, life, 0);
            }
        }
        for (client, op) in self.waiting.clone() {
            // A client whose member died learns nothing; it is told by its own patience.
            self.at(20 * MS, Event::GiveUp { client, op });
        }
        let away = self.rng.below(300 * MS);
        self.at(away, Event::Restart { member });
    }

    fn turn_after(&mut self, member: u64, life: u64, after: u64) {
        let due = self.now + after;
        let Some(running) = self.running.get_mut(&member) else { return };
        if running.life == life && running.turn_at.is_none_or(|at| at > due) {
            running.turn_at = Some(due);
            self.at(after, Event::Turn { member, life });
        }
    }

    fn alive(&mut self, member: u64, life: u64) -> Option<&mut Running> {
        self.running.get_mut(&member).filter(|running| running.life == life)
    }

    fn run(&mut self, until: Mono) {
        while let Some((&(at, number), _)) = self.queue.first_key_value() {
            if at > until {
                return;
            }
            let event = self.queue.remove(&(at, number)).expect("it was just seen");
            self.now = at;
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        let addressee = match &event {
            Event::Turn { member, .. } | Event::Write { member, .. } | Event::Job { member, .. } => {
                Some(*member)
            }
            Event::Frame { to, .. } => Some(*to),
            _ => None,
        };
        if let Some(&thaw) = addressee.and_then(|member| self.frozen.get(&member))
            && self.now < thaw
        {
            return self.at(thaw.since(self.now), event);
        }
        match event {
            Event::Freeze { member, length } => {
                if !self.calm() {
                    self.frozen.insert(member, self.now + length);
                }
            }
            Event::Turn { member, life } => self.turn(member, life),
            Event::Frame { to, from, lives, bytes } => self.deliver(to, from, lives, bytes),
            Event::Write { member, life, batches } => self.write(member, life, batches),
            Event::Job { member, life, job } => self.job(member, life, job),
            Event::Restart { member } => {
                self.frozen.remove(&member);
                if !self.running.contains_key(&member) {
                    self.start(member);
                }
            }
            Event::Crash { member } => {
                if !self.calm() {
                    self.crash(member);
                }
            }
            Event::Client { client } => self.ask(client),
            Event::GiveUp { client, op } => {
                if self.waiting.get(&client) == Some(&op) {
                    self.waiting.remove(&client);
                    self.at(MS, Event::Client { client });
                }
            }
        }
    }

    fn turn(&mut self, member: u64, life: u64) {
        let now = self.now;
        let seed = self.seed;
        let Some(running) = self.alive(member, life) else { return };
        if running.turn_at.is_none_or(|at| at > now) {
            return;
        }
        running.turn_at = None;
        let output = match running.node.turn(now) {
            Ok(output) => output,
            Err(e) => panic!("seed {seed}: member {member} stops: {e}"),
        };
        let next = if output.again { MS / 100 } else { running.node.deadline().since(now).max(MS / 100) };
        if !output.batches.is_empty() {
            let delay = self.rng.between(MS / 10, 3 * MS);
            self.at(delay, Event::Write { member, life, batches: output.batches });
        }
        let mut delay = 0;
        for job in output.jobs {
            delay += self.rng.between(MS / 10, 10 * MS);
            self.at(delay, Event::Job { member, life, job });
        }
        for message in output.messages {
            self.send(member, life, &message);
        }
        for reply in output.replies {
            let op = reply.tag as usize;
            self.answer(op, reply.header.revision, reply.body);
        }
        if next < 3_600_000 * MS {
            self.turn_after(member, life, next);
        }
    }

    fn send(&mut self, from: u64, from_life: u64, message: &Outbound) {
        let to = message.to();
        let mut bytes = BytesMut::new();
        match message {
            Outbound::Raft(message) => peer::encode_message(message, &mut bytes),
            Outbound::Call { call, .. } => peer::encode_call(call, &mut bytes),
        }
        let Some(life) = self.running.get(&to).map(|running| running.life) else { return };
        if !self.calm() && self.rng.one_in(20) {
            return;
        }
        let copies = if !self.calm() && self.rng.one_in(30) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = if !self.calm() && self.rng.one_in(40) { 80 * MS } else { 0 };
            let delay = self.rng.between(MS / 20, MS) + slow;
            self.at(delay, Event::Frame { to, from, lives: (from_life, life), bytes: bytes.clone() });
        }
    }

    fn deliver(&mut self, to: u64, from: u64, (from_life, life): (u64, u64), mut bytes: BytesMut) {
        let now = self.now;
        let seed = self.seed;
        if self.alive(from, from_life).is_none() {
            return;
        }
        let Some(running) = self.alive(to, life) else { return };
        let frame = peer::decode(&mut bytes).expect("a frame that we encoded").expect("a whole frame");
        match frame {
            Frame::Raft(message) => running.node.on_message(message, now),
            Frame::Call(call) => {
                if let Err(e) = running.node.on_peer_call(from, call, now) {
                    panic!("seed {seed}: member {to} stops: {e}");
                }
            }
            other => panic!("no greeting was sent: {other:?}"),
        }
        self.turn_after(to, life, 0);
    }

    /// The log writer's thread, at the time when it runs. The power may go in the middle.
    fn write(&mut self, member: u64, life: u64, batches: Vec<Batch>) {
        let cut = !self.calm() && self.rng.one_in(400);
        let ops = self.rng.below(6);
        let seed = self.seed;
        let disk = self.disks[&member].clone();
        let Some(running) = self.alive(member, life) else { return };
        if cut {
            disk.stop_at(disk.op_count() + ops);
        }
        let mut writer = running.writer.take().expect("one write at a time");
        match writer.write(batches) {
            Ok(written) => {
                running.writer = Some(writer);
                running.node.on_written(written);
                self.turn_after(member, life, 0);
            }
            Err(_) if cut => {}
            Err(e) => panic!("seed {seed}: member {member} cannot write: {e}"),
        }
        if cut {
            self.crash(member);
        }
    }

    fn job(&mut self, member: u64, life: u64, job: Job<SimDisk>) {
        let cut = !self.calm() && self.rng.one_in(100);
        let ops = self.rng.below(12);
        let (now, seed) = (self.now, self.seed);
        let disk = self.disks[&member].clone();
        let Some(running) = self.alive(member, life) else { return };
        if cut {
            disk.stop_at(disk.op_count() + ops);
        }
        let done: Result<Done, _> = job.run();
        match done {
            Ok(done) => {
                if let Err(e) = running.node.on_done(done, now)
                    && !cut
                {
                    panic!("seed {seed}: member {member} stops: {e}");
                }
                self.turn_after(member, life, 0);
            }
            Err(_) if cut => {}
            Err(e) => panic!("seed {seed}: member {member}: a job failed: {e}"),
        }
        if cut {
            self.crash(member);
        }
    }

    fn ask(&mut self, client: u64) {
        let member = self.rng.between(1, 3);
        let key = Bytes::from(format!("k{}", self.rng.below(KEYS)));
        let op = self.ops.len();
        let request = match self.rng.below(10) {
            0..=4 => {
                let filler = if self.rng.one_in(10) { 3_000 } else { 0 };
                Asked::Put { key, value: Bytes::from(format!("v{op}-{}", "x".repeat(filler))) }
            }
            5 => Asked::Delete { key },
            _ => Asked::Get { key },
        };
        let call = match request.clone() {
            Asked::Put { key, value } => Request::Put(Put { key, value, ..Put::default() }),
            Asked::Delete { key } => Request::Delete(Delete { span: Span::Key(key), prev_kv: false }),
            Asked::Get { key } => Request::Range(Range::new(Span::Key(key))),
        };
        let now = self.now;
        let Some(running) = self.running.get_mut(&member) else {
            return self.at(5 * MS, Event::Client { client });
        };
        running.node.on_call(client + 1, Call::Request { tag: op as u64, request: call }, now);
        let life = running.life;
        self.ops.push(Op { request, invoked: now, answered: None });
        self.waiting.insert(client, op);
        self.turn_after(member, life, 0);
        let patience = self.rng.between(200 * MS, 1_000 * MS);
        self.at(patience, Event::GiveUp { client, op });
    }

    fn answer(&mut self, op: usize, at: Revision, body: Body) {
        let answer = match body {
            Body::Put { revision, .. } => Answer::Put { revision },
            Body::Delete { revision, deleted, .. } => Answer::Delete { revision, deleted },
            Body::Range(result) => {
                let found = result.kvs.into_iter().next().map(|kv| (kv.value, kv.mod_revision));
                assert!(result.revision <= at, "a range cannot be newer than its header");
                Answer::Get { at: result.revision, found }
            }
            Body::Fault(fault) if matches!(fault.code, Code::Timeout) => return,
            Body::Fault(fault) if matches!(fault.code, Code::NoLeader | Code::Busy) => Answer::Refused,
            other => panic!("seed {}: an answer nobody expects: {other:?}", self.seed),
        };
        // Also an answer that the client no longer waits for is a promise.
        self.ops[op].answered = Some((self.now, answer));
        let client = self.waiting.iter().find(|(_, waiting)| **waiting == op).map(|(&client, _)| client);
        if let Some(client) = client {
            self.waiting.remove(&client);
            let think = self.rng.below(4 * MS);
            self.at(think, Event::Client { client });
        }
    }

    /// What the store says happened at every revision: key, and value or deletion.
    fn history(&mut self, member: u64) -> Vec<(Revision, Bytes, Option<Bytes>)> {
        let mut history = Vec::new();
        let node = &self.running[&member].node;
        let last = node.revision();
        let mut before: BTreeMap<Bytes, (Bytes, Revision)> = BTreeMap::new();
        for revision in 2..=last {
            let range = Range { revision, ..Range::new(Span::Prefix(Bytes::new())) };
            let result = node.range(&range).expect("a sound tree").expect("no compaction yet");
            let after: BTreeMap<Bytes, (Bytes, Revision)> =
                result.kvs.into_iter().map(|kv| (kv.key, (kv.value, kv.mod_revision))).collect();
            for (key, (value, at)) in &after {
                if *at == revision {
                    history.push((revision, key.clone(), Some(value.clone())));
                }
            }
            for key in before.keys().filter(|key| !after.contains_key(*key)) {
                history.push((revision, key.clone(), None));
            }
            before = after;
        }
        history
    }
}

/// Every acknowledged write is in the history at its revision; nothing else is, but unknown writes, once each;
/// revisions follow real time; every read saw the state at its revision, and none older than what was
/// finished before it began.
fn check(world: &mut World) {
    let seed = world.seed;
    let histories: Vec<_> = MEMBERS.into_iter().map(|member| world.history(member)).collect();
    for history in &histories[1..] {
        assert_eq!(history, &histories[0], "seed {seed}: members differ");
    }
    let history = &histories[0];
    let mut at: BTreeMap<Revision, (&Bytes, Option<&Bytes>)> = BTreeMap::new();
    for (revision, key, value) in history {
        assert!(
            at.insert(*revision, (key, value.as_ref())).is_none(),
            "seed {seed}: two changes at {revision}"
        );
    }
    let mut values = BTreeSet::new();
    for (_, _, value) in history {
        if let Some(value) = value {
            assert!(values.insert(value.clone()), "seed {seed}: {value:?} was written twice");
        }
    }
    let mut finished: Vec<(Mono, Revision)> = Vec::new();
    for op in &world.ops {
        let Some((when, answer)) = &op.answered else { continue };
        let revision = match (&op.request, answer) {
            (Asked::Put { key, value }, Answer::Put { revision }) => {
                let found = at.get(revision);
                assert_eq!(found, Some(&(key, Some(value))), "seed {seed}: {op:?} is lost");
                *revision
            }
            (Asked::Delete { key }, Answer::Delete { revision, deleted }) => {
                if *deleted > 0 {
                    assert_eq!(at.get(revision), Some(&(key, None)), "seed {seed}: {op:?} is lost");
                }
                *revision
            }
            (Asked::Get { key }, Answer::Get { at: read_at, found }) => {
                let newest = at.range(..=*read_at).rev().find(|(_, (changed, _))| *changed == key);
                let expected = newest.and_then(|(&r, (_, value))| value.map(|value| (value.clone(), r)));
                assert_eq!(found, &expected, "seed {seed}: {op:?} saw what was not there");
                *read_at
            }
            (Asked::Put { value, .. }, Answer::Refused) => {
                assert!(!values.contains(value), "seed {seed}: {op:?} was refused and happened");
                continue;
            }
            (_, Answer::Refused) => continue,
            mismatch => panic!("seed {seed}: {mismatch:?}"),
        };
        finished.push((*when, revision));
        let newest_before = finished_before(&world.ops, op.invoked);
        assert!(
            revision >= newest_before,
            "seed {seed}: {op:?} is at revision {revision}, though {newest_before} was finished before it began"
        );
    }
}

fn finished_before(ops: &[Op], instant: Mono) -> Revision {
    let revision = |op: &Op| match &op.answered {
        Some((when, Answer::Put { revision } | Answer::Delete { revision, .. })) if *when < instant => {
            *revision
        }
        Some((when, Answer::Get { at, .. })) if *when < instant => *at,
        _ => 0,
    };
    ops.iter().map(revision).max().unwrap_or(0)
}

fn run_seed(seed: u64) -> (usize, u64) {
    let calm_at = Mono(4_000 * MS);
    let mut world = World::new(seed, calm_at);
    world.run(calm_at + 2_000 * MS);
    for member in MEMBERS {
        assert!(world.running.contains_key(&member), "seed {seed}: member {member} is not up");
    }
    // Clients stop; what is on its way arrives.
    world.queue.retain(|_, event| !matches!(event, Event::Client { .. }));
    let late =
        world.ops.iter().filter(|op| op.invoked >= calm_at + 1_000 * MS && op.answered.is_some()).count();
    assert!(late > 20, "seed {seed}: only {late} operations were answered after the faults had stopped");
    world.waiting.clear();
    world.run(calm_at + 4_000 * MS);
    check(&mut world);
    (world.ops.iter().filter(|op| op.answered.is_some()).count(), world.crashes)
}

#[test]
fn acknowledged_writes_survive_and_reads_are_linearizable() {
    if let Ok(seed) = std::env::var("SEED") {
        run_seed(seed.parse().expect("SEED is a number"));
        return;
    }
    let seeds: u64 = std::env::var("SEEDS").map_or(12, |text| text.parse().expect("SEEDS is a number"));
    let (mut answered, mut crashes) = (0, 0);
    for seed in 1..=seeds {
        let (ops, cut) = run_seed(seed);
        answered += ops;
        crashes += cut;
    }
    println!("{seeds} seeds: {answered} operations answered, {crashes} power cuts and kills");
    assert!(answered > 100 * seeds as usize, "the clients hardly got an answer");
}
