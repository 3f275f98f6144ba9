//! Time as a value: the core never reads a clock, it is told what time it is.

use std::ops::{Add, Sub};

/// Nanoseconds of the local boot-time clock (CLOCK_BOOTTIME: it goes on during suspend). Never compared
/// between machines, never stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mono(pub u64);

/// A length of time in nanoseconds.
pub type Nanos = u64;

pub const MS: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MS;

impl Mono {
    /// Later than every real reading: "no deadline".
    pub const NEVER: Mono = Mono(u64::MAX);

    /// How long ago `earlier` was; zero if it is in the future.
    pub fn since(self, earlier: Mono) -> Nanos {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Nanos> for Mono {
    type Output = Mono;
    fn add(self, rhs: Nanos) -> Mono {
        Mono(self.0.saturating_add(rhs))
    }
}

impl Sub<Nanos> for Mono {
    type Output = Mono;
    fn sub(self, rhs: Nanos) -> Mono {
        Mono(self.0.saturating_sub(rhs))
    }
}
