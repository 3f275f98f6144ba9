//! The core's outer face.

use bytes::Bytes;

use crate::base::{EntryId, Index, MemberId, Mono};

use super::config::{Config, PeerStanding, Refused, Role, Start, TransferRefused};
use super::types::{LogView, Membership, Message, Ready, Standing};

/// One member's consensus state.
pub struct Raft {
    config: Config,
    membership: Membership,
}

impl Raft {
    pub fn new(config: Config, start: Start, _log: &impl LogView, _now: Mono) -> Raft {
        Raft { config, membership: start.membership }
    }
    pub fn step(&mut self, _message: Message, _now: Mono, _log: &impl LogView) {}
    pub fn tick(&mut self, _now: Mono, _log: &impl LogView) {}
    /// When `tick` is needed next.
    pub fn deadline(&self) -> Mono {
        Mono::NEVER
    }
    /// All of the payloads become entries, or none.
    pub fn propose(&mut self, _payloads: Vec<Bytes>, _now: Mono, _log: &impl LogView) -> Result<(), Refused> {
        Err(Refused::Busy)
    }
    pub fn read_index(&mut self, _id: u64, _now: Mono) -> Result<(), Refused> {
        Err(Refused::Busy)
    }
    pub fn has_ready(&self) -> bool {
        false
    }
    pub fn ready(&mut self, _log: &impl LogView) -> Option<Ready> {
        None
    }
    pub fn persisted(&mut self, _number: u64, _log: &impl LogView) {}
    pub fn applied(&mut self, _index: Index) {}
    pub fn transfer(&mut self, _to: MemberId, _now: Mono) -> Result<(), TransferRefused> {
        Err(TransferRefused::NoTarget)
    }
    pub fn transferring(&self) -> bool {
        false
    }
    /// False: the log already holds `at`, or more; a snapshot of it must not be installed. Ask again right
    /// before the log is reset.
    pub fn wants_snapshot(&self, _at: EntryId, _log: &impl LogView) -> bool {
        false
    }
    pub fn snapshot_installed(&mut self, _at: EntryId, _membership: Membership, _log: &impl LogView) {}
    pub fn report_snapshot(&mut self, _to: MemberId, _outcome: Result<EntryId, ()>) {}
    pub fn peer_lost(&mut self, _id: MemberId, _now: Mono) {}
    pub fn log_fetched(&mut self) {}
    pub fn standing(&self) -> Standing {
        Standing::default()
    }
    pub fn role(&self) -> Role {
        Role::Follower
    }
    pub fn peers(&self) -> Vec<PeerStanding> {
        Vec::new()
    }
    pub fn membership(&self) -> &Membership {
        &self.membership
    }
    pub fn id(&self) -> MemberId {
        self.config.id
    }
}
