//! Real server processes for tests: started, signalled, killed on drop, every wait bounded. What a member
//! wrote to stderr is in a file beside its data, and its end is shown when a test fails.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time and on a real disk")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::resp::{Client, Reply, unsigned};

pub const PAWLD: &str = env!("CARGO_BIN_EXE_pawld");

/// How long a test waits for anything that should be a matter of a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the members of a test cluster are started with.
#[derive(Clone)]
pub struct Setup {
    pub members: usize,
    pub heartbeat_ms: u64,
    pub election_ms: u64,
    pub segment_bytes: u64,
    /// More flags, the same for all members.
    pub flags: Vec<String>,
}

impl Default for Setup {
    /// Three members that fail over in half a second and keep small segments.
    fn default() -> Setup {
        Setup { members: 3, heartbeat_ms: 50, election_ms: 500, segment_bytes: 1 << 20, flags: Vec::new() }
    }
}

impl Setup {
    pub fn single() -> Setup {
        Setup { members: 1, ..Setup::default() }
    }

    pub fn flag(mut self, name: &str, value: impl ToString) -> Setup {
        self.flags.push(format!("--{name}={}", value.to_string()));
        self
    }
}

/// One member: its place, its flags, and the process while there is one.
pub struct Member {
    pub name: String,
    pub data_dir: PathBuf,
    /// Where it listens for clients.
    pub host: Ipv4Addr,
    pub client_port: u16,
    pub peer_port: u16,
    pub args: Vec<String>,
    /// The program and its first words that start the member; empty = the member itself.
    pub starter: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Member {
    pub fn new(name: &str, home: &Path, args: Vec<String>, client_port: u16, peer_port: u16) -> Member {
        Member {
            name: name.into(),
            data_dir: home.join(name),
            host: Ipv4Addr::LOCALHOST,
            client_port,
            peer_port,
            args,
            starter: Vec::new(),
            log: home.join(format!("{name}.log")),
            child: None,
        }
    }

    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} is running already", self.name);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let words: Vec<&str> = self.starter.iter().map(String::as_str).chain([PAWLD]).collect();
        let child = Command::new(words[0])
            .args(&words[1..])
            .args(&self.args)
            .env_clear()
            // A planted bug is in the members too.
            .envs(std::env::var_os("PAWL_PLANTED").map(|bug| ("PAWL_PLANTED", bug)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap_or_else(|| panic!("{} is not running", self.name));
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} is not running", self.name));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits until the process has ended by itself (or by a signal sent before).
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} is not running", self.name));
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > end {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{} did not end within {limit:?}\n{}", self.name, self.log_tail(40));
            }
            pause(5);
        }
    }

    /// SIGTERM; panics unless it ends cleanly.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait_exit(PATIENCE);
        assert_eq!(status.code(), Some(0), "{} on SIGTERM: {status}\n{}", self.name, self.log_tail(40));
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running member").id()
    }

    /// A connection, as soon as the member accepts one.
    pub fn client(&self) -> Client {
        until(&format!("{} to accept connections", self.name), PATIENCE, || {
            Client::connect_to(self.address(), PATIENCE).ok()
        })
    }

    pub fn address(&self) -> SocketAddr {
        (self.host, self.client_port).into()
    }

    /// `STATUS`, or None while the member does not answer.
    pub fn status(&self) -> Option<Reply> {
        let mut client = Client::connect_to(self.address(), Duration::from_secs(5)).ok()?;
        client.call(&["STATUS"]).ok().filter(|reply| !reply.is_error())
    }

    pub fn id(&self) -> u64 {
        let status = until(&format!("{} to answer STATUS", self.name), PATIENCE, || self.status());
        status.field("member_id").text().parse().expect("a number")
    }

    pub fn revision(&self) -> Option<u64> {
        Some(unsigned(self.status()?.field("revision")))
    }

    /// All that the member said since it was made.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        format!("---- {}:\n{}\n", self.name, all[all.len().saturating_sub(lines)..].join("\n"))
    }

    /// The tree file and the directory of segments.
    pub fn tree(&self) -> PathBuf {
        self.data_dir.join("member/tree")
    }

    pub fn wal_dir(&self) -> PathBuf {
        self.data_dir.join("member/wal")
    }

    /// The segments in order: path, and the index of the first entry that each was made for.
    pub fn segments(&self) -> Vec<(PathBuf, u64)> {
        let mut found: Vec<(PathBuf, u64)> = std::fs::read_dir(self.wal_dir())
            .map(|entries| {
                entries
                    .filter_map(|entry| {
                        let path = entry.ok()?.path();
                        let stem = path.file_name()?.to_str()?.strip_suffix(".wal")?;
                        let first = u64::from_str_radix(stem.split_once('-')?.1, 16).ok()?;
                        Some((path, first))
                    })
                    .collect()
            })
            .unwrap_or_default();
        found.sort();
        found
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A cluster in a directory of its own.
pub struct Cluster {
    pub members: Vec<Member>,
    home: Option<TempDir>,
}

impl Cluster {
    /// Lays out the members; starts none.
    pub fn prepare(setup: &Setup) -> Cluster {
        let home = home();
        let ports: Vec<(u16, u16)> = (0..setup.members).map(|_| (free_port(), free_port())).collect();
        let peers: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(at, (_, peer))| format!("n{}=http://127.0.0.1:{peer}", at + 1))
            .collect();
        let members = ports
            .iter()
            .enumerate()
            .map(|(at, &(client, peer))| {
                let name = format!("n{}", at + 1);
                let data_dir = home.path().join(&name);
                let mut args = vec![
                    format!("--name={name}"),
                    format!("--data-dir={}", data_dir.display()),
                    format!("--listen-client-urls=http://127.0.0.1:{client}"),
                    format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                    format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                    format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                    format!("--initial-cluster={}", peers.join(",")),
                    "--initial-cluster-token=t".into(),
                    "--initial-cluster-state=new".into(),
                    format!("--heartbeat-interval={}", setup.heartbeat_ms),
                    format!("--election-timeout={}", setup.election_ms),
                    format!("--wal-segment-bytes={}", setup.segment_bytes),
                ];
                args.extend(setup.flags.iter().cloned());
                Member::new(&name, home.path(), args, client, peer)
            })
            .collect();
        Cluster { members, home: Some(home) }
    }

    /// Starts all members and waits until there is a leader.
    pub fn start(setup: &Setup) -> Cluster {
        let mut cluster = Cluster::prepare(setup);
        cluster.start_all();
        cluster.leader();
        cluster
    }

    pub fn start_all(&mut self) {
        for member in &mut self.members {
            if member.child.is_none() {
                member.start();
            }
        }
    }

    /// Stops all that run, at the same time; panics unless every one ends cleanly.
    pub fn stop_all(&mut self) {
        for member in self.members.iter().filter(|member| member.child.is_some()) {
            member.signal(Signal::TERM);
        }
        for member in self.members.iter_mut().filter(|member| member.child.is_some()) {
            let status = member.wait_exit(PATIENCE);
            let log = member.log_tail(40);
            assert_eq!(status.code(), Some(0), "{} on SIGTERM: {status}\n{log}", member.name);
        }
    }

    /// Which member leads: waits until one does and every running member knows it.
    pub fn leader(&self) -> usize {
        until("all running members to know the same leader", PATIENCE, || {
            let mut leader = None;
            let mut found = None;
            for (at, member) in self.members.iter().enumerate().filter(|(_, member)| member.child.is_some()) {
                let status = member.status()?;
                let (id, says) = (status.field("member_id"), status.field("leader"));
                if *says == Reply::Integer(0) || leader.get_or_insert_with(|| says.clone()) != says {
                    return None;
                }
                if id == says {
                    found = Some(at);
                }
            }
            found
        })
    }

    /// Makes this member the leader.
    pub fn lead(&self, at: usize) {
        until("the member to lead", PATIENCE, || {
            let leader = self.leader();
            if leader != at {
                // Refused while the member lags, or if another one leads by now.
                let _ =
                    self.members[leader].client().call(&["MOVELEADER", &self.members[at].id().to_string()]);
            }
            (leader == at).then_some(())
        });
    }

    /// A put through any member that takes it; its revision.
    pub fn put(&self, key: &str, value: &str) -> u64 {
        until("a put to be accepted", PATIENCE, || {
            self.members.iter().filter(|member| member.child.is_some()).find_map(|member| {
                let mut client = Client::connect_to(member.address(), PATIENCE).ok()?;
                match client.call(&["PUT", key, value]) {
                    Ok(Reply::Integer(revision)) => u64::try_from(revision).ok(),
                    _ => None,
                }
            })
        })
    }

    /// Writes, and waits until every running member has applied that; the common revision.
    pub fn settle(&self) -> u64 {
        let revision = self.put("settle", "settled");
        self.agree(revision)
    }

    /// Waits until all running members are at the same revision, `at_least` or later, and stay there: what was
    /// under way when the clients left has come to its end. The revision.
    pub fn agree(&self, at_least: u64) -> u64 {
        let look = || {
            let up = self.members.iter().filter(|member| member.child.is_some());
            let revisions: Vec<Option<u64>> = up.map(Member::revision).collect();
            let first = (*revisions.first()?)?;
            (first >= at_least && revisions.iter().all(|found| *found == Some(first))).then_some(first)
        };
        until("all members to agree on a revision", PATIENCE, || {
            let first = look()?;
            pause(300);
            look().filter(|second| *second == first)
        })
    }

    /// All members stopped: every data directory passes the offline check, and all contents are the same.
    pub fn check_stopped(&self) {
        let mut digests = Vec::new();
        for member in &self.members {
            let dir = format!("--data-dir={}", member.data_dir.display());
            let verify = run(PAWLD, &["util", "verify", &dir]);
            assert!(verify.status.success(), "{}: verify: {}", member.name, shown(&verify));
            let hash = run(PAWLD, &["util", "hash", &dir]);
            assert!(hash.status.success(), "{}: hash: {}", member.name, shown(&hash));
            digests.push(String::from_utf8_lossy(&hash.stdout).into_owned());
        }
        for (member, digest) in self.members.iter().zip(&digests) {
            assert_eq!(digest, &digests[0], "{} and {} differ", member.name, self.members[0].name);
        }
    }

    pub fn path(&self) -> &Path {
        self.home.as_ref().expect("held until the drop").path()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for member in &self.members {
            say(&member.log_tail(25));
        }
        if std::env::var_os("KEEP_DATA").is_some() {
            self.members.clear();
            let kept = self.home.take().map(TempDir::keep);
            say(&format!("the data is kept in {}", kept.unwrap_or_default().display()));
        }
    }
}

/// A temporary directory on the disk that the build is on: not tmpfs, where a sync means nothing.
pub fn home() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A port below the range that the kernel gives to outgoing connections, or a client's socket could take a
/// member's port while that is down.
pub fn free_port() -> u16 {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap();
    if *next == 0 {
        *next = 10_000 + u16::try_from(std::process::id() % 400).expect("small") * 50;
    }
    loop {
        *next = if *next >= 31_990 { 10_000 } else { *next + 1 };
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, *next)).is_ok() {
            return *next;
        }
    }
}

/// Ends the clients of a test that fails, or the scope would wait for them for ever.
pub struct EndAtDrop<'a>(pub &'a AtomicBool);

impl Drop for EndAtDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks again every few milliseconds until there is an answer.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "waited {limit:?} for {what}");
        pause(5);
    }
}

/// A child's status and what it complained of, when it has ended by itself.
pub fn ended(child: &mut Child) -> (Option<i32>, String) {
    let status = until("the end of a child", PATIENCE, || child.try_wait().unwrap());
    let mut complaints = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
    (status.code(), complaints)
}

/// Real processes tell nobody when they are ready: they are asked again after a moment, and within a bound.
pub fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// A line that `cargo test` shows even when the test passes.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A test that cannot run here, and why. Always followed by a return.
pub fn skip(test: &str, why: &str) {
    say(&format!("skipped: {test}: {why}"));
}

/// Runs a program to its end, which must come within the time that tests have.
pub fn run(program: &str, args: &[&str]) -> Output {
    run_with(Command::new(program).args(args), b"", PATIENCE)
}

/// The same, with something on its standard input.
pub fn run_with(command: &mut Command, input: &[u8], limit: Duration) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // A program that ends without reading its input breaks the pipe: that is its business.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let pid = Pid::from_child(&child);
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if ended.recv_timeout(limit).is_err() {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    let _ = done.send(());
    watchdog.join().unwrap();
    let _ = writer.join().unwrap();
    output
}

/// Where a program is to be found.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

pub fn has(program: &str) -> bool {
    find(program).is_some()
}

/// What a program said and how it ended, for messages.
pub fn shown(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
