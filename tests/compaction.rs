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

/// What a member says to one command.
fn say(cluster: &Cluster, at: usize, words: &[&str]) -> Reply {
    cluster.members[at].client().call(words).expect("an answer")
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
    // Nobody asks for it, and nobody writes.
    for at in 0..3 {
        until("the file to be cut", PATIENCE, || (figure(&cluster, at, "db_size") < 600_000).then_some(()));
    }
    cluster.put("key/0", "after");
    cluster.stop_all();
    cluster.check_stopped();
}

#[test]
fn defrag_gives_back_what_is_left_at_once() {
    let mut cluster = Cluster::start(&Setup::default());
    let value = "x".repeat(20_000);
    let mut revision = 0;
    for n in 0..300 {
        revision = cluster.put(&format!("key/{}", n % 3), &format!("{value}{n}"));
    }
    cluster.settle();
    for at in 0..3 {
        ctl(&cluster, at, &["compaction", &(revision - 3 + at as u64).to_string(), "--physical"]);
    }
    for at in 0..3 {
        let endpoint = cluster.members[at].address();
        let said = ctl(&cluster, at, &["defrag", "--command-timeout", "30s"]);
        assert_eq!(said, format!("Finished defragmenting etcd member[{endpoint}]\n"));
        assert!(figure(&cluster, at, "db_size") < 600_000, "member {at}");
    }
    let said = ctl(&cluster, 0, &["defrag", "--cluster"]);
    assert_eq!(said.lines().count(), 3, "{said}");
    cluster.stop_all();
    cluster.check_stopped();
}

/// The quota is reached: through every member puts, leases and transactions that put are refused, also after a restart of
/// everybody and a change of the leader. What makes room is admitted, and then puts are again, without anybody's help.
#[test]
fn a_quota_refuses_puts_until_there_is_room() {
    let quota = 2 << 20;
    let mut cluster = Cluster::start(&Setup::default().flag("quota-backend-bytes", quota));
    let leader = cluster.leader();
    let value = "x".repeat(20_000);
    let refused = |reply: &Reply| reply.code() == Some("NOSPACE");
    let writes = [
        vec!["PUT", "new", "value"],
        vec!["PUT", "key/1", "", "KEEPVALUE"],
        vec!["LEASE", "GRANT", "60"],
        vec!["TXN", "IF", "VERSION", "nothing", "=", "7", "THEN", "PUT", "new", "value", "END"],
    ];
    let all_refuse = |cluster: &Cluster, why: &str| {
        for at in 0..3 {
            for write in &writes {
                until(why, PATIENCE, || refused(&say(cluster, at, write)).then_some(()));
            }
        }
    };
    let mut count = 0;
    while !refused(&say(&cluster, count % 3, &["PUT", &format!("key/{count}"), &value])) {
        count += 1;
        assert!(count < 1_000, "nobody minds the quota");
    }
    // Not before, and not much later: what is in use beside the values is small, and no page is copied to stay.
    assert!((60..=105).contains(&count), "{count} values of 20 kB fit in 2 MiB");
    all_refuse(&cluster, "every member to refuse puts");
    let id = cluster.members[leader].id();
    let alarm = format!("memberID:{id} alarm:NOSPACE \n");
    assert_eq!(ctl(&cluster, leader, &["alarm", "list"]), alarm);
    let status = cluster.members[(leader + 1) % 3].status().expect("an answer");
    assert!(status.field("errors").array().iter().any(|error| error.text() == alarm.trim_end()));
    assert_eq!(ctl(&cluster, leader, &["alarm", "disarm"]), alarm);
    until("the alarm to come back", PATIENCE, || {
        (ctl(&cluster, leader, &["alarm", "list"]) == alarm).then_some(())
    });

    cluster.stop_all();
    cluster.start_all();
    cluster.leader();
    all_refuse(&cluster, "puts to be refused after a restart");
    cluster.lead((cluster.leader() + 1) % 3);
    all_refuse(&cluster, "puts to be refused under another leader");

    let deleted = say(&cluster, 0, &["DEL", "key/", "PREFIX"]);
    assert_eq!(deleted, Reply::Integer(count as i64));
    let revision = cluster.members[0].revision().expect("an answer");
    ctl(&cluster, 1, &["compaction", &revision.to_string()]);
    for at in 0..3 {
        until("puts to be admitted", PATIENCE, || {
            (!refused(&say(&cluster, at, &["PUT", "a", "b"]))).then_some(())
        });
        assert!(figure(&cluster, at, "db_size_in_use") < quota * 9 / 10);
    }
    assert_eq!(ctl(&cluster, 2, &["alarm", "list"]), "");
    cluster.stop_all();
    cluster.check_stopped();
}
