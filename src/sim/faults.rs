//! What the lines of a plan do to the world.
//!
//! A line that cannot be done when it is due is passed over. So is one that would break what nobody promises to
//! survive: damage or loss beyond a minority of the disks of any membership that may turn out to be in force (`operator`),
//! clocks beyond their bound while leases are trusted.

use super::machine::Rotting;
use super::plan::{Action, DiskTrouble, Rot, Step, Who};
use super::process::wal_dir;
use super::world::{Event, Undo, World};
use crate::base::time::{Nanos, SECOND};
use crate::io::sim::{Call, Damage, Fate, Fault, Mangle, SimDisk};
use crate::io::{Disk, File, Open};
use crate::wal;

/// How far off a clock may run where leases are trusted: `raft::Config::drift_permille`, a little less.
const DRIFT_PPM_MAX: u64 = 19_000;

/// How long it takes to replace a disk.
const NEW_DISK_AFTER: Nanos = SECOND;

/// What a file system reads at once, and damages at once.
const PAGE_BYTES: u64 = 4096;
const SECTOR_BYTES: u64 = 512;

impl World {
    pub(super) fn who(&self, who: Who, subject: usize, other: usize) -> Option<usize> {
        let leads = |member: &usize| {
            self.machines[*member].process.as_ref().is_some_and(|process| process.node.leads())
        };
        let member = match who {
            Who::Member(id) => id as usize,
            Who::Subject => subject,
            Who::Other => other,
            Who::Leader => self.members().find(leads)?,
        };
        self.members().contains(&member).then_some(member)
    }

    /// Does one thing; `subject` and `other` are those of the moment that it waited for.
    pub(super) fn act(&mut self, action: &Action, subject: usize, other: usize) {
        let who = |who: &Who| {
            let invited = |member: &usize| self.machines[*member].invited;
            self.who(*who, subject, other).filter(invited)
        };
        let done = match action {
            Action::PowerCut { who: member, survival, restart } => {
                who(member).is_some_and(|member| self.cut_power(member, *survival, *restart))
            }
            Action::Kill { who: member, restart } => {
                who(member).is_some_and(|member| self.kill(member, *restart))
            }
            Action::Stop { who: member, restart } => {
                who(member).filter(|member| self.machines[*member].process.is_some()).is_some_and(|member| {
                    self.begin_stop(member, *restart);
                    true
                })
            }
            Action::Pause { who: member, length, mid_turn, clock_stops } => {
                who(member).is_some_and(|member| self.freeze(member, *length, *mid_turn, *clock_stops))
            }
            Action::LoseDisk { who: member } => who(member).is_some_and(|member| self.lose_disk(member)),
            Action::Disk { who: member, trouble } => {
                who(member).is_some_and(|member| self.trouble(member, trouble))
            }
            Action::CorruptState { who: member } => {
                who(member).is_some_and(|member| self.corrupt_state(member))
            }
            Action::Drift { who: member, ppm } => who(member).is_some_and(|member| self.drift(member, *ppm)),
            Action::Cut { links, length } => self.cut_links(links.pairs(), *length),
            Action::Lag { links, delay, length } => self.lag_links(links.pairs(), *delay, *length),
            Action::Reset { links } => self.reset_links(&links.pairs()),
            Action::Order { step, who } => {
                let machine = self.who(*who, subject, other);
                machine.is_some_and(|machine| self.order(&[(*step, machine)]))
            }
            Action::Together { steps } => {
                let machine = |(step, who): &(Step, Who)| Some((*step, self.who(*who, subject, other)?));
                let steps: Option<Vec<(Step, usize)>> = steps.iter().map(machine).collect();
                steps.is_some_and(|steps| self.order(&steps))
            }
        };
        if done {
            self.tally.count(action.class());
        }
        self.trace.line(self.now, 0, || format!("{action}{}", if done { "" } else { " (passed over)" }));
        self.trace.mix(u64::from(done));
    }

    pub(super) fn undo(&mut self, undo: &Undo) {
        match undo {
            Undo::Cut(pairs) => {
                for &(from, to) in pairs {
                    let link = self.net.link(from as usize, to as usize);
                    link.cuts = link.cuts.saturating_sub(1);
                    self.link_healed(from as usize, to as usize);
                }
            }
            Undo::Lag(pairs, delay) => {
                for &(from, to) in pairs {
                    let link = self.net.link(from as usize, to as usize);
                    link.lag = link.lag.saturating_sub(*delay);
                }
            }
            Undo::Full(member) => self.machines[*member].disk.set_capacity(None),
        }
    }

    // ---- Processes

    fn cut_power(&mut self, member: usize, survival: super::plan::Survival, restart: Nanos) -> bool {
        if self.machines[member].gone || self.machines[member].powerless {
            return false;
        }
        self.lose_power(member, survival, restart);
        true
    }

    fn kill(&mut self, member: usize, restart: Nanos) -> bool {
        if self.machines[member].process.is_none() {
            return false;
        }
        self.end_process(member, false);
        self.machines[member].start_at = self.now + restart;
        self.after(restart, Event::Start { member });
        true
    }

    fn freeze(&mut self, member: usize, length: Nanos, mid_turn: bool, clock_stops: bool) -> bool {
        let now = self.local(member);
        let machine = &mut self.machines[member];
        if machine.frozen.is_some() || (clock_stops && self.options.lease_reads) {
            return false;
        }
        let Some(process) = &mut machine.process else { return false };
        if mid_turn {
            process.turn_at = None;
            match process.node.turn(now) {
                Ok(output) => machine.unsent = Some(Box::new(output)),
                Err(why) => {
                    self.stopped(member, &why);
                    return false;
                }
            }
        }
        if clock_stops {
            machine.clock.stop(self.now);
        }
        machine.frozen = Some(self.now + length);
        self.after(length, Event::Thaw { member, clock: clock_stops });
        true
    }

    pub(super) fn thaw(&mut self, member: usize, clock: bool) {
        let now = self.now;
        let machine = &mut self.machines[member];
        if clock {
            machine.clock.go_on(now);
        }
        // A machine that lost power meanwhile may stand still anew, for another reason.
        if machine.frozen.is_none_or(|thaw| thaw > now) {
            return;
        }
        machine.frozen = None;
        let unsent = machine.unsent.take();
        let deferred = std::mem::take(&mut machine.deferred);
        if let Some(output) = unsent {
            self.carry_out(member, *output);
        }
        for event in deferred {
            self.handle(event);
        }
        self.turn_soon(member);
    }

    fn drift(&mut self, member: usize, ppm: i64) -> bool {
        if self.options.lease_reads && ppm.unsigned_abs() > DRIFT_PPM_MAX {
            return false;
        }
        self.machines[member].clock.drift(self.now, ppm);
        self.turn_soon(member);
        true
    }

    // ---- Links

    fn valid(&self, pairs: &[(u64, u64)]) -> bool {
        pairs.iter().all(|(from, to)| (*from).max(*to) <= self.options.machines())
    }

    fn cut_links(&mut self, pairs: Vec<(u64, u64)>, length: Nanos) -> bool {
        if !self.valid(&pairs) {
            return false;
        }
        for &(from, to) in &pairs {
            self.net.link(from as usize, to as usize).cuts += 1;
        }
        self.after(length, Event::Undo(Undo::Cut(pairs)));
        true
    }

    fn lag_links(&mut self, pairs: Vec<(u64, u64)>, delay: Nanos, length: Nanos) -> bool {
        if !self.valid(&pairs) {
            return false;
        }
        for &(from, to) in &pairs {
            self.net.link(from as usize, to as usize).lag += delay;
        }
        self.after(length, Event::Undo(Undo::Lag(pairs, delay)));
        true
    }

    fn reset_links(&mut self, pairs: &[(u64, u64)]) -> bool {
        if !self.valid(pairs) {
            return false;
        }
        for &(from, to) in pairs {
            for number in self.net.between(from as usize, to as usize) {
                self.net.conns.get_mut(&number).expect("it was just listed").doomed = true;
            }
        }
        true
    }

    // ---- Disks

    fn lose_disk(&mut self, member: usize) -> bool {
        if self.machines[member].gone || !self.may_lose(member) {
            return false;
        }
        self.end_process(member, true);
        // Nothing tells a member that was added from one that was added just now; one of the first knows whom to ask as
        // long as the members are the first ones. Otherwise its operator has to remove it and add another.
        let comes_back = self.options.spares == 0;
        let machine = &mut self.machines[member];
        machine.disk = SimDisk::new();
        machine.rot.clear();
        machine.wrong = None;
        if !comes_back {
            (machine.gone, machine.powerless) = (true, true);
            return true;
        }
        // Whoever put the new disk in starts the member as it was started the first time.
        (machine.tainted, machine.powerless) = (true, true);
        machine.start_at = self.now + NEW_DISK_AFTER;
        self.after(NEW_DISK_AFTER, Event::Start { member });
        true
    }

    fn trouble(&mut self, member: usize, trouble: &DiskTrouble) -> bool {
        if self.machines[member].gone {
            return false;
        }
        let now = self.now;
        let machine = &mut self.machines[member];
        let disk = machine.disk.clone();
        let mut fail = |call, file: &str, skip| {
            disk.fail(Fault::once(call, file).after(skip));
            machine.troubled = true;
        };
        match trouble {
            DiskTrouble::FailSync { file, skip } => fail(Call::Sync, file, *skip),
            DiskTrouble::FailWrite { file, skip } => fail(Call::Write, file, *skip),
            DiskTrouble::FailRead { file, skip } => fail(Call::Read, file, *skip),
            DiskTrouble::Full { spare_bytes, length } => {
                let free = disk.free_bytes(wal_dir().as_path()).unwrap_or(1 << 40);
                let used = (1u64 << 40).saturating_sub(free);
                disk.set_capacity(Some(used + spare_bytes));
                machine.troubled = true;
                self.after(*length, Event::Undo(Undo::Full(member)));
            }
            DiskTrouble::Slow { delay, length } => machine.slow = (*delay, now + *length),
            DiskTrouble::Damage { file, kind, place } => return self.damage(member, file, *kind, *place),
            DiskTrouble::LoseWrite { skip } => return self.mangle(member, *skip, false),
            DiskTrouble::Misdirect { skip } => return self.mangle(member, *skip, true),
        }
        true
    }

    /// Only writes of the tree: of the log's newest group a lying disk leaves no trace, and nobody can tell it
    /// from a torn one.
    fn mangle(&mut self, member: usize, skip: u64, elsewhere: bool) -> bool {
        if !self.may_lose(member) {
            return false;
        }
        let machine = &mut self.machines[member];
        let pages = machine.disk.files().iter().find(|(path, _)| path.ends_with("tree")).map_or(0, |f| f.1)
            / PAGE_BYTES;
        let elsewhere = elsewhere.then(|| machine.power_dice.below(pages.max(1)) * PAGE_BYTES);
        machine.disk.mangle(Mangle::new("tree", skip, elsewhere));
        machine.tainted = true;
        true
    }

    /// Picks the byte. Damage of the log waits until one more group is durable behind it; damage of the tree until the
    /// process starts anew: as long as it runs it reads from its page cache, and a page is verified once.
    fn damage(&mut self, member: usize, file: &str, kind: Rot, place: u64) -> bool {
        if !self.may_lose(member) {
            return false;
        }
        let disk = &self.machines[member].disk;
        let worst = disk.point().image(&disk.point().uniform_survivors(Fate::Lost));
        let mut parts: Vec<(std::path::PathBuf, u64)> = Vec::new();
        if "wal".contains(file) {
            parts.extend(wal::check(&worst, &wal_dir()).map(|report| report.ends).unwrap_or_default());
        }
        if "tree".contains(file) {
            parts.extend(worst.files().into_iter().filter(|(path, _)| path.ends_with("tree")));
        }
        let total: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
        let mut at = (u128::from(total) * u128::from(place.min(999)) / 1_000) as u64;
        for (path, bytes) in parts {
            if at < bytes {
                let at = if kind == Rot::Flip { at } else { at / SECTOR_BYTES * SECTOR_BYTES };
                let bytes_max = (bytes - at) as usize;
                self.machines[member].rot.push(Rotting { path, offset: at, bytes_max, kind });
                self.machines[member].tainted = true;
                return true;
            }
            at -= bytes;
        }
        false
    }

    /// Damage that is due strikes: of the log after each group, of the tree before each start.
    pub(super) fn rot(&mut self, member: usize, of_log: bool) {
        if self.machines[member].rot.is_empty() {
            return;
        }
        let machine = &mut self.machines[member];
        let due = |rotting: &mut Rotting| rotting.path.starts_with(wal_dir()) == of_log;
        let due: Vec<Rotting> = machine.rot.extract_if(.., due).collect();
        for Rotting { path, offset, bytes_max, kind } in due {
            let dice = &mut machine.power_dice;
            let damage = match kind {
                Rot::Flip => Damage::Flip { bit: dice.below(8) as u8 },
                Rot::Zero => Damage::Zero { len: bytes_max.min(1 << dice.below(13)) },
                Rot::Garbage => {
                    let len = bytes_max.min(1 << dice.below(13));
                    Damage::Garbage { len, seed: dice.next_u64() }
                }
                Rot::Misplaced => {
                    let file_bytes = machine.disk.open(&path, Open::Read).and_then(|file| file.len_bytes());
                    let pages = file_bytes.unwrap_or(0) / PAGE_BYTES;
                    Damage::Copy {
                        from: dice.below(pages.max(1)) * PAGE_BYTES,
                        len: bytes_max.min(PAGE_BYTES as usize),
                    }
                }
            };
            // The file may have been released since.
            let _ = machine.disk.damage(&path, offset, damage);
        }
    }
}
