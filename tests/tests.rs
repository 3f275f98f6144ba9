//! One integration binary: linking once is faster than linking twenty times.

mod bad_input;
mod clients;
mod harness;
mod history;
mod kill;
mod lag;
mod resp;
mod stop;
mod tidy;
