//! redb with `Durability::None`: a commit that is not synced.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Engine, Key, Seen};
use crate::Result;

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("pairs");

pub struct Redb {
    database: Database,
}

impl Redb {
    pub fn create(dir: &Path) -> Result<Redb> {
        Ok(Redb { database: Database::create(dir.join("redb"))? })
    }

    fn write(&self, pairs: &[(Key, &[u8])], durability: Durability) -> Result<()> {
        let mut txn = self.database.begin_write()?;
        txn.set_durability(durability)?;
        {
            let mut table = txn.open_table(TABLE)?;
            for (key, value) in pairs {
                table.insert(&key[..], *value)?;
            }
        }
        Ok(txn.commit()?)
    }
}

impl Engine for Redb {
    fn commit(&mut self, pairs: &[(Key, &[u8])]) -> Result<()> {
        self.write(pairs, Durability::None)
    }

    fn settle(&mut self) -> Result<()> {
        self.write(&[], Durability::Immediate)
    }

    fn gets(&self, keys: &[Key]) -> Result<Seen> {
        let mut seen = Seen::default();
        let table = self.database.begin_read()?.open_table(TABLE)?;
        for key in keys {
            seen.look(table.get(&key[..])?.ok_or("a key is missing")?.value());
        }
        Ok(seen)
    }

    fn scan(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        let table = self.database.begin_read()?.open_table(TABLE)?;
        for item in table.iter()? {
            seen.look(item?.1.value());
        }
        Ok(seen)
    }
}
