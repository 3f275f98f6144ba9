//! The binary as people call it: names, exit codes, and the client's output against recorded output of
//! etcdctl. The server of the client's tests is a few lines that answer with fixed replies, so that every
//! byte of the output is known.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use crate::harness;

const PAWLD: &str = env!("CARGO_BIN_EXE_pawld");

/// A process without the variables of whoever runs the tests.
fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.env_clear().stdin(Stdio::null());
    command
}

pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (status.code().expect("an exit code"), text(&stdout), text(&stderr))
}

pub(crate) fn pawlctl(words: &[&str]) -> Command {
    let mut ctl = command(PAWLD);
    ctl.arg("ctl").args(words);
    ctl
}

/// Answers `replies.len()` connections: `HEADER ON` with `+OK`, and the request behind it with the reply. What was
/// asked comes back at the end. An empty reply closes.
struct FakeServer {
    endpoint: String,
    requests: JoinHandle<Vec<String>>,
}

impl FakeServer {
    fn start(replies: Vec<String>) -> FakeServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = listener.local_addr().expect("an address").to_string();
        let requests = std::thread::spawn(move || {
            let answer = |reply: &String| {
                let (mut stream, _) = listener.accept().expect("a client");
                let request = read_request(&mut stream);
                stream.write_all(reply.as_bytes()).expect("the client reads");
                request
            };
            replies.iter().map(answer).collect()
        });
        FakeServer { endpoint, requests }
    }

    fn requests(self) -> Vec<String> {
        self.requests.join().expect("the server was asked as often as it has replies")
    }
}

/// Answers `HEADER ON`, which may come alone. The words behind it, joined; both are arrays of bulk strings.
fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut greeted = false;
    loop {
        let mut rest = &bytes[..];
        if let Some(header) = words(&mut rest) {
            assert_eq!(header, ["HEADER", "ON"]);
            if !greeted {
                stream.write_all(b"+OK\r\n").expect("the client reads");
                greeted = true;
            }
            if let Some(words) = words(&mut rest) {
                return words.join(" ");
            }
        }
        let mut buf = [0; 4096];
        let read = stream.read(&mut buf).expect("the client writes");
        assert!(read > 0, "the client has closed before its request was whole");
        bytes.extend_from_slice(&buf[..read]);
    }
}

fn words(bytes: &mut &[u8]) -> Option<Vec<String>> {
    let mut number = |kind: u8| {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        assert_eq!(bytes[0], kind);
        let number: usize = std::str::from_utf8(&bytes[1..end]).ok()?.parse().ok()?;
        *bytes = &bytes[end + 2..];
        Some(number)
    };
    let count = number(b'*')?;
    let mut words = Vec::new();
    for _ in 0..count {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        assert_eq!(bytes[0], b'$');
        let length: usize = std::str::from_utf8(&bytes[1..end]).ok()?.parse().ok()?;
        let word = bytes.get(end + 2..end + 2 + length)?;
        words.push(String::from_utf8_lossy(word).into_owned());
        *bytes = bytes.get(end + 2 + length + 2..)?;
    }
    Some(words)
}

/// A reply behind the header of the recorded cluster.
pub(crate) fn with_header(revision: u64, reply: &str) -> String {
    format!("*2\r\n*4\r\n{}{}:{revision}\r\n:2\r\n{reply}", bulk(CLUSTER), bulk(MEMBER))
}

const CLUSTER: &str = "324952591200643719";
const MEMBER: &str = "3319814642761637952";

pub(crate) fn bulk(text: impl AsRef<[u8]>) -> String {
    // The fixed replies hold no bytes that are not UTF-8 but in `BINARY`, which is spelled by hand.
    let text = text.as_ref();
    format!("${}\r\n{}\r\n", text.len(), std::str::from_utf8(text).expect("text"))
}

fn kv(key: &str, value: &str, create: u64, modified: u64, version: u64) -> String {
    format!("*6\r\n{}{}:{create}\r\n:{modified}\r\n:{version}\r\n:0\r\n", bulk(key), bulk(value))
}

fn range(revision: u64, count: u64, more: u8, kvs: &[String]) -> String {
    with_header(
        revision,
        &format!(
            "*8\r\n+revision\r\n:{revision}\r\n+count\r\n:{count}\r\n+more\r\n:{more}\r\n+kvs\r\n*{}\r\n{}",
            kvs.len(),
            kvs.concat()
        ),
    )
}

fn delete(revision: u64, prevs: &[String]) -> String {
    let (n, prevs) = (prevs.len(), prevs.concat());
    with_header(
        revision,
        &format!("*6\r\n+revision\r\n:{revision}\r\n+deleted\r\n:{n}\r\n+prevs\r\n*{n}\r\n{prevs}"),
    )
}

fn status() -> String {
    let id = bulk(MEMBER);
    let cluster = bulk(CLUSTER);
    with_header(
        13,
        &format!(
            "*28\r\n+member_id\r\n{id}+cluster_id\r\n{cluster}+name\r\n+n1\r\n+version\r\n+3.5.1\r\n+leader\r\n{id}\
             +term\r\n:2\r\n+commit_index\r\n:17\r\n+applied_index\r\n:17\r\n+revision\r\n:13\r\n\
             +compact_revision\r\n:0\r\n+db_size\r\n:20480\r\n+db_size_in_use\r\n:16384\r\n+learner\r\n:0\r\n\
             +errors\r\n*0\r\n"
        ),
    )
}

fn alarms(members: &[&str]) -> String {
    let alarm = |member: &&str| format!("*4\r\n+member_id\r\n{}+alarm\r\n+NOSPACE\r\n", bulk(member));
    let all: String = members.iter().map(alarm).collect();
    with_header(13, &format!("*{}\r\n{all}", members.len()))
}

fn members() -> String {
    let id = bulk(MEMBER);
    with_header(
        13,
        &format!(
            "*1\r\n*10\r\n+id\r\n{id}+name\r\n+n1\r\n+peer_urls\r\n*1\r\n{}+client_urls\r\n*1\r\n{}+learner\r\n:0\r\n",
            bulk("http://127.0.0.1:23800"),
            bulk("http://127.0.0.1:23790")
        ),
    )
}

/// One command line against one reply.
pub(crate) fn ask(words: &[&str], reply: String) -> (i32, String, String, String) {
    let server = FakeServer::start(vec![reply]);
    let (exit, out, err) = run(pawlctl(&["--endpoints", &server.endpoint]).args(words));
    let out = out.replace(&server.endpoint, "127.0.0.1:23790");
    let request = server.requests().remove(0);
    (exit, out, err, request)
}

/// Recorded from etcdctl 3.5.1 against etcd 3.5.1: the section of a command line.
pub(crate) fn golden(line: &str) -> String {
    let text = concat!(
        include_str!("golden/etcdctl-3.5.1.txt"),
        include_str!("golden/etcdctl-3.5.1-leases.txt"),
        include_str!("golden/etcdctl-3.5.1-alarms.txt"),
    );
    let mut sections = text.split("$ ").filter_map(|section| section.split_once('\n'));
    let (_, body) =
        sections.find(|(title, _)| *title == line).unwrap_or_else(|| panic!("no golden for {line:?}"));
    body.to_owned()
}

#[test]
fn output_is_etcdctls() {
    let foo = || kv("foo", "bar2", 8, 9, 2);
    let foo3 = || kv("foo3", "a\u{1}\n\"é", 11, 11, 1);
    let cases: Vec<(&str, &str, String)> = vec![
        ("put foo bar", "PUT foo bar", with_header(8, ":8\r\n")),
        ("put foo bar2 --prev-kv", "PUT foo bar2 PREV", {
            with_header(9, &format!("*2\r\n:9\r\n{}", kv("foo", "bar", 8, 8, 1)))
        }),
        ("put new bar2 --prev-kv", "PUT new bar2 PREV", with_header(10, "*2\r\n:10\r\n$-1\r\n")),
        ("get foo", "RANGE foo", range(11, 1, 0, &[foo()])),
        ("get nope", "RANGE nope", range(11, 0, 0, &[])),
        ("get foo --prefix", "RANGE foo PREFIX", range(11, 2, 0, &[foo(), foo3()])),
        ("get foo --prefix --limit=1", "RANGE foo PREFIX LIMIT 1", range(11, 2, 1, &[foo()])),
        ("get foo --prefix --keys-only", "RANGE foo PREFIX KEYS", {
            let null = |kv: String, value: &str| kv.replace(&bulk(value), "$-1\r\n");
            range(11, 2, 0, &[null(foo(), "bar2"), null(foo3(), "a\u{1}\n\"é")])
        }),
        ("get foo3 --hex", "RANGE foo3", range(11, 1, 0, &[foo3()])),
        ("del foo", "DEL foo", with_header(12, ":1\r\n")),
        ("del nope", "DEL nope", with_header(12, ":0\r\n")),
        ("del foo --from-key --prev-kv", "DEL foo FROM PREV", {
            delete(13, &[foo3(), kv("new", "bar2", 10, 10, 1)])
        }),
        ("compaction 7", "COMPACT 7", with_header(13, "+OK\r\n")),
        ("member list", "MEMBER LIST", members()),
        ("member list --hex", "MEMBER LIST", members()),
        ("endpoint status", "STATUS", status()),
    ];
    for (line, request, reply) in &cases {
        for format in ["simple", "json", "fields", "table"] {
            // etcdctl has no tables for keys and values; `refusals_are_etcdctls` is about that.
            if format == "table" && !line.contains("member") && !line.contains("endpoint") {
                continue;
            }
            let line = format!("{line} -w {format}");
            let words: Vec<&str> = line.split(' ').collect();
            let (exit, out, err, asked) = ask(&words, reply.clone());
            assert_eq!((exit, err.as_str(), asked.as_str()), (0, "", *request), "{line}");
            assert_eq!(out, golden(&line), "{line}");
        }
    }
}

/// (`alarm disarm -w fields` ends etcdctl.)
#[test]
fn alarms_are_printed_as_etcdctl_does() {
    for (line, asked) in [
        ("alarm list -w simple", "ALARM LIST"),
        ("alarm list -w json", "ALARM LIST"),
        ("alarm list -w fields", "ALARM LIST"),
        ("alarm disarm -w simple", "ALARM DISARM"),
        ("alarm disarm -w json", "ALARM DISARM"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let (exit, out, err, request) = ask(&words, alarms(&[MEMBER]));
        assert_eq!((exit, err.as_str(), request.as_str()), (0, "", asked), "{line}");
        assert_eq!(out, golden(line), "{line}");
    }
    let (exit, out, _, _) = ask(&["alarm", "list"], alarms(&[]));
    assert_eq!((exit, out.as_str()), (0, ""));
    // Of nobody, and of the other kind: as etcdctl 3.5.1 prints what a client of etcd raised.
    let corrupt = || alarms(&["0"]).replace("NOSPACE", "CORRUPT");
    let told = |format| ask(&["alarm", "list", "-w", format], corrupt()).1;
    assert_eq!(told("simple"), "alarm:CORRUPT \n");
    assert!(told("json").ends_with(",\"alarms\":[{\"alarm\":2}]}\n"), "{}", told("json"));
    assert!(told("fields").ends_with("\"MemberID\" : 0\n\"AlarmType\" : CORRUPT\n\n"), "{}", told("fields"));
}

/// The inputs are those that etcdctl was given.
#[test]
fn transactions_are_printed_as_etcdctl_does() {
    let foo = |value: &str, modified, version| kv("foo", value, 2, modified, version);
    let foo3 = kv("foo3", "a\u{1}\n\"é", 3, 3, 1);
    // A range and a delete within the transaction have no header of their own.
    let range = |revision, kv: &str| {
        format!("*8\r\n+revision\r\n:{revision}\r\n+count\r\n:1\r\n+more\r\n:0\r\n+kvs\r\n*1\r\n{kv}")
    };
    let txn = |revision, succeeded: u8, responses: &[String]| {
        let (count, responses) = (responses.len(), responses.concat());
        with_header(
            revision,
            &format!(
                "*6\r\n+revision\r\n:{revision}\r\n+succeeded\r\n:{succeeded}\r\n+responses\r\n*{count}\r\n{responses}"
            ),
        )
    };
    let swap = txn(
        4,
        1,
        &[
            format!("*2\r\n:4\r\n{}", foo("bar", 2, 1)),
            range(4, &foo("bar2", 4, 2)),
            range(2, &foo("bar", 2, 1)),
            ":0\r\n".into(),
            format!("*6\r\n+revision\r\n:4\r\n+deleted\r\n:1\r\n+prevs\r\n*1\r\n{foo3}"),
            range(4, &foo("", 4, 2).replace(&bulk(""), "$-1\r\n")),
        ],
    );
    let missed = txn(5, 0, &[range(4, &foo("bar2", 4, 2)), ":5\r\n".into()]);
    for (title, input, asked, reply) in [
        (
            "txn swap",
            "mod(\"foo\") > \"0\"\nval(\"foo\") = \"bar\"\n\nput foo bar2 --prev-kv\nget foo\n\
             get foo --prefix --rev=2\ndel nope\ndel foo3 --prefix --prev-kv\nget foo --prefix --keys-only\n\n\
             put x y\n\n",
            "TXN IF MOD foo > 0 VALUE foo = bar THEN PUT foo bar2 PREV RANGE foo RANGE foo PREFIX REV 2 DEL nope \
             DEL foo3 PREFIX PREV RANGE foo PREFIX KEYS ELSE PUT x y END",
            swap,
        ),
        (
            "txn missed",
            "c(\"foo\") = \"0\"\n\nput foo \"again\"\n\nget foo --limit=1\nput foo 'a b'\n\n",
            "TXN IF CREATE foo = 0 THEN PUT foo again ELSE RANGE foo LIMIT 1 PUT foo a b END",
            missed,
        ),
        ("txn nothing", "\n\n\n", "TXN IF THEN ELSE END", txn(5, 1, &[])),
    ] {
        for format in ["simple", "json", "fields"] {
            let server = FakeServer::start(vec![reply.clone()]);
            let mut client = pawlctl(&["txn", "-w", format, "--endpoints", &server.endpoint]);
            let output = harness::run_with(&mut client, input.as_bytes(), harness::PATIENCE);
            assert!(output.status.success(), "{}", harness::shown(&output));
            assert_eq!(String::from_utf8_lossy(&output.stdout), golden(&format!("{title} -w {format}")));
            assert_eq!(server.requests(), [asked]);
        }
    }
}

#[test]
fn refusals_are_etcdctls() {
    let refuse = |words: &[&str], reply: &str| {
        let (exit, out, err, _) = ask(words, reply.into());
        assert_eq!(out, "");
        (exit, err)
    };
    for (words, reply, exit, line) in [
        (
            &["put", "k", "--ignore-value"][..],
            "-NOKEY etcdserver: key not found\r\n",
            1,
            "Error: etcdserver: key not found\n",
        ),
        (
            &["get", "k", "--rev=2"],
            "-COMPACTED 3 etcdserver: mvcc: required revision has been compacted\r\n",
            1,
            "Error: etcdserver: mvcc: required revision has been compacted\n",
        ),
        (
            &["get", ""],
            "-ERR etcdserver: key is not provided\r\n",
            1,
            "Error: etcdserver: key is not provided\n",
        ),
        (
            &["compact", "9", "--physical"],
            "-FUTURE 4 etcdserver: mvcc: required revision is a future revision\r\n",
            1,
            "Error: etcdserver: mvcc: required revision is a future revision\n",
        ),
        (&["get", "k"], ":1\r\n", 1, "sent an answer without a header\n"),
    ] {
        let (code, err) = refuse(words, reply);
        assert!(code == exit && err.ends_with(line) && err.lines().count() == 1, "{words:?}: {code} {err}");
    }
    for words in [["alarm", "list", "x"], ["alarm", "disarm", "x"]] {
        let (exit, _, err) = run(&mut pawlctl(&words));
        assert_eq!((exit, err), (128, format!("Error: alarm {} command accepts no arguments\n", words[1])));
    }
    let (exit, err) = refuse(&["alarm", "list", "-w", "table"], &alarms(&[]));
    assert_eq!((exit, err.as_str()), (4, "Error: table not supported as output format\n"));
    let (exit, err) = refuse(&["get", "foo", "-w", "table"], &range(1, 0, 0, &[]));
    assert_eq!((exit, err.as_str()), (4, "Error: table not supported as output format\n"));
}

/// Bytes that are not text reach standard output as they are.
#[test]
fn values_are_bytes() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = listener.local_addr().expect("an address").to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        read_request(&mut stream);
        let reply = range(1, 1, 0, &[kv("k", "VALUE", 1, 1, 1)]).replace("$5\r\nVALUE", "$3\r\nV");
        let (before, after) = reply.split_once('V').expect("there is a value");
        let bytes = [before.as_bytes(), b"\xff\x00\n", after.as_bytes()].concat();
        stream.write_all(&bytes).expect("the client reads");
    });
    let output = pawlctl(&["get", "k", "--endpoints", &endpoint]).output().expect("the client runs");
    assert_eq!(output.stdout, b"k\n\xff\x00\n\n");
    server.join().expect("the server was asked");
}

#[test]
fn a_value_can_come_from_standard_input() {
    let server = FakeServer::start(vec![with_header(2, ":2\r\n")]);
    let mut client = pawlctl(&["put", "k", "--endpoints", &server.endpoint])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the client runs");
    client.stdin.take().expect("a pipe").write_all(b"line\n").expect("the client reads");
    assert!(client.wait().expect("the client ends").success());
    assert_eq!(server.requests(), ["PUT k line\n"]);
}

/// A port where nobody listens and nobody else can: bound for as long as this lives.
struct ClosedPort {
    endpoint: String,
    _bound: socket2::Socket,
}

fn closed_port() -> ClosedPort {
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    bound.bind(&any.into()).expect("a port");
    let address = bound.local_addr().expect("an address").as_socket().expect("an IP address");
    ClosedPort { endpoint: address.to_string(), _bound: bound }
}

#[test]
fn a_server_that_is_away_is_passed_over() {
    let server = FakeServer::start(vec![
        "-NOLEADER etcdserver: no leader\r\n".into(),
        with_header(2, ":2\r\n"),
        with_header(3, ":3\r\n"),
    ]);
    let away = closed_port();
    let endpoints = format!("{},{}", away.endpoint, server.endpoint);
    // The first answer is NOLEADER: nothing has happened, so even a write may be sent again.
    for _ in 0..2 {
        let (exit, out, err) = run(&mut pawlctl(&["put", "k", "v", "--endpoints", &endpoints]));
        assert_eq!((exit, out.as_str(), err.as_str()), (0, "OK\n", ""));
    }
    assert_eq!(server.requests(), ["PUT k v", "PUT k v", "PUT k v"]);
}

#[test]
fn a_write_is_never_sent_twice_when_its_answer_is_lost() {
    let server = FakeServer::start(vec![String::new()]);
    let other = FakeServer::start(vec![with_header(1, ":0\r\n")]);
    let endpoints = format!("{},{}", server.endpoint, other.endpoint);
    let (exit, out, err) = run(&mut pawlctl(&["del", "k", "--endpoints", &endpoints]));
    assert_eq!((exit, out.as_str()), (1, ""));
    assert!(err.contains("may or may not have happened") && err.lines().count() == 1, "{err}");
    assert_eq!(server.requests(), ["DEL k"]);
    // A read whose answer is lost goes to the next server. This also asks `other`, which proves that the
    // write has not.
    let server = FakeServer::start(vec![String::new()]);
    let endpoints = format!("{},{}", server.endpoint, other.endpoint);
    let (exit, _, err) = run(&mut pawlctl(&["get", "k", "--endpoints", &endpoints]));
    assert_eq!((exit, err.as_str()), (1, "Error: the answer to RANGE has an unknown shape\n"));
    assert_eq!((server.requests(), other.requests()), (vec!["RANGE k".into()], vec!["RANGE k".into()]));
}

/// The first endpoint accepts connections, as the kernel does for a process that is stopped, and never answers: the
/// next one is asked while there is time, and a write has not gone to the first.
#[test]
fn a_server_that_hangs_is_passed_over() {
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = hanging.local_addr().expect("an address");
    let server = FakeServer::start(vec![range(1, 1, 0, &[kv("k", "v", 1, 1, 1)]), with_header(2, ":2\r\n")]);
    let endpoints = format!("{at},{}", server.endpoint);
    for (words, printed) in [(&["get", "k"][..], "k\nv\n"), (&["put", "k", "w"], "OK\n")] {
        let (exit, out, err) = run(pawlctl(words).args(["--endpoints", &endpoints, "--command-timeout=4s"]));
        assert_eq!((exit, out.as_str(), err.as_str()), (0, printed, ""), "{words:?}");
    }
    assert_eq!(server.requests(), ["RANGE k", "PUT k w"]);
    let mut received = String::new();
    for _ in 0..2 {
        let (mut stream, _) = hanging.accept().expect("both have connected");
        stream.read_to_string(&mut received).expect("text, until the client has closed");
    }
    let (header, get) = ("*2\r\n$6\r\nHEADER\r\n$2\r\nON\r\n", "*2\r\n$5\r\nRANGE\r\n$1\r\nk\r\n");
    assert_eq!(received, [header, get, header].concat());

    // Alone it has all the time, and is what the error names.
    let hanging = format!("{at}");
    let (exit, out, err) =
        run(pawlctl(&["get", "k"]).args(["--endpoints", &hanging, "--command-timeout=300ms"]));
    assert_eq!((exit, out.as_str()), (1, ""));
    assert_eq!(err, format!("Error: context deadline exceeded: no answer from {at}: timed out\n"));
}

#[test]
fn nobody_is_there() {
    let ClosedPort { endpoint, _bound } = closed_port();
    let (exit, out, err) =
        run(&mut pawlctl(&["get", "k", "--endpoints", &endpoint, "--command-timeout=120ms"]));
    assert_eq!((exit, out.as_str()), (1, ""));
    assert_eq!(
        err,
        format!("Error: context deadline exceeded: cannot reach {endpoint}: connection refused\n")
    );
}

#[test]
fn health_is_told_apart() {
    let server = FakeServer::start(vec![range(1, 0, 0, &[]), alarms(&[])]);
    let ClosedPort { endpoint: closed, _bound } = closed_port();
    let endpoints = format!("{},{closed}", server.endpoint);
    let (exit, out, err) = run(&mut pawlctl(&["endpoint", "health", "--endpoints", &endpoints]));
    assert_eq!(exit, 1);
    let healthy = format!("{} is healthy: successfully committed proposal: took = ", server.endpoint);
    assert!(out.starts_with(&healthy) && out.lines().count() == 1, "{out}");
    assert_eq!(
        err,
        format!(
            "Warning: cannot reach {closed}: connection refused\n\
             {closed} is unhealthy: failed to commit proposal: context deadline exceeded\n\
             Error: unhealthy cluster\n"
        )
    );
    assert_eq!(server.requests(), ["RANGE health KEYS", "ALARM LIST"]);
}

#[test]
fn an_alarm_is_no_health() {
    let server = FakeServer::start(vec![range(1, 0, 0, &[]), alarms(&[MEMBER])]);
    let (exit, out, err) = run(&mut pawlctl(&["endpoint", "health", "--endpoints", &server.endpoint]));
    let endpoint = &server.endpoint;
    let line = format!("{endpoint} is unhealthy: failed to commit proposal: Active Alarm(s): NOSPACE \n");
    assert_eq!((exit, out.as_str(), err), (1, "", line + "Error: unhealthy cluster\n"));
    server.requests();
}

#[test]
fn a_member_that_does_not_answer_leaves_the_others_status() {
    let server = FakeServer::start(vec![status()]);
    let ClosedPort { endpoint: closed, _bound } = closed_port();
    let endpoints = format!("{closed},{}", server.endpoint);
    let (exit, out, err) = run(&mut pawlctl(&["endpoint", "status", "--endpoints", &endpoints]));
    assert_eq!(exit, 1);
    assert_eq!(
        out,
        format!("{}, 2e1259d415f2a040, 3.5.1, 20 kB, true, false, 2, 17, 17, \n", server.endpoint)
    );
    let failed = format!("Failed to get the status of endpoint {closed} (");
    assert!(err.starts_with(&failed) && err.lines().count() == 1, "{err}");
    server.requests();
}

/// The fake server says that it is 3.5.1; a real one says Pawl's own version.
#[test]
fn a_server_has_a_version_that_scripts_for_etcd_can_compare() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, version) in [("pawlctl", "3.5.1"), ("etcdctl", "3.5.0+pawl.3.5.1")] {
        let link = dir.path().join(name);
        std::os::unix::fs::symlink(PAWLD, &link).expect("a link");
        for (format, around) in [("simple", [", ", ", "]), ("json", ["\"version\":\"", "\","])] {
            let server = FakeServer::start(vec![status()]);
            let (exit, out, err) = run(command(&link).args([
                "endpoint",
                "status",
                "-w",
                format,
                "--endpoints",
                &server.endpoint,
            ]));
            assert_eq!((exit, err.as_str()), (0, ""), "{name}");
            assert!(out.contains(&around.join(version)), "{name}: {out}");
            server.requests();
        }
    }
}

#[test]
fn a_link_is_what_its_name_says() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, words, first) in [
        ("etcd", "--version", "etcd Version: 3.5.0+pawl."),
        ("etcdctl", "version", "etcdctl version: 3.5.0+pawl."),
        ("etcdutl", "version", "etcdutl version: 3.5.0+pawl."),
        ("pawlctl", "version", "pawlctl version: "),
        ("pawlutl", "version", "pawlutl version: "),
        ("pawld", "version", "pawld version: "),
    ] {
        let link = dir.path().join(name);
        std::os::unix::fs::symlink(PAWLD, &link).expect("a link");
        let (exit, out, err) = run(command(&link).arg(words));
        assert!(exit == 0 && out.starts_with(first) && err.is_empty(), "{name}: {exit} {out} {err}");
    }
}

/// A start that is refused leaves no trace: nothing is created before everything is valid.
#[test]
fn a_refused_start_creates_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let refuse = |words: &[&str], variable: (&str, &str)| {
        let (exit, out, err) =
            run(command(PAWLD).args(words).env(variable.0, variable.1).current_dir(dir.path()));
        assert!(out.is_empty() && err.lines().count() == 1, "{words:?}: {out} {err}");
        let left: Vec<_> = std::fs::read_dir(dir.path()).expect("the directory").collect();
        assert!(left.is_empty(), "{left:?}");
        (exit, err)
    };
    let (exit, err) = refuse(&["--data-dir", "d", "--heartbeat-intervall=1"], ("X", ""));
    assert_eq!(
        (exit, err.as_str()),
        (2, "pawld: unknown flag --heartbeat-intervall; did you mean --heartbeat-interval?\n")
    );
    let (exit, err) = refuse(&["--data-dir", "d"], ("ETCD_LISTEN_PEER_URLS", "https://127.0.0.1:1"));
    assert_eq!(
        (exit, err.as_str()),
        (1, "pawld: ETCD_LISTEN_PEER_URLS: https://127.0.0.1:1: TLS is not available yet: use http://\n")
    );
    // Ours wins over etcd's, and is what the message names.
    let (_, err) = refuse(&["--data-dir", "d", "--election-timeout=1"], ("PAWL_NAME", "a,b"));
    assert!(err.contains("PAWL_NAME"), "{err}");
}

/// A member that is reached over IPv6 alone.
#[test]
fn a_server_listens_on_the_loopback_of_ipv6() {
    let Ok(probe) = TcpListener::bind("[::1]:0") else {
        return harness::skip("a server on [::1]", "this machine has no IPv6 loopback");
    };
    drop(probe);
    let dir = tempfile::tempdir().expect("a directory");
    let (client, peer) = (harness::free_port(), harness::free_port());
    let (client, peer) = (format!("[::1]:{client}"), format!("http://[::1]:{peer}"));
    let mut server = command(PAWLD)
        .args(["--name=n1", "--log-level=error", "--data-dir"])
        .arg(dir.path().join("data"))
        .args([format!("--listen-client-urls=http://{client}"), format!("--listen-peer-urls={peer}")])
        .args([format!("--advertise-client-urls=http://{client}"), format!("--initial-cluster=n1={peer}")])
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .spawn()
        .expect("the server starts");
    let ctl = |words: &[&str]| run(pawlctl(words).args(["--command-timeout=20s", "--endpoints", &client]));
    let put = ctl(&["put", "k", "v"]);
    let get = ctl(&["get", "k"]);
    let (_, members, _) = ctl(&["member", "list"]);
    let (health, ..) = ctl(&["endpoint", "health", "--cluster"]);
    server.kill().expect("the server runs");
    server.wait().expect("the server ends");
    assert_eq!(put, (0, "OK\n".into(), String::new()));
    assert_eq!(get, (0, "k\nv\n".into(), String::new()));
    assert!(members.ends_with(&format!(", started, n1, {peer}, http://{client}, false\n")), "{members}");
    assert_eq!(health, 0);
}

/// The whole way once: a server under etcd's name, its client, a kill, and the offline tool behind it. The
/// client itself waits for the server to listen.
#[test]
fn a_server_answers_its_client_and_leaves_sound_files() {
    let dir = tempfile::tempdir().expect("a directory");
    // Two ports at once, so that they differ; given back for the server to take.
    let (client, peer) = {
        let (client, peer) = (closed_port(), closed_port());
        (client.endpoint, peer.endpoint)
    };
    let data_dir = dir.path().join("data");
    let etcd = dir.path().join("etcd");
    std::os::unix::fs::symlink(PAWLD, &etcd).expect("a link");
    let mut server = command(&etcd)
        .args(["-name", "n1", "--log-level=error", "--data-dir"])
        .arg(&data_dir)
        .args(["--listen-client-urls", &format!("http://{client}")])
        .args(["--advertise-client-urls", &format!("http://{client}")])
        .args(["--listen-peer-urls", &format!("http://{peer}")])
        .env("ETCD_INITIAL_ADVERTISE_PEER_URLS", format!("http://{peer}"))
        .env("ETCD_INITIAL_CLUSTER", format!("n1=http://{peer}"))
        .spawn()
        .expect("the server starts");
    let ctl = |words: &[&str]| {
        run(pawlctl(words)
            .args(["--command-timeout=20s"])
            .env("ETCDCTL_ENDPOINTS", format!("http://{client}")))
    };
    let good = |out: &str| (0, out.to_owned(), String::new());
    assert_eq!(ctl(&["put", "k", "v"]), good("OK\n"));
    assert_eq!(ctl(&["put", "k", "w", "--prev-kv"]), good("OK\nk\nv\n"));
    assert_eq!(ctl(&["get", "", "--prefix=true"]), good("k\nw\n"));
    assert_eq!(ctl(&["get", "k", "--rev=2", "--print-value-only"]), good("v\n"));
    assert_eq!(ctl(&["del", "k"]), good("1\n"));
    let (exit, out, _) = ctl(&["member", "list"]);
    assert!(
        exit == 0 && out.ends_with(&format!(", started, n1, http://{peer}, http://{client}, false\n")),
        "{out}"
    );

    let verify = || run(command(PAWLD).args(["util", "verify", "--data-dir"]).arg(&data_dir));
    let (exit, _, err) = verify();
    assert!(exit == 1 && err.contains("in use by a running server"), "{err}");
    server.kill().expect("the server runs");
    server.wait().expect("the server ends");
    let (exit, out, err) = verify();
    assert!(exit == 0 && out.ends_with("\nsound\n"), "{out} {err}");
}
