//! How fast a disk and a cluster are, as values: what is done to them, how long each of it took.
//!
//! [`disk`] does to files what a member does, and [`load`] asks a cluster what its clients ask. Neither says anything to people:
//! `cli` reads options, prints, and judges. Both are handed their clock.

pub mod disk;
mod latency;
pub mod load;
mod scratch;

pub use latency::{Latencies, PERCENTILES};
pub use scratch::Scratch;
