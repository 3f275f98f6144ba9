//! A member's own clock as a function of true time: offset, rate, standstill.

use crate::base::{Mono, time::Nanos};

const MILLION: u128 = 1_000_000;

/// Straight lines, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct LocalClock {
    since: Mono,
    shown: u64,
    /// Local nanoseconds for a million true ones.
    rate: u64,
    stopped: bool,
}

impl LocalClock {
    pub fn new(now: Mono, offset: Nanos) -> LocalClock {
        LocalClock { since: now, shown: now.0 + offset, rate: MILLION as u64, stopped: false }
    }

    pub fn at(&self, now: Mono) -> Mono {
        if self.stopped {
            return Mono(self.shown);
        }
        let passed = u128::from(now.since(self.since)) * u128::from(self.rate) / MILLION;
        Mono(self.shown + passed as u64)
    }

    /// The first true instant at which the clock shows `local`, if it goes on as it does.
    pub fn when(&self, local: Mono) -> Mono {
        if local == Mono::NEVER || self.stopped {
            return Mono::NEVER;
        }
        let ahead = u128::from(local.0.saturating_sub(self.shown)) * MILLION;
        let passed = ahead.div_ceil(u128::from(self.rate));
        self.since + u64::try_from(passed).unwrap_or(u64::MAX)
    }

    fn bend(&mut self, now: Mono) {
        *self = LocalClock { since: now, shown: self.at(now).0, ..*self };
    }

    /// From now on this much too fast or slow, in millionths.
    pub fn drift(&mut self, now: Mono, ppm: i64) {
        self.bend(now);
        self.rate = 1_000_000u64.saturating_add_signed(ppm).max(1_000);
    }

    pub fn stop(&mut self, now: Mono) {
        self.bend(now);
        self.stopped = true;
    }

    pub fn go_on(&mut self, now: Mono) {
        if self.stopped {
            self.bend(now);
            self.stopped = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_and_back() {
        let mut clock = LocalClock::new(Mono(1_000), 500);
        assert_eq!(clock.at(Mono(3_000)), Mono(3_500));
        clock.drift(Mono(2_000), 20_000);
        assert_eq!(clock.at(Mono(1_002_000)), Mono(2_500 + 1_020_000));
        for local in [2_501, 2_999, 500_000, 123_456_789] {
            let at = clock.when(Mono(local));
            assert!(clock.at(at) >= Mono(local) && clock.at(at - 1) < Mono(local), "{local}");
        }
        clock.stop(Mono(1_002_000));
        assert_eq!(clock.at(Mono(9_000_000)), Mono(1_022_500));
        assert_eq!(clock.when(Mono(2_000_000)), Mono::NEVER);
        clock.go_on(Mono(9_000_000));
        assert_eq!(clock.at(Mono(9_000_100)), Mono(1_022_602));
        clock.drift(Mono(9_000_100), -20_000);
        assert_eq!(clock.at(Mono(9_001_100)), Mono(1_022_602 + 980));
    }
}
