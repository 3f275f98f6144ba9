//! Every state of small clusters, of the very core that is shipped.
//!
//! A search goes breadth first through everything that can happen in a world of a few members: messages that are
//! lost, doubled and overtaken, impatience at any moment, disks that are late and crashes that keep any prefix of
//! what was under way, clocks, proposals, reads, hand-overs, changes of the membership. There is no second model
//! of Raft that could differ from the code: a step of the search is a call of [`crate::raft::Raft`].
//!
//! How often each kind of thing may happen on one path is a budget; several small worlds are searched instead of a
//! large one. A message is lost by never being delivered, so loss costs no event and no budget. Patience is not
//! drawn from dice: any member may lose it at any time that its promise allows, which covers every drawing. Time,
//! where leases need it, moves in steps of half a lease, the same for all; what drift costs is arithmetic that
//! `Config::lease_trusted` explains.
//!
//! What is checked after each step is in `truth.rs`: claims of durability, election safety, votes and terms that
//! never go back, log matching, leader completeness, commits by quorums of durable copies, memberships that
//! meet, leases that exclude each other, reads that are not stale. A violation is told with a shortest path to it.
//!
//! The search itself is tested by breaking rules of the core on purpose ([`Planted`]): each must be found.
//!
//! # What is left out
//!
//! * *Liveness.* That something good happens is for the simulations that heal.
//! * *Rounds of more than a few terms*, and worlds beyond the budgets: nothing is proved, much is seen.
//! * *Collisions.* States are told apart by 64 bits; among 10^7 states two share them with a chance of 3 in a million.

mod member;
mod search;
mod setups;
mod truth;
mod world;

pub use crate::raft::explore::Planted;
pub use search::{Report, Violation, search};
pub use setups::{planted, setups};
pub use world::{Budget, Event, Setup, World};
