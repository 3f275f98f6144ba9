//! Compactions that nobody asks for: `--auto-compaction-mode` and `--auto-compaction-retention`.
//!
//! *By time*: a member notes its revision now and then, and when. Whoever leads compacts at the newest one that it noted
//! a retention ago or earlier. So what was to be read within the retention still is, and what is older goes within
//! a tenth of it, or six minutes. (etcd does so once in a retention, or once in an hour: there up to twice as much is kept.)
//!
//! *By revision*: whoever leads looks every ten seconds, and when there is a tenth more history than is to be kept, it
//! compacts so many revisions behind its own. (etcd looks every five minutes, however much was written meanwhile.)
//!
//! A member notes while others lead, too, by its own clock and of what it has applied: so a new leader goes on where the
//! old one was, and who lags errs on the side of keeping. A process that starts begins with an empty memory. If it is elected, up
//! to one more retention of history is kept, once; unless it is not the only one that stopped, the others are as likely to lead.
//!
//! A note costs 16 bytes, there is one only where something was written since the last, and [`NOTES_MAX`] at most.

use std::collections::VecDeque;

use super::Node;
use super::writes::Asker;
use crate::api::{Command, Compact};
use crate::base::planted;
use crate::base::time::{MS, Nanos, SECOND};
use crate::base::{Mono, Revision};
use crate::io::Disk;

/// How much history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Of so long.
    Time(Nanos),
    /// So many revisions; looked at so often.
    Revisions { count: u64, every: Nanos },
}

/// How often revisions are counted.
pub const REVISIONS_EVERY: Nanos = 10 * SECOND;

/// Notes in a retention, or in an hour of it if that is shorter: etcd's.
const NOTES_PER_PERIOD: u64 = 10;
const PERIOD_MAX: Nanos = 3_600 * SECOND;
const NOTE_EVERY_MIN: Nanos = 100 * MS;

/// Of very long retentions the notes are further apart.
const NOTES_MAX: u64 = 1_000;

/// A proposal that nobody takes for so long is made again.
const PATIENCE: Nanos = 5 * SECOND;

#[derive(Debug)]
pub(super) struct AutoCompaction {
    retention: Retention,
    /// Which revision there was, and when: rising, the oldest first.
    notes: VecDeque<(Mono, Revision)>,
    look_at: Mono,
    /// An entry on its way.
    write: Option<u64>,
}

impl AutoCompaction {
    pub(super) fn new(retention: Retention, now: Mono) -> AutoCompaction {
        AutoCompaction { retention, notes: VecDeque::new(), look_at: now, write: None }
    }

    pub(super) fn deadline(&self) -> Mono {
        self.look_at
    }

    fn every(&self) -> Nanos {
        match self.retention {
            Retention::Revisions { every, .. } => every,
            Retention::Time(retention) => {
                let period = retention.min(PERIOD_MAX);
                (period / NOTES_PER_PERIOD).max(retention / NOTES_MAX).max(NOTE_EVERY_MIN)
            }
        }
    }

    /// Where to compact now, by what this member knows: its revision, and the bound of the last compaction.
    fn look(&mut self, now: Mono, revision: Revision, bound: Revision) -> Option<Revision> {
        if now < self.look_at {
            return None;
        }
        self.look_at = now + self.every();
        let wanted = match self.retention {
            Retention::Time(retention) => self.newest_of_age(now, revision, retention),
            Retention::Revisions { count, .. } => {
                let enough = bound.saturating_add(count).saturating_add((count / 10).max(1));
                (revision >= enough).then(|| revision - count)
            }
        };
        // There is nothing before the first revision.
        wanted.filter(|wanted| *wanted > bound.max(1))
    }

    /// Notes the revision of now, and forgets what is older than it must be.
    fn newest_of_age(&mut self, now: Mono, revision: Revision, retention: Nanos) -> Option<Revision> {
        if self.notes.back().is_none_or(|(_, last)| *last < revision) {
            self.notes.push_back((now, revision));
        }
        let of_age = |(noted_at, _): &(Mono, Revision)| {
            now.since(*noted_at) >= retention || planted::on("node-young-history-is-compacted")
        };
        while self.notes.get(1).is_some_and(of_age) {
            self.notes.pop_front();
        }
        self.notes.front().filter(|note| of_age(note)).map(|(_, revision)| *revision)
    }
}

impl<D: Disk> Node<D> {
    pub(super) fn compact_by_itself(&mut self) {
        let (revision, bound) = (self.store.revision(), self.store.compact_revision());
        let leads =
            self.leads() && self.stopping.is_none() && !self.raft.transferring() && !self.log_is_full();
        let Some(auto) = &mut self.auto_compaction else { return };
        let Some(revision) = auto.look(self.now, revision, bound).filter(|_| leads) else { return };
        let is_open = |id| self.writes.is_open(id) || planted::on("node-lost-compaction-is-awaited");
        if auto.write.is_some_and(is_open) {
            return;
        }
        auto.write = Some(self.writes.next_id());
        let compact = Command::Compact(Compact { revision, physical: false });
        self.write(Asker::Member, &compact, self.now + PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mono = Mono(1_000 * SECOND);
    const MINUTE: Nanos = 60 * SECOND;

    /// A member whose revision is its age in minutes plus 1, and whose wishes are carried out while it leads: (minute,
    /// revision) of each. While others lead nobody compacts.
    fn wishes(retention: Retention, minutes: u64, leads: impl Fn(u64) -> bool) -> Vec<(u64, Revision)> {
        let mut auto = AutoCompaction::new(retention, START);
        let (mut bound, mut wishes) = (0, Vec::new());
        for minute in 0..=minutes {
            let now = START + minute * MINUTE;
            if let Some(revision) = auto.look(now, minute + 1, bound).filter(|_| leads(minute)) {
                bound = revision;
                wishes.push((minute, revision));
            }
        }
        wishes
    }

    #[test]
    fn what_was_there_within_the_retention_is_kept() {
        let found = wishes(Retention::Time(10 * MINUTE), 14, |_| true);
        assert_eq!(found, [(11, 2), (12, 3), (13, 4), (14, 5)]);
    }

    /// A note each six minutes; three hours are not a multiple of them less one minute.
    #[test]
    fn a_long_retention_is_never_cut_short() {
        for retention in [180, 179, 95] {
            let found = wishes(Retention::Time(retention * MINUTE), 400, |_| true);
            assert!(found.len() > 30, "{found:?}");
            for (minute, revision) in found {
                assert!((retention..retention + 6).contains(&(minute + 1 - revision)), "{minute} {revision}");
            }
        }
    }

    #[test]
    fn who_begins_to_lead_knows_how_old_the_history_is() {
        let found = wishes(Retention::Time(10 * MINUTE), 34, |minute| minute > 32);
        assert_eq!(found, [(33, 24), (34, 25)]);
    }

    #[test]
    fn so_many_revisions_are_kept_and_a_tenth_more_at_most() {
        let retention = Retention::Revisions { count: 20, every: MINUTE };
        assert_eq!(wishes(retention, 26, |_| true), [(21, 2), (23, 4), (25, 6)]);
        let one = Retention::Revisions { count: 1, every: MINUTE };
        assert_eq!(wishes(one, 4, |_| true), [(2, 2), (3, 3), (4, 4)]);
        let all = Retention::Revisions { count: u64::MAX, every: MINUTE };
        assert_eq!(wishes(all, 100, |_| true), []);
    }

    #[test]
    fn nothing_is_wanted_twice_nor_where_nothing_was_written() {
        let mut auto = AutoCompaction::new(Retention::Time(10 * MINUTE), START);
        let mut look = |minute: u64, revision, bound| auto.look(START + minute * MINUTE, revision, bound);
        for minute in 0..10 {
            assert_eq!(look(minute, 50, 0), None);
        }
        assert_eq!(look(10, 60, 0), Some(50));
        assert_eq!(look(11, 60, 0), Some(50), "nobody did it");
        assert_eq!(look(12, 60, 50), None, "it is done");
        assert_eq!(look(20, 60, 70), None, "somebody else has done more");
    }

    #[test]
    fn memory_is_bounded_and_an_idle_member_needs_none() {
        let century = 100 * 365 * 24 * 60 * MINUTE;
        let mut auto = AutoCompaction::new(Retention::Time(century), START);
        let mut now = START;
        for revision in 1..3 * NOTES_MAX {
            now = auto.look_at.max(now);
            auto.look(now, revision, 0);
            assert!(auto.notes.len() as u64 <= NOTES_MAX + 1, "{}", auto.notes.len());
        }
        let mut auto = AutoCompaction::new(Retention::Time(MINUTE), START);
        for second in 0..100 {
            auto.look(START + second * SECOND, 7, 0);
        }
        assert_eq!(auto.notes.len(), 1);
    }
}
