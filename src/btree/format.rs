//! The bytes of the tree file: meta slots, the page header, links. The drawing of all of it is section 5 of
//! `storage-format.md`; numbers like T-7 are its sentences.

use std::ops::Range;

use crate::base::crc;

use super::{ROOTS, USER_BYTES_MAX};

/// A page's place in the file, counted in pages. 0 is never a tree page, so it means "none".
pub(super) type PageNo = u32;

pub(super) const PAGE_BYTES_MIN: usize = 256;
pub(super) const PAGE_BYTES_MAX: usize = 65536;
pub(super) const PAGE_BYTES_DEFAULT: usize = 4096;

/// Levels of a tree, of a path, and of the free map: with two children per branch, more levels than this
/// would need more pages than a file can number (T-13).
pub(super) const LEVELS_MAX: usize = 32;

// ---- meta slots (T-1 … T-8) ------------------------------------------------------------------------------

const MAGIC: [u8; 8] = *b"PAWLTREE";
const VERSION: u32 = 1;
pub(super) const META_BYTES: usize = 512;
/// Where the two slots lie, whatever the page size: each in a 4096-byte sector of its own, so that a torn
/// write of one never touches the other (T-2).
pub(super) const META_OFFSETS: [u64; 2] = [0, 4096];
/// The bytes at the front of the file that belong to the slots.
pub(super) const META_AREA_BYTES: usize = 8192;
const META_ROOTS_AT: usize = 48;
const META_ROOT_BYTES: usize = 16;
const META_USER_AT: usize = META_ROOTS_AT + ROOTS * META_ROOT_BYTES;
const META_USED_BYTES: usize = META_USER_AT + USER_BYTES_MAX;
const META_CRC_AT: usize = META_BYTES - 4;
const _: () = assert!(META_USED_BYTES <= META_CRC_AT);

/// The first page that may hold a tree page.
pub(super) fn first_page(page_bytes: usize) -> PageNo {
    META_AREA_BYTES.div_ceil(page_bytes) as PageNo
}

/// A pointer to a page: where it is, and in which checkpoint it must have been born (the low 32 bits), so
/// that an older page left there by a lost write is seen (T-12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub page: PageNo,
    pub born: u32,
}

impl Link {
    pub(super) const NONE: Link = Link { page: 0, born: 0 };
    pub(super) const BYTES: usize = 8;

    pub(super) fn is_none(self) -> bool {
        self.page == 0
    }

    pub(super) fn read(bytes: &[u8], at: usize) -> Link {
        Link { page: get_u32(bytes, at), born: get_u32(bytes, at + 4) }
    }

    pub(super) fn write(self, bytes: &mut [u8], at: usize) {
        put_u32(bytes, at, self.page);
        put_u32(bytes, at + 4, self.born);
    }
}

/// The top of one key space; no link, no cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Root {
    pub link: Link,
    pub level: u8,
}

/// What a meta slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub page_bytes: usize,
    pub file_id: u64,
    pub checkpoint: u64,
    /// Pages that the free map speaks of; everything beyond is free.
    pub page_count: PageNo,
    pub map_levels: u8,
    pub map_root: Link,
    pub roots: [Root; ROOTS],
    pub user: Vec<u8>,
}

/// Why a slot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MetaFault {
    Damaged {
        found: String,
        expected: String,
    },
    /// Sound, but written by a later version of the program.
    Newer(u32),
}

impl Meta {
    /// The slot that this checkpoint's meta lives in: they take turns (T-3).
    pub(super) fn slot(&self) -> usize {
        (self.checkpoint & 1) as usize
    }

    pub(super) fn encode(&self) -> [u8; META_BYTES] {
        assert!(self.user.len() <= USER_BYTES_MAX, "the application's record fits its field");
        let mut out = [0; META_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        put_u32(&mut out, 8, VERSION);
        put_u32(&mut out, 12, self.page_bytes as u32);
        put_u64(&mut out, 16, self.file_id);
        put_u64(&mut out, 24, self.checkpoint);
        put_u32(&mut out, 32, self.page_count);
        out[36] = self.map_levels;
        out[37] = self.user.len() as u8;
        self.map_root.write(&mut out, 40);
        for (i, root) in self.roots.iter().enumerate() {
            let at = META_ROOTS_AT + i * META_ROOT_BYTES;
            root.link.write(&mut out, at);
            out[at + 8] = root.level;
        }
        out[META_USER_AT..META_USER_AT + self.user.len()].copy_from_slice(&self.user);
        let crc = crc::crc32(&out[..META_CRC_AT]);
        put_u32(&mut out, META_CRC_AT, crc);
        out
    }

    /// Checks everything that can be checked without the rest of the file (T-4 … T-8).
    pub(super) fn decode(bytes: &[u8], slot: usize) -> Result<Meta, MetaFault> {
        let damaged =
            |found: String, expected: &str| Err(MetaFault::Damaged { found, expected: expected.to_string() });
        if bytes.len() < META_BYTES {
            return damaged(format!("{} bytes", bytes.len()), "512 bytes");
        }
        if bytes[..8] != MAGIC {
            return damaged(format!("{:02x?}", &bytes[..8]), "the magic PAWLTREE");
        }
        let (crc, found) = (crc::crc32(&bytes[..META_CRC_AT]), get_u32(bytes, META_CRC_AT));
        if crc != found {
            return damaged(format!("checksum {found:08x}"), &format!("{crc:08x}"));
        }
        let version = get_u32(bytes, 8);
        if version > VERSION {
            return Err(MetaFault::Newer(version));
        }
        let meta = Meta {
            page_bytes: get_u32(bytes, 12) as usize,
            file_id: get_u64(bytes, 16),
            checkpoint: get_u64(bytes, 24),
            page_count: get_u32(bytes, 32),
            map_levels: bytes[36],
            map_root: Link::read(bytes, 40),
            roots: std::array::from_fn(|i| {
                let at = META_ROOTS_AT + i * META_ROOT_BYTES;
                Root { link: Link::read(bytes, at), level: bytes[at + 8] }
            }),
            user: bytes[META_USER_AT..][..usize::from(bytes[37]).min(USER_BYTES_MAX)].to_vec(),
        };
        if version == 0 {
            return damaged("version 0".into(), "version 1");
        }
        if !is_page_size(meta.page_bytes) {
            return damaged(format!("page size {}", meta.page_bytes), "a power of two in 256..=65536");
        }
        if meta.slot() != slot {
            return damaged(format!("checkpoint {} in slot {slot}", meta.checkpoint), "the other slot");
        }
        if usize::from(bytes[37]) > USER_BYTES_MAX {
            return damaged(format!("record of {} bytes", bytes[37]), "128 at most");
        }
        if usize::from(meta.map_levels) > LEVELS_MAX || meta.map_levels == 0 {
            return damaged(format!("free map of {} levels", meta.map_levels), "1 to 32");
        }
        if let Some(root) = meta.roots.iter().find(|root| usize::from(root.level) >= LEVELS_MAX) {
            return damaged(format!("root at level {}", root.level), "below 32");
        }
        // T-8: the roomy end of the slot is for later versions, which change the version number.
        if bytes[META_USED_BYTES..META_CRC_AT].iter().any(|&byte| byte != 0) {
            return damaged("reserved bytes in use".into(), "zeroes");
        }
        Ok(meta)
    }
}

pub(super) fn is_page_size(page_bytes: usize) -> bool {
    page_bytes.is_power_of_two() && (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes)
}

// ---- pages (T-9 … T-12) ----------------------------------------------------------------------------------
//
//   0        4        8                16   17    18   19   20       22       24       26       28
//   | crc    | page   | checkpoint     |kind|level|root| 0  | cells  | heap   |garbage | 0      | slots ...
//   branch and leaf pages                                                     ... free ...  | heap to the end
//
//                                                           20                24       26       28
//   overflow pages                                          | next            | data   | 0      |
//   28       32        36         40
//   | head   | key     | value    | data ...
//
//   map pages                                               20 (zeroes)                         32
//                                                           |                                   | words or links

pub(super) const HEADER_BYTES: usize = 28;
pub(super) const CHAIN_DATA_AT: usize = 40;
pub(super) const MAP_DATA_AT: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Leaf = 1,
    Branch = 2,
    Overflow = 3,
    /// Bits of the free map.
    Bits = 4,
    /// Links to the pages of the free map one level below.
    Directory = 5,
}

impl Kind {
    pub(super) fn of(page: &[u8]) -> Option<Kind> {
        match page[16] {
            1 => Some(Kind::Leaf),
            2 => Some(Kind::Branch),
            3 => Some(Kind::Overflow),
            4 => Some(Kind::Bits),
            5 => Some(Kind::Directory),
            _ => None,
        }
    }
}

/// Writes the header of a new page; the rest of it is zeroed.
pub(super) fn start_page(page: &mut [u8], no: PageNo, checkpoint: u64, kind: Kind, level: u8, root: u8) {
    page.fill(0);
    rename_page(page, no, checkpoint);
    page[16] = kind as u8;
    page[17] = level;
    page[18] = root;
}

/// Gives a copied page its own number and time of birth.
pub(super) fn rename_page(page: &mut [u8], no: PageNo, checkpoint: u64) {
    put_u32(page, 4, no);
    put_u64(page, 8, checkpoint);
}

pub(super) fn page_no(page: &[u8]) -> PageNo {
    get_u32(page, 4)
}

pub(super) fn page_checkpoint(page: &[u8]) -> u64 {
    get_u64(page, 8)
}

pub(super) fn page_level(page: &[u8]) -> u8 {
    page[17]
}

pub(super) fn page_root(page: &[u8]) -> u8 {
    page[18]
}

/// CRC-32/IEEE over the page from byte 4 on, seeded by the file's id and the page's number (T-10): a page of
/// another file, or one written to the wrong place, does not pass.
pub(super) fn page_crc(page: &[u8], file_id: u64, no: PageNo) -> u32 {
    let mut binding = [0; 12];
    put_u64(&mut binding, 0, file_id);
    put_u32(&mut binding, 8, no);
    crc::crc32_from(crc::crc32(&binding), &page[4..])
}

pub(super) fn seal_page(page: &mut [u8], file_id: u64, no: PageNo) {
    let crc = page_crc(page, file_id, no);
    put_u32(page, 0, crc);
}

// ---- little-endian fields at places that the caller has checked ------------------------------------------

pub(super) fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    let field: &[u8; 4] = bytes[at..at + 4].try_into().expect("a range of four bytes");
    u32::from_le_bytes(*field)
}

pub(super) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    let field: &[u8; 8] = bytes[at..at + 8].try_into().expect("a range of eight bytes");
    u64::from_le_bytes(*field)
}

pub(super) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// The bytes of page `no` in the file.
pub(super) fn page_range(no: PageNo, page_bytes: usize) -> Range<u64> {
    let start = u64::from(no) * page_bytes as u64;
    start..start + page_bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        let mut roots = [Root::default(); ROOTS];
        roots[3] = Root { link: Link { page: 77, born: 5 }, level: 2 };
        Meta {
            page_bytes: 4096,
            file_id: 0x0123_4567_89ab_cdef,
            checkpoint: 5,
            page_count: 99,
            map_levels: 1,
            map_root: Link { page: 4, born: 5 },
            roots,
            user: b"applied 17".to_vec(),
        }
    }

    #[test]
    fn a_meta_slot_comes_back() {
        assert_eq!(Meta::decode(&meta().encode(), 1), Ok(meta()));
    }

    /// T-5: one flipped bit anywhere in a slot makes it unusable.
    #[test]
    fn every_flipped_bit_of_a_meta_slot_is_seen() {
        let good = meta().encode();
        for bit in 0..META_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Meta::decode(&bad, 1).is_err(), "bit {bit}");
        }
    }

    /// T-6: a newer version is refused by its number, not taken for damage.
    #[test]
    fn a_newer_version_is_named() {
        let mut newer = meta().encode();
        put_u32(&mut newer, 8, 2);
        let crc = crc::crc32(&newer[..META_CRC_AT]);
        put_u32(&mut newer, META_CRC_AT, crc);
        assert_eq!(Meta::decode(&newer, 1), Err(MetaFault::Newer(2)));
    }

    /// T-3: slots take turns, so a meta in the wrong slot was misdirected.
    #[test]
    fn a_meta_in_the_wrong_slot_is_damage() {
        assert!(matches!(Meta::decode(&meta().encode(), 0), Err(MetaFault::Damaged { .. })));
    }

    #[test]
    fn a_page_is_bound_to_its_file_and_its_place() {
        let mut page = vec![7; 256];
        start_page(&mut page, 9, 3, Kind::Leaf, 0, 1);
        seal_page(&mut page, 42, 9);
        let sealed = get_u32(&page, 0);
        assert_eq!(page_crc(&page, 42, 9), sealed);
        assert_ne!(page_crc(&page, 43, 9), sealed);
        assert_ne!(page_crc(&page, 42, 10), sealed);
    }
}
