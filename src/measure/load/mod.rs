//! A generator of load: many clients on one thread, each with a request under way, and how long each request took.
//!
//! Two shapes of load. **Closed**: a client asks again when it was answered, so the cluster sets the pace; a stall lowers the rate
//! and shows in the requests that waited, of which there are few. **Open**, with a rate: request number n is due n / rate
//! seconds after the start, whether or not the cluster keeps up, and its time is counted from when it was due. A stall then shows
//! in all the requests that it kept from being sent, as it would to users who do not wait for each other ("coordinated
//! omission" is the name of the mistake to count from the sending).
//!
//! ```text
//!   Work (words) --> generator: connections x clients, epoll --> a cluster
//!                        |  Replies (where each ends)
//!                        v
//!                    Outcome: latencies, rate over time, errors by code
//! ```
//!
//! A connection answers in the order in which it was asked, so whose answer comes is known by counting. What a reply says is
//! not looked at, only whether it is an error.
//!
//! What is left out: a connection that is lost is not made again, its clients are gone and what they asked counts as `LOST`; more than
//! one thread (what one can drive is in `bench/RESULTS-TOOLS.md`); TLS.

mod connection;
mod generator;
mod replies;
mod series;
mod watching;
mod work;

use std::collections::BTreeMap;
use std::net::SocketAddr;

pub use generator::run;
pub use replies::{Replies, Reply};
pub use series::{Series, Slot};
pub use watching::{WatchOutcome, WatchPlan, watch};
pub use work::{Keys, Kind, Range, Work, put_words};

use super::Latencies;
use crate::base::time::Nanos;

/// Who asks whom, how much at once, and until when.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Connections go to these in turn. At least one.
    pub addresses: Vec<SocketAddr>,
    pub connections: usize,
    /// They share the connections evenly; at least one on each.
    pub clients: usize,
    /// Requests that a client sends at once, and the next as many when all of them are answered. 1 with a rate.
    pub pipeline: usize,
    pub total: u64,
    /// Nothing is sent after so long.
    pub time_max: Option<Nanos>,
    /// Requests a second, due at even distances.
    pub rate: Option<u64>,
}

/// The error code of requests whose connection was lost.
pub const LOST: &str = "LOST";

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// From the first request to the last answer.
    pub took: Nanos,
    /// Of requests that succeeded: from when each was due, without a rate from when it was sent.
    pub latencies: Latencies,
    /// From when each was sent: the same, where there is no rate.
    pub service: Latencies,
    /// Requests that failed, by code.
    pub errors: BTreeMap<String, u64>,
    pub series: Series,
}

impl Outcome {
    /// Requests that succeeded.
    pub fn done(&self) -> u64 {
        self.latencies.count()
    }

    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Successes a second.
    pub fn rate(&self) -> f64 {
        self.done() as f64 * 1e9 / self.took.max(1) as f64
    }
}
