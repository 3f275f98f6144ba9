//! Damage at rest, and the way back: a member whose log or tree is damaged gets the state from the others, by itself.
//!
//! What is safe about it is Raft's affair: a member without memory elects nobody until it holds everything again (the
//! essay in `raft/recovery.rs`). Here is what happens to the files.
//!
//! ```text
//!   damage is found
//!     v
//!   the mark says so, durably          from here on every start knows that this member lost its memory
//!     v
//!   what is of no use is set aside     renamed to *.damaged; never deleted, until the next damage
//!     v
//!   the mark says: rebuilding
//!     v
//!   a new log behind the tree's last entry, or a blank tree and a new log
//!     v
//!   a leader sends entries, or a snapshot, as to any member that lags
//!     v
//!   an entry of a later term is applied: nothing is missing. The mark goes, and the member votes and serves.
//! ```
//!
//! *Damage of the log* takes all of the log, not only its damaged part. What is behind the tree's last entry (some
//! seconds of writing at most) comes back from the others, and one case is left instead of many.
//!
//! *Damage of the tree* takes tree and log. The log alone would be no member: it does not say who is in the cluster,
//! and what is before its first entry is in the tree only. So the member's copy of the newest entries
//! does not count until it has them again; it is not lost, but set aside.
//!
//! *An empty disk* under an id that had another life looks like the first start of a cluster. So the first start, too,
//! leaves a mark until the others have said that there was nothing.
//!
//! Nobody repairs a member of a cluster of one or two (there is no majority without it), and nothing is repaired
//! under `--force-new-cluster`, where somebody has decided that this copy is the good one. There the damage is
//! refused, as named as ever, and no file is touched.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use log::{info, warn};

use super::{Bootstrap, Config, Job, Node, small_file, startup};
use crate::base::planted;
use crate::base::time::{Nanos, SECOND};
use crate::base::{Error, Mono, Result};
use crate::io::Disk;
use crate::raft::{Memory, Recovering};
use crate::store::Identity;

const MARK: &str = "repair";
const ASIDE: &str = ".damaged";

/// How often a member that cannot go on says for whom it waits.
const COMPLAIN_EVERY: Nanos = 30 * SECOND;

/// A cluster with fewer voters has no majority without one of them.
const VOTERS_MIN: usize = 3;

/// How far a repair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The log is to be set aside.
    AsideLog,
    /// Log and tree are.
    AsideAll,
    /// Nothing of what is there is damaged; something is missing.
    Rebuilding,
    /// Nothing was there when this member was started.
    Fresh,
}

const STAGES: [(&str, Stage); 4] = [
    ("aside-log", Stage::AsideLog),
    ("aside-all", Stage::AsideAll),
    ("rebuilding", Stage::Rebuilding),
    ("fresh", Stage::Fresh),
];

/// What remembers the damage: the file `repair` beside the tree, of five lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) identity: Identity,
    pub(super) stage: Stage,
    /// What was found, one line.
    pub(super) why: String,
}

impl Mark {
    pub(super) fn memory(&self) -> Memory {
        if self.stage == Stage::Fresh { Memory::Fresh } else { Memory::Lost }
    }

    fn encode(&self) -> String {
        let Mark { identity, stage, why } = self;
        let (stage, _) = STAGES.iter().find(|(_, known)| known == stage).expect("all stages have a name");
        let why = why.replace('\n', " ");
        format!(
            "pawl repair 1\ncluster {:x}\nmember {:x}\nstage {stage}\nbecause {why}\n",
            identity.cluster, identity.member
        )
    }

    fn decode(text: &str) -> Option<Mark> {
        let mut lines = text.lines();
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        field("pawl repair").filter(|version| *version == "1")?;
        let mut id = |name| u64::from_str_radix(field(name)?, 16).ok();
        let identity = Identity { cluster: id("cluster")?, member: id("member")? };
        let stage = field("stage")?;
        let (_, stage) = *STAGES.iter().find(|(name, _)| *name == stage)?;
        Some(Mark { identity, stage, why: field("because")?.into() })
    }
}

fn mark_path(config: &Config) -> PathBuf {
    config.tree_dir.join(MARK)
}

/// Whether the others can bring back what a member lost.
pub(super) fn is_possible(config: &Config, voters: usize) -> bool {
    voters >= VOTERS_MIN && !config.members.force_new_cluster
}

/// Begins a repair: from now on every start goes on with it. What an earlier repair had set aside is removed.
pub(super) fn begin<D: Disk>(disk: &D, config: &Config, mark: &Mark) -> Result<()> {
    if read(disk, config)?.is_none() {
        for dir in [&config.tree_dir, &config.wal_dir] {
            for name in list(disk, dir)?.iter().filter(|name| name.ends_with(ASIDE)) {
                let path = dir.join(name);
                warn!("{} of an earlier repair is removed", path.display());
                disk.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
            }
        }
    }
    write(disk, config, mark)
}

/// Marks the tree of a member that was stopped, so that the next start rebuilds it: for whoever finds out, by
/// whatever means, that its content is not what it should be.
pub(super) fn condemn<D: Disk>(disk: &D, config: &Config, identity: Identity, why: &str) -> Result<()> {
    begin(disk, config, &Mark { identity, stage: Stage::AsideAll, why: why.into() })
}

/// The repair under way, with everything set aside that should be. Each step may be cut short and is done again.
pub(super) fn resume<D: Disk>(disk: &D, config: &Config) -> Result<Option<Mark>> {
    let Some(mut mark) = read(disk, config)? else { return Ok(None) };
    if config.members.force_new_cluster {
        return Err(Error::Refused(format!(
            "{} is being repaired ({}): it holds no good copy to make a cluster of",
            config.tree_dir.display(),
            mark.why
        )));
    }
    if matches!(mark.stage, Stage::AsideLog | Stage::AsideAll) {
        set_aside(disk, &config.wal_dir, |name| name.ends_with(".wal"))?;
        if mark.stage == Stage::AsideAll {
            let tree = startup::tree_path(&config.tree_dir);
            set_aside(disk, &config.tree_dir, |name| tree.ends_with(name))?;
        }
        mark.stage = Stage::Rebuilding;
        write(disk, config, &mark)?;
    }
    Ok(Some(mark))
}

/// An empty directory under an id that may have had another life: the others know.
pub(super) fn mark_first_start<D: Disk>(
    disk: &D,
    config: &Config,
    bootstrap: &Bootstrap,
) -> Result<Option<Mark>> {
    let tree = startup::tree_path(&config.tree_dir);
    let is_there = disk.exists(&tree).map_err(|e| Error::io("look for", &tree, e))?
        || list(disk, &config.wal_dir)?.iter().any(|name| name.ends_with(".wal"));
    if is_there || !is_possible(config, bootstrap.members.len()) {
        return Ok(None);
    }
    let identity = Identity { cluster: bootstrap.cluster, member: bootstrap.member };
    let why = "the directory was empty; perhaps this member had another life".into();
    let mark = Mark { identity, stage: Stage::Fresh, why };
    write(disk, config, &mark)?;
    Ok(Some(mark))
}

fn set_aside<D: Disk>(disk: &D, dir: &Path, is_meant: impl Fn(&str) -> bool) -> Result<()> {
    for name in list(disk, dir)?.iter().filter(|name| is_meant(name)) {
        let (from, to) = (dir.join(name), dir.join(format!("{name}{ASIDE}")));
        disk.rename(&from, &to).map_err(|e| Error::io("set aside", &from, e))?;
    }
    disk.sync_dir(dir).map_err(|e| Error::io("sync the directory", dir, e))
}

fn list<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<String>> {
    disk.list(dir).map_err(|e| Error::io("list", dir, e))
}

fn read<D: Disk>(disk: &D, config: &Config) -> Result<Option<Mark>> {
    let path = mark_path(config);
    let Some(text) = small_file::read(disk, &path)? else { return Ok(None) };
    match Mark::decode(&text) {
        Some(mark) => Ok(Some(mark)),
        None => {
            let found = format!("{:?}", text.chars().take(80).collect::<String>());
            Err(Error::Refused(format!("{} is not a repair of version 1: {found}", path.display())))
        }
    }
}

/// Durable under its name when this returns.
pub(super) fn write<D: Disk>(disk: &D, config: &Config, mark: &Mark) -> Result<()> {
    small_file::replace(disk, &config.tree_dir, MARK, &mark.encode())
}

/// The last step, for the housekeeper.
pub struct Unmark<D: Disk> {
    disk: D,
    path: PathBuf,
}

impl<D: Disk> Unmark<D> {
    pub(super) fn run(self) -> Result<()> {
        let Unmark { disk, path } = self;
        let dir = path.parent().expect("the mark stands in a directory");
        disk.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
        disk.sync_dir(dir).map_err(|e| Error::io("sync the directory", dir, e))
    }
}

/// A repair as the running member sees it.
pub(super) struct Repair<D: Disk> {
    disk: D,
    why: String,
    /// The mark is being removed.
    ending: bool,
    complain_at: Mono,
}

impl<D: Disk> Repair<D> {
    pub(super) fn new(disk: &D, mark: Mark, now: Mono) -> Repair<D> {
        Repair { disk: disk.clone(), why: mark.why, ending: false, complain_at: now + COMPLAIN_EVERY }
    }
}

impl<D: Disk> Node<D> {
    /// Whether this member lost its memory and is not whole again. It answers nothing but its status.
    pub fn is_recovering(&self) -> bool {
        self.repair.is_some()
    }

    /// Whom a member that is being repaired asks, and what it has heard of them.
    #[cfg(feature = "sim")]
    pub fn recovering(&self) -> Option<Recovering> {
        self.raft.recovering()
    }

    /// After an error that ended this member: whether it is damage that the others can make good. Then the next
    /// start does that, whatever happens before. Blocks.
    pub fn condemn(&self, error: &Error) -> Result<bool> {
        let Error::Corrupt(damage) = error else { return Ok(false) };
        if !is_possible(&self.config, self.voter_count()) {
            return Ok(false);
        }
        let stage =
            if damage.file.starts_with(&self.config.wal_dir) { Stage::AsideLog } else { Stage::AsideAll };
        let (identity, why) = (self.store.identity(), damage.to_string());
        begin(self.snapshots.disk(), &self.config, &Mark { identity, stage, why })?;
        Ok(true)
    }

    fn voter_count(&self) -> usize {
        let membership = self.raft.membership();
        if membership.voters.is_empty() { usize::MAX } else { membership.voters_min() }
    }

    /// Damage was found in the tree. A leader hands over before it stops; nothing is applied or read any more.
    pub(super) fn stop_for_damage(&mut self, damage: Error, now: Mono) -> Result<()> {
        if !self.leads() || !is_possible(&self.config, self.voter_count()) {
            return Err(damage);
        }
        warn!("{damage}: handing over leadership");
        self.stop(now);
        // No chunk of this tree is made any more; who receives one gets a state from the next leader.
        if !planted::on("node-damaged-leader-keeps-streams") {
            self.end_all_sending();
        }
        self.damage = Some(damage);
        Ok(())
    }

    /// The turns of a leader whose tree is damaged, until another one leads.
    pub(super) fn turn_damaged(&mut self, now: Mono) -> Result<()> {
        if self.handed_over(now) {
            return Err(self.damage.take().expect("the tree is damaged"));
        }
        if now >= self.raft.deadline() {
            self.raft.tick(now, &self.log);
        }
        self.take_readies()?;
        self.serve_watches()?;
        self.write_log();
        Ok(())
    }

    /// Goes on with a repair, and ends it when nothing is missing any more.
    pub(super) fn advance_repair(&mut self) {
        let Some(repair) = &mut self.repair else { return };
        if repair.ending {
            return;
        }
        if self.raft.holds_all_again(self.store.applied().term) {
            repair.ending = true;
            let unmark = Unmark { disk: repair.disk.clone(), path: mark_path(&self.config) };
            self.output.jobs.push(Job::Unmark(unmark));
        } else if self.now >= repair.complain_at {
            repair.complain_at = self.now + COMPLAIN_EVERY;
            if let Some(said) = self.repair_standing() {
                warn!("{said}");
            }
        }
    }

    pub(super) fn repaired(&mut self) {
        if let Some(repair) = self.repair.take() {
            self.raft.recovered();
            info!("nothing is missing any more: this member votes and serves ({})", repair.why);
        }
    }

    /// What a member that is being repaired says of itself.
    pub(super) fn repair_standing(&self) -> Option<String> {
        let repair = self.repair.as_ref()?;
        let Recovering { floor, whole, recovering, silent } = self.raft.recovering()?;
        let mut text = format!("memberID:{:x} recovering: {}", self.id, repair.why);
        if let Some(floor) = floor {
            let _ = write!(text, "; waits for entries of term {floor} or later");
            return Some(text);
        }
        let _ = write!(text, "; a majority besides this member must be whole: {} are", whole.len());
        for (what, ids) in [("recovering too", recovering), ("not heard of", silent)] {
            if !ids.is_empty() {
                let ids: Vec<String> = ids.iter().map(|id| format!("{id:x}")).collect();
                let _ = write!(text, ", {what}: {}", ids.join(" "));
            }
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::lock_tests::Cluster;
    use super::*;

    fn damaged_leader(cluster: &mut Cluster) -> &mut Node<crate::io::sim::SimDisk> {
        let (leader, follower) = (cluster.leader(), cluster.follower());
        let node = cluster.node(leader);
        node.begin_snapshot(follower, 0);
        assert!(node.has_chunks_to_send(), "a state is on its way to the other one");
        let damage = Error::corrupt("tree".as_ref(), 4096, "page 1", "page 2", "page 1");
        node.stop_for_damage(damage, node.now).unwrap();
        node
    }

    #[test]
    fn a_damaged_leader_does_not_go_on_with_a_state_that_it_sends() {
        let mut cluster = Cluster::new(3);
        let node = damaged_leader(&mut cluster);
        assert!(!node.has_chunks_to_send());
        let again: Vec<bool> = (0..9).map(|_| node.turn(node.now).unwrap().again).collect();
        assert_eq!(again.last(), Some(&false), "turn after turn is wanted: {again:?}");
    }

    #[test]
    fn a_damaged_leader_stops_though_nobody_takes_over() {
        let mut cluster = Cluster::new(3);
        let node = damaged_leader(&mut cluster);
        let end = node.hand_over_until();
        node.turn(node.now).unwrap();
        assert!(node.leads(), "nobody hears that it hands over");
        assert!(matches!(node.turn(end), Err(Error::Corrupt(_))), "it would hand over for ever");
    }

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        for (_, stage) in STAGES {
            let mark = Mark { identity: Identity { cluster: 0xc1, member: 0x3e }, stage, why: "a: b".into() };
            assert_eq!(Mark::decode(&mark.encode()), Some(mark));
        }
        assert_eq!(Mark::decode("pawl repair 2\ncluster 1\nmember 1\nstage fresh\nbecause x\n"), None);
        assert_eq!(Mark::decode("pawl repair 1\ncluster 1\nmember 1\nstage odd\nbecause x\n"), None);
        assert_eq!(Mark::decode("pawl repair 1\ncluster 1\n"), None);
        assert_eq!(Mark::decode(""), None);
    }
}
