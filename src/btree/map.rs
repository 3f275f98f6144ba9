//! The free map on disk: a bit for each page, set if the checkpoint uses it, in pages of their own under
//! directories of links (T-25 … T-29). Copy-on-write like everything else, so each checkpoint has a map that
//! is true for it, and opening a file reads a bit per page instead of walking the tree.

use crate::base::Result;
use crate::io::Disk;

use super::bits::PageSet;
use super::format::{
    HEADER_BYTES, Kind, LEVELS_MAX, Link, MAP_DATA_AT, Meta, PageNo, get_u64, page_level, put_u64, start_page,
};
use super::tree::Tree;

const _: () = assert!(MAP_DATA_AT >= HEADER_BYTES);

/// Where the pages of the map are. `levels[0]` are the pages of bits; each level above holds the links of
/// the one below, and the last level is one page.
#[derive(Clone, Debug, Default)]
pub(super) struct FreeMap {
    levels: Vec<Vec<Link>>,
}

/// Pages that one page of bits speaks of.
pub(super) fn bits_per_page(page_bytes: usize) -> PageNo {
    ((page_bytes - MAP_DATA_AT) / 8 * 64) as PageNo
}

fn links_per_page(page_bytes: usize) -> usize {
    (page_bytes - MAP_DATA_AT) / Link::BYTES
}

/// How many pages each level of the map has, for a file of that many pages.
fn level_sizes(page_count: PageNo, page_bytes: usize) -> Vec<usize> {
    let mut sizes = vec![(page_count as usize).div_ceil(bits_per_page(page_bytes) as usize).max(1)];
    while *sizes.last().expect("there is a lowest level") > 1 {
        let below = sizes[sizes.len() - 1];
        sizes.push(below.div_ceil(links_per_page(page_bytes)));
    }
    sizes
}

impl FreeMap {
    pub(super) fn root(&self) -> Link {
        self.levels.last().and_then(|top| top.first()).copied().unwrap_or(Link::NONE)
    }

    pub(super) fn level_count(&self) -> u8 {
        self.levels.len() as u8
    }

    pub(super) fn links(&self) -> impl Iterator<Item = Link> + '_ {
        self.levels.iter().flatten().copied().filter(|link| !link.is_none())
    }

    /// Level and index of a page of the map.
    fn find(&self, page: PageNo) -> Option<(usize, usize)> {
        self.levels.iter().enumerate().find_map(|(level, links)| {
            links.iter().position(|link| link.page == page).map(|index| (level, index))
        })
    }
}

impl<D: Disk> Tree<D> {
    /// Reads the map of a checkpoint: where it is, and the pages that are in use.
    pub(super) fn load_map(&self, meta: &Meta) -> Result<(FreeMap, PageSet)> {
        let page_bytes = self.page_bytes();
        let sizes = level_sizes(meta.page_count, page_bytes);
        // T-28: a page count is believed only if the file has room for the map that it asks for.
        if sizes.len() != usize::from(meta.map_levels) || sizes[0] as u64 > self.mapped_pages() {
            let found = format!("a map of {} levels for {} pages", meta.map_levels, meta.page_count);
            return Err(self.damaged_meta(meta, found, format!("{} levels, within the file", sizes.len())));
        }
        let mut levels = vec![vec![meta.map_root]];
        for size in sizes.iter().rev().skip(1) {
            let above = levels.last().expect("the root's level is there");
            let level = (sizes.len() - levels.len()) as u8;
            let mut links = Vec::with_capacity(*size);
            for &link in above {
                let page = self.map_page(link, Kind::Directory, level)?;
                let count = (*size - links.len()).min(links_per_page(page_bytes));
                links.extend((0..count).map(|index| Link::read(&page, MAP_DATA_AT + index * Link::BYTES)));
            }
            levels.push(links);
        }
        levels.reverse();
        let mut used = PageSet::new();
        let words = (page_bytes - MAP_DATA_AT) / 8;
        for (index, &link) in levels[0].iter().enumerate() {
            let page = self.map_page(link, Kind::Bits, 0)?;
            for word in 0..words {
                let bits = get_u64(&page, MAP_DATA_AT + word * 8);
                if bits != 0 {
                    used.set_word(index * words + word, bits);
                }
            }
        }
        // T-29: every page in use lies in the file, behind the meta slots.
        let last = used.last().map_or(0, u64::from);
        if last >= self.mapped_pages() || used.first().is_some_and(|first| first < self.first_page()) {
            let found = format!("pages {:?} to {last} in use", used.first());
            return Err(self.damaged_meta(meta, found, format!("below {}", self.mapped_pages())));
        }
        Ok((FreeMap { levels }, used))
    }

    fn map_page(&self, link: Link, kind: Kind, level: u8) -> Result<super::tree::PageBytes<'_, D>> {
        let page = self.page(link, kind)?;
        if page_level(&page) != level {
            let found = format!("a map page of level {}", page_level(&page));
            return Err(self.damaged(link.page, found, format!("level {level}")));
        }
        Ok(page)
    }

    /// Gives each page of the map that must change a new place, and writes it there. Finding a place changes
    /// the map again, but each of its pages moves at most once per checkpoint, so this ends.
    pub(super) fn save_map(&mut self) -> Result<()> {
        // As low as can be, so that the map is never what keeps the end of the file in use.
        self.space_mut().set_lowest_first(true);
        let placed = self.place_map();
        self.space_mut().set_lowest_first(false);
        placed?;
        self.write_map();
        Ok(())
    }

    fn place_map(&mut self) -> Result<()> {
        loop {
            self.resize_map();
            let mut moved = false;
            for level in 0..self.map.levels.len() {
                for index in 0..self.map.levels[level].len() {
                    moved |= self.move_map_page_if_changed(level, index)?;
                }
            }
            if !moved && !self.space().any_map_changed() {
                return Ok(());
            }
        }
    }

    fn resize_map(&mut self) {
        let sizes = level_sizes(self.space().page_count(), self.page_bytes());
        assert!(sizes.len() <= LEVELS_MAX, "32-bit page numbers need few levels");
        let height = sizes.len();
        for level in 0..height.max(self.map.levels.len()) {
            let wanted = sizes.get(level).copied().unwrap_or(0);
            if level == self.map.levels.len() {
                self.map.levels.push(Vec::new());
            }
            while self.map.levels[level].len() > wanted {
                let link = self.map.levels[level].pop().expect("it is longer than wanted");
                if !link.is_none() {
                    self.release(link.page);
                }
            }
            self.map.levels[level].resize(wanted, Link::NONE);
        }
        self.map.levels.truncate(height);
        self.space_mut().shorten_map(sizes[0]);
    }

    /// Whether the page had to move. A directory has changed if a page below it moved.
    fn move_map_page_if_changed(&mut self, level: usize, index: usize) -> Result<bool> {
        let (link, born) = (self.map.levels[level][index], self.born());
        let asked = level == 0 && self.space_mut().take_map_changed(index);
        if self.map_page_is_new(link) {
            return Ok(false);
        }
        let changed = if level == 0 {
            asked
        } else {
            let fan = links_per_page(self.page_bytes());
            let below = &self.map.levels[level - 1];
            let children = &below[index * fan..below.len().min((index + 1) * fan)];
            children.iter().any(|&child| self.map_page_is_new(child))
        };
        if !changed && !link.is_none() {
            return Ok(false);
        }
        let page = self.new_page()?;
        if !link.is_none() {
            self.release(link.page);
        }
        self.map.levels[level][index] = Link { page, born };
        Ok(true)
    }

    /// Whether the page has its place in the present checkpoint already.
    fn map_page_is_new(&self, link: Link) -> bool {
        !link.is_none() && link.born == self.born() && self.in_memory(link.page)
    }

    fn write_map(&mut self) {
        let (page_bytes, checkpoint) = (self.page_bytes(), self.checkpoint_number());
        let (words, fan) = ((page_bytes - MAP_DATA_AT) / 8, links_per_page(page_bytes));
        let map = std::mem::take(&mut self.map);
        for (level, links) in map.levels.iter().enumerate() {
            for (index, &link) in links.iter().enumerate() {
                if !self.map_page_is_new(link) {
                    continue;
                }
                let bits: Vec<u64> = if level == 0 {
                    (0..words).map(|word| self.space().used().word(index * words + word)).collect()
                } else {
                    Vec::new()
                };
                let kind = if level == 0 { Kind::Bits } else { Kind::Directory };
                let page = self.page_mut(link.page);
                start_page(page, link.page, checkpoint, kind, level as u8, 0);
                for (word, bits) in bits.into_iter().enumerate() {
                    put_u64(page, MAP_DATA_AT + word * 8, bits);
                }
                if level > 0 {
                    let below = &map.levels[level - 1];
                    for (child, link) in below.iter().skip(index * fan).take(fan).enumerate() {
                        link.write(page, MAP_DATA_AT + child * Link::BYTES);
                    }
                }
            }
        }
        self.map = map;
    }

    /// Marks a page of the map as changed, so that the next checkpoint moves it to a lower place; whether
    /// `page` is one.
    pub(super) fn move_map_page(&mut self, page: PageNo) -> Result<bool> {
        let Some((level, index)) = self.map.find(page) else { return Ok(false) };
        let link = self.map.levels[level][index];
        if !self.map_page_is_new(link) {
            // Without a place it gets one when the map is saved.
            self.release(page);
            self.map.levels[level][index] = Link::NONE;
        }
        Ok(true)
    }
}
