//! One integration binary: linking once is faster than linking twenty times.

mod btree_crash;
mod cli;
mod fuzz_bodies;
mod line;
mod raft_golden;
mod raft_shuffle;
mod raft_world;
mod store;
mod tidy;
mod wal_crash;
