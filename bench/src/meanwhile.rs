//! Puts by fifty clients: alone, while what they made obsolete is compacted, while all keys are read again and again, while
//! checkpoints are made all the time, and while a member that was away is sent the state.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cluster::{Client, Cluster, System};
use crate::key_rows::{PUTS, with_clients};
use crate::load::{Kind, Order, Outcome, Plan, Wire};
use crate::report::Figures;
use crate::rows::{REQUEST, plan};
use crate::{Result, Scale};

const CLIENTS: usize = 50;

/// One cluster serves the first three. In all of them a system makes the checkpoints that it makes by default.
pub fn measure(put: &Plan, name: &'static str, figures: &mut Figures) -> Result<()> {
    let quiet = with_clients(put, CLIENTS)?;
    add_quantiles(&quiet, QUIET, name, figures);

    let mut client = Client::new(put.wire, put.port);
    let revision = client.revision(REQUEST)?;
    let warm_up = put.warm_up;
    let (compacted, done) = std::thread::scope(|scope| {
        let compaction = scope.spawn(move || {
            std::thread::sleep(warm_up);
            client.compact(revision, 12 * REQUEST)
        });
        let done = with_clients(put, CLIENTS);
        (compaction.join().expect("it does not panic"), done)
    });
    compacted?;
    add_quantiles(&done?, COMPACTION, name, figures);

    let all = Plan { kind: Kind::Range(put.key_count), ..put.clone() };
    let (ranges, done) = std::thread::scope(|scope| {
        let ranges = scope.spawn(|| all.run());
        let done = with_clients(put, CLIENTS);
        (ranges.join().expect("it does not panic"), done)
    });
    add_quantiles(&done?, RANGES, name, figures);
    let ranges = ranges?;
    figures.add("ranges of all keys beside puts: rate", name, ranges.rate());
    figures.errors("ranges of all keys", name, ranges.errors);
    Ok(())
}

/// Entries between two checkpoints: a tenth of the default of both. Behind it 5,000 are kept for members that lag.
const CHECKPOINT_ENTRIES: u64 = 10_000;

/// How long a member may take to have the state.
const SENT_MAX: Duration = Duration::from_secs(120);

/// A cluster of its own, whose flags make it checkpoint often.
pub fn measure_snapshot(system: &System, dir: &Path, scale: &Scale, figures: &mut Figures) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let flags = ["--snapshot-count", &CHECKPOINT_ENTRIES.to_string(), "--log-level", "info"];
    let mut cluster = Cluster::start_with(system, system.members(), dir, &flags)?;
    let leader = cluster.leader()?;
    let put = Plan { order: Order::Sorted, ..plan(&cluster, leader, scale, Kind::Put) };
    put.once(Kind::Puts(PUTS), scale.life_keys)?;
    rustix::fs::sync();
    std::thread::sleep(scale.pause);
    let put = Plan { key_count: scale.life_keys, ..put };
    let name = system.name();
    add_quantiles(&with_clients(&put, CLIENTS)?, CHECKPOINTS, name, figures);

    let away = (leader + 1) % cluster.members.len();
    cluster.members[away].signal(Signal::KILL)?;
    cluster.members[away].wait()?;
    put.once(Kind::Put, 3 * CHECKPOINT_ENTRIES)?;
    let logged_before = cluster.members[away].log()?.len();
    cluster.members[away].start()?;
    let (wire, port) = (system.wire, cluster.members[away].port);
    let (sent, done) = std::thread::scope(|scope| {
        let sent = scope.spawn(move || until_it_follows(wire, port));
        let done = with_clients(&put, CLIENTS);
        (sent.join().expect("it does not panic"), done)
    });
    let log = cluster.members[away].log()?;
    if !log[logged_before..].to_lowercase().contains("snapshot") {
        return Err("the member that was away speaks of no snapshot: none was sent".into());
    }
    add_quantiles(&done?, SNAPSHOT, name, figures);
    figures.add("a member that was away: until it reads as the others do", name, sent?);
    Ok(())
}

/// Seconds until a member answers a linearizable read, for which it must have what the leader has committed.
fn until_it_follows(wire: Wire, port: u16) -> Result<f64> {
    let since = Instant::now();
    let mut client = Client::new(wire, port);
    while client.get(b"ready?", REQUEST).is_err() {
        if since.elapsed() > SENT_MAX {
            return Err("a member did not catch up".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(since.elapsed().as_secs_f64())
}

type Titles = [&'static str; 3];

const QUIET: Titles =
    ["put, 50 clients, quiet: p50", "put, 50 clients, quiet: p99", "put, 50 clients, quiet: p99.9"];
const COMPACTION: Titles = [
    "put, 50 clients, during a compaction: p50",
    "put, 50 clients, during a compaction: p99",
    "put, 50 clients, during a compaction: p99.9",
];
const RANGES: Titles = [
    "put, 50 clients, during ranges of all keys: p50",
    "put, 50 clients, during ranges of all keys: p99",
    "put, 50 clients, during ranges of all keys: p99.9",
];
const CHECKPOINTS: Titles = [
    "put, 50 clients, a checkpoint every 10,000 entries: p50",
    "put, 50 clients, a checkpoint every 10,000 entries: p99",
    "put, 50 clients, a checkpoint every 10,000 entries: p99.9",
];
const SNAPSHOT: Titles = [
    "put, 50 clients, while a member is sent the state: p50",
    "put, 50 clients, while a member is sent the state: p99",
    "put, 50 clients, while a member is sent the state: p99.9",
];

pub fn add_quantiles(done: &Outcome, titles: Titles, name: &'static str, figures: &mut Figures) {
    for (title, q) in titles.into_iter().zip([0.5, 0.99, 0.999]) {
        figures.add(title, name, done.quantile_ms(q));
    }
    figures.errors("puts beside other work", name, done.errors);
}
