//! Verification of a store's file, offline: the tree's own check, then what the store promises about its content.

use std::path::Path;

use super::keys;
use super::record::{self, Header};
use super::state::{Phase, State};
use super::{MEMBERS, REVISIONS, VERSIONS, damaged};
use crate::base::{Result, Revision};
use crate::btree::{self, Tree, View};
use crate::io::Disk;

/// More findings than this say nothing new.
const FINDINGS_MAX: usize = 100;

/// What [`check`] found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Empty if the file is sound.
    pub findings: Vec<String>,
    pub revision: Revision,
    pub applied_index: u64,
    /// Versions of keys, tombstones included, and keys that exist now.
    pub versions: u64,
    pub keys: u64,
}

/// Reads the whole file and changes nothing. An error means that it could not be read at all.
pub fn check<D: Disk>(disk: &D, path: &Path) -> Result<Report> {
    let pages = btree::check(disk, path)?;
    if !pages.findings.is_empty() {
        return Ok(Report { findings: pages.findings, ..Report::default() });
    }
    let tree = Tree::open(disk, path)?;
    let state = State::decode(path, tree.user())?;
    let report = Report { revision: state.revision, applied_index: state.applied.index, ..Report::default() };
    let mut check = Check { tree: &tree, path, state, report, previous: None };
    match state.phase {
        Phase::Complete => {}
        Phase::Filling => check.find("the file was still being filled".into()),
        Phase::Diverged => {
            check.find("the state differs from that of most members: it must be rebuilt".into())
        }
    }
    check.versions()?;
    check.revisions()?;
    check.members()?;
    Ok(check.report)
}

struct Check<'s, D: Disk> {
    tree: &'s Tree<D>,
    path: &'s Path,
    state: State,
    report: Report,
    /// The version before, as the tree orders them: the next newer one of the same key, or another key's.
    previous: Option<(Vec<u8>, Revision, Header)>,
}

impl<D: Disk> Check<'_, D> {
    fn find(&mut self, what: String) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(what);
        }
    }

    fn versions(&mut self) -> Result<()> {
        let mut cursor = self.tree.cursor(View::Now, VERSIONS);
        let mut there = cursor.first()?;
        while there {
            let key = cursor.key()?;
            let record = cursor.value().to_vec()?;
            self.report.versions += 1;
            match (keys::split(&key), Header::decode(&record)) {
                (Ok((prefix, revision)), Ok((header, _))) => {
                    self.version(prefix, revision, header, cursor.counted())?;
                }
                (Err(bad), _) | (_, Err(bad)) => {
                    self.find(format!("a version with key {:02x?}: {}", &key[..key.len().min(32)], bad.0));
                }
            }
            there = cursor.next()?;
        }
        Ok(())
    }

    fn version(&mut self, prefix: &[u8], revision: Revision, header: Header, counted: bool) -> Result<()> {
        let name = match keys::user_key(prefix) {
            Ok(key) => format!("key {} at revision {revision}", String::from_utf8_lossy(&key)),
            Err(bad) => {
                self.find(format!("a key that cannot be decoded: {}", bad.0));
                return Ok(());
            }
        };
        if revision > self.state.revision {
            self.find(format!("{name}: the store is at revision {}", self.state.revision));
        }
        let newer = self.previous.take().filter(|(other, ..)| other == prefix);
        if counted != (newer.is_none() && !header.tombstone) {
            self.find(format!("{name}: counted is {counted}"));
        }
        self.report.keys += u64::from(counted);
        if let Some((_, newer_revision, newer)) = &newer
            && !follows(newer, &header, *newer_revision)
        {
            self.find(format!("{name}: {header:?} cannot come before {newer:?} at {newer_revision}"));
        }
        if !header.tombstone && (header.create > revision || header.version == 0) {
            self.find(format!("{name}: created at {}, version {}", header.create, header.version));
        }
        let change = keys::change(revision, header.sub);
        let listed = match self.tree.get(View::Now, REVISIONS, &change)? {
            Some(value) => Some(value.to_vec()?),
            None => None,
        };
        if listed != keys::user_key(prefix).ok() {
            self.find(format!("{name}: the list of revisions has another key at {revision}.{}", header.sub));
        }
        self.previous = Some((prefix.to_vec(), revision, header));
        Ok(())
    }

    fn revisions(&mut self) -> Result<()> {
        let mut cursor = self.tree.cursor(View::Now, REVISIONS);
        let mut count = 0u64;
        let mut there = cursor.first()?;
        while there {
            if let Err(bad) = keys::split_change(&cursor.key()?) {
                self.find(format!("the list of revisions: {}", bad.0));
            }
            count += 1;
            there = cursor.next()?;
        }
        if count != self.report.versions {
            self.find(format!("{count} changes are listed, and there are {} versions", self.report.versions));
        }
        Ok(())
    }

    fn members(&mut self) -> Result<()> {
        let mut cursor = self.tree.cursor(View::Now, MEMBERS);
        let mut there = cursor.first()?;
        while there {
            let record = cursor.value().to_vec()?;
            if let Err(bad) = record::decode_member(&cursor.key()?, &record) {
                self.find(damaged(self.path, "a member", bad).to_string());
            }
            there = cursor.next()?;
        }
        Ok(())
    }
}

/// Whether `newer`, made by `revision`, can be what follows `older`: versions rise by one within a life of the
/// key, and a new life begins at its own revision.
fn follows(newer: &Header, older: &Header, revision: Revision) -> bool {
    match (newer.tombstone, older.tombstone) {
        (true, true) => false,
        (true, false) => true,
        (false, true) => newer.version == 1 && newer.create == revision,
        (false, false) => newer.version == older.version + 1 && newer.create == older.create,
    }
}
