//! Client connections: an adapter each, budgets, and when to close.

use std::sync::Arc;

use bytes::BytesMut;

use super::pipe::Pipe;
use crate::api::{Call, Code, ConnId, Fault, Reply};
use crate::base::Mono;
use crate::base::time::{Nanos, SECOND};
use crate::proto::Adapter;
use crate::proto::line::{LineAdapter, ServerInfo};
use crate::proto::sniff::{self, Sniffed, Sniffer};

/// Unsent reply bytes at which a connection is no longer listened to: a slow reader slows itself only.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Unanswered requests of one connection at which it is no longer listened to.
const OWED_MAX: usize = 4_096;

/// A request that has begun must be complete within this.
const REQUEST_PATIENCE: Nanos = 30 * SECOND;

pub(super) struct Client {
    pub(super) id: ConnId,
    pub(super) pipe: Pipe,
    /// None until the first bytes have told the protocol.
    adapter: Option<LineAdapter>,
    sniffer: Sniffer,
    /// Nothing more is decoded: a protocol error, or the member is stopping.
    deaf: bool,
    /// Since when a request is incomplete.
    partial_since: Option<Mono>,
}

impl Client {
    pub(super) fn new(id: ConnId, pipe: Pipe) -> Client {
        Client { id, pipe, adapter: None, sniffer: Sniffer::default(), deaf: false, partial_since: None }
    }

    /// Whether the connection should be read and decoded now.
    pub(super) fn listens(&self) -> bool {
        !self.deaf && !self.is_congested()
    }

    fn is_congested(&self) -> bool {
        self.pipe.output.len() >= OUTPUT_BYTES_MAX
            || self.adapter.as_ref().is_some_and(|adapter| adapter.owed() >= OWED_MAX)
    }

    /// The adapter paused because its output was full, and it no longer is.
    pub(super) fn wants_decoding(&self) -> bool {
        self.listens() && self.adapter.as_ref().is_some_and(LineAdapter::stalled)
    }

    /// Decodes what has arrived.
    pub(super) fn decode(&mut self, info: &Arc<ServerInfo>, calls: &mut Vec<Call>, now: Mono) {
        if self.deaf || self.pipe.input.is_empty() {
            return;
        }
        if self.adapter.is_none() && !self.sniff(info) {
            return;
        }
        let Some(adapter) = &mut self.adapter else { return };
        if adapter.decode(&mut self.pipe.input, calls, &mut self.pipe.output).is_err() || adapter.closing() {
            self.deaf = true;
            self.pipe.input = BytesMut::new();
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

    /// Tells the protocol by the first bytes. False while it cannot be told, or if it is not spoken here.
    fn sniff(&mut self, info: &Arc<ServerInfo>) -> bool {
        match self.sniffer.sniff(&self.pipe.input) {
            Sniffed::NeedMore => false,
            Sniffed::Line => {
                self.adapter = Some(LineAdapter::new(info.clone(), self.id));
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
        }
    }

    /// When an incomplete request will have taken too long.
    pub(super) fn deadline(&self) -> Mono {
        self.partial_since.map_or(Mono::NEVER, |since| since + REQUEST_PATIENCE)
    }

    pub(super) fn give_up_if_late(&mut self, now: Mono) {
        if self.deadline() <= now && !self.deaf {
            let fault = Fault::new(Code::Err, "protocol error: the request was not complete within 30 s");
            if let Some(adapter) = &mut self.adapter {
                adapter.give_up(&fault, &mut self.pipe.output);
            }
            self.deaf = true;
        }
    }

    /// The member is stopping: what was asked is answered, nothing more is heard.
    pub(super) fn stop_listening(&mut self) {
        self.deaf = true;
    }

    /// Nothing is owed and nothing will come.
    pub(super) fn is_over(&self) -> bool {
        let owed = self.adapter.as_ref().is_some_and(|adapter| adapter.owed() > 0);
        self.pipe.broken || ((self.deaf || self.pipe.ended) && !owed && self.pipe.output.is_empty())
    }
}
