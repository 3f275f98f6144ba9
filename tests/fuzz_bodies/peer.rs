//! Frames between members.

use bytes::BytesMut;
use pawl::base::crc::{crc32, crc32_from};
use pawl::proto::peer::{self, HEAD_BYTES};

/// As it comes: what decodes encodes to the same bytes again, and nothing is held beyond the input. Then the
/// same bytes as kind and body under a right checksum, because no mutation guesses one.
pub fn peer_frame(data: &[u8]) {
    check(BytesMut::from(data));
    if let Some((&kind, body)) = data.split_first() {
        let mut frame = BytesMut::new();
        frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
        frame.extend_from_slice(&[kind, 0, 0, 0]);
        let crc = crc32_from(crc32(&frame), body);
        frame.extend_from_slice(&crc.to_le_bytes());
        frame.extend_from_slice(body);
        check(frame);
    }
}

fn check(mut input: BytesMut) {
    loop {
        let before = input.clone();
        let Ok(Some(frame)) = peer::decode(&mut input) else { return };
        let frame_bytes = before.len() - input.len();
        assert!(frame_bytes >= HEAD_BYTES);
        let mut again = BytesMut::new();
        peer::encode(&frame, &mut again);
        assert_eq!(again, before[..frame_bytes], "{frame:?} has one encoding");
    }
}
