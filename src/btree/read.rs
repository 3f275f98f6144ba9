//! Point reads and counting.

use bytes::BufMut;

use crate::base::Result;
use crate::io::Disk;

use super::format::Root;
use super::node::{Descriptor, Node};
use super::tree::{PageBytes, Tree};
use super::{Cursor, RootNo, View};

/// A value: borrowed from its leaf, or in a chain of overflow pages that is read when asked for.
pub struct Value<'t, D: Disk> {
    tree: &'t Tree<D>,
    source: Source<'t, D>,
}

enum Source<'t, D: Disk> {
    Page { page: PageBytes<'t, D>, start: usize, end: usize },
    Slice(&'t [u8]),
    Chain(Descriptor),
}

impl<'t, D: Disk> Value<'t, D> {
    /// The value of a cell in a page that the value keeps.
    fn in_page(tree: &'t Tree<D>, page: PageBytes<'t, D>, index: usize) -> Value<'t, D> {
        let cell = Node::new(&page).leaf(index);
        let source = match cell.chain() {
            Some(descriptor) => Source::Chain(descriptor),
            None => {
                let start = cell.value.as_ptr() as usize - page.as_ptr() as usize;
                let end = start + cell.value.len();
                Source::Page { page, start, end }
            }
        };
        Value { tree, source }
    }

    /// The value of a cell in a page that somebody else keeps.
    pub(super) fn in_node(tree: &'t Tree<D>, node: Node<'t>, index: usize) -> Value<'t, D> {
        let cell = node.leaf(index);
        let source = match cell.chain() {
            Some(descriptor) => Source::Chain(descriptor),
            None => Source::Slice(cell.value),
        };
        Value { tree, source }
    }

    pub fn len(&self) -> usize {
        match &self.source {
            Source::Page { start, end, .. } => end - start,
            Source::Slice(slice) => slice.len(),
            Source::Chain(descriptor) => descriptor.value_bytes as usize,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, unless they are spread over a chain.
    pub fn as_slice(&self) -> Option<&[u8]> {
        match &self.source {
            Source::Page { page, start, end } => Some(&page[*start..*end]),
            Source::Slice(slice) => Some(slice),
            Source::Chain(_) => None,
        }
    }

    /// Shows the bytes piece by piece, in order. After an error some pieces may have been shown.
    pub fn for_each_chunk(&self, visit: impl FnMut(&[u8])) -> Result<()> {
        self.visit_range(0, u64::MAX, visit)
    }

    fn visit_range(&self, from: u64, to: u64, mut visit: impl FnMut(&[u8])) -> Result<()> {
        if let Source::Chain(descriptor) = self.source {
            let (key, value) = (u64::from(descriptor.key_bytes), u64::from(descriptor.value_bytes));
            return self.tree.visit_chain(descriptor, key + from.min(value), key + to.min(value), visit);
        }
        let slice = self.as_slice().expect("what is not in a chain is in one piece");
        let (from, to) = (from.min(slice.len() as u64) as usize, to.min(slice.len() as u64) as usize);
        visit(&slice[from..to]);
        Ok(())
    }

    /// The first `bytes` bytes (fewer if it is shorter), without reading the rest.
    pub fn start(&self, bytes: usize) -> Result<Vec<u8>> {
        let mut start = Vec::new();
        self.visit_range(0, bytes as u64, |chunk| start.extend_from_slice(chunk))?;
        Ok(start)
    }

    pub fn append_to(&self, out: &mut impl BufMut) -> Result<()> {
        self.for_each_chunk(|chunk| out.put_slice(chunk))
    }

    pub fn to_vec(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.for_each_chunk(|chunk| bytes.extend_from_slice(chunk))?;
        Ok(bytes)
    }
}

impl<D: Disk> Tree<D> {
    pub fn get(&self, view: View, root: RootNo, key: &[u8]) -> Result<Option<Value<'_, D>>> {
        let Some((page, index, true)) = self.find(self.view_roots(view)[root], key)? else { return Ok(None) };
        Ok(Some(Value::in_page(self, page, index)))
    }

    /// Whether the cell is counted; None if there is no such cell.
    pub fn counted(&self, view: View, root: RootNo, key: &[u8]) -> Result<Option<bool>> {
        let Some((page, index, true)) = self.find(self.view_roots(view)[root], key)? else { return Ok(None) };
        Ok(Some(Node::new(&page).leaf_counted(index)))
    }

    /// The leaf that covers `key`, the place in it, and whether the key is there.
    fn find(&self, top: Root, key: &[u8]) -> Result<Option<(PageBytes<'_, D>, usize, bool)>> {
        if top.link.is_none() {
            return Ok(None);
        }
        let mut link = top.link;
        for level in (1..=top.level).rev() {
            let page = self.node_page(link, level)?;
            let node = Node::new(&page);
            link = node.child(node.search_branch(key, |rest| self.compare_chain(rest, key))?);
        }
        let page = self.node_page(link, 0)?;
        let (index, found) = Node::new(&page).search_leaf(key, |rest| self.compare_chain(rest, key))?;
        Ok(Some((page, index, found)))
    }

    /// How many cells of `from..to` are counted (without `to`: of all from `from` on). Two descents: branches
    /// know the sums of what is below them.
    pub fn count(&self, view: View, root: RootNo, from: &[u8], to: Option<&[u8]>) -> Result<u64> {
        let top = self.view_roots(view)[root];
        let end = match to {
            Some(to) => self.counted_below(top, to)?,
            None => self.counted_in(top)?,
        };
        Ok(end.saturating_sub(self.counted_below(top, from)?))
    }

    fn counted_in(&self, top: Root) -> Result<u64> {
        if top.link.is_none() {
            return Ok(0);
        }
        Ok(Node::new(&self.node_page(top.link, top.level)?).counted_sum())
    }

    /// Counted cells with a key less than `key`.
    fn counted_below(&self, top: Root, key: &[u8]) -> Result<u64> {
        if top.link.is_none() {
            return Ok(0);
        }
        let (mut link, mut sum) = (top.link, 0u64);
        for level in (1..=top.level).rev() {
            let page = self.node_page(link, level)?;
            let node = Node::new(&page);
            let index = node.search_branch(key, |rest| self.compare_chain(rest, key))?;
            sum = sum.wrapping_add(node.counted_before(index));
            link = node.child(index);
        }
        let page = self.node_page(link, 0)?;
        let node = Node::new(&page);
        let (index, _) = node.search_leaf(key, |rest| self.compare_chain(rest, key))?;
        Ok(sum.wrapping_add(node.counted_before(index)))
    }

    /// A cursor on one key space, before its first move.
    pub fn cursor(&self, view: View, root: RootNo) -> Cursor<'_, D> {
        Cursor::new(self, root, self.view_roots(view)[root])
    }
}
