//! Disks without room, and one that may not be written: real servers on small file systems in memory.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time and on a real disk")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bad_input::{assert_refuses, everything, verify};
use crate::harness::{self, Cluster, EndAtDrop, Member, PATIENCE, Setup, pause, run_with, skip, until};
use crate::resp::{Client, Reply};

/// A small file system in memory, gone at the end. None where this process may not mount.
pub struct Mount {
    pub path: PathBuf,
}

impl Mount {
    pub fn new(path: &Path, options: &str) -> Option<Mount> {
        fs::create_dir_all(path).unwrap();
        let path = path.to_path_buf();
        let mounted = run_with(
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path),
            b"",
            PATIENCE,
        );
        mounted.status.success().then_some(Mount { path })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// The arguments with another data directory.
fn moved_to(member: &mut Member, dir: &Path) {
    let old = member.data_dir.display().to_string();
    for arg in &mut member.args {
        *arg = arg.replace(&old, &dir.display().to_string());
    }
    member.data_dir = dir.to_path_buf();
}

#[test]
fn a_read_only_directory_is_refused() {
    let mut cluster = Cluster::prepare(&Setup::single());
    if !harness::has("mount") {
        return skip("a read-only directory", "there is no mount command");
    }
    let Some(mount) = Mount::new(&cluster.path().join("read-only"), "size=1m,ro") else {
        return skip("a read-only directory", "this process may not mount");
    };
    let member = &mut cluster.members[0];
    moved_to(member, &mount.path.join("data"));
    assert_refuses(member, "a read-only file system", &["ead-only"]);
}

fn fill(path: &Path, bytes: Option<u64>) {
    let mut file = fs::File::create(path).unwrap();
    let block = vec![0; 64 << 10];
    let mut left = bytes.unwrap_or(u64::MAX);
    while left > 0 {
        if let Err(error) = file.write_all(&block) {
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
            assert_eq!(bytes, None, "there should have been room for the ballast");
            return;
        }
        left = left.saturating_sub(block.len() as u64);
    }
}

/// The disk fills up twice: below the reserve, and to the last byte. Puts are refused, everything else goes
/// on, and when there is room again puts are taken again, without any restart.
#[test]
fn a_full_disk_refuses_puts_and_recovers() {
    let mut cluster = Cluster::prepare(&Setup::single().flag("snapshot-count", 200));
    if !harness::has("mount") {
        return skip("a full disk", "there is no mount command");
    }
    let Some(mount) = Mount::new(&cluster.path().join("small"), "size=128m") else {
        return skip("a full disk", "this process may not mount");
    };
    let ballast = mount.path.join("ballast");
    moved_to(&mut cluster.members[0], &mount.path.join("data"));
    cluster.members[0].start();
    cluster.leader();
    let member = &mut cluster.members[0];
    let mut client = member.client();
    let mut expected = Vec::new();
    for (round, bytes) in [Some(85 << 20), None].into_iter().enumerate() {
        for n in 0..50 {
            let key = format!("key-{round}-{n}");
            assert!(!client.call(&["PUT", &key, &"z".repeat(1_000)]).unwrap().is_error());
            expected.push(key);
        }
        fill(&ballast, bytes);
        let mut taken = 0;
        let refusal = until("puts to be refused", PATIENCE, || {
            pause(20);
            let key = format!("full-{round}-{taken}");
            let reply = client.call(&["PUT", &key, "small"]).unwrap();
            if reply.is_error() {
                return Some(reply);
            }
            taken += 1;
            expected.push(key);
            None
        });
        assert_eq!(refusal.code(), Some("NOSPACE"), "{refusal:?}");
        // Long enough for checkpoints to be tried.
        for n in 0..60 {
            pause(100);
            assert!(member.is_running(), "the member died of a full disk\n{}", member.log_tail(20));
            let key = &expected[n % expected.len()];
            assert!(matches!(client.call(&["GET", key]).unwrap(), Reply::Bulk(_)), "{key} cannot be read");
        }
        let gone = expected.remove(round);
        let deleted = client.call(&["DEL", &gone]).unwrap();
        assert_eq!(deleted, Reply::Integer(1), "deletes make room, so they are taken");
        let refused = client.call(&["PUT", "still", "full"]).unwrap();
        assert_eq!(refused.code(), Some("NOSPACE"), "{refused:?}");
        fs::remove_file(&ballast).unwrap();
        until("puts to be taken again", PATIENCE, || {
            pause(20);
            (!client.call(&["PUT", "room", "again"]).unwrap().is_error()).then_some(())
        });
    }
    expected.push("room".into());
    // Killed, not stopped: what was acknowledged while the disk was full is in the log.
    member.kill();
    member.start();
    let found = everything(member);
    let mut found: Vec<String> =
        found.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    member.stop();
    drop(client);
    let (clean, said) = verify(member);
    assert!(clean, "{said}");
}

/// The disk is filled to the last byte under load, and what may still be written is written until nothing may: the
/// log never begins a segment that has no room. Nothing that was acknowledged is lost.
#[test]
fn a_disk_that_fills_under_load_ends_nobody() {
    let mut cluster = Cluster::prepare(&Setup::single().flag("snapshot-count", 500));
    if !harness::has("mount") {
        return skip("a disk that fills under load", "there is no mount command");
    }
    let Some(mount) = Mount::new(&cluster.path().join("small"), "size=160m") else {
        return skip("a disk that fills under load", "this process may not mount");
    };
    let ballast = mount.path.join("ballast");
    moved_to(&mut cluster.members[0], &mount.path.join("data"));
    cluster.members[0].start();
    cluster.leader();
    let member = &mut cluster.members[0];
    let port = member.client_port;
    let over = AtomicBool::new(false);
    let (written, in_doubt): (Vec<String>, Vec<String>) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|number| {
                let over = &over;
                scope.spawn(move || {
                    let mut client = Client::connect(port, PATIENCE).unwrap();
                    let (mut written, mut in_doubt) = (Vec::new(), Vec::new());
                    for serial in 0.. {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        let key = format!("load-{number}-{serial}");
                        let reply = client.call(&["PUT", &key, &"z".repeat(4_000)]).unwrap();
                        match reply.code() {
                            None => written.push(key),
                            Some("NOSPACE") => pause(1),
                            // It was taken, and there was no segment for it for too long.
                            Some("TIMEOUT") => in_doubt.push(key),
                            Some(_) => panic!("{reply:?}"),
                        }
                    }
                    (written, in_doubt)
                })
            })
            .collect();
        let _ended = EndAtDrop(&over);
        pause(100);
        fill(&ballast, None);
        // Deletes are taken as long as there is a segment for them: enough for several, unless old ones come back.
        let mut client = member.client();
        let more: Vec<Vec<String>> =
            (0..20).map(|_| vec!["PUT".into(), "more".into(), "z".repeat(4_000)]).collect();
        let deletes: Vec<Vec<&str>> = (0..100).map(|_| vec!["DEL", "nothing"]).collect();
        for _ in 0..400 {
            let replies = client.pipeline(&deletes).unwrap();
            let refused = |reply: &Reply| matches!(reply.code(), Some("NOSPACE" | "TIMEOUT"));
            assert!(replies.iter().all(|reply| !reply.is_error() || refused(reply)), "{replies:?}");
            if replies.iter().any(refused) {
                break;
            }
        }
        for _ in 0..30 {
            pause(100);
            assert!(member.is_running(), "the member died of a full disk\n{}", member.log_tail(20));
            assert!(!client.call(&["GET", "load-0-0"]).unwrap().is_error());
            // Together more than a segment.
            for reply in client.pipeline(&more).unwrap() {
                assert_eq!(reply.code(), Some("NOSPACE"), "{reply:?}");
            }
        }
        fs::remove_file(&ballast).unwrap();
        until("puts to be taken again", PATIENCE, || {
            pause(20);
            (!client.call(&["PUT", "room", "again"]).unwrap().is_error()).then_some(())
        });
        pause(100);
        over.store(true, Ordering::Relaxed);
        let all: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        let (written, in_doubt): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        (written.concat(), in_doubt.concat())
    });
    member.kill();
    member.start();
    let found = everything(member);
    let mut found: BTreeSet<Vec<u8>> = found.kvs.into_iter().map(|kv| kv.key).collect();
    for key in written.iter().map(String::as_str).chain(["room"]) {
        assert!(found.remove(key.as_bytes()), "{key} is lost");
    }
    for key in in_doubt {
        found.remove(key.as_bytes());
    }
    assert!(found.is_empty(), "refused, and there: {found:?}");
    member.stop();
    let (clean, said) = verify(member);
    assert!(clean, "{said}");
}

/// One follower's disk is full while the others go on: it stays, answers what it can, has no room for the
/// snapshot that it needs in the end, and catches up when there is room.
#[test]
fn a_follower_without_room_waits_for_it() {
    let setup = Setup::default().flag("snapshot-count", 200).flag("snapshot-catchup-entries", 100);
    let mut cluster = Cluster::prepare(&setup);
    if !harness::has("mount") {
        return skip("a follower without room", "there is no mount command");
    }
    let Some(mount) = Mount::new(&cluster.path().join("small"), "size=160m") else {
        return skip("a follower without room", "this process may not mount");
    };
    let ballast = mount.path.join("ballast");
    moved_to(&mut cluster.members[0], &mount.path.join("data"));
    cluster.start_all();
    if cluster.leader() == 0 {
        cluster.members[0].stop();
        cluster.members[0].start();
    }
    let leader = cluster.leader();
    cluster.put("before", "it");
    cluster.settle();
    fill(&ballast, None);
    // In memory the leader keeps some 16 MB of entries: with more than that behind it, only a snapshot helps.
    let mut client = cluster.members[leader].client();
    let puts: Vec<Vec<String>> =
        (0..200).map(|n| vec!["PUT".into(), format!("key-{n}"), "z".repeat(4_000)]).collect();
    for _ in 0..30 {
        assert!(client.pipeline(&puts).unwrap().iter().all(|reply| !reply.is_error()));
    }
    let mut old = cluster.members[0].client();
    until("the follower to refuse puts", PATIENCE, || {
        pause(20);
        (old.call(&["PUT", "at", "it"]).unwrap().code() == Some("NOSPACE")).then_some(())
    });
    for _ in 0..20 {
        pause(50);
        let member = &mut cluster.members[0];
        assert!(member.is_running(), "it died of a full disk\n{}", member.log_tail(20));
        assert_eq!(old.call(&["GET", "before", "SERIALIZABLE"]).unwrap().bulk(), b"it");
        assert_eq!(old.call(&["PUT", "at", "it"]).unwrap().code(), Some("NOSPACE"));
    }
    until("a snapshot to be given up", PATIENCE, || {
        let log = cluster.members[0].log();
        log.lines().any(|line| line.contains("is given up: ") && line.contains("No space left")).then_some(())
    });
    fs::remove_file(&ballast).unwrap();
    cluster.settle();
    cluster.stop_all();
    cluster.check_stopped();
}

/// The leader's disk is full and the followers' are not. Whoever writes is told NOSPACE, at every member alike, and may
/// write again when there is room.
#[test]
fn a_leader_without_room_says_so_through_every_member() {
    // No other member shall lead because the machine is busy.
    let setup = Setup { election_ms: 5_000, ..Setup::default() };
    let mut cluster = Cluster::prepare(&setup.flag("snapshot-count", 200));
    if !harness::has("mount") {
        return skip("a leader without room", "there is no mount command");
    }
    let Some(mount) = Mount::new(&cluster.path().join("small"), "size=160m") else {
        return skip("a leader without room", "this process may not mount");
    };
    let ballast = mount.path.join("ballast");
    moved_to(&mut cluster.members[0], &mount.path.join("data"));
    cluster.start_all();
    cluster.lead(0);
    let mut clients = [0, 1, 2].map(|at| cluster.members[at].client());
    for (at, client) in clients.iter_mut().enumerate() {
        assert!(!client.call(&["PUT", &format!("before-{at}"), "it"]).unwrap().is_error());
    }
    // First below the reserve, then to the last byte: until not even the log has room.
    for bytes in [Some(110 << 20), None] {
        fill(&ballast, bytes);
        for (at, client) in clients.iter_mut().enumerate() {
            let refusal = until("puts to be refused", PATIENCE, || {
                pause(20);
                let reply = client.call(&["PUT", "full", "small"]).unwrap();
                reply.is_error().then_some(reply)
            });
            assert_eq!(refusal.code(), Some("NOSPACE"), "at member {at}: {refusal:?}");
            assert_eq!(client.call(&["GET", "before-0"]).unwrap().bulk(), b"it");
        }
    }
    for _ in 0..400 {
        let deletes: Vec<Vec<&str>> = (0..100).map(|_| vec!["DEL", "nothing"]).collect();
        let replies = clients[1].pipeline(&deletes).unwrap();
        let refusal = replies.iter().find(|reply| reply.is_error());
        if let Some(refusal) = refusal {
            assert!(matches!(refusal.code(), Some("NOSPACE" | "TIMEOUT")), "{refusal:?}");
            break;
        }
    }
    for client in &mut clients {
        let refusal = client.call(&["PUT", "still", "full"]).unwrap();
        assert_eq!(refusal.code(), Some("NOSPACE"), "{refusal:?}");
    }
    fs::remove_file(&ballast).unwrap();
    for client in &mut clients {
        until("puts to be taken again", PATIENCE, || {
            pause(20);
            (!client.call(&["PUT", "room", "again"]).unwrap().is_error()).then_some(())
        });
    }
    cluster.settle();
    cluster.stop_all();
    cluster.check_stopped();
}
