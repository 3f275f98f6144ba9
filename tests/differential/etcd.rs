//! A real etcd, asked through its JSON gateway: bytes in base64, 64-bit numbers as text, zeros left out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pawl::api::{
    Acquire, CompareResult, LeaseRequest, LockRequest, Op, Order, Range, Request, SortBy, Span, Target, Txn,
    Watch, lock,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::make::ELECTION;
use super::watch::{Change, Told};
use super::{Answer, Kv, Outcome};
use crate::harness::{PATIENCE, find, free_port, home, run, until};

pub struct Etcd {
    process: Child,
    connection: BufReader<TcpStream>,
    _home: TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Etcd {
    /// None: there is no etcd 3.5.
    pub fn start() -> Option<Etcd> {
        let program = find("etcd")?;
        let version = run(program.to_str()?, &["--version"]);
        if !String::from_utf8_lossy(&version.stdout).starts_with("etcd Version: 3.5.") {
            return None;
        }
        let home = home();
        let (port, client, peer) = (free_port(), "http://127.0.0.1", "http://127.0.0.1");
        let (client, peer) = (format!("{client}:{port}"), format!("{peer}:{}", free_port()));
        let process = Command::new(program)
            .args(["--name", "n1", "--log-level", "error", "--unsafe-no-fsync"])
            .arg("--data-dir")
            .arg(home.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("n1={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let connect = || {
            let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            let mut connection = BufReader::new(stream);
            let range = Request::Range(Range::new(Span::Key("k".into())));
            post(&mut connection, "/v3/kv/range", &body(&range).1)?.get("header")?;
            Some(connection)
        };
        let connection = until("etcd", Duration::from_secs(30), connect);
        Some(Etcd { process, connection, _home: home })
    }

    pub fn endpoint(&self) -> String {
        self.connection.get_ref().peer_addr().unwrap().to_string()
    }

    /// The client beside the server: what is on the path may be a script that takes its time to call them.
    pub fn etcdctl(&self) -> Option<PathBuf> {
        let server = std::fs::read_link(format!("/proc/{}/exe", self.process.id())).ok()?;
        let client = server.with_file_name("etcdctl");
        if client.is_file() { Some(client) } else { find("etcdctl") }
    }

    pub fn ask(&mut self, request: &Request) -> Outcome {
        let (path, body) = match request {
            Request::Lock(lock) => self.lock_body(lock),
            request => body(request),
        };
        let mut reply = post(&mut self.connection, path, &body).expect("etcd answers");
        if let Some(text) = reply.get("error") {
            return Err(text.as_str().expect("a text").to_string());
        }
        if let Some(result) = reply.get_mut("result") {
            reply = result.take(); // One of a stream.
        }
        Ok((number(&reply["header"], "revision"), answer(request, &reply)))
    }
}

impl Etcd {
    fn lock_body(&mut self, request: &LockRequest) -> (&'static str, Value) {
        match request {
            LockRequest::Acquire(Acquire { name, lease, campaign: false, .. }) => {
                ("/v3/lock/lock", json!({"name": text(name), "lease": lease.to_string()}))
            }
            LockRequest::Acquire(Acquire { name, value, lease, .. }) => (
                "/v3/election/campaign",
                json!({"name": text(name), "value": text(value), "lease": lease.to_string()}),
            ),
            LockRequest::Release { key } if key.starts_with(ELECTION) => {
                ("/v3/election/resign", json!({"leader": self.leader_key(key)}))
            }
            LockRequest::Release { key } => ("/v3/lock/unlock", json!({"key": text(key)})),
            LockRequest::Proclaim { key, value } => {
                ("/v3/election/proclaim", json!({"leader": self.leader_key(key), "value": text(value)}))
            }
            LockRequest::Leader { name } => ("/v3/election/leader", json!({"name": text(name)})),
            LockRequest::Observe { .. } => panic!("it has no end: not asked for here"),
        }
    }

    /// etcd wants to know of a place when it was created, and on which lease: as it is now, or as it never was.
    fn leader_key(&mut self, key: &[u8]) -> Value {
        let range = range_body(&Range::new(Span::Key(key.to_vec().into())));
        let found = post(&mut self.connection, "/v3/kv/range", &range).expect("etcd answers");
        let rev = kvs(&found, "kvs").first().map_or(1, |kv| kv.created);
        let lease = lock::lock_owner(key).expect("the key of a lock");
        json!({"name": text(ELECTION), "key": text(key), "rev": rev.to_string(), "lease": lease.to_string()})
    }
}

/// A watch on a connection of its own: its answer is without end, a line for each thing that is told.
pub struct Watching {
    connection: BufReader<TcpStream>,
    unread: Vec<u8>,
}

impl Etcd {
    pub fn watch(&self, watch: &Watch) -> Watching {
        let address = self.connection.get_ref().peer_addr().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut watching = Watching { connection: BufReader::new(stream), unread: Vec::new() };
        let mut body = span(&watch.span);
        body["start_revision"] = watch.revision.to_string().into();
        body["prev_kv"] = watch.prev_kv.into();
        let filters = [(watch.no_put, "NOPUT"), (watch.no_delete, "NODELETE")];
        body["filters"] = filters.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        let length = say(&mut watching.connection, "/v3/watch", &json!({ "create_request": body }));
        assert_eq!(length, Some(None), "an answer without end");
        assert!(flag(&watching.line(), "created"));
        watching
    }
}

impl Watching {
    fn line(&mut self) -> Value {
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let value: Value = serde_json::from_slice(&line).expect("JSON");
                return value.get("result").unwrap_or_else(|| panic!("{value}")).clone();
            }
            next_chunk(&mut self.connection, &mut self.unread).filter(|more| *more).expect("etcd goes on");
        }
    }

    pub fn next(&mut self) -> Told {
        let line = self.line();
        if flag(&line, "canceled") {
            return Told::Compacted(number(&line, "compact_revision"));
        }
        let events = line["events"].as_array().unwrap_or_else(|| panic!("{line}"));
        let change = |event: &Value| Change {
            deleted: event.get("type").is_some_and(|kind| kind == "DELETE"),
            kv: kv(&event["kv"]),
            previous: event.get("prev_kv").map(kv),
        };
        Told::Changes(events.iter().map(change).collect())
    }
}

/// The answer's body, or none if etcd hangs up.
fn post(connection: &mut BufReader<TcpStream>, path: &str, body: &Value) -> Option<Value> {
    let mut bytes = Vec::new();
    match say(connection, path, body)? {
        Some(length) => chunk(connection, length, &mut bytes)?,
        None => while next_chunk(connection, &mut bytes)? {},
    }
    Some(serde_json::from_slice(&bytes).expect("JSON"))
}

/// Asks, and reads the head of the answer: the length of its body, unless that comes in chunks.
fn say(connection: &mut BufReader<TcpStream>, path: &str, body: &Value) -> Option<Option<usize>> {
    let body = body.to_string();
    let head = format!("POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {}\r\n\r\n", body.len());
    connection.get_mut().write_all((head + &body).as_bytes()).ok()?;
    let mut length = None;
    loop {
        let line = line(connection)?.to_ascii_lowercase();
        if line.is_empty() {
            return Some(length);
        }
        length = line.strip_prefix("content-length: ").map(|text| text.parse().expect("a length")).or(length);
    }
}

/// False: there are no more.
fn next_chunk(connection: &mut BufReader<TcpStream>, bytes: &mut Vec<u8>) -> Option<bool> {
    let length = usize::from_str_radix(&line(connection)?, 16).expect("a length of a chunk");
    chunk(connection, length, bytes)?;
    line(connection)?;
    Some(length > 0)
}

fn line(connection: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    connection.read_line(&mut line).ok()?;
    line.strip_suffix("\r\n").map(str::to_string)
}

fn chunk(connection: &mut BufReader<TcpStream>, length: usize, bytes: &mut Vec<u8>) -> Option<()> {
    let at = bytes.len();
    bytes.resize(at + length, 0);
    connection.read_exact(&mut bytes[at..]).ok()
}

fn text(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn body(request: &Request) -> (&'static str, Value) {
    match request {
        Request::Put(put) => (
            "/v3/kv/put",
            json!({
                "key": text(&put.key), "value": text(&put.value), "lease": put.lease.to_string(), "prev_kv": put.prev_kv,
                "ignore_value": put.ignore_value, "ignore_lease": put.ignore_lease,
            }),
        ),
        Request::Range(range) => ("/v3/kv/range", range_body(range)),
        Request::Delete(delete) => {
            let mut body = span(&delete.span);
            body["prev_kv"] = delete.prev_kv.into();
            ("/v3/kv/deleterange", body)
        }
        Request::Txn(txn) => ("/v3/kv/txn", txn_body(txn)),
        Request::Compact(compact) => (
            "/v3/kv/compaction",
            json!({"revision": compact.revision.to_string(), "physical": compact.physical}),
        ),
        Request::Lease(lease) => match lease {
            LeaseRequest::Grant { id, ttl_s } => {
                ("/v3/lease/grant", json!({"ID": id.to_string(), "TTL": ttl_s.to_string()}))
            }
            LeaseRequest::Revoke { id } => ("/v3/lease/revoke", json!({"ID": id.to_string()})),
            LeaseRequest::TimeToLive { id, keys } => {
                ("/v3/lease/timetolive", json!({"ID": id.to_string(), "keys": keys}))
            }
            LeaseRequest::List => ("/v3/lease/leases", json!({})),
            LeaseRequest::KeepAlive { ids } => ("/v3/lease/keepalive", json!({"ID": ids[0].to_string()})),
        },
        other => panic!("not asked for here: {other:?}"),
    }
}

/// A key and the end of its range, as etcd has them: everything begins and ends with a zero byte.
fn span(span: &Span) -> Value {
    let (from, end): (&[u8], Option<Vec<u8>>) = match span {
        Span::Key(key) => (key, None),
        Span::Between(from, to) => (from, Some(to.to_vec())),
        Span::Prefix(prefix) if prefix.is_empty() => (b"\0", Some(vec![0])),
        Span::Prefix(prefix) => {
            let kept = prefix.iter().rposition(|&byte| byte < 0xff);
            let end = kept.map_or(vec![0], |at| {
                let mut end = prefix[..=at].to_vec();
                end[at] += 1;
                end
            });
            (prefix, Some(end))
        }
        Span::From(from) => (from, Some(vec![0])),
    };
    let mut body = json!({"key": text(from)});
    if let Some(end) = end {
        body["range_end"] = text(&end).into();
    }
    body
}

fn range_body(range: &Range) -> Value {
    let mut body = span(&range.span);
    body["sort_target"] = match range.sort_by {
        SortBy::Key => "KEY",
        SortBy::Version => "VERSION",
        SortBy::Create => "CREATE",
        SortBy::Mod => "MOD",
        SortBy::Value => "VALUE",
    }
    .into();
    body["sort_order"] = if range.order == Order::Descending { "DESCEND" } else { "ASCEND" }.into();
    for (name, number) in [
        ("limit", range.limit),
        ("revision", range.revision),
        ("min_mod_revision", range.min_mod),
        ("max_mod_revision", range.max_mod),
        ("min_create_revision", range.min_create),
        ("max_create_revision", range.max_create),
    ] {
        body[name] = number.to_string().into();
    }
    body["serializable"] = range.serializable.into();
    body["keys_only"] = range.keys_only.into();
    body["count_only"] = range.count_only.into();
    body
}

fn txn_body(txn: &Txn) -> Value {
    let compare = |compare: &pawl::api::Compare| {
        let mut body = span(&compare.span);
        let (target, field, operand) = match &compare.target {
            Target::Value(value) => ("VALUE", "value", text(value)),
            Target::Version(number) => ("VERSION", "version", number.to_string()),
            Target::Create(number) => ("CREATE", "create_revision", number.to_string()),
            Target::Mod(number) => ("MOD", "mod_revision", number.to_string()),
            Target::Lease(number) => ("LEASE", "lease", number.to_string()),
        };
        body["target"] = target.into();
        body[field] = operand.into();
        body["result"] = match compare.result {
            CompareResult::Equal => "EQUAL",
            CompareResult::NotEqual => "NOT_EQUAL",
            CompareResult::Less => "LESS",
            CompareResult::Greater => "GREATER",
        }
        .into();
        body
    };
    let op = |op: &Op| {
        let name = match op {
            Op::Put(_) => "request_put",
            Op::Range(_) => "request_range",
            Op::Delete(_) => "request_delete_range",
            Op::Txn(_) => "request_txn",
        };
        json!({ name: body(&super::make::alone(op)).1 })
    };
    let ops = |ops: &[Op]| Value::from(ops.iter().map(op).collect::<Vec<_>>());
    let compares: Vec<Value> = txn.compares.iter().map(compare).collect();
    json!({"compare": compares, "success": ops(&txn.success), "failure": ops(&txn.failure)})
}

fn answer(request: &Request, reply: &Value) -> Answer {
    match request {
        Request::Put(_) => Answer::Put(reply.get("prev_kv").map(kv)),
        Request::Range(_) => {
            Answer::Range { count: number(reply, "count"), more: flag(reply, "more"), kvs: kvs(reply, "kvs") }
        }
        Request::Delete(_) => {
            Answer::Delete { deleted: number(reply, "deleted"), previous: kvs(reply, "prev_kvs") }
        }
        Request::Txn(txn) => {
            let succeeded = flag(reply, "succeeded");
            let none = Vec::new();
            let responses = reply.get("responses").and_then(Value::as_array).unwrap_or(&none);
            let inner = |response: &Value| response.as_object().and_then(|one| one.values().next()).cloned();
            let answers = txn.branch(succeeded).iter().zip(responses).map(|(op, response)| {
                answer(&super::make::alone(op), &inner(response).expect("one response"))
            });
            Answer::Txn { succeeded, responses: answers.collect() }
        }
        Request::Lease(LeaseRequest::Grant { .. }) => {
            Answer::Granted { id: signed(reply, "ID"), ttl_s: number(reply, "TTL") }
        }
        Request::Lease(LeaseRequest::Revoke { .. }) => Answer::Revoked,
        Request::Lease(LeaseRequest::TimeToLive { .. }) => {
            let keys = reply.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
            let mut keys: Vec<Vec<u8>> = keys.iter().map(decoded).collect();
            // Ours come in their order, etcd's in none.
            keys.sort();
            Answer::Lease { granted: number(reply, "grantedTTL"), keys }
        }
        Request::Lease(LeaseRequest::KeepAlive { .. }) => Answer::Kept(number(reply, "TTL")),
        // A lock's is not told: it is the revision that the put made.
        Request::Lock(LockRequest::Acquire(Acquire { campaign: false, .. })) => {
            Answer::Acquired { key: decoded(&reply["key"]), created: number(&reply["header"], "revision") }
        }
        Request::Lock(LockRequest::Acquire(_)) => Answer::Acquired {
            key: decoded(&reply["leader"]["key"]),
            created: number(&reply["leader"], "rev"),
        },
        Request::Lock(LockRequest::Leader { .. }) => Answer::Leader(kv(&reply["kv"])),
        Request::Lock(_) => Answer::Released,
        Request::Lease(_) => {
            let leases = reply.get("leases").and_then(Value::as_array).cloned().unwrap_or_default();
            let mut ids: Vec<i64> = leases.iter().map(|lease| signed(lease, "ID")).collect();
            ids.sort_unstable();
            Answer::Leases(ids)
        }
        _ => Answer::Compacted,
    }
}

fn signed(of: &Value, name: &str) -> i64 {
    of.get(name).map_or(0, |text| text.as_str().expect("a number as text").parse().expect("a number"))
}

fn number(of: &Value, name: &str) -> u64 {
    u64::try_from(signed(of, name)).expect("a count, a time or a revision")
}

fn decoded(text: &Value) -> Vec<u8> {
    STANDARD.decode(text.as_str().expect("base64")).expect("base64")
}

fn flag(of: &Value, name: &str) -> bool {
    of.get(name).is_some_and(|flag| flag.as_bool().expect("a flag"))
}

fn kvs(of: &Value, name: &str) -> Vec<Kv> {
    of.get(name).and_then(Value::as_array).map_or(Vec::new(), |all| all.iter().map(kv).collect())
}

fn kv(of: &Value) -> Kv {
    let bytes = |name: &str| of.get(name).map_or(Vec::new(), decoded);
    Kv {
        key: bytes("key"),
        value: bytes("value"),
        created: number(of, "create_revision"),
        modified: number(of, "mod_revision"),
        version: number(of, "version"),
        lease: signed(of, "lease"),
    }
}
