//! Transactions through real processes: what is only true if all of it is one step, what must be refused, and the client.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::process::Command;

use crate::harness::{Cluster, PATIENCE, Setup, run_with, shown};
use crate::resp::{Reply, unsigned};

/// Eight clients count one number up through three members, each by comparing what it has read. No step is lost, none is
/// counted twice, and every success is a revision of its own.
#[test]
fn nothing_comes_between_a_compare_and_a_write() {
    const STEPS: u64 = 25;
    let cluster = Cluster::start(&Setup::default());
    let count = |at: usize| -> Vec<u64> {
        let mut client = cluster.members[at % 3].client();
        let mut revisions = Vec::new();
        while revisions.len() < STEPS as usize {
            let found = client.call(&["TXN", "THEN", "GET", "counter", "END"]).unwrap();
            let read = &found.field("responses").array()[0];
            let (compare, next) = match read {
                Reply::Null => (vec!["VERSION", "counter", "=", "0"], "1".to_string()),
                read => {
                    let number: u64 = read.text().parse().unwrap();
                    (vec!["VALUE", "counter", "="], (number + 1).to_string())
                }
            };
            let text = if *read == Reply::Null { None } else { Some(read.text()) };
            let mut words = vec!["TXN", "IF"];
            words.extend(compare);
            words.extend(text.as_deref());
            words.extend(["THEN", "PUT", "counter", &next, "PUT", &next, "counted", "END"]);
            let reply = client.call(&words).unwrap();
            if unsigned(reply.field("succeeded")) == 1 {
                revisions.push(unsigned(reply.field("revision")));
            }
        }
        revisions
    };
    let mut revisions: Vec<u64> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|at| scope.spawn(move || count(at))).collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len() as u64, 8 * STEPS, "each success is its own revision");
    let mut client = cluster.members[0].client();
    assert_eq!(client.call(&["GET", "counter"]).unwrap().text(), (8 * STEPS).to_string());
    assert_eq!(unsigned(&client.call(&["DBSIZE"]).unwrap()), 1 + 8 * STEPS);
    cluster.settle();
}

#[test]
fn a_transaction_that_only_reads_takes_no_entry_of_the_log() {
    let cluster = Cluster::start(&Setup::single());
    let mut client = cluster.members[0].client();
    client.call(&["PUT", "k", "v"]).unwrap();
    let mut commit = || unsigned(client.call(&["STATUS"]).unwrap().field("commit_index"));
    let before = commit();
    let mut reader = cluster.members[0].client();
    let nested = ["TXN", "IF", "VALUE", "k", "=", "v", "THEN", "RANGE", "k", "END"];
    for words in [
        &["TXN", "END"][..],
        &["TXN", "THEN", "GET", "k", "END"],
        &["TXN", "THEN", "GET", "k", "SERIALIZABLE", "ELSE", "RANGE", "k", "SERIALIZABLE", "END"],
        &[&["TXN", "THEN"][..], &nested, &["ELSE"], &nested, &["END"]].concat(),
    ] {
        let reply = reader.call(words).unwrap();
        assert_eq!((unsigned(reply.field("succeeded")), unsigned(reply.field("revision"))), (1, 2));
    }
    assert_eq!(commit(), before);
    let writes = ["TXN", "IF", "VERSION", "k", "=", "9", "THEN", "PUT", "k", "w", "END"];
    assert_eq!(unsigned(reader.call(&writes).unwrap().field("revision")), 2, "it chose to write nothing");
    assert_eq!(commit(), before + 1);
}

/// Each gets one line that says why, the connection lives, and nothing of it was done.
#[test]
fn bad_transactions_are_refused_whole() {
    let cluster = Cluster::start(&Setup::single().flag("max-txn-ops", 4).flag("max-request-bytes", 100_000));
    let mut client = cluster.members[0].client();
    let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<String>>();
    let deep =
        |levels: usize| words(&format!("{}GET k{}", "TXN THEN ".repeat(levels), " END".repeat(levels)));
    let large = "v".repeat(60_000);
    for (bad, code) in [
        (words("TXN"), "ERR"),
        (words("TXN THEN PUT k v"), "ERR"),
        (words("TXN THEN PUT k"), "ERR"),
        (words("TXN IF VERSION k = THEN END"), "ERR"),
        (words("TXN IF VERSION k = one THEN PUT k v END"), "ERR"),
        (words("TXN IF VERSION k ~ 1 THEN PUT k v END"), "ERR"),
        (words("TXN IF SIZE k = 1 THEN PUT k v END"), "ERR"),
        (words("TXN THEN PUT k v END END"), "ERR"),
        (words("TXN THEN PUT k v STATUS END"), "ERR"),
        (words("TXN THEN PUT k v DEL l m END"), "ERR"),
        (words("TXN THEN PUT k v PUT k w END"), "DUPKEY"),
        (words("TXN ELSE PUT k v DEL j FROM END"), "DUPKEY"),
        (words("TXN THEN PUT k v TXN THEN TXN ELSE DEL k END END END"), "DUPKEY"),
        (words("TXN THEN PUT a 1 PUT b 1 PUT c 1 PUT d 1 PUT e 1 END"), "TOOMANYOPS"),
        (words("TXN THEN PUT a 1 PUT b 1 TXN THEN PUT c 1 PUT d 1 END END"), "TOOMANYOPS"),
        (deep(17), "TOOMANYOPS"),
        (deep(5_000), "TOOMANYOPS"),
        (words("TXN THEN PUT k v PUT none v KEEPVALUE END"), "ERR"),
        (words("TXN THEN PUT k v PUT none v KEEPLEASE END"), "NOKEY"),
        (words("TXN THEN PUT k v PUT l v LEASE 9 END"), "NOLEASE"),
        (words("TXN THEN PUT k v GET k REV 999999 END"), "FUTURE"),
        (words(&format!("TXN THEN PUT k {large} PUT l {large} END")), "TOOLARGE"),
        (words(&format!("TXN IF VALUE k = {large} VALUE l = {large} END")), "TOOLARGE"),
    ] {
        let reply = client.call(&bad).unwrap();
        assert_eq!(reply.code(), Some(code), "{}: {reply:?}", bad[..bad.len().min(20)].join(" "));
    }
    assert_eq!(unsigned(&client.call(&["DBSIZE"]).unwrap()), 0);
    assert_eq!(client.call(&words("TXN THEN PUT k v END")).unwrap().field("revision").integer(), 2);
}

#[test]
fn pawlctl_txn() {
    let cluster = Cluster::start(&Setup::single());
    let endpoint = format!("127.0.0.1:{}", cluster.members[0].client_port);
    let txn = |input: &str, words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pawld"));
        command.args(["ctl", "--endpoints", &endpoint, "txn"]).args(words);
        let output = run_with(&mut command, input.as_bytes(), PATIENCE);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), shown(&output))
    };
    let lock = "ver(\"lock\") = \"0\"\n\nput lock \"held by me\"\nget lock\n\nget lock --keys-only\n\n";
    let (code, out, all) = txn(lock, &[]);
    assert_eq!((code, out.as_str()), (Some(0), "SUCCESS\n\nOK\n\nlock\nheld by me\n"), "{all}");
    let (code, out, all) = txn(lock, &["-i"]);
    let asked = "compares:\nsuccess requests (get, put, del):\nfailure requests (get, put, del):\n";
    assert_eq!((code, out), (Some(0), format!("{asked}FAILURE\n\nlock\n\n")), "{all}");
    let (code, _, all) = txn("\nput a 1\nput a 2\n\n\n", &[]);
    assert_eq!(code, Some(1));
    assert!(all.contains("Error: etcdserver: duplicate key given in txn request"), "{all}");
    let (code, _, all) = txn("\ndel lock\n\n\n", &["-w", "table"]);
    assert!(code == Some(4) && all.contains("Error: table not supported as output format"), "{all}");
    let (code, _, all) = txn("\ndel lock\n", &[]);
    assert!(code == Some(3) && all.contains("Error: EOF"), "{all}");
    let (code, _, all) = txn("", &["words"]);
    assert!(code == Some(128) && all.contains("Error: txn command does not accept argument"), "{all}");
    let mut client = cluster.members[0].client();
    assert_eq!(client.call(&["GET", "lock"]).unwrap().text(), "held by me", "none of these was sent");
}
