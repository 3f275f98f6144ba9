//! etcd's own API on both: puts and reads over gRPC, by this program's client (frames of HTTP/2 written by hand, one thread; it
//! sends other keys each time and looks at the answers) and by `h2load` where it is on the path: a client in C that sends the
//! same bytes again and again, by which this program's can be judged.

use std::path::Path;
use std::process::Command;

use prost::Message;

use crate::cluster::{Cluster, System};
use crate::etcd::{PutRequest, RangeRequest};
use crate::load::{Kind, Order, Plan, Wire};
use crate::report::Figures;
use crate::rows::plan;
use crate::{Result, Scale, on_path};

/// Rate and p99.
type Titles = [&'static str; 2];

/// Clients, and connections for them.
const PUTS: [(usize, usize, Titles); 3] = [
    (1, 1, ["gRPC: put, 1 client: rate", "gRPC: put, 1 client: p99"]),
    (100, 100, ["gRPC: put, 100 clients: rate", "gRPC: put, 100 clients: p99"]),
    (1_000, 100, ["gRPC: put, 1000 clients: rate", "gRPC: put, 1000 clients: p99"]),
];

const RANGES: [(usize, usize, Titles); 3] = [
    (1, 1, ["gRPC: range of 1 key, 1 client: rate", "gRPC: range of 1 key, 1 client: p99"]),
    (100, 100, ["gRPC: range of 1 key, 100 clients: rate", "gRPC: range of 1 key, 100 clients: p99"]),
    (1_000, 100, ["gRPC: range of 1 key, 1000 clients: rate", "gRPC: range of 1 key, 1000 clients: p99"]),
];

/// By `h2load`: connections, and requests at once on each.
const LOADS: [(usize, usize, &str, Titles); 6] = [
    (1, 1, PUT, ["gRPC: put by h2load, 1 client: rate", "gRPC: put by h2load, 1 client: p99"]),
    (100, 1, PUT, ["gRPC: put by h2load, 100 clients: rate", "gRPC: put by h2load, 100 clients: p99"]),
    (100, 10, PUT, ["gRPC: put by h2load, 1000 clients: rate", "gRPC: put by h2load, 1000 clients: p99"]),
    (1, 1, RANGE, ["gRPC: range by h2load, 1 client: rate", "gRPC: range by h2load, 1 client: p99"]),
    (100, 1, RANGE, ["gRPC: range by h2load, 100 clients: rate", "gRPC: range by h2load, 100 clients: p99"]),
    (
        100,
        10,
        RANGE,
        ["gRPC: range by h2load, 1000 clients: rate", "gRPC: range by h2load, 1000 clients: p99"],
    ),
];

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";

/// One round, on a fresh cluster of three members, whose leader is asked.
pub fn measure(system: &System, dir: &Path, scale: &Scale, figures: &mut Figures) -> Result<()> {
    let cluster = Cluster::start(system, system.members(), dir)?;
    let leader = cluster.leader()?;
    let put = Plan { order: Order::Sorted, ..plan(&cluster, leader, scale, Kind::Put) };
    put.once(Kind::Put, scale.load_keys)?;
    let put = Plan { wire: Wire::Etcd, ..put };
    let name = system.name();
    for (kind, rows) in [(Kind::Put, PUTS), (Kind::Range(1), RANGES)] {
        for (clients, connections, titles) in rows {
            rustix::fs::sync();
            std::thread::sleep(scale.pause);
            let done = Plan { kind, clients, connections, ..put.clone() }.run()?;
            figures.errors("gRPC", name, done.errors);
            add(figures, name, titles, [done.rate(), done.quantile_ms(0.99)]);
        }
    }
    let Some(program) = on_path("h2load") else {
        figures.note("h2load was not found: its rows are left out".into());
        return Ok(());
    };
    let key = 7_u64.to_be_bytes().to_vec();
    for (connections, streams, method, titles) in LOADS {
        rustix::fs::sync();
        std::thread::sleep(scale.pause);
        let message = match method {
            PUT => PutRequest { key: key.clone(), value: put.value(), lease: 0 }.encode_to_vec(),
            _ => RangeRequest { key: key.clone(), ..RangeRequest::default() }.encode_to_vec(),
        };
        let load = H2load { program: &program, dir, port: put.port, connections, streams, method };
        add(figures, name, titles, load.run(&message, scale)?);
    }
    Ok(())
}

fn add(figures: &mut Figures, name: &'static str, titles: Titles, found: [f64; 2]) {
    titles.iter().zip(found).for_each(|(title, value)| figures.add(title, name, value));
}

struct H2load<'a> {
    program: &'a Path,
    dir: &'a Path,
    port: u16,
    connections: usize,
    streams: usize,
    method: &'static str,
}

impl H2load<'_> {
    /// Requests a second, and their p99 in milliseconds.
    fn run(&self, message: &[u8], scale: &Scale) -> Result<[f64; 2]> {
        // One message: not compressed, so long (gRPC over HTTP/2, "Length-Prefixed-Message").
        let body = [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat();
        let (body_file, log) = (self.dir.join("h2load.body"), self.dir.join("h2load.log"));
        std::fs::write(&body_file, body)?;
        let _ = std::fs::remove_file(&log);
        let said = Command::new(self.program)
            .args(["-c", &self.connections.to_string(), "-m", &self.streams.to_string(), "-t", "1"])
            .args(["-D", &scale.duration.as_secs_f64().to_string()])
            .args(["--warm-up-time", &format!("{}ms", scale.warm_up.as_millis())])
            .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
            .arg("-d")
            .arg(&body_file)
            .arg(format!("--log-file={}", log.display()))
            .arg(format!("http://127.0.0.1:{}{}", self.port, self.method))
            .output()?;
        if !said.status.success() {
            return Err(format!("h2load: {}", String::from_utf8_lossy(&said.stderr)).into());
        }
        let mut took_us = parse(&std::fs::read_to_string(&log)?)?;
        if took_us.is_empty() {
            return Err(format!("h2load had no answer: {}", String::from_utf8_lossy(&said.stdout)).into());
        }
        took_us.sort_unstable();
        let p99_us = took_us[(took_us.len() - 1) * 99 / 100];
        Ok([took_us.len() as f64 / scale.duration.as_secs_f64(), p99_us as f64 / 1e3])
    }
}

/// Of each request: when it began, its status, how many microseconds it took. All must have been answered.
fn parse(log: &str) -> Result<Vec<u64>> {
    let took = |line: &str| {
        let mut words = line.split('\t').skip(1);
        match (words.next(), words.next().and_then(|took| took.parse().ok())) {
            (Some("200"), Some(took)) => Ok(took),
            _ => Err(format!("h2load logged {line:?}").into()),
        }
    };
    log.lines().map(took).collect()
}
