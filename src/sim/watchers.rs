//! Clients that watch. Each has a few watches, all over one connection at a time; it takes what it is sent slowly, or not at
//! all for a while, asks how far it was told everything, begins other watches, and goes away. With the next
//! connection, to any member, its watches go on behind what they were told.
//!
//! A connection is a stream, whatever the network does to frames between members: what is said on it arrives in order,
//! or not any more. The shell's part is played too: a client that takes nothing is held.
//!
//! What they were told is judged by [`super::check`] at the end. Here is judged that who is held is sent nothing (V25),
//! and that all are told everything in the end (L11, in [`super::liveness`]).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::history::{Piece, Told, Watched};
use super::options::Options;
use super::stream::{exponential, stream};
use super::wire::Wires;
use super::world::{Event, World};
use crate::api::{Body, Call, ConnId, EventKind, Reply, Request, Span, Tag, Watch};
use crate::base::time::{MS, Nanos};
use crate::base::{Mono, Revision, Rng};

/// Their connections, as opposed to those of other clients.
const CONNS: ConnId = 1 << 40;

/// A connection's tag of the question how far it was told everything.
pub(super) const PROGRESS: Tag = Tag::MAX;

/// Watches of one client.
const WATCHES_MAX: u64 = 3;

/// Replies that are not taken, at which a connection is held.
const UNTAKEN_MAX: usize = 3;

/// A client that watches.
pub struct Watcher {
    rng: Rng,
    conn: Option<ConnId>,
    /// Its watches, by their places in the history.
    watches: Vec<usize>,
    /// The election that it observes, if it does.
    pub(super) election: Option<Bytes>,
    /// When it last heard of anything on this connection, or made it.
    heard_at: Mono,
}

/// One connection of one of them, to one life of a member.
pub(super) struct Connection {
    pub(super) watcher: usize,
    member: usize,
    life: u64,
    /// Which watch each tag is, or which observation of an election.
    tags: BTreeMap<Tag, usize>,
    pub(super) observed: BTreeMap<Tag, usize>,
    pub(super) next_tag: Tag,
    /// When what was said last arrives: calls there, replies here.
    call_at: Mono,
    reply_at: Mono,
    /// Something was lost: nothing arrives behind it.
    broken: bool,
    /// Until when the client takes nothing, and what waits for it.
    deaf_until: Option<Mono>,
    untaken: VecDeque<Reply>,
    /// The event in which the member was told.
    held_at: Option<u64>,
    asked: bool,
}

pub struct Watchers {
    pub all: Vec<Watcher>,
    /// Where each of the history's watches began, as a word.
    starts: Vec<&'static str>,
    pub(super) conns: BTreeMap<ConnId, Connection>,
    next_conn: ConnId,
    keys: u64,
    /// Elections that may be observed; 0: none in this run.
    names: u64,
    /// Mean time between two doings of a client.
    pause: Nanos,
}

impl Watchers {
    pub fn new(options: &Options) -> Watchers {
        let watcher = |number: u64| Watcher {
            rng: stream(options.seed, "watcher", number),
            conn: None,
            watches: Vec::new(),
            election: None,
            heard_at: Mono(0),
        };
        Watchers {
            all: (0..options.watchers).map(watcher).collect(),
            starts: Vec::new(),
            conns: BTreeMap::new(),
            next_conn: CONNS,
            keys: options.keys,
            names: options.locks,
            pause: (options.faults / 40).max(20 * MS),
        }
    }
}

impl Watched {
    /// The first revision that it was not told of: where it goes on. 0 = it never began, and is to begin now.
    fn next(&self) -> Revision {
        let behind = |piece: &Piece| {
            let begun = piece.begun.map(|begun| if piece.asked > 0 { piece.asked } else { begun + 1 });
            let told = piece.told.iter().rev().find_map(|told| match told {
                Told::Events { revision, .. } | Told::Progress { revision } => Some(revision + 1),
                Told::Ended { .. } => None,
            });
            told.or(begun)
        };
        self.pieces.iter().rev().find_map(behind).unwrap_or(self.watch.revision)
    }
}

fn some_watch(rng: &mut Rng, keys: u64, known: Revision) -> Watch {
    let key = |rng: &mut Rng| Bytes::from(format!("k{:03}", rng.below(keys)));
    let span = match rng.below(8) {
        0..=2 => Span::Key(key(rng)),
        3 => Span::Prefix(Bytes::from(format!("k{:02}", rng.below(keys.div_ceil(10))))),
        4 => Span::From(key(rng)),
        5 => {
            let (a, b) = (key(rng), key(rng));
            if a < b { Span::Between(a, b) } else { Span::From(b) }
        }
        // A prefix that is a key as well.
        6 => Span::Prefix(key(rng)),
        _ => Span::Prefix(Bytes::from_static(b"k")),
    };
    let revision = match rng.below(4) {
        0 | 1 => 0,
        2 => rng.between(1, known),
        _ => (known + 20).saturating_sub(rng.below(40)).max(1),
    };
    Watch {
        span,
        revision,
        prev_kv: rng.one_in(2),
        no_put: rng.one_in(10),
        no_delete: rng.one_in(10),
        progress: rng.one_in(2),
    }
}

impl World {
    /// A client that watches does something.
    pub(super) fn watcher_turn(&mut self, watcher: usize) {
        let pause = if self.calm { self.options.election } else { self.watchers.pause };
        let pause = exponential(&mut self.watchers.all[watcher].rng, pause).max(MS);
        self.after(pause, Event::Watcher { watcher });
        let Some(conn) = self.watchers.all[watcher].conn else { return self.watcher_connects(watcher) };
        let Watcher { rng, heard_at, .. } = &mut self.watchers.all[watcher];
        let patience = 10 * self.options.election + 2 * pause;
        if self.now.since(*heard_at) > patience {
            return self.watcher_leaves(watcher);
        }
        let what = if self.calm { 9 } else { rng.below(10) };
        if self.calm {
            self.watcher_gives_up_the_future(watcher, conn);
        }
        match what {
            0 => self.watcher_leaves(watcher),
            1..=3 => {
                let until = self.now + exponential(&mut self.watchers.all[watcher].rng, 2 * pause);
                let connection = self.watchers.conns.get_mut(&conn).expect("it is connected");
                if connection.deaf_until.is_none() {
                    connection.deaf_until = Some(until);
                    self.after(until.since(self.now), Event::WatcherListens { conn });
                    self.wire_is_deaf(conn);
                }
            }
            4 | 5 => self.watcher_begins_another(watcher, conn),
            _ => {
                let connection = self.watchers.conns.get_mut(&conn).expect("it is connected");
                if !std::mem::replace(&mut connection.asked, true) {
                    self.watcher_says(conn, Call::Request { tag: PROGRESS, request: Request::WatchProgress });
                }
            }
        }
    }

    /// To any member; its watches go on.
    fn watcher_connects(&mut self, watcher: usize) {
        let machines = self.options.machines();
        let member = self.watchers.all[watcher].rng.between(1, machines) as usize;
        let serves = !self.calm || self.watch.roster.is_enrolled(member);
        let open = serves && self.net.passes(0, member) && self.net.passes(member, 0);
        let process = self.machines[member].process.as_ref();
        let Some(process) = process.filter(|process| open && process.stopping.is_none()) else { return };
        let life = process.life;
        let connection = Connection {
            watcher,
            member,
            life,
            tags: BTreeMap::new(),
            observed: BTreeMap::new(),
            next_tag: 1,
            call_at: self.now,
            reply_at: self.now,
            broken: false,
            deaf_until: None,
            untaken: VecDeque::new(),
            held_at: None,
            asked: false,
        };
        let conn = if self.speaks_in_bytes() {
            self.watcher_wire(watcher, member, life)
        } else {
            self.watchers.next_conn += 1;
            self.watchers.next_conn
        };
        self.watchers.conns.insert(conn, connection);
        let this = &mut self.watchers.all[watcher];
        (this.conn, this.heard_at) = (Some(conn), self.now);
        for watched in this.watches.clone() {
            self.watcher_asks(conn, watched);
        }
        self.watcher_observes(watcher, conn);
        if self.watchers.all[watcher].watches.is_empty() {
            self.watcher_begins_another(watcher, conn);
        }
    }

    /// Asks for a watch to go on, or to begin.
    fn watcher_asks(&mut self, conn: ConnId, watched: usize) {
        let log = &mut self.clients.history.watched[watched];
        let asked = log.next();
        log.pieces.push(Piece { connection: conn, asked, begun: None, told: Vec::new() });
        let watch = Watch { revision: asked, ..log.watch.clone() };
        let connection = self.watchers.conns.get_mut(&conn).expect("it was just looked at");
        let tag = connection.next_tag;
        connection.next_tag += 1;
        connection.tags.insert(tag, watched);
        self.watcher_says(conn, Call::Request { tag, request: Request::Watch(watch) });
    }

    /// In the place of an older one, if it has enough of them.
    fn watcher_begins_another(&mut self, watcher: usize, conn: ConnId) {
        let known = self.newest_known();
        let keys = self.watchers.keys;
        // Now and then, and not by the dice, the election that it observes is another one.
        let begun = self.clients.history.watched.len() as u64;
        if self.watchers.names > 0 && begun.is_multiple_of(2) && !Wires::is_one(conn) {
            let name = Bytes::from(format!("lock{}", begun / 2 % self.watchers.names));
            self.watcher_observes_another(watcher, conn, name);
        }
        let Watcher { rng, watches, .. } = &mut self.watchers.all[watcher];
        let watch = some_watch(rng, keys, known);
        if watches.len() as u64 >= WATCHES_MAX {
            let gone = watches.swap_remove(rng.below(WATCHES_MAX) as usize);
            self.watcher_cancels(conn, gone);
        }
        let start = match watch.revision {
            0 => "now",
            revision if revision <= known => "past",
            _ => "future",
        };
        self.watcher_begins(watcher, conn, watch, start);
    }

    pub(super) fn newest_known(&self) -> Revision {
        self.clients.all.iter().map(|client| client.known()).max().unwrap_or(1)
    }

    fn watcher_cancels(&mut self, conn: ConnId, gone: usize) {
        let tags = &mut self.watchers.conns.get_mut(&conn).expect("it is connected").tags;
        let tag = tags.iter().find(|(_, watched)| **watched == gone).map(|(tag, _)| *tag);
        if let Some(tag) = tag {
            tags.remove(&tag);
            self.watcher_says(conn, Call::Cancel { tag });
        }
    }

    /// What waits for a revision that never comes would hold back the answer how far all were told.
    fn watcher_gives_up_the_future(&mut self, watcher: usize, conn: ConnId) {
        let last = self.enrolled().first().map_or(0, |member| self.watch.seen[*member].revision);
        let history = &self.clients.history.watched;
        let waits = |watched: &usize| {
            let log = &history[*watched];
            // What was the future when it began is so for the member until that revision has come.
            let began_ahead = log.pieces.last().is_some_and(|piece| {
                piece.told.is_empty() && piece.begun.is_some_and(|begun| piece.asked > begun + 1)
            });
            log.next() > last + u64::from(!began_ahead)
        };
        let gone: Vec<usize> =
            self.watchers.all[watcher].watches.extract_if(.., |watched| waits(watched)).collect();
        for watched in gone {
            self.watcher_cancels(conn, watched);
        }
    }

    fn watcher_begins(&mut self, watcher: usize, conn: ConnId, watch: Watch, start: &'static str) {
        let watched = self.clients.history.watched.len();
        let client = watcher as u64;
        self.clients.history.watched.push(Watched { client, watch, pieces: Vec::new() });
        self.watchers.starts.push(start);
        self.watchers.all[watcher].watches.push(watched);
        self.watcher_asks(conn, watched);
    }

    /// Counts what came of a watch under everything that it asked for.
    fn probe_watch(&mut self, watched: usize, result: &'static str) {
        let watch = &self.clients.history.watched[watched].watch;
        let span = match &watch.span {
            Span::Key(_) => "key",
            Span::Prefix(_) => "prefix",
            Span::From(_) => "from",
            Span::Between(..) => "between",
        };
        let options = [
            (watch.prev_kv, "prev"),
            (watch.no_put, "no-put"),
            (watch.no_delete, "no-delete"),
            (watch.progress, "progress"),
        ];
        let given = options.into_iter().filter(|(given, _)| *given).map(|(_, name)| name);
        for option in given.chain([span, self.watchers.starts[watched]]) {
            *self.tally.watches.entry((option, result)).or_default() += 1;
        }
    }

    pub(super) fn watcher_says(&mut self, conn: ConnId, call: Call) {
        if Wires::is_one(conn) {
            return self.wire_watcher_says(conn, &call);
        }
        let Connection { member, life, call_at, broken, .. } = self.watchers.conns[&conn];
        if broken || !self.net.passes(0, member) {
            self.watchers.conns.get_mut(&conn).expect("it was just looked at").broken = true;
            return;
        }
        let at = call_at.max(self.now + self.net.delay(0, member));
        self.watchers.conns.get_mut(&conn).expect("it was just looked at").call_at = at;
        self.at(at, Event::WatchCall { member, life, conn, call: Box::new(call) });
    }

    pub(super) fn watch_call_arrives(&mut self, member: usize, life: u64, conn: ConnId, call: Call) {
        if !self.lives(member, life) || !self.watchers.conns.contains_key(&conn) {
            return;
        }
        let now = self.local(member);
        let process = self.machines[member].process.as_mut().expect("it lives");
        process.node.on_call(conn, call, now);
        self.turn_soon(member);
    }

    /// Whether this is a connection of those who watch.
    pub(super) fn is_watching(conn: ConnId) -> bool {
        (CONNS..2 * CONNS).contains(&conn)
    }

    /// A member says something to one that watches.
    pub(super) fn watch_reply_leaves(&mut self, member: usize, reply: Reply) {
        let conn = reply.conn;
        let event = self.trace.events();
        // Now, and not when the client takes it: what the member learns meanwhile cannot take it back.
        let believed = self.may_be_believed(member, &reply);
        let Some(connection) = self.watchers.conns.get_mut(&conn) else { return };
        connection.broken |= !believed;
        if connection.broken {
            return;
        }
        let tells = matches!(reply.body, Body::Events { .. } | Body::Leads { .. } | Body::Progress { .. });
        if connection.held_at.is_some_and(|held_at| held_at < event) && tells {
            let what = format!("member {member} tells a client that takes nothing of {:?}", reply.body);
            return self.fail("V25", what);
        }
        if connection.deaf_until.is_none() {
            return self.watch_reply_travels(reply);
        }
        connection.untaken.push_back(reply);
        if connection.untaken.len() >= UNTAKEN_MAX && connection.held_at.is_none() {
            connection.held_at = Some(event);
            let process = self.machines[member].process.as_mut().expect("it has just spoken");
            process.node.hold(conn);
        }
    }

    fn watch_reply_travels(&mut self, reply: Reply) {
        let Connection { member, reply_at, .. } = self.watchers.conns[&reply.conn];
        let passes = self.net.passes(member, 0);
        let at = reply_at.max(self.now + self.net.delay(member, 0));
        let connection = self.watchers.conns.get_mut(&reply.conn).expect("it was just looked at");
        if !passes {
            connection.broken = true;
            return;
        }
        connection.reply_at = at;
        self.at(at, Event::Pushed { reply: Box::new(reply) });
    }

    /// The client takes what it is sent again.
    pub(super) fn watcher_listens(&mut self, conn: ConnId) {
        let Some(connection) = self.watchers.conns.get_mut(&conn) else { return };
        connection.deaf_until = None;
        if Wires::is_one(conn) {
            return self.wire_listens(conn);
        }
        let (member, life) = (connection.member, connection.life);
        let held = connection.held_at.take().is_some();
        for reply in std::mem::take(&mut connection.untaken) {
            if !self.watchers.conns[&conn].broken {
                self.watch_reply_travels(reply);
            }
        }
        if held && self.lives(member, life) {
            let process = self.machines[member].process.as_mut().expect("it lives");
            if process.node.release(conn) {
                self.turn_soon(member);
            }
        }
    }

    pub(super) fn push_arrives(&mut self, reply: Reply) {
        let Reply { conn, tag, header, body, .. } = reply;
        let Some(connection) = self.watchers.conns.get_mut(&conn) else { return };
        let watcher = connection.watcher;
        self.watchers.all[watcher].heard_at = self.now;
        self.trace.line(self.now, 0, || format!("watcher {watcher} conn {conn} tag {tag}: {body:?}"));
        if tag == PROGRESS {
            connection.asked = false;
            match body {
                Body::Progress { revision } => {
                    // All watches that the member knew of then; what it knows since, it says behind it.
                    let observed: Vec<usize> = connection.observed.values().copied().collect();
                    self.observers_progress(&observed, revision);
                    let connection = &self.watchers.conns[&conn];
                    for watched in connection.tags.values().copied().collect::<Vec<_>>() {
                        let piece = self.clients.history.watched[watched].pieces.last_mut();
                        let piece = piece.expect("it was asked for on this connection");
                        if piece.begun.is_some() {
                            piece.told.push(Told::Progress { revision });
                            self.probe_watch(watched, "progress asked for");
                        }
                    }
                }
                Body::Fault(_) => self.watcher_leaves(watcher),
                other => self.fail("V25", format!("a question for progress is answered by {other:?}")),
            }
            return;
        }
        if let Some(&observed) = connection.observed.get(&tag) {
            return self.observer_is_told(conn, tag, observed, body);
        }
        let Some(&watched) = connection.tags.get(&tag) else { return };
        let log = &mut self.clients.history.watched[watched];
        let resumed = log.pieces.len() > 1;
        let piece = log.pieces.last_mut().expect("it was asked for on this connection");
        match body {
            Body::Watching => {
                piece.begun = Some(header.revision);
                self.probe_watch(watched, if resumed { "went on" } else { "began" });
            }
            Body::Events { revision, events } => {
                self.tally.told += 1;
                let first = &events[0];
                let kind = if first.kind == EventKind::Put { "put" } else { "delete" };
                let several = (events.len() > 1).then_some("several in a revision");
                let before = first.previous.is_some().then_some("what was before");
                let elsewhere = resumed.then_some("told elsewhere");
                piece.told.push(Told::Events { revision, events });
                for result in [Some(kind), several, before, elsewhere].into_iter().flatten() {
                    self.probe_watch(watched, result);
                }
            }
            Body::Progress { revision } => {
                piece.told.push(Told::Progress { revision });
                self.probe_watch(watched, "progress");
            }
            Body::Unwatched { fault, compacted } => {
                piece.told.push(Told::Ended { compacted });
                self.probe_watch(watched, if compacted > 0 { "compacted" } else { "ended" });
                *self.tally.watches.entry(("ended", fault.code.word())).or_default() += 1;
                self.watch_ended(conn, tag, compacted);
            }
            // It must not answer, or cannot.
            Body::Fault(fault) => {
                self.probe_watch(watched, "refused");
                *self.tally.watches.entry(("refused", fault.code.word())).or_default() += 1;
                self.watcher_leaves(watcher);
            }
            other => self.fail("V25", format!("a watch is answered by {other:?}")),
        }
    }

    /// Where the history was compacted, another watch begins at its end; else a member must not answer any more.
    fn watch_ended(&mut self, conn: ConnId, tag: Tag, compacted: Revision) {
        let connection = self.watchers.conns.get_mut(&conn).expect("it was just told");
        let watcher = connection.watcher;
        let watched = connection.tags.remove(&tag).expect("it was just told");
        if compacted == 0 {
            return self.watcher_leaves(watcher);
        }
        self.watchers.all[watcher].watches.retain(|other| *other != watched);
        let watch = Watch { revision: compacted, ..self.clients.history.watched[watched].watch.clone() };
        self.watcher_begins(watcher, conn, watch, "bound");
    }

    /// This connection is over.
    pub(super) fn watcher_lost(&mut self, watcher: usize, conn: ConnId) {
        if self.watchers.all[watcher].conn == Some(conn) {
            self.watcher_leaves(watcher);
        }
    }

    /// The client ends its connection.
    pub(super) fn watcher_leaves(&mut self, watcher: usize) {
        let Some(conn) = self.watchers.all[watcher].conn.take() else { return };
        let Some(Connection { member, life, .. }) = self.watchers.conns.remove(&conn) else { return };
        if self.lives(member, life) {
            let process = self.machines[member].process.as_mut().expect("it lives");
            process.node.on_disconnect(conn);
        }
        self.wire_leaves(conn);
    }

    /// A process has ended, or says goodbye: its clients are told, or wait in vain.
    pub(super) fn watchers_lost(&mut self, member: usize, life: u64, told: bool) {
        let here = |conn: &ConnId, connection: &Connection| {
            connection.member == member && connection.life == life && !Wires::is_one(*conn)
        };
        for (_, connection) in
            self.watchers.conns.iter_mut().filter(|(conn, connection)| here(conn, connection))
        {
            connection.broken = true;
        }
        if told {
            let gone = self.watchers.conns.extract_if(.., |conn, connection| here(conn, connection));
            for (_, connection) in gone.collect::<Vec<_>>() {
                self.watchers.all[connection.watcher].conn = None;
            }
        }
    }

    /// Clients that were not told everything up to a revision.
    pub(super) fn watchers_behind(&self, revision: Revision) -> Vec<usize> {
        let observes =
            |watcher: &Watcher| watcher.election.is_some() && !watcher.conn.is_some_and(Wires::is_one);
        let behind = |watcher: &Watcher| {
            watcher.watches.iter().any(|watched| self.clients.history.watched[*watched].next() <= revision)
                || self.observer_is_behind(watcher.conn, observes(watcher), revision)
        };
        let all = self.watchers.all.iter().enumerate();
        all.filter(|(_, watcher)| behind(watcher)).map(|(number, _)| number).collect()
    }
}
