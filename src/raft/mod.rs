//! Consensus (essay to be written with the core).

pub mod types;

pub use types::*;
