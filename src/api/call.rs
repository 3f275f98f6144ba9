//! The envelope of requests and replies.

use super::{Body, Header, Request};

/// Somebody whose requests take effect in their order: a connection of the line protocol, one stream of gRPC. As the event
/// loop numbers them, with the [`Lane`] in the lowest bits.
pub type ConnId = u64;

/// The connection that this one is a party of: what is said to several of its parties leaves together.
pub fn connection_of(id: ConnId) -> ConnId {
    id & !ConnId::from(Lane::MAX)
}

/// Chosen by the connection's adapter, echoed by the node. Unique within a connection.
pub type Tag = u64;

/// Which of a connection's parties asks: each is somebody of its own to the node ([`ConnId`]). Those of one connection wait
/// for each other only if they share a lane. A protocol that has no such thing has lane 0.
pub type Lane = u16;

/// What a connection asks.
#[derive(Clone, Debug)]
pub enum Call {
    /// Answered by one or more replies that carry the tag.
    Request { tag: Tag, request: Request },
    /// The asker no longer waits: a cancelled watch. A write already proposed still happens.
    Cancel { tag: Tag },
    /// What is told on this lane is not taken: no more of it before `Release`, but for the answers to writes.
    Hold { lane: Lane },
    /// It is taken again.
    Release { lane: Lane },
    /// Nobody waits for anything on this lane any more. It may be used anew at once.
    Leave { lane: Lane },
}

/// What the node answers.
#[derive(Clone, Debug)]
pub struct Reply {
    pub conn: ConnId,
    pub tag: Tag,
    pub header: Header,
    pub body: Body,
    /// Further replies with this tag follow (watches, streams).
    pub more: bool,
}
