//! Where a server keeps its files: the one place that spells it, for the server and for the offline tools.

use std::path::{Path, PathBuf};

use crate::node;

/// The directories of one member.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The tree file and the lock.
    pub member_dir: PathBuf,
    /// The segments.
    pub wal_dir: PathBuf,
}

impl Layout {
    /// From `--data-dir`, and `--wal-dir` if there is one.
    pub fn new(data_dir: &Path, wal_dir: Option<&Path>) -> Layout {
        let member_dir = data_dir.join("member");
        let wal_dir = wal_dir.map_or_else(|| member_dir.join("wal"), Path::to_path_buf);
        Layout { member_dir, wal_dir }
    }

    pub fn tree(&self) -> PathBuf {
        node::tree_path(&self.member_dir)
    }

    /// Locked by a server as long as it runs.
    pub fn lock(&self) -> PathBuf {
        node::lock_path(&self.member_dir)
    }
}
