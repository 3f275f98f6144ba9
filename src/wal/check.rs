//! Offline verification: reads every segment, changes nothing, and lists what is wrong.

use std::path::{Path, PathBuf};

use crate::base::{ClusterId, EntryId, Error, Index, MemberId, Result};
use crate::io::Disk;
use crate::raft::HardState;
use crate::wal::recover::{Case, SegmentFile, open_segment, read_segment, survey};
use crate::wal::replay::Replay;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub file: PathBuf,
    pub offset: u64,
    pub what: String,
    /// A torn write that was never acknowledged: opening cuts it, and nothing is lost.
    pub harmless: bool,
}

/// What a log consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub findings: Vec<Finding>,
    pub segments: usize,
    pub spares: usize,
    pub records: u64,
    /// The entry before the first.
    pub base: EntryId,
    pub last: EntryId,
    pub hard_state: HardState,
    pub owner: Option<(ClusterId, MemberId)>,
    /// Times that the log was opened.
    pub openings: u32,
    /// For each readable segment, where its last group ends, its seal included.
    pub ends: Vec<(PathBuf, u64)>,
}

/// Verifies the log in `dir`. Damage is a finding; an error means that the check itself could not go on.
pub fn check<D: Disk>(disk: &D, dir: &Path) -> Result<Report> {
    let survey = survey(disk, dir)?;
    let mut report =
        Report { segments: survey.segments.len(), spares: survey.spares.len(), ..Report::default() };
    for pair in survey.segments.windows(2).filter(|pair| pair[1].sequence != pair[0].sequence + 1) {
        let what = format!("segments {} to {} are missing", pair[0].sequence + 1, pair[1].sequence - 1);
        report.findings.push(Finding { file: pair[1].path(dir), offset: 0, what, harmless: false });
    }
    let mut state: Option<Replay> = None;
    for (position, segment) in survey.segments.iter().enumerate() {
        let next = survey.segments.get(position + 1).filter(|next| next.sequence == segment.sequence + 1);
        let last = position + 1 == survey.segments.len();
        state = match check_segment(disk, dir, segment, next, last, state.take(), &mut report) {
            Ok(state) => state,
            Err(Error::Corrupt(damage)) => {
                let what = format!("{}: found {}, expected {}", damage.what, damage.found, damage.expected);
                report.findings.push(Finding {
                    file: damage.file,
                    offset: damage.offset,
                    what,
                    harmless: false,
                });
                None
            }
            Err(Error::Refused(what)) => {
                report.findings.push(Finding { file: segment.path(dir), offset: 0, what, harmless: false });
                None
            }
            Err(error @ Error::Io { .. }) => return Err(error),
        };
    }
    Ok(report)
}

/// Reads one segment, going on from `state`, or from its own header where the segment before was of no use. The
/// state behind it, if the next segment can go on from there.
fn check_segment<D: Disk>(
    disk: &D,
    dir: &Path,
    segment: &SegmentFile,
    next: Option<&SegmentFile>,
    last: bool,
    state: Option<Replay>,
    report: &mut Report,
) -> Result<Option<Replay>> {
    let scan = open_segment(disk, dir, report.owner, segment)?;
    let header = scan.header;
    report.owner = Some((header.cluster, header.member));
    let fresh = state.is_none();
    let mut replay = state.unwrap_or_else(|| Replay::new(header.base, header.hard_state, Index::MAX));
    // A successor with a bad header is reported when its own turn comes.
    let next = next.and_then(|next| open_segment(disk, dir, report.owner, next).ok());
    let alone = next.is_none();
    let end = read_segment(scan, segment, next.as_ref(), &mut replay)?;
    report.records += end.records;
    report.openings = end.tail.opening;
    if fresh {
        report.base = replay.index.base;
    }
    (report.last, report.hard_state) = (replay.index.last(), replay.hard_state);
    if end.case == Case::B {
        let what = format!("a torn write behind entry {}: found {}", report.last, end.found.unfit.found);
        let finding = Finding { file: segment.path(dir), offset: end.found.offset, what, harmless: last };
        report.findings.push(finding);
    }
    report.ends.push((segment.path(dir), end.tail.border()));
    Ok((!alone).then_some(replay))
}
