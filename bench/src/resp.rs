//! RESP, as Redis and Pawl both speak it: one load generator for both, and a small blocking client.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::Result;
use crate::load::{Keys, Kind, Outcome, Plan, Wire, attached_key};

/// Arrays of arrays deeper than this do not occur in any reply that is asked for here.
const DEPTH_MAX: usize = 8;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Simple(Vec<u8>),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Value>),
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The line at `at` without its end, and where the next one starts.
fn line(buf: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let end = at + buf.get(at..)?.windows(2).position(|w| w == b"\r\n")?;
    Some((&buf[at..end], end + 2))
}

fn number(digits: &[u8]) -> Result<i64> {
    Ok(std::str::from_utf8(digits)?.parse()?)
}

/// The reply at `at` and where it ends; None if it is not complete.
pub fn parse(buf: &[u8], at: usize, depth: usize) -> Result<Option<(Value, usize)>> {
    let Some((head, next)) = line(buf, at) else { return Ok(None) };
    let (kind, rest) = head.split_first().ok_or("an empty line instead of a reply")?;
    let value = match kind {
        b'+' => Value::Simple(rest.to_vec()),
        b'-' => Value::Error(String::from_utf8_lossy(rest).into_owned()),
        b':' => Value::Integer(number(rest)?),
        b'_' => Value::Null,
        b'$' | b'=' => {
            let Ok(len) = usize::try_from(number(rest)?) else { return Ok(Some((Value::Null, next))) };
            let Some(bytes) = buf.get(next..next + len + 2) else { return Ok(None) };
            return Ok(Some((Value::Bulk(bytes[..len].to_vec()), next + len + 2)));
        }
        b'*' | b'%' | b'~' if depth < DEPTH_MAX => {
            let Ok(count) = usize::try_from(number(rest)?) else { return Ok(Some((Value::Null, next))) };
            let count = if *kind == b'%' { 2 * count } else { count };
            let (mut items, mut at) = (Vec::new(), next);
            for _ in 0..count {
                let Some((item, end)) = parse(buf, at, depth + 1)? else { return Ok(None) };
                items.push(item);
                at = end;
            }
            return Ok(Some((Value::Array(items), at)));
        }
        other => return Err(format!("a reply that starts with {:?}", char::from(*other)).into()),
    };
    Ok(Some((value, next)))
}

fn encode(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// A request's words, as RESP has them.
pub fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(words, &mut out);
    out
}

pub fn put_words<'a>(wire: Wire, key: &'a [u8], value: &'a [u8]) -> [&'a [u8]; 3] {
    [if wire == Wire::Redis { b"SET" } else { b"PUT" }, key, value]
}

/// One request at a time, with a deadline.
pub struct RespClient {
    stream: TcpStream,
    wire: Wire,
}

impl RespClient {
    pub fn connect(wire: Wire, port: u16, timeout: Duration) -> Result<RespClient> {
        let stream = TcpStream::connect_timeout(&address(port), timeout)?;
        stream.set_nodelay(true)?;
        Ok(RespClient { stream, wire })
    }

    /// Whether the server has closed this connection, as a pooling client checks before it sends.
    pub fn closed(&self) -> bool {
        self.stream.set_nonblocking(true).is_err()
            || !matches!(self.stream.peek(&mut [0]), Err(e) if e.kind() == ErrorKind::WouldBlock)
            || self.stream.set_nonblocking(false).is_err()
    }

    /// After an error the connection must be dropped: an answer may still be under way.
    pub fn call(&mut self, words: &[&[u8]], timeout: Duration) -> Result<Value> {
        let deadline = Instant::now() + timeout;
        let mut out = Vec::new();
        encode(words, &mut out);
        self.stream.write_all(&out)?;
        let (mut buf, mut chunk) = (Vec::new(), [0; 16 * 1024]);
        loop {
            if let Some((value, _)) = parse(&buf, 0, 0)? {
                return match value {
                    Value::Error(text) => Err(text.into()),
                    other => Ok(other),
                };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("no answer in time".into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk)? {
                0 => return Err("the connection was closed before the answer".into()),
                n => buf.extend_from_slice(&chunk[..n]),
            }
        }
    }

    pub fn put(&mut self, key: &[u8], value: &[u8], timeout: Duration) -> Result<()> {
        self.call(&put_words(self.wire, key, value), timeout).map(|_| ())
    }

    pub fn get(&mut self, key: &[u8], timeout: Duration) -> Result<Option<Vec<u8>>> {
        match self.call(&[b"GET", key], timeout)? {
            Value::Bulk(value) => Ok(Some(value)),
            Value::Null => Ok(None),
            other => Err(format!("GET answered {other:?}").into()),
        }
    }

    /// The member's own id and its leader's, from Pawl's STATUS.
    pub fn status(&mut self, timeout: Duration) -> Result<(u64, u64)> {
        Ok((self.number_of_status("member_id", timeout)?, self.number_of_status("leader", timeout)?))
    }

    fn number_of_status(&mut self, name: &str, timeout: Duration) -> Result<u64> {
        let Value::Array(items) = self.call(&[b"STATUS"], timeout)? else {
            return Err("STATUS did not answer a map".into());
        };
        let mut pairs = items.chunks_exact(2);
        let value = pairs.find_map(|pair| (text(&pair[0])? == name).then(|| text(&pair[1]))?);
        Ok(value.and_then(|v| v.parse().ok()).ok_or(format!("STATUS has no number named {name}"))?)
    }

    /// Of the store.
    pub fn revision(&mut self, timeout: Duration) -> Result<u64> {
        self.number_of_status("revision", timeout)
    }

    /// Of all keys.
    pub fn count(&mut self, timeout: Duration) -> Result<u64> {
        match self.call(&[b"DBSIZE"], timeout)? {
            Value::Integer(count) => Ok(count as u64),
            other => Err(format!("DBSIZE answered {other:?}").into()),
        }
    }

    pub fn grant(&mut self, id: u64, ttl_s: u64, timeout: Duration) -> Result<()> {
        let [id, ttl_s] = [id, ttl_s].map(|number| number.to_string());
        self.call(&[b"LEASE", b"GRANT", ttl_s.as_bytes(), b"ID", id.as_bytes()], timeout).map(|_| ())
    }

    pub fn compact(&mut self, revision: u64, timeout: Duration) -> Result<()> {
        self.call(&[b"COMPACT", revision.to_string().as_bytes()], timeout).map(|_| ())
    }

    /// Leadership goes to this member, when this is answered. Only the leader can be asked.
    pub fn move_leader(&mut self, to: u64, timeout: Duration) -> Result<()> {
        self.call(&[b"MOVELEADER", to.to_string().as_bytes()], timeout).map(|_| ())
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Simple(bytes) | Value::Bulk(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        // Ids are unsigned; RESP integers are not.
        Value::Integer(n) => Some((*n as u64).to_string()),
        _ => None,
    }
}

/// A connection of the load generator.
struct Conn {
    stream: mio::net::TcpStream,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    reply: Skipped,
    waiting_for: usize,
    sent: Instant,
    number: usize,
}

/// What all connections share.
struct Generator<'a> {
    plan: &'a Plan,
    keys: Keys,
    value: Vec<u8>,
    outcome: Outcome,
    measure_from: Instant,
}

/// One thread and epoll: `plan.connections` connections, on each `plan.pipeline` requests sent at once and
/// the next as many when all of them are answered.
pub fn run(plan: &Plan) -> Result<Outcome> {
    let mut poll = Poll::new()?;
    let mut conns = Vec::with_capacity(plan.connections);
    for number in 0..plan.connections {
        let stream = TcpStream::connect(address(plan.port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        let (out, input) = (Vec::new(), Vec::new());
        let (reply, sent) = (Skipped::default(), Instant::now());
        conns.push(Conn { stream, out, written: 0, input, reply, waiting_for: 0, sent, number });
    }
    let started = Instant::now();
    let warm_up = if plan.total.is_some() { Duration::ZERO } else { plan.warm_up };
    let measure_from = started + warm_up;
    // One sequence for all: the connections take from it in turn.
    let keys = Plan { clients: 1, ..plan.clone() }.keys_of(0);
    let mut generator = Generator { plan, keys, value: plan.value(), outcome: Outcome::new(), measure_from };
    for conn in &mut conns {
        generator.next_batch(conn)?;
    }
    let mut events = Events::with_capacity(1024);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let finished = match plan.total {
            Some(total) => generator.outcome.ops + generator.outcome.errors >= total,
            None => Instant::now() >= measure_from + plan.duration,
        };
        if finished {
            break;
        }
        poll.poll(&mut events, Some(Duration::from_secs(30)))?;
        if events.is_empty() {
            return Err("no answer for 30 seconds".into());
        }
        for event in &events {
            let conn = &mut conns[event.token().0];
            if event.is_writable() {
                conn.flush()?;
            }
            if event.is_readable() || event.is_read_closed() {
                generator.on_readable(conn, &mut chunk)?;
            }
        }
    }
    let mut outcome = generator.outcome;
    outcome.seconds = measure_from.elapsed().as_secs_f64();
    Ok(outcome)
}

impl Conn {
    fn flush(&mut self) -> Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => return Err("the connection takes no more bytes".into()),
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

impl Generator<'_> {
    fn next_batch(&mut self, conn: &mut Conn) -> Result<()> {
        conn.out.clear();
        conn.written = 0;
        for _ in 0..self.plan.pipeline {
            if !self.next_request(conn) {
                break;
            }
            conn.waiting_for += 1;
        }
        conn.sent = Instant::now();
        conn.flush()
    }

    /// False: there are no more.
    fn next_request(&mut self, conn: &mut Conn) -> bool {
        let out = &mut conn.out;
        match self.plan.kind {
            Kind::Count => encode(&[b"RANGE", b"", b"PREFIX", b"COUNT"], out),
            Kind::KeepAlive => {
                let lease = conn.number * self.plan.pipeline + conn.waiting_for + 1;
                encode(&[b"LEASE", b"KEEPALIVE", lease.to_string().as_bytes()], out);
            }
            Kind::Range(_) => {
                let [from, to] = self.keys.next_range();
                encode(&[b"RANGE", &from, b"TO", &to], out);
            }
            Kind::Grant { ttl_s, alike } => {
                let Some(number) = self.keys.next_number() else { return false };
                let [id, ttl_s] = [number + 1, ttl_s + number / alike].map(|number| number.to_string());
                encode(&[b"LEASE", b"GRANT", ttl_s.as_bytes(), b"ID", id.as_bytes()], out);
            }
            Kind::Attach => {
                let Some(number) = self.keys.next_number() else { return false };
                let (key, id) = (attached_key(number), (number + 1).to_string());
                encode(&[b"PUT", &key, b"x", b"LEASE", id.as_bytes()], out);
            }
            Kind::Puts(count) => {
                let keys: Vec<[u8; 8]> = (0..count).map_while(|_| self.keys.next_key()).collect();
                if keys.is_empty() {
                    return false;
                }
                let puts = keys.iter().flat_map(|key| put_words(self.plan.wire, key, &self.value));
                let words: Vec<&[u8]> =
                    [&b"TXN"[..], b"THEN"].into_iter().chain(puts).chain([&b"END"[..]]).collect();
                encode(&words, out);
            }
            Kind::Put | Kind::Get | Kind::Txn => {
                let Some(key) = self.keys.next_key() else { return false };
                let put = put_words(self.plan.wire, &key, &self.value);
                match self.plan.kind {
                    Kind::Get => encode(&[b"GET", &key], out),
                    Kind::Put => encode(&put, out),
                    _ => {
                        let compare: [&[u8]; 7] = [b"TXN", b"IF", b"VERSION", &key, b">", b"-1", b"THEN"];
                        encode(&[&compare as &[&[u8]], &put, &[b"END"]].concat(), out);
                    }
                }
            }
        }
        true
    }

    fn on_readable(&mut self, conn: &mut Conn, chunk: &mut [u8]) -> Result<()> {
        loop {
            match conn.stream.read(chunk) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(n) => {
                    conn.input.extend_from_slice(&chunk[..n]);
                    self.take_replies(conn)?;
                    if n < chunk.len() {
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn take_replies(&mut self, conn: &mut Conn) -> Result<()> {
        let now = Instant::now();
        let mut at = 0;
        while conn.waiting_for > 0 {
            let Some(ok) = conn.reply.skip(&conn.input, &mut at)? else { break };
            conn.waiting_for -= 1;
            if now >= self.measure_from {
                if ok {
                    self.outcome.success(now - conn.sent, 1);
                } else {
                    self.outcome.errors += 1;
                }
            }
        }
        conn.input.drain(..at);
        if conn.waiting_for == 0 {
            self.next_batch(conn)?;
        }
        Ok(())
    }
}

/// What of a reply has come: [`parse`] without the copies, and a large one is looked at once.
#[derive(Default)]
struct Skipped {
    /// Items that are still to come.
    items: usize,
    /// Bytes of a string that are still to come.
    bytes: usize,
    begun: bool,
    failed: bool,
}

impl Skipped {
    /// Goes on from `at`. When the reply ends: whether it is a success.
    fn skip(&mut self, buf: &[u8], at: &mut usize) -> Result<Option<bool>> {
        loop {
            let bytes = self.bytes.min(buf.len() - *at);
            *at += bytes;
            self.bytes -= bytes;
            if self.bytes > 0 {
                return Ok(None);
            }
            if self.begun && self.items == 0 {
                let failed = std::mem::take(self).failed;
                return Ok(Some(!failed));
            }
            let Some((head, next)) = line(buf, *at) else { return Ok(None) };
            let (kind, rest) = head.split_first().ok_or("an empty line instead of a reply")?;
            if !self.begun {
                *self = Skipped { begun: true, items: 1, bytes: 0, failed: *kind == b'-' };
            }
            self.items -= 1;
            match kind {
                b'$' | b'=' => self.bytes = usize::try_from(number(rest)?).map_or(0, |length| length + 2),
                b'*' | b'~' => self.items += usize::try_from(number(rest)?).unwrap_or(0),
                b'%' => self.items += 2 * usize::try_from(number(rest)?).unwrap_or(0),
                b'+' | b'-' | b':' | b'_' => {}
                other => return Err(format!("a reply that starts with {:?}", char::from(*other)).into()),
            }
            *at = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_whole_or_not_at_all() {
        let all = b"+OK\r\n:7\r\n$3\r\na\r\n\r\n*2\r\n$-1\r\n%1\r\n+k\r\n:1\r\n-ERR no\r\n";
        let (mut at, mut seen) = (0, Vec::new());
        while at < all.len() {
            let (value, end) = parse(all, at, 0).unwrap().unwrap();
            for cut in at..end {
                assert_eq!(parse(&all[..cut], at, 0).unwrap(), None, "cut at {cut}");
                let (mut skipped, mut to) = (Skipped::default(), at);
                assert_eq!(skipped.skip(&all[..cut], &mut to).unwrap(), None, "cut at {cut}");
                let ok = skipped.skip(all, &mut to).unwrap();
                assert_eq!((ok, to), (Some(!matches!(value, Value::Error(_))), end), "cut at {cut}");
            }
            seen.push(value);
            at = end;
        }
        let map = Value::Array(vec![Value::Simple(b"k".to_vec()), Value::Integer(1)]);
        assert_eq!(seen[2], Value::Bulk(b"a\r\n".to_vec()));
        assert_eq!(seen[3], Value::Array(vec![Value::Null, map]));
        assert_eq!(seen[4], Value::Error("ERR no".into()));
        assert!(parse(b"?\r\n", 0, 0).is_err());
    }
}
