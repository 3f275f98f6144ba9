//! Whole clusters on simulated disks, networks and clocks: some seeds, and every plan that ever failed. The
//! simulator itself is `pawl::sim`; `pawld sim` runs as many seeds as one has time for.
//!
//! `SEEDS=n` runs more; `SEED=n` runs one alone.

use pawl::sim::generate::{Load, generate};
use pawl::sim::plan::Plan;
use pawl::sim::report::{Outcome, Tally};
use pawl::sim::run::{View, run};

fn assert_sound(name: &str, plan: &Plan) -> Outcome {
    let outcome = run(plan, View::default());
    if let Some(failure) = &outcome.failure {
        panic!("{name}: {}: {}\nits plan:\n{plan}", failure.id, failure.what);
    }
    outcome
}

fn number(name: &str) -> Option<u64> {
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
