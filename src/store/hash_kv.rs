//! The hash of the history, as etcd's HashKV reckons it: members, of this program or of etcd, that did the same to the same
//! keys in the same revisions have the same one.
//!
//! It is the CRC-32C of the word `key` and then, for each change up to a revision R, in their order: the revision as etcd
//! writes it, and the key with its fields as a message of protocol buffers (`storage-format.md` §6.8). Of changes at the
//! compact revision C or before only those count that R sees: what else is there of them differs from member to member. (Where R
//! sees no key at all, those that C sees: so etcd 3.5 does it.)
//!
//! The store may be large, so this goes on in parts, and nothing is pinned meanwhile: a change that counts stays as it is until a
//! compaction. After one, a hashing begins anew.

use std::ops::ControlFlow;

use super::Store;
use super::apply::Known;
use super::changes::Changed;
use super::range::Budget;
use super::revision::Rev;
use super::varint;
use super::walk;
use crate::api::Fault;
use crate::api::KeyValue;
use crate::base::crc::crc32c_from;
use crate::base::{Result, Revision};
use crate::io::Disk;

/// A hashing under way.
#[derive(Debug)]
pub struct HashingKv {
    asked: Revision,
    /// R and C.
    revision: Revision,
    compact_revision: Revision,
    next: Rev,
    crc: u32,
    /// The same where changes at C or before count that C sees; not kept up any more once R is known to see a key.
    crc_as_of_c: u32,
    is_key_seen: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    pub hash: u32,
    pub revision: Revision,
    pub compact_revision: Revision,
}

impl<D: Disk> Store<D> {
    /// Of the history up to a revision; 0 = now.
    pub fn begin_hash_kv(&self, asked: Revision) -> Result<HashingKv, Fault> {
        let compact_revision = self.compact_revision();
        if asked > self.revision() {
            return Err(Fault::future(self.revision()));
        }
        if asked > 0 && asked <= compact_revision {
            return Err(Fault::compacted(compact_revision));
        }
        let revision = if asked == 0 { self.revision() } else { asked };
        let crc = crc32c_from(0, b"key");
        Ok(HashingKv {
            asked,
            revision,
            compact_revision,
            next: Rev::default(),
            crc,
            crc_as_of_c: crc,
            // Without a compaction it makes no difference.
            is_key_seen: compact_revision == 0,
        })
    }

    /// Goes on within a budget; the outcome, if it has come to the end.
    pub fn hash_kv_part(
        &self,
        hashing: &mut HashingKv,
        budget: &mut Budget,
    ) -> Result<Result<Option<HashKv>, Fault>> {
        if hashing.compact_revision != self.compact_revision() {
            match self.begin_hash_kv(hashing.asked) {
                Ok(anew) => *hashing = anew,
                Err(fault) => return Ok(Err(fault)),
            }
        }
        let HashingKv { revision, compact_revision, .. } = *hashing;
        let mut encoded = Vec::new();
        let mut is_over = false;
        let is_last = self.visit_changes(hashing.next, |changed| {
            is_over = changed.rev.main > revision;
            if is_over || budget.keys == 0 || budget.bytes == 0 {
                return Ok(ControlFlow::Break(()));
            }
            budget.keys -= 1;
            hashing.next = changed.rev.next();
            let is_late = changed.rev.main > compact_revision;
            let is_seen = (!is_late || !hashing.is_key_seen) && self.is_seen(changed, revision)?;
            hashing.is_key_seen |= is_seen;
            let counts_as_of_c =
                !hashing.is_key_seen && (is_late || self.is_seen(changed, compact_revision)?);
            if is_late || is_seen || counts_as_of_c {
                encode(changed, &mut encoded)?;
                budget.bytes = budget.bytes.saturating_sub(encoded.len());
            }
            if is_late || is_seen {
                hashing.crc = crc32c_from(hashing.crc, &encoded);
            }
            if counts_as_of_c {
                hashing.crc_as_of_c = crc32c_from(hashing.crc_as_of_c, &encoded);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let hash = if hashing.is_key_seen { hashing.crc } else { hashing.crc_as_of_c };
        let outcome = HashKv { hash, revision, compact_revision };
        Ok(Ok((is_last || is_over).then_some(outcome)))
    }

    /// Whether the change is what a revision behind it sees of its key.
    fn is_seen(&self, changed: &Changed<'_, '_, D>, at: Revision) -> Result<bool> {
        if changed.is_delete() {
            return Ok(false);
        }
        let (_, Some(Known { line, .. })) = self.known(&changed.key)? else { return Ok(false) };
        let links = |rev| Ok(walk::head_at(&self.tree, &self.path, rev)?.links);
        Ok(line.find(at, links)? == Some(changed.rev))
    }
}

/// etcd's key and value of a change, one behind the other.
fn encode<D: Disk>(changed: &Changed<'_, '_, D>, out: &mut Vec<u8>) -> Result<()> {
    out.clear();
    out.extend_from_slice(&changed.rev.main.to_be_bytes());
    out.push(b'_');
    out.extend_from_slice(&u64::from(changed.rev.sub).to_be_bytes());
    let kv = changed.key_value()?;
    if changed.is_delete() {
        out.push(b't');
        put_bytes(1, &kv.key, out);
        return Ok(());
    }
    let KeyValue { key, value, create_revision, mod_revision, version, lease } = kv;
    put_bytes(1, &key, out);
    put_number(2, create_revision, out);
    put_number(3, mod_revision, out);
    put_number(4, version, out);
    put_bytes(5, &value, out);
    put_number(6, lease.cast_unsigned(), out);
    Ok(())
}

/// Fields of protocol buffers: what is 0 or empty is left out.
fn put_number(field: u8, number: u64, out: &mut Vec<u8>) {
    if number != 0 {
        out.push(field << 3);
        varint::put(out, number);
    }
}

fn put_bytes(field: u8, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        out.push(field << 3 | 2);
        varint::put(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}
