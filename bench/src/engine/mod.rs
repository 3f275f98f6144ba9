//! The storage engines alone: random keys put in batches, all of them read in another order, one scan.

pub mod apply;
mod lmdb;
mod redb;
mod tree;

use std::path::Path;
use std::time::Instant;

use pawl::base::Rng;

use crate::load::{VALUE_BYTES, key_bytes};
use crate::report::Figures;
use crate::{Result, Scale};

type Key = [u8; 8];

/// Puts per commit.
const BATCH: usize = 1_000;
/// Room for an engine that reserves its file.
const FILE_BYTES_MAX: usize = 8 << 30;

trait Engine {
    /// One transaction; not synced.
    fn commit(&mut self, pairs: &[(Key, &[u8])]) -> Result<()>;
    /// Everything committed so far becomes durable.
    fn settle(&mut self) -> Result<()>;
    /// Reads every key, and of every value some bytes.
    fn gets(&self, keys: &[Key]) -> Result<Seen>;
    /// All cells in order, and of every value some bytes.
    fn scan(&self) -> Result<Seen>;
}

/// What a reader saw: proof that it looked.
#[derive(Default, Debug, PartialEq, Eq)]
struct Seen {
    values: u64,
    bytes: u64,
    sum: u64,
}

impl Seen {
    fn look(&mut self, value: &[u8]) {
        self.values += 1;
        self.bytes += value.len() as u64;
        self.sum += value.iter().step_by(64).map(|b| u64::from(*b)).sum::<u64>();
    }
}

/// `wanted`: Pawl, LMDB, redb, and Pawl without checkpoints.
pub fn measure(dir: &Path, scale: &Scale, wanted: [bool; 4], figures: &mut Figures) -> Result<()> {
    for round in 0..scale.engine_rounds {
        eprintln!("engines, round {} of {}", round + 1, scale.engine_rounds);
        for i in (0..4).map(|i| (i + round) % 4).filter(|i| wanted[*i]) {
            let place = dir.join(format!("engine-{round}-{i}"));
            std::fs::create_dir_all(&place)?;
            let done = match i {
                0 => one(&mut tree::Pawl::create(&place, true)?, "pawl", scale, figures),
                1 => one(&mut lmdb::Lmdb::create(&place)?, "lmdb", scale, figures),
                2 => one(&mut redb::Redb::create(&place)?, "redb", scale, figures),
                _ => without_checkpoints(&place, scale, figures),
            };
            std::fs::remove_dir_all(&place)?;
            rustix::fs::sync();
            done?;
        }
    }
    Ok(())
}

/// The same pseudo-random pairs for all: keys spread over the whole key space, in no order.
struct Data {
    keys: Vec<Key>,
    noise: Vec<u8>,
}

impl Data {
    fn new(count: usize) -> Data {
        let mut noise = vec![0; 64 * 1024];
        Rng::new(11).fill(&mut noise);
        Data { keys: shuffled(count, 5), noise }
    }

    fn value(&self, key: &Key) -> &[u8] {
        let at = (u64::from_be_bytes(*key) % (self.noise.len() - VALUE_BYTES) as u64) as usize;
        &self.noise[at..at + VALUE_BYTES]
    }
}

fn shuffled(count: usize, seed: u64) -> Vec<Key> {
    let mut keys: Vec<Key> = (0..count as u64).map(key_bytes).collect();
    let mut rng = Rng::new(seed);
    for i in (1..keys.len()).rev() {
        keys.swap(i, rng.below(i as u64 + 1) as usize);
    }
    keys
}

/// The stop watch of one part: by the wall, and by the processors.
struct Watch {
    wall: Instant,
    processor_s: f64,
}

impl Watch {
    fn start() -> Watch {
        Watch { wall: Instant::now(), processor_s: processor_seconds() }
    }

    fn wall_s(&self) -> f64 {
        self.wall.elapsed().as_secs_f64()
    }

    fn processor_us(&self) -> f64 {
        (processor_seconds() - self.processor_s) * 1e6
    }
}

/// Processor time of this process so far, all threads.
fn processor_seconds() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

/// Seconds for all puts.
fn put_all(engine: &mut impl Engine, data: &Data) -> Result<f64> {
    let mut batch = Vec::with_capacity(BATCH);
    let start = Instant::now();
    for keys in data.keys.chunks(BATCH) {
        batch.clear();
        batch.extend(keys.iter().map(|key| (*key, data.value(key))));
        engine.commit(&batch)?;
    }
    Ok(start.elapsed().as_secs_f64())
}

fn one(engine: &mut impl Engine, name: &'static str, scale: &Scale, figures: &mut Figures) -> Result<()> {
    let data = Data::new(scale.engine_keys);
    let count = data.keys.len() as f64;
    let watch = Watch::start();
    let put = put_all(engine, &data)?;
    figures.add("puts", name, count / put);
    engine.settle()?;
    figures.add("processor time of a put, made durable", name, watch.processor_us() / count);
    let settle = watch.wall_s() - put;
    figures.add("making it durable at the end", name, settle);
    figures.add("puts, with all of it durable at the end", name, count / (put + settle));

    let order = shuffled(data.keys.len(), 6);
    let mut expected = Seen::default();
    order.iter().for_each(|key| expected.look(data.value(key)));
    let watch = Watch::start();
    let seen = engine.gets(&order)?;
    figures.add("random gets", name, count / watch.wall_s());
    figures.add("processor time of a random get", name, watch.processor_us() / count);
    if seen != expected {
        return Err(format!("{name} read {seen:?}, expected {expected:?}").into());
    }
    let watch = Watch::start();
    let seen = engine.scan()?;
    figures.add("scan", name, count / watch.wall_s());
    figures.add("processor time of a scanned cell", name, watch.processor_us() / count);
    if seen != expected {
        return Err(format!("{name} scanned {seen:?}, expected {expected:?}").into());
    }
    Ok(())
}

/// Pawl's tree with all changes kept in memory: what the puts themselves cost.
fn without_checkpoints(place: &Path, scale: &Scale, figures: &mut Figures) -> Result<()> {
    let data = Data::new(scale.engine_keys);
    let put = put_all(&mut tree::Pawl::create(place, false)?, &data)?;
    figures.add("puts, nothing written to disk meanwhile", "pawl", data.keys.len() as f64 / put);
    Ok(())
}
