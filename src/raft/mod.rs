//! Consensus: who leads, and in which order entries are committed.
//!
//! The core is a function of what it is told. It never reads a clock, a socket, a file or dice: time comes with
//! every call, chance from a seed, and what is to be done leaves as a value, [`Ready`], that says what must be
//! durable before what may leave. The same calls give the same answers, for ever.
//!
//! # The rules
//!
//! Sources: Ongaro and Ousterhout, *In Search of an Understandable Consensus Algorithm* (extended version, "paper");
//! Ongaro, *Consensus: Bridging Theory and Practice* ("thesis").
//!
//! 1. *One vote in a term, durable before it is seen.* Term and vote are one record ([`HardState`]). A vote, a request
//!    for votes (it claims a term, an own vote and a log) and an acknowledgement leave in
//!    [`Ready::messages_after`]; a candidate counts its own vote, and a leader its own entries, only when
//!    [`Raft::persisted`] says so. What is durable already may leave at once. (paper §5.1, §5.2)
//! 2. *The more up-to-date log wins.* [`EntryId`](crate::base::EntryId) orders logs by the term of the last entry, then by
//!    length. (paper §5.4.1)
//! 3. *A leader commits by counting its own term's entries only.* It begins with an empty one, so that whatever
//!    earlier terms left is committed behind it. (paper §5.4.2)
//! 4. *A follower replaces entries only on proof*, that is for an entry of another term, and never a committed one: that
//!    is asserted. A completed write proves nothing about entries that were replaced while it was under way. (paper §5.3)
//! 5. *Ask before campaigning* (pre-vote): who could not win does not raise its term. A refusal carries the higher
//!    term, and who is behind adopts it. (thesis §9.6)
//! 6. *A leader that hears no quorum for an election timeout steps down* (check quorum), so its clients look elsewhere.
//!    (thesis §6.2)
//! 7. *A promise binds for one lease.* Who heard from a leader elects nobody for that long, not even itself, and nor
//!    does who just restarted and may have forgotten a promise. (thesis §4.2.3, §6.4.1)
//! 8. *A lease rests on promises.* A quorum answered messages that left at or after `t`; all of it promised later than
//!    that; so until `t + lease × (1 − 2 × drift)` nobody else is elected, and the leader serves reads alone. Before
//!    it asks another member to take over it gives the lease up for the rest of its term, because that election
//!    passes over the promises and may come late.
//! 9. *Without a lease a read is confirmed* (ReadIndex): the commit index is noted, and holds when a quorum has answered
//!    a round that began after the request. No round number is ever used twice. Either way nothing is read before an
//!    entry of the own term is committed. (thesis §6.4)
//! 10. *Both halves count.* While a membership is joint, every quorum (votes, commits, leases, reads, being heard) is
//!     one of both sets of voters. Learners are in none. (thesis §4.3)
//! 11. *A membership counts from the moment it is in the log*, and no longer if it is replaced there. The next change
//!     begins only when the last one is committed and left, and the leader has committed in its own term: so any
//!     two memberships that can be in force together share a voter in all their quorums. (thesis §4.1, and Ongaro's
//!     correction of 2015)
//! 12. *Messages are answered whoever sends them.* A member that lags does not know yet who leads or asks; promises,
//!     pre-vote and the log's order decide, not the own idea of the membership. Only what a stranger says of its
//!     term is no reason to follow it, unless it leads or is elected. (thesis §4.1, §4.2.3)
//! 13. *Who removes itself leads until that is committed*, without counting itself, and then hands over. A voter that
//!     is left out by an entry that may still be replaced goes on asking for votes: it may hold the only copy.
//!     (thesis §4.2.2)
//! 14. *Who lost its memory elects nobody* until it holds everything again. The essay of `recovery.rs` says how that is
//!     known.
//!
//! # Who asks when
//!
//! A follower that misses its leader waits for a random time between one and two election timeouts. Three events make
//! the wait short, because there is nobody to disturb, and promises guard against being wrong: the start of a member;
//! the end of the connection to the leader ([`Raft::peer_lost`]); a campaign that was lost while one of these was
//! recent. After a lost connection the voters take turns one slot apart, in an order that rotates with the term. A
//! voter whose promise lasts a little longer than the asker's keeps the question and answers when it ends, so a
//! fail-over takes one lease and two round trips.
//!
//! # Glossary
//!
//! * *commit*: an entry is, when a quorum holds it durably and rule 3 lets it count; it is never lost then.
//! * *matched*: how far a follower's durable log is known to be the leader's.
//! * *promise*: a member's, to elect nobody for now. *lease*: a leader's, resting on a quorum of promises.
//! * *round*: a number on a leader's messages; answers repeat it, and so tell what they are younger than.
//! * *own*: of the present leader's term.
//! * *effective*: the newest membership in the log. *settled*: the newest committed one. *joint*: with two sets of voters.
//! * *blank*: a member that was added to a running cluster and holds nothing yet; it is brought up by a snapshot, because
//!   the first members of a cluster stand in no entry.
//!
//! # Where things are
//!
//! [`Raft`] in `core.rs` takes events, checks messages at the gate, and makes a Ready. `candidate.rs` holds elections from
//! both sides, `follower.rs` the taking of entries, `leader.rs` replication, commit, leases, reads and hand-over,
//! `recovery.rs` the way back of a member that lost its log,
//! `progress.rs` what a leader knows of one member, `log.rs` the tail in memory over a [`LogView`], `membership.rs` who
//! is in the cluster by which entry, `quorum.rs` the arithmetic; `explore.rs` (feature `sim`) lets a search through all
//! states see into a core.
//!
//! # What is left out
//!
//! * *Demotion.* A voter becomes a learner by being removed and added with another id.
//! * *Applying ahead of the own disk.* An entry that a quorum holds is handed out only when it is durable here too.
//!   Cost: where the own disk is the slowest, its sync time. Gain: a state machine may checkpoint whatever it has.
//! * *A lease after a hand-over that was given up.* The rest of that term asks a quorum for each read.

/// Whether a rule is broken on purpose: a constant `false` in a build without the feature `sim`.
macro_rules! breaks {
    ($config:expr, $rule:ident) => {{
        #[cfg(feature = "sim")]
        let broken = $config.planted == Some($crate::raft::explore::Planted::$rule);
        #[cfg(not(feature = "sim"))]
        let broken = {
            let _ = &$config;
            false
        };
        broken
    }};
}

mod candidate;
mod config;
mod core;
#[cfg(feature = "sim")]
pub mod explore;
mod follower;
mod leader;
mod log;
mod membership;
mod progress;
pub mod quorum;
mod recovery;
pub mod types;

pub use config::{ChangeRefused, Config, PeerStanding, PeerState, Refused, Role, Start, TransferRefused};
pub use core::Raft;
pub use membership::Change;
pub use recovery::Recovering;
pub use types::*;
