//! What runs on of a real etcdctl, 3.5 and 3.4, against Pawl and against a real etcd: watches that are typed in, commands that are
//! run, mirrors, checks. What one command prints and is done is in `etcdctl.rs`.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::time::Duration;

use crate::etcdctl::{Running, Side, both, compare, with_34};
use crate::harness::{Cluster, PATIENCE, Setup, run_with, skip, until};

/// Both answer the same, one after the other.
fn same<T: PartialEq + std::fmt::Debug>(sides: &[Side; 2], what: impl Fn(&Side) -> T) {
    let [ours, theirs] = sides.each_ref().map(what);
    assert_eq!(ours, theirs);
}

/// The same by both clients.
fn by_both_clients(test: impl Fn(&[Side; 2])) {
    let Some((_cluster, _etcd, sides)) = both() else { return };
    test(&sides);
    if let Some(older) = with_34(&sides) {
        for side in &sides {
            side.run(&["del", "", "--from-key"], "");
        }
        test(&older);
    }
}

/// What is asked for a sign answers when all that was typed before has begun: a line for each watch.
fn settle(running: &mut Running, watches: usize, lines_of_each: usize) -> Vec<String> {
    running.type_line("progress");
    let mut lines = running.lines(watches * lines_of_each);
    // Each is told by a thread of its own.
    lines.sort();
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("progress notify: ")).count(),
        watches,
        "{lines:?}"
    );
    lines
}

fn put(side: &Side, words: &[&str]) {
    let said = side.run(words, "");
    assert!(said.ends_with("exit Some(0)\n"), "{words:?}: {said}");
}

pub(crate) fn watches_that_are_typed(side: &Side) -> Vec<Vec<String>> {
    let mut typed = side.begin(&["watch", "-i"]);
    let mut told = Vec::new();
    typed.type_line("watch a");
    told.push(settle(&mut typed, 1, 1));
    put(side, &["put", "a", "1"]);
    told.push(typed.lines(3));
    typed.type_line("watch b --prefix --prev-kv");
    typed.type_line("watch c d -- echo seen");
    told.push(settle(&mut typed, 3, 1));
    for words in [&["put", "b1", "x"][..], &["put", "b1", "y"], &["del", "b1"], &["put", "c5", "z"]] {
        put(side, words);
    }
    told.push(typed.lines(3 + 5 + 5 + 4));
    for (line, complaints) in
        [("", 1), ("nonsense a", 1), ("watch", 1), ("watch a b --prefix", 1), ("watch -- echo x", 1)]
    {
        typed.type_line(line);
        told.push(typed.complaints(complaints));
    }
    told.push(settle(&mut typed, 3, 1));
    // One that the server ends leaves the others as they are.
    let revision: u64 = told.last().unwrap()[0].trim()["progress notify: ".len()..].parse().unwrap();
    put(side, &["compaction", &revision.to_string()]);
    typed.type_line(&format!("watch a --rev {}", revision - 1));
    told.push(typed.complaints(1));
    told.push(settle(&mut typed, 3, 1));
    put(side, &["put", "a", "2"]);
    told.push(typed.lines(3));
    let (said, code) = typed.end();
    told.push(said);
    told.push(vec![format!("{code:?}")]);
    told
}

#[test]
fn watches_are_typed_in() {
    by_both_clients(|sides| same(sides, watches_that_are_typed));
}

pub(crate) fn typed_watches_as_json(side: &Side) -> Vec<Vec<String>> {
    let mut typed = side.begin(&["watch", "-i", "-w", "json"]);
    typed.type_line("watch a --prev-kv");
    let mut told = vec![settle(&mut typed, 1, 2)];
    put(side, &["put", "a", "1"]);
    put(side, &["del", "a"]);
    told.push(typed.lines(2));
    typed.type_line("watch b");
    told.push(settle(&mut typed, 2, 2));
    told
}

#[test]
fn typed_watches_are_printed_as_json() {
    by_both_clients(|sides| same(sides, typed_watches_as_json));
}

/// What ends the whole session.
pub(crate) const ENDS_IT: [&str; 5] =
    ["watch a --bogus", "watch --prefix", "watch a --", "watch a -x", "watch a b -- "];

#[test]
fn what_cannot_be_typed_ends_the_session() {
    by_both_clients(|sides| {
        for line in ENDS_IT {
            same(sides, |side| {
                let mut typed = side.begin(&["watch", "-i"]);
                typed.type_line(line);
                typed.end()
            });
        }
    });
}

pub(crate) fn revision_of(side: &Side, key: &str) -> String {
    let found = side.run(&["get", key, "-w", "fields"], "");
    found
        .lines()
        .find_map(|line| line.strip_prefix("\"ModRevision\" : "))
        .expect("the key is there")
        .to_owned()
}

/// A command for each event, with what happened in its environment.
pub(crate) fn commands_of_a_watch(side: &Side) -> Vec<String> {
    let script = r#"echo "$ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE""#;
    put(side, &["put", "e/0", "first"]);
    let revision = revision_of(side, "e/0");
    let watch = side.begin(&["watch", "--rev", &revision, "e/", "--prefix", "--", "sh", "-c", script]);
    let mut told = watch.lines(4);
    put(side, &["put", "e/1", "with \"quotes\"\nand lines"]);
    told.extend(watch.lines(5));
    put(side, &["del", "e/1"]);
    told.extend(watch.lines(4));
    told
}

#[test]
fn a_watch_runs_commands() {
    by_both_clients(|sides| same(sides, commands_of_a_watch));
}

/// Commands that fail, and what is no watch: the words behind `watch`, and variables.
pub(crate) fn watches_that_end(side: &Side) -> Vec<String> {
    put(side, &["put", "k", "v"]);
    let then = revision_of(side, "k");
    let end = |words: &[&str], variables: &[(&str, &str)]| {
        let words = [&["watch"], words].concat();
        side.run_command(side.command(&words).envs(variables.iter().copied()), "")
    };
    let key = ("ETCDCTL_WATCH_KEY", "k");
    let range_end = ("ETCDCTL_WATCH_RANGE_END", "z");
    vec![
        end(&["k", "--rev", &then, "--", "false"], &[]),
        end(&["k", "--rev", &then, "--", "/no/such/program"], &[]),
        end(&["k", "--rev", &then, "--", "no-such-program"], &[]),
        end(&["k", "--rev", &then, "--", "sh", "-c", "exit 7"], &[]),
        end(&["k", "--rev", &then, "--", "sh", "-c", "kill -9 $$"], &[]),
        end(&["--rev", &then, "--", "false"], &[key]),
        end(&["--rev", &then, "--", "false"], &[key, range_end]),
        end(&["--rev", &then, "--", "false"], &[range_end]),
        end(&["k"], &[key]),
        end(&["k", "--"], &[]),
        end(&["--", "echo", "k"], &[]),
        end(&[], &[]),
        end(&["k", "z", "--prefix"], &[]),
    ]
}

#[test]
fn watches_end_as_etcds() {
    by_both_clients(|sides| same(sides, watches_that_end));
}

/// A lock's command, and an election, in each format that they have.
pub(crate) fn locks_and_elections(side: &Side) -> Vec<Vec<String>> {
    let script = r#"echo "$ETCD_LOCK_KEY"; exit 3"#;
    let run = |words: &[&str]| vec![side.run(words, "")];
    let mut told = vec![
        run(&["lock", "l1", "--", "sh", "-c", script]),
        run(&["lock", "l2", "true", "--ttl", "5"]),
        // The older client keeps the lock of a command that fails, as long as its lease.
        run(&["lock", "l3", "false"]),
        run(&["lock", "l4", "/no/such/program"]),
        run(&["lock", "l5", "--", "sh", "-c", "kill -9 $$"]),
        run(&["lock"]),
        run(&["elect"]),
        run(&["elect", "e"]),
        run(&["elect", "-l", "e", "p"]),
        run(&["get", "l2", "--prefix", "--keys-only"]),
    ];
    for (format, lines) in [("simple", 2), ("fields", 12)] {
        let election = format!("e-{format}");
        let lock = side.begin(&["lock", format, "-w", format]);
        told.push(lock.lines(lines));
        let leader = side.begin(&["elect", &election, "me", "-w", format]);
        told.push(leader.lines(lines));
        let observer = side.begin(&["elect", "-l", &election, "-w", format]);
        told.push(observer.lines(lines));
    }
    told
}

#[test]
fn locks_run_commands_and_elections_are_shown() {
    by_both_clients(|sides| same(sides, |side| without_revisions(locks_and_elections(side))));
}

/// What was left before may have gone meanwhile, with its lease.
fn without_revisions(told: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let numbers = ["\"Revision\" : ", "\"CreateRevision\" : ", "\"ModRevision\" : "];
    let level = |line: String| match numbers.iter().find(|name| line.starts_with(**name)) {
        Some(name) => format!("{name}N"),
        None => line,
    };
    told.into_iter().map(|lines| lines.into_iter().map(level).collect()).collect()
}

/// What tells of servers and members, in every format. Numbers differ by themselves, and the version on purpose.
const OF_MEMBERS: [&str; 6] = [
    "endpoint status",
    "endpoint status --cluster",
    "endpoint health",
    "endpoint health --cluster",
    "member list",
    "defrag --cluster",
];

pub(crate) fn of_members(side: &Side) -> Vec<String> {
    let mut told = Vec::new();
    for command in OF_MEMBERS {
        for format in ["simple", "json", "fields", "table"] {
            let words: Vec<&str> = command.split(' ').chain(["-w", format]).collect();
            told.push(format!("{words:?}: {}", shape(&side.run(&words, ""))));
        }
    }
    told
}

/// Without numbers, ids, sizes, times and what is drawn around them.
pub(crate) fn shape(text: &str) -> String {
    let text = text.replace("3.5.0+pawl.0.1.0", "VERSION").replace("3.5.1", "VERSION");
    let mut out = String::new();
    for word in text.split_inclusive(|c: char| !(c.is_alphanumeric() || ".µ".contains(c))) {
        let end = word.trim_end_matches(|c: char| !(c.is_alphanumeric() || c == '.'));
        let level = if end.starts_with(|c: char| c.is_ascii_digit()) || end == "ID" { "N" } else { end };
        let rest = word[end.len()..].trim_start_matches([' ', '-']);
        out.push_str(level);
        out.push_str(rest);
    }
    for unit in ["kB", "MB", "B"] {
        out = out.replace(&format!("N{unit}"), "N");
    }
    out
}

#[test]
fn servers_and_members_are_told_alike() {
    let Some((_cluster, _etcd, sides)) = both() else { return };
    same(&sides, of_members);
}

/// Everything, as a client prints it.
fn content(side: &Side) -> Vec<(String, String)> {
    let output = run_with(&mut side.command(&["get", "", "--prefix", "-w", "json"]), b"", PATIENCE);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let pairs = answer["kvs"].as_array().into_iter().flatten();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    pairs.map(|kv| (text(&kv["key"]), text(&kv["value"]))).collect()
}

/// Three mirrors at once between two servers: what is copied, and what is done while they run.
fn mirror(from: &Side, to: &Side) {
    let key = |key: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key);
    for number in 0..150 {
        put(from, &["put", &format!("m/{number}"), &number.to_string()]);
    }
    put(from, &["put", "n/1", "one"]);
    put(from, &["put", "unseen", "x"]);
    let mirrors: [&[&str]; 3] =
        [&["--prefix=m/", "--dest-prefix=copy/"], &["--prefix=m/", "--no-dest-prefix"], &["--prefix=n/"]];
    let running = mirrors.map(|words| from.begin(&[&["make-mirror", &to.endpoints], words].concat()));
    let expect = || {
        let mut expected = Vec::new();
        for (name, value) in content(from) {
            let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &name).unwrap();
            let name = String::from_utf8(decoded).unwrap();
            if let Some(rest) = name.strip_prefix("m/") {
                expected.push((key(&format!("copy/{rest}")), value.clone()));
                expected.push((key(rest), value));
            } else if name.starts_with("n/") {
                expected.push((key(&name), value));
            }
        }
        expected.sort();
        expected
    };
    let agree = || {
        let expected = expect();
        let found = || {
            let mut found = content(to);
            found.sort();
            found
        };
        until("the copies", PATIENCE, || (found() == expected).then_some(()));
        expected.len()
    };
    assert_eq!(agree(), 301);
    put(from, &["put", "m/1", "again"]);
    put(from, &["del", "m/2", "m/3"]);
    from.run(&["txn"], "mod(\"m/1\") > \"0\"\n\nput m/x 1\nput m/y 2\ndel n/1\nput n/2 two\n\n\n");
    put(from, &["put", "unseen", "y"]);
    put(from, &["del", "m/5", "m/6"]);
    assert!(agree() > 200);
    for running in running {
        assert!(running.is_silent());
    }
}

/// From Pawl to Pawl, from etcd to Pawl, and from Pawl to etcd.
#[test]
fn mirrors_are_equal() {
    let Some((_cluster, etcd, [ours, theirs])) = both() else { return };
    let single = Setup { heartbeat_ms: 100, election_ms: 1_000, ..Setup::single() };
    let others = [Cluster::start(&single), Cluster::start(&single)];
    let [second, third] = others.each_ref().map(|cluster| Side {
        endpoints: cluster.members[0].address().to_string(),
        etcdctl: ours.etcdctl.clone(),
    });
    mirror(&ours, &second);
    mirror(&theirs, &third);
    for side in [&ours, &theirs, &second, &third] {
        side.run(&["del", "", "--from-key"], "");
    }
    mirror(&third, &theirs);
    if let Some([older, _]) = with_34(&[ours, theirs]) {
        mirror(&older, &second);
    }
    drop(etcd);
}

/// Checks that cannot begin; and with `LONG=1` those that pass, which take a minute.
#[test]
fn checks() {
    let Some((cluster, _etcd, sides)) = both() else { return };
    for side in &sides {
        put(side, &["put", "/etcdctl-check-perf/x", "1"]);
        put(side, &["put", "/etcdctl-check-datascale/x", "1"]);
    }
    let plain = |command: &'static str| (command, "");
    compare(
        &sides,
        &[
            plain("check perf --load=huge"),
            plain("check datascale --load=huge"),
            plain("check perf"),
            plain("check datascale"),
        ],
    );
    if std::env::var_os("LONG").is_none() {
        return skip("check perf and check datascale to their end", "without LONG=1");
    }
    let mut side_commands = vec![&sides[0]];
    let older = with_34(&sides);
    side_commands.extend(older.iter().map(|sides| &sides[0]));
    for side in side_commands {
        for words in [
            &["check", "perf", "--prefix=/p/", "--auto-compact", "--auto-defrag"][..],
            &["check", "datascale", "--prefix=/d/", "--auto-compact", "--auto-defrag"],
        ] {
            let output = run_with(&mut side.command(words), b"", Duration::from_secs(180));
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && said.contains("PASS"), "{said}");
            assert!(
                said.contains("Compacted with revision ") || said.contains("compacted revision"),
                "{said}"
            );
        }
        assert_eq!(side.run(&["get", "/p/", "--prefix", "--keys-only"], ""), "exit Some(0)\n");
    }
    drop(cluster);
}
