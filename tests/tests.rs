//! One integration binary: linking once is faster than linking twenty times.

mod btree_crash;
mod btree_model;
mod tidy;
