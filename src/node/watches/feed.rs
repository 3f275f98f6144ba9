//! Tells watchers what happened: walks, gathers, hands out, a slice in each turn. A slice is some sixty microseconds where little
//! else happens, so that whoever puts or asks is not kept waiting by ten thousand that are to be told. It grows with what was
//! applied in the turn: watchers keep up with writers who come by the hundred. Where nobody has
//! asked for anything for a while it is a millisecond: what is told in one go to the same connections leaves in one write.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::observers::Leaders;
use super::{GroupNo, HEAD, Out, Seat, Slot, Watcher, Watches};
use crate::api::{Body, ConnId, Event, EventKind, Fault, KeyValue, connection_of};
use crate::base::planted;
use crate::base::{Mono, Result, Revision};
use crate::io::Disk;
use crate::store::{Changed, Rev, Store};

/// What a turn may do at least: changes that are looked at, and what is made of them, in pieces of work of the same size.
/// A piece takes an eighth of a microsecond, about.
pub const WATCH_WORK: usize = 512;

/// As much again for so many revisions that are new in the turn, which is what they cost beside this; up to so many times.
const REVISIONS: Revision = 4;
const TIMES_MAX: usize = 16;

/// So many turns without a request are a while.
pub(super) const QUIET_TURNS: u32 = 8;

const EVENT_WORK: usize = 4;
/// So many watchers are found in a piece of work.
const FOUND: usize = 8;
pub(super) const TELL_WORK: usize = 4;
/// Telling a connection for the first time in a turn: a write to its socket.
const WRITE_WORK: usize = 36;
const MOVE_WORK: usize = 4;

/// What a turn may hand out beside [`WATCH_WORK`], in bytes (one piece is always handed out).
pub(super) const BYTES_MAX: usize = 256 << 10;

/// The head leaves one part in so many to the others, and each of these has as much at a time.
pub(super) const SHARE: usize = 4;

/// Changes of one revision that are looked at in one go.
const LOOK_MAX: u32 = 64;

/// What is left of a turn's work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) work: usize,
    pub(super) bytes: usize,
}

impl Budget {
    fn share(self) -> Budget {
        Budget { work: self.work / SHARE, bytes: self.bytes / SHARE }
    }

    fn times(self, times: usize) -> Budget {
        Budget { work: self.work * times, bytes: self.bytes * times }
    }

    /// What is left behind this.
    fn after(self, used: Budget) -> Budget {
        Budget { work: self.work.saturating_sub(used.work), bytes: self.bytes.saturating_sub(used.bytes) }
    }

    pub(super) fn take(&mut self, work: usize, bytes: usize) {
        *self = self.after(Budget { work, bytes });
    }

    fn is_down_to(self, floor: Budget) -> bool {
        self.work <= floor.work || self.bytes <= floor.bytes
    }
}

const NOTHING: Budget = Budget { work: 0, bytes: 0 };

/// One change that somebody is told of.
#[derive(Debug)]
struct Gathered {
    kind: EventKind,
    kv: KeyValue,
    previous: Option<KeyValue>,
    /// Without and with what was there before; made when somebody wants it.
    events: [Option<Arc<Event>>; 2],
}

impl Gathered {
    fn event(&mut self, with_previous: bool) -> Arc<Event> {
        let previous = self.previous.as_ref().filter(|_| with_previous);
        let made = &mut self.events[usize::from(previous.is_some())];
        let event = made.get_or_insert_with(|| Event::new(self.kind, self.kv.clone(), previous.cloned()));
        Arc::clone(event)
    }
}

/// What one revision did to the keys of a group, and who is told of it.
#[derive(Debug)]
pub(super) struct Gathering {
    group: GroupNo,
    revision: Revision,
    /// The first change that was not looked at; None: all of the revision were.
    pub(super) next: Option<Rev>,
    changes: Vec<Gathered>,
    /// The places of changes in the order of their keys, if there are several.
    by_key: Vec<usize>,
    /// Who wants any of them, and how many of these are done with.
    seats: Vec<Seat>,
    done: usize,
    /// The connection that was told last.
    told: ConnId,
    /// Watchers with this number and later ones are others, under the same slot.
    serial: u64,
    leaders: Leaders,
}

impl Gathering {
    fn new(group: GroupNo, revision: Revision, serial: u64) -> Gathering {
        Gathering {
            group,
            revision,
            next: None,
            changes: Vec::new(),
            by_key: Vec::new(),
            seats: Vec::new(),
            done: 0,
            told: ConnId::MAX,
            serial,
            leaders: Leaders::new(),
        }
    }

    /// All changes have been looked at.
    fn close(&mut self) {
        self.next = None;
        if self.changes.len() > 1 {
            self.seats.sort_unstable();
            self.seats.dedup();
            self.by_key = (0..self.changes.len()).collect();
            self.by_key.sort_by(|a, b| self.changes[*a].kv.key.cmp(&self.changes[*b].kv.key));
        }
    }

    /// What this watcher is told, in the order in which it happened.
    fn events_for(&mut self, watcher: &Watcher) -> Vec<Arc<Event>> {
        let wants = |change: &Gathered| match change.kind {
            _ if change.previous.is_some() && planted::on("watch-filter-of-what-was-before") => {
                !watcher.no_put
            }
            EventKind::Put => !watcher.no_put,
            EventKind::Delete => !watcher.no_delete,
        };
        let mut places = match self.changes.len() {
            1 => vec![0],
            _ => {
                let position = |place: &usize| watcher.target.position_of(&self.changes[*place].kv.key);
                let first = self.by_key.partition_point(|place| position(place) == Ordering::Less);
                let end = self.by_key.partition_point(|place| position(place) != Ordering::Greater);
                self.by_key[first..end].to_vec()
            }
        };
        places.sort_unstable();
        places.retain(|place| wants(&self.changes[*place]));
        places.into_iter().map(|place| self.changes[place].event(watcher.prev_kv)).collect()
    }
}

impl Watches {
    /// One turn's work. `store` is what this member has applied.
    pub(in super::super) fn feed<D: Disk>(
        &mut self,
        store: &Store<D>,
        now: Mono,
        out: &mut Out<'_>,
    ) -> Result<()> {
        self.follow(store.revision());
        let turn = self.slice(store.revision());
        let mut budget = turn;
        let (mut head_served, mut others_wait) = (false, self.others_wait);
        loop {
            if let Some(gathering) = self.gathering.take() {
                self.go_on(gathering, store, now, &mut budget, out)?;
                if self.gathering.is_some() {
                    break;
                }
            } else if budget.is_down_to(NOTHING) {
                break;
            } else if !head_served && !others_wait {
                (head_served, others_wait) = (true, true);
                if self.groups[&HEAD].next <= store.revision() {
                    self.advance(HEAD, store, now, (&mut budget, turn.share()), out)?;
                }
            } else if let Some(group) = self.next_group() {
                others_wait = false;
                let floor = budget.after(turn.share());
                self.advance(group, store, now, (&mut budget, floor), out)?;
                if let Some(group) = self.groups.get(&group) {
                    self.turn_of.0 = group.next;
                }
                self.turn_of.1 = group + 1;
            } else if head_served {
                others_wait = false;
                break;
            } else {
                others_wait = false;
            }
        }
        self.others_wait = others_wait;
        if self.gathering.is_none() {
            self.tell_progress(store.revision(), now, out);
        }
        Ok(())
    }

    /// What this turn may do.
    fn slice(&mut self, revision: Revision) -> Budget {
        let new = revision.saturating_sub(std::mem::replace(&mut self.fed, revision));
        let times = usize::try_from(1 + new / REVISIONS).unwrap_or(TIMES_MAX).min(TIMES_MAX);
        let is_quiet = self.quiet_turns >= QUIET_TURNS;
        self.quiet_turns = self.quiet_turns.saturating_add(1);
        self.turn.times(if is_quiet { TIMES_MAX } else { times })
    }

    /// Whose turn it is behind the head: each in its turn, whoever is far behind and whoever is not.
    fn next_group(&self) -> Option<GroupNo> {
        let next = self.order.range(self.turn_of..).next().or_else(|| self.order.first());
        next.map(|(_, group)| *group)
    }

    /// Goes on with a revision. It is back where it was if it is not done with.
    fn go_on<D: Disk>(
        &mut self,
        mut gathering: Gathering,
        store: &Store<D>,
        now: Mono,
        budget: &mut Budget,
        out: &mut Out<'_>,
    ) -> Result<()> {
        while let Some(from) = gathering.next {
            if budget.is_down_to(NOTHING) {
                self.gathering = Some(gathering);
                return Ok(());
            }
            if store.is_forgotten(gathering.revision) && !planted::on("watch-goes-on-with-half-a-revision") {
                self.end_gathering(&gathering, store.compact_revision(), budget, out);
                return Ok(());
            }
            let mut next = None;
            store.visit_changes(from, |changed| {
                if changed.rev.main != gathering.revision {
                    return Ok(ControlFlow::Break(()));
                }
                if changed.rev.sub >= from.sub.saturating_add(LOOK_MAX) {
                    next = Some(changed.rev);
                    return Ok(ControlFlow::Break(()));
                }
                self.look(changed, &mut gathering, budget)?;
                Ok(ControlFlow::Continue(()))
            })?;
            gathering.next = next;
            if next.is_none() {
                gathering.close();
            }
        }
        if !self.hand_out(&mut gathering, store, now, (budget, NOTHING), out)? {
            self.gathering = Some(gathering);
        }
        Ok(())
    }

    /// Walks on with a group, until the budget is down to the floor, or nothing is left, or it has come to the head.
    fn advance<D: Disk>(
        &mut self,
        no: GroupNo,
        store: &Store<D>,
        now: Mono,
        (budget, floor): (&mut Budget, Budget),
        out: &mut Out<'_>,
    ) -> Result<()> {
        let from = self.groups[&no].next;
        if store.is_forgotten(from) && !planted::on("watch-compacted-is-passed-over") {
            self.end_group(no, store, (budget, floor), out);
            return Ok(());
        }
        self.order.remove(&(from, no));
        let head_next = self.groups[&HEAD].next;
        let mut gathering = Gathering::new(no, 0, self.next_serial);
        let mut next = from;
        let walked_to_end = store.visit_changes(Rev::new(from, 0), |changed| {
            let revision = changed.rev.main;
            if revision != gathering.revision || planted::on("watch-revision-in-pieces") {
                next = revision;
                gathering.close();
                let told = self.hand_out(&mut gathering, store, now, (budget, floor), out)?;
                let arrived = no != HEAD && revision >= head_next;
                if !told || arrived || budget.is_down_to(floor) || !self.groups.contains_key(&no) {
                    return Ok(ControlFlow::Break(()));
                }
                self.meet(no, revision, (budget, floor));
                if budget.is_down_to(floor) || !self.groups.contains_key(&no) {
                    return Ok(ControlFlow::Break(()));
                }
                gathering = Gathering::new(no, revision, self.next_serial);
                next = revision + 1;
                // Who joins from here on is not told of this revision.
                self.group_mut(no).next = next;
            } else if changed.rev.sub >= LOOK_MAX {
                gathering.next = Some(changed.rev);
                return Ok(ControlFlow::Break(()));
            }
            self.look(changed, &mut gathering, budget)?;
            Ok(ControlFlow::Continue(()))
        })?;
        let whole = gathering.next.is_none();
        if whole {
            gathering.close();
        }
        if walked_to_end {
            next = store.revision() + 1;
        }
        let told = whole && self.hand_out(&mut gathering, store, now, (budget, floor), out)?;
        if !told {
            self.gathering = Some(gathering);
        }
        self.arrive(no, next, (budget, floor));
        Ok(())
    }

    /// The group stands at `next` now.
    fn arrive(&mut self, no: GroupNo, next: Revision, (budget, floor): (&mut Budget, Budget)) {
        let head_next = self.groups[&HEAD].next;
        let Some(group) = self.groups.get_mut(&no) else { return };
        if no != HEAD {
            group.next = next.min(head_next);
            self.order.insert((group.next, no));
            // While changes are still looked at they are looked at for this group: it joins the head with its next walk.
            let is_looking = self.gathering.as_ref().is_some_and(|gathering| gathering.next.is_some());
            if group.next == head_next && !is_looking {
                self.absorb(HEAD, no, (budget, floor));
            }
            return;
        }
        group.next = next;
        while let Some(&(settles_at, slot)) = self.future.first()
            && settles_at <= next
        {
            self.future.pop_first();
            self.set_lags(slot, false);
        }
    }

    /// Joins a group with those that its walk has come to, before it tells of `revision`. The one with the lower number
    /// stays, whoever of them walks: else two that are large would take turns in moving their watchers to and fro.
    fn meet(&mut self, no: GroupNo, revision: Revision, (budget, floor): (&mut Budget, Budget)) {
        if no == HEAD {
            return;
        }
        let own = self.groups[&no].next;
        while let Some(&(at, other)) = self.order.range((own, 0)..=(revision, GroupNo::MAX)).next() {
            if budget.is_down_to(floor) {
                return;
            }
            self.group_mut(no).next = at;
            self.absorb(no.min(other), no.max(other), (budget, floor));
            if !self.groups.contains_key(&no) {
                return;
            }
        }
    }

    /// Moves the watchers of `other` over to `to`, which stands where it does.
    fn absorb(&mut self, to: GroupNo, other: GroupNo, (budget, floor): (&mut Budget, Budget)) {
        while let Some((_, slot)) = self.groups.get(&other).and_then(|group| group.index.any()) {
            if budget.is_down_to(floor) {
                return;
            }
            budget.take(MOVE_WORK, 0);
            self.leave(slot);
            self.enter(slot, to);
            self.watcher_mut(slot).from += u64::from(planted::on("watch-event-lost-where-it-has-caught-up"));
            self.set_lags(slot, to != HEAD);
        }
    }

    /// Looks at one change: who wants it is added to the gathering, and the change if anybody does.
    fn look<D: Disk>(
        &mut self,
        changed: &Changed<'_, '_, D>,
        gathering: &mut Gathering,
        budget: &mut Budget,
    ) -> Result<()> {
        budget.take(1, 0);
        let Some(group) = self.groups.get(&gathering.group) else { return Ok(()) };
        let before = gathering.seats.len();
        group.index.find(&changed.key, &mut gathering.seats);
        let found = gathering.seats.len() - before;
        if found == 0 {
            return Ok(());
        }
        budget.take(EVENT_WORK + found / FOUND, 0);
        let kind = if changed.is_delete() { EventKind::Delete } else { EventKind::Put };
        let previous = if group.prev_kvs > 0 { changed.previous()? } else { None };
        gathering.changes.push(Gathered { kind, kv: changed.key_value()?, previous, events: [None, None] });
        Ok(())
    }

    /// Tells the watchers of a revision; false if the budget does not suffice for all of them.
    fn hand_out<D: Disk>(
        &mut self,
        gathering: &mut Gathering,
        store: &Store<D>,
        now: Mono,
        (budget, floor): (&mut Budget, Budget),
        out: &mut Out<'_>,
    ) -> Result<bool> {
        while let Some(&(_, slot)) = gathering.seats.get(gathering.done) {
            if budget.is_down_to(floor) {
                return Ok(false);
            }
            gathering.done += 1;
            budget.take(1, 0);
            let Some(watcher) = &mut self.watchers[slot as usize] else { continue };
            let early = watcher.from > gathering.revision && !planted::on("watch-begins-too-early");
            if watcher.serial >= gathering.serial || early {
                continue;
            }
            let events = gathering.events_for(watcher);
            if events.is_empty() {
                continue;
            }
            if self.held.contains_key(&watcher.conn) {
                let lost = u64::from(planted::on("watch-parked-misses-one"));
                budget.take(MOVE_WORK, 0);
                self.park(slot, gathering.revision + lost);
                continue;
            }
            if watcher.observed.is_some() {
                let Gathering { revision, leaders, .. } = gathering;
                self.tell_observer(slot, (*revision, &events), leaders, (store, now), budget, out)?;
                continue;
            }
            let connection = connection_of(watcher.conn);
            let others = std::mem::replace(&mut gathering.told, connection) != connection;
            let writes = others && watcher.told_at != now;
            watcher.told_at = now;
            let body = Body::Events { revision: gathering.revision, events };
            budget.take(TELL_WORK + if writes { WRITE_WORK } else { 0 }, body.size_bytes());
            out(watcher.conn, watcher.tag, body, true);
        }
        Ok(true)
    }

    /// What the group wants next is gone: its watches end.
    fn end_group<D: Disk>(
        &mut self,
        no: GroupNo,
        store: &Store<D>,
        (budget, floor): (&mut Budget, Budget),
        out: &mut Out<'_>,
    ) {
        let compacted = store.compact_revision();
        if no == HEAD {
            // The head is behind only while there is more to tell than a turn can. Some of it waits for later revisions.
            self.end_those(budget, out, compacted, |watcher| {
                watcher.group == Some(HEAD) && watcher.from < compacted
            });
            return self.arrive(HEAD, compacted, (budget, floor));
        }
        while let Some((_, slot)) = self.groups.get(&no).and_then(|group| group.index.any()) {
            if budget.is_down_to(floor) {
                return;
            }
            self.end(slot, budget, out, compacted);
        }
    }

    /// A part of a revision was looked at, and the rest may be swept: nobody can be told of it as a whole any more.
    fn end_gathering(
        &mut self,
        gathering: &Gathering,
        compacted: Revision,
        budget: &mut Budget,
        out: &mut Out<'_>,
    ) {
        self.end_those(budget, out, compacted, |watcher| {
            watcher.group == Some(gathering.group)
                && watcher.serial < gathering.serial
                && watcher.from <= gathering.revision
        });
    }

    /// All at once: who is among them cannot be told any more when something else has happened.
    fn end_those(
        &mut self,
        budget: &mut Budget,
        out: &mut Out<'_>,
        compacted: Revision,
        which: impl Fn(&Watcher) -> bool,
    ) {
        let all = (0..).zip(&self.watchers);
        let slots = all.filter(|(_, watcher)| watcher.as_ref().is_some_and(&which)).map(|(slot, _)| slot);
        for slot in slots.collect::<Vec<Slot>>() {
            self.end(slot, budget, out, compacted);
        }
    }

    fn end(&mut self, slot: Slot, budget: &mut Budget, out: &mut Out<'_>, compacted: Revision) {
        budget.take(TELL_WORK, 0);
        let Watcher { conn, tag, .. } = self.remove(slot);
        out(conn, tag, Body::Unwatched { fault: Fault::compacted(compacted), compacted }, false);
    }

    /// This member must not answer: the watches end, as many as a turn should end.
    pub(in super::super) fn end_all(&mut self, fault: &Fault, out: &mut Out<'_>) {
        let mut budget = self.turn;
        self.gathering = None;
        while let Some((_, &slot)) = self.slots.first_key_value()
            && !budget.is_down_to(NOTHING)
        {
            budget.take(TELL_WORK, 0);
            let Watcher { conn, tag, .. } = self.remove(slot);
            out(conn, tag, Body::Unwatched { fault: fault.clone(), compacted: 0 }, false);
        }
        // Also where nothing is watched any more: who asked for progress is owed an answer.
        for conn in std::mem::take(&mut self.ready) {
            let asked = self.conns.get_mut(&conn).and_then(|connection| connection.asked.take());
            if let Some(tag) = asked {
                out(conn, tag, Body::Fault(fault.clone()), false);
            }
            if self.conns.get(&conn).is_some_and(|connection| connection.watches == 0) {
                self.conns.remove(&conn);
            }
        }
    }

    /// Nothing is being handed out now.
    fn tell_progress(&mut self, revision: Revision, now: Mono, out: &mut Out<'_>) {
        let head_next = self.groups[&HEAD].next;
        let told = if planted::on("watch-progress-of-the-store") { revision } else { head_next - 1 };
        for conn in std::mem::take(&mut self.ready) {
            let held = self.held.contains_key(&conn);
            let Some(connection) = self.conns.get_mut(&conn) else { continue };
            if connection.lagging > 0 || held {
                continue;
            }
            let revision = if connection.watches == 0 { revision } else { told };
            if let Some(tag) = connection.asked.take() {
                out(conn, tag, Body::Progress { revision }, false);
            }
            if connection.watches == 0 {
                self.conns.remove(&conn);
            }
        }
        let mut budget = self.turn;
        while let Some(&(due, slot)) = self.due.first()
            && due <= now
            && !budget.is_down_to(NOTHING)
        {
            budget.take(TELL_WORK, 0);
            let Watcher { conn, tag, serial, told_at, .. } = *self.watcher(slot);
            let next = told_at + self.pause(serial);
            if next > now {
                self.set_due(slot, next);
                continue;
            }
            self.set_due(slot, now + self.pause(serial));
            let lags = self.watcher(slot).lags && !planted::on("watch-progress-of-who-lags");
            if !lags && !self.held.contains_key(&conn) {
                self.watcher_mut(slot).told_at = now;
                out(conn, tag, Body::Progress { revision: told }, true);
            }
        }
    }
}
