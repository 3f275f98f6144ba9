//! Starts, stops and kills the systems that are compared: Pawl and etcd as three members, Redis as one
//! process, all on loopback and on one file system.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;
use crate::etcd::{EtcdClient, runtime};
use crate::load::Wire;
use crate::resp::RespClient;

/// How long a system may take to answer after its start.
const READY_MAX: Duration = Duration::from_secs(60);

/// How long a member may take to end.
const END_MAX: Duration = Duration::from_secs(20);

/// A program to compare.
#[derive(Clone, Debug)]
pub struct System {
    pub wire: Wire,
    pub program: PathBuf,
}

impl System {
    pub fn name(&self) -> &'static str {
        match self.wire {
            Wire::Pawl => "pawl",
            Wire::Redis => "redis",
            Wire::Etcd => "etcd",
        }
    }

    /// How many members make the cluster that most rows measure.
    pub fn members(&self) -> usize {
        if self.wire == Wire::Redis { 1 } else { 3 }
    }

    /// First line of `--version`.
    pub fn version(&self) -> String {
        let said = Command::new(&self.program).arg("--version").output();
        let said = said.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        said.lines().next().unwrap_or("version unknown").to_string()
    }
}

/// A running set of members; all are killed when it is dropped.
pub struct Cluster {
    pub system: System,
    pub members: Vec<Member>,
}

/// Of a process: all that is mapped and in memory, and of that what is no file's.
#[derive(Clone, Copy)]
pub struct Memory {
    pub resident_bytes: u64,
    pub anonymous_bytes: u64,
}

pub struct Member {
    pub port: u16,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

/// A port that is free now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

impl Cluster {
    /// A new, empty one of so many members under `dir`, ready for requests when this returns.
    pub fn start(system: &System, members: usize, dir: &Path) -> Result<Cluster> {
        Cluster::start_with(system, members, dir, &[])
    }

    /// With these flags of etcd's too, whose later value counts.
    pub fn start_with(system: &System, members: usize, dir: &Path, flags: &[&str]) -> Result<Cluster> {
        let ports: Vec<(u16, u16)> =
            (0..members).map(|_| Ok((free_port()?, free_port()?))).collect::<Result<_>>()?;
        let peers: Vec<String> =
            ports.iter().enumerate().map(|(i, p)| format!("m{i}=http://127.0.0.1:{}", p.1)).collect();
        let mut members = Vec::new();
        for (i, (port, peer_port)) in ports.into_iter().enumerate() {
            let data = dir.join(format!("{}-m{i}", system.name()));
            std::fs::create_dir_all(&data)?;
            let mut arguments = match system.wire {
                Wire::Redis => redis_arguments(port, &data),
                Wire::Pawl | Wire::Etcd => etcd_arguments(i, port, peer_port, &data, &peers.join(",")),
            };
            arguments.extend(flags.iter().map(|flag| flag.to_string()));
            let log = dir.join(format!("{}-m{i}.log", system.name()));
            members.push(Member { port, program: system.program.clone(), arguments, log, child: None });
        }
        let mut cluster = Cluster { system: system.clone(), members };
        for i in 0..cluster.members.len() {
            cluster.members[i].start()?;
        }
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// Until every member answers a linearizable read.
    pub fn wait_ready(&self) -> Result<()> {
        for member in &self.members {
            let deadline = Instant::now() + READY_MAX;
            let mut client = Client::new(self.system.wire, member.port);
            while let Err(e) = client.get(b"ready?", Duration::from_secs(1)) {
                if Instant::now() >= deadline {
                    let last = std::fs::read_to_string(&member.log).unwrap_or_default();
                    let last = last.lines().last().unwrap_or("nothing").to_string();
                    return Err(
                        format!("{} is not ready: {e}; its log ends: {last}", self.system.name()).into()
                    );
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Position of the leader in `members`; 0 for a system without one.
    pub fn leader(&self) -> Result<usize> {
        if self.system.wire == Wire::Redis {
            return Ok(0);
        }
        let deadline = Instant::now() + READY_MAX;
        loop {
            let status: Vec<Option<(u64, u64)>> = self
                .members
                .iter()
                .map(|m| Client::new(self.system.wire, m.port).status(Duration::from_secs(1)).ok())
                .collect();
            let leader = status.iter().flatten().map(|(_, leader)| *leader).max().unwrap_or(0);
            if let Some(i) = status.iter().position(|s| s.is_some_and(|(id, _)| id == leader)) {
                return Ok(i);
            }
            if Instant::now() >= deadline {
                return Err(format!("{} has no leader: {status:?}", self.system.name()).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn kill(&mut self, i: usize) -> Result<()> {
        self.members[i].signal(Signal::KILL)?;
        self.members[i].wait()
    }

    /// Runs `attempt` against every member in `among`, again and again and each in its own thread, until one
    /// succeeds; how long after `since` that was.
    pub fn first_success(
        &self,
        among: &[usize],
        since: Instant,
        attempt: impl Fn(&mut Client) -> Result<bool> + Sync,
    ) -> Result<Duration> {
        let deadline = since + READY_MAX;
        let (tell, told) = mpsc::channel();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for i in among {
                let (tell, attempt, stop, member) = (tell.clone(), &attempt, &stop, &self.members[*i]);
                scope.spawn(move || {
                    let mut client = Client::new(self.system.wire, member.port);
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) && Instant::now() < deadline {
                        if matches!(attempt(&mut client), Ok(true)) {
                            let _ = tell.send(Instant::now());
                            return;
                        }
                        std::thread::sleep(Duration::from_millis(2));
                    }
                });
            }
            drop(tell);
            let first = told.recv();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            first.map(|at| at - since).map_err(|_| "no member answered within a minute".into())
        })
    }

    /// Anonymous memory of each member, in bytes.
    pub fn anonymous_bytes(&self) -> Result<Vec<u64>> {
        self.members.iter().map(|member| Ok(member.memory()?.anonymous_bytes)).collect()
    }
}

impl Member {
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    fn pid(&self) -> Result<Pid> {
        let child = self.child.as_ref().ok_or("the member is not running")?;
        Ok(Pid::from_child(child))
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Until the process has ended. One that does not within [`END_MAX`] is killed, and that is an error.
    pub fn wait(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let deadline = Instant::now() + END_MAX;
        while child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                self.child = None;
                return Err("a member did not end when it was told to".into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.child = None;
        Ok(())
    }

    pub fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/smaps_rollup", self.pid()?.as_raw_nonzero());
        let text = std::fs::read_to_string(&path)?;
        let bytes = |name: &str| -> Result<u64> {
            let line = text.lines().find(|line| line.starts_with(name)).ok_or(format!("no line {name}"))?;
            let kib: u64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
            Ok(kib * 1024)
        };
        Ok(Memory { resident_bytes: bytes("Rss:")?, anonymous_bytes: bytes("Anonymous:")? })
    }

    /// What it has logged.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The same flags for both: Pawl is started as etcd is.
fn etcd_arguments(i: usize, port: u16, peer_port: u16, data: &Path, peers: &str) -> Vec<String> {
    let client = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    [
        ("--name", format!("m{i}")),
        ("--data-dir", data.display().to_string()),
        ("--listen-client-urls", client.clone()),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer.clone()),
        ("--initial-advertise-peer-urls", peer),
        ("--initial-cluster", peers.to_string()),
        ("--initial-cluster-state", "new".to_string()),
        ("--initial-cluster-token", "bench".to_string()),
        ("--log-level", "warn".to_string()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_string(), value])
    .collect()
}

/// Every write in the append-only file and synced before its answer; no rewriting in between.
fn redis_arguments(port: u16, data: &Path) -> Vec<String> {
    let port = port.to_string();
    let dir = data.display().to_string();
    [
        ["--port", &port],
        ["--bind", "127.0.0.1"],
        ["--dir", &dir],
        ["--appendonly", "yes"],
        ["--appendfsync", "always"],
        ["--auto-aof-rewrite-percentage", "0"],
        ["--save", ""],
    ]
    .concat()
    .into_iter()
    .map(str::to_string)
    .collect()
}

/// One request at a time to one member, whatever its protocol; connects when needed.
pub enum Client {
    Resp { wire: Wire, port: u16, open: Option<RespClient> },
    Etcd(EtcdClient),
}

impl Client {
    pub fn new(wire: Wire, port: u16) -> Client {
        match wire {
            Wire::Etcd => Client::Etcd(EtcdClient::new(port)),
            Wire::Pawl | Wire::Redis => Client::Resp { wire, port, open: None },
        }
    }

    /// Whether a request can be sent: a connection that is refused is no failed request. (gRPC connects by
    /// itself, so there it is one.)
    pub fn connected(&mut self, timeout: Duration) -> bool {
        match self {
            Client::Resp { wire, port, open } => with_open(*wire, *port, open, timeout, |_| Ok(())).is_ok(),
            Client::Etcd(_) => true,
        }
    }

    pub fn put(&mut self, key: &[u8], value: &[u8], timeout: Duration) -> Result<()> {
        match self {
            Client::Resp { wire, port, open } => {
                with_open(*wire, *port, open, timeout, |c| c.put(key, value, timeout))
            }
            Client::Etcd(c) => within(timeout, c.put(key.to_vec(), value.to_vec())),
        }
    }

    /// A linearizable read.
    pub fn get(&mut self, key: &[u8], timeout: Duration) -> Result<Option<Vec<u8>>> {
        match self {
            Client::Resp { wire, port, open } => {
                with_open(*wire, *port, open, timeout, |c| c.get(key, timeout))
            }
            Client::Etcd(c) => within(timeout, c.get(key.to_vec())),
        }
    }

    /// The member's own id and its leader's.
    pub fn status(&mut self, timeout: Duration) -> Result<(u64, u64)> {
        match self {
            Client::Resp { wire, port, open } => {
                with_open(*wire, *port, open, timeout, |c| c.status(timeout))
            }
            Client::Etcd(c) => within(timeout, c.status()),
        }
    }

    /// Of all keys.
    pub fn count(&mut self, timeout: Duration) -> Result<u64> {
        match self {
            Client::Resp { wire, port, open } => with_open(*wire, *port, open, timeout, |c| c.count(timeout)),
            Client::Etcd(c) => within(timeout, c.count()),
        }
    }

    /// Of the store.
    pub fn revision(&mut self, timeout: Duration) -> Result<u64> {
        match self {
            Client::Resp { wire, port, open } => {
                with_open(*wire, *port, open, timeout, |c| c.revision(timeout))
            }
            Client::Etcd(c) => within(timeout, c.revision()),
        }
    }

    pub fn grant(&mut self, id: u64, ttl_s: u64, timeout: Duration) -> Result<()> {
        match self {
            Client::Resp { wire, port, open } => {
                with_open(*wire, *port, open, timeout, |c| c.grant(id, ttl_s, timeout))
            }
            Client::Etcd(c) => within(timeout, c.grant(id, ttl_s)),
        }
    }

    pub fn compact(&mut self, revision: u64, timeout: Duration) -> Result<()> {
        match self {
            Client::Resp { wire, port, open } => {
                with_open(*wire, *port, open, timeout, |c| c.compact(revision, timeout))
            }
            Client::Etcd(c) => within(timeout, c.compact(revision)),
        }
    }

    /// Asks the leader to hand over to this member.
    pub fn move_leader(&mut self, to: u64, timeout: Duration) -> Result<()> {
        match self {
            Client::Resp { wire, port, open } => {
                with_open(*wire, *port, open, timeout, |c| c.move_leader(to, timeout))
            }
            Client::Etcd(c) => within(timeout, c.move_leader(to)),
        }
    }
}

/// A connection that has failed, or was closed by the server between requests, is not used again.
fn with_open<T>(
    wire: Wire,
    port: u16,
    open: &mut Option<RespClient>,
    timeout: Duration,
    call: impl FnOnce(&mut RespClient) -> Result<T>,
) -> Result<T> {
    let mut client = match open.take() {
        Some(kept) if !kept.closed() => kept,
        _ => RespClient::connect(wire, port, timeout)?,
    };
    let answer = call(&mut client)?;
    *open = Some(client);
    Ok(answer)
}

fn within<T>(timeout: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    runtime().block_on(async { tokio::time::timeout(timeout, call).await })?
}
