//! What a run came to, in words and for programs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::base::time::Nanos;
use crate::measure::load::{Outcome, Plan, WatchOutcome, WatchPlan};
use crate::measure::{Latencies, PERCENTILES};

/// Lines of the histogram.
const STEPS: u64 = 10;
const BAR_COLUMNS: f64 = 40.0;

const SHOWN: [f64; 10] = [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.95, 99.99];

/// As etcd's benchmark tool lays it out. `rate`: that was asked for.
pub fn text(outcome: &Outcome, rate: Option<u64>) -> String {
    let mut out = part("Summary:", outcome.took, &outcome.latencies);
    if let Some(rate) = rate {
        let _ = writeln!(
            out,
            "\nTimes are from when each of {rate} requests a second was due. From when they were sent:\n  50% in {}, 99% in {}, 99.99% in {}.",
            seconds(outcome.service.percentile(50.0) as f64),
            seconds(outcome.service.percentile(99.0) as f64),
            seconds(outcome.service.percentile(99.99) as f64)
        );
    }
    if !outcome.errors.is_empty() {
        out.push_str("\nError distribution:\n");
        for (code, count) in &outcome.errors {
            let _ = writeln!(out, "  [{count}]\t{code}");
        }
    }
    out
}

fn seconds(nanos: f64) -> String {
    format!("{:.4} secs", nanos / 1e9)
}

fn part(title: &str, took: Nanos, all: &Latencies) -> String {
    let mut out = format!("\n{title}\n");
    let rate = all.count() as f64 * 1e9 / took.max(1) as f64;
    for (name, value) in [
        ("Total:", seconds(took as f64)),
        ("Slowest:", seconds(all.max() as f64)),
        ("Fastest:", seconds(all.min() as f64)),
        ("Average:", seconds(all.mean())),
        ("Stddev:", seconds(all.deviation())),
        ("Requests/sec:", format!("{rate:.4}")),
    ] {
        let _ = writeln!(out, "  {name:<13} {value}");
    }
    if all.count() > 0 {
        histogram(all, &mut out);
        out.push_str("\nLatency distribution:\n");
        for percent in SHOWN {
            let _ = writeln!(out, "  {percent}% in {}.", seconds(all.percentile(percent) as f64));
        }
    }
    out
}

/// Of watches: how they began, how what they watch was put, how they were told.
pub fn watches(outcome: &WatchOutcome) -> String {
    let WatchOutcome { began_in, beginnings, took, puts, events, expected } = outcome;
    let mut out = part("Watch creation summary:", *began_in, beginnings);
    out.push_str(&part("Put summary:", *took, puts));
    out.push_str(&part("Watch events summary:", *took, events));
    let _ = writeln!(out, "\n{} of {expected} events were told.", events.count());
    out
}

pub fn watches_json(name: &str, plan: &WatchPlan, outcome: &WatchOutcome) -> String {
    let whole = json!({
        "name": name,
        "endpoints": plan.addresses.iter().map(ToString::to_string).collect::<Vec<String>>(),
        "streams": plan.connections,
        "watches_each": plan.watches_each,
        "keys": plan.keys.count,
        "put_rate_asked": plan.rate,
        "began_in_ns": outcome.began_in,
        "beginning_ns": of(&outcome.beginnings),
        "took_ns": outcome.took,
        "put_ns": of(&outcome.puts),
        "event_ns": of(&outcome.events),
        "events_expected": outcome.expected,
    });
    format!("{:#}\n", json!({ "runs": [whole] }))
}

fn histogram(all: &Latencies, out: &mut String) {
    out.push_str("\nResponse time histogram:\n");
    let (least, most) = (all.min(), all.max());
    let bounds: Vec<u64> = (0..=STEPS).map(|step| least + (most - least) * step / STEPS).collect();
    let shares: Vec<f64> = bounds.iter().map(|&bound| all.share_up_to(bound)).collect();
    let steps: Vec<f64> =
        (0..shares.len()).map(|at| shares[at] - if at == 0 { 0.0 } else { shares[at - 1] }).collect();
    let largest = steps.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    for (bound, share) in bounds.iter().zip(&steps) {
        let count = share * all.count() as f64 / 100.0;
        let bar = "∎".repeat((share / largest * BAR_COLUMNS).round() as usize);
        let _ = writeln!(out, "  {:.4} [{count:.0}]\t|{bar}", *bound as f64 / 1e9);
    }
}

/// The two figures that people compare, each with its 99th percentile.
pub fn in_short(done: &[(&str, Plan, Outcome)]) -> String {
    let mut out = String::new();
    for (name, plan, outcome) in done {
        let _ = writeln!(
            out,
            "{name:<6} {:>9.0} /s   p50 {:>8.3} ms   p99 {:>8.3} ms   ({} clients on {} connections, {} requests, {} failed)",
            outcome.rate(),
            outcome.latencies.percentile(50.0) as f64 / 1e6,
            outcome.latencies.percentile(99.0) as f64 / 1e6,
            plan.clients,
            plan.connections,
            outcome.done() + outcome.failed(),
            outcome.failed()
        );
    }
    out
}

/// Every run, with nanoseconds as in fio's JSON.
pub fn json(done: &[(&str, Plan, Outcome)]) -> String {
    let runs: Vec<Value> = done
        .iter()
        .map(|(name, plan, outcome)| {
            json!({
                "name": name,
                "endpoints": plan.addresses.iter().map(ToString::to_string).collect::<Vec<String>>(),
                "connections": plan.connections,
                "clients": plan.clients,
                "pipeline": plan.pipeline,
                "rate_asked": plan.rate,
                "took_ns": outcome.took,
                "done": outcome.done(),
                "failed": outcome.failed(),
                "errors": outcome.errors,
                "rate": outcome.rate(),
                "latency_ns": of(&outcome.latencies),
                "service_ns": of(&outcome.service),
                "series": {
                    "step_ns": outcome.series.width(),
                    "done": outcome.series.slots().iter().map(|slot| slot.latencies.count()).collect::<Vec<u64>>(),
                    "failed": outcome.series.slots().iter().map(|slot| slot.errors).collect::<Vec<u64>>(),
                    "p50_ns": outcome.series.slots().iter().map(|slot| slot.latencies.percentile(50.0)).collect::<Vec<u64>>(),
                    "p99_ns": outcome.series.slots().iter().map(|slot| slot.latencies.percentile(99.0)).collect::<Vec<u64>>(),
                },
            })
        })
        .collect();
    format!("{:#}\n", json!({ "runs": runs }))
}

fn of(all: &Latencies) -> Value {
    let percentiles: Map<String, Value> =
        PERCENTILES.iter().map(|&p| (format!("{p:.6}"), all.percentile(p).into())).collect();
    json!({
        "min": all.min(),
        "max": all.max(),
        "mean": all.mean(),
        "stddev": all.deviation(),
        "N": all.count(),
        "percentile": percentiles,
    })
}
