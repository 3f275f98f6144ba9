//! Messages within a stream, as they arrive: in any pieces.

use bytes::{Buf, Bytes, BytesMut};

use crate::api::status::RpcStatus;
use crate::proto::etcd::Status;
use crate::proto::etcd::frame::PREFIX_BYTES;

/// What has arrived on one stream and is no whole message yet.
#[derive(Debug, Default)]
pub struct Inbound {
    bytes: BytesMut,
}

impl Inbound {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The next message of `arrived`, behind what came before. What is left of it after the last whole message is kept.
    pub fn next(&mut self, arrived: &mut Bytes, bytes_max: usize) -> Result<Option<Bytes>, Status> {
        // The usual case: a message comes whole, and is not copied.
        if self.bytes.is_empty() {
            let Some(length) = message_bytes(arrived, bytes_max)? else {
                self.keep(arrived);
                return Ok(None);
            };
            if arrived.len() < PREFIX_BYTES + length {
                self.keep(arrived);
                return Ok(None);
            }
            arrived.advance(PREFIX_BYTES);
            return Ok(Some(arrived.split_to(length)));
        }
        self.keep(arrived);
        match message_bytes(&self.bytes, bytes_max)? {
            Some(length) if self.bytes.len() >= PREFIX_BYTES + length => {
                self.bytes.advance(PREFIX_BYTES);
                let message = self.bytes.split_to(length).freeze();
                *arrived = self.bytes.split().freeze();
                Ok(Some(message))
            }
            _ => Ok(None),
        }
    }

    fn keep(&mut self, arrived: &mut Bytes) {
        self.bytes.extend_from_slice(arrived);
        arrived.clear();
    }
}

/// How long the message is that begins here, if that can be told.
fn message_bytes(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Status> {
    let Some((&[flag, a, b, c, d], _)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    if flag != 0 {
        let text = "compressed messages are not understood here: send them as they are";
        return Err(Status::new(RpcStatus::Unimplemented, text));
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > bytes_max {
        let text = format!("grpc: received message larger than max ({length} vs. {bytes_max})");
        return Err(Status::new(RpcStatus::ResourceExhausted, text));
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::etcd::frame::framed;
    use crate::proto::etcd::messages::MemberId;

    #[test]
    fn messages_come_in_any_pieces() {
        let whole: Vec<u8> =
            (0..5u64).flat_map(|n| framed(&MemberId { id: n << (9 * n) }).to_vec()).collect();
        for size in 1..=whole.len() {
            let mut inbound = Inbound::default();
            let mut ids = Vec::new();
            for piece in whole.chunks(size) {
                let mut piece = Bytes::copy_from_slice(piece);
                while let Some(message) = inbound.next(&mut piece, 100).unwrap() {
                    ids.push(MemberId::decode(message).unwrap().id);
                }
                assert!(piece.is_empty());
            }
            assert_eq!(ids, [0, 1 << 9, 2 << 18, 3 << 27, 4 << 36], "in pieces of {size}");
            assert_eq!(inbound.len(), 0);
        }
    }

    #[test]
    fn a_message_that_is_too_long_or_compressed_is_refused_by_its_first_bytes() {
        let code = |bytes: &'static [u8]| {
            Inbound::default().next(&mut Bytes::from_static(bytes), 100).map_err(|status| status.code)
        };
        assert_eq!(code(b"\0\0\0\0"), Ok(None));
        assert_eq!(code(b"\0\0\0\0\x64"), Ok(None));
        assert_eq!(code(b"\0\0\0\0\x65"), Err(RpcStatus::ResourceExhausted));
        assert_eq!(code(b"\0\xff\xff\xff\xff"), Err(RpcStatus::ResourceExhausted));
        assert_eq!(code(b"\x01\0\0\0\x01"), Err(RpcStatus::Unimplemented));
    }
}
