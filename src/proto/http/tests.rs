//! Bytes in, bytes out. The node is a list of answers.

use super::*;
use crate::api::metrics::{Counts, Peer};
use crate::api::{Alarm, AlarmKind, Body, Header, Metrics, RangeResult, Request, Status};
use crate::base::Histogram;

/// What the node says.
#[derive(Clone)]
struct Answers {
    status: Status,
    read: Result<(), Fault>,
    local_read: Result<(), Fault>,
}

impl Default for Answers {
    fn default() -> Answers {
        let status = Status { member_id: 0xa1, leader: 0xb2, term: 3, ..Status::default() };
        Answers { status, read: Ok(()), local_read: Ok(()) }
    }
}

impl Answers {
    fn answer(&self, request: &Request) -> Body {
        let of = |outcome: &Result<(), Fault>, body| match outcome {
            Ok(()) => body,
            Err(fault) => Body::Fault(fault.clone()),
        };
        match request {
            Request::Status => Body::Status(Box::new(self.status.clone())),
            Request::Metrics => {
                Body::Metrics(Box::new(Metrics { status: self.status.clone(), ..Metrics::default() }))
            }
            Request::Exists { .. } => of(&self.read, Body::Exists(0)),
            Request::Range(range) if range.serializable => {
                of(&self.local_read, Body::Range(RangeResult::default()))
            }
            other => panic!("{other:?}"),
        }
    }
}

struct Conn {
    adapter: HttpAdapter,
    input: BytesMut,
    output: BytesMut,
    calls: Vec<Call>,
    answers: Answers,
}

impl Conn {
    fn new(site: Site, scope: Scope) -> Conn {
        let adapter = HttpAdapter::new(Rc::new(site), scope);
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Conn { adapter, input, output, calls: Vec::new(), answers: Answers::default() }
    }

    fn open() -> Conn {
        Conn::new(Site::new(Allowed::All, Allowed::All), Scope::Monitoring)
    }

    /// What the client sends arrives. True: it was refused.
    fn receive(&mut self, bytes: &[u8]) -> bool {
        self.input.extend_from_slice(bytes);
        self.adapter.decode(&mut self.input, &mut self.calls, &mut self.output).is_err()
    }

    /// The node answers the call at this place of those that wait.
    fn answer(&mut self, at: usize) {
        let Call::Request { tag, request } = self.calls.remove(at) else { panic!("only requests are sent") };
        let body = self.answers.answer(&request);
        let reply = Reply { conn: 1, tag, header: Header::default(), body, more: false };
        self.adapter.encode(reply, &mut self.output);
        self.adapter.write(&mut self.calls, &mut self.output);
    }

    fn answer_all(&mut self) {
        while !self.calls.is_empty() {
            self.answer(0);
        }
    }

    fn sent(&mut self) -> String {
        String::from_utf8(self.output.split().to_vec()).unwrap()
    }

    fn ask(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.receive(bytes.as_ref());
        self.answer_all();
        self.sent()
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost:2379\r\n\r\n")
}

fn status_of(answer: &str) -> &str {
    let line = answer.lines().next().unwrap_or_default();
    line.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a head has an end").1
}

const HEALTHY: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 29\r\n\r\n\
    {\"health\":\"true\",\"reason\":\"\"}";

#[test]
fn health_is_the_clusters_as_this_member_sees_it() {
    let mut conn = Conn::open();
    assert_eq!(conn.ask(get("/health")), HEALTHY);

    conn.answers.read = Err(Fault::timeout());
    let ill = conn.ask(get("/health"));
    assert_eq!(status_of(&ill), "503 Service Unavailable");
    assert_eq!(
        body_of(&ill),
        "{\"health\":\"false\",\"reason\":\"RANGE ERROR:etcdserver: request timed out\"}\n"
    );
    assert!(
        ill.contains("X-Content-Type-Options: nosniff\r\n") && ill.contains("Content-Length: 72\r\n"),
        "{ill}"
    );
    assert_eq!(conn.ask(get("/health?serializable=true")), HEALTHY);

    conn.answers.status.leader = 0;
    let ill = conn.ask(get("/health"));
    assert_eq!(body_of(&ill), "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n");
    assert_eq!(conn.ask(get("/health?serializable=true")), HEALTHY);
    conn.answers.local_read = Err(Fault::corrupt());
    assert_eq!(
        body_of(&conn.ask(get("/health?serializable=true"))),
        "{\"health\":\"false\",\"reason\":\"RANGE ERROR:etcdserver: corrupt cluster\"}\n"
    );
    assert_eq!(conn.adapter.site.counters.health(), (3, 3));
}

#[test]
fn without_a_leader_nobody_waits_for_a_read() {
    let mut conn = Conn::open();
    conn.answers.status.leader = 0;
    conn.receive(get("/health").as_bytes());
    assert_eq!(conn.calls.len(), 1);
    conn.answer(0);
    assert!(conn.calls.is_empty() && conn.sent().contains("RAFT NO LEADER"));
}

#[test]
fn alarms_can_be_left_out() {
    let mut conn = Conn::open();
    conn.answers.status.alarms = vec![Alarm { member: 7, kind: AlarmKind::NoSpace }];
    let reason = |conn: &mut Conn, target: &str| body_of(&conn.ask(get(target))).to_string();
    let healthy = body_of(HEALTHY);
    assert_eq!(reason(&mut conn, "/health"), "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n");
    assert_eq!(reason(&mut conn, "/health?exclude=NOSPACE"), healthy);
    assert_eq!(reason(&mut conn, "/health?exclude=&exclude=CORRUPT&exclude=NOSPACE"), healthy);
    conn.answers.status.alarms.push(Alarm { member: 8, kind: AlarmKind::Corrupt });
    assert_eq!(
        reason(&mut conn, "/health?exclude=NOSPACE"),
        "{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}\n"
    );
}

#[test]
fn live_is_who_can_read_and_ready_who_can_be_asked() {
    let mut conn = Conn::open();
    let livez = conn.ask(get("/livez"));
    assert_eq!((status_of(&livez), body_of(&livez)), ("200 OK", "ok\n"));
    assert_eq!(body_of(&conn.ask(get("/livez?verbose"))), "[+]serializable_read ok\nok\n");
    assert_eq!(
        body_of(&conn.ask(get("/readyz?verbose"))),
        "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n"
    );

    conn.answers.read = Err(Fault::no_leader());
    conn.answers.status.learner = true;
    conn.answers.status.alarms =
        vec![Alarm { member: 7, kind: AlarmKind::Corrupt }, Alarm { member: 7, kind: AlarmKind::NoSpace }];
    assert_eq!(status_of(&conn.ask(get("/livez"))), "200 OK");
    let readyz = conn.ask(get("/readyz"));
    assert_eq!(status_of(&readyz), "503 Service Unavailable");
    assert_eq!(
        body_of(&readyz),
        "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n\
         [-]linearizable_read failed: etcdserver: no leader\n[-]non_learner failed: not supported for learner\n\n"
    );
    let rest = "/readyz?exclude=data_corruption&exclude=linearizable_read&exclude=non_learner&verbose=1";
    assert_eq!(body_of(&conn.ask(get(rest))), "[+]serializable_read ok\nok\n");
    assert_eq!(body_of(&conn.ask(get("/livez?exclude=serializable_read"))), "ok\n");
}

#[test]
fn each_check_has_a_page_of_its_own() {
    let mut conn = Conn::open();
    for page in [
        "/livez/serializable_read",
        "/readyz/data_corruption",
        "/readyz/serializable_read",
        "/readyz/linearizable_read",
        "/readyz/non_learner",
    ] {
        assert_eq!(body_of(&conn.ask(get(page))), "ok\n", "{page}");
    }
    conn.answers.read = Err(Fault::no_leader());
    assert_eq!(
        body_of(&conn.ask(get("/readyz/linearizable_read?exclude=linearizable_read"))),
        "[-]linearizable_read failed: etcdserver: no leader\n\n"
    );
    for page in ["/livez/", "/livez/linearizable_read", "/livezz", "/readyz/x", "/nope", "/", "/Health"] {
        let answer = conn.ask(get(page));
        assert_eq!(
            (status_of(&answer), body_of(&answer)),
            ("404 Not Found", "404 page not found\n"),
            "{page}"
        );
    }
}

#[test]
fn the_version_is_for_clients() {
    let mut conn = Conn::new(Site::new(Allowed::All, Allowed::All), Scope::Clients);
    let version = conn.ask(get("/version"));
    assert!(version.contains("Content-Type: application/json\r\n"), "{version}");
    let body = r#"{"etcdserver":"3.5.0","etcdcluster":"3.5.0","pawl":"0.1.0"}"#;
    assert_eq!(body_of(&version), body);
    assert_eq!(status_of(&Conn::open().ask(get("/version"))), "404 Not Found");
}

#[test]
fn methods() {
    let mut conn = Conn::open();
    let head = conn.ask("HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(head, HEALTHY.split_inclusive("\r\n\r\n").next().unwrap());
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let answer =
            conn.ask(format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"));
        assert_eq!(status_of(&answer), "405 Method Not Allowed", "{method}");
        assert!(answer.contains("Allow: GET, HEAD\r\n"), "{answer}");
    }
    assert_eq!(conn.ask(get("/health")), HEALTHY, "the connection goes on");
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let mut conn = Conn::open();
    conn.receive((get("/health") + &get("/nope") + &get("/livez")).as_bytes());
    assert_eq!(conn.calls.len(), 2);
    conn.answer(1);
    assert_eq!(conn.sent(), "", "the first one is not answered");
    conn.answer_all();
    let sent = conn.sent();
    let statuses: Vec<&str> = sent.matches("HTTP/1.1 200").chain(sent.matches("HTTP/1.1 404")).collect();
    assert_eq!(statuses.len(), 3);
    let at = |text: &str| sent.find(text).unwrap();
    assert!(at("\"true\"") < at("404 page") && at("404 page") < at("ok\n"), "{sent}");
}

#[test]
fn so_many_requests_are_under_way_and_no_more() {
    let mut conn = Conn::open();
    conn.receive(get("/health").repeat(EXCHANGES_MAX + 5).as_bytes());
    assert_eq!(conn.calls.len(), EXCHANGES_MAX);
    assert!(conn.adapter.stalled() && conn.adapter.awaits_answers());
    conn.answer_all();
    assert_eq!(conn.sent().matches("200 OK").count(), EXCHANGES_MAX);
    assert!(!conn.adapter.awaits_answers());
    assert_eq!(conn.ask(""), HEALTHY.repeat(5));
}

#[test]
fn arrival_in_pieces_changes_nothing() {
    let wire = "\r\n".to_string()
        + &get("/health?exclude=NOSPACE")
        + "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n"
        + "GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
        + &get("/livez");
    let at_once = Conn::open().ask(&wire);
    assert_eq!(at_once.matches("HTTP/1.1 ").count(), 4);
    for piece in [1, 2, 3, 7, 50] {
        let mut conn = Conn::open();
        let mut sent = String::new();
        for part in wire.as_bytes().chunks(piece) {
            sent += &conn.ask(part);
        }
        assert_eq!(sent, at_once, "in pieces of {piece}");
    }
}

#[test]
fn connections_are_kept_as_the_request_says() {
    for (request, keeps, says) in [
        ("GET /nope HTTP/1.1\r\nHost: x\r\n\r\n", true, None),
        ("GET /nope HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n", false, Some("Connection: close\r\n")),
        (
            "GET /nope HTTP/1.1\r\nHost: x\r\nConnection: x, close\r\n\r\n",
            false,
            Some("Connection: close\r\n"),
        ),
        ("GET /nope HTTP/1.0\r\n\r\n", false, Some("Connection: close\r\n")),
        ("GET /nope HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true, Some("Connection: keep-alive\r\n")),
    ] {
        let mut conn = Conn::open();
        let answer = conn.ask(request.to_string() + &get("/livez"));
        assert_eq!(answer.matches("HTTP/1.1 ").count(), if keeps { 2 } else { 1 }, "{request}");
        assert_eq!(conn.adapter.closing(), !keeps, "{request}");
        assert!(says.is_none_or(|says| answer.contains(says)), "{answer}");
    }
}

/// Each of these could be read in two ways by two servers, or by none.
#[test]
fn what_is_not_clear_is_refused_and_the_connection_ends() {
    let with = |fields: &str| format!("GET /health HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let long = |bytes: usize| "a".repeat(bytes);
    for (request, status) in [
        ("GET /health HTTP/1.1\nHost: x\n\n".to_string(), "400 Bad Request"),
        ("GET /health HTTP/1.1\r\nHost: x\n\r\n".into(), "400 Bad Request"),
        ("GET /health HTTP/1.1\r\n\r\n".into(), "400 Bad Request"),
        ("GET /health HTTP/2.0\r\nHost: x\r\n\r\n".into(), "505 HTTP Version Not Supported"),
        ("GET  /health HTTP/1.1\r\nHost: x\r\n\r\n".into(), "400 Bad Request"),
        ("GET /health\r\n\r\n".into(), "400 Bad Request"),
        ("GET health HTTP/1.1\r\nHost: x\r\n\r\n".into(), "400 Bad Request"),
        ("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n".into(), "400 Bad Request"),
        ("\0\x01\x02\r\n\r\n".into(), "400 Bad Request"),
        (with("Host: y\r\n"), "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), "400 Bad Request"),
        (with("Content-Length: 1\r\nContent-Length: 1\r\n"), "400 Bad Request"),
        (with("Content-Length: 1\r\nContent-Length: 2\r\n"), "400 Bad Request"),
        (with("Content-Length: 1, 1\r\n"), "400 Bad Request"),
        (with("Content-Length: +1\r\n"), "400 Bad Request"),
        (with("Content-Length: -1\r\n"), "400 Bad Request"),
        (with("Content-Length: 0x1\r\n"), "400 Bad Request"),
        (with("Content-Length:\r\n"), "400 Bad Request"),
        (with("Content-Length: 99999999999999999999\r\n"), "400 Bad Request"),
        (with("Content-Length: 65537\r\n"), "413 Content Too Large"),
        (with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), "400 Bad Request"),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), "400 Bad Request"),
        (with("Transfer-Encoding: gzip, chunked\r\n"), "501 Not Implemented"),
        (with("Transfer-Encoding: xchunked\r\n"), "501 Not Implemented"),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), "400 Bad Request"),
        (with("Transfer-Encoding : chunked\r\n"), "400 Bad Request"),
        (with("X: a\r\n folded\r\n"), "400 Bad Request"),
        (with(" X: a\r\n"), "400 Bad Request"),
        (with("X: a\rb\r\n"), "400 Bad Request"),
        (with("X: a\0b\r\n"), "400 Bad Request"),
        (with("X\r\n"), "400 Bad Request"),
        (with(": x\r\n"), "400 Bad Request"),
        (with("Expect: a miracle\r\n"), "417 Expectation Failed"),
        (with("Transfer-Encoding: chunked\r\n") + "g\r\n", "400 Bad Request"),
        (with("Transfer-Encoding: chunked\r\n") + "20000\r\n", "413 Content Too Large"),
        (
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", long(head::REQUEST_LINE_BYTES_MAX)),
            "414 URI Too Long",
        ),
        (format!("GET /{}", long(head::REQUEST_LINE_BYTES_MAX)), "414 URI Too Long"),
        (with(&format!("X: {}\r\n", long(head::HEAD_BYTES_MAX))), "431 Request Header Fields Too Large"),
        (with(&"X: a\r\n".repeat(head::FIELDS_MAX)), "431 Request Header Fields Too Large"),
    ] {
        let mut conn = Conn::open();
        let refused = conn.receive((request.clone() + &get("/livez")).as_bytes());
        conn.answer_all();
        let sent = conn.sent();
        let shown = &request[..request.len().min(200)];
        assert!(refused && conn.adapter.closing(), "{shown:?} was taken");
        assert_eq!(status_of(&sent), status, "{shown:?}");
        assert_eq!(sent.matches("Content-Length: ").count(), 1, "{shown:?}: {sent}");
        assert!(sent.contains("Connection: close\r\n") && body_of(&sent).starts_with(status), "{sent}");
        assert!(conn.input.is_empty());
    }
}

#[test]
fn a_refusal_stands_behind_what_is_owed() {
    let mut conn = Conn::open();
    assert!(conn.receive((get("/health") + "nonsense\r\n\r\n").as_bytes()));
    assert_eq!(conn.sent(), "");
    conn.answer_all();
    let sent = conn.sent();
    assert!(sent.starts_with(HEALTHY) && sent.contains("400 Bad Request"), "{sent}");
}

#[test]
fn a_client_that_holds_its_body_back_is_told_to_go_on() {
    let mut conn = Conn::open();
    let ask = "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(conn.ask(ask), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(status_of(&conn.ask("ab")), "405 Method Not Allowed");
    // Who did not wait needs no word.
    assert_eq!(status_of(&conn.ask(ask.to_string() + "ab")), "405 Method Not Allowed");
    // The word comes behind the answers before it.
    conn.receive((get("/health") + ask).as_bytes());
    assert_eq!(conn.sent(), "");
    assert!(conn.adapter.stalled() && conn.adapter.awaits_answers());
    conn.answer_all();
    assert_eq!(conn.sent(), HEALTHY);
    assert_eq!(conn.ask(""), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(status_of(&conn.ask("ab")), "405 Method Not Allowed");
}

#[test]
fn hosts_that_are_not_on_the_list_are_refused() {
    let hosts = Allowed::from_list(["localhost", "Node1.example"].into_iter());
    let mut conn = Conn::new(Site::new(hosts, Allowed::All), Scope::Clients);
    for host in ["localhost:2379", "LOCALHOST", "node1.example:1"] {
        let answer = conn.ask(format!("GET /version HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(status_of(&answer), "200 OK", "{host}");
    }
    for request in [
        "GET /version HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET http://evil.example/version HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "OPTIONS /version HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ] {
        let answer = conn.ask(request);
        assert_eq!(status_of(&answer), "421 Misdirected Request", "{request}");
        assert!(body_of(&answer).contains("--host-whitelist"));
    }
}

#[test]
fn pages_of_other_origins_may_read_what_the_flag_allows() {
    let ask = |origins: &[&str], origin: &str| {
        let origins = Allowed::from_list(origins.iter().copied());
        let mut conn = Conn::new(Site::new(Allowed::All, origins), Scope::Clients);
        conn.ask(format!("OPTIONS /version HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\r\n"))
    };
    let allowed = "Access-Control-Allow-Origin: ";
    let any = ask(&["*"], "http://a");
    assert_eq!((status_of(&any), body_of(&any)), ("200 OK", ""));
    assert!(
        any.contains(&format!("{allowed}*\r\n")) && any.contains("Access-Control-Allow-Methods: POST, GET")
    );
    assert!(ask(&["http://a", "http://b"], "http://b").contains(&format!("{allowed}http://b\r\n")));
    assert!(!ask(&["http://a"], "http://b").contains("Access-Control"));
    assert!(ask(&[], "http://b").contains(&format!("{allowed}*\r\n")), "as in etcd");
    assert!(!Conn::open().ask(get("/health")).contains("Access-Control"), "monitoring has no use for it");
}

#[test]
fn who_is_late_is_told_so() {
    let late = Fault::new(Code::Err, "protocol error: the request was not complete within 30 s");
    let mut conn = Conn::open();
    conn.receive(b"GET /health HTTP/1.1\r\nHos");
    conn.adapter.give_up(&late, &mut conn.output);
    assert_eq!(status_of(&conn.sent()), "408 Request Timeout");

    // A body is waited for by the adapter's own clock.
    let mut conn = Conn::open();
    conn.adapter.set_time(Mono(5), &mut conn.calls, &mut conn.output);
    conn.receive(b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc");
    let deadline = conn.adapter.deadline();
    assert_eq!(deadline, Mono(5) + BODY_PATIENCE);
    conn.adapter.set_time(deadline, &mut conn.calls, &mut conn.output);
    assert!(conn.adapter.stalled() && conn.adapter.deadline() == Mono::NEVER);
    assert_eq!(status_of(&conn.ask("")), "408 Request Timeout");
    assert!(conn.adapter.closing());
}

#[test]
fn a_silent_connection_ends_without_a_word() {
    let mut conn = Conn::open();
    conn.adapter.give_up(&Fault::shutdown(), &mut conn.output);
    assert_eq!(conn.sent(), "");
    assert!(conn.adapter.closing());

    let mut conn = Conn::open();
    conn.receive(get("/health").as_bytes());
    conn.receive(b"GET /he");
    conn.adapter.give_up(&Fault::shutdown(), &mut conn.output);
    conn.answer_all();
    let sent = conn.sent();
    assert!(sent.starts_with(HEALTHY) && sent.contains("503 Service Unavailable"), "{sent}");
    assert!(sent.ends_with("etcdserver: server stopped\n"), "{sent}");
}

#[test]
fn a_member_that_must_not_answer_shows_no_metrics() {
    let mut conn = Conn::open();
    conn.receive(get("/metrics").as_bytes());
    let Call::Request { tag, .. } = conn.calls.remove(0) else { panic!("it asks") };
    let body = Body::Fault(Fault::shutdown());
    let reply = Reply { conn: 1, tag, header: Header::default(), body, more: false };
    conn.adapter.encode(reply, &mut conn.output);
    conn.adapter.write(&mut conn.calls, &mut conn.output);
    let sent = conn.sent();
    assert_eq!(
        (status_of(&sent), body_of(&sent)),
        ("503 Service Unavailable", "etcdserver: server stopped\n")
    );
}

fn some_metrics() -> Metrics {
    let mut times = Histogram::default();
    [100_000, 150_000, 3_000_000, 20_000_000_000].into_iter().for_each(|took| times.observe(took));
    let status = Status {
        member_id: 0xa1,
        leader: 0xa1,
        term: 3,
        commit_index: 70,
        applied_index: 69,
        revision: 41,
        compact_revision: 5,
        db_size: 81_920,
        db_size_in_use: 40_960,
        alarms: vec![Alarm { member: 0xb2, kind: AlarmKind::NoSpace }],
        ..Status::default()
    };
    let mut metrics = Metrics { status, round_trips: vec![(0xb2, times)], ..Metrics::default() };
    metrics.counts = Counts { leader_changes: 2, puts: 40, writes: times, ..Counts::default() };
    metrics.counts.requests[0] = 40;
    metrics.counts.faults[Code::NoSpace as usize] = 3;
    metrics.gauges.keys = 17;
    metrics.shell.log_syncs = times;
    metrics.shell.peers = vec![Peer {
        id: 0xb2,
        connected: true,
        sent_bytes: 9,
        received_bytes: 8,
        dropped: 1,
        disconnects: 4,
    }];
    metrics.shell.process.started_unix_ms = 1_700_000_000_042;
    metrics.shell.process.cpu_ms = 12_345;
    metrics
}

/// The whole page, as it is scraped. `UPDATE=1` rewrites it.
#[test]
fn the_page_of_metrics() {
    let counters = Counters::default();
    counters.count_health(true);
    counters.count_check(health::Probe::Livez, health::Check::SerializableRead, true);
    let text = metrics::text(&some_metrics(), &counters, &Default::default());
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics.txt");
    golden(&path, &text);
}

#[expect(clippy::disallowed_methods, reason = "a golden is read from the repository")]
fn golden(path: &std::path::Path, text: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert!(golden == text, "{} differs from\n{text}", path.display());
}

/// Each family once, with a word of what it is, and nothing twice.
#[test]
fn families_are_whole_and_samples_are_there_once() {
    let text = metrics::text(&some_metrics(), &Counters::default(), &Default::default());
    let (mut families, mut samples) = (Vec::new(), Vec::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(!families.contains(&name), "{name} is there twice");
            assert!(name.starts_with("pawl_") || !kind.is_empty());
            families.push(name);
        } else if !line.starts_with('#') {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(sample.starts_with(families.last().unwrap()), "{sample} is not of {:?}", families.last());
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(!samples.contains(&sample), "{sample} is there twice");
            samples.push(sample);
        }
    }
    assert!(families.len() > 60, "{}", families.len());
    let own = families.iter().filter(|name| name.starts_with("pawl_"));
    for name in own {
        let is_counter = text.contains(&format!("# TYPE {name} counter"));
        assert_eq!(name.ends_with("_total"), is_counter, "{name}");
    }
}
