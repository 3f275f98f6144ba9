//! The network: links with delays and cuts, and connections over them, as `net::peers` makes them.
//!
//! Every member dials every other and speaks on the connection that it dialled. A connection is a stream: what is
//! sent arrives whole and in order, in pieces cut anywhere, or late, or not at all because the stream has
//! ended. A cut link holds the stream up; when it heals, the old bytes come. With `frames` on, the network is
//! crueller than TCP: inside one connection each frame is lost, repeated and overtaken by itself.
//!
//! Who dies tells its partners (the kernel ends its connections), except when the power went: then they learn of
//! it when they speak to the machine that came back.
//!
//! Here is the state; what happens to it when an event comes is in `transport`.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;

use super::options::Options;
use super::stream::{exponential, stream};
use crate::base::time::{MS, Nanos};
use crate::base::{Mono, Rng};

/// Bytes that may wait for one peer, as in `net::peers` but smaller, so that the bound is met.
pub const QUEUE_BYTES_MAX: usize = 1 << 20;

/// Redialling, as in `net::peers`.
const RETRY_FIRST: Nanos = 20 * MS;
const RETRY_LONGEST: Nanos = 500 * MS;

/// What TCP waits before it sends a lost segment again.
const RESEND_AFTER: Nanos = 200 * MS;

pub type ConnNo = u64;

/// One direction between two machines. Machine 0 stands for all clients.
pub struct Link {
    rng: Rng,
    /// How many cuts lie on it now.
    pub cuts: u32,
    /// What it takes longer now.
    pub lag: Nanos,
}

/// How far one member's connection to another is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dial {
    Waiting { until: Mono },
    Dialled { conn: ConnNo, since: Mono },
    Up { conn: ConnNo },
}

/// A piece of a stream, or its end.
#[derive(Debug)]
pub enum Piece {
    Bytes(BytesMut),
    End,
}

/// One dialled connection. Bytes go from `from` to `to`; only the answer to the greeting comes back.
pub struct Conn {
    pub from: usize,
    pub to: usize,
    /// The acceptor's life that holds its end.
    pub accepted_by: Option<u64>,
    pub greeted: bool,
    /// Received, not decoded.
    pub input: BytesMut,
    /// Held up by a cut.
    pub held: VecDeque<Piece>,
    pub held_bytes: usize,
    pub held_answer: Option<Answer>,
    /// Nothing arrives before this: a stream keeps its order.
    pub arrives: Mono,
    /// It will be reset when the next piece arrives.
    pub doomed: bool,
}

/// What the acceptor's side says to the dialler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Welcome,
    Reset,
    /// The dialler was removed from the cluster.
    Removed,
}

pub struct Net {
    machines: usize,
    links: Vec<Link>,
    dials: Vec<(Dial, Nanos)>,
    pub conns: BTreeMap<ConnNo, Conn>,
    next_conn: ConnNo,
    pub frames: bool,
    loss: u64,
    repeat: u64,
    overtake: u64,
    latency: Nanos,
}

impl Net {
    pub fn new(options: &Options) -> Net {
        let machines = options.machines() as usize + 1;
        let link = |number: usize| Link { rng: stream(options.seed, "link", number as u64), cuts: 0, lag: 0 };
        Net {
            machines,
            links: (0..machines * machines).map(link).collect(),
            dials: vec![(Dial::Waiting { until: Mono(0) }, RETRY_FIRST); machines * machines],
            conns: BTreeMap::new(),
            next_conn: 1,
            frames: options.frames,
            loss: options.loss,
            repeat: options.repeat,
            overtake: options.overtake,
            latency: options.latency,
        }
    }

    /// From here on the network loses, repeats and mixes up nothing by itself.
    pub fn calm(&mut self) {
        (self.loss, self.repeat, self.overtake) = (0, 0, 0);
    }

    pub fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.machines + to]
    }

    pub fn passes(&self, from: usize, to: usize) -> bool {
        self.links[from * self.machines + to].cuts == 0
    }

    /// How long something takes on its way.
    pub fn delay(&mut self, from: usize, to: usize) -> Nanos {
        let latency = self.latency;
        let link = self.link(from, to);
        latency / 2 + exponential(&mut link.rng, latency / 2) + link.lag
    }

    fn chance(&mut self, from: usize, to: usize, millionths: u64) -> bool {
        millionths > 0 && self.link(from, to).rng.below(1_000_000) < millionths
    }

    /// A frame by itself: when each of its copies arrives; never if it is lost. Those that nothing delays keep
    /// their order.
    pub fn frame_arrives(&mut self, number: ConnNo, now: Mono) -> Vec<Mono> {
        let (from, to) = (self.conns[&number].from, self.conns[&number].to);
        if self.chance(from, to, self.loss) {
            return Vec::new();
        }
        let copies = if self.chance(from, to, self.repeat) { 2 } else { 1 };
        let mut arrivals = Vec::with_capacity(copies);
        for _ in 0..copies {
            let delay = self.delay(from, to);
            if self.chance(from, to, self.overtake) {
                arrivals.push(now + delay + self.link(from, to).rng.below(100 * MS));
                continue;
            }
            let conn = self.conns.get_mut(&number).expect("it was just looked at");
            conn.arrives = conn.arrives.max(now + delay);
            arrivals.push(conn.arrives);
        }
        arrivals
    }

    /// When the next piece of a stream arrives, if it leaves now.
    pub fn piece_arrives(&mut self, number: ConnNo, now: Mono) -> Mono {
        let (from, to) = (self.conns[&number].from, self.conns[&number].to);
        let mut delay = self.delay(from, to);
        if self.chance(from, to, self.loss) {
            delay += RESEND_AFTER;
        }
        let conn = self.conns.get_mut(&number).expect("it was just looked at");
        conn.arrives = conn.arrives.max(now + delay);
        conn.arrives
    }

    /// Where a piece of so many bytes falls apart on its way, if it does.
    pub fn split(&mut self, from: usize, to: usize, bytes: usize) -> Option<usize> {
        let rng = &mut self.link(from, to).rng;
        (bytes > 1 && rng.one_in(16)).then(|| rng.between(1, bytes as u64 - 1) as usize)
    }

    /// How long a stream that was held up needs to find out that it no longer is.
    pub fn resume_delay(&mut self, from: usize, to: usize) -> Nanos {
        self.link(from, to).rng.below(RESEND_AFTER)
    }

    /// How much of the last piece of a reset connection still arrives.
    pub fn torn(&mut self, from: usize, to: usize, bytes: usize) -> usize {
        self.link(from, to).rng.below(bytes as u64 + 1) as usize
    }

    pub fn dial_state(&self, from: usize, to: usize) -> Dial {
        self.dials[from * self.machines + to].0
    }

    pub fn set_dial(&mut self, from: usize, to: usize, state: Dial) {
        let (old, retry) = &mut self.dials[from * self.machines + to];
        if matches!(state, Dial::Up { .. }) {
            *retry = RETRY_FIRST;
        }
        *old = state;
    }

    /// A new process knows nothing of failures before it.
    pub fn forget_dials(&mut self, from: usize, now: Mono) {
        for to in 1..self.machines {
            self.dials[from * self.machines + to] = (Dial::Waiting { until: now }, RETRY_FIRST);
        }
    }

    /// The dial has failed, or its connection has ended; when to try again.
    pub fn dial_again(&mut self, from: usize, to: usize, now: Mono) -> Mono {
        let (state, retry) = &mut self.dials[from * self.machines + to];
        let until = now + *retry + self.links[from * self.machines + to].rng.below(*retry / 2 + 1);
        *retry = (*retry * 2).min(RETRY_LONGEST);
        *state = Dial::Waiting { until };
        until
    }

    pub fn connect(&mut self, from: usize, to: usize) -> ConnNo {
        // Half-open leftovers of an earlier life say nothing any more.
        self.conns.retain(|_, conn| conn.from != from || conn.to != to);
        let number = self.next_conn;
        self.next_conn += 1;
        let conn = Conn {
            from,
            to,
            accepted_by: None,
            greeted: false,
            input: BytesMut::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            held_answer: None,
            arrives: Mono(0),
            doomed: false,
        };
        self.conns.insert(number, conn);
        number
    }

    /// The connections of a pair of machines, in one direction.
    pub fn between(&self, from: usize, to: usize) -> Vec<ConnNo> {
        self.conns.iter().filter(|(_, c)| c.from == from && c.to == to).map(|(&number, _)| number).collect()
    }
}
