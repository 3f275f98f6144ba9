//! A clock that stands still until it is moved, and entropy from a seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::time::Nanos;
use crate::base::{Mono, Rng};
use crate::io::{Clock, Entropy};

/// Time moved by hand; clones are the same clock. Starts at one second after boot.
#[derive(Clone, Debug)]
pub struct SimClock {
    nanos: Arc<AtomicU64>,
}

/// What the wall clock of every simulated machine says at boot (2023-11-14).
const WALL_MS_AT_BOOT: u64 = 1_700_000_000_000;

impl Default for SimClock {
    fn default() -> SimClock {
        SimClock { nanos: Arc::new(AtomicU64::new(1_000_000_000)) }
    }
}

impl SimClock {
    pub fn advance(&self, by: Nanos) {
        self.nanos.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Mono {
        Mono(self.nanos.load(Ordering::Relaxed))
    }

    fn wall_ms(&self) -> u64 {
        WALL_MS_AT_BOOT + self.now().0 / 1_000_000
    }
}

/// Dice with a seed.
#[derive(Clone, Debug)]
pub struct SimEntropy {
    rng: Rng,
}

impl SimEntropy {
    pub fn new(seed: u64) -> SimEntropy {
        SimEntropy { rng: Rng::new(seed) }
    }
}

impl Entropy for SimEntropy {
    fn seed(&mut self) -> u64 {
        self.rng.next_u64()
    }
}
