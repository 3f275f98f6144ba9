//! What the figures mean: which size of cluster the disk carries, and what is odd about it.
//!
//! The sizes, their loads and the two rules of thumb are those of etcd's hardware guidance: the 99th percentile of a sync
//! below 10 ms; 50 synced writes a second in a row, 500 under heavy load; and data that is read back in 15 seconds after a
//! failure (10 MB/s for 100 MB). Ours beside them: requests a second are reckoned from what the disk syncs in batches,
//! as a group commit makes them.
//!
//! Left out: processors, memory and the network between members, which a disk says nothing of.

use super::place::{Nature, Place};
use crate::base::time::{MS, Nanos};
use crate::measure::disk::{Access, Figures, Job};

/// What one size of cluster asks of a disk.
struct Size {
    name: &'static str,
    /// Syncs of single records a second, one after the other.
    syncs_per_second: f64,
    requests_per_second: f64,
    /// To read the data of such a cluster in 15 seconds.
    read_bytes_per_second: f64,
}

const SIZES: [Size; 4] = [
    Size { name: "small", syncs_per_second: 50.0, requests_per_second: 200.0, read_bytes_per_second: 10e6 },
    Size {
        name: "medium",
        syncs_per_second: 50.0,
        requests_per_second: 1_000.0,
        read_bytes_per_second: 50e6,
    },
    Size {
        name: "large",
        syncs_per_second: 500.0,
        requests_per_second: 10_000.0,
        read_bytes_per_second: 100e6,
    },
    Size {
        name: "xlarge",
        syncs_per_second: 500.0,
        requests_per_second: 30_000.0,
        read_bytes_per_second: 200e6,
    },
];

/// No 99th percentile of a sync may reach this.
pub const SYNC_P99_MAX: Nanos = 10 * MS;

/// One request in the log, as the guidance's own recipe has it.
pub const REQUEST_BYTES: usize = 2_300;

/// Nothing that keeps its bytes without power answers sooner.
const SYNC_TOO_FAST: Nanos = 5_000;
/// Nor sooner than this after the flush of a cache that loses its bytes without power.
const FLUSH_TOO_FAST: Nanos = 20_000;

/// A page that came from a disk took longer.
const READ_TOO_FAST: Nanos = 3_000;

const FREE_BYTES_MIN: u64 = 1 << 30;

/// A vote is synced on two members, one after the other; so often may both take the longest that was seen.
const SYNCS_OF_AN_ELECTION: u64 = 2;
const ELECTION_MARGIN: u64 = 10;
/// Five heartbeats of the default interval: no shorter timeout is accepted.
const ELECTION_TIMEOUT_MIN_MS: u64 = 500;
pub const ELECTION_TIMEOUT_DEFAULT_MS: u64 = 1_000;

/// What the disk is fit for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The largest size that it carries.
    pub size: Option<&'static str>,
    /// What keeps it from a larger one, or from any.
    pub limits: Vec<String>,
    /// The shortest that it can bear, for `--election-timeout`.
    pub election_timeout_ms: u64,
    pub warnings: Vec<String>,
}

impl Verdict {
    pub fn passed(&self) -> bool {
        self.size.is_some()
    }
}

/// What was measured, as the criteria need it. None: that was not looked at.
struct Found {
    sync_p99: Nanos,
    syncs_per_second: f64,
    requests_per_second: f64,
    read_bytes_per_second: Option<f64>,
}

/// None if the job that everything rests on, single records with a sync after each, was not run.
pub fn judge(place: &Place, done: &[(Job, Figures)]) -> Option<Verdict> {
    let found = Found::of(done)?;
    let mut verdict = Verdict {
        election_timeout_ms: election_timeout_ms(done),
        warnings: warnings(place, done),
        ..Verdict::default()
    };
    if place.nature() == Nature::Memory {
        verdict.limits.push(format!("{} is memory: a sync there keeps nothing", place.file_system));
        return Some(verdict);
    }
    if found.sync_p99 >= SYNC_P99_MAX {
        let [ms, max] = [found.sync_p99, SYNC_P99_MAX].map(|nanos| nanos as f64 / MS as f64);
        verdict
            .limits
            .push(format!("the 99th percentile of a sync is {ms:.1} ms (below {max:.0} ms is needed)"));
        return Some(verdict);
    }
    for size in SIZES {
        verdict.limits = size.unmet(&found);
        if !verdict.limits.is_empty() {
            break;
        }
        verdict.size = Some(size.name);
    }
    Some(verdict)
}

impl Found {
    fn of(done: &[(Job, Figures)]) -> Option<Found> {
        let synced = |job: &Job| matches!(job.access, Access::Write(_)) && job.sync_every == 1;
        let singles = || done.iter().filter(|(job, _)| synced(job) && job.name.starts_with("wal"));
        let sync_p99 = singles().map(|(_, figures)| figures.sync.percentile(99.0)).max()?;
        let rate = singles().map(|(_, figures)| figures.rate()).fold(f64::INFINITY, f64::min);
        let requests = |(job, figures): &(Job, Figures)| {
            figures.rate() * (job.block_bytes / REQUEST_BYTES).max(1) as f64
        };
        let requests_per_second =
            done.iter().filter(|(job, _)| synced(job)).map(requests).fold(0.0, f64::max);
        let read = done.iter().find(|(job, _)| job.access == Access::ReadInOrder);
        let read_bytes_per_second = read.map(|(_, figures)| figures.bytes_per_second());
        Some(Found { sync_p99, syncs_per_second: rate, requests_per_second, read_bytes_per_second })
    }
}

impl Size {
    /// What this disk lacks for it.
    fn unmet(&self, found: &Found) -> Vec<String> {
        let Size { name, syncs_per_second, requests_per_second, read_bytes_per_second } = *self;
        let mut unmet = Vec::new();
        if found.syncs_per_second < syncs_per_second {
            let has = found.syncs_per_second;
            unmet.push(format!("{has:.0} synced records a second ({name}: {syncs_per_second:.0})"));
        }
        if found.requests_per_second < requests_per_second {
            let has = found.requests_per_second;
            unmet.push(format!("{has:.0} requests a second in batches ({name}: {requests_per_second:.0})"));
        }
        if let Some(has) = found.read_bytes_per_second.filter(|has| *has < read_bytes_per_second) {
            let [has, needed] = [has, read_bytes_per_second].map(|bytes| bytes / 1e6);
            unmet.push(format!("{has:.0} MB/s to read its data after a failure ({name}: {needed:.0})"));
        }
        unmet
    }
}

/// A multiple of 100.
fn election_timeout_ms(done: &[(Job, Figures)]) -> u64 {
    let longest = done.iter().map(|(_, figures)| figures.sync.max()).max().unwrap_or_default();
    let ms = (longest * SYNCS_OF_AN_ELECTION * ELECTION_MARGIN).div_ceil(MS);
    ms.max(ELECTION_TIMEOUT_MIN_MS).next_multiple_of(100)
}

/// Also for figures that are too few for a verdict.
pub fn warnings(place: &Place, done: &[(Job, Figures)]) -> Vec<String> {
    let mut all = Vec::new();
    let (kind, source) = (&place.file_system, &place.source);
    match place.nature() {
        Nature::Local => {}
        Nature::Memory => all.push(format!("{kind} is memory: a sync does nothing, and a power cut takes it all")),
        Nature::Network => all.push(format!(
            "{kind} ({source}) is a network file system: its stalls are added to the disk's, and what a sync means there depends on the server"
        )),
        Nature::Foreign => all.push(format!("{kind}: a process of its own answers for what a sync means there")),
        Nature::Layers => all.push(format!("{kind} is made of a container's layers: give the data a volume of its own")),
    }
    if place.is_without_barriers() {
        all.push("mounted without barriers: a sync does not flush the device's cache".to_owned());
    }
    if place.free_bytes < FREE_BYTES_MIN {
        all.push(format!("only {} MiB are free", place.free_bytes >> 20));
    }
    all.extend(of_figures(place, done));
    all
}

fn of_figures(place: &Place, done: &[(Job, Figures)]) -> Vec<String> {
    let mut all = Vec::new();
    let syncs = || done.iter().filter(|(_, figures)| figures.sync.count() > 0);
    // In memory it is no wonder, and has been said.
    if place.nature() != Nature::Memory {
        let cached = place.device.as_ref().is_some_and(|device| device.volatile_cache);
        let bound = if cached { FLUSH_TOO_FAST } else { SYNC_TOO_FAST };
        let fastest = syncs().map(|(_, figures)| figures.sync.percentile(50.0)).min();
        if let Some(fastest) = fastest.filter(|fastest| *fastest < bound) {
            let us = fastest as f64 / 1e3;
            let why = if cached { "the device has a cache that must be flushed, and" } else { "nothing" };
            let why = if cached {
                format!("{why} a flush takes longer")
            } else {
                format!("{why} durable is so fast")
            };
            all.push(format!("a sync takes {us:.1} us, too little to be true: {why}"));
        }
    }
    let random = done.iter().find(|(job, _)| job.access == Access::ReadAtRandom);
    if random.is_some_and(|(_, figures)| figures.count > 0 && figures.io.percentile(50.0) < READ_TOO_FAST) {
        all.push("the reads came from memory and say nothing of the disk".to_owned());
    }
    let beside = done.iter().find(|(job, _)| matches!(job.access, Access::WriteBeside(_)));
    if let Some((_, figures)) = beside.filter(|(_, figures)| figures.sync.percentile(99.0) >= SYNC_P99_MAX) {
        let ms = figures.sync.percentile(99.0) as f64 / MS as f64;
        all.push(format!(
            "beside a checkpoint the 99th percentile of a sync is {ms:.1} ms: puts will wait for it"
        ));
    }
    let timeout_ms = election_timeout_ms(done);
    if timeout_ms > ELECTION_TIMEOUT_DEFAULT_MS {
        let longest =
            syncs().map(|(_, figures)| figures.sync.max()).max().unwrap_or_default() as f64 / MS as f64;
        all.push(format!("a sync took {longest:.0} ms: set --election-timeout to {timeout_ms} or more"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::place::Device;
    use super::*;
    use crate::base::time::SECOND;
    use crate::measure::disk::Room;

    fn done(
        name: &'static str,
        access: Access,
        block_bytes: usize,
        took: Nanos,
        sync: Nanos,
    ) -> (Job, Figures) {
        let job = Job {
            name,
            about: "",
            access,
            block_bytes,
            size_bytes: 0,
            sync_every: 1,
            runtime: SECOND,
            threads: 1,
        };
        let mut figures = Figures::default();
        for _ in 0..1_000 {
            figures.count += 1;
            figures.bytes += block_bytes as u64;
            figures.took += took + sync;
            figures.io.record(took);
            if sync > 0 {
                figures.sync.record(sync);
            }
        }
        (job, figures)
    }

    /// Each sync and each read so long.
    fn disk(sync: Nanos, read: Nanos) -> Vec<(Job, Figures)> {
        vec![
            done("wal", Access::Write(Room::Reserved), 2_300, 2_000, sync),
            done("batch-256k", Access::Write(Room::Filled), 256 << 10, 50_000, 2 * sync),
            done("read-in-order", Access::ReadInOrder, 1 << 20, read, 0),
            done("wal-beside", Access::WriteBeside(Room::Filled), 2_300, 2_000, 3 * sync),
        ]
    }

    fn place() -> Place {
        let device = Device { name: "sda".into(), rotational: false, volatile_cache: true };
        Place { file_system: "ext4".into(), free_bytes: 1 << 40, device: Some(device), ..Place::default() }
    }

    #[test]
    fn the_size_follows_what_is_weakest() {
        let judged = |sync, read| judge(&place(), &disk(sync, read)).unwrap();
        let fast = judged(200_000, MS);
        assert_eq!((fast.size, fast.limits.len(), fast.warnings.len()), (Some("xlarge"), 0, 0), "{fast:?}");
        // 80 MB/s.
        let slow_read = judged(200_000, 13 * MS);
        assert_eq!(slow_read.size, Some("medium"));
        assert_eq!(slow_read.limits, ["81 MB/s to read its data after a failure (large: 100)"]);
        let slow_sync = judged(4 * MS, MS);
        assert_eq!(slow_sync.size, Some("medium"), "{slow_sync:?}");
        assert!(slow_sync.limits[0].starts_with("250 synced records a second (large: 500)"), "{slow_sync:?}");
    }

    #[test]
    fn ten_milliseconds_are_too_many() {
        let slow = judge(&place(), &disk(11 * MS, MS)).unwrap();
        assert!(!slow.passed());
        assert_eq!(slow.limits, ["the 99th percentile of a sync is 11.0 ms (below 10 ms is needed)"]);
        assert!(slow.warnings.iter().any(|warning| warning.starts_with("beside a checkpoint")), "{slow:?}");
        // Three times eleven, twice, ten times.
        assert_eq!(slow.election_timeout_ms, 700);
        let slower = judge(&place(), &disk(20 * MS, MS)).unwrap();
        assert_eq!(slower.election_timeout_ms, 1_300);
        assert!(
            slower.warnings.iter().any(|w| w.ends_with("set --election-timeout to 1300 or more")),
            "{slower:?}"
        );
    }

    #[test]
    fn memory_carries_nothing() {
        let memory = Place { file_system: "tmpfs".into(), device: None, ..place() };
        let verdict = judge(&memory, &disk(1_000, MS)).unwrap();
        assert!(!verdict.passed() && verdict.limits[0].contains("memory"), "{verdict:?}");
    }

    #[test]
    fn a_sync_that_cannot_be_is_named() {
        let odd = |place: &Place, sync| {
            let verdict = judge(place, &disk(sync, MS)).unwrap();
            verdict.warnings.iter().any(|warning| warning.contains("too little to be true"))
        };
        let plain = Place { device: None, ..place() };
        assert!(odd(&place(), 15_000) && !odd(&place(), 25_000));
        assert!(!odd(&plain, 15_000) && odd(&plain, 4_000));
    }

    #[test]
    fn the_place_is_looked_at() {
        let warned = |place: &Place, word: &str| {
            let all = warnings(place, &[]);
            assert!(all.iter().any(|warning| warning.contains(word)), "{all:?}");
        };
        warned(&Place { file_system: "nfs4".into(), ..place() }, "network");
        warned(&Place { file_system: "fuse.sshfs".into(), ..place() }, "process of its own");
        warned(&Place { file_system: "overlay".into(), ..place() }, "volume");
        warned(&Place { mount_options: vec!["barrier=0".into()], ..place() }, "barriers");
        warned(&Place { free_bytes: 300 << 20, ..place() }, "only 300 MiB are free");
        assert_eq!(warnings(&place(), &[]), Vec::<String>::new());
    }

    #[test]
    fn without_single_records_there_is_no_verdict() {
        assert_eq!(judge(&place(), &disk(MS, MS)[2..]), None);
    }
}
