//! From a data directory to a member: lock, open the tree, open the log, replay from applied + 1.
//!
//! Order of the first start, so that a crash anywhere in it leaves a directory that starts:
//!
//! 1. the tree file is made, durable under its name;
//! 2. the log is made (its first segment carries the same identity).
//!
//! A tree at applied index 0 without a log is therefore a start that was cut short, and is finished; a tree
//! further on without a log, or a log without a tree, is a directory somebody took a part of away.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::BytesMut;

use super::auto_compaction::AutoCompaction;
use super::health::HealthWatch;
use super::leases::Leases;
use super::locks::Locks;
use super::reads::Reads;
use super::repair::{self, Mark, Repair, Stage};
use super::room::Room;
use super::snapshots::Snapshots;
use super::streams::Streams;
use super::watches::Watches;
use super::writes::Writes;
use super::{Agreement, Config, Node, Output, promise};
use crate::api::{Command, Member, MemberChange, Origin, command};
use crate::base::time::Nanos;
use crate::base::{ClusterId, EntryId, Error, MemberId, Mono, Result, Rng};
use crate::io::Disk;
use crate::raft::{self, Entry, EntryKind, HardState, LogView, Membership, Memory, Raft, Start};
use crate::store::{Identity, Options, Store};
use crate::wal::{self, LogWriter};

/// What a first start writes into the directory; on later starts, what it must agree with.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    pub cluster: ClusterId,
    pub member: MemberId,
    /// Sorted by id. The same on every initial member: it is part of the state at index 0. Empty: the member joins
    /// a running cluster, and gets the state from there.
    pub members: Vec<Member>,
    /// An existing directory knows better: ids and members there are right, and `cluster` and `member` above only
    /// what a first start would have made of the flags.
    pub trust_disk: bool,
}

/// A member ready to run, and the other half of its log.
pub struct Opened<D: Disk> {
    pub node: Node<D>,
    pub log_writer: LogWriter<D>,
    /// What recovery found and did, a line each.
    pub notes: Vec<String>,
    /// Held as long as the process uses the directory.
    pub lock: Box<dyn Any + Send>,
}

const TREE: &str = "tree";
const LOCK: &str = "lock";

impl<D: Disk> Node<D> {
    /// Opens or makes the directory. Blocks: called before the loop runs.
    pub fn open(disk: &D, config: Config, bootstrap: &Bootstrap, seed: u64, now: Mono) -> Result<Opened<D>> {
        let lock = lock_directory(disk, &config)?;
        let mut rng = Rng::new(seed);
        let Files { mut store, opened, options, mark, mut notes } =
            open_files(disk, &config, bootstrap, &mut rng)?;
        let wal::Opened { mut log, mut writer, mut hard_state, notes: log_notes } = opened;
        let Identity { cluster, member: id } = store.identity();
        let applied = store.applied();
        notes.extend_from_slice(store.notes());
        notes.extend(log_notes);
        if config.members.force_new_cluster {
            store.mark_right();
        }
        if store.is_diverged() {
            notes.push(format!(
                "the state at {applied} differs from that of most members: it must be rebuilt, and nothing is served"
            ));
        }
        let mut batch_number = 0;
        if log.term(applied.index) != Some(applied.term) {
            // A snapshot was installed, and the process ended before the log was told.
            notes.push(format!(
                "the log ends at {}, the tree at {applied}: the log goes on from there",
                log.last()
            ));
            batch_number = 1;
            let written = writer.write(vec![log.reset(batch_number, applied, hard_state)])?;
            log.written(written);
        }
        if config.members.force_new_cluster {
            let (raised, entry) = leave_alone(id, &log, hard_state);
            notes.push(format!("--force-new-cluster: entry {} leaves this member alone", entry.id));
            let batch = log.append(batch_number + 1, Some(raised), vec![entry]);
            writer.write(vec![batch])?;
            // As any start finds it.
            drop((log, writer));
            wal::Opened { log, writer, hard_state, .. } =
                wal::open(disk, &config.wal_dir, options, applied.index)?;
            batch_number = 0;
        }
        let agreement = Agreement::new(applied.index, store.hash(), store.is_diverged());
        let memory = mark.as_ref().map_or(Memory::Whole, Mark::memory);
        let (promised, shorter) = promise::remember(disk, &config.tree_dir, lease(&config))?;
        let start = Start {
            hard_state,
            membership: membership(&store),
            applied: store.applied(),
            memory,
            promised,
            solitary: store.members().len() == 1 && store.removed_members().is_empty(),
        };
        let raft = Raft::new(raft_config(&config, id, rng.next_u64()), start, &log, now);
        let repair = mark.map(|mark| Repair::new(disk, mark, now));
        // Ids of requests must differ from those before a restart: 62 random bits to begin with.
        let mut first_id = || rng.next_u64() >> 2;
        let mut node = Node {
            cluster,
            id,
            now,
            raft,
            log,
            writes: Writes::new(first_id()),
            reads: Reads::new(first_id()),
            streams: Streams::new(config.range_parts),
            watches: Watches::new(config.watch_progress_interval, config.watch_work),
            led_at: now,
            proposal_number: 0,
            proposed_by: BTreeMap::new(),
            snapshots: Snapshots::new(disk.clone(), first_id()),
            leases: Leases::new(Rng::new(first_id())),
            locks: Locks::default(),
            hard_state,
            waiting_batches: Vec::new(),
            log_writer_busy: false,
            batch_number,
            durable_number: batch_number,
            held: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            committed: VecDeque::new(),
            applied_term: applied.term,
            store,
            entries_since_checkpoint: 0,
            checkpoint_due: Mono::NEVER,
            disk_full: false,
            disk_empty: false,
            spare_lacks_room: false,
            chores_at: Mono(0),
            checkpoint_retry_at: Mono::NEVER,
            final_checkpoints: 0,
            next_publish: Mono(0),
            failure: None,
            damage: None,
            stopping: None,
            left: false,
            repair,
            movers: Vec::new(),
            sweep_at: Mono(0),
            sweepers: Vec::new(),
            room: Room::new(),
            auto_compaction: config.retention.map(|retention| AutoCompaction::new(retention, now)),
            alarm_write: None,
            health: HealthWatch::default(),
            expected: Vec::new(),
            agreement,
            tally: Default::default(),
            #[cfg(feature = "sim")]
            misapply: Default::default(),
            second: None,
            halfway: None,
            promise: shorter.map(|record| (now + promised, record)),
            introduced: Vec::new(),
            acquaintances: Vec::new(),
            output: Output {
                replies: Vec::new(),
                messages: Vec::new(),
                batches: Vec::new(),
                jobs: Vec::new(),
                members_changed: false,
                again: true,
            },
            payloads: BytesMut::new(),
            config,
        };
        node.expect_members_of_the_log()?;
        if node.is_recovering() && node.is_blank() {
            // Until somebody says more.
            node.acquaint(bootstrap.members.clone());
        }
        Ok(Opened { node, log_writer: writer, notes, lock })
    }
}

impl<D: Disk> Node<D> {
    /// Additions that the log holds and that may not be committed yet.
    fn expect_members_of_the_log(&mut self) -> Result<()> {
        let mut next = self.store.applied().index + 1;
        while next <= self.log.last_index() {
            let Ok(entries) = self.log.entries(next, self.log.last_index(), READ_BYTES) else { break };
            next += entries.len() as u64;
            for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Membership) {
                self.expect_member(entry)?;
            }
        }
        Ok(())
    }
}

/// Payload bytes of the log that are looked through at once at the start.
const READ_BYTES: usize = 1 << 20;

/// What a member's directory holds, ready for use.
struct Files<D: Disk> {
    store: Store<D>,
    opened: wal::Opened<D>,
    options: wal::Options,
    mark: Option<Mark>,
    notes: Vec<String>,
}

/// Opens tree and log. What is damaged is set aside if the others can bring it back.
fn open_files<D: Disk>(disk: &D, config: &Config, bootstrap: &Bootstrap, rng: &mut Rng) -> Result<Files<D>> {
    let mut notes = Vec::new();
    loop {
        let mark = match repair::resume(disk, config)? {
            None => repair::mark_first_start(disk, config, bootstrap)?,
            mark => mark,
        };
        // What was just made is not damaged: a directory where it is has no use of a second repair.
        let may_repair = |voters| notes.len() < REPAIRS_MAX && repair::is_possible(config, voters);
        let store = match open_store(disk, config, bootstrap, mark.as_ref(), rng.next_u64()) {
            Err(Error::Corrupt(damage)) if may_repair(initial_voters(bootstrap)) => {
                let identity = identity_of_log(disk, config, bootstrap);
                if !bootstrap.trust_disk && identity != own_identity(bootstrap) {
                    return Err(Error::Corrupt(damage));
                }
                notes.push(format!("{damage}; log and tree are set aside, the others have the state"));
                repair::condemn(disk, config, identity, &damage.to_string())?;
                continue;
            }
            other => other?,
        };
        let identity = store.identity();
        let options = wal::Options {
            segment_bytes: config.wal_segment_bytes,
            cluster: identity.cluster,
            member: identity.member,
            salt: rng.next_u64() as u32,
        };
        let voters = membership(&store).voters_min();
        let is_blank = store.members().is_empty();
        match open_log(disk, config, options, store.applied(), mark.is_some()) {
            Err(Error::Corrupt(damage)) if may_repair(if is_blank { usize::MAX } else { voters }) => {
                notes.push(format!("{damage}; the log is set aside, the others have its entries"));
                let why = damage.to_string();
                repair::begin(disk, config, &Mark { identity, stage: Stage::AsideLog, why })?;
            }
            opened => return Ok(Files { store, opened: opened?, options, mark, notes }),
        }
    }
}

/// Once for the tree, once for the log.
const REPAIRS_MAX: usize = 2;

/// A member without a log goes on behind its tree if it knows that its log was lost.
fn open_log<D: Disk>(
    disk: &D,
    config: &Config,
    options: wal::Options,
    applied: EntryId,
    is_marked: bool,
) -> Result<wal::Opened<D>> {
    if is_marked && applied.index > 0 && !holds_log(disk, config)? {
        let hard_state = HardState { term: applied.term, vote: 0 };
        wal::create(disk, &config.wal_dir, options, applied, hard_state)?;
    }
    wal::open(disk, &config.wal_dir, options, applied.index)
}

fn own_identity(bootstrap: &Bootstrap) -> Identity {
    Identity { cluster: bootstrap.cluster, member: bootstrap.member }
}

/// Whose log it is, if it can still be told.
fn identity_of_log<D: Disk>(disk: &D, config: &Config, bootstrap: &Bootstrap) -> Identity {
    let owner = wal::check(disk, &config.wal_dir).ok().and_then(|report| report.owner);
    owner.map_or(own_identity(bootstrap), |(cluster, member)| Identity { cluster, member })
}

/// How many vote, as far as the flags say; a member that joined does not know.
fn initial_voters(bootstrap: &Bootstrap) -> usize {
    if bootstrap.members.is_empty() { usize::MAX } else { bootstrap.members.len() }
}

fn lock_directory<D: Disk>(disk: &D, config: &Config) -> Result<Box<dyn Any + Send>> {
    for dir in [&config.tree_dir, &config.wal_dir] {
        disk.create_dir_all(dir).map_err(|e| Error::io("cannot make the directory", dir, e))?;
    }
    let path = lock_path(&config.tree_dir);
    disk.lock(&path).map_err(|e| match e.kind() {
        ErrorKind::WouldBlock => Error::Refused(format!(
            "{} is in use by another process (it holds {})",
            config.tree_dir.display(),
            path.display()
        )),
        _ => Error::io("cannot lock", &path, e),
    })
}

fn open_store<D: Disk>(
    disk: &D,
    config: &Config,
    bootstrap: &Bootstrap,
    mark: Option<&Mark>,
    file_id: u64,
) -> Result<Store<D>> {
    let path = tree_path(&config.tree_dir);
    let failed = |e| Error::io("cannot look for", &path, e);
    let ours = own_identity(bootstrap);
    if !disk.exists(&path).map_err(failed)? {
        if holds_log(disk, config)? {
            let what = "the tree that belongs to the log";
            return Err(Error::corrupt(&path, 0, what, "no file", "it, or an empty directory"));
        }
        let (identity, members) = match mark {
            // It was there, and was set aside.
            Some(mark) if mark.stage == Stage::Rebuilding => (mark.identity, &[][..]),
            _ => (ours, &bootstrap.members[..]),
        };
        return Store::create(disk, &path, identity, members, tree_options(config, file_id));
    }
    let store = Store::open(disk, &path)?;
    let found = store.identity();
    let is_marked = mark.is_some_and(|mark| mark.identity == found);
    if found != ours && !bootstrap.trust_disk && !is_marked && !is_known_by_name(&store, found.member, config)
    {
        return Err(Error::Refused(format!(
            "{} belongs to member {:x} of cluster {:x}; the flags say member {:x} of cluster {:x}",
            config.tree_dir.display(),
            found.member,
            found.cluster,
            ours.member,
            ours.cluster
        )));
    }
    Ok(store)
}

/// The tree file in a member's directory.
pub fn tree_path(tree_dir: &Path) -> PathBuf {
    tree_dir.join(TREE)
}

/// What a running server holds locked there.
pub fn lock_path(tree_dir: &Path) -> PathBuf {
    tree_dir.join(LOCK)
}

/// Flags may have changed since the first start, and with them the ids that would follow from them: URLs of
/// members were updated, or members were added and removed. The directory of another member has another name in it.
fn is_known_by_name<D: Disk>(store: &Store<D>, id: MemberId, config: &Config) -> bool {
    store.members().iter().any(|member| member.id == id && member.name == config.name)
        && (store.members().len() > 1 || !store.removed_members().is_empty())
}

/// What leaves a member alone in its cluster, to be written behind everything that its log holds: all of that
/// counts as committed from now on, because nobody else can say what was.
fn leave_alone<D: Disk>(id: MemberId, log: &wal::Log<D>, before: HardState) -> (HardState, Entry) {
    let last = log.last();
    let term = before.term.max(last.term) + 1;
    let alone = Membership { voters: vec![id], ..Membership::default() };
    let mut context = BytesMut::new();
    let change = Command::Members(MemberChange::Alone { id });
    command::encode(Origin { member: id, request_id: 0 }, &change, &mut context);
    let entry = Entry {
        id: EntryId::new(term, last.index + 1),
        kind: EntryKind::Membership,
        payload: alone.encode(&context),
    };
    (HardState { term, vote: 0 }, entry)
}

/// `file_id` is random: no other tree file has it.
pub(super) fn tree_options(config: &Config, file_id: u64) -> Options {
    Options { page_bytes: config.tree_page_bytes, file_id }
}

fn holds_log<D: Disk>(disk: &D, config: &Config) -> Result<bool> {
    let names = disk.list(&config.wal_dir).map_err(|e| Error::io("cannot list", &config.wal_dir, e))?;
    Ok(names.iter().any(|name| name.ends_with(".wal")))
}

/// For how long a leader may trust a follower's word, and for how long this member gives its own.
pub(super) fn lease(config: &Config) -> Nanos {
    config.election_timeout / 2
}

fn raft_config(config: &Config, id: MemberId, seed: u64) -> raft::Config {
    raft::Config {
        election_timeout: config.election_timeout,
        heartbeat_interval: config.heartbeat_interval,
        lease: lease(config),
        lease_reads: config.lease_reads,
        pre_vote: config.pre_vote,
        ..raft::Config::new(id, seed)
    }
}

/// The members of the store as the core wants them.
pub(super) fn membership<D: Disk>(store: &Store<D>) -> Membership {
    let joint = store.joint();
    let ids = |counts: &dyn Fn(&Member) -> bool| {
        let mut ids: Vec<MemberId> = store.members().iter().filter(|m| counts(m)).map(|m| m.id).collect();
        ids.sort_unstable();
        ids
    };
    Membership {
        voters: ids(&|member| !member.learner && !joint.leaving.contains(&member.id)),
        outgoing: ids(&|member| !joint.is_empty() && !member.learner && !joint.coming.contains(&member.id)),
        learners: ids(&|member| member.learner),
    }
}
