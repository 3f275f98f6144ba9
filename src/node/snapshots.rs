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

use super::{Agreement, Job, Node, Outbound, Trust, startup};
use crate::api::{Body, Fault, PeerCall};
use crate::base::planted;
use crate::base::time::{Nanos, SECOND};
use crate::base::{EntryId, Error, Index, MemberId, Mono, Result};
use crate::io::Disk;
use crate::raft::PeerStanding;
use crate::store::{self, Incoming, Snapshot};

/// Payload of one chunk: about a millisecond of work at either end.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks under way without an acknowledgement.
const WINDOW: u64 = 8;

/// Chunks made in one turn for one follower.
const CHUNKS_PER_TURN: usize = 2;

/// A stream of which nothing was heard for so long is given up. Installing includes a sync of all that was sent.
const PATIENCE: Nanos = 30 * SECOND;

/// After one that was given up, the next is not begun before this.
const BEGIN_RETRY: Nanos = SECOND;

/// A snapshot for which the disk has no room is not tried again before this.
const ROOM_RETRY: Nanos = 5 * SECOND;

pub(super) struct Snapshots<D: Disk> {
    disk: D,
    next_stream: u64,
    sending: BTreeMap<MemberId, Sending>,
    receiving: Option<Receiving<D>>,
    /// One was given up: none is begun before this.
    begin_at: Mono,
    /// The disk had no room for one: none is received before this.
    receive_at: Mono,
}

struct Sending {
    stream: u64,
    snapshot: Snapshot,
    at: EntryId,
    begun_at: Mono,
    /// The next chunk to send, and the first one not acknowledged.
    next: u64,
    acked: u64,
    /// The last chunk is sent.
    complete: bool,
    heard_at: Mono,
}

struct Receiving<D: Disk> {
    /// Its jobs are known by it: a stream that begins twice has two.
    attempt: u64,
    from: MemberId,
    stream: u64,
    at: EntryId,
    incoming: Incoming<D>,
    acked: u64,
    heard_at: Mono,
    /// From here on nothing is applied to the old tree, unless the disk has no room for the new one.
    installing: bool,
}

/// What the housekeeper does for a snapshot. `attempt` is None for the removal of what was given up.
pub struct Work<D: Disk> {
    job: store::Job<D>,
    attempt: Option<u64>,
}

/// And what comes of it.
pub struct WorkDone {
    done: Result<store::JobDone>,
    attempt: Option<u64>,
}

impl<D: Disk> Work<D> {
    pub(super) fn run(self) -> WorkDone {
        WorkDone { done: self.job.run(), attempt: self.attempt }
    }
}

impl<D: Disk> Snapshots<D> {
    pub(super) fn new(disk: D, first_stream: u64) -> Snapshots<D> {
        Snapshots {
            disk,
            next_stream: first_stream,
            sending: BTreeMap::new(),
            receiving: None,
            begin_at: Mono(0),
            receive_at: Mono(0),
        }
    }

    pub(super) fn disk(&self) -> &D {
        &self.disk
    }

    /// The store is about to be replaced: nothing may be applied to it, and nothing read from it.
    pub(super) fn installing(&self) -> bool {
        self.receiving.as_ref().is_some_and(|receiving| receiving.installing)
    }

    /// The log must be kept from here on for a follower that is being sent a snapshot.
    pub(super) fn oldest_sent(&self) -> Option<Index> {
        self.sending.values().map(|sending| sending.at.index).min()
    }

    pub(super) fn deadline(&self) -> Mono {
        let sending = self.sending.values().map(|sending| sending.heard_at);
        // What is being installed is not given up.
        let receiving = self.receiving.iter().filter(|receiving| !receiving.installing);
        let receiving = receiving.map(|receiving| receiving.heard_at);
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
        let early = self.now < self.snapshots.begin_at;
        let wrong = self.damage.is_some() || self.agreement.trust() != Trust::Agreed;
        if early || wrong || self.store.applied().index < at_least || self.snapshots.installing() {
            self.raft.report_snapshot(peer, Err(()));
            return;
        }
        let at = self.store.applied();
        let stream = self.snapshots.next_stream;
        self.snapshots.next_stream += 1;
        let snapshot = self.store.pin();
        let sending = Sending {
            stream,
            snapshot,
            at,
            begun_at: self.now,
            next: 0,
            acked: 0,
            complete: false,
            heard_at: self.now,
        };
        self.snapshots.sending.insert(peer, sending);
        info!("sending a snapshot at {at} to {peer:x}");
        self.call(peer, PeerCall::SnapshotBegin { stream, at });
    }

    /// As many chunks as the windows allow and a turn should make.
    pub(super) fn stream_snapshots(&mut self) -> Result<()> {
        self.give_up_silent_streams();
        let peers: Vec<MemberId> = self.snapshots.sending.keys().copied().collect();
        for peer in peers {
            if self.is_held_back(peer, &self.snapshots.sending[&peer]) {
                continue;
            }
            for _ in 0..CHUNKS_PER_TURN {
                let Some(sending) = self.snapshots.sending.get_mut(&peer) else { break };
                if sending.complete || sending.next >= sending.acked + WINDOW {
                    break;
                }
                let Some(bytes) = sending.snapshot.next_chunk(&self.store, CHUNK_BYTES)? else {
                    sending.complete = true;
                    break;
                };
                let call = PeerCall::SnapshotChunk { stream: sending.stream, number: sending.next, bytes };
                sending.next += 1;
                self.call(peer, call);
            }
        }
        Ok(())
    }

    /// There is room in a window: another turn should follow at once.
    pub(super) fn has_chunks_to_send(&self) -> bool {
        self.snapshots.sending.iter().any(|(&to, sending)| {
            !sending.complete && sending.next < sending.acked + WINDOW && !self.is_held_back(to, sending)
        })
    }

    /// The state may still turn out to be a wrong one. The reports of the others bring a turn in which it is not.
    fn is_held_back(&self, to: MemberId, sending: &Sending) -> bool {
        if sending.next > 0 {
            return false;
        }
        let lately = |peer: &PeerStanding| self.now.since(peer.heard_at) < self.config.election_timeout;
        let others_live = self.raft.peers().iter().any(|peer| !peer.learner && peer.id != to && lately(peer));
        let age = self.now.since(sending.begun_at);
        self.agreement.holds_back(self.id, self.raft.membership(), sending.at.index, age, others_live)
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
        if receiving.is_some_and(|r| r.heard_at <= before && !r.installing) {
            self.abort_receiving("nothing more came");
        }
    }

    pub(super) fn end_all_sending(&mut self) {
        let peers: Vec<MemberId> = self.snapshots.sending.keys().copied().collect();
        for peer in peers {
            self.end_sending(peer, Err(()));
        }
    }

    fn end_sending(&mut self, peer: MemberId, outcome: Result<EntryId, ()>) {
        if let Some(sending) = self.snapshots.sending.remove(&peer) {
            self.store.unpin(sending.snapshot);
            if outcome.is_err() {
                self.snapshots.begin_at = self.now + BEGIN_RETRY;
                self.call(peer, PeerCall::SnapshotAbort { stream: sending.stream });
            }
            self.raft.report_snapshot(peer, outcome);
        }
    }

    fn on_ack(&mut self, from: MemberId, stream: u64, next: u64, installed: bool) {
        let now = self.now;
        let Some(sending) = self.snapshots.sending.get_mut(&from).filter(|s| s.stream == stream) else {
            return;
        };
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
        if receiving.is_some_and(|r| r.from == peer && !r.installing) {
            self.abort_receiving("the sender's connection ended");
        }
    }
}

/// The receiving side.
impl<D: Disk> Node<D> {
    pub(super) fn on_snapshot_call(&mut self, from: MemberId, call: PeerCall, now: Mono) -> Result<()> {
        self.now = self.now.max(now);
        match call {
            PeerCall::SnapshotBegin { stream, at } => self.on_begin(from, stream, at)?,
            PeerCall::SnapshotChunk { stream, number, bytes } => {
                self.on_chunk(from, stream, number, bytes)?
            }
            PeerCall::SnapshotAck { stream, next, installed } => self.on_ack(from, stream, next, installed),
            PeerCall::SnapshotAbort { stream } => self.on_abort(from, stream),
            _ => unreachable!("only snapshot calls come here"),
        }
        Ok(())
    }

    fn on_begin(&mut self, from: MemberId, stream: u64, at: EntryId) -> Result<()> {
        if self.snapshots.installing() || self.now < self.snapshots.receive_at {
            self.call(from, PeerCall::SnapshotAbort { stream });
            return Ok(());
        }
        if !self.wants(at) {
            // This member is that far already: it says so, and the leader goes on from there.
            self.call(from, PeerCall::SnapshotAck { stream, next: 0, installed: true });
            return Ok(());
        }
        if self.snapshots.receiving.is_some() {
            self.abort_receiving("a newer one begins");
        }
        info!("receiving a snapshot at {at} from {from:x}");
        let fresh = self.snapshots.next_stream;
        let attempt = if planted::on("node-snapshot-jobs-by-stream") { stream } else { fresh };
        self.snapshots.next_stream += 1;
        let options = startup::tree_options(&self.config, attempt);
        let path = startup::tree_path(&self.config.tree_dir);
        let incoming = Incoming::begin(&self.snapshots.disk, &path, self.store.identity(), options);
        self.snapshots.receiving = Some(Receiving {
            attempt,
            from,
            stream,
            at,
            incoming,
            acked: 0,
            heard_at: self.now,
            installing: false,
        });
        self.go_on_receiving()
    }

    /// Whether the state at `at` is ahead of this member. A blank one also lacks the state before the first entry.
    fn wants(&self, at: EntryId) -> bool {
        let ahead = at.index > self.store.applied().index
            || (self.is_blank() && !planted::on("node-blank-refuses-the-first-state"));
        ahead && self.raft.wants_snapshot(at, &self.log)
    }

    fn on_chunk(&mut self, from: MemberId, stream: u64, number: u64, bytes: Bytes) -> Result<()> {
        let now = self.now;
        let ours = |r: &&mut Receiving<D>| r.from == from && r.stream == stream && !r.installing;
        let Some(receiving) = self.snapshots.receiving.as_mut().filter(ours) else {
            self.call(from, PeerCall::SnapshotAbort { stream });
            return Ok(());
        };
        receiving.heard_at = now;
        match receiving.incoming.take(number, bytes) {
            Ok(()) => self.go_on_receiving(),
            Err(failure) => self.receiving_failed(failure),
        }
    }

    /// A bad stream is given up; a bad disk stops the member.
    fn receiving_failed(&mut self, failure: Error) -> Result<()> {
        if failure.is_no_space() {
            self.snapshots.receive_at = self.now + ROOM_RETRY;
        } else if matches!(failure, Error::Io { .. }) {
            return Err(failure);
        }
        self.abort_receiving(&failure.to_string());
        Ok(())
    }

    /// Hands out the next job, decides about the installation, acknowledges what was taken.
    pub(super) fn go_on_receiving(&mut self) -> Result<()> {
        let Some(receiving) = &self.snapshots.receiving else { return Ok(()) };
        let (from, stream, at) = (receiving.from, receiving.stream, receiving.at);
        if receiving.incoming.is_whole() && !receiving.installing {
            if receiving.incoming.at() != Some(at) {
                self.abort_receiving("its content is not of the state that was announced");
                return Ok(());
            }
            if !self.wants(at) {
                self.call(from, PeerCall::SnapshotAck { stream, next: 0, installed: true });
                self.abort_receiving("this member has caught up by itself");
                return Ok(());
            }
            if self.store.checkpoint_running() {
                return Ok(()); // Its end calls again: the old file must not be written behind the new one's back.
            }
        }
        let Some(receiving) = &mut self.snapshots.receiving else { return Ok(()) };
        receiving.installing = receiving.incoming.is_whole();
        let attempt = Some(receiving.attempt);
        match receiving.incoming.job() {
            Ok(Some(job)) => self.output.jobs.push(Job::Snapshot(Work { job, attempt })),
            Ok(None) => {}
            Err(failure) => return self.receiving_failed(failure),
        }
        let next = receiving.incoming.next_number();
        if receiving.incoming.wants_more() && next > receiving.acked {
            receiving.acked = next;
            self.call(from, PeerCall::SnapshotAck { stream, next, installed: false });
        }
        Ok(())
    }

    /// The housekeeper is done with a step.
    pub(super) fn on_snapshot_work(&mut self, done: WorkDone, now: Mono) -> Result<()> {
        self.now = self.now.max(now);
        let current = self.snapshots.receiving.as_mut().filter(|r| Some(r.attempt) == done.attempt);
        let Some(receiving) = current else {
            // Of a stream that was given up meanwhile. The next attempt makes its file anew.
            return Ok(());
        };
        let outcome = done.done.and_then(|done| receiving.incoming.job_done(done));
        if let Err(failure) = outcome {
            let harmless = failure.is_no_space() && receiving.incoming.may_be_abandoned();
            let hopeless = receiving.installing && !harmless;
            return if hopeless { Err(failure) } else { self.receiving_failed(failure) };
        }
        if receiving.incoming.installed() { self.installed() } else { self.go_on_receiving() }
    }

    /// The new tree is durable under the old one's name. The log follows, and the leader is told: what the
    /// acknowledgement claims is in the tree already.
    fn installed(&mut self) -> Result<()> {
        let receiving = self.snapshots.receiving.take().expect("an installation belongs to a stream");
        self.end_all_sending();
        self.end_pinned_streams(&Fault::recovering());
        let Receiving { from, stream, at, incoming, .. } = receiving;
        self.store = incoming.into_store()?;
        assert!(self.store.applied() == at, "the installed state is at {}, not {at}", self.store.applied());
        self.agreement = Agreement::new(at.index, self.store.hash(), false);
        #[cfg(feature = "sim")]
        (self.misapply = Default::default());
        self.applied_term = self.applied_term.max(at.term);
        self.committed.retain(|entry| entry.id.index > at.index);
        if self.raft.wants_snapshot(at, &self.log) {
            if at.index > 0 {
                self.batch_number += 1;
                self.waiting_batches.push(self.log.reset(self.batch_number, at, self.hard_state));
            }
            let membership = startup::membership(&self.store);
            self.raft.snapshot_installed(at, membership, &self.log);
        }
        self.raft.applied(at.index);
        self.output.members_changed = true;
        let doubtful = if planted::on("node-sends-again-after-a-snapshot") {
            Vec::new()
        } else {
            self.writes.take_sent()
        };
        self.halfway = None;
        for write in doubtful {
            self.answer_write(write.asker, Body::Fault(Fault::timeout()));
        }
        self.locks.waiters.touch_all();
        info!("installed the snapshot at {at}");
        self.call(from, PeerCall::SnapshotAck { stream, next: 0, installed: true });
        Ok(())
    }

    fn on_abort(&mut self, from: MemberId, stream: u64) {
        if self.snapshots.sending.get(&from).is_some_and(|sending| sending.stream == stream) {
            self.end_sending(from, Err(()));
        }
        let receiving = self.snapshots.receiving.as_ref();
        if receiving.is_some_and(|r| r.from == from && r.stream == stream && !r.installing) {
            self.abort_receiving("the sender gave it up");
        }
    }

    /// The old state stays.
    fn abort_receiving(&mut self, why: &str) {
        if let Some(Receiving { from, stream, incoming, .. }) = self.snapshots.receiving.take() {
            warn!("the snapshot from {from:x} is given up: {why}");
            self.call(from, PeerCall::SnapshotAbort { stream });
            self.output.jobs.push(Job::Snapshot(Work { job: incoming.abandon(), attempt: None }));
        }
    }

    fn call(&mut self, to: MemberId, call: PeerCall) {
        self.output.messages.push(Outbound::Call { to, call });
    }
}
