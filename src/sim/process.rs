//! The life of a member's process: start, turns, calls to the disk, and its many ends. Plays the event loop of
//! `net` with its helper threads.

use std::path::PathBuf;

use bytes::BytesMut;

use super::machine::{Process, Stopping};
use super::plan::{Moment, Survival};
use super::roster::{machine_of, url};
use super::stream::exponential;
use super::world::{Event, World};
use super::{CLUSTER, DATA_DIR};
use crate::api::Member;
use crate::base::time::{MS, Nanos, SECOND};
use crate::base::{Error, MemberId, Rng};
use crate::io::Disk;
use crate::io::sim::{Fate, Profile, SimDisk};
use crate::node::{Bootstrap, Budget, Config, Node, Output, Parts, Rules};

/// From an event to the turn that deals with it, and from a turn to the next one that it asked for: what the
/// loop needs for a system call and for its work.
const TURN_DELAY: Nanos = MS / 50;

/// As in the event loop: how often free space is looked at.
const SPACE_EVERY: Nanos = 2 * SECOND;

/// As in `net::stop`, since the hand-over: when quiet connections are ended, when what waits is answered with what
/// is known, and when nobody is waited for any more.
const SILENCE: Nanos = 200 * MS;
const PATIENCE: Nanos = 2 * SECOND;
const END: Nanos = PATIENCE + SECOND;

/// Turns in a row that may leave their deadline in the past.
const OVERDUE_TURNS_MAX: u64 = 500;

/// Turns in which a history may be looked through a few changes at a time, before anybody is told of one.
const SILENT_TURNS_MAX: u64 = 50_000;

/// Requests within this time that may find no way to another member.
const UNSENT_MAX: u64 = 1_000;
const UNSENT_SPAN: Nanos = 100 * MS;

/// A member that finds no cluster to join tries again.
const JOIN_RETRY: Nanos = 300 * MS;

/// A supervisor starts a process again that has given up.
const SUPERVISED_AFTER: Nanos = 300 * MS;

pub(super) fn tree_dir() -> PathBuf {
    PathBuf::from(DATA_DIR)
}

pub(super) fn wal_dir() -> PathBuf {
    tree_dir().join("wal")
}

impl World {
    pub(super) fn node_config(&self, member: usize) -> Config {
        let options = &self.options;
        Config {
            name: "sim".into(),
            client_urls: vec!["http://127.0.0.1:2379".into()],
            tree_dir: tree_dir(),
            wal_dir: wal_dir(),
            wal_segment_bytes: options.segment_bytes,
            heartbeat_interval: options.heartbeat,
            election_timeout: options.election_of(member, self.machines[member].starts),
            pre_vote: options.pre_vote,
            lease_reads: options.lease_reads,
            catchup_entries: options.catchup,
            tree_page_bytes: options.page_bytes as usize,
            checkpoint_entries: options.checkpoint,
            sweep_work_max: options.sweep as usize,
            retention: options.retention(),
            quota_bytes: Some(options.quota).filter(|quota| *quota > 0),
            // Most answers in several parts.
            range_parts: Parts {
                alone: Budget { keys: 3, bytes: 300 },
                beside_writes: Budget { keys: 2, bytes: 200 },
                rest: MS / 10,
            },
            members: Rules { strict: options.strict, ..Rules::default() },
            watch_progress_interval: 4 * options.election,
            watch_work: options.watch_work as usize,
        }
    }

    pub(super) fn bootstrap(&self, member: usize) -> Bootstrap {
        let member_of = |id: u64| Member {
            id,
            name: format!("n{id}"),
            peer_urls: vec![url(id as usize, 0)],
            ..Member::default()
        };
        let members = if self.joins(member) { 0 } else { self.options.members };
        let members = (1..=members).map(member_of).collect();
        Bootstrap { cluster: CLUSTER, member: self.machines[member].id, members, trust_disk: false }
    }

    /// Its member is added to a running cluster.
    pub(super) fn joins(&self, member: usize) -> bool {
        member as u64 > self.options.members
    }

    /// As `net::join`: a member that joins asks the others who it is and whom there is to talk to.
    fn find_cluster(&self, member: usize) -> Option<(MemberId, Vec<Member>)> {
        let speaks = |other: &usize| {
            let heard = self.net.passes(member, *other) && self.net.passes(*other, member);
            *other != member && heard && self.machines[*other].frozen.is_none()
        };
        self.members().filter(speaks).find_map(|other| {
            let members = self.machines[other].process.as_ref()?.node.known_members();
            let me = members.iter().find(|known| machine_of(known) == Some(member))?.id;
            Some((me, members))
        })
    }

    /// The machine has power, and its process is started.
    pub(super) fn start(&mut self, member: usize) {
        let machine = &mut self.machines[member];
        if machine.gone || !machine.invited || machine.process.is_some() || self.now < machine.start_at {
            return;
        }
        (machine.powerless, machine.told_removed) = (false, false);
        let found = if self.joins(member) { self.find_cluster(member) } else { None };
        let machine = &mut self.machines[member];
        match &found {
            Some((id, _)) if machine.id == 0 => machine.id = *id,
            None if machine.id == 0 => return self.after(JOIN_RETRY, Event::Start { member }),
            _ => {}
        }
        machine.starts += 1;
        if self.power_goes_again(member) {
            return;
        }
        self.rot(member, false);
        let recovered = self.check_recovered(member);
        let now = self.local(member);
        let (config, bootstrap) = (self.node_config(member), self.bootstrap(member));
        let machine = &mut self.machines[member];
        let opened = match Node::open(&machine.disk, config, &bootstrap, machine.node_dice.next_u64(), now) {
            Ok(opened) => opened,
            Err(why) => return self.stopped(member, &why),
        };
        self.lives += 1;
        let life = self.lives;
        machine.process = Some(Box::new(Process {
            node: opened.node,
            life,
            _lock: opened.lock,
            turn_at: None,
            writer: opened.log_writer,
            writing: None,
            jobs: Default::default(),
            stopping: None,
            led: false,
            led_from: 0,
            overdue_turns: 0,
            silent_turns: 0,
            unsent: (0, self.now),
        }));
        let node = &machine.process.as_ref().expect("it has just begun").node;
        let ((_, applied), mending) = (node.standing(), node.is_recovering());
        (machine.mending, machine.has_run) = (mending, true);
        self.tally.recoveries += u64::from(machine.starts > 1);
        self.tally.starts_in_sweep += u64::from(node.sweep_due());
        if mending {
            self.begin_without_memory(member, applied);
        } else {
            self.watch.begin_life(member, recovered, applied);
        }
        self.trace.line(self.now, member as u64, || match opened.notes.is_empty() {
            true => "starts".into(),
            false => format!("starts: {}", opened.notes.join("; ")),
        });
        self.check_members(member);
        if !self.may_run(member, found) {
            return;
        }
        self.net.forget_dials(member, self.now);
        self.machines[member].peers.clear();
        self.learn_peers(member);
        self.after(SPACE_EVERY, Event::Space { member, life });
        self.turn_soon(member);
        self.moment(Moment::Restarted, member, 0);
    }

    /// As `net::serve`: who was removed does not run, and who is blank needs to be told whom to talk to.
    fn may_run(&mut self, member: usize, found: Option<(MemberId, Vec<Member>)>) -> bool {
        let node = &self.machines[member].process.as_ref().expect("it has just begun").node;
        let (blank, recovering) = (node.is_blank(), node.is_recovering());
        if node.is_removed() {
            self.trace.line(self.now, member as u64, || "was removed: does not start".into());
            self.end_process(member, false);
            return false;
        }
        if !blank {
            return true;
        }
        match found.or_else(|| self.find_cluster(member)) {
            Some((_, members)) => {
                let process = self.machines[member].process.as_mut().expect("it has just begun");
                process.node.acquaint(members);
            }
            // One of the first members knows the others by its flags.
            None if recovering && !self.joins(member) => {}
            None => {
                self.end_process(member, false);
                self.after(JOIN_RETRY, Event::Start { member });
                return false;
            }
        }
        true
    }

    /// As `net::stop`: a member that was removed ends by itself. Its machine may be started again all the same.
    fn leave_if_removed(&mut self, member: usize) {
        let now = self.local(member);
        let machine = &mut self.machines[member];
        let Some(process) = &mut machine.process else { return };
        let gone = process.node.is_removed() && !process.node.leads();
        if (gone || machine.told_removed) && process.stopping.is_none() {
            process.node.leave(now);
            let restart = machine.power_dice.between(1, 20) * SECOND;
            process.stopping = Some(Stopping { restart, ..Stopping::default() });
            self.trace.line(self.now, member as u64, || "was removed: leaves".into());
            self.turn_soon(member);
            self.moment(Moment::Left, member, 0);
        }
    }

    /// Power that fails again while the member recovers: recovery must be able to begin anew at any point.
    fn power_goes_again(&mut self, member: usize) -> bool {
        let millionths = self.options.recut;
        let machine = &mut self.machines[member];
        if self.calm || millionths == 0 || machine.power_dice.below(1_000_000) >= millionths {
            return false;
        }
        let (config, bootstrap) = (self.node_config(member), self.bootstrap(member));
        let machine = &mut self.machines[member];
        let stop_at = machine.disk.op_count() + machine.power_dice.below(16);
        machine.disk.stop_at(stop_at);
        // Drawn where every start draws, so that it stays in step.
        let seed = Rng::new(machine.starts).next_u64();
        let now = machine.clock.at(self.now);
        let opened = Node::open(&machine.disk, config, &bootstrap, seed, now);
        drop(opened);
        self.tally.count("power-cut in recovery");
        self.lose_power(member, Survival::PosixWorst, 20 * MS);
        true
    }

    pub(super) fn turn_soon(&mut self, member: usize) {
        self.turn_after(member, TURN_DELAY);
    }

    pub(super) fn turn_after(&mut self, member: usize, delay: Nanos) {
        let due = self.now + delay;
        let Some(process) = &mut self.machines[member].process else { return };
        if process.turn_at.is_none_or(|at| at > due) {
            process.turn_at = Some(due);
            let life = process.life;
            self.at(due, Event::Turn { member, life });
        }
    }

    /// Whether this event is still for the process that runs.
    pub(super) fn lives(&self, member: usize, life: u64) -> bool {
        self.machines[member].process.as_ref().is_some_and(|process| process.life == life)
    }

    pub(super) fn turn(&mut self, member: usize, life: u64) {
        if !self.lives(member, life) {
            return;
        }
        let now = self.local(member);
        let process = self.machines[member].process.as_mut().expect("it lives");
        if process.turn_at.is_none_or(|at| at > self.now) {
            return;
        }
        process.turn_at = None;
        match process.node.turn(now) {
            Ok(output) => self.carry_out(member, output),
            Err(why) => self.stopped(member, &why),
        }
    }

    /// Does what a turn decided.
    pub(super) fn carry_out(&mut self, member: usize, output: Output<SimDisk>) {
        let Output { replies, messages, batches, jobs, again, members_changed, .. } = output;
        self.trace.mix((replies.len() + 16 * messages.len() + 256 * batches.len()) as u64);
        let silent = replies.is_empty() && messages.is_empty() && batches.is_empty() && jobs.is_empty();
        self.observe(member, &batches);
        if members_changed {
            self.check_members(member);
            self.learn_peers(member);
        }
        if self.loses_wrong_sender(member, &messages) {
            return;
        }
        let mut out = vec![BytesMut::new(); self.machines.len()];
        for message in &messages {
            self.check_claim(member, message);
            self.send(member, message, &mut out);
        }
        self.flush(member, &mut out);
        for reply in replies {
            self.reply_leaves(member, reply);
        }
        if self.machines[member].process.is_none() {
            return; // A message to nobody came back, and it was the last one.
        }
        if !batches.is_empty() {
            self.begin_write(member, batches);
        }
        for job in jobs {
            let process = self.machines[member].process.as_mut().expect("it was just looked at");
            process.jobs.push_back(job);
            if process.jobs.len() == 1 {
                self.begin_job(member);
            }
        }
        self.leave_if_removed(member);
        self.advance_stop(member);
        let Some(process) = &self.machines[member].process else { return };
        if again {
            self.count_restless(member, silent);
            self.turn_after(member, TURN_DELAY);
        } else {
            let due = self.machines[member].clock.when(process.node.deadline());
            self.count_idle(member, due <= self.now);
            // A deadline that is never met is not put on the heap.
            if due.since(self.now) < 3_600 * SECOND {
                self.turn_after(member, due.since(self.now).max(TURN_DELAY));
            }
        }
    }

    /// A turn that leaves something due behind it, and again, and again, is a loop that burns a processor.
    fn count_idle(&mut self, member: usize, overdue: bool) {
        let process = self.machines[member].process.as_mut().expect("it has just had a turn");
        process.overdue_turns = if overdue { process.overdue_turns + 1 } else { 0 };
        if process.overdue_turns > OVERDUE_TURNS_MAX {
            let deadline = process.node.deadline();
            self.fail("L6", format!("member {member} spins: its deadline, {deadline:?}, stays in the past"));
        }
    }

    /// So is one that wants turn after turn, and has nothing to show for them.
    fn count_restless(&mut self, member: usize, silent: bool) {
        let process = self.machines[member].process.as_mut().expect("it has just had a turn");
        process.silent_turns = if silent { process.silent_turns + 1 } else { 0 };
        if process.silent_turns > SILENT_TURNS_MAX {
            self.fail(
                "L6",
                format!("member {member} spins: {SILENT_TURNS_MAX} turns, and nothing came of them"),
            );
        }
    }

    /// So is one that asks again whenever it hears that there is no way to whom it asks.
    pub(super) fn count_unsent(&mut self, member: usize) {
        let Some(process) = &mut self.machines[member].process else { return };
        let (count, since) = &mut process.unsent;
        if self.now.since(*since) >= UNSENT_SPAN {
            (*count, *since) = (0, self.now);
        }
        *count += 1;
        if *count > UNSENT_MAX {
            self.fail(
                "L6",
                format!("member {member} spins: it asks whom it cannot reach, {UNSENT_MAX} times"),
            );
        }
    }

    /// How long a call to the disk takes.
    fn disk_delay(&mut self, member: usize, mean: Nanos) -> Nanos {
        let machine = &mut self.machines[member];
        let slow = if self.now < machine.slow.1 { machine.slow.0 } else { 0 };
        let stuck = if machine.disk_dice.one_in(500) { 20 * mean } else { 0 };
        mean / 2 + exponential(&mut machine.disk_dice, mean / 2) + slow + stuck
    }

    fn begin_write(&mut self, member: usize, batches: Vec<crate::node::Batch>) {
        let delay = self.disk_delay(member, self.options.sync);
        let process = self.machines[member].process.as_mut().expect("only a running member writes");
        assert!(process.writing.is_none(), "the log writer is given one thing at a time");
        process.writing = Some(batches);
        let life = process.life;
        self.after(delay, Event::Written { member, life });
        self.moment(Moment::LogWrite, member, 0);
    }

    pub(super) fn written(&mut self, member: usize, life: u64) {
        if !self.lives(member, life) {
            return;
        }
        let process = self.machines[member].process.as_mut().expect("it lives");
        let batches = process.writing.take().expect("a write that ends has begun");
        let copy = batches.clone();
        let busy = self.machines[member].disk_dice.one_in(4);
        let process = self.machines[member].process.as_mut().expect("it lives");
        // The next group may already wait: then nobody seals this one.
        let done = process.writer.write(batches).and_then(|written| match busy {
            true => Ok(written),
            false => process.writer.seal().map(|()| written),
        });
        match done {
            Ok(written) => {
                process.node.on_written(written);
                self.watch.durable(member, &copy);
                self.rot(member, true);
                self.turn_soon(member);
            }
            Err(why) => {
                self.watch.seen[member].broken_off.extend(copy);
                self.stopped(member, &why);
            }
        }
    }

    fn begin_job(&mut self, member: usize) {
        let delay = self.disk_delay(member, 3 * self.options.sync);
        let life = self.machines[member].process.as_ref().expect("it has a job").life;
        self.after(delay, Event::JobDone { member, life });
        self.moment(Moment::JobBegins, member, 0);
    }

    pub(super) fn job_done(&mut self, member: usize, life: u64) {
        if !self.lives(member, life) {
            return;
        }
        let now = self.local(member);
        let process = self.machines[member].process.as_mut().expect("it lives");
        let job = process.jobs.pop_front().expect("a job that ends has begun");
        let forks = self.forks_within(member);
        let done = job.run(&|| ());
        if forks {
            self.fork_within(member);
        }
        let process = self.machines[member].process.as_mut().expect("it lives");
        match done.and_then(|done| process.node.on_done(done, now)) {
            Ok(()) => {
                if !process.jobs.is_empty() {
                    self.begin_job(member);
                }
                self.turn_soon(member);
            }
            Err(why) => self.stopped(member, &why),
        }
    }

    pub(super) fn look_for_space(&mut self, member: usize, life: u64) {
        if !self.lives(member, life) {
            return;
        }
        let reserve_bytes = 4 * self.options.segment_bytes;
        let free = self.machines[member].disk.free_bytes(&tree_dir());
        let process = self.machines[member].process.as_mut().expect("it lives");
        if let Ok(free) = free {
            process.node.on_disk_space(free, reserve_bytes);
        }
        // Now and then members are at the same entry, and not equally far in what they sweep.
        if process.node.sweep_due() {
            self.check_content();
        }
        self.after(SPACE_EVERY, Event::Space { member, life });
    }

    /// The node says that it must not go on (or could not begin). Is it right?
    pub(super) fn stopped(&mut self, member: usize, why: &Error) {
        let machine = &self.machines[member];
        self.trace.line(self.now, member as u64, || format!("stops: {why}"));
        let excused = match why {
            Error::Io { .. } => machine.troubled,
            Error::Corrupt(_) | Error::Refused(_) => machine.tainted,
        };
        if !excused {
            self.fail("S1", format!("member {member} stops without a reason: {why}"));
            return;
        }
        self.tally.stops += 1;
        let for_good = match (why, &machine.process) {
            (Error::Io { .. }, _) => false,
            (_, Some(process)) => !process.node.condemn(why).unwrap_or(false),
            (_, None) => true,
        };
        self.end_process(member, false);
        let machine = &mut self.machines[member];
        machine.gone |= for_good;
        machine.start_at = self.now + SUPERVISED_AFTER;
        self.after(SUPERVISED_AFTER, Event::Start { member });
        self.moment(Moment::Stopped, member, 0);
    }

    /// The process is no more. What its threads were just writing is done in part.
    pub(super) fn end_process(&mut self, member: usize, power_lost: bool) {
        let machine = &mut self.machines[member];
        (machine.frozen, machine.unsent) = (None, None);
        machine.clock.go_on(self.now);
        machine.deferred.clear();
        if let Some(process) = machine.process.take() {
            let Process { node, mut writer, writing, mut jobs, life, _lock, .. } = *process;
            drop(node);
            let (disk, dice) = (machine.disk.clone(), &mut machine.power_dice);
            let mut calls: Vec<Box<dyn FnOnce()>> = Vec::new();
            if let Some(batches) = writing {
                self.watch.seen[member].broken_off.extend(batches.iter().cloned());
                calls.push(Box::new(move || drop(writer.write(batches))));
            }
            if let Some(job) = jobs.pop_front() {
                calls.push(Box::new(move || drop(job.run(&|| ()))));
            }
            if calls.len() == 2 && dice.one_in(2) {
                calls.swap(0, 1);
            }
            // The last of them got stuck somewhere, those before it were through; or not even begun.
            let done = dice.below(calls.len() as u64 + 1) as usize;
            calls.truncate(done);
            if let Some(last) = calls.pop() {
                calls.into_iter().for_each(|call| call());
                disk.record();
                last();
                let points = disk.points();
                disk.rewind(&points[dice.below(points.len() as u64) as usize]);
            }
            self.clients_lost(member, life, power_lost);
            let told = !power_lost && self.net.passes(member, 0);
            self.wires_lost(member, life, told);
            self.watchers_lost(member, life, told);
            self.orders_lost(member, life);
        }
        self.machines[member].disk.end_process();
        self.hang_up(member, power_lost);
        let failed = self.machines[member].disk.syncs_after_failure();
        if failed > 0 {
            self.fail("V17", format!("member {member} synced a file {failed} times after a sync had failed"));
        }
        self.watch.end_life(member);
    }

    pub(super) fn lose_power(&mut self, member: usize, survival: Survival, away: Nanos) {
        self.end_process(member, true);
        let machine = &mut self.machines[member];
        let point = machine.disk.point();
        let dice = &mut machine.power_dice;
        let survivors = match survival {
            Survival::PosixWorst => point.random_survivors(Profile::PosixWorst, dice),
            Survival::Ext4Ordered => point.random_survivors(Profile::Ext4Ordered, dice),
            Survival::Prefix => point.random_survivors(Profile::Prefix, dice),
            Survival::All => point.uniform_survivors(Fate::Whole),
            Survival::None => point.uniform_survivors(Fate::Lost),
        };
        machine.disk.cut_power(&survivors);
        machine.powerless = true;
        machine.start_at = self.now + away;
        self.after(away, Event::Start { member });
    }

    /// SIGTERM.
    pub(super) fn begin_stop(&mut self, member: usize, restart: Nanos) {
        let now = self.local(member);
        let Some(process) = &mut self.machines[member].process else { return };
        process.node.stop(now);
        process.stopping = Some(Stopping { restart, ..Stopping::default() });
        self.turn_soon(member);
    }

    /// One step further in a clean stop, as the event loop takes them.
    fn advance_stop(&mut self, member: usize) {
        let now = self.local(member);
        let Some(process) = &mut self.machines[member].process else { return };
        let Some(stopping) = &mut process.stopping else { return };
        let since = match stopping.handed_over_at {
            Some(since) => since,
            None if !process.node.handed_over(now) => return self.turn_after(member, 10 * MS),
            None => {
                stopping.handed_over_at = Some(now);
                now
            }
        };
        if now >= since + PATIENCE && !stopping.gave_up {
            stopping.gave_up = true;
            process.node.give_up();
        }
        let (life, may_exit) = (process.life, process.node.may_exit(now));
        let moment = (now >= since + SILENCE, now >= since + PATIENCE);
        let wires_parted = self.wires_part(member, life, moment);
        let parted = now >= since + SILENCE && self.part_from_clients(member, life) && wires_parted;
        if !(may_exit && parted) && now < since + END {
            return self.turn_after(member, 10 * MS);
        }
        let process = self.machines[member].process.as_mut().expect("it is stopping");
        if process.node.checkpoint_running() {
            return;
        }
        let restart = process.stopping.as_ref().expect("it is stopping").restart;
        match process.node.final_checkpoint() {
            Err(why) => self.stopped(member, &why),
            Ok(None) => {
                self.trace.line(self.now, member as u64, || "has stopped".into());
                self.end_process(member, false);
                self.machines[member].start_at = self.now + restart;
                self.after(restart, Event::Start { member });
            }
            Ok(Some(checkpoint)) => {
                process.jobs.push_back(crate::node::Job::Checkpoint(checkpoint));
                if process.jobs.len() == 1 {
                    self.begin_job(member);
                }
            }
        }
    }
}
