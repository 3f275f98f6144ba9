//! What the disk itself can do: the floor under every put.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

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
