//! The whole cluster in one thread from one seed, and the checkers of what its clients saw.

pub mod check;
pub mod history;

mod clients;
mod clock;
mod faults;
mod finish;
mod forks;
pub mod generate;
mod liveness;
mod machine;
mod net;
pub mod options;
pub mod plan;
mod process;
pub mod report;
pub mod run;
pub mod shrink;
mod stream;
mod trace;
mod transport;
mod watch;
mod words;
mod world;

/// Every simulated cluster is this one.
const CLUSTER: u64 = 77;

/// Where its members keep their files.
const DATA_DIR: &str = "/data/member";
