//! The members of a cluster, for somebody who is to join it.
//!
//! ```text
//! count u32 | per member: id u64 | learner u8 | name blob | count u32 | peer URL blob* | count u32 | client URL blob*
//! ```

use bytes::{BufMut, BytesMut};

use super::{Body, malformed};
use crate::api::{Fault, Member};
use crate::base::Writer;
use crate::base::limits::MEMBERS_MAX;

/// A member with an empty name and no URLs.
const MEMBER_BYTES_MIN: usize = 21;

pub(super) fn put(members: &[Member], out: &mut BytesMut) {
    let count = |length: usize| u32::try_from(length).expect("a few members with a few URLs");
    out.put_u32_le(count(members.len()));
    for Member { id, name, peer_urls, client_urls, learner } in members {
        out.put_u64_le(*id);
        out.put_u8(u8::from(*learner));
        out.put_blob(name.as_bytes());
        for urls in [peer_urls, client_urls] {
            out.put_u32_le(count(urls.len()));
            for url in urls {
                out.put_blob(url.as_bytes());
            }
        }
    }
}

pub(super) fn take(body: &mut Body<'_>) -> Result<Vec<Member>, Fault> {
    let count = body.count(MEMBER_BYTES_MIN)?;
    if count > MEMBERS_MAX {
        return Err(malformed(format!("{count} members; a cluster has at most {MEMBERS_MAX}")));
    }
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        let (id, learner, name) = (body.u64()?, body.bool()?, text(body)?);
        let (peer_urls, client_urls) = (texts(body)?, texts(body)?);
        members.push(Member { id, name, peer_urls, client_urls, learner });
    }
    Ok(members)
}

fn text(body: &mut Body<'_>) -> Result<String, Fault> {
    let bytes = body.plain_blob()?;
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed("a text that is not UTF-8".into()))
}

fn texts(body: &mut Body<'_>) -> Result<Vec<String>, Fault> {
    let count = body.count(4)?;
    (0..count).map(|_| text(body)).collect()
}
