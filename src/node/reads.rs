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

use std::collections::{BTreeMap, VecDeque};

use crate::api::{ConnId, Range, Tag};
use crate::base::planted;
use crate::base::{Index, MemberId, Mono, time::Nanos};

#[derive(Clone, Debug)]
pub(super) enum Question {
    Range(Range),
    Members,
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

#[derive(Debug)]
struct Asked {
    id: u64,
    at: Mono,
    reads: Vec<Read>,
}

#[derive(Debug)]
pub(super) struct Reads {
    next_id: u64,
    /// No index asked for yet (or no longer).
    fresh: Vec<Read>,
    asked: VecDeque<Asked>,
    /// The index is known.
    indexed: VecDeque<(Index, Vec<Read>)>,
    /// Attempts that other members asked this one for, as leader: our id to their name and id.
    remote: BTreeMap<u64, (MemberId, u64)>,
    waiting: usize,
    /// How many reads of each connection wait.
    waiting_of: BTreeMap<ConnId, usize>,
    /// Open writes that a connection sent while reads of it waited.
    followers: BTreeMap<u64, ConnId>,
    /// Not before this time, after an attempt failed.
    retry_at: Mono,
}

/// How many attempts may be under way. More would only split what can share one.
const ATTEMPTS_MAX: usize = 4;

/// Answers to other members that may be pending; beyond it they are told to ask again.
const REMOTE_MAX: usize = 4_096;

impl Reads {
    pub(super) fn new(first_id: u64) -> Reads {
        Reads {
            next_id: first_id,
            fresh: Vec::new(),
            asked: VecDeque::new(),
            indexed: VecDeque::new(),
            remote: BTreeMap::new(),
            waiting: 0,
            waiting_of: BTreeMap::new(),
            followers: BTreeMap::new(),
            retry_at: Mono(0),
        }
    }

    pub(super) fn push(&mut self, read: Read) {
        self.waiting += 1;
        *self.waiting_of.entry(read.conn).or_default() += 1;
        self.fresh.push(read);
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The id of a new attempt if one should be made now. The caller asks the leader for it.
    pub(super) fn ask(&mut self, now: Mono) -> Option<u64> {
        if self.fresh.is_empty() || self.asked.len() >= ATTEMPTS_MAX || now < self.retry_at {
            return None;
        }
        let id = self.take_id();
        self.asked.push_back(Asked { id, at: now, reads: std::mem::take(&mut self.fresh) });
        Some(id)
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
        self.extract(|read| read.conn == conn);
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
        let Some(conn) = self.followers.remove(&write) else { return Vec::new() };
        self.extract(|read| {
            read.conn == conn && read.next_write <= write && !read.after.is_some_and(&is_open)
        })
    }

    /// Takes out all reads, wherever they wait, that `is_out` points at.
    fn extract(&mut self, is_out: impl Fn(&Read) -> bool) -> Vec<Read> {
        let mut out = Vec::new();
        let groups = self.asked.iter_mut().map(|asked| &mut asked.reads);
        let groups = groups.chain(self.indexed.iter_mut().map(|(_, reads)| reads));
        for reads in groups.chain([&mut self.fresh]) {
            out.extend(reads.extract_if(.., |read| is_out(read)));
        }
        self.indexed.retain(|(_, reads)| !reads.is_empty());
        self.count_out(&out);
        out
    }

    fn count_out(&mut self, out: &[Read]) {
        self.waiting -= out.len();
        for read in out {
            let count = self.waiting_of.get_mut(&read.conn).expect("every waiting read is counted");
            *count -= 1;
            if *count == 0 {
                self.waiting_of.remove(&read.conn);
            }
        }
    }

    /// Whose attempt this was, if it was another member's.
    pub(super) fn take_remote(&mut self, id: u64) -> Option<(MemberId, u64)> {
        self.remote.remove(&id)
    }

    fn take_id(&mut self) -> u64 {
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
            Some(index) => self.indexed.push_back((index, asked.reads)),
            None => {
                self.fresh.extend(asked.reads);
                self.retry_at = retry_at;
            }
        }
    }

    /// Attempts that nobody answered are made again under a new id.
    pub(super) fn give_up_attempts(&mut self, asked_before: Mono) {
        while self.asked.front().is_some_and(|asked| asked.at <= asked_before) {
            let asked = self.asked.pop_front().expect("the front was just seen");
            self.fresh.extend(asked.reads);
        }
    }

    /// Reads that may be served at `applied`, given which writes are still open.
    pub(super) fn ready(&mut self, applied: Index, is_open: impl Fn(u64) -> bool) -> Vec<Read> {
        let mut ready = Vec::new();
        for (index, reads) in &mut self.indexed {
            if *index > applied && !planted::on("node-read-before-applied") {
                continue;
            }
            let (blocked, free): (Vec<Read>, Vec<Read>) =
                std::mem::take(reads).into_iter().partition(|read| read.after.is_some_and(&is_open));
            *reads = blocked;
            ready.extend(free);
        }
        self.indexed.retain(|(_, reads)| !reads.is_empty());
        self.count_out(&ready);
        ready
    }

    /// Reads whose deadline has passed.
    pub(super) fn expired(&mut self, now: Mono) -> Vec<Read> {
        self.extract(|read| read.deadline <= now)
    }

    /// When [`give_up_attempts`](Self::give_up_attempts), [`ask`](Self::ask) or [`expired`](Self::expired)
    /// should be called again. `may_ask`: somebody is known who could answer.
    pub(super) fn deadline(&self, patience: Nanos, may_ask: bool) -> Mono {
        if self.waiting == 0 {
            return Mono::NEVER;
        }
        let attempt = self.asked.front().map_or(Mono::NEVER, |asked| asked.at + patience);
        let asks = !self.fresh.is_empty() && may_ask && self.asked.len() < ATTEMPTS_MAX;
        let retry = if asks { self.retry_at } else { Mono::NEVER };
        let oldest =
            [self.asked.front().map(|asked| &asked.reads), self.indexed.front().map(|(_, reads)| reads)];
        let oldest = oldest.into_iter().flatten().chain([&self.fresh]).filter_map(|reads| reads.first());
        let expiry = oldest.map(|read| read.deadline).min().unwrap_or(Mono::NEVER);
        attempt.min(retry).min(expiry)
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
        assert!(reads.ready(100, |_| false).is_empty());
        reads.answered(second, Some(7), Mono(0));
        assert!(reads.ready(6, |_| false).is_empty(), "index 7 is not applied yet");
        assert_eq!(tags(&reads.ready(7, |_| false)), [1]);
        assert_eq!(reads.waiting(), 0);
    }

    #[test]
    fn a_read_waits_for_the_write_before_it_and_delays_no_other() {
        let mut reads = Reads::new(10);
        reads.push(read(1, Some(55)));
        reads.push(read(2, None));
        let id = reads.ask(Mono(0)).unwrap();
        reads.answered(id, Some(0), Mono(0));
        assert_eq!(tags(&reads.ready(0, |_| true)), [2]);
        assert_eq!(tags(&reads.ready(0, |_| false)), [1]);
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
        assert_eq!(tags(&reads.ready(0, |_| false)), [2, 3]);
        assert!(reads.waiting_of.is_empty());
    }

    /// A deadline that is over and cannot be met would keep the loop awake.
    #[test]
    fn nothing_is_due_while_nobody_can_be_asked() {
        let mut reads = Reads::new(10);
        reads.push(read(1, None));
        assert_eq!(reads.deadline(50, true), Mono(0));
        assert_eq!(reads.deadline(50, false), Mono(1_000), "the read gives up then");
        for tag in 0..ATTEMPTS_MAX as u64 {
            assert!(reads.ask(Mono(20)).is_some());
            reads.push(read(tag, None));
        }
        assert_eq!(reads.deadline(50, true), Mono(70), "the first attempt is given up then");
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
