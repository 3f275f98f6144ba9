//! The world of one run: the heap of events, and who handles which.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::clients::Clients;
use super::lease_watch::LeaseWatch;
use super::machine::Machine;
use super::net::{Answer, ConnNo, Net, Piece};
use super::operator::Operator;
use super::options::Options;
use super::plan::{Action, Entry, Moment, Plan, Trigger};
use super::readback::Readback;
use super::report::{Failure, Tally};
use super::room_watch::RoomWatch;
use super::trace::Trace;
use super::watch::Watch;
use super::watchers::Watchers;
use super::wire::{self, Wires};
use crate::api::{Call, ConnId, Reply};
use crate::base::Mono;
use crate::base::time::{MS, Nanos};

/// The true clock at the start.
pub const START: Mono = Mono(1_000 * MS);

/// Something that happens at a time.
pub enum Event {
    Turn {
        member: usize,
        life: u64,
    },
    /// The log writer's call ends.
    Written {
        member: usize,
        life: u64,
    },
    /// The housekeeper's first job ends.
    JobDone {
        member: usize,
        life: u64,
    },
    /// The shell has looked how full the disk is.
    Space {
        member: usize,
        life: u64,
    },
    Dial {
        from: usize,
        to: usize,
    },
    Handshake {
        conn: ConnNo,
    },
    Arrival {
        conn: ConnNo,
        piece: Piece,
    },
    Answer {
        conn: ConnNo,
        answer: Answer,
    },
    /// A machine starts its process (again).
    Start {
        member: usize,
    },
    Thaw {
        member: usize,
        clock: bool,
    },
    /// A line of the plan, and whom it is about if it waited for a moment.
    Plan {
        entry: usize,
        subject: usize,
        other: usize,
    },
    /// An action's time is over.
    Undo(Undo),
    Client {
        client: usize,
    },
    /// A client's request reaches a member.
    Request {
        member: usize,
        life: u64,
        op: usize,
    },
    /// A member's answer reaches its client.
    Answered {
        reply: Box<Reply>,
    },
    GiveUp {
        op: usize,
    },
    /// A client that watches does something.
    Watcher {
        watcher: usize,
    },
    /// It takes what it is sent again.
    WatcherListens {
        conn: ConnId,
    },
    /// What it says reaches a member.
    WatchCall {
        member: usize,
        life: u64,
        conn: ConnId,
        call: Box<Call>,
    },
    /// What it is told reaches it.
    Pushed {
        reply: Box<Reply>,
    },
    /// The operator asks again.
    Operate {
        order: usize,
    },
    /// Its question reaches a member.
    OrderArrives {
        attempt: usize,
    },
    OrderGivenUp {
        attempt: usize,
    },
    /// On a connection that speaks gRPC in bytes.
    Wire {
        conn: ConnId,
        happens: wire::Happens,
    },
    /// A removed member is spoken to no longer.
    Farewell {
        member: usize,
        life: u64,
        to: usize,
    },
}

/// What ends by itself.
pub enum Undo {
    Cut(Vec<(u64, u64)>),
    Lag(Vec<(u64, u64)>, Nanos),
    Full(usize),
}

struct Due {
    at: Mono,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    /// The heap gives its greatest: the earliest.
    fn cmp(&self, other: &Due) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

pub struct World {
    pub(super) options: Options,
    pub(super) now: Mono,
    heap: BinaryHeap<Due>,
    next_number: u64,
    pub(super) entries: Vec<Entry>,
    /// Lines that wait for a moment, and how often each moment has come.
    armed: Vec<(Moment, u64, usize)>,
    moments: Vec<(Moment, u64)>,
    /// By member id; the first one is a machine that nothing runs on.
    pub(super) machines: Vec<Machine>,
    pub(super) lives: u64,
    pub(super) net: Net,
    pub(super) clients: Clients,
    pub(super) watchers: Watchers,
    pub(super) wires: Wires,
    pub(super) operator: Operator,
    pub(super) watch: Watch,
    pub(super) readback: Readback,
    pub(super) leases: LeaseWatch,
    pub(super) room: RoomWatch,
    pub(super) trace: Trace,
    pub(super) tally: Tally,
    /// No more faults.
    pub(super) calm: bool,
    pub(super) failure: Option<Failure>,
    /// The run ends behind this event.
    pub(super) until_event: u64,
}

impl World {
    pub fn new(plan: &Plan, trace: Trace) -> World {
        let options = plan.options.clone();
        let mut world = World {
            now: START,
            heap: BinaryHeap::new(),
            next_number: 0,
            entries: plan.entries.clone(),
            armed: Vec::new(),
            moments: Moment::all().map(|moment| (moment, 0)).collect(),
            machines: (0..=options.machines()).map(|id| Machine::new(&options, id, START)).collect(),
            lives: 0,
            net: Net::new(&options),
            clients: Clients::new(&options),
            watchers: Watchers::new(&options),
            wires: Wires::new(),
            operator: Operator::new(options.seed),
            watch: Watch::new(&options),
            readback: Readback::new(),
            leases: LeaseWatch::new(plan.entries.iter().map(|entry| entry.action.clone())),
            room: RoomWatch::new(),
            trace,
            tally: Tally::default(),
            calm: false,
            failure: None,
            until_event: u64::MAX,
            options,
        };
        for entry in 0..world.entries.len() {
            match world.entries[entry].trigger {
                Trigger::At(at) => world.at(START + at, Event::Plan { entry, subject: 0, other: 0 }),
                Trigger::When { moment, nth } => world.armed.push((moment, nth, entry)),
            }
        }
        for member in 1..=world.options.members as usize {
            world.at(START, Event::Start { member });
        }
        for client in 0..world.options.clients as usize {
            world.after(200 * MS, Event::Client { client });
        }
        for watcher in 0..world.options.watchers as usize {
            world.after(200 * MS, Event::Watcher { watcher });
        }
        world
    }

    /// Every machine on which a member runs, has run or may run.
    pub(super) fn members(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.options.machines() as usize
    }

    /// What a member's clock shows.
    pub(super) fn local(&self, member: usize) -> Mono {
        self.machines[member].clock.at(self.now)
    }

    pub(super) fn at(&mut self, at: Mono, event: Event) {
        self.next_number += 1;
        self.heap.push(Due { at: at.max(self.now), number: self.next_number, event });
    }

    pub(super) fn after(&mut self, delay: Nanos, event: Event) {
        self.at(self.now + delay, event);
    }

    /// The first broken promise is what the run is about.
    pub(super) fn fail(&mut self, id: &str, what: String) {
        self.trace.line(self.now, 0, || format!("FAILED {id}: {what}"));
        if self.failure.is_none() {
            self.failure = Some(Failure { id: id.to_string(), what, at: self.now.since(START) });
        }
    }

    /// Whether the run goes on.
    pub(super) fn sound(&self) -> bool {
        self.failure.is_none() && self.trace.events() < self.until_event
    }

    /// Handles everything that is due until then.
    pub(super) fn run(&mut self, until: Mono) {
        while self.sound() && self.heap.peek().is_some_and(|due| due.at <= until) {
            let due = self.heap.pop().expect("it was just seen");
            self.now = due.at;
            self.handle(due.event);
        }
        if self.sound() {
            self.now = self.now.max(until);
        }
    }

    /// A moment of the protocol has come: lines of the plan that waited for it are due at once.
    pub(super) fn moment(&mut self, moment: Moment, subject: usize, other: usize) {
        if self.armed.is_empty() || self.calm {
            return;
        }
        let count =
            &mut self.moments.iter_mut().find(|(known, _)| *known == moment).expect("all are there").1;
        *count += 1;
        let count = *count;
        let due: Vec<usize> = self
            .armed
            .extract_if(.., |(waits_for, nth, _)| *waits_for == moment && *nth == count)
            .map(|(_, _, entry)| entry)
            .collect();
        for entry in due {
            self.after(0, Event::Plan { entry, subject, other });
        }
    }

    /// Whose standing still holds the event up.
    fn addressee(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Turn { member, .. }
            | Event::Written { member, .. }
            | Event::JobDone { member, .. }
            | Event::Space { member, .. }
            | Event::Request { member, .. }
            | Event::WatchCall { member, .. }
            | Event::Farewell { member, .. } => Some(*member),
            Event::OrderArrives { attempt } => Some(self.operator.asked(*attempt)),
            Event::Wire { conn, happens } => self.wires.addressee(*conn, happens),
            Event::Dial { from, .. } => Some(*from),
            Event::Arrival { conn, .. } => self.net.conns.get(conn).map(|conn| conn.to),
            Event::Answer { conn, .. } | Event::Handshake { conn } => {
                self.net.conns.get(conn).map(|conn| conn.from)
            }
            _ => None,
        }
    }

    pub(super) fn handle(&mut self, event: Event) {
        if let Some(member) = self.addressee(&event)
            && self.machines[member].frozen.is_some()
        {
            return self.machines[member].deferred.push_back(event);
        }
        let number = event_number(&event);
        self.trace.event(self.now, number);
        match event {
            Event::Turn { member, life } => self.turn(member, life),
            Event::Written { member, life } => self.written(member, life),
            Event::JobDone { member, life } => self.job_done(member, life),
            Event::Space { member, life } => self.look_for_space(member, life),
            Event::Dial { from, to } => self.dial(from, to),
            Event::Handshake { conn } => self.handshake_over(conn),
            Event::Arrival { conn, piece } => self.arrival(conn, piece),
            Event::Answer { conn, answer } => self.close_dialled(conn, answer),
            Event::Start { member } => self.start(member),
            Event::Thaw { member, clock } => self.thaw(member, clock),
            Event::Plan { entry, subject, other } => {
                if !self.calm {
                    let action: Action = self.entries[entry].action.clone();
                    self.act(&action, subject, other);
                }
            }
            Event::Undo(undo) => self.undo(&undo),
            Event::Client { client } => self.client_turn(client),
            Event::Request { member, life, op } => self.request_arrives(member, life, op),
            Event::Answered { reply } => self.answer_arrives(*reply),
            Event::GiveUp { op } => self.give_up(op),
            Event::Watcher { watcher } => self.watcher_turn(watcher),
            Event::WatcherListens { conn } => self.watcher_listens(conn),
            Event::WatchCall { member, life, conn, call } => {
                self.watch_call_arrives(member, life, conn, *call)
            }
            Event::Pushed { reply } => self.push_arrives(*reply),
            Event::Wire { conn, happens } => self.on_wire(conn, happens),
            Event::Operate { order } => self.operate(order),
            Event::OrderArrives { attempt } => self.order_arrives(attempt),
            Event::OrderGivenUp { attempt } => self.order_given_up(attempt),
            Event::Farewell { member, life, to } => self.farewell(member, life, to),
        }
    }
}

/// What the trace mixes in: which event, and whose.
fn event_number(event: &Event) -> [u64; 3] {
    match event {
        Event::Turn { member, life } => [1, *member as u64, *life],
        Event::Written { member, life } => [2, *member as u64, *life],
        Event::JobDone { member, life } => [3, *member as u64, *life],
        Event::Space { member, life } => [4, *member as u64, *life],
        Event::Dial { from, to } => [5, *from as u64, *to as u64],
        Event::Handshake { conn } => [6, *conn, 0],
        Event::Arrival { conn, piece: Piece::Bytes(bytes) } => [7, *conn, bytes.len() as u64],
        Event::Arrival { conn, piece: Piece::End } => [8, *conn, 0],
        Event::Answer { conn, answer } => [9, *conn, u64::from(*answer == Answer::Welcome)],
        Event::Start { member } => [10, *member as u64, 0],
        Event::Thaw { member, .. } => [11, *member as u64, 0],
        Event::Plan { entry, subject, .. } => [12, *entry as u64, *subject as u64],
        Event::Undo(_) => [13, 0, 0],
        Event::Client { client } => [14, *client as u64, 0],
        Event::Request { member, op, .. } => [15, *member as u64, *op as u64],
        Event::Answered { reply } => [16, reply.tag, reply.header.revision],
        Event::GiveUp { op } => [17, *op as u64, 0],
        Event::Operate { order } => [18, *order as u64, 0],
        Event::OrderArrives { attempt } => [19, *attempt as u64, 0],
        Event::OrderGivenUp { attempt } => [20, *attempt as u64, 0],
        Event::Farewell { member, to, .. } => [21, *member as u64, *to as u64],
        Event::Watcher { watcher } => [22, *watcher as u64, 0],
        Event::WatcherListens { conn } => [23, *conn, 0],
        Event::WatchCall { member, conn, .. } => [24, *member as u64, *conn],
        Event::Wire { conn, happens } => wire::number(*conn, happens),
        Event::Pushed { reply } => [25, reply.conn ^ reply.tag, reply.header.revision],
    }
}
