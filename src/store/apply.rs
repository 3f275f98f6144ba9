//! Applies entries of the log: total, deterministic, all or nothing.

use bytes::Bytes;

use super::record::Header;
use super::walk::{Bounds, Walk, key_value, read_record};
use super::{REVISIONS, Store, VERSIONS, chain, damaged, keys, range};
use crate::api::{Body, Command, Delete, Fault, KeyValue, Order, Put};
use crate::base::planted;
use crate::base::{EntryId, MemberId, Result, Revision};
use crate::btree::{Spot, View};
use crate::io::Disk;

/// Keys of a deleted span that are collected before they are deleted: bounds the memory of a large one.
const DELETE_KEYS_MAX: usize = 1024;

/// The newest version of a key.
struct Newest {
    revision: Revision,
    header: Header,
    /// Empty unless asked for.
    value: Bytes,
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
        let body = match command {
            None => Body::Members(Vec::new()),
            Some(Command::Put(put)) => self.put(put)?,
            Some(Command::Delete(delete)) => self.delete(delete)?,
            Some(Command::Publish { member, name, client_urls }) => {
                self.publish(*member, name, client_urls)?
            }
            Some(Command::Members(change)) => self.change_members(change)?,
        };
        self.state.applied = id;
        self.state.hash = chain::entry(self.state.hash, id.term, self.state.revision);
        self.broken = false;
        Ok(body)
    }

    fn put(&mut self, put: &Put) -> Result<Body> {
        if put.lease != 0 {
            return Ok(Body::Fault(Fault::no_lease()));
        }
        let revision = self.state.revision + 1;
        let version = keys::version_of(&put.key, revision);
        let (spot, newest) = self.newest(&version, put.prev_kv || put.ignore_value)?;
        let live =
            newest.filter(|newest| !newest.header.tombstone || planted::on("store-version-survives-delete"));
        if live.is_none() && (put.ignore_value || put.ignore_lease) {
            self.state.revision += u64::from(planted::on("store-failed-put-is-a-revision"));
            return Ok(Body::Fault(Fault::no_key()));
        }
        let header = match &live {
            None => Header { create: revision, version: 1, ..Header::default() },
            Some(live) => Header {
                create: live.header.create,
                version: live.header.version + 1 + u64::from(self.misapplies()),
                lease: if put.ignore_lease { live.header.lease } else { 0 },
                ..Header::default()
            },
        };
        let value = match &live {
            Some(live) if put.ignore_value && !planted::on("store-kept-value-is-lost") => &live.value,
            _ => &put.value,
        };
        self.add_version(
            spot,
            &version,
            &header,
            value,
            live.is_some() && !planted::on("store-superseded-still-counts"),
        )?;
        self.add_change(revision, 0, &put.key)?;
        self.state.revision = revision;
        let previous = put
            .prev_kv
            .then(|| live.map(|live| key_value(put.key.clone(), live.revision, &live.header, live.value)));
        Ok(Body::Put { revision, previous })
    }

    /// Apply that looks at whose store it is.
    fn misapplies(&self) -> bool {
        planted::on("store-apply-differs-at-a-member") && self.state.identity.member == 1
    }

    /// All keys of the span go in one revision, sub-revisions in key order; no revision if there are none.
    fn delete(&mut self, delete: &Delete) -> Result<Body> {
        let mut bounds = range::bounds(&delete.span);
        let revision = self.state.revision + 1;
        let mut sub = 0;
        let mut previous = Vec::new();
        while !bounds.is_empty() {
            let batch = self.collect_live(&bounds, delete.prev_kv)?;
            let Some(last) = batch.last() else { break };
            bounds.from = keys::after(&last.prefix);
            for Doomed { prefix, key_value } in batch {
                let version = keys::version(&prefix, revision);
                let spot = self.tree.cursor(View::Now, VERSIONS).seek_spot(&version)?;
                self.add_version(spot, &version, &Header::tombstone(sub), &[], true)?;
                self.add_change(revision, sub, &key_value.key)?;
                sub = sub.checked_add(1).expect("a store holds fewer than 2^32 keys");
                if delete.prev_kv {
                    previous.push(key_value);
                }
            }
        }
        if sub > 0 || planted::on("store-empty-delete-is-a-revision") {
            self.state.revision = revision;
        }
        Ok(Body::Delete { revision: self.state.revision, deleted: u64::from(sub), previous })
    }

    /// The first live keys within the bounds.
    fn collect_live(&self, bounds: &Bounds, with_values: bool) -> Result<Vec<Doomed>> {
        let mut walk = Walk::new(&self.tree, &self.path, bounds, Order::Ascending, None);
        let mut batch = Vec::new();
        while batch.len() < DELETE_KEYS_MAX && walk.advance()? {
            batch.push(Doomed { prefix: walk.prefix().to_vec(), key_value: walk.key_value(with_values)? });
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

    /// Where a new version of a key belongs, and the newest one there is: it comes right after that.
    fn newest(&self, version: &[u8], with_value: bool) -> Result<(Spot, Option<Newest>)> {
        let mut cursor = self.tree.cursor(View::Now, VERSIONS);
        let spot = cursor.seek_spot(version)?;
        if !cursor.valid() {
            return Ok((spot, None));
        }
        let key = cursor.key()?;
        if !key.starts_with(keys::prefix_of(version)) {
            return Ok((spot, None));
        }
        let (_, revision) = keys::split(&key).map_err(|bad| damaged(&self.path, "a key", bad))?;
        let (header, value) = read_record(&cursor.value(), with_value, &self.path)?;
        Ok((spot, Some(Newest { revision, header, value })))
    }

    /// Puts a version where it belongs; `replaces`: what comes after it is the live version of the key so far,
    /// which is counted no longer.
    fn add_version(
        &mut self,
        spot: Spot,
        version: &[u8],
        header: &Header,
        value: &[u8],
        replaces: bool,
    ) -> Result<()> {
        let (head, head_bytes) = header.encode();
        let (record, counted) = ([&head[..head_bytes], value], !header.tombstone);
        self.state.hash = chain::cell(self.state.hash, VERSIONS, version, record[0], value);
        if replaces {
            self.tree.supersede(spot, version, &record, counted)
        } else {
            self.tree.insert_at(spot, version, &record, counted)
        }
    }

    fn add_change(&mut self, revision: Revision, sub: u32, key: &[u8]) -> Result<()> {
        self.tree.append(REVISIONS, &keys::change(revision, sub), &[key], false)
    }
}

/// A live key that a delete has found.
struct Doomed {
    prefix: Vec<u8>,
    key_value: KeyValue,
}
