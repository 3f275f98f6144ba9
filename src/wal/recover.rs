//! From the files of the directory to the log that they hold, without changing any of them: the decision
//! tables of `storage-format.md`, section 4.6, with the same letters.

use std::path::{Path, PathBuf};

use crate::base::planted;
use crate::base::{ClusterId, EntryId, Error, Index, MemberId, Result};
use crate::io::Disk;
use crate::raft::HardState;
use crate::wal::format::{Name, SECTOR, sector_end};
use crate::wal::replay::{Place, Replay};
use crate::wal::scan::{End, Scan, Step};

/// What is asked at the place where the records of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The segment has the greatest sequence number.
    pub(super) last: bool,
    /// The next segment's header carries on from here. Without a meaning in the last one.
    pub(super) joined: bool,
    /// The end is below the header's synced bytes.
    pub(super) below: bool,
    /// A valid begin stands at or behind the end.
    pub(super) later: bool,
    /// The end is inside a sector.
    pub(super) inside: bool,
}

/// The lettered cases; their paragraphs are in section 4.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// The end of the log.
    A,
    /// A torn group, never acknowledged.
    B,
    /// Damage: a group behind it was begun.
    C,
    /// Damage: the segment has its name.
    D,
    /// The end of a segment that has a successor.
    E,
    /// Damage: the next segment exists.
    F,
    /// A successor that fits, but less than was durable when the segment got its name.
    G,
    /// A successor that fits, but groups behind the end.
    H,
}

/// The table. Damage that a legal crash can not explain is never cut.
pub(super) fn decide(question: Question) -> Case {
    let Question { last, joined, below, later, inside } = question;
    match (last, joined, below, later, inside) {
        (true, _, false, false, false) => Case::A,
        (true, _, false, false, true) => Case::B,
        (true, _, _, true, _) => Case::C,
        (true, _, true, false, _) => Case::D,
        (false, true, false, false, _) => Case::E,
        (false, false, _, _, _) => Case::F,
        (false, true, true, false, _) => Case::G,
        (false, true, _, true, _) => Case::H,
    }
}

/// The cases for the directory as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirCase {
    /// Nothing there, nothing lost: create.
    I,
    /// Nothing there, but there was.
    J,
    /// Released segments came back.
    K,
    /// A segment is missing.
    L,
    /// Segments are missing at the head.
    M,
    /// The ordinary case.
    N,
}

/// `any`: there is a segment. `applied`: the tree holds applied entries. `gap`: a sequence number is missing.
/// `reaches`: the segments behind the last gap begin at or below the applied index.
pub(super) fn decide_directory(any: bool, applied: bool, gap: bool, reaches: bool) -> DirCase {
    match (any, applied, gap, reaches) {
        (false, false, _, _) => DirCase::I,
        (false, true, _, _) => DirCase::J,
        (true, _, true, true) => DirCase::K,
        (true, _, true, false) => DirCase::L,
        (true, _, false, false) => DirCase::M,
        (true, _, false, true) => DirCase::N,
    }
}

/// A segment by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentFile {
    pub(super) sequence: u64,
    pub(super) first: Index,
}

impl SegmentFile {
    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(Name::Segment { sequence: self.sequence, first: self.first }.to_string())
    }
}

/// What the directory holds, by names alone.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Ascending.
    pub(super) segments: Vec<SegmentFile>,
    pub(super) spares: Vec<u64>,
    pub(super) half_made: Vec<u64>,
}

impl Survey {
    /// A number that no spare has, half-made ones included.
    pub(super) fn next_spare(&self) -> u64 {
        self.spares.iter().chain(&self.half_made).max().map_or(0, |greatest| greatest + 1)
    }

    /// Where the newest run of segments without a gap begins.
    pub(super) fn run_start(&self) -> usize {
        let consecutive = |pair: &[SegmentFile]| pair[1].sequence == pair[0].sequence + 1;
        self.segments.windows(2).rposition(|pair| !consecutive(pair)).map_or(0, |gap| gap + 1)
    }
}

/// Reads the names (W-1, W-2).
pub(super) fn survey<D: Disk>(disk: &D, dir: &Path) -> Result<Survey> {
    let mut survey = Survey::default();
    for name in disk.list(dir).map_err(|e| Error::io("list", dir, e))? {
        match Name::parse(&name) {
            Some(Name::Segment { sequence, first }) => survey.segments.push(SegmentFile { sequence, first }),
            Some(Name::Spare(number)) => survey.spares.push(number),
            Some(Name::SpareNew(number)) => survey.half_made.push(number),
            None if name.ends_with(".wal") => {
                return Err(Error::Refused(format!(
                    "{} is not a segment's name: move it out of the log's directory",
                    dir.join(name).display()
                )));
            }
            None => {}
        }
    }
    survey.segments.sort_unstable_by_key(|segment| segment.sequence);
    if let Some(pair) = survey.segments.windows(2).find(|pair| pair[0].sequence == pair[1].sequence) {
        let found = pair[0].path(dir).display().to_string();
        let what = format!("segment {}", pair[0].sequence);
        return Err(Error::corrupt(&pair[1].path(dir), 0, what, format!("another one, {found}"), "one only"));
    }
    Ok(survey)
}

/// Where the log goes on.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    pub(super) seed: u32,
    pub(super) salt: u32,
    pub(super) chain: u32,
    pub(super) opening: u32,
    /// What is between here and the end may not be durable yet.
    pub(super) watermark: u64,
    /// Behind the last whole record.
    pub(super) end: u64,
}

impl Tail {
    /// Where the next group begins.
    pub(super) fn border(&self) -> u64 {
        sector_end(self.end)
    }
}

/// The log as found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) replay: Replay,
    /// The segments that belong to it, ascending.
    pub(super) segments: Vec<SegmentFile>,
    /// Segments that came back after they had been released; ascending.
    pub(super) obsolete: Vec<SegmentFile>,
    pub(super) tail: Tail,
    pub(super) notes: Vec<String>,
}

impl Recovered {
    /// The segment that the log goes on in.
    pub(super) fn newest(&self) -> &SegmentFile {
        self.segments.last().expect("a recovered log has a segment")
    }
}

/// What reading one segment gave, when it gave no error.
pub(super) struct SegmentEnd {
    pub(super) tail: Tail,
    pub(super) case: Case,
    pub(super) found: End,
    pub(super) records: u64,
}

/// What a segment's successor must carry on from (W-10).
struct Joint {
    chain: u32,
    chain_before_seal: u32,
    base: EntryId,
    hard_state: HardState,
}

/// Reads all that belongs together; None if there is no segment and nothing was lost (case I).
pub(super) fn recover<D: Disk>(
    disk: &D,
    dir: &Path,
    owner: (ClusterId, MemberId),
    survey: &Survey,
    keep_after: Index,
) -> Result<Option<Recovered>> {
    let (obsolete, run) = survey.segments.split_at(survey.run_start());
    let Some(first) = run.first() else {
        return match decide_directory(false, keep_after > 0, false, false) {
            DirCase::I => Ok(None),
            _ => {
                let what = format!(
                    "the log, and this member's vote with it: entries up to {keep_after} are applied"
                );
                Err(Error::corrupt(dir, 0, what, "no segment", "all segments behind the applied index"))
            }
        };
    };
    let scan = open_segment(disk, dir, Some(owner), first)?;
    let mut replay = Replay::new(scan.header.base, scan.header.hard_state, keep_after);
    let mut notes = Vec::new();
    let mut tail = None;
    let mut scan = Some(scan);
    for (position, segment) in run.iter().enumerate() {
        let current = scan.take().expect("set below for every position but the last");
        if let Some(next) = run.get(position + 1) {
            scan = Some(open_segment(disk, dir, Some(owner), next)?);
        }
        let end = read_segment(current, segment, scan.as_ref(), &mut replay)?;
        if end.case == Case::B {
            notes.push(format!(
                "{}: a torn write that was never acknowledged is cut at offset {} behind entry {} (found {}, expected {}; case B)",
                segment.path(dir).display(),
                end.found.offset,
                replay.index.last(),
                end.found.unfit.found,
                end.found.unfit.expected,
            ));
        }
        tail = Some(end.tail);
    }
    let tail = tail.expect("a run has at least one segment");
    let base = replay.index.base;
    match decide_directory(true, keep_after > 0, !obsolete.is_empty(), base.index <= keep_after) {
        DirCase::K => notes.push(format!(
            "{}: {} released segments came back and are removed (case K)",
            dir.display(),
            obsolete.len()
        )),
        case @ (DirCase::L | DirCase::M) => {
            let what = format!("log entries {} to {} (case {case:?})", keep_after + 1, base.index);
            let found = format!("no segment {}", first.sequence.saturating_sub(1));
            return Err(Error::corrupt(
                &first.path(dir),
                0,
                what,
                found,
                "all segments behind the applied index",
            ));
        }
        DirCase::I | DirCase::J | DirCase::N => {}
    }
    let (segments, obsolete) = (run.to_vec(), obsolete.to_vec());
    Ok(Some(Recovered { replay, segments, obsolete, tail, notes }))
}

/// Opens a segment and holds its header against its name (W-2).
pub(super) fn open_segment<D: Disk>(
    disk: &D,
    dir: &Path,
    owner: Option<(ClusterId, MemberId)>,
    segment: &SegmentFile,
) -> Result<Scan<D::File>> {
    let path = segment.path(dir);
    let scan = Scan::open(disk, &path, owner)?;
    let (sequence, first) = (scan.header.sequence, scan.header.base.index.wrapping_add(1));
    if (sequence, first) != (segment.sequence, segment.first) {
        let found = Name::Segment { sequence, first }.to_string();
        return Err(Error::corrupt(
            &path,
            32,
            "segment header: sequence and base",
            found,
            "those of the name",
        ));
    }
    Ok(scan)
}

/// Applies a segment's records to `replay`, and judges where they end.
pub(super) fn read_segment<F: crate::io::File>(
    mut scan: Scan<F>,
    segment: &SegmentFile,
    next: Option<&Scan<F>>,
    replay: &mut Replay,
) -> Result<SegmentEnd> {
    let path = scan.window.path.clone();
    let mut records = 0;
    let found = loop {
        match scan.next()? {
            Step::End(end) => break end,
            Step::Record { offset, header, payload } => {
                let place = Place::new(segment.sequence, offset);
                replay.apply(place, &header, payload).map_err(|unfit| {
                    let what = format!("log record behind entry {}", replay.index.last());
                    Error::corrupt(&path, offset, what, unfit.found, unfit.expected)
                })?;
                records += 1;
            }
        }
    };
    let joint = Joint {
        chain: scan.chain,
        chain_before_seal: scan.chain_before_seal,
        base: replay.index.last(),
        hard_state: replay.hard_state,
    };
    let question = Question {
        last: next.is_none(),
        joined: next.is_some_and(|next| joint_fault(&joint, next).is_none()),
        below: found.offset < scan.header.synced_bytes && !planted::on("wal-synced-bytes-ignored"),
        later: scan.later_begin(found.offset)?.is_some() && !planted::on("wal-cut-at-first-bad-crc"),
        inside: !found.offset.is_multiple_of(SECTOR),
    };
    let case = decide(question);
    let what = format!("acknowledged log record behind entry {} (case {case:?})", joint.base);
    match case {
        Case::A | Case::B | Case::E => {}
        Case::C | Case::D | Case::G | Case::H => {
            return Err(Error::corrupt(&path, found.offset, what, found.unfit.found, found.unfit.expected));
        }
        Case::F => {
            let next = next.expect("case F has a next segment");
            let (field, theirs, ours) = joint_fault(&joint, next).expect("case F is not joined");
            let what = format!("{what}: {field} does not lead to {}", next.window.path.display());
            let found_here = format!("{} at the end of the records ({ours})", found.unfit.found);
            return Err(Error::corrupt(&path, found.offset, what, found_here, theirs));
        }
    }
    let tail = Tail {
        seed: scan.seed,
        salt: scan.header.salt,
        chain: scan.chain,
        opening: scan.opening,
        watermark: scan.watermark,
        end: found.offset,
    };
    Ok(SegmentEnd { tail, case, found, records })
}

/// The first field in which a header does not carry on from a joint: its name, what it holds, what it should.
fn joint_fault<F>(joint: &Joint, next: &Scan<F>) -> Option<(&'static str, String, String)> {
    let header = &next.header;
    if header.previous_chain != joint.chain && header.previous_chain != joint.chain_before_seal {
        return Some(("chain", format!("{:08x}", header.previous_chain), format!("{:08x}", joint.chain)));
    }
    if header.base != joint.base {
        return Some(("base", header.base.to_string(), joint.base.to_string()));
    }
    if header.hard_state != joint.hard_state {
        return Some(("hard state", format!("{:?}", header.hard_state), format!("{:?}", joint.hard_state)));
    }
    None
}
