//! What recovery has read may be in the page cache only. Before anybody relies on it, it is made durable, and
//! read from the disk itself; `storage-format.md`, section 4.5.

use std::path::Path;

use crate::base::planted;
use crate::base::{Error, Result};
use crate::io::{Disk, File, Open};
use crate::wal::recover::Recovered;

/// Makes the tail, from the watermark to the end, durable; false if the disk holds something else than
/// recovery saw, and the log must be read again.
///
/// Scenario 1: a process writes a group and is killed before its sync. The bytes are in the page cache, so the
/// next process finds them, takes part in elections and acknowledgements with them, and the power fails. So they
/// are synced first.
///
/// Scenario 2: the sync of a group fails, and the process ends as it must. The cache keeps those bytes and calls
/// them clean: another sync answers Ok and writes nothing. So after the sync the cache is dropped, and what is
/// read then is what the disk holds.
///
/// The bytes are not written again: the group may have been acknowledged, and a power cut in the middle of that
/// write could take it.
pub(super) fn settle<D: Disk>(disk: &D, dir: &Path, recovered: &Recovered) -> Result<bool> {
    let tail = &recovered.tail;
    if tail.watermark == tail.border() || planted::on("wal-tail-not-settled") {
        return Ok(true);
    }
    let path = recovered.newest().path(dir);
    let file = disk.open(&path, Open::Write).map_err(|e| Error::io("open", &path, e))?;
    let read = || -> Result<Vec<u8>> {
        // Zeroes where the file ends.
        let mut bytes = vec![0; (tail.border() - tail.watermark) as usize];
        file.read_at(tail.watermark, &mut bytes).map_err(|e| Error::io("read", &path, e))?;
        Ok(bytes)
    };
    let sync = || file.sync_data().map_err(|e| Error::io("sync", &path, e));
    let seen = read()?;
    sync()?;
    file.drop_cache(tail.watermark, seen.len() as u64).map_err(|e| Error::io("reread", &path, e))?;
    if read()? != seen {
        return Ok(false);
    }
    // Where a torn group was cut (case B) its rest goes, durably before the mark says that all is well.
    let torn = &seen[(tail.end - tail.watermark) as usize..];
    if torn.iter().any(|byte| *byte != 0) {
        file.write_at(tail.end, &vec![0; torn.len()]).map_err(|e| Error::io("write", &path, e))?;
        sync()?;
    }
    Ok(true)
}
