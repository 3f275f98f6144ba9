//! What the store says of itself: the tree's application record, stored in the tree's meta page and so by the
//! same commit as the changes that it speaks of (`storage-format.md` §6.1).

use std::path::Path;

use bytes::BufMut;

use super::chain;
use super::revision::Rev;
use crate::base::planted;
use crate::base::{ClusterId, EntryId, Error, MemberId, Reader, Result, Revision};
use crate::btree::USER_BYTES_MAX;

/// Whose store it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub member: MemberId,
}

/// The record.
///
/// ```text
/// version u16 | phase u16 | swept sub u32 | cluster u64 | member u64 | applied term u64 | applied index u64 |
/// revision u64 | compact revision u64 | state hash u64 | swept main u64 | alarm u64
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub phase: Phase,
    pub identity: Identity,
    /// The last entry whose effects the tree holds.
    pub applied: EntryId,
    pub revision: Revision,
    /// The first revision that can still be read; 0 = all can.
    pub compact_revision: Revision,
    /// How far this member has swept: what the compact revision made superfluous and that a change before this one tells
    /// of is gone ([`super::compact`]).
    pub swept: Rev,
    /// The member that had no room for more, by its quota: puts are refused. 0: there is room.
    pub alarm: MemberId,
    /// The chain over what every entry up to `applied` did ([`super::chain`]).
    pub hash: u64,
}

/// A file is filled under another name and renamed when complete; a filling one is never opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Filling,
    Complete,
    /// Complete, and known to differ from the state of the others: it must be rebuilt, and not be served.
    Diverged,
}

/// Versions 1 to 4 had other records; no release wrote them.
const VERSION: u16 = 5;
const FILLING: u16 = 1;
const COMPLETE: u16 = 2;
const DIVERGED: u16 = 3;
const STATE_BYTES: usize = 80;
const _: () = assert!(STATE_BYTES <= USER_BYTES_MAX);

/// The revision of a store in which nothing was ever written: etcd's.
pub const FIRST_REVISION: Revision = 1;

impl State {
    pub fn new(identity: Identity) -> State {
        State {
            phase: Phase::Filling,
            identity,
            applied: EntryId::ZERO,
            revision: FIRST_REVISION,
            compact_revision: 0,
            swept: Rev::default(),
            alarm: 0,
            hash: chain::START,
        }
    }

    pub fn encode(&self) -> [u8; STATE_BYTES] {
        let mut bytes = [0; STATE_BYTES];
        let mut out = &mut bytes[..];
        out.put_u16_le(VERSION);
        out.put_u16_le(match self.phase {
            Phase::Filling => FILLING,
            Phase::Complete => COMPLETE,
            Phase::Diverged => DIVERGED,
        });
        let swept = match planted::on("store-sweep-is-done-when-it-begins") {
            true => Rev::new(self.compact_revision + 1, 0),
            false => self.swept,
        };
        out.put_u32_le(swept.sub);
        out.put_u64_le(self.identity.cluster);
        out.put_u64_le(self.identity.member);
        out.put_u64_le(self.applied.term);
        out.put_u64_le(self.applied.index);
        out.put_u64_le(self.revision);
        out.put_u64_le(self.compact_revision);
        out.put_u64_le(self.hash);
        out.put_u64_le(swept.main);
        out.put_u64_le(self.alarm);
        assert!(out.is_empty(), "the fields fill the record");
        bytes
    }

    /// Of a tree file at `path`. A record that this version does not understand is refused by name.
    pub fn decode(path: &Path, record: &[u8]) -> Result<State> {
        let damaged =
            |found: String, expected: &str| Error::corrupt(path, 0, "the store's record", found, expected);
        let mut reader = Reader::new(record);
        if let Ok(version) = reader.u16()
            && version != VERSION
            && version != 0
        {
            let remedy = if version > VERSION { "upgrade it" } else { "no release wrote that: start anew" };
            return Err(Error::Refused(format!(
                "{} is a store of format {version}; this program knows {VERSION}: {remedy}",
                path.display()
            )));
        }
        if record.len() != STATE_BYTES {
            return Err(damaged(format!("{} bytes", record.len()), "80 bytes"));
        }
        let mut reader = Reader::new(record);
        let mut fields = || -> Result<_, crate::base::codec::Short> {
            let head = (reader.u16()?, reader.u16()?, reader.u32()?);
            let identity = Identity { cluster: reader.u64()?, member: reader.u64()? };
            let applied = EntryId::new(reader.u64()?, reader.u64()?);
            let numbers = [reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?];
            Ok((head, identity, applied, numbers))
        };
        let ((version, phase, swept_sub), identity, applied, numbers) = fields().expect("80 bytes are there");
        let [revision, compact_revision, hash, swept_main, alarm] = numbers;
        let phase = match (version, phase) {
            (VERSION, FILLING) => Phase::Filling,
            (VERSION, COMPLETE) => Phase::Complete,
            (VERSION, DIVERGED) => Phase::Diverged,
            other => return Err(damaged(format!("{other:?}"), "version 5, phase 1 to 3")),
        };
        if revision < FIRST_REVISION || compact_revision > revision {
            return Err(damaged(
                format!("revision {revision}, compacted at {compact_revision}"),
                "a revision from 1, compacted at or below it",
            ));
        }
        let swept = Rev::new(swept_main, swept_sub);
        if swept > Rev::new(compact_revision + 1, 0) {
            let expected = format!("{compact_revision}, the compact revision, at most");
            return Err(damaged(format!("swept to {swept}"), &expected));
        }
        Ok(State { phase, identity, applied, revision, compact_revision, swept, alarm, hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> State {
        State {
            phase: Phase::Complete,
            identity: Identity { cluster: 0x11, member: 0x22 },
            applied: EntryId::new(3, 4),
            revision: 5,
            compact_revision: 2,
            swept: Rev::new(1, 7),
            alarm: 8,
            hash: 6,
        }
    }

    /// The bytes of `storage-format.md` §6.1. A change here is a change of the format.
    #[test]
    fn the_layout_never_changes() {
        let hex: String = example().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0500020007000000\
             1100000000000000220000000000000003000000000000000400000000000000\
             05000000000000000200000000000000060000000000000001000000000000000800000000000000"
        );
    }

    #[test]
    fn records_come_back_and_foreign_ones_are_refused() {
        let path = Path::new("tree");
        assert_eq!(State::decode(path, &example().encode()).unwrap(), example());
        let altered = |at: usize, byte: u8| {
            let mut bytes = example().encode();
            bytes[at] = byte;
            State::decode(path, &bytes).unwrap_err().to_string()
        };
        assert_eq!(altered(0, 9), "tree is a store of format 9; this program knows 5: upgrade it");
        assert!(altered(0, 3).contains("no release wrote that"));
        for (at, byte) in [(0, 0), (2, 4), (40, 0), (48, 6), (64, 4)] {
            assert!(altered(at, byte).contains("is damaged"), "byte {at} = {byte}");
        }
        assert!(State::decode(path, &example().encode()[..79]).is_err());
        assert!(State::decode(path, b"").is_err());
    }
}
