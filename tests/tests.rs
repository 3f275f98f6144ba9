//! One integration binary: linking once is faster than linking twenty times.

mod tidy;
mod wal_crash;
