//! What a run is made of, beside its faults: the cluster, its settings, its clients, its network and disks.

use std::fmt;

use super::words::{Words, span};
use crate::base::time::{MS, Nanos, SECOND};
use crate::node::Retention;

/// The numbers that a plan begins with. Rates are in millionths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Of all dice: see [`super::stream`].
    pub seed: u64,
    pub members: u64,
    /// Machines that run nothing until a member is added on them. They are numbered behind the members.
    pub spares: u64,
    pub clients: u64,
    /// Clients that watch.
    pub watchers: u64,
    /// How much a member does for watches in one turn.
    pub watch_work: u64,
    /// Operations that the clients ask for while there are faults.
    pub ops: u64,
    /// Different keys. Few make contention.
    pub keys: u64,
    /// Leases that clients keep alive at a time; 0: they ask for none.
    pub leases: u64,
    /// Names of locks that they fight for; 0: none. There must be leases.
    pub locks: u64,
    /// Seconds of the longest TTL.
    pub ttl_max: u64,
    /// Bytes of the longest values.
    pub value_max: u64,
    /// Of a hundred operations, so many are transactions.
    pub txns: u64,
    /// Mean pause of a client between its operations.
    pub think: Nanos,
    /// How long there are faults.
    pub faults: Nanos,
    /// How long nothing may go wrong after them; 0: the run ends with the faults.
    pub calm: Nanos,
    pub heartbeat: Nanos,
    /// The longest election timeout that a member has.
    pub election: Nanos,
    /// Members differ in it, and each of them from start to start, as when an operator changes it.
    pub uneven: bool,
    pub segment_bytes: u64,
    /// Bytes of a page of the tree. With small ones and many keys it has several levels.
    pub page_bytes: u64,
    /// Entries kept behind the applied index, and applied entries after which a checkpoint is due.
    pub catchup: u64,
    pub checkpoint: u64,
    pub lease_reads: bool,
    pub pre_vote: bool,
    /// Changes of the membership that cost the quorum are refused (`--strict-reconfig-check`).
    pub strict: bool,
    /// Frames are lost, repeated and overtaken one by one. Otherwise a connection is a stream, as TCP's is: it
    /// delays, or ends.
    pub frames: bool,
    pub loss: u64,
    pub repeat: u64,
    pub overtake: u64,
    /// Mean time of a frame from member to member.
    pub latency: Nanos,
    /// Mean time of a sync.
    pub sync: Nanos,
    /// How often power fails again while a member recovers.
    pub recut: u64,
    /// One operation in so many is a compaction, or what goes with it; 0: none.
    pub compact: u64,
    /// Changes that a turn sweeps.
    pub sweep: u64,
    /// Bytes in use at which puts are refused; 0: no quota.
    pub quota: u64,
    /// One operation in so many raises an alarm, which clients soon end; 0: none.
    pub alarms: u64,
    /// How much history is kept, by time or by revisions; 0: all of it.
    pub retention: Nanos,
    pub retention_revisions: u64,
    /// One in so many claims of durability is held against the worst disk that a power cut would leave.
    pub forks: u64,
    /// Of a hundred connections of clients and watchers, so many speak gRPC in bytes.
    pub grpc: u64,
    /// How often a piece of such a connection ends it, and how often its reader stands still, in millionths.
    pub wire_resets: u64,
    pub wire_stalls: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: 1,
            members: 3,
            spares: 0,
            clients: 6,
            watchers: 0,
            watch_work: 8_192,
            ops: 1_000,
            keys: 8,
            leases: 0,
            locks: 0,
            ttl_max: 4,
            value_max: 3_000,
            txns: 0,
            think: 2 * MS,
            faults: 4 * SECOND,
            calm: 60 * SECOND,
            heartbeat: 20 * MS,
            election: 100 * MS,
            uneven: false,
            segment_bytes: 16 << 10,
            page_bytes: 4096,
            catchup: 20,
            checkpoint: 60,
            lease_reads: true,
            pre_vote: true,
            strict: true,
            frames: false,
            loss: 0,
            repeat: 0,
            overtake: 0,
            latency: MS / 5,
            sync: MS,
            recut: 0,
            compact: 0,
            sweep: 4,
            quota: 0,
            alarms: 0,
            retention: 0,
            retention_revisions: 0,
            forks: 200,
            grpc: 0,
            wire_resets: 0,
            wire_stalls: 0,
        }
    }
}

/// Members look so often how many revisions there are.
const COUNT_EVERY: Nanos = 500 * MS;

/// The longest of uneven election timeouts is so many times the shortest.
pub const UNEVEN: u64 = 3;

/// One name, one field: for reading and for writing.
enum Field<'a> {
    Number(&'a mut u64),
    Span(&'a mut Nanos),
    Switch(&'a mut bool),
}

impl Options {
    /// Members and spares.
    pub fn machines(&self) -> u64 {
        self.members + self.spares
    }

    fn fields(&mut self) -> [(&'static str, Field<'_>); 43] {
        [
            ("seed", Field::Number(&mut self.seed)),
            ("members", Field::Number(&mut self.members)),
            ("spares", Field::Number(&mut self.spares)),
            ("clients", Field::Number(&mut self.clients)),
            ("watchers", Field::Number(&mut self.watchers)),
            ("watch-work", Field::Number(&mut self.watch_work)),
            ("ops", Field::Number(&mut self.ops)),
            ("keys", Field::Number(&mut self.keys)),
            ("leases", Field::Number(&mut self.leases)),
            ("locks", Field::Number(&mut self.locks)),
            ("ttl-max", Field::Number(&mut self.ttl_max)),
            ("value-max", Field::Number(&mut self.value_max)),
            ("txns", Field::Number(&mut self.txns)),
            ("think", Field::Span(&mut self.think)),
            ("faults", Field::Span(&mut self.faults)),
            ("calm", Field::Span(&mut self.calm)),
            ("heartbeat", Field::Span(&mut self.heartbeat)),
            ("election", Field::Span(&mut self.election)),
            ("uneven", Field::Switch(&mut self.uneven)),
            ("segment", Field::Number(&mut self.segment_bytes)),
            ("page", Field::Number(&mut self.page_bytes)),
            ("catchup", Field::Number(&mut self.catchup)),
            ("checkpoint", Field::Number(&mut self.checkpoint)),
            ("lease-reads", Field::Switch(&mut self.lease_reads)),
            ("pre-vote", Field::Switch(&mut self.pre_vote)),
            ("strict", Field::Switch(&mut self.strict)),
            ("frames", Field::Switch(&mut self.frames)),
            ("loss", Field::Number(&mut self.loss)),
            ("repeat", Field::Number(&mut self.repeat)),
            ("overtake", Field::Number(&mut self.overtake)),
            ("latency", Field::Span(&mut self.latency)),
            ("sync", Field::Span(&mut self.sync)),
            ("recut", Field::Number(&mut self.recut)),
            ("compact", Field::Number(&mut self.compact)),
            ("sweep", Field::Number(&mut self.sweep)),
            ("quota", Field::Number(&mut self.quota)),
            ("alarms", Field::Number(&mut self.alarms)),
            ("retention", Field::Span(&mut self.retention)),
            ("retention-revisions", Field::Number(&mut self.retention_revisions)),
            ("forks", Field::Number(&mut self.forks)),
            ("grpc", Field::Number(&mut self.grpc)),
            ("wire-resets", Field::Number(&mut self.wire_resets)),
            ("wire-stalls", Field::Number(&mut self.wire_stalls)),
        ]
    }

    /// Takes the `name=value` pairs of a line.
    pub fn read(&mut self, line: &str) -> Result<(), String> {
        let mut words = Words::new(line);
        for (name, field) in self.fields() {
            let Some(text) = words.take(name) else { continue };
            let wrong = |what: &str| format!("{name}: `{text}` is not {what}");
            match field {
                Field::Number(number) => *number = text.parse().map_err(|_| wrong("a number"))?,
                Field::Span(nanos) => *nanos = super::words::parse_span(&text)?,
                Field::Switch(switch) => *switch = text.parse().map_err(|_| wrong("true or false"))?,
            }
        }
        match words.first_name() {
            Some(name) => Err(format!("there is no option `{name}`")),
            None => words.end(),
        }
    }

    /// The election timeout of a machine's member from its nth start on.
    pub fn election_of(&self, machine: usize, start: u64) -> Nanos {
        if self.uneven { self.election / (1 + (machine as u64 + start) % UNEVEN) } else { self.election }
    }

    /// What the members are told of it.
    pub fn retention(&self) -> Option<Retention> {
        match (self.retention, self.retention_revisions) {
            (0, 0) => None,
            (0, count) => Some(Retention::Revisions { count, every: COUNT_EVERY }),
            (time, _) => Some(Retention::Time(time)),
        }
    }

    /// The first thing that cannot be run.
    pub fn check(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(what.to_string());
        if !(1..=9).contains(&self.members) || self.spares > 9 {
            return wrong("members: 1 to 9, and 9 spares at most");
        }
        if self.watchers > 100 || self.watch_work < 16 {
            return wrong("100 watchers at most, and work of at least 16 for them");
        }
        let at_least_one = [self.keys, self.forks, self.catchup, self.checkpoint, self.sweep];
        if at_least_one.contains(&0) {
            return wrong("keys, forks, catchup, checkpoint and sweep begin at 1");
        }
        if self.grpc > 100 {
            return wrong("of a hundred connections a hundred speak gRPC at most");
        }
        if self.locks > 0 && self.leases == 0 {
            return wrong("locks go with leases");
        }
        if self.ttl_max == 0 || self.ttl_max > 1_000_000 {
            return wrong("a TTL is one second to a million");
        }
        if self.heartbeat == 0 || self.election < 5 * self.heartbeat {
            return wrong("an election timeout is at least five heartbeats");
        }
        if self.uneven && self.election < 5 * UNEVEN * self.heartbeat {
            return wrong("the longest of uneven election timeouts is at least fifteen heartbeats");
        }
        if self.segment_bytes < 2_048 || !self.segment_bytes.is_multiple_of(512) {
            return wrong("a segment is whole sectors, at least four");
        }
        if !self.page_bytes.is_power_of_two() || !(256..=65_536).contains(&self.page_bytes) {
            return wrong("a page is a power of two, from 256 to 65536");
        }
        if self.faults > 100_000 * SECOND || self.calm > 100_000 * SECOND {
            return wrong("faults and calm last a day at most");
        }
        Ok(())
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut copy = self.clone();
        for (at, (name, field)) in copy.fields().into_iter().enumerate() {
            let value = match field {
                Field::Number(number) => number.to_string(),
                Field::Span(nanos) => span(*nanos),
                Field::Switch(switch) => switch.to_string(),
            };
            write!(f, "{name}={value}{}", if at % 8 == 7 { '\n' } else { ' ' })?;
        }
        writeln!(f)
    }
}
