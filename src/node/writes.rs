//! Writes that this member accepted and that wait for their log entry to be applied here.
//!
//! A write gets a request id, travels to the leader inside its payload (see `api::command::Origin`), and is
//! answered when this member applies the entry that carries it. Between the two, anything can happen to the
//! leader. What makes the outcome *known* again is the term: a write is sent to the leader of one term and may
//! be proposed in that term only. So once an entry of a later term is applied here, every write sent in an
//! earlier term and not applied yet never will be, and it is sent again. Nothing is doubled, and a client of
//! a surviving member does not notice that the leader died, as long as the deadline allows.
//!
//! Until then nothing is sent in the new term: the writes that one connection pipelined keep their order.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::waiters::WaiterId;
use crate::api::{ConnId, Tag};
use crate::base::planted;
use crate::base::{Mono, Term};

/// Who waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Client {
        conn: ConnId,
        tag: Tag,
    },
    /// Whoever waits for a lock over this connection.
    Waiter {
        conn: ConnId,
        id: WaiterId,
    },
    /// The member itself: nobody is told.
    Member,
}

impl Asker {
    /// On which connection it takes its place among other requests.
    pub(super) fn conn(self) -> Option<ConnId> {
        match self {
            Asker::Client { conn, .. } | Asker::Waiter { conn, .. } => Some(conn),
            Asker::Member => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Write {
    pub(super) asker: Asker,
    payload: Bytes,
    /// The number of the call with which it was last sent to a leader; None = it certainly is in nobody's log (or
    /// is committed).
    sent_with: Option<u64>,
    /// Its entry is applied here, and another one brings the answer.
    committed: bool,
    pub(super) deadline: Mono,
}

impl Write {
    fn may_have_happened(&self) -> bool {
        self.sent_with.is_some() || self.committed
    }
}

/// One call to the leader takes so many bytes (one write is always taken): all that waits may be several times what a
/// frame between members can hold, after a time without a leader.
const CALL_BYTES_MAX: usize = 1 << 20;

/// The table. Ids rise by one, and so do deadlines, so it is a queue with holes.
#[derive(Debug)]
pub(super) struct Writes {
    /// The id of the queue's front.
    first_id: u64,
    queue: VecDeque<Option<Write>>,
    /// Not sent, in order.
    unsent: VecDeque<u64>,
    /// The term of the last send, and how many sent ones are open.
    sent_term: Term,
    sent_open: usize,
    /// Something was refused in this term: nothing is sent in it before then.
    held_in: Term,
    held_until: Mono,
    bytes: usize,
    /// The newest write of each connection: a read that was pipelined behind it waits for it.
    newest_of: BTreeMap<ConnId, u64>,
}

impl Writes {
    /// `first_id` must not have been used before by this member, also not before a restart: a seeded dice
    /// throw over 63 bits.
    pub(super) fn new(first_id: u64) -> Writes {
        Writes {
            first_id,
            queue: VecDeque::new(),
            unsent: VecDeque::new(),
            sent_term: 0,
            sent_open: 0,
            held_in: 0,
            held_until: Mono::NEVER,
            bytes: 0,
            newest_of: BTreeMap::new(),
        }
    }

    /// Bytes and number of the writes that wait.
    pub(super) fn load(&self) -> (usize, usize) {
        (self.bytes, self.queue.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// No write below is open.
    pub(super) fn first_id(&self) -> u64 {
        self.first_id
    }

    /// The id that the next [`push`](Self::push) will give: it must be inside the payload.
    pub(super) fn next_id(&self) -> u64 {
        self.first_id + self.queue.len() as u64
    }

    pub(super) fn push(&mut self, asker: Asker, payload: Bytes, deadline: Mono) {
        let id = self.next_id();
        self.bytes += payload.len();
        if let Some(conn) = asker.conn() {
            self.newest_of.insert(conn, id);
        }
        self.unsent.push_back(id);
        self.queue.push_back(Some(Write { asker, payload, sent_with: None, committed: false, deadline }));
    }

    /// The newest write of a connection that still waits.
    pub(super) fn newest_open(&self, conn: ConnId) -> Option<u64> {
        self.newest_of.get(&conn).copied().filter(|&id| self.is_open(id))
    }

    pub(super) fn is_open(&self, id: u64) -> bool {
        self.slot(id).is_some_and(|index| self.queue[index].is_some())
    }

    fn slot(&self, id: u64) -> Option<usize> {
        let index = usize::try_from(id.checked_sub(self.first_id)?).ok()?;
        (index < self.queue.len()).then_some(index)
    }

    /// What may be sent to the leader of `term` now, in one call: as much of what is unsent as [`CALL_BYTES_MAX`]
    /// allows, or nothing while writes of an earlier term are still unsettled. They count as sent with call `number`,
    /// which was never used before, from here on.
    pub(super) fn send_in(&mut self, term: Term, number: u64) -> Vec<Bytes> {
        if self.sent_open > 0 && self.sent_term != term {
            return Vec::new();
        }
        self.sent_term = term;
        let mut payloads = Vec::with_capacity(self.unsent.len());
        let mut bytes = 0;
        while let Some(&id) = self.unsent.front() {
            let index = self.slot(id);
            if let Some(write) = index.and_then(|index| self.queue[index].as_mut()) {
                bytes += write.payload.len();
                if bytes > CALL_BYTES_MAX && !payloads.is_empty() {
                    break;
                }
                write.sent_with = Some(number);
                self.sent_open += 1;
                payloads.push(write.payload.clone());
            }
            self.unsent.pop_front();
        }
        payloads
    }

    /// They will not be sent: the caller ends each of them.
    pub(super) fn take_unsent(&mut self) -> VecDeque<u64> {
        std::mem::take(&mut self.unsent)
    }

    /// Nothing waits to be sent, now or later.
    pub(super) fn all_sent(&self) -> bool {
        self.unsent.is_empty() && self.held_until == Mono::NEVER
    }

    /// Whether something waits to be sent and may be, in `term`.
    pub(super) fn may_send(&mut self, term: Term, now: Mono) -> bool {
        if term != self.held_in || now >= self.held_until {
            (self.held_in, self.held_until) = (0, Mono::NEVER);
        }
        self.held_in == 0 && !self.unsent.is_empty()
    }

    /// When what is held may be sent in the same term.
    pub(super) fn held_until(&self) -> Mono {
        self.held_until
    }

    /// An entry of `term` was applied: whatever was sent in an earlier term and is still here was lost.
    pub(super) fn settle(&mut self, term: Term) {
        if self.sent_open == 0
            || self.sent_term >= term + u64::from(planted::on("node-sends-again-in-the-same-term"))
        {
            return;
        }
        for write in self.queue.iter_mut().flatten() {
            write.sent_with = None;
        }
        self.sent_open = 0;
        self.rebuild_unsent();
    }

    /// Whether the call is the one with which this write was last sent.
    pub(super) fn is_sent_with(&self, id: u64, number: u64) -> bool {
        let write = self.slot(id).and_then(|index| self.queue[index].as_ref());
        write.is_some_and(|write| {
            write.sent_with == Some(number)
                || (write.sent_with.is_some() && planted::on("node-late-refusal-counts"))
        })
    }

    /// Call `number` was refused. What it brought is in nobody's log, unless it was sent again since:
    ///   1. This member sends a write to the leader of term 5, which stands still.
    ///   2. Term 6 begins, its first entry is applied here, and the write is sent again, to the new leader.
    ///   3. The old leader goes on, learns of term 6, and refuses the first call.
    ///
    /// Sending a third time would do the write twice.
    ///
    /// In the same term nothing is sent until `retry_at`. What refuses at once, a leader that hands over or a connection
    /// that is not there, would be asked again and again without a pause.
    pub(super) fn refused(&mut self, number: u64, ids: &[u64], retry_at: Mono) {
        for &id in ids {
            if self.is_sent_with(id, number) {
                let index = self.slot(id).expect("a write that was sent is in the table");
                self.queue[index].as_mut().expect("it is open").sent_with = None;
                self.sent_open -= 1;
                if !planted::on("node-refused-is-sent-at-once") {
                    (self.held_in, self.held_until) = (self.sent_term, retry_at);
                }
            }
        }
        self.rebuild_unsent();
    }

    fn rebuild_unsent(&mut self) {
        let unsent = |write: &Option<Write>| {
            write.as_ref().is_some_and(|write| write.sent_with.is_none() && !write.committed)
        };
        self.unsent =
            (self.first_id..).zip(&self.queue).filter(|(_, write)| unsent(write)).map(|(id, _)| id).collect();
    }

    /// The write has happened, and is never sent again; the answer comes later.
    pub(super) fn committed(&mut self, id: u64) {
        let Some(write) = self.slot(id).and_then(|index| self.queue[index].as_mut()) else { return };
        write.committed = true;
        if write.sent_with.take().is_some() {
            self.sent_open -= 1;
        }
        self.rebuild_unsent();
    }

    /// The write is over: applied, refused for good, or expired.
    pub(super) fn take(&mut self, id: u64) -> Option<Write> {
        let index = self.slot(id)?;
        let write = self.queue[index].take()?;
        self.bytes -= write.payload.len();
        if write.sent_with.is_some() {
            self.sent_open -= 1;
        }
        if let Some(conn) = write.asker.conn()
            && self.newest_of.get(&conn) == Some(&id)
        {
            self.newest_of.remove(&conn);
        }
        while let Some(None) = self.queue.front() {
            self.queue.pop_front();
            self.first_id += 1;
        }
        Some(write)
    }

    /// Takes out all that was sent. After a snapshot their fate cannot be told: the entries that it stands for
    /// were not applied here one by one, and these writes may be among them. So they must not be sent again.
    pub(super) fn take_sent(&mut self) -> Vec<Write> {
        let sent = |write: &Option<Write>| write.as_ref().is_some_and(Write::may_have_happened);
        let ids: Vec<u64> =
            (self.first_id..).zip(&self.queue).filter(|(_, write)| sent(write)).map(|(id, _)| id).collect();
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// The next write whose deadline has passed, and whether it may have happened.
    pub(super) fn expired(&mut self, now: Mono) -> Option<(Write, bool)> {
        let deadline = self.deadline()?;
        if deadline > now {
            return None;
        }
        let write = self.take(self.first_id).expect("the front of the queue is open");
        let perhaps = write.may_have_happened();
        Some((write, perhaps))
    }

    /// When the oldest write gives up.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.queue.front().map(|write| write.as_ref().expect("the front of the queue is open").deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(count: u64) -> Writes {
        let mut writes = Writes::new(100);
        for tag in 0..count {
            let payload = Bytes::from(vec![tag as u8]);
            writes.push(Asker::Client { conn: 1, tag }, payload, Mono(1_000 + tag));
        }
        writes
    }

    #[test]
    fn what_an_earlier_term_lost_is_sent_again_in_order() {
        let mut writes = table(3);
        assert_eq!(writes.send_in(5, 1), [&[0][..], &[1], &[2]]);
        assert!(writes.take(100).is_some(), "the first one was applied");
        writes.push(Asker::Member, Bytes::from_static(b"x"), Mono(2_000));
        assert!(writes.send_in(6, 2).is_empty(), "the fate of two writes of term 5 is open");
        writes.settle(5);
        assert!(writes.send_in(6, 2).is_empty(), "an entry of the same term settles nothing");
        writes.settle(6);
        assert_eq!(writes.send_in(6, 2), [&[1][..], &[2], b"x"]);
    }

    #[test]
    fn one_call_takes_no_more_than_fits_in_it() {
        let mut writes = Writes::new(100);
        for (tag, bytes) in [(0, 10), (1, CALL_BYTES_MAX - 10), (2, 1), (3, 3 * CALL_BYTES_MAX), (4, 1)] {
            writes.push(Asker::Client { conn: 1, tag }, Bytes::from(vec![tag as u8; bytes]), Mono(1_000));
        }
        let sent: Vec<Vec<u8>> =
            (1..=5).map(|call| writes.send_in(5, call).iter().map(|payload| payload[0]).collect()).collect();
        assert_eq!(sent, [&[0, 1][..], &[2], &[3], &[4], &[]]);
        assert!(writes.is_sent_with(101, 1) && writes.is_sent_with(103, 3));
    }

    #[test]
    fn what_was_refused_is_sent_again() {
        let mut writes = table(2);
        writes.send_in(5, 1);
        writes.refused(1, &[100, 101, 999], Mono(50));
        assert!(!writes.may_send(5, Mono(49)), "not in the same term at once");
        assert_eq!(writes.held_until(), Mono(50));
        assert!(writes.may_send(6, Mono(49)), "another one leads");
        assert_eq!(writes.send_in(6, 2), [&[0][..], &[1]]);
        writes.refused(2, &[101], Mono(70));
        assert!(writes.may_send(6, Mono(70)));
        assert_eq!(writes.held_until(), Mono::NEVER, "nothing is held any more");
    }

    #[test]
    fn a_late_refusal_does_not_touch_what_was_sent_again() {
        let mut writes = table(1);
        writes.send_in(5, 1);
        writes.settle(6);
        assert_eq!(writes.send_in(6, 2), [&[0][..]]);
        writes.refused(1, &[100], Mono(50));
        assert!(writes.send_in(6, 3).is_empty(), "it is with the leader of term 6");
        assert!(writes.is_sent_with(100, 2) && !writes.is_sent_with(100, 1));
        writes.refused(2, &[100], Mono(50));
        assert_eq!(writes.send_in(6, 4), [&[0][..]]);
    }

    #[test]
    fn what_was_sent_before_a_snapshot_is_not_sent_again() {
        let mut writes = table(2);
        writes.send_in(5, 1);
        writes.push(Asker::Member, Bytes::from_static(b"x"), Mono(2_000));
        assert_eq!(writes.take_sent().len(), 2);
        writes.settle(6);
        assert_eq!(writes.send_in(6, 2), [&b"x"[..]]);
    }

    #[test]
    fn what_is_committed_is_not_sent_again_and_waits_for_its_answer() {
        let mut writes = table(2);
        writes.send_in(5, 1);
        writes.committed(100);
        writes.settle(6);
        assert_eq!(writes.send_in(6, 2), [&[1][..]], "the other one alone");
        assert!(writes.is_open(100), "reads of the same connection wait for it");
        writes.refused(1, &[100], Mono(50));
        assert!(!writes.may_send(6, Mono(50)));
        assert!(writes.expired(Mono(1_000)).is_some_and(|(_, perhaps)| perhaps));
    }

    #[test]
    fn deadlines_pass_in_order_and_say_whether_it_may_have_happened() {
        let mut writes = table(1);
        writes.send_in(5, 1);
        writes.push(Asker::Member, Bytes::new(), Mono(1_500));
        assert!(writes.expired(Mono(999)).is_none());
        assert!(writes.expired(Mono(2_000)).is_some_and(|(_, perhaps)| perhaps));
        assert!(writes.expired(Mono(2_000)).is_some_and(|(_, perhaps)| !perhaps));
        assert!(writes.is_empty());
        assert_eq!(writes.load(), (0, 0));
    }

    #[test]
    fn a_read_waits_for_the_writes_before_it() {
        let mut writes = table(2);
        assert_eq!(writes.newest_open(1), Some(101));
        assert_eq!(writes.newest_open(2), None);
        writes.take(101);
        assert_eq!(writes.newest_open(1), None);
        assert!(writes.is_open(100) && !writes.is_open(101));
    }
}
