//! Pawl: a distributed, strongly consistent key-value store.
//!
//! Read the modules in this order; each uses only those above it (the exact table is in
//! `ARCHITECTURE.md`, and `tests/tidy.rs` holds the code to it).

// Vocabulary: ids, limits, errors, the checked codec, the checksum, seeded dice. Uses nothing else of ours.
pub mod base;

// The edges as traits (disk, pages, clock, entropy), their operating-system form, and the simulated disk.
pub mod io;

// The one language that protocols and the node share: requests, replies, errors, logged commands.
pub mod api;

// Consensus: pure, without sockets, files, clocks or dice of its own.
pub mod raft;

// The write-ahead log: segments on disk, one sync per batch.
pub mod wal;

// The copy-on-write B+tree file, read through a mapping.
pub mod btree;

// The replicated state machine: etcd's revisions over the tree.
pub mod store;

// Joins the pure parts into one member; still no sockets and no clock.
pub mod node;

// Bytes to vocabulary and back: the line protocol, and the frames between members.
pub mod proto;

// The event loop: sockets, timers, helper threads.
pub mod net;

// How fast a disk and a cluster are, as values.
pub mod measure;

// The whole cluster in one thread from one seed, and the checkers of what its clients saw.
#[cfg(feature = "sim")]
pub mod sim;

// The command line: server, client, offline tools.
pub mod cli;
