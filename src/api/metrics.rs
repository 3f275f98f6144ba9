//! What a member counts of itself: plain numbers, one value for whoever shows them (`/metrics`, `INFO`).
//!
//! Each number is kept where the thing happens, as an integer of the one thread that owns it; nothing here is shared
//! or locked. Who is asked puts them together: the node fills in its part as it answers [`Request::Metrics`], and
//! the shell adds its own to the answer on its way out. Counters begin at 0 with the process.
//!
//! [`Request::Metrics`]: super::Request::Metrics

use super::{Body, Code, Command, Request, Status};
use crate::base::{Histogram, MemberId};

/// Everything that is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    pub status: Status,
    pub counts: Counts,
    pub gauges: Gauges,
    /// As leader: from the begin of a round of messages to a member until its answer came. Its disk is part of it
    /// where the messages brought entries.
    pub round_trips: Vec<(MemberId, Histogram)>,
    pub shell: Shell,
}

/// What the node counts as it happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often another member, or this one, was seen to lead that did not before.
    pub leader_changes: u64,
    /// Writes that ended without being known to have happened.
    pub proposals_failed: u64,
    /// Linearizable reads that nobody confirmed in time.
    pub read_indexes_failed: u64,
    /// Applied here, inside of transactions or not.
    pub puts: u64,
    pub deletes: u64,
    pub txns: u64,
    /// Ranges read here.
    pub ranges: u64,
    /// Events told to watchers.
    pub events: u64,
    pub leases_granted: u64,
    /// By request or because they ended.
    pub leases_revoked: u64,
    /// The latter alone.
    pub leases_expired: u64,
    /// As leader.
    pub leases_renewed: u64,
    /// By [`Request::number`].
    pub requests: [u64; Request::NAMES.len()],
    /// Answers that were faults, by the code's place in [`Code::ALL`].
    pub faults: [u64; Code::ALL.len()],
    /// From the decoding of a write to its answer.
    pub writes: Histogram,
}

impl Counts {
    /// An entry was applied, with this answer.
    pub fn note_applied(&mut self, command: &Command, answer: &Body) {
        self.note_answer(answer);
        match command {
            Command::LeaseGrant { .. } if !matches!(answer, Body::Fault(_)) => self.leases_granted += 1,
            // Term 0 is a client's request.
            Command::LeaseRevoke { term, leases } if !matches!(answer, Body::Fault(_)) => {
                self.leases_revoked += leases.len() as u64;
                self.leases_expired += if *term == 0 { 0 } else { leases.len() as u64 };
            }
            _ => {}
        }
    }

    /// Transactions nest no deeper than the gate lets them (`TXN_DEPTH_MAX`).
    fn note_answer(&mut self, answer: &Body) {
        match answer {
            Body::Put { .. } => self.puts += 1,
            Body::Delete { .. } => self.deletes += 1,
            Body::Txn(txn) => {
                self.txns += 1;
                txn.responses.iter().for_each(|answer| self.note_answer(answer));
            }
            _ => {}
        }
    }
}

/// What is true at this moment and not part of a member's [`Status`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Writes that wait to be applied here.
    pub proposals_pending: u64,
    /// Their bytes.
    pub proposal_bytes_pending: u64,
    /// Reads that wait for an index.
    pub reads_pending: u64,
    pub keys: u64,
    pub watchers: u64,
    /// Connections with watchers.
    pub watch_streams: u64,
    /// Watchers that are behind the store.
    pub slow_watchers: u64,
    /// A snapshot is taking the place of the state.
    pub installing: bool,
    /// Changed pages that the tree's file has not got yet.
    pub dirty_bytes: u64,
    /// 0: no quota.
    pub quota_bytes: u64,
    /// This member is getting back what it lost.
    pub repairing: bool,
}

/// What the shell counts: sockets, threads, the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shell {
    /// Syncs of the log, the write before each left out.
    pub log_syncs: Histogram,
    /// What was written to the log's segments.
    pub log_bytes: u64,
    /// Checkpoints of the tree, from the first page written to the meta page durable.
    pub checkpoints: Histogram,
    /// Turns of the loop.
    pub turns: u64,
    pub clients: Clients,
    pub peers: Vec<Peer>,
    pub process: Process,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    pub open: u64,
    pub accepted: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

/// Another member, as far as sockets go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    pub id: MemberId,
    /// The connection to it is up.
    pub connected: bool,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Messages that could not be sent and were dropped.
    pub dropped: u64,
    /// How often a connection to it ended that had been up.
    pub disconnects: u64,
}

/// What the system says of the process; zeroes where it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub started_unix_ms: u64,
    pub cpu_ms: u64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub open_files: u64,
    pub open_files_max: u64,
}

#[cfg(test)]
mod tests {
    use super::super::{Fault, LeaseAnswer, LeaseRef, Put, TxnResult};
    use super::*;

    #[test]
    fn what_a_transaction_holds_is_counted_with_it() {
        let put = || Body::Put { revision: 5, previous: None };
        let delete = Body::Delete { revision: 5, deleted: 0, previous: Vec::new() };
        let inner = TxnResult { responses: vec![put(), delete], ..TxnResult::default() };
        let outer = TxnResult { responses: vec![put(), Body::Txn(inner)], ..TxnResult::default() };
        let mut counts = Counts::default();
        counts.note_applied(&Command::Put(Put::default()), &Body::Txn(outer));
        counts.note_applied(&Command::Put(Put::default()), &Body::Fault(Fault::no_space()));
        assert_eq!((counts.puts, counts.deletes, counts.txns), (2, 1, 2));
    }

    #[test]
    fn leases_end_by_request_or_by_themselves() {
        let leases = vec![LeaseRef { id: 1, generation: 0 }, LeaseRef { id: 2, generation: 0 }];
        let revoked = Body::Lease(LeaseAnswer::Revoked { revision: 2, deleted: 0 });
        let mut counts = Counts::default();
        counts.note_applied(&Command::LeaseRevoke { term: 3, leases: leases.clone() }, &revoked);
        counts.note_applied(&Command::LeaseRevoke { term: 0, leases: leases[..1].to_vec() }, &revoked);
        let none = Body::Fault(Fault::no_lease());
        counts.note_applied(&Command::LeaseRevoke { term: 0, leases }, &none);
        let grant = Command::LeaseGrant { id: 1, ttl_s: 9 };
        counts.note_applied(&grant, &Body::Lease(LeaseAnswer::Granted { id: 1, ttl_s: 9 }));
        counts.note_applied(&grant, &Body::Fault(Fault::lease_exists()));
        assert_eq!((counts.leases_granted, counts.leases_revoked, counts.leases_expired), (1, 3, 2));
    }
}
