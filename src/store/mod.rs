//! The replicated state machine: etcd's revisions over the tree.
//!
//! ```text
//!                  revision 2      3         4         5        6
//!   key a          put v1        put v2              delete
//!   key b                                  put w1             put w2
//!
//!   tree root 0, keys              tree root 1, changes          tree root 2, members
//!   a  newest 5 (deleted)          2.0  a  first         v1      id  name, peer URLs, client URLs
//!   b  newest 6, counted           3.0  a  after 2       v2
//!                                  4.0  b  first         w1
//!                                  5.0  a  after 3       gone
//!                                  6.0  b  after 4       w2
//! ```
//!
//! Changes lie in the order in which they happened, so values are written once, side by side, and whatever follows the
//! history (a watcher that catches up, a compaction) walks it without a search. A key's own cell is small: it says
//! which change is the newest, and enough of the ones before to find any of them ([`mod@line`]). So random writes
//! touch few pages: a hundred keys share a leaf, however large their values are. A read costs two descents.
//!
//! The cell of a key that exists is marked *counted* in the tree, which keeps such counts per subtree: so the number of
//! keys in any span, now, costs one descent per end and not a walk. There is no index of keys in memory.
//!
//! Promises:
//! - The state is a function of the log: the same entries in the same order give the same content
//!   ([`Store::content_hash`]) on every member, whenever each of them checkpoints, and sweeps what a compaction
//!   left ([`compact`]). Apply reads no clock, no dice and no setting of its member. A request that cannot be done
//!   is a [`Fault`] in the reply, changes nothing, and is the same fault everywhere.
//! - The applied entry, the revision and the data change in one commit of the tree: they travel in the tree's
//!   application record ([`state`]). After a crash the tree tells which entry to go on with.
//! - An error of the tree in the middle of an apply leaves a store that holds half of an entry. It refuses every
//!   further apply and checkpoint, so the half never reaches the file; the member must stop.
//!
//! Quotas are not measured here. They are settings of a member and may differ, as do the bytes that it uses; a decision in
//! apply that rests on one would split the cluster. Who leads measures ([`Store::bytes_in_use`]), and says so by an entry:
//! while an *alarm* stands, apply refuses puts, on every member alike. Clients may raise alarms, too ([`alarms`]).
//!
//! Leases are two more roots: which there are, and which keys are attached to each ([`lease`](mod@lease)).
//!
//! Left out, so far: a delete or compare of a span, a delete of what is attached to a lease, and a content hash
//! are done in one go: what they take is bounded by the span, not by a budget. A value is copied once on its way out.

mod alarms;
mod apply;
mod chain;
mod changes;
mod check;
mod compact;
mod digest;
mod get;
mod hash_kv;
mod incoming;
mod lease;
mod line;
mod member_record;
mod members;
mod range;
mod record;
mod revision;
mod snapshot;
mod state;
mod stream_check;
mod txn;
mod values;
mod varint;
mod walk;

use std::path::{Path, PathBuf};

use crate::api::{Alarm, Fault, Member};
use crate::base::planted;
use crate::base::{EntryId, Error, Index, MemberId, Result, Revision};
use crate::btree::{ROOTS, Stats, Tree, View};
use crate::io::Disk;

pub use crate::btree::{Checkpoint, CheckpointDone, Options};
pub use changes::Changed;
pub use check::{Report, check};
pub use hash_kv::{HashKv, HashingKv};
pub use incoming::{Incoming, Job, JobDone};
pub use lease::Lease;
pub use members::Joint;
pub use range::{Budget, Creation, Reading};
pub use revision::Rev;
pub use snapshot::Snapshot;
pub use state::Identity;
pub use stream_check::{StreamCheck, StreamSummary};

use member_record::Found;
use record::Malformed;
use state::{Phase, State};

/// Key spaces of the tree file.
const KEYS: usize = 0;
const CHANGES: usize = 1;
const MEMBERS: usize = 2;
const LEASES: usize = 3;
const LEASE_KEYS: usize = 4;
const ALARMS: usize = 5;
/// Those that are part of the replicated content: all in use.
const REPLICATED: [usize; 6] = [KEYS, CHANGES, MEMBERS, LEASES, LEASE_KEYS, ALARMS];

/// One member's copy of the replicated state.
pub struct Store<D: Disk> {
    tree: Tree<D>,
    path: PathBuf,
    state: State,
    /// What the tree's application record says; brought up to `state` before a checkpoint begins.
    recorded: State,
    members: Vec<Member>,
    removed: Vec<MemberId>,
    joint: Joint,
    /// Alarms of clients, in order: what the tree holds of them.
    raised: Vec<Alarm>,
    /// An apply has failed half-way.
    broken: bool,
    /// Where records are put together.
    scratch: Vec<u8>,
}

impl<D: Disk> Store<D> {
    /// Makes the store of a new member, at revision 1 with nothing applied, durable under its name when this
    /// returns. Blocks on syncs: for the start of a process only.
    pub fn create(
        disk: &D,
        path: &Path,
        identity: Identity,
        members: &[Member],
        options: Options,
    ) -> Result<Store<D>> {
        incoming::create(disk, path, identity, members, options)?;
        Store::open(disk, path)
    }

    /// Opens a store, in a time that does not depend on its size. Removes what an interrupted creation or
    /// installation has left beside it.
    pub fn open(disk: &D, path: &Path) -> Result<Store<D>> {
        incoming::remove_leftover(disk, path)?;
        Store::open_file(disk, path)
    }

    fn open_file(disk: &D, path: &Path) -> Result<Store<D>> {
        let tree = Tree::open(disk, path)?;
        let state = State::decode(path, tree.user())?;
        if state.phase == Phase::Filling {
            return Err(Error::corrupt(
                path,
                0,
                "the store's record",
                "a file still being filled",
                "a complete one",
            ));
        }
        let mut store = Store {
            tree,
            path: path.to_path_buf(),
            state,
            recorded: state,
            members: Vec::new(),
            removed: Vec::new(),
            joint: Joint::default(),
            raised: Vec::new(),
            broken: false,
            scratch: Vec::new(),
        };
        store.refuse_unknown_roots()?;
        store.read_members()?;
        store.read_alarms()?;
        Ok(store)
    }

    /// What opening found worth telling.
    pub fn notes(&self) -> &[String] {
        self.tree.notes()
    }

    pub fn identity(&self) -> Identity {
        self.state.identity
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> EntryId {
        self.state.applied
    }

    /// The state hash behind that entry: the same on every member that applied the same entries in the same way.
    pub fn hash(&self) -> u64 {
        self.state.hash
    }

    /// It was found that this state differs from the others': the next checkpoint says so, and no start forgets it.
    pub fn mark_diverged(&mut self) {
        self.state.phase = Phase::Diverged;
    }

    /// An operator says that this state is the right one after all.
    pub fn mark_right(&mut self) {
        self.state.phase = Phase::Complete;
    }

    /// The state must be rebuilt from other members', and not be served.
    pub fn is_diverged(&self) -> bool {
        self.state.phase == Phase::Diverged
    }

    /// The log must be kept from the entry behind this one on: a restart falls back to here if the newest
    /// checkpoint turns out to be damaged.
    pub fn durable_applied(&self) -> Index {
        match State::decode(&self.path, self.tree.fallback_user()) {
            Ok(state) if state.phase != Phase::Filling => state.applied.index,
            _ => 0,
        }
    }

    pub fn revision(&self) -> Revision {
        self.state.revision
    }

    /// The first revision that can still be read; 0 = all can.
    pub fn compact_revision(&self) -> Revision {
        self.state.compact_revision
    }

    /// All members of the cluster, by id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Who was a member once, by id.
    pub fn removed_members(&self) -> &[MemberId] {
        &self.removed
    }

    /// Who votes in one half only, while several changes of the membership are under way.
    pub fn joint(&self) -> &Joint {
        &self.joint
    }

    /// Bytes of the file, and of its pages in use.
    pub fn size_bytes(&self) -> (u64, u64) {
        (self.stats().file_bytes, self.bytes_in_use())
    }

    /// Bytes of pages in use: what a quota is measured against. Differs between members that hold the same
    /// content, by how full their pages are.
    pub fn bytes_in_use(&self) -> u64 {
        let stats = self.stats();
        stats.used_pages * stats.page_bytes as u64
    }

    pub fn stats(&self) -> Stats {
        self.tree.stats()
    }

    /// Bytes that the next checkpoint will write.
    pub fn dirty_bytes(&self) -> u64 {
        self.tree.dirty_bytes()
    }

    pub fn checkpoint_running(&self) -> bool {
        self.tree.checkpoint_running()
    }

    /// How much of the running checkpoint is on disk, from 0 to 1; None if there is none.
    pub fn checkpoint_share(&self) -> Option<f64> {
        self.tree.checkpoint_share()
    }

    /// The work that makes the present state durable, for another thread. None while one runs, or if nothing
    /// has changed.
    pub fn begin_checkpoint(&mut self) -> Result<Option<Checkpoint<D>>> {
        assert!(!self.broken, "half of an entry must never become durable");
        if self.tree.checkpoint_running() {
            return Ok(None);
        }
        self.record_state();
        self.tree.begin_checkpoint()
    }

    /// Whether much of the file is free, so that pages at its end may find room further down.
    pub fn is_loose(&self) -> bool {
        self.tree.is_loose()
    }

    /// Moves up to so many pages there; none, if there is nothing to gain. The checkpoints that follow give the room back.
    pub fn move_tail(&mut self, pages_max: usize) -> Result<usize> {
        self.tree.move_tail(pages_max)
    }

    /// Whether a checkpoint would give room back although nothing has changed.
    pub fn owes_space(&self) -> bool {
        self.tree.owes_space()
    }

    /// Whether a checkpoint that failed for want of room may be tried again: not if it was the sync that failed.
    pub fn may_retry_checkpoint(&self) -> bool {
        self.tree.may_retry_checkpoint()
    }

    /// The same work again, after it failed for want of room and of nothing else.
    pub fn retry_checkpoint(&mut self) -> Checkpoint<D> {
        self.tree.retry_checkpoint()
    }

    pub fn end_checkpoint(&mut self, done: CheckpointDone) -> Result<()> {
        self.tree.end_checkpoint(done)
    }

    fn record_state(&mut self) {
        if self.recorded != self.state && !planted::on("store-applied-in-another-commit") {
            self.tree.set_user(&self.state.encode());
            self.recorded = self.state;
        }
    }

    /// A newer version may keep something there that this one would lose.
    fn refuse_unknown_roots(&self) -> Result<()> {
        for root in (0..ROOTS).filter(|root| !REPLICATED.contains(root)) {
            if self.tree.cursor(View::Now, root).first()? {
                return Err(Error::Refused(format!(
                    "{} holds something in root {root}, which this program does not know: upgrade it",
                    self.path.display()
                )));
            }
        }
        Ok(())
    }

    fn read_members(&mut self) -> Result<()> {
        let mut cursor = self.tree.cursor(View::Now, MEMBERS);
        let mut there = cursor.first()?;
        while there {
            let record = cursor.value().to_vec()?;
            let found = member_record::decode_member(&cursor.key()?, &record)
                .map_err(|bad| damaged(&self.path, "a member", bad))?;
            match found {
                Found::Member(member, half) => {
                    self.joint.note(member.id, half);
                    self.members.push(member);
                }
                Found::Removed(id) => self.removed.push(id),
            }
            there = cursor.next()?;
        }
        Ok(())
    }

    /// The revision that a read at `asked` (0 = now) sees, or why there is none.
    fn readable(&self, asked: Revision) -> Result<Revision, Fault> {
        match asked {
            0 => Ok(self.state.revision),
            _ if asked > self.state.revision => Err(Fault::future(self.state.revision)),
            _ if asked < self.state.compact_revision && !planted::on("store-compacted-is-answered") => {
                Err(Fault::compacted(self.state.compact_revision))
            }
            _ => Ok(asked),
        }
    }
}

/// Bytes in the tree that this store cannot have written, although the page that holds them is sound.
fn damaged(path: &Path, what: &str, bad: Malformed) -> Error {
    Error::corrupt(path, 0, what, bad.0, "what storage-format.md section 6 says")
}
