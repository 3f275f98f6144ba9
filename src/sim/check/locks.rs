//! Locks, by what is promised of them: a key of the lease's own under the lock's name, put by whoever asks, and taken back by
//! whoever no longer waits; and its owner is told when no key under the name is older.
//!
//! So of every grant there must be a revision, between question and answer, at which the key that is told was there, created
//! in the revision that is told and attached to the lease, and all others under the name were created later. Nothing else need be
//! held against anything: that two owners differ in their revisions, that these rise, and that the first is gone
//! before the second is told, all follow, because the replay has each key once and creates no key twice.

use bytes::Bytes;

use super::super::history::{Op, Outcome};
use super::model::Model;
use crate::api::{Acquire, Code, LockRequest, Request, Span, lock};
use crate::base::Revision;

/// What an operation asks, if it is for a lock.
pub(super) fn acquire(op: &Op) -> Option<&Acquire> {
    match &op.request {
        Request::Lock(LockRequest::Acquire(acquire)) => Some(acquire),
        _ => None,
    }
}

pub(super) fn key(acquire: &Acquire) -> Bytes {
    lock::lock_key(&acquire.name, acquire.lease)
}

/// Whether it may have put its key, and whether it may have taken it back.
pub(super) fn may_have(op: &Op) -> (bool, bool) {
    let Some(acquire) = acquire(op) else { return (false, false) };
    match op.outcome {
        Outcome::Unknown => (true, true),
        Outcome::Answered { .. } => (true, false),
        // It has waited long enough, unless it wanted to wait for ever. (Who does not want to wait at all may have a place already.)
        Outcome::Refused { code: Code::Busy, .. } => (acquire.wait_ms.is_some(), acquire.wait_ms.is_some()),
        Outcome::Refused { .. } => (false, false),
    }
}

/// The last revision up to `upto` at which the key stood first, if it did at `from` or later. Who is first stays so until
/// the key goes, and who once was there and was not first at the end never was.
pub(super) fn first_until(
    model: &Model,
    acquire: &Acquire,
    created: Revision,
    from: Revision,
    upto: Revision,
) -> Result<Revision, String> {
    let own = key(acquire);
    let gone = model.since(&own, created).find(|(_, kv)| kv.is_none_or(|kv| kv.create_revision != created));
    let last = gone.map_or(upto, |(at, _)| upto.min(at - 1));
    let Some(kv) = model.at(&own, last).filter(|kv| kv.create_revision == created) else {
        return Err(format!("no such key was created in revision {created}"));
    };
    if last < from {
        return Err(format!(
            "the key was gone behind revision {last}, and the store was at {from} before the question"
        ));
    }
    if kv.lease != acquire.lease {
        return Err(format!("the key was attached to lease {} at revision {last}", kv.lease));
    }
    let under = model.span(&Span::Prefix(lock::lock_prefix(&acquire.name)), last);
    match under.iter().find(|other| other.create_revision < created) {
        Some(older) => Err(format!(
            "at revision {last} there was an older key, of lease {}, created in {}",
            older.lease, older.create_revision
        )),
        None => Ok(last),
    }
}
