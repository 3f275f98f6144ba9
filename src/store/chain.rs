//! The state hash: 64 bits that stand for everything that the entries up to some index did here.
//!
//! It is a chain. Each change that an entry makes is mixed in, and then the entry's term and the revision, so that entries
//! without an effect count too (`storage-format.md` §6.5). Members that applied the same entries in the same way have the
//! same hash at each index; once two have done something different they never agree again, short of a collision.
//! The hash travels in the application record, by the same commit as the changes, and in the head of a snapshot.
//!
//! What is mixed in is what apply *did* (the revision of the change, its record, key and value), not the command
//! that it was given: that one's bytes the log checks already. So a member that computes another version, revision
//! or creation differs at once, whatever the reason: another program, a broken processor, a bit that flipped
//! in memory before the record was made, or in a page from which the entry took something over.
//!
//! What it does not see: a bit that flips in a page after it was written and that no later entry builds on. Pages
//! have checksums for the way to the disk and back. Nor does it see the cells of keys: each follows from the changes
//! of its key, and `check` holds them against each other.
//!
//! A value comes in by its CRC-32 and length, because mixing waits for the mixing before, and a CRC does not. Two
//! values that differ within 32 neighbouring bits never have the same CRC; others in one of 2^32 cases. Two
//! chains that differ meet again in one of 2^64 cases per step. Both are odds against accidents, not against
//! somebody who chooses values: such a one gains that a divergence that already happened stays unnoticed.

use super::LEASES;
use super::digest::Digest;
use crate::api::Alarm;
use crate::base::crc::crc32;
use crate::base::{MemberId, Revision, Term};

/// The hash of a store to which nothing was applied.
pub const START: u64 = Digest::new().value();

/// Mixes in a change of a key: its revision as encoded, what its record says before the key, key and value.
pub fn change(hash: u64, rev: &[u8], head: &[u8], key: &[u8], value: &[u8]) -> u64 {
    let mut digest = Digest::resume(hash);
    digest.string(rev);
    digest.string(head);
    digest.string(key);
    digest.number((value.len() as u64) << 32 | u64::from(crc32(value)));
    digest.value()
}

/// Mixes in the record of a member.
pub fn member(hash: u64, key: &[u8], record: &[u8]) -> u64 {
    let mut digest = Digest::resume(hash);
    digest.string(key);
    digest.string(record);
    digest.value()
}

/// Mixes in that the history ends before a revision.
pub fn compaction(hash: u64, revision: Revision) -> u64 {
    let mut digest = Digest::resume(hash);
    digest.string(b"compact");
    digest.number(revision);
    digest.value()
}

/// Mixes in who has no room, from now on.
pub fn no_room(hash: u64, member: MemberId) -> u64 {
    let mut digest = Digest::resume(hash);
    digest.string(b"alarm");
    digest.number(member);
    digest.value()
}

/// Mixes in that an alarm of a client stands from now on, or does not any more.
pub fn alarm(hash: u64, alarm: Alarm, stands: bool) -> u64 {
    let mut digest = Digest::resume(hash);
    digest.string(b"alarms");
    for number in [alarm.member, u64::from(alarm.kind.number()), u64::from(stands)] {
        digest.number(number);
    }
    digest.value()
}

/// Mixes in the record of a lease; an empty one says that it is gone. Its keys follow from the changes of keys.
pub fn lease(hash: u64, key: &[u8], record: &[u8]) -> u64 {
    let mut digest = Digest::resume(hash);
    digest.number(LEASES as u64);
    digest.string(key);
    digest.string(record);
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
    use crate::api::AlarmKind;
    use crate::store::revision::Rev;

    /// The example of `storage-format.md` §6.5. A change here is a change of the format.
    #[test]
    fn the_values_never_change() {
        let written = change(START, &Rev::new(2, 0).encode(), b"head", b"key", b"value");
        assert_eq!((START, written), (0xbb67_ae85_84ca_a73b, 0x40a1_19b9_bef1_31b4));
        assert_eq!(entry(written, 3, 2), 0xf6a6_68a8_ad68_3382);
        assert_eq!(member(START, b"key", b"record"), 0x45eb_8fbc_dc69_138f);
        assert_eq!(no_room(START, 3), 0x71a3_8a13_677c_7c12);
        let corrupt = Alarm { member: 3, kind: AlarmKind::Corrupt };
        assert_eq!(alarm(START, corrupt, true), 0xcac1_378d_bb0b_3880);
        assert_eq!(compaction(START, 2), 0x9a6d_086c_5593_d2a9);
    }

    #[test]
    fn whatever_differs_changes_the_hash() {
        let full = Alarm { member: 0, kind: AlarmKind::NoSpace };
        let base = change(START, b"rev", b"head", b"key", b"value");
        for other in [
            change(base, b"rev", b"head", b"key", b"value"),
            change(START, b"rew", b"head", b"key", b"value"),
            change(START, b"rev", b"heae", b"key", b"value"),
            change(START, b"rev", b"head", b"kez", b"value"),
            change(START, b"rev", b"head", b"key", b"valuf"),
            change(START, b"rev", b"head", b"key", b"value\0"),
            change(START, b"revh", b"ead", b"key", b"value"),
            change(START, b"rev", b"headk", b"ey", b"value"),
            member(START, b"key", b"value"),
            compaction(START, 1),
            lease(START, b"key", b"value"),
            no_room(START, 1),
            no_room(START, 0),
            alarm(START, full, true),
            alarm(START, full, false),
            alarm(START, Alarm { member: 1, ..full }, true),
            alarm(START, Alarm { kind: AlarmKind::Corrupt, ..full }, true),
            entry(base, 1, 1),
        ] {
            assert_ne!(base, other);
        }
        assert_ne!(member(START, b"key", b"record"), member(START, b"keyr", b"ecord"));
        assert_ne!(entry(base, 1, 3), entry(base, 2, 3));
        assert_ne!(entry(base, 1, 3), entry(base, 1, 4));
        assert_ne!(entry(base, 1, 3), entry(base, 3, 1));
        assert_ne!(entry(base, 1, 3), entry(entry(base, 1, 3), 1, 3));
    }
}
