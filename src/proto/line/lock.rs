//! Locks and elections: from words, and to RESP.

use super::command::{Call, last_options};
use super::lease;
use super::reply::Shape;
use super::table::{Opt, Run};
use crate::api::{Acquire, Fault, LockRequest, Request};

/// None: it is another command.
pub fn request(call: Call<'_>) -> Result<Option<(Request, Shape)>, Fault> {
    let (first, words) = (call.first, call.words);
    let (asked, shape) = match call.spec.run {
        Run::Lock => (acquire(call, first + 1)?, Shape::Acquired),
        Run::ElectionCampaign => (acquire(call, first + 2)?, Shape::Acquired),
        Run::Unlock | Run::ElectionResign => (LockRequest::Release { key: words.share(first) }, Shape::Ok),
        Run::ElectionProclaim => {
            let (key, value) = (words.share(first), words.share(first + 1));
            (LockRequest::Proclaim { key, value }, Shape::Ok)
        }
        Run::ElectionLeader => (LockRequest::Leader { name: words.share(first) }, Shape::First),
        _ => return Ok(None),
    };
    Ok(Some((Request::Lock(asked), shape)))
}

/// `... LEASE id [WAIT ms]`; LEASE is this word.
fn acquire(call: Call<'_>, lease: usize) -> Result<LockRequest, Fault> {
    let words = call.words;
    if !words.is(lease, "LEASE") {
        return Err(call.fault_at(lease, "must be LEASE: a lock goes with a lease"));
    }
    let given = last_options(call, lease + 2)?;
    let campaign = call.spec.run == Run::ElectionCampaign;
    Ok(LockRequest::Acquire(Acquire {
        name: words.share(call.first),
        value: if campaign { words.share(call.first + 1) } else { bytes::Bytes::new() },
        lease: lease::id(call, lease + 1)?,
        wait_ms: given.has(Opt::Wait).then(|| given.value(Opt::Wait)),
        campaign,
    }))
}
