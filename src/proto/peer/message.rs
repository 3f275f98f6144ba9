//! Raft's messages.
//!
//! ```text
//! from u64 | to u64 | term u64 | kind u8 | fields
//! append:  previous term u64, index u64 | commit u64 | round u64 | count u32 | entry*
//! entry:   term u64 | kind u8 | payload blob
//! ```
//! An entry's index is not sent: the entries of a message follow `previous` without a gap.

use bytes::{BufMut, BytesMut};

use super::{Body, KIND_RAFT, framed, malformed};
use crate::api::Fault;
use crate::base::{EntryId, Term, Writer, limits};
use crate::raft::types::{Entry, EntryKind, Memory, Message, MessageBody};

const PRE_VOTE: u8 = 1;
const PRE_VOTE_REPLY: u8 = 2;
const VOTE: u8 = 3;
const VOTE_REPLY: u8 = 4;
const APPEND: u8 = 5;
const APPEND_ACCEPTED: u8 = 6;
const APPEND_REJECTED: u8 = 7;
const TIMEOUT_NOW: u8 = 8;
const INQUIRE: u8 = 9;
const INQUIRED: u8 = 10;
const FORGOT: u8 = 11;

const MEMORY_WHOLE: u8 = 0;
const MEMORY_LOST: u8 = 1;
const MEMORY_FRESH: u8 = 2;

const ENTRY_NORMAL: u8 = 0;
const ENTRY_MEMBERSHIP: u8 = 1;

/// Term, kind, and the length of the payload.
const ENTRY_HEAD_BYTES: usize = 13;

/// Messages are cut at [`limits::APPEND_BYTES_MAX`] of payload, and only a term's first entry has none.
const ENTRIES_MAX: usize = limits::APPEND_BYTES_MAX;

/// Appends the frame of a message without taking the message or its entries.
pub fn encode_message(message: &Message, out: &mut BytesMut) {
    framed(KIND_RAFT, out, |out| put(message, out));
}

fn put(message: &Message, out: &mut BytesMut) {
    out.put_u64_le(message.from);
    out.put_u64_le(message.to);
    out.put_u64_le(message.term);
    match &message.body {
        MessageBody::PreVote { last } => {
            out.put_u8(PRE_VOTE);
            put_id(*last, out);
        }
        MessageBody::PreVoteReply { granted } => {
            out.put_u8(PRE_VOTE_REPLY);
            out.put_u8(u8::from(*granted));
        }
        MessageBody::Vote { last, transfer } => {
            out.put_u8(VOTE);
            put_id(*last, out);
            out.put_u8(u8::from(*transfer));
        }
        MessageBody::VoteReply { granted } => {
            out.put_u8(VOTE_REPLY);
            out.put_u8(u8::from(*granted));
        }
        MessageBody::Append { previous, entries, commit, round } => {
            out.put_u8(APPEND);
            put_id(*previous, out);
            out.put_u64_le(*commit);
            out.put_u64_le(*round);
            put_entries(*previous, entries, out);
        }
        MessageBody::AppendAccepted { matched, round } => {
            out.put_u8(APPEND_ACCEPTED);
            out.put_u64_le(*matched);
            out.put_u64_le(*round);
        }
        MessageBody::AppendRejected { previous, hint, last, round } => {
            out.put_u8(APPEND_REJECTED);
            out.put_u64_le(*previous);
            put_id(*hint, out);
            out.put_u64_le(*last);
            out.put_u64_le(*round);
        }
        MessageBody::TimeoutNow => out.put_u8(TIMEOUT_NOW),
        MessageBody::Inquire { life } => {
            out.put_u8(INQUIRE);
            out.put_u64_le(*life);
        }
        MessageBody::Inquired { life, memory, last } => {
            out.put_u8(INQUIRED);
            out.put_u64_le(*life);
            out.put_u8(match memory {
                Memory::Whole => MEMORY_WHOLE,
                Memory::Lost => MEMORY_LOST,
                Memory::Fresh => MEMORY_FRESH,
            });
            put_id(*last, out);
        }
        MessageBody::Forgot => out.put_u8(FORGOT),
    }
}

fn put_id(id: EntryId, out: &mut BytesMut) {
    out.put_u64_le(id.term);
    out.put_u64_le(id.index);
}

fn put_entries(previous: EntryId, entries: &[Entry], out: &mut BytesMut) {
    let bytes: usize = entries.iter().map(|entry| ENTRY_HEAD_BYTES + entry.payload.len()).sum();
    out.reserve(4 + bytes);
    out.put_u32_le(u32::try_from(entries.len()).expect("a message is cut by bytes long before"));
    let mut index = previous.index;
    for entry in entries {
        index += 1;
        assert_eq!(entry.id.index, index, "entries of a message follow `previous` without a gap");
        out.put_u64_le(entry.id.term);
        out.put_u8(match entry.kind {
            EntryKind::Normal => ENTRY_NORMAL,
            EntryKind::Membership => ENTRY_MEMBERSHIP,
        });
        out.put_blob(&entry.payload);
    }
}

pub(super) fn take(body: &mut Body<'_>) -> Result<Message, Fault> {
    let (from, to, term) = (body.u64()?, body.u64()?, body.u64()?);
    if from == 0 || to == 0 {
        return Err(malformed(format!("a message from {from:x} to {to:x}; 0 is no member")));
    }
    let kind = body.u8()?;
    if term == 0 && !matches!(kind, INQUIRE | INQUIRED) {
        return Err(malformed("a message of term 0, which is before the first election".into()));
    }
    let body = match kind {
        PRE_VOTE => MessageBody::PreVote { last: take_id(body)? },
        PRE_VOTE_REPLY => MessageBody::PreVoteReply { granted: body.bool()? },
        VOTE => MessageBody::Vote { last: take_id(body)?, transfer: body.bool()? },
        VOTE_REPLY => MessageBody::VoteReply { granted: body.bool()? },
        APPEND => {
            let (previous, commit, round) = (take_id(body)?, body.u64()?, body.u64()?);
            let entries = take_entries(body, previous, term)?;
            MessageBody::Append { previous, entries, commit, round }
        }
        APPEND_ACCEPTED => MessageBody::AppendAccepted { matched: body.u64()?, round: body.u64()? },
        APPEND_REJECTED => MessageBody::AppendRejected {
            previous: body.u64()?,
            hint: take_id(body)?,
            last: body.u64()?,
            round: body.u64()?,
        },
        TIMEOUT_NOW => MessageBody::TimeoutNow,
        INQUIRE => MessageBody::Inquire { life: body.u64()? },
        INQUIRED => {
            let life = body.u64()?;
            let memory = match body.u8()? {
                MEMORY_WHOLE => Memory::Whole,
                MEMORY_LOST => Memory::Lost,
                MEMORY_FRESH => Memory::Fresh,
                other => return Err(malformed(format!("memory of kind {other}"))),
            };
            MessageBody::Inquired { life, memory, last: take_id(body)? }
        }
        FORGOT => MessageBody::Forgot,
        other => return Err(malformed(format!("message kind {other}, which this version does not know"))),
    };
    Ok(Message { from, to, term, body })
}

fn take_id(body: &mut Body<'_>) -> Result<EntryId, Fault> {
    Ok(EntryId { term: body.u64()?, index: body.u64()? })
}

/// The log matching property, as far as one message can show it: indexes without a gap, terms that never
/// fall and never exceed the sender's (Raft paper, §5.3).
fn take_entries(body: &mut Body<'_>, previous: EntryId, term: Term) -> Result<Vec<Entry>, Fault> {
    let count = body.count(ENTRY_HEAD_BYTES)?;
    if count > ENTRIES_MAX {
        return Err(malformed(format!("{count} entries in one message; {ENTRIES_MAX} are allowed")));
    }
    let mut entries = Vec::with_capacity(count);
    let mut last = previous;
    for _ in 0..count {
        let Some(index) = last.index.checked_add(1) else {
            return Err(malformed(format!("entries behind {last}, where indexes end")));
        };
        let id = EntryId { term: body.u64()?, index };
        if id.term < last.term || id.term > term {
            return Err(malformed(format!("entry {id} behind {last} in a message of term {term}")));
        }
        let kind = match body.u8()? {
            ENTRY_NORMAL => EntryKind::Normal,
            ENTRY_MEMBERSHIP => EntryKind::Membership,
            other => return Err(malformed(format!("entry {id} of kind {other}"))),
        };
        entries.push(Entry { id, kind, payload: body.blob()? });
        last = id;
    }
    Ok(entries)
}
