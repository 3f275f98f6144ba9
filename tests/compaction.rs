//! Compactions of real clusters: what can be read, and the room that comes back.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time and on a real disk")]

use crate::harness::{Cluster, PATIENCE, Setup, run, shown, until};
use crate::resp::{Reply, unsigned};

/// What pawlctl prints on standard output, of a command that must succeed.
fn ctl(cluster: &Cluster, at: usize, words: &[&str]) -> String {
    let endpoint = cluster.members[at].address().to_string();
    let output = run(env!("CARGO_BIN_EXE_pawld"), &[&["ctl", "--endpoints", &endpoint], words].concat());
    assert!(output.status.success(), "{words:?}: {}", shown(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn figure(cluster: &Cluster, at: usize, name: &str) -> u64 {
    unsigned(cluster.members[at].status().expect("an answer").field(name))
}

#[test]
fn old_revisions_go_on_every_member() {
    let mut cluster = Cluster::start(&Setup::default());
    let value = "x".repeat(2_000);
    let mut revision = 0;
    for n in 0..1_000 {
        revision = cluster.put(&format!("key/{}", n % 10), &format!("{value}{n}"));
    }
    cluster.settle();
    let before = figure(&cluster, 1, "db_size_in_use");
    let said = ctl(&cluster, 1, &["compaction", &revision.to_string(), "--physical"]);
    assert_eq!(said, format!("compacted revision {revision}\n"));
    // That member has swept when it answers; the others do so in their time.
    assert!(figure(&cluster, 1, "db_size_in_use") < before / 10, "of {before}");
    for at in 0..3 {
        until("the others' sweep", PATIENCE, || {
            (figure(&cluster, at, "db_size_in_use") < before / 10).then_some(())
        });
        let mut client = cluster.members[at].client();
        let get = |client: &mut crate::resp::Client, revision: u64| {
            client.call(&["GET", "key/9", "REV", &revision.to_string()]).expect("an answer")
        };
        assert_eq!(get(&mut client, revision - 1).code(), Some("COMPACTED"));
        assert_eq!(get(&mut client, revision), Reply::Bulk(format!("{value}999").into()));
    }
    cluster.put("key/0", "after");
    cluster.stop_all();
    cluster.check_stopped();
}
