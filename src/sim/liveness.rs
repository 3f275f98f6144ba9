//! After the faults: some core of the cluster is well and stays so, all else is broken for good. Then the core
//! must be back by itself, and stay quiet.
//!
//! - L1: one leader within ten election timeouts (and the time that a backlog needs, or a change that waits
//!   for a stream that lost a frame).
//! - L2: every operation that a client waits for is answered, or given up by its own patience.
//! - L3: new writes are acknowledged.
//! - L4: nobody is elected again as long as nothing happens.
//! - L5: at the end all members of the core have applied the same.
//! - L9: and have swept all that compactions left.
//! - L15: the alarm stands where there is no room, and only there; `room_watch` has the details.
//! - L14: and given back the room: their files are not much longer than what is in use.
//! - L10: leases go when their time is over; `lease_watch` has the details.
//! - L11: and all who watch have been told everything.
//! - L17: and a watch over gRPC that was cancelled is said to be over.
//! - L12: who waits for a lock and has become the first is told so; `clients` looks when a client would give up.
//! - L7: the operator can change something: remove a member that is gone, or move one; and hand leadership over. So a
//!   joint membership was left by then.
//! - L8: before the core is chosen, with all that is left of the cluster connected: a member whose state is wrong
//!   notices, or doubts it, and the one that differs from it does so too: then it is for the operator to say who is right.

use super::operator::Outcome;
use super::plan::{Step, Who};
use super::world::{START, World};
use crate::base::time::{MS, Nanos, SECOND};
use crate::node::SWEEP_PAUSE;
use crate::raft::quorum::majority;

/// A connection that was being made while its link was cut is noticed and made again after this; as in `net::peers`.
const RECONNECT: Nanos = 2_750 * MS;

/// As in `node::snapshots`, and the pause before the next attempt.
const STREAM_PATIENCE: Nanos = 31 * SECOND;

/// As in `node::snapshots`: a member whose disk was full takes no state for so long, and its leader tries each second.
const ROOM_PATIENCE: Nanos = 6 * SECOND;

/// Within so long of having applied the same entries members know that they differ.
const NOTICE: Nanos = SECOND;

/// A member whose file is short but for so much, and the time it takes to get there.
const SPARE_BYTES: u64 = 512 << 10;
const SHRINK: Nanos = 60 * SECOND;

/// The longest that a client waits for an answer, in election timeouts; as in `clients`.
const CLIENT_PATIENCE_MAX: u64 = 80;

/// How long an entry of a backlog may take to be caught up.
const BACKLOG_ENTRY: Nanos = MS / 2;

impl World {
    /// Faults end here. What was unreliable is reliable, or gone.
    fn heal(&mut self) {
        self.calm = true;
        self.clients.alarms = 0;
        self.leases.healed_at = self.now;
        self.dismiss_operator();
        self.net.calm();
        let members: Vec<usize> = self.members().collect();
        let machines = self.machines.len();
        for from in 0..machines {
            for to in 0..machines {
                let link = self.net.link(from, to);
                (link.cuts, link.lag) = (0, 0);
            }
        }
        for member in members {
            if self.machines[member].process.as_ref().is_some_and(|process| process.stopping.is_some()) {
                // An operator's stop would be one more fault.
                self.end_process(member, false);
            }
            let machine = &mut self.machines[member];
            machine.slow = (0, START);
            machine.start_at = self.now;
            machine.disk.heal();
            if machine.frozen.is_some() {
                machine.frozen = Some(self.now);
                self.after(0, super::world::Event::Thaw { member, clock: true });
            }
            self.after(0, super::world::Event::Start { member });
        }
        for from in 0..machines {
            for to in 0..machines {
                self.link_healed(from, to);
            }
        }
    }

    /// Chooses who stays: a majority of whole members at least, those that they can repair, and other members are gone
    /// for good. Machines whose member was removed stay: they must disturb nobody.
    fn choose_core(&mut self) {
        let mut dice = super::stream::stream(self.options.seed, "core", 0);
        // Who knows that its state is wrong waits for its operator.
        let beyond_repair = |at: &usize| {
            let machine = &self.machines[*at];
            machine.tainted && (!machine.mending || machine.misapplies)
        };
        let damaged: Vec<usize> = self.members().filter(beyond_repair).collect();
        for member in damaged {
            self.lose_for_good(member);
        }
        // Where members came and went, who is mending may know too few of those who are there now.
        for member in self.enrolled() {
            if self.options.spares > 0 && self.machines[member].mending && self.may_lose(member) {
                self.lose_for_good(member);
            }
        }
        let mut well = self.enrolled();
        well.retain(|member| !self.machines[*member].mending);
        for _ in 0..dice.below(well.len() as u64 + 1) {
            let member = well.swap_remove(dice.below(well.len() as u64) as usize);
            if self.may_lose(member) {
                self.lose_for_good(member);
            }
        }
    }

    /// Who is mending asks the voters that its own, old state names, and needs a majority of these, itself not counted. Of
    /// those some may have been removed since, and be right to be silent: then it waits for its operator, who removes it,
    /// and nothing is promised of it. (`choose_core` cannot tell where additions are in doubt, which may have no
    /// majority without it.)
    fn lose_who_cannot_be_repaired(&mut self) {
        if self.agreed_leader().is_some() {
            return;
        }
        for member in self.enrolled() {
            if self.knows_too_few(member) {
                self.lose_for_good(member);
            }
        }
    }

    fn knows_too_few(&self, member: usize) -> bool {
        let Some(process) = &self.machines[member].process else { return false };
        let Some(recovering) = process.node.recovering() else { return false };
        let (_, applied) = process.node.standing();
        if recovering.floor.is_some() || self.watch.roster.at(applied.index).membership.is_joint() {
            return false;
        }
        let others: Vec<u64> = [recovering.whole, recovering.recovering, recovering.silent].concat();
        let helps = |machine: &usize| {
            let process = self.machines[*machine].process.as_ref();
            process.is_some_and(|process| !process.node.is_recovering())
        };
        let whole = self.watch.roster.machines_of(&others).into_iter().filter(helps).count();
        whole < majority(others.len() + 1)
    }

    fn lose_for_good(&mut self, member: usize) {
        if self.machines[member].gone {
            return;
        }
        self.trace.line(self.now, member as u64, || "is gone for good".into());
        self.end_process(member, true);
        let machine = &mut self.machines[member];
        (machine.gone, machine.powerless) = (true, true);
    }

    /// The members, as far as is known to be committed, that are not gone for good.
    pub(super) fn enrolled(&self) -> Vec<usize> {
        let here = |at: &usize| self.watch.roster.is_enrolled(*at) && !self.machines[*at].gone;
        self.members().filter(here).collect()
    }

    /// Who leads, if the core agrees on it.
    pub(super) fn agreed_leader(&self) -> Option<u64> {
        let mut leaders = self.enrolled().into_iter().map(|member| {
            let process = self.machines[member].process.as_ref()?;
            Some(process.node.standing().0.leader).filter(|leader| *leader != 0)
        });
        let first = leaders.next()??;
        let leader = &self.machines[self.watch.roster.machine(first)];
        let leads = leader.process.as_ref().is_some_and(|process| process.node.leads());
        (leads && leaders.all(|leader| leader == Some(first))).then_some(first)
    }

    fn notice_wrong_states(&mut self) {
        if self.unnoticed().is_empty() {
            return;
        }
        self.heal();
        let backlog = self.watch.committed.len() as u64 * BACKLOG_ENTRY;
        let due = self.now + RECONNECT + 10 * self.options.election + backlog + NOTICE;
        self.run_until(due, |world| world.unnoticed().is_empty());
        let unnoticed = self.unnoticed();
        if self.sound() && !unnoticed.is_empty() {
            let states: Vec<String> = self.members().map(|member| self.describe(member)).collect();
            let states = states.join("; ");
            self.fail(
                "L8",
                format!("members {unnoticed:?} do not notice that their state is wrong: {states}"),
            );
        }
    }

    /// The whole phase. Afterwards nothing is under way.
    pub(super) fn live(&mut self) {
        self.notice_wrong_states();
        if !self.sound() {
            return;
        }
        if self.in_doubt() {
            // It takes an operator to say who is right.
            return self.tally.count("undecided");
        }
        self.choose_core();
        self.heal();
        let election = self.options.election;
        // A machine that was down starts now; a member that restarts keeps its promise for a lease.
        let backlog = self.watch.committed.len() as u64 * BACKLOG_ENTRY;
        // Where frames are lost one by one, a stream may be waited for until it is given up.
        let stream = if self.options.frames { STREAM_PATIENCE } else { 0 };
        // Nothing is committed while the one that a quorum lacks waits for the state.
        let room = if self.tally.faults.contains_key("full") { ROOM_PATIENCE } else { 0 };
        let stream = stream.max(room);
        // Until then a change that needs the voter at its end is not committed, and whom it removes hears neither of a
        // leader nor of its removal.
        let may_change = self.watch.roster.may_change() || self.is_ordered();
        let change = if may_change { stream } else { 0 };
        let due = self.now + RECONNECT + 10 * election + backlog + change;
        self.run_until(due, |world| world.agreed_leader().is_some());
        if !self.sound() {
            return;
        }
        self.lose_who_cannot_be_repaired();
        if self.agreed_leader().is_none() {
            let who: Vec<String> = self.members().map(|member| self.describe(member)).collect();
            return self
                .fail("L1", format!("ten election timeouts after the last fault: {}", who.join("; ")));
        }
        // Whatever is under way has its deadline: the node's own, or the client's patience.
        let due = self.now + 5 * SECOND + 80 * election + backlog;
        self.clients.budget = 0;
        self.run_until(due, |world| world.clients.outstanding() == 0);
        if self.sound() && self.clients.outstanding() > 0 {
            let waiting = self.clients.outstanding();
            return self.fail("L2", format!("{waiting} operations are neither answered nor given up"));
        }
        self.end_alarms();
        if !self.sound() || !self.new_operations_are_answered(may_change, stream) {
            return;
        }
        self.change_something();
        // What the last faults did to connections, and to a leader's quorum, may show only now.
        self.run(self.now + RECONNECT + 2 * election);
        let elections = self.watch.elections;
        let quiet = self.now + self.options.calm;
        self.run(quiet);
        if self.sound() && self.watch.elections > elections {
            let more = self.watch.elections - elections;
            self.fail("L4", format!("{more} elections though nothing happened"));
        }
        if self.sound() {
            self.check_leases_gone();
        }
        self.clients.budget = 0;
        let due = self.now + 10 * election + stream;
        self.run_until(due, World::converged);
        if self.sound() && !self.converged() {
            let who: Vec<String> = self.members().map(|member| self.describe(member)).collect();
            return self.fail("L5", format!("the members do not agree in the end: {}", who.join("; ")));
        }
        self.check_retention();
        let swept = |world: &World| world.unswept().is_empty();
        let due = self.now + SECOND + self.watch.committed.len() as u64 * 2 * SWEEP_PAUSE;
        self.run_until(due, swept);
        if self.sound() && !swept(self) {
            return self.fail("L9", format!("members {:?} do not sweep what was compacted", self.unswept()));
        }
        self.await_watchers(election);
        self.check_room();
    }

    /// L3. `stream`: how much longer it may take because of a state that is on its way.
    fn new_operations_are_answered(&mut self, may_change: bool, stream: Nanos) -> bool {
        let (before, first) = (self.clients.answered(), self.clients.history.ops.len());
        let wanted = 4 * self.options.clients;
        // While they wait, requests are given up and others asked, some six by each client. A member that learns only now that it
        // was removed turns away many more, until it has stopped.
        let given_up = match () {
            () if may_change => 100,
            () if self.options.frames => 8,
            () => 0,
        };
        self.wake_clients(wanted + given_up * self.options.clients);
        let window = 10 * self.options.election
            + wanted * 20 * self.options.sync
            + 10 * self.options.think
            + SECOND
            + stream;
        let enough = |world: &World| world.clients.answered() >= before + wanted as usize / 2;
        self.run_until(self.now + window, enough);
        // A lock that somebody else owns is promised to nobody, and its lease may live for longer than all this takes.
        // Who waits for one asks for nothing else until its own patience ends. That operation counts for none: another one
        // is asked for, and the time begins anew. Not so if somebody has waited too long for anything else.
        let mut counted = first;
        while self.sound() && !enough(self) {
            let in_line = self.waiting_in_line(counted);
            let overdue = self.now - 10 * self.options.election;
            let held_up = self.clients.awaited_since(overdue).any(|op| !in_line.contains(&op));
            if held_up || in_line.is_empty() && self.clients.in_vain(counted) == 0 {
                break;
            }
            // Given up after some time, or told.
            let due = self.now + CLIENT_PATIENCE_MAX * self.options.election + SECOND;
            self.run_until(due, |world| !in_line.iter().any(|op| world.clients.awaits(*op)));
            let in_vain = self.clients.in_vain(counted) as u64;
            counted = self.clients.history.ops.len();
            self.allow_more(in_vain);
            self.run_until(self.now + window, enough);
        }
        self.clients.budget = self.clients.budget.min(wanted);
        let answered = self.clients.answered() - before;
        let answers = answered >= wanted as usize / 2;
        if self.sound() && !answers {
            let states: Vec<String> = self.members().map(|member| self.describe(member)).collect();
            let states = states.join("; ");
            let what = format!("only {answered} of {wanted} new operations are answered: {states}");
            self.fail("L3", what);
        }
        self.sound()
    }

    /// A client that hears nothing looks elsewhere; a large part of the history may be told in small pieces.
    fn await_watchers(&mut self, election: u64) {
        let due = self.now + 60 * election + 10 * SECOND;
        let last =
            |world: &World| world.enrolled().first().map_or(0, |member| world.watch.seen[*member].revision);
        self.run_until(due, |world| world.watchers_behind(last(world)).is_empty());
        let behind = self.watchers_behind(last(self));
        if self.sound() && !behind.is_empty() {
            self.fail("L11", format!("watchers {behind:?} are not told everything up to {}", last(self)));
        }
        self.run_until(due, |world| world.wires.unconfirmed() == 0);
        let unconfirmed = self.wires.unconfirmed();
        if self.sound() && unconfirmed > 0 {
            self.fail("L17", format!("{unconfirmed} watches are cancelled, and nobody confirms it"));
        }
    }

    fn check_room(&mut self) {
        if !self.sound() {
            return;
        }
        self.check_alarm();
        let short = |world: &World| world.too_long().is_empty();
        self.run_until(self.now + SHRINK, short);
        if self.sound() && !short(self) {
            self.fail("L14", format!("the files of members {:?} stay too long", self.too_long()));
        }
    }

    fn too_long(&self) -> Vec<usize> {
        let is_long = |member: &usize| {
            let Some(process) = &self.machines[*member].process else { return false };
            let status = process.node.status();
            status.db_size > status.db_size_in_use * 3 / 2 + SPARE_BYTES
        };
        self.enrolled().into_iter().filter(is_long).collect()
    }

    fn unswept(&self) -> Vec<usize> {
        let due = |member: &usize| {
            self.machines[*member].process.as_ref().is_some_and(|process| process.node.sweep_due())
        };
        self.enrolled().into_iter().filter(due).collect()
    }

    /// L7.
    fn change_something(&mut self) {
        let mut dice = super::stream::stream(self.options.seed, "last orders", 0);
        let membership = &self.watch.roster.newest().membership;
        if membership.is_joint() {
            return self.fail("L7", format!("the membership stays joint: {membership:x?}"));
        }
        let voters = self.watch.roster.machines_of(&membership.voters);
        let (gone, here): (Vec<usize>, Vec<usize>) =
            voters.into_iter().partition(|machine| self.machines[*machine].gone);
        let (Some(leader), false) = (self.who(Who::Leader, 0, 0), here.is_empty()) else { return };
        let mut last = vec![match gone.first() {
            Some(machine) if here.len() > 1 => (Step::Remove, *machine),
            _ => (Step::Update, here[dice.below(here.len() as u64) as usize]),
        }];
        let others: Vec<usize> = here.into_iter().filter(|machine| *machine != leader).collect();
        if !others.is_empty() {
            last.push((Step::Transfer, others[dice.below(others.len() as u64) as usize]));
        }
        for (step, machine) in last {
            // Too many orders in doubt, and nothing more may be asked for.
            if !self.sound() || !self.order(&[(step, machine)]) {
                continue;
            }
            let stream = if self.options.frames { STREAM_PATIENCE } else { 0 };
            let due = self.now + 2 * RECONNECT + 20 * self.options.election + stream;
            let order = self.operator.orders.len() - 1;
            let over = |world: &World| world.operator.orders[order].outcome != Outcome::Waiting;
            self.run_until(due, over);
            // An order of before, of which nobody knew what came of it, may have removed it meanwhile.
            let membership = &self.watch.roster.newest().membership;
            let votes = self.watch.roster.machines_of(&membership.voters).contains(&machine);
            if self.sound() && votes && self.operator.orders[order].outcome != Outcome::Done {
                self.fail("L7", format!("it is not possible any more to {step} {machine}"));
            }
        }
    }

    /// Runs until something is so, but not longer; looked at ten times in an election timeout.
    pub(super) fn run_until(&mut self, due: crate::base::Mono, so: impl Fn(&World) -> bool) {
        while self.sound() && self.now < due && !so(self) {
            let step = self.now + self.options.election / 10;
            self.run(step.min(due));
        }
    }

    fn converged(&self) -> bool {
        let mut applied = self
            .enrolled()
            .into_iter()
            .map(|member| self.machines[member].process.as_ref().map(|process| process.node.standing().1));
        let Some(Some(first)) = applied.next() else { return false };
        applied.all(|applied| applied == Some(first))
            && self.enrolled().into_iter().all(|member| self.is_whole(member))
    }

    /// Gone, or in possession of its memory.
    fn is_whole(&self, member: usize) -> bool {
        let machine = &self.machines[member];
        machine.gone || machine.process.as_ref().is_some_and(|process| !process.node.is_recovering())
    }

    fn describe(&self, member: usize) -> String {
        let machine = &self.machines[member];
        match &machine.process {
            _ if machine.gone => format!("{member} is gone"),
            None => format!("{member} is down"),
            Some(process) => {
                let (standing, applied) = process.node.standing();
                let (leader, term) = (standing.leader, standing.term);
                let mending = if process.node.is_recovering() { " (recovering)" } else { "" };
                let errors = process.node.status().errors.join(", ");
                format!("{member}{mending} [{errors}] follows {leader} in term {term}, applied {applied}")
            }
        }
    }
}
