//! Files of a few lines that are replaced whole: what a member must know about itself before it opens tree and log.

use std::io::ErrorKind;
use std::path::Path;

use crate::base::{Error, Result};
use crate::io::{Disk, File, Open};

const FILE_BYTES_MAX: u64 = 64 << 10;

/// None if there is no such file. What is not UTF-8 comes as something that no writer here wrote.
pub(super) fn read<D: Disk>(disk: &D, path: &Path) -> Result<Option<String>> {
    let failed = |e| Error::io("read", path, e);
    let file = match disk.open(path, Open::Read) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let file_bytes = file.len_bytes().map_err(failed)?.min(FILE_BYTES_MAX);
    let mut bytes = vec![0; file_bytes as usize];
    let read = file.read_at(0, &mut bytes).map_err(failed)?;
    Ok(Some(String::from_utf8_lossy(&bytes[..read]).into_owned()))
}

/// Durable under its name when this returns; cut short at any point, the file is as it was or as it should be.
pub(super) fn replace<D: Disk>(disk: &D, dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    let new = path.with_extension("new");
    if disk.exists(&new).map_err(|e| Error::io("look for", &new, e))? {
        disk.remove(&new).map_err(|e| Error::io("remove", &new, e))?;
    }
    let file = disk.open(&new, Open::Create).map_err(|e| Error::io("create", &new, e))?;
    file.write_at(0, text.as_bytes()).map_err(|e| Error::io("write", &new, e))?;
    file.sync_data().map_err(|e| Error::io("sync", &new, e))?;
    disk.rename(&new, &path).map_err(|e| Error::io("name", &path, e))?;
    disk.sync_dir(dir).map_err(|e| Error::io("sync the directory", dir, e))
}
