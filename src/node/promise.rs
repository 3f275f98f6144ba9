//! For how long this member promises to elect nobody, remembered over restarts.
//!
//! A leader rests its lease on what its followers promise. How long that is follows from each one's own settings, which
//! an operator may change from one start to the next:
//!
//! 1. A follower promises 10 s to a leader, stops, and is started again with settings by which it promises 0.5 s.
//! 2. The leader is cut off, and serves reads for the rest of the 10 s.
//! 3. The follower, which would wait 0.5 s for what it may have promised, helps to elect another leader.
//!
//! So the longest promise that may be open is kept in a small file beside the tree. A longer one is written before it is
//! given; a shorter one takes its place when those that were given before have run out.

use std::path::{Path, PathBuf};

use crate::base::Result;
use crate::base::planted;
use crate::base::time::{Nanos, SECOND};
use crate::io::Disk;

use super::small_file;

const FILE: &str = "lease";
const HEAD: &str = "pawl lease 1\n";

/// What a file stands for that cannot be read as one: no setting allows a longer lease.
const LONGEST: Nanos = 25 * SECOND;

/// A promise to be remembered in place of the last one.
pub struct Record<D: Disk> {
    disk: D,
    dir: PathBuf,
    lease: Nanos,
}

impl<D: Disk> Record<D> {
    pub(super) fn run(&self) -> Result<()> {
        small_file::replace(&self.disk, &self.dir, FILE, &format!("{HEAD}{}\n", self.lease))
    }
}

/// Before a member takes part: the longest promise that it may have given, 0 if none, and what is to be remembered once
/// that has run out, if it is less.
pub(super) fn remember<D: Disk>(disk: &D, dir: &Path, lease: Nanos) -> Result<(Nanos, Option<Record<D>>)> {
    let given = match small_file::read(disk, &dir.join(FILE))? {
        None => 0,
        Some(_) if planted::on("node-old-promise-forgotten") => lease,
        Some(text) => decode(&text).unwrap_or(LONGEST),
    };
    let record = Record { disk: disk.clone(), dir: dir.to_path_buf(), lease };
    if given < lease {
        record.run()?;
    }
    Ok((given, (given > lease).then_some(record)))
}

fn decode(text: &str) -> Option<Nanos> {
    text.strip_prefix(HEAD)?.strip_suffix('\n')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::SimDisk;

    #[test]
    fn the_longest_promise_that_may_be_open_is_remembered() {
        let disk = SimDisk::new();
        let dir = Path::new("d");
        disk.create_dir_all(dir).unwrap();
        let start = |lease| remember(&disk, dir, lease).unwrap();
        assert_eq!(start(5).0, 0);
        assert_eq!(start(9).0, 5);
        let (given, later) = start(3);
        assert_eq!(given, 9);
        assert_eq!(start(3).0, 9, "the process ended before the long promises had run out");
        later.expect("the shorter one is to be remembered").run().unwrap();
        let (given, later) = start(3);
        assert_eq!(given, 3);
        assert!(later.is_none());
        small_file::replace(&disk, dir, FILE, "something else").unwrap();
        assert_eq!(start(3).0, LONGEST);
    }
}
