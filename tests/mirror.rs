//! `pawlctl make-mirror` between two clusters of one real member each.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time and on a real disk")]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use crate::cli::{pawlctl, run};
use crate::harness::{Cluster, PATIENCE, PAWLD, Setup, ended, pause, until};
use crate::resp::{Client, KeyValue, RangeReply, Reply};

/// What is mirrored, and where.
struct Pair {
    source: Cluster,
    destination: Cluster,
}

impl Pair {
    fn start() -> Pair {
        Pair { source: Cluster::start(&Setup::single()), destination: Cluster::start(&Setup::single()) }
    }

    fn mirror(&self, words: &[&str]) -> Mirroring {
        let mut command = Command::new(PAWLD);
        command.args(["ctl", "--command-timeout=30s", "--endpoints", &address(&self.source)]);
        command.arg("make-mirror").arg(address(&self.destination)).args(words).env_clear();
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Mirroring { child }
    }

    /// Waits until the destination has what the source has.
    fn agree(&self) {
        until("the mirror to be complete", PATIENCE, || {
            (content(&self.source, "") == content(&self.destination, "")).then_some(())
        });
    }
}

fn address(cluster: &Cluster) -> String {
    cluster.members[0].address().to_string()
}

/// `pawlctl make-mirror`, killed when it is dropped.
struct Mirroring {
    child: Child,
}

impl Mirroring {
    /// Its exit code and what it complained of, when it ends by itself.
    fn end(mut self) -> (Option<i32>, String) {
        ended(&mut self.child)
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Mirroring {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn range(cluster: &Cluster, prefix: &str) -> Vec<KeyValue> {
    let reply = cluster.members[0].client().call(&["RANGE", prefix, "PREFIX"]).unwrap();
    RangeReply::parse(&reply).kvs
}

fn content(cluster: &Cluster, prefix: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    range(cluster, prefix).into_iter().map(|kv| (kv.key, kv.value)).collect()
}

fn call<W: AsRef<[u8]>>(client: &mut Client, words: &[W]) -> Reply {
    let reply = client.call(words).unwrap();
    assert!(!reply.is_error(), "{reply:?}");
    reply
}

fn line(client: &mut Client, line: &str) -> Reply {
    call(client, &line.split(' ').collect::<Vec<_>>())
}

#[test]
fn a_mirror_copies_and_follows() {
    let pair = Pair::start();
    let mut client = pair.source.members[0].client();
    line(&mut client, "LEASE GRANT 1000 ID 7");
    for number in 0..300 {
        line(&mut client, &format!("PUT many/{number} {number}"));
    }
    line(&mut client, "PUT leased value LEASE 7");
    call(&mut client, &[&b"PUT"[..], b"\xff\xfe\r\n", b"\x00\xff"]);
    call(&mut client, &[&b"PUT"[..], b"empty", b""]);
    let large = vec![b'x'; 300_000];
    for number in 0..8 {
        call(&mut client, &[b"PUT", format!("large/{number}").as_bytes(), &large[..]]);
    }
    // Pages of sixteen keys, then of fewer because they are large.
    let mut mirroring = pair.mirror(&["--max-txn-ops=16"]);
    pair.agree();
    let there = pair.destination.members[0].client().call(&["RANGE", "leased"]).unwrap();
    let lease = &there.field("kvs").array()[0].array()[5];
    assert_eq!(*lease, Reply::Integer(0), "leases stay where they are");

    line(&mut client, "PUT many/1 again");
    line(&mut client, "DEL many/2 TO many/3");
    line(&mut client, "PUT many/2 reborn");
    line(&mut client, "TXN THEN PUT a 1 PUT b 2 DEL leased PUT many/1 in-a-transaction END");
    for number in 0..50 {
        line(&mut client, &format!("PUT often {number}"));
    }
    line(&mut client, "PUT leased again LEASE 7");
    line(&mut client, "LEASE REVOKE 7");
    pair.agree();
    let together = range(&pair.destination, "");
    let revision = |key: &[u8]| together.iter().find(|kv| kv.key == key).map(|kv| kv.modified);
    assert!(revision(b"a").is_some() && revision(b"a") == revision(b"b"), "one revision is one transaction");
    assert_eq!(revision(b"a"), revision(b"many/1"));
    assert_eq!(revision(b"leased"), None);

    // More than a transaction holds, here and there.
    let puts: Vec<String> = (0..40).map(|number| format!("PUT wide/{number} {number}")).collect();
    line(&mut client, &format!("TXN THEN {} END", puts.join(" ")));
    line(&mut client, "DEL many/ PREFIX");
    pair.agree();
    assert_eq!(content(&pair.destination, "wide/").len(), 40);
    assert!(mirroring.is_running());
}

/// What is larger than the destination takes in one piece goes there in several.
#[test]
fn a_destination_may_take_less_at_once() {
    let destination =
        Cluster::start(&Setup::single().flag("max-txn-ops", 4).flag("max-request-bytes", 50_000));
    let pair = Pair { source: Cluster::start(&Setup::single()), destination };
    let mut client = pair.source.members[0].client();
    for number in 0..30 {
        call(&mut client, &[b"PUT", format!("k{number}").as_bytes(), &[b'v'; 20_000][..]]);
    }
    let _mirroring = pair.mirror(&[]);
    pair.agree();
    let puts: Vec<String> = (0..40).map(|number| format!("PUT wide/{number} {number}")).collect();
    line(&mut client, &format!("TXN THEN {} END", puts.join(" ")));
    pair.agree();
}

#[test]
fn prefixes_are_rewritten() {
    let pair = Pair::start();
    let mut client = pair.source.members[0].client();
    for words in ["PUT a/1 one", "PUT a/ bare", "PUT a/a/2 two", "PUT b/1 other"] {
        line(&mut client, words);
    }
    let _mirroring = pair.mirror(&["--prefix", "a/", "--dest-prefix", "copy/of/"]);
    let _same = pair.mirror(&["--prefix=a/a"]);
    let shown = || -> Vec<String> {
        let pairs = content(&pair.destination, "");
        pairs.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect()
    };
    let wanted = ["a/a/2", "copy/of/", "copy/of/1", "copy/of/a/2"];
    until("the copies", PATIENCE, || (shown() == wanted).then_some(()));
    line(&mut client, "DEL a/1");
    line(&mut client, "DEL b/1");
    line(&mut client, "PUT a/3 three");
    let wanted = ["a/a/2", "copy/of/", "copy/of/3", "copy/of/a/2"];
    until("the changes", PATIENCE, || (shown() == wanted).then_some(()));

    // Without a prefix, what has nothing but the prefix has no name.
    let (code, complaint) = pair.mirror(&["--prefix=a/", "--no-dest-prefix"]).end();
    assert_eq!(code, Some(1));
    let wanted = "Error: the key \"a/\" would have no name at the destination: it has nothing behind the prefix; choose a \
                  --dest-prefix\n";
    assert_eq!(complaint, wanted);
    line(&mut client, "DEL a/");
    let _bare = pair.mirror(&["--prefix=a/", "--no-dest-prefix"]);
    until("the bare names", PATIENCE, || (content(&pair.destination, "3").len() == 1).then_some(()));
}

#[test]
fn a_mirror_outlives_restarts_of_both_sides() {
    let mut pair = Pair::start();
    pair.source.put("k", "before");
    let mut mirroring = pair.mirror(&[]);
    pair.agree();
    for round in 0..3 {
        let during = format!("during {round}");
        pair.source.members[0].kill();
        pair.source.members[0].start();
        for number in 0..20 {
            pair.source.put(&format!("{round}/{number}"), &during);
        }
        pair.agree();
        pair.destination.members[0].kill();
        pair.source.put("k", &during);
        pair.source.members[0].client().call(&["DEL", &format!("{round}/7")]).unwrap();
        pair.destination.members[0].start();
        pair.agree();
    }
    assert!(mirroring.is_running());
    assert_eq!(content(&pair.destination, "").len(), 3 * 19 + 1);
}

#[test]
fn a_mirror_goes_on_where_it_is_told_to() {
    let pair = Pair::start();
    let mut client = pair.source.members[0].client();
    for words in ["PUT old 2", "PUT k 3", "PUT gone 4", "DEL gone", "PUT k 6"] {
        line(&mut client, words);
    }
    let mirroring = pair.mirror(&["--rev=3"]);
    until("the changes", PATIENCE, || {
        (content(&pair.destination, "") == [(b"k".to_vec(), b"6".to_vec())]).then_some(())
    });
    let history = pair.destination.members[0].client().call(&["RANGE", "k", "REV", "2"]).unwrap();
    assert_eq!(RangeReply::parse(&history).kvs[0].value, b"3", "all that happened has happened here");
    drop(mirroring);

    line(&mut client, "COMPACT 5");
    let (code, complaint) = pair.mirror(&["--rev=4"]).end();
    assert_eq!(code, Some(1));
    assert!(
        complaint.starts_with(
            "Error: the source was compacted up to revision 5, and the mirror has what came before revision 4"
        ) && complaint.contains("--rev 5"),
        "{complaint}"
    );
    let _mirroring = pair.mirror(&["--rev=1"]);
    pair.agree();
}

/// A mirror that has nothing to do knows how far it is, so that a compaction does not end it.
#[test]
fn a_mirror_at_rest_is_not_overtaken_by_compactions() {
    let mut pair = Pair::start();
    pair.source.put("mirrored/k", "v");
    let mut mirroring = pair.mirror(&["--prefix=mirrored/"]);
    until("the copy", PATIENCE, || (!content(&pair.destination, "").is_empty()).then_some(()));
    for number in 0..20 {
        pair.source.put("other", &number.to_string());
    }
    // Longer than a server may be silent.
    pause(3_000);
    let mut client = pair.source.members[0].client();
    line(&mut client, "COMPACT 20");
    pair.source.members[0].kill();
    pair.source.members[0].start();
    pair.source.put("mirrored/k", "w");
    until("the change", PATIENCE, || {
        (content(&pair.destination, "")[0].1 == b"w" && mirroring.is_running()).then_some(())
    });
}

#[test]
fn command_lines_that_make_no_mirror() {
    let cluster = Cluster::start(&Setup::single());
    let at = address(&cluster);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed_at = closed.local_addr().unwrap().to_string();
    drop(closed);
    for (words, exit, complaint) in [
        ("", 128, "make-mirror takes one destination argument"),
        ("a b", 128, "make-mirror takes one destination argument"),
        (
            "HERE --dest-prefix=x --no-dest-prefix",
            128,
            "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one",
        ),
        ("HERE --rev=-3", 128, "--rev must not be negative, found -3"),
        ("HERE --rev=x", 1, "invalid value 'x' for '--rev <REV>': invalid digit found in string"),
        (
            "HERE --max-txn-ops=0",
            1,
            "invalid value '0' for '--max-txn-ops <MAX_TXN_OPS>': 0 is not in 1..=8192",
        ),
        ("HERE --dest-cert=c", 4, "TLS is not available yet"),
        ("HERE --dest-insecure-transport=false", 4, "TLS is not available yet"),
        ("HERE --dest-user=u", 4, "authentication is not available yet"),
        ("HERE --dest-port=1", 1, "unknown flag: --dest-port"),
        (
            "NOBODY --command-timeout=300ms",
            1,
            "the destination: context deadline exceeded: cannot reach NOBODY: connection refused",
        ),
        ("HERE", 128, "the destination is the cluster that is mirrored ("),
        ("HERE --prefix=a --dest-prefix=ab", 128, "the destination is the cluster that is mirrored ("),
        ("HERE --prefix=ab --dest-prefix=a", 128, "the destination is the cluster that is mirrored ("),
    ] {
        let words = words.replace("HERE", &at).replace("NOBODY", &closed_at);
        let mut client = pawlctl(&["--endpoints", &at, "make-mirror"]);
        let (code, out, err) = run(client.args(words.split_whitespace()));
        let complaint = format!("Error: {}", complaint.replace("NOBODY", &closed_at));
        assert!((code, out.as_str()) == (exit, "") && err.starts_with(&complaint), "{words}: {code} {err}");
        assert_eq!(err.lines().count(), 1, "{words}: {err}");
    }
    // Within one cluster, from one place to another.
    cluster.put("a/k", "v");
    let mut client = pawlctl(&["--endpoints", &at, "make-mirror", &at, "--prefix=a/", "--dest-prefix=b/"]);
    let _mirroring =
        Mirroring { child: client.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap() };
    until("the copy", PATIENCE, || (content(&cluster, "b/").len() == 1).then_some(()));
}
