//! What the streams of one connection share: what they ask of the node, and what they know of it.

use std::sync::Arc;

use crate::api::{Call, Fault, Header, Lane, Request, Tag, validate};
use crate::base::Mono;
use crate::proto::line::ServerInfo;

/// A message may be so much longer than the keys and values in it (etcd's `grpcOverheadBytes`).
const MESSAGE_OVERHEAD_BYTES: usize = 512 << 10;

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
    next_number: u64,
}

impl Desk {
    pub fn new(info: Arc<ServerInfo>) -> Desk {
        let header = Header { cluster: info.cluster, member: info.member, revision: 0, term: 0 };
        Desk { info, now: Mono(0), calls: Vec::new(), header, owed: 0, is_full: false, next_number: 0 }
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
