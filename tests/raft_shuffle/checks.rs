//! What must be true after every event, checked against what really happened.

use pawl::base::{EntryId, Index, MemberId, Term};
use pawl::raft::{Entry, EntryKind, Membership, Message, MessageBody, ReadReady, Role};

use super::World;
use crate::raft_world::Member;

impl World {
    pub(super) fn check(&mut self) {
        for id in 1..=self.count() {
            self.check_member(id);
        }
        self.check_leases();
    }

    /// What a message claims would survive a power cut at its sender, now.
    pub(super) fn check_claim(&mut self, message: &Message) {
        let Message { from, to, term, ref body } = *message;
        let durable = &self.members[from as usize - 1].durable;
        let hard_state = durable.hard_state;
        match *body {
            // The vote may have waited for a write that a later term went along with.
            MessageBody::Vote { last, .. } if hard_state.term <= term => {
                assert!(
                    (hard_state.term, hard_state.vote) == (term, from),
                    "n{from} campaigns in {term} before its vote is durable: {hard_state:?}"
                );
                assert!(durable.last() >= last, "n{from} shows a log {last} that is not durable");
            }
            MessageBody::VoteReply { granted: true } => {
                assert!(
                    hard_state.term > term || (hard_state.term, hard_state.vote) == (term, to),
                    "n{from} votes for n{to} in {term}, durable is {hard_state:?}"
                );
                let earlier = *self.truth.votes.entry((from, term)).or_insert(to);
                assert!(earlier == to, "n{from} votes twice in {term}: n{earlier} and n{to}");
            }
            MessageBody::AppendAccepted { matched, .. } => {
                assert!(hard_state.term >= term, "n{from} follows in {term}, durable is {hard_state:?}");
                let last = durable.last();
                // In a later term, that a message of this one may have waited for, the tail may be replaced.
                if hard_state.term == term {
                    assert!(last.index >= matched, "n{from} claims {matched}, durable is {last}");
                }
            }
            _ => {}
        }
        let pre = matches!(body, MessageBody::PreVote { .. } | MessageBody::PreVoteReply { .. });
        if !pre && !matches!(body, MessageBody::AppendRejected { .. }) {
            assert!(hard_state.term >= term, "n{from} acts in {term}, durable is {hard_state:?}");
            let claimed = self.truth.claimed_terms.entry(from).or_default();
            *claimed = (*claimed).max(term);
        }
    }

    /// Log matching: by induction the pair (entry, term of the one before) fixes the whole log before it.
    pub(super) fn note_entry(&mut self, id: MemberId, entry: &Entry) {
        let log = &self.members[id as usize - 1].log;
        let before = pawl::raft::LogView::term(log, entry.id.index - 1).expect("the log has no gap");
        if entry.kind == EntryKind::Membership && !self.truth.entries.contains_key(&entry.id) {
            self.check_change(id, entry);
        }
        let known = self.truth.entries.entry(entry.id).or_insert_with(|| (before, entry.clone()));
        assert!(*known == (before, entry.clone()), "n{id} holds another {} than {known:?}", entry.id);
        let commit = self.truth.commits.get(&id).copied().unwrap_or(0);
        if entry.id.index <= commit {
            let known = self.truth.committed[entry.id.index as usize - 1].id;
            assert!(entry.id == known, "n{id} replaces the committed entry {known} by {}", entry.id);
        }
    }

    /// A change is in a log for the first time: its leader just wrote it.
    pub(super) fn check_change(&self, id: MemberId, entry: &Entry) {
        let Member { raft, log, .. } = &self.members[id as usize - 1];
        let commit = raft.as_ref().expect("it writes").standing().commit;
        let (next, _) = Membership::decode(&entry.payload).unwrap();
        assert!(
            pawl::raft::LogView::term(log, commit) == Some(entry.id.term),
            "n{id} changes the membership in {} before it committed anything in its term",
            entry.id
        );
        let open = (commit + 1..entry.id.index).filter_map(|index| log.entry(index));
        let open = open.filter(|earlier| earlier.kind == EntryKind::Membership).count();
        assert!(open == 0, "n{id} begins {} while {open} changes are not committed", entry.id);
        let (_, before) = self.truth.memberships.last().unwrap();
        let ids: Vec<MemberId> = (1..=self.count()).collect();
        for side in 0..1_u32 << ids.len() {
            let on = |bit: u32| -> Vec<MemberId> {
                ids.iter().copied().filter(|id| side >> (id - 1) & 1 == bit).collect()
            };
            assert!(
                !(is_quorum(before, &on(1)) && is_quorum(&next, &on(0))),
                "{before:?} and {next:?} can decide apart from each other"
            );
        }
        assert!(next.learners.iter().all(|learner| !next.voters.contains(learner)), "a learner votes");
    }

    pub(super) fn note_committed(&mut self, id: MemberId, entry: &Entry) {
        let position = entry.id.index as usize - 1;
        match self.truth.committed.get(position) {
            Some(known) => assert!(known == entry, "n{id} applies {} and others {}", entry.id, known.id),
            None => panic!("n{id} applies {} that no leader committed", entry.id),
        }
    }

    pub(super) fn note_read(&mut self, id: MemberId, read: ReadReady) {
        let Some((asked, _, committed)) = self.truth.reads.remove(&read.id) else {
            panic!("n{id} answers the read {} twice, or nobody asked", read.id);
        };
        assert!(asked == id, "a read of n{asked} is answered by n{id}");
        let Some(index) = read.index else {
            self.truth.reads_failed += 1;
            return;
        };
        self.truth.reads_served += 1;
        assert!(
            index >= committed,
            "n{id} reads at {index} when {committed} was committed before the request"
        );
        assert!(
            index <= self.truth.committed.len() as Index,
            "n{id} reads at {index}, beyond what is committed"
        );
    }

    pub(super) fn check_member(&mut self, id: MemberId) {
        let Member { raft: Some(raft), life, .. } = &self.members[id as usize - 1] else { return };
        let standing = raft.standing();
        let this = (standing.term, *life);
        // One that removed itself may commit that and step down in one turn.
        let leads = raft.role() == Role::Leader || self.truth.led.get(&id) == Some(&this);
        if leads {
            self.truth.led.insert(id, this);
            let known = *self.truth.leaders.entry(standing.term).or_insert(id);
            assert!(known == id, "n{known} and n{id} both lead term {}", standing.term);
        }
        let before = *self.truth.commits.get(&id).unwrap();
        assert!(standing.commit >= before, "n{id} takes back its commit {before} to {}", standing.commit);
        if leads {
            self.check_leader(id, standing.term, before, standing.commit);
        }
        assert!(
            standing.commit <= self.truth.committed.len() as Index,
            "n{id} commits {} that no leader committed",
            standing.commit
        );
        self.truth.commits.insert(id, standing.commit);
        let Member { raft, log, membership, .. } = &self.members[id as usize - 1];
        let raft = raft.as_ref().expect("it is up");
        if raft.last() == log.last() {
            let newest = log.entries.iter().rev().find(|entry| entry.kind == EntryKind::Membership);
            let newest = newest.map(|entry| Membership::decode(&entry.payload).unwrap().0);
            let expected = newest.as_ref().unwrap_or(membership);
            assert!(
                raft.membership() == expected,
                "n{id} goes by {:?}, its log says {expected:?}",
                raft.membership()
            );
        }
    }

    pub(super) fn check_leader(&mut self, id: MemberId, term: Term, before: Index, commit: Index) {
        let log = &self.members[id as usize - 1].log;
        let term_of = |index: Index| pawl::raft::LogView::term(log, index);
        // Leader completeness. A leader whose term is over need not know what came later.
        let newest = self.truth.leaders.last_key_value().is_some_and(|(newest, _)| *newest == term);
        if let Some(last) = self.truth.committed.last()
            && newest
        {
            assert!(
                term_of(last.id.index) == Some(last.id.term),
                "n{id} leads term {term} without the committed entry {}",
                last.id
            );
        }
        if commit == before {
            return;
        }
        assert!(
            term_of(commit) == Some(term),
            "n{id} commits {commit} of term {:?} by counting, in term {term}",
            term_of(commit)
        );
        let commit_id = EntryId::new(term, commit);
        let copies: Vec<MemberId> = self
            .members
            .iter()
            .filter(|member| {
                let durable = &member.durable;
                durable.base.index >= commit || durable.entry(commit).is_some_and(|e| e.id == commit_id)
            })
            .map(|member| member.id)
            .collect();
        // It counted by the newest membership in its log; where it committed a joint one, and left it at once, by that.
        let mut known =
            log.entries.iter().rev().filter(|entry| entry.kind == EntryKind::Membership).map(|entry| {
                let (membership, _) = Membership::decode(&entry.payload).unwrap();
                (entry.id.index, membership)
            });
        let newest = known.next();
        let left = newest.as_ref().is_some_and(|(index, _)| *index > commit);
        let joint = known.next().filter(|(index, joint)| left && joint.is_joint() && *index > before);
        let voters = joint.or(newest).map(|(_, membership)| membership);
        let voters = voters.unwrap_or_else(|| self.members[id as usize - 1].membership.clone());
        assert!(
            is_quorum(&voters, &copies),
            "n{id} commits {commit_id} of {voters:?} with copies at {copies:?}"
        );
        for index in self.truth.committed.len() as Index + 1..=commit {
            let entry = log.entry(index).expect("a leader holds what it commits").clone();
            if entry.kind == EntryKind::Membership {
                let (next, _) = Membership::decode(&entry.payload).unwrap();
                let (_, last) = self.truth.memberships.last().unwrap();
                self.truth.removed.extend(last.all().into_iter().filter(|id| !next.contains(*id)));
                self.truth.memberships.push((index, next));
            }
            self.truth.committed.push(entry);
        }
    }

    /// While somebody may serve reads by its lease, nobody else leads a later term.
    pub(super) fn check_leases(&mut self) {
        for holder in &self.members {
            let Some(raft) = &holder.raft else { continue };
            let standing = raft.standing();
            if raft.role() != Role::Leader || standing.lease_until <= self.now(holder.id) {
                continue;
            }
            self.truth.leases_seen += 1;
            for other in &self.members {
                let Some(raft) = &other.raft else { continue };
                let leads = raft.role() == Role::Leader && raft.standing().term > standing.term;
                assert!(
                    !leads,
                    "n{} leads term {} while the lease of n{} of term {} lasts",
                    other.id,
                    raft.standing().term,
                    holder.id,
                    standing.term
                );
            }
        }
    }
}

/// The definition, word for word.
pub(super) fn is_quorum(membership: &Membership, ids: &[MemberId]) -> bool {
    let most = |set: &[MemberId]| set.iter().filter(|id| ids.contains(id)).count() * 2 > set.len();
    most(&membership.voters) && (membership.outgoing.is_empty() || most(&membership.outgoing))
}
