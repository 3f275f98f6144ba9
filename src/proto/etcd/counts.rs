//! How many calls of etcd's API there were, by method: what gRPC's libraries count, whatever carried the call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::methods::{RPCS, Rpc};
use crate::api::status::RpcStatus;

/// Of all connections of a member.
#[derive(Debug)]
pub struct Counts(Vec<OfMethod>);

#[derive(Debug, Default)]
struct OfMethod {
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    /// By the number of the status.
    handled: [AtomicU64; RpcStatus::ALL.len()],
}

impl Default for Counts {
    fn default() -> Counts {
        Counts(RPCS.iter().map(|_| OfMethod::default()).collect())
    }
}

/// What was counted of one method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub started: u64,
    pub received: u64,
    pub sent: u64,
    pub handled: [u64; RpcStatus::ALL.len()],
}

impl Counts {
    /// Every method, in the order of the table.
    pub fn all(&self) -> impl Iterator<Item = (&'static Rpc, Counted)> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RPCS.iter().zip(&self.0).map(move |(rpc, counts)| {
            let handled = counts.handled.each_ref().map(read);
            let (started, received, sent) =
                (read(&counts.started), read(&counts.received), read(&counts.sent));
            (rpc, Counted { started, received, sent, handled })
        })
    }
}

/// Counts for one call, from its beginning to its end.
#[derive(Debug)]
pub struct Tally {
    counts: Arc<Counts>,
    place: usize,
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

impl Tally {
    pub fn begin(counts: &Arc<Counts>, rpc: &Rpc) -> Tally {
        let tally = Tally { counts: Arc::clone(counts), place: rpc.place() };
        add(&tally.of_method().started, 1);
        tally
    }

    fn of_method(&self) -> &OfMethod {
        &self.counts.0[self.place]
    }

    pub fn received(&self) {
        add(&self.of_method().received, 1);
    }

    pub fn sent(&self, messages: usize) {
        add(&self.of_method().sent, messages as u64);
    }

    /// Without a status the client has gone before.
    pub fn end(&self, code: Option<RpcStatus>) {
        let code = code.unwrap_or(RpcStatus::Canceled);
        add(&self.of_method().handled[usize::from(code.number())], 1);
    }
}
