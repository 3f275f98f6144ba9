//! One machine of the cluster: its disk, its clock, and the process on it, if one runs.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};

use super::clock::LocalClock;
use super::options::Options;
use super::stream::stream;
use super::world::Event;
use crate::base::time::{MS, Nanos};
use crate::base::{Index, MemberId, Mono, Rng};
use crate::io::sim::SimDisk;
use crate::node::{Batch, Job, LogWriter, Node, Output};

pub struct Machine {
    /// The member that runs on it. 0: it has joined no cluster yet.
    pub id: MemberId,
    /// Whether it may run: it is of the first members, or the operator began to add it.
    pub invited: bool,
    pub disk: SimDisk,
    pub clock: LocalClock,
    pub process: Option<Box<Process>>,
    /// The power is out: nobody answers, not even the kernel.
    pub powerless: bool,
    /// It never comes back: its disk is lost or damaged, or the run has given it up.
    pub gone: bool,
    /// Bytes at rest were damaged: the member may refuse to start or stop, and say so.
    pub tainted: bool,
    /// It was made to apply an entry wrongly, now or later.
    pub misapplies: bool,
    /// It holds another state than the others.
    pub wrong: Option<super::states::Wrong>,
    /// The member that runs lost its memory and is not whole yet (or started for the first time).
    pub mending: bool,
    /// Its process has run.
    pub has_run: bool,
    /// Calls to the disk were made to fail since it was last healed: an I/O error has its reason.
    pub troubled: bool,
    /// Another member told the process that it was removed.
    pub told_removed: bool,
    /// Whom the process talks to, and until when: members for ever, removed ones for a little while.
    pub peers: BTreeMap<usize, Mono>,
    /// The process stands still until then.
    pub frozen: Option<Mono>,
    /// What came meanwhile.
    pub deferred: VecDeque<Event>,
    /// What the turn in progress decided when the process was made to stand still.
    pub unsent: Option<Box<Output<SimDisk>>>,
    /// Every call to the disk takes this much longer, until then.
    pub slow: (Nanos, Mono),
    /// Damage of the log waits for one more group, which proves that what it hits was durable.
    pub rot: Vec<Rotting>,
    /// It stays down until then.
    pub start_at: Mono,
    /// How many times it was started.
    pub starts: u64,
    pub disk_dice: Rng,
    pub node_dice: Rng,
    pub power_dice: Rng,
    pub fork_dice: Rng,
}

/// Damage that was asked for, of a byte that is known.
#[derive(Clone, Debug)]
pub struct Rotting {
    pub path: std::path::PathBuf,
    pub offset: u64,
    /// No further than what was durable when the place was picked.
    pub bytes_max: usize,
    pub kind: super::plan::Rot,
}

/// A member that runs.
pub struct Process {
    pub node: Node<SimDisk>,
    pub life: u64,
    /// Held as long as the process lives.
    pub _lock: Box<dyn Any + Send>,
    pub turn_at: Option<Mono>,
    pub writer: LogWriter<SimDisk>,
    /// The log writer's call in progress. Its effects come at its end, or in part if it never ends.
    pub writing: Option<Vec<Batch>>,
    /// The housekeeper's jobs; the first one is in progress.
    pub jobs: VecDeque<Job<SimDisk>>,
    /// A clean stop was asked for: when, and how long the machine then rests.
    pub stopping: Option<Stopping>,
    pub led: bool,
    /// What was committed when it began to lead.
    pub led_from: Index,
    pub overdue_turns: u64,
    /// Turns in a row that wanted another one and did nothing.
    pub silent_turns: u64,
    /// Requests that did not leave, as nobody could be reached: how many, since when.
    pub unsent: (u64, Mono),
}

#[derive(Default)]
pub struct Stopping {
    pub restart: Nanos,
    pub handed_over_at: Option<Mono>,
    pub gave_up: bool,
}

impl Machine {
    pub fn new(options: &Options, id: u64, now: Mono) -> Machine {
        let dice = |label| stream(options.seed, label, id);
        let mut clock_dice = dice("clock");
        Machine {
            id: if id <= options.members { id } else { 0 },
            invited: id <= options.members,
            disk: SimDisk::new(),
            clock: LocalClock::new(now, clock_dice.below(1_000_000_000 * MS)),
            process: None,
            powerless: false,
            gone: false,
            tainted: false,
            misapplies: false,
            wrong: None,
            mending: false,
            has_run: false,
            troubled: false,
            told_removed: false,
            peers: BTreeMap::new(),
            frozen: None,
            deferred: VecDeque::new(),
            unsent: None,
            slow: (0, Mono(0)),
            rot: Vec::new(),
            start_at: now,
            starts: 0,
            disk_dice: dice("disk"),
            node_dice: dice("node"),
            power_dice: dice("power"),
            fork_dice: dice("fork"),
        }
    }
}
