//! A machine whose cable is pulled: its packets vanish both ways, no connection ends, and nobody is told. One member
//! has a network namespace of its own for that; where this process may not make one, the test says so.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, PATIENCE, PAWLD, Setup, find, run, say, shown, skip, until};
use crate::resp::{Client, Reply, unsigned};

/// A namespace and a bridge from here to it, of addresses that are set aside for tests of networks. Gone at the end.
struct Island {
    ip: String,
    name: String,
    here: Ipv4Addr,
    there: Ipv4Addr,
}

impl Island {
    /// None where this process may not do that.
    fn new() -> Option<Island> {
        let ip = find("ip")?.display().to_string();
        let number = std::process::id();
        let name = format!("pawl{number}");
        let [here, there] = [1, 2].map(|host| Ipv4Addr::new(198, 18, (number % 256) as u8, host));
        let island = Island { ip, name, here, there };
        let (name, cable) = (&island.name, format!("{}v", island.name));
        let made = [
            format!("netns add {name}"),
            format!("link add {name} type bridge"),
            format!("addr add {here}/24 dev {name}"),
            format!("link set {name} up"),
            format!("link add {cable} type veth peer name eth0 netns {name}"),
            format!("link set {cable} master {name} up"),
            format!("-n {name} addr add {there}/24 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
        ]
        .iter()
        .all(|words| island.run(words));
        made.then_some(island)
    }

    fn run(&self, words: &str) -> bool {
        run(&self.ip, &words.split(' ').collect::<Vec<_>>()).status.success()
    }

    fn plug(&self, state: &str) {
        assert!(self.run(&format!("link set {}v {state}", self.name)));
    }

    /// How a program is started there.
    fn inside(&self) -> Vec<String> {
        [&self.ip, "netns", "exec", &self.name].map(String::from).to_vec()
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        self.run(&format!("link del {}", self.name));
        self.run(&format!("netns del {}", self.name));
    }
}

#[test]
fn an_unplugged_leader_is_replaced_and_serves_nothing() {
    let Some(island) = Island::new() else {
        return skip("an unplugged leader", "this process may not make network namespaces");
    };
    let mut cluster = Cluster::prepare(&Setup::default());
    let peers: Vec<String> =
        cluster.members.iter().map(|member| format!("127.0.0.1:{}", member.peer_port)).collect();
    for at in 0..3 {
        let member = &mut cluster.members[at];
        for (number, peer) in peers.iter().enumerate() {
            let host = if number == 0 { island.there } else { island.here };
            let moved = format!("{host}:{}", peer.rsplit(':').next().expect("a port"));
            member.args.iter_mut().for_each(|arg| *arg = arg.replace(peer, &moved));
        }
    }
    let away = &mut cluster.members[0];
    let client = format!("127.0.0.1:{}", away.client_port);
    away.args
        .iter_mut()
        .for_each(|arg| *arg = arg.replace(&client, &format!("{}:{}", island.there, away.client_port)));
    away.host = island.there;
    away.starter = island.inside();
    cluster.start_all();

    cluster.lead(0);
    cluster.put("k", "old");
    let logs = [1, 2].map(|at| cluster.members[at].log().len());
    let endpoint = format!("--endpoints=http://{}", cluster.members[0].address());
    let read_inside = || {
        let words =
            ["netns", "exec", &island.name, PAWLD, "ctl", &endpoint, "--command-timeout=3s", "get", "k"];
        run(&island.ip, &words)
    };
    let read = read_inside();
    assert!(read.status.success() && read.stdout == b"k\nold\n", "{}", shown(&read));

    island.plug("down");
    let began = Instant::now();
    let mut client = cluster.members[1].client();
    until("a write without the leader", PATIENCE, || {
        matches!(client.call(&["PUT", "k", "new"]), Ok(Reply::Integer(_))).then_some(())
    });
    let replaced = began.elapsed();
    let read = read_inside();
    assert!(!read.status.success() && read.stdout.is_empty(), "it still serves: {}", shown(&read));
    // The dead connections are noticed by both that are left, long before the kernel would by itself.
    until("the dead connections to be noticed", PATIENCE, || {
        let noticed = |at: usize| {
            let log = cluster.members[at].log().split_off(logs[at - 1]);
            log.lines().any(|line| line.contains(&island.there.to_string()) && line.contains("not reachable"))
        };
        (noticed(1) && noticed(2)).then_some(())
    });
    let noticed = began.elapsed();

    let last = unsigned(&client.call(&["PUT", "k", "newer"]).unwrap());
    island.plug("up");
    let began = Instant::now();
    until("the member to be back", PATIENCE, || {
        let mut back = Client::connect_to(cluster.members[0].address(), Duration::from_secs(1)).ok()?;
        match back.call(&["GET", "k"]) {
            Ok(Reply::Bulk(value)) => {
                assert_eq!(value, b"newer", "an old answer");
                Some(())
            }
            _ => None,
        }
    });
    say(&format!(
        "unplugged leader: a write without it after {replaced:.1?}, dead connections noticed after {noticed:.1?}, \
         right answers {:.1?} after it was plugged in",
        began.elapsed()
    ));
    cluster.agree(last);
    cluster.stop_all();
    cluster.check_stopped();
}
