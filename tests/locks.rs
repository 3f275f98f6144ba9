//! Locks and elections with real processes: what ends a wait, and `pawlctl lock` and `elect`.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Cluster, PATIENCE, PAWLD, Setup, run, shown, until};
use crate::resp::{Client, RangeReply, encode};

fn one() -> (Cluster, u16) {
    let cluster = Cluster::start(&Setup::single());
    let port = cluster.members[0].client_port;
    (cluster, port)
}

fn client(port: u16) -> Client {
    Client::connect(port, PATIENCE).unwrap()
}

/// How many keys are under a name.
fn count(port: u16, name: &str) -> u64 {
    let reply = client(port).call(&["RANGE", &format!("{name}/"), "PREFIX"]).unwrap();
    RangeReply::parse(&reply).count
}

fn wait_for(port: u16, name: &str, wanted: u64) {
    until("keys under the name", PATIENCE, || (count(port, name) == wanted).then_some(()));
}

/// A client that waits for the lock `n`, which lease 1 has.
fn waiting(port: u16) -> TcpStream {
    let mut owner = client(port);
    owner.call(&["LEASE", "GRANT", "600", "ID", "1"]).unwrap();
    owner.call(&["LEASE", "GRANT", "600", "ID", "2"]).unwrap();
    let held = owner.call(&["LOCK", "n", "LEASE", "1"]).unwrap();
    assert_eq!(held.array()[0].text(), "n/1");
    let mut waiter = TcpStream::connect(("127.0.0.1", port)).unwrap();
    waiter.set_read_timeout(Some(PATIENCE)).unwrap();
    waiter.write_all(&[encode(&["LOCK", "n", "LEASE", "2"]), encode(&["PING"])].concat()).unwrap();
    wait_for(port, "n", 2);
    waiter
}

#[test]
fn a_client_that_goes_takes_its_place_along() {
    let (_cluster, port) = one();
    let waiter = waiting(port);
    drop(waiter);
    wait_for(port, "n", 1);
}

/// It still reads: it is told that it did not get the lock, and what it sent behind that is answered.
#[test]
fn a_client_that_closes_its_side_waits_no_longer() {
    let (_cluster, port) = one();
    let mut waiter = waiting(port);
    waiter.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    waiter.read_to_string(&mut said).unwrap();
    assert_eq!(said, "-BUSY mutex: Locked by another session\r\n+PONG\r\n");
    assert_eq!(count(port, "n"), 1);
}

/// And where nobody has to wait, nothing is lost by it.
#[test]
fn a_client_that_has_said_everything_gets_a_lock_that_is_free() {
    let (_cluster, port) = one();
    client(port).call(&["LEASE", "GRANT", "600", "ID", "26"]).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"LOCK n LEASE 26\r\nLOCK n LEASE 26\r\nPUT k v\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let lines: Vec<&str> = said.split("\r\n").collect();
    assert_eq!(lines[..3], ["*2", "$4", "n/1a"], "{said}");
    assert_eq!(lines[..4], lines[4..8], "the second one is the same");
}

/// However much it sends meanwhile.
#[test]
fn what_is_sent_behind_a_lock_waits_and_is_bounded() {
    let (_cluster, port) = one();
    let mut waiter = waiting(port);
    let sender = waiter.try_clone().unwrap();
    let put = encode(&["PUT", "behind", &"x".repeat(100_000)]);
    let writer = std::thread::spawn(move || {
        let mut sender = sender;
        for _ in 0..100 {
            sender.write_all(&put).unwrap();
        }
    });
    assert_eq!(RangeReply::parse(&client(port).call(&["RANGE", "behind"]).unwrap()).count, 0);
    client(port).call(&["UNLOCK", "n/1"]).unwrap();
    let mut lines = BufReader::new(&mut waiter).lines();
    let said: Vec<String> = (0..5).map(|_| lines.next().unwrap().unwrap()).collect();
    assert_eq!((&said[..3], said[4].as_str()), (&["*2", "$3", "n/2"].map(String::from)[..], "+PONG"));
    for _ in 0..100 {
        assert!(lines.next().unwrap().unwrap().starts_with(':'));
    }
    writer.join().unwrap();
}

// ---- pawlctl

fn ctl(port: u16, words: &[&str]) -> Command {
    let mut command = Command::new(PAWLD);
    command.args(["ctl", "--endpoints", &format!("127.0.0.1:{port}")]).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// One that runs, and what it has printed as its first line.
fn begun(port: u16, words: &[&str]) -> (Child, String) {
    let mut child = ctl(port, words).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim_end().to_string())
}

fn interrupt(mut child: Child) -> ExitStatus {
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.wait().unwrap()
}

#[test]
fn pawlctl_runs_a_command_under_a_lock() {
    let (_cluster, port) = one();
    let script = r#"echo "$ETCD_LOCK_KEY $ETCD_LOCK_REV"; exit 7"#;
    let output = ctl(port, &["lock", "n", "sh", "-c", script]).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", shown(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    let (key, revision) = said.trim_end().split_once(' ').unwrap();
    assert!(key.starts_with("n/") && revision.parse::<u64>().unwrap() > 1, "{said}");
    assert_eq!(count(port, "n"), 0, "it is given back");
    let leases = client(port).call(&["LEASE", "LIST"]).unwrap();
    assert!(leases.array().is_empty(), "and its lease with it");
    let output = ctl(port, &["lock", "n", "/no/such/program"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert_eq!(count(port, "n"), 0);
}

#[test]
fn pawlctl_waits_for_a_lock_and_holds_it_until_it_is_interrupted() {
    let (_cluster, port) = one();
    let (first, key) = begun(port, &["lock", "n", "--ttl=60"]);
    assert!(key.starts_with("n/"), "{key}");
    let second = ctl(port, &["lock", "n", "echo", "second"]).spawn().unwrap();
    let third = ctl(port, &["lock", "n", "echo", "third"]).spawn().unwrap();
    wait_for(port, "n", 3);
    // One that is interrupted while it waits leaves nothing.
    let (fourth, before) = (ctl(port, &["lock", "n"]).spawn().unwrap(), 3);
    wait_for(port, "n", before + 1);
    assert_eq!(interrupt(fourth).code(), Some(0));
    assert_eq!(count(port, "n"), before);
    assert_eq!(interrupt(first).code(), Some(0));
    for (child, word) in [(second, "second\n"), (third, "third\n")] {
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), &output.stdout[..]),
            (Some(0), word.as_bytes()),
            "{}",
            shown(&output)
        );
    }
    assert_eq!(count(port, "n"), 0);
}

#[test]
fn pawlctl_takes_part_in_an_election_and_watches_one() {
    let (_cluster, port) = one();
    let (first, key) = begun(port, &["elect", "n", "anna"]);
    assert!(key.starts_with("n/"), "{key}");
    let key_of_first = key.clone();
    let mut listener = ctl(port, &["elect", "-l", "n", "-w", "simple"]).spawn().unwrap();
    let mut seen = BufReader::new(listener.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert_eq!((seen.next(), seen.next()), (Some(key), Some("anna".into())));
    // Each, however soon it is followed by the next.
    let mut leader = client(port);
    for value in ["1", "2", "3"] {
        leader.call(&["ELECTION", "PROCLAIM", &key_of_first, value]).unwrap();
    }
    for value in ["1", "2", "3"] {
        seen.next();
        assert_eq!(seen.next().as_deref(), Some(value));
    }
    let second = ctl(port, &["elect", "n", "bob"]).spawn().unwrap();
    wait_for(port, "n", 2);
    assert_eq!(interrupt(first).code(), Some(0));
    seen.next();
    assert_eq!(seen.next(), Some("bob".into()));
    assert_eq!(interrupt(listener).code(), Some(0));
    assert_eq!(interrupt(second).code(), Some(0));
    assert_eq!(count(port, "n"), 0);
}

/// In RESP2, over lines that a person might type: replies and pushes come in their order.
#[test]
fn an_election_is_observed_over_a_connection() {
    let (_cluster, port) = one();
    let mut owner = client(port);
    for lease in ["1", "2"] {
        owner.call(&["LEASE", "GRANT", "600", "ID", lease]).unwrap();
    }
    let mut observer = TcpStream::connect(("127.0.0.1", port)).unwrap();
    observer.set_read_timeout(Some(PATIENCE)).unwrap();
    observer.write_all(b"ELECTION OBSERVE n\nPING\n").unwrap();
    let mut lines = BufReader::new(observer.try_clone().unwrap()).lines().map(|line| line.unwrap());
    let mut next = |count: usize| lines.by_ref().take(count).collect::<Vec<_>>();
    assert_eq!(next(2), [":1", "+PONG"]);
    let mut told = |key: &str, value: &str| {
        let shown = next(14);
        assert_eq!((&shown[0][..], &shown[2][..], &shown[3][..]), ("*4", "leader", ":1"), "{shown:?}");
        assert_eq!((&shown[7][..], &shown[9][..]), (key, value), "{shown:?}");
    };
    owner.call(&["ELECTION", "CAMPAIGN", "n", "anna", "LEASE", "1"]).unwrap();
    told("n/1", "anna");
    for value in ["a", "b", "c"] {
        owner.call(&["ELECTION", "PROCLAIM", "n/1", value]).unwrap();
    }
    let mut waiter = TcpStream::connect(("127.0.0.1", port)).unwrap();
    waiter.write_all(&encode(&["ELECTION", "CAMPAIGN", "n", "bob", "LEASE", "2"])).unwrap();
    wait_for(port, "n", 2);
    owner.call(&["LEASE", "REVOKE", "1"]).unwrap();
    for (key, value) in [("n/1", "a"), ("n/1", "b"), ("n/1", "c"), ("n/2", "bob")] {
        told(key, value);
    }
    observer.write_all(b"UNWATCH 1\n").unwrap();
    owner.call(&["LEASE", "REVOKE", "2"]).unwrap();
    observer.write_all(b"ELECTION OBSERVE n ID 7\nWATCHPROGRESS\n").unwrap();
    let shown = next(3);
    assert_eq!(shown, ["+OK", ":7", "+OK"], "nothing of what it observes no longer, and nobody leads");
    assert_eq!(&next(4)[..4], ["*3", "$8", "progress", ":-1"]);
}

/// What etcdctl says, as well as can be known from its source.
#[test]
fn pawlctl_refuses_what_is_no_lock_and_no_election() {
    for (words, exit) in [
        (&["lock"][..], 128),
        (&["lock", "n", "--ttl", "x"], 1),
        (&["elect"], 128),
        (&["elect", "n"], 128),
        (&["elect", "n", "a", "b"], 128),
        (&["elect", "-l", "n", "a"], 128),
        (&["elect", "-l"], 128),
    ] {
        let output = run(PAWLD, &[&["ctl", "--endpoints", "127.0.0.1:1"], words].concat());
        assert_eq!(output.status.code(), Some(exit), "{words:?}: {}", shown(&output));
        assert!(output.stderr.starts_with(b"Error: "), "{words:?}: {}", shown(&output));
    }
}
