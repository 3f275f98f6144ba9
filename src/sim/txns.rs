//! The transactions that clients ask for: of all operations and compares, one within another, most of them such that
//! they can be done, and some that the gate refuses.

use super::clients::{Asking, key, put, range, span};
use crate::api::{
    Compare, CompareResult, Delete, KeyValue, Limits, Op, Request, Span, Target, Txn, validate,
};
use crate::base::Rng;

/// The gate that clients pass. Few operations, so that some have too many.
pub fn limits() -> Limits {
    Limits { txn_ops_max: 6, ..Limits::default() }
}

/// So often is one thrown again that the gate refuses.
const THROWS_MAX: u64 = 8;

/// One transaction. `seen` is a key as the client saw it last: what it compares with.
pub fn txn(rng: &mut Rng, asking: &Asking, seen: Option<&KeyValue>) -> Txn {
    let writes = !rng.one_in(4);
    let serializable = rng.one_in(3);
    let mut maker = Maker { rng, asking, seen, writes, serializable, puts: 0 };
    for _ in 0..THROWS_MAX {
        let txn = maker.txn(0);
        if maker.rng.one_in(10) || validate::check(&Request::Txn(txn.clone()), &limits()).is_ok() {
            return txn;
        }
    }
    maker.txn(0)
}

struct Maker<'m> {
    rng: &'m mut Rng,
    asking: &'m Asking<'m>,
    seen: Option<&'m KeyValue>,
    writes: bool,
    /// All its reads are, if it writes nothing.
    serializable: bool,
    /// Values are written once each.
    puts: u64,
}

impl Maker<'_> {
    fn txn(&mut self, depth: u64) -> Txn {
        let compares = (0..self.rng.below(3)).map(|_| self.compare()).collect();
        let success = (0..self.rng.below(5 - depth)).map(|_| self.op(depth)).collect();
        let failure = (0..self.rng.below(4 - depth)).map(|_| self.op(depth)).collect();
        Txn { compares, success, failure }
    }

    fn op(&mut self, depth: u64) -> Op {
        let Asking { keys, value_max, known, number, leases } = *self.asking;
        match self.rng.below(if self.writes { 16 } else { 6 }) {
            0 if depth < 3 => Op::Txn(self.txn(depth + 1)),
            0..=5 => {
                let mut range = range(self.rng, keys, known, number);
                range.serializable = self.serializable;
                if !self.rng.one_in(3) {
                    range.revision = 0;
                }
                Op::Range(range)
            }
            6..=8 => Op::Delete(Delete { span: span(self.rng, keys, 6), prev_kv: self.rng.one_in(3) }),
            _ => {
                self.puts += 1;
                let mut put = put(self.rng, keys, value_max, &format!("v{number}.{}", self.puts));
                if self.rng.one_in(60) {
                    put.lease = 7;
                } else {
                    leases.attach(self.rng, &mut put);
                }
                Op::Put(put)
            }
        }
    }

    /// One that may hold.
    fn compare(&mut self) -> Compare {
        let Asking { keys, known, leases, .. } = *self.asking;
        let rng = &mut *self.rng;
        let result = match rng.below(6) {
            0..=2 => CompareResult::Equal,
            3 => CompareResult::NotEqual,
            4 => CompareResult::Less,
            _ => CompareResult::Greater,
        };
        // As it was when this client saw it: nobody has come between.
        if let Some(seen) = self.seen
            && rng.one_in(3)
        {
            let target = match rng.below(if leases.is_empty() { 4 } else { 5 }) {
                0 => Target::Value(seen.value.clone()),
                1 => Target::Version(seen.version.cast_signed()),
                2 => Target::Create(seen.create_revision.cast_signed()),
                3 => Target::Mod(seen.mod_revision.cast_signed()),
                _ => Target::Lease(seen.lease),
            };
            return Compare { span: Span::Key(seen.key.clone()), target, result };
        }
        let revision = (known + 2).saturating_sub(rng.below(12)).cast_signed();
        let target = match rng.below(8) {
            // All values begin with v.
            0 => Target::Value("v".into()),
            1 => Target::Value("w".into()),
            2 | 3 => Target::Version(rng.below(4).cast_signed() - 1),
            4 => Target::Create(if rng.one_in(2) { 0 } else { revision }),
            5 | 6 => Target::Mod(if rng.one_in(3) { 0 } else { revision }),
            _ => Target::Lease(rng.below(3).cast_signed() - 1),
        };
        let span = if rng.one_in(3) { span(rng, keys, 1) } else { Span::Key(key(rng, keys)) };
        Compare { span, target, result }
    }
}
