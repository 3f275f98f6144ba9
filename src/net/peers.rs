//! Connections between members. Every member dials every other and speaks on the connection it dialled; what
//! others say arrives on the connections they dialled. Two one-way connections cost a socket more than one
//! shared one, and save the question which of two simultaneous dials wins.
//!
//! Nothing is lost by dropping a message here: Raft sends again, and forwarded requests have deadlines. So
//! a queue has a bound, and what does not fit is dropped.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use log::{info, warn};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::names::Whereabouts;
use super::pipe::Pipe;
use crate::api::{PeerCall, metrics};
use crate::base::time::{MS, Nanos};
use crate::base::{MemberId, Mono, Rng};
use crate::node::Outbound;
use crate::proto::peer::{self, Frame, Hello};

/// Bytes that may wait for one peer. A snapshot's window and a full window of appends fit.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Redialling: after a failure, doubling, up to the longest.
const RETRY_FIRST: Nanos = 20 * MS;
const RETRY_LONGEST: Nanos = 500 * MS;

/// A member that was removed is spoken to for this long: it learns of it, if it is there.
const FAREWELL: Nanos = 3_000 * MS;

/// A connection must be welcomed within this.
const HANDSHAKE: Nanos = 2_000 * MS;

/// A dialled peer.
struct Peer {
    id: MemberId,
    whereabouts: Whereabouts,
    state: State,
    retry_after: Nanos,
    /// It was removed from the cluster, and is spoken to until then: it shall learn of it.
    leaving: Option<Mono>,
    /// What is counted of it.
    counts: metrics::Peer,
    /// The last complaint, so that a peer that stays away is named once and not twice a second.
    complained: bool,
}

enum State {
    /// It left; its place is free.
    Gone,
    Waiting {
        until: Mono,
    },
    /// No address is known yet: for a lookup.
    Nameless,
    /// Hello is sent, or will be when the socket is connected.
    Dialled {
        pipe: Pipe,
        since: Mono,
    },
    Up {
        pipe: Pipe,
    },
}

impl Peer {
    fn complain(&mut self, why: &str) {
        if !self.complained {
            warn!("peer {:x} at {} is not reachable: {why}", self.id, self.whereabouts.shown());
            self.complained = true;
        }
    }
}

/// All dialled peers.
pub(super) struct Peers {
    peers: Vec<Peer>,
    first_token: usize,
    hello: Hello,
    rng: Rng,
    /// Another member says that this one was removed.
    told_removed: bool,
}

impl Peers {
    /// Peers are registered under `first_token ..= first_token + MEMBERS_MAX`.
    pub(super) fn new(hello: Hello, first_token: usize, seed: u64) -> Peers {
        Peers { peers: Vec::new(), first_token, hello, rng: Rng::new(seed), told_removed: false }
    }

    /// The members to talk to from now on, this one left out. Who is not among them any more is spoken to for a
    /// little while.
    pub(super) fn set_members(&mut self, members: &BTreeMap<MemberId, Vec<String>>, now: Mono) {
        for peer in &mut self.peers {
            if !members.contains_key(&peer.id) {
                peer.leaving.get_or_insert(now + FAREWELL);
            }
        }
        for (&id, urls) in members {
            let there = |peer: &&mut Peer| peer.id == id && !matches!(peer.state, State::Gone);
            if let Some(peer) = self.peers.iter_mut().find(there) {
                peer.leaving = None;
                if peer.whereabouts.replace(urls) {
                    // A connection that works goes on; the next one goes to the new place.
                    peer.retry_after = RETRY_FIRST;
                    if matches!(peer.state, State::Waiting { .. } | State::Nameless) {
                        peer.state = State::Waiting { until: now };
                    }
                }
                continue;
            }
            let (whereabouts, state) = (Whereabouts::new(urls), State::Waiting { until: now });
            let (retry_after, complained, leaving) = (RETRY_FIRST, false, None);
            let counts = metrics::Peer { id, ..metrics::Peer::default() };
            let peer = Peer { id, whereabouts, state, retry_after, leaving, counts, complained };
            match self.peers.iter_mut().find(|peer| matches!(peer.state, State::Gone)) {
                Some(place) => *place = peer,
                None => self.peers.push(peer),
            }
        }
    }

    /// A member that was removed while it was away is told when it calls.
    pub(super) fn told_removed(&self) -> bool {
        self.told_removed
    }

    pub(super) fn owns(&self, token: Token) -> bool {
        (self.first_token..self.first_token + self.peers.len()).contains(&token.0)
    }

    /// When [`tick`](Self::tick) should run again.
    pub(super) fn deadline(&self) -> Mono {
        let due = |peer: &Peer| match &peer.state {
            State::Waiting { until } => *until,
            State::Dialled { since, .. } => *since + HANDSHAKE,
            State::Nameless => peer.whereabouts.look_up_at(),
            State::Gone | State::Up { .. } => Mono::NEVER,
        };
        let leaving = |peer: &Peer| match &peer.state {
            State::Gone => Mono::NEVER,
            _ => peer.leaving.unwrap_or(Mono::NEVER),
        };
        self.peers.iter().map(|peer| due(peer).min(leaving(peer))).min().unwrap_or(Mono::NEVER)
    }

    /// Dials whoever is due. Returns the names that should be looked up, of peers that are not there: what was heard
    /// of them before is tried meanwhile.
    pub(super) fn tick(&mut self, registry: &Registry, now: Mono) -> Vec<(MemberId, String)> {
        let mut names = Vec::new();
        for position in 0..self.peers.len() {
            if self.peers[position].leaving.is_some_and(|until| until <= now) {
                self.peers[position].state = State::Gone;
                continue;
            }
            match &self.peers[position].state {
                State::Waiting { until } if *until <= now => self.dial(position, registry, now),
                State::Nameless => {}
                State::Dialled { since, .. } if *since + HANDSHAKE <= now => {
                    self.failed(position, "no answer to the greeting", now);
                }
                _ => continue,
            }
            let peer = &mut self.peers[position];
            names.extend(peer.whereabouts.look_up(now).map(|name| (peer.id, name)));
        }
        names
    }

    /// What a name means, as far as it is known.
    pub(super) fn resolved(
        &mut self,
        id: MemberId,
        name: &str,
        found: &[SocketAddr],
        registry: &Registry,
        now: Mono,
    ) {
        let there = |peer: &Peer| peer.id == id && !matches!(peer.state, State::Gone);
        let Some(position) = self.peers.iter().position(there) else { return };
        let peer = &mut self.peers[position];
        peer.whereabouts.found(name, found, now);
        if !matches!(peer.state, State::Nameless) {
            return; // Whatever it waits for, the next address is taken then.
        }
        match peer.whereabouts.address() {
            Some(_) => self.dial(position, registry, now),
            None => peer.complain("its name cannot be resolved"),
        }
    }

    fn dial(&mut self, position: usize, registry: &Registry, now: Mono) {
        let Some(address) = self.peers[position].whereabouts.address() else {
            self.peers[position].state = State::Nameless;
            return;
        };
        let token = Token(self.first_token + position);
        let dialled = TcpStream::connect(address).and_then(|mut stream| {
            registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        match dialled {
            Ok(stream) => {
                let mut pipe = Pipe::between_members(stream);
                pipe.wait_until_writable();
                let hello = Hello { to: self.peers[position].id, ..self.hello };
                peer::encode(&Frame::Hello(hello), &mut pipe.output);
                self.peers[position].state = State::Dialled { pipe, since: now };
            }
            Err(error) => self.failed(position, &error.to_string(), now),
        }
    }

    fn failed(&mut self, position: usize, why: &str, now: Mono) {
        let peer = &mut self.peers[position];
        peer.complain(why);
        // Where it has answered it is looked for again first.
        if !matches!(peer.state, State::Up { .. }) {
            peer.whereabouts.pass_over();
        }
        let jitter = self.rng.below(peer.retry_after / 2 + 1);
        peer.state = State::Waiting { until: now + peer.retry_after + jitter };
        peer.retry_after = (peer.retry_after * 2).min(RETRY_LONGEST);
    }

    pub(super) fn on_event(&mut self, event: &mio::event::Event) {
        let position = event.token().0 - self.first_token;
        if let State::Dialled { pipe, .. } | State::Up { pipe } = &mut self.peers[position].state {
            pipe.on_event(event);
        }
    }

    /// Reads what peers answer to the greeting, and notices who is gone. Returns the members whose connection
    /// ended after it had been up.
    pub(super) fn read(&mut self, buffer: &mut [u8], now: Mono) -> Vec<MemberId> {
        let mut lost = Vec::new();
        for position in 0..self.peers.len() {
            let peer = &mut self.peers[position];
            let (State::Dialled { pipe, .. } | State::Up { pipe }) = &mut peer.state else { continue };
            while pipe.is_readable() && pipe.input.len() < buffer.len() {
                pipe.read(buffer);
            }
            let gone = pipe.ended || pipe.broken;
            let answer = peer::decode_greeting(&mut pipe.input);
            let was_up = matches!(peer.state, State::Up { .. });
            match answer {
                Ok(Some(Frame::Welcome(_))) if !was_up && !gone => self.welcomed(position),
                Ok(Some(Frame::Refused { why })) if why == peer::WHY_REMOVED => {
                    self.told_removed = true;
                    self.failed(position, &why, now);
                }
                Ok(Some(Frame::Refused { why })) => self.failed(position, &format!("it refuses: {why}"), now),
                Ok(Some(_)) => self.failed(position, "it speaks out of turn", now),
                Err(fault) => self.failed(position, &format!("it speaks another language: {fault}"), now),
                Ok(None) if gone => {
                    self.failed(position, if was_up { "the connection ended" } else { "no connection" }, now);
                }
                Ok(None) => continue,
            }
            if was_up {
                self.peers[position].counts.disconnects += 1;
                lost.push(self.peers[position].id);
            }
        }
        lost
    }

    fn welcomed(&mut self, position: usize) {
        let peer = &mut self.peers[position];
        let waiting = State::Waiting { until: Mono::NEVER };
        let State::Dialled { pipe, .. } = std::mem::replace(&mut peer.state, waiting) else {
            unreachable!("only a dialled peer is welcomed");
        };
        info!("peer {:x} is connected", peer.id);
        peer.complained = false;
        peer.retry_after = RETRY_FIRST;
        peer.whereabouts.reached();
        peer.state = State::Up { pipe };
    }

    /// Queues a message. What cannot be sent is dropped; if it was a request that would otherwise wait for
    /// its deadline, the answer that says so is returned.
    pub(super) fn send(&mut self, outbound: &Outbound) -> Option<(MemberId, PeerCall)> {
        let to = outbound.to();
        let up = self.peers.iter_mut().find(|peer| peer.id == to).and_then(|peer| match &mut peer.state {
            State::Up { pipe } if pipe.output.len() < QUEUE_BYTES_MAX => Some(pipe),
            _ => {
                peer.counts.dropped += 1;
                None
            }
        });
        match (up, outbound) {
            (Some(pipe), Outbound::Raft(message)) => peer::encode_message(message, &mut pipe.output),
            (Some(pipe), Outbound::Call { call, .. }) => peer::encode_call(call, &mut pipe.output),
            (None, Outbound::Call { call, .. }) => return refusal(call).map(|refusal| (to, refusal)),
            (None, Outbound::Raft(_)) => {}
        }
        None
    }

    pub(super) fn flush(&mut self) {
        for peer in &mut self.peers {
            if let State::Dialled { pipe, .. } | State::Up { pipe } = &mut peer.state {
                pipe.flush();
                peer.counts.sent_bytes += pipe.take_traffic().sent_bytes;
            }
        }
    }

    /// A member was heard on the connection that it dialled.
    pub(super) fn count_received(&mut self, from: MemberId, bytes: u64) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == from) {
            peer.counts.received_bytes += bytes;
        }
    }

    /// Everybody who is a member now.
    pub(super) fn counts(&self) -> Vec<metrics::Peer> {
        let there = |peer: &&Peer| !matches!(peer.state, State::Gone) && peer.leaving.is_none();
        let counts = |peer: &Peer| {
            let connected = matches!(peer.state, State::Up { .. });
            metrics::Peer { connected, ..peer.counts }
        };
        self.peers.iter().filter(there).map(counts).collect()
    }
}

/// What the addressee would have answered to a request that cannot reach it.
fn refusal(call: &PeerCall) -> Option<PeerCall> {
    match call {
        PeerCall::Propose { number, payloads, .. } => {
            let origins = payloads.iter().filter_map(|payload| crate::api::command::origin(payload));
            let request_ids = origins.map(|origin| origin.request_id).collect();
            Some(PeerCall::ProposeRefused { number: *number, request_ids, busy: false })
        }
        PeerCall::ReadIndex { id } => Some(PeerCall::ReadIndexReply { id: *id, index: None }),
        PeerCall::LeaseAsk { id, .. } => Some(PeerCall::LeaseAnswer { id: *id, answer: None }),
        PeerCall::SnapshotBegin { stream, .. } | PeerCall::SnapshotChunk { stream, .. } => {
            Some(PeerCall::SnapshotAbort { stream: *stream })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use mio::Poll;

    use super::*;
    use crate::base::time::SECOND;

    const ID: MemberId = 2;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn peers(urls: &[&str]) -> Peers {
        let mut peers = Peers::new(Hello::new(7, 1, 0, 1), 100, 3);
        set(&mut peers, urls, Mono(0));
        peers
    }

    fn set(peers: &mut Peers, urls: &[&str], now: Mono) {
        let urls = urls.iter().map(|url| (*url).to_string()).collect();
        peers.set_members(&BTreeMap::from([(ID, urls)]), now);
    }

    /// Both addresses of a name are dialled, one after the other; meanwhile the lookup that follows hangs for ever.
    #[test]
    fn known_addresses_are_dialled_in_turn_while_a_lookup_hangs() {
        let poll = Poll::new().unwrap();
        let ((one, first), (two, second)) = (listener(), listener());
        let mut peers = peers(&["http://a.test:1"]);
        let name = (ID, "a.test:1".to_string());
        assert_eq!(peers.tick(poll.registry(), Mono(0)), std::slice::from_ref(&name));
        assert_eq!(peers.deadline(), Mono::NEVER, "for the lookup");
        assert!(peers.tick(poll.registry(), Mono(100 * SECOND)).is_empty(), "one is under way");
        let mut now = Mono(200 * SECOND);
        peers.resolved(ID, &name.1, &[first, second], poll.registry(), now);
        one.accept().unwrap();

        let mut asked = Vec::new();
        for listener in [&two, &one, &two, &one] {
            peers.failed(0, "said the test", now);
            now = now + SECOND;
            asked.extend(peers.tick(poll.registry(), now));
            listener.accept().unwrap();
        }
        assert_eq!(asked, [name]);
    }

    #[test]
    fn a_name_without_an_address_is_looked_up_again() {
        let poll = Poll::new().unwrap();
        let (here, address) = listener();
        let mut peers = peers(&["http://a.test:1"]);
        let mut now = Mono(0);
        for _ in 0..3 {
            assert_eq!(peers.tick(poll.registry(), now).len(), 1);
            peers.resolved(ID, "a.test:1", &[], poll.registry(), now);
            now = peers.deadline();
            assert!(now < Mono::NEVER);
        }
        assert_eq!(peers.tick(poll.registry(), now).len(), 1);
        peers.resolved(ID, "a.test:1", &[address], poll.registry(), now);
        here.accept().unwrap();
    }

    /// An operator mends the URL of a member that cannot be found: nothing is waited for.
    #[test]
    fn a_new_url_is_dialled_at_once() {
        let poll = Poll::new().unwrap();
        let (here, address) = listener();
        let mut peers = peers(&["http://a.test:1"]);
        assert_eq!(peers.tick(poll.registry(), Mono(0)).len(), 1);
        set(&mut peers, &[&format!("http://{address}")], Mono(9));
        assert_eq!(peers.deadline(), Mono(9));
        assert!(peers.tick(poll.registry(), Mono(9)).is_empty());
        here.accept().unwrap();
        // What the old name meant comes too late.
        peers.resolved(ID, "a.test:1", &["127.0.0.1:1".parse().unwrap()], poll.registry(), Mono(10));
        assert!(matches!(peers.peers[0].state, State::Dialled { .. }));
    }
}
