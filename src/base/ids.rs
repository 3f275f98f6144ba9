//! Names of things. They are plain integers: the arithmetic of terms and indexes is the arithmetic of
//! integers, and where two of them travel together (and could be swapped) they travel as [`EntryId`].

use std::fmt;

/// A member of the cluster. Derived as etcd derives it (see [`member_id`]); 0 means "none".
pub type MemberId = u64;

/// A cluster. Derived as etcd derives it (see [`cluster_id`]).
pub type ClusterId = u64;

/// A Raft term; 0 is before the first election.
pub type Term = u64;

/// A position in the replicated log; the first entry has index 1, and 0 is "before the log".
pub type Index = u64;

/// A revision of the whole store (etcd's main revision). A new store is at revision 1, like etcd's.
pub type Revision = u64;

/// A lease. Chosen by a client or by the member that it asks; any number but 0, which means "none". etcd's are signed.
pub type LeaseId = i64;

/// Identity of a log entry: two entries with the same term and index are the same entry, and so are
/// all entries before them (Raft paper, §5.3, the log matching property).
///
/// Ordered by term first: of two logs the one with the greater last id is the more up to date (§5.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    pub term: Term,
    pub index: Index,
}

impl EntryId {
    /// Before the first entry.
    pub const ZERO: EntryId = EntryId { term: 0, index: 0 };

    pub const fn new(term: Term, index: Index) -> EntryId {
        EntryId { term, index }
    }
}

/// `index@term`, the notation of logs and golden files.
impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// The id of a member that is part of the initial cluster: the first 8 bytes, big-endian, of SHA-1 over its
/// sorted peer URLs joined together, then the cluster token. The same rule as etcd's, so that tools which
/// print or compare ids agree.
pub fn member_id(peer_urls: &[String], token: &str) -> MemberId {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut text = urls.concat();
    text.push_str(token);
    first_8_of_sha1(text.as_bytes())
}

/// The id of a member that is added at run time: as [`member_id`], without a token and with the decimal seconds since
/// 1970 behind the URLs, so that a member that comes back under the same URLs is another one.
pub fn member_id_at(peer_urls: &[String], unix_s: u64) -> MemberId {
    member_id(peer_urls, &unix_s.to_string())
}

/// The id of a cluster: the first 8 bytes, big-endian, of SHA-1 over its sorted member ids, 8 bytes
/// big-endian each.
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut sorted = members.to_vec();
    sorted.sort_unstable();
    let bytes: Vec<u8> = sorted.iter().flat_map(|id| id.to_be_bytes()).collect();
    first_8_of_sha1(&bytes)
}

fn first_8_of_sha1(bytes: &[u8]) -> u64 {
    use sha1::{Digest, Sha1};
    let digest = Sha1::digest(bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// etcd 3.5 prints these ids for its own default single member and for the Procfile of its repository.
    #[test]
    fn ids_are_those_that_etcd_prints() {
        let member = member_id(&["http://localhost:2380".into()], "etcd-cluster");
        assert_eq!(format!("{member:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id(&[member])), "cdf818194e3a8c32");
        // `etcdctl member add` on 2026-11-22 at 21:34:28 UTC.
        let added = member_id_at(&["http://127.0.0.1:25380".into()], 1_795_383_268);
        assert_eq!(format!("{added:x}"), "b544a267108e299b");
        let infra: Vec<MemberId> = ["12380", "22380", "32380"]
            .iter()
            .map(|port| member_id(&[format!("http://127.0.0.1:{port}")], "etcd-cluster-1"))
            .collect();
        assert_eq!(format!("{:x}", infra[0]), "8211f1d0f64f3269");
        assert_eq!(format!("{:x}", infra[1]), "91bc3c398fb3c146");
        assert_eq!(format!("{:x}", infra[2]), "fd422379fda50e48");
        assert_eq!(format!("{:x}", cluster_id(&infra)), "ef37ad9dc622a7c4");
    }
}
