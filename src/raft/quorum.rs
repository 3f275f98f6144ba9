//! Majority arithmetic over one or two sets of voters.
//!
//! During a joint change a decision needs a majority of `voters` and one of `outgoing` (thesis §4.3), so every
//! question is asked of both sets and the worse answer counts. Learners are in neither. An empty `voters`
//! agrees on nothing: a core that does not know its cluster must not decide for it.

use crate::base::MemberId;
use crate::base::limits::MEMBERS_MAX;
use crate::base::planted;

use super::types::Membership;

/// How a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Won,
    /// A majority for it has become impossible.
    Lost,
    Pending,
}

/// How many of `count` voters are a majority.
pub fn majority(count: usize) -> usize {
    count / 2 + 1
}

/// The greatest value that a quorum has reached or passed, where `value` says what each voter has reached.
/// The default (zero) where there are no voters.
pub fn agreed<T: Copy + Ord + Default>(membership: &Membership, value: impl Fn(MemberId) -> T) -> T {
    let incoming = agreed_in(&membership.voters, &value);
    if membership.outgoing.is_empty() || planted::on("raft-joint-commits-by-its-new-half") {
        return incoming;
    }
    incoming.min(agreed_in(&membership.outgoing, &value))
}

fn agreed_in<T: Copy + Ord + Default>(voters: &[MemberId], value: &impl Fn(MemberId) -> T) -> T {
    let count = voters.len();
    if count == 0 {
        return T::default();
    }
    let mut values = [T::default(); MEMBERS_MAX];
    for (slot, &voter) in values.iter_mut().zip(voters) {
        *slot = value(voter);
    }
    let values = &mut values[..count];
    values.sort_unstable();
    // Ascending: from this position on there are exactly `majority` voters.
    values[count - majority(count)]
}

/// Counts ballots: None is a voter who has not answered.
pub fn outcome(membership: &Membership, ballot: impl Fn(MemberId) -> Option<bool>) -> Outcome {
    let incoming = outcome_in(&membership.voters, &ballot);
    if membership.outgoing.is_empty() || planted::on("raft-joint-elects-by-its-new-half") {
        return incoming;
    }
    match (incoming, outcome_in(&membership.outgoing, &ballot)) {
        (Outcome::Won, Outcome::Won) => Outcome::Won,
        (Outcome::Lost, _) | (_, Outcome::Lost) => Outcome::Lost,
        _ => Outcome::Pending,
    }
}

fn outcome_in(voters: &[MemberId], ballot: &impl Fn(MemberId) -> Option<bool>) -> Outcome {
    let mut granted = 0;
    let mut open = 0;
    for &voter in voters {
        match ballot(voter) {
            Some(true) => granted += 1,
            Some(false) => {}
            None => open += 1,
        }
    }
    let needed = majority(voters.len());
    if granted >= needed {
        Outcome::Won
    } else if granted + open < needed {
        Outcome::Lost
    } else {
        Outcome::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    fn members(of: &[MemberId]) -> Vec<MemberId> {
        of.to_vec()
    }

    #[test]
    fn a_majority_is_more_than_half() {
        let sizes: Vec<usize> = (1..=7).map(majority).collect();
        assert_eq!(sizes, [1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn nobody_agrees_on_nothing() {
        let nobody = Membership { learners: members(&[1, 2, 3]), ..Membership::default() };
        assert_eq!(agreed(&nobody, |_| 9_u64), 0);
        assert_eq!(outcome(&nobody, |_| Some(true)), Outcome::Lost);
    }

    /// The definition, word for word: the greatest v such that more than half of each set is at v or above.
    fn naive_agreed(membership: &Membership, values: &[u64]) -> u64 {
        let reached = |set: &[MemberId], v: u64| {
            set.iter().filter(|&&id| values[id as usize] >= v).count() * 2 > set.len()
        };
        (0..=10)
            .rev()
            .find(|&v| {
                reached(&membership.voters, v)
                    && (membership.outgoing.is_empty() || reached(&membership.outgoing, v))
            })
            .unwrap_or(0)
    }

    /// The definition: won now; lost when even all open ballots would not win it.
    fn naive_outcome(membership: &Membership, ballots: &[Option<bool>]) -> Outcome {
        let wins = |open_counts: bool| {
            [&membership.voters, &membership.outgoing].iter().all(|set| {
                let yes = set.iter().filter(|&&id| ballots[id as usize].unwrap_or(open_counts)).count();
                set.is_empty() || yes * 2 > set.len()
            })
        };
        match (wins(false), wins(true)) {
            (true, _) => Outcome::Won,
            (_, false) => Outcome::Lost,
            _ => Outcome::Pending,
        }
    }

    #[test]
    fn it_agrees_with_the_definition() {
        let mut rng = Rng::new(11);
        for _ in 0..20_000 {
            let mut pick = |at_least_one: bool| -> Vec<MemberId> {
                let mut set: Vec<MemberId> = (0..10).filter(|_| rng.one_in(2)).collect();
                if at_least_one && set.is_empty() {
                    set.push(3);
                }
                set
            };
            let membership =
                Membership { voters: pick(true), outgoing: pick(false), learners: members(&[10, 11]) };
            let values: Vec<u64> = (0..12).map(|_| rng.below(11)).collect();
            let ballots: Vec<Option<bool>> =
                (0..12).map(|_| [None, Some(true), Some(false)][rng.below(3) as usize]).collect();
            assert_eq!(
                agreed(&membership, |id| values[id as usize]),
                naive_agreed(&membership, &values),
                "{membership:?} {values:?}"
            );
            assert_eq!(
                outcome(&membership, |id| ballots[id as usize]),
                naive_outcome(&membership, &ballots),
                "{membership:?} {ballots:?}"
            );
        }
    }

    /// V09: whatever decided under the old set, the joint set and the new set, two in a row share a voter.
    #[test]
    fn quorums_on_both_sides_of_a_joint_change_intersect() {
        let mut rng = Rng::new(12);
        for _ in 0..3_000 {
            let mut set = || -> Vec<MemberId> {
                let mut set: Vec<MemberId> = (0..6).filter(|_| rng.one_in(2)).collect();
                if set.is_empty() {
                    set.push(1);
                }
                set
            };
            let (old, new) = (set(), set());
            let joint = Membership { voters: new.clone(), outgoing: old.clone(), ..Membership::default() };
            let before = Membership { voters: old, ..Membership::default() };
            let after = Membership { voters: new, ..Membership::default() };
            let yes = rng.below(64);
            let side = |id: MemberId| Some(yes >> id & 1 == 1);
            let other = |id: MemberId| Some(yes >> id & 1 == 0);
            for (a, b) in [(&before, &joint), (&joint, &after)] {
                let both = outcome(a, side) == Outcome::Won && outcome(b, other) == Outcome::Won;
                assert!(!both, "two disjoint quorums: {a:?} {b:?} {yes:b}");
            }
        }
    }
}
