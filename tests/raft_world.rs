//! One simulated member for the tests of consensus: a core, a log in memory with a disk that lags behind, and a
//! state machine that only remembers what it was given.

use std::collections::VecDeque;

use bytes::Bytes;
use pawl::base::{EntryId, Index, MemberId, Mono, Term};
use pawl::raft::{
    Config, Entry, EntryKind, HardState, LogGap, LogView, Membership, Memory, Message, Raft, ReadReady,
    Ready, Start,
};

/// A log as bytes on a disk would hold it: entries behind a base, and the hard state.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// What came before the first entry.
    pub base: EntryId,
    pub entries: Vec<Entry>,
    pub hard_state: HardState,
    /// Reads of entries answer "not now".
    pub blocked: bool,
}

impl Image {
    pub fn last(&self) -> EntryId {
        self.entries.last().map_or(self.base, |entry| entry.id)
    }

    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let position = index.checked_sub(self.base.index + 1)?;
        self.entries.get(usize::try_from(position).unwrap())
    }

    fn put(&mut self, entry: &Entry) {
        assert!(entry.id.index > self.base.index, "entry {} was released", entry.id);
        assert!(entry.id.index <= self.last().index + 1, "a gap before {}", entry.id);
        self.entries.truncate(usize::try_from(entry.id.index - self.base.index - 1).unwrap());
        self.entries.push(entry.clone());
    }

    /// Forgets entries up to `index`.
    pub fn release(&mut self, index: Index) {
        let index = index.min(self.last().index);
        if index > self.base.index {
            let base = self.entry(index).unwrap().id;
            self.entries.drain(..usize::try_from(index - self.base.index).unwrap());
            self.base = base;
        }
    }
}

impl LogView for Image {
    fn first_index(&self) -> Index {
        self.base.index + 1
    }

    fn last_index(&self) -> Index {
        self.last().index
    }

    fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.entry(index).map(|entry| entry.id.term)
    }

    fn entries(&self, from: Index, to: Index, bytes_max: usize) -> Result<Vec<Entry>, LogGap> {
        if from <= self.base.index {
            return Err(LogGap::Compacted);
        }
        if self.blocked {
            return Err(LogGap::NotNow);
        }
        let mut bytes = 0;
        let mut found: Vec<Entry> = Vec::new();
        for index in from..=to {
            let entry = self.entry(index).expect("the core asks for entries that exist");
            bytes += entry.payload.len();
            if !found.is_empty() && bytes > bytes_max {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }
}

/// A batch that was handed to the disk and is not synced.
#[derive(Clone, Debug)]
pub struct Write {
    pub number: u64,
    pub hard_state: Option<HardState>,
    pub entries: Vec<Entry>,
}

impl Write {
    /// Records on disk: the hard state, then each entry.
    pub fn records(&self) -> usize {
        usize::from(self.hard_state.is_some()) + self.entries.len()
    }
}

pub struct Member {
    pub id: MemberId,
    /// As of what is applied, and as of the part of it that is durable.
    pub membership: Membership,
    pub checkpoint_membership: Membership,
    /// None: down.
    pub raft: Option<Raft>,
    /// What the log shows: everything that was handed over.
    pub log: Image,
    /// What a power cut would leave.
    pub durable: Image,
    pub writes: VecDeque<Write>,
    held: VecDeque<(u64, Vec<Message>)>,
    /// What the state machine holds, and the part of it that is durable.
    pub applied: EntryId,
    pub checkpoint: EntryId,
    /// How often it was started.
    pub life: u32,
    /// What it is told of its memory when it starts.
    pub memory: Memory,
}

/// What a member did in one turn.
#[derive(Default)]
pub struct Turn {
    pub write: Option<Write>,
    pub sent: Vec<Message>,
    pub committed: Vec<Entry>,
    pub reads: Vec<ReadReady>,
    pub snapshots: Vec<(MemberId, Index)>,
}

impl Member {
    pub fn new(id: MemberId, membership: Membership) -> Member {
        Member {
            id,
            checkpoint_membership: membership.clone(),
            membership,
            raft: None,
            log: Image::default(),
            durable: Image::default(),
            writes: VecDeque::new(),
            held: VecDeque::new(),
            applied: EntryId::ZERO,
            checkpoint: EntryId::ZERO,
            life: 0,
            memory: Memory::Whole,
        }
    }

    pub fn start(&mut self, config: Config, now: Mono) {
        assert!(self.raft.is_none(), "it runs already");
        self.life += 1;
        // What is behind the applied entry is in memory when a member starts.
        self.log = Image { blocked: false, ..self.durable.clone() };
        self.applied = self.checkpoint;
        self.membership = self.checkpoint_membership.clone();
        let start = Start {
            hard_state: self.durable.hard_state,
            membership: self.checkpoint_membership.clone(),
            applied: self.checkpoint,
            memory: self.memory,
            promised: 0,
            solitary: self.checkpoint_membership.all().len() == 1,
        };
        self.raft = Some(Raft::new(config, start, &self.log, now));
    }

    /// Stops at once. Of what was not synced the first `keep` records survive.
    pub fn crash(&mut self, keep: usize) {
        self.raft = None;
        self.held.clear();
        let mut keep = keep;
        for write in std::mem::take(&mut self.writes) {
            if keep == 0 {
                return;
            }
            self.harden(&write, &mut keep);
        }
    }

    fn harden(&mut self, write: &Write, keep: &mut usize) {
        if let Some(hard_state) = write.hard_state
            && *keep > 0
        {
            self.durable.hard_state = hard_state;
            *keep -= 1;
        }
        for entry in &write.entries {
            if *keep == 0 {
                return;
            }
            self.durable.put(entry);
            *keep -= 1;
        }
    }

    pub fn raft(&mut self) -> (&mut Raft, &Image) {
        (self.raft.as_mut().expect("it runs"), &self.log)
    }

    pub fn step(&mut self, message: Message, now: Mono) {
        let (raft, log) = self.raft();
        raft.step(message, now, log);
    }

    pub fn tick(&mut self, now: Mono) {
        let (raft, log) = self.raft();
        raft.tick(now, log);
    }

    pub fn propose(&mut self, payload: &str, now: Mono) -> Result<(), pawl::raft::Refused> {
        let (raft, log) = self.raft();
        raft.propose(vec![Bytes::copy_from_slice(payload.as_bytes())], now, log)
    }

    /// Takes one Ready and does all of it that needs no disk.
    pub fn turn(&mut self) -> Option<Turn> {
        let raft = self.raft.as_mut().expect("it runs");
        let expected = raft.has_ready();
        let ready = raft.ready(&self.log)?;
        assert!(expected, "n{} had a ready that it did not announce: {ready:?}", self.id);
        let writes = ready.has_writes();
        let Ready { number, hard_state, entries, messages_now, messages_after, .. } = ready;
        let mut turn = Turn {
            sent: messages_now,
            committed: ready.committed,
            reads: ready.reads,
            snapshots: ready.snapshots,
            ..Turn::default()
        };
        if writes {
            let write = Write { number, hard_state, entries };
            for entry in &write.entries {
                self.log.put(entry);
            }
            turn.write = Some(write.clone());
            self.writes.push_back(write);
        }
        if !messages_after.is_empty() {
            assert!(!self.writes.is_empty(), "messages wait for a write that is done");
            self.held.push_back((number, messages_after));
        }
        for entry in turn.committed.iter().filter(|entry| entry.kind == EntryKind::Membership) {
            self.membership = Membership::decode(&entry.payload).expect("it was checked").0;
        }
        if let Some(last) = turn.committed.last() {
            self.applied = last.id;
            self.raft.as_mut().expect("it runs").applied(last.id.index);
        }
        Some(turn)
    }

    /// The state machine's state becomes durable.
    pub fn take_checkpoint(&mut self) {
        self.checkpoint = self.applied;
        self.checkpoint_membership = self.membership.clone();
    }

    /// The disk completes everything up to write `number`. Answers the messages that this frees.
    pub fn persist(&mut self, number: u64) -> Vec<Message> {
        while self.writes.front().is_some_and(|write| write.number <= number) {
            let write = self.writes.pop_front().unwrap();
            self.harden(&write, &mut { usize::MAX });
        }
        let (raft, log) = self.raft();
        raft.persisted(number, log);
        let mut freed = Vec::new();
        while self.held.front().is_some_and(|(waits_for, _)| *waits_for <= number) {
            freed.append(&mut self.held.pop_front().unwrap().1);
        }
        freed
    }

    /// Replaces state and log by a snapshot; everything written before is synced. False: not wanted.
    pub fn install(&mut self, at: EntryId, membership: Membership) -> Option<Vec<Message>> {
        if !self.raft.as_ref().expect("it runs").wants_snapshot(at, &self.log) {
            return None;
        }
        let freed = match self.writes.back() {
            Some(write) => self.persist(write.number),
            None => Vec::new(),
        };
        let hard_state = self.raft.as_ref().expect("it runs").hard_state();
        for image in [&mut self.durable, &mut self.log] {
            image.hard_state = hard_state;
            image.base = at;
            image.entries.clear();
        }
        self.applied = at;
        self.membership = membership.clone();
        self.take_checkpoint();
        let (raft, log) = self.raft();
        raft.snapshot_installed(at, membership, log);
        Some(freed)
    }
}
