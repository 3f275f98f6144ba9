//! Clean stops: of the leader under load, of everybody, and what is there afterwards.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Cluster, PATIENCE, Setup, pause, say};
use crate::resp::{Client, RangeReply, Reply, unsigned};

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

/// What a client of the stopping member itself sees: answers, then perhaps SHUTDOWN, then the end. Whatever
/// was acknowledged is there.
#[test]
fn a_stopping_member_answers_what_it_took() {
    let mut cluster = Cluster::start(&Setup::default());
    let leader = cluster.leader();
    let port = cluster.members[leader].client_port;
    let acknowledged: Vec<(String, u64)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|number| {
                scope.spawn(move || {
                    let mut client = Client::connect(port, PATIENCE).unwrap();
                    let mut acknowledged = Vec::new();
                    for serial in 0.. {
                        let key = format!("k-{number}-{serial}");
                        match client.call(&["PUT", &key, "v"]) {
                            Ok(Reply::Integer(revision)) => acknowledged.push((key, revision as u64)),
                            Ok(reply) => {
                                assert!(matches!(reply.code(), Some("SHUTDOWN" | "NOLEADER")), "{reply:?}");
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        pause(300);
        cluster.members[leader].stop();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(acknowledged.len() > 20, "only {} writes in 300 ms", acknowledged.len());
    let survivor = cluster.leader();
    let mut client = cluster.members[survivor].client();
    for (key, revision) in &acknowledged {
        let found = RangeReply::parse(&client.call(&["RANGE", key]).unwrap());
        assert_eq!(found.kvs.first().map(|kv| kv.modified), Some(*revision), "{key}");
    }
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

/// A second signal, or a member without anybody to hand over to, does not hang.
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
