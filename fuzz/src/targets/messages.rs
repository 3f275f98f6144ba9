//! What arrives on sockets, and what the log holds.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pawl::api::{
    Body, Call, Command, Delete, Fault, Header, KeyValue, Limits, Origin, PeerCall, Put, RangeResult, Reply,
    Request, Span, command as logged,
};
use pawl::base::crc::{crc32, crc32_from};
use pawl::base::{EntryId, Rng};
use pawl::proto::Adapter;
use pawl::proto::line::{LineAdapter, ServerInfo};
use pawl::proto::peer::{self, Frame, HEAD_BYTES, Hello};
use pawl::raft::{Entry, EntryKind, Message, MessageBody};

pub fn command_seeds() -> Vec<Vec<u8>> {
    let put = Put { key: "key".into(), value: "value".into(), prev_kv: true, ..Put::default() };
    let commands = [
        Command::Put(put),
        Command::Delete(Delete { span: Span::Prefix("pre".into()), prev_kv: false }),
        Command::Delete(Delete { span: Span::Between("a".into(), "b".into()), prev_kv: true }),
        Command::Publish { member: 7, name: "n1".into(), client_urls: vec!["http://127.0.0.1:2379".into()] },
    ];
    let encode = |command| {
        let mut out = BytesMut::new();
        logged::encode(Origin { member: 7, request_id: 1 << 60 }, command, &mut out);
        out.to_vec()
    };
    commands.iter().map(encode).collect()
}

/// What decodes must encode to something that decodes to the same.
pub fn command(input: &[u8], _rng: &mut Rng) {
    let Ok((origin, decoded)) = logged::decode(Bytes::copy_from_slice(input)) else { return };
    assert_eq!(logged::origin(input), Some(origin));
    let mut again = BytesMut::new();
    logged::encode(origin, &decoded, &mut again);
    assert_eq!(logged::decode(again.freeze()), Ok((origin, decoded)));
}

pub fn line_seeds() -> Vec<Vec<u8>> {
    [
        &b"*3\r\n$3\r\nPUT\r\n$1\r\nk\r\n$2\r\n\x00\xff\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"[..],
        b"HELLO 3\r\nPUT k \"a b\\x00\" PREV\r\nGET k REV 3 SERIALIZABLE\r\nPING\r\n",
        b"RANGE k TO l LIMIT 3 REV 2 KEYS DESC BY MOD MINMOD 1 MAXMOD 9\r\nDEL k PREFIX PREV\r\n",
        b"HEADER ON\r\nEXISTS a b c\r\nMGET a b\r\nSET a b\r\nDBSIZE\r\nSTATUS\r\nMEMBER LIST\r\nQUIT\r\n",
        b"COMMAND DOCS\r\nCONFIG GET *\r\nCLIENT ID\r\nINFO\r\nECHO x\r\nRESET\r\nSELECT 0\r\n",
        b"ruok\r\n",
        b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$3\r\nabc\r\n",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

/// Whatever arrives, in whatever pieces: every call is owed until it is answered, and nothing follows an end.
pub fn line(input: &[u8], rng: &mut Rng) {
    let info = ServerInfo {
        cluster: 1,
        member: 2,
        version: "0",
        limits: Limits { request_bytes_max: 4096, ..Limits::default() },
        config: vec![("name".into(), "n1".into())],
    };
    let mut adapter = LineAdapter::new(Arc::new(info), 3);
    let (mut buffer, mut output) = (BytesMut::new(), BytesMut::new());
    let mut waiting = Vec::new();
    let mut rest = input;
    while !rest.is_empty() && !adapter.closing() {
        let (piece, after) = rest.split_at(rng.between(1, rest.len() as u64) as usize);
        rest = after;
        buffer.extend_from_slice(piece);
        let ended = adapter.decode(&mut buffer, &mut waiting, &mut output).is_err();
        assert_eq!(adapter.owed(), waiting.len(), "what the node was asked is owed");
        while !waiting.is_empty() && rng.one_in(2) {
            let call = waiting.remove(rng.below(waiting.len() as u64) as usize);
            answer(&mut adapter, &call, rng, &mut output);
        }
        output.clear();
        if ended {
            break;
        }
    }
    for call in waiting {
        answer(&mut adapter, &call, rng, &mut output);
    }
    assert_eq!(adapter.owed(), 0);
}

fn answer(adapter: &mut LineAdapter, call: &Call, rng: &mut Rng, output: &mut BytesMut) {
    let Call::Request { tag, request } = call else { panic!("the line protocol cancels nothing: {call:?}") };
    let kv = KeyValue { key: "k".into(), value: "v".into(), mod_revision: 2, ..KeyValue::default() };
    let body = match request {
        _ if rng.one_in(4) => Body::Fault(Fault::timeout()),
        Request::Put(put) => Body::Put { revision: 2, previous: put.prev_kv.then_some(Some(kv)) },
        Request::Range(_) => Body::Range(RangeResult { revision: 2, count: 1, more: true, kvs: vec![kv] }),
        Request::Delete(_) => Body::Delete { revision: 3, deleted: 1, previous: vec![kv] },
        Request::Status => Body::Status(Box::default()),
        Request::MemberList { .. } => Body::Members(vec![]),
    };
    let reply = Reply { conn: 3, tag: *tag, header: Header::default(), body, more: false };
    adapter.encode(reply, output);
}

pub fn peer_seeds() -> Vec<Vec<u8>> {
    let message = |body| Frame::Raft(Message { from: 1, to: 2, term: 3, body });
    let entry = |index| Entry {
        id: EntryId::new(3, index),
        kind: EntryKind::Normal,
        payload: Bytes::from_static(b"payload"),
    };
    let at = EntryId::new(3, 4);
    let frames = [
        Frame::Hello(Hello::new(1, 2, 3)),
        Frame::Refused { why: "no".into() },
        message(MessageBody::PreVote { last: at }),
        message(MessageBody::Append { previous: at, entries: vec![entry(5), entry(6)], commit: 4, round: 9 }),
        message(MessageBody::AppendRejected { previous: 9, hint: at, last: 4, round: 9 }),
        Frame::Call(PeerCall::Propose { term: 3, payloads: vec!["a".into(), "b".into()] }),
        Frame::Call(PeerCall::ProposeRefused { request_ids: vec![1, 2], busy: true }),
        Frame::Call(PeerCall::SnapshotChunk { stream: 1, number: 2, bytes: "chunk".into() }),
    ];
    let encode = |frame: &Frame| {
        let mut out = BytesMut::new();
        peer::encode(frame, &mut out);
        out.to_vec()
    };
    frames.iter().map(encode).collect()
}

/// As it came, and with a length and a checksum that fit: what a broken or hostile member would send.
pub fn peer(input: &[u8], rng: &mut Rng) {
    let mut bytes = BytesMut::from(input);
    if input.len() >= HEAD_BYTES && !rng.one_in(4) {
        let length = (input.len() - HEAD_BYTES) as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[5..8].fill(0);
        let crc = crc32_from(crc32(&bytes[..8]), &bytes[HEAD_BYTES..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    }
    while let Ok(Some(frame)) = peer::decode(&mut bytes) {
        let mut again = BytesMut::new();
        peer::encode(&frame, &mut again);
        assert_eq!(peer::decode(&mut again), Ok(Some(frame)), "a frame comes back as it went");
        assert!(again.is_empty());
    }
}
