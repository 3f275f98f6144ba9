//! The offline checker: reads everything that either meta slot reaches and compares it with everything that
//! must hold of it. Shipped, and run at the end of every test of the tree.

use std::path::Path;

use crate::base::{Error, Result};
use crate::io::{Disk, Open};

use super::bits::PageSet;
use super::chain::ChainReader;
use super::format::{Kind, Link, Meta, PageNo, Root, page_root};
use super::node::{Descriptor, Node};
use super::slots::{choose, read_slots};
use super::tree::Tree;
use super::{ROOTS, RootNo};

/// More findings than this say nothing more.
const FINDINGS_MAX: usize = 100;

/// What [`check`] found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What is wrong, in words; empty if the file is sound.
    pub findings: Vec<String>,
    /// What is worth telling and no damage in itself: a meta slot that a crash left half written.
    pub notes: Vec<String>,
    /// The newest checkpoint that can be opened.
    pub checkpoint: u64,
    pub page_bytes: usize,
    pub file_bytes: u64,
    pub used_pages: u64,
    pub cells: [u64; ROOTS],
    pub counted: [u64; ROOTS],
    pub depth: [u8; ROOTS],
}

/// Reads the whole file and changes nothing. An error is a file that cannot be opened at all.
pub fn check<D: Disk>(disk: &D, path: &Path) -> Result<Report> {
    let file = disk.open(path, Open::Read).map_err(|e| Error::io("opening", path, e))?;
    let tree = Tree::load(disk, path, file.clone())?;
    let newest = tree.checkpoint_number() - 1;
    let mut walk = Walk::new(&tree);
    let report = walk.run(&tree.space().holders().last().expect("a file has a checkpoint").roots.clone())?;
    let mut report = Report {
        checkpoint: newest,
        notes: tree.notes().to_vec(),
        page_bytes: tree.page_bytes(),
        file_bytes: tree.mapped_pages() * tree.page_bytes() as u64,
        used_pages: tree.space().used().count() as u64,
        ..report
    };
    let reached = std::mem::replace(&mut walk.reached, PageSet::new());
    compare_map(&mut report, newest, &reached, tree.space().used());
    let chosen = choose(path, read_slots(&file, path)?)?;
    if chosen.newest.checkpoint != newest {
        // Case E of T-30: a good slot leads to damaged pages. The file opens, but it is not sound.
        report.findings.append(&mut report.notes);
    }
    check_older(&tree, chosen.older, &mut report)?;
    Ok(report)
}

/// The checkpoint in the other slot must be as whole as the newest one.
fn check_older<D: Disk>(tree: &Tree<D>, older: Option<Meta>, report: &mut Report) -> Result<()> {
    let Some(older) = older.filter(|older| older.checkpoint + 2 == tree.checkpoint_number()) else {
        return Ok(());
    };
    let used = match tree.load_map(&older) {
        Ok((_, used)) => used,
        Err(Error::Corrupt(damage)) => {
            report.findings.push(damage.to_string());
            return Ok(());
        }
        Err(e) => return Err(e),
    };
    let mut walk = Walk::new(tree);
    walk.map_links = tree.load_map(&older)?.0.links().collect();
    let findings = walk.run(&older.roots)?.findings;
    report.findings.extend(findings.into_iter().map(|f| format!("checkpoint {}: {f}", older.checkpoint)));
    compare_map(report, older.checkpoint, &walk.reached, &used);
    Ok(())
}

/// V13: what is reached is what the map calls used, so that it and the free pages are all pages, and disjoint.
fn compare_map(report: &mut Report, checkpoint: u64, reached: &PageSet, used: &PageSet) {
    for page in used.iter().filter(|&page| !reached.contains(page)).take(5) {
        report
            .findings
            .push(format!("checkpoint {checkpoint}: page {page} is in use, but nothing leads to it"));
    }
    for page in reached.iter().filter(|&page| !used.contains(page)).take(5) {
        report
            .findings
            .push(format!("checkpoint {checkpoint}: page {page} is reached, but the map calls it free"));
    }
}

/// One walk over everything that a checkpoint reaches.
struct Walk<'t, D: Disk> {
    tree: &'t Tree<D>,
    reached: PageSet,
    map_links: Vec<Link>,
    report: Report,
}

/// A page to look at, and what is claimed about it.
struct Todo {
    link: Link,
    level: u8,
    /// The bounds of its keys: at least `low`, less than `high`.
    low: Vec<u8>,
    high: Option<Vec<u8>>,
    /// The sum that the page above has for it.
    counted: Option<u64>,
}

impl<'t, D: Disk> Walk<'t, D> {
    fn new(tree: &'t Tree<D>) -> Walk<'t, D> {
        let map_links = tree.map.links().collect();
        Walk { tree, reached: PageSet::new(), map_links, report: Report::default() }
    }

    fn run(&mut self, roots: &[Root; ROOTS]) -> Result<Report> {
        for link in std::mem::take(&mut self.map_links) {
            self.reach(link.page);
        }
        for (root, top) in roots.iter().enumerate().filter(|(_, top)| !top.link.is_none()) {
            self.report.depth[root] = top.level + 1;
            let all = Todo { link: top.link, level: top.level, low: Vec::new(), high: None, counted: None };
            // A stack of our own: depth is bounded, but nothing that is read decides over our call stack.
            let mut todo = vec![all];
            while let Some(next) = todo.pop() {
                match self.visit(root, &next, &mut todo) {
                    Ok(()) => {}
                    Err(Error::Corrupt(damage)) => self.find(damage.to_string()),
                    Err(e) => return Err(e),
                }
                if self.report.findings.len() >= FINDINGS_MAX {
                    break;
                }
            }
        }
        Ok(std::mem::take(&mut self.report))
    }

    fn find(&mut self, finding: String) {
        self.report.findings.push(finding);
    }

    /// Whether this is the first time that something leads there.
    fn reach(&mut self, page: PageNo) -> bool {
        let first = self.reached.insert(page);
        if !first {
            self.find(format!("page {page} is reached twice"));
        }
        first
    }

    fn visit(&mut self, root: RootNo, todo: &Todo, next: &mut Vec<Todo>) -> Result<()> {
        if !self.reach(todo.link.page) {
            return Ok(());
        }
        let page = self.tree.node_page(todo.link, todo.level)?;
        if usize::from(page_root(&page)) != root {
            self.find(format!("page {} is of root {}, not {root}", todo.link.page, page_root(&page)));
        }
        let node = Node::new(&page);
        if todo.counted.is_some_and(|counted| counted != node.counted_sum()) {
            let (has, said) = (node.counted_sum(), todo.counted.unwrap_or_default());
            self.find(format!("page {} counts {has}, the page above it says {said}", todo.link.page));
        }
        let keys = self.keys(root, &node, todo)?;
        if node.is_leaf() {
            self.report.cells[root] += node.count() as u64;
            self.report.counted[root] += node.counted_sum();
            return Ok(());
        }
        for index in (0..node.count()).rev() {
            let cell = node.branch(index);
            next.push(Todo {
                link: cell.child,
                level: todo.level - 1,
                low: if index == 0 { todo.low.clone() } else { keys[index].clone() },
                high: keys.get(index + 1).cloned().or_else(|| todo.high.clone()),
                counted: Some(cell.counted),
            });
        }
        Ok(())
    }

    /// The keys of a page, with their chains walked, in order, and within the bounds from above.
    fn keys(&mut self, root: RootNo, node: &Node<'_>, todo: &Todo) -> Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::with_capacity(node.count());
        for index in 0..node.count() {
            let chain = if node.is_leaf() { node.leaf(index).chain() } else { node.branch(index).key.rest };
            let cell_key = node.key(index);
            let mut key = cell_key.kept.to_vec();
            if let Some(chain) = chain {
                let whole = self.chain(root, chain)?;
                if !whole.starts_with(&key) || (cell_key.rest.is_none() && whole != key) {
                    self.find(format!("page {}: cell {index}: another key in its chain", todo.link.page));
                }
                key = whole;
            }
            let first_of_branch = index == 0 && !node.is_leaf();
            if first_of_branch && !key.is_empty() {
                self.find(format!("page {}: the first separator is not empty", todo.link.page));
            }
            let rising = keys.last().is_none_or(|before| before < &key || (index == 1 && !node.is_leaf()));
            let inside =
                first_of_branch || (todo.low <= key && todo.high.as_ref().is_none_or(|high| &key < high));
            if !rising || !inside {
                self.find(format!("page {}: cell {index} is out of order", todo.link.page));
            }
            keys.push(key);
        }
        Ok(keys)
    }

    /// Walks a chain to its end; its key.
    fn chain(&mut self, root: RootNo, descriptor: Descriptor) -> Result<Vec<u8>> {
        let mut key = Vec::new();
        let mut reader = ChainReader::new(self.tree, descriptor);
        while let Some((no, page, data)) = reader.next_page()? {
            self.reach(no);
            if usize::from(page_root(&page)) != root || Kind::of(&page) != Some(Kind::Overflow) {
                self.find(format!("page {no} is in a chain of root {root}, but says {}", page_root(&page)));
            }
            let wanted = (descriptor.key_bytes as usize - key.len()).min(data);
            key.extend_from_slice(&page[super::format::CHAIN_DATA_AT..][..wanted]);
        }
        Ok(key)
    }
}
