//! Pawl's tree on the real disk, with checkpoints on a helper thread, as the server runs it.

use std::path::Path;
use std::thread::JoinHandle;

use pawl::btree::{CheckpointDone, Options, Tree, View};
use pawl::io::os::OsDisk;

use super::{Engine, Key, Seen};
use crate::Result;

/// A checkpoint begins at so many changed bytes.
const CHECKPOINT_BYTES: u64 = 64 << 20;
const ROOT: usize = 0;

pub struct Pawl {
    tree: Tree<OsDisk>,
    /// False: changes stay in memory until [`Engine::settle`].
    checkpoints: bool,
    running: Option<JoinHandle<pawl::base::Result<CheckpointDone>>>,
}

impl Pawl {
    pub fn create(dir: &Path, checkpoints: bool) -> Result<Pawl> {
        let options = Options { page_bytes: 4096, file_id: 1 };
        let tree = Tree::create(&OsDisk, &dir.join("tree"), options, b"")?;
        Ok(Pawl { tree, checkpoints, running: None })
    }

    fn begin(&mut self) -> Result<()> {
        if let Some(checkpoint) = self.tree.begin_checkpoint()? {
            self.running = Some(std::thread::spawn(move || checkpoint.run(&|| ())));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if let Some(running) = self.running.take() {
            let done = running.join().map_err(|_| "the checkpoint panicked")??;
            self.tree.end_checkpoint(done)?;
        }
        Ok(())
    }
}

impl Engine for Pawl {
    fn commit(&mut self, pairs: &[(Key, &[u8])]) -> Result<()> {
        for (key, value) in pairs {
            self.tree.insert(ROOT, key, &[value], false)?;
        }
        if self.running.as_ref().is_some_and(JoinHandle::is_finished) {
            self.end()?;
        }
        if self.checkpoints && self.running.is_none() && self.tree.dirty_bytes() >= CHECKPOINT_BYTES {
            self.begin()?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        self.end()?;
        self.begin()?;
        self.end()
    }

    fn gets(&self, keys: &[Key]) -> Result<Seen> {
        let mut seen = Seen::default();
        for key in keys {
            let value = self.tree.get(View::Now, ROOT, key)?.ok_or("a key is missing")?;
            seen.look(value.as_slice().ok_or("a value in pieces")?);
        }
        Ok(seen)
    }

    fn scan(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut cursor = self.tree.cursor(View::Now, ROOT);
        let mut more = cursor.first()?;
        while more {
            seen.look(cursor.value().as_slice().ok_or("a value in pieces")?);
            more = cursor.next()?;
        }
        Ok(seen)
    }
}
