//! One integration binary: linking once is faster than linking twenty times.

mod cli;
mod tidy;
mod wal_crash;
