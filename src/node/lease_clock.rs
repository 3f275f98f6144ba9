//! When leases end: a value that is told the time. The leader has one (`leases.rs`).
//!
//! A hierarchical timing wheel. Each level has 64 slots; a slot of the lowest is a tick, a millisecond, and one of any other is
//! all 64 slots of the level below. A lease lies at the level of the highest digit, to the base 64, in which its tick
//! differs from the present one, in the slot of that digit: so setting and taking away are a few steps, however many
//! leases there are, and what the wheel comes to next is the first slot that is taken of the lowest level that has one.
//!
//! ```text
//!   level 0    a tick a slot         |. . . . x . x|       comes up:  due
//!   level 1    64 ms a slot          |. x . . . . .|       comes up:  spread over level 0
//!   level 2    4,096 ms a slot       |. . . x . . .|       comes up:  spread over the levels below
//! ```
//!
//! A slot that comes up may hold a million leases. So the wheel turns by so many leases at most that are moved
//! ([`turn`](LeaseClock::turn)), and goes on in the middle of a slot; what is due waits in an ordered set, few at a time.
//!
//! By its layout, not measured: a lease takes 32 bytes, and somewhat more than half of that again in the map by id.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::planted;
use crate::base::{LeaseId, Mono, time::MS, time::Nanos};

/// A tick. Whoever ends between two is due at the later one.
const TICK: Nanos = MS;

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;

/// Of all digits that a tick of 64 bits of nanoseconds has.
const LEVELS: usize = 8;
const _: () = assert!(u64::MAX / TICK < 1 << (LEVELS as u32 * DIGIT_BITS));

/// Due leases that wait to be ended: more are not looked for.
const DUE_MAX: usize = 1_024;

/// No lease of that number.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Slot {
        level: u8,
        slot: u8,
    },
    Due,
    /// It will be due no more, and stays known.
    Stopped,
}

/// In a slot, one behind the other.
#[derive(Clone, Copy, Debug)]
struct Lease {
    id: LeaseId,
    end: Mono,
    place: Place,
    before: u32,
    after: u32,
}

#[derive(Clone, Debug)]
struct Level {
    first: [u32; SLOTS],
    /// A bit for each slot: whether it is taken.
    taken: u64,
}

#[derive(Clone, Debug)]
pub(super) struct LeaseClock {
    numbers: BTreeMap<LeaseId, u32>,
    leases: Vec<Lease>,
    /// Numbers that are free.
    free: Vec<u32>,
    levels: [Level; LEVELS],
    /// Up to which tick the wheel has turned: no slot before it is taken.
    tick: u64,
    /// A slot that has come up, and was not emptied yet.
    open: Option<(usize, usize)>,
    due: BTreeSet<(Mono, LeaseId)>,
}

fn digit(tick: u64, level: usize) -> usize {
    (tick >> (level as u32 * DIGIT_BITS)) as usize % SLOTS
}

impl LeaseClock {
    pub(super) fn new(now: Mono) -> LeaseClock {
        let level = Level { first: [NONE; SLOTS], taken: 0 };
        LeaseClock {
            numbers: BTreeMap::new(),
            leases: Vec::new(),
            free: Vec::new(),
            levels: std::array::from_fn(|_| level.clone()),
            tick: now.0 / TICK,
            open: None,
            due: BTreeSet::new(),
        }
    }

    /// The lease ends then: a new one, or one whose time begins anew.
    pub(super) fn set(&mut self, id: LeaseId, end: Mono) {
        if let Some(&number) = self.numbers.get(&id) {
            self.unlink(number);
            self.leases[number as usize].end = end;
            if !planted::on("node-renewed-lease-is-dropped") {
                self.link(number);
            }
            return;
        }
        let lease = Lease { id, end, place: Place::Stopped, before: NONE, after: NONE };
        let number = self.free.pop().unwrap_or(self.leases.len() as u32);
        match self.leases.get_mut(number as usize) {
            Some(free) => *free = lease,
            None => self.leases.push(lease),
        }
        self.numbers.insert(id, number);
        self.link(number);
    }

    /// The lease is gone.
    pub(super) fn remove(&mut self, id: LeaseId) {
        if let Some(number) = self.numbers.remove(&id) {
            self.unlink(number);
            self.free.push(number);
        }
    }

    /// It will be due no more, and stays known.
    pub(super) fn stop(&mut self, id: LeaseId) {
        if let Some(&number) = self.numbers.get(&id) {
            self.unlink(number);
        }
    }

    pub(super) fn end(&self, id: LeaseId) -> Option<Mono> {
        self.numbers.get(&id).map(|&number| self.leases[number as usize].end)
    }

    /// When [`turn`](Self::turn) has something to do next, or something is due.
    pub(super) fn next(&self) -> Mono {
        match (self.due.first(), self.next_slot()) {
            (Some((end, _)), _) => *end,
            (None, Some((level, slot))) => Mono(self.beginning(level, slot).saturating_mul(TICK)),
            (None, None) => Mono::NEVER,
        }
    }

    /// Those that have ended, in about the order in which they did, as far as [`turn`](Self::turn) has come.
    pub(super) fn due(&self) -> impl Iterator<Item = LeaseId> {
        self.due.iter().map(|(_, id)| *id)
    }

    /// Goes on to `now`, but moves so many leases at most.
    pub(super) fn turn(&mut self, now: Mono, moved_max: usize) {
        let now = now.0 / TICK;
        let mut moved = 0;
        while let Some((level, slot)) = self.next_slot() {
            let beginning = self.beginning(level, slot);
            if beginning > now || moved == moved_max || self.due.len() >= DUE_MAX {
                break;
            }
            self.tick = self.tick.max(beginning);
            self.open = Some((level, slot));
            let number = self.levels[level].first[slot];
            self.unlink(number);
            self.link(number);
            moved += 1;
        }
        if self.next_slot().is_none_or(|(level, slot)| self.beginning(level, slot) > now) {
            self.tick = self.tick.max(now);
        }
    }

    /// The slot that comes up next; an open one must be emptied first.
    fn next_slot(&self) -> Option<(usize, usize)> {
        self.open.or_else(|| {
            let level = self.levels.iter().position(|level| level.taken != 0)?;
            Some((level, self.levels[level].taken.trailing_zeros() as usize))
        })
    }

    /// The first tick of a slot: the digits above are the present ones.
    fn beginning(&self, level: usize, slot: usize) -> u64 {
        let bits = level as u32 * DIGIT_BITS;
        let above = self.tick >> (bits + DIGIT_BITS) << DIGIT_BITS;
        (above | slot as u64) << bits
    }

    fn link(&mut self, number: u32) {
        let Lease { id, end, .. } = self.leases[number as usize];
        let tick = end.0.div_ceil(TICK);
        if tick <= self.tick {
            self.due.insert((end, id));
            self.leases[number as usize].place = Place::Due;
            return;
        }
        let level = ((tick ^ self.tick).ilog2() / DIGIT_BITS) as usize;
        let slot = digit(tick, level);
        let first = std::mem::replace(&mut self.levels[level].first[slot], number);
        self.levels[level].taken |= 1 << slot;
        if first != NONE {
            self.leases[first as usize].before = number;
        }
        let lease = &mut self.leases[number as usize];
        lease.place = Place::Slot { level: level as u8, slot: slot as u8 };
        (lease.before, lease.after) = (NONE, first);
    }

    /// From wherever it is.
    fn unlink(&mut self, number: u32) {
        let Lease { id, end, place, before, after } = self.leases[number as usize];
        self.leases[number as usize].place = Place::Stopped;
        let (level, slot) = match place {
            Place::Stopped => return,
            Place::Due => {
                self.due.remove(&(end, id));
                return;
            }
            Place::Slot { level, slot } => (usize::from(level), usize::from(slot)),
        };
        if after != NONE {
            self.leases[after as usize].before = before;
        }
        if before != NONE {
            self.leases[before as usize].after = after;
        } else {
            self.levels[level].first[slot] = after;
            if after == NONE {
                self.levels[level].taken &= !(1 << slot);
                self.open = self.open.filter(|open| *open != (level, slot));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::SECOND;
    use proptest::prelude::*;

    /// A list that is searched.
    #[derive(Default)]
    struct Naive(Vec<(LeaseId, Mono, bool)>);

    impl Naive {
        fn due(&self, now: Mono) -> Vec<LeaseId> {
            let is_over = |end: Mono| end.0.div_ceil(TICK) <= now.0 / TICK;
            let ticking = self.0.iter().filter(|(_, end, ticks)| *ticks && is_over(*end));
            let mut due: Vec<(Mono, LeaseId)> = ticking.map(|(id, end, _)| (*end, *id)).collect();
            due.sort_unstable();
            due.into_iter().map(|(_, id)| id).collect()
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Set(LeaseId, Nanos),
        Remove(LeaseId),
        Stop(LeaseId),
        /// Time goes on; the wheel follows by so many leases at a time, and what is due is ended.
        Wait(Nanos, usize),
        /// Time goes on, and the wheel stops after so many.
        Lag(Nanos, usize),
    }

    /// Of every level, and at the borders of slots.
    fn length() -> impl Strategy<Value = Nanos> {
        prop_oneof![
            0..200 * MS,
            (0..8u32, 0..200u64).prop_map(|(level, few)| (1u64 << (6 * level)).saturating_add(few) * MS / 2),
            Just(9_000_000_000 * SECOND),
        ]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let id = || -6..7i64;
        let step = prop_oneof![
            6 => (id(), length()).prop_map(|(id, length)| Step::Set(id, length)),
            1 => id().prop_map(Step::Remove),
            1 => id().prop_map(Step::Stop),
            3 => (length(), 1..4usize).prop_map(|(length, count)| Step::Wait(length / 4, count)),
            1 => (length(), 0..4usize).prop_map(|(length, count)| Step::Lag(length / 4, count)),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn what_is_due_is_what_a_list_says(steps in steps()) {
            let mut now = Mono(123_456_789);
            let (mut clock, mut naive) = (LeaseClock::new(now), Naive::default());
            for step in steps {
                match step {
                    Step::Set(id, length) => {
                        clock.set(id, now + length);
                        naive.0.retain(|(other, ..)| *other != id);
                        naive.0.push((id, now + length, true));
                    }
                    Step::Remove(id) => {
                        clock.remove(id);
                        naive.0.retain(|(other, ..)| *other != id);
                    }
                    Step::Stop(id) => {
                        clock.stop(id);
                        naive.0.iter_mut().filter(|(other, ..)| *other == id).for_each(|known| known.2 = false);
                    }
                    Step::Wait(length, count) => {
                        now = now + length;
                        while clock.next() <= now && clock.due().count() < naive.due(now).len() {
                            clock.turn(now, count);
                        }
                        let due: Vec<LeaseId> = clock.due().collect();
                        prop_assert_eq!(&due, &naive.due(now));
                        due.into_iter().for_each(|id| clock.remove(id));
                        naive.0.retain(|(_, end, ticks)| !ticks || end.0.div_ceil(TICK) > now.0 / TICK);
                    }
                    Step::Lag(length, count) => {
                        now = now + length;
                        clock.turn(now, count);
                        for id in clock.due() {
                            prop_assert!(naive.due(now).contains(&id), "{} is early", id);
                        }
                    }
                }
                // It wakes whoever waits for it early rather than late, and not for nothing.
                let next = naive.0.iter().filter(|(.., ticks)| *ticks).map(|(_, end, _)| end.0.div_ceil(TICK)).min();
                match next {
                    Some(tick) => prop_assert!(clock.next() <= Mono(tick.saturating_mul(TICK))),
                    None => prop_assert_eq!(clock.next(), Mono::NEVER),
                }
                for id in -6..7 {
                    let known = naive.0.iter().find(|(other, ..)| *other == id).map(|(_, end, _)| *end);
                    prop_assert_eq!(clock.end(id), known);
                }
            }
        }
    }

    /// However many lie in the slot that comes up, and whatever their number.
    #[test]
    fn a_turn_moves_a_few() {
        let mut now = Mono(5 * SECOND);
        let mut clock = LeaseClock::new(now);
        for id in 1..=10_000 {
            clock.set(id, now + 3_600 * SECOND);
        }
        let (mut ended, mut turns) = (0, 0);
        now = now + 3_600 * SECOND;
        while clock.next() <= now {
            let before = clock.due().count();
            clock.turn(now, 100);
            assert!(clock.due().count() - before <= 100);
            turns += 1;
            if turns % 3 == 0 {
                let due: Vec<LeaseId> = clock.due().take(200).collect();
                ended += due.len();
                due.into_iter().for_each(|id| clock.remove(id));
            }
        }
        assert_eq!(ended, 10_000);
        assert!((200..1_000).contains(&turns), "{turns} turns");
    }

    /// A wheel that nobody turned for years goes on where it is.
    #[test]
    fn a_lease_of_long_ago_is_due() {
        let mut clock = LeaseClock::new(Mono(0));
        clock.set(7, Mono(1));
        clock.set(8, Mono::NEVER);
        clock.turn(Mono(1 << 62), 100);
        assert_eq!(clock.due().collect::<Vec<_>>(), [7]);
        clock.set(7, Mono(5));
        assert_eq!((clock.next(), clock.end(7)), (Mono(5), Some(Mono(5))));
    }
}
