//! One integration binary: linking once is faster than linking twenty times.

mod bad_input;
mod cli;
mod clients;
mod fuzz_bodies;
mod harness;
mod history;
mod kill;
mod lag;
mod line;
mod resp;
mod stop;
mod store;
mod tidy;
