//! LMDB through `heed`, with MDB_NOSYNC: a commit writes its pages to the page cache and syncs nothing.

use std::path::Path;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions};

use super::{Engine, FILE_BYTES_MAX, Key, Seen};
use crate::Result;

pub struct Lmdb {
    env: Env,
    database: Database<Bytes, Bytes>,
}

impl Lmdb {
    pub fn create(dir: &Path) -> Result<Lmdb> {
        let mut options = EnvOpenOptions::new();
        options.map_size(FILE_BYTES_MAX);
        // SAFETY: the directory is new and ours alone, and nothing of it survives this run.
        let env = unsafe { options.flags(EnvFlags::NO_SYNC).open(dir)? };
        let mut txn = env.write_txn()?;
        let database = env.create_database(&mut txn, None)?;
        txn.commit()?;
        Ok(Lmdb { env, database })
    }
}

impl Engine for Lmdb {
    fn commit(&mut self, pairs: &[(Key, &[u8])]) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        for (key, value) in pairs {
            self.database.put(&mut txn, key, value)?;
        }
        Ok(txn.commit()?)
    }

    fn settle(&mut self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn gets(&self, keys: &[Key]) -> Result<Seen> {
        let mut seen = Seen::default();
        let txn = self.env.read_txn()?;
        for key in keys {
            seen.look(self.database.get(&txn, key)?.ok_or("a key is missing")?);
        }
        Ok(seen)
    }

    fn scan(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        let txn = self.env.read_txn()?;
        for item in self.database.iter(&txn)? {
            seen.look(item?.1);
        }
        Ok(seen)
    }
}
