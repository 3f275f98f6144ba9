//! The line of a key: all its changes, from the newest back to the first, so linked that any of them is near.
//!
//! ```text
//!   ordinal      1 <-- 2 <-- 3 <-- 4 <-- 5 <-- 6 <-- 7 <-- 8        previous: each to the one before it
//!                      2 <-------- 4 <-------------------- 8        skip: to the ordinal without its lowest
//!                                  4 <-------- 6 <-- 7              bit (6 -> 4, 7 -> 6, 8 -> none)
//! ```
//!
//! A change knows the one before it. That alone would make a read of an old revision walk through all changes since.
//! So a change with an even ordinal also has a skip, to the ordinal that is left when the lowest bit is taken
//! away (that of an odd one is the one before it anyway): twice as far back for every further zero at the end. From
//! any change every older one is reached in a number of steps that grows with the square of the logarithm.
//!
//! To link the next change one has to know the revisions at the ends of the skips that begin at the newest one: of
//! ordinal 7 these are 7, 6 and 4 (each one bit less). They are the *marks*, and are kept in the key's own cell: as many
//! as the ordinal has bits that are set. So a put reads nothing but the cell that it is about to replace.
//!
//! The links are never changed, also when a compaction (see [`super::compact`]) takes away what they lead to. Then they
//! lead to nothing, and nobody comes to that place who asks for a revision `at` that can still be read, so that `at` is not
//! before the compact revision C:
//!
//! - A step is made *from* a change only if that is behind `at`, and so behind C. What is behind C is never garbage. This
//!   is so for the first one, a mark, too: marks that are at or before `at` are only compared with it.
//! - Where it is found that a link leads to something that is not too new, that is the answer: the newest change
//!   at or before `at`. If it is behind C, or at C, it is there. If it is before C, it is also the newest one at or before C,
//!   for there is none between: and of such a one only a deletion is taken away. So an answer that is not there
//!   means that the key was not there, and whoever asked has to take it so.
//!
//! Putting needs marks and no links: what a new change links to is never looked at. It may be garbage, or gone.

use super::revision::Rev;
use crate::base::planted;
use crate::base::{Result, Revision};

/// What a key's cell knows of its changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// How many changes there were; 0 only before the first.
    pub ordinal: u64,
    /// The ends of the skips, oldest first: the last one is the newest change.
    pub marks: Vec<Rev>,
}

/// What a change knows of those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Links {
    pub previous: Option<Rev>,
    /// Only where it is another one than `previous`.
    pub skip: Option<Rev>,
}

impl Line {
    /// The newest change.
    pub fn newest(&self) -> Option<Rev> {
        self.marks.last().copied()
    }

    /// Adds a change, which is newer than all others.
    pub fn push(&mut self, rev: Rev) -> Links {
        let previous = self.newest();
        // Within the reach of the new one's skip: the marks of the ones at the end of the ordinal.
        let passed = self.ordinal.trailing_ones() as usize - usize::from(self.passes_too_few());
        self.marks.truncate(self.marks.len() - passed);
        let skip = self.newest().filter(|_| passed > 0);
        self.marks.push(rev);
        self.ordinal += 1;
        Links { previous, skip }
    }

    fn passes_too_few(&self) -> bool {
        self.ordinal % 2 == 1 && planted::on("store-skip-is-too-short")
    }

    /// The change that was the newest one at revision `at`; None: there was none. If a compaction has taken it away, the
    /// key was not there. `links` reads those of a change.
    pub fn find(&self, at: Revision, mut links: impl FnMut(Rev) -> Result<Links>) -> Result<Option<Rev>> {
        let is_visible = |rev: &Rev| {
            rev.main < at || (rev.main == at && !planted::on("store-old-read-misses-its-revision"))
        };
        let visible = self.marks.partition_point(is_visible);
        // The oldest mark that is too new: what is looked for is before it, and behind the mark before it.
        let Some(&(mut later)) = self.marks.get(visible) else {
            return Ok(self.newest());
        };
        loop {
            let Links { previous, skip } = links(later)?;
            later = match (skip, previous) {
                (Some(skip), _) if !is_visible(&skip) => skip,
                (_, Some(previous)) if !is_visible(&previous) => previous,
                (_, previous) => return Ok(previous),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of changes at the revisions 10, 20, ..., and the links of each.
    fn line(count: u64) -> (Line, Vec<Links>) {
        let mut line = Line::default();
        let links = (1..=count).map(|ordinal| line.push(Rev::new(ordinal * 10, 0))).collect();
        (line, links)
    }

    #[test]
    fn skips_take_the_lowest_bit_away() {
        let (_, links) = line(1 << 10);
        for (ordinal, links) in (1u64..).zip(links) {
            let rev = |ordinal: u64| (ordinal > 0).then(|| Rev::new(ordinal * 10, 0));
            let shorter = ordinal & (ordinal - 1);
            assert_eq!(links.previous, rev(ordinal - 1), "of {ordinal}");
            assert_eq!(links.skip, rev(shorter).filter(|_| ordinal.is_multiple_of(2)), "of {ordinal}");
        }
    }

    #[test]
    fn marks_are_the_bits_of_the_ordinal() {
        for count in 0..300 {
            let (line, _) = line(count);
            assert_eq!(line.marks.len(), count.count_ones() as usize);
            assert_eq!(line.ordinal, count);
            assert_eq!(line.newest(), (count > 0).then(|| Rev::new(count * 10, 0)));
        }
    }

    #[test]
    fn every_change_is_found_from_every_other_in_few_steps() {
        for count in [1u64, 2, 3, 7, 8, 100, 1_000] {
            let (line, links) = line(count);
            for at in 0..=count * 10 + 5 {
                let mut steps = 0;
                let found = line.find(at, |rev| {
                    steps += 1;
                    Ok(links[rev.main as usize / 10 - 1])
                });
                let wanted = (at / 10).min(count);
                assert_eq!(found.unwrap(), (wanted > 0).then(|| Rev::new(wanted * 10, 0)), "{at} of {count}");
                assert!(steps <= 60, "{steps} steps to {at} of {count}");
            }
        }
    }
}
