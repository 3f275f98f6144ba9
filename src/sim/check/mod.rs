//! Is what clients saw the work of one strongly consistent store? Three judges, who do not know the store:
//! they are written from what it promises (`docs/protocol.md`, and etcd's semantics), so they import its
//! vocabulary and nothing of its code.
//!
//! ```text
//!                   +--> resolve: who made revision 2, 3, 4 ..?   every revision has one owner, every
//!                   |             (claims, sightings, read-back)   write at most one revision
//!   History --------+--> replay:  a map of histories              every answer in full: kvs, counts, order,
//!   ops, changes    |             written in that order            versions, what was there before
//!                   +--> timeline: one sweep over true time       nothing goes back, nothing comes
//!                   |                                              from the future
//!                   +--> locks:   the oldest key of a name         who is told to own it does
//!                   +--> compaction: the same, of where history ends   it ends where somebody said, never earlier
//!                   |
//!                   +--> hashes:  one for each revision            whoever tells it
//!                   |
//!                   +--> wgl:     search per key, no revisions    a second opinion
//!                   +--> leases:  search per lease                 not gone early, not back
//! ```
//!
//! **[`replay`]** is the main judge. In general it is NP-hard to say whether a history is linearizable; here the
//! store itself claims an order, because each write is one revision, and the claim can be checked in O(n log n):
//! replay the writes in the order of their revisions, hold each answer against the state at the revision that it
//! names, and see that revisions agree with true time. A write is *lost* when a later answer or the read-back
//! does not show it.
//!
//! Writes of unknown outcome happened once or never. Which, is told by their values when somebody saw them, or
//! by the read-back ([`History::changes`](super::history::History)). Where neither tells and yet a revision is
//! missing, the keys that such a write could have changed are in doubt from there on: answers about them are
//! counted as unchecked, never as wrong. With a full read-back nothing is.
//!
//! **[`wgl`]** knows nothing of revisions: it searches for any order of the operations on one key that explains
//! the values that were seen. It finds what the store's own revisions would hide if they lied consistently, and
//! mistakes of the first judge. Its search is exponential at worst, so it has a budget.
//!
//! **[`watches`]** holds what watches were told against the state that the replay ends in, **[`observers`]** what those were told
//! who observe elections.
//!
//! What is checked of each kind of answer is written at [`Rule`]. Left out: when a watch is told, for nobody promises that;
//! anything about errors but whether they may have changed something; the order among equals where a range is sorted by
//! something else than its key, which nobody promises.

mod compaction;
#[cfg(test)]
mod generator;
mod hashes;
#[cfg(test)]
mod lease_tests;
pub mod leases;
#[cfg(test)]
mod lock_tests;
mod locks;
mod model;
mod observers;
pub mod replay;
mod resolve;
#[cfg(test)]
mod tests;
mod timeline;
pub mod txn;
mod txn_replay;
#[cfg(test)]
mod txn_tests;
mod watches;
pub mod wgl;

pub use replay::{Summary, check};

use std::fmt;

use super::history::Op;

/// What a store promises, by the name under which a violation is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Each revision belongs to one write, and is above the empty store's.
    OneWritePerRevision,
    /// A write of unknown outcome happens once or never; an acknowledged one once.
    AppliedOnce,
    /// What was refused did not happen.
    RefusedIsRefused,
    /// What is read was written by somebody.
    NothingFromNowhere,
    /// Revisions without an owner: a gap that no write of unknown outcome can explain.
    NoGaps,
    /// What the store tells of a revision afterwards is what its owner did.
    NothingLost,
    /// An answer is, in full, what its request yields at its revision.
    RightAnswer,
    /// No answer is older than what was finished before its question, and no write precedes its question.
    RealTime,
    /// On one connection the store never goes back, also for serializable reads.
    ConnectionForward,
    /// What was compacted before the question is refused; the rest is not, and the end of history never goes back.
    Compaction,
    /// No order of the operations on one key explains what was seen.
    Linearizable,
    /// A watch is told revisions in their order, each once, and none before the first that was asked for.
    WatchOrder,
    /// No revision that changed something that a watch wants is left out before a later one.
    WatchComplete,
    /// All that a revision did to the keys of a watch comes in one piece, with what was there before, and nothing else.
    WatchRight,
    /// Progress is not told up to a revision before everything up to there was.
    WatchProgress,
    /// A watch ends for a compaction only if what it wants next was compacted, and is told nothing more.
    WatchEnd,
    /// A lease lives as long as was promised, and does not come back.
    LeaseLives,
    /// Whoever is told to have a lock had the oldest key of its name, on a lease that lived.
    OneOwner,
    /// All members tell the same hash of the same history.
    SameHash,
    /// Who observes an election is told who leads, then each leader and each value of it, once, in order, and nothing else.
    Observers,
}

impl Rule {
    pub fn name(self) -> &'static str {
        match self {
            Rule::OneWritePerRevision => "one-write-per-revision",
            Rule::AppliedOnce => "applied-once",
            Rule::RefusedIsRefused => "refused-is-refused",
            Rule::NothingFromNowhere => "nothing-from-nowhere",
            Rule::NoGaps => "no-gaps",
            Rule::NothingLost => "nothing-lost",
            Rule::RightAnswer => "right-answer",
            Rule::RealTime => "real-time",
            Rule::ConnectionForward => "connection-forward",
            Rule::Compaction => "compaction",
            Rule::Linearizable => "linearizable",
            Rule::WatchOrder => "watch-order",
            Rule::WatchComplete => "watch-complete",
            Rule::WatchRight => "watch-right",
            Rule::WatchProgress => "watch-progress",
            Rule::WatchEnd => "watch-end",
            Rule::LeaseLives => "lease-lives",
            Rule::OneOwner => "one-owner",
            Rule::SameHash => "same-hash",
            Rule::Observers => "observers",
        }
    }
}

/// A broken promise: which one, what was found where what was expected, and the operations that show it.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
    pub ops: Vec<Op>,
}

impl Violation {
    fn new(rule: Rule, what: impl Into<String>, ops: &[&Op]) -> Violation {
        Violation { rule, what: what.into(), ops: ops.iter().copied().cloned().collect() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule.name(), self.what)?;
        for op in &self.ops {
            write!(f, "\n    {op}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}
