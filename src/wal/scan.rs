//! Reads one segment from its start to the place where its records end. Judges nothing: what the end
//! means is `recover`'s to say.

use std::path::{Path, PathBuf};

use crate::base::planted;
use crate::base::{ClusterId, Error, MemberId, Result};
use crate::io::{Disk, File, Open};
use crate::wal::format::{
    Kind, RECORD_HEADER_BYTES, RecordHeader, SECTOR, SECTOR_BYTES, SEGMENT_FILE_BYTES_MAX, SegmentHeader,
    Unfit, check_payload, padded, parse_record, sector_end,
};

/// Read ahead by this much: memory stays bounded however large a segment is.
const WINDOW_BYTES: usize = 1 << 20;

/// A file read front to back through a sliding buffer.
pub(super) struct Window<F> {
    file: F,
    pub(super) path: PathBuf,
    pub(super) file_bytes: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<F: File> Window<F> {
    pub(super) fn open<D: Disk<File = F>>(disk: &D, path: &Path) -> Result<Window<F>> {
        let file = disk.open(path, Open::Read).map_err(|e| Error::io("open", path, e))?;
        let file_bytes = file.len_bytes().map_err(|e| Error::io("measure", path, e))?;
        let file_bytes = file_bytes.min(SEGMENT_FILE_BYTES_MAX);
        Ok(Window { file, path: path.to_path_buf(), file_bytes, start: 0, bytes: Vec::new() })
    }

    /// `offset..offset + count`, or None where that ends behind the file's end (W-22: checked before anything
    /// is allocated).
    pub(super) fn bytes(&mut self, offset: u64, count: usize) -> Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(count as u64).filter(|end| *end <= self.file_bytes) else {
            return Ok(None);
        };
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            let want = (count.max(WINDOW_BYTES) as u64).min(self.file_bytes - offset) as usize;
            self.bytes.resize(want, 0);
            self.start = offset;
            let read = self.file.read_at(offset, &mut self.bytes);
            let read = read.map_err(|e| Error::io("read", &self.path, e))?;
            self.bytes.truncate(read);
            if read < count {
                return Ok(None); // the file became shorter since it was measured
            }
        }
        let from = (offset - self.start) as usize;
        Ok(Some(&self.bytes[from..from + count]))
    }
}

/// Where the records of a segment end, and what was there instead of a record.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) offset: u64,
    pub(super) unfit: Unfit,
}

/// What reading on gave.
pub(super) enum Step<'a> {
    Record { offset: u64, header: RecordHeader, payload: &'a [u8] },
    End(End),
}

/// The records of one segment, in order, as far as they are valid and chained (W-11, W-12).
pub(super) struct Scan<F> {
    pub(super) window: Window<F>,
    pub(super) header: SegmentHeader,
    pub(super) seed: u32,
    at: u64,
    /// Only a begin is allowed next: a group has ended.
    at_border: bool,
    /// The crc of the last record.
    pub(super) chain: u32,
    /// The same without the seal, if the last record is a begin: what a next segment's header must hold.
    pub(super) chain_before_seal: u32,
    pub(super) opening: u32,
    /// Everything below was durable when the newest begin was written (W-7), or when the segment got its
    /// name (W-3).
    pub(super) watermark: u64,
}

impl<F: File> Scan<F> {
    /// Reads and checks the segment header; `owner` is whose it must be, if that is known.
    pub(super) fn open<D: Disk<File = F>>(
        disk: &D,
        path: &Path,
        owner: Option<(ClusterId, MemberId)>,
    ) -> Result<Scan<F>> {
        let mut window = Window::open(disk, path)?;
        let file_bytes = window.file_bytes;
        let Some(first) = window.bytes(0, SECTOR_BYTES)? else {
            let found = format!("{file_bytes} bytes");
            return Err(Error::corrupt(path, 0, "segment header", found, "at least 512 bytes"));
        };
        let mut sector = [0; SECTOR_BYTES];
        sector.copy_from_slice(first);
        let (header, crc) = SegmentHeader::decode(path, &sector, owner)?;
        Ok(Scan {
            window,
            header,
            seed: header.seed(),
            at: SECTOR,
            at_border: true,
            chain: crc,
            chain_before_seal: crc,
            opening: header.opening,
            watermark: header.synced_bytes,
        })
    }

    /// The next record, or where and why there is none. After an end it gives the same end again.
    pub(super) fn next(&mut self) -> Result<Step<'_>> {
        self.skip_padding()?;
        let offset = self.at;
        let header = match self.header_at(offset)? {
            Ok(header) => header,
            Err(unfit) => return Ok(Step::End(End { offset, unfit })),
        };
        let payload_at = offset + RECORD_HEADER_BYTES as u64;
        let padded_bytes = padded(header.payload_bytes as usize);
        let seed = self.seed;
        let file_bytes = self.window.file_bytes;
        let Some(payload) = self.window.bytes(payload_at, padded_bytes)? else {
            let found = format!("a file of {file_bytes} bytes");
            let expected = format!("a payload of {} bytes at {payload_at}", header.payload_bytes);
            return Ok(Step::End(End { offset, unfit: Unfit { found, expected } }));
        };
        if let Err(mut unfit) = check_payload(&header, seed, payload)
            && !planted::on("wal-payload-unchecked")
        {
            unfit.expected += &format!(" (record {:?} {})", header.kind, header.id);
            return Ok(Step::End(End { offset, unfit }));
        }
        if header.kind == Kind::Begin {
            self.chain_before_seal = self.chain;
            self.watermark = self.watermark.max(offset);
        } else {
            self.chain_before_seal = header.crc;
        }
        self.chain = header.crc;
        self.opening = header.opening;
        self.at = payload_at + padded_bytes as u64;
        self.at_border = false;
        Ok(Step::Record { offset, header, payload: &payload[..header.payload_bytes as usize] })
    }

    /// Zeroes up to the sector's end close a group (W-6).
    fn skip_padding(&mut self) -> Result<()> {
        let border = sector_end(self.at);
        let rest = self.window.bytes(self.at, (border - self.at) as usize)?;
        if border > self.at && rest.is_some_and(|rest| rest.iter().all(|&byte| byte == 0)) {
            self.at = border;
            self.at_border = true;
        }
        Ok(())
    }

    fn header_at(&mut self, offset: u64) -> Result<Result<RecordHeader, Unfit>> {
        let unfit = |found: String, expected: &str| Ok(Err(Unfit { found, expected: expected.to_string() }));
        let (seed, file_bytes) = (self.seed, self.window.file_bytes);
        let Some(bytes) = self.window.bytes(offset, RECORD_HEADER_BYTES)? else {
            return unfit(format!("the end of the file at {file_bytes}"), "a record header");
        };
        let mut array = [0; RECORD_HEADER_BYTES];
        array.copy_from_slice(bytes);
        let header = match parse_record(&array, seed, offset) {
            Ok(header) => header,
            Err(unfit) => return Ok(Err(unfit)),
        };
        let begins = header.kind == Kind::Begin;
        if begins && !offset.is_multiple_of(SECTOR) {
            return unfit("a begin inside a sector".into(), "one on a sector border");
        }
        if self.at_border && !begins {
            return unfit(format!("{:?}", header.kind), "the begin of a group");
        }
        if planted::on("wal-stale-record-parses") {
            return Ok(Ok(header));
        }
        if header.chain != self.chain {
            return unfit(format!("chain {:08x}", header.chain), &format!("{:08x}", self.chain));
        }
        if header.opening < self.opening {
            return unfit(format!("opening {}", header.opening), &format!("at least {}", self.opening));
        }
        Ok(Ok(header))
    }

    /// The first valid begin on a sector border at or behind `from`: proof that everything before it was
    /// durable (W-7), whatever it looks like now.
    pub(super) fn later_begin(&mut self, from: u64) -> Result<Option<u64>> {
        let mut border = sector_end(from);
        let (seed, opening) = (self.seed, self.opening);
        while let Some(bytes) = self.window.bytes(border, RECORD_HEADER_BYTES)? {
            // Cheap tests first: this may look at every sector of a large file.
            if bytes[..4] == [Kind::Begin.byte(), 0, 0, 0] {
                let mut array = [0; RECORD_HEADER_BYTES];
                array.copy_from_slice(bytes);
                if parse_record(&array, seed, border).is_ok_and(|header| header.opening >= opening) {
                    return Ok(Some(border));
                }
            }
            border += SECTOR;
        }
        Ok(None)
    }
}
