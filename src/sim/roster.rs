//! Who is in the cluster, by the log as it is seen from outside, and what must hold of its changes.
//!
//! A membership entry counts from the moment it is in the leader's log, and be it in memory. So an entry is committed
//! rightly if it is durable on a quorum of the membership that was in force at its index, or of a later one.

use std::collections::BTreeMap;

use super::watch::Held;
use crate::api::{Member, MemberChange, command};
use crate::base::{EntryId, Index, MemberId, Term};
use crate::raft::quorum::majority;
use crate::raft::{Entry, Membership};

/// Where a machine listens for members; the operator may move it to another network, `net`. No two are alike: a
/// change is recognised by the URL that it was asked for with.
pub fn url(machine: usize, net: u64) -> String {
    assert!(net < 1 << 16, "the machine has been in every network that there is");
    format!("http://10.{}.{}.{machine}:2380", net % 256, net / 256)
}

/// The machine that listens there.
pub fn machine_at(url: &str) -> Option<usize> {
    url.strip_suffix(":2380")?.rsplit('.').next()?.parse().ok()
}

/// The machine that this member's URLs lead to.
pub fn machine_of(member: &Member) -> Option<usize> {
    member.peer_urls.iter().find_map(|url| machine_at(url))
}

/// By id: whether a member is a learner, and where it listens.
type Known = BTreeMap<MemberId, (bool, Vec<String>)>;

/// A membership that is committed.
#[derive(Clone, Debug)]
pub struct Settled {
    pub index: Index,
    pub membership: Membership,
    /// Who votes in the old half of a joint membership only is still there.
    members: Known,
    /// None: the cluster began with it.
    change: Option<MemberChange>,
}

impl Settled {
    /// What a change makes of it; None where it cannot be made.
    fn with(&self, change: &MemberChange) -> Option<(Membership, Known)> {
        let old = &self.membership;
        let mut members = self.members.clone();
        if *change == MemberChange::Leave {
            members.retain(|id, (learner, _)| *learner || old.voters.contains(id));
            return old.is_joint().then(|| (old.left(), members));
        }
        let mut gone = Vec::new();
        for step in change.steps() {
            let possible = match step {
                MemberChange::Add { id, peer_urls, learner } => {
                    members.insert(*id, (*learner, peer_urls.clone())).is_none()
                }
                MemberChange::Remove { id } => {
                    gone.push(*id);
                    members.contains_key(id)
                }
                MemberChange::Update { id, peer_urls } => {
                    members.get_mut(id).map(|member| member.1.clone_from(peer_urls)).is_some()
                }
                MemberChange::Promote { id } => {
                    members.get_mut(id).is_some_and(|member| std::mem::take(&mut member.0))
                }
                MemberChange::Alone { .. } | MemberChange::Several(_) | MemberChange::Leave => false,
            };
            if !possible || old.is_joint() {
                return None;
            }
        }
        let ids = |learners: bool| -> Vec<MemberId> {
            let stay = members.iter().filter(|(id, member)| member.0 == learners && !gone.contains(id));
            stay.map(|(&id, _)| id).collect()
        };
        let mut next = Membership { voters: ids(false), outgoing: Vec::new(), learners: ids(true) };
        let only = |of: &[MemberId], other: &[MemberId]| of.iter().filter(|id| !other.contains(id)).count();
        if only(&old.voters, &next.voters) + only(&next.voters, &old.voters) > 1 {
            next.outgoing.clone_from(&old.voters);
        }
        members.retain(|id, _| next.contains(*id));
        Some((next, members))
    }
}

pub struct Roster {
    machines: BTreeMap<MemberId, usize>,
    /// Every membership entry that was ever in a log.
    begun: BTreeMap<(Index, Term), (Membership, MemberChange)>,
    /// The committed ones in their order.
    settled: Vec<Settled>,
}

impl Roster {
    pub fn new(members: u64) -> Roster {
        let membership = Membership { voters: (1..=members).collect(), ..Membership::default() };
        let at = |id: u64| (id, (false, vec![url(id as usize, 0)]));
        let members: BTreeMap<_, _> = (1..=members).map(at).collect();
        Roster {
            machines: members.keys().map(|&id| (id, id as usize)).collect(),
            begun: BTreeMap::new(),
            settled: vec![Settled { index: 0, membership, members, change: None }],
        }
    }

    /// The machine that runs this member; 0 is nobody's.
    pub fn machine(&self, id: MemberId) -> usize {
        self.machines.get(&id).copied().unwrap_or(0)
    }

    /// The member that this machine runs, or would run.
    pub fn member_on(&self, machine: usize) -> Option<MemberId> {
        self.machines.iter().find(|(_, at)| **at == machine).map(|(&id, _)| id)
    }

    pub fn machines_of(&self, ids: &[MemberId]) -> Vec<usize> {
        ids.iter().map(|id| self.machine(*id)).collect()
    }

    /// The newest that is committed.
    pub fn newest(&self) -> &Settled {
        self.settled.last().expect("the first one stays")
    }

    /// Whether a change was begun that is not committed; it may be in no log any more.
    pub fn may_change(&self) -> bool {
        self.begun.last_key_value().is_some_and(|((index, _), _)| *index > self.newest().index)
    }

    pub fn is_enrolled(&self, machine: usize) -> bool {
        self.newest().members.keys().any(|id| self.machine(*id) == machine)
    }

    /// The committed changes in their order.
    pub fn changes(&self) -> impl Iterator<Item = &MemberChange> {
        self.settled.iter().filter_map(|settled| settled.change.as_ref())
    }

    /// A membership entry is in a log; the machine that it concerns, if that is news.
    pub fn begin(&mut self, entry: &Entry) -> Result<Option<usize>, String> {
        let wrong = |why: &str| format!("the membership entry {}: {why}", entry.id);
        let (membership, context) = Membership::decode(&entry.payload).map_err(wrong)?;
        let (_, change) = command::decode_change(context).map_err(|why| wrong(&why.0))?;
        for step in change.steps() {
            if let MemberChange::Add { id, peer_urls, .. } = step
                && let Some(machine) = peer_urls.iter().find_map(|url| machine_at(url))
            {
                self.machines.insert(*id, machine);
            }
        }
        let concerned = self.machine(subject(&change));
        let known = self.begun.insert((entry.id.index, entry.id.term), (membership, change));
        Ok(known.is_none().then_some(concerned))
    }

    /// A membership entry is committed: V09, it follows from the one before it by its change alone.
    pub fn settle(&mut self, id: EntryId) -> Result<(), String> {
        let (membership, change) =
            self.begun.get(&(id.index, id.term)).expect("an entry that is committed was written").clone();
        match self.newest().with(&change) {
            Some((expected, members)) if membership == expected => {
                self.settled.push(Settled { index: id.index, membership, members, change: Some(change) });
                Ok(())
            }
            _ => {
                let before = &self.newest().membership;
                Err(format!("entry {id}, {change:x?}, makes {membership:x?} out of {before:x?}"))
            }
        }
    }

    /// The one that is in force for who has applied so much.
    pub fn at(&self, index: Index) -> &Settled {
        let behind = self.settled.partition_point(|settled| settled.index <= index);
        &self.settled[behind - 1]
    }

    /// Whether a member that has applied `index` knows of these members.
    pub fn agrees(&self, index: Index, members: &[Member]) -> bool {
        let known = &self.at(index).members;
        known.len() == members.len()
            && members
                .iter()
                .all(|m| known.get(&m.id).is_some_and(|k| k.0 == m.learner && k.1 == m.peer_urls))
    }

    /// Whether those machines that `holds` says are a quorum for the entry `id`, by the membership in force there or a
    /// later one. The one that follows a joint membership counts for what is behind that: the rest was committed before.
    pub fn is_quorum(&self, id: EntryId, holds: impl Fn(usize) -> bool) -> bool {
        let by = |membership: &Membership| self.is_quorum_of(membership, &holds);
        let may_count = |index: Index, change: &MemberChange| {
            let joint = self.settled.iter().rev().find(|s| s.index < index && s.membership.is_joint());
            *change != MemberChange::Leave || joint.is_some_and(|joint| joint.index < id.index)
        };
        let mut later = self.begun.range((id.index + 1, 0)..).filter(|((_, term), _)| *term >= id.term);
        by(&self.at(id.index).membership)
            || later.any(|((index, _), (membership, change))| may_count(*index, change) && by(membership))
    }

    /// The same for a membership entry, by what it says itself.
    pub fn is_own_quorum(&self, id: EntryId, holds: impl Fn(usize) -> bool) -> bool {
        self.is_quorum_of(&self.begun[&(id.index, id.term)].0, &holds)
    }

    fn is_quorum_of(&self, membership: &Membership, holds: &impl Fn(usize) -> bool) -> bool {
        let of = |ids: &[MemberId]| {
            ids.iter().filter(|id| holds(self.machine(**id))).count() >= majority(ids.len())
        };
        of(&membership.voters) && (!membership.is_joint() || of(&membership.outgoing))
    }

    pub fn change(&self, id: EntryId) -> &MemberChange {
        &self.begun[&(id.index, id.term)].1
    }

    /// The last change before the one at `id`, in a log that holds it.
    pub fn change_before(&self, id: EntryId, held: &Held) -> Option<EntryId> {
        let before = self.begun.range(..(id.index, 0)).rev();
        before
            .map(|((index, term), _)| EntryId::new(*term, *index))
            .find(|before| held.term(before.index) == Some(before.term))
    }

    /// Whom the newest committed change is about.
    pub fn last_concerned(&self) -> usize {
        self.newest().change.as_ref().map_or(0, |change| self.machine(subject(change)))
    }
}

/// Who is added, removed, and so on; the first of several. 0: nobody in particular.
pub fn subject(change: &MemberChange) -> MemberId {
    match change.steps().first() {
        Some(
            MemberChange::Add { id, .. }
            | MemberChange::Remove { id }
            | MemberChange::Update { id, .. }
            | MemberChange::Promote { id }
            | MemberChange::Alone { id },
        ) => *id,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::api::{Command, Origin};
    use crate::raft::EntryKind;

    fn entry(index: Index, membership: &Membership, change: MemberChange) -> Entry {
        let mut context = BytesMut::new();
        if change != MemberChange::Leave {
            command::encode(Origin { member: 1, request_id: index }, &Command::Members(change), &mut context);
        }
        let payload = membership.encode(&context);
        Entry { id: EntryId::new(1, index), kind: EntryKind::Membership, payload }
    }

    fn of(voters: &[MemberId]) -> Membership {
        Membership { voters: voters.to_vec(), ..Membership::default() }
    }

    #[test]
    fn a_membership_that_its_change_does_not_explain_is_noticed() {
        let add = MemberChange::Add { id: 90, peer_urls: vec![url(4, 7)], learner: false };
        let mut roster = Roster::new(3);
        assert_eq!(roster.begin(&entry(5, &of(&[1, 2, 3, 90]), add.clone())), Ok(Some(4)));
        assert_eq!((roster.machine(90), roster.is_enrolled(4)), (4, false));
        roster.settle(EntryId::new(1, 5)).unwrap();
        assert!(roster.is_enrolled(4));
        roster.begin(&entry(9, &of(&[1, 2, 90]), MemberChange::Remove { id: 2 })).unwrap();
        assert!(roster.settle(EntryId::new(1, 9)).unwrap_err().contains("out of"));
        roster.begin(&entry(10, &of(&[1, 2, 3, 90]), add)).unwrap();
        assert!(roster.settle(EntryId::new(1, 10)).is_err(), "it is there already");
    }

    #[test]
    fn a_quorum_is_of_the_membership_in_force_or_of_a_later_one() {
        let mut roster = Roster::new(3);
        let add = MemberChange::Add { id: 90, peer_urls: vec![url(4, 0)], learner: false };
        roster.begin(&entry(5, &of(&[1, 2, 3, 90]), add)).unwrap();
        let quorum = |index, machines: &[usize], roster: &Roster| {
            roster.is_quorum(EntryId::new(1, index), |machine| machines.contains(&machine))
        };
        assert!(quorum(4, &[1, 2], &roster));
        assert!(!quorum(4, &[1, 4], &roster));
        assert!(quorum(4, &[2, 3, 4], &roster), "by the later one");
        roster.settle(EntryId::new(1, 5)).unwrap();
        assert!(!quorum(5, &[1, 2], &roster));
        assert!(quorum(5, &[1, 2, 4], &roster));
    }
    #[test]
    fn a_joint_membership_needs_both_halves_until_it_is_left() {
        let mut roster = Roster::new(3);
        let steps = vec![
            MemberChange::Add { id: 90, peer_urls: vec![url(4, 0)], learner: false },
            MemberChange::Remove { id: 1 },
        ];
        let joint = Membership { outgoing: vec![1, 2, 3], ..of(&[2, 3, 90]) };
        let several = MemberChange::Several(steps);
        roster.begin(&entry(5, &of(&[2, 3, 90]), several.clone())).unwrap();
        assert!(roster.settle(EntryId::new(1, 5)).is_err(), "two voters differ, so it is joint");
        roster.begin(&entry(6, &joint, several)).unwrap();
        roster.begin(&entry(7, &of(&[2, 3, 90]), MemberChange::Leave)).unwrap();
        let quorum = |index, machines: &[usize], roster: &Roster| {
            roster.is_quorum(EntryId::new(1, index), |machine| machines.contains(&machine))
        };
        roster.settle(EntryId::new(1, 6)).unwrap();
        assert!(roster.is_enrolled(1) && roster.is_enrolled(4));
        assert!(!quorum(6, &[3, 4], &roster) && !quorum(6, &[1, 2], &roster) && quorum(6, &[2, 3], &roster));
        roster.settle(EntryId::new(1, 7)).unwrap();
        assert!(!roster.is_enrolled(1) && quorum(7, &[3, 4], &roster));
        assert!(roster.settle(EntryId::new(1, 7)).is_err(), "it was left already");
    }
}
