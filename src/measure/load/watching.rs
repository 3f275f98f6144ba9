//! What watchers wait: many watches on few connections, puts over one more, and for each event the time since its put was due.
//!
//! An event and the answer to its put name the same revision. Either may come first: who is told of what nobody has been
//! answered yet is noted until the answer comes.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::{Events, Poll};

use super::connection::{self, Connection};
use super::replies::Reply;
use super::work::{Keys, Kind, Work, put_words};
use crate::base::time::{MS, Mono, Nanos, SECOND};
use crate::io::Clock;
use crate::measure::Latencies;

/// Who watches what, and what is put.
#[derive(Clone, Debug)]
pub struct WatchPlan {
    /// Connections go to these in turn. At least one.
    pub addresses: Vec<SocketAddr>,
    pub connections: usize,
    pub watches_each: usize,
    /// Watches take these keys in turn, and so do the puts.
    pub keys: Keys,
    pub puts: u64,
    /// Puts a second, due at even distances; otherwise the next is sent when the last is answered.
    pub rate: Option<u64>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct WatchOutcome {
    /// Until all watches had begun, and until each had, since it was asked for.
    pub began_in: Nanos,
    pub beginnings: Latencies,
    /// From the first put to the last event.
    pub took: Nanos,
    /// From when each put was due until it was answered, and until each of its watchers was told.
    pub puts: Latencies,
    pub events: Latencies,
    /// That should have come in all.
    pub expected: u64,
}

const SILENCE_MAX: Nanos = 30 * SECOND;
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Of the keys, which a watch or a put takes.
fn keys_in_turn(keys: &Keys) -> Work {
    Work::new(Kind::Put, Keys { sequential: true, ..keys.clone() }, 1)
}

struct Watching<'a, C> {
    plan: &'a WatchPlan,
    clock: &'a C,
    /// The last connection puts.
    lanes: Vec<Connection>,
    poll: Poll,
    events: Events,
    chunk: Vec<u8>,
    heard: Mono,
    outcome: WatchOutcome,
    /// When the puts that are under way were due.
    sent: VecDeque<Mono>,
    /// When the put of each revision was due.
    due_of: BTreeMap<i64, Mono>,
    /// When watchers were told of revisions of which nobody has been answered yet.
    early: BTreeMap<i64, Vec<Mono>>,
    step: &'a dyn Fn(u64),
}

/// Begins the watches, puts, and waits for every event. `step` is told of events.
///
/// # Errors
/// Those of [`super::run`], and any error of the cluster: what is not watched or not put cannot be told.
pub fn watch<C: Clock>(
    plan: &WatchPlan,
    clock: &C,
    stop: &AtomicBool,
    step: &dyn Fn(u64),
) -> Result<WatchOutcome> {
    let poll = Poll::new()?;
    let open = |number: usize| {
        Connection::open(plan.addresses[number % plan.addresses.len()], poll.registry(), number)
    };
    let lanes = (0..=plan.connections).map(open).collect::<Result<Vec<_>>>()?;
    let watches = plan.connections as u64 * plan.watches_each as u64;
    // Both take the keys in turn.
    let [all_rounds, rest] = [watches / plan.keys.count, watches % plan.keys.count];
    let told_in_rest = |puts: u64| (puts / plan.keys.count) * rest + (puts % plan.keys.count).min(rest);
    let expected = plan.puts * all_rounds + told_in_rest(plan.puts);
    let mut watching = Watching {
        plan,
        clock,
        lanes,
        poll,
        events: Events::with_capacity(1_024),
        chunk: connection::chunk(),
        heard: clock.now(),
        outcome: WatchOutcome { expected, ..WatchOutcome::default() },
        sent: VecDeque::new(),
        due_of: BTreeMap::new(),
        early: BTreeMap::new(),
        step,
    };
    watching.begin(stop)?;
    watching.put_all(stop)?;
    Ok(watching.outcome)
}

impl<C: Clock> Watching<'_, C> {
    /// One watch at a time on each connection, as a client does that waits for each.
    fn begin(&mut self, stop: &AtomicBool) -> Result<()> {
        let plan = self.plan;
        let mut keys = keys_in_turn(&plan.keys);
        let start = self.clock.now();
        let mut asked = vec![(0, start); plan.connections];
        let mut left = plan.connections * plan.watches_each;
        if plan.watches_each == 0 {
            return Ok(());
        }
        for (lane, asked) in self.lanes.iter_mut().take(plan.connections).zip(&mut asked) {
            ask_watch(lane, &keys.next_key());
            *asked = (1, self.clock.now());
        }
        while left > 0 && !stop.load(Ordering::Relaxed) {
            for at in self.wait(WAIT_MAX)? {
                while let Some(reply) = self.lanes[at].next_reply()? {
                    let Reply::Done(_) = reply else { return Err(refused("a watch", &reply)) };
                    let now = self.clock.now();
                    let (count, since) = &mut asked[at];
                    self.outcome.beginnings.record(now.since(*since));
                    left -= 1;
                    self.heard = now;
                    if *count < plan.watches_each {
                        ask_watch(&mut self.lanes[at], &keys.next_key());
                        (*count, *since) = (*count + 1, now);
                    }
                }
            }
        }
        self.outcome.began_in = self.clock.now().since(start);
        Ok(())
    }

    fn put_all(&mut self, stop: &AtomicBool) -> Result<()> {
        let plan = self.plan;
        let mut work = keys_in_turn(&plan.keys);
        let start = self.clock.now();
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            let now = self.clock.now();
            let due = |count: u64| match plan.rate {
                Some(rate) => start + (u128::from(count) * u128::from(SECOND) / u128::from(rate)) as Nanos,
                None => now,
            };
            while count < plan.puts && due(count) <= now && (plan.rate.is_some() || self.sent.is_empty()) {
                self.sent.push_back(due(count));
                let lane = self.lanes.last_mut().expect("one puts");
                work.put_request(&mut lane.output);
                lane.flush();
                count += 1;
            }
            if count == plan.puts
                && self.sent.is_empty()
                && self.outcome.events.count() >= self.outcome.expected
            {
                break;
            }
            let left = if count < plan.puts && plan.rate.is_some() { due(count).since(now) } else { SECOND };
            // The poll counts in milliseconds.
            let wait =
                if left < MS { Duration::ZERO } else { Duration::from_nanos(left - left % MS).min(WAIT_MAX) };
            for at in self.wait(wait)? {
                self.take(at)?;
            }
        }
        self.outcome.took = self.heard.since(start);
        Ok(())
    }

    /// Connections on which something has come.
    fn wait(&mut self, most: Duration) -> Result<Vec<usize>> {
        match self.poll.poll(&mut self.events, Some(most)) {
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(Vec::new()),
            polled => polled?,
        }
        let mut ready = Vec::new();
        for event in &self.events {
            let at = event.token().0;
            let lane = &mut self.lanes[at];
            if event.is_writable() {
                lane.flush();
            }
            if event.is_readable() || event.is_read_closed() {
                while lane.fill(&mut self.chunk) {}
                ready.push(at);
            }
            if lane.lost {
                return Err(Error::new(ErrorKind::ConnectionReset, "a connection was lost"));
            }
        }
        if self.clock.now().since(self.heard) > SILENCE_MAX {
            return Err(Error::new(ErrorKind::TimedOut, "no answer and no event for 30 seconds"));
        }
        Ok(ready)
    }

    /// Answers to puts, or events.
    fn take(&mut self, at: usize) -> Result<()> {
        let puts = at == self.plan.connections;
        while let Some(reply) = self.lanes[at].next_reply()? {
            let now = self.clock.now();
            self.heard = now;
            match reply {
                Reply::Done([Some(revision), _]) if puts => {
                    let due = self
                        .sent
                        .pop_front()
                        .ok_or_else(|| refused("a put that was not asked for", &reply))?;
                    self.outcome.puts.record(now.since(due));
                    self.due_of.insert(revision, due);
                    for told in self.early.remove(&revision).unwrap_or_default() {
                        self.count(told, due);
                    }
                }
                Reply::Done([Some(_), Some(revision)]) => match self.due_of.get(&revision) {
                    Some(&due) => self.count(now, due),
                    None => self.early.entry(revision).or_default().push(now),
                },
                _ => return Err(refused(if puts { "a put" } else { "a watch" }, &reply)),
            }
        }
        Ok(())
    }

    fn count(&mut self, told: Mono, due: Mono) {
        self.outcome.events.record(told.since(due));
        (self.step)(1);
    }
}

fn ask_watch(lane: &mut Connection, key: &[u8]) {
    put_words(&[b"WATCH", key], &mut lane.output);
    lane.flush();
}

fn refused(what: &str, reply: &Reply) -> Error {
    match reply {
        Reply::Refused(code) => Error::other(format!("{what} was refused with {code}")),
        Reply::Done(_) => {
            Error::new(ErrorKind::InvalidData, format!("{what} was answered with something else"))
        }
    }
}
