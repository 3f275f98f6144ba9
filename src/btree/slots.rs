//! The two meta slots: reading them, and choosing the one to open.

use std::path::Path;

use crate::base::{Error, Result};
use crate::io::File;

use super::format::{META_BYTES, META_OFFSETS, Meta, MetaFault};

/// The meta slots that a file is opened from.
pub(super) struct Chosen {
    pub newest: Meta,
    /// The checkpoint before it, if its slot is good: its pages are kept as well.
    pub older: Option<Meta>,
    pub notes: Vec<String>,
}

pub(super) type Slots = [std::result::Result<Meta, MetaFault>; 2];

pub(super) fn read_slots<F: File>(file: &F, path: &Path) -> Result<Slots> {
    let mut slots = [0, 1].map(|_| Err(MetaFault::Newer(0)));
    for (slot, result) in slots.iter_mut().enumerate() {
        let mut bytes = [0; META_BYTES];
        let read = file.read_at(META_OFFSETS[slot], &mut bytes).map_err(|e| Error::io("reading", path, e))?;
        *result = Meta::decode(&bytes[..read], slot);
    }
    Ok(slots)
}

/// Which slot counts (T-30):
///
/// | case | the slots | then |
/// |---|---|---|
/// | A | one was written by a newer version | refused: it may mean what we do not know |
/// | B | both damaged | damaged |
/// | C | one damaged (a crash while it was written, or decay) | the other one, with a note |
/// | D | both good, of one file, and of neighbouring checkpoints | the newer; the older one's pages are kept |
/// | E | as D, but the newer one's map or roots are damaged | the older, with a note |
/// | F | both good, of one file, but not neighbours (a slot's write was lost) | the newer, with a note |
/// | G | both good, of different files or page sizes | damaged |
pub(super) fn choose(path: &Path, slots: Slots) -> Result<Chosen> {
    let describe = |slot: usize, fault: &MetaFault| match fault {
        MetaFault::Damaged { found, expected } => {
            Error::corrupt(path, META_OFFSETS[slot], format!("meta slot {slot}"), found, expected)
        }
        MetaFault::Newer(version) => Error::Refused(format!(
            "{} has tree format {version}, written by a newer version of this program",
            path.display()
        )),
    };
    let [first, second] = slots;
    let (newest, older) = match (first, second) {
        (Err(fault @ MetaFault::Newer(_)), _) => return Err(describe(0, &fault)),
        (_, Err(fault @ MetaFault::Newer(_))) => return Err(describe(1, &fault)),
        (Err(fault), Err(_)) => return Err(describe(0, &fault)),
        (Ok(meta), Err(fault)) => {
            let notes = vec![describe(1, &fault).to_string()];
            return Ok(Chosen { newest: meta, older: None, notes });
        }
        (Err(fault), Ok(meta)) => {
            let notes = vec![describe(0, &fault).to_string()];
            return Ok(Chosen { newest: meta, older: None, notes });
        }
        (Ok(a), Ok(b)) if a.checkpoint > b.checkpoint => (a, b),
        (Ok(a), Ok(b)) => (b, a),
    };
    if (newest.file_id, newest.page_bytes) != (older.file_id, older.page_bytes) {
        let found = format!("file {:016x}, pages of {}", older.file_id, older.page_bytes);
        let expected = format!("file {:016x}, pages of {}", newest.file_id, newest.page_bytes);
        let slot = older.slot();
        return Err(Error::corrupt(path, META_OFFSETS[slot], format!("meta slot {slot}"), found, expected));
    }
    if newest.checkpoint != older.checkpoint + 1 {
        let notes = vec![format!(
            "{}: meta slot {} holds checkpoint {}, not {}: a write was lost",
            path.display(),
            older.slot(),
            older.checkpoint,
            newest.checkpoint - 1
        )];
        return Ok(Chosen { newest, older: None, notes });
    }
    Ok(Chosen { newest, older: Some(older), notes: Vec::new() })
}
