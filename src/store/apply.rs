//! Applies entries of the log: total, deterministic, all or nothing.

use bytes::Bytes;

use super::line::Line;
use super::range::ANSWER_BYTES_MAX;
use super::record::{self, Change, Header};
use super::revision::Rev;
use super::walk::{Bounds, Walk, key_value, value_at};
use super::{CHANGES, KEYS, Store, chain, damaged};
use crate::api::{Body, Command, Delete, Fault, KeyValue, Order, Put, successor};
use crate::base::planted;
use crate::base::{EntryId, MemberId, Result, Revision};
use crate::btree::{Spot, View};
use crate::io::Disk;

/// Keys of a deleted span that are collected before they are deleted: bounds the memory of a large one.
const DELETE_KEYS_MAX: usize = 1024;

/// What the store holds of a key.
pub(super) struct Known {
    pub header: Header,
    pub line: Line,
}

impl Known {
    pub fn rev(&self) -> Rev {
        self.line.newest().expect("a key that is known has changed")
    }
}

impl<D: Disk> Store<D> {
    /// Applies the entry behind the last one; None is an entry without a command, which changes nothing but
    /// the applied index and whose reply, an empty list of members, nobody waits for.
    ///
    /// An error comes from the tree. The store may hold half of the entry then; the member must stop.
    pub fn apply(&mut self, id: EntryId, command: Option<&Command>) -> Result<Body> {
        assert!(!self.broken, "an entry was applied half-way: the member should have stopped");
        assert_eq!(
            id.index,
            self.state.applied.index + 1,
            "entries are applied in order, each of them once; the last one was {}",
            self.state.applied
        );
        assert!(id.term >= self.state.applied.term, "terms never go back in a log");
        self.broken = true;
        let mut next = Rev::new(self.state.revision + 1, 0);
        let body = match command {
            None => Body::Members(Vec::new()),
            Some(command) if let Some(fault) = self.refusal(command) => Body::Fault(fault),
            Some(Command::Put(put)) => self.put(put, &mut next)?,
            Some(Command::Delete(delete)) => {
                match self.previous_fits(&delete.span, delete.prev_kv, &mut ANSWER_BYTES_MAX.clone())? {
                    Ok(()) => self.delete(delete, &mut next)?,
                    Err(fault) => Body::Fault(fault),
                }
            }
            Some(Command::Txn(txn)) => self.txn(txn)?,
            Some(Command::Publish { member, name, client_urls }) => {
                self.publish(*member, name, client_urls)?
            }
            Some(Command::Members(change)) => self.change_members(change)?,
            Some(Command::Compact(compact)) => self.compact(compact),
            Some(Command::LeaseGrant { id: lease, ttl_s }) => self.grant_lease(id, *lease, *ttl_s)?,
            Some(Command::LeaseRevoke { term, leases }) => self.revoke_leases(id, *term, leases)?,
            Some(Command::LeaseCheckpoint { term, leases }) => self.checkpoint_leases(id, *term, leases)?,
            Some(Command::Alarm { member, raised }) => self.sound(*member, *raised),
            Some(Command::ChangeAlarms(change)) => self.change_alarms(*change)?,
        };
        self.state.applied = id;
        self.state.hash = chain::entry(self.state.hash, id.term, self.state.revision);
        self.broken = false;
        Ok(body)
    }

    /// `next` is where the change goes; the one behind it, afterwards.
    pub(super) fn put(&mut self, put: &Put, next: &mut Rev) -> Result<Body> {
        if put.lease != 0 && self.lease(put.lease)?.is_none() {
            return Ok(Body::Fault(Fault::no_lease()));
        }
        let revision = next.main;
        let (spot, known) = self.known(&put.key)?;
        let is_live =
            |known: &&Known| !known.header.tombstone || planted::on("store-version-survives-delete");
        let live = known.as_ref().filter(is_live).map(|known| (known.rev(), known.header));
        let Some((header, old_value)) = self.plan_put(put, revision, live)? else {
            self.state.revision += u64::from(planted::on("store-failed-put-is-a-revision"));
            return Ok(Body::Fault(Fault::no_key()));
        };
        let value = match &old_value {
            Some(kept) if put.ignore_value && !planted::on("store-kept-value-is-lost") => kept,
            _ => &put.value,
        };
        self.change_key(spot, &put.key, known, next, &header, value)?;
        self.state.revision = revision;
        let previous = put.prev_kv.then(|| {
            let (rev, header) = live?;
            Some(key_value(put.key.clone(), rev, &header, old_value.unwrap_or_default()))
        });
        Ok(Body::Put { revision, previous })
    }

    /// What a put makes of its key, and the value that is there if it has to be known; None if the put keeps
    /// something of a key that is not there.
    fn plan_put(
        &self,
        put: &Put,
        revision: Revision,
        live: Option<(Rev, Header)>,
    ) -> Result<Option<(Header, Option<Bytes>)>> {
        let Some((rev, old)) = live else {
            let header = Header { tombstone: false, create: revision, version: 1, lease: put.lease };
            return Ok((!put.ignore_value && !put.ignore_lease).then_some((header, None)));
        };
        let header = Header {
            create: old.create,
            version: old.version + 1 + u64::from(self.misapplies()),
            lease: if put.ignore_lease { old.lease } else { put.lease },
            tombstone: false,
        };
        let value =
            if put.prev_kv || put.ignore_value { Some(value_at(&self.tree, &self.path, rev)?) } else { None };
        Ok(Some((header, value)))
    }

    /// Apply that looks at whose store it is.
    fn misapplies(&self) -> bool {
        planted::on("store-apply-differs-at-a-member") && self.state.identity.member == 1
    }

    /// All keys of the span go in one revision, sub-revisions in key order; no revision if there are none.
    pub(super) fn delete(&mut self, delete: &Delete, next: &mut Rev) -> Result<Body> {
        let mut bounds = Bounds::of(&delete.span);
        let mut deleted = 0;
        let mut previous = Vec::new();
        while !bounds.is_empty() {
            let batch = self.collect_live(&bounds, delete.prev_kv)?;
            let Some(last) = batch.last() else { break };
            bounds.from = successor(&last.key);
            for doomed in batch {
                let (spot, known) = self.known(&doomed.key)?;
                assert!(known.is_some(), "it was just found");
                self.change_key(spot, &doomed.key, known, next, &Header::tombstone(), &[])?;
                deleted += 1;
                if delete.prev_kv {
                    previous.push(doomed);
                }
            }
        }
        if deleted > 0 || planted::on("store-empty-delete-is-a-revision") {
            self.state.revision = next.main;
        }
        Ok(Body::Delete { revision: self.state.revision, deleted, previous })
    }

    /// The first live keys within the bounds.
    fn collect_live(&self, bounds: &Bounds, with_values: bool) -> Result<Vec<KeyValue>> {
        let mut walk = Walk::new(&self.tree, &self.path, bounds, Order::Ascending, None);
        let mut batch = Vec::new();
        while batch.len() < DELETE_KEYS_MAX && walk.advance()? {
            batch.push(walk.key_value(with_values)?);
        }
        Ok(batch)
    }

    fn publish(&mut self, id: MemberId, name: &str, client_urls: &[String]) -> Result<Body> {
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else {
            return Ok(Body::Fault(Fault::no_member()));
        };
        member.name = name.to_string();
        member.client_urls = client_urls.to_vec();
        let member = member.clone();
        self.put_member(&member)?;
        Ok(Body::Members(self.members.clone()))
    }

    /// Where a key's cell is or belongs, and what it says; nothing, if it ends with a deletion that is to be swept. A put
    /// must not tell whether that has been done here.
    pub(super) fn known(&self, key: &[u8]) -> Result<(Spot, Option<Known>)> {
        let mut cursor = self.tree.cursor(View::Now, KEYS);
        let spot = cursor.seek_spot(key)?;
        if !spot.is_taken() {
            return Ok((spot, None));
        }
        let value = cursor.value();
        let decode = |record: &[u8]| {
            let (newest, header, line) = record::decode_key(record)?;
            Ok(Known { header, line: record::decode_line(newest, line)? })
        };
        let known = match value.as_slice() {
            Some(record) => decode(record),
            None => decode(&value.to_vec()?),
        };
        let known = known.map_err(|bad| damaged(&self.path, "a key", bad))?;
        let is_dead =
            self.is_dead(known.rev(), &known.header) && !planted::on("store-reborn-on-its-old-line");
        Ok((spot, (!is_dead).then_some(known)))
    }

    /// Makes `next` the newest change of a key, of which `known` is what the store held before, and counts it up. Whatever
    /// changes a key goes through here: this is also what attaches it to a lease, and detaches it.
    pub(super) fn change_key(
        &mut self,
        spot: Spot,
        key: &[u8],
        known: Option<Known>,
        next: &mut Rev,
        header: &Header,
        value: &[u8],
    ) -> Result<()> {
        let (old_lease, mut line) = known.map(|known| (known.header.lease, known.line)).unwrap_or_default();
        let rev = *next;
        assert!(
            line.newest().is_none_or(|newest| newest.main < rev.main),
            "a key changes once in a revision"
        );
        let links = line.push(rev);
        let mut record = std::mem::take(&mut self.scratch);
        record.clear();
        record::encode_key(header, &line, &mut record);
        let counted = !header.tombstone || planted::on("store-deleted-still-counts");
        self.tree.insert_at(spot, key, &[&record], counted)?;
        record.clear();
        Change { header: *header, links }.encode(rev, key.len(), &mut record);
        self.state.hash = chain::change(self.state.hash, &rev.encode(), &record, key, value);
        self.tree.append(CHANGES, &rev.encode(), &[&record, key, value], false)?;
        self.scratch = record;
        if !planted::on("store-sub-revision-stays") {
            next.sub = next.sub.checked_add(1).expect("a store holds fewer than 2^32 keys");
        }
        self.attach(key, old_lease, header.lease)
    }
}
