//! Watches of real members: told over sockets, gone on with elsewhere, held back from clients that take nothing.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time and on a real disk")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Member, PATIENCE, PAWLD, Setup, ended, pause, until};
use crate::resp::{Client, Reply, encode, unsigned};

/// A push of events: revision, and of each event the kind, key, value and the value before.
type Told = (u64, Vec<(String, String, String, String)>);

fn text(reply: &Reply) -> String {
    if *reply == Reply::Null { "(nil)".into() } else { reply.text() }
}

fn told(push: &Reply) -> Told {
    let parts = push.array();
    assert_eq!(parts[0].text(), "watch", "{push:?}");
    let event = |event: &Reply| {
        let [kind, kv, before] = event.array() else { panic!("an event has three parts: {event:?}") };
        let value = |kv: &Reply| if *kv == Reply::Null { "(nil)".into() } else { text(&kv.array()[1]) };
        (kind.text(), kv.array()[0].text(), value(kv), value(before))
    };
    (unsigned(&parts[2]), parts[3].array().iter().map(event).collect())
}

fn call(client: &mut Client, line: &str) -> Reply {
    client.call(&line.split(' ').collect::<Vec<_>>()).unwrap()
}

fn assert_refused(client: &mut Client, line: &str, what: &str) {
    let reply = call(client, line);
    assert_eq!(reply.code(), Some("ERR"), "{line}: {reply:?}");
    assert!(reply.text().contains(what), "{line}: {reply:?}");
}

#[test]
fn a_watch_goes_on_at_another_member() {
    let mut cluster = Cluster::start(&Setup::default());
    let mut expected = vec![(cluster.put("k/0", "first"), "first".to_string())];
    let mut seen = 0;
    for round in 0..6 {
        let at = round % 3;
        let mut watcher = cluster.members[at].client();
        let next = if seen == 0 { 1 } else { expected[seen - 1].0 + 1 };
        assert_eq!(call(&mut watcher, &format!("WATCH k/ PREFIX PREV REV {next}")), Reply::Integer(1));
        for number in 0..20 {
            let value = format!("{round}-{number}");
            expected.push((cluster.put("k/0", &value), value));
        }
        // The rest of a round is told to the next one.
        for _ in 0..15 {
            let (revision, events) = told(&watcher.receive().unwrap());
            let before = if seen == 0 { "(nil)" } else { &expected[seen - 1].1 };
            let (wanted, value) = &expected[seen];
            let event = ("PUT".to_string(), "k/0".to_string(), value.clone(), before.to_string());
            assert_eq!((revision, events), (*wanted, vec![event]));
            seen += 1;
        }
        cluster.members[at].kill();
        cluster.members[at].start();
        cluster.settle();
    }
}

#[test]
fn all_of_a_deletion_is_told_in_one_piece() {
    let cluster = Cluster::start(&Setup::single());
    let mut client = cluster.members[0].client();
    for key in ["a", "b", "c"] {
        call(&mut client, &format!("PUT {key} {key}-value"));
    }
    let mut watcher = cluster.members[0].client();
    call(&mut watcher, "WATCH a TO c PREV NOPUT");
    call(&mut client, "PUT a new");
    call(&mut client, "DEL a FROM");
    let gone =
        |key: &str, before: &str| ("DELETE".to_string(), key.to_string(), "(nil)".into(), before.to_string());
    assert_eq!(told(&watcher.receive().unwrap()), (6, vec![gone("a", "new"), gone("b", "b-value")]));
}

#[test]
fn what_was_compacted_is_said_and_the_rest_can_be_had() {
    let cluster = Cluster::start(&Setup::single());
    let mut client = cluster.members[0].client();
    for number in 2..=9 {
        assert_eq!(call(&mut client, &format!("PUT k {number}")), Reply::Integer(number));
    }
    call(&mut client, "DEL k");
    call(&mut client, "PUT k 11");
    assert_eq!(call(&mut client, "COMPACT 10 PHYSICAL"), Reply::Simple("OK".into()));
    let mut watcher = cluster.members[0].client();
    for revision in [1, 2, 9] {
        let id = call(&mut watcher, &format!("WATCH k REV {revision}")).integer();
        let push = watcher.receive().unwrap();
        let [word, of, reason, bound] = push.array() else { panic!("{push:?}") };
        assert_eq!((word.text().as_str(), of.integer(), bound.integer()), ("unwatched", id, 10));
        assert!(reason.text().starts_with("COMPACTED "), "{push:?}");
    }
    call(&mut watcher, "WATCH k REV 10");
    let revisions = [(); 2].map(|()| told(&watcher.receive().unwrap()));
    assert_eq!((revisions[0].0, revisions[0].1[0].0.as_str()), (10, "DELETE"));
    assert_eq!((revisions[1].0, revisions[1].1[0].2.as_str()), (11, "11"));
}

#[test]
fn progress_is_told_in_time_and_on_request() {
    let setup = Setup::single().flag("watch-progress-notify-interval", "100ms");
    let cluster = Cluster::start(&setup);
    let revision = cluster.put("k", "v") as i64;
    let mut watcher = cluster.members[0].client();
    call(&mut watcher, "WATCH k PROGRESS ID 7");
    let progress =
        |id| Reply::Array(vec![Reply::Bulk("progress".into()), Reply::Integer(id), Reply::Integer(revision)]);
    let same = |got: &Reply, wanted: &Reply| {
        got.array()[0].text() == "progress" && got.array()[1..] == wanted.array()[1..]
    };
    let push = watcher.receive().unwrap();
    assert!(same(&push, &progress(7)), "{push:?}");
    let mut asked = cluster.members[0].client();
    call(&mut asked, "WATCH k");
    assert_eq!(call(&mut asked, "WATCHPROGRESS"), Reply::Simple("OK".into()));
    let push = asked.receive().unwrap();
    assert!(same(&push, &progress(-1)), "{push:?}");
}

#[test]
fn what_cannot_be_watched_is_refused_and_the_rest_goes_on() {
    let cluster = Cluster::start(&Setup::single());
    let mut client = cluster.members[0].client();
    for (line, what) in [
        ("WATCH b TO a", "watcher range is empty"),
        ("WATCH a TO a", "watcher range is empty"),
        ("WATCH a ID -1", "ID"),
        ("WATCH a ID 9223372036854775808", "ID"),
        ("WATCH a ID x", "ID"),
        ("WATCH a REV -5", "REV"),
        ("WATCH a REV 9223372036854775808", "REV"),
        ("WATCH a REV 99999999999999999999999999", "REV"),
        ("WATCH a PREV PREV", "PREV"),
        ("UNWATCH 1", "no watch 1"),
        ("UNWATCH -1", ""),
        ("WATCHPROGRESS", "no watch"),
    ] {
        assert_refused(&mut client, line, what);
    }
    assert_eq!(client.call(&["WATCH", ""]).unwrap().code(), Some("ERR"), "an empty key");
    assert_eq!(
        call(&mut client, "WATCH a ID 9223372036854775807 REV 9223372036854775807").integer(),
        i64::MAX
    );
    assert_refused(&mut client, "WATCH a ID 9223372036854775807", "exists");
    // What is far ahead is waited for, and nothing is told of it, not even progress.
    assert_eq!(call(&mut client, "WATCHPROGRESS"), Reply::Simple("OK".into()));
    cluster.put("a", "1");
    assert_eq!(call(&mut client, "PING"), Reply::Simple("PONG".into()));
    assert_eq!(call(&mut client, "UNWATCH 9223372036854775807"), Reply::Simple("OK".into()));
    assert_eq!(call(&mut client, "GET a").bulk(), b"1");
}

#[test]
fn thousands_of_watches_begin_and_end_at_once() {
    let cluster = Cluster::start(&Setup::single());
    let watches_max = 16_384;
    let mut watcher = cluster.members[0].client();
    let begin = |from: usize, to: usize| -> Vec<u8> {
        (from..to).flat_map(|n| encode(&["WATCH", &format!("k/{n}")])).collect()
    };
    watcher.send_raw(&begin(0, watches_max)).unwrap();
    for number in 1..=watches_max {
        assert_eq!(watcher.receive().unwrap(), Reply::Integer(number as i64));
    }
    assert_refused(&mut watcher, "WATCH one/more", "16384 watches at most");
    cluster.put("k/77", "v");
    assert_eq!(told(&watcher.receive().unwrap()).1[0].1, "k/77");
    let started = Instant::now();
    let end: Vec<u8> = (1..=1_000).flat_map(|id| encode(&["UNWATCH", &id.to_string()])).collect();
    watcher.send_raw(&end).unwrap();
    for _ in 0..1_000 {
        assert_eq!(watcher.receive().unwrap(), Reply::Simple("OK".into()));
    }
    cluster.put("k/77", "unseen");
    cluster.put("k/2000", "seen");
    assert_eq!(told(&watcher.receive().unwrap()).1[0].2, "seen");
    // All others with the connection, and the next puts do not wait for that.
    drop(watcher);
    for number in 0..100 {
        cluster.put(&format!("k/{number}"), "v");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "it took {:?}", started.elapsed());
    let mut again = cluster.members[0].client();
    again.send_raw(&begin(0, watches_max)).unwrap();
    assert_eq!(again.receive().unwrap(), Reply::Integer(1));
}

/// In RESP3 a connection may read while it watches.
#[test]
fn a_range_is_not_interrupted() {
    let cluster = Cluster::start(&Setup::single());
    let member = &cluster.members[0];
    let value = "x".repeat(64 << 10);
    for number in 0..200 {
        cluster.put(&format!("large/{number:03}"), &value);
    }
    let mut reader = member.client();
    reader.call(&["HELLO", "3"]).unwrap();
    reader.send_raw(&encode(&["WATCH", "k"])).unwrap();
    assert_eq!(reader.receive().unwrap(), Reply::Integer(1));
    // 12 MiB, of which nothing is read before all of the events have happened.
    reader.send_raw(&encode(&["RANGE", "large/", "PREFIX"])).unwrap();
    pause(200);
    for number in 0..20 {
        cluster.put("k", &number.to_string());
    }
    pause(200);
    let range = reader.receive().unwrap();
    assert_eq!(range.field("kvs").array().len(), 200);
    for number in 0..20 {
        assert_eq!(told(&reader.receive().unwrap()).1[0].2, number.to_string());
    }
}

fn private_bytes(member: &Member) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", member.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("Linux reports it");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number of kB");
    kib * 1_024
}

/// Fifty clients watch everything and read nothing, while 64 MiB are written: 3 GiB if it were kept for them.
#[test]
fn a_watch_that_never_reads_costs_a_bounded_buffer_and_misses_nothing() {
    let cluster = Cluster::start(&Setup::single());
    let member = &cluster.members[0];
    let value = "x".repeat(32 << 10);
    let mut writer = member.client();
    let mut write = |count: usize| {
        for _ in 0..count / 50 {
            let puts: Vec<_> =
                (0..50).map(|n| vec!["PUT".to_string(), format!("k/{n}"), value.clone()]).collect();
            let replies = writer.pipeline(&puts).unwrap();
            assert!(replies.iter().all(|reply| !reply.is_error()), "{replies:?}");
        }
    };
    write(2_000);
    let before = private_bytes(member);
    let mut silent: Vec<Client> = (0..50).map(|_| member.client()).collect();
    for client in &mut silent {
        assert_eq!(call(client, "WATCH k/ PREFIX"), Reply::Integer(1));
    }
    write(2_000);
    let grown = private_bytes(member).saturating_sub(before);
    println!("50 watchers that read nothing: {} KiB more", grown >> 10);
    assert!(grown < 128 << 20, "{grown} bytes are kept for those who read nothing");
    // When they read, it is all there.
    for client in silent.iter_mut().take(2) {
        for number in 0..2_000 {
            let (revision, events) = told(&client.receive().unwrap());
            assert_eq!(
                (revision, events[0].1.as_str()),
                (2_002 + number, format!("k/{}", number % 50).as_str())
            );
        }
    }
}

/// `pawlctl watch`, killed when it is dropped.
struct Watching {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Watching {
    fn start(cluster: &Cluster, words: &[&str]) -> Watching {
        let endpoints: Vec<String> =
            cluster.members.iter().map(|member| member.address().to_string()).collect();
        let mut child = Command::new(PAWLD)
            .args(["ctl", "--endpoints", &endpoints.join(","), "watch"])
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Watching { child, lines }
    }

    /// The next lines that it prints. A test that waits for ever is ended from outside.
    fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            let mut line = String::new();
            self.lines.read_line(&mut line).unwrap();
            lines.push(line.trim_end_matches('\n').to_owned());
        }
        lines
    }

    /// Its exit code, and what it printed on standard error.
    fn end(mut self) -> (Option<i32>, String) {
        ended(&mut self.child)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn pawlctl_prints_what_etcdctl_does() {
    let cluster = Cluster::start(&Setup::single());
    let mut client = cluster.members[0].client();
    call(&mut client, "PUT foo one");
    call(&mut client, "PUT foo two");
    call(&mut client, "DEL foo");
    call(&mut client, "PUT fool three");
    let mut simple = Watching::start(&cluster, &["foo", "--rev=2", "--prev-kv"]);
    let wanted = ["PUT", "foo", "one", "PUT", "foo", "one", "foo", "two", "DELETE", "foo", "two", "foo", ""];
    assert_eq!(simple.lines(wanted.len()), wanted);
    let mut prefix = Watching::start(&cluster, &["foo", "--prefix", "--rev", "5"]);
    assert_eq!(prefix.lines(3), ["PUT", "fool", "three"]);
    let mut range = Watching::start(&cluster, &["--rev=2", "foo", "fop"]);
    assert_eq!(range.lines(9), ["PUT", "foo", "one", "PUT", "foo", "two", "DELETE", "foo", ""]);
    let mut json = Watching::start(&cluster, &["fool", "--rev=5", "-w", "json"]);
    let line = json.lines(1).remove(0);
    let events = "\"Events\":[{\"kv\":{\"key\":\"Zm9vbA==\",\"create_revision\":5,\"mod_revision\":5,\"version\":1,\"value\":\"dGhyZWU=\"}}],\
        \"CompactRevision\":0,\"Canceled\":false,\"Created\":false}";
    assert!(line.starts_with("{\"Header\":{\"cluster_id\":") && line.ends_with(events), "{line}");
}

#[test]
fn pawlctl_runs_a_command_for_each_event() {
    let cluster = Cluster::start(&Setup::single());
    let mut client = cluster.members[0].client();
    call(&mut client, "PUT foo one");
    call(&mut client, "DEL foo");
    let script = "echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE";
    let mut watching = Watching::start(&cluster, &["foo", "--rev=2", "--", "sh", "-c", script]);
    let wanted =
        ["PUT", "foo", "one", "2 \"PUT\" \"foo\" \"one\"", "DELETE", "foo", "", "3 \"DELETE\" \"foo\" \"\""];
    assert_eq!(watching.lines(wanted.len()), wanted);
    let failing = Watching::start(&cluster, &["foo", "--rev=2", "--", "sh", "-c", "exit 3"]);
    let (code, complaints) = failing.end();
    assert_eq!(code, Some(1));
    assert!(complaints.contains("exit status 3"), "{complaints}");
}

#[test]
fn pawlctl_says_why_a_watch_ended() {
    let cluster = Cluster::start(&Setup::single());
    let mut client = cluster.members[0].client();
    for _ in 0..5 {
        call(&mut client, "PUT foo x");
    }
    call(&mut client, "COMPACT 5");
    for words in [&["foo", "--rev=4"], &["foo", "--rev=-1"]] {
        let (code, complaints) = Watching::start(&cluster, words).end();
        assert_eq!(code, Some(5), "{complaints}");
        assert!(
            complaints
                .contains("watch was canceled (etcdserver: mvcc: required revision has been compacted)")
        );
        assert!(complaints.contains("watch is canceled by the server"), "{complaints}");
    }
    let (code, complaints) = Watching::start(&cluster, &["b", "a"]).end();
    assert_ne!(code, Some(0), "{complaints}");
    let (code, _) = Watching::start(&cluster, &[]).end();
    assert_eq!(code, Some(128));
}

#[test]
fn pawlctl_goes_on_at_another_member() {
    let mut cluster = Cluster::start(&Setup::default());
    cluster.put("k", "first");
    let mut watching = Watching::start(&cluster, &["k", "--rev=2"]);
    assert_eq!(watching.lines(3), ["PUT", "k", "first"]);
    for round in 0..3 {
        cluster.members[round].kill();
        cluster.put("k", &format!("during {round}"));
        assert_eq!(watching.lines(3), ["PUT", "k", &format!("during {round}")]);
        cluster.members[round].start();
        cluster.settle();
        cluster.put("k", &format!("after {round}"));
        assert_eq!(watching.lines(3), ["PUT", "k", &format!("after {round}")]);
    }
    until("it still runs", PATIENCE, || watching.child.try_wait().unwrap().is_none().then_some(()));
}

#[test]
fn pawlctl_takes_requests_from_standard_input() {
    use std::io::Write;
    let cluster = Cluster::start(&Setup::single());
    let mut client = cluster.members[0].client();
    call(&mut client, "PUT foo one");
    call(&mut client, "PUT bar two");
    let mut watching = Watching::start(&cluster, &["-i"]);
    let mut input = watching.child.stdin.take().unwrap();
    input.write_all(b"watch foo --rev 2\n").unwrap();
    assert_eq!(watching.lines(3), ["PUT", "foo", "one"]);
    input.write_all(b"watch bar --rev 2\nprogress\n").unwrap();
    assert_eq!(watching.lines(4), ["PUT", "bar", "two", "progress notify: 3"]);
    drop(input);
    let (code, complaints) = watching.end();
    assert_eq!(code, Some(3), "{complaints}");
}
