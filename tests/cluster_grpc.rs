//! Whole clusters whose clients speak gRPC in bytes: h2's client, a stream in pieces, the adapter that ships. What `pawl::sim`
//! judges is judged here, too; this says what must be met.

use pawl::sim::plan::Plan;
use pawl::sim::report::Tally;
use pawl::sim::run::{View, run};

use crate::cluster_sim::{assert_sound, number};

fn plan(seed: u64, load: &str) -> Plan {
    let text = format!(
        "pawl plan 1\nseed={seed} members=3 clients=8 watchers=4 keys=8 leases=4 locks=2 txns=20 compact=25 \
         grpc=100 wire-resets=2000 wire-stalls=4000 {load}\n"
    );
    Plan::parse(&text).unwrap()
}

/// Methods and statuses, what happens on the way, and that one plan is one run.
#[test]
fn every_kind_of_call_meets_every_kind_of_end() {
    let mut missing: Vec<String> = Vec::new();
    let mut want = |names: &str| missing.extend(names.split(", ").map(str::to_string));
    for method in ["Range", "Put", "Txn", "LeaseKeepAlive", "LeaseTimeToLive"] {
        want(&format!("rpc {method} 0, rpc {method} broken off"));
    }
    want("rpc DeleteRange 0, rpc LeaseLeases 0, rpc Txn 4 TIMEOUT, rpc Lock 4 TIMEOUT");
    want("rpc Compact 0, rpc Alarm 0, rpc Defragment 0, rpc LeaseGrant 0, rpc LeaseRevoke 0");
    want("rpc Campaign 0, rpc Lock 0, rpc Unlock 0, rpc Leader 0, rpc Leader 2 NOKEY");
    want("rpc Range 11 FUTURE, rpc Range 11 COMPACTED, rpc Compact 11 FUTURE, rpc Compact 11 COMPACTED");
    want("rpc Put 3 NOKEY, rpc Put 5 NOLEASE, rpc Txn 5 NOLEASE, rpc Txn 3 DUPKEY, rpc Txn 3 TOOMANYOPS");
    want(
        "rpc LeaseRevoke 5 NOLEASE, rpc LeaseGrant 9 LEASEEXISTS, rpc Range 14 NOLEADER, rpc Put 14 NOLEADER",
    );
    want("rpc Put 14 TIMEOUT, rpc Watch 14, rpc given up");
    let mut met = Tally::default();
    for seed in 1..=number("SEEDS").unwrap_or(60) {
        let plan = match seed % 3 {
            0 => plan(
                seed,
                "ops=2000 think=50ms faults=12s calm=1s\nt=1s cut 1|2,3 for=7s\nt=1s cut 2|1,3 for=7s",
            ),
            _ => {
                plan(seed, "ops=3000 calm=5s\nt=1s power-cut leader restart=300ms\nt=2s stop 2 restart=300ms")
            }
        };
        let outcome = assert_sound(&format!("gRPC, seed {seed}"), &plan);
        if seed % 8 == 1 {
            assert_eq!(run(&plan, View::default()).hash, outcome.hash, "seed {seed}: two runs differ");
        }
        met.add(&outcome.tally);
        missing.retain(|name| !met.probes.contains_key(name));
        if missing.is_empty() && seed > 8 {
            println!("after {seed} seeds: {met}");
            for fault in ["wire-reset", "wire-torn", "wire-stall"] {
                assert!(met.faults.contains_key(fault), "{fault}: {met}");
            }
            return;
        }
    }
    let calls: Vec<_> = met.probes.iter().filter(|(name, _)| name.starts_with("rpc")).collect();
    panic!("nobody met {missing:?}; there were {calls:?}");
}

/// Long values, and watchers that do not read for a while: the adapter holds their streams, and lets them go on.
#[test]
fn streams_that_are_not_read_are_held_and_go_on() {
    let mut met = Tally::default();
    for seed in 1..=2 {
        let text = format!(
            "pawl plan 1\nseed={seed} members=3 clients=6 watchers=6 keys=4 value-max=120000 ops=2000 grpc=100 \
             wire-stalls=1000 faults=6s calm=2s\n"
        );
        met.add(&assert_sound(&format!("held, seed {seed}"), &Plan::parse(&text).unwrap()).tally);
    }
    assert!(met.faults.get("wire-hold").is_some_and(|holds| *holds > 8), "{met}");
}

/// Long values, and clients that ask for several and read late: what they were told nothing of is held, and comes later.
#[test]
fn who_does_not_take_its_answers_is_held_and_goes_on() {
    let mut met = Tally::default();
    for (seed, clients) in [(2, 3), (3, 8)] {
        let text = format!(
            "pawl plan 1\nseed={seed} members=3 clients={clients} watchers=0 keys=3 value-max=400000 ops=2000 grpc=100 \
             think=1ms wire-stalls=4000 faults=6s calm=2s\n"
        );
        met.add(&assert_sound(&format!("full, seed {seed}"), &Plan::parse(&text).unwrap()).tally);
    }
    assert!(met.faults.get("wire-hold").is_some_and(|holds| *holds > 3), "{met}");
}
