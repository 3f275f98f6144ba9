//! Ranges under way: large answers go out in parts, one part of a connection after the other.
//!
//! A range is read as of the revision at which its turn came, so it does not matter how long its client takes for the
//! answer: writes go on. What waits here is a position in the store, never an answer; a client that takes nothing
//! costs that much. Its other reads wait behind it ([`Reads::hold`]), or their answers would pile up, and so do its
//! watches, which may not speak between two parts.
//!
//! Each turn has a budget for all ranges together, and they take their parts in rotation: a heartbeat, or a request for
//! one key, waits for one turn at most. A small range is whole in its first part, and is never kept here.
//!
//! While writes are under way, such turns keep a distance ([`Parts`]). Without it this member works all the time, and what it
//! makes keeps the range's reader busy, too; where the cores are few, what the writes need (the log's thread, other members,
//! their clients) then waits for a core, and that took longer than all parts.
//!
//! Left out: a compaction that takes away the revision of a range under way does not wait for it. A range of now of which
//! nothing has been sent begins anew; any other ends with an error, and its connection with it.
//!
//! [`Reads::hold`]: super::reads::Reads::hold

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Node;
use super::watches::Why;
use crate::api::{Body, ConnId, Fault, Header, Range, Reply, Tag};
use crate::base::time::{MS, Nanos};
use crate::base::{Mono, Revision, planted};
use crate::io::Disk;
use crate::store::{Budget, Reading};

/// What a part may cost, and all parts of a turn together.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Where no write is under way.
    pub alone: Budget,
    /// Beside writes. One takes several turns on its way, so it waits for as many of these.
    pub beside_writes: Budget,
    /// Beside writes, from one turn with parts to the next. First parts do not rest: a get is one.
    pub rest: Nanos,
}

/// Less than a millisecond of work.
pub const PARTS: Parts = Parts {
    alone: Budget { keys: 1_024, bytes: 256 << 10 },
    beside_writes: Budget { keys: 512, bytes: 128 << 10 },
    rest: MS,
};

#[derive(Debug)]
pub(super) struct Stream {
    tag: Tag,
    reading: Reading,
    /// It reads what is now, and is as of the revision that is read.
    of_now: bool,
    /// Which one that is, once something of it was told.
    revision: Option<Revision>,
}

#[derive(Debug)]
pub(super) struct Streams {
    parts: Parts,
    /// What this turn may still cost.
    left: Budget,
    /// No range goes on before.
    rests_until: Mono,
    /// Of each connection, the oldest first.
    all: BTreeMap<ConnId, VecDeque<Stream>>,
    count: usize,
    /// Connections in the order of their turns, perhaps some that have nothing to wait for.
    rotation: VecDeque<ConnId>,
    /// Connections whose clients do not take what they are sent.
    held: BTreeSet<ConnId>,
}

impl Streams {
    pub(super) fn new(parts: Parts) -> Streams {
        Streams {
            parts,
            left: parts.alone,
            rests_until: Mono(0),
            all: BTreeMap::new(),
            count: 0,
            rotation: VecDeque::new(),
            held: BTreeSet::new(),
        }
    }

    pub(super) fn begin_turn(&mut self, beside_writes: bool) {
        self.left = if beside_writes { self.parts.beside_writes } else { self.parts.alone };
    }

    fn is_spent(&self) -> bool {
        self.left.keys == 0 || self.left.bytes == 0
    }

    /// Whether ranges of this connection are under way.
    pub(super) fn has(&self, conn: ConnId) -> bool {
        self.all.contains_key(&conn)
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether a turn has something to do here.
    pub(super) fn has_turns(&self, now: Mono) -> bool {
        !self.rotation.is_empty() && self.rests_until <= now
    }

    /// When a turn has something to do here that this one has not.
    fn deadline(&self, now: Mono) -> Mono {
        let waits = !self.rotation.is_empty() && self.rests_until > now;
        if waits { self.rests_until } else { Mono::NEVER }
    }

    fn push(&mut self, conn: ConnId, stream: Stream) {
        let queue = self.all.entry(conn).or_default();
        if queue.is_empty() && !self.held.contains(&conn) {
            self.rotation.push_back(conn);
        }
        queue.push_back(stream);
        self.count += 1;
    }

    /// The next range that may have a part, taken out.
    fn take_next(&mut self) -> Option<(ConnId, Stream)> {
        while let Some(conn) = self.rotation.pop_front() {
            if !self.held.contains(&conn)
                && let Some(stream) = self.all.get_mut(&conn).and_then(VecDeque::pop_front)
            {
                self.count -= 1;
                return Some((conn, stream));
            }
        }
        None
    }

    /// What is left of it goes back to the front. False if the connection has nothing more to come.
    fn put_back(&mut self, conn: ConnId, rest: Option<Stream>) -> bool {
        let queue = self.all.entry(conn).or_default();
        self.count += usize::from(rest.is_some());
        rest.into_iter().for_each(|stream| queue.push_front(stream));
        if queue.is_empty() {
            self.all.remove(&conn);
            return false;
        }
        self.rotation.push_back(conn);
        true
    }

    pub(super) fn hold(&mut self, conn: ConnId) {
        self.held.insert(conn);
    }

    /// The client takes its answers again. Whether it has some to come.
    pub(super) fn release(&mut self, conn: ConnId) -> bool {
        let waits = self.held.remove(&conn) && self.has(conn);
        if waits && !self.rotation.contains(&conn) {
            self.rotation.push_back(conn);
        }
        waits
    }

    pub(super) fn is_held(&self, conn: ConnId) -> bool {
        self.held.contains(&conn)
    }

    pub(super) fn forget(&mut self, conn: ConnId) {
        self.count -= self.all.remove(&conn).map_or(0, |queue| queue.len());
        self.held.remove(&conn);
    }
}

impl<D: Disk> Node<D> {
    /// Answers a range, the first part of it now if the turn allows.
    pub(super) fn answer_range(&mut self, conn: ConnId, tag: Tag, range: &Range) {
        self.tally.counts.ranges += 1;
        let reading = match self.store.begin_range(range) {
            Ok(reading) => reading,
            Err(fault) => return self.fail(conn, tag, fault),
        };
        let of_now = range.revision == 0 && !planted::on("node-range-told-of-a-later-revision");
        let stream = Stream { tag, reading, of_now, revision: None };
        if self.streams.has(conn) || self.streams.is_held(conn) || self.streams.is_spent() {
            self.keep_stream(conn, stream);
        } else if let Some(stream) = self.read_part(conn, stream) {
            self.keep_stream(conn, stream);
        }
    }

    fn keep_stream(&mut self, conn: ConnId, stream: Stream) {
        self.reads.hold(conn);
        if !planted::on("watch-pushes-between-parts") {
            self.watches.hold(conn, Why::Range);
        }
        self.streams.push(conn, stream);
    }

    /// Gives ranges under way their parts.
    pub(super) fn serve_streams(&mut self) {
        if self.snapshots.installing() || !self.streams.has_turns(self.now) {
            return;
        }
        if self.has_writes_under_way() {
            self.streams.rests_until = self.now + self.streams.parts.rest;
        }
        while !self.streams.is_spent() && self.failure.is_none() {
            let Some((conn, stream)) = self.streams.take_next() else { return };
            let rest = self.read_part(conn, stream);
            if self.streams.put_back(conn, rest) {
                continue;
            }
            self.watches.release(conn, Why::Range);
            if !self.streams.is_held(conn) {
                self.reads.release(conn);
            }
        }
    }

    /// This member's log has what is not applied yet.
    pub(super) fn has_writes_under_way(&self) -> bool {
        self.log.last().index > self.store.applied().index
    }

    pub(super) fn streams_deadline(&self) -> Mono {
        if self.snapshots.installing() { Mono::NEVER } else { self.streams.deadline(self.now) }
    }

    /// Replies with the next part of a range; the rest of it, if there is more.
    fn read_part(&mut self, conn: ConnId, mut stream: Stream) -> Option<Stream> {
        let read = self.store.read_part(&mut stream.reading, &mut self.streams.left);
        let tag = stream.tag;
        match read.map(|part| part.map(|part| part.whole())) {
            Ok(Ok(Ok(result))) => {
                let header = self.header_of(&stream, result.revision);
                self.output.replies.push(Reply { conn, tag, header, body: Body::Range(result), more: false });
            }
            Ok(Ok(Err(part))) => {
                let more = !part.last;
                stream.revision = part.head.map(|head| head.revision).or(stream.revision);
                if part.head.is_some() || !part.kvs.is_empty() || part.last {
                    let header = self.header_of(&stream, stream.revision.unwrap_or_default());
                    self.output.replies.push(Reply { conn, tag, header, body: Body::RangePart(part), more });
                }
                return more.then_some(stream);
            }
            Ok(Err(fault)) => self.fail(conn, tag, fault),
            Err(damage) => self.fail_for_damage(conn, tag, damage),
        }
        None
    }

    /// Whoever reads what is now, and watches from the revision in the header on, must miss nothing: while it was read, the
    /// store may have gone on.
    fn header_of(&self, stream: &Stream, read: Revision) -> Header {
        let header = self.header();
        if stream.of_now { Header { revision: read, ..header } } else { header }
    }

    /// Nothing more of them is sent.
    pub(super) fn end_streams(&mut self, fault: &Fault) {
        self.streams.count = 0;
        for (conn, queue) in std::mem::take(&mut self.streams.all) {
            self.watches.release(conn, Why::Range);
            for stream in queue {
                self.fail(conn, stream.tag, fault.clone());
            }
        }
    }
}
