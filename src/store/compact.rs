//! Compaction: the end of a part of the history, and what becomes of it.
//!
//! `COMPACT C` says that nothing before revision C is read any more. All that apply does is to write that number down:
//! from then on reads before C are refused, at the same entry on every member. What nobody can see any more is *garbage*
//! from then on, and is swept by each member for itself, in slices of a turn, whenever it comes to it.
//!
//! Of what changed a key at C or before, the last change says what the key is to whoever reads at C or later. Garbage is
//!
//! - every change that has another one of its key behind it, at C or before: it is *superseded*;
//! - a deletion before C: with it or without it, the key is not there. A deletion at C itself stays until a later
//!   compaction, so that who follows the history from C on sees it happen;
//! - the cell of a key whose newest change is such a deletion.
//!
//! ```text
//!   C = 5        2    3    4    5    6
//!     key a      put  put            put       2 goes (3 is behind it); 3 is what is seen at 5
//!     key b           put  del                 both go, and b's cell
//!     key c      put            del            2 goes; the deletion at 5 stays
//! ```
//!
//! # The sweep
//!
//! It walks over the changes in their order, from where the last one ended to C. Each change names the one before it
//! of its key, which goes; if it is a deletion before C it goes itself, and the key's cell, if that has nothing newer.
//! So the work is as much as was written between two compactions, whatever else the store holds.
//!
//! That this finds all garbage: let change x be superseded, and y be the next of its key, y at C or before. If y was at
//! the last bound or before, x went then. If not, the walk comes to y, and y names x; unless it begins a new line (see
//! below), and then x is a deletion before an earlier bound, and went for itself. The walk begins *at* the last bound
//! again, because of the deletions that were left there.
//!
//! How far the walk has come is part of the application record, and so of the same commit as what it has done. It
//! goes on there after a restart, and at a member that takes a snapshot: that holds what the sender has not swept, and
//! how far it was. Of one key, the oldest changes go first: what is still there is always the newest part of its line.
//!
//! # What must be the same everywhere
//!
//! Members sweep at different times, so nothing that can be seen may depend on whether garbage is still there:
//!
//! - A put of a key whose cell is garbage begins a new line, as if there were none (`Store::known`). Otherwise its change
//!   would link to the deletion where that has not been swept, and to nothing where it has.
//! - Reads never come to garbage, or find out that the key was not there: [`super::line`] has the reasons.
//! - The content hash passes garbage over.
//!
//! # Left out
//!
//! - The line of a key that lives keeps its ordinal and its marks when all but its newest change have gone: some bytes
//!   per key, so that no put depends on the sweep.
//! - Changes go one by one. Where whole pages of them are garbage they could be cut off at once.

use super::apply::Known;
use super::record::{self, CHANGE_HEAD_BYTES_MAX, Change, Header, Malformed};
use super::revision::Rev;
use super::snapshot::Cell;
use super::{CHANGES, KEYS, Store, chain, damaged, walk};
use crate::api::{Body, Compact, Fault};
use crate::base::Result;
use crate::base::planted;
use crate::btree::{Value, View};
use crate::io::Disk;

/// What a change says of garbage.
struct Named {
    rev: Rev,
    previous: Option<Rev>,
    /// The key, if the change is a deletion that is garbage itself.
    dead: Option<Vec<u8>>,
}

impl<D: Disk> Store<D> {
    pub(super) fn compact(&mut self, compact: &Compact) -> Body {
        let bound = self.state.compact_revision;
        if compact.revision > self.state.revision {
            return Body::Fault(Fault::future(self.state.revision));
        }
        if compact.revision <= bound {
            return Body::Fault(Fault::compacted(bound));
        }
        self.state.compact_revision = compact.revision;
        self.state.swept = self.state.swept.min(Rev::new(bound, 0));
        self.state.hash = chain::compaction(self.state.hash, compact.revision);
        Body::Compacted { revision: compact.revision }
    }

    /// Whether there may be garbage left.
    pub fn sweep_due(&self) -> bool {
        self.state.swept.main <= self.state.compact_revision && self.state.compact_revision > 0
    }

    /// Sweeps a little: looks at so many changes, or at fewer if many pages come free. An error comes from the tree, and
    /// the member must stop.
    pub fn sweep(&mut self, work_max: usize) -> Result<()> {
        assert!(!self.broken, "half of an entry must not be swept");
        self.broken = true;
        let mut used_pages = self.stats().used_pages;
        let mut work = 0;
        let (batch, is_last) = self.next_named(work_max)?;
        for named in batch {
            if work >= work_max {
                self.broken = false;
                return Ok(());
            }
            self.state.swept = named.rev.next();
            self.remove_named(named)?;
            let now_used = self.stats().used_pages;
            work += 1 + used_pages.saturating_sub(now_used) as usize;
            used_pages = now_used;
        }
        if is_last {
            self.state.swept = Rev::new(self.state.compact_revision + 1, 0);
        }
        self.broken = false;
        Ok(())
    }

    /// The next changes to look at, and whether they are the last.
    fn next_named(&self, count_max: usize) -> Result<(Vec<Named>, bool)> {
        let last = self.state.compact_revision + u64::from(planted::on("store-sweep-goes-too-far"));
        let bad = |bad| damaged(&self.path, "a change", bad);
        let mut batch = Vec::new();
        let mut cursor = self.tree.cursor(View::Now, CHANGES);
        let mut there = cursor.seek(&self.state.swept.encode())?;
        while there {
            let rev = Rev::decode(&cursor.key()?).map_err(bad)?;
            if rev.main > last {
                break;
            }
            if batch.len() == count_max {
                return Ok((batch, false));
            }
            batch.push(self.named(rev, &cursor.value())?);
            there = cursor.next()?;
        }
        Ok((batch, true))
    }

    fn named(&self, rev: Rev, value: &Value<'_, D>) -> Result<Named> {
        let decode = |record: &[u8]| -> Result<Named, Malformed> {
            let (Change { header, links }, mut rest) = Change::decode(rev, record)?;
            let dead =
                if self.is_dead(rev, &header) { Some(record::take_key(&mut rest)?.to_vec()) } else { None };
            Ok(Named { rev, previous: links.previous, dead })
        };
        let decoded = match value.as_slice() {
            Some(record) => decode(record),
            // A long value is not looked at, and a deletion has none.
            None => match decode(&value.start(CHANGE_HEAD_BYTES_MAX)?) {
                Err(_) => decode(&value.to_vec()?),
                named => named,
            },
        };
        decoded.map_err(|bad| damaged(&self.path, "a change", bad))
    }

    fn remove_named(&mut self, Named { rev, previous, dead }: Named) -> Result<()> {
        if let Some(previous) = previous {
            self.tree.remove(CHANGES, &previous.encode())?;
        }
        let Some(key) = dead else { return Ok(()) };
        let newest = self.newest_change(&key)?.map(|(newest, _)| newest);
        if newest == Some(rev) || planted::on("store-sweep-takes-a-living-key") {
            self.tree.remove(KEYS, &key)?;
        }
        self.tree.remove(CHANGES, &rev.encode())?;
        Ok(())
    }

    /// Whether this is a deletion that nobody needs to see any more.
    pub(super) fn is_dead(&self, rev: Rev, header: &Header) -> bool {
        header.tombstone && rev.main < self.state.compact_revision
    }

    /// Whether a cell will be swept.
    pub(super) fn is_garbage(&self, cell: &Cell<'_>) -> Result<bool> {
        match cell.root {
            KEYS => {
                let (newest, header, _) =
                    record::decode_key(cell.value).map_err(|bad| damaged(&self.path, "a key", bad))?;
                Ok(self.is_dead(newest, &header))
            }
            CHANGES => self.is_garbage_change(cell),
            _ => Ok(false),
        }
    }

    /// A change that is neither behind the bound nor what is seen there.
    fn is_garbage_change(&self, cell: &Cell<'_>) -> Result<bool> {
        let bad = |bad| damaged(&self.path, "a change", bad);
        let rev = Rev::decode(cell.key).map_err(bad)?;
        let bound = self.state.compact_revision;
        if rev.main > bound {
            return Ok(false);
        }
        let (change, mut rest) = Change::decode(rev, cell.value).map_err(bad)?;
        if self.is_dead(rev, &change.header) {
            return Ok(true);
        }
        let key = record::take_key(&mut rest).map_err(bad)?;
        let (_, Some(Known { line, .. })) = self.known(key)? else { return Ok(true) };
        let links = |rev| Ok(walk::head_at(&self.tree, &self.path, rev)?.links);
        Ok(line.find(bound, links)? != Some(rev))
    }
}
