//! The worlds that are searched.

use super::world::{Budget, Setup};
use crate::raft::Change;
use crate::raft::explore::Planted;

const NOTHING: Budget = Budget {
    timeouts: 0,
    proposals: 0,
    crashes: 0,
    duplicates: 0,
    heartbeats: 0,
    clock: 0,
    reads: 0,
    transfers: 0,
    changes: 0,
};

const THREE: Setup = Setup {
    name: "",
    voters: 3,
    learners: 0,
    spares: 0,
    leader: 1,
    term_max: 3,
    pre_vote: false,
    leases: false,
    slow_disks: false,
    changes: &[],
    budget: NOTHING,
    planted: None,
};

/// Elections from nothing, with late disks and a crash that keeps any prefix.
const ELECTIONS: Setup = Setup {
    name: "elections",
    leader: 0,
    term_max: 2,
    slow_disks: true,
    budget: Budget { timeouts: 2, crashes: 1, duplicates: 1, ..NOTHING },
    ..THREE
};

/// The same with pre-vote.
const PRE_VOTE: Setup = Setup {
    name: "pre-vote",
    leader: 0,
    term_max: 2,
    pre_vote: true,
    budget: Budget { timeouts: 3, crashes: 1, ..NOTHING },
    ..THREE
};

/// Replication and commit over two more terms (paper, figure 8).
const REPLICATION: Setup = Setup {
    name: "replication",
    term_max: 4,
    budget: Budget { timeouts: 3, proposals: 1, crashes: 1, heartbeats: 1, ..NOTHING },
    ..THREE
};

/// Replication with late disks.
const DURABILITY: Setup = Setup {
    name: "durability",
    term_max: 2,
    slow_disks: true,
    budget: Budget { timeouts: 1, proposals: 2, crashes: 1, heartbeats: 1, ..NOTHING },
    ..THREE
};

/// Appends that overtake each other and come twice, in one term.
const PIPELINE: Setup = Setup {
    name: "pipeline",
    term_max: 1,
    budget: Budget { proposals: 2, crashes: 1, duplicates: 1, heartbeats: 1, ..NOTHING },
    ..THREE
};

/// Leases: time, reads, restarts.
const LEASES: Setup = Setup {
    name: "leases",
    term_max: 2,
    leases: true,
    budget: Budget { timeouts: 2, proposals: 1, crashes: 1, clock: 3, reads: 1, ..NOTHING },
    ..THREE
};

/// A hand-over, with leases.
const TRANSFER: Setup = Setup {
    name: "transfer",
    term_max: 3,
    leases: true,
    budget: Budget { timeouts: 1, proposals: 1, clock: 3, reads: 1, transfers: 1, ..NOTHING },
    ..THREE
};

/// Reads that are confirmed by rounds.
const READ_INDEX: Setup = Setup {
    name: "read index",
    term_max: 2,
    budget: Budget { timeouts: 1, proposals: 1, heartbeats: 1, duplicates: 1, reads: 2, ..NOTHING },
    ..THREE
};

/// One change, of each kind, while leaders come and go.
const ONE_CHANGE: Setup = Setup {
    name: "one change",
    spares: 1,
    term_max: 3,
    changes: &[&[Change::AddVoter(4)], &[Change::AddLearner(4)], &[Change::Remove(1)], &[Change::Remove(2)]],
    budget: Budget { timeouts: 2, proposals: 1, crashes: 1, heartbeats: 1, changes: 1, ..NOTHING },
    ..THREE
};

/// Two changes by two leaders (Ongaro's correction).
const TWO_CHANGES: Setup = Setup {
    name: "two changes",
    voters: 4,
    spares: 1,
    term_max: 3,
    changes: &[&[Change::AddVoter(5)], &[Change::Remove(1)]],
    budget: Budget { timeouts: 2, heartbeats: 1, changes: 2, ..NOTHING },
    ..THREE
};

/// Several voters at once: both halves count, and the second entry follows.
const JOINT: Setup = Setup {
    name: "joint",
    learners: 2,
    voters: 2,
    term_max: 3,
    changes: &[&[Change::Promote(3), Change::Promote(4), Change::Remove(2)]],
    budget: Budget { timeouts: 2, proposals: 1, crashes: 1, heartbeats: 1, changes: 1, ..NOTHING },
    ..THREE
};

/// A change and a hand-over.
const CHANGE_AND_TRANSFER: Setup = Setup {
    name: "change and transfer",
    term_max: 3,
    changes: &[&[Change::Remove(1)], &[Change::Remove(3)]],
    budget: Budget { timeouts: 1, heartbeats: 1, transfers: 1, changes: 1, proposals: 1, ..NOTHING },
    ..THREE
};

/// All of them.
pub fn setups() -> Vec<Setup> {
    vec![
        ELECTIONS,
        PRE_VOTE,
        REPLICATION,
        DURABILITY,
        PIPELINE,
        LEASES,
        TRANSFER,
        READ_INDEX,
        ONE_CHANGE,
        TWO_CHANGES,
        JOINT,
        CHANGE_AND_TRANSFER,
    ]
}

/// Worlds in which a rule is broken. Each must end in a violation.
pub fn planted() -> Vec<Setup> {
    let plant = |setup: Setup, rule| Setup { planted: Some(rule), ..setup };
    vec![
        plant(ELECTIONS, Planted::EarlyVote),
        plant(DURABILITY, Planted::EarlyOwnCount),
        plant(REPLICATION, Planted::EarlierTerms),
        plant(PIPELINE, Planted::ShorterSuffix),
        plant(LEASES, Planted::ForgottenPromise),
        plant(TRANSFER, Planted::LeaseThroughTransfer),
        plant(READ_INDEX, Planted::UnconfirmedRead),
        plant(READ_INDEX, Planted::ReadBeforeOwn),
        plant(JOINT, Planted::OneHalf),
        plant(TWO_CHANGES, Planted::EarlyChange),
        plant(TWO_CHANGES, Planted::TwoChanges),
        plant(ONE_CHANGE, Planted::KeptMembership),
    ]
}
