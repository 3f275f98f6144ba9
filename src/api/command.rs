//! What is written in the replicated log: mutating requests in a versioned encoding of our own
//! (`storage-format.md` §7). Every member applies the same bytes, so decoding must be total: bytes that
//! this version does not understand stop the node, because skipping an entry would split the cluster.

use bytes::{BufMut, Bytes, BytesMut};

use super::{AlarmChange, Compact, Delete, LeaseRef, Put, Span, Txn, alarm, txn};
use crate::base::codec::{SharedReader, Short, Writer};
use crate::base::planted;
use crate::base::{LeaseId, MemberId, Term};

/// Who asked, so that the asking member knows its request again when it applies the entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    pub member: MemberId,
    /// Unique per member, also across its restarts.
    pub request_id: u64,
}

/// What becomes of a member. The ids that count are in the entry's own membership; this says where members are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    Add {
        id: MemberId,
        peer_urls: Vec<String>,
        learner: bool,
    },
    Remove {
        id: MemberId,
    },
    Update {
        id: MemberId,
        peer_urls: Vec<String>,
    },
    Promote {
        id: MemberId,
    },
    /// All others are removed: the quorum is lost for good, and an operator said so.
    Alone {
        id: MemberId,
    },
    /// Additions, removals and promotions in one step, two at least, each of another member. If more than one voter
    /// comes or goes, the membership is joint from here to `Leave`, and voters that are removed count until then.
    Several(Vec<MemberChange>),
    /// A joint membership is left, and those who were to go are removed. A leader writes this by itself: its entry is
    /// the one that has no command.
    Leave,
}

impl MemberChange {
    /// Each change of one member: several, or this one.
    pub fn steps(&self) -> &[MemberChange] {
        match self {
            MemberChange::Several(steps) => steps,
            one => std::slice::from_ref(one),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Put(Put),
    Delete(Delete),
    Txn(Txn),
    /// A started member tells the cluster its name and where clients reach it.
    Publish {
        member: MemberId,
        name: String,
        client_urls: Vec<String>,
    },
    /// A change of the membership: the context of a membership entry.
    Members(MemberChange),
    Compact(Compact),
    LeaseGrant {
        id: LeaseId,
        ttl_s: u64,
    },
    /// These leases end. `term` 0: a client wants it, of one lease, whatever its generation. Else the leader of that
    /// term found their time to be over.
    LeaseRevoke {
        term: Term,
        leases: Vec<LeaseRef>,
    },
    /// What the leader of a term says that these leases have left, for those who lead later.
    LeaseCheckpoint {
        term: Term,
        /// Each with the seconds that it has left.
        leases: Vec<(LeaseRef, u64)>,
    },
    /// The leader has no room for more, by its quota, and puts are refused; or (`raised` is false) it has again.
    Alarm {
        member: MemberId,
        raised: bool,
    },
    /// A client raises an alarm, or ends some.
    ChangeAlarms(AlarmChange),
}

/// Why an entry could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable(pub String);

impl From<Short> for Undecodable {
    fn from(short: Short) -> Undecodable {
        Undecodable(format!("a field of {} bytes where {} are left", short.wanted_bytes, short.left_bytes))
    }
}

const VERSION: u8 = 1;

const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;
const KIND_PUBLISH: u8 = 3;
const KIND_MEMBER_ADD: u8 = 4;
const KIND_MEMBER_REMOVE: u8 = 5;
const KIND_MEMBER_UPDATE: u8 = 6;
const KIND_MEMBER_PROMOTE: u8 = 7;
const KIND_MEMBER_ALONE: u8 = 8;
const KIND_TXN: u8 = 9;
const KIND_COMPACT: u8 = 10;
const KIND_ALARM: u8 = 11;
const KIND_CHANGE_ALARMS: u8 = 12;
const KIND_MEMBER_SEVERAL: u8 = 32;
const KIND_LEASE_GRANT: u8 = 16;
const KIND_LEASE_REVOKE: u8 = 17;
const KIND_LEASE_CHECKPOINT: u8 = 18;

/// Where the body begins.
const HEAD_BYTES: usize = 18;

const PUT_PREV_KV: u8 = 1;
const PUT_IGNORE_VALUE: u8 = 2;
const PUT_IGNORE_LEASE: u8 = 4;

const SPAN_KEY: u8 = 0;
const SPAN_BETWEEN: u8 = 1;
const SPAN_PREFIX: u8 = 2;
const SPAN_FROM: u8 = 3;

/// ```text
/// version u8 | kind u8 | origin member u64 | origin request u64 | body
/// put:     flags u8 | lease i64 | key blob | value blob
/// delete:  prev u8  | span u8 | key blob | end blob
/// publish: member u64 | name blob | count u32 | url blob*
/// txn:     as `api::txn` says
/// compact: revision u64 | physical u8
/// alarm:   member u64 | raised u8
/// alarms:  as `api::alarm` says
/// several: count u32 | (kind u8 | body)*
/// lease grant:      lease i64 | ttl u64
/// lease revoke:     term u64 | count u32 | (lease i64 | generation u64)*
/// lease checkpoint: term u64 | count u32 | (lease i64 | generation u64 | remaining u64)*
/// ```
/// A blob is a u32 length and the bytes; all integers are little-endian.
pub fn encode(origin: Origin, command: &Command, out: &mut BytesMut) {
    let put_head = |out: &mut BytesMut, kind: u8| {
        out.put_u8(VERSION);
        out.put_u8(kind);
        out.put_u64_le(origin.member);
        out.put_u64_le(origin.request_id);
    };
    match command {
        Command::Put(put) => {
            out.reserve(64 + put.key.len() + put.value.len());
            put_head(out, KIND_PUT);
            put_put(put, out);
        }
        Command::Delete(delete) => {
            put_head(out, KIND_DELETE);
            put_delete(delete, out);
        }
        Command::Txn(transaction) => {
            put_head(out, KIND_TXN);
            txn::encode(transaction, out);
        }
        Command::Publish { member, name, client_urls } => {
            put_head(out, KIND_PUBLISH);
            out.put_u64_le(*member);
            out.put_blob(name.as_bytes());
            put_texts(client_urls, out);
        }
        Command::Members(MemberChange::Several(steps)) => {
            put_head(out, KIND_MEMBER_SEVERAL);
            out.put_u32_le(u32::try_from(steps.len()).expect("a few changes"));
            for step in steps {
                out.put_u8(kind_of(step));
                put_change(step, out);
            }
        }
        Command::Compact(compact) => {
            put_head(out, KIND_COMPACT);
            out.put_u64_le(compact.revision);
            out.put_u8(u8::from(compact.physical));
        }
        Command::LeaseGrant { id, ttl_s } => {
            put_head(out, KIND_LEASE_GRANT);
            out.put_i64_le(*id);
            out.put_u64_le(*ttl_s);
        }
        Command::LeaseRevoke { term, leases } => {
            put_head(out, KIND_LEASE_REVOKE);
            out.put_u64_le(*term);
            put_count(leases.len(), out);
            leases.iter().for_each(|lease| put_lease(lease, out));
        }
        Command::LeaseCheckpoint { term, leases } => {
            put_head(out, KIND_LEASE_CHECKPOINT);
            out.put_u64_le(*term);
            put_count(leases.len(), out);
            for (lease, remaining_s) in leases {
                put_lease(lease, out);
                out.put_u64_le(*remaining_s);
            }
        }
        Command::Alarm { member, raised } => {
            put_head(out, KIND_ALARM);
            out.put_u64_le(*member);
            out.put_u8(u8::from(*raised));
        }
        Command::ChangeAlarms(change) => {
            put_head(out, KIND_CHANGE_ALARMS);
            alarm::encode(change, out);
        }
        Command::Members(change) => {
            put_head(out, kind_of(change));
            put_change(change, out);
        }
    }
}

fn kind_of(change: &MemberChange) -> u8 {
    match change {
        MemberChange::Add { .. } => KIND_MEMBER_ADD,
        MemberChange::Remove { .. } => KIND_MEMBER_REMOVE,
        MemberChange::Update { .. } => KIND_MEMBER_UPDATE,
        MemberChange::Promote { .. } => KIND_MEMBER_PROMOTE,
        MemberChange::Alone { .. } => KIND_MEMBER_ALONE,
        MemberChange::Several(_) => KIND_MEMBER_SEVERAL,
        MemberChange::Leave => unreachable!("the entry that leaves a joint membership has no command"),
    }
}

/// The body of a change of one member.
fn put_change(change: &MemberChange, out: &mut BytesMut) {
    match change {
        MemberChange::Add { id, peer_urls, learner } => {
            out.put_u64_le(*id);
            out.put_u8(u8::from(*learner));
            put_texts(peer_urls, out);
        }
        MemberChange::Update { id, peer_urls } => {
            out.put_u64_le(*id);
            put_texts(peer_urls, out);
        }
        MemberChange::Remove { id } | MemberChange::Promote { id } | MemberChange::Alone { id } => {
            out.put_u64_le(*id);
        }
        MemberChange::Several(_) | MemberChange::Leave => unreachable!("they have no body of this kind"),
    }
}

fn put_count(count: usize, out: &mut BytesMut) {
    out.put_u32_le(u32::try_from(count).expect("whoever makes a command bounds its lists"));
}

fn put_lease(lease: &LeaseRef, out: &mut BytesMut) {
    out.put_i64_le(lease.id);
    out.put_u64_le(lease.generation);
}

pub(super) fn put_put(put: &Put, out: &mut BytesMut) {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    out.put_u8(
        flag(put.prev_kv, PUT_PREV_KV)
            | flag(put.ignore_value, PUT_IGNORE_VALUE)
            | flag(put.ignore_lease, PUT_IGNORE_LEASE),
    );
    out.put_i64_le(put.lease);
    out.put_blob(&put.key);
    out.put_blob(&put.value);
}

pub(super) fn put_delete(delete: &Delete, out: &mut BytesMut) {
    out.put_u8(u8::from(delete.prev_kv));
    put_span(&delete.span, out);
}

pub(super) fn put_span(span: &Span, out: &mut BytesMut) {
    let (kind, key, end): (u8, &[u8], &[u8]) = match span {
        Span::Key(key) => (SPAN_KEY, key, &[]),
        Span::Between(from, to) => (SPAN_BETWEEN, from, to),
        Span::Prefix(prefix) => (SPAN_PREFIX, prefix, &[]),
        Span::From(from) => (SPAN_FROM, from, &[]),
    };
    out.put_u8(kind);
    out.put_blob(key);
    out.put_blob(end);
}

fn put_texts(texts: &[String], out: &mut BytesMut) {
    put_count(texts.len(), out);
    for text in texts {
        out.put_blob(text.as_bytes());
    }
}

/// Whether an encoded command changes the membership, and so must become a membership entry.
pub fn changes_membership(payload: &[u8]) -> bool {
    payload.get(1).is_some_and(|&kind| is_member_kind(kind))
}

fn is_member_kind(kind: u8) -> bool {
    matches!(kind, KIND_MEMBER_ADD..=KIND_MEMBER_ALONE | KIND_MEMBER_SEVERAL)
}

impl Command {
    /// Whether it may take up room: such are refused where there is none.
    pub fn takes_room(&self) -> bool {
        match self {
            Command::Put(_) | Command::LeaseGrant { .. } => true,
            Command::Txn(txn) => txn.may_put(),
            _ => false,
        }
    }

    /// Whether it may change keys, the history or which leases there are: such are refused where the state is said to be
    /// wrong. What only tells how much time a lease has left is not.
    pub fn changes_content(&self) -> bool {
        match self {
            Command::Put(_) | Command::Delete(_) | Command::Txn(_) | Command::Compact(_) => true,
            Command::LeaseGrant { .. } | Command::LeaseRevoke { .. } => true,
            Command::LeaseCheckpoint { .. }
            | Command::Publish { .. }
            | Command::Members(_)
            | Command::Alarm { .. }
            | Command::ChangeAlarms(_) => false,
        }
    }
}

/// The same of an encoded one.
pub fn takes_room(payload: &[u8]) -> bool {
    match payload.get(1) {
        Some(&(KIND_PUT | KIND_LEASE_GRANT)) => true,
        Some(&KIND_TXN) if planted::on("api-txn-needs-no-room") => false,
        Some(&KIND_TXN) => payload.get(HEAD_BYTES..).is_some_and(txn::may_put),
        _ => false,
    }
}

/// The origin alone, without looking at the rest. None where the bytes are too short to have one.
pub fn origin(payload: &[u8]) -> Option<Origin> {
    let member = payload.get(2..10)?.try_into().ok()?;
    let request_id = payload.get(10..18)?.try_into().ok()?;
    Some(Origin { member: u64::from_le_bytes(member), request_id: u64::from_le_bytes(request_id) })
}

/// The command of a membership entry; its context, which stands behind the membership.
pub fn decode_change(context: Bytes) -> Result<(Origin, MemberChange), Undecodable> {
    if context.is_empty() {
        return Ok((Origin::default(), MemberChange::Leave));
    }
    match decode(context)? {
        (origin, Command::Members(change)) => Ok((origin, change)),
        _ => Err(Undecodable("the command of a membership entry is another one".into())),
    }
}

/// The inverse of [`encode`]; keys and values are slices of `payload`.
pub fn decode(payload: Bytes) -> Result<(Origin, Command), Undecodable> {
    let mut reader = SharedReader::new(payload);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(Undecodable(format!(
            "command version {version}; this program knows {VERSION}: upgrade it"
        )));
    }
    let kind = reader.u8()?;
    let origin = Origin { member: reader.u64()?, request_id: reader.u64()? };
    let command = match kind {
        KIND_PUT => Command::Put(take_put(&mut reader)?),
        KIND_DELETE => Command::Delete(take_delete(&mut reader)?),
        KIND_TXN => Command::Txn(txn::decode(&mut reader)?),
        KIND_PUBLISH => decode_publish(&mut reader)?,
        KIND_MEMBER_SEVERAL => Command::Members(several(&mut reader)?),
        kind if is_member_kind(kind) => Command::Members(one_change(kind, &mut reader)?),
        KIND_COMPACT => {
            let revision = reader.u64()?;
            Command::Compact(Compact { revision, physical: reader.u8()? != 0 })
        }
        KIND_LEASE_GRANT => Command::LeaseGrant { id: reader.u64()?.cast_signed(), ttl_s: reader.u64()? },
        KIND_LEASE_REVOKE => {
            Command::LeaseRevoke { term: reader.u64()?, leases: list(&mut reader, decode_lease)? }
        }
        KIND_LEASE_CHECKPOINT => {
            let left = |reader: &mut SharedReader| Ok((decode_lease(reader)?, reader.u64()?));
            Command::LeaseCheckpoint { term: reader.u64()?, leases: list(&mut reader, left)? }
        }
        KIND_ALARM => Command::Alarm { member: reader.u64()?, raised: reader.u8()? != 0 },
        KIND_CHANGE_ALARMS => Command::ChangeAlarms(alarm::decode(&mut reader)?),
        other => {
            return Err(Undecodable(format!(
                "command kind {other}; this program does not know it: upgrade it"
            )));
        }
    };
    if reader.left() > 0 {
        return Err(Undecodable(format!("{} bytes behind the command", reader.left())));
    }
    Ok((origin, command))
}

pub(super) fn take_put(reader: &mut SharedReader) -> Result<Put, Undecodable> {
    let flags = reader.u8()?;
    if flags & !(PUT_PREV_KV | PUT_IGNORE_VALUE | PUT_IGNORE_LEASE) != 0 {
        return Err(Undecodable(format!("put flags {flags:#x}")));
    }
    Ok(Put {
        prev_kv: flags & PUT_PREV_KV != 0,
        ignore_value: flags & PUT_IGNORE_VALUE != 0,
        ignore_lease: flags & PUT_IGNORE_LEASE != 0,
        lease: reader.u64()?.cast_signed(),
        key: reader.blob()?,
        value: reader.blob()?,
    })
}

pub(super) fn take_delete(reader: &mut SharedReader) -> Result<Delete, Undecodable> {
    let prev_kv = reader.u8()? != 0;
    Ok(Delete { span: take_span(reader)?, prev_kv })
}

pub(super) fn take_span(reader: &mut SharedReader) -> Result<Span, Undecodable> {
    let kind = reader.u8()?;
    let key = reader.blob()?;
    let end = reader.blob()?;
    Ok(match kind {
        SPAN_KEY => Span::Key(key),
        SPAN_BETWEEN => Span::Between(key, end),
        SPAN_PREFIX => Span::Prefix(key),
        SPAN_FROM => Span::From(key),
        other => return Err(Undecodable(format!("span kind {other}"))),
    })
}

fn decode_publish(reader: &mut SharedReader) -> Result<Command, Undecodable> {
    let member = reader.u64()?;
    let name = text(reader.blob()?)?;
    Ok(Command::Publish { member, name, client_urls: texts(reader)? })
}

fn several(reader: &mut SharedReader) -> Result<MemberChange, Undecodable> {
    let count = reader.u32()?;
    let mut steps = Vec::new();
    for _ in 0..count {
        let kind = reader.u8()?;
        if !matches!(kind, KIND_MEMBER_ADD | KIND_MEMBER_REMOVE | KIND_MEMBER_PROMOTE) {
            return Err(Undecodable(format!("change of kind {kind} among several")));
        }
        steps.push(one_change(kind, reader)?);
    }
    if steps.len() < 2 {
        return Err(Undecodable(format!("{} changes are not several", steps.len())));
    }
    Ok(MemberChange::Several(steps))
}

fn one_change(kind: u8, reader: &mut SharedReader) -> Result<MemberChange, Undecodable> {
    let id = reader.u64()?;
    Ok(match kind {
        KIND_MEMBER_ADD => {
            let learner = reader.u8()? != 0;
            MemberChange::Add { id, peer_urls: texts(reader)?, learner }
        }
        KIND_MEMBER_REMOVE => MemberChange::Remove { id },
        KIND_MEMBER_UPDATE => MemberChange::Update { id, peer_urls: texts(reader)? },
        KIND_MEMBER_PROMOTE => MemberChange::Promote { id },
        _ => MemberChange::Alone { id },
    })
}

fn text(bytes: Bytes) -> Result<String, Undecodable> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Undecodable("a text that is not UTF-8".into()))
}

fn texts(reader: &mut SharedReader) -> Result<Vec<String>, Undecodable> {
    list(reader, |reader| text(reader.blob()?))
}

fn decode_lease(reader: &mut SharedReader) -> Result<LeaseRef, Undecodable> {
    Ok(LeaseRef { id: reader.u64()?.cast_signed(), generation: reader.u64()? })
}

/// Grows as it reads: a count is not believed.
fn list<T>(
    reader: &mut SharedReader,
    mut item: impl FnMut(&mut SharedReader) -> Result<T, Undecodable>,
) -> Result<Vec<T>, Undecodable> {
    let count = reader.u32()?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(item(reader)?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::super::{Alarm, AlarmKind};
    use super::*;

    fn round_trip(command: Command) {
        let from = Origin { member: 7, request_id: 1 << 60 };
        let mut out = BytesMut::new();
        encode(from, &command, &mut out);
        let bytes = out.freeze();
        assert_eq!(origin(&bytes), Some(from));
        assert_eq!(decode(bytes.clone()), Ok((from, command)));
        for cut in 0..bytes.len() {
            assert!(decode(bytes.slice(..cut)).is_err(), "a command cut at {cut} must not decode");
        }
    }

    #[test]
    fn commands_come_back_as_they_went() {
        round_trip(Command::Put(Put {
            key: "k".into(),
            value: "v".into(),
            lease: -1,
            prev_kv: true,
            ..Put::default()
        }));
        for span in [
            Span::Key("a".into()),
            Span::Between("a".into(), "b".into()),
            Span::Prefix(Bytes::new()),
            Span::From("x".into()),
        ] {
            round_trip(Command::Delete(Delete { span, prev_kv: false }));
        }
        round_trip(Command::Publish {
            member: 3,
            name: "n1".into(),
            client_urls: vec!["http://127.0.0.1:2379".into(), "http://[::1]:2379".into()],
        });
        round_trip(Command::Compact(Compact { revision: 1 << 40, physical: true }));
        round_trip(Command::Alarm { member: 3, raised: true });
        for kind in AlarmKind::ALL {
            let alarm = Alarm { member: u64::MAX, kind };
            round_trip(Command::ChangeAlarms(AlarmChange::Raise(alarm)));
            round_trip(Command::ChangeAlarms(AlarmChange::End(alarm)));
        }
        round_trip(Command::ChangeAlarms(AlarmChange::EndAll));
        let leases = [(i64::MIN, 0), (7, 1 << 60)].map(|(id, generation)| LeaseRef { id, generation });
        round_trip(Command::LeaseGrant { id: -1, ttl_s: 60 });
        round_trip(Command::LeaseRevoke { term: 0, leases: leases[..1].to_vec() });
        round_trip(Command::LeaseRevoke { term: 3, leases: leases.to_vec() });
        round_trip(Command::LeaseCheckpoint { term: 3, leases: leases.map(|lease| (lease, 5)).to_vec() });
    }

    /// Logs that were written before there were transactions are replayed by those who know them.
    #[test]
    fn the_encodings_never_change() {
        let put = Put { key: "k".into(), value: "v".into(), lease: 3, prev_kv: true, ..Put::default() };
        let delete = Delete { span: Span::Between("a".into(), "b".into()), prev_kv: false };
        for (command, kind, body) in [
            (Command::Put(put), "01", "01 0300000000000000 01000000 6b 01000000 76"),
            (Command::Delete(delete), "02", "00 01 01000000 61 01000000 62"),
        ] {
            let mut out = BytesMut::new();
            encode(Origin { member: 7, request_id: 9 }, &command, &mut out);
            let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
            let expected = format!("01 {kind} 0700000000000000 0900000000000000 {body}");
            assert_eq!(hex, expected.replace(' ', ""));
        }
    }

    /// The bytes of `storage-format.md` §7. A change here is a change of the format.
    #[test]
    fn changes_of_alarms_are_these_and_no_others() {
        let alarm = Alarm { member: 7, kind: AlarmKind::Corrupt };
        let mut out = BytesMut::new();
        encode(Origin::default(), &Command::ChangeAlarms(AlarmChange::End(alarm)), &mut out);
        assert_eq!((out[1], &out[18..]), (12, &[2, 7, 0, 0, 0, 0, 0, 0, 0, 2][..]));
        for (at, byte) in [(18, 0), (18, 3), (18, 4), (27, 0), (27, 3)] {
            let mut bad = out.to_vec();
            bad[at] = byte;
            assert!(decode(bad.into()).is_err(), "byte {at} = {byte}");
        }
    }

    #[test]
    fn changes_of_the_membership_are_known_by_their_bytes() {
        let peer_urls = vec!["http://127.0.0.1:2380".to_string()];
        for change in [
            MemberChange::Add { id: 7, peer_urls: peer_urls.clone(), learner: true },
            MemberChange::Remove { id: 7 },
            MemberChange::Update { id: 7, peer_urls: peer_urls.clone() },
            MemberChange::Promote { id: 7 },
            MemberChange::Alone { id: 7 },
            MemberChange::Several(vec![
                MemberChange::Promote { id: 7 },
                MemberChange::Remove { id: 8 },
                MemberChange::Add { id: 9, peer_urls, learner: false },
            ]),
        ] {
            let command = Command::Members(change);
            round_trip(command.clone());
            let mut out = BytesMut::new();
            encode(Origin::default(), &command, &mut out);
            assert!(changes_membership(&out));
        }
        let mut out = BytesMut::new();
        encode(Origin::default(), &Command::Put(Put::default()), &mut out);
        assert!(!changes_membership(&out) && !changes_membership(b""));
    }

    /// The bytes of `storage-format.md` §7. A change here is a change of the format.
    #[test]
    fn several_changes_are_additions_removals_and_promotions() {
        let mut out = BytesMut::new();
        let steps = vec![MemberChange::Promote { id: 7 }, MemberChange::Remove { id: 8 }];
        encode(Origin::default(), &Command::Members(MemberChange::Several(steps)), &mut out);
        let body = [2, 0, 0, 0, 7, 7, 0, 0, 0, 0, 0, 0, 0, 5, 8, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!((out[1], &out[18..]), (32, &body[..]));
        for (at, byte) in
            [(18, 1), (22, KIND_MEMBER_UPDATE), (22, KIND_MEMBER_ALONE), (22, KIND_MEMBER_SEVERAL)]
        {
            let mut bad = out.to_vec();
            bad[at] = byte;
            assert!(decode(bad.into()).is_err(), "byte {at} = {byte}");
        }
        let mut one = out.to_vec();
        one[18] = 1;
        one.truncate(31);
        assert_eq!(decode(one.into()).unwrap_err().0, "1 changes are not several");
    }

    #[test]
    fn a_newer_version_is_named() {
        let text = decode(Bytes::from_static(&[9; 40])).unwrap_err().0;
        assert!(text.contains("version 9"), "{text}");
    }
}
