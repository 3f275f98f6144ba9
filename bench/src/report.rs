//! Figures as they come in, and the page that is made of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Ms,
    Micros,
    Seconds,
    PerSecond,
    MiB,
    KiB,
    Times,
    Count,
}

/// One line of the page: its title (the key under which figures are added), unit, and what Pawl must reach.
struct Line {
    title: &'static str,
    unit: Unit,
    goal: &'static str,
}

const fn line(title: &'static str, unit: Unit, goal: &'static str) -> Line {
    Line { title, unit, goal }
}

const CLUSTER_LINES: [Line; 61] = [
    line("put, 1 client: p50", Unit::Ms, ""),
    line("put, 1 client: p50 over raw fdatasync", Unit::Times, "≤ 2, goal 1.5"),
    line("put, 1 client, one member: p50", Unit::Ms, ""),
    line("put, 1 client, one member: p50 over raw fdatasync", Unit::Times, "≤ 2.5"),
    line("put, 1000 connections: rate", Unit::PerSecond, "≥ 1.0 × Redis, ≥ 3 × etcd"),
    line("put, 1000 connections: p99", Unit::Ms, ""),
    line("put, 50 connections, pipeline 16: rate", Unit::PerSecond, "≥ 0.7 × Redis, goal 1.0"),
    line("put, 50 connections, pipeline 16: p99", Unit::Ms, ""),
    line("linearizable get, 50 connections: rate", Unit::PerSecond, "≥ 0.9 × Redis"),
    line("linearizable get, 50 connections: p99", Unit::Ms, ""),
    line("anonymous memory, fullest member", Unit::MiB, "≤ 64 MiB with 1 M keys"),
    line("restart to first linearizable read", Unit::Seconds, "≤ 0.1 s + election, with 1 M keys"),
    line("restart, the election left out", Unit::Seconds, "≤ 0.1 s, with 1 M keys"),
    line("kill -9 of the leader to next write", Unit::Seconds, "≤ 0.8 s, goal 0.6"),
    line("kill -9 of the leader to next write: p99", Unit::Seconds, ""),
    line("transfer of leadership: longest gap", Unit::Ms, ""),
    line("transfer of leadership: longest gap, p99", Unit::Ms, ""),
    line("transfer of leadership: failed requests", Unit::Count, "0"),
    line("graceful stop of the leader: longest gap", Unit::Ms, "≤ 50 ms"),
    line("graceful stop of the leader: failed requests", Unit::Count, "0"),
    line("graceful stop of the leader: failed requests at the leader itself", Unit::Count, "0"),
    line("put in a transaction, 1000 clients: rate", Unit::PerSecond, "≥ 3 × etcd"),
    line("put in a transaction, 1000 clients: p99", Unit::Ms, ""),
    line("range of 1 key, 50 clients: rate", Unit::PerSecond, "≥ 3 × etcd"),
    line("range of 100 keys, 50 clients: rate", Unit::PerSecond, "≥ 3 × etcd"),
    line("range of 10,000 keys, 4 clients: rate", Unit::PerSecond, "≥ 3 × etcd"),
    line("count of all keys, 1 client: rate", Unit::PerSecond, "≥ 100 × etcd"),
    line("renewal of a lease, 1000 leases on 100 connections: rate", Unit::PerSecond, "≥ 3 × etcd"),
    line("renewal of a lease, 1000 leases on 100 connections: p99", Unit::Ms, ""),
    line("renewal of a lease, 1000 leases on 1000 connections: rate", Unit::PerSecond, "≥ 3 × etcd"),
    line("renewal of a lease, 1000 leases on 1000 connections: p99", Unit::Ms, ""),
    line("put, nobody watches: rate", Unit::PerSecond, ""),
    line("put, 10,000 watch other keys: rate", Unit::PerSecond, "≥ 0.9 × nobody's"),
    line("put, 10,000 watch these keys: rate", Unit::PerSecond, "≥ 3 × etcd"),
    line("one event to 10,000 watchers: from the put to the last", Unit::Ms, "≤ etcd's / 3"),
    line("one event to 10,000 watchers: from the put to its answer", Unit::Ms, ""),
    line("put, 50 clients, quiet: p50", Unit::Ms, ""),
    line("put, 50 clients, quiet: p99", Unit::Ms, ""),
    line("put, 50 clients, quiet: p99.9", Unit::Ms, ""),
    line("put, 50 clients, during a compaction: p50", Unit::Ms, ""),
    line("put, 50 clients, during a compaction: p99", Unit::Ms, "≤ 2 × quiet"),
    line("put, 50 clients, during a compaction: p99.9", Unit::Ms, ""),
    line("put, 50 clients, during ranges of all keys: p50", Unit::Ms, ""),
    line("put, 50 clients, during ranges of all keys: p99", Unit::Ms, "≤ quiet + 5 ms"),
    line("put, 50 clients, during ranges of all keys: p99.9", Unit::Ms, ""),
    line("ranges of all keys beside puts: rate", Unit::PerSecond, ""),
    line("put, 50 clients, a checkpoint every 10,000 entries: p50", Unit::Ms, ""),
    line("put, 50 clients, a checkpoint every 10,000 entries: p99", Unit::Ms, ""),
    line("put, 50 clients, a checkpoint every 10,000 entries: p99.9", Unit::Ms, ""),
    line("put, 50 clients, while a member is sent the state: p50", Unit::Ms, ""),
    line("put, 50 clients, while a member is sent the state: p99", Unit::Ms, ""),
    line("put, 50 clients, while a member is sent the state: p99.9", Unit::Ms, ""),
    line("a member that was away: until it reads as the others do", Unit::Seconds, ""),
    line("grants of leases: rate", Unit::PerSecond, ""),
    line("ends of leases with a key each: rate", Unit::PerSecond, "≥ 10,000 /s"),
    line("put, 50 clients, while leases end: p50", Unit::Ms, ""),
    line("put, 50 clients, while leases end: p99", Unit::Ms, "as quiet"),
    line("put, 50 clients, while leases end: p99.9", Unit::Ms, ""),
    line("raw fdatasync p50", Unit::Ms, ""),
    line("raw fdatasync of three at once, p50 of the second", Unit::Ms, ""),
    line("errors under load", Unit::Count, "0"),
];

const ENGINE_LINES: [Line; 9] = [
    line("puts", Unit::PerSecond, "≥ 2 × LMDB"),
    line("puts, nothing written to disk meanwhile", Unit::PerSecond, ""),
    line("puts, with all of it durable at the end", Unit::PerSecond, ""),
    line("making it durable at the end", Unit::Seconds, ""),
    line("random gets", Unit::PerSecond, "≥ 0.8 × LMDB"),
    line("scan", Unit::PerSecond, "≥ 0.5 × LMDB"),
    line("processor time of a put, made durable", Unit::Micros, ""),
    line("processor time of a random get", Unit::Micros, ""),
    line("processor time of a scanned cell", Unit::Micros, ""),
];

const MEMORY_LINES: [Line; 23] = [
    line("an empty member: resident", Unit::MiB, ""),
    line("an empty member: anonymous", Unit::MiB, ""),
    line("10,000 idle connections: resident", Unit::MiB, ""),
    line("10,000 idle connections: anonymous", Unit::MiB, ""),
    line("each connection", Unit::KiB, ""),
    line("gRPC: 10,000 idle connections: resident", Unit::MiB, ""),
    line("gRPC: 10,000 idle connections: anonymous", Unit::MiB, ""),
    line("each gRPC connection", Unit::KiB, ""),
    line("gRPC: 10,000 watch streams: resident", Unit::MiB, ""),
    line("gRPC: 10,000 watch streams: anonymous", Unit::MiB, ""),
    line("each watch stream, with its watch", Unit::KiB, ""),
    line("100,000 watches: resident", Unit::MiB, ""),
    line("100,000 watches: anonymous", Unit::MiB, ""),
    line("each watch, with its share of a connection", Unit::KiB, ""),
    line("100,000 leases: resident", Unit::MiB, ""),
    line("100,000 leases: anonymous", Unit::MiB, ""),
    line("each lease", Unit::KiB, ""),
    line("1,000,000 leases: resident", Unit::MiB, ""),
    line("1,000,000 leases: anonymous", Unit::MiB, ""),
    line("1 M keys: resident", Unit::MiB, ""),
    line("1 M keys: anonymous", Unit::MiB, "≤ 64 MiB"),
    line("10 M keys: resident", Unit::MiB, ""),
    line("10 M keys: anonymous", Unit::MiB, ""),
];

const GRPC_LINES: [Line; 24] = [
    line("gRPC: put, 1 client: rate", Unit::PerSecond, "≥ 2 × etcd"),
    line("gRPC: put, 1 client: p99", Unit::Ms, "≤ etcd's / 2"),
    line("gRPC: put, 100 clients: rate", Unit::PerSecond, "≥ 2 × etcd"),
    line("gRPC: put, 100 clients: p99", Unit::Ms, "≤ etcd's / 2"),
    line("gRPC: put, 1000 clients: rate", Unit::PerSecond, "≥ 2 × etcd"),
    line("gRPC: put, 1000 clients: p99", Unit::Ms, "≤ etcd's / 2"),
    line("gRPC: range of 1 key, 1 client: rate", Unit::PerSecond, "≥ 2 × etcd"),
    line("gRPC: range of 1 key, 1 client: p99", Unit::Ms, "≤ etcd's / 2"),
    line("gRPC: range of 1 key, 100 clients: rate", Unit::PerSecond, "≥ 2 × etcd"),
    line("gRPC: range of 1 key, 100 clients: p99", Unit::Ms, "≤ etcd's / 2"),
    line("gRPC: range of 1 key, 1000 clients: rate", Unit::PerSecond, "≥ 2 × etcd"),
    line("gRPC: range of 1 key, 1000 clients: p99", Unit::Ms, "≤ etcd's / 2"),
    line("gRPC: put by h2load, 1 client: rate", Unit::PerSecond, "≥ 2 × etcd"),
    line("gRPC: put by h2load, 1 client: p99", Unit::Ms, "≤ etcd's / 2"),
    line("gRPC: put by h2load, 100 clients: rate", Unit::PerSecond, "≥ 2 × etcd"),
    line("gRPC: put by h2load, 100 clients: p99", Unit::Ms, "≤ etcd's / 2"),
    line("gRPC: put by h2load, 1000 clients: rate", Unit::PerSecond, "≥ 2 × etcd"),
    line("gRPC: put by h2load, 1000 clients: p99", Unit::Ms, "≤ etcd's / 2"),
    line("gRPC: range by h2load, 1 client: rate", Unit::PerSecond, "≥ 2 × etcd"),
    line("gRPC: range by h2load, 1 client: p99", Unit::Ms, "≤ etcd's / 2"),
    line("gRPC: range by h2load, 100 clients: rate", Unit::PerSecond, "≥ 2 × etcd"),
    line("gRPC: range by h2load, 100 clients: p99", Unit::Ms, "≤ etcd's / 2"),
    line("gRPC: range by h2load, 1000 clients: rate", Unit::PerSecond, "≥ 2 × etcd"),
    line("gRPC: range by h2load, 1000 clients: p99", Unit::Ms, "≤ etcd's / 2"),
];

const OURS: &str = "pawl";
const CLUSTER_SYSTEMS: [&str; 3] = [OURS, "etcd", "redis"];
const ENGINE_SYSTEMS: [&str; 3] = [OURS, "lmdb", "redb"];

/// All samples, under the title of their line and the name of their system.
#[derive(Default)]
pub struct Figures {
    samples: BTreeMap<(&'static str, &'static str), Vec<f64>>,
    pub notes: Vec<String>,
}

impl Figures {
    pub fn add(&mut self, title: &'static str, system: &'static str, value: f64) {
        let known = CLUSTER_LINES
            .iter()
            .chain(&GRPC_LINES)
            .chain(&MEMORY_LINES)
            .chain(&ENGINE_LINES)
            .find(|l| l.title == title);
        let unit = known.expect("every figure has its line on the page").unit;
        eprintln!("  {system:>5}  {title}: {}", show(value, unit));
        self.samples.entry((title, system)).or_default().push(value);
    }

    /// Failed requests of one run under load. They are shown only if there are any.
    pub fn errors(&mut self, run: &str, system: &'static str, count: u64) {
        if count > 0 {
            self.note(format!("{system}: {count} requests failed in one run of \"{run}\""));
            self.add("errors under load", system, count as f64);
        }
    }

    pub fn note(&mut self, note: String) {
        eprintln!("  note: {note}");
        self.notes.push(note);
    }

    /// So much of what was added under one title is not above this: as another figure.
    pub fn add_quantile(&mut self, q: f64, of: &'static str, title: &'static str, system: &'static str) {
        let mut sorted = self.samples.get(&(of, system)).cloned().unwrap_or_default();
        sorted.sort_by(f64::total_cmp);
        let rank = (q * sorted.len() as f64).ceil() as usize;
        if let Some(value) = sorted.get(rank.max(1) - 1) {
            self.add(title, system, *value);
        }
    }

    fn median(&self, title: &'static str, system: &'static str) -> Option<f64> {
        let mut sorted = self.samples.get(&(title, system))?.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        Some(if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 })
    }

    /// Median, then least and most where there are several.
    fn cell(&self, line: &Line, system: &'static str) -> String {
        let Some(median) = self.median(line.title, system) else { return "–".to_string() };
        let all = &self.samples[&(line.title, system)];
        let least = all.iter().copied().fold(f64::INFINITY, f64::min);
        let most = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let middle = show(median, line.unit);
        if all.len() == 1 || least == most {
            return middle;
        }
        format!("{middle} ({} … {})", show(least, line.unit), show(most, line.unit))
    }

    fn table(&self, lines: &[Line], systems: &[&'static str; 3], out: &mut String) {
        let [ours, first, second] = *systems;
        let _ = writeln!(
            out,
            "| work | {ours} | {first} | {second} | {ours} ÷ {first} | {ours} ÷ {second} | to reach |"
        );
        let _ = writeln!(out, "|---|---|---|---|---|---|---|");
        for line in lines {
            if !systems.iter().any(|s| self.samples.contains_key(&(line.title, *s))) {
                continue;
            }
            let ratio = |other| match (self.median(line.title, ours), self.median(line.title, other)) {
                (Some(a), Some(b)) if b > 0.0 => format!("{:.2}", a / b),
                _ => "–".to_string(),
            };
            let cells = systems.map(|s| self.cell(line, s));
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} |",
                line.title,
                cells[0],
                cells[1],
                cells[2],
                ratio(first),
                ratio(second),
                line.goal
            );
        }
    }

    /// What a line's goal asks and its medians do not give, for each part of the goal that is a number, or a multiple of what another
    /// system needs.
    fn misses(&self, line: &Line) -> Vec<String> {
        let Some(found) = self.median(line.title, OURS) else { return Vec::new() };
        let of = |name: &str| {
            let others = CLUSTER_SYSTEMS.into_iter().chain(ENGINE_SYSTEMS);
            let other = others.into_iter().find(|system| system.eq_ignore_ascii_case(name))?;
            self.median(line.title, other)
        };
        let is_missed = |part: &str| {
            let words: Vec<&str> = part.split(' ').collect();
            let number = |word: &str| word.parse::<f64>().ok();
            match words[..] {
                ["≥", times, "×", other] => Some(found < number(times)? * of(other)?),
                ["≤", "etcd's", "/", parts] => Some(found > of("etcd")? / number(parts)?),
                // An election is not ours to hurry, and what another line found is not looked up.
                ["≤", _, "×", ..] | ["≤", _, _, "+", ..] => None,
                ["≤", most, ..] => Some(found > number(most)?),
                ["≥", least, "/s"] => Some(found < number(&least.replace(',', ""))?),
                ["0"] => Some(found > 0.0),
                _ => None,
            }
        };
        let parts = line.goal.split(", ").filter(|part| is_missed(part) == Some(true));
        parts.map(|part| format!("{}: {}, asked was {part}", line.title, show(found, line.unit))).collect()
    }

    /// Every goal that is missed, and where it is told why.
    fn shortfalls(&self, out: &mut String) {
        let cluster = CLUSTER_LINES.iter().chain(&GRPC_LINES).chain(&MEMORY_LINES);
        let lines = cluster.chain(&ENGINE_LINES);
        let missed: Vec<String> = lines.flat_map(|line| self.misses(line)).collect();
        if missed.is_empty() {
            return;
        }
        let _ = writeln!(out, "\n## What falls short\n");
        missed.iter().for_each(|miss| {
            let _ = writeln!(out, "- {miss}");
        });
        let _ = writeln!(out, "\nWhere the time goes, and what the limits are: [PROFILE.md](PROFILE.md).");
    }

    /// The whole page.
    pub fn page(&self, facts: &[(String, String)], command: &str) -> String {
        let mut out = String::from("# Side by side\n\n");
        let _ = writeln!(
            out,
            "Written by `{command}`. Medians; in brackets the least and the most of several rounds."
        );
        let _ = writeln!(
            out,
            "All systems ran on this machine in the same run, one after the other, the order changing"
        );
        let _ = writeln!(
            out,
            "from round to round. The machine matters more than anything else: read the ratios.\n"
        );
        for (what, found) in facts {
            let _ = writeln!(out, "- {what}: {found}");
        }
        let has = |systems: &[&'static str], lines: &[Line]| {
            lines.iter().any(|l| systems.iter().any(|s| self.samples.contains_key(&(l.title, *s))))
        };
        if has(&CLUSTER_SYSTEMS, &CLUSTER_LINES) {
            let _ = writeln!(out, "\n## As a cluster\n");
            let _ = writeln!(
                out,
                "Pawl and etcd: three members on loopback, default timers. Redis: one process, `appendfsync always`."
            );
            let _ = writeln!(
                out,
                "8-byte keys, 256-byte values, closed loop, requests sent to the leader. Pawl and Redis by the same load"
            );
            let _ = writeln!(
                out,
                "generator (one thread, epoll), etcd by its like for gRPC (1000 clients on 100 connections).\n"
            );
            self.table(&CLUSTER_LINES, &CLUSTER_SYSTEMS, &mut out);
            if let Some(raw) = self.median("raw fdatasync p50", "disk") {
                let _ = writeln!(
                    out,
                    "\nRaw fdatasync p50 of this disk (2,300-byte appends to a written file), measured before and\nafter each run of \"put, 1 client\": {raw:.3} ms."
                );
            }
            if let Some(floor) = self.median("raw fdatasync of three at once, p50 of the second", "disk") {
                let _ = writeln!(
                    out,
                    "Three members share the disk here: of three such appends by three threads at once, each in a file of its\nown, the second ends after {floor:.3} ms. A put through three members on this disk cannot be faster."
                );
            }
        }
        if has(&CLUSTER_SYSTEMS, &GRPC_LINES) {
            let _ = writeln!(out, "\n## Over gRPC\n");
            let _ = writeln!(
                out,
                "Three members on loopback, default timers, requests sent to the leader in etcd's v3 API. By this program's client"
            );
            let _ = writeln!(
                out,
                "(frames of HTTP/2 written by hand, one thread; 1000 clients on 100 connections), and by `h2load`, which repeats one"
            );
            let _ = writeln!(out, "request. 8-byte keys, 256-byte values, closed loop.\n");
            self.table(&GRPC_LINES, &CLUSTER_SYSTEMS, &mut out);
        }
        if has(&CLUSTER_SYSTEMS, &MEMORY_LINES) {
            let _ = writeln!(out, "\n## Memory of one member\n");
            let _ = writeln!(
                out,
                "A cluster of one; each group of lines is a process of its own, looked at five seconds after the load. Resident memory has"
            );
            let _ = writeln!(
                out,
                "the pages of mapped files, which the kernel takes back when it needs room; anonymous memory is the process's own. \"Each\""
            );
            let _ = writeln!(
                out,
                "is what the anonymous memory grew by. etcd's documentation says 17 KB a connection, 18 KB and 350 B a stream and a watch on"
            );
            let _ = writeln!(
                out,
                "it, 470 MB resident with 1 M keys of 256 bytes. 10 M keys: 1 M spread, 9 M in order; 8-byte keys, 256-byte values.\n"
            );
            self.table(&MEMORY_LINES, &CLUSTER_SYSTEMS, &mut out);
        }
        if has(&ENGINE_SYSTEMS, &ENGINE_LINES) {
            let _ = writeln!(out, "\n## The storage engine alone\n");
            let _ = writeln!(
                out,
                "Random 8-byte keys, 256-byte values, 1,000 per commit, no sync while writing. Pawl's tree writes checkpoints"
            );
            let _ = writeln!(
                out,
                "(with their syncs) on a helper thread while the puts go on, as it does in the server. Processor time is that"
            );
            let _ = writeln!(
                out,
                "of all threads, with the kernel's work for them: it says more than a rate where the machine is shared.\n"
            );
            self.table(&ENGINE_LINES, &ENGINE_SYSTEMS, &mut out);
        }
        self.shortfalls(&mut out);
        if !self.notes.is_empty() {
            let _ = writeln!(out, "\n## Notes\n");
            for note in &self.notes {
                let _ = writeln!(out, "- {note}");
            }
        }
        out
    }
}

fn show(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Ms if value < 10.0 => format!("{value:.3} ms"),
        Unit::Ms => format!("{value:.1} ms"),
        Unit::Micros => format!("{value:.3} µs"),
        Unit::Seconds => format!("{value:.3} s"),
        Unit::PerSecond if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
        Unit::PerSecond if value >= 1e3 => format!("{:.1} k/s", value / 1e3),
        Unit::PerSecond => format!("{value:.1} /s"),
        Unit::MiB => format!("{value:.1} MiB"),
        Unit::KiB => format!("{value:.2} KiB"),
        Unit::Times => format!("{value:.2} ×"),
        Unit::Count => format!("{value:.0}"),
    }
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string()).unwrap_or_default()
}

/// The load average of the last minute, if it says that others are using this machine.
pub fn busy() -> Option<f64> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let last_minute: f64 = load.split_whitespace().next()?.parse().ok()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (last_minute > cores as f64 / 2.0).then_some(last_minute)
}

/// What the figures were measured on.
pub fn machine(dir: &Path) -> Vec<(String, String)> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: f64 = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0);
    let place = said("findmnt", &["-n", "-o", "FSTYPE,SOURCE,OPTIONS", "-T", &dir.display().to_string()]);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    vec![
        ("date".into(), said("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        (
            "machine".into(),
            format!("{cores} cores ({}), {:.0} GiB", model.map_or("?", |m| m.1), kib / 1048576.0),
        ),
        ("kernel".into(), said("uname", &["-sr"])),
        ("file system".into(), place),
        ("load average when it began".into(), load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_is_told_and_nothing_else() {
        let missed = |goal, ours: f64, etcd: f64| {
            let mut figures = Figures::default();
            figures.samples.insert(("work", OURS), vec![ours]);
            figures.samples.insert(("work", "etcd"), vec![etcd]);
            figures.misses(&line("work", Unit::Ms, goal)).len()
        };
        assert_eq!((missed("≥ 3 × etcd", 29.0, 10.0), missed("≥ 3 × etcd", 30.0, 10.0)), (1, 0));
        assert_eq!((missed("≤ etcd's / 2", 6.0, 10.0), missed("≤ etcd's / 2", 5.0, 10.0)), (1, 0));
        assert_eq!((missed("≤ 2, goal 1.5", 2.1, 1.0), missed("≤ 2, goal 1.5", 1.9, 1.0)), (1, 0));
        assert_eq!((missed("≥ 10,000 /s", 9_999.0, 1.0), missed("0", 1.0, 0.0)), (1, 1));
        // Two goals; one of a system that was not measured; and those that no line alone can tell.
        assert_eq!(missed("≥ 1.0 × etcd, ≥ 3 × Redis", 0.5, 1.0), 1);
        for goal in ["", "≤ 0.1 s + election, with 1 M keys", "≤ 2 × quiet", "≤ quiet + 5 ms", "as quiet"]
        {
            assert_eq!(missed(goal, 1e9, 1.0), 0, "{goal}");
        }
    }
}
