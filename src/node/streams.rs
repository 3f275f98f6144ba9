//! Ranges under way: large answers go out in parts, one part of a connection after the other. So do hashes and copies of the
//! whole state.
//!
//! A range is read as of the revision at which its turn came, so it does not matter how long its client takes for the
//! answer: writes go on. What waits here is a position in the store, never an answer; a client that takes nothing
//! costs that much. Its other reads wait behind it ([`Reads::hold`]), or their answers would pile up, and so do its
//! watches, which may not speak between two parts.
//!
//! Each turn has a budget for all ranges under way, and they take their parts in rotation: a heartbeat, or a request for
//! one key, waits for a turn or two. First parts have a budget of the same size to themselves. A small range is whole in its
//! first part, and is kept here only where that budget was spent. With one budget for both, a thousand clients who ask for a
//! key each spent it anew in every turn, and whoever waited here once went on waiting: one get in a thousand for a second.
//!
//! While writes are under way, such turns keep a distance ([`Parts`]). Without it this member works all the time, and what it
//! makes keeps the range's reader busy, too; where the cores are few, what the writes need (the log's thread, other members,
//! their clients) then waits for a core, and that took longer than all parts.
//!
//! A copy of the state, and the hash of one, are of a pinned state of the tree, which keeps its pages until the end. So there may
//! be [`PINNED_MAX`] of them, and who takes nothing of one for [`PATIENCE`] has had it.
//!
//! Left out: a compaction that takes away the revision of a range under way does not wait for it. A range of now of which
//! nothing has been sent begins anew; any other ends with an error, and where a part is out, its connection with it. The error
//! is COMPACTED, but of a range of now TIMEOUT.
//!
//! [`Reads::hold`]: super::reads::Reads::hold

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Node;
use super::reads::{Question, Whole};
use super::snapshot_file::{Piece, SnapshotFile, WholeHash};
use super::watches::Why;
use crate::api::{Body, Code, ConnId, Fault, Header, Range, Reply, Tag};
use crate::base::time::{MS, Nanos, SECOND};
use crate::base::{Mono, Revision, planted};
use crate::io::Disk;
use crate::store::{Budget, HashKv, HashingKv, Reading};

/// What a part may cost, and together all first parts of a turn, or all others.
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

/// Copies of the state and hashes of them that may be under way.
const PINNED_MAX: usize = 4;

/// A reader of one that takes nothing for so long is given up.
const PATIENCE: Nanos = 60 * SECOND;

#[derive(Debug)]
pub(super) struct Stream {
    tag: Tag,
    work: Work,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "each get makes a range, and shall not allocate for it")]
enum Work {
    Range(RangeWork),
    HashKv(Box<HashingKv>),
    Pinned { what: Pinned, moved_at: Mono },
}

#[derive(Debug)]
struct RangeWork {
    reading: Reading,
    /// It reads what is now, and is as of the revision that is read.
    of_now: bool,
    /// Which one that is, once something of it was told.
    revision: Option<Revision>,
}

#[derive(Debug)]
enum Pinned {
    File(Box<SnapshotFile>),
    Hash(Box<WholeHash>),
}

impl Stream {
    /// When it is given up, if nothing of it is taken.
    fn patience(&self) -> Mono {
        if let Work::Pinned { moved_at, .. } = &self.work { *moved_at + PATIENCE } else { Mono::NEVER }
    }

    fn is_pinned(&self) -> bool {
        matches!(self.work, Work::Pinned { .. })
    }
}

#[derive(Debug)]
pub(super) struct Streams {
    parts: Parts,
    /// What first parts may still cost, and while ranges under way are served, what they may.
    left: Budget,
    /// No range goes on before.
    rests_until: Mono,
    /// Of each connection, the oldest first.
    all: BTreeMap<ConnId, VecDeque<Stream>>,
    count: usize,
    /// Those of a pinned state.
    pinned: usize,
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
            pinned: 0,
            rotation: VecDeque::new(),
            held: BTreeSet::new(),
        }
    }

    pub(super) fn renew_budget(&mut self, beside_writes: bool) {
        self.left = if beside_writes { self.parts.beside_writes } else { self.parts.alone };
    }

    /// No range of this connection may begin now.
    fn must_wait(&self, conn: ConnId) -> bool {
        self.has(conn) || self.is_held(conn) || self.is_spent()
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
        let part = if waits { self.rests_until } else { Mono::NEVER };
        part.min(self.pinned().map(Stream::patience).min().unwrap_or(Mono::NEVER))
    }

    fn pinned(&self) -> impl Iterator<Item = &Stream> {
        let all = if self.pinned == 0 { None } else { Some(self.all.values().flatten()) };
        all.into_iter().flatten().filter(|stream| stream.is_pinned())
    }

    /// Takes out those of which this is true.
    fn take_pinned(&mut self, is_wanted: impl Fn(&Stream) -> bool) -> Vec<(ConnId, Stream)> {
        let mut taken = Vec::new();
        if self.pinned == 0 {
            return taken;
        }
        for (&conn, queue) in &mut self.all {
            while let Some(at) = queue.iter().position(|stream| stream.is_pinned() && is_wanted(stream)) {
                taken.extend(queue.remove(at).map(|stream| (conn, stream)));
            }
        }
        self.count -= taken.len();
        taken
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

    fn forget(&mut self, conn: ConnId) -> VecDeque<Stream> {
        let queue = self.all.remove(&conn).unwrap_or_default();
        self.count -= queue.len();
        self.held.remove(&conn);
        queue
    }
}

impl<D: Disk> Node<D> {
    /// Answers a range, the first part of it now if the turn allows.
    pub(super) fn answer_range(&mut self, conn: ConnId, tag: Tag, range: &Range) {
        self.tally.counts.ranges += 1;
        if !self.streams.must_wait(conn)
            && let Some(read) = self.store.get(range, &mut self.streams.left)
        {
            return match read {
                Ok(result) => self.reply(conn, tag, Body::Range(result)),
                Err(damage) => self.fail_for_damage(conn, tag, damage),
            };
        }
        let reading = match self.store.begin_range(range) {
            Ok(reading) => reading,
            Err(fault) => return self.fail(conn, tag, fault),
        };
        let of_now = range.revision == 0 && !planted::on("node-range-told-of-a-later-revision");
        self.begin_stream(
            conn,
            Stream { tag, work: Work::Range(RangeWork { reading, of_now, revision: None }) },
        );
    }

    /// Asks for what goes through the whole state; it is this member's, so nobody need be asked.
    pub(super) fn ask_whole(&mut self, conn: ConnId, tag: Tag, whole: Whole, (now, deadline): (Mono, Mono)) {
        if self.may_read_now(conn, true, now) {
            self.now = self.now.max(now);
            self.answer_whole(conn, tag, whole);
        } else {
            self.wait_to_read(conn, tag, Question::Whole(whole), deadline);
        }
    }

    pub(super) fn answer_whole(&mut self, conn: ConnId, tag: Tag, whole: Whole) {
        let work = match whole {
            Whole::HashKv(revision) => match self.store.begin_hash_kv(revision) {
                Ok(hashing) => Work::HashKv(Box::new(hashing)),
                Err(fault) => return self.fail(conn, tag, fault),
            },
            _ if self.streams.pinned >= PINNED_MAX || self.snapshots.installing() => {
                return self.fail(conn, tag, Fault::busy());
            }
            Whole::Snapshot | Whole::Hash => {
                self.streams.pinned += 1;
                let snapshot = self.store.pin();
                let what = match whole {
                    Whole::Hash => Pinned::Hash(Box::new(WholeHash::new(snapshot))),
                    _ => Pinned::File(Box::new(SnapshotFile::new(snapshot))),
                };
                Work::Pinned { what, moved_at: self.now }
            }
        };
        self.begin_stream(conn, Stream { tag, work });
    }

    fn begin_stream(&mut self, conn: ConnId, stream: Stream) {
        if self.streams.must_wait(conn) {
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
        let late = self.streams.take_pinned(|stream| stream.patience() <= self.now);
        self.end_taken(late, &Fault::timeout());
        if self.snapshots.installing() || !self.streams.has_turns(self.now) {
            return;
        }
        let beside_writes = self.has_writes_under_way();
        if beside_writes {
            self.streams.rests_until = self.now + self.streams.parts.rest;
        }
        self.streams.renew_budget(beside_writes);
        while !self.streams.is_spent() && self.failure.is_none() {
            let Some((conn, stream)) = self.streams.take_next() else { return };
            let rest = self.read_part(conn, stream);
            self.put_stream_back(conn, rest);
        }
    }

    fn put_stream_back(&mut self, conn: ConnId, rest: Option<Stream>) {
        if self.streams.put_back(conn, rest) {
            return;
        }
        self.watches.release(conn, Why::Range);
        if !self.streams.is_held(conn) {
            self.reads.release(conn);
        }
    }

    /// This member's log has what is not applied yet.
    pub(super) fn has_writes_under_way(&self) -> bool {
        self.log.last().index > self.store.applied().index
    }

    pub(super) fn streams_deadline(&self) -> Mono {
        if self.snapshots.installing() { Mono::NEVER } else { self.streams.deadline(self.now) }
    }

    /// Replies with the next part of an answer; the rest of it, if there is more.
    fn read_part(&mut self, conn: ConnId, stream: Stream) -> Option<Stream> {
        let tag = stream.tag;
        let rest = match stream.work {
            Work::Range(work) => self.read_range_part(conn, tag, work).map(Work::Range),
            Work::HashKv(work) => self.hash_part(conn, tag, work).map(Work::HashKv),
            Work::Pinned { what, .. } => {
                let moved_at = self.now;
                self.pinned_part(conn, tag, what).map(|what| Work::Pinned { what, moved_at })
            }
        };
        rest.map(|work| Stream { tag, work })
    }

    fn hash_part(&mut self, conn: ConnId, tag: Tag, mut work: Box<HashingKv>) -> Option<Box<HashingKv>> {
        match self.store.hash_kv_part(&mut work, &mut self.streams.left) {
            Ok(Ok(None)) => return Some(work),
            Ok(Ok(Some(HashKv { hash, revision, compact_revision }))) => {
                self.reply(conn, tag, Body::HashKv { hash, revision, compact_revision });
            }
            Ok(Err(fault)) => self.fail(conn, tag, fault),
            Err(damage) => self.fail_for_damage(conn, tag, damage),
        }
        None
    }

    fn pinned_part(&mut self, conn: ConnId, tag: Tag, mut what: Pinned) -> Option<Pinned> {
        let Node { store, streams, .. } = self;
        let done = match &mut what {
            Pinned::Hash(hash) => hash.part(store, &mut streams.left).map(|hash| hash.map(Body::Hash)),
            Pinned::File(file) => file.part(store, &mut streams.left).map(|piece| {
                piece.map(|Piece { bytes, remaining_bytes }| Body::SnapshotPart { bytes, remaining_bytes })
            }),
        };
        let is_over = match (&what, done) {
            (_, Ok(None)) => false,
            (_, Err(damage)) => {
                self.fail_for_damage(conn, tag, damage);
                true
            }
            (what, Ok(Some(body))) => {
                let more = matches!(what, Pinned::File(file) if !file.is_over());
                let header = self.header();
                self.output.replies.push(Reply { conn, tag, header, body, more });
                !more
            }
        };
        if is_over {
            self.unpin(what);
            return None;
        }
        Some(what)
    }

    fn unpin(&mut self, what: Pinned) {
        self.streams.pinned -= 1;
        self.store.unpin(match what {
            Pinned::Hash(hash) => hash.into_snapshot(),
            Pinned::File(file) => file.into_snapshot(),
        });
    }

    fn unpin_stream(&mut self, stream: Stream) {
        if let Work::Pinned { what, .. } = stream.work {
            self.unpin(what);
        }
    }

    fn end_taken(&mut self, taken: Vec<(ConnId, Stream)>, fault: &Fault) {
        for (conn, stream) in taken {
            self.fail(conn, stream.tag, fault.clone());
            self.unpin_stream(stream);
            self.put_stream_back(conn, None);
        }
    }

    /// The tree that they are of is about to go.
    pub(super) fn end_pinned_streams(&mut self, fault: &Fault) {
        let all = self.streams.take_pinned(|_| true);
        self.end_taken(all, fault);
    }

    pub(super) fn forget_streams(&mut self, conn: ConnId) {
        for stream in self.streams.forget(conn) {
            self.unpin_stream(stream);
        }
    }

    fn read_range_part(&mut self, conn: ConnId, tag: Tag, mut stream: RangeWork) -> Option<RangeWork> {
        let read = self.store.read_part(&mut stream.reading, &mut self.streams.left);
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
            // Nobody who asked for what is now shall hear that it is too old; to ask again helps, and clients do.
            Ok(Err(fault)) if stream.of_now && fault.code == Code::Compacted => {
                self.fail(conn, tag, Fault::timeout());
            }
            Ok(Err(fault)) => self.fail(conn, tag, fault),
            Err(damage) => self.fail_for_damage(conn, tag, damage),
        }
        None
    }

    /// Whoever reads what is now, and watches from the revision in the header on, must miss nothing: while it was read, the
    /// store may have gone on.
    fn header_of(&self, stream: &RangeWork, read: Revision) -> Header {
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
                self.unpin_stream(stream);
            }
        }
    }
}
