//! The whole cluster in one thread from one seed, and the checkers of what its clients saw.

pub mod check;
pub mod explore;
pub mod history;
