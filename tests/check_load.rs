//! `pawlctl check perf` and `check datascale` against a real member. What they judge is in `src/cli/client/check.rs`.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Cluster, PATIENCE, PAWLD, Setup, run_with, shown, until};
use crate::resp::Reply;

fn command(cluster: &Cluster, words: &str) -> Command {
    let mut command = Command::new(PAWLD);
    command.args(["ctl", "--command-timeout=30s", "--endpoints", &cluster.members[0].address().to_string()]);
    command.args(words.split_whitespace());
    command
}

fn ctl(cluster: &Cluster, words: &str) -> Output {
    run_with(&mut command(cluster, words), b"", PATIENCE)
}

fn keys(cluster: &Cluster) -> Reply {
    cluster.members[0].client().call(&["DBSIZE"]).unwrap()
}

#[test]
fn many_keys_come_and_go() {
    let cluster = Cluster::start(&Setup::single());
    cluster.put("/etcdctl-check-datascalf", "just behind its prefix");
    let output = ctl(&cluster, "check datascale --auto-compact --auto-defrag");
    let out = String::from_utf8(output.stdout.clone()).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!(
        lines[0],
        "Start data scale check for work load [10000 key-value pairs, 1024 bytes per key-value, 50 concurrent clients]."
    );
    assert!(
        lines[1].starts_with("Compacting with revision ") && lines[2].starts_with("Compacted with revision ")
    );
    assert!(lines[3].starts_with("Defragmented \""), "{out}");
    let mib = lines[4]
        .strip_prefix("PASS: Approximate system memory used : ")
        .and_then(|rest| rest.strip_suffix(" MB."));
    assert!(mib.is_some_and(|mib| mib.parse::<f64>().is_ok()), "{out}");
    // 10,000 puts and the deletions behind them.
    assert!(cluster.members[0].revision().unwrap() > 10_000);
    assert_eq!(keys(&cluster), Reply::Integer(1));
}

#[test]
fn keys_of_others_are_not_touched() {
    let cluster = Cluster::start(&Setup::single());
    cluster.put("/etcdctl-check-perf/mine", "1");
    let output = ctl(&cluster, "check perf");
    assert_eq!(output.status.code(), Some(3), "{}", shown(&output));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("prefix \"/etcdctl-check-perf/\" has keys"), "{complaint}");
    assert_eq!(keys(&cluster), Reply::Integer(1));
}

#[test]
fn who_interrupts_it_finds_no_keys() {
    let cluster = Cluster::start(&Setup::single());
    let mut command = command(&cluster, "check perf --load xl --prefix here/");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("puts", PATIENCE, || (keys(&cluster) != Reply::Integer(0)).then_some(()));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("interrupted; its keys are deleted"),
        "{}",
        shown(&output)
    );
    assert_eq!(keys(&cluster), Reply::Integer(0));
}

#[test]
fn a_load_that_is_none_is_refused() {
    let cluster = Cluster::start(&Setup::single());
    for (words, why) in [("check perf --load huge", "huge"), ("check datascale --load 7", "7")] {
        let output = ctl(&cluster, words);
        assert_eq!(output.status.code(), Some(4), "{words}: {}", shown(&output));
        assert!(shown(&output).contains(&format!("unknown load option {why}")), "{}", shown(&output));
    }
}
