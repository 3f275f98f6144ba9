//! Whole simulated clusters whose clients fight for locks and elections all the time, on leases that end under them.
//!
//! `SEEDS=n` runs more; `SEED=n` runs one alone.

use pawl::sim::generate::{Load, generate};
use pawl::sim::plan::Plan;
use pawl::sim::report::Tally;

use crate::cluster_sim::{assert_sound, number};

/// A plan of faults as any other, with clients that fight for few locks.
fn plan(seed: u64) -> Plan {
    let mut plan = generate(seed, Load::Dense);
    plan.options.leases = 2 + seed % 6;
    plan.options.locks = 1 + seed % 3;
    plan.options.ttl_max = [2, 3, 5, 30][(seed % 4) as usize];
    plan
}

#[test]
fn whoever_is_told_to_own_a_lock_does() {
    let (first, count) = match number("SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("SEEDS").unwrap_or(16)),
    };
    let mut total = Tally::default();
    for seed in first..first + count {
        total.add(&assert_sound(&format!("seed {seed}"), &plan(seed)).tally);
    }
    println!("{count} seeds: {total}");
}

/// As many seeds as it takes.
#[test]
fn every_kind_of_answer_about_locks_is_met() {
    let mut missing: Vec<String> = Vec::new();
    let mut want = |names: &str| missing.extend(names.split(", ").map(str::to_string));
    for asked in ["lock", "campaign", "lock in time", "lock at once"] {
        want(&format!("{asked} ok, {asked} NOLEASE, {asked} unknown, {asked} LOADING"));
    }
    want(
        "lock NOKEY, campaign NOKEY, lock in time NOKEY, lock in time BUSY, lock at once BUSY, lock NOSPACE",
    );
    want(
        "observer nobody, observer somebody, observer another value, observer a new leader, observer the next in line",
    );
    want("observer progress, observer ended, observer compacted, observer NOLEADER, observer LOADING");
    let mut met = Tally::default();
    for seed in 1..=60 {
        met.add(&assert_sound(&format!("seed {seed}"), &plan(seed)).tally);
        missing.retain(|name| !met.probes.contains_key(name));
        if missing.is_empty() {
            return;
        }
    }
    panic!("nobody met {missing:?}; there were {:?}", met.probes);
}

/// Members stand still, or hear the others and are not heard, for longer than the leases live on which their clients wait.
#[test]
fn who_waits_at_a_member_that_is_cut_off_is_told_nothing_wrong() {
    let mut total = Tally::default();
    for seed in 1..=number("SEEDS").unwrap_or(8) {
        let mut text = format!(
            "pawl plan 1\nseed={seed} members=3 clients=8 ops=4000 keys=12 leases=5 locks=2 ttl-max=3 think=20ms \
             faults=16s calm=10s heartbeat=20ms election=120ms lease-reads={}\n",
            seed % 2 == 1
        );
        for turn in 1..=14u64 {
            let length = 300 + 400 * (seed + turn) % 1_900;
            let (member, others) = [(1, "2,3"), (2, "1,3"), (3, "1,2")][((seed + turn) % 3) as usize];
            let fault = match turn % 3 {
                0 => format!("pause {member} for={length}ms"),
                1 => format!("pause leader for={length}ms"),
                _ => format!("cut {member}>{others} for={length}ms"),
            };
            text.push_str(&format!("t={turn}s {fault}\n"));
        }
        let plan = Plan::parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
        total.add(&assert_sound(&format!("seed {seed}"), &plan).tally);
    }
    println!("{total}");
}
