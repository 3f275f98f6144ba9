//! What the shell counts: threads' work, turns, connections, bytes. Numbers of the one thread that runs the loop.

use super::pipe::Traffic;
use crate::api::metrics::{Clients, Peer, Process, Shell};
use crate::base::Histogram;
use crate::base::time::Nanos;
use crate::io::process;
use crate::node::Written;

#[derive(Debug, Default)]
pub(super) struct ShellCounts {
    started_unix_ms: u64,
    log_syncs: Histogram,
    log_bytes: u64,
    checkpoints: Histogram,
    pub(super) turns: u64,
    /// Connections of clients that were ever taken.
    pub(super) accepted: u64,
    received_bytes: u64,
    sent_bytes: u64,
}

impl ShellCounts {
    pub(super) fn new(started_unix_ms: u64) -> ShellCounts {
        ShellCounts { started_unix_ms, ..ShellCounts::default() }
    }

    pub(super) fn note_written(&mut self, written: &Written) {
        written.sync_times.iter().for_each(|took| self.log_syncs.observe(*took));
        self.log_bytes += written.bytes;
    }

    pub(super) fn note_checkpoint(&mut self, took: Option<Nanos>) {
        if let Some(took) = took {
            self.checkpoints.observe(took);
        }
    }

    pub(super) fn note_traffic(&mut self, traffic: Traffic) {
        self.received_bytes += traffic.received_bytes;
        self.sent_bytes += traffic.sent_bytes;
    }

    /// All of it, and what the system says of the process now.
    pub(super) fn collect(&self, open: usize, peers: Vec<Peer>) -> Shell {
        let usage = process::usage();
        Shell {
            log_syncs: self.log_syncs,
            log_bytes: self.log_bytes,
            checkpoints: self.checkpoints,
            turns: self.turns,
            clients: Clients {
                open: open as u64,
                accepted: self.accepted,
                received_bytes: self.received_bytes,
                sent_bytes: self.sent_bytes,
            },
            peers,
            process: Process {
                started_unix_ms: self.started_unix_ms,
                cpu_ms: usage.cpu_ms,
                resident_bytes: usage.resident_bytes,
                virtual_bytes: usage.virtual_bytes,
                open_files: usage.open_files,
                open_files_max: usage.open_files_max,
            },
        }
    }
}
