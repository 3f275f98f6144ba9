//! The rows of what Pawl and etcd can do and Redis cannot: transactions, ranges, counts, leases, watches, and puts beside
//! large work. One cluster with many keys, in their order, serves all of them but one.

use std::path::Path;

use crate::cluster::{Client, Cluster, System};
use crate::load::{Kind, Order, Outcome, Plan, Wire};
use crate::report::Figures;
use crate::rows::{REQUEST, Row, plan};
use crate::{Result, Scale, ends, meanwhile, watch};

/// Seconds; longer than any run.
const TTL_S: u64 = 3_600;

/// Keys in one transaction, while the store is filled: etcd takes minutes for a million puts.
pub const PUTS: usize = 100;

const MANY_CLIENTS: usize = 1_000;

pub fn measure(
    system: &System,
    dir: &Path,
    rows: &[Row],
    scale: &Scale,
    figures: &mut Figures,
) -> Result<()> {
    let cluster = Cluster::start(system, system.members(), dir)?;
    let put = Plan { order: Order::Sorted, ..plan(&cluster, cluster.leader()?, scale, Kind::Put) };
    put.once(Kind::Puts(PUTS), scale.life_keys)?;
    let name = system.name();
    for row in Row::KEYS.into_iter().filter(|row| rows.contains(row)) {
        rustix::fs::sync();
        std::thread::sleep(scale.pause);
        let leader = cluster.leader()?;
        let put = Plan { port: cluster.members[leader].port, key_count: scale.life_keys, ..put.clone() };
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
                let renew = Plan { kind: Kind::KeepAlive, clients: MANY_CLIENTS, ..put };
                let [tens, ones] = [
                    [
                        "renewal of a lease, 1000 leases on 100 connections: rate",
                        "renewal of a lease, 1000 leases on 100 connections: p99",
                    ],
                    [
                        "renewal of a lease, 1000 leases on 1000 connections: rate",
                        "renewal of a lease, 1000 leases on 1000 connections: p99",
                    ],
                ];
                for (connections, [rate, p99]) in [(MANY_CLIENTS / 10, tens), (MANY_CLIENTS, ones)] {
                    let pipeline = MANY_CLIENTS / connections;
                    let done = Plan { connections, pipeline, ..renew.clone() }.run()?;
                    figures.add(rate, name, done.rate());
                    figures.add(p99, name, done.quantile_ms(0.99));
                    figures.errors("renewals", name, done.errors);
                }
            }
            Row::Watch => watch::measure(&put, scale, name, figures)?,
            Row::Ends => ends::measure(&put, name, figures)?,
            _ => meanwhile::measure(&put, name, figures)?,
        }
    }
    drop(cluster);
    if rows.contains(&Row::Meanwhile) {
        meanwhile::measure_snapshot(system, &dir.join("snapshot"), scale, figures)?;
    }
    Ok(())
}

/// So many at once: each on a connection of its own, or, with etcd, ten on each where they are many.
pub fn with_clients(plan: &Plan, clients: usize) -> Result<Outcome> {
    let shared = plan.wire == Wire::Etcd && clients == MANY_CLIENTS;
    let connections = if shared { clients / 10 } else { clients };
    Plan { connections, clients, ..plan.clone() }.run()
}
