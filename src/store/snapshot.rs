//! Snapshots, the sender's side: the whole content as of one applied entry, as a stream of chunks
//! (`storage-format.md` §8). It is read from a pinned state of the tree, so writes go on meanwhile.
//!
//! The stream is a string of items; chunks cut it anywhere, so that a chunk has the size that the sender wants
//! although a value may be larger. Each chunk begins with a checksum that is continued from the chunk before it:
//! one that is damaged, missing, repeated or out of order fails at once. The last item holds the number of
//! cells and a digest of all items.

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};

use super::digest::Digest;
use super::record::CHANGE_HEAD_BYTES_MAX;
use super::revision::Rev;
use super::state::{FIRST_REVISION, Identity, State};
use super::{REPLICATED, Store};
use crate::base::codec::Short;
use crate::base::crc::crc32_from;
use crate::base::limits::{ENTRY_BYTES_MAX, KEY_BYTES_MAX};
use crate::base::planted;
use crate::base::{ClusterId, EntryId, Error, MemberId, Reader, Result, Revision, Writer};
use crate::btree::{Cursor, View};
use crate::io::Disk;

pub const MAGIC: [u8; 8] = *b"PAWLSNAP";
/// Versions 1 to 3 carried other heads or cells; no release wrote them.
pub const VERSION: u32 = 5;
/// The checksum in front of a chunk.
pub const CHUNK_HEAD_BYTES: usize = 4;
const CHUNK_BYTES_MIN: usize = 64;

/// The first item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub cluster: ClusterId,
    pub applied: EntryId,
    pub revision: Revision,
    pub compact_revision: Revision,
    /// The sender's state hash behind `applied`: the receiver goes on from it.
    pub hash: u64,
    /// How far the sender had swept: the receiver goes on from there, too.
    pub swept: Rev,
    pub alarm: MemberId,
}

pub const HEAD_BYTES: usize = 80;

/// In place of a root's number: the last item.
pub const END: u8 = 0xff;

const COUNTED: u8 = 1;

/// One cell of the tree, as the stream carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    pub root: usize,
    pub counted: bool,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// What is written at the front of the stream's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    Cell(Cell<'a>),
    End { cells: u64, digest: u64 },
}

// A key that is attached to a lease stands behind the lease.
const CELL_KEY_BYTES_MAX: usize = super::lease::ID_BYTES + KEY_BYTES_MAX;
// The record of a change holds what the entry held, key and value, and a head that is shorter than the entry's rest.
const CELL_VALUE_BYTES_MAX: usize = ENTRY_BYTES_MAX + CHANGE_HEAD_BYTES_MAX;
const _: () = assert!(CELL_KEY_BYTES_MAX < u32::MAX as usize);

impl Head {
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(&MAGIC);
        out.put_u32_le(VERSION);
        out.put_u64_le(self.cluster);
        out.put_u64_le(self.applied.term);
        out.put_u64_le(self.applied.index);
        out.put_u64_le(self.revision);
        out.put_u64_le(self.compact_revision);
        out.put_u64_le(self.hash);
        out.put_u64_le(self.swept.main);
        out.put_u32_le(self.swept.sub);
        out.put_u64_le(self.alarm);
        assert!(out.is_empty(), "the fields fill the head");
        bytes
    }

    pub fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Head, String> {
        let mut reader = Reader::new(bytes);
        let mut fields = || -> Result<_, Short> {
            let (magic, version) = (reader.array::<8>()?, reader.u32()?);
            let cluster = reader.u64()?;
            let applied = EntryId::new(reader.u64()?, reader.u64()?);
            let (revision, compact_revision, hash) = (reader.u64()?, reader.u64()?, reader.u64()?);
            let swept = Rev::new(reader.u64()?, reader.u32()?);
            let alarm = reader.u64()?;
            Ok((magic, version, Head { cluster, applied, revision, compact_revision, hash, swept, alarm }))
        };
        let (magic, version, head) = fields().expect("the head is of this length");
        if magic != MAGIC {
            return Err(format!("begins with {magic:02x?} instead of PAWLSNAP"));
        }
        if version != VERSION {
            return Err(format!("is of format {version}; this program knows {VERSION}"));
        }
        if head.revision < FIRST_REVISION || head.compact_revision > head.revision {
            return Err(format!("claims revision {}, compacted at {}", head.revision, head.compact_revision));
        }
        if head.swept > Rev::new(head.compact_revision + 1, 0) {
            return Err(format!(
                "claims to be swept to {}, compacted at {}",
                head.swept, head.compact_revision
            ));
        }
        Ok(head)
    }
}

impl<'a> Item<'a> {
    /// The item at the front of `bytes`, and its length; None where it is not all there yet.
    pub fn decode(bytes: &'a [u8]) -> Result<Option<(Item<'a>, usize)>, String> {
        match Item::take(&mut Reader::new(bytes)) {
            Ok((item, left)) => item.map(|item| Some((item, bytes.len() - left))),
            // Lengths were checked before they were waited for.
            Err(Short { .. }) => Ok(None),
        }
    }

    fn take(reader: &mut Reader<'a>) -> Result<(Result<Item<'a>, String>, usize), Short> {
        let root = reader.u8()?;
        if root == END {
            let end = Item::End { cells: reader.u64()?, digest: reader.u64()? };
            return Ok((Ok(end), reader.left()));
        }
        let flags = reader.u8()?;
        if !REPLICATED.contains(&usize::from(root)) || flags & !COUNTED != 0 {
            return Ok((Err(format!("holds an item of kind {root}, flags {flags:#x}")), 0));
        }
        let key_bytes = reader.u32()? as usize;
        if key_bytes == 0 || key_bytes > CELL_KEY_BYTES_MAX {
            return Ok((Err(format!("holds a key of {key_bytes} bytes")), 0));
        }
        let key = reader.bytes(key_bytes)?;
        let value_bytes = reader.u32()? as usize;
        if value_bytes > CELL_VALUE_BYTES_MAX {
            return Ok((Err(format!("holds a value of {value_bytes} bytes")), 0));
        }
        let value = reader.bytes(value_bytes)?;
        let cell = Cell { root: usize::from(root), counted: flags & COUNTED != 0, key, value };
        Ok((Ok(Item::Cell(cell)), reader.left()))
    }

    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Item::Cell(cell) => {
                out.reserve(10 + cell.key.len() + cell.value.len());
                out.put_u8(u8::try_from(cell.root).expect("a few roots"));
                out.put_u8(if cell.counted { COUNTED } else { 0 });
                out.put_blob(cell.key);
                out.put_blob(cell.value);
            }
            Item::End { cells, digest } => {
                out.put_u8(END);
                out.put_u64_le(*cells);
                out.put_u64_le(*digest);
            }
        }
    }
}

/// Mixes a cell into the digest of a stream or of a content.
pub fn digest_cell(digest: &mut Digest, cell: &Cell<'_>) {
    digest.number((cell.root as u64) << 1 | u64::from(cell.counted));
    digest.string(cell.key);
    digest.string(cell.value);
}

/// Goes through the cells of the replicated roots in order, a few at a time.
#[derive(Clone, Debug)]
struct Cells {
    view: View,
    /// Position in [`REPLICATED`].
    root: usize,
    /// The last key that was visited in this root.
    after: Option<Vec<u8>>,
}

impl Cells {
    fn new(view: View) -> Cells {
        Cells { view, root: 0, after: None }
    }

    /// Visits cells until `visit` answers false; false if there are no more.
    fn visit<D: Disk>(&mut self, store: &Store<D>, mut visit: impl FnMut(&Cell<'_>) -> bool) -> Result<bool> {
        while let Some(&root) = REPLICATED.get(self.root) {
            let mut cursor = store.tree.cursor(self.view, root);
            let mut there = match &self.after {
                None => cursor.first()?,
                Some(last) => {
                    let found = cursor.seek(last)?;
                    if found && *cursor.key()? == last[..] { cursor.next()? } else { found }
                }
            };
            while there {
                if !show(&cursor, root, &mut visit)? {
                    self.after = Some(cursor.key()?.into_owned());
                    return Ok(true);
                }
                there = cursor.next()?;
            }
            self.root += 1;
            self.after = None;
        }
        Ok(false)
    }
}

/// Shows the cell under the cursor.
fn show<D: Disk>(
    cursor: &Cursor<'_, D>,
    root: usize,
    visit: &mut impl FnMut(&Cell<'_>) -> bool,
) -> Result<bool> {
    let (key, value) = (cursor.key()?, cursor.value());
    let copy;
    let bytes = match value.as_slice() {
        Some(bytes) => bytes,
        None => {
            copy = value.to_vec()?;
            &copy
        }
    };
    Ok(visit(&Cell { root, counted: cursor.counted(), key: &key, value: bytes }))
}

/// A snapshot on its way out. Give it back with [`Store::unpin`]: until then the tree keeps its pages.
#[derive(Debug)]
pub struct Snapshot {
    head: Head,
    cells: Cells,
    /// Encoded and not yet in a chunk.
    pending: BytesMut,
    /// No item is left to encode.
    ended: bool,
    chain: u32,
    cell_count: u64,
    digest: Digest,
}

impl Snapshot {
    /// The entry as of which the content is.
    pub fn at(&self) -> EntryId {
        self.head.applied
    }

    /// The next chunk, of at most `bytes_max`; None behind the last one. Beside the chunk, one cell is held
    /// in memory.
    pub fn next_chunk<D: Disk>(&mut self, store: &Store<D>, bytes_max: usize) -> Result<Option<Bytes>> {
        assert!(bytes_max >= CHUNK_BYTES_MIN, "a chunk of {bytes_max} bytes would be mostly its checksum");
        let Some(payload) = self.next_piece(store, bytes_max - CHUNK_HEAD_BYTES)? else { return Ok(None) };
        self.chain = crc32_from(self.chain, &payload);
        let mut chunk = BytesMut::with_capacity(CHUNK_HEAD_BYTES + payload.len());
        chunk.put_u32_le(self.chain);
        chunk.put_slice(&payload);
        Ok(Some(chunk.freeze()))
    }

    /// The next bytes of the stream itself, without the head of a chunk.
    pub fn next_piece<D: Disk>(&mut self, store: &Store<D>, bytes_max: usize) -> Result<Option<Bytes>> {
        self.fill(store, bytes_max)?;
        if self.pending.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.pending.split_to(self.pending.len().min(bytes_max)).freeze()))
    }

    /// The same snapshot from its beginning.
    pub fn rewind(&mut self) {
        let Snapshot { head, cells, .. } = self;
        *self = Snapshot::begin(*head, cells.view);
    }

    fn begin(head: Head, view: View) -> Snapshot {
        Snapshot {
            head,
            cells: Cells::new(view),
            pending: BytesMut::from(&head.encode()[..]),
            ended: false,
            chain: 0,
            cell_count: 0,
            digest: digest_of_head(&head),
        }
    }

    fn fill<D: Disk>(&mut self, store: &Store<D>, bytes: usize) -> Result<()> {
        let Snapshot { cells, pending, cell_count, digest, .. } = self;
        if self.ended || pending.len() >= bytes {
            return Ok(());
        }
        let more = cells.visit(store, |cell| {
            let is_left_out = match cell.root {
                super::KEYS => !cell.counted && planted::on("snapshot-without-deleted-keys"),
                super::LEASES => planted::on("snapshot-without-leases"),
                _ => false,
            };
            if !is_left_out {
                Item::Cell(*cell).encode(pending);
                digest_cell(digest, cell);
                *cell_count += 1;
            }
            pending.len() < bytes
        })?;
        if !more {
            Item::End { cells: *cell_count, digest: digest.value() }.encode(pending);
            self.ended = true;
        }
        Ok(())
    }
}

/// The digest of a stream begins with its head.
pub fn digest_of_head(head: &Head) -> Digest {
    let mut digest = Digest::new();
    digest.string(&head.encode());
    digest
}

impl<D: Disk> Store<D> {
    /// Freezes the present content for a snapshot.
    pub fn pin(&mut self) -> Snapshot {
        assert!(!self.broken, "half of an entry must not be sent to others");
        let head = Head {
            cluster: self.state.identity.cluster,
            applied: self.state.applied,
            revision: self.state.revision,
            compact_revision: self.state.compact_revision,
            hash: self.state.hash,
            swept: self.state.swept,
            alarm: self.state.alarm,
        };
        Snapshot::begin(head, self.tree.pin())
    }

    pub fn unpin(&mut self, snapshot: Snapshot) {
        self.tree.unpin(snapshot.cells.view);
    }

    /// A digest of the replicated content: every version that can be read, the members, the revision, the compact
    /// revision and the alarm. Equal on all members that have applied the same entries; what belongs to one member (its id, the
    /// layout of its pages, what it has not swept yet) and the applied index, which a no-op moves, are not part of it.
    /// Reads everything.
    pub fn content_hash(&self) -> Result<u64> {
        let mut digest = Digest::new();
        let State { identity: Identity { cluster, .. }, revision, compact_revision, alarm, .. } = self.state;
        for number in [cluster, revision, compact_revision, alarm] {
            digest.number(number);
        }
        let may_hold_garbage = self.sweep_due() && !planted::on("store-digest-sees-garbage");
        let mut failed = Ok(());
        Cells::new(View::Now).visit(self, |cell| {
            match if may_hold_garbage { self.is_garbage(cell) } else { Ok(false) } {
                Ok(true) => {}
                Ok(false) => digest_cell(&mut digest, cell),
                Err(damage) => failed = Err(damage),
            }
            failed.is_ok()
        })?;
        failed.map(|()| digest.value())
    }
}

/// A stream that this store cannot take.
pub fn bad_stream(path: &Path, offset: u64, found: impl Into<String>, expected: &str) -> Error {
    Error::corrupt(path, offset, "a snapshot from another member", found, expected)
}
