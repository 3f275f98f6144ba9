//! The clients: what they ask, of whom, how long they wait, and what they write down.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::history::{Answer, History, Outcome};
use super::lease_load::{Asks, Pool};
use super::lock_load;
use super::operator;
use super::options::Options;
use super::plan::Moment;
use super::probes::{Probes, maintained};
use super::stream::{exponential, stream};
use super::txns;
use super::wire::Wires;
use super::world::{Event, World};
use crate::api::{
    Alarm, AlarmChange, AlarmKind, Body, Call, Code, Compact, ConnId, Delete, Header, KeyValue, LeaseAnswer,
    LockRequest, Order, Put, Range, Reply, Request, SortBy, Span, Tag, lock, validate,
};
use crate::base::time::MS;
use crate::base::{Mono, Revision, Rng};
use crate::node::FileCheck;

/// One client, with one connection at a time.
pub struct Client {
    rng: Rng,
    connected: Option<Connected>,
    /// Operations that it waits for.
    waiting: Vec<usize>,
    /// The newest revision that it was told of: what it asks for old states by.
    known: Revision,
    /// A key as it was read last.
    seen: Option<KeyValue>,
    /// It has been told that there is no room: this many of its next requests make some.
    makes_room: u8,
    /// It has an event on the heap, or waits for answers.
    busy: bool,
}

#[derive(Clone, Copy, Debug)]
struct Connected {
    member: usize,
    life: u64,
    conn: ConnId,
}

pub struct Clients {
    pub all: Vec<Client>,
    pub history: History,
    /// Which client asked, and over which connection.
    asked: Vec<(usize, ConnId)>,
    next_conn: ConnId,
    /// When the newest part of an answer in parts arrives; never, if one of them is lost.
    parts_sent: BTreeMap<Tag, Mono>,
    /// What has come of them.
    parts: BTreeMap<Tag, Reply>,
    /// Operations that may still be asked for.
    pub budget: u64,
    keys: u64,
    value_max: u64,
    /// One operation in so many is a compaction, or what goes with it; none, if it is 0.
    compact: u64,
    /// Who is told that there is none makes room, now and then.
    makes_room: bool,
    /// One operation in so many raises an alarm; none, if it is 0.
    pub alarms: u64,
    /// Alarms that clients raised, as all may know.
    pub standing: Vec<Alarm>,
    /// What came of requests that tell nothing of the store.
    pub maintained: Probes,
    leases: Pool,
    locks: lock_load::Pool,
    /// Were the first, and not told.
    overdue: BTreeSet<usize>,
    /// What was asked in other words than the history has.
    in_words: BTreeMap<usize, Request>,
    /// Of a hundred operations, so many are transactions.
    txns: u64,
}

/// What a request is made from, beside dice.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    pub keys: u64,
    pub value_max: u64,
    /// The newest revision that the client was told of.
    pub known: Revision,
    /// Of the operation.
    pub number: usize,
    pub leases: &'a Pool,
}

impl Client {
    pub fn known(&self) -> Revision {
        self.known
    }
}

impl Clients {
    pub fn new(options: &Options) -> Clients {
        let client = |number: u64| Client {
            rng: stream(options.seed, "client", number),
            connected: None,
            waiting: Vec::new(),
            known: 1,
            seen: None,
            makes_room: 0,
            busy: true,
        };
        Clients {
            all: (0..options.clients).map(client).collect(),
            history: History::new(),
            asked: Vec::new(),
            next_conn: 1,
            parts_sent: BTreeMap::new(),
            parts: BTreeMap::new(),
            budget: options.ops,
            keys: options.keys,
            value_max: options.value_max,
            compact: options.compact,
            makes_room: options.quota > 0,
            alarms: options.alarms,
            standing: Vec::new(),
            maintained: Probes::new(),
            leases: Pool::new(options.leases, options.ttl_max),
            locks: lock_load::Pool::new(options.locks),
            overdue: BTreeSet::new(),
            in_words: BTreeMap::new(),
            txns: options.txns,
        }
    }

    /// Whether somebody may ask for compactions.
    pub fn compact(&self) -> bool {
        self.compact > 0 || self.makes_room
    }

    /// What was asked, in the client's own words.
    pub fn in_words(&self, op: usize) -> &Request {
        self.in_words.get(&op).unwrap_or(&self.history.ops[op].request)
    }

    pub fn has_answer(&self, op: usize) -> bool {
        self.history.ops[op].outcome != Outcome::Unknown
    }

    pub fn answered(&self) -> usize {
        self.history.ops.iter().filter(|op| op.outcome != Outcome::Unknown).count()
    }

    /// Those that were carried out.
    pub fn compactions(&self) -> usize {
        let done =
            |outcome: &Outcome| matches!(outcome, Outcome::Answered { answer: Answer::Compact { .. }, .. });
        self.history.ops.iter().filter(|op| done(&op.outcome)).count()
    }

    /// What a member holds in the end, as if somebody had asked for it.
    pub fn shown_state(&mut self, request: Request, header: &Header, body: Body, now: Mono) {
        let (client, conn) = (self.all.len() as u64, self.next_conn);
        self.next_conn += 1;
        let op = self.history.invoke(client, conn, request, now);
        self.history.answer(op, header, body, now);
    }

    /// What somebody has been waiting for since then, or for longer.
    pub fn awaited_since(&self, then: Mono) -> impl Iterator<Item = usize> {
        let waiting = self.all.iter().flat_map(|client| client.waiting.iter().copied());
        waiting.filter(move |op| self.history.ops[*op].invoked.at <= then)
    }

    /// Whether somebody still waits for this one.
    pub fn awaits(&self, op: usize) -> bool {
        self.all.iter().any(|client| client.waiting.contains(&op))
    }

    /// Operations from this one on that asked for a lock, and were given up by clients that were not told of it. In peace
    /// `lock_is_overdue` has looked at each: it was not the first.
    pub fn in_vain(&self, from: usize) -> usize {
        let asked = self.history.ops.iter().enumerate().skip(from);
        let acquires = asked.filter(|(_, op)| matches!(op.request, Request::Lock(LockRequest::Acquire(_))));
        acquires.filter(|(at, op)| op.outcome == Outcome::Unknown && !self.awaits(*at)).count()
    }

    /// Operations that somebody still waits for.
    pub fn outstanding(&self) -> usize {
        self.all.iter().map(|client| client.waiting.len()).sum()
    }

    /// Keeps what came of an answer until all of it has. An answer that breaks off is none.
    fn put_together(&mut self, reply: Reply) -> Option<Reply> {
        let Some(first) = self.parts.remove(&reply.tag) else {
            if !reply.more {
                return Some(reply);
            }
            self.parts.insert(reply.tag, reply);
            return None;
        };
        let Reply { conn, tag, header, body, .. } = first;
        let mut all = match body {
            Body::RangePart(all) => all,
            Body::SnapshotPart { bytes, remaining_bytes } => {
                let body = with_piece(bytes, remaining_bytes, reply.body);
                let whole = Reply { conn, tag, header, body, more: reply.more };
                if reply.more {
                    self.parts.insert(tag, whole);
                    return None;
                }
                return Some(whole);
            }
            _ => return None,
        };
        let Body::RangePart(part) = reply.body else { return None };
        all.kvs.extend(part.kvs);
        all.last = part.last;
        match all.whole() {
            Ok(range) => Some(Reply { conn, tag, header, body: Body::Range(range), more: false }),
            Err(all) => {
                self.parts.insert(tag, Reply { conn, tag, header, body: Body::RangePart(all), more: true });
                None
            }
        }
    }

    /// What a client asks next. Values are written once each.
    fn request(&mut self, client: usize) -> Request {
        let number = self.history.ops.len();
        let (keys, value_max) = (self.keys, self.value_max);
        let Client { rng, known, seen, makes_room, .. } = &mut self.all[client];
        if *makes_room > 0 {
            *makes_room -= 1;
            return match *makes_room {
                0 => Request::Compact(Compact { revision: *known, physical: rng.one_in(2) }),
                _ => Request::Delete(Delete { span: Span::Prefix(Bytes::from_static(b"k")), prev_kv: false }),
            };
        }
        if !self.standing.is_empty() && rng.one_in(3) {
            return Request::AlarmChange(match rng.below(3) {
                0 => AlarmChange::EndAll,
                _ => AlarmChange::End(self.standing[rng.below(self.standing.len() as u64) as usize]),
            });
        }
        if self.alarms > 0 && rng.one_in(self.alarms) {
            let kind = if rng.one_in(2) { AlarmKind::NoSpace } else { AlarmKind::Corrupt };
            return Request::AlarmChange(AlarmChange::Raise(Alarm { member: rng.below(4), kind }));
        }
        if self.compact > 0 && rng.one_in(self.compact) {
            return maintain(rng, *known, number);
        }
        if self.txns > 0 && rng.below(100) < self.txns {
            let asking = Asking { keys, value_max, known: *known, number, leases: &self.leases };
            return Request::Txn(txns::txn(rng, &asking, seen.as_ref()));
        }
        if let Some(request) = self.locks.next(rng, &self.leases, number) {
            return Request::Lock(request);
        }
        let one = |rng: &mut Rng| put(rng, keys, value_max, &format!("v{number}"));
        match self.leases.next(rng) {
            None => {}
            Some(Asks::Of(request)) => return request,
            Some(Asks::PutWith(lease)) => return Request::Put(Put { lease, ..one(rng) }),
            Some(Asks::PutKeeping) => return Request::Put(Put { ignore_lease: true, ..one(rng) }),
        }
        match rng.below(100) {
            0..=44 => {
                let mut put = put(rng, keys, value_max, &format!("v{number}"));
                put.ignore_lease = keeps_lease(number);
                Request::Put(put)
            }
            45..=51 => Request::Delete(Delete { span: span(rng, keys, 6), prev_kv: rng.one_in(3) }),
            52..=84 => Request::Range(Range::new(Span::Key(key(rng, keys)))),
            85 => Request::Exists { keys: (0..rng.between(1, 5)).map(|_| key(rng, keys)).collect() },
            _ => Request::Range(range(rng, keys, *known, number)),
        }
    }
}

/// A snapshot as far as it has come. What is told with each piece must be true, and all of them a sound file.
fn with_piece(all: Bytes, remaining_bytes: u64, next: Body) -> Body {
    let Body::SnapshotPart { bytes, remaining_bytes: remaining } = next else { return next };
    let is_digest = remaining_bytes == 0;
    assert!(
        remaining_bytes == remaining + if is_digest { 0 } else { bytes.len() as u64 },
        "{remaining_bytes} bytes of a snapshot were to follow: {} came, and {remaining} are to follow",
        bytes.len()
    );
    let all = Bytes::from([all, bytes].concat());
    if is_digest {
        let mut check = FileCheck::default();
        let sound = check.take(&all).and_then(|()| check.finish());
        assert!(sound.is_ok(), "a snapshot {sound:?}");
    }
    Body::SnapshotPart { bytes: all, remaining_bytes: remaining }
}

/// With more keys than these a span is rarely everything: it would be deleted again and again, and read for long.
const FEW_KEYS: u64 = 64;

/// Keys of one span, where there are many.
const SPAN_KEYS: u64 = 100;

pub fn key(rng: &mut Rng, keys: u64) -> Bytes {
    name(rng.below(keys), keys)
}

/// In the order of the numbers.
fn name(number: u64, keys: u64) -> Bytes {
    let digits = if keys > 1_000 { 4 } else { 3 };
    Bytes::from(format!("k{number:0digits$}"))
}

/// Mostly a little behind what is known to be there; now and then what is refused. Not by the dice: what goes with it.
fn maintain(rng: &mut Rng, known: Revision, number: usize) -> Request {
    let revision = match rng.below(8) {
        0 => known + rng.below(6),
        1 => rng.between(0, known),
        _ => known.saturating_sub(rng.below(12)),
    };
    let compact = Compact { revision, physical: rng.one_in(3) };
    match number % 17 {
        3 => Request::Defrag,
        4 => Request::AlarmList,
        5 => Request::AlarmChange(AlarmChange::EndAll),
        7 if number.is_multiple_of(2) => Request::Hash,
        7 => Request::Snapshot,
        8 => Request::HashKv { revision: 0 },
        // Several shall ask for the same one.
        11 => Request::HashKv { revision: known - known % 16 },
        _ => Request::Compact(compact),
    }
}

/// `name` is what the value begins with; nobody else's does.
pub fn put(rng: &mut Rng, keys: u64, value_max: u64, name: &str) -> Put {
    let key = key(rng, keys);
    let prev_kv = rng.one_in(6);
    if rng.one_in(40) {
        return Put { key, prev_kv, ignore_value: true, ..Put::default() };
    }
    // Most are short; some reach over pages.
    let filler = match rng.below(16) {
        0 => rng.below(value_max + 1),
        1..=3 => rng.below(300.min(value_max) + 1),
        _ => 0,
    };
    let mut value = format!("{name}-").into_bytes();
    value.resize(value.len() + filler as usize, b'x');
    Put { key, value: value.into(), prev_kv, ..Put::default() }
}

/// A single key but once in `n`.
pub fn span(rng: &mut Rng, keys: u64, n: u64) -> Span {
    if !rng.one_in(n) {
        return Span::Key(key(rng, keys));
    }
    if keys > FEW_KEYS {
        return span_of_many(rng, keys);
    }
    match rng.below(4) {
        0 => Span::Between(key(rng, keys), key(rng, keys)),
        1 => Span::From(key(rng, keys)),
        2 => Span::Prefix(Bytes::from(format!("k{:02}", rng.below(keys.div_ceil(10))))),
        _ => Span::Prefix(Bytes::from_static(b"k")),
    }
}

/// Keys that are neighbours, more or less.
fn span_of_many(rng: &mut Rng, keys: u64) -> Span {
    let first = rng.below(keys);
    match rng.below(3) {
        0 => Span::Between(name(first, keys), name(first + rng.between(1, SPAN_KEYS), keys)),
        1 => {
            let name = name(first, keys);
            Span::Prefix(name.slice(..name.len() - 1))
        }
        _ => Span::From(name(keys - 1 - first % SPAN_KEYS, keys)),
    }
}

/// Not by the dice: older plans keep their course.
fn keeps_lease(number: usize) -> bool {
    number % 37 == 36
}

/// Not by the dice either.
fn sort(number: usize) -> SortBy {
    let fields = [SortBy::Version, SortBy::Create, SortBy::Mod, SortBy::Value];
    if number.is_multiple_of(3) { fields[number / 3 % fields.len()] } else { SortBy::Key }
}

pub fn range(rng: &mut Rng, keys: u64, known: Revision, number: usize) -> Range {
    let mut range = Range::new(span(rng, keys, 2));
    range.sort_by = sort(number);
    range.serializable = rng.one_in(3);
    range.limit = if rng.one_in(4) { rng.between(1, 3) } else { 0 };
    range.order = if rng.one_in(4) { Order::Descending } else { Order::Ascending };
    range.keys_only = rng.one_in(8);
    range.count_only = rng.one_in(8);
    if rng.one_in(4) {
        range.revision = (known + 3).saturating_sub(rng.below(20)).max(1);
    }
    for bound in [&mut range.min_mod, &mut range.max_mod, &mut range.min_create, &mut range.max_create] {
        if rng.one_in(24) {
            *bound = rng.between(1, known + 2);
        }
    }
    if keys > FEW_KEYS && rng.one_in(3) {
        // How many there are of all, or of those between two keys, is told by the tree's branches.
        let (one, other) = (key(rng, keys), key(rng, keys));
        range.span = if rng.one_in(4) { Span::Prefix(Bytes::new()) } else { Span::Between(one, other) };
        range.count_only = !rng.one_in(8);
    }
    range
}

impl World {
    /// A client does what comes next: connects, or asks.
    pub(super) fn client_turn(&mut self, client: usize) {
        if self.clients.budget == 0 {
            self.clients.all[client].busy = false;
            return;
        }
        if let Some(Connected { conn, .. }) = self.clients.all[client].connected
            && Wires::is_one(conn)
            && !self.wire_takes_calls(conn)
        {
            self.client_disconnects(client);
        }
        let machines = self.options.machines();
        let rng = &mut self.clients.all[client].rng;
        let chosen = rng.between(1, machines) as usize;
        let connected = match self.clients.all[client].connected {
            Some(connected) => connected,
            None => match self.connect(client, chosen) {
                Some(connected) => connected,
                None => {
                    let pause = self.clients.all[client].rng.between(2 * MS, 30 * MS);
                    return self.after(pause, Event::Client { client });
                }
            },
        };
        let rng = &mut self.clients.all[client].rng;
        let burst = if rng.one_in(10) { rng.between(2, 5) } else { 1 };
        for _ in 0..burst.min(self.clients.budget) {
            if self.ask(client, connected) {
                return; // What comes behind a lock waits for it.
            }
        }
    }

    fn connect(&mut self, client: usize, member: usize) -> Option<Connected> {
        // In the end everybody has heard who was removed.
        let serves = !self.calm || self.watch.roster.is_enrolled(member);
        let open = serves && self.net.passes(0, member) && self.net.passes(member, 0);
        let process = self.machines[member].process.as_ref();
        let process = process.filter(|process| open && process.stopping.is_none())?;
        let life = process.life;
        let conn = if self.speaks_in_bytes() {
            self.client_wire(client, member, life)
        } else {
            self.clients.next_conn += 1;
            self.clients.next_conn - 1
        };
        let connected = Connected { member, life, conn };
        self.clients.all[client].connected = Some(connected);
        Some(connected)
    }

    /// Whether the answer may be long in coming.
    fn ask(&mut self, client: usize, connected: Connected) -> bool {
        let Connected { member, life, conn } = connected;
        let request = self.clients.request(client);
        self.lease_is_asked_for(&request);
        self.clients.budget -= 1;
        let waits = matches!(request, Request::Lock(LockRequest::Acquire(_)));
        let plain = if let Request::Lock(lock) = &request { lock_load::plain(lock) } else { None };
        let op = match plain {
            None => self.clients.history.invoke(client as u64, conn, request, self.now),
            Some(plain) => {
                let op = self.clients.history.invoke(client as u64, conn, plain, self.now);
                self.clients.in_words.insert(op, request);
                op
            }
        };
        self.trace.line(self.now, 0, || {
            format!("client {client} asks {member} op {op}: {:?}", self.clients.history.ops[op].request)
        });
        self.clients.asked.push((client, conn));
        self.clients.all[client].waiting.push(op);
        let in_bytes = Wires::is_one(conn) && self.wire_asks(conn, op);
        if !in_bytes && self.net.passes(0, member) {
            let delay = self.net.delay(0, member);
            self.after(delay, Event::Request { member, life, op });
        }
        let patience = 4 * self.options.election;
        let patience = self.clients.all[client].rng.between(patience, 20 * patience);
        self.after(patience, Event::GiveUp { op });
        waits
    }

    pub(super) fn request_arrives(&mut self, member: usize, life: u64, op: usize) {
        if !self.lives(member, life) {
            return;
        }
        let (_, conn) = self.clients.asked[op];
        let request = self.clients.in_words.get(&op).unwrap_or(&self.clients.history.ops[op].request).clone();
        let now = self.local(member);
        let process = self.machines[member].process.as_mut().expect("it lives");
        let tag = op as u64;
        // The gate, which an adapter asks for every request.
        if let Err(fault) = validate::check(&request, &txns::limits()) {
            let header = Header { revision: process.node.revision(), ..Header::default() };
            return self
                .reply_leaves(member, Reply { conn, tag, header, body: Body::Fault(fault), more: false });
        }
        process.node.on_call(conn, Call::Request { tag, request }, now);
        self.turn_soon(member);
    }

    /// A member has answered.
    pub(super) fn reply_leaves(&mut self, member: usize, reply: Reply) {
        self.claimed(member);
        if World::is_watching(reply.conn) {
            return self.watch_reply_leaves(member, reply);
        }
        if Wires::is_one(reply.conn) && !Wires::is_lane_0(reply.conn) {
            return self.wire_reply_leaves(member, reply);
        }
        self.moment(Moment::Answered, member, 0);
        let believed = self.may_be_believed(member, &reply);
        let passes = believed && self.net.passes(member, 0);
        let mut arrives = self.now + if passes { self.net.delay(member, 0) } else { 0 };
        // Parts of an answer do not overtake each other, and what is lost of it is lost to the end.
        let before = self.clients.parts_sent.get(&reply.tag).copied();
        if reply.more || before.is_some() {
            arrives = if passes { before.map_or(arrives, |before| before.max(arrives)) } else { Mono::NEVER };
            self.clients.parts_sent.insert(reply.tag, arrives);
        }
        if believed && reply.tag < operator::TAGS && self.options.leases > 0 {
            self.check_lease_answer(&reply);
        }
        if passes && arrives != Mono::NEVER {
            self.at(arrives, Event::Answered { reply: Box::new(reply) });
        }
    }

    pub(super) fn answer_arrives(&mut self, reply: Reply) {
        if reply.tag >= operator::TAGS {
            return self.order_answered(&reply);
        }
        let op = reply.tag as usize;
        let Some(reply) = self.clients.put_together(reply) else { return };
        let (client, conn) = self.clients.asked[op];
        let holds = self.clients.all[client].connected.is_some_and(|connected| connected.conn == conn);
        if !holds {
            return; // The connection is closed: nobody reads it.
        }
        self.trace.line(self.now, 0, || format!("client {client} op {op}: {:?}", reply.body));
        if let Body::Lease(LeaseAnswer::Granted { id, .. }) = reply.body {
            self.clients.leases.granted(id);
        }
        if let Body::Acquired { key, .. } = &reply.body {
            self.clients.locks.granted(key);
        }
        let this = &mut self.clients.all[client];
        this.known = this.known.max(reply.header.revision);
        if let Body::Range(result) = &reply.body
            && let Some(kv) = result.kvs.first()
        {
            this.seen = Some(kv.clone());
        }
        let request = &self.clients.history.ops[op].request;
        if let Some(cell) = maintained(request, &reply.body) {
            *self.clients.maintained.entry(cell).or_default() += 1;
        }
        self.clients.history.answer(op, &reply.header, reply.body, self.now);
        let refused =
            matches!(self.clients.history.ops[op].outcome, Outcome::Refused { code: Code::NoSpace, .. });
        let this = &mut self.clients.all[client];
        // Not everybody cares.
        if refused && self.clients.makes_room && this.rng.one_in(3) {
            this.makes_room = 2;
        }
        self.settle(client, op);
    }

    /// The client waits for this one no longer.
    pub(super) fn settle(&mut self, client: usize, op: usize) {
        let this = &mut self.clients.all[client];
        let Some(at) = this.waiting.iter().position(|waiting| *waiting == op) else { return };
        this.waiting.remove(at);
        if this.waiting.is_empty() {
            let think = exponential(&mut this.rng, self.options.think);
            self.after(think, Event::Client { client });
        }
    }

    pub(super) fn give_up(&mut self, op: usize) {
        let (client, conn) = self.clients.asked[op];
        let this = &mut self.clients.all[client];
        if !this.waiting.contains(&op) {
            return;
        }
        if self.calm && self.lock_is_overdue(op) {
            return;
        }
        let this = &mut self.clients.all[client];
        // Whoever asked in vain tries another member; sometimes it still listens for the late answer.
        let leaves = this.rng.one_in(2) || self.calm;
        if leaves && this.connected.is_some_and(|connected| connected.conn == conn) {
            self.client_disconnects(client);
        } else {
            self.wire_gives_up(conn, op);
        }
        self.settle(client, op);
    }

    /// The client ends its connection.
    fn client_disconnects(&mut self, client: usize) {
        let Some(connected) = self.clients.all[client].connected.take() else { return };
        if let Some(process) = &mut self.machines[connected.member].process
            && process.life == connected.life
        {
            process.node.on_disconnect(connected.conn);
        }
        self.wire_leaves(connected.conn);
    }

    /// The client's connection has ended: it knows nothing of what it waits for.
    pub(super) fn client_lost(&mut self, client: usize, conn: ConnId) {
        if self.clients.all[client].connected.is_none_or(|connected| connected.conn != conn) {
            return;
        }
        self.client_disconnects(client);
        let waiting = std::mem::take(&mut self.clients.all[client].waiting);
        if !waiting.is_empty() {
            self.after(MS, Event::Client { client });
        }
    }

    /// L12: whoever waits for a lock in peace, and is the first, is told so at once. True if it is looked at again a little later.
    fn lock_is_overdue(&mut self, op: usize) -> bool {
        let (client, _) = self.clients.asked[op];
        let asked = &self.clients.history.ops[op];
        let Request::Lock(LockRequest::Acquire(acquire)) = &asked.request else { return false };
        let in_peace = asked.invoked.at > self.leases.healed_at + 20 * self.options.election;
        let Some(connected) = self.clients.all[client].connected.filter(|_| in_peace) else { return false };
        let Some(process) = &self.machines[connected.member].process else { return false };
        let Request::Range(leader) = lock_load::first_of(&acquire.name) else { return false };
        let first = process
            .node
            .range(&leader)
            .ok()
            .and_then(Result::ok)
            .and_then(|found| found.kvs.into_iter().next());
        let is_first = process.life == connected.life
            && first.is_some_and(|kv| kv.key == lock::lock_key(&acquire.name, acquire.lease));
        if !is_first {
            self.clients.overdue.remove(&op);
            return false;
        }
        if !self.clients.overdue.insert(op) {
            let what = format!("it is the first, and is not told: {asked}");
            self.fail("L12", what);
            return false;
        }
        self.after(4 * self.options.election, Event::GiveUp { op });
        true
    }

    /// Operations from this one on that wait behind the owner of a lock, as the member sees it that was asked. Nothing is
    /// promised of when they are answered: a lease may live long.
    pub(super) fn waiting_in_line(&self, from: usize) -> Vec<usize> {
        let waiting =
            self.clients.all.iter().flat_map(|client| client.waiting.iter().map(move |op| (client, *op)));
        let in_line = waiting.filter(|(client, op)| *op >= from && self.stands_behind_another(client, *op));
        in_line.map(|(_, op)| op).collect()
    }

    fn stands_behind_another(&self, client: &Client, op: usize) -> bool {
        let Request::Lock(LockRequest::Acquire(acquire)) = &self.clients.history.ops[op].request else {
            return false;
        };
        let Some(connected) = client.connected else { return false };
        let Some(process) = &self.machines[connected.member].process else { return false };
        let Request::Range(owner) = lock_load::first_of(&acquire.name) else { return false };
        let found = process.node.range(&owner).ok().and_then(Result::ok);
        let owner = found.and_then(|found| found.kvs.into_iter().next());
        process.life == connected.life
            && owner.is_some_and(|kv| kv.key != lock::lock_key(&acquire.name, acquire.lease))
    }

    /// Clients that had stopped go on, with so many operations more; those that wait are left alone.
    pub(super) fn allow_more(&mut self, operations: u64) {
        self.clients.budget += operations;
        for client in 0..self.clients.all.len() {
            if !self.clients.all[client].busy {
                self.clients.all[client].busy = true;
                self.after(0, Event::Client { client });
            }
        }
    }

    /// A process has ended: its clients are told by its kernel, or wait in vain.
    pub(super) fn clients_lost(&mut self, member: usize, life: u64, power_lost: bool) {
        for client in 0..self.clients.all.len() {
            let this = &mut self.clients.all[client];
            let Some(connected) = this.connected else { continue };
            if connected.member != member || connected.life != life || Wires::is_one(connected.conn) {
                continue;
            }
            if power_lost || !self.net.passes(member, 0) {
                continue;
            }
            this.connected = None;
            let waiting = std::mem::take(&mut this.waiting);
            if !waiting.is_empty() {
                self.after(MS, Event::Client { client });
            }
        }
    }

    /// A stopping member says goodbye where nothing is owed; whether everybody is gone.
    pub(super) fn part_from_clients(&mut self, member: usize, life: u64) -> bool {
        let here = |connected: &mut Connected| {
            connected.member == member && connected.life == life && !Wires::is_one(connected.conn)
        };
        let mut parted = true;
        for client in &mut self.clients.all {
            if client.waiting.is_empty() {
                client.connected.take_if(here);
            }
            parted &= !client.connected.as_mut().is_some_and(here);
        }
        self.watchers_lost(member, life, self.net.passes(member, 0));
        parted
    }

    /// There is a new budget: clients that had stopped go on.
    pub(super) fn wake_clients(&mut self, budget: u64) {
        self.clients.budget = 0;
        for client in 0..self.clients.all.len() {
            // Not over a connection to a machine that has been dead for long.
            if let Some(connected) = self.clients.all[client].connected.take() {
                self.wire_leaves(connected.conn);
            }
        }
        self.allow_more(budget);
    }
}
