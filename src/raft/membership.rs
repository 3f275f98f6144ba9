//! Who is in the cluster: changes, their form in the log, and which of them count now.
//!
//! A membership entry holds the whole new membership, and counts from the moment it is in the log, committed or
//! not (thesis §4.1). So the effective membership is the newest in the log; one that is replaced by another
//! leader's entries takes the one before it back into force; and a snapshot brings the one of its own index.
//!
//! One voter more or less at a time needs no joint phase, because any quorum of either set meets any quorum of
//! the other. Several at once go through one: the first entry holds both sets, and the leader follows it with
//! the second as soon as it is committed (thesis §4.3).
//!
//! ```text
//! version u8 = 1 | voters | outgoing | learners | context: opaque to the core
//! a set: count u8 | ids u64, ascending
//! ```

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::base::codec::{Reader, Short};
use crate::base::limits::MEMBERS_MAX;
use crate::base::planted;
use crate::base::{Index, MemberId};

use super::config::ChangeRefused;
use super::types::{Entry, EntryKind, Membership};

/// The first byte of a membership entry's payload.
const VERSION: u8 = 1;

/// One step of a change of the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It counts in quorums at once, though it holds nothing yet. Adding a learner and promoting it keeps the
    /// cluster available meanwhile (thesis §4.2.1).
    AddVoter(MemberId),
    AddLearner(MemberId),
    /// A learner becomes a voter, if it has caught up.
    Promote(MemberId),
    Remove(MemberId),
    /// Nothing changes here; the entry's context tells the members something about this one.
    Update(MemberId),
}

impl Change {
    pub fn member(&self) -> MemberId {
        match *self {
            Change::AddVoter(id)
            | Change::AddLearner(id)
            | Change::Promote(id)
            | Change::Remove(id)
            | Change::Update(id) => id,
        }
    }
}

impl Membership {
    /// Between the two entries of a change of several voters.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// This membership with `changes`; joint, if more than one voter comes or goes.
    pub fn with(&self, changes: &[Change]) -> Result<Membership, ChangeRefused> {
        assert!(!self.is_joint(), "a joint membership is left before the next change");
        let mut next = self.clone();
        let mut seen: Vec<MemberId> = Vec::new();
        for change in changes {
            if seen.contains(&change.member()) {
                return Err(ChangeRefused::Twice(change.member()));
            }
            seen.push(change.member());
            next.take(*change)?;
        }
        for set in [&mut next.voters, &mut next.learners] {
            set.sort_unstable();
        }
        if next.voters.is_empty() {
            return Err(ChangeRefused::NoVoterLeft);
        }
        let differing = differences(&self.voters, &next.voters);
        if differing > 1 {
            next.outgoing.clone_from(&self.voters);
        }
        if next.all().len() > MEMBERS_MAX {
            return Err(ChangeRefused::TooMany);
        }
        Ok(next)
    }

    fn take(&mut self, change: Change) -> Result<(), ChangeRefused> {
        let id = change.member();
        match change {
            _ if id == 0 => return Err(ChangeRefused::NoMember(id)),
            Change::AddVoter(_) | Change::AddLearner(_) if self.contains(id) => {
                return Err(ChangeRefused::Exists(id));
            }
            Change::AddVoter(_) => self.voters.push(id),
            Change::AddLearner(_) => self.learners.push(id),
            _ if !self.contains(id) => return Err(ChangeRefused::NoMember(id)),
            Change::Promote(_) if !self.learners.contains(&id) => return Err(ChangeRefused::NotLearner(id)),
            Change::Promote(_) => {
                self.learners.retain(|&learner| learner != id);
                self.voters.push(id);
            }
            Change::Remove(_) => {
                self.learners.retain(|&learner| learner != id);
                self.voters.retain(|&voter| voter != id);
            }
            Change::Update(_) => {}
        }
        Ok(())
    }

    /// What follows a joint membership.
    pub fn left(&self) -> Membership {
        Membership { outgoing: Vec::new(), ..self.clone() }
    }

    /// The payload of a membership entry.
    pub fn encode(&self, context: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        for set in [&self.voters, &self.outgoing, &self.learners] {
            out.put_u8(u8::try_from(set.len()).expect("a set holds at most MEMBERS_MAX"));
            for id in set {
                out.put_u64_le(*id);
            }
        }
        out.put_slice(context);
        out.freeze()
    }

    /// The membership of an entry, and its context. What is wrong with the payload otherwise.
    pub fn decode(payload: &Bytes) -> Result<(Membership, Bytes), &'static str> {
        let mut reader = Reader::new(payload);
        let short = |_: Short| "it ends early";
        if reader.u8().map_err(short)? != VERSION {
            return Err("its version is unknown");
        }
        let mut set = || -> Result<Vec<MemberId>, &'static str> {
            let count = usize::from(reader.u8().map_err(short)?);
            if count > MEMBERS_MAX {
                return Err("a set has too many members");
            }
            let ids: Vec<MemberId> =
                (0..count).map(|_| reader.u64()).collect::<Result<_, Short>>().map_err(short)?;
            let ascending = ids.windows(2).all(|pair| pair[0] < pair[1]);
            if !ascending || ids.first() == Some(&0) {
                return Err("the ids of a set are not ascending");
            }
            Ok(ids)
        };
        let membership = Membership { voters: set()?, outgoing: set()?, learners: set()? };
        if membership.voters.is_empty() {
            return Err("nobody votes");
        }
        if membership.learners.iter().any(|id| membership.voters.contains(id)) {
            return Err("a learner votes");
        }
        if membership.all().len() > MEMBERS_MAX {
            return Err("there are too many members");
        }
        let context = payload.slice(payload.len() - reader.left()..);
        Ok((membership, context))
    }
}

/// How many ids are in one of two sorted sets only.
fn differences(one: &[MemberId], other: &[MemberId]) -> usize {
    let missing = |from: &[MemberId], of: &[MemberId]| of.iter().filter(|id| !from.contains(id)).count();
    missing(one, other) + missing(other, one)
}

/// The memberships in force: one that is committed, and those that follow it in the log.
#[derive(Clone)]
pub(super) struct History {
    settled: (Index, Membership),
    ahead: VecDeque<(Index, Membership)>,
}

impl History {
    pub fn new(index: Index, membership: Membership) -> History {
        History { settled: (index, membership), ahead: VecDeque::new() }
    }

    /// The newest in the log, which is the one that counts.
    pub fn effective(&self) -> &Membership {
        if planted::on("raft-membership-counts-when-committed") {
            return self.settled();
        }
        &self.ahead.back().unwrap_or(&self.settled).1
    }

    /// The newest that cannot be taken back.
    pub fn settled(&self) -> &Membership {
        &self.settled.1
    }

    /// Whether nothing is under way.
    pub fn is_settled(&self) -> bool {
        self.ahead.is_empty()
    }

    /// A member that was added to a running cluster and holds nothing yet, not even who is in it.
    pub fn is_blank(&self) -> bool {
        self.settled.0 == 0 && self.settled.1.voters.is_empty()
    }

    /// Those that may still turn out to be in force, oldest first.
    pub fn possible(&self) -> impl Iterator<Item = &Membership> {
        std::iter::once(&self.settled).chain(&self.ahead).map(|(_, membership)| membership)
    }

    /// An entry was appended to the log.
    pub fn appended(&mut self, entry: &Entry) {
        if entry.kind == EntryKind::Membership {
            let (membership, _) = Membership::decode(&entry.payload)
                .unwrap_or_else(|why| panic!("the membership entry {} was checked before: {why}", entry.id));
            self.ahead.push_back((entry.id.index, membership));
        }
    }

    /// The entries from `from` on were dropped.
    pub fn truncated(&mut self, from: Index) {
        while self.ahead.back().is_some_and(|(index, _)| *index >= from) {
            self.ahead.pop_back();
        }
    }

    pub fn committed(&mut self, commit: Index) {
        while self.ahead.front().is_some_and(|(index, _)| *index <= commit) {
            self.settled = self.ahead.pop_front().expect("the front was just seen");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{EntryId, Rng};

    fn of(voters: &[MemberId], outgoing: &[MemberId], learners: &[MemberId]) -> Membership {
        Membership { voters: voters.to_vec(), outgoing: outgoing.to_vec(), learners: learners.to_vec() }
    }

    #[test]
    fn one_voter_changes_directly_and_several_jointly() {
        let three = of(&[1, 2, 3], &[], &[4]);
        let with = |changes: &[Change]| three.with(changes);
        assert_eq!(with(&[Change::AddVoter(9)]), Ok(of(&[1, 2, 3, 9], &[], &[4])));
        assert_eq!(with(&[Change::Remove(1)]), Ok(of(&[2, 3], &[], &[4])));
        assert_eq!(with(&[Change::Promote(4)]), Ok(of(&[1, 2, 3, 4], &[], &[])));
        assert_eq!(with(&[Change::AddLearner(7), Change::Remove(4)]), Ok(of(&[1, 2, 3], &[], &[7])));
        assert_eq!(with(&[Change::Promote(4), Change::Remove(1)]), Ok(of(&[2, 3, 4], &[1, 2, 3], &[])));
        assert_eq!(with(&[Change::Update(2)]), Ok(three.clone()));
        assert_eq!(of(&[2, 3, 4], &[1, 2, 3], &[]).left(), of(&[2, 3, 4], &[], &[]));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let two = of(&[1, 2], &[], &[3]);
        assert_eq!(two.with(&[Change::AddVoter(3)]), Err(ChangeRefused::Exists(3)));
        assert_eq!(two.with(&[Change::AddLearner(1)]), Err(ChangeRefused::Exists(1)));
        assert_eq!(two.with(&[Change::Remove(9)]), Err(ChangeRefused::NoMember(9)));
        assert_eq!(two.with(&[Change::Update(9)]), Err(ChangeRefused::NoMember(9)));
        assert_eq!(two.with(&[Change::AddVoter(0)]), Err(ChangeRefused::NoMember(0)));
        assert_eq!(two.with(&[Change::Promote(1)]), Err(ChangeRefused::NotLearner(1)));
        assert_eq!(two.with(&[Change::Remove(1), Change::Remove(2)]), Err(ChangeRefused::NoVoterLeft));
        assert_eq!(two.with(&[Change::AddVoter(7), Change::Remove(7)]), Err(ChangeRefused::Twice(7)));
        let many: Vec<Change> = (10..40).map(Change::AddLearner).collect();
        assert_eq!(two.with(&many), Err(ChangeRefused::TooMany));
    }

    #[test]
    fn a_membership_entry_is_read_as_it_was_written() {
        let joint = of(&[1, 2, u64::MAX], &[1, 5], &[7]);
        let payload = joint.encode(b"rest");
        assert_eq!(
            payload[..],
            [
                &[1, 3][..],
                &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
                &[0xff; 8],
                &[2, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
                &[1, 7, 0, 0, 0, 0, 0, 0, 0],
                b"rest"
            ]
            .concat()
        );
        assert_eq!(Membership::decode(&payload), Ok((joint, Bytes::from_static(b"rest"))));
    }

    /// Whatever bytes arrive: an error, or a membership that says the same when it is written again.
    #[test]
    fn hostile_bytes_are_refused_or_mean_one_thing() {
        let mut rng = Rng::new(3);
        let sound = of(&[1, 2, 3], &[2, 3, 4], &[9]).encode(b"c");
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut bytes = sound.to_vec();
            for _ in 0..rng.between(1, 3) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            bytes.truncate(rng.between(0, bytes.len() as u64) as usize);
            match Membership::decode(&Bytes::from(bytes.clone())) {
                Ok((membership, context)) => assert_eq!(membership.encode(&context)[..], bytes),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 10_000);
    }

    #[test]
    fn a_change_that_is_replaced_brings_the_one_before_it_back() {
        let entry = |index, membership: &Membership| Entry {
            id: EntryId::new(1, index),
            kind: EntryKind::Membership,
            payload: membership.encode(b""),
        };
        let (a, b, c) = (of(&[1], &[], &[]), of(&[1, 2], &[], &[]), of(&[1, 2, 3], &[], &[]));
        let mut history = History::new(4, a.clone());
        history.appended(&entry(6, &b));
        history.appended(&entry(9, &c));
        assert_eq!(history.effective(), &c);
        history.truncated(9);
        assert_eq!(history.effective(), &b);
        history.appended(&entry(9, &c));
        history.committed(8);
        assert_eq!((history.settled(), history.effective()), (&b, &c));
        history.truncated(9);
        assert_eq!((history.effective(), history.is_settled()), (&b, true));
        assert_eq!(history.possible().count(), 1);
    }
}
