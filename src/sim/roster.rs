//! Who is in the cluster, by the log as it is seen from outside, and what must hold of its changes.
//!
//! A membership entry counts from the moment it is in the leader's log, and be it in memory. So an entry is committed
//! rightly if it is durable on a quorum of the membership that was in force at its index, or of a later one.

use std::collections::BTreeMap;

use super::watch::Held;
use crate::api::{Command, Member, MemberChange, command};
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

/// A membership that is committed.
#[derive(Clone, Debug)]
pub struct Settled {
    pub index: Index,
    pub membership: Membership,
    /// By id: whether it is a learner, and where it listens.
    members: BTreeMap<MemberId, (bool, Vec<String>)>,
    /// None: the cluster began with it.
    change: Option<MemberChange>,
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
        let (_, command) = command::decode(context).map_err(|why| wrong(&why.0))?;
        let Command::Members(change) = command else { return Err(wrong("its context is another command")) };
        if let MemberChange::Add { id, peer_urls, .. } = &change
            && let Some(machine) = peer_urls.iter().find_map(|url| machine_at(url))
        {
            self.machines.insert(*id, machine);
        }
        let concerned = self.machine(subject(&change));
        let known = self.begun.insert((entry.id.index, entry.id.term), (membership, change));
        Ok(known.is_none().then_some(concerned))
    }

    /// A membership entry is committed: V09, it follows from the one before it by its change alone.
    pub fn settle(&mut self, id: EntryId) -> Result<(), String> {
        let (membership, change) =
            self.begun.get(&(id.index, id.term)).expect("an entry that is committed was written").clone();
        let mut members = self.newest().members.clone();
        let possible = match &change {
            MemberChange::Add { id, peer_urls, learner } => {
                members.insert(*id, (*learner, peer_urls.clone())).is_none()
            }
            MemberChange::Remove { id } => members.remove(id).is_some(),
            MemberChange::Update { id, peer_urls } => {
                members.get_mut(id).map(|member| member.1.clone_from(peer_urls)).is_some()
            }
            MemberChange::Promote { id } => {
                members.get_mut(id).is_some_and(|member| std::mem::take(&mut member.0))
            }
            MemberChange::Alone { .. } => false,
        };
        let ids = |learner: bool| members.iter().filter(move |(_, m)| m.0 == learner).map(|(&id, _)| id);
        let expected =
            Membership { voters: ids(false).collect(), outgoing: Vec::new(), learners: ids(true).collect() };
        if !possible || membership != expected {
            let before = &self.newest().membership;
            return Err(format!("entry {id}, {change:x?}, makes {membership:x?} out of {before:x?}"));
        }
        self.settled.push(Settled { index: id.index, membership, members, change: Some(change) });
        Ok(())
    }

    fn at(&self, index: Index) -> &Settled {
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
    /// later one.
    pub fn is_quorum(&self, id: EntryId, holds: impl Fn(usize) -> bool) -> bool {
        let of = |ids: &[MemberId]| {
            ids.iter().filter(|id| holds(self.machine(**id))).count() >= majority(ids.len())
        };
        let by = |m: &Membership| of(&m.voters) && (m.outgoing.is_empty() || of(&m.outgoing));
        let mut later = self.begun.range((id.index + 1, 0)..).filter(|((_, term), _)| *term >= id.term);
        by(&self.at(id.index).membership) || later.any(|(_, (membership, _))| by(membership))
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

/// Who is added, removed, and so on.
pub fn subject(change: &MemberChange) -> MemberId {
    match *change {
        MemberChange::Add { id, .. }
        | MemberChange::Remove { id }
        | MemberChange::Update { id, .. }
        | MemberChange::Promote { id }
        | MemberChange::Alone { id } => id,
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::api::Origin;
    use crate::raft::EntryKind;

    fn entry(index: Index, membership: &Membership, change: MemberChange) -> Entry {
        let mut context = BytesMut::new();
        command::encode(Origin { member: 1, request_id: index }, &Command::Members(change), &mut context);
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
}
