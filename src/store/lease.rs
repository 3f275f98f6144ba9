//! Leases, as far as they are the same on every member: which there are, what was granted, what is attached
//! (`storage-format.md` §6.7).
//!
//! ```text
//!   root 3, leases                          root 4, attached keys         root 0, keys
//!   17  ttl 60, remaining 60, entry 5       17 a                          a  newest 9, lease 17
//!   18  ttl 600, remaining 310, entry 7     17 b                          b  newest 4, lease 17
//!                                           18 c                          c  newest 6, lease 18
//! ```
//!
//! Nothing here knows what time it is. Only the leader does, and only entries of the log end a lease. What is kept of time is
//! what a leader said was left when it last said so, in seconds: whoever leads next begins with that.
//!
//! An id may be used again as soon as its lease is gone. So a lease is told from others that had its id by its *generation*,
//! the index of the entry that granted it. What a leader decides about a lease names both.
//!
//! A leader's word counts only in an entry of its own term. Within one term there is one leader, who knows of every renewal
//! that it promised, and decides after all of them; and what earlier leaders promised or decided lies before the first entry
//! of the term, after which it began to count. So nothing else has to be compared: a lease that was renewed in a later term
//! cannot be ended by an entry of an earlier one.

use bytes::Bytes;

use super::record::{Header, Malformed};
use super::revision::Rev;
use super::{LEASE_KEYS, LEASES, Store, chain, damaged, varint};
use crate::api::{Body, Fault, LeaseAnswer, LeaseRef};
use crate::base::planted;
use crate::base::{EntryId, Index, LeaseId, Reader, Result, Term};
use crate::btree::View;
use crate::io::Disk;

/// Keys that are collected before they are deleted.
const KEYS_AT_ONCE: usize = 256;

/// Bytes of an id in front of a key.
pub const ID_BYTES: usize = 8;

/// A lease, as the log knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The index of the entry that granted it.
    pub generation: Index,
    pub ttl_s: u64,
    /// What a new leader must give it: all of the TTL, unless a checkpoint said less.
    pub remaining_s: u64,
}

/// `ttl | remaining | generation`, all varints.
fn encode(lease: &Lease) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 * varint::VARINT_BYTES_MAX);
    for number in [lease.ttl_s, lease.remaining_s, lease.generation] {
        varint::put(&mut out, number);
    }
    out
}

pub fn decode(record: &[u8]) -> Result<Lease, Malformed> {
    let mut reader = Reader::new(record);
    let mut take = || varint::take(&mut reader);
    let lease = Lease { ttl_s: take()?, remaining_s: take()?, generation: take()? };
    let sound = (1..=lease.ttl_s).contains(&lease.remaining_s) && lease.generation > 0 && reader.is_empty();
    sound.then_some(lease).ok_or_else(|| Malformed(format!("{lease:?}, and {} bytes more", reader.left())))
}

/// Big-endian, so that a lease's keys are neighbours.
pub fn encode_id(id: LeaseId) -> [u8; ID_BYTES] {
    id.to_be_bytes()
}

pub fn decode_id(key: &[u8]) -> Result<LeaseId, Malformed> {
    let bytes = key.try_into().map_err(|_| Malformed(format!("the id of a lease in {} bytes", key.len())))?;
    let id = LeaseId::from_be_bytes(bytes);
    if id == 0 { Err(Malformed("a lease with the id 0".into())) } else { Ok(id) }
}

fn attached(id: LeaseId, key: &[u8]) -> Vec<u8> {
    [&encode_id(id), key].concat()
}

/// The lease and the key of a cell in [`LEASE_KEYS`].
pub fn decode_attached(cell: &[u8]) -> Result<(LeaseId, &[u8]), Malformed> {
    match cell.split_at_checked(ID_BYTES) {
        Some((id, key)) if !key.is_empty() => Ok((decode_id(id)?, key)),
        _ => Err(Malformed(format!("an attached key in {} bytes", cell.len()))),
    }
}

impl<D: Disk> Store<D> {
    pub fn lease(&self, id: LeaseId) -> Result<Option<Lease>> {
        let Some(value) = self.tree.get(View::Now, LEASES, &encode_id(id))? else { return Ok(None) };
        let lease = match value.as_slice() {
            Some(record) => decode(record),
            None => decode(&value.to_vec()?),
        };
        lease.map(Some).map_err(|bad| damaged(&self.path, "a lease", bad))
    }

    /// The first leases behind one, in an order of the store's own, `count_max` at most.
    pub fn leases(&self, after: Option<LeaseId>, count_max: usize) -> Result<Vec<(LeaseId, Lease)>> {
        let mut cursor = self.tree.cursor(View::Now, LEASES);
        let bad = |bad| damaged(&self.path, "a lease", bad);
        let mut there = match after {
            None => cursor.first()?,
            // The shortest key behind that of the last one.
            Some(last) => cursor.seek(&attached(last, &[0]))?,
        };
        let mut found = Vec::new();
        while there && found.len() < count_max {
            let id = decode_id(&cursor.key()?).map_err(bad)?;
            found.push((id, decode(&cursor.value().to_vec()?).map_err(bad)?));
            there = cursor.next()?;
        }
        Ok(found)
    }

    /// The first keys that are attached to a lease, in order, `count_max` at most.
    pub fn lease_keys(&self, id: LeaseId, count_max: usize) -> Result<Vec<Bytes>> {
        let mut keys = Vec::new();
        self.each_lease_key(id, |key| {
            keys.push(Bytes::copy_from_slice(key));
            keys.len() < count_max
        })?;
        Ok(keys)
    }

    /// How many keys are attached to a lease, counted up to `count_max`.
    pub fn lease_key_count(&self, id: LeaseId, count_max: usize) -> Result<usize> {
        let mut count = 0;
        self.each_lease_key(id, |_| {
            count += 1;
            count < count_max
        })?;
        Ok(count)
    }

    fn each_lease_key(&self, id: LeaseId, mut visit: impl FnMut(&[u8]) -> bool) -> Result<()> {
        let mut cursor = self.tree.cursor(View::Now, LEASE_KEYS);
        let mut there = cursor.seek(&encode_id(id))?;
        while there {
            let cell = cursor.key()?;
            let (of, key) =
                decode_attached(&cell).map_err(|bad| damaged(&self.path, "a lease's key", bad))?;
            if of != id || !visit(key) {
                return Ok(());
            }
            there = cursor.next()?;
        }
        Ok(())
    }

    pub(super) fn grant_lease(&mut self, entry: EntryId, id: LeaseId, ttl_s: u64) -> Result<Body> {
        if id == 0 {
            return Ok(Body::Fault(Fault::no_lease()));
        }
        if self.lease(id)?.is_some() {
            return Ok(Body::Fault(Fault::lease_exists()));
        }
        let ttl_s = ttl_s.max(1);
        self.write_lease(id, &Lease { generation: entry.index, ttl_s, remaining_s: ttl_s })?;
        Ok(Body::Lease(LeaseAnswer::Granted { id, ttl_s }))
    }

    /// Ends leases. Each that has keys is a revision of its own.
    pub(super) fn revoke_leases(&mut self, entry: EntryId, term: Term, leases: &[LeaseRef]) -> Result<Body> {
        let (mut ended, mut deleted) = (0, 0);
        if term == 0 || counts(entry, term) {
            for lease in leases {
                let known = self.lease(lease.id)?;
                let same = |known: &Lease| term == 0 || is_same(known, lease);
                if known.as_ref().is_some_and(same) {
                    deleted += self.end_lease(lease.id)?;
                    ended += 1;
                }
            }
        }
        if ended == 0 {
            return Ok(Body::Fault(Fault::no_lease()));
        }
        Ok(Body::Lease(LeaseAnswer::Revoked { revision: self.state.revision, deleted }))
    }

    /// Deletes what is attached, in one revision, and then the lease.
    fn end_lease(&mut self, id: LeaseId) -> Result<u64> {
        let mut next = Rev::new(self.state.revision + 1, 0);
        let mut deleted = 0;
        loop {
            let keys = self.lease_keys(id, KEYS_AT_ONCE)?;
            for key in &keys {
                let (spot, known) = self.known(key)?;
                let Some(known) = known.filter(|known| known.header.lease == id) else {
                    let what = Malformed("a key that is not attached to it".into());
                    return Err(damaged(&self.path, "a lease's key", what));
                };
                self.change_key(spot, key, Some(known), &mut next, &Header::tombstone(), &[])?;
                deleted += 1;
                self.state.revision = next.main;
                next.main += u64::from(planted::on("store-revoke-in-many-revisions"));
            }
            if keys.is_empty() {
                break;
            }
        }
        let key = encode_id(id);
        self.tree.remove(LEASES, &key)?;
        self.state.hash = chain::lease(self.state.hash, &key, &[]);
        Ok(deleted)
    }

    /// Notes what leases have left. Nobody waits for the answer.
    pub(super) fn checkpoint_leases(
        &mut self,
        entry: EntryId,
        term: Term,
        leases: &[(LeaseRef, u64)],
    ) -> Result<Body> {
        for (lease, remaining_s) in leases.iter().filter(|_| counts(entry, term)) {
            if let Some(known) = self.lease(lease.id)?.filter(|known| is_same(known, lease)) {
                let remaining_s = (*remaining_s).clamp(1, known.ttl_s);
                self.write_lease(lease.id, &Lease { remaining_s, ..known })?;
            }
        }
        Ok(Body::Members(Vec::new()))
    }

    fn write_lease(&mut self, id: LeaseId, lease: &Lease) -> Result<()> {
        let (key, record) = (encode_id(id), encode(lease));
        self.state.hash = chain::lease(self.state.hash, &key, &record);
        self.tree.insert(LEASES, &key, &[&record], false)
    }

    /// A key has changed: it leaves the one lease for the other; 0 is none.
    pub(super) fn attach(&mut self, key: &[u8], old: LeaseId, new: LeaseId) -> Result<()> {
        if old == new {
            return Ok(());
        }
        if old != 0 && !planted::on("store-put-leaves-the-key-attached") {
            self.tree.remove(LEASE_KEYS, &attached(old, key))?;
        }
        if new != 0 {
            self.tree.insert(LEASE_KEYS, &attached(new, key), &[], false)?;
        }
        Ok(())
    }
}

/// Whether the word of the leader of `term` counts in this entry.
fn counts(entry: EntryId, term: Term) -> bool {
    term == entry.term || planted::on("store-lease-entry-of-an-old-term-counts")
}

fn is_same(known: &Lease, lease: &LeaseRef) -> bool {
    known.generation == lease.generation || planted::on("store-lease-of-another-generation-ends")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of `storage-format.md` §6.7. A change here is a change of the format.
    #[test]
    fn the_layouts_never_change() {
        let lease = Lease { generation: 5, ttl_s: 600, remaining_s: 310 };
        assert_eq!(encode(&lease), [0xd8, 0x04, 0xb6, 0x02, 0x05]);
        assert_eq!(decode(&encode(&lease)), Ok(lease));
        assert_eq!(encode_id(-2), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(attached(258, b"k"), [0, 0, 0, 0, 0, 0, 1, 2, b'k']);
        assert_eq!(decode_attached(&attached(258, b"k")), Ok((258, &b"k"[..])));
    }

    #[test]
    fn hostile_records_are_errors() {
        for record in [&[][..], &[1, 1], &[1, 1, 0], &[1, 2, 1], &[1, 0, 1], &[1, 1, 1, 1], &[0x80, 0, 1, 1]]
        {
            assert!(decode(record).is_err(), "{record:?}");
        }
        for cell in [&[][..], &[0; 8], &[0; 9], &[1; 8]] {
            assert!(decode_attached(cell).is_err(), "{cell:?}");
        }
        assert!(decode_id(&[1; 7]).is_err() && decode_id(&[0; 8]).is_err() && decode_id(&[1; 9]).is_err());
    }
}
