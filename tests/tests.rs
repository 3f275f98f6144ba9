//! One integration binary: linking once is faster than linking twenty times.

mod fuzz_bodies;
mod line;
mod tidy;
mod wal_crash;
