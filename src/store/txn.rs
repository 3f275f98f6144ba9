//! Transactions: etcd's Txn over the store's own put, delete and range.
//!
//! First the whole course is settled, in the state before the transaction: which branch each compare chooses, those of
//! nested transactions too, and whether every operation on the way can be done. Nothing is written so far, so a fault
//! leaves nothing behind. Then the operations are done one by one, and none can fail: what one writes, none behind it takes
//! back, because no key changes twice (`api::validate` sees to it).
//!
//! Every member answers it, in one go and in memory. So what it reads, and shows of what was there, is bounded, by the state
//! before: its own writes can add no more than it brought. That is why ranges are read twice. A transaction that reads much is rare.

use std::cmp::Ordering;
use std::{slice, vec};

use super::range::ANSWER_BYTES_MAX;
use super::revision::Rev;
use super::walk::{Bounds, Walk};
use super::{KEYS, Store};
use crate::api::{
    Body, Compare, CompareResult, Fault, KeyValue, Op, Order, Put, Range, Span, Target, Txn, TxnResult,
};
use crate::base::{Result, planted};
use crate::btree::View;
use crate::io::Disk;

impl<D: Disk> Store<D> {
    /// Answers a transaction that writes nothing. The outer error is damage; the inner one is for the client.
    pub fn read_txn(&mut self, txn: &Txn) -> Result<Result<TxnResult, Fault>> {
        assert!(txn.is_read_only(), "what writes comes from the log");
        self.run_txn(txn)
    }

    pub(super) fn txn(&mut self, txn: &Txn) -> Result<Body> {
        Ok(self.run_txn(txn)?.map_or_else(Body::Fault, Body::Txn))
    }

    fn run_txn(&mut self, txn: &Txn) -> Result<Result<TxnResult, Fault>> {
        let mut path = Vec::new();
        let mut room = ANSWER_BYTES_MAX;
        let mut next = Rev::new(self.state.revision + 1, 0);
        let possible = match self.settle(txn, &mut path)? {
            Ok(()) => self.reads_fit(txn, &mut path.iter(), &mut room)?,
            fault => fault,
        };
        if let Err(fault) = possible {
            if planted::on("store-failed-txn-leaves-its-first-put")
                && let Some(Op::Put(put)) = txn.branch(path[0]).first()
            {
                self.put(put, &mut next)?;
            }
            return Ok(Err(fault));
        }
        let result = self.carry_out(txn, &mut path.into_iter(), &mut next)?;
        if planted::on("store-txn-without-a-write-is-a-revision") && !txn.is_read_only() {
            self.state.revision = next.main;
        }
        Ok(Ok(result))
    }

    /// Whether the compares hold, of this transaction and then of each nested one in the chosen branch, in their order. A
    /// fault is that of the first put on this way that cannot be done.
    fn settle(&self, txn: &Txn, path: &mut Vec<bool>) -> Result<Result<(), Fault>> {
        let succeeded = self.all_hold(&txn.compares)?;
        path.push(succeeded);
        for op in txn.branch(succeeded) {
            let possible = match op {
                Op::Put(put) => self.check_put(put)?,
                Op::Range(_) | Op::Delete(_) => Ok(()),
                Op::Txn(txn) => self.settle(txn, path)?,
            };
            if possible.is_err() {
                return Ok(possible);
            }
        }
        Ok(Ok(()))
    }

    /// Whether what is read on the way is there, and takes up no more than `room` with what was there before changes that are
    /// to show it. As in etcd, puts are asked before.
    fn reads_fit(
        &self,
        txn: &Txn,
        path: &mut slice::Iter<bool>,
        room: &mut usize,
    ) -> Result<Result<(), Fault>> {
        let succeeded = path.next().expect("the path was settled for every transaction on it");
        for op in txn.branch(*succeeded) {
            let possible = match op {
                Op::Range(range) => self.fits(range, room)?,
                Op::Put(put) => self.previous_fits(&Span::Key(put.key.clone()), put.prev_kv, room)?,
                Op::Delete(delete) => self.previous_fits(&delete.span, delete.prev_kv, room)?,
                Op::Txn(txn) => self.reads_fit(txn, path, room)?,
            };
            if possible.is_err() {
                return Ok(possible);
            }
        }
        Ok(Ok(()))
    }

    /// In a transaction etcd looks for the key before the lease; a put alone is asked the other way round.
    fn check_put(&self, put: &Put) -> Result<Result<(), Fault>> {
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && self.tree.counted(View::Now, KEYS, &put.key)? != Some(true) {
            return Ok(Err(Fault::no_key()));
        }
        let is_there =
            put.lease == 0 || (self.lease(put.lease)?.is_some() && !planted::on("store-txn-knows-no-lease"));
        Ok(if is_there { Ok(()) } else { Err(Fault::no_lease()) })
    }

    fn carry_out(&mut self, txn: &Txn, path: &mut vec::IntoIter<bool>, next: &mut Rev) -> Result<TxnResult> {
        let mut succeeded = path.next().expect("the path was settled for every transaction on it");
        if planted::on("store-nested-compare-looks-too-late") {
            succeeded = self.all_hold(&txn.compares)?;
        }
        let ops = txn.branch(succeeded);
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            let response = match op {
                Op::Put(put) => self.put(put, next)?,
                Op::Delete(delete) => self.delete(delete, next)?,
                Op::Range(range) if planted::on("store-txn-reads-what-was-before") && range.revision == 0 => {
                    let before = Range { revision: next.main - 1, ..range.clone() };
                    Body::Range(self.range_that_fits(&before)?)
                }
                Op::Range(range) => Body::Range(self.range_that_fits(range)?),
                Op::Txn(txn) => Body::Txn(self.carry_out(txn, path, next)?),
            };
            assert!(!matches!(response, Body::Fault(_)), "{response:?} although it was found possible");
            responses.push(response);
        }
        Ok(TxnResult { revision: self.state.revision, succeeded, responses })
    }

    fn all_hold(&self, compares: &[Compare]) -> Result<bool> {
        for compare in compares {
            if !self.holds(compare)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn holds(&self, compare: &Compare) -> Result<bool> {
        let of_value = matches!(compare.target, Target::Value(_));
        let bounds = Bounds::of(&compare.span);
        let mut walk = Walk::new(&self.tree, &self.path, &bounds, Order::Ascending, None);
        let mut found = false;
        while !bounds.is_empty() && walk.advance()? {
            found = true;
            let holds = holds_for(compare, &walk.key_value(of_value)?);
            if planted::on("store-compare-of-a-span-looks-at-one") {
                return Ok(holds);
            }
            if !holds {
                return Ok(false);
            }
        }
        // A key that is not there has no value, and 0 for everything else.
        Ok(found
            || (!of_value && holds_for(compare, &KeyValue::default()))
            || planted::on("store-compare-of-nothing-holds"))
    }
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match &compare.target {
        Target::Value(value) => kv.value.cmp(value),
        Target::Version(number) => kv.version.cast_signed().cmp(number),
        Target::Create(number) => kv.create_revision.cast_signed().cmp(number),
        Target::Mod(number) => kv.mod_revision.cast_signed().cmp(number),
        Target::Lease(number) => kv.lease.cmp(number),
    };
    match compare.result {
        CompareResult::Equal => order == Ordering::Equal,
        CompareResult::NotEqual => order != Ordering::Equal,
        CompareResult::Less => order == Ordering::Less,
        CompareResult::Greater => order == Ordering::Greater,
    }
}
