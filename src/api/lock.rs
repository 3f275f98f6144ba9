//! Locks and elections: what can be asked of them and answered. Keys and meaning are those of etcd's Lock and Election
//! services: whoever wants a lock puts a key of its own under the lock's name, attached to its lease, and has the lock
//! while no key under the name is older.
//!
//! ```text
//!   name/3f    created at revision 12    has the lock
//!   name/1b    created at revision 15    waits until the first is gone
//! ```
//!
//! The revision at which a key was created orders the owners of a lock: it is the *fencing revision*.

use bytes::Bytes;

use super::{Range, SortBy, Span};
use crate::base::LeaseId;

/// The longest wait that can be asked for: a day. Who leaves it out waits for as long as it takes.
pub const LOCK_WAIT_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// A lease's number in a key is no longer, with the sign.
const NUMBER_BYTES_MAX: usize = 17;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockRequest {
    /// A lock, or leadership; the answer may be long in coming. Asked again with the same lease, it is the same place.
    Acquire(Acquire),
    /// Gives a place up, whether it is the first one or still waits. Nothing happens if there is none.
    Release { key: Bytes },
    /// Another value for a place that is held.
    Proclaim { key: Bytes, value: Bytes },
    /// The key that is the first of an election.
    Leader { name: Bytes },
    /// The same, and whatever takes its place later: answered again and again, until it is cancelled.
    Observe { name: Bytes },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acquire {
    pub name: Bytes,
    /// What the key says while it is there.
    pub value: Bytes,
    /// The key goes with it.
    pub lease: LeaseId,
    /// Give up after so long, and take the key back; 0: do not wait at all. None: no end.
    pub wait_ms: Option<u64>,
    /// It is an election.
    pub campaign: bool,
}

/// In front of all keys of a lock.
pub fn lock_prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// Reads the key that has a lock, or leads an election.
pub fn first_of(name: &[u8]) -> Range {
    let span = Span::Prefix(lock_prefix(name));
    Range { sort_by: SortBy::Create, limit: 1, ..Range::new(span) }
}

/// The key of a lease under a lock's name.
pub fn lock_key(name: &[u8], lease: LeaseId) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    let number = format!("/{sign}{:x}", lease.unsigned_abs());
    [name, number.as_bytes()].concat().into()
}

/// No key of a lock of that name is longer.
pub fn lock_key_bytes_max(name: &[u8]) -> usize {
    name.len() + 1 + NUMBER_BYTES_MAX
}

/// Whose key this is. None: it is not the key of a lock.
pub fn lock_owner(key: &[u8]) -> Option<LeaseId> {
    let slash = key.iter().rposition(|&byte| byte == b'/')?;
    let (name, number) = (&key[..slash], std::str::from_utf8(&key[slash + 1..]).ok()?);
    let lease = match number.strip_prefix('-') {
        Some(digits) => {
            i64::from_str_radix(&format!("-{}", digits.trim_start_matches(['+', '-'])), 16).ok()?
        }
        None => i64::from_str_radix(number, 16).ok()?,
    };
    // There is one way to write it.
    (lease != 0 && !name.is_empty() && lock_key(name, lease) == key).then_some(lease)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// etcd's `%s%x`.
    #[test]
    fn a_key_is_the_name_and_the_lease_in_hex() {
        assert_eq!(lock_prefix(b"a/b"), "a/b/");
        for (lease, key) in [
            (1, "n/1"),
            (0x694d, "n/694d"),
            (i64::MAX, "n/7fffffffffffffff"),
            (-26, "n/-1a"),
            (i64::MIN, "n/-8000000000000000"),
        ] {
            assert_eq!(lock_key(b"n", lease), key);
            assert_eq!(lock_owner(key.as_bytes()), Some(lease));
            assert!(key.len() <= lock_key_bytes_max(b"n"));
        }
        assert_eq!(lock_owner(b"a/b\xff/1f"), Some(31));
    }

    #[test]
    fn other_keys_belong_to_nobody() {
        for key in [
            "",
            "/",
            "n",
            "n/",
            "/1f",
            "n/0",
            "n/1F",
            "n/01",
            "n/+1",
            "n/--1",
            "n/-0",
            "n/1g",
            "n/8000000000000000",
        ] {
            assert_eq!(lock_owner(key.as_bytes()), None, "{key}");
        }
        assert_eq!(lock_owner(b"n/\xff"), None);
    }
}
