//! The figures as fio writes them for programs, so that what reads fio's reads these: JSON, and the third version of its terse
//! line (fio's HOWTO, "Terse output").
//!
//! What fio reports of processors, queues and devices was not measured here: in JSON it is left out, in the terse line, whose
//! fields count by their place, it is zero.

use serde_json::{Map, Value, json};

use super::place::Place;
use super::verdict::Verdict;
use crate::base::time::Nanos;
use crate::measure::disk::{Access, Figures, Job};
use crate::measure::{Latencies, PERCENTILES};

/// Of the format that is followed, not of this program.
const FIO_VERSION: &str = "fio-3.33";

/// What the terse line has room for.
const TERSE_PERCENTILES: usize = 20;

/// Milliseconds since 1970, by the wall clock.
pub fn json(
    place: &Place,
    done: &[(Job, Figures)],
    verdict: Option<&Verdict>,
    warnings: &[String],
    wall_ms: u64,
) -> String {
    let whole = json!({
        "fio version": FIO_VERSION,
        "timestamp": wall_ms / 1_000,
        "timestamp_ms": wall_ms,
        "jobs": done.iter().map(|(job, figures)| of_job(job, figures)).collect::<Vec<Value>>(),
        "pawl": {
            "directory": place.dir.display().to_string(),
            "file_system": place.file_system,
            "source": place.source,
            "mount_point": place.mount_point.display().to_string(),
            "mount_options": place.mount_options,
            "free_bytes": place.free_bytes,
            "total_bytes": place.total_bytes,
            "warnings": warnings,
            "verdict": verdict.map(|verdict| json!({
                "pass": verdict.passed(),
                "size": verdict.size,
                "limits": verdict.limits,
                "election_timeout_ms": verdict.election_timeout_ms,
            })),
        },
    });
    format!("{whole:#}\n")
}

fn of_job(job: &Job, figures: &Figures) -> Value {
    let rw = match job.access {
        Access::Write(_) | Access::WriteBeside(_) => "write",
        Access::ReadInOrder => "read",
        Access::ReadAtRandom => "randread",
    };
    let nothing = Figures::default();
    let (read, write) = if job.writes() { (&nothing, figures) } else { (figures, &nothing) };
    json!({
        "jobname": job.name,
        "groupid": 0,
        "error": 0,
        "elapsed": figures.took.div_ceil(1_000_000_000),
        "job options": {
            "name": job.name,
            "rw": rw,
            "bs": job.block_bytes.to_string(),
            "size": job.size_bytes.to_string(),
            "fdatasync": job.sync_every.to_string(),
            "numjobs": job.threads.to_string(),
        },
        "read": of_direction(read),
        "write": of_direction(write),
        "sync": { "total_ios": figures.sync.count(), "lat_ns": of_latencies(&figures.sync) },
    })
}

fn of_direction(figures: &Figures) -> Value {
    let measured = figures.count > 0;
    let per_second = if measured { figures.bytes_per_second() } else { 0.0 };
    json!({
        "io_bytes": figures.bytes,
        "io_kbytes": figures.bytes >> 10,
        "bw_bytes": per_second as u64,
        "bw": per_second as u64 >> 10,
        "iops": if measured { figures.rate() } else { 0.0 },
        "runtime": figures.took / 1_000_000,
        "total_ios": figures.count,
        "short_ios": 0,
        "drop_ios": 0,
        "slat_ns": of_latencies(&Latencies::default()),
        "clat_ns": of_latencies(&figures.io),
        "lat_ns": of_latencies(&figures.io),
    })
}

fn of_latencies(all: &Latencies) -> Value {
    let mut told = Map::new();
    told.insert("min".into(), all.min().into());
    told.insert("max".into(), all.max().into());
    told.insert("mean".into(), all.mean().into());
    told.insert("stddev".into(), all.deviation().into());
    told.insert("N".into(), all.count().into());
    if all.count() > 0 {
        let percentiles = PERCENTILES.iter().map(|&p| (format!("{p:.6}"), all.percentile(p).into()));
        told.insert("percentile".into(), Value::Object(percentiles.collect()));
    }
    Value::Object(told)
}

/// One line.
pub fn terse(job: &Job, figures: &Figures) -> String {
    let mut fields: Vec<String> =
        ["3", FIO_VERSION, job.name, "0", "0"].into_iter().map(str::to_owned).collect();
    let nothing = Figures::default();
    let (read, write) = if job.writes() { (&nothing, figures) } else { (figures, &nothing) };
    terse_direction(read, &mut fields);
    terse_direction(write, &mut fields);
    // Time of processors (two shares), switches, major and minor faults.
    fields.extend(["0.000000%", "0.000000%", "0", "0", "0"].map(str::to_owned));
    // One operation at a time.
    fields.push("100.0%".to_owned());
    fields.extend(std::iter::repeat_n("0.0%".to_owned(), 6));
    terse_shares(&figures.io, &mut fields);
    format!("{}\n", fields.join(";"))
}

fn terse_direction(figures: &Figures, fields: &mut Vec<String>) {
    let measured = figures.count > 0;
    let kib = if measured { figures.bytes_per_second() / 1024.0 } else { 0.0 };
    let rate = if measured { figures.rate() } else { 0.0 };
    fields.push((figures.bytes >> 10).to_string());
    fields.push(format!("{kib:.0}"));
    fields.push(format!("{rate:.0}"));
    fields.push((figures.took / 1_000_000).to_string());
    terse_latencies(&Latencies::default(), fields);
    terse_latencies(&figures.io, fields);
    for number in 0..TERSE_PERCENTILES {
        fields.push(match PERCENTILES.get(number) {
            Some(&percent) => format!("{percent:.6}%={}", figures.io.percentile(percent) / 1_000),
            None => "0%=0".to_owned(),
        });
    }
    terse_latencies(&figures.io, fields);
    // The rate over time: least, most, share of all, mean, deviation.
    fields.extend([
        format!("{kib:.0}"),
        format!("{kib:.0}"),
        "100.000000%".into(),
        format!("{kib:.6}"),
        "0.000000".into(),
    ]);
}

/// Least, most, mean and deviation, in microseconds.
fn terse_latencies(all: &Latencies, fields: &mut Vec<String>) {
    fields.push((all.min() / 1_000).to_string());
    fields.push((all.max() / 1_000).to_string());
    fields.push(format!("{:.6}", all.mean() / 1e3));
    fields.push(format!("{:.6}", all.deviation() / 1e3));
}

/// Which share took no longer than each bound, and longer than the one before.
fn terse_shares(all: &Latencies, fields: &mut Vec<String>) {
    const MICROS: [Nanos; 10] = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1_000];
    const MILLIS: [Nanos; 11] = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1_000, 2_000];
    let bounds = MICROS.iter().map(|us| us * 1_000).chain(MILLIS.iter().map(|ms| ms * 1_000_000));
    let mut below = 0.0;
    for bound in bounds {
        let up_to = all.share_up_to(bound);
        fields.push(format!("{:.2}%", up_to - below));
        below = up_to;
    }
    fields.push(format!("{:.2}%", if all.count() == 0 { 0.0 } else { 100.0 - below }));
}
