//! What members ask of each other beside Raft.
//!
//! ```text
//! kind u8 | fields
//! propose:          term u64 | number u64 | count u32 | payload blob*
//! propose refused:  busy u8 | count u32 | request id u64*
//! propose failed:   number u64 | request id u64 | code u8 | text blob
//! read index:       id u64
//! read index reply: id u64 | known u8 | index u64
//! state hash:       index u64 | hash u64 | wrong u8
//! snapshot begin:   stream u64 | term u64 | index u64
//! snapshot chunk:   stream u64 | number u64 | bytes blob
//! snapshot ack:     stream u64 | next u64 | installed u8
//! snapshot abort:   stream u64
//! lease ask:        id u64 | count u32 | (lease i64 | renew u8)*
//! lease answer:     id u64 | known u8 | index u64 | count u32 | (there u8 | granted u64 | remaining u64)*
//! introduce:        members, as for somebody who is to join
//! ```

use bytes::{BufMut, BytesMut};

use super::{Body, KIND_CALL, framed, malformed, members};
use crate::api::{Code, Fault, LeaseTime, LeaseWant, PeerCall};
use crate::base::{EntryId, Writer};

const PROPOSE: u8 = 1;
const PROPOSE_REFUSED: u8 = 2;
const READ_INDEX: u8 = 3;
const READ_INDEX_REPLY: u8 = 4;
const SNAPSHOT_BEGIN: u8 = 5;
const SNAPSHOT_CHUNK: u8 = 6;
const SNAPSHOT_ACK: u8 = 7;
const SNAPSHOT_ABORT: u8 = 8;
const PROPOSE_FAILED: u8 = 9;
const INTRODUCE: u8 = 10;
const STATE_HASH: u8 = 11;
const LEASE_ASK: u8 = 12;
const LEASE_ANSWER: u8 = 13;

/// The codes with which a proposal can fail, by their number on the wire.
const CODES: &[Code] = &[
    Code::Err,
    Code::Busy,
    Code::NoMember,
    Code::MemberExists,
    Code::Learner,
    Code::Unhealthy,
    Code::NoSpace,
];

/// Version, kind and origin, with which every logged command begins. It keeps what a frame decodes to in
/// proportion to the frame.
const PAYLOAD_BYTES_MIN: usize = 18;

/// Appends the frame of a call without taking its payloads.
pub fn encode_call(call: &PeerCall, out: &mut BytesMut) {
    framed(KIND_CALL, out, |out| put(call, out));
}

fn put(call: &PeerCall, out: &mut BytesMut) {
    let count = |length: usize| u32::try_from(length).expect("a call is cut by bytes long before");
    match call {
        PeerCall::Propose { term, number, payloads } => {
            out.put_u8(PROPOSE);
            out.put_u64_le(*term);
            out.put_u64_le(*number);
            out.reserve(4 + payloads.iter().map(|payload| 4 + payload.len()).sum::<usize>());
            out.put_u32_le(count(payloads.len()));
            for payload in payloads {
                out.put_blob(payload);
            }
        }
        PeerCall::ProposeRefused { number, request_ids, busy } => {
            out.put_u8(PROPOSE_REFUSED);
            out.put_u64_le(*number);
            out.put_u8(u8::from(*busy));
            out.put_u32_le(count(request_ids.len()));
            for id in request_ids {
                out.put_u64_le(*id);
            }
        }
        PeerCall::ProposeFailed { number, request_id, fault } => {
            out.put_u8(PROPOSE_FAILED);
            out.put_u64_le(*number);
            out.put_u64_le(*request_id);
            // What a later version may say is at least an error.
            let code = CODES.iter().position(|code| *code == fault.code).unwrap_or(0);
            out.put_u8(u8::try_from(code).expect("a few codes"));
            out.put_blob(fault.text.as_bytes());
        }
        PeerCall::ReadIndex { id } => {
            out.put_u8(READ_INDEX);
            out.put_u64_le(*id);
        }
        PeerCall::ReadIndexReply { id, index } => {
            out.put_u8(READ_INDEX_REPLY);
            out.put_u64_le(*id);
            out.put_u8(u8::from(index.is_some()));
            out.put_u64_le(index.unwrap_or(0));
        }
        PeerCall::LeaseAsk { id, wants } => {
            out.put_u8(LEASE_ASK);
            out.put_u64_le(*id);
            out.put_u32_le(count(wants.len()));
            for want in wants {
                out.put_i64_le(want.id);
                out.put_u8(u8::from(want.renew));
            }
        }
        PeerCall::LeaseAnswer { id, answer } => {
            out.put_u8(LEASE_ANSWER);
            out.put_u64_le(*id);
            out.put_u8(u8::from(answer.is_some()));
            let (index, told) = answer.as_ref().map_or((0, &[][..]), |(index, told)| (*index, told));
            out.put_u64_le(index);
            out.put_u32_le(count(told.len()));
            for time in told {
                out.put_u8(u8::from(time.is_some()));
                let LeaseTime { granted_s, remaining_s } = time.unwrap_or_default();
                out.put_u64_le(granted_s);
                out.put_u64_le(remaining_s);
            }
        }
        PeerCall::StateHash { index, hash, wrong } => {
            out.put_u8(STATE_HASH);
            out.put_u64_le(*index);
            out.put_u64_le(*hash);
            out.put_u8(u8::from(*wrong));
        }
        PeerCall::SnapshotBegin { stream, at } => {
            out.put_u8(SNAPSHOT_BEGIN);
            out.put_u64_le(*stream);
            out.put_u64_le(at.term);
            out.put_u64_le(at.index);
        }
        PeerCall::SnapshotChunk { stream, number, bytes } => {
            out.put_u8(SNAPSHOT_CHUNK);
            out.put_u64_le(*stream);
            out.put_u64_le(*number);
            out.put_blob(bytes);
        }
        PeerCall::SnapshotAck { stream, next, installed } => {
            out.put_u8(SNAPSHOT_ACK);
            out.put_u64_le(*stream);
            out.put_u64_le(*next);
            out.put_u8(u8::from(*installed));
        }
        PeerCall::SnapshotAbort { stream } => {
            out.put_u8(SNAPSHOT_ABORT);
            out.put_u64_le(*stream);
        }
        PeerCall::Introduce { members } => {
            out.put_u8(INTRODUCE);
            members::put(members, out);
        }
    }
}

pub(super) fn take(body: &mut Body<'_>) -> Result<PeerCall, Fault> {
    let kind = body.u8()?;
    Ok(match kind {
        PROPOSE => {
            let (term, number) = (body.u64()?, body.u64()?);
            let count = body.count(4 + PAYLOAD_BYTES_MIN)?;
            let mut payloads = Vec::with_capacity(count);
            for _ in 0..count {
                let payload = body.blob()?;
                if payload.len() < PAYLOAD_BYTES_MIN {
                    return Err(malformed(format!("a proposal of {} bytes has no origin", payload.len())));
                }
                payloads.push(payload);
            }
            PeerCall::Propose { term, number, payloads }
        }
        PROPOSE_REFUSED => {
            let (number, busy) = (body.u64()?, body.bool()?);
            let count = body.count(8)?;
            let mut request_ids = Vec::with_capacity(count);
            for _ in 0..count {
                request_ids.push(body.u64()?);
            }
            PeerCall::ProposeRefused { number, request_ids, busy }
        }
        PROPOSE_FAILED => {
            let (number, request_id, code) = (body.u64()?, body.u64()?, body.u8()?);
            let Some(&code) = CODES.get(usize::from(code)) else {
                return Err(malformed(format!("a failure of kind {code}, which this version does not know")));
            };
            let text = String::from_utf8(body.blob()?.to_vec())
                .map_err(|_| malformed("a failure whose text is not UTF-8".into()))?;
            PeerCall::ProposeFailed { number, request_id, fault: Fault::new(code, text) }
        }
        READ_INDEX => PeerCall::ReadIndex { id: body.u64()? },
        READ_INDEX_REPLY => {
            let (id, known, index) = (body.u64()?, body.bool()?, body.u64()?);
            if !known && index != 0 {
                return Err(malformed(format!("an unknown read index of {index}")));
            }
            PeerCall::ReadIndexReply { id, index: known.then_some(index) }
        }
        LEASE_ASK => {
            let id = body.u64()?;
            let count = body.count(9)?;
            let mut wants = Vec::with_capacity(count);
            for _ in 0..count {
                wants.push(LeaseWant { id: body.u64()?.cast_signed(), renew: body.bool()? });
            }
            PeerCall::LeaseAsk { id, wants }
        }
        LEASE_ANSWER => {
            let (id, known, index) = (body.u64()?, body.bool()?, body.u64()?);
            let count = body.count(17)?;
            let mut told = Vec::with_capacity(count);
            for _ in 0..count {
                let there = body.bool()?;
                let time = LeaseTime { granted_s: body.u64()?, remaining_s: body.u64()? };
                if !there && time != LeaseTime::default() {
                    return Err(malformed("the time of a lease that is not there".into()));
                }
                told.push(there.then_some(time));
            }
            if !known && (index != 0 || !told.is_empty()) {
                return Err(malformed("an unknown answer about leases that says something".into()));
            }
            PeerCall::LeaseAnswer { id, answer: known.then_some((index, told)) }
        }
        STATE_HASH => PeerCall::StateHash { index: body.u64()?, hash: body.u64()?, wrong: body.bool()? },
        SNAPSHOT_BEGIN => PeerCall::SnapshotBegin {
            stream: body.u64()?,
            at: EntryId { term: body.u64()?, index: body.u64()? },
        },
        SNAPSHOT_CHUNK => {
            PeerCall::SnapshotChunk { stream: body.u64()?, number: body.u64()?, bytes: body.blob()? }
        }
        SNAPSHOT_ACK => {
            PeerCall::SnapshotAck { stream: body.u64()?, next: body.u64()?, installed: body.bool()? }
        }
        SNAPSHOT_ABORT => PeerCall::SnapshotAbort { stream: body.u64()? },
        INTRODUCE => PeerCall::Introduce { members: members::take(body)? },
        other => return Err(malformed(format!("call kind {other}, which this version does not know"))),
    })
}
