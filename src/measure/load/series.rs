//! A run over time, in a bounded number of steps: when there are too many, each two become one.

use crate::base::time::{MS, Nanos};
use crate::measure::Latencies;

/// Steps that are kept at most; an even number.
const SLOTS_MAX: usize = 240;

/// Short enough for a run of a few milliseconds.
const FIRST_WIDTH: Nanos = MS;

/// What happened in each step of a run.
#[derive(Clone, Debug)]
pub struct Series {
    width: Nanos,
    slots: Vec<Slot>,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Slot {
    pub errors: u64,
    /// Of the requests that were answered in it.
    pub latencies: Latencies,
}

impl Default for Slot {
    fn default() -> Slot {
        Slot { errors: 0, latencies: Latencies::coarse() }
    }
}

impl Default for Series {
    fn default() -> Series {
        Series { width: FIRST_WIDTH, slots: Vec::new() }
    }
}

impl Series {
    /// How long a step is.
    pub fn width(&self) -> Nanos {
        self.width
    }

    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The step of `since`, counted from the start of the run.
    pub(super) fn at(&mut self, since: Nanos) -> &mut Slot {
        while since / self.width >= SLOTS_MAX as Nanos {
            self.halve();
        }
        let at = (since / self.width) as usize;
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, Slot::default);
        }
        &mut self.slots[at]
    }

    fn halve(&mut self) {
        self.width *= 2;
        self.slots = self
            .slots
            .chunks(2)
            .map(|pair| {
                let mut whole = pair[0].clone();
                for other in &pair[1..] {
                    whole.errors += other.errors;
                    whole.latencies.add(&other.latencies);
                }
                whole
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_has_longer_steps_and_loses_nothing() {
        let mut series = Series::default();
        for second in 0..100 {
            series.at(second * 1_000 * MS).latencies.record(5 * MS);
            series.at(second * 1_000 * MS + MS).errors += 1;
        }
        assert!(series.slots().len() <= SLOTS_MAX && series.width() == 512 * MS, "{}", series.width());
        let counts: u64 = series.slots().iter().map(|slot| slot.latencies.count()).sum();
        let errors: u64 = series.slots().iter().map(|slot| slot.errors).sum();
        assert_eq!((counts, errors), (100, 100));
        // The first second lies where it lay.
        assert_eq!(series.slots()[0].latencies.count(), 1);
        assert_eq!(series.slots()[1].latencies.count(), 1);
    }
}
