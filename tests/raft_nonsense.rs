//! A core that is sent nonsense.

use pawl::base::time::MS;
use pawl::base::{EntryId, Mono, Rng, Term};
use pawl::raft::{Config, Entry, EntryKind, Membership, Message, MessageBody};

use crate::raft_world::Member;

/// Messages that no sound member would send: wild numbers, gaps, strangers. They are refused or ignored; what a
/// core holds as committed stays, and nothing panics.
#[test]
fn nonsense_is_survived() {
    for seed in 1..40 {
        let mut rng = Rng::new(seed);
        let membership = Membership { voters: vec![1, 2, 3], learners: vec![4], ..Membership::default() };
        let mut member = Member::new(1, membership);
        let mut now = Mono(1_000 * MS);
        member.start(Config::new(1, seed), now);
        let mut commit = 0;
        for _ in 0..2_000 {
            now = now + rng.below(100 * MS);
            let message = nonsense(&mut rng, member.raft().0.standing().term);
            member.step(message, now);
            if rng.one_in(3) {
                member.tick(now);
            }
            let _ = member.propose("x", now);
            while let Some(turn) = member.turn() {
                if let Some(write) = turn.write {
                    member.persist(write.number);
                }
            }
            let after = member.raft().0.standing().commit;
            assert!(after >= commit && after <= member.log.last().index);
            commit = after;
        }
    }
}

fn nonsense(rng: &mut Rng, term: Term) -> Message {
    let wild = [0, 1, 2, 1 << 61, (1 << 62) - 1, 1 << 62, u64::MAX - 1, u64::MAX];
    let index = |rng: &mut Rng| if rng.one_in(8) { wild[rng.below(8) as usize] } else { rng.below(20) };
    let near = |rng: &mut Rng| if rng.one_in(50) { wild[rng.below(3) as usize] } else { term + rng.below(2) };
    let id = |rng: &mut Rng| {
        let term = near(rng).saturating_sub(rng.below(3));
        EntryId::new(term, index(rng))
    };
    let body = match rng.below(9) {
        0 => MessageBody::PreVote { last: id(rng) },
        1 => MessageBody::PreVoteReply { granted: rng.one_in(2) },
        2 => MessageBody::Vote { last: id(rng), transfer: rng.one_in(2) },
        3 => MessageBody::VoteReply { granted: rng.one_in(2) },
        4 | 5 => {
            let previous = id(rng);
            let mut at = previous;
            let entries = (0..rng.below(4))
                .map(|_| {
                    at = match rng.one_in(10) {
                        true => id(rng),
                        false => EntryId::new(at.term, at.index.wrapping_add(1)),
                    };
                    let payload = bytes::Bytes::from_static(b"odd");
                    Entry { id: at, kind: EntryKind::Normal, payload }
                })
                .collect();
            MessageBody::Append { previous, entries, commit: id(rng).index, round: id(rng).index }
        }
        6 => MessageBody::AppendAccepted { matched: id(rng).index, round: id(rng).index },
        7 => MessageBody::AppendRejected {
            previous: id(rng).index,
            hint: id(rng),
            last: id(rng).index,
            round: id(rng).index,
        },
        _ => MessageBody::TimeoutNow,
    };
    let from = [0, 1, 2, 2, 2, 3, 3, 4, 9][rng.below(9) as usize];
    Message { from, to: if rng.one_in(30) { 2 } else { 1 }, term: near(rng), body }
}
