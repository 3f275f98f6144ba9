//! A whole cluster as a value: what may happen next, and what happens then.

use bytes::Bytes;

use super::member::Member;
use super::truth::Truth;
use crate::base::{MemberId, Mono};
use crate::raft::explore::{Digest, Names, Planted};
use crate::raft::{Change, Config, Membership, Message, MessageBody, Role};

/// One step of the clock. A lease lasts two.
const QUANTUM: u64 = 1_000_000;

/// How large a world may become: each kind of event may happen this often on one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    pub timeouts: u8,
    pub proposals: u8,
    pub crashes: u8,
    pub duplicates: u8,
    pub heartbeats: u8,
    pub clock: u8,
    pub reads: u8,
    pub transfers: u8,
    pub changes: u8,
}

/// A kind of world.
#[derive(Clone)]
pub struct Setup {
    pub name: &'static str,
    pub voters: u64,
    pub learners: u64,
    /// Members that may be added; blank.
    pub spares: u64,
    /// The member that leads, with everybody's agreement, when the search begins.
    pub leader: MemberId,
    pub term_max: u64,
    pub pre_vote: bool,
    /// Promises and leases; without them time has no part.
    pub leases: bool,
    /// Writes take effect when an event says so, and a crash may keep any prefix of them.
    pub slow_disks: bool,
    pub changes: &'static [&'static [Change]],
    pub budget: Budget,
    pub planted: Option<Planted>,
}

/// What may happen.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The message at this position arrives; `again`: and stays under way.
    Deliver {
        position: usize,
        again: bool,
    },
    /// A member loses patience.
    Timeout(MemberId),
    /// A disk completes its oldest write.
    Synced(MemberId),
    /// A member stops, keeps so many of its unsynced records, and starts again.
    Crash(MemberId, usize),
    Propose(MemberId),
    /// One of the setup's changes.
    Change(MemberId, usize),
    Transfer(MemberId, MemberId),
    Read(MemberId),
    Heartbeat(MemberId),
    Clock,
    /// What time made due at a member.
    Tick(MemberId),
    /// The state of the first is installed at the second, which the first was asked for.
    Install(MemberId, MemberId),
}

#[derive(Clone)]
pub struct World {
    pub(super) members: Vec<Member>,
    /// Under way, each once: a message that is never delivered is lost.
    network: Vec<Message>,
    snapshots: Vec<(MemberId, MemberId)>,
    clock: u64,
    left: Budget,
    next_read: u64,
    truth: Truth,
}

impl Setup {
    fn config(&self, id: MemberId) -> Config {
        Config {
            election_timeout: 2 * QUANTUM,
            heartbeat_interval: 2 * QUANTUM / 5,
            lease: 2 * QUANTUM,
            lease_reads: self.leases,
            pre_vote: self.pre_vote,
            planted: self.planted,
            ..Config::new(id, id)
        }
    }

    fn membership(&self) -> Membership {
        let voters = (1..=self.voters).collect();
        let learners = (self.voters + 1..=self.voters + self.learners).collect();
        Membership { voters, outgoing: Vec::new(), learners }
    }

    pub fn members(&self) -> u64 {
        self.voters + self.learners + self.spares
    }

    /// The world in which the search begins.
    pub fn start(&self) -> Result<World, String> {
        let initial = self.membership();
        let now = Mono(QUANTUM);
        let member = |id: MemberId| {
            let membership = if initial.contains(id) { initial.clone() } else { Membership::default() };
            Member::new(self.config(id), membership, now)
        };
        let mut world = World {
            members: (1..=self.members()).map(member).collect(),
            network: Vec::new(),
            snapshots: Vec::new(),
            clock: 1,
            left: Budget { timeouts: 1, ..Budget::default() },
            next_read: 0,
            truth: Truth::new(initial),
        };
        if self.leader != 0 {
            let calm = Setup { slow_disks: false, ..self.clone() };
            world.happen(&calm, Event::Timeout(self.leader))?;
            while !world.network.is_empty() {
                world.happen(&calm, Event::Deliver { position: 0, again: false })?;
            }
        }
        world.left = self.budget;
        Ok(world)
    }
}

impl World {
    fn now(&self) -> Mono {
        Mono(self.clock * QUANTUM)
    }

    fn member(&mut self, id: MemberId) -> &mut Member {
        &mut self.members[id as usize - 1]
    }

    /// Everything that may happen now, always in the same order.
    pub fn events(&self, setup: &Setup) -> Vec<Event> {
        let mut events = Vec::new();
        for position in 0..self.network.len() {
            events.push(Event::Deliver { position, again: false });
            if self.left.duplicates > 0 {
                events.push(Event::Deliver { position, again: true });
            }
        }
        events.extend(self.snapshots.iter().map(|&(from, to)| Event::Install(from, to)));
        for member in &self.members {
            self.events_of(setup, member, &mut events);
        }
        if self.left.clock > 0 {
            events.push(Event::Clock);
        }
        events
    }

    fn events_of(&self, setup: &Setup, member: &Member, events: &mut Vec<Event>) {
        let (id, left) = (member.id, &self.left);
        let leads = member.raft.role() == Role::Leader;
        let term = member.raft.standing().term;
        if !member.writes.is_empty() {
            events.push(Event::Synced(id));
        }
        if left.crashes > 0 {
            events.extend((0..=member.unsynced()).map(|keep| Event::Crash(id, keep)));
        }
        if member.raft.deadline() <= self.now() {
            events.push(Event::Tick(id));
        }
        if !leads {
            if left.timeouts > 0 && term < setup.term_max && self.may_lose_patience(member) {
                events.push(Event::Timeout(id));
            }
            return;
        }
        if left.proposals > 0 {
            events.push(Event::Propose(id));
        }
        if left.changes > 0 {
            events.extend((0..setup.changes.len()).map(|which| Event::Change(id, which)));
        }
        if left.reads > 0 {
            events.push(Event::Read(id));
        }
        if left.heartbeats > 0 {
            events.push(Event::Heartbeat(id));
        }
        if left.transfers > 0 && term < setup.term_max {
            let others = self.members.iter().filter(|other| other.id != id);
            events.extend(others.map(|other| Event::Transfer(id, other.id)));
        }
    }

    fn may_lose_patience(&self, member: &Member) -> bool {
        let mut raft = member.raft.clone();
        raft.set_election_at(Mono(0));
        raft.deadline() <= self.now()
    }

    /// Does it. What is found wrong, otherwise.
    pub fn happen(&mut self, setup: &Setup, event: Event) -> Result<(), String> {
        let now = self.now();
        match event {
            Event::Deliver { position, again } => {
                let message =
                    if again { self.network[position].clone() } else { self.network.remove(position) };
                self.left.duplicates -= u8::from(again);
                let to = message.to;
                let Member { raft, log, .. } = self.member(to);
                raft.step(message, now, log);
                self.settle(setup, to)
            }
            Event::Timeout(id) => {
                self.left.timeouts -= 1;
                let Member { raft, log, .. } = self.member(id);
                raft.set_election_at(Mono(0));
                raft.tick(now, log);
                self.settle(setup, id)
            }
            Event::Tick(id) => {
                let Member { raft, log, .. } = self.member(id);
                raft.tick(now, log);
                self.settle(setup, id)
            }
            Event::Synced(id) => self.sync(setup, id),
            Event::Crash(id, keep) => {
                self.left.crashes -= 1;
                self.member(id).crash(keep, setup.config(id), now);
                self.truth.restarted(id);
                self.settle(setup, id)
            }
            Event::Propose(id) => {
                self.left.proposals -= 1;
                let payload = vec![Bytes::copy_from_slice(&[b'a' + self.left.proposals])];
                let Member { raft, log, .. } = self.member(id);
                let _ = raft.propose(payload, now, log);
                self.settle(setup, id)
            }
            Event::Change(id, which) => {
                self.left.changes -= 1;
                let _ = self.member(id).raft.change_membership(setup.changes[which], b"", now);
                self.settle(setup, id)
            }
            Event::Transfer(id, to) => {
                self.left.transfers -= 1;
                let _ = self.member(id).raft.transfer(to, now);
                self.settle(setup, id)
            }
            Event::Read(id) => {
                self.left.reads -= 1;
                self.next_read += 1;
                let read = self.next_read;
                if self.member(id).raft.read_index(read, now).is_ok() {
                    self.truth.asked(id, read);
                }
                self.settle(setup, id)
            }
            Event::Heartbeat(id) => {
                self.left.heartbeats -= 1;
                self.member(id).raft.make_heartbeats_due();
                self.settle(setup, id)
            }
            Event::Clock => {
                self.left.clock -= 1;
                self.clock += 1;
                let now = self.now();
                self.truth.check_leases(&self.members, now)
            }
            Event::Install(from, to) => self.install(setup, from, to),
        }
    }

    fn install(&mut self, setup: &Setup, from: MemberId, to: MemberId) -> Result<(), String> {
        self.snapshots.retain(|snapshot| *snapshot != (from, to));
        let Member { applied, membership, .. } = self.member(from).clone();
        let outcome = if self.member(to).install(applied, &membership) { Ok(applied) } else { Err(()) };
        if outcome.is_ok() {
            self.truth.installed(to, applied);
        }
        self.settle(setup, to)?;
        self.member(from).raft.report_snapshot(to, outcome);
        self.settle(setup, from)
    }

    fn sync(&mut self, setup: &Setup, id: MemberId) -> Result<(), String> {
        let freed = self.member(id).persist();
        self.send(id, freed)?;
        self.settle(setup, id)
    }

    /// The member takes its turns, and everything is looked at.
    fn settle(&mut self, setup: &Setup, id: MemberId) -> Result<(), String> {
        let now = self.now();
        loop {
            let member = self.member(id);
            // The explorer alone says when patience ends, and without leases no promise ever binds.
            member.raft.set_election_at(Mono::NEVER);
            if !setup.leases {
                member.raft.forget_promise();
            }
            if let Some(turn) = member.turn() {
                self.truth.check_member(&self.members, id)?;
                for entry in &turn.written {
                    self.truth.check_written(&self.members, id, entry)?;
                }
                for read in turn.reads {
                    self.truth.answered(id, read)?;
                }
                for to in turn.snapshots {
                    if !self.snapshots.contains(&(id, to)) {
                        self.snapshots.push((id, to));
                    }
                }
                self.send(id, turn.sent)?;
            } else if !setup.slow_disks && !member.writes.is_empty() {
                let freed = member.persist();
                self.send(id, freed)?;
            } else {
                break;
            }
        }
        self.truth.check_member(&self.members, id)?;
        self.truth.check_leases(&self.members, now)
    }

    fn send(&mut self, from: MemberId, messages: Vec<Message>) -> Result<(), String> {
        for message in messages {
            self.truth.check_claim(&self.members[from as usize - 1], &message)?;
            let exists = message.to as usize <= self.members.len();
            if exists && !self.is_dead(&message) && !self.network.contains(&message) {
                self.network.push(message);
            }
        }
        let network = std::mem::take(&mut self.network);
        self.network = network.into_iter().filter(|message| !self.is_dead(message)).collect();
        Ok(())
    }

    /// An answer of a term that its addressee has left for good changes nothing any more.
    fn is_dead(&self, message: &Message) -> bool {
        let answers = matches!(
            message.body,
            MessageBody::VoteReply { .. }
                | MessageBody::AppendAccepted { .. }
                | MessageBody::AppendRejected { .. }
                | MessageBody::TimeoutNow
        );
        let addressee = &self.members[message.to as usize - 1];
        answers && message.term < addressee.durable.hard_state.term
    }

    /// The same for worlds that differ by names only, if `names` are all renamings that the setup allows.
    pub fn fingerprint(&self, namings: &[Vec<MemberId>]) -> u64 {
        namings.iter().map(|to| self.fingerprint_as(&Names(to))).min().expect("there is a naming")
    }

    fn fingerprint_as(&self, names: &Names) -> u64 {
        let mut digest = Digest::new(30);
        let parts = self.members.iter().fold(0_u64, |sum, member| {
            let mut part = Digest::new(31);
            part.add(names.of(member.id));
            part.add(member.fingerprint(names));
            sum.wrapping_add(part.0)
        });
        digest.add(parts);
        digest.add(self.network.iter().fold(0, |sum, message| sum.wrapping_add(names.message(message))));
        for &(from, to) in &self.snapshots {
            digest.add(names.of(from));
            digest.add(names.of(to));
        }
        digest.add(self.clock);
        let Budget {
            timeouts, proposals, crashes, duplicates, heartbeats, reads, transfers, changes, ..
        } = self.left;
        for left in [timeouts, proposals, crashes, duplicates, heartbeats, reads, transfers, changes] {
            digest.add(u64::from(left));
        }
        digest.add(self.truth.fingerprint(names));
        digest.0
    }

    /// For the report of a violation.
    pub fn describe(&self, event: Event) -> String {
        match event {
            Event::Deliver { position, again } => {
                let Message { from, to, term, body } = &self.network[position];
                let copy = if again { ", and again later" } else { "" };
                format!("n{from} -> n{to} (term {term}) {body:?}{copy}")
            }
            other => format!("{other:?}"),
        }
    }
}
