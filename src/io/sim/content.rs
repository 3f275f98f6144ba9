//! A file's bytes as a persistent value: chunks shared by all copies, so that a crash image costs pointers.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::base::Rng;

pub(super) const CHUNK_BYTES: usize = 4096;
type Chunk = Arc<[u8]>;

/// Bytes and a length. Bytes may stand behind the length while an image is being put together (the write
/// survived, the size change did not); [`Content::trim`] ends that.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// None reads as zeroes and takes no room: a hole.
    chunks: Arc<Vec<Option<Chunk>>>,
    len_bytes: u64,
    present: u64,
}

impl Content {
    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Room taken on the disk.
    pub(super) fn used_bytes(&self) -> u64 {
        self.present * CHUNK_BYTES as u64
    }

    /// Room that a write of `offset..offset + len` would take in addition.
    pub(super) fn missing_bytes(&self, offset: u64, len: u64) -> u64 {
        let missing = chunk_range(offset, len).filter(|i| !matches!(self.chunks.get(*i), Some(Some(_))));
        missing.count() as u64 * CHUNK_BYTES as u64
    }

    /// Fills `buf` from `offset` up to the length; how many bytes that were.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let end = self.len_bytes.min(offset.saturating_add(buf.len() as u64));
        let count = end.saturating_sub(offset) as usize;
        for (index, inside, outside) in pieces(offset, count) {
            match self.chunks.get(index) {
                Some(Some(chunk)) => buf[outside].copy_from_slice(&chunk[inside]),
                _ => buf[outside].fill(0),
            }
        }
        count
    }

    /// Whether the other reads the same.
    pub(super) fn reads_as(&self, other: &Content) -> bool {
        let (mut ours, mut theirs) = ([0; CHUNK_BYTES], [0; CHUNK_BYTES]);
        self.len_bytes == other.len_bytes
            && (0..self.len_bytes).step_by(CHUNK_BYTES).all(|offset| {
                let count = self.read(offset, &mut ours);
                other.read(offset, &mut theirs);
                ours[..count] == theirs[..count]
            })
    }

    /// Puts bytes in their place without touching the length.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (index, inside, outside) in pieces(offset, bytes.len()) {
            let chunk = self.chunk_mut(index);
            Arc::make_mut(chunk)[inside].copy_from_slice(&bytes[outside]);
        }
    }

    /// Takes room for a range without changing what it reads as.
    pub(super) fn reserve(&mut self, offset: u64, len: u64) {
        for index in chunk_range(offset, len) {
            self.chunk_mut(index);
        }
    }

    pub(super) fn grow(&mut self, len_bytes: u64) {
        self.len_bytes = self.len_bytes.max(len_bytes);
    }

    /// Cuts or extends; what is behind a cut is gone for good.
    pub(super) fn set_len(&mut self, len_bytes: u64) {
        self.len_bytes = len_bytes;
        self.trim();
    }

    /// Forgets bytes behind the length.
    pub(super) fn trim(&mut self) {
        let whole = usize::try_from(self.len_bytes.div_ceil(CHUNK_BYTES as u64)).expect("a small file");
        if self.chunks.len() > whole {
            let chunks = Arc::make_mut(&mut self.chunks);
            self.present -= chunks[whole..].iter().flatten().count() as u64;
            chunks.truncate(whole);
        }
        let tail = (self.len_bytes % CHUNK_BYTES as u64) as usize;
        if tail == 0 {
            return;
        }
        let last_is_dirty =
            matches!(self.chunks.get(whole - 1), Some(Some(c)) if c[tail..].iter().any(|b| *b != 0));
        if last_is_dirty {
            let last = Arc::make_mut(&mut self.chunks)[whole - 1].as_mut().expect("it is there");
            Arc::make_mut(last)[tail..].fill(0);
        }
    }

    /// A range lent for reading, zeroes behind the length; shared without a copy inside one chunk.
    pub(super) fn lend(&self, offset: u64, len: usize) -> SimPage {
        let start = (offset % CHUNK_BYTES as u64) as usize;
        if let Some(Some(chunk)) = self.chunks.get((offset / CHUNK_BYTES as u64) as usize)
            && start + len <= CHUNK_BYTES
        {
            return SimPage { bytes: chunk.clone(), range: start..start + len };
        }
        let mut bytes = vec![0; len];
        self.read(offset, &mut bytes);
        SimPage { bytes: bytes.into(), range: 0..len }
    }

    fn chunk_mut(&mut self, index: usize) -> &mut Chunk {
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.len() <= index {
            chunks.resize(index + 1, None);
        }
        let slot = &mut chunks[index];
        if slot.is_none() {
            self.present += 1;
        }
        slot.get_or_insert_with(|| Arc::from([0u8; CHUNK_BYTES]))
    }
}

/// Bytes lent by a simulated mapping. They stay as they were when they were lent.
#[derive(Clone, Debug)]
pub struct SimPage {
    bytes: Arc<[u8]>,
    range: Range<usize>,
}

impl Deref for SimPage {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

fn chunk_range(offset: u64, len: u64) -> Range<usize> {
    let end = offset.checked_add(len).expect("checked by the caller").div_ceil(CHUNK_BYTES as u64);
    (offset / CHUNK_BYTES as u64) as usize..end as usize
}

/// `offset..offset + len` cut at the chunks: chunk number, range within it, range within the buffer.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let start = (at % CHUNK_BYTES as u64) as usize;
        let step = (CHUNK_BYTES - start).min(len - done);
        let piece = ((at / CHUNK_BYTES as u64) as usize, start..start + step, done..done + step);
        done += step;
        Some(piece)
    })
}

pub(super) fn garbage(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain vector of bytes.
    #[test]
    fn content_is_a_vector_of_bytes() {
        let mut rng = Rng::new(3);
        let mut model: Vec<u8> = Vec::new();
        let mut content = Content::default();
        let mut copies = Vec::new();
        for round in 0..400u64 {
            let offset = rng.below(20_000) as usize;
            let len = rng.below(9_000) as usize;
            match rng.below(4) {
                0 => {
                    model.resize(offset, 0);
                    content.set_len(offset as u64);
                }
                1 => content.reserve(offset as u64, len as u64),
                _ => {
                    let bytes = garbage(round, len);
                    if model.len() < offset + len {
                        model.resize(offset + len, 0);
                    }
                    model[offset..offset + len].copy_from_slice(&bytes);
                    content.write(offset as u64, &bytes);
                    content.grow((offset + len) as u64);
                }
            }
            if round % 50 == 0 {
                copies.push((content.clone(), model.clone()));
            }
        }
        copies.push((content, model));
        for (content, model) in copies {
            assert_eq!(content.len_bytes(), model.len() as u64);
            let mut all = vec![1; model.len() + 10];
            assert_eq!(content.read(0, &mut all), model.len());
            assert_eq!(&all[..model.len()], &model[..]);
            for at in (0..model.len().saturating_sub(5_000)).step_by(777) {
                assert_eq!(&content.lend(at as u64, 5_000)[..], &model[at..at + 5_000]);
                assert_eq!(&content.lend(at as u64, 3)[..], &model[at..at + 3]);
            }
            let present = content.chunks.iter().flatten().count() as u64;
            assert_eq!(content.used_bytes(), present * CHUNK_BYTES as u64);
        }
    }
}
