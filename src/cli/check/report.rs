//! The figures for people, laid out as fio lays them out, and what follows from them.

use std::fmt::Write;

use super::place::Place;
use super::verdict::{ELECTION_TIMEOUT_DEFAULT_MS, Verdict};
use crate::base::time::Nanos;
use crate::measure::disk::{Access, Figures, Job, Room};
use crate::measure::{Latencies, PERCENTILES};

/// Columns of the longest bar.
const BAR_COLUMNS: u64 = 40;

/// Percentiles on one line.
const PER_LINE: usize = 4;

/// One job.
pub fn job(job: &Job, figures: &Figures) -> String {
    let mut out = format!("{}: {}\n", job.name, job.about);
    let (word, _) = direction(job);
    let sync = if job.writes() { format!(", fdatasync={}", job.sync_every) } else { String::new() };
    let _ = writeln!(
        out,
        "  rw={}, bs={}, size={}, room={}{sync}, numjobs={}",
        access(job),
        bytes(job.block_bytes as f64),
        bytes(job.size_bytes as f64),
        room(job),
        job.threads
    );
    let _ = writeln!(
        out,
        "  {word}: IOPS={:.0}, BW={}/s ({:.1}MB/s)({}/{:.0}msec)",
        figures.rate(),
        bytes(figures.bytes_per_second()),
        figures.bytes_per_second() / 1e6,
        bytes(figures.bytes as f64),
        figures.took as f64 / 1e6
    );
    latencies("clat", &figures.io, &mut out);
    if figures.sync.count() > 0 {
        out.push_str("  fdatasync:\n");
        latencies("sync", &figures.sync, &mut out);
        histogram(&figures.sync, &mut out);
    }
    out
}

/// `(read or write, whether it writes)`.
fn direction(job: &Job) -> (&'static str, bool) {
    if job.writes() { ("write", true) } else { ("read", false) }
}

fn access(job: &Job) -> &'static str {
    match job.access {
        Access::Write(_) | Access::WriteBeside(_) => "write",
        Access::ReadInOrder => "read",
        Access::ReadAtRandom => "randread",
    }
}

fn room(job: &Job) -> &'static str {
    match job.access {
        Access::Write(Room::Growing) | Access::WriteBeside(Room::Growing) => "growing",
        Access::Write(Room::Reserved) | Access::WriteBeside(Room::Reserved) => "reserved",
        Access::Write(Room::Filled) | Access::WriteBeside(Room::Filled) => "filled",
        Access::ReadInOrder | Access::ReadAtRandom => "dropped from memory",
    }
}

fn latencies(name: &str, all: &Latencies, out: &mut String) {
    let unit = Unit::of(all.percentile(50.0));
    let shown = |nanos: f64| unit.shown(nanos);
    let _ = writeln!(
        out,
        "    {name} ({}): min={}, max={}, avg={}, stdev={}",
        unit.name,
        shown(all.min() as f64),
        shown(all.max() as f64),
        shown(all.mean()),
        shown(all.deviation())
    );
    let _ = writeln!(out, "    {name} percentiles ({}):", unit.name);
    for line in PERCENTILES.chunks(PER_LINE) {
        let cells: Vec<String> = line
            .iter()
            .map(|&percent| format!("{percent:5.2}th=[{:>7}]", shown(all.percentile(percent) as f64)))
            .collect();
        let _ = writeln!(out, "     | {}", cells.join(", "));
    }
}

/// Bars over doubling bounds.
fn histogram(all: &Latencies, out: &mut String) {
    let doublings = all.doublings();
    let most = doublings.iter().map(|(_, count)| *count).max().unwrap_or_default();
    for (bound, count) in doublings {
        let columns = (count * BAR_COLUMNS).div_ceil(most.max(1));
        let bar = "#".repeat(usize::try_from(columns).expect("no more than the longest"));
        let share = count as f64 * 100.0 / all.count() as f64;
        let unit = Unit::of(bound);
        let _ =
            writeln!(out, "    <= {:>6} {:<4} |{bar:<40}| {share:6.2}%", unit.shown(bound as f64), unit.name);
    }
}

/// In which durations are shown.
struct Unit {
    name: &'static str,
    nanos: f64,
}

impl Unit {
    /// The largest that leaves a typical one two digits before the point.
    fn of(typical: Nanos) -> Unit {
        match typical {
            0..10_000 => Unit { name: "nsec", nanos: 1.0 },
            10_000..10_000_000 => Unit { name: "usec", nanos: 1e3 },
            _ => Unit { name: "msec", nanos: 1e6 },
        }
    }

    fn shown(&self, nanos: f64) -> String {
        let value = nanos / self.nanos;
        if self.nanos > 1.0 && value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
    }
}

/// With a binary unit.
pub fn bytes(count: f64) -> String {
    let (mut value, mut unit) = (count, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" || value >= 100.0 { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") }
}

/// What was looked at.
pub fn place(place: &Place) -> String {
    let mut out = format!("directory    {}\n", place.dir.display());
    let options = place.mount_options.join(",");
    let (kind, source, on) = (&place.file_system, &place.source, place.mount_point.display());
    let _ = writeln!(out, "file system  {kind} ({source}) on {on}, {options}");
    let (free, total) = (bytes(place.free_bytes as f64), bytes(place.total_bytes as f64));
    let _ = writeln!(out, "space        {free} free of {total}");
    if let Some(device) = &place.device {
        let cache = if device.volatile_cache { "flushed by a sync" } else { "none that a power cut empties" };
        let turns = if device.rotational { "says that it rotates" } else { "does not rotate" };
        let _ = writeln!(out, "device       {}: {turns}; write cache: {cache}", device.name);
    }
    out
}

/// The end of the report.
pub fn verdict(verdict: Option<&Verdict>, warnings: &[String]) -> String {
    let mut out = String::new();
    for warning in warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    let Some(verdict) = verdict else {
        out.push_str("verdict: none, for job wal was not run\n");
        return out;
    };
    match verdict.size {
        Some(size) => {
            let _ = writeln!(out, "verdict: PASS, fit for a {size} cluster");
        }
        None => out.push_str("verdict: FAIL, fit for no cluster\n"),
    }
    for limit in &verdict.limits {
        let _ =
            writeln!(out, "  {}: {limit}", if verdict.passed() { "no more, because of" } else { "because" });
    }
    let timeout_ms = verdict.election_timeout_ms;
    let default = ELECTION_TIMEOUT_DEFAULT_MS;
    let judged = if timeout_ms <= default { "will do" } else { "is too short" };
    let _ = writeln!(
        out,
        "  election timeout: {timeout_ms} ms is the shortest that it bears (the default, {default} ms, {judged})"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_or_so() {
        for (count, text) in
            [(0.0, "0B"), (2_300.0, "2.2KiB"), (1_048_576.0, "1.0MiB"), (367_001_600.0, "350MiB")]
        {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn units_fit_what_is_typical() {
        assert_eq!(Unit::of(2_345).name, "nsec");
        assert_eq!(Unit::of(150_000).shown(153_400.0), "153");
        assert_eq!(Unit::of(12_000).shown(12_340.0), "12.3");
        assert_eq!(Unit::of(25_000_000).shown(1_500_000.0), "1.5");
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        let mut all = Latencies::default();
        (0..90).for_each(|_| all.record(100_000));
        (0..10).for_each(|_| all.record(400_000));
        let mut out = String::new();
        histogram(&all, &mut out);
        let hashes: Vec<usize> = out.lines().map(|line| line.matches('#').count()).collect();
        assert_eq!(hashes, [40, 0, 5], "{out}");
        assert!(out.contains("|  90.00%") && out.lines().next().unwrap().contains("131 usec"), "{out}");
    }
}
