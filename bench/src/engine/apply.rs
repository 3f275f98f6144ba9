//! The state machine alone, as one member drives it: puts of random keys applied in batches, checkpoints on a
//! helper thread as often as the server takes them. Pawl against itself, before and after a change.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pawl::api::{Command, Put, Range, Span};
use pawl::base::{EntryId, Rng};
use pawl::io::os::OsDisk;
use pawl::node::PARTS;
use pawl::store::{CheckpointDone, Identity, Options, Store};
use rustix::time::{ClockId, clock_gettime};

use super::processor_seconds;
use crate::load::{VALUE_BYTES, key_bytes};
use crate::{Result, Scale};

/// Entries applied in one turn.
const BATCH: u64 = 64;
/// When the server takes a checkpoint.
const CHECKPOINT_ENTRIES: u64 = 100_000;
const CHECKPOINT_DIRTY_BYTES: u64 = 12 << 20;
const RANGES: u64 = 300;
const RANGE_KEYS: u64 = 10_000;
/// The steady rate at which memory is looked at.
const PACED_PER_S: u64 = 100_000;

struct Member {
    store: Store<OsDisk>,
    value: Vec<u8>,
    rng: Rng,
    entries: u64,
    running: Option<JoinHandle<pawl::base::Result<CheckpointDone>>>,
    checkpoints: u64,
    written_bytes: u64,
    longest_turn: Duration,
    dirty_bytes_max: u64,
    anonymous_bytes_max: u64,
}

/// Two spaces of keys: one that is full, so that nearly every put replaces a version, and one so large that
/// nearly every put is a new key.
pub fn measure(dir: &Path, scale: &Scale) -> Result<()> {
    let full = scale.engine_keys as u64;
    for round in 0..scale.engine_rounds {
        let path = dir.join(format!("ranges-{round}"));
        ranges(&path, full)?;
        std::fs::remove_file(&path)?;
        for (name, key_count, filled) in [("full", full, full), ("sparse", 100 * full, 0)] {
            let path = dir.join(format!("apply-{round}-{name}"));
            one(&path, name, key_count, filled, full / 2)?;
            std::fs::remove_file(&path)?;
            rustix::fs::sync();
        }
    }
    Ok(())
}

/// Ranges of keys that were put in their order, and of such a store with a quarter as many puts of random ones behind: their
/// values lie elsewhere.
fn ranges(path: &Path, key_count: u64) -> Result<()> {
    let mut member = Member::new(path)?;
    for number in 0..key_count {
        member.put(number.to_be_bytes())?;
        member.keep_house()?;
    }
    member.settle()?;
    member.read_ranges("put in their order", key_count)?;
    for _ in 0..key_count / 4 {
        let number = member.rng.below(key_count);
        member.put(number.to_be_bytes())?;
        member.keep_house()?;
    }
    member.settle()?;
    member.read_ranges("and changed since", key_count)
}

fn one(path: &Path, name: &str, key_count: u64, filled: u64, puts: u64) -> Result<()> {
    let mut member = Member::new(path)?;
    for number in 0..filled {
        member.put(key_bytes(number))?;
        member.keep_house()?;
    }
    member.settle()?;

    (member.checkpoints, member.written_bytes) = (0, 0);
    let (wall, loop_s, all_s) = (Instant::now(), thread_seconds(), processor_seconds());
    for _ in 0..puts / BATCH {
        member.turn(key_count)?;
    }
    let (wall_s, loop_s) = (wall.elapsed().as_secs_f64(), thread_seconds() - loop_s);
    member.settle()?;
    let helper_s = processor_seconds() - all_s - loop_s;
    let per_put = |seconds: f64| seconds * 1e6 / puts as f64;
    println!(
        "{name}: {:.1} k puts/s; processor time of a put {:.3} µs in the loop, {:.3} µs in the helper; \
         {} checkpoints, {:.0} bytes written for a put; longest turn {:.2} ms",
        puts as f64 / wall_s / 1e3,
        per_put(loop_s),
        per_put(helper_s),
        member.checkpoints,
        member.written_bytes as f64 / puts as f64,
        member.longest_turn.as_secs_f64() * 1e3,
    );

    (member.longest_turn, member.anonymous_bytes_max, member.dirty_bytes_max) = (Duration::ZERO, 0, 0);
    let start = Instant::now();
    for turn in 0..puts / BATCH {
        member.turn(key_count)?;
        if turn % 64 == 0 {
            member.anonymous_bytes_max = member.anonymous_bytes_max.max(anonymous_bytes()?);
        }
        let due = Duration::from_nanos((turn + 1) * BATCH * 1_000_000_000 / PACED_PER_S);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    println!(
        "{name}: at {:.1} k puts/s: at most {:.1} MiB anonymous, {:.1} MiB changed since a checkpoint began; longest turn {:.2} ms",
        puts as f64 / start.elapsed().as_secs_f64() / 1e3,
        mib(member.anonymous_bytes_max),
        mib(member.dirty_bytes_max),
        member.longest_turn.as_secs_f64() * 1e3,
    );
    member.settle()?;
    let hash = member.store.content_hash()?;
    drop(member);
    let start = Instant::now();
    let store = Store::open(&OsDisk, path)?;
    let open_ms = start.elapsed().as_secs_f64() * 1e3;
    let stats = store.stats();
    println!(
        "{name}: opened in {open_ms:.2} ms; {} revisions, {} pages in use of {}, content hash {hash:016x}",
        store.revision(),
        stats.used_pages,
        stats.file_bytes / stats.page_bytes as u64,
    );
    Ok(())
}

impl Member {
    fn new(path: &Path) -> Result<Member> {
        let identity = Identity { cluster: 1, member: 1 };
        let store = Store::create(&OsDisk, path, identity, &[], Options::new(1))?;
        let mut value = vec![0; VALUE_BYTES + 4096];
        Rng::new(11).fill(&mut value);
        Ok(Member {
            store,
            value,
            rng: Rng::new(5),
            entries: 0,
            running: None,
            checkpoints: 0,
            written_bytes: 0,
            longest_turn: Duration::ZERO,
            dirty_bytes_max: 0,
            anonymous_bytes_max: 0,
        })
    }

    /// Ranges from anywhere, part by part as the server reads them.
    fn read_ranges(&self, what: &str, key_count: u64) -> Result<()> {
        let mut rng = Rng::new(3);
        let (begin_s, mut bytes) = (thread_seconds(), 0);
        for _ in 0..RANGES {
            let first = rng.below(key_count - RANGE_KEYS);
            let [from, to] = [first, first + RANGE_KEYS].map(|n| n.to_be_bytes().to_vec().into());
            let range = Range::new(Span::Between(from, to));
            let mut reading = self.store.begin_range(&range).map_err(|fault| fault.text)?;
            let mut last = false;
            while !last {
                let part = self.store.read_part(&mut reading, &mut PARTS.alone.clone())?;
                let part = part.map_err(|fault| fault.text)?;
                bytes += part.kvs.iter().map(|kv| kv.value.len() as u64).sum::<u64>();
                last = part.last;
            }
        }
        let keys = RANGES * RANGE_KEYS;
        assert_eq!(bytes, keys * VALUE_BYTES as u64, "every key was read");
        let ns = (thread_seconds() - begin_s) * 1e9 / keys as f64;
        println!("ranges of {RANGE_KEYS} keys, {what}: processor time of a key {ns:.0} ns");
        Ok(())
    }

    fn put(&mut self, key: [u8; 8]) -> Result<()> {
        let at = self.rng.below((self.value.len() - VALUE_BYTES) as u64) as usize;
        let put = Put {
            key: key.to_vec().into(),
            value: self.value[at..at + VALUE_BYTES].to_vec().into(),
            ..Put::default()
        };
        let id = EntryId { term: 1, index: self.store.applied().index + 1 };
        self.store.apply(id, Some(&Command::Put(put)))?;
        self.entries += 1;
        Ok(())
    }

    fn turn(&mut self, key_count: u64) -> Result<()> {
        let start = Instant::now();
        for _ in 0..BATCH {
            let number = self.rng.below(key_count);
            self.put(key_bytes(number))?;
        }
        self.keep_house()?;
        self.longest_turn = self.longest_turn.max(start.elapsed());
        Ok(())
    }

    fn keep_house(&mut self) -> Result<()> {
        self.dirty_bytes_max = self.dirty_bytes_max.max(self.store.dirty_bytes());
        if self.running.as_ref().is_some_and(JoinHandle::is_finished) {
            self.end()?;
        }
        let due = self.entries >= CHECKPOINT_ENTRIES || self.store.dirty_bytes() >= CHECKPOINT_DIRTY_BYTES;
        if due && self.running.is_none() {
            self.begin()?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        self.entries = 0;
        if let Some(checkpoint) = self.store.begin_checkpoint()? {
            let helper = std::thread::Builder::new().name("checkpoint".into());
            self.running = Some(helper.spawn(move || checkpoint.run(&|| ()))?);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let done = running.join().map_err(|_| "the checkpoint panicked")??;
        self.checkpoints += 1;
        self.written_bytes += done.written_bytes();
        Ok(self.store.end_checkpoint(done)?)
    }

    fn settle(&mut self) -> Result<()> {
        self.end()?;
        self.begin()?;
        self.end()
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn thread_seconds() -> f64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

fn anonymous_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).ok_or("no line RssAnon")?;
    let kib: u64 = line.split_whitespace().next().ok_or("no figure in RssAnon")?.parse()?;
    Ok(kib << 10)
}
