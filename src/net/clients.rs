//! Client connections: an adapter each, budgets, and when to close.

use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use super::pipe::{Pipe, Traffic};
use super::slots::on_lane;
use crate::api::{Call, Code, ConnId, Fault, Reply};
use crate::base::Mono;
use crate::base::time::{Nanos, SECOND};
use crate::proto::Adapter;
use crate::proto::grpc::{self, GrpcAdapter};
use crate::proto::http::{HttpAdapter, Scope, Site};
use crate::proto::line::{LineAdapter, ServerInfo};
use crate::proto::sniff::{self, Sniffed, Sniffer};

/// What one read of a client's connection brings, at most: who sends a lot takes some of every turn, and not much of one.
pub(super) const READ_BYTES: usize = 64 << 10;

/// Unsent reply bytes at which a connection is no longer listened to: a slow reader slows itself only.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Unanswered requests of one connection at which it is no longer listened to.
const OWED_MAX: usize = 4_096;

/// Bytes of requests that are not complete, of all connections together.
const INPUT_BYTES_MAX: usize = 256 << 20;

/// A connection that holds no more than this is not asked to help when it is too much.
const SMALL_INPUT_BYTES: usize = 16 << 10;

/// Of what a client sends while it waits for a lock, so much is read: as long as it is read, its end is noticed.
const WAITING_INPUT_BYTES_MAX: usize = 64 << 10;

/// A request that has begun must be complete within this.
const REQUEST_PATIENCE: Nanos = 30 * SECOND;

/// Whoever was refused has this long to take the refusal: what it still sends is read meanwhile, and thrown away.
const REFUSAL_LINGER: Nanos = SECOND;

/// What adapters are made with.
pub(super) struct Spoken {
    pub(super) info: Arc<ServerInfo>,
    pub(super) grpc: Arc<grpc::Settings>,
    pub(super) site: Rc<Site>,
    /// Ports for clients speak HTTP/1, too: there are no ports for it alone.
    pub(super) http: bool,
}

pub(super) struct Client {
    pub(super) id: ConnId,
    pub(super) pipe: Pipe,
    /// None until the first bytes have told the protocol.
    adapter: Option<Box<dyn Adapter>>,
    sniffer: Sniffer,
    /// Nothing more is decoded: a protocol error, or the member is stopping.
    deaf: bool,
    /// Since when a request is incomplete.
    partial_since: Option<Mono>,
    /// When the last word was said: a refusal, or the member is stopping.
    parted_at: Option<Mono>,
    /// For how long after it the client may take to close its side; who stops says that itself.
    linger: Nanos,
    /// The node was told that answers are not taken.
    held: bool,
    /// They were not, and some are still owed: nothing more is asked for before these are out. One small request can
    /// have a large answer, and how large is known only then.
    lags: bool,
    /// So many bytes of input were last counted in the sum over all connections.
    counted_bytes: usize,
}

impl Client {
    pub(super) fn new(id: ConnId, pipe: Pipe) -> Client {
        Client {
            id,
            pipe,
            adapter: None,
            sniffer: Sniffer::default(),
            deaf: false,
            partial_since: None,
            parted_at: None,
            linger: Nanos::MAX,
            held: false,
            lags: false,
            counted_bytes: 0,
        }
    }

    /// Whether the connection should be read and decoded now.
    pub(super) fn listens(&self) -> bool {
        !self.deaf
            && !self.is_congested()
            && (!self.waits() || self.pipe.input.len() < WAITING_INPUT_BYTES_MAX)
    }

    /// Whether the node should answer no more before some of it is taken, if that is news.
    pub(super) fn change_of_hold(&mut self) -> Option<bool> {
        let hold = self.is_overfull();
        self.lags = hold || (self.lags && !self.owes_nothing());
        (std::mem::replace(&mut self.held, hold) != hold).then_some(hold)
    }

    fn is_overfull(&self) -> bool {
        let kept_bytes = self.adapter.as_ref().map_or(0, |adapter| adapter.kept_bytes());
        self.pipe.output.len() + kept_bytes >= OUTPUT_BYTES_MAX
    }

    fn is_congested(&self) -> bool {
        self.lags
            || self.is_overfull()
            || self
                .adapter
                .as_ref()
                .is_some_and(|adapter| adapter.owed() >= OWED_MAX || adapter.awaits_answers())
    }

    /// The adapter paused because its output was full, and it no longer is.
    pub(super) fn wants_decoding(&self) -> bool {
        self.listens() && !self.waits() && self.stalled()
    }

    fn stalled(&self) -> bool {
        self.adapter.as_ref().is_some_and(|adapter| adapter.stalled())
    }

    fn waits(&self) -> bool {
        self.adapter.as_ref().is_some_and(|adapter| adapter.waits())
    }

    /// Decodes what has arrived. A client that has ended its side waits for nothing that could take long.
    pub(super) fn decode(&mut self, spoken: &Spoken, calls: &mut Vec<Call>, now: Mono) {
        self.decode_input(spoken, calls, now);
        if self.pipe.ended
            && let Some(adapter) = &mut self.adapter
        {
            adapter.cancel(calls);
        }
    }

    fn decode_input(&mut self, spoken: &Spoken, calls: &mut Vec<Call>, now: Mono) {
        if self.deaf || (self.pipe.input.is_empty() && !self.stalled()) {
            return;
        }
        if self.adapter.is_none() && !self.sniff(spoken) {
            return;
        }
        let Some(adapter) = &mut self.adapter else { return };
        adapter.set_time(now, calls, &mut self.pipe.output);
        let refused = adapter.decode(&mut self.pipe.input, calls, &mut self.pipe.output).is_err();
        let ends = refused || adapter.closing();
        if refused {
            // Closing while it still sends would be a reset, which takes the refusal away from it.
            self.parted_at = Some(now);
            self.linger = REFUSAL_LINGER;
        }
        if ends {
            return self.hear_no_more();
        }
        let rests = self.pipe.input.is_empty() || adapter.stalled();
        self.partial_since = match (rests, self.partial_since) {
            (true, _) => None,
            (false, None) => Some(now),
            (false, since) => {
                if calls.is_empty() {
                    since
                } else {
                    Some(now)
                }
            }
        };
    }

    /// Nothing else is spoken on this connection, or its first bytes said so.
    pub(super) fn speak_http(&mut self, spoken: &Spoken, scope: Scope) {
        self.adapter = Some(Box::new(HttpAdapter::new(spoken.site.clone(), scope)));
    }

    /// Bytes that came and went since the last call.
    pub(super) fn take_traffic(&mut self) -> Traffic {
        self.pipe.take_traffic()
    }

    /// Tells the protocol by the first bytes. False while it cannot be told, or if it is not spoken here.
    fn sniff(&mut self, spoken: &Spoken) -> bool {
        match self.sniffer.sniff(&self.pipe.input) {
            Sniffed::NeedMore => false,
            Sniffed::Line => {
                self.adapter = Some(Box::new(LineAdapter::new(spoken.info.clone(), self.id)));
                true
            }
            Sniffed::Http1 if spoken.http => {
                self.speak_http(spoken, Scope::Clients);
                true
            }
            Sniffed::Http2 => {
                self.adapter = Some(Box::new(GrpcAdapter::new(spoken.info.clone(), spoken.grpc.clone())));
                true
            }
            other => {
                self.pipe.output.extend_from_slice(sniff::refusal(other));
                self.deaf = true;
                self.pipe.input = BytesMut::new();
                false
            }
        }
    }

    pub(super) fn encode(&mut self, reply: Reply) {
        if let Some(adapter) = &mut self.adapter {
            adapter.encode(reply, &mut self.pipe.output);
            if adapter.closing() {
                self.hear_no_more();
            }
        }
    }

    /// Under which id the node knows who asks this.
    pub(super) fn asker(&self, call: &Call) -> ConnId {
        let lane = match call {
            Call::Request { tag, .. } | Call::Cancel { tag } => {
                self.adapter.as_ref().map_or(0, |adapter| adapter.lane_of(*tag))
            }
            Call::Hold { lane } | Call::Release { lane } | Call::Leave { lane } => *lane,
        };
        on_lane(self.id, lane)
    }

    /// The connection goes: what the node is told. False: to be called again, see [`Adapter::leave`].
    pub(super) fn leave(&mut self, calls: &mut Vec<Call>) -> bool {
        self.adapter.as_mut().is_none_or(|adapter| adapter.leave(calls))
    }

    /// When there is something to do by the clock.
    pub(super) fn deadline(&self) -> Mono {
        let of_adapter = self.adapter.as_ref().map_or(Mono::NEVER, |adapter| adapter.deadline());
        self.patience().min(of_adapter).min(self.end_of_linger())
    }

    fn end_of_linger(&self) -> Mono {
        self.parted_at.filter(|_| !self.pipe.broken).map_or(Mono::NEVER, |since| since + self.linger)
    }

    /// Nothing more is decoded.
    fn hear_no_more(&mut self) {
        if !self.deaf {
            self.deaf = true;
            self.partial_since = None;
            self.pipe.input = BytesMut::new();
        }
    }

    /// When an incomplete request will have taken too long.
    fn patience(&self) -> Mono {
        self.partial_since.map_or(Mono::NEVER, |since| since + REQUEST_PATIENCE)
    }

    /// Does what is due.
    pub(super) fn on_time(&mut self, now: Mono, calls: &mut Vec<Call>) {
        if let Some(adapter) = &mut self.adapter
            && adapter.deadline() <= now
        {
            adapter.set_time(now, calls, &mut self.pipe.output);
        }
        if self.end_of_linger() <= now {
            // What was asked for before the refusal is still answered.
            match self.has_answered() {
                true => self.pipe.broken = true,
                false => self.parted_at = Some(now),
            }
        }
        if self.patience() <= now && !self.deaf {
            let why = "protocol error: the request was not complete within 30 s";
            self.give_up(&Fault::new(Code::Err, why));
        }
    }

    fn give_up(&mut self, fault: &Fault) {
        if let Some(adapter) = &mut self.adapter {
            adapter.give_up(fault, &mut self.pipe.output);
        }
        self.hear_no_more();
    }

    /// Brings the sum of all connections' input up to date. Where it is too much, whoever has a large request under
    /// way is told to come again: a thousand of them, each within its bound and none complete, would fill the memory.
    pub(super) fn count_input(&mut self, all_bytes: &mut usize) {
        let of_adapter = self.adapter.as_ref().map_or(0, |adapter| adapter.input_bytes());
        let bytes = self.pipe.input.len() + of_adapter;
        *all_bytes = *all_bytes - self.counted_bytes + bytes;
        self.counted_bytes = bytes;
        if *all_bytes > INPUT_BYTES_MAX && bytes > SMALL_INPUT_BYTES && !self.deaf {
            self.give_up(&Fault::busy());
            *all_bytes -= std::mem::take(&mut self.counted_bytes);
        }
    }

    /// The connection goes.
    pub(super) fn uncount_input(&self, all_bytes: &mut usize) {
        *all_bytes -= self.counted_bytes;
    }

    /// Nothing is owed, and nothing is known to have come that could make it so.
    pub(super) fn is_quiet(&self) -> bool {
        self.owes_nothing()
            && self.pipe.input.is_empty()
            && !self.pipe.is_readable()
            && !self.wants_decoding()
    }

    /// All answers are in the output.
    fn owes_nothing(&self) -> bool {
        self.adapter.as_ref().is_none_or(|adapter| adapter.owed() == 0 && !adapter.has_unwritten())
    }

    /// The member is stopping: behind all answers goes the word that this was the last, and nothing more
    /// is heard. A connection that has ended for another reason ends as it would have.
    pub(super) fn say_goodbye(&mut self, spoken: &Spoken, now: Mono) {
        if self.deaf {
            return;
        }
        let line = || Box::new(LineAdapter::new(spoken.info.clone(), self.id)) as Box<dyn Adapter>;
        let adapter = self.adapter.get_or_insert_with(line);
        adapter.give_up(&Fault::shutdown(), &mut self.pipe.output);
        self.hear_no_more();
        self.parted_at = Some(now);
    }

    /// It may go elsewhere before it is told goodbye.
    pub(super) fn prepare_to_part(&mut self) {
        if let Some(adapter) = &mut self.adapter {
            adapter.prepare_to_part(&Fault::shutdown());
        }
    }

    pub(super) fn has_parted(&self) -> bool {
        self.parted_at.is_some()
    }

    /// What comes behind the last word is taken off the socket, or closing it would make a reset of it. One read at a
    /// time: it may be a flood.
    pub(super) fn skip_input(&mut self, buffer: &mut [u8]) {
        if self.pipe.is_readable() {
            self.pipe.read(buffer);
            self.pipe.input.clear();
        }
    }

    /// There is more to skip.
    pub(super) fn skips(&self) -> bool {
        self.has_parted() && self.pipe.is_readable()
    }

    /// The client has had the time to close its side.
    pub(super) fn end_lingering(&mut self, now: Mono, linger: Nanos) {
        if self.parted_at.is_some_and(|since| since + linger <= now) && self.has_answered() {
            self.pipe.broken = true;
        }
    }

    /// Sends what is queued, and the end of it behind the last word.
    pub(super) fn flush(&mut self, calls: &mut Vec<Call>) {
        loop {
            if let Some(adapter) = &mut self.adapter {
                adapter.write(calls, &mut self.pipe.output);
                self.pipe.broken |= adapter.is_deserted();
                if adapter.closing() {
                    self.hear_no_more();
                }
            }
            let had_something = !self.pipe.output.is_empty();
            if !self.has_parted() || !self.owes_nothing() {
                self.pipe.flush();
            } else if !self.pipe.flush_last() {
                self.pipe.end_output();
            }
            // The socket has taken everything: perhaps there is more.
            if !had_something || !self.pipe.output.is_empty() {
                return;
            }
        }
    }

    /// Everything that was owed has been sent.
    fn has_answered(&self) -> bool {
        self.owes_nothing() && self.pipe.output.is_empty()
    }

    /// Nothing is owed and nothing will come.
    pub(super) fn is_over(&self) -> bool {
        let silent = if self.has_parted() { self.pipe.ended } else { self.deaf || self.pipe.ended };
        // What came behind a lock is still to be read.
        self.pipe.broken || (silent && self.has_answered() && !self.wants_decoding())
    }
}
