//! Changes of the membership, applied. The leader checked them when it proposed them, against a membership that has
//! not changed since; what does not fit all the same is a fault that is the same on every member.
//!
//! Several changes at once take two entries if more than one voter comes or goes (`raft::membership` has the reasons).
//! With the first, who is added or promoted is there, and who is to go is only marked: until the second its vote
//! may be needed, so it must not be told that it was removed. The marks are in the records, so that a restart and a
//! snapshot between the two know both halves.

use super::member_record::{self, Half};
use super::{MEMBERS, Store, chain};
use crate::api::{Body, Fault, Member, MemberChange};
use crate::base::{MemberId, Result};
use crate::io::Disk;

/// Voters that count in one half of a joint membership only, by id. Both are empty where it is not joint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joint {
    /// In the new half.
    pub coming: Vec<MemberId>,
    /// In the old half; removed when the joint membership is left.
    pub leaving: Vec<MemberId>,
}

impl Joint {
    pub fn is_empty(&self) -> bool {
        self.coming.is_empty() && self.leaving.is_empty()
    }

    pub(super) fn note(&mut self, id: MemberId, half: Half) {
        let ids = match half {
            Half::Both => return,
            Half::New => &mut self.coming,
            Half::Old => &mut self.leaving,
        };
        ids.push(id);
        ids.sort_unstable();
    }

    fn half(&self, id: MemberId) -> Half {
        match id {
            _ if self.coming.contains(&id) => Half::New,
            _ if self.leaving.contains(&id) => Half::Old,
            _ => Half::Both,
        }
    }
}

impl<D: Disk> Store<D> {
    pub(super) fn change_members(&mut self, change: &MemberChange) -> Result<Body> {
        match change {
            MemberChange::Leave => self.leave_joint(),
            MemberChange::Alone { id } => {
                self.joint = Joint::default();
                let others: Vec<MemberId> =
                    self.members.iter().map(|member| member.id).filter(|other| other != id).collect();
                for other in others {
                    self.remove_member(other)?;
                }
                self.alter_member(*id, |member| member.learner = false)
            }
            _ if !self.joint.is_empty() => Ok(Body::Fault(Fault::busy())),
            MemberChange::Several(steps) => self.take_steps(steps),
            MemberChange::Add { id, peer_urls, learner } => self.add_member(*id, peer_urls, *learner),
            MemberChange::Remove { id } => {
                if self.member(*id).is_none() {
                    return Ok(Body::Fault(Fault::no_member()));
                }
                self.remove_member(*id)?;
                Ok(Body::Members(self.members.clone()))
            }
            MemberChange::Update { id, peer_urls } => {
                self.alter_member(*id, |member| member.peer_urls.clone_from(peer_urls))
            }
            MemberChange::Promote { id } => self.alter_member(*id, |member| member.learner = false),
        }
    }

    // ---- Several changes

    /// All of them, or none.
    fn take_steps(&mut self, steps: &[MemberChange]) -> Result<Body> {
        let mut seen = Vec::new();
        if let Some(fault) = steps.iter().find_map(|step| self.misfit(step, &mut seen)) {
            return Ok(Body::Fault(fault));
        }
        let is_joint = steps.iter().filter(|step| self.concerns_a_voter(step)).count() > 1;
        let new = if is_joint { Half::New } else { Half::Both };
        for step in steps {
            match step {
                MemberChange::Add { id, peer_urls, learner } => {
                    self.joint.note(*id, if *learner { Half::Both } else { new });
                    self.add_member(*id, peer_urls, *learner)?;
                }
                MemberChange::Promote { id } => {
                    self.joint.note(*id, new);
                    self.alter_member(*id, |member| member.learner = false)?;
                }
                MemberChange::Remove { id } if is_joint && self.concerns_a_voter(step) => {
                    self.joint.note(*id, Half::Old);
                    self.alter_member(*id, |_| ())?;
                }
                MemberChange::Remove { id } => self.remove_member(*id)?,
                _ => unreachable!("what else there is does not fit"),
            }
        }
        Ok(Body::Members(self.members.clone()))
    }

    /// Why a step cannot be taken. `seen`: whom those before it were about.
    fn misfit(&self, step: &MemberChange, seen: &mut Vec<MemberId>) -> Option<Fault> {
        let (id, fault) = match step {
            MemberChange::Add { id, .. } => {
                let known = self.member(*id).is_some() || self.removed.contains(id);
                (*id, known.then(Fault::member_exists))
            }
            MemberChange::Remove { id } => (*id, self.member(*id).is_none().then(Fault::no_member)),
            MemberChange::Promote { id } => match self.member(*id) {
                None => (*id, Some(Fault::no_member())),
                Some(member) => (*id, (!member.learner).then(Fault::not_a_learner)),
            },
            _ => return Some(Fault::no_member()),
        };
        let repeated = seen.contains(&id).then(Fault::member_exists);
        seen.push(id);
        fault.or(repeated)
    }

    /// Whether the number of voters would change by this step.
    fn concerns_a_voter(&self, step: &MemberChange) -> bool {
        match step {
            MemberChange::Add { learner, .. } => !learner,
            MemberChange::Remove { id } => self.member(*id).is_some_and(|member| !member.learner),
            _ => true,
        }
    }

    fn leave_joint(&mut self) -> Result<Body> {
        let Joint { coming, leaving } = std::mem::take(&mut self.joint);
        for id in coming {
            self.alter_member(id, |_| ())?;
        }
        for id in leaving {
            self.remove_member(id)?;
        }
        Ok(Body::Members(self.members.clone()))
    }

    // ---- One member

    fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    fn add_member(&mut self, id: MemberId, peer_urls: &[String], learner: bool) -> Result<Body> {
        let Err(position) = self.members.binary_search_by_key(&id, |member| member.id) else {
            return Ok(Body::Fault(Fault::member_exists()));
        };
        if self.removed.contains(&id) {
            return Ok(Body::Fault(Fault::member_exists()));
        }
        let member = Member { id, peer_urls: peer_urls.to_vec(), learner, ..Member::default() };
        self.put_member(&member)?;
        self.members.insert(position, member.clone());
        Ok(Body::MemberAdded { member: Box::new(member), members: self.members.clone() })
    }

    fn remove_member(&mut self, id: MemberId) -> Result<()> {
        self.members.retain(|member| member.id != id);
        self.removed.push(id);
        self.removed.sort_unstable();
        self.write_member(id, member_record::REMOVED)
    }

    fn alter_member(&mut self, id: MemberId, alter: impl FnOnce(&mut Member)) -> Result<Body> {
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else {
            return Ok(Body::Fault(Fault::no_member()));
        };
        alter(member);
        let member = member.clone();
        self.put_member(&member)?;
        Ok(Body::Members(self.members.clone()))
    }

    pub(super) fn put_member(&mut self, member: &Member) -> Result<()> {
        self.write_member(member.id, &member_record::encode_member(member, self.joint.half(member.id)))
    }

    fn write_member(&mut self, id: MemberId, record: &[u8]) -> Result<()> {
        let key = member_record::member_key(id);
        self.state.hash = chain::member(self.state.hash, &key, record);
        self.tree.insert(MEMBERS, &key, &[record], false)
    }
}
