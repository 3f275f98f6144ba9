//! From a plan that fails to a small one that fails the same way.
//!
//! 1. Nothing behind the failure is needed: the lines that were due later go, and the time for them.
//! 2. Delta debugging over the lines (Zeller and Hildebrandt, 2002): halves, quarters, ... single lines are left
//!    out as long as the rest still fails.
//! 3. The options: fewer clients, operations, members, keys; no losses; no calm.
//! 4. Once more from 2, until nothing helps or the budget is used up.
//!
//! Because every part of the world has dice of its own, leaving something out changes little else.

use super::options::Options;
use super::plan::{Action, Entry, Plan, Trigger, Who};
use super::report::Failure;
use super::run::{View, run};
use crate::base::time::{MS, SECOND};

/// The smallest failing plan that was found.
pub struct Shrunk {
    pub plan: Plan,
    pub failure: Failure,
    /// Plans that were tried.
    pub runs: u64,
}

struct Shrinker<'a> {
    best: Plan,
    failure: Failure,
    runs: u64,
    /// Asked before each run.
    go_on: &'a mut dyn FnMut() -> bool,
}

/// Makes `plan`, which ends with `failure`, smaller as long as `go_on` says so.
pub fn shrink(plan: &Plan, failure: &Failure, go_on: &mut dyn FnMut() -> bool) -> Shrunk {
    let mut shrinker = Shrinker { best: plan.clone(), failure: failure.clone(), runs: 0, go_on };
    shrinker.cut_the_end();
    loop {
        let before = size(&shrinker.best);
        shrinker.fewer_entries();
        shrinker.simpler_options();
        shrinker.shorter_times();
        if size(&shrinker.best) == before || !(shrinker.go_on)() {
            break;
        }
    }
    let Shrinker { best, failure, runs, .. } = shrinker;
    Shrunk { plan: best, failure, runs }
}

fn size(plan: &Plan) -> (usize, String) {
    (plan.entries.len(), plan.to_string())
}

impl Shrinker<'_> {
    /// Takes the candidate over if it fails with the same promise broken.
    fn try_plan(&mut self, candidate: Plan) -> bool {
        if candidate == self.best || candidate.options.check().is_err() || !(self.go_on)() {
            return false;
        }
        self.runs += 1;
        match run(&candidate, View::default()).failure {
            Some(failure) if failure.id == self.failure.id => {
                (self.best, self.failure) = (candidate, failure);
                true
            }
            _ => false,
        }
    }

    fn cut_the_end(&mut self) {
        let end = self.failure.at;
        if end >= self.best.options.faults {
            return;
        }
        let mut candidate = self.best.clone();
        candidate.entries.retain(|entry| !matches!(entry.trigger, Trigger::At(at) if at > end));
        candidate.options.faults = (end + SECOND) / MS * MS;
        self.try_plan(candidate);
    }

    fn fewer_entries(&mut self) {
        let mut parts = 2;
        while !self.best.entries.is_empty() {
            let count = self.best.entries.len();
            parts = parts.min(count);
            let chunk = count.div_ceil(parts);
            let without = |at: usize, entries: &[Entry]| {
                let mut left = entries.to_vec();
                left.drain(at * chunk..((at + 1) * chunk).min(count));
                left
            };
            let smaller = (0..parts).rev().filter(|at| at * chunk < count).any(|at| {
                let entries = without(at, &self.best.entries);
                self.try_plan(Plan { entries, options: self.best.options.clone() })
            });
            if smaller {
                parts = (parts - 1).max(2);
            } else if parts == count {
                return;
            } else {
                parts *= 2;
            }
            if !(self.go_on)() {
                return;
            }
        }
    }

    fn simpler_options(&mut self) {
        let simpler: [fn(&mut Options); 16] = [
            |o| o.calm = 0,
            |o| (o.loss, o.repeat, o.overtake) = (0, 0, 0),
            |o| o.recut = 0,
            |o| o.frames = false,
            |o| o.spares = 0,
            |o| o.spares = o.spares.saturating_sub(1),
            |o| o.members = 3.min(o.members),
            |o| o.members = o.members.saturating_sub(1),
            |o| o.ops /= 4,
            |o| o.ops = o.ops * 3 / 4,
            |o| o.clients = (o.clients / 2).max(1),
            |o| o.keys = (o.keys / 2).max(1),
            |o| o.value_max = o.value_max.min(64),
            |o| o.faults /= 2,
            |o| o.lease_reads = true,
            |o| o.pre_vote = true,
        ];
        for change in simpler {
            // Whatever can be halved is halved again.
            for _ in 0..8 {
                let mut candidate = self.best.clone();
                change(&mut candidate.options);
                if names_more_than(&candidate) || !self.try_plan(candidate) {
                    break;
                }
            }
        }
    }

    /// Round numbers are easier to read.
    fn shorter_times(&mut self) {
        for at in 0..self.best.entries.len() {
            let mut candidate = self.best.clone();
            if let Trigger::At(time) = &mut candidate.entries[at].trigger {
                *time = *time / (10 * MS) * (10 * MS);
            }
            self.try_plan(candidate);
        }
    }
}

/// Whether a line names a machine that there is not.
fn names_more_than(plan: &Plan) -> bool {
    let machines = plan.options.machines();
    let beyond = |who: &Who| matches!(who, Who::Member(id) if *id > machines);
    plan.entries.iter().any(|entry| match &entry.action {
        Action::PowerCut { who, .. }
        | Action::Kill { who, .. }
        | Action::Stop { who, .. }
        | Action::Pause { who, .. }
        | Action::LoseDisk { who }
        | Action::Disk { who, .. }
        | Action::CorruptState { who }
        | Action::Drift { who, .. }
        | Action::Order { who, .. } => beyond(who),
        Action::Together { steps } => steps.iter().any(|(_, who)| beyond(who)),
        Action::Cut { links, .. } | Action::Lag { links, .. } | Action::Reset { links } => {
            links.from.iter().chain(&links.to).any(|id| *id > machines)
        }
    })
}
