//! Whole clusters on simulated disks, networks and clocks: some seeds, and every plan that ever failed. The
//! simulator itself is `pawl::sim`; `pawld sim` runs as many seeds as one has time for.
//!
//! `SEEDS=n` runs more; `SEED=n` runs one alone.

use pawl::base::time::SECOND;
use pawl::sim::generate::{Load, generate};
use pawl::sim::plan::Plan;
use pawl::sim::report::{Outcome, Tally};
use pawl::sim::run::{View, run};

/// Runs the plan, which must not fail.
pub fn assert_sound(name: &str, plan: &Plan) -> Outcome {
    let outcome = run(plan, View::default());
    if let Some(failure) = &outcome.failure {
        panic!("{name}: {}: {}\nits plan:\n{plan}", failure.id, failure.what);
    }
    outcome
}

/// A number that the environment gives.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn acknowledged_writes_survive_and_answers_are_linearizable() {
    let (first, count) = match number("SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("SEEDS").unwrap_or(16)),
    };
    let mut total = Tally::default();
    for seed in first..first + count {
        let plan = generate(seed, Load::Dense);
        let outcome = assert_sound(&format!("seed {seed}"), &plan);
        if seed % 8 == 1 {
            assert_eq!(run(&plan, View::default()).hash, outcome.hash, "seed {seed}: two runs differ");
        }
        total.add(&outcome.tally);
    }
    println!("{count} seeds: {total}");
    assert!(total.ops > 100 * count, "the clients hardly got an answer");
}

/// Every kind of request, with every option, gets every kind of answer that it can get: what nobody asks is not checked.
#[test]
fn every_kind_of_answer_is_met() {
    let mut met = Tally::default();
    let mut meet = |seed: u64, load: &str| {
        let text = format!("pawl plan 1\nseed={seed} members=3 clients=8 keys=8 txns=40 compact=25 {load}\n");
        met.add(&assert_sound(&format!("probes, seed {seed}"), &Plan::parse(&text).unwrap()).tally);
    };
    for seed in 1..=6 {
        meet(seed, "ops=4000 think=1ms faults=3s calm=1s\nt=1s power-cut leader restart=300ms");
    }
    // Nobody leads for longer than clients wait.
    meet(7, "ops=4000 think=50ms faults=20s calm=1s\nt=1s cut 1|2,3 for=12s\nt=1s cut 2|1,3 for=12s");
    let mut wanted: Vec<String> = Vec::new();
    let mut want = |names: &str| wanted.extend(names.split(", ").map(str::to_string));
    want("put ok, put NOKEY, put NOLEADER, put unknown, delete ok, delete unknown");
    want(
        "range ok, range NOLEADER, range COMPACTED, range FUTURE, exists ok, compact ok, compact COMPACTED, compact FUTURE",
    );
    want(
        "txn ok, txn NOKEY, txn NOLEASE, txn FUTURE, txn COMPACTED, txn DUPKEY, txn TOOMANYOPS, txn unknown",
    );
    want("reading txn ok, reading txn FUTURE, reading txn COMPACTED, reading txn TOOMANYOPS");
    want("defrag ok, alarm list none, alarm disarm none, hash ok, snapshot ok, hashkv ok, hashkv COMPACTED");
    want("put over something, put over nothing, put keeps the value, put keeps the lease");
    want("delete of none, delete of one, delete of several, delete shows what was there");
    want("range cut off by its limit, range within its limit, range of keys alone, range counts alone");
    want("range serializable, range of an old revision, range filters all, range filters");
    for span in ["of a key", "between keys", "of a prefix", "from a key"] {
        want(&format!("delete {span}, range {span}"));
    }
    for field in ["key", "version", "create", "mod", "value"] {
        want(&format!("range by {field} asc, range by {field} desc"));
    }
    for target in ["value", "version", "create", "mod", "lease"] {
        for result in ["=", "!=", "<", ">"] {
            want(&format!("{target} {result} holds, {target} {result} fails"));
        }
    }
    for branch in ["then", "else"] {
        want(&format!("{branch}: put, {branch}: delete, {branch}: range, {branch}: txn"));
    }
    let missing: Vec<&String> = wanted.iter().filter(|name| !met.probes.contains_key(*name)).collect();
    assert!(missing.is_empty(), "nobody met {missing:?}; there were {:?}", met.probes);
}

/// The same of leases, whose time is over sooner or later: as many seeds as it takes. (But what the gate refuses, which
/// `tests/golden/line/leases.txt` has, and NOLEADER and TIMEOUT: these clients give up earlier.)
#[test]
fn every_kind_of_answer_about_leases_is_met() {
    let mut missing: Vec<String> = Vec::new();
    let mut want = |names: &str| missing.extend(names.split(", ").map(str::to_string));
    for write in ["grant", "revoke", "attaching put"] {
        want(&format!("{write} unknown, {write} NOSPACE, {write} LOADING"));
    }
    for read in ["keepalive", "ttl", "list"] {
        want(&format!("{read} unknown, {read} LOADING"));
    }
    want(
        "grant ok, grant of no time ok, grant of an id ok, grant of an id LEASEEXISTS, grant of an id unknown",
    );
    want("revoke with keys, revoke without keys, revoke NOLEASE, keepalive kept, keepalive gone");
    want("keepalive of several kept, keepalive of several gone, keepalive of several kept in part");
    want("ttl there, ttl gone, ttl and keys there, ttl and keys with keys, ttl and keys gone");
    want("list none, list some, attaching put ok, attaching put NOLEASE");
    want("attaching put with prev ok, attaching put with prev NOLEASE, keeping put ok, keeping put NOKEY");
    want("attaching put of no value ok, attaching put of no value NOKEY, attaching put of no value NOLEASE");
    want("txn NOLEASE, then: attaching put, else: attaching put, then: keeping put, else: keeping put");
    want("lease = holds, lease = fails, lease != holds, lease != fails");
    want("entry ends a lease, entry ends several leases, entry notes what is left");
    let mut met = Tally::default();
    for seed in 1..=60 {
        let mut plan = generate(seed, Load::Dense);
        plan.options.leases = 1 + seed % 6;
        plan.options.ttl_max = [2, 3, 5, 30][(seed % 4) as usize];
        plan.options.txns = plan.options.txns.min(20);
        met.add(&assert_sound(&format!("leases, seed {seed}"), &plan).tally);
        missing.retain(|name| !met.probes.contains_key(name));
        if missing.is_empty() {
            return;
        }
    }
    panic!("nobody met {missing:?}; there were {:?}", met.probes);
}

/// What is refused while an alarm stands, and what is not: as many seeds as it takes.
#[test]
fn every_kind_of_answer_about_room_is_met() {
    let mut missing: Vec<String> = Vec::new();
    let mut want = |names: &str| missing.extend(names.split(", ").map(str::to_string));
    want("put NOSPACE, attaching put NOSPACE, keeping put NOSPACE, txn NOSPACE, grant NOSPACE");
    want("delete ok, compact ok, revoke with keys, entry raises the alarm, entry ends the alarm");
    want("alarm list none, alarm list some, alarm disarm none, alarm disarm some, defrag ok");
    let mut met = Tally::default();
    for seed in 1..=60 {
        let mut plan = generate(seed, Load::Dense);
        plan.options.quota = (30 + seed % 8 * 4) << 10;
        (plan.options.leases, plan.options.compact, plan.options.txns) = (4, 20, 10);
        met.add(&assert_sound(&format!("room, seed {seed}"), &plan).tally);
        missing.retain(|name| !met.probes.contains_key(name));
        if missing.is_empty() {
            return;
        }
    }
    panic!("nobody met {missing:?}; there were {:?}", met.probes);
}

/// By time and by count, with members that come and go and clocks that go wrong: V42 looks at each compaction.
#[test]
fn history_is_compacted_by_itself() {
    let mut met = Tally::default();
    for seed in 1..=8 {
        let mut plan = generate(seed, Load::Dense);
        (plan.options.compact, plan.options.quota) = (0, 0);
        (plan.options.retention, plan.options.retention_revisions) =
            if seed % 2 == 0 { (SECOND / 2, 0) } else { (0, 50) };
        met.add(&assert_sound(&format!("retention, seed {seed}"), &plan).tally);
    }
    assert!(met.probes["entry compacts by itself"] > 16, "{:?}", met.probes);
    assert!(met.probes.contains_key("range COMPACTED"), "nobody asked for what was gone: {:?}", met.probes);
}

/// A state that is wrong in one value, with every checksum right: noticed within a second and 1,024 entries, under
/// load and without, by a follower and by a leader.
#[test]
fn a_wrong_state_is_noticed() {
    for (who, load) in
        [("2", "ops=4000 think=1ms"), ("leader", "ops=4000 think=1ms"), ("leader", "ops=40 think=400ms")]
    {
        for seed in 1..=number("SEEDS").unwrap_or(16).min(16) {
            let members = [3, 5][(seed % 2) as usize];
            let text = format!(
                "pawl plan 1\nseed={seed} members={members} {load} faults=4s calm=10s\nt=1s corrupt-state {who}\n"
            );
            let plan = Plan::parse(&text).unwrap();
            let tally = assert_sound(&format!("{who}, {load}, seed {seed}"), &plan).tally;
            assert_eq!(tally.noticed, 1, "{text}");
            assert!(tally.notice_nanos_max <= SECOND && tally.notice_entries_max <= 1_024, "{text}{tally}");
        }
    }
}

/// A learner takes the place of a voter or of the leader, in one step; whoever leads dies when the first of the two
/// entries is in its log, or committed, or both are. The next one finishes it: no run ends with a joint membership.
#[test]
fn several_changes_in_one_step_survive_their_leader() {
    let mut total = Tally::default();
    for out in ["leader", "2"] {
        for death in
            ["change-begins nth=2", "change-begins nth=3", "change-applied nth=2", "change-applied nth=3"]
        {
            for seed in 1..=3 {
                let text = format!(
                    "pawl plan 1\nseed={seed} members=3 spares=1 ops=600 think=5ms faults=4s calm=4s\n\
                     t=300ms add-learner 4\nt=1s together promote 4 remove {out}\n\
                     when {death} power-cut subject profile=posix-worst restart=2s\n"
                );
                let plan = Plan::parse(&text).unwrap();
                total.add(&assert_sound(&format!("{death}, {out}, seed {seed}"), &plan).tally);
            }
        }
    }
    println!("{total}");
    assert!(total.changes["together"] > 6, "most are acknowledged in spite of that: {total}");
    assert!(total.faults["power-cut"] > 12, "{total}");
}

#[test]
fn plans_that_failed_once_pass() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sim/regress");
    let mut files: Vec<_> =
        std::fs::read_dir(&dir).expect("sim/regress").map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a readable plan");
        let plan = Plan::parse(&text).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
        assert_sound(&file.display().to_string(), &plan);
    }
}

/// Whatever can come of a watch comes of every kind of watch.
#[test]
fn every_kind_of_watch_meets_every_result() {
    const OPTIONS: [&str; 12] = [
        "key",
        "prefix",
        "from",
        "between",
        "now",
        "past",
        "future",
        "bound",
        "prev",
        "no-put",
        "no-delete",
        "progress",
    ];
    const RESULTS: [&str; 12] = [
        "began",
        "went on",
        "put",
        "delete",
        "several in a revision",
        "what was before",
        "told elsewhere",
        "progress",
        "progress asked for",
        "compacted",
        "ended",
        "refused",
    ];
    // A revision changes a key once, and a filter leaves out what it is for.
    const NEVER: [(&str, &str); 3] =
        [("key", "several in a revision"), ("no-put", "put"), ("no-delete", "delete")];
    let mut total = Tally::default();
    let wanted = || OPTIONS.iter().flat_map(|option| RESULTS.map(|result| (*option, result)));
    let missing = |total: &Tally| -> Vec<_> {
        wanted().filter(|cell| !NEVER.contains(cell) && !total.watches.contains_key(cell)).collect()
    };
    for seed in 1..=number("SEEDS").unwrap_or(400) {
        if missing(&total).is_empty() {
            println!("after {seed} seeds: {total}");
            return;
        }
        total.add(&assert_sound(&format!("seed {seed}"), &generate(seed, Load::Dense)).tally);
    }
    panic!("never came: {:?}, of {:?}", missing(&total), total.watches);
}

/// Clients raise alarms and end them, and what these refuse: as many seeds as it takes.
#[test]
fn alarms_of_clients_refuse_what_they_should() {
    let mut missing: Vec<String> = Vec::new();
    let mut want = |names: &str| missing.extend(names.split(", ").map(str::to_string));
    want("alarm raise some, alarm end some, alarm end none, alarm disarm some, alarm raise NOSPACE");
    want("entry raises a client's alarm, entry ends a client's alarm, entry raises the alarm");
    want("put NOSPACE, put unknown, delete unknown, grant unknown, revoke unknown, entry ends a lease");
    let mut met = Tally::default();
    for seed in 1..=60 {
        let mut plan = generate(seed, Load::Dense);
        (plan.options.alarms, plan.options.leases) = (20 + seed % 5 * 20, 4);
        plan.options.quota = if seed % 2 == 0 { (30 + seed % 8 * 4) << 10 } else { 0 };
        (plan.options.compact, plan.options.grpc) = (40, [0, 50][(seed % 2) as usize]);
        met.add(&assert_sound(&format!("alarms, seed {seed}"), &plan).tally);
        missing.retain(|name| !met.probes.contains_key(name));
        if missing.is_empty() {
            return;
        }
    }
    panic!("nobody met {missing:?}; there were {:?}", met.probes);
}
