//! What the disk itself can do: the floor under every put.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Result;

/// The size of etcd's own disk check (fio with bs=2300), about a put with its framing.
const APPEND_BYTES: usize = 2300;
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// An fdatasync on memory says nothing.
pub fn refuse_memory(dir: &Path) -> Result<()> {
    let kind = rustix::fs::statfs(dir)?.f_type;
    if kind == TMPFS_MAGIC {
        return Err(format!("{} is on tmpfs: choose a real disk with --dir", dir.display()).into());
    }
    Ok(())
}

/// Slices of one probe: where other work comes and goes, one of them meets the disk alone.
const SLICES: usize = 4;

/// Appends into a file that is written and synced beforehand, an fdatasync after each: the median of both
/// together, in milliseconds, in the best of several slices.
pub fn append_sync_p50_ms(dir: &Path, appends: usize) -> Result<f64> {
    let path = dir.join("fdatasync-probe");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    let record = vec![0x5a; APPEND_BYTES];
    file.write_all_at(&vec![0; APPEND_BYTES * appends], 0)?;
    file.sync_all()?;
    let mut best_ms = f64::INFINITY;
    for slice in 0..SLICES {
        let mut took = Histogram::<u64>::new_with_bounds(1_000, 60_000_000_000, 3)?;
        for i in slice * appends / SLICES..(slice + 1) * appends / SLICES {
            let start = Instant::now();
            file.write_all_at(&record, (i * APPEND_BYTES) as u64)?;
            rustix::fs::fdatasync(&file)?;
            took.saturating_record(start.elapsed().as_nanos() as u64);
        }
        best_ms = best_ms.min(took.value_at_quantile(0.5) as f64 / 1e6);
    }
    std::fs::remove_file(&path)?;
    Ok(best_ms)
}

/// How many members share the disk, and how many of them a put waits for.
const MEMBERS: usize = 3;
const QUORUM: usize = 2;

/// About the time between two puts of one client, so that the disk and the processors are found as idle as by a put.
const BETWEEN: Duration = Duration::from_micros(300);

/// The floor under a put of three members on one disk: as many threads append and sync at the same moment, each in a
/// file of its own; the median time until the second of them is done, in milliseconds.
pub fn quorum_sync_p50_ms(dir: &Path, appends: usize) -> Result<f64> {
    let mut files = Vec::new();
    for member in 0..MEMBERS {
        let path = dir.join(format!("quorum-probe-{member}"));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.write_all_at(&vec![0; APPEND_BYTES * appends], 0)?;
        file.sync_all()?;
        std::fs::remove_file(&path)?;
        files.push(file);
    }
    let mut took = Histogram::<u64>::new_with_bounds(1_000, 60_000_000_000, 3)?;
    let barrier = Barrier::new(MEMBERS + 1);
    let (ended, ends) = mpsc::channel();
    let mut outcome = Ok(());
    std::thread::scope(|scope| {
        for file in &files {
            let (barrier, ended) = (&barrier, ended.clone());
            scope.spawn(move || {
                let record = vec![0x5a; APPEND_BYTES];
                for i in 0..appends {
                    barrier.wait();
                    let done = file
                        .write_all_at(&record, (i * APPEND_BYTES) as u64)
                        .and_then(|()| rustix::fs::fdatasync(file).map_err(std::io::Error::from));
                    ended.send((Instant::now(), done)).expect("the other side waits for all of them");
                }
            });
        }
        for _ in 0..appends {
            std::thread::sleep(BETWEEN);
            let start = Instant::now();
            barrier.wait();
            let mut times = Vec::new();
            for _ in 0..MEMBERS {
                let (at, done) = ends.recv().expect("each thread answers each time");
                outcome = std::mem::replace(&mut outcome, Ok(())).and(done);
                times.push(at);
            }
            times.sort();
            took.saturating_record((times[QUORUM - 1] - start).as_nanos() as u64);
        }
    });
    outcome?;
    Ok(took.value_at_quantile(0.5) as f64 / 1e6)
}
