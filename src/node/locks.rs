//! Locks and elections: places in a queue of keys, and who is told that it has come to the front.
//!
//! ```text
//!   client --LOCK--> member: puts name/lease through the log;  who was created before it?   -- nobody: confirm, grant
//!                            watches what it applies anyway:   the one before it is gone?   -- look again
//! ```
//!
//! All that lasts are keys and leases, so nothing of this is in the log or in the state: any member can wait for any client,
//! and what one leaves behind ends with its lease. What holds:
//!
//! - *One owner.* Owner is whose key under the name is the oldest. A key that is put again keeps its age, and new keys are
//!   younger than all that are there: so who is first stays first until its key is gone.
//! - *None on a dead lease.* A key is there only while its lease is (`store/lease.rs`). That the own key is there, and the first,
//!   is looked up in a state no older than the moment in which the member found that it could be so: by a read like any
//!   linearizable one. A member that is cut off, or catches up with what was long ago, grants nothing meanwhile. What comes
//!   after that read nobody can promise: whoever acts on a lock shows its fencing revision, the one in which the key was
//!   created, to whatever it acts on.
//! - *Asking again is safe.* The same lease and name is the same key, in the same place. Every request puts it; so the one that
//!   put it last is told from those before it, which take back only what they put last themselves.
//! - *Nobody waits in vain.* Whoever gives up (its time is over, or its connection) takes the key back. If that cannot be done, or
//!   the member ends or is cut off, the key goes with its lease, at the latest.
//!
//! Who *observes* an election is a watcher of the keys under its name that is told who leads and nothing else; the present leader
//! is looked up by a linearizable read, and the rest is `watches/observers.rs`.
//!
//! Left out: when the one before somebody is gone, all keys under the name are looked at to find who is before it now, up to
//! [`KEYS_MAX`], in one turn, once for all of the same name.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::reads::Question;
use super::waiters::{Before, Place, Step, Waiter, WaiterId, Waiters};
use super::writes::Asker;
use super::{Node, WAITING_MAX};
use crate::api::{
    Acquire, Body, Code, Command, Compare, CompareResult, ConnId, Delete, Fault, LockRequest, Op, Put, Span,
    Tag, Target, Txn, TxnResult, lock,
};
use crate::base::planted;
use crate::base::time::MS;
use crate::base::{Mono, Result};
use crate::io::Disk;
use crate::store::{Creation, Store};

/// Keys under one name, beyond which a lock of it is refused: looking through them would take too long.
const KEYS_MAX: u64 = 64 << 10;

/// Beside those who wait.
#[derive(Debug, Default)]
pub(super) struct Locks {
    pub(super) waiters: Waiters,
    /// Since when no leader is known, while somebody waits.
    no_leader_since: Option<Mono>,
}

impl<D: Disk> Node<D> {
    pub(super) fn on_lock_request(
        &mut self,
        conn: ConnId,
        tag: Tag,
        request: LockRequest,
        deadline: Mono,
        now: Mono,
    ) {
        self.now = self.now.max(now);
        let needs_room = !matches!(request, LockRequest::Release { .. });
        match request {
            LockRequest::Leader { name } => {
                let range = lock::first_of(&name);
                if self.may_read_now(conn, false, now) {
                    self.answer_range(conn, tag, &range);
                } else {
                    self.wait_to_read(conn, tag, Question::Range(range), deadline);
                }
            }
            LockRequest::Observe { .. } if now >= self.cut_off_at() => {
                self.fail(conn, tag, Fault::no_leader());
            }
            LockRequest::Observe { name } if self.may_read_now(conn, false, now) => {
                self.observe(conn, tag, &name);
            }
            LockRequest::Observe { name } => self.wait_to_read(conn, tag, Question::Observe(name), deadline),
            _ if self.log_is_full() || (needs_room && self.is_full()) => {
                self.fail(conn, tag, Fault::no_space());
            }
            LockRequest::Acquire(acquire) => self.acquire(conn, tag, acquire, deadline, now),
            LockRequest::Release { key } => {
                let delete = Delete { span: Span::Key(key), prev_kv: false };
                self.write(Asker::Client { conn, tag }, &Command::Delete(delete), deadline);
            }
            LockRequest::Proclaim { key, value } => {
                let put = Put { key, value, ignore_lease: true, ..Put::default() };
                self.write(Asker::Client { conn, tag }, &Command::Put(put), deadline);
            }
        }
    }

    /// Answers who leads, as of now; from there on who observes is told with the watches.
    pub(super) fn observe(&mut self, conn: ConnId, tag: Tag, name: &Bytes) {
        let found = match self.store.range(&lock::first_of(name)) {
            Ok(Ok(found)) => found,
            Ok(Err(fault)) => return self.fail(conn, tag, fault),
            Err(damage) => return self.fail_for_damage(conn, tag, damage),
        };
        let (revision, leader) = (found.revision, found.kvs.into_iter().next());
        match self.watches.observe((conn, tag), name, leader.as_ref(), revision, self.now) {
            Ok(()) => self.reply(conn, tag, Body::Observing { revision, leader }),
            Err(fault) => self.fail(conn, tag, fault),
        }
    }

    fn acquire(&mut self, conn: ConnId, tag: Tag, acquire: Acquire, deadline: Mono, now: Mono) {
        if self.stopping.is_some() {
            return self.fail(conn, tag, Fault::shutdown());
        }
        if self.locks.waiters.is_full() {
            return self.fail(conn, tag, Fault::busy());
        }
        let give_up_at = acquire.wait_ms.map_or(Mono::NEVER, |wait_ms| now + wait_ms.saturating_mul(MS));
        let command = if acquire.wait_ms == Some(0) {
            Command::Txn(put_unless_taken(&acquire))
        } else {
            Command::Put(put(&acquire))
        };
        let id = self.locks.waiters.enter((conn, tag), &acquire, give_up_at);
        self.write(Asker::Waiter { conn, id }, &command, deadline);
    }

    /// A write for a waiter is over.
    pub(super) fn waiter_told(&mut self, id: WaiterId, body: Body) {
        if !self.locks.waiters.is_entering(id) {
            // The key is taken back, or it is not known whether.
            let Some(waiter) = self.locks.waiters.remove(id) else { return };
            let fault = if matches!(body, Body::Fault(_)) { Fault::timeout() } else { refusal(&waiter) };
            return self.tell_waiter(&waiter, Body::Fault(fault));
        }
        let put_at = match body {
            Body::Put { revision, .. } => Some(revision),
            Body::Txn(result) => has_put(&result).then_some(result.revision),
            Body::Fault(fault) => return self.end_waiter(id, Body::Fault(fault)),
            other => panic!("a key is put and the answer is {other:?}"),
        };
        match put_at {
            None => {
                let waiter = self.locks.waiters.remove(id).expect("it is entering");
                self.tell_waiter(&waiter, Body::Fault(refusal(&waiter)));
            }
            Some(put_at) => {
                let step = self.locks.waiters.entered(id, put_at);
                if step == Step::TakeBack
                    && let Some(waiter) = self.locks.waiters.remove(id)
                {
                    self.take_back(Asker::Member, &waiter);
                }
            }
        }
    }

    pub(super) fn end_waiter(&mut self, id: WaiterId, body: Body) {
        if let Some(waiter) = self.locks.waiters.remove(id) {
            self.tell_waiter(&waiter, body);
        }
    }

    fn tell_waiter(&mut self, waiter: &Waiter, body: Body) {
        if let Some((conn, tag)) = waiter.asker {
            self.reply(conn, tag, body);
        }
    }

    /// Unless another request of the same lease has put the key since.
    fn take_back(&mut self, asker: Asker, waiter: &Waiter) {
        let own = Span::Key(waiter.key.clone());
        let put_at = Target::Mod(waiter.put_at.cast_signed());
        let mut txn = Txn {
            compares: vec![Compare { span: own.clone(), target: put_at, result: CompareResult::Equal }],
            success: vec![Op::Delete(Delete { span: own, prev_kv: false })],
            failure: Vec::new(),
        };
        if planted::on("node-lock-takes-anothers-place-back") {
            txn.compares.clear();
        }
        let deadline = self.now + self.config.request_timeout();
        self.write(asker, &Command::Txn(txn), deadline);
    }

    /// The turn's part: looks at those for whom something has changed.
    pub(super) fn look_after_locks(&mut self) -> Result<()> {
        if self.locks.waiters.is_empty() {
            self.locks.no_leader_since = None;
            return Ok(());
        }
        if self.snapshots.installing() {
            return Ok(());
        }
        self.end_waits_without_leader();
        for id in self.locks.waiters.expired(self.now) {
            self.give_back(id);
        }
        let mut names = BTreeMap::new();
        for id in self.locks.waiters.take_touched() {
            let place = self.place(id, &mut names)?;
            let step = self.locks.waiters.placed(id, place, self.now);
            self.take_step(id, step)?;
        }
        if self.stopping.is_some() {
            self.dismiss_waiters(&Fault::shutdown());
        }
        // Whoever waits to be confirmed need not wait for another turn.
        self.ask_for_read_index();
        Ok(())
    }

    fn give_back(&mut self, id: WaiterId) {
        if let Some(waiter) = self.locks.waiters.get(id).cloned()
            && let Some((conn, _)) = waiter.asker
        {
            self.take_back(Asker::Waiter { conn, id }, &waiter);
        }
    }

    fn take_step(&mut self, id: WaiterId, step: Step) -> Result<()> {
        match step {
            Step::Wait => {}
            Step::TakeBack => self.give_back(id),
            Step::Lost => {
                let Some(waiter) = self.locks.waiters.remove(id) else { return Ok(()) };
                let has_lease = self.store.lease(waiter.lease)?.is_some();
                let fault = if has_lease { Fault::no_key() } else { Fault::no_lease() };
                self.tell_waiter(&waiter, Body::Fault(fault));
            }
            Step::Grant { created } => {
                let Some(waiter) = self.locks.waiters.remove(id) else { return Ok(()) };
                let body = Body::Acquired { key: waiter.key.clone(), revision: created };
                self.tell_waiter(&waiter, body);
            }
            Step::Confirm => {
                let Some((conn, tag)) = self.locks.waiters.get(id).and_then(|waiter| waiter.asker) else {
                    return Ok(());
                };
                if self.may_read_now(conn, false, self.now) || planted::on("node-lock-granted-unconfirmed") {
                    self.confirm_lock(id)?;
                } else if self.reads.waiting() + self.streams.len() >= WAITING_MAX {
                    self.end_waiter(id, Body::Fault(Fault::timeout()));
                } else {
                    let deadline = self.now + self.config.request_timeout();
                    self.wait_to_read(conn, tag, Question::Lock(id), deadline);
                }
            }
        }
        Ok(())
    }

    /// The present state is no older than the moment in which the waiter was found to be the first.
    pub(super) fn confirm_lock(&mut self, id: WaiterId) -> Result<()> {
        if !self.locks.waiters.is_confirming(id) {
            return Ok(()); // It has been ended meanwhile.
        }
        let place = self.place(id, &mut BTreeMap::new())?;
        let step = self.locks.waiters.confirmed(id, place, self.now);
        self.take_step(id, step)
    }

    /// Where the waiter's key stands now. `names`: what is under each name, once it has been looked up.
    fn place(&self, id: WaiterId, names: &mut BTreeMap<Vec<u8>, Option<Vec<Creation>>>) -> Result<Place> {
        let waiter = self.locks.waiters.get(id).expect("whoever is looked at waits");
        let Some(own) = created(&self.store, &waiter.key)? else {
            let was = waiter.created().filter(|_| planted::on("node-lock-granted-on-a-key-that-is-gone"));
            return Ok(was.map_or(Place::Gone, |created| Place::First { created }));
        };
        if own.lease != waiter.lease || !waiter.is_own(own.created) {
            return Ok(Place::Gone);
        }
        let created_at = own.created;
        if let Some(before) = waiter.before()
            && let Some(found) = created(&self.store, &before.key)?
            && found.created == before.created
        {
            return Ok(Place::Behind { created: created_at, before: found.into() });
        }
        let name = waiter.name();
        if !names.contains_key(name) {
            names.insert(name.to_vec(), self.under(name)?);
        }
        let Some(all) = &names[name] else { return Ok(Place::Crowded { created: created_at }) };
        let older = all.partition_point(|other| other.created < created_at);
        Ok(match all[..older].last() {
            Some(before) if !planted::on("node-lock-granted-to-all") => {
                Place::Behind { created: created_at, before: before.clone().into() }
            }
            _ => Place::First { created: created_at },
        })
    }

    /// All keys under a name, the oldest first; None if there are too many.
    fn under(&self, name: &[u8]) -> Result<Option<Vec<Creation>>> {
        let Some(mut all) = self.store.creations(&Span::Prefix(lock::lock_prefix(name)), KEYS_MAX)? else {
            return Ok(None);
        };
        all.sort_unstable_by_key(|one| one.created);
        Ok(Some(all))
    }

    /// A member that is without a leader for longer than a request may take cannot tell what comes of those who wait. They
    /// learn that, keep their places, and can go on elsewhere.
    fn end_waits_without_leader(&mut self) {
        if self.raft.standing().leader != 0 {
            self.locks.no_leader_since = None;
            return;
        }
        let since = *self.locks.no_leader_since.get_or_insert(self.now);
        if self.now >= since + self.config.request_timeout() {
            self.dismiss_waiters(&Fault::timeout());
            // Others may be about to wait: for them it begins anew.
            self.locks.no_leader_since = Some(self.now);
        }
    }

    /// They are told, and their keys stay.
    pub(super) fn dismiss_waiters(&mut self, fault: &Fault) {
        for waiter in self.locks.waiters.take_queued() {
            self.tell_waiter(&waiter, Body::Fault(fault.clone()));
        }
    }

    /// The asker no longer waits.
    pub(super) fn cancel_wait(&mut self, conn: ConnId, tag: Tag) {
        self.locks.waiters.cancel((conn, tag));
    }

    /// The connection is gone.
    pub(super) fn forget_waiters(&mut self, conn: ConnId) {
        for waiter in self.locks.waiters.forget(conn) {
            self.take_back(Asker::Member, &waiter);
        }
    }

    pub(super) fn locks_deadline(&self) -> Mono {
        if self.locks.waiters.is_empty() || self.snapshots.installing() {
            return Mono::NEVER;
        }
        let alone = self.locks.no_leader_since.map_or(Mono::NEVER, |at| at + self.config.request_timeout());
        self.locks.waiters.deadline().min(alone)
    }
}

fn put(acquire: &Acquire) -> Put {
    let Acquire { name, value, lease, .. } = acquire;
    Put { key: lock::lock_key(name, *lease), value: value.clone(), lease: *lease, ..Put::default() }
}

/// For those who do not wait: nothing is put where it would have to be taken back.
fn put_unless_taken(acquire: &Acquire) -> Txn {
    let put = put(acquire);
    let exists = |span, result| Compare { span, target: Target::Create(1), result };
    let own_is_there = exists(Span::Key(put.key.clone()), CompareResult::Greater);
    // Of no key at all it holds as well.
    let is_free = exists(Span::Prefix(lock::lock_prefix(&acquire.name)), CompareResult::Less);
    let put = vec![Op::Put(put)];
    let again = Txn { compares: vec![own_is_there], success: put.clone(), failure: Vec::new() };
    Txn { compares: vec![is_free], success: put, failure: vec![Op::Txn(again)] }
}

fn has_put(result: &TxnResult) -> bool {
    result.responses.iter().any(|response| match response {
        Body::Txn(nested) => has_put(nested),
        body => matches!(body, Body::Put { .. }),
    })
}

fn refusal(waiter: &Waiter) -> Fault {
    if waiter.is_crowded() {
        let text = format!("more than {KEYS_MAX} keys are under the name of the lock");
        return Fault::new(Code::TooLarge, text);
    }
    if waiter.campaign { Fault::another_leads() } else { Fault::locked() }
}

fn created<D: Disk>(store: &Store<D>, key: &Bytes) -> Result<Option<Creation>> {
    let found = store.creations(&Span::Key(key.clone()), 1)?;
    Ok(found.and_then(|found| found.into_iter().next()))
}

impl From<Creation> for Before {
    fn from(found: Creation) -> Before {
        Before { key: found.key, created: found.created, lease: found.lease }
    }
}
