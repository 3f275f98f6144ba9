//! The operator: changes who belongs to the cluster and who leads it, one order after the other, and never beyond
//! what a cluster can bear: whatever becomes of orders whose outcome is not known, a majority of the voters has a
//! good disk. What is refused is asked for again for a while; it may be refused for ever.
//!
//! - V22: a change that was acknowledged is in the log, once; one that was refused is not. Of several in one step none
//!   is there without the others, and they are acknowledged when the membership is not joint any more.
//! - V23: leadership that is said to have moved has moved.

use std::fmt;

use super::plan::{Step, TOGETHER, Who};
use super::roster::{subject, url};
use super::stream::{log_uniform, stream};
use super::world::{Event, World};
use crate::api::{Body, Call, Code, ConnId, MemberChange, Reply, Request};
use crate::base::time::{MS, Nanos, SECOND};
use crate::base::{MemberId, Rng, Term};
use crate::raft::quorum::majority;

/// Tags of requests from here on are the operator's.
pub const TAGS: u64 = 1 << 62;

/// Changes in doubt; with more than these, nothing is done that might cost one more voter.
const DOUBTS_MAX: usize = 5;

/// How often an order is given while there are faults.
const TRIES_MAX: u64 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Waiting,
    Done,
    Refused,
    Unknown,
}

pub struct Order {
    /// What is to happen to which machine; several in one step, of different machines.
    steps: Vec<(Step, usize)>,
    tries: u64,
    pub outcome: Outcome,
}

impl Order {
    fn adds(&self) -> bool {
        self.steps.iter().any(|(step, _)| step.adds())
    }

    fn name(&self) -> &'static str {
        match self.steps[..] {
            [(step, _)] => step.name(),
            _ => TOGETHER,
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> =
            self.steps.iter().map(|(step, machine)| format!("{step} {machine}")).collect();
        f.write_str(&steps.join(" "))
    }
}

/// One question to one member.
struct Attempt {
    order: usize,
    asked: (usize, u64),
    /// The asked member's term when it took the question.
    term: Term,
    /// Of the additions and updates among the steps; no other attempt has them.
    urls: Vec<String>,
    outcome: Outcome,
}

pub struct Operator {
    rng: Rng,
    pub orders: Vec<Order>,
    attempts: Vec<Attempt>,
    /// Connections of its own, counted down.
    next_conn: ConnId,
}

/// Machines, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sets {
    voters: u32,
    learners: u32,
}

impl Sets {
    fn with(self, steps: &[(Step, usize)]) -> Sets {
        steps.iter().fold(self, |sets, &(step, machine)| sets.with_one(step, machine))
    }

    fn with_one(self, step: Step, machine: usize) -> Sets {
        let (bit, Sets { voters, learners }) = (1 << machine, self);
        match step {
            Step::AddVoter | Step::Promote => Sets { voters: voters | bit, learners: learners & !bit },
            Step::AddLearner => Sets { voters, learners: learners | bit },
            Step::Remove => Sets { voters: voters & !bit, learners: learners & !bit },
            Step::Update | Step::Transfer => self,
        }
    }

    fn has_quorum_of(self, good: u32) -> bool {
        (self.voters & good).count_ones() as usize >= majority(self.voters.count_ones() as usize)
    }
}

fn bits(machines: impl IntoIterator<Item = usize>) -> u32 {
    machines.into_iter().fold(0, |bits, machine| bits | 1 << machine)
}

impl Operator {
    pub fn new(seed: u64) -> Operator {
        let rng = stream(seed, "operator", 0);
        Operator { rng, orders: Vec::new(), attempts: Vec::new(), next_conn: ConnId::MAX }
    }

    fn attempts_of(&self, machine: usize) -> impl Iterator<Item = (&Attempt, Step)> {
        self.attempts.iter().flat_map(move |attempt| {
            let of = self.orders[attempt.order].steps.iter().filter(move |step| step.1 == machine);
            of.map(move |(step, _)| (attempt, *step))
        })
    }

    pub fn asked(&self, attempt: usize) -> usize {
        self.attempts[attempt].asked.0
    }

    /// A machine is never used for two members. (An addition that was in a log and is no more is refused, but the machine
    /// may have joined under its id.)
    fn is_used(&self, machine: usize) -> bool {
        self.attempts_of(machine).any(|(attempt, step)| step.adds() && attempt.outcome != Outcome::Refused)
    }
}

// ---- What may be asked of a cluster

impl World {
    /// Whether a committed change is one that the operator may have asked for by this step. `url`: asked for with it.
    fn is_for(&self, change: &MemberChange, (step, machine): (Step, usize), url: Option<&String>) -> bool {
        let asked = |urls: &Vec<String>| url.is_none_or(|url| urls.contains(url));
        self.watch.roster.machine(subject(change)) == machine
            && match change {
                MemberChange::Add { peer_urls, .. } => step.adds() && asked(peer_urls),
                MemberChange::Promote { .. } => step == Step::Promote,
                MemberChange::Remove { .. } => step == Step::Remove,
                MemberChange::Update { peer_urls, .. } => step == Step::Update && asked(peer_urls),
                _ => false,
            }
    }

    /// Whether all that was asked for has happened, be it by another attempt.
    fn is_settled(&self, order: &Order) -> bool {
        let done = |step: &(Step, usize)| {
            let mut changes = self.watch.roster.changes().flat_map(MemberChange::steps);
            changes.any(|change| self.is_for(change, *step, None))
        };
        order.steps.iter().all(done)
    }

    /// Whether a change is what this attempt asked for, and no more.
    fn is_answer_to(&self, change: &MemberChange, attempt: &Attempt) -> bool {
        let asked = self.operator.orders[attempt.order].steps.iter().zip(&attempt.urls);
        let done = change.steps();
        done.len() == attempt.urls.len()
            && asked.zip(done).all(|((step, url), change)| self.is_for(change, *step, Some(url)))
    }

    /// Every membership that may be in force when all that is in doubt has come out in one way or the other, and the
    /// old half of one that is joint now. None: too many to say.
    fn possible(&self) -> Option<Vec<Sets>> {
        let roster = &self.watch.roster;
        let now = &roster.newest().membership;
        let base = Sets {
            voters: bits(roster.machines_of(&now.voters)),
            learners: bits(roster.machines_of(&now.learners)),
        };
        let mut doubts: Vec<&Order> = Vec::new();
        for attempt in self.operator.attempts.iter().filter(|attempt| attempt.outcome != Outcome::Refused) {
            let order = &self.operator.orders[attempt.order];
            let known = doubts.iter().any(|doubt| doubt.steps == order.steps);
            if order.steps.iter().any(|(step, _)| step.changes_voters()) && !known && !self.is_settled(order)
            {
                doubts.push(order);
            }
        }
        if doubts.len() > DOUBTS_MAX {
            return None;
        }
        let outcome = |chosen: u32| {
            let happened = doubts.iter().enumerate().filter(|(at, _)| chosen & (1 << at) != 0);
            happened.fold(base, |sets, (_, order)| sets.with(&order.steps))
        };
        let old_half = Sets { voters: bits(roster.machines_of(&now.outgoing)), learners: 0 };
        let joint = now.is_joint().then_some(old_half);
        Some((0..1 << doubts.len()).map(outcome).chain(joint).collect())
    }

    fn good_machines(&self) -> u32 {
        let is_good = |at: &usize| {
            let machine = &self.machines[*at];
            !machine.gone && !machine.tainted && !machine.mending
        };
        bits(self.members().filter(is_good))
    }

    /// Whether one more disk may be lost: a majority must stay whole, whatever the membership turns out to be. Who never
    /// ran has to learn first, and from the others, that it had no other life.
    pub(super) fn may_lose(&self, machine: usize) -> bool {
        let unknown = bits(self.members().filter(|at| !self.machines[*at].has_run));
        let good = self.good_machines() & !unknown & !(1 << machine);
        self.possible().is_some_and(|all| all.into_iter().all(|sets| sets.has_quorum_of(good)))
    }

    /// Whether the cluster can bear it that this happens.
    fn is_fair(&self, steps: &[(Step, usize)]) -> bool {
        let good = self.good_machines();
        // Who is being repaired asks the members that it knows of.
        if self.members().any(|at| self.machines[at].mending) {
            return false;
        }
        let wrong = |&(step, machine): &(Step, usize)| match step {
            Step::AddVoter | Step::AddLearner => {
                good & (1 << machine) == 0
                    || self.operator.is_used(machine)
                    || self.watch.roster.member_on(machine).is_some()
            }
            _ => self.watch.roster.member_on(machine).is_none(),
        };
        let repeated = |at: usize| steps[..at].iter().any(|step| step.1 == steps[at].1);
        !steps.iter().any(wrong)
            && !(0..steps.len()).any(repeated)
            && self.possible().is_some_and(|all| {
                all.into_iter().all(|sets| {
                    let sets = sets.with(steps);
                    sets.voters != 0 && sets.has_quorum_of(good)
                })
            })
    }
}

// ---- Orders

impl World {
    /// Something is to be changed. False: it cannot be, as things are.
    pub(super) fn order(&mut self, steps: &[(Step, usize)]) -> bool {
        let members = self.options.members as usize;
        if steps.iter().any(|(step, machine)| step.adds() && *machine <= members) || !self.is_fair(steps) {
            return false;
        }
        let tries = if self.calm { u64::MAX } else { self.operator.rng.between(1, TRIES_MAX) };
        self.operator.orders.push(Order { steps: steps.to_vec(), tries, outcome: Outcome::Waiting });
        let order = self.operator.orders.len() - 1;
        self.after(0, Event::Operate { order });
        true
    }

    /// Asks once.
    pub(super) fn operate(&mut self, order: usize) {
        let steps = self.operator.orders[order].steps.clone();
        if self.operator.orders[order].tries == 0 || !self.is_fair(&steps) {
            return self.end_order(order, Outcome::Refused);
        }
        self.operator.orders[order].tries -= 1;
        let Some(member) = self.whom_to_ask(&steps) else { return self.try_again(order) };
        let life = self.machines[member].process.as_ref().expect("it was found running").life;
        let new_url = |(_, machine): &(Step, usize)| {
            url(*machine, self.operator.attempts_of(*machine).count() as u64 + 1)
        };
        let urls = steps.iter().map(new_url).collect();
        let (outcome, term) = (Outcome::Waiting, 0);
        self.operator.attempts.push(Attempt { order, asked: (member, life), term, urls, outcome });
        let attempt = self.operator.attempts.len() - 1;
        for (step, machine) in steps {
            if step.adds() && !self.machines[machine].invited {
                self.machines[machine].invited = true;
                let soon = self.operator.rng.below(self.options.election * 4);
                self.after(soon, Event::Start { member: machine });
            }
        }
        let delay = self.net.delay(0, member);
        self.after(delay, Event::OrderArrives { attempt });
        self.after(self.order_patience(), Event::OrderGivenUp { attempt });
    }

    /// A little more than the member's own.
    fn order_patience(&self) -> Nanos {
        6 * SECOND + 2 * self.options.election
    }

    /// Who leads must be asked to hand over; for all else anybody will do.
    fn whom_to_ask(&mut self, steps: &[(Step, usize)]) -> Option<usize> {
        let can = |at: &usize| {
            let process = self.machines[*at].process.as_ref();
            process.is_some_and(|process| process.stopping.is_none())
                && self.net.passes(0, *at)
                && self.net.passes(*at, 0)
        };
        let all = if self.calm { self.enrolled() } else { self.members().collect() };
        let up: Vec<usize> = all.into_iter().filter(can).collect();
        let leader = self.who(Who::Leader, 0, 0).filter(|leader| up.contains(leader));
        if steps[0].0 == Step::Transfer && (self.calm || !self.operator.rng.one_in(8)) {
            return leader;
        }
        (!up.is_empty()).then(|| up[self.operator.rng.below(up.len() as u64) as usize])
    }

    pub(super) fn order_arrives(&mut self, attempt: usize) {
        let Attempt { order, asked: (member, life), ref urls, .. } = self.operator.attempts[attempt];
        let steps = &self.operator.orders[order].steps;
        let id = |step: Step, machine| self.watch.roster.member_on(machine).or(step.adds().then_some(0));
        let ids: Option<Vec<MemberId>> = steps.iter().map(|(step, machine)| id(*step, *machine)).collect();
        let Some(ids) = ids.filter(|_| self.lives(member, life)) else { return };
        let request = request(steps, &ids, urls);
        self.operator.next_conn -= 1;
        let (conn, tag, now) = (self.operator.next_conn, TAGS + attempt as u64, self.local(member));
        let node = &mut self.machines[member].process.as_mut().expect("it lives").node;
        let (term, leads) = (node.standing().0.term, node.leads());
        node.on_call(conn, Call::Request { tag, request }, now);
        self.operator.attempts[attempt].term = term;
        if leads {
            // Until the next turn it may have heard of a later leader.
            self.note_leader(member, term);
        }
        self.turn_soon(member);
    }

    pub(super) fn order_answered(&mut self, reply: &Reply) {
        let attempt = (reply.tag - TAGS) as usize;
        let Attempt { order, outcome, term, .. } = self.operator.attempts[attempt];
        let order = &self.operator.orders[order];
        let ((_, machine), order) = (order.steps[0], order.to_string());
        self.trace.line(self.now, 0, || format!("{order}: {:x?}", reply.body));
        if outcome != Outcome::Waiting {
            return; // It came too late.
        }
        let outcome = match &reply.body {
            Body::MemberAdded { .. } | Body::Members(_) => Outcome::Done,
            Body::LeaderMoved => {
                if !self.watch.has_led(machine, term) {
                    self.fail("V23", format!("{machine} is said to lead after term {term}"));
                }
                Outcome::Done
            }
            Body::Fault(fault) => match fault.code {
                Code::Timeout | Code::Shutdown | Code::Corrupt => Outcome::Unknown,
                _ => Outcome::Refused,
            },
            other => return self.fail("V22", format!("{order} is answered by {other:?}")),
        };
        if outcome == Outcome::Done && self.is_half_done(attempt) {
            return self.fail("V22", format!("{order} is acknowledged while the membership is joint"));
        }
        self.attempt_ends(attempt, outcome);
    }

    pub(super) fn order_given_up(&mut self, attempt: usize) {
        if self.operator.attempts[attempt].outcome == Outcome::Waiting {
            self.attempt_ends(attempt, Outcome::Unknown);
        }
    }

    /// A process has ended: what it was asked for may have happened.
    pub(super) fn orders_lost(&mut self, member: usize, life: u64) {
        for attempt in 0..self.operator.attempts.len() {
            let Attempt { asked, outcome, .. } = self.operator.attempts[attempt];
            if outcome == Outcome::Waiting && asked == (member, life) {
                self.attempt_ends(attempt, Outcome::Unknown);
            }
        }
    }

    fn attempt_ends(&mut self, attempt: usize, outcome: Outcome) {
        self.operator.attempts[attempt].outcome = outcome;
        let order = self.operator.attempts[attempt].order;
        let given = &self.operator.orders[order];
        // What was asked for twice may have been done by the first question.
        let is_gone = |(step, machine): &(Step, usize)| {
            *step == Step::Remove && !self.watch.roster.is_enrolled(*machine)
        };
        let is_done = given.steps.iter().all(is_gone);
        match outcome {
            Outcome::Done => {
                *self.tally.changes.entry(given.name()).or_default() += 1;
                self.end_order(order, Outcome::Done);
            }
            Outcome::Refused if self.calm && is_done => self.end_order(order, Outcome::Done),
            // Nobody knows whether there is a member now; adding another one would not help.
            Outcome::Unknown if given.adds() => self.end_order(order, Outcome::Unknown),
            _ => self.try_again(order),
        }
    }

    fn try_again(&mut self, order: usize) {
        if self.operator.orders[order].tries == 0 {
            return self.end_order(order, Outcome::Refused);
        }
        let longest = if self.calm { 50 * MS } else { 500 * MS };
        let pause = log_uniform(&mut self.operator.rng, 2 * MS, longest);
        self.after(pause, Event::Operate { order });
    }

    fn end_order(&mut self, order: usize, outcome: Outcome) {
        self.operator.orders[order].outcome = outcome;
    }

    /// Nobody asks for anything any more.
    pub(super) fn dismiss_operator(&mut self) {
        self.operator.orders.iter_mut().for_each(|order| order.tries = 0);
    }

    /// Whether a member may still begin a change that it was asked for.
    pub(super) fn is_ordered(&self) -> bool {
        self.operator.attempts.iter().any(|attempt| attempt.outcome == Outcome::Waiting)
    }

    /// Whether the newest committed change is what this attempt asked for, and those removed still vote.
    fn is_half_done(&self, attempt: usize) -> bool {
        let newest = self.watch.roster.newest();
        let change = self.watch.roster.changes().last();
        newest.membership.is_joint()
            && change.is_some_and(|change| self.is_answer_to(change, &self.operator.attempts[attempt]))
    }

    // ---- The end

    /// V22.
    pub(super) fn check_orders(&mut self) {
        for attempt in &self.operator.attempts {
            let order = &self.operator.orders[attempt.order];
            let (first, _) = order.steps[0];
            if first == Step::Transfer {
                continue;
            }
            let exact = order.adds() || first == Step::Update;
            let times =
                self.watch.roster.changes().filter(|change| self.is_answer_to(change, attempt)).count();
            let early = order.steps.len() == 1 && first == Step::AddVoter && self.options.calm == 0;
            let right = match attempt.outcome {
                // A second member is acknowledged to the first before that is committed.
                Outcome::Done if !early => times == 1,
                Outcome::Refused if exact => times == 0,
                _ => times <= 1,
            };
            if !right {
                let Attempt { urls, outcome, .. } = attempt;
                let what = format!("{order} by {urls:?} is {outcome:?}; the log has it {times} times");
                return self.fail("V22", what);
            }
        }
    }
}

/// The question of an attempt.
fn request(steps: &[(Step, usize)], ids: &[MemberId], urls: &[String]) -> Request {
    let peer_urls = vec![urls[0].clone()];
    match steps {
        [(Step::AddVoter, _)] => Request::MemberAdd { peer_urls, learner: false },
        [(Step::AddLearner, _)] => Request::MemberAdd { peer_urls, learner: true },
        [(Step::Promote, _)] => Request::MemberPromote { id: ids[0] },
        [(Step::Remove, _)] => Request::MemberRemove { id: ids[0] },
        [(Step::Update, _)] => Request::MemberUpdate { id: ids[0], peer_urls },
        [(Step::Transfer, _)] => Request::MoveLeader { to: ids[0] },
        several => {
            let change = |((&(step, _), &id), url): ((&(Step, usize), &MemberId), &String)| match step {
                Step::Promote => MemberChange::Promote { id },
                Step::Remove => MemberChange::Remove { id },
                _ => {
                    MemberChange::Add { id, peer_urls: vec![url.clone()], learner: step == Step::AddLearner }
                }
            };
            Request::MemberChange { changes: several.iter().zip(ids).zip(urls).map(change).collect() }
        }
    }
}
