//! What a member says of itself.

use super::{Node, Trust};
use crate::api::{Alarm, AlarmKind, Fault, Member, Range, RangeResult, Status, VERSION};
use crate::base::{EntryId, Index, MemberId, Result, Revision};
use crate::io::Disk;
use crate::raft::Standing;
use crate::wal::Batch;

impl<D: Disk> Node<D> {
    pub fn status(&self) -> Status {
        let standing = self.raft.standing();
        let mut errors = Vec::new();
        if standing.leader == 0 {
            errors.push("etcdserver: no leader".into());
        }
        let mut alarms = self.store.alarms();
        if self.disk_full || self.log_is_full() {
            alarms.push(Alarm { member: self.id, kind: AlarmKind::NoSpace });
        }
        let suspects = self.agreement.suspects(self.id).into_iter();
        alarms.extend(suspects.map(|member| Alarm { member, kind: AlarmKind::Corrupt }));
        alarms.sort_unstable_by_key(|alarm| (alarm.kind, alarm.member));
        alarms.dedup();
        errors.extend(self.repair_standing());
        errors.extend(alarms.iter().map(Alarm::to_string));
        let (db_size, db_size_in_use) = self.store.size_bytes();
        Status {
            member_id: self.id,
            cluster_id: self.cluster,
            name: self.config.name.clone(),
            version: VERSION.into(),
            leader: self.known_leader(),
            term: standing.term,
            commit_index: standing.commit,
            applied_index: self.store.applied().index,
            revision: self.store.revision(),
            compact_revision: self.store.compact_revision(),
            db_size,
            db_size_in_use,
            learner: self.raft.membership().learners.contains(&self.id),
            alarms,
            errors,
        }
    }

    /// Who leads, as this member knows it, and the last entry that it has applied.
    pub fn standing(&self) -> (Standing, EntryId) {
        (self.raft.standing(), self.store.applied())
    }

    /// A digest of the replicated content: equal on members that have applied the same entries. Reads all of it.
    pub fn content_hash(&self) -> Result<u64> {
        self.store.content_hash()
    }

    /// What the log writer was not given yet.
    pub fn unwritten(&self) -> &[Batch] {
        &self.waiting_batches
    }

    /// The state hash behind an entry, if it is one of the last that were applied here.
    pub fn state_hash_at(&self, index: Index) -> Option<u64> {
        self.agreement.hash_at(index)
    }

    /// This member's state is known to be wrong: it must be rebuilt.
    pub fn is_diverged(&self) -> bool {
        self.agreement.trust() == Trust::Diverged
    }

    /// Some member's state differs, and it is not known whose is right: nothing is served.
    pub fn is_doubtful(&self) -> bool {
        self.agreement.trust() == Trust::Doubtful
    }

    /// The store's revision as applied here.
    pub fn revision(&self) -> Revision {
        self.store.revision()
    }

    /// The first revision that can be read here.
    pub fn compact_revision(&self) -> Revision {
        self.store.compact_revision()
    }

    /// The leader that had no room by its quota, 0: there is room; and the alarms of clients.
    pub fn alarms(&self) -> (MemberId, &[Alarm]) {
        (self.store.full_member(), self.store.raised_alarms())
    }

    /// Not all that compactions left is swept yet.
    pub fn sweep_due(&self) -> bool {
        self.store.sweep_due()
    }

    /// This member's state, possibly behind the others': for checks beside the protocol.
    pub fn range(&self, range: &Range) -> Result<Result<RangeResult, Fault>> {
        self.store.range(range)
    }

    /// Every member and where it listens for others, as the store has it; before it has anything, as whoever
    /// let this member join said.
    pub fn members(&self) -> &[Member] {
        match self.store.members() {
            [] => &self.acquaintances,
            members => members,
        }
    }

    /// Blank: it joins a cluster and has not got the state yet. Then it must be told whom to talk to.
    pub fn is_blank(&self) -> bool {
        self.store.members().is_empty()
    }

    pub fn acquaint(&mut self, members: Vec<Member>) {
        let voters: Vec<MemberId> = members.iter().filter(|m| !m.learner).map(|m| m.id).collect();
        self.raft.acquaint(&voters);
        self.acquaintances = members;
    }
}
