//! Slotted pages: leaves and branches. Reading goes through [`Node`], which is built over bytes that have
//! passed [`validate`] (or that this process made), so that its accessors need no checks of their own.

use std::cmp::Ordering;

use crate::base::Result;

use super::ROOTS;
use super::format::{
    CHAIN_DATA_AT, HEADER_BYTES, Kind, LEVELS_MAX, Link, PageNo, get_u16, get_u32, get_u64, page_level,
    page_root, put_u16, put_u64,
};

// A leaf cell (T-17):    | flags | key u16 | value u16 | key ... | value ...            |
// with an overflow chain | flags | key u16 | 16        | start of the key | descriptor  |
// A branch cell (T-20):  | child link 8 | counted u64 | key u16 | key ...               |
// with an overflow chain | child link 8 | counted u64 | key u16 + 2^15 | start | descriptor |
// A descriptor (T-19):   | key u32 | value u32 | link of the chain's first page 8 |

pub(super) const FLAG_COUNTED: u8 = 1;
pub(super) const FLAG_CHAIN: u8 = 2;
const LEAF_FIXED_BYTES: usize = 5;
const BRANCH_FIXED_BYTES: usize = 18;
pub(super) const DESCRIPTOR_BYTES: usize = 16;
const SLOT_BYTES: usize = 2;
/// Marks the key length of a branch cell whose key is in a chain; keys in a page are shorter than this.
const LONG_KEY: u16 = 0x8000;

/// What fits where, for one page size (T-18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit {
    /// Bytes for slots and cells.
    pub usable: usize,
    /// Longest key that stays in a page whole: four branch cells fit in any page.
    pub key_max: usize,
    /// How much of a longer key stays, before the descriptor of its chain.
    pub key_start: usize,
    /// Largest leaf cell: two fit in any page, so that a split always finds a place.
    pub leaf_cell_max: usize,
}

impl Fit {
    pub(super) const fn new(page_bytes: usize) -> Fit {
        let usable = page_bytes - HEADER_BYTES;
        let key_max = usable / 4 - SLOT_BYTES - BRANCH_FIXED_BYTES;
        Fit { usable, key_max, key_start: key_max - DESCRIPTOR_BYTES, leaf_cell_max: usable / 2 - SLOT_BYTES }
    }

    /// Whether key and value stay in the leaf together.
    pub(super) fn inline(&self, key_bytes: usize, value_bytes: usize) -> bool {
        key_bytes <= self.key_max && LEAF_FIXED_BYTES + key_bytes + value_bytes <= self.leaf_cell_max
    }

    /// How much of a key stays in its cell.
    pub(super) fn kept<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        if key.len() <= self.key_max { key } else { &key[..self.key_start] }
    }
}

/// Where the rest of a cell is: a chain that holds the whole key and then the whole value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub key_bytes: u32,
    pub value_bytes: u32,
    pub chain: Link,
}

impl Descriptor {
    fn read(bytes: &[u8]) -> Descriptor {
        Descriptor {
            key_bytes: get_u32(bytes, 0),
            value_bytes: get_u32(bytes, 4),
            chain: Link::read(bytes, 8),
        }
    }

    fn to_bytes(self) -> [u8; DESCRIPTOR_BYTES] {
        let mut out = [0; DESCRIPTOR_BYTES];
        out[..4].copy_from_slice(&self.key_bytes.to_le_bytes());
        out[4..8].copy_from_slice(&self.value_bytes.to_le_bytes());
        self.chain.write(&mut out, 8);
        out
    }
}

/// The key of a cell: whole, or its start and where the whole of it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct CellKey<'p> {
    pub kept: &'p [u8],
    /// Present only if the key is longer than what is kept.
    pub rest: Option<Descriptor>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct LeafCell<'p> {
    pub flags: u8,
    pub key: &'p [u8],
    /// The value, or 16 bytes of descriptor.
    pub value: &'p [u8],
}

impl<'p> LeafCell<'p> {
    pub(super) fn counted(&self) -> bool {
        self.flags & FLAG_COUNTED != 0
    }

    pub(super) fn chain(&self) -> Option<Descriptor> {
        (self.flags & FLAG_CHAIN != 0).then(|| Descriptor::read(self.value))
    }

    pub(super) fn cell_key(&self) -> CellKey<'p> {
        let rest = self.chain().filter(|chain| chain.key_bytes as usize > self.key.len());
        CellKey { kept: self.key, rest }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct BranchCell<'p> {
    pub child: Link,
    pub counted: u64,
    pub key: CellKey<'p>,
}

/// Reads a leaf or a branch.
#[derive(Clone, Copy)]
pub(super) struct Node<'p> {
    page: &'p [u8],
}

impl<'p> Node<'p> {
    pub(super) fn new(page: &'p [u8]) -> Node<'p> {
        Node { page }
    }

    #[inline]
    pub(super) fn level(&self) -> u8 {
        page_level(self.page)
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.level() == 0
    }

    #[inline]
    pub(super) fn count(&self) -> usize {
        usize::from(get_u16(self.page, 20))
    }

    fn heap_bytes(&self) -> usize {
        usize::from(get_u16(self.page, 22))
    }

    fn garbage_bytes(&self) -> usize {
        usize::from(get_u16(self.page, 24))
    }

    /// Bytes of live cells and their slots.
    pub(super) fn used_bytes(&self) -> usize {
        self.count() * SLOT_BYTES + self.heap_bytes() - self.garbage_bytes()
    }

    #[inline]
    fn offset(&self, index: usize) -> usize {
        usize::from(get_u16(self.page, HEADER_BYTES + index * SLOT_BYTES))
    }

    #[inline]
    pub(super) fn leaf(&self, index: usize) -> LeafCell<'p> {
        leaf_cell(&self.page[self.offset(index)..])
    }

    #[inline]
    pub(super) fn leaf_counted(&self, index: usize) -> bool {
        self.page[self.offset(index)] & FLAG_COUNTED != 0
    }

    pub(super) fn branch(&self, index: usize) -> BranchCell<'p> {
        branch_cell(&self.page[self.offset(index)..])
    }

    #[inline]
    pub(super) fn child(&self, index: usize) -> Link {
        Link::read(self.page, self.offset(index))
    }

    pub(super) fn child_counted(&self, index: usize) -> u64 {
        get_u64(self.page, self.offset(index) + 8)
    }

    pub(super) fn key(&self, index: usize) -> CellKey<'p> {
        if self.is_leaf() { self.leaf(index).cell_key() } else { self.branch(index).key }
    }

    /// The bytes of a cell; they mean the same in any page.
    pub(super) fn raw(&self, index: usize) -> &'p [u8] {
        let at = self.offset(index);
        &self.page[at..at + cell_bytes(&self.page[at..], self.is_leaf())]
    }

    /// Counted cells in this page and below it.
    pub(super) fn counted_sum(&self) -> u64 {
        self.counted_before(self.count())
    }

    /// Counted cells in (or below) the first `end` cells.
    pub(super) fn counted_before(&self, end: usize) -> u64 {
        if self.is_leaf() {
            (0..end).filter(|&index| self.leaf_counted(index)).count() as u64
        } else {
            (0..end).fold(0, |sum: u64, index| sum.wrapping_add(self.child_counted(index)))
        }
    }

    /// Binary search in a leaf: the place of `key`, or where it would be put. `whole` compares a key that
    /// goes on in a chain.
    pub(super) fn search_leaf(
        &self,
        key: &[u8],
        mut whole: impl FnMut(Descriptor) -> Result<Ordering>,
    ) -> Result<(usize, bool)> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = (low + high) / 2;
            let cell = &self.page[self.offset(middle)..];
            let kept = &cell[LEAF_FIXED_BYTES..LEAF_FIXED_BYTES + usize::from(get_u16(cell, 1))];
            let order = if cell[0] & FLAG_CHAIN == 0 {
                kept.cmp(key)
            } else {
                compare(self.leaf(middle).cell_key(), key, &mut whole)?
            };
            match order {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok((middle, true)),
                Ordering::Greater => high = middle,
            }
        }
        Ok((low, false))
    }

    /// Binary search in a branch: the child that covers `key`. The first separator stands for "before all".
    pub(super) fn search_branch(
        &self,
        key: &[u8],
        mut whole: impl FnMut(Descriptor) -> Result<Ordering>,
    ) -> Result<usize> {
        let (mut low, mut high) = (1, self.count());
        while low < high {
            let middle = (low + high) / 2;
            let cell = &self.page[self.offset(middle)..];
            let length = get_u16(cell, 16);
            let order = if length & LONG_KEY == 0 {
                cell[BRANCH_FIXED_BYTES..BRANCH_FIXED_BYTES + usize::from(length)].cmp(key)
            } else {
                compare(branch_cell(cell).key, key, &mut whole)?
            };
            match order {
                Ordering::Greater => high = middle,
                _ => low = middle + 1,
            }
        }
        Ok(low - 1)
    }
}

/// The leaf cell at the front of `cell`.
#[inline]
pub(super) fn leaf_cell(cell: &[u8]) -> LeafCell<'_> {
    let key_end = LEAF_FIXED_BYTES + usize::from(get_u16(cell, 1));
    let value_end = key_end + usize::from(get_u16(cell, 3));
    LeafCell { flags: cell[0], key: &cell[LEAF_FIXED_BYTES..key_end], value: &cell[key_end..value_end] }
}

/// The branch cell at the front of `cell`.
#[inline]
pub(super) fn branch_cell(cell: &[u8]) -> BranchCell<'_> {
    let length = get_u16(cell, 16);
    let key_end = BRANCH_FIXED_BYTES + usize::from(length & !LONG_KEY);
    let rest = (length & LONG_KEY != 0).then(|| Descriptor::read(&cell[key_end..]));
    BranchCell {
        child: Link::read(cell, 0),
        counted: get_u64(cell, 8),
        key: CellKey { kept: &cell[BRANCH_FIXED_BYTES..key_end], rest },
    }
}

/// How the key of a cell compares with `key`.
fn compare(
    cell: CellKey<'_>,
    key: &[u8],
    whole: &mut impl FnMut(Descriptor) -> Result<Ordering>,
) -> Result<Ordering> {
    let Some(rest) = cell.rest else { return Ok(cell.kept.cmp(key)) };
    let kept = cell.kept;
    if key.len() <= kept.len() {
        // The cell's key goes on: even where they agree so far it is the greater one.
        return Ok(kept.cmp(key).then(Ordering::Greater));
    }
    match kept.cmp(&key[..kept.len()]) {
        Ordering::Equal => whole(rest),
        order => Ok(order),
    }
}

fn cell_bytes(cell: &[u8], leaf: bool) -> usize {
    if leaf {
        LEAF_FIXED_BYTES + usize::from(get_u16(cell, 1)) + usize::from(get_u16(cell, 3))
    } else {
        let length = get_u16(cell, 16);
        let descriptor = if length & LONG_KEY != 0 { DESCRIPTOR_BYTES } else { 0 };
        BRANCH_FIXED_BYTES + usize::from(length & !LONG_KEY) + descriptor
    }
}

/// Builds a leaf cell in `out`.
pub(super) fn build_leaf_inline(out: &mut Vec<u8>, flags: u8, key: &[u8], value: &[&[u8]]) {
    let value_bytes: usize = value.iter().map(|part| part.len()).sum();
    start_leaf(out, flags, key, value_bytes);
    for part in value {
        out.extend_from_slice(part);
    }
}

/// Builds a leaf cell whose value (and perhaps key) is in a chain.
pub(super) fn build_leaf_chained(out: &mut Vec<u8>, flags: u8, kept: &[u8], descriptor: Descriptor) {
    start_leaf(out, flags | FLAG_CHAIN, kept, DESCRIPTOR_BYTES);
    out.extend_from_slice(&descriptor.to_bytes());
}

fn start_leaf(out: &mut Vec<u8>, flags: u8, key: &[u8], value_bytes: usize) {
    out.clear();
    out.push(flags);
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    out.extend_from_slice(&(value_bytes as u16).to_le_bytes());
    out.extend_from_slice(key);
}

pub(super) fn build_branch(out: &mut Vec<u8>, child: Link, counted: u64, key: CellKey<'_>) {
    out.clear();
    out.resize(16, 0);
    child.write(out, 0);
    put_u64(out, 8, counted);
    let long = if key.rest.is_some() { LONG_KEY } else { 0 };
    out.extend_from_slice(&(key.kept.len() as u16 | long).to_le_bytes());
    out.extend_from_slice(key.kept);
    if let Some(rest) = key.rest {
        out.extend_from_slice(&rest.to_bytes());
    }
}

/// Changes a leaf or a branch in memory.
pub(super) struct NodeMut<'p> {
    page: &'p mut [u8],
}

impl<'p> NodeMut<'p> {
    pub(super) fn new(page: &'p mut [u8]) -> NodeMut<'p> {
        NodeMut { page }
    }

    pub(super) fn as_node(&self) -> Node<'_> {
        Node::new(self.page)
    }

    fn usable(&self) -> usize {
        self.page.len() - HEADER_BYTES
    }

    /// Puts a cell before the `index`th; false, and nothing changed, if there is no room.
    pub(super) fn insert(&mut self, index: usize, cell: &[u8]) -> bool {
        let needed = cell.len() + SLOT_BYTES;
        let node = self.as_node();
        let count = node.count();
        if node.used_bytes() + needed > self.usable() {
            return false;
        }
        if count * SLOT_BYTES + node.heap_bytes() + needed > self.usable() {
            self.pack();
        }
        let heap = self.as_node().heap_bytes() + cell.len();
        let at = self.page.len() - heap;
        self.page[at..at + cell.len()].copy_from_slice(cell);
        let (slots, slot) = (HEADER_BYTES, HEADER_BYTES + index * SLOT_BYTES);
        self.page.copy_within(slot..slots + count * SLOT_BYTES, slot + SLOT_BYTES);
        put_u16(self.page, slot, at as u16);
        put_u16(self.page, 20, (count + 1) as u16);
        put_u16(self.page, 22, heap as u16);
        true
    }

    pub(super) fn remove(&mut self, index: usize) {
        let node = self.as_node();
        let (count, at, bytes) = (node.count(), node.offset(index), node.raw(index).len());
        let (heap, garbage) = (node.heap_bytes(), node.garbage_bytes());
        let slot = HEADER_BYTES + index * SLOT_BYTES;
        self.page.copy_within(slot + SLOT_BYTES..HEADER_BYTES + count * SLOT_BYTES, slot);
        put_u16(self.page, 20, (count - 1) as u16);
        if at == self.page.len() - heap {
            put_u16(self.page, 22, (heap - bytes) as u16);
        } else {
            put_u16(self.page, 24, (garbage + bytes) as u16);
        }
    }

    /// Puts another cell in place of the `index`th; false if there is no room, and then the old one is gone.
    pub(super) fn replace(&mut self, index: usize, cell: &[u8]) -> bool {
        let node = self.as_node();
        let (at, bytes) = (node.offset(index), node.raw(index).len());
        if bytes == cell.len() {
            self.page[at..at + bytes].copy_from_slice(cell);
            return true;
        }
        self.remove(index);
        self.insert(index, cell)
    }

    pub(super) fn set_child(&mut self, index: usize, child: Link) {
        let at = self.as_node().offset(index);
        child.write(self.page, at);
    }

    pub(super) fn set_counted_sum(&mut self, index: usize, counted: u64) {
        let at = self.as_node().offset(index) + 8;
        put_u64(self.page, at, counted);
    }

    /// Drops all cells.
    pub(super) fn clear(&mut self) {
        self.page[20..HEADER_BYTES].fill(0);
    }

    /// Moves the cells together at the end of the page.
    fn pack(&mut self) {
        let old = self.page.to_vec();
        let node = Node::new(&old);
        let mut at = self.page.len();
        for index in 0..node.count() {
            let cell = node.raw(index);
            at -= cell.len();
            self.page[at..at + cell.len()].copy_from_slice(cell);
            put_u16(self.page, HEADER_BYTES + index * SLOT_BYTES, at as u16);
        }
        let heap = self.page.len() - at;
        put_u16(self.page, 22, heap as u16);
        put_u16(self.page, 24, 0);
    }
}

/// What a page's own words say about it, apart from checksum and place: the gate for everything that is read
/// from disk. The error is (what was found, what was expected).
pub(super) fn validate(page: &[u8], fit: &Fit, page_count: PageNo) -> Result<(), (String, String)> {
    let fault = |found: String, expected: &str| Err((found, expected.to_string()));
    let Some(kind) = Kind::of(page) else { return fault(format!("page kind {}", page[16]), "1 to 5") };
    let level = page_level(page);
    if usize::from(level) >= LEVELS_MAX {
        return fault(format!("level {level}"), "below 32");
    }
    if usize::from(page_root(page)) >= ROOTS || page[19] != 0 {
        return fault(
            format!("root {}, reserved {}", page_root(page), page[19]),
            "a root below 8, reserved 0",
        );
    }
    match kind {
        Kind::Leaf if level != 0 => fault(format!("a leaf at level {level}"), "level 0"),
        Kind::Branch if level == 0 => fault("a branch at level 0".into(), "level 1 or more"),
        Kind::Leaf | Kind::Branch => validate_cells(page, kind, fit, page_count),
        Kind::Overflow => {
            let data = usize::from(get_u16(page, 24));
            let room = page.len() - CHAIN_DATA_AT;
            if data > room {
                fault(format!("{data} bytes of data"), "no more than a page holds")
            } else {
                Ok(())
            }
        }
        Kind::Bits | Kind::Directory => Ok(()),
    }
}

/// Every slot points into the heap, every cell ends in the page, the cells' bytes add up (T-14 … T-21).
fn validate_cells(page: &[u8], kind: Kind, fit: &Fit, page_count: PageNo) -> Result<(), (String, String)> {
    let fault = |found: String, expected: &str| Err((found, expected.to_string()));
    let node = Node::new(page);
    let (count, heap, garbage) = (node.count(), node.heap_bytes(), node.garbage_bytes());
    if count * SLOT_BYTES + heap > fit.usable || garbage > heap {
        return fault(
            format!("{count} cells, {heap} bytes of cells, {garbage} of them dead"),
            "no more than a page holds",
        );
    }
    if count == 0 {
        return fault("no cell".into(), "at least one");
    }
    let heap_start = page.len() - heap;
    let fixed = if kind == Kind::Leaf { LEAF_FIXED_BYTES } else { BRANCH_FIXED_BYTES };
    let mut live = 0;
    for index in 0..count {
        let at = node.offset(index);
        if at < heap_start
            || at + fixed > page.len()
            || at + cell_bytes(&page[at..], node.is_leaf()) > page.len()
        {
            return fault(format!("cell {index} at {at}"), "a cell inside the page's cells");
        }
        live += cell_bytes(&page[at..], node.is_leaf());
        validate_cell(&node, index, fit, page_count)?;
    }
    if live != heap - garbage {
        return fault(format!("{live} bytes of live cells"), "as many as the header says");
    }
    Ok(())
}

fn validate_cell(
    node: &Node<'_>,
    index: usize,
    fit: &Fit,
    page_count: PageNo,
) -> Result<(), (String, String)> {
    let fault = |found: String, expected: &str| Err((format!("cell {index}: {found}"), expected.to_string()));
    let (kept, chain) = if node.is_leaf() {
        let cell = node.leaf(index);
        if cell.flags & !(FLAG_COUNTED | FLAG_CHAIN) != 0 {
            return fault(format!("flags {:#x}", cell.flags), "known flags");
        }
        if cell.flags & FLAG_CHAIN != 0 && cell.value.len() != DESCRIPTOR_BYTES {
            return fault(format!("a descriptor of {} bytes", cell.value.len()), "16");
        }
        if LEAF_FIXED_BYTES + cell.key.len() + cell.value.len() > fit.leaf_cell_max {
            return fault(format!("{} bytes of value", cell.value.len()), "two cells fit in any page");
        }
        (cell.key, cell.chain())
    } else {
        let cell = node.branch(index);
        if cell.child.page == 0 {
            return fault("no child".into(), "a page");
        }
        (cell.key.kept, cell.key.rest)
    };
    if kept.len() > fit.key_max {
        return fault(format!("a key of {} bytes", kept.len()), "no longer than a page allows");
    }
    let Some(chain) = chain else { return Ok(()) };
    // A chain cannot be longer than the file: nobody walks or allocates by a length that is a lie.
    let room = u64::from(page_count) * (fit.usable + HEADER_BYTES - CHAIN_DATA_AT) as u64;
    let total = u64::from(chain.key_bytes) + u64::from(chain.value_bytes);
    let key_bytes = chain.key_bytes as usize;
    let kept_as_expected =
        if key_bytes <= fit.key_max { kept.len() == key_bytes } else { kept.len() == fit.key_start };
    if total > room || chain.chain.page == 0 || !kept_as_expected {
        return fault(
            format!("a chain at page {} of {key_bytes} + {} bytes", chain.chain.page, chain.value_bytes),
            "one that fits in the file and continues the key",
        );
    }
    Ok(())
}
