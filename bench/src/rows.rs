//! The rows of the comparison: what is done to a cluster, and which figures come of it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cluster::{Client, Cluster, System};
use crate::load::{Kind, Order, Outcome, Plan, VALUE_BYTES, Wire, key_bytes};
use crate::report::Figures;
use crate::{Result, Scale, disk};

/// How long the writers go on before and after the leader is told to stop.
const STOP_BEFORE: Duration = Duration::from_millis(1_000);
const STOP_AFTER: Duration = Duration::from_millis(4_000);
/// A gap between writes is the stop's if it begins within this; then all of it counts, however long it is. What comes
/// later (the disk that three members share stands still for 30 to 120 ms now and then) is not the stop's.
const AROUND_STOP: Duration = Duration::from_millis(1_500);
/// A probe's patience: shorter than any election, so that a new attempt is always under way.
const PROBE: Duration = Duration::from_millis(100);
pub const REQUEST: Duration = Duration::from_secs(5);

/// A part of the comparison that can be asked for alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Row {
    /// The engine alone, beside LMDB and redb
    Engine,
    /// The state machine alone, as a member drives it (not in `all`: Pawl against itself)
    Apply,
    /// put, 1 client
    Put1,
    /// put, 1 client, one member: no other member's writes on the same disk
    Put1alone,
    /// put, 1000 connections
    Put1000,
    /// put, 50 connections, 16 requests at once
    Put50x16,
    /// linearizable get, 50 connections
    Get50,
    /// anonymous memory with many keys
    Memory,
    /// kill -9 of all members to the first linearizable read
    Restart,
    /// kill -9 of the leader to the next acknowledged write
    Failover,
    /// SIGTERM of the leader: the longest gap between writes
    Stop,
    /// leadership is moved on request: the longest gap between writes
    Transfer,
    /// transactions, 1000 clients
    Txn,
    /// ranges of 1, 100 and 10,000 keys
    Range,
    /// the number of all keys
    Count,
    /// renewals of leases, 1000 clients
    Keepalive,
    /// 10,000 watchers: of one key, of other keys than those that are put, of these
    Watch,
    /// puts while the history is compacted, while all keys are read, while checkpoints and snapshots are made
    Meanwhile,
    /// leases of which ten thousand or more end in a second, beside puts
    Ends,
    /// puts and ranges in etcd's own API, at 1, 100 and 1000 clients
    Grpc,
    /// memory for keys, watches, leases and connections
    Footprint,
}

impl Row {
    pub const ALL: [Row; 20] = [
        Row::Engine,
        Row::Put1,
        Row::Put1alone,
        Row::Put1000,
        Row::Put50x16,
        Row::Get50,
        Row::Memory,
        Row::Restart,
        Row::Failover,
        Row::Stop,
        Row::Transfer,
        Row::Txn,
        Row::Range,
        Row::Count,
        Row::Keepalive,
        Row::Watch,
        Row::Meanwhile,
        Row::Ends,
        Row::Grpc,
        Row::Footprint,
    ];
    pub const LOAD: [Row; 5] = [Row::Put1, Row::Put1alone, Row::Put1000, Row::Put50x16, Row::Get50];
    pub const LIFE: [Row; 5] = [Row::Memory, Row::Restart, Row::Failover, Row::Stop, Row::Transfer];
    /// What only Pawl and etcd can do ([`crate::key_rows`]).
    pub const KEYS: [Row; 7] =
        [Row::Txn, Row::Range, Row::Count, Row::Keepalive, Row::Watch, Row::Meanwhile, Row::Ends];
}

pub fn plan(cluster: &Cluster, leader: usize, scale: &Scale, kind: Kind) -> Plan {
    Plan {
        wire: cluster.system.wire,
        port: cluster.members[leader].port,
        kind,
        connections: 1,
        clients: 1,
        pipeline: 1,
        warm_up: scale.warm_up,
        duration: scale.duration,
        key_count: scale.load_keys,
        order: Order::Spread,
        total: None,
    }
}

/// Every key once, by many connections.
fn fill(cluster: &Cluster, scale: &Scale, key_count: u64) -> Result<()> {
    plan(cluster, cluster.leader()?, scale, Kind::Put).once(Kind::Put, key_count)
}

/// One round of the rows under load, on a fresh cluster.
pub fn load_rows(
    system: &System,
    dir: &Path,
    rows: &[Row],
    scale: &Scale,
    figures: &mut Figures,
) -> Result<()> {
    if rows.contains(&Row::Put1alone) && system.wire != Wire::Redis {
        put_alone(system, &dir.join("alone"), scale, figures)?;
    }
    let cluster = Cluster::start(system, system.members(), dir)?;
    fill(&cluster, scale, scale.load_keys)?;
    let name = system.name();
    for row in Row::LOAD.into_iter().filter(|r| rows.contains(r)) {
        rustix::fs::sync();
        std::thread::sleep(scale.pause);
        let leader = cluster.leader()?;
        let put = plan(&cluster, leader, scale, Kind::Put);
        match row {
            Row::Put1 => {
                let (done, raw_ms) = over_raw(dir, scale, &put)?;
                let quorum_ms = disk::quorum_sync_p50_ms(dir, scale.raw_syncs)?;
                figures.add("raw fdatasync p50", "disk", raw_ms);
                figures.add("raw fdatasync of three at once, p50 of the second", "disk", quorum_ms);
                figures.add("put, 1 client: p50", name, done.quantile_ms(0.5));
                figures.add("put, 1 client: p50 over raw fdatasync", name, done.quantile_ms(0.5) / raw_ms);
                figures.errors("put, 1 client", name, done.errors);
            }
            Row::Put1000 => {
                let connections = if system.wire == Wire::Etcd { 100 } else { 1_000 };
                let done = Plan { connections, clients: 1_000, ..put }.run()?;
                figures.add("put, 1000 connections: rate", name, done.rate());
                figures.add("put, 1000 connections: p99", name, done.quantile_ms(0.99));
                figures.errors("put, 1000 connections", name, done.errors);
            }
            Row::Put50x16 if system.wire != Wire::Etcd => {
                let done = Plan { connections: 50, pipeline: 16, ..put }.run()?;
                figures.add("put, 50 connections, pipeline 16: rate", name, done.rate());
                figures.add("put, 50 connections, pipeline 16: p99", name, done.quantile_ms(0.99));
                figures.errors("put, 50 connections, pipeline 16", name, done.errors);
            }
            Row::Get50 => {
                let done = get_50(&Plan { kind: Kind::Get, ..put })?;
                figures.add("linearizable get, 50 connections: rate", name, done.rate());
                figures.add("linearizable get, 50 connections: p99", name, done.quantile_ms(0.99));
                figures.errors("linearizable get, 50 connections", name, done.errors);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The plan's outcome beside the raw fdatasync p50 in milliseconds, measured before and after. The better of the two
/// counts: the disk's mood changes within seconds.
fn over_raw(dir: &Path, scale: &Scale, put: &Plan) -> Result<(Outcome, f64)> {
    let before = disk::append_sync_p50_ms(dir, scale.raw_syncs)?;
    let done = put.run()?;
    Ok((done, disk::append_sync_p50_ms(dir, scale.raw_syncs)?.min(before)))
}

/// A cluster of one has the disk to itself: what the program adds to one fdatasync.
fn put_alone(system: &System, dir: &Path, scale: &Scale, figures: &mut Figures) -> Result<()> {
    let cluster = Cluster::start(system, 1, dir)?;
    fill(&cluster, scale, scale.load_keys)?;
    rustix::fs::sync();
    std::thread::sleep(scale.pause);
    let (done, raw_ms) = over_raw(dir, scale, &plan(&cluster, 0, scale, Kind::Put))?;
    let name = system.name();
    figures.add("put, 1 client, one member: p50", name, done.quantile_ms(0.5));
    figures.add("put, 1 client, one member: p50 over raw fdatasync", name, done.quantile_ms(0.5) / raw_ms);
    figures.errors("put, 1 client, one member", name, done.errors);
    Ok(())
}

/// etcd may choose: one request on each of 50 connections, or 1000 on 100. The better counts.
fn get_50(get: &Plan) -> Result<Outcome> {
    let few = Plan { connections: 50, clients: 50, ..get.clone() }.run()?;
    if get.wire != Wire::Etcd {
        return Ok(few);
    }
    let many = Plan { connections: 100, clients: 1_000, ..get.clone() }.run()?;
    Ok(if many.rate() > few.rate() { many } else { few })
}

/// The rows about a life: one cluster with many keys, looked at, killed, failed over, stopped.
pub fn life_rows(
    system: &System,
    dir: &Path,
    rows: &[Row],
    scale: &Scale,
    figures: &mut Figures,
) -> Result<()> {
    let mut cluster = Cluster::start(system, system.members(), dir)?;
    fill(&cluster, scale, scale.life_keys)?;
    std::thread::sleep(2 * scale.pause);
    let name = system.name();
    if rows.contains(&Row::Memory) {
        let most = cluster.anonymous_bytes()?.into_iter().max().unwrap_or(0);
        figures.add("anonymous memory, fullest member", name, most as f64 / f64::from(1 << 20));
    }
    if rows.contains(&Row::Restart) {
        for _ in 0..scale.restarts {
            let restart = restart(&mut cluster, scale)?;
            figures.add("restart to first linearizable read", name, restart.read);
            figures.add("restart, the election left out", name, restart.without_election());
            settle(&cluster, scale)?;
        }
    }
    if system.wire == Wire::Redis {
        return Ok(());
    }
    if rows.contains(&Row::Failover) {
        for _ in 0..scale.failovers {
            figures.add(KILLED, name, failover(&mut cluster)?);
            settle(&cluster, scale)?;
        }
        figures.add_quantile(0.99, KILLED, "kill -9 of the leader to next write: p99", name);
    }
    if rows.contains(&Row::Stop) {
        for _ in 0..scale.stops {
            let gap = stop(&mut cluster)?;
            figures.add("graceful stop of the leader: longest gap", name, gap.longest_ms);
            figures.add("graceful stop of the leader: failed requests", name, gap.failed_elsewhere as f64);
            let title = "graceful stop of the leader: failed requests at the leader itself";
            figures.add(title, name, gap.failed_at_leader as f64);
            settle(&cluster, scale)?;
        }
    }
    if rows.contains(&Row::Transfer) {
        let (gaps_ms, failed) = transfers(&cluster, scale.transfers)?;
        for gap_ms in gaps_ms {
            figures.add(MOVED, name, gap_ms);
        }
        figures.add_quantile(0.99, MOVED, "transfer of leadership: longest gap, p99", name);
        figures.add("transfer of leadership: failed requests", name, failed as f64);
    }
    Ok(())
}

const KILLED: &str = "kill -9 of the leader to next write";
const MOVED: &str = "transfer of leadership: longest gap";

/// All members up, and one of them leader for a while.
fn settle(cluster: &Cluster, scale: &Scale) -> Result<()> {
    cluster.wait_ready()?;
    std::thread::sleep(2 * scale.pause);
    cluster.leader().map(|_| ())
}

/// Seconds from the start of all members after kill -9.
struct Restart {
    /// To the first member that answers, which it does when its data is open and replayed.
    open: f64,
    /// To the first member that knows a leader.
    leader: f64,
    /// To the first right answer to a linearizable read.
    read: f64,
}

impl Restart {
    fn without_election(&self) -> f64 {
        self.open + (self.read - self.leader).max(0.0)
    }
}

fn restart(cluster: &mut Cluster, scale: &Scale) -> Result<Restart> {
    for member in &cluster.members {
        member.signal(Signal::KILL)?;
    }
    for member in &mut cluster.members {
        member.wait()?;
    }
    let last = key_bytes(scale.life_keys - 1);
    let since = Instant::now();
    for member in &mut cluster.members {
        member.start()?;
    }
    let (cluster, all) = (&*cluster, &(0..cluster.members.len()).collect::<Vec<usize>>()[..]);
    std::thread::scope(|scope| {
        let open = scope.spawn(|| cluster.first_success(all, since, |c| c.status(PROBE).map(|_| true)).ok());
        let leader = scope.spawn(|| cluster.first_success(all, since, |c| Ok(c.status(PROBE)?.1 != 0)).ok());
        let read = cluster.first_success(all, since, |c| match c.get(&last, PROBE)? {
            Some(value) if value.len() == VALUE_BYTES => Ok(true),
            other => Err(format!("the last key came back as {other:?}").into()),
        })?;
        let seconds = |thread: std::thread::ScopedJoinHandle<Option<std::time::Duration>>| {
            thread.join().ok().flatten().unwrap_or(read).as_secs_f64()
        };
        Ok(Restart { open: seconds(open), leader: seconds(leader), read: read.as_secs_f64() })
    })
}

/// Seconds from kill -9 of the leader to the first write that another member acknowledges.
fn failover(cluster: &mut Cluster) -> Result<f64> {
    let leader = cluster.leader()?;
    let others: Vec<usize> = (0..cluster.members.len()).filter(|i| *i != leader).collect();
    let since = Instant::now();
    cluster.kill(leader)?;
    let took = cluster.first_success(&others, since, |c| c.put(b"failover", b"x", PROBE).map(|()| true))?;
    cluster.members[leader].start()?;
    Ok(took.as_secs_f64())
}

struct Gap {
    /// Between two acknowledgements to the same writer, at the members that stay.
    longest_ms: f64,
    failed_elsewhere: u64,
    failed_at_leader: u64,
}

/// One writer at each member, one request in flight each, while the leader is told to stop.
fn stop(cluster: &mut Cluster) -> Result<Gap> {
    let leader = cluster.leader()?;
    let wire = cluster.system.wire;
    let ports: Vec<u16> = cluster.members.iter().map(|m| m.port).collect();
    let over = AtomicBool::new(false);
    let (told, seen) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..ports.len())
            .map(|i| {
                // The leader's writer goes to the next member when its own is gone.
                let ports =
                    if i == leader { [ports[i], ports[(i + 1) % ports.len()]] } else { [ports[i]; 2] };
                let over = &over;
                scope.spawn(move || acknowledgements(over, wire, ports))
            })
            .collect();
        std::thread::sleep(STOP_BEFORE);
        let told = Instant::now();
        let signalled = cluster.members[leader].signal(Signal::TERM);
        std::thread::sleep(STOP_AFTER);
        over.store(true, Ordering::Relaxed);
        let seen: Vec<_> = writers.into_iter().map(|w| w.join().expect("a writer does not panic")).collect();
        signalled.map(|()| (told, seen))
    })?;
    cluster.members[leader].wait()?;
    cluster.members[leader].start()?;
    let others = seen.iter().enumerate().filter(|(i, _)| *i != leader).map(|(_, s)| s);
    Ok(Gap {
        longest_ms: others.clone().map(|s| longest_ms(s, told, AROUND_STOP)).fold(0.0, f64::max),
        failed_elsewhere: others.map(|s| s.failed).sum(),
        failed_at_leader: seen[leader].failed,
    })
}

/// What one writer saw.
struct Seen {
    /// When each write was acknowledged; at last the end.
    acknowledged: Vec<Instant>,
    failed: u64,
}

/// Writes with one request in flight; after a failure to the other port.
fn acknowledgements(over: &AtomicBool, wire: Wire, ports: [u16; 2]) -> Seen {
    let mut clients = ports.map(|port| Client::new(wire, port));
    let (mut at, mut seen) = (0, Seen { acknowledged: Vec::new(), failed: 0 });
    while !over.load(Ordering::Relaxed) {
        if !clients[at].connected(REQUEST) {
            at = 1 - at;
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        match clients[at].put(b"moved", &[7; VALUE_BYTES], REQUEST) {
            Ok(()) => seen.acknowledged.push(Instant::now()),
            Err(_) => {
                seen.failed += 1;
                at = 1 - at;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    seen.acknowledged.push(Instant::now());
    seen
}

/// The longest time between two acknowledgements, of those that lie in `during` from `begin` on at least in part.
fn longest_ms(seen: &Seen, begin: Instant, during: Duration) -> f64 {
    let gaps = seen.acknowledged.windows(2);
    let gaps = gaps.filter(|pair| pair[1] >= begin && pair[0] <= begin + during);
    gaps.map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).fold(0.0, f64::max)
}

/// Leadership goes round while one writer at each member has one request in flight. For each transfer the longest
/// time between two acknowledgements to the same writer; and how many requests failed in all.
fn transfers(cluster: &Cluster, count: usize) -> Result<(Vec<f64>, u64)> {
    let over = AtomicBool::new(false);
    let wire = cluster.system.wire;
    let (begun, seen) = std::thread::scope(|scope| {
        let writers: Vec<_> = cluster
            .members
            .iter()
            .map(|member| {
                let over = &over;
                scope.spawn(move || acknowledgements(over, wire, [member.port; 2]))
            })
            .collect();
        let begun = move_around(cluster, count);
        over.store(true, Ordering::Relaxed);
        let seen: Vec<_> = writers.into_iter().map(|w| w.join().expect("a writer does not panic")).collect();
        begun.map(|begun| (begun, seen))
    })?;
    let longest =
        |begin: &Instant| seen.iter().map(|s| longest_ms(s, *begin, AROUND_TRANSFER)).fold(0.0, f64::max);
    Ok((begun.iter().map(longest).collect(), seen.iter().map(|s| s.failed).sum()))
}

/// Between two transfers, and how long one shows in the gaps between writes.
const BETWEEN_TRANSFERS: Duration = Duration::from_millis(500);
const AROUND_TRANSFER: Duration = Duration::from_millis(300);

/// When each transfer was asked for.
fn move_around(cluster: &Cluster, count: usize) -> Result<Vec<Instant>> {
    let mut begun = Vec::new();
    for _ in 0..count {
        std::thread::sleep(BETWEEN_TRANSFERS);
        let leader = cluster.leader()?;
        let next = &cluster.members[(leader + 1) % cluster.members.len()];
        let (to, _) = Client::new(cluster.system.wire, next.port).status(REQUEST)?;
        let mut client = Client::new(cluster.system.wire, cluster.members[leader].port);
        client.status(REQUEST)?; // Connected: what is measured is the transfer.
        begun.push(Instant::now());
        client.move_leader(to, REQUEST)?;
    }
    std::thread::sleep(BETWEEN_TRANSFERS);
    Ok(begun)
}
