//! Changes: insert, remove, mark. Each reads its way down first, and changes nothing until everything that
//! could be damaged has been read; then it makes the path writable from the root down, and works upwards.

use std::cmp::Ordering;

use crate::base::Result;
use crate::base::planted;
use crate::io::Disk;

use super::RootNo;
use super::format::{Kind, LEVELS_MAX, Link, PageNo, Root, page_level, start_page};
use super::node::{
    CellKey, DESCRIPTOR_BYTES, Descriptor, FLAG_COUNTED, Fit, Node, NodeMut, branch_cell, build_branch,
    build_leaf_chained, build_leaf_inline, leaf_cell,
};
use super::tree::{Descent, Step, Tree};

/// A page that uses less than this part of its room looks for a neighbour to join.
const UNDERFULL_PART: usize = 4;

/// A place for a cell of the key: where it is, or where it belongs.
pub(super) struct Place {
    /// Empty if the key space is.
    pub path: Descent,
    pub found: Option<Found>,
}

/// What a leaf holds for a key.
pub(super) struct Found {
    counted: bool,
    chain: Option<Descriptor>,
}

impl Found {
    pub(super) fn in_leaf(node: Node<'_>, index: usize) -> Found {
        let cell = node.leaf(index);
        Found { counted: cell.counted(), chain: cell.chain() }
    }
}

/// Where a key is or belongs, from [`Cursor::seek_spot`](super::Cursor::seek_spot). Good until the next change.
pub struct Spot {
    root: RootNo,
    place: Place,
    change_count: u64,
}

impl Spot {
    /// Whether the key is there.
    pub fn is_taken(&self) -> bool {
        self.place.found.is_some()
    }
}

impl<D: Disk> Tree<D> {
    /// Puts a cell; its value is the concatenation of `value`. Replaces what the key held.
    ///
    /// An error here (as in the other changes) means damage found in the file, or a file with as many pages
    /// as it can number. The change may be half done in memory: no checkpoint will be taken any more.
    pub fn insert(&mut self, root: RootNo, key: &[u8], value: &[&[u8]], counted: bool) -> Result<()> {
        let place = self.place(root, key);
        let result = place.and_then(|place| self.put(root, place, key, value, counted));
        self.guard(result)
    }

    /// As [`Tree::insert`], for a key that is likely to come after all others: looks there first, without a
    /// search.
    pub fn append(&mut self, root: RootNo, key: &[u8], value: &[&[u8]], counted: bool) -> Result<()> {
        let place = self.end_place(root, key).and_then(|place| match place {
            Some(place) => Ok(place),
            None => self.place(root, key),
        });
        let result = place.and_then(|place| self.put(root, place, key, value, counted));
        self.guard(result)
    }

    /// As [`Tree::insert`], at the spot where the key is or belongs.
    pub fn insert_at(&mut self, spot: Spot, key: &[u8], value: &[&[u8]], counted: bool) -> Result<()> {
        assert_eq!(spot.change_count, self.change_count(), "a spot is good until the next change");
        let result = self.put(spot.root, spot.place, key, value, counted);
        self.guard(result)
    }

    /// Takes a cell away. Whether there was one.
    pub fn remove(&mut self, root: RootNo, key: &[u8]) -> Result<bool> {
        let result = self.try_remove(root, key);
        self.guard(result)
    }

    fn put(&mut self, root: RootNo, place: Place, key: &[u8], value: &[&[u8]], counted: bool) -> Result<()> {
        let mut cell = self.take_scratch();
        if self.roots[root].link.is_none() {
            self.build_cell(root, &mut cell, key, value, counted)?;
            let page = self.new_node(root, 0)?;
            assert!(NodeMut::new(self.page_mut(page)).insert(0, &cell), "any cell fits in an empty page");
            self.roots[root] = Root { link: self.link_to(page), level: 0 };
            return Ok(());
        }
        let Place { mut path, found } = place;
        let old_chain = match found.as_ref().and_then(|found| found.chain) {
            Some(chain) => self.chain_pages(chain)?,
            None => Vec::new(),
        };
        self.build_cell(root, &mut cell, key, value, counted)?;
        self.make_writable(root, &mut path)?;
        old_chain
            .into_iter()
            .skip(usize::from(planted::on("tree-chain-page-leaks")))
            .for_each(|no| self.release(no));
        let leaf = path[path.len() - 1];
        let delta = i64::from(counted) - found.as_ref().map_or(0, |found| i64::from(found.counted));
        let mut node = NodeMut::new(self.page_mut(leaf.link.page));
        let fits = match found {
            Some(_) => node.replace(leaf.index, &cell),
            None => node.insert(leaf.index, &cell),
        };
        self.add_counted(&path, delta);
        if fits {
            self.keep_scratch(cell);
        } else {
            self.split_upwards(root, &path, cell)?;
        }
        if found.is_none() {
            self.run_mut(leaf.link.page).note(leaf.index);
        } else if fits {
            self.join_upwards(root, path)?;
        }
        Ok(())
    }

    fn try_remove(&mut self, root: RootNo, key: &[u8]) -> Result<bool> {
        if self.roots[root].link.is_none() {
            return Ok(false);
        }
        let Place { mut path, found: Some(found) } = self.place(root, key)? else { return Ok(false) };
        let chain = match found.chain {
            Some(chain) => self.chain_pages(chain)?,
            None => Vec::new(),
        };
        self.make_writable(root, &mut path)?;
        chain.into_iter().for_each(|no| self.release(no));
        let leaf = path[path.len() - 1];
        NodeMut::new(self.page_mut(leaf.link.page)).remove(leaf.index);
        self.add_counted(&path, -i64::from(found.counted));
        self.join_upwards(root, path)?;
        Ok(true)
    }

    fn place(&self, root: RootNo, key: &[u8]) -> Result<Place> {
        if self.roots[root].link.is_none() {
            return Ok(Place { path: Descent::new(), found: None });
        }
        let mut path = self.path_to(root, key, 0)?;
        let bottom = path.len() - 1;
        let page = self.node_page(path[bottom].link, 0)?;
        let node = Node::new(&page);
        let (index, found) = node.search_leaf(key, |rest| self.compare_chain(rest, key))?;
        path[bottom].index = index;
        Ok(Place { path, found: found.then(|| Found::in_leaf(node, index)) })
    }

    /// The place behind the last cell, if `key` comes after that.
    fn end_place(&self, root: RootNo, key: &[u8]) -> Result<Option<Place>> {
        let Root { mut link, level: top } = self.roots[root];
        if link.is_none() {
            return Ok(None);
        }
        let mut path = Descent::new();
        for level in (0..=top).rev() {
            let page = self.node_page(link, level)?;
            self.check_on_path(link.page, &page, root)?;
            let node = Node::new(&page);
            let count = node.count();
            if level > 0 {
                path.push(link, count - 1);
                link = node.child(count - 1);
                continue;
            }
            path.push(link, count);
            let last = node.leaf(count - 1).cell_key();
            if last.rest.is_some() || last.kept >= key {
                return Ok(None);
            }
        }
        Ok(Some(Place { path, found: None }))
    }

    pub(super) fn spot(&self, root: RootNo, place: Place) -> Spot {
        Spot { root, place, change_count: self.change_count() }
    }

    fn build_cell(
        &mut self,
        root: RootNo,
        cell: &mut Vec<u8>,
        key: &[u8],
        value: &[&[u8]],
        counted: bool,
    ) -> Result<()> {
        let flags = if counted { FLAG_COUNTED } else { 0 };
        let value_bytes: usize = value.iter().map(|part| part.len()).sum();
        let fit = self.fit();
        if fit.inline(key.len(), value_bytes) {
            build_leaf_inline(cell, flags, key, value);
        } else {
            let descriptor = self.write_chain(root, key, value)?;
            build_leaf_chained(cell, flags, fit.kept(key), descriptor);
        }
        Ok(())
    }

    fn link_to(&self, page: PageNo) -> Link {
        Link { page, born: self.born() }
    }

    fn new_node(&mut self, root: RootNo, level: u8) -> Result<PageNo> {
        let page = self.new_page()?;
        let checkpoint = self.checkpoint_number();
        let kind = if level == 0 { Kind::Leaf } else { Kind::Branch };
        start_page(self.page_mut(page), page, checkpoint, kind, level, root as u8);
        Ok(page)
    }

    // ---- copy on write -----------------------------------------------------------------------------------

    /// Makes every page of a path changeable in place. After an error the tree means what it meant before.
    pub(super) fn make_writable(&mut self, root: RootNo, path: &mut Descent) -> Result<()> {
        // A page is made writable after the page above it, so a writable leaf has a writable path.
        if self.is_writable(path[path.len() - 1].link.page) {
            return Ok(());
        }
        for depth in 0..path.len() {
            if !self.is_writable(path[depth].link.page) {
                self.renew(root, path, depth)?;
            }
        }
        Ok(())
    }

    /// Moves the `depth`th page of a path to a new place; the page above it is writable.
    pub(super) fn renew(&mut self, root: RootNo, path: &mut Descent, depth: usize) -> Result<()> {
        let link = path[depth].link;
        let kind = if usize::from(self.roots[root].level) == depth { Kind::Leaf } else { Kind::Branch };
        let page = self.copy_page(link, kind)?;
        let new = self.link_to(page);
        if depth == 0 {
            self.roots[root].link = new;
        } else {
            let above = path[depth - 1];
            NodeMut::new(self.page_mut(above.link.page)).set_child(above.index, new);
        }
        self.release(link.page);
        path[depth].link = new;
        Ok(())
    }

    /// Adds to the sums along a writable path.
    fn add_counted(&mut self, path: &Descent, delta: i64) {
        if delta == 0 || planted::on("tree-counts-not-kept") {
            return;
        }
        for step in &path[..path.len() - 1] {
            let mut node = NodeMut::new(self.page_mut(step.link.page));
            let sum = node.as_node().child_counted(step.index);
            node.set_counted_sum(step.index, sum.wrapping_add_signed(delta));
        }
    }

    // ---- growing -----------------------------------------------------------------------------------------

    /// Puts `cell` at the end of the path by splitting its leaf, then by putting the new page's separator
    /// into the page above, which may have to be split too, and so on. What is above has been counted already.
    fn split_upwards(&mut self, root: RootNo, path: &Descent, mut cell: Vec<u8>) -> Result<()> {
        for depth in (0..path.len()).rev() {
            let step = path[depth];
            let index = if depth == path.len() - 1 { step.index } else { step.index + 1 };
            if depth < path.len() - 1 && NodeMut::new(self.page_mut(step.link.page)).insert(index, &cell) {
                return Ok(());
            }
            let at_end = path[..depth].iter().all(|above| {
                let node = Node::new(self.writable_page(above.link.page).expect("the path is writable"));
                above.index + 1 == node.count()
            });
            let split = self.split(root, step.link.page, index, &cell, at_end)?;
            if depth > 0 {
                let above = path[depth - 1];
                if !planted::on("tree-split-keeps-count") {
                    NodeMut::new(self.page_mut(above.link.page))
                        .set_counted_sum(above.index, split.left_counted);
                }
                cell = split.separator;
            } else {
                self.raise_root(root, step.link.page, split)?;
            }
        }
        Ok(())
    }

    fn raise_root(&mut self, root: RootNo, left: PageNo, split: Split) -> Result<()> {
        let level = self.roots[root].level + 1;
        if usize::from(level) >= LEVELS_MAX {
            return Err(self.damaged(
                left,
                format!("a root at level {}", level - 1),
                "fewer levels than pages",
            ));
        }
        let page = self.new_node(root, level)?;
        let mut first = Vec::new();
        let nothing = CellKey { kept: &[], rest: None };
        build_branch(&mut first, self.link_to(left), split.left_counted, nothing);
        let mut node = NodeMut::new(self.page_mut(page));
        let fits = node.insert(0, &first) && node.insert(1, &split.separator);
        assert!(fits, "four branch cells fit in any page");
        self.roots[root] = Root { link: self.link_to(page), level };
        Ok(())
    }

    /// Divides a page and `cell`, which goes before the `index`th, into the page and a new one to its right.
    fn split(
        &mut self,
        root: RootNo,
        left: PageNo,
        index: usize,
        cell: &[u8],
        at_end: bool,
    ) -> Result<Split> {
        let old = self.writable_page(left).expect("a page is made writable before it is split").to_vec();
        let node = Node::new(&old);
        let raw = |at: usize| match at.cmp(&index) {
            Ordering::Less => node.raw(at),
            Ordering::Equal => cell,
            Ordering::Greater => node.raw(at - 1),
        };
        let sizes: Vec<usize> = (0..=node.count()).map(|at| raw(at).len() + 2).collect();
        let run = node.is_leaf() && self.run_mut(left).goes_on(index);
        let cut = split_place(&sizes, self.fit().usable, index, run || (at_end && index == node.count()));

        let right = self.new_node(root, page_level(&old))?;
        let separator = if node.is_leaf() {
            let mut ends = [Vec::new(), Vec::new()];
            for (end, at) in ends.iter_mut().zip([cut - 1, cut]) {
                *end = self.whole_key(leaf_cell(raw(at)).cell_key())?;
            }
            let [last, first] = ends;
            Key::Made(shortest_separator(&last, &first))
        } else {
            Key::Moved(raw(cut).to_vec())
        };
        let mut first_right = raw(cut).to_vec();
        if !node.is_leaf() {
            let taken = branch_cell(&first_right);
            let nothing = CellKey { kept: &[], rest: None };
            let (child, counted) = (taken.child, taken.counted);
            build_branch(&mut first_right, child, counted, nothing);
        }
        let mut page = NodeMut::new(self.page_mut(right));
        for at in cut..sizes.len() {
            let cell = if at == cut { &first_right } else { raw(at) };
            assert!(page.insert(at - cut, cell), "the right part fits");
        }
        let right_counted = page.as_node().counted_sum();
        let mut page = NodeMut::new(self.page_mut(left));
        page.clear();
        for at in 0..cut {
            assert!(page.insert(at, raw(at)), "the left part fits");
        }
        let left_counted = page.as_node().counted_sum();
        let separator = self.separator_cell(root, right, right_counted, separator)?;
        Ok(Split { left_counted, separator })
    }

    fn separator_cell(&mut self, root: RootNo, right: PageNo, counted: u64, key: Key) -> Result<Vec<u8>> {
        let (mut cell, child) = (Vec::new(), self.link_to(right));
        match &key {
            Key::Moved(old) => build_branch(&mut cell, child, counted, branch_cell(old).key),
            Key::Made(key) => {
                let fit = self.fit();
                let rest =
                    if key.len() > fit.key_max { Some(self.write_chain(root, key, &[])?) } else { None };
                build_branch(&mut cell, child, counted, CellKey { kept: fit.kept(key), rest });
            }
        }
        Ok(cell)
    }

    // ---- shrinking ---------------------------------------------------------------------------------------

    /// Joins pages that have become too empty with a neighbour, from the leaf upwards, and takes levels away
    /// that hold one page only. An error leaves the tree whole, only less full than it could be.
    fn join_upwards(&mut self, root: RootNo, mut path: Descent) -> Result<()> {
        for depth in (1..path.len()).rev() {
            let node = Node::new(self.writable_page(path[depth].link.page).expect("the path is writable"));
            let (count, used) = (node.count(), node.used_bytes());
            if count == 0 {
                let page = path[depth].link.page;
                self.remove_child(path[depth - 1])?;
                self.release(page);
            } else if used >= self.fit().usable / UNDERFULL_PART || !self.join(root, &mut path, depth)? {
                break;
            }
        }
        self.lower_root(root)
    }

    fn lower_root(&mut self, root: RootNo) -> Result<()> {
        loop {
            let Root { link, level } = self.roots[root];
            let page = self.node_page(link, level)?;
            let node = Node::new(&page);
            let lower = match (node.count(), level) {
                (0, _) => Root::default(),
                (1, 1..) => Root { link: node.child(0), level: level - 1 },
                _ => return Ok(()),
            };
            drop(page);
            self.roots[root] = lower;
            self.release(link.page);
            if self.roots[root].link.is_none() {
                return Ok(());
            }
        }
    }

    /// Takes the cell of a child out of a branch; the chain of its separator goes with it. The separator of
    /// a branch's first cell stands for "before all" and is empty.
    fn remove_child(&mut self, step: Step) -> Result<()> {
        let node = Node::new(self.writable_page(step.link.page).expect("the path is writable"));
        // The cell whose separator disappears: the child's own, or the one that becomes the first.
        let goes = if step.index > 0 { Some(step.index) } else { (node.count() > 1).then_some(1) };
        let chain = match goes.and_then(|index| node.branch(index).key.rest) {
            Some(rest) => self.chain_pages(rest)?,
            None => Vec::new(),
        };
        let mut node = NodeMut::new(self.page_mut(step.link.page));
        node.remove(step.index);
        if step.index == 0 && goes.is_some() {
            let (mut cell, first) = (Vec::new(), node.as_node().branch(0));
            build_branch(&mut cell, first.child, first.counted, CellKey { kept: &[], rest: None });
            assert!(node.replace(0, &cell), "a shorter cell fits");
        }
        chain.into_iter().for_each(|no| self.release(no));
        Ok(())
    }

    /// Joins the `depth`th page of a path with a neighbour under the same branch, if one has the room.
    fn join(&mut self, root: RootNo, path: &mut Descent, depth: usize) -> Result<bool> {
        let above = path[depth - 1];
        let branch = Node::new(self.writable_page(above.link.page).expect("the path is writable"));
        let level = branch.level() - 1;
        for left in [above.index.checked_sub(1), Some(above.index)].into_iter().flatten() {
            let branch = Node::new(self.writable_page(above.link.page).expect("the path is writable"));
            if left + 1 >= branch.count() {
                continue;
            }
            let (separator, right) = (branch.branch(left + 1).key, branch.child(left + 1));
            self.check_in_use(branch.child(left).page)?;
            self.check_in_use(right.page)?;
            let mut separator_cell = Vec::new();
            build_branch(&mut separator_cell, right, 0, separator);
            let mut used = Node::new(&self.node_page(branch.child(left), level)?).used_bytes()
                + Node::new(&self.node_page(right, level)?).used_bytes();
            if level > 0 {
                used += separator.kept.len() + DESCRIPTOR_BYTES;
            }
            // Some room stays, so that the next insert does not split what was just joined.
            let usable = self.fit().usable;
            if used > usable - usable / 8 {
                continue;
            }
            path[depth - 1].index = left;
            return self.join_pair(root, path, depth, separator_cell).map(|()| true);
        }
        Ok(false)
    }

    /// Moves the cells of the page to the right of a path's `depth`th page into that page.
    fn join_pair(
        &mut self,
        root: RootNo,
        path: &mut Descent,
        depth: usize,
        separator_cell: Vec<u8>,
    ) -> Result<()> {
        let above = path[depth - 1];
        let branch = Node::new(self.writable_page(above.link.page).expect("the path is writable"));
        let (level, left, right) =
            (branch.level() - 1, branch.child(above.index), branch.child(above.index + 1));
        let old = self.node_page(right, level)?.to_vec();
        let chain = match branch.branch(above.index + 1).key.rest {
            // In a leaf the separator is not needed any more; in a branch it comes down.
            Some(rest) if level == 0 => self.chain_pages(rest)?,
            _ => Vec::new(),
        };
        path[depth].link = left;
        if !self.is_writable(left.page) {
            self.renew(root, path, depth)?;
        }
        let node = Node::new(&old);
        let mut target = NodeMut::new(self.page_mut(path[depth].link.page));
        for index in 0..node.count() {
            let mut first = Vec::new();
            let cell = if level > 0 && index == 0 {
                let moved = node.branch(0);
                build_branch(&mut first, moved.child, moved.counted, branch_cell(&separator_cell).key);
                &first
            } else {
                node.raw(index)
            };
            let end = target.as_node().count();
            assert!(target.insert(end, cell), "both fit in one page: that was looked at before");
        }
        let sum = target.as_node().counted_sum();
        let mut branch = NodeMut::new(self.page_mut(above.link.page));
        branch.remove(above.index + 1);
        branch.set_counted_sum(above.index, sum);
        chain.into_iter().for_each(|no| self.release(no));
        self.release(right.page);
        Ok(())
    }
}

/// The result of dividing a page.
struct Split {
    left_counted: u64,
    /// The cell for the branch above.
    separator: Vec<u8>,
}

/// The key of a new separator: made for it, or moved up with the branch cell (and its chain) that had it.
enum Key {
    Made(Vec<u8>),
    Moved(Vec<u8>),
}

/// How many cells go to the left. Both parts must fit. A run of rising keys fills pages to the brim;
/// otherwise the halves are as equal as can be.
fn split_place(sizes: &[usize], usable: usize, index: usize, rising: bool) -> usize {
    let total: usize = sizes.iter().sum();
    let fits =
        |cut: usize, left: usize| cut > 0 && cut < sizes.len() && left <= usable && total - left <= usable;
    let mut left = 0;
    let (mut best, mut best_difference) = (0, usize::MAX);
    for (cut, size) in sizes.iter().enumerate() {
        // Before the new cell if it is the last, behind it otherwise: the next one comes there.
        let wanted = if index + 1 == sizes.len() { index } else { index + 1 };
        if fits(cut, left) {
            if rising && cut == wanted {
                return cut;
            }
            let difference = left.abs_diff(total - left);
            if difference < best_difference {
                (best, best_difference) = (cut, difference);
            }
        }
        left += size;
    }
    assert!(best > 0, "two cells fit in any page, so there is a place to split");
    best
}

/// The shortest key that is greater than `last` and not greater than `first`.
fn shortest_separator(last: &[u8], first: &[u8]) -> Vec<u8> {
    let common = last.iter().zip(first).take_while(|(a, b)| a == b).count();
    first[..(common + 1).min(first.len())].to_vec()
}

// Sizes that the asserts above stand on.
const _: () = {
    let fit = Fit::new(super::format::PAGE_BYTES_MIN);
    // A chained cell is never larger than an inline one may be.
    assert!(5 + fit.key_start + 16 <= fit.leaf_cell_max);
    assert!(5 + fit.key_max + 16 <= fit.leaf_cell_max);
    assert!(fit.key_start > 0);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_short_and_separate() {
        for (last, first, wanted) in [
            ("a", "b", "b"),
            ("abc", "abd", "abd"),
            ("abc", "abde", "abd"),
            ("", "x", "x"),
            ("a", "ab", "ab"),
        ] {
            let separator = shortest_separator(last.as_bytes(), first.as_bytes());
            assert_eq!(separator, wanted.as_bytes());
            assert!(last.as_bytes() < &separator[..] && &separator[..] <= first.as_bytes());
        }
    }

    #[test]
    fn splits_fit_and_follow_a_run() {
        assert_eq!(split_place(&[100; 11], 1000, 10, true), 10);
        assert_eq!(split_place(&[100; 11], 1000, 4, true), 5);
        assert_eq!(split_place(&[100; 11], 1000, 4, false), 5);
        // A large cell between small ones.
        assert_eq!(split_place(&[10, 500, 490, 10, 10], 1000, 1, false), 2);
    }
}
