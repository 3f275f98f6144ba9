//! Real members come and go, under load, with the client's own commands. Whatever was acknowledged is on every
//! member that is left; who was removed ends by itself, also if it was away when it happened.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{
    Cluster, EndAtDrop, Member, PATIENCE, PAWLD, Setup, free_port, pause, run, say, shown, until,
};
use crate::resp::{Client, Reply};

const WRITERS: usize = 4;

/// A client gives a request up after this; its outcome is unknown then.
const REQUEST_PATIENCE: Duration = Duration::from_secs(2);

/// Writers that go on until they are told to stop.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    /// Where there is a member; changes while they write.
    ports: Mutex<Vec<u16>>,
    /// Keys that were acknowledged.
    written: Mutex<Vec<String>>,
    longest_gap: Mutex<Duration>,
}

impl Load {
    fn write(&self, writer: usize) {
        let mut last = Instant::now();
        let mut client: Option<Client> = None;
        for number in 0.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let key = format!("w{writer}-{number}");
            let port = {
                let ports = self.ports.lock().unwrap();
                ports[(writer + number) % ports.len()]
            };
            let open = client.take().or_else(|| Client::connect(port, REQUEST_PATIENCE).ok());
            let Some(mut open) = open else {
                pause(5);
                continue;
            };
            if let Ok(Reply::Integer(_)) = open.call(&["PUT", &key, &key]) {
                self.written.lock().unwrap().push(key);
                let mut longest = self.longest_gap.lock().unwrap();
                *longest = (*longest).max(last.elapsed());
                last = Instant::now();
                // Another member now and then.
                client = (number % 50 != 49).then_some(open);
            } else {
                pause(5);
            }
        }
    }

    fn count(&self) -> usize {
        self.written.lock().unwrap().len()
    }

    fn wait_for_progress(&self) {
        let before = self.count();
        until("writes to be acknowledged", PATIENCE, || (self.count() > before + 50).then_some(()));
    }
}

/// `pawlctl` with these words; what it printed. Panics unless it works.
fn ctl(ports: &[u16], words: &[&str]) -> String {
    let output = try_ctl(ports, words);
    assert!(output.status.success(), "{words:?}: {}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn try_ctl(ports: &[u16], words: &[&str]) -> std::process::Output {
    let endpoints: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let endpoints = format!("--endpoints={}", endpoints.join(","));
    run(PAWLD, &[&["ctl", &endpoints], words].concat())
}

fn id_of(ports: &[u16], name: &str) -> String {
    let list = ctl(ports, &["member", "list"]);
    let line = list.lines().find(|line| line.split(", ").nth(2) == Some(name));
    line.unwrap_or_else(|| panic!("{name} is in {list}")).split(", ").next().unwrap().to_string()
}

/// Adds a member with the client and starts it with the settings that the client printed.
fn join(cluster: &mut Cluster, ports: &[u16], name: &str, learner: bool) {
    let (client, peer) = (free_port(), free_port());
    let url = format!("http://127.0.0.1:{peer}");
    let urls = format!("--peer-urls={url}");
    let mut words = vec!["member", "add", name, &urls];
    if learner {
        words.push("--learner");
    }
    let printed = ctl(ports, &words);
    let setting = |variable: &str| {
        let line = printed.lines().find_map(|line| line.strip_prefix(&format!("{variable}=\"")));
        line.unwrap_or_else(|| panic!("{variable} in {printed}")).trim_end_matches('"').to_string()
    };
    let setup = Setup::default();
    let home = cluster.path().to_path_buf();
    let args = vec![
        format!("--name={}", setting("ETCD_NAME")),
        format!("--data-dir={}", home.join(name).display()),
        format!("--listen-client-urls=http://127.0.0.1:{client}"),
        format!("--advertise-client-urls=http://127.0.0.1:{client}"),
        format!("--listen-peer-urls={url}"),
        format!("--initial-advertise-peer-urls={}", setting("ETCD_INITIAL_ADVERTISE_PEER_URLS")),
        format!("--initial-cluster={}", setting("ETCD_INITIAL_CLUSTER")),
        format!("--initial-cluster-state={}", setting("ETCD_INITIAL_CLUSTER_STATE")),
        format!("--heartbeat-interval={}", setup.heartbeat_ms),
        format!("--election-timeout={}", setup.election_ms),
        format!("--wal-segment-bytes={}", setup.segment_bytes),
    ];
    let mut member = Member::new(name, &home, args, client, peer);
    member.start();
    cluster.members.push(member);
}

/// Every key that was acknowledged is on this member.
fn check_keys(member: &Member, keys: &[String]) {
    let mut client = member.client();
    for batch in keys.chunks(500) {
        let commands: Vec<Vec<&str>> =
            batch.iter().map(|key| vec!["GET", key.as_str(), "SERIALIZABLE"]).collect();
        let replies = client.pipeline(&commands).unwrap();
        for (key, reply) in batch.iter().zip(replies) {
            assert_eq!(reply.bulk(), key.as_bytes(), "{} lost {key}", member.name);
        }
    }
}

/// A member more, as a learner first. It is promoted as soon as it has caught up; until then that is refused.
fn add(cluster: &mut Cluster, load: &Load, name: &str) {
    let ports = load.ports.lock().unwrap().clone();
    let id = add_learner(cluster, &ports, name);
    until("the learner to catch up", PATIENCE, || {
        try_ctl(&ports, &["member", "promote", &id]).status.success().then_some(())
    });
    load.wait_for_progress();
}

/// A learner, started, with its data or about to have it; its id.
fn add_learner(cluster: &mut Cluster, ports: &[u16], name: &str) -> String {
    join(cluster, ports, name, true);
    until("the learner to tell its name", PATIENCE, || {
        let list = ctl(ports, &["member", "list"]);
        let line = list.lines().find(|line| line.contains(&format!(", started, {name}, ")))?;
        assert!(line.ends_with(", true"), "{line}");
        Some(line.split(", ").next().unwrap().to_string())
    })
}

/// A member less. It ends by itself, and does not start again.
fn remove(cluster: &mut Cluster, load: &Load, at: usize) {
    let mut gone = cluster.members.remove(at);
    let rest: Vec<u16> = cluster.members.iter().map(|member| member.client_port).collect();
    *load.ports.lock().unwrap() = rest.clone();
    ctl(&rest, &["member", "remove", &id_of(&rest, &gone.name)]);
    let status = gone.wait_exit(PATIENCE);
    assert_eq!(status.code(), Some(0), "{}", gone.log_tail(20));
    gone.start();
    assert_eq!(gone.wait_exit(PATIENCE).code(), Some(1), "{}", gone.log_tail(20));
    assert!(gone.log().contains("was removed from the cluster"), "{}", gone.log_tail(20));
    load.wait_for_progress();
}

/// All three of a cluster are replaced by others, one after the other.
#[test]
fn members_are_replaced_under_load() {
    let mut cluster = Cluster::start(&Setup::default());
    let load = Load::default();
    *load.ports.lock().unwrap() = cluster.members.iter().map(|member| member.client_port).collect();
    let ports = |load: &Load| load.ports.lock().unwrap().clone();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let load = &load;
            scope.spawn(move || load.write(writer));
        }
        let guard = EndAtDrop(&load.over);
        load.wait_for_progress();

        // One after the other, the leader first where it is still one of them.
        for name in ["n4", "n5", "n6"] {
            add(&mut cluster, &load, name);
            let original = |at: &usize| ["n1", "n2", "n3"].contains(&&*cluster.members[*at].name);
            let out = [cluster.leader()].into_iter().chain(0..4).find(original);
            remove(&mut cluster, &load, out.expect("one is left"));
        }
        let ports = ports(&load);
        let list = ctl(&ports, &["member", "list"]);
        let names: Vec<&str> = list.lines().filter_map(|line| line.split(", ").nth(2)).collect();
        assert_eq!(BTreeSet::from_iter(names), BTreeSet::from(["n4", "n5", "n6"]), "{list}");

        // Leadership goes where it is wanted.
        let leader = cluster.leader();
        let to = (leader + 1) % cluster.members.len();
        let id = id_of(&ports, &cluster.members[to].name);
        let moved = ctl(&ports, &["move-leader", &id]);
        assert!(moved.starts_with("Leadership transferred from ") && moved.contains(&id), "{moved}");
        assert_eq!(cluster.leader(), to);
        load.wait_for_progress();
        drop(guard);
    });
    let keys = load.written.lock().unwrap().clone();
    cluster.settle();
    for member in &cluster.members {
        check_keys(member, &keys);
    }
    cluster.stop_all();
    cluster.check_stopped();
    say(&format!(
        "members replaced: {} writes acknowledged in {:.1} s, longest gap of a writer {} ms",
        keys.len(),
        began.elapsed().as_secs_f64(),
        load.longest_gap.lock().unwrap().as_millis()
    ));
}

/// A learner takes the leader's place in one step, and then two voters go at once: there is a quorum all the while.
#[test]
fn several_members_change_in_one_step() {
    let mut cluster = Cluster::start(&Setup::default());
    let load = Load::default();
    let ports: Vec<u16> = cluster.members.iter().map(|member| member.client_port).collect();
    *load.ports.lock().unwrap() = ports.clone();
    std::thread::scope(|scope| {
        let writing = &load;
        (0..WRITERS).for_each(|writer| drop(scope.spawn(move || writing.write(writer))));
        let guard = EndAtDrop(&load.over);
        load.wait_for_progress();

        let learner = add_learner(&mut cluster, &ports, "n4");
        let mut gone = cluster.members.remove(cluster.leader());
        let rest: Vec<u16> = cluster.members.iter().map(|member| member.client_port).collect();
        *load.ports.lock().unwrap() = rest.clone();
        let old = id_of(&rest, &gone.name);
        let words = ["member", "change", "--promote", &learner, "--remove", &old];
        let unknown = try_ctl(&rest, &[&words[..], &["--remove", "dead"]].concat());
        assert!(
            !unknown.status.success() && shown(&unknown).contains("member not found"),
            "{}",
            shown(&unknown)
        );
        let changed = until("the learner to catch up", PATIENCE, || {
            let output = try_ctl(&rest, &words);
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
        });
        assert!(changed.starts_with("Members changed in cluster "), "{changed}");
        assert_eq!(gone.wait_exit(PATIENCE).code(), Some(0), "{}", gone.log_tail(20));
        let list = ctl(&rest, &["member", "list"]);
        assert!(list.lines().count() == 3 && !list.contains(&old), "{list}");
        assert!(list.lines().all(|line| line.ends_with(", false")), "{list}");
        load.wait_for_progress();

        // Two of three, which would leave one: the rest is a quorum of what is left.
        let mut pair = cluster.members.split_off(1);
        let last = [cluster.members[0].client_port];
        *load.ports.lock().unwrap() = last.to_vec();
        let ids: Vec<String> = pair.iter().map(|member| id_of(&last, &member.name)).collect();
        ctl(&last, &["member", "change", "--remove", &ids[0], "--remove", &ids[1]]);
        for member in &mut pair {
            assert_eq!(member.wait_exit(PATIENCE).code(), Some(0), "{}", member.log_tail(20));
        }
        load.wait_for_progress();
        drop(guard);
    });
    let keys = load.written.lock().unwrap().clone();
    cluster.settle();
    check_keys(&cluster.members[0], &keys);
    cluster.stop_all();
    cluster.check_stopped();
}

/// What several changes would come to is held against the rules for one: nothing of them happens then.
#[test]
fn several_changes_that_cost_the_quorum_are_refused() {
    let mut cluster = Cluster::start(&Setup::default());
    let ports: Vec<u16> = cluster.members.iter().map(|member| member.client_port).collect();
    cluster.settle();
    let before = ctl(&ports, &["member", "list"]);
    let ids: Vec<String> = ["n1", "n2", "n3"].iter().map(|name| id_of(&ports, name)).collect();
    let taken = format!("http://127.0.0.1:{}", cluster.members[0].peer_port);
    let too_few = "re-configuration failed due to not enough started members";
    for (words, why) in [
        (vec!["--remove", &ids[0], "--remove", &ids[1], "--remove", &ids[2]], too_few),
        (vec!["--remove", &ids[0], "--add", "http://a.test:1", "--add", "http://b.test:1"], too_few),
        (vec!["--remove", &ids[0], "--promote", &ids[1]], "can only promote a learner member"),
        (vec!["--remove", &ids[0], "--promote", "dead"], "member not found"),
        (vec!["--remove", &ids[0], "--add", &taken], "Peer URLs already exists"),
        (
            vec!["--add-learner", "http://a.test:1", "--add-learner", "http://b.test:1"],
            "too many learner members",
        ),
        (vec!["--remove", &ids[0], "--remove", &ids[0]], "each change is of another member"),
        (vec![], "no change"),
    ] {
        let output = try_ctl(&ports, &[&["member", "change"], &words[..]].concat());
        assert!(!output.status.success() && shown(&output).contains(why), "{words:?}: {}", shown(&output));
    }
    assert_eq!(ctl(&ports, &["member", "list"]), before);

    // One that is not heard may go, and another one may come; no other one may go.
    cluster.members[2].kill();
    pause(2 * Setup::default().election_ms);
    let words = ["member", "change", "--remove", &ids[0], "--add-learner", "http://a.test:1"];
    let refused = try_ctl(&ports[..2], &words);
    assert!(shown(&refused).contains("unhealthy cluster"), "{}", shown(&refused));
    let words = ["member", "change", "--remove", &ids[2], "--add-learner", "http://a.test:1"];
    let changed = ctl(&ports[..2], &words);
    assert!(changed.contains("added with peer URLs http://a.test:1"), "{changed}");
    cluster.members.pop();
    cluster.stop_all();
    cluster.check_stopped();
}

/// Restarts keep the membership, on members whose flags say otherwise; who was removed while it was down is told
/// when it calls, and goes.
#[test]
fn the_membership_survives_restarts() {
    let mut cluster = Cluster::start(&Setup::default());
    let ports: Vec<u16> = cluster.members.iter().map(|member| member.client_port).collect();
    cluster.put("a", "1");
    join(&mut cluster, &ports, "n4", false);
    cluster.settle();
    cluster.members[2].kill();
    let id = id_of(&ports[..2], "n3");
    ctl(&ports[..2], &["member", "remove", &id]);
    cluster.members[2].start();
    assert_eq!(cluster.members[2].wait_exit(PATIENCE).code(), Some(0), "{}", cluster.members[2].log_tail(20));
    cluster.members.remove(2);
    for member in &mut cluster.members {
        member.kill();
    }
    cluster.start_all();
    cluster.leader();
    let list = ctl(&ports[..2], &["member", "list"]);
    let names: Vec<&str> = list.lines().filter_map(|line| line.split(", ").nth(2)).collect();
    assert!(names.len() == 3 && !names.contains(&"n3"), "{list}");
    cluster.settle();
    cluster.stop_all();
    cluster.check_stopped();
}

/// Two of three are lost for good. The third goes on alone, with everything that it had; the others, should they
/// come back after all, are told that they are out.
#[test]
fn one_member_goes_on_alone_when_an_operator_says_so() {
    let mut cluster = Cluster::start(&Setup::default());
    let keys: Vec<String> = (0..50).map(|number| format!("k{number}")).collect();
    for key in &keys {
        cluster.put(key, key);
    }
    cluster.settle();
    for member in &mut cluster.members {
        member.kill();
    }
    let mut others = cluster.members.split_off(1);
    cluster.members[0].args.push("--force-new-cluster".into());
    cluster.members[0].start();
    cluster.leader();
    cluster.put("after", "it");
    check_keys(&cluster.members[0], &keys);
    let port = [cluster.members[0].client_port];
    let list = ctl(&port, &["member", "list"]);
    assert!(list.lines().count() == 1 && list.contains(", n1, "), "{list}");
    // It can grow again.
    join(&mut cluster, &port, "n4", false);
    cluster.settle();
    cluster.members[0].args.pop();
    others[0].start();
    assert_eq!(others[0].wait_exit(PATIENCE).code(), Some(0), "{}", others[0].log_tail(20));
    cluster.stop_all();
    cluster.check_stopped();
}
