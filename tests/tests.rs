//! One integration binary: linking once is faster than linking twenty times.

mod cli;
mod fuzz_bodies;
mod line;
mod store;
mod tidy;
mod wal_crash;
