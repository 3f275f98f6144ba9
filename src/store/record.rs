//! The values of the tree: versions of keys, and members (`storage-format.md` §6.3 and §6.4).

use bytes::BufMut;

use super::keys::Malformed;
use crate::api::Member;
use crate::base::codec::Short;
use crate::base::{MemberId, Reader, Revision, Writer};

impl From<Short> for Malformed {
    fn from(short: Short) -> Malformed {
        Malformed(format!("a field of {} bytes where {} are left", short.wanted_bytes, short.left_bytes))
    }
}

const TOMBSTONE: u8 = 1;
const HAS_LEASE: u8 = 2;
const HAS_SUB: u8 = 4;

/// What precedes the value of a version.
///
/// ```text
/// flags u8 | sub u32, if flag 4 | live: create u64 | version u64 | lease i64, if flag 2 | value
/// ```
///
/// A field that is zero is absent, and its flag with it: one meaning has one encoding, because members compare
/// hashes of these bytes. A tombstone (flag 1) has neither create nor version nor lease nor value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The key was deleted by this revision.
    pub tombstone: bool,
    /// Position among the changes of the revision.
    pub sub: u32,
    pub create: Revision,
    pub version: u64,
    pub lease: i64,
}

/// The longest encoded header.
pub const HEADER_BYTES_MAX: usize = 29;

impl Header {
    pub fn tombstone(sub: u32) -> Header {
        Header { tombstone: true, sub, ..Header::default() }
    }

    /// The encoding, in the front of the array.
    pub fn encode(&self) -> ([u8; HEADER_BYTES_MAX], usize) {
        let mut bytes = [0; HEADER_BYTES_MAX];
        let mut out = &mut bytes[..];
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.put_u8(
            flag(self.tombstone, TOMBSTONE) | flag(self.lease != 0, HAS_LEASE) | flag(self.sub != 0, HAS_SUB),
        );
        if self.sub != 0 {
            out.put_u32_le(self.sub);
        }
        if !self.tombstone {
            out.put_u64_le(self.create);
            out.put_u64_le(self.version);
            if self.lease != 0 {
                out.put_i64_le(self.lease);
            }
        }
        let left = out.len();
        (bytes, HEADER_BYTES_MAX - left)
    }

    /// The header in front of `record`, and its length; the value is the rest.
    pub fn decode(record: &[u8]) -> Result<(Header, usize), Malformed> {
        let mut reader = Reader::new(record);
        let flags = reader.u8()?;
        if flags & !(TOMBSTONE | HAS_LEASE | HAS_SUB) != 0 || flags & (TOMBSTONE | HAS_LEASE) == 3 {
            return Err(Malformed(format!("record flags {flags:#x}")));
        }
        let mut header = Header { tombstone: flags & TOMBSTONE != 0, ..Header::default() };
        if flags & HAS_SUB != 0 {
            header.sub = reader.u32()?;
        }
        if !header.tombstone {
            header.create = reader.u64()?;
            header.version = reader.u64()?;
            if flags & HAS_LEASE != 0 {
                header.lease = reader.u64()?.cast_signed();
            }
        } else if !reader.is_empty() {
            return Err(Malformed(format!("{} bytes behind a tombstone", reader.left())));
        }
        let zero_with_flag =
            (flags & HAS_SUB != 0 && header.sub == 0) || (flags & HAS_LEASE != 0 && header.lease == 0);
        if zero_with_flag {
            return Err(Malformed(format!("record flags {flags:#x} with a zero field")));
        }
        Ok((header, record.len() - reader.left()))
    }
}

const LEARNER: u8 = 1;

/// The whole record of a member that was removed: it stays, so that its id is never given out again and that it
/// can be told.
pub const REMOVED: &[u8] = &[2];

/// The key of a member is its id, big-endian.
pub fn member_key(id: MemberId) -> [u8; 8] {
    id.to_be_bytes()
}

/// ```text
/// flags u8 (1: learner) | name blob | count u32 | peer URL blob* | count u32 | client URL blob*
/// ```
pub fn encode_member(member: &Member) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.put_u8(if member.learner { LEARNER } else { 0 });
    out.put_blob(member.name.as_bytes());
    for urls in [&member.peer_urls, &member.client_urls] {
        out.put_u32_le(u32::try_from(urls.len()).expect("a few URLs"));
        for url in urls {
            out.put_blob(url.as_bytes());
        }
    }
    out
}

/// What the tree knows of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Member(Member),
    Removed(MemberId),
}

/// The inverse of [`member_key`] and [`encode_member`].
pub fn decode_member(key: &[u8], record: &[u8]) -> Result<Found, Malformed> {
    let id = key.try_into().map_err(|_| Malformed(format!("a member's key of {} bytes", key.len())))?;
    let id = MemberId::from_be_bytes(id);
    if record == REMOVED {
        return Ok(Found::Removed(id));
    }
    let mut reader = Reader::new(record);
    let flags = reader.u8()?;
    if flags & !LEARNER != 0 {
        return Err(Malformed(format!("member flags {flags:#x}")));
    }
    let name = text(reader.blob()?)?;
    let mut urls = || -> Result<Vec<String>, Malformed> {
        let count = reader.u32()?;
        let mut urls = Vec::new();
        for _ in 0..count {
            urls.push(text(reader.blob()?)?);
        }
        Ok(urls)
    };
    let (peer_urls, client_urls) = (urls()?, urls()?);
    if !reader.is_empty() {
        return Err(Malformed(format!("{} bytes behind a member", reader.left())));
    }
    Ok(Found::Member(Member { id, name, peer_urls, client_urls, learner: flags & LEARNER != 0 }))
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("a text that is not UTF-8".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes of `storage-format.md` §6.3 and §6.4. A change here is a change of the format.
    #[test]
    fn the_layouts_never_change() {
        let shown = |header: Header| {
            let (bytes, length) = header.encode();
            hex(&bytes[..length])
        };
        let plain = Header { create: 2, version: 3, ..Header::default() };
        assert_eq!(shown(plain), "0002000000000000000300000000000000");
        let full = Header { sub: 1, lease: -2, ..plain };
        assert_eq!(shown(full), "060100000002000000000000000300000000000000feffffffffffffff");
        assert_eq!(shown(Header::tombstone(0)), "01");
        assert_eq!(shown(Header::tombstone(258)), "0502010000");

        let member = Member {
            id: 7,
            name: "n1".into(),
            peer_urls: vec!["p".into()],
            client_urls: vec![],
            learner: true,
        };
        assert_eq!(hex(&encode_member(&member)), "01020000006e3101000000010000007000000000");
        assert_eq!(hex(&member_key(7)), "0000000000000007");
        assert_eq!(decode_member(&member_key(7), &[2]), Ok(Found::Removed(7)));
        assert!(decode_member(&member_key(7), &[2, 0]).is_err());
    }

    #[test]
    fn a_meaning_has_one_encoding() {
        for bad in [
            &b""[..],
            b"\x08",
            b"\x03",
            b"\x01v",
            b"\x00\0\0\0\0\0\0\0\0",
            b"\x05\0\0\0\0",
            b"\x02\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ] {
            assert!(Header::decode(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn headers_come_back(
            live in any::<bool>(),
            sub in prop_oneof![Just(0u32), any::<u32>()],
            (create, version) in any::<(u64, u64)>(),
            lease in prop_oneof![Just(0i64), any::<i64>()],
            value in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let header = if live {
                Header { tombstone: false, sub, create, version, lease }
            } else {
                Header::tombstone(sub)
            };
            let (bytes, length) = header.encode();
            let mut record = bytes[..length].to_vec();
            if live {
                record.extend_from_slice(&value);
            }
            prop_assert_eq!(Header::decode(&record), Ok((header, length)));
        }

        #[test]
        fn hostile_records_are_errors_at_worst(record in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((header, length)) = Header::decode(&record) {
                let (bytes, again) = header.encode();
                prop_assert_eq!(&record[..length], &bytes[..again]);
            }
            match decode_member(&[0; 8], &record) {
                Ok(Found::Member(member)) => prop_assert_eq!(encode_member(&member), record),
                Ok(Found::Removed(_)) => prop_assert_eq!(record, REMOVED),
                Err(_) => {}
            }
        }

        #[test]
        fn members_come_back(
            id in any::<u64>(),
            name in ".{0,8}",
            peer_urls in proptest::collection::vec(".{0,8}", 0..3),
            client_urls in proptest::collection::vec(".{0,8}", 0..3),
            learner in any::<bool>(),
        ) {
            let member = Member { id, name, peer_urls, client_urls, learner };
            prop_assert_eq!(decode_member(&member_key(id), &encode_member(&member)), Ok(Found::Member(member)));
        }
    }
}
