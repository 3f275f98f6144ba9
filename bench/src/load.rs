//! What a load is, and what came of it. Closed loop: a client sends its next request when the last is
//! answered, so a stall lowers the rate and shows in the percentiles of those who waited.

use std::time::Duration;

use hdrhistogram::Histogram;
use pawl::base::Rng;

use crate::{Result, grpc, resp};

pub const VALUE_BYTES: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Put,
    /// Linearizable where the system knows the difference.
    Get,
    /// A transaction: a compare that holds, and a put.
    Txn,
    /// Linearizable, so many keys in a row. The keys must be [`Order::Sorted`].
    Range(u64),
    /// How many keys there are in all.
    Count,
    /// Of a lease for each request in flight: they have the numbers from 1 on.
    KeepAlive,
    /// A transaction of so many puts.
    Puts(usize),
    /// Of the lease with the key's number, counted from 1. So many in a row have this TTL in seconds, the next as many a second
    /// more.
    Grant {
        ttl_s: u64,
        alike: u64,
    },
    /// A put of [`attached_key`], on the lease with the number of the key.
    Attach,
}

/// Where keys with neighbouring numbers lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Spread,
    Sorted,
}

/// Which protocol, and what a put is called in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Pawl,
    Redis,
    Etcd,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub wire: Wire,
    pub port: u16,
    pub kind: Kind,
    pub connections: usize,
    /// Requests in flight, spread over the connections: etcd only, where a connection carries many.
    pub clients: usize,
    /// Requests sent at once on one connection: RESP only.
    pub pipeline: usize,
    pub warm_up: Duration,
    pub duration: Duration,
    /// Keys are numbers below this.
    pub key_count: u64,
    pub order: Order,
    /// Instead of random keys for a time: each key below `key_count` once, in so many requests, no warm-up.
    pub total: Option<u64>,
}

/// Eight bytes, spread over the key space, one to one.
pub fn key_bytes(number: u64) -> [u8; 8] {
    // Multiplication by an odd constant permutes the 64-bit numbers.
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

/// The key of [`Kind::Attach`]: among those of either order there is none such.
pub fn attached_key(number: u64) -> Vec<u8> {
    [b"attached ", &number.to_be_bytes()[..]].concat()
}

pub struct Keys {
    rng: Rng,
    /// Of a range: how many keys.
    length: u64,
    order: Order,
    key_count: u64,
    /// Next and step of a sequence, where the plan has one.
    sequence: Option<(u64, u64)>,
}

impl Keys {
    fn bytes(&self, number: u64) -> [u8; 8] {
        match self.order {
            Order::Spread => key_bytes(number),
            Order::Sorted => number.to_be_bytes(),
        }
    }

    pub fn next_number(&mut self) -> Option<u64> {
        match &mut self.sequence {
            None => Some(self.rng.below(self.key_count)),
            Some((next, _)) if *next >= self.key_count => None,
            Some((next, step)) => {
                *next += *step;
                Some(*next - *step)
            }
        }
    }

    pub fn next_key(&mut self) -> Option<[u8; 8]> {
        self.next_number().map(|number| self.bytes(number))
    }

    /// The first key of a range, and the first behind it.
    pub fn next_range(&mut self) -> [[u8; 8]; 2] {
        let first = self.rng.below(self.key_count - self.length + 1);
        [self.bytes(first), self.bytes(first + self.length)]
    }
}

impl Plan {
    /// The keys of one of several independent clients.
    pub fn keys_of(&self, client: usize) -> Keys {
        let sequence = self.total.map(|_| (client as u64, self.clients as u64));
        let length = if let Kind::Range(length) = self.kind { length } else { 0 };
        let Plan { order, key_count, .. } = *self;
        Keys { rng: Rng::new(client as u64 + 1), length, order, key_count, sequence }
    }

    /// Each key below `key_count` once, with as many requests in flight as the system takes well.
    pub fn once(&self, kind: Kind, key_count: u64) -> Result<()> {
        // Of large transactions etcd refuses some, where a thousand are under way.
        let (total, clients) = match kind {
            Kind::Puts(count) => (key_count.div_ceil(count as u64), 100),
            _ => (key_count, 1_000),
        };
        let plan = Plan {
            kind,
            connections: 100,
            clients,
            pipeline: 16,
            key_count,
            total: Some(total),
            ..self.clone()
        };
        match plan.run()?.errors {
            0 => Ok(()),
            errors => Err(format!("{errors} of {total} requests failed that had to succeed").into()),
        }
    }

    pub fn value(&self) -> Vec<u8> {
        let mut value = vec![0; VALUE_BYTES];
        Rng::new(7).fill(&mut value);
        value
    }

    pub fn run(&self) -> Result<Outcome> {
        match self.wire {
            Wire::Etcd => grpc::run(self),
            Wire::Pawl | Wire::Redis => resp::run(self),
        }
    }
}

/// Counts and latencies (in nanoseconds) of the measured part.
pub struct Outcome {
    pub ops: u64,
    pub errors: u64,
    pub seconds: f64,
    pub latency: Histogram<u64>,
}

impl Outcome {
    pub fn new() -> Outcome {
        let latency = Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("valid bounds");
        Outcome { ops: 0, errors: 0, seconds: 0.0, latency }
    }

    pub fn success(&mut self, took: Duration, ops: u64) {
        self.ops += ops;
        self.latency.saturating_record_n(took.as_nanos() as u64, ops);
    }

    pub fn rate(&self) -> f64 {
        self.ops as f64 / self.seconds
    }

    pub fn quantile_ms(&self, q: f64) -> f64 {
        self.latency.value_at_quantile(q) as f64 / 1e6
    }
}
