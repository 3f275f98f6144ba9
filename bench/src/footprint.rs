//! What one member keeps in memory for keys, watches, leases and connections: each alone, in a new process that has nothing
//! else, and beside it the same process before.
//!
//! Resident memory has the pages of files that are mapped: the kernel takes those away when it needs room. Anonymous memory
//! is the process's own.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::cluster::{Cluster, Memory, System};
use crate::etcd::{self, EtcdClient, runtime};
use crate::key_rows::PUTS;
use crate::load::{Kind, Order, Plan, Wire};
use crate::report::Figures;
use crate::rows::plan;
use crate::watch::Watching;
use crate::{Result, Scale};

const CONNECTIONS: usize = 10_000;
const STREAMS: usize = 10_000;
const STREAM_CONNECTIONS: usize = 100;
const WATCHES: u64 = 100_000;
const LEASES: [u64; 2] = [100_000, 1_000_000];

/// Longer than any run.
const TTL_S: u64 = 100_000;

/// First these, then as well these.
const SPREAD_KEYS: u64 = 1_000_000;
const SORTED_KEYS: u64 = 9_000_000;

/// Room for ten million keys.
const FLAGS: [&str; 2] = ["--quota-backend-bytes", "17179869184"];

/// Until a process has given back what it no longer needs, as far as it does.
const REST: Duration = Duration::from_secs(5);

pub fn measure(system: &System, dir: &Path, scale: &Scale, figures: &mut Figures) -> Result<()> {
    let name = system.name();
    let fresh = |what: &str| Cluster::start_with(system, 1, &dir.join(what), &FLAGS);
    let now = |cluster: &Cluster| {
        std::thread::sleep(REST);
        cluster.members[0].memory()
    };

    let cluster = fresh("connections")?;
    let before = now(&cluster)?;
    add(figures, name, NOTHING, before);
    let open = Idle::connect(system.wire, cluster.members[0].port)?;
    let with = now(&cluster)?;
    add(figures, name, IDLE, with);
    figures.add("each connection", name, each_kib(before, with, CONNECTIONS as u64));
    drop((open, cluster));

    measure_grpc(&fresh, &now, name, figures)?;

    let cluster = fresh("watches")?;
    let before = now(&cluster)?;
    let open = Watching::start(WATCHES, system.wire, cluster.members[0].port, u64::to_be_bytes)?;
    let with = now(&cluster)?;
    add(figures, name, WATCHED, with);
    figures.add("each watch, with its share of a connection", name, each_kib(before, with, WATCHES));
    drop((open, cluster));

    for (count, titles) in LEASES.into_iter().zip([LEASED, LEASED_MANY]) {
        let cluster = fresh("leases")?;
        let before = now(&cluster)?;
        plan(&cluster, 0, scale, Kind::Get).once(Kind::Grant { ttl_s: TTL_S, alike: u64::MAX }, count)?;
        let with = now(&cluster)?;
        add(figures, name, titles, with);
        if count == LEASES[0] {
            figures.add("each lease", name, each_kib(before, with, count));
        }
        drop(cluster);
        std::fs::remove_dir_all(dir.join("leases"))?;
    }

    let cluster = fresh("keys")?;
    let put = plan(&cluster, 0, scale, Kind::Put);
    put.once(Kind::Puts(PUTS), SPREAD_KEYS)?;
    add(figures, name, KEYS, now(&cluster)?);
    Plan { order: Order::Sorted, ..put }.once(Kind::Puts(PUTS), SORTED_KEYS)?;
    add(figures, name, MANY_KEYS, now(&cluster)?);
    Ok(())
}

/// What clients of etcd cost both: connections on which nothing goes, and streams of one watch each on a hundred of them.
fn measure_grpc(
    fresh: &impl Fn(&str) -> Result<Cluster>,
    now: &impl Fn(&Cluster) -> Result<Memory>,
    name: &'static str,
    figures: &mut Figures,
) -> Result<()> {
    let cluster = fresh("grpc-connections")?;
    let before = now(&cluster)?;
    let open = Idle::connect(Wire::Etcd, cluster.members[0].port)?;
    let with = now(&cluster)?;
    add(figures, name, IDLE_GRPC, with);
    figures.add("each gRPC connection", name, each_kib(before, with, CONNECTIONS as u64));
    drop((open, cluster));

    let cluster = fresh("grpc-streams")?;
    let clients = (0..STREAM_CONNECTIONS).map(|_| grpc_client(cluster.members[0].port));
    let mut clients = clients.collect::<Result<Vec<_>>>()?;
    let before = now(&cluster)?;
    let watch = |number: usize| {
        let key = (number as u64).to_be_bytes().to_vec();
        runtime().block_on(etcd::watch(&mut clients[number % STREAM_CONNECTIONS], vec![key]))
    };
    let open: Vec<_> = (0..STREAMS).map(watch).collect::<Result<_>>()?;
    let with = now(&cluster)?;
    add(figures, name, STREAMED, with);
    figures.add("each watch stream, with its watch", name, each_kib(before, with, STREAMS as u64));
    drop((open, cluster));
    Ok(())
}

/// One over which a request has gone.
fn grpc_client(port: u16) -> Result<EtcdClient> {
    let mut client = EtcdClient::new(port);
    runtime().block_on(client.status())?;
    Ok(client)
}

type Titles = [&'static str; 2];

const NOTHING: Titles = ["an empty member: resident", "an empty member: anonymous"];
const IDLE: Titles = ["10,000 idle connections: resident", "10,000 idle connections: anonymous"];
const IDLE_GRPC: Titles =
    ["gRPC: 10,000 idle connections: resident", "gRPC: 10,000 idle connections: anonymous"];
const STREAMED: Titles = ["gRPC: 10,000 watch streams: resident", "gRPC: 10,000 watch streams: anonymous"];
const WATCHED: Titles = ["100,000 watches: resident", "100,000 watches: anonymous"];
const LEASED: Titles = ["100,000 leases: resident", "100,000 leases: anonymous"];
const LEASED_MANY: Titles = ["1,000,000 leases: resident", "1,000,000 leases: anonymous"];
const KEYS: Titles = ["1 M keys: resident", "1 M keys: anonymous"];
const MANY_KEYS: Titles = ["10 M keys: resident", "10 M keys: anonymous"];

fn add(figures: &mut Figures, name: &'static str, [resident, anonymous]: Titles, memory: Memory) {
    figures.add(resident, name, memory.resident_bytes as f64 / f64::from(1 << 20));
    figures.add(anonymous, name, memory.anonymous_bytes as f64 / f64::from(1 << 20));
}

/// What one of so many takes of anonymous memory.
fn each_kib(before: Memory, with: Memory, count: u64) -> f64 {
    with.anonymous_bytes.saturating_sub(before.anonymous_bytes) as f64 / 1024.0 / count as f64
}

/// Connections over which one request has gone, as those of clients that have nothing to do.
enum Idle {
    Resp(#[expect(dead_code, reason = "open as long as this is")] Vec<TcpStream>),
    Grpc(#[expect(dead_code, reason = "open as long as this is")] Vec<EtcdClient>),
}

impl Idle {
    fn connect(wire: Wire, port: u16) -> Result<Idle> {
        if wire == Wire::Etcd {
            return Ok(Idle::Grpc((0..CONNECTIONS).map(|_| grpc_client(port)).collect::<Result<_>>()?));
        }
        let connect = |_| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            std::io::Write::write_all(&mut stream, b"PING\r\n")?;
            std::io::Read::read_exact(&mut stream, &mut [0; 7])?;
            Ok(stream)
        };
        Ok(Idle::Resp((0..CONNECTIONS).map(connect).collect::<Result<_>>()?))
    }
}
