//! How long single operations took: enough of each to tell any percentile to three digits.

use hdrhistogram::Histogram;

use crate::base::time::Nanos;

/// The percentiles that are shown: fio's own, so that both can be laid side by side.
pub const PERCENTILES: [f64; 17] =
    [1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99];

/// Of every duration three decimal digits are kept.
const DIGITS: u8 = 3;

/// Durations of one kind of operation.
#[derive(Clone, Debug)]
pub struct Latencies {
    counts: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { counts: Histogram::new(DIGITS).expect("three digits are allowed") }
    }
}

impl Latencies {
    /// Of every duration two digits are kept: for what is held many times.
    pub fn coarse() -> Latencies {
        Latencies { counts: Histogram::new(2).expect("two digits are allowed") }
    }

    pub fn record(&mut self, took: Nanos) {
        // It grows with the longest: nothing is out of its range.
        self.counts.record(took).expect("a histogram that grows takes every value");
    }

    pub fn add(&mut self, other: &Latencies) {
        self.counts.add(&other.counts).expect("a histogram that grows takes every value");
    }

    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    pub fn min(&self) -> Nanos {
        if self.count() == 0 { 0 } else { self.counts.min() }
    }

    pub fn max(&self) -> Nanos {
        self.counts.max()
    }

    pub fn mean(&self) -> f64 {
        self.counts.mean()
    }

    pub fn deviation(&self) -> f64 {
        if self.count() == 0 { 0.0 } else { self.counts.stdev() }
    }

    /// The shortest duration that so many percent did not exceed; 0 where there are none.
    pub fn percentile(&self, percent: f64) -> Nanos {
        if self.count() == 0 { 0 } else { self.counts.value_at_percentile(percent) }
    }

    /// Of a hundred, how many took no longer than this.
    pub fn share_up_to(&self, bound: Nanos) -> f64 {
        if self.count() == 0 { 0.0 } else { 100.0 * self.counts.quantile_below(bound) }
    }

    /// How many took so long, by doubling bounds: `(bound, count)` means longer than half the bound and up to it. From the
    /// first bound that has any to the last.
    pub fn doublings(&self) -> Vec<(Nanos, u64)> {
        let mut found: Vec<(Nanos, u64)> = Vec::new();
        for value in self.counts.iter_recorded() {
            let bound = value.value_iterated_to().next_power_of_two();
            while let Some(&(last, _)) = found.last()
                && last < bound
            {
                found.push((2 * last, 0));
            }
            match found.last_mut() {
                Some((_, count)) => *count += value.count_at_value(),
                None => found.push((bound, value.count_at_value())),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_measured_is_no_panic() {
        let none = Latencies::default();
        assert_eq!((none.count(), none.min(), none.max(), none.percentile(99.0)), (0, 0, 0, 0));
        assert_eq!((none.deviation(), none.doublings()), (0.0, Vec::new()));
    }

    #[test]
    fn percentiles_are_of_the_values() {
        let mut all = Latencies::default();
        (1..=1_000).for_each(|n| all.record(n * 1_000));
        for percent in PERCENTILES {
            let exact = percent * 10_000.0;
            let found = all.percentile(percent) as f64;
            assert!((found - exact).abs() <= 0.002 * exact + 1_000.0, "{percent}: {found} and not {exact}");
        }
        assert!((all.mean() - 500_500.0).abs() < 1_000.0);
        let mut twice = all.clone();
        twice.add(&all);
        assert_eq!((twice.count(), twice.percentile(50.0)), (2_000, all.percentile(50.0)));
    }

    #[test]
    fn doubling_bounds_leave_no_gap() {
        let mut some = Latencies::default();
        [3, 4, 40, 5_000].into_iter().for_each(|value| some.record(value));
        let found = some.doublings();
        assert_eq!(found.first(), Some(&(4, 2)));
        assert_eq!(found.last(), Some(&(8_192, 1)));
        assert!(found.windows(2).all(|pair| pair[1].0 == 2 * pair[0].0), "{found:?}");
        assert_eq!(found.iter().map(|(_, count)| count).sum::<u64>(), 4);
    }
}
