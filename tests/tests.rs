//! One integration binary: linking once is faster than linking twenty times.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests print their figures")]

mod bad_input;
mod btree_crash;
mod btree_model;
mod cli;
mod cli_bad_input;
mod cli_formats;
mod cli_lease;
mod clients;
mod cluster_leases;
mod cluster_locks;
mod cluster_sim;
mod compaction;
mod completion;
mod differential;
mod disk_errors;
mod diverged;
mod explore;
mod full_disk;
mod fuzz_bodies;
mod harness;
mod kill;
mod lag;
mod line;
mod locks;
mod members;
mod mirror;
mod names;
mod planted;
mod proxy;
mod raft_golden;
mod raft_nonsense;
mod raft_shuffle;
mod raft_world;
mod repair;
mod resp;
mod split;
mod stop;
mod store;
mod tidy;
mod txn;
mod under_load;
mod unplugged;
mod wal_crash;
mod watch;
