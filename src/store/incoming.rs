//! New stores: an empty one, or one filled from another member's snapshot.
//!
//! ```text
//!   create  ->  take, take, ...  ->  complete  ->  complete again  ->  rename, sync the directory
//!   (filling, under another name)    both meta pages say so            (now it is the store)
//! ```
//!
//! The file grows under a name of its own and takes the store's name when it is whole, so a crash at any step
//! leaves the old store or the new one. The second checkpoint is there because the tree falls back to its
//! older meta page if the newer is damaged, and the older one must not say "filling".
//!
//! Whatever blocks (creating, checkpoints, the rename with its sync) is a [`Job`] for a helper thread. The
//! thread that owns the [`Incoming`] does the rest: it asks for [`Incoming::job`] whenever it has handed in a
//! chunk or a finished job.

use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};

use super::digest::Digest;
use super::member_record::{self, Half};
use super::record::{self, Malformed};
use super::revision::Rev;
use super::snapshot::{
    CHUNK_HEAD_BYTES, Cell, HEAD_BYTES, Head, Item, bad_stream, digest_cell, digest_of_head,
};
use super::state::{Identity, Phase, State};
use super::{ALARMS, CHANGES, KEYS, LEASE_KEYS, LEASES, MEMBERS, REPLICATED, Store, alarms, lease};
use crate::api::Member;
use crate::base::crc::crc32_from;
use crate::base::planted;
use crate::base::{EntryId, Error, Reader, Result};
use crate::btree::{Checkpoint, CheckpointDone, Options, Tree};
use crate::io::Disk;

/// A filling tree is checkpointed whenever this much has gathered.
const CHECKPOINT_DIRTY_BYTES: u64 = 12 << 20;
/// No more chunks are wanted while this much waits for a running checkpoint.
const DIRTY_BYTES_MAX: u64 = 16 << 20;

/// A snapshot on its way in. Any error ends it: [`Incoming::abandon`] it. The present store is untouched
/// until [`Incoming::installed`] is true.
pub struct Incoming<D: Disk> {
    disk: D,
    path: PathBuf,
    filling_path: PathBuf,
    identity: Identity,
    options: Options,
    stage: Stage,
    job_running: bool,
    /// From the moment that the file exists.
    tree: Option<Tree<D>>,
    next_number: u64,
    chain: u32,
    /// Received and not yet in the tree.
    waiting: BytesMut,
    /// Bytes of the stream that are in the tree: where damage is found.
    offset: u64,
    head: Option<Head>,
    digest: Digest,
    cell_count: u64,
    /// Root and key of the last cell: the next one must lie behind it.
    last: Option<(usize, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Creating,
    Filling,
    /// The stream has ended well; checkpoints that say "complete" are still to be done.
    Completing {
        checkpoints_left: u8,
    },
    Renaming,
    Installed,
}

/// Blocking work of an [`Incoming`], for another thread.
pub struct Job<D: Disk>(Work<D>);

enum Work<D: Disk> {
    Create { disk: D, path: PathBuf, options: Options, state: State },
    Checkpoint(Checkpoint<D>),
    Rename { disk: D, from: PathBuf, to: PathBuf },
    Remove { disk: D, path: PathBuf },
}

/// A finished [`Job`].
pub struct JobDone(Finished);

enum Finished {
    Created,
    Checkpointed(CheckpointDone),
    Renamed,
    Removed,
}

impl<D: Disk> Job<D> {
    pub fn run(self) -> Result<JobDone> {
        Ok(JobDone(match self.0 {
            Work::Create { disk, path, options, state } => {
                remove(&disk, &path)?;
                drop(Tree::create(&disk, &path, options, &state.encode())?);
                Finished::Created
            }
            Work::Checkpoint(checkpoint) => Finished::Checkpointed(checkpoint.run(&|| ())?),
            Work::Rename { disk, from, to } => {
                rename(&disk, &from, &to)?;
                Finished::Renamed
            }
            Work::Remove { disk, path } => {
                remove(&disk, &path)?;
                Finished::Removed
            }
        }))
    }
}

impl<D: Disk> Incoming<D> {
    /// Prepares to replace the store at `path`. `identity` is the receiver's own; the stream must be of the same
    /// cluster. Touches nothing yet: the first job creates the file.
    pub fn begin(disk: &D, path: &Path, identity: Identity, options: Options) -> Incoming<D> {
        Incoming {
            disk: disk.clone(),
            path: path.to_path_buf(),
            filling_path: filling_path(path),
            identity,
            options,
            stage: Stage::Creating,
            job_running: false,
            tree: None,
            next_number: 0,
            chain: 0,
            waiting: BytesMut::new(),
            offset: 0,
            head: None,
            digest: Digest::new(),
            cell_count: 0,
            last: None,
        }
    }

    /// The entry as of which the content will be; None before the first chunk has been looked at.
    pub fn at(&self) -> Option<EntryId> {
        self.head.map(|head| head.applied)
    }

    /// The number of the chunk that is to come.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Whether there is room for another chunk: acknowledge the last one only then, and memory stays bounded.
    pub fn wants_more(&self) -> bool {
        self.stage == Stage::Filling
            && self.tree.as_ref().is_some_and(|tree| tree.dirty_bytes() < DIRTY_BYTES_MAX)
    }

    /// The stream has ended and its digest is right.
    pub fn is_whole(&self) -> bool {
        !matches!(self.stage, Stage::Creating | Stage::Filling)
    }

    /// Takes chunk `number` (from 0, without gaps).
    pub fn take(&mut self, number: u64, chunk: Bytes) -> Result<()> {
        if number != self.next_number {
            return Err(self.bad(format!("chunk {number}"), &format!("chunk {}", self.next_number)));
        }
        if self.is_whole() {
            return Err(self.bad(format!("chunk {number} behind the end"), "nothing"));
        }
        let mut reader = Reader::new(&chunk);
        let chain =
            reader.u32().map_err(|_| self.bad(format!("a chunk of {} bytes", chunk.len()), "a checksum"))?;
        self.chain = crc32_from(self.chain, reader.rest());
        if chain != self.chain {
            let found = format!("chunk {number} with checksum {chain:08x}");
            return Err(self.bad(found, &format!("{:08x}", self.chain)));
        }
        self.next_number += 1;
        self.waiting.extend_from_slice(&chunk[CHUNK_HEAD_BYTES..]);
        self.drain()
    }

    /// The next blocking work; None while one runs, or if there is nothing to do before the next chunk.
    pub fn job(&mut self) -> Result<Option<Job<D>>> {
        if self.job_running {
            return Ok(None);
        }
        let work = match self.stage {
            Stage::Creating => Some(Work::Create {
                disk: self.disk.clone(),
                path: self.filling_path.clone(),
                options: self.options,
                state: State::new(self.identity),
            }),
            Stage::Filling => {
                let tree = self.tree.as_mut().expect("a filling store has its tree");
                if tree.dirty_bytes() < CHECKPOINT_DIRTY_BYTES {
                    None
                } else {
                    tree.begin_checkpoint()?.map(Work::Checkpoint)
                }
            }
            Stage::Completing { .. } => Some(Work::Checkpoint(self.completing_checkpoint()?)),
            Stage::Renaming => Some(Work::Rename {
                disk: self.disk.clone(),
                from: self.filling_path.clone(),
                to: self.path.clone(),
            }),
            Stage::Installed => None,
        };
        self.job_running = work.is_some();
        Ok(work.map(Job))
    }

    pub fn job_done(&mut self, done: JobDone) -> Result<()> {
        assert!(self.job_running, "a job is done that was not handed out");
        self.job_running = false;
        match done.0 {
            Finished::Created => {
                self.tree = Some(Tree::open(&self.disk, &self.filling_path)?);
                self.stage = Stage::Filling;
                self.drain()
            }
            Finished::Checkpointed(done) => {
                self.tree.as_mut().expect("a checkpoint is of a tree").end_checkpoint(done)?;
                self.stage = match self.stage {
                    // One that began while the store was filling counts for nothing; the flag in the record
                    // was set after it.
                    Stage::Completing { checkpoints_left: 1 } => Stage::Renaming,
                    Stage::Completing { checkpoints_left } => {
                        Stage::Completing { checkpoints_left: checkpoints_left - 1 }
                    }
                    stage => stage,
                };
                Ok(())
            }
            Finished::Renamed => {
                self.stage = Stage::Installed;
                Ok(())
            }
            Finished::Removed => unreachable!("an abandoned snapshot is not told of its removal"),
        }
    }

    /// Whether a failure leaves the present store as it is. From the rename on nobody knows.
    pub fn may_be_abandoned(&self) -> bool {
        !matches!(self.stage, Stage::Renaming | Stage::Installed)
    }

    /// The file has the store's name, durably: [`Incoming::into_store`] it.
    pub fn installed(&self) -> bool {
        self.stage == Stage::Installed
    }

    /// The store in place of the old one. Drop the old one: its file has no name any more.
    pub fn into_store(self) -> Result<Store<D>> {
        assert!(self.installed(), "a snapshot becomes the store when it is installed, not before");
        let Incoming { disk, path, tree, .. } = self;
        drop(tree);
        Store::open(&disk, &path)
    }

    /// Gives up; the job removes the file. A job that is running may finish first.
    pub fn abandon(self) -> Job<D> {
        assert!(!self.installed(), "an installed snapshot is the store");
        Job(Work::Remove { disk: self.disk.clone(), path: self.filling_path.clone() })
    }

    /// Moves whole items from the waiting bytes into the tree.
    fn drain(&mut self) -> Result<()> {
        let Some(mut tree) = self.tree.take() else { return Ok(()) };
        let mut waiting = std::mem::take(&mut self.waiting);
        let outcome = self.drain_into(&mut tree, &mut waiting);
        self.tree = Some(tree);
        self.waiting = waiting;
        outcome
    }

    fn drain_into(&mut self, tree: &mut Tree<D>, waiting: &mut BytesMut) -> Result<()> {
        if self.head.is_none() {
            let Some(bytes) = waiting.first_chunk::<HEAD_BYTES>() else { return Ok(()) };
            self.take_head(bytes)?;
            self.advance(waiting, HEAD_BYTES);
        }
        while !self.is_whole() {
            let found = Item::decode(waiting).map_err(|found| self.bad(found, "a cell or the end"))?;
            let Some((item, item_bytes)) = found else { return Ok(()) };
            match item {
                Item::Cell(cell) => self.take_cell(tree, &cell)?,
                Item::End { cells, digest } => self.take_end(tree, cells, digest)?,
            }
            self.advance(waiting, item_bytes);
        }
        if !waiting.is_empty() {
            return Err(self.bad(format!("{} bytes behind the end", waiting.len()), "nothing"));
        }
        Ok(())
    }

    fn advance(&mut self, waiting: &mut BytesMut, bytes: usize) {
        waiting.advance(bytes);
        self.offset += bytes as u64;
    }

    fn take_head(&mut self, bytes: &[u8; HEAD_BYTES]) -> Result<()> {
        let head = Head::decode(bytes).map_err(|found| self.bad(found, "the head of a snapshot"))?;
        if head.cluster != self.identity.cluster {
            return Err(Error::Refused(format!(
                "a snapshot of cluster {:x} was sent to a member of cluster {:x}",
                head.cluster, self.identity.cluster
            )));
        }
        self.digest = digest_of_head(&head);
        self.head = Some(head);
        Ok(())
    }

    fn take_cell(&mut self, tree: &mut Tree<D>, cell: &Cell<'_>) -> Result<()> {
        if let Some((root, key)) = &self.last
            && (cell.root, cell.key) <= (*root, &key[..])
        {
            return Err(self.bad("cells out of order", "ascending keys"));
        }
        self.check_cell(cell).map_err(|bad| self.bad(bad.0, "a cell of storage-format.md section 6"))?;
        tree.insert(cell.root, cell.key, &[cell.value], cell.counted)?;
        digest_cell(&mut self.digest, cell);
        self.cell_count += 1;
        match &mut self.last {
            Some((root, key)) if *root == cell.root => {
                key.clear();
                key.extend_from_slice(cell.key);
            }
            last => *last = Some((cell.root, cell.key.to_vec())),
        }
        Ok(())
    }

    /// The sender's tree may be damaged in a way that its checksums do not see.
    fn check_cell(&self, cell: &Cell<'_>) -> Result<(), Malformed> {
        match cell.root {
            KEYS => {
                let (newest, header, line) = record::decode_key(cell.value)?;
                record::decode_line(newest, line)?;
                if cell.counted == header.tombstone {
                    return Err(Malformed("a key that is counted and deleted, or neither".into()));
                }
            }
            CHANGES => {
                let (_, mut rest) = record::Change::decode(Rev::decode(cell.key)?, cell.value)?;
                record::take_key(&mut rest)?;
            }
            MEMBERS => drop(member_record::decode_member(cell.key, cell.value)?),
            LEASES => {
                lease::decode_id(cell.key)?;
                lease::decode(cell.value)?;
            }
            LEASE_KEYS => {
                lease::decode_attached(cell.key)?;
                if !cell.value.is_empty() {
                    return Err(Malformed(format!("{} bytes at an attached key", cell.value.len())));
                }
            }
            ALARMS => drop(alarms::decode(cell.key, cell.value.len())?),
            other => unreachable!("root {other} is not among {REPLICATED:?}"),
        }
        Ok(())
    }

    fn take_end(&mut self, tree: &mut Tree<D>, cells: u64, digest: u64) -> Result<()> {
        if (cells, digest) != (self.cell_count, self.digest.value()) {
            return Err(self.bad(
                format!("an end that names {cells} cells with digest {digest:016x}"),
                &format!("{} cells with digest {:016x}", self.cell_count, self.digest.value()),
            ));
        }
        // A checkpoint that is running has taken the record as it was before.
        let checkpoints_left =
            if tree.checkpoint_running() && !planted::on("snapshot-complete-too-early") { 3 } else { 2 };
        self.stage = Stage::Completing { checkpoints_left };
        Ok(())
    }

    fn complete_state(&self) -> State {
        let head = self.head.expect("the head came first");
        State {
            phase: Phase::Complete,
            identity: self.identity,
            applied: head.applied,
            revision: head.revision - u64::from(planted::on("snapshot-revision-goes-back")),
            compact_revision: head.compact_revision,
            swept: match planted::on("snapshot-forgets-the-sweep") {
                true => Rev::new(head.compact_revision + 1, 0),
                false => head.swept,
            },
            alarm: if planted::on("snapshot-forgets-the-alarm") { 0 } else { head.alarm },
            hash: head.hash,
        }
    }

    fn completing_checkpoint(&mut self) -> Result<Checkpoint<D>> {
        let user = self.complete_state().encode();
        let tree = self.tree.as_mut().expect("a completing store has its tree");
        completing_checkpoint(tree, &user)
    }

    fn bad(&self, found: impl Into<String>, expected: &str) -> Error {
        bad_stream(&self.filling_path, self.offset, found, expected)
    }
}

/// A record that changes makes the tree changed. The second time it would be the same, and there would be
/// nothing to do: so it is taken away first.
fn completing_checkpoint<D: Disk>(tree: &mut Tree<D>, user: &[u8]) -> Result<Checkpoint<D>> {
    tree.set_user(&[]);
    tree.set_user(user);
    Ok(tree.begin_checkpoint()?.expect("a tree whose record was set has something to write"))
}

/// Makes the store of a new member in place, blocking.
pub fn create<D: Disk>(
    disk: &D,
    path: &Path,
    identity: Identity,
    members: &[Member],
    options: Options,
) -> Result<()> {
    let filling_path = filling_path(path);
    remove(disk, &filling_path)?;
    let mut state = State::new(identity);
    let mut tree = Tree::create(disk, &filling_path, options, &state.encode())?;
    for member in members {
        tree.insert(
            MEMBERS,
            &member_record::member_key(member.id),
            &[&member_record::encode_member(member, Half::Both)],
            false,
        )?;
    }
    state.phase = Phase::Complete;
    for _ in 0..2 {
        let checkpoint = completing_checkpoint(&mut tree, &state.encode())?;
        tree.end_checkpoint(checkpoint.run(&|| ())?)?;
    }
    drop(tree);
    rename(disk, &filling_path, path)
}

/// Removes the file of a creation or an installation that did not get to its end.
pub fn remove_leftover<D: Disk>(disk: &D, path: &Path) -> Result<()> {
    let filling_path = filling_path(path);
    // The name under which the tree makes a blank file, before that has the name it was asked for.
    remove(disk, &filling_path.with_extension("new"))?;
    remove(disk, &filling_path)
}

fn filling_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".filling");
    PathBuf::from(name)
}

fn remove<D: Disk>(disk: &D, path: &Path) -> Result<()> {
    let there = disk.exists(path).map_err(|error| Error::io("cannot look for", path, error))?;
    if there {
        disk.remove(path).map_err(|error| Error::io("cannot remove", path, error))?;
    }
    Ok(())
}

fn rename<D: Disk>(disk: &D, from: &Path, to: &Path) -> Result<()> {
    disk.rename(from, to).map_err(|error| Error::io("cannot rename", from, error))?;
    let dir = to.parent().unwrap_or(Path::new("."));
    disk.sync_dir(dir).map_err(|error| Error::io("cannot sync the directory", dir, error))
}
