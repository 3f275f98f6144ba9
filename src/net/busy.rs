//! Whose input is taken next. In a turn everybody on whose connection something has just come has one read; a client that
//! asks now and then is answered after a turn or two, whatever others send. Who has sent more than a read takes, or more than
//! its adapter decodes at once, goes on behind them: in rotation, and not for longer than [`REST_OF_TURN`] all together.
//! That is what a flood gets, on one connection or on a thousand; where nobody else asks, the next turn is at once.
//!
//! Left out: what a turn's work costs behind the decoding. A read brings no more requests than [`READ_BYTES`] hold, and the
//! node has budgets of its own.
//!
//! [`READ_BYTES`]: super::clients::READ_BYTES

use std::collections::VecDeque;

use crate::base::time::{MS, Nanos};

/// What those who go on may take of one turn; one of them always has its read.
pub(super) const REST_OF_TURN: Nanos = MS / 10;

/// Connections with something to do, by slot.
#[derive(Default)]
pub(super) struct Busy {
    /// Something has just come.
    fresh: Vec<usize>,
    /// There is more than was taken; who waits longest is the first.
    rest: VecDeque<usize>,
    /// By slot: it stands in `rest`. What comes there meanwhile makes it no fresher.
    goes_on: Vec<bool>,
}

impl Busy {
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.rest.is_empty()
    }

    /// Something has come.
    pub(super) fn on_event(&mut self, slot: usize) {
        if !self.goes_on.get(slot).is_some_and(|goes_on| *goes_on) {
            self.fresh.push(slot);
        }
    }

    /// There is more than this turn has taken.
    pub(super) fn go_on(&mut self, slot: usize) {
        if self.goes_on.len() <= slot {
            self.goes_on.resize(slot + 1, false);
        }
        if !std::mem::replace(&mut self.goes_on[slot], true) {
            self.rest.push_back(slot);
        }
    }

    pub(super) fn take_fresh(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.fresh)
    }

    /// The list's room serves the next turn.
    pub(super) fn recycle(&mut self, mut fresh: Vec<usize>) {
        fresh.clear();
        self.fresh = fresh;
    }

    /// The next of those who go on.
    pub(super) fn next_of_rest(&mut self) -> Option<usize> {
        let slot = self.rest.pop_front()?;
        self.goes_on[slot] = false;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_on_waits_behind_all_that_are_fresh_and_in_rotation() {
        let mut busy = Busy::default();
        for slot in [7, 2] {
            busy.on_event(slot);
            busy.go_on(slot);
        }
        assert_eq!(busy.take_fresh(), [7, 2]);
        // A flood brings an event with every packet.
        busy.on_event(7);
        busy.go_on(7);
        busy.on_event(1);
        assert_eq!(busy.take_fresh(), [1]);
        assert_eq!(busy.next_of_rest(), Some(7));
        busy.go_on(7);
        assert_eq!([busy.next_of_rest(), busy.next_of_rest(), busy.next_of_rest()], [Some(2), Some(7), None]);
        busy.on_event(7);
        assert!(!busy.is_empty());
        assert_eq!(busy.take_fresh(), [7]);
        assert!(busy.is_empty());
    }
}
