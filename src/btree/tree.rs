//! The tree's state: the file, its mapping, the pages in memory, the roots; how a page is found, made, changed
//! and let go. What is done with them is in `read`, `cursor`, `write`, `checkpoint` and `shrink`.

use std::cell::Cell;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::planted;
use crate::base::{Error, Result};
use crate::io::{Disk, File, Open, Pages};

use super::bits::PageSet;
use super::checkpoint::Frozen;
use super::format::{
    Kind, LEVELS_MAX, Link, META_AREA_BYTES, META_BYTES, META_OFFSETS, Meta, PageNo, first_page, get_u32,
    is_page_size, page_checkpoint, page_crc, page_level, page_no, page_range, page_root, rename_page,
};
use super::map::{FreeMap, bits_per_page};
use super::node::{Fit, validate};
use super::slots::{Chosen, choose, read_slots};
use super::space::{Roots, Space, Who};
use super::table::{Run, Slot, Table};
use super::{Options, RootNo, Stats, USER_BYTES_MAX, View};

/// Has the slots read from the disk itself, so that the checkpoint that is opened is one that survives (T-31).
///
/// Scenario: the sync of a checkpoint fails, and the process ends as it must. The page cache still shows the new
/// slot and calls it clean. If the next process believed it, it would reuse the pages that only the older slots
/// lead to, and a power cut would leave nothing that opens. What the checkpoint's pages were does not matter: no
/// slot on the disk leads to them, and whatever takes their place is written anew.
fn settle<F: File>(file: &F, path: &Path) -> Result<()> {
    file.sync_data().map_err(|e| Error::io("syncing", path, e))?;
    let slots_end = META_OFFSETS[1] + META_BYTES as u64;
    file.drop_cache(0, slots_end).map_err(|e| Error::io("rereading", path, e))
}

/// A B+tree file. One thread owns it; only the [`Checkpoint`](super::Checkpoint) it hands out goes elsewhere.
pub struct Tree<D: Disk> {
    path: PathBuf,
    file: D::File,
    mapping: Mapping<D>,
    fit: Fit,
    page_bytes: usize,
    file_id: u64,
    /// The checkpoint that present changes will belong to.
    checkpoint: u64,
    pub(super) roots: Roots,
    user: Vec<u8>,
    /// The records of the checkpoints in the two slots: the newest, and the one before it (or the same).
    durable_users: [Vec<u8>; 2],
    table: Table,
    space: Space,
    pub(super) map: FreeMap,
    /// Pages born since the last checkpoint; those that were let go again are filtered out later.
    newborn: Vec<PageNo>,
    dirty_count: usize,
    pub(super) user_changed: bool,
    pub(super) running: Option<Arc<Frozen>>,
    notes: Vec<String>,
    /// A change failed half-way.
    broken: bool,
    /// Changes so far: a [`Spot`](super::Spot) is good for one state only.
    change_count: u64,
    /// Where cells are put together.
    scratch: Vec<u8>,
    /// A page that was let go and was not in use: the change under way will fail.
    second_link: Option<PageNo>,
    /// The meta slot, if any, whose checkpoint was not good enough to be kept.
    unkept_slot: Option<usize>,
}

/// The readable part of the file.
struct Mapping<D: Disk> {
    pages: D::Pages,
    page_count: u64,
    /// A bit per page: its checksum and structure have been seen to be good. Cleared for pages written anew.
    verified: Vec<Cell<u64>>,
}

/// A page's bytes, from memory or from the mapping.
pub(super) enum PageBytes<'t, D: Disk> {
    Memory(&'t [u8]),
    Mapped(<D::Pages as Pages>::Page<'t>),
}

impl<D: Disk> Deref for PageBytes<'_, D> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            PageBytes::Memory(bytes) => bytes,
            PageBytes::Mapped(page) => page,
        }
    }
}

impl<D: Disk> Tree<D> {
    /// Opens a file. Of its two meta slots the newer good one counts; see [`choose`] for the cases.
    pub fn open(disk: &D, path: &Path) -> Result<Tree<D>> {
        let file = disk.open(path, Open::Write).map_err(|e| Error::io("opening", path, e))?;
        settle(&file, path)?;
        if !planted::on("tree-name-not-settled") {
            // A process that was killed may have renamed the file and not synced that, and whoever opens it relies on it.
            sync_name(disk, path)?;
        }
        let tree = Tree::load(disk, path, file)?;
        tree.wipe_unkept_slot()?;
        Ok(tree)
    }

    /// A slot whose checkpoint is not kept leads to pages that will be used for other things, so it must not
    /// be found when the kept one decays later. T-32: it is wiped before the first of those pages is written.
    fn wipe_unkept_slot(&self) -> Result<()> {
        let Some(slot) = self.unkept_slot else { return Ok(()) };
        self.file
            .write_at(META_OFFSETS[slot], &[0; META_BYTES])
            .map_err(|e| Error::io("writing", &self.path, e))?;
        self.file.sync_data().map_err(|e| Error::io("syncing", &self.path, e))
    }

    pub(super) fn load(disk: &D, path: &Path, file: D::File) -> Result<Tree<D>> {
        let slots = read_slots(&file, path)?;
        let mut chosen = choose(path, slots)?;
        match Tree::load_from(disk, path, &file, &chosen) {
            Ok(tree) => Ok(tree),
            // Case E: the newest meta is good, but what it leads to is not. The older one may be whole.
            Err(Error::Corrupt(damage)) if chosen.older.is_some() => {
                let older = chosen.older.take().expect("it was just seen");
                let newest = std::mem::replace(&mut chosen.newest, older);
                chosen.notes.push(format!(
                    "checkpoint {} is passed over for {}: {damage}",
                    newest.checkpoint, chosen.newest.checkpoint
                ));
                Tree::load_from(disk, path, &file, &chosen).map_err(|_| Error::Corrupt(damage))
            }
            Err(e) => Err(e),
        }
    }

    fn load_from(disk: &D, path: &Path, file: &D::File, chosen: &Chosen) -> Result<Tree<D>> {
        let meta = &chosen.newest;
        let page_bytes = meta.page_bytes;
        let file_bytes = file.len_bytes().map_err(|e| Error::io("measuring", path, e))?;
        let page_count = (file_bytes / page_bytes as u64).min(u64::from(PageNo::MAX));
        let pages =
            disk.map(file, page_count * page_bytes as u64).map_err(|e| Error::io("mapping", path, e))?;
        let first = first_page(page_bytes);
        let mut tree = Tree {
            path: path.to_path_buf(),
            file: file.clone(),
            mapping: Mapping { pages, page_count: 0, verified: Vec::new() },
            fit: Fit::new(page_bytes),
            page_bytes,
            file_id: meta.file_id,
            checkpoint: meta.checkpoint + 1,
            roots: meta.roots,
            user: meta.user.clone(),
            durable_users: [meta.user.clone(), meta.user.clone()],
            table: Table::default(),
            space: Space::new(first, 1, PageSet::new(), (meta.checkpoint, meta.roots), None),
            map: FreeMap::default(),
            newborn: Vec::new(),
            dirty_count: 0,
            user_changed: false,
            running: None,
            notes: chosen.notes.clone(),
            broken: false,
            change_count: 0,
            scratch: Vec::new(),
            second_link: None,
            unkept_slot: None,
        };
        tree.mapping.resize(page_count);
        let (map, used) = tree.load_map(meta)?;
        tree.map = map;
        // The tops of the trees are looked at now, so that a checkpoint whose pages never reached the disk is
        // noticed while the older one can still be taken (T-31).
        for root in meta.roots.iter().filter(|root| !root.link.is_none()) {
            tree.node_page(root.link, root.level)?;
        }
        let older = chosen.older.as_ref().and_then(|older| match tree.load_map(older) {
            Ok((_, used)) => {
                tree.durable_users[1] = older.user.clone();
                Some((older.checkpoint, older.roots, used))
            }
            Err(e) => {
                tree.notes.push(format!("checkpoint {} cannot be fallen back to: {e}", older.checkpoint));
                None
            }
        });
        let newest = (meta.checkpoint, meta.roots);
        tree.unkept_slot = older.is_none().then_some((tree.checkpoint & 1) as usize);
        tree.space = Space::new(first, bits_per_page(page_bytes), used, newest, older);
        Ok(tree)
    }

    /// What opening found worth telling: a checkpoint that had to be passed over.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The application's record: as it was set last, or as the file had it.
    pub fn user(&self) -> &[u8] {
        &self.user
    }

    /// Sets the application's record (at most [`USER_BYTES_MAX`] bytes); stored with the next checkpoint.
    pub fn set_user(&mut self, user: &[u8]) {
        assert!(user.len() <= USER_BYTES_MAX, "the application's record is at most {USER_BYTES_MAX} bytes");
        if self.user != user {
            self.user = user.to_vec();
            self.user_changed = true;
        }
    }

    /// The record in the newest checkpoint on disk.
    pub fn durable_user(&self) -> &[u8] {
        &self.durable_users[0]
    }

    /// The record in the older checkpoint on disk: what a restart falls back to if the newer one is damaged.
    /// Whatever is needed to redo changes since then must be kept.
    pub fn fallback_user(&self) -> &[u8] {
        &self.durable_users[1]
    }

    pub(super) fn user_made_durable(&mut self, user: Vec<u8>) {
        let [newest, older] = &mut self.durable_users;
        *older = std::mem::replace(newest, user);
    }

    /// Freezes the present state: the view goes on showing it while writes go on, until [`Tree::unpin`].
    pub fn pin(&mut self) -> View {
        // Several pins of one state are one.
        if let Some(newest) = self.space.holders().last()
            && newest.generation + 1 == self.space.generation()
            && matches!(newest.who, Who::Pins { .. })
            && newest.roots == self.roots
        {
            let generation = newest.generation;
            self.space.share_pin(generation);
            return View::Pinned(generation);
        }
        View::Pinned(self.space.freeze(Who::Pins { count: 1 }, self.roots))
    }

    /// Gives a pinned view back: once per [`Tree::pin`].
    pub fn unpin(&mut self, view: View) {
        if let View::Pinned(generation) = view {
            let freed = self.space.unpin(generation);
            self.forget(&freed);
        }
    }

    /// Bytes of pages that the next checkpoint will write, apart from the free map's.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_count as u64 * self.page_bytes as u64
    }

    pub fn stats(&self) -> Stats {
        Stats {
            checkpoint: self.checkpoint - 1 - u64::from(self.running.is_some()),
            page_bytes: self.page_bytes,
            file_bytes: self.mapping.page_count * self.page_bytes as u64,
            used_pages: self.space.used().count() as u64,
            free_pages: self.space.free().count() as u64,
            held_pages: self.space.held_count() as u64,
            dirty_bytes: self.dirty_bytes(),
            pins: self.space.holders().iter().filter(|h| matches!(h.who, Who::Pins { .. })).count(),
            depth: self.roots.map(|root| if root.link.is_none() { 0 } else { root.level + 1 }),
        }
    }

    pub(super) fn view_roots(&self, view: View) -> &Roots {
        let View::Pinned(generation) = view else { return &self.roots };
        let holder = self.space.holders().iter().find(|holder| holder.generation == generation);
        &holder.expect("a pinned view is used before it is unpinned").roots
    }

    // ---- pages -------------------------------------------------------------------------------------------

    /// The page that a link leads to: the gate through which every page comes (T-9 … T-12).
    #[inline]
    pub(super) fn page(&self, link: Link, kind: Kind) -> Result<PageBytes<'_, D>> {
        let page = self.any_page(link.page)?;
        let born =
            if planted::on("tree-lost-write-unseen") { link.born } else { page_checkpoint(&page) as u32 };
        if page[16] != kind as u8 || born != link.born {
            let found = format!("kind {} of checkpoint {}", page[16], page_checkpoint(&page));
            let expected = format!("kind {} of checkpoint {} (low 32 bits)", kind as u8, link.born);
            return Err(self.damaged(link.page, found, expected));
        }
        Ok(page)
    }

    /// A leaf or a branch of the given level. Levels fall by one with every step down, so a descent ends
    /// whatever the pages say (T-13).
    #[inline]
    pub(super) fn node_page(&self, link: Link, level: u8) -> Result<PageBytes<'_, D>> {
        let page = self.page(link, if level == 0 { Kind::Leaf } else { Kind::Branch })?;
        if page_level(&page) != level {
            return Err(self.damaged(
                link.page,
                format!("level {}", page_level(&page)),
                format!("level {level}"),
            ));
        }
        Ok(page)
    }

    /// A page on the path of a change must be in use, and belong to the key space that is being changed.
    pub(super) fn check_on_path(&self, no: PageNo, page: &[u8], root: RootNo) -> Result<()> {
        self.check_in_use(no)?;
        if usize::from(page_root(page)) != root {
            let found = format!("a page of root {}", page_root(page));
            return Err(self.damaged(no, found, format!("root {root}")));
        }
        Ok(())
    }

    /// Every page that a change will let go must be in use: a free one could be handed out for the very change.
    pub(super) fn check_in_use(&self, no: PageNo) -> Result<()> {
        if self.space.used().contains(no) {
            return Ok(());
        }
        Err(self.damaged(no, "a link to it".into(), "none: the free map calls it free"))
    }

    /// A page by its number alone, whatever it is.
    #[inline]
    pub(super) fn any_page(&self, no: PageNo) -> Result<PageBytes<'_, D>> {
        match self.table.get(no) {
            Some(slot) => Ok(PageBytes::Memory(&slot.bytes)),
            None => Ok(PageBytes::Mapped(self.mapped_page(no)?)),
        }
    }

    #[inline]
    fn mapped_page(&self, no: PageNo) -> Result<<D::Pages as Pages>::Page<'_>> {
        let range = page_range(no, self.page_bytes);
        let page = self.mapping.pages.bytes(range.start, self.page_bytes);
        let Some(page) = page.filter(|_| no >= self.first_page()) else {
            return Err(self.damaged(
                no,
                "a link to it".into(),
                format!("below {}", self.mapping.page_count),
            ));
        };
        let (verified, bit) = (&self.mapping.verified[no as usize / 64], 1 << (no % 64));
        if verified.get() & bit == 0 {
            self.verify(no, &page)?;
            verified.set(verified.get() | bit);
        }
        Ok(page)
    }

    #[cold]
    fn verify(&self, no: PageNo, page: &[u8]) -> Result<()> {
        let (found, computed) = (get_u32(page, 0), page_crc(page, self.file_id, no));
        if found != computed && !planted::on("tree-checksum-unchecked") {
            return Err(self.damaged(no, format!("checksum {found:08x}"), format!("{computed:08x}")));
        }
        if page_no(page) != no {
            return Err(self.damaged(no, format!("page {}", page_no(page)), format!("page {no}")));
        }
        let bound = self.mapping.page_count.min(u64::from(PageNo::MAX)) as PageNo;
        validate(page, &self.fit, bound).map_err(|(found, expected)| self.damaged(no, found, expected))
    }

    #[cold]
    pub(super) fn damaged(&self, no: PageNo, found: String, expected: impl Into<String>) -> Error {
        let offset = page_range(no, self.page_bytes).start;
        Error::corrupt(&self.path, offset, format!("page {no}"), found, expected)
    }

    #[cold]
    pub(super) fn damaged_meta(&self, meta: &Meta, found: String, expected: String) -> Error {
        let what = format!("meta slot {} (checkpoint {})", meta.slot(), meta.checkpoint);
        Error::corrupt(&self.path, META_OFFSETS[meta.slot()], what, found, expected)
    }

    /// A new page in memory, not yet started.
    pub(super) fn new_page(&mut self) -> Result<PageNo> {
        let bytes = std::iter::repeat_n(0, self.page_bytes).collect();
        self.adopt_page(bytes)
    }

    fn adopt_page(&mut self, bytes: Arc<[u8]>) -> Result<PageNo> {
        let no = self.space.alloc()?;
        self.table.insert(no, Slot { bytes, birth: self.space.generation(), run: Run::default() });
        self.newborn.push(no);
        self.dirty_count += 1;
        Ok(no)
    }

    /// A copy of a page under a new number, which the caller must link to.
    pub(super) fn copy_page(&mut self, link: Link, kind: Kind) -> Result<PageNo> {
        let bytes = Arc::from(&*self.page(link, kind)?);
        let run = self.table.get(link.page).map_or(Run::default(), |slot| slot.run);
        let no = self.adopt_page(bytes)?;
        *self.run_mut(no) = run;
        let checkpoint = self.checkpoint;
        rename_page(self.page_mut(no), no, checkpoint);
        Ok(no)
    }

    /// Passes on the result of a change; after an error no checkpoint will be taken.
    pub(super) fn guard<T>(&mut self, result: Result<T>) -> Result<T> {
        let result = match self.second_link.take() {
            Some(page) => Err(self.damaged(page, "a second link to it".into(), "one")),
            None => result,
        };
        self.broken |= result.is_err();
        self.change_count += 1;
        result
    }

    pub(super) fn change_count(&self) -> u64 {
        self.change_count
    }

    /// A buffer to put a cell together in, in whatever state the last one left it.
    pub(super) fn take_scratch(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.scratch)
    }

    pub(super) fn keep_scratch(&mut self, scratch: Vec<u8>) {
        self.scratch = scratch;
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// A page that may be changed in place.
    pub(super) fn writable_page(&self, no: PageNo) -> Option<&[u8]> {
        self.table.get(no).filter(|slot| self.space.is_private(slot.birth)).map(|slot| &*slot.bytes)
    }

    /// Whether a page may be changed in place.
    #[inline]
    pub(super) fn is_writable(&self, no: PageNo) -> bool {
        self.table.get(no).is_some_and(|slot| self.space.is_private(slot.birth))
    }

    pub(super) fn in_memory(&self, no: PageNo) -> bool {
        self.table.get(no).is_some()
    }

    pub(super) fn page_mut(&mut self, no: PageNo) -> &mut [u8] {
        let slot = self.table.get_mut(no).expect("only pages in memory are changed");
        Arc::get_mut(&mut slot.bytes).expect("a page that a checkpoint writes is not changed")
    }

    pub(super) fn run_mut(&mut self, no: PageNo) -> &mut Run {
        &mut self.table.get_mut(no).expect("only pages in memory are changed").run
    }

    /// The present state no longer uses this page.
    pub(super) fn release(&mut self, no: PageNo) {
        // A damaged file can lead to one page in two ways, and then it is let go twice.
        if !self.space.used().contains(no) {
            self.second_link = Some(no);
            return;
        }
        let birth = match self.table.get(no) {
            Some(slot) => slot.birth,
            None => {
                let range = page_range(no, self.page_bytes);
                let page = self.mapping.pages.bytes(range.start, self.page_bytes);
                page.map_or(0, |page| self.space.birth_in(page_checkpoint(&page)))
            }
        };
        // Pages of this checkpoint that are let go will not be written, wherever they are held.
        if self.table.get(no).is_some_and(|slot| self.born_now(slot)) {
            self.dirty_count -= 1;
        }
        if self.space.release(no, birth) {
            self.table.remove(no);
        }
    }

    fn born_now(&self, slot: &Slot) -> bool {
        page_checkpoint(&slot.bytes) == self.checkpoint
    }

    pub(super) fn forget(&mut self, freed: &[PageNo]) {
        for &no in freed {
            self.table.remove(no);
        }
    }

    // ---- for the other files of this module --------------------------------------------------------------

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &D::File {
        &self.file
    }

    pub(super) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    pub(super) fn fit(&self) -> Fit {
        self.fit
    }

    pub(super) fn file_id(&self) -> u64 {
        self.file_id
    }

    pub(super) fn first_page(&self) -> PageNo {
        first_page(self.page_bytes)
    }

    pub(super) fn mapped_pages(&self) -> u64 {
        self.mapping.page_count
    }

    pub(super) fn checkpoint_number(&self) -> u64 {
        self.checkpoint
    }

    /// What links to pages born now say.
    pub(super) fn born(&self) -> u32 {
        self.checkpoint as u32
    }

    pub(super) fn space(&self) -> &Space {
        &self.space
    }

    pub(super) fn space_mut(&mut self) -> &mut Space {
        &mut self.space
    }

    /// The pages of the checkpoint that ends now, in rising order; the next checkpoint begins.
    pub(super) fn take_newborn(&mut self) -> Vec<(PageNo, Arc<[u8]>)> {
        let mut newborn = std::mem::take(&mut self.newborn);
        newborn.sort_unstable();
        newborn.dedup();
        let pages: Vec<(PageNo, Arc<[u8]>)> = newborn
            .into_iter()
            .filter(|&no| self.space.used().contains(no))
            .filter_map(|no| {
                let slot = self.table.get(no).expect("pages in use and not on disk are in memory");
                self.born_now(slot).then(|| (no, slot.bytes.clone()))
            })
            .collect();
        assert_eq!(pages.len(), self.dirty_count, "every dirty page is written, and no other");
        self.dirty_count = 0;
        self.checkpoint += 1;
        pages
    }

    /// The pages are on disk: from now on they are read there.
    pub(super) fn drop_written(&mut self, frozen: &Frozen, file_bytes: u64) -> Result<()> {
        let page_count = (file_bytes / self.page_bytes as u64).min(u64::from(PageNo::MAX));
        let readable = page_count * self.page_bytes as u64;
        self.mapping.pages.set_len(readable).map_err(|e| Error::io("mapping", &self.path, e))?;
        self.mapping.resize(page_count);
        for (no, _) in &frozen.pages {
            let verified = &self.mapping.verified[*no as usize / 64];
            verified.set(verified.get() & !(1 << (no % 64)));
            let slot = self.table.remove(*no);
            assert!(slot.is_some(), "a page stays in memory until its checkpoint is durable");
        }
        Ok(())
    }

    /// The path from a root down to a page of the given level that covers `key`.
    pub(super) fn path_to(&self, root: RootNo, key: &[u8], level: u8) -> Result<Descent> {
        let top = self.roots[root];
        let mut path = Descent::new();
        let mut link = top.link;
        for at in (level..=top.level).rev() {
            let page = self.node_page(link, at)?;
            self.check_on_path(link.page, &page, root)?;
            if at == level {
                path.push(link, 0);
                break;
            }
            let node = super::node::Node::new(&page);
            let index = node.search_branch(key, |rest| self.compare_chain(rest, key))?;
            path.push(link, index);
            link = node.child(index);
        }
        Ok(path)
    }
}

impl<D: Disk> Mapping<D> {
    fn resize(&mut self, page_count: u64) {
        self.page_count = page_count;
        self.verified.resize(page_count.div_ceil(64) as usize, Cell::new(0));
        // Pages behind a shortened end may come back with other content: they must be verified again.
        if let (Some(last), used) = (self.verified.last(), page_count % 64)
            && used != 0
        {
            last.set(last.get() & ((1 << used) - 1));
        }
    }
}

/// A step down: a page, and the index of the cell taken in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Step {
    pub link: Link,
    pub index: usize,
}

/// From a root downwards.
#[derive(Clone, Debug)]
pub(super) struct Descent {
    steps: [Step; LEVELS_MAX],
    len: usize,
}

impl Descent {
    pub(super) fn new() -> Descent {
        Descent { steps: [Step::default(); LEVELS_MAX], len: 0 }
    }

    pub(super) fn pop(&mut self) {
        self.len -= 1;
    }

    pub(super) fn push(&mut self, link: Link, index: usize) {
        self.steps[self.len] = Step { link, index };
        self.len += 1;
    }
}

impl Deref for Descent {
    type Target = [Step];
    fn deref(&self) -> &[Step] {
        &self.steps[..self.len]
    }
}

impl std::ops::DerefMut for Descent {
    fn deref_mut(&mut self) -> &mut [Step] {
        &mut self.steps[..self.len]
    }
}

// ---- a new file ------------------------------------------------------------------------------------------

impl<D: Disk> Tree<D> {
    /// Makes a new file. It is made under another name and renamed when it is whole, so that a crash leaves
    /// either nothing at `path` or a file that opens.
    pub fn create(disk: &D, path: &Path, options: Options, user: &[u8]) -> Result<Tree<D>> {
        assert!(is_page_size(options.page_bytes), "a page size is a power of two in 256..=65536");
        assert!(user.len() <= USER_BYTES_MAX, "the application's record is at most {USER_BYTES_MAX} bytes");
        if disk.exists(path).map_err(|e| Error::io("looking for", path, e))? {
            return Err(Error::Refused(format!("{} exists already", path.display())));
        }
        let draft = path.with_extension("new");
        if disk.exists(&draft).map_err(|e| Error::io("looking for", &draft, e))? {
            disk.remove(&draft).map_err(|e| Error::io("removing", &draft, e))?;
        }
        let file = disk.open(&draft, Open::Create).map_err(|e| Error::io("creating", &draft, e))?;
        let blank = super::checkpoint::blank_file(options, user);
        file.write_at(0, &blank).map_err(|e| Error::io("writing", &draft, e))?;
        file.sync_data().map_err(|e| Error::io("syncing", &draft, e))?;
        disk.rename(&draft, path).map_err(|e| Error::io("renaming", &draft, e))?;
        sync_name(disk, path)?;
        Tree::load(disk, path, file)
    }
}

fn sync_name<D: Disk>(disk: &D, path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new(""));
    disk.sync_dir(dir).map_err(|e| Error::io("syncing", dir, e))
}

const _: () = assert!(META_AREA_BYTES as u64 >= META_OFFSETS[1] + META_BYTES as u64);
