//! Leases: from words, and to RESP.

use super::command::{Call, decimal, last_options};
use super::reply::Shape;
use super::resp::Resp;
use super::table::{Opt, Run};
use crate::api::{Fault, LeaseAnswer, LeaseRequest, LeaseTime, Request};
use crate::base::LeaseId;

/// None: it is another command.
pub fn request(call: Call<'_>) -> Result<Option<(Request, Shape)>, Fault> {
    let first = call.first;
    let asked = match call.spec.run {
        Run::LeaseGrant => {
            let ttl_s = ttl(call.words.get(first));
            let ttl_s = ttl_s.ok_or_else(|| call.fault_at(first, "must be a TTL, whole seconds"))?;
            let id = last_options(call, first + 1)?.value(Opt::Id).cast_signed();
            LeaseRequest::Grant { id, ttl_s }
        }
        Run::LeaseRevoke => LeaseRequest::Revoke { id: id(call, first)? },
        Run::LeaseKeepAlive => {
            let ids = (first..call.words.count()).map(|word| id(call, word));
            LeaseRequest::KeepAlive { ids: ids.collect::<Result<_, _>>()? }
        }
        Run::LeaseTtl => {
            let keys = last_options(call, first + 1)?.has(Opt::Keys);
            LeaseRequest::TimeToLive { id: id(call, first)?, keys }
        }
        Run::LeaseList => LeaseRequest::List,
        _ => return Ok(None),
    };
    let shape = if call.spec.run == Run::LeaseRevoke { Shape::Ok } else { Shape::Lease };
    Ok(Some((Request::Lease(asked), shape)))
}

pub fn id(call: Call<'_>, word: usize) -> Result<LeaseId, Fault> {
    let id = decimal(call.words.get(word)).map(u64::cast_signed);
    id.ok_or_else(|| call.fault_at(word, "must be the id of a lease, a decimal number below 2^63"))
}

/// As etcd does: what is below zero is a short one.
fn ttl(word: &[u8]) -> Option<i64> {
    match word.strip_prefix(b"-") {
        Some(digits) => decimal(digits).map(|number| -number.cast_signed()),
        None => decimal(word).map(u64::cast_signed),
    }
}

/// What is not answered with `OK`.
pub fn write(answer: &LeaseAnswer, resp: &mut Resp<'_>) {
    match answer {
        LeaseAnswer::Granted { id, ttl_s } => {
            resp.array(2);
            resp.signed(*id);
            resp.integer(*ttl_s);
        }
        LeaseAnswer::Kept(ttls) => {
            resp.array(ttls.len());
            ttls.iter().for_each(|ttl_s| resp.integer(*ttl_s));
        }
        LeaseAnswer::TimeToLive { id, time, keys } => {
            resp.map(4);
            resp.text("id");
            resp.signed(*id);
            resp.text("ttl");
            match time {
                Some(LeaseTime { remaining_s, .. }) => resp.integer(*remaining_s),
                None => resp.signed(-1),
            }
            resp.text("granted_ttl");
            resp.integer(time.unwrap_or_default().granted_s);
            resp.text("keys");
            resp.array(keys.len());
            keys.iter().for_each(|key| resp.bulk(key));
        }
        LeaseAnswer::List(ids) => {
            resp.array(ids.len());
            ids.iter().for_each(|id| resp.signed(*id));
        }
        LeaseAnswer::Revoked { .. } => unreachable!("a revocation is answered OK"),
    }
}
