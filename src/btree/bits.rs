//! Sets of page numbers: a bit per page, with summaries above, so that the lowest and the highest member are
//! found in a handful of words whatever the size.

/// A set of small integers. 1 bit each and 1/63 more for the summaries.
#[derive(Clone, Debug, Default)]
pub(super) struct PageSet {
    /// `levels[0]` has a bit per member; each bit above says whether the word below it is not zero.
    levels: Vec<Vec<u64>>,
    count: usize,
}

impl PageSet {
    pub(super) fn new() -> PageSet {
        PageSet { levels: vec![Vec::new()], count: 0 }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn contains(&self, page: u32) -> bool {
        let page = page as usize;
        self.levels[0].get(page / 64).is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    /// Whether it was not there before.
    pub(super) fn insert(&mut self, page: u32) -> bool {
        let mut at = page as usize;
        self.reserve(at / 64 + 1);
        if self.contains(page) {
            return false;
        }
        self.count += 1;
        for level in &mut self.levels {
            let word = &mut level[at / 64];
            let was_empty = *word == 0;
            *word |= 1 << (at % 64);
            if !was_empty {
                break;
            }
            at /= 64;
        }
        true
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, page: u32) -> bool {
        if !self.contains(page) {
            return false;
        }
        self.count -= 1;
        let mut at = page as usize;
        for level in &mut self.levels {
            let word = &mut level[at / 64];
            *word &= !(1 << (at % 64));
            if *word != 0 {
                break;
            }
            at /= 64;
        }
        true
    }

    pub(super) fn first(&self) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let mut at = 0;
        for level in self.levels.iter().rev() {
            at = at * 64 + level[at].trailing_zeros() as usize;
        }
        Some(at as u32)
    }

    pub(super) fn last(&self) -> Option<u32> {
        self.last_below(u32::MAX)
    }

    /// The greatest member that is less than `bound`.
    pub(super) fn last_below(&self, bound: u32) -> Option<u32> {
        // Climb until some word has a member to the left of the path, then descend along the greatest.
        let mut at = bound as usize;
        for height in 0..self.levels.len() {
            let level = &self.levels[height];
            let word = (at / 64).min(level.len().saturating_sub(1));
            let left = match level.get(word) {
                Some(bits) if at / 64 > word => *bits,
                Some(bits) => bits & ((1 << (at % 64)) - 1),
                None => 0,
            };
            if left != 0 {
                let mut found = word * 64 + 63 - left.leading_zeros() as usize;
                for level in self.levels[..height].iter().rev() {
                    found = found * 64 + 63 - level[found].leading_zeros() as usize;
                }
                return Some(found as u32);
            }
            at = word;
        }
        None
    }

    /// The least member that is not less than `bound`.
    pub(super) fn first_from(&self, bound: u32) -> Option<u32> {
        let mut at = bound as usize;
        for height in 0..self.levels.len() {
            let bits = self.levels[height].get(at / 64).copied().unwrap_or(0);
            let right = bits & (u64::MAX << (at % 64));
            if right != 0 {
                let mut found = at / 64 * 64 + right.trailing_zeros() as usize;
                for level in self.levels[..height].iter().rev() {
                    found = found * 64 + level[found].trailing_zeros() as usize;
                }
                return Some(found as u32);
            }
            at = at / 64 + 1;
        }
        None
    }

    /// Whether at least `count` members are less than `bound`.
    pub(super) fn has_below(&self, count: usize, bound: u32) -> bool {
        let mut from = 0;
        (0..count).all(|_| match self.first_from(from) {
            Some(member) if member < bound => {
                from = member + 1;
                true
            }
            _ => false,
        })
    }

    /// The members `64 * index ..` as bits.
    pub(super) fn word(&self, index: usize) -> u64 {
        self.levels[0].get(index).copied().unwrap_or(0)
    }

    /// Sets 64 members at once, while a set is being read from disk.
    pub(super) fn set_word(&mut self, index: usize, bits: u64) {
        self.reserve(index + 1);
        let before = std::mem::replace(&mut self.levels[0][index], bits);
        self.count = self.count + bits.count_ones() as usize - before.count_ones() as usize;
        let (mut at, mut word) = (index, bits);
        for level in &mut self.levels[1..] {
            let mask = 1 << (at % 64);
            let above = &mut level[at / 64];
            *above = if word != 0 { *above | mask } else { *above & !mask };
            word = *above;
            at /= 64;
        }
    }

    pub(super) fn word_count(&self) -> usize {
        self.levels[0].len()
    }

    /// In rising order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.levels[0].iter().enumerate().flat_map(|(index, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(index as u32 * 64 + bit)
            })
        })
    }

    fn reserve(&mut self, words: usize) {
        if words <= self.levels[0].len() {
            return;
        }
        let mut words = words.next_multiple_of(64);
        let mut height = 0;
        loop {
            if height == self.levels.len() {
                // A new top over what was the only word so far.
                let below = &self.levels[height - 1];
                let mut top = vec![0; words];
                for (at, _) in below.iter().enumerate().filter(|(_, bits)| **bits != 0) {
                    top[at / 64] |= 1 << (at % 64);
                }
                self.levels.push(top);
            } else {
                let level = &mut self.levels[height];
                let wanted = words.max(level.len());
                level.resize(wanted, 0);
            }
            if words == 1 {
                return;
            }
            words = words.div_ceil(64);
            height += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::base::Rng;

    #[test]
    fn it_is_a_set() {
        let mut rng = Rng::new(5);
        for span in [3, 64, 5_000, 600_000] {
            let (mut set, mut model) = (PageSet::new(), BTreeSet::new());
            for _ in 0..3_000 {
                let page = rng.below(span) as u32;
                match rng.below(5) {
                    0 | 1 => assert_eq!(set.insert(page), model.insert(page)),
                    2 => assert_eq!(set.remove(page), model.remove(&page)),
                    3 => {
                        let bits = rng.next_u64() & rng.next_u64() & rng.next_u64();
                        let base = page / 64;
                        set.set_word(base as usize, bits);
                        for bit in 0..64 {
                            match bits >> bit & 1 {
                                1 => model.insert(base * 64 + bit),
                                _ => model.remove(&(base * 64 + bit)),
                            };
                        }
                    }
                    _ => {
                        assert_eq!(set.last_below(page), model.range(..page).next_back().copied());
                        assert_eq!(set.first_from(page), model.range(page..).next().copied());
                        let below = model.range(..page).count().min(70);
                        assert!(set.has_below(below, page));
                        assert!(below == 70 || !set.has_below(below + 1, page));
                    }
                }
                assert_eq!(set.first(), model.first().copied());
                assert_eq!(set.last(), model.last().copied());
                assert_eq!(set.count(), model.len());
                assert_eq!(set.contains(page), model.contains(&page));
            }
            assert!(set.iter().eq(model.iter().copied()));
        }
    }
}
