//! Bytes to vocabulary and back. An adapter owns protocol state and never a socket.

use bytes::BytesMut;

use crate::api::{Call, Fault, Lane, Reply, Tag};
use crate::base::Mono;

// What a call of etcd's v3 API means.
pub mod etcd;

// How it travels: gRPC.
pub mod grpc;

// What clients speak: RESP and typed lines.
pub mod line;

// What monitors ask: health, metrics, the version.
pub mod http;

// What members speak among themselves.
pub mod peer;

// Which protocol a fresh connection speaks.
pub mod sniff;

/// Translates between one connection's bytes and calls.
///
/// Whoever owns the socket calls, in each turn in which the connection has something to do: `set_time` and `decode` with what
/// was read; `encode` for each reply; and `write`, before and after it sends, for as long as `write` has something to add.
/// A protocol whose answers leave in the order of its requests needs no `write`: its `encode` has written everything.
pub trait Adapter {
    /// Consumes whole requests from the front of `input` and pushes what they ask for. Whatever needs no
    /// node (PING, a malformed command) is answered into `output` as soon as the replies before it are out.
    /// An Err is a protocol error: its farewell is already in `output` behind the replies that are owed, and
    /// the connection closes once these are written; nothing more will be decoded.
    ///
    /// Whole requests may be left in `input` while the adapter is [`stalled`](Adapter::stalled).
    fn decode(
        &mut self,
        input: &mut BytesMut,
        calls: &mut Vec<Call>,
        output: &mut BytesMut,
    ) -> Result<(), Fault>;

    /// Takes one reply of the node and appends the wire form of all replies that are now in order.
    fn encode(&mut self, reply: Reply, output: &mut BytesMut);

    /// Ends the conversation from our side (a request that is never completed): the farewell stands behind
    /// the replies that are owed, and nothing more will be decoded.
    fn give_up(&mut self, fault: &Fault, output: &mut BytesMut);

    /// Calls that have no reply yet.
    fn owed(&self) -> usize;

    /// So much is owed that nothing more is decoded: read no further, and call `decode` again (also without
    /// new bytes) when replies have come and this is false again.
    fn stalled(&self) -> bool;

    /// The last request may be answered late, and nothing behind it is decoded before. `decode` has something to do
    /// again when it is answered. While it is not, `cancel` says that the client will ask for nothing more.
    fn waits(&self) -> bool;

    /// The client sends nothing more: pushes the end of what it [`waits`](Adapter::waits) for, once.
    fn cancel(&mut self, calls: &mut Vec<Call>);

    /// The client has asked to close (QUIT): close once nothing is owed and the output is written.
    fn closing(&self) -> bool;

    /// The client is not there any more: what is in the output is not waited for.
    fn is_deserted(&self) -> bool {
        false
    }

    /// What time it is, before each `decode` and whenever the [`deadline`](Adapter::deadline) has come. What is due by it
    /// is said at once, or by the next `write`.
    fn set_time(&mut self, _now: Mono, _calls: &mut Vec<Call>, _output: &mut BytesMut) {}

    /// When `set_time` has something to do though nothing arrives.
    fn deadline(&self) -> Mono {
        Mono::NEVER
    }

    /// The member is going to stop, and another one serves: a client that can be told so while its requests are still
    /// answered goes there by itself. Said again and again until the connection ends.
    fn prepare_to_part(&mut self, _fault: &Fault) {}

    /// Adds to the output what is ready to leave, as far as it has room, and asks for what follows from that.
    fn write(&mut self, _calls: &mut Vec<Call>, _output: &mut BytesMut) {}

    /// The lane to which a request belongs.
    fn lane_of(&self, _tag: Tag) -> Lane {
        0
    }

    /// The connection is gone: every lane that may still be waited for is left. False: it had much that waited, and to give back all
    /// of its memory at once would take long; to be called again.
    fn leave(&mut self, calls: &mut Vec<Call>) -> bool {
        calls.push(Call::Leave { lane: 0 });
        true
    }

    /// Nothing more is decoded before answers have come, or those that have come are out.
    fn awaits_answers(&self) -> bool {
        false
    }

    /// Answers that came before their turn, about: the node is told to hold if it is too much. An adapter that holds lanes by
    /// itself has none.
    fn kept_bytes(&self) -> usize {
        0
    }

    /// Answers that are not in the output yet, and will be without any reply.
    fn has_unwritten(&self) -> bool {
        false
    }

    /// Of requests that are not complete, beside what was left in the input.
    fn input_bytes(&self) -> usize {
        0
    }
}
