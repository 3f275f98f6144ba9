//! What really happened, which no member knows, and what must be true of it.
//!
//! Everything is stated in the words of the paper and the thesis, and computed in the most naive way.

use super::member::{Image, Member};
use crate::base::{EntryId, Index, MemberId, Mono, Term};
use crate::raft::explore::{Digest, Names};
use crate::raft::{Entry, EntryKind, LogView, Membership, Message, MessageBody, ReadReady, Role};

#[derive(Clone)]
pub(super) struct Truth {
    /// Everything that was ever committed, from index 1.
    committed: Vec<Entry>,
    /// The memberships among that, the first one included.
    memberships: Vec<Membership>,
    leaders: Vec<(Term, MemberId)>,
    /// The term that a member leads or led, since it started.
    led: Vec<Term>,
    /// Votes that left: voter, term, candidate.
    votes: Vec<(MemberId, Term, MemberId)>,
    /// The greatest term that each member claimed to be in.
    claimed: Vec<(MemberId, Term)>,
    /// Each member's commit index since it started.
    commits: Vec<Index>,
    /// Reads under way: id, member, what was committed when it was asked.
    reads: Vec<(u64, MemberId, Index)>,
}

const MEMBERS_MAX: usize = 8;

impl Truth {
    pub fn new(first: Membership) -> Truth {
        Truth {
            committed: Vec::new(),
            memberships: vec![first],
            leaders: Vec::new(),
            led: vec![0; MEMBERS_MAX],
            votes: Vec::new(),
            claimed: Vec::new(),
            commits: vec![0; MEMBERS_MAX],
            reads: Vec::new(),
        }
    }

    pub fn restarted(&mut self, id: MemberId) {
        self.led[id as usize] = 0;
        self.commits[id as usize] = 0;
        self.reads.retain(|(_, member, _)| *member != id);
    }

    pub fn installed(&mut self, id: MemberId, at: EntryId) {
        self.commits[id as usize] = at.index;
    }

    pub fn asked(&mut self, id: MemberId, read: u64) {
        self.reads.push((read, id, self.committed.len() as Index));
    }

    /// A read is answered once, by the member that was asked, at what was committed before it was asked.
    pub fn answered(&mut self, id: MemberId, read: ReadReady) -> Result<(), String> {
        let Some(position) =
            self.reads.iter().position(|(asked, member, _)| (*asked, *member) == (read.id, id))
        else {
            return Err(format!("n{id} answers the read {}, which nobody asked it", read.id));
        };
        let (_, _, committed) = self.reads.remove(position);
        match read.index {
            Some(index) if index < committed => {
                Err(format!("n{id} reads at {index} when {committed} was committed before the request (V11)"))
            }
            _ => Ok(()),
        }
    }

    /// A message's claims would survive a power cut at its sender, now.
    pub fn check_claim(&mut self, sender: &Member, message: &Message) -> Result<(), String> {
        let Message { from, to, term, ref body } = *message;
        let durable = sender.durable.hard_state;
        match body {
            MessageBody::PreVote { .. }
            | MessageBody::PreVoteReply { .. }
            | MessageBody::AppendRejected { .. } => return Ok(()),
            MessageBody::VoteReply { granted: true } => {
                let known = self.votes.iter().find(|(voter, voted, _)| (*voter, *voted) == (from, term));
                match known {
                    Some((_, _, other)) if *other != to => {
                        return Err(format!("n{from} votes for n{other} and n{to} in term {term} (V03)"));
                    }
                    Some(_) => {}
                    None => self.votes.push((from, term, to)),
                }
                if durable.term <= term && (durable.term, durable.vote) != (term, to) {
                    return Err(format!("n{from} votes for n{to} in {term}, durable is {durable:?} (V01)"));
                }
            }
            MessageBody::AppendAccepted { matched, .. }
                if durable.term == term && sender.durable.last().index < *matched =>
            {
                let last = sender.durable.last();
                return Err(format!("n{from} claims {matched}, durable is {last} (V01)"));
            }
            _ => {}
        }
        if durable.term < term {
            return Err(format!("n{from} acts in term {term}, durable is {durable:?} (V01)"));
        }
        match self.claimed.iter_mut().find(|(member, _)| *member == from) {
            Some((_, claimed)) => *claimed = (*claimed).max(term),
            None => self.claimed.push((from, term)),
        }
        Ok(())
    }

    /// A member after a turn.
    pub fn check_member(&mut self, members: &[Member], id: MemberId) -> Result<(), String> {
        let member = &members[id as usize - 1];
        let standing = member.raft.standing();
        let claimed = self.claimed.iter().find(|(who, _)| *who == id).map_or(0, |(_, term)| *term);
        if standing.term < claimed {
            return Err(format!("n{id} forgot term {claimed}, it is in {} (V03)", standing.term));
        }
        if member.raft.role() == Role::Leader {
            self.led[id as usize] = standing.term;
            match self.leaders.iter().find(|(term, _)| *term == standing.term) {
                Some((term, other)) if *other != id => {
                    return Err(format!("n{other} and n{id} both lead term {term} (V02)"));
                }
                Some(_) => {}
                None => {
                    self.leaders.push((standing.term, id));
                    self.check_completeness(member, standing.term)?;
                }
            }
        }
        if standing.commit < self.commits[id as usize] {
            return Err(format!(
                "n{id} takes back its commit {} to {} (V04)",
                self.commits[id as usize], standing.commit
            ));
        }
        // One that removed itself may commit that and step down in one turn.
        if self.led[id as usize] == standing.term && standing.commit > self.commits[id as usize] {
            self.note_commit(members, id, standing.term, standing.commit)?;
        }
        self.commits[id as usize] = standing.commit;
        self.check_committed_prefix(member, standing.commit)?;
        self.check_membership(member)
    }

    /// Who begins to lead the newest term holds everything that was ever committed.
    fn check_completeness(&self, member: &Member, term: Term) -> Result<(), String> {
        if self.leaders.iter().any(|(other, _)| *other > term) {
            return Ok(());
        }
        let missing = self.committed.iter().find(|entry| {
            entry.id.index > member.log.base.index && member.log.term(entry.id.index) != Some(entry.id.term)
        });
        match missing {
            Some(entry) => {
                let id = member.id;
                Err(format!("n{id} leads term {term} without the committed entry {} (V05)", entry.id))
            }
            None => Ok(()),
        }
    }

    /// A leader counts copies of an entry of its own term, durable ones, at a quorum.
    fn note_commit(
        &mut self,
        members: &[Member],
        id: MemberId,
        term: Term,
        commit: Index,
    ) -> Result<(), String> {
        let log = &members[id as usize - 1].log;
        let before = self.commits[id as usize];
        if log.term(commit) != Some(term) {
            return Err(format!(
                "n{id} commits {commit} of term {:?} in term {term} (V04)",
                log.term(commit)
            ));
        }
        let at = EntryId::new(term, commit);
        let holds =
            |image: &Image| image.base.index >= commit || image.entry(commit).is_some_and(|e| e.id == at);
        let copies: Vec<MemberId> =
            members.iter().filter(|member| holds(&member.durable)).map(|member| member.id).collect();
        let voters = counted(&members[id as usize - 1], before, commit);
        if !is_quorum(&voters, &copies) {
            return Err(format!("n{id} commits {at} of {voters:?} with copies at {copies:?} (V07)"));
        }
        for index in self.committed.len() as Index + 1..=commit {
            let Some(entry) = log.entry(index) else { break };
            if entry.kind == EntryKind::Membership {
                self.memberships.push(decoded(entry));
            }
            self.committed.push(entry.clone());
        }
        Ok(())
    }

    /// What is committed here is what was committed, and stays. By induction over writes, logs match.
    fn check_committed_prefix(&self, member: &Member, commit: Index) -> Result<(), String> {
        for index in member.log.base.index + 1..=commit {
            let found = member.log.entry(index);
            let expected = self.committed.get(index as usize - 1);
            if found.is_none() || found != expected {
                let (found, expected) = (found.map(|e| e.id), expected.map(|e| e.id));
                return Err(format!(
                    "n{} has {found:?} at {index}, committed is {expected:?} (V04)",
                    member.id
                ));
            }
        }
        Ok(())
    }

    /// The newest membership in a log is the one that counts there.
    fn check_membership(&self, member: &Member) -> Result<(), String> {
        if member.raft.last() != member.log.last() {
            return Ok(()); // An entry waits to be handed over.
        }
        let newest = member.log.entries.iter().rev().find(|entry| entry.kind == EntryKind::Membership);
        let expected = newest.map_or_else(|| member.membership.clone(), decoded);
        if *member.raft.membership() != expected {
            return Err(format!(
                "n{} goes by {:?}, its log says {expected:?} (V09)",
                member.id,
                member.raft.membership()
            ));
        }
        Ok(())
    }

    /// An entry came into a log: the logs match, and if a leader began a change, it might.
    pub fn check_written(&self, members: &[Member], id: MemberId, entry: &Entry) -> Result<(), String> {
        let log = &members[id as usize - 1].log;
        let before = log.term(entry.id.index - 1);
        for other in members.iter().filter(|other| other.id != id) {
            let Some(theirs) = other.log.entry(entry.id.index) else { continue };
            let theirs_before = other.log.term(entry.id.index - 1);
            if theirs.id == entry.id && (theirs != entry || theirs_before != before) {
                return Err(format!("the logs of n{id} and n{} differ at {} (V04)", other.id, entry.id));
            }
        }
        let begins = self.leaders.contains(&(entry.id.term, id)) && entry.kind == EntryKind::Membership;
        if begins { self.check_change(&members[id as usize - 1], entry) } else { Ok(()) }
    }

    fn check_change(&self, leader: &Member, entry: &Entry) -> Result<(), String> {
        let (id, at) = (leader.id, entry.id);
        let commit = leader.raft.standing().commit;
        if leader.log.term(commit) != Some(at.term) {
            return Err(format!(
                "n{id} changes the membership in {at} before it committed in its term (V09)"
            ));
        }
        let open = (commit + 1..at.index)
            .filter(|index| leader.log.entry(*index).is_some_and(|e| e.kind == EntryKind::Membership));
        if open.count() > 0 {
            return Err(format!("n{id} begins {at} while another change is not committed (V09)"));
        }
        let before = self.memberships.last().expect("there is a first one");
        let next = decoded(entry);
        let ids: Vec<MemberId> = (1..MEMBERS_MAX as MemberId).collect();
        for side in 0..1_u32 << ids.len() {
            let on =
                |bit: u32| ids.iter().copied().filter(|id| side >> (id - 1) & 1 == bit).collect::<Vec<_>>();
            if is_quorum(before, &on(1)) && is_quorum(&next, &on(0)) {
                return Err(format!("{before:?} and {next:?} can decide apart from each other (V09)"));
            }
        }
        Ok(())
    }

    /// While somebody may serve reads by its lease, nobody leads a later term.
    pub fn check_leases(&self, members: &[Member], now: Mono) -> Result<(), String> {
        for holder in members {
            let standing = holder.raft.standing();
            if holder.raft.role() != Role::Leader || standing.lease_until <= now {
                continue;
            }
            for other in members {
                let term = other.raft.standing().term;
                if other.raft.role() == Role::Leader && term > standing.term {
                    return Err(format!(
                        "n{} leads term {term} while the lease of n{} of term {} lasts (V10)",
                        other.id, holder.id, standing.term
                    ));
                }
            }
        }
        Ok(())
    }

    pub fn fingerprint(&self, names: &Names) -> u64 {
        let mut digest = Digest::new(40);
        self.committed.iter().for_each(|entry| digest.add(names.entry(entry)));
        let mut sum = 0_u64;
        let mut part = |kind: u64, of: &[u64]| {
            let mut digest = Digest::new(kind);
            of.iter().for_each(|value| digest.add(*value));
            sum = sum.wrapping_add(digest.0);
        };
        self.leaders.iter().for_each(|(term, id)| part(41, &[*term, names.of(*id)]));
        self.votes.iter().for_each(|(voter, term, to)| part(42, &[names.of(*voter), *term, names.of(*to)]));
        self.claimed.iter().for_each(|(id, term)| part(43, &[names.of(*id), *term]));
        self.reads.iter().for_each(|(_, id, committed)| part(44, &[names.of(*id), *committed]));
        for id in 1..MEMBERS_MAX {
            part(45, &[names.of(id as MemberId), self.led[id], self.commits[id]]);
        }
        digest.add(sum);
        digest.0
    }
}

fn decoded(entry: &Entry) -> Membership {
    Membership::decode(&entry.payload).expect("the core checked it").0
}

/// By which membership a leader counted: the newest in its log; where it committed a joint one, and left it at
/// once, by that.
fn counted(leader: &Member, before: Index, commit: Index) -> Membership {
    let mut known = leader.log.entries.iter().rev().filter(|entry| entry.kind == EntryKind::Membership);
    let newest = known.next();
    let left = newest.is_some_and(|entry| entry.id.index > commit);
    let joint = known.next().filter(|entry| left && entry.id.index > before && decoded(entry).is_joint());
    joint.or(newest).map_or_else(|| leader.membership.clone(), decoded)
}

/// The definition, word for word.
fn is_quorum(membership: &Membership, ids: &[MemberId]) -> bool {
    let most = |set: &[MemberId]| set.iter().filter(|id| ids.contains(id)).count() * 2 > set.len();
    most(&membership.voters) && (membership.outgoing.is_empty() || most(&membership.outgoing))
}
