//! Recovery, for real, on copies of a member's disk: at every start, and at a sample of the claims that members
//! make, on the worst disks that a power cut at that instant could leave.

use super::process::{tree_dir, wal_dir};
use super::watch::Held;
use super::world::World;
use crate::base::{EntryId, Error, Index, Result};
use crate::io::Disk;
use crate::io::sim::{Fate, Profile, SimDisk};
use crate::node::Node;
use crate::raft::LogView;
use crate::{btree, store, wal};

/// One in so many jobs of the housekeeper is cut off on copies.
const JOBS_PER_FORK: u64 = 32;

impl World {
    /// Opens the log on a copy of the disk; what it holds. The disk itself stays as it is.
    fn recover_log(&self, member: usize, image: &SimDisk) -> Result<Option<Held>> {
        let started = image.list(&wal_dir()).map_err(|e| Error::io("list", &wal_dir(), e));
        if !started.is_ok_and(|names| names.iter().any(|name| name.ends_with(".wal"))) {
            return Ok(None);
        }
        let options = wal::Options {
            segment_bytes: self.options.segment_bytes,
            cluster: super::CLUSTER,
            member: self.machines[member].id,
            salt: 1,
        };
        let opened = wal::open(image, &wal_dir(), options, u64::MAX)?;
        let log = opened.log;
        let term = |index| log.term(index).expect("a log knows the terms of its entries");
        let base = log.first_index() - 1;
        let terms = (log.first_index()..=log.last_index()).map(term).collect();
        let mut held = Held::default();
        held.set(opened.hard_state, EntryId::new(term(base), base), terms);
        Ok(Some(held))
    }

    /// The member is about to start: what recovery will find holds everything that was ever claimed. Once it has
    /// started, that is what is durable.
    pub(super) fn check_recovered(&mut self, member: usize) -> Option<Held> {
        let machine = &self.machines[member];
        let excused = machine.tainted || machine.troubled;
        let image = machine.disk.point().kill_image();
        if machine.tainted && image.exists(&tree_dir().join("repair")).unwrap_or(false) {
            return None; // What is set aside is known to be lost.
        }
        match self.recover_log(member, &image) {
            Ok(found) => {
                let found = found?;
                self.compare(member, &found, "after its crash");
                Some(found)
            }
            Err(why) if excused => {
                self.trace.line(self.now, member as u64, || format!("a copy does not recover: {why}"));
                None
            }
            Err(why) => {
                self.fail("V01", format!("member {member} does not recover: {why}"));
                None
            }
        }
    }

    /// A member that starts without its memory holds what its new log says, and no more.
    pub(super) fn begin_without_memory(&mut self, member: usize, applied: EntryId) {
        let image = self.machines[member].disk.point().kill_image();
        match self.recover_log(member, &image) {
            Ok(held) => self.watch.lose_memory(member, held.unwrap_or_default(), applied),
            Err(why) => self.fail("V01", format!("member {member} begins anew with a bad log: {why}")),
        }
    }

    /// A member that lost its memory is whole again. Whatever else was damaged there may still be.
    pub(super) fn observe_mending(&mut self, member: usize) {
        let machine = &mut self.machines[member];
        let is_whole = machine.process.as_ref().is_some_and(|process| !process.node.is_recovering());
        if !machine.mending || !is_whole {
            return;
        }
        machine.mending = false;
        if machine.tainted
            && !machine.misapplies
            && machine.rot.is_empty()
            && !machine.disk.is_to_be_mangled()
        {
            // A write that went astray is not seen by reads as long as the cache has what was meant.
            let point = machine.disk.point();
            machine.tainted = !point.is_as_read() || !files_are_sound(&point.kill_image());
            if !machine.tainted {
                self.tally.count("repaired");
            }
        }
    }

    /// Everything that is known to be durable must be in what was found. What the log writer was just doing when
    /// its process ended may be there as well, up to any record: of a batch that cuts the log, whatever was durable
    /// behind the cut is gone then, and its entries are there up to some point (W-13 in `storage-format.md`).
    fn compare(&mut self, member: usize, found: &Held, when: &str) {
        let seen = &self.watch.seen[member];
        let Err((id, what)) = contains(found, &seen.durable) else { return };
        let mut perhaps = seen.durable.clone();
        for batch in &seen.broken_off {
            perhaps.add(batch);
            let mut in_part = perhaps.clone();
            if let Some((cut, _)) = batch.behind() {
                in_part.shorten(found.last().index.max(cut.index));
            }
            if contains(found, &in_part).is_ok() {
                return;
            }
        }
        self.fail(id, format!("member {member} {when} {what}"));
    }

    /// Cuts the power of a copy, in two cruel ways, and recovers.
    pub(super) fn fork(&mut self, member: usize) {
        let machine = &mut self.machines[member];
        if machine.tainted || machine.gone {
            return;
        }
        let point = machine.disk.point();
        let mut dice = machine.fork_dice.clone();
        let worst = point.uniform_survivors(Fate::Lost);
        let random = point.random_survivors(Profile::PosixWorst, &mut dice);
        machine.fork_dice = dice;
        for (survivors, whole) in [(worst, true), (random, self.watch.claims.is_multiple_of(4))] {
            self.recover(member, &point.image(&survivors));
            if whole {
                self.open_whole(member, &point.image(&survivors));
            }
        }
    }

    fn recover(&mut self, member: usize, image: &SimDisk) {
        match self.recover_log(member, image) {
            Ok(Some(found)) => self.compare(member, &found, "after a power cut now"),
            Ok(None) => {}
            Err(why) => {
                let what = format!("member {member} would not recover from a power cut now: {why}");
                self.fail("V01", what);
            }
        }
        self.tally.forks += 1;
    }

    /// Whether power is to be cut in the middle of the job that begins.
    pub(super) fn forks_within(&mut self, member: usize) -> bool {
        let machine = &mut self.machines[member];
        let forks = machine.fork_dice.one_in(JOBS_PER_FORK) && !machine.tainted;
        if forks {
            machine.disk.record();
        }
        forks
    }

    /// Cuts the power of copies at some operations of the job that has just ended.
    pub(super) fn fork_within(&mut self, member: usize) {
        let points = self.machines[member].disk.points();
        for _ in 0..2 {
            let dice = &mut self.machines[member].fork_dice;
            let point = &points[dice.below(points.len() as u64) as usize];
            let survivors = point.random_survivors(Profile::PosixWorst, dice);
            let images = [point.image(&survivors), point.image(&survivors)];
            self.recover(member, &images[0]);
            self.open_whole(member, &images[1]);
            if !self.sound() {
                return;
            }
        }
    }

    /// The member says that a snapshot, which reaches at least to `index`, is installed.
    pub(super) fn fork_installed(&mut self, member: usize, index: Index) {
        let point = self.machines[member].disk.point();
        let image = point.image(&point.uniform_survivors(Fate::Lost));
        self.tally.forks += 1;
        let Some(applied) = self.open_whole(member, &image) else { return };
        if applied < index {
            let what =
                format!("member {member} claims a snapshot at {index}; after a power cut it is at {applied}");
            return self.fail("V01", what);
        }
        let installed = &mut self.watch.seen[member].installed;
        *installed = (*installed).max(applied);
    }

    /// The member itself starts on the copy; what it has applied.
    fn open_whole(&mut self, member: usize, image: &SimDisk) -> Option<Index> {
        let (config, bootstrap) = (self.node_config(member), self.bootstrap(member));
        let now = self.local(member);
        match Node::open(image, config, &bootstrap, 1, now) {
            Ok(opened) => Some(opened.node.standing().1.index),
            Err(_) if self.machines[member].tainted => None,
            Err(why) => {
                let what = format!("member {member} would not start after a power cut now: {why}");
                self.fail("V01", what);
                None
            }
        }
    }
}

fn files_are_sound(image: &SimDisk) -> bool {
    let log = wal::check(image, &wal_dir()).is_ok_and(|report| report.findings.iter().all(|f| f.harmless));
    let tree = tree_dir().join("tree");
    log && store::check(image, &tree).is_ok_and(|report| report.findings.is_empty())
        && btree::check(image, &tree).is_ok()
}

fn contains(found: &Held, durable: &Held) -> std::result::Result<(), (&'static str, String)> {
    let (known, new) = (durable.hard_state, found.hard_state);
    if new.term < known.term || (new.term == known.term && known.vote != 0 && new.vote != known.vote) {
        return Err(("V03", format!("holds {new:?}; it had {known:?}")));
    }
    let last = durable.last();
    if found.last().index < last.index {
        return Err(("V01", format!("ends at {}; {last} was durable", found.last())));
    }
    let from = found.base.index.max(durable.base.index) + 1;
    for index in from..=last.index {
        let (now, was) = (found.term(index), durable.term(index));
        if now != was {
            return Err(("V01", format!("holds term {now:?} at {index}; {was:?} was durable")));
        }
    }
    Ok(())
}
