//! The envelope of requests and replies.

use super::{Body, Header, Request};

/// A client connection, as the event loop numbers them. Never reused within a process.
pub type ConnId = u64;

/// Chosen by the connection's adapter, echoed by the node: the line protocol counts, gRPC will use stream ids.
pub type Tag = u64;

/// What a connection asks.
#[derive(Clone, Debug)]
pub enum Call {
    /// Answered by one or more replies that carry the tag.
    Request { tag: Tag, request: Request },
    /// The asker no longer waits: a cancelled watch, a reset stream. A write already proposed still happens.
    Cancel { tag: Tag },
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
