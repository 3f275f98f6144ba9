//! One member in a world that is searched: a core, its log as handed over and as a power cut would leave it.

use crate::base::{EntryId, Index, MemberId, Mono, Term};
use crate::raft::explore::{Digest, Names};
use crate::raft::{
    Config, Entry, EntryKind, HardState, LogGap, LogView, Membership, Memory, Message, Raft, ReadReady,
    Ready, Start,
};

/// What a disk holds: entries behind a base, and the hard state.
#[derive(Clone, Default)]
pub(super) struct Image {
    pub base: EntryId,
    pub entries: Vec<Entry>,
    pub hard_state: HardState,
}

impl Image {
    pub fn last(&self) -> EntryId {
        self.entries.last().map_or(self.base, |entry| entry.id)
    }

    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries.get(index.checked_sub(self.base.index + 1)? as usize)
    }

    pub fn put(&mut self, entry: &Entry) {
        assert!(entry.id.index <= self.last().index + 1, "a gap before {}", entry.id);
        self.entries.truncate((entry.id.index - self.base.index - 1) as usize);
        self.entries.push(entry.clone());
    }

    fn fingerprint(&self, names: &Names) -> u64 {
        let mut digest = Digest::new(20);
        digest.add_id(self.base);
        digest.add(names.hard_state(self.hard_state));
        self.entries.iter().for_each(|entry| digest.add(names.entry(entry)));
        digest.0
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

    fn entries(&self, from: Index, to: Index, _bytes_max: usize) -> Result<Vec<Entry>, LogGap> {
        if from <= self.base.index {
            return Err(LogGap::Compacted);
        }
        Ok((from..=to).filter_map(|index| self.entry(index)).cloned().collect())
    }
}

/// Records on their way to the disk: a hard state, then entries.
#[derive(Clone)]
pub(super) struct Write {
    number: u64,
    hard_state: Option<HardState>,
    pub entries: Vec<Entry>,
}

impl Write {
    fn records(&self) -> usize {
        usize::from(self.hard_state.is_some()) + self.entries.len()
    }
}

#[derive(Clone)]
pub(super) struct Member {
    pub id: MemberId,
    pub raft: Raft,
    pub log: Image,
    pub durable: Image,
    /// The membership of the state at `durable.base`, and that of what is applied.
    base_membership: Membership,
    pub membership: Membership,
    pub applied: EntryId,
    pub writes: Vec<Write>,
    held: Vec<(u64, Vec<Message>)>,
}

/// What a turn brought.
#[derive(Default)]
pub(super) struct Turn {
    pub written: Vec<Entry>,
    pub sent: Vec<Message>,
    pub reads: Vec<ReadReady>,
    pub snapshots: Vec<MemberId>,
}

impl Member {
    /// A member that starts for the first time: part of the first membership, or blank.
    pub fn new(config: Config, membership: Membership, now: Mono) -> Member {
        let log = Image::default();
        let start = Start {
            hard_state: HardState::default(),
            membership: membership.clone(),
            applied: EntryId::ZERO,
            memory: Memory::Whole,
            promised: 0,
            solitary: membership.all().len() == 1,
        };
        let mut raft = Raft::new(config.clone(), start, &log, now);
        raft.set_election_at(Mono::NEVER);
        Member {
            id: config.id,
            raft,
            durable: log.clone(),
            log,
            base_membership: membership.clone(),
            membership,
            applied: EntryId::ZERO,
            writes: Vec::new(),
            held: Vec::new(),
        }
    }

    /// How many of the records under way may survive a crash.
    pub fn unsynced(&self) -> usize {
        self.writes.iter().map(Write::records).sum()
    }

    /// Stops, keeps the first `keep` records that were under way, and starts again.
    pub fn crash(&mut self, keep: usize, config: Config, now: Mono) {
        let mut keep = keep;
        for write in std::mem::take(&mut self.writes) {
            harden(&mut self.durable, &write, &mut keep);
        }
        self.held.clear();
        self.log = self.durable.clone();
        self.applied = self.durable.base;
        self.membership = self.base_membership.clone();
        let start = Start {
            hard_state: self.durable.hard_state,
            membership: self.membership.clone(),
            applied: self.applied,
            memory: Memory::Whole,
            promised: 0,
            solitary: self.base_membership.all().len() == 1,
        };
        self.raft = Raft::new(config, start, &self.log, now);
        self.raft.set_election_at(Mono::NEVER);
    }

    /// One Ready, and all of it that needs no disk.
    pub fn turn(&mut self) -> Option<Turn> {
        let ready = self.raft.ready(&self.log)?;
        let writes = ready.has_writes();
        let Ready { number, hard_state, entries, messages_now, messages_after, committed, .. } = ready;
        let snapshots = ready.snapshots.into_iter().map(|(to, _)| to).collect();
        let turn = Turn { written: entries.clone(), sent: messages_now, reads: ready.reads, snapshots };
        if writes {
            entries.iter().for_each(|entry| self.log.put(entry));
            self.writes.push(Write { number, hard_state, entries });
        }
        if !messages_after.is_empty() {
            self.held.push((number, messages_after));
        }
        for entry in committed {
            if entry.kind == EntryKind::Membership {
                (self.membership, _) = Membership::decode(&entry.payload).expect("the core checked it");
            }
            self.applied = entry.id;
            self.raft.applied(entry.id.index);
        }
        Some(turn)
    }

    /// The disk completes the oldest write. Answers what may leave now.
    pub fn persist(&mut self) -> Vec<Message> {
        let write = self.writes.remove(0);
        harden(&mut self.durable, &write, &mut { usize::MAX });
        self.raft.persisted(write.number, &self.log);
        let freed = self.held.iter().take_while(|(number, _)| *number <= write.number).count();
        self.held.drain(..freed).flat_map(|(_, messages)| messages).collect()
    }

    /// Replaces everything by the state of `at`. False: it is not wanted.
    pub fn install(&mut self, at: EntryId, membership: &Membership) -> bool {
        if !self.writes.is_empty() || !self.raft.wants_snapshot(at, &self.log) {
            return false;
        }
        for image in [&mut self.durable, &mut self.log] {
            image.hard_state = self.raft.hard_state();
            image.base = at;
            image.entries.clear();
        }
        self.applied = at;
        self.base_membership = membership.clone();
        self.membership = membership.clone();
        self.raft.snapshot_installed(at, membership.clone(), &self.log);
        true
    }

    pub fn fingerprint(&self, names: &Names) -> u64 {
        let mut digest = Digest::new(21);
        digest.add(self.raft.fingerprint(names));
        digest.add(self.durable.fingerprint(names));
        digest.add(self.log.fingerprint(names));
        digest.add_id(self.applied);
        digest.add(names.membership(&self.base_membership));
        for write in &self.writes {
            digest.add(write.hard_state.map_or(0, |hard_state| names.hard_state(hard_state)));
            write.entries.iter().for_each(|entry| digest.add(names.entry(entry)));
            digest.add(0);
        }
        for (number, messages) in &self.held {
            digest.add(self.writes.iter().filter(|write| write.number <= *number).count() as u64);
            messages.iter().for_each(|message| digest.add(names.message(message)));
        }
        digest.0
    }
}

/// The first `keep` records of `write` reach the disk.
fn harden(durable: &mut Image, write: &Write, keep: &mut usize) {
    if let Some(hard_state) = write.hard_state
        && *keep > 0
    {
        durable.hard_state = hard_state;
        *keep -= 1;
    }
    for entry in &write.entries {
        if *keep == 0 {
            return;
        }
        durable.put(entry);
        *keep -= 1;
    }
}
