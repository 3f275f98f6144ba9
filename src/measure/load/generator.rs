//! The loop that asks and is answered.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use super::replies::{Replies, Reply};
use super::{LOST, Outcome, Plan, Work};
use crate::base::time::{MS, Mono, Nanos, SECOND};
use crate::io::Clock;

const READ_BYTES: usize = 64 << 10;

/// A cluster that answers nobody for so long is gone.
const SILENCE_MAX: Nanos = 30 * SECOND;

const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a loop that waits looks up.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// What a client has sent at once and is not answered yet.
#[derive(Debug)]
struct Batch {
    /// From when its time is counted.
    due: Mono,
    sent: Mono,
    left: usize,
}

struct Connection {
    stream: mio::net::TcpStream,
    /// Bytes that are still to send, from `written` on.
    output: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    replies: Replies,
    /// In the order in which they were sent, which is that of the answers.
    batches: VecDeque<Batch>,
    lost: bool,
}

struct Generator<'a, C> {
    plan: &'a Plan,
    work: Work,
    clock: &'a C,
    start: Mono,
    /// Of requests that were sent, answered or given up.
    sent: u64,
    ended: u64,
    /// With a rate: connections of clients that wait until a request is due.
    idle: VecDeque<usize>,
    /// When something was last answered.
    heard: Mono,
    outcome: Outcome,
    step: &'a dyn Fn(u64),
}

/// Runs it to its end, or until `stop` is set. `step` is told of requests that have ended.
///
/// # Errors
/// That the first connections cannot be made, that the cluster says nothing for half a minute, that what it says is not
/// the line protocol, or that every connection was lost.
pub fn run<C: Clock>(
    plan: &Plan,
    work: Work,
    clock: &C,
    stop: &AtomicBool,
    step: &dyn Fn(u64),
) -> Result<Outcome> {
    assert!(plan.clients >= plan.connections && plan.connections > 0, "every connection has a client");
    assert!(plan.rate.is_none() || plan.pipeline == 1, "what is due one by one is sent one by one");
    let mut poll = Poll::new()?;
    let mut connections = Vec::with_capacity(plan.connections);
    for number in 0..plan.connections {
        let mut connection = Connection::open(plan.addresses[number % plan.addresses.len()])?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut connection.stream, Token(number), interest)?;
        connections.push(connection);
    }
    let start = clock.now();
    let (idle, outcome) = (VecDeque::new(), Outcome::default());
    let mut generator =
        Generator { plan, work, clock, start, sent: 0, ended: 0, idle, heard: start, outcome, step };
    for client in 0..plan.clients {
        let at = client % plan.connections;
        if plan.rate.is_some() {
            generator.idle.push_back(at);
        } else {
            generator.send_batch(&mut connections[at], start);
        }
    }
    generator.go_round(&mut poll, &mut connections, stop)?;
    let mut outcome = generator.outcome;
    outcome.took = generator.heard.since(start);
    Ok(outcome)
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Connection> {
        let named = |e: Error| Error::new(e.kind(), format!("{address}: {e}"));
        let stream = TcpStream::connect_timeout(&address, DIAL_TIMEOUT).map_err(named)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream: mio::net::TcpStream::from_std(stream),
            output: Vec::new(),
            written: 0,
            input: Vec::new(),
            replies: Replies::default(),
            batches: VecDeque::new(),
            lost: false,
        })
    }

    /// Sends as much as the socket takes.
    fn flush(&mut self) {
        while self.written < self.output.len() && !self.lost {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => self.lost = true,
                Ok(count) => self.written += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.lost = true,
            }
        }
        self.output.clear();
        self.written = 0;
    }
}

impl<C: Clock> Generator<'_, C> {
    fn go_round(&mut self, poll: &mut Poll, connections: &mut [Connection], stop: &AtomicBool) -> Result<()> {
        let mut events = Events::with_capacity(1_024);
        let mut chunk = vec![0; READ_BYTES];
        while !stop.load(Ordering::Relaxed) {
            let now = self.clock.now();
            self.send_what_is_due(connections, now);
            if self.is_over(now) {
                break;
            }
            if connections.iter().all(|connection| connection.lost) {
                return Err(Error::new(ErrorKind::ConnectionReset, "every connection was lost"));
            }
            if now.since(self.heard) > SILENCE_MAX && self.sent > self.ended {
                return Err(Error::new(ErrorKind::TimedOut, "no answer for 30 seconds"));
            }
            match poll.poll(&mut events, Some(self.wait(now))) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                let at = event.token().0;
                if event.is_writable() {
                    connections[at].flush();
                }
                if event.is_readable() || event.is_read_closed() {
                    self.on_readable(at, &mut connections[at], &mut chunk)?;
                }
                if connections[at].lost {
                    self.give_up(&mut connections[at]);
                }
            }
        }
        Ok(())
    }

    fn is_over(&self, now: Mono) -> bool {
        let none_left = self.sent == self.plan.total || !self.may_send(now);
        none_left && self.ended == self.sent
    }

    fn may_send(&self, now: Mono) -> bool {
        self.plan.time_max.is_none_or(|time_max| now.since(self.start) < time_max)
    }

    /// When request number `number` is due.
    fn due(&self, rate: u64, number: u64) -> Mono {
        self.start + (u128::from(number) * u128::from(SECOND) / u128::from(rate)) as Nanos
    }

    fn wait(&self, now: Mono) -> Duration {
        let Some(rate) = self.plan.rate.filter(|_| !self.idle.is_empty() && self.sent < self.plan.total)
        else {
            return WAIT_MAX;
        };
        let left = self.due(rate, self.sent).since(now);
        // The poll counts in milliseconds: for less it is asked again and again, or requests would leave late.
        if left < MS { Duration::ZERO } else { Duration::from_nanos(left - left % MS).min(WAIT_MAX) }
    }

    fn send_what_is_due(&mut self, connections: &mut [Connection], now: Mono) {
        let Some(rate) = self.plan.rate else { return };
        while self.sent < self.plan.total && self.may_send(now) {
            let due = self.due(rate, self.sent);
            if due > now {
                return;
            }
            let Some(at) = self.idle.pop_front() else { return };
            if !connections[at].lost {
                self.send_batch(&mut connections[at], due);
            }
        }
    }

    /// The next requests of a client, if there are any. `due`: from when their time counts.
    fn send_batch(&mut self, connection: &mut Connection, due: Mono) {
        let sent = self.clock.now();
        let left = (self.plan.pipeline as u64).min(self.plan.total - self.sent);
        if left == 0 || !self.may_send(sent) || connection.lost {
            return;
        }
        (0..left).for_each(|_| self.work.put_request(&mut connection.output));
        self.sent += left;
        let due = if self.plan.rate.is_some() { due } else { sent };
        connection.batches.push_back(Batch { due, sent, left: left as usize });
        connection.flush();
    }

    fn on_readable(&mut self, at: usize, connection: &mut Connection, chunk: &mut [u8]) -> Result<()> {
        loop {
            match connection.stream.read(chunk) {
                Ok(0) => connection.lost = true,
                Ok(count) => {
                    connection.input.extend_from_slice(&chunk[..count]);
                    self.take_replies(at, connection)?;
                    if count == chunk.len() {
                        continue;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => connection.lost = true,
            }
            return Ok(());
        }
    }

    fn take_replies(&mut self, at: usize, connection: &mut Connection) -> Result<()> {
        let now = self.clock.now();
        let mut used = 0;
        while let Some(reply) = connection.replies.next(&connection.input, &mut used)? {
            let Some(batch) = connection.batches.front_mut() else {
                return Err(Error::new(ErrorKind::InvalidData, "an answer to nothing that was asked"));
            };
            batch.left -= 1;
            let (due, sent, is_free) = (batch.due, batch.sent, batch.left == 0);
            self.count(reply, now, due, sent);
            if is_free {
                connection.batches.pop_front();
                if self.plan.rate.is_some() {
                    self.idle.push_back(at);
                } else {
                    self.send_batch(connection, now);
                }
            }
        }
        connection.input.drain(..used);
        Ok(())
    }

    fn count(&mut self, reply: Reply, now: Mono, due: Mono, sent: Mono) {
        self.heard = now;
        self.ended += 1;
        let slot = self.outcome.series.at(now.since(self.start));
        match reply {
            Reply::Done => {
                self.outcome.latencies.record(now.since(due));
                self.outcome.service.record(now.since(sent));
                slot.latencies.record(now.since(due));
            }
            Reply::Refused(code) => {
                slot.errors += 1;
                count_error(&mut self.outcome.errors, &code, 1);
            }
        }
        (self.step)(1);
    }

    /// What was asked over a connection that is lost is not known to have happened, nor not to.
    fn give_up(&mut self, connection: &mut Connection) {
        let lost: u64 = connection.batches.drain(..).map(|batch| batch.left as u64).sum();
        if lost > 0 {
            let since = self.clock.now().since(self.start);
            self.outcome.series.at(since).errors += lost;
            count_error(&mut self.outcome.errors, LOST, lost);
            self.ended += lost;
            (self.step)(lost);
        }
    }
}

fn count_error(errors: &mut BTreeMap<String, u64>, code: &str, count: u64) {
    *errors.entry(code.to_owned()).or_default() += count;
}
