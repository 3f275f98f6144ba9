//! Clients that speak gRPC in bytes.
//!
//! ```text
//!   client, watcher --> words --> client (h2) --> up: pieces of a stream --> shell (the adapter that ships) --> Call --> node
//!        ^                                                                                                             |
//!        +--- checked against what was said <-- client (h2) <-- down: pieces of a stream <-- shell <------ Reply <-----+
//! ```
//!
//! A connection is what TCP makes of it: bytes come in order, in pieces of any size, late where a link is cut, and not at all
//! behind a reset. Either end may stop reading for a while, and windows of HTTP/2 are small. What gRPC has no words for goes
//! over the same connection's lane 0, which no stream has, without bytes.
//!
//! Beside what all clients are judged by, here is judged
//!
//! - W1: what a client understands is what the node said, but for what etcd's messages leave out;
//! - W2: what the node is asked is what a client asked;
//! - W3: a lane that is held is told nothing, and is held no longer when all is written;
//! - L17: a watch that is cancelled is confirmed in the end.

mod client;
mod shell;
mod watching;
mod words;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use self::client::{About, Client, Heard, Windows};
use self::shell::Shell;
use self::watching::Watching;
use super::options::Options;
use super::probes::Probes;
use super::stream::{exponential, log_uniform, stream};
use super::txns;
use super::world::{Event, World};
use crate::api::{Body, Call, Code, ConnId, Fault, Header, Lane, Limits, Reply, Request, Tag};
use crate::base::time::{MS, Nanos};
use crate::base::{Mono, Rng};

/// These connections, as opposed to those without bytes, and to the operator's.
const WIRES: ConnId = 1 << 42;
const WIRES_END: ConnId = 1 << 60;

/// What TCP waits before it sends again what did not arrive.
const RESEND_AFTER: Nanos = 200 * MS;

/// Streams of a connection, of which some wait for locks.
const STREAMS_MAX: u32 = 8;

/// Tags of watches that end as soon as they were asked for, behind all others.
const PASSING: Tag = 1 << 40;

const SHOWN_CHARS_MAX: usize = 300;

/// Something that happens on a connection.
pub enum Happens {
    /// Bytes arrive: at the member (`up`), or at the client.
    Arrives { up: bool, bytes: Bytes },
    /// The other side has ended, or is gone.
    Ends { up: bool },
    /// The link is tried again.
    Resends { up: bool },
    /// Who has not read for a while does again.
    Reads { up: bool },
    /// Something is due at the member, or there is room for what it has to say.
    Member,
}

/// One direction.
#[derive(Default)]
struct Flow {
    /// The sender's kernel has it.
    queue: BytesMut,
    on_its_way: usize,
    arrives_at: Mono,
    /// Arrived, and not read.
    kept: BytesMut,
    is_stalled: bool,
    resends: bool,
    /// Nothing comes behind the queue.
    ends: bool,
    has_ended: bool,
}

#[derive(Clone, Copy)]
enum Owner {
    Client(usize),
    Watcher(usize),
}

struct Wire {
    rng: Rng,
    owner: Owner,
    member: usize,
    life: u64,
    /// None: it has gone.
    client: Option<Client>,
    shell: Option<Shell>,
    up: Flow,
    down: Flow,
    kernel_bytes: usize,
    /// What was asked and has not reached the node.
    asked: Vec<(Option<usize>, Request)>,
    /// Which operation it is to the adapter.
    tags: BTreeMap<Tag, usize>,
    /// What the node said to it.
    said: BTreeMap<usize, Reply>,
    /// Messages whose status has not come.
    answers: BTreeMap<usize, Bytes>,
    watching: Watching,
    /// Since which event a lane is held.
    held: BTreeMap<Lane, u64>,
    due_at: Mono,
}

impl Wire {
    fn flow(&mut self, up: bool) -> &mut Flow {
        if up { &mut self.up } else { &mut self.down }
    }
}

pub struct Wires {
    all: BTreeMap<ConnId, Wire>,
    next: u64,
    /// What came of calls: `rpc Put OK`.
    pub cells: Probes,
}

impl Wires {
    pub fn new() -> Wires {
        Wires { all: BTreeMap::new(), next: 0, cells: Probes::new() }
    }

    pub fn is_one(conn: ConnId) -> bool {
        (WIRES..WIRES_END).contains(&conn)
    }

    /// What gRPC has no words for.
    pub fn is_lane_0(conn: ConnId) -> bool {
        conn & u64::from(Lane::MAX) == 0
    }

    /// Whose process an event is for.
    pub fn addressee(&self, conn: ConnId, happens: &Happens) -> Option<usize> {
        let of_member = matches!(
            happens,
            Happens::Arrives { up: true, .. }
                | Happens::Ends { up: true }
                | Happens::Reads { up: true }
                | Happens::Member
        );
        self.all.get(&conn).filter(|_| of_member).map(|wire| wire.member)
    }

    /// Watches that were cancelled, and nobody has confirmed it.
    pub fn unconfirmed(&self) -> usize {
        let here = self.all.values().filter(|wire| wire.client.is_some() && wire.shell.is_some());
        here.map(|wire| wire.watching.unconfirmed()).sum()
    }
}

/// What the trace mixes in.
pub fn number(conn: ConnId, happens: &Happens) -> [u64; 3] {
    let what = match happens {
        Happens::Arrives { up, bytes } => 8 * bytes.len() as u64 + u64::from(*up),
        Happens::Ends { up } => 2 + u64::from(*up),
        Happens::Resends { up } => 4 + u64::from(*up),
        Happens::Reads { up } => 6 + u64::from(*up),
        Happens::Member => 15,
    };
    [26, conn, what]
}

/// Not so small that a long value takes longer than a client's patience.
fn windows(rng: &mut Rng, value_max: u64) -> Windows {
    let least = (value_max / 16).clamp(64, 60_000);
    let mut bytes = || u32::try_from(log_uniform(rng, least, 60_000)).expect("it is small");
    Windows { stream_bytes: bytes(), connection_bytes: bytes() }
}

impl World {
    // ---- Connections begin and end

    /// Whether the next connection is one of bytes.
    pub(super) fn speaks_in_bytes(&mut self) -> bool {
        let Options { seed, grpc, .. } = self.options;
        grpc > 0 && {
            self.wires.next += 1;
            stream(seed, "grpc", self.wires.next).below(100) < grpc
        }
    }

    pub(super) fn client_wire(&mut self, client: usize, member: usize, life: u64) -> ConnId {
        self.open_wire(Owner::Client(client), member, life)
    }

    pub(super) fn watcher_wire(&mut self, watcher: usize, member: usize, life: u64) -> ConnId {
        self.open_wire(Owner::Watcher(watcher), member, life)
    }

    fn open_wire(&mut self, owner: Owner, member: usize, life: u64) -> ConnId {
        self.wires.next += 1;
        let number = self.wires.next;
        let mut rng = stream(self.options.seed, "wire", number);
        let conn = WIRES + (number << Lane::BITS);
        let room_bytes = if rng.one_in(4) { log_uniform(&mut rng, 4 << 10, 64 << 10) } else { 1 << 30 };
        let id = self.machines[member].id;
        let shell = Shell::new((super::CLUSTER, id), txns::limits(), STREAMS_MAX, room_bytes as usize);
        let wire = Wire {
            owner,
            member,
            life,
            client: Some(Client::new(windows(&mut rng, self.options.value_max))),
            shell: Some(shell),
            up: Flow::default(),
            down: Flow::default(),
            kernel_bytes: log_uniform(&mut rng, 512, 64 << 10) as usize,
            asked: Vec::new(),
            tags: BTreeMap::new(),
            said: BTreeMap::new(),
            answers: BTreeMap::new(),
            watching: Watching::default(),
            held: BTreeMap::new(),
            due_at: Mono::NEVER,
            rng,
        };
        self.wires.all.insert(conn, wire);
        self.tell_wire(conn);
        conn
    }

    fn happens(&mut self, at: Mono, conn: ConnId, happens: Happens) {
        self.at(at, Event::Wire { conn, happens });
    }

    /// The client closes the connection.
    pub(super) fn wire_leaves(&mut self, conn: ConnId) {
        let Some(wire) = self.wires.all.get_mut(&conn) else { return };
        let member = wire.member;
        if wire.client.take().is_none() {
            return;
        }
        wire.up.queue.clear();
        if wire.shell.is_none() {
            self.wires.all.remove(&conn);
        } else if self.net.passes(0, member) {
            let at = self.wires.all[&conn].up.arrives_at.max(self.now + self.net.delay(0, member));
            self.happens(at, conn, Happens::Ends { up: true });
        }
        // Else the member finds out when it speaks to it.
    }

    /// The client's end is told that the connection is over.
    fn wire_closed(&mut self, conn: ConnId) {
        let Some(wire) = self.wires.all.get(&conn) else { return };
        let owner = wire.owner;
        self.wire_leaves(conn);
        match owner {
            Owner::Client(client) => self.client_lost(client, conn),
            Owner::Watcher(watcher) => self.watcher_lost(watcher, conn),
        }
    }

    /// A process has ended: its kernel says so, or nobody does.
    pub(super) fn wires_lost(&mut self, member: usize, life: u64, told: bool) {
        let here = |wire: &Wire| wire.member == member && wire.life == life && wire.shell.is_some();
        let lost: Vec<ConnId> =
            self.wires.all.iter().filter(|(_, wire)| here(wire)).map(|(conn, _)| *conn).collect();
        for conn in lost {
            let wire = self.wires.all.get_mut(&conn).expect("it was just there");
            wire.shell = None;
            wire.down.queue.clear();
            if wire.client.is_none() {
                self.wires.all.remove(&conn);
            } else if told {
                let at = wire.down.arrives_at.max(self.now + self.net.delay(member, 0));
                self.happens(at, conn, Happens::Ends { up: false });
            }
        }
    }

    /// A stopping member ends its connections, as `net::stop` does; whether all are gone.
    pub(super) fn wires_part(&mut self, member: usize, life: u64, (quiet, anyway): (bool, bool)) -> bool {
        let now = self.local(member);
        let here = |wire: &Wire| wire.member == member && wire.life == life && wire.shell.is_some();
        let conns: Vec<ConnId> =
            self.wires.all.iter().filter(|(_, wire)| here(wire)).map(|(conn, _)| *conn).collect();
        for &conn in &conns {
            let wire = self.wires.all.get_mut(&conn).expect("it was just there");
            let shell = wire.shell.as_mut().expect("it was just there");
            shell.prepare_to_part();
            if quiet || anyway {
                shell.say_goodbye(anyway, now);
            }
            self.wire_serves(conn);
        }
        conns.is_empty()
    }

    // ---- What clients ask

    /// Whether the connection takes requests.
    pub(super) fn wire_takes_calls(&mut self, conn: ConnId) -> bool {
        let client = self.wires.all.get_mut(&conn).and_then(|wire| wire.client.as_mut());
        client.is_some_and(Client::may_ask)
    }

    /// False if it is not asked in these words.
    pub(super) fn wire_asks(&mut self, conn: ConnId, op: usize) -> bool {
        let request = self.clients.in_words(op).clone();
        let Some(said) = words::ask(&request) else { return false };
        let patience = 4 * self.options.election / MS;
        let Some(wire) = self.wires.all.get_mut(&conn) else { return false };
        let timeout = wire.rng.one_in(12).then(|| wire.rng.between(1, patience.max(2)));
        let Some(client) = &mut wire.client else { return false };
        let about = About::Op(op);
        if !client.ask(about, said.path, timeout) {
            return false;
        }
        client.send(about, &said.message);
        if !said.is_stream {
            client.end(about);
        }
        wire.asked.push((Some(op), words::expected(&request)));
        self.tell_wire(conn);
        true
    }

    /// The client waits for it no longer.
    pub(super) fn wire_gives_up(&mut self, conn: ConnId, op: usize) {
        let Some(wire) = self.wires.all.get_mut(&conn) else { return };
        if wire.rng.one_in(2)
            && let Some(client) = &mut wire.client
            && client.give_up(About::Op(op))
        {
            *self.wires.cells.entry("rpc given up".into()).or_default() += 1;
            self.tell_wire(conn);
        }
    }

    /// One that watches says something.
    pub(super) fn wire_watcher_says(&mut self, conn: ConnId, call: &Call) {
        let Some(wire) = self.wires.all.get_mut(&conn) else { return };
        let Some(client) = &mut wire.client else { return };
        let about = About::Watches;
        if !client.has(about) && !client.ask(about, "/etcdserverpb.Watch/Watch", None) {
            return self.wire_closed(conn);
        }
        let fragment = wire.rng.one_in(2);
        let message = wire.watching.says(call, fragment);
        client.send(about, &message);
        if let Call::Request { tag, request: request @ Request::Watch(_) } = call {
            wire.asked.push((None, words::expected(request)));
            if wire.rng.one_in(8) {
                // Another one, which the client thinks better of at once.
                let (tag, request) = (tag + PASSING, request.clone());
                wire.asked.push((None, words::expected(&request)));
                for call in [Call::Request { tag, request }, Call::Cancel { tag }] {
                    client.send(about, &wire.watching.says(&call, false));
                }
            }
        }
        self.tell_wire(conn);
    }

    /// It takes nothing for a while: not from the socket, or only what its windows allow.
    pub(super) fn wire_is_deaf(&mut self, conn: ConnId) {
        let Some(wire) = self.wires.all.get_mut(&conn) else { return };
        if wire.rng.one_in(2) {
            wire.down.is_stalled = true;
        } else if let Some(client) = &mut wire.client {
            client.reads = false;
        }
        self.tally.count("wire-stall");
    }

    pub(super) fn wire_listens(&mut self, conn: ConnId) {
        let Some(wire) = self.wires.all.get_mut(&conn) else { return };
        if let Some(client) = &mut wire.client {
            client.reads = true;
        }
        self.wire_reads(conn, false);
        self.tell_wire(conn);
    }

    // ---- Bytes

    pub(super) fn on_wire(&mut self, conn: ConnId, happens: Happens) {
        if !self.wires.all.contains_key(&conn) {
            return;
        }
        match happens {
            Happens::Arrives { up, bytes } => self.wire_arrives(conn, up, &bytes),
            Happens::Ends { up: true } => {
                let wire = self.wires.all.get_mut(&conn).expect("it was just there");
                if let Some(shell) = &mut wire.shell {
                    shell.has_ended = true;
                    shell.is_broken |= wire.client.is_none();
                    self.wire_serves(conn);
                }
            }
            Happens::Ends { up: false } => {
                let wire = self.wires.all.get_mut(&conn).expect("it was just there");
                wire.down.is_stalled = false;
                let kept = std::mem::take(&mut wire.down.kept);
                if let Some(client) = &mut wire.client {
                    client.on_bytes(&kept);
                    client.on_end();
                    self.tell_wire(conn);
                }
                self.wire_closed(conn);
            }
            Happens::Resends { up } => {
                self.wires.all.get_mut(&conn).expect("it was just there").flow(up).resends = false;
                self.pump(conn, up);
            }
            Happens::Reads { up } => self.wire_reads(conn, up),
            Happens::Member => {
                let wire = self.wires.all.get_mut(&conn).expect("it was just there");
                if wire.due_at <= self.now {
                    wire.due_at = Mono::NEVER;
                }
                self.wire_serves(conn);
            }
        }
    }

    /// Sends what the sender's kernel has, as far as the receiver's has room.
    fn pump(&mut self, conn: ConnId, up: bool) {
        let Some(member) = self.wires.all.get(&conn).map(|wire| wire.member) else { return };
        let (from, to) = if up { (0, member) } else { (member, 0) };
        loop {
            let passes = self.net.passes(from, to);
            let wire = self.wires.all.get_mut(&conn).expect("it was just there");
            let room = wire.kernel_bytes;
            if !up && wire.client.is_none() {
                // Its kernel says that nobody is there.
                wire.down.queue.clear();
                if passes && let Some(shell) = &mut wire.shell {
                    shell.is_broken = true;
                    self.happens(self.now, conn, Happens::Member);
                }
                return;
            }
            let flow = if up { &mut wire.up } else { &mut wire.down };
            let is_empty = flow.queue.is_empty();
            let ends = is_empty && flow.ends && !flow.has_ended;
            if flow.resends || (is_empty && !ends) || (!is_empty && flow.on_its_way >= room) {
                return;
            }
            if !passes {
                flow.resends = true;
                return self.happens(self.now + RESEND_AFTER, conn, Happens::Resends { up });
            }
            let most = flow.queue.len().min(room.saturating_sub(flow.on_its_way)) as u64;
            let bytes =
                if most > 1 && wire.rng.one_in(8) { log_uniform(&mut wire.rng, 1, most) } else { most };
            let piece = flow.queue.split_to(bytes as usize).freeze();
            flow.on_its_way += piece.len();
            flow.has_ended = ends;
            let at = flow.arrives_at.max(self.now + self.net.delay(from, to));
            flow.arrives_at = at;
            let happens = if ends { Happens::Ends { up } } else { Happens::Arrives { up, bytes: piece } };
            self.happens(at, conn, happens);
        }
    }

    fn wire_arrives(&mut self, conn: ConnId, up: bool, bytes: &Bytes) {
        let (resets, stalls, calm) = (self.options.wire_resets, self.options.wire_stalls, self.calm);
        let wire = self.wires.all.get_mut(&conn).expect("it was just there");
        if !calm && resets > 0 && wire.rng.below(1_000_000) < resets {
            let torn = wire.rng.below(bytes.len() as u64 + 1) as usize;
            return self.wire_is_reset(conn, up, &bytes[..torn]);
        }
        if !calm && stalls > 0 && wire.rng.below(1_000_000) < stalls && !wire.flow(up).is_stalled {
            let length = exponential(&mut wire.rng, 100 * MS);
            wire.flow(up).is_stalled = true;
            self.tally.count("wire-stall");
            self.happens(self.now + length, conn, Happens::Reads { up });
        }
        let wire = self.wires.all.get_mut(&conn).expect("it was just there");
        wire.flow(up).kept.extend_from_slice(bytes);
        if !wire.flow(up).is_stalled {
            self.wire_reads(conn, up);
        }
    }

    /// The receiver reads what has come.
    fn wire_reads(&mut self, conn: ConnId, up: bool) {
        let Some(wire) = self.wires.all.get_mut(&conn) else { return };
        let flow = wire.flow(up);
        flow.is_stalled = false;
        let kept = std::mem::take(&mut flow.kept);
        flow.on_its_way -= kept.len();
        match (up, &mut wire.shell, &mut wire.client) {
            // Behind a reset nothing is read.
            (true, Some(shell), _) if !shell.is_broken => {
                shell.input.extend_from_slice(&kept);
                self.wire_serves(conn);
            }
            (false, _, Some(client)) => {
                client.on_bytes(&kept);
                self.tell_wire(conn);
            }
            _ => {}
        }
        self.pump(conn, up);
        self.wire_has_room(conn);
    }

    /// What waits for room in the kernel of the member, which may stand still.
    fn wire_has_room(&mut self, conn: ConnId) {
        let Some(wire) = self.wires.all.get_mut(&conn) else { return };
        let waits = wire.shell.as_ref().is_some_and(Shell::wants_room);
        if waits && wire.down.queue.len() < wire.kernel_bytes && wire.due_at > self.now {
            wire.due_at = self.now;
            self.happens(self.now, conn, Happens::Member);
        }
    }

    /// Both ends notice; of the last piece some is still read.
    fn wire_is_reset(&mut self, conn: ConnId, up: bool, torn: &[u8]) {
        self.tally.count(if torn.is_empty() { "wire-reset" } else { "wire-torn" });
        let wire = self.wires.all.get_mut(&conn).expect("it was just there");
        let mut last = std::mem::take(&mut wire.flow(up).kept);
        last.extend_from_slice(torn);
        if let Some(shell) = &mut wire.shell {
            if up && !shell.is_broken {
                shell.input.extend_from_slice(&last);
            }
            shell.is_broken = true;
            self.happens(self.now, conn, Happens::Member);
        }
        let wire = self.wires.all.get_mut(&conn).expect("it was just there");
        if let Some(client) = &mut wire.client {
            if !up {
                client.on_bytes(&last);
            }
            client.on_end();
            self.tell_wire(conn);
        }
        self.wire_closed(conn);
    }

    // ---- The member

    /// The shell's part: what came is decoded, what is to be said is sent, and the node is told what follows.
    fn wire_serves(&mut self, conn: ConnId) {
        let Some(wire) = self.wires.all.get_mut(&conn) else { return };
        let (member, life) = (wire.member, wire.life);
        if !self.lives(member, life) {
            return;
        }
        let now = self.local(member);
        let mut calls = Vec::new();
        let wire = self.wires.all.get_mut(&conn).expect("it was just there");
        let Some(shell) = &mut wire.shell else { return };
        shell.on_time(now, &mut calls);
        shell.decode(now, &mut calls);
        shell.flush(&mut wire.down.queue, wire.kernel_bytes, &mut calls);
        wire.down.ends |= shell.has_said_all();
        let over = shell.is_over();
        if over {
            shell.leave(&mut calls);
        }
        let all_is_written = !shell.wants_room();
        let deadline = if shell.wants_decoding() { now } else { shell.deadline() };
        self.wire_calls(conn, calls);
        let wire = self.wires.all.get_mut(&conn).expect("it was just there");
        if all_is_written && !over && !wire.held.is_empty() {
            return self
                .fail("W3", format!("member {member} holds a lane of {conn}, and has nothing to write"));
        }
        if over {
            (wire.shell, wire.down.ends) = (None, true);
            if wire.client.is_none() {
                self.wires.all.remove(&conn);
                return;
            }
        } else if deadline != Mono::NEVER {
            let due = self.machines[member].clock.when(deadline);
            if due < wire.due_at {
                wire.due_at = due;
                self.happens(due, conn, Happens::Member);
            }
        }
        self.pump(conn, false);
    }

    /// The adapter asks.
    fn wire_calls(&mut self, conn: ConnId, calls: Vec<Call>) {
        let member = self.wires.all[&conn].member;
        let (now, event) = (self.local(member), self.trace.events());
        for call in calls {
            let wire = self.wires.all.get_mut(&conn).expect("it was just there");
            let lane = wire.shell.as_ref().expect("it has just asked").lane_of(&call);
            match &call {
                Call::Request { tag, request } if !matches!(request, Request::WatchProgress) => {
                    let Some(at) = wire.asked.iter().position(|(_, asked)| asked == request) else {
                        let what = format!("member {member} understands {request:?}, which nobody asked");
                        return self.fail("W2", what);
                    };
                    if let (Some(op), _) = wire.asked.remove(at) {
                        wire.tags.insert(*tag, op);
                    }
                }
                Call::Hold { lane } => {
                    wire.held.insert(*lane, event);
                    self.tally.count("wire-hold");
                }
                Call::Release { lane } | Call::Leave { lane } => {
                    wire.held.remove(lane);
                }
                Call::Request { .. } | Call::Cancel { .. } => {}
            }
            let process = self.machines[member].process.as_mut().expect("it lives");
            process.node.on_call(conn | u64::from(lane), call, now);
            self.turn_soon(member);
        }
    }

    /// A member has an answer for one that speaks in bytes. Lane 0 is not here.
    pub(super) fn wire_reply_leaves(&mut self, member: usize, mut reply: Reply) {
        let lane = Lane::try_from(reply.conn & u64::from(Lane::MAX)).expect("it is cut off");
        let conn = reply.conn - u64::from(lane);
        let event = self.trace.events();
        let believed = self.may_be_believed(member, &reply);
        let Some(wire) = self.wires.all.get_mut(&conn) else { return };
        let tells = matches!(reply.body, Body::Events { .. } | Body::Progress { .. });
        if tells && wire.held.get(&lane).is_some_and(|held_at| *held_at < event) {
            let what = format!("member {member} tells a lane that is held of {:?}", reply.body);
            return self.fail("W3", what);
        }
        if !believed {
            // What a wrong state says reaches nobody.
            (wire.client, wire.shell) = (wire.client.take(), None);
            wire.down.queue.clear();
            return;
        }
        let Some(shell) = &mut wire.shell else { return };
        shell.encode(reply.clone());
        if let Some(&op) = wire.tags.get(&reply.tag) {
            reply.tag = op as Tag;
            reply.conn = conn;
            if self.options.leases > 0 {
                self.check_lease_answer(&reply);
            }
            let wire = self.wires.all.get_mut(&conn).expect("it was just there");
            match wire.said.get_mut(&op) {
                Some(said) => join(said, reply),
                None => drop(wire.said.insert(op, reply)),
            }
        }
        // Behind all answers of the turn.
        let wire = self.wires.all.get_mut(&conn).expect("it was just there");
        if wire.due_at > self.now {
            wire.due_at = self.now;
            self.happens(self.now, conn, Happens::Member);
        }
    }

    // ---- The client

    /// The client's end goes on: it sends, and hears.
    fn tell_wire(&mut self, conn: ConnId) {
        loop {
            let Some(wire) = self.wires.all.get_mut(&conn) else { return };
            let Some(client) = &mut wire.client else { return };
            let heard = client.turn();
            let is_over = client.is_over();
            let output = client.take_output();
            wire.up.queue.extend_from_slice(&output);
            self.pump(conn, true);
            if heard.is_empty() {
                if is_over {
                    self.wire_closed(conn);
                }
                return;
            }
            for heard in heard {
                self.wire_is_told(conn, heard);
            }
        }
    }

    fn wire_is_told(&mut self, conn: ConnId, heard: Heard) {
        let Some(wire) = self.wires.all.get_mut(&conn) else { return };
        let owner = wire.owner;
        match (heard, owner) {
            (Heard::Message(About::Op(op), message), _) => {
                let last = wire.answers.insert(op, message);
                if last.is_some() {
                    return self.fail("W1", format!("op {op} is answered by two messages"));
                }
                let request = self.clients.in_words(op);
                if words::ask(request).is_some_and(|said| said.is_stream) {
                    let wire = self.wires.all.get_mut(&conn).expect("it was just there");
                    if let Some(client) = &mut wire.client {
                        client.end(About::Op(op));
                    }
                    self.wire_answers(conn, op);
                }
            }
            (Heard::Message(About::Watches, message), Owner::Watcher(_)) => {
                match wire.watching.hears(conn, &message) {
                    Ok(Some(reply)) => self.push_arrives(reply),
                    Ok(None) => {}
                    Err(why) => self.fail("W1", format!("conn {conn} is told of its watches: {why}")),
                }
            }
            (Heard::Ended(About::Op(op), 0, _), _) => self.wire_answers(conn, op),
            (Heard::Ended(About::Op(op), status, text), _) => self.wire_refuses(conn, op, status, &text),
            (Heard::Broken(About::Op(op)), Owner::Client(client)) => {
                self.count_call(op, "broken off");
                self.settle(client, op);
            }
            (Heard::Ended(About::Watches, status, text), Owner::Watcher(watcher)) => {
                if status != 0 && words::code(status, &text).is_none() {
                    return self.fail("W1", format!("a stream of watches ends with {status} {text}"));
                }
                *self.wires.cells.entry(format!("rpc Watch {status}")).or_default() += 1;
                self.watcher_lost(watcher, conn);
            }
            (Heard::Broken(About::Watches), Owner::Watcher(watcher)) => self.watcher_lost(watcher, conn),
            (Heard::Nonsense(about, what), _) => self.fail("W1", format!("{about:?}: {what}")),
            (heard, _) => self.fail("W1", format!("nobody here asked for {heard:?}")),
        }
    }

    fn count_call(&mut self, op: usize, came_of_it: &str) {
        let said = words::ask(self.clients.in_words(op));
        let method = said.and_then(|said| said.path.rsplit('/').next()).unwrap_or("?");
        *self.wires.cells.entry(format!("rpc {method} {came_of_it}")).or_default() += 1;
    }

    /// A call has ended well.
    fn wire_answers(&mut self, conn: ConnId, op: usize) {
        let wire = self.wires.all.get_mut(&conn).expect("it was just there");
        let message = wire.answers.remove(&op);
        if self.clients.has_answer(op) {
            return; // A stream that has said all.
        }
        let Some(said) = wire.said.get(&op).filter(|said| !said.more).cloned() else {
            return self.fail("W1", format!("op {op} is answered, and the node said nothing"));
        };
        let Some(message) = message else {
            return self.fail("W1", format!("op {op} ends well, and without a message"));
        };
        match words::understood(self.clients.in_words(op), &message, &said.body) {
            Err(why) => self.fail("W1", format!("op {op}: {why}; the node said {}", short(&said.body))),
            Ok((_, body)) if body != said.body => {
                self.fail(
                    "W1",
                    format!("op {op}: understood {}; the node said {}", short(&body), short(&said.body)),
                );
            }
            Ok((revision, body)) => {
                self.count_call(op, "0");
                let header = Header { revision, ..said.header };
                self.answer_arrives(Reply { header, body, ..said });
            }
        }
    }

    /// A call has failed.
    fn wire_refuses(&mut self, conn: ConnId, op: usize, status: u16, text: &str) {
        let Some(code) = words::code(status, text) else {
            return self.fail("W1", format!("op {op} fails with {status} {text}, which no member says"));
        };
        self.count_call(op, &format!("{status} {}", code.word()));
        if self.clients.has_answer(op) {
            return; // A stream that goes on behind its answer may fail, too.
        }
        let of_the_shell = words::is_of_the_shell(status, text);
        let wire = self.wires.all.get_mut(&conn).expect("it was just there");
        // Its time may have been over before all of it had come: then nobody will ask for it any more.
        wire.asked.retain(|(asked, _)| *asked != Some(op));
        let said = wire.said.get(&op).filter(|said| !said.more).cloned();
        let of_the_gate =
            matches!(code, Code::Err | Code::TooManyOps | Code::DupKey | Code::TooLarge | Code::NoKey);
        let fault = || Body::Fault(Fault::new(code, text));
        let reply = match said {
            Some(said) if matches!(&said.body, Body::Fault(fault) if fault.code == code) => said,
            // "election: no leader"
            Some(said)
                if code == Code::NoKey
                    && matches!(&said.body, Body::Range(found) if found.kvs.is_empty()) =>
            {
                said
            }
            Some(said) if of_the_shell => Reply { body: fault(), ..said },
            None if of_the_shell || of_the_gate => {
                Reply { conn, tag: op as Tag, header: Header::default(), body: fault(), more: false }
            }
            said => {
                let said = short(&said.map(|said| said.body));
                return self.fail("W1", format!("op {op} fails with {status} {text}; the node said {said}"));
            }
        };
        self.answer_arrives(reply);
    }
}

/// For a report: an answer may be long.
fn short(what: &impl std::fmt::Debug) -> String {
    format!("{what:?}").chars().take(SHOWN_CHARS_MAX).collect()
}

/// Another part of an answer.
fn join(said: &mut Reply, next: Reply) {
    match (&mut said.body, next.body) {
        (Body::RangePart(all), Body::RangePart(part)) => {
            all.kvs.extend(part.kvs);
            all.last = part.last;
        }
        // An answer that breaks off is none.
        (body, other) => *body = other,
    }
    said.more = next.more;
    if !said.more
        && let Body::RangePart(all) = &mut said.body
        && let Ok(whole) = std::mem::take(all).whole()
    {
        said.body = Body::Range(whole);
    }
}
