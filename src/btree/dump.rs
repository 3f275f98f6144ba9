//! Prints a tree file page by page, for tests that freeze the format and for people with a puzzle.

use std::fmt::Write;
use std::path::Path;

use crate::base::{Error, Result};
use crate::io::{Disk, Open};

use super::chain::chain_head;
use super::format::{
    CHAIN_DATA_AT, Kind, Link, META_OFFSETS, Meta, get_u16, get_u32, page_checkpoint, page_level, page_root,
};
use super::node::{CellKey, Node};
use super::slots::read_slots;
use super::tree::Tree;

/// Keys, values and records are shown up to this many bytes.
const SHOWN_BYTES_MAX: usize = 24;

/// The slots, and every page that the newest checkpoint uses, as text. Changes nothing.
pub fn dump<D: Disk>(disk: &D, path: &Path) -> Result<String> {
    let file = disk.open(path, Open::Read).map_err(|e| Error::io("opening", path, e))?;
    let mut out = String::new();
    for (slot, meta) in read_slots(&file, path)?.iter().enumerate() {
        match meta {
            Ok(meta) => dump_slot(&mut out, meta),
            Err(fault) => put(&mut out, format_args!("slot {slot} at {}: {fault:?}", META_OFFSETS[slot])),
        }
    }
    let tree = Tree::load(disk, path, file)?;
    for no in tree.space().used().iter() {
        let page = tree.any_page(no)?;
        let (crc, checkpoint) = (get_u32(&page, 0), page_checkpoint(&page));
        let (level, root) = (page_level(&page), page_root(&page));
        let what = Kind::of(&page).map_or("?".to_string(), |kind| format!("{kind:?}").to_lowercase());
        put(
            &mut out,
            format_args!("page {no} crc={crc:08x} born={checkpoint} {what} level={level} root={root}"),
        );
        match Kind::of(&page) {
            Some(Kind::Leaf | Kind::Branch) => dump_cells(&mut out, &Node::new(&page)),
            Some(Kind::Overflow) => {
                let (head, key, value) = chain_head(&page);
                let data = &page[CHAIN_DATA_AT..][..usize::from(get_u16(&page, 24))];
                let next = get_u32(&page, 20);
                let (count, data) = (data.len(), shown(data));
                put(
                    &mut out,
                    format_args!("  head={head} next={next} key={key} value={value} data={count}:{data}"),
                );
            }
            Some(Kind::Bits) => {
                let words = page[32..]
                    .chunks_exact(8)
                    .map(|word| u64::from_le_bytes(word.try_into().expect("a chunk of eight")));
                for (at, word) in words.enumerate().filter(|(_, word)| *word != 0) {
                    put(&mut out, format_args!("  word {at}: {word:016x}"));
                }
            }
            Some(Kind::Directory) => {
                for at in (32..page.len()).step_by(8).filter(|at| get_u32(&page, *at) != 0) {
                    put(&mut out, format_args!("  {}", link(Link::read(&page, at))));
                }
            }
            None => {}
        }
    }
    Ok(out)
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("writing to a string does not fail");
}

fn dump_slot(out: &mut String, meta: &Meta) {
    let Meta { checkpoint, page_bytes, file_id, page_count, map_levels, .. } = meta;
    let slot = meta.slot();
    put(out, format_args!("slot {slot} checkpoint={checkpoint} page_bytes={page_bytes} file={file_id:016x}"));
    let map = link(meta.map_root);
    put(
        out,
        format_args!("  pages={page_count} map={map} map_levels={map_levels} user={}", shown(&meta.user)),
    );
    for (root, top) in meta.roots.iter().enumerate().filter(|(_, top)| !top.link.is_none()) {
        put(out, format_args!("  root {root}={} level={}", link(top.link), top.level));
    }
}

fn dump_cells(out: &mut String, node: &Node<'_>) {
    for index in 0..node.count() {
        if node.is_leaf() {
            let cell = node.leaf(index);
            let mark = if cell.counted() { "+" } else { " " };
            let value = match cell.chain() {
                Some(chain) => format!("{} bytes in {}", chain.value_bytes, link(chain.chain)),
                None => shown(cell.value),
            };
            put(out, format_args!("  {mark} {} = {value}", key(cell.cell_key())));
        } else {
            let cell = node.branch(index);
            put(out, format_args!("  {} -> {} counted={}", key(cell.key), link(cell.child), cell.counted));
        }
    }
}

fn key(key: CellKey<'_>) -> String {
    match key.rest {
        None => shown(key.kept),
        Some(rest) => format!("{} ({} bytes in {})", shown(key.kept), rest.key_bytes, link(rest.chain)),
    }
}

/// A page and the checkpoint of its birth, `17@3`.
fn link(link: Link) -> String {
    format!("{}@{}", link.page, link.born)
}

fn shown(bytes: &[u8]) -> String {
    let start = bytes[..bytes.len().min(SHOWN_BYTES_MAX)].escape_ascii();
    let more = if bytes.len() > SHOWN_BYTES_MAX { format!("...{}", bytes.len()) } else { String::new() };
    format!("\"{start}{more}\"")
}
