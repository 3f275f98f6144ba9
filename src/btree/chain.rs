//! Overflow chains: a key and a value too long for a leaf, one after the other over as many pages as they
//! need. Each page names the next one, the first one and both lengths (T-22 … T-24), so a chain can be checked
//! page by page, and from its key the cell that owns it can be found again.

use std::cmp::Ordering;

use crate::base::Result;
use crate::io::Disk;

use super::RootNo;
use super::format::{CHAIN_DATA_AT, Kind, Link, PageNo, get_u16, get_u32, put_u16, put_u32, start_page};
use super::node::{CellKey, Descriptor};
use super::tree::{PageBytes, Tree};

const NEXT_AT: usize = 20;
const DATA_BYTES_AT: usize = 24;
const HEAD_AT: usize = 28;
const KEY_BYTES_AT: usize = 32;
const VALUE_BYTES_AT: usize = 36;

/// What every page of a chain says of the whole.
pub(super) fn chain_head(page: &[u8]) -> (PageNo, u32, u32) {
    (get_u32(page, HEAD_AT), get_u32(page, KEY_BYTES_AT), get_u32(page, VALUE_BYTES_AT))
}

/// Walks a chain, page by page.
pub(super) struct ChainReader<'t, D: Disk> {
    tree: &'t Tree<D>,
    descriptor: Descriptor,
    next: Link,
    left_bytes: u64,
}

impl<'t, D: Disk> ChainReader<'t, D> {
    pub(super) fn new(tree: &'t Tree<D>, descriptor: Descriptor) -> ChainReader<'t, D> {
        let left_bytes = u64::from(descriptor.key_bytes) + u64::from(descriptor.value_bytes);
        ChainReader { tree, descriptor, next: descriptor.chain, left_bytes }
    }

    /// The next page, and how many bytes of data it holds; None behind the last. Bounded by the lengths in
    /// the descriptor, each page giving at least one byte.
    pub(super) fn next_page(&mut self) -> Result<Option<(PageNo, PageBytes<'t, D>, usize)>> {
        if self.left_bytes == 0 {
            return Ok(None);
        }
        let (no, tree) = (self.next.page, self.tree);
        let page = tree.page(self.next, Kind::Overflow)?;
        let room = (page.len() - CHAIN_DATA_AT) as u64;
        let data = u64::from(get_u16(&page, DATA_BYTES_AT));
        if data != self.left_bytes.min(room) {
            let expected = format!("{} bytes of the chain", self.left_bytes.min(room));
            return Err(tree.damaged(no, format!("{data} bytes"), expected));
        }
        let of = (self.descriptor.chain.page, self.descriptor.key_bytes, self.descriptor.value_bytes);
        if chain_head(&page) != of {
            return Err(tree.damaged(no, format!("chain {:?}", chain_head(&page)), format!("{of:?}")));
        }
        self.left_bytes -= data;
        self.next.page = get_u32(&page, NEXT_AT);
        if (self.left_bytes == 0) != (self.next.page == 0) {
            let found = format!("next page {}, {} bytes to come", self.next.page, self.left_bytes);
            return Err(tree.damaged(no, found, "a chain as long as its lengths say"));
        }
        Ok(Some((no, page, data as usize)))
    }
}

impl<D: Disk> Tree<D> {
    /// Shows the bytes `from..to` of a chain, piece by piece.
    pub(super) fn visit_chain(
        &self,
        descriptor: Descriptor,
        from: u64,
        to: u64,
        mut visit: impl FnMut(&[u8]),
    ) -> Result<()> {
        let mut reader = ChainReader::new(self, descriptor);
        let mut at = 0;
        while at < to {
            let Some((_, page, data)) = reader.next_page()? else { break };
            let (start, end) = (from.max(at) - at, (to - at).min(data as u64));
            if start < end {
                visit(&page[CHAIN_DATA_AT + start as usize..CHAIN_DATA_AT + end as usize]);
            }
            at += data as u64;
        }
        Ok(())
    }

    /// The whole key of a cell whose key goes on in a chain.
    pub(super) fn chain_key(&self, descriptor: Descriptor) -> Result<Vec<u8>> {
        let mut key = Vec::new();
        self.visit_chain(descriptor, 0, u64::from(descriptor.key_bytes), |piece| {
            key.extend_from_slice(piece)
        })?;
        Ok(key)
    }

    pub(super) fn whole_key(&self, key: CellKey<'_>) -> Result<Vec<u8>> {
        match key.rest {
            None => Ok(key.kept.to_vec()),
            Some(rest) => self.chain_key(rest),
        }
    }

    /// How the key in a chain compares with `key`.
    pub(super) fn compare_chain(&self, descriptor: Descriptor, key: &[u8]) -> Result<Ordering> {
        let mut reader = ChainReader::new(self, descriptor);
        let (mut left, mut rest) = (descriptor.key_bytes as usize, key);
        while left > 0 {
            let Some((_, page, data)) = reader.next_page()? else { break };
            let piece = &page[CHAIN_DATA_AT..CHAIN_DATA_AT + data.min(left)];
            let common = piece.len().min(rest.len());
            match piece[..common].cmp(&rest[..common]) {
                Ordering::Equal if common < piece.len() => return Ok(Ordering::Greater),
                Ordering::Equal => {}
                order => return Ok(order),
            }
            rest = &rest[common..];
            left -= piece.len();
        }
        Ok(if rest.is_empty() { Ordering::Equal } else { Ordering::Less })
    }

    /// The pages of a chain that is about to be let go, in its order.
    pub(super) fn chain_pages(&self, descriptor: Descriptor) -> Result<Vec<PageNo>> {
        let mut reader = ChainReader::new(self, descriptor);
        let mut pages = Vec::new();
        while let Some((no, _, _)) = reader.next_page()? {
            self.check_in_use(no)?;
            pages.push(no);
        }
        Ok(pages)
    }

    /// Writes a new chain. If there is no room, nothing has changed.
    pub(super) fn write_chain(&mut self, root: RootNo, key: &[u8], value: &[&[u8]]) -> Result<Descriptor> {
        let value_bytes: usize = value.iter().map(|part| part.len()).sum();
        let room = self.page_bytes() - CHAIN_DATA_AT;
        let total = key.len() + value_bytes;
        let (Ok(key_bytes), Ok(value_length)) = (u32::try_from(key.len()), u32::try_from(value_bytes)) else {
            return Err(crate::base::Error::Refused(format!("a cell of {total} bytes: lengths are 32 bits")));
        };
        let mut pages = Vec::with_capacity(total.div_ceil(room));
        for _ in 0..total.div_ceil(room) {
            match self.new_page() {
                Ok(no) => pages.push(no),
                Err(full) => {
                    pages.into_iter().for_each(|no| self.release(no));
                    return Err(full);
                }
            }
        }
        let (checkpoint, born) = (self.checkpoint_number(), self.born());
        let mut parts = std::iter::once(key).chain(value.iter().copied());
        let mut part: &[u8] = parts.next().unwrap_or_default();
        for (index, &no) in pages.iter().enumerate() {
            let page = self.page_mut(no);
            start_page(page, no, checkpoint, Kind::Overflow, 0, root as u8);
            let data = room.min(total - index * room);
            put_u32(page, NEXT_AT, pages.get(index + 1).copied().unwrap_or(0));
            put_u16(page, DATA_BYTES_AT, data as u16);
            put_u32(page, HEAD_AT, pages[0]);
            put_u32(page, KEY_BYTES_AT, key_bytes);
            put_u32(page, VALUE_BYTES_AT, value_length);
            let mut to = &mut page[CHAIN_DATA_AT..CHAIN_DATA_AT + data];
            while !to.is_empty() {
                while part.is_empty() {
                    part = parts.next().expect("the parts are as long as their sum");
                }
                let (now, later) = to.split_at_mut(part.len().min(to.len()));
                now.copy_from_slice(&part[..now.len()]);
                (part, to) = (&part[now.len()..], later);
            }
        }
        Ok(Descriptor { key_bytes, value_bytes: value_length, chain: Link { page: pages[0], born } })
    }
}
