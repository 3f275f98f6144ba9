//! The loop: wait for an event, collect everything that is ready, take one turn of the node, send what it
//! says. One thread owns all protocol state; it never waits for a disk.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use mio::event::Event;
use mio::net::{TcpStream, UnixStream};
use mio::{Events, Interest, Poll, Token};

use super::accept::{Accepted, Listeners, Sockets};
use super::busy::{Busy, REST_OF_TURN};
use super::clients::{self, Client, Spoken};
use super::counts::ShellCounts;
use super::inbound::{Directory, Inbound, Said};
use super::peers::Peers;
use super::pipe::{Pipe, READ_BYTES};
use super::slots::Slots;
use super::stop::{self, Stopping};
use super::workers::{Finished, Work, Workers};
use crate::api::{Body, Call, Reply};
use crate::base::limits::MEMBERS_MAX;
use crate::base::time::{MS, Nanos, SECOND};
use crate::base::{Error, MemberId, Mono, Result};
use crate::io::{Clock, Disk};
use crate::node::{Node, Output};
use crate::proto::http::Scope;

pub(super) const WAKER: Token = Token(0);
const SIGNALS: Token = Token(1);
const LISTENERS: usize = 16;
pub(super) const PEERS: usize = 1_024;
const INBOUND: usize = 2_048;
const CLIENTS: usize = 1 << 20;
const _: () = assert!(PEERS + MEMBERS_MAX < INBOUND);

/// Connections are closed for so long in one turn: all clients of a machine that is switched off end at once. One takes five
/// microseconds, and milliseconds where thousands of watches end with it.
const ENDINGS_OF_TURN: Nanos = MS / 6;

/// Connections from members at one time. Each has one that has greeted; the rest is for those that are about to, and for
/// who wants to join.
const INBOUND_MAX: usize = 4 * MEMBERS_MAX;

/// A dialling member must greet within this.
const GREETING: Nanos = 5 * SECOND;

/// How often the free space of the disks is looked at.
const SPACE_EVERY: Nanos = 2 * SECOND;

pub(super) struct Shell<D: Disk, C: Clock> {
    pub(super) node: Node<D>,
    pub(super) clock: C,
    pub(super) poll: Poll,
    pub(super) workers: Workers<D>,
    pub(super) peers: Peers,
    pub(super) spoken: Spoken,
    /// One byte per signal.
    pub(super) signals: UnixStream,
    /// Where free space matters, and how little of it is too little.
    pub(super) data_dirs: Vec<PathBuf>,
    pub(super) reserve_bytes: u64,
}

/// How a member's run came to its end.
pub(super) enum Ended {
    Stopped,
    /// The next start repairs it.
    Damaged(Error),
    Failed(Error),
}

/// The running loop.
pub(super) struct EventLoop<D: Disk, C: Clock> {
    pub(super) shell: Shell<D, C>,
    pub(super) listeners: Listeners,
    pub(super) clients: Slots<Client>,
    inbound: Slots<Inbound>,
    /// Those with something to do: input to read or decode, output to send.
    pub(super) busy_clients: Busy,
    busy_inbound: Vec<usize>,
    space_at: Mono,
    space_asked: bool,
    /// An incomplete request or greeting is looked for no more often than this.
    patience_at: Mono,
    pub(super) stopping: Option<Stopping>,
    pub(super) buffer: Vec<u8>,
    calls: Vec<Call>,
    said: Vec<Said>,
    /// Of requests that are not complete, of all clients.
    input_bytes: usize,
    pub(super) counts: ShellCounts,
}

impl<D: Disk, C: Clock> EventLoop<D, C> {
    pub(super) fn new(mut shell: Shell<D, C>, sockets: Sockets) -> Result<EventLoop<D, C>> {
        let registry = shell.poll.registry();
        let listeners = registry
            .register(&mut shell.signals, SIGNALS, Interest::READABLE)
            .and_then(|()| Listeners::register(sockets, registry, LISTENERS))
            .map_err(|e| Error::io("cannot watch the sockets of", "this process".as_ref(), e))?;
        let counts = ShellCounts::new(shell.clock.wall_ms());
        Ok(EventLoop {
            shell,
            listeners,
            clients: Slots::new(),
            inbound: Slots::new(),
            busy_clients: Busy::default(),
            busy_inbound: Vec::new(),
            space_at: Mono(0),
            space_asked: false,
            patience_at: Mono::NEVER,
            stopping: None,
            buffer: vec![0; READ_BYTES],
            calls: Vec::new(),
            said: Vec::new(),
            input_bytes: 0,
            counts,
        })
    }

    /// Runs until the member is stopped or must not go on, and ends its threads.
    pub(super) fn run(mut self) -> Ended {
        let ended = match self.run_until_stopped() {
            Ok(()) => Ended::Stopped,
            Err(error) => match self.shell.node.condemn(&error) {
                Ok(true) => Ended::Damaged(error),
                Ok(false) => Ended::Failed(error),
                Err(worse) => Ended::Failed(worse),
            },
        };
        self.shell.workers.end();
        ended
    }

    fn run_until_stopped(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(4_096);
        let mut again = true;
        loop {
            self.wait(&mut events, again)?;
            for event in &events {
                self.on_event(event);
            }
            self.counts.turns += 1;
            let now = self.shell.clock.now();
            for accepted in self.listeners.accept(now) {
                self.add(accepted, now);
            }
            self.read_peers(now)?;
            self.read_clients();
            self.take_results()?;
            let now = self.shell.clock.now();
            let output = self.shell.node.turn(now)?;
            again = output.again;
            self.carry_out(output, now)?;
            again |= self.flush(now);
            self.keep_time(now);
            if self.advance_stop(now)? {
                return Ok(());
            }
        }
    }

    /// Sleeps until something happens, or not at all if there is work left.
    fn wait(&mut self, events: &mut Events, again: bool) -> Result<()> {
        let now = self.shell.clock.now();
        let again = again || !self.busy_clients.is_empty() || !self.busy_inbound.is_empty();
        let timeout = if again { Some(0) } else { self.deadline().0.checked_sub(now.0).or(Some(0)) };
        if timeout != Some(0) {
            self.shell.workers.going_to_sleep();
            if let Some(finished) = self.shell.workers.next() {
                self.shell.workers.woke();
                self.take_result(finished)?;
                return self.poll(events, Some(Duration::ZERO));
            }
        }
        let result = self.poll(events, timeout.map(Duration::from_nanos));
        self.shell.workers.woke();
        result
    }

    fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> Result<()> {
        match self.shell.poll.poll(events, timeout) {
            Err(e) if e.kind() != ErrorKind::Interrupted => {
                Err(Error::io("cannot poll", "sockets".as_ref(), e))
            }
            _ => Ok(()),
        }
    }

    fn deadline(&self) -> Mono {
        let accept = self.listeners.deadline();
        let stop = if self.stopping.is_some() { self.shell.clock.now() + stop::LOOK } else { Mono::NEVER };
        let space = if self.space_asked { Mono::NEVER } else { self.space_at };
        [self.shell.node.deadline(), self.shell.peers.deadline(), accept, space, self.patience_at, stop]
            .into_iter()
            .min()
            .expect("the list is not empty")
    }

    fn on_event(&mut self, event: &Event) {
        match event.token() {
            WAKER => {}
            SIGNALS => self.on_signal(),
            token if token.0 >= CLIENTS => {
                if let Some(client) = self.clients.at(token.0 - CLIENTS) {
                    client.pipe.on_event(event);
                    self.busy_clients.on_event(token.0 - CLIENTS);
                }
            }
            token if token.0 >= INBOUND => {
                if let Some(inbound) = self.inbound.at(token.0 - INBOUND) {
                    inbound.pipe.on_event(event);
                    self.busy_inbound.push(token.0 - INBOUND);
                }
            }
            token if self.shell.peers.owns(token) => self.shell.peers.on_event(event),
            _ => self.listeners.on_event(),
        }
    }

    pub(super) fn add(&mut self, accepted: Accepted, now: Mono) {
        match accepted {
            Accepted::Client(stream) => self.add_client(stream, None),
            Accepted::Http(stream, scope) => self.add_client(stream, Some(scope)),
            Accepted::Member(stream) => self.add_inbound(stream, now),
        }
    }

    /// `http`: nothing else is spoken where it comes from.
    fn add_client(&mut self, mut stream: TcpStream, http: Option<Scope>) {
        let (slot, id) = self.clients.reserve();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.shell.poll.registry().register(&mut stream, Token(CLIENTS + slot), interest).is_err() {
            return self.clients.free(slot);
        }
        // Answers are written whole; a failure only makes them slower.
        let _ = stream.set_nodelay(true);
        self.counts.accepted += 1;
        let mut client = Client::new(id, Pipe::new(stream));
        if let Some(scope) = http {
            client.speak_http(&self.shell.spoken, scope);
        }
        self.clients.fill(slot, client);
    }

    fn add_inbound(&mut self, mut stream: TcpStream, now: Mono) {
        if !self.make_room_for_members() {
            return;
        }
        let (slot, _) = self.inbound.reserve();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.shell.poll.registry().register(&mut stream, Token(INBOUND + slot), interest).is_err() {
            return self.inbound.free(slot);
        }
        self.inbound.fill(slot, Inbound::new(Pipe::between_members(stream), now));
        self.patience_at = self.patience_at.min(now + GREETING);
    }

    /// Anybody can dial this port and say nothing: of those, the one that has been silent for longest makes room, so that
    /// they cannot keep members out. False if everybody who is here has greeted.
    fn make_room_for_members(&mut self) -> bool {
        if self.inbound.len() < INBOUND_MAX {
            return true;
        }
        let mut oldest: Option<(Mono, usize)> = None;
        for slot in self.inbound.used() {
            let Some(inbound) = self.inbound.at(slot) else { continue };
            if inbound.from.is_none() && oldest.is_none_or(|(since, _)| inbound.since < since) {
                oldest = Some((inbound.since, slot));
            }
        }
        if let Some((_, slot)) = oldest {
            self.inbound.free(slot);
        }
        oldest.is_some()
    }

    /// Reads what members say, and hands it to the node.
    fn read_peers(&mut self, now: Mono) -> Result<()> {
        for id in self.shell.peers.read(&mut self.buffer, now) {
            self.shell.node.on_peer_lost(id, now);
        }
        let busy = std::mem::take(&mut self.busy_inbound);
        for slot in busy {
            self.read_inbound(slot, now)?;
        }
        Ok(())
    }

    fn read_inbound(&mut self, slot: usize, now: Mono) -> Result<()> {
        let Some(inbound) = self.inbound.at(slot) else { return Ok(()) };
        inbound.read(&mut self.buffer);
        let received = inbound.pipe.take_traffic().received_bytes;
        if let Some(from) = inbound.from {
            self.shell.peers.count_received(from, received);
        }
        let (cluster, me) = (self.shell.node.cluster(), self.shell.node.id());
        let node = &self.shell.node;
        let directory = Directory {
            members: &|| node.known_members(),
            removed: node.removed_members(),
            open: node.listens_to_strangers(now),
        };
        let mut more = inbound.take(cluster, me, &directory, &mut self.said);
        more |= inbound.pipe.is_readable();
        inbound.pipe.flush();
        let from = inbound.from;
        let gone = (inbound.pipe.ended && !more) || inbound.pipe.broken;
        let mut all_said = std::mem::take(&mut self.said);
        for said in all_said.drain(..) {
            match said {
                Said::Hello(from, promise) => self.replace_inbound(slot, from, promise),
                Said::Message(message) => self.shell.node.on_message(message, now),
                Said::Call(from, call) => self.shell.node.on_peer_call(from, call, now)?,
            }
        }
        self.said = all_said;
        if gone {
            self.inbound.free(slot);
            if let Some(id) = from {
                self.shell.node.on_peer_lost(id, now);
            }
        } else if more {
            self.busy_inbound.push(slot);
        }
        Ok(())
    }

    /// A member speaks on one connection at a time: what it said on an earlier one and was not taken yet is dropped,
    /// as if it had been lost on the way.
    fn replace_inbound(&mut self, slot: usize, from: MemberId, promise: Nanos) {
        for other in self.inbound.used() {
            if other != slot && self.inbound.at(other).is_some_and(|inbound| inbound.from == Some(from)) {
                self.inbound.free(other);
            }
        }
        self.shell.node.on_peer_greeted(from, promise);
    }

    /// Reads and decodes what clients ask, one read each, and hands it to the node.
    fn read_clients(&mut self) {
        let mut fresh = self.busy_clients.take_fresh();
        for slot in fresh.drain(..) {
            self.read_client(slot);
        }
        self.busy_clients.recycle(fresh);
        let mut until = None;
        while let Some(slot) = self.busy_clients.next_of_rest() {
            let until = *until.get_or_insert_with(|| self.shell.clock.now() + REST_OF_TURN);
            self.read_client(slot);
            if self.shell.clock.now() >= until {
                return;
            }
        }
    }

    fn read_client(&mut self, slot: usize) {
        let Some(client) = self.clients.at(slot) else { return };
        if client.listens() && client.pipe.is_readable() && !client.wants_decoding() {
            client.pipe.read(&mut self.buffer[..clients::READ_BYTES]);
        }
        if client.listens() {
            // Read the clock after the bytes: a lease must not answer for a request that came later.
            let now = self.shell.clock.now();
            client.decode(&self.shell.spoken, &mut self.calls, now);
            self.patience_at = self.patience_at.min(client.deadline());
            for call in self.calls.drain(..) {
                self.shell.node.on_call(client.asker(&call), call, now);
            }
        } else if client.has_parted() {
            client.skip_input(&mut self.buffer[..clients::READ_BYTES]);
        }
        self.clients.mark(slot);
    }

    fn take_results(&mut self) -> Result<()> {
        while let Some(finished) = self.shell.workers.next() {
            self.take_result(finished)?;
        }
        Ok(())
    }

    fn take_result(&mut self, finished: Finished) -> Result<()> {
        let now = self.shell.clock.now();
        match finished {
            Finished::Written(written) => {
                let written = written?;
                self.counts.note_written(&written);
                self.shell.node.on_written(written);
            }
            Finished::Job { done, checkpoint } => {
                self.counts.note_checkpoint(checkpoint);
                self.shell.node.on_done(done?, now)?;
            }
            Finished::Resolved { peer, host, addresses } => {
                self.shell.peers.resolved(peer, &host, &addresses, self.shell.poll.registry(), now);
            }
            Finished::FreeBytes(free) => {
                self.space_asked = false;
                if let Some(free) = free {
                    self.shell.node.on_disk_space(free, self.shell.reserve_bytes);
                }
            }
        }
        Ok(())
    }

    /// Does what the turn decided.
    fn carry_out(&mut self, output: Output<D>, now: Mono) -> Result<()> {
        if !output.batches.is_empty() {
            self.shell.workers.write(output.batches);
        }
        for message in &output.messages {
            if let Some((from, refusal)) = self.shell.peers.send(message) {
                // Not at once again: the peer is away, and its next event will come.
                self.shell.node.on_peer_call(from, refusal, now)?;
            }
        }
        for job in output.jobs {
            self.shell.workers.ask(Work::Job(job));
        }
        if output.members_changed {
            self.shell.peers.set_members(&others(&self.shell.node), now);
        }
        for reply in output.replies {
            self.answer(reply);
        }
        Ok(())
    }

    fn answer(&mut self, mut reply: Reply) {
        if let Body::Metrics(metrics) = &mut reply.body {
            metrics.shell = self.counts.collect(self.clients.len(), self.shell.peers.counts());
        }
        if let Some((slot, client)) = self.clients.by_id(reply.conn) {
            client.encode(reply);
            if client.change_of_hold() == Some(true) {
                let id = client.id;
                self.shell.node.hold(id);
            }
            self.clients.mark(slot);
        }
    }

    /// Sends what is queued, answers before what members want to know: each send may wake its receiver, and on a
    /// busy machine take this processor from us. True if a connection that was held up can be decoded again.
    fn flush(&mut self, now: Mono) -> bool {
        let (mut again, mut end_until) = (false, None);
        let parting = self.is_parting();
        let mut marked = self.clients.take_marked();
        for slot in marked.drain(..) {
            if parting {
                again |= self.part_behind_answers(slot, now);
            }
            let Some(client) = self.clients.at(slot) else { continue };
            client.count_input(&mut self.input_bytes);
            client.flush(&mut self.calls);
            if client.change_of_hold() == Some(false) {
                again |= self.shell.node.release(client.id);
            }
            self.counts.note_traffic(client.take_traffic());
            let ends = client.is_over();
            let mut over = ends && end_until.is_none_or(|until| self.shell.clock.now() < until);
            if over {
                end_until.get_or_insert_with(|| self.shell.clock.now() + ENDINGS_OF_TURN);
                over = client.leave(&mut self.calls);
            }
            // What follows from that something was sent, or will not be.
            again |= !ends && !self.calls.is_empty();
            for call in self.calls.drain(..) {
                self.shell.node.on_call(client.asker(&call), call, now);
            }
            if over {
                client.uncount_input(&mut self.input_bytes);
                self.clients.free(slot);
            } else if ends
                || client.wants_decoding()
                || (client.listens() && client.pipe.is_readable())
                || client.skips()
            {
                self.busy_clients.go_on(slot);
                again = true;
            }
        }
        self.clients.recycle(marked);
        self.shell.peers.flush();
        again
    }

    /// Everything that is due by the clock and not by the node.
    fn keep_time(&mut self, now: Mono) {
        for (peer, host) in self.shell.peers.tick(self.shell.poll.registry(), now) {
            self.shell.workers.resolve(peer, host);
        }
        self.shell.peers.flush();
        if now >= self.space_at && !self.space_asked {
            self.space_at = now + SPACE_EVERY;
            self.space_asked = true;
            self.shell.workers.ask(Work::FreeBytes { dirs: self.shell.data_dirs.clone() });
        }
        if now >= self.patience_at {
            self.lose_patience(now);
        }
    }

    /// Closes connections whose greeting or request has been incomplete for too long, and does what else is due on them.
    fn lose_patience(&mut self, now: Mono) {
        self.patience_at = Mono::NEVER;
        for slot in self.inbound.used() {
            let Some(inbound) = self.inbound.at(slot) else { continue };
            if inbound.from.is_none() && inbound.since + GREETING <= now {
                self.inbound.free(slot);
            } else if inbound.from.is_none() {
                self.patience_at = self.patience_at.min(inbound.since + GREETING);
            }
        }
        for slot in self.clients.used() {
            let Some(client) = self.clients.at(slot) else { continue };
            if client.deadline() <= now {
                client.on_time(now, &mut self.calls);
                for call in self.calls.drain(..) {
                    self.shell.node.on_call(client.asker(&call), call, now);
                }
                // The next turn sends what was said.
                self.busy_clients.on_event(slot);
            }
            self.patience_at = self.patience_at.min(client.deadline());
        }
    }
}

/// Peer URLs of every other member.
pub(super) fn others<D: Disk>(node: &Node<D>) -> BTreeMap<MemberId, Vec<String>> {
    let others = node.known_members().into_iter().filter(|member| member.id != node.id());
    others.map(|member| (member.id, member.peer_urls)).collect()
}
