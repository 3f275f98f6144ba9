//! What the streams of one connection share: what they ask of the node, and what they know of it.

use std::sync::Arc;

use crate::api::{Call, Fault, Header, Lane, Request, Tag, validate};
use crate::base::Mono;
use crate::proto::line::ServerInfo;

/// A message may be so much longer than the keys and values in it (etcd's `grpcOverheadBytes`).
const MESSAGE_OVERHEAD_BYTES: usize = 512 << 10;

/// Bytes of events that wait for their reader at which the node is told to hold their call: where few calls wait, and where many
/// do.
const EVENTS_BYTES_MAX: usize = 64 << 10;
const EVENTS_BYTES_MIN: usize = 4 << 10;

/// A tag is its lane, and a number that is never used again on the connection.
const NUMBER_BITS: u32 = Tag::BITS - Lane::BITS;

pub fn lane_of(tag: Tag) -> Lane {
    Lane::try_from(tag >> NUMBER_BITS).expect("so many bits are left")
}

pub struct Desk {
    pub info: Arc<ServerInfo>,
    pub now: Mono,
    pub calls: Vec<Call>,
    /// The newest that came with a reply: of answers that need no node.
    pub header: Header,
    /// Requests that the node has not answered, but for those that wait for a lock, and those that are held.
    pub owed: usize,
    /// So much waits for the client that what it asks for once is held, too.
    pub is_full: bool,
    /// Of events, one call's share of what the connection may have waiting.
    pub events_bytes_max: usize,
    next_number: u64,
}

impl Desk {
    pub fn new(info: Arc<ServerInfo>) -> Desk {
        let header = Header { cluster: info.cluster, member: info.member, revision: 0, term: 0 };
        let events_bytes_max = EVENTS_BYTES_MAX;
        let (now, calls, owed, is_full, next_number) = (Mono(0), Vec::new(), 0, false, 0);
        Desk { info, now, calls, header, owed, is_full, events_bytes_max, next_number }
    }

    /// So many calls have something that waits, and the events among it may come to so much.
    pub fn share(&mut self, events_bytes: usize, calls: usize) {
        self.events_bytes_max = (events_bytes / calls.max(1)).clamp(EVENTS_BYTES_MIN, EVENTS_BYTES_MAX);
    }

    /// Later ones of the lane are greater.
    pub fn new_tag(&mut self, lane: Lane) -> Tag {
        self.next_number += 1;
        Tag::from(lane) << NUMBER_BITS | self.next_number
    }

    /// Asks the node, through the gate.
    pub fn ask(&mut self, lane: Lane, request: Request) -> Result<Tag, Fault> {
        validate::check(&request, &self.info.limits)?;
        let tag = self.new_tag(lane);
        self.calls.push(Call::Request { tag, request });
        Ok(tag)
    }

    pub fn heard(&mut self, header: Header) {
        if header.revision >= self.header.revision {
            self.header = header;
        }
    }

    pub fn message_bytes_max(&self) -> usize {
        self.info.limits.request_bytes_max + MESSAGE_OVERHEAD_BYTES
    }
}
