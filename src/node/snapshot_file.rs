//! A snapshot as a file (`storage-format.md` §9): the stream that members send each other without its chunks, zeros up to a
//! multiple of 512 bytes, and the SHA-256 of all that. etcd's clients look at no more than the size and that checksum.
//!
//! Clients are told with each piece how much follows, so the pinned state is gone through twice: once to measure it.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::base;
use crate::base::crc::crc32c_from;
use crate::io::Disk;
use crate::store::{Budget, Snapshot, Store, StreamCheck, StreamSummary};

/// What one message of etcd's carries is half as much.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// A file's size without the checksum is a multiple of this.
const BLOCK_BYTES: u64 = 512;

/// The next bytes of the file, and how many follow them, without the checksum.
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    pub(super) remaining_bytes: u64,
}

#[derive(Debug)]
pub(super) struct SnapshotFile {
    snapshot: Snapshot,
    stage: Stage,
    sha256: Sha256,
}

#[derive(Debug)]
enum Stage {
    Measure {
        bytes: u64,
    },
    /// Zeros included.
    Send {
        left_bytes: u64,
    },
    Over,
}

/// The next bytes of the stream, within the budget; a byte of it costs one of that.
fn next<D: Disk>(
    snapshot: &mut Snapshot,
    store: &Store<D>,
    budget: &mut Budget,
) -> base::Result<Option<Bytes>> {
    let piece = snapshot.next_piece(store, budget.bytes.clamp(1, PIECE_BYTES_MAX))?;
    budget.bytes = budget.bytes.saturating_sub(piece.as_ref().map_or(0, Bytes::len));
    Ok(piece)
}

impl SnapshotFile {
    pub(super) fn new(snapshot: Snapshot) -> SnapshotFile {
        SnapshotFile { snapshot, stage: Stage::Measure { bytes: 0 }, sha256: Sha256::new() }
    }

    pub(super) fn into_snapshot(self) -> Snapshot {
        self.snapshot
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Goes on; None where the budget allowed no more than to measure.
    pub(super) fn part<D: Disk>(
        &mut self,
        store: &Store<D>,
        budget: &mut Budget,
    ) -> base::Result<Option<Piece>> {
        while let Stage::Measure { bytes } = &mut self.stage {
            if budget.bytes == 0 {
                return Ok(None);
            }
            match next(&mut self.snapshot, store, budget)? {
                Some(piece) => *bytes += piece.len() as u64,
                None => {
                    self.stage = Stage::Send { left_bytes: bytes.next_multiple_of(BLOCK_BYTES) };
                    self.snapshot.rewind();
                }
            }
        }
        let Stage::Send { left_bytes } = &mut self.stage else { panic!("nothing follows the checksum") };
        if *left_bytes == 0 {
            self.stage = Stage::Over;
            let digest = std::mem::take(&mut self.sha256).finalize();
            return Ok(Some(Piece { bytes: Bytes::copy_from_slice(&digest), remaining_bytes: 0 }));
        }
        let bytes = match next(&mut self.snapshot, store, budget)? {
            Some(bytes) => bytes,
            None => Bytes::from_static(&[0; BLOCK_BYTES as usize]).slice(..*left_bytes as usize),
        };
        *left_bytes =
            left_bytes.checked_sub(bytes.len() as u64).expect("a pinned state stays as long as it is");
        self.sha256.update(&bytes);
        Ok(Some(Piece { bytes, remaining_bytes: *left_bytes }))
    }
}

/// Reads such a file in pieces: whether it is whole, and what it is of.
#[derive(Debug, Default)]
pub struct FileCheck {
    stream: StreamCheck,
    sha256: Sha256,
    bytes: u64,
    /// The last ones may be the checksum.
    held: Vec<u8>,
}

const SHA256_BYTES: usize = 32;

impl FileCheck {
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes += bytes.len() as u64;
        self.held.extend_from_slice(bytes);
        let rest = self.held.split_off(self.held.len().saturating_sub(SHA256_BYTES));
        let content = std::mem::replace(&mut self.held, rest);
        self.sha256.update(&content);
        self.stream.take(&content)
    }

    /// Nothing follows.
    pub fn finish(self) -> Result<StreamSummary, String> {
        let summary = self.stream.finish()?;
        if self.bytes % BLOCK_BYTES != SHA256_BYTES as u64 {
            return Err(format!("is {} bytes long; 512 n + 32 were expected", self.bytes));
        }
        if self.sha256.finalize()[..] != self.held[..] {
            return Err("differs from its SHA-256".into());
        }
        Ok(summary)
    }
}

/// The CRC-32C of a snapshot's stream.
#[derive(Debug)]
pub(super) struct WholeHash {
    snapshot: Snapshot,
    crc: u32,
}

impl WholeHash {
    pub(super) fn new(snapshot: Snapshot) -> WholeHash {
        WholeHash { snapshot, crc: 0 }
    }

    pub(super) fn into_snapshot(self) -> Snapshot {
        self.snapshot
    }

    /// Goes on; the hash, if it has come to the end.
    pub(super) fn part<D: Disk>(
        &mut self,
        store: &Store<D>,
        budget: &mut Budget,
    ) -> base::Result<Option<u32>> {
        while budget.bytes > 0 {
            match next(&mut self.snapshot, store, budget)? {
                Some(piece) => self.crc = crc32c_from(self.crc, &piece),
                None => return Ok(Some(self.crc)),
            }
        }
        Ok(None)
    }
}
