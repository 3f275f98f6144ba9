//! Real members of which one holds another state than the others, with all checksums right.

#![allow(clippy::disallowed_methods, reason = "real processes live on a real disk")]

use pawl::btree::{Tree, View};
use pawl::io::os::OsDisk;

use crate::harness::{Cluster, Member, PATIENCE, Setup, until};
use crate::resp::Reply;

/// Where the store keeps its state hash in the application record (`storage-format.md` §6.1), and its changes.
const HASH_AT: usize = 56;
const CHANGES: usize = 1;

/// Leaves the tree of a stopped member as a wrong apply would have: a value and the state hash are others.
fn make_wrong(member: &Member) {
    let mut tree = Tree::open(&OsDisk, &member.tree()).unwrap();
    let (key, mut value, counted) = {
        let mut cursor = tree.cursor(View::Now, CHANGES);
        assert!(cursor.first().unwrap(), "there are keys");
        (cursor.key().unwrap().to_vec(), cursor.value().to_vec().unwrap(), cursor.counted())
    };
    *value.last_mut().unwrap() ^= 1;
    tree.insert(CHANGES, &key, &[&value], counted).unwrap();
    let mut record = tree.user().to_vec();
    record[HASH_AT] ^= 1;
    tree.set_user(&record);
    let checkpoint = tree.begin_checkpoint().unwrap().expect("something was changed");
    tree.end_checkpoint(checkpoint.run(&|| ()).unwrap()).unwrap();
}

fn alarms(member: &Member) -> Vec<String> {
    let status = until("STATUS", PATIENCE, || member.status());
    let errors = status.field("errors").array().iter().map(Reply::text);
    errors.filter(|error| error.contains("CORRUPT")).collect()
}

fn alarm_of(member: &Member) -> String {
    let status = until("STATUS", PATIENCE, || member.status());
    format!("memberID:{} alarm:CORRUPT", status.field("member_id").text())
}

fn wait_until_corrupt(member: &Member) {
    until("the member to refuse what it is asked", PATIENCE, || {
        let reply = member.client().call(&["GET", "k", "SERIALIZABLE"]).ok()?;
        (reply.code() == Some("CORRUPT")).then_some(())
    });
}

#[test]
fn a_member_that_differs_from_two_serves_nothing_and_stays_so() {
    let mut cluster = Cluster::start(&Setup::default());
    cluster.put("k", "v");
    cluster.settle();
    let wrong = (cluster.leader() + 1) % 3;
    cluster.members[wrong].stop();
    make_wrong(&cluster.members[wrong]);
    cluster.members[wrong].start();
    wait_until_corrupt(&cluster.members[wrong]);

    let alarm = alarm_of(&cluster.members[wrong]);
    for member in &cluster.members {
        until("every member to name it", PATIENCE, || (alarms(member) == [alarm.clone()]).then_some(()));
    }
    let log = cluster.members[wrong].log();
    assert!(log.contains("the state hash is") && log.contains("it must be rebuilt"), "{log}");
    for command in [&["GET", "k"][..], &["PUT", "k", "w"], &["DEL", "k"], &["MEMBER", "LIST"]] {
        let reply = cluster.members[wrong].client().call(command).unwrap();
        assert_eq!(reply.code(), Some("CORRUPT"), "{command:?}: {reply:?}");
    }
    let right = (wrong + 1) % 3;
    let mut client = cluster.members[right].client();
    assert!(!client.call(&["PUT", "k", "w"]).unwrap().is_error(), "two of three go on");
    assert_eq!(client.call(&["GET", "k"]).unwrap().bulk(), b"w");

    // It does not need the others to remember.
    cluster.stop_all();
    cluster.members[wrong].start();
    let reply = cluster.members[wrong].client().call(&["GET", "k", "SERIALIZABLE"]).unwrap();
    assert_eq!(reply.code(), Some("CORRUPT"), "{reply:?}");
    assert_eq!(alarms(&cluster.members[wrong]), [alarm]);
}

#[test]
fn of_two_that_differ_none_serves_until_an_operator_says_who_is_right() {
    let mut cluster = Cluster::start(&Setup { members: 2, ..Setup::default() });
    cluster.put("k", "v");
    cluster.settle();
    cluster.stop_all();
    make_wrong(&cluster.members[1]);
    cluster.start_all();
    cluster.leader();
    let both: Vec<String> = cluster.members.iter().map(alarm_of).collect();
    for member in &cluster.members {
        wait_until_corrupt(member);
        let named = alarms(member);
        assert!(named.len() == 2 && both.iter().all(|alarm| named.contains(alarm)), "{named:?}");
    }
    cluster.stop_all();
    cluster.members[0].args.push("--force-new-cluster".into());
    cluster.members[0].start();
    let value = until("the right one to serve", PATIENCE, || {
        cluster.members[0].client().call(&["GET", "k"]).ok().filter(|reply| !reply.is_error())
    });
    assert_eq!(value.bulk(), b"v");
    assert_eq!(alarms(&cluster.members[0]), [""; 0]);
}
