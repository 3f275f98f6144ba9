//! A disk that fails under a running member: `strace` makes one system call of one thread return an error. A member
//! whose log or tree cannot be written any more ends, and says which file and why; the others go on; started again,
//! it is a member like before. Where there is only no room for a checkpoint it stays, and tries again.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::{Cluster, Member, PATIENCE, has, skip, until};
use crate::under_load::{Load, setup, under_load};

const LOG: &str = "log-writer";
const HOUSE: &str = "housekeeper";

/// One system call that fails once.
struct Fault {
    at_leader: bool,
    thread: &'static str,
    call: &'static str,
    error: &'static str,
    /// What the member says when it ends of it; None = it stays.
    ends: Option<&'static str>,
}

const FAULTS: [Fault; 6] = [
    Fault { at_leader: true, thread: LOG, call: "fdatasync", error: "EIO", ends: Some("os error 5") },
    Fault { at_leader: false, thread: LOG, call: "fdatasync", error: "EIO", ends: Some("os error 5") },
    Fault { at_leader: true, thread: LOG, call: "pwrite64", error: "ENOSPC", ends: Some("os error 28") },
    Fault { at_leader: false, thread: LOG, call: "pwrite64", error: "EIO", ends: Some("os error 5") },
    Fault { at_leader: true, thread: HOUSE, call: "fdatasync", error: "EIO", ends: Some("os error 5") },
    Fault { at_leader: false, thread: HOUSE, call: "pwrite64", error: "ENOSPC", ends: None },
];

#[test]
fn a_failing_disk_ends_its_member_and_loses_nothing() {
    if !has("strace") {
        return skip("a failing disk", "there is no strace");
    }
    let cluster = Cluster::start(&setup());
    if Tracer::attach(&cluster.members[0], cluster.path(), LOG, "fdatasync", "EIO:when=65535").is_none() {
        return skip("a failing disk", "this process may not trace another");
    }
    under_load("failing calls", cluster, |cluster, load, _| {
        for fault in &FAULTS {
            fail_once(fault, cluster, load);
        }
    });
}

fn fail_once(fault: &Fault, cluster: &mut Cluster, load: &Load) {
    let leader = cluster.leader();
    let at = if fault.at_leader { leader } else { (leader + 1) % 3 };
    let home = cluster.path().to_path_buf();
    let member = &mut cluster.members[at];
    let before = member.log().len();
    if fault.ends.is_none() {
        load.room_is_short();
    }
    let error = format!("{}:when=1", fault.error);
    let tracer = Tracer::attach(member, &home, fault.thread, fault.call, &error).expect("it could before");
    until(&format!("{} of the {} to fail", fault.call, fault.thread), PATIENCE, || {
        tracer.has_injected().then_some(())
    });
    load.harmed(1);
    if let Some(reason) = fault.ends {
        let status = member.wait_exit(PATIENCE);
        assert_eq!(status.code(), Some(1), "{status}\n{}", member.log_tail(20));
        let log = member.log().split_off(before);
        let data = member.data_dir.display().to_string();
        let told = |line: &&str| line.contains("stopped: ") && line.contains(&data) && line.contains(reason);
        assert_eq!(log.lines().filter(told).count(), 1, "one line says what failed, where and why:\n{log}");
        load.wait_for_progress(50);
        cluster.members[at].start();
    } else {
        drop(tracer);
        load.wait_for_progress(50);
        assert!(cluster.members[at].is_running(), "{}", cluster.members[at].log_tail(20));
    }
    cluster.leader();
    load.wait_for_progress(50);
}

/// A running `strace` on one thread. It lets go of it when this is dropped.
struct Tracer {
    strace: Child,
    output: PathBuf,
}

impl Tracer {
    /// None where this process may not do that.
    fn attach(member: &Member, home: &Path, thread: &str, call: &str, error: &str) -> Option<Tracer> {
        let tasks = PathBuf::from(format!("/proc/{}/task", member.pid()));
        let is_named = |task: &PathBuf| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == thread)
        };
        let all = fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().path());
        let task = all.into_iter().find(is_named).unwrap_or_else(|| panic!("no thread {thread}"));
        let output = home.join("strace.out");
        let _ = fs::remove_file(&output);
        let strace = Command::new("strace")
            .args([
                "-qq",
                "-e",
                &format!("trace={call}"),
                "-e",
                &format!("inject={call}:error={error}"),
                "-o",
            ])
            .arg(&output)
            .arg("-p")
            .arg(task.file_name().expect("a number"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut tracer = Tracer { strace, output };
        let attached = until("strace to attach", PATIENCE, || {
            if tracer.strace.try_wait().unwrap().is_some() {
                return Some(tracer.has_injected()); // The member may be gone already.
            }
            let status = fs::read_to_string(task.join("status")).ok()?;
            let tracer_pid = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?.trim();
            (tracer_pid != "0").then_some(true)
        });
        attached.then_some(tracer)
    }

    fn has_injected(&self) -> bool {
        fs::read_to_string(&self.output).is_ok_and(|said| said.contains("INJECTED"))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}
