//! What clients ask of locks and elections: they want them, wait or not, give them back, proclaim, and ask who leads.

use std::collections::VecDeque;

use bytes::Bytes;

use super::lease_load::Pool as Leases;
use super::stream::log_uniform;
use crate::api::{Acquire, Delete, LockRequest, Put, Request, Span, lock};
use crate::base::Rng;

/// Keys that were granted once: some are given back long after.
const REMEMBERED: usize = 12;

/// The longest wait that is asked for.
const WAIT_MS_MAX: u64 = 2_000;

/// What all clients know of locks.
pub struct Pool {
    /// So many names are fought for; 0: no locks in this run.
    names: u64,
    /// The newest last.
    granted: VecDeque<Bytes>,
}

impl Pool {
    pub fn new(names: u64) -> Pool {
        Pool { names, granted: VecDeque::new() }
    }

    pub fn granted(&mut self, key: &Bytes) {
        self.granted.retain(|known| known != key);
        self.granted.push_back(key.clone());
        if self.granted.len() > REMEMBERED {
            self.granted.pop_front();
        }
    }

    /// None: something else.
    pub fn next(&self, rng: &mut Rng, leases: &Leases, number: usize) -> Option<LockRequest> {
        if self.names == 0 || !rng.one_in(3) {
            return None;
        }
        let name = |rng: &mut Rng| Bytes::from(format!("lock{}", rng.below(self.names)));
        Some(match rng.below(100) {
            0..50 => {
                let campaign = rng.one_in(3);
                let wait_ms = match rng.below(8) {
                    0 => Some(0),
                    1..5 => Some(log_uniform(rng, 1, WAIT_MS_MAX)),
                    _ => None,
                };
                let value = if campaign { Bytes::from(format!("c{number}-")) } else { Bytes::new() };
                LockRequest::Acquire(Acquire {
                    name: name(rng),
                    value,
                    lease: leases.kept(rng),
                    wait_ms,
                    campaign,
                })
            }
            50..80 => LockRequest::Release { key: self.key(rng, leases, name) },
            80..90 => {
                let value = Bytes::from(format!("p{number}-"));
                LockRequest::Proclaim { key: self.key(rng, leases, name), value }
            }
            _ => LockRequest::Leader { name: name(rng) },
        })
    }

    /// Mostly one that was granted, lately.
    fn key(&self, rng: &mut Rng, leases: &Leases, name: impl Fn(&mut Rng) -> Bytes) -> Bytes {
        let newest = self.granted.len().saturating_sub(1 + rng.below(4) as usize);
        match self.granted.get(newest) {
            Some(key) if !rng.one_in(8) => key.clone(),
            _ => lock::lock_key(&name(rng), leases.kept(rng)),
        }
    }
}

/// The same in the words of keys, where there are such words: what the judges are told.
pub fn plain(request: &LockRequest) -> Option<Request> {
    Some(match request {
        LockRequest::Acquire(_) | LockRequest::Observe { .. } => return None,
        LockRequest::Release { key } => {
            Request::Delete(Delete { span: Span::Key(key.clone()), prev_kv: false })
        }
        LockRequest::Proclaim { key, value } => {
            let (key, value) = (key.clone(), value.clone());
            Request::Put(Put { key, value, ignore_lease: true, ..Put::default() })
        }
        LockRequest::Leader { name } => first_of(name),
    })
}

/// Who owns a lock.
pub fn first_of(name: &[u8]) -> Request {
    Request::Range(lock::first_of(name))
}
