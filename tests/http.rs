//! HTTP of real processes: health, metrics, the version, over raw sockets and with the tools that people have.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time and on a real disk")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::differential::etcd::Etcd;
use crate::harness::{Cluster, Member, PATIENCE, Setup, free_port, has, run, run_with, shown, skip, until};

/// One answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Sends all of it, and reads to the end of the connection.
fn exchange(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn ask(port: u16, method: &str, target: &str) -> Answer {
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    let answer = exchange(port, request.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer { status: status.expect("a status"), head: head.into(), body: body.into() }
}

fn get(port: u16, target: &str) -> (u16, String) {
    let answer = ask(port, "GET", target);
    (answer.status, answer.body)
}

/// The value of a sample, as `/metrics` has it.
fn sample(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

fn families(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.to_string())).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn wait_until_healthy(member: &Member) {
    until("a healthy member", PATIENCE, || (get(member.client_port, "/health").0 == 200).then_some(()));
}

#[test]
fn the_pages_of_a_member() {
    let cluster = Cluster::start(&Setup::single());
    let member = &cluster.members[0];
    wait_until_healthy(member);
    let port = member.client_port;
    let healthy = (200, r#"{"health":"true","reason":""}"#.to_string());
    assert_eq!(get(port, "/health"), healthy);
    assert_eq!(get(port, "/health?serializable=true"), healthy);
    assert_eq!(get(port, "/livez"), (200, "ok\n".into()));
    let checks =
        "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n";
    assert_eq!(get(port, "/readyz?verbose"), (200, checks.into()));
    let (status, version) = get(port, "/version");
    assert!(status == 200 && version.starts_with(r#"{"etcdserver":"3."#), "{version}");
    assert_eq!(get(port, "/v2/keys").0, 404);
    let refused = ask(port, "POST", "/health");
    assert!(refused.status == 405 && refused.head.contains("\r\nAllow: GET, HEAD"), "{refused:?}");
    let head = ask(port, "HEAD", "/metrics");
    assert!(
        head.status == 200 && head.body.is_empty() && !head.head.contains("Content-Length: 0"),
        "{head:?}"
    );

    // One connection, three requests at once.
    let wire = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /nope HTTP/1.1\r\nHost: x\r\n\r\n\
                GET /health HTTP/1.0\r\n\r\n";
    let answers = exchange(port, wire.as_bytes());
    let statuses: Vec<&str> =
        answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "404", "200"], "{answers}");
    // The line protocol is still spoken beside it.
    assert!(member.status().is_some());
}

/// A body of many megabytes is not read, and its sender learns why.
#[test]
fn a_refusal_arrives_although_the_sender_goes_on() {
    let cluster = Cluster::start(&Setup::single());
    let port = cluster.members[0].client_port;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n").unwrap();
    for _ in 0..64 {
        stream.write_all(&[b'x'; 64 << 10]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 Content Too Large\r\n"), "{answer}");
    assert_eq!(get(port, "/livez").0, 200);
}

#[test]
fn a_member_without_a_leader_says_so_at_once() {
    let mut cluster = Cluster::start(&Setup::default());
    cluster.members[1].kill();
    cluster.members[2].kill();
    let member = &cluster.members[0];
    let ill = (503, "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n".to_string());
    until("no leader", PATIENCE, || (get(member.client_port, "/health") == ill).then_some(()));
    assert_eq!(get(member.client_port, "/health?serializable=true").0, 200);
    assert_eq!(get(member.client_port, "/livez").0, 200);
    let (_, metrics) = get(member.client_port, "/metrics");
    assert_eq!(sample(&metrics, "etcd_server_has_leader"), 0.0);
    assert!(sample(&metrics, "etcd_server_health_failures") >= 1.0);
    assert!(sample(&metrics, "etcd_server_health_success") >= 1.0);
    let check =
        "etcd_server_healthchecks_total{type=\"livez\",name=\"serializable_read\",status=\"success\"}";
    assert_eq!(sample(&metrics, check), 1.0);
}

const LEADERS: &str = "etcd_server_leader_changes_seen_total";

/// On a busy machine a leader may be lost meanwhile, and what was asked then refused: such a run says nothing, and is made
/// again. A member that counts leaders which there are not never has a quiet one.
#[test]
fn metrics_count_what_happens() {
    assert!((0..5).any(|_| metrics_of_a_run()), "none of five runs was quiet");
}

/// False: the leader was lost, or changed by itself.
fn metrics_of_a_run() -> bool {
    let cluster = Cluster::start(&Setup::default());
    let leader = cluster.leader();
    let next = (leader + 1) % 3;
    let (own, other) = (&cluster.members[leader], &cluster.members[next]);
    let page = |member: &Member| get(member.client_port, "/metrics").1;
    let (before, asked_before) = (page(own), page(other));
    assert!(sample(&asked_before, LEADERS) >= 1.0, "who knows a leader has seen one");
    let mut client = other.client();
    let mut refused = 0;
    for number in 0..20 {
        refused += u32::from(client.call(&["PUT", &format!("k{number}"), "v"]).unwrap().is_error());
    }
    let compacted = client.call(&["COMPACT", "100000"]).unwrap();
    client.call(&["DEL", "k0"]).unwrap();
    let (led, asked) = (page(own), page(other));
    let seen = [&before, &asked_before, &led, &asked].map(|page| sample(page, LEADERS));
    let known = [&led, &asked].map(|page| sample(page, "etcd_server_has_leader"));
    if refused > 0 || seen[..2] != seen[2..] || known != [1.0; 2] {
        return false;
    }
    assert!(compacted.is_error(), "{compacted:?}");
    assert_eq!(sample(&led, "etcd_server_is_leader"), 1.0);
    assert_eq!(sample(&asked, "etcd_server_is_leader"), 0.0);
    let grew = |name: &str, by: f64| {
        let (was, is) = (sample(&before, name), sample(&led, name));
        assert!(is >= was + by, "{name} was {was} and is {is}");
    };
    grew("etcd_server_proposals_applied_total", 21.0);
    grew("etcd_mvcc_put_total", 20.0);
    grew("etcd_disk_wal_fsync_duration_seconds_count", 1.0);
    grew("etcd_disk_wal_write_bytes_total", 512.0);
    grew("pawl_loop_turns_total", 1.0);
    assert_eq!(sample(&asked, "etcd_mvcc_delete_total"), 1.0);
    assert_eq!(sample(&asked, "etcd_debugging_mvcc_keys_total"), 19.0);
    assert_eq!(sample(&asked, "pawl_requests_total{request=\"put\"}"), 20.0);
    assert_eq!(sample(&asked, "pawl_request_faults_total{code=\"FUTURE\"}"), 1.0);
    assert_eq!(sample(&asked, "pawl_write_duration_seconds_count"), 22.0);
    assert!(sample(&asked, "process_resident_memory_bytes") > 1e6);
    assert!(sample(&asked, "process_open_fds") >= 10.0);
    let peer = format!("{{To=\"{:x}\"}}", own.id());
    assert!(sample(&asked, &format!("etcd_network_peer_sent_bytes_total{peer}")) > 1_000.0);
    let peer = format!("{{To=\"{:x}\"}}", other.id());
    assert!(sample(&led, &format!("etcd_network_peer_round_trip_time_seconds_count{peer}")) >= 1.0);
    let peer = format!("{{From=\"{:x}\"}}", other.id());
    assert!(sample(&led, &format!("etcd_network_peer_received_bytes_total{peer}")) > 1_000.0);
    // What a test without processes has seen of the page is what is served.
    assert_eq!(families(&led), families(&read("tests/golden/metrics.txt")));
    // One more leader is one more, at whoever leads now and at whoever did.
    cluster.lead(next);
    let grown = [own, other].map(|member| sample(&page(member), LEADERS));
    let expected = [seen[2] + 1.0, seen[3] + 1.0];
    assert!(grown[0] >= expected[0] && grown[1] >= expected[1], "{grown:?}, expected {expected:?}");
    grown == expected
}

#[test]
fn ports_for_http_alone() {
    let (http, metrics) = (free_port(), free_port());
    let setup = Setup::single()
        .flag("listen-client-http-urls", format!("http://127.0.0.1:{http}"))
        .flag("listen-metrics-urls", format!("http://127.0.0.1:{metrics}"))
        .flag("host-whitelist", "localhost")
        .flag("cors", "http://a.example:1");
    let cluster = Cluster::start(&setup);
    let member = &cluster.members[0];
    until("a leader", PATIENCE, || (get(metrics, "/health").0 == 200).then_some(()));
    assert_eq!(get(http, "/health").0, 200);
    assert_eq!(get(http, "/version").0, 200);
    assert_eq!(
        (get(metrics, "/metrics").0, get(metrics, "/readyz").0, get(metrics, "/version").0),
        (200, 200, 404)
    );
    assert!(member.log().contains("HTTP"), "{}", member.log_tail(20));
    // The port for clients has none then, and those for HTTP have nothing else.
    let (status, why) = get(member.client_port, "/health");
    assert!(status == 421 && why.contains("--listen-client-http-urls"), "{status} {why}");
    assert!(exchange(http, b"PING\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert!(exchange(http, b"*1\r\n$4\r\nPING\r\n\r\n").starts_with("HTTP/1.1 400 "));
    // Names and origins matter where clients come, and not where monitoring does.
    let foreign = b"GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert!(exchange(http, foreign).starts_with("HTTP/1.1 421 "));
    assert!(exchange(metrics, foreign).starts_with("HTTP/1.1 200 "));
    let origin =
        b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a.example:1\r\nConnection: close\r\n\r\n";
    assert!(exchange(http, origin).contains("Access-Control-Allow-Origin: http://a.example:1\r\n"));
}

#[test]
fn curl() {
    if !has("curl") {
        return skip("curl", "it is not installed");
    }
    let cluster = Cluster::start(&Setup::single());
    wait_until_healthy(&cluster.members[0]);
    let base = format!("http://127.0.0.1:{}", cluster.members[0].client_port);
    let curl = |args: &[&str]| {
        let output = run("curl", &[&["-sS", "--max-time", "10"], args].concat());
        assert!(output.status.success(), "{args:?}: {}", shown(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(curl(&["-f", &format!("{base}/health")]), r#"{"health":"true","reason":""}"#);
    let both = curl(&["-f", &format!("{base}/livez"), &format!("{base}/readyz"), "-w", "%{num_connects}\n"]);
    assert_eq!(both, "ok\n1\nok\n0\n", "the second goes over the same connection");
    assert!(curl(&["-I", &format!("{base}/version")]).starts_with("HTTP/1.1 200 OK\r\n"));
    // A body that curl asks about first, and one in chunks.
    let status = ["-o", "/dev/null", "-w", "%{http_code}"];
    let url = format!("{base}/health");
    assert_eq!(curl(&[&status[..], &["-d", "x", "-H", "Expect: 100-continue", &url]].concat()), "405");
    assert_eq!(curl(&[&status[..], &["-d", "x", "-H", "Transfer-Encoding: chunked", &url]].concat()), "405");
}

/// What both serve they serve alike: the pages, and the types of the metrics that both have.
#[test]
fn a_real_etcd_answers_the_same() {
    let Some(etcd) = Etcd::start() else {
        return skip("HTTP beside a real etcd", "there is no etcd 3.5");
    };
    let (_, theirs) = etcd
        .endpoint()
        .rsplit_once(':')
        .map(|(host, port)| (host.to_string(), port.parse().unwrap()))
        .unwrap();
    let cluster = Cluster::start(&Setup::single());
    wait_until_healthy(&cluster.members[0]);
    let ours = cluster.members[0].client_port;
    // HTTP/1.0 has no chunks.
    let ask = |port: u16, method: &str, target: &str| {
        let answer =
            exchange(port, format!("{method} {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        (head.to_string(), body.to_string())
    };
    let field = |head: &str, name: &str| {
        let found = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.map(str::to_string)
    };
    for (method, target) in [
        ("GET", "/health"),
        ("GET", "/health?serializable=true"),
        ("GET", "/health?exclude=NOSPACE&exclude=CORRUPT"),
        ("POST", "/health"),
        ("PUT", "/version"),
        ("OPTIONS", "/health"),
        ("OPTIONS", "/nope"),
        ("GET", "/nope"),
        ("GET", "/metrics/"),
        ("GET", "/"),
    ] {
        let (etcd, pawl) = (ask(theirs, method, target), ask(ours, method, target));
        let status = |head: &str| head.split(' ').nth(1).map(str::to_string);
        assert_eq!(status(&pawl.0), status(&etcd.0), "{method} {target}");
        assert_eq!(pawl.1, etcd.1, "{method} {target}");
        for name in [
            "Content-Type",
            "Content-Length",
            "X-Content-Type-Options",
            "Access-Control-Allow-Headers",
            "Access-Control-Allow-Methods",
            "Access-Control-Allow-Origin",
        ] {
            assert_eq!(field(&pawl.0, name), field(&etcd.0, name), "{name} of {method} {target}");
        }
    }
    let version =
        |port: u16| -> serde_json::Value { serde_json::from_str(&ask(port, "GET", "/version").1).unwrap() };
    for name in ["etcdserver", "etcdcluster"] {
        let parts = |port: u16| version(port)[name].as_str().unwrap().split('.').count();
        assert_eq!((parts(ours), parts(theirs)), (3, 3));
    }
    let (etcd, pawl) = (ask(theirs, "GET", "/metrics"), ask(ours, "GET", "/metrics"));
    assert_eq!(field(&pawl.0, "Content-Type"), field(&etcd.0, "Content-Type"));
    let (etcd, pawl) = (families(&etcd.1), families(&pawl.1));
    let name_of = |family: &String| family.split(' ').next().unwrap().to_string();
    let known: BTreeSet<String> = etcd.iter().map(name_of).collect();
    let shared: Vec<&String> = pawl.iter().filter(|family| known.contains(&name_of(family))).collect();
    assert!(shared.len() > 40, "{shared:?}");
    for family in shared {
        assert!(etcd.contains(family), "etcd has another type than {family}");
    }
}

/// Prometheus' own tools: the page has the right form, its lint finds nothing in our own names, and the rules do what
/// their test says.
#[test]
fn promtool() {
    let promtool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".into());
    if !has(&promtool) {
        return skip("promtool", "it is not installed");
    }
    let cluster = Cluster::start(&Setup::default());
    cluster.leader();
    for member in &cluster.members {
        let (_, page) = get(member.client_port, "/metrics");
        let output = run_with(Command::new(&promtool).args(["check", "metrics"]), page.as_bytes(), PATIENCE);
        let found = [output.stdout.clone(), output.stderr.clone()].concat();
        for line in String::from_utf8(found).unwrap().lines() {
            let of_etcd = line.starts_with("etcd_") && line.contains("\"_total\" suffix");
            assert!(of_etcd, "{line}\n{}", shown(&output));
        }
    }
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/prometheus");
    for args in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let output = run_with(Command::new(&promtool).args(args).current_dir(&rules), b"", PATIENCE);
        assert!(output.status.success(), "{args:?}: {}", shown(&output));
    }
}

/// Rules and dashboard look for metrics that there are.
#[test]
fn what_contrib_looks_for_is_there() {
    let golden = read("tests/golden/metrics.txt");
    let mut known: BTreeSet<String> = BTreeSet::from(["up".into()]);
    for family in families(&golden) {
        let (name, kind) = family.split_once(' ').unwrap();
        match kind {
            "histogram" => known.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}"))),
            _ => known.extend([name.to_string()]),
        }
    }
    let mut looked_for = BTreeSet::new();
    for file in ["contrib/prometheus/alerts.yml", "contrib/grafana/pawl.json"] {
        let text = read(file);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let ours = ["etcd_", "pawl_", "process_", "os_fd_"];
        let names = words.filter(|word| ours.iter().any(|start| word.starts_with(start)));
        for name in names {
            assert!(known.contains(name), "{file} looks for {name}, which /metrics does not have");
            looked_for.insert(name.to_string());
        }
    }
    assert!(looked_for.len() > 25, "{looked_for:?}");
    // The dashboard is what Grafana can read.
    let dashboard: serde_json::Value = serde_json::from_str(&read("contrib/grafana/pawl.json")).unwrap();
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "an id is there twice: {panel}");
        assert!(panel["title"].is_string() && panel["type"].is_string(), "{panel}");
    }
}
