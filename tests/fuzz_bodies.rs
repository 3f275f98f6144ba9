//! What the fuzz targets do, as plain functions.
#![allow(dead_code)]
#[path = "fake_node.rs"]
pub mod fake_node;
