//! A member that was away for longer than the others keep their log comes back by a snapshot, while writes
//! go on; also when it is killed in the middle of receiving it.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Member, PATIENCE, Setup, pause, say, until};
use crate::resp::{Client, RangeReply, unsigned};

/// Segments of 256 KiB, 100 entries behind the applied index, a checkpoint every 500: the log on disk is short.
/// In memory the leader keeps some 16 MB of entries, so more than that is written while a member is away.
fn setup() -> Setup {
    Setup { segment_bytes: 256 << 10, ..Setup::default() }
        .flag("snapshot-count", 500)
        .flag("snapshot-catchup-entries", 100)
}

/// Writes `rounds` pipelines of 100 values of 4 kB each.
fn write_much(member: &Member, rounds: u64, tag: &str) {
    let mut client = member.client();
    let value = "x".repeat(4_000);
    for round in 0..rounds {
        let command = |n: u64| vec!["PUT".to_owned(), format!("{tag}-{round}-{n}"), format!("{n}-{value}")];
        let commands: Vec<Vec<String>> = (0..100).map(command).collect();
        for reply in client.pipeline(&commands).unwrap() {
            assert!(!reply.is_error(), "{reply:?}");
        }
    }
}

/// Pipelines of `write_much` that are more than the leader's memory of entries: 24 MB.
const MUCH: u64 = 60;

/// The members that are up no longer hold the entries that `applied` needs next.
fn wait_until_released(cluster: &Cluster, up: &[usize], applied: u64) {
    until("the log to be released past the member that is away", PATIENCE, || {
        up.iter()
            .all(|&at| cluster.members[at].segments().first().is_some_and(|(_, first)| *first > applied + 1))
            .then_some(())
    });
}

fn applied(member: &Member) -> u64 {
    let status = until("STATUS", PATIENCE, || member.status());
    unsigned(status.field("applied_index"))
}

/// Writes go on while `body` runs; how many there were.
fn with_writes_going_on<T>(
    cluster: &mut Cluster,
    via: usize,
    body: impl FnOnce(&mut Cluster) -> T,
) -> (T, u64) {
    let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let port = cluster.members[via].client_port;
    let result = std::thread::scope(|scope| {
        let (over, count) = (&over, &count);
        let writer = scope.spawn(move || {
            let mut client = Client::connect(port, PATIENCE).unwrap();
            while !over.load(Ordering::Relaxed) {
                let serial = count.fetch_add(1, Ordering::Relaxed).to_string();
                let reply = client.call(&["PUT", "running", &serial]).unwrap();
                assert!(!reply.is_error(), "a write during the transfer: {reply:?}");
                pause(1);
            }
        });
        // A panic in the body must not leave the writer running for ever.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(cluster)));
        over.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        result
    });
    match result {
        Ok(result) => (result, count.into_inner()),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn wait_until_caught_up(cluster: &Cluster, at: usize, revision: u64) -> Duration {
    let began = Instant::now();
    until("the member to catch up", PATIENCE, || {
        cluster.members[at].revision().filter(|found| *found >= revision)
    });
    began.elapsed()
}

/// The three contents are the same, online and offline, and the member that was away serves.
fn end_well(cluster: &mut Cluster, away: usize) {
    let revision = cluster.settle();
    let contents: Vec<RangeReply> = (0..3)
        .map(|at| {
            let mut client = cluster.members[at].client();
            let command = format!("RANGE  PREFIX REV {revision} KEYS SERIALIZABLE");
            RangeReply::parse(&client.call(&command.split(' ').collect::<Vec<_>>()).unwrap())
        })
        .collect();
    assert!(contents[0].count > 1_000, "there is something to compare");
    assert!(contents.iter().all(|found| *found == contents[0]), "the members' contents differ");
    let mut client = cluster.members[away].client();
    let put = unsigned(&client.call(&["PUT", "back", "again"]).unwrap());
    assert_eq!(put, revision + 1);
    assert_eq!(client.call(&["GET", "back"]).unwrap().bulk(), b"again");
    cluster.settle();
    cluster.stop_all();
    cluster.check_stopped();
}

#[test]
fn a_member_behind_the_log_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::start(&setup());
    let leader = cluster.leader();
    let away = (leader + 1) % 3;
    let up: Vec<usize> = (0..3).filter(|&at| at != away).collect();
    write_much(&cluster.members[leader], 2, "before");
    cluster.settle();
    let left_at = applied(&cluster.members[away]);
    cluster.members[away].kill();
    write_much(&cluster.members[leader], MUCH, "away");
    wait_until_released(&cluster, &up, left_at);
    let target = until("a revision", PATIENCE, || cluster.members[leader].revision());
    let (took, writes) = with_writes_going_on(&mut cluster, leader, |cluster| {
        cluster.members[away].start();
        wait_until_caught_up(cluster, away, target)
    });
    let log = cluster.members[away].log();
    assert!(log.contains("installed the snapshot"), "the member caught up in another way");
    say(&format!("lag: caught up by a snapshot of 24 MB in {took:.1?} while {writes} writes went on"));
    end_well(&mut cluster, away);
}

#[test]
fn a_member_killed_while_it_receives_starts_over() {
    let mut cluster = Cluster::start(&setup());
    let leader = cluster.leader();
    let away = (leader + 1) % 3;
    let up: Vec<usize> = (0..3).filter(|&at| at != away).collect();
    cluster.settle();
    let left_at = applied(&cluster.members[away]);
    cluster.members[away].kill();
    write_much(&cluster.members[leader], MUCH, "away");
    wait_until_released(&cluster, &up, left_at);
    let target = until("a revision", PATIENCE, || cluster.members[leader].revision());
    let (killed, _) = with_writes_going_on(&mut cluster, leader, |cluster| {
        let again = |attempt: &u64| kill_while_receiving(&mut cluster.members[away], attempt * 40, target);
        let killed = (0..4).take_while(again).count();
        cluster.members[away].start();
        wait_until_caught_up(cluster, away, target);
        killed
    });
    say(&format!("lag: killed {killed} times while receiving a snapshot of 24 MB"));
    assert!(killed > 0, "the member was always faster");
    end_well(&mut cluster, away);
    let left: Vec<_> = std::fs::read_dir(cluster.members[away].data_dir.join("member"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["lock", "lease", "tree", "wal"].contains(&name.as_str()))
        .collect();
    assert!(left.is_empty(), "parts of snapshots were left behind: {left:?}");
}

/// Starts the member and kills it `after_ms` after a snapshot began to arrive. Whether that was before it was
/// installed: false too when none came, as the one before was installed and the log did not tell yet when it was killed.
fn kill_while_receiving(member: &mut Member, after_ms: u64, target: u64) -> bool {
    let before = member.log().len();
    member.start();
    let arrives = until("a snapshot to arrive, or the member to need none", PATIENCE, || {
        if member.log()[before..].contains("receiving a snapshot") {
            return Some(true);
        }
        member.revision().filter(|found| *found >= target).map(|_| false)
    });
    if arrives {
        pause(after_ms);
    }
    member.kill();
    arrives && !member.log()[before..].contains("installed the snapshot")
}
