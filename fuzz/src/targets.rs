//! One target per decoder of bytes from outside. A target panics where the decoder breaks a promise; a refused
//! input is fine. Seeds are made by the project's own encoders, so they follow the formats.

mod files;
mod messages;

use pawl::base::Rng;

/// A decoder under fire.
pub struct Target {
    pub name: &'static str,
    /// Good inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Gets the input, and dice for whatever else it has to choose.
    pub run: fn(&[u8], &mut Rng),
}

pub const ALL: &[Target] = &[
    Target { name: "command", seeds: messages::command_seeds, run: messages::command },
    Target { name: "line", seeds: messages::line_seeds, run: messages::line },
    Target { name: "peer", seeds: messages::peer_seeds, run: messages::peer },
    Target { name: "snapshot", seeds: files::snapshot_seeds, run: files::snapshot },
    Target { name: "store", seeds: files::store_seeds, run: files::store },
    Target { name: "wal", seeds: files::wal_seeds, run: files::wal },
];
