//! Walks the keys of a span as they were at a revision: one stop per key, on the version that was visible.

use std::path::Path;

use super::keys::{self, Malformed};
use super::record::Header;
use super::{VERSIONS, damaged};
use crate::api::{KeyValue, Order};
use crate::base::planted;
use crate::base::{Result, Revision};
use crate::btree::{Cursor, Tree, Value, View};
use crate::io::Disk;
use bytes::{Bytes, BytesMut};

/// Steps tried before a walk descends anew to get past the other versions of a key. Stepping to a neighbour
/// costs about an eighth of a descent.
const STEPS_MAX: usize = 8;

/// Which keys, as encoded bounds; no end = to the last key.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub from: Vec<u8>,
    pub to: Option<Vec<u8>>,
}

impl Bounds {
    pub fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }
}

/// A walk. Stands on the visible version of a key after [`Walk::advance`] has returned true.
pub struct Walk<'s, D: Disk> {
    cursor: Cursor<'s, D>,
    path: &'s Path,
    bounds: &'s Bounds,
    order: Order,
    /// None: the latest state.
    at: Option<Revision>,
    /// Of the key that the walk stands on; empty before the first one.
    prefix: Vec<u8>,
    revision: Revision,
}

impl<'s, D: Disk> Walk<'s, D> {
    pub fn new(
        tree: &'s Tree<D>,
        path: &'s Path,
        bounds: &'s Bounds,
        order: Order,
        at: Option<Revision>,
    ) -> Walk<'s, D> {
        let cursor = tree.cursor(View::Now, VERSIONS);
        Walk { cursor, path, bounds, order, at, prefix: Vec::new(), revision: 0 }
    }

    /// To the next key that was there; false at the end of the span.
    pub fn advance(&mut self) -> Result<bool> {
        match self.order {
            Order::Ascending => self.advance_up(),
            Order::Descending => self.advance_down(),
        }
    }

    pub fn key(&self) -> Result<Bytes> {
        Ok(keys::user_key(&self.prefix).map_err(|bad| self.damaged(bad))?.into())
    }

    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    pub fn key_value(&self, with_value: bool) -> Result<KeyValue> {
        let (header, value) = self.read(with_value)?;
        Ok(key_value(self.key()?, self.revision, &header, value))
    }

    fn advance_up(&mut self) -> Result<bool> {
        let mut there =
            if self.prefix.is_empty() { self.cursor.seek(&self.bounds.from)? } else { self.pass_key_up()? };
        while there {
            if !self.arrive()? {
                return Ok(false);
            }
            // On the newest version of a key that the walk has not seen.
            if self.find_visible()? {
                return Ok(true);
            }
            there = self.pass_key_up()?;
        }
        Ok(false)
    }

    /// Behind all versions of the key, wherever among them the cursor stands.
    fn pass_key_up(&mut self) -> Result<bool> {
        for _ in 0..STEPS_MAX {
            if !self.cursor.valid() || !self.cursor.key()?.starts_with(&self.prefix) {
                return Ok(self.cursor.valid());
            }
            self.cursor.next()?;
        }
        self.cursor.seek(&keys::after(&self.prefix))
    }

    fn advance_down(&mut self) -> Result<bool> {
        let mut there = if !self.prefix.is_empty() {
            self.pass_key_down()?
        } else if let Some(to) = &self.bounds.to {
            self.cursor.seek_before(to)?
        } else {
            self.cursor.last()?
        };
        while there {
            if !self.arrive()? {
                return Ok(false);
            }
            // On the oldest version of a key that the walk has not seen.
            let newest_is_here = self.at.is_none() && self.cursor.counted();
            if newest_is_here {
                return Ok(true);
            }
            if self.cursor.seek(&self.prefix)? && self.arrive()? && self.find_visible()? {
                return Ok(true);
            }
            there = self.cursor.seek_before(&self.prefix)?;
        }
        Ok(false)
    }

    /// Before all versions of the key.
    fn pass_key_down(&mut self) -> Result<bool> {
        for _ in 0..STEPS_MAX {
            if !self.cursor.valid() || !self.cursor.key()?.starts_with(&self.prefix) {
                return Ok(self.cursor.valid());
            }
            self.cursor.prev()?;
        }
        self.cursor.seek_before(&self.prefix)
    }

    /// Notes the key and the revision under the cursor; false if they lie outside the span.
    fn arrive(&mut self) -> Result<bool> {
        let key = self.cursor.key()?;
        let beyond = match self.order {
            Order::Ascending => self.bounds.to.as_ref().is_some_and(|to| *key >= to[..]),
            Order::Descending => key[..] < self.bounds.from[..],
        };
        if beyond {
            return Ok(false);
        }
        let (prefix, revision) = keys::split(&key).map_err(|bad| damaged(self.path, "a key", bad))?;
        self.prefix.clear();
        self.prefix.extend_from_slice(prefix);
        self.revision = revision;
        Ok(true)
    }

    /// From the newest version of a key to the one that was visible; false if the key was not there then.
    fn find_visible(&mut self) -> Result<bool> {
        let Some(at) = self.at else {
            return Ok(self.cursor.counted());
        };
        if self.revision > at || (planted::on("store-old-read-misses-its-revision") && self.revision == at) {
            let mut there = self.cursor.next()?;
            if there && self.cursor.key()?.starts_with(&self.prefix) && self.revision_here()? > at {
                there = self.cursor.seek(&keys::version(&self.prefix, at))?;
            }
            if !there || !self.cursor.key()?.starts_with(&self.prefix) {
                return Ok(false);
            }
            self.revision = self.revision_here()?;
        }
        Ok(!self.read(false)?.0.tombstone)
    }

    fn revision_here(&self) -> Result<Revision> {
        let key = self.cursor.key()?;
        Ok(keys::split(&key).map_err(|bad| self.damaged(bad))?.1)
    }

    /// The header and, if asked for, the value of the version under the cursor.
    fn read(&self, with_value: bool) -> Result<(Header, Bytes)> {
        read_record(&self.cursor.value(), with_value, self.path)
    }

    fn damaged(&self, bad: Malformed) -> crate::base::Error {
        damaged(self.path, "a key", bad)
    }
}

/// Takes a record of the versions apart.
pub fn read_record<D: Disk>(value: &Value<'_, D>, with_value: bool, path: &Path) -> Result<(Header, Bytes)> {
    let decode = |record: &[u8]| Header::decode(record).map_err(|bad| damaged(path, "a version", bad));
    if let Some(record) = value.as_slice() {
        let (header, header_bytes) = decode(record)?;
        let rest = if with_value { Bytes::copy_from_slice(&record[header_bytes..]) } else { Bytes::new() };
        return Ok((header, rest));
    }
    let mut record = BytesMut::new();
    value.append_to(&mut record)?;
    let (header, header_bytes) = decode(&record)?;
    let rest = if with_value { record.freeze().slice(header_bytes..) } else { Bytes::new() };
    Ok((header, rest))
}

pub fn key_value(key: Bytes, revision: Revision, header: &Header, value: Bytes) -> KeyValue {
    KeyValue {
        key,
        value,
        create_revision: header.create,
        mod_revision: revision,
        version: header.version,
        lease: header.lease,
    }
}
