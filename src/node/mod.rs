//! One member: Raft, log, store and the requests in flight, joined. Still no sockets, no clock, no threads.
//!
//! The shell feeds events in ([`Node::on_call`], [`Node::on_message`], ...), then takes one [`Node::turn`], then
//! does what the [`Output`] says: sends, hands batches to the log writer, jobs to the housekeeper, replies to
//! connections. Everything that may block is in those batches and jobs; they come back as values. The simulator
//! does the same with simulated edges, so it runs this very code.
//!
//! Promises kept here:
//! - A message that claims durability (a vote, an acknowledgement) is held until the batch that it depends
//!   on is on disk. The core says which ones: `Ready::messages_after`.
//! - A client is answered when this member has applied its write, which is after a quorum has it on disk.
//! - Segments of the log go only below what the *older* of the tree's two meta pages covers, so that a
//!   damaged newest meta page still finds its log.

mod agreement;
mod auto_compaction;
mod compaction;
mod health;
mod lease_clock;
#[cfg(test)]
mod lease_tests;
mod leases;
#[cfg(test)]
mod lock_tests;
mod locks;
mod members;
mod metrics;
#[cfg(feature = "sim")]
mod misapply;
mod promise;
mod quota;
mod reads;
mod repair;
mod room;
#[cfg(test)]
mod rule_tests;
mod small_file;
mod snapshot_file;
mod snapshots;
mod startup;
mod status;
mod streams;
mod turn;
mod waiters;
mod watches;
mod writes;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use bytes::BytesMut;

use crate::api::{
    AlarmKind, Body, Call, Command, ConnId, Fault, Header, Member, Origin, PeerCall, Reply, Request, Tag,
    command,
};
use crate::base::planted;
use crate::base::time::{MS, Nanos, SECOND};
use crate::base::{ClusterId, Error, MemberId, Mono, Result, Term};
use crate::io::Disk;
use crate::raft::{Entry, HardState, MessageBody, Raft};
use crate::store::{Checkpoint, CheckpointDone, Store};
use crate::wal::{Chore, ChoreDone, Log};

use agreement::{Agreement, Trust};
use auto_compaction::AutoCompaction;
use compaction::Sweeper;
use health::HealthWatch;
use leases::Leases;
use locks::Locks;
use members::NotProposed;
use metrics::Tally;
use reads::{Question, Read, Reads, Whole};
use repair::Repair;
use room::Room;
use snapshots::Snapshots;
use streams::Streams;
use watches::Watches;
use writes::{Asker, Writes};

/// What the shell carries between its threads and members without looking inside.
pub use crate::raft::Message;
pub use crate::store::Budget;
pub use crate::wal::{Batch, LogWriter, Written};
pub use auto_compaction::{REVISIONS_EVERY, Retention};
pub use compaction::{SWEEP_PAUSE, SWEEP_WORK_MAX};
pub use members::Rules;
pub use snapshot_file::FileCheck;
pub use startup::{Bootstrap, Opened, lock_path, tree_path};
pub use streams::{PARTS, Parts};
pub use watches::WATCH_WORK;

/// The settings of one member that matter behind the sockets.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    pub client_urls: Vec<String>,
    /// Where the tree file lives, and the segments.
    pub tree_dir: PathBuf,
    pub wal_dir: PathBuf,
    pub wal_segment_bytes: u64,
    /// Of a page of a new tree file.
    pub tree_page_bytes: usize,
    pub heartbeat_interval: Nanos,
    pub election_timeout: Nanos,
    pub pre_vote: bool,
    pub lease_reads: bool,
    /// Entries kept in the log behind the applied index.
    pub catchup_entries: u64,
    /// Applied entries after which a checkpoint is due.
    pub checkpoint_entries: u64,
    /// Changes that a turn sweeps behind a compaction, at most.
    pub sweep_work_max: usize,
    /// How much history is kept; None: all, until somebody asks for a compaction.
    pub retention: Option<Retention>,
    /// Bytes in use, at the leader, at which puts are refused.
    pub quota_bytes: Option<u64>,
    /// What one part of a range's answer may cost.
    pub range_parts: Parts,
    pub members: Rules,
    /// Between two notices of progress to a watch that asked for them.
    pub watch_progress_interval: Nanos,
    /// How much is done for watches in a turn: changes that are looked at, and some more for each that is told. A
    /// simulation wants it small.
    pub watch_work: usize,
}

impl Config {
    /// etcd's rule: five seconds, and time for two elections.
    fn request_timeout(&self) -> Nanos {
        5 * SECOND + 2 * self.election_timeout
    }
}

/// Dirty pages in memory at which a checkpoint is due.
const CHECKPOINT_DIRTY_BYTES: u64 = 12 << 20;

/// Dirty pages beside those that a checkpoint is writing: with so many, entries wait to be applied. So twice this
/// much is what changed pages take up at most. Twice as much again makes puts of random keys a sixth faster.
const DIRTY_BYTES_MAX: u64 = 16 << 20;

/// So many there may be of them before the checkpoint has got anywhere; the rest of the room is opened as it gets on.
const DIRTY_BYTES_MIN: u64 = 2 << 20;

/// A checkpoint is due this long after the first change, however small: a restart then replays little.
const CHECKPOINT_AFTER: Nanos = 5 * SECOND;

/// Requests that may wait, and their bytes: beyond it clients are told `BUSY`.
const WAITING_MAX: usize = 64 << 10;
const WAITING_BYTES_MAX: usize = 256 << 20;

/// Entries applied in one turn: about a millisecond of work.
const APPLY_ENTRIES_MAX: usize = 2_048;

/// Work for the housekeeping thread.
pub enum Job<D: Disk> {
    Chore(Chore<D>),
    Checkpoint(Checkpoint<D>),
    Snapshot(snapshots::Work<D>),
    /// A repair is over.
    Unmark(repair::Unmark<D>),
    /// Long promises have run out.
    Promise(promise::Record<D>),
}

/// Its results.
pub enum Done {
    Chore(ChoreDone),
    Checkpoint(CheckpointDone),
    /// Nothing is lost: the log has what the checkpoint would have made durable.
    CheckpointLacksRoom(Error),
    Snapshot(snapshots::WorkDone),
    Unmarked,
    PromiseRecorded,
}

impl<D: Disk> Job<D> {
    /// Blocks. Runs on the housekeeping thread, jobs in the order in which they were given. After `advanced` another turn
    /// may find something to do.
    pub fn run(self, advanced: &dyn Fn()) -> Result<Done> {
        match self {
            Job::Chore(chore) => Ok(Done::Chore(chore.run())),
            Job::Checkpoint(checkpoint) => match checkpoint.run(advanced) {
                Err(failure) if failure.is_no_space() => Ok(Done::CheckpointLacksRoom(failure)),
                ended => ended.map(Done::Checkpoint),
            },
            Job::Snapshot(work) => Ok(Done::Snapshot(work.run())),
            Job::Unmark(unmark) => unmark.run().map(|()| Done::Unmarked),
            // Not recorded is no harm: the next start waits longer.
            Job::Promise(record) => {
                Ok(record.run().map_or(Done::PromiseRecorded, |()| Done::PromiseRecorded))
            }
        }
    }
}

/// A message for another member.
#[derive(Clone, Debug)]
pub enum Outbound {
    Raft(Message),
    Call { to: MemberId, call: PeerCall },
}

impl Outbound {
    pub fn to(&self) -> MemberId {
        match self {
            Outbound::Raft(message) => message.to,
            Outbound::Call { to, .. } => *to,
        }
    }
}

/// What one turn wants done.
pub struct Output<D: Disk> {
    pub replies: Vec<Reply>,
    pub messages: Vec<Outbound>,
    /// For the log writer, which is idle: all of these with one sync.
    pub batches: Vec<Batch>,
    pub jobs: Vec<Job<D>>,
    /// [`Node::members`] differs from what it was.
    pub members_changed: bool,
    /// There is more to do than one turn should: take another one at once.
    pub again: bool,
}

/// One member of the cluster.
pub struct Node<D: Disk> {
    config: Config,
    cluster: ClusterId,
    id: MemberId,
    now: Mono,
    raft: Raft,
    log: Log<D>,
    store: Store<D>,
    writes: Writes,
    reads: Reads,
    streams: Streams,
    watches: Watches,
    health: HealthWatch,
    /// When this member last led, or heard from who leads.
    led_at: Mono,
    leases: Leases,
    locks: Locks,
    /// The number of the last proposal sent, and the last one taken from each member's connection.
    proposal_number: u64,
    proposed_by: BTreeMap<MemberId, u64>,
    snapshots: Snapshots<D>,
    /// The newest one that Raft wanted written.
    hard_state: HardState,
    /// Batches that wait for the log writer, and whether it is at work.
    waiting_batches: Vec<Batch>,
    log_writer_busy: bool,
    /// The newest batch made, and the newest one known to be on disk.
    batch_number: u64,
    durable_number: u64,
    /// Messages that wait for a batch.
    held: VecDeque<(u64, Vec<Message>)>,
    /// Which Ready each batch that is not on disk yet completes.
    unconfirmed: VecDeque<(u64, u64)>,
    /// Committed, not applied.
    committed: VecDeque<Entry>,
    applied_term: Term,
    entries_since_checkpoint: u64,
    checkpoint_due: Mono,
    /// Free bytes of the file systems, as last told by the shell: too few to go on writing, or so many that
    /// a new file certainly fits.
    disk_full: bool,
    disk_empty: bool,
    /// The log's next segment could not be made ready.
    spare_lacks_room: bool,
    /// No chores before this: the disk was full.
    chores_at: Mono,
    /// When a checkpoint that lacked room is tried again; never, if none did.
    checkpoint_retry_at: Mono,
    /// How many checkpoints were begun to end.
    final_checkpoints: u32,
    next_publish: Mono,
    /// Damage or a failed disk, found where no error could be returned: the next turn does.
    failure: Option<Error>,
    /// The tree is damaged, and this member led: it stops when it has handed over.
    damage: Option<Error>,
    stopping: Option<Mono>,
    /// It was removed.
    left: bool,
    /// It lost its memory and is not whole yet.
    repair: Option<Repair<D>>,
    movers: Vec<members::Mover>,
    /// No turn sweeps before this.
    sweep_at: Mono,
    sweepers: Vec<Sweeper>,
    room: Room,
    auto_compaction: Option<AutoCompaction>,
    /// An entry about the alarm, on its way.
    alarm_write: Option<u64>,
    /// Those whose additions are in the log; of no interest once these are applied.
    expected: Vec<Member>,
    agreement: Agreement,
    tally: Tally,
    #[cfg(feature = "sim")]
    misapply: misapply::Misapply,
    second: Option<members::Second>,
    /// The request of a change that made the membership joint; answered when that is left.
    halfway: Option<u64>,
    /// What to remember as promised from some time on.
    promise: Option<(Mono, promise::Record<D>)>,
    /// Whom the last candidate or leader knew that introduced itself; some are strangers here.
    introduced: Vec<Member>,
    /// Whom to talk to while the store is blank: a member that joins knows from elsewhere who is there.
    acquaintances: Vec<Member>,
    output: Output<D>,
    /// Reused for the payloads of a turn.
    payloads: BytesMut,
}

impl<D: Disk> Node<D> {
    /// A client asks. `now` was read after the request's bytes were.
    pub fn on_call(&mut self, conn: ConnId, call: Call, now: Mono) {
        let (tag, request) = match call {
            Call::Request { tag, request } => (tag, request),
            // Any other request still happens.
            Call::Cancel { tag } => {
                self.watches.cancel(conn, tag);
                self.reads.cancel(conn, tag);
                return self.cancel_wait(conn, tag);
            }
            Call::Hold { .. } => return self.hold(conn),
            Call::Release { .. } => {
                self.release(conn);
                return;
            }
            Call::Leave { .. } => return self.on_disconnect(conn),
        };
        self.tally.counts.requests[request.number()] += 1;
        self.watches.end_quiet();
        if let Some(fault) =
            self.refusal(matches!(request, Request::Status | Request::Metrics | Request::WatchHealth))
        {
            return self.fail(conn, tag, fault);
        }
        let deadline = now + self.config.request_timeout();
        match request {
            Request::Status => self.reply(conn, tag, Body::Status(Box::new(self.status()))),
            Request::Metrics => self.reply(conn, tag, Body::Metrics(Box::new(self.metrics()))),
            Request::Range(range) if self.may_read_now(conn, range.serializable, now) => {
                self.answer_range(conn, tag, &range);
            }
            Request::Range(range) => self.wait_to_read(conn, tag, Question::Range(range), deadline),
            Request::Exists { keys } if self.may_read_now(conn, false, now) => {
                self.answer_exists(conn, tag, &keys);
            }
            Request::Exists { keys } => self.wait_to_read(conn, tag, Question::Exists(keys), deadline),
            Request::Lease(request) => self.on_lease_request(conn, tag, request, deadline, now),
            Request::Lock(request) => self.on_lock_request(conn, tag, request, deadline, now),
            Request::Txn(txn) if txn.is_read_only() => {
                if self.may_read_now(conn, txn.is_serializable(), now) {
                    self.answer_txn(conn, tag, &txn);
                } else {
                    self.wait_to_read(conn, tag, Question::Txn(txn), deadline);
                }
            }
            Request::Defrag => self.defragment(conn, tag),
            Request::AlarmList if self.may_read_now(conn, false, now) => self.answer_alarms(conn, tag),
            Request::AlarmList => self.wait_to_read(conn, tag, Question::Alarms, deadline),
            Request::AlarmChange(_) if self.log_is_full() => self.fail(conn, tag, Fault::no_space()),
            Request::AlarmChange(change) => {
                self.write(Asker::Client { conn, tag }, &Command::ChangeAlarms(change), deadline);
            }
            Request::HashKv { revision } => {
                self.ask_whole(conn, tag, Whole::HashKv(revision), (now, deadline))
            }
            Request::Hash => self.ask_whole(conn, tag, Whole::Hash, (now, deadline)),
            Request::Snapshot => self.ask_whole(conn, tag, Whole::Snapshot, (now, deadline)),
            Request::MemberList { serializable: true } => self.answer_members(conn, tag),
            Request::MemberList { serializable: false } => {
                self.wait_to_read(conn, tag, Question::Members, deadline);
            }
            Request::MemberAdd { .. }
            | Request::MemberRemove { .. }
            | Request::MemberUpdate { .. }
            | Request::MemberPromote { .. }
            | Request::MemberChange { .. }
            | Request::MoveLeader { .. } => {
                self.now = self.now.max(now);
                self.on_member_request(conn, tag, request, deadline);
            }
            Request::Put(put) => {
                if self.is_full() {
                    self.fail(conn, tag, Fault::no_space());
                } else {
                    self.write(Asker::Client { conn, tag }, &Command::Put(put), deadline);
                }
            }
            Request::Delete(_) | Request::Compact(_) if self.log_is_full() => {
                self.fail(conn, tag, Fault::no_space());
            }
            Request::Delete(delete) => {
                self.write(Asker::Client { conn, tag }, &Command::Delete(delete), deadline);
            }
            Request::Txn(txn) => {
                let full = if txn.may_put() { self.is_full() } else { self.log_is_full() };
                if full {
                    self.fail(conn, tag, Fault::no_space());
                } else {
                    self.write(Asker::Client { conn, tag }, &Command::Txn(txn), deadline);
                }
            }
            Request::Compact(compact) => {
                self.write(Asker::Client { conn, tag }, &Command::Compact(compact), deadline);
            }
            Request::Watch(_) if now >= self.cut_off_at() => self.fail(conn, tag, Fault::no_leader()),
            Request::Watch(watch) => match self.watches.add(conn, tag, &watch, self.store.revision(), now) {
                Ok(()) => self.reply(conn, tag, Body::Watching),
                Err(fault) => self.fail(conn, tag, fault),
            },
            Request::WatchProgress => self.watches.ask_progress(conn, tag),
            Request::WatchHealth => self.watch_health(conn, tag),
        }
    }

    /// Why this member must not answer, if it must not. Of itself it may speak for longer.
    fn refusal(&self, of_itself: bool) -> Option<Fault> {
        if self.left {
            return Some(Fault::shutdown());
        }
        if self.damage.is_some() {
            return Some(Fault::corrupt());
        }
        if self.is_recovering() && !of_itself {
            return Some(Fault::recovering());
        }
        (self.agreement.trust() != Trust::Agreed && !of_itself).then(Fault::corrupt)
    }

    /// Whether a read that came before `now` can be answered from the present state. For a linearizable one this member
    /// must lead under a lease, and an entry of its own term and all that is committed must be applied; for any, nothing
    /// that the connection asked for earlier is still to come. Else the read waits like all others.
    fn may_read_now(&self, conn: ConnId, serializable: bool, now: Mono) -> bool {
        if self.reads.waits(conn) || self.writes.newest_open(conn).is_some() || self.streams.has(conn) {
            return false;
        }
        if serializable {
            return true;
        }
        let standing = self.raft.standing();
        standing.leader == self.id
            && now < standing.lease_until
            && standing.term == self.applied_term
            && standing.commit <= self.store.applied().index
    }

    /// The connection's client does not take what it is sent: its reads and watches wait until [`Node::release`].
    pub fn hold(&mut self, conn: ConnId) {
        self.reads.hold(conn);
        self.streams.hold(conn);
        self.watches.hold(conn, watches::Why::Untaken);
    }

    /// It does again. True if a turn has something to answer.
    pub fn release(&mut self, conn: ConnId) -> bool {
        let streams = self.streams.release(conn);
        let watches = self.watches.release(conn, watches::Why::Untaken);
        // Behind a range under way its reads still wait.
        streams || (!self.streams.has(conn) && self.reads.release(conn)) || watches
    }

    fn wait_to_read(&mut self, conn: ConnId, tag: Tag, question: Question, deadline: Mono) {
        if self.reads.waiting() + self.streams.len() >= WAITING_MAX {
            return self.fail(conn, tag, Fault::busy());
        }
        let (after, next_write) = (self.writes.newest_open(conn), self.writes.next_id());
        self.reads.push(Read { conn, tag, question, after, next_write, deadline });
    }

    fn write(&mut self, asker: Asker, command: &Command, deadline: Mono) {
        let (bytes, count) = self.writes.load();
        if count >= WAITING_MAX || bytes >= WAITING_BYTES_MAX {
            return self.answer_write(asker, Body::Fault(Fault::busy()));
        }
        let origin = Origin { member: self.id, request_id: self.writes.next_id() };
        if let Some(conn) = asker.conn() {
            self.reads.write_follows(conn, origin.request_id, self.writes.first_id());
        }
        command::encode(origin, command, &mut self.payloads);
        let payload = self.payloads.split().freeze();
        self.writes.push(asker, payload, deadline);
    }

    /// The connection is gone, and its watches with it. Its writes still happen; their answers go nowhere.
    pub fn on_disconnect(&mut self, conn: ConnId) {
        self.reads.forget(conn);
        self.forget_streams(conn);
        self.sweepers.retain(|sweeper| sweeper.conn != conn);
        self.room.forget(conn);
        self.watches.forget(conn);
        self.health.forget(conn);
        self.forget_waiters(conn);
    }

    /// Another member's Raft speaks.
    pub fn on_message(&mut self, message: Message, now: Mono) {
        if self.is_silent() {
            return;
        }
        if self.log_is_full()
            && let MessageBody::Append { entries, .. } = &message.body
            && !entries.is_empty()
        {
            return; // As if it were lost: the leader tries again with each heartbeat.
        }
        let from = message.from;
        self.note_round_trip(&message, now);
        self.raft.step(message, now, &self.log);
        if from == self.raft.standing().leader {
            self.led_at = now;
        }
    }

    /// Another member asks or answers.
    pub fn on_peer_call(&mut self, from: MemberId, call: PeerCall, now: Mono) -> Result<()> {
        if self.is_silent() {
            return Ok(());
        }
        self.watches.end_quiet();
        match call {
            PeerCall::Propose { term, number, payloads } => {
                // TCP brings a frame once; a replayed one must not do a write twice.
                let newest = self.proposed_by.entry(from).or_default();
                if number > *newest || planted::on("node-proposal-taken-twice") {
                    *newest = number;
                    self.propose_for(from, term, number, payloads, now);
                }
            }
            PeerCall::ProposeRefused { number, request_ids, busy: false } => {
                self.writes.refused(number, &request_ids, now + RETRY);
            }
            PeerCall::ProposeRefused { number, request_ids, busy: true } => {
                for id in request_ids {
                    if self.writes.is_sent_with(id, number) {
                        self.end_write(id, Body::Fault(Fault::busy()));
                    }
                }
            }
            PeerCall::ProposeFailed { number, request_id, fault } => {
                if self.writes.is_sent_with(request_id, number) {
                    self.end_write(request_id, Body::Fault(fault));
                }
            }
            PeerCall::ReadIndex { id } => self.read_index_for(from, id, now),
            PeerCall::ReadIndexReply { id, index } => {
                self.reads.answered(id, index, now + RETRY);
            }
            PeerCall::LeaseAsk { id, wants } => self.on_lease_ask(from, id, wants, now),
            PeerCall::LeaseAnswer { id, answer } => self.on_lease_answer(id, answer, now),
            PeerCall::Introduce { members } => self.on_introduction(members),
            PeerCall::StateHash { index, hash, wrong } => self.on_state_hash(from, index, hash, wrong),
            PeerCall::SnapshotBegin { .. }
            | PeerCall::SnapshotChunk { .. }
            | PeerCall::SnapshotAck { .. }
            | PeerCall::SnapshotAbort { .. } => self.on_snapshot_call(from, call, now)?,
        }
        Ok(())
    }

    fn propose_for(
        &mut self,
        from: MemberId,
        term: Term,
        number: u64,
        payloads: Vec<bytes::Bytes>,
        now: Mono,
    ) {
        self.now = self.now.max(now);
        let refused = if self.raft.standing().term == term {
            self.propose_forwarded(payloads)
        } else {
            let ids = payloads.iter().filter_map(|p| command::origin(p)).map(|origin| origin.request_id);
            vec![NotProposed::NotNow(ids.collect())]
        };
        self.tell_refusals(from, number, refused);
    }

    fn read_index_for(&mut self, from: MemberId, their_id: u64, now: Mono) {
        let started = self.reads.ask_for(from, their_id).is_some_and(|id| {
            let accepted = self.raft.read_index(id, now).is_ok();
            if !accepted {
                self.reads.take_remote(id);
            }
            accepted
        });
        if !started {
            let call = PeerCall::ReadIndexReply { id: their_id, index: None };
            self.output.messages.push(Outbound::Call { to: from, call });
        }
    }

    /// For how long this member promises to elect nobody: part of its greeting.
    pub fn promise(&self) -> Nanos {
        startup::lease(&self.config)
    }

    /// Another member has made a new connection. What it numbered on an earlier one, perhaps in an earlier life,
    /// says nothing of what comes now, and what was lost between the two is not waited for.
    pub fn on_peer_greeted(&mut self, peer: MemberId, promise: Nanos) {
        self.raft.set_promise(peer, promise);
        self.proposed_by.remove(&peer);
        self.agreement.greeted(peer);
        self.abort_snapshots_of(peer);
    }

    /// The connection from another member ended: its process may be dead.
    pub fn on_peer_lost(&mut self, peer: MemberId, now: Mono) {
        self.raft.peer_lost(peer, now);
        self.abort_snapshots_of(peer);
    }

    /// The log writer is done with the batches of an earlier output, and idle.
    pub fn on_written(&mut self, written: Written) {
        self.log_writer_busy = false;
        self.durable_number = written.number;
        self.log.written(written);
        let mut ready_number = None;
        while let Some(&(batch, ready)) = self.unconfirmed.front()
            && batch <= self.durable_number
        {
            ready_number = Some(ready);
            self.unconfirmed.pop_front();
        }
        if let Some(number) = ready_number {
            self.raft.persisted(number, &self.log);
        }
    }

    /// The housekeeper is done with a job.
    pub fn on_done(&mut self, done: Done, now: Mono) -> Result<()> {
        match done {
            Done::Chore(done) => self.chore_done(done, now),
            Done::Checkpoint(done) => {
                self.store.end_checkpoint(done)?;
                self.checkpoint_over(true);
                self.go_on_receiving()
            }
            Done::CheckpointLacksRoom(failure) if self.store.may_retry_checkpoint() => {
                if !self.disk_full {
                    log::warn!("{failure}: writes are refused until there is room");
                }
                self.disk_full = true;
                self.checkpoint_retry_at = now + HOUSEKEEPING_RETRY;
                Ok(())
            }
            Done::CheckpointLacksRoom(failure) => Err(failure),
            Done::Snapshot(done) => self.on_snapshot_work(done, now),
            Done::PromiseRecorded => Ok(()),
            Done::Unmarked => {
                self.repaired();
                Ok(())
            }
        }
    }

    fn chore_done(&mut self, done: ChoreDone, now: Mono) -> Result<()> {
        match self.log.chore_done(done) {
            Err(failure) if failure.is_no_space() => {
                // The newest segment still has room. Nothing is lost yet, and trying again at once would not help.
                if !self.spare_lacks_room {
                    log::warn!("{failure}: writes are refused until there is room");
                }
                self.spare_lacks_room = true;
                self.chores_at = now + HOUSEKEEPING_RETRY;
                Ok(())
            }
            Err(failure) => Err(failure),
            Ok(()) => {
                self.spare_lacks_room &= self.log.lacks_spare();
                self.raft.log_fetched();
                Ok(())
            }
        }
    }

    /// The shell looked: so much is free on the disks, and with less than the reserve writing must not go on.
    pub fn on_disk_space(&mut self, free_bytes: u64, reserve_bytes: u64) {
        self.disk_full = free_bytes < reserve_bytes;
        self.disk_empty = free_bytes >= EMPTY_BYTES.max(EMPTY_SEGMENTS * self.config.wal_segment_bytes);
    }

    /// Nothing may be written any more that can wait: what is left of the log's newest segment is for Raft's
    /// own entries. Only a new segment, or an old one that is released, helps.
    fn log_is_full(&self) -> bool {
        self.spare_lacks_room && self.log.lacks_spare()
    }

    /// Puts are refused; deletes are not, for they make room.
    fn is_full(&self) -> bool {
        let is_alarmed = self.store.is_alarmed(AlarmKind::NoSpace);
        self.disk_full || self.log_is_full() || is_alarmed || self.is_over_quota()
    }

    /// Begins to stop: leadership is handed over first. The shell asks [`Node::may_exit`] until it is true.
    pub fn stop(&mut self, now: Mono) {
        if self.stopping.is_none() {
            self.stopping = Some(now);
            // They can wait elsewhere, in the same places.
            self.dismiss_waiters(&Fault::shutdown());
            if self.leads() && !self.raft.membership().is_only_voter(self.id) {
                // Refused if nobody could take over: then the others elect after a timeout.
                let _ = self.raft.transfer(0, now);
            }
        }
    }

    /// This member was removed. Nobody will tell it what became of what it sent, and nobody takes anything from it
    /// any more: its clients hear that at once and go elsewhere.
    pub fn leave(&mut self, now: Mono) {
        self.stop(now);
        self.left = true;
        self.end_requests(&Fault::shutdown());
    }

    /// Ends all that waits: with `fault` where it certainly did nothing.
    fn end_requests(&mut self, fault: &Fault) {
        while let Some((write, perhaps)) = self.writes.expired(Mono::NEVER) {
            let body = Body::Fault(if perhaps { Fault::timeout() } else { fault.clone() });
            self.note_write(&write, &body);
            self.answer_write(write.asker, body);
        }
        self.dismiss_waiters(fault);
        for read in self.reads.expired(Mono::NEVER) {
            if !matches!(read.question, Question::Lock(_)) {
                self.fail(read.conn, read.tag, fault.clone());
            }
        }
        self.end_streams(fault);
        self.dismiss_sweepers();
        self.dismiss_defragmenters();
    }

    /// Whether leadership is with another member (or nobody else could take it in time).
    pub fn handed_over(&self, now: Mono) -> bool {
        if self.stopping.is_none() {
            return false;
        }
        if self.left || self.is_silent() {
            return true;
        }
        let standing = self.raft.standing();
        let alone = self.raft.membership().voter_count() <= 1;
        alone || (standing.leader != self.id && standing.leader != 0) || now >= self.hand_over_until()
    }

    /// When a member that stops gives up its wish that another one leads.
    fn hand_over_until(&self) -> Mono {
        self.stopping.map_or(Mono::NEVER, |since| since + 2 * self.config.election_timeout)
    }

    /// Whatever still waits is answered now, with what is known of it: the process ends soon.
    pub fn give_up(&mut self) {
        self.expire(Mono::NEVER);
        self.dismiss_waiters(&Fault::shutdown());
        self.end_streams(&Fault::shutdown());
        self.dismiss_sweepers();
        self.dismiss_defragmenters();
    }

    /// Nothing is owed any more: the process may end.
    pub fn may_exit(&self, now: Mono) -> bool {
        let reads = self.reads.waiting() > 0 || self.streams.len() > 0 || !self.locks.waiters.is_empty();
        let waits = reads || !self.sweepers.is_empty() || self.room.is_awaited();
        self.handed_over(now) && self.writes.is_empty() && !waits
    }

    /// A checkpoint before a clean exit, so that the next start replays nothing. None when there is nothing left to
    /// write: the member may end. One that lacked room is of an earlier state, and tried once more first.
    pub fn final_checkpoint(&mut self) -> Result<Option<Checkpoint<D>>> {
        assert!(!self.checkpoint_running(), "the caller waits for it");
        if self.final_checkpoints == FINAL_CHECKPOINTS_MAX {
            return Ok(None); // Others still write, or there still is no room.
        }
        self.final_checkpoints += 1;
        if self.checkpoint_retry_at == Mono::NEVER {
            return self.store.begin_checkpoint();
        }
        self.checkpoint_retry_at = Mono::NEVER;
        Ok(Some(self.store.retry_checkpoint()))
    }

    /// Whether waiting for the checkpoint makes sense: one that lacks room may never end.
    pub fn checkpoint_running(&self) -> bool {
        self.store.checkpoint_running() && self.checkpoint_retry_at == Mono::NEVER
    }

    pub fn leads(&self) -> bool {
        self.raft.standing().leader == self.id && !self.is_silent()
    }

    pub fn id(&self) -> MemberId {
        self.id
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    fn header(&self) -> Header {
        Header {
            cluster: self.cluster,
            member: self.id,
            revision: self.store.revision(),
            term: self.raft.standing().term,
        }
    }

    fn reply(&mut self, conn: ConnId, tag: Tag, body: Body) {
        let header = self.header();
        let more = body.begins_to_tell();
        if let Body::Fault(fault) = &body {
            self.tally.counts.faults[fault.code as usize] += 1;
        }
        self.output.replies.push(Reply { conn, tag, header, body, more });
    }

    fn fail(&mut self, conn: ConnId, tag: Tag, fault: Fault) {
        self.reply(conn, tag, Body::Fault(fault));
    }

    /// A write is over.
    fn end_write(&mut self, id: u64, body: Body) {
        if let Some(write) = self.writes.take(id) {
            self.note_write(&write, &body);
            self.answer_write(write.asker, body);
        }
    }

    /// What came of a write.
    fn answer_write(&mut self, asker: Asker, body: Body) {
        match asker {
            Asker::Client { conn, tag } => self.reply(conn, tag, body),
            Asker::Waiter { id, .. } => self.waiter_told(id, body),
            Asker::Member => {}
        }
    }
}

/// With so much free, in bytes and in segments of the log, nobody fills the disk before it is looked at again.
const EMPTY_BYTES: u64 = 1 << 30;
const EMPTY_SEGMENTS: u64 = 16;

/// Housekeeping that found the disk full is tried again after this.
const HOUSEKEEPING_RETRY: Nanos = SECOND;

/// One that lacked room before, and the last.
const FINAL_CHECKPOINTS_MAX: u32 = 2;

/// A read index that could not be had is asked for again after this, and a write that was refused is sent again.
const RETRY: Nanos = 20 * MS;
