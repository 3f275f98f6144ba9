use super::*;
use crate::api::{LeaseTime, LeaseWant};
use crate::base::{EntryId, Rng};
use crate::raft::types::{Entry, EntryKind, MessageBody};

fn entry(index: u64, term: u64, payload: &[u8]) -> Entry {
    Entry { id: EntryId::new(term, index), kind: EntryKind::Normal, payload: Bytes::copy_from_slice(payload) }
}

fn message(body: MessageBody) -> Frame {
    Frame::Raft(Message { from: 0xa1, to: u64::MAX, term: 9, body })
}

fn append(entries: Vec<Entry>) -> Frame {
    message(MessageBody::Append { previous: EntryId::new(7, 41), entries, commit: 40, round: 3 })
}

/// One of every kind, with every field different from its neighbours.
fn samples() -> Vec<Frame> {
    let hello = Hello::new(0xc1, 0xa1, 0xb2, 0xd3);
    let membership =
        Entry { id: EntryId::new(9, 43), kind: EntryKind::Membership, payload: Bytes::from_static(b"joint") };
    vec![
        Frame::Hello(hello),
        Frame::Welcome(hello),
        Frame::Refused { why: "cluster c1 is not mine (c2)".into() },
        message(MessageBody::PreVote { last: EntryId::new(8, 44) }),
        message(MessageBody::PreVoteReply { granted: true }),
        message(MessageBody::Vote { last: EntryId::new(8, 44), transfer: true }),
        message(MessageBody::VoteReply { granted: false }),
        append(vec![]),
        append(vec![entry(42, 7, b""), membership]),
        message(MessageBody::AppendAccepted { matched: 5, round: 6 }),
        message(MessageBody::AppendRejected {
            previous: 1,
            hint: EntryId::new(2, 3),
            last: 4,
            round: u64::MAX,
        }),
        message(MessageBody::TimeoutNow),
        message(MessageBody::Inquire { life: 7 }),
        message(MessageBody::Inquired {
            life: 7,
            memory: crate::raft::types::Memory::Fresh,
            last: EntryId::new(2, 3),
        }),
        message(MessageBody::Forgot),
        Frame::Call(PeerCall::Propose {
            term: 9,
            number: 4,
            payloads: vec![Bytes::from(vec![1; 18]), Bytes::from(vec![2; 40])],
        }),
        Frame::Call(PeerCall::ProposeRefused { number: 9, request_ids: vec![1, u64::MAX], busy: true }),
        Frame::Call(PeerCall::ProposeFailed {
            number: 9,
            request_id: 3,
            fault: Fault::new(Code::Learner, "not yet"),
        }),
        Frame::Call(PeerCall::ProposeFailed { number: 9, request_id: 4, fault: Fault::no_space() }),
        Frame::AskMembers,
        Frame::Members {
            cluster: 0xc1,
            members: vec![Member {
                id: u64::MAX,
                name: "n1".into(),
                peer_urls: vec!["http://a:1".into(), "http://b:2".into()],
                client_urls: Vec::new(),
                learner: true,
            }],
        },
        Frame::Call(PeerCall::ReadIndex { id: 17 }),
        Frame::Call(PeerCall::ReadIndexReply { id: 17, index: Some(0) }),
        Frame::Call(PeerCall::ReadIndexReply { id: 17, index: None }),
        Frame::Call(PeerCall::LeaseAsk {
            id: 18,
            wants: vec![LeaseWant { id: -1, renew: true }, LeaseWant { id: 7, renew: false }],
        }),
        Frame::Call(PeerCall::LeaseAnswer { id: 18, answer: None }),
        Frame::Call(PeerCall::LeaseAnswer {
            id: 18,
            answer: Some((9, vec![None, Some(LeaseTime { granted_s: 60, remaining_s: 31 })])),
        }),
        Frame::Call(PeerCall::StateHash { index: 5, hash: u64::MAX, wrong: true }),
        Frame::Call(PeerCall::SnapshotBegin { stream: 1, at: EntryId::new(2, 3) }),
        Frame::Call(PeerCall::SnapshotChunk { stream: 1, number: 2, bytes: Bytes::from_static(b"chunk") }),
        Frame::Call(PeerCall::SnapshotAck { stream: 1, next: 2, installed: false }),
        Frame::Call(PeerCall::SnapshotAbort { stream: 1 }),
        Frame::Call(PeerCall::Introduce {
            members: vec![Member { id: 7, peer_urls: vec!["http://h:1".into()], ..Member::default() }],
        }),
    ]
}

fn encoded(frame: &Frame) -> BytesMut {
    let mut out = BytesMut::new();
    encode(frame, &mut out);
    out
}

/// Makes the checksum right again after the bytes were changed, as a broken (or hostile) sender would.
fn sealed(mut bytes: BytesMut) -> BytesMut {
    let length = u32::try_from(bytes.len() - HEAD_BYTES).unwrap();
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    let crc = crc32_from(crc32(&bytes[..8]), &bytes[HEAD_BYTES..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn refusal(mut bytes: BytesMut) -> String {
    match decode(&mut bytes) {
        Err(fault) => fault.text,
        Ok(frame) => panic!("decoded to {frame:?}"),
    }
}

#[test]
fn every_kind_comes_back_as_it_went() {
    for frame in samples() {
        let mut bytes = encoded(&frame);
        assert_eq!(decode(&mut bytes), Ok(Some(frame)));
        assert!(bytes.is_empty());
    }
}

/// The bytes are fixed: a change here needs a new `VERSION`.
#[test]
fn the_layout_is_frozen() {
    let hex = |frame: &Frame| encoded(frame).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        hex(&Frame::Hello(Hello::new(0xc1, 0xa1, 0xb2, 0xd3))),
        "2200000001000000\
         9402e20c\
         0100c100000000000000a100000000000000b200000000000000d300000000000000"
    );
    assert_eq!(
        hex(&append(vec![entry(42, 8, b"xyz")])),
        "4d00000004000000\
         b8f9df98\
         a100000000000000ffffffffffffffff090000000000000005\
         07000000000000002900000000000000280000000000000003000000000000000100000008000000000000000003000000\
         78797a"
    );
}

#[test]
fn many_frames_in_one_buffer_in_any_pieces() {
    let mut whole = BytesMut::new();
    for frame in samples() {
        encode(&frame, &mut whole);
    }
    let mut rng = Rng::new(5);
    for pieces_max in [1, 3, 64, 100_000] {
        let (mut input, mut fed, mut got) = (BytesMut::new(), 0, Vec::new());
        while fed < whole.len() {
            let piece = (rng.between(1, pieces_max) as usize).min(whole.len() - fed);
            input.extend_from_slice(&whole[fed..fed + piece]);
            fed += piece;
            while let Some(frame) = decode(&mut input).unwrap() {
                got.push(frame);
            }
        }
        assert_eq!(got, samples());
    }
}

#[test]
fn payloads_share_the_received_buffer() {
    let mut bytes = encoded(&append(vec![entry(42, 9, &[7; 1000])]));
    let received = bytes.as_ptr_range();
    let Ok(Some(Frame::Raft(Message { body: MessageBody::Append { entries, .. }, .. }))) = decode(&mut bytes)
    else {
        panic!("an append comes back");
    };
    assert!(received.contains(&entries[0].payload.as_ptr()));
}

#[test]
fn one_flipped_bit_is_never_accepted() {
    let bytes = encoded(&append(vec![entry(42, 8, b"payload")]));
    for bit in 32..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(refusal(damaged).contains("checksum"), "bit {bit}");
    }
    // In the length: refused, or the frame now waits for bytes that are somebody else's.
    for bit in 0..32 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(!matches!(decode(&mut damaged), Ok(Some(_))), "bit {bit}");
    }
}

#[test]
fn lengths_are_checked_before_anything_is_held() {
    let mut claim = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
    assert!(decode(&mut claim).unwrap_err().text.contains("4294967295 bytes"));
    let mut claim = BytesMut::from(&4097u32.to_le_bytes()[..]);
    assert_eq!(decode(&mut claim), Ok(None));
    assert!(decode_greeting(&mut claim).unwrap_err().text.contains("4097 bytes, of which 4096"));
}

#[test]
fn cut_bodies_are_refused() {
    for frame in samples() {
        let whole = encoded(&frame);
        for body_bytes in 0..whole.len() - HEAD_BYTES {
            let mut cut = whole.clone();
            cut.truncate(HEAD_BYTES + body_bytes);
            assert!(decode(&mut sealed(cut)).is_err(), "{frame:?} cut at {body_bytes}");
        }
        let mut longer = whole.clone();
        longer.put_u8(0);
        assert!(decode(&mut sealed(longer)).is_err(), "{frame:?} with a byte behind it");
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let changed = |frame: &Frame, at: usize, byte: u8| {
        let mut bytes = encoded(frame);
        bytes[at] = byte;
        refusal(sealed(bytes))
    };
    let hello = Frame::Hello(Hello::new(1, 2, 3, 4));
    assert!(changed(&hello, HEAD_BYTES, 2).contains("version 2 of the protocol between members"));
    assert!(changed(&hello, 4, 77).contains("frame kind 77"));
    assert!(changed(&hello, 5, 1).contains("reserved"));

    let heartbeat = append(vec![]);
    assert!(changed(&heartbeat, HEAD_BYTES, 0).contains("0 is no member"));
    assert!(changed(&heartbeat, HEAD_BYTES + 16, 0).contains("term 0"));
    assert!(changed(&heartbeat, HEAD_BYTES + 24, 99).contains("message kind 99"));
    // Last four bytes: the count of entries.
    let count_at = encoded(&heartbeat).len() - 4;
    assert!(changed(&heartbeat, count_at, 1).contains("count of 1"));

    let falls = append(vec![entry(42, 9, b""), entry(43, 8, b"")]);
    assert!(refusal(encoded(&falls)).contains("43@8 behind 42@9"));
    let ahead = append(vec![entry(42, 10, b"")]);
    assert!(refusal(encoded(&ahead)).contains("42@10 behind 41@7 in a message of term 9"));

    let short =
        Frame::Call(PeerCall::Propose { term: 9, number: 4, payloads: vec![Bytes::from(vec![0; 40])] });
    let mut bytes = encoded(&short);
    // The length of the payload stands before it.
    let length_at = bytes.len() - 40 - 4;
    bytes[length_at] = 10;
    assert!(refusal(sealed(bytes)).contains("has no origin"));
}

#[test]
#[should_panic(expected = "without a gap")]
fn a_gap_is_our_own_bug() {
    encoded(&append(vec![entry(43, 8, b"")]));
}

#[test]
fn a_refusal_is_cut_to_a_line() {
    let mut bytes = encoded(&Frame::Refused { why: "é".repeat(1000) });
    assert_eq!(decode(&mut bytes), Ok(Some(Frame::Refused { why: "é".repeat(512) })));
}
