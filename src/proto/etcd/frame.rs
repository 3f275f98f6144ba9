//! Messages one behind the other: a flag byte, a length of four bytes, the message (gRPC's "Length-Prefixed-Message"). It is
//! the form in which they wait to be sent, so that gRPC sends them as they are.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// In front of each message.
pub const PREFIX_BYTES: usize = 5;

/// A message as it waits.
pub fn framed(message: &impl Message) -> Bytes {
    let mut out = begun();
    out.reserve(message.encoded_len());
    message.encode(&mut out).expect("the buffer grows");
    finished(out)
}

/// The place for a message that is written piece by piece.
pub fn begun() -> BytesMut {
    let mut out = BytesMut::with_capacity(256);
    out.put_bytes(0, PREFIX_BYTES);
    out
}

/// What was begun has its end. Answers are bounded far below what the length can say.
pub fn finished(mut out: BytesMut) -> Bytes {
    let length = u32::try_from(out.len() - PREFIX_BYTES).expect("an answer is shorter than 4 GiB");
    out[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}
