//! From a seed to a plan. Swarm: each seed switches each class of faults off with probability one half, and
//! draws rates and sizes from ranges of their logarithm; with everything on at once all runs would be alike,
//! and deep states would never be reached.

use super::options::{Options, UNEVEN};
use super::plan::{Action, DiskTrouble, Entry, Links, Moment, Plan, Rot, Step, Survival, Trigger, Who};
use super::plan::{ROTS, SURVIVALS};
use super::stream::{log_uniform, stream};
use crate::base::Rng;
use crate::base::time::{MS, Nanos, SECOND};

/// What kind of run a seed is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Many operations in a short time.
    Dense,
    /// Few operations in a long time.
    Sparse,
    /// One seed in eight is sparse.
    Mixed,
}

/// The plan of a seed.
pub fn generate(seed: u64, load: Load) -> Plan {
    let mut dice = stream(seed, "swarm", 0);
    let sparse = match load {
        Load::Dense => false,
        Load::Sparse => true,
        Load::Mixed => seed % 8 == 7,
    };
    let options = options(seed, sparse, &mut dice);
    let entries = Faults { options: &options, dice, entries: Vec::new() }.write();
    Plan { options, entries }
}

fn options(seed: u64, sparse: bool, dice: &mut Rng) -> Options {
    let members = [3, 3, 3, 3, 3, 5, 5, 5, 1, 2, 4, 7][dice.below(12) as usize];
    let spares = if dice.one_in(3) { 0 } else { dice.between(1, 5) };
    let heartbeat = [20 * MS, 20 * MS, 50 * MS, 100 * MS][dice.below(4) as usize];
    let faults = if sparse { dice.between(120, 900) * SECOND } else { log_uniform(dice, 2_000, 16_000) * MS };
    let ops = if sparse { faults / SECOND * 4 } else { log_uniform(dice, 500, 6_000) };
    let clients = if sparse { dice.between(1, 4) } else { dice.between(2, 16) };
    let frames = dice.one_in(3);
    // Of the seed itself: a new draw would make other plans of all seeds.
    let uneven = seed % 4 == 3;
    let mut compactions = stream(seed, "compactions", 0);
    let (many_keys, page_bytes) = many_keys(seed);
    let mut watching = stream(seed, "watching", 0);
    let leases = if sparse || seed % 3 == 1 { 2 + seed % 7 } else { 0 };
    let locks = if leases > 0 && seed % 4 > 1 { 1 + seed % 3 } else { 0 };
    let (grpc, wire_resets, wire_stalls) = in_bytes(seed);
    let mut rate = |low, high| if dice.one_in(2) { 0 } else { log_uniform(dice, low, high) };
    let (loss, repeat, overtake, recut) =
        (rate(1_000, 200_000), rate(1_000, 200_000), rate(1_000, 100_000), rate(20_000, 500_000));
    Options {
        seed,
        members,
        spares,
        clients,
        watchers: watching.below(5),
        watch_work: log_uniform(&mut watching, 16, 8_192),
        ops,
        keys: many_keys.unwrap_or(log_uniform(dice, 1, 64)),
        leases,
        locks,
        ttl_max: if sparse { 20 + seed % 11 * 20 } else { 2 + seed % 5 },
        value_max: log_uniform(dice, 64, 20_000),
        // Of the seed itself, too.
        txns: [0, 5, 20, 60][((seed ^ (seed / 8)) % 4) as usize],
        think: faults / 2 * clients / ops.max(1),
        faults,
        calm: if dice.one_in(4) || sparse { 60 * SECOND } else { 10 * SECOND },
        heartbeat,
        election: heartbeat * dice.between(5, 10) * if uneven { UNEVEN } else { 1 },
        uneven,
        page_bytes,
        segment_bytes: [8 << 10, 16 << 10, 64 << 10, 256 << 10][dice.below(4) as usize],
        catchup: log_uniform(dice, 5, 500),
        checkpoint: log_uniform(dice, 20, 1_000),
        lease_reads: !dice.one_in(3),
        pre_vote: !dice.one_in(8),
        strict: !dice.one_in(3),
        frames,
        loss,
        repeat: if frames { repeat } else { 0 },
        overtake: if frames { overtake } else { 0 },
        latency: log_uniform(dice, MS / 20, 4 * MS),
        sync: log_uniform(dice, MS / 10, 8 * MS),
        recut,
        compact: if compactions.one_in(2) { 0 } else { log_uniform(&mut compactions, 6, 400) },
        sweep: log_uniform(&mut compactions, 1, 24),
        quota: if compactions.one_in(4) { log_uniform(&mut compactions, 28, 256) << 10 } else { 0 },
        // Of the seed itself, too.
        alarms: if seed % 10 == 7 { 20 + seed % 7 * 30 } else { 0 },
        retention: if compactions.one_in(6) { log_uniform(&mut compactions, 100, 5_000) * MS } else { 0 },
        retention_revisions: if compactions.one_in(6) { log_uniform(&mut compactions, 1, 1_000) } else { 0 },
        forks: log_uniform(dice, 60, 1_000),
        grpc,
        wire_resets,
        wire_stalls,
    }
}

/// One seed in five has clients that speak gRPC in bytes: how many of a hundred, and what happens to these. By dice of its own.
fn in_bytes(seed: u64) -> (u64, u64, u64) {
    let mut dice = stream(seed, "in bytes", 0);
    if !dice.one_in(5) {
        return (0, 0, 0);
    }
    let many = [30, 60, 100][dice.below(3) as usize];
    let mut rate = || if dice.one_in(3) { 0 } else { log_uniform(&mut dice, 300, 20_000) };
    (many, rate(), rate())
}

/// One seed in eight has so many keys, on so small pages, that the tree of keys has several levels. By dice of its own,
/// which leave all else as it is.
fn many_keys(seed: u64) -> (Option<u64>, u64) {
    let mut dice = stream(seed, "many keys", 0);
    if !dice.one_in(8) {
        return (None, 4096);
    }
    (Some(log_uniform(&mut dice, 256, 4_096)), [256, 256, 512, 1024][dice.below(4) as usize])
}

/// Writes the lines.
struct Faults<'a> {
    options: &'a Options,
    dice: Rng,
    entries: Vec<Entry>,
}

impl Faults<'_> {
    fn write(mut self) -> Vec<Entry> {
        let (members, machines) = (self.options.members, self.options.machines());
        let minority = (members - 1) / 2;
        // A mean of one fault of a class for so long a time.
        let span = self.options.faults;
        self.class(span / 400 * 100, Faults::power);
        self.class(span / 4, Faults::kill);
        self.class(span / 2, Faults::stop);
        self.class(span / 4, Faults::pause);
        self.class(span / 3, Faults::disk_call);
        self.class(span / 3, Faults::slow_or_full);
        self.class(span / 2, Faults::drift);
        if machines > 1 {
            self.class(span / 5, Faults::cut);
            self.class(span / 4, Faults::lag);
            self.class(span / 4, Faults::reset);
        }
        if minority > 0 {
            self.class(span, Faults::damage);
            self.class(2 * span, |this, at| {
                let who = this.member();
                // Not while voters come and go: one that is added has no state yet, and can bear nobody out.
                if this.options.spares == 0 {
                    this.push(Trigger::At(at), Action::CorruptState { who });
                }
            });
            self.class(2 * span, |this, at| {
                let who = this.member();
                this.push(Trigger::At(at), Action::LoseDisk { who });
            });
        }
        if self.options.spares > 0 {
            self.changes();
            self.changes_together();
        }
        if !self.dice.one_in(3) {
            for _ in 0..self.dice.between(1, 6) {
                self.on_moment();
            }
        }
        let key = |entry: &Entry| match entry.trigger {
            Trigger::At(at) => at,
            Trigger::When { .. } => Nanos::MAX,
        };
        self.entries.sort_by_key(key);
        self.entries
    }

    /// Off once in two; otherwise as many as a rate from a wide range brings in the time there is.
    fn class(&mut self, mean: Nanos, mut make: impl FnMut(&mut Self, Nanos)) {
        if self.dice.one_in(2) {
            return;
        }
        // From a quarter to four times the mean rate; a class that is on happens at least once, mostly.
        let quarters = log_uniform(&mut self.dice, 1, 16);
        let count = (self.options.faults * quarters / mean.max(1)).div_ceil(4).clamp(1, 60);
        for _ in 0..count {
            let at = self.dice.below(self.options.faults) / 1_000 * 1_000;
            make(self, at);
        }
    }

    fn push(&mut self, trigger: Trigger, action: Action) {
        self.entries.push(Entry { trigger, action });
    }

    /// Spares are machines like others once a member was added on them.
    fn machine(&mut self) -> u64 {
        self.dice.between(1, self.options.machines())
    }

    /// Once in four whoever leads.
    fn member(&mut self) -> Who {
        match self.dice.one_in(4) {
            true => Who::Leader,
            false => Who::Member(self.machine()),
        }
    }

    /// From a blink to a long outage.
    fn away(&mut self) -> Nanos {
        let most = (self.options.faults / 4).max(200 * MS);
        log_uniform(&mut self.dice, MS, most) / 1_000 * 1_000
    }

    fn survival(&mut self) -> Survival {
        match self.dice.below(8) {
            0..=3 => Survival::PosixWorst,
            _ => SURVIVALS[self.dice.below(5) as usize].1,
        }
    }

    fn power_cut(&mut self, who: Who) -> Action {
        Action::PowerCut { who, survival: self.survival(), restart: self.away() }
    }

    fn power(&mut self, at: Nanos) {
        let who = self.member();
        let cut = self.power_cut(who);
        self.push(Trigger::At(at), cut);
        // All at once, now and then: then only the disks know.
        if self.dice.one_in(8) {
            for id in 1..=self.options.machines() {
                let cut = self.power_cut(Who::Member(id));
                self.push(Trigger::At(at), cut);
            }
        }
    }

    /// Once in three followed by a power cut, before much can be synced again.
    fn kill(&mut self, at: Nanos) {
        let who = Who::Member(self.machine());
        let restart = if self.dice.one_in(2) { self.dice.between(1, 20) * MS } else { self.away() };
        self.push(Trigger::At(at), Action::Kill { who, restart });
        if self.dice.one_in(3) {
            let soon = restart + log_uniform(&mut self.dice, MS / 10, 200 * MS);
            let cut = self.power_cut(who);
            self.push(Trigger::At(at + soon / 1_000 * 1_000), cut);
        }
    }

    fn stop(&mut self, at: Nanos) {
        let action = Action::Stop { who: self.member(), restart: self.away() };
        self.push(Trigger::At(at), action);
    }

    fn pause(&mut self, at: Nanos) {
        let action = self.pause_of_someone();
        self.push(Trigger::At(at), action);
    }

    fn pause_of_someone(&mut self) -> Action {
        let longest = 20 * self.options.election;
        Action::Pause {
            who: self.member(),
            length: log_uniform(&mut self.dice, MS, longest) / 1_000 * 1_000,
            mid_turn: self.dice.one_in(2),
            clock_stops: !self.options.lease_reads && self.dice.one_in(3),
        }
    }

    fn disk_call(&mut self, at: Nanos) {
        let file = ["wal", "wal", "tree", ""][self.dice.below(4) as usize].to_string();
        let skip = self.dice.below(4);
        let trouble = match self.dice.below(3) {
            0 => DiskTrouble::FailSync { file, skip },
            1 => DiskTrouble::FailWrite { file, skip },
            _ => DiskTrouble::FailRead { file, skip },
        };
        let who = self.member();
        self.push(Trigger::At(at), Action::Disk { who, trouble });
    }

    fn slow_or_full(&mut self, at: Nanos) {
        let length = self.away().max(50 * MS);
        let trouble = match self.dice.one_in(2) {
            true => DiskTrouble::Slow { delay: log_uniform(&mut self.dice, MS, SECOND), length },
            false => DiskTrouble::Full { spare_bytes: self.dice.below(6) * (16 << 10), length },
        };
        let who = self.member();
        self.push(Trigger::At(at), Action::Disk { who, trouble });
    }

    fn drift(&mut self, at: Nanos) {
        let most = if self.options.lease_reads { 19_000 } else { 500_000 };
        let ppm = log_uniform(&mut self.dice, 10, most).cast_signed();
        let ppm = if self.dice.one_in(2) { ppm } else { -ppm };
        let who = Who::Member(self.machine());
        self.push(Trigger::At(at), Action::Drift { who, ppm });
    }

    /// Some of all members, never all of them; clients too, now and then.
    fn side(&mut self) -> (Vec<u64>, Vec<u64>) {
        let members = self.options.machines();
        let first = self.dice.between(1, members);
        let (mut one, mut two) = (vec![first], Vec::new());
        for id in (1..=members).filter(|id| *id != first) {
            if members > 2 && self.dice.one_in(3) { one.push(id) } else { two.push(id) }
        }
        if self.dice.one_in(6) {
            two.push(0);
        }
        if two.is_empty() {
            two.push(0);
        }
        (one, two)
    }

    fn links(&mut self) -> Links {
        let (from, to) = self.side();
        let (from, to) = if self.dice.one_in(2) { (from, to) } else { (to, from) };
        Links { from, to, both: !self.dice.one_in(3) }
    }

    fn one_link(&mut self) -> Links {
        let members = self.options.machines();
        let from = self.dice.between(1, members);
        let to = (from + self.dice.between(1, members - 1) - 1) % members + 1;
        Links { from: vec![from], to: vec![to], both: self.dice.one_in(2) }
    }

    fn cut(&mut self, at: Nanos) {
        let links = if self.dice.one_in(3) { self.one_link() } else { self.links() };
        let length = self.away();
        self.push(Trigger::At(at), Action::Cut { links, length });
    }

    fn lag(&mut self, at: Nanos) {
        let links = if self.dice.one_in(2) { self.one_link() } else { self.links() };
        let longest = 3 * self.options.election;
        let (delay, length) = (log_uniform(&mut self.dice, MS, longest), self.away());
        self.push(Trigger::At(at), Action::Lag { links, delay, length });
    }

    fn reset(&mut self, at: Nanos) {
        let links = self.one_link();
        self.push(Trigger::At(at), Action::Reset { links });
    }

    fn damage(&mut self, at: Nanos) {
        let who = self.member();
        let trouble = match self.dice.below(6) {
            0 => DiskTrouble::LoseWrite { skip: self.dice.below(4) },
            1 => DiskTrouble::Misdirect { skip: self.dice.below(4) },
            _ => DiskTrouble::Damage {
                file: ["wal", "tree", ""][self.dice.below(3) as usize].to_string(),
                kind: self.rot(),
                place: self.dice.below(1_000),
            },
        };
        self.push(Trigger::At(at), Action::Disk { who, trouble });
    }

    // ---- Changes of the membership, and of who leads

    fn changes(&mut self) {
        let mut spares = self.options.members + 1..=self.options.machines();
        for _ in 0..log_uniform(&mut self.dice, 2, 16) {
            let at = self.dice.below(self.options.faults) / 1_000 * 1_000;
            match self.dice.below(12) {
                0..=2 => self.add(at, &mut spares),
                3 => self.replace(at, &mut spares),
                4..=6 => self.remove(at),
                7 => {
                    let who = self.member();
                    self.order(at, Step::Update, who);
                }
                8 => {
                    let who = Who::Member(self.machine());
                    self.order(at, Step::Promote, who);
                }
                _ => {
                    let who = Who::Member(self.machine());
                    self.order(at, Step::Transfer, who);
                }
            }
        }
    }

    fn order(&mut self, at: Nanos, step: Step, who: Who) {
        self.push(Trigger::At(at), Action::Order { step, who });
    }

    /// As a voter at once, or as a learner that is promoted soon, perhaps before it has caught up.
    fn add(&mut self, at: Nanos, spares: &mut impl Iterator<Item = u64>) {
        let Some(who) = spares.next().map(Who::Member) else { return };
        if self.dice.one_in(2) {
            return self.order(at, Step::AddVoter, who);
        }
        self.order(at, Step::AddLearner, who);
        let soon = log_uniform(&mut self.dice, MS, SECOND);
        self.order(at + soon / 1_000 * 1_000, Step::Promote, who);
    }

    /// A member that is up, or has just gone down, or cannot be reached and will not learn of it.
    fn remove(&mut self, at: Nanos) {
        let who = self.member();
        match (self.dice.below(4), who) {
            (0, _) => {
                let cut = self.power_cut(who);
                self.push(Trigger::At(at), cut);
            }
            (1, Who::Member(id)) => {
                let others = (0..=self.options.machines()).filter(|other| *other != id).collect();
                let links = Links { from: vec![id], to: others, both: true };
                let length = self.away();
                self.push(Trigger::At(at), Action::Cut { links, length });
            }
            _ => {}
        }
        let soon = log_uniform(&mut self.dice, MS, SECOND);
        self.order(at + soon / 1_000 * 1_000, Step::Remove, who);
    }

    /// A machine whose disk is lost makes room for another one.
    fn replace(&mut self, at: Nanos, spares: &mut impl Iterator<Item = u64>) {
        let who = Who::Member(self.machine());
        self.push(Trigger::At(at), Action::LoseDisk { who });
        let mut then = at;
        for second in [false, true] {
            then += log_uniform(&mut self.dice, MS, SECOND) / 1_000 * 1_000;
            if second { self.add(then, spares) } else { self.order(then, Step::Remove, who) }
        }
    }

    /// Several changes in one step, and trouble in the middle of it. They have their own dice, so that the rest of a plan
    /// is what it was without them.
    fn changes_together(&mut self) {
        let own = stream(self.options.seed, "together", 0);
        let dice = std::mem::replace(&mut self.dice, own);
        for _ in 0..self.dice.below(4) {
            let at = self.dice.below(self.options.faults) / 1_000 * 1_000;
            self.change_together(at);
        }
        if self.dice.one_in(2) {
            let restart = self.away();
            let moment = if self.dice.one_in(2) { Moment::ChangeBegins } else { Moment::ChangeApplied };
            let nth = self.dice.between(1, 6);
            let cut = self.power_cut(Who::Subject);
            let action = if self.dice.one_in(2) { cut } else { Action::Kill { who: Who::Subject, restart } };
            self.push(Trigger::When { moment, nth }, action);
        }
        self.dice = dice;
    }

    /// A learner takes the place of a voter, or some go and others come.
    fn change_together(&mut self, at: Nanos) {
        let (members, machines) = (self.options.members, self.options.machines());
        let first = self.dice.between(1, members);
        let one = if self.dice.one_in(3) { Who::Leader } else { Who::Member(first) };
        let mut steps = vec![(Step::Remove, one)];
        if self.dice.one_in(2) && members > 1 {
            steps.push((Step::Remove, Who::Member(first % members + 1)));
        }
        let spare = self.dice.between(members + 1, machines);
        let come = Who::Member(spare);
        if self.dice.one_in(3) {
            steps.push((if self.dice.one_in(2) { Step::AddVoter } else { Step::AddLearner }, come));
            if self.dice.one_in(2) && spare < machines {
                steps.push((Step::AddVoter, Who::Member(spare + 1)));
            }
            return self.push(Trigger::At(at), Action::Together { steps });
        }
        self.order(at, Step::AddLearner, come);
        steps.push((Step::Promote, come));
        let later = log_uniform(&mut self.dice, 10 * MS, 2 * SECOND);
        self.push(Trigger::At(at + later / 1_000 * 1_000), Action::Together { steps });
    }

    fn rot(&mut self) -> Rot {
        ROTS[self.dice.below(4) as usize].1
    }

    /// A fault that waits for a moment of the protocol.
    fn on_moment(&mut self) {
        let moments: Vec<Moment> = Moment::all().collect();
        let moment = moments[self.dice.below(moments.len() as u64) as usize];
        let rare = !matches!(
            moment,
            Moment::AppendSent
                | Moment::AppendAccepted
                | Moment::ProposeSent
                | Moment::ReadIndexSent
                | Moment::LogWrite
                | Moment::JobBegins
                | Moment::Answered
        );
        let most = if rare { 6 } else { self.options.ops.max(2) };
        let nth = log_uniform(&mut self.dice, 1, most);
        let who = if self.dice.one_in(3) { Who::Other } else { Who::Subject };
        let restart = self.away();
        let orders = self.options.spares > 0 && self.dice.one_in(4);
        let action = match self.dice.below(5) {
            0 | 1 if orders => Action::Order { step: Step::Transfer, who },
            2 if orders => Action::Order { step: Step::Remove, who },
            0 | 1 => self.power_cut(who),
            2 => Action::Kill { who, restart },
            3 => match self.pause_of_someone() {
                Action::Pause { length, mid_turn, clock_stops, .. } => {
                    Action::Pause { who, length, mid_turn, clock_stops }
                }
                other => other,
            },
            _ => {
                let file = ["wal", "tree"][self.dice.below(2) as usize].to_string();
                Action::Disk { who, trouble: DiskTrouble::FailSync { file, skip: self.dice.below(2) } }
            }
        };
        self.push(Trigger::When { moment, nth }, action);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_generated_plan_can_be_written_and_read() {
        let mut classes = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let plan = generate(seed, Load::Mixed);
            plan.options.check().unwrap();
            assert_eq!(Plan::parse(&plan.to_string()).unwrap(), plan, "seed {seed}");
            classes.extend(plan.entries.iter().map(|entry| entry.action.class()));
        }
        assert_eq!(classes.len(), 25, "every class of faults is drawn: {classes:?}");
    }
}
