//! A member's end of a connection: the adapter that ships, driven as `net::clients` and `net::stop` drive it.

use std::sync::Arc;

use bytes::BytesMut;

use super::Limits;
use crate::api::{Call, Fault, Lane, Reply};
use crate::base::Mono;
use crate::base::time::{MS, Nanos, SECOND};
use crate::proto::Adapter;
use crate::proto::etcd::Room;
use crate::proto::grpc::{GrpcAdapter, Settings};
use crate::proto::line::ServerInfo;

/// As in `net::clients`: unanswered requests at which nothing more is read. A smaller number, so that it is met.
const OWED_MAX: usize = 3;

/// Frames of a turn: a call is two.
const FRAMES_MAX: usize = 3;

/// How long a silent client is not asked whether it is there, and how long it may take to say so.
const PING_EVERY: Nanos = 3 * SECOND;
const PING_PATIENCE: Nanos = 2 * SECOND;

/// As in `net::stop`: how long a client may take to close its side.
const LINGER: Nanos = 300 * MS;

/// So little that a client which reads late fills it.
const KEPT_BYTES_MAX: usize = 4 << 10;

/// Two watches that are not read have less each than one has.
const EVENTS_BYTES_MAX: usize = 8 << 10;

pub struct Shell {
    adapter: GrpcAdapter,
    /// What the kernel has received.
    pub input: BytesMut,
    output: BytesMut,
    /// Nothing more is decoded.
    is_deaf: bool,
    parted_at: Option<Mono>,
    /// The client has ended its side.
    pub has_ended: bool,
    pub is_broken: bool,
}

impl Shell {
    pub fn new((cluster, member): (u64, u64), limits: Limits, streams_max: u32, room_bytes: usize) -> Shell {
        let info = ServerInfo { cluster, member, version: "sim", limits, config: Vec::new() };
        let settings = Settings {
            streams_max,
            ping_every: PING_EVERY,
            ping_patience: PING_PATIENCE,
            frames_max: FRAMES_MAX,
            kept_bytes_max: KEPT_BYTES_MAX,
            events_bytes_max: EVENTS_BYTES_MAX,
            room: Arc::new(Room::new(room_bytes)),
            ..Settings::default()
        };
        Shell {
            adapter: GrpcAdapter::new(Arc::new(info), Arc::new(settings)),
            input: BytesMut::new(),
            output: BytesMut::new(),
            is_deaf: false,
            parted_at: None,
            has_ended: false,
            is_broken: false,
        }
    }

    pub fn lane_of(&self, call: &Call) -> Lane {
        match call {
            Call::Request { tag, .. } | Call::Cancel { tag } => self.adapter.lane_of(*tag),
            Call::Hold { lane } | Call::Release { lane } | Call::Leave { lane } => *lane,
        }
    }

    /// Decodes what has come, if it is time to.
    pub fn decode(&mut self, now: Mono, calls: &mut Vec<Call>) {
        if self.is_deaf {
            return self.input.clear();
        }
        if (self.input.is_empty() && !self.adapter.stalled()) || !self.listens() {
            return;
        }
        self.adapter.set_time(now, calls, &mut self.output);
        let refused = self.adapter.decode(&mut self.input, calls, &mut self.output).is_err();
        if refused || self.adapter.closing() {
            self.hear_no_more();
        }
    }

    fn listens(&self) -> bool {
        !self.is_deaf && self.adapter.owed() < OWED_MAX && !self.adapter.awaits_answers()
    }

    /// More has come than the adapter takes in one turn.
    pub fn wants_decoding(&self) -> bool {
        self.listens() && self.adapter.stalled()
    }

    pub fn encode(&mut self, reply: Reply) {
        self.adapter.encode(reply, &mut self.output);
    }

    pub fn deadline(&self) -> Mono {
        let lingers = self.parted_at.map_or(Mono::NEVER, |since| since + LINGER);
        self.adapter.deadline().min(lingers)
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Mono, calls: &mut Vec<Call>) {
        if self.adapter.deadline() <= now {
            self.adapter.set_time(now, calls, &mut self.output);
        }
        if self.parted_at.is_some_and(|since| since + LINGER <= now) {
            match self.owes_nothing() && self.output.is_empty() {
                true => self.is_broken = true,
                false => self.parted_at = Some(now),
            }
        }
    }

    /// Moves what is to be sent to the kernel's buffer, which takes so much.
    pub fn flush(&mut self, kernel: &mut BytesMut, bytes_max: usize, calls: &mut Vec<Call>) {
        loop {
            self.adapter.write(calls, &mut self.output);
            self.is_broken |= self.adapter.is_deserted();
            if self.adapter.closing() {
                self.hear_no_more();
            }
            let had_something = !self.output.is_empty();
            let room = bytes_max.saturating_sub(kernel.len());
            let taken = self.output.split_to(room.min(self.output.len()));
            kernel.extend_from_slice(&taken);
            if !had_something || !self.output.is_empty() {
                return;
            }
        }
    }

    fn hear_no_more(&mut self) {
        self.is_deaf = true;
        self.input.clear();
    }

    /// Something waits for room in the kernel's buffer.
    pub fn wants_room(&self) -> bool {
        !self.output.is_empty() || self.adapter.has_unwritten()
    }

    fn owes_nothing(&self) -> bool {
        self.adapter.owed() == 0 && !self.adapter.has_unwritten()
    }

    /// It has said goodbye, or will not be understood: nothing follows what is in the kernel's buffer.
    pub fn has_said_all(&self) -> bool {
        self.parted_at.is_some() && self.owes_nothing() && self.output.is_empty()
    }

    pub fn is_over(&self) -> bool {
        let silent = if self.parted_at.is_some() { self.has_ended } else { self.is_deaf || self.has_ended };
        self.is_broken || (silent && self.owes_nothing() && self.output.is_empty() && !self.wants_decoding())
    }

    /// The connection goes: what the node is told.
    pub fn leave(&mut self, calls: &mut Vec<Call>) {
        self.adapter.leave(calls);
    }

    pub fn prepare_to_part(&mut self) {
        self.adapter.prepare_to_part(&Fault::shutdown());
    }

    /// `anyway`: whatever is owed. Else only where nothing is.
    pub fn say_goodbye(&mut self, anyway: bool, now: Mono) {
        if self.is_deaf || !(anyway || (self.owes_nothing() && self.input.is_empty())) {
            return;
        }
        self.adapter.give_up(&Fault::shutdown(), &mut self.output);
        self.hear_no_more();
        self.parted_at = Some(now);
    }
}
