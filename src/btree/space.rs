//! Which page is whose. A page is *used* (part of the present state), *held* (left by the present state, but
//! still reached by a pinned view or by a checkpoint on disk), or *free*. Only free pages are handed out.
//!
//! Time is counted in generations: every pin and every checkpoint freezes the present generation and starts
//! the next one. A page knows the generation of its birth. Whoever froze generation `g` (a *holder*) sees
//! exactly the pages born at or before `g` and let go after `g`. So:
//!
//! - a page born after the newest holder is seen by nobody: it is changed in place, and freed at once;
//! - any other page that is let go hangs on the newest holder. When that holder goes, each page of its list
//!   moves on to the next older holder if that one sees it too, and is free otherwise.
//!
//! Each page moves at most once per holder, nothing is searched, and a long-lived pin holds only what it sees:
//! pages born and left behind it come back while it lives. (The lists are the dead lists of ZFS snapshots.)
//!
//! The checkpoints of both meta slots are holders, so that either of them can be opened after a crash, and so
//! is the checkpoint being written.

use crate::base::planted;
use crate::base::{Error, Result};

use super::ROOTS;
use super::bits::PageSet;
use super::format::{PageNo, Root};

pub(super) type Roots = [Root; ROOTS];

/// A frozen state and the pages that live only for it (and for older ones).
#[derive(Debug)]
pub(super) struct Holder {
    pub generation: u64,
    pub who: Who,
    pub roots: Roots,
    held: Vec<Held>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Checkpoint { number: u64 },
    Pins { count: usize },
}

#[derive(Clone, Copy, Debug)]
struct Held {
    page: PageNo,
    birth: u64,
}

#[derive(Debug)]
pub(super) struct Space {
    used: PageSet,
    free: PageSet,
    /// Pages at or behind this number have never been used, or are free at the end of the file.
    page_count: PageNo,
    first_page: PageNo,
    held_count: usize,
    /// Where the search for a free page goes on.
    next: PageNo,
    lowest_first: bool,
    generation: u64,
    /// Oldest first.
    holders: Vec<Holder>,
    /// Which pages of the free map must be written again: `map_unit` pages are one entry.
    map_changed: Vec<bool>,
    map_unit: PageNo,
}

impl Space {
    /// Of a file in which the checkpoint `newest` uses `used`; `older` likewise, if the other meta slot is good.
    pub(super) fn new(
        first_page: PageNo,
        map_unit: PageNo,
        used: PageSet,
        newest: (u64, Roots),
        older: Option<(u64, Roots, PageSet)>,
    ) -> Space {
        let mut space = Space {
            page_count: first_page,
            used,
            free: PageSet::new(),
            first_page,
            held_count: 0,
            next: first_page,
            lowest_first: false,
            generation: 0,
            holders: Vec::new(),
            map_changed: Vec::new(),
            map_unit,
        };
        let mut reached = space.used.clone();
        if let Some((number, roots, older_used)) = older {
            let mut held = Vec::new();
            for index in 0..older_used.word_count() {
                let only_older = older_used.word(index) & !space.used.word(index);
                reached.set_word(index, reached.word(index) | only_older);
                held.extend((0..64).filter(|bit| only_older >> bit & 1 == 1).map(|bit| {
                    let page = (index * 64 + bit) as PageNo;
                    Held { page, birth: 0 }
                }));
            }
            space.held_count = held.len();
            space.freeze(Who::Checkpoint { number }, roots);
            space.holders[0].held = held;
        }
        space.freeze(Who::Checkpoint { number: newest.0 }, newest.1);
        space.page_count = reached.last().map_or(first_page, |last| last + 1).max(first_page);
        for page in (first_page..space.page_count).filter(|&page| !reached.contains(page)) {
            space.free.insert(page);
        }
        space
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn page_count(&self) -> PageNo {
        self.page_count
    }

    pub(super) fn used(&self) -> &PageSet {
        &self.used
    }

    pub(super) fn free(&self) -> &PageSet {
        &self.free
    }

    pub(super) fn held_count(&self) -> usize {
        self.held_count
    }

    pub(super) fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// Whether a page born then is seen by the present state alone.
    pub(super) fn is_private(&self, birth: u64) -> bool {
        self.holders.last().is_none_or(|newest| newest.generation < birth)
    }

    /// The earliest generation in which a page of this checkpoint can have been born. Too early is safe: it
    /// is held longer than needed.
    pub(super) fn birth_in(&self, checkpoint: u64) -> u64 {
        let before = self.holders.iter().rev().find(|holder| match holder.who {
            Who::Checkpoint { number } => number < checkpoint,
            Who::Pins { .. } => false,
        });
        before.map_or(0, |holder| holder.generation + 1)
    }

    /// A free page: the next one, round and round the file. Behind the end there are more, until a quarter as
    /// many pages are free as are used: then a new round begins.
    ///
    /// A part of the file that the round comes back to has been left alone for long, so most of its pages have
    /// been let go: those of one checkpoint lie in long runs, and are written in few pieces. The lowest free page
    /// would mostly be a hole between pages in use, and writing many single pages takes a disk ten times as long.
    pub(super) fn alloc(&mut self) -> Result<PageNo> {
        let page = match self.next_free() {
            Some(page) => page,
            None if self.page_count == PageNo::MAX => {
                return Err(Error::Refused("the tree file has as many pages as it can number".into()));
            }
            None => {
                self.page_count += 1;
                self.page_count - 1
            }
        };
        self.next = page + 1;
        self.free.remove(page);
        assert!(self.used.insert(page), "page {page} is handed out while in use");
        self.touch_map(page);
        Ok(page)
    }

    fn next_free(&self) -> Option<PageNo> {
        let (free, used) = (self.free.count(), self.used.count());
        // More is free than used: the end of the file should empty, to be given back.
        if self.lowest_first || free > used || self.page_count == PageNo::MAX {
            return self.free.first();
        }
        let further = self.free.first_from(self.next);
        further.or_else(|| if free >= used / 4 { self.free.first() } else { None })
    }

    /// While pages are moved to where the file can be shortened behind them.
    pub(super) fn set_lowest_first(&mut self, lowest_first: bool) {
        self.lowest_first = lowest_first;
    }

    /// The present state lets go of a page; true if nobody else sees it, so that it is free now.
    pub(super) fn release(&mut self, page: PageNo, birth: u64) -> bool {
        assert!(self.used.remove(page), "page {page} is let go while not in use");
        self.touch_map(page);
        match self.holders.last_mut() {
            Some(newest) if newest.generation >= birth && !planted::on("tree-held-page-freed-at-once") => {
                newest.held.push(Held { page, birth });
                self.held_count += 1;
                false
            }
            _ => {
                self.add_free(page);
                true
            }
        }
    }

    /// Ends the present generation.
    pub(super) fn freeze(&mut self, who: Who, roots: Roots) -> u64 {
        let generation = self.generation;
        self.holders.push(Holder { generation, who, roots, held: Vec::new() });
        self.generation += 1;
        generation
    }

    /// One more pin of a generation that is frozen already.
    pub(super) fn share_pin(&mut self, generation: u64) {
        let holder = self.holders.iter_mut().find(|holder| holder.generation == generation);
        match holder.map(|holder| &mut holder.who) {
            Some(Who::Pins { count }) => *count += 1,
            _ => panic!("generation {generation} is pinned"),
        }
    }

    /// One pin less; the pages that became free by it.
    pub(super) fn unpin(&mut self, generation: u64) -> Vec<PageNo> {
        let index = self.find(|holder| holder.generation == generation);
        let Some((index, Who::Pins { count })) = index.map(|index| (index, &mut self.holders[index].who))
        else {
            panic!("a view is unpinned as often as it was pinned");
        };
        *count -= 1;
        if *count > 0 { Vec::new() } else { self.remove_holder(index) }
    }

    /// Checkpoint `number` is on disk: only it and the one before it (in the other meta slot) can be opened.
    /// The pages that became free by it.
    pub(super) fn checkpoint_durable(&mut self, number: u64) -> Vec<PageNo> {
        let mut freed = Vec::new();
        while let Some(index) = self.find(|holder| match holder.who {
            Who::Checkpoint { number: old } => {
                old + 1 < number + u64::from(planted::on("tree-fallback-pages-freed"))
            }
            Who::Pins { .. } => false,
        }) {
            freed.extend(self.remove_holder(index));
        }
        freed
    }

    fn find(&self, wanted: impl Fn(&Holder) -> bool) -> Option<usize> {
        self.holders.iter().position(wanted)
    }

    fn remove_holder(&mut self, index: usize) -> Vec<PageNo> {
        let holder = self.holders.remove(index);
        let mut freed = Vec::new();
        for held in holder.held {
            match index.checked_sub(1).map(|older| &mut self.holders[older]) {
                Some(older) if older.generation >= held.birth && !planted::on("tree-pinned-page-freed") => {
                    older.held.push(held)
                }
                _ => freed.push(held.page),
            }
        }
        self.held_count -= freed.len();
        for &page in &freed {
            self.add_free(page);
        }
        freed
    }

    fn add_free(&mut self, page: PageNo) {
        assert!(self.free.insert(page), "page {page} becomes free once");
        // The free end of the file is no part of it: it is given back with the next checkpoint.
        while self.page_count > self.first_page && self.free.remove(self.page_count - 1) {
            self.page_count -= 1;
        }
    }

    fn touch_map(&mut self, page: PageNo) {
        let index = (page / self.map_unit) as usize;
        if index >= self.map_changed.len() {
            self.map_changed.resize(index + 1, false);
        }
        self.map_changed[index] = true;
    }

    /// Whether the free map's `index`th page differs from what was last written. Asking clears it.
    pub(super) fn take_map_changed(&mut self, index: usize) -> bool {
        self.map_changed.get_mut(index).is_some_and(std::mem::take)
    }

    /// The map has only that many pages of bits now.
    pub(super) fn shorten_map(&mut self, count: usize) {
        self.map_changed.truncate(count);
    }

    pub(super) fn any_map_changed(&self) -> bool {
        self.map_changed.iter().any(|&changed| changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        Space::new(2, 1000, PageSet::new(), (1, Roots::default()), None)
    }

    fn alloc(space: &mut Space) -> (PageNo, u64) {
        (space.alloc().expect("room"), space.generation())
    }

    #[test]
    fn a_page_that_nobody_else_sees_is_free_at_once_and_handed_out_again() {
        let mut space = space();
        let (page, birth) = alloc(&mut space);
        assert!(space.is_private(birth));
        assert!(space.release(page, birth));
        assert_eq!(alloc(&mut space).0, page);
    }

    #[test]
    fn free_pages_are_handed_out_round_and_round() {
        let mut space = space();
        let pages: Vec<(PageNo, u64)> = (0..20).map(|_| alloc(&mut space)).collect();
        for (page, birth) in [pages[1], pages[3]] {
            space.release(page, birth);
        }
        assert_eq!(alloc(&mut space).0, 22, "two free pages of twenty are not worth a new round");
        for (page, birth) in [pages[4], pages[10]] {
            space.release(page, birth);
        }
        let again: Vec<PageNo> = (0..5).map(|_| alloc(&mut space).0).collect();
        assert_eq!(again, [3, 5, 6, 12, 23], "a round, and what is behind the end");
        space.release(pages[0].0, pages[0].1);
        space.set_lowest_first(true);
        assert_eq!(alloc(&mut space).0, 2);
    }

    /// The pin sees the first page but not the second, which was born and left behind it.
    #[test]
    fn a_pin_holds_what_it_sees_and_no_more() {
        let mut space = space();
        let (seen, birth) = alloc(&mut space);
        let pin = space.freeze(Who::Pins { count: 1 }, Roots::default());
        assert!(!space.is_private(birth));
        assert!(!space.release(seen, birth));
        let (unseen, birth) = alloc(&mut space);
        assert!(space.release(unseen, birth));
        assert_eq!(space.held_count(), 1);
        assert_eq!(space.unpin(pin), [seen]);
        assert_eq!(space.held_count(), 0);
    }

    /// A page of checkpoint 2 that was let go in 3 waits until neither slot can show checkpoint 2: that is
    /// when 4 is durable.
    #[test]
    fn a_page_is_held_while_either_meta_slot_reaches_it() {
        let mut space = space();
        let (page, birth) = alloc(&mut space);
        space.freeze(Who::Checkpoint { number: 2 }, Roots::default());
        assert!(space.checkpoint_durable(2).is_empty());
        assert!(!space.release(page, birth));
        space.freeze(Who::Checkpoint { number: 3 }, Roots::default());
        assert!(space.checkpoint_durable(3).is_empty());
        space.freeze(Who::Checkpoint { number: 4 }, Roots::default());
        assert_eq!(space.checkpoint_durable(4), [page]);
    }

    #[test]
    fn a_page_hangs_on_the_older_pin_after_the_newer_has_gone() {
        let mut space = space();
        let (both, birth_both) = alloc(&mut space);
        let old = space.freeze(Who::Pins { count: 1 }, Roots::default());
        let (only_new, birth_new) = alloc(&mut space);
        let new = space.freeze(Who::Pins { count: 1 }, Roots::default());
        space.release(both, birth_both);
        space.release(only_new, birth_new);
        assert_eq!(space.unpin(new), [only_new]);
        assert_eq!(space.unpin(old), [both]);
    }
}
