//! What happened, as a running hash that two runs of one plan must agree on, and as lines for a reader.

use std::collections::VecDeque;

use super::stream::mix;
use crate::base::Mono;

/// Lines kept for the report of a failure.
const LINES_KEPT: usize = 2_000;

/// Where lines go while a run is looked at.
pub type Sink = Box<dyn FnMut(&str)>;

pub struct Trace {
    hash: u64,
    events: u64,
    sink: Option<Sink>,
    /// Lines are made only if somebody may read them.
    keep: bool,
    last: VecDeque<String>,
}

impl Trace {
    /// `keep`: the last lines can be had afterwards. `sink`: every line goes there at once.
    pub fn new(seed: u64, keep: bool, sink: Option<Sink>) -> Trace {
        Trace { hash: mix(seed, 0), events: 0, sink, keep, last: VecDeque::new() }
    }

    /// One more event; `numbers` say which and what came of it.
    pub fn event(&mut self, now: Mono, numbers: [u64; 3]) {
        self.events += 1;
        self.hash = mix(self.hash, now.0);
        for number in numbers {
            self.hash = mix(self.hash, number);
        }
    }

    /// Something that the event brought with it.
    pub fn mix(&mut self, number: u64) {
        self.hash = mix(self.hash, number);
    }

    /// Whether lines are wanted at all: making them costs more than an event.
    pub fn listens(&self) -> bool {
        self.keep || self.sink.is_some()
    }

    /// A line of the log, member 0 for what concerns none.
    pub fn line(&mut self, now: Mono, member: u64, what: impl FnOnce() -> String) {
        if !self.listens() {
            return;
        }
        let who = if member == 0 { String::new() } else { member.to_string() };
        let (seconds, micros) = (now.0 / 1_000_000_000, now.0 / 1_000 % 1_000_000);
        let line = format!("{:>9} {seconds:>5}.{micros:06} {who:>2}  {}", self.events, what());
        if let Some(sink) = &mut self.sink {
            sink(&line);
        }
        if self.keep {
            if self.last.len() == LINES_KEPT {
                self.last.pop_front();
            }
            self.last.push_back(line);
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn last_lines(self) -> Vec<String> {
        self.last.into()
    }
}
