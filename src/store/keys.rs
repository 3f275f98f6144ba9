//! How keys of the store become keys of the tree (`storage-format.md` §6.2). The tree orders its keys as byte
//! strings, so the encodings are chosen to order as what they mean.
//!
//! ```text
//!   versions:   escaped key | 00 | 8 bytes: the revision, inverted, big-endian
//!   revisions:  8 bytes: main, big-endian | 4 bytes: sub, big-endian
//!
//!   escape:     00 -> 01 01      01 -> 01 02      every other byte stands for itself
//! ```
//!
//! An escaped key holds no 00, so the terminator sorts before whatever a longer key goes on with: keys order
//! as their bytes do, a key before all that it is a prefix of, and no encoding is a prefix of another one.
//! The escape works byte by byte, so the encodings of all keys with a prefix begin with the escaped prefix.
//! The inverted revision puts the newest version of a key first: one descent finds it.

use crate::base::Revision;

/// Ends an escaped key.
const TERMINATOR: u8 = 0x00;
const ESCAPE: u8 = 0x01;
/// What follows [`ESCAPE`], for 00 and for 01.
const ESCAPED_00: u8 = 0x01;
const ESCAPED_01: u8 = 0x02;

const REVISION_BYTES: usize = 8;

/// The main and the sub revision of a change.
pub const CHANGE_BYTES: usize = 12;

/// Bytes that no encoder here wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

/// The least encoding that a key at or after `key` can have: where a walk of a span begins, or ends.
pub fn bound(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1 + REVISION_BYTES);
    escape(key, &mut out);
    out
}

/// What the encodings of all versions of `key` begin with, and those of no other key.
pub fn prefix(key: &[u8]) -> Vec<u8> {
    let mut out = bound(key);
    out.push(TERMINATOR);
    out
}

fn escape(key: &[u8], out: &mut Vec<u8>) {
    let mut rest = key;
    while let Some(at) = rest.iter().position(|&byte| byte <= ESCAPE) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[ESCAPE, if rest[at] == 0 { ESCAPED_00 } else { ESCAPED_01 }]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// The encoding of the version of a key that `revision` made.
pub fn version(prefix: &[u8], revision: Revision) -> Vec<u8> {
    let mut out = Vec::with_capacity(prefix.len() + REVISION_BYTES);
    out.extend_from_slice(prefix);
    out.extend_from_slice(&(!revision).to_be_bytes());
    out
}

/// As [`version`], of a key that is not encoded yet.
pub fn version_of(key: &[u8], revision: Revision) -> Vec<u8> {
    let mut out = prefix(key);
    out.extend_from_slice(&(!revision).to_be_bytes());
    out
}

/// The prefix of an encoding that was made here.
pub fn prefix_of(version: &[u8]) -> &[u8] {
    &version[..version.len() - REVISION_BYTES]
}

/// The least string above every encoding that begins with `prefix` (see [`prefix()`]).
pub fn after(prefix: &[u8]) -> Vec<u8> {
    let mut out = prefix.to_vec();
    let last = out.last_mut().expect("a prefix ends with its terminator");
    *last = TERMINATOR + 1;
    out
}

/// Takes an encoded version apart: the prefix, and the revision. The key inside is checked by [`user_key`].
pub fn split(encoded: &[u8]) -> Result<(&[u8], Revision), Malformed> {
    let Some((prefix, inverted)) = encoded.split_last_chunk::<REVISION_BYTES>() else {
        return Err(Malformed(format!("a version's key of {} bytes", encoded.len())));
    };
    if prefix.last() != Some(&TERMINATOR) {
        return Err(Malformed("a version's key without a terminator before its revision".into()));
    }
    Ok((prefix, !u64::from_be_bytes(*inverted)))
}

/// The key that a prefix was made of.
pub fn user_key(prefix: &[u8]) -> Result<Vec<u8>, Malformed> {
    let Some((&TERMINATOR, mut rest)) = prefix.split_last() else {
        return Err(Malformed("a key without its terminator".into()));
    };
    let mut key = Vec::with_capacity(rest.len());
    while let Some(at) = rest.iter().position(|&byte| byte <= ESCAPE) {
        key.extend_from_slice(&rest[..at]);
        match rest[at..] {
            [ESCAPE, ESCAPED_00, ..] => key.push(0x00),
            [ESCAPE, ESCAPED_01, ..] => key.push(0x01),
            _ => return Err(Malformed(format!("a key with a bad escape at byte {at}"))),
        }
        rest = &rest[at + 2..];
    }
    key.extend_from_slice(rest);
    Ok(key)
}

/// The key of a change in the list of revisions.
pub fn change(main: Revision, sub: u32) -> [u8; CHANGE_BYTES] {
    let mut out = [0; CHANGE_BYTES];
    out[..8].copy_from_slice(&main.to_be_bytes());
    out[8..].copy_from_slice(&sub.to_be_bytes());
    out
}

/// The inverse of [`change`].
pub fn split_change(encoded: &[u8]) -> Result<(Revision, u32), Malformed> {
    let bytes: &[u8; CHANGE_BYTES] = encoded
        .try_into()
        .map_err(|_| Malformed(format!("a revision of {} bytes, not {CHANGE_BYTES}", encoded.len())))?;
    let (main, sub) = bytes.split_first_chunk::<8>().expect("8 of 12 bytes");
    let sub: [u8; 4] = sub.try_into().expect("4 of 12 bytes");
    Ok((u64::from_be_bytes(*main), u32::from_be_bytes(sub)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(key: &[u8], revision: Revision) -> Vec<u8> {
        version(&prefix(key), revision)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
    }

    /// The bytes of `storage-format.md` §6.2. A change here is a change of the format.
    #[test]
    fn the_encodings_never_change() {
        assert_eq!(hex(&encode(b"a", 2)), "61 00 ff ff ff ff ff ff ff fd");
        assert_eq!(hex(&encode(b"", u64::MAX)), "00 00 00 00 00 00 00 00 00");
        assert_eq!(hex(&encode(b"\x00k\x01\xff", 0x0102)), "01 01 6b 01 02 ff 00 ff ff ff ff ff ff fe fd");
        assert_eq!(hex(&change(258, 3)), "00 00 00 00 00 00 01 02 00 00 00 03");
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert!(split(b"12345678").is_err(), "no room for a terminator");
        assert!(split(b"a\x02\0\0\0\0\0\0\0\0").is_err(), "another terminator");
        for bad in [&b"a"[..], b"", b"\x01\0", b"\x01\x03\0", b"\0\0", b"a\x01\x01\x01\0"] {
            assert!(user_key(bad).is_err(), "{bad:?}");
        }
        assert!(split_change(&[0; 11]).is_err());
    }

    /// Keys over a small alphabet around the escapes, so that prefixes and neighbours are common.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0u8), Just(1), Just(2), Just(b'a'), Just(0xff), any::<u8>()];
        proptest::collection::vec(byte, 0..6)
    }

    proptest! {
        #[test]
        fn encodings_order_as_key_then_newest_first(a in key(), b in key(), r in 0u64..4, s in 0u64..4) {
            let meant = a.cmp(&b).then(s.cmp(&r));
            prop_assert_eq!(encode(&a, r).cmp(&encode(&b, s)), meant);
        }

        #[test]
        fn bounds_order_as_keys(a in key(), b in key(), r in any::<u64>()) {
            prop_assert_eq!(encode(&a, r) < bound(&b), a < b);
            prop_assert_eq!(encode(&b, r) < after(&prefix(&a)), b <= a);
            prop_assert_eq!(encode(&b, r).starts_with(&bound(&a)), b.starts_with(&a));
            prop_assert_eq!(encode(&b, r).starts_with(&prefix(&a)), a == b);
        }

        #[test]
        fn what_was_encoded_is_decoded(a in key(), r in any::<u64>()) {
            let encoded = encode(&a, r);
            let (prefix, revision) = split(&encoded).unwrap();
            prop_assert_eq!(revision, r);
            prop_assert_eq!(user_key(prefix).unwrap(), a);
        }

        #[test]
        fn changes_order_as_revisions(a in any::<(u64, u32)>(), b in any::<(u64, u32)>()) {
            prop_assert_eq!(change(a.0, a.1).cmp(&change(b.0, b.1)), a.cmp(&b));
            prop_assert_eq!(split_change(&change(a.0, a.1)).unwrap(), a);
        }
    }
}
