//! Cursors: a path of pages from a root to a cell, moved step by step.

use std::borrow::Cow;

use crate::base::{Result, planted};
use crate::io::Disk;

use super::RootNo;
use super::format::{Link, Root, page_checkpoint, page_no};
use super::node::Node;
use super::read::Value;
use super::tree::{Descent, PageBytes, Tree};
use super::write::{Found, Place, Spot};

/// A place in one root of one view. A move says whether it ended on a cell; behind the last cell and before
/// the first one the cursor is on none, and only a seek brings it back.
pub struct Cursor<'t, D: Disk> {
    tree: &'t Tree<D>,
    root: RootNo,
    top: Root,
    /// From the root down to the leaf; empty if the cursor is on no cell.
    path: Vec<(PageBytes<'t, D>, usize)>,
    /// Cells in the leaf, so that most moves look at no page.
    leaf_count: usize,
}

impl<'t, D: Disk> Cursor<'t, D> {
    pub(super) fn new(tree: &'t Tree<D>, root: RootNo, top: Root) -> Cursor<'t, D> {
        Cursor { tree, root, top, path: Vec::new(), leaf_count: 0 }
    }

    /// To the first cell with a key of at least `key`.
    pub fn seek(&mut self, key: &[u8]) -> Result<bool> {
        let (index, _) = self.descend_to(key)?;
        if index < self.leaf_count {
            return Ok(true);
        }
        self.next_leaf()
    }

    /// To the cell of `key`, if there is one, and the place where it is or belongs, for [`Tree::insert_at`]: who looks
    /// before a change descends once. For a cursor on the present state.
    pub fn seek_spot(&mut self, key: &[u8]) -> Result<Spot> {
        let (index, found) = self.descend_to(key)?;
        let mut path = Descent::new();
        for (page, index) in &self.path {
            self.tree.check_on_path(page_no(page), page, self.root)?;
            path.push(Link { page: page_no(page), born: page_checkpoint(page) as u32 }, *index);
        }
        let found = found.then(|| Found::in_leaf(self.leaf().0, index));
        if found.is_none() {
            self.path.clear();
        }
        Ok(self.tree.spot(self.root, Place { path, found }))
    }

    /// To the cell of `key`; false, and on no cell, if there is none.
    pub fn find(&mut self, key: &[u8]) -> Result<bool> {
        if self.steps_to(key) {
            return Ok(true);
        }
        let (_, found) = self.descend_to(key)?;
        if !found {
            self.path.clear();
        }
        Ok(found)
    }

    /// Who looks for one key after the other mostly wants the next cell: no search, and no page but this one.
    fn steps_to(&mut self, key: &[u8]) -> bool {
        let Some((page, index)) = self.path.last_mut().filter(|(_, index)| index + 1 < self.leaf_count)
        else {
            return false;
        };
        let next = Node::new(page).leaf(*index + 1).cell_key();
        let is_it = next.rest.is_none() && next.kept == key;
        *index += usize::from(is_it);
        is_it
    }

    /// To the last cell with a key less than `key`.
    pub fn seek_before(&mut self, key: &[u8]) -> Result<bool> {
        match self.descend_to(key)?.0.checked_sub(1) {
            Some(index) => {
                self.set_index(index);
                Ok(true)
            }
            None => self.prev_leaf(),
        }
    }

    pub fn first(&mut self) -> Result<bool> {
        self.path.clear();
        if self.top.link.is_none() {
            return Ok(false);
        }
        self.descend_edge(self.top.link, self.top.level, Edge::First)
    }

    pub fn last(&mut self) -> Result<bool> {
        self.path.clear();
        if self.top.link.is_none() {
            return Ok(false);
        }
        self.descend_edge(self.top.link, self.top.level, Edge::Last)
    }

    #[expect(clippy::should_implement_trait, reason = "it moves, and lends what it is on")]
    pub fn next(&mut self) -> Result<bool> {
        let Some((_, index)) = self.path.last_mut() else { return Ok(false) };
        *index += 1;
        if *index < self.leaf_count {
            return Ok(true);
        }
        self.next_leaf()
    }

    pub fn prev(&mut self) -> Result<bool> {
        let Some((_, index)) = self.path.last_mut() else { return Ok(false) };
        if *index > 0 {
            *index -= 1;
            return Ok(true);
        }
        self.prev_leaf()
    }

    /// Whether the cursor is on a cell. `key`, `value` and `counted` may be asked only then.
    pub fn valid(&self) -> bool {
        !self.path.is_empty()
    }

    /// The key; a copy only if it is too long for one page.
    pub fn key(&self) -> Result<Cow<'_, [u8]>> {
        let (node, index) = self.leaf();
        let key = node.leaf(index).cell_key();
        match key.rest {
            None => Ok(Cow::Borrowed(key.kept)),
            Some(rest) => Ok(Cow::Owned(self.tree.chain_key(rest)?)),
        }
    }

    pub fn value(&self) -> Value<'_, D> {
        let (node, index) = self.leaf();
        Value::in_node(self.tree, node, index)
    }

    pub fn counted(&self) -> bool {
        let (node, index) = self.leaf();
        node.leaf_counted(index)
    }

    fn leaf(&self) -> (Node<'_>, usize) {
        let (page, index) = self.path.last().expect("the cursor is on a cell");
        (Node::new(page), *index)
    }

    fn set_index(&mut self, index: usize) {
        self.path.last_mut().expect("the cursor is in a leaf").1 = index;
    }

    /// To the leaf that covers `key`, and to where the key is or would be; perhaps behind the leaf's last cell.
    /// And whether it is there.
    fn descend_to(&mut self, key: &[u8]) -> Result<(usize, bool)> {
        self.leaf_count = 0;
        if self.top.link.is_none() {
            return Ok((0, false));
        }
        let (tree, top) = (self.tree, self.top);
        let climbed = self.climb_for(key);
        let mut page = match self.checked(climbed)? {
            Some(page) => page,
            None => tree.node_page(top.link, top.level)?,
        };
        for level in (0..top.level - self.path.len() as u8).rev() {
            let node = Node::new(&page);
            let found = node.search_branch(key, |rest| tree.compare_chain(rest, key));
            let index = self.checked(found)?;
            let child = self.checked(tree.node_page(node.child(index), level))?;
            self.path.push((page, index));
            page = child;
        }
        let found = Node::new(&page).search_leaf(key, |rest| tree.compare_chain(rest, key));
        let (index, found) = self.checked(found)?;
        self.leaf_count = Node::new(&page).count();
        self.path.push((page, index));
        Ok((index, found))
    }

    /// Who looks for keys near each other need not begin at the root: takes pages off the path, from the leaf on, until one has
    /// keys on both sides of `key`, and takes that one too.
    fn climb_for(&mut self, key: &[u8]) -> Result<Option<PageBytes<'t, D>>> {
        let tree = self.tree;
        while let Some((page, _)) = self.path.pop() {
            let node = Node::new(&page);
            let is_inside = if self.path.len() == usize::from(self.top.level) {
                let (index, found) = node.search_leaf(key, |rest| tree.compare_chain(rest, key))?;
                found || (0 < index && index < node.count())
            } else {
                let index = node.search_branch(key, |rest| tree.compare_chain(rest, key))?;
                (0 < index || planted::on("tree-seek-stays-at-the-edge")) && index + 1 < node.count()
            };
            if is_inside {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    /// After an error the cursor is on no cell.
    fn checked<T>(&mut self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.path.clear();
            self.leaf_count = 0;
        }
        result
    }

    fn descend_edge(&mut self, mut link: Link, from_level: u8, edge: Edge) -> Result<bool> {
        let tree = self.tree;
        for level in (0..=from_level).rev() {
            let page = self.checked(tree.node_page(link, level))?;
            let node = Node::new(&page);
            let index = match edge {
                Edge::First => 0,
                Edge::Last => node.count() - 1,
            };
            if level == 0 {
                self.leaf_count = node.count();
            } else {
                link = node.child(index);
            }
            self.path.push((page, index));
        }
        Ok(true)
    }

    fn next_leaf(&mut self) -> Result<bool> {
        self.path.pop();
        while let Some((page, index)) = self.path.last_mut() {
            let node = Node::new(page);
            if *index + 1 < node.count() {
                *index += 1;
                let (child, level) = (node.child(*index), node.level() - 1);
                return self.descend_edge(child, level, Edge::First);
            }
            self.path.pop();
        }
        Ok(false)
    }

    fn prev_leaf(&mut self) -> Result<bool> {
        self.path.pop();
        while let Some((page, index)) = self.path.last_mut() {
            let node = Node::new(page);
            if *index > 0 {
                *index -= 1;
                let (child, level) = (node.child(*index), node.level() - 1);
                return self.descend_edge(child, level, Edge::Last);
            }
            self.path.pop();
        }
        Ok(false)
    }
}

#[derive(Clone, Copy)]
enum Edge {
    First,
    Last,
}
