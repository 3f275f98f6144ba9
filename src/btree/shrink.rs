//! Giving space back. Pages at the end of the file move into free room further down, a few with every
//! checkpoint; once neither meta slot nor a view reaches the old places, the end of the file is free, and the
//! next checkpoint cuts it off.
//!
//! To move a page, the link to it must be found, and pages do not know who links to them. But each page names
//! its root, and holds a key of its range: descending to that key passes the link.
//!
//! A move copies the path above as well, and is made only if there is room below the page for all of it. So it
//! ends: no page of the moved one's level goes up by it, only branches above may, and they come later.

use crate::base::Result;
use crate::io::Disk;

use super::RootNo;
use super::chain::chain_head;
use super::format::{Kind, Link, PageNo, page_checkpoint, page_level, page_root};
use super::node::{Descriptor, Node, NodeMut, build_branch, build_leaf_chained, leaf_cell};
use super::tree::{Descent, Tree};

/// Pages moved with one checkpoint: well below a millisecond.
const MOVES_PER_CHECKPOINT: usize = 128;
/// Longer chains are left to [`Tree::move_tail`]: they move as a whole.
const CHAIN_PAGES_MAX: usize = 1024;
/// Free pages below this number are not worth the work.
const FREE_PAGES_MIN: usize = 64;

impl<D: Disk> Tree<D> {
    /// Moves up to `pages_max` pages (a chain counts by its pages, and is moved whole) from the end of the
    /// file into free room further down. How many were moved: none means that there is nothing to gain now.
    /// The checkpoints after this give the space back.
    pub fn move_tail(&mut self, pages_max: usize) -> Result<usize> {
        let result = self.try_move_tail(pages_max, usize::MAX);
        self.guard(result)
    }

    /// Whether a quarter of the file is free, or will be when checkpoints have let go of it: more than comes of ordinary
    /// writing. Not while a view is pinned: it may hold all of that.
    pub fn is_loose(&self) -> bool {
        let space = self.space();
        let spare = space.free().count() + space.held_count();
        let many = spare >= FREE_PAGES_MIN && spare >= space.page_count() as usize / 4;
        many && self.stats().pins == 0
    }

    /// Whether a checkpoint would give space back although nothing has changed: because the slots still lead to pages that
    /// could be free, or because the end of the file has become free only now.
    pub fn owes_space(&self) -> bool {
        let held = self.space().held_count() > 0;
        (held && self.is_loose()) || self.is_too_long()
    }

    /// With every checkpoint, if more than a fifth of the file is free.
    pub(super) fn move_tail_a_little(&mut self) -> Result<()> {
        let free = self.space().free().count();
        let many = free >= FREE_PAGES_MIN && free >= self.space().page_count() as usize / 5;
        if many {
            self.try_move_tail(MOVES_PER_CHECKPOINT, CHAIN_PAGES_MAX)?;
        }
        Ok(())
    }

    fn try_move_tail(&mut self, pages_max: usize, chain_pages_max: usize) -> Result<usize> {
        self.space_mut().set_lowest_first(true);
        let result = self.move_last_pages(pages_max, chain_pages_max);
        self.space_mut().set_lowest_first(false);
        result
    }

    fn move_last_pages(&mut self, pages_max: usize, chain_pages_max: usize) -> Result<usize> {
        let (mut moved, mut bound) = (0, PageNo::MAX);
        while moved < pages_max {
            let Some(last) = self.space().used().last_below(bound) else { break };
            if !self.space().free().has_below(1, last) {
                break;
            }
            let Some(count) = self.move_page(last, chain_pages_max)? else { break };
            moved += count;
            bound = last;
        }
        Ok(moved)
    }

    /// How many pages were moved; None if this one must stay, so that moving others gains nothing.
    fn move_page(&mut self, no: PageNo, chain_pages_max: usize) -> Result<Option<usize>> {
        // The map goes to the lowest free place with every checkpoint anyway: that is no progress to report.
        if self.move_map_page(no)? {
            return Ok(Some(0));
        }
        let page = self.any_page(no)?;
        let (root, level, born) =
            (usize::from(page_root(&page)), page_level(&page), page_checkpoint(&page) as u32);
        let path_pages = usize::from(self.roots[root].level.saturating_sub(level)) + 1;
        let (kind, (head, key_bytes, value_bytes)) = (Kind::of(&page), chain_head(&page));
        drop(page);
        match kind {
            Some(Kind::Leaf | Kind::Branch) if !self.space().free().has_below(path_pages, no) => Ok(None),
            Some(Kind::Leaf | Kind::Branch) => {
                let key = self.first_key_below(Link { page: no, born }, level)?;
                let mut path = self.path_to(root, &key, level)?;
                // No step at all leads to a page that says to be above its root.
                if path.last().is_none_or(|step| step.link.page != no) {
                    return Err(self.damaged(no, "no link to it".into(), "one, where its first key leads"));
                }
                let depth = path.len() - 1;
                if depth > 0 {
                    let mut above = path.clone();
                    above.pop();
                    self.make_writable(root, &mut above)?;
                    path[..depth].copy_from_slice(&above);
                }
                self.renew(root, &mut path, depth)?;
                Ok(Some(1))
            }
            Some(Kind::Overflow) => {
                let chain = Link { page: head, born };
                self.move_chain(root, no, Descriptor { key_bytes, value_bytes, chain }, chain_pages_max)
            }
            _ => Err(self.damaged(no, "a page of the free map".into(), "one that the map knows")),
        }
    }

    /// The first key in a page or below it.
    fn first_key_below(&self, mut link: Link, level: u8) -> Result<Vec<u8>> {
        for level in (1..=level).rev() {
            link = Node::new(&self.node_page(link, level)?).child(0);
        }
        let page = self.node_page(link, 0)?;
        self.whole_key(Node::new(&page).leaf(0).cell_key())
    }

    /// Writes a chain again, as low as there is room, and lets the cell that owns it point there.
    fn move_chain(
        &mut self,
        root: RootNo,
        page: PageNo,
        old: Descriptor,
        pages_max: usize,
    ) -> Result<Option<usize>> {
        let pages = self.chain_pages(old)?;
        if !pages.contains(&page) {
            return Err(self.damaged(page, "a page of a chain that is not in it".into(), "one that is"));
        }
        let path_pages = usize::from(self.roots[root].level) + 1;
        if pages.len() > pages_max || !self.space().free().has_below(pages.len() + path_pages, page) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.visit_chain(old, 0, u64::MAX, |piece| bytes.extend_from_slice(piece))?;
        let (key, value) = bytes.split_at(old.key_bytes as usize);
        let Some((mut path, in_leaf)) = self.owner(root, key, old)? else {
            return Err(self.damaged(page, "no cell that owns it".into(), "one, where its key leads"));
        };
        self.make_writable(root, &mut path)?;
        let new = self.write_chain(root, key, &[value])?;
        let step = path[path.len() - 1];
        let mut cell = Vec::new();
        let node = Node::new(self.writable_page(step.link.page).expect("the path is writable"));
        if in_leaf {
            let owner = leaf_cell(node.raw(step.index));
            build_leaf_chained(&mut cell, owner.flags, owner.key, new);
        } else {
            let mut owner = node.branch(step.index);
            owner.key.rest = Some(new);
            build_branch(&mut cell, owner.child, owner.counted, owner.key);
        }
        let fits = NodeMut::new(self.page_mut(step.link.page)).replace(step.index, &cell);
        assert!(fits, "the new cell is as long as the old one");
        let count = pages.len();
        pages.into_iter().for_each(|no| self.release(no));
        Ok(Some(count))
    }

    /// The path to the cell that a chain belongs to, and whether it is in a leaf.
    fn owner(&self, root: RootNo, key: &[u8], chain: Descriptor) -> Result<Option<(Descent, bool)>> {
        if self.roots[root].link.is_none() {
            return Ok(None);
        }
        let full = self.path_to(root, key, 0)?;
        let mut path = Descent::new();
        for (step, level) in full.iter().zip((0..=self.roots[root].level).rev()) {
            let page = self.node_page(step.link, level)?;
            let node = Node::new(&page);
            if level > 0 {
                path.push(step.link, step.index);
                if node.branch(step.index).key.rest == Some(chain) {
                    return Ok(Some((path, false)));
                }
                continue;
            }
            let (index, found) = node.search_leaf(key, |rest| self.compare_chain(rest, key))?;
            path.push(step.link, index);
            if found && node.leaf(index).chain() == Some(chain) {
                return Ok(Some((path, true)));
            }
        }
        Ok(None)
    }
}
