//! Watches: who wants to know of which keys, and how far each of them was told.
//!
//! ```text
//!   revision  1 ------------- 40 --------- 57 ------------------------------ 90 | 91
//!                             ^            ^                                      ^
//!                         group {c, d}  group {e}                          head {a, b}: wants what comes next
//!
//!   parked: f from 61, g from 75: their client does not take what it is sent
//! ```
//!
//! There is one source of events, the changes in the store, in their order ([`visit_changes`]). Watchers that
//! stand at the same revision are a *group*: a walk through the changes from there on serves all of them, and an index
//! ([`index`]) says for each change who wants it. The group in front is the *head*. Keeping up and catching up are the
//! same code, so nothing can fall between the two: a group whose walk comes to where another one stands takes it in,
//! and is taken in by the head in the end.
//!
//! # A revision
//!
//! All changes of a revision that somebody in the group wants are *gathered*, then handed out: each watcher is told of
//! its own, all at once. As soon as gathering begins the group stands behind the revision, and whoever joins it then
//! ([`Watcher::from`]) is not told of it. Gathering and handing out may be interrupted anywhere, between turns, and go
//! on where they were: a delete of a million keys, or a key with a million watchers, holds up nobody else.
//!
//! An event is one value, shared by all who get it, and the bytes that an adapter makes of it are kept with it
//! ([`crate::api::event::Encodings`]).
//!
//! # Who takes nothing
//!
//! A connection whose client does not take what it is sent is held ([`Watches::hold`]), and so is one that is in the
//! middle of a large range: a push cannot come between its parts. Its watchers are parked when the
//! first thing would have to be sent to them: out of their group, with the revision that they missed. They cost
//! nothing and hold up nobody, and nothing is kept for them: it is all in the store. When the connection is released
//! they go on from there.
//!
//! # Bounds
//!
//! A turn does a slice of this work ([`feed`]), for the head first and then for the other groups in turn, each
//! of which gets its share of every round. A connection has [`WATCHES_MAX`] watches; all together take up
//! [`WATCHES_BYTES_MAX`] at most. With no watch at all a turn looks at one number.
//!
//! # What is promised
//!
//! - What a watcher is told is ordered by revision, complete from its first revision on, and told once; all events of a
//!   revision come together. It is what this member has applied, so it is committed, and may lag behind other members.
//! - A watcher is told of progress up to a revision only when it was told everything up to there.
//! - A watch that cannot go on ends with a reason: what it wants was compacted, or this member must not answer. No
//!   event is left out in silence.
//!
//! The revision is the same everywhere, so a client goes on at any member with the revision behind the last one that it
//! was told of; a member that is not there yet makes it wait. A snapshot that is installed brings the same history.
//!
//! Who observes an election is one of them that is told something else ([`observers`]).
//!
//! Left out: a revision is told in one piece however large it is, so what is made of a delete of everything, with
//! what was there before, takes up memory for each connection that it is sent to.
//!
//! [`visit_changes`]: crate::store::Store::visit_changes

mod feed;
mod index;
#[cfg(test)]
mod leaving_tests;
mod observers;
#[cfg(test)]
mod slice_tests;
mod spans;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{Body, Code, ConnId, Fault, Tag, Watch};
use crate::base::planted;
use crate::base::time::Nanos;
use crate::base::{Mono, Revision};

pub use feed::WATCH_WORK;
use feed::{BYTES_MAX, Budget, Gathering};
use index::{Index, Target};
use observers::Observed;

/// Watches of one connection.
const WATCHES_MAX: usize = 16_384;

/// All watches together: a million, if their keys are short.
const WATCHES_BYTES_MAX: usize = 256 << 20;

/// What a watch takes up beside its keys, about.
const WATCH_BYTES: usize = 256;

/// Watchers by number. A number is used again.
type Slot = u32;

/// A watcher with what it belongs to. Those of one connection that watch the same are neighbours: what they are told leaves in one
/// write.
type Seat = (ConnId, Slot);

/// A watcher.
#[derive(Debug)]
struct Watcher {
    conn: ConnId,
    tag: Tag,
    /// Of all watchers that there ever were: tells it from others that had its slot.
    serial: u64,
    target: Target,
    prev_kv: bool,
    no_put: bool,
    no_delete: bool,
    /// It observes an election, and is told who leads instead of what happens.
    observed: Option<Observed>,
    /// Nothing before this revision is told.
    from: Revision,
    /// Where it stands; None: parked.
    group: Option<GroupNo>,
    /// It is not where the head is, or it is and the head has not come to where it begins to count, at `settles_at`.
    lags: bool,
    settles_at: Revision,
    /// When it is told of progress next, and when it was last told anything.
    due: Option<Mono>,
    told_at: Mono,
}

/// Watchers that stand at the same revision.
#[derive(Debug, Default)]
struct Group {
    /// The revision that they are told of next.
    next: Revision,
    index: Index,
    /// How many of them want to know what was there before.
    prev_kvs: usize,
}

/// Never used again.
type GroupNo = u64;

/// The group in front. It is always there.
const HEAD: GroupNo = 0;

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) watchers: usize,
    /// That have any.
    pub(super) connections: usize,
    /// Watchers that are behind.
    pub(super) slow: usize,
}

#[derive(Debug, Default)]
struct Conn {
    watches: usize,
    /// How many of these lag.
    lagging: usize,
    /// It asked for progress.
    asked: Option<Tag>,
}

/// Why a connection is sent nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its client does not take what it is sent.
    Untaken,
    /// A range goes to it in parts.
    Range,
}

#[derive(Debug, Default)]
struct Held {
    /// By [`Why`].
    why: [bool; 2],
    /// Its watchers that missed something.
    parked: BTreeSet<Slot>,
}

/// All watches of this member.
#[derive(Debug)]
pub(super) struct Watches {
    /// What a turn may do at least, and the store's revision in the last one.
    turn: Budget,
    fed: Revision,
    /// Turns since anybody has asked for anything.
    quiet_turns: u32,
    /// Between two notices of progress.
    interval: Nanos,
    watchers: Vec<Option<Watcher>>,
    free: Vec<Slot>,
    next_serial: u64,
    bytes: usize,
    slots: BTreeMap<(ConnId, Tag), Slot>,
    conns: BTreeMap<ConnId, Conn>,
    groups: BTreeMap<GroupNo, Group>,
    next_group: GroupNo,
    /// All groups but the head, by where they stand: none of them beyond the head.
    order: BTreeSet<(Revision, GroupNo)>,
    /// The next group in turn is the first at or behind this.
    turn_of: (Revision, GroupNo),
    /// The head has used up all of a turn: the others come first in the next.
    others_wait: bool,
    /// A revision that is not told to everybody yet.
    gathering: Option<Gathering>,
    /// Connections that are sent nothing.
    held: BTreeMap<ConnId, Held>,
    /// Watchers of the head that lag until it has come so far.
    future: BTreeSet<(Revision, Slot)>,
    /// Whom to tell of progress, and when.
    due: BTreeSet<(Mono, Slot)>,
    /// Connections that asked for progress, and none of whose watchers lags.
    ready: BTreeSet<ConnId>,
}

impl Watches {
    pub(super) fn new(interval: Nanos, work: usize) -> Watches {
        Watches {
            turn: Budget { work, bytes: BYTES_MAX },
            fed: 0,
            quiet_turns: 0,
            interval,
            watchers: Vec::new(),
            free: Vec::new(),
            next_serial: 0,
            bytes: 0,
            slots: BTreeMap::new(),
            conns: BTreeMap::new(),
            groups: BTreeMap::from([(HEAD, Group::default())]),
            next_group: HEAD + 1,
            order: BTreeSet::new(),
            turn_of: (0, 0),
            others_wait: false,
            gathering: None,
            held: BTreeMap::new(),
            future: BTreeSet::new(),
            due: BTreeSet::new(),
            ready: BTreeSet::new(),
        }
    }

    /// Somebody waits for an answer of this member.
    pub(super) fn end_quiet(&mut self) {
        self.quiet_turns = 0;
    }

    /// A watch begins. `revision` is the store's.
    pub(super) fn add(
        &mut self,
        conn: ConnId,
        tag: Tag,
        watch: &Watch,
        revision: Revision,
        now: Mono,
    ) -> Result<(), Fault> {
        let target = Target::of(&watch.span);
        let bytes = self.bytes + WATCH_BYTES + target.size_bytes();
        if self.conns.get(&conn).is_some_and(|conn| conn.watches >= WATCHES_MAX) {
            return Err(Fault::new(Code::Err, format!("a connection has {WATCHES_MAX} watches at most")));
        }
        if bytes > WATCHES_BYTES_MAX {
            return Err(Fault::busy());
        }
        self.bytes = bytes;
        self.follow(revision);
        let Watch { prev_kv, no_put, no_delete, progress, .. } = *watch;
        let from = if watch.revision == 0 { revision + 1 } else { watch.revision };
        let serial = self.next_serial;
        self.next_serial += 1;
        let watcher = Watcher {
            conn,
            tag,
            serial,
            target,
            prev_kv,
            no_put,
            no_delete,
            observed: None,
            from,
            group: None,
            lags: false,
            settles_at: 0,
            due: None,
            told_at: now,
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.watchers.push(None);
                Slot::try_from(self.watchers.len() - 1).expect("their bytes are bounded")
            }
        };
        self.watchers[slot as usize] = Some(watcher);
        let earlier = self.slots.insert((conn, tag), slot);
        assert!(earlier.is_none(), "a tag is used once");
        self.conns.entry(conn).or_default().watches += 1;
        if progress {
            self.set_due(slot, now + self.pause(serial));
        }
        // Who asked for a future revision is told of no progress before it. The next one is not the future: whoever goes
        // on from another member has usually been told everything.
        let settles_at = if from > revision + 1 { from.saturating_add(1) } else { from };
        self.join(slot, from, settles_at);
        Ok(())
    }

    /// The asker no longer waits for this one.
    pub(super) fn cancel(&mut self, conn: ConnId, tag: Tag) {
        if let Some(&slot) = self.slots.get(&(conn, tag)) {
            self.remove(slot);
        }
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, conn: ConnId) {
        let slots: Vec<Slot> = self.slots_of(conn).collect();
        for slot in slots {
            self.remove(slot);
        }
        self.held.remove(&conn);
        self.conns.remove(&conn);
        self.ready.remove(&conn);
    }

    fn slots_of(&self, conn: ConnId) -> impl Iterator<Item = Slot> {
        self.slots.range((conn, 0)..=(conn, Tag::MAX)).map(|(_, slot)| *slot)
    }

    /// Nothing more for this connection.
    pub(super) fn hold(&mut self, conn: ConnId, why: Why) {
        self.held.entry(conn).or_default().why[why as usize] = true;
    }

    /// This is no reason any more. Whether there is something to send.
    pub(super) fn release(&mut self, conn: ConnId, why: Why) -> bool {
        let Some(held) = self.held.get_mut(&conn) else { return false };
        held.why[why as usize] = false;
        if held.why.contains(&true) {
            return false;
        }
        let parked = self.held.remove(&conn).unwrap_or_default().parked;
        for &slot in &parked {
            let watcher = self.watcher(slot);
            let again = planted::on("watch-release-tells-again");
            let from = watcher.from - u64::from(again && watcher.from > 1);
            self.watchers[slot as usize].as_mut().expect("it is parked").from = from;
            self.join(slot, from, from);
        }
        self.settle(conn);
        !parked.is_empty() || self.ready.contains(&conn)
    }

    /// The connection wants to know up to where it was told everything, once it was.
    pub(super) fn ask_progress(&mut self, conn: ConnId, tag: Tag) {
        self.conns.entry(conn).or_default().asked = Some(tag);
        self.settle(conn);
    }

    /// Nobody is owed anything, and nothing is left of what somebody was who has gone.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.ready.is_empty() && self.gathering.is_none()
    }

    pub(super) fn standing(&self) -> Standing {
        let with_watches = || self.conns.values().filter(|conn| conn.watches > 0);
        let lagging: usize = with_watches().map(|conn| conn.lagging).sum();
        Standing {
            watchers: self.slots.len(),
            connections: with_watches().count(),
            // Those who wait for the future miss nothing.
            slow: lagging.saturating_sub(self.future.len()),
        }
    }

    /// Whether another turn has something to tell without anything happening before. `revision` is the store's.
    pub(super) fn has_work(&self, revision: Revision) -> bool {
        let head = &self.groups[&HEAD];
        self.gathering.is_some()
            || !self.order.is_empty()
            || !self.ready.is_empty()
            || (!head.index.is_empty() && head.next <= revision)
    }

    /// When somebody is to be told of progress.
    pub(super) fn deadline(&self) -> Mono {
        self.due.first().map_or(Mono::NEVER, |&(due, _)| due)
    }

    fn watcher(&self, slot: Slot) -> &Watcher {
        self.watchers[slot as usize].as_ref().expect("a slot that is named holds a watcher")
    }

    fn watcher_mut(&mut self, slot: Slot) -> &mut Watcher {
        self.watchers[slot as usize].as_mut().expect("a slot that is named holds a watcher")
    }

    fn group_mut(&mut self, group: GroupNo) -> &mut Group {
        self.groups.get_mut(&group).expect("a group that is named is there")
    }

    /// With nobody in it the head has seen everything.
    fn follow(&mut self, revision: Revision) {
        let head = self.group_mut(HEAD);
        if head.index.is_empty() {
            head.next = head.next.max(revision + 1);
        }
    }

    /// Has a watcher that stands nowhere told from `next` on. It counts as lagging until the head has come to
    /// `settles_at`.
    fn join(&mut self, slot: Slot, next: Revision, settles_at: Revision) {
        let head_next = self.groups[&HEAD].next;
        self.watcher_mut(slot).settles_at = settles_at;
        if next >= head_next {
            if settles_at > head_next {
                self.future.insert((settles_at, slot));
            }
            self.enter(slot, HEAD);
            return self.set_lags(slot, settles_at > head_next);
        }
        let there = self.order.range((next, 0)..).next().filter(|(at, _)| *at == next);
        let group = match there {
            Some(&(_, group)) => group,
            None => {
                let group = self.next_group;
                self.next_group += 1;
                self.groups.insert(group, Group { next, ..Group::default() });
                self.order.insert((next, group));
                group
            }
        };
        self.enter(slot, group);
        self.set_lags(slot, true);
    }

    /// Into a group. What that one has begun to tell is not for who joins it.
    fn enter(&mut self, slot: Slot, no: GroupNo) {
        let watcher = self.watchers[slot as usize].as_mut().expect("it was just named");
        let group = self.groups.get_mut(&no).expect("a group that is named is there");
        watcher.group = Some(no);
        watcher.from = watcher.from.max(group.next);
        group.index.insert(&watcher.target, (watcher.conn, slot));
        group.prev_kvs += usize::from(watcher.prev_kv);
    }

    /// Out of its group, if it is in one.
    fn leave(&mut self, slot: Slot) {
        let watcher = self.watchers[slot as usize].as_mut().expect("it was just named");
        let Some(no) = watcher.group.take() else { return };
        let group = self.groups.get_mut(&no).expect("a group that is named is there");
        group.index.remove(&watcher.target, (watcher.conn, slot));
        group.prev_kvs -= usize::from(watcher.prev_kv);
        let (next, settles_at) = (group.next, watcher.settles_at);
        if no == HEAD {
            self.future.remove(&(settles_at, slot));
        } else if group.index.is_empty() {
            self.order.remove(&(next, no));
            self.groups.remove(&no);
        }
    }

    fn set_lags(&mut self, slot: Slot, lags: bool) {
        let watcher = self.watcher_mut(slot);
        let conn = watcher.conn;
        let changes = std::mem::replace(&mut watcher.lags, lags) != lags;
        if !changes {
            return;
        }
        let connection = self.conns.get_mut(&conn).expect("it has a watch");
        if lags {
            connection.lagging += 1;
        } else {
            connection.lagging -= 1;
            self.settle(conn);
        }
    }

    /// Whoever asked for progress gets it, if nothing stands against it.
    fn settle(&mut self, conn: ConnId) {
        let asked = self.conns.get(&conn).is_some_and(|conn| conn.asked.is_some() && conn.lagging == 0);
        if asked && !self.held.contains_key(&conn) {
            self.ready.insert(conn);
        }
    }

    /// Out of its group until its connection is released; `missed` is the first revision that it was not told of.
    fn park(&mut self, slot: Slot, missed: Revision) {
        self.leave(slot);
        let watcher = self.watcher_mut(slot);
        watcher.from = missed;
        let conn = watcher.conn;
        self.held.get_mut(&conn).expect("its connection is held").parked.insert(slot);
        self.set_lags(slot, true);
    }

    /// The watch is over.
    fn remove(&mut self, slot: Slot) -> Watcher {
        self.leave(slot);
        let watcher = self.watchers[slot as usize].take().expect("it was just named");
        self.free.push(slot);
        let of_leader = watcher.observed.as_ref().map_or(0, Observed::size_bytes);
        self.bytes -= WATCH_BYTES + watcher.target.size_bytes() + of_leader;
        self.slots.remove(&(watcher.conn, watcher.tag));
        if let Some(due) = watcher.due {
            self.due.remove(&(due, slot));
        }
        if let Some(held) = self.held.get_mut(&watcher.conn) {
            held.parked.remove(&slot);
        }
        let connection = self.conns.get_mut(&watcher.conn).expect("it had a watch");
        connection.watches -= 1;
        connection.lagging -= usize::from(watcher.lags);
        if connection.watches == 0 && connection.asked.is_none() {
            self.conns.remove(&watcher.conn);
        }
        self.settle(watcher.conn);
        watcher
    }

    /// Between two notices of progress to this one. A little more than what is set, and not the same for all: they
    /// shall not come at once.
    fn pause(&self, serial: u64) -> Nanos {
        let spread = (self.interval / 10).max(1);
        self.interval + serial.wrapping_mul(0x9e37_79b9_7f4a_7c15) % spread
    }

    fn set_due(&mut self, slot: Slot, due: Mono) {
        let earlier = self.watcher_mut(slot).due.replace(due);
        if let Some(earlier) = earlier {
            self.due.remove(&(earlier, slot));
        }
        self.due.insert((due, slot));
    }
}

/// Where what is told goes to: the connection, the tag, what is said, and whether more may follow.
pub(super) type Out<'a> = dyn FnMut(ConnId, Tag, Body, bool) + 'a;
