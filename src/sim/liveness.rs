//! After the faults: some core of the cluster is well and stays so, all else is broken for good. Then the core
//! must be back by itself, and stay quiet.
//!
//! - L1: one leader within ten election timeouts (and the time that a backlog needs).
//! - L2: every operation that a client waits for is answered, or given up by its own patience.
//! - L3: new writes are acknowledged.
//! - L4: nobody is elected again as long as nothing happens.
//! - L5: at the end all members of the core have applied the same.

use super::world::{START, World};
use crate::base::time::{MS, Nanos, SECOND};

/// A connection that was being made while its link was cut is noticed and made again after this; as in `net::peers`.
const RECONNECT: Nanos = 2_750 * MS;

/// How long an entry of a backlog may take to be caught up.
const BACKLOG_ENTRY: Nanos = MS / 2;

impl World {
    /// Faults end here. What was unreliable is reliable, or gone.
    fn heal(&mut self) {
        self.calm = true;
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

    /// Chooses who stays: a majority of whole members at least, those that they can repair, and everybody else is gone
    /// for good.
    fn choose_core(&mut self) {
        let mut dice = super::stream::stream(self.options.seed, "core", 0);
        let (mending, mut well): (Vec<usize>, Vec<usize>) = self
            .members()
            .filter(|m| !self.machines[*m].gone && (!self.machines[*m].tainted || self.machines[*m].mending))
            .partition(|member| self.machines[*member].mending);
        let surplus = well.len().saturating_sub(self.majority());
        let leave = dice.below(surplus as u64 + 1);
        for _ in 0..leave {
            well.swap_remove(dice.below(well.len() as u64) as usize);
        }
        for member in self.members() {
            if !well.contains(&member) && !mending.contains(&member) && !self.machines[member].gone {
                self.trace.line(self.now, member as u64, || "is gone for good".into());
                self.end_process(member, true);
                let machine = &mut self.machines[member];
                (machine.gone, machine.powerless) = (true, true);
            }
        }
    }

    /// Who leads, if the core agrees on it.
    fn agreed_leader(&self) -> Option<u64> {
        let mut leaders = self.members().filter(|m| !self.machines[*m].gone).map(|member| {
            let process = self.machines[member].process.as_ref()?;
            Some(process.node.standing().0.leader).filter(|leader| *leader != 0)
        });
        let first = leaders.next()??;
        let leads = self.machines[first as usize].process.as_ref().is_some_and(|p| p.node.leads());
        (leads && leaders.all(|leader| leader == Some(first))).then_some(first)
    }

    /// The whole phase. Afterwards nothing is under way.
    pub(super) fn live(&mut self) {
        self.choose_core();
        self.heal();
        let election = self.options.election;
        // A machine that was down starts now; a member that restarts keeps its promise for a lease.
        let backlog = self.watch.committed.len() as u64 * BACKLOG_ENTRY;
        let due = self.now + RECONNECT + 10 * election + backlog;
        self.run_until(due, |world| world.agreed_leader().is_some());
        if !self.sound() {
            return;
        }
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
        let before = self.clients.answered();
        let wanted = 4 * self.options.clients;
        self.wake_clients(wanted);
        let due =
            self.now + 10 * election + wanted * 20 * self.options.sync + 10 * self.options.think + SECOND;
        self.run_until(due, |world| world.clients.answered() >= before + wanted as usize / 2);
        let answered = self.clients.answered() - before;
        if self.sound() && answered < wanted as usize / 2 {
            return self.fail("L3", format!("only {answered} of {wanted} new operations are answered"));
        }
        let elections = self.watch.elections;
        let quiet = self.now + self.options.calm;
        self.run(quiet);
        if self.sound() && self.watch.elections > elections {
            let more = self.watch.elections - elections;
            self.fail("L4", format!("{more} elections though nothing happened"));
        }
        self.clients.budget = 0;
        let due = self.now + 10 * election;
        self.run_until(due, World::converged);
        if self.sound() && !self.converged() {
            let who: Vec<String> = self.members().map(|member| self.describe(member)).collect();
            self.fail("L5", format!("the members do not agree in the end: {}", who.join("; ")));
        }
    }

    /// Runs until something is so, but not longer; looked at ten times in an election timeout.
    fn run_until(&mut self, due: crate::base::Mono, so: impl Fn(&World) -> bool) {
        while self.sound() && self.now < due && !so(self) {
            let step = self.now + self.options.election / 10;
            self.run(step.min(due));
        }
    }

    fn converged(&self) -> bool {
        let mut applied = self
            .members()
            .filter(|m| !self.machines[*m].gone)
            .map(|member| self.machines[member].process.as_ref().map(|process| process.node.standing().1));
        let Some(Some(first)) = applied.next() else { return false };
        applied.all(|applied| applied == Some(first)) && self.members().all(|m| self.is_whole(m))
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
                format!("{member}{mending} follows {leader} in term {term}, applied {applied}")
            }
        }
    }
}
