//! Reads: etcd's Range over the walk of keys, in parts.
//!
//! A range can be as large as the store, and a turn of the member's loop must be short. So a [`Reading`] gives its answer
//! part by part, each within a [`Budget`], and writes go on between two parts. All parts are of one revision. Nothing is
//! pinned for that, because the store keeps what was there before: a reading that is behind goes on as a read of an old
//! revision.
//!
//! ```text
//!   count ----> send: by key, as the walk comes to them
//!     |
//!     +-------> gather, sort ----> send
//! ```
//!
//! The head of an answer says how many keys there are and how many follow, so they are counted first. Of the latest
//! revision the tree knows the number of keys in any span. With filters, and of old revisions, a walk counts; it
//! reads no values. A sort by another field than the key needs all that passes before it can send the first; what is
//! gathered is bounded, and who asks for more is told to narrow the span.
//!
//! Left out: the sort itself is done in one go (its input is bounded).

use std::cmp::Ordering;

use super::revision::Rev;
use super::values::{Seen, Values};
use super::walk::{Bounds, Past, Step, Walk};
use super::{KEYS, Store};
use crate::api::{Code, Fault, KeyValue, Order, Range, RangeHead, RangePart, RangeResult, SortBy, Span};
use crate::base::planted;
use crate::base::{LeaseId, Result, Revision};
use crate::btree::View;
use crate::io::Disk;
use bytes::Bytes;

/// What is gathered to be sorted takes up no more than this.
const GATHERED_BYTES_MAX: usize = 64 << 20;

/// What one entry of the log is answered with takes up no more than this: what a transaction reads, and what was there before
/// what it, or a delete alone, changes. Every member applies it, so it is no setting.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Rows for which room is made before they are read. A budget in bytes may end an answer long before its last key, and nobody
/// shall ask for room for all of them.
const ROWS_RESERVED_MAX: usize = 1_024;

/// What one part of an answer may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Keys that walks come to, or that were sorted and are sent.
    pub keys: usize,
    /// Of keys and values to send. The last one may be more than is left.
    pub bytes: usize,
}

impl Budget {
    /// For an answer in one part.
    pub const WHOLE: Budget = Budget { keys: usize::MAX, bytes: usize::MAX };
}

/// A range under way.
#[derive(Debug)]
pub struct Reading {
    range: Range,
    revision: Revision,
    /// What this pass has not come to.
    rest: Bounds,
    stage: Stage,
    gathered_bytes_max: usize,
    /// Keys in the span, and those of them that pass the filters, as far as that matters.
    count: u64,
    passed: u64,
    /// Known, and not sent yet.
    head: Option<RangeHead>,
    seen: Seen,
}

#[derive(Debug)]
enum Stage {
    /// `count` is known already.
    Count {
        counted: bool,
    },
    /// So many are wanted of these.
    Gather {
        wanted: u64,
        rows: Vec<Row>,
        bytes: usize,
    },
    /// So many are still to send.
    Send {
        left: u64,
    },
    SendRows(std::vec::IntoIter<Row>),
}

/// A key and its fields, the value only where it is sorted by.
#[derive(Debug)]
struct Row {
    rev: Rev,
    kv: KeyValue,
}

impl Reading {
    fn new(range: &Range, revision: Revision) -> Reading {
        let rest = Bounds::of(&range.span);
        let stage = Stage::Count { counted: false };
        Reading {
            range: range.clone(),
            revision,
            rest,
            stage,
            gathered_bytes_max: GATHERED_BYTES_MAX,
            count: 0,
            passed: 0,
            head: None,
            seen: Seen::default(),
        }
    }

    /// Whether anything of the answer has been sent.
    fn is_seen(&self) -> bool {
        matches!(self.stage, Stage::Send { .. } | Stage::SendRows(_)) && self.head.is_none()
    }

    /// The revision that is read.
    pub fn revision(&self) -> Revision {
        self.revision
    }
}

impl<D: Disk> Store<D> {
    /// Answers a range from the present content, as a whole. The outer error is damage (this member must stop serving);
    /// the inner one is for the client.
    ///
    /// As in etcd: `count` is the number of keys in the span at that revision, whatever limit and filters say;
    /// `more` tells that the limit cut off keys which passed the filters; sorting looks at all keys of the span
    /// before the limit cuts; values are left out of the answer of `keys_only`, also after sorting by value.
    /// Keys with equal sort fields follow each other in key order, reversed when the order is descending.
    pub fn range(&self, range: &Range) -> Result<Result<RangeResult, Fault>> {
        let mut reading = match self.begin_range(range) {
            Ok(reading) => reading,
            Err(fault) => return Ok(Err(fault)),
        };
        let part = self.read_part(&mut reading, &mut Budget::WHOLE.clone())?;
        Ok(part.map(|part| part.whole().expect("nothing stops it before the end")))
    }

    /// Whether the answer takes up no more than `room`, of which its part is taken.
    pub(super) fn fits(&self, range: &Range, room: &mut usize) -> Result<Result<(), Fault>> {
        let mut reading = match self.begin_range(range) {
            Ok(reading) => reading,
            Err(fault) => return Ok(Err(fault)),
        };
        // Of what goes over it one byte is seen.
        let mut budget = Budget { bytes: room.saturating_add(1), ..Budget::WHOLE };
        let part = self.read_part(&mut reading, &mut budget)?;
        let fits = budget.bytes > 0;
        *room = budget.bytes.saturating_sub(1);
        Ok(part.and_then(|part| if part.last && fits { Ok(()) } else { Err(too_much_to_answer()) }))
    }

    /// The same for what was there, if a change of these keys is to be answered with that.
    pub(super) fn previous_fits(
        &self,
        span: &Span,
        prev_kv: bool,
        room: &mut usize,
    ) -> Result<Result<(), Fault>> {
        if !prev_kv || planted::on("store-what-was-there-has-no-bound") {
            return Ok(Ok(()));
        }
        self.fits(&Range::new(span.clone()), room)
    }

    /// As a whole, what is known to be possible, and to be not much larger than what fits.
    pub(super) fn range_that_fits(&self, range: &Range) -> Result<RangeResult> {
        let mut reading = self.begin_range(range).expect("its revision was found to be there");
        reading.gathered_bytes_max = usize::MAX;
        let part = self.read_part(&mut reading, &mut Budget::WHOLE.clone())?;
        let whole = part.expect("it fits").whole();
        Ok(whole.expect("nothing stops it before the end"))
    }

    /// The reading of a range as of now.
    pub fn begin_range(&self, range: &Range) -> Result<Reading, Fault> {
        Ok(Reading::new(range, self.readable(range.revision)?))
    }

    /// The next part of an answer, empty where the budget allowed no more than to go on; what the budget has left is
    /// for others. After the last part, or a fault, the reading is over: a compaction may have taken its revision away. If
    /// nothing has been sent of a range of now, it begins anew instead.
    pub fn read_part(&self, reading: &mut Reading, budget: &mut Budget) -> Result<Result<RangePart, Fault>> {
        if let Err(fault) = self.readable(reading.revision) {
            if reading.range.revision != 0 || reading.is_seen() {
                return Ok(Err(fault));
            }
            // Who asked for now has not been told what that is.
            *reading = Reading::new(&reading.range, self.state.revision);
        }
        if let Span::Key(key) = &reading.range.span {
            let RangeResult { revision, count, more, kvs } =
                self.read_one(&reading.range, key, reading.revision, budget)?;
            let head = Some(RangeHead { revision, count, kvs: kvs.len() as u64, more });
            return Ok(Ok(RangePart { head, kvs, last: true }));
        }
        let mut part = RangePart::default();
        if let Stage::Count { counted } = reading.stage {
            if !self.count_part(reading, counted, budget)? {
                return Ok(Ok(part));
            }
            reading.end_count();
        }
        if let Stage::Gather { .. } = reading.stage {
            match self.gather_part(reading, budget)? {
                Ok(true) => {}
                Ok(false) => return Ok(Ok(part)),
                Err(fault) => return Ok(Err(fault)),
            }
        }
        part.head = reading.head.take();
        part.last = match reading.stage {
            Stage::SendRows(_) => self.send_rows(reading, budget, &mut part.kvs)?,
            _ => self.send_part(reading, budget, &mut part.kvs)?,
        };
        Ok(Ok(part))
    }

    /// How many of these keys there are now.
    pub fn exists(&self, keys: &[Bytes]) -> Result<u64> {
        let mut found = 0;
        for key in keys {
            found += u64::from(self.tree.counted(View::Now, KEYS, key)? == Some(true));
        }
        Ok(found)
    }

    /// When each key of a span was created that is there now, in the order of the keys; None if there are more than so many.
    pub fn creations(&self, span: &Span, count_max: u64) -> Result<Option<Vec<Creation>>> {
        let bounds = Bounds::of(span);
        let mut found = Vec::new();
        if bounds.is_empty() {
            return Ok(Some(found));
        }
        if self.tree.count(View::Now, KEYS, &bounds.from, bounds.to.as_deref())? > count_max {
            return Ok(None);
        }
        let mut walk = Walk::new(&self.tree, &self.path, &bounds, Order::Ascending, None);
        while walk.advance()? {
            let (_, header) = walk.change();
            found.push(Creation { created: header.create, lease: header.lease, key: walk.key()? });
        }
        Ok(Some(found))
    }

    /// Old revisions have no counts in the tree, and no revision has counts of what passes filters. True at the end.
    fn count_part(&self, reading: &mut Reading, counted: bool, budget: &mut Budget) -> Result<bool> {
        let mut counted = counted;
        if reading.rest.is_empty() {
            return Ok(true);
        }
        if !counted && reading.revision == self.state.revision {
            let Bounds { from, to } = &reading.rest;
            reading.count = self.tree.count(View::Now, KEYS, from, to.as_deref())?;
            counted = true;
            // From here on it stays as it was at the reading's revision.
            reading.stage = Stage::Count { counted };
        }
        if counted && (reading.range.count_only || !is_filtered(&reading.range)) {
            reading.passed = reading.count;
            return Ok(true);
        }
        let bounds = reading.rest.clone();
        let mut walk = self.walk(reading, Order::Ascending, &bounds);
        // One more than the limit tells that there are more.
        let enough =
            |reading: &Reading| counted && reading.range.limit != 0 && reading.passed > reading.range.limit;
        while !enough(reading) {
            match walk.advance_within(&mut budget.keys)? {
                Step::End => break,
                Step::Pause => {
                    reading.rest = walk.rest()?;
                    return Ok(false);
                }
                Step::Key => {
                    let (rev, header) = walk.change();
                    reading.count += u64::from(!counted);
                    reading.passed += u64::from(passes(&reading.range, rev.main, header.create));
                }
            }
        }
        Ok(true)
    }

    /// True at the end, when all is sorted.
    fn gather_part(&self, reading: &mut Reading, budget: &mut Budget) -> Result<Result<bool, Fault>> {
        let bounds = reading.rest.clone();
        let mut walk = self.walk(reading, Order::Ascending, &bounds);
        let range = reading.range.clone();
        let Stage::Gather { wanted, rows, bytes } = &mut reading.stage else { return Ok(Ok(true)) };
        let rows_max = usize::try_from(*wanted).unwrap_or(usize::MAX);
        loop {
            let step = if rows_max == 0 { Step::End } else { walk.advance_within(&mut budget.keys)? };
            match step {
                Step::End => break,
                Step::Pause => {
                    reading.rest = walk.rest()?;
                    return Ok(Ok(false));
                }
                Step::Key => {}
            }
            let (rev, header) = walk.change();
            if !passes(&range, rev.main, header.create) {
                continue;
            }
            let kv = walk.key_value(range.sort_by == SortBy::Value)?;
            *bytes += kv.size_bytes();
            rows.push(Row { rev, kv });
            // Now and then, so that with a limit a few times the limit is held and not the span.
            if rows.len() / 4 >= rows_max {
                sort_and_cut(rows, &range, rows_max);
                *bytes = rows.iter().map(|row| row.kv.size_bytes()).sum();
            }
            if *bytes > reading.gathered_bytes_max {
                return Ok(Err(too_much_to_sort()));
            }
        }
        sort_and_cut(rows, &range, rows_max);
        reading.stage = Stage::SendRows(std::mem::take(rows).into_iter());
        Ok(Ok(true))
    }

    /// True at the end.
    fn send_part(&self, reading: &mut Reading, budget: &mut Budget, kvs: &mut Vec<KeyValue>) -> Result<bool> {
        let bounds = reading.rest.clone();
        let walk = self.walk(reading, reading.range.order, &bounds);
        let Reading { range, rest, stage: Stage::Send { left }, seen, .. } = reading else { return Ok(true) };
        let most = (*left).min(budget.keys as u64);
        let mut walk = walk.for_many(most);
        kvs.reserve((most as usize).min(ROWS_RESERVED_MAX));
        let (mut revs, mut step) = (Vec::new(), Step::Key);
        while *left > 0 && budget.bytes > 0 && step == Step::Key {
            let (begin, wanted) = (kvs.len(), (*left).min(seen.rows_within(budget.bytes) as u64) as usize);
            revs.clear();
            step = take_rows(&mut walk, range, wanted, &mut budget.keys, &mut revs, kvs)?;
            let sent = if range.keys_only {
                take_keys(&kvs[begin..], &mut budget.bytes)
            } else {
                walk.values().read(&revs, &mut kvs[begin..], &mut budget.bytes, seen)?
            };
            *left -= sent as u64;
            if sent < revs.len() {
                *rest = if planted::on("store-range-forgets-what-was-left") {
                    walk.rest()?
                } else {
                    bounds.rest_at(&kvs[begin + sent].key, range.order)
                };
                kvs.truncate(begin + sent);
                return Ok(false);
            }
        }
        if step == Step::End {
            *left = 0;
        }
        let last = *left == 0;
        if !last {
            *rest = walk.rest()?;
        }
        Ok(last)
    }

    fn send_rows(&self, reading: &mut Reading, budget: &mut Budget, kvs: &mut Vec<KeyValue>) -> Result<bool> {
        let Reading { range, stage: Stage::SendRows(rows), seen, .. } = reading else { return Ok(true) };
        let mut values = Values::new(&self.tree, &self.path).for_many(rows.len() as u64);
        while rows.len() > 0 && budget.bytes > 0 && budget.keys > 0 {
            let (begin, most) = (kvs.len(), budget.keys.min(seen.rows_within(budget.bytes)));
            let batch = &rows.as_slice()[..rows.len().min(most)];
            kvs.extend(batch.iter().map(|row| row.kv.clone()));
            let sent = if range.keys_only || range.sort_by == SortBy::Value {
                if range.keys_only {
                    kvs[begin..].iter_mut().for_each(|kv| kv.value.clear());
                }
                take_keys(&kvs[begin..], &mut budget.bytes)
            } else {
                let revs: Vec<Rev> = batch.iter().map(|row| row.rev).collect();
                values.read(&revs, &mut kvs[begin..], &mut budget.bytes, seen)?
            };
            kvs.truncate(begin + sent);
            rows.by_ref().take(sent).for_each(drop);
            budget.keys -= sent;
        }
        Ok(rows.len() == 0)
    }

    fn walk<'s>(&'s self, reading: &Reading, order: Order, bounds: &'s Bounds) -> Walk<'s, D> {
        self.walk_at(reading.revision, order, bounds)
    }

    pub(super) fn walk_at<'s>(&'s self, at: Revision, order: Order, bounds: &'s Bounds) -> Walk<'s, D> {
        let is_old = at != self.state.revision && !planted::on("store-range-goes-on-with-the-latest");
        let past = is_old.then_some(Past { at, compacted: self.state.compact_revision });
        Walk::new(&self.tree, &self.path, bounds, order, past)
    }
}

/// A key that is there: since when, and the lease with which it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    pub created: Revision,
    pub lease: LeaseId,
    pub key: Bytes,
}

impl Reading {
    /// All that the head says is known; the pass over the keys begins again.
    fn end_count(&mut self) {
        let Reading { range, count, passed, .. } = self;
        let wanted = match range.limit {
            _ if range.count_only => 0,
            0 => *passed,
            limit => limit.min(*passed),
        };
        let more = !range.count_only && *passed > wanted;
        let kvs = wanted + u64::from(more && planted::on("store-one-beyond-the-limit"));
        let stops = range.limit != 0 && planted::on("store-count-stops-at-limit");
        let count = if stops { wanted } else { *count };
        self.rest = Bounds::of(&self.range.span);
        self.stage = match self.range.sort_by {
            SortBy::Key => Stage::Send { left: kvs },
            _ => Stage::Gather { wanted: kvs, rows: Vec::new(), bytes: 0 },
        };
        self.head = Some(RangeHead { revision: self.revision, count, more, kvs });
    }
}

/// The next keys of a walk that pass the filters, without their values, and which changes these are of. [`Step::Key`]: as many as are
/// wanted.
fn take_rows<D: Disk>(
    walk: &mut Walk<'_, D>,
    range: &Range,
    wanted: usize,
    keys_left: &mut usize,
    revs: &mut Vec<Rev>,
    kvs: &mut Vec<KeyValue>,
) -> Result<Step> {
    while revs.len() < wanted {
        let step = walk.advance_within(keys_left)?;
        if step != Step::Key {
            return Ok(step);
        }
        let (rev, header) = walk.change();
        if passes(range, rev.main, header.create) {
            revs.push(rev);
            kvs.push(walk.key_value(false)?);
        }
    }
    Ok(Step::Key)
}

/// How many of the first there is budget for; the last of them may be more than was left.
fn take_keys(kvs: &[KeyValue], bytes_left: &mut usize) -> usize {
    for (index, kv) in kvs.iter().enumerate() {
        if *bytes_left == 0 {
            return index;
        }
        *bytes_left = bytes_left.saturating_sub(kv.size_bytes());
    }
    kvs.len()
}

fn is_filtered(range: &Range) -> bool {
    (range.min_mod | range.max_mod | range.min_create | range.max_create) != 0
}

pub(super) fn passes(range: &Range, modified: Revision, create: Revision) -> bool {
    let below = |max: Revision, revision: Revision| {
        max == 0 || revision <= max - u64::from(planted::on("store-filter-excludes-its-bound"))
    };
    range.min_mod <= modified
        && below(range.max_mod, modified)
        && range.min_create <= create
        && below(range.max_create, create)
}

fn sort_and_cut(rows: &mut Vec<Row>, range: &Range, rows_max: usize) {
    let by = range.sort_by;
    match range.order {
        Order::Ascending => rows.sort_unstable_by(|a, b| compare(by, &a.kv, &b.kv)),
        Order::Descending => rows.sort_unstable_by(|a, b| compare(by, &b.kv, &a.kv)),
    }
    rows.truncate(rows_max);
}

/// By the field, then by key: a total order, because keys differ.
fn compare(by: SortBy, a: &KeyValue, b: &KeyValue) -> Ordering {
    let field = match by {
        SortBy::Key => Ordering::Equal,
        SortBy::Version => a.version.cmp(&b.version),
        SortBy::Create => a.create_revision.cmp(&b.create_revision),
        SortBy::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortBy::Value => a.value.cmp(&b.value),
    };
    field.then_with(|| a.key.cmp(&b.key))
}

fn too_much_to_answer() -> Fault {
    let mib = ANSWER_BYTES_MAX >> 20;
    let text = format!(
        "the answer would take up more than {mib} MiB; narrow the spans, set limits, or leave PREV out"
    );
    Fault::new(Code::TooLarge, text)
}

fn too_much_to_sort() -> Fault {
    let mib = GATHERED_BYTES_MAX >> 20;
    Fault::new(
        Code::TooLarge,
        format!("the keys to sort take up more than {mib} MiB; narrow the span, or set a limit"),
    )
}
