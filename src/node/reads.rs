//! Reads that wait: for a read index from the leader, then for that index to be applied here.
//!
//! Reads that arrive in one turn share one request for an index; every attempt has an id of its own
//! (an answer to an earlier attempt must never confirm a later read).
//!
//! Requests that one connection pipelines take effect in their order. A read waits for the writes before it. And
//! a read that a write follows is answered before that write is applied, if it was not before:
//!
//! 1. A client sends GET k and DEL k in one go. Both travel to the leader at the same time.
//! 2. DEL is applied here before the read index arrives. Reading now would answer "not there".
//!
//! So the read is answered from the state just before the write. That state is recent enough: the write was
//! proposed after the read had arrived, so whatever was acknowledged before that lies at a lower index.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::waiters::WaiterId;
use crate::api::{ConnId, LeaseRequest, LeaseTime, LeaseWant, Range, Tag, Txn};
use crate::base::planted;
use crate::base::{Index, MemberId, Mono, Revision, time::Nanos};

#[derive(Clone, Debug)]
pub(super) enum Question {
    Range(Range),
    Exists(Vec<Bytes>),
    /// One that writes nothing.
    Txn(Txn),
    Members,
    Alarms,
    /// Of this member's state.
    Whole(Whole),
    Lease(LeaseQuestion),
    /// Whether one who waits for a lock is the first.
    Lock(WaiterId),
    /// Who leads the election of this name: from there on it is observed.
    Observe(Bytes),
}

/// What goes through all of the state.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whole {
    HashKv(Revision),
    Hash,
    Snapshot,
}

/// A request about leases that does not go through the log.
#[derive(Clone, Debug)]
pub(super) struct LeaseQuestion {
    pub(super) asked: LeaseRequest,
    /// What the leader said of each that it had to be asked about; empty until then.
    pub(super) told: Vec<Option<LeaseTime>>,
}

impl LeaseQuestion {
    pub(super) fn new(asked: LeaseRequest) -> LeaseQuestion {
        LeaseQuestion { asked, told: Vec::new() }
    }

    fn asks_leader(&self) -> bool {
        matches!(self.asked, LeaseRequest::KeepAlive { .. } | LeaseRequest::TimeToLive { .. })
    }

    /// What only the leader knows.
    pub(super) fn wants(&self) -> Vec<LeaseWant> {
        match &self.asked {
            LeaseRequest::KeepAlive { ids } => ids.iter().map(|&id| LeaseWant { id, renew: true }).collect(),
            LeaseRequest::TimeToLive { id, .. } => vec![LeaseWant { id: *id, renew: false }],
            _ => Vec::new(),
        }
    }
}

impl Question {
    pub(super) fn is_serializable(&self) -> bool {
        match self {
            Question::Range(range) => range.serializable,
            Question::Txn(txn) => txn.is_serializable() || planted::on("node-reading-txn-asks-nobody"),
            Question::Whole(_) => true,
            Question::Exists(_) | Question::Members | Question::Alarms => false,
            Question::Lease(_) | Question::Lock(_) | Question::Observe(_) => false,
        }
    }

    /// Nothing that this member has can answer it before the leader has spoken.
    fn needs_leader(&self) -> bool {
        matches!(self, Question::Lease(question) if question.told.is_empty() && question.asks_leader())
    }

    /// Given up, it may have had an effect.
    pub(super) fn may_have_happened(&self) -> bool {
        matches!(self, Question::Lease(LeaseQuestion { asked: LeaseRequest::KeepAlive { .. }, .. }))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) conn: ConnId,
    pub(super) tag: Tag,
    pub(super) question: Question,
    /// A write of the same connection that came before.
    pub(super) after: Option<u64>,
    /// Writes from this id on came later.
    pub(super) next_write: u64,
    pub(super) deadline: Mono,
}

/// Reads by number, in the order in which they came: so numbers and deadlines rise together.
type Number = u64;

#[derive(Debug)]
struct Asked {
    id: u64,
    at: Mono,
    reads: Vec<Number>,
    /// About leases: of how many each read must be told.
    told: Option<Vec<usize>>,
}

#[derive(Debug)]
pub(super) struct Reads {
    next_id: u64,
    waiting: BTreeMap<Number, Read>,
    next_number: Number,
    /// Which reads of each connection wait, and perhaps some behind the first that no longer do.
    waiting_of: BTreeMap<ConnId, VecDeque<Number>>,
    // Reads that no longer wait may still be named in the lists below.
    /// No index asked for yet (or no longer).
    fresh: Vec<Number>,
    /// The same, of those that the leader must be asked more about.
    fresh_leases: Vec<Number>,
    asked: VecDeque<Asked>,
    /// The index is known.
    indexed: VecDeque<(Index, Vec<Number>)>,
    /// May be answered, the oldest first.
    ready: BTreeSet<Number>,
    /// The same of each connection, behind a read that may not yet: its answer could not leave before that one's, and a
    /// large one would wait in parts until no more of it may, and keep that one from being answered.
    behind: BTreeMap<ConnId, Vec<Number>>,
    /// Connections whose clients do not take what they asked for, and the reads that may be answered when they do.
    held: BTreeMap<ConnId, Vec<Number>>,
    /// Attempts that other members asked this one for, as leader: our id to their name and id.
    remote: BTreeMap<u64, (MemberId, u64)>,
    /// Open writes that a connection sent while reads of it waited.
    followers: BTreeMap<u64, ConnId>,
    /// Not before this time, after an attempt failed.
    retry_at: Mono,
}

/// How many attempts may be under way. More would only split what can share one.
const ATTEMPTS_MAX: usize = 4;

/// Leases that one attempt asks about; one request more is always taken.
const WANTS_MAX: usize = 4_096;

/// Answers to other members that may be pending; beyond it they are told to ask again.
const REMOTE_MAX: usize = 4_096;

/// Reads that are over and still listed as fresh.
const FRESH_OVER_MAX: usize = 1_024;

impl Reads {
    pub(super) fn new(first_id: u64) -> Reads {
        Reads {
            next_id: first_id,
            waiting: BTreeMap::new(),
            next_number: 0,
            waiting_of: BTreeMap::new(),
            fresh: Vec::new(),
            fresh_leases: Vec::new(),
            asked: VecDeque::new(),
            indexed: VecDeque::new(),
            ready: BTreeSet::new(),
            behind: BTreeMap::new(),
            held: BTreeMap::new(),
            remote: BTreeMap::new(),
            followers: BTreeMap::new(),
            retry_at: Mono(0),
        }
    }

    /// A read that any state can answer needs no index. Behind others of its connection it waits with them all the
    /// same: their answers must leave first.
    pub(super) fn push(&mut self, read: Read) {
        let number = self.next_number;
        self.next_number += 1;
        if read.question.is_serializable() && !self.waits(read.conn) {
            self.indexed.push_back((0, vec![number]));
        } else if read.question.needs_leader() {
            self.fresh_leases.push(number);
        } else {
            self.fresh.push(number);
        }
        self.waiting_of.entry(read.conn).or_default().push_back(number);
        self.waiting.insert(number, read);
    }

    /// Whether reads of this connection wait.
    pub(super) fn waits(&self, conn: ConnId) -> bool {
        self.waiting_of.contains_key(&conn)
    }

    /// The client does not take its answers: no more of them before it does.
    pub(super) fn hold(&mut self, conn: ConnId) {
        self.held.entry(conn).or_default();
    }

    /// It has taken them. Whether something of it may be answered now.
    pub(super) fn release(&mut self, conn: ConnId) -> bool {
        let numbers = self.held.remove(&conn).unwrap_or_default();
        self.ready.extend(&numbers);
        !numbers.is_empty()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The id of a new attempt if one should be made now. The caller asks the leader for it.
    pub(super) fn ask(&mut self, now: Mono) -> Option<u64> {
        if self.fresh.is_empty() || !self.may_attempt(false) || now < self.retry_at {
            return None;
        }
        let id = self.take_id();
        self.asked.push_back(Asked { id, at: now, reads: std::mem::take(&mut self.fresh), told: None });
        Some(id)
    }

    /// The same for what the leader must be told of leases. It happens there, when the leader hears of it: so a write of
    /// the same connection that came before must be over.
    pub(super) fn ask_about_leases(
        &mut self,
        now: Mono,
        is_open: impl Fn(u64) -> bool,
    ) -> Option<(u64, Vec<LeaseWant>)> {
        if self.fresh_leases.is_empty() || !self.may_attempt(true) || now < self.retry_at {
            return None;
        }
        let (mut reads, mut told, mut wants) = (Vec::new(), Vec::new(), Vec::new());
        let waiting = &self.waiting;
        self.fresh_leases.retain(|number| {
            let Some(read) = waiting.get(number) else { return false };
            if wants.len() >= WANTS_MAX || read.after.is_some_and(&is_open) {
                return true;
            }
            if let Question::Lease(question) = &read.question {
                let of_it = question.wants();
                reads.push(*number);
                told.push(of_it.len());
                wants.extend(of_it);
            }
            false
        });
        if reads.is_empty() {
            return None;
        }
        let id = self.take_id();
        self.asked.push_back(Asked { id, at: now, reads, told: Some(told) });
        Some((id, wants))
    }

    /// Attempts about leases may wait for the log, and others need not wait for them.
    fn may_attempt(&self, about_leases: bool) -> bool {
        let under_way = self.asked.iter().filter(|asked| asked.told.is_some() == about_leases).count();
        under_way < ATTEMPTS_MAX
    }

    /// An id for an attempt that `from` asks this member for; None = too many are pending.
    pub(super) fn ask_for(&mut self, from: MemberId, their_id: u64) -> Option<u64> {
        if self.remote.len() >= REMOTE_MAX {
            return None;
        }
        let id = self.take_id();
        self.remote.insert(id, (from, their_id));
        Some(id)
    }

    /// The connection is gone: nobody waits for its reads.
    pub(super) fn forget(&mut self, conn: ConnId) {
        for number in self.waiting_of.remove(&conn).unwrap_or_default() {
            self.waiting.remove(&number);
        }
        self.held.remove(&conn);
        self.behind.remove(&conn);
        self.tidy();
    }

    /// The asker no longer waits for this one, which would have begun something.
    pub(super) fn cancel(&mut self, conn: ConnId, tag: Tag) {
        let begins = |number: &&Number| {
            let read = self.waiting.get(number).filter(|read| read.tag == tag);
            read.is_some_and(|read| matches!(read.question, Question::Observe(_)))
        };
        let found = self.waiting_of.get(&conn).and_then(|numbers| numbers.iter().find(begins).copied());
        if let Some(number) = found {
            self.take(number);
            self.tidy();
        }
    }

    /// While nobody can be asked, clients give up and ask again: what is over must not pile up.
    fn tidy(&mut self) {
        if self.fresh.len() > 2 * self.waiting.len() + FRESH_OVER_MAX {
            self.fresh.retain(|number| self.waiting.contains_key(number));
        }
        if self.fresh_leases.len() > 2 * self.waiting.len() + FRESH_OVER_MAX {
            self.fresh_leases.retain(|number| self.waiting.contains_key(number));
        }
    }

    /// The connection sends this write now. Writes below `first_open` are over.
    pub(super) fn write_follows(&mut self, conn: ConnId, write: u64, first_open: u64) {
        while self.followers.first_key_value().is_some_and(|(&id, _)| id < first_open) {
            self.followers.pop_first();
        }
        if self.waiting_of.contains_key(&conn) {
            self.followers.insert(write, conn);
        }
    }

    /// The reads that must be answered before this write is applied.
    pub(super) fn before_write(&mut self, write: u64, is_open: impl Fn(u64) -> bool) -> Vec<Read> {
        let conn = self.followers.remove(&write);
        let Some(numbers) = conn.and_then(|conn| self.waiting_of.get(&conn)) else { return Vec::new() };
        // Those that came before the write are the first of the connection.
        let before = numbers.iter().map_while(|number| match self.waiting.get(number) {
            Some(read) if read.next_write > write => None,
            // The leader need not be waited for: what it says is no older than the request, and true all the same.
            Some(read) if read.question.needs_leader() => Some(None),
            read => Some(read.filter(|read| !read.after.is_some_and(&is_open)).map(|_| *number)),
        });
        let before: Vec<Number> = before.flatten().collect();
        before.into_iter().filter_map(|number| self.take(number)).collect()
    }

    /// The read no longer waits; None if it did not any more.
    fn take(&mut self, number: Number) -> Option<Read> {
        let read = self.waiting.remove(&number)?;
        let numbers = self.waiting_of.get_mut(&read.conn).expect("every waiting read is listed");
        while numbers.front().is_some_and(|first| !self.waiting.contains_key(first)) {
            numbers.pop_front();
        }
        if numbers.is_empty() {
            self.waiting_of.remove(&read.conn);
        }
        self.ready.extend(self.behind.remove(&read.conn).unwrap_or_default());
        Some(read)
    }

    /// Whose attempt this was, if it was another member's.
    pub(super) fn take_remote(&mut self, id: u64) -> Option<(MemberId, u64)> {
        self.remote.remove(&id)
    }

    pub(super) fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The leader's answer to an attempt; None = it could not say.
    pub(super) fn answered(&mut self, id: u64, index: Option<Index>, retry_at: Mono) {
        let Some(position) = self
            .asked
            .iter()
            .position(|asked| asked.id == id || planted::on("node-any-answer-confirms-a-read"))
        else {
            return;
        };
        let asked = self.asked.remove(position).expect("the position was just found");
        match index {
            Some(index) if asked.told.is_none() => self.indexed.push_back((index, asked.reads)),
            _ => {
                self.ask_again(asked);
                self.retry_at = retry_at;
            }
        }
    }

    /// The leader's answer to an attempt about leases.
    pub(super) fn told(&mut self, id: u64, index: Index, mut told: Vec<Option<LeaseTime>>, retry_at: Mono) {
        let Some(position) = self.asked.iter().position(|asked| asked.id == id) else { return };
        match &self.asked[position].told {
            Some(counts) if counts.iter().sum::<usize>() == told.len() => {}
            _ => return self.answered(id, None, retry_at),
        }
        let asked = self.asked.remove(position).expect("the position was just found");
        for (number, count) in asked.reads.iter().zip(asked.told.unwrap_or_default()) {
            let rest = told.split_off(count);
            let of_it = std::mem::replace(&mut told, rest);
            if let Some(Read { question: Question::Lease(question), .. }) = self.waiting.get_mut(number) {
                question.told = of_it;
            }
        }
        self.indexed.push_back((index, asked.reads));
    }

    fn ask_again(&mut self, asked: Asked) {
        let fresh = if asked.told.is_some() { &mut self.fresh_leases } else { &mut self.fresh };
        fresh.extend(asked.reads);
    }

    /// Attempts that nobody answered are made again under a new id.
    pub(super) fn give_up_attempts(&mut self, asked_before: Mono) {
        while self.asked.front().is_some_and(|asked| asked.at <= asked_before) {
            let asked = self.asked.pop_front().expect("the front was just seen");
            self.ask_again(asked);
        }
    }

    /// Finds the reads that may be served at `applied`, given which writes are still open.
    pub(super) fn find_ready(&mut self, applied: Index, is_open: impl Fn(u64) -> bool) {
        let Reads { indexed, waiting, ready, .. } = self;
        for (index, numbers) in indexed.iter_mut() {
            if *index > applied && !planted::on("node-read-before-applied") {
                continue;
            }
            numbers.retain(|number| {
                let read = waiting.get(number);
                let blocked = read.is_some_and(|read| read.after.is_some_and(&is_open));
                if !blocked {
                    ready.insert(*number);
                }
                blocked
            });
        }
        indexed.retain(|(_, numbers)| !numbers.is_empty());
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next read that may be served, whose client takes its answers and got those to all before it.
    pub(super) fn next_ready(&mut self) -> Option<Read> {
        while let Some(number) = self.ready.pop_first() {
            let Some(conn) = self.waiting.get(&number).map(|read| read.conn) else { continue };
            if let Some(held) = self.held.get_mut(&conn) {
                held.push(number);
            } else if self.waiting_of[&conn].front() != Some(&number) {
                self.behind.entry(conn).or_default().push(number);
            } else {
                return self.take(number);
            }
        }
        None
    }

    /// Reads whose deadline has passed.
    pub(super) fn expired(&mut self, now: Mono) -> Vec<Read> {
        let late = self.waiting.iter().take_while(|(_, read)| read.deadline <= now);
        let late: Vec<Number> = late.map(|(&number, _)| number).collect();
        let late = late.into_iter().filter_map(|number| self.take(number)).collect();
        self.tidy();
        late
    }

    /// When [`give_up_attempts`](Self::give_up_attempts), [`ask`](Self::ask) or [`expired`](Self::expired)
    /// should be called again. `may_ask`: somebody is known who could answer.
    pub(super) fn deadline(&self, patience: Nanos, may_ask: bool, is_open: impl Fn(u64) -> bool) -> Mono {
        let Some((_, oldest)) = self.waiting.first_key_value() else { return Mono::NEVER };
        let attempt = self.asked.front().map_or(Mono::NEVER, |asked| asked.at + patience);
        let may_be_asked =
            |number| self.waiting.get(number).is_some_and(|read| !read.after.is_some_and(&is_open));
        let asks = (!self.fresh.is_empty() && self.may_attempt(false))
            || (self.may_attempt(true) && self.fresh_leases.iter().any(may_be_asked));
        let retry = if asks && may_ask { self.retry_at } else { Mono::NEVER };
        attempt.min(retry).min(oldest.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Span;

    fn read(tag: Tag, after: Option<u64>) -> Read {
        let question = Question::Range(Range::new(Span::Key("k".into())));
        Read { conn: 1, tag, question, after, next_write: 60, deadline: Mono(1_000) }
    }

    fn serializable(tag: Tag) -> Read {
        let range = Range { serializable: true, ..Range::new(Span::Key("k".into())) };
        Read { question: Question::Range(range), ..read(tag, None) }
    }

    fn ready(reads: &mut Reads, applied: Index, is_open: impl Fn(u64) -> bool) -> Vec<Tag> {
        reads.find_ready(applied, is_open);
        std::iter::from_fn(|| reads.next_ready()).map(|read| read.tag).collect()
    }

    fn tags(reads: &[Read]) -> Vec<Tag> {
        reads.iter().map(|read| read.tag).collect()
    }

    #[test]
    fn an_answer_to_an_old_attempt_confirms_nothing() {
        let mut reads = Reads::new(10);
        reads.push(read(1, None));
        let first = reads.ask(Mono(0)).unwrap();
        reads.give_up_attempts(Mono(0));
        let second = reads.ask(Mono(5)).unwrap();
        assert_ne!(first, second);
        reads.answered(first, Some(7), Mono(0));
        assert!(ready(&mut reads, 100, |_| false).is_empty());
        reads.answered(second, Some(7), Mono(0));
        assert!(ready(&mut reads, 6, |_| false).is_empty(), "index 7 is not applied yet");
        assert_eq!(ready(&mut reads, 7, |_| false), [1]);
        assert_eq!(reads.waiting(), 0);
    }

    #[test]
    fn a_read_waits_for_the_write_before_it_and_delays_no_other_connection() {
        let mut reads = Reads::new(10);
        reads.push(read(1, Some(55)));
        reads.push(Read { conn: 2, ..read(2, None) });
        let id = reads.ask(Mono(0)).unwrap();
        reads.answered(id, Some(0), Mono(0));
        assert_eq!(ready(&mut reads, 0, |_| true), [2]);
        assert_eq!(ready(&mut reads, 0, |_| false), [1]);
    }

    #[test]
    fn a_read_is_answered_before_the_write_behind_it() {
        let mut reads = Reads::new(10);
        reads.write_follows(1, 58, 58);
        reads.push(read(1, Some(58)));
        reads.push(Read { conn: 2, ..read(2, None) });
        reads.write_follows(1, 60, 58);
        reads.push(Read { next_write: 61, ..read(3, None) });
        reads.write_follows(3, 61, 58);
        assert!(reads.before_write(58, |_| false).is_empty(), "nothing waited when it was sent");
        assert!(reads.before_write(61, |_| false).is_empty(), "another connection's");
        assert_eq!(tags(&reads.before_write(60, |_| false)), [1]);
        assert_eq!(reads.waiting(), 2);
        let id = reads.ask(Mono(0)).unwrap();
        reads.answered(id, Some(0), Mono(0));
        assert_eq!(ready(&mut reads, 0, |_| false), [2, 3]);
        assert!(reads.waiting_of.is_empty());
    }

    #[test]
    fn who_takes_no_answers_gets_none() {
        let mut reads = Reads::new(10);
        reads.hold(1);
        reads.push(serializable(1));
        reads.push(Read { conn: 2, ..serializable(2) });
        assert_eq!(ready(&mut reads, 0, |_| false), [2]);
        assert!(reads.waits(1) && !reads.has_ready());
        assert!(reads.release(1) && !reads.release(1));
        assert_eq!(ready(&mut reads, 0, |_| false), [1]);
        reads.hold(1);
        reads.push(serializable(3));
        reads.forget(1);
        assert!(ready(&mut reads, 0, |_| false).is_empty());
        assert_eq!((reads.waiting(), reads.release(1)), (0, false));
    }

    /// The second attempt is answered, the first one is not.
    #[test]
    fn reads_of_a_connection_are_answered_in_their_order() {
        let mut reads = Reads::new(10);
        reads.push(read(1, None));
        let first = reads.ask(Mono(0)).unwrap();
        reads.push(read(2, None));
        reads.push(Read { conn: 2, ..read(3, None) });
        let second = reads.ask(Mono(0)).unwrap();
        reads.answered(second, Some(7), Mono(0));
        assert_eq!(ready(&mut reads, 7, |_| false), [3], "another connection's");
        assert!(!reads.has_ready());
        reads.answered(first, Some(6), Mono(0));
        assert_eq!(ready(&mut reads, 7, |_| false), [1, 2]);

        // The first is given up by its client's patience.
        reads.push(read(4, None));
        reads.ask(Mono(0)).unwrap();
        reads.push(Read { deadline: Mono(2_000), ..read(5, None) });
        let second = reads.ask(Mono(0)).unwrap();
        reads.answered(second, Some(7), Mono(0));
        assert!(ready(&mut reads, 7, |_| false).is_empty());
        assert_eq!(tags(&reads.expired(Mono(1_000))), [4]);
        assert_eq!(ready(&mut reads, 7, |_| false), [5]);
    }

    #[test]
    fn a_serializable_read_waits_for_those_before_it_alone() {
        let mut reads = Reads::new(10);
        reads.push(serializable(1));
        assert_eq!(ready(&mut reads, 0, |_| true), [1]);
        reads.push(read(2, None));
        reads.push(serializable(3));
        assert!(ready(&mut reads, 100, |_| false).is_empty());
        let id = reads.ask(Mono(0)).unwrap();
        reads.answered(id, Some(7), Mono(0));
        assert_eq!(ready(&mut reads, 7, |_| false), [2, 3]);
    }

    /// A deadline that is over and cannot be met would keep the loop awake.
    #[test]
    fn nothing_is_due_while_nobody_can_be_asked() {
        let mut reads = Reads::new(10);
        reads.push(read(1, None));
        assert_eq!(reads.deadline(50, true, |_| false), Mono(0));
        assert_eq!(reads.deadline(50, false, |_| false), Mono(1_000), "the read gives up then");
        for tag in 0..ATTEMPTS_MAX as u64 {
            assert!(reads.ask(Mono(20)).is_some());
            reads.push(read(tag, None));
        }
        assert_eq!(reads.deadline(50, true, |_| false), Mono(70), "the first attempt is given up then");
    }

    #[test]
    fn a_failed_attempt_waits_before_the_next() {
        let mut reads = Reads::new(10);
        reads.push(read(1, None));
        let id = reads.ask(Mono(0)).unwrap();
        reads.answered(id, None, Mono(50));
        assert_eq!(reads.ask(Mono(49)), None);
        assert!(reads.ask(Mono(50)).is_some());
        assert_eq!(tags(&reads.expired(Mono(1_000))), [1]);
    }
}
