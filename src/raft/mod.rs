//! Consensus (essay to be written with the core).

pub mod config;
pub mod core;
pub mod types;

pub use config::{Config, PeerStanding, PeerState, Refused, Role, Start, TransferRefused};
pub use core::Raft;
pub use types::*;
