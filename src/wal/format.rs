//! The bytes of `storage-format.md`, section 4, as pure functions: no file is touched here.

use std::path::Path;

use crate::base::codec::Short;
use crate::base::crc::{crc32, crc32_from};
use crate::base::limits::ENTRY_BYTES_MAX;
use crate::base::{ClusterId, EntryId, Error, Index, MemberId, Reader, Result};
use crate::raft::{EntryKind, HardState};

/// Groups begin on multiples of this (W-6).
pub const SECTOR_BYTES: usize = 512;
/// [`SECTOR_BYTES`] as an offset; also where the first group of a segment begins.
pub const SECTOR: u64 = SECTOR_BYTES as u64;
pub const MAGIC: [u8; 8] = *b"PAWLWAL\n";
pub const VERSION: u32 = 1;
pub const RECORD_HEADER_BYTES: usize = 40;
/// No segment is longer; what stands behind in a file is not read. Offsets fit in 32 bits of 8-byte words.
pub const SEGMENT_FILE_BYTES_MAX: u64 = 1 << 35;
/// Indexes and openings above these are damage, so that arithmetic on what was read can not overflow (W-22).
pub const INDEX_MAX: Index = 1 << 62;
pub const OPENING_MAX: u32 = 1 << 31;

const _: () = assert!(SECTOR_BYTES.is_multiple_of(8) && RECORD_HEADER_BYTES.is_multiple_of(8));
const _: () = assert!(ENTRY_BYTES_MAX + RECORD_HEADER_BYTES + 8 < u32::MAX as usize);

// Offsets of the record header, as a chain: each field begins where the one before it ends.
const CRC_AT: usize = 4;
const PAYLOAD_CRC_AT: usize = CRC_AT + 4;
const CHAIN_AT: usize = PAYLOAD_CRC_AT + 4;
const PAYLOAD_BYTES_AT: usize = CHAIN_AT + 4;
const OPENING_AT: usize = PAYLOAD_BYTES_AT + 4;
const INDEX_AT: usize = OPENING_AT + 4;
const TERM_AT: usize = INDEX_AT + 8;
const _: () = assert!(TERM_AT + 8 == RECORD_HEADER_BYTES);

/// Where the segment header's own CRC is.
const HEADER_CRC_AT: usize = 12;

/// The next multiple of 8.
pub const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

/// The next sector border at or behind `offset`.
pub const fn sector_end(offset: u64) -> u64 {
    offset.next_multiple_of(SECTOR)
}

/// What a record takes up in a segment, header and padding included.
pub const fn record_bytes(payload_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + padded(payload_bytes)
}

/// What a record does (section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Entry(EntryKind),
    HardState,
    Begin,
    Cut,
    Reset,
}

impl Kind {
    pub const fn byte(self) -> u8 {
        match self {
            Kind::Entry(EntryKind::Normal) => 1,
            Kind::Entry(EntryKind::Membership) => 2,
            Kind::HardState => 3,
            Kind::Begin => 4,
            Kind::Cut => 5,
            Kind::Reset => 6,
        }
    }

    pub const fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Entry(EntryKind::Normal),
            2 => Kind::Entry(EntryKind::Membership),
            3 => Kind::HardState,
            4 => Kind::Begin,
            5 => Kind::Cut,
            6 => Kind::Reset,
            _ => return None,
        })
    }
}

/// A record's header. `id` is (vote, term) in a hard state, the entry's or the named entry's id elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    pub kind: Kind,
    /// Also the chain value of the record behind it.
    pub crc: u32,
    pub payload_crc: u32,
    pub chain: u32,
    pub payload_bytes: u32,
    pub opening: u32,
    pub id: EntryId,
}

/// Why bytes are not a record header: what was found, and what should have been there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub found: String,
    pub expected: String,
}

/// What the checksums of a segment's records start from (W-11). Segments of one log differ for certain:
/// a CRC tells apart any two inputs that differ in one run of at most 32 bits, and sequences are below 2^32.
pub fn seed(salt: u32, cluster: ClusterId, member: MemberId, sequence: u64) -> u32 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&cluster.to_le_bytes());
    bytes[8..16].copy_from_slice(&member.to_le_bytes());
    bytes[16..].copy_from_slice(&sequence.to_le_bytes());
    crc32_from(salt, &bytes)
}

fn record_crc(seed: u32, offset: u64, header: &[u8; RECORD_HEADER_BYTES]) -> u32 {
    // The offset is folded to 32 bits: it wraps at 32 GiB, far above any segment.
    let bound = seed.wrapping_add((offset / 8) as u32);
    crc32_from(crc32_from(bound, &header[..CRC_AT]), &header[PAYLOAD_CRC_AT..])
}

/// What is told about a record to be written; lengths and checksums are found by [`put_record`].
#[derive(Clone, Copy, Debug)]
pub struct NewRecord {
    pub kind: Kind,
    pub id: EntryId,
    pub chain: u32,
    pub opening: u32,
}

/// Appends a record that will be at `offset` of the segment with `seed`; its crc, the next chain value.
pub fn put_record(out: &mut Vec<u8>, seed: u32, offset: u64, record: NewRecord, payload: &[u8]) -> u32 {
    assert!(payload.len() <= ENTRY_BYTES_MAX, "an entry's size is checked where the request comes in");
    let start = out.len();
    out.resize(start + RECORD_HEADER_BYTES, 0);
    out.extend_from_slice(payload);
    out.resize(start + record_bytes(payload.len()), 0);
    let payload_crc = crc32_from(seed, &out[start + RECORD_HEADER_BYTES..]);
    let mut header = [0; RECORD_HEADER_BYTES];
    header[0] = record.kind.byte();
    header[PAYLOAD_CRC_AT..CHAIN_AT].copy_from_slice(&payload_crc.to_le_bytes());
    header[CHAIN_AT..PAYLOAD_BYTES_AT].copy_from_slice(&record.chain.to_le_bytes());
    header[PAYLOAD_BYTES_AT..OPENING_AT].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[OPENING_AT..INDEX_AT].copy_from_slice(&record.opening.to_le_bytes());
    header[INDEX_AT..TERM_AT].copy_from_slice(&record.id.index.to_le_bytes());
    header[TERM_AT..].copy_from_slice(&record.id.term.to_le_bytes());
    let crc = record_crc(seed, offset, &header);
    header[CRC_AT..PAYLOAD_CRC_AT].copy_from_slice(&crc.to_le_bytes());
    out[start..start + RECORD_HEADER_BYTES].copy_from_slice(&header);
    crc
}

/// Checks a header that was read at `offset` of the segment with `seed`. The chain is the caller's to check.
pub fn parse_record(
    bytes: &[u8; RECORD_HEADER_BYTES],
    seed: u32,
    offset: u64,
) -> Result<RecordHeader, Unfit> {
    let unfit = |found: String, expected: &str| Err(Unfit { found, expected: expected.to_string() });
    let crc = word(bytes, CRC_AT);
    let computed = record_crc(seed, offset, bytes);
    if crc != computed {
        if bytes.iter().all(|&byte| byte == 0) {
            return unfit("zeroes".into(), "a record header");
        }
        return unfit(format!("header crc {crc:08x}"), &format!("{computed:08x}"));
    }
    let Some(kind) = Kind::from_byte(bytes[0]) else {
        return unfit(format!("record kind {}", bytes[0]), "1 to 6");
    };
    if bytes[1..CRC_AT] != [0; 3] {
        return unfit(format!("reserved bytes {:02x?}", &bytes[1..CRC_AT]), "zeroes");
    }
    let payload_bytes = word(bytes, PAYLOAD_BYTES_AT);
    let payload_bytes_max = if matches!(kind, Kind::Entry(_)) { ENTRY_BYTES_MAX as u32 } else { 0 };
    if payload_bytes > payload_bytes_max {
        return unfit(format!("payload of {payload_bytes} bytes"), &format!("at most {payload_bytes_max}"));
    }
    let (opening, id) = (word(bytes, OPENING_AT), EntryId::new(long(bytes, TERM_AT), long(bytes, INDEX_AT)));
    if opening > OPENING_MAX || (id.index > INDEX_MAX && kind != Kind::HardState) {
        return unfit(format!("opening {opening}, index {}", id.index), "numbers that can be reached");
    }
    Ok(RecordHeader {
        kind,
        crc,
        payload_crc: word(bytes, PAYLOAD_CRC_AT),
        chain: word(bytes, CHAIN_AT),
        payload_bytes,
        opening,
        id,
    })
}

/// Checks a payload with its padding against its header.
pub fn check_payload(header: &RecordHeader, seed: u32, padded_payload: &[u8]) -> Result<(), Unfit> {
    let computed = crc32_from(seed, padded_payload);
    if computed != header.payload_crc {
        return Err(Unfit {
            found: format!("payload crc {computed:08x}"),
            expected: format!("{:08x}", header.payload_crc),
        });
    }
    Ok(())
}

fn word(bytes: &[u8; RECORD_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8; RECORD_HEADER_BYTES], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

/// The first sector of a segment (section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub cluster: ClusterId,
    pub member: MemberId,
    pub sequence: u64,
    pub base: EntryId,
    pub hard_state: HardState,
    pub previous_chain: u32,
    pub opening: u32,
    pub salt: u32,
    pub synced_bytes: u64,
}

impl SegmentHeader {
    /// What the checksums of this segment's records start from.
    pub fn seed(&self) -> u32 {
        seed(self.salt, self.cluster, self.member, self.sequence)
    }

    /// The sector and its crc, which is the chain value of the first record.
    pub fn encode(&self) -> ([u8; SECTOR_BYTES], u32) {
        let mut sector = [0; SECTOR_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            sector[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC);
        put(&VERSION.to_le_bytes());
        put(&[0; 4]); // crc, below
        put(&self.cluster.to_le_bytes());
        put(&self.member.to_le_bytes());
        put(&self.sequence.to_le_bytes());
        put(&self.base.index.to_le_bytes());
        put(&self.base.term.to_le_bytes());
        put(&self.hard_state.term.to_le_bytes());
        put(&self.hard_state.vote.to_le_bytes());
        put(&self.previous_chain.to_le_bytes());
        put(&self.opening.to_le_bytes());
        put(&self.salt.to_le_bytes());
        put(&[0; 4]);
        put(&self.synced_bytes.to_le_bytes());
        let crc = crc32(&sector);
        sector[HEADER_CRC_AT..HEADER_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        (sector, crc)
    }

    /// Checks a sector in the order of W-9; the header and its crc. `owner`: whose it must be, if known.
    pub fn decode(
        file: &Path,
        sector: &[u8; SECTOR_BYTES],
        owner: Option<(ClusterId, MemberId)>,
    ) -> Result<(SegmentHeader, u32)> {
        let found = u32::from_le_bytes([sector[12], sector[13], sector[14], sector[15]]);
        let mut blanked = *sector;
        blanked[HEADER_CRC_AT..HEADER_CRC_AT + 4].fill(0);
        let computed = crc32(&blanked);
        let name = file.display();
        if found != computed {
            if sector[..8] != MAGIC {
                return Err(Error::Refused(format!(
                    "{name} is not a log segment: its first bytes are {:02x?}, expected {MAGIC:02x?}",
                    &sector[..8]
                )));
            }
            return Err(damage(file, "header crc", format!("{found:08x}"), format!("{computed:08x}")));
        }
        if sector[..8] != MAGIC {
            return Err(damage(file, "magic", format!("{:02x?}", &sector[..8]), format!("{MAGIC:02x?}")));
        }
        let (version, header, zero) = SegmentHeader::take_fields(sector)
            .map_err(|short| damage(file, "header", format!("{short:?}"), "512 bytes".into()))?;
        if version != VERSION {
            return Err(Error::Refused(format!(
                "{name} has log format {version}; this program reads {VERSION}: use a newer one"
            )));
        }
        let (cluster, member) = owner.unwrap_or((header.cluster, header.member));
        if header.cluster != cluster {
            return Err(Error::Refused(format!(
                "{name} belongs to cluster {:x}; this member is of cluster {cluster:x}",
                header.cluster
            )));
        }
        if header.member != member {
            return Err(Error::Refused(format!(
                "{name} belongs to member {:x}; this is member {member:x}",
                header.member
            )));
        }
        if !zero {
            return Err(damage(file, "reserved bytes", "not zero".into(), "zero".into()));
        }
        if header.sequence == 0 || header.sequence > u64::from(u32::MAX) {
            return Err(damage(file, "sequence", header.sequence.to_string(), "1 to 2^32 - 1".into()));
        }
        if header.base.index > INDEX_MAX || header.opening > OPENING_MAX {
            let found = format!("{}, {}", header.base.index, header.opening);
            return Err(damage(file, "base index, opening", found, "numbers that can be reached".into()));
        }
        if header.synced_bytes < SECTOR || !header.synced_bytes.is_multiple_of(SECTOR) {
            let found = header.synced_bytes.to_string();
            return Err(damage(file, "synced bytes", found, "a multiple of 512".into()));
        }
        Ok((header, found))
    }

    /// Version, fields, and whether the rest is zero.
    fn take_fields(sector: &[u8; SECTOR_BYTES]) -> Result<(u32, SegmentHeader, bool), Short> {
        let mut reader = Reader::new(&sector[8..]);
        let version = reader.u32()?;
        reader.u32()?; // crc
        let (cluster, member, sequence) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (index, term) = (reader.u64()?, reader.u64()?);
        let hard_state = HardState { term: reader.u64()?, vote: reader.u64()? };
        let (previous_chain, opening, salt) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let gap = reader.u32()?;
        let synced_bytes = reader.u64()?;
        let zero = gap == 0 && reader.rest().iter().all(|&byte| byte == 0);
        let base = EntryId::new(term, index);
        let header = SegmentHeader {
            cluster,
            member,
            sequence,
            base,
            hard_state,
            previous_chain,
            opening,
            salt,
            synced_bytes,
        };
        Ok((version, header, zero))
    }
}

fn damage(file: &Path, field: &str, found: String, expected: String) -> Error {
    Error::corrupt(file, 0, format!("segment header: {field}"), found, expected)
}

/// A file of the log's directory, told by its name (section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Segment {
        sequence: u64,
        first: Index,
    },
    /// Numbers are below 2^32.
    Spare(u64),
    SpareNew(u64),
}

impl Name {
    /// None: not ours to touch (W-1).
    pub fn parse(name: &str) -> Option<Name> {
        let parsed = if let Some(stem) = name.strip_suffix(".wal") {
            let (sequence, first) = stem.split_once('-')?;
            Name::Segment {
                sequence: u64::from_str_radix(sequence, 16).ok()?,
                first: u64::from_str_radix(first, 16).ok()?,
            }
        } else {
            let rest = name.strip_prefix("spare-")?;
            match rest.strip_suffix(".new") {
                Some(number) => Name::SpareNew(number.parse::<u32>().ok()?.into()),
                None => Name::Spare(rest.parse::<u32>().ok()?.into()),
            }
        };
        // One spelling for each: no leading plus, no upper case, no missing zeroes.
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Name::Segment { sequence, first } => write!(f, "{sequence:016x}-{first:016x}.wal"),
            Name::Spare(number) => write!(f, "spare-{number}"),
            Name::SpareNew(number) => write!(f, "spare-{number}.new"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        cluster: 7,
        member: 8,
        sequence: 3,
        base: EntryId::new(2, 41),
        hard_state: HardState { term: 2, vote: 8 },
        previous_chain: 0xabcd,
        opening: 4,
        salt: 5,
        synced_bytes: 1024,
    };

    fn decode(sector: &[u8; SECTOR_BYTES]) -> Result<SegmentHeader> {
        SegmentHeader::decode(Path::new("x.wal"), sector, Some((7, 8))).map(|(header, _)| header)
    }

    /// W-9: five ways to be turned away, each by its own kind and words.
    #[test]
    fn a_header_is_read_back_or_turned_away_by_name() {
        let (sector, crc) = HEADER.encode();
        assert_eq!(decode(&sector).expect("sound"), HEADER);
        let reseal = |mut sector: [u8; SECTOR_BYTES]| {
            sector[12..16].fill(0);
            let crc = crc32(&sector);
            sector[12..16].copy_from_slice(&crc.to_le_bytes());
            sector
        };
        assert_eq!(reseal(sector)[12..16], crc.to_le_bytes());
        let text = |sector: &[u8; SECTOR_BYTES]| match decode(sector) {
            Err(Error::Refused(text)) => format!("refused: {text}"),
            Err(error) => format!("damaged: {error}"),
            Ok(_) => panic!("it was taken"),
        };
        assert!(text(&[7; SECTOR_BYTES]).contains("refused: x.wal is not a log segment"));
        let mut newer = sector;
        newer[8] = 2;
        assert!(text(&newer).contains("damaged: x.wal is damaged at offset 0: segment header: header crc"));
        assert!(text(&reseal(newer)).contains("refused: x.wal has log format 2"));
        let mut other = sector;
        other[16] = 9;
        assert!(text(&reseal(other)).contains("belongs to cluster 9; this member is of cluster 7"));
        let mut other = sector;
        other[24] = 9;
        assert!(text(&reseal(other)).contains("belongs to member 9; this is member 8"));
        let mut reserved = sector;
        reserved[500] = 1;
        assert!(
            text(&reseal(reserved))
                .contains("damaged: x.wal is damaged at offset 0: segment header: reserved")
        );
        for byte in 0..SECTOR_BYTES {
            let mut flipped = sector;
            flipped[byte] ^= 1 << (byte % 8);
            assert!(decode(&flipped).is_err(), "byte {byte}");
        }
    }

    /// W-11: bound to its segment and its place; and every bit of it counts.
    #[test]
    fn a_record_is_valid_in_one_place_only() {
        let record =
            NewRecord { kind: Kind::Entry(EntryKind::Normal), id: EntryId::new(2, 9), chain: 1, opening: 1 };
        let mut out = vec![0xaa; 3];
        let crc = put_record(&mut out, HEADER.seed(), 1024, record, b"hello");
        let bytes: [u8; RECORD_HEADER_BYTES] = out[3..43].try_into().expect("a header");
        let header = parse_record(&bytes, HEADER.seed(), 1024).expect("sound");
        assert_eq!((header.crc, header.id, header.payload_bytes), (crc, record.id, 5));
        assert_eq!(out.len(), 3 + record_bytes(5));
        assert_eq!(check_payload(&header, HEADER.seed(), &out[43..]), Ok(()));
        assert!(parse_record(&bytes, HEADER.seed(), 1032).is_err());
        assert!(parse_record(&bytes, SegmentHeader { sequence: 4, ..HEADER }.seed(), 1024).is_err());
        for bit in 0..RECORD_HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_record(&flipped, HEADER.seed(), 1024).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn names_have_one_spelling() {
        for name in [Name::Segment { sequence: 26, first: 300 }, Name::Spare(4), Name::SpareNew(5)] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        for name in
            ["1-1.wal", "spare-", "spare-+4", "spare-04", "lock", "000000000000001A-0000000000000001.wal"]
        {
            assert_eq!(Name::parse(name), None, "{name}");
        }
    }
}
