//! A member that lost what it had promised, and how it becomes a member again.
//!
//! Its log or its tree was damaged, or its disk is empty. Then it does not know which entries it had acknowledged and
//! whom it had elected, and others may have counted both. What Raft says of a restarted member is not true of it.
//! Four rules make it harmless at once, and whole in the end:
//!
//! 1. *It elects nobody*: no vote, no pre-vote, no campaign, no hand-over to it. So every leader from now on is elected
//!    by a majority without it. An entry that was committed with its old acknowledgement is also held by another
//!    member of that majority, because two majorities meet outside of the one member that is in the first only. The
//!    same goes for a lease that rested on its old promise. So leaders go on to have everything that is committed.
//! 2. *It begins at a term of its own*, the `floor`, above every term in which it may have promised anything. It takes
//!    nothing from leaders of earlier terms. So whatever it said in its former life is news of an old term, however
//!    late it arrives, and no leader goes on with a wrong idea of what it holds.
//! 3. *It is whole when it has an entry of a term at or above the floor that is committed.* The leader of that term has
//!    all that was committed before (1), the entry stands behind it, and whatever this member acknowledged since is
//!    true. From then on its log and its vote are worth what any member's are.
//! 4. *While its damage lasts it is remembered on disk*, by the shell: a restart in between begins with 1 again.
//!
//! Acknowledgements between 2 and 3 count: they are true, and were made in terms that the former life never saw.
//!
//! How the floor is found: the member asks all voters for their terms ([`MessageBody::Inquire`]; a number drawn for this
//! life makes old answers worthless). Needed is a *majority that is whole, not counting itself*. An acknowledgement
//! went to a leader that a majority had elected, so one of those who answer knows its term. A vote went to a
//! candidate, and only the candidate itself need know the term: if all others answered, the floor is one above the
//! greatest term; if somebody stays silent, it is [`LEAP`] above. (A candidate would have had to lose that many
//! elections in a row, none of them heard of by the majority.)
//!
//! So in a cluster of three, one member can repair itself while both others are well, and in one of two nobody can.
//! If those who lost their memory are too many, each waits and says for whom; nobody makes up a state.
//!
//! An empty disk may also mean that the whole cluster starts for the first time. So a member that finds none asks too,
//! and begins as any new member if all others hold nothing; or, after the same patience, if somebody stays silent
//! and a majority, itself included, is just as new. (Who has begun and still holds nothing is no proof: others
//! may have gone on without it.)
//!
//! The price: a member of a cluster that already works, which never before came so far, is taken for one that lost
//! everything, and cannot stand in for a member that is lost while it is brought up. Nothing tells the two apart.
//!
//! The leader of the day hears of the floor when its next append is answered by [`MessageBody::Forgot`]. It then runs
//! for a later term at once, as if it had handed over to itself: the only lease in the way is its own. (If a later
//! leader existed and had a lease, a majority would hold an entry of that leader's term and refuse.) Writes
//! pause for one round of votes.
//!
//! Sources: the rule that an amnesiac must not vote, and that its recovery must be confirmed by others, is from Liskov
//! and Cowling, *Viewstamped Replication Revisited*, §4.3; that a number per life is needed, from Michael et al.,
//! *Recovering Shared Objects Without Stable Storage* (2017); repair per member and not per cluster from Alagappan
//! et al., *Protocol-Aware Recovery for Consensus-Based Storage* (2018).

use crate::base::limits::MEMBERS_MAX;
use crate::base::time::Nanos;
use crate::base::{EntryId, MemberId, Mono, Rng, Term};

use super::core::{Raft, RoleState};
use super::quorum::{Outcome, outcome};
use super::types::{Membership, Memory, MessageBody};

/// Between the greatest term that was heard of and the floor, where a voter stayed silent.
const LEAP: Term = 1 << 32;

/// Voters that do not answer are waited for this long, in election timeouts, once a majority has.
const PATIENCE: u64 = 5;

/// What a member that lost its memory knows.
#[derive(Clone)]
pub(super) struct Recovery {
    /// Nothing was ever in this directory: it may be the first start of the whole cluster.
    fresh: bool,
    /// Of this life.
    life: u64,
    /// Whom it believes to be voters while its own state does not say.
    acquainted: Membership,
    answers: Vec<Answer>,
    ask_at: Mono,
    /// When a majority had answered.
    enough_at: Option<Mono>,
    /// Known and taken for the own term, or still asked for.
    floor: Option<Term>,
    /// The cluster never committed anything: there is nothing that could be missing.
    begins: bool,
}

#[derive(Clone, Copy)]
struct Answer {
    from: MemberId,
    term: Term,
    memory: Memory,
    /// Nothing is in its log.
    empty: bool,
}

/// How far a member is that lost its memory; for those who want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovering {
    /// None: not known yet.
    pub floor: Option<Term>,
    /// Voters that answered and are well.
    pub whole: Vec<MemberId>,
    /// Voters that lost their memory too.
    pub recovering: Vec<MemberId>,
    /// Voters that did not answer yet.
    pub silent: Vec<MemberId>,
}

impl Recovery {
    pub fn new(memory: Memory, rng: &mut Rng, now: Mono) -> Option<Recovery> {
        let fresh = match memory {
            Memory::Whole => return None,
            Memory::Lost => false,
            Memory::Fresh => true,
        };
        let (acquainted, life) = (Membership::default(), rng.next_u64());
        Some(Recovery {
            fresh,
            life,
            acquainted,
            answers: Vec::new(),
            ask_at: now,
            enough_at: None,
            floor: None,
            begins: false,
        })
    }

    fn answer(&self, id: MemberId) -> Option<&Answer> {
        self.answers.iter().find(|answer| answer.from == id)
    }

    fn deadline(&self, patience: Nanos) -> Mono {
        match (self.floor, self.enough_at) {
            (Some(_), _) => Mono::NEVER,
            (None, Some(at)) => self.ask_at.min(at + patience),
            (None, None) => self.ask_at,
        }
    }
}

impl Raft {
    /// Whether this member lost its memory: it elects nobody.
    pub(super) fn forgot(&self) -> bool {
        self.common.recovery.is_some()
    }

    /// Not even the term is known from which on this member can take part: nothing is taken and nothing answered.
    pub(super) fn is_lost(&self) -> bool {
        let floor = self.common.recovery.as_ref().map(|recovery| recovery.floor.unwrap_or(0));
        floor == Some(0)
    }

    /// Who votes, for a member that has no state which would say so.
    pub fn acquaint(&mut self, voters: &[MemberId]) {
        if let Some(recovery) = &mut self.common.recovery {
            let mut voters = voters.to_vec();
            voters.sort_unstable();
            recovery.acquainted = Membership { voters, ..Membership::default() };
        }
    }

    /// None: this member is whole.
    pub fn recovering(&self) -> Option<Recovering> {
        let recovery = self.common.recovery.as_ref()?;
        let voters = self.electorate().all().into_iter().filter(|&id| id != self.common.config.id);
        let mut recovering = Recovering {
            floor: recovery.floor,
            whole: Vec::new(),
            recovering: Vec::new(),
            silent: Vec::new(),
        };
        for id in voters {
            match recovery.answer(id) {
                Some(answer) if answer.memory == Memory::Whole => recovering.whole.push(id),
                Some(_) => recovering.recovering.push(id),
                None => recovering.silent.push(id),
            }
        }
        Some(recovering)
    }

    /// Whether nothing is missing any more, if `applied` is the term of the last entry applied here (rule 3). The
    /// shell then removes what remembers the damage, and says [`Raft::recovered`].
    pub fn holds_all_again(&self, applied: Term) -> bool {
        let recovery = self.common.recovery.as_ref();
        recovery.is_some_and(|r| r.begins || r.floor.is_some_and(|floor| applied >= floor))
    }

    /// What remembered the damage is gone from the disk: from here on this member votes.
    pub fn recovered(&mut self) {
        let recovery = self.common.recovery.take().expect("only who lost its memory gets it back");
        if self.common.leader != 0 {
            self.election_at = self.common.now + self.common.patience();
        } else if recovery.begins {
            self.retry_soon();
        }
    }

    /// The voters, by the own state or by hearsay.
    fn electorate(&self) -> Membership {
        let known = self.common.membership();
        match &self.common.recovery {
            Some(recovery) if known.voters.is_empty() => recovery.acquainted.clone(),
            _ => Membership { learners: Vec::new(), ..known.clone() },
        }
    }

    pub(super) fn on_inquire(&mut self, from: MemberId, life: u64) {
        let last = self.common.log.last();
        let memory = match &self.common.recovery {
            None => Memory::Whole,
            Some(recovery) if recovery.fresh && (recovery.floor.is_none() || recovery.begins) => {
                Memory::Fresh
            }
            Some(_) => Memory::Lost,
        };
        self.common.send_now(from, MessageBody::Inquired { life, memory, last });
    }

    pub(super) fn on_inquired(
        &mut self,
        from: MemberId,
        term: Term,
        life: u64,
        memory: Memory,
        last: EntryId,
    ) {
        let Some(recovery) = self.common.recovery.as_mut().filter(|recovery| recovery.life == life) else {
            return;
        };
        // What was new when this member asked first is so for good: it says that nothing was there before.
        let memory = match recovery.answer(from) {
            Some(known) if known.memory == Memory::Fresh && known.empty => Memory::Fresh,
            _ => memory,
        };
        let answer = Answer { from, term, memory, empty: last == EntryId::ZERO };
        recovery.answers.retain(|known| known.from != from);
        if recovery.answers.len() < 2 * MEMBERS_MAX {
            recovery.answers.push(answer);
        }
        self.look_for_floor();
    }

    /// Asks, and asks again.
    pub(super) fn tick_recovery(&mut self) {
        let (now, every) = (self.common.now, self.common.config.election_timeout / 2);
        let Some(recovery) = self.common.recovery.as_mut().filter(|recovery| recovery.floor.is_none()) else {
            return;
        };
        let life = recovery.life;
        if now >= recovery.ask_at {
            recovery.ask_at = now + every;
            for voter in self.electorate().all() {
                if voter != self.common.config.id {
                    self.common.send_now(voter, MessageBody::Inquire { life });
                }
            }
        }
        self.look_for_floor();
    }

    pub(super) fn recovery_deadline(&self) -> Mono {
        let patience = PATIENCE * self.common.config.election_timeout;
        self.common.recovery.as_ref().map_or(Mono::NEVER, |recovery| recovery.deadline(patience))
    }

    fn look_for_floor(&mut self) {
        let (id, now, own_term) = (self.common.config.id, self.common.now, self.common.term);
        let patience = PATIENCE * self.common.config.election_timeout;
        let log_is_empty = self.common.log.last() == EntryId::ZERO;
        let electorate = self.electorate();
        let Some(recovery) = self.common.recovery.as_mut().filter(|recovery| recovery.floor.is_none()) else {
            return;
        };
        let is_whole = |voter| match voter == id {
            true => Some(false),
            false => recovery.answer(voter).map(|answer| answer.memory == Memory::Whole),
        };
        let is_new = |voter| match voter == id {
            true => Some(true),
            false => recovery.answer(voter).map(|answer| answer.memory == Memory::Fresh),
        };
        let all = electorate.all().into_iter().all(|voter| voter == id || recovery.answer(voter).is_some());
        let nobody_holds_anything = log_is_empty
            && recovery.answers.iter().all(|answer| answer.empty && answer.memory != Memory::Lost);
        let begins =
            recovery.fresh && nobody_holds_anything && (all || outcome(&electorate, is_new) == Outcome::Won);
        if !begins && outcome(&electorate, is_whole) != Outcome::Won {
            recovery.enough_at = None;
            return;
        }
        let enough_at = *recovery.enough_at.get_or_insert(now);
        if !all && now < enough_at + patience {
            return;
        }
        let greatest = recovery.answers.iter().map(|answer| answer.term).max().unwrap_or(0).max(own_term);
        let floor = match (begins, all) {
            // Nobody was ever asked for a vote.
            (true, _) if greatest == 0 => 0,
            (true, _) | (false, true) => greatest + 1,
            (false, false) => greatest + LEAP,
        };
        (recovery.floor, recovery.begins) = (Some(floor), begins);
        if floor > own_term {
            self.adopt_term(floor);
        }
    }

    /// Another member lost its memory and begins anew at the later term of this message. Who leads would not get
    /// anything there any more, and runs for a term that will do; nobody's promise but the one to it is in the way.
    pub(super) fn on_forgot(&mut self, term: Term) {
        let leads = matches!(self.role, RoleState::Leader(_));
        self.adopt_term(term);
        if leads && self.common.may_campaign() {
            self.run(true);
        }
    }

    /// A leader of a term before the floor.
    pub(super) fn tell_floor(&mut self, to: MemberId) {
        self.common.send_after(to, MessageBody::Forgot);
    }
}
