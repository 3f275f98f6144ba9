//! A member that fell behind the log gets the state itself: the leader streams a pinned state in chunks, the
//! follower builds a fresh tree from them and, when that is durable, puts it in the place of its own.
//!
//! ```text
//! leader                                  follower
//!   pin; Begin{stream, at}  ----------->  make a tree file beside the old one
//!   Chunk 0..WINDOW         ----------->  take, take, ...
//!                           <-----------  Ack{next}            (slides the window)
//!   last Chunk              ----------->  install: checkpoint, rename, sync the directory
//!                           <-----------  Ack{installed}       (log reset and durable)
//!   unpin; back to appends
//! ```
//!
//! Either side may give up at any time; the leader then begins again under a new stream number, from the state
//! of that time. A stream is never continued after an interruption: the state it spoke of may be gone, and
//! starting over is one case instead of many. While a stream runs, the log behind its state is not released,
//! so the follower that has installed it finds what comes next.

use std::collections::BTreeMap;

use bytes::Bytes;
use log::{info, warn};

use super::{Job, Node, Outbound};
use crate::api::PeerCall;
use crate::base::time::{Nanos, SECOND};
use crate::base::{EntryId, Error, Index, MemberId, Mono, Result};
use crate::btree::{Checkpoint, CheckpointDone};
use crate::io::Disk;
use crate::store::{Incoming, InstallJob, Snapshot, Store};

/// Payload of one chunk: about a millisecond of work at either end.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks under way without an acknowledgement.
const WINDOW: u64 = 8;

/// Chunks made in one turn for one follower.
const CHUNKS_PER_TURN: usize = 2;

/// A stream of which nothing was heard for so long is given up. Installing includes a sync of all that was sent.
const PATIENCE: Nanos = 30 * SECOND;

/// Dirty bytes of the tree under construction at which they are written out.
const INCOMING_DIRTY_BYTES: u64 = 16 << 20;

pub(super) struct Snapshots<D: Disk> {
    disk: D,
    next_stream: u64,
    sending: BTreeMap<MemberId, Sending>,
    receiving: Option<Receiving<D>>,
}

struct Sending {
    stream: u64,
    snapshot: Snapshot,
    at: EntryId,
    /// The next chunk to send, and the first one not acknowledged.
    next: u64,
    acked: u64,
    /// The last chunk is sent.
    complete: bool,
    heard_at: Mono,
}

struct Receiving<D: Disk> {
    from: MemberId,
    stream: u64,
    at: EntryId,
    next: u64,
    heard_at: Mono,
    stage: Stage<D>,
}

enum Stage<D: Disk> {
    /// The file is being made; chunks that come early wait.
    Opening { early: Vec<(u64, Bytes, bool)> },
    Filling { incoming: Incoming<D>, writing: bool, complete: bool },
    /// Nothing is applied to the old tree any more.
    Installing,
}

/// What the housekeeper does for a snapshot.
pub enum Work<D: Disk> {
    Open { disk: D, path: std::path::PathBuf, stream: u64 },
    Checkpoint { checkpoint: Checkpoint<D>, stream: u64 },
    Install { job: InstallJob<D>, stream: u64 },
}

/// And what comes of it.
pub enum WorkDone<D: Disk> {
    Opened { incoming: Incoming<D>, stream: u64 },
    Checkpointed { done: CheckpointDone, stream: u64 },
    Installed { store: Store<D>, stream: u64 },
}

impl<D: Disk> Work<D> {
    pub(super) fn run(self) -> Result<WorkDone<D>> {
        Ok(match self {
            Work::Open { disk, path, stream } => {
                WorkDone::Opened { incoming: Incoming::begin(&disk, &path)?, stream }
            }
            Work::Checkpoint { checkpoint, stream } => {
                WorkDone::Checkpointed { done: checkpoint.run()?, stream }
            }
            Work::Install { job, stream } => WorkDone::Installed { store: job.run()?, stream },
        })
    }
}

impl<D: Disk> Snapshots<D> {
    pub(super) fn new(disk: D, first_stream: u64) -> Snapshots<D> {
        Snapshots { disk, next_stream: first_stream, sending: BTreeMap::new(), receiving: None }
    }

    /// The store is about to be replaced: nothing may be applied to it, and nothing read from it.
    pub(super) fn installing(&self) -> bool {
        matches!(self.receiving, Some(Receiving { stage: Stage::Installing, .. }))
    }

    /// The log must be kept from here on for a follower that is being sent a snapshot.
    pub(super) fn oldest_sent(&self) -> Option<Index> {
        self.sending.values().map(|sending| sending.at.index).min()
    }

    pub(super) fn deadline(&self) -> Mono {
        let sending = self.sending.values().map(|sending| sending.heard_at);
        let receiving = self.receiving.iter().map(|receiving| receiving.heard_at);
        sending.chain(receiving).min().map_or(Mono::NEVER, |heard_at| heard_at + PATIENCE)
    }
}

/// The sending side.
impl<D: Disk> Node<D> {
    /// Raft says that `peer` needs the state at or after an index.
    pub(super) fn begin_snapshot(&mut self, peer: MemberId, at_least: Index) {
        if self.snapshots.sending.contains_key(&peer) {
            return;
        }
        if self.store.applied().index < at_least || self.snapshots.installing() {
            self.raft.report_snapshot(peer, Err(()));
            return;
        }
        let at = self.store.applied();
        let stream = self.snapshots.next_stream;
        self.snapshots.next_stream += 1;
        let snapshot = self.store.pin();
        let sending =
            Sending { stream, snapshot, at, next: 0, acked: 0, complete: false, heard_at: self.now };
        self.snapshots.sending.insert(peer, sending);
        info!("sending a snapshot at {at} to {peer:x}");
        self.call(peer, PeerCall::SnapshotBegin { stream, at });
    }

    /// As many chunks as the windows allow and a turn should make.
    pub(super) fn stream_snapshots(&mut self) -> Result<()> {
        self.give_up_silent_streams();
        let peers: Vec<MemberId> = self.snapshots.sending.keys().copied().collect();
        for peer in peers {
            for _ in 0..CHUNKS_PER_TURN {
                let Some(sending) = self.snapshots.sending.get_mut(&peer) else { break };
                if sending.complete || sending.next >= sending.acked + WINDOW {
                    break;
                }
                let (bytes, last) = sending.snapshot.next_chunk(&self.store, CHUNK_BYTES)?;
                let call = PeerCall::SnapshotChunk { stream: sending.stream, number: sending.next, bytes, last };
                sending.next += 1;
                sending.complete = last;
                self.call(peer, call);
            }
        }
        Ok(())
    }

    /// There is room in a window: another turn should follow at once.
    pub(super) fn has_chunks_to_send(&self) -> bool {
        let open = |sending: &Sending| !sending.complete && sending.next < sending.acked + WINDOW;
        self.snapshots.sending.values().any(open)
    }

    fn give_up_silent_streams(&mut self) {
        let before = self.now - PATIENCE;
        let silent: Vec<MemberId> = self
            .snapshots
            .sending
            .iter()
            .filter(|(_, sending)| sending.heard_at <= before)
            .map(|(&peer, _)| peer)
            .collect();
        for peer in silent {
            warn!("the snapshot for {peer:x} is given up: nothing heard for {} s", PATIENCE / SECOND);
            self.end_sending(peer, Err(()));
        }
        let receiving = self.snapshots.receiving.as_ref();
        if receiving.is_some_and(|r| r.heard_at <= before && !matches!(r.stage, Stage::Installing)) {
            self.abort_receiving("nothing more came");
        }
    }

    fn end_sending(&mut self, peer: MemberId, outcome: Result<EntryId, ()>) {
        if let Some(sending) = self.snapshots.sending.remove(&peer) {
            self.store.unpin(sending.snapshot);
            if outcome.is_err() {
                self.call(peer, PeerCall::SnapshotAbort { stream: sending.stream });
            }
            self.raft.report_snapshot(peer, outcome);
        }
    }

    fn on_ack(&mut self, from: MemberId, stream: u64, next: u64, installed: bool) {
        let now = self.now;
        let Some(sending) = self.snapshots.sending.get_mut(&from).filter(|s| s.stream == stream) else { return };
        sending.heard_at = now;
        sending.acked = sending.acked.max(next.min(sending.next));
        if installed {
            let at = sending.at;
            info!("{from:x} has installed the snapshot at {at}");
            self.end_sending(from, Ok(at));
        }
    }

    pub(super) fn abort_snapshots_of(&mut self, peer: MemberId) {
        if self.snapshots.sending.contains_key(&peer) {
            self.end_sending(peer, Err(()));
        }
        let receiving = self.snapshots.receiving.as_ref();
        if receiving.is_some_and(|r| r.from == peer && !matches!(r.stage, Stage::Installing)) {
            self.abort_receiving("the sender's connection ended");
        }
    }
}

/// The receiving side.
impl<D: Disk> Node<D> {
    pub(super) fn on_snapshot_call(&mut self, from: MemberId, call: PeerCall, now: Mono) -> Result<()> {
        self.now = self.now.max(now);
        match call {
            PeerCall::SnapshotBegin { stream, at } => self.on_begin(from, stream, at),
            PeerCall::SnapshotChunk { stream, number, bytes, last } => {
                self.on_chunk(from, stream, number, bytes, last)?;
            }
            PeerCall::SnapshotAck { stream, next, installed } => self.on_ack(from, stream, next, installed),
            PeerCall::SnapshotAbort { stream } => self.on_abort(from, stream),
            _ => unreachable!("only snapshot calls come here"),
        }
        Ok(())
    }

    fn on_begin(&mut self, from: MemberId, stream: u64, at: EntryId) {
        if self.snapshots.installing() {
            return self.call(from, PeerCall::SnapshotAbort { stream });
        }
        if !self.wants(at) {
            // This member is that far already: it says so, and the leader goes on from there.
            return self.call(from, PeerCall::SnapshotAck { stream, next: 0, installed: true });
        }
        if self.snapshots.receiving.is_some() {
            self.abort_receiving("a newer one begins");
        }
        info!("receiving a snapshot at {at} from {from:x}");
        let stage = Stage::Opening { early: Vec::new() };
        self.snapshots.receiving = Some(Receiving { from, stream, at, next: 0, heard_at: self.now, stage });
        let (disk, path) = (self.snapshots.disk.clone(), self.incoming_path());
        self.snapshot_job(Work::Open { disk, path, stream });
    }

    /// Whether the state at `at` is ahead of this member.
    fn wants(&self, at: EntryId) -> bool {
        at.index > self.store.applied().index && self.raft.wants_snapshot(at, &self.log)
    }

    fn incoming_path(&self) -> std::path::PathBuf {
        self.config.tree_dir.join(super::startup::TREE_INCOMING)
    }

    fn on_chunk(&mut self, from: MemberId, stream: u64, number: u64, bytes: Bytes, last: bool) -> Result<()> {
        let now = self.now;
        let ours = |r: &&mut Receiving<D>| r.from == from && r.stream == stream;
        let Some(receiving) = self.snapshots.receiving.as_mut().filter(ours) else {
            self.call(from, PeerCall::SnapshotAbort { stream });
            return Ok(());
        };
        receiving.heard_at = now;
        if number != receiving.next {
            self.abort_receiving("a chunk is missing");
            return Ok(());
        }
        receiving.next += 1;
        match &mut receiving.stage {
            Stage::Opening { early } => early.push((number, bytes, last)),
            Stage::Filling { incoming, complete, .. } => {
                if let Err(failure) = incoming.take(number, &bytes) {
                    return self.receiving_failed(failure);
                }
                *complete = last;
                self.go_on_receiving(true);
            }
            Stage::Installing => self.abort_receiving("a chunk came behind the last one"),
        }
        Ok(())
    }

    /// A bad stream is given up; a bad disk stops the member.
    fn receiving_failed(&mut self, failure: Error) -> Result<()> {
        if matches!(failure, Error::Io { .. }) && !failure.is_no_space() {
            return Err(failure);
        }
        self.abort_receiving(&failure.to_string());
        Ok(())
    }

    /// Acknowledges what was taken, writes out what has gathered, installs what is complete.
    fn go_on_receiving(&mut self, acknowledge: bool) {
        let Some(receiving) = &mut self.snapshots.receiving else { return };
        let (from, stream, at) = (receiving.from, receiving.stream, receiving.at);
        let Stage::Filling { incoming, writing, complete } = &mut receiving.stage else { return };
        if *writing {
            return; // The sender's window closes meanwhile: that is the back-pressure.
        }
        let next = receiving.next;
        if *complete {
            if !self.wants(at) {
                self.call(from, PeerCall::SnapshotAck { stream, next, installed: true });
                return self.abort_receiving("this member has caught up by itself");
            }
            if self.store.checkpoint_running() {
                return; // Its end calls again.
            }
            return self.install();
        }
        if incoming.dirty_bytes() >= INCOMING_DIRTY_BYTES
            && let Ok(Some(checkpoint)) = incoming.begin_checkpoint()
        {
            *writing = true;
            return self.snapshot_job(Work::Checkpoint { checkpoint, stream });
        }
        if acknowledge {
            self.call(from, PeerCall::SnapshotAck { stream, next, installed: false });
        }
    }

    fn install(&mut self) {
        let Some(receiving) = &mut self.snapshots.receiving else { return };
        let stage = std::mem::replace(&mut receiving.stage, Stage::Installing);
        let Stage::Filling { incoming, .. } = stage else {
            unreachable!("only a filled tree is installed");
        };
        let stream = receiving.stream;
        let path = self.config.tree_dir.join(super::startup::TREE);
        match incoming.finish(&path, self.store.identity()) {
            Ok(job) => self.snapshot_job(Work::Install { job, stream }),
            Err(failure) => self.abort_receiving(&failure.to_string()),
        }
    }

    /// The housekeeper is done with a step.
    pub(super) fn on_snapshot_work(&mut self, done: WorkDone<D>, now: Mono) -> Result<()> {
        self.now = self.now.max(now);
        let current = self.snapshots.receiving.as_ref().map(|receiving| receiving.stream);
        match done {
            WorkDone::Opened { incoming, stream } if current == Some(stream) => self.opened(incoming)?,
            WorkDone::Checkpointed { done, stream } if current == Some(stream) => {
                let Some(receiving) = &mut self.snapshots.receiving else { return Ok(()) };
                if let Stage::Filling { incoming, writing, .. } = &mut receiving.stage {
                    *writing = false;
                    incoming.end_checkpoint(done)?;
                }
                self.go_on_receiving(true);
            }
            WorkDone::Installed { store, stream } => {
                assert!(current == Some(stream), "an installation cannot be given up");
                self.installed(store);
            }
            // Of a stream that was given up meanwhile.
            WorkDone::Opened { .. } | WorkDone::Checkpointed { .. } => {}
        }
        Ok(())
    }

    fn opened(&mut self, incoming: Incoming<D>) -> Result<()> {
        let Some(receiving) = &mut self.snapshots.receiving else { return Ok(()) };
        let filling = Stage::Filling { incoming, writing: false, complete: false };
        let Stage::Opening { early } = std::mem::replace(&mut receiving.stage, filling) else {
            unreachable!("a stream is opened once");
        };
        let Stage::Filling { incoming, complete, .. } = &mut receiving.stage else {
            unreachable!("it was just put there");
        };
        for (number, bytes, last) in early {
            if let Err(failure) = incoming.take(number, &bytes) {
                return self.receiving_failed(failure);
            }
            *complete = last;
        }
        self.go_on_receiving(true);
        Ok(())
    }

    /// The new tree is durable under the old one's name. The log follows, and then the leader is told.
    fn installed(&mut self, store: Store<D>) {
        let receiving = self.snapshots.receiving.take().expect("an installation belongs to a stream");
        let peers: Vec<MemberId> = self.snapshots.sending.keys().copied().collect();
        for peer in peers {
            self.end_sending(peer, Err(()));
        }
        self.store = store;
        let at = self.store.applied();
        assert!(at == receiving.at, "the installed state is at {at}, announced was {}", receiving.at);
        self.applied_term = self.applied_term.max(at.term);
        self.committed.retain(|entry| entry.id.index > at.index);
        if self.raft.wants_snapshot(at, &self.log) {
            self.batch_number += 1;
            self.waiting_batches.push(self.log.reset(self.batch_number, at, self.hard_state));
            let membership = super::startup::membership(self.store.members());
            self.raft.snapshot_installed(at, membership, &self.log);
        }
        self.raft.applied(at.index);
        self.writes.settle(at.term);
        info!("installed the snapshot at {at}");
        self.call(receiving.from, PeerCall::SnapshotAck {
            stream: receiving.stream,
            next: receiving.next,
            installed: true,
        });
    }

    fn on_abort(&mut self, from: MemberId, stream: u64) {
        if self.snapshots.sending.get(&from).is_some_and(|sending| sending.stream == stream) {
            self.end_sending(from, Err(()));
        }
        let receiving = self.snapshots.receiving.as_ref();
        let ours = receiving.is_some_and(|r| r.from == from && r.stream == stream);
        if ours && !self.snapshots.installing() {
            self.abort_receiving("the sender gave it up");
        }
    }

    /// The old state stays. The file is made anew by the next attempt.
    fn abort_receiving(&mut self, why: &str) {
        if let Some(receiving) = self.snapshots.receiving.take() {
            warn!("the snapshot from {:x} is given up: {why}", receiving.from);
            self.call(receiving.from, PeerCall::SnapshotAbort { stream: receiving.stream });
        }
    }

    fn snapshot_job(&mut self, work: Work<D>) {
        self.output.jobs.push(Job::Snapshot(work));
    }

    fn call(&mut self, to: MemberId, call: PeerCall) {
        self.output.messages.push(Outbound::Call { to, call });
    }

    /// A checkpoint of the store ended: an installation may have waited for it.
    pub(super) fn checkpoint_ended(&mut self) {
        self.go_on_receiving(false);
    }
}
