//! `pawld bench` against real members: what it asks is done, what it says agrees with what was done, and its page can be read.
//!
//! Nothing here depends on how fast anything is.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{
    Cluster, PATIENCE, PAWLD, Setup, find, free_port, has, home, run_with, shown, skip, until,
};
use crate::resp::Reply;

fn bench(cluster: &Cluster, words: &str) -> Output {
    let all: Vec<String> = cluster.members.iter().map(|member| member.address().to_string()).collect();
    run(&all.join(","), words)
}

fn run(endpoints: &str, words: &str) -> Output {
    let mut command = Command::new(PAWLD);
    command.args(["bench", "--endpoints", endpoints]).args(words.split_whitespace());
    run_with(&mut command, b"", PATIENCE)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What the JSON says, as Python reads it: an expression over `run`, the first run.
fn told(output: &Output, expression: &str) -> String {
    let script = format!("import json, sys\nrun = json.load(sys.stdin)['runs'][0]\nprint({expression})");
    let read = run_with(Command::new("python3").args(["-c", &script]), &output.stdout, PATIENCE);
    assert!(read.status.success(), "{}\n{}", shown(&read), shown(output));
    text(&read.stdout).trim_end().to_owned()
}

#[test]
fn puts_are_done_as_often_as_it_says() {
    let cluster = Cluster::start(&Setup::single());
    let before = cluster.members[0].revision().unwrap();
    let words =
        "put --total 500 --clients 20 --conns 4 --val-size 100 --key-space-size 300 --sequential-keys";
    let output = bench(&cluster, words);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", shown(&output));
    let out = text(&output.stdout);
    for line in ["Summary:", "  Requests/sec: ", "Response time histogram:", "  99.99% in "] {
        assert!(out.contains(line), "{line:?} is missing:\n{out}");
    }
    let counts =
        out.lines().filter_map(|line| line.split_once(" [")?.1.split_once(']')?.0.parse::<u64>().ok());
    assert_eq!(counts.sum::<u64>(), 500, "{out}");
    assert_eq!(cluster.members[0].revision().unwrap(), before + 500);
    let mut client = cluster.members[0].client();
    assert_eq!(client.call(&["DBSIZE"]).unwrap(), Reply::Integer(300));
}

#[test]
fn every_command_is_answered() {
    let cluster = Cluster::start(&Setup::single());
    for words in [
        "range --total 300 --clients 10 --conns 10 --key-space-size 50",
        "range a --total 300",
        "range a z --total 300 --consistency s --pipeline 30",
        "txn-put --total 300 --txn-ops 5 --key-space-size 50",
        "txn-mixed --total 300 --rw-ratio 2 --key-space-size 50",
        "txn-mixed a z --total 300 --consistency s --limit 3",
        "lease-keepalive --total 300 --conns 3 --clients 6",
        "put --total 300 --rate 100000 --clients 10 --conns 2",
        "put --total 1000000000 --duration 1",
    ] {
        let output = bench(&cluster, words);
        assert!(output.status.success(), "{words}: {}", shown(&output));
        let out = text(&output.stdout);
        assert!(out.contains("Requests/sec:") && !out.contains("Error distribution"), "{words}: {out}");
    }
    let short = bench(&cluster, "");
    let out = text(&short.stdout);
    let starts: Vec<&str> = out.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(short.status.success() && starts == ["put", "range"], "{}", shown(&short));
    assert!(out.contains("100000 requests, 0 failed"), "{out}");
}

#[test]
fn every_watcher_is_told_of_every_put() {
    if !has("python3") {
        return skip("a load of watches", "there is no python3");
    }
    let cluster = Cluster::start(&Setup::default());
    // 12 watches of 5 keys: two of each, and one more of the first two. 23 puts: four rounds, and three keys more.
    for (words, told_in_all) in [
        ("watch --streams 3 --watch-per-stream 4 --watched-key-total 5 --put-total 23", 23 * 2 + 4 * 2 + 2),
        ("watch-latency --streams 2 --watch-per-stream 3 --put-total 20 --put-rate 1000", 120),
    ] {
        let output = bench(&cluster, &format!("{words} --output json"));
        assert!(output.status.success(), "{words}: {}", shown(&output));
        let counts =
            "run['beginning_ns']['N'], run['put_ns']['N'], run['event_ns']['N'], run['events_expected']";
        let (watches, puts) = if words.starts_with("watch ") { (12, 23) } else { (6, 20) };
        assert_eq!(told(&output, counts), format!("{watches} {puts} {told_in_all} {told_in_all}"), "{words}");
    }
    let output = bench(&cluster, "watch --put-total 10");
    let out = text(&output.stdout);
    for line in
        ["Watch creation summary:", "Put summary:", "Watch events summary:", "1000 of 1000 events were told."]
    {
        assert!(output.status.success() && out.contains(line), "{line}: {}", shown(&output));
    }
}

#[test]
fn the_leader_alone_can_be_asked() {
    if !has("python3") {
        return skip("a load on the leader", "there is no python3");
    }
    let cluster = Cluster::start(&Setup::default());
    let leader = cluster.members[cluster.leader()].address().to_string();
    let output = bench(&cluster, "put --total 100 --target-leader --output json");
    assert_eq!(told(&output, "run['endpoints'], run['done'], run['failed']"), format!("['{leader}'] 100 0"));
    let followers: Vec<String> = cluster
        .members
        .iter()
        .map(|member| member.address().to_string())
        .filter(|address| *address != leader)
        .collect();
    let output = run(&followers.join(","), "put --target-leader");
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(text(&output.stderr).contains("leads: --endpoints must name the leader"), "{}", shown(&output));
}

#[test]
fn what_programs_read_adds_up() {
    if !has("python3") {
        return skip("the JSON of a load", "there is no python3");
    }
    let cluster = Cluster::start(&Setup::single());
    let output = bench(&cluster, "put --total 700 --rate 50000 --clients 7 --conns 7 --output json");
    assert_eq!(
        told(&output, "run['name'], run['done'], run['failed'], run['rate_asked']"),
        "put 700 0 50000"
    );
    assert_eq!(
        told(&output, "sum(run['series']['done']), run['latency_ns']['N'], run['service_ns']['N']"),
        "700 700 700"
    );
    let rising = "(lambda at: sorted(at.values()) == [at[p] for p in sorted(at, key=float)])(run['latency_ns']['percentile'])";
    assert_eq!(told(&output, rising), "True");
    // From when it was due it is never less than from when it was sent.
    assert_eq!(told(&output, "run['latency_ns']['mean'] >= run['service_ns']['mean']"), "True");
}

#[test]
fn errors_are_counted_by_their_code() {
    let cluster = Cluster::start(&Setup::single());
    // Beyond --max-request-bytes.
    let output = bench(&cluster, "put --total 3 --val-size 1500000 --pipeline 1");
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "what just fits is taken: {out}");
    let output = bench(&cluster, "txn-put --total 3 --txn-ops 2000 --key-space-size 5000");
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(text(&output.stdout).contains("[3]\tTOOMANYOPS"), "{}", shown(&output));
}

#[test]
fn a_server_that_goes_ends_the_run() {
    let mut cluster = Cluster::start(&Setup::single());
    let mut command = Command::new(PAWLD);
    let address = cluster.members[0].address().to_string();
    command.args([
        "bench",
        "--endpoints",
        &address,
        "put",
        "--total",
        "1000000000",
        "--clients",
        "10",
        "--conns",
        "2",
    ]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let before = cluster.members[0].revision().unwrap();
    until("puts to be done", PATIENCE, || (cluster.members[0].revision()? > before + 100).then_some(()));
    cluster.members[0].kill();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(text(&output.stderr).contains("every connection was lost"), "{}", shown(&output));
    let nobody = run(&format!("127.0.0.1:{}", free_port()), "put");
    assert_eq!(nobody.status.code(), Some(1), "{}", shown(&nobody));
    assert!(text(&nobody.stderr).contains("Connection refused"), "{}", shown(&nobody));
}

#[test]
fn who_interrupts_it_sees_what_was_done() {
    let cluster = Cluster::start(&Setup::single());
    let mut command = Command::new(PAWLD);
    let address = cluster.members[0].address().to_string();
    command.args(["bench", "--endpoints", &address, "put", "--total", "1000000000"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let before = cluster.members[0].revision().unwrap();
    until("puts to be done", PATIENCE, || (cluster.members[0].revision()? > before + 100).then_some(()));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", shown(&output));
    assert!(text(&output.stdout).contains("Requests/sec:"), "{}", shown(&output));
}

#[test]
fn bad_words_are_refused() {
    for (words, complaint) in [
        ("put --clients 2 --conns 3", "some would have nobody"),
        ("put --rate 10 --pipeline 2", "exclude each other"),
        ("put --key-size 0", "invalid value '0'"),
        ("put --total 0", "invalid value '0'"),
        ("range a b c", "unexpected argument"),
        ("txn-mixed --rw-ratio -1", "unexpected argument"),
        ("fly", "unrecognized subcommand 'fly'"),
    ] {
        let output = run("127.0.0.1:1", words);
        assert_eq!(output.status.code(), Some(2), "{words}: {}", shown(&output));
        assert!(text(&output.stderr).contains(complaint), "{words}: {}", shown(&output));
    }
    let output = run("127.0.0.1:1", "txn-put --txn-ops 2");
    assert!(text(&output.stderr).contains("no transaction puts a key twice"), "{}", shown(&output));
    let output = run("nonsense", "put");
    assert!(text(&output.stderr).contains("--endpoints: "), "{}", shown(&output));
}

/// What a browser makes of it, at this width: how wide the page became, and how many points and texts its charts have.
const LOOK: &str = "<script>
const charts = [...document.querySelectorAll('svg')];
const points = charts.map(svg => [...svg.querySelectorAll('polyline')].every(line =>
  line.points.length > 1 && line.getBoundingClientRect().width > 50 && [...line.points].every(p =>
    p.x >= 0 && p.x <= 480 && p.y >= 0 && p.y <= 250)));
const texts = [...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height);
document.title = ['seen', document.documentElement.scrollWidth <= innerWidth, charts.length, points.every(Boolean),
  Math.min(...texts) >= 9].join(' ');
</script>";

#[test]
fn the_page_is_read_in_a_browser() {
    let Some(browser) = find("chromium") else {
        return skip("a report in a browser", "there is no chromium");
    };
    let cluster = Cluster::start(&Setup::single());
    let home = home();
    let page = home.path().join("report.html");
    std::fs::write(&page, "an older one").unwrap();
    let words = "put --total 20000 --clients 50 --conns 10 --key-space-size 100 --report";
    let output = bench(&cluster, &format!("{words} {}", page.display()));
    assert!(output.status.success(), "{}", shown(&output));
    let html = std::fs::read_to_string(&page).unwrap();
    for other in ["<script", "http://", "https://", "url(", "@import", "NaN"] {
        assert!(!html.contains(other), "the page has {other}");
    }
    let looked_at = home.path().join("looked-at.html");
    std::fs::write(&looked_at, html.replace("</body>", &format!("{LOOK}</body>"))).unwrap();
    for width in [1_280, 390] {
        let seen = look(&browser, &looked_at, home.path(), width);
        assert!(seen.contains("<title>seen true 3 true true</title>"), "at {width}:\n{seen:.2000}");
    }
}

fn look(browser: &Path, page: &Path, home: &Path, width: u32) -> String {
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=2000"]);
    command.arg(format!("--window-size={width},1400"));
    command.arg(format!("--user-data-dir={}", home.join("profile").display()));
    command.arg(format!("file://{}", page.display()));
    text(&run_with(&mut command, b"", PATIENCE).stdout)
}
