//! Members that know each other by names: with several addresses, and with a name service that hangs. Every member
//! has a view of the file system in which the files that say how names are resolved are the test's; where this
//! process may not make one, the test says so.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use crate::harness::{Cluster, PATIENCE, Setup, find, run, say, skip};
use crate::resp::Reply;

/// Mounts the test's files over those of the system, and becomes the member.
const ENTER: &str =
    "mount --bind \"$1\" /etc/hosts && mount --bind \"$2\" /etc/resolv.conf && shift 2 && exec \"$@\"";

/// Longer than a test waits for anything: a lookup that is not answered hangs for two and a half minutes.
const HANGS: &str = "options timeout:30 attempts:5\n";

struct Names {
    cluster: Cluster,
    hosts: std::path::PathBuf,
}

impl Names {
    /// Three members at `n1.test`, `n2.test` and `n3.test`. None where that cannot be done.
    fn prepare(setup: &Setup, name_server: Ipv4Addr) -> Option<Names> {
        let mut cluster = Cluster::prepare(setup);
        let (hosts, resolver) = (cluster.path().join("hosts"), cluster.path().join("resolv.conf"));
        fs::write(&hosts, "127.0.0.1 here.test\n").unwrap();
        fs::write(&resolver, format!("nameserver {name_server}\n{HANGS}")).unwrap();
        let starter = starter(&hosts, &resolver)?;
        let ports: Vec<u16> = cluster.members.iter().map(|member| member.peer_port).collect();
        for member in &mut cluster.members {
            member.starter.clone_from(&starter);
            for arg in &mut member.args {
                if arg.starts_with("--listen-") {
                    continue;
                }
                for (at, port) in ports.iter().enumerate() {
                    *arg = arg.replace(&format!("127.0.0.1:{port}"), &format!("n{}.test:{port}", at + 1));
                }
            }
        }
        Some(Names { cluster, hosts })
    }

    /// These addresses are what the names mean from now on; a name without one is asked of the name server.
    fn mean(&self, addresses: &[[&str; 2]]) {
        let lines: Vec<String> =
            addresses.iter().map(|[address, name]| format!("{address} {name}\n")).collect();
        // Written in place: the file is mounted.
        fs::write(&self.hosts, lines.concat()).unwrap();
    }
}

/// None where it does not work: no right to mount, or names are not looked for in the file.
fn starter(hosts: &Path, resolver: &Path) -> Option<Vec<String>> {
    let unshare = find("unshare")?.display().to_string();
    let words =
        [unshare, "-m".into(), find("sh")?.display().to_string(), "-c".into(), ENTER.into(), "sh".into()];
    let files = [hosts, resolver].map(|file| file.display().to_string());
    let starter: Vec<String> = words.into_iter().chain(files).collect();
    let getent = find("getent")?.display().to_string();
    let probe: Vec<&str> =
        starter[1..].iter().map(String::as_str).chain([&*getent, "ahosts", "here.test"]).collect();
    run(&starter[0], &probe).status.success().then_some(starter)
}

/// Each name has an address where a member listens and two where nobody does, one of them before it: an answer has the
/// addresses of the newer family first.
#[test]
fn all_addresses_of_a_name_are_tried() {
    let Some(mut names) = Names::prepare(&Setup::default(), Ipv4Addr::LOCALHOST) else {
        return skip("names with several addresses", "this process may not mount files");
    };
    let everywhere = ["::1", "127.9.9.9", "127.0.0.1"];
    let meanings = ["n1.test", "n2.test", "n3.test"].map(|name| everywhere.map(|address| [address, name]));
    names.mean(&meanings.concat());
    names.cluster.start_all();
    names.cluster.leader();
    names.cluster.settle();
    names.cluster.stop_all();
    names.cluster.check_stopped();
}

/// A machine goes, and with it the name server: the others write on, far more than memory holds back for a checkpoint
/// that does not come. The machine comes back, its name still cannot be looked up, and it is found where it was.
#[test]
fn a_hanging_name_service_holds_up_nothing() {
    let server = Ipv4Addr::new(127, 53, (std::process::id() % 250) as u8, 1);
    let Ok(silent) = UdpSocket::bind((server, 53)) else {
        return skip("a hanging name service", "this process may not listen on port 53");
    };
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let Some(mut names) = Names::prepare(&Setup::default(), server) else {
        return skip("a hanging name service", "this process may not mount files");
    };
    names.mean(&[["127.0.0.1", "n1.test"], ["127.0.0.1", "n2.test"], ["127.0.0.1", "n3.test"]]);
    names.cluster.start_all();
    names.cluster.lead(0);
    names.cluster.settle();

    names.cluster.members[2].kill();
    names.mean(&[["127.0.0.1", "n1.test"], ["127.0.0.1", "n2.test"]]);
    let (_, asker) =
        silent.recv_from(&mut [0; 512]).expect("somebody asks for the name of the one that is gone");
    let cluster = &mut names.cluster;
    let mut client = cluster.members[0].client();
    let value = "x".repeat(100_000);
    for number in 0..400 {
        let put = client.call(&["PUT", &format!("k{number}"), &value]).unwrap();
        assert!(matches!(put, Reply::Integer(_)), "{number}: {put:?}\n{}", cluster.members[0].log_tail(20));
    }

    // It can look up the others.
    cluster.members[2].start();
    let revision = cluster.settle();
    say(&format!(
        "a name server at {server} that says nothing, asked from {asker}: revision {revision} is everywhere"
    ));

    // Nor does a stop wait for it.
    cluster.stop_all();
    cluster.check_stopped();
}
