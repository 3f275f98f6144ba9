//! `pawlctl` under the name `etcdctl` beside a real etcdctl 3.5: the same commands, each to a member of Pawl of its own, print the
//! same and end with the same code. What differs on purpose is in `docs/flags.md`, and is not asked here, or named where it is.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::differential::etcd::Etcd;
use crate::etcdctl::{Side, life_of_a_lease, on_keys};
use crate::etcdctl_sessions::{
    ENDS_IT, commands_of_a_watch, locks_and_elections, of_members, revision_of, shape, typed_watches_as_json,
    watches_that_are_typed, watches_that_end,
};
use crate::harness::{Cluster, PATIENCE, PAWLD, Setup, home, run_with, skip, until};

/// Pawl's client under that name.
pub(crate) fn link(home: &Path) -> PathBuf {
    let link = home.join("etcdctl");
    std::os::unix::fs::symlink(PAWLD, &link).unwrap();
    link
}

/// Two members of the same name and peer URL, so that ids are the same, too: one for each client.
struct Twins {
    sides: [Side; 2],
    _clusters: [Cluster; 2],
    _home: tempfile::TempDir,
}

fn twins() -> Option<Twins> {
    let Some(etcdctl) = Etcd::start().and_then(|etcd| etcd.etcdctl()) else {
        skip("pawlctl as etcdctl", "there is no etcd 3.5");
        return None;
    };
    let clusters = [(); 2].map(|()| {
        let mut cluster =
            Cluster::prepare(&Setup { heartbeat_ms: 100, election_ms: 1_000, ..Setup::single() });
        for arg in &mut cluster.members[0].args {
            for name in ["--initial-advertise-peer-urls=", "--initial-cluster=n1="] {
                if arg.starts_with(name) {
                    *arg = format!("{name}http://127.0.0.1:9");
                }
            }
        }
        cluster.start_all();
        cluster.leader();
        cluster
    });
    let home = home();
    let clients = [link(home.path()), etcdctl];
    let mut clients = clients.into_iter();
    let sides = clusters.each_ref().map(|cluster| Side {
        endpoints: cluster.members[0].address().to_string(),
        etcdctl: clients.next().expect("one for each"),
    });
    Some(Twins { sides, _clusters: clusters, _home: home })
}

const FORMATS: [&str; 4] = ["simple", "json", "fields", "table"];

fn same<T: PartialEq + std::fmt::Debug>(sides: &[Side; 2], what: &str, ask: impl Fn(&Side) -> T) {
    let [ours, theirs] = sides.each_ref().map(ask);
    assert_eq!(ours, theirs, "{what}");
}

/// The same commands to both, one by one, in every format.
fn compare(sides: &[Side; 2], commands: &[(&str, &str)]) {
    for (command, input) in commands {
        let words: Vec<&str> = command.split(' ').map(|word| if word == "''" { "" } else { word }).collect();
        if words.contains(&"-w") {
            same(sides, command, |side| side.run(&words, input));
            continue;
        }
        for format in FORMATS {
            // etcdctl has done a transaction before it says that it cannot print it so.
            if words[0] != "txn" || format != "table" {
                let words = [&words[..], &["-w", format]].concat();
                same(sides, &format!("{words:?}"), |side| side.run(&words, input));
            }
        }
    }
}

#[test]
fn commands_on_keys() {
    let Some(twins) = twins() else { return };
    compare(&twins.sides, &on_keys());
    let transactions = [
        ("txn -i", "\n\n\n"),
        ("txn", ""),
        ("txn", "x(\"k\") = \"1\"\n"),
        ("txn", "mod(\"k\") = \"x\"\n"),
        ("txn", "\nfoo bar\n"),
        ("txn", "\nput\n"),
        ("put from-stdin", "a value\nof lines\n"),
        ("get from-stdin --hex", ""),
    ];
    // Of a comparison that cannot be read it says why.
    for (command, input) in transactions {
        let words: Vec<&str> = command.split(' ').collect();
        same(&twins.sides, command, |side| side.run(&words, input).replace(" (unknown target x)", ""));
    }
}

#[test]
fn other_commands() {
    let Some(twins) = twins() else { return };
    let plain = |command: &'static str| (command, "");
    compare(
        &twins.sides,
        &[
            plain("lease grant 600"),
            plain("lease grant 9000000001"),
            plain("lease grant x"),
            plain("lease grant"),
            plain("lease revoke 99"),
            plain("lease revoke xyz"),
            plain("lease timetolive 99"),
            plain("lease timetolive 99 --keys"),
            plain("lease keep-alive 99"),
            plain("lease keep-alive 99 --once"),
            plain("lease list"),
            plain("endpoint hashkv"),
            plain("endpoint hashkv --cluster"),
            plain("alarm list"),
            plain("alarm list x"),
            plain("alarm disarm -w simple"),
            plain("alarm disarm -w json"),
            plain("defrag"),
            plain("defrag --cluster"),
            plain("move-leader 1234"),
            plain("move-leader"),
            plain("move-leader xyz"),
            plain("member list"),
            plain("member list --hex"),
            plain("member remove 1234 -w simple"),
            plain("member remove 1234 -w json"),
            plain("member promote 1234 -w json"),
            plain("member update 1234 --peer-urls=http://127.0.0.1:1 -w json"),
            plain("member add"),
            plain("member add x"),
            plain("member add x y"),
            plain("member remove"),
            plain("member remove xyz"),
            plain("member update"),
            plain("member update 1234"),
            plain("member promote"),
            plain("compaction"),
            plain("compaction x"),
            plain("compaction 1 2"),
            plain("compact 1"),
            plain("get"),
            plain("put"),
            plain("del"),
            plain("del a b c"),
            plain("get a --order=foo"),
            plain("get a --sort-by=foo"),
            plain("get a --consistency=foo"),
            plain("get a --prefix --from-key"),
            plain("put a b --lease=xyz"),
            plain("put a b --ignore-value"),
            plain("get a -w foo"),
            plain("put /etcdctl-check-perf/x 1"),
            plain("check perf"),
            plain("make-mirror"),
            plain("make-mirror a b"),
            plain("make-mirror a --dest-prefix=x --no-dest-prefix"),
        ],
    );
    same(&twins.sides, "the life of a lease", life_of_a_lease);
    same(&twins.sides, "the life of a member", life_of_a_member);
    same(&twins.sides, "of members", of_members);
}

/// A learner that never starts.
fn life_of_a_member(side: &Side) -> Vec<String> {
    // Its id is new in each second, and members stand in the order of ids: it shall be the first.
    let added = || {
        let urls = "--peer-urls=http://127.0.0.1:7,http://127.0.0.1:8";
        let said = side.run(&["member", "add", "n2", "--learner", urls], "");
        let output = run_with(&mut side.command(&["member", "list"]), b"", PATIENCE);
        let list = String::from_utf8(output.stdout).unwrap();
        // None: it has the id of the one before, which cannot come back.
        let line = list.lines().find(|line| line.contains("unstarted"))?;
        let id = line.split(',').next()?.to_owned();
        if list.starts_with(line) {
            return Some((said, id));
        }
        side.run(&["member", "remove", &id], "");
        None
    };
    let (said, id) = until("an id below the other one", PATIENCE, added);
    let mut told = vec![said];
    told.extend(FORMATS.map(|format| side.run(&["member", "list", "-w", format], "")));
    for words in [
        &["member", "add", "n3", "--peer-urls=http://127.0.0.1:7"][..],
        &["member", "promote", &id],
        &["member", "update", &id, "--peer-urls=http://127.0.0.1:6"],
        &["member", "update", &id, "--peer-urls=http://127.0.0.1:5", "-w", "json"],
        &["member", "remove", &id, "-w", "json"],
        &["member", "remove", &id],
    ] {
        told.push(side.run(words, ""));
    }
    // An id that begins with zeros is shorter, and made as long by blanks.
    told.iter().map(|text| text.replace("  ", " ").replace("--", "-")).collect()
}

#[test]
fn sessions() {
    let Some(twins) = twins() else { return };
    let sides = &twins.sides;
    same(sides, "typed", watches_that_are_typed);
    same(sides, "typed, as JSON", typed_watches_as_json);
    same(sides, "commands of a watch", commands_of_a_watch);
    same(sides, "watches that end", watches_that_end);
    same(sides, "locks and elections", locks_and_elections);
    for line in ENDS_IT {
        same(sides, line, |side| {
            let mut typed = side.begin(&["watch", "-i"]);
            typed.type_line(line);
            typed.end()
        });
    }
    for format in FORMATS {
        same(sides, format, |side| {
            side.run(&["put", "w", "1"], "");
            let rev = revision_of(side, "w");
            let watch = side.begin(&["watch", "w", "--prev-kv", "--rev", &rev, "-w", format]);
            if format == "table" {
                return watch.end().0;
            }
            let lines =
                [("simple", 3), ("json", 1), ("fields", 11)].into_iter().find(|(name, _)| *name == format);
            let told = watch.lines(lines.expect("one of them").1);
            side.run(&["del", "w"], "");
            told
        });
    }
}

/// Flags and variables: who is asked, and how it is printed.
#[test]
fn variables() {
    let Some(twins) = twins() else { return };
    let sides = &twins.sides;
    same(sides, "put", |side| side.run(&["put", "k", "v"], ""));
    let cases: [&[(&str, &str)]; 12] = [
        &[],
        &[("ETCDCTL_API", "3")],
        &[("ETCDCTL_WRITE_OUT", "json")],
        &[("ETCDCTL_WRITE_OUT", "fields")],
        &[("ETCDCTL_WRITE_OUT", "table")],
        &[("ETCDCTL_WRITE_OUT", "nonsense")],
        &[("ETCDCTL_HEX", "true")],
        &[("ETCDCTL_HEX", "true"), ("ETCDCTL_WRITE_OUT", "json")],
        &[("ETCDCTL_COMMAND_TIMEOUT", "30s"), ("ETCDCTL_DIAL_TIMEOUT", "30s")],
        &[("ETCDCTL_INSECURE_TRANSPORT", "true")],
        // These are no variables of it.
        &[("ETCDCTL_PREFIX", "true")],
        &[("ETCDCTL_NONSENSE", "1")],
    ];
    for case in cases {
        for words in [&["get", "k"][..], &["member", "list"], &["get", "k", "-w", "simple"]] {
            // etcdctl refuses what a flag and a variable both say; here the flag wins.
            let said_twice =
                words.contains(&"-w") && case.iter().any(|(name, _)| *name == "ETCDCTL_WRITE_OUT");
            if !said_twice {
                same(sides, &format!("{case:?} {words:?}"), |side| {
                    let mut command = Command::new(&side.etcdctl);
                    command.env_clear().env("ETCDCTL_ENDPOINTS", &side.endpoints);
                    side.run_command(command.envs(case.iter().copied()).args(words), "")
                });
            }
        }
    }
}

/// etcdctl says these twice and prints how a command is used; here it is one line, and the same code.
#[test]
fn words_that_are_not_understood() {
    let Some(twins) = twins() else { return };
    for command in ["nothing", "nothing x", "get a --bogus", "get a -x", "lock l sh -c true"] {
        let words: Vec<&str> = command.split(' ').collect();
        same(&twins.sides, command, |side| {
            let output = run_with(&mut side.command(&words), b"", PATIENCE);
            let complaints = String::from_utf8(output.stderr).unwrap();
            (output.status.code(), complaints.lines().next().map(str::to_owned))
        });
    }
}

/// Nobody answers: etcdctl's lines, and here also why.
#[test]
fn nobody_answers() {
    const WHY: &str = "cannot reach 127.0.0.1:1: connection refused";
    let Some(twins) = twins() else { return };
    let compare = |words: &[&str]| {
        let [ours, theirs] = twins.sides.each_ref().map(|side| {
            let mut command = Command::new(&side.etcdctl);
            command.env_clear().args(["--endpoints=127.0.0.1:1", "--command-timeout=1s"]).args(words);
            side.run_command(&mut command, "")
        });
        assert!(ours.contains(WHY) && !theirs.contains(WHY), "{words:?}: {ours}");
        let without_why = ours.replace(&format!(": {WHY}"), "").replace("Warning\n", "");
        assert_eq!(shape(&without_why), shape(&theirs), "{words:?}");
    };
    for command in [
        "get k",
        "del k",
        "compaction 1",
        "member list",
        "member remove 12",
        "move-leader 12",
        "endpoint health --cluster",
        "defrag",
        "defrag --cluster",
        "alarm list",
        "lease grant 5",
        "lease revoke 5",
    ] {
        compare(&command.split(' ').collect::<Vec<_>>());
    }
    for command in ["health", "status", "hashkv"] {
        FORMATS.iter().for_each(|format| compare(&["endpoint", command, "-w", format]));
    }
}
