//! `pawld check disk` as a process: what it says, what it leaves behind, and on which disks it says no.
//!
//! How its figures compare with fio's is measured by `bench/check-disk`: no test depends on how fast a disk is.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time and on a real disk")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::full_disk::Mount;
use crate::harness::{self, PATIENCE, PAWLD, ended, has, home, run_with, shown, skip, until};

/// Short: the words are looked at here, not the figures.
const SHORT: [&str; 4] = ["--size", "230k", "--runtime", "2"];

fn check(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(PAWLD);
    command.args(["check", "disk", "--dir"]).arg(dir).args(words);
    run_with(&mut command, b"", PATIENCE)
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_report_has_every_job_and_ends_with_a_verdict() {
    let home = home();
    std::fs::write(home.path().join("kept"), "as it was").unwrap();
    let output = check(home.path(), &SHORT);
    let out = text(&output.stdout);
    for job in ["wal", "wal-growing", "wal-filled", "batch-4k", "batch-16k", "batch-64k", "batch-256k"] {
        assert!(out.contains(&format!("\n{job}: ")), "{job} is missing:\n{out}");
    }
    for job in ["read-in-order", "read-at-random", "wal-beside"] {
        assert!(out.contains(&format!("\n{job}: ")), "{job} is missing:\n{out}");
    }
    for line in ["file system  ", "  fdatasync:", "99.99th=[", "sync percentiles", "  election timeout: "] {
        assert!(out.contains(line), "{line:?} is missing:\n{out}");
    }
    // How fast this disk is decides the exit code, and what is said must agree with it.
    let verdict = out.lines().find(|line| line.starts_with("verdict: ")).unwrap();
    let passed = verdict.starts_with("verdict: PASS, fit for a ");
    assert_eq!(output.status.code(), Some(i32::from(!passed)), "{}", shown(&output));
    // No bar and no escape where no terminal is.
    assert!(output.stderr.is_empty() && !out.contains('\x1b'), "{}", shown(&output));
    assert_eq!(files(home.path()), ["kept"]);
    assert_eq!(std::fs::read_to_string(home.path().join("kept")).unwrap(), "as it was");
}

#[test]
fn memory_is_no_disk() {
    let home = home();
    let Some(mount) = mounted(&home.path().join("memory"), "size=200m", "a check of memory") else { return };
    let output = check(&mount.path, &SHORT);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(out.contains("file system  tmpfs"), "{out}");
    assert!(out.contains("warning: tmpfs is memory: a sync does nothing"), "{out}");
    assert!(out.contains("verdict: FAIL") && out.contains("because: tmpfs is memory"), "{out}");
    assert_eq!(files(&mount.path), Vec::<String>::new());
}

#[test]
fn a_disk_without_room_is_refused_before_it_is_full() {
    let home = home();
    let Some(mount) = mounted(&home.path().join("small"), "size=8m", "a check of a full disk") else {
        return;
    };
    let output = check(&mount.path, &["--only", "wal"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(text(&output.stderr).contains("has 8.0MiB free, and 23.0MiB are needed"), "{}", shown(&output));
    assert_eq!(files(&mount.path), Vec::<String>::new());
    // What fits is measured, and the little room is named.
    let output = check(&mount.path, &["--only", "wal", "--size", "1m"]);
    assert!(text(&output.stdout).contains("warning: only 8 MiB are free"), "{}", shown(&output));
    assert_eq!(files(&mount.path), Vec::<String>::new());
}

#[test]
fn a_directory_that_takes_no_files_is_an_error() {
    let home = home();
    let gone = check(&home.path().join("gone"), &[]);
    assert_eq!(gone.status.code(), Some(1), "{}", shown(&gone));
    assert!(text(&gone.stderr).contains("gone: No such file or directory"), "{}", shown(&gone));
    let Some(mount) = mounted(&home.path().join("ro"), "size=64m,ro", "a check of a read-only disk") else {
        return;
    };
    let output = check(&mount.path, &["--only", "wal"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let complaint = text(&output.stderr);
    assert!(complaint.contains("create ") && complaint.contains("Read-only file system"), "{complaint}");
}

#[test]
fn who_interrupts_it_finds_nothing_left() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let home = home();
        let mut command = Command::new(PAWLD);
        command.args([
            "check",
            "disk",
            "--size",
            "1g",
            "--runtime",
            "600",
            "--only",
            "wal-growing,wal-beside",
            "--dir",
        ]);
        command.arg(home.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        until("a file to be written", PATIENCE, || {
            let file = files(home.path()).pop()?;
            (home.path().join(file).metadata().ok()?.len() > 0).then_some(())
        });
        kill_process(Pid::from_child(&child), signal).unwrap();
        let (code, complaint) = ended(&mut child);
        assert_eq!((code, complaint.as_str()), (Some(130), "interrupted; what was made is removed\n"));
        assert_eq!(files(home.path()), Vec::<String>::new());
    }
}

#[test]
fn two_in_one_directory_do_not_meet() {
    let home = home();
    let outputs = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..2).map(|_| scope.spawn(|| check(home.path(), &SHORT))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<Output>>()
    });
    for output in outputs {
        assert!(text(&output.stdout).contains("\nverdict: "), "{}", shown(&output));
    }
    assert_eq!(files(home.path()), Vec::<String>::new());
}

/// A reader of fio's JSON finds what it looks for, under the same names in both.
#[test]
fn programs_read_it_as_they_read_fio() {
    if !has("python3") {
        return skip("the JSON of a check", "there is no python3");
    }
    let reader = r#"
import json, sys
job = json.load(sys.stdin)["jobs"][0]
write, sync = job["write"], job["sync"]
keys = ["io_bytes", "bw", "iops", "runtime", "total_ios"]
assert all(isinstance(write[key], (int, float)) for key in keys), write
clat, lat = write["clat_ns"], sync["lat_ns"]
for stats in (clat, lat):
    # fio's percentiles are the upper ends of its buckets, which are above the longest.
    assert stats["min"] <= stats["percentile"]["50.000000"] <= stats["percentile"]["99.990000"] <= 1.1 * stats["max"], stats
    assert stats["N"] >= 99 and stats["mean"] > 0 and stats["stddev"] >= 0, stats
assert job["read"]["total_ios"] == 0 and "percentile" not in job["read"]["clat_ns"]
print(job["error"], write["total_ios"], write["io_bytes"], sync["total_ios"], len(clat["percentile"]))
"#;
    let read = |json: &[u8]| {
        let output = run_with(Command::new("python3").args(["-c", reader]), json, PATIENCE);
        assert!(output.status.success(), "{}\n{}", shown(&output), text(json));
        text(&output.stdout)
    };
    let home = home();
    let ours = check(home.path(), &["--only", "wal", "--size", "230000", "--output-format", "json"]);
    assert_eq!(read(&ours.stdout), "0 100 230000 100 17\n");
    if !has("fio") {
        return skip("the same of fio's own JSON", "there is no fio");
    }
    let mut fio = Command::new("fio");
    fio.args(["--name=x", "--rw=write", "--ioengine=sync", "--fdatasync=1", "--bs=2300", "--size=230000"]);
    fio.arg("--output-format=json").arg(format!("--directory={}", home.path().display()));
    let theirs = run_with(&mut fio, b"", PATIENCE);
    // fio asks for a sync after the last record only when another follows.
    let told = read(&theirs.stdout);
    assert!(told.starts_with("0 100 230000 "), "{told}");
}

/// Field by field as fio's, as far as fio has fields that do not depend on the machine.
#[test]
fn a_terse_line_has_fios_fields() {
    let home = home();
    let ours = check(home.path(), &["--only", "wal", "--size", "230000", "--output-format", "terse"]);
    let line = text(&ours.stdout);
    let ours: Vec<&str> = line.trim_end().split(';').collect();
    assert_eq!((ours[0], ours[2], ours[4], ours.len()), ("3", "wal", "0", 121));
    if !has("fio") {
        return skip("fields beside fio's", "there is no fio");
    }
    let mut fio = Command::new("fio");
    fio.args(["--name=wal", "--rw=write", "--ioengine=sync", "--fdatasync=1", "--bs=2300", "--size=230000"]);
    fio.args(["--output-format=terse", "--terse-version=3"])
        .arg(format!("--directory={}", home.path().display()));
    let line = text(&run_with(&mut fio, b"", PATIENCE).stdout);
    let theirs: Vec<&str> = line.trim_end().split(';').collect();
    // Behind those it has what the devices did.
    for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let shape = |field: &str| field.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
        let name = |field: &str| field.split_once('=').map(|(name, _)| name.to_owned());
        assert_eq!(shape(ours), shape(theirs), "field {at}: {ours} and {theirs}");
        assert_eq!(name(ours), name(theirs), "field {at}");
    }
    // Of each way, reads none and all writes.
    assert_eq!((ours[5], theirs[5], ours[46], theirs[46]), ("0", "0", "224", "224"));
}

#[test]
fn bad_words_are_refused() {
    let home = home();
    for (words, complaint) in [
        (&["--only", "wall"][..], "there is no job \"wall\""),
        (&["--bs", "0"], "--bs is 0"),
        (&["--size", "lots"], "a number of bytes is expected"),
        (&["--output-format", "xml"], "invalid value 'xml'"),
    ] {
        let output = check(home.path(), words);
        assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
        assert!(text(&output.stderr).contains(complaint), "{}", shown(&output));
    }
    let help = harness::run(PAWLD, &["check", "disk", "--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("--output-format"), "{}", shown(&help));
}

fn mounted(path: &Path, options: &str, test: &str) -> Option<Mount> {
    if !has("mount") {
        skip(test, "there is no mount command");
        return None;
    }
    let mount = Mount::new(path, options);
    if mount.is_none() {
        skip(test, "this process may not mount");
    }
    mount
}
