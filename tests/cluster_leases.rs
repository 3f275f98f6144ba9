//! Whole simulated clusters whose clients ask for leases all the time: short ones, which end under changes of leader, and
//! longer ones, of which it is noted what is left.
//!
//! `SEEDS=n` runs more; `SEED=n` runs one alone.

use pawl::sim::generate::{Load, generate};
use pawl::sim::plan::Plan;
use pawl::sim::report::Tally;

use crate::cluster_sim::{assert_sound, number};

/// A plan of faults as any other, with clients that ask for leases of few seconds, or of some.
fn plan(seed: u64) -> Plan {
    let mut plan = generate(seed, Load::Dense);
    plan.options.leases = 1 + seed % 6;
    plan.options.ttl_max = [2, 3, 5, 30][(seed % 4) as usize];
    plan
}

#[test]
fn leases_live_as_promised_and_end() {
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

/// Who leads is paused for longer than leases live, and another one renews or ends them; then it goes on, and leads again.
#[test]
fn a_leader_that_stood_still_ends_nothing_that_was_renewed() {
    let mut total = Tally::default();
    for seed in 1..=number("SEEDS").unwrap_or(6) {
        let mut text = format!(
            "pawl plan 1\nseed={seed} members=3 clients=4 ops=3000 keys=12 leases=4 ttl-max=3 think=20ms \
             faults=16s calm=10s heartbeat=20ms election=120ms lease-reads={}\n",
            seed % 2 == 1
        );
        for turn in 1..=14u64 {
            text.push_str(&format!("t={turn}s pause leader for={}ms\n", 300 + 400 * (seed + turn) % 1_900));
        }
        let plan = Plan::parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
        total.add(&assert_sound(&format!("seed {seed}"), &plan).tally);
    }
    println!("{total}");
}
