//! Consensus (essay to be written with the core).

mod candidate;
pub mod config;
mod core;
mod follower;
mod leader;
mod log;
mod progress;
pub mod quorum;
pub mod types;

pub use config::{Config, PeerStanding, PeerState, Refused, Role, Start, TransferRefused};
pub use core::Raft;
pub use types::*;
