//! The records of keys and of their changes (`storage-format.md` §6.3).
//!
//! ```text
//!   key      flags u8 | main | sub | live: age | version | lease i64, if flag 2 | ordinal | marks: (back | sub)*
//!   change   flags u8 | live: age | version | lease i64, if flag 2
//!                     | previous, if flag 4: back | sub | skip, if flag 8: back | sub | key length | key | value
//! ```
//!
//! Numbers without a type are varints. Revisions are written as how far *back* they lie from the revision in front of
//! them, and the create revision as its *age*: small numbers, so that many keys fit in a leaf. What is absent, is
//! absent together with its flag, and a meaning has one encoding: members compare hashes of these bytes.

use bytes::BufMut;

use super::line::{Line, Links};
use super::revision::Rev;
use super::varint;
use crate::base::codec::Short;
use crate::base::{Reader, Revision};

/// Bytes that no encoder here wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl From<Short> for Malformed {
    fn from(short: Short) -> Malformed {
        Malformed(format!("a field of {} bytes where {} are left", short.wanted_bytes, short.left_bytes))
    }
}

const TOMBSTONE: u8 = 1;
const HAS_LEASE: u8 = 2;
const HAS_PREVIOUS: u8 = 4;
const HAS_SKIP: u8 = 8;

/// What a change left of its key, the value aside. A tombstone has no create revision, version or lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The change deleted the key.
    pub tombstone: bool,
    pub create: Revision,
    pub version: u64,
    /// 0 = none.
    pub lease: i64,
}

/// No change's record is longer than this before its key.
pub const CHANGE_HEAD_BYTES_MAX: usize = 1 + 4 * varint::VARINT_BYTES_MAX + 8 + 2 * 5;

impl Header {
    pub fn tombstone() -> Header {
        Header { tombstone: true, ..Header::default() }
    }

    fn flags(&self) -> u8 {
        u8::from(self.tombstone) * TOMBSTONE + u8::from(self.lease != 0) * HAS_LEASE
    }

    fn put_fields(&self, out: &mut impl BufMut, main: Revision) {
        if self.tombstone {
            return;
        }
        varint::put(out, main - self.create);
        varint::put(out, self.version);
        if self.lease != 0 {
            out.put_i64_le(self.lease);
        }
    }

    fn take_fields(reader: &mut Reader<'_>, flags: u8, main: Revision) -> Result<Header, Malformed> {
        if flags & TOMBSTONE != 0 {
            return if flags & HAS_LEASE == 0 {
                Ok(Header::tombstone())
            } else {
                Err(Malformed("a tombstone with a lease".into()))
            };
        }
        let create = main.checked_sub(varint::take(reader)?).filter(|&create| create > 0);
        let create = create.ok_or_else(|| Malformed(format!("a create revision far before {main}")))?;
        let version = varint::take(reader)?;
        let lease = if flags & HAS_LEASE != 0 { reader.u64()?.cast_signed() } else { 0 };
        if version == 0 || (flags & HAS_LEASE != 0 && lease == 0) {
            return Err(Malformed(format!("version {version}, lease {lease} with flags {flags:#x}")));
        }
        Ok(Header { tombstone: false, create, version, lease })
    }
}

fn put_back(out: &mut impl BufMut, from: Rev, to: Rev) {
    varint::put(out, from.main - to.main);
    varint::put(out, u64::from(to.sub));
}

/// A key changes once in a revision at most, so one step back is at least 1.
fn take_back(reader: &mut Reader<'_>, from: Rev) -> Result<Rev, Malformed> {
    let back = varint::take(reader)?;
    let main = from.main.checked_sub(back).filter(|&main| main > 0 && back > 0);
    let main = main.ok_or_else(|| Malformed(format!("a change {back} revisions before {from}")))?;
    Ok(Rev::new(main, take_sub(reader)?))
}

fn take_sub(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    let sub = varint::take(reader)?;
    u32::try_from(sub).map_err(|_| Malformed(format!("sub revision {sub}")))
}

/// A key's cell: its newest change, and the marks of its line.
pub fn encode_key(header: &Header, line: &Line, out: &mut Vec<u8>) {
    let (&newest, older) = line.marks.split_last().expect("a key has changed at least once");
    out.put_u8(header.flags());
    varint::put(out, newest.main);
    varint::put(out, u64::from(newest.sub));
    header.put_fields(out, newest.main);
    varint::put(out, line.ordinal);
    let mut from = newest;
    for &mark in older.iter().rev() {
        put_back(out, from, mark);
        from = mark;
    }
}

/// The newest change of a key, and where its line is to be read from ([`decode_line`]).
pub fn decode_key(record: &[u8]) -> Result<(Rev, Header, Reader<'_>), Malformed> {
    let mut reader = Reader::new(record);
    let flags = reader.u8()?;
    if flags & !(TOMBSTONE | HAS_LEASE) != 0 {
        return Err(Malformed(format!("a key's flags {flags:#x}")));
    }
    let main = varint::take(&mut reader)?;
    let newest = Rev::new(main, take_sub(&mut reader)?);
    let header = Header::take_fields(&mut reader, flags, main)?;
    Ok((newest, header, reader))
}

pub fn decode_line(newest: Rev, mut reader: Reader<'_>) -> Result<Line, Malformed> {
    let ordinal = varint::take(&mut reader)?;
    let mut marks = Vec::with_capacity(ordinal.count_ones() as usize + 1);
    let mut from = newest;
    for _ in 1..ordinal.count_ones() {
        from = take_back(&mut reader, from)?;
        marks.push(from);
    }
    if ordinal == 0 || !reader.is_empty() {
        return Err(Malformed(format!("{} bytes behind the line of ordinal {ordinal}", reader.left())));
    }
    marks.reverse();
    marks.push(newest);
    Ok(Line { ordinal, marks })
}

/// What a change's record says in front of key and value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub header: Header,
    pub links: Links,
}

impl Change {
    /// The record of change `rev` up to its key, which the value follows.
    pub fn encode(&self, rev: Rev, key_bytes: usize, out: &mut Vec<u8>) {
        let Links { previous, skip } = self.links;
        let linked = u8::from(previous.is_some()) * HAS_PREVIOUS + u8::from(skip.is_some()) * HAS_SKIP;
        out.put_u8(self.header.flags() | linked);
        self.header.put_fields(out, rev.main);
        let mut from = rev;
        for to in [previous, skip].into_iter().flatten() {
            put_back(out, from, to);
            from = to;
        }
        varint::put(out, key_bytes as u64);
    }

    /// The inverse; key and value are left in the reader. The record may be cut off behind its first
    /// [`CHANGE_HEAD_BYTES_MAX`] bytes.
    pub fn decode(rev: Rev, record: &[u8]) -> Result<(Change, Reader<'_>), Malformed> {
        let mut reader = Reader::new(record);
        let flags = reader.u8()?;
        if flags & !(TOMBSTONE | HAS_LEASE | HAS_PREVIOUS | HAS_SKIP) != 0
            || flags & (HAS_PREVIOUS | HAS_SKIP) == HAS_SKIP
        {
            return Err(Malformed(format!("a change's flags {flags:#x}")));
        }
        let header = Header::take_fields(&mut reader, flags, rev.main)?;
        let mut links = Links::default();
        if flags & HAS_PREVIOUS != 0 {
            let previous = take_back(&mut reader, rev)?;
            links.previous = Some(previous);
            if flags & HAS_SKIP != 0 {
                links.skip = Some(take_back(&mut reader, previous)?);
            }
        }
        Ok((Change { header, links }, reader))
    }
}

/// The key that follows the head of a change; the value is the rest.
pub fn take_key<'r>(reader: &mut Reader<'r>) -> Result<&'r [u8], Malformed> {
    let length = varint::take(reader)?;
    let length = usize::try_from(length).map_err(|_| Malformed(format!("a key of {length} bytes")))?;
    Ok(reader.bytes(length)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn key_record(header: &Header, line: &Line) -> Vec<u8> {
        let mut out = Vec::new();
        encode_key(header, line, &mut out);
        out
    }

    fn change_record(change: &Change, rev: Rev, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        change.encode(rev, key.len(), &mut out);
        [&out[..], key, value].concat()
    }

    /// The examples of `storage-format.md` §6.3. A change here is a change of the format.
    #[test]
    fn the_layouts_never_change() {
        let rev = |main| Rev::new(main, 0);
        let first = Header { create: 2, version: 1, ..Header::default() };
        let line = Line { ordinal: 1, marks: vec![rev(2)] };
        assert_eq!(hex(&key_record(&first, &line)), "000200000101");
        let links = Links::default();
        assert_eq!(hex(&change_record(&Change { header: first, links }, rev(2), b"k", b"v")), "000001016b76");

        let seventh = Header { create: 2, version: 7, lease: -2, ..Header::default() };
        let line = Line { ordinal: 7, marks: vec![rev(5), Rev::new(300, 258), rev(301)] };
        assert_eq!(
            hex(&key_record(&seventh, &line)),
            "02ad0200ab0207feffffffffffffff070182 02a70200".replace(' ', "")
        );
        let links = Links { previous: Some(rev(300)), skip: Some(rev(5)) };
        let change = Change { header: Header::tombstone(), links };
        assert_eq!(
            hex(&change_record(&change, Rev::new(301, 1), b"k", b"")),
            "0d0100a702 00016b".replace(' ', "")
        );
    }

    #[test]
    fn a_meaning_has_one_encoding() {
        // Unknown flags; a tombstone with a lease; version 0; a create revision of 0; a lease of 0.
        for bad in [
            &b"\x04\x02\0\0\x01\x01"[..],
            b"\x03\x02\0\x01",
            b"\0\x02\0\0\0\x01",
            b"\0\x02\0\x02\x01\x01",
            b"\x02\x02\0\0\x01\0\0\0\0\0\0\0\0\x01",
        ] {
            assert!(decode_key(bad).is_err(), "{bad:?}");
        }
        // No ordinal; a mark too few, too many, and at the same revision.
        for bad in [&b"\0"[..], b"\x03", b"\x01\x01\0", b"\x03\0\0"] {
            assert!(decode_line(Rev::new(9, 0), Reader::new(bad)).is_err(), "{bad:?}");
        }
        // A skip alone; an unknown flag; a step of 0; a step before the first revision.
        for bad in [&b"\x09\x01\0"[..], b"\x11", b"\x05\0\0", b"\x05\x09\0"] {
            assert!(Change::decode(Rev::new(9, 0), bad).is_err(), "{bad:?}");
        }
    }

    fn header(main: Revision) -> impl Strategy<Value = Header> {
        let lease = prop_oneof![Just(0i64), any::<i64>()];
        let live = (1..=main, 1u64.., lease).prop_map(|(create, version, lease)| Header {
            tombstone: false,
            create,
            version,
            lease,
        });
        prop_oneof![Just(Header::tombstone()), live]
    }

    /// Changes in the order of their revisions.
    fn revs(count: usize) -> impl Strategy<Value = Vec<Rev>> {
        let steps = proptest::collection::vec((1u64..1 << 40, any::<u32>()), count);
        steps.prop_map(|steps| {
            let mut main = 0;
            let next = |(step, sub)| {
                main += step;
                Rev::new(main, sub)
            };
            steps.into_iter().map(next).collect()
        })
    }

    proptest! {
        #[test]
        fn keys_come_back(
            (ordinal, marks) in (1u64..).prop_flat_map(|o| (Just(o), revs(o.count_ones() as usize))),
            tombstone in any::<bool>(),
        ) {
            let newest = marks[marks.len() - 1];
            let live = Header { create: newest.main, version: 3, ..Header::default() };
            let header = if tombstone { Header::tombstone() } else { live };
            let line = Line { ordinal, marks };
            let record = key_record(&header, &line);
            let (rev, decoded, rest) = decode_key(&record).unwrap();
            prop_assert_eq!((rev, decoded), (newest, header));
            prop_assert_eq!(decode_line(rev, rest), Ok(line));
        }

        #[test]
        fn changes_come_back(
            (revs, header) in revs(3).prop_flat_map(|revs| { let main = revs[2].main; (Just(revs), header(main)) }),
            linked in 0..3,
            key in proptest::collection::vec(any::<u8>(), 0..4),
            value in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let links = Links {
                previous: (linked > 0).then_some(revs[1]),
                skip: (linked > 1).then_some(revs[0]),
            };
            let change = Change { header, links };
            let record = change_record(&change, revs[2], &key, &value);
            let (decoded, mut rest) = Change::decode(revs[2], &record).unwrap();
            prop_assert_eq!(decoded, change);
            prop_assert!(record.len() - rest.left() <= CHANGE_HEAD_BYTES_MAX);
            prop_assert_eq!(take_key(&mut rest), Ok(&key[..]));
            prop_assert_eq!(rest.rest(), &value[..]);
        }

        #[test]
        fn hostile_records_are_errors_at_worst(
            record in proptest::collection::vec(any::<u8>(), 0..64),
            main in 1u64..1 << 20,
        ) {
            let rev = Rev::new(main, 0);
            if let Ok((newest, header, rest)) = decode_key(&record) && let Ok(line) = decode_line(newest, rest) {
                prop_assert_eq!(&key_record(&header, &line), &record);
            }
            if let Ok((change, mut rest)) = Change::decode(rev, &record) && let Ok(key) = take_key(&mut rest) {
                prop_assert_eq!(&change_record(&change, rev, key, rest.rest()), &record);
            }
        }
    }
}
