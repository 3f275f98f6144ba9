//! The record of a member (`storage-format.md` §6.4).

use bytes::BufMut;

use super::record::Malformed;
use crate::api::Member;
use crate::base::{MemberId, Reader, Writer};

const LEARNER: u8 = 1;
const COMING: u8 = 4;
const LEAVING: u8 = 8;

/// In which halves of a joint membership a voter counts. Where the membership is not joint there is only one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Half {
    #[default]
    Both,
    /// It was added or promoted, and votes in the new half.
    New,
    /// It votes in the old half, and is removed when the joint membership is left.
    Old,
}

/// The whole record of a member that was removed: it stays, so that its id is never given out again and that it
/// can be told.
pub const REMOVED: &[u8] = &[2];

/// The key of a member is its id, big-endian.
pub fn member_key(id: MemberId) -> [u8; 8] {
    id.to_be_bytes()
}

/// ```text
/// flags u8 (1: learner, 4: votes in the new half only, 8: in the old half only) | name blob | count u32 | peer URL blob* | count u32 | client URL blob*
/// ```
pub fn encode_member(member: &Member, half: Half) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let half = match half {
        Half::Both => 0,
        Half::New => COMING,
        Half::Old => LEAVING,
    };
    out.put_u8(half | if member.learner { LEARNER } else { 0 });
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
    Member(Member, Half),
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
    let (learner, half) = match reader.u8()? {
        0 => (false, Half::Both),
        LEARNER => (true, Half::Both),
        COMING => (false, Half::New),
        LEAVING => (false, Half::Old),
        other => return Err(Malformed(format!("member flags {other:#x}"))),
    };
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
    Ok(Found::Member(Member { id, name, peer_urls, client_urls, learner }, half))
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("a text that is not UTF-8".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bytes of `storage-format.md` §6.4. A change here is a change of the format.
    #[test]
    fn the_layout_never_changes() {
        let member = Member {
            id: 7,
            name: "n1".into(),
            peer_urls: vec!["p".into()],
            client_urls: vec![],
            learner: true,
        };
        let bytes = [1, 2, 0, 0, 0, b'n', b'1', 1, 0, 0, 0, 1, 0, 0, 0, b'p', 0, 0, 0, 0];
        assert_eq!(encode_member(&member, Half::Both), bytes);
        let voter = Member { learner: false, ..member };
        assert_eq!(encode_member(&voter, Half::New)[..2], [4, 2]);
        assert_eq!(encode_member(&voter, Half::Old)[..2], [8, 2]);
        assert_eq!(member_key(7), [0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(decode_member(&member_key(7), &[2]), Ok(Found::Removed(7)));
        assert!(decode_member(&member_key(7), &[2, 0]).is_err());
    }

    proptest! {
        #[test]
        fn hostile_records_are_errors_at_worst(record in proptest::collection::vec(any::<u8>(), 0..64)) {
            match decode_member(&[0; 8], &record) {
                Ok(Found::Member(member, half)) => prop_assert_eq!(encode_member(&member, half), record),
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
            (learner, half) in (any::<bool>(), prop_oneof![Just(Half::Both), Just(Half::New), Just(Half::Old)]),
        ) {
            let learner = learner && half == Half::Both;
            let member = Member { id, name, peer_urls, client_urls, learner };
            let record = encode_member(&member, half);
            prop_assert_eq!(decode_member(&member_key(id), &record), Ok(Found::Member(member, half)));
        }
    }
}
