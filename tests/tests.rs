//! One integration binary: linking once is faster than linking twenty times.

mod raft_golden;
mod raft_shuffle;
mod raft_world;
mod tidy;
