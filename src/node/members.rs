//! Changes of the membership, and of who leads it.
//!
//! A change travels to the leader like a write, and becomes a membership entry there instead of a normal one: the
//! core reads the ids that count from it, and the command that came is the entry's context, from which every
//! member learns the rest when it applies the entry. The leader checks it first, against its store, which must
//! hold the last change already.
//!
//! The strict check refuses what would leave the cluster without a quorum of members that answer now; it has
//! etcd's rules and texts.
//!
//! Several changes travel as one. If they make the membership joint, the leader of the day leaves it by an entry of
//! its own as soon as theirs is committed. The client is answered at that second entry, because only then may the
//! machines of those who were removed be switched off. That they happen is certain from the first one on.

use bytes::Bytes;
use log::info;

use super::writes::Asker;
use super::{Node, Outbound, RETRY, startup};
use crate::api::{Body, Code, Command, ConnId, Fault, Member, MemberChange, PeerCall, Request, Tag, command};
use crate::base::ids::member_id_at;
use crate::base::planted;
use crate::base::{Error, Index, MemberId, Mono, Result};
use crate::io::Disk;
use crate::raft::{
    Change, ChangeRefused, Entry, Membership, Message, MessageBody, Refused, TransferRefused,
    quorum::majority,
};

/// The settings that concern changes of the membership.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `--strict-reconfig-check`.
    pub strict: bool,
    pub learners_max: usize,
    /// Milliseconds from 1970 to the zero of the clock: the time of joining is part of a new member's id.
    pub unix_ms_at_zero: u64,
    /// `--force-new-cluster`.
    pub force_new_cluster: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { strict: true, learners_max: 1, unix_ms_at_zero: 0, force_new_cluster: false }
    }
}

/// A client waits for another member to lead.
#[derive(Debug)]
pub(super) struct Mover {
    conn: ConnId,
    tag: Tag,
    to: MemberId,
    until: Mono,
}

/// A second voter that was added to a single one. The entry is committed when both hold it, but nobody starts the
/// second before it is added. So the client is answered when the entry is durable here: as this member has a part
/// in every quorum of either membership, nothing can replace it then.
#[derive(Debug)]
pub(super) struct Second {
    index: Index,
    request_id: u64,
}

/// Why payloads were not proposed.
pub(super) enum NotProposed {
    /// Ask again soon, or another member.
    NotNow(Vec<u64>),
    Busy(Vec<u64>),
    /// Never, for this reason.
    Failed(u64, Fault),
}

impl<D: Disk> Node<D> {
    // ---- Requests

    /// A request that concerns the membership.
    pub(super) fn on_member_request(&mut self, conn: ConnId, tag: Tag, request: Request, deadline: Mono) {
        let change = match request {
            Request::MemberAdd { peer_urls, learner } => {
                self.with_id(MemberChange::Add { id: 0, peer_urls, learner })
            }
            Request::MemberRemove { id } => MemberChange::Remove { id },
            Request::MemberUpdate { id, peer_urls } => MemberChange::Update { id, peer_urls },
            Request::MemberPromote { id } => MemberChange::Promote { id },
            Request::MemberChange { changes } => {
                let mut steps: Vec<MemberChange> =
                    changes.into_iter().map(|step| self.with_id(step)).collect();
                if steps.len() == 1 { steps.remove(0) } else { MemberChange::Several(steps) }
            }
            Request::MoveLeader { to } => return self.move_leader(conn, tag, to),
            _ => unreachable!("only requests that concern the membership come here"),
        };
        self.write(Asker::Client { conn, tag }, &Command::Members(change), deadline);
    }

    /// Who is added gets an id that no member had before.
    fn with_id(&self, step: MemberChange) -> MemberChange {
        match step {
            MemberChange::Add { peer_urls, learner, .. } => {
                let unix_s = (self.config.members.unix_ms_at_zero + self.now.0 / 1_000_000) / 1_000;
                MemberChange::Add { id: member_id_at(&peer_urls, unix_s), peer_urls, learner }
            }
            other => other,
        }
    }

    fn move_leader(&mut self, conn: ConnId, tag: Tag, to: MemberId) {
        let fault = match self.raft.transfer(to, self.now) {
            Ok(()) => {
                let until = self.now + self.config.election_timeout;
                return self.movers.push(Mover { conn, tag, to, until });
            }
            Err(TransferRefused::BadTarget) if to == self.id => {
                return self.reply(conn, tag, Body::LeaderMoved);
            }
            Err(TransferRefused::NotLeader { .. }) => Fault::new(Code::Err, "etcdserver: not leader"),
            Err(TransferRefused::BadTarget) => Fault::new(Code::Err, "etcdserver: bad leader transferee"),
            Err(TransferRefused::NoTarget | TransferRefused::Transferring) => Fault::busy(),
        };
        self.fail(conn, tag, fault);
    }

    /// Tells those who wait for another leader what came of it.
    pub(super) fn answer_movers(&mut self) {
        let leader = self.raft.standing().leader;
        let mut waiting = std::mem::take(&mut self.movers);
        waiting.retain(|mover| {
            let given_up = self.now >= mover.until || (leader == self.id && !self.raft.transferring());
            if leader == mover.to {
                self.reply(mover.conn, mover.tag, Body::LeaderMoved);
            } else if given_up {
                let text = "etcdserver: request timed out, leader transfer took too long";
                self.fail(mover.conn, mover.tag, Fault::new(Code::Timeout, text));
            }
            leader != mover.to && !given_up
        });
        self.movers = waiting;
    }

    pub(super) fn movers_deadline(&self) -> Mono {
        self.movers.iter().map(|mover| mover.until).min().unwrap_or(Mono::NEVER)
    }

    // ---- Proposals

    /// Hands commands to the core, in their order; changes of the membership one by one.
    pub(super) fn propose_here(&mut self, payloads: Vec<Bytes>) -> Vec<NotProposed> {
        let mut refused = Vec::new();
        let mut rest = payloads;
        while !rest.is_empty() {
            let plain = rest.iter().position(|payload| command::changes_membership(payload));
            let mut behind = rest.split_off(plain.unwrap_or(rest.len()));
            if !rest.is_empty() {
                refused.extend(self.propose_plain(rest));
            }
            if !behind.is_empty() {
                refused.extend(self.propose_change(behind.remove(0)).err());
            }
            rest = behind;
        }
        refused
    }

    fn propose_plain(&mut self, payloads: Vec<Bytes>) -> Vec<NotProposed> {
        let ids: Vec<u64> =
            payloads.iter().filter_map(|p| command::origin(p)).map(|o| o.request_id).collect();
        if self.log_is_full() {
            return ids.into_iter().map(no_space).collect();
        }
        match self.raft.propose(payloads, self.now, &self.log) {
            Ok(_) => Vec::new(),
            Err(Refused::Busy) => vec![NotProposed::Busy(ids)],
            Err(Refused::NotLeader { .. } | Refused::Transferring) => vec![NotProposed::NotNow(ids)],
        }
    }

    /// What another member's clients want. Their puts are refused where this member's own clients' are.
    pub(super) fn propose_forwarded(&mut self, mut payloads: Vec<Bytes>) -> Vec<NotProposed> {
        let mut refused = Vec::new();
        if self.is_full() {
            let puts = payloads.extract_if(.., |payload| command::takes_room(payload));
            refused.extend(puts.filter_map(|put| command::origin(&put)).map(|o| no_space(o.request_id)));
        }
        refused.extend(self.propose_here(payloads));
        refused
    }

    fn propose_change(&mut self, payload: Bytes) -> Result<(), NotProposed> {
        let id = command::origin(&payload).map_or(0, |origin| origin.request_id);
        let failed = |fault| NotProposed::Failed(id, fault);
        let Ok((_, Command::Members(change))) = command::decode(payload.clone()) else {
            return Err(failed(Fault::new(Code::Err, "not a change of the membership")));
        };
        if !self.leads() || self.raft.transferring() {
            return Err(NotProposed::NotNow(vec![id]));
        }
        if startup::membership(&self.store) != *self.raft.settled_membership() {
            return Err(NotProposed::Busy(vec![id]));
        }
        let steps = self.checked(&change).map_err(failed)?;
        match self.raft.change_membership(&steps, &payload, self.now) {
            Ok(entry) => {
                info!("proposed {change:x?} as {entry}");
                if matches!(change, MemberChange::Add { learner: false, .. }) && self.voters().count() == 1 {
                    self.second = Some(Second { index: entry.index, request_id: id });
                }
                Ok(())
            }
            Err(ChangeRefused::NotLeader { .. } | ChangeRefused::Transferring) => {
                Err(NotProposed::NotNow(vec![id]))
            }
            Err(ChangeRefused::InFlight | ChangeRefused::TooEarly) => Err(NotProposed::Busy(vec![id])),
            Err(ChangeRefused::Lags(_)) => Err(failed(Fault::new(
                Code::Learner,
                "etcdserver: can only promote a learner member which is in sync with leader",
            ))),
            Err(ChangeRefused::NotLearner(_)) => Err(failed(Fault::not_a_learner())),
            Err(ChangeRefused::NoMember(_)) => Err(failed(Fault::no_member())),
            Err(ChangeRefused::Exists(_) | ChangeRefused::Twice(_)) => Err(failed(Fault::member_exists())),
            Err(ChangeRefused::NoVoterLeft) => Err(failed(too_few_started())),
            Err(ChangeRefused::TooMany) => Err(failed(Fault::new(Code::Err, "too many members"))),
        }
    }

    /// A membership entry enters the log. Whom it adds may call, and must be called, before that is committed: its
    /// vote may be needed for it.
    pub(super) fn expect_member(&mut self, entry: &Entry) -> Result<()> {
        let unfit = |why: &str| Error::Refused(format!("entry {}: {why}", entry.id));
        let (_, context) = Membership::decode(&entry.payload).map_err(unfit)?;
        let Ok((_, change)) = command::decode_change(context) else { return Ok(()) };
        for step in change.steps() {
            let MemberChange::Add { id, peer_urls, learner } = step else { continue };
            let all = !planted::on("node-expects-the-last-addition-only");
            self.expected.retain(|other| all && other.id != *id && self.raft.membership().contains(other.id));
            let (id, peer_urls, learner) = (*id, peer_urls.clone(), *learner);
            self.expected.push(Member { id, peer_urls, learner, ..Member::default() });
            self.output.members_changed = true;
        }
        Ok(())
    }

    /// Who asks for a vote says whom it knows, and so does a leader to whoever is silent: a member that lags may know
    /// no way to answer them, and would be of no use to the cluster for ever.
    pub(super) fn introduce_to<'a>(&mut self, messages: impl Iterator<Item = &'a Message>) {
        for Message { to, body, .. } in messages {
            let wanted = match body {
                MessageBody::PreVote { .. } | MessageBody::Vote { .. } => true,
                MessageBody::Append { entries, .. } => entries.is_empty() && self.raft.misses(*to),
                _ => false,
            };
            if wanted && !planted::on("node-candidate-is-a-stranger") {
                let call = PeerCall::Introduce { members: self.known_members() };
                self.output.messages.push(Outbound::Call { to: *to, call });
            }
        }
    }

    /// The same words may count now and not have counted before, while a leader was heard that is a member here.
    pub(super) fn on_introduction(&mut self, members: Vec<Member>) {
        self.output.members_changed |= !planted::on("node-hears-no-name-twice") || self.introduced != members;
        self.introduced = members;
    }

    /// Everybody to talk to: the members, and those whose additions are not applied yet. For a blank member, whoever
    /// let it join. As long as no leader is heard that is a member here, also whoever was introduced.
    pub fn known_members(&self) -> Vec<Member> {
        let mut known = self.members().to_vec();
        let expected = self.expected.iter().filter(|member| self.raft.membership().contains(member.id));
        let leader = self.raft.standing().leader;
        let led = self.raft.hears_leader(self.now) && known.iter().any(|member| member.id == leader);
        let strangers = self.introduced.iter().filter(|member| {
            !led && !member.peer_urls.is_empty() && !self.store.removed_members().contains(&member.id)
        });
        for member in expected.chain(strangers) {
            if known.iter().all(|other| other.id != member.id) {
                known.push(member.clone());
            }
        }
        known.sort_by_key(|member| member.id);
        known
    }

    /// See [`Second`].
    pub(super) fn answer_second(&mut self) {
        let durable = self.raft.durable();
        if let Some(second) = self.second.take_if(|second| second.index <= durable) {
            let members = self.known_members();
            if let Some(member) = self.expected.last().cloned().filter(|_| self.leads()) {
                self.end_write(second.request_id, Body::MemberAdded { member: Box::new(member), members });
            }
        }
    }

    /// Whether somebody who is no member as far as is known here may speak: it may be a leader that was added
    /// while this member was away, and this member must hear it to learn of it.
    /// `now`: nothing may have happened here since its leader went silent, and the last turn be long ago.
    pub fn listens_to_strangers(&self, now: Mono) -> bool {
        self.is_blank() || !self.raft.hears_leader(now)
    }

    /// What the store and the settings say to a change; the steps for the core.
    fn checked(&self, change: &MemberChange) -> Result<Vec<Change>, Fault> {
        let steps = change.steps();
        let checked =
            steps.iter().map(|step| self.checked_step(step)).collect::<Result<Vec<Change>, Fault>>()?;
        self.has_room_for_learners(steps)?;
        match steps {
            [MemberChange::Add { learner, .. }] => self.may_add(*learner)?,
            [MemberChange::Remove { id }] => self.may_remove(self.known(*id)?)?,
            [_] => {}
            several => self.may_take(several)?,
        }
        Ok(checked)
    }

    fn known(&self, id: MemberId) -> Result<&Member, Fault> {
        self.store.members().iter().find(|member| member.id == id).ok_or_else(Fault::no_member)
    }

    fn checked_step(&self, step: &MemberChange) -> Result<Change, Fault> {
        let taken = |urls: &[String], by: MemberId| {
            let others = self.store.members().iter().filter(|member| member.id != by);
            others.flat_map(|member| &member.peer_urls).any(|url| urls.contains(url))
        };
        match step {
            MemberChange::Add { id, peer_urls, learner } => {
                if self.known(*id).is_ok() || self.store.removed_members().contains(id) {
                    return Err(Fault::member_exists());
                }
                if taken(peer_urls, *id) {
                    return Err(Fault::url_exists());
                }
                Ok(if *learner { Change::AddLearner(*id) } else { Change::AddVoter(*id) })
            }
            MemberChange::Remove { id } => self.known(*id).map(|_| Change::Remove(*id)),
            MemberChange::Update { id, peer_urls } => {
                self.known(*id)?;
                if taken(peer_urls, *id) { Err(Fault::url_exists()) } else { Ok(Change::Update(*id)) }
            }
            MemberChange::Promote { id } if !self.known(*id)?.learner => Err(Fault::not_a_learner()),
            MemberChange::Promote { id } => Ok(Change::Promote(*id)),
            MemberChange::Alone { .. } => Err(Fault::new(Code::Err, "a start with --force-new-cluster")),
            MemberChange::Several(_) | MemberChange::Leave => {
                Err(Fault::new(Code::Err, "no change of one member"))
            }
        }
    }

    /// Whoever is promoted or removed in the same step makes room.
    fn has_room_for_learners(&self, steps: &[MemberChange]) -> Result<(), Fault> {
        let goes = |id| {
            steps.contains(&MemberChange::Remove { id }) || steps.contains(&MemberChange::Promote { id })
        };
        let stay = self.store.members().iter().filter(|member| member.learner && !goes(member.id)).count();
        let is_one_more = |step: &&MemberChange| matches!(step, MemberChange::Add { learner: true, .. });
        let come = steps.iter().filter(is_one_more).count();
        if come > 0 && stay + come > self.config.members.learners_max {
            return Err(Fault::new(Code::Learner, "etcdserver: too many learner members in cluster"));
        }
        Ok(())
    }

    // ---- The strict check

    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.store.members().iter().filter(|member| !member.learner)
    }

    /// Members that have told their name once.
    fn started(&self, but: MemberId) -> usize {
        self.voters().filter(|member| member.id != but && !member.name.is_empty()).count()
    }

    /// Whether this member, which leads, hears from the other.
    fn hears(&self, id: MemberId) -> bool {
        let since = |heard_at: Mono| self.now.since(heard_at) < self.config.election_timeout;
        id == self.id || self.raft.peers().iter().any(|peer| peer.id == id && since(peer.heard_at))
    }

    fn may_add(&self, learner: bool) -> Result<(), Fault> {
        if !self.config.members.strict {
            return Ok(());
        }
        let (voters, started) = (self.voters().count(), self.started(0));
        // A second member may be added to a single one, or nothing could ever grow.
        if !learner && voters > 1 && started < majority(voters + 1) {
            return Err(too_few_started());
        }
        if !self.voters().all(|voter| self.hears(voter.id)) {
            return Err(unhealthy());
        }
        Ok(())
    }

    /// The same of what comes out of several changes. Who is added in them has not started and is not heard; who is
    /// promoted is, or the core refuses it.
    fn may_take(&self, steps: &[MemberChange]) -> Result<(), Fault> {
        if !self.config.members.strict {
            return Ok(());
        }
        let is_removed = |id| steps.contains(&MemberChange::Remove { id });
        let is_promoted = |id| steps.contains(&MemberChange::Promote { id });
        let is_new = |step: &&MemberChange| matches!(step, MemberChange::Add { learner: false, .. });
        let will_vote =
            |member: &&Member| !is_removed(member.id) && (!member.learner || is_promoted(member.id));
        let left = self.store.members().iter().filter(will_vote);
        let needed = majority(left.clone().count() + steps.iter().filter(is_new).count());
        if left.clone().filter(|voter| !voter.name.is_empty()).count() < needed {
            return Err(too_few_started());
        }
        let adds = steps.iter().any(|step| matches!(step, MemberChange::Add { .. }));
        let hearing = left.clone().filter(|voter| self.hears(voter.id)).count();
        if hearing < needed || (adds && hearing < left.count()) {
            return Err(unhealthy());
        }
        Ok(())
    }

    fn may_remove(&self, member: &Member) -> Result<(), Fault> {
        if !self.config.members.strict || member.learner {
            return Ok(());
        }
        let left = self.voters().count() - 1;
        if left == 0 || self.started(member.id) < majority(left) {
            return Err(too_few_started());
        }
        let hearing = self.voters().filter(|voter| voter.id != member.id && self.hears(voter.id)).count();
        // One that does not answer is no part of the quorum that there is.
        if self.hears(member.id) && hearing < majority(left) {
            return Err(unhealthy());
        }
        Ok(())
    }

    // ---- Answers between members

    pub(super) fn tell_refusals(&mut self, to: MemberId, number: u64, refused: Vec<NotProposed>) {
        for refusal in refused {
            let call = match refusal {
                NotProposed::NotNow(request_ids) => {
                    PeerCall::ProposeRefused { number, request_ids, busy: false }
                }
                NotProposed::Busy(request_ids) => {
                    PeerCall::ProposeRefused { number, request_ids, busy: true }
                }
                NotProposed::Failed(request_id, fault) => {
                    PeerCall::ProposeFailed { number, request_id, fault }
                }
            };
            self.output.messages.push(Outbound::Call { to, call });
        }
    }

    pub(super) fn take_refusals(&mut self, number: u64, refused: Vec<NotProposed>) {
        for refusal in refused {
            match refusal {
                NotProposed::NotNow(ids) => self.writes.refused(number, &ids, self.now + RETRY),
                NotProposed::Busy(ids) => {
                    for id in ids {
                        self.end_write(id, Body::Fault(Fault::busy()));
                    }
                }
                NotProposed::Failed(id, fault) => self.end_write(id, Body::Fault(fault)),
            }
        }
    }

    // ---- Applying

    /// A membership entry: the core reads the ids from its head, the store the rest from its context.
    pub(super) fn apply_membership(&mut self, entry: &Entry) -> Result<()> {
        let unfit = |why: &str| Error::Refused(format!("entry {} cannot be applied: {why}", entry.id));
        let (membership, context) = Membership::decode(&entry.payload).map_err(unfit)?;
        let (origin, change) = command::decode_change(context).map_err(|why| unfit(&why.0))?;
        let command = Command::Members(change);
        let body = self.store.apply(entry.id, Some(&command))?;
        if startup::membership(&self.store) != membership {
            return Err(unfit("it leads to another membership than its head says: upgrade this member"));
        }
        info!("applied {command:x?} of {}", entry.id);
        self.output.members_changed = true;
        let own = (origin.member == self.id).then_some(origin.request_id);
        let answered = match &command {
            Command::Members(MemberChange::Leave) => self.halfway.take(),
            _ if membership.is_joint() && !planted::on("node-joint-change-told-too-early") => {
                self.halfway = own.inspect(|id| self.writes.committed(*id));
                None
            }
            _ => own,
        };
        if let Some(id) = answered {
            self.end_write(id, body);
        }
        Ok(())
    }

    /// Whether this member was removed, as far as it has applied.
    pub fn is_removed(&self) -> bool {
        self.store.removed_members().contains(&self.id)
    }

    /// Who was removed: they are told so when they call.
    pub fn removed_members(&self) -> &[MemberId] {
        self.store.removed_members()
    }
}

fn no_space(request_id: u64) -> NotProposed {
    NotProposed::Failed(request_id, Fault::no_space())
}

fn unhealthy() -> Fault {
    Fault::new(Code::Unhealthy, "etcdserver: unhealthy cluster")
}

fn too_few_started() -> Fault {
    Fault::new(Code::Unhealthy, "etcdserver: re-configuration failed due to not enough started members")
}
