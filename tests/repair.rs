//! Members whose files are damaged while they are down, or are gone: they come back from the others by themselves,
//! and until then nobody is served from them.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time and on a real disk")]

use std::fs;
use std::path::Path;

use crate::harness::{Cluster, Member, PATIENCE, Setup, pause, until};
use crate::resp::{Client, Reply};

/// A cluster that has released the beginning of its log, so that a snapshot is needed by who has lost everything.
fn worked() -> Cluster {
    let setup = Setup { segment_bytes: 64 << 10, ..Setup::default() };
    let setup = setup.flag("snapshot-count", 200).flag("snapshot-catchup-entries", 100);
    let cluster = Cluster::start(&setup);
    let value = "v".repeat(200);
    let mut client = cluster.members[cluster.leader()].client();
    for number in 0..1_500 {
        let reply = client.call(&["PUT", &format!("k{:03}", number % 700), &value]);
        assert!(matches!(reply, Ok(Reply::Integer(_))), "{reply:?}");
    }
    cluster.settle();
    cluster
}

/// Changes one byte of what is written there in the middle of the file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("something is written") + 1;
    bytes[used / 2] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// Every page of the tree behind the meta slots.
fn ruin_pages(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[8192..].iter_mut().step_by(64).for_each(|byte| *byte ^= 0x10);
    fs::write(path, bytes).unwrap();
}

/// The leaves of the keys: opening does not look at them, reading does.
fn ruin_leaves(path: &Path) {
    const PAGE_BYTES: usize = 4096;
    let (kind, root, leaf, keys) = (16, 18, 1, 0);
    let mut bytes = fs::read(path).unwrap();
    for page in bytes.chunks_mut(PAGE_BYTES).skip(2).filter(|page| page[kind] == leaf && page[root] == keys) {
        page[2_000] ^= 0x10;
    }
    fs::write(path, bytes).unwrap();
}

/// Asks over and over, from the moment that it listens: either it answers nothing, or the truth.
fn repaired(cluster: &Cluster, member: &Member, revision: u64) {
    until("the member to be repaired", PATIENCE, || {
        let mut client = Client::connect(member.client_port, PATIENCE).ok()?;
        match client.call(&["GET", "last", "SERIALIZABLE"]).ok()? {
            Reply::Bulk(value) => {
                assert_eq!(&value[..], b"word", "{}", member.log_tail(20));
                Some(())
            }
            Reply::Error(text) => {
                assert!(text.starts_with("LOADING") || text.starts_with("CORRUPT"), "{text}");
                None
            }
            other => panic!("{} answers {other:?}\n{}", member.name, member.log_tail(20)),
        }
    });
    assert!(member.log().contains("nothing is missing any more"), "{}", member.log_tail(20));
    cluster.agree(revision);
}

/// Damages what a follower has while it is down; meanwhile the others go on.
fn damage_and_repair(what: &str, damage: impl Fn(&Member), traces: &[&str]) {
    let mut cluster = worked();
    let victim = (cluster.leader() + 1) % 3;
    cluster.members[victim].stop();
    let revision = cluster.put("last", "word");
    damage(&cluster.members[victim]);
    cluster.members[victim].start();
    repaired(&cluster, &cluster.members[victim], revision);
    for trace in traces {
        let left = fs::read_dir(cluster.members[victim].data_dir.join("member"))
            .unwrap()
            .chain(fs::read_dir(cluster.members[victim].wal_dir()).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(left.into_iter().any(|name| name.ends_with(trace)), "{what}: nothing is left as {trace}");
    }
    // It votes again: with the former leader down, it is needed.
    let leader = cluster.leader();
    cluster.members[leader].kill();
    let revision = cluster.put("after", "all");
    cluster.members[leader].start();
    cluster.agree(revision);
    cluster.stop_all();
    cluster.check_stopped();
}

#[test]
fn a_damaged_log_is_repaired_from_the_others() {
    let damage = |member: &Member| flip(&member.segments().first().unwrap().0);
    damage_and_repair("log", damage, &[".wal.damaged"]);
}

#[test]
fn a_lost_log_is_repaired_from_the_others() {
    let damage = |member: &Member| fs::remove_dir_all(member.wal_dir()).unwrap();
    damage_and_repair("no log", damage, &[]);
}

#[test]
fn a_damaged_tree_is_repaired_from_the_others() {
    let damage = |member: &Member| ruin_pages(&member.tree());
    damage_and_repair("tree", damage, &["tree.damaged", ".wal.damaged"]);
}

/// Found at the first touch, by a process that serves: it goes the same way without being started again.
#[test]
fn damage_that_shows_while_a_member_runs_is_repaired_by_the_same_process() {
    let mut cluster = worked();
    let victim = (cluster.leader() + 1) % 3;
    cluster.members[victim].stop();
    let revision = cluster.put("last", "word");
    ruin_leaves(&cluster.members[victim].tree());
    cluster.members[victim].start();
    repaired(&cluster, &cluster.members[victim], revision);
    assert!(cluster.members[victim].is_running(), "nobody had to start it again");
    assert!(cluster.members[victim].log().contains("starting again"), "it was found at the first touch");
    cluster.stop_all();
    cluster.check_stopped();
}

#[test]
fn an_emptied_directory_is_filled_from_the_others() {
    let damage = |member: &Member| fs::remove_dir_all(&member.data_dir).unwrap();
    damage_and_repair("nothing", damage, &[]);
}

/// Two of three lost their memory: nobody makes up a state, and each says for whom it waits. The third comes back,
/// but there is no majority besides either of the two.
#[test]
fn a_damaged_majority_waits_and_says_so() {
    let mut cluster = worked();
    cluster.members[..2].iter_mut().for_each(Member::kill);
    for member in &mut cluster.members[..2] {
        fs::remove_dir_all(member.wal_dir()).unwrap();
        member.start();
    }
    for at in 0..2 {
        until("the status to name the other, and the third", PATIENCE, || {
            let status = cluster.members[at].status()?;
            let Reply::Array(errors) = status.field("errors") else { panic!("{status:?}") };
            let text = |error: &Reply| match error {
                Reply::Bulk(text) => String::from_utf8_lossy(text).into_owned(),
                other => panic!("{other:?}"),
            };
            let text: String = errors.iter().map(text).collect();
            let named = ["recovering too", "a majority besides this member", ": 1 are"];
            named.iter().all(|what| text.contains(what)).then_some(())
        });
    }
    pause(1_500);
    for member in &cluster.members {
        let mut client = Client::connect(member.client_port, PATIENCE).unwrap();
        let reply = client.call(&["PUT", "a", "b"]);
        assert!(!matches!(reply, Ok(Reply::Integer(_))), "{reply:?}");
    }
}
