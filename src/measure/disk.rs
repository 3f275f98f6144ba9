//! One measurement: what is done to which kind of file, how often, and how long each of it took.
//!
//! A record is timed from the call until the call returns, and a sync apart from it, as fio does: a write goes to memory and
//! takes microseconds, the sync that follows is the disk's.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Latencies, Scratch};
use crate::base::time::{Mono, Nanos};
use crate::base::{Error, Result, Rng};
use crate::io::{Clock, Disk, File};

/// Pieces in which room is filled and a file to be read is made. Also what a checkpoint writes at once.
const PIECE_BYTES: usize = 256 << 10;

/// What the writer in the background goes round in.
const BACKGROUND_BYTES: u64 = 64 << 20;

/// What is done to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// One record after the other.
    Write(Room),
    /// The same, while another thread writes and syncs pieces of a second file at random places, as a checkpoint does.
    WriteBeside(Room),
    ReadInOrder,
    ReadAtRandom,
}

/// What is known of a file's bytes before they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Nothing: the file grows, and each sync makes its new length durable too.
    Growing,
    /// They are reserved (fallocate), as fio and etcd do it. Each sync still notes that they hold something now.
    Reserved,
    /// They hold zeroes that are durable, as in a segment of Pawl's log: a sync writes these bytes and nothing else.
    Filled,
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Job {
    pub name: &'static str,
    /// Why it is looked at, for people.
    pub about: &'static str,
    pub access: Access,
    pub block_bytes: usize,
    /// Of one file.
    pub size_bytes: u64,
    /// A sync after so many records; 0: none.
    pub sync_every: u64,
    /// It ends after this, whatever is left of the file.
    pub runtime: Nanos,
    /// Threads, each with a file of its own.
    pub threads: usize,
}

/// What was measured, of all threads together.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Records that were read or written.
    pub count: u64,
    pub bytes: u64,
    /// From the first thread's start to the last one's end.
    pub took: Nanos,
    pub io: Latencies,
    pub sync: Latencies,
}

impl Figures {
    /// Records in a second.
    pub fn rate(&self) -> f64 {
        self.count as f64 * 1e9 / self.took.max(1) as f64
    }

    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 * 1e9 / self.took.max(1) as f64
    }

    fn add(&mut self, other: &Figures) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.io.add(&other.io);
        self.sync.add(&other.sync);
    }
}

/// Where a job runs.
#[derive(Debug)]
pub struct Bench<'a, D: Disk, C> {
    pub scratch: &'a Scratch<D>,
    pub clock: C,
    /// Set from outside: everything ends as soon as it can.
    pub stop: &'a AtomicBool,
}

impl Job {
    pub fn writes(&self) -> bool {
        matches!(self.access, Access::Write(_) | Access::WriteBeside(_))
    }

    /// What its files take up at most.
    pub fn room_bytes(&self) -> u64 {
        let beside = matches!(self.access, Access::WriteBeside(_));
        self.size_bytes * self.threads as u64 + if beside { BACKGROUND_BYTES } else { 0 }
    }

    /// In which records are read at random: each once, or the second time would ask memory.
    fn order(&self, rng: &mut Rng) -> Option<Vec<u64>> {
        (self.access == Access::ReadAtRandom).then(|| {
            let mut order: Vec<u64> = (0..self.records()).collect();
            for last in (1..order.len()).rev() {
                order.swap(last, rng.below(last as u64 + 1) as usize);
            }
            order
        })
    }

    fn records(&self) -> u64 {
        self.size_bytes / self.block_bytes as u64
    }

    /// Runs it. `step` is told of bytes that are done. What it made is gone afterwards.
    pub fn run<D, C>(
        &self,
        bench: &Bench<'_, D, C>,
        seed: u64,
        step: &(dyn Fn(u64) + Sync),
    ) -> Result<Figures>
    where
        D: Disk + Sync,
        C: Clock + Sync,
    {
        let mut rng = Rng::new(seed);
        let targets = (0..self.threads)
            .map(|_| Target::make(self, bench, rng.next_u64()))
            .collect::<Result<Vec<Target<D::File>>>>()?;
        let beside = match self.access {
            Access::WriteBeside(_) => Some(Target::filled(bench, BACKGROUND_BYTES, rng.next_u64())?),
            _ => None,
        };
        let over = AtomicBool::new(false);
        let start = bench.clock.now();
        let done: Result<Vec<Figures>> = std::thread::scope(|scope| {
            let background = beside.as_ref().map(|target| scope.spawn(|| target.disturb(bench, &over)));
            let threads: Vec<_> =
                targets.iter().map(|target| scope.spawn(|| self.work(bench, target, start, step))).collect();
            let done = threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect();
            over.store(true, Ordering::Relaxed);
            background.map_or(Ok(()), |thread| thread.join().expect("it does not panic"))?;
            done
        });
        let took = bench.clock.now().since(start);
        let mut all = Figures { took, ..Figures::default() };
        done?.iter().for_each(|figures| all.add(figures));
        targets.iter().chain(&beside).try_for_each(|target| bench.scratch.remove(&target.path))?;
        Ok(all)
    }

    fn work<D, C>(
        &self,
        bench: &Bench<'_, D, C>,
        target: &Target<D::File>,
        start: Mono,
        step: &(dyn Fn(u64) + Sync),
    ) -> Result<Figures>
    where
        D: Disk + Sync,
        C: Clock + Sync,
    {
        let mut figures = Figures::default();
        let mut rng = Rng::new(target.seed);
        let order = self.order(&mut rng);
        let mut record = vec![0; self.block_bytes];
        rng.fill(&mut record);
        let block_bytes = self.block_bytes as u64;
        let mut now = bench.clock.now();
        for number in 0..self.records() {
            if now.since(start) >= self.runtime || bench.stop.load(Ordering::Relaxed) {
                break;
            }
            let offset = order.as_ref().map_or(number, |order| order[number as usize]) * block_bytes;
            // Taken anew, so that what is shown to people does not count.
            let begun = bench.clock.now();
            if self.writes() {
                // No two records are equal, so that nothing between here and the disk can leave one out.
                record[..8.min(self.block_bytes)]
                    .copy_from_slice(&number.to_le_bytes()[..8.min(self.block_bytes)]);
                target.done("write", target.file.write_at(offset, &record))?;
            } else {
                let read = target.done("read", target.file.read_at(offset, &mut record))?;
                if read < self.block_bytes {
                    let ended = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    return Err(Error::io("read", &target.path, ended));
                }
            }
            now = bench.clock.now();
            figures.io.record(now.since(begun));
            figures.count += 1;
            figures.bytes += block_bytes;
            if self.writes() && self.sync_every != 0 && (number + 1) % self.sync_every == 0 {
                let written = now;
                target.done("sync", target.file.sync_data())?;
                now = bench.clock.now();
                figures.sync.record(now.since(written));
            }
            step(block_bytes);
        }
        Ok(figures)
    }
}

/// A file that a thread works on.
struct Target<F> {
    path: PathBuf,
    file: F,
    seed: u64,
}

impl<F: File> Target<F> {
    fn make<D, C>(job: &Job, bench: &Bench<'_, D, C>, seed: u64) -> Result<Target<F>>
    where
        D: Disk<File = F>,
    {
        match job.access {
            Access::Write(Room::Filled) | Access::WriteBeside(Room::Filled) => {
                return Target::filled(bench, job.size_bytes, seed);
            }
            Access::ReadInOrder | Access::ReadAtRandom => {
                let target = Target::filled(bench, job.size_bytes, seed)?;
                target.done("drop from memory", target.file.drop_cache(0, job.size_bytes))?;
                return Ok(target);
            }
            Access::Write(_) | Access::WriteBeside(_) => {}
        }
        let (path, file) = bench.scratch.create()?;
        let target = Target { path, file, seed };
        if matches!(job.access, Access::Write(Room::Reserved) | Access::WriteBeside(Room::Reserved)) {
            target.done("reserve room in", target.file.allocate(0, job.size_bytes))?;
        }
        Ok(target)
    }

    /// Bytes that are durable, none of which compresses.
    fn filled<D, C>(bench: &Bench<'_, D, C>, size_bytes: u64, seed: u64) -> Result<Target<F>>
    where
        D: Disk<File = F>,
    {
        let (path, file) = bench.scratch.create()?;
        let target = Target { path, file, seed };
        let mut piece = vec![0; PIECE_BYTES];
        let mut rng = Rng::new(seed);
        let mut at = 0;
        while at < size_bytes && !bench.stop.load(Ordering::Relaxed) {
            rng.fill(&mut piece);
            let bytes = (size_bytes - at).min(PIECE_BYTES as u64);
            target.done("write", target.file.write_at(at, &piece[..bytes as usize]))?;
            at += bytes;
        }
        target.done("sync", target.file.sync_data())?;
        Ok(target)
    }

    /// Writes and syncs until it is over.
    fn disturb<D, C>(&self, bench: &Bench<'_, D, C>, over: &AtomicBool) -> Result<()>
    where
        D: Disk<File = F>,
    {
        let mut rng = Rng::new(self.seed);
        let mut piece = vec![0; PIECE_BYTES];
        while !over.load(Ordering::Relaxed) && !bench.stop.load(Ordering::Relaxed) {
            rng.fill(&mut piece);
            let at = rng.below(BACKGROUND_BYTES / PIECE_BYTES as u64) * PIECE_BYTES as u64;
            self.done("write", self.file.write_at(at, &piece))?;
            self.done("sync", self.file.sync_data())?;
        }
        Ok(())
    }

    fn done<T>(&self, doing: &'static str, result: std::io::Result<T>) -> Result<T> {
        result.map_err(|e| Error::io(doing, Path::new(&self.path), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::SECOND;
    use crate::io::sim::{SimClock, SimDisk};

    const DIR: &str = "/data";

    fn job(access: Access) -> Job {
        let (block_bytes, size_bytes) = (1_000, 10_500);
        let (runtime, threads) = (SECOND, 1);
        Job { name: "a", about: "", access, block_bytes, size_bytes, sync_every: 2, runtime, threads }
    }

    fn run(job: &Job) -> Result<Figures> {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new(DIR)).unwrap();
        let scratch = Scratch::new(disk.clone(), Path::new(DIR), 1);
        let stop = AtomicBool::new(false);
        let bench = Bench { scratch: &scratch, clock: SimClock::default(), stop: &stop };
        let figures = job.run(&bench, 3, &|_| {});
        assert_eq!(disk.list(Path::new(DIR)).unwrap(), Vec::<String>::new(), "a file is left");
        figures
    }

    #[test]
    fn whole_records_and_a_sync_after_so_many() {
        for room in [Room::Growing, Room::Reserved, Room::Filled] {
            let figures = run(&job(Access::Write(room))).unwrap();
            assert_eq!((figures.count, figures.bytes), (10, 10_000));
            assert_eq!((figures.io.count(), figures.sync.count()), (10, 5));
        }
        let never = Job { sync_every: 0, ..job(Access::Write(Room::Growing)) };
        assert_eq!(run(&never).unwrap().sync.count(), 0);
    }

    #[test]
    fn reads_sync_nothing() {
        for access in [Access::ReadInOrder, Access::ReadAtRandom] {
            let figures = run(&job(access)).unwrap();
            assert_eq!((figures.count, figures.io.count(), figures.sync.count()), (10, 10, 0));
        }
    }

    #[test]
    fn what_is_read_at_random_is_read_once() {
        let mut order = job(Access::ReadAtRandom).order(&mut Rng::new(5)).unwrap();
        assert_ne!(order, (0..10).collect::<Vec<u64>>());
        order.sort_unstable();
        assert_eq!(order, (0..10).collect::<Vec<u64>>());
        assert_eq!(job(Access::ReadInOrder).order(&mut Rng::new(5)), None);
    }

    #[test]
    fn threads_have_a_file_each() {
        let figures = run(&Job { threads: 3, ..job(Access::Write(Room::Growing)) }).unwrap();
        assert_eq!((figures.count, figures.bytes), (30, 30_000));
    }

    #[test]
    fn time_ends_it() {
        let none = Job { runtime: 0, ..job(Access::Write(Room::Growing)) };
        assert_eq!(run(&none).unwrap().count, 0);
    }

    #[test]
    fn a_stop_ends_it_and_leaves_nothing() {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new(DIR)).unwrap();
        let scratch = Scratch::new(disk.clone(), Path::new(DIR), 1);
        let stop = AtomicBool::new(false);
        let bench = Bench { scratch: &scratch, clock: SimClock::default(), stop: &stop };
        let figures = job(Access::WriteBeside(Room::Filled)).run(&bench, 3, &|_| {
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(figures.unwrap().count, 1);
        assert_eq!(disk.list(Path::new(DIR)).unwrap(), Vec::<String>::new());
    }
}
