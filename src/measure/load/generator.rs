//! The loop that asks and is answered.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::{Events, Poll};

use super::connection::{self, Connection};
use super::replies::Reply;
use super::{LOST, Outcome, Plan, Work};
use crate::base::time::{MS, Mono, Nanos, SECOND};
use crate::io::Clock;

/// A cluster that answers nobody for so long is gone.
const SILENCE_MAX: Nanos = 30 * SECOND;

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

/// One connection, and what waits on it.
struct Lane {
    connection: Connection,
    /// In the order in which they were sent, which is that of the answers.
    batches: VecDeque<Batch>,
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
    let open = |number| {
        let address = plan.addresses[number % plan.addresses.len()];
        Ok(Lane { connection: Connection::open(address, poll.registry(), number)?, batches: VecDeque::new() })
    };
    let mut lanes = (0..plan.connections).map(open).collect::<Result<Vec<Lane>>>()?;
    let start = clock.now();
    let (idle, outcome) = (VecDeque::new(), Outcome::default());
    let mut generator =
        Generator { plan, work, clock, start, sent: 0, ended: 0, idle, heard: start, outcome, step };
    for client in 0..plan.clients {
        let at = client % plan.connections;
        if plan.rate.is_some() {
            generator.idle.push_back(at);
        } else {
            generator.send_batch(&mut lanes[at], start);
        }
    }
    generator.go_round(&mut poll, &mut lanes, stop)?;
    let mut outcome = generator.outcome;
    outcome.took = generator.heard.since(start);
    Ok(outcome)
}

impl<C: Clock> Generator<'_, C> {
    fn go_round(&mut self, poll: &mut Poll, lanes: &mut [Lane], stop: &AtomicBool) -> Result<()> {
        let mut events = Events::with_capacity(1_024);
        let mut chunk = connection::chunk();
        while !stop.load(Ordering::Relaxed) {
            let now = self.clock.now();
            self.send_what_is_due(lanes, now);
            if self.is_over(now) {
                break;
            }
            if lanes.iter().all(|lane| lane.connection.lost) {
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
                let lane = &mut lanes[at];
                if event.is_writable() {
                    lane.connection.flush();
                }
                if event.is_readable() || event.is_read_closed() {
                    while lane.connection.fill(&mut chunk) {
                        self.take_replies(at, lane)?;
                    }
                    self.take_replies(at, lane)?;
                }
                if lane.connection.lost {
                    self.give_up(lane);
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

    fn send_what_is_due(&mut self, lanes: &mut [Lane], now: Mono) {
        let Some(rate) = self.plan.rate else { return };
        while self.sent < self.plan.total && self.may_send(now) {
            let due = self.due(rate, self.sent);
            if due > now {
                return;
            }
            let Some(at) = self.idle.pop_front() else { return };
            if !lanes[at].connection.lost {
                self.send_batch(&mut lanes[at], due);
            }
        }
    }

    /// The next requests of a client, if there are any. `due`: from when their time counts.
    fn send_batch(&mut self, lane: &mut Lane, due: Mono) {
        let connection = &mut lane.connection;
        let sent = self.clock.now();
        let left = (self.plan.pipeline as u64).min(self.plan.total - self.sent);
        if left == 0 || !self.may_send(sent) || connection.lost {
            return;
        }
        (0..left).for_each(|_| self.work.put_request(&mut connection.output));
        self.sent += left;
        let due = if self.plan.rate.is_some() { due } else { sent };
        lane.batches.push_back(Batch { due, sent, left: left as usize });
        connection.flush();
    }

    fn take_replies(&mut self, at: usize, lane: &mut Lane) -> Result<()> {
        let now = self.clock.now();
        while let Some(reply) = lane.connection.next_reply()? {
            let Some(batch) = lane.batches.front_mut() else {
                return Err(Error::new(ErrorKind::InvalidData, "an answer to nothing that was asked"));
            };
            batch.left -= 1;
            let (due, sent, is_free) = (batch.due, batch.sent, batch.left == 0);
            self.count(reply, now, due, sent);
            if is_free {
                lane.batches.pop_front();
                if self.plan.rate.is_some() {
                    self.idle.push_back(at);
                } else {
                    self.send_batch(lane, now);
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, reply: Reply, now: Mono, due: Mono, sent: Mono) {
        self.heard = now;
        self.ended += 1;
        let slot = self.outcome.series.at(now.since(self.start));
        match reply {
            Reply::Done(_) => {
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
    fn give_up(&mut self, lane: &mut Lane) {
        let lost: u64 = lane.batches.drain(..).map(|batch| batch.left as u64).sum();
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
