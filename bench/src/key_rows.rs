//! The rows of what Pawl and etcd can do and Redis cannot: transactions, ranges, counts, leases, watches, and puts beside
//! large work. One cluster with many keys, in their order, serves all of them.

use std::path::Path;

use crate::cluster::{Client, Cluster, System};
use crate::load::{Kind, Order, Outcome, Plan, Wire};
use crate::report::Figures;
use crate::rows::{REQUEST, Row, fill_in, plan};
use crate::{Result, Scale, watch};

/// Seconds; longer than any run.
const TTL_S: u64 = 3_600;

const MANY_CLIENTS: usize = 1_000;

pub fn measure(
    system: &System,
    dir: &Path,
    rows: &[Row],
    scale: &Scale,
    figures: &mut Figures,
) -> Result<()> {
    let cluster = Cluster::start(system, system.members(), dir)?;
    fill_in(Order::Sorted, &cluster, scale, scale.life_keys)?;
    let name = system.name();
    for row in Row::KEYS.into_iter().filter(|row| rows.contains(row)) {
        rustix::fs::sync();
        std::thread::sleep(scale.pause);
        let leader = cluster.leader()?;
        let put = Plan {
            order: Order::Sorted,
            key_count: scale.life_keys,
            ..plan(&cluster, leader, scale, Kind::Put)
        };
        match row {
            Row::Txn => {
                let done = with_clients(&Plan { kind: Kind::Txn, ..put }, MANY_CLIENTS)?;
                figures.add("put in a transaction, 1000 clients: rate", name, done.rate());
                figures.add("put in a transaction, 1000 clients: p99", name, done.quantile_ms(0.99));
                figures.errors("put in a transaction", name, done.errors);
            }
            Row::Range => {
                for (length, clients, title) in [
                    (1, 50, "range of 1 key, 50 clients: rate"),
                    (100, 50, "range of 100 keys, 50 clients: rate"),
                    (10_000, 4, "range of 10,000 keys, 4 clients: rate"),
                ] {
                    let done = with_clients(&Plan { kind: Kind::Range(length), ..put.clone() }, clients)?;
                    figures.add(title, name, done.rate());
                    figures.errors("ranges", name, done.errors);
                }
            }
            Row::Count => {
                let done = Plan { kind: Kind::Count, ..put }.run()?;
                figures.add("count of all keys, 1 client: rate", name, done.rate());
                figures.errors("counts", name, done.errors);
            }
            Row::Keepalive => {
                let mut client = Client::new(system.wire, put.port);
                (1..=MANY_CLIENTS as u64).try_for_each(|id| client.grant(id, TTL_S, REQUEST))?;
                let done = with_clients(&Plan { kind: Kind::KeepAlive, ..put }, MANY_CLIENTS)?;
                figures.add("renewal of a lease, 1000 clients: rate", name, done.rate());
                figures.add("renewal of a lease, 1000 clients: p99", name, done.quantile_ms(0.99));
                figures.errors("renewals", name, done.errors);
            }
            Row::Watch => watch::measure(&put, scale, name, figures)?,
            _ => meanwhile(&put, name, figures)?,
        }
    }
    Ok(())
}

/// So many at once: each on a connection of its own, or, with etcd, ten on each where they are many.
fn with_clients(plan: &Plan, clients: usize) -> Result<Outcome> {
    let shared = plan.wire == Wire::Etcd && clients == MANY_CLIENTS;
    let connections = if shared { clients / 10 } else { clients };
    Plan { connections, clients, ..plan.clone() }.run()
}

/// Puts by fifty clients: alone, while what they made obsolete is compacted, and while all keys are read again and again.
/// Checkpoints and snapshots of its own each system makes as it likes, in all three.
fn meanwhile(put: &Plan, name: &'static str, figures: &mut Figures) -> Result<()> {
    let [p50, p99, p999] =
        ["put, 50 clients, quiet: p50", "put, 50 clients, quiet: p99", "put, 50 clients, quiet: p99.9"];
    let quiet = with_clients(put, 50)?;
    add_quantiles(&quiet, [p50, p99, p999], name, figures);

    let mut client = Client::new(put.wire, put.port);
    let revision = client.revision(REQUEST)?;
    let warm_up = put.warm_up;
    let (compacted, done) = std::thread::scope(|scope| {
        let compaction = scope.spawn(move || {
            std::thread::sleep(warm_up);
            client.compact(revision, 12 * REQUEST)
        });
        let done = with_clients(put, 50);
        (compaction.join().expect("it does not panic"), done)
    });
    compacted?;
    let [p50, p99, p999] = [
        "put, 50 clients, during a compaction: p50",
        "put, 50 clients, during a compaction: p99",
        "put, 50 clients, during a compaction: p99.9",
    ];
    add_quantiles(&done?, [p50, p99, p999], name, figures);

    let all = Plan { kind: Kind::Range(put.key_count), ..put.clone() };
    let (ranges, done) = std::thread::scope(|scope| {
        let ranges = scope.spawn(|| all.run());
        let done = with_clients(put, 50);
        (ranges.join().expect("it does not panic"), done)
    });
    let [p50, p99, p999] = [
        "put, 50 clients, during ranges of all keys: p50",
        "put, 50 clients, during ranges of all keys: p99",
        "put, 50 clients, during ranges of all keys: p99.9",
    ];
    add_quantiles(&done?, [p50, p99, p999], name, figures);
    let ranges = ranges?;
    figures.add("ranges of all keys beside puts: rate", name, ranges.rate());
    figures.errors("ranges of all keys", name, ranges.errors);
    Ok(())
}

fn add_quantiles(done: &Outcome, titles: [&'static str; 3], name: &'static str, figures: &mut Figures) {
    for (title, q) in titles.into_iter().zip([0.5, 0.99, 0.999]) {
        figures.add(title, name, done.quantile_ms(q));
    }
    figures.errors("puts beside other work", name, done.errors);
}
