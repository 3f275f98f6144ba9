//! Changes of the membership, applied. The leader checked them when it proposed them, against a membership that has
//! not changed since; what does not fit all the same is a fault that is the same on every member.

use super::{MEMBERS, Store, chain, member_record};
use crate::api::{Body, Code, Fault, Member, MemberChange};
use crate::base::{MemberId, Result};
use crate::io::Disk;

impl<D: Disk> Store<D> {
    pub(super) fn change_members(&mut self, change: &MemberChange) -> Result<Body> {
        match change {
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
            MemberChange::Alone { id } => {
                let others: Vec<MemberId> =
                    self.members.iter().map(|member| member.id).filter(|other| other != id).collect();
                for other in others {
                    self.remove_member(other)?;
                }
                self.alter_member(*id, |member| member.learner = false)
            }
        }
    }

    fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    fn add_member(&mut self, id: MemberId, peer_urls: &[String], learner: bool) -> Result<Body> {
        let Err(position) = self.members.binary_search_by_key(&id, |member| member.id) else {
            return Ok(Body::Fault(Fault::new(Code::MemberExists, "etcdserver: member ID already exist")));
        };
        if self.removed.contains(&id) {
            return Ok(Body::Fault(Fault::new(Code::MemberExists, "etcdserver: member ID already exist")));
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
        self.write_member(member.id, &member_record::encode_member(member))
    }

    fn write_member(&mut self, id: MemberId, record: &[u8]) -> Result<()> {
        let key = member_record::member_key(id);
        self.state.hash = chain::member(self.state.hash, &key, record);
        self.tree.insert(MEMBERS, &key, &[record], false)
    }
}
