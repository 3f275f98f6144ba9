//! How long things took, counted by length.
//!
//! One scale serves every duration of ours: bounds that double from 62.5 µs to 8.192 s. It has all the bounds of
//! etcd's histograms of disks (1 ms to 8.192 s), so queries written for those go on working, and four finer ones
//! below, where a good disk's syncs are. Which bucket a duration belongs to is one division and a count of
//! leading zeroes: cheap enough for every write.

use super::time::Nanos;

/// The first bound; each further one is twice the one before.
pub const FIRST_BOUND: Nanos = 62_500;

/// Bounded buckets. What is longer than the last bound is counted behind them.
pub const BOUNDS: usize = 18;

/// Counts of durations, none of which is ever taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS + 1],
    sum: Nanos,
}

impl Histogram {
    pub fn observe(&mut self, took: Nanos) {
        // 0 for all up to the first bound, 1 for those up to twice as much, and so on.
        let doublings = u64::BITS - (took.saturating_sub(1) / FIRST_BOUND).leading_zeros();
        self.counts[(doublings as usize).min(BOUNDS)] += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// Every bound with the number of durations that were no longer, in order.
    pub fn cumulative(&self) -> impl Iterator<Item = (Nanos, u64)> {
        let bounds = (0..BOUNDS).map(|at| FIRST_BOUND << at);
        bounds.zip(self.counts).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((bound, *sum))
        })
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn sum(&self) -> Nanos {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::super::time::{MS, SECOND};
    use super::*;

    fn bucket(took: Nanos) -> usize {
        let mut one = Histogram::default();
        one.observe(took);
        one.counts.iter().position(|&count| count == 1).unwrap()
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        assert_eq!((bucket(0), bucket(1), bucket(62_500), bucket(62_501)), (0, 0, 0, 1));
        for at in 0..BOUNDS {
            assert_eq!(bucket(FIRST_BOUND << at), at);
            assert_eq!(bucket((FIRST_BOUND << at) + 1), at + 1);
        }
        assert_eq!(bucket(u64::MAX), BOUNDS);
    }

    #[test]
    fn bounds_are_those_that_etcd_has_and_finer_ones() {
        let bounds: Vec<Nanos> = Histogram::default().cumulative().map(|(bound, _)| bound).collect();
        assert_eq!(bounds.last(), Some(&8_192_000_000));
        for doubling in 0..14 {
            assert!(bounds.contains(&(MS << doubling)), "{} ms", 1 << doubling);
        }
    }

    #[test]
    fn counts_add_up() {
        let mut all = Histogram::default();
        for took in [MS, MS, 3 * MS, 20 * SECOND] {
            all.observe(took);
        }
        let told: Vec<(Nanos, u64)> = all.cumulative().collect();
        assert_eq!(told[3], (500_000, 0));
        assert_eq!(told[4], (MS, 2));
        assert_eq!(told[6], (4 * MS, 3));
        assert_eq!(told[BOUNDS - 1].1, 3);
        assert_eq!((all.count(), all.sum()), (4, 20 * SECOND + 5 * MS));
    }
}
