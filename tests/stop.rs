//! Clean stops: of the leader under load, of everybody, and what is there afterwards.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Cluster, EndAtDrop, Member, PATIENCE, Setup, pause, say, until};
use crate::resp::{Client, RangeReply, Reply, encode, unsigned};

/// What one client of a member that stays saw.
struct Seen {
    writes: u64,
    longest_gap: Duration,
    failures: Vec<String>,
}

/// Writes and reads, one at a time, until told to stop.
fn keep_writing(port: u16, name: &str, over: &AtomicBool) -> Seen {
    let mut client = Client::connect(port, PATIENCE).unwrap();
    let mut seen = Seen { writes: 0, longest_gap: Duration::ZERO, failures: Vec::new() };
    let mut last_answer = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let value = seen.writes.to_string();
        match client.call(&["PUT", name, &value]) {
            Ok(Reply::Integer(_)) => seen.writes += 1,
            other => seen.failures.push(format!("PUT: {other:?}")),
        }
        let now = Instant::now();
        seen.longest_gap = seen.longest_gap.max(now - last_answer);
        last_answer = now;
        match client.call(&["GET", name]) {
            Ok(Reply::Bulk(found)) if found == value.as_bytes() => {}
            other => seen.failures.push(format!("GET after PUT {value}: {other:?}")),
        }
        if !seen.failures.is_empty() {
            break;
        }
    }
    seen
}

/// The default timers of the product, and a leader that is asked to stop while both other members serve.
#[test]
fn sigterm_of_the_leader_fails_no_request_elsewhere() {
    let setup = Setup { heartbeat_ms: 100, election_ms: 1_000, ..Setup::default() };
    let mut cluster = Cluster::start(&setup);
    let mut longest = Duration::ZERO;
    let mut writes = 0;
    for round in 0..3 {
        let leader = cluster.leader();
        let over = AtomicBool::new(false);
        let others: Vec<u16> =
            (0..3).filter(|&at| at != leader).map(|at| cluster.members[at].client_port).collect();
        let seen: Vec<Seen> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|number| {
                    let (over, port) = (&over, others[number % 2]);
                    scope.spawn(move || keep_writing(port, &format!("client-{round}-{number}"), over))
                })
                .collect();
            pause(400);
            let stopping = Instant::now();
            cluster.members[leader].signal(Signal::TERM);
            let status = cluster.members[leader].wait_exit(PATIENCE);
            let took = stopping.elapsed();
            pause(400);
            over.store(true, Ordering::Relaxed);
            assert_eq!(status.code(), Some(0), "{status}\n{}", cluster.members[leader].log_tail(30));
            assert!(took < Duration::from_secs(5), "a clean stop took {took:?}");
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        assert_ne!(cluster.leader(), leader, "a stopped member leads nothing");
        for seen in &seen {
            assert!(seen.failures.is_empty(), "round {round}: {:?}", seen.failures);
            assert!(seen.writes > 10, "round {round}: only {} writes in 800 ms", seen.writes);
            longest = longest.max(seen.longest_gap);
            writes += seen.writes;
        }
        cluster.members[leader].start();
        cluster.leader();
        cluster.settle();
    }
    assert!(longest < Duration::from_secs(2), "writes stood still for {longest:?}");
    say(&format!(
        "stop of the leader: longest write gap {longest:?} in 3 stops, {writes} writes, none failed"
    ));
    cluster.stop_all();
    cluster.check_stopped();
}

/// How a client treats its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Looks whether it is still good before each request, as pools do.
    Looks,
    /// Sends whatever happens.
    Blind,
    /// Sends so many puts at once, blindly.
    Pipelines(usize),
}

/// What became of one put.
#[derive(Debug)]
enum Fate {
    Done(u64),
    /// An error that promises that nothing happened.
    Refused(String),
    /// Behind a goodbye on the same connection: nothing happened.
    BehindGoodbye,
    Unknown(String),
}

/// Puts keys of its own, at the first port as long as that serves, until told to stop.
fn put_until(over: &AtomicBool, ports: &[u16], name: &str, manner: Manner) -> Vec<(String, Fate)> {
    let mut ports = ports.iter().cycle();
    let mut open: Option<Client> = None;
    let mut fates = Vec::new();
    while !over.load(Ordering::Relaxed) {
        if manner == Manner::Looks && open.as_ref().is_some_and(Client::is_stale) {
            open = None;
        }
        let Some(client) = &mut open else {
            open = Client::connect(*ports.next().expect("endless"), PATIENCE).ok();
            continue;
        };
        let count = if let Manner::Pipelines(count) = manner { count } else { 1 };
        let keys: Vec<String> = (0..count).map(|n| format!("{name}-{}", fates.len() + n)).collect();
        let bytes: Vec<u8> = keys.iter().flat_map(|key| encode(&["PUT", key, "v"])).collect();
        let sent = client.send_raw(&bytes);
        let mut over_here = false;
        for key in keys {
            let fate = match if sent.is_ok() { client.receive() } else { Ok(Reply::Null) } {
                Ok(Reply::Integer(revision)) => Fate::Done(revision as u64),
                _ if over_here => Fate::BehindGoodbye,
                Ok(reply) if matches!(reply.code(), Some("SHUTDOWN" | "NOLEADER" | "BUSY")) => {
                    over_here = reply.code() == Some("SHUTDOWN");
                    Fate::Refused(reply.text())
                }
                other => {
                    over_here = true;
                    Fate::Unknown(format!("{other:?} after {sent:?}"))
                }
            };
            fates.push((key, fate));
        }
        if over_here {
            open = None;
        }
    }
    fates
}

/// Clients of the leader that stops, and of the others: each request is answered, or refused with a word that says
/// that nothing happened; a client that looks at its connection sees no failure at all. And it is true.
#[test]
fn sigterm_of_the_leader_leaves_no_request_in_doubt() {
    const CLIENTS: [Manner; 6] =
        [Manner::Looks, Manner::Looks, Manner::Looks, Manner::Blind, Manner::Blind, Manner::Pipelines(16)];
    let mut cluster = Cluster::start(&Setup::default());
    let (mut done, mut refused, mut failed) = (0, 0, Vec::new());
    for round in 0..10 {
        let leader = cluster.leader();
        let at_leader = cluster.members[leader].client_port;
        let others: Vec<u16> =
            (0..3).filter(|&at| at != leader).map(|at| cluster.members[at].client_port).collect();
        let over = AtomicBool::new(false);
        let mut idle = cluster.members[leader].client();
        let fates: Vec<(Manner, String, Fate)> = std::thread::scope(|scope| {
            let clients: Vec<_> = CLIENTS
                .into_iter()
                .chain([Manner::Looks; 2])
                .enumerate()
                .map(|(number, manner)| {
                    let first = if number < CLIENTS.len() { at_leader } else { others[number % 2] };
                    let (over, ports) = (&over, [&[first], &others[..]].concat());
                    let name = format!("{round}-{number}");
                    scope.spawn(move || {
                        let fates = put_until(over, &ports, &name, manner);
                        fates.into_iter().map(move |(key, fate)| (manner, key, fate)).collect::<Vec<_>>()
                    })
                })
                .collect();
            pause(200);
            cluster.members[leader].stop();
            pause(50);
            over.store(true, Ordering::Relaxed);
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        });
        let goodbye = String::from_utf8(idle.read_to_end().unwrap()).unwrap();
        assert!(goodbye.starts_with("-SHUTDOWN ") && goodbye.lines().count() == 1, "{goodbye:?}");
        let mut client = cluster.members[(leader + 1) % 3].client();
        let all = client.call(&["RANGE", &format!("{round}-"), "PREFIX", "KEYS"]).unwrap();
        let all: BTreeMap<Vec<u8>, u64> =
            RangeReply::parse(&all).kvs.into_iter().map(|kv| (kv.key, kv.modified)).collect();
        for (manner, key, fate) in fates {
            let found = all.get(key.as_bytes()).copied();
            match fate {
                Fate::Done(revision) => {
                    done += 1;
                    assert_eq!(found, Some(revision), "{key}");
                }
                Fate::Unknown(what) => failed.push(format!("{manner:?} {key}: {what}")),
                Fate::Refused(what) if manner == Manner::Looks => failed.push(format!("{key}: {what}")),
                Fate::Refused(_) | Fate::BehindGoodbye => {
                    refused += 1;
                    assert_eq!(found, None, "{key} was refused and is there");
                }
            }
        }
        cluster.members[leader].start();
        cluster.agree(0);
    }
    assert!(failed.is_empty(), "{} of {done} failed: {failed:#?}", failed.len());
    say(&format!("10 stops of the leader: {done} puts done, {refused} refused, none in doubt"));
    cluster.stop_all();
    cluster.check_stopped();
}

/// Puts keys of its own until told to stop, at any member, and tries another one wherever that is safe: where it
/// cannot connect, and where the answer promises that nothing happened. The keys, and how often it tried again.
fn put_surely(over: &AtomicBool, ports: &[u16], name: &str) -> (Vec<(String, u64)>, u64) {
    let mut ports = ports.iter().cycle();
    let mut open: Option<Client> = None;
    let (mut done, mut again) = (Vec::new(), 0);
    while !over.load(Ordering::Relaxed) {
        let Some(client) = open.as_mut().filter(|client| !client.is_stale()) else {
            open = Client::connect(*ports.next().expect("endless"), PATIENCE).ok();
            continue;
        };
        let key = format!("{name}-{}", done.len());
        match client.call(&["PUT", &key, "v"]) {
            Ok(Reply::Integer(revision)) => done.push((key, revision.cast_unsigned())),
            Ok(reply) if matches!(reply.code(), Some("SHUTDOWN" | "NOLEADER" | "BUSY" | "LOADING")) => {
                (open, again) = (None, again + 1);
            }
            other => panic!("{key}: {other:?}"),
        }
    }
    (done, again)
}

/// Every member in turn is told to stop and started again, while clients write: not one request fails.
#[test]
fn a_rolling_restart_fails_no_request() {
    let mut cluster = Cluster::start(&Setup::default());
    let ports: Vec<u16> = cluster.members.iter().map(|member| member.client_port).collect();
    let over = AtomicBool::new(false);
    let done: Vec<(Vec<(String, u64)>, u64)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|number| {
                let (over, mut ports) = (&over, ports.clone());
                ports.rotate_left(number % 3);
                scope.spawn(move || put_surely(over, &ports, &format!("client-{number}")))
            })
            .collect();
        let _guard = EndAtDrop(&over);
        for at in [0, 1, 2, 0, 1, 2] {
            cluster.members[at].stop();
            cluster.members[at].start();
            let caught_up = unsigned(cluster.members[(at + 1) % 3].status().unwrap().field("revision"));
            until("the member to be healthy", PATIENCE, || {
                cluster.members[at].revision().filter(|revision| *revision >= caught_up)
            });
            cluster.leader();
        }
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let again: u64 = done.iter().map(|(_, again)| again).sum();
    let done: Vec<(String, u64)> = done.into_iter().flat_map(|(done, _)| done).collect();
    let all = cluster.members[0].client().call(&["RANGE", "client-", "PREFIX", "KEYS"]).unwrap();
    let all: BTreeMap<Vec<u8>, u64> =
        RangeReply::parse(&all).kvs.into_iter().map(|kv| (kv.key, kv.modified)).collect();
    assert_eq!(all.len(), done.len(), "no key more");
    for (key, revision) in &done {
        assert_eq!(all.get(key.as_bytes()), Some(revision), "{key}");
    }
    say(&format!(
        "rolling restart, twice: {} puts done, {again} of them at the second try, none failed",
        done.len()
    ));
    cluster.stop_all();
    cluster.check_stopped();
}

/// Requests that are under way when nobody is left to answer them, and half a request.
#[test]
fn a_stop_without_a_quorum_says_what_is_known() {
    let mut cluster = Cluster::start(&Setup::default());
    let leader = cluster.leader();
    for at in (0..3).filter(|&at| at != leader) {
        cluster.members[at].kill();
    }
    let mut clients = [(); 3].map(|()| cluster.members[leader].client());
    clients[0].send_raw(&encode(&["PUT", "a", "1"])).unwrap();
    // The lease ends before the leader gives up its office.
    pause(350);
    clients[1].send_raw(&encode(&["GET", "a"])).unwrap();
    clients[2].send_raw(b"*3\r\n$3\r\nPUT\r\n$1\r\nb\r\n").unwrap();
    pause(50);
    cluster.members[leader].stop();
    let said = clients.each_mut().map(|client| String::from_utf8(client.read_to_end().unwrap()).unwrap());
    let codes: Vec<Vec<&str>> = said
        .iter()
        .map(|said| said.lines().map(|line| line.split(' ').next().unwrap_or_default()).collect())
        .collect();
    assert_eq!(codes, [vec!["-TIMEOUT", "-SHUTDOWN"], vec!["-NOLEADER", "-SHUTDOWN"], vec!["-SHUTDOWN"]]);
}

/// All members stop at once and start again: the same content at the same revision, and writing goes on.
#[test]
fn a_stopped_cluster_starts_where_it_was() {
    let mut cluster = Cluster::start(&Setup::default());
    let mut client = cluster.members[0].client();
    let commands: Vec<Vec<String>> =
        (0..500).map(|n| vec!["PUT".into(), format!("key-{}", n % 50), format!("value-{n}")]).collect();
    for reply in client.pipeline(&commands).unwrap() {
        assert!(!reply.is_error(), "{reply:?}");
    }
    client.call(&["DEL", "key-7"]).unwrap();
    let last = cluster.settle();
    let everything = |cluster: &Cluster, at: usize| {
        let mut client = cluster.members[at].client();
        RangeReply::parse(&client.call(&["RANGE", "", "PREFIX"]).unwrap())
    };
    let before = everything(&cluster, 1);
    assert_eq!((before.revision, before.count), (last, 50), "49 keys and the settling one");
    for round in 0..2 {
        cluster.stop_all();
        cluster.check_stopped();
        cluster.start_all();
        cluster.leader();
        for at in 0..3 {
            assert_eq!(everything(&cluster, at), before, "member {at} after stop {round}");
        }
    }
    let mut client = cluster.members[2].client();
    let reply = client.call(&["PUT", "key-7", "again"]).unwrap();
    assert_eq!(unsigned(&reply), last + 1, "a restart makes no revision");
}

/// Control-C at a terminal is as clean a stop as SIGTERM.
#[test]
fn sigint_stops_a_member_as_sigterm_does() {
    let mut cluster = Cluster::start(&Setup::single());
    cluster.put("a", "1");
    cluster.members[0].signal(Signal::INT);
    let status = cluster.members[0].wait_exit(PATIENCE);
    assert_eq!(status.code(), Some(0), "{status}\n{}", cluster.members[0].log_tail(30));
    cluster.check_stopped();
}

/// A member without anybody to hand over to does not hang.
#[test]
fn a_lone_member_stops_at_once() {
    let mut cluster = Cluster::start(&Setup::single());
    cluster.put("a", "1");
    let began = Instant::now();
    cluster.members[0].stop();
    assert!(began.elapsed() < Duration::from_secs(3), "took {:?}", began.elapsed());
    cluster.check_stopped();

    // The last one of three that is still up: nobody can take over, and nobody needs to.
    let mut cluster = Cluster::start(&Setup::default());
    let leader = cluster.leader();
    for at in (0..3).filter(|&at| at != leader) {
        cluster.members[at].kill();
    }
    let began = Instant::now();
    cluster.members[leader].stop();
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
}

const STOPPING: &str = "a signal to stop";

fn wait_for_line(member: &Member, words: &str) {
    until(&format!("{} to say: {words}", member.name), PATIENCE, || {
        member.log().contains(words).then_some(())
    });
}

/// `timeout` and supervisors signal the process and its group, wrappers pass on what the terminal has sent already.
#[test]
fn signals_that_follow_at_once_are_the_same_request() {
    let mut cluster = Cluster::start(&Setup::default());
    let leader = cluster.leader();
    let member = &mut cluster.members[leader];
    let mut idle = member.client();
    assert_eq!(idle.call(&["PING"]).unwrap().text(), "PONG");
    let began = Instant::now();
    member.signal(Signal::TERM);
    wait_for_line(member, STOPPING);
    member.signal(Signal::INT);
    member.signal(Signal::TERM);
    let late = began.elapsed() > Duration::from_millis(500);
    let status = member.wait_exit(PATIENCE);
    if late {
        // On a machine that stands still for so long they may count as another request.
        return say("signals that follow at once: this machine was too slow for them");
    }
    assert_eq!(status.code(), Some(0), "{status}\n{}", member.log_tail(20));
    let goodbye = String::from_utf8(idle.read_to_end().unwrap()).unwrap();
    assert!(goodbye.starts_with("-SHUTDOWN "), "{goodbye:?}");
    assert_ne!(cluster.leader(), leader);
}

/// A request that nobody is left to answer makes the stop a long one; a signal after the first second ends it.
#[test]
fn a_later_signal_ends_the_process() {
    let mut cluster = Cluster::start(&Setup::default());
    let leader = cluster.leader();
    for at in (0..3).filter(|&at| at != leader) {
        cluster.members[at].kill();
    }
    let member = &mut cluster.members[leader];
    let mut client = member.client();
    client.send_raw(&encode(&["PUT", "a", "1"])).unwrap();
    pause(50);
    member.signal(Signal::TERM);
    wait_for_line(member, STOPPING);
    // It stands still meanwhile: so it cannot have come to its end before the second signal.
    member.signal(Signal::STOP);
    pause(1_100);
    member.signal(Signal::TERM);
    member.signal(Signal::CONT);
    let status = member.wait_exit(PATIENCE);
    assert_eq!(status.code(), Some(1), "{status}\n{}", member.log_tail(20));
    wait_for_line(member, "ending at once");
}

/// A member that is to join, and asks others that take its question and do not answer.
#[test]
fn a_member_that_looks_for_its_cluster_can_be_stopped() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut cluster = Cluster::prepare(&Setup::single());
        let member = &mut cluster.members[0];
        let silent = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = silent.local_addr().unwrap().port();
        let others: Vec<String> = (1..=5).map(|host| format!(",n2=http://127.0.0.{host}:{port}")).collect();
        for arg in &mut member.args {
            if arg.starts_with("--initial-cluster=") {
                arg.push_str(&others.concat());
            }
            *arg = arg.replace("-state=new", "-state=existing");
        }
        member.start();
        let asked = silent.accept().unwrap();
        member.signal(signal);
        let status = member.wait_exit(PATIENCE);
        assert_eq!(status.code(), Some(0), "{signal:?}: {status}\n{}", member.log_tail(20));
        assert!(!member.tree().exists(), "nothing was made");
        drop(asked);
    }
}
