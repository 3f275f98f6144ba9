//! The load generator of etcd's API: calls over HTTP/2 whose frames are written by hand. A general client takes so much of the
//! cores that it shares with the servers that it measures itself, too.
//!
//! What is not needed is not there: requests have headers that do not change, and the headers of answers are passed over. A call
//! has failed if it ends without a message, so `grpc-status` need not be decoded: a failed call of one answer has none.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use prost::Message;

use crate::Result;
use crate::etcd::{
    Compare, LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use crate::http2::Session;
use crate::load::{Keys, Kind, Outcome, Plan, attached_key};

/// A client with so many errors in a row ends the run.
const ERRORS_MAX: u32 = 20;

/// After an error: a server that has no leader for the moment would be asked in vain.
const PAUSE: Duration = Duration::from_millis(10);

/// Without any answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);

struct Conn {
    stream: mio::net::TcpStream,
    /// How much of what the session has to send is sent.
    written: usize,
    session: Session,
}

impl Conn {
    fn open(plan: &Plan) -> Result<Conn> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, plan.port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let session = Session::new(&headers(plan), plan.kind);
        Ok(Conn { stream: mio::net::TcpStream::from_std(stream), written: 0, session })
    }

    fn flush(&mut self) -> Result<()> {
        let out = &mut self.session.out;
        while self.written < out.len() {
            match self.stream.write(&out[self.written..]) {
                Ok(0) => return Err("the connection takes no more bytes".into()),
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        out.clear();
        self.written = 0;
        Ok(())
    }

    /// All that is there is read. A short read is the last one, unless the end of the connection has come with it.
    fn read(&mut self, ended: bool, chunk: &mut [u8], done: &mut Vec<(usize, Result<()>)>) -> Result<()> {
        loop {
            match self.stream.read(chunk) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(n) => {
                    self.session.take(&chunk[..n], done)?;
                    if n < chunk.len() && !ended {
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Those of each request: literals that no table remembers, not Huffman-coded (RFC 7541, 6.2.2).
fn headers(plan: &Plan) -> Vec<u8> {
    let path = match plan.kind {
        Kind::Put | Kind::Attach => "/etcdserverpb.KV/Put",
        Kind::Get | Kind::Range(_) | Kind::Count => "/etcdserverpb.KV/Range",
        Kind::Txn | Kind::Puts(_) => "/etcdserverpb.KV/Txn",
        Kind::Grant { .. } => "/etcdserverpb.Lease/LeaseGrant",
        Kind::KeepAlive => "/etcdserverpb.Lease/LeaseKeepAlive",
    };
    let authority = format!("127.0.0.1:{}", plan.port);
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", &authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "a length that fits one byte of seven bits");
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

struct Client {
    conn: usize,
    keys: Keys,
    sent: Instant,
    errors_in_a_row: u32,
    /// Over which it renews its lease.
    stream: Option<u32>,
}

struct Generator<'a> {
    plan: &'a Plan,
    conns: Vec<Conn>,
    clients: Vec<Client>,
    value: Vec<u8>,
    /// Of the request that is being written.
    body: Vec<u8>,
    outcome: Outcome,
    measure_from: Instant,
    end: Instant,
    /// Requests without an answer.
    under_way: usize,
    /// Clients that had an error, and until when they wait.
    pauses: VecDeque<(Instant, usize)>,
}

/// One thread and epoll: `plan.clients` requests in flight over `plan.connections` connections. What is under way at the end is
/// waited for, and not counted.
pub fn run(plan: &Plan) -> Result<Outcome> {
    let mut poll = Poll::new()?;
    let mut conns = (0..plan.connections).map(|_| Conn::open(plan)).collect::<Result<Vec<_>>>()?;
    for (number, conn) in conns.iter_mut().enumerate() {
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut conn.stream, Token(number), both)?;
    }
    let started = Instant::now();
    let clients = (0..plan.clients).map(|number| {
        let (conn, keys) = (number % plan.connections, plan.keys_of(number));
        Client { conn, keys, sent: started, errors_in_a_row: 0, stream: None }
    });
    let measure_from = started + plan.warm_up;
    let mut generator = Generator {
        plan,
        conns,
        clients: clients.collect(),
        value: plan.value(),
        body: Vec::new(),
        outcome: Outcome::new(),
        measure_from,
        end: measure_from + plan.duration,
        under_way: 0,
        pauses: VecDeque::new(),
    };
    generator.run(&mut poll)?;
    let mut outcome = generator.outcome;
    outcome.seconds = match plan.total {
        Some(_) => started.elapsed().as_secs_f64(),
        None => plan.duration.as_secs_f64(),
    };
    Ok(outcome)
}

impl Generator<'_> {
    fn run(&mut self, poll: &mut Poll) -> Result<()> {
        for client in 0..self.clients.len() {
            self.next_request(client)?;
        }
        self.conns.iter_mut().try_for_each(Conn::flush)?;
        let mut events = Events::with_capacity(1024);
        let (mut chunk, mut done) = (vec![0; 64 * 1024], Vec::new());
        while self.under_way > 0 || !self.pauses.is_empty() {
            let pause = self.pauses.front().map(|(until, _)| until.saturating_duration_since(Instant::now()));
            poll.poll(&mut events, Some(pause.unwrap_or(SILENCE_MAX)))?;
            if events.is_empty() && pause.is_none() {
                return Err("no answer for 30 seconds".into());
            }
            for event in &events {
                let at = event.token().0;
                if event.is_readable() || event.is_read_closed() {
                    self.conns[at].read(event.is_read_closed(), &mut chunk, &mut done)?;
                    done.drain(..).try_for_each(|(client, result)| self.answered(client, result))?;
                }
                self.conns[at].flush()?;
            }
            self.end_pauses()?;
        }
        Ok(())
    }

    fn end_pauses(&mut self) -> Result<()> {
        while let Some((_, client)) = self.pauses.pop_front_if(|(until, _)| *until <= Instant::now()) {
            self.next_request(client)?;
            self.conns[self.clients[client].conn].flush()?;
        }
        Ok(())
    }

    fn answered(&mut self, number: usize, result: Result<()>) -> Result<()> {
        let now = Instant::now();
        let client = &mut self.clients[number];
        self.under_way -= 1;
        match result {
            Ok(()) => {
                client.errors_in_a_row = 0;
                if self.plan.total.is_some() || (now >= self.measure_from && now < self.end) {
                    self.outcome.success(now - client.sent, 1);
                }
                self.next_request(number)
            }
            Err(e) => {
                self.outcome.errors += 1;
                client.errors_in_a_row += 1;
                if client.errors_in_a_row == ERRORS_MAX {
                    return Err(format!("{ERRORS_MAX} errors in a row, the last: {e}").into());
                }
                self.pauses.push_back((now + PAUSE, number));
                Ok(())
            }
        }
    }

    /// If there is one more, and time for it.
    fn next_request(&mut self, number: usize) -> Result<()> {
        let now = Instant::now();
        if (self.plan.total.is_none() && now >= self.end) || !self.next_body(number)? {
            return Ok(());
        }
        let client = &mut self.clients[number];
        client.sent = now;
        self.under_way += 1;
        let session = &mut self.conns[client.conn].session;
        if self.plan.kind != Kind::KeepAlive {
            session.open(number, &self.body, true)?;
        } else if !client.stream.is_some_and(|stream| session.again(stream, &self.body)) {
            client.stream = Some(session.open(number, &self.body, false)?);
        }
        Ok(())
    }

    /// False: there is none.
    fn next_body(&mut self, number: usize) -> Result<bool> {
        let Client { keys, .. } = &mut self.clients[number];
        let (body, value) = (&mut self.body, &self.value);
        let put = |key: [u8; 8]| PutRequest { key: key.to_vec(), value: value.clone(), lease: 0 };
        let op = |key| RequestOp { put: Some(put(key)) };
        match self.plan.kind {
            Kind::KeepAlive => message(body, &LeaseKeepAliveRequest { id: number as i64 + 1 }),
            Kind::Count => {
                message(body, &RangeRequest { key: vec![0], range_end: vec![0], count_only: true })
            }
            Kind::Range(_) => {
                let [key, range_end] = keys.next_range().map(|key| key.to_vec());
                message(body, &RangeRequest { key, range_end, count_only: false })
            }
            Kind::Grant { ttl_s, alike } => {
                let Some(number) = keys.next_number() else { return Ok(false) };
                let ttl = (ttl_s + number / alike) as i64;
                message(body, &LeaseGrantRequest { ttl, id: number as i64 + 1 })
            }
            Kind::Attach => {
                let Some(number) = keys.next_number() else { return Ok(false) };
                let (key, lease) = (attached_key(number), number as i64 + 1);
                message(body, &PutRequest { key, value: b"x".to_vec(), lease })
            }
            Kind::Puts(count) => {
                let success: Vec<RequestOp> = (0..count).map_while(|_| keys.next_key()).map(op).collect();
                if success.is_empty() {
                    return Ok(false);
                }
                message(body, &TxnRequest { compare: Vec::new(), success })
            }
            Kind::Put | Kind::Get | Kind::Txn => {
                let Some(key) = keys.next_key() else { return Ok(false) };
                match self.plan.kind {
                    Kind::Put => message(body, &put(key)),
                    Kind::Get => message(body, &RangeRequest { key: key.to_vec(), ..Default::default() }),
                    _ => {
                        let compare = Compare { result: 1, key: key.to_vec(), version: Some(-1) };
                        message(body, &TxnRequest { compare: vec![compare], success: vec![op(key)] })
                    }
                }
            }
        }?;
        Ok(true)
    }
}

/// As gRPC sends it: not compressed, its length, itself ("Length-Prefixed-Message").
fn message(body: &mut Vec<u8>, message: &impl Message) -> Result<()> {
    body.clear();
    body.push(0);
    body.extend_from_slice(&u32::try_from(message.encoded_len())?.to_be_bytes());
    Ok(message.encode(body)?)
}
