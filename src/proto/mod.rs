//! Bytes to vocabulary and back. An adapter owns protocol state and never a socket.

use bytes::BytesMut;

use crate::api::{Call, Fault, Reply};

// What clients speak: RESP and typed lines.
pub mod line;

// What members speak among themselves.
pub mod peer;

// Which protocol a fresh connection speaks.
pub mod sniff;

/// Translates between one connection's bytes and calls.
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
}
