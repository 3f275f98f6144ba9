//! The log as the core sees it: a tail in memory over what the shell can read back.
//!
//! ```text
//!    first_index            offset                                   last
//!    |  read through LogView  |  tail: entries in memory              |
//!    +------------------------+---------------------------------------+
//!          ^ applied   ^ handed   ^ commit     ^ durable   ^ unwritten
//! ```
//!
//! Marks name the last entry of their kind, except `offset` and `unwritten`, which name the first.
//! applied <= handed <= min(commit, durable), and durable < unwritten <= last + 1. Entries leave memory only
//! when they are durable *and* applied, so everything below `offset` can be read from the shell.

use std::collections::VecDeque;

use crate::base::planted;
use crate::base::{EntryId, Index, Term};

use super::types::{Entry, HardState, LogGap, LogView};

#[derive(Clone)]
pub(super) struct Log {
    pub(super) tail: VecDeque<Entry>,
    pub(super) offset: Index,
    pub(super) tail_bytes: usize,
    pub(super) last: EntryId,
    /// The first entry that the shell has not been given to write.
    pub(super) unwritten: Index,
    pub(super) durable: Index,
    pub(super) commit: Index,
    pub(super) handed: Index,
    pub(super) applied: Index,
    pub(super) writes: VecDeque<Write>,
}

/// A write that the shell was given and has not completed.
#[derive(Clone)]
pub(super) struct Write {
    pub(super) number: u64,
    /// The last index that is durable once this write is, unless a later write replaced it.
    pub(super) through: Index,
    pub(super) hard_state: Option<HardState>,
}

/// What a completion made durable.
pub(super) struct Completed {
    pub hard_state: Option<HardState>,
    pub entries: bool,
}

impl Log {
    /// Everything that `view` holds is durable.
    pub fn new(applied: EntryId, view: &impl LogView) -> Log {
        let last_index = view.last_index();
        assert!(
            applied.index <= last_index && applied.index + 1 >= view.first_index(),
            "the log holds {}..={last_index} and must reach the applied entry {applied}",
            view.first_index(),
        );
        let last_term = match last_index {
            0 => 0,
            _ => view.term(last_index).expect("the log knows the term of its last entry"),
        };
        assert!(
            applied.index == 0 || view.term(applied.index) == Some(applied.term),
            "the log holds another entry than the applied one, {applied}"
        );
        Log {
            tail: VecDeque::new(),
            offset: last_index + 1,
            tail_bytes: 0,
            last: EntryId::new(last_term, last_index),
            unwritten: last_index + 1,
            durable: last_index,
            commit: applied.index,
            handed: applied.index,
            applied: applied.index,
            writes: VecDeque::new(),
        }
    }

    pub fn last(&self) -> EntryId {
        self.last
    }

    pub fn durable(&self) -> Index {
        self.durable
    }

    pub fn commit(&self) -> Index {
        self.commit
    }

    pub fn has_unwritten(&self) -> bool {
        self.unwritten <= self.last.index
    }

    pub fn has_committed(&self) -> bool {
        self.handed < self.commit.min(self.durable)
    }

    pub fn is_writing(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Index 0 is before every log, so it matches everywhere.
    pub fn term(&self, index: Index, view: &impl LogView) -> Option<Term> {
        if index == 0 {
            Some(0)
        } else if index >= self.offset {
            self.tail.get((index - self.offset) as usize).map(|entry| entry.id.term)
        } else if index == self.last.index {
            Some(self.last.term)
        } else {
            view.term(index)
        }
    }

    pub fn id(&self, index: Index, view: &impl LogView) -> Option<EntryId> {
        self.term(index, view).map(|term| EntryId::new(term, index))
    }

    pub fn holds(&self, id: EntryId, view: &impl LogView) -> bool {
        self.term(id.index, view) == Some(id.term)
    }

    /// The greatest entry at or below `limit.index` whose term is at most `limit.term`: beyond it the other
    /// log, of which `limit` is an entry, cannot match (terms only rise along a log). Index 0 if there is none,
    /// or what came before the log was released.
    pub fn last_possible_match(&self, limit: EntryId, view: &impl LogView) -> EntryId {
        let (mut low, mut high) = (view.first_index().saturating_sub(1), limit.index.min(self.last.index));
        if high < low || self.term(low, view).is_none_or(|term| term > limit.term) {
            return EntryId::ZERO;
        }
        // Invariant: the term at `low` is not above the limit, and the one behind `high` is, or is not asked for.
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.term(middle, view).is_some_and(|term| term <= limit.term) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        self.id(low, view).unwrap_or(EntryId::ZERO)
    }

    /// Entries `from..=to`, shared, cut after `bytes_max` (but at least one).
    pub fn entries(
        &self,
        from: Index,
        to: Index,
        bytes_max: usize,
        view: &impl LogView,
    ) -> Result<Vec<Entry>, LogGap> {
        if from < self.offset {
            return view.entries(from, to.min(self.offset - 1), bytes_max);
        }
        let start = (from - self.offset) as usize;
        let mut bytes = 0;
        let mut count = 0;
        for entry in self.tail.range(start..).take((to + 1 - from) as usize) {
            bytes += entry.payload.len();
            if count > 0 && bytes > bytes_max {
                break;
            }
            count += 1;
        }
        Ok(self.tail.range(start..start + count).cloned().collect())
    }

    /// Payload bytes of entries `from..=to`, all of them in memory.
    pub fn bytes(&self, from: Index, to: Index) -> usize {
        assert!(from >= self.offset && to <= self.last.index, "only entries in memory are counted");
        let range = (from - self.offset) as usize..(to + 1 - self.offset) as usize;
        self.tail.range(range).map(|entry| entry.payload.len()).sum()
    }

    pub fn append(&mut self, entry: Entry) {
        assert!(entry.id.index == self.last.index + 1, "entries follow each other");
        assert!(entry.id.term >= self.last.term, "terms only rise along a log");
        self.last = entry.id;
        self.tail_bytes += entry.payload.len();
        self.tail.push_back(entry);
    }

    /// Drops the entries from `from` on, which another leader's will replace.
    ///
    /// A write under way may hold them. Its completion must not be taken for the durability of what replaces
    /// them, not even where the same entry comes back (a leader of a later term may send 10@1 again after
    /// 10@2 had taken its place), so every such write is cut to what it still proves.
    pub fn truncate(&mut self, from: Index, view: &impl LogView) {
        assert!(from > self.commit, "entry {from} is committed and never replaced (commit {})", self.commit);
        let term = self.term(from - 1, view).expect("an entry is replaced behind one that is held");
        if from <= self.offset {
            self.tail.clear();
            self.tail_bytes = 0;
            self.offset = from;
        } else {
            for dropped in self.tail.drain((from - self.offset) as usize..) {
                self.tail_bytes -= dropped.payload.len();
            }
        }
        self.last = EntryId::new(term, from - 1);
        self.unwritten = self.unwritten.min(from);
        self.durable = self.durable.min(from - 1);
        for write in &mut self.writes {
            if !planted::on("raft-old-write-proves-new-entry") {
                write.through = write.through.min(from - 1);
            }
        }
    }

    /// Never goes back, never beyond the last entry.
    pub fn commit_to(&mut self, index: Index) {
        assert!(index <= self.last.index, "commit {index} is beyond the log's end {}", self.last);
        self.commit = self.commit.max(index);
    }

    /// Hands what is unwritten to the shell, as write `number`.
    pub fn begin_write(&mut self, number: u64, hard_state: Option<HardState>) -> Vec<Entry> {
        let skip = (self.unwritten - self.offset) as usize;
        let entries = self.tail.range(skip..).cloned().collect();
        self.unwritten = self.last.index + 1;
        self.writes.push_back(Write { number, through: self.last.index, hard_state });
        entries
    }

    /// Write `number` and all before it are durable.
    pub fn end_writes(&mut self, number: u64) -> Completed {
        let before = self.durable;
        let mut hard_state = None;
        while self.writes.front().is_some_and(|write| write.number <= number) {
            let write = self.writes.pop_front().expect("the front was just seen");
            self.durable = self.durable.max(write.through);
            hard_state = write.hard_state.or(hard_state);
        }
        Completed { hard_state, entries: self.durable > before }
    }

    /// Committed entries that were not handed out before. Only those that are durable here: a state machine
    /// may then checkpoint whatever it applied, and the log always reaches the applied entry after a crash.
    pub fn take_committed(&mut self, bytes_max: usize, view: &impl LogView) -> Result<Vec<Entry>, LogGap> {
        if !self.has_committed() {
            return Ok(Vec::new());
        }
        let entries = self.entries(self.handed + 1, self.commit.min(self.durable), bytes_max, view)?;
        if let Some(last) = entries.last() {
            self.handed = last.id.index;
        }
        Ok(entries)
    }

    /// Everything up to `index` is applied; memory above the bound is given back.
    pub fn applied_to(&mut self, index: Index, memory_bytes_max: usize) {
        assert!(index <= self.handed, "entry {index} was applied before it was handed out ({})", self.handed);
        self.applied = self.applied.max(index);
        self.trim(memory_bytes_max);
    }

    pub fn trim(&mut self, memory_bytes_max: usize) {
        let settled = self.applied.min(self.durable);
        while self.tail_bytes > memory_bytes_max {
            match self.tail.front() {
                Some(entry) if entry.id.index <= settled => {
                    self.tail_bytes -= entry.payload.len();
                    self.tail.pop_front();
                    self.offset += 1;
                }
                _ => return,
            }
        }
    }

    /// The state of `at` took the place of the whole log.
    pub fn reset(&mut self, at: EntryId) {
        assert!(at.index > self.commit, "a snapshot of {at} would undo what is committed ({})", self.commit);
        self.tail.clear();
        self.tail_bytes = 0;
        self.offset = at.index + 1;
        self.last = at;
        self.unwritten = at.index + 1;
        self.durable = at.index;
        self.commit = at.index;
        self.handed = at.index;
        self.applied = at.index;
        for write in &mut self.writes {
            write.through = 0;
        }
    }

    /// Payload bytes held in memory.
    pub fn memory_bytes(&self) -> usize {
        self.tail_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use crate::raft::EntryKind;
    use bytes::Bytes;

    /// Entries of these terms, from index 1; all of them durable.
    struct Disk(Vec<Term>);

    impl LogView for Disk {
        fn first_index(&self) -> Index {
            1
        }

        fn last_index(&self) -> Index {
            self.0.len() as Index
        }

        fn term(&self, index: Index) -> Option<Term> {
            if index == 0 { Some(0) } else { self.0.get(index as usize - 1).copied() }
        }

        fn entries(&self, from: Index, to: Index, _bytes_max: usize) -> Result<Vec<Entry>, LogGap> {
            Ok((from..=to).map(|index| entry(self.0[index as usize - 1], index)).collect())
        }
    }

    fn entry(term: Term, index: Index) -> Entry {
        Entry { id: EntryId::new(term, index), kind: EntryKind::Normal, payload: Bytes::from_static(b"four") }
    }

    /// The ABA of storage: 2@1 is written, replaced by 2@2, and comes back, all before the first write is done.
    /// That write's completion then says nothing about 2@1: the second may still go over it.
    #[test]
    fn the_write_of_a_replaced_entry_proves_nothing() {
        let disk = Disk(vec![1]);
        let mut log = Log::new(EntryId::ZERO, &disk);
        log.append(entry(1, 2));
        log.begin_write(1, None);
        log.truncate(2, &disk);
        log.append(entry(2, 2));
        log.begin_write(2, None);
        log.truncate(2, &disk);
        log.append(entry(1, 2));
        assert_eq!(log.begin_write(3, None), [entry(1, 2)]);
        assert!(!log.end_writes(1).entries);
        assert_eq!(log.durable(), 1);
        assert!(!log.end_writes(2).entries);
        assert_eq!(log.durable(), 1);
        assert!(log.end_writes(3).entries);
        assert_eq!(log.durable(), 2);
    }

    /// A durable entry that is replaced is not durable any more, until its successor is.
    #[test]
    fn truncation_takes_back_what_was_durable() {
        let disk = Disk(vec![1, 1, 1]);
        let mut log = Log::new(EntryId::ZERO, &disk);
        log.truncate(2, &disk);
        log.append(entry(2, 2));
        assert_eq!((log.durable(), log.last()), (1, EntryId::new(2, 2)));
        assert_eq!(log.begin_write(1, None), [entry(2, 2)]);
        log.end_writes(1);
        assert_eq!(log.durable(), 2);
    }

    #[test]
    #[should_panic(expected = "entry 2 is committed and never replaced")]
    fn what_is_committed_is_never_replaced() {
        let disk = Disk(vec![1, 1, 1]);
        let mut log = Log::new(EntryId::ZERO, &disk);
        log.commit_to(2);
        log.truncate(2, &disk);
    }

    #[test]
    fn entries_leave_memory_only_when_they_are_applied_and_durable() {
        let mut disk = Disk(vec![1]);
        let mut log = Log::new(EntryId::new(1, 1), &disk);
        for index in 2..=5 {
            log.append(entry(1, index));
        }
        log.begin_write(1, None);
        disk.0 = vec![1; 5];
        log.trim(0);
        assert_eq!(log.memory_bytes(), 16);
        log.end_writes(1);
        log.commit_to(4);
        assert_eq!(log.take_committed(8, &disk).unwrap(), [entry(1, 2), entry(1, 3)]);
        log.applied_to(3, 0);
        assert_eq!(log.memory_bytes(), 8);
        assert_eq!(log.take_committed(0, &disk).unwrap(), [entry(1, 4)]);
        log.applied_to(4, 4);
        assert_eq!(log.memory_bytes(), 4);
        assert_eq!(
            log.entries(1, 5, 100, &disk).unwrap().len(),
            4,
            "what is in memory comes in a second answer"
        );
    }

    #[test]
    fn the_last_possible_match_agrees_with_a_search_from_the_end() {
        let mut rng = Rng::new(5);
        for _ in 0..2_000 {
            let mut term = 1;
            let terms: Vec<Term> = (0..rng.below(12))
                .map(|_| {
                    term += rng.below(3);
                    term
                })
                .collect();
            let disk = Disk(terms.clone());
            let log = Log::new(EntryId::ZERO, &disk);
            let limit = EntryId::new(rng.below(15), rng.below(15));
            let naive = (1..=limit.index.min(terms.len() as Index))
                .rev()
                .map(|index| EntryId::new(terms[index as usize - 1], index))
                .find(|id| id.term <= limit.term);
            assert_eq!(
                log.last_possible_match(limit, &disk),
                naive.unwrap_or(EntryId::ZERO),
                "{terms:?} {limit}"
            );
        }
    }
}
