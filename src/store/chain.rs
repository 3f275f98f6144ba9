//! The state hash: 64 bits that stand for everything that the entries up to some index did here.
//!
//! It is a chain. Each cell that an entry writes is mixed in, and then the entry's term and the revision, so that entries
//! without an effect count too (`storage-format.md` §6.5). Members that applied the same entries in the same way have the
//! same hash at each index; once two have done something different they never agree again, short of a collision.
//! The hash travels in the application record, by the same commit as the changes, and in the head of a snapshot.
//!
//! What is mixed in is what apply *did* (the version's key with its revision, its header, its value), not the command
//! that it was given: that one's bytes the log checks already. So a member that computes another version, revision
//! or creation differs at once, whatever the reason: another program, a broken processor, a bit that flipped
//! in memory before the cell was made, or in a page from which the entry took something over.
//!
//! What it does not see: a bit that flips in a page after it was written and that no later entry builds on. Pages
//! have checksums for the way to the disk and back. Nor does it see the cells of the list of revisions: each follows
//! from its version, and `check` holds them against each other.
//!
//! A value comes in by its CRC-32 and length, because mixing waits for the mixing before, and a CRC does not. Two
//! values that differ within 32 neighbouring bits never have the same CRC; others in one of 2^32 cases. Two
//! chains that differ meet again in one of 2^64 cases per step. Both are odds against accidents, not against
//! somebody who chooses values: such a one gains that a divergence that already happened stays unnoticed.

use super::digest::Digest;
use crate::base::crc::crc32;
use crate::base::{Revision, Term};

/// The hash of a store to which nothing was applied.
pub const START: u64 = Digest::new().value();

/// Mixes in one cell that was written: `head` and `value` together are what stands behind the key.
pub fn cell(hash: u64, root: usize, key: &[u8], head: &[u8], value: &[u8]) -> u64 {
    let mut digest = Digest::resume(hash);
    digest.string(key);
    digest.string(head);
    digest.number((root as u64) << 60 | (value.len() as u64) << 32 | u64::from(crc32(value)));
    digest.value()
}

/// Ends an entry that left the store at `revision`. Its index is not mixed in: it is how often this was done.
pub fn entry(hash: u64, term: Term, revision: Revision) -> u64 {
    let mut digest = Digest::resume(hash);
    digest.number(term ^ revision.rotate_left(32));
    digest.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of `storage-format.md` §6.5. A change here is a change of the format.
    #[test]
    fn the_values_never_change() {
        let written = cell(START, 0, b"a\0\xff\xff\xff\xff\xff\xff\xff\xfd", b"head", b"value");
        assert_eq!((START, written), (0xbb67_ae85_84ca_a73b, 0xa884_100c_74a8_85a2));
        assert_eq!(entry(written, 3, 2), 0xa0a3_609d_a067_c578);
    }

    #[test]
    fn whatever_differs_changes_the_hash() {
        let base = cell(START, 0, b"key", b"head", b"value");
        for other in [
            cell(base, 0, b"key", b"head", b"value"),
            cell(START, 2, b"key", b"head", b"value"),
            cell(START, 0, b"kez", b"head", b"value"),
            cell(START, 0, b"key", b"heae", b"value"),
            cell(START, 0, b"key", b"head", b"valuf"),
            cell(START, 0, b"key", b"head", b"value\0"),
            cell(START, 0, b"keyh", b"ead", b"value"),
            entry(base, 1, 1),
        ] {
            assert_ne!(base, other);
        }
        assert_ne!(entry(base, 1, 3), entry(base, 2, 3));
        assert_ne!(entry(base, 1, 3), entry(base, 1, 4));
        assert_ne!(entry(base, 1, 3), entry(base, 3, 1));
        assert_ne!(entry(base, 1, 3), entry(entry(base, 1, 3), 1, 3));
    }
}
