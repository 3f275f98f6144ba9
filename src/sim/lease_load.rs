//! What clients ask of leases: they grant, renew, let go, revoke, attach, put again without, and look.

use std::collections::VecDeque;

use super::stream::log_uniform;
use crate::api::{LeaseRequest, Put, Request};
use crate::base::{LeaseId, Rng};

/// Leases that were granted once and are asked for now and then: gone ones must not come back.
const REMEMBERED: usize = 40;

/// Ids that clients choose: so few that they are used again.
const CHOSEN: u64 = 3;

/// What all clients know of leases.
pub struct Pool {
    /// So many are kept alive at a time; 0: no leases in this run.
    size: u64,
    ttl_max: u64,
    /// The newest last.
    granted: VecDeque<LeaseId>,
}

/// What comes next.
pub enum Asks {
    Of(Request),
    /// A put, attached to it.
    PutWith(LeaseId),
    /// A put that keeps what its key is attached to.
    PutKeeping,
}

impl Pool {
    pub fn new(size: u64, ttl_max: u64) -> Pool {
        Pool { size, ttl_max, granted: VecDeque::new() }
    }

    pub fn granted(&mut self, id: LeaseId) {
        self.granted.retain(|known| *known != id);
        self.granted.push_back(id);
        if self.granted.len() > REMEMBERED {
            self.granted.pop_front();
        }
    }

    /// None: something else.
    pub fn next(&self, rng: &mut Rng) -> Option<Asks> {
        if self.is_empty() || rng.one_in(2) {
            return None;
        }
        let request = match rng.below(100) {
            0..12 => {
                let id = if rng.one_in(3) { rng.between(1, CHOSEN).cast_signed() } else { 0 };
                let ttl_s = log_uniform(rng, 1, self.ttl_max).cast_signed();
                LeaseRequest::Grant { id, ttl_s: if rng.one_in(20) { -ttl_s } else { ttl_s } }
            }
            12..38 => {
                let count = if rng.one_in(8) { rng.between(2, 4) } else { 1 };
                LeaseRequest::KeepAlive { ids: (0..count).map(|_| self.kept(rng)).collect() }
            }
            38..52 => LeaseRequest::TimeToLive { id: self.any(rng), keys: rng.one_in(2) },
            52..57 => LeaseRequest::Revoke { id: self.any(rng) },
            57..61 => LeaseRequest::List,
            61..66 => return Some(Asks::PutKeeping),
            _ => return Some(Asks::PutWith(self.kept(rng))),
        };
        Some(Asks::Of(Request::Lease(request)))
    }

    /// No leases in this run.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Some puts in transactions are attached too, and some keep what their key is attached to.
    pub fn attach(&self, rng: &mut Rng, put: &mut Put) {
        if self.is_empty() {
            return;
        }
        match rng.below(20) {
            0..8 => put.lease = self.kept(rng),
            8 => put.ignore_lease = true,
            _ => {}
        }
    }

    /// One of those that are kept alive: the newest, which the next ones will push out.
    pub fn kept(&self, rng: &mut Rng) -> LeaseId {
        let newest = self.granted.iter().rev().take(self.size as usize);
        pick(newest.copied().collect(), rng)
    }

    fn any(&self, rng: &mut Rng) -> LeaseId {
        if rng.one_in(2) { self.kept(rng) } else { pick(self.granted.iter().copied().collect(), rng) }
    }
}

/// Once in eight one of the ids that clients choose, granted or not.
fn pick(ids: Vec<LeaseId>, rng: &mut Rng) -> LeaseId {
    if ids.is_empty() || rng.one_in(8) {
        return rng.between(1, CHOSEN).cast_signed();
    }
    ids[rng.below(ids.len() as u64) as usize]
}
