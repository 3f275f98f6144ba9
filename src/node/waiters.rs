//! Who waits for which lock: a value that is told what was applied and what is there, and says what is to be done.
//!
//! ```text
//!             its key is applied              is the first                 still is, as of a later instant
//!   Entering --------------------> Queued -----------------> Confirming -----------------------------> granted
//!                                   |  ^                         |
//!                                   |  +--- somebody is before --+
//!                                   | the wait is over
//!                                   +----------> Leaving: its key is taken back -----> refused
//! ```
//!
//! A waiter watches two keys, its own and that of the one before it, and the leases of both. So what happens under a name
//! costs the few that it concerns: when a lock is given back, the next one is looked at and nobody else.
//!
//! What is kept is bounded by [`WAITERS_MAX`] and [`BYTES_MAX`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::api::{Acquire, Command, ConnId, LeaseRef, Op, Span, Tag, lock};
use crate::base::planted;
use crate::base::{LeaseId, Mono, Revision};

/// Requests that may wait for a lock at one member, and the bytes of their keys.
const WAITERS_MAX: usize = 64 << 10;
const BYTES_MAX: usize = 64 << 20;

pub(super) type WaiterId = u64;

/// Where a key stands under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is not there, or no longer the one that it was.
    Gone,
    First {
        created: Revision,
    },
    Behind {
        created: Revision,
        before: Before,
    },
    /// So many keys are under the name that nobody says.
    Crowded {
        created: Revision,
    },
}

/// The key before it, and the lease with which that one goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) key: Bytes,
    pub(super) created: Revision,
    pub(super) lease: LeaseId,
}

/// What is to be done about a waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, until it is touched.
    Wait,
    /// Look again, in a state that is no older than now.
    Confirm,
    Grant {
        created: Revision,
    },
    /// Its key is gone.
    Lost,
    /// Take the key back.
    TakeBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Entering,
    Queued,
    Confirming,
    Leaving,
}

#[derive(Clone, Debug)]
pub(super) struct Waiter {
    /// None: nobody waits any more.
    pub(super) asker: Option<(ConnId, Tag)>,
    pub(super) key: Bytes,
    pub(super) lease: LeaseId,
    pub(super) campaign: bool,
    /// The revision of the put with which it entered: another request of the same lease puts the key again, and then
    /// the place is that one's.
    pub(super) put_at: Revision,
    stage: Stage,
    give_up_at: Mono,
    /// Of its key; 0 until it is known.
    created: Revision,
    before: Option<Before>,
    crowded: bool,
}

impl Waiter {
    pub(super) fn name(&self) -> &[u8] {
        let slash = self.key.iter().rposition(|&byte| byte == b'/');
        &self.key[..slash.expect("a lock's key has one")]
    }

    /// Who stood before it when it was looked at last.
    pub(super) fn before(&self) -> Option<&Before> {
        self.before.as_ref()
    }

    /// Whether the key that was created then is the one with which it waits.
    pub(super) fn is_own(&self, created: Revision) -> bool {
        self.created == 0 || self.created == created
    }

    /// Since when its key is there, once that is known.
    pub(super) fn created(&self) -> Option<Revision> {
        (self.created != 0).then_some(self.created)
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.crowded
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.before.as_ref().map_or(0, |before| before.key.len())
    }

    /// What it must be told of.
    fn watched(&self) -> impl Iterator<Item = (Bytes, LeaseId)> {
        let before = self.before.as_ref().map(|before| (before.key.clone(), before.lease));
        [(self.key.clone(), self.lease)].into_iter().chain(before)
    }
}

#[derive(Debug, Default)]
pub(super) struct Waiters {
    next_id: WaiterId,
    all: BTreeMap<WaiterId, Waiter>,
    bytes: usize,
    of_conn: BTreeSet<(ConnId, WaiterId)>,
    /// Of those that are queued: what they watch, and when they give up.
    keys: BTreeSet<(Bytes, WaiterId)>,
    leases: BTreeSet<(LeaseId, WaiterId)>,
    give_up: BTreeSet<(Mono, WaiterId)>,
    /// Something happened that concerns them.
    touched: BTreeSet<WaiterId>,
}

impl Waiters {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.all.len() >= WAITERS_MAX || self.bytes >= BYTES_MAX
    }

    pub(super) fn get(&self, id: WaiterId) -> Option<&Waiter> {
        self.all.get(&id)
    }

    /// Somebody asks; its key is about to be put.
    pub(super) fn enter(&mut self, asker: (ConnId, Tag), acquire: &Acquire, give_up_at: Mono) -> WaiterId {
        let id = self.next_id;
        self.next_id += 1;
        let waiter = Waiter {
            asker: Some(asker),
            key: lock::lock_key(&acquire.name, acquire.lease),
            lease: acquire.lease,
            campaign: acquire.campaign,
            put_at: 0,
            stage: Stage::Entering,
            give_up_at,
            created: 0,
            before: None,
            crowded: false,
        };
        self.bytes += waiter.bytes();
        self.of_conn.insert((asker.0, id));
        self.all.insert(id, waiter);
        id
    }

    /// Its put was applied.
    pub(super) fn entered(&mut self, id: WaiterId, put_at: Revision) -> Step {
        let waiter = self.all.get_mut(&id).expect("whoever enters waits until that is over");
        waiter.put_at = put_at;
        if waiter.asker.is_none() {
            return Step::TakeBack;
        }
        waiter.stage = Stage::Queued;
        self.watch(id);
        self.touched.insert(id);
        Step::Wait
    }

    /// Whether its put has been applied, or it was given up.
    pub(super) fn is_entering(&self, id: WaiterId) -> bool {
        self.all.get(&id).is_some_and(|waiter| waiter.stage == Stage::Entering)
    }

    /// It is over.
    pub(super) fn remove(&mut self, id: WaiterId) -> Option<Waiter> {
        self.unwatch(id);
        let waiter = self.all.remove(&id)?;
        self.bytes -= waiter.bytes();
        if let Some((conn, _)) = waiter.asker {
            self.of_conn.remove(&(conn, id));
        }
        Some(waiter)
    }

    fn watch(&mut self, id: WaiterId) {
        let waiter = &self.all[&id];
        for (key, lease) in waiter.watched() {
            self.keys.insert((key, id));
            self.leases.insert((lease, id));
        }
        self.give_up.insert((waiter.give_up_at, id));
    }

    fn unwatch(&mut self, id: WaiterId) {
        let Some(waiter) = self.all.get(&id) else { return };
        for (key, lease) in waiter.watched() {
            self.keys.remove(&(key, id));
            self.leases.remove(&(lease, id));
        }
        self.give_up.remove(&(waiter.give_up_at, id));
        self.touched.remove(&id);
    }

    // ---- What happens

    /// A command was applied.
    pub(super) fn touch(&mut self, command: &Command) {
        if self.keys.is_empty() {
            return;
        }
        match command {
            Command::Put(put) => self.touch_span(&Span::Key(put.key.clone())),
            Command::Delete(delete) => self.touch_span(&delete.span),
            Command::Txn(txn) => self.touch_ops(txn.success.iter().chain(&txn.failure)),
            Command::LeaseRevoke { leases, .. } if !planted::on("node-lock-sleeps-when-a-lease-ends") => {
                for LeaseRef { id, .. } in leases {
                    let watching = self.leases.range((*id, 0)..=(*id, WaiterId::MAX));
                    self.touched.extend(watching.map(|(_, waiter)| *waiter));
                }
            }
            _ => {}
        }
    }

    /// Of both branches: to be looked at for nothing is no harm. As deep as the gate lets transactions be.
    fn touch_ops<'a>(&mut self, ops: impl Iterator<Item = &'a Op>) {
        for op in ops {
            match op {
                Op::Put(put) => self.touch_span(&Span::Key(put.key.clone())),
                Op::Delete(delete) => self.touch_span(&delete.span),
                Op::Txn(txn) => self.touch_ops(txn.success.iter().chain(&txn.failure)),
                Op::Range(_) => {}
            }
        }
    }

    fn touch_span(&mut self, span: &Span) {
        let (from, end) = span.bounds();
        let behind = self.keys.range((from, 0)..);
        let within = behind.take_while(|(key, _)| end.as_ref().is_none_or(|end| key < end));
        self.touched.extend(within.map(|(_, waiter)| *waiter));
    }

    /// Anything may have happened.
    pub(super) fn touch_all(&mut self) {
        self.touched.extend(self.give_up.iter().map(|(_, waiter)| *waiter));
    }

    pub(super) fn has_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Those that must be looked at, neighbours of one name together. Whoever is confirmed is looked at then anyway.
    pub(super) fn take_touched(&mut self) -> Vec<WaiterId> {
        let mut touched: Vec<WaiterId> = std::mem::take(&mut self.touched).into_iter().collect();
        touched.retain(|id| self.all[id].stage == Stage::Queued);
        touched.sort_by(|one, other| self.all[one].key.cmp(&self.all[other].key).then(one.cmp(other)));
        touched
    }

    // ---- What is there

    /// It was touched, and this is its place.
    pub(super) fn placed(&mut self, id: WaiterId, place: Place, now: Mono) -> Step {
        self.unwatch(id);
        let waiter = self.all.get_mut(&id).expect("whoever is looked at waits");
        self.bytes -= waiter.bytes();
        let step = match place {
            Place::Gone => Step::Lost,
            Place::First { created } => {
                (waiter.created, waiter.before, waiter.stage) = (created, None, Stage::Confirming);
                Step::Confirm
            }
            Place::Crowded { created } => {
                (waiter.created, waiter.before, waiter.crowded) = (created, None, true);
                Step::TakeBack
            }
            Place::Behind { created, before } => {
                (waiter.created, waiter.before, waiter.stage) = (created, Some(before), Stage::Queued);
                if now >= waiter.give_up_at { Step::TakeBack } else { Step::Wait }
            }
        };
        self.bytes += self.all[&id].bytes();
        match step {
            Step::Wait => self.watch(id),
            Step::TakeBack => self.leave(id),
            _ => {}
        }
        step
    }

    /// The state in which this is its place is no older than the last step.
    pub(super) fn confirmed(&mut self, id: WaiterId, place: Place, now: Mono) -> Step {
        match place {
            Place::First { created } => Step::Grant { created },
            place => self.placed(id, place, now),
        }
    }

    pub(super) fn is_confirming(&self, id: WaiterId) -> bool {
        self.all.get(&id).is_some_and(|waiter| waiter.stage == Stage::Confirming)
    }

    fn leave(&mut self, id: WaiterId) {
        self.all.get_mut(&id).expect("the caller has seen it").stage = Stage::Leaving;
    }

    // ---- Who no longer waits

    /// Those whose time is over: their keys are to be taken back.
    pub(super) fn expired(&mut self, now: Mono) -> Vec<WaiterId> {
        let late: Vec<WaiterId> =
            self.give_up.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        // Who has not been looked at since something happened may be the first, and is told so then.
        let late: Vec<WaiterId> = late.into_iter().filter(|id| !self.touched.contains(id)).collect();
        for &id in &late {
            self.unwatch(id);
            self.leave(id);
        }
        late
    }

    /// When [`expired`](Self::expired) has something.
    pub(super) fn deadline(&self) -> Mono {
        if self.has_touched() {
            return Mono(0);
        }
        self.give_up.first().map_or(Mono::NEVER, |(at, _)| *at)
    }

    /// The asker waits no longer: as if its time were over now. Whoever is the first at this very moment still is.
    pub(super) fn cancel(&mut self, asker: (ConnId, Tag)) {
        let of_conn = self.of_conn.range((asker.0, 0)..=(asker.0, WaiterId::MAX));
        let found = of_conn.map(|(_, id)| *id).find(|id| self.all[id].asker == Some(asker));
        let Some(id) = found else { return };
        let is_queued = self.all[&id].stage == Stage::Queued;
        let was =
            std::mem::replace(&mut self.all.get_mut(&id).expect("it was just seen").give_up_at, Mono(0));
        if is_queued {
            self.give_up.remove(&(was, id));
            self.give_up.insert((Mono(0), id));
            self.touched.insert(id);
        }
    }

    /// The connection is gone. Those whose keys must be taken back; who has not entered yet does that later.
    pub(super) fn forget(&mut self, conn: ConnId) -> Vec<Waiter> {
        let of_conn = self.of_conn.range((conn, 0)..=(conn, WaiterId::MAX));
        let ids: Vec<WaiterId> = of_conn.map(|(_, id)| *id).collect();
        let mut gone = Vec::new();
        for id in ids {
            let waiter = self.all.get_mut(&id).expect("it is listed");
            let stage = waiter.stage;
            if stage == Stage::Entering {
                waiter.asker = None;
                self.of_conn.remove(&(conn, id));
                continue;
            }
            let waiter = self.remove(id).expect("it was just seen");
            if stage != Stage::Leaving && !planted::on("node-lock-left-behind") {
                gone.push(waiter);
            }
        }
        gone
    }

    /// All that are queued, or being confirmed: their keys stay.
    pub(super) fn take_queued(&mut self) -> Vec<Waiter> {
        let waits = |waiter: &Waiter| matches!(waiter.stage, Stage::Queued | Stage::Confirming);
        let ids: Vec<WaiterId> = self.all.iter().filter(|(_, w)| waits(w)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }
}
