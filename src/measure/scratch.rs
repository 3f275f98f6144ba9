//! Files that are made for a measurement and go with it, whatever ends it.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::base::{Error, Result};
use crate::io::{Disk, Open};

/// Makes files in one directory, under names that nothing has, and removes what it made: each when it is asked to, and
/// the rest when it is dropped. A file that was there before is never opened.
#[derive(Debug)]
pub struct Scratch<D: Disk> {
    pub disk: D,
    dir: PathBuf,
    /// What the names begin with.
    stem: String,
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    count: u64,
    present: Vec<PathBuf>,
}

impl<D: Disk> Scratch<D> {
    /// `id`: of this process. Two that run at once in one directory do not meet.
    pub fn new(disk: D, dir: &Path, id: u32) -> Scratch<D> {
        Scratch {
            disk,
            dir: dir.to_path_buf(),
            stem: format!("pawl-check-disk-{id}"),
            made: Mutex::default(),
        }
    }

    /// A new, empty file.
    pub fn create(&self) -> Result<(PathBuf, D::File)> {
        let mut made = self.made.lock().expect("nobody panics with it");
        let path = self.dir.join(format!("{}-{}.tmp", self.stem, made.count));
        let file = self.disk.open(&path, Open::Create).map_err(|e| Error::io("create", &path, e))?;
        made.count += 1;
        made.present.push(path.clone());
        Ok((path, file))
    }

    pub fn remove(&self, path: &Path) -> Result<()> {
        let mut made = self.made.lock().expect("nobody panics with it");
        made.present.retain(|one| one != path);
        self.disk.remove(path).map_err(|e| Error::io("remove", path, e))
    }
}

impl<D: Disk> Drop for Scratch<D> {
    fn drop(&mut self) {
        let made = self.made.get_mut().expect("nobody panics with it");
        for path in made.present.drain(..) {
            // A file system that no longer takes a removal has said so already.
            let _ = self.disk.remove(&path);
        }
    }
}
