//! `check perf` and `check datascale`: whether a cluster carries a load, with etcdctl's loads, bounds and words.
//!
//! One difference is on purpose. etcdctl times a put from when it was sent, so a cluster that stalls is asked less meanwhile; here each is timed
//! from when it was due ([`crate::measure::load`]), which is what users would have waited.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::session::Question;
use super::{Client, Failure, known, reply, words};
use crate::base::time::{Nanos, SECOND};
use crate::cli::progress::Progress;
use crate::cli::{Console, go, interrupted, names};
use crate::io::os::{OsClock, OsEntropy};
use crate::io::{Clock, Entropy};
use crate::measure::load::{self, Keys, Kind, Outcome, Plan, Work};

#[derive(Debug, Subcommand)]
pub enum Check {
    /// Puts at a rate for a minute, and judges how they were answered
    Perf(PerfWords),
    /// Puts many keys, and tells what memory they took
    Datascale(ScaleWords),
}

#[derive(Debug, Args)]
pub struct PerfWords {
    #[command(flatten)]
    words: CheckWords,
    /// Under which keys; they are deleted at the end
    #[arg(long, value_name = "PREFIX", default_value = "/etcdctl-check-perf/")]
    prefix: String,
}

#[derive(Debug, Args)]
pub struct ScaleWords {
    #[command(flatten)]
    words: CheckWords,
    /// Under which keys; they are deleted at the end
    #[arg(long, value_name = "PREFIX", default_value = "/etcdctl-check-datascale/")]
    prefix: String,
}

#[derive(Debug, Args)]
struct CheckWords {
    /// small, medium, large or very large
    #[arg(long, value_name = "s|m|l|xl", default_value = "s")]
    load: String,
    /// Compact at the last revision when it is over
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    auto_compact: Option<bool>,
    /// Defragment when it is over
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    auto_defrag: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Load {
    #[value(alias = "small")]
    S,
    #[value(alias = "medium")]
    M,
    #[value(alias = "large")]
    L,
    #[value(alias = "xLarge")]
    Xl,
}

impl CheckWords {
    /// Refused as by etcdctl, with a code of its own.
    fn load(&self) -> Result<Load, Failure> {
        Load::from_str(&self.load, true)
            .map_err(|_| Failure::Feature(format!("unknown load option {}", self.load)))
    }
}

const PERF_SECONDS: u64 = 60;
const PERF_KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1_024;
/// Keys of etcdctl are random; so many are as good as different.
const PERF_KEYS: u64 = 1 << 40;

/// Less than this share of the rate is too little.
const RATE_MIN: f64 = 0.9;
const SLOWEST_MAX: Nanos = SECOND / 2;
const DEVIATION_MAX: f64 = 1e8;

const METRICS_TIMEOUT: Duration = Duration::from_secs(5);
const METRICS_BYTES_MAX: u64 = 4 << 20;

impl Load {
    /// Puts a second, and clients.
    fn rate(self) -> (u64, usize) {
        match self {
            Load::S => (150, 50),
            Load::M => (1_000, 200),
            Load::L => (8_000, 500),
            Load::Xl => (15_000, 1_000),
        }
    }

    /// Keys, and clients.
    fn scale(self) -> (u64, usize) {
        match self {
            Load::S => (10_000, 50),
            Load::M => (100_000, 200),
            Load::L => (1_000_000, 500),
            Load::Xl => (3_000_000, 1_000),
        }
    }
}

/// What was found, and the lines that say so.
struct Judged {
    lines: Vec<String>,
    passed: bool,
}

impl Judged {
    fn new() -> Judged {
        Judged { lines: Vec::new(), passed: true }
    }

    fn add(&mut self, ok: bool, good: String, bad: String) {
        self.passed &= ok;
        self.lines.push(if ok { format!("PASS: {good}") } else { format!("FAIL: {bad}") });
    }
}

impl Client<'_> {
    pub(super) fn check(&self, check: &Check, console: &mut Console) -> Result<(), Failure> {
        match check {
            Check::Perf(given) => self.check_perf(given, console),
            Check::Datascale(given) => self.check_scale(given, console),
        }
    }

    fn check_perf(&self, given: &PerfWords, console: &mut Console) -> Result<(), Failure> {
        let (rate, clients) = given.words.load()?.rate();
        self.refuse_what_is_there(&given.prefix)?;
        let total = rate * PERF_SECONDS;
        let plan = Plan {
            time_max: Some(PERF_SECONDS * SECOND),
            rate: Some(rate),
            ..plan(self.every_address()?, clients, total)
        };
        let key_bytes = given.prefix.len() + PERF_KEY_BYTES;
        let keys = Keys { key_bytes, count: PERF_KEYS, ..keys(&given.prefix) };
        let outcome = self.loaded("puts", &plan, keys, &given.prefix);
        let judged = judge_perf(&outcome?, rate);
        self.tidy(&given.words, &given.prefix, console)?;
        told(&judged.lines, console);
        console.print(if judged.passed { b"PASS\n" } else { b"FAIL\n" });
        if judged.passed { Ok(()) } else { Err(Failure::Told) }
    }

    fn check_scale(&self, given: &ScaleWords, console: &mut Console) -> Result<(), Failure> {
        let (count, clients) = given.words.load()?.scale();
        self.refuse_what_is_there(&given.prefix)?;
        // As in etcdctl: of several endpoints the first.
        let first = self.options.endpoints.first().expect("there is one").clone();
        let address = self.address(&first)?;
        let line = format!(
            "Start data scale check for work load [{count} key-value pairs, {VALUE_BYTES} bytes per key-value, {clients} concurrent clients].\n"
        );
        console.print(line.as_bytes());
        let unread = |when: &str| {
            Failure::Usage(format!(
                "FAIL: Could not read process_resident_memory_bytes {when} the put operations."
            ))
        };
        let before = resident_bytes(address).ok_or_else(|| unread("before"))?;
        let keys = Keys { key_bytes: given.prefix.len() + 8, count, sequential: true, ..keys(&given.prefix) };
        let outcome = self.loaded("puts", &plan(vec![address], clients, count), keys, &given.prefix)?;
        let after = resident_bytes(address).ok_or_else(|| unread("after"))?;
        self.tidy(&given.words, &given.prefix, console)?;
        let mut judged = Judged::new();
        for (code, count) in &outcome.errors {
            judged.add(false, String::new(), format!("ERROR({code}) -> {count}"));
        }
        if judged.passed {
            let mib = after.saturating_sub(before) as f64 / f64::from(1 << 20);
            judged.add(true, format!("Approximate system memory used : {mib:.2} MB."), String::new());
        }
        told(&judged.lines, console);
        if judged.passed { Ok(()) } else { Err(Failure::Told) }
    }

    /// Runs it to its end. Who interrupts it finds no keys left.
    fn loaded(&self, name: &'static str, plan: &Plan, keys: Keys, prefix: &str) -> Result<Outcome, Failure> {
        let stop = interrupted().map_err(|e| Failure::Usage(format!("cannot listen for signals: {e}")))?;
        let bar = Progress::new().begin(name, plan.total);
        let work = Work::new(Kind::Put, keys, OsEntropy.seed());
        let outcome = load::run(plan, work, &OsClock, &stop, &|count| bar.inc(count));
        bar.finish_and_clear();
        if stop.load(Ordering::Relaxed) {
            self.delete(prefix)?;
            return Err(Failure::Usage("interrupted; its keys are deleted".into()));
        }
        outcome.map_err(|e| Failure::Connection(e.to_string()))
    }

    /// What is under this prefix would be deleted at the end.
    fn refuse_what_is_there(&self, prefix: &str) -> Result<(), Failure> {
        let asked = words(&["RANGE", prefix, "PREFIX", "LIMIT", "1"]);
        let (_, answer) = self.ask(&Question::read(asked))?;
        if known(reply::range(&answer), "RANGE")?.count == 0 {
            return Ok(());
        }
        let (program, quoted) = (self.program, go::quote(prefix.as_bytes()));
        let text = format!("prefix {quoted} has keys. Delete with '{program} del --prefix {prefix}' first");
        Err(Failure::Input(text))
    }

    /// Takes the keys away, and what else was asked for.
    fn tidy(&self, given: &CheckWords, prefix: &str, console: &mut Console) -> Result<(), Failure> {
        let revision = self.delete(prefix)?;
        if given.auto_compact == Some(true) {
            let asked = vec![b"COMPACT".to_vec(), revision.to_string().into_bytes(), b"PHYSICAL".to_vec()];
            let (_, answer) = self.ask(&Question::write(asked))?;
            known(reply::ok(&answer), "COMPACT")?;
            console.print(
                format!("Compacting with revision {revision}\nCompacted with revision {revision}\n")
                    .as_bytes(),
            );
        }
        if given.auto_defrag == Some(true) {
            for endpoint in &self.options.endpoints {
                let (_, answer) = self.ask_now(endpoint, &Question::read(words(&["DEFRAG"])))?;
                known(reply::ok(&answer), "DEFRAG")?;
                console.print(format!("Defragmented {endpoint:?}\n").as_bytes());
            }
        }
        Ok(())
    }

    /// Deletes them in pieces, for a deletion is one step of the cluster; the revision after the last.
    fn delete(&self, prefix: &str) -> Result<u64, Failure> {
        loop {
            let limit = DELETED_AT_ONCE.to_string();
            let asked = words(&["RANGE", prefix, "PREFIX", "LIMIT", &limit, "KEYS"]);
            let (header, answer) = self.ask(&Question::read(asked))?;
            let range = known(reply::range(&answer), "RANGE")?;
            let Some(last) = range.kvs.last() else { return Ok(header.revision) };
            let behind = [&last.key[..], &[0]].concat();
            let asked = vec![b"DEL".to_vec(), prefix.as_bytes().to_vec(), b"TO".to_vec(), behind];
            self.ask(&Question::write(asked))?;
        }
    }

    fn every_address(&self) -> Result<Vec<SocketAddr>, Failure> {
        self.options.endpoints.iter().map(|endpoint| self.address(endpoint)).collect()
    }

    fn address(&self, endpoint: &str) -> Result<SocketAddr, Failure> {
        let deadline = OsClock.now() + self.options.dial_timeout;
        names::address(endpoint, deadline).map_err(|why| Failure::Usage(format!("endpoint {why}")))
    }
}

const DELETED_AT_ONCE: u64 = 10_000;

fn plan(addresses: Vec<SocketAddr>, clients: usize, total: u64) -> Plan {
    Plan { addresses, connections: clients, clients, pipeline: 1, total, time_max: None, rate: None }
}

fn keys(prefix: &str) -> Keys {
    Keys {
        prefix: prefix.as_bytes().to_vec(),
        key_bytes: 0,
        value_bytes: VALUE_BYTES,
        count: 1,
        sequential: false,
    }
}

fn told(lines: &[String], console: &mut Console) {
    lines.iter().for_each(|line| console.print(format!("{line}\n").as_bytes()));
}

fn judge_perf(outcome: &Outcome, rate: u64) -> Judged {
    let mut judged = Judged::new();
    if !outcome.errors.is_empty() {
        judged.add(false, String::new(), "too many errors".into());
        judged
            .lines
            .extend(outcome.errors.iter().map(|(code, count)| format!("FAIL: ERROR({code}) -> {count}")));
    }
    let per_second = outcome.rate() as u64 + 1;
    let enough = per_second as f64 / rate as f64 >= RATE_MIN;
    judged.add(
        enough,
        format!("Throughput is {per_second} writes/s"),
        format!("Throughput too low: {per_second} writes/s"),
    );
    let slowest = outcome.latencies.max();
    let seconds = slowest as f64 / 1e9;
    judged.add(
        slowest <= SLOWEST_MAX,
        format!("Slowest request took {seconds:.6}s"),
        format!("Slowest request took too long: {seconds:.6}s"),
    );
    let deviation = outcome.latencies.deviation();
    let seconds = deviation / 1e9;
    judged.add(
        deviation <= DEVIATION_MAX,
        format!("Stddev is {seconds:.6}s"),
        format!("Stddev too high: {seconds:.6}s"),
    );
    judged
}

/// From the server's page of metrics, as etcdctl finds it.
fn resident_bytes(address: SocketAddr) -> Option<u64> {
    let mut stream = TcpStream::connect_timeout(&address, METRICS_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(METRICS_TIMEOUT)).ok()?;
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).ok()?;
    let mut page = String::new();
    stream.take(METRICS_BYTES_MAX).read_to_string(&mut page).ok()?;
    let value = page.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "))?;
    Some(value.trim().parse::<f64>().ok()? as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::MS;

    fn outcome(latencies: &[Nanos], took: Nanos) -> Outcome {
        let mut outcome = Outcome { took, ..Outcome::default() };
        latencies.iter().for_each(|&latency| outcome.latencies.record(latency));
        outcome
    }

    #[test]
    fn each_bound_is_judged_alone() {
        let good = judge_perf(&outcome(&[MS; 150], SECOND), 150);
        assert!(good.passed, "{:?}", good.lines);
        assert_eq!(good.lines[0], "PASS: Throughput is 151 writes/s");
        assert!(good.lines[1].starts_with("PASS: Slowest request took 0.001"), "{:?}", good.lines);
        assert_eq!(good.lines[2], "PASS: Stddev is 0.000000s");
        let few = judge_perf(&outcome(&[MS; 120], SECOND), 150);
        assert_eq!((few.passed, few.lines[0].as_str()), (false, "FAIL: Throughput too low: 121 writes/s"));
        let slow = judge_perf(&outcome(&[MS, 700 * MS], SECOND), 1);
        assert!(
            !slow.passed && slow.lines[1].starts_with("FAIL: Slowest request took too long: 0.7"),
            "{:?}",
            slow.lines
        );
        assert!(slow.lines[2].starts_with("FAIL: Stddev too high: 0.3"), "{:?}", slow.lines);
        let mut failed = outcome(&[MS; 150], SECOND);
        failed.errors.insert("TIMEOUT".into(), 2);
        let failed = judge_perf(&failed, 150);
        assert_eq!(
            (failed.passed, &failed.lines[..2]),
            (false, &["FAIL: too many errors".to_owned(), "FAIL: ERROR(TIMEOUT) -> 2".to_owned()][..])
        );
    }
}
