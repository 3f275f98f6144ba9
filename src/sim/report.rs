//! What came of runs: one failure, one run, many runs.

use std::collections::BTreeMap;
use std::fmt;

use super::probes::Probes;
use crate::base::time::{MS, Nanos, SECOND};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which one: `V01`, `history/real-time`, `panic src/raft/log.rs:88`. A smaller plan must break the same.
    pub id: String,
    pub what: String,
    /// Since the start.
    pub at: Nanos,
}

/// What is counted in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Starts of a process after its first.
    pub recoveries: u64,
    /// Recoveries of copies.
    pub forks: u64,
    /// Members that gave up because a disk failed them.
    pub stops: u64,
    pub elections: u64,
    /// Claims of durability that were checked.
    pub claims: u64,
    /// Operations whose answers were checked.
    pub ops: u64,
    /// Operations of unknown outcome.
    pub unknown: u64,
    /// Revisions that watches were told of.
    pub told: u64,
    pub events: u64,
    pub nanos: Nanos,
    /// Members that noticed that their state is wrong, and what the slowest took for it: since the entry was
    /// applied, and entries applied behind it.
    pub noticed: u64,
    pub notice_nanos_max: Nanos,
    pub notice_entries_max: u64,
    /// Compactions that clients ordered, starts in the middle of a sweep, and revisions that a compaction hid before
    /// they were read back.
    pub compactions: u64,
    pub starts_in_sweep: u64,
    pub unread: u64,
    /// What came of watches, by what they asked for: an option, and a result.
    pub watches: BTreeMap<(&'static str, &'static str), u64>,
    /// Faults that were done and orders that were given, by class.
    pub faults: BTreeMap<&'static str, u64>,
    /// Orders of the operator that were carried out.
    pub changes: BTreeMap<&'static str, u64>,
    pub probes: Probes,
}

impl Tally {
    pub fn count(&mut self, class: &'static str) {
        *self.faults.entry(class).or_default() += 1;
    }

    pub fn add(&mut self, other: &Tally) {
        for (sum, more) in [
            (&mut self.recoveries, other.recoveries),
            (&mut self.forks, other.forks),
            (&mut self.stops, other.stops),
            (&mut self.elections, other.elections),
            (&mut self.claims, other.claims),
            (&mut self.ops, other.ops),
            (&mut self.unknown, other.unknown),
            (&mut self.told, other.told),
            (&mut self.events, other.events),
            (&mut self.nanos, other.nanos),
            (&mut self.noticed, other.noticed),
            (&mut self.compactions, other.compactions),
            (&mut self.starts_in_sweep, other.starts_in_sweep),
            (&mut self.unread, other.unread),
        ] {
            *sum += more;
        }
        self.notice_nanos_max = self.notice_nanos_max.max(other.notice_nanos_max);
        self.notice_entries_max = self.notice_entries_max.max(other.notice_entries_max);
        for (sums, counts) in [(&mut self.faults, &other.faults), (&mut self.changes, &other.changes)] {
            for (class, count) in counts {
                *sums.entry(class).or_default() += count;
            }
        }
        for (name, count) in &other.probes {
            *self.probes.entry(name.clone()).or_default() += count;
        }
        for (probe, count) in &other.watches {
            *self.watches.entry(*probe).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.nanos / (36 * SECOND);
        writeln!(
            f,
            "{} operations checked, {} unknown, {} told to watches; {} recoveries, {} forks, {} claims; {}.{:02} simulated hours, {} events",
            self.ops,
            self.unknown,
            self.told,
            self.recoveries,
            self.forks,
            self.claims,
            hours / 100,
            hours % 100,
            self.events,
        )?;
        let total: u64 = self.faults.values().sum();
        write!(
            f,
            "{total} faults: {}; {} elections, {} stops of members; carried out: {}",
            listed(&self.faults),
            self.elections,
            self.stops,
            listed(&self.changes),
        )?;
        if self.noticed > 0 {
            let ms = self.notice_nanos_max / MS;
            let (noticed, entries) = (self.noticed, self.notice_entries_max);
            write!(f, "; {noticed} wrong states noticed, within {ms} ms and {entries} entries")?;
        }
        if self.compactions > 0 {
            write!(
                f,
                "; {} compactions, {} starts in the middle of a sweep, {} revisions compacted unread",
                self.compactions, self.starts_in_sweep, self.unread
            )?;
        }
        Ok(())
    }
}

fn listed(counts: &BTreeMap<&'static str, u64>) -> String {
    if counts.is_empty() {
        return "none".into();
    }
    counts.iter().map(|(class, count)| format!("{class} {count}")).collect::<Vec<_>>().join(", ")
}

/// What came of one run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub tally: Tally,
    /// Two runs of one plan agree on it.
    pub hash: u64,
    pub failure: Option<Failure>,
    /// The last lines of the log, if they were kept.
    pub lines: Vec<String>,
}
