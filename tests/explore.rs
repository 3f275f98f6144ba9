//! The search through all states of small clusters: what it sees of the core as it is, and that it would see it
//! break. `STATES=n` sets how many states of each world are looked at; `pawld sim explore` looks at more.

use pawl::sim::explore::{Report, Setup, planted, search, setups};

fn states() -> u64 {
    std::env::var("STATES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

fn told(setup: &Setup, report: &Report) {
    let Report { states, steps, depth, complete, violation } = report;
    let whole = if *complete { "all" } else { "so far" };
    let found = violation.as_ref().map_or("nothing wrong", |violation| &violation.what);
    println!("{:24} {states:>9} states ({whole}), {steps:>9} steps, depth {depth:>2}: {found}", setup.name);
}

#[test]
fn no_rule_is_broken_in_any_small_world() {
    for setup in setups() {
        let report = search(&setup, states());
        told(&setup, &report);
        if let Some(violation) = report.violation {
            panic!("{}: {}\n{}", setup.name, violation.what, violation.path.join("\n"));
        }
    }
}

#[test]
fn every_broken_rule_is_found() {
    for setup in planted() {
        let report = search(&setup, 2_000_000);
        print!("{:?}: ", setup.planted);
        told(&setup, &report);
        let violation = report.violation.unwrap_or_else(|| panic!("{:?} is not noticed", setup.planted));
        assert!(!violation.path.is_empty());
    }
}
