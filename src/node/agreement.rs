//! Whether this member's state is that of the others.
//!
//! Apply is deterministic, so members that applied the same entries hold the same state, unless something is
//! broken: a program that applies differently, memory, a processor. Nothing in Raft would notice. So the store keeps
//! a hash over everything that entries did (`store::chain`), and members tell each other theirs.
//!
//! # How it is compared
//!
//! Every member tells every other the hash behind each [`STRIDE`]th entry and, [`REPORT_EVERY`], the one behind
//! the last entry that it applied, also when nothing happens. Each remembers its own hash behind each of the last
//! [`HASHES_MAX`] entries. A report about one of these is compared at once; one about an entry that is still to be
//! applied waits (the oldest of each member; newer ones say the same later). Of two members the one that is behind
//! can always compare, and the one ahead can as long as the other is not too far behind. The chain makes one
//! comparison enough for all entries before. So a difference is known within a report's interval or a stride,
//! whichever comes first, of both members having applied the entry.
//!
//! # Who is wrong
//!
//! Each member judges itself only, by what it compared itself: nobody is stopped on another's word, and a leader
//! counts no more than others. Voters count; while the membership is joint, a majority is one of both halves.
//!
//! - *Diverged*: a majority of the voters differ from here. If they agree with each other, they are right; if
//!   not, nobody has a majority behind it, and nobody should serve. Both are the same to this member.
//! - *Agreed*: a majority, this member included, is known to agree, as of an entry at or behind the first that
//!   somebody differed in. Whoever differs is named in the status.
//! - *Doubtful*: somebody differs, and neither is known: two of two, two of four, or two of three while the third is
//!   down. Whoever is wrong would serve wrong answers, so none of them answers clients, and each names the
//!   others. It passes when a majority is found, or the one that differs agrees again. It does not stop Raft:
//!   logs are right even where states are wrong, and the third must catch up to decide. Differences are settled
//!   in this way only after [`GRACE`], because the others' reports come a moment apart.
//!
//! Any two majorities share a voter, and no voter agrees with both of two members that differ: so two that differ
//! are never both *agreed* about the same entries (as long as no change of most voters at once lies between them).
//!
//! # What a diverged member does
//!
//! It hands over leadership if it has it (its log is as good as any, only its answers are not), and is silent from
//! then on: no votes, no acknowledgements, nothing for clients but `CORRUPT` and its status, nothing for members but
//! its hash, and that it is wrong, so that they can name it and need not doubt themselves. What clients waited
//! for is told as unknown. The next checkpoint marks the state, and a marked state is silent from the start. The
//! mark is in the state's own record, so that it goes with the state: with a snapshot installed in its place,
//! the member is one like any other again. Where two of two differ, an operator says with `--force-new-cluster`
//! which one is right.
//!
//! # What is left out
//!
//! - Between the entry that differs and the report that shows it the member answers wrongly. To close that window
//!   every answer would have to wait for a majority's hash.
//! - A snapshot of a wrong state carries it and its chain on. So a snapshot waits until a majority has confirmed the
//!   state, or as long as others may take to contradict. Where no other is there to do so, it is sent, and a wrong
//!   leader with a follower that was out of date can outvote the third when that comes back.
//! - The window before a restart's first comparison, for a doubt (it is not marked: nobody is known to be wrong).

use std::collections::{BTreeMap, VecDeque};

use log::{error, info};

use super::{Node, Outbound};
use crate::api::{Body, Fault, PeerCall};
use crate::base::planted;
use crate::base::time::{MS, Nanos};
use crate::base::{Index, MemberId, Mono};
use crate::io::Disk;
use crate::raft::Membership;
use crate::raft::quorum::{Outcome, outcome};

/// Every member reports its hash behind entries whose index is a multiple of this.
const STRIDE: u64 = 512;

/// And so often the one behind the last entry that it applied.
const REPORT_EVERY: Nanos = 250 * MS;

/// Own hashes that are remembered: 128 KiB, and a tenth of a second of the fastest writing.
const HASHES_MAX: usize = 16_384;

/// A difference is doubted for so long before nothing is served because of it.
const GRACE: Nanos = 2 * REPORT_EVERY;

/// A snapshot waits no longer for the word of those who live: they may wait for one themselves.
const PATIENCE: Nanos = 3 * GRACE;

/// What this member thinks of its own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Agreed,
    Doubtful,
    Diverged,
}

/// What is known of other members' hashes.
#[derive(Debug)]
pub(super) struct Agreement {
    /// Behind the last entries applied here; the last one is behind `applied`.
    hashes: VecDeque<u64>,
    applied: Index,
    peers: BTreeMap<MemberId, Peer>,
    /// The first entry that a report waits for; none does if it is the greatest number.
    next_awaited: Index,
    trust: Trust,
    doubted_since: Option<Mono>,
    report_at: Mono,
    /// Some member differs: the one thing that makes judging necessary.
    differs: bool,
    /// A diverged leader tries for so long to be followed by another.
    hand_over_until: Mono,
    silent: bool,
}

#[derive(Debug, Default)]
struct Peer {
    /// A report about an entry that is not applied here yet.
    awaited: Option<(Index, u64)>,
    compared: Option<Compared>,
    /// It says itself that its state is wrong: that makes nobody doubt another.
    admits: bool,
}

/// The last comparison with a member.
#[derive(Clone, Copy, Debug)]
struct Compared {
    same: bool,
    at: Index,
    /// If it differs: since which entry that is known.
    since: Index,
}

impl Agreement {
    /// Of a state behind entry `applied`; `diverged`: it is marked.
    pub(super) fn new(applied: Index, hash: u64, diverged: bool) -> Agreement {
        Agreement {
            hashes: VecDeque::from([hash]),
            applied,
            peers: BTreeMap::new(),
            next_awaited: Index::MAX,
            trust: if diverged { Trust::Diverged } else { Trust::Agreed },
            doubted_since: None,
            report_at: Mono(0),
            differs: false,
            hand_over_until: Mono(0),
            silent: diverged,
        }
    }

    pub(super) fn trust(&self) -> Trust {
        self.trust
    }

    /// The state hash behind an entry, if it is remembered.
    pub(super) fn hash_at(&self, index: Index) -> Option<u64> {
        let back = usize::try_from(self.applied.checked_sub(index)?).ok()?;
        self.hashes.len().checked_sub(back + 1).map(|at| self.hashes[at])
    }

    /// The next entry was applied. True if its hash should be reported.
    pub(super) fn applied(&mut self, index: Index, hash: u64) -> bool {
        assert_eq!(index, self.applied + 1, "hashes are remembered without a gap");
        if self.hashes.len() == HASHES_MAX {
            self.hashes.pop_front();
        }
        self.hashes.push_back(hash);
        self.applied = index;
        if index >= self.next_awaited {
            self.compare_awaited();
        }
        index.is_multiple_of(STRIDE)
    }

    fn compare_awaited(&mut self) {
        let due = |peer: &mut Peer| peer.awaited.take_if(|(index, _)| *index <= self.applied);
        let due: Vec<_> =
            self.peers.iter_mut().filter_map(|(&id, peer)| due(peer).map(|report| (id, report))).collect();
        for (id, (index, hash)) in due {
            self.compare(id, index, hash);
        }
        self.note_awaited();
    }

    fn note_awaited(&mut self) {
        let awaited = self.peers.values().filter_map(|peer| peer.awaited);
        self.next_awaited = awaited.map(|(index, _)| index).min().unwrap_or(Index::MAX);
    }

    /// Another member has this hash behind this entry.
    pub(super) fn heard(&mut self, from: MemberId, index: Index, hash: u64, wrong: bool) {
        self.peers.entry(from).or_default().admits = wrong;
        if index <= self.applied {
            return self.compare(from, index, hash);
        }
        let awaited = &mut self.peers.entry(from).or_default().awaited;
        if awaited.is_none_or(|(other, _)| index < other) {
            *awaited = Some((index, hash));
        }
        self.note_awaited();
    }

    fn compare(&mut self, from: MemberId, index: Index, theirs: u64) {
        let Some(ours) = self.hash_at(index) else { return };
        let compared = &mut self.peers.entry(from).or_default().compared;
        if compared.is_some_and(|last| last.at > index) {
            return; // Late: the member was compared at a later entry already.
        }
        let same = ours == theirs || planted::on("node-differing-state-is-overlooked");
        let since = match compared {
            Some(last) if last.same == same => last.since,
            _ if same => index,
            _ => {
                error!(
                    "behind entry {index} the state hash is {ours:016x}, at member {from:x} {theirs:016x}"
                );
                index
            }
        };
        *compared = Some(Compared { same, at: index, since });
        self.differs |= !same;
    }

    /// The connection is new, and so may be the state behind it.
    pub(super) fn greeted(&mut self, peer: MemberId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.awaited = None;
        }
        self.note_awaited();
    }

    /// Of whom it is known, or possible, that the state is wrong. Who is wrong itself accuses nobody.
    pub(super) fn suspects(&self, me: MemberId) -> Vec<MemberId> {
        match self.trust {
            Trust::Agreed => self.differing().collect(),
            Trust::Doubtful => self.differing().chain([me]).collect(),
            Trust::Diverged => vec![me],
        }
    }

    /// Whose state differs from this one, as of the last comparison.
    fn differing(&self) -> impl Iterator<Item = MemberId> {
        let wrong = |peer: &Peer| peer.admits || peer.differs();
        self.peers.iter().filter(move |(_, peer)| wrong(peer)).map(|(&id, _)| id)
    }

    /// Whether another member should not take over the state behind an entry yet: no majority has confirmed it, and
    /// somebody differs, or has had little time to say so since. `others_live`: there is a voter who could.
    pub(super) fn holds_back(
        &self,
        me: MemberId,
        members: &Membership,
        at: Index,
        age: Nanos,
        others_live: bool,
    ) -> bool {
        let confirmed = self.has_majority(me, members, at);
        let doubted = self.differs && !self.is_borne_out(me, members);
        !confirmed && (doubted || age < if others_live { PATIENCE } else { GRACE })
    }

    /// Whether a majority of the voters had this member's state behind an entry, itself included.
    fn has_majority(&self, me: MemberId, members: &Membership, at: Index) -> bool {
        let agrees = |id: MemberId| {
            let compared = self.peers.get(&id).and_then(|peer| peer.compared);
            Some(id == me || compared.is_some_and(|compared| compared.same && compared.at >= at))
        };
        outcome(members, agrees) == Outcome::Won
    }

    /// Judges anew. True if this member trusts its state more, or less, than before.
    fn judge(&mut self, me: MemberId, members: &Membership, now: Mono) -> bool {
        if self.trust == Trust::Diverged || (!self.differs && self.trust == Trust::Agreed) {
            return false;
        }
        self.peers.retain(|id, _| members.contains(*id));
        self.differs = self.peers.values().any(Peer::differs);
        let before = self.trust;
        self.trust = self.trust_now(me, members, now);
        self.trust != before
    }

    /// Whether a majority, this member included, agrees as of the first entry that a voter differed in.
    fn is_borne_out(&self, me: MemberId, members: &Membership) -> bool {
        let voters = self.peers.iter().filter(|(id, peer)| members.is_voter(**id) && peer.differs());
        let first = voters.filter_map(|(_, peer)| peer.compared).map(|compared| compared.since).min();
        first.is_none_or(|first| self.has_majority(me, members, first))
    }

    fn trust_now(&mut self, me: MemberId, members: &Membership, now: Mono) -> Trust {
        if outcome(members, |id| Some(self.peers.get(&id).is_some_and(Peer::differs))) == Outcome::Won {
            return Trust::Diverged;
        }
        if self.is_borne_out(me, members) {
            self.doubted_since = None;
            return Trust::Agreed;
        }
        let since = *self.doubted_since.get_or_insert(now);
        if now >= since + GRACE { Trust::Doubtful } else { self.trust }
    }
}

impl Peer {
    fn differs(&self) -> bool {
        !self.admits && self.compared.is_some_and(|compared| !compared.same)
    }
}

impl<D: Disk> Node<D> {
    /// Another member says which hash its state had behind an entry.
    pub(super) fn on_state_hash(&mut self, from: MemberId, index: Index, hash: u64, wrong: bool) {
        if self.raft.membership().contains(from) {
            self.agreement.heard(from, index, hash, wrong);
        }
    }

    /// The store has applied the next entry.
    pub(super) fn remember_state(&mut self) {
        if self.agreement.applied(self.store.applied().index, self.store.hash()) {
            self.report_state();
        }
    }

    fn report_state(&mut self) {
        let (index, hash) = (self.store.applied().index, self.store.hash());
        let call = PeerCall::StateHash { index, hash, wrong: self.agreement.trust == Trust::Diverged };
        for to in self.raft.membership().all().into_iter().filter(|to| *to != self.id) {
            self.output.messages.push(Outbound::Call { to, call: call.clone() });
        }
    }

    /// When a report is due; never, if there is nobody to report to.
    pub(super) fn report_deadline(&self) -> Mono {
        let members = self.raft.membership();
        let others = members.voter_count() + members.learners.len() > 1;
        if others { self.agreement.report_at } else { Mono::NEVER }
    }

    pub(super) fn report_in_time(&mut self) {
        if self.now >= self.report_deadline() {
            self.agreement.report_at = self.now + REPORT_EVERY;
            self.report_state();
        }
    }

    /// Judges the state, and bears the consequences.
    pub(super) fn compare_states(&mut self) {
        self.report_in_time();
        if self.agreement.judge(self.id, self.raft.membership(), self.now) {
            self.trust_changed();
        }
        if self.agreement.trust == Trust::Diverged
            && (!self.leads() || self.now >= self.agreement.hand_over_until)
        {
            self.agreement.silent = true;
        }
    }

    fn trust_changed(&mut self) {
        let applied = self.store.applied();
        let others: Vec<String> = self.agreement.differing().map(|id| format!("{id:x}")).collect();
        let others = others.join(", ");
        match self.agreement.trust {
            Trust::Agreed => info!("a majority holds the same state: this member serves clients again"),
            Trust::Doubtful => {
                error!(
                    "at entry {applied} this member's state differs from that of {others}, and no majority tells who is right: it serves nobody until one does"
                );
                self.stop_serving();
            }
            Trust::Diverged => {
                error!(
                    "at entry {applied} this member's state differs from that of {others}, which are a majority: it must be rebuilt, and serves nobody"
                );
                self.store.mark_diverged();
                self.checkpoint_due = self.now;
                self.stop_serving();
                if self.leads() {
                    self.agreement.hand_over_until = self.now + 2 * self.config.election_timeout;
                    // Refused if nobody could take over: then the others elect after a timeout.
                    let _ = self.raft.transfer(0, self.now);
                }
            }
        }
    }

    /// Nothing that rests on the state leaves any more.
    fn stop_serving(&mut self) {
        for reply in &mut self.output.replies {
            if !matches!(reply.body, Body::Fault(_) | Body::Status(_) | Body::Metrics(_)) {
                reply.body = Body::Fault(Fault::timeout());
            }
        }
        self.end_requests(&Fault::corrupt());
        self.end_all_sending();
    }

    /// The state is known to be wrong and leadership is with another member, as far as that was possible: this one
    /// takes part in nothing.
    pub(super) fn is_silent(&self) -> bool {
        self.agreement.silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono(1_000 * MS);
    const LATER: Mono = Mono(1_000 * MS + GRACE);

    /// A member 1 that has applied entries 1 to `applied`; the hash behind each is its index.
    fn at(applied: Index) -> Agreement {
        let mut agreement = Agreement::new(0, 0, false);
        for index in 1..=applied {
            agreement.applied(index, index);
        }
        agreement
    }

    fn of(voters: u64) -> Membership {
        Membership { voters: (1..=voters).collect(), ..Membership::default() }
    }

    /// Each of `others` says something else than this member would.
    fn differ(agreement: &mut Agreement, others: &[MemberId]) {
        others.iter().for_each(|&other| agreement.heard(other, 5, 999, false));
    }

    #[test]
    fn who_differs_from_a_majority_is_wrong() {
        for (voters, others) in [(3, 2), (4, 3), (5, 3), (7, 4)] {
            let mut agreement = at(9);
            differ(&mut agreement, &(2..=others).collect::<Vec<_>>());
            agreement.judge(1, &of(voters), NOW);
            assert_ne!(agreement.trust(), Trust::Diverged, "of {voters}");
            differ(&mut agreement, &[others + 1]);
            assert!(agreement.judge(1, &of(voters), NOW));
            assert_eq!(agreement.trust(), Trust::Diverged, "of {voters}");
            agreement.heard(2, 9, 9, false);
            agreement.heard(3, 9, 9, false);
            assert!(!agreement.judge(1, &of(voters), LATER), "that is for good");
        }
    }

    #[test]
    fn who_is_in_a_majority_goes_on_and_names_the_other() {
        let mut agreement = at(9);
        agreement.heard(3, 4, 4, false);
        differ(&mut agreement, &[2]);
        agreement.heard(3, 5, 5, false);
        for now in [NOW, LATER] {
            assert!(!agreement.judge(1, &of(3), now));
        }
        assert_eq!(agreement.differing().collect::<Vec<_>>(), [2]);
        agreement.heard(2, 9, 9, false);
        agreement.judge(1, &of(3), LATER);
        assert_eq!(agreement.differing().count(), 0, "its state was rebuilt");
    }

    #[test]
    fn where_nobody_knows_who_is_wrong_nobody_serves() {
        for voters in [2, 3, 4] {
            let mut agreement = at(9);
            agreement.heard(3, 4, 4, false); // Before the entry in question: it says nothing about that one.
            differ(&mut agreement, &[2]);
            assert!(!agreement.judge(1, &of(voters), NOW), "the others may be about to say more");
            assert!(agreement.judge(1, &of(voters), LATER));
            assert_eq!(agreement.trust(), Trust::Doubtful, "of {voters}");
            if voters == 3 {
                agreement.heard(3, 5, 5, false);
                assert!(agreement.judge(1, &of(voters), LATER));
                assert_eq!(agreement.trust(), Trust::Agreed);
            }
        }
    }

    #[test]
    fn who_admits_to_be_wrong_puts_nobody_in_doubt() {
        let mut agreement = at(9);
        differ(&mut agreement, &[2]);
        agreement.judge(1, &of(3), NOW);
        assert!(agreement.judge(1, &of(3), LATER));
        assert_eq!(agreement.trust(), Trust::Doubtful);
        agreement.heard(2, 5, 999, true);
        assert!(agreement.judge(1, &of(3), LATER));
        assert_eq!((agreement.trust(), agreement.suspects(1)), (Trust::Agreed, vec![2]));
        assert!(!agreement.holds_back(1, &of(3), 9, GRACE, false));
    }

    /// New voters that all differ are not a majority of the old ones.
    #[test]
    fn while_the_membership_is_joint_both_halves_judge() {
        let members = Membership { voters: vec![1, 4, 5], outgoing: vec![1, 2, 3], ..Membership::default() };
        for (others, trust) in
            [(&[4, 5][..], Trust::Doubtful), (&[3, 4, 5], Trust::Doubtful), (&[2, 3, 4, 5], Trust::Diverged)]
        {
            let mut agreement = at(9);
            differ(&mut agreement, others);
            agreement.judge(1, &members, NOW);
            agreement.judge(1, &members, LATER);
            assert_eq!(agreement.trust(), trust, "{others:?} differ");
        }
    }

    #[test]
    fn a_learner_convicts_nobody() {
        let mut agreement = at(9);
        differ(&mut agreement, &[2]);
        let members = Membership { voters: vec![1], learners: vec![2], ..Membership::default() };
        agreement.judge(1, &members, LATER);
        assert_eq!((agreement.trust(), agreement.differing().count()), (Trust::Agreed, 1));
        let members = Membership { voters: vec![2], learners: vec![1], ..Membership::default() };
        agreement.judge(1, &members, LATER);
        assert_eq!(agreement.trust(), Trust::Diverged, "but a voter convicts it");
    }

    #[test]
    fn a_report_waits_for_its_entry_and_the_oldest_is_kept() {
        let mut agreement = at(9);
        agreement.heard(2, 12, 999, false);
        agreement.heard(2, 14, 14, false);
        agreement.applied(10, 10);
        agreement.applied(11, 11);
        assert_eq!(agreement.differing().count(), 0);
        agreement.applied(12, 12);
        assert_eq!(agreement.differing().collect::<Vec<_>>(), [2]);
        assert_eq!(agreement.next_awaited, Index::MAX);
        // A connection made anew ends the waiting.
        agreement.heard(2, Index::MAX, 1, false);
        agreement.greeted(2);
        agreement.heard(2, 13, 13, false);
        agreement.applied(13, 13);
        assert_eq!(agreement.differing().count(), 0);
    }

    #[test]
    fn what_is_too_old_or_late_says_nothing() {
        let mut agreement = at(HASHES_MAX as Index + 5);
        assert_eq!(agreement.hash_at(5), None);
        assert_eq!(agreement.hash_at(6), Some(6));
        assert_eq!(agreement.hash_at(HASHES_MAX as Index + 6), None);
        agreement.heard(2, 5, 999, false);
        assert_eq!(agreement.differing().count(), 0);
        agreement.heard(2, 100, 100, false);
        agreement.heard(2, 99, 999, false);
        assert_eq!(agreement.differing().count(), 0, "overtaken by a later report");
    }

    #[test]
    fn a_report_is_due_at_each_stride() {
        let mut agreement = at(STRIDE - 1);
        assert!(agreement.applied(STRIDE, 7));
        assert!(!agreement.applied(STRIDE + 1, 7));
    }

    #[test]
    fn a_snapshot_waits_until_others_had_time_to_contradict() {
        let mut agreement = at(9);
        let voters = of(3);
        assert!(agreement.holds_back(1, &voters, 9, 0, false));
        assert!(!agreement.holds_back(1, &voters, 9, GRACE, false), "nobody is there to say more");
        assert!(agreement.holds_back(1, &voters, 9, GRACE, true), "somebody is");
        assert!(!agreement.holds_back(1, &voters, 9, PATIENCE, true));
        agreement.heard(2, 8, 8, false);
        assert!(agreement.holds_back(1, &voters, 9, 0, true));
        agreement.heard(2, 9, 9, false);
        assert!(!agreement.holds_back(1, &voters, 9, 0, true), "two of three agree");
        let mut agreement = at(9);
        differ(&mut agreement, &[2]);
        assert!(agreement.holds_back(1, &voters, 9, PATIENCE, true));
    }
}
