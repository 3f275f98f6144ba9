//! `pawld bench`: how fast a cluster is, as its clients see it.
//!
//! Commands, flags and summary are those of etcd's benchmark tool, so that figures can be laid side by side; what asks is
//! [`crate::measure::load`], over the line protocol. With `--rate` each request is timed from when it was due: what users
//! wait, and not only what the server took.
//!
//! What is left out: snapshots and the mixed workloads of other tools; a page of charts for watches; TLS and users.

mod args;
mod page;
mod summary;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{CommandFactory, FromArgMatches};

use self::args::{Command, Common, Consistency, KeyOptions, Line, Output, SpanOptions, WatchOptions};
use super::progress::Progress;
use super::resp::{Connection, Value, put_request};
use super::{Console, names};
use crate::base::Mono;
use crate::base::time::SECOND;
use crate::io::os::{OsClock, OsDisk, OsEntropy};
use crate::io::{Clock, Disk, Entropy, File, Open};
use crate::measure::load::{self, Keys, Kind, Plan, Range, WatchPlan, Work};

/// Why it could not be measured, in words.
type Result<T> = std::result::Result<T, String>;

const EXIT_FAILED: u8 = 1;
const EXIT_BAD_ARGUMENTS: u8 = 2;
const EXIT_INTERRUPTED: u8 = 130;

const ASK_MAX_S: u64 = 10;

/// Longer than any run.
const LEASE_TTL_S: u64 = 86_400;

/// What people compare: etcd's published figures are of this load.
const CANONICAL: [&str; 2] = ["put", "range"];
const CANONICAL_CONNECTIONS: u32 = 100;
const CANONICAL_CLIENTS: u32 = 1_000;
const CANONICAL_TOTAL: u64 = 100_000;
const CANONICAL_KEYS: KeyOptions =
    KeyOptions { key_size: 8, val_size: 256, key_space_size: 100_000, sequential_keys: true };

/// One run: what it is called, what is asked, and by whom.
struct Run {
    name: &'static str,
    work: Work,
    plan: Plan,
}

/// Runs `pawld bench ...`.
pub fn run(program: &str, words: &[OsString], console: &mut Console) -> u8 {
    let argv = std::iter::once(OsString::from(program)).chain(words.iter().cloned());
    let command = Line::command().bin_name(program.to_owned());
    let line =
        command.try_get_matches_from(argv).and_then(|mut matches| Line::from_arg_matches_mut(&mut matches));
    let line = match line {
        Ok(line) => line,
        Err(error) if !error.use_stderr() => {
            console.print(error.to_string().as_bytes());
            return 0;
        }
        Err(error) => {
            console.complain(&error.to_string());
            return EXIT_BAD_ARGUMENTS;
        }
    };
    if let Err(why) = line.common.check() {
        console.complain(&format!("{program}: {why}"));
        return EXIT_BAD_ARGUMENTS;
    }
    measure(&line, console).unwrap_or_else(|why| {
        console.complain(&format!("{program}: {why}"));
        EXIT_FAILED
    })
}

impl Common {
    /// What no flag says alone.
    fn check(&self) -> Result<()> {
        if self.clients < self.conns {
            return Err(format!(
                "--clients {} is less than --conns {}: some would have nobody",
                self.clients, self.conns
            ));
        }
        if self.rate > 0 && self.pipeline > 1 {
            return Err(
                "--rate and --pipeline exclude each other: what is due one by one is sent one by one".into(),
            );
        }
        Ok(())
    }

    fn plan(&self, addresses: Vec<SocketAddr>) -> Plan {
        Plan {
            addresses,
            connections: self.conns as usize,
            clients: self.clients as usize,
            pipeline: self.pipeline as usize,
            total: self.total,
            time_max: (self.duration > 0).then_some(self.duration * SECOND),
            rate: (self.rate > 0).then_some(self.rate),
        }
    }
}

fn measure(line: &Line, console: &mut Console) -> Result<u8> {
    let common = &line.common;
    let addresses = addresses(common)?;
    let stop = super::interrupted().map_err(|e| format!("cannot listen for signals: {e}"))?;
    let seed = OsEntropy.seed();
    if let Some(watches) = line.command.as_ref().and_then(Command::watches) {
        return measure_watches(common, &watches, addresses, &stop, console);
    }
    let runs = match &line.command {
        Some(command) => {
            let (name, kind, keys) = command.kind(&addresses, common.conns)?;
            vec![Run { name, work: Work::new(kind, keys, seed), plan: common.plan(addresses) }]
        }
        None => canonical(&addresses, seed),
    };
    let mut done = Vec::new();
    for Run { name, work, plan } in runs {
        let bar = Progress::new().begin(name, plan.total);
        let outcome = load::run(&plan, work, &OsClock, &stop, &|count| bar.inc(count));
        bar.finish_and_clear();
        let outcome = outcome.map_err(|e| e.to_string())?;
        if common.output == Output::Normal && line.command.is_some() {
            console.print(summary::text(&outcome, plan.rate).as_bytes());
        }
        done.push((name, plan, outcome));
        if stop.load(Ordering::Relaxed) {
            console.complain("interrupted; what was answered until then is shown");
            break;
        }
    }
    if common.output == Output::Json {
        console.print(summary::json(&done).as_bytes());
    } else if line.command.is_none() {
        console.print(summary::in_short(&done).as_bytes());
    }
    if let Some(path) = &common.report {
        write_report(path, &page::html(&done, OsClock.wall_ms()))?;
    }
    let failed = done.iter().any(|(_, _, outcome)| outcome.failed() > 0 || outcome.done() == 0);
    Ok(if stop.load(Ordering::Relaxed) { EXIT_INTERRUPTED } else { u8::from(failed) * EXIT_FAILED })
}

/// A page of charts says nothing of watches, and the flags of requests mean nothing to them.
fn measure_watches(
    common: &Common,
    (name, options, key_count): &(&'static str, &WatchOptions, u64),
    addresses: Vec<SocketAddr>,
    stop: &AtomicBool,
    console: &mut Console,
) -> Result<u8> {
    let WatchOptions { streams, watch_per_stream, put_total, put_rate, key_size, val_size } = **options;
    let plan = WatchPlan {
        addresses,
        connections: streams as usize,
        watches_each: watch_per_stream as usize,
        keys: Keys {
            prefix: Vec::new(),
            key_bytes: key_size as usize,
            value_bytes: val_size as usize,
            count: *key_count,
            sequential: true,
        },
        puts: put_total,
        rate: (put_rate > 0).then_some(put_rate),
    };
    let bar = Progress::new()
        .begin(name, put_total.saturating_mul(u64::from(streams) * u64::from(watch_per_stream)));
    let outcome = load::watch(&plan, &OsClock, stop, &|count| bar.inc(count));
    bar.finish_and_clear();
    let outcome = outcome.map_err(|e| e.to_string())?;
    console.print(
        match common.output {
            Output::Normal => summary::watches(&outcome),
            Output::Json => summary::watches_json(name, &plan, &outcome),
        }
        .as_bytes(),
    );
    if stop.load(Ordering::Relaxed) {
        console.complain("interrupted; what was told until then is shown");
        return Ok(EXIT_INTERRUPTED);
    }
    Ok(0)
}

fn canonical(addresses: &[SocketAddr], seed: u64) -> Vec<Run> {
    let plan = Plan {
        addresses: addresses.to_vec(),
        connections: CANONICAL_CONNECTIONS as usize,
        clients: CANONICAL_CLIENTS as usize,
        pipeline: 1,
        total: CANONICAL_TOTAL,
        time_max: None,
        rate: None,
    };
    let kinds = [Kind::Put, Kind::Range { range: None, serializable: false }];
    CANONICAL
        .into_iter()
        .zip(kinds)
        .map(|(name, kind)| Run {
            name,
            work: Work::new(kind, CANONICAL_KEYS.keys(), seed),
            plan: plan.clone(),
        })
        .collect()
}

impl Command {
    /// Its name, its flags, and how many keys are watched.
    fn watches(&self) -> Option<(&'static str, &WatchOptions, u64)> {
        match self {
            Command::Watch { watches, watched_key_total } => Some(("watch", watches, *watched_key_total)),
            Command::WatchLatency { watches } => Some(("watch-latency", watches, 1)),
            _ => None,
        }
    }

    /// Its name, and what is asked of which keys. Leases are granted first.
    fn kind(&self, addresses: &[SocketAddr], connections: u32) -> Result<(&'static str, Kind, Keys)> {
        Ok(match self {
            Command::Put { keys } => ("put", Kind::Put, keys.keys()),
            Command::Range { span, keys } => (
                "range",
                Kind::Range { range: span.range(), serializable: span.is_serializable() },
                keys.keys(),
            ),
            Command::TxnPut { keys, txn_ops } => {
                if u64::from(*txn_ops) > keys.key_space_size {
                    return Err(format!(
                        "--txn-ops {txn_ops} is more than --key-space-size {}: no transaction puts a key twice",
                        keys.key_space_size
                    ));
                }
                ("txn-put", Kind::TxnPut { puts: *txn_ops as usize }, keys.keys())
            }
            Command::TxnMixed { span, keys, rw_ratio, limit } => {
                let reads_permille = (1_000.0 * rw_ratio / (1.0 + rw_ratio)).round() as u64;
                let (range, serializable) = (span.range(), span.is_serializable());
                (
                    "txn-mixed",
                    Kind::TxnMixed { reads_permille, range, serializable, limit: *limit },
                    keys.keys(),
                )
            }
            Command::LeaseKeepalive => {
                let leases = (0..connections).map(|_| grant(addresses[0])).collect::<Result<Vec<i64>>>()?;
                ("lease-keepalive", Kind::KeepAlive { leases }, CANONICAL_KEYS.keys())
            }
            Command::Watch { .. } | Command::WatchLatency { .. } => {
                unreachable!("they are measured by themselves")
            }
        })
    }
}

impl KeyOptions {
    fn keys(&self) -> Keys {
        Keys {
            prefix: Vec::new(),
            key_bytes: self.key_size as usize,
            value_bytes: self.val_size as usize,
            count: self.key_space_size,
            sequential: self.sequential_keys,
        }
    }
}

impl SpanOptions {
    fn range(&self) -> Option<Range> {
        let bytes = |word: &String| word.clone().into_bytes();
        self.key.as_ref().map(|key| Range { from: bytes(key), to: self.end.as_ref().map(bytes) })
    }

    fn is_serializable(&self) -> bool {
        self.consistency == Consistency::S
    }
}

/// Where to connect: every endpoint, or the one that leads.
fn addresses(common: &Common) -> Result<Vec<SocketAddr>> {
    let of =
        |endpoint: &String| names::address(endpoint, deadline()).map_err(|why| format!("--endpoints: {why}"));
    let all = common.endpoints.iter().map(of).collect::<Result<Vec<_>>>()?;
    if !common.target_leader {
        return Ok(all);
    }
    let leads = |at: &SocketAddr| -> Result<bool> {
        let Value::Array(pairs) = ask(*at, &["STATUS"])? else { return Ok(false) };
        let told = |name: &str| {
            let is = |pair: &&[Value]| matches!(&pair[0], Value::Bulk(word) if word == name.as_bytes());
            pairs.chunks_exact(2).find(is).map(|pair| pair[1].clone())
        };
        Ok(told("member_id").is_some() && told("member_id") == told("leader"))
    };
    for at in &all {
        if leads(at)? {
            return Ok(vec![*at]);
        }
    }
    Err(format!("none of {} leads: --endpoints must name the leader", common.endpoints.join(", ")))
}

fn deadline() -> Mono {
    OsClock.now() + ASK_MAX_S * SECOND
}

fn grant(at: SocketAddr) -> Result<i64> {
    let answer = ask(at, &["LEASE", "GRANT", &LEASE_TTL_S.to_string()])?;
    let first = if let Value::Array(parts) = &answer { parts.first() } else { None };
    match first {
        Some(Value::Integer(id)) => Ok(*id),
        _ => Err(format!("{at} answered a grant with {answer:?}")),
    }
}

/// One question before the load.
fn ask(at: SocketAddr, words: &[&str]) -> Result<Value> {
    let named = |e: std::io::Error| format!("{at}: {e}");
    let mut connection = Connection::open(at, ASK_MAX_S * SECOND, deadline()).map_err(named)?;
    let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    let mut bytes = Vec::new();
    put_request(&words, &mut bytes);
    connection.send(&bytes).map_err(named)?;
    match connection.receive().map_err(named)? {
        Value::Error(text) => Err(format!("{at}: {text}")),
        value => Ok(value),
    }
}

/// A file of that name is replaced: it is a report of this program, or the user said so.
fn write_report(path: &Path, text: &str) -> Result<()> {
    let named = |e: std::io::Error| format!("{}: {e}", path.display());
    let disk = OsDisk;
    if disk.exists(path).map_err(named)? {
        disk.remove(path).map_err(named)?;
    }
    disk.open(path, Open::Create).and_then(|file| file.write_at(0, text.as_bytes())).map_err(named)
}
